//! A descriptor is taken exactly once and never leaks.

use std::os::fd::OwnedFd;

use proptest::prelude::*;
use rustix::io::Errno;

use crate::fd::{FdError, FdSlot, FdTable};

/// A pipe whose write end is put in a table; a read of 0 bytes tells that it was closed.
fn pipe() -> (OwnedFd, OwnedFd) {
    rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC | rustix::pipe::PipeFlags::NONBLOCK)
        .unwrap()
}

fn is_closed(read_end: &OwnedFd) -> bool {
    match rustix::io::read(read_end, &mut [0; 1]) {
        Ok(0) => true,
        Err(Errno::AGAIN) => false,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_descriptor_is_taken_once() {
    let mut table = FdTable::new();
    let slot = table.push(pipe().1).unwrap();
    assert_eq!(slot, FdSlot(0));
    assert!(table.take(slot).is_ok());
    assert_eq!(table.take(slot).unwrap_err(), FdError::Taken(0));
    assert_eq!(table.take(FdSlot(1)).unwrap_err(), FdError::Missing(1));
    assert_eq!(
        table.take(FdSlot(u16::MAX)).unwrap_err(),
        FdError::Missing(u16::MAX)
    );
}

#[test]
fn what_is_left_in_a_table_is_closed_with_it() {
    let (kept_reader, kept) = pipe();
    let (left_reader, left) = pipe();
    let mut table = FdTable::new();
    let slot = table.push(kept).unwrap();
    table.push(left).unwrap();
    let kept = table.take(slot).unwrap();
    drop(table);
    assert!(is_closed(&left_reader));
    assert!(!is_closed(&kept_reader));
    drop(kept);
    assert!(is_closed(&kept_reader));
}

#[test]
fn a_full_table_refuses_and_closes_one_more() {
    let mut table = FdTable::new();
    let (_reader, writer) = pipe();
    for _ in 0..FdTable::MAX {
        table.push(writer.try_clone().unwrap()).unwrap();
    }
    let (reader, one_more) = pipe();
    assert_eq!(table.push(one_more).unwrap_err(), FdError::TooMany);
    assert!(is_closed(&reader));
    assert_eq!(table.remaining(), FdTable::MAX);
    // A slot that was taken is not used again: slots are places in the order of sending.
    table.take(FdSlot(0)).unwrap();
    assert_eq!(table.push(pipe().1).unwrap_err(), FdError::TooMany);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_slot_gives_its_descriptor_exactly_once(
        count in 1_u16..40,
        takes in proptest::collection::vec(0_u16..48, 0..100),
    ) {
        let mut table = FdTable::new();
        let (_reader, writer) = pipe();
        for place in 0..count {
            prop_assert_eq!(table.push(writer.try_clone().unwrap()).unwrap(), FdSlot(place));
        }
        let mut taken = std::collections::HashSet::new();
        for slot in takes {
            let expected = match (slot < count, taken.insert(slot)) {
                (false, _) => Some(FdError::Missing(slot)),
                (true, false) => Some(FdError::Taken(slot)),
                (true, true) => None,
            };
            prop_assert_eq!(table.take(FdSlot(slot)).err(), expected);
        }
        let gone = taken.iter().filter(|slot| **slot < count).count();
        prop_assert_eq!(table.remaining(), usize::from(count) - gone);
        prop_assert_eq!(table.into_fds().len(), usize::from(count) - gone);
    }
}
