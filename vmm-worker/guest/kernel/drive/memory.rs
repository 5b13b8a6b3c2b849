//! Memory that devices share with the drivers, and the registers of devices.
//!
//! There is no allocator: one arena at a fixed place, behind the blocks of the application processors
//! (`cpus.rs`), is carved up at compile time.
//!
//! ```text
//!  18 MiB           19 MiB                     20 MiB     22 MiB          32 MiB
//!  | rings          | headers, status bytes,   | scratch  | data          |
//!  | 32 KiB a queue | tables of descriptors    |          |               |
//! ```
//!
//! No Rust object is in the arena or behind it, so that neither what devices write there nor what is
//! written here can break one. Registers are mapped in a window of their own above 4 GiB, wherever
//! they are.

use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};

use crate::boot::Boot;
use crate::machine;

/// First byte of the arena.
pub const ARENA: u64 = 18 << 20;
/// One past its last byte.
pub const ARENA_END: u64 = 32 << 20;
/// Rings of queues, [`RING_BYTES`] each.
pub const RINGS: u64 = ARENA;
/// Bytes kept for the rings of one queue.
pub const RING_BYTES: u64 = 32 << 10;
/// Small parts of requests.
pub const PARTS: u64 = 19 << 20;
/// Bytes of those.
pub const PARTS_BYTES: u64 = 1 << 20;
/// What a mode keeps for itself.
pub const SCRATCH: u64 = 20 << 20;
/// Payload.
pub const DATA: u64 = 22 << 20;
/// Bytes of it.
pub const DATA_BYTES: u64 = ARENA_END - DATA;

const LARGE_PAGE: u64 = 2 << 20;
/// Where registers are mapped: the fifth GiB, which nothing else uses.
const WINDOW: u64 = 4 << 30;

/// Maps the arena; false if the machine has no RAM there.
pub fn prepare(boot: &Boot) -> bool {
    let fits = |ram: crate::boot::Ram| {
        ram.address <= ARENA && ram.address.saturating_add(ram.size) >= ARENA_END
    };
    if !boot.ram().any(fits) {
        return false;
    }
    (ARENA..ARENA_END)
        .step_by(LARGE_PAGE as usize)
        .all(|page| machine::map(page, LARGE_PAGE))
}

/// One past the last byte of the RAM that holds the arena.
pub fn ram_end(boot: &Boot) -> u64 {
    boot.ram()
        .filter(|ram| ram.address <= ARENA)
        .map(|ram| ram.address.saturating_add(ram.size))
        .max()
        .unwrap_or(ARENA_END)
}

fn in_arena(address: u64, length: u64) -> bool {
    address >= ARENA && length <= ARENA_END - ARENA && address <= ARENA_END - length
}

macro_rules! poke {
    ($name:ident, $type:ty, $class:ident, $template:literal) => {
        /// Writes memory of the arena in one access. Does nothing anywhere else.
        pub fn $name(address: u64, value: $type) {
            if in_arena(address, size_of::<$type>() as u64) {
                // SAFETY: mapped by `prepare`, and no Rust object is there.
                unsafe {
                    asm!($template, in(reg) address, in($class) value,
                        options(nostack, preserves_flags));
                }
            }
        }
    };
}

poke!(poke_u8, u8, reg_byte, "mov byte ptr [{}], {}");
poke!(poke_u16, u16, reg, "mov word ptr [{}], {:x}");
poke!(poke_u32, u32, reg, "mov dword ptr [{}], {:e}");
poke!(poke_u64, u64, reg, "mov qword ptr [{}], {}");

/// Fills memory of the arena. Does nothing anywhere else.
pub fn fill(address: u64, length: u64, byte: u8) {
    if in_arena(address, length) {
        // SAFETY: mapped by `prepare`, and no Rust object is there; the direction flag is clear.
        unsafe {
            asm!("rep stosb", inout("rdi") address => _, inout("rcx") length => _, in("al") byte,
                options(nostack, preserves_flags));
        }
    }
}

/// Copies memory of the arena to another place there. Does nothing anywhere else.
pub fn copy(from: u64, to: u64, length: u64) {
    if in_arena(from, length) && in_arena(to, length) {
        // SAFETY: as for `fill`; places that overlap are copied bytewise, which is sound too.
        unsafe {
            asm!("rep movsb", inout("rsi") from => _, inout("rdi") to => _,
                inout("rcx") length => _, options(nostack, preserves_flags));
        }
    }
}

/// Copies bytes into the arena. Does nothing anywhere else.
pub fn put(address: u64, bytes: &[u8]) {
    for (offset, &byte) in (0..).zip(bytes) {
        poke_u8(address + offset, byte);
    }
}

/// Makes earlier writes to memory visible to devices before what is read next.
pub fn barrier() {
    core::sync::atomic::fence(Ordering::SeqCst);
}

#[repr(C, align(4096))]
struct Directory([AtomicU64; 512]);

static DIRECTORY: Directory = Directory([const { AtomicU64::new(0) }; 512]);

unsafe extern "C" {
    static pdpt: [AtomicU64; 512];
}

/// Registers of a device, mapped.
#[derive(Clone, Copy)]
pub struct Registers {
    base: u64,
    length: u64,
}

macro_rules! registers {
    ($read:ident, $write:ident, $type:ty, $class:ident, $load:literal, $store:literal) => {
        /// Reads a register, aligned or not. Zero beyond the end.
        pub fn $read(self, offset: u64) -> $type {
            let Some(address) = self.place(offset, size_of::<$type>() as u64) else {
                return 0;
            };
            let value: $type;
            // SAFETY: mapped when `self` was made; no Rust object is there.
            unsafe {
                asm!($load, address = in(reg) address, value = out($class) value,
                    options(nostack, preserves_flags));
            }
            value
        }

        /// Writes a register, aligned or not. Does nothing beyond the end.
        pub fn $write(self, offset: u64, value: $type) {
            if let Some(address) = self.place(offset, size_of::<$type>() as u64) {
                // SAFETY: as for reading.
                unsafe {
                    asm!($store, address = in(reg) address, value = in($class) value,
                        options(nostack, preserves_flags));
                }
            }
        }
    };
}

impl Registers {
    /// Maps the registers at a physical address, as far as their large page goes. None where Rust
    /// objects may be, or when the window is full.
    pub fn map(physical: u64, length: u64) -> Option<Self> {
        if physical < ARENA_END || physical >= 1 << 52 {
            return None;
        }
        let inside = physical % LARGE_PAGE;
        Some(Self {
            base: page(physical - inside)? + inside,
            length: length.min(LARGE_PAGE - inside),
        })
    }

    /// The part from `offset` on.
    pub fn part(self, offset: u64, length: u64) -> Self {
        let offset = offset.min(self.length);
        Self {
            base: self.base + offset,
            length: length.min(self.length - offset),
        }
    }

    /// How many bytes there are.
    pub fn length(self) -> u64 {
        self.length
    }

    /// The virtual address of a register that is there with all of its `width` bytes.
    pub fn place(self, offset: u64, width: u64) -> Option<u64> {
        let end = offset.checked_add(width)?;
        (end <= self.length).then_some(self.base + offset)
    }

    registers!(
        read_u8,
        write_u8,
        u8,
        reg_byte,
        "mov {value}, byte ptr [{address}]",
        "mov byte ptr [{address}], {value}"
    );
    registers!(
        read_u16,
        write_u16,
        u16,
        reg,
        "mov {value:x}, word ptr [{address}]",
        "mov word ptr [{address}], {value:x}"
    );
    registers!(
        read_u32,
        write_u32,
        u32,
        reg,
        "mov {value:e}, dword ptr [{address}]",
        "mov dword ptr [{address}], {value:e}"
    );
    registers!(
        read_u64,
        write_u64,
        u64,
        reg,
        "mov {value}, qword ptr [{address}]",
        "mov qword ptr [{address}], {value}"
    );
}

/// The virtual address of a large page of registers.
fn page(physical: u64) -> Option<u64> {
    // Present, writable, user, accessed, dirty, large, uncached.
    let wanted = physical | 0xff;
    for (number, entry) in (0..).zip(&DIRECTORY.0) {
        let there = entry.load(Ordering::Relaxed);
        if there == 0 {
            entry.store(wanted, Ordering::Relaxed);
            // SAFETY: defined in entry.s, one page of 512 entries that lives as long as the image.
            let directory_pointers = unsafe { &pdpt };
            if let Some(pointer) = directory_pointers.get((WINDOW >> 30) as usize) {
                pointer.store(&raw const DIRECTORY as u64 | 0x27, Ordering::Release);
            }
        }
        if there == 0 || there == wanted {
            return Some(WINDOW + number * LARGE_PAGE);
        }
    }
    None
}
