//! The command set, what is kept and when, failures, and the saved state.

use std::sync::{Arc, Mutex};

use vm_memory::{GuestAddress, GuestMemoryMmap};

use super::*;
use crate::shared::lock;
use crate::state::{Saveable, StateError};

const BASE: u64 = 0xffc0_0000;
const SIZE: u64 = 4 * BLOCK_BYTES;
/// How long a record is without the content.
const HEAD: usize = 15;

/// A store that keeps steps in memory, or does not.
#[derive(Debug, Default)]
struct Steps {
    steps: Mutex<Vec<(u64, Vec<u8>)>>,
    full: Mutex<bool>,
}

impl FlashStore for Steps {
    fn keep(&self, offset: u64, bytes: &[u8]) -> Result<(), NotKept> {
        assert!(!bytes.is_empty());
        let last = offset + bytes.len() as u64 - 1;
        assert_eq!(offset / BLOCK_BYTES, last / BLOCK_BYTES, "of one block");
        if *lock(&self.full) {
            return Err(NotKept);
        }
        lock(&self.steps).push((offset, bytes.to_vec()));
        Ok(())
    }
}

struct Rig {
    flash: Flash,
    array: GuestRam,
    store: Arc<Steps>,
}

impl Rig {
    /// Every byte of the array is 0xff, but for the first, which is 0xa5.
    fn new() -> Self {
        let size = usize::try_from(SIZE).unwrap();
        let map = GuestMemoryMmap::from_ranges(&[(GuestAddress(BASE), size)]).unwrap();
        let array = GuestRam::new(map);
        let mut content = vec![0xff; size];
        content[0] = 0xa5;
        array.write(BASE, &content).unwrap();
        let store = Arc::new(Steps::default());
        let flash = Flash::new(array.clone(), BASE, SIZE, store.clone()).unwrap();
        Self {
            flash,
            array,
            store,
        }
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) {
        for byte in bytes {
            self.flash.write(offset, &[*byte]).unwrap();
        }
    }

    /// As the guest sees it.
    fn read(&self, offset: u64) -> u8 {
        let mut byte = [0];
        self.array.read(BASE + offset, &mut byte).unwrap();
        byte[0]
    }

    fn program(&mut self, offset: u64, bytes: &[u8]) {
        for (offset, byte) in (offset..).zip(bytes) {
            self.write(offset, &[PROGRAM, *byte]);
        }
    }

    fn take_steps(&self) -> Vec<(u64, Vec<u8>)> {
        std::mem::take(&mut *lock(&self.store.steps))
    }

    fn set_full(&self, full: bool) {
        *lock(&self.store.full) = full;
    }

    fn all(&self) -> Vec<u8> {
        let mut content = vec![0; usize::try_from(SIZE).unwrap()];
        self.array.read(BASE, &mut content).unwrap();
        content
    }
}

#[test]
fn firmware_finds_a_flash_and_the_array_again() {
    let mut rig = Rig::new();
    rig.write(0, &[CLEAR_STATUS]);
    assert_eq!(rig.read(0), 0xa5);
    rig.write(0, &[READ_STATUS]);
    assert_eq!(rig.read(0), 0);
    assert_eq!(rig.read(1), 0xff);
    rig.write(7, &[READ_ARRAY]);
    assert_eq!(rig.read(0), 0xa5);
    assert_eq!(rig.read(7), 0xff);
    assert_eq!(rig.take_steps(), []);
}

#[test]
fn a_run_is_seen_at_once_and_kept_when_it_ends() {
    let mut rig = Rig::new();
    rig.program(0x10, b"abc");
    assert_eq!(
        (rig.read(0x10), rig.read(0x11), rig.read(0x12)),
        (b'a', b'b', READY)
    );
    assert_eq!(rig.take_steps(), []);
    rig.write(0, &[READ_ARRAY]);
    assert_eq!(rig.read(0x12), b'c');
    assert_eq!(rig.take_steps(), [(0x10, b"abc".to_vec())]);
    rig.write(0, &[READ_ARRAY]);
    assert_eq!(rig.take_steps(), []);
}

#[test]
fn another_place_is_another_step_and_no_step_is_in_two_blocks() {
    let mut rig = Rig::new();
    rig.program(0x20, b"x");
    rig.program(0x10, b"y");
    rig.program(0x10, b"Y");
    rig.program(BLOCK_BYTES - 2, b"1234");
    assert_eq!(
        rig.take_steps(),
        [
            (0x20, b"x".to_vec()),
            (0x10, b"y".to_vec()),
            (0x10, vec![b'y' & b'Y']),
            (BLOCK_BYTES - 2, b"12".to_vec()),
        ]
    );
    rig.flash.settle().unwrap();
    assert_eq!(rig.take_steps(), [(BLOCK_BYTES, b"34".to_vec())]);
    // The status is shown there still, and what was kept is the byte below it.
    assert_eq!(rig.read(BLOCK_BYTES + 1), READY);
}

#[test]
fn programming_clears_bits_and_erasing_sets_those_of_one_block() {
    let mut rig = Rig::new();
    rig.program(0, &[0x0f]);
    rig.program(BLOCK_BYTES, &[0]);
    rig.write(5, &[ERASE, CONFIRM]);
    assert_eq!(rig.read(5), READY);
    rig.write(5, &[READ_ARRAY]);
    assert_eq!((rig.read(0), rig.read(BLOCK_BYTES)), (0xff, 0));
    assert_eq!(
        rig.take_steps(),
        [
            (0, vec![0xa5 & 0x0f]),
            (BLOCK_BYTES, vec![0]),
            (0, vec![0xff; BLOCK]),
        ]
    );
}

#[test]
fn the_second_command_to_program_is_the_same() {
    let mut rig = Rig::new();
    rig.write(1, &[PROGRAM_TOO, 0x3c, READ_ARRAY]);
    assert_eq!(rig.read(1), 0x3c);
}

/// A byte that is programmed may be any command's.
#[test]
fn every_byte_can_be_programmed() {
    let mut rig = Rig::new();
    for (offset, byte) in (0x100..).zip(0..=0xff) {
        rig.write(offset, &[PROGRAM, byte]);
    }
    rig.write(0, &[READ_ARRAY]);
    let all = rig.all();
    assert_eq!(all[0x100..0x200], (0..=0xff).collect::<Vec<u8>>());
}

#[test]
fn an_erasure_that_is_not_confirmed_is_a_wrong_sequence() {
    for byte in (0..=0xff).filter(|byte| *byte != CONFIRM) {
        let mut rig = Rig::new();
        let before = rig.all();
        rig.write(9, &[ERASE, byte]);
        assert_eq!(rig.read(9), READY | ERASE_ERROR | PROGRAM_ERROR, "{byte:x}");
        rig.write(9, &[CLEAR_STATUS, READ_STATUS]);
        assert_eq!(rig.read(9), 0);
        rig.write(9, &[READ_ARRAY]);
        assert_eq!(rig.all(), before);
        assert_eq!(rig.take_steps(), []);
    }
}

#[test]
fn unknown_commands_show_the_array() {
    let known = [READ_STATUS, PROGRAM, PROGRAM_TOO, ERASE];
    for byte in (0..=0xff).filter(|byte| !known.contains(byte)) {
        let mut rig = Rig::new();
        let before = rig.all();
        rig.write(0, &[READ_STATUS, byte]);
        assert_eq!(rig.all(), before, "{byte:x}");
        // And no command was begun.
        rig.write(0, &[READ_STATUS, READ_ARRAY]);
        assert_eq!(rig.all(), before, "{byte:x}");
    }
}

#[test]
fn only_bytes_are_cycles() {
    let mut rig = Rig::new();
    for width in [2, 4, 8] {
        assert_eq!(rig.flash.write(0, &vec![PROGRAM; width]), Err(AccessError));
        rig.flash.read(0, &mut vec![0; width]).unwrap();
    }
    assert_eq!(rig.flash.write(SIZE, &[PROGRAM]), Err(AccessError));
    assert_eq!(rig.flash.read(SIZE, &mut [0]), Err(AccessError));
    assert_eq!(rig.flash.read(u64::MAX, &mut [0]), Err(AccessError));
    let mut byte = [0];
    rig.flash.read(0, &mut byte).unwrap();
    assert_eq!(byte, [0xa5]);
}

#[test]
fn what_is_not_kept_is_an_error_and_nothing_follows_it() {
    let mut rig = Rig::new();
    rig.program(0x10, b"a");
    rig.set_full(true);
    rig.write(0x10, &[READ_ARRAY, READ_STATUS]);
    assert_eq!(rig.read(0x10), READY | PROGRAM_ERROR);
    // There is room again, and a hole is not made.
    rig.set_full(false);
    rig.program(0x11, b"b");
    assert_eq!(rig.read(0x11), READY | PROGRAM_ERROR);
    rig.write(0x11, &[ERASE, CONFIRM]);
    assert_eq!(rig.read(0x11), READY | PROGRAM_ERROR | ERASE_ERROR);
    rig.write(0x11, &[READ_ARRAY]);
    assert_eq!((rig.read(0x10), rig.read(0x11)), (b'a', 0xff));
    assert_eq!(rig.take_steps(), [(0x10, b"a".to_vec())]);
    rig.program(0x11, b"b");
    rig.write(0x11, &[CLEAR_STATUS]);
    rig.program(0x12, b"c");
    rig.write(0x11, &[READ_ARRAY]);
    assert_eq!(rig.take_steps(), [(0x12, b"c".to_vec())]);
}

#[test]
fn a_store_that_is_still_full_is_an_error_again_and_no_flash_to_firmware() {
    let mut rig = Rig::new();
    rig.set_full(true);
    rig.write(5, &[ERASE, CONFIRM]);
    assert_eq!(rig.read(5), READY | ERASE_ERROR);
    rig.write(5, &[CLEAR_STATUS, READ_STATUS]);
    assert_eq!(rig.read(5), READY | PROGRAM_ERROR);
    rig.flash.reset();
    rig.write(5, &[CLEAR_STATUS, READ_STATUS]);
    assert_ne!(rig.read(5), 0);
    rig.set_full(false);
    rig.flash.reset();
    assert_eq!(rig.take_steps(), [(0, vec![0xff; BLOCK])]);
    rig.write(5, &[CLEAR_STATUS, READ_STATUS]);
    assert_eq!(rig.read(5), 0);
}

#[test]
fn a_reset_ends_a_command_and_keeps_what_was_programmed() {
    let mut rig = Rig::new();
    rig.program(2, b"q");
    rig.write(3, &[PROGRAM]);
    rig.flash.reset();
    assert_eq!(rig.take_steps(), [(2, b"q".to_vec())]);
    assert_eq!((rig.read(2), rig.read(3)), (b'q', 0xff));
    rig.write(3, &[READ_STATUS]);
    assert_eq!(rig.read(3), READY);
}

#[test]
fn there_is_no_array_of_other_sizes() {
    let size = usize::try_from(MAX_BYTES + 2 * BLOCK_BYTES).unwrap();
    let map = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), size)]).unwrap();
    let array = GuestRam::new(map);
    let of = |base, size| {
        let store = Arc::new(Steps::default());
        Flash::new(array.clone(), base, size, store).map(|_| ())
    };
    assert_eq!(of(0, MAX_BYTES), Ok(()));
    for size in [0, 1, BLOCK_BYTES + 1, MAX_BYTES + BLOCK_BYTES, u64::MAX] {
        assert_eq!(of(0, size), Err(FlashSizeError(size)));
    }
    assert!(of(size as u64, BLOCK_BYTES).is_err());
    assert!(of(u64::MAX, BLOCK_BYTES).is_err());
}

/// A machine that is saved in any state of a command goes on as the one that was not.
#[test]
fn every_state_comes_back() {
    let cycles: [&[(u64, u8)]; 8] = [
        &[],
        &[(9, READ_STATUS)],
        &[(9, CLEAR_STATUS), (8, READ_STATUS)],
        &[(9, PROGRAM)],
        &[(9, PROGRAM), (9, 0x11)],
        &[(9, PROGRAM), (9, 0x11), (10, PROGRAM)],
        &[(9, ERASE)],
        &[(9, ERASE), (9, 0)],
    ];
    let rest = [(10, PROGRAM), (10, CONFIRM), (11, 0x22), (0, READ_ARRAY)];
    for before in cycles {
        let (mut one, mut other) = (Rig::new(), Rig::new());
        for (offset, byte) in before {
            one.write(*offset, &[*byte]);
        }
        let saved = one.flash.save();
        other.flash.restore(1, &saved).unwrap();
        assert_eq!(other.flash.save(), saved, "{before:x?}");
        assert_eq!(other.all(), one.all(), "{before:x?}");
        assert_eq!(other.take_steps(), [], "{before:x?}");
        for (offset, byte) in rest {
            one.write(offset, &[byte]);
            other.write(offset, &[byte]);
            assert_eq!(other.all(), one.all(), "{before:x?}");
        }
        assert_eq!(other.take_steps(), one.take_steps(), "{before:x?}");
    }
}

/// The store has what another machine made of it since.
#[test]
fn content_that_the_store_has_not_is_kept_before_the_guest_runs() {
    let (mut one, mut other) = (Rig::new(), Rig::new());
    one.program(BLOCK_BYTES - 1, b"ab");
    one.program(SIZE - 1, &[0]);
    one.write(0, &[READ_ARRAY]);
    other.flash.restore(1, &one.flash.save()).unwrap();
    assert_eq!(other.take_steps(), []);
    other.flash.settle().unwrap();
    assert_eq!(other.all(), one.all());
    let mut store = Rig::new().all();
    for (offset, bytes) in other.take_steps() {
        let start = usize::try_from(offset).unwrap();
        store[start..start + bytes.len()].copy_from_slice(&bytes);
    }
    assert_eq!(store, one.all());
}

/// What this machine had not kept itself is another's byte in the record, and must reach the store too.
#[test]
fn what_was_pending_before_is_replaced_in_the_store() {
    let (one, mut other) = (Rig::new(), Rig::new());
    other.program(0x40, b"z");
    other.flash.restore(1, &one.flash.save()).unwrap();
    other.flash.settle().unwrap();
    assert_eq!(other.take_steps(), [(0x40, vec![0xff])]);
}

#[test]
fn impossible_records_are_refused_and_change_nothing() {
    let mut rig = Rig::new();
    rig.program(0x10, b"a");
    let (saved, before) = (rig.flash.save(), rig.all());
    let size = u32::try_from(SIZE).unwrap();
    let mut refuse = |at: usize, bytes: &[u8], field| {
        let mut record = saved.clone();
        record[at..at + bytes.len()].copy_from_slice(bytes);
        let refused = rig.flash.restore(1, &record);
        assert_eq!(refused, Err(StateError::Invalid { field }));
        assert_eq!(rig.all(), before);
        assert_eq!(rig.flash.save(), saved);
    };
    refuse(0, &[4], "mode");
    refuse(0, &[0], "shown");
    refuse(1, &[1], "status");
    refuse(2, &[2], "refuses");
    refuse(3, &size.to_le_bytes(), "shown");
    refuse(7, &0x20_u32.to_le_bytes(), "pending");
    refuse(11, &(size + 1).to_le_bytes(), "pending");
    let invalid = Err(StateError::Invalid { field: "content" });
    let mut long = saved.clone();
    long.push(0);
    assert_eq!(rig.flash.restore(1, &long), invalid);
    assert_eq!(rig.flash.restore(1, &saved[..saved.len() - 1]), invalid);
    for len in 0..HEAD {
        assert!(rig.flash.restore(1, &saved[..len]).is_err());
    }
    assert!(rig.flash.restore(2, &saved).is_err());
    assert_eq!(rig.flash.save(), saved);
}

/// A restored machine whose content found no room: each cycle of its guest keeps one step of it, and refuses until then.
#[test]
fn what_was_restored_and_found_no_room_is_kept_step_by_step() {
    let (mut one, mut other) = (Rig::new(), Rig::new());
    one.program(1, &[0]);
    one.program(SIZE - 1, &[0]);
    one.write(0, &[READ_ARRAY]);
    other.flash.restore(1, &one.flash.save()).unwrap();
    other.set_full(true);
    assert_eq!(other.flash.settle(), Err(NotKept));
    other.set_full(false);
    for _ in 0..SIZE / BLOCK_BYTES - 1 {
        other.write(5, &[CLEAR_STATUS]);
        assert_eq!(other.take_steps().len(), 1);
        other.program(5, &[0]);
        assert_eq!(other.read(5), READY | PROGRAM_ERROR);
        other.write(5, &[PROGRAM]);
        other.write(5, &[0]);
    }
    other.write(5, &[CLEAR_STATUS]);
    assert_eq!(other.take_steps().len(), 1);
    assert_eq!(other.all(), one.all());
    other.program(5, &[0]);
    other.write(5, &[READ_ARRAY]);
    assert_eq!(other.take_steps(), [(5, vec![0])]);
}
