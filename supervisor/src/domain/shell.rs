//! One domain's task: executes what its actor wants done, and tells it what came of that.
//!
//! ```text
//!   mailbox ──┐
//!   notices ──┼──► actor.handle() ──► publish the view ──► effects, in order
//!   outcomes ─┘                                              │
//!       ▲── one small task for each that has to be awaited ──┘
//! ```
//!
//! The effects are begun in `shell/effects.rs`, ports of networks given in `shell/ports.rs`. The loop never waits for a worker, a disk or a client. What
//! happened to the worker comes before what clients ask. Queries do not come here at all: they read the view.

mod effects;
mod ports;

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::sync::Arc;

use reeve_ipc::api::error::ApiError;
use reeve_ipc::api::view::{DomainDefinition, DomainDetails};
use reeve_ipc::model::{Domain, DomainName, DomainUuid};
use reeve_ipc::spec::PciSlot;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinError, JoinSet};

use self::ports::Connected;
use super::actor::{Adopted, DomainActor, Done, Input, Request, SessionId, Ticket};
use super::console_log::ConsoleLog;
use super::driver::{Adoption, Instance, Notice, Running, StartFailure, StartFailureKind};
use super::world::{Status, StatusWriter, World};
use crate::crash::Operation;

/// Requests that may wait in front of one actor.
const MAILBOX: usize = 64;

/// A client's answer, or nothing: the domain is gone, and whoever asks again finds that.
pub(super) type Reply = oneshot::Sender<Answer>;

type Answer = Result<(), ApiError>;

/// What is put before an actor.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all are requests, and few wait at a time"
)]
pub(super) enum Mail {
    Request(Request, Reply),
    SessionEnded(SessionId),
}

/// A domain as everybody may read it at any time.
#[derive(Debug, Clone)]
pub struct View {
    /// What a client is shown.
    pub details: DomainDetails,
    /// The definition it runs with.
    pub live: Option<Arc<Domain>>,
    /// What is kept.
    pub record: Option<Arc<DomainDefinition>>,
    /// The worker, for queries.
    pub instance: Option<Arc<dyn Instance>>,
    /// The taps of its network interfaces, by their places on the bus.
    pub taps: Vec<(PciSlot, String)>,
}

/// The way to one domain's actor.
#[derive(Debug, Clone)]
pub(super) struct Handle {
    pub(super) mailbox: mpsc::Sender<Mail>,
    /// `None` before its first definition is acknowledged.
    pub(super) view: watch::Receiver<Option<Arc<View>>>,
}

/// What came of something awaited.
#[expect(
    clippy::large_enum_variant,
    reason = "few wait at a time, and none is kept"
)]
enum Outcome {
    Done(u64, Done),
    Started(u64, u32, Result<Running, StartFailure>),
    Adopted(u64, u32, Box<Adoption>),
    Input(Input),
}

/// A start that goes on.
struct Start {
    id: u32,
    serial: u64,
    task: AbortHandle,
}

struct Worker {
    id: u32,
    instance: Arc<dyn Instance>,
    notices: mpsc::Receiver<Notice>,
    /// Closed with this.
    _lives: oneshot::Sender<Infallible>,
}

/// Ends with the domain; `retired` is called at the end, before whoever still waits is told.
pub(super) struct Shell<F> {
    uuid: DomainUuid,
    actor: DomainActor,
    world: Arc<World>,
    mailbox: mpsc::Receiver<Mail>,
    view: watch::Sender<Option<Arc<View>>>,
    outcomes: JoinSet<Outcome>,
    /// Inputs that are there already.
    inputs: VecDeque<Input>,
    start: Option<Start>,
    /// The one timer of a shutdown; it may have run out.
    deadline: Option<AbortHandle>,
    worker: Option<Worker>,
    status: Option<Arc<StatusWriter>>,
    /// What the end of the worker would be due to.
    doing: Operation,
    /// What an earlier supervisor recorded, until it is adopted.
    found: Option<Status>,
    /// The ports of its interfaces.
    connected: Vec<Connected>,
    tickets: HashMap<Ticket, Reply>,
    /// What is answered when the domain is no more.
    parting: Vec<(Reply, Answer)>,
    next_ticket: u64,
    /// The name it has or had: the events of its end come when it has none.
    name: Option<DomainName>,
    retired: F,
    /// Told when what an earlier supervisor left has been taken over.
    recovered: Option<oneshot::Sender<bool>>,
}

impl<F: FnOnce() + Send + 'static> Shell<F> {
    /// Starts the task of a domain of which nothing is known yet.
    pub(super) fn spawn(world: Arc<World>, uuid: DomainUuid, retired: F) -> Handle {
        let actor = DomainActor::new(uuid, Arc::clone(&world.ids));
        let (shell, handle) = Self::new(world, uuid, actor, retired);
        tokio::spawn(shell.run());
        handle
    }

    /// Starts the task of a domain that an earlier supervisor left; the receiver is told once that
    /// is taken over, and whether there was a worker to take over.
    pub(super) fn spawn_recovered(
        world: Arc<World>,
        uuid: DomainUuid,
        record: Option<DomainDefinition>,
        status: Option<Status>,
        retired: F,
    ) -> (Handle, oneshot::Receiver<bool>) {
        let live = status.as_ref().map(|status| status.record.clone());
        let actor = DomainActor::recovered(uuid, record, live, Arc::clone(&world.ids));
        let (mut shell, handle) = Self::new(world, uuid, actor, retired);
        if let Some(status) = &status {
            shell.restore(status);
        }
        shell.found = status;
        let (recovered, told) = oneshot::channel();
        shell.recovered = Some(recovered);
        shell.publish();
        if shell.found.is_none() {
            shell.tell_recovered(false);
        }
        tokio::spawn(async move {
            shell.tell(Input::Recover);
            shell.run().await;
        });
        (handle, told)
    }

    fn new(world: Arc<World>, uuid: DomainUuid, actor: DomainActor, retired: F) -> (Self, Handle) {
        let (sender, mailbox) = mpsc::channel(MAILBOX);
        let (view, reader) = watch::channel(None);
        let shell = Self {
            uuid,
            actor,
            world,
            mailbox,
            view,
            outcomes: JoinSet::new(),
            inputs: VecDeque::new(),
            start: None,
            deadline: None,
            worker: None,
            status: None,
            doing: Operation::Start,
            found: None,
            connected: Vec::new(),
            tickets: HashMap::new(),
            parting: Vec::new(),
            next_ticket: 0,
            name: None,
            retired,
            recovered: None,
        };
        let handle = Handle {
            mailbox: sender,
            view: reader,
        };
        (shell, handle)
    }

    async fn run(mut self) {
        while !self.actor.is_retired() {
            tokio::select! {
                biased;
                Some(outcome) = self.outcomes.join_next_with_id() => match outcome {
                    Ok((_, outcome)) => self.outcome(outcome),
                    Err(error) => self.given_up(&error),
                },
                (id, notice) = next_notice(&mut self.worker) => {
                    if matches!(notice, Notice::Gone(_)) {
                        self.worker = None;
                    }
                    self.tell(Input::Notice(id, notice));
                }
                mail = self.mailbox.recv() => match mail {
                    Some(Mail::Request(request, reply)) => {
                        self.next_ticket += 1;
                        let ticket = Ticket(self.next_ticket);
                        self.tickets.insert(ticket, reply);
                        self.tell(Input::Request(ticket, request));
                    }
                    Some(Mail::SessionEnded(session)) => self.tell(Input::SessionEnded(session)),
                    // The supervisor ends; its workers live on.
                    None => return,
                },
            }
        }
        self.mailbox.close();
        (self.retired)();
        for (reply, result) in self.parting {
            // A client that has gone needs no answer.
            let _ = reply.send(result);
        }
    }

    fn tell(&mut self, input: Input) {
        self.inputs.push_back(input);
        while let Some(input) = self.inputs.pop_front() {
            let effects = self.actor.handle(self.world.clock.now(), input);
            self.publish();
            for effect in effects {
                self.execute(effect);
            }
        }
    }

    fn publish(&mut self) {
        if let Some(name) = self.actor.name() {
            self.name = Some(name.clone());
        }
        let instance = self
            .worker
            .as_ref()
            .map(|worker| Arc::clone(&worker.instance));
        let worker = instance.as_ref().map(|instance| instance.details());
        let view = self.actor.details(worker).map(|details| {
            let active = details.summary.state.is_active() || details.summary.reaping;
            Arc::new(View {
                live: self
                    .actor
                    .definition(false)
                    .filter(|_| active)
                    .cloned()
                    .map(Arc::new),
                record: self.actor.record().cloned().map(Arc::new),
                details,
                instance,
                taps: self.status.as_ref().map_or_else(Vec::new, |s| s.taps()),
            })
        });
        self.view.send_modify(|shown| {
            let before = std::mem::replace(shown, view);
            // Before anybody can look again.
            if details(before.as_ref()) != details(shown.as_ref()) {
                self.world.changes.raise();
            }
        });
    }

    /// A start was aborted: its future is dropped, and what that leaves to do is awaited.
    fn given_up(&mut self, error: &JoinError) {
        let aborted = |start: &mut Start| start.task.id() == error.id();
        if let Some(start) = self.start.take_if(aborted) {
            let failure = StartFailure {
                kind: StartFailureKind::Worker,
                message: "it was destroyed while it started".to_owned(),
            };
            let settled = self.world.driver.settled();
            self.outcomes.spawn(async move {
                settled.await;
                Outcome::Started(start.serial, start.id, Err(failure))
            });
        }
    }

    fn outcome(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Done(serial, done) => self.tell(Input::Done(serial, done)),
            Outcome::Input(input) => self.tell(input),
            Outcome::Started(serial, id, result) => {
                self.start = None;
                let result = result.map(|running| {
                    let phase = running.phase;
                    self.take(id, running);
                    self.tell_of_taps();
                    phase
                });
                self.tell(Input::Done(serial, Done::Started(result)));
            }
            Outcome::Adopted(serial, id, adoption) => {
                let adopted = match *adoption {
                    Adoption::Adopted {
                        running,
                        end,
                        resets,
                        console_position: _,
                        devices,
                    } => {
                        let phase = running.phase;
                        self.take(id, running);
                        Adopted::Found {
                            phase,
                            end,
                            resets,
                            devices,
                        }
                    }
                    Adoption::Silent(running) => {
                        self.take(id, running);
                        Adopted::Silent
                    }
                    Adoption::NeverLaunched => Adopted::NeverLaunched,
                    Adoption::Gone { why } => Adopted::Gone(why),
                };
                let lives = self.worker.is_some();
                self.tell(Input::Done(serial, Done::Adopted(adopted)));
                self.tell_recovered(lives);
            }
        }
    }

    fn tell_recovered(&mut self, lives: bool) {
        if let Some(recovered) = self.recovered.take() {
            let _ = recovered.send(lives);
        }
    }

    fn take(&mut self, id: u32, running: Running) {
        let instance = running.instance;
        self.doing = Operation::Shutdown;
        let (lives, gone) = oneshot::channel();
        if let (Some(name), Some(files)) = (self.name.clone(), self.world.logs.clone()) {
            let log = ConsoleLog {
                name,
                uuid: self.uuid,
                instance: Arc::clone(&instance),
                storage: Arc::clone(&self.world.storage),
                files,
                gone,
            };
            // It ends by itself, with the console.
            tokio::spawn(log.copy());
        }
        self.worker = Some(Worker {
            id,
            instance,
            notices: running.notices,
            _lives: lives,
        });
    }
}

fn details(view: Option<&Arc<View>>) -> Option<&DomainDetails> {
    view.map(|view| &view.details)
}

/// The next notice of the worker; pends for good where there is none.
async fn next_notice(worker: &mut Option<Worker>) -> (u32, Notice) {
    if let Some(worker) = worker {
        if let Some(notice) = worker.notices.recv().await {
            return (worker.id, notice);
        }
    }
    std::future::pending().await
}
