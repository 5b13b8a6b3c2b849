//! What a network's definition looks like in words: in the files of the state directory, and in those that people
//! write for `reeve network define`. Frozen with the schema of the files, and apart from the model, as those of
//! domains are: a change of the model changes no file's meaning.
//!
//! What lives here: a definition as a whole, and why one is none. Its parts are beneath, one file each.

mod addresses;
mod dns;
mod forward;
mod part;
mod ports;

use reeve_ipc::model::{
    self, InterfaceName, InvalidName, MetadataElement, Network, NetworkError, NetworkUuid,
};
use reeve_ipc::spec::{InvalidMac, MacAddress};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use self::addresses::{Address, Route};
use self::dns::Dns;
use self::forward::Forward;
pub use self::part::PartFile;
use self::ports::PortGroup;
use crate::store::rate::Rate;
use crate::store::vlan::Vlan;

/// Why a definition in words is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ShapeError {
    /// Its name.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// The name of an interface.
    #[error(transparent)]
    Interface(#[from] model::DeviceError),
    /// An Ethernet address.
    #[error(transparent)]
    Mac(#[from] InvalidMac),
    /// A rule of networks.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The address of a device of the host.
    #[error("'{0}' is no address of a PCI device, as 0000:01:00.0")]
    Function(String),
    /// No part, or several.
    #[error(
        "it says one of dhcp_host, dhcp_range, forward_interface, port_group, dns_host, dns_text and \
         dns_service"
    )]
    Parts,
    /// Both kinds of host devices, or none.
    #[error("host_devices has either a physical_function or functions")]
    HostDevices,
}

const fn is_false(value: &bool) -> bool {
    !*value
}

/// A definition in words.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkFile {
    name: String,
    /// Drawn where people leave it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    uuid: Option<Uuid>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    title: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mac: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mtu: Option<u16>,
    #[serde(default, skip_serializing_if = "is_false")]
    ipv6: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    open_vswitch: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    trust_guest: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    isolated: bool,
    #[serde(default)]
    forward: Forward,
    #[serde(default)]
    bridge: Bridge,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    domain: Option<Domain>,
    #[serde(default)]
    dns: Dns,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    inbound: Option<Rate>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    outbound: Option<Rate>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    vlan: Option<Vlan>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    addresses: Vec<Address>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    routes: Vec<Route>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    port_groups: Vec<PortGroup>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    metadata: Vec<Metadata>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Metadata {
    uri: String,
    content: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Bridge {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(default = "yes")]
    stp: bool,
    #[serde(default)]
    delay: u32,
}

const fn yes() -> bool {
    true
}

impl Default for Bridge {
    fn default() -> Self {
        let model::BridgeSettings {
            name: _,
            stp,
            delay,
        } = model::BridgeSettings::default();
        Self {
            name: None,
            stp,
            delay,
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Domain {
    name: String,
    #[serde(default, skip_serializing_if = "is_false")]
    local_only: bool,
}

fn text(name: &InterfaceName) -> String {
    name.as_str().to_owned()
}

fn interface(name: String) -> Result<InterfaceName, ShapeError> {
    Ok(name.parse::<InterfaceName>()?)
}

fn interfaces(names: Option<String>) -> Result<Option<InterfaceName>, ShapeError> {
    names.map(interface).transpose()
}

fn mac(mac: Option<String>) -> Result<Option<MacAddress>, ShapeError> {
    Ok(mac.map(|mac| mac.parse()).transpose()?)
}

impl From<&Network> for NetworkFile {
    fn from(network: &Network) -> Self {
        let Network {
            name,
            uuid,
            labels:
                model::Labels {
                    title,
                    description,
                    metadata,
                },
            forward,
            bridge:
                model::BridgeSettings {
                    name: bridge,
                    stp,
                    delay,
                },
            mac,
            mtu,
            domain,
            dns,
            addresses,
            routes,
            ipv6,
            inbound,
            outbound,
            vlan,
            open_vswitch,
            port_groups,
            trust_guest,
            isolated,
        } = network;
        let metadata = metadata.iter().map(|element| Metadata {
            uri: element.uri.clone(),
            content: element.content.clone(),
        });
        Self {
            name: name.as_str().to_owned(),
            uuid: Some(uuid.0),
            title: title.clone(),
            description: description.clone(),
            mac: mac.map(|mac| mac.to_string()),
            mtu: *mtu,
            ipv6: *ipv6,
            open_vswitch: *open_vswitch,
            trust_guest: *trust_guest,
            isolated: *isolated,
            forward: forward.into(),
            bridge: Bridge {
                name: bridge.as_ref().map(text),
                stp: *stp,
                delay: *delay,
            },
            domain: domain.as_ref().map(|domain| Domain {
                name: domain.name.clone(),
                local_only: domain.local_only,
            }),
            dns: dns.into(),
            inbound: inbound.map(Into::into),
            outbound: outbound.map(Into::into),
            vlan: vlan.as_ref().map(Into::into),
            addresses: addresses.iter().map(Into::into).collect(),
            routes: routes.iter().map(Into::into).collect(),
            port_groups: port_groups.iter().map(Into::into).collect(),
            metadata: metadata.collect(),
        }
    }
}

impl NetworkFile {
    /// Whether it says its UUID.
    #[must_use]
    pub const fn has_uuid(&self) -> bool {
        self.uuid.is_some()
    }

    /// The network that it says, valid; of the UUID that was drawn where it says none.
    ///
    /// # Errors
    /// [`ShapeError`] names the first thing that is wrong.
    pub fn into_network(self, drawn: Uuid) -> Result<Network, ShapeError> {
        let metadata = self.metadata.into_iter();
        let domain = self
            .domain
            .map(|Domain { name, local_only }| model::NetworkDomain { name, local_only });
        let addresses: Result<_, _> = self.addresses.into_iter().map(TryInto::try_into).collect();
        let network = Network {
            name: self.name.try_into()?,
            uuid: NetworkUuid(self.uuid.unwrap_or(drawn)),
            labels: model::Labels {
                title: self.title,
                description: self.description,
                metadata: metadata
                    .map(|Metadata { uri, content }| MetadataElement { uri, content })
                    .collect(),
            },
            forward: self.forward.try_into()?,
            bridge: model::BridgeSettings {
                name: interfaces(self.bridge.name)?,
                stp: self.bridge.stp,
                delay: self.bridge.delay,
            },
            mac: mac(self.mac)?,
            mtu: self.mtu,
            domain,
            dns: self.dns.into(),
            addresses: addresses?,
            routes: self.routes.into_iter().map(Into::into).collect(),
            ipv6: self.ipv6,
            inbound: self.inbound.map(Into::into),
            outbound: self.outbound.map(Into::into),
            vlan: self.vlan.map(Into::into),
            open_vswitch: self.open_vswitch,
            port_groups: self.port_groups.into_iter().map(Into::into).collect(),
            trust_guest: self.trust_guest,
            isolated: self.isolated,
        };
        network.validate()?;
        Ok(network)
    }
}
