//! The actor of one network: the only one that changes what is known of it.
//!
//! ```text
//!   messages ──► line ──► one work at a time, on a thread that may wait ──► commit ──► publish, events, answer
//!                  ▲
//!                  ├── take over: at the start of a supervisor, and when the server has ended
//!                  └── look whether all of it works, now and then
//! ```
//!
//! It never waits for the host: what came of work comes back as a message. What is asked meanwhile waits in line,
//! as libvirt's callers wait for a network's lock.

use std::collections::VecDeque;
use std::sync::Arc;

use reeve_ipc::api::error::{ApiError, ApiErrorCode};
use reeve_ipc::api::event::NetworkEventKind;
use reeve_ipc::model::{Network, NetworkUuid, PortUuid};
use tokio::sync::{mpsc, oneshot, watch};

use super::admission::{Standing, admit, startable};
use super::claims::Wanted;
use super::handle::{Handle, Made, Message, Outcome, Reply, Request};
use super::host::NetworkResources;
use super::server::{Server, Watched};
use super::view::View;
use super::work::Means;
use crate::api::events::EventLog;
use crate::crash::{self, Moment, Operation};
use crate::store::{NetworkRecord, NetworkStatus};

/// What may wait in line of a network; more is refused as busy.
pub(super) const LINE: usize = 16;
/// Messages that may wait in front of it.
const MAILBOX: usize = 64;

/// How a network stands when its actor begins.
#[derive(Debug)]
pub struct Beginning {
    /// The definition that it has, or is about to have.
    pub network: Network,
    /// The one that is kept.
    pub record: Option<NetworkRecord>,
    /// It was active with `network` when an earlier supervisor ended, and had this of the host.
    pub active: Option<NetworkResources>,
    /// It was being made or taken away by an earlier supervisor: what is left of that is taken away first.
    pub unfinished: Option<NetworkStatus>,
    /// Told once what an earlier supervisor left is taken over or away, or cannot be.
    pub taken_over: Option<oneshot::Sender<()>>,
}

impl Beginning {
    /// One that has nothing of the host.
    #[must_use]
    pub const fn of(network: Network, record: Option<NetworkRecord>) -> Self {
        Self {
            network,
            record,
            active: None,
            unfinished: None,
            taken_over: None,
        }
    }
}

#[derive(Debug)]
struct Active {
    network: Network,
    resources: NetworkResources,
    fault: Option<String>,
    server: Server,
    /// Of its last watch: what earlier ones tell means nothing.
    watch: u64,
}

/// What is done one after the other.
#[derive(Debug)]
enum Job {
    Asked(Request, Reply),
    Connect(PortUuid),
    TakeOver,
    /// Takes away what an earlier supervisor had begun.
    Undo(Box<NetworkStatus>),
    /// Looks whether all of it works.
    Check,
}

/// What is being done.
#[derive(Debug)]
struct Working {
    reply: Option<Reply>,
    /// It was to make the network active.
    starts: bool,
    takes_over: bool,
    checks: bool,
    /// A bridge that is the network's meanwhile.
    _wanted: Option<Wanted>,
}

/// One network.
#[derive(Debug)]
struct Actor {
    means: Arc<Means>,
    events: Arc<EventLog>,
    uuid: NetworkUuid,
    /// What is shown where it is neither kept nor active.
    shown: Network,
    record: Option<NetworkRecord>,
    active: Option<Active>,
    starts: u64,
    watches: u64,
    line: VecDeque<Job>,
    working: Option<Working>,
    taken_over: Option<oneshot::Sender<()>>,
    view: watch::Sender<Arc<View>>,
    own: mpsc::WeakSender<Message>,
}

/// Starts the actor of a network; `retire` is called when nothing is left of it.
pub fn spawn(
    means: Arc<Means>,
    events: Arc<EventLog>,
    beginning: Beginning,
    retire: impl FnOnce() + Send + 'static,
) -> Handle {
    let (messages, mut inbox) = mpsc::channel(MAILBOX);
    let Beginning {
        network,
        record,
        active,
        unfinished,
        taken_over,
    } = beginning;
    let uuid = network.uuid;
    let was_active = active.is_some();
    let delays = means.delays;
    let mut actor = Actor {
        means,
        events,
        uuid,
        shown: network.clone(),
        record,
        active: active.map(|resources| Active {
            network: network.clone(),
            resources,
            fault: None,
            server: Server::new(delays),
            watch: 0,
        }),
        starts: u64::from(was_active),
        watches: 0,
        line: VecDeque::new(),
        working: None,
        taken_over,
        view: watch::channel(Arc::new(nothing(network))).0,
        own: messages.downgrade(),
    };
    if let Some(active) = &actor.active {
        if let Err(error) = actor.means.claims.claim(&active.network) {
            tracing::error!(%error, "two networks that were active share addresses");
        }
        actor.line.push_back(Job::TakeOver);
    }
    if let Some(unfinished) = unfinished {
        actor.line.push_back(Job::Undo(Box::new(unfinished)));
    }
    actor.publish();
    let handle = Handle {
        messages,
        view: actor.view.subscribe(),
    };
    tokio::spawn(async move {
        actor.go_on();
        while let Some(message) = inbox.recv().await {
            actor.take(message);
            if actor.is_nothing() {
                break;
            }
        }
        retire();
    });
    handle
}

fn nothing(network: Network) -> View {
    View {
        network,
        next: None,
        persistent: false,
        autostart: false,
        active: false,
        fault: None,
        starts: 0,
    }
}

impl Actor {
    fn is_nothing(&self) -> bool {
        let left = self.record.is_some() || self.active.is_some();
        !left && self.working.is_none() && self.line.is_empty()
    }

    fn network(&self) -> &Network {
        let kept = || self.record.as_ref().map(|record| &record.network);
        let active = self.active.as_ref().map(|active| &active.network);
        active.or_else(kept).unwrap_or(&self.shown)
    }

    fn publish(&self) {
        let network = self.network().clone();
        let kept = self.record.as_ref().map(|record| &record.network);
        let view = View {
            next: kept.filter(|kept| **kept != network).cloned(),
            persistent: self.record.is_some(),
            autostart: self.record.as_ref().is_some_and(|record| record.autostart),
            active: self.active.is_some(),
            fault: self.active.as_ref().and_then(|active| active.fault.clone()),
            starts: self.starts,
            ..nothing(network)
        };
        self.view.send_replace(Arc::new(view));
    }

    /// Tells what has happened, once it is what whoever is told can read.
    fn event(&self, kind: NetworkEventKind) {
        self.publish();
        let name = &self.network().name;
        tracing::info!(network = %name, uuid = %self.uuid, event = ?kind, "network event");
        self.events.network_event(self.uuid, name, kind);
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Asked(request, reply) => {
                if self.line.len() >= LINE {
                    let name = &self.network().name;
                    let why = format!("network '{name}': too much waits for it already");
                    let _ = reply.send(Err(ApiError::new(ApiErrorCode::Busy, why)));
                } else {
                    self.line.push_back(Job::Asked(request, reply));
                }
            }
            Message::Connect(port) => self.line.push_back(Job::Connect(port)),
            Message::Done(result) => self.done(*result),
            Message::ServerEnded(watch) => self.server_ended(watch),
            Message::Retry(watch) => {
                if self.active.as_ref().is_some_and(|it| it.watch == watch) {
                    self.line.push_back(Job::TakeOver);
                }
            }
            Message::Check(watch) => {
                let watched = self.active.as_ref().is_some_and(|it| it.watch == watch);
                // Whatever else is done finds as much; nobody waits for this.
                if watched && self.line.is_empty() && self.working.is_none() {
                    self.line.push_back(Job::Check);
                }
            }
        }
        self.go_on();
    }

    /// Begins what is next, if nothing is being done.
    fn go_on(&mut self) {
        while self.working.is_none() {
            let Some(job) = self.line.pop_front() else {
                return;
            };
            match job {
                Job::Asked(request, reply) => {
                    if let Err((error, reply)) = self.begin(request, reply) {
                        // Whoever asked and has gone needs no answer.
                        let _ = reply.send(Err(error));
                    }
                }
                Job::Connect(port) => {
                    if let Some(active) = &self.active {
                        let (network, start) = (active.network.clone(), self.starts);
                        self.work(Working::of(None), move |means| {
                            means.connect(&network, start, Some(port));
                            Ok(Outcome::Connected)
                        });
                    }
                }
                Job::Undo(left) => {
                    let working = Working {
                        takes_over: true,
                        ..Working::of(None)
                    };
                    self.work(working, move |means| {
                        means.undo(&left.network, &left.resources)?;
                        Ok(Outcome::Undone)
                    });
                }
                Job::Check => {
                    if let Some(active) = &self.active {
                        let (network, resources) =
                            (active.network.clone(), active.resources.clone());
                        let working = Working {
                            checks: true,
                            ..Working::of(None)
                        };
                        self.work(working, move |means| means.check(&network, &resources));
                    }
                }
                Job::TakeOver => {
                    if let Some(active) = &self.active {
                        let (network, resources) =
                            (active.network.clone(), active.resources.clone());
                        let working = Working {
                            takes_over: true,
                            ..Working::of(None)
                        };
                        let start = self.starts;
                        self.work(working, move |means| {
                            means.adopt(&network, &resources, start)
                        });
                    }
                }
            }
        }
    }

    fn begin(&mut self, request: Request, reply: Reply) -> Result<(), (ApiError, Reply)> {
        let standing = Standing {
            kept: self.record.is_some(),
            active: self.active.is_some(),
        };
        if let Err(error) = admit(self.network(), standing, request.act()) {
            return Err((error, reply));
        }
        let autostart = self.record.as_ref().is_some_and(|record| record.autostart);
        let active = self.active.as_ref();
        let active = active.map(|active| (active.network.clone(), active.resources.clone()));
        let working = Working::of(Some(reply));
        match request {
            Request::Define(network, wanted) => {
                let record = NetworkRecord {
                    network: *network,
                    autostart,
                };
                let working = Working {
                    _wanted: wanted,
                    ..working
                };
                self.work(working, move |means| means.define(record));
            }
            Request::Create(network, wanted) => {
                let working = Working {
                    _wanted: wanted,
                    ..working
                };
                return self.start(network, working);
            }
            Request::Start => {
                let network = Box::new(self.network().clone());
                return self.start(network, working);
            }
            Request::Stop => {
                if let Some((network, resources)) = active {
                    let forget = self.record.is_none();
                    self.work(working, move |means| {
                        means.stop(&network, &resources, forget)
                    });
                }
            }
            Request::Undefine => {
                let network = self.network().clone();
                let forget = self.active.is_none();
                self.work(working, move |means| means.undefine(&network, forget));
            }
            Request::Autostart(autostart) => {
                if let Some(record) = &self.record {
                    let record = NetworkRecord {
                        network: record.network.clone(),
                        autostart,
                    };
                    self.work(working, move |means| means.autostart(record));
                }
            }
            Request::Change {
                change,
                live,
                persistent,
            } => {
                let active = active.filter(|_| live);
                let record = self.record.clone().filter(|_| persistent);
                self.work(working, move |means| means.change(&change, active, record));
            }
        }
        Ok(())
    }

    fn start(
        &mut self,
        network: Box<Network>,
        mut working: Working,
    ) -> Result<(), (ApiError, Reply)> {
        let free = startable(&network).and_then(|()| self.means.claims.claim(&network));
        if let Err(error) = free {
            return match working.reply.take() {
                Some(reply) => Err((error, reply)),
                None => Ok(()),
            };
        }
        let start = self.starts + 1;
        working.starts = true;
        self.work(working, move |means| means.start(network, start));
        Ok(())
    }

    fn work(
        &mut self,
        working: Working,
        work: impl FnOnce(&Means) -> Result<Outcome, ApiError> + Send + 'static,
    ) {
        self.working = Some(working);
        let (means, own) = (Arc::clone(&self.means), self.own.clone());
        let name = self.network().name.clone();
        tokio::spawn(async move {
            let worked = tokio::task::spawn_blocking(move || work(&means)).await;
            let worked = worked.unwrap_or_else(|_| {
                let why = format!("network '{name}': the thread that worked on it failed");
                Err(ApiError::new(ApiErrorCode::Host, why))
            });
            if let Some(own) = own.upgrade() {
                // Its actor goes on as long as there is work.
                let _ = own.send(Message::Done(Box::new(worked))).await;
            }
        });
    }

    fn done(&mut self, result: Result<Outcome, ApiError>) {
        let Some(working) = self.working.take() else {
            return;
        };
        let result = match result {
            Ok(Outcome::NotChanged(made, error)) => {
                self.commit(Outcome::Adopted(made));
                Err(error)
            }
            result => result,
        };
        if let (true, Err(_)) = (working.starts, &result) {
            self.means.claims.release(self.uuid);
        }
        if let (true, Err(error)) = (working.takes_over, &result) {
            tracing::error!(%error, "what an earlier supervisor left of a network could not be taken over or away");
            self.not_taken_over(error.message.clone());
        }
        if let (true, Err(error)) = (working.checks, &result) {
            tracing::warn!(%error, "a network does not work any more, and is made again");
            self.not_taken_over(error.message.clone());
        }
        let result = result.map(|outcome| self.commit(outcome));
        self.publish();
        if working.takes_over {
            if let Some(taken_over) = self.taken_over.take() {
                let _ = taken_over.send(());
            }
        }
        if let Some(reply) = working.reply {
            // Whoever asked and has gone needs no answer.
            let _ = reply.send(result);
        }
    }

    fn commit(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Defined(record) => {
                let changed = self.record.replace(record).is_some();
                self.event(NetworkEventKind::Defined { changed });
                crash::point(Operation::NetworkDefine, Moment::BeforeAnswer);
            }
            Outcome::Started(network, made) => {
                self.starts += 1;
                self.activate(*network, made);
                self.event(NetworkEventKind::Started);
                crash::point(Operation::NetworkStart, Moment::BeforeAnswer);
            }
            Outcome::Stopped => {
                self.shown = self.network().clone();
                self.active = None;
                self.means.claims.release(self.uuid);
                self.event(NetworkEventKind::Stopped);
                crash::point(Operation::NetworkStop, Moment::BeforeAnswer);
            }
            Outcome::Undefined => {
                self.shown = self.network().clone();
                self.record = None;
                self.event(NetworkEventKind::Undefined);
                crash::point(Operation::NetworkUndefine, Moment::BeforeAnswer);
            }
            Outcome::Autostart(record) => {
                let on = record.autostart;
                let before = self.record.replace(record);
                if before.is_some_and(|before| before.autostart != on) {
                    self.event(NetworkEventKind::Autostart { on });
                }
            }
            Outcome::Changed {
                active,
                record,
                event,
            } => {
                if let Some(record) = record {
                    self.record = Some(record);
                }
                if let Some((network, made)) = active {
                    self.activate(*network, made);
                }
                self.event(event);
                crash::point(Operation::NetworkUpdate, Moment::BeforeAnswer);
            }
            Outcome::Adopted(made) => {
                if let Some(active) = &self.active {
                    let network = active.network.clone();
                    self.activate(network, made);
                }
            }
            // The first of them is taken apart before.
            Outcome::NotChanged(..) | Outcome::Connected | Outcome::Undone | Outcome::Checked => {}
        }
    }

    /// It is active with that definition, and its server watched.
    fn activate(&mut self, network: Network, made: Made) {
        let Made { resources, watch } = made;
        self.watches += 1;
        let before = self.active.take();
        let mut server = match before {
            Some(active) => active.server,
            None => Server::new(self.means.delays),
        };
        let watched = match watch {
            _ if !network.needs_server() || resources.server.is_none() => Watched::Nothing,
            Some(descriptor) => Watched::Runs(descriptor),
            None => Watched::Ended,
        };
        server.watch(self.watches, watched, self.own.clone());
        self.active = Some(Active {
            network,
            resources,
            fault: None,
            server,
            watch: self.watches,
        });
    }

    fn server_ended(&mut self, watch: u64) {
        let Some(active) = self.active.as_ref().filter(|it| it.watch == watch) else {
            return;
        };
        tracing::warn!(network = %active.network.name, "the server of a network has ended");
        self.not_taken_over("its server of names and addresses has ended".to_owned());
        self.publish();
    }

    /// Something of it does not work: it is tried again, and said meanwhile.
    fn not_taken_over(&mut self, why: String) {
        let own = self.own.clone();
        if let Some(active) = &mut self.active {
            let delay = active.server.wait(active.watch, own);
            active.fault = Some(format!("{why}; it is tried again in {delay:?}"));
        }
    }
}

impl Working {
    const fn of(reply: Option<Reply>) -> Self {
        Self {
            reply,
            starts: false,
            takes_over: false,
            checks: false,
            _wanted: None,
        }
    }
}
