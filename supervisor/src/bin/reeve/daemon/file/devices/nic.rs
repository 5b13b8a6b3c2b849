//! `[[nic]]`.

use std::path::PathBuf;

use reeve_ipc::model::{
    DirectMode, FilterParameter, FilterReference, InterfaceName, IpRange, NetworkName, Nic,
    NicSource, NwfilterName,
};
use reeve_ipc::spec::{MacAddress, NicDriver, PciSlot};
use serde::{Deserialize, Serialize};

use super::open_vswitch::SwitchKeys;
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
    network: Option<NetworkName>,
    /// Of `network`.
    #[serde(skip_serializing_if = "Option::is_none")]
    port_group: Option<String>,
    /// The interface of the host that it is directly on.
    #[serde(skip_serializing_if = "Option::is_none")]
    direct: Option<InterfaceName>,
    /// Of `direct`.
    #[serde(skip_serializing_if = "Option::is_none")]
    mode: Option<DirectMode>,
    #[serde(default, skip_serializing_if = "is_false")]
    user: bool,
    /// The bridge of Open vSwitch that it is on, and how.
    #[serde(skip_serializing_if = "Option::is_none")]
    open_vswitch: Option<SwitchKeys>,
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
    /// The network filter that its frames pass.
    #[serde(skip_serializing_if = "Option::is_none")]
    filter: Option<NwfilterName>,
    /// Values of its variables, each a name and a value.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    filter_parameters: Vec<(String, String)>,
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
        let source = source(&keys)?;
        let on_network = matches!(source, NicSource::Network { .. });
        let virtual_port = keys.open_vswitch.clone().filter(|_| on_network);
        let virtual_port = virtual_port.map(SwitchKeys::of_network).transpose()?;
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
            filter: filter(keys.filter, keys.filter_parameters)?,
            virtual_port: virtual_port.map(Box::new),
        }))
    }
}

fn filter(
    filter: Option<NwfilterName>,
    parameters: Vec<(String, String)>,
) -> Result<Option<Box<FilterReference>>, String> {
    let Some(filter) = filter else {
        return match parameters.is_empty() {
            true => Ok(None),
            false => Err("filter-parameters are those of a filter: write filter too".to_owned()),
        };
    };
    let parameters = parameters.into_iter();
    let parameters = parameters.map(|(name, value)| FilterParameter { name, value });
    Ok(Some(Box::new(FilterReference {
        filter,
        parameters: parameters.collect(),
    })))
}

impl From<NicEntry> for NicKeys {
    fn from(NicEntry(nic): NicEntry) -> Self {
        let parameters = nic.filter.as_ref().map(|filter| {
            let parameters = filter.parameters.iter();
            parameters.map(|it| (it.name.clone(), it.value.clone()))
        });
        let filter_parameters = parameters.map(Iterator::collect).unwrap_or_default();
        let mut keys = Self {
            bridge: None,
            tap: None,
            switch: None,
            network: None,
            port_group: None,
            direct: None,
            mode: None,
            user: false,
            open_vswitch: nic.virtual_port.map(|port| (*port).into()),
            mac: nic.mac,
            target: nic.target,
            queues: nic.queues,
            mtu: nic.mtu,
            link: if nic.link_up { Link::Up } else { Link::Down },
            trust_guest: nic.trust_guest,
            isolated: nic.isolated,
            address: nic.address,
            addresses: nic.addresses,
            filter: nic.filter.map(|filter| filter.filter),
            filter_parameters,
            driver: Some(nic.driver).filter(|driver| *driver != NicDriver::User),
            inbound: nic.inbound.map(Into::into),
            outbound: nic.outbound.map(Into::into),
        };
        match nic.source {
            NicSource::Bridge(bridge) => keys.bridge = Some(bridge),
            NicSource::Tap(tap) => keys.tap = Some(tap),
            NicSource::Nothing => {}
            NicSource::Switch(path) => keys.switch = Some(path),
            NicSource::Network {
                network,
                port_group,
                port: _,
            } => {
                keys.network = Some(network);
                keys.port_group = port_group;
            }
            NicSource::Direct { device, mode } => {
                keys.direct = Some(device);
                keys.mode = Some(mode);
            }
            NicSource::User => keys.user = true,
            NicSource::OpenVswitch(port) => keys.open_vswitch = Some((*port).into()),
        }
        keys
    }
}

/// What it is connected to: one of them, or nothing.
fn source(keys: &NicKeys) -> Result<NicSource, String> {
    let mode = keys.mode.unwrap_or(DirectMode::Bridge);
    // Of an interface of a network it is what that one says of its port.
    let switched = keys.open_vswitch.clone().filter(|_| keys.network.is_none());
    let switched = switched.map(SwitchKeys::port).transpose()?;
    let said = [
        keys.bridge.clone().map(NicSource::Bridge),
        keys.tap.clone().map(NicSource::Tap),
        keys.switch.clone().map(NicSource::Switch),
        keys.network.clone().map(|network| NicSource::Network {
            network,
            port_group: keys.port_group.clone(),
            port: None,
        }),
        keys.direct
            .clone()
            .map(|device| NicSource::Direct { device, mode }),
        keys.user.then_some(NicSource::User),
        switched.map(|port| NicSource::OpenVswitch(Box::new(port))),
    ];
    if keys.port_group.is_some() && keys.network.is_none() {
        return Err("port-group is of a network interface with a network".to_owned());
    }
    if keys.mode.is_some() && keys.direct.is_none() {
        return Err("mode is of a network interface with direct".to_owned());
    }
    let mut said = said.into_iter().flatten();
    match (said.next(), said.next()) {
        (source, None) => Ok(source.unwrap_or(NicSource::Nothing)),
        (_, Some(_)) => Err(
            "a network interface is on a network, bridge, tap or switch, directly on an interface \
             or by user, not on two"
                .to_owned(),
        ),
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
