//! The registers with which the first vCPU enters a kernel, by either boot protocol.
//!
//! Pure data: `kvm` carries it to the vCPU. What is not set here keeps its power-on value, and the
//! other vCPUs keep all of theirs: the guest starts them by INIT and SIPI.

use kvm_bindings::{kvm_dtable, kvm_regs, kvm_segment, kvm_sregs};
use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

use super::{layout, reset};
use crate::boot::{BootPlan, Protocol};
use crate::memory::GuestMemory;

const CR0_PE: u64 = 1 << 0;
const CR0_ET: u64 = 1 << 4;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;
/// Bit 1 of RFLAGS is always set.
const RFLAGS_RESERVED: u64 = 1 << 1;

/// Selectors of the boot GDT: `__BOOT_CS` and `__BOOT_DS` of the Linux boot protocol, and a TSS.
const CODE: u16 = 0x10;
const DATA: u16 = 0x18;
const TSS: u16 = 0x20;

/// Descriptor types (SDM vol. 3, 3.4.5.1 and 3.5): accessed, so that nothing need be written back.
const TYPE_CODE: u8 = 0xB;
const TYPE_DATA: u8 = 0x3;
const TYPE_BUSY_TSS: u8 = 0xB;

const PAGE_PRESENT: u64 = 1 << 0;
const PAGE_WRITABLE: u64 = 1 << 1;
const PAGE_LARGE: u64 = 1 << 7;

/// What the first vCPU starts with.
#[derive(Debug, Clone)]
pub struct EntryState {
    /// General-purpose registers, all of them.
    pub regs: kvm_regs,
    protocol: Protocol,
}

impl EntryState {
    /// The entry state for a loaded kernel.
    #[must_use]
    pub fn new(plan: &BootPlan) -> Self {
        let mut regs = kvm_regs {
            rip: plan.entry,
            rflags: RFLAGS_RESERVED,
            ..Default::default()
        };
        match plan.protocol {
            Protocol::Pvh => regs.rbx = plan.boot_info,
            Protocol::Linux64 => regs.rsi = plan.boot_info,
            Protocol::ResetVector => return Self::at_reset(),
        }
        Self {
            regs,
            protocol: plan.protocol,
        }
    }

    /// The state after power-on.
    #[must_use]
    pub fn at_reset() -> Self {
        Self {
            regs: reset::regs(),
            protocol: Protocol::ResetVector,
        }
    }

    /// Changes the segments, control registers and tables of `sregs` to those of the protocol.
    pub fn apply(&self, sregs: &mut kvm_sregs) {
        if self.protocol == Protocol::ResetVector {
            return;
        }
        let long = self.protocol == Protocol::Linux64;
        sregs.cs = code_segment(long);
        let data = data_segment();
        sregs.ds = data;
        sregs.es = data;
        sregs.fs = data;
        sregs.gs = data;
        sregs.ss = data;
        sregs.tr = task_segment();
        sregs.idt = kvm_dtable::default();
        if long {
            sregs.gdt = kvm_dtable {
                base: layout::BOOT_GDT,
                limit: BOOT_GDT_LIMIT,
                ..Default::default()
            };
            sregs.cr0 = CR0_PE | CR0_ET | CR0_PG;
            sregs.cr3 = layout::BOOT_PAGE_TABLES;
            sregs.cr4 = CR4_PAE;
            sregs.efer = EFER_LME | EFER_LMA;
        } else {
            // PVH leaves the GDT to the kernel: the segments' hidden parts are all it starts with.
            sregs.gdt = kvm_dtable::default();
            sregs.cr0 = CR0_PE | CR0_ET;
            sregs.cr3 = 0;
            sregs.cr4 = 0;
            sregs.efer = 0;
        }
    }

    /// Writes the tables that the entry state refers to: for the 64-bit protocol a GDT and page
    /// tables that map the first 4 GiB one to one; for PVH none.
    ///
    /// # Errors
    /// The tables lie outside guest memory (a bug of the layout).
    pub fn write_tables(&self, memory: &GuestMemory) -> Result<(), GuestMemoryError> {
        match self.protocol {
            Protocol::Pvh | Protocol::ResetVector => Ok(()),
            Protocol::Linux64 => {
                memory
                    .map_ref()
                    .write_obj(boot_gdt(), GuestAddress(layout::BOOT_GDT))?;
                write_page_tables(memory)
            }
        }
    }
}

const BOOT_GDT_ENTRIES: usize = 5;
/// Offset of the last byte of the boot GDT.
const BOOT_GDT_LIMIT: u16 = 5 * 8 - 1;

/// Flat code and data segments where the boot protocol wants them; the TSS is a place holder, its
/// hidden part is what counts.
fn boot_gdt() -> [u64; BOOT_GDT_ENTRIES] {
    let code = code_segment(true);
    let data = data_segment();
    [
        0,
        0,
        descriptor(&code),
        descriptor(&data),
        descriptor(&task_segment()),
    ]
}

/// Packs a segment into a descriptor (SDM vol. 3, figure 3-8).
fn descriptor(segment: &kvm_segment) -> u64 {
    let limit = u64::from(if segment.g == 1 {
        segment.limit >> 12
    } else {
        segment.limit
    });
    let access = u64::from(segment.type_)
        | u64::from(segment.s) << 4
        | u64::from(segment.dpl) << 5
        | u64::from(segment.present) << 7;
    let flags = u64::from(segment.avl)
        | u64::from(segment.l) << 1
        | u64::from(segment.db) << 2
        | u64::from(segment.g) << 3;
    (limit & 0xFFFF)
        | (segment.base & 0xFF_FFFF) << 16
        | access << 40
        | (limit >> 16 & 0xF) << 48
        | flags << 52
        | (segment.base >> 24 & 0xFF) << 56
}

fn flat(selector: u16, type_: u8) -> kvm_segment {
    kvm_segment {
        limit: 0xFFFF_FFFF,
        selector,
        type_,
        present: 1,
        s: 1,
        g: 1,
        ..Default::default()
    }
}

fn code_segment(long: bool) -> kvm_segment {
    kvm_segment {
        l: u8::from(long),
        db: u8::from(!long),
        ..flat(CODE, TYPE_CODE)
    }
}

fn data_segment() -> kvm_segment {
    kvm_segment {
        db: 1,
        ..flat(DATA, TYPE_DATA)
    }
}

/// A 32-bit TSS of the least size, or a 64-bit one: the type's number is the same.
fn task_segment() -> kvm_segment {
    kvm_segment {
        limit: 0x67,
        selector: TSS,
        type_: TYPE_BUSY_TSS,
        present: 1,
        ..Default::default()
    }
}

/// Maps 4 GiB with pages of 2 MiB: one PML4, one PDPT, four page directories, one after another.
fn write_page_tables(memory: &GuestMemory) -> Result<(), GuestMemoryError> {
    const TABLE: u64 = 4096;
    const ENTRIES: u64 = 512;
    const DIRECTORIES: u64 = 4;
    let flags = PAGE_PRESENT | PAGE_WRITABLE;
    let map = memory.map_ref();
    let (pml4, pdpt) = (layout::BOOT_PAGE_TABLES, layout::BOOT_PAGE_TABLES + TABLE);
    map.write_obj(pdpt | flags, GuestAddress(pml4))?;
    for directory in 0..DIRECTORIES {
        let address = pdpt + TABLE + directory * TABLE;
        map.write_obj(address | flags, GuestAddress(pdpt + directory * 8))?;
        let mut entries = [0u8; 4096];
        for (index, entry) in (0..).zip(entries.chunks_exact_mut(8)) {
            let page: u64 = ((directory * ENTRIES + index) << 21) | flags | PAGE_LARGE;
            entry.copy_from_slice(&page.to_le_bytes());
        }
        map.write_slice(&entries, GuestAddress(address))?;
    }
    Ok(())
}
