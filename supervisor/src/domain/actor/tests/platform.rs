//! Panics, crash kernels and watchdogs: what a guest's worker tells of them.

use reeve_ipc::event::{CrashCause, CrashReport};
use reeve_ipc::model::{OnCrash, Watchdog};
use reeve_ipc::spec::{PciSlot, WatchdogAction};

use super::*;

const EXPIRED: DomainState = DomainState::Paused(PausedReason::Watchdog);

fn panicked() -> GuestEnd {
    GuestEnd::Crashed(CrashReport {
        vcpu: 1,
        cause: CrashCause::Panicked,
        registers: None,
    })
}

fn with_policy(on_crash: OnCrash) -> Fed {
    Fed::running(LifecycleAction {
        on_crash,
        ..LifecycleAction::default()
    })
}

fn events(effects: &[Effect]) -> Vec<&EventKind> {
    let events = effects.iter().filter_map(|effect| match effect {
        Effect::Event(event) => Some(event),
        _ => None,
    });
    events.collect()
}

#[test]
fn a_guest_that_panics_has_crashed_and_its_policy_follows() {
    let mut fed = with_policy(OnCrash::Preserve);
    let effects = fed.notice(ended(panicked()));
    fed.through(effects);
    assert_eq!(fed.actor.state(), DomainState::Panicked);
    assert_eq!(fed.actor.state().name(), "crashed");
    let failure = fed.actor.details(None).unwrap().last_failure.unwrap();
    assert_eq!(failure, "the guest crashed on vCPU 1: its kernel panicked");
    let effects = fed.ask(Request::Reset);
    called(&effects, WorkerCall::Reset);

    let mut fed = with_policy(OnCrash::Destroy);
    let effects = fed.notice(ended(panicked()));
    called(&effects, WorkerCall::Stop);
    assert!(events(&effects).contains(&&EventKind::Panicked));

    let mut fed = with_policy(OnCrash::Restart);
    let effects = fed.notice(ended(panicked()));
    fed.through(effects);
    let restarted = DomainState::Running(RunningReason::Restarted);
    assert_eq!(fed.actor.state(), restarted);
}

#[test]
fn a_crash_kernel_is_an_event_and_no_end() {
    let mut fed = with_policy(OnCrash::Destroy);
    let effects = fed.notice(Notice::CrashKernel);
    assert_eq!(events(&effects), [&EventKind::CrashKernel]);
    assert_eq!(fed.actor.state(), RUNNING);
}

#[test]
fn a_watchdog_that_pauses_says_so_and_its_domain_can_be_resumed() {
    let mut fed = with_policy(OnCrash::Destroy);
    let action = WatchdogAction::Pause;
    let effects = fed.notice(Notice::Watchdog(action));
    assert!(events(&effects).contains(&&EventKind::WatchdogExpired { action }));
    assert_eq!(fed.actor.state(), EXPIRED);
    let effects = fed.ask(Request::Resume);
    called(&effects, WorkerCall::Resume);
    fed.through(effects);
    let resumed = DomainState::Running(RunningReason::Unpaused);
    assert_eq!(fed.actor.state(), resumed);
}

#[test]
fn a_watchdog_that_expires_before_a_resume_is_answered_has_paused_it() {
    let mut fed = with_policy(OnCrash::Destroy);
    fed.notice(Notice::Watchdog(WatchdogAction::Pause));
    let effects = fed.ask(Request::Resume);
    let serial = called(&effects, WorkerCall::Resume);
    let effects = fed.notice(Notice::Watchdog(WatchdogAction::Pause));
    assert_eq!(answer(&effects), Some(Ok(())), "it was resumed");
    fed.feed(Input::Done(serial, Done::Called(Ok(()))));
    assert_eq!(fed.actor.state(), EXPIRED);
}

#[test]
fn a_watchdog_that_only_tells_changes_nothing() {
    for action in WatchdogAction::ALL {
        if *action != WatchdogAction::Pause {
            let mut fed = with_policy(OnCrash::Destroy);
            let effects = fed.notice(Notice::Watchdog(*action));
            let action = *action;
            assert_eq!(events(&effects), [&EventKind::WatchdogExpired { action }]);
            assert_eq!(fed.actor.state(), RUNNING);
        }
    }
}

#[test]
fn a_watchdog_is_not_detached_from_a_domain_that_runs() {
    let mut fed = with_policy(OnCrash::Destroy);
    let slot = PciSlot::try_from(30).unwrap();
    if let Some(live) = fed.actor.live_mut() {
        live.record.definition.devices.watchdog = Some(Watchdog {
            action: WatchdogAction::Reset,
            address: Some(slot),
        });
    }
    let effects = fed.ask(Request::Detach {
        device: DeviceName::Watchdog,
        force: true,
        live: true,
        persistent: false,
    });
    assert_eq!(answer(&effects), Some(Err(ApiErrorCode::Unsupported)));
}
