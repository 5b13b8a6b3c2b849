//! Workers whose run-time status is damaged or lost: told of, left alone, and in nobody's way.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use reeve_ipc::api::blocking::Connection;
use reeve_ipc::api::call::{DomainDestroy, DomainGet, DomainStatsGet, SupervisorInfoGet};
use reeve_ipc::model::Domain;
use reeve_tests::daemon::{Daemon, built_in, named, signal};
use reeve_tests::domain::{unique_name, wait_until_gone, workers};
use rustix::process::Signal;

use super::world::end_everything;
use super::{ECHO, define, start, wait_until_off};

fn new(connection: &mut Connection, stem: &str) -> Result<Domain> {
    let domain = built_in(&unique_name(stem), ECHO);
    define(connection, &domain)?;
    start(connection, domain.name.as_str())?;
    Ok(domain)
}

/// A worker's pid and uid.
fn worker(connection: &mut Connection, domain: &Domain) -> Result<(u32, u32)> {
    let domain = named(domain.name.as_str());
    let details = connection.call(DomainGet { domain })?;
    let worker = details.worker.context("no worker")?;
    Ok((worker.pid, worker.uid))
}

/// Ends a worker that nobody supervises any more.
fn kill(pid: u32) -> Result<()> {
    signal(pid, Signal::KILL)?;
    wait_until_gone(pid, Duration::from_secs(20))
}

#[test]
fn a_worker_whose_status_is_damaged_is_told_of_and_keeps_its_uid() -> Result<()> {
    let mut daemon = Daemon::start()?;
    let mut connection = daemon.connect()?;
    let damaged = new(&mut connection, "damaged")?;
    let fine = new(&mut connection, "fine")?;
    let (pid, uid) = worker(&mut connection, &damaged)?;
    let fine_before = worker(&mut connection, &fine)?;
    daemon.kill()?;
    let status = daemon
        .run()
        .join(format!("domains/{}/status.json", damaged.uuid));
    let text = fs::read_to_string(&status)?;
    fs::write(&status, &text[..text.len() / 2])?;
    daemon.spawn()?;
    let mut connection = daemon.connect()?;

    let info = connection.call(SupervisorInfoGet {})?;
    ensure!(info.adopted == 1, "{info:?}");
    let told = |what: &str| info.refused.iter().any(|line| line.contains(what));
    ensure!(told(&status.to_string_lossy()), "{:?}", info.refused);
    ensure!(
        told(&format!("process {pid} with uid {uid}")),
        "{:?}",
        info.refused
    );
    ensure!(
        info.refused.iter().all(|line| !line.contains('\n')),
        "{:?}",
        info.refused
    );
    assert_eq!(worker(&mut connection, &fine)?, fine_before);
    // It cannot be started a second time, and the line names the file.
    let error = start(&mut connection, damaged.name.as_str()).unwrap_err();
    ensure!(
        error.to_string().contains(&*status.to_string_lossy()),
        "{error}"
    );
    assert_eq!(workers(damaged.name.as_str()), [pid], "it is left alone");
    // Nobody gets its uid.
    let mut all = vec![damaged.clone(), fine];
    for _ in 0..4 {
        let other = new(&mut connection, "other")?;
        ensure!(worker(&mut connection, &other)?.1 != uid);
        all.push(other);
    }
    // Once somebody has looked after it, all is as ever.
    kill(pid)?;
    fs::remove_dir_all(status.parent().context("no directory")?)?;
    start(&mut connection, damaged.name.as_str())?;
    drop(connection);
    end_everything(&daemon, &all)
}

#[test]
fn a_damaged_status_that_is_put_back_is_adopted_by_the_next_supervisor() -> Result<()> {
    let mut daemon = Daemon::start()?;
    let mut connection = daemon.connect()?;
    let domain = new(&mut connection, "back")?;
    let before = worker(&mut connection, &domain)?;
    daemon.kill()?;
    let status = daemon
        .run()
        .join(format!("domains/{}/status.json", domain.uuid));
    let text = fs::read_to_string(&status)?;
    fs::write(&status, text.replace("\"schema\": ", "\"schema\": 9"))?;
    daemon.spawn()?;
    fs::write(&status, text)?;
    daemon.crash()?;
    let mut connection = daemon.connect()?;
    assert_eq!(worker(&mut connection, &domain)?, before);
    connection.call(DomainStatsGet {
        domain: named(domain.name.as_str()),
    })?;
    ensure!(connection.call(SupervisorInfoGet {})?.refused.is_empty());
    drop(connection);
    end_everything(&daemon, &[domain])
}

#[test]
fn a_worker_whose_status_is_gone_is_logged_and_keeps_its_uid() -> Result<()> {
    let mut daemon = Daemon::start()?;
    let mut connection = daemon.connect()?;
    let lost = new(&mut connection, "lost")?;
    let (pid, uid) = worker(&mut connection, &lost)?;
    daemon.kill()?;
    fs::remove_dir_all(daemon.run())?;
    daemon.spawn()?;
    let wanted = format!("process {pid} with uid {uid}");
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while !daemon.log().contains(&wanted) {
        ensure!(std::time::Instant::now() < deadline, "{}", daemon.log());
        std::thread::sleep(Duration::from_millis(5));
    }
    let mut connection = daemon.connect()?;
    let mut all = vec![lost.clone()];
    for _ in 0..3 {
        let other = new(&mut connection, "other")?;
        ensure!(worker(&mut connection, &other)?.1 != uid);
        all.push(other);
    }
    assert_eq!(workers(lost.name.as_str()), [pid], "it is left alone");
    kill(pid)?;
    for other in &all[1..] {
        connection.call(DomainDestroy {
            domain: named(other.name.as_str()),
        })?;
        wait_until_off(&mut connection, other.name.as_str())?;
    }
    // A process that an instance may start anew has nothing of the one before.
    start(&mut connection, lost.name.as_str())?;
    drop(connection);
    end_everything(&daemon, &all)
}

#[test]
fn the_uids_of_an_instance_that_is_gone_are_not_taken_from_its_workers() -> Result<()> {
    let mut gone = Daemon::start()?;
    let mut connection = gone.connect()?;
    let domain = new(&mut connection, "orphan")?;
    let (pid, uid) = worker(&mut connection, &domain)?;
    gone.kill()?;
    // The link of its block leads nowhere now, and its worker lives on.
    let state = gone.state();
    fs::rename(&state, state.with_extension("away"))?;
    let mut others = Vec::new();
    for _ in 0..3 {
        let daemon = Daemon::start()?;
        let mut connection = daemon.connect()?;
        let other = new(&mut connection, "other")?;
        let (_, theirs) = worker(&mut connection, &other)?;
        ensure!(theirs / 1024 != uid / 1024, "{theirs} is of the same block");
        others.push((daemon, other));
    }
    assert_eq!(workers(domain.name.as_str()), [pid]);
    for (daemon, other) in others {
        end_everything(&daemon, &[other])?;
    }
    // It comes back: what is its is still there.
    fs::rename(state.with_extension("away"), &state)?;
    gone.spawn()?;
    let mut connection = gone.connect()?;
    assert_eq!(worker(&mut connection, &domain)?, (pid, uid));
    drop(connection);
    end_everything(&gone, &[domain])
}
