//! Virtual networks that are nothing but memory: what the model says of them is all that they are.
//!
//! `default` is active from the start, as in libvirt's test driver. A network is changed by the rules of the model and
//! by no others; nothing of it is on the host, and nothing is lent. What is connected to one are the interfaces of the
//! domains that run: that is looked up when it is asked for, and a domain whose network cannot have it does not start.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, PoisonError};

use reeve_ipc::api::MAX_PAGE;
use reeve_ipc::api::call::{
    AnswerBody, CallBody, LabelChange, NetworkFilter, NetworkPage, NetworkPortPage, NetworkRef,
    Operation,
};
use reeve_ipc::api::error::{ApiError, ApiErrorCode};
use reeve_ipc::api::event::{Label, NetworkEventKind};
use reeve_ipc::api::network::{NetworkDetails, NetworkForward, NetworkSummary, PortDetails};
use reeve_ipc::model::{
    Dhcp, DhcpRange, Domain, Forward, InterfaceName, InvalidName, Labels, Nat, Network,
    NetworkAddress, NetworkError, NetworkName, NetworkUuid, Nic, NicSource, PortLink, PortUuid,
    networks_overlap,
};
use uuid::Uuid;

use crate::api::Answer;
use crate::api::events::EventLog;
use crate::domain::driver::{
    Adoption, Driver, Later, Recorder, Resources, Running, StartFailure, StartFailureKind,
    StartOrder,
};
use crate::domain::shell::View;
use crate::domain::test_driver::TestDriver;
use crate::network::work::refused_as;

/// The most networks that it has.
const MOST_NETWORKS: usize = 256;
/// The most ports of a page.
const MAX_PORTS: usize = MAX_PAGE / 4;
/// The UUID of the network that libvirt's test driver has from the start.
const UUID: Uuid = Uuid::from_u128(0xdd8f_e884_6c02_601e_7551_cca9_7df1_c5df);

/// A network, which is active, kept or both.
#[derive(Debug)]
struct Held {
    active: Option<Network>,
    kept: Option<Network>,
    autostart: bool,
}

impl Held {
    /// The definition that it is active with, or will be.
    fn now(&self) -> Option<&Network> {
        self.active.as_ref().or(self.kept.as_ref())
    }

    fn summary(&self, ports: u32) -> Option<NetworkSummary> {
        let network = self.now()?;
        Some(NetworkSummary {
            name: network.name.clone(),
            uuid: network.uuid,
            active: self.active.is_some(),
            persistent: self.kept.is_some(),
            autostart: self.autostart,
            forward: forward(&network.forward),
            bridge: bridge(network).cloned(),
            ports,
        })
    }
}

const fn forward(forward: &Forward) -> Option<NetworkForward> {
    match forward {
        Forward::Isolated => None,
        Forward::Nat(_) => Some(NetworkForward::Nat),
        Forward::Route { .. } => Some(NetworkForward::Route),
        Forward::Open => Some(NetworkForward::Open),
        Forward::Bridge(_) => Some(NetworkForward::Bridge),
        Forward::Direct { mode, .. } => Some(NetworkForward::Direct(*mode)),
        Forward::HostDevices { .. } => Some(NetworkForward::HostDevices),
    }
}

/// The bridge that the guests of a network are on.
const fn bridge(network: &Network) -> Option<&InterfaceName> {
    match &network.forward {
        Forward::Bridge(name) => Some(name),
        _ => network.bridge.name.as_ref(),
    }
}

/// Every network, by name, and where it is told what happens to them.
#[derive(Debug)]
pub(in super::super) struct TestNetworks {
    held: Mutex<BTreeMap<NetworkName, Held>>,
    events: Arc<EventLog>,
}

type Refused<T> = Result<T, ApiError>;

fn refused<T>(operation: Operation, code: ApiErrorCode, why: impl std::fmt::Display) -> Refused<T> {
    let message = format!("cannot {}: {why}", operation.name());
    Err(ApiError::new(code, message))
}

/// The `default` of libvirt's test driver.
fn first() -> Result<Network, InvalidName> {
    let mut network = Network::new("default".parse()?, NetworkUuid(UUID));
    network.forward = Forward::Nat(Nat::default());
    network.bridge.name = "virbr0".parse().ok();
    let at = |host: u8| IpAddr::V4(Ipv4Addr::new(192, 168, 122, host));
    network.addresses.push(NetworkAddress {
        address: at(1),
        prefix: 24,
        local_ptr: false,
        dhcp: Some(Dhcp {
            ranges: vec![DhcpRange {
                first: at(2),
                last: at(254),
                lease: None,
            }],
            ..Dhcp::default()
        }),
        tftp_root: None,
    });
    Ok(network)
}

impl TestNetworks {
    /// Those of libvirt's test driver: `default` alone.
    pub(super) fn new(events: Arc<EventLog>) -> Self {
        let mut held = BTreeMap::new();
        match first() {
            Ok(network) => {
                let name = network.name.clone();
                let default = Held {
                    active: Some(network.clone()),
                    kept: Some(network),
                    autostart: false,
                };
                held.insert(name, default);
            }
            Err(error) => tracing::error!("the test hypervisor has no network: {error}"),
        }
        Self {
            held: Mutex::new(held),
            events,
        }
    }

    fn tell(&self, network: &Network, kind: NetworkEventKind) {
        self.events.network_event(network.uuid, &network.name, kind);
    }

    /// Answers `call`, if it is about networks; `views` are the domains.
    #[expect(
        clippy::result_large_err,
        reason = "not an error: the call, for whoever serves it"
    )]
    pub(super) fn answer(
        &self,
        call: CallBody,
        views: impl FnOnce() -> Vec<Arc<View>>,
    ) -> Result<Answer, CallBody> {
        let operation = call.operation();
        let about = matches!(
            call,
            CallBody::NetworkList(_)
                | CallBody::NetworkGet(_)
                | CallBody::NetworkDefinitionGet(_)
                | CallBody::NetworkDefine(_)
                | CallBody::NetworkCreate(_)
                | CallBody::NetworkStart(_)
                | CallBody::NetworkStop(_)
                | CallBody::NetworkUndefine(_)
                | CallBody::NetworkAutostartSet(_)
                | CallBody::NetworkUpdate(_)
                | CallBody::NetworkLabelSet(_)
                | CallBody::NetworkLeasesGet(_)
                | CallBody::NetworkPortList(_)
        );
        if !about {
            return Err(call);
        }
        let answered = self.answered(operation, call, &views());
        Ok(Answer::Now(answered.map(|answer| (answer, Vec::new()))))
    }

    fn answered(
        &self,
        operation: Operation,
        call: CallBody,
        views: &[Arc<View>],
    ) -> Refused<AnswerBody> {
        use AnswerBody as A;
        use CallBody as C;
        // Nothing panics while it is held.
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let all = &mut *held;
        Ok(match call {
            C::NetworkList(list) => {
                let passing = all.values().filter_map(|held| summary(held, views));
                let passing = passing.filter(|network| {
                    let behind = list.after.as_ref();
                    behind.is_none_or(|after| network.name > *after) && passes(network, list.filter)
                });
                let mut networks: Vec<NetworkSummary> = passing.take(MAX_PAGE + 1).collect();
                let more = networks.len() > MAX_PAGE;
                networks.truncate(MAX_PAGE);
                A::NetworkList(NetworkPage { networks, more })
            }
            C::NetworkGet(get) => {
                let found = find(all, operation, &get.network)?;
                let changes =
                    found.active.is_some() && found.kept.is_some() && found.active != found.kept;
                A::NetworkGet(NetworkDetails {
                    summary: shown(found, operation, views)?,
                    changes,
                    fault: None,
                })
            }
            C::NetworkDefinitionGet(get) => {
                let found = find(all, operation, &get.network)?;
                let network = match get.persistent {
                    true => found.kept.as_ref(),
                    false => found.now(),
                };
                match network {
                    Some(network) => A::NetworkDefinitionGet(Box::new(network.clone())),
                    None => {
                        let why = "a transient network has no other definition";
                        return refused(operation, ApiErrorCode::WrongState, why);
                    }
                }
            }
            C::NetworkDefine(define) => {
                let network = completed(all, operation, *define.network, define.only_new)?;
                let name = network.name.clone();
                let found = all.entry(name).or_insert(Held {
                    active: None,
                    kept: None,
                    autostart: false,
                });
                let changed = found.kept.replace(network.clone()).is_some();
                self.tell(&network, NetworkEventKind::Defined { changed });
                A::NetworkDefine(shown(found, operation, views)?)
            }
            C::NetworkCreate(create) => {
                let network = completed(all, operation, *create.network, false)?;
                let name = network.name.clone();
                if all.get(&name).is_some_and(|held| held.active.is_some()) {
                    let why = format!("network is already active as '{name}'");
                    return refused(operation, ApiErrorCode::WrongState, why);
                }
                startable(all, operation, &network)?;
                let found = all.entry(name).or_insert(Held {
                    active: None,
                    kept: None,
                    autostart: false,
                });
                found.active = Some(network.clone());
                self.tell(&network, NetworkEventKind::Started);
                A::NetworkCreate(shown(found, operation, views)?)
            }
            C::NetworkStart(start) => {
                let found = find(all, operation, &start.network)?;
                let network = match (&found.active, &found.kept) {
                    (None, Some(network)) => network.clone(),
                    _ => {
                        let why = "network is already active";
                        return refused(operation, ApiErrorCode::WrongState, why);
                    }
                };
                startable(all, operation, &network)?;
                let found = find(all, operation, &start.network)?;
                found.active = Some(network.clone());
                self.tell(&network, NetworkEventKind::Started);
                A::NetworkStart(shown(found, operation, views)?)
            }
            C::NetworkStop(stop) => {
                let found = find(all, operation, &stop.network)?;
                let Some(network) = found.active.take() else {
                    return refused(operation, ApiErrorCode::WrongState, "it is not active");
                };
                if found.kept.is_none() {
                    all.remove(&network.name);
                }
                self.tell(&network, NetworkEventKind::Stopped);
                A::NetworkStop(())
            }
            C::NetworkUndefine(undefine) => {
                let found = find(all, operation, &undefine.network)?;
                let Some(network) = found.kept.take() else {
                    return refused(operation, ApiErrorCode::WrongState, "it is transient");
                };
                found.autostart = false;
                if found.active.is_none() {
                    all.remove(&network.name);
                }
                self.tell(&network, NetworkEventKind::Undefined);
                A::NetworkUndefine(())
            }
            C::NetworkAutostartSet(set) => {
                let found = find(all, operation, &set.network)?;
                let Some(network) = &found.kept else {
                    return refused(operation, ApiErrorCode::WrongState, "it is transient");
                };
                if std::mem::replace(&mut found.autostart, set.autostart) != set.autostart {
                    self.tell(network, NetworkEventKind::Autostart { on: set.autostart });
                }
                A::NetworkAutostartSet(())
            }
            C::NetworkUpdate(update) => {
                let found = find(all, operation, &update.network)?;
                let edit = &update.edit;
                change(
                    found,
                    operation,
                    (update.live, update.persistent),
                    |network| network.edited(edit),
                )?;
                if let Some(network) = found.now() {
                    self.tell(network, NetworkEventKind::Updated);
                }
                A::NetworkUpdate(())
            }
            C::NetworkLabelSet(set) => {
                let found = find(all, operation, &set.network)?;
                change(found, operation, (set.live, set.persistent), |network| {
                    let mut network = network.clone();
                    note(&mut network.labels, set.label.clone());
                    network.validate()?;
                    Ok(network)
                })?;
                if let Some(network) = found.now() {
                    let label = which(set.label);
                    self.tell(network, NetworkEventKind::Labels { label });
                }
                A::NetworkLabelSet(())
            }
            C::NetworkLeasesGet(get) => {
                let found = find(all, operation, &get.network)?;
                if found.active.is_none() {
                    return refused(operation, ApiErrorCode::WrongState, "it is not active");
                }
                A::NetworkLeasesGet(false)
            }
            C::NetworkPortList(list) => {
                let found = find(all, operation, &list.network)?;
                let mut ports = ports(found, views);
                ports.sort_by_key(|port| port.port.uuid);
                let after = list.after;
                ports.retain(|port| after.is_none_or(|after| port.port.uuid > after));
                let more = ports.len() > MAX_PORTS;
                ports.truncate(MAX_PORTS);
                A::NetworkPortList(NetworkPortPage { ports, more })
            }
            other => return refused(other.operation(), ApiErrorCode::Unsupported, "no network"),
        })
    }

    /// Whether each interface of a domain can have its port.
    fn connects(&self, domain: &Domain) -> Result<(), String> {
        // Nothing panics while it is held.
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        for nic in &domain.devices.nics {
            let NicSource::Network {
                network: name,
                port_group,
                ..
            } = &nic.source
            else {
                continue;
            };
            let found = held.get(name);
            let found = found.ok_or_else(|| format!("no network with matching name '{name}'"))?;
            let active = found.active.as_ref();
            let active = active.ok_or_else(|| format!("network '{name}' is not active"))?;
            let group = active.port_group(port_group.as_deref());
            group.map_err(|error| format!("network '{name}': {error}"))?;
        }
        Ok(())
    }
}

fn find<'a>(
    all: &'a mut BTreeMap<NetworkName, Held>,
    operation: Operation,
    network: &NetworkRef,
) -> Refused<&'a mut Held> {
    let is = |held: &&mut Held| {
        held.now().is_some_and(|found| match network {
            NetworkRef::Uuid(uuid) => found.uuid == *uuid,
            NetworkRef::Name(name) => found.name == *name,
            NetworkRef::Bridge(name) => bridge(found) == Some(name),
        })
    };
    match all.values_mut().find(is) {
        Some(found) => Ok(found),
        None => {
            let why = format!("there is no network {network}");
            refused(operation, ApiErrorCode::NoNetwork, why)
        }
    }
}

fn summary(held: &Held, views: &[Arc<View>]) -> Option<NetworkSummary> {
    let ports = u32::try_from(ports(held, views).len()).unwrap_or(u32::MAX);
    held.summary(ports)
}

fn shown(held: &Held, operation: Operation, views: &[Arc<View>]) -> Refused<NetworkSummary> {
    match summary(held, views) {
        Some(summary) => Ok(summary),
        None => refused(operation, ApiErrorCode::NoNetwork, "it is gone"),
    }
}

fn passes(network: &NetworkSummary, filter: NetworkFilter) -> bool {
    let is = |wanted: Option<bool>, is: bool| wanted.is_none_or(|wanted| wanted == is);
    is(filter.active, network.active)
        && is(filter.persistent, network.persistent)
        && is(filter.autostart, network.autostart)
}

/// A definition as it is taken: with a bridge and its address, where it makes one. Refused where another network has
/// its name, its UUID or its bridge.
fn completed(
    all: &BTreeMap<NetworkName, Held>,
    operation: Operation,
    mut network: Network,
    only_new: bool,
) -> Refused<Network> {
    let exists = ApiErrorCode::NetworkExists;
    let others = || all.values().filter_map(Held::now);
    let same = |other: &&Network| other.name == network.name || other.uuid == network.uuid;
    if let Some(other) = others().find(same) {
        let (name, uuid) = (&other.name, other.uuid);
        if *name != network.name {
            let why = format!("network '{name}' is already defined with uuid {uuid}");
            return refused(operation, exists, why);
        }
        if uuid != network.uuid || only_new {
            let why = format!("network '{name}' already exists with uuid {uuid}");
            return refused(operation, exists, why);
        }
    } else if all.len() >= MOST_NETWORKS {
        let why = format!("there are {MOST_NETWORKS} networks, and no more can be had");
        return refused(operation, ApiErrorCode::Host, why);
    }
    let others = || others().filter(|other| other.uuid != network.uuid);
    let makes = network.forward.makes_bridge();
    let taken = |name: &InterfaceName| {
        let mut making = others().filter(|other| other.forward.makes_bridge());
        making.any(|other| other.bridge.name.as_ref() == Some(name))
    };
    match &network.bridge.name {
        Some(name) if makes && taken(name) => {
            let why = format!("bridge name '{name}' already in use.");
            return refused(operation, exists, why);
        }
        None if makes => {
            let mut free = (0..=MOST_NETWORKS).filter_map(|n| format!("virbr{n}").parse().ok());
            network.bridge.name = free.find(|name| !taken(name));
        }
        _ => {}
    }
    network.complete();
    match network.validate() {
        Ok(()) => Ok(network),
        Err(error) => refused(operation, ApiErrorCode::InvalidArgument, error),
    }
}

/// That a network can be active beside those that are.
fn startable(
    all: &BTreeMap<NetworkName, Held>,
    operation: Operation,
    network: &Network,
) -> Refused<()> {
    if let Forward::HostDevices { .. } = network.forward {
        let why = "devices of the host are not given to guests";
        return refused(operation, ApiErrorCode::Unsupported, why);
    }
    let active = all.values().filter_map(|held| held.active.as_ref());
    for other in active {
        for (own, theirs) in network
            .addresses
            .iter()
            .flat_map(|own| other.addresses.iter().map(move |theirs| (own, theirs)))
        {
            if networks_overlap((own.address, own.prefix), (theirs.address, theirs.prefix)) {
                let why = format!(
                    "{}/{} is on network '{}' already",
                    own.address, own.prefix, other.name
                );
                return refused(operation, ApiErrorCode::InUse, why);
            }
        }
    }
    Ok(())
}

/// Changes the definitions that are meant: all of them, or none.
fn change(
    held: &mut Held,
    operation: Operation,
    (live, persistent): (bool, bool),
    edit: impl Fn(&Network) -> Result<Network, NetworkError>,
) -> Refused<()> {
    let wrong = ApiErrorCode::WrongState;
    let edited = |network: &Option<Network>, meant: bool, why: &str| match network {
        _ if !meant => Ok(None),
        None => refused(operation, wrong, why),
        Some(network) => edit(network).map(Some).or_else(|error| {
            let code = refused_as(&error);
            refused(operation, code, error)
        }),
    };
    let active = edited(&held.active, live, "it is not active")?;
    let kept = edited(&held.kept, persistent, "it is transient")?;
    held.active = active.or_else(|| held.active.take());
    held.kept = kept.or_else(|| held.kept.take());
    Ok(())
}

fn note(labels: &mut Labels, change: LabelChange) {
    match change {
        LabelChange::Title(title) => labels.title = title,
        LabelChange::Description(description) => labels.description = description,
        LabelChange::Metadata(element) => {
            labels.metadata.retain(|old| old.uri != element.uri);
            labels.metadata.push(element);
        }
        LabelChange::MetadataRemove { uri } => labels.metadata.retain(|old| old.uri != uri),
    }
}

fn which(change: LabelChange) -> Label {
    match change {
        LabelChange::Title(_) => Label::Title,
        LabelChange::Description(_) => Label::Description,
        LabelChange::Metadata(element) => Label::Metadata { uri: element.uri },
        LabelChange::MetadataRemove { uri } => Label::Metadata { uri },
    }
}

/// The interfaces of domains that run which are connected to a network that is active.
fn ports(held: &Held, views: &[Arc<View>]) -> Vec<PortDetails> {
    let Some(network) = &held.active else {
        return Vec::new();
    };
    let running = views.iter().filter_map(|view| view.live.as_deref());
    let nics = running.flat_map(|domain| domain.devices.nics.iter().map(move |nic| (domain, nic)));
    nics.filter_map(|(domain, nic)| port(network, domain, nic))
        .collect()
}

fn port(network: &Network, domain: &Domain, nic: &Nic) -> Option<PortDetails> {
    let NicSource::Network {
        network: name,
        port_group,
        ..
    } = &nic.source
    else {
        return None;
    };
    if *name != network.name {
        return None;
    }
    let group = network.port_group(port_group.as_deref()).ok()?;
    let link = match &network.forward {
        Forward::Direct { mode, devices } => PortLink::Direct {
            device: devices.first()?.clone(),
            mode: *mode,
        },
        _ => PortLink::Bridge(bridge(network)?.clone()),
    };
    let mac = nic.mac?;
    // The same at every look: a domain has each address once.
    let mut bytes = *domain.uuid.0.as_bytes();
    for (byte, of_mac) in bytes.iter_mut().rev().zip(mac.octets()) {
        *byte ^= of_mac;
    }
    let uuid = uuid::Builder::from_random_bytes(bytes).into_uuid();
    Some(PortDetails {
        port: network.port(PortUuid(uuid), link, group),
        domain: domain.uuid,
        name: domain.name.clone(),
        mac,
        interface: nic.target.clone(),
        port_group: port_group.clone(),
    })
}

/// The test driver, by which no domain starts whose networks cannot have it.
#[derive(Debug)]
pub(super) struct Networked {
    pub(super) driver: TestDriver,
    pub(super) networks: Arc<TestNetworks>,
}

impl Driver for Networked {
    fn start(
        &self,
        order: StartOrder,
        recorder: Arc<dyn Recorder>,
    ) -> Later<Result<Running, StartFailure>> {
        match self.networks.connects(&order.domain) {
            Ok(()) => self.driver.start(order, recorder),
            Err(message) => {
                let kind = StartFailureKind::Host;
                let failure = StartFailure { kind, message };
                Box::pin(std::future::ready(Err(failure)))
            }
        }
    }

    fn adopt(&self, domain: Domain, recorded: Resources) -> Later<Adoption> {
        self.driver.adopt(domain, recorded)
    }
}

#[cfg(test)]
mod tests {
    use reeve_ipc::api::call::{NetworkDefine, NetworkGet, NetworkList, NetworkStart, NetworkStop};

    use super::*;

    fn asked(networks: &TestNetworks, call: CallBody) -> Refused<AnswerBody> {
        networks.answered(call.operation(), call, &[])
    }

    fn named(name: &str) -> NetworkRef {
        NetworkRef::Name(name.parse().unwrap())
    }

    fn define(networks: &TestNetworks, network: Network) -> Refused<AnswerBody> {
        let (network, only_new) = (Box::new(network), false);
        let define = NetworkDefine { network, only_new };
        asked(networks, CallBody::NetworkDefine(define))
    }

    fn other(number: u128, octet: u8) -> Network {
        let name = format!("other{number}").parse().unwrap();
        let mut network = Network::new(name, NetworkUuid(Uuid::from_u128(number)));
        network.addresses.push(NetworkAddress {
            address: Ipv4Addr::new(192, 168, octet, 1).into(),
            prefix: 24,
            local_ptr: false,
            dhcp: None,
            tftp_root: None,
        });
        network
    }

    #[test]
    fn the_first_network_is_that_of_libvirts_test_driver() {
        let networks = TestNetworks::new(Arc::new(EventLog::new(1)));
        first().unwrap().validate().unwrap();
        let get = NetworkGet {
            network: named("default"),
        };
        let Ok(AnswerBody::NetworkGet(found)) = asked(&networks, CallBody::NetworkGet(get)) else {
            panic!("it is not there");
        };
        let summary = found.summary;
        assert_eq!(
            summary.uuid.to_string(),
            "dd8fe884-6c02-601e-7551-cca97df1c5df"
        );
        assert!(summary.active && summary.persistent && !summary.autostart);
        assert_eq!(summary.bridge.unwrap().as_str(), "virbr0");
    }

    #[test]
    fn a_definition_gets_the_next_free_bridge_and_what_is_taken_is_refused() {
        let networks = TestNetworks::new(Arc::new(EventLog::new(1)));
        let Ok(AnswerBody::NetworkDefine(summary)) = define(&networks, other(1, 1)) else {
            panic!("it is not taken");
        };
        assert_eq!(summary.bridge.unwrap().as_str(), "virbr1");
        let mut taken = other(2, 2);
        taken.bridge.name = Some("virbr1".parse().unwrap());
        let error = define(&networks, taken).unwrap_err();
        assert_eq!(error.code, ApiErrorCode::NetworkExists);
        let mut twice = other(3, 3);
        twice.name = "other1".parse().unwrap();
        let error = define(&networks, twice).unwrap_err();
        assert_eq!(error.code, ApiErrorCode::NetworkExists);
        define(&networks, other(1, 9)).unwrap();
    }

    #[test]
    fn addresses_of_a_network_that_is_active_are_taken() {
        let networks = TestNetworks::new(Arc::new(EventLog::new(1)));
        define(&networks, other(1, 122)).unwrap();
        let start = || {
            let network = named("other1");
            asked(&networks, CallBody::NetworkStart(NetworkStart { network }))
        };
        assert_eq!(start().unwrap_err().code, ApiErrorCode::InUse);
        let stop = NetworkStop {
            network: named("default"),
        };
        asked(&networks, CallBody::NetworkStop(stop)).unwrap();
        start().unwrap();
        assert_eq!(start().unwrap_err().code, ApiErrorCode::WrongState);
    }

    #[test]
    fn there_is_room_for_so_many() {
        let networks = TestNetworks::new(Arc::new(EventLog::new(1)));
        for number in 1..MOST_NETWORKS {
            let network = Network::new(
                format!("n{number}").parse().unwrap(),
                NetworkUuid(Uuid::from_u128(number.try_into().unwrap())),
            );
            define(&networks, network).unwrap();
        }
        let error = define(&networks, other(9999, 1)).unwrap_err();
        assert_eq!(error.code, ApiErrorCode::Host);
        let list = NetworkList {
            after: None,
            filter: NetworkFilter::default(),
        };
        let Ok(AnswerBody::NetworkList(page)) = asked(&networks, CallBody::NetworkList(list))
        else {
            panic!("no list");
        };
        assert_eq!((page.networks.len(), page.more), (MOST_NETWORKS, false));
    }
}
