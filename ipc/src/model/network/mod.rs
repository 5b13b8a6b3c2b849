//! Virtual networks in the words of libvirt's users (libvirt `<network>`): what is said of them, its rules, and
//! how a part of a definition is changed ([`Network::edited`]).
//!
//! Plain data. What a network is made of on the host (bridges, rules, a server of names) is the supervisor's
//! affair. Texts that reach a server's configuration are held to alphabets here, once.

mod address;
mod dns;
mod edit;
mod error;
mod forward;
mod port;
mod text;
mod validate;

use serde::{Deserialize, Serialize};

pub use self::address::{
    Bootp, Dhcp, DhcpHost, DhcpRange, LeaseTime, NetworkAddress, NetworkRoute,
};
pub use self::dns::{Dns, DnsForwarder, DnsHost, DnsService, DnsText};
pub use self::edit::{EditCommand, NetworkEdit, NetworkPart};
pub use self::error::NetworkError;
pub use self::forward::{DirectMode, Forward, HostDeviceSource, Nat, PortRange};
pub use self::port::{PortGroup, Vlan, VlanTag};
pub use self::text::MAX_HOST_NAME_BYTES;
pub use self::validate::networks_overlap;
use super::{InterfaceName, Labels, NetworkName, NetworkPort, NetworkUuid, PortLink, PortUuid};
use crate::MAX_MESSAGE_BYTES;
use crate::spec::{MacAddress, Rate};

/// The most bytes of a definition, as a decoder counts them: one fits a message.
pub const MAX_NETWORK_BYTES: usize = MAX_MESSAGE_BYTES - 4096;

/// A virtual network as its definition says it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Its name.
    pub name: NetworkName,
    /// Its identity, unique on a host. Drawn by the client.
    pub uuid: NetworkUuid,
    /// Title, description, metadata.
    pub labels: Labels,
    /// How its guests reach what is not on it.
    pub forward: Forward,
    /// Its bridge, of a network that makes one ([`Forward::makes_bridge`]); as it comes for others.
    pub bridge: BridgeSettings,
    /// The address of its bridge; drawn from the UUID when the definition is taken, where it makes one.
    pub mac: Option<MacAddress>,
    /// The MTU of its bridge and its guests' interfaces, 68 to 65535; 1500 where it is not said.
    pub mtu: Option<u16>,
    /// The domain that its guests' names are in.
    pub domain: Option<NetworkDomain>,
    /// Its server of names.
    pub dns: Dns,
    /// The host's addresses on it, and what is given out beside each.
    pub addresses: Vec<NetworkAddress>,
    /// What the host reaches by way of its guests.
    pub routes: Vec<NetworkRoute>,
    /// Its guests may speak IPv6 to each other though it has no address of it (libvirt `<network ipv6='yes'>`).
    pub ipv6: bool,
    /// To its guests, all together.
    pub inbound: Option<Rate>,
    /// From its guests, all together.
    pub outbound: Option<Rate>,
    /// Tags of its guests' frames, where what they are connected to can have such.
    pub vlan: Option<Vlan>,
    /// Its bridge is one of Open vSwitch (libvirt `<virtualport type='openvswitch'/>`).
    pub open_vswitch: bool,
    /// Kinds of ports.
    pub port_groups: Vec<PortGroup>,
    /// Guests may take other Ethernet addresses than their own (libvirt `trustGuestRxFilters`).
    pub trust_guest: bool,
    /// Its guests reach the host and what is behind it, and not each other (libvirt `<port isolated='yes'/>`).
    pub isolated: bool,
}

/// The bridge of a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BridgeSettings {
    /// Its name; the next free of `virbr0`, `virbr1`, ... is taken when the definition is, where there is none.
    pub name: Option<InterfaceName>,
    /// Whether it speaks the spanning tree protocol.
    pub stp: bool,
    /// Seconds that a new port waits before it forwards, 0 to 30; with STP the kernel takes 2 at least.
    pub delay: u32,
}

impl Default for BridgeSettings {
    fn default() -> Self {
        Self {
            name: None,
            stp: true,
            delay: 0,
        }
    }
}

/// The domain that the names of a network's guests are in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkDomain {
    /// As `example.org`.
    pub name: String,
    /// What is not known of it here is not asked for elsewhere.
    pub local_only: bool,
}

impl Network {
    /// A network of that name with nothing said of it: isolated, without an address.
    #[must_use]
    pub fn new(name: NetworkName, uuid: NetworkUuid) -> Self {
        Self {
            name,
            uuid,
            labels: Labels::default(),
            forward: Forward::Isolated,
            bridge: BridgeSettings::default(),
            mac: None,
            mtu: None,
            domain: None,
            dns: Dns::default(),
            addresses: Vec::new(),
            routes: Vec::new(),
            ipv6: false,
            inbound: None,
            outbound: None,
            vlan: None,
            open_vswitch: false,
            port_groups: Vec::new(),
            trust_guest: false,
            isolated: false,
        }
    }

    /// The port group of that name, else the one that is the default, if there is one. A name that no group has
    /// is an error.
    ///
    /// # Errors
    /// [`NetworkError::NoPortGroup`].
    pub fn port_group(&self, name: Option<&str>) -> Result<Option<&PortGroup>, NetworkError> {
        let found = match name {
            Some(name) => self.port_groups.iter().find(|group| group.name == name),
            None => self.port_groups.iter().find(|group| group.default),
        };
        match (found, name) {
            (None, Some(name)) => {
                let name = name.chars().filter(|c| !c.is_control()).take(64);
                Err(NetworkError::NoPortGroup(name.collect()))
            }
            (found, _) => Ok(found),
        }
    }

    /// The port that it gives an interface, of that kind if any, with that link.
    #[must_use]
    pub fn port(&self, uuid: PortUuid, link: PortLink, group: Option<&PortGroup>) -> NetworkPort {
        let (trusts, isolates) = (self.trust_guest, self.isolated);
        NetworkPort {
            uuid,
            link,
            mtu: self.mtu,
            inbound: group.and_then(|group| group.inbound),
            outbound: group.and_then(|group| group.outbound),
            trust_guest: group.and_then(|group| group.trust_guest).unwrap_or(trusts),
            isolated: group.and_then(|group| group.isolated).unwrap_or(isolates),
        }
    }

    /// Whether a server of names, of addresses or of both runs for it (libvirt starts dnsmasq for the same).
    #[must_use]
    pub fn needs_server(&self) -> bool {
        self.forward.makes_bridge() && !self.addresses.is_empty()
    }
}
