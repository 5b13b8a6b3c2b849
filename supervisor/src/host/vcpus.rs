//! The vCPU threads of a worker as the host sees them: bound to CPUs, under a limit of their own, and what
//! the kernel says of them.
//!
//! Runs in the supervisor, between a launch that was told to hold and the first resume: what a
//! definition says is in force before the guest's first instruction. A vCPU that comes later waits for its
//! guest to start it, and is put where it belongs meanwhile. A thread is known by its name,
//! `vcpu0` and so on, which the worker gave it before any guest byte was read.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;

use reeve_ipc::api::figures::{VcpuFigures, VcpuState};
use reeve_ipc::api::view::VcpuStats;
use reeve_ipc::model::{CpuSet, Domain, VcpuPin};
use reeve_sandbox::cgroup::{CgroupError, DomainCgroup};
use rustix::io::Errno;
use rustix::process::Pid;
use rustix::thread::{sched_getaffinity, sched_setaffinity};
use tokio::time::Instant;

use super::confinement::of_each_vcpu;
use super::process;

/// How long the threads may take to have their names: each gives itself its own.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often is looked.
const LOOK: Duration = Duration::from_millis(1);
/// The CPUs of the host that run.
const ONLINE: &str = "/sys/devices/system/cpu/online";

/// Why vCPUs are not where the definition wants them.
#[derive(Debug, thiserror::Error)]
pub enum VcpuError {
    /// A definition binds a vCPU to what is not there.
    #[error("vCPU {vcpu} is bound to CPU {cpu}, which this host does not have (it has {online})")]
    NoSuchCpu {
        /// The vCPU.
        vcpu: u32,
        /// The first CPU that is missing.
        cpu: u32,
        /// What there is.
        online: String,
    },
    /// A definition binds the worker's other threads to what is not there.
    #[error("the worker is bound to CPU {cpu}, which this host does not have (it has {online})")]
    NoSuchEmulatorCpu {
        /// The first CPU that is missing.
        cpu: u32,
        /// What there is.
        online: String,
    },
    /// The kernel refused to bind those.
    #[error("cannot bind the worker to CPUs {cpus}: {}", super::reason(*.errno))]
    BindEmulator {
        /// Where they were to run.
        cpus: CpuSet,
        /// Why.
        errno: Errno,
    },
    /// The worker lacks threads.
    #[error("the worker has {found} of {wanted} vCPU threads")]
    Threads {
        /// How many were found.
        found: usize,
        /// How many there should be.
        wanted: u32,
    },
    /// The kernel refused a binding.
    #[error("cannot bind vCPU {vcpu} to CPUs {cpus}: {}", super::reason(*.errno))]
    Bind {
        /// The vCPU.
        vcpu: u32,
        /// Where it was to run.
        cpus: CpuSet,
        /// Why.
        errno: Errno,
    },
    /// It has ended meanwhile.
    #[error("the worker is gone")]
    Gone,
    /// The kernel refused the limit.
    #[error("cannot limit the vCPUs: {0}")]
    Limit(#[from] CgroupError),
}

/// Whether anything is to be done for `domain` between launch and resume.
pub(crate) fn need_placing(domain: &Domain) -> bool {
    !domain.pinning.is_empty()
        || domain.limits.vcpu_percent.is_some()
        || domain.tuning.vcpu_quota.is_some()
        || domain.tuning.emulator_cpus.is_some()
}

/// Refuses a binding to a CPU that the host does not have.
pub(crate) fn check(domain: &Domain) -> Result<(), VcpuError> {
    let emulator = domain.tuning.emulator_cpus.as_ref();
    if domain.pinning.is_empty() && emulator.is_none() {
        return Ok(());
    }
    // Without /sys the kernel's own answer has to do.
    let online = fs::read_to_string(ONLINE).unwrap_or_default();
    match online.trim().parse::<CpuSet>() {
        Ok(online) => {
            let missing = emulator.and_then(|cpus| missing(cpus, &online));
            match missing {
                Some(cpu) => Err(VcpuError::NoSuchEmulatorCpu {
                    cpu,
                    online: online.to_string(),
                }),
                None => check_against(&domain.pinning, &online),
            }
        }
        Err(_) => Ok(()),
    }
}

/// The first CPU of a set that is not there.
fn missing(cpus: &CpuSet, online: &CpuSet) -> Option<u32> {
    cpus.iter()
        .find(|cpu| !online.iter().any(|present| present == *cpu))
}

fn check_against(pinning: &[VcpuPin], online: &CpuSet) -> Result<(), VcpuError> {
    for pin in pinning {
        if let Some(cpu) = missing(&pin.cpus, online) {
            return Err(VcpuError::NoSuchCpu {
                vcpu: pin.vcpu,
                cpu,
                online: online.to_string(),
            });
        }
    }
    Ok(())
}

/// Binds and limits the vCPUs of the worker `pid`, whose machine holds; `cgroup` is its own, where it
/// has one.
pub(crate) async fn place(
    domain: &Domain,
    pid: u32,
    cgroup: Option<&Path>,
) -> Result<(), VcpuError> {
    wait_for(pid, domain.vcpus.count()).await?;
    let cgroup = cgroup.map(|path| DomainCgroup::adopt(path.to_owned()));
    let cgroup = cgroup.transpose()?;
    let threads: Vec<_> = threads(pid).collect();
    // Nobody has reaped it, so that these are its threads' numbers and no others'.
    put(domain, None, &threads, pid, || true)?;
    limit(domain, None, &threads, cgroup.as_ref())
}

/// As [`place`], of the vCPUs of a machine that runs: those that are there now, some of which have just come.
/// `process` is the pidfd of `pid`. The kernel may take its time for it.
pub(crate) fn place_present(
    domain: &Domain,
    (pid, process): (u32, BorrowedFd<'_>),
    cgroup: Option<&DomainCgroup>,
) -> Result<(), VcpuError> {
    if !need_placing(domain) {
        return Ok(());
    }
    let mut threads = living_threads(pid, process)?;
    threads.retain(|(vcpu, _)| vcpu.is_some());
    put(domain, None, &threads, pid, || !process::has_ended(process))?;
    limit(domain, None, &threads, cgroup)
}

/// As [`place_present`], of all threads of a machine that may have been bound otherwise: `before` is what it was
/// bound by, if that is known. Only threads whose place is another are touched; what is not bound any more may
/// run where this process could at its start.
pub(crate) fn place_anew(
    domain: &Domain,
    before: Option<&Domain>,
    (pid, process): (u32, BorrowedFd<'_>),
    cgroup: Option<&DomainCgroup>,
) -> Result<(), VcpuError> {
    let threads = living_threads(pid, process)?;
    put(domain, before, &threads, pid, || {
        !process::has_ended(process)
    })?;
    limit(domain, before, &threads, cgroup)
}

/// Where a vCPU of the domain runs, or with none of the others of its worker's threads; anywhere if there is no
/// such place.
fn place_of(domain: &Domain, vcpu: Option<u32>) -> Option<&CpuSet> {
    match vcpu {
        Some(vcpu) => {
            let pin = domain.pinning.iter().find(|pin| pin.vcpu == vcpu);
            pin.map(|pin| &pin.cpus)
        }
        None => domain.tuning.emulator_cpus.as_ref(),
    }
}

/// Has each of the threads of the worker `pid` where the definition wants it, but for those that it wants where
/// the one before did. Before each it is asked whether the worker `lives`: of one that does not the numbers of its
/// threads may be others'.
fn put(
    domain: &Domain,
    before: Option<&Domain>,
    threads: &[Thread],
    pid: u32,
    lives: impl Fn() -> bool,
) -> Result<(), VcpuError> {
    for (vcpu, thread) in threads {
        let wanted = place_of(domain, *vcpu);
        if before.is_some_and(|before| place_of(before, *vcpu) == wanted) {
            continue;
        }
        if !lives() {
            return Err(VcpuError::Gone);
        }
        let Some(cpus) = wanted else {
            if !is_at(*thread, own_cpus()) {
                // One that has ended, or is the kernel's own, is where it is.
                let _ = sched_setaffinity(Some(*thread), own_cpus());
            }
            continue;
        };
        let bound = match kernel_set(cpus) {
            Some(set) if is_at(*thread, &set) => Ok(()),
            Some(set) => sched_setaffinity(Some(*thread), &set),
            None => Err(Errno::RANGE),
        };
        let cpus = || cpus.clone();
        match (bound, vcpu) {
            (Ok(()), _) => {}
            (Err(errno), Some(vcpu)) => {
                let (vcpu, cpus) = (*vcpu, cpus());
                return Err(VcpuError::Bind { vcpu, cpus, errno });
            }
            // It has ended, or is one of the kernel's own, as io_uring makes them, which binds them itself.
            (Err(Errno::SRCH), None) => {}
            (Err(Errno::INVAL), None) if number(*thread) != pid => {}
            (Err(errno), None) => {
                let cpus = cpus();
                return Err(VcpuError::BindEmulator { cpus, errno });
            }
        }
    }
    Ok(())
}

/// Moves vCPUs under the limits of their own, of all or of each, where the definition has some and the one before had
/// not the same kinds of them.
fn limit(
    domain: &Domain,
    before: Option<&Domain>,
    threads: &[Thread],
    cgroup: Option<&DomainCgroup>,
) -> Result<(), VcpuError> {
    let kinds = |domain: &Domain| {
        let (all, each) = (domain.limits.vcpu_percent, domain.tuning.vcpu_quota);
        (all.is_some(), each.is_some())
    };
    let wanted = kinds(domain);
    let had = before.is_some_and(|before| kinds(before) == wanted);
    if let ((true, _) | (_, true), Some(cgroup), false) = (wanted, cgroup, had) {
        let each = domain.tuning.vcpu_quota.map(of_each_vcpu);
        for (vcpu, thread) in threads {
            if let Some(vcpu) = vcpu {
                cgroup.limit_as_vcpu(number(*thread), *vcpu, each)?;
            }
        }
    }
    Ok(())
}

/// The CPUs that this process may run on, as they were when this was called first: at its start.
pub(crate) fn own_cpus() -> &'static rustix::thread::CpuSet {
    static OWN: LazyLock<rustix::thread::CpuSet> = LazyLock::new(|| {
        sched_getaffinity(None).unwrap_or_else(|_| {
            let mut all = rustix::thread::CpuSet::new();
            (0..rustix::thread::CpuSet::MAX_CPU).for_each(|cpu| all.set(cpu));
            all
        })
    });
    &OWN
}

/// Whether a thread may run on exactly these.
fn is_at(thread: Pid, cpus: &rustix::thread::CpuSet) -> bool {
    sched_getaffinity(Some(thread)).is_ok_and(|now| now == *cpus)
}

fn kernel_set(cpus: &CpuSet) -> Option<rustix::thread::CpuSet> {
    let mut set = rustix::thread::CpuSet::new();
    for cpu in cpus.iter() {
        let cpu = usize::try_from(cpu).unwrap_or(usize::MAX);
        if cpu >= rustix::thread::CpuSet::MAX_CPU {
            return None;
        }
        set.set(cpu);
    }
    Some(set)
}

fn number(thread: Pid) -> u32 {
    thread.as_raw_nonzero().get().unsigned_abs()
}

/// What the kernel's books say of the vCPUs of the worker `pid`, by rising number; none of a process that
/// is gone.
pub(crate) fn stats(pid: u32, possible: u32) -> Vec<VcpuStats> {
    let threads = find(pid).into_iter();
    let possible = threads.filter(|(vcpu, _)| *vcpu < possible);
    possible
        .filter_map(|(vcpu, thread)| {
            let task = format!("/proc/{pid}/task/{}", thread.as_raw_nonzero());
            one(vcpu, &task)
        })
        .collect()
}

fn one(vcpu: u32, task: &str) -> Option<VcpuStats> {
    let (run_ns, wait_ns) = match fs::read_to_string(format!("{task}/schedstat")) {
        Ok(books) => scheduled(&books)?,
        // A kernel without these books.
        Err(_) => (process::usage(&format!("{task}/stat"))?.0, None),
    };
    Some(VcpuStats {
        vcpu,
        run_ns,
        wait_ns,
    })
}

/// As [`stats`], with what each does just now, and where.
pub(crate) fn figures(pid: u32, possible: u32) -> Vec<VcpuFigures> {
    let threads = find(pid).into_iter();
    let possible = threads.filter(|(vcpu, _)| *vcpu < possible);
    possible
        .filter_map(|(vcpu, thread)| {
            let task = format!("/proc/{pid}/task/{}", thread.as_raw_nonzero());
            let account = process::account(&format!("{task}/stat"))?;
            Some(VcpuFigures {
                stats: one(vcpu, &task)?,
                state: match account.runs {
                    true => VcpuState::Running,
                    false => VcpuState::Blocked,
                },
                cpu: account.cpu,
            })
        })
        .collect()
}

/// Time on a CPU and time waiting for one, in nanoseconds (Documentation/scheduler/sched-stats.rst, `/proc/PID/schedstat`).
fn scheduled(books: &str) -> Option<(u64, Option<u64>)> {
    let mut numbers = books.split_ascii_whitespace();
    let run = numbers.next()?.parse().ok()?;
    Some((run, numbers.next().and_then(|wait| wait.parse().ok())))
}

async fn wait_for(pid: u32, wanted: u32) -> Result<(), VcpuError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let threads = find(pid);
        if (0..wanted).all(|vcpu| threads.contains_key(&vcpu)) {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(VcpuError::Threads {
                found: threads.len(),
                wanted,
            });
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// The vCPU threads of a process, by the vCPU's number.
fn find(pid: u32) -> BTreeMap<u32, Pid> {
    let threads = threads(pid);
    threads
        .filter_map(|(vcpu, thread)| Some((vcpu?, thread)))
        .collect()
}

/// A thread of a worker, with the number of its vCPU, if it is one's.
type Thread = (Option<u32>, Pid);

/// All threads of a process that lives: of another one that has its pid by now there are none here.
fn living_threads(pid: u32, process: BorrowedFd<'_>) -> Result<Vec<Thread>, VcpuError> {
    let threads = threads(pid).collect();
    match process::has_ended(process) {
        true => Err(VcpuError::Gone),
        false => Ok(threads),
    }
}

fn threads(pid: u32) -> impl Iterator<Item = Thread> {
    let entries = fs::read_dir(format!("/proc/{pid}/task"));
    entries.into_iter().flatten().flatten().filter_map(|entry| {
        let thread: i32 = entry.file_name().to_str()?.parse().ok()?;
        let name = fs::read_to_string(entry.path().join("comm")).ok()?;
        let vcpu = name.trim_end().strip_prefix("vcpu");
        let vcpu = vcpu.and_then(|number| number.parse().ok());
        Some((vcpu, Pid::from_raw(thread)?))
    })
}

#[cfg(test)]
mod tests;
