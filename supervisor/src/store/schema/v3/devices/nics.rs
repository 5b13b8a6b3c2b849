//! Network interfaces as schema 3 has them.

use std::path::PathBuf;

use reeve_ipc::model;
use reeve_ipc::spec::NicDriver;
use serde::{Deserialize, Serialize};

use super::super::SchemaError;
use super::disks::is_false;
use super::{Rate, from_slot, to_slot};

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
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
enum Source {
    Bridge(String),
    Tap(String),
    Nothing,
    Switch(PathBuf),
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
        } = nic;
        let text = |name: &model::InterfaceName| name.as_str().to_owned();
        Self {
            mac: mac.map(|mac| mac.to_string()),
            source: match source {
                model::NicSource::Bridge(name) => Source::Bridge(text(name)),
                model::NicSource::Tap(name) => Source::Tap(text(name)),
                model::NicSource::Nothing => Source::Nothing,
                model::NicSource::Switch(path) => Source::Switch(path.clone()),
            },
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
        }
    }
}

impl TryFrom<Nic> for model::Nic {
    type Error = SchemaError;

    fn try_from(nic: Nic) -> Result<Self, SchemaError> {
        let name = |name: String| {
            let name = model::InterfaceName::try_from(name);
            name.map_err(model::ModelError::from)
        };
        let mac = nic.mac.map(|mac| mac.parse()).transpose();
        let mac = mac
            .map_err(|error: reeve_ipc::spec::InvalidMac| SchemaError::Address(error.to_string()));
        let addresses: Result<Vec<model::IpRange>, _> =
            nic.addresses.iter().map(|range| range.parse()).collect();
        Ok(Self {
            mac: mac?,
            source: match nic.source {
                Source::Bridge(bridge) => model::NicSource::Bridge(name(bridge)?),
                Source::Tap(tap) => model::NicSource::Tap(name(tap)?),
                Source::Nothing => model::NicSource::Nothing,
                Source::Switch(path) => model::NicSource::Switch(path),
            },
            target: nic.target.map(name).transpose()?,
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
        })
    }
}
