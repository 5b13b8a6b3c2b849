//! Writes and calls that fail: nothing is half done, and nobody's guest is ended for it.

use reeve_ipc::api::event::Label;
use reeve_ipc::model::MAX_NAMESPACE_BYTES;

use super::*;
use crate::domain::driver::CallFailure;

fn full() -> Done {
    Done::Written(Err("no space left on device".to_owned()))
}

#[test]
fn a_guest_that_was_restarted_lives_though_that_cannot_be_noted() {
    let mut fed = Fed::running(LifecycleAction {
        on_power_off: reeve_ipc::model::OnPowerOff::Restart,
        ..LifecycleAction::default()
    });
    let mut effects = fed.notice(ended(GuestEnd::PoweredOff));
    for _ in ["the wish", "reset", "resume"] {
        let input = effects.iter().find_map(success).unwrap();
        effects = fed.feed(input);
    }
    let note = writes(&effects);
    let effects = fed.feed(Input::Done(note, full()));
    assert!(!kills(&effects), "{effects:?}");
    let restarted = DomainState::Running(RunningReason::Restarted);
    assert_eq!(fed.actor.state(), restarted);
    // What is noted next does not wish for a restart any more.
    let effects = fed.ask(title("t", true, false));
    let intents = &noted(&effects).unwrap().intents;
    assert_eq!(intents.restart_after_resets, None);
}

#[test]
fn labels_are_set_in_both_definitions_or_in_none() {
    let mut fed = Fed::running(LifecycleAction::default());
    let effects = fed.ask(title("new", true, true));
    let status = writes(&effects);
    let effects = fed.feed(Input::Done(status, Done::Written(Ok(()))));
    let record = writes(&effects);
    let effects = fed.feed(Input::Done(record, full()));
    assert_eq!(answer(&effects), Some(Err(ApiErrorCode::Storage)));
    assert_eq!(noted(&effects).unwrap().definition.labels.title, None);
    for persistent in [false, true] {
        let definition = fed.actor.definition(persistent).unwrap();
        assert_eq!(definition.labels.title, None);
    }
}

#[test]
fn a_label_that_is_taken_away_and_was_not_there_is_told_of_all_the_same() {
    let mut fed = Fed::running(LifecycleAction::default());
    let remove = |uri: &str| Request::SetLabel {
        change: LabelChange::MetadataRemove {
            uri: uri.to_owned(),
        },
        live: true,
        persistent: false,
    };
    let effects = fed.ask(remove("urn:x"));
    let effects = fed.feed(Input::Done(writes(&effects), Done::Written(Ok(()))));
    let label = Label::Metadata {
        uri: "urn:x".to_owned(),
    };
    let event = Effect::Event(EventKind::Labels { label });
    assert!(effects.contains(&event), "{effects:?}");
    // But none that is longer than an event may be.
    let effects = fed.ask(remove(&"u".repeat(MAX_NAMESPACE_BYTES + 1)));
    assert_eq!(answer(&effects), Some(Err(ApiErrorCode::InvalidArgument)));
}

#[test]
fn a_power_button_that_was_refused_leaves_no_wish_behind() {
    for request in [
        Request::Reboot,
        Request::Shutdown {
            destroy_after_ms: Some(1_000),
            for_host: false,
        },
    ] {
        let mut fed = Fed::running(LifecycleAction::default());
        let effects = fed.ask(request);
        let effects = fed.feed(effects.iter().find_map(success).unwrap());
        let serial = called(&effects, WorkerCall::PowerButton);
        let refused = CallFailure::Refused("it does not want to".to_owned());
        let effects = fed.feed(Input::Done(serial, Done::Called(Err(refused))));
        assert_eq!(answer(&effects), Some(Err(ApiErrorCode::Worker)));
        assert_eq!(noted(&effects).unwrap().intents, Intents::default());
        assert_eq!(fed.actor.state(), RUNNING);
    }
}

#[test]
fn a_definition_that_cannot_be_written_leaves_the_one_before() {
    let mut fed = Fed::new();
    let effects = fed.ask(define(true));
    fed.through(effects);
    let mut other = domain();
    other.memory = MemorySize::mebibytes(128);
    let effects = fed.ask(Request::Define {
        domain: Box::new(other),
        only_new: false,
    });
    let effects = fed.feed(Input::Done(writes(&effects), full()));
    assert_eq!(answer(&effects), Some(Err(ApiErrorCode::Storage)));
    assert_eq!(fed.actor.definition(true), Some(&domain()));
}

#[test]
fn a_first_definition_that_cannot_be_written_leaves_nothing() {
    let mut fed = Fed::new();
    let effects = fed.ask(define(true));
    let effects = fed.feed(Input::Done(writes(&effects), full()));
    assert_eq!(effects.last(), Some(&Effect::Retire));
    assert!(fed.actor.is_retired());
    assert_eq!(fed.ask(define(true)), [], "it emits nothing any more");
}
