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
