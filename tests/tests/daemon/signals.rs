//! Real workers killed, stopped and continued by somebody else, at each phase.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use reeve_ipc::api::blocking::Connection;
use reeve_ipc::api::call::{
    DomainDestroy, DomainGet, DomainPause, DomainResume, DomainShutdown, DomainStart,
    DomainStatsGet, StartOptions,
};
use reeve_ipc::api::error::ApiErrorCode;
use reeve_ipc::api::view::{DomainDetails, DomainState, PausedReason, ShutOffReason};
use reeve_ipc::model::{Domain, OnCrash, OnPowerOff};
use reeve_tests::daemon::{Daemon, built_in, named, signal, wait_for};
use reeve_tests::domain::{unique_name, wait_for_worker, workers};
use rustix::process::Signal;

use super::world::end_everything;
use super::{ECHO, define, start};

/// A phase in which a worker may be hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Running,
    Paused,
    ShuttingDown,
    OffPreserved,
    CrashedPreserved,
}

impl Phase {
    const ALL: [Self; 5] = [
        Self::Running,
        Self::Paused,
        Self::ShuttingDown,
        Self::OffPreserved,
        Self::CrashedPreserved,
    ];

    fn domain(self) -> Domain {
        let guest = match self {
            Self::Running | Self::Paused => ECHO,
            // It does not hear its button.
            Self::ShuttingDown => "mode=hold",
            Self::OffPreserved => "",
            Self::CrashedPreserved => "mode=triple-fault",
        };
        let mut domain = built_in(&unique_name("hit"), guest);
        domain.lifecycle.on_power_off = OnPowerOff::Preserve;
        domain.lifecycle.on_crash = OnCrash::Preserve;
        domain
    }

    fn is(self, state: DomainState) -> bool {
        match self {
            Self::Running => matches!(state, DomainState::Running(_)),
            Self::Paused => matches!(
                state,
                DomainState::Paused(PausedReason::User | PausedReason::Adopted)
            ),
            Self::ShuttingDown => state == DomainState::ShuttingDown,
            Self::OffPreserved => state == DomainState::Paused(PausedReason::PoweredOff),
            Self::CrashedPreserved => state == DomainState::Crashed,
        }
    }

    /// Brings a new domain there; it and its worker.
    fn reach(self, connection: &mut Connection) -> Result<(Domain, u32)> {
        let definition = self.domain();
        define(connection, &definition)?;
        let name = definition.name.as_str();
        start(connection, name)?;
        let domain = named(name);
        match self {
            Self::Paused => connection.call(DomainPause { domain })?,
            Self::ShuttingDown => connection.call(DomainShutdown {
                domain,
                destroy_after_ms: None,
                for_host: false,
            })?,
            _ => {}
        }
        let details = wait_for(connection, &named(name), |details| {
            details.is_some_and(|details| self.is(details.summary.state))
        })?;
        let worker = details.and_then(|details| details.worker);
        Ok((definition, worker.context("no worker")?.pid))
    }
}

fn get(connection: &mut Connection, domain: &Domain) -> Result<DomainDetails> {
    let domain = named(domain.name.as_str());
    Ok(connection.call(DomainGet { domain })?)
}

#[test]
fn a_worker_killed_at_any_phase_is_told_and_leaves_nothing() -> Result<()> {
    let mut daemon = Daemon::start()?;
    let mut connection = daemon.connect()?;
    let (other, _) = Phase::Running.reach(&mut connection)?;
    let mut all = vec![other.clone()];
    // By the supervisor that started it, and by the next one.
    for adopted in [false, true] {
        for phase in Phase::ALL {
            let (domain, pid) = phase.reach(&mut connection)?;
            all.push(domain.clone());
            if adopted {
                daemon.crash()?;
                connection = daemon.connect()?;
            }
            signal(pid, Signal::KILL)?;
            let wanted = DomainState::ShutOff(ShutOffReason::Crashed);
            let name = named(domain.name.as_str());
            let details = wait_for(&mut connection, &name, |details| {
                details.is_some_and(|details| details.summary.state == wanted)
            })?;
            let line = details.and_then(|details| details.last_failure);
            // The kernel tells only its parent what killed it.
            let said = if adopted { "" } else { "killed by SIGKILL" };
            let line = line.with_context(|| format!("{phase:?}: no reason"))?;
            ensure!(line.contains(said), "{phase:?}: {line}");
            ensure!(workers(domain.name.as_str()).is_empty());
            // It starts as ever.
            start(&mut connection, domain.name.as_str())?;
        }
    }
    ensure!(matches!(
        get(&mut connection, &other)?.summary.state,
        DomainState::Running(_)
    ));
    drop(connection);
    end_everything(&daemon, &all)
}

#[test]
fn a_worker_stopped_at_any_phase_is_unresponsive_and_comes_back_as_it_was() -> Result<()> {
    let daemon = Daemon::start()?;
    let mut connection = daemon.connect()?;
    let (other, _) = Phase::Running.reach(&mut connection)?;
    let mut all = vec![other.clone()];
    let mut hit = Vec::new();
    for phase in Phase::ALL {
        let (domain, pid) = phase.reach(&mut connection)?;
        all.push(domain.clone());
        signal(pid, Signal::STOP)?;
        hit.push((phase, domain, pid));
    }
    std::thread::scope(|scope| -> Result<()> {
        let mut asking = Vec::new();
        for (phase, domain, _) in &hit {
            let daemon = &daemon;
            asking.push(scope.spawn(move || -> Result<()> {
                let mut connection = daemon.connect()?;
                let begin = Instant::now();
                let name = named(domain.name.as_str());
                let asked = match phase {
                    // A change that is given up, and done later all the same.
                    Phase::Running => connection.call(DomainPause { domain: name }),
                    Phase::Paused => connection.call(DomainResume { domain: name }),
                    _ => connection.call(DomainStatsGet { domain: name }).map(drop),
                };
                let error = asked.err().with_context(|| format!("{phase:?}: done"))?;
                let code = error.refused().map(|error| error.code);
                ensure!(code == Some(ApiErrorCode::Timeout), "{phase:?}: {error}");
                let took = begin.elapsed();
                ensure!(took < Duration::from_secs(20), "{phase:?}: {took:?}");
                let summary = get(&mut connection, domain)?.summary;
                ensure!(summary.unresponsive, "{phase:?}: {summary:?}");
                ensure!(phase.is(summary.state), "{phase:?}: {summary:?}");
                Ok(())
            }));
        }
        let begin = Instant::now();
        let domain = named(other.name.as_str());
        connection.call(DomainStatsGet { domain })?;
        ensure!(begin.elapsed() < Duration::from_secs(4));
        asking
            .into_iter()
            .try_for_each(|thread| thread.join().expect("no panic"))
    })?;
    for (phase, domain, pid) in &hit {
        signal(*pid, Signal::CONT)?;
        // What was asked before took its effect, and is shown.
        let then = match phase {
            Phase::Running => Phase::Paused,
            Phase::Paused => Phase::Running,
            phase => *phase,
        };
        let name = named(domain.name.as_str());
        wait_for(&mut connection, &name, |details| {
            details.is_some_and(|details| {
                !details.summary.unresponsive && then.is(details.summary.state)
            })
        })
        .with_context(|| format!("{phase:?}"))?;
        connection.call(DomainStatsGet { domain: name })?;
    }
    drop(connection);
    end_everything(&daemon, &all)
}

#[test]
fn a_stopped_worker_is_destroyed_at_once_at_any_phase() -> Result<()> {
    let daemon = Daemon::start()?;
    let mut connection = daemon.connect()?;
    let mut all = Vec::new();
    for phase in Phase::ALL {
        let (domain, pid) = phase.reach(&mut connection)?;
        signal(pid, Signal::STOP)?;
        let begin = Instant::now();
        connection.call(DomainDestroy {
            domain: named(domain.name.as_str()),
        })?;
        let took = begin.elapsed();
        ensure!(took < Duration::from_secs(4), "{phase:?}: {took:?}");
        all.push(domain);
    }
    drop(connection);
    end_everything(&daemon, &all)
}

/// Starts a domain and hits its worker as soon as there is one; what became of the start.
fn hit_while_starting(
    daemon: &Daemon,
    domain: &Domain,
    hit: impl Fn(u32) -> Result<()>,
) -> Result<Result<(), String>> {
    let name = domain.name.as_str();
    std::thread::scope(|scope| {
        let starting = scope.spawn(move || -> Result<Result<(), String>> {
            let mut connection = daemon.connect()?;
            let call = DomainStart {
                domain: named(name),
                options: StartOptions::default(),
            };
            match connection.call(call) {
                Ok(_) => Ok(Ok(())),
                Err(error) => {
                    let refused = error.refused().context("no answer")?;
                    Ok(Err(refused.message.clone()))
                }
            }
        });
        hit(wait_for_worker(name, Duration::from_secs(20))?)?;
        starting.join().expect("no panic")
    })
}

#[test]
fn a_worker_hit_while_it_starts_fails_the_start_or_only_holds_it_up() -> Result<()> {
    let daemon = Daemon::start()?;
    let mut connection = daemon.connect()?;
    let mut all = Vec::new();
    for _ in 0..4 {
        let domain = built_in(&unique_name("early"), ECHO);
        define(&mut connection, &domain)?;
        all.push(domain.clone());
        let name = domain.name.as_str();
        let killed = hit_while_starting(&daemon, &domain, |pid| signal(pid, Signal::KILL))?;
        // Where it had been started already, its end came then.
        if let Err(line) = killed {
            ensure!(line.contains("SIGKILL") && line.contains(name), "{line}");
        }
        wait_for(&mut connection, &named(name), |details| {
            details.is_some_and(|details| !details.summary.state.is_active())
        })?;
        ensure!(workers(name).is_empty());

        let stopped = hit_while_starting(&daemon, &domain, |pid| {
            signal(pid, Signal::STOP)?;
            std::thread::sleep(Duration::from_millis(200));
            signal(pid, Signal::CONT)
        })?;
        ensure!(stopped.is_ok(), "{stopped:?}");
        ensure!(matches!(
            get(&mut connection, &domain)?.summary.state,
            DomainState::Running(_)
        ));
        let destroy = || DomainDestroy {
            domain: named(name),
        };
        connection.call(destroy())?;
        super::wait_until_off(&mut connection, name)?;

        let destroyed = hit_while_starting(&daemon, &domain, |pid| {
            signal(pid, Signal::STOP)?;
            let begin = Instant::now();
            daemon.connect()?.call(destroy())?;
            let took = begin.elapsed();
            ensure!(took < Duration::from_secs(4), "{took:?}");
            Ok(())
        })?;
        if let Err(line) = destroyed {
            ensure!(line.contains("destroyed"), "{line}");
        }
        super::wait_until_off(&mut connection, name)?;
        ensure!(workers(name).is_empty());
    }
    drop(connection);
    end_everything(&daemon, &all)
}

#[test]
fn a_start_that_was_destroyed_is_gone_before_the_next_begins() -> Result<()> {
    let mut daemon = Daemon::start()?;
    let mut connection = daemon.connect()?;
    let domain = built_in(&unique_name("again"), ECHO);
    define(&mut connection, &domain)?;
    let name = domain.name.as_str();
    let call = || DomainStart {
        domain: named(name),
        options: StartOptions::default(),
    };
    for round in 0..30 {
        std::thread::scope(|scope| {
            let starting = scope.spawn(|| daemon.connect().map(|mut one| drop(one.call(call()))));
            std::thread::sleep(Duration::from_micros(round * 700));
            let destroyed = connection.call(DomainDestroy {
                domain: named(name),
            });
            if let Err(error) = destroyed {
                // It was too early.
                error.refused().with_context(|| error.to_string())?;
            }
            starting.join().expect("no panic")
        })?;
        let _ = connection.call(DomainDestroy {
            domain: named(name),
        });
        super::wait_until_off(&mut connection, name)?;
        start(&mut connection, name)?;
        let details = get(&mut connection, &domain)?;
        let pid = details.worker.context("no worker")?.pid;
        ensure!(workers(name) == [pid], "round {round}");
        connection.call(DomainDestroy {
            domain: named(name),
        })?;
        super::wait_until_off(&mut connection, name)?;
        // Of two starts in a row nothing of the first hits the second.
        let second = std::thread::scope(|scope| {
            let starting = scope.spawn(|| daemon.connect().map(|mut one| drop(one.call(call()))));
            std::thread::sleep(Duration::from_micros(round * 700));
            let _ = connection.call(DomainDestroy {
                domain: named(name),
            });
            starting.join().expect("no panic")?;
            wait_for(&mut connection, &named(name), |details| {
                details.is_some_and(|details| !details.summary.reaping)
            })?;
            match start(&mut connection, name) {
                Err(error) if error.to_string().contains("running already") => Ok(()),
                started => started,
            }
        });
        second.with_context(|| format!("round {round}"))?;
        if round % 10 == 9 {
            daemon.crash()?;
            connection = daemon.connect()?;
            let state = get(&mut connection, &domain)?.summary.state;
            ensure!(matches!(state, DomainState::Running(_)), "{state:?}");
        } else {
            let socket = daemon.run().join("domains").join(domain.uuid.to_string());
            ensure!(socket.join("adopt").exists(), "round {round}");
        }
        connection.call(DomainDestroy {
            domain: named(name),
        })?;
        super::wait_until_off(&mut connection, name)?;
    }
    drop(connection);
    end_everything(&daemon, &[domain])
}
