//! How busy the machine was with other things while we measured.
//!
//! CPU time of the whole machine from `/proc/stat`, less our own and our children's from
//! `getrusage(2)`, less that of kernel threads. Children count once they are reaped, so a span begins
//! and ends without any. Kernel threads are nobody's: they take our namespaces and machines apart as
//! well as others' files.

use std::fs;
use std::time::Instant;

use anyhow::{Context, ensure};

/// Foreign load beyond this share of the machine's CPU time is pointed out, in percent.
pub const FOREIGN_LIMIT_PERCENT: f64 = 10.0;

/// One moment's counters.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    at: Instant,
    busy_seconds: f64,
    kernel_seconds: f64,
    own_seconds: f64,
    cpus: usize,
}

/// What happened between two moments.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Span {
    /// CPU time of others, in percent of what the machine has.
    pub foreign_percent: f64,
    /// The span's length in seconds.
    pub seconds: f64,
}

impl Span {
    /// Whether others took so much that the figures are to be read with care.
    #[must_use]
    pub fn is_beside_foreign_load(&self) -> bool {
        self.foreign_percent > FOREIGN_LIMIT_PERCENT
    }
}

impl Load {
    /// The counters now.
    ///
    /// # Errors
    /// `/proc/stat` cannot be read.
    pub fn now() -> anyhow::Result<Self> {
        let stat = fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
        let ticks = u32::try_from(rustix::param::clock_ticks_per_second())?;
        let (busy_ticks, cpus) = busy(&stat)?;
        Ok(Self {
            at: Instant::now(),
            busy_seconds: busy_ticks / f64::from(ticks),
            kernel_seconds: kernel_thread_ticks()? / f64::from(ticks),
            own_seconds: own_seconds(),
            cpus,
        })
    }

    /// What happened since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Span {
        let seconds = self.at.duration_since(earlier.at).as_secs_f64();
        let busy = self.busy_seconds - earlier.busy_seconds;
        let own = self.own_seconds - earlier.own_seconds;
        // Less than nothing when a worker thread of the kernel ended with what it had.
        let kernel = (self.kernel_seconds - earlier.kernel_seconds).max(0.0);
        let all = seconds * u32::try_from(self.cpus).map_or(f64::INFINITY, f64::from);
        let foreign_percent = ((busy - own - kernel).max(0.0) / all * 100.0).min(100.0);
        Span {
            foreign_percent,
            seconds,
        }
    }
}

/// Ticks that all CPUs were busy, and how many CPUs there are (proc(5): user, nice, system, idle,
/// iowait, irq, softirq, steal; guest time is in user time already).
fn busy(stat: &str) -> anyhow::Result<(f64, usize)> {
    let line = stat.lines().next().unwrap_or_default();
    let fields: Vec<f64> = line
        .strip_prefix("cpu ")
        .context("/proc/stat does not begin with 'cpu'")?
        .split_whitespace()
        .map(str::parse)
        .collect::<Result<_, _>>()?;
    ensure!(fields.len() >= 8, "/proc/stat has {} fields", fields.len());
    let cpus = stat
        .lines()
        .skip(1)
        .take_while(|line| line.starts_with("cpu"))
        .count();
    let idle = fields[3] + fields[4];
    Ok((fields[..8].iter().sum::<f64>() - idle, cpus.max(1)))
}

/// Ticks of all kernel threads that live.
fn kernel_thread_ticks() -> anyhow::Result<f64> {
    let mut ticks = 0.0;
    for entry in fs::read_dir("/proc").context("cannot read /proc")? {
        let path = entry?.path();
        // Other entries have no such file; a thread that is gone has none any more.
        if let Ok(stat) = fs::read_to_string(path.join("stat")) {
            ticks += kernel_ticks(&stat).unwrap_or(0.0);
        }
    }
    Ok(ticks)
}

/// User and system ticks of one kernel thread, from its `stat` (proc_pid_stat(5)).
fn kernel_ticks(stat: &str) -> Option<f64> {
    /// `PF_KTHREAD` of the kernel's `sched.h`.
    const KERNEL_THREAD: u64 = 0x0020_0000;
    // The name may contain blanks and brackets; the state, the third field, follows its last one.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let flags: u64 = fields.get(9 - 3)?.parse().ok()?;
    if flags & KERNEL_THREAD == 0 {
        return None;
    }
    let user: f64 = fields.get(14 - 3)?.parse().ok()?;
    let system: f64 = fields.get(15 - 3)?.parse().ok()?;
    Some(user + system)
}

/// CPU seconds of this process and of its children that are gone.
#[expect(
    unsafe_code,
    reason = "getrusage(2) has no safe wrapper among our crates"
)]
fn own_seconds() -> f64 {
    [libc::RUSAGE_SELF, libc::RUSAGE_CHILDREN]
        .into_iter()
        .map(|who| {
            let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
            // SAFETY: the pointer is to a whole `rusage`, which the kernel fills.
            unsafe { libc::getrusage(who, usage.as_mut_ptr()) };
            // SAFETY: all of it was zeroed, which is a valid `rusage`, filled or not.
            let usage = unsafe { usage.assume_init() };
            seconds(usage.ru_utime) + seconds(usage.ru_stime)
        })
        .sum()
}

#[expect(clippy::cast_precision_loss, reason = "CPU seconds are far below 2^52")]
fn seconds(time: libc::timeval) -> f64 {
    time.tv_sec as f64 + time.tv_usec as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_time_is_all_but_idle_and_waiting() {
        let stat = "cpu  10 1 5 1000 50 2 3 4 9 9\ncpu0 1 2 3\ncpu1 1 2 3\nintr 5\n";
        assert_eq!(busy(stat).unwrap(), (25.0, 2));
        assert!(busy("cpu  1 2 3\n").is_err());
        assert!(busy("").is_err());
    }

    #[test]
    fn only_kernel_threads_are_told_apart() {
        let stat = |flags| format!("9 (kworker/u) x) I 2 0 0 0 -1 {flags} 0 0 0 0 3 40 0 0 20\n");
        assert_eq!(kernel_ticks(&stat(0x0420_8060)), Some(43.0));
        assert_eq!(kernel_ticks(&stat(0x0040_0100)), None);
        assert_eq!(kernel_ticks("9 (x)"), None);
    }

    #[test]
    fn our_own_and_the_kernels_work_is_not_foreign() {
        let before = Load {
            at: Instant::now(),
            busy_seconds: 100.0,
            kernel_seconds: 1.0,
            own_seconds: 10.0,
            cpus: 2,
        };
        let after = Load {
            at: before.at + std::time::Duration::from_secs(10),
            busy_seconds: 110.0,
            kernel_seconds: 2.0,
            own_seconds: 15.0,
            cpus: 2,
        };
        let span = after.since(&before);
        assert_eq!(span.foreign_percent, 20.0);
        assert!(span.is_beside_foreign_load());
    }
}
