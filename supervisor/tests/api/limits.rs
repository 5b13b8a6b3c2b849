//! What clients can cost: connections in all and of one user, calls that wait, bytes of a message.

use std::time::{Duration, Instant};

use reeve_ipc::MAX_MESSAGE_BYTES;
use reeve_ipc::api::blocking::Connection;
use reeve_ipc::api::call::SupervisorInfoGet;
use reeve_ipc::api::error::ApiErrorCode;

use super::harness::{Instance, PATIENCE, READER, Raw, WRITER, as_user, define};

fn clients(connection: &mut Connection) -> u32 {
    connection.call(SupervisorInfoGet {}).unwrap().clients
}

#[test]
fn connections_are_limited_in_all_and_places_come_back() {
    let instance = Instance::start("max_clients = 4\n");
    let path = instance.socket();
    let mut inside = as_user(WRITER, || {
        vec![
            Raw::greeted(&instance),
            Raw::greeted(&instance),
            Raw::greeted(&instance),
        ]
    });
    let mut observer = instance.connect();
    assert_eq!(clients(&mut observer), 4);
    for user in [WRITER, READER] {
        let refusal = as_user(user, || Raw::connect(&instance).refusal());
        assert_eq!(refusal.code, ApiErrorCode::Busy);
        assert_eq!(refusal.message, "4 clients are connected; try again later");
    }
    inside.pop().unwrap().shut();
    instance.eventually("a place is free", |_| {
        as_user(WRITER, || Connection::open(&path, "test").is_ok())
    });
}

#[test]
fn root_has_places_that_nobody_else_can_take() {
    let instance = Instance::start("max_clients = 4\n");
    let _others = as_user(WRITER, || {
        (0..4).map(|_| Raw::greeted(&instance)).collect::<Vec<_>>()
    });
    // Those of the reserve, and no more.
    let mut root: Vec<_> = (0..8).map(|_| Raw::greeted(&instance)).collect();
    let refusal = Raw::connect(&instance).refusal();
    assert_eq!(refusal.code, ApiErrorCode::Busy);
    let refusal = as_user(WRITER, || Raw::connect(&instance).refusal());
    assert_eq!(refusal.code, ApiErrorCode::Busy);
    root.pop().unwrap().shut();
    instance.eventually("root's place is free", |instance| {
        Connection::open(&instance.socket(), "test").is_ok()
    });
}

#[test]
fn connections_of_one_user_are_limited_and_nobody_elses() {
    let instance = Instance::start("max_clients_per_uid = 2\n");
    let inside = as_user(WRITER, || {
        let inside = [Raw::greeted(&instance), Raw::greeted(&instance)];
        let refusal = Raw::connect(&instance).refusal();
        assert_eq!(refusal.code, ApiErrorCode::Busy);
        assert!(refusal.message.contains("2 clients of yours"), "{refusal}");
        inside
    });
    as_user(READER, || drop(Raw::greeted(&instance)));
    // Root must always find its way in.
    let root: Vec<_> = (0..6).map(|_| Raw::greeted(&instance)).collect();
    drop(inside);
    let path = instance.socket();
    instance.eventually("a place of its own is free", |_| {
        as_user(WRITER, || Connection::open(&path, "test").is_ok())
    });
    drop(root);
}

#[test]
fn calls_that_wait_are_limited_and_the_others_are_told() {
    let instance = Instance::start("max_calls_in_flight = 3\n");
    let raw = Raw::greeted(&instance);
    const CALLS: u64 = 10;
    instance.frozen(|| {
        for id in 1..=CALLS {
            raw.call(id, define(&format!("d{id}")));
        }
        // Answered at once, it waits for nobody.
        raw.call(CALLS + 1, SupervisorInfoGet {});
    });
    let mut done = Vec::new();
    for _ in 0..=CALLS {
        match raw.answer() {
            (id, None) => done.push(id),
            (id, Some(error)) => {
                assert_eq!(error.code, ApiErrorCode::Busy);
                assert_eq!(error.message, "cannot define: 3 calls wait already");
                assert!(id > 3, "{id}");
            }
        }
    }
    done.sort_unstable();
    assert_eq!(done, [1, 2, 3, CALLS + 1], "those that had their place");
    assert_eq!(instance.connect().domains(false).unwrap().len(), 3);
    // The places come back with the answers.
    raw.call(20, define("later"));
    assert_eq!(raw.answer().1, None);
}

#[test]
fn a_message_over_the_limit_ends_its_connection_alone() {
    let instance = Instance::start("");
    let other = Raw::greeted(&instance);
    for bytes in [MAX_MESSAGE_BYTES + 1, MAX_MESSAGE_BYTES * 2] {
        for greeted in [false, true] {
            let raw = match greeted {
                true => Raw::greeted(&instance),
                false => Raw::connect(&instance),
            };
            // Past the limit of our own side as well.
            let message = vec![1; bytes];
            assert!(raw.unlimited(&message), "the kernel takes it");
            assert!(raw.hear().is_none(), "{bytes} bytes are too many");
        }
    }
    other.call(1, SupervisorInfoGet {});
    assert_eq!(other.answer().1, None);
    // It is logged once its connection has ended.
    let begin = Instant::now();
    while !instance.log().contains("a datagram exceeded") {
        assert!(begin.elapsed() < PATIENCE, "{}", instance.log());
        std::thread::sleep(Duration::from_millis(5));
    }
}
