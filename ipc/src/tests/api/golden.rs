//! The bytes of every message of the native API. Changing these means raising [`API`]: a program that
//! was built with an earlier version still speaks the old ones.
//!
//! They are in two files beside this one, `name: bytes` a line, in the order of the samples.

use super::samples::from_client;
use super::supervisor_samples::{JOBS, STATES, to_client};
use crate::api::call::Operation;
use crate::api::message::{FromClient, ToClient};
use crate::api::view::{
    DomainState as State, JobKind as Job, PausedReason as Paused, RunningReason as Running,
    ShutOffReason as Off,
};
use crate::api::{API, ApiVersion};
use crate::tests::golden::compare;

const FROM_CLIENT: &str = include_str!("from_client.golden");
const TO_CLIENT: &str = include_str!("to_client.golden");

fn lines(text: &str) -> Vec<(&str, &str)> {
    text.lines()
        .map(|line| line.rsplit_once(": ").unwrap())
        .collect()
}

#[test]
fn the_golden_bytes_are_of_this_version() {
    assert_eq!(
        API,
        ApiVersion(1),
        "new golden bytes belong to a new version"
    );
}

#[test]
fn what_a_client_says_has_its_golden_bytes() {
    compare(&from_client(), &lines(FROM_CLIENT), "API");
}

#[test]
fn what_a_supervisor_says_has_its_golden_bytes() {
    compare(&to_client(), &lines(TO_CLIENT), "API");
}

#[test]
fn every_call_has_a_golden_request_and_a_golden_answer() {
    for operation in Operation::ALL {
        assert!(
            from_client().iter().any(|(_, message)| {
                matches!(message, FromClient::Call { body, .. } if body.operation() == *operation)
            }),
            "no call to {}",
            operation.name(),
        );
        assert!(
            to_client().iter().any(|(_, message)| {
                matches!(
                    message,
                    ToClient::Reply { result: Ok(body), .. } if body.operation() == *operation
                )
            }),
            "no answer to {}",
            operation.name(),
        );
    }
}

#[test]
fn every_state_and_job_has_golden_bytes() {
    // A new one does not compile here until it stands in its list, and so in the samples.
    for state in STATES {
        match state {
            State::Running(
                Running::Booted | Running::Unpaused | Running::Restarted | Running::Adopted,
            )
            | State::Paused(
                Paused::StartingUp
                | Paused::User
                | Paused::PoweredOff
                | Paused::Adopted
                | Paused::Watchdog,
            )
            | State::ShuttingDown
            | State::ShutOff(
                Off::Unknown | Off::Shutdown | Off::Destroyed | Off::Crashed | Off::Failed,
            )
            | State::Crashed
            | State::Panicked => {}
        }
    }
    for job in JOBS {
        match job {
            Job::Define
            | Job::Start
            | Job::Shutdown
            | Job::Reboot
            | Job::Reset
            | Job::Pause
            | Job::Resume
            | Job::Destroy
            | Job::Undefine
            | Job::Adopt
            | Job::Policy
            | Job::Attach
            | Job::Detach
            | Job::Update
            | Job::Upgrade
            | Job::SetVcpus
            | Job::Tune => {}
        }
    }
}

/// A supervisor of any version must know a client of any other by its first bytes, and a client be
/// told so: these three never change.
#[test]
fn the_greeting_has_the_same_form_in_every_version() {
    let golden = |text, name: &str| {
        let line = lines(text).into_iter().find(|line| line.0 == name);
        line.unwrap().1
    };
    // Hello: variant 0, version 1, five bytes of a name.
    assert_eq!(golden(FROM_CLIENT, "hello"), "0001057265657665");
    // Welcome: variant 0, version 1, nine bytes of a build, access 1.
    let welcome = golden(TO_CLIENT, "welcome");
    assert_eq!(welcome, "000109302e312e302b61626301");
    // Refused: variant 1, code 5, two bytes of a message.
    assert_eq!(golden(TO_CLIENT, "refused"), "0105026e6f");
}
