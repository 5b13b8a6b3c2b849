//! PVH boot: what is placed in guest memory, and the vCPU state at the entry
//! (Xen, docs/misc/pvh).

use std::io::Cursor;

use kvm_bindings::{kvm_regs, kvm_segment};
use kvm_ioctls::VcpuFd;
use linux_loader::loader::elf::PvhBootCapability;
use linux_loader::loader::{Elf, KernelLoader};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::acpi;
use super::machine::Setup;

const START_INFO: u64 = 0x6000;
const MEMORY_MAP: u64 = 0x6100;
const COMMAND_LINE: u64 = 0x2_0000;

/// Places image, command line, start info and tables; returns the PVH entry.
pub fn load(memory: &GuestMemoryMmap, setup: &Setup) -> u64 {
    let mut image = Cursor::new(reeve_guest::IMAGE);
    let loaded = Elf::load(memory, None, &mut image, None).expect("the image is an ELF kernel");
    let PvhBootCapability::PvhEntryPresent(entry) = loaded.pvh_boot_cap else {
        panic!("the image has no PVH note");
    };
    let put = |address: u64, bytes: &[u8]| {
        memory
            .write_slice(bytes, GuestAddress(address))
            .expect("inside guest memory");
    };
    put(COMMAND_LINE, format!("{}\0", setup.command_line).as_bytes());
    put(acpi::RSDP, &acpi::tables(setup.cpus));
    let ranges = [
        (0, 0x9_fc00, 1u32),
        (0xe_0000, 0x2_0000, 2),
        (0x10_0000, setup.memory - 0x10_0000, 1),
    ];
    let mut map = Vec::new();
    for (address, size, kind) in ranges {
        map.extend(u64::to_le_bytes(address));
        map.extend(u64::to_le_bytes(size));
        map.extend(u64::from(kind).to_le_bytes());
    }
    put(MEMORY_MAP, &map);
    let mut info = [0x336e_c578_u32, 1, 0, 0].map(u32::to_le_bytes).concat();
    for word in [0, COMMAND_LINE, acpi::RSDP, MEMORY_MAP, ranges.len() as u64] {
        info.extend(word.to_le_bytes());
    }
    put(START_INFO, &info);
    entry.0
}

/// Flat 32-bit protected mode, as the PVH boot protocol has it.
pub fn set_entry_state(vcpu: &VcpuFd, entry: u64) {
    let code = kvm_segment {
        base: 0,
        limit: 0xffff_ffff,
        selector: 0x8,
        type_: 0xb,
        present: 1,
        dpl: 0,
        db: 1,
        s: 1,
        l: 0,
        g: 1,
        ..Default::default()
    };
    let data = kvm_segment {
        selector: 0x10,
        type_: 3,
        ..code
    };
    let task = kvm_segment {
        selector: 0x18,
        type_: 0xb,
        limit: 0x67,
        s: 0,
        g: 0,
        db: 0,
        ..code
    };
    let mut sregs = vcpu.get_sregs().expect("sregs can be read");
    (sregs.cs, sregs.tr) = (code, task);
    (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
    sregs.cr0 = 0x11;
    sregs.cr3 = 0;
    sregs.cr4 = 0;
    sregs.efer = 0;
    vcpu.set_sregs(&sregs).expect("the entry state is valid");
    let regs = kvm_regs {
        rflags: 2,
        rip: entry,
        rbx: START_INFO,
        ..Default::default()
    };
    vcpu.set_regs(&regs).expect("the entry state is valid");
}
