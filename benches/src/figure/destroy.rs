//! `destroy`: milliseconds from the request to destroy a domain until its process is gone.
//!
//! The guest has printed its bytes and sleeps in `hlt`. Reeve's figure is the supervisor's own
//! `destroy`: `SIGKILL` by pidfd, the end seen, the process reaped, its uid released. The floor is a
//! process with the same KVM objects (one VM, one vCPU, one slot of the same size, split interrupt
//! controller) that gets the same signal and is reaped: what the kernel itself takes. Peers are
//! killed the same way.

use std::thread::sleep;
use std::time::Duration;

use super::{Group, Kind, Rounds, Target, interleave, milliseconds};
use crate::contender::Guest;

/// Time for the second byte and the `hlt`.
const SETTLE: Duration = Duration::from_millis(5);

/// The figure.
pub const GROUP: Group = Group {
    kinds: &[Kind {
        name: "destroy",
        unit: "ms",
        less_is_better: true,
        target: Some(Target::TimesFloor(3.0)),
    }],
    take: |field, samples| {
        let rounds = Rounds {
            count: samples.div_ceil(2),
            peers_every: 10,
            warm_up: 3,
        };
        interleave(field, GROUP.kinds, rounds, |contender| {
            let running = contender.start(Guest::Hold)?;
            sleep(SETTLE);
            Ok(vec![milliseconds(running.destroy()?)])
        })
    },
};
