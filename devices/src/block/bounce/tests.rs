//! Transfers through the buffer, over files that would take them as they are too.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use proptest::prelude::*;

use super::*;
use crate::memory::testing::ram;
use crate::virtio::chain::Span;

const FILE_BYTES: usize = 600_000;

fn low(value: usize) -> u8 {
    u8::try_from(value).expect("small")
}

fn file() -> (File, Vec<u8>) {
    let bytes: Vec<u8> = (0..FILE_BYTES).map(|index| low(index % 253)).collect();
    let file = tempfile::tempfile().expect("a file");
    file.write_all_at(&bytes, 0).expect("written");
    (file, bytes)
}

fn content(file: &File) -> Vec<u8> {
    let len = file.metadata().expect("there").len();
    let mut bytes = vec![0; usize::try_from(len).expect("small")];
    file.read_exact_at(&mut bytes, 0).expect("there");
    bytes
}

#[test]
fn alignments_are_powers_of_two_that_exist() {
    assert!(Direct::new(4, 512).is_some());
    assert!(Direct::new(4096, 4096).is_some());
    for (memory, block) in [(0, 512), (512, 0), (3, 512), (512, 8192)] {
        assert!(Direct::new(memory, block).is_none());
    }
}

#[test]
fn only_whole_blocks_in_aligned_memory_go_straight() {
    let ram = ram(0x10000);
    let direct = Direct::new(512, 4096).expect("an alignment");
    let allows = |address, len, offset| {
        let spans = [Span { address, len }];
        let run = Run {
            spans: &spans,
            skip: 0,
            len: len.into(),
        };
        direct.allows(&ram, run, offset)
    };
    assert!(allows(0x1000, 4096, 8192));
    assert!(allows(0x1200, 4096, 8192));
    assert!(!allows(0x1100, 4096, 8192));
    assert!(!allows(0x1000, 512, 8192));
    assert!(!allows(0x1000, 4096, 512));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn bytes_go_where_they_would_go_straight(
        offset in 0..500_000_usize,
        len in 1..300_000_usize,
        block in prop_oneof![Just(1_u32), Just(512), Just(4096)],
        start in 0..5000_u64,
        write in any::<bool>(),
    ) {
        let (file, mut expected) = file();
        let ram = ram(0x10_0000);
        let half = len / 2;
        let pieces = [(start, half), (0x8_0000 + start, len - half)];
        let spans: Vec<Span> = pieces
            .iter()
            .filter(|(_, len)| *len > 0)
            .map(|(address, len)| Span { address: *address, len: u32::try_from(*len).unwrap() })
            .collect();
        let run = Run { spans: &spans, skip: 0, len: len as u64 };
        let mut bounce = Bounce::new(Direct::new(block.min(512), block).unwrap());
        if write {
            let data: Vec<u8> = (0..len).map(|index| low(index % 249)).collect();
            run.fill(&ram, &data);
            let moved = bounce.write(file.as_fd(), &ram, run, offset as u64).unwrap();
            prop_assert_eq!(moved, len as u64);
            let end = (offset + len).max(expected.len());
            expected.resize(end, 0);
            expected[offset..offset + len].copy_from_slice(&data);
            let mut found = content(&file);
            // The last block is written whole.
            prop_assert!(found.len() < end + block as usize);
            prop_assert!(found[end..].iter().all(|byte| *byte == 0));
            found.truncate(end);
            prop_assert!(found == expected);
        } else {
            let moved = bounce.read(file.as_fd(), &ram, run, offset as u64).unwrap();
            let there = len.min(FILE_BYTES - offset);
            prop_assert_eq!(moved, there as u64);
            let mut found = vec![0; len];
            run.empty(&ram, &mut found);
            prop_assert!(found[..there] == expected[offset..offset + there]);
        }
    }
}

#[test]
fn writers_of_parts_of_one_block_do_not_undo_each_other() {
    let (file, _) = file();
    let direct = Direct::new(512, 4096).expect("an alignment");
    std::thread::scope(|scope| {
        for part in 0..8_u8 {
            let (file, direct) = (&file, direct.clone());
            scope.spawn(move || {
                let mut bounce = Bounce::new(direct);
                for _ in 0..200 {
                    let fill = |_, data: &mut [u8]| {
                        data.fill(0x80 | part);
                        Ok(())
                    };
                    bounce
                        .write_with(file.as_fd(), u64::from(part) * 512, 512, fill)
                        .expect("written");
                }
            });
        }
    });
    let found = content(&file);
    for part in 0..8 {
        let sector = &found[part * 512..(part + 1) * 512];
        assert!(sector.iter().all(|byte| *byte == low(0x80 | part)));
    }
}

#[test]
fn what_the_guest_has_unplugged_is_neither_read_nor_written_and_nothing_takes_its_place() {
    use std::sync::Arc;

    use vm_memory::{GuestAddress, GuestMemoryMmap};

    use crate::block::vectored::{self, Vectors};
    use crate::memory::blocks::Blocks;

    const BLOCK: u64 = 2 << 20;
    const START: u64 = 4 << 30;
    let blocks = Arc::new(Blocks::new(START, 2 * BLOCK, BLOCK).expect("whole blocks"));
    let ranges = [(GuestAddress(0), 0x1_0000), (GuestAddress(START), 4 << 20)];
    let map = GuestMemoryMmap::from_ranges(&ranges).expect("memory for a test");
    let ram = GuestRam::with_blocks(map, Arc::clone(&blocks));
    // Of what was plugged when the request came there is the last part only.
    let spans = [(START, 512), (0x1000, 512)].map(|(address, len)| Span { address, len });
    let run = Run {
        spans: &spans,
        skip: 0,
        len: 1024,
    };
    ram.write(0x1000, &[0xaa; 512]).expect("in RAM");
    let (file, bytes) = file();
    let mut bounce = Bounce::new(Direct::new(512, 512).expect("an alignment"));
    let mut vectors = Vectors::default();
    let gone = [
        bounce.write(file.as_fd(), &ram, run, 0),
        bounce.read(file.as_fd(), &ram, run, 0),
        vectored::write(file.as_fd(), &ram, run, 0, &mut vectors),
        vectored::read(file.as_fd(), &ram, run, 0, &mut vectors),
    ];
    for result in gone {
        let error = result.expect_err("there is no such memory");
        assert_eq!(error.raw_os_error(), Some(libc::EFAULT));
    }
    // What comes before it is moved, and no more.
    let back = [spans[1], spans[0]];
    let back = Run {
        spans: &back,
        ..run
    };
    let moved = vectored::write(file.as_fd(), &ram, back, 0, &mut vectors);
    assert_eq!(moved.expect("the first part"), 512);
    let content = content(&file);
    assert_eq!(content[..512], [0xaa; 512]);
    assert_eq!(content[512..], bytes[512..]);
    let mut untouched = [0; 512];
    ram.read(0x1000, &mut untouched).expect("in RAM");
    assert_eq!(untouched, [0xaa; 512]);
}
