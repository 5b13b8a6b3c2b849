//! Tests of the vCPUs' registers, after what the DSDT's methods do to them.

use proptest::prelude::*;

use super::*;
use crate::legacy::hotplug::testing::RecordEject;

struct Rig {
    device: CpuHotplug,
    ejected: Arc<RecordEject>,
}

impl Rig {
    fn new(present: u32, possible: u32) -> Self {
        let ejected = RecordEject::new();
        Self {
            device: CpuHotplug::new(present, possible, ejected.clone()),
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

    fn flags_of(&mut self, index: u32) -> u32 {
        self.write32(SELECT, index);
        self.read32(FLAGS)
    }

    /// What `\_GPE._E02` does: what it would notify.
    fn scan(&mut self) -> Vec<(u32, u32)> {
        let mut seen = Vec::new();
        while let index @ 0..CpuHotplug::MAX_VCPUS = self.read32(PENDING) {
            let flags = self.flags_of(index);
            self.write32(FLAGS, flags & (INSERTED | REMOVE));
            seen.push((index, flags));
        }
        seen
    }
}

#[test]
fn the_vcpus_of_the_start_are_present_and_no_news() {
    let mut rig = Rig::new(2, 4);
    let flags: Vec<_> = (0..6).map(|index| rig.flags_of(index)).collect();
    assert_eq!(flags, [PRESENT, PRESENT, 0, 0, 0, 0]);
    assert_eq!(rig.scan(), []);
}

#[test]
fn a_new_vcpu_is_told_once() {
    let mut rig = Rig::new(1, 300);
    assert!(rig.device.insert(299) && rig.device.insert(1));
    assert!(!rig.device.insert(1), "it is there");
    let new = PRESENT | INSERTED;
    assert_eq!(rig.scan(), [(1, new), (299, new)]);
    assert_eq!(rig.scan(), []);
    assert_eq!(rig.flags_of(299), PRESENT);
}

#[test]
fn a_vcpu_leaves_when_the_guest_ejects_it_and_can_come_again() {
    let mut rig = Rig::new(4, 4);
    assert!(rig.device.request_removal(3));
    assert_eq!(rig.scan(), [(3, PRESENT | REMOVE)]);
    assert!(rig.device.is_present(3), "asked, not gone");
    assert!(rig.device.request_removal(3), "asked again");
    assert_eq!(rig.scan(), [(3, PRESENT | REMOVE)]);
    rig.write32(SELECT, 3);
    rig.write32(FLAGS, EJECT);
    assert_eq!(rig.ejected.take(), [Ejected::Vcpu(3)]);
    assert_eq!(rig.read32(FLAGS), 0, "the guest looks at once");
    rig.write32(FLAGS, EJECT);
    assert_eq!(rig.ejected.take(), [], "there is nothing to eject");
    assert!(!rig.device.request_removal(3));
    assert!(rig.device.insert(3));
    assert_eq!(rig.scan(), [(3, PRESENT | INSERTED)]);
}

#[test]
fn a_change_after_the_guest_looked_is_not_lost_with_what_it_saw() {
    let mut rig = Rig::new(1, 2);
    rig.device.insert(1);
    let seen = rig.flags_of(1);
    rig.device.request_removal(1);
    rig.write32(FLAGS, seen & (INSERTED | REMOVE));
    assert_eq!(rig.scan(), [(1, PRESENT | REMOVE)]);
}

#[test]
fn a_guest_may_eject_what_nobody_asked_for_but_not_its_boot_processor() {
    let mut rig = Rig::new(3, 8);
    for index in [0, 1, 5, 8, 1023, 1024, u32::MAX] {
        rig.write32(SELECT, index);
        rig.write32(FLAGS, u32::MAX);
    }
    assert_eq!(rig.ejected.take(), [Ejected::Vcpu(1)]);
    assert_eq!(rig.flags_of(0), PRESENT);
    assert!(!rig.device.request_removal(0));
    assert_eq!(rig.device.present_without_gap(), 1);
}

#[test]
fn a_vcpu_that_cannot_be_is_neither_inserted_nor_asked_to_leave() {
    let mut rig = Rig::new(1, 2);
    for index in [2, 1023, 1024, u32::MAX] {
        assert!(!rig.device.insert(index));
        assert!(!rig.device.request_removal(index));
        assert_eq!(rig.flags_of(index), 0);
    }
    assert!(!rig.device.request_removal(1), "it is not there");
    let all = Rig::new(u32::MAX, u32::MAX);
    assert_eq!(all.device.present_without_gap(), CpuHotplug::MAX_VCPUS);
    let none = Rig::new(0, 0);
    assert_eq!(none.device.present_without_gap(), 1);
}

#[test]
fn accesses_of_other_widths_do_nothing() {
    let mut rig = Rig::new(2, 2);
    rig.write32(SELECT, 1);
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
    for offset in [1, 2, 3, 5, 16, u64::MAX - 3, u64::MAX] {
        assert_eq!(rig.device.read(offset, &mut [0; 4]), Err(AccessError));
        assert_eq!(rig.device.write(offset, &[0xff; 4]), Err(AccessError));
    }
    assert_eq!(rig.ejected.take(), []);
    assert_eq!((rig.read32(SELECT), rig.read32(FLAGS)), (1, PRESENT));
    rig.write32(PENDING, 1);
    assert_eq!(rig.read32(PENDING), u32::MAX);
}

#[test]
fn what_a_guest_says_of_its_vcpus_is_told_once_and_only_of_those_it_has() {
    let mut rig = Rig::new(4, 6);
    rig.device.insert(4);
    for (index, status) in [
        (4, 0x0001_0000),
        (3, 0x0103_0001),
        (2, 0x0003_0082),
        (1, 0x0103_0002),
        (0, 0x0003_0084),
        (0, 0x0003_0000),
        (0, 0x0001_0080),
        (0, 0x0010_0000),
        (5, 0x0001_0000),
        (1024, 0x0003_0001),
        (u32::MAX, 0x0003_0001),
    ] {
        rig.write32(SELECT, index);
        rig.write32(STATUS, status);
        assert_eq!(rig.read32(STATUS), 0);
    }
    assert_eq!(rig.ejected.answers(), 4);
    let answers = Answers {
        taken: vec![4],
        kept: vec![1, 2],
        not_yet: vec![3],
    };
    assert_eq!(rig.device.take_answers(), answers);
    assert_eq!(rig.device.take_answers(), Answers::default());
}

#[test]
fn there_is_news_until_the_guest_has_looked() {
    let mut rig = Rig::new(2, 3);
    assert!(!rig.device.has_news());
    rig.device.request_removal(1);
    assert!(rig.device.has_news());
    rig.device.withdraw_removal(1);
    assert!(!rig.device.has_news());
    assert_eq!(rig.scan(), []);
    rig.device.insert(2);
    assert!(rig.device.has_news());
    rig.scan();
    assert!(!rig.device.has_news());
}

/// Two vCPUs of three, of which 1 is asked to leave and 2 has just come.
fn golden() -> Vec<u8> {
    let mut bytes = vec![0; 8 + 3 * 128];
    bytes[0] = 3;
    bytes[4] = 1;
    bytes[8] = 0b111;
    bytes[8 + 128] = 0b100;
    bytes[8 + 256] = 0b010;
    bytes
}

#[test]
fn version_1_state_is_these_bytes() {
    let mut rig = Rig::new(2, 3);
    rig.device.insert(2);
    rig.device.request_removal(1);
    rig.write32(SELECT, 1);
    assert_eq!(rig.device.save(), golden());
    let mut other = Rig::new(1, 3);
    other.device.restore(1, &golden()).unwrap();
    assert_eq!(other.device.save(), golden());
    assert_eq!(
        other.scan(),
        [(1, PRESENT | REMOVE), (2, PRESENT | INSERTED)]
    );
}

#[test]
fn impossible_state_is_refused_and_changes_nothing() {
    let mut rig = Rig::new(1, 3);
    let good = rig.device.save();
    for (at, value, field) in [
        (0, 4, "possible"),
        (3, 1, "possible"),
        (8, 0b110, "present"),
        (8, 0b1111, "present"),
        (8 + 127, 0x80, "present"),
        (8, 0b011, "inserted"),
        (8 + 128 + 127, 1, "inserted"),
        (8 + 256, 0b001, "remove"),
        (8 + 256, 0b1000, "remove"),
    ] {
        let mut bytes = golden();
        bytes[at] = value;
        assert_eq!(
            rig.device.restore(1, &bytes),
            Err(StateError::Invalid { field }),
            "{at}"
        );
    }
    let bytes = golden();
    assert_eq!(
        rig.device.restore(1, &bytes[..bytes.len() - 1]),
        Err(StateError::Truncated)
    );
    assert!(rig.device.restore(1, &[&bytes[..], &[0]].concat()).is_err());
    assert!(rig.device.restore(2, &bytes).is_err());
    assert_eq!(rig.device.save(), good);
}

#[test]
fn reset_keeps_the_vcpus_that_are_there() {
    let mut rig = Rig::new(2, 8);
    rig.device.insert(4);
    rig.device.request_removal(1);
    rig.write32(SELECT, 7);
    rig.device.reset();
    assert_eq!(rig.scan(), []);
    assert_eq!(rig.flags_of(4), PRESENT);
    assert_eq!(rig.device.present_without_gap(), 2);
    assert_eq!(rig.ejected.take(), []);
    for index in [0, 1, 7] {
        rig.device.take(index);
    }
    assert_eq!((rig.flags_of(0), rig.flags_of(1)), (PRESENT, 0));
    assert_eq!(rig.ejected.take(), [], "it was not the guest");
}

proptest! {
    #[test]
    fn any_access_sequence_leaves_a_state_that_can_be_restored(
        possible in 1u32..1100,
        steps in proptest::collection::vec(
            (any::<u64>(), 0usize..9, any::<u64>(), 0u8..9), 0..200),
    ) {
        let mut rig = Rig::new(possible / 2, possible);
        for (offset, width, value, step) in steps {
            // Mostly inside the registers.
            let offset = if step < 7 { offset % 16 } else { offset };
            let data = &value.to_le_bytes()[..width.min(8)];
            let index = u32::from(value.to_le_bytes()[0]) * 5;
            match step {
                0 | 7 => drop(rig.device.read(offset, &mut data.to_vec())),
                1 | 8 => drop(rig.device.write(offset, data)),
                2 => rig.write32(SELECT, index),
                3 => rig.write32(FLAGS, index),
                4 => drop(rig.device.insert(index)),
                5 => drop(rig.device.request_removal(index)),
                _ => drop(rig.scan()),
            }
            for what in rig.ejected.take() {
                let Ejected::Vcpu(index) = what else { panic!("{what:?}") };
                prop_assert!(index != 0 && index < possible);
                prop_assert!(!rig.device.is_present(index));
            }
        }
        prop_assert!(rig.device.is_present(0));
        let saved = rig.device.save();
        let mut other = Rig::new(1, possible);
        other.device.restore(1, &saved).unwrap();
        prop_assert_eq!(other.device.save(), saved);
    }
}
