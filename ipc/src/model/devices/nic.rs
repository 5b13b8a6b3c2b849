//! A network interface as a definition says it (libvirt `<interface>`).

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{DeviceError, InterfaceName, IpRange, check_rate};
use crate::spec::{MAX_NIC_QUEUES, MIN_MTU, MacAddress, NicDriver, PciSlot, Rate};

/// The most addresses of a network interface, where they are said.
pub const MAX_NIC_ADDRESSES: usize = 32;

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nic {
    /// Its address; drawn when the definition is taken where there is none.
    pub mac: Option<MacAddress>,
    /// What it is connected to on the host.
    pub source: NicSource,
    /// The name of the tap that is made for it; the next free of `vnet0`, `vnet1`, ... where there is none.
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
        }
    }

    /// The tap's name on the host, where the definition says it.
    #[must_use]
    pub const fn host_name(&self) -> Option<&InterfaceName> {
        match &self.source {
            NicSource::Tap(name) => Some(name),
            NicSource::Bridge(_) | NicSource::Nothing => self.target.as_ref(),
            NicSource::Switch(_) => None,
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

    /// Whether what its guest sends passes a source filter on every host; on one that keeps its guests apart it
    /// does in any case.
    #[must_use]
    pub fn is_filtered(&self) -> bool {
        let free = self.trust_guest && self.addresses.is_empty();
        matches!(self.source, NicSource::Bridge(_)) && !free
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
                (!self.addresses.is_empty(), "a filter"),
                (self.trust_guest, "a filter"),
                (self.inbound.is_some() || self.outbound.is_some(), "rates"),
                (!self.link_up, "a link that is down"),
                (self.driver != NicDriver::User, "a driver"),
            ];
            if let Some((_, what)) = own.into_iter().find(|(set, _)| *set) {
                return Err(DeviceError::OfSwitch { nic, what });
            }
        }
        if let NicSource::Tap(_) = self.source {
            let own = [
                (self.target.is_some(), "name"),
                (self.mtu.is_some(), "MTU"),
                (self.isolated, "isolation"),
                (!self.addresses.is_empty(), "filter"),
            ];
            if let Some((_, what)) = own.into_iter().find(|(set, _)| *set) {
                return Err(DeviceError::TapIsThere { nic, what });
            }
        }
        if self.addresses.len() > MAX_NIC_ADDRESSES {
            let count = self.addresses.len();
            return Err(DeviceError::NicAddresses { nic, count });
        }
        for rate in [self.inbound, self.outbound].into_iter().flatten() {
            check_rate(rate, &nic, "bytes")?;
        }
        Ok(())
    }
}
