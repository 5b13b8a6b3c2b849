//! What there is in an instance, to be compared with what was acknowledged; and its books, which must
//! balance once everything was ended.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use reeve_ipc::api::blocking::{CallError, Connection};
use reeve_ipc::api::call::{
    DomainDefinitionGet, DomainDestroy, DomainGet, DomainStatsGet, DomainUndefine,
};
use reeve_ipc::api::view::{DomainState, PausedReason};
use reeve_ipc::model::Domain;
use reeve_tests::daemon::{Daemon, named};
use reeve_tests::domain::workers;

use super::assert_at_rest;

/// How long a world may take to become what it must.
const SOON: Duration = Duration::from_secs(20);

/// What a domain does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Run {
    Off,
    /// After so many resets.
    Running(u64),
    Paused,
}

/// What is kept of a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    pub definition: Domain,
    pub autostart: Option<u32>,
}

/// One domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    pub kept: Option<Kept>,
    pub run: Run,
}

/// Every domain of an instance, by name.
pub type World = BTreeMap<String, Known>;

/// The workers of those that run.
pub type Pids = BTreeMap<String, u32>;

/// Looks; `None` while anything is in motion.
fn look(connection: &mut Connection) -> Result<Option<(World, Pids)>, CallError> {
    let (mut world, mut pids) = (World::new(), Pids::new());
    for summary in connection.domains(false)? {
        let name = summary.name.to_string();
        let domain = named(&name);
        let details = connection.call(DomainGet {
            domain: domain.clone(),
        })?;
        let run = match details.summary.state {
            _ if details.summary.reaping || details.summary.job.is_some() => return Ok(None),
            DomainState::ShutOff(_) => Run::Off,
            DomainState::Running(_) | DomainState::ShuttingDown => Run::Running(details.resets),
            DomainState::Paused(PausedReason::StartingUp | PausedReason::PoweredOff)
            | DomainState::Crashed
            | DomainState::Panicked => return Ok(None),
            DomainState::Paused(_) => Run::Paused,
        };
        let mut kept = None;
        if details.summary.persistent {
            let definition = connection.call(DomainDefinitionGet {
                domain: domain.clone(),
                persistent: true,
            })?;
            kept = Some(Kept {
                definition: definition.domain,
                autostart: definition.autostart,
            });
        }
        if let Some(worker) = details.worker {
            pids.insert(name.clone(), worker.pid);
        }
        world.insert(name, Known { kept, run });
    }
    Ok(Some((world, pids)))
}

/// Waits until the world is one of `allowed`, at most for `limit`; which.
///
/// # Errors
/// The supervisor is gone, or the world is another: the inner error tells which.
pub fn become_one_of(
    connection: &mut Connection,
    allowed: &[&World],
    limit: Duration,
) -> Result<Result<(usize, Pids)>, CallError> {
    let deadline = Instant::now() + limit;
    loop {
        let seen = match look(connection) {
            // It went between two questions.
            Err(error) if error.refused().is_some() => None,
            seen => seen?,
        };
        if let Some((world, pids)) = &seen {
            if let Some(index) = allowed.iter().position(|other| *other == world) {
                return Ok(Ok((index, pids.clone())));
            }
        }
        if Instant::now() >= deadline {
            let message = format!("the world is {seen:#?}, and not one of {allowed:#?}");
            return Ok(Err(anyhow::Error::msg(message)));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Asserts that `world` is `expected`'s at once or soon, and each worker there once: a domain that ran
/// before and runs now has the worker it had, which answers.
pub fn assert_is(
    connection: &mut Connection,
    allowed: &[&World],
    before: &Pids,
    cast: &[Domain],
) -> Result<usize> {
    let (index, pids) = become_one_of(connection, allowed, SOON)??;
    for name in cast.iter().map(|domain| domain.name.as_str()) {
        let deadline = Instant::now() + SOON;
        let expected: Vec<u32> = pids.get(name).copied().into_iter().collect();
        loop {
            let found = workers(name);
            if found == expected {
                break;
            }
            ensure!(
                Instant::now() < deadline,
                "workers of '{name}': {found:?}, and {expected:?} is known of"
            );
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    for (name, pid) in &pids {
        if let Some(before) = before.get(name) {
            ensure!(before == pid, "'{name}' had worker {before} and has {pid}");
        }
        let domain = named(name);
        connection.call(DomainStatsGet { domain })?;
    }
    Ok(index)
}

/// Ends and forgets everything, and asserts that nothing is left of it.
pub fn end_everything(daemon: &Daemon, cast: &[Domain]) -> Result<()> {
    let mut connection = daemon.connect()?;
    for summary in connection.domains(false)? {
        let domain = || named(summary.name.as_str());
        for result in [
            connection.call(DomainDestroy { domain: domain() }),
            connection.call(DomainUndefine { domain: domain() }),
        ] {
            match result {
                Err(error) if error.refused().is_none() => return Err(error.into()),
                _ => {}
            }
        }
    }
    become_one_of(&mut connection, &[&World::new()], SOON)??;
    drop(connection);
    assert_balanced(daemon, cast)
}

/// Asserts that the instance holds nothing for any domain.
pub fn assert_balanced(daemon: &Daemon, cast: &[Domain]) -> Result<()> {
    for name in cast.iter().map(|domain| domain.name.as_str()) {
        let left = workers(name);
        ensure!(left.is_empty(), "workers of '{name}' are left: {left:?}");
    }
    assert_at_rest(daemon);
    let records: Vec<_> = std::fs::read_dir(daemon.state().join("domains"))?
        .flatten()
        .map(|entry| entry.path())
        .collect();
    ensure!(records.is_empty(), "records are left: {records:?}");
    let deadline = Instant::now() + SOON;
    loop {
        let held = descriptors(daemon)?;
        if held == *fresh_descriptors()? {
            break;
        }
        ensure!(Instant::now() < deadline, "descriptors: {held:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
    // A test may have mounted the state directory itself.
    let state = daemon.state().display().to_string();
    let own = daemon.state();
    let own = own.parent().context("no directory")?.to_string_lossy();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
    let left = mounts
        .lines()
        .find(|mount| mount.contains(&*own) && !mount.split(' ').any(|field| field == state));
    ensure!(left.is_none(), "a mount is left: {left:?}");
    for domain in cast {
        let uuid = domain.uuid.to_string();
        let cgroups = cgroups_of(Path::new("/sys/fs/cgroup"), &uuid, 0);
        ensure!(cgroups.is_empty(), "cgroups are left: {cgroups:?}");
    }
    Ok(())
}

/// The supervisor's descriptors by kind; of the files that stay open only its logs are left out.
fn descriptors(daemon: &Daemon) -> Result<BTreeMap<String, usize>> {
    let pid = daemon.pid().context("it does not run")?;
    let mut kinds = BTreeMap::new();
    for entry in std::fs::read_dir(format!("/proc/{pid}/fd"))?.flatten() {
        let Ok(link) = std::fs::read_link(entry.path()) else {
            continue;
        };
        let link = link.to_string_lossy();
        if link.starts_with('/') && link.ends_with(".log") {
            continue;
        }
        let kind = link.split(':').next().unwrap_or_default();
        let kind = match kind.strip_prefix('/') {
            // Its directories and locks are in a place of its own.
            Some(path) => path.rsplit('/').next().unwrap_or_default(),
            None => kind,
        };
        *kinds.entry(kind.to_owned()).or_default() += 1;
    }
    Ok(kinds)
}

/// Those of a supervisor without domains or clients.
fn fresh_descriptors() -> Result<&'static BTreeMap<String, usize>> {
    static FRESH: OnceLock<BTreeMap<String, usize>> = OnceLock::new();
    if let Some(fresh) = FRESH.get() {
        return Ok(fresh);
    }
    let daemon = Daemon::start()?;
    // The client that saw it serve is let go.
    let deadline = Instant::now() + SOON;
    let mut last = descriptors(&daemon)?;
    loop {
        std::thread::sleep(Duration::from_millis(50));
        let now = descriptors(&daemon)?;
        if now == last {
            return Ok(FRESH.get_or_init(|| now));
        }
        ensure!(Instant::now() < deadline, "{now:?}");
        last = now;
    }
}

fn cgroups_of(directory: &Path, uuid: &str, depth: usize) -> Vec<String> {
    let mut found = Vec::new();
    if depth > 8 {
        return found;
    }
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            let path = entry.path();
            if path.to_string_lossy().ends_with(uuid) {
                found.push(path.to_string_lossy().into_owned());
            }
            found.extend(cgroups_of(&path, uuid, depth + 1));
        }
    }
    found
}
