//! `worker_pss_20` and `worker_private_dirty_20`: what the process of an idle domain takes, in KiB,
//! its guest's memory apart; the mean over 20 that run at once.
//!
//! Proportional set size and private dirty pages from `/proc/PID/smaps`, summed over all mappings
//! but the guest's memory. Twenty at once share the executable's pages, as a host's domains do; page
//! tables and other kernel memory are in `host_memory_per_domain_100`. The guest sleeps in `hlt`. For
//! Reeve the worker is counted and the supervisor, which is one for all, is not.

use std::thread::sleep;
use std::time::Duration;

use super::{Group, Kind, Rounds, Target, interleave};
use crate::contender::{Contender, Guest};
use crate::memory::ProcessMemory;

/// How many run at once.
const AT_ONCE: usize = 20;
/// Time for the last of them to come to rest.
const SETTLE: Duration = Duration::from_millis(100);

/// The figures.
pub const GROUP: Group = Group {
    kinds: &[
        Kind {
            name: "worker_pss_20",
            unit: "KiB",
            less_is_better: true,
            target: Some(Target::AtMost(350.0)),
        },
        Kind {
            name: "worker_private_dirty_20",
            unit: "KiB",
            less_is_better: true,
            target: Some(Target::AtMost(220.0)),
        },
    ],
    take: |field, samples| {
        let rounds = Rounds {
            count: samples.div_ceil(50),
            peers_every: 4,
            warm_up: 0,
        };
        interleave(field, GROUP.kinds, rounds, means)
    },
};

fn means(contender: &mut dyn Contender) -> anyhow::Result<Vec<f64>> {
    let running = (0..AT_ONCE)
        .map(|_| contender.start(Guest::Hold))
        .collect::<anyhow::Result<Vec<_>>>()?;
    sleep(SETTLE);
    let mut pss = 0;
    let mut private_dirty = 0;
    for domain in &running {
        let memory = ProcessMemory::of(domain.pid())?;
        pss += memory.pss_kib;
        private_dirty += memory.private_dirty_kib;
    }
    for domain in running {
        domain.destroy()?;
    }
    let mean = |kib: u64| anyhow::Ok(f64::from(u32::try_from(kib)?) / 20.0);
    Ok(vec![mean(pss)?, mean(private_dirty)?])
}
