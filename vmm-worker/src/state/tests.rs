//! The container's rules, and every record's layout: these bytes and no others.

use kvm_bindings::{kvm_pic_state, kvm_pit_channel_state, kvm_xcr};
use proptest::prelude::*;
use reeve_devices::state::{Schema, StateError};
use reeve_ipc::spec::MachineType;

use super::container::{
    ContainerError, MAX_RECORD_BYTES, MAX_RECORDS, Recorder, Records, checksum,
};
use super::{ClockStateV1, IrqchipStateV1, MachineStateV1, Tsc, VcpuStateV1, VcpusStateV1};
use crate::boot::Protocol;

const SCHEMA: Schema = Schema {
    name: "thing",
    version: 3,
};

fn container() -> Vec<u8> {
    let mut records = Recorder::new();
    records.add("a", SCHEMA, &[1, 2, 3]).unwrap();
    records.add("b", SCHEMA, &[]).unwrap();
    records.seal(MachineType::Reeve1_0)
}

/// The container with its checksum made good.
fn seal(mut bytes: Vec<u8>) -> Vec<u8> {
    let sum = checksum(&bytes[16..]);
    bytes[12..16].copy_from_slice(&sum.to_le_bytes());
    bytes
}

#[test]
fn records_come_back_once_each() {
    let bytes = container();
    let mut records = Records::open(&bytes).unwrap();
    records.expect_machine(MachineType::Reeve1_0).unwrap();
    assert_eq!(records.take("b", "thing"), Ok((3, &[][..])));
    assert_eq!(records.take("a", "thing"), Ok((3, &[1, 2, 3][..])));
    let missing = ContainerError::Missing("a".to_owned());
    assert_eq!(records.take("a", "thing"), Err(missing));
    records.finish().unwrap();
}

#[test]
fn a_container_is_these_bytes() {
    let mut records = Recorder::new();
    records.add("a", SCHEMA, &[9]).unwrap();
    let build = concat!("reeve ", env!("CARGO_PKG_VERSION"));
    let mut sealed = b"\x09reeve-1.0".to_vec();
    sealed.push(u8::try_from(build.len()).unwrap());
    sealed.extend(build.as_bytes());
    sealed.extend(b"\x01\0\0\0\x01a\x05thing\x03\0\0\0\x01\0\0\0\x09");
    let mut expected = b"REEVEVM\0\x01\0\0\0".to_vec();
    expected.extend(checksum(&sealed).to_le_bytes());
    expected.extend(sealed);
    assert_eq!(records.seal(MachineType::Reeve1_0), expected);
}

#[test]
fn the_checksum_is_the_one_everybody_has() {
    assert_eq!(checksum(b"123456789"), 0xcbf4_3926);
    assert_eq!(checksum(b""), 0);
}

#[test]
fn what_breaks_a_rule_is_refused() {
    let good = container();
    let open = |bytes: &[u8]| Records::open(bytes).map(|_| ());
    assert_eq!(open(b""), Err(ContainerError::NotAState));
    assert_eq!(open(b"ELF"), Err(ContainerError::NotAState));
    let mut other = good.clone();
    other[8] = 2;
    assert_eq!(open(&other), Err(ContainerError::UnknownFormat(2)));
    let mut other = good.clone();
    *other.last_mut().unwrap() ^= 1;
    assert_eq!(open(&other), Err(ContainerError::Checksum));
    let more = seal([&good[..], &[0]].concat());
    let trailing = ContainerError::Malformed(StateError::TrailingBytes { count: 1 });
    assert_eq!(open(&more), Err(trailing));
    let less = seal(good[..good.len() - 1].to_vec());
    let truncated = ContainerError::Malformed(StateError::Truncated);
    assert_eq!(open(&less), Err(truncated));

    let records = Records::open(&good).unwrap();
    assert!(matches!(
        records.expect_machine(MachineType::ReeveLegacy1_0),
        Err(ContainerError::MachineType { .. })
    ));
    assert_eq!(
        records.finish(),
        Err(ContainerError::LeftOver("a".to_owned()))
    );
    let mut records = Records::open(&good).unwrap();
    assert!(matches!(
        records.take("a", "other"),
        Err(ContainerError::Schema { .. })
    ));
}

/// A container of these records, without the recorder's care.
fn raw(count: u32, records: &[u8]) -> Vec<u8> {
    let mut bytes = b"REEVEVM\0\x01\0\0\0____\x01m\x01b".to_vec();
    bytes.extend(count.to_le_bytes());
    bytes.extend(records);
    seal(bytes)
}

#[test]
fn duplicates_texts_and_lengths_are_checked_when_read() {
    let open = |bytes: &[u8]| Records::open(bytes).map(|_| ());
    let record = b"\x01a\x01s\0\0\0\0\0\0\0\0";
    assert_eq!(open(&raw(1, record)), Ok(()));
    let twice = raw(2, &[&record[..], record].concat());
    assert_eq!(open(&twice), Err(ContainerError::Duplicate("a".to_owned())));
    let many = raw(u32::MAX, record);
    assert_eq!(open(&many), Err(ContainerError::TooMany));
    let long = raw(1, b"\x01a\x01s\0\0\0\0\xff\xff\xff\xff");
    assert!(matches!(
        open(&long),
        Err(ContainerError::RecordTooLong { .. })
    ));
    let beyond = raw(1, b"\x01a\x01s\0\0\0\0\0\0\x10\0");
    let truncated = ContainerError::Malformed(StateError::Truncated);
    assert_eq!(open(&beyond), Err(truncated));
    for unit in [&b"\x01\n"[..], b"\x02\xc3\xa9", b"\x01\xff", &[65; 66]] {
        let text = raw(1, &[unit, b"\x01s\0\0\0\0\0\0\0\0"].concat());
        let invalid = ContainerError::Malformed(StateError::Invalid { field: "unit" });
        assert_eq!(open(&text), Err(invalid), "{unit:?}");
    }
}

#[test]
fn a_recorder_keeps_the_rules_it_is_read_by() {
    let mut records = Recorder::new();
    let long = vec![0; MAX_RECORD_BYTES + 1];
    assert!(matches!(
        records.add("a", SCHEMA, &long),
        Err(ContainerError::RecordTooLong { .. })
    ));
    records.add("a", SCHEMA, &long[1..]).unwrap();
    let twice = ContainerError::Duplicate("a".to_owned());
    assert_eq!(records.add("a", SCHEMA, &[]), Err(twice));
    for number in 1..MAX_RECORDS {
        records.add(&format!("{number}"), SCHEMA, &[]).unwrap();
    }
    let more = records.add("more", SCHEMA, &[]);
    assert_eq!(more, Err(ContainerError::TooMany));
    let sealed = records.seal(MachineType::Reeve1_0);
    assert!(Records::open(&sealed).is_ok());

    let mut records = Recorder::new();
    let full = (0..65).find_map(|n: u32| records.add(&n.to_string(), SCHEMA, &long[1..]).err());
    assert!(matches!(full, Some(ContainerError::TooLong(_))));
}

/// A vCPU each field of which differs from every other.
fn vcpu() -> VcpuStateV1 {
    let zeroes = {
        let mut record = vec![0; RECORD_START];
        record.extend(4096_u32.to_le_bytes());
        record.extend([0; 4096 + 6 * 8 + 1024 + 4 + 5 + 4 + 8 + 12 + 4 + 25 + 2]);
        record
    };
    let mut state = VcpuStateV1::decode(1, &zeroes).expect("zeroes are a state");
    state.xcrs = vec![kvm_xcr {
        xcr: 0,
        reserved: 0,
        value: 7,
    }];
    state.regs.rip = 0x1234;
    state.sregs.cs.selector = 0x10;
    state.sregs.pdptrs = [1, 2, 3, 4];
    state.lapic[0x20] = 5;
    state.events.sipi_vector = 9;
    state.tsc = Tsc {
        value: 10,
        offset: Some(11),
        monotonic: 12,
    };
    state.msrs = vec![(0x174, 1), (0xC000_0080, 2)];
    state
}

/// Bytes before the length of the vector state, with no extended control register.
const RECORD_START: usize = 4 + 18 * 8 + 8 * 23 + 2 * 10 + 8 * 8 + 4 * 8 + 1;

#[test]
fn a_vcpu_comes_back_as_it_was() {
    let state = vcpu();
    let record = state.encode();
    let back = VcpuStateV1::decode(1, &record).unwrap();
    assert_eq!(back.encode(), record);
    assert_eq!(back.tsc, state.tsc);
    assert_eq!(back.msrs, state.msrs);
    assert_eq!((back.regs.rip, back.events.sipi_vector), (0x1234, 9));
    assert_eq!(
        VcpuStateV1::decode(2, &record).unwrap_err(),
        StateError::UnknownVersion {
            schema: "vcpu",
            version: 2
        }
    );
}

#[test]
fn a_vcpu_is_laid_out_like_this() {
    let mut record: Vec<u8> = (0..5685_u32)
        .map(|at| (at % 251).to_le_bytes()[0])
        .collect();
    record[448] = 0;
    record[449..453].copy_from_slice(&4096_u32.to_le_bytes());
    record[5666] = 1;
    record[5683..].copy_from_slice(&[0, 0]);
    let state = VcpuStateV1::decode(1, &record).unwrap();
    assert_eq!(state.encode(), record);

    let bytes = |at: usize| u64::from_le_bytes(record[at..at + 8].try_into().unwrap());
    assert_eq!(u64::from(state.mp_state), bytes(0) & 0xffff_ffff);
    assert_eq!((state.regs.rax, state.regs.rsp), (bytes(4), bytes(52)));
    assert_eq!(
        (state.regs.rip, state.regs.rflags),
        (bytes(132), bytes(140))
    );
    let (cs, ldt) = (state.sregs.cs, state.sregs.ldt);
    assert_eq!((cs.base, ldt.base), (bytes(148), bytes(309)));
    assert_eq!((cs.type_, cs.unusable), (record[162], record[170]));
    assert_eq!(state.sregs.idt.base, bytes(342));
    assert_eq!(
        (state.sregs.cr3, state.sregs.efer),
        (bytes(368), bytes(392))
    );
    assert_eq!(state.sregs.pdptrs[3], bytes(440));
    assert_eq!(u64::from(state.xsave[1023]), bytes(4545) & 0xffff_ffff);
    assert_eq!(
        (state.debug.db[0], state.debug.dr7),
        (bytes(4549), bytes(4589))
    );
    assert_eq!(
        (state.lapic[0], state.lapic[1023]),
        (record[4597], record[5620])
    );
    let events = state.events;
    assert_eq!(
        (events.exception.nr, events.nmi.masked),
        (record[5626], record[5648])
    );
    assert_eq!(events.exception_payload, bytes(5634));
    assert_eq!(u64::from(events.sipi_vector), bytes(5654) & 0xffff_ffff);
    let tsc = Tsc {
        value: bytes(5658),
        offset: Some(bytes(5667)),
        monotonic: bytes(5675),
    };
    assert_eq!(state.tsc, tsc);
}

#[test]
fn impossible_vcpus_are_refused() {
    let refused = |change: fn(&mut VcpuStateV1)| {
        let mut state = vcpu();
        change(&mut state);
        VcpuStateV1::decode(1, &state.encode()).err()
    };
    let invalid = |field| Some(StateError::Invalid { field });
    assert_eq!(refused(|_| {}), None);
    assert_eq!(
        refused(|state| state.xcrs = vec![kvm_xcr::default(); 17]),
        invalid("xcrs")
    );
    assert_eq!(
        refused(|state| state.xsave.truncate(1000)),
        invalid("xsave")
    );
    assert_eq!(
        refused(|state| state.xsave = vec![0; 20_000]),
        invalid("xsave")
    );
    assert_eq!(refused(|state| state.msrs.reverse()), invalid("msrs"));
    assert_eq!(
        refused(|state| state.msrs = vec![(1, 0), (1, 0)]),
        invalid("msrs")
    );
    assert_eq!(
        refused(|state| state.msrs = (0..300).map(|index| (index, 0)).collect()),
        invalid("msrs")
    );
}

#[test]
fn interrupts_in_service_and_requested_are_held() {
    let mut state = vcpu();
    assert!((0..=u8::MAX).all(|vector| !state.holds_interrupt(vector)));
    // Vector 0x21 in service: bit 1 of the second word.
    state.lapic[0x110] = 1 << 1;
    // Vector 0xfe requested: bit 30 of the eighth word.
    state.lapic[0x273] = 1 << 6;
    let held: Vec<u8> = (0..=u8::MAX)
        .filter(|vector| state.holds_interrupt(*vector))
        .collect();
    assert_eq!(held, [0x21, 0xfe]);
}

#[test]
fn the_records_of_a_vm_are_these_bytes() {
    let clock = ClockStateV1 {
        kvmclock: 1,
        realtime: 2,
        monotonic: 3,
    };
    let words = |words: &[u64]| -> Vec<u8> { words.iter().flat_map(|w| w.to_le_bytes()).collect() };
    assert_eq!(clock.encode(), words(&[1, 2, 3]));
    assert_eq!(ClockStateV1::decode(1, &clock.encode()), Ok(clock));

    let machine = MachineStateV1 {
        vcpus: 4,
        memory_bytes: 1 << 30,
        tsc_khz: 2_000_000,
        protocol: Protocol::Linux64,
        resets: 5,
    };
    let bytes = b"\x04\0\0\0\0\0\0\x40\0\0\0\0\x80\x84\x1e\0\x01\x05\0\0\0\0\0\0\0";
    assert_eq!(machine.encode(), bytes);
    assert_eq!(MachineStateV1::decode(1, bytes), Ok(machine));
    let mut other = *bytes;
    other[16] = 2;
    assert_eq!(
        MachineStateV1::decode(1, &other),
        Err(StateError::Invalid { field: "protocol" })
    );

    let vcpus = VcpusStateV1 {
        possible: 300,
        present: vec![0, 1, 299],
        leaving: vec![299],
        new: vec![1, 299],
    };
    let bytes = b"\x2c\x01\0\0\x03\0\0\0\0\0\0\0\x01\0\0\0\x2b\x01\0\0\
        \x01\0\0\0\x2b\x01\0\0\x02\0\0\0\x01\0\0\0\x2b\x01\0\0";
    assert_eq!(vcpus.encode(), bytes);
    assert_eq!(VcpusStateV1::decode(1, bytes), Ok(vcpus));

    let chips = IrqchipStateV1 {
        pics: [1, 2].map(|imr| kvm_pic_state {
            imr,
            ..Default::default()
        }),
        ioapic_base: 0xFEC0_0000,
        ioapic_select: 3,
        ioapic_id: 4,
        ioapic_irr: 5,
        ioapic_table: std::array::from_fn(|pin| pin as u64),
        pit_channels: [6, 7, 8].map(|count| kvm_pit_channel_state {
            count,
            gate: 1,
            ..Default::default()
        }),
        pit_flags: 9,
    };
    let record = chips.encode();
    assert_eq!(record.len(), 2 * 16 + 20 + 24 * 8 + 3 * 16 + 4);
    assert_eq!(IrqchipStateV1::decode(1, &record), Ok(chips));
    assert!(IrqchipStateV1::decode(1, &record[1..]).is_err());
    assert!(IrqchipStateV1::decode(0, &record).is_err());
}

proptest! {
    #[test]
    fn any_bytes_are_a_container_or_are_refused(
        bytes in proptest::collection::vec(any::<u8>(), 0..400),
        count in 0u32..9,
    ) {
        let _ = Records::open(&bytes);
        let _ = Records::open(&raw(count, &bytes));
    }

    #[test]
    fn a_changed_container_is_opened_or_refused(
        place in any::<proptest::sample::Index>(),
        change in 1u8..,
        end in any::<proptest::sample::Index>(),
    ) {
        let mut bytes = container();
        let place = 16 + place.index(bytes.len() - 16);
        bytes[place] ^= change;
        if let Ok(mut records) = Records::open(&seal(bytes.clone())) {
            let _ = records.take("a", "thing");
            let _ = records.take("b", "thing");
            let _ = records.finish();
        }
        bytes.truncate(16 + end.index(bytes.len() - 16));
        prop_assert!(Records::open(&seal(bytes)).is_err());
    }

    #[test]
    fn a_changed_record_is_read_as_it_is_or_refused(
        place in any::<proptest::sample::Index>(),
        change in 1u8..,
    ) {
        let mut record = vcpu().encode();
        let place = place.index(record.len());
        record[place] ^= change;
        if let Ok(state) = VcpuStateV1::decode(1, &record) {
            prop_assert_eq!(state.encode(), record);
        }
    }
}

#[test]
fn vcpus_that_no_machine_has_are_refused() {
    let refused = |possible, present: &[u32], leaving: &[u32], new: &[u32]| {
        let state = VcpusStateV1 {
            possible,
            present: present.to_vec(),
            leaving: leaving.to_vec(),
            new: new.to_vec(),
        };
        match VcpusStateV1::decode(1, &state.encode()) {
            Err(StateError::Invalid { field }) => field,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(refused(4, &[], &[], &[]), "present");
    assert_eq!(refused(4, &[1], &[], &[]), "present");
    assert_eq!(refused(4, &[0, 4], &[], &[]), "present");
    assert_eq!(refused(4, &[0, 2, 1], &[], &[]), "present");
    assert_eq!(refused(4, &[0, 1, 1], &[], &[]), "present");
    assert_eq!(refused(1, &[0, 1], &[], &[]), "present");
    assert_eq!(refused(4, &[0, 1], &[0], &[]), "leaving");
    assert_eq!(refused(4, &[0, 1], &[2], &[]), "leaving");
    assert_eq!(refused(4, &[0, 1], &[], &[0]), "new");
    assert_eq!(refused(4, &[0, 1], &[], &[3]), "new");
    let hostile = [u32::MAX.to_le_bytes(), u32::MAX.to_le_bytes()].concat();
    assert_eq!(
        VcpusStateV1::decode(1, &hostile),
        Err(StateError::Invalid { field: "present" })
    );
    assert!(VcpusStateV1::decode(2, &hostile).is_err());
}
