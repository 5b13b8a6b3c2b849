//! What happens to domains, pools and networks, from the supervisor's events to libvirt's: one task a connection, which also notices
//! when the supervisor goes.
//!
//! It subscribes when the first callback is registered and keeps what libvirt's events say and the supervisor's
//! do not: the number a domain runs under, and the state it was in before. Events that the supervisor sent and
//! this process did not keep up with are asked for again; it keeps thousands.

mod details;
mod lifecycle;

use std::collections::HashMap;

use reeve_ipc::api::blocking::CallError;
use reeve_ipc::api::call::{DomainDefinitionGet, DomainGet, DomainList, DomainRef};
use reeve_ipc::api::client::Client;
use reeve_ipc::api::event::{
    Cursor, DomainEvent, Event, EventKind, Label, NetworkEvent, NetworkEventKind, PoolEvent,
    PoolEventKind,
};
use reeve_ipc::api::view::{DomainDefinition, DomainState, DomainSummary};
use reeve_ipc::model::{DomainName, DomainUuid, NetworkUuid, PoolUuid};
use reeve_ipc::spec::WatchdogAction;
use tokio::sync::{mpsc, oneshot};

use self::details::Details;
use crate::calls::failure::Failure;
use crate::calls::{agent, kib, tuned};
use crate::wire::types::params::Param;

/// What became of a tray (libvirt `virDomainEventTrayChangeReason`).
const TRAY_OPENED: i32 = 0;
const TRAY_CLOSED: i32 = 1;
/// How the channel of a guest's agent stands (libvirt `virConnectDomainEventAgentLifecycleState`).
const AGENT_CONNECTED: i32 = 1;
const AGENT_DISCONNECTED: i32 = 2;
/// Because the domain has started, or because the guest has opened or closed it.
const BY_START: i32 = 1;
const BY_CHANNEL: i32 = 2;
/// Events that wait to be told to the client.
const TOLD: usize = 64;
/// Registrations that wait.
const ASKED: usize = 16;

/// A domain as an event names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Subject {
    pub(super) name: String,
    pub(super) uuid: DomainUuid,
    /// `None` while it is off.
    pub(super) id: Option<u32>,
}

/// What happened, as libvirt sees it.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Happening {
    /// An event of its life, and the detail.
    Lifecycle(i32, i32),
    /// Its machine was reset.
    Reboot,
    /// Its watchdog expired; what is done (`virDomainEventWatchdogAction`).
    Watchdog(i32),
    /// Its guest has so many KiB of memory now.
    Balloon(u64),
    /// It has the device of this alias now.
    DeviceAdded(String),
    /// It has the device of this alias no more.
    DeviceRemoved(String),
    /// The tray of the disk of this alias was opened (0) or closed (1) for a medium.
    Tray(String, i32),
    /// What it may use of the host is other.
    Tuned(Vec<Param>),
    /// The agent's channel was opened (1) or closed (2), and by what (`virConnectDomainEventAgentLifecycleReason`).
    Agent(i32, i32),
    /// Title, description or metadata was set or taken away.
    Metadata {
        /// Which (`virDomainMetadataType`).
        kind: i32,
        /// Of which namespace.
        uri: Option<String>,
    },
}

/// A storage pool as an event names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PoolSubject {
    pub(super) name: String,
    pub(super) uuid: PoolUuid,
}

/// What happened to a pool, as libvirt sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PoolHappening {
    /// An event of its life (`virStoragePoolEventLifecycleType`).
    Lifecycle(i32),
    /// Its volumes may be others.
    Refresh,
}

/// A virtual network as an event names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NetworkSubject {
    pub(super) name: String,
    pub(super) uuid: NetworkUuid,
}

/// What happened to a network, as libvirt sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NetworkHappening {
    /// An event of its life (`virNetworkEventLifecycleType`).
    Lifecycle(i32),
    /// Title, description or metadata was set or taken away.
    Metadata {
        /// Which (`virNetworkMetadataType`).
        kind: i32,
        /// Of which namespace.
        uri: Option<String>,
    },
}

/// What the client is told, of what.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Told {
    /// Of a domain.
    Domain(Subject, Happening),
    /// Of a storage pool.
    Pool(PoolSubject, PoolHappening),
    /// Of a virtual network.
    Network(NetworkSubject, NetworkHappening),
}

/// Whether details are wanted, and who is told when it has begun.
type Asked = (bool, oneshot::Sender<Result<(), Failure>>);

/// The loop's end of the task.
#[derive(Debug)]
pub(super) struct Watch {
    ask: mpsc::Sender<Asked>,
    told: mpsc::Receiver<Told>,
}

impl Watch {
    /// Starts the task. It ends with the connection of `api`, or with this.
    pub(super) fn start(api: Client, events: mpsc::Receiver<(Cursor, Event)>) -> Self {
        let (ask, asked) = mpsc::channel(ASKED);
        let (tell, told) = mpsc::channel(TOLD);
        let watcher = Watcher {
            api,
            events,
            tell,
            last: None,
            detailed: false,
            active: HashMap::new(),
            details: HashMap::new(),
        };
        tokio::spawn(watcher.run(asked));
        Self { ask, told }
    }

    /// A future that is done when everything that happens from then on is told; what devices are called only where
    /// details are wanted.
    pub(super) fn begin(
        &self,
        details: bool,
    ) -> impl Future<Output = Result<(), Failure>> + Send + use<> {
        let ask = self.ask.clone();
        async move {
            let (answer, answered) = oneshot::channel();
            let gone = || Failure::from(CallError::Closed);
            ask.send((details, answer)).await.map_err(|_| gone())?;
            answered.await.map_err(|_| gone())?
        }
    }

    /// What happened next; `None` when the supervisor is gone.
    pub(super) async fn next(&mut self) -> Option<Told> {
        self.told.recv().await
    }
}

/// A domain that has a worker, as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Known {
    id: Option<u32>,
    state: DomainState,
}

struct Watcher {
    api: Client,
    events: mpsc::Receiver<(Cursor, Event)>,
    tell: mpsc::Sender<Told>,
    /// The last event that was taken; `None` before the first subscription.
    last: Option<Cursor>,
    /// Whether details are kept.
    detailed: bool,
    /// Domains with a worker.
    active: HashMap<DomainUuid, Known>,
    /// Details of every domain.
    details: HashMap<DomainUuid, Details>,
}

impl Watcher {
    async fn run(mut self, mut asked: mpsc::Receiver<Asked>) {
        loop {
            tokio::select! {
                event = self.events.recv() => match event {
                    Some((cursor, event)) => {
                        if self.take(cursor, event).await.is_err() {
                            return;
                        }
                    }
                    None => return,
                },
                Some((details, answer)) = asked.recv() => {
                    let begun = self.begin(details).await;
                    // Whoever asked may be gone.
                    let _ = answer.send(begun.map_err(Failure::from));
                }
                () = self.tell.closed() => return,
            }
        }
    }

    /// Subscribes, unless that is done.
    async fn begin(&mut self, details: bool) -> Result<(), CallError> {
        if self.last.is_none() {
            let subscribed = self.api.subscribe(None).await?;
            self.seed().await?;
            self.last = Some(subscribed.cursor);
        }
        if details && !self.detailed {
            self.detailed = true;
            self.seed_details().await?;
        }
        Ok(())
    }

    /// Looks at what every domain has.
    async fn seed_details(&mut self) -> Result<(), CallError> {
        self.details.clear();
        for summary in self.list(false).await? {
            self.look(summary.uuid).await?;
        }
        Ok(())
    }

    /// The definition of a domain, if it is there.
    async fn definition(
        &self,
        uuid: DomainUuid,
    ) -> Result<Option<Box<DomainDefinition>>, CallError> {
        let call = DomainDefinitionGet {
            domain: DomainRef::Uuid(uuid),
            persistent: false,
        };
        match self.api.call(call).await {
            Ok(definition) => Ok(Some(definition)),
            // It is gone already, or there is no such definition of it.
            Err(CallError::Refused(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Looks at what a domain has now, where details are kept; gives what it had before.
    async fn look(&mut self, uuid: DomainUuid) -> Result<Details, CallError> {
        let before = self.details.remove(&uuid).unwrap_or_default();
        if !self.detailed {
            return Ok(before);
        }
        let Some(now) = self.definition(uuid).await? else {
            return Ok(before);
        };
        self.details.insert(uuid, Details::of(&now.domain));
        Ok(before)
    }

    /// Looks at everything that runs. What happens meanwhile comes as events too, and changes nothing then.
    async fn seed(&mut self) -> Result<(), CallError> {
        self.active.clear();
        for summary in self.list(true).await? {
            self.note(&summary);
        }
        Ok(())
    }

    /// Every domain, or those with a worker.
    async fn list(&self, active_only: bool) -> Result<Vec<DomainSummary>, CallError> {
        let mut all: Vec<DomainSummary> = Vec::new();
        loop {
            let after: Option<DomainName> = all.last().map(|last| last.name.clone());
            let page = self.api.call(DomainList { after, active_only }).await?;
            let more = page.more && !page.domains.is_empty();
            all.extend(page.domains);
            if !more {
                return Ok(all);
            }
        }
    }

    fn note(&mut self, summary: &DomainSummary) {
        let (id, state) = (summary.id, summary.state);
        if state.is_active() {
            self.active.insert(summary.uuid, Known { id, state });
        }
    }

    /// Takes one event of the supervisor, which must be the next one.
    async fn take(&mut self, cursor: Cursor, event: Event) -> Result<(), CallError> {
        let Some(last) = self.last else {
            return Ok(());
        };
        if cursor.epoch == last.epoch && cursor.number <= last.number {
            return Ok(());
        }
        if cursor.number != last.number + 1 {
            // Some were dropped because this task was behind. They are sent again, and this one with them.
            let subscribed = self.api.subscribe(Some(last)).await?;
            if subscribed.lost {
                tracing::warn!("events were lost: the client reads them too slowly");
                self.seed().await?;
                if self.detailed {
                    self.seed_details().await?;
                }
            }
            self.last = Some(subscribed.cursor);
            return Ok(());
        }
        self.last = Some(cursor);
        match event {
            Event::Domain(event) => self.tell(event).await,
            Event::Pool(event) => {
                self.tell_pool(event).await;
                Ok(())
            }
            Event::Network(event) => {
                self.tell_network(event).await;
                Ok(())
            }
        }
    }

    async fn tell(&mut self, event: DomainEvent) -> Result<(), CallError> {
        let DomainEvent {
            uuid, name, kind, ..
        } = event;
        let known = self.active.get(&uuid).copied();
        let subject = |id| Subject {
            name: name.as_str().to_owned(),
            uuid,
            id,
        };
        let id = known.and_then(|known| known.id);
        let happening = match kind {
            EventKind::State(state) => {
                return self.tell_state(&subject, uuid, known, state).await;
            }
            EventKind::Renamed { before } => {
                let old = Subject {
                    name: before.as_str().to_owned(),
                    ..subject(id)
                };
                let (event, detail) = lifecycle::UNDEFINED_RENAMED;
                self.send(old, Happening::Lifecycle(event, detail)).await;
                lifecycle_of(lifecycle::DEFINED_RENAMED)
            }
            EventKind::Defined { changed } => {
                self.look(uuid).await?;
                match changed {
                    false => lifecycle_of(lifecycle::DEFINED),
                    true => lifecycle_of(lifecycle::REDEFINED),
                }
            }
            EventKind::Undefined => {
                self.look(uuid).await?;
                lifecycle_of(lifecycle::UNDEFINED)
            }
            EventKind::Reset => Happening::Reboot,
            EventKind::Labels { label } => metadata(label),
            EventKind::DeviceAdded { device, .. } => {
                self.look(uuid).await?;
                Happening::DeviceAdded(self.known_details(uuid).alias(&device))
            }
            EventKind::DeviceRemoved { device, .. } => {
                let before = self.look(uuid).await?;
                Happening::DeviceRemoved(before.alias(&device))
            }
            EventKind::MediumChanged { device, .. } => {
                // A medium is changed through an open tray, which is closed behind it.
                let alias = self.known_details(uuid).alias(&device);
                let opened = Happening::Tray(alias.clone(), TRAY_OPENED);
                self.send(subject(id), opened).await;
                Happening::Tray(alias, TRAY_CLOSED)
            }
            EventKind::Tuned { changes } => {
                let params = tuned(&changes);
                if params.is_empty() {
                    return Ok(());
                }
                Happening::Tuned(params)
            }
            EventKind::ChannelChanged { channel, open } if channel == agent::CHANNEL => {
                let state = match open {
                    true => AGENT_CONNECTED,
                    false => AGENT_DISCONNECTED,
                };
                Happening::Agent(state, BY_CHANNEL)
            }
            EventKind::BalloonChanged { memory } => Happening::Balloon(kib(memory.bytes())),
            EventKind::WatchdogExpired { action } => Happening::Watchdog(watchdog(action)),
            EventKind::Panicked => lifecycle_of(lifecycle::PANICKED),
            EventKind::CrashKernel => lifecycle_of(lifecycle::CRASH_LOADED),
            // libvirt has no word for these.
            EventKind::Adopted
            | EventKind::Unresponsive
            | EventKind::Responsive
            | EventKind::JobFailed { .. }
            | EventKind::Autostart { .. }
            | EventKind::ChannelChanged { .. }
            | EventKind::VcpusChanged { .. } => return Ok(()),
        };
        self.send(subject(id), happening).await;
        Ok(())
    }

    async fn tell_state(
        &mut self,
        subject: &(dyn Fn(Option<u32>) -> Subject + Send + Sync),
        uuid: DomainUuid,
        known: Option<Known>,
        state: DomainState,
    ) -> Result<(), CallError> {
        let mut id = known.and_then(|known| known.id);
        if state.is_active() {
            if id.is_none() {
                id = self.id_of(uuid).await?;
            }
            self.active.insert(uuid, Known { id, state });
            if known.is_none() {
                self.look(uuid).await?;
                if self.known_details(uuid).has_agent() {
                    let closed = Happening::Agent(AGENT_DISCONNECTED, BY_START);
                    self.send(subject(id), closed).await;
                }
            }
        } else {
            self.active.remove(&uuid);
            self.look(uuid).await?;
        }
        for (event, detail) in lifecycle::events(known.map(|known| known.state), state) {
            let id = id.filter(|_| *event != lifecycle::STOPPED);
            self.send(subject(id), Happening::Lifecycle(*event, *detail))
                .await;
        }
        Ok(())
    }

    fn known_details(&self, uuid: DomainUuid) -> Details {
        self.details.get(&uuid).cloned().unwrap_or_default()
    }

    /// The number that the domain runs under, if it still does.
    async fn id_of(&self, uuid: DomainUuid) -> Result<Option<u32>, CallError> {
        let domain = DomainRef::Uuid(uuid);
        match self.api.call(DomainGet { domain }).await {
            Ok(details) => Ok(details.summary.id),
            Err(CallError::Refused(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Waits for a place: a client that is behind is told later.
    async fn send(&self, subject: Subject, happening: Happening) {
        // The loop has ended, and this task will.
        let _ = self.tell.send(Told::Domain(subject, happening)).await;
    }

    async fn tell_pool(&self, event: PoolEvent) {
        let PoolEvent {
            uuid, name, kind, ..
        } = event;
        let happening = match kind {
            PoolEventKind::Defined { .. } => PoolHappening::Lifecycle(0),
            PoolEventKind::Undefined => PoolHappening::Lifecycle(1),
            PoolEventKind::Started => PoolHappening::Lifecycle(2),
            PoolEventKind::Stopped => PoolHappening::Lifecycle(3),
            PoolEventKind::Created => PoolHappening::Lifecycle(4),
            PoolEventKind::Deleted => PoolHappening::Lifecycle(5),
            PoolEventKind::Refreshed => PoolHappening::Refresh,
            // libvirt has no word for it.
            PoolEventKind::Autostart { .. } => return,
        };
        let name = name.as_str().to_owned();
        let subject = PoolSubject { name, uuid };
        let _ = self.tell.send(Told::Pool(subject, happening)).await;
    }

    async fn tell_network(&self, event: NetworkEvent) {
        let NetworkEvent {
            uuid, name, kind, ..
        } = event;
        let happening = match kind {
            NetworkEventKind::Defined { .. } => NetworkHappening::Lifecycle(0),
            NetworkEventKind::Undefined => NetworkHappening::Lifecycle(1),
            NetworkEventKind::Started => NetworkHappening::Lifecycle(2),
            NetworkEventKind::Stopped => NetworkHappening::Lifecycle(3),
            NetworkEventKind::Labels { label } => {
                let (kind, uri) = noted(label);
                NetworkHappening::Metadata { kind, uri }
            }
            // libvirt has no word for these.
            NetworkEventKind::Autostart { .. }
            | NetworkEventKind::Updated
            | NetworkEventKind::PortAdded { .. }
            | NetworkEventKind::PortRemoved { .. } => return,
        };
        let name = name.as_str().to_owned();
        let subject = NetworkSubject { name, uuid };
        let _ = self.tell.send(Told::Network(subject, happening)).await;
    }
}

const fn lifecycle_of((event, detail): lifecycle::Lifecycle) -> Happening {
    Happening::Lifecycle(event, detail)
}

/// A label that was set, by libvirt's kinds of them (`virDomainMetadataType`).
fn noted(label: Label) -> (i32, Option<String>) {
    match label {
        Label::Description => (0, None),
        Label::Title => (1, None),
        Label::Metadata { uri } => (2, Some(uri)),
    }
}

fn metadata(label: Label) -> Happening {
    let (kind, uri) = noted(label);
    Happening::Metadata { kind, uri }
}

/// What is done, in libvirt's numbers (`virDomainEventWatchdogAction`).
const fn watchdog(action: WatchdogAction) -> i32 {
    match action {
        WatchdogAction::Nothing => 0,
        WatchdogAction::Pause => 1,
        WatchdogAction::Reset => 2,
        WatchdogAction::PowerOff => 3,
        WatchdogAction::Shutdown => 4,
        WatchdogAction::InjectNmi => 6,
    }
}
