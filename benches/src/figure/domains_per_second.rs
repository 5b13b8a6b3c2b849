//! `domains_per_second_1` and `_8`: domains started and ended a second, one at a time and eight at a
//! time.
//!
//! A domain counts from the request to start it until its guest has powered off, its process is
//! reaped and everything of it is released; the next request comes when one of those that run has
//! ended. A sample is a batch, and its value the batch's size by the time from the first request to
//! the last end. Eight at a time are, for Reeve, eight requests to one supervisor on one thread; the
//! floor and the peers get one waiting thread each.

use super::{Figure, Group, Kind, Rounds, Target, interleave};
use crate::contender::Field;

/// Domains in a batch of Reeve and the floor, and of a peer.
const BATCH: usize = 32;
const PEER_BATCH: usize = 8;

/// One at a time.
pub const ONE: Group = Group {
    kinds: &[Kind {
        name: "domains_per_second_1",
        unit: "1/s",
        less_is_better: false,
        target: Some(Target::AtLeast(400.0)),
    }],
    take: |field, samples| take(field, samples, ONE.kinds, 1),
};

/// Eight at a time.
pub const EIGHT: Group = Group {
    kinds: &[Kind {
        name: "domains_per_second_8",
        unit: "1/s",
        less_is_better: false,
        target: None,
    }],
    take: |field, samples| take(field, samples, EIGHT.kinds, 8),
};

fn take(
    field: &mut Field,
    samples: usize,
    kinds: &[Kind],
    at_once: usize,
) -> anyhow::Result<Vec<Figure>> {
    let rounds = Rounds {
        count: samples.div_ceil(10),
        peers_every: 10,
        warm_up: 1,
    };
    let own = [field.reeve.name(), field.floor.name()];
    interleave(field, kinds, rounds, |contender| {
        let batch = if own.contains(&contender.name()) {
            BATCH
        } else {
            PEER_BATCH
        };
        let elapsed = contender.run_many(batch, at_once)?;
        Ok(vec![
            f64::from(u32::try_from(batch)?) / elapsed.as_secs_f64(),
        ])
    })
}
