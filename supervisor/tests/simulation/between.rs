//! What happens without the supervisor: to workers at any time, and to everything between the death of
//! one supervisor and the start of the next.

use reeve_ipc::api::view::{DomainState, PausedReason};
use reeve_ipc::phase::Phase;
use reeved::domain::registry::Remains;

use crate::clients::uuids;
use crate::machine::Deed;
use crate::planted::Planted;
use crate::schedule::UNKNOWN;
use crate::universe::Universe;

/// Something happens to a worker.
pub fn disturb(universe: &mut Universe, pid: u32) {
    let choice = universe.random.below(10);
    let Some(process) = universe.host.processes.get_mut(&pid) else {
        return;
    };
    let acts = process.machine.phase == Phase::Running && !process.frozen && !process.doomed;
    match choice {
        0..3 if acts => universe.act(pid, Deed::PowerOff),
        3..5 if acts => universe.act(pid, Deed::Reset),
        5 if acts => universe.act(pid, Deed::Crash),
        6..9 => {
            let frozen = !process.frozen;
            process.frozen = frozen;
            universe.note(|| format!("worker {pid} is frozen: {frozen}"));
        }
        9 => {
            process.doomed = true;
            universe.note(|| format!("worker {pid} fails"));
        }
        _ => {}
    }
}

/// What happens while there is no supervisor.
pub fn meanwhile(universe: &mut Universe) {
    for _ in 0..universe.random.below(8) {
        let moves = universe.moves();
        let pids: Vec<u32> = universe.host.processes.keys().copied().collect();
        if !moves.is_empty() && universe.random.percent(50) {
            let what = universe.random.pick(&moves);
            universe.happen(what);
        } else if !pids.is_empty() {
            let pid = universe.random.pick(&pids);
            disturb(universe, pid);
        }
    }
    universe.now_ms += universe.random.pick(&[50, 1_500, 10_000]);
}

/// What the next supervisor finds, and what it tells the world of it by that.
pub fn remains(universe: &mut Universe) -> Vec<Remains> {
    // Directories without a status are of starts that never came to anything.
    let run = &mut universe.run;
    run.stale.clear();
    run.directories
        .retain(|uuid| run.statuses.contains_key(uuid));
    let records = universe.disk.records.values().cloned().collect();
    let statuses = match universe.planted {
        Some(Planted::ForgetsWorkers) => Vec::new(),
        _ => universe
            .run
            .statuses
            .iter()
            .map(|(uuid, status)| (*uuid, status.clone()))
            .collect(),
    };
    for (uuid, status) in &universe.run.statuses {
        if status.record.intents.stopping.is_some() {
            universe.host.condemned.insert(*uuid);
        }
    }
    universe.note(|| format!("a supervisor starts; statuses: {}", statuses.len()));
    universe.books.states = uuids()
        .map(|uuid| {
            let found = statuses.iter().any(|(of, _)| *of == uuid);
            let state = match found {
                true => DomainState::Paused(PausedReason::StartingUp),
                false => UNKNOWN,
            };
            (uuid, state)
        })
        .collect();
    Remains::join(records, statuses)
}
