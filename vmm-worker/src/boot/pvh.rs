//! The PVH start info: what EBX points at (Xen `public/arch-x86/hvm/start_info.h`, version 1).

use std::ops::Range;

use vm_memory::{Bytes, GuestAddress};
use zerocopy::{Immutable, IntoBytes};

use super::protocol::{MemoryMapEntry, ModuleEntry, START_MAGIC, StartInfo};
use super::{BootError, memory_map};
use crate::arch::x86_64::layout;
use crate::memory::GuestMemory;

/// Writes the start info, the module list with the initrd, and the memory map.
pub(super) fn write_start_info(
    memory: &GuestMemory,
    initrd: Option<&Range<u64>>,
) -> Result<(), BootError> {
    let mut entries = 0;
    for (range, kind) in memory_map::build(memory) {
        let entry = MemoryMapEntry {
            address: range.start,
            size: range.end - range.start,
            kind: kind as u32,
            reserved: 0,
        };
        let size = size_of::<MemoryMapEntry>() as u64;
        write(
            memory,
            layout::PVH_MEMMAP + u64::from(entries) * size,
            entry,
        )?;
        entries += 1;
    }
    if let Some(initrd) = initrd {
        let module = ModuleEntry {
            paddr: initrd.start,
            size: initrd.end - initrd.start,
            ..Default::default()
        };
        write(memory, layout::PVH_MODLIST, module)?;
    }
    let info = StartInfo {
        magic: START_MAGIC,
        version: 1,
        nr_modules: u32::from(initrd.is_some()),
        modlist_paddr: initrd.map_or(0, |_| layout::PVH_MODLIST),
        cmdline_paddr: layout::CMDLINE,
        rsdp_paddr: layout::ACPI.start,
        memmap_paddr: layout::PVH_MEMMAP,
        memmap_entries: entries,
        ..Default::default()
    };
    write(memory, layout::PVH_START_INFO, info)
}

fn write<T: IntoBytes + Immutable>(
    memory: &GuestMemory,
    address: u64,
    value: T,
) -> Result<(), BootError> {
    memory
        .map_ref()
        .write_slice(value.as_bytes(), GuestAddress(address))
        .map_err(BootError::WriteMemory)
}
