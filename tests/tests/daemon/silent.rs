//! Workers that say nothing, or too late: clients are answered at the deadline, and a destroy never
//! waits for one.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use reeve_ipc::api::call::{DomainDestroy, DomainFiguresList, DomainGet, DomainRef};
use reeve_ipc::api::figures::{FigureGroups, FiguresOf};
use reeve_ipc::api::view::{DomainState, ShutOffReason};
use reeve_ipc::model::Balloon;
use reeve_tests::daemon::{Daemon, built_in, named, signal, wait_for};
use reeve_tests::domain::{unique_name, workers};
use rustix::process::Signal;

use super::stage::{Asked, CALL, LONG_CALL, Stage, assert_one_line, call_start};
use super::world::end_everything;
use super::{ECHO, define, start};

#[test]
fn silence_is_answered_for_at_the_deadline_and_destroyed_at_any_time() -> Result<()> {
    let mut stage = Stage::new()?;
    let mut names = Vec::new();
    for asked in Asked::ALL {
        names.push((asked, stage.define("deaf")?));
    }
    let starting = [
        stage.define("mute")?,
        stage.define("hangs")?,
        stage.define("hangs-destroyed")?,
        stage.define("mute-destroyed")?,
    ];
    for (asked, name) in &names {
        stage.start_for(*asked, name)?;
    }
    let daemon = &stage.daemon;
    std::thread::scope(|scope| -> Result<()> {
        let mut waiting = Vec::new();
        for (asked, name) in &names {
            waiting.push(scope.spawn(move || -> Result<()> {
                let mut connection = daemon.connect()?;
                let begin = Instant::now();
                let error = asked
                    .ask(&mut connection, name)
                    .err()
                    .with_context(|| format!("{asked:?} of a deaf worker: it was done"))?;
                assert_one_line(&error, name).with_context(|| format!("{asked:?}"))?;
                let limit = match asked {
                    Asked::Reset => LONG_CALL,
                    _ => CALL,
                };
                let took = begin.elapsed();
                ensure!(took < limit, "{asked:?}: {took:?}");
                let details = connection.call(DomainGet {
                    domain: named(name),
                })?;
                ensure!(details.summary.unresponsive, "{asked:?}: {details:?}");
                ensure!(details.summary.state.is_active());
                Ok(())
            }));
        }
        for name in &starting {
            waiting.push(scope.spawn(move || -> Result<()> {
                let mut connection = daemon.connect()?;
                let error = call_start(&mut connection, name).err();
                let error = error.with_context(|| format!("{name}: it started"))?;
                let line = assert_one_line(&error, name)?;
                let destroyed = name.contains("destroyed");
                ensure!(line.contains("destroyed") == destroyed, "{name}: {line}");
                Ok(())
            }));
        }
        // Meanwhile: others are served, and those whose start hangs are destroyed at once.
        let mut connection = daemon.connect()?;
        for name in &starting[2..] {
            wait_for(&mut connection, &named(name), |details| {
                details.is_some_and(|details| details.summary.state.is_active())
            })?;
            let begin = Instant::now();
            let domain = named(name);
            connection.call(DomainDestroy { domain })?;
            let took = begin.elapsed();
            ensure!(took < Duration::from_secs(4), "{took:?}");
        }
        for thread in waiting {
            thread.join().expect("no panic")?;
        }
        Ok(())
    })?;
    for (_, name) in &names {
        stage.destroy(name)?;
    }
    for name in &starting {
        ensure!(workers(name).is_empty(), "the worker of {name} is left");
    }
    stage.end()
}

#[test]
fn a_worker_that_answers_late_is_heard_again() -> Result<()> {
    let mut stage = Stage::new()?;
    let name = stage.define("late")?;
    start(&mut stage.connection, &name)?;
    let error = Asked::Pause.ask(&mut stage.connection, &name).unwrap_err();
    assert_one_line(&error, &name)?;
    ensure!(stage.details(&name)?.summary.unresponsive);
    wait_for(&mut stage.connection, &named(&name), |details| {
        details.is_some_and(|details| !details.summary.unresponsive)
    })?;
    stage.destroy(&name)?;
    stage.end()
}

#[test]
fn a_worker_that_does_not_end_when_it_is_told_is_killed() -> Result<()> {
    let mut stage = Stage::new()?;
    let mut names = Vec::new();
    for behaviour in ["off-ignores-stop", "off-stops-and-lives", "off-in-order"] {
        names.push(stage.define(behaviour)?);
    }
    let begin = Instant::now();
    for name in &names {
        start(&mut stage.connection, name)?;
    }
    for name in &names {
        // Shut off as soon as the guest was; and a start is refused until its worker is gone.
        wait_for(&mut stage.connection, &named(name), |details| {
            details.is_some_and(|details| {
                details.summary.state == DomainState::ShutOff(ShutOffReason::Shutdown)
            })
        })?;
    }
    let early = begin.elapsed();
    ensure!(early < Duration::from_secs(4), "{early:?}");
    for name in &names {
        stage.wait_until_off(name)?;
        ensure!(workers(name).is_empty());
    }
    let took = begin.elapsed();
    ensure!(took < Duration::from_secs(16), "{took:?}");
    stage.end()
}

/// Whoever asks for figures every few seconds has an answer without those of a worker that says nothing, as often as he
/// asks, and has them when it answers again: what it owes is a few answers, not one for each question.
#[test]
fn figures_are_given_without_a_worker_that_is_silent_and_with_it_when_it_is_not() -> Result<()> {
    let mut domain = built_in(&unique_name("owes"), ECHO);
    domain.devices.balloon = Some(Balloon::default());
    let name = domain.name.as_str();
    let daemon = Daemon::start()?;
    let mut connection = daemon.connect()?;
    define(&mut connection, &domain)?;
    start(&mut connection, name)?;
    let pid = *workers(name).first().context("no worker")?;
    let mut answered = || -> Result<bool> {
        // One domain by two names.
        let both = vec![named(name), DomainRef::Uuid(domain.uuid)];
        let page = connection.call(DomainFiguresList {
            of: FiguresOf::Named(both),
            groups: FigureGroups {
                usage: true,
                vcpus: true,
                devices: true,
            },
        })?;
        ensure!((page.domains.len(), page.of) == (1, 2), "{page:?}");
        let figures = &page.domains[0];
        ensure!(figures.usage.is_some() && figures.devices.len() == 1);
        Ok(figures.answered)
    };
    ensure!(answered()?);
    signal(pid, Signal::STOP)?;
    for _ in 0..8 {
        ensure!(!answered()?, "a worker that stands answers");
    }
    signal(pid, Signal::CONT)?;
    let deadline = Instant::now() + Duration::from_secs(10);
    while !answered()? {
        ensure!(Instant::now() < deadline, "it does not answer again");
    }
    drop(connection);
    end_everything(&daemon, &[domain])
}
