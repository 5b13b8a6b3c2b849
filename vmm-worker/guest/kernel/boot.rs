//! What the loader left: PVH `hvm_start_info` version 1 (Xen, public/arch-x86/hvm/start_info.h).

use crate::machine;

const MAGIC: u32 = 0x336e_c578;
/// `XEN_HVM_MEMMAP_TYPE_RAM`.
const TYPE_RAM: u32 = 1;
/// More entries than any loader writes; bounds the walk.
const MAX_ENTRIES: u64 = 128;
/// The command line's limit on x86, NUL included.
const MAX_COMMAND_LINE: u64 = 2048;
/// Size of one `hvm_memmap_table_entry`.
const ENTRY_SIZE: u64 = 24;

/// The start info, read once.
pub struct Boot {
    command_line: &'static [u8],
    /// Physical address of the RSDP, or zero.
    pub rsdp: u64,
    memory_map: u64,
    entries: u64,
}

/// One range of RAM.
pub struct Ram {
    /// First byte.
    pub address: u64,
    /// Length in bytes.
    pub size: u64,
}

impl Boot {
    /// Reads the start info at `info`. A wrong magic number gives an empty one.
    ///
    /// # Safety
    ///
    /// `info` must be the address PVH passed, mapped, with what it points to unchanged so far.
    pub unsafe fn read(info: u64) -> Self {
        let mut boot = Self {
            command_line: &[],
            rsdp: 0,
            memory_map: 0,
            entries: 0,
        };
        if machine::read_u32(info) != MAGIC {
            return boot;
        }
        // SAFETY: by the contract of this function the command line is the loader's.
        boot.command_line = unsafe { command_line(machine::read_u64(info + 24)) };
        boot.rsdp = machine::read_u64(info + 32);
        if machine::read_u32(info + 4) >= 1 {
            boot.memory_map = machine::read_u64(info + 40);
            boot.entries = u64::from(machine::read_u32(info + 48)).min(MAX_ENTRIES);
        }
        boot
    }

    /// The command line, without its NUL.
    pub fn command_line(&self) -> &[u8] {
        self.command_line
    }

    /// The usable ranges of the memory map.
    pub fn ram(&self) -> impl Iterator<Item = Ram> + '_ {
        (0..self.entries)
            .map(|index| self.memory_map + index * ENTRY_SIZE)
            .filter(|&entry| machine::read_u32(entry + 16) == TYPE_RAM)
            .map(|entry| Ram {
                address: machine::read_u64(entry),
                size: machine::read_u64(entry + 8),
            })
    }
}

/// # Safety
///
/// `address` is zero or that of a string in mapped memory that nobody writes.
unsafe fn command_line(address: u64) -> &'static [u8] {
    if address == 0 {
        return &[];
    }
    let length = (0..MAX_COMMAND_LINE)
        .find(|offset| machine::read_u8(address + offset) == 0)
        .unwrap_or(MAX_COMMAND_LINE);
    // SAFETY: `length` bytes were just read there; the caller promises that they stay.
    unsafe { core::slice::from_raw_parts(address as *const u8, length as usize) }
}
