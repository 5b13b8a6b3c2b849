//! Memory that the kernel holds for machines, processes and namespaces.

use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::Context;

/// Counters of `/proc/meminfo` (proc_meminfo(5)), in KiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostMemory {
    /// What the kernel has for itself and cannot give back: slabs, `vmalloc` (kernel stacks are in
    /// it), page tables, second-level page tables of KVM, per-CPU memory. Pages that a driver takes
    /// one by one are in no counter.
    pub kernel_kib: u64,
    /// Shared memory, memfds among it.
    pub shared_kib: u64,
}

impl HostMemory {
    /// The counters now.
    ///
    /// # Errors
    /// `/proc/meminfo` cannot be read.
    pub fn now() -> anyhow::Result<Self> {
        let meminfo = fs::read_to_string("/proc/meminfo").context("cannot read /proc/meminfo")?;
        Self::parse(&meminfo)
    }

    /// The counters once the kernel has done what it does late: machines and namespaces are taken
    /// apart by its own threads after their processes are gone. Its memory then stands still; five
    /// seconds at most.
    ///
    /// # Errors
    /// As [`Self::now`].
    pub fn settled() -> anyhow::Result<Self> {
        /// Between two looks, how many in a row must show the same, and what the same is.
        const BETWEEN: Duration = Duration::from_millis(100);
        const STILL: u32 = 3;
        const SAME_KIB: u64 = 512;
        let begun = Instant::now();
        let mut memory = Self::now()?;
        let mut still = 0;
        while still < STILL && begun.elapsed() < Duration::from_secs(5) {
            sleep(BETWEEN);
            let before = memory.kernel_kib;
            memory = Self::now()?;
            let is_same = memory.kernel_kib.abs_diff(before) <= SAME_KIB;
            still = if is_same { still + 1 } else { 0 };
        }
        Ok(memory)
    }

    fn parse(meminfo: &str) -> anyhow::Result<Self> {
        // Older kernels lack some of them.
        let kernel_kib = [
            "SUnreclaim",
            "VmallocUsed",
            "PageTables",
            "SecPageTables",
            "Percpu",
        ]
        .iter()
        .filter_map(|name| field_kib(meminfo, name))
        .sum();
        let shared_kib = field_kib(meminfo, "Shmem").context("no Shmem in /proc/meminfo")?;
        Ok(Self {
            kernel_kib,
            shared_kib,
        })
    }
}

/// Anonymous pages of this very process, in KiB: the supervisor's part in a domain.
///
/// # Errors
/// `/proc/self/status` cannot be read.
pub fn own_anonymous_kib() -> anyhow::Result<u64> {
    let status = fs::read_to_string("/proc/self/status").context("cannot read own status")?;
    field_kib(&status, "RssAnon").context("no RssAnon in /proc/self/status")
}

fn field_kib(text: &str, name: &str) -> Option<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .and_then(|value| value.trim().strip_suffix(" kB")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_memory_is_the_sum_of_what_it_cannot_give_back() {
        let meminfo = "MemTotal: 1000 kB\nShmem:   30 kB\nSReclaimable: 20 kB\nSUnreclaim: 5 kB\n\
                       KernelStack: 9 kB\nPageTables: 6 kB\nVmallocTotal: 9999 kB\n\
                       VmallocUsed: 100 kB\nPercpu: 2 kB\n";
        let memory = HostMemory::parse(meminfo).unwrap();
        assert_eq!((memory.kernel_kib, memory.shared_kib), (113, 30));
        assert!(HostMemory::parse("SUnreclaim: 5 kB\n").is_err());
    }

    #[test]
    fn this_process_has_memory_of_its_own() {
        assert!(own_anonymous_kib().unwrap() > 0);
    }
}
