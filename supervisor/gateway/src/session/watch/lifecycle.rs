//! What a change of state is in libvirt's events of kind 0 (`virDomainEventType` and the details of each). Pure.

use reeve_ipc::api::view::{DomainState, PausedReason, RunningReason, ShutOffReason};

/// An event and its detail.
pub(super) type Lifecycle = (i32, i32);

/// Its definition is kept, for the first time.
pub(super) const DEFINED: Lifecycle = (0, 0);
/// Another definition is kept.
pub(super) const REDEFINED: Lifecycle = (0, 1);
/// Its definition is kept under this name now.
pub(super) const DEFINED_RENAMED: Lifecycle = (0, 2);
/// Its definition is gone.
pub(super) const UNDEFINED: Lifecycle = (1, 0);
/// Its definition is not kept under this name any more.
pub(super) const UNDEFINED_RENAMED: Lifecycle = (1, 1);
const STARTED: Lifecycle = (2, 0);
const SUSPENDED: Lifecycle = (3, 0);
const SUSPENDED_WATCHDOG: Lifecycle = (3, 3);
const RESUMED: Lifecycle = (4, 0);
/// The event after which the domain has no number.
pub(super) const STOPPED: i32 = 5;
const SHUT_DOWN_BY_GUEST: Lifecycle = (6, 1);
const SHUT_DOWN_BY_HOST: Lifecycle = (6, 2);
/// Its guest's kernel panicked.
pub(super) const PANICKED: Lifecycle = (8, 0);
/// Its guest's kernel panicked, and another one was loaded.
pub(super) const CRASH_LOADED: Lifecycle = (8, 1);

/// The events of a change from `before` to `after`; `None` before is a domain that was off.
pub(super) fn events(before: Option<DomainState>, after: DomainState) -> &'static [Lifecycle] {
    use DomainState::{Crashed, Panicked, Paused, Running, ShutOff, ShuttingDown};
    let begins = matches!(
        before,
        None | Some(ShutOff(_) | Paused(PausedReason::StartingUp))
    );
    let runs = matches!(before, Some(Running(_) | ShuttingDown));
    // Whether its guest is there and has not ended of itself.
    let lives = runs
        || matches!(
            before,
            Some(Paused(
                PausedReason::User | PausedReason::Adopted | PausedReason::Watchdog
            ))
        );
    match after {
        // One that a new supervisor found did not start.
        Running(RunningReason::Adopted) => &[],
        Running(_) if begins => &[STARTED],
        Running(_) if runs => &[],
        Running(_) => &[RESUMED],
        Paused(PausedReason::User) if begins => &[STARTED, SUSPENDED],
        Paused(PausedReason::User) if runs => &[SUSPENDED],
        Paused(PausedReason::Watchdog) if lives => &[SUSPENDED_WATCHDOG],
        Paused(PausedReason::PoweredOff) if lives => &[SHUT_DOWN_BY_GUEST],
        Crashed => &[PANICKED],
        // Told by an event of its own, before.
        Panicked | Paused(_) | ShuttingDown => &[],
        ShutOff(_) if before.is_none_or(|before| !before.is_active()) => &[],
        ShutOff(reason) => match (reason, lives) {
            (ShutOffReason::Shutdown, true) => &[SHUT_DOWN_BY_GUEST, (STOPPED, 0)],
            (ShutOffReason::Shutdown | ShutOffReason::Unknown, _) => &[(STOPPED, 0)],
            (ShutOffReason::Destroyed, true) => &[SHUT_DOWN_BY_HOST, (STOPPED, 1)],
            (ShutOffReason::Destroyed, false) => &[(STOPPED, 1)],
            (ShutOffReason::Crashed, _) => &[(STOPPED, 2)],
            (ShutOffReason::Failed, _) => &[(STOPPED, 5)],
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOOTED: DomainState = DomainState::Running(RunningReason::Booted);
    const UNPAUSED: DomainState = DomainState::Running(RunningReason::Unpaused);
    const STARTING: DomainState = DomainState::Paused(PausedReason::StartingUp);
    const USER: DomainState = DomainState::Paused(PausedReason::User);

    fn off(reason: ShutOffReason) -> DomainState {
        DomainState::ShutOff(reason)
    }

    #[test]
    fn a_start_is_one_event_and_a_paused_start_two() {
        assert_eq!(events(None, STARTING), []);
        assert_eq!(events(Some(STARTING), BOOTED), [(2, 0)]);
        assert_eq!(events(Some(STARTING), USER), [(2, 0), (3, 0)]);
        assert_eq!(events(Some(STARTING), off(ShutOffReason::Failed)), [(5, 5)]);
    }

    #[test]
    fn pausing_and_resuming_are_told_once() {
        assert_eq!(events(Some(BOOTED), USER), [(3, 0)]);
        assert_eq!(events(Some(USER), UNPAUSED), [(4, 0)]);
        assert_eq!(events(Some(USER), USER), []);
        assert_eq!(events(Some(BOOTED), UNPAUSED), []);
        assert_eq!(events(Some(BOOTED), DomainState::ShuttingDown), []);
        assert_eq!(
            events(Some(BOOTED), DomainState::Paused(PausedReason::Watchdog)),
            [(3, 3)]
        );
    }

    #[test]
    fn a_destroy_of_a_guest_that_runs_is_a_pair() {
        let destroyed = off(ShutOffReason::Destroyed);
        for before in [BOOTED, UNPAUSED, USER, DomainState::ShuttingDown] {
            assert_eq!(events(Some(before), destroyed), [(6, 2), (5, 1)]);
        }
        for before in [STARTING, DomainState::Crashed, DomainState::Panicked] {
            assert_eq!(events(Some(before), destroyed), [(5, 1)]);
        }
        assert_eq!(events(None, destroyed), []);
    }

    #[test]
    fn a_guest_that_powers_off_is_a_pair_and_one_that_crashes_is_not() {
        assert_eq!(
            events(Some(BOOTED), off(ShutOffReason::Shutdown)),
            [(6, 1), (5, 0)]
        );
        assert_eq!(events(Some(BOOTED), off(ShutOffReason::Crashed)), [(5, 2)]);
        assert_eq!(events(Some(BOOTED), DomainState::Crashed), [(8, 0)]);
        let kept = DomainState::Paused(PausedReason::PoweredOff);
        assert_eq!(events(Some(BOOTED), kept), [(6, 1)]);
        assert_eq!(events(Some(kept), off(ShutOffReason::Destroyed)), [(5, 1)]);
    }

    #[test]
    fn a_domain_that_a_new_supervisor_found_did_not_start() {
        let adopted = DomainState::Running(RunningReason::Adopted);
        assert_eq!(events(None, adopted), []);
    }
}
