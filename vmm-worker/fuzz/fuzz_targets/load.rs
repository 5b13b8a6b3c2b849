//! Arbitrary bytes as a kernel image: refused or loaded, within the guest's memory, no panic.
//!
//! The first bytes split kernel from initrd and set the length of the command line; the rest is the
//! image. Some inputs get the magic numbers of one of the two formats, so that the fuzzer need not
//! find them.

#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use reeve_worker::boot::{self, BootPlan};
use reeve_worker::memory::{Backing, GuestMemory};
use rustix::fs::{MemfdFlags, SealFlags};

const MEMORY: u64 = 8 << 20;

fn memory() -> &'static GuestMemory {
    static SHARED: OnceLock<GuestMemory> = OnceLock::new();
    SHARED.get_or_init(|| {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let fd = rustix::fs::memfd_create("fuzz", flags).expect("memfd");
        rustix::fs::ftruncate(&fd, MEMORY).expect("size");
        rustix::fs::fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW).expect("seals");
        GuestMemory::map(Backing::Shared { fd }, MEMORY).expect("memory")
    })
}

fuzz_target!(|input: &[u8]| {
    let Some((&[kind, split_low, split_high], image)) = input.split_first_chunk() else {
        return;
    };
    let mut image = image.to_vec();
    match kind & 3 {
        1 => stamp(&mut image, 0, b"\x7fELF\x02\x01\x01"),
        2 => stamp(&mut image, 0x1FE, b"\x55\xAA\xEB\x6AHdrS\x0F\x02"),
        _ => {}
    }
    let split = usize::from(u16::from_le_bytes([split_low, split_high]));
    let (initrd, kernel) = image.split_at(if kind & 4 == 0 {
        0
    } else {
        split.min(image.len())
    });
    let cmdline = "c".repeat(usize::from(kind) * 16);
    let initrd = (kind & 4 != 0).then_some(initrd);
    if let Ok(plan) = boot::load(kernel, initrd, &cmdline, memory()) {
        check(&plan);
    }
});

fn stamp(image: &mut [u8], offset: usize, magic: &[u8]) {
    if let Some(target) = image.get_mut(offset..offset + magic.len()) {
        target.copy_from_slice(magic);
    }
}

/// What is loaded lies in RAM above the first MiB, and nothing covers anything else.
fn check(plan: &BootPlan) {
    assert!(plan.kernel.start >= 1 << 20 && plan.kernel.end <= MEMORY);
    assert!(plan.kernel.contains(&plan.entry));
    if let Some(initrd) = &plan.initrd {
        assert!(initrd.start >= plan.kernel.end && initrd.end <= MEMORY);
    }
}
