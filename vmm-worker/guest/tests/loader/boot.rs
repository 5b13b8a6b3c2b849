//! PVH boot: what is placed in guest memory, and the vCPU state at the entry
//! (Xen, docs/misc/pvh).

use kvm_bindings::{kvm_regs, kvm_segment};
use kvm_ioctls::VcpuFd;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::acpi;
use super::machine::Setup;

const START_INFO: u64 = 0x6000;
const MEMORY_MAP: u64 = 0x6100;
const COMMAND_LINE: u64 = 0x2_0000;

/// Places image, command line, start info and tables; returns the PVH entry.
pub fn load(memory: &GuestMemoryMmap, setup: &Setup) -> u64 {
    let entry = place_image(memory, reeve_guest::image(&setup.command_line));
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
    entry
}

/// Places the loadable segments, zeroes what they leave, and finds the PVH entry in the notes
/// (ELF-64 object file format, program headers).
fn place_image(memory: &GuestMemoryMmap, image: &[u8]) -> u64 {
    const LOAD: u64 = 1;
    const NOTE: u64 = 4;
    let number = |offset: usize, size: usize| {
        let bytes = &image[offset..offset + size];
        bytes
            .iter()
            .rev()
            .fold(0, |value, &byte| value << 8 | u64::from(byte))
    };
    let index = |offset, size| usize::try_from(number(offset, size)).expect("64-bit host");
    assert_eq!(&image[..5], b"\x7fELF\x02");
    let mut entry = None;
    for header in (0..index(56, 2)).map(|place| index(32, 8) + place * index(54, 2)) {
        let (offset, length) = (index(header + 8, 8), index(header + 32, 8));
        match number(header, 4) {
            LOAD => {
                let mut segment = image[offset..offset + length].to_vec();
                segment.resize(index(header + 40, 8), 0);
                // Fresh memory is zero; after a reset, when the start info is there already, the
                // rest of the segment has to be cleared.
                let used = if memory.read_obj::<u8>(GuestAddress(START_INFO)).unwrap_or(0) == 0 {
                    length
                } else {
                    segment.len()
                };
                memory
                    .write_slice(&segment[..used], GuestAddress(number(header + 24, 8)))
                    .expect("inside guest memory");
            }
            // One note: sizes of name and descriptor, type 18, "Xen", the address.
            NOTE => {
                assert_eq!((number(offset, 4), number(offset + 8, 4)), (4, 18));
                entry = Some(number(offset + 16, 8));
            }
            _ => {}
        }
    }
    entry.expect("the image has a PVH note")
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
