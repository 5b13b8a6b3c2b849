//! `host_memory_per_domain_100`: host memory that each of 100 idle domains takes, in KiB, kernel
//! memory included.
//!
//! The sum, by 100, of what grows from none to 100 domains asleep in `hlt`: the processes' anonymous
//! pages; shared memory (images in memfds); the kernel's own memory, by its counters
//! ([`HostMemory`]): KVM's structures, page tables, stacks, namespaces, sockets, filters; and the
//! supervisor's anonymous pages. The guests' own pages are taken off and are a figure of their own,
//! `guest_pages_per_domain_100`. Pages of executables count for nothing: all domains share them, and
//! the kernel can drop them.
//!
//! The sum is taken by kind, and not as a difference of free memory, since nothing an unrelated
//! process holds for itself is then in it; what the kernel holds for such processes is, so p90 tells
//! how far the rounds lay apart.

use super::{Group, Kind, Rounds, interleave};
use crate::contender::{Contender, Guest};
use crate::memory::{HostMemory, ProcessMemory, own_anonymous_kib};

/// How many run at once.
const AT_ONCE: usize = 100;

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
            count: samples.div_ceil(70),
            peers_every: 5,
            warm_up: 0,
        };
        interleave(field, GROUP.kinds, rounds, per_domain)
    },
};

fn per_domain(contender: &mut dyn Contender) -> anyhow::Result<Vec<f64>> {
    let before = HostMemory::settled()?;
    let supervisor_before = own_anonymous_kib()?;
    let running = (0..AT_ONCE)
        .map(|_| contender.start(Guest::Hold))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let after = HostMemory::settled()?;
    let supervisor = growth(supervisor_before, own_anonymous_kib()?)?;
    let mut anonymous = 0;
    let mut guests = 0;
    let mut guests_in_shared = 0;
    for domain in &running {
        let memory = ProcessMemory::of(domain.pid())?;
        anonymous += memory.anonymous_kib;
        guests += memory.guest_kib;
        guests_in_shared += memory.guest_kib * u64::from(memory.guest_is_shared);
    }
    for domain in running {
        domain.destroy()?;
    }
    let kernel = growth(before.kernel_kib, after.kernel_kib)?;
    let shared = growth(before.shared_kib + guests_in_shared, after.shared_kib)?;
    let all = growth(0, anonymous)? + supervisor + kernel + shared;
    Ok(vec![all / 100.0, growth(0, guests)? / 100.0])
}

/// What was added, or with others' help taken away.
fn growth(before_kib: u64, after_kib: u64) -> anyhow::Result<f64> {
    let growth = i64::try_from(after_kib)? - i64::try_from(before_kib)?;
    Ok(f64::from(i32::try_from(growth)?))
}
