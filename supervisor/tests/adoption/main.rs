//! Workers that outlive their supervisor, over KVM and the built-in guest: found again by a second
//! driver, believed or not, and nothing left of those that end.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod devices;
mod slow;

use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use reeve_ipc::model::{
    BootSource, Devices, Domain, DomainUuid, Labels, LifecycleAction, MemorySize, Platform,
    ResourceLimits, Tuning, Vcpus,
};
use reeve_ipc::phase::Phase;
use reeve_ipc::spec::{CpuSwitches, MachineType};
use reeved::domain::driver::{
    Adoption, CallFailure, Driver, GuestEnd, Notice, Recorder, Resources, Running, StartFailure,
    StartFailureKind, StartOrder, Verdict, WorkerCall,
};
use reeved::domain::plan::AnyPath;
use reeved::domain::worker::KvmDriver;
use reeved::host::Host;
use reeved::host::worker_binary::WorkerBinary;
use rustix::fs::Mode;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use tempfile::TempDir;

const SOON: Duration = Duration::from_secs(10);

/// The worker's executable, which lies where this test's own supervisor would.
fn worker_binary() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let directory = test.parent().and_then(Path::parent).unwrap();
    directory.join("reeve-worker")
}

fn driver() -> KvmDriver {
    let path = worker_binary();
    assert!(
        path.exists(),
        "build reeve-worker first: {}",
        path.display()
    );
    driver_of(&path)
}

/// With another program for a worker.
fn driver_of(path: &Path) -> KvmDriver {
    let host = Host::with_worker(WorkerBinary::at(path).unwrap()).unwrap();
    KvmDriver::new(Arc::new(host), Arc::new(AnyPath))
}

#[derive(Debug, Default)]
struct Status {
    records: Mutex<Vec<Resources>>,
    /// Fails from this record on.
    full_at: Option<usize>,
}

impl Recorder for Status {
    fn record(&self, resources: &Resources) -> Result<(), String> {
        let mut records = self.records.lock().unwrap();
        if self.full_at.is_some_and(|full| records.len() >= full) {
            return Err("no space left".to_owned());
        }
        records.push(resources.clone());
        Ok(())
    }
}

impl Status {
    fn last(&self) -> Resources {
        self.records.lock().unwrap().last().unwrap().clone()
    }
}

/// A domain with its directory and its status.
struct Place {
    domain: Domain,
    directory: TempDir,
    status: Arc<Status>,
}

impl Place {
    fn new(command_line: &str) -> Self {
        Self {
            domain: domain(command_line),
            directory: tempfile::tempdir().unwrap(),
            status: Arc::new(Status::default()),
        }
    }

    fn order(&self) -> StartOrder {
        StartOrder {
            domain: self.domain.clone(),
            paused: false,
            directory: self.directory.path().to_owned(),
        }
    }

    async fn start(&self, driver: &KvmDriver) -> Result<Running, StartFailure> {
        driver
            .start(self.order(), Arc::clone(&self.status) as Arc<dyn Recorder>)
            .await
    }

    async fn adopt(&self, driver: &KvmDriver) -> Adoption {
        self.adopt_as(driver, self.status.last()).await
    }

    async fn adopt_as(&self, driver: &KvmDriver, recorded: Resources) -> Adoption {
        driver.adopt(self.domain.clone(), recorded).await
    }

    fn pid(&self) -> u32 {
        self.status.last().process.unwrap().pid
    }

    fn pidfd(&self) -> OwnedFd {
        pidfd_open(pid(self.pid()), PidfdFlags::empty()).unwrap()
    }

    /// No process, no socket, no cgroup.
    fn assert_nothing_left(&self) {
        let begin = Instant::now();
        while !processes(&self.domain).is_empty() {
            assert!(begin.elapsed() < SOON, "the worker lives on");
            std::thread::sleep(Duration::from_millis(2));
        }
        assert!(!self.directory.path().join("adopt").exists());
        if let Some(cgroup) = self.status.last().cgroup {
            assert!(!cgroup.exists(), "{}", cgroup.display());
        }
    }
}

fn domain(command_line: &str) -> Domain {
    let uuid = uuid::Uuid::new_v4();
    Domain {
        name: format!("kept-{}", &uuid.to_string()[..8]).parse().unwrap(),
        uuid: DomainUuid(uuid),
        machine: MachineType::Reeve1_0,
        vcpus: Vcpus::try_from(1).unwrap(),
        max_vcpus: Vcpus::try_from(1).unwrap(),
        platform: Platform::default(),
        kept: Vec::new(),
        tuning: Tuning::default(),
        cpu: CpuSwitches::default(),
        memory: MemorySize::mebibytes(32),
        boot: BootSource::BuiltIn {
            command_line: command_line.to_owned(),
        },
        devices: Devices::default(),
        lifecycle: LifecycleAction::default(),
        limits: ResourceLimits::default(),
        pinning: Vec::new(),
        labels: Labels::default(),
    }
}

fn processes(domain: &Domain) -> Vec<u32> {
    let wanted = format!("reeve-worker\0{}\0", domain.name);
    std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| {
            std::fs::read(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|line| line == wanted.as_bytes())
        })
        .collect()
}

fn pid(pid: u32) -> Pid {
    Pid::from_raw(i32::try_from(pid).unwrap()).unwrap()
}

/// The console from `from` on, until `wanted` has come.
async fn read_console(running: &Running, from: Option<u64>, wanted: &str) -> String {
    let (fd, _) = running.instance.console(from, false).await.unwrap();
    let wanted = wanted.to_owned();
    let read = tokio::task::spawn_blocking(move || {
        let mut console = UnixStream::from(fd);
        console.set_nonblocking(false).unwrap();
        console.set_read_timeout(Some(SOON)).unwrap();
        let (mut text, mut buffer) = (String::new(), [0; 256]);
        while !text.contains(&wanted) {
            let length = console.read(&mut buffer).unwrap();
            assert_ne!(length, 0, "the console ended: {text}");
            text.push_str(&String::from_utf8_lossy(&buffer[..length]));
        }
        text
    });
    read.await.unwrap()
}

/// The next notice, but for those of vCPUs, which each adoption has one of.
async fn notice(running: &mut Running) -> Notice {
    loop {
        let next = tokio::time::timeout(SOON, running.notices.recv());
        let notice = next.await.expect("a notice in time").expect("a notice");
        if !matches!(notice, Notice::Vcpus(_)) {
            return notice;
        }
    }
}

async fn destroy(mut running: Running) {
    running.instance.kill();
    while notice(&mut running).await != Notice::Gone(Verdict::Asked) {}
}

fn gone(adoption: Adoption) -> String {
    match adoption {
        Adoption::Gone { why } => why,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_guest_runs_on_without_its_supervisor_and_is_found_again() {
    let place = Place::new("mode=clock");
    let first = driver();
    let running = place.start(&first).await.unwrap();
    read_console(&running, None, "tick 1:").await;
    let records = place.status.records.lock().unwrap().clone();
    let [made, process, launched] = records.as_slice() else {
        panic!("{records:?}")
    };
    assert!(made.process.is_none() && !made.launched);
    assert!(process.process.is_some() && !process.launched);
    assert!(launched.launched);
    drop((running, first));

    let second = driver();
    let Adoption::Adopted {
        running,
        end,
        resets,
        console_position,
        devices: None,
    } = place.adopt(&second).await
    else {
        panic!("not adopted")
    };
    assert_eq!((running.phase, end, resets), (Phase::Running, None, 0));
    assert!(console_position > 0);
    assert!(running.instance.details().adopted);
    assert_eq!(running.instance.details().pid, place.pid());
    // What it wrote before is in the ring still; what it writes now comes too.
    read_console(&running, None, "tick 1:").await;
    read_console(&running, Some(console_position), "tick ").await;
    let call = |call| running.instance.call(call);
    call(WorkerCall::Pause).await.unwrap();
    call(WorkerCall::Resume).await.unwrap();
    let stats = running.instance.stats().await.unwrap();
    assert!(stats.resident_bytes > 0);
    destroy(running).await;
    place.assert_nothing_left();
}

#[tokio::test]
async fn a_guest_that_powers_off_unwatched_waits_for_its_supervisor() {
    let place = Place::new("");
    let mut running = place.start(&driver()).await.unwrap();
    assert_eq!(
        notice(&mut running).await,
        Notice::GuestEnded(GuestEnd::PoweredOff)
    );
    drop(running);
    let adoption = place.adopt(&driver()).await;
    let Adoption::Adopted { running, end, .. } = adoption else {
        panic!("{adoption:?}")
    };
    assert_eq!(running.phase, Phase::Off);
    assert_eq!(end, Some(GuestEnd::PoweredOff));
    let mut running = running;
    running.instance.call(WorkerCall::Stop).await.unwrap();
    assert_eq!(notice(&mut running).await, Notice::Gone(Verdict::Asked));
    place.assert_nothing_left();
}

#[tokio::test]
async fn a_worker_that_died_unwatched_is_gone() {
    let place = Place::new("mode=hold");
    drop(place.start(&driver()).await.unwrap());
    kill_process(pid(place.pid()), Signal::KILL).unwrap();
    gone(place.adopt(&driver()).await);
    place.assert_nothing_left();
}

#[tokio::test]
async fn a_stopped_worker_is_silent_and_comes_back() {
    let place = Place::new("mode=hold");
    drop(place.start(&driver()).await.unwrap());
    kill_process(pid(place.pid()), Signal::STOP).unwrap();
    let begin = Instant::now();
    let adoption = place.adopt(&driver()).await;
    let Adoption::Silent(mut running) = adoption else {
        panic!("{adoption:?}")
    };
    assert!(begin.elapsed() < Duration::from_secs(4));
    assert_eq!(
        running.instance.call(WorkerCall::Pause).await,
        Err(CallFailure::Deadline)
    );
    kill_process(pid(place.pid()), Signal::CONT).unwrap();
    assert_eq!(
        notice(&mut running).await,
        Notice::Responsive {
            phase: Phase::Running,
            resets: 0,
            end: None,
        }
    );
    running.instance.call(WorkerCall::Pause).await.unwrap();

    // Silent later: told once a call is not answered, and answered again.
    kill_process(pid(place.pid()), Signal::STOP).unwrap();
    assert_eq!(
        running.instance.call(WorkerCall::Resume).await,
        Err(CallFailure::Deadline)
    );
    assert_eq!(notice(&mut running).await, Notice::Silent);
    kill_process(pid(place.pid()), Signal::CONT).unwrap();
    assert!(matches!(
        notice(&mut running).await,
        Notice::Responsive { .. }
    ));
    running.instance.call(WorkerCall::Resume).await.unwrap();
    kill_process(pid(place.pid()), Signal::STOP).unwrap();
    destroy(running).await;
    place.assert_nothing_left();
}

#[tokio::test]
async fn a_worker_launched_as_another_one_is_killed() {
    let place = Place::new("mode=hold");
    drop(place.start(&driver()).await.unwrap());
    let mut recorded = place.status.last();
    recorded.digest[0] ^= 1;
    let why = gone(place.adopt_as(&driver(), recorded).await);
    assert!(why.contains("launched as another one"), "{why}");
    place.assert_nothing_left();
}

#[tokio::test]
async fn a_foreign_process_on_the_recorded_pid_is_left_alone() {
    let place = Place::new("mode=hold");
    let running = place.start(&driver()).await.unwrap();
    let mut sleeper = Command::new("/bin/sleep").arg("60").spawn().unwrap();
    // Its pid with the worker's start time; and the worker's pid with another start time.
    let mut foreign = place.status.last();
    foreign.socket = PathBuf::from("/nowhere/adopt");
    let mut later = foreign.clone();
    if let (Some(foreign), Some(later)) = (&mut foreign.process, &mut later.process) {
        foreign.pid = sleeper.id();
        foreign.start_ticks -= 1;
        later.start_ticks += 1;
    }
    let driver = driver();
    gone(place.adopt_as(&driver, foreign).await);
    gone(place.adopt_as(&driver, later).await);
    assert!(sleeper.try_wait().unwrap().is_none(), "it was killed");
    running.instance.call(WorkerCall::Pause).await.unwrap();
    sleeper.kill().unwrap();
    sleeper.wait().unwrap();
    destroy(running).await;
    place.assert_nothing_left();
}

#[tokio::test]
async fn another_listener_on_the_socket_is_neither_believed_nor_killed() {
    let place = Place::new("mode=hold");
    drop(place.start(&driver()).await.unwrap());
    // Another worker answers there.
    let other = Place::new("mode=hold");
    drop(other.start(&driver()).await.unwrap());
    let socket = place.status.last().socket;
    std::fs::rename(other.status.last().socket, &socket).unwrap();
    let why = gone(place.adopt(&driver()).await);
    assert!(why.contains("answers on its socket"), "{why}");
    assert_eq!(processes(&other.domain), [other.pid()]);
    place.assert_nothing_left();
    // It is out of reach itself now, and lives on.
    let adoption = other.adopt(&driver()).await;
    let Adoption::Silent(running) = adoption else {
        panic!("{adoption:?}")
    };
    assert_eq!(processes(&other.domain), [other.pid()]);
    destroy(running).await;
    other.assert_nothing_left();
}

#[tokio::test]
async fn a_worker_whose_socket_was_removed_lives_on_and_is_found_when_it_is_back() {
    let place = Place::new("mode=hold");
    drop(place.start(&driver()).await.unwrap());
    let socket = place.status.last().socket;
    let away = socket.with_extension("away");
    std::fs::rename(&socket, &away).unwrap();
    let adoption = place.adopt(&driver()).await;
    let Adoption::Silent(mut running) = adoption else {
        panic!("{adoption:?}")
    };
    std::fs::rename(&away, &socket).unwrap();
    assert!(matches!(
        notice(&mut running).await,
        Notice::Responsive { .. }
    ));
    running.instance.call(WorkerCall::Pause).await.unwrap();
    destroy(running).await;
    place.assert_nothing_left();
}

#[tokio::test]
async fn a_listener_that_says_nothing_makes_the_worker_silent_and_it_can_be_killed() {
    let place = Place::new("mode=hold");
    drop(place.start(&driver()).await.unwrap());
    let socket = place.status.last().socket;
    std::fs::remove_file(&socket).unwrap();
    let _mute = reeve_ipc::local::listen(&socket, Mode::RUSR, 1).unwrap();
    let adoption = place.adopt(&driver()).await;
    let Adoption::Silent(running) = adoption else {
        panic!("{adoption:?}")
    };
    destroy(running).await;
    place.assert_nothing_left();
}

#[tokio::test]
async fn a_start_that_was_cut_short_is_undone() {
    // Before there was a process.
    let place = Place::new("mode=hold");
    let driver_one = driver();
    let running = place.start(&driver_one).await.unwrap();
    drop((running, driver_one));
    let records = place.status.records.lock().unwrap().clone();
    // Before its launch was answered.
    let adoption = place.adopt_as(&driver(), records[1].clone()).await;
    assert!(matches!(adoption, Adoption::NeverLaunched), "{adoption:?}");
    place.assert_nothing_left();

    let place = Place::new("mode=hold");
    drop(place.start(&driver()).await.unwrap());
    let pidfd = place.pidfd();
    let records = place.status.records.lock().unwrap().clone();
    if records[0].own_uid {
        let adoption = place.adopt_as(&driver(), records[0].clone()).await;
        assert!(matches!(adoption, Adoption::NeverLaunched), "{adoption:?}");
    } else {
        kill_process(pid(place.pid()), Signal::KILL).unwrap();
    }
    let _ = rustix::process::waitid(
        rustix::process::WaitId::PidFd(pidfd.as_fd()),
        rustix::process::WaitIdOptions::EXITED,
    );
    place.assert_nothing_left();
}

#[tokio::test]
async fn a_record_that_cannot_be_written_undoes_the_start() {
    for full_at in 0..3 {
        let mut place = Place::new("mode=hold");
        place.status = Arc::new(Status {
            full_at: Some(full_at),
            ..Status::default()
        });
        let failure = place.start(&driver()).await.unwrap_err();
        assert_eq!(failure.kind, StartFailureKind::Host);
        assert!(failure.message.contains("no space left"), "{failure}");
        assert_eq!(processes(&place.domain), Vec::<u32>::new());
        assert!(!place.directory.path().join("adopt").exists());
    }
}

#[tokio::test]
async fn a_start_that_nobody_waits_for_is_undone() {
    let driver = driver();
    for wait in [0, 1, 2, 4, 8] {
        let place = Place::new("mode=hold");
        let start = place.start(&driver);
        let started = tokio::time::timeout(Duration::from_millis(wait), start).await;
        match started {
            Ok(running) => destroy(running.unwrap()).await,
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
        let begin = Instant::now();
        // What it held goes a moment after the process.
        let socket = place.directory.path().join("adopt");
        while !processes(&place.domain).is_empty() || socket.exists() {
            assert!(begin.elapsed() < SOON);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

#[tokio::test]
async fn many_workers_are_found_at_once() {
    let count = if std::env::var_os("REEVE_SOAK").is_some() {
        100
    } else {
        20
    };
    let first = driver();
    let places: Vec<Place> = (0..count).map(|_| Place::new("mode=hold")).collect();
    for place in &places {
        drop(place.start(&first).await.unwrap());
    }
    drop(first);
    let second = driver();
    let begin = Instant::now();
    let mut adoptions = tokio::task::JoinSet::new();
    for place in &places {
        adoptions.spawn(second.adopt(place.domain.clone(), place.status.last()));
    }
    let adoptions = adoptions.join_all().await;
    let took = begin.elapsed();
    println!("{count} workers were adopted within {took:?}");
    for adoption in adoptions {
        match adoption {
            Adoption::Adopted { running, .. } => destroy(running).await,
            other => panic!("{other:?}"),
        }
    }
    places.iter().for_each(Place::assert_nothing_left);
    assert!(took < SOON);
}

#[tokio::test]
async fn pinned_vcpus_run_where_the_definition_says() {
    let mut place = Place::new("mode=hold");
    place.domain.pinning = vec![reeve_ipc::model::VcpuPin {
        vcpu: 0,
        cpus: "0".parse().unwrap(),
    }];
    let running = place.start(&driver()).await.unwrap();
    read_console(&running, None, "R\n").await;
    let allowed = |thread: &Path| {
        let status = std::fs::read_to_string(thread.join("status")).unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("Cpus_allowed_list"));
        line.unwrap().split_whitespace().last().unwrap().to_owned()
    };
    let mut pinned = 0;
    for thread in std::fs::read_dir(format!("/proc/{}/task", place.pid())).unwrap() {
        let thread = thread.unwrap().path();
        // Another thread may end meanwhile.
        if std::fs::read_to_string(thread.join("comm")).is_ok_and(|name| name == "vcpu0\n") {
            assert_eq!(allowed(&thread), "0");
            pinned += 1;
        }
    }
    assert_eq!(pinned, 1);
    destroy(running).await;
    place.assert_nothing_left();

    let mut place = Place::new("mode=hold");
    place.domain.pinning = vec![reeve_ipc::model::VcpuPin {
        vcpu: 0,
        cpus: "4000".parse().unwrap(),
    }];
    let failure = place.start(&driver()).await.unwrap_err();
    assert_eq!(failure.kind, StartFailureKind::Definition);
    assert!(failure.message.contains("CPU 4000"), "{failure}");
}
