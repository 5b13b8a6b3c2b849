//! Ports, physical memory, and the two ways out: power off and reset.
//!
//! Safe to call from anywhere in this program: memory is read through instructions the compiler
//! knows nothing about, and written only where no RAM is. What is not mapped yet is mapped on
//! the way, by the boot processor only.

use core::arch::asm;
use core::sync::atomic::{AtomicU8, AtomicU16, AtomicU64, Ordering};

use crate::ring0;

/// COM1's first port (16550A).
pub const COM1: u16 = 0x3f8;
/// PM1a event block: status, then enable (ACPI 6.5, 4.8.3.1).
pub const PM1_STATUS: u16 = 0x600;
/// ACPI power-management timer.
pub const PM_TIMER: u16 = 0x608;
/// First byte of the gap below 4 GiB that holds no RAM.
pub const MMIO_START: u64 = 0xc000_0000;

/// SLP_EN with the sleep type of S5.
const S5_SLEEP: u16 = 1 << 13 | 5 << 10;
/// One past the last address that can be mapped.
const MAPPABLE: u64 = 1 << 32;
const LARGE_PAGE: u64 = 2 << 20;

// The machine type fixes these; ACPI may say otherwise (`acpi.rs`).
static PM1_CONTROL: AtomicU16 = AtomicU16::new(0x604);
static RESET_PORT: AtomicU16 = AtomicU16::new(0xcf9);
static RESET_VALUE: AtomicU8 = AtomicU8::new(6);

unsafe extern "C" {
    static pdpt: [AtomicU64; 512];
    static page_directories: [AtomicU64; 4 * 512];
}

macro_rules! ports {
    ($read:ident, $write:ident, $type:ty, $register:tt, $size:literal) => {
        #[doc = concat!("Reads ", $size, " from a port.")]
        pub fn $read(port: u16) -> $type {
            let value: $type;
            // SAFETY: no device of this machine writes memory because of a port access.
            unsafe {
                asm!(concat!("in ", $register, ", dx"), in("dx") port, out($register) value,
                    options(nomem, nostack, preserves_flags));
            }
            value
        }

        #[doc = concat!("Writes ", $size, " to a port.")]
        pub fn $write(port: u16, value: $type) {
            // SAFETY: as for reading.
            unsafe {
                asm!(concat!("out dx, ", $register), in("dx") port, in($register) value,
                    options(nomem, nostack, preserves_flags));
            }
        }
    };
}

ports!(in8, out8, u8, "al", "one byte");
ports!(in16, out16, u16, "ax", "two bytes");
ports!(in32, out32, u32, "eax", "four bytes");

macro_rules! memory_read {
    ($name:ident, $type:ty, $class:ident, $template:literal) => {
        /// Reads physical memory or a device register in one access, aligned or not. Zero if the
        /// address is above 4 GiB.
        pub fn $name(address: u64) -> $type {
            if !map(address, size_of::<$type>() as u64) {
                return 0;
            }
            let value: $type;
            // SAFETY: mapped just now; a read the compiler cannot see breaks none of its rules.
            unsafe {
                asm!($template, address = in(reg) address, value = out($class) value,
                    options(readonly, nostack, preserves_flags));
            }
            value
        }
    };
}

memory_read!(read_u8, u8, reg_byte, "mov {value}, byte ptr [{address}]");
memory_read!(read_u16, u16, reg, "mov {value:x}, word ptr [{address}]");
memory_read!(read_u32, u32, reg, "mov {value:e}, dword ptr [{address}]");
memory_read!(read_u64, u64, reg, "mov {value}, qword ptr [{address}]");

/// Writes a device register. Does nothing below [`MMIO_START`], where RAM may be.
pub fn write_device(address: u64, value: u32) {
    if address >= MMIO_START && map(address, 4) {
        // SAFETY: mapped just now, and no Rust object is in the gap.
        unsafe {
            asm!("mov dword ptr [{}], {:e}", in(reg) address, in(reg) value,
                options(nostack, preserves_flags));
        }
    }
}

/// Maps `length` bytes (at most 2 MiB) at `address` one to one; false if they reach above 4 GiB.
///
/// Entries only ever go from absent to present, so no stale translation has to be dropped.
pub fn map(address: u64, length: u64) -> bool {
    let Some(last) = address.checked_add(length.saturating_sub(1)) else {
        return false;
    };
    if last >= MAPPABLE {
        return false;
    }
    for page in [address / LARGE_PAGE, last / LARGE_PAGE] {
        if page > 0 {
            map_page(page);
        }
    }
    true
}

fn map_page(page: u64) {
    // SAFETY: defined in entry.s, one page of 512 entries that lives as long as the image.
    let directory_pointers = unsafe { &pdpt };
    // SAFETY: as above, four pages.
    let directories = unsafe { &page_directories };
    let gib = (page / 512) as usize;
    let (Some(pointer), Some(directory), Some(entry)) = (
        directory_pointers.get(gib),
        directories.get(gib * 512),
        directories.get(page as usize),
    ) else {
        return;
    };
    if entry.load(Ordering::Relaxed) != 0 {
        return;
    }
    // Present, writable, user, accessed, dirty, large; uncached where devices are.
    let uncached = if page * LARGE_PAGE >= MMIO_START {
        0x18
    } else {
        0
    };
    entry.store(page * LARGE_PAGE | 0xe7 | uncached, Ordering::Relaxed);
    pointer.store(
        core::ptr::from_ref(directory) as u64 | 0x27,
        Ordering::Release,
    );
}

/// Replaces the machine type's power ports by those ACPI names.
pub fn set_power_ports(pm1_control: u16, reset: Option<(u16, u8)>) {
    PM1_CONTROL.store(pm1_control, Ordering::Relaxed);
    if let Some((port, value)) = reset {
        RESET_PORT.store(port, Ordering::Relaxed);
        RESET_VALUE.store(value, Ordering::Relaxed);
    }
}

/// Enters S5. If the machine stays on, this processor sleeps for good.
pub fn power_off() -> ! {
    out16(PM1_CONTROL.load(Ordering::Relaxed), S5_SLEEP);
    ring0::park()
}

/// Resets by the register ACPI names.
pub fn reset() -> ! {
    out8(
        RESET_PORT.load(Ordering::Relaxed),
        RESET_VALUE.load(Ordering::Relaxed),
    );
    ring0::park()
}

/// Resets by the keyboard controller's reset line.
pub fn reset_by_keyboard() -> ! {
    out8(0x64, 0xfe);
    ring0::park()
}

/// Ends whichever monitor runs this, as `bench_anywhere` in `entry.s` does.
pub fn end_any_monitor() -> ! {
    out8(0x600, 0x34);
    out8(0x64, 0xfe);
    ring0::triple_fault()
}

/// Reads a byte of CMOS memory or the RTC.
pub fn read_cmos(index: u8) -> u8 {
    out8(0x70, index);
    in8(0x71)
}

/// Writes a byte of CMOS memory.
pub fn write_cmos(index: u8, value: u8) {
    out8(0x70, index);
    out8(0x71, value);
}
