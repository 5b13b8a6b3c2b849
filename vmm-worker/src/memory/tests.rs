//! Memory is mapped from descriptors as they come from the supervisor, good and bad.

use std::os::fd::OwnedFd;

use rustix::fs::{MemfdFlags, SealFlags};
use vm_memory::{Bytes, GuestAddress};

use super::{Backing, GuestMemory, MemoryError};
use crate::arch::x86_64::layout;

const MIB: u64 = 1 << 20;

fn memfd(size: u64, seals: SealFlags) -> OwnedFd {
    let fd = rustix::fs::memfd_create("test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)
        .expect("memfd");
    rustix::fs::ftruncate(&fd, size).expect("size");
    rustix::fs::fcntl_add_seals(&fd, seals).expect("seals");
    fd
}

fn sealed(size: u64) -> Backing {
    Backing::Shared {
        fd: memfd(size, SealFlags::SHRINK | SealFlags::GROW),
    }
}

#[test]
fn small_memory_is_one_region_from_zero() {
    let memory = GuestMemory::map(sealed(128 * MIB), 128 * MIB).expect("mapped");
    let regions: Vec<_> = memory.regions().collect();
    assert_eq!(regions.len(), 1);
    assert_eq!((regions[0].guest_address, regions[0].size), (0, 128 * MIB));
    memory
        .map_ref()
        .write_obj(7u32, GuestAddress(128 * MIB - 4))
        .expect("last word");
    assert!(
        memory
            .map_ref()
            .write_obj(7u32, GuestAddress(128 * MIB - 3))
            .is_err()
    );
}

#[test]
fn memory_beyond_three_gib_continues_at_four() {
    let size = 5 << 30;
    let memory = GuestMemory::map(sealed(size), size).expect("mapped");
    let regions: Vec<_> = memory
        .regions()
        .map(|r| (r.guest_address, r.size))
        .collect();
    assert_eq!(regions, [(0, 3 << 30), (4 << 30, 2 << 30)]);
    assert_eq!(memory.low_end(), layout::MMIO_GAP_START);
    assert!(
        memory
            .map_ref()
            .write_obj(1u8, GuestAddress(layout::MMIO_GAP_START))
            .is_err()
    );
    // The two regions show different parts of the file.
    memory
        .map_ref()
        .write_obj(0x55u8, GuestAddress(4 << 30))
        .expect("high");
    assert_eq!(
        memory
            .map_ref()
            .read_obj::<u8>(GuestAddress(0))
            .expect("low"),
        0
    );
}

#[test]
fn unsealed_or_half_sealed_memfd_is_refused() {
    for seals in [SealFlags::empty(), SealFlags::SHRINK, SealFlags::GROW] {
        let backing = Backing::Shared {
            fd: memfd(4 * MIB, seals),
        };
        assert!(matches!(
            GuestMemory::map(backing, 4 * MIB),
            Err(MemoryError::NotSealed)
        ));
    }
}

#[test]
fn short_descriptor_and_odd_sizes_are_refused() {
    let short = GuestMemory::map(sealed(4 * MIB), 8 * MIB);
    assert!(matches!(short, Err(MemoryError::Short { actual, needed })
        if actual == 4 * MIB && needed == 8 * MIB));
    for size in [0, 4096, 4 * MIB + 1, u64::MAX, u64::MAX - 4095] {
        assert!(GuestMemory::map(sealed(4 * MIB), size).is_err(), "{size}");
    }
}

#[test]
fn pipe_is_no_memory() {
    let (read, _write) = rustix::pipe::pipe().expect("pipe");
    let mapped = GuestMemory::map(Backing::Shared { fd: read }, 4 * MIB);
    assert!(matches!(mapped, Err(MemoryError::Short { .. })));
}

#[test]
fn private_copy_shows_the_base_and_keeps_it_unchanged() {
    let base = memfd(4 * MIB, SealFlags::empty());
    rustix::io::pwrite(&base, b"base", 0x1000).expect("write");
    let copy = rustix::io::fcntl_dupfd_cloexec(&base, 0).expect("dup");
    let memory = GuestMemory::map(Backing::PrivateCopy { fd: copy }, 4 * MIB).expect("mapped");
    let mut seen = [0; 4];
    memory
        .map_ref()
        .read_slice(&mut seen, GuestAddress(0x1000))
        .expect("read");
    assert_eq!(&seen, b"base");

    memory
        .map_ref()
        .write_slice(b"copy", GuestAddress(0x1000))
        .expect("write");
    rustix::io::pread(&base, &mut seen, 0x1000).expect("pread");
    assert_eq!(&seen, b"base");
    assert!(memory.shareable_fd().is_none());

    memory.discard().expect("discarded");
    memory
        .map_ref()
        .read_slice(&mut seen, GuestAddress(0x1000))
        .expect("read");
    assert_eq!(&seen, b"base");
}

#[test]
fn discard_zeroes_shared_memory() {
    let memory = GuestMemory::map(sealed(4 * MIB), 4 * MIB).expect("mapped");
    memory
        .map_ref()
        .write_obj(u64::MAX, GuestAddress(0x2000))
        .expect("write");
    memory.discard().expect("discarded");
    assert_eq!(
        memory
            .map_ref()
            .read_obj::<u64>(GuestAddress(0x2000))
            .expect("read"),
        0
    );
}

#[test]
fn nonsense_page_size_is_refused() {
    let fd = memfd(4 * MIB, SealFlags::empty());
    let mapped = GuestMemory::map(
        Backing::HugePages {
            fd,
            page_size: 3 * MIB,
        },
        3 * MIB,
    );
    assert!(matches!(mapped, Err(MemoryError::PageSize(_))));
}
