//! Kernels good and bad, made up for the purpose, and arbitrary bytes.

use std::io::Write;
use std::os::fd::OwnedFd;

use proptest::prelude::*;
use rustix::fs::{MemfdFlags, SealFlags};
use vm_memory::{Bytes, GuestAddress};
use zerocopy::FromBytes;

use super::protocol::{BootParams, MemoryMapEntry, ModuleEntry, StartInfo};
use super::{BootError, BootPlan, Protocol, Source, load};
use crate::arch::x86_64::layout;
use crate::memory::{Backing, GuestMemory};

const MIB: u64 = 1 << 20;

fn memory(size: u64) -> GuestMemory {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let fd: OwnedFd = rustix::fs::memfd_create("test", flags).expect("memfd");
    rustix::fs::ftruncate(&fd, size).expect("size");
    rustix::fs::fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW).expect("seals");
    GuestMemory::map(Backing::Shared { fd }, size).expect("memory")
}

/// A structure as it lies in guest memory.
fn read<T: FromBytes>(memory: &GuestMemory, address: u64) -> T {
    let mut bytes = vec![0; size_of::<T>()];
    memory
        .map_ref()
        .read_slice(&mut bytes, GuestAddress(address))
        .expect("in memory");
    T::read_from_bytes(&bytes).expect("its own size")
}

/// An ELF kernel with one segment of code and a PVH note, to be spoilt.
#[derive(Clone)]
struct Elf {
    class: u8,
    data: u8,
    machine: u16,
    address: u64,
    memory_size: u64,
    file_size: u64,
    note_name: [u8; 4],
    note_type: u32,
    entry: Vec<u8>,
    code: Vec<u8>,
    segments: u16,
}

impl Default for Elf {
    fn default() -> Self {
        Self {
            class: 2,
            data: 1,
            machine: 62,
            address: MIB,
            memory_size: 0x2000,
            file_size: 0x10,
            note_name: *b"Xen\0",
            note_type: 18,
            entry: 0x10_0004u32.to_le_bytes().to_vec(),
            code: vec![0x90; 0x10],
            segments: 2,
        }
    }
}

impl Elf {
    fn bytes(&self) -> Vec<u8> {
        let mut note = Vec::new();
        for word in [
            4,
            u32::try_from(self.entry.len()).expect("short"),
            self.note_type,
        ] {
            note.extend_from_slice(&word.to_le_bytes());
        }
        note.extend_from_slice(&self.note_name);
        note.extend_from_slice(&self.entry);

        let mut elf = b"\x7fELF".to_vec();
        elf.extend_from_slice(&[self.class, self.data, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0]);
        elf.extend_from_slice(&self.machine.to_le_bytes());
        elf.extend_from_slice(&[1, 0, 0, 0]);
        for word in [0u64, 64, 0] {
            elf.extend_from_slice(&word.to_le_bytes());
        }
        elf.extend_from_slice(&[0, 0, 0, 0, 64, 0, 56, 0]);
        elf.extend_from_slice(&self.segments.to_le_bytes());
        elf.extend_from_slice(&[0; 6]);
        let headers = 64 + 56 * u64::from(self.segments.min(2));
        let note_size = note.len() as u64;
        let note_header = [4, headers, 0, 0, note_size, note_size, 4];
        let code_header = [
            1,
            headers + note_size,
            0,
            self.address,
            self.file_size,
            self.memory_size,
            4096,
        ];
        for word in note_header.into_iter().chain(code_header) {
            elf.extend_from_slice(&word.to_le_bytes());
        }
        elf.extend_from_slice(&note);
        elf.extend_from_slice(&self.code);
        elf
    }
}

/// A bzImage with a setup of one sector and a payload, to be spoilt.
fn bzimage(spoil: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut image = vec![0; 0x400 + 0x1000];
    let mut put = |offset: usize, bytes: &[u8]| {
        image[offset..offset + bytes.len()].copy_from_slice(bytes);
    };
    put(0x1F1, &[1]);
    put(0x1F4, &0x100u32.to_le_bytes());
    put(0x1FE, &0xAA55u16.to_le_bytes());
    put(0x200, &[0xEB, 0x6A]);
    put(0x202, b"HdrS");
    put(0x206, &0x020Fu16.to_le_bytes());
    put(0x211, &[1]);
    put(0x22C, &0x7FFF_FFFFu32.to_le_bytes());
    put(0x230, &0x20_0000u32.to_le_bytes());
    put(0x234, &[1]);
    put(0x236, &3u16.to_le_bytes());
    put(0x238, &255u32.to_le_bytes());
    put(0x250, &0xBAD0_0000u64.to_le_bytes());
    put(0x258, &0x100_0000u64.to_le_bytes());
    put(0x260, &0x10_0000u32.to_le_bytes());
    put(0x400, &[0xAB; 0x1000]);
    spoil(&mut image);
    image
}

fn put(offset: usize, bytes: &'static [u8]) -> impl FnOnce(&mut Vec<u8>) {
    move |image| image[offset..offset + bytes.len()].copy_from_slice(bytes)
}

fn load_bytes(kernel: &[u8], size: u64) -> Result<(BootPlan, GuestMemory), BootError> {
    let memory = memory(size);
    load(kernel, None, "console=ttyS0", &memory).map(|plan| (plan, memory))
}

fn refused(kernel: &[u8]) -> String {
    load_bytes(kernel, 64 * MIB)
        .expect_err("refused")
        .to_string()
}

#[test]
fn elf_starts_at_its_note_with_start_info() {
    let (plan, memory) = load_bytes(&Elf::default().bytes(), 64 * MIB).expect("loaded");
    assert_eq!(plan.protocol, Protocol::Pvh);
    assert_eq!(plan.entry, 0x10_0004);
    assert_eq!(plan.kernel, MIB..MIB + 0x2000);
    let map = memory.map_ref();
    assert_eq!(map.read_obj::<u8>(GuestAddress(MIB)).expect("code"), 0x90);
    let info: StartInfo = read(&memory, plan.boot_info);
    assert_eq!(
        (info.magic, info.version, info.nr_modules),
        (0x336e_c578, 1, 0)
    );
    assert_eq!(info.rsdp_paddr, 0xE_0000);
    let mut cmdline = [0; 14];
    map.read_slice(&mut cmdline, GuestAddress(info.cmdline_paddr))
        .expect("cmdline");
    assert_eq!(&cmdline, b"console=ttyS0\0");
    let last = info.memmap_paddr + u64::from(info.memmap_entries - 1) * 24;
    let ram: MemoryMapEntry = read(&memory, last - 24);
    assert_eq!((ram.address, ram.size, ram.kind), (MIB, 63 * MIB, 1));
    let ecam: MemoryMapEntry = read(&memory, last);
    assert_eq!(
        (ecam.address, ecam.size, ecam.kind),
        (0xE000_0000, MIB, 2),
        "configuration space"
    );
}

#[test]
fn note_may_hold_eight_bytes_and_stand_behind_others() {
    let entry = 0x10_0008u64.to_le_bytes().to_vec();
    let (plan, _) = load_bytes(
        &Elf {
            entry,
            ..Elf::default()
        }
        .bytes(),
        64 * MIB,
    )
    .expect("loaded");
    assert_eq!(plan.entry, 0x10_0008);
}

#[test]
fn elf_of_another_machine_is_named() {
    let with = |class, data, machine| {
        Elf {
            class,
            data,
            machine,
            ..Elf::default()
        }
        .bytes()
    };
    assert!(refused(&with(1, 1, 3)).contains("32-bit x86"));
    assert!(refused(&with(1, 1, 62)).contains("32-bit x86"));
    assert!(refused(&with(2, 1, 183)).contains("arm64"));
    assert!(refused(&with(2, 1, 243)).contains("riscv"));
    assert!(refused(&with(2, 2, 62)).contains("big-endian"));
}

#[test]
fn elf_without_its_note_is_told_what_to_do() {
    for elf in [
        Elf {
            note_type: 17,
            ..Elf::default()
        },
        Elf {
            note_name: *b"GNU\0",
            ..Elf::default()
        },
    ] {
        assert_eq!(
            refused(&elf.bytes()),
            "ELF without a PVH entry note: build with CONFIG_PVH=y or use the bzImage"
        );
    }
}

#[test]
fn segments_outside_the_ram_of_a_kernel_are_refused() {
    let at = |address| {
        Elf {
            address,
            ..Elf::default()
        }
        .bytes()
    };
    for address in [0, 0x1000, 0xF_F000, 0xFEE0_0000, 1 << 40, u64::MAX - 0xFFF] {
        let error = load_bytes(&at(address), 64 * MIB).expect_err("refused");
        assert!(
            matches!(error, BootError::Misplaced { .. }),
            "{address:#x}: {error}"
        );
    }
    let error = load_bytes(&at(64 * MIB - 0x1000), 64 * MIB).expect_err("refused");
    assert!(matches!(error, BootError::KernelTooLarge { .. }), "{error}");
    let memory_size = u64::MAX;
    let error = load_bytes(
        &Elf {
            memory_size,
            ..Elf::default()
        }
        .bytes(),
        64 * MIB,
    );
    assert!(matches!(
        error,
        Err(BootError::KernelTooLarge {
            needed: u64::MAX,
            ..
        })
    ));
}

#[test]
fn contradictions_of_an_elf_are_refused() {
    assert!(
        refused(
            &Elf {
                memory_size: 8,
                ..Elf::default()
            }
            .bytes()
        )
        .contains("larger in the file")
    );
    assert!(
        refused(
            &Elf {
                file_size: 0x1000,
                ..Elf::default()
            }
            .bytes()
        )
        .contains("truncated")
    );
    let entry = 0x20_0000u32.to_le_bytes().to_vec();
    assert!(
        refused(
            &Elf {
                entry,
                ..Elf::default()
            }
            .bytes()
        )
        .contains("entry point is outside")
    );
    assert!(
        refused(
            &Elf {
                segments: 65,
                ..Elf::default()
            }
            .bytes()
        )
        .contains("too many")
    );
    let entry = vec![0; 5];
    assert!(
        refused(
            &Elf {
                entry,
                ..Elf::default()
            }
            .bytes()
        )
        .contains("PVH note")
    );
}

#[test]
fn every_truncation_of_a_kernel_is_an_error() {
    for kernel in [Elf::default().bytes(), bzimage(|_| {})] {
        // A bzImage counts in paragraphs of 16 bytes: the last may be shorter.
        for length in (0..kernel.len() - 15).step_by(7) {
            assert!(
                load_bytes(&kernel[..length], 64 * MIB).is_err(),
                "{length} bytes"
            );
        }
    }
}

#[test]
fn bzimage_starts_in_long_mode_with_a_zero_page() {
    let (plan, memory) = load_bytes(&bzimage(|_| {}), 64 * MIB).expect("loaded");
    assert_eq!(plan.protocol, Protocol::Linux64);
    assert_eq!(plan.kernel, 16 * MIB..17 * MIB);
    assert_eq!(plan.entry, 16 * MIB + 0x200);
    let map = memory.map_ref();
    assert_eq!(
        map.read_obj::<u8>(GuestAddress(16 * MIB)).expect("code"),
        0xAB
    );
    let page: BootParams = read(&memory, plan.boot_info);
    let (entries, rsdp, hdr) = (page.e820_entries, page.acpi_rsdp_addr, page.setup);
    assert_eq!((entries, rsdp), (5, 0xE_0000));
    assert_eq!(u64::from(hdr.cmd_line_ptr), layout::CMDLINE);
    assert_eq!((hdr.type_of_loader, { hdr.setup_data }), (0xFF, 0));
}

#[test]
fn bzimage_moves_down_where_memory_is_short() {
    let (plan, _) = load_bytes(&bzimage(|_| {}), 4 * MIB).expect("loaded");
    assert_eq!(plan.kernel, 2 * MIB..3 * MIB);
    let fixed = bzimage(put(0x234, &[0]));
    let error = load_bytes(&fixed, 4 * MIB).expect_err("refused");
    assert!(matches!(error, BootError::KernelTooLarge { .. }), "{error}");
}

#[test]
fn unsuitable_bzimages_are_refused_with_the_reason() {
    assert!(refused(&bzimage(put(0x206, &[0x0B, 0x02]))).contains("Linux 3.8"));
    assert!(refused(&bzimage(put(0x211, &[0]))).contains("zImage"));
    assert!(refused(&bzimage(put(0x236, &[0]))).contains("32-bit x86"));
    assert!(refused(&bzimage(put(0x260, &[0, 0, 0, 0xF0]))).contains("needs memory up to"));
    assert!(refused(&bzimage(put(0x1F4, &[0xFF; 4]))).contains("truncated"));
    // An alignment counts only where the preferred address is not used.
    let odd = bzimage(put(0x230, &[3, 0, 0, 0]));
    assert!(load_bytes(&odd, 64 * MIB).is_ok());
    assert!(
        load_bytes(&odd, 4 * MIB)
            .expect_err("refused")
            .to_string()
            .contains("alignment")
    );
}

#[test]
fn other_files_are_no_kernels() {
    for other in [&b""[..], b"#!/bin/sh\n", &[0; 8192], b"\x1f\x8b\x08"] {
        assert!(matches!(
            load_bytes(other, 64 * MIB),
            Err(BootError::NotAKernel)
        ));
    }
    let mut arm = vec![0; 0x400];
    arm[0x38..0x3C].copy_from_slice(b"ARM\x64");
    assert!(refused(&arm).contains("arm64"));
}

#[test]
fn initrd_goes_to_the_top_of_what_it_may_use() {
    let memory = memory(64 * MIB);
    let initrd = vec![0x5A; 5000];
    let plan = load(&*bzimage(|_| {}), Some(&*initrd), "", &memory).expect("loaded");
    let range = plan.initrd.expect("initrd");
    assert_eq!(range, 64 * MIB - 8192..64 * MIB - 8192 + 5000);
    let last = memory
        .map_ref()
        .read_obj::<u8>(GuestAddress(range.end - 1))
        .expect("byte");
    assert_eq!(last, 0x5A);

    // This kernel's initrd must end below 32 MiB.
    let kernel = bzimage(put(0x22C, &[0xFF, 0xFF, 0xFF, 0x01]));
    let plan = load(&*kernel, Some(&*initrd), "", &memory).expect("loaded");
    assert!(plan.initrd.expect("initrd").end <= 32 * MIB);

    let plan = load(&*Elf::default().bytes(), Some(&*initrd), "", &memory).expect("loaded");
    let module: ModuleEntry = read(&memory, layout::PVH_MODLIST);
    assert_eq!(
        (module.paddr, module.size),
        (plan.initrd.expect("initrd").start, 5000)
    );
}

#[test]
fn initrd_never_covers_the_kernel() {
    let memory = memory(4 * MIB);
    let room = usize::try_from(MIB).expect("fits");
    let kernel = bzimage(|_| {});
    assert!(load(&*kernel, Some(&*vec![0; room]), "", &memory).is_ok());
    let error = load(&*kernel, Some(&*vec![0; room + 1]), "", &memory).expect_err("refused");
    assert!(matches!(error, BootError::InitrdTooLarge { available, .. } if available == MIB));
}

#[test]
fn command_line_limits_are_the_machines_and_the_kernels() {
    let memory = memory(64 * MIB);
    let elf = Elf::default().bytes();
    let with = |kernel: &[u8], length| load(kernel, None, &"x".repeat(length), &memory);
    assert!(with(&elf, 2047).is_ok());
    assert!(matches!(
        with(&elf, 2048),
        Err(BootError::CmdlineTooLong { limit: 2047, .. })
    ));
    assert!(with(&bzimage(|_| {}), 255).is_ok());
    let long = with(&bzimage(|_| {}), 256);
    assert!(matches!(
        long,
        Err(BootError::CmdlineTooLong { limit: 255, .. })
    ));
    assert!(matches!(
        load(&*elf, None, "a\0b", &memory),
        Err(BootError::CmdlineNul)
    ));
}

#[test]
fn files_are_read_at_positions_of_their_own() {
    let fd = rustix::fs::memfd_create("kernel", MemfdFlags::CLOEXEC).expect("memfd");
    let mut file = std::fs::File::from(fd);
    file.write_all(&Elf::default().bytes()).expect("written");
    // The file's own position is at its end and stays there.
    let plan = load(&file, None, "", &memory(64 * MIB)).expect("loaded");
    assert_eq!(plan.entry, 0x10_0004);
    let (read, _write) = rustix::pipe::pipe().expect("pipe");
    let pipe = std::fs::File::from(read);
    assert!(pipe.length().is_err(), "a pipe could block for ever");
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..4096),
        kind in 0..3u8,
    ) {
        let mut bytes = bytes;
        match kind {
            0 if bytes.len() >= 20 => bytes[..20].copy_from_slice(&Elf::default().bytes()[..20]),
            1 if bytes.len() >= 0x206 => bytes[0x1FE..0x206].copy_from_slice(b"\x55\xAA\xEB\x6AHdrS"),
            _ => {}
        }
        let _ = load_bytes(&bytes, 8 * MIB);
    }

    #[test]
    fn spoilt_kernels_never_panic_nor_leave_their_memory(
        spoils in proptest::collection::vec((0..0x480usize, any::<u8>()), 1..6),
        elf in any::<bool>(),
    ) {
        let mut kernel = if elf { Elf::default().bytes() } else { bzimage(|_| {}) };
        for (offset, byte) in spoils {
            let length = kernel.len();
            kernel[offset % length] = byte;
        }
        if let Ok((plan, memory)) = load_bytes(&kernel, 64 * MIB) {
            prop_assert!(plan.kernel.start >= MIB);
            prop_assert!(plan.kernel.end <= memory.low_end());
        }
    }
}
