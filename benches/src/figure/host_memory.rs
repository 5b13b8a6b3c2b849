//! `host_memory_per_domain_100`: host memory that each of 100 idle domains takes, in KiB, kernel
//! memory included.
//!
//! Memory in use on the host (`/proc/meminfo`, [`host_used_kib`]) with 100 domains asleep in `hlt`,
//! less what was in use before, less the guests' own pages, by 100: processes, their page tables and
//! stacks, KVM's structures, namespaces, sockets, and what the supervisor keeps for each. The guests'
//! pages are a figure of their own, `guest_pages_per_domain_100`: they belong to the guest.
//!
//! This counts the whole host. What unrelated processes hold for themselves is taken off on both
//! occasions, but what the kernel holds for them is not, so they disturb it: the median of several
//! rounds is taken, and p90 tells how far they lay apart.

use std::thread::sleep;
use std::time::Duration;

use anyhow::Context;

use super::{Group, Kind, Rounds, interleave};
use crate::contender::{Contender, Guest};
use crate::memory::{ProcessMemory, host_used_kib, wait_until_settled};
use crate::stats::Samples;

/// How many run at once.
const AT_ONCE: usize = 100;
/// Readings at rest, of which the median counts, and the time between two of them.
const READINGS: usize = 9;
const BETWEEN: Duration = Duration::from_millis(20);

/// The figures.
pub const GROUP: Group = Group {
    kinds: &[
        Kind {
            name: "host_memory_per_domain_100",
            unit: "KiB",
            less_is_better: true,
            target: None,
        },
        Kind {
            name: "guest_pages_per_domain_100",
            unit: "KiB",
            less_is_better: true,
            target: None,
        },
    ],
    take: |field, samples| {
        let rounds = Rounds {
            count: samples.div_ceil(40),
            peers_every: 5,
            warm_up: 0,
        };
        interleave(field, GROUP.kinds, rounds, per_domain)
    },
};

fn per_domain(contender: &mut dyn Contender) -> anyhow::Result<Vec<f64>> {
    let before = used_at_rest()?;
    let running = (0..AT_ONCE)
        .map(|_| contender.start(Guest::Hold))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let used = used_at_rest()? - before;
    let mut guests = 0;
    for domain in &running {
        guests += ProcessMemory::of(domain.pid())?.guest_kib;
    }
    for domain in running {
        domain.destroy()?;
    }
    let guests = kib(guests)?;
    Ok(vec![(used - guests) / 100.0, guests / 100.0])
}

/// The host's memory in use, after a while without change by us.
fn used_at_rest() -> anyhow::Result<f64> {
    wait_until_settled()?;
    let readings = (0..READINGS)
        .map(|_| {
            sleep(BETWEEN);
            kib(host_used_kib()?)
        })
        .collect::<anyhow::Result<Samples>>()?;
    let summary = readings.summary(true).context("no readings")?;
    Ok(summary.median)
}

/// KiB of a host's memory are far below 2^52.
fn kib(kib: u64) -> anyhow::Result<f64> {
    #[expect(clippy::cast_precision_loss, reason = "checked to be exact")]
    let value = kib as f64;
    anyhow::ensure!(kib < 1 << 52, "{kib} KiB is no host's memory");
    Ok(value)
}
