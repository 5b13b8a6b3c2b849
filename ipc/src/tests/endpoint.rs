//! The worker's end: what waits, what is dropped, and what ends a connection.

use std::os::fd::{AsFd, OwnedFd};

use crate::MAX_MESSAGE_BYTES;
use crate::codec::{decode, encode};
use crate::endpoint::{Delivery, Endpoint, EndpointError};
use crate::error::{ErrorCode, WireError};
use crate::event::Event;
use crate::fd::FdSlot;
use crate::message::{FromWorker, RequestId, ToWorker};
use crate::request::{ConsoleAttach, ReplyBody, Request};
use crate::scm::{self, ScmError};

type Worker = Endpoint<FromWorker, ToWorker>;

/// Room in the outbox, as `endpoint.rs` has it.
const OUTBOX: u64 = 64;

fn worker() -> (Worker, OwnedFd) {
    let (ours, theirs) = scm::pair().unwrap();
    (Endpoint::new(ours), theirs)
}

fn event(number: u64) -> FromWorker {
    FromWorker::Event {
        number,
        event: Event::GuestPoweredOff,
    }
}

fn reply(id: u64) -> FromWorker {
    FromWorker::Reply {
        id: RequestId(id),
        result: Ok(ReplyBody::Pause(())),
    }
}

/// Fills the socket behind the endpoint's back until it takes nothing at all; says with how many
/// messages.
fn fill(worker: &Worker) -> usize {
    let mut filled = 0;
    for filler in [vec![0; MAX_MESSAGE_BYTES], vec![0; 1]] {
        while scm::send(worker.as_fd(), &filler, &[]).is_ok() {
            filled += 1;
        }
    }
    filled
}

fn receive(socket: &OwnedFd) -> Option<FromWorker> {
    let mut buffer = vec![0; MAX_MESSAGE_BYTES];
    match scm::receive(socket.as_fd(), &mut buffer) {
        Ok((length, _)) => Some(decode(&buffer[..length]).unwrap()),
        Err(ScmError::WouldBlock) => None,
        Err(error) => panic!("{error}"),
    }
}

/// Everything the endpoint sends from now on, the socket being read as it goes.
fn drain(worker: &mut Worker, socket: &OwnedFd, filled: usize) -> Vec<FromWorker> {
    let mut buffer = vec![0; MAX_MESSAGE_BYTES];
    for _ in 0..filled {
        scm::receive(socket.as_fd(), &mut buffer).unwrap();
    }
    let mut messages = Vec::new();
    loop {
        worker.flush().unwrap();
        match receive(socket) {
            Some(message) => messages.push(message),
            None => return messages,
        }
    }
}

#[test]
fn a_message_goes_at_once_while_there_is_room() {
    let (mut worker, socket) = worker();
    worker.send(&reply(1), Delivery::Reliable).unwrap();
    assert!(!worker.wants_write());
    assert_eq!(receive(&socket), Some(reply(1)));
}

#[test]
fn what_waits_keeps_its_order() {
    let (mut worker, socket) = worker();
    let filled = fill(&worker);
    for number in 1..=5 {
        worker.send(&event(number), Delivery::Droppable).unwrap();
        worker.send(&reply(number), Delivery::Reliable).unwrap();
    }
    assert!(worker.wants_write());
    let expected: Vec<_> = (1..=5).flat_map(|n| [event(n), reply(n)]).collect();
    assert_eq!(drain(&mut worker, &socket, filled), expected);
    assert!(!worker.wants_write());
}

#[test]
fn the_oldest_event_goes_first_when_nobody_reads() {
    let (mut worker, socket) = worker();
    let filled = fill(&worker);
    worker.send(&reply(1), Delivery::Reliable).unwrap();
    for number in 1..=OUTBOX + 9 {
        worker.send(&event(number), Delivery::Droppable).unwrap();
    }
    let mut expected = vec![reply(1)];
    expected.extend((11..=OUTBOX + 9).map(event));
    assert_eq!(drain(&mut worker, &socket, filled), expected);
}

#[test]
fn a_reply_takes_the_place_of_the_oldest_event() {
    let (mut worker, socket) = worker();
    let filled = fill(&worker);
    for number in 1..=OUTBOX {
        worker.send(&event(number), Delivery::Droppable).unwrap();
    }
    worker.send(&reply(1), Delivery::Reliable).unwrap();
    let mut expected: Vec<_> = (2..=OUTBOX).map(event).collect();
    expected.push(reply(1));
    assert_eq!(drain(&mut worker, &socket, filled), expected);
}

#[test]
fn replies_that_nobody_reads_end_the_connection_and_events_do_not() {
    let (mut worker, socket) = worker();
    let filled = fill(&worker);
    for id in 1..=OUTBOX {
        worker.send(&reply(id), Delivery::Reliable).unwrap();
    }
    worker.send(&event(1), Delivery::Droppable).unwrap();
    let error = worker.send(&reply(0), Delivery::Reliable).unwrap_err();
    assert!(matches!(error, EndpointError::Stalled(64)), "{error}");
    let expected: Vec<_> = (1..=OUTBOX).map(reply).collect();
    assert_eq!(drain(&mut worker, &socket, filled), expected);
}

#[test]
fn a_message_too_large_to_send_leaves_the_connection_as_it_was() {
    let (mut worker, socket) = worker();
    let huge = FromWorker::Reply {
        id: RequestId(1),
        result: Err(WireError {
            code: ErrorCode::Host,
            message: "x".repeat(MAX_MESSAGE_BYTES),
        }),
    };
    let error = worker.send(&huge, Delivery::Reliable).unwrap_err();
    assert!(matches!(error, EndpointError::Codec(_)), "{error}");
    worker.send(&reply(2), Delivery::Reliable).unwrap();
    assert_eq!(receive(&socket), Some(reply(2)));
}

#[test]
fn requests_come_with_their_descriptors_and_then_none() {
    let (mut worker, socket) = worker();
    let message = ToWorker::Request {
        id: RequestId(1),
        body: ConsoleAttach {
            stream: FdSlot(0),
            input: false,
            from: None,
        }
        .into_body(),
    };
    scm::send(
        socket.as_fd(),
        &encode(&message).unwrap(),
        &[socket.as_fd()],
    )
    .unwrap();
    let (received, fds) = worker.receive().unwrap().unwrap();
    assert_eq!((received, fds.len()), (message, 1));
    assert!(worker.receive().unwrap().is_none());
}

#[test]
fn a_malformed_message_is_an_error_and_the_next_is_still_read() {
    let (mut worker, socket) = worker();
    scm::send(socket.as_fd(), &[9, 9], &[]).unwrap();
    let good = ToWorker::Descriptors { count: 1 };
    scm::send(socket.as_fd(), &encode(&good).unwrap(), &[]).unwrap();
    assert!(matches!(worker.receive(), Err(EndpointError::Codec(_))));
    assert_eq!(worker.receive().unwrap().unwrap().0, good);
}

#[test]
fn a_supervisor_that_went_away_is_noticed_by_reading_and_by_writing() {
    let (mut worker, socket) = worker();
    drop(socket);
    let closed = |error: EndpointError| matches!(error, EndpointError::Socket(ScmError::Closed));
    assert!(closed(worker.receive().unwrap_err()));
    assert!(closed(
        worker.send(&reply(1), Delivery::Reliable).unwrap_err()
    ));
}
