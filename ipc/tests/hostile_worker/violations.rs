//! Violations: each ends the connection with its own reason.

use std::os::fd::AsFd;
use std::time::Duration;

use reeve_ipc::client::{CallError, Closed, Incoming};
use reeve_ipc::codec::encode;
use reeve_ipc::message::{FromWorker, JailFacts, RequestId};
use reeve_ipc::request::{Operation, Pause, Query, ReplyBody, Resume};
use reeve_ipc::scm::{self, ScmError};
use reeve_ipc::{BuildId, MAX_MESSAGE_BYTES, PROTOCOL, ProtocolVersion};

use crate::fake::{Fake, SOON, event, hello, status};

#[tokio::test]
async fn a_reply_of_another_requests_type_is_a_violation() {
    let mut fake = Fake::greeted().await;
    let client = fake.client.clone();
    let call = tokio::spawn(async move { client.call(Pause {}, SOON).await });
    let id = fake.asked(Operation::Pause).await;
    fake.answer(id, ReplyBody::Resume(()));
    fake.violated("'pause' was answered as 'resume'").await;
    assert!(matches!(
        call.await.unwrap().unwrap_err(),
        CallError::Closed("pause")
    ));
}

#[tokio::test]
async fn a_reply_to_nothing_is_a_violation() {
    for id in [0, 1, u64::MAX] {
        let mut fake = Fake::greeted().await;
        fake.answer(RequestId(id), ReplyBody::Pause(()));
        fake.violated("which nobody made").await;
    }
}

#[tokio::test]
async fn a_second_reply_to_one_request_is_a_violation() {
    let mut fake = Fake::greeted().await;
    let client = fake.client.clone();
    let call = tokio::spawn(async move { client.call(Resume {}, SOON).await });
    let id = fake.asked(Operation::Resume).await;
    fake.answer(id, ReplyBody::Resume(()));
    call.await.unwrap().unwrap();
    fake.answer(id, ReplyBody::Resume(()));
    fake.violated("which nobody made").await;
}

#[tokio::test]
async fn a_second_hello_is_a_violation() {
    let mut fake = Fake::greeted().await;
    fake.say(&hello());
    fake.violated("second hello").await;
}

#[tokio::test]
async fn anything_before_the_hello_is_a_violation() {
    let mut fake = Fake::silent().await;
    fake.say(&event(1));
    fake.violated("no hello").await;

    let mut fake = Fake::silent().await;
    let client = fake.client.clone();
    let call = tokio::spawn(async move { client.call(Query {}, SOON).await });
    let id = fake.asked(Operation::Query).await;
    fake.answer(id, ReplyBody::Query(status()));
    fake.violated("no hello").await;
    assert!(call.await.unwrap().is_err());
}

#[tokio::test]
async fn a_worker_of_another_build_or_protocol_is_refused() {
    let other_build: BuildId = serde_json::from_str("\"0.0.1+other\"").unwrap();
    let mut fake = Fake::silent().await;
    fake.say(&FromWorker::Hello {
        protocol: PROTOCOL,
        build: other_build,
        jail: JailFacts { landlock_abi: 7 },
    });
    fake.violated("of build 0.0.1+other").await;

    let mut fake = Fake::silent().await;
    fake.say(&FromWorker::Hello {
        protocol: ProtocolVersion(PROTOCOL.0 + 1),
        build: BuildId::this(),
        jail: JailFacts { landlock_abi: 7 },
    });
    fake.violated("with protocol 2").await;
}

#[tokio::test]
async fn a_build_of_absurd_length_is_not_repeated_in_full() {
    let text = "x".repeat(60_000);
    let build: BuildId = serde_json::from_value(text.into()).unwrap();
    let mut fake = Fake::silent().await;
    fake.say(&FromWorker::Hello {
        protocol: PROTOCOL,
        build,
        jail: JailFacts { landlock_abi: 7 },
    });
    let Closed::Violation(text) = fake.closed().await else {
        panic!("no violation");
    };
    assert!(text.len() < 300, "{} bytes", text.len());
}

#[tokio::test]
async fn more_events_than_the_rate_allows_are_a_violation() {
    let mut fake = Fake::greeted().await;
    let socket = fake.socket.try_clone().unwrap();
    let flood = tokio::spawn(async move {
        for number in 1..=100_000 {
            let bytes = encode(&event(number)).unwrap();
            loop {
                match scm::send(socket.as_fd(), &bytes, &[]) {
                    Ok(()) => break,
                    Err(ScmError::WouldBlock) => tokio::task::yield_now().await,
                    Err(_) => return number,
                }
            }
        }
        100_000
    });
    fake.violated("beyond the allowed rate").await;
    flood.abort();
}

#[tokio::test]
async fn events_that_nobody_takes_are_dropped_and_replies_still_come() {
    let mut fake = Fake::greeted().await;
    for number in 1..=600 {
        fake.say_when_ready(&event(number)).await;
    }
    let client = fake.client.clone();
    let call = tokio::spawn(async move { client.call(Query {}, SOON).await });
    let id = fake.asked(Operation::Query).await;
    fake.say_when_ready(&FromWorker::Reply {
        id,
        result: Ok(ReplyBody::Query(status())),
    })
    .await;
    assert_eq!(call.await.unwrap().unwrap(), status());
    let mut last = 0;
    while let Ok(incoming) = fake.incoming.try_recv() {
        match incoming {
            Incoming::Event(number, _) => {
                assert_eq!(number, last + 1, "the oldest are kept");
                last = number;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(last < 600, "none was dropped");
}

#[tokio::test]
async fn events_that_do_not_rise_are_a_violation() {
    for second in [0, 4, 5] {
        let mut fake = Fake::greeted().await;
        fake.say(&event(5));
        fake.say(&event(second));
        fake.violated(&format!("event {second} after 5")).await;
    }
    // A gap is none: the worker drops events for want of room.
    let mut fake = Fake::greeted().await;
    fake.say(&event(5));
    fake.say(&event(500));
    assert!(matches!(fake.incoming().await, Incoming::Event(5, _)));
    assert!(matches!(fake.incoming().await, Incoming::Event(500, _)));
}

#[tokio::test]
async fn descriptors_from_a_worker_are_refused_or_a_violation_and_are_closed() {
    let flags = rustix::pipe::PipeFlags::NONBLOCK;
    let (reader, writer) = rustix::pipe::pipe_with(flags).unwrap();
    let mut fake = Fake::greeted().await;
    let bytes = encode(&event(1)).unwrap();
    match scm::send(fake.socket.as_fd(), &bytes, &[writer.as_fd()]) {
        // A kernel that refuses them (Linux 6.16): the supervisor hears nothing of it.
        Err(ScmError::Os(rustix::io::Errno::PERM)) => {
            drop(writer);
            fake.say(&event(1));
            assert!(matches!(fake.incoming().await, Incoming::Event(1, _)));
        }
        sent => {
            sent.unwrap();
            drop(writer);
            fake.violated("sends no descriptors").await;
        }
    }
    // They are closed elsewhere, and soon.
    let mut ready = [rustix::event::PollFd::new(
        &reader,
        rustix::event::PollFlags::IN,
    )];
    let patience = rustix::event::Timespec {
        tv_sec: 10,
        tv_nsec: 0,
    };
    assert_eq!(rustix::event::poll(&mut ready, Some(&patience)), Ok(1));
    assert_eq!(rustix::io::read(&reader, &mut [0; 1]), Ok(0));
}

#[tokio::test]
async fn garbage_is_a_violation() {
    let mut trailing = encode(&event(1)).unwrap();
    trailing.push(0);
    let truncated = &encode(&event(1)).unwrap()[..2];
    let garbage = [&[0xff; 40][..], &[3], &[1; 65_536], &trailing, truncated];
    for bytes in garbage {
        let mut fake = Fake::greeted().await;
        fake.say_bytes(bytes);
        fake.violated("message").await;
    }
}

#[tokio::test]
async fn a_message_over_the_limit_is_a_violation() {
    let mut fake = Fake::greeted().await;
    let bytes = vec![0; MAX_MESSAGE_BYTES + 1];
    rustix::net::send(&fake.socket, &bytes, rustix::net::SendFlags::empty()).unwrap();
    fake.violated("exceeded 65536 bytes").await;
}

#[tokio::test]
async fn a_reply_after_its_deadline_is_no_violation() {
    let mut fake = Fake::greeted().await;
    let deadline = Duration::from_millis(20);
    let error = fake.client.call(Pause {}, deadline).await.unwrap_err();
    assert!(matches!(error, CallError::Deadline("pause", _)), "{error}");
    let id = fake.asked(Operation::Pause).await;
    fake.answer(id, ReplyBody::Pause(()));
    fake.say(&event(1));
    assert!(matches!(fake.incoming().await, Incoming::Event(1, _)));
    // But only once, and only of its own type.
    fake.answer(id, ReplyBody::Pause(()));
    fake.violated("which nobody made").await;
}

#[tokio::test]
async fn a_late_reply_of_the_wrong_type_is_still_a_violation() {
    let mut fake = Fake::greeted().await;
    let deadline = Duration::from_millis(20);
    fake.client.call(Pause {}, deadline).await.unwrap_err();
    let id = fake.asked(Operation::Pause).await;
    fake.answer(id, ReplyBody::Stop(()));
    fake.violated("'pause' was answered as 'stop'").await;
}
