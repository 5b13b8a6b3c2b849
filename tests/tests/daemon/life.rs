//! The life of a domain, as libvirt's users know it.

use std::io::Write as _;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use reeve_ipc::api::blocking::Connection;
use reeve_ipc::api::call::{
    DomainAutostartSet, DomainCreate, DomainDefine, DomainDestroy, DomainGet, DomainLabelSet,
    DomainPause, DomainReboot, DomainRename, DomainReset, DomainResume, DomainShutdown,
    DomainStart, DomainUndefine, LabelChange, StartOptions,
};
use reeve_ipc::api::error::ApiErrorCode;
use reeve_ipc::api::event::EventKind;
use reeve_ipc::api::view::{DomainState, PausedReason, RunningReason, ShutOffReason};
use reeve_ipc::model::MetadataElement;
use reeve_tests::daemon::{Daemon, built_in, named, signal, wait_for};
use rustix::process::Signal;

use super::guest::{self, console, expect};
use super::{ECHO, assert_at_rest, define, start, wait_until_off};

fn state(connection: &mut Connection, name: &str) -> Result<DomainState> {
    let domain = named(name);
    Ok(connection.call(DomainGet { domain })?.summary.state)
}

#[test]
fn a_domain_goes_through_every_state_and_tells_of_each() -> Result<()> {
    let daemon = Daemon::start()?;
    let mut connection = daemon.connect()?;
    let connection = &mut connection;
    connection.subscribe(None)?;
    let domain = built_in("web", ECHO);
    define(connection, &domain)?;
    assert_eq!(
        state(connection, "web")?,
        DomainState::ShutOff(ShutOffReason::Unknown)
    );
    start(connection, "web")?;
    assert_eq!(
        state(connection, "web")?,
        DomainState::Running(RunningReason::Booted)
    );
    let mut stream = console(connection, "web", "ready")?;
    let web = || named("web");
    connection.call(DomainPause { domain: web() })?;
    connection.call(DomainPause { domain: web() })?;
    assert_eq!(
        state(connection, "web")?,
        DomainState::Paused(PausedReason::User)
    );
    connection.call(DomainResume { domain: web() })?;
    assert_eq!(
        state(connection, "web")?,
        DomainState::Running(RunningReason::Unpaused)
    );
    connection.call(DomainReset { domain: web() })?;
    expect(&mut stream, "ready")?;
    stream.write_all(b"hello there\n")?;
    expect(&mut stream, "hello there")?;
    let shutdown = DomainShutdown {
        domain: web(),
        destroy_after_ms: None,
        for_host: false,
    };
    connection.call(shutdown)?;
    wait_until_off(connection, "web")?;
    assert_eq!(
        state(connection, "web")?,
        DomainState::ShutOff(ShutOffReason::Shutdown)
    );
    start(connection, "web")?;
    connection.call(DomainDestroy { domain: web() })?;
    wait_until_off(connection, "web")?;
    assert_eq!(
        state(connection, "web")?,
        DomainState::ShutOff(ShutOffReason::Destroyed)
    );
    connection.call(DomainUndefine { domain: web() })?;
    let error = connection.call(DomainGet { domain: web() }).unwrap_err();
    assert_eq!(
        error.refused().map(|e| e.code),
        Some(ApiErrorCode::NoDomain)
    );

    let mut told = Vec::new();
    for (cursor, event) in guest::told(connection)? {
        assert_eq!(cursor.number, told.len() as u64 + 1, "no event is missing");
        assert_eq!(event.uuid, domain.uuid);
        told.push(event.kind);
    }
    let states: Vec<DomainState> = told
        .iter()
        .filter_map(|kind| match kind {
            EventKind::State(state) => Some(*state),
            _ => None,
        })
        .collect();
    use DomainState::{Paused, Running, ShutOff, ShuttingDown};
    let expected = [
        Paused(PausedReason::StartingUp),
        Running(RunningReason::Booted),
        Paused(PausedReason::User),
        Running(RunningReason::Unpaused),
        ShuttingDown,
        ShutOff(ShutOffReason::Shutdown),
        Paused(PausedReason::StartingUp),
        Running(RunningReason::Booted),
        ShutOff(ShutOffReason::Destroyed),
    ];
    // A guest that is faster than the answer skips what it is asked for.
    let without = |skip: DomainState| {
        states
            .iter()
            .filter(|s| **s != skip)
            .copied()
            .collect::<Vec<_>>()
    };
    assert_eq!(
        without(ShuttingDown),
        expected
            .iter()
            .filter(|s| **s != ShuttingDown)
            .copied()
            .collect::<Vec<_>>()
    );
    assert!(told.contains(&EventKind::Reset));
    assert_eq!(told.last(), Some(&EventKind::Undefined));
    assert_at_rest(&daemon);
    Ok(())
}

#[test]
fn what_cannot_be_done_in_a_state_says_why() -> Result<()> {
    let daemon = Daemon::start()?;
    let mut connection = daemon.connect()?;
    let connection = &mut connection;
    define(connection, &built_in("web", ECHO))?;
    let web = || named("web");
    let code = |error: reeve_ipc::api::blocking::CallError| error.refused().map(|e| e.code);
    let pause = connection.call(DomainPause { domain: web() }).unwrap_err();
    assert_eq!(
        pause.to_string(),
        "domain 'web': it is not running; start it first"
    );
    assert_eq!(code(pause), Some(ApiErrorCode::WrongState));
    let destroy = connection
        .call(DomainDestroy { domain: web() })
        .unwrap_err();
    assert_eq!(code(destroy), Some(ApiErrorCode::WrongState));
    start(connection, "web")?;
    let again = connection.call(DomainStart {
        domain: web(),
        options: StartOptions::default(),
    });
    assert_eq!(
        again.unwrap_err().to_string(),
        "domain 'web': it is running already"
    );
    let rename = connection.call(DomainRename {
        domain: web(),
        name: "db".parse()?,
    });
    assert_eq!(code(rename.unwrap_err()), Some(ApiErrorCode::WrongState));
    // Same name, another UUID; same UUID, another name.
    let twice = connection.call(DomainDefine {
        definition: Box::new(built_in("web", ECHO)),
        only_new: false,
    });
    assert_eq!(code(twice.unwrap_err()), Some(ApiErrorCode::DomainExists));
    let domain = connection
        .call(reeve_ipc::api::call::DomainDefinitionGet {
            domain: web(),
            persistent: true,
        })?
        .domain;
    let mut renamed = domain.clone();
    renamed.name = "db".parse()?;
    let other = connection.call(DomainDefine {
        definition: Box::new(renamed),
        only_new: false,
    });
    assert_eq!(code(other.unwrap_err()), Some(ApiErrorCode::DomainExists));
    let only_new = connection.call(DomainDefine {
        definition: Box::new(domain),
        only_new: true,
    });
    assert_eq!(
        code(only_new.unwrap_err()),
        Some(ApiErrorCode::DomainExists)
    );
    let mut odd = built_in("odd", ECHO);
    odd.memory = reeve_ipc::model::MemorySize(4097);
    let invalid = connection.call(DomainDefine {
        definition: Box::new(odd),
        only_new: false,
    });
    assert_eq!(
        code(invalid.unwrap_err()),
        Some(ApiErrorCode::InvalidArgument)
    );
    assert_eq!(
        connection.domains(false)?.len(),
        1,
        "refusals leave nothing"
    );
    Ok(())
}

#[test]
fn a_transient_domain_is_gone_when_it_ends_and_a_bound_one_with_its_client() -> Result<()> {
    let daemon = Daemon::start()?;
    let mut connection = daemon.connect()?;
    let create = |name: &str, auto_destroy| DomainCreate {
        definition: Box::new(built_in(name, ECHO)),
        options: StartOptions {
            paused: false,
            auto_destroy,
        },
    };
    let summary = connection.call(create("once", false))?;
    ensure!(!summary.persistent && summary.state.is_active());
    connection.call(DomainDestroy {
        domain: named("once"),
    })?;
    wait_for(&mut connection, &named("once"), |details| details.is_none())?;

    let mut bound = daemon.connect()?;
    bound.call(create("bound", true))?;
    drop(bound);
    wait_for(&mut connection, &named("bound"), |details| {
        details.is_none()
    })?;
    assert_at_rest(&daemon);
    Ok(())
}

#[test]
fn names_labels_and_autostart_survive_the_supervisor() -> Result<()> {
    let mut daemon = Daemon::start()?;
    let mut connection = daemon.connect()?;
    define(&mut connection, &built_in("old", ECHO))?;
    connection.call(DomainRename {
        domain: named("old"),
        name: "new name".parse()?,
    })?;
    let new = || named("new name");
    for label in [
        LabelChange::Title(Some("A title".to_owned())),
        LabelChange::Metadata(MetadataElement {
            uri: "http://example.org/".to_owned(),
            content: "<x/>".to_owned(),
        }),
    ] {
        connection.call(DomainLabelSet {
            domain: new(),
            label,
            live: false,
            persistent: true,
        })?;
    }
    connection.call(DomainAutostartSet {
        domain: new(),
        order: Some(7),
    })?;
    daemon.crash()?;
    let mut connection = daemon.connect()?;
    let summary = connection.call(DomainGet { domain: new() })?.summary;
    assert_eq!(summary.title.as_deref(), Some("A title"));
    assert_eq!(summary.autostart, Some(7));
    let definition = connection.call(reeve_ipc::api::call::DomainDefinitionGet {
        domain: new(),
        persistent: true,
    })?;
    assert_eq!(definition.domain.labels.metadata.len(), 1);
    assert_eq!(connection.domains(false)?.len(), 1);
    Ok(())
}

#[test]
fn domains_start_with_the_host_in_their_order_and_only_once_a_boot() -> Result<()> {
    let mut daemon = Daemon::start()?;
    let mut connection = daemon.connect()?;
    for (name, order) in [("second", 2), ("first", 1), ("third", 3)] {
        define(&mut connection, &built_in(name, ECHO))?;
        connection.call(DomainAutostartSet {
            domain: named(name),
            order: Some(order),
        })?;
    }
    define(&mut connection, &built_in("never", ECHO))?;
    daemon.kill()?;
    // As a boot does.
    std::fs::remove_dir_all(daemon.run())?;
    daemon.spawn()?;
    let mut connection = daemon.connect()?;
    let mut started = Vec::new();
    for name in ["first", "second", "third"] {
        let details = wait_for(&mut connection, &named(name), |details| {
            details.is_some_and(|d| matches!(d.summary.state, DomainState::Running(_)))
        })?;
        started.push(
            details
                .and_then(|details| details.summary.id)
                .context("no number")?,
        );
    }
    assert!(started.is_sorted(), "{started:?}");
    ensure!(!state(&mut connection, "never")?.is_active());
    connection.call(DomainDestroy {
        domain: named("second"),
    })?;
    daemon.crash()?;
    std::thread::sleep(Duration::from_millis(200));
    let mut connection = daemon.connect()?;
    ensure!(
        !state(&mut connection, "second")?.is_active(),
        "somebody had shut it down"
    );
    ensure!(state(&mut connection, "first")?.is_active());
    Ok(())
}

#[test]
fn a_reboot_ends_with_the_same_worker_running() -> Result<()> {
    let daemon = Daemon::start()?;
    let mut connection = daemon.connect()?;
    define(&mut connection, &built_in("web", ECHO))?;
    start(&mut connection, "web")?;
    let mut stream = console(&mut connection, "web", "ready")?;
    let before = daemon.workers();
    connection.call(DomainReboot {
        domain: named("web"),
    })?;
    let details = wait_for(&mut connection, &named("web"), |details| {
        details.is_some_and(|details| {
            details.resets == 1 && matches!(details.summary.state, DomainState::Running(_))
        })
    })?;
    assert_eq!(
        details.map(|details| details.summary.state),
        Some(DomainState::Running(RunningReason::Restarted))
    );
    assert_eq!(daemon.workers(), before);
    // Once is enough: the next power-off is one. A guest that is still booting does not hear it.
    expect(&mut stream, "ready")?;
    stream.write_all(b"q")?;
    wait_until_off(&mut connection, "web")?;
    assert_at_rest(&daemon);
    Ok(())
}

#[test]
fn nothing_is_noted_of_a_console_whose_worker_is_gone() -> Result<()> {
    let daemon = Daemon::start()?;
    let mut connection = daemon.connect()?;
    define(&mut connection, &built_in("web", ECHO))?;
    let daemons = daemon.pid().context("no daemon")?;
    for _ in 0..2 {
        start(&mut connection, "web")?;
        let mut stream = console(&mut connection, "web", "ready")?;
        // So long that what comes next is noted as soon as it is logged, which takes some milliseconds.
        std::thread::sleep(Duration::from_millis(2200));
        // It hears of what was said last when it hears of the end.
        signal(daemons, Signal::STOP)?;
        stream.write_all(b"x")?;
        expect(&mut stream, "x")?;
        std::thread::sleep(Duration::from_millis(20));
        for worker in daemon.workers() {
            signal(worker, Signal::KILL)?;
        }
        signal(daemons, Signal::CONT)?;
        wait_until_off(&mut connection, "web")?;
        std::thread::sleep(Duration::from_millis(50));
        assert_at_rest(&daemon);
    }
    Ok(())
}

#[test]
fn a_guest_that_ignores_its_button_is_destroyed_when_time_is_up() -> Result<()> {
    let daemon = Daemon::start()?;
    let mut connection = daemon.connect()?;
    connection.subscribe(None)?;
    define(&mut connection, &built_in("deaf", "mode=spin"))?;
    start(&mut connection, "deaf")?;
    connection.call(DomainShutdown {
        domain: named("deaf"),
        destroy_after_ms: Some(300),
        for_host: false,
    })?;
    wait_until_off(&mut connection, "deaf")?;
    let destroyed = DomainState::ShutOff(ShutOffReason::Destroyed);
    assert_eq!(state(&mut connection, "deaf")?, destroyed);
    // Whoever asks may be later than that.
    let told = guest::told(&mut connection)?.into_iter();
    let told: Vec<EventKind> = told.map(|(_, event)| event.kind).collect();
    let last = [DomainState::ShuttingDown, destroyed].map(EventKind::State);
    ensure!(told.ends_with(&last), "{told:?}");
    Ok(())
}
