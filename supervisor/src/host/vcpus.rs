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
    let threads: Vec<_> = threads(pid).collect();
    put(domain, None, &threads, pid)?;
    limit(domain, None, &threads, cgroup)
}

/// As [`place`], of the vCPUs of a machine that runs: those that are there now, some of which have just come.
/// `process` is the pidfd of `pid`. The kernel may take its time for it.
pub(crate) fn place_present(
    domain: &Domain,
    (pid, process): (u32, BorrowedFd<'_>),
    cgroup: Option<&Path>,
) -> Result<(), VcpuError> {
    if !need_placing(domain) {
        return Ok(());
    }
    let mut threads = living_threads(pid, process)?;
    threads.retain(|(vcpu, _)| vcpu.is_some());
    put(domain, None, &threads, pid)?;
    limit(domain, None, &threads, cgroup)
}

/// As [`place_present`], of all threads of a machine that may have been bound otherwise: `before` is what it was
/// bound by, if that is known. Only threads whose place is another are touched; what is not bound any more may
/// run where this process could at its start.
pub(crate) fn place_anew(
    domain: &Domain,
    before: Option<&Domain>,
    (pid, process): (u32, BorrowedFd<'_>),
    cgroup: Option<&Path>,
) -> Result<(), VcpuError> {
    let threads = living_threads(pid, process)?;
    put(domain, before, &threads, pid)?;
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
/// the one before did.
fn put(
    domain: &Domain,
    before: Option<&Domain>,
    threads: &[Thread],
    pid: u32,
) -> Result<(), VcpuError> {
    for (vcpu, thread) in threads {
        let wanted = place_of(domain, *vcpu);
        if before.is_some_and(|before| place_of(before, *vcpu) == wanted) {
            continue;
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

/// Moves vCPUs under the limit of their own, where the definition has one and the one before had none.
fn limit(
    domain: &Domain,
    before: Option<&Domain>,
    threads: &[Thread],
    cgroup: Option<&Path>,
) -> Result<(), VcpuError> {
    let had = before.is_some_and(|before| before.limits.vcpu_percent.is_some());
    if let (Some(_), Some(cgroup), false) = (domain.limits.vcpu_percent, cgroup, had) {
        let cgroup = DomainCgroup::adopt(cgroup.to_owned())?;
        for (_, thread) in threads.iter().filter(|(vcpu, _)| vcpu.is_some()) {
            cgroup.limit_as_vcpu(number(*thread))?;
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
mod tests {
    use std::os::fd::AsFd;

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

    fn one(cpu: u32) -> CpuSet {
        cpu.to_string().parse().unwrap()
    }

    /// A thread that waits, called as a vCPU is.
    struct Waiting {
        thread: Option<std::thread::JoinHandle<()>>,
        stop: Option<std::sync::mpsc::SyncSender<()>>,
        tid: Pid,
    }

    impl Waiting {
        fn vcpu(number: u32) -> Self {
            let (tell, told) = std::sync::mpsc::sync_channel(1);
            let (stop, stopped) = std::sync::mpsc::sync_channel::<()>(0);
            let thread = std::thread::Builder::new().name(format!("vcpu{number}"));
            let thread = thread.spawn(move || {
                tell.send(rustix::thread::gettid()).unwrap();
                let _ = stopped.recv();
            });
            Self {
                thread: Some(thread.unwrap()),
                stop: Some(stop),
                tid: told.recv().unwrap(),
            }
        }

        fn bind(&self, cpu: u32) {
            let set = kernel_set(&one(cpu)).unwrap();
            sched_setaffinity(Some(self.tid), &set).unwrap();
        }

        fn is_on(&self, cpu: u32) -> bool {
            is_at(self.tid, &kernel_set(&one(cpu)).unwrap())
        }
    }

    impl Drop for Waiting {
        fn drop(&mut self) {
            self.stop = None;
            let _ = self.thread.take().map(|thread| thread.join());
        }
    }

    fn bound(pins: &[(u32, u32)]) -> Domain {
        let mut domain = crate::host::confinement::tests::domain();
        domain.pinning = pins
            .iter()
            .map(|(vcpu, cpu)| VcpuPin {
                vcpu: *vcpu,
                cpus: one(*cpu),
            })
            .collect();
        domain
    }

    /// The last two CPUs that this process may run on; the same twice where there is but one.
    fn two_cpus() -> (u32, u32) {
        let own = sched_getaffinity(None).unwrap();
        let mut cpus = (0..1024).filter(|cpu| own.is_set(*cpu as usize));
        let first = cpus.next().unwrap();
        (first, cpus.next_back().unwrap_or(first))
    }

    #[test]
    fn only_threads_whose_place_is_another_are_touched() {
        let own = std::process::id();
        let pidfd = rustix::process::pidfd_open(
            rustix::process::getpid(),
            rustix::process::PidfdFlags::empty(),
        );
        let pidfd = pidfd.unwrap();
        let process = (own, pidfd.as_fd());
        let (first, other) = two_cpus();
        let (moved, left) = (Waiting::vcpu(801), Waiting::vcpu(802));
        // By somebody else.
        left.bind(other);
        let (loose, tight) = (bound(&[]), bound(&[(801, first)]));
        place_anew(&tight, Some(&loose), process, None).unwrap();
        assert!(moved.is_on(first) && left.is_on(other));
        moved.bind(other);
        place_anew(&tight, Some(&tight), process, None).unwrap();
        assert!(moved.is_on(other), "it was to be there before, too");
        place_anew(&loose, Some(&tight), process, None).unwrap();
        assert!(is_at(moved.tid, own_cpus()) && left.is_on(other));
        let gone = std::process::Command::new("/bin/true").spawn();
        let mut gone = gone.unwrap();
        let pid = Pid::from_raw(i32::try_from(gone.id()).unwrap()).unwrap();
        let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty());
        gone.wait().unwrap();
        let error = place_anew(&tight, None, (own, pidfd.unwrap().as_fd()), None);
        assert!(matches!(error, Err(VcpuError::Gone)), "{error:?}");
        assert!(is_at(moved.tid, own_cpus()));
    }

    /// Executes this test alone in a process of its own, which may not run on every CPU.
    #[test]
    fn anywhere_is_where_the_supervisor_may_run() {
        const INNER: &str = "REEVE_VCPUS_TEST_INNER";
        let (first, other) = two_cpus();
        if std::env::var_os(INNER).is_none() {
            let status = std::process::Command::new(std::env::current_exe().unwrap())
                .args([
                    "--exact",
                    "host::vcpus::tests::anywhere_is_where_the_supervisor_may_run",
                ])
                .env(INNER, "1")
                .stdout(std::process::Stdio::null())
                .status();
            assert!(status.unwrap().success());
            return;
        }
        let only = kernel_set(&one(first)).unwrap();
        sched_setaffinity(None, &only).unwrap();
        own_cpus();
        let thread = Waiting::vcpu(803);
        thread.bind(other);
        let pidfd = rustix::process::pidfd_open(
            rustix::process::getpid(),
            rustix::process::PidfdFlags::empty(),
        );
        let process = (std::process::id(), pidfd.unwrap());
        let process = (process.0, process.1.as_fd());
        place_anew(&bound(&[]), Some(&bound(&[(803, other)])), process, None).unwrap();
        assert!(is_at(thread.tid, &only));
    }
}
