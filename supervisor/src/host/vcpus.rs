//! The vCPU threads of a worker as the host sees them: bound to CPUs, under a limit of their own, and what
//! the kernel says of them.
//!
//! Runs in the supervisor, between a launch that was told to hold and the first resume: what a
//! definition says is in force before the guest's first instruction. A vCPU that comes later waits for its
//! guest to start it, and is put where it belongs meanwhile. A thread is known by its name,
//! `vcpu0` and so on, which the worker gave it before any guest byte was read.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use reeve_ipc::api::figures::{VcpuFigures, VcpuState};
use reeve_ipc::api::view::VcpuStats;
use reeve_ipc::model::{CpuSet, Domain, VcpuPin};
use reeve_sandbox::cgroup::{CgroupError, DomainCgroup};
use rustix::io::Errno;
use rustix::process::Pid;
use rustix::thread::sched_setaffinity;
use tokio::time::Instant;

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
    /// The kernel refused the limit.
    #[error("cannot limit the vCPUs: {0}")]
    Limit(#[from] CgroupError),
}

/// Whether anything is to be done for `domain` between launch and resume.
pub(crate) fn need_placing(domain: &Domain) -> bool {
    !domain.pinning.is_empty()
        || domain.limits.vcpu_percent.is_some()
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
    let wanted = domain.vcpus.count();
    let threads = wait_for(pid, wanted).await?;
    put(domain, &threads, cgroup)?;
    put_others(domain, pid)
}

/// As [`place`], of a machine that runs: those that are there now, some of which have just come.
pub(crate) fn place_present(
    domain: &Domain,
    pid: u32,
    cgroup: Option<&Path>,
) -> Result<(), VcpuError> {
    if need_placing(domain) {
        put(domain, &find(pid), cgroup)?;
    }
    Ok(())
}

/// As [`place`], of a machine that runs and may have been bound otherwise before: what is not bound any more may
/// run anywhere.
pub(crate) fn place_anew(
    domain: &Domain,
    pid: u32,
    cgroup: Option<&Path>,
) -> Result<(), VcpuError> {
    let threads = find(pid);
    for thread in threads.values().copied().chain(others(pid)) {
        // One that has ended, or is the kernel's own, is where it is.
        let _ = sched_setaffinity(Some(thread), &anywhere());
    }
    put(domain, &threads, cgroup)?;
    put_others(domain, pid)
}

/// Binds all threads of a worker but the vCPUs.
fn put_others(domain: &Domain, pid: u32) -> Result<(), VcpuError> {
    let Some(cpus) = &domain.tuning.emulator_cpus else {
        return Ok(());
    };
    let bind = |errno| VcpuError::BindEmulator {
        cpus: cpus.clone(),
        errno,
    };
    let set = kernel_set(cpus).ok_or_else(|| bind(Errno::RANGE))?;
    for thread in others(pid) {
        match sched_setaffinity(Some(thread), &set) {
            // It has ended, or is one of the kernel's own, as io_uring makes them, which binds them itself.
            Ok(()) | Err(Errno::SRCH) => {}
            Err(Errno::INVAL) if thread.as_raw_nonzero().get().unsigned_abs() != pid => {}
            Err(errno) => return Err(bind(errno)),
        }
    }
    Ok(())
}

/// Every CPU that the kernel can be told of.
fn anywhere() -> rustix::thread::CpuSet {
    let mut set = rustix::thread::CpuSet::new();
    (0..rustix::thread::CpuSet::MAX_CPU).for_each(|cpu| set.set(cpu));
    set
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

fn put(
    domain: &Domain,
    threads: &BTreeMap<u32, Pid>,
    cgroup: Option<&Path>,
) -> Result<(), VcpuError> {
    if domain.tuning.emulator_cpus.is_some() {
        // One that came later was born where the worker is.
        let is_bound = |vcpu: &u32| domain.pinning.iter().any(|pin| pin.vcpu == *vcpu);
        for (_, thread) in threads.iter().filter(|(vcpu, _)| !is_bound(vcpu)) {
            let _ = sched_setaffinity(Some(*thread), &anywhere());
        }
    }
    for pin in &domain.pinning {
        let bind = |errno| VcpuError::Bind {
            vcpu: pin.vcpu,
            cpus: pin.cpus.clone(),
            errno,
        };
        // One that is not there is bound when it comes.
        let Some(thread) = threads.get(&pin.vcpu).copied() else {
            continue;
        };
        let set = kernel_set(&pin.cpus).ok_or_else(|| bind(Errno::RANGE))?;
        sched_setaffinity(Some(thread), &set).map_err(bind)?;
    }
    if let (Some(_), Some(cgroup)) = (domain.limits.vcpu_percent, cgroup) {
        let cgroup = DomainCgroup::adopt(cgroup.to_owned())?;
        for thread in threads.values() {
            cgroup.limit_as_vcpu(thread.as_raw_nonzero().get().unsigned_abs())?;
        }
    }
    Ok(())
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

async fn wait_for(pid: u32, wanted: u32) -> Result<BTreeMap<u32, Pid>, VcpuError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let threads = find(pid);
        if (0..wanted).all(|vcpu| threads.contains_key(&vcpu)) {
            return Ok(threads);
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

/// Its other threads.
fn others(pid: u32) -> Vec<Pid> {
    let others = threads(pid).filter(|(vcpu, _)| vcpu.is_none());
    others.map(|(_, thread)| thread).collect()
}

/// All threads of a process, each with the number of its vCPU, if it is one's.
fn threads(pid: u32) -> impl Iterator<Item = (Option<u32>, Pid)> {
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
mod tests {
    use super::*;

    #[test]
    fn books_of_a_thread_are_read_as_the_kernel_writes_them() {
        assert_eq!(scheduled("123 45 6\n"), Some((123, Some(45))));
        assert_eq!(scheduled("123"), Some((123, None)));
        assert_eq!(scheduled(""), None);
        assert_eq!(scheduled("x 1 2"), None);
    }

    #[test]
    fn a_thread_called_as_a_vcpu_has_figures_and_others_have_none() {
        let (ready, started) = std::sync::mpsc::sync_channel(0);
        let (end, ended) = std::sync::mpsc::sync_channel::<()>(0);
        let thread = std::thread::Builder::new().name("vcpu1021".to_owned());
        let thread = thread
            .spawn(move || {
                ready.send(()).unwrap();
                let _ = ended.recv();
            })
            .unwrap();
        started.recv().unwrap();
        let stats = stats(std::process::id(), 1022);
        let one = stats.iter().find(|one| one.vcpu == 1021);
        assert!(one.is_some_and(|one| one.run_ns > 0), "{stats:?}");
        let figures = figures(std::process::id(), 1022);
        let one = figures.iter().find(|one| one.stats.vcpu == 1021).unwrap();
        assert_eq!(one.state, VcpuState::Blocked, "it waits for this test");
        assert!(one.cpu.is_some() && one.stats.run_ns > 0, "{one:?}");
        assert!(
            super::stats(std::process::id(), 1021)
                .iter()
                .all(|one| one.vcpu < 1021)
        );
        drop(end);
        thread.join().unwrap();
        assert_eq!(super::stats(u32::MAX, 1024), []);
    }

    #[test]
    fn a_cpu_that_the_host_lacks_is_named() {
        let pin = |cpus: &str| {
            vec![VcpuPin {
                vcpu: 1,
                cpus: cpus.parse().unwrap(),
            }]
        };
        let online: CpuSet = "0-3".parse().unwrap();
        assert!(check_against(&pin("0,3"), &online).is_ok());
        let error = check_against(&pin("2-5"), &online).unwrap_err();
        assert_eq!(
            error.to_string(),
            "vCPU 1 is bound to CPU 4, which this host does not have (it has 0-3)"
        );
    }

    #[tokio::test]
    async fn threads_are_found_by_name() {
        let thread = std::thread::Builder::new().name("vcpu7".to_owned());
        let (stop, stopped) = std::sync::mpsc::sync_channel::<()>(0);
        let thread = thread.spawn(move || stopped.recv()).unwrap();
        let deadline = Instant::now() + PATIENCE;
        while !find(std::process::id()).contains_key(&7) {
            assert!(Instant::now() < deadline);
            tokio::time::sleep(LOOK).await;
        }
        drop(stop);
        let _ = thread.join().unwrap();
    }
}
