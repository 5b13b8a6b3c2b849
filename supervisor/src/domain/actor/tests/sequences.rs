//! Whatever it is fed, in whatever order, the actor answers each request once at most, has one worker
//! at most, and is silent when it is retired.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::domain::driver::{CallFailure, GuestMemory, StartFailure, StartFailureKind, Verdict};

/// Something to feed it with; outcomes are of what it waits for, and now and then of nothing.
#[derive(Debug, Clone)]
enum Food {
    Request(usize),
    /// The outcome of the oldest, the newest or no effect that waits for one; how it came out.
    Outcome(u8, u8),
    Notice(u8, u32),
    Timer(bool, u32),
    SessionEnded,
}

fn food() -> impl Strategy<Value = Food> {
    prop_oneof![
        4 => (0..23_usize).prop_map(Food::Request),
        6 => (0..3_u8, 0..6_u8).prop_map(|(which, how)| Food::Outcome(which, how)),
        3 => (0..13_u8, 0..4_u32).prop_map(|(what, id)| Food::Notice(what, id)),
        1 => (any::<bool>(), 0..4_u32).prop_map(|(which, id)| Food::Timer(which, id)),
        1 => Just(Food::SessionEnded),
    ]
}

fn outcome(effect: &Effect, how: u8) -> Option<Input> {
    let failure = || StartFailure {
        kind: StartFailureKind::Worker,
        message: "it died".to_owned(),
    };
    let done = match (effect, how) {
        (Effect::SetTimer(timer, _), _) => return Some(Input::Timer(*timer)),
        (Effect::AskDevices(number, id), _) => {
            let there = (1..how.max(2)).map(devices::at);
            let told = Notice::Devices(*number, there.collect());
            return Some(Input::Notice(*id, told));
        }
        (_, 0..3) => return success(effect),
        (
            Effect::WriteRecord(serial, _)
            | Effect::RemoveRecord(serial)
            | Effect::WriteStatus(Some(serial), ..),
            _,
        ) => (*serial, Done::Written(Err("no space left".to_owned()))),
        (Effect::Start { serial, .. }, _) => (*serial, Done::Started(Err(failure()))),
        (Effect::Adopt { serial, .. }, 3) => (*serial, Done::Adopted(Adopted::NeverLaunched)),
        (Effect::Adopt { serial, .. }, _) => (
            *serial,
            Done::Adopted(Adopted::Gone("it is gone".to_owned())),
        ),
        (Effect::Call(serial, ..) | Effect::Device(serial, ..), 3) => {
            (*serial, Done::Called(Err(CallFailure::Deadline)))
        }
        (Effect::Call(serial, ..) | Effect::Device(serial, ..), _) => {
            (*serial, Done::Called(Err(CallFailure::Gone)))
        }
        _ => return None,
    };
    Some(Input::Done(done.0, done.1))
}

fn notice(what: u8) -> Notice {
    match what {
        0 => ended(GuestEnd::PoweredOff),
        1 => ended(GuestEnd::Reset),
        2 => Notice::Reset(1),
        3 => Notice::Silent,
        4 => Notice::Responsive {
            phase: Phase::Running,
            resets: 1,
            end: None,
        },
        5..8 => Notice::DeviceRemoved(devices::at(what - 4)),
        8 => Notice::Memory(GuestMemory {
            lent: 1 << 20,
            plugged: 0,
        }),
        9 => vcpus::stands(2, 2),
        10 => vcpus::stands(1, 2),
        11 => Notice::Lost,
        _ => Notice::Gone(Verdict::Asked),
    }
}

fn input(food: &Food, pending: &mut Vec<Effect>, ticket: &mut u64) -> Option<Input> {
    match food {
        Food::Request(column) => {
            *ticket += 1;
            let request = requests().into_iter().nth(*column)?;
            Some(Input::Request(Ticket(*ticket), request))
        }
        Food::Outcome(2, _) => Some(Input::Done(999, Done::Written(Ok(())))),
        Food::Outcome(which, how) => {
            let index = if *which == 0 {
                0
            } else {
                pending.len().checked_sub(1)?
            };
            if pending.len() <= index {
                return None;
            }
            outcome(&pending.remove(index), *how)
        }
        Food::Notice(what, id) => Some(Input::Notice(*id, notice(*what))),
        Food::Timer(true, id) => Some(Input::Timer(Timer::DestroyAcknowledged(*id))),
        Food::Timer(false, id) => {
            let (id, at_boot_ms) = (*id, 1_200 + u64::from(*id) * 50);
            Some(Input::Timer(Timer::ShutdownDeadline { id, at_boot_ms }))
        }
        Food::SessionEnded => Some(Input::SessionEnded(SessionId(1))),
    }
}

fn check(mut fed: Fed, meal: &[Food], first: Vec<Effect>) {
    let (mut pending, mut ticket) = (first, 0);
    let mut answered = BTreeSet::new();
    for food in meal {
        let before = fed.actor.state();
        let retired = fed.actor.is_retired();
        let Some(input) = input(food, &mut pending, &mut ticket) else {
            continue;
        };
        fed.now_ms += 50;
        let effects = fed.feed(input);
        assert!(!retired || effects.is_empty(), "retired: {effects:?}");
        let told = effects.iter().any(|effect| {
            matches!(effect, Effect::Event(EventKind::State(state)) if *state == fed.actor.state())
        });
        assert_eq!(told, before != fed.actor.state(), "{effects:?}");
        for effect in effects {
            match &effect {
                Effect::Answer(ticket, _) => {
                    assert!(answered.insert(*ticket), "{ticket:?} is answered twice");
                }
                Effect::Start { .. } => {
                    let live = fed
                        .actor
                        .summary()
                        .is_some_and(|summary| summary.id.is_some());
                    assert!(live && fed.actor.state().is_active());
                }
                _ => {}
            }
            if outcome(&effect, 5).is_some() {
                pending.push(effect);
            }
        }
        assert_eq!(
            fed.actor.is_retired(),
            fed.actor.job_kind().is_none() && fed.actor.summary().is_none()
        );
    }
    // When all that it waits for comes, all that it was asked is answered.
    while let Some(effect) = pending.pop() {
        let done = outcome(&effect, 5)
            .map(|input| fed.feed(input))
            .unwrap_or_default();
        for effect in done {
            if let Effect::Answer(ticket, _) = &effect {
                assert!(answered.insert(*ticket), "{ticket:?} is answered twice");
            }
            pending.push(effect);
        }
    }
    let id = fed.actor.summary().and_then(|summary| summary.id);
    assert!(fed.actor.job_kind().is_none(), "a job never ends: {id:?}");
}

proptest! {
    #[test]
    fn a_new_domain_keeps_the_rules(meal in prop::collection::vec(food(), 1..60)) {
        check(Fed::new(), &meal, Vec::new());
    }

    #[test]
    fn a_found_domain_keeps_the_rules(
        meal in prop::collection::vec(food(), 1..60),
        restart in any::<bool>(),
        stopping in any::<bool>(),
        auto_destroy in any::<bool>(),
    ) {
        let mut fed = Fed::recovered(Intents {
            stopping: stopping.then_some(ShutOffReason::Shutdown),
            restart_after_resets: restart.then_some(0),
            auto_destroy,
            ..Intents::default()
        });
        let effects = fed.feed(Input::Recover);
        check(fed, &meal, effects);
    }

    #[test]
    fn admission_takes_whatever_it_is_asked(
        state in prop::sample::select(&STATES[..]),
        bits in 0..16_u8,
        job in prop::option::of(prop::sample::select(&JOBS[..])),
        column in 0..18_usize,
    ) {
        let standing = Standing {
            name: Some("web".parse().unwrap()).filter(|_| bits & 8 == 0),
            state,
            starting: false,
            persistent: bits & 1 != 0,
            exists: bits & 2 != 0,
            reaping: bits & 4 != 0,
            job,
        };
        let judged = letters(&standing).chars().nth(column).unwrap();
        if can_be(&standing) && job.is_none() {
            let row = row(state, bits & 1 != 0, bits & 2 != 0, bits & 4 != 0);
            prop_assert_eq!(Some(judged), row.chars().nth(column));
        }
    }
}
