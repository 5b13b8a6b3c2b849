//! What firmware is told of its machine, as items of its configuration device.
//!
//! | file | what | who reads it |
//! |---|---|---|
//! | `etc/e820` | RAM, and KVM's own pages | both: without it they go by CMOS |
//! | `etc/acpi/rsdp`, `etc/acpi/tables`, `etc/table-loader` | ACPI | both |
//! | `bootorder` | devices to boot from, by Open Firmware's names | both |
//! | `etc/boot-menu-wait` | milliseconds in which a key brings the menu | both |
//! | `etc/boot-fail-wait` | never start again by itself when nothing boots | SeaBIOS |
//! | `etc/sercon-port` | the port of a serial console, for want of a display | SeaBIOS |
//!
//! The tables are made when they are selected, as they say where configuration space is, which firmware decides
//! before it asks for them.

use reeve_devices::legacy::fw_cfg::{Items, ItemsError, Render, key};
use reeve_devices::pci::root::EcamPlace;

use crate::arch::x86_64::acpi::{AcpiConfig, loader};
use crate::arch::x86_64::layout;
use crate::build::Board;
use crate::build::board::FIRMWARE_KVM_PAGES;
use crate::memory::GuestMemory;

/// Kinds of an entry of the memory map.
const RAM: u32 = 1;
const RESERVED: u32 = 2;
/// For ever.
const NEVER: u32 = u32::MAX;

/// A device to boot from, by its slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BootTarget {
    /// A disk.
    Disk(u8),
    /// A network interface.
    Nic(u8),
}

impl BootTarget {
    /// Its name in the device tree of Open Firmware, as QEMU makes it.
    fn path(self) -> String {
        match self {
            Self::Disk(slot) => format!("/pci@i0cf8/scsi@{slot:x}/disk@0,0"),
            Self::Nic(slot) => format!("/pci@i0cf8/ethernet@{slot:x}/ethernet-phy@0"),
        }
    }
}

/// What depends on the machine's definition.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Content {
    /// The machine's UUID, highest byte first.
    pub uuid: [u8; 16],
    /// The devices to boot from, the first one first. Without any it is the firmware's choice.
    pub order: Vec<BootTarget>,
    /// Milliseconds in which a key brings a boot menu, if there is one.
    pub menu: Option<u16>,
    /// There is no display: SeaBIOS' screen is on COM1.
    pub serial: bool,
}

impl Content {
    /// The items for a machine with `memory` and `tables` on `board`, whose configuration space is at `place`.
    pub(super) fn items(
        &self,
        memory: &GuestMemory,
        tables: &AcpiConfig,
        board: &Board,
        place: &EcamPlace,
    ) -> Result<Items, ItemsError> {
        let count = |vcpus: u32| u16::try_from(vcpus).unwrap_or(u16::MAX).to_le_bytes();
        let mut items = Items::new();
        items.add(key::UUID, self.uuid.to_vec());
        items.add(key::CPUS, count(tables.vcpus).to_vec());
        items.add(key::MAX_CPUS, count(tables.max_vcpus).to_vec());
        items.add(key::TIMER_AT_PIN_2, 1_u32.to_le_bytes().to_vec());
        items.add_file("etc/e820", memory_map(memory))?;
        items.add_file("etc/boot-fail-wait", NEVER.to_le_bytes().to_vec())?;
        if let Some(wait) = self.menu {
            items.add(key::BOOT_MENU, 1_u16.to_le_bytes().to_vec());
            items.add_file("etc/boot-menu-wait", wait.to_le_bytes().to_vec())?;
        }
        if !self.order.is_empty() {
            items.add_file("bootorder", self.boot_order())?;
        }
        if self.serial {
            let port = layout::COM1.start.to_le_bytes().to_vec();
            items.add_file("etc/sercon-port", port)?;
        }
        let live = LiveTables {
            config: tables.clone(),
            board: board.clone(),
            place: place.clone(),
        };
        let files = loader::files(tables);
        items.add_file(loader::RSDP, files.rsdp)?;
        items.add_file(loader::SCRIPT, files.script)?;
        items.add_live_file(loader::TABLES, files.tables, Box::new(live))?;
        Ok(items)
    }

    /// One name a line, and a NUL.
    fn boot_order(&self) -> Vec<u8> {
        let names: Vec<_> = self.order.iter().map(|target| target.path()).collect();
        let mut order = names.join("\n").into_bytes();
        order.push(0);
        order
    }
}

/// The memory map: 64 bits of address, 64 of length, 32 of kind for each range.
fn memory_map(memory: &GuestMemory) -> Vec<u8> {
    let ram = memory
        .regions()
        .map(|region| (region.guest_address, region.size, RAM));
    let own = FIRMWARE_KVM_PAGES;
    let own = (own.start, own.end - own.start, RESERVED);
    let mut map = Vec::new();
    for (address, len, kind) in ram.chain([own]) {
        map.extend_from_slice(&address.to_le_bytes());
        map.extend_from_slice(&len.to_le_bytes());
        map.extend_from_slice(&kind.to_le_bytes());
    }
    map
}

/// The tables, with configuration space where it is.
struct LiveTables {
    config: AcpiConfig,
    board: Board,
    place: EcamPlace,
}

impl Render for LiveTables {
    fn render(&self, bytes: &mut [u8]) {
        let files = loader::files(&AcpiConfig {
            ecam: self.board.ecam(self.place.base()),
            ..self.config.clone()
        });
        // Of the same length wherever configuration space is; were they not, the guest would get a part.
        let made = files.tables.iter().chain(std::iter::repeat(&0));
        for (target, byte) in bytes.iter_mut().zip(made) {
            *target = *byte;
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::fs::{MemfdFlags, SealFlags};

    use super::*;
    use crate::memory::Backing;

    const GIB: u64 = 1 << 30;

    fn memory(size: u64, board: &Board) -> GuestMemory {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let fd = rustix::fs::memfd_create("memory", flags).unwrap();
        rustix::fs::ftruncate(&fd, size).unwrap();
        rustix::fs::fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW).unwrap();
        GuestMemory::map_around(Backing::Shared { fd }, size, None, board.gap_start).unwrap()
    }

    fn entries(map: &[u8]) -> Vec<(u64, u64, u32)> {
        let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap());
        let entry = |entry: &[u8]| {
            let kind = u32::from_le_bytes(entry[16..].try_into().unwrap());
            (number(&entry[..8]), number(&entry[8..16]), kind)
        };
        map.chunks(20).map(entry).collect()
    }

    #[test]
    fn the_memory_map_has_all_ram_and_the_pages_of_kvm() {
        let board = Board::firmware();
        let own = (0xfeff_c000, 0x4000, RESERVED);
        let map = |size| entries(&memory_map(&memory(size, &board)));
        assert_eq!(map(GIB), [(0, GIB, RAM), own]);
        let high = (4 * GIB, 3 * GIB, RAM);
        assert_eq!(map(5 * GIB), [(0, 2 * GIB, RAM), high, own]);
    }

    #[test]
    fn devices_to_boot_from_have_the_names_that_firmware_looks_for() {
        let content = Content {
            order: vec![BootTarget::Nic(3), BootTarget::Disk(0x1e)],
            ..Content::default()
        };
        let expected = b"/pci@i0cf8/ethernet@3/ethernet-phy@0\n/pci@i0cf8/scsi@1e/disk@0,0\0";
        assert_eq!(content.boot_order(), expected);
    }

    #[test]
    fn the_tables_say_where_firmware_has_put_configuration_space() {
        let board = Board::firmware();
        let config = AcpiConfig {
            vcpus: 2,
            max_vcpus: 4,
            legacy_pic: true,
            window_32: board.window_32.clone(),
            ecam: board.ecam(None),
            pci_window_64: board.window_64(0, 40),
            generation_id: None,
            panic_port: true,
        };
        let live = LiveTables {
            config: config.clone(),
            board,
            place: EcamPlace::default(),
        };
        let made = loader::files(&config).tables;
        let mut bytes = vec![0xee; made.len()];
        live.render(&mut bytes);
        assert_eq!(bytes, made);
        // Were they shorter or longer, nothing of what was there before would be left.
        let mut longer = vec![0xee; made.len() + 2];
        live.render(&mut longer);
        assert_eq!(longer, [&made[..], &[0, 0]].concat());
        live.render(&mut longer[..10]);
    }
}
