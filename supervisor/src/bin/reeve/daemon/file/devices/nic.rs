//! `[[nic]]`.

use std::path::PathBuf;

use reeve_ipc::model::{InterfaceName, IpRange, Nic, NicSource};
use reeve_ipc::spec::{MacAddress, NicDriver, PciSlot};
use serde::{Deserialize, Serialize};

use super::{RateKeys, is_false, one};

/// A network interface that is checked as it is read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "NicKeys", into = "NicKeys")]
pub(in super::super) struct NicEntry(Nic);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct NicKeys {
    #[serde(skip_serializing_if = "Option::is_none")]
    bridge: Option<InterfaceName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tap: Option<InterfaceName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    switch: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mac: Option<MacAddress>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<InterfaceName>,
    #[serde(default = "one")]
    queues: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    mtu: Option<u16>,
    #[serde(default)]
    link: Link,
    #[serde(skip_serializing_if = "Option::is_none")]
    driver: Option<NicDriver>,
    #[serde(default, skip_serializing_if = "is_false")]
    trust_guest: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    isolated: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    addresses: Vec<IpRange>,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<PciSlot>,
    #[serde(skip_serializing_if = "Option::is_none")]
    inbound: Option<RateKeys>,
    #[serde(skip_serializing_if = "Option::is_none")]
    outbound: Option<RateKeys>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Link {
    #[default]
    Up,
    Down,
}

impl TryFrom<NicKeys> for NicEntry {
    type Error = String;

    fn try_from(keys: NicKeys) -> Result<Self, String> {
        let source = match (keys.bridge, keys.tap, keys.switch) {
            (Some(bridge), None, None) => NicSource::Bridge(bridge),
            (None, Some(tap), None) => NicSource::Tap(tap),
            (None, None, Some(path)) => NicSource::Switch(path),
            (None, None, None) => NicSource::Nothing,
            _ => {
                return Err(
                    "a network interface is on a bridge, on a tap or on a switch, not on two"
                        .to_owned(),
                );
            }
        };
        Ok(Self(Nic {
            mac: keys.mac,
            source,
            target: keys.target,
            queues: keys.queues,
            mtu: keys.mtu,
            link_up: keys.link == Link::Up,
            inbound: keys.inbound.map(Into::into),
            outbound: keys.outbound.map(Into::into),
            trust_guest: keys.trust_guest,
            isolated: keys.isolated,
            address: keys.address,
            addresses: keys.addresses,
            driver: keys.driver.unwrap_or(NicDriver::User),
        }))
    }
}

impl From<NicEntry> for NicKeys {
    fn from(NicEntry(nic): NicEntry) -> Self {
        let (bridge, tap, switch) = match nic.source {
            NicSource::Bridge(bridge) => (Some(bridge), None, None),
            NicSource::Tap(tap) => (None, Some(tap), None),
            NicSource::Nothing => (None, None, None),
            NicSource::Switch(path) => (None, None, Some(path)),
        };
        Self {
            bridge,
            tap,
            switch,
            mac: nic.mac,
            target: nic.target,
            queues: nic.queues,
            mtu: nic.mtu,
            link: if nic.link_up { Link::Up } else { Link::Down },
            trust_guest: nic.trust_guest,
            isolated: nic.isolated,
            address: nic.address,
            addresses: nic.addresses,
            driver: Some(nic.driver).filter(|driver| *driver != NicDriver::User),
            inbound: nic.inbound.map(Into::into),
            outbound: nic.outbound.map(Into::into),
        }
    }
}

impl From<NicEntry> for Nic {
    fn from(entry: NicEntry) -> Self {
        entry.0
    }
}

impl From<Nic> for NicEntry {
    fn from(nic: Nic) -> Self {
        Self(nic)
    }
}
