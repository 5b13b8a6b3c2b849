//! The devices of the platform: what a client sees of a guest that panics, of a watchdog that expires, and
//! of a generation id.

use std::io::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use reeve_ipc::api::blocking::Connection;
use reeve_ipc::api::call::{
    DomainDestroy, DomainDeviceDetach, DomainDeviceStatsGet, DomainNmiInject, DomainResume,
    DomainUpgrade,
};
use reeve_ipc::api::error::ApiErrorCode;
use reeve_ipc::api::event::{Cursor, EventKind};
use reeve_ipc::api::view::{DomainState, PausedReason, RunningReason, ShutOffReason};
use reeve_ipc::model::{DeviceName, Domain, GenerationId, OnCrash, OnReboot, Watchdog};
use reeve_ipc::spec::WatchdogAction;
use reeve_tests::daemon::{Daemon, built_in, named, wait_for};

use super::guest::{console, expect, start_heard, told};
use super::world::end_everything;
use super::{define, start};

const CRASHED: DomainState = DomainState::ShutOff(ShutOffReason::Crashed);

fn reaches(connection: &mut Connection, name: &str, state: DomainState) -> Result<()> {
    wait_for(connection, &named(name), |details| {
        details.is_some_and(|details| details.summary.state == state)
    })?;
    Ok(())
}

/// The events of a domain so far.
fn events(connection: &mut Connection, name: &str) -> Result<Vec<EventKind>> {
    let told = told(connection)?.into_iter().map(|(_, event)| event);
    let of_it = told.filter(|event| event.name.as_str() == name);
    Ok(of_it.map(|event| event.kind).collect())
}

fn panicking(name: &str, on_crash: OnCrash) -> Domain {
    // A guest that is not stopped by its word says it as often as it likes.
    let mut domain = built_in(name, "mode=panic count=100000");
    domain.platform.panic_port = true;
    domain.lifecycle.on_crash = on_crash;
    domain
}

#[test]
fn a_guest_that_panics_in_a_loop_crashes_once_and_as_its_definition_says() -> Result<()> {
    let daemon = Daemon::start()?;
    let mut client = daemon.connect()?;
    let connection = &mut client;
    connection.subscribe(None)?;
    define(connection, &panicking("kept", OnCrash::Preserve))?;
    start(connection, "kept")?;
    reaches(connection, "kept", DomainState::Panicked)?;
    let told = events(connection, "kept")?;
    let panics = told.iter().filter(|event| **event == EventKind::Panicked);
    ensure!(panics.count() == 1, "{told:?}");

    define(connection, &panicking("gone", OnCrash::Destroy))?;
    start(connection, "gone")?;
    reaches(connection, "gone", CRASHED)?;
    let told = events(connection, "gone")?;
    ensure!(told.contains(&EventKind::Panicked), "{told:?}");

    define(connection, &panicking("again", OnCrash::Restart))?;
    start(connection, "again")?;
    reaches(connection, "again", CRASHED)?;
    let told = events(connection, "again")?;
    let restarted = EventKind::State(DomainState::Running(RunningReason::Restarted));
    ensure!(told.contains(&restarted), "{told:?}");

    let output = daemon.reeve(&["info", "kept"])?;
    ensure!(output.contains("crashed"), "{output}");
    ensure!(output.contains("its kernel panicked"), "{output}");
    ensure!(output.contains("panic port"), "{output}");
    connection.call(DomainDestroy {
        domain: named("kept"),
    })?;
    drop(client);
    end_everything(&daemon, &[])
}

#[test]
fn a_crash_kernel_is_told_of_once_and_the_guest_goes_on() -> Result<()> {
    let daemon = Daemon::start()?;
    let mut client = daemon.connect()?;
    let connection = &mut client;
    connection.subscribe(None)?;
    let mut domain = built_in("kdump", "mode=crash-kernel count=1000");
    domain.platform.panic_port = true;
    define(connection, &domain)?;
    start(connection, "kdump")?;
    let off = DomainState::ShutOff(ShutOffReason::Shutdown);
    reaches(connection, "kdump", off)?;
    let told = events(connection, "kdump")?;
    let crash_kernels = told
        .iter()
        .filter(|event| **event == EventKind::CrashKernel);
    ensure!(crash_kernels.count() == 1, "{told:?}");
    drop(client);
    end_everything(&daemon, &[])
}

/// A guest that leaves its watchdog alone, which expires after 1.5 s: it has said so by then, on a busy host too.
fn neglectful(name: &str, action: WatchdogAction) -> Domain {
    let mut domain = built_in(name, "mode=watchdog ms=1500");
    let address = None;
    domain.devices.watchdog = Some(Watchdog { action, address });
    domain
}

#[test]
fn a_watchdog_does_what_its_definition_says_and_tells() -> Result<()> {
    let daemon = Daemon::start()?;
    let mut client = daemon.connect()?;
    let connection = &mut client;
    connection.subscribe(None)?;
    let off = DomainState::ShutOff(ShutOffReason::Shutdown);
    for (action, said, state) in [
        // After the reset the guest finds out, and powers off.
        (WatchdogAction::Reset, "watchdog: has expired before", off),
        (WatchdogAction::PowerOff, "watchdog: left alone", off),
        (WatchdogAction::Shutdown, "watchdog: power button", off),
        (WatchdogAction::InjectNmi, "watchdog: NMI", off),
        (
            WatchdogAction::Pause,
            "watchdog: left alone",
            DomainState::Paused(PausedReason::Watchdog),
        ),
    ] {
        let name = action.word();
        define(connection, &neglectful(name, action))?;
        let mut stream = start_heard(connection, name)?;
        expect(&mut stream, said).with_context(|| name.to_owned())?;
        drop(stream);
        reaches(connection, name, state)?;
        let told = events(connection, name)?;
        let expired = EventKind::WatchdogExpired { action };
        let count = told.iter().filter(|event| **event == expired).count();
        ensure!(count == 1, "{name}: {told:?}");
        ensure!(told.contains(&EventKind::State(state)), "{name}: {told:?}");
    }
    // What was paused goes on, with its watchdog disabled.
    connection.call(DomainResume {
        domain: named("pause"),
    })?;
    let mut stream = console(connection, "pause", "watchdog: has expired")?;
    stream.write_all(b"q")?;
    reaches(connection, "pause", off)?;
    drop(client);
    end_everything(&daemon, &[])
}

/// The events of all domains since the daemon was started, which has adopted them.
fn since_the_start(daemon: &Daemon, names: [&str; 2]) -> Result<[Vec<EventKind>; 2]> {
    let now = daemon.connect()?.subscribe(None)?.cursor;
    let mut told = [const { Vec::new() }; 2];
    for (told, name) in told.iter_mut().zip(names) {
        let mut connection = daemon.connect()?;
        connection.subscribe(Some(Cursor { number: 0, ..now }))?;
        *told = events(&mut connection, name)?;
    }
    Ok(told)
}

#[test]
fn what_happens_while_there_is_no_daemon_is_told_by_the_next_and_by_no_other() -> Result<()> {
    let mut daemon = Daemon::start()?;
    let action = WatchdogAction::Pause;
    let expired = EventKind::WatchdogExpired { action };
    {
        let mut client = daemon.connect()?;
        let connection = &mut client;
        define(connection, &panicking("panicked", OnCrash::Preserve))?;
        start(connection, "panicked")?;
        reaches(connection, "panicked", DomainState::Panicked)?;
        let mut domain = neglectful("left", action);
        domain.boot = built_in("left", "mode=watchdog ms=3000").boot;
        define(connection, &domain)?;
        start(connection, "left")?;
        drop(console(connection, "left", "watchdog: left alone")?);
    }
    daemon.kill()?;
    std::thread::sleep(Duration::from_secs(4));
    for times in [1, 0] {
        daemon.spawn()?;
        let mut client = daemon.connect()?;
        let paused = DomainState::Paused(PausedReason::Watchdog);
        let adopted = DomainState::Paused(PausedReason::Adopted);
        let state = if times == 1 { paused } else { adopted };
        reaches(&mut client, "left", state)?;
        reaches(&mut client, "panicked", DomainState::Panicked)?;
        // A state is shown before its event is told.
        let deadline = Instant::now() + Duration::from_secs(10);
        let panicked = loop {
            let [left, panicked] = since_the_start(&daemon, ["left", "panicked"])?;
            let count = left.iter().filter(|event| **event == expired).count();
            if count == times {
                break panicked;
            }
            ensure!(count < times && Instant::now() < deadline, "{left:?}");
            std::thread::sleep(Duration::from_millis(20));
        };
        // That was told while there was one.
        ensure!(!panicked.contains(&EventKind::Panicked), "{panicked:?}");
        drop(client);
        daemon.kill()?;
    }
    daemon.spawn()?;
    for name in ["left", "panicked"] {
        let domain = named(name);
        daemon.connect()?.call(DomainDestroy { domain })?;
    }
    end_everything(&daemon, &[])
}

#[test]
fn a_watchdogs_reset_is_one_of_the_guests_to_its_policy() -> Result<()> {
    let daemon = Daemon::start()?;
    let mut client = daemon.connect()?;
    let connection = &mut client;
    let mut domain = neglectful("kept", WatchdogAction::Reset);
    domain.lifecycle.on_reboot = OnReboot::Preserve;
    define(connection, &domain)?;
    start(connection, "kept")?;
    let kept = DomainState::Paused(PausedReason::PoweredOff);
    reaches(connection, "kept", kept)?;
    drop(client);
    end_everything(&daemon, &[])
}

#[test]
fn a_watchdog_that_only_tells_leaves_the_guest_alone_and_its_domain_as_it_is() -> Result<()> {
    let daemon = Daemon::start()?;
    let mut client = daemon.connect()?;
    let connection = &mut client;
    define(connection, &neglectful("told", WatchdogAction::Nothing))?;
    start(connection, "told")?;
    let mut stream = console(connection, "told", "watchdog: has expired")?;
    let stats = connection.call(DomainDeviceStatsGet {
        domain: named("told"),
    })?;
    let listed = stats.iter().map(|stats| &stats.device);
    ensure!(listed.eq([&DeviceName::Watchdog]), "{stats:?}");
    let detach = connection.call(DomainDeviceDetach {
        domain: named("told"),
        device: DeviceName::Watchdog,
        force: true,
        live: true,
        persistent: false,
    });
    let refused = detach.err().context("it was detached")?;
    let refused = refused.refused().context("not a refusal")?;
    ensure!(refused.code == ApiErrorCode::Unsupported, "{refused:?}");
    stream.write_all(b"q")?;
    reaches(
        connection,
        "told",
        DomainState::ShutOff(ShutOffReason::Shutdown),
    )?;
    drop(client);
    end_everything(&daemon, &[])
}

#[test]
fn an_upgrade_leaves_the_generation_as_it_is_and_each_start_has_another() -> Result<()> {
    let daemon = Daemon::start()?;
    let mut client = daemon.connect()?;
    let connection = &mut client;
    let mut domain = built_in("web", "mode=generation");
    domain.platform.generation_id = GenerationId::Random;
    define(connection, &domain)?;
    let off = DomainState::ShutOff(ShutOffReason::Shutdown);
    for _ in 0..2 {
        start(connection, "web")?;
        let mut stream = console(connection, "web", "generation at the start")?;
        connection.call(DomainUpgrade {
            domain: named("web"),
        })?;
        stream.write_all(b"n")?;
        expect(&mut stream, "generation now: ")?;
        stream.write_all(b"q")?;
        expect(&mut stream, "power off")?;
        reaches(connection, "web", off)?;
        super::wait_until_off(connection, "web")?;
    }
    // The log is written beside, and may be behind.
    let path = daemon.state().join("log/web.console.log");
    let deadline = Instant::now() + Duration::from_secs(10);
    let log = loop {
        let log = std::fs::read_to_string(&path).unwrap_or_default();
        if log.matches("power off").count() == 2 || Instant::now() > deadline {
            break log;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let ids = |begin: &str| -> Vec<String> {
        let lines = log.lines().filter_map(|line| line.strip_prefix(begin));
        lines.map(|id| id.trim().to_owned()).collect()
    };
    let (starts, later) = (ids("generation at the start: "), ids("generation now: "));
    ensure!(starts.len() == 2 && starts == later, "{log}");
    ensure!(starts[0] != starts[1], "{log}");
    ensure!(ids("generation is another").is_empty(), "{log}");
    drop(client);
    end_everything(&daemon, &[])
}

#[test]
fn an_interrupt_that_cannot_be_masked_reaches_a_guest() -> Result<()> {
    let daemon = Daemon::start()?;
    let mut client = daemon.connect()?;
    let connection = &mut client;
    define(connection, &neglectful("nmi", WatchdogAction::Nothing))?;
    start(connection, "nmi")?;
    let domain = named("nmi");
    // Its console goes with it, as soon as it has heard the interrupt.
    let mut stream = console(connection, "nmi", "watchdog: left alone")?;
    connection.call(DomainNmiInject {
        domain: domain.clone(),
    })?;
    expect(&mut stream, "watchdog: NMI")?;
    drop(stream);
    let off = DomainState::ShutOff(ShutOffReason::Shutdown);
    wait_for(connection, &domain, |details| {
        details.is_some_and(|details| details.summary.state == off)
    })?;
    let refused = connection.call(DomainNmiInject { domain });
    ensure!(refused.is_err());
    drop(client);
    end_everything(&daemon, &[])
}
