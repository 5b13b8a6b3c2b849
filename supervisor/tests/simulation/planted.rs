//! Bugs that are planted to see whether the simulation finds them: those in what stands for the
//! host here, those of the actor in the library (feature `fault-points`).

#[cfg(feature = "fault-points")]
use reeved::domain::actor::planted::Bug;

/// A bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Planted {
    /// A record is acknowledged and still on its way to the disk.
    AcknowledgesBeforeWritten,
    /// The status of a worker that is gone stays.
    KeepsTheStatus,
    /// A uid is not given back.
    KeepsTheUid,
    /// A supervisor that starts does not look for workers.
    ForgetsWorkers,
    /// What a kill hits lives on.
    KillsNothing,
    /// A bug of the actor's own.
    #[cfg(feature = "fault-points")]
    Actor(Bug),
}

/// One test for each: within so many seeds it breaks an invariant.
macro_rules! found {
    ($($name:ident: $bug:expr, within $within:literal;)+) => {
        $(
            #[test]
            fn $name() {
                crate::must_find($bug, $within);
            }
        )+
    };
}

found! {
    finds_a_record_acknowledged_before_it_is_written:
        Planted::AcknowledgesBeforeWritten, within 20;
    finds_a_status_that_stays: Planted::KeepsTheStatus, within 20;
    finds_a_uid_that_is_not_given_back: Planted::KeepsTheUid, within 20;
    finds_a_supervisor_that_does_not_look_for_workers: Planted::ForgetsWorkers, within 100;
    finds_a_kill_that_kills_nothing: Planted::KillsNothing, within 20;
}

#[cfg(feature = "fault-points")]
found! {
    finds_a_job_that_is_forgotten: Planted::Actor(Bug::ForgetsWaiting), within 20;
    finds_an_answer_before_the_write: Planted::Actor(Bug::AnswersBeforeWritten), within 20;
    finds_a_failed_write_taken_for_done: Planted::Actor(Bug::IgnoresTheDisk), within 100;
    finds_a_status_that_the_actor_leaves: Planted::Actor(Bug::KeepsTheStatus), within 20;
    finds_an_end_that_nobody_finishes: Planted::Actor(Bug::ForgetsTheIntent), within 200;
    finds_a_policy_that_is_not_applied: Planted::Actor(Bug::ForgetsTheEnd), within 20;
    finds_a_destroy_that_waits: Planted::Actor(Bug::DestroyWaits), within 2_000;
    finds_a_domain_that_outlives_its_client: Planted::Actor(Bug::OutlivesTheClient), within 100;
    finds_a_domain_that_outlives_the_host: Planted::Actor(Bug::OutlivesTheHost), within 1_000;
    finds_a_domain_started_twice: Planted::Actor(Bug::StartsTwice), within 100;
    finds_a_state_that_nobody_is_told: Planted::Actor(Bug::TellsNobody), within 20;
    finds_resets_that_are_not_known: Planted::Actor(Bug::ForgetsResets), within 1_000;
    finds_devices_that_are_gone_and_stay: Planted::Actor(Bug::ForgetsDevices), within 100;
    finds_devices_that_nobody_looks_for: Planted::Actor(Bug::ForgetsSilentDevices), within 1_000;
}
