//! The limit of descriptors reached, by the daemon: at any point of a start, in any call, and when it
//! is to take over more workers than it could watch.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use reeve_ipc::api::blocking::{CallError, Connection};
use reeve_ipc::api::call::{
    DomainConsole, DomainDestroy, DomainGet, DomainPause, DomainResume, DomainStart, StartOptions,
    SupervisorInfoGet,
};
use reeve_ipc::model::Domain;
use reeve_tests::daemon::{Daemon, built_in, named};
use reeve_tests::domain::{unique_name, workers};

use super::world::end_everything;
use super::{ECHO, define, start, wait_until_off};

/// The descriptors that the daemon has open.
fn open(daemon: &Daemon) -> Result<BTreeSet<usize>> {
    let pid = daemon.pid().context("it does not run")?;
    let mut open = BTreeSet::new();
    for entry in std::fs::read_dir(format!("/proc/{pid}/fd"))? {
        open.insert(entry?.file_name().to_string_lossy().parse()?);
    }
    Ok(open)
}

/// How many there are beside the files of logs, which stay open.
fn without_logs(daemon: &Daemon) -> Result<usize> {
    let pid = daemon.pid().context("it does not run")?;
    let links = std::fs::read_dir(format!("/proc/{pid}/fd"))?.flatten();
    let links = links.filter_map(|entry| std::fs::read_link(entry.path()).ok());
    Ok(links
        .filter(|link| link.extension().is_none_or(|end| end != "log"))
        .count())
}

/// Waits until a guest's console is logged: the daemon opens nothing more for its domain then.
fn until_logged(daemon: &Daemon, domain: &Domain) -> Result<()> {
    let log = format!("log/{}.console.log", domain.name);
    let log = daemon.state().join(log);
    let deadline = Instant::now() + Duration::from_secs(20);
    while !std::fs::read_to_string(&log).is_ok_and(|text| text.contains("ready")) {
        ensure!(Instant::now() < deadline, "nothing is logged");
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Waits until no more than `before` are open.
fn settle(daemon: &Daemon, before: usize) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let now = without_logs(daemon)?;
        if now <= before {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "{now} are open, not {before}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Lets the daemon open so many more, and no more.
fn leave_room(daemon: &Daemon, room: usize) -> Result<()> {
    let open = open(daemon)?;
    // The limit is on their numbers, and those that are free are used first.
    let free = (0..).filter(|number| !open.contains(number)).nth(room);
    limit(daemon, free.context("no number is free")?)
}

/// Changes the limit of a daemon that runs.
fn limit(daemon: &Daemon, limit: usize) -> Result<()> {
    let pid = daemon.pid().context("it does not run")?;
    let status = Command::new("prlimit")
        .args([format!("--pid={pid}"), format!("--nofile={limit}:")])
        .status()?;
    ensure!(status.success(), "prlimit of util-linux is missing");
    Ok(())
}

/// A limit that is none.
const PLENTY: usize = 1024;

fn assert_says_why(error: &CallError) -> Result<()> {
    let line = error.refused().context("no answer")?.message.to_lowercase();
    ensure!(
        line.contains("too many open files") && !line.contains('\n'),
        "{line}"
    );
    Ok(())
}

fn call_start(connection: &mut Connection, domain: &Domain) -> Result<(), CallError> {
    let call = DomainStart {
        domain: named(domain.name.as_str()),
        options: StartOptions::default(),
    };
    connection.call(call).map(drop)
}

#[test]
fn a_start_that_runs_out_of_descriptors_says_so_and_leaves_nothing() -> Result<()> {
    let daemon = Daemon::start()?;
    let mut connection = daemon.connect()?;
    let other = built_in(&unique_name("other"), ECHO);
    let domain = built_in(&unique_name("starved"), ECHO);
    define(&mut connection, &other)?;
    define(&mut connection, &domain)?;
    start(&mut connection, other.name.as_str())?;
    until_logged(&daemon, &other)?;
    let name = domain.name.as_str();
    let mut refused = 0;
    for room in 0..64 {
        let before = without_logs(&daemon)?;
        leave_room(&daemon, room)?;
        let started = call_start(&mut connection, &domain);
        if let Err(error) = started {
            assert_says_why(&error).with_context(|| format!("room for {room}"))?;
            refused += 1;
            ensure!(workers(name).is_empty(), "room for {room}");
            // What was there before is served as ever.
            for _ in 0..2 {
                let domain = || named(other.name.as_str());
                connection.call(DomainPause { domain: domain() })?;
                connection.call(DomainResume { domain: domain() })?;
            }
            limit(&daemon, PLENTY)?;
            settle(&daemon, before).with_context(|| format!("room for {room}"))?;
            let left = daemon.run().join("domains").join(domain.uuid.to_string());
            ensure!(!left.exists(), "room for {room}: {}", left.display());
        } else {
            // It needs none for this.
            connection.call(DomainDestroy {
                domain: named(name),
            })?;
            wait_until_off(&mut connection, name)?;
            limit(&daemon, PLENTY)?;
            ensure!(refused > 5, "only {refused} starts were refused");
            start(&mut connection, name)?;
            drop(connection);
            return end_everything(&daemon, &[other, domain]);
        }
    }
    anyhow::bail!("a start needs more than 64 descriptors")
}

#[test]
fn calls_that_need_a_descriptor_say_so_and_the_others_work() -> Result<()> {
    let daemon = Daemon::start()?;
    let mut connection = daemon.connect()?;
    let domain = built_in(&unique_name("web"), ECHO);
    define(&mut connection, &domain)?;
    start(&mut connection, domain.name.as_str())?;
    until_logged(&daemon, &domain)?;
    let named = || named(domain.name.as_str());
    leave_room(&daemon, 0)?;
    let refused = built_in(&unique_name("more"), ECHO);
    let error = connection
        .call(reeve_ipc::api::call::DomainDefine {
            definition: Box::new(refused),
            only_new: false,
        })
        .unwrap_err();
    assert_says_why(&error)?;
    let error = connection
        .call(DomainConsole {
            domain: named(),
            input: true,
        })
        .unwrap_err();
    assert_says_why(&error)?;
    connection.call(DomainPause { domain: named() })?;
    connection.call(DomainResume { domain: named() })?;
    connection.call(DomainGet { domain: named() })?;
    ensure!(connection.domains(false)?.len() == 1);
    connection.call(DomainDestroy { domain: named() })?;
    wait_until_off(&mut connection, domain.name.as_str())?;
    limit(&daemon, PLENTY)?;
    start(&mut connection, domain.name.as_str())?;
    drop(connection);
    end_everything(&daemon, &[domain])
}

#[test]
fn workers_that_could_not_be_watched_are_left_alone_until_they_can() -> Result<()> {
    let mut daemon = Daemon::start()?;
    let mut connection = daemon.connect()?;
    let domains: Vec<Domain> = (0..6)
        .map(|_| built_in(&unique_name("many"), ECHO))
        .collect();
    for domain in &domains {
        define(&mut connection, domain)?;
        start(&mut connection, domain.name.as_str())?;
    }
    let mut before = daemon.workers();
    before.sort_unstable();
    daemon.kill()?;
    daemon.limit_descriptors(Some(80));
    daemon.spawn_unready()?;
    ensure!(!daemon.wait_for_end()?.success());
    let log = daemon.log();
    let line = log.lines().last().unwrap_or_default();
    ensure!(
        line.contains("6 running domains") && line.contains("LimitNOFILE"),
        "{line}"
    );
    let mut after = daemon.workers();
    after.sort_unstable();
    assert_eq!(after, before);
    // With just as many as it says.
    daemon.limit_descriptors(Some(64 + 6 * 6));
    daemon.spawn()?;
    let mut connection = daemon.connect()?;
    ensure!(connection.call(SupervisorInfoGet {})?.adopted == 6);
    let mut after = daemon.workers();
    after.sort_unstable();
    assert_eq!(after, before);
    drop(connection);
    end_everything(&daemon, &domains)
}
