//! Supervision against workers that break the rules: each is ended, alone, and nothing is left.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use reeve_ipc::client::CallError;
use reeve_ipc::model::{
    BootSource, Devices, Disk, Domain, DomainUuid, Labels, Layer, LifecycleAction, MemorySize,
    Platform, ResourceLimits, Tuning, Vcpus,
};
use reeve_ipc::phase::Phase;
use reeve_ipc::spec::{CpuSwitches, DiskFormat, MachineType};
use reeved::domain::worker::{
    Death, DeathCause, ExitStatus, StartError, StartOptions, Worker, start,
};
use reeved::host::Host;
use reeved::host::worker_binary::WorkerBinary;

/// How long what happens by itself may take.
const SOON: Duration = Duration::from_secs(20);

fn host() -> Host {
    let path = Path::new(env!("CARGO_BIN_EXE_reeve-hostile-worker"));
    Host::with_worker(WorkerBinary::at(path).unwrap()).unwrap()
}

/// A domain whose name is what its worker does.
fn domain(behaviour: &str) -> Domain {
    Domain {
        name: format!("{behaviour}-{}", std::process::id())
            .parse()
            .unwrap(),
        uuid: DomainUuid(uuid::Uuid::new_v4()),
        machine: MachineType::Reeve1_0,
        vcpus: Vcpus::try_from(1).unwrap(),
        max_vcpus: Vcpus::try_from(1).unwrap(),
        platform: Platform::default(),
        kept: Vec::new(),
        tuning: Tuning::default(),
        cpu: CpuSwitches::default(),
        memory: MemorySize::mebibytes(16),
        boot: BootSource::BuiltIn {
            command_line: String::new(),
        },
        devices: Devices::default(),
        lifecycle: LifecycleAction::default(),
        limits: ResourceLimits::default(),
        pinning: Vec::new(),
        labels: Labels::default(),
    }
}

async fn started(behaviour: &str) -> (Host, Worker) {
    let host = host();
    let worker = start(&host, &domain(behaviour), StartOptions::default())
        .await
        .unwrap();
    (host, worker)
}

/// The pids of processes that carry the domain's name.
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

async fn death_of(behaviour: &str) -> Arc<Death> {
    let (_host, worker) = started(behaviour).await;
    let death = tokio::time::timeout(Duration::from_secs(5), worker.death())
        .await
        .unwrap();
    assert_eq!(processes(&domain(behaviour)), Vec::<u32>::new());
    assert!(worker.view().death.is_some());
    death
}

async fn violation_of(behaviour: &str) -> String {
    let death = death_of(behaviour).await;
    assert_eq!(death.status, ExitStatus::Signaled(9), "{death}");
    match &death.cause {
        DeathCause::Violation(rule) => rule.clone(),
        other => panic!("{behaviour}: {other}"),
    }
}

#[tokio::test]
async fn a_worker_is_paused_resumed_and_stopped() {
    let (_host, worker) = started("good").await;
    assert_eq!(worker.launched().unwrap().phase, Phase::Running);
    assert_eq!(processes(&domain("good")), [worker.pid()]);
    worker.pause().await.unwrap();
    worker.resume().await.unwrap();
    worker.power_button().await.unwrap();
    worker.reset().await.unwrap();
    assert_eq!(worker.query().await.unwrap().phase, Phase::Running);
    let _console = worker.console_attach(true).await.unwrap();
    assert_eq!(worker.view().jail.unwrap().landlock_abi, 1);
    let death = worker.stop().await.unwrap();
    assert_eq!(death.cause, DeathCause::Stopped);
    assert!(matches!(worker.pause().await, Err(CallError::Closed(_))));
    assert_eq!(processes(&domain("good")), Vec::<u32>::new());
}

#[tokio::test]
async fn the_guests_own_end_is_told_from_others() {
    assert_eq!(death_of("powers-off").await.cause, DeathCause::PoweredOff);
    let death = death_of("crashes").await;
    assert_eq!(
        death.to_string(),
        "the guest crashed on vCPU 1: triple fault"
    );
    let death = death_of("dies-silently").await;
    assert!(matches!(death.cause, DeathCause::Violation(_)));
}

#[tokio::test]
async fn a_broken_rule_kills_the_worker_that_broke_it() {
    assert!(
        violation_of("jumps")
            .await
            .contains("from running to awaiting")
    );
    assert!(
        violation_of("repeats-an-event")
            .await
            .contains("event 1 after 1")
    );
    for behaviour in ["sends-a-descriptor", "logs-a-descriptor"] {
        // Where the kernel refuses to take it, it sends garbage instead.
        let rule = violation_of(behaviour).await;
        let said = ["no descriptors", "malformed message"];
        assert!(said.iter().any(|said| rule.contains(said)), "{rule}");
    }
    assert!(violation_of("floods-events").await.contains("rate"));
    violation_of("garbage").await;
}

#[tokio::test]
async fn a_reply_of_another_request_kills_the_worker() {
    let (_host, worker) = started("wrong-reply").await;
    assert!(matches!(worker.pause().await, Err(CallError::Closed(_))));
    let death = worker.death().await;
    assert!(matches!(death.cause, DeathCause::Violation(_)), "{death}");
}

#[tokio::test]
async fn a_worker_without_its_control_socket_is_not_kept() {
    let begin = Instant::now();
    let rule = violation_of("closes-control").await;
    assert!(rule.contains("closed its control socket"));
    assert!(begin.elapsed() < SOON);
}

#[tokio::test]
async fn another_workers_violation_is_noticed_by_nobody_else() {
    let (host, good) = started("good").await;
    let bad = start(&host, &domain("garbage"), StartOptions::default())
        .await
        .unwrap();
    bad.death().await;
    assert_eq!(good.query().await.unwrap().phase, Phase::Running);
    good.destroy().await.unwrap();
}

#[tokio::test]
async fn a_failed_start_says_why_and_leaves_nothing() {
    let host = host();
    let error = start(&host, &domain("exits-in-jail"), StartOptions::default())
        .await
        .unwrap_err();
    let line = error.to_string();
    assert!(matches!(error, StartError::Died { .. }), "{line}");
    assert!(line.contains("could not enter its sandbox"), "{line}");
    assert!(line.contains("no Landlock \\u{1b}[2J here"), "{line}");

    let error = start(&host, &domain("no-hello"), StartOptions::default())
        .await
        .unwrap_err();
    assert!(error.to_string().contains("no hello"), "{error}");

    let error = start(&host, &domain("second-hello"), StartOptions::default())
        .await
        .unwrap_err();
    assert!(error.to_string().contains("a second hello"), "{error}");

    let error = start(&host, &domain("dies-in-launch"), StartOptions::default())
        .await
        .unwrap_err();
    assert!(error.to_string().contains("exited with code 74"), "{error}");
    for behaviour in [
        "exits-in-jail",
        "no-hello",
        "second-hello",
        "dies-in-launch",
    ] {
        assert_eq!(processes(&domain(behaviour)), Vec::<u32>::new());
    }
}

#[tokio::test]
async fn a_start_that_nobody_waits_for_is_undone() {
    let host = host();
    let domain = domain("hangs");
    let start = start(&host, &domain, StartOptions::default());
    let abandoned = tokio::time::timeout(Duration::from_millis(300), start).await;
    assert!(abandoned.is_err());
    let begin = Instant::now();
    while !processes(&domain).is_empty() {
        assert!(begin.elapsed() < SOON, "it lives on");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn destroy_waits_for_no_request() {
    let (_host, worker) = started("deaf").await;
    let pause = worker.pause();
    tokio::pin!(pause);
    let early = tokio::time::timeout(Duration::from_millis(50), &mut pause).await;
    assert!(early.is_err());
    let begin = Instant::now();
    let death = worker.destroy().await.unwrap();
    assert!(begin.elapsed() < Duration::from_secs(4));
    assert_eq!(death.cause, DeathCause::Destroyed);
    assert!(matches!(pause.await, Err(CallError::Closed(_))));
}

#[tokio::test]
async fn a_flood_of_log_lines_does_not_hold_up_a_destroy() {
    let (_host, worker) = started("floods-log").await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let begin = Instant::now();
    worker.destroy().await.unwrap();
    assert!(begin.elapsed() < Duration::from_secs(4));
}

#[tokio::test]
async fn a_dropped_worker_is_killed() {
    let (_host, worker) = started("good-but-dropped").await;
    let pid = worker.pid();
    let view = worker.view();
    assert!(view.death.is_none());
    drop(worker);
    let begin = Instant::now();
    while Path::new(&format!("/proc/{pid}")).exists() {
        assert!(begin.elapsed() < SOON, "it lives on");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A domain whose image says what its reader does.
fn domain_of_image(image: &Path) -> Domain {
    let target = "vda".parse().unwrap();
    let image = Layer {
        path: image.to_owned(),
        format: DiskFormat::Qcow2,
    };
    let mut domain = domain("starts");
    domain.devices.disks = vec![Disk {
        from_image: true,
        ..Disk::new(target, Some(image))
    }];
    domain
}

#[tokio::test]
async fn a_reader_of_an_image_that_breaks_the_rules_costs_one_start_and_little_time() {
    let directory = tempfile::tempdir().unwrap();
    let host = host();
    for (order, says) in [
        ("hangs---", "not read within 5 s"),
        ("dies----", "died"),
        ("garbage-", "said what it should not"),
        ("floods--", "died, or said more than it may"),
        ("long----", "said what it should not"),
        ("shouts--", "a\\nb\\u{1b}[2J"),
        ("fails---", "no Landlock"),
        ("writes--", "'nbd:refused'"),
    ] {
        let image = directory.path().join(order);
        std::fs::write(&image, order).unwrap();
        let domain = domain_of_image(&image);
        let begun = Instant::now();
        let error = start(&host, &domain, StartOptions::default()).await;
        let line = error.unwrap_err().to_string();
        assert!(line.contains(says), "{order}: {line}");
        assert!(
            line.contains("disk 'vda'") && !line.contains(char::is_control),
            "{line}"
        );
        assert!(begun.elapsed() < Duration::from_secs(9), "{order}");
        assert_eq!(std::fs::read(&image).unwrap(), order.as_bytes());
        // The kernel releases one that was killed a moment later.
        let begun = Instant::now();
        while readers() > 0 {
            assert!(begun.elapsed() < SOON, "{order}: it lives on");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// How many processes read images for this one.
fn readers() -> usize {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = entries.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    lines.filter(|line| line == b"reeve-image\0").count()
}
