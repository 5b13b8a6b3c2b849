//! What the kernel is told, byte for byte.

use std::sync::Arc;

use super::*;
use crate::memory::blocks::Blocks;
use crate::virtio::testing::Driver;
use vm_memory::{GuestAddress, GuestMemoryMmap};

const GIB4: u64 = 1 << 32;

fn two_pieces() -> GuestRam {
    let ranges = [(GuestAddress(0), 0x1_0000), (GuestAddress(GIB4), 0x2000)];
    GuestRam::new(GuestMemoryMmap::from_ranges(&ranges).expect("memory for a test"))
}

fn words(bytes: &[u8]) -> Vec<u64> {
    let words = bytes.chunks_exact(8);
    words
        .map(|word| u64::from_le_bytes(word.try_into().expect("eight")))
        .collect()
}

#[test]
fn the_ioctls_are_those_that_a_filter_lists() {
    assert_eq!(GET_FEATURES, 0x8008_af00);
    assert_eq!(SET_FEATURES, 0x4008_af00);
    assert_eq!([SET_OWNER, RESET_OWNER], [0xaf01, 0xaf02]);
    assert_eq!(SET_MEM_TABLE, 0x4008_af03);
    assert_eq!(SET_VRING_NUM, 0x4008_af10);
    assert_eq!(SET_VRING_ADDR, 0x4028_af11);
    assert_eq!(SET_VRING_BASE, 0x4008_af12);
    assert_eq!(GET_VRING_BASE, 0xc008_af12);
    assert_eq!(SET_VRING_KICK, 0x4008_af20);
    assert_eq!(SET_VRING_CALL, 0x4008_af21);
    assert_eq!(SET_VRING_ERR, 0x4008_af22);
    assert_eq!(NET_SET_BACKEND, 0x4008_af30);
}

#[test]
fn memory_is_told_by_where_this_process_has_it_and_nothing_beside_it() {
    let ram = two_pieces();
    let mapped: Vec<u64> = ram
        .pieces(64)
        .into_iter()
        .map(|(_, _, mapped)| mapped)
        .collect();
    let told = words(&table(&ram).expect("two pieces have room"));
    assert_eq!(told[0], 2);
    assert_eq!(told[1..5], [0, 0x1_0000, mapped[0], 0]);
    assert_eq!(told[5..9], [GIB4, 0x2000, mapped[1], 0]);
    assert!(told[9..].iter().all(|word| *word == 0));
}

#[test]
fn of_memory_in_blocks_the_kernel_is_told_what_is_plugged() {
    const BLOCK: u64 = 2 << 20;
    let blocks = Arc::new(Blocks::new(GIB4, 200 * BLOCK, BLOCK).expect("whole blocks"));
    let ranges = [(GuestAddress(0), 0x1_0000), (GuestAddress(GIB4), 200 << 21)];
    let map = GuestMemoryMmap::from_ranges(&ranges).expect("memory for a test");
    let ram = GuestRam::with_blocks(map, Arc::clone(&blocks));
    let told = |ram| words(&table(ram).expect("there is room"));
    assert_eq!(told(&ram)[0], 1);
    assert!(told(&ram)[5..].iter().all(|word| *word == 0));
    let plug = |block: u64| {
        let run = blocks.run(GIB4 + block * BLOCK, 1).expect("a block");
        blocks.set(&run, true);
        run
    };
    plug(7);
    let mapped = ram.pieces(MAX_REGIONS)[1].2;
    assert_eq!(told(&ram)[0], 2);
    assert_eq!(told(&ram)[5..9], [GIB4 + 7 * BLOCK, BLOCK, mapped, 0]);
    blocks.set(&plug(7), false);
    // Every other one: more than the kernel takes.
    for block in (0..200).step_by(2) {
        plug(block);
    }
    assert_eq!(told(&ram)[0], 64);
}

#[test]
fn memory_of_too_many_pieces_is_not_told() {
    let ranges: Vec<_> = (0..65)
        .map(|n| (GuestAddress(n * 0x2000), 0x1000))
        .collect();
    let map = GuestMemoryMmap::from_ranges(&ranges).expect("memory for a test");
    assert!(table(&GuestRam::new(map)).is_err());
}

#[test]
fn a_ring_is_told_by_where_this_process_has_it() {
    let ram = two_pieces();
    let driver = Driver::new(&ram, GIB4 + 0x100, 16);
    let mapped = ram.pieces(64)[1].2;
    let at = |address: u64| mapped + (address - GIB4);
    let layout = driver.layout;
    assert_eq!(
        addresses(&driver.queue()).expect("in RAM"),
        [layout.descriptors, layout.available, layout.used].map(at)
    );
    let told = words(&vring_addr(1, [10, 20, 30]));
    // The kernel has the device area before the driver area.
    assert_eq!(told, [1, 10, 30, 20, 0]);
}

#[test]
fn what_is_no_vhost_net_is_refused() {
    let event = Event::new().expect("an event");
    let fd = event.as_fd().try_clone_to_owned().expect("a copy");
    assert!(VhostNet::new(fd).is_err());
    assert_eq!(
        file(1, None::<&Event>),
        [1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]
    );
}
