//! Phases and operations agree with each other.

use crate::phase::Phase;
use crate::request::Operation;

/// Where an operation leaves a worker that was in `phase` and obeyed; `None` for the process's end.
fn outcomes(operation: Operation, phase: Phase) -> Vec<Option<Phase>> {
    match operation {
        Operation::Launch => vec![Some(Phase::Running), Some(Phase::Paused)],
        Operation::Resume => vec![Some(Phase::Running)],
        Operation::Pause => vec![Some(Phase::Paused)],
        Operation::Reset if matches!(phase, Phase::Off | Phase::Crashed) => {
            vec![Some(Phase::Paused)]
        }
        Operation::TakeOver => vec![Some(Phase::Paused)],
        // As it was where it was handed over; the giver ends, or goes on as before.
        Operation::SwitchOver => vec![Some(Phase::Running), Some(Phase::Paused)],
        Operation::HandOver => vec![None, Some(phase)],
        Operation::Stop => vec![None],
        Operation::PowerButton
        | Operation::Reset
        | Operation::ConsoleAttach
        | Operation::Query
        | Operation::Report
        | Operation::DeviceAttach
        | Operation::DeviceDetach
        | Operation::DeviceUpdate
        | Operation::DeviceQuery
        | Operation::VcpusSet
        | Operation::VcpusQuery
        | Operation::MediumChange
        | Operation::PortAttach
        | Operation::PortDetach
        | Operation::AcceptorSet
        | Operation::NmiInject
        | Operation::Peek
        | Operation::DiskQuery => {
            vec![Some(phase)]
        }
    }
}

#[test]
fn every_legal_request_leads_where_the_phases_allow() {
    for &operation in Operation::ALL {
        for phase in Phase::ALL {
            if !operation.is_legal_in(phase) {
                continue;
            }
            for next in outcomes(operation, phase).into_iter().flatten() {
                assert!(
                    next == phase || phase.may_become(next),
                    "{} in '{phase}' leads to '{next}', which the phases forbid",
                    operation.name(),
                );
            }
        }
    }
}

#[test]
fn every_step_between_phases_has_a_request_or_is_the_guests_own() {
    for from in Phase::ALL {
        for to in Phase::ALL {
            let ended = matches!(to, Phase::Off | Phase::Crashed);
            // Its end, also one on the way to a pause; or a reset of it that failed.
            let guests_own = matches!(from, Phase::Running | Phase::Paused) && ended
                || (from, to) == (Phase::Off, Phase::Crashed);
            let requested = Operation::ALL.iter().any(|operation| {
                operation.is_legal_in(from) && outcomes(*operation, from).contains(&Some(to))
            });
            if from != to {
                assert_eq!(
                    from.may_become(to),
                    guests_own || requested,
                    "'{from}' to '{to}'"
                );
            }
        }
    }
}

#[test]
fn no_phase_leads_to_itself_or_back_before_launch() {
    for phase in Phase::ALL {
        assert!(!phase.may_become(phase), "{phase}");
        assert!(!phase.may_become(Phase::AwaitingLaunch), "{phase}");
    }
}

#[test]
fn every_phase_is_reached_from_the_first() {
    let mut reached = vec![Phase::AwaitingLaunch];
    let mut next = 0;
    while let Some(&from) = reached.get(next) {
        next += 1;
        for to in Phase::ALL {
            if from.may_become(to) && !reached.contains(&to) {
                reached.push(to);
            }
        }
    }
    assert_eq!(reached.len(), Phase::ALL.len());
}

#[test]
fn a_worker_can_be_asked_and_ended_in_every_phase() {
    for phase in Phase::ALL {
        assert!(Operation::Stop.is_legal_in(phase), "{phase}");
        assert!(Operation::Query.is_legal_in(phase), "{phase}");
    }
}

#[test]
fn a_machine_is_launched_once_and_touched_only_when_it_exists() {
    for phase in Phase::ALL {
        assert_eq!(
            Operation::Launch.is_legal_in(phase),
            !phase.has_machine(),
            "{phase}"
        );
        for operation in [
            Operation::Resume,
            Operation::Pause,
            Operation::PowerButton,
            Operation::Reset,
            Operation::ConsoleAttach,
            Operation::DeviceAttach,
            Operation::DeviceDetach,
            Operation::DeviceUpdate,
            Operation::DeviceQuery,
            Operation::HandOver,
            Operation::SwitchOver,
        ] {
            assert!(
                phase.has_machine() || !operation.is_legal_in(phase),
                "{phase}"
            );
        }
    }
}

#[test]
fn an_idempotent_request_may_be_repeated_where_it_leads() {
    for &operation in Operation::ALL {
        if !operation.is_idempotent() {
            continue;
        }
        for phase in Phase::ALL {
            if !operation.is_legal_in(phase) {
                continue;
            }
            for next in outcomes(operation, phase).into_iter().flatten() {
                assert!(
                    operation.is_legal_in(next),
                    "{} in '{phase}'",
                    operation.name()
                );
                assert_eq!(
                    outcomes(operation, next),
                    vec![Some(next)],
                    "{}",
                    operation.name()
                );
            }
        }
    }
}

#[test]
fn operations_have_names_of_their_own() {
    let mut names: Vec<_> = Operation::ALL
        .iter()
        .map(|operation| operation.name())
        .collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), Operation::ALL.len());
}
