//! Workers that outlive their supervisor, and are found again.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use reeve_ipc::api::call::{
    DomainDestroy, DomainGet, DomainPause, DomainReboot, DomainShutdown, SupervisorInfoGet,
};
use reeve_ipc::api::view::{DomainState, PausedReason, RunningReason, ShutOffReason};
use reeve_ipc::model::OnCrash;
use reeve_tests::daemon::{Daemon, built_in, named, signal, wait_for};
use rustix::process::Signal;

use super::guest::{console, expect, wait_for_guest};
use super::world::end_everything;
use super::{ECHO, assert_at_rest, define, start, wait_until_off};

/// Domains of the test; a hundred in the long form.
fn count() -> usize {
    if reeve_tests::soaking() { 100 } else { 12 }
}

#[test]
fn every_domain_is_found_as_it_was_and_none_twice() -> Result<()> {
    let mut daemon = Daemon::start()?;
    let mut connection = daemon.connect()?;
    let names: Vec<String> = (0..count()).map(|number| format!("d{number}")).collect();
    for (number, name) in names.iter().enumerate() {
        define(&mut connection, &built_in(name, ECHO))?;
        start(&mut connection, name)?;
        if number % 3 == 0 {
            connection.call(DomainPause {
                domain: named(name),
            })?;
        }
    }
    let mut before = daemon.workers();
    daemon.crash()?;
    let mut connection = daemon.connect()?;
    let info = connection.call(SupervisorInfoGet {})?;
    assert_eq!(usize::try_from(info.adopted)?, names.len());
    let mut after = daemon.workers();
    before.sort_unstable();
    after.sort_unstable();
    assert_eq!(after, before, "the same processes");
    let domains = connection.domains(true)?;
    assert_eq!(domains.len(), names.len());
    for (number, name) in names.iter().enumerate() {
        let domain = domains.iter().find(|domain| domain.name.as_str() == name);
        let expected = if number % 3 == 0 {
            DomainState::Paused(PausedReason::Adopted)
        } else {
            DomainState::Running(RunningReason::Adopted)
        };
        assert_eq!(domain.map(|domain| domain.state), Some(expected), "{name}");
    }
    // And it does what it is asked for.
    for name in &names {
        connection.call(DomainDestroy {
            domain: named(name),
        })?;
    }
    for name in &names {
        wait_until_off(&mut connection, name)?;
    }
    drop(connection);
    end_everything(&daemon, &[])
}

#[test]
fn an_orderly_end_touches_no_domain_either() -> Result<()> {
    let mut daemon = Daemon::start()?;
    let mut connection = daemon.connect()?;
    define(&mut connection, &built_in("web", ECHO))?;
    start(&mut connection, "web")?;
    let before = daemon.workers();
    ensure!(daemon.terminate()?.success());
    assert_eq!(daemon.workers(), before);
    ensure!(
        !daemon.socket().exists(),
        "the socket goes with its supervisor"
    );
    daemon.spawn()?;
    assert_eq!(daemon.workers(), before);
    end_everything(&daemon, &[])
}

#[test]
fn what_the_guest_did_meanwhile_is_dealt_with_afterwards() -> Result<()> {
    let mut daemon = Daemon::start()?;
    let mut connection = daemon.connect()?;
    // Powers off by itself while nobody watches; crashes; asks for a reset.
    define(&mut connection, &built_in("off", "mode=hold ms=300"))?;
    let mut crash = built_in("crash", ECHO);
    crash.lifecycle.on_crash = OnCrash::Restart;
    define(&mut connection, &crash)?;
    start(&mut connection, "crash")?;
    start(&mut connection, "off")?;
    daemon.kill()?;
    let workers = daemon.workers();
    assert_eq!(
        workers.len(),
        2,
        "a worker that has ended waits to be asked"
    );
    // The worker itself dies while nobody watches.
    let victim = worker_of(&daemon, "crash")?;
    signal(victim, Signal::KILL)?;
    std::thread::sleep(Duration::from_millis(600));
    daemon.spawn()?;
    let mut connection = daemon.connect()?;
    wait_for(&mut connection, &named("crash"), |details| {
        details.is_some_and(|details| {
            details.summary.state == DomainState::Running(RunningReason::Restarted)
        })
    })?;
    let details = wait_for(&mut connection, &named("off"), |details| {
        details.is_some_and(|details| {
            matches!(
                details.summary.state,
                DomainState::ShutOff(_) | DomainState::Running(_)
            )
        })
    })?;
    ensure!(details.is_some());
    drop(connection);
    end_everything(&daemon, &[])
}

/// The pid of a domain's worker, from its process list: the daemon may be gone.
fn worker_of(daemon: &Daemon, name: &str) -> Result<u32> {
    let own = daemon.workers();
    let named = reeve_tests::domain::workers(name);
    let found = named.into_iter().find(|pid| own.contains(pid));
    found.with_context(|| format!("no worker of '{name}'"))
}

#[test]
fn a_reboot_and_a_shutdown_that_were_begun_are_finished_by_the_next_supervisor() -> Result<()> {
    for guests_end_first in [false, true] {
        let mut daemon = Daemon::start()?;
        let mut connection = daemon.connect()?;
        for name in ["boots", "ends"] {
            define(&mut connection, &built_in(name, ECHO))?;
            start(&mut connection, name)?;
            wait_for_guest(&mut connection, name)?;
        }
        connection.call(DomainReboot {
            domain: named("boots"),
        })?;
        connection.call(DomainShutdown {
            domain: named("ends"),
            destroy_after_ms: Some(2000),
            for_host: false,
        })?;
        if guests_end_first {
            std::thread::sleep(Duration::from_millis(200));
        }
        daemon.crash()?;
        let mut connection = daemon.connect()?;
        wait_for(&mut connection, &named("boots"), |details| {
            details.is_some_and(|details| {
                details.resets == 1 && matches!(details.summary.state, DomainState::Running(_))
            })
        })?;
        wait_for(&mut connection, &named("ends"), |details| {
            details.is_some_and(|d| matches!(d.summary.state, DomainState::ShutOff(_)))
        })?;
        drop(connection);
        end_everything(&daemon, &[])?;
    }
    Ok(())
}

#[test]
fn a_silent_worker_is_unresponsive_until_it_answers() -> Result<()> {
    let mut daemon = Daemon::start()?;
    let mut connection = daemon.connect()?;
    define(&mut connection, &built_in("web", ECHO))?;
    define(&mut connection, &built_in("fine", ECHO))?;
    start(&mut connection, "web")?;
    start(&mut connection, "fine")?;
    let worker = worker_of(&daemon, "web")?;
    daemon.kill()?;
    signal(worker, Signal::STOP)?;
    daemon.spawn()?;
    let mut connection = daemon.connect()?;
    let web = connection.call(DomainGet {
        domain: named("web"),
    })?;
    ensure!(web.summary.unresponsive, "{web:?}");
    let fine = connection.call(DomainGet {
        domain: named("fine"),
    })?;
    ensure!(!fine.summary.unresponsive && fine.summary.state.is_active());
    signal(worker, Signal::CONT)?;
    wait_for(&mut connection, &named("web"), |details| {
        details.is_some_and(|d| {
            !d.summary.unresponsive && matches!(d.summary.state, DomainState::Running(_))
        })
    })?;
    signal(worker, Signal::STOP)?;
    daemon.crash()?;
    let mut connection = daemon.connect()?;
    connection.call(DomainDestroy {
        domain: named("web"),
    })?;
    wait_for(&mut connection, &named("web"), |details| {
        details.is_some_and(|details| {
            details.summary.state == DomainState::ShutOff(ShutOffReason::Destroyed)
                && !details.summary.reaping
        })
    })?;
    drop(connection);
    end_everything(&daemon, &[])
}

#[test]
fn a_process_that_took_over_a_recorded_pid_is_left_alone() -> Result<()> {
    let mut daemon = Daemon::start()?;
    let mut connection = daemon.connect()?;
    define(&mut connection, &built_in("web", ECHO))?;
    start(&mut connection, "web")?;
    let worker = worker_of(&daemon, "web")?;
    daemon.kill()?;
    signal(worker, Signal::KILL)?;
    reeve_tests::domain::wait_until_gone(worker, Duration::from_secs(20))?;
    // The status now names an innocent process, as a reused pid would.
    let mut innocent = std::process::Command::new("sleep").arg("60").spawn()?;
    for entry in std::fs::read_dir(daemon.run().join("domains"))? {
        let path = entry?.path().join("status.json");
        let text = std::fs::read_to_string(&path)?;
        let pid = format!("\"pid\": {worker}");
        ensure!(text.contains(&pid), "{text}");
        let text = text.replace(&pid, &format!("\"pid\": {}", innocent.id()));
        std::fs::write(&path, text)?;
    }
    daemon.spawn()?;
    let mut connection = daemon.connect()?;
    wait_until_off(&mut connection, "web")?;
    let lives = innocent.try_wait()?.is_none();
    innocent.kill()?;
    innocent.wait()?;
    ensure!(lives, "the innocent process was killed");
    assert_at_rest(&daemon);
    Ok(())
}

/// Waits until a console's log has that, and it is noted how far the log goes, which happens once a second.
fn until_noted(daemon: &Daemon, log: &Path, word: &str) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let text = std::fs::read_to_string(log).unwrap_or_default();
        let noted = noted_position(daemon)?;
        if text.contains(word) && noted == Some(u64::try_from(text.len())?) {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "{noted:?} is noted of {text}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// How far the log of the one domain's console goes, by its status.
fn noted_position(daemon: &Daemon) -> Result<Option<u64>> {
    let domain = std::fs::read_dir(daemon.run().join("domains"))?.next();
    let path = domain
        .context("no domain")??
        .path()
        .join("console-position");
    let text = std::fs::read_to_string(path).unwrap_or_default();
    Ok(text.trim().parse().ok())
}

#[test]
fn the_console_log_goes_on_where_it_was() -> Result<()> {
    let mut daemon = Daemon::start()?;
    let mut connection = daemon.connect()?;
    define(&mut connection, &built_in("web", ECHO))?;
    start(&mut connection, "web")?;
    let mut console = console(&mut connection, "web", "ready")?;
    let mut type_and_see = |text: &str| -> Result<()> {
        rustix::io::write(&console, text.as_bytes())?;
        expect(&mut console, text.trim_end())
    };
    type_and_see("before\n")?;
    let log = daemon.state().join("log/web.console.log");
    until_noted(&daemon, &log, "before")?;
    daemon.kill()?;
    // The client's console is the worker's: it does not notice.
    type_and_see("meanwhile\n")?;
    daemon.spawn()?;
    type_and_see("after\n")?;
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        if text.contains("after") {
            for word in ["before", "meanwhile", "after"] {
                assert_eq!(text.matches(word).count(), 1, "{word}: {text}");
            }
            drop((connection, console));
            return end_everything(&daemon, &[]);
        }
        ensure!(Instant::now() < deadline, "{text}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
