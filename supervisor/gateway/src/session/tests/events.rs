//! Events, from the supervisor's to those of the callbacks that a client has registered.

use reeve_ipc::api::call::{AnswerBody, CallBody, DomainPage};
use reeve_ipc::api::event::EventKind;
use reeve_ipc::api::view::{DomainState, PausedReason, RunningReason, ShutOffReason};
use reeve_ipc::model::MemorySize;

use super::harness::{Act, Client, handle};
use crate::calls::testing::{details, summary};
use crate::wire::call::Event;
use crate::wire::frame::{Kind, Status};
use crate::wire::types::connect;
use crate::wire::types::event as events;
use crate::wire::xdr::decode;

const RUNNING: DomainState = DomainState::Running(RunningReason::Booted);

/// A host whose domain `a` runs.
fn host(call: &CallBody) -> Act {
    match call {
        CallBody::DomainList(_) => {
            let domains = vec![summary("a", RUNNING)];
            Act::Answer(AnswerBody::DomainList(DomainPage {
                domains,
                more: false,
            }))
        }
        // Only of a domain that was not running when it was first looked.
        CallBody::DomainGet(_) => Act::Answer(AnswerBody::DomainGet(details("b", RUNNING))),
        CallBody::DomainPause(_) => Act::Die,
        other => panic!("the supervisor is asked {other:?}"),
    }
}

pub(super) fn register(client: &mut Client, event: i32, domain: Option<&str>) -> i32 {
    let domain = domain.map(|name| handle(name, 1));
    client.ask(&events::ConnectDomainEventCallbackRegisterAny { event, domain })
}

pub(super) fn next<E: Event>(client: &mut Client) -> E {
    let got = client.next().unwrap();
    assert_eq!(
        (got.header.kind, got.header.status),
        (Kind::Message, Status::Ok)
    );
    assert_eq!(got.header.procedure, E::NUMBER);
    decode(&got.payload).unwrap()
}

fn life(client: &mut Client) -> (i32, String, i32, i32, i32) {
    let life: events::DomainEventCallbackLifecycle = next(client);
    let domain = life.domain;
    (
        life.callback,
        domain.name,
        domain.id,
        life.event,
        life.detail,
    )
}

#[test]
fn a_destroy_is_told_twice_and_the_second_time_without_a_number() {
    let mut client = Client::open(host);
    let callback = register(&mut client, 0, None);
    let destroyed = DomainState::ShutOff(ShutOffReason::Destroyed);
    client.supervisor.event("a", EventKind::State(destroyed));
    assert_eq!(life(&mut client), (callback, "a".to_owned(), 5, 6, 2));
    assert_eq!(life(&mut client), (callback, "a".to_owned(), -1, 5, 1));
}

#[test]
fn a_start_a_pause_and_a_resumption_are_told_with_the_number_they_happen_under() {
    let mut client = Client::open(host);
    register(&mut client, 0, None);
    for state in [
        DomainState::Paused(PausedReason::StartingUp),
        RUNNING,
        DomainState::Paused(PausedReason::User),
        DomainState::Running(RunningReason::Unpaused),
    ] {
        client.supervisor.event("b", EventKind::State(state));
    }
    for (event, detail) in [(2, 0), (3, 0), (4, 0)] {
        let (_, name, id, told, why) = life(&mut client);
        assert_eq!((name.as_str(), id, told, why), ("b", 5, event, detail));
    }
}

#[test]
fn a_callback_of_one_domain_hears_of_no_other_and_none_of_other_kinds() {
    let mut client = Client::open(host);
    let mine = register(&mut client, 0, Some("b"));
    let resets = register(&mut client, 1, None);
    let balloons = register(&mut client, 13, None);
    assert!(mine != resets && resets != balloons);
    client.supervisor.event("a", EventKind::Undefined);
    client.supervisor.event("a", EventKind::Reset);
    client
        .supervisor
        .event("b", EventKind::Defined { changed: true });
    let memory = MemorySize::mebibytes(32);
    client
        .supervisor
        .event("a", EventKind::BalloonChanged { memory });
    let reboot: events::DomainEventCallbackReboot = next(&mut client);
    assert_eq!((reboot.callback, reboot.domain), (resets, handle("a", 5)));
    assert_eq!(life(&mut client), (mine, "b".to_owned(), -1, 0, 1));
    let balloon: events::DomainEventCallbackBalloonChange = next(&mut client);
    assert_eq!((balloon.callback, balloon.actual), (balloons, 32768));
}

#[test]
fn a_new_name_is_the_end_of_one_and_the_beginning_of_another() {
    let mut client = Client::open(host);
    register(&mut client, 0, None);
    let before = "old".parse().unwrap();
    client.supervisor.event("b", EventKind::Renamed { before });
    let (_, name, _, event, detail) = life(&mut client);
    assert_eq!((name.as_str(), event, detail), ("old", 1, 1));
    let (_, name, _, event, detail) = life(&mut client);
    assert_eq!((name.as_str(), event, detail), ("b", 0, 2));
}

#[test]
fn a_callback_that_was_given_up_hears_nothing_more() {
    let mut client = Client::open(host);
    let first = register(&mut client, 0, None);
    let second = register(&mut client, 0, None);
    let give_up = events::ConnectDomainEventCallbackDeregisterAny { callback: first };
    client.ask(&give_up);
    client.supervisor.event("a", EventKind::Undefined);
    assert_eq!(life(&mut client).0, second);
    assert_eq!(client.refused(&give_up).code, 1);
    client.silence(100);
}

#[test]
fn events_that_there_are_not_cannot_be_asked_for() {
    let mut client = Client::open(host);
    for event in [-1, 28, i32::MAX] {
        let register = events::ConnectDomainEventCallbackRegisterAny {
            event,
            domain: None,
        };
        let said = client.refused(&register);
        assert_eq!(said.code, 1);
        assert!(
            said.message
                .ends_with(&format!("unsupported event ID {event}"))
        );
    }
    // Those that never come can.
    register(&mut client, 26, None);
}

#[test]
fn events_that_were_dropped_on_the_way_are_asked_for_again() {
    let mut client = Client::open(host);
    register(&mut client, 0, None);
    client.supervisor.skip(3);
    client.supervisor.event("a", EventKind::Undefined);
    let subscribed = |client: &Client| {
        let seen = client.supervisor.seen.lock().unwrap();
        let subscriptions = seen.iter().filter_map(|call| match call {
            CallBody::EventsSubscribe(subscribe) => {
                Some(subscribe.after.map(|cursor| cursor.number))
            }
            _ => None,
        });
        subscriptions.collect::<Vec<_>>()
    };
    super::harness::eventually(|| subscribed(&client).len() == 2);
    assert_eq!(subscribed(&client), [None, Some(0)]);
}

#[test]
fn a_client_is_told_that_the_supervisor_is_gone_and_its_calls_fail() {
    let mut client = Client::open(host);
    client.ask(&connect::ConnectRegisterCloseCallback {});
    let domain = handle("a", 5);
    let lost = client.send(&crate::wire::types::lifecycle::DomainSuspend { domain });
    let mut failed = false;
    let mut told = false;
    while let Some(got) = client.next() {
        if got.header.kind == Kind::Message {
            assert_eq!(
                got.header.procedure,
                events::ConnectEventConnectionClosed::NUMBER
            );
            assert_eq!(got.payload, [0, 0, 0, 1]);
            told = true;
        } else {
            assert_eq!(got.header.serial, lost);
            assert_eq!(got.error().code, 38);
            failed = true;
        }
    }
    assert!(failed && told);
    let end = client.end().unwrap_err();
    assert!(
        matches!(end, crate::session::SessionError::Supervisor),
        "{end}"
    );
}
