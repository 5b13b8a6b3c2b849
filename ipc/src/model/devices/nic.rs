//! A network interface as a definition says it (libvirt `<interface>`).

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{DeviceError, InterfaceName, IpRange, OpenVswitchPort, VirtualPort, check_rate};
use crate::model::{DirectMode, FilterReference, NetworkName, PortUuid};
use crate::spec::{MAX_NIC_QUEUES, MIN_MTU, MacAddress, NicDriver, PciSlot, Rate};

/// The most addresses of a network interface, where they are said.
pub const MAX_NIC_ADDRESSES: usize = 32;

/// The most bytes of the name of a port group.
pub const MAX_PORT_GROUP_BYTES: usize = 255;

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nic {
    /// Its address; drawn when the definition is taken where there is none.
    pub mac: Option<MacAddress>,
    /// What it is connected to on the host.
    pub source: NicSource,
    /// The name of the tap that is made for it; the next of `vnet0`, `vnet1`, ... that no interface has where there is none.
    pub target: Option<InterfaceName>,
    /// Its pairs of queues, 1 to [`MAX_NIC_QUEUES`].
    pub queues: u16,
    /// The MTU of the tap and of the guest; that of the bridge where there is none.
    pub mtu: Option<u16>,
    /// Whether its link is up.
    pub link_up: bool,
    /// Bytes to the guest, at most.
    pub inbound: Option<Rate>,
    /// Bytes from the guest, at most.
    pub outbound: Option<Rate>,
    /// The guest may send from Ethernet addresses that are not its own; where `addresses` are not said either
    /// it may send anything, unless the host keeps its guests apart.
    pub trust_guest: bool,
    /// It reaches no other isolated port of its bridge (libvirt `<port isolated='yes'/>`).
    pub isolated: bool,
    /// Where it is on the bus.
    pub address: Option<PciSlot>,
    /// The addresses from which the guest may send, at most [`MAX_NIC_ADDRESSES`]; any where there is none.
    pub addresses: Vec<IpRange>,
    /// What moves its frames.
    pub driver: NicDriver,
    /// The network filter that its frames pass, both ways, beside the source filter.
    pub filter: Option<Box<FilterReference>>,
    /// What it says of its port of a virtual network; of one that is on such only.
    pub virtual_port: Option<Box<VirtualPort>>,
}

/// What a network interface is connected to on the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum NicSource {
    /// A tap is made and made a port of this bridge.
    Bridge(InterfaceName),
    /// This tap, which exists and which whoever made it has set up.
    Tap(InterfaceName),
    /// A tap is made, and left down and unconnected.
    Nothing,
    /// A switch that listens on this UNIX socket, and serves the queues itself (libvirt
    /// `type='vhostuser'`, `mode='client'`).
    Switch(PathBuf),
    /// A virtual network, which says what it is connected to when the domain starts (libvirt
    /// `type='network'`).
    Network {
        /// Which.
        network: NetworkName,
        /// The kind of its port; the network's default where it is not said.
        port_group: Option<String>,
        /// What it was connected to at the start, of a machine that runs; never of a definition that is kept.
        port: Option<Box<NetworkPort>>,
    },
    /// A macvtap is made upon this interface of the host (libvirt `type='direct'`).
    Direct {
        /// Upon which.
        device: InterfaceName,
        /// How frames are handed on.
        mode: DirectMode,
    },
    /// A process beside the worker speaks for it to whatever its user reaches, without any privilege (libvirt
    /// `type='user'`).
    User,
    /// A tap is made and made a port of a bridge of Open vSwitch (libvirt `type='bridge'` with `<virtualport
    /// type='openvswitch'>`).
    OpenVswitch(Box<OpenVswitchPort>),
}

/// What a virtual network gave an interface at its start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkPort {
    /// Its identity among the ports of the network.
    pub uuid: PortUuid,
    /// What it is connected to.
    pub link: PortLink,
    /// As the network's bridge has it.
    pub mtu: Option<u16>,
    /// To the guest, of the port group, where the interface says nothing of it.
    pub inbound: Option<Rate>,
    /// From the guest, likewise.
    pub outbound: Option<Rate>,
    /// Of the port group or the network.
    pub trust_guest: bool,
    /// Likewise.
    pub isolated: bool,
}

/// What a port of a virtual network is connected to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum PortLink {
    /// A tap is a port of this bridge.
    Bridge(InterfaceName),
    /// A macvtap is upon this interface.
    Direct {
        /// Upon which.
        device: InterfaceName,
        /// How frames are handed on.
        mode: DirectMode,
    },
    /// A tap is a port of a bridge of Open vSwitch.
    OpenVswitch(Box<OpenVswitchPort>),
}

impl NicSource {
    /// The word that libvirt has for it (`<interface type='...'>`).
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Bridge(_) | Self::OpenVswitch(_) => "bridge",
            Self::Tap(_) | Self::Nothing => "ethernet",
            Self::Switch(_) => "vhostuser",
            Self::Network { .. } => "network",
            Self::Direct { .. } => "direct",
            Self::User => "user",
        }
    }
}

impl Nic {
    /// An interface of that source, with everything else as it is where nothing is said.
    #[must_use]
    pub const fn new(source: NicSource) -> Self {
        Self {
            mac: None,
            source,
            target: None,
            queues: 1,
            mtu: None,
            link_up: true,
            inbound: None,
            outbound: None,
            trust_guest: false,
            isolated: false,
            address: None,
            addresses: Vec::new(),
            driver: NicDriver::User,
            filter: None,
            virtual_port: None,
        }
    }

    /// The tap's name on the host, where the definition says it.
    #[must_use]
    pub const fn host_name(&self) -> Option<&InterfaceName> {
        match &self.source {
            NicSource::Tap(name) => Some(name),
            NicSource::Bridge(_)
            | NicSource::OpenVswitch(_)
            | NicSource::Nothing
            | NicSource::Network { .. }
            | NicSource::Direct { .. } => self.target.as_ref(),
            NicSource::Switch(_) | NicSource::User => None,
        }
    }

    /// What messages call it: its address, or its place among those of the domain.
    #[must_use]
    pub fn called(&self, index: usize) -> String {
        match self.mac {
            Some(mac) => format!("network interface {mac}"),
            None => format!("network interface {index}"),
        }
    }

    /// The bridge that its tap is a port of, where that is known: of a virtual network when it is started.
    #[must_use]
    pub fn bridge(&self) -> Option<&InterfaceName> {
        match &self.source {
            NicSource::Bridge(bridge) => Some(bridge),
            NicSource::OpenVswitch(port) => Some(&port.bridge),
            NicSource::Network { port, .. } => match &port.as_deref()?.link {
                PortLink::Bridge(bridge) => Some(bridge),
                PortLink::OpenVswitch(port) => Some(&port.bridge),
                PortLink::Direct { .. } => None,
            },
            _ => None,
        }
    }

    /// Leaves out what a virtual network gave it: a definition that is kept has none of it.
    pub fn forget_port(&mut self) {
        if let NicSource::Network { port, .. } = &mut self.source {
            *port = None;
        }
    }

    /// Whether what its guest sends passes a filter on every host; on one that keeps its guests apart it
    /// does in any case.
    #[must_use]
    pub fn is_filtered(&self) -> bool {
        self.filter.is_some() || self.has_source_filter()
    }

    /// The same of the filter that looks at what the guest says it is, beside which one may be named that looks at
    /// anything.
    #[must_use]
    pub fn has_source_filter(&self) -> bool {
        let free = self.trust_guest && self.addresses.is_empty();
        matches!(
            self.source,
            NicSource::Bridge(_)
                | NicSource::OpenVswitch(_)
                | NicSource::Network { .. }
                | NicSource::Direct { .. }
        ) && !free
    }

    /// That nothing is asked of it together that no host does. A record of before that was known is no less
    /// valid for it.
    pub(super) fn accept(&self, index: usize) -> Result<(), DeviceError> {
        if self.driver == NicDriver::Vhost && self.is_filtered() {
            let nic = self.called(index);
            return Err(DeviceError::FilteredByKernel { nic });
        }
        Ok(())
    }

    pub(super) fn validate(&self, index: usize) -> Result<(), DeviceError> {
        let nic = self.called(index);
        if !(1..=MAX_NIC_QUEUES).contains(&self.queues) {
            let queues = self.queues;
            return Err(DeviceError::NicQueues { nic, queues });
        }
        if let Some(mtu) = self.mtu.filter(|mtu| *mtu < MIN_MTU) {
            return Err(DeviceError::Mtu { nic, mtu });
        }
        if let NicSource::Switch(path) = &self.source {
            if path.as_os_str().is_empty() {
                return Err(DeviceError::NoSwitch { nic });
            }
            let own = [
                (self.target.is_some(), "a name on the host"),
                (self.isolated, "isolation"),
                (
                    !self.addresses.is_empty() || self.filter.is_some(),
                    "a filter",
                ),
                (self.trust_guest, "a filter"),
                (self.inbound.is_some() || self.outbound.is_some(), "rates"),
                (!self.link_up, "a link that is down"),
                (self.driver != NicDriver::User, "a driver"),
            ];
            if let Some((_, what)) = own.into_iter().find(|(set, _)| *set) {
                return Err(DeviceError::OfSwitch { nic, what });
            }
        }
        if let NicSource::Network {
            port_group: Some(group),
            ..
        } = &self.source
        {
            if group.is_empty() || group.len() > MAX_PORT_GROUP_BYTES {
                return Err(DeviceError::PortGroup { nic });
            }
        }
        let on_network = matches!(self.source, NicSource::Network { .. });
        let (valid, switched) = match (&self.source, &self.virtual_port) {
            (NicSource::OpenVswitch(port), None) => (port.is_valid(), true),
            (_, Some(port)) => (on_network && port.is_valid(), port.open_vswitch),
            (_, None) => (true, false),
        };
        if !valid {
            return Err(DeviceError::OpenVswitch { nic });
        }
        if switched && self.isolated {
            return Err(DeviceError::IsolatedOnSwitch { nic });
        }
        if matches!(self.source, NicSource::User) {
            let own = [
                (self.target.is_some(), "a name on the host"),
                (self.isolated, "isolation"),
                (
                    !self.addresses.is_empty() || self.filter.is_some(),
                    "a filter",
                ),
                (self.queues != 1, "several queues"),
                (self.driver != NicDriver::User, "a driver"),
            ];
            if let Some((_, what)) = own.into_iter().find(|(set, _)| *set) {
                return Err(DeviceError::OfUser { nic, what });
            }
        }
        if let NicSource::Tap(_) = self.source {
            let own = [
                (self.target.is_some(), "name"),
                (self.mtu.is_some(), "MTU"),
                (self.isolated, "isolation"),
                (
                    !self.addresses.is_empty() || self.filter.is_some(),
                    "filter",
                ),
            ];
            if let Some((_, what)) = own.into_iter().find(|(set, _)| *set) {
                return Err(DeviceError::TapIsThere { nic, what });
            }
        }
        if self.addresses.len() > MAX_NIC_ADDRESSES {
            let count = self.addresses.len();
            return Err(DeviceError::NicAddresses { nic, count });
        }
        if let Some(filter) = &self.filter {
            filter.validate().map_err(|error| {
                let error = error.to_string();
                DeviceError::NicFilter {
                    nic: nic.clone(),
                    error,
                }
            })?;
        }
        for rate in [self.inbound, self.outbound].into_iter().flatten() {
            check_rate(rate, &nic, "bytes")?;
        }
        Ok(())
    }
}
