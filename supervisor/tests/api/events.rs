//! Events: numbered without a gap, taken up where a client was, and a clear word where that cannot be.

use std::time::Duration;

use reeve_ipc::api::blocking::Connection;
use reeve_ipc::api::call::{
    DomainDestroy, DomainPause, DomainResume, DomainUndefine, EventsUnsubscribe,
};
use reeve_ipc::api::event::{Cursor, Event, EventKind};
use reeve_ipc::api::view::{DomainState, PausedReason};

use super::harness::{Instance, PATIENCE, READER, as_user, define, named, start};

/// What the log keeps (`api::events::KEPT`).
const KEPT: u64 = 4096;

fn next(connection: &mut Connection) -> (Cursor, Event) {
    let event = connection.next_event(Some(PATIENCE)).unwrap();
    event.expect("an event")
}

fn kind(event: Event) -> EventKind {
    event.of_domain().unwrap().kind
}

/// All that comes before it is quiet.
fn rest(connection: &mut Connection) -> Vec<(Cursor, Event)> {
    let quiet = Duration::from_millis(100);
    std::iter::from_fn(|| connection.next_event(Some(quiet)).unwrap()).collect()
}

fn numbers(events: &[(Cursor, Event)]) -> Vec<u64> {
    events.iter().map(|(cursor, _)| cursor.number).collect()
}

#[test]
fn a_client_that_comes_back_goes_on_where_it_was() {
    let instance = Instance::start("");
    let mut client = instance.connect();
    let begin = client.subscribe(None).unwrap();
    assert!(!begin.lost);
    let mut worker = instance.connect();
    worker.call(define("web")).unwrap();
    let (seen, event) = next(&mut client);
    assert_eq!(seen.epoch, begin.cursor.epoch);
    assert_eq!(seen.number, begin.cursor.number + 1);
    assert_eq!(kind(event), EventKind::Defined { changed: false });
    drop(client);

    worker.call(start("web", false)).unwrap();
    let domain = named("web");
    worker.call(DomainPause { domain }).unwrap();
    let mut client = instance.connect();
    let again = client.subscribe(Some(seen)).unwrap();
    assert_eq!((again.cursor, again.lost), (seen, false));
    let missed = rest(&mut client);
    let last = missed.last().unwrap();
    assert_eq!(
        kind(last.1.clone()),
        EventKind::State(DomainState::Paused(PausedReason::User))
    );
    let expected: Vec<u64> = (seen.number + 1..=last.0.number).collect();
    assert_eq!(numbers(&missed), expected, "none twice, none missing");

    // From the very beginning: all of it again.
    let mut client = instance.connect();
    assert!(!client.subscribe(Some(begin.cursor)).unwrap().lost);
    assert_eq!(rest(&mut client).len() as u64, last.0.number);
}

#[test]
fn every_subscriber_is_told_the_same_and_a_reader_too() {
    let instance = Instance::start("");
    let path = instance.socket();
    let mut reader = as_user(READER, || Connection::open(&path, "test")).unwrap();
    reader.subscribe(None).unwrap();
    let mut root = instance.connect();
    root.subscribe(None).unwrap();
    root.call(define("web")).unwrap();
    root.call(start("web", false)).unwrap();
    let domain = named("web");
    root.call(DomainDestroy { domain }).unwrap();
    let told = rest(&mut root);
    assert!(told.len() > 3, "{told:?}");
    assert_eq!(rest(&mut reader), told);
}

#[test]
fn who_unsubscribes_is_told_nothing_more_and_may_subscribe_again() {
    let instance = Instance::start("");
    let mut client = instance.connect();
    client.subscribe(None).unwrap();
    client.call(define("one")).unwrap();
    let (seen, _) = next(&mut client);
    client.call(EventsUnsubscribe {}).unwrap();
    client.call(define("two")).unwrap();
    assert!(rest(&mut client).is_empty());
    client.subscribe(Some(seen)).unwrap();
    assert_eq!(rest(&mut client).len(), 1);
    // A second subscription takes the place of the first: nothing comes twice.
    client.subscribe(Some(seen)).unwrap();
    client.call(define("three")).unwrap();
    assert_eq!(rest(&mut client).len(), 2);
}

#[test]
fn a_cursor_of_before_a_restart_is_answered_with_what_to_do() {
    let mut instance = Instance::start("");
    let mut client = instance.connect();
    client.subscribe(None).unwrap();
    client.call(define("web")).unwrap();
    let (seen, _) = next(&mut client);
    instance.crash();
    let mut client = instance.connect();
    let again = client.subscribe(Some(seen)).unwrap();
    assert!(again.lost, "it must look at everything again");
    assert_ne!(again.cursor.epoch, seen.epoch);
    let domain = named("web");
    client.call(DomainUndefine { domain }).unwrap();
    let (cursor, event) = next(&mut client);
    assert_eq!(cursor.epoch, again.cursor.epoch);
    assert_eq!(cursor.number, again.cursor.number + 1);
    assert_eq!(kind(event), EventKind::Undefined);
}

#[test]
fn a_cursor_that_is_too_old_or_from_the_future_is_told() {
    let instance = Instance::start("");
    let mut client = instance.connect();
    let begin = client.subscribe(None).unwrap().cursor;
    client.call(EventsUnsubscribe {}).unwrap();
    client.call(define("web")).unwrap();
    client.call(start("web", false)).unwrap();
    let domain = || named("web");
    for _ in 0..KEPT / 2 {
        client.call(DomainPause { domain: domain() }).unwrap();
        client.call(DomainResume { domain: domain() }).unwrap();
    }
    let now = instance.connect().subscribe(None).unwrap().cursor;
    assert!(now.number > KEPT);
    let mut client = instance.connect();
    let old = client.subscribe(Some(begin)).unwrap();
    assert!(old.lost);
    assert_eq!(
        old.cursor.number,
        now.number - KEPT,
        "the oldest that is kept"
    );
    let kept = rest(&mut client);
    assert_eq!(kept.len() as u64, KEPT);
    let expected: Vec<u64> = (now.number - KEPT + 1..=now.number).collect();
    assert_eq!(numbers(&kept), expected);

    for number in [now.number + 1, u64::MAX] {
        let future = Cursor { number, ..now };
        let answer = instance.connect().subscribe(Some(future)).unwrap();
        assert_eq!((answer.cursor, answer.lost), (now, true));
    }
    let end = instance.connect().subscribe(Some(now)).unwrap();
    assert_eq!((end.cursor, end.lost), (now, false));
}
