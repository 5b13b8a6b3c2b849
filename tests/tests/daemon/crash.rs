//! The supervisor dies at any time of a domain's life, is started again, and the world is compared
//! with what was acknowledged.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use reeve_ipc::api::blocking::{CallError, Connection};
use reeve_ipc::api::call::{
    DomainDestroy, DomainGet, DomainPause, DomainReboot, DomainResume, DomainShutdown, DomainStart,
    DomainUndefine, StartOptions,
};
use reeve_ipc::api::error::ApiErrorCode;
use reeve_ipc::api::view::{DomainDetails, DomainState};
use reeve_tests::daemon::{Daemon, built_in, named, wait_for};

use super::guest::wait_for_guest;
use super::{ECHO, assert_at_rest, define};

/// What was acknowledged before the supervisor died.
#[derive(Debug, Default, Clone, Copy)]
struct Acknowledged {
    defined: bool,
    started: bool,
    rebooted: bool,
    paused: bool,
    resumed: bool,
    shut_down: bool,
    destroyed: bool,
    undefined: bool,
}

/// Goes through a domain's life until the supervisor dies or the end is reached.
fn live(connection: &mut Connection, told: &mut Acknowledged) -> Result<(), CallError> {
    let web = || named("web");
    let domain = built_in("web", ECHO);
    connection.call(reeve_ipc::api::call::DomainDefine {
        definition: Box::new(domain),
        only_new: false,
    })?;
    told.defined = true;
    let start = || DomainStart {
        domain: web(),
        options: StartOptions::default(),
    };
    connection.call(start())?;
    told.started = true;
    wait_for_guest(connection, "web")?;
    connection.call(DomainReboot { domain: web() })?;
    told.rebooted = true;
    wait_while(connection, |details| details.resets == 0)?;
    connection.call(DomainPause { domain: web() })?;
    told.paused = true;
    connection.call(DomainResume { domain: web() })?;
    told.resumed = true;
    wait_for_guest(connection, "web")?;
    connection.call(DomainShutdown {
        domain: web(),
        destroy_after_ms: Some(3000),
        for_host: false,
    })?;
    told.shut_down = true;
    wait_while(connection, |details| {
        details.summary.state.is_active() || details.summary.reaping
    })?;
    connection.call(start())?;
    connection.call(DomainDestroy { domain: web() })?;
    told.destroyed = true;
    wait_while(connection, |details| details.summary.reaping)?;
    connection.call(DomainUndefine { domain: web() })?;
    told.undefined = true;
    Ok(())
}

fn wait_while(
    connection: &mut Connection,
    state: impl Fn(&DomainDetails) -> bool,
) -> Result<(), CallError> {
    for _ in 0..5000 {
        let details = connection.call(DomainGet {
            domain: named("web"),
        })?;
        if !state(&details) {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// Whether the world agrees with what was acknowledged, and everything can be ended.
fn compare(daemon: &Daemon, told: Acknowledged) -> Result<()> {
    let mut connection = daemon.connect()?;
    let connection = &mut connection;
    let details = match connection.call(DomainGet {
        domain: named("web"),
    }) {
        Ok(details) => Some(details),
        Err(error)
            if error
                .refused()
                .is_some_and(|e| e.code == ApiErrorCode::NoDomain) =>
        {
            None
        }
        Err(error) => return Err(error.into()),
    };
    if told.undefined {
        ensure!(details.is_none(), "undefined, and there: {details:?}");
        return Ok(());
    }
    let Some(details) = details else {
        // An undefine may have been done and not answered.
        ensure!(!told.defined || told.destroyed, "defined, and lost");
        return Ok(());
    };
    let state = details.summary.state;
    if told.destroyed {
        ensure!(!state.is_active(), "destroyed, and {state:?}");
    } else if told.shut_down {
        wait_for(connection, &named("web"), |details| {
            details.is_some_and(|d| {
                matches!(
                    d.summary.state,
                    DomainState::ShutOff(_) | DomainState::Running(_)
                )
            })
        })?;
    } else if told.started {
        if told.resumed && !state.is_active() {
            // The shutdown was begun and not answered.
            return Ok(());
        }
        ensure!(state.is_active(), "started, and {state:?}");
        if told.rebooted {
            wait_for(connection, &named("web"), |details| {
                details.is_some_and(|details| details.resets == 1)
            })?;
        }
        if told.resumed {
            ensure!(
                matches!(state, DomainState::Running(_) | DomainState::ShuttingDown),
                "{state:?}"
            );
        }
    }
    Ok(())
}

fn clean_up(daemon: &Daemon) -> Result<()> {
    let mut connection = daemon.connect()?;
    let web = || named("web");
    let gone = |error: &CallError| error.refused().is_some();
    match connection.call(DomainDestroy { domain: web() }) {
        Ok(()) => {}
        Err(error) if gone(&error) => {}
        Err(error) => return Err(error.into()),
    }
    wait_for(&mut connection, &web(), |details| {
        details.is_none_or(|details| !details.summary.state.is_active() && !details.summary.reaping)
    })?;
    match connection.call(DomainUndefine { domain: web() }) {
        Ok(()) => {}
        Err(error) if gone(&error) => {}
        Err(error) => return Err(error.into()),
    }
    ensure!(connection.domains(false)?.is_empty());
    assert_at_rest(daemon);
    let records = std::fs::read_dir(daemon.state().join("domains"))?.count();
    assert_eq!(records, 0, "a record is left");
    Ok(())
}

#[test]
fn a_supervisor_killed_at_any_time_has_kept_its_word() -> Result<()> {
    let rounds = if reeve_tests::soaking() { 100 } else { 12 };
    for round in 0..rounds {
        let mut daemon = Daemon::start()?;
        let mut connection = daemon.connect()?;
        let working = std::thread::spawn(move || {
            let mut told = Acknowledged::default();
            let _ = live(&mut connection, &mut told);
            told
        });
        // Spread over the whole life, the beginning most.
        std::thread::sleep(Duration::from_millis(round * round * 7 % 600));
        daemon.kill()?;
        let told = working.join().expect("no panic");
        daemon.spawn()?;
        compare(&daemon, told).with_context(|| format!("{round}: {told:?}: {}", daemon.log()))?;
        clean_up(&daemon).with_context(|| format!("{round}: {told:?}: {}", daemon.log()))?;
    }
    Ok(())
}

#[test]
fn an_unacknowledged_define_is_whole_or_not_there() -> Result<()> {
    let mut daemon = Daemon::prepare()?;
    daemon.set("REEVE_CRASH", "define.after-temporary");
    daemon.spawn()?;
    let error = define(&mut daemon.connect()?, &built_in("web", ECHO)).unwrap_err();
    ensure!(error.to_string().contains("closed"), "{error}");
    daemon.wait_for_end()?;
    daemon.set("REEVE_CRASH", "");
    daemon.spawn()?;
    ensure!(daemon.connect()?.domains(false)?.is_empty());
    let left = std::fs::read_dir(daemon.state().join("domains"))?.count();
    assert_eq!(left, 0, "the temporary is removed");
    Ok(())
}
