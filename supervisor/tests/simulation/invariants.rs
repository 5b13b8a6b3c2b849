//! What must hold after every step, and what must hold when nothing is left to be done.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use reeve_ipc::api::view::{DomainState, PausedReason};
use reeve_ipc::model::{Devices, DomainName, DomainUuid, OnCrash, OnPowerOff, OnReboot};
use reeve_ipc::phase::Phase;
use reeve_ipc::spec::PciSlot;
use reeved::domain::actor::DESTROY_ACKNOWLEDGED_MS;
use reeved::domain::driver::GuestEnd;
use reeved::domain::shell::View;

use crate::clients::Clients;
use crate::host::Process;
use crate::short;
use crate::universe::Universe;

type Checked = Result<(), String>;

/// Whenever the supervisor lives and waits.
pub fn always(universe: &Universe, views: &[Arc<View>]) -> Checked {
    names(universe)?;
    for view in views {
        let summary = &view.details.summary;
        let uuid = summary.uuid;
        let told = universe.books.states.get(&uuid);
        let told = told.copied().unwrap_or(DomainState::ShutOff(
            reeve_ipc::api::view::ShutOffReason::Unknown,
        ));
        if told != summary.state {
            return Err(format!(
                "{} is {:?}, and the world was told {told:?}",
                short(uuid),
                summary.state
            ));
        }
        if view.record.as_deref() != universe.disk.records.get(&uuid) {
            return Err(format!(
                "{} shows a record that is not on disk",
                short(uuid)
            ));
        }
    }
    for uuid in universe.disk.records.keys() {
        if !views.iter().any(|view| view.details.summary.uuid == *uuid) {
            return Err(format!("{} has a record and is lost", short(*uuid)));
        }
    }
    Ok(())
}

/// No name is that of two domains, on disk or in what workers run with.
fn names(universe: &Universe) -> Checked {
    let mut owners: BTreeMap<&DomainName, DomainUuid> = BTreeMap::new();
    let records = universe.disk.records.values().map(|record| &record.domain);
    let statuses = universe
        .run
        .statuses
        .values()
        .map(|status| &status.record.definition);
    for domain in records.chain(statuses) {
        let owner = *owners.entry(&domain.name).or_insert(domain.uuid);
        if owner != domain.uuid {
            return Err(format!("'{}' is the name of two domains", domain.name));
        }
    }
    Ok(())
}

/// Before time goes on: a destroy waits for nothing longer than it may.
pub fn in_time(universe: &Universe, clients: &Clients) -> Checked {
    let late = clients.waiting.iter().find(|(_, asked)| {
        asked.is_destroy() && universe.now_ms > asked.since_ms + DESTROY_ACKNOWLEDGED_MS
    });
    match late {
        Some((number, _)) => Err(format!("destroy {number} was not answered in time")),
        None => Ok(()),
    }
}

/// When nothing is left to be done.
pub fn at_rest(universe: &Universe, clients: &Clients, views: &[Arc<View>]) -> Checked {
    if let Some((number, asked)) = clients.waiting.iter().next() {
        return Err(format!("request {number} has no answer: {:?}", asked.call));
    }
    for view in views {
        domain_at_rest(universe, view)?;
    }
    books(universe, views)?;
    for (uuid, status) in &universe.run.statuses {
        let bound = clients.bound.get(uuid).into_iter().flatten();
        let mut held = bound.filter(|session| clients.sessions.contains(session));
        if status.record.intents.auto_destroy && held.next().is_none() {
            return Err(format!(
                "{} outlives the client it was bound to",
                short(*uuid)
            ));
        }
    }
    Ok(())
}

fn domain_at_rest(universe: &Universe, view: &View) -> Checked {
    let summary = &view.details.summary;
    let (uuid, state) = (summary.uuid, summary.state);
    if summary.job.is_some() || summary.reaping || summary.unresponsive {
        return Err(format!("{} is half made: {summary:?}", short(uuid)));
    }
    let worker = universe.host.worker(uuid).map(|(_, process)| process);
    let agrees = match (state, worker.map(|worker| worker.machine.phase)) {
        (DomainState::ShutOff(_), None) => summary.persistent,
        (DomainState::Running(_) | DomainState::ShuttingDown, Some(Phase::Running)) => true,
        (DomainState::Paused(PausedReason::PoweredOff), Some(Phase::Off)) => true,
        (DomainState::Paused(PausedReason::StartingUp | PausedReason::PoweredOff), _) => false,
        (DomainState::Paused(_), Some(Phase::Paused)) => true,
        (DomainState::Crashed | DomainState::Panicked, Some(Phase::Crashed)) => true,
        _ => false,
    };
    if !agrees {
        return Err(format!(
            "{} is {state:?}, persistent {}, and its worker is {:?}",
            short(uuid),
            summary.persistent,
            worker.map(|worker| worker.machine.phase)
        ));
    }
    let Some(worker) = worker else { return Ok(()) };
    if view.details.resets != worker.machine.resets {
        return Err(format!(
            "{} was reset {} times, and {} are known",
            short(uuid),
            worker.machine.resets,
            view.details.resets
        ));
    }
    let status = universe.run.statuses.get(&uuid);
    let Some(status) = status else {
        return Err(format!("{} has a worker and no status", short(uuid)));
    };
    let stale = universe.run.stale.contains(&uuid);
    if !stale && view.live.as_deref() != Some(&status.record.definition) {
        return Err(format!(
            "{} runs with another definition than is noted",
            short(uuid)
        ));
    }
    let slots = |devices: &Devices| -> BTreeSet<PciSlot> {
        devices.named().into_iter().map(|(slot, _)| slot).collect()
    };
    let live = view.live.as_ref().map(|domain| slots(&domain.devices));
    if live.as_ref() != Some(&worker.machine.devices) {
        return Err(format!(
            "{} has devices at {:?}, and {live:?} are known",
            short(uuid),
            worker.machine.devices
        ));
    }
    let held = status.resources.devices.iter().map(|held| held.place.slot);
    let held: BTreeSet<PciSlot> = held.collect();
    if !stale && held != worker.machine.devices {
        return Err(format!(
            "{} has devices at {:?}, and what is held for {held:?} is noted",
            short(uuid),
            worker.machine.devices
        ));
    }
    if status.record.intents.stopping.is_some() {
        return Err(format!(
            "{} is being ended, and nobody ends it",
            short(uuid)
        ));
    }
    if status.record.intents.for_host && worker.machine.end.is_some() {
        return Err(format!("{} does not end with the host", short(uuid)));
    }
    kept_by_policy(uuid, worker, view)
}

/// A machine whose guest has ended stands only where its definition keeps it.
fn kept_by_policy(uuid: DomainUuid, worker: &Process, view: &View) -> Checked {
    let Some(actions) = view.live.as_ref().map(|domain| domain.lifecycle) else {
        return Ok(());
    };
    let keeps = match &worker.machine.end {
        None => true,
        Some(GuestEnd::PoweredOff) => actions.on_power_off == OnPowerOff::Preserve,
        Some(GuestEnd::Reset) => actions.on_reboot == OnReboot::Preserve,
        Some(GuestEnd::Crashed(_)) => actions.on_crash == OnCrash::Preserve,
    };
    if keeps {
        return Ok(());
    }
    Err(format!(
        "{}: its guest has ended and its policy is not applied",
        short(uuid)
    ))
}

/// Every resource is that of a living worker of a domain that is known.
fn books(universe: &Universe, views: &[Arc<View>]) -> Checked {
    let host = &universe.host;
    for (pid, process) in &host.processes {
        let uuid = process.uuid;
        let known = views.iter().any(|view| view.details.summary.uuid == uuid);
        if !known || process.watch.is_none() {
            return Err(format!("worker {pid} of {} is lost", short(uuid)));
        }
    }
    let held = |uid: &u32| host.processes.values().any(|process| process.uid == *uid);
    if let Some(uid) = host
        .claimed
        .keys()
        .chain(host.cgroups.keys())
        .find(|uid| !held(uid))
    {
        return Err(format!("uid {uid} or its cgroup is held by nobody"));
    }
    let alone = |uuid: &&DomainUuid| universe.host.worker(**uuid).is_none();
    let left = universe
        .run
        .statuses
        .keys()
        .chain(&universe.run.directories)
        .find(alone);
    match left {
        Some(uuid) => Err(format!(
            "{} has a status or a directory, and no worker",
            short(*uuid)
        )),
        None => Ok(()),
    }
}
