//! Network interfaces as schema 3 has them.

use std::path::PathBuf;

use reeve_ipc::model::{self, DirectMode};
use reeve_ipc::spec::NicDriver;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::super::SchemaError;
use super::disks::is_false;
use super::open_vswitch::{SwitchPort, VirtualPort};
use super::{from_slot, to_slot};
use crate::store::nwfilters::ReferenceFile;
use crate::store::rate::Rate;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Nic {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mac: Option<String>,
    source: Source,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    target: Option<String>,
    queues: u16,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mtu: Option<u16>,
    link_up: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    inbound: Option<Rate>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    outbound: Option<Rate>,
    trust_guest: bool,
    isolated: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    address: Option<u8>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    addresses: Vec<String>,
    /// Its frames are moved by the kernel.
    #[serde(default, skip_serializing_if = "is_false")]
    vhost: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    filter: Option<ReferenceFile>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    virtual_port: Option<VirtualPort>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
enum Source {
    Bridge(String),
    Tap(String),
    Nothing,
    Switch(PathBuf),
    Network {
        network: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        port_group: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        port: Option<Box<Port>>,
    },
    Direct {
        device: String,
        mode: DirectMode,
    },
    User,
    OpenVswitch(Box<SwitchPort>),
}

/// What a network gave it, of a machine that runs.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Port {
    uuid: Uuid,
    link: Link,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mtu: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    inbound: Option<Rate>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    outbound: Option<Rate>,
    trust_guest: bool,
    isolated: bool,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
enum Link {
    Bridge(String),
    Direct { device: String, mode: DirectMode },
    OpenVswitch(Box<SwitchPort>),
}

impl From<&model::NicSource> for Source {
    fn from(source: &model::NicSource) -> Self {
        let text = |name: &model::InterfaceName| name.as_str().to_owned();
        match source {
            model::NicSource::Bridge(name) => Self::Bridge(text(name)),
            model::NicSource::Tap(name) => Self::Tap(text(name)),
            model::NicSource::Nothing => Self::Nothing,
            model::NicSource::Switch(path) => Self::Switch(path.clone()),
            model::NicSource::Network {
                network,
                port_group,
                port,
            } => Self::Network {
                network: network.as_str().to_owned(),
                port_group: port_group.clone(),
                port: port.as_deref().map(|port| Box::new(Port::from(port))),
            },
            model::NicSource::Direct { device, mode } => Self::Direct {
                device: text(device),
                mode: *mode,
            },
            model::NicSource::User => Self::User,
            model::NicSource::OpenVswitch(port) => Self::OpenVswitch(Box::new((&**port).into())),
        }
    }
}

impl From<&model::NetworkPort> for Port {
    fn from(port: &model::NetworkPort) -> Self {
        let model::NetworkPort {
            uuid,
            link,
            mtu,
            inbound,
            outbound,
            trust_guest,
            isolated,
        } = port;
        let text = |name: &model::InterfaceName| name.as_str().to_owned();
        Self {
            uuid: uuid.0,
            link: match link {
                model::PortLink::Bridge(bridge) => Link::Bridge(text(bridge)),
                model::PortLink::Direct { device, mode } => Link::Direct {
                    device: text(device),
                    mode: *mode,
                },
                model::PortLink::OpenVswitch(port) => Link::OpenVswitch(Box::new((&**port).into())),
            },
            mtu: *mtu,
            inbound: inbound.map(Into::into),
            outbound: outbound.map(Into::into),
            trust_guest: *trust_guest,
            isolated: *isolated,
        }
    }
}

pub(super) fn interface(name: String) -> Result<model::InterfaceName, SchemaError> {
    let name = model::InterfaceName::try_from(name);
    Ok(name.map_err(model::ModelError::from)?)
}

impl TryFrom<Source> for model::NicSource {
    type Error = SchemaError;

    fn try_from(source: Source) -> Result<Self, SchemaError> {
        Ok(match source {
            Source::Bridge(bridge) => Self::Bridge(interface(bridge)?),
            Source::Tap(tap) => Self::Tap(interface(tap)?),
            Source::Nothing => Self::Nothing,
            Source::Switch(path) => Self::Switch(path),
            Source::Network {
                network,
                port_group,
                port,
            } => Self::Network {
                network: network.try_into()?,
                port_group,
                port: port
                    .map(|port| (*port).try_into().map(Box::new))
                    .transpose()?,
            },
            Source::Direct { device, mode } => Self::Direct {
                device: interface(device)?,
                mode,
            },
            Source::User => Self::User,
            Source::OpenVswitch(port) => Self::OpenVswitch(Box::new((*port).try_into()?)),
        })
    }
}

impl TryFrom<Port> for model::NetworkPort {
    type Error = SchemaError;

    fn try_from(port: Port) -> Result<Self, SchemaError> {
        Ok(Self {
            uuid: model::PortUuid(port.uuid),
            link: match port.link {
                Link::Bridge(bridge) => model::PortLink::Bridge(interface(bridge)?),
                Link::Direct { device, mode } => model::PortLink::Direct {
                    device: interface(device)?,
                    mode,
                },
                Link::OpenVswitch(port) => {
                    model::PortLink::OpenVswitch(Box::new((*port).try_into()?))
                }
            },
            mtu: port.mtu,
            inbound: port.inbound.map(Into::into),
            outbound: port.outbound.map(Into::into),
            trust_guest: port.trust_guest,
            isolated: port.isolated,
        })
    }
}

impl From<&model::Nic> for Nic {
    fn from(nic: &model::Nic) -> Self {
        let model::Nic {
            mac,
            source,
            target,
            queues,
            mtu,
            link_up,
            inbound,
            outbound,
            trust_guest,
            isolated,
            address,
            addresses,
            driver,
            filter,
            virtual_port,
        } = nic;
        let text = |name: &model::InterfaceName| name.as_str().to_owned();
        Self {
            mac: mac.map(|mac| mac.to_string()),
            source: source.into(),
            target: target.as_ref().map(text),
            queues: *queues,
            mtu: *mtu,
            link_up: *link_up,
            inbound: inbound.map(Into::into),
            outbound: outbound.map(Into::into),
            trust_guest: *trust_guest,
            isolated: *isolated,
            address: from_slot(*address),
            addresses: addresses.iter().map(ToString::to_string).collect(),
            vhost: match driver {
                NicDriver::User => false,
                NicDriver::Vhost => true,
            },
            filter: filter.as_deref().map(Into::into),
            virtual_port: virtual_port.as_deref().map(Into::into),
        }
    }
}

impl TryFrom<Nic> for model::Nic {
    type Error = SchemaError;

    fn try_from(nic: Nic) -> Result<Self, SchemaError> {
        let mac = nic.mac.map(|mac| mac.parse()).transpose();
        let mac = mac
            .map_err(|error: reeve_ipc::spec::InvalidMac| SchemaError::Address(error.to_string()));
        let addresses: Result<Vec<model::IpRange>, _> =
            nic.addresses.iter().map(|range| range.parse()).collect();
        Ok(Self {
            mac: mac?,
            source: nic.source.try_into()?,
            target: nic.target.map(interface).transpose()?,
            queues: nic.queues,
            mtu: nic.mtu,
            link_up: nic.link_up,
            inbound: nic.inbound.map(Into::into),
            outbound: nic.outbound.map(Into::into),
            trust_guest: nic.trust_guest,
            isolated: nic.isolated,
            address: to_slot(nic.address)?,
            addresses: addresses.map_err(model::ModelError::from)?,
            driver: if nic.vhost {
                NicDriver::Vhost
            } else {
                NicDriver::User
            },
            filter: match nic.filter {
                Some(filter) => Some(Box::new(filter.try_into()?)),
                None => None,
            },
            virtual_port: nic.virtual_port.map(|port| Box::new(port.into())),
        })
    }
}
