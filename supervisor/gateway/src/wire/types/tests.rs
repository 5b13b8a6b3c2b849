use proptest::prelude::*;

use super::handles::{
    Checkpoint, Domain, Interface, Network, NetworkPort, NodeDevice, Nwfilter, NwfilterBinding,
    Pool, Secret, Snapshot, Volume,
};
use super::host::{NodeGetInfo, NodeInfo};
use super::inspect::{DomainInfo, DomainStats, MemoryStat};
use super::lifecycle::{ConnectListAllDomains, DomainLookupByName};
use super::network::DhcpLease;
use super::params::{Param, Params, Value};
use super::{
    arguments, connect, device, event, guest, host, inspect, lifecycle, network, qemu, save,
};
use super::{storage, tuning};
use crate::wire::call::Call;
use crate::wire::frame::{self, Assembler, FrameError, Header, Kind, Program};
use crate::wire::procedures::{Role, find};
use crate::wire::sample::check;
use crate::wire::xdr::{Chars, Decode, List, XdrError, decode, encode};

fn check_all(seed: u64) -> [Vec<i32>; 2] {
    let calls = [
        connect::check_calls(seed),
        device::check_calls(seed),
        event::check_calls(seed),
        guest::check_calls(seed),
        host::check_calls(seed),
        inspect::check_calls(seed),
        lifecycle::check_calls(seed),
        network::check_calls(seed),
        save::check_calls(seed),
        storage::check_calls(seed),
        tuning::check_calls(seed),
    ];
    [calls.concat(), event::check_events(seed)]
}

fn domain() -> Domain {
    Domain {
        name: "x".to_owned(),
        uuid: [7; 16],
        id: -1,
    }
}

#[test]
fn what_is_declared_stands_in_the_table_once() {
    let [calls, events] = check_all(1);
    for number in &calls {
        assert!(
            matches!(find(Program::Remote, *number).unwrap().role, Role::Call(..)),
            "{number}"
        );
    }
    for number in &events {
        assert_eq!(
            find(Program::Remote, *number).unwrap().role,
            Role::Event,
            "{number}"
        );
    }
    let mut all = [calls, events].concat();
    all.sort_unstable();
    let count = all.len();
    all.dedup();
    assert_eq!(all.len(), count);
    for number in qemu::check_calls(1)
        .into_iter()
        .chain(qemu::check_events(1))
    {
        assert!(find(Program::Qemu, number).is_some());
    }
}

#[test]
fn a_handle_is_its_fields_in_order() {
    let bytes = encode(&domain()).unwrap();
    let mut wanted = b"\0\0\0\x01x\0\0\0".to_vec();
    wanted.extend([7; 16]);
    wanted.extend([0xff; 4]);
    assert_eq!(bytes, wanted);
}

#[test]
fn a_look_up_by_name_is_a_call_of_its_bytes() {
    let mut out = Vec::new();
    let arguments = DomainLookupByName {
        name: "guest".to_owned(),
    };
    frame::call(&mut out, 9, &arguments).unwrap();
    let mut wanted = Vec::new();
    for word in [40_u32, 0x2000_8086, 1, 23, 0, 9, 0, 5] {
        wanted.extend(word.to_be_bytes());
    }
    wanted.extend(b"guest\0\0\0");
    assert_eq!(out, wanted);
}

#[test]
fn the_reply_to_node_get_info_is_as_long_as_libvirts() {
    let info = NodeInfo {
        model: Chars::of("x86_64"),
        memory: 4_000_000,
        cpus: 2,
        mhz: 2_450,
        nodes: 1,
        sockets: 1,
        cores: 1,
        threads: 2,
    };
    assert_eq!(encode(&info).unwrap().len(), 160);
    let mut out = Vec::new();
    frame::reply(
        &mut out,
        Header::call(Program::Remote, NodeGetInfo::NUMBER, 4),
        &info,
    )
    .unwrap();
    assert_eq!(out.len(), 28 + 160);
    assert_eq!(out[..4], [0, 0, 0, 188]);
}

#[test]
fn short_c_types_of_domain_info_take_a_word_each() {
    let info = DomainInfo {
        state: 1,
        max_memory: 2,
        memory: 3,
        vcpus: 4,
        cpu_time: 5,
    };
    let words = [0_u32, 1, 0, 2, 0, 3, 4, 0, 5];
    let wanted: Vec<u8> = words[1..]
        .iter()
        .flat_map(|word| word.to_be_bytes())
        .collect();
    assert_eq!(encode(&info).unwrap(), wanted);
}

#[test]
fn a_typed_parameter_is_its_name_its_type_and_its_value() {
    let params: Params<4> = vec![
        Param::new("cpu.time", 5_u64),
        Param::new("state.state", 1_i32),
        Param::new("name", "vda"),
        Param::new("on", true),
    ]
    .into();
    let mut wanted = b"\0\0\0\x04\0\0\0\x08cpu.time\0\0\0\x04\0\0\0\0\0\0\0\x05".to_vec();
    wanted.extend(b"\0\0\0\x0bstate.state\0\0\0\0\x01\0\0\0\x01");
    wanted.extend(b"\0\0\0\x04name\0\0\0\x07\0\0\0\x03vda\0");
    wanted.extend(b"\0\0\0\x02on\0\0\0\0\0\x06\0\0\0\x01");
    assert_eq!(encode(&params).unwrap(), wanted);
    assert_eq!(params.value("on"), Some(&Value::Boolean(true)));
    assert_eq!(params.value("off"), None);
}

#[test]
fn a_parameter_of_unknown_type_or_with_too_long_a_name_is_refused() {
    let unknown = b"\0\0\0\x01\0\0\0\x01a\0\0\0\0\0\0\x08\0\0\0\0";
    assert_eq!(decode::<Params<4>>(unknown), Err(XdrError::Tag(8)));
    let long = Param::new("n".repeat(80), 1_i32);
    let error = XdrError::TooLong {
        count: 80,
        most: 79,
    };
    assert_eq!(encode(&long), Err(error));
    let mut bytes = encode(&"n".repeat(80)).unwrap();
    bytes.extend([0, 0, 0, 1, 0, 0, 0, 1]);
    assert_eq!(decode::<Param>(&bytes), Err(error));
}

#[test]
fn bytes_behind_the_arguments_are_ignored_and_missing_ones_are_not() {
    let listed = [0, 0, 0, 1, 0, 0, 0, 3, 9, 9, 9, 9];
    let call = ConnectListAllDomains {
        need_results: true,
        flags: 3,
    };
    assert_eq!(decode::<ConnectListAllDomains>(&listed), Ok(call));
    assert!(decode::<ConnectListAllDomains>(&listed[..7]).is_err());
}

#[test]
fn a_procedure_that_is_not_declared_is_not_read() {
    assert_eq!(arguments(Program::Remote, 61, &[]), None);
    assert_eq!(arguments(Program::Remote, 0, &[]), None);
    assert_eq!(arguments(Program::Admin, 1, &[]), None);
    assert_eq!(arguments(Program::Remote, 3, &[1, 2]), Some(Ok(Vec::new())));
    assert_eq!(
        arguments(Program::Qemu, 5, &[0, 0, 0, 2]),
        Some(Ok(vec![0, 0, 0, 2]))
    );
}

/// What a list makes of its bytes is a small multiple of them.
#[test]
fn an_item_in_memory_is_no_more_than_eight_times_its_bytes() {
    fn within<T: Decode>() {
        let name = std::any::type_name::<T>();
        assert!(
            size_of::<T>() <= 8 * T::LEAST,
            "{name}: {} of {}",
            size_of::<T>(),
            T::LEAST
        );
    }
    within::<i32>();
    within::<u64>();
    within::<String>();
    within::<Domain>();
    within::<Network>();
    within::<Pool>();
    within::<Volume>();
    within::<Interface>();
    within::<NodeDevice>();
    within::<Nwfilter>();
    within::<NwfilterBinding>();
    within::<Secret>();
    within::<Snapshot>();
    within::<Checkpoint>();
    within::<NetworkPort>();
    within::<Param>();
    within::<DomainStats>();
    within::<MemoryStat>();
    within::<DhcpLease>();
    within::<List<Domain, 4>>();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn arguments_replies_and_events_come_back_as_they_were(seed in any::<u64>()) {
        check_all(seed);
        qemu::check_calls(seed);
        qemu::check_events(seed);
        check::<DhcpLease>(seed);
        check::<Nwfilter>(seed);
    }

    #[test]
    fn bytes_at_random_are_arguments_or_refused(
        number in 0_i32..460,
        words in prop::collection::vec(prop_oneof![0_u32..6, any::<u32>()], 0..40),
    ) {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
        for program in [Program::Remote, Program::Qemu] {
            if let Some(Ok(again)) = arguments(program, number, &bytes) {
                prop_assert_eq!(arguments(program, number, &again), Some(Ok(again)));
            }
        }
    }
}

/// What the fuzzer begins with: how the bytes are cut, and the bytes.
fn seeds() -> Vec<Vec<u8>> {
    let seeds = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/seeds/wire");
    let mut paths: Vec<_> = std::fs::read_dir(seeds)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    paths
        .iter()
        .map(|path| std::fs::read(path).unwrap())
        .collect()
}

/// Takes a seed apart, and says of each call's arguments what was read; then how many bytes are left.
fn take_apart(seed: &[u8]) -> Result<(Vec<(i32, bool)>, usize), FrameError> {
    let (cut, bytes) = seed.split_first().unwrap();
    let mut assembler = Assembler::default();
    let mut calls = Vec::new();
    for piece in bytes.chunks(usize::from(*cut) + 1) {
        assembler.push(piece);
        while let Some(packet) = assembler.take()? {
            let Header {
                program,
                procedure,
                kind,
                ..
            } = packet.header;
            let program = Program::from_number(program);
            let read = program.and_then(|program| arguments(program, procedure, packet.payload));
            if let (Some(program), Some(Ok(again))) = (program, &read) {
                assert_eq!(
                    arguments(program, procedure, again).as_ref(),
                    Some(&Ok(again.clone()))
                );
            }
            if kind == Kind::Call || kind == Kind::CallWithFds {
                calls.push((procedure, matches!(read, Some(Ok(_)))));
            }
        }
    }
    Ok((calls, assembler.pending()))
}

#[test]
fn the_seeds_of_the_fuzz_target_are_whole_sessions() {
    assert_eq!(seeds().len(), 7);
    for seed in seeds() {
        let (calls, left) = take_apart(&seed).unwrap();
        assert!(calls.iter().all(|(_, read)| *read), "{calls:?}");
        assert_eq!(calls.last(), Some(&(2, true)));
        assert_eq!(left, 0);
    }
}

proptest! {
    #[test]
    fn a_session_with_bytes_changed_is_calls_or_refused(
        seed in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut seed = seed.get(&seeds()).clone();
        for (place, byte) in changes {
            let place = place.index(seed.len());
            seed[place] = byte;
        }
        let _ = take_apart(&seed);
    }
}
