//! A domain's state in libvirt's numbers (`virDomainState` and the reasons of each). Pure.

use reeve_ipc::api::view::{
    DomainState, DomainSummary, PausedReason, RunningReason, ShutOffReason,
};

/// Its vCPUs run.
pub(super) const RUNNING: i32 = 1;
/// It stands.
pub(super) const PAUSED: i32 = 3;
/// It is off.
pub(super) const SHUT_OFF: i32 = 5;
/// Its guest crashed.
pub(super) const CRASHED: i32 = 6;

/// The state and its reason.
///
/// A domain that was asked to shut down runs until its guest has: libvirt says nothing else of it.
pub(super) const fn numbers(state: DomainState) -> (i32, i32) {
    match state {
        DomainState::Running(RunningReason::Unpaused) => (RUNNING, 5),
        DomainState::Running(
            RunningReason::Booted | RunningReason::Restarted | RunningReason::Adopted,
        )
        | DomainState::ShuttingDown => (RUNNING, 1),
        DomainState::Paused(PausedReason::User) => (PAUSED, 1),
        DomainState::Paused(PausedReason::StartingUp) => (PAUSED, 11),
        DomainState::Paused(PausedReason::Adopted) => (PAUSED, 0),
        DomainState::Paused(PausedReason::Watchdog) => (PAUSED, 6),
        DomainState::Paused(PausedReason::PoweredOff) => (PAUSED, 8),
        DomainState::ShutOff(ShutOffReason::Unknown) => (SHUT_OFF, 0),
        DomainState::ShutOff(ShutOffReason::Shutdown) => (SHUT_OFF, 1),
        DomainState::ShutOff(ShutOffReason::Destroyed) => (SHUT_OFF, 2),
        DomainState::ShutOff(ShutOffReason::Crashed) => (SHUT_OFF, 3),
        DomainState::ShutOff(ShutOffReason::Failed) => (SHUT_OFF, 6),
        DomainState::Crashed => (CRASHED, 0),
        DomainState::Panicked => (CRASHED, 1),
    }
}

/// Its number as a handle has it: -1 while it is off.
pub(super) fn id(summary: &DomainSummary) -> i32 {
    id_of(summary.id)
}

/// As [`id`].
pub(crate) fn id_of(id: Option<u32>) -> i32 {
    id.and_then(|id| i32::try_from(id).ok()).unwrap_or(-1)
}

/// An amount in libvirt's unit, whole KiB.
pub(crate) const fn kib(bytes: u64) -> u64 {
    bytes >> 10
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_and_reasons_have_libvirts_numbers() {
        let table = [
            (DomainState::Running(RunningReason::Booted), (1, 1)),
            (DomainState::Running(RunningReason::Unpaused), (1, 5)),
            (DomainState::ShuttingDown, (1, 1)),
            (DomainState::Paused(PausedReason::User), (3, 1)),
            (DomainState::Paused(PausedReason::StartingUp), (3, 11)),
            (DomainState::Paused(PausedReason::Watchdog), (3, 6)),
            (DomainState::ShutOff(ShutOffReason::Unknown), (5, 0)),
            (DomainState::ShutOff(ShutOffReason::Shutdown), (5, 1)),
            (DomainState::ShutOff(ShutOffReason::Destroyed), (5, 2)),
            (DomainState::ShutOff(ShutOffReason::Crashed), (5, 3)),
            (DomainState::ShutOff(ShutOffReason::Failed), (5, 6)),
            (DomainState::Crashed, (6, 0)),
            (DomainState::Panicked, (6, 1)),
        ];
        for (state, expected) in table {
            assert_eq!(numbers(state), expected, "{state:?}");
        }
    }

    #[test]
    fn a_domain_that_is_off_has_no_number() {
        assert_eq!(id_of(None), -1);
        assert_eq!(id_of(Some(7)), 7);
        assert_eq!(id_of(Some(u32::MAX)), -1);
    }
}
