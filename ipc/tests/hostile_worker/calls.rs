//! Calls: answered, refused, late, and cut off by a worker that goes.

use std::time::Duration;

use reeve_ipc::MAX_MESSAGE_FDS;
use reeve_ipc::client::{CallError, Closed, Incoming};
use reeve_ipc::error::{ErrorCode, WireError};
use reeve_ipc::event::Event;
use reeve_ipc::fd::FdTable;
use reeve_ipc::message::{FromWorker, ToWorker};
use reeve_ipc::request::{Operation, Pause, PowerButton, Query, ReplyBody, RequestBody, Resume};
use reeve_ipc::scm;
use tokio::time::timeout;

use crate::fake::{Fake, SOON, event, status};

#[tokio::test]
async fn an_obedient_worker_answers_and_reports() {
    let mut fake = Fake::greeted().await;
    let client = fake.client.clone();
    let call = tokio::spawn(async move { client.call(Query {}, SOON).await });
    let id = fake.asked(Operation::Query).await;
    fake.answer(id, ReplyBody::Query(status()));
    assert_eq!(call.await.unwrap().unwrap(), status());
    fake.say(&event(1));
    assert!(matches!(
        fake.incoming().await,
        Incoming::Event(1, Event::GuestPoweredOff)
    ));
}

#[tokio::test]
async fn a_refusal_reaches_the_caller_and_the_connection_goes_on() {
    let fake = Fake::greeted().await;
    let refusal = WireError::new(
        ErrorCode::WrongPhase,
        "cannot pause: the machine is crashed",
    );
    for _ in 0..2 {
        let client = fake.client.clone();
        let call = tokio::spawn(async move { client.call(Pause {}, SOON).await });
        let id = fake.asked(Operation::Pause).await;
        fake.say(&FromWorker::Reply {
            id,
            result: Err(refusal.clone()),
        });
        let error = call.await.unwrap().unwrap_err();
        assert!(matches!(error, CallError::Refused(error) if error == refusal));
    }
}

#[tokio::test]
async fn replies_may_come_in_any_order() {
    let fake = Fake::greeted().await;
    let (first, second) = (fake.client.clone(), fake.client.clone());
    let first = tokio::spawn(async move { first.call(Pause {}, SOON).await });
    let first_id = fake.asked(Operation::Pause).await;
    let second = tokio::spawn(async move { second.call(Query {}, SOON).await });
    let second_id = fake.asked(Operation::Query).await;
    assert!(second_id > first_id);
    fake.answer(second_id, ReplyBody::Query(status()));
    assert_eq!(second.await.unwrap().unwrap(), status());
    fake.answer(first_id, ReplyBody::Pause(()));
    first.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_worker_that_stops_writing_counts_as_gone() {
    let mut fake = Fake::greeted().await;
    let client = fake.client.clone();
    let call = tokio::spawn(async move { client.call(Query {}, SOON).await });
    fake.asked(Operation::Query).await;
    rustix::net::shutdown(&fake.socket, rustix::net::Shutdown::Write).unwrap();
    assert!(matches!(
        call.await.unwrap().unwrap_err(),
        CallError::Closed("query")
    ));
    assert_eq!(fake.closed().await, Closed::ByWorker);
}

#[tokio::test]
async fn a_worker_that_goes_fails_every_pending_call_and_later_ones() {
    let mut fake = Fake::greeted().await;
    let mut calls = Vec::new();
    for _ in 0..5 {
        let client = fake.client.clone();
        calls.push(tokio::spawn(
            async move { client.call(Query {}, SOON).await },
        ));
    }
    fake.asked(Operation::Query).await;
    let (ours, _) = scm::pair().unwrap();
    drop(std::mem::replace(&mut fake.socket, ours));
    for call in calls {
        let error = timeout(SOON, call).await.unwrap().unwrap().unwrap_err();
        assert!(matches!(error, CallError::Closed("query")), "{error}");
    }
    assert_eq!(fake.closed().await, Closed::ByWorker);
    let error = fake.client.call(Query {}, SOON).await.unwrap_err();
    assert!(matches!(error, CallError::Closed("query")), "{error}");
}

#[tokio::test]
async fn the_last_words_of_a_worker_are_heard_even_if_it_left_a_request_unread() {
    let mut fake = Fake::greeted().await;
    let client = fake.client.clone();
    let call = tokio::spawn(async move { client.call(PowerButton {}, SOON).await });
    // The request is in the worker's queue, unread.
    while rustix::io::ioctl_fionread(&fake.socket).unwrap() == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    fake.say(&event(1));
    let (ours, _) = scm::pair().unwrap();
    drop(std::mem::replace(&mut fake.socket, ours));
    assert!(matches!(fake.incoming().await, Incoming::Event(1, _)));
    assert_eq!(fake.closed().await, Closed::ByWorker);
    assert!(call.await.unwrap().is_err());
}

#[tokio::test]
async fn calls_that_wait_for_a_worker_are_bounded_and_those_given_up_do_not_count() {
    let fake = Fake::greeted().await;
    let deadline = Duration::from_millis(50);
    for _ in 0..2 {
        let calls: Vec<_> = (0..70)
            .map(|_| {
                let client = fake.client.clone();
                tokio::spawn(async move { client.call(Query {}, deadline).await.unwrap_err() })
            })
            .collect();
        let mut busy = 0;
        for call in calls {
            match call.await.unwrap() {
                CallError::Deadline("query", _) => {}
                CallError::Busy => busy += 1,
                other => panic!("{other}"),
            }
        }
        assert_eq!(busy, 6);
    }
}

#[tokio::test]
async fn a_violation_ends_only_its_own_connection() {
    let mut bad = Fake::greeted().await;
    let good = Fake::greeted().await;
    bad.say_bytes(&[0xff]);
    bad.violated("message").await;
    let client = good.client.clone();
    let call = tokio::spawn(async move { client.call(Query {}, SOON).await });
    let id = good.asked(Operation::Query).await;
    good.answer(id, ReplyBody::Query(status()));
    assert_eq!(call.await.unwrap().unwrap(), status());
}

#[tokio::test]
async fn descriptors_go_in_batches_that_keep_their_order() {
    let fake = Fake::greeted().await;
    let mut table = FdTable::new();
    let count = MAX_MESSAGE_FDS + 3;
    let mut inodes = Vec::new();
    for _ in 0..count {
        let (reader, _) = rustix::pipe::pipe().unwrap();
        inodes.push(rustix::fs::fstat(&reader).unwrap().st_ino);
        table.push(reader).unwrap();
    }
    let client = fake.client.clone();
    let call = tokio::spawn(async move { client.call_with(Resume {}, table, SOON).await });
    let mut received = Vec::new();
    let (ahead, fds) = fake.receive().await;
    let count = u16::try_from(MAX_MESSAGE_FDS).unwrap();
    assert_eq!(ahead, ToWorker::Descriptors { count });
    assert_eq!(fds.len(), MAX_MESSAGE_FDS);
    received.extend(fds.iter().map(|fd| rustix::fs::fstat(fd).unwrap().st_ino));
    let (request, fds) = fake.receive().await;
    let ToWorker::Request { id, .. } = request else {
        panic!("{request:?}");
    };
    received.extend(fds.iter().map(|fd| rustix::fs::fstat(fd).unwrap().st_ino));
    assert_eq!(received, inodes);
    fake.answer(id, ReplyBody::Resume(()));
    call.await.unwrap().unwrap();
}

#[tokio::test]
async fn all_descriptors_of_a_full_table_come_before_their_request() {
    let fake = Fake::greeted().await;
    let mut table = FdTable::new();
    for _ in 0..FdTable::MAX {
        table.push(rustix::pipe::pipe().unwrap().0).unwrap();
    }
    let client = fake.client.clone();
    let filling = tokio::spawn(async move { client.call_with(Resume {}, table, SOON).await });
    let mut batches = 0;
    let id = loop {
        match fake.receive().await.0 {
            ToWorker::Descriptors { .. } => batches += 1,
            ToWorker::Request { id, body } => {
                assert!(matches!(body, RequestBody::Resume(_)));
                break id;
            }
            other @ ToWorker::Welcome { .. } => panic!("{other:?}"),
        }
    };
    assert_eq!(batches, FdTable::MAX / MAX_MESSAGE_FDS - 1);
    fake.answer(id, ReplyBody::Resume(()));
    filling.await.unwrap().unwrap();
}
