//! Shutdowns with a deadline, and those that the host's own end asks for.

use reeve_ipc::model::{OnCrash, OnPowerOff, OnReboot};

use super::*;
use crate::domain::driver::{CallFailure, Verdict};

const NEVER_ENDS: [LifecycleAction; 2] = [
    LifecycleAction {
        on_power_off: OnPowerOff::Restart,
        on_reboot: OnReboot::Restart,
        on_crash: OnCrash::Restart,
    },
    LifecycleAction {
        on_power_off: OnPowerOff::Preserve,
        on_reboot: OnReboot::Preserve,
        on_crash: OnCrash::Preserve,
    },
];

fn within(ms: u32) -> Request {
    Request::Shutdown {
        destroy_after_ms: Some(ms),
        for_host: false,
    }
}

/// The timers of shutdowns that the effects set, each with how long it runs.
fn timers(effects: &[Effect]) -> Vec<(Timer, u64)> {
    let timers = effects.iter().filter_map(|effect| match effect {
        Effect::SetTimer(timer @ Timer::ShutdownDeadline { .. }, after) => Some((*timer, *after)),
        _ => None,
    });
    timers.collect()
}

fn asked(fed: &mut Fed, request: Request) -> Vec<Effect> {
    let effects = fed.ask(request);
    fed.through(effects)
}

#[test]
fn no_policy_keeps_a_guest_from_its_end_with_the_host() {
    for lifecycle in NEVER_ENDS {
        for end in [GuestEnd::PoweredOff, GuestEnd::Reset] {
            let mut fed = Fed::running(lifecycle);
            asked(&mut fed, HOST_ENDS);
            assert_eq!(fed.actor.state(), DomainState::ShuttingDown);
            let id = fed.actor.summary().unwrap().id.unwrap();
            let effects = fed.notice(ended(end));
            called(&effects, WorkerCall::Stop);
            let effects = fed.feed(Input::Notice(id, Notice::Gone(Verdict::Asked)));
            assert!(effects.contains(&Effect::RemoveStatus), "{effects:?}");
            let off = DomainState::ShutOff(ShutOffReason::Shutdown);
            assert_eq!(fed.actor.state(), off);
            assert_eq!(fed.actor.job_kind(), None);
        }
        let mut fed = Fed::running(lifecycle);
        asked(&mut fed, HOST_ENDS);
        let died = Verdict::Failed("it died".to_owned());
        fed.notice(Notice::Gone(died));
        let off = DomainState::ShutOff(ShutOffReason::Crashed);
        assert_eq!(fed.actor.state(), off, "it is not started again");
        assert_eq!(fed.actor.job_kind(), None);
    }
}

#[test]
fn a_guest_that_its_worker_resets_ends_with_the_host() {
    let mut fed = Fed::running(LifecycleAction::default());
    asked(&mut fed, HOST_ENDS);
    let effects = fed.notice(Notice::Reset(1));
    assert!(kills(&effects), "{effects:?}");
    let off = DomainState::ShutOff(ShutOffReason::Shutdown);
    assert_eq!(fed.actor.state(), off);
}

#[test]
fn a_plain_shutdown_obeys_the_policy_and_takes_the_hosts_back_from_nobody() {
    let [restarts, _] = NEVER_ENDS;
    let mut fed = Fed::running(restarts);
    asked(&mut fed, within(1_000));
    let effects = fed.notice(ended(GuestEnd::PoweredOff));
    let effects = fed.through(effects);
    called(&effects, WorkerCall::Reset);
    asked(&mut fed, HOST_ENDS);
    asked(&mut fed, within(1_000));
    let effects = fed.notice(ended(GuestEnd::PoweredOff));
    called(&effects, WorkerCall::Stop);
}

#[test]
fn a_domain_that_is_destroyed_when_time_is_up_is_not_restarted_by_its_policy() {
    let [restarts, _] = NEVER_ENDS;
    let mut fed = Fed::running(restarts);
    let id = fed.actor.summary().unwrap().id.unwrap();
    let effects = asked(&mut fed, within(1_000));
    let [(timer, 1_000)] = timers(&effects)[..] else {
        panic!("{effects:?}");
    };
    let effects = fed.feed(Input::Timer(timer));
    assert!(kills(&effects), "{effects:?}");
    let died = Verdict::Failed("it was killed".to_owned());
    fed.feed(Input::Notice(id, Notice::Gone(died)));
    let off = DomainState::ShutOff(ShutOffReason::Destroyed);
    assert_eq!(fed.actor.state(), off);
    assert_eq!(fed.actor.job_kind(), None);
}

#[test]
fn a_domain_that_is_paused_is_resumed_and_pressed_for_the_host() {
    let mut fed = Fed::running(LifecycleAction::default());
    asked(&mut fed, Request::Pause);
    let effects = fed.ask(within(1_000));
    assert_eq!(answer(&effects), Some(Err(ApiErrorCode::WrongState)));
    let effects = asked(&mut fed, HOST_ENDS);
    called(&effects, WorkerCall::Resume);
    called(&effects, WorkerCall::PowerButton);
    assert_eq!(answer(&effects), Some(Ok(())));
    assert_eq!(fed.actor.state(), DomainState::ShuttingDown);
}

#[test]
fn a_domain_whose_guest_has_ended_is_destroyed_for_the_host() {
    let [_, keeps] = NEVER_ENDS;
    let mut fed = Fed::running(keeps);
    let effects = fed.notice(ended(GuestEnd::PoweredOff));
    fed.through(effects);
    assert_eq!(fed.actor.state(), POWERED_OFF);
    let effects = fed.ask(HOST_ENDS);
    assert!(kills(&effects), "{effects:?}");
}

#[test]
fn a_guest_that_cannot_be_told_is_destroyed_in_time_for_the_host() {
    let failures = [
        CallFailure::Deadline,
        CallFailure::Refused("it does not want to".to_owned()),
    ];
    for (failure, paused) in failures.iter().zip([true, false]) {
        let mut fed = Fed::running(LifecycleAction::default());
        if paused {
            asked(&mut fed, Request::Pause);
        }
        let effects = fed.ask(HOST_ENDS);
        let effects = fed.feed(effects.iter().find_map(success).unwrap());
        let [(timer, 200)] = timers(&effects)[..] else {
            panic!("{effects:?}");
        };
        let call = if paused {
            WorkerCall::Resume
        } else {
            WorkerCall::PowerButton
        };
        let serial = called(&effects, call);
        let effects = fed.feed(Input::Done(serial, Done::Called(Err(failure.clone()))));
        assert!(answer(&effects).is_some_and(|answer| answer.is_err()));
        let effects = fed.feed(Input::Timer(timer));
        assert!(kills(&effects), "{effects:?}");
    }
}

#[test]
fn nobody_reboots_a_guest_that_ends_with_the_host() {
    let mut fed = Fed::running(LifecycleAction::default());
    asked(&mut fed, HOST_ENDS);
    let effects = fed.ask(Request::Reboot);
    assert_eq!(answer(&effects), Some(Err(ApiErrorCode::WrongState)));
    assert_eq!(fed.actor.state(), DomainState::ShuttingDown);
}

#[test]
fn a_domain_that_ends_with_the_host_does_so_under_the_next_supervisor() {
    let mut fed = Fed::recovered(Intents {
        shutting_down: true,
        for_host: true,
        destroy_at_boot_ms: Some(1_700),
        ..Intents::default()
    });
    let effects = fed.feed(Input::Recover);
    let effects = fed.through(effects);
    let [(timer, 700)] = timers(&effects)[..] else {
        panic!("{effects:?}");
    };
    assert_eq!(
        timer,
        Timer::ShutdownDeadline {
            id: fed.actor.summary().unwrap().id.unwrap(),
            at_boot_ms: 1_700
        }
    );
    let effects = fed.feed(Input::Timer(timer));
    assert!(kills(&effects), "{effects:?}");
}

#[test]
fn a_second_deadline_takes_the_place_of_the_first() {
    let mut fed = Fed::running(LifecycleAction::default());
    let first = timers(&asked(&mut fed, within(1_000)));
    let [(old, 1_000)] = first[..] else {
        panic!("{first:?}");
    };
    fed.now_ms += 100;
    let second = timers(&asked(&mut fed, within(5_000)));
    let [(new, 5_000)] = second[..] else {
        panic!("{second:?}");
    };
    // However late the old one comes: it is an old one.
    fed.now_ms += 10_000;
    assert_eq!(fed.feed(Input::Timer(old)), []);
    assert_eq!(fed.actor.state(), DomainState::ShuttingDown);
    let effects = fed.feed(Input::Timer(new));
    assert!(kills(&effects), "{effects:?}");
}

#[test]
fn a_status_written_for_something_else_sets_no_second_timer() {
    let mut fed = Fed::running(LifecycleAction::default());
    asked(&mut fed, within(1_000));
    let effects = asked(&mut fed, title("t", true, false));
    assert_eq!(timers(&effects), []);
    let plain = Request::Shutdown {
        destroy_after_ms: None,
        for_host: false,
    };
    let effects = asked(&mut fed, plain);
    assert_eq!(timers(&effects), [], "the first holds");
}

#[test]
fn a_second_deadline_that_is_taken_back_leaves_the_first_with_its_timer() {
    let mut fed = Fed::running(LifecycleAction::default());
    let first = timers(&asked(&mut fed, within(1_000)));
    fed.now_ms += 400;
    let effects = fed.ask(within(5_000));
    let effects = fed.feed(effects.iter().find_map(success).unwrap());
    assert_eq!(timers(&effects).len(), 1);
    let serial = called(&effects, WorkerCall::PowerButton);
    let refused = CallFailure::Refused("it does not want to".to_owned());
    let effects = fed.feed(Input::Done(serial, Done::Called(Err(refused))));
    let again = timers(&effects);
    assert_eq!(again.first().map(|timer| timer.1), Some(600));
    assert_eq!(first[0].0, again[0].0);
    let effects = fed.feed(Input::Timer(again[0].0));
    assert!(kills(&effects), "{effects:?}");
}
