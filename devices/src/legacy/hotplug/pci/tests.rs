//! Tests of the slots' registers, after what the DSDT's methods do to them.

use proptest::prelude::*;

use super::*;
use crate::legacy::hotplug::testing::RecordEject;

struct Rig {
    device: PciHotplug,
    ejected: Arc<RecordEject>,
}

impl Rig {
    fn new() -> Self {
        let ejected = RecordEject::new();
        Self {
            device: PciHotplug::new(ejected.clone()),
            ejected,
        }
    }

    fn read32(&mut self, offset: u64) -> u32 {
        let mut data = [0; 4];
        self.device.read(offset, &mut data).unwrap();
        u32::from_le_bytes(data)
    }

    fn write32(&mut self, offset: u64, value: u32) {
        self.device.write(offset, &value.to_le_bytes()).unwrap();
    }
}

#[test]
fn an_insertion_is_told_once() {
    let mut rig = Rig::new();
    assert!(rig.device.insert(1) && rig.device.insert(31));
    assert_eq!(rig.read32(UP), 1 << 1 | 1 << 31);
    assert_eq!(rig.read32(UP), 0);
    assert!(rig.device.insert(1));
    assert_eq!(rig.read32(UP), 1 << 1);
    assert_eq!(rig.read32(DOWN), 0);
}

#[test]
fn a_removal_is_asked_once_for_each_request_and_ends_with_an_ejection() {
    let mut rig = Rig::new();
    assert!(rig.device.request_removal(7));
    assert_eq!(rig.read32(DOWN), 1 << 7);
    assert_eq!(rig.read32(DOWN), 0);
    assert!(rig.device.request_removal(7), "asked again");
    assert_eq!(rig.read32(DOWN), 1 << 7);
    assert_eq!(rig.ejected.take(), []);
    rig.write32(EJECT, 1 << 7);
    assert_eq!(rig.ejected.take(), [Ejected::Slot(7)]);
    assert_eq!((rig.read32(UP), rig.read32(DOWN)), (0, 0));
}

#[test]
fn the_next_function_of_a_slot_is_not_asked_to_leave_for_the_one_before() {
    let mut rig = Rig::new();
    rig.device.request_removal(3);
    rig.device.insert(3);
    assert_eq!((rig.read32(UP), rig.read32(DOWN)), (1 << 3, 0));
    rig.device.insert(3);
    rig.device.request_removal(3);
    assert_eq!((rig.read32(UP), rig.read32(DOWN)), (1 << 3, 1 << 3));
}

#[test]
fn the_host_bridge_and_slots_that_do_not_exist_are_no_slots() {
    let mut rig = Rig::new();
    for slot in [0, 32, 33, 255] {
        assert!(!rig.device.insert(slot));
        assert!(!rig.device.request_removal(slot));
    }
    assert_eq!((rig.read32(UP), rig.read32(DOWN)), (0, 0));
    rig.write32(EJECT, 1);
    assert_eq!(rig.ejected.take(), []);
}

#[test]
fn a_guest_may_eject_what_nobody_asked_for_and_all_at_once() {
    let mut rig = Rig::new();
    rig.device.insert(4);
    rig.write32(EJECT, u32::MAX);
    let all: Vec<_> = (1..=31).map(Ejected::Slot).collect();
    assert_eq!(rig.ejected.take(), all);
    assert_eq!(rig.read32(UP), 0, "what is gone is not new");
}

#[test]
fn accesses_of_other_widths_do_nothing() {
    let mut rig = Rig::new();
    rig.device.insert(5);
    rig.device.request_removal(6);
    for width in [1, 2, 8] {
        for offset in 0..16 {
            let mut data = [0; 8];
            assert_eq!(
                rig.device.read(offset, &mut data[..width]),
                Err(AccessError)
            );
            assert_eq!(
                rig.device.write(offset, &[0xff; 8][..width]),
                Err(AccessError)
            );
        }
    }
    for offset in [1, 2, 3, 5, 9, 16, u64::MAX - 3, u64::MAX] {
        assert_eq!(rig.device.read(offset, &mut [0; 4]), Err(AccessError));
        assert_eq!(rig.device.write(offset, &[0xff; 4]), Err(AccessError));
    }
    assert_eq!(rig.ejected.take(), []);
    assert_eq!((rig.read32(UP), rig.read32(DOWN)), (1 << 5, 1 << 6));
}

#[test]
fn what_cannot_be_written_is_not_and_what_cannot_be_read_is_zero() {
    let mut rig = Rig::new();
    for offset in [UP, DOWN, 12] {
        rig.write32(offset, u32::MAX);
        assert_eq!(rig.read32(offset), 0);
    }
    rig.write32(EJECT, 2);
    assert_eq!(rig.read32(EJECT), 0);
}

#[test]
fn version_1_state_is_these_bytes() {
    let mut rig = Rig::new();
    rig.device.insert(1);
    rig.device.request_removal(31);
    let bytes = [0x02, 0, 0, 0, 0, 0, 0, 0x80];
    assert_eq!(rig.device.save(), bytes);
    let mut other = Rig::new();
    other.device.restore(1, &bytes).unwrap();
    assert_eq!((other.read32(UP), other.read32(DOWN)), (1 << 1, 1 << 31));
}

#[test]
fn impossible_state_is_refused_and_changes_nothing() {
    let mut rig = Rig::new();
    rig.device.insert(9);
    let good = rig.device.save();
    let invalid = |field| Err(StateError::Invalid { field });
    assert_eq!(
        rig.device.restore(1, &[1, 0, 0, 0, 0, 0, 0, 0]),
        invalid("up")
    );
    assert_eq!(
        rig.device.restore(1, &[0, 0, 0, 0, 1, 0, 0, 0]),
        invalid("down")
    );
    assert_eq!(rig.device.restore(1, &[0; 7]), Err(StateError::Truncated));
    assert!(rig.device.restore(1, &[0; 9]).is_err());
    assert!(rig.device.restore(2, &good).is_err());
    assert_eq!(rig.device.save(), good);
}

#[test]
fn reset_forgets_what_was_to_be_told() {
    let mut rig = Rig::new();
    rig.device.insert(2);
    rig.device.request_removal(3);
    rig.device.reset();
    assert_eq!(rig.device.save(), Rig::new().device.save());
    assert_eq!(rig.ejected.take(), []);
}

proptest! {
    #[test]
    fn any_access_sequence_leaves_a_state_that_can_be_restored(
        steps in proptest::collection::vec(
            (any::<u64>(), 0usize..9, any::<u64>(), 0u8..6), 0..200),
    ) {
        let mut rig = Rig::new();
        for (offset, width, value, step) in steps {
            // Mostly inside the registers.
            let offset = if step < 4 { offset % 16 } else { offset };
            let data = &value.to_le_bytes()[..width.min(8)];
            match step {
                0 | 4 => drop(rig.device.read(offset, &mut data.to_vec())),
                1 | 5 => drop(rig.device.write(offset, data)),
                2 => drop(rig.device.insert(value.to_le_bytes()[0])),
                _ => drop(rig.device.request_removal(value.to_le_bytes()[0])),
            }
            for what in rig.ejected.take() {
                prop_assert!(matches!(what, Ejected::Slot(1..=31)));
            }
        }
        let saved = rig.device.save();
        let mut other = Rig::new();
        other.device.restore(1, &saved).unwrap();
        prop_assert_eq!(other.device.save(), saved);
    }
}
