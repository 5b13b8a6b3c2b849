//! One schedule from its seed: what clients, guests, workers, the disk and death do, in turn.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;

use reeve_ipc::api::call::DomainRef;
use reeve_ipc::api::error::{ApiError, ApiErrorCode};
use reeve_ipc::api::view::{DomainState, ShutOffReason};
use reeve_ipc::model::DomainUuid;
use reeved::domain::actor::{Request, SessionId};
use reeved::domain::shell::View;

use crate::between::{disturb, meanwhile, remains};
use crate::clients::{self, Asked, Call, Clients, uuids};
use crate::disk::DiskFault;
use crate::expectation::Expectation;
use crate::invariants;
use crate::life::Life;
use crate::moves::{Move, Reach};
use crate::planted::Planted;
use crate::short;
use crate::universe::{Shared, Universe, Wait};

/// Moves after which a world that has not come to rest never will.
const PATIENCE: usize = 3_000;

/// The state of a domain that is new to its supervisor.
pub const UNKNOWN: DomainState = DomainState::ShutOff(ShutOffReason::Unknown);

thread_local! {
    /// Set by the panic hook of the tests: a task that panics is the supervisor's end.
    pub static PANICKED: Cell<bool> = const { Cell::new(false) };
}

/// A schedule that went wrong.
#[derive(Debug)]
pub struct Failure {
    pub what: String,
    pub trace: Vec<String>,
}

/// Runs the schedule of `seed`.
pub fn run(seed: u64, planted: Option<Planted>, traced: bool) -> Result<(), Failure> {
    #[cfg(feature = "fault-points")]
    reeved::domain::actor::planted::plant(match planted {
        Some(Planted::Actor(bug)) => Some(bug),
        _ => None,
    });
    let shared = Shared::new(seed, planted, traced);
    let mut schedule = Schedule::new(shared.clone());
    let result = schedule.run();
    // Whatever is dropped now is no supervisor's doing.
    shared.lock().dead = true;
    drop(schedule);
    result.map_err(|what| Failure {
        what,
        trace: shared.lock().trace.take().unwrap_or_default(),
    })
}

type Step = Result<(), String>;

struct Schedule {
    shared: Shared,
    life: Life,
    clients: Clients,
    expectation: Expectation,
    /// For how many steps each domain has had no record.
    vanished: BTreeMap<DomainUuid, u64>,
    present: Vec<DomainUuid>,
    /// In a hundred steps.
    deaths: usize,
    faults: usize,
}

impl Schedule {
    fn new(shared: Shared) -> Self {
        let (deaths, faults) = {
            let random = &mut shared.lock().random;
            (random.pick(&[0, 1, 2, 4]), random.pick(&[0, 0, 2, 5]))
        };
        Self {
            life: Life::begin(&shared, Vec::new(), true),
            clients: Clients::new(),
            expectation: Expectation::default(),
            vanished: BTreeMap::new(),
            present: Vec::new(),
            deaths,
            faults,
            shared,
        }
    }

    fn run(&mut self) -> Step {
        let steps = 40 + self.below(80);
        for _ in 0..steps {
            self.step()?;
        }
        self.rest()?;
        self.clear_away()
    }

    fn below(&self, bound: usize) -> usize {
        self.shared.lock().random.below(bound)
    }

    fn percent(&self, percent: usize) -> bool {
        self.shared.lock().random.percent(percent)
    }

    fn step(&mut self) -> Step {
        if self.percent(self.deaths) {
            return self.let_die();
        }
        if self.percent(self.faults) {
            self.change_fault();
        }
        match self.below(100) {
            0..30 => self.ask(),
            30..78 => self.advance_or_move(),
            78..84 => self.pass_time(),
            84..97 => self.disturb(),
            97..99 => self.end_session(),
            _ => self.rest(),
        }
    }

    /// Some client asks something, if it is served.
    fn ask(&mut self) -> Step {
        if !self.life.has_recovered() {
            return self.advance_or_move();
        }
        let (target, call) = {
            let mut universe = self.shared.lock();
            clients::invent(&mut universe.random, &self.life.registry)
        };
        let session = self.clients.sessions[self.below(self.clients.sessions.len())];
        self.send(session, target, call);
        self.settle()
    }

    fn send(&mut self, session: SessionId, target: DomainRef, call: Call) {
        let (shared, life) = (&self.shared, &self.life);
        self.clients
            .send(shared, life, session, target, call, &self.vanished);
    }

    fn advance_or_move(&mut self) -> Step {
        match self.move_on() {
            Some(Reach::Supervisor) => self.settle(),
            Some(Reach::World) => Ok(()),
            None => self.pass_time(),
        }
    }

    /// One of the things that may happen does, if there is one.
    fn move_on(&mut self) -> Option<Reach> {
        let mut universe = self.shared.lock();
        let moves = universe.moves();
        if moves.is_empty() {
            return None;
        }
        let what = universe.random.pick(&moves);
        universe.happen(what);
        Some(what.reach())
    }

    /// Time goes on, once every timer that is due has been heard, and every notice: nothing holds
    /// those up for as long as the shortest of deadlines.
    fn pass_time(&mut self) -> Step {
        loop {
            let mut universe = self.shared.lock();
            let timers = universe.due_timers().into_iter().map(Move::Open);
            let due: Vec<Move> = timers.chain(universe.untold()).collect();
            if due.is_empty() || universe.dead {
                break;
            }
            let what = universe.random.pick(&due);
            universe.happen(what);
            drop(universe);
            self.settle()?;
        }
        {
            let mut universe = self.shared.lock();
            invariants::in_time(&universe, &self.clients)?;
            let step = universe.random.pick(&[1, 20, 300, 2_000]);
            let next = universe.next_deadline();
            let later = universe.now_ms + step;
            universe.now_ms = next.map_or(later, |next| match step {
                1 | 20 => next.min(later),
                _ => next,
            });
        }
        self.settle()
    }

    /// A guest, a worker or the kernel does something.
    fn disturb(&mut self) -> Step {
        let mut universe = self.shared.lock();
        let alive = universe
            .host
            .processes
            .iter()
            .filter(|(_, process)| process.alive);
        let pids: Vec<u32> = alive.map(|(pid, _)| *pid).collect();
        if !pids.is_empty() {
            let pid = universe.random.pick(&pids);
            disturb(&mut universe, pid);
        }
        Ok(())
    }

    fn change_fault(&mut self) {
        let mut universe = self.shared.lock();
        if universe.random.percent(50) {
            universe.disk.fault =
                universe
                    .random
                    .pick(&[None, Some(DiskFault::Full), Some(DiskFault::ReadOnly)]);
        } else {
            universe.run.full = universe.random.percent(40);
        }
        universe.note_faults();
    }

    fn end_session(&mut self) -> Step {
        if !self.life.has_recovered() {
            return Ok(());
        }
        let index = self.below(self.clients.sessions.len());
        let session = self.clients.sessions[index];
        {
            let mut universe = self.shared.lock();
            universe.note(|| format!("session {} ends", session.0));
            for (uuid, sessions) in &self.clients.bound {
                if sessions.contains(&session) {
                    universe.host.condemned.insert(*uuid);
                }
            }
        }
        let lost = self.clients.end_session(&self.life, index);
        self.expectation.lost(lost);
        self.settle()
    }

    /// Lets everything run that can, and looks at what has become of it.
    fn settle(&mut self) -> Step {
        self.life.settle();
        if PANICKED.replace(false) {
            return Err("a task of the supervisor panicked".to_owned());
        }
        if let Some(broken) = self.shared.lock().broken.take() {
            return Err(broken);
        }
        if self.shared.lock().dead {
            return self.be_born(false);
        }
        let views = self.life.registry.views();
        self.look_for_vanished(&views);
        for (asked, answer) in self.clients.answered() {
            self.judge(&asked, answer)?;
        }
        let universe = self.shared.lock();
        invariants::always(&universe, &views)?;
        self.expectation.check(&universe, &self.clients, |uuid| {
            let mut views = views.iter();
            let view = views.find(|view| view.details.summary.uuid == uuid);
            view.is_none_or(|view| view.details.summary.job.is_none())
                && !universe
                    .gates
                    .values()
                    .any(|gate| matches!(&gate.wait, Wait::Disk(work) if work.uuid() == uuid))
        })
    }

    fn look_for_vanished(&mut self, views: &[Arc<View>]) {
        let mut universe = self.shared.lock();
        for uuid in uuids().filter(|uuid| !universe.disk.records.contains_key(uuid)) {
            *self.vanished.entry(uuid).or_default() += 1;
        }
        for view in views {
            let summary = &view.details.summary;
            if !self.present.contains(&summary.uuid) && summary.state == UNKNOWN {
                // It is new, or was forgotten in between: it is off, and nobody is told that.
                universe.books.states.insert(summary.uuid, UNKNOWN);
            }
        }
        self.present = views.iter().map(|view| view.details.summary.uuid).collect();
    }

    fn judge(&mut self, asked: &Asked, answer: Result<(), ApiError>) -> Step {
        if answer.is_err() && asked.keeps_first() {
            self.expectation.doubtful(asked);
        }
        match answer {
            Ok(()) => {
                self.expectation.acknowledged(asked);
                let universe = self.shared.lock();
                let victim = asked
                    .victim
                    .and_then(|pid| universe.host.processes.get(&pid));
                if asked.is_destroy() && victim.is_some_and(|victim| victim.alive && !victim.doomed)
                {
                    return Err(format!(
                        "a destroy succeeded, and the worker lives: {asked:?}"
                    ));
                }
                Ok(())
            }
            Err(error) if error.code == ApiErrorCode::NoDomain => {
                let Some(uuid) = asked.uuid.filter(|_| asked.by_uuid) else {
                    return Ok(());
                };
                let vanished = self.vanished.get(&uuid).copied().unwrap_or(0);
                if vanished == asked.vanished {
                    return Err(format!(
                        "{} is there, and was not found: {asked:?}",
                        short(uuid)
                    ));
                }
                Ok(())
            }
            Err(_) => Ok(()),
        }
    }

    /// The supervisor dies now, or at one of the next points; with the host, once in a while.
    fn let_die(&mut self) -> Step {
        let power_cut = self.percent(10);
        {
            let mut universe = self.shared.lock();
            if !power_cut && universe.random.percent(70) {
                let points = universe.random.below(25);
                universe.countdown = Some(points);
                return Ok(());
            }
            universe.note(|| "the supervisor is killed".to_owned());
            universe.dead = true;
        }
        self.be_born(power_cut)
    }

    /// After a death: what lives on lives on, and a new supervisor finds it.
    fn be_born(&mut self, power_cut: bool) -> Step {
        let lost = self.clients.disconnect();
        self.expectation.lost(lost);
        let remains = {
            let mut universe = self.shared.lock();
            universe.countdown = None;
            for (_, gate) in std::mem::take(&mut universe.gates) {
                if let Wait::Disk(work) = gate.wait {
                    universe.orphaned(work);
                }
            }
            universe.orphan();
            if power_cut {
                universe.note(|| "the host is cut from power".to_owned());
                universe.host = crate::host::Host::default();
                universe.run = crate::disk::RunDirectory::default();
            }
            meanwhile(&mut universe);
            remains(&mut universe)
        };
        // What the old one holds is dropped while it is dead, and so does nothing.
        self.life.end();
        self.shared.lock().dead = false;
        self.life = Life::begin(&self.shared, remains, power_cut);
        self.clients.connect();
        self.settle()
    }

    /// Until nothing is left that happens by itself: then everything must be in order.
    fn rest(&mut self) -> Step {
        for _ in 0..PATIENCE {
            {
                let mut universe = self.shared.lock();
                for process in universe.host.processes.values_mut() {
                    process.frozen = false;
                }
            }
            match self.move_on() {
                Some(Reach::Supervisor) => {
                    self.settle()?;
                    continue;
                }
                Some(Reach::World) => continue,
                None => {}
            }
            if self.shared.lock().next_deadline().is_some() {
                self.pass_time()?;
                continue;
            }
            let universe = self.shared.lock();
            let views = self.life.registry.views();
            if !self.life.has_recovered() {
                return Err("the supervisor never serves".to_owned());
            }
            return invariants::at_rest(&universe, &self.clients, &views);
        }
        Err("it never comes to rest".to_owned())
    }

    /// Everything is destroyed and undefined: nothing may be left.
    fn clear_away(&mut self) -> Step {
        {
            let mut universe = self.shared.lock();
            universe.disk.fault = None;
            universe.run.full = false;
            universe.countdown = None;
            universe.note(|| "everything is cleared away".to_owned());
        }
        for view in self.life.registry.views() {
            if view.details.summary.state.is_active() {
                self.must(view.details.summary.uuid, Request::Destroy)?;
            }
        }
        for view in self.life.registry.views() {
            self.must(view.details.summary.uuid, Request::Undefine)?;
        }
        let universe = self.shared.lock();
        let (host, run) = (&universe.host, &universe.run);
        let left = [
            ("domains", self.life.registry.views().len()),
            ("records", universe.disk.records.len()),
            ("statuses", run.statuses.len()),
            ("directories", run.directories.len()),
            ("processes", host.processes.len()),
            ("uids", host.claimed.len()),
            ("cgroups", host.cgroups.len()),
            ("gates", universe.gates.len()),
            ("tasks", self.life.tasks()),
        ];
        match left.iter().find(|(_, count)| *count > 0) {
            Some((what, count)) => Err(format!("{count} {what} are left when all is cleared away")),
            None => Ok(()),
        }
    }

    fn must(&mut self, uuid: DomainUuid, request: Request) -> Step {
        let session = self.clients.sessions[0];
        let call = Call::Other(request.clone());
        self.send(session, DomainRef::Uuid(uuid), call);
        self.settle()?;
        self.rest()?;
        let view = self.life.registry.view(&DomainRef::Uuid(uuid));
        let done = match request {
            Request::Destroy => view.is_ok_and(|view| view.details.summary.state.is_active()),
            _ => view.is_ok(),
        };
        match done {
            true => Err(format!("{request:?} of {} had no effect", short(uuid))),
            false => Ok(()),
        }
    }
}

impl Universe {
    fn note_faults(&mut self) {
        let (disk, run) = (self.disk.fault, self.run.full);
        self.note(|| format!("disk: {disk:?}, run directory full: {run}"));
    }
}
