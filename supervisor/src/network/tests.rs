//! Networks on a host that makes nothing, remembers what it was asked and fails where a test says so.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use reeve_ipc::api::call::{LabelChange, NetworkFilter, NetworkRef};
use reeve_ipc::api::error::{ApiError, ApiErrorCode};
use reeve_ipc::api::event::{Cursor, Event, NetworkEventKind};
use reeve_ipc::model::{
    DirectMode, DomainUuid, EditCommand, Forward, HostDeviceSource, Nat, Network, NetworkAddress,
    NetworkEdit, NetworkPart, NetworkUuid, OpenVswitchPort, PortGroup, PortLink, PortUuid,
    VirtualPort, Vlan, VlanTag,
};
use reeve_ipc::spec::Rate;
use uuid::Uuid;

use super::handle::{Change, Request};
use super::host::{
    Connection, NetworkFailure, NetworkHost, NetworkHostError, NetworkResources, Note,
    ServerProcess,
};
use super::registry::Networks;
use super::server::Delays;
use crate::api::events::EventLog;
use crate::crash::Operation;
use crate::domain::world::{PortRequest, Ports};
use crate::store::{NetworkPhase, NetworkRecord, NetworkStatus, NetworkStore};

mod connected;
mod life;
mod recovery;

/// What the host was asked, and what it is to refuse.
#[derive(Debug, Default)]
struct Fake {
    asked: Mutex<Vec<String>>,
    refuse: Mutex<Vec<(&'static str, NetworkHostError)>>,
    /// The other ends of what watches servers: a byte in one of them is an end.
    servers: Mutex<BTreeMap<NetworkUuid, OwnedFd>>,
    starts: Mutex<u64>,
    /// Whose books it was told to remove.
    forgotten: Mutex<Vec<String>>,
    /// Addresses that the host has; nobody knows where there are none.
    taken: Mutex<Option<Vec<std::net::IpAddr>>>,
    /// Nothing comes back while it is held.
    gate: Mutex<()>,
}

impl Fake {
    fn asked(&self, what: &'static str, network: &str) -> Result<(), NetworkHostError> {
        drop(self.gate.lock().unwrap());
        self.asked.lock().unwrap().push(format!("{what} {network}"));
        let mut refuse = self.refuse.lock().unwrap();
        match refuse.iter().position(|(refused, _)| *refused == what) {
            Some(at) => Err(refuse.remove(at).1),
            None => Ok(()),
        }
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }

    /// The next time that it is asked that it refuses.
    fn refuse(&self, what: &'static str, kind: NetworkFailure) {
        let message = format!("no {what} today");
        let error = NetworkHostError { kind, message };
        self.refuse.lock().unwrap().push((what, error));
    }

    fn resources(&self, network: &Network) -> NetworkResources {
        let mut starts = self.starts.lock().unwrap();
        *starts += 1;
        NetworkResources {
            bridge: network.bridge.name.clone(),
            settings: Vec::new(),
            links: None,
            server: network.needs_server().then_some(ServerProcess {
                pid: 7,
                start_time: *starts,
            }),
        }
    }

    fn end_server(&self, network: &Network) {
        let servers = self.servers.lock().unwrap();
        let server = servers.get(&network.uuid).unwrap();
        rustix::io::write(server, b"x").unwrap();
    }
}

impl NetworkHost for Fake {
    fn start(
        &self,
        network: &Network,
        note: Note<'_>,
    ) -> Result<NetworkResources, NetworkHostError> {
        self.asked("start", network.name.as_str())?;
        let resources = self.resources(network);
        note(&resources)?;
        Ok(resources)
    }

    fn adopt(
        &self,
        network: &Network,
        _resources: &NetworkResources,
        note: Note<'_>,
    ) -> Result<NetworkResources, NetworkHostError> {
        self.asked("adopt", network.name.as_str())?;
        let resources = self.resources(network);
        note(&resources)?;
        Ok(resources)
    }

    fn is_free(&self, network: &Network) -> Result<bool, NetworkHostError> {
        let taken = self.taken.lock().unwrap();
        let mut addresses = network.addresses.iter();
        match &*taken {
            Some(taken) => Ok(addresses.all(|on| !taken.contains(&on.address))),
            None => Err(NetworkHostError {
                kind: NetworkFailure::Host,
                message: "it cannot be seen".to_owned(),
            }),
        }
    }

    fn update(
        &self,
        before: &Network,
        after: &Network,
        resources: &NetworkResources,
        _note: Note<'_>,
    ) -> Result<NetworkResources, NetworkHostError> {
        let hosts = |network: &Network| network.dns.hosts.len();
        let what = format!("{} {}->{}", after.name, hosts(before), hosts(after));
        self.asked("update", &what)?;
        Ok(resources.clone())
    }

    fn stop(
        &self,
        network: &Network,
        _resources: &NetworkResources,
    ) -> Result<(), NetworkHostError> {
        self.asked("stop", network.name.as_str())
    }

    fn connect(&self, connection: &Connection<'_>) -> Result<(), NetworkHostError> {
        let to = match &connection.port.link {
            PortLink::Bridge(bridge) => bridge,
            PortLink::Direct { device, .. } => device,
            PortLink::OpenVswitch(port) => &port.bridge,
        };
        self.asked("connect", &format!("{} to {to}", connection.interface))
    }

    fn leases(&self, network: &Network) -> Result<Option<OwnedFd>, NetworkHostError> {
        self.asked("leases", network.name.as_str())?;
        let book = network
            .needs_server()
            .then(|| std::fs::File::open("/dev/null"));
        Ok(book.map(|book| book.unwrap().into()))
    }

    fn forget(&self, network: &Network) {
        let mut forgotten = self.forgotten.lock().unwrap();
        forgotten.push(network.name.as_str().to_owned());
    }

    fn check(
        &self,
        network: &Network,
        _resources: &NetworkResources,
    ) -> Result<(), NetworkHostError> {
        self.asked("check", network.name.as_str())
    }

    fn watch(&self, network: NetworkUuid, resources: &NetworkResources) -> Option<OwnedFd> {
        resources.server.as_ref()?;
        let (theirs, ours) = rustix::pipe::pipe().unwrap();
        self.servers.lock().unwrap().insert(network, ours);
        Some(theirs)
    }
}

struct Stage {
    host: Arc<Fake>,
    events: Arc<EventLog>,
    networks: Networks,
    root: tempfile::TempDir,
}

impl Stage {
    fn new() -> Self {
        Self::over(tempfile::tempdir().unwrap())
    }

    /// One whose networks are looked after all the time.
    fn looking() -> Self {
        Self::with(tempfile::tempdir().unwrap(), Duration::from_millis(20))
    }

    /// The supervisor after one whose state and run directories these are.
    fn over(root: tempfile::TempDir) -> Self {
        Self::with(root, Duration::from_secs(3600))
    }

    fn with(root: tempfile::TempDir, check: Duration) -> Self {
        let (host, events) = (Arc::new(Fake::default()), Arc::new(EventLog::new(1)));
        let delays = Delays {
            first: Duration::from_millis(100),
            longest: Duration::from_millis(800),
            // Nothing is looked after where it is not what is tried.
            check,
        };
        let (store, told) = (Self::open(&root), Arc::clone(&events));
        let networks = Networks::with(Arc::clone(&host) as _, store, told, delays);
        Self {
            host,
            events,
            networks,
            root,
        }
    }

    fn open(root: &tempfile::TempDir) -> NetworkStore {
        NetworkStore::open(&root.path().join("state"), &root.path().join("run")).unwrap()
    }

    /// The supervisor after this one, which has died, once it has taken up what there is.
    async fn next(self) -> Self {
        let next = Self::over(self.root);
        let loaded = next.networks.load().unwrap();
        assert_eq!(loaded.refused, []);
        next.networks.recover(loaded).await;
        next
    }

    async fn define(&self, network: &Network) -> Result<Network, ApiError> {
        let summary = self.networks.define(network.clone(), false).await?;
        let defined = NetworkRef::Uuid(summary.uuid);
        self.networks.definition(&defined, true)
    }

    async fn ask(&self, network: &Network, request: Request) -> Result<(), ApiError> {
        let network = NetworkRef::Uuid(network.uuid);
        self.networks.ask(&network, request).await.map(drop)
    }

    async fn started(&self, network: &Network) -> Network {
        let network = self.define(network).await.unwrap();
        self.ask(&network, Request::Start).await.unwrap();
        network
    }

    fn is_active(&self, network: &Network) -> bool {
        let found = self.networks.get(&NetworkRef::Uuid(network.uuid));
        found.is_ok_and(|details| details.summary.active)
    }

    fn fault(&self, network: &Network) -> Option<String> {
        let network = NetworkRef::Uuid(network.uuid);
        self.networks.get(&network).unwrap().fault
    }

    /// What was told since the event of that number, and the number of the last.
    fn told(&self) -> Vec<NetworkEventKind> {
        let mut number = 0;
        let next = || {
            let (Cursor { number: at, .. }, event) = self.events.next(number)?;
            number = at;
            Some(event)
        };
        std::iter::from_fn(next)
            .filter_map(Event::of_network)
            .map(|event| event.kind)
            .collect()
    }

    /// A port for an interface of that number.
    fn port(&self, network: &Network, number: u8) -> Result<(PortUuid, PortLink), ApiError> {
        let given = self.networks.connect(PortRequest {
            network: &network.name,
            port_group: None,
            virtual_port: None,
            uuid: DomainUuid(Uuid::from_u128(number.into())),
            name: &"web".parse().unwrap(),
            mac: mac(number),
        })?;
        Ok((given.uuid, given.link))
    }
}

fn mac(number: u8) -> reeve_ipc::spec::MacAddress {
    [0x52, 0x54, 0, 0, 0, number].try_into().unwrap()
}

/// A network of that number, isolated and without an address.
fn plain(number: u8, name: &str) -> Network {
    let uuid = NetworkUuid(Uuid::from_u128(number.into()));
    Network::new(name.parse().unwrap(), uuid)
}

/// One with an address, and so a server.
fn served(number: u8, name: &str) -> Network {
    let mut network = plain(number, name);
    network.forward = Forward::Nat(Nat::default());
    network.addresses.push(NetworkAddress {
        address: std::net::Ipv4Addr::new(10, 77, number, 1).into(),
        prefix: 24,
        local_ptr: false,
        dhcp: None,
        tftp_root: None,
    });
    network
}

#[track_caller]
fn refusal<T: std::fmt::Debug>(result: Result<T, ApiError>) -> (ApiErrorCode, String) {
    let error = result.expect_err("a refusal");
    assert!(!error.message.contains('\n'), "{}", error.message);
    (error.code, error.message)
}

/// Until it is so.
async fn until(mut holds: impl FnMut() -> bool) {
    for _ in 0..2000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("it never came to be");
}
