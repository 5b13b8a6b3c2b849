//! The CPU time of a process by thread: `/proc/PID/task/TID/schedstat`, in nanoseconds on a CPU.
//!
//! Time in the guest and in the kernel counts, and so do the kernel's own threads that serve the process'
//! io_uring. A thread that is running is up to a tick behind, so that both readings are taken while the guest
//! sleeps.

use std::fs;
use std::time::Duration;

use anyhow::Context;

/// CPU time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CpuTime {
    /// Of all threads.
    pub all: Duration,
    /// Of those that run vCPUs, in the guest and around it.
    pub vcpus: Duration,
}

impl CpuTime {
    /// That of a process so far, but for threads that have ended.
    ///
    /// # Errors
    /// It is gone.
    pub fn of(pid: u32) -> anyhow::Result<Self> {
        let mut sum = Self::default();
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            let path = task?.path();
            let (Ok(name), Ok(stat)) = (
                fs::read_to_string(path.join("comm")),
                fs::read_to_string(path.join("schedstat")),
            ) else {
                // A thread that ended just now.
                continue;
            };
            let first = stat.split_whitespace().next();
            let time = Duration::from_nanos(first.context("schedstat is empty")?.parse()?);
            sum.all += time;
            if is_vcpu(&name) {
                sum.vcpus += time;
            }
        }
        Ok(sum)
    }

    /// What was spent since `earlier`.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            all: self.all.saturating_sub(earlier.all),
            vcpus: self.vcpus.saturating_sub(earlier.vcpus),
        }
    }
}

/// Whether a thread of that name runs a vCPU: Reeve's are `vcpu0` and on, QEMU's `CPU 0/KVM` and on.
fn is_vcpu(name: &str) -> bool {
    name.starts_with("vcpu") || name.starts_with("CPU ")
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Barrier};

    use rustix::time::{ClockId, clock_gettime};

    use super::*;

    #[test]
    fn threads_that_run_vcpus_are_told_apart() {
        let before = CpuTime::of(std::process::id()).unwrap();
        let spun = Arc::new(Barrier::new(4));
        let spin = |name: &str| {
            let spun = Arc::clone(&spun);
            std::thread::Builder::new()
                .name(name.to_owned())
                .spawn(move || {
                    let used = || clock_gettime(ClockId::ThreadCPUTime);
                    // However seldom it has a processor.
                    while used().tv_sec == 0 && used().tv_nsec < 50_000_000 {}
                    spun.wait();
                    // Not gone before it was looked at.
                    spun.wait();
                })
                .unwrap()
        };
        let threads = [spin("vcpu0"), spin("CPU 0/KVM"), spin("io")];
        spun.wait();
        let spent = CpuTime::of(std::process::id()).unwrap().since(before);
        spun.wait();
        // They were up to a tick behind.
        assert!(spent.vcpus > Duration::from_millis(70), "{spent:?}");
        assert!(
            spent.all > spent.vcpus + Duration::from_millis(30),
            "{spent:?}"
        );
        for thread in threads {
            thread.join().unwrap();
        }
    }
}
