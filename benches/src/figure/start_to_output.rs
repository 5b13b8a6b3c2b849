//! `start_to_output`: milliseconds from the accepted request to start a domain until the first byte
//! that its guest prints has been read.
//!
//! The built-in guest prints it as its third instruction, so the guest's own part is one port write.
//! The request is accepted, for Reeve, when the supervisor's library is called: the worker's spawn,
//! its whole sandbox, the machine's building and the image's loading are in the figure, and nothing
//! is prepared. For the floor and the peers the clock starts just before their process is spawned.
//! The guest's power-off and the process' end follow untimed before the next sample.

use super::{Group, Kind, Rounds, Target, interleave, milliseconds};
use crate::contender::Guest;

/// The figure.
pub const GROUP: Group = Group {
    kinds: &[Kind {
        name: "start_to_output",
        unit: "ms",
        less_is_better: true,
        target: Some(Target::TimesFloor(2.5)),
    }],
    take: |field, samples| {
        let rounds = Rounds {
            count: samples,
            peers_every: 10,
            warm_up: 5,
        };
        interleave(field, GROUP.kinds, rounds, |contender| {
            let running = contender.start(Guest::Bench)?;
            let first_byte = running.first_byte();
            running.wait()?;
            Ok(vec![milliseconds(first_byte)])
        })
    },
};
