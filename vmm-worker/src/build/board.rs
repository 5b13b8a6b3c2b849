//! What a machine type gives its guest, as data: which variants of the fixed devices, and where things are.
//!
//! | | kernel (`reeve-1.0`, `reeve-legacy-1.0`) | firmware |
//! |---|---|---|
//! | starts at | the kernel's entry | the reset vector |
//! | interrupts | I/O APIC here, or KVM's PICs, I/O APIC and PIT | KVM's PICs, I/O APIC and PIT |
//! | RAM below 4 GiB | 3 GiB | 2 GiB |
//! | host bridge | a generic one | a Q35's memory controller hub, and its ISA bridge in slot 31 |
//! | PCI configuration space in memory | at a fixed place | where firmware puts it |
//! | BARs of 32 bits | 512 MiB | from the end of RAM to the I/O APIC |
//! | BARs of 64 bits | 32 GiB behind all RAM | all behind all RAM |
//! | ACPI tables | in memory | in files of the firmware configuration device |
//! | also | | that device, port 0x92, perhaps the debug port |
//!
//! Nothing of the right column exists in a machine of the left one. docs/firmware.md says why the right column is
//! as it is.

use std::ops::Range;

use reeve_ipc::spec::MachineType;

use crate::arch::x86_64::layout;
use crate::kvm::{ControllerKind, KvmPages};

/// How the guest finds PCI.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bridge {
    /// A generic bridge; configuration space is at this place.
    Generic(Range<u64>),
    /// A Q35's; configuration space is where firmware says. Tables that are made before it says anything name
    /// this place.
    Q35(Range<u64>),
}

/// A machine type's choices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Board {
    /// The interrupt controller.
    pub controller: ControllerKind,
    /// Where the gap in the RAM below 4 GiB begins.
    pub gap_start: u64,
    /// Where BARs of 32 bits may be.
    pub window_32: Range<u64>,
    /// Whether BARs of 64 bits may be anywhere behind all RAM.
    pub wide_window_64: bool,
    /// How the guest finds PCI.
    pub bridge: Bridge,
    /// The keyboard controller, which is not there, says so in a way that UEFI firmware understands.
    pub keyboard_errors: bool,
    /// Where KVM may have pages of its own, if that is not where it usually is.
    pub kvm_pages: Option<KvmPages>,
}

/// KVM's pages in a machine with firmware, whose images are where they usually are: four pages below 16 MiB before
/// 4 GiB.
pub const FIRMWARE_KVM_PAGES: Range<u64> = 0xFEFF_C000..0xFF00_0000;

/// Length of configuration space of 256 buses, for which a Q35 keeps room.
const ECAM_BYTES: u64 = 256 << 20;
/// Where the firmware that we know puts it. Later builds of UEFI firmware put it at 0xE000_0000.
const ECAM_USUAL: u64 = 0xB000_0000;

impl Board {
    /// That of a machine whose kernel is loaded by us.
    #[must_use]
    pub fn of(machine: MachineType) -> Self {
        Self {
            controller: match machine {
                MachineType::Reeve1_0 => ControllerKind::Split,
                MachineType::ReeveLegacy1_0 => ControllerKind::InKernel,
            },
            gap_start: layout::MMIO_GAP_START,
            window_32: layout::PCI_WINDOW_32,
            wide_window_64: false,
            bridge: Bridge::Generic(layout::ECAM),
            keyboard_errors: false,
            kvm_pages: None,
        }
    }

    /// That of a machine that starts in firmware.
    #[must_use]
    pub fn firmware() -> Self {
        Self {
            controller: ControllerKind::InKernel,
            // Firmware has configuration space at 0xB000_0000, and RAM must end before.
            gap_start: 0x8000_0000,
            window_32: 0x8000_0000..layout::IOAPIC_BASE.into(),
            wide_window_64: true,
            bridge: Bridge::Q35(ECAM_USUAL..ECAM_USUAL + ECAM_BYTES),
            keyboard_errors: true,
            kvm_pages: Some(KvmPages {
                tss: FIRMWARE_KVM_PAGES.start + 0x1000,
                page_table: Some(FIRMWARE_KVM_PAGES.start),
            }),
        }
    }

    /// Where the tables say that configuration space is, when firmware has put it at `base`.
    #[must_use]
    pub fn ecam(&self, base: Option<u64>) -> Range<u64> {
        match (&self.bridge, base) {
            (Bridge::Q35(_), Some(base)) => base..base.saturating_add(ECAM_BYTES),
            (Bridge::Generic(place) | Bridge::Q35(place), _) => place.clone(),
        }
    }

    /// Where BARs of 64 bits may be in a machine whose RAM ends before `ram_end`.
    #[must_use]
    pub fn window_64(&self, ram_end: u64, address_bits: u32) -> Option<Range<u64>> {
        let window = layout::pci_window_64(ram_end, address_bits)?;
        if !self.wide_window_64 {
            return Some(window);
        }
        let space = 1_u64.checked_shl(address_bits).unwrap_or(u64::MAX);
        Some(window.start..space)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lean_types_are_what_they_were() {
        let lean = Board::of(MachineType::Reeve1_0);
        assert_eq!(lean.controller, ControllerKind::Split);
        assert_eq!(lean.gap_start, 0xC000_0000);
        assert_eq!(lean.window_32, 0xC000_0000..0xE000_0000);
        assert_eq!(lean.ecam(None), 0xE000_0000..0xE010_0000);
        assert_eq!(lean.window_64(0, 39), layout::pci_window_64(0, 39));
        assert_eq!(lean.kvm_pages, None);
    }

    #[test]
    fn firmware_finds_room_where_it_looks_for_it() {
        let board = Board::firmware();
        for base in [0xB000_0000, 0xE000_0000] {
            let ecam = board.ecam(Some(base));
            assert_eq!(ecam.start, base);
            assert!(board.window_32.start <= ecam.start && ecam.end <= board.window_32.end);
        }
        assert!(board.gap_start <= board.window_32.start);
        assert!(u64::from(layout::LAPIC_BASE) < FIRMWARE_KVM_PAGES.start);
        assert_eq!(board.window_64(0, 40), Some(1 << 32..1 << 40));
        assert_eq!(board.window_64(0, 30), None);
    }
}
