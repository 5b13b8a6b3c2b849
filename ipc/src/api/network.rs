//! Virtual networks as clients see them.

use serde::{Deserialize, Serialize};

use crate::model::{
    DirectMode, DomainName, DomainUuid, InterfaceName, NetworkName, NetworkPort, NetworkUuid,
};
use crate::spec::MacAddress;

/// One network in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkSummary {
    /// Its name.
    pub name: NetworkName,
    /// Its UUID.
    pub uuid: NetworkUuid,
    /// It was started, and not stopped since.
    pub active: bool,
    /// It has a definition that outlives its being active.
    pub persistent: bool,
    /// It starts with the host.
    pub autostart: bool,
    /// How it forwards: libvirt's word; `None` of one that does not.
    pub forward: Option<NetworkForward>,
    /// The bridge that its guests are on, where they are on one.
    pub bridge: Option<InterfaceName>,
    /// Interfaces of domains that are connected to it.
    pub ports: u32,
}

/// How a network forwards, without how that is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NetworkForward {
    /// With the host's addresses.
    Nat,
    /// With its own.
    Route,
    /// As the host's rules have it.
    Open,
    /// It is a bridge of the host.
    Bridge,
    /// Macvtaps.
    Direct(DirectMode),
    /// Devices of the host.
    HostDevices,
}

/// One network with all that is known of it but its definitions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkDetails {
    /// As in a list.
    pub summary: NetworkSummary,
    /// It is active, and will have another definition once it was stopped.
    pub changes: bool,
    /// What of it does not work though it is active, as a server that ends again and again: one line.
    pub fault: Option<String>,
}

/// What connects one interface of one domain to a network (libvirt `<networkport>`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortDetails {
    /// What the interface was given.
    pub port: NetworkPort,
    /// The domain.
    pub domain: DomainUuid,
    /// Its name when it was started.
    pub name: DomainName,
    /// The interface's address on the link.
    pub mac: MacAddress,
    /// The tap or macvtap on the host, once it is made.
    pub interface: Option<InterfaceName>,
    /// The kind of port that was asked for.
    pub port_group: Option<String>,
}
