//! What a definition says about its guest's own ends.

use std::time::Duration;

use anyhow::{Result, ensure};
use reeve_ipc::api::call::{DomainDestroy, DomainGet, DomainReset, DomainShutdown};
use reeve_ipc::api::view::{DomainState, PausedReason, RunningReason, ShutOffReason};
use reeve_ipc::model::{OnCrash, OnPowerOff, OnReboot};
use reeve_tests::daemon::{Daemon, built_in, named, wait_for};

use super::guest::console;
use super::world::end_everything;
use super::{ECHO, define, start};

#[test]
fn power_off_restarts_or_keeps_the_machine_as_the_definition_says() -> Result<()> {
    let daemon = Daemon::start()?;
    let mut client = daemon.connect()?;
    let connection = &mut client;
    for (name, policy, expected) in [
        (
            "again",
            OnPowerOff::Restart,
            DomainState::Running(RunningReason::Restarted),
        ),
        (
            "kept",
            OnPowerOff::Preserve,
            DomainState::Paused(PausedReason::PoweredOff),
        ),
        (
            "gone",
            OnPowerOff::Destroy,
            DomainState::ShutOff(ShutOffReason::Shutdown),
        ),
    ] {
        let mut domain = built_in(name, ECHO);
        domain.lifecycle.on_power_off = policy;
        define(connection, &domain)?;
        start(connection, name)?;
        // A guest that is still booting clears the button that was pressed.
        drop(console(connection, name, "ready")?);
        connection.call(DomainShutdown {
            domain: named(name),
            destroy_after_ms: None,
            for_host: false,
        })?;
        wait_for(connection, &named(name), |details| {
            details.is_some_and(|details| details.summary.state == expected)
        })?;
    }
    // A machine that was kept can be reset and runs on.
    connection.call(DomainReset {
        domain: named("kept"),
    })?;
    let details = connection.call(DomainGet {
        domain: named("kept"),
    })?;
    ensure!(
        matches!(details.summary.state, DomainState::Running(_)),
        "{details:?}"
    );
    for name in ["again", "kept"] {
        connection.call(DomainDestroy {
            domain: named(name),
        })?;
        super::wait_until_off(connection, name)?;
    }
    drop(client);
    end_everything(&daemon, &[])
}

#[test]
fn a_reset_by_the_guest_follows_its_policy() -> Result<()> {
    let daemon = Daemon::start()?;
    let mut client = daemon.connect()?;
    let connection = &mut client;
    for (name, policy, expected) in [
        (
            "gone",
            OnReboot::Destroy,
            DomainState::ShutOff(ShutOffReason::Shutdown),
        ),
        (
            "kept",
            OnReboot::Preserve,
            DomainState::Paused(PausedReason::PoweredOff),
        ),
        (
            "again",
            OnReboot::Restart,
            DomainState::ShutOff(ShutOffReason::Shutdown),
        ),
    ] {
        // It resets itself once, and powers off when it has booted again.
        let mut domain = built_in(name, "mode=reset-once");
        domain.lifecycle.on_reboot = policy;
        define(connection, &domain)?;
        start(connection, name)?;
        let details = wait_for(connection, &named(name), |details| {
            details.is_some_and(|details| details.summary.state == expected)
        })?;
        ensure!(details.is_some());
    }
    let again = |name: &str| {
        let log = daemon.state().join(format!("log/{name}.console.log"));
        let text = std::fs::read_to_string(log).unwrap_or_default();
        text.contains("second boot")
    };
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while !again("again") {
        ensure!(std::time::Instant::now() < deadline, "it was not restarted");
        std::thread::sleep(Duration::from_millis(10));
    }
    ensure!(!again("gone") && !again("kept"), "one was restarted");
    drop(client);
    end_everything(&daemon, &[])
}

#[test]
fn a_crash_restarts_a_few_times_and_then_no_more() -> Result<()> {
    let daemon = Daemon::start()?;
    let mut client = daemon.connect()?;
    let connection = &mut client;
    let mut domain = built_in("loop", "mode=triple-fault");
    domain.lifecycle.on_crash = OnCrash::Restart;
    define(connection, &domain)?;
    start(connection, "loop")?;
    let details = wait_for(connection, &named("loop"), |details| {
        details.is_some_and(|d| d.summary.state == DomainState::ShutOff(ShutOffReason::Crashed))
    })?;
    let failure = details.and_then(|details| details.last_failure);
    ensure!(
        failure
            .as_deref()
            .is_some_and(|failure| failure.contains("stays off")),
        "{failure:?}"
    );
    let mut domain = built_in("kept", "mode=triple-fault");
    domain.lifecycle.on_crash = OnCrash::Preserve;
    define(connection, &domain)?;
    start(connection, "kept")?;
    wait_for(connection, &named("kept"), |details| {
        details.is_some_and(|details| details.summary.state == DomainState::Crashed)
    })?;
    drop(client);
    end_everything(&daemon, &[])
}

#[test]
fn the_death_of_a_worker_concerns_its_domain_alone() -> Result<()> {
    let daemon = Daemon::start()?;
    let mut client = daemon.connect()?;
    let connection = &mut client;
    let mut again = built_in("again", ECHO);
    again.lifecycle.on_crash = OnCrash::Restart;
    for domain in [built_in("dies", ECHO), again, built_in("stays", ECHO)] {
        define(connection, &domain)?;
        start(connection, domain.name.as_str())?;
    }
    let pid = |connection: &mut reeve_ipc::api::blocking::Connection, name: &str| {
        let details = connection.call(DomainGet {
            domain: named(name),
        });
        details.map(|details| details.worker.map_or(0, |worker| worker.pid))
    };
    let stays = pid(connection, "stays")?;
    for name in ["dies", "again"] {
        let pid = pid(connection, name)?;
        reeve_tests::daemon::signal(pid, rustix::process::Signal::KILL)?;
    }
    let details = wait_for(connection, &named("dies"), |details| {
        details.is_some_and(|d| d.summary.state == DomainState::ShutOff(ShutOffReason::Crashed))
    })?;
    let failure = details
        .and_then(|details| details.last_failure)
        .unwrap_or_default();
    ensure!(failure.contains("SIGKILL"), "{failure}");
    wait_for(connection, &named("again"), |details| {
        details.is_some_and(|details| {
            details.summary.state == DomainState::Running(RunningReason::Restarted)
        })
    })?;
    assert_eq!(pid(connection, "stays")?, stays);
    drop(client);
    end_everything(&daemon, &[])
}

#[test]
fn a_stopped_worker_holds_up_nobody_and_can_be_destroyed() -> Result<()> {
    let daemon = Daemon::start()?;
    let mut connection = daemon.connect()?;
    define(&mut connection, &built_in("stuck", ECHO))?;
    define(&mut connection, &built_in("fine", ECHO))?;
    start(&mut connection, "stuck")?;
    let worker = *daemon.workers().first().expect("a worker");
    reeve_tests::daemon::signal(worker, rustix::process::Signal::STOP)?;
    let mut other = daemon.connect()?;
    let pausing = std::thread::spawn(move || {
        other.call(reeve_ipc::api::call::DomainPause {
            domain: named("stuck"),
        })
    });
    std::thread::sleep(Duration::from_millis(50));
    let begin = std::time::Instant::now();
    assert_eq!(connection.domains(false)?.len(), 2);
    start(&mut connection, "fine")?;
    connection.call(DomainDestroy {
        domain: named("stuck"),
    })?;
    ensure!(
        begin.elapsed() < Duration::from_secs(4),
        "{:?}",
        begin.elapsed()
    );
    ensure!(
        pausing.join().expect("no panic").is_err(),
        "the pause was overtaken"
    );
    super::wait_until_off(&mut connection, "stuck")?;
    drop(connection);
    end_everything(&daemon, &[])
}
