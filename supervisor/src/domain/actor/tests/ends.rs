//! Ends that come at an awkward moment, and silence: each of these was found by the simulation.

use reeve_ipc::model::{OnPowerOff, OnReboot};

use super::*;
use crate::domain::driver::{CallFailure, Verdict};

fn responsive(phase: Phase, resets: u64) -> Notice {
    Notice::Responsive {
        phase,
        resets,
        end: None,
    }
}

/// Found, and silent.
fn silent(intents: Intents) -> Fed {
    let mut fed = Fed::recovered(intents);
    let effects = fed.feed(Input::Recover);
    fed.through(effects);
    assert_eq!(fed.actor.state(), STARTING);
    fed
}

#[test]
fn a_worker_found_silent_tells_its_resets_when_it_answers() {
    let mut fed = silent(Intents::default());
    fed.notice(responsive(Phase::Running, 3));
    let adopted = DomainState::Running(RunningReason::Adopted);
    assert_eq!(fed.actor.state(), adopted);
    assert_eq!(fed.actor.details(None).unwrap().resets, 3);
}

#[test]
fn a_guest_that_ended_unheard_has_ended_before_anybody_asks_more_of_it() {
    let mut fed = silent(Intents::default());
    let effects = fed.notice(Notice::Responsive {
        phase: Phase::Off,
        resets: 0,
        end: Some(GuestEnd::PoweredOff),
    });
    called(&effects, WorkerCall::Stop);
}

#[test]
fn a_restart_begun_before_the_silence_is_finished_behind_it() {
    let mut fed = silent(Intents {
        restart_after_resets: Some(0),
        ..Intents::default()
    });
    let effects = fed.notice(responsive(Phase::Paused, 1));
    called(&effects, WorkerCall::Resume);
    let effects = fed.through(effects);
    let restarted = DomainState::Running(RunningReason::Restarted);
    assert_eq!(fed.actor.state(), restarted);
    let intents = &noted(&effects).unwrap().intents;
    assert_eq!(intents.restart_after_resets, None);
}

#[test]
fn a_guest_that_was_restarted_is_not_restarted_again_for_the_same_wish() {
    let mut fed = silent(Intents {
        restart_after_resets: Some(0),
        ..Intents::default()
    });
    let effects = fed.notice(responsive(Phase::Off, 1));
    fed.through(effects);
    let effects = fed.notice(ended(GuestEnd::PoweredOff));
    called(&effects, WorkerCall::Stop);
}

#[test]
fn a_pause_obeyed_after_its_deadline_is_seen_when_the_worker_answers_again() {
    let mut fed = Fed::running(LifecycleAction::default());
    let effects = fed.ask(Request::Pause);
    let serial = called(&effects, WorkerCall::Pause);
    let late = Done::Called(Err(CallFailure::Deadline));
    let effects = fed.feed(Input::Done(serial, late));
    assert_eq!(answer(&effects), Some(Err(ApiErrorCode::Timeout)));
    fed.notice(Notice::Silent);
    assert_eq!(fed.actor.state(), RUNNING);
    fed.notice(responsive(Phase::Paused, 0));
    assert_eq!(fed.actor.state(), PAUSED);
}

#[test]
fn a_phase_that_was_told_before_a_later_answer_does_not_undo_it() {
    let mut fed = Fed::running(LifecycleAction::default());
    fed.notice(Notice::Silent);
    let effects = fed.ask(Request::Pause);
    fed.through(effects);
    fed.notice(responsive(Phase::Running, 0));
    assert_eq!(fed.actor.state(), PAUSED);
}

#[test]
fn a_reset_overtaken_by_the_guests_end_lets_the_machine_run_again() {
    let mut fed = Fed::running(LifecycleAction {
        on_power_off: OnPowerOff::Preserve,
        ..LifecycleAction::default()
    });
    let effects = fed.ask(Request::Reset);
    let serial = called(&effects, WorkerCall::Reset);
    let effects = fed.notice(ended(GuestEnd::PoweredOff));
    assert_eq!(answer(&effects), None, "the reset undoes the end");
    let effects = fed.feed(Input::Done(serial, Done::Called(Ok(()))));
    called(&effects, WorkerCall::Resume);
    let effects = fed.through(effects);
    assert_eq!(answer(&effects), Some(Ok(())));
    let unpaused = DomainState::Running(RunningReason::Unpaused);
    assert_eq!(fed.actor.state(), unpaused);
}

#[test]
fn an_end_that_resets_have_undone_restarts_nothing_though_their_answers_were_late() {
    let mut fed = Fed::running(LifecycleAction {
        on_power_off: OnPowerOff::Restart,
        ..LifecycleAction::default()
    });
    let effects = fed.ask(Request::Reset);
    let serial = called(&effects, WorkerCall::Reset);
    let late = Done::Called(Err(CallFailure::Deadline));
    fed.feed(Input::Done(serial, late));
    let effects = fed.ask(Request::Reset);
    let serial = called(&effects, WorkerCall::Reset);
    fed.notice(ended(GuestEnd::PoweredOff));
    fed.notice(Notice::Silent);
    fed.notice(Notice::Reset(2));
    fed.notice(responsive(Phase::Paused, 2));
    let effects = fed.feed(Input::Done(serial, Done::Called(Ok(()))));
    called(&effects, WorkerCall::Resume);
    let effects = fed.through(effects);
    assert_eq!(answer(&effects), Some(Ok(())));
    let resets = |effect: &Effect| matches!(effect, Effect::Call(_, _, WorkerCall::Reset));
    assert!(!effects.iter().any(resets), "it was reset once more");
}

/// Its guest powered off and is to be restarted; a reset of before was obeyed meanwhile, and the restart had
/// no answer.
fn in_doubt() -> Fed {
    let mut fed = Fed::running(LifecycleAction {
        on_power_off: OnPowerOff::Restart,
        ..LifecycleAction::default()
    });
    let effects = fed.ask(Request::Reset);
    let serial = called(&effects, WorkerCall::Reset);
    let late = || Done::Called(Err(CallFailure::Deadline));
    fed.feed(Input::Done(serial, late()));
    fed.notice(Notice::Silent);
    let effects = fed.notice(ended(GuestEnd::PoweredOff));
    let effects = fed.feed(Input::Done(writes(&effects), Done::Written(Ok(()))));
    let serial = called(&effects, WorkerCall::Reset);
    fed.notice(Notice::Reset(1));
    let effects = fed.feed(Input::Done(serial, late()));
    assert!(!kills(&effects), "its guest runs");
    assert_eq!(fed.actor.state(), PAUSED);
    fed
}

#[test]
fn a_restart_without_an_answer_does_not_kill_what_an_earlier_reset_has_brought_back() {
    let mut fed = in_doubt();
    let effects = fed.notice(responsive(Phase::Running, 1));
    let unpaused = DomainState::Running(RunningReason::Unpaused);
    assert_eq!(fed.actor.state(), unpaused);
    assert_eq!(noted(&effects).unwrap().intents.restart_after_resets, None);

    let mut fed = in_doubt();
    let effects = fed.notice(responsive(Phase::Paused, 2));
    called(&effects, WorkerCall::Resume);
    let effects = fed.through(effects);
    assert_eq!(noted(&effects).unwrap().intents.restart_after_resets, None);
    let restarted = DomainState::Running(RunningReason::Restarted);
    assert_eq!(fed.actor.state(), restarted);
}

#[test]
fn an_end_behind_a_reset_whose_answer_is_late_counts() {
    let mut fed = Fed::running(LifecycleAction::default());
    fed.ask(Request::Reset);
    fed.notice(Notice::Reset(1));
    let effects = fed.notice(ended(GuestEnd::PoweredOff));
    assert_eq!(answer(&effects), Some(Ok(())), "it was reset");
    called(&effects, WorkerCall::Stop);
}

#[test]
fn a_reset_that_nobody_waits_for_puts_an_ended_machine_at_its_beginning() {
    let mut fed = Fed::running(LifecycleAction {
        on_reboot: OnReboot::Preserve,
        ..LifecycleAction::default()
    });
    fed.notice(ended(GuestEnd::Reset));
    assert_eq!(fed.actor.state(), POWERED_OFF);
    fed.notice(Notice::Reset(1));
    assert_eq!(fed.actor.state(), PAUSED);
}

#[test]
fn destroy_kills_a_worker_that_was_asked_to_end_and_does_not() {
    let mut fed = Fed::running(LifecycleAction::default());
    let effects = fed.notice(ended(GuestEnd::PoweredOff));
    called(&effects, WorkerCall::Stop);
    let effects = fed.ask(Request::Destroy);
    assert!(kills(&effects), "{effects:?}");
}

#[test]
fn a_destroy_does_not_call_off_a_definition_that_is_being_written() {
    let mut fed = silent(Intents::default());
    let effects = fed.ask(define(false));
    let serial = writes(&effects);
    let effects = fed.ask(Request::Destroy);
    assert_eq!(answer(&effects), None);
    let effects = fed.feed(Input::Done(serial, Done::Written(Ok(()))));
    assert_eq!(answer(&effects), Some(Ok(())));
}

#[test]
fn a_domain_created_over_what_is_kept_of_it_runs_with_its_own_and_leaves_that() {
    let mut fed = Fed::new();
    let effects = fed.ask(define(true));
    fed.through(effects);
    let mut other = domain();
    other.labels.title = Some("just now".to_owned());
    let options = StartOptions {
        paused: false,
        auto_destroy: false,
    };
    let create = || Request::Create(Box::new(other.clone()), options, SessionId(1));
    let effects = fed.ask(create());
    let effects = fed.through(effects);
    assert_eq!(answer(&effects), Some(Ok(())));
    assert_eq!(fed.actor.state(), RUNNING);
    let details = fed.actor.details(None).unwrap();
    assert!(details.summary.persistent && details.redefined);
    assert_eq!(details.summary.title.as_deref(), Some("just now"));
    let again = fed.ask(create());
    assert_eq!(answer(&again), Some(Err(ApiErrorCode::WrongState)));
    let id = details.summary.id.unwrap();
    fed.ask(Request::Destroy);
    fed.feed(Input::Notice(id, Notice::Gone(Verdict::Asked)));
    assert_eq!(fed.actor.state().name(), "shut off");
    let summary = fed.actor.summary().unwrap();
    assert_eq!((summary.persistent, summary.title), (true, None));
}
