//! All networks of an instance: which names, UUIDs and bridges are taken, who owns each, and who is connected.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use reeve_ipc::api::call::{NetworkFilter, NetworkPage, NetworkPortPage, NetworkRef};
use reeve_ipc::api::error::{ApiError, ApiErrorCode};
use reeve_ipc::api::event::NetworkEventKind;
use reeve_ipc::api::network::{NetworkDetails, NetworkSummary, PortDetails};
use reeve_ipc::model::{
    InterfaceName, InvalidName, Network, NetworkName, NetworkPort, NetworkUuid, PortUuid,
};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::actor::{self, Beginning};
use super::admission::startable;
use super::claims::{Wanted, WantedBridges};
use super::default;
use super::handle::{Handle, Request};
use super::host::NetworkHost;
use super::ports::{self, Port, PortTable};
use super::server::Delays;
use super::view::{self, View};
use super::work::Means;
use crate::api::events::EventLog;
use crate::domain::world::{PortRequest, Ports};
use crate::host::{process, tap};
use crate::pool::registry::fitting;
use crate::store::{LoadedNetworks, NetworkPhase, NetworkRecord, NetworkStatus, NetworkStore};

/// Networks of one instance, at most.
const MAX_NETWORKS: usize = 4096;
/// How long the first clients may be held up by networks that are taken over.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long domains that start with the host wait for networks that do.
const AUTOSTART_PATIENCE: Duration = Duration::from_secs(10);

/// Every network. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Networks {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    means: Arc<Means>,
    events: Arc<EventLog>,
    networks: Mutex<BTreeMap<NetworkUuid, Handle>>,
    /// Bridges of definitions that are asked for and not kept yet.
    wanted: WantedBridges,
}

impl Shared {
    fn networks(&self) -> MutexGuard<'_, BTreeMap<NetworkUuid, Handle>> {
        // Nothing panics while it is held.
        self.networks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The network `default` with the first of its addresses that the host does not reach elsewhere; with the first of all
/// where it reaches each, or cannot say.
fn draw_default(host: &dyn NetworkHost) -> Result<Network, InvalidName> {
    let uuid = ports::draw_uuid();
    for part in default::PARTS {
        let network = default::definition(uuid, part)?;
        match host.is_free(&network) {
            Ok(false) => {}
            Ok(true) => return Ok(network),
            Err(error) => {
                tracing::warn!(%error, "cannot see which addresses are free for the network 'default'");
                break;
            }
        }
    }
    default::definition(uuid, *default::PARTS.start())
}

fn no_network(network: &NetworkRef) -> ApiError {
    let why = format!("there is no network {network}; 'reeve network list' shows those there are");
    ApiError::new(ApiErrorCode::NoNetwork, why)
}

fn inactive(name: &NetworkName) -> ApiError {
    let why = format!("network '{name}' is not active");
    ApiError::new(ApiErrorCode::WrongState, why)
}

impl Networks {
    /// None yet.
    #[must_use]
    pub fn new(host: Arc<dyn NetworkHost>, store: NetworkStore, events: Arc<EventLog>) -> Self {
        Self::with(host, store, events, Delays::default())
    }

    pub(super) fn with(
        host: Arc<dyn NetworkHost>,
        store: NetworkStore,
        events: Arc<EventLog>,
        delays: Delays,
    ) -> Self {
        let means = Means {
            host,
            store,
            claims: super::claims::Claims::default(),
            ports: PortTable::default(),
            boot_id: process::boot_id().to_owned(),
            delays,
        };
        Self {
            shared: Arc::new(Shared {
                means: Arc::new(means),
                events,
                networks: Mutex::default(),
                wanted: WantedBridges::default(),
            }),
        }
    }

    /// What was kept.
    ///
    /// # Errors
    /// A directory of it cannot be read.
    pub fn load(&self) -> Result<LoadedNetworks, crate::store::StoreError> {
        let means = &self.shared.means;
        means.store.load_all(&means.boot_id)
    }

    /// Takes up what an earlier supervisor left: what was being made or taken away is taken away, what was active is
    /// taken over. Comes back when that is done, or goes on by itself.
    pub async fn recover(&self, loaded: LoadedNetworks) {
        let mut records: BTreeMap<NetworkUuid, _> = loaded
            .records
            .into_iter()
            .map(|record| (record.network.uuid, record))
            .collect();
        let statuses = loaded.statuses.into_iter();
        let (active, unfinished): (Vec<_>, Vec<_>) =
            statuses.partition(|status| status.phase == NetworkPhase::Active);
        // What several networks need is taken over for those that stay before it is taken away with others.
        for statuses in [active, unfinished] {
            let told = self.take_up(statuses, &mut records);
            let all = async {
                for is_taken_over in told {
                    let _ = is_taken_over.await;
                }
            };
            if tokio::time::timeout(PATIENCE, all).await.is_err() {
                tracing::error!(
                    "networks are still being taken over; clients do not wait for them"
                );
            }
        }
        let mut networks = self.shared.networks();
        for record in records.into_values() {
            let network = record.network.clone();
            self.spawn(&mut networks, Beginning::of(network, Some(record)));
        }
    }

    /// Starts the actors of networks that an earlier supervisor left something of; each tells when that is done.
    fn take_up(
        &self,
        statuses: Vec<NetworkStatus>,
        records: &mut BTreeMap<NetworkUuid, NetworkRecord>,
    ) -> Vec<oneshot::Receiver<()>> {
        let mut told = Vec::new();
        let mut networks = self.shared.networks();
        for status in statuses {
            let (taken_over, is_taken_over) = oneshot::channel();
            told.push(is_taken_over);
            let record = records.remove(&status.network.uuid);
            let kept = record.as_ref().map(|record| record.network.clone());
            let is_active = status.phase == NetworkPhase::Active;
            let beginning = Beginning {
                network: kept
                    .filter(|_| !is_active)
                    .unwrap_or_else(|| status.network.clone()),
                record,
                active: is_active.then(|| status.resources.clone()),
                unfinished: (!is_active).then_some(status),
                taken_over: Some(taken_over),
            };
            self.spawn(&mut networks, beginning);
        }
        told
    }

    /// Defines the network that an instance has from its first start, and lets it start with the host; whether it did.
    /// Once in the life of an instance: what somebody undefined does not come back.
    ///
    /// # Errors
    /// Those of keeping it.
    pub async fn define_default(&self) -> Result<bool, ApiError> {
        let store = &self.shared.means.store;
        if store.has_had_default() {
            return Ok(false);
        }
        let made = match self.make_default().await {
            // Somebody has made one before there was any, or the mark was not reached.
            Err(error) if error.code == ApiErrorCode::NetworkExists => false,
            made => made.map(|()| true)?,
        };
        let marked = store.default_made();
        marked.map_err(|error| ApiError::new(ApiErrorCode::Storage, error.to_string()))?;
        Ok(made)
    }

    async fn make_default(&self) -> Result<(), ApiError> {
        let host = Arc::clone(&self.shared.means.host);
        let drawn = tokio::task::spawn_blocking(move || draw_default(&*host)).await;
        let drawn = drawn.map_err(|error| ApiError::new(ApiErrorCode::Host, error.to_string()))?;
        let network = drawn
            .map_err(|error| ApiError::new(ApiErrorCode::InvalidArgument, error.to_string()))?;
        let uuid = network.uuid;
        self.define(network, true).await?;
        let network = NetworkRef::Uuid(uuid);
        self.ask(&network, Request::Autostart(true)).await?;
        Ok(())
    }

    /// Starts the networks that start with the host, all at once; they are waited for no longer than ten seconds,
    /// and go on by themselves.
    pub async fn autostart(&self) {
        let handles: Vec<Handle> = self.shared.networks().values().cloned().collect();
        let mut starting = JoinSet::new();
        for handle in handles {
            let view = handle.view.borrow().clone();
            if !view.autostart || view.active {
                continue;
            }
            starting.spawn(async move {
                if let Err(error) = handle.ask(Request::Start).await {
                    tracing::error!(%error, "a network did not start with the host");
                }
            });
        }
        let all = async { while starting.join_next().await.is_some() {} };
        if tokio::time::timeout(AUTOSTART_PATIENCE, all).await.is_err() {
            let late = starting.len();
            tracing::error!(
                late,
                "networks are still to start with the host; domains do not wait for them"
            );
        }
        starting.detach_all();
    }

    fn spawn(&self, networks: &mut BTreeMap<NetworkUuid, Handle>, beginning: Beginning) -> Handle {
        let uuid = beginning.network.uuid;
        let shared = Arc::downgrade(&self.shared);
        let retire = move || {
            if let Some(shared) = shared.upgrade() {
                shared.networks().remove(&uuid);
            }
        };
        let (means, events) = (
            Arc::clone(&self.shared.means),
            Arc::clone(&self.shared.events),
        );
        let handle = actor::spawn(means, events, beginning, retire);
        networks.insert(uuid, handle.clone());
        handle
    }

    fn find(&self, network: &NetworkRef) -> Result<Handle, ApiError> {
        let networks = self.shared.networks();
        let found = match network {
            NetworkRef::Uuid(uuid) => networks
                .get(uuid)
                .filter(|handle| handle.view.borrow().exists()),
            NetworkRef::Name(name) => networks.values().find(|handle| {
                let view = handle.view.borrow();
                view.exists() && view.network.name == *name
            }),
            NetworkRef::Bridge(wanted) => {
                let on = |active: bool| {
                    networks.values().find(|handle| {
                        let view = handle.view.borrow();
                        let of = view::bridge(&view.network);
                        view.exists() && view.active == active && of == Some(wanted)
                    })
                };
                on(true).or_else(|| on(false))
            }
        };
        found.cloned().ok_or_else(|| no_network(network))
    }

    fn view(&self, network: &NetworkRef) -> Result<Arc<View>, ApiError> {
        let handle = self.find(network)?;
        let view = handle.view.borrow().clone();
        Ok(view)
    }

    /// Looks whether a definition collides with another network, and whether it is new.
    fn judge(
        networks: &BTreeMap<NetworkUuid, Handle>,
        network: &Network,
        only_new: bool,
    ) -> Result<bool, ApiError> {
        let exists = |why: String| Err(ApiError::new(ApiErrorCode::NetworkExists, why));
        let Network { name, uuid, .. } = network;
        for (other, handle) in networks {
            let view = handle.view.borrow();
            let of = &view.network.name;
            if other == uuid {
                if of != name {
                    return exists(format!(
                        "network '{of}' is already defined with uuid {uuid}"
                    ));
                }
                if only_new {
                    return exists(format!("network '{name}' already exists"));
                }
            } else if of == name {
                return exists(format!("network '{name}' already exists with uuid {other}"));
            }
        }
        let new = !networks.contains_key(uuid);
        if new && networks.len() >= MAX_NETWORKS {
            return Err(ApiError::new(
                ApiErrorCode::Busy,
                format!("there are {MAX_NETWORKS} networks, and no more can be had"),
            ));
        }
        Ok(new)
    }

    /// The bridges of other networks' definitions, and those that are about to be.
    fn taken_bridges(
        &self,
        networks: &BTreeMap<NetworkUuid, Handle>,
        uuid: NetworkUuid,
    ) -> BTreeSet<InterfaceName> {
        let mut taken = BTreeSet::new();
        for (_, handle) in networks.iter().filter(|(other, _)| **other != uuid) {
            let view = handle.view.borrow();
            let next = view.next.as_ref().and_then(view::bridge);
            taken.extend(view::bridge(&view.network).into_iter().chain(next).cloned());
        }
        let wanted = self.shared.wanted.lock();
        // Nothing panics while it is held.
        let wanted = wanted.unwrap_or_else(PoisonError::into_inner);
        let others = wanted.iter().filter(|(other, _)| *other != uuid);
        taken.extend(others.map(|(_, name)| name.clone()));
        taken
    }

    /// Sees that the bridge of a definition is its own, and draws a name for it where it says none.
    fn name_bridge(
        &self,
        networks: &BTreeMap<NetworkUuid, Handle>,
        network: &mut Network,
    ) -> Result<Option<Wanted>, ApiError> {
        if !network.forward.makes_bridge() {
            return Ok(None);
        }
        let uuid = network.uuid;
        let before = networks.get(&uuid).and_then(|handle| {
            let view = handle.view.borrow();
            let kept = view.kept().unwrap_or(&view.network);
            kept.bridge.name.clone()
        });
        let taken = self.taken_bridges(networks, uuid);
        let name = match network.bridge.name.take().or(before) {
            Some(name) if taken.contains(&name) => {
                let why = format!("bridge name '{name}' already in use.");
                return Err(ApiError::new(ApiErrorCode::NetworkExists, why));
            }
            Some(name) => name,
            None => {
                let mut names = (0..=MAX_NETWORKS * 2)
                    .filter_map(|number| format!("virbr{number}").parse::<InterfaceName>().ok());
                let free = names.find(|name| !taken.contains(name) && !tap::is_interface(name));
                free.ok_or_else(|| {
                    let why = format!(
                        "network '{}': no name of a bridge is free; say one",
                        network.name
                    );
                    ApiError::new(ApiErrorCode::Busy, why)
                })?
            }
        };
        network.bridge.name = Some(name.clone());
        Ok(Some(Wanted::new(&self.shared.wanted, uuid, name)))
    }

    /// The actor of a definition, which is checked and completed.
    fn enter(
        &self,
        network: &mut Network,
        only_new: bool,
    ) -> Result<(Handle, Option<Wanted>), ApiError> {
        network.complete();
        network.validate().map_err(|error| {
            let why = format!("network '{}': {error}", network.name);
            ApiError::new(ApiErrorCode::InvalidArgument, why)
        })?;
        let mut networks = self.shared.networks();
        let new = Self::judge(&networks, network, only_new)?;
        let wanted = self.name_bridge(&networks, network)?;
        if let (false, Some(handle)) = (new, networks.get(&network.uuid)) {
            return Ok((handle.clone(), wanted));
        }
        let beginning = Beginning::of(network.clone(), None);
        Ok((self.spawn(&mut networks, beginning), wanted))
    }

    /// Keeps a definition.
    ///
    /// # Errors
    /// [`ApiErrorCode::NetworkExists`], [`ApiErrorCode::InvalidArgument`] and those of keeping it.
    pub async fn define(
        &self,
        mut network: Network,
        only_new: bool,
    ) -> Result<NetworkSummary, ApiError> {
        let (handle, wanted) = self.enter(&mut network, only_new)?;
        let define = Request::Define(Box::new(network), wanted);
        handle.ask(define).await?;
        Ok(self.summary(&handle))
    }

    /// Starts a network with a definition that is not kept.
    ///
    /// # Errors
    /// As of [`Self::define`], and those of starting it.
    pub async fn create(&self, mut network: Network) -> Result<NetworkSummary, ApiError> {
        startable(&network)?;
        let (handle, wanted) = self.enter(&mut network, false)?;
        let create = Request::Create(Box::new(network), wanted);
        handle.ask(create).await?;
        Ok(self.summary(&handle))
    }

    /// Asks something of a network.
    ///
    /// # Errors
    /// [`ApiErrorCode::NoNetwork`], and the network's.
    pub async fn ask(
        &self,
        network: &NetworkRef,
        request: Request,
    ) -> Result<NetworkSummary, ApiError> {
        let handle = self.find(network)?;
        handle.ask(request).await?;
        Ok(self.summary(&handle))
    }

    fn summary(&self, handle: &Handle) -> NetworkSummary {
        let view = handle.view.borrow().clone();
        view.summary(self.shared.means.ports.count(&view.network.name))
    }

    /// One network.
    ///
    /// # Errors
    /// [`ApiErrorCode::NoNetwork`].
    pub fn get(&self, network: &NetworkRef) -> Result<NetworkDetails, ApiError> {
        let view = self.view(network)?;
        Ok(view.details(self.shared.means.ports.count(&view.network.name)))
    }

    /// The definition that a network has, or the one that it will have with its next start.
    ///
    /// # Errors
    /// [`ApiErrorCode::NoNetwork`], [`ApiErrorCode::WrongState`]: none is kept.
    pub fn definition(&self, network: &NetworkRef, persistent: bool) -> Result<Network, ApiError> {
        let view = self.view(network)?;
        if !persistent {
            return Ok(view.network.clone());
        }
        view.kept().cloned().ok_or_else(|| {
            let why = format!(
                "network '{}': it is transient, and no definition of it is kept",
                view.network.name
            );
            ApiError::new(ApiErrorCode::WrongState, why)
        })
    }

    /// One page of networks, in the order of names.
    #[must_use]
    pub fn page(&self, after: Option<&NetworkName>, filter: NetworkFilter) -> NetworkPage {
        let wanted = |wanted: Option<bool>, is: bool| wanted.is_none_or(|wanted| wanted == is);
        let counts = self.shared.means.ports.counts();
        let networks = self.shared.networks();
        let views = networks.values().map(|handle| handle.view.borrow().clone());
        let mut summaries: Vec<NetworkSummary> = views
            .filter(|view| {
                view.exists()
                    && after.is_none_or(|after| view.network.name > *after)
                    && wanted(filter.active, view.active)
                    && wanted(filter.persistent, view.persistent)
                    && wanted(filter.autostart, view.autostart)
            })
            .map(|view| {
                let ports = counts.get(&view.network.name).copied();
                view.summary(ports.unwrap_or_default())
            })
            .collect();
        drop(networks);
        summaries.sort_by(|a, b| a.name.cmp(&b.name));
        let (networks, more) = fitting(summaries.into_iter());
        NetworkPage { networks, more }
    }

    /// One page of what is connected to a network.
    ///
    /// # Errors
    /// [`ApiErrorCode::NoNetwork`].
    pub fn ports(
        &self,
        network: &NetworkRef,
        after: Option<PortUuid>,
    ) -> Result<NetworkPortPage, ApiError> {
        let view = self.view(network)?;
        Ok(self.shared.means.ports.page(&view.network.name, after))
    }

    /// The book of an active network's server, if it keeps one.
    ///
    /// # Errors
    /// [`ApiErrorCode::NoNetwork`], [`ApiErrorCode::WrongState`], and the host's.
    pub async fn leases(&self, network: &NetworkRef) -> Result<Option<OwnedFd>, ApiError> {
        let view = self.view(network)?;
        let name = view.network.name.clone();
        if !view.active {
            return Err(inactive(&name));
        }
        let means = Arc::clone(&self.shared.means);
        let looking = tokio::task::spawn_blocking(move || means.host.leases(&view.network));
        let failed =
            |why: String| ApiError::new(ApiErrorCode::Host, format!("network '{name}': {why}"));
        let leases = looking
            .await
            .map_err(|_| failed("the thread that looked at its leases failed".to_owned()))?;
        leases.map_err(|error| failed(error.to_string()))
    }

    /// Tells of a port of a network; of one that is not there there is nobody to tell.
    fn event(&self, network: &NetworkName, kind: NetworkEventKind) {
        if let Ok(view) = self.view(&NetworkRef::Name(network.clone())) {
            let uuid = view.network.uuid;
            self.shared.events.network_event(uuid, network, kind);
        }
    }
}

impl Ports for Networks {
    fn connect(&self, wanted: PortRequest<'_>) -> Result<NetworkPort, ApiError> {
        let network = NetworkRef::Name(wanted.network.clone());
        let view = self.view(&network)?;
        if !view.active {
            return Err(inactive(wanted.network));
        }
        let details = |port| PortDetails {
            port,
            domain: wanted.uuid,
            name: wanted.name.clone(),
            mac: wanted.mac,
            interface: None,
            port_group: wanted.port_group.map(str::to_owned),
        };
        let table = &self.shared.means.ports;
        let said = (wanted.port_group, wanted.virtual_port);
        let port = table.give(&view.network, view.starts, details, said)?;
        let added = NetworkEventKind::PortAdded { port: port.uuid };
        self.event(wanted.network, added);
        Ok(port)
    }

    fn restore(&self, network: &NetworkName, details: PortDetails) {
        let view = self.view(&NetworkRef::Name(network.clone())).ok();
        self.shared.means.ports.restore(Port {
            network: network.clone(),
            start: view
                .filter(|view| view.active)
                .map_or(0, |view| view.starts),
            details,
        });
    }

    fn made(&self, port: PortUuid, interface: InterfaceName) {
        let Some(port) = self.shared.means.ports.made(port, interface) else {
            return;
        };
        let Ok(handle) = self.find(&NetworkRef::Name(port.network.clone())) else {
            return;
        };
        // It may be stopped and started again while the interface is made; one that is connected stays so.
        handle.connect(port.details.port.uuid);
    }

    fn disconnect(&self, port: PortUuid) {
        if let Some(port) = self.shared.means.ports.remove(port) {
            let uuid = port.details.port.uuid;
            self.event(&port.network, NetworkEventKind::PortRemoved { port: uuid });
        }
    }
}
