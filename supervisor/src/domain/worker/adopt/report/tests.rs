//! What a report must be to be believed, and what it tells.

use reeve_ipc::event::NumberedEvent;

use super::*;

fn standing(phase: Phase, events: &[Event]) -> Standing {
    let numbered = (1..).zip(events).map(|(number, event)| NumberedEvent {
        number,
        event: event.clone(),
    });
    Standing {
        phase,
        digest: Some(SpecDigest([1; 16])),
        boot_protocol: None,
        resets: 0,
        last_event: events.len() as u64,
        events: numbered.collect(),
        last_request: None,
        console_position: 0,
        told: 0,
    }
}

#[test]
fn what_nobody_was_told_of_is_told_at_the_adoption_and_nothing_twice() {
    let panicked = Event::GuestCrashed(CrashReport {
        vcpu: 0,
        cause: CrashCause::Panicked,
        registers: None,
    });
    let action = reeve_ipc::spec::WatchdogAction::Pause;
    let events = [
        Event::GuestCrashKernel,
        Event::WatchdogExpired { action },
        Event::GuestReset { count: 1 },
        panicked,
        Event::PhaseChanged(Phase::Crashed),
    ];
    let all = [
        Notice::CrashKernel,
        Notice::Watchdog(action),
        Notice::Panicked,
    ];
    for (told, missed) in [
        (0, 0),
        (1, 1),
        (2, 2),
        (3, 2),
        (4, 3),
        (5, 3),
        (u64::MAX, 3),
    ] {
        let mut report = standing(Phase::Crashed, &events);
        report.told = told;
        assert_eq!(missed_of(&report), all[missed..], "{told}");
    }
}

#[test]
fn a_report_of_another_launch_or_without_a_machine_is_not_believed() {
    let fine = standing(Phase::Running, &[]);
    assert!(check(&fine, SpecDigest([1; 16])).is_ok());
    assert!(check(&fine, SpecDigest([2; 16])).is_err());
    let none = Standing {
        digest: None,
        ..fine.clone()
    };
    assert!(check(&none, SpecDigest([0; 16])).is_err());
    let waiting = standing(Phase::AwaitingLaunch, &[]);
    assert!(check(&waiting, SpecDigest([1; 16])).is_err());
}

#[test]
fn events_are_numbered_in_order_up_to_the_last() {
    let off = [Event::GuestPoweredOff, Event::PhaseChanged(Phase::Off)];
    let mut report = standing(Phase::Off, &off);
    assert!(check(&report, SpecDigest([1; 16])).is_ok());
    report.last_event = 1;
    assert!(check(&report, SpecDigest([1; 16])).is_err());
    let mut report = standing(Phase::Off, &off);
    report.events.reverse();
    assert!(check(&report, SpecDigest([1; 16])).is_err());
}

#[test]
fn the_last_end_tells_why_a_machine_stands() {
    let off = Event::PhaseChanged(Phase::Off);
    let events = [Event::GuestPoweredOff, Event::GuestWantsReset, off];
    assert_eq!(
        end_of(&standing(Phase::Off, &events)),
        Some(GuestEnd::Reset)
    );
    assert_eq!(end_of(&standing(Phase::Running, &events)), None);
    assert_eq!(
        end_of(&standing(Phase::Off, &[])),
        Some(GuestEnd::PoweredOff)
    );
    assert!(matches!(
        end_of(&standing(Phase::Crashed, &events)),
        Some(GuestEnd::Crashed(_))
    ));
}
