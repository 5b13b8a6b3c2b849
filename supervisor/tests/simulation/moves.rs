//! What may happen next by itself, when the schedule says so.

use reeve_ipc::phase::Phase;

use crate::machine::Deed;
use crate::universe::{Fate, Universe, Wait};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Move {
    /// Something the supervisor waits for comes.
    Open(u64),
    /// A worker serves its next request.
    Serve(u32),
    /// A process ends that was killed, or has ended its work.
    Die(u32),
    /// The supervisor sees that a worker is gone.
    Bury(u32),
    /// A worker that was silent answers.
    Respond(u32),
    /// What a worker said reaches its actor.
    Tell(u32),
    /// A guest notices its power button.
    Notice(u32),
    /// A guest lets go of devices that it was asked for.
    LetGo(u32),
}

/// Whom a move concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// The supervisor, too: it has something to do now.
    Supervisor,
    /// It hears of it by another move.
    World,
}

impl Move {
    pub fn reach(self) -> Reach {
        match self {
            Self::Open(_) | Self::Bury(_) | Self::Tell(_) => Reach::Supervisor,
            Self::Serve(_) | Self::Die(_) | Self::Respond(_) | Self::Notice(_) | Self::LetGo(_) => {
                Reach::World
            }
        }
    }
}

impl Universe {
    /// All that may happen now.
    pub fn moves(&self) -> Vec<Move> {
        let gates = self.gates.iter().filter(|(_, gate)| {
            let closed = gate
                .tell
                .as_ref()
                .is_some_and(tokio::sync::oneshot::Sender::is_closed);
            closed || self.may_open(&gate.wait)
        });
        let mut moves: Vec<Move> = gates.map(|(number, _)| Move::Open(*number)).collect();
        for (pid, process) in &self.host.processes {
            let able = process.alive && !process.frozen && !process.doomed;
            if able && !process.requests.is_empty() {
                moves.push(Move::Serve(*pid));
            }
            if able && process.machine.pressed && process.machine.phase == Phase::Running {
                moves.push(Move::Notice(*pid));
            }
            let asked = !process.machine.leaving.is_empty();
            if able && asked && process.machine.phase == Phase::Running {
                moves.push(Move::LetGo(*pid));
            }
            if process.alive && process.doomed {
                moves.push(Move::Die(*pid));
            }
            let Some(watch) = &process.watch else {
                continue;
            };
            if !process.alive {
                moves.push(Move::Bury(*pid));
            }
            let heard = watch.searching || (watch.probing && process.requests.is_empty());
            if able && heard {
                moves.push(Move::Respond(*pid));
            }
            if !watch.outbox.is_empty() {
                moves.push(Move::Tell(*pid));
            }
        }
        moves
    }

    fn may_open(&self, wait: &Wait) -> bool {
        match wait {
            Wait::Disk(_) | Wait::Making => true,
            Wait::Call {
                pid,
                request,
                deadline_ms,
            } => {
                *deadline_ms <= self.now_ms
                    || self.host.has_answered(*pid, *request)
                    || self.host.is_dead(*pid)
            }
            Wait::Adoption { pid, deadline_ms } => {
                *deadline_ms <= self.now_ms || !pid.is_some_and(|pid| self.host.is_frozen(pid))
            }
            Wait::Timer(until) => *until <= self.now_ms,
        }
    }

    /// The next time at which something is due.
    pub fn next_deadline(&self) -> Option<u64> {
        let deadlines = self.gates.values().filter_map(|gate| match gate.wait {
            Wait::Disk(_) | Wait::Making => None,
            Wait::Call { deadline_ms, .. } | Wait::Adoption { deadline_ms, .. } => {
                Some(deadline_ms)
            }
            Wait::Timer(until) => Some(until),
        });
        deadlines.filter(|at| *at > self.now_ms).min()
    }

    /// Timers that have run out and have not been told.
    pub fn due_timers(&self) -> Vec<u64> {
        let due = |wait: &Wait| matches!(wait, Wait::Timer(until) if *until <= self.now_ms);
        let due = self.gates.iter().filter(|(_, gate)| due(&gate.wait));
        due.map(|(number, _)| *number).collect()
    }

    /// Notices that the supervisor's own tasks are passing on.
    pub fn untold(&self) -> impl Iterator<Item = Move> + '_ {
        let processes = self.host.processes.iter();
        let untold = processes.filter(|(_, process)| {
            let watch = process.watch.as_ref();
            watch.is_some_and(|watch| !watch.outbox.is_empty())
        });
        untold.map(|(pid, _)| Move::Tell(*pid))
    }

    pub fn happen(&mut self, what: Move) {
        match what {
            Move::Open(number) => self.open(number),
            Move::Serve(pid) => self.serve(pid),
            Move::Die(pid) => self.die(pid),
            Move::Bury(pid) => self.bury(pid),
            Move::Respond(pid) => self.respond(pid),
            Move::Tell(pid) => self.pass_on(pid),
            Move::LetGo(pid) => self.let_go(pid),
            Move::Notice(pid) => {
                let obeys = self.random.percent(75);
                if obeys {
                    self.act(pid, Deed::PowerOff);
                } else if let Some(process) = self.host.processes.get_mut(&pid) {
                    process.machine.pressed = false;
                }
            }
        }
    }

    /// A guest does something by itself.
    pub fn act(&mut self, pid: u32, deed: Deed) {
        self.note(|| format!("the guest of worker {pid}: {deed:?}"));
        let process = self.host.processes.get_mut(&pid);
        let notices = process.map(|process| process.machine.act(deed));
        for notice in notices.into_iter().flatten() {
            self.tell(pid, notice);
        }
    }

    fn pass_on(&mut self, pid: u32) {
        let watch = self
            .host
            .processes
            .get_mut(&pid)
            .and_then(|process| process.watch.as_mut());
        let Some(watch) = watch else { return };
        let Some(notice) = watch.outbox.pop_front() else {
            return;
        };
        let heard = watch.tell.try_send(notice.clone()).is_ok();
        self.note(|| format!("worker {pid} tells {notice:?}"));
        if !heard {
            self.broken(format!("nobody listens to worker {pid}"));
        }
    }

    fn open(&mut self, number: u64) {
        let Some(gate) = self.gates.remove(&number) else {
            return;
        };
        let closed = gate
            .tell
            .as_ref()
            .is_some_and(tokio::sync::oneshot::Sender::is_closed);
        if closed {
            return;
        }
        let fate = match gate.wait {
            Wait::Disk(work) => self.on_disk(work),
            Wait::Making => match self.random.percent(4) {
                true => Fate::Failed("the host refuses".to_owned()),
                false => Fate::Good,
            },
            Wait::Call { pid, request, .. } => self.answer_of(pid, request),
            Wait::Adoption { deadline_ms, .. } => {
                match deadline_ms <= self.now_ms && self.random.percent(50) {
                    true => Fate::Deadline,
                    false => Fate::Good,
                }
            }
            Wait::Timer(_) => Fate::Good,
        };
        if let Some(tell) = gate.tell.filter(|_| !self.dead) {
            let _ = tell.send(fate);
        }
    }

    fn answer_of(&mut self, pid: u32, request: u64) -> Fate {
        let fate = match self.host.processes.get_mut(&pid) {
            None => Fate::Gone,
            Some(process) => match process.answers.remove(&request) {
                Some(Ok(())) => Fate::Good,
                Some(Err(why)) => Fate::Failed(why),
                None if !process.alive => Fate::Gone,
                None => {
                    let watch = process.watch.as_mut().filter(|watch| watch.linked);
                    if let Some(watch) = watch.filter(|watch| !watch.probing) {
                        watch.probing = true;
                        watch
                            .outbox
                            .push_back(reeved::domain::driver::Notice::Silent);
                    }
                    Fate::Deadline
                }
            },
        };
        self.note(|| format!("worker {pid} to request {request}: {fate:?}"));
        fate
    }
}
