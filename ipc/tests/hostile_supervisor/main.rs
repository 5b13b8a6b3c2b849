//! Both clients of the native API against a supervisor that breaks every rule: no call hangs or
//! panics, no descriptor stays, what a client keeps is bounded.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod fake;

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use reeve_ipc::BuildId;
use reeve_ipc::api::blocking::{CallError, ConnectError, Connection};
use reeve_ipc::api::call::{AnswerBody, DomainPage, SupervisorInfoGet};
use reeve_ipc::api::client::Client;
use reeve_ipc::api::error::{ApiError, ApiErrorCode};
use reeve_ipc::api::judge::GreetingError;
use reeve_ipc::api::message::{CallId, ToClient};
use reeve_ipc::api::{Access, ApiVersion};
use reeve_ipc::codec;

use self::fake::{Fake, Seat, event};

/// Long past anything here, short of a test's patience.
const PATIENCE: Duration = Duration::from_secs(20);

fn block_on<F: Future>(work: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async { tokio::time::timeout(PATIENCE, work).await.unwrap() })
}

/// What each client makes of a supervisor that `script` plays: the blocking one, and the async one.
fn both_connect(script: impl Fn(&Seat) + Clone + Send + 'static) -> [ConnectError; 2] {
    let fake = Fake::serve(script.clone());
    let blocking = Connection::open(&fake.path(), "test").unwrap_err();
    fake.join();
    let fake = Fake::serve(script);
    let asynchronous = block_on(Client::open(&fake.path(), "test")).unwrap_err();
    fake.join();
    [blocking, asynchronous]
}

/// What each makes of its first call, once it has been let in.
fn both_call(script: impl Fn(&Seat) + Clone + Send + 'static) -> [CallError; 2] {
    let fake = Fake::greeted(script.clone());
    let mut connection = Connection::open(&fake.path(), "test").unwrap();
    let blocking = connection.call(SupervisorInfoGet {}).unwrap_err();
    drop(connection);
    fake.join();
    let fake = Fake::greeted(script);
    let asynchronous = block_on(async {
        let (client, _events) = Client::open(&fake.path(), "test").await.unwrap();
        client.call(SupervisorInfoGet {}).await.unwrap_err()
    });
    fake.join();
    [blocking, asynchronous]
}

fn refuse(id: CallId) -> ToClient {
    ToClient::Reply {
        id,
        result: Err(ApiError::new(ApiErrorCode::Host, "no")),
    }
}

#[test]
fn nobody_there_is_told_with_what_to_do() {
    let path = Path::new("/nonexistent/reeve-sock");
    let blocking = Connection::open(path, "test").unwrap_err();
    let asynchronous = block_on(Client::open(path, "test")).unwrap_err();
    for error in [blocking, asynchronous] {
        assert!(matches!(error, ConnectError::Nobody(_)), "{error}");
        assert!(error.to_string().contains("systemctl start reeved"));
    }
}

#[test]
fn another_version_a_refusal_and_garbage_each_have_their_error() {
    let newer = |seat: &Seat| {
        seat.hear();
        seat.say(&ToClient::Welcome {
            api: ApiVersion(2),
            build: BuildId::this(),
            access: Access::ReadOnly,
        });
    };
    for error in both_connect(newer) {
        let version = matches!(error, ConnectError::Greeting(GreetingError::Version(2)));
        assert!(version, "{error}");
    }
    // It may refuse before it has heard a word, and close with our words unread.
    let refuses = |seat: &Seat| {
        let error = ApiError::new(ApiErrorCode::AccessDenied, "not you");
        seat.say(&ToClient::Refused(error));
        std::thread::sleep(Duration::from_millis(50));
    };
    for error in both_connect(refuses) {
        assert_eq!(error.to_string(), "not you");
    }
    for garbage in [&[0xff; 40][..], &[2, 1, 0, 127], &[0, 1]] {
        for error in both_connect(|seat| seat.bytes(garbage, &[])) {
            assert!(matches!(error, ConnectError::Closed { .. }), "{error}");
        }
    }
    for error in both_connect(|seat| seat.say(&event(1))) {
        let protocol = matches!(error, ConnectError::Greeting(GreetingError::Protocol));
        assert!(protocol, "{error}");
    }
    for error in both_connect(|_| {}) {
        assert!(matches!(error, ConnectError::Closed { .. }), "{error}");
    }
}

#[test]
fn a_call_ends_whatever_comes_in_place_of_its_answer() {
    let page = || {
        AnswerBody::DomainList(DomainPage {
            domains: Vec::new(),
            more: true,
        })
    };
    let another_call = move |seat: &Seat| {
        let id = seat.call();
        let result = Ok(page());
        seat.say(&ToClient::Reply { id, result });
        seat.until_closed();
    };
    let nobodys = |seat: &Seat| {
        seat.call();
        seat.say(&refuse(CallId(99)));
        seat.until_closed();
    };
    let garbage = |seat: &Seat| {
        seat.call();
        seat.bytes(&[9; 9], &[]);
        seat.until_closed();
    };
    let greets_again = |seat: &Seat| {
        seat.call();
        let error = ApiError::new(ApiErrorCode::Host, "no");
        seat.say(&ToClient::Refused(error));
        seat.until_closed();
    };
    let mut ends = Vec::new();
    ends.extend(both_call(another_call));
    ends.extend(both_call(nobodys));
    ends.extend(both_call(garbage));
    ends.extend(both_call(greets_again));
    for (number, end) in ends.iter().enumerate() {
        // The blocking client says which rule was broken, the other that the connection is over.
        let expected = match number % 2 {
            0 => matches!(end, CallError::Protocol(_)),
            _ => matches!(end, CallError::Closed),
        };
        assert!(expected, "{number}: {end}");
    }
    let closes = |seat: &Seat| {
        seat.call();
    };
    for end in both_call(closes) {
        assert!(matches!(end, CallError::Closed), "{end}");
    }
}

#[test]
fn a_call_with_a_deadline_ends_with_it_and_its_late_answer_is_let_pass() {
    let fake = Fake::greeted(|seat| {
        let (late, next) = (seat.call(), seat.call());
        seat.say(&refuse(late));
        seat.say(&refuse(next));
        seat.until_closed();
    });
    let mut connection = Connection::open(&fake.path(), "test").unwrap();
    let deadline = Duration::from_millis(50);
    let error = connection
        .call_within(SupervisorInfoGet {}, deadline)
        .unwrap_err();
    assert!(matches!(error, CallError::Deadline("info", _)), "{error}");
    let error = connection.call(SupervisorInfoGet {}).unwrap_err();
    assert_eq!(error.to_string(), "no", "its own answer");
    drop(connection);
    fake.join();
}

#[test]
fn descriptors_that_nobody_asked_for_are_closed() {
    let open = || File::open("/dev/null").unwrap().into();
    let fake = Fake::greeted(move |seat| {
        let id = seat.call();
        let strays: Vec<OwnedFd> = (0..60).map(|_| open()).collect();
        for number in 1..=20 {
            seat.bytes(&codec::encode(&event(number)).unwrap(), &strays);
        }
        seat.bytes(&codec::encode(&refuse(id)).unwrap(), &strays);
        drop(strays);
        seat.until_closed();
    });
    let mut connection = Connection::open(&fake.path(), "test").unwrap();
    connection.call(SupervisorInfoGet {}).unwrap_err();
    // Another test's descriptors may come and go meanwhile, but not a thousand.
    let left = std::fs::read_dir("/proc/self/fd").unwrap().count();
    assert!(left < 200, "{left} descriptors are open");
    drop(connection);
    fake.join();
}

#[test]
fn a_flood_of_events_holds_up_no_answer_and_is_kept_to_a_bound() {
    const FLOOD: u64 = 20_000;
    let floods = |seat: &Seat| {
        let id = seat.call();
        for number in 1..=FLOOD {
            seat.say(&event(number));
        }
        seat.say(&refuse(id));
        seat.until_closed();
    };
    let fake = Fake::greeted(floods);
    let mut connection = Connection::open(&fake.path(), "test").unwrap();
    connection.call(SupervisorInfoGet {}).unwrap_err();
    let mut numbers = Vec::new();
    while let Some((cursor, _)) = connection.next_event(Some(Duration::ZERO)).unwrap() {
        numbers.push(cursor.number);
    }
    assert!(numbers.len() <= 4096, "{} are kept", numbers.len());
    assert_eq!(numbers.last(), Some(&FLOOD), "the newest are kept");
    drop(connection);
    fake.join();

    let fake = Fake::greeted(floods);
    let kept = block_on(async {
        let (client, mut events) = Client::open(&fake.path(), "test").await.unwrap();
        client.call(SupervisorInfoGet {}).await.unwrap_err();
        let mut kept = 0;
        while events.try_recv().is_ok() {
            kept += 1;
        }
        kept
    });
    assert!((1..=1024).contains(&kept), "{kept} are kept");
    fake.join();
}
