//! The guest-physical address map and port map of the machine type `reeve-1.0`.
//!
//! What a guest sees under this name never changes: a new value here is a new machine type. All
//! addresses are guest-physical bytes, all sizes are bytes, and ranges are half open.

use std::ops::Range;

/// Where the MMIO gap starts: RAM below this address is "low" RAM.
pub const MMIO_GAP_START: u64 = 0xC000_0000;
/// Where the MMIO gap ends, and RAM beyond [`MMIO_GAP_START`] bytes continues.
pub const MMIO_GAP_END: u64 = 0x1_0000_0000;

/// First byte of memory that a kernel may occupy.
pub const KERNEL_MIN: u64 = 0x10_0000;

/// End of conventional memory as the memory map reports it (below the extended BIOS data area).
pub const CONVENTIONAL_END: u64 = 0x9_FC00;
/// End of the first 640 KiB.
pub const LOW_640K_END: u64 = 0xA_0000;

/// Boot GDT for the 64-bit protocol (4 entries of 8 bytes).
pub const BOOT_GDT: u64 = 0x500;
/// `hvm_start_info` of the PVH protocol, followed by its module list and memory map.
pub const PVH_START_INFO: u64 = 0x6000;
/// Module list of the PVH start info (one entry of 32 bytes at most).
pub const PVH_MODLIST: u64 = 0x6040;
/// Memory map of the PVH start info (24 bytes an entry).
pub const PVH_MEMMAP: u64 = 0x6080;
/// The zero page (`boot_params`) of the Linux boot protocol, 4096 bytes.
pub const ZERO_PAGE: u64 = 0x7000;
/// Page tables for the 64-bit protocol: PML4, PDPT, then four page directories, 4096 bytes each.
pub const BOOT_PAGE_TABLES: u64 = 0x9000;
/// The kernel command line, NUL-terminated; in the page of the PVH start info, as each page that is
/// touched before the guest runs costs time.
pub const CMDLINE: u64 = 0x6800;
/// Bytes kept for the command line, its terminating NUL included (the limit of Linux on x86).
pub const CMDLINE_CAPACITY: usize = 2048;

/// RSDP and all ACPI tables; within the range that a guest scans for the RSDP.
pub const ACPI: Range<u64> = 0xE_0000..0x10_0000;

/// The generation id, 16 bytes: between the RSDP and the table that follows it, in a page that is written
/// in any case.
pub const GENERATION_ID: Range<u64> = ACPI.start + 0x28..ACPI.start + 0x38;

/// Where functions of the PCI root bus may have BARs of 32 bits.
pub const PCI_WINDOW_32: Range<u64> = MMIO_GAP_START..ECAM.start;
/// Length of the window for BARs of 64 bits, wherever [`pci_window_64`] puts it: 32 GiB.
pub const PCI_WINDOW_64_SIZE: u64 = 32 << 30;
/// Alignment of that window: 1 GiB.
pub const PCI_WINDOW_64_ALIGNMENT: u64 = 1 << 30;
/// The configuration space of PCI Express, by memory: 4096 bytes for each function of bus 0, the
/// only one.
pub const ECAM: Range<u64> = 0xE000_0000..0xE010_0000;

/// The local APICs (in the kernel).
pub const LAPIC_BASE: u32 = 0xFEE0_0000;
/// The IOAPIC.
pub const IOAPIC_BASE: u32 = 0xFEC0_0000;
/// Size of the IOAPIC's register window.
pub const IOAPIC_SIZE: u64 = 0x1000;
/// Pins of the IOAPIC; GSI n is pin n.
pub const IOAPIC_PINS: u8 = 24;
/// Where Intel KVM keeps its real-mode TSS: three pages at the top of the gap.
pub const KVM_TSS: u64 = 0xFFFB_D000;

/// COM1, a 16550A.
pub const COM1: Range<u16> = 0x3F8..0x400;
/// COM1's interrupt.
pub const COM1_GSI: u8 = 4;
/// CMOS index and data ports.
pub const RTC: Range<u16> = 0x70..0x72;
/// The real-time clock's interrupt.
pub const RTC_GSI: u8 = 8;
/// System control port A, in a machine that starts in firmware.
pub const PORT_92: u16 = 0x92;
/// The debug port of firmware.
pub const DEBUG_PORT: u16 = 0x402;
/// The firmware configuration device.
pub const FW_CFG: Range<u16> = 0x510..0x51C;
/// i8042 data port.
pub const I8042_DATA: u16 = 0x60;
/// i8042 command and status port; command 0xFE resets the machine.
pub const I8042_COMMAND: u16 = 0x64;
/// The panic port.
pub const PANIC: Range<u16> = 0x505..0x506;
/// The interrupt of a watchdog's first stage.
pub const WATCHDOG_GSI: u8 = 10;
/// ACPI PM1a event block: status and enable, 16 bits each.
pub const PM1A_EVENT: Range<u16> = 0x600..0x604;
/// ACPI PM1a control register, 16 bits.
pub const PM1A_CONTROL: Range<u16> = 0x604..0x606;
/// ACPI power-management timer, 32 bits at 3.579545 MHz.
pub const PM_TIMER: Range<u16> = 0x608..0x60C;
/// ACPI general-purpose events, block 0: status and enable, 16 bits each.
pub const GPE0: Range<u16> = 0x60C..0x610;
/// The general-purpose event, `\_GPE._E01`, for changes of what is in the slots of the root bus.
pub const PCI_HOTPLUG_GPE: u8 = 1;
/// The general-purpose event, `\_GPE._E02`, for vCPUs that come or shall go.
pub const CPU_HOTPLUG_GPE: u8 = 2;
/// The general-purpose event, `\_GPE._E03`, for a new generation id.
pub const GENERATION_GPE: u8 = 3;
/// Hotplug registers of the root bus's slots.
pub const PCI_HOTPLUG: Range<u16> = 0xAE00..0xAE10;
/// Hotplug registers of the vCPUs.
pub const CPU_HOTPLUG: Range<u16> = 0xAE10..0xAE20;
/// PCI configuration address and data; [`RESET_PORT`] is among them.
pub const PCI_CONFIG: Range<u16> = 0xCF8..0xD00;
/// The ACPI system control interrupt: level triggered, active high.
pub const SCI_GSI: u8 = 9;
/// `SLP_TYP` of the soft-off state S5.
pub const S5_SLEEP_TYPE: u8 = 5;
/// Reset control register.
pub const RESET_PORT: u16 = 0xCF9;
/// What, written to [`RESET_PORT`], resets the machine.
pub const RESET_VALUE: u8 = 0x06;

/// The most vCPUs a machine may have; KVM's own limit may be lower.
///
/// 1024 keeps the ACPI tables within [`ACPI`] with room to spare.
pub const MAX_VCPUS: u16 = 1024;

/// The RAM ranges of a guest with `size` bytes of memory: low RAM, which ends at `gap_start` at most, and high
/// RAM if any is left.
///
/// `None` if `size` is so large that its end has no address.
#[must_use]
pub fn ram_ranges(size: u64, gap_start: u64) -> Option<(Range<u64>, Option<Range<u64>>)> {
    let low = 0..size.min(gap_start);
    let rest = size - low.end;
    if rest == 0 {
        return Some((low, None));
    }
    let end = MMIO_GAP_END.checked_add(rest)?;
    Some((low, Some(MMIO_GAP_END..end)))
}

/// Alignment of the memory that can be plugged in: the largest piece in which Linux takes memory up, which
/// a piece that begins elsewhere is lost to.
pub const BLOCKS_ALIGNMENT: u64 = 2 << 30;

/// Where the `bytes` bytes of memory that can be plugged in, in blocks of `block_bytes`, are in a machine
/// whose other RAM ends before `ram_end`. `None` if their end has no address.
#[must_use]
pub fn block_range(ram_end: u64, bytes: u64, block_bytes: u64) -> Option<Range<u64>> {
    let start = ram_end
        .max(MMIO_GAP_END)
        .checked_next_multiple_of(BLOCKS_ALIGNMENT.max(block_bytes))?;
    Some(start..start.checked_add(bytes)?)
}

/// The window for BARs of 64 bits of a machine whose RAM ends before `ram_end` at any time, and
/// whose CPUs have physical addresses of `address_bits` bits; `None` if there is no room for it.
///
/// It lies right behind the RAM, not at the end of the address space: what that end is depends on
/// the host, and a guest that migrates takes its windows along.
#[must_use]
pub fn pci_window_64(ram_end: u64, address_bits: u32) -> Option<Range<u64>> {
    let space = 1_u64.checked_shl(address_bits).unwrap_or(u64::MAX);
    let start = ram_end
        .max(MMIO_GAP_END)
        .checked_next_multiple_of(PCI_WINDOW_64_ALIGNMENT)?;
    let end = start.checked_add(PCI_WINDOW_64_SIZE)?;
    (end <= space).then_some(start..end)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn the_window_for_wide_bars_follows_the_ram_aligned() {
        let four = 4 * GIB..36 * GIB;
        assert_eq!(pci_window_64(0, 39), Some(four.clone()));
        assert_eq!(pci_window_64(MMIO_GAP_START, 39), Some(four));
        let five = 5 * GIB..37 * GIB;
        assert_eq!(pci_window_64(4 * GIB + 4096, 39), Some(five.clone()));
        assert_eq!(pci_window_64(5 * GIB, 39), Some(five));
        let terabytes = 1 << 45;
        let behind = terabytes..terabytes + 32 * GIB;
        assert_eq!(pci_window_64(terabytes, 46), Some(behind));
    }

    #[test]
    fn memory_that_is_plugged_in_lies_above_the_gap_and_all_other_ram() {
        for (ram_end, bytes, block, range) in [
            (256 << 20, GIB, 2 << 20, 4 * GIB..5 * GIB),
            (MMIO_GAP_START, GIB, 2 << 20, 4 * GIB..5 * GIB),
            (5 * GIB, GIB, 2 << 20, 6 * GIB..7 * GIB),
            (6 * GIB, GIB, 2 << 20, 6 * GIB..7 * GIB),
            (6 * GIB, 8 * GIB, 8 * GIB, 8 * GIB..16 * GIB),
        ] {
            assert_eq!(block_range(ram_end, bytes, block), Some(range.clone()));
            let window = pci_window_64(range.end, 46).expect("there is room");
            assert!(window.start >= range.end);
        }
        assert_eq!(block_range(0, u64::MAX, 1 << 21), None);
        assert_eq!(block_range(u64::MAX, 1 << 21, 1 << 21), None);
    }

    #[test]
    fn there_is_no_window_beyond_what_the_cpu_can_address() {
        assert_eq!(pci_window_64(0, 36), Some(4 * GIB..36 * GIB));
        assert_eq!(pci_window_64(0, 35), None);
        assert_eq!(pci_window_64(33 * GIB, 36), None);
        assert_eq!(pci_window_64(0, 0), None);
        assert_eq!(pci_window_64(u64::MAX, 64), None);
        assert_eq!(pci_window_64(u64::MAX - 32 * GIB, 200), None);
    }
}
