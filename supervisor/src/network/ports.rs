//! Who is connected to which network: what each interface was given, and by which name it is on the host.
//!
//! Known from the live definitions of domains, which is where they are kept. A port belongs to the name of a network,
//! as its domain's definition does: a network that was stopped, and even forgotten, finds its ports again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use reeve_ipc::api::MAX_PAGE;
use reeve_ipc::api::call::NetworkPortPage;
use reeve_ipc::api::error::{ApiError, ApiErrorCode};
use reeve_ipc::api::network::PortDetails;
use reeve_ipc::model::{
    DirectMode, Forward, InterfaceName, MAX_PORT_TAGS, Network, NetworkName, NetworkPort,
    OpenVswitchPort, PortLink, PortUuid, VirtualPort,
};
use rustix::rand::{GetRandomFlags, getrandom};
use uuid::Uuid;

use super::view;

/// One port.
#[derive(Debug, Clone)]
pub struct Port {
    /// The network's name.
    pub network: NetworkName,
    /// The start of the network that it is connected to.
    pub start: u64,
    /// What it is.
    pub details: PortDetails,
}

/// Every port of an instance.
#[derive(Debug, Default)]
pub struct PortTable {
    ports: Mutex<Ports>,
}

#[derive(Debug, Default)]
struct Ports {
    all: BTreeMap<PortUuid, Port>,
    /// Those of each network that has any: one that starts does not look at every other's.
    of: BTreeMap<NetworkName, BTreeSet<PortUuid>>,
}

impl Ports {
    fn insert(&mut self, port: Port) {
        let uuid = port.details.port.uuid;
        self.remove(uuid);
        let of = self.of.entry(port.network.clone()).or_default();
        of.insert(uuid);
        self.all.insert(uuid, port);
    }

    fn remove(&mut self, uuid: PortUuid) -> Option<Port> {
        let port = self.all.remove(&uuid)?;
        if let Some(of) = self.of.get_mut(&port.network) {
            of.remove(&uuid);
            if of.is_empty() {
                self.of.remove(&port.network);
            }
        }
        Some(port)
    }

    /// A network's, in the order of their UUIDs.
    fn of(&self, network: &NetworkName) -> impl Iterator<Item = &Port> {
        let uuids = self.of.get(network).into_iter().flatten();
        uuids.filter_map(|uuid| self.all.get(uuid))
    }
}

impl PortTable {
    fn ports(&self) -> MutexGuard<'_, Ports> {
        // Nothing panics while it is held.
        self.ports.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a port of `network` to an interface, of which `details` says all but the port; the interface itself says
    /// the port group, and what holds of its port whatever that and the network say.
    ///
    /// # Errors
    /// [`ApiErrorCode::InvalidArgument`], [`ApiErrorCode::Unsupported`], [`ApiErrorCode::Busy`].
    pub fn give(
        &self,
        network: &Network,
        start: u64,
        details: impl FnOnce(NetworkPort) -> PortDetails,
        (group, own): (Option<&str>, Option<&VirtualPort>),
    ) -> Result<NetworkPort, ApiError> {
        let refuse = |code, why: String| {
            let name = &network.name;
            Err(ApiError::new(code, format!("network '{name}': {why}")))
        };
        let group = match network.port_group(group) {
            Ok(group) => group,
            Err(error) => return refuse(ApiErrorCode::InvalidArgument, error.to_string()),
        };
        let own = own.cloned().unwrap_or_default();
        let vlan = group.and_then(|group| group.vlan.as_ref());
        let vlan = own.vlan.as_ref().or(vlan).or(network.vlan.as_ref());
        let switched = network.open_vswitch || own.open_vswitch;
        if own.open_vswitch && !matches!(network.forward, Forward::Bridge(_)) {
            let why = "the network interface has <virtualport type='openvswitch'>, and only a network that is connected \
                       to a bridge of the host can have one of Open vSwitch";
            return refuse(ApiErrorCode::Unsupported, why.to_owned());
        }
        if !switched && vlan.is_some() {
            let why = "tags of VLANs are put on frames by Open vSwitch: the network needs <virtualport \
                       type='openvswitch'/>, and its bridge to be one of its";
            return refuse(ApiErrorCode::Unsupported, why.to_owned());
        }
        if vlan.is_some_and(|vlan| vlan.tags.len() > MAX_PORT_TAGS) {
            let why = format!("a port has at most {MAX_PORT_TAGS} tags");
            return refuse(ApiErrorCode::Unsupported, why);
        }
        let uuid = PortUuid(draw_uuid());
        let mut ports = self.ports();
        let link = match &network.forward {
            Forward::Direct { mode, devices } => match fewest(&ports.all, *mode, devices) {
                Some(device) => PortLink::Direct {
                    device: device.clone(),
                    mode: *mode,
                },
                None => {
                    let why = "each of its interfaces is for one guest alone, and none is free";
                    return refuse(ApiErrorCode::Busy, why.to_owned());
                }
            },
            _ => match view::bridge(network) {
                Some(bridge) if switched => PortLink::OpenVswitch(Box::new(OpenVswitchPort {
                    bridge: bridge.clone(),
                    interface_id: own.interface_id.or(Some(uuid.0)),
                    vlan: vlan.cloned(),
                    profile: own.profile.clone(),
                })),
                Some(bridge) => PortLink::Bridge(bridge.clone()),
                None => {
                    let why = "it has no bridge that an interface could be connected to";
                    return refuse(ApiErrorCode::Unsupported, why.to_owned());
                }
            },
        };
        let port = network.port(uuid, link, group);
        let given = Port {
            network: network.name.clone(),
            start,
            details: details(port.clone()),
        };
        ports.insert(given);
        Ok(port)
    }

    /// Notes one that a domain has had since before this supervisor.
    pub fn restore(&self, port: Port) {
        self.ports().insert(port);
    }

    /// The interface is made.
    pub fn made(&self, port: PortUuid, interface: InterfaceName) -> Option<Port> {
        let mut ports = self.ports();
        let port = ports.all.get_mut(&port)?;
        port.details.interface = Some(interface);
        Some(port.clone())
    }

    /// Its interface is gone.
    pub fn remove(&self, port: PortUuid) -> Option<Port> {
        self.ports().remove(port)
    }

    /// What is to be connected to a network that was started, with the interfaces that are made: all, or that one.
    /// Where the network has another bridge by now, it is that one that they are connected to.
    pub fn reconnect(
        &self,
        network: &Network,
        start: u64,
        only: Option<PortUuid>,
    ) -> Vec<(InterfaceName, NetworkPort)> {
        let mut ports = self.ports();
        let of = ports.of.get(&network.name).cloned().unwrap_or_default();
        let wanted = of
            .into_iter()
            .filter(|uuid| only.is_none_or(|only| only == *uuid));
        let connected = wanted.filter_map(|uuid| {
            let port = ports.all.get_mut(&uuid)?;
            let details = &mut port.details;
            if let (PortLink::Bridge(link), Some(bridge)) =
                (&mut details.port.link, view::bridge(network))
            {
                link.clone_from(bridge);
            }
            let interface = details.interface.clone()?;
            port.start = start;
            Some((interface, details.port.clone()))
        });
        connected.collect()
    }

    /// How many a network has.
    #[must_use]
    pub fn count(&self, network: &NetworkName) -> u32 {
        let ports = self.ports();
        let count = ports.of.get(network).map_or(0, BTreeSet::len);
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// How many each network has.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<NetworkName, u32> {
        let ports = self.ports();
        let counts = ports.of.iter().map(|(network, of)| {
            let count = u32::try_from(of.len()).unwrap_or(u32::MAX);
            (network.clone(), count)
        });
        counts.collect()
    }

    /// One page of a network's, in the order of their UUIDs.
    #[must_use]
    pub fn page(&self, network: &NetworkName, after: Option<PortUuid>) -> NetworkPortPage {
        let ports = self.ports();
        // Tags take their room.
        let tagged = |port: &Port| matches!(port.details.port.link, PortLink::OpenVswitch(_));
        let any_tagged = ports.of(network).any(tagged);
        let of = ports.of(network);
        let of = of.filter(|port| after.is_none_or(|after| port.details.port.uuid > after));
        let mut of = of.map(|port| port.details.clone());
        let most = MAX_PAGE / if any_tagged { 8 } else { 4 };
        let ports = of.by_ref().take(most).collect();
        NetworkPortPage {
            ports,
            more: of.next().is_some(),
        }
    }
}

/// The interface that the fewest ports are upon; none where each has one and takes no more.
fn fewest<'a>(
    ports: &BTreeMap<PortUuid, Port>,
    mode: DirectMode,
    devices: &'a [InterfaceName],
) -> Option<&'a InterfaceName> {
    let upon = |wanted: &InterfaceName| {
        let on = |port: &&Port| matches!(&port.details.port.link, PortLink::Direct { device, .. } if device == wanted);
        ports.values().filter(on).count()
    };
    let counted = devices.iter().map(|device| (upon(device), device));
    let (count, device) = counted.min_by_key(|(count, _)| *count)?;
    (mode != DirectMode::Passthrough || count == 0).then_some(device)
}

/// A UUID that nobody else has.
pub(super) fn draw_uuid() -> Uuid {
    let mut bytes = [0; 16];
    // Up to 256 bytes come whole, and without waiting once the host has booted (getrandom(2)).
    let _ = getrandom(&mut bytes, GetRandomFlags::empty());
    uuid::Builder::from_random_bytes(bytes).into_uuid()
}
