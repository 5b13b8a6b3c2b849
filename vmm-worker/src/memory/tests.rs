//! Memory is mapped from descriptors as they come from the supervisor, good and bad.

use std::os::fd::OwnedFd;

use rustix::fs::{MemfdFlags, SealFlags};
use vm_memory::{Bytes, GuestAddress};

use super::{Backing, GuestMemory, MemoryError, Pluggable};
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

const BLOCK: u64 = 2 * MIB;

fn pluggable(bytes: u64) -> Option<Pluggable> {
    Some(Pluggable {
        bytes,
        block_bytes: BLOCK,
        file_offset: 4 * MIB,
    })
}

#[test]
fn memory_that_can_be_plugged_in_is_in_the_file_and_the_map_and_no_ram_yet() {
    let memory = GuestMemory::map_with(sealed(10 * MIB), 4 * MIB, pluggable(6 * MIB));
    let memory = memory.expect("mapped");
    let regions: Vec<_> = memory.regions().collect();
    assert_eq!(regions.len(), 1, "a machine starts without it");
    assert_eq!((memory.size(), memory.low_end()), (4 * MIB, 4 * MIB));
    let start = 4 << 30;
    let blocks = memory.blocks().expect("blocks");
    assert_eq!(blocks.range(), start..start + 6 * MIB);
    assert_eq!(memory.end(), start + 6 * MIB);
    assert!(memory.ram().contains(0, 4 * MIB));
    assert!(!memory.ram().contains(start, 1));

    let slots: Vec<_> = memory.block_regions(start + BLOCK, 2 * BLOCK).collect();
    let numbers: Vec<_> = slots.iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers, [1, 2]);
    assert_eq!(slots[1].1.guest_address, start + 2 * BLOCK);
    assert_eq!(slots[1].1.host_address - slots[0].1.host_address, BLOCK);
    for (address, len) in [
        (start, 0),
        (start + 4096, BLOCK),
        (start, BLOCK + 4096),
        (start, 4 * BLOCK),
        (0, BLOCK),
    ] {
        assert_eq!(memory.block_regions(address, len).count(), 0);
    }

    // A reset empties it too, and so does giving it back.
    let last = GuestAddress(start + 6 * MIB - 8);
    let read = || memory.map_ref().read_obj::<u64>(last).expect("read");
    memory.map_ref().write_obj(u64::MAX, last).expect("write");
    memory.give_back(start + 2 * BLOCK, BLOCK).expect("freed");
    assert_eq!(read(), 0);
    memory.map_ref().write_obj(u64::MAX, last).expect("write");
    memory.discard().expect("discarded");
    assert_eq!(read(), 0);
}

#[test]
fn what_cannot_be_plugged_in_is_refused() {
    let short = GuestMemory::map_with(sealed(8 * MIB), 4 * MIB, pluggable(6 * MIB));
    assert!(matches!(short, Err(MemoryError::Short { needed, .. }) if needed == 10 * MIB));
    let half = GuestMemory::map_with(sealed(10 * MIB), 4 * MIB, pluggable(3 * MIB));
    assert!(matches!(half, Err(MemoryError::Blocks(_))));
    let none = GuestMemory::map_with(sealed(10 * MIB), 4 * MIB, pluggable(0));
    assert!(matches!(none, Err(MemoryError::Blocks(_))));
    let within = GuestMemory::map_with(sealed(10 * MIB), 6 * MIB, pluggable(4 * MIB));
    assert!(matches!(within, Err(MemoryError::NotPluggable(BLOCK))));
    let fd = memfd(10 * MIB, SealFlags::empty());
    let private = GuestMemory::map_with(Backing::PrivateCopy { fd }, 4 * MIB, pluggable(6 * MIB));
    assert!(matches!(private, Err(MemoryError::NotPluggable(BLOCK))));
    let most = GuestMemory::map_with(sealed(4 * MIB), 4 * MIB, pluggable(u64::MAX - BLOCK + 1));
    assert!(most.is_err());
}

#[test]
fn a_look_gives_what_the_guest_wrote_and_makes_nothing_else_resident() {
    let size = 16 * MIB;
    let fd = memfd(3 * size, SealFlags::SHRINK | SealFlags::GROW);
    let books = fd.try_clone().expect("another");
    let taken = || rustix::fs::fstat(&books).expect("books").st_blocks;
    let pluggable = Pluggable {
        bytes: 2 * size,
        block_bytes: 2 * MIB,
        file_offset: size,
    };
    let memory = GuestMemory::map_with(Backing::Shared { fd }, size, Some(pluggable));
    let memory = memory.expect("mapped");
    memory
        .map_ref()
        .write_slice(b"written", GuestAddress(5 * MIB - 3))
        .expect("in RAM");
    let before = taken();
    let mib = usize::try_from(MIB).expect("small");
    let mut data = vec![1; 2 * mib];
    memory.peek(4 * MIB, &mut data).expect("read");
    let (place, len) = (mib - 3, 7);
    assert_eq!(&data[place..place + len], b"written");
    let others = data.iter().enumerate();
    let mut others = others.filter(|(at, _)| !(place..place + len).contains(at));
    assert!(others.all(|(_, byte)| *byte == 0));
    memory.peek(8 * MIB, &mut data).expect("a hole");
    assert!(data.iter().all(|byte| *byte == 0));
    assert_eq!(taken(), before, "nothing was allocated");
    // What is behind it, or is not plugged.
    assert!(memory.peek(15 * MIB, &mut data).is_err());
    let blocks = memory.blocks().expect("blocks").range().start;
    assert!(memory.peek(blocks, &mut data[..512]).is_err());
}
