//! Processes and what they hold, and the watch that a supervisor keeps on each of its workers.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use reeve_ipc::model::DomainUuid;
use reeve_ipc::phase::Phase;
use reeve_ipc::spec::PciSlot;
use reeved::domain::driver::{Notice, Verdict, WorkerCall};
use tokio::sync::mpsc;

use crate::machine::Machine;
use crate::planted::Planted;
use crate::short;
use crate::universe::Universe;

/// What a worker has been sent and has not served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    Launch { paused: bool },
    Call(WorkerCall),
    Device(DeviceAsk),
}

/// What is asked of a device at a place on the bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceAsk {
    Attach(PciSlot),
    /// By force, or not.
    Detach(PciSlot, bool),
    Update(PciSlot),
    /// Where there are any; the answer is known by this.
    Places(u64),
}

/// A worker's process.
#[derive(Debug)]
pub struct Process {
    pub uuid: DomainUuid,
    pub uid: u32,
    pub digest: [u8; 16],
    pub machine: Machine,
    pub alive: bool,
    /// It does nothing, as after `SIGSTOP`.
    pub frozen: bool,
    /// `SIGKILL` is on its way, or it lost its supervisor before its launch.
    pub doomed: bool,
    pub requests: VecDeque<(u64, Ask)>,
    pub answers: BTreeMap<u64, Result<(), String>>,
    /// `None` without a supervisor.
    pub watch: Option<Watch>,
}

/// What the supervisor's task for one worker knows.
#[derive(Debug)]
pub struct Watch {
    pub tell: mpsc::Sender<Notice>,
    /// In their order, on their way to the actor.
    pub outbox: VecDeque<Notice>,
    /// It was told to end, or killed on request.
    pub asked: bool,
    /// It has answered since it was found, or was made by this supervisor.
    pub linked: bool,
    /// One found silent may answer yet.
    pub searching: bool,
    /// A call was not answered in time.
    pub probing: bool,
}

impl Watch {
    pub fn new(tell: mpsc::Sender<Notice>, linked: bool) -> Self {
        Self {
            tell,
            outbox: VecDeque::new(),
            asked: false,
            linked,
            searching: false,
            probing: false,
        }
    }
}

#[derive(Debug, Default)]
pub struct Host {
    pub processes: BTreeMap<u32, Process>,
    /// The uids that this supervisor holds for in use, with how many have each.
    pub claimed: BTreeMap<u32, u32>,
    /// By the uid of their worker.
    pub cgroups: BTreeMap<u32, DomainUuid>,
    /// Domains whose end somebody asked for: their machines may be killed while they run.
    pub condemned: BTreeSet<DomainUuid>,
}

impl Host {
    /// The living worker of a domain.
    pub fn worker(&self, uuid: DomainUuid) -> Option<(u32, &Process)> {
        let mut found = self.processes.iter();
        found
            .find(|(_, process)| process.alive && process.uuid == uuid)
            .map(|(pid, process)| (*pid, process))
    }

    /// Whether a request has had its answer.
    pub fn has_answered(&self, pid: u32, request: u64) -> bool {
        let process = self.processes.get(&pid);
        process.is_none_or(|process| process.answers.contains_key(&request))
    }

    pub fn is_dead(&self, pid: u32) -> bool {
        self.processes
            .get(&pid)
            .is_none_or(|process| !process.alive)
    }

    pub fn is_frozen(&self, pid: u32) -> bool {
        let process = self.processes.get(&pid);
        process.is_some_and(|process| process.alive && process.frozen)
    }
}

impl Universe {
    pub fn claim_uid(&mut self) -> u32 {
        let uid = (1000..).find(|uid| !self.host.claimed.contains_key(uid));
        let uid = uid.unwrap_or_default();
        self.host.claimed.insert(uid, 1);
        let taken = self.host.cgroups.contains_key(&uid)
            || self
                .host
                .processes
                .values()
                .any(|process| process.uid == uid);
        if taken {
            self.broken(format!("uid {uid} is given to a second worker"));
        }
        uid
    }

    pub fn release(&mut self, uid: u32) {
        // What was recorded of a domain may be older than the uid's next.
        let holders = self.host.claimed.get(&uid).copied().unwrap_or_default();
        if holders > 1 {
            self.host.claimed.insert(uid, holders - 1);
            return;
        }
        self.host.cgroups.remove(&uid);
        if self.planted != Some(Planted::KeepsTheUid) {
            self.host.claimed.remove(&uid);
        }
    }

    pub fn spawn(&mut self, process: Process) -> u32 {
        let pid = u32::try_from(self.number()).unwrap_or(u32::MAX);
        let uuid = process.uuid;
        if let Some((other, _)) = self.host.worker(uuid) {
            self.broken(format!(
                "{} gets worker {pid} beside its worker {other}",
                short(uuid)
            ));
        }
        self.note(|| {
            format!(
                "worker {pid} of {} is made, uid {}",
                short(uuid),
                process.uid
            )
        });
        self.host.processes.insert(pid, process);
        pid
    }

    /// Something that the worker tells unasked.
    pub fn tell(&mut self, pid: u32, notice: Notice) {
        let notice = match notice {
            // Now and then something is lost on the way, and that is all that is known.
            Notice::DeviceRemoved(_) if self.random.percent(5) => Notice::Lost,
            notice => notice,
        };
        let watch = self
            .host
            .processes
            .get_mut(&pid)
            .and_then(|process| process.watch.as_mut());
        // A worker that nobody has found yet says it in its report.
        if let Some(watch) = watch.filter(|watch| watch.linked) {
            watch.outbox.push_back(notice);
        }
    }

    /// The supervisor sends `SIGKILL`.
    pub fn kill(&mut self, pid: u32, asked: bool) {
        self.point("before it killed a worker");
        if self.dead {
            return;
        }
        let excused = self.may_be_ended(pid);
        self.note(|| format!("worker {pid} is killed"));
        if let Some(what) = excused.err().filter(|_| asked) {
            self.broken(what);
        }
        let spared = self.planted == Some(Planted::KillsNothing);
        if let Some(process) = self.host.processes.get_mut(&pid) {
            process.doomed = !spared;
            if let Some(watch) = process.watch.as_mut().filter(|_| asked) {
                watch.asked = true;
            }
        }
        self.point("after it killed a worker");
    }

    /// A machine that runs is ended only if somebody asked for it, or had said so before.
    fn may_be_ended(&self, pid: u32) -> Result<(), String> {
        let Some(process) = self
            .host
            .processes
            .get(&pid)
            .filter(|process| process.alive)
        else {
            return Ok(());
        };
        let uuid = process.uuid;
        let noted = self.run.statuses.get(&uuid).is_some_and(|status| {
            let intents = &status.record.intents;
            intents.auto_destroy || intents.for_host || intents.destroy_at_boot_ms.is_some()
        });
        if noted || self.host.condemned.contains(&uuid) || process.machine.phase != Phase::Running {
            return Ok(());
        }
        Err(format!(
            "{} runs, and is killed though nobody wants that",
            short(uuid)
        ))
    }

    /// The next request of a worker.
    pub fn serve(&mut self, pid: u32) {
        // A worker refuses to say where it has devices for a while only, and is asked again.
        let places = |ask: &Ask| matches!(ask, Ask::Device(DeviceAsk::Places(_)));
        let refuses = self.random.percent(4);
        let Some(process) = self.host.processes.get_mut(&pid) else {
            return;
        };
        let Some((request, ask)) = process.requests.pop_front() else {
            return;
        };
        let (answer, notices) = match ask {
            ask if refuses && !places(&ask) => (Err("it does not want to".to_owned()), Vec::new()),
            Ask::Launch { paused } => {
                process.machine.launch(paused);
                (Ok(()), Vec::new())
            }
            Ask::Call(WorkerCall::Stop) => {
                process.doomed = true;
                (Ok(()), Vec::new())
            }
            Ask::Call(call) => process.machine.serve(call),
            Ask::Device(ask) => process.machine.serve_device(ask),
        };
        let phase = process.machine.phase;
        process.answers.insert(request, answer.clone());
        self.note(|| format!("worker {pid} serves {ask:?}: {answer:?}, is {phase}"));
        for notice in notices {
            self.tell(pid, notice);
        }
    }

    /// A guest lets go of the devices that it was asked for.
    pub fn let_go(&mut self, pid: u32) {
        self.note(|| format!("the guest of worker {pid} lets go"));
        let process = self.host.processes.get_mut(&pid);
        let notices = process.map(|process| process.machine.let_go());
        for notice in notices.into_iter().flatten() {
            self.tell(pid, notice);
        }
    }

    /// The process ends.
    pub fn die(&mut self, pid: u32) {
        self.note(|| format!("worker {pid} is gone"));
        let Some(process) = self.host.processes.get_mut(&pid) else {
            return;
        };
        process.alive = false;
        process.requests.clear();
        if process.watch.is_none() {
            // Somebody else reaps it.
            self.host.processes.remove(&pid);
        }
    }

    /// The supervisor sees that its worker is gone and releases what it held.
    pub fn bury(&mut self, pid: u32) {
        let Some(mut process) = self.host.processes.remove(&pid) else {
            return;
        };
        self.note(|| format!("worker {pid} is buried"));
        self.point("before it released what a worker held");
        if self.dead {
            return;
        }
        self.release(process.uid);
        self.point("after it released what a worker held");
        if self.dead {
            return;
        }
        if let Some(watch) = &mut process.watch {
            let verdict = if watch.asked {
                Verdict::Asked
            } else {
                Verdict::Failed("it died".to_owned())
            };
            watch.outbox.push_back(Notice::Gone(verdict));
            // There is room for as many as a worker ever says between two steps.
            for notice in watch.outbox.drain(..) {
                if watch.tell.try_send(notice).is_err() && self.broken.is_none() {
                    self.broken = Some(format!("nobody hears of the end of worker {pid}"));
                }
            }
        }
    }

    /// A silent worker has come back, or one that was found silent answers.
    pub fn respond(&mut self, pid: u32) {
        let Some(process) = self.host.processes.get_mut(&pid) else {
            return;
        };
        let (phase, resets) = (process.machine.phase, process.machine.resets);
        let end = process.machine.end.clone();
        let Some(watch) = &mut process.watch else {
            return;
        };
        watch.probing = false;
        let found = std::mem::take(&mut watch.searching);
        if found {
            process.requests.clear();
            watch.linked = true;
        }
        let end = end.filter(|_| found);
        watch
            .outbox
            .push_back(Notice::Responsive { phase, resets, end });
        self.note(|| format!("worker {pid} answers again"));
    }

    /// The supervisor has died: nobody watches any more.
    pub fn orphan(&mut self) {
        self.host.claimed.clear();
        let pids: Vec<u32> = self.host.processes.keys().copied().collect();
        for pid in pids {
            let launched = self.random.percent(50);
            let Some(process) = self.host.processes.get_mut(&pid) else {
                continue;
            };
            process.watch = None;
            process.answers.clear();
            if process.machine.phase == Phase::AwaitingLaunch {
                match process.requests.front() {
                    Some((_, Ask::Launch { paused })) if launched => {
                        process.machine.launch(*paused);
                    }
                    // It loses its supervisor before it has a machine, and exits.
                    _ => process.doomed = true,
                }
            }
            process
                .requests
                .retain(|(_, ask)| !matches!(ask, Ask::Launch { .. }));
            if !process.alive {
                self.host.processes.remove(&pid);
            }
        }
    }
}
