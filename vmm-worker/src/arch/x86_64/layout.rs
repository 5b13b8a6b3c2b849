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
/// i8042 data port.
pub const I8042_DATA: u16 = 0x60;
/// i8042 command and status port; command 0xFE resets the machine.
pub const I8042_COMMAND: u16 = 0x64;
/// ACPI PM1a event block: status and enable, 16 bits each.
pub const PM1A_EVENT: Range<u16> = 0x600..0x604;
/// ACPI PM1a control register, 16 bits.
pub const PM1A_CONTROL: Range<u16> = 0x604..0x606;
/// ACPI power-management timer, 32 bits at 3.579545 MHz.
pub const PM_TIMER: Range<u16> = 0x608..0x60C;
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

/// The RAM ranges of a guest with `size` bytes of memory: low RAM, and high RAM if any is left.
///
/// `None` if `size` is so large that its end has no address.
#[must_use]
pub fn ram_ranges(size: u64) -> Option<(Range<u64>, Option<Range<u64>>)> {
    let low = 0..size.min(MMIO_GAP_START);
    let rest = size - low.end;
    if rest == 0 {
        return Some((low, None));
    }
    let end = MMIO_GAP_END.checked_add(rest)?;
    Some((low, Some(MMIO_GAP_END..end)))
}
