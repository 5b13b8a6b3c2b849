//! How guests reach what is not on their network (libvirt `<forward>`).

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::model::InterfaceName;
use crate::spec::words::words;

words! {
    /// How a macvtap hands frames on (`IFLA_MACVLAN_MODE`; libvirt `<source mode='...'>`).
    DirectMode, "mode of a direct interface" {
        /// All go out by the interface, and come back if its switch sends them back.
        Vepa = "vepa",
        /// To others on the same interface directly.
        Bridge = "bridge",
        /// To no other on the same interface, even where the switch sends them back.
        Private = "private",
        /// The interface is the guest's alone.
        Passthrough = "passthrough",
    }
}

/// How guests reach what is not on their network (libvirt `<forward mode='...'>`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Forward {
    /// Not at all. A bridge is made.
    Isolated,
    /// By the host's addresses. A bridge is made.
    Nat(Nat),
    /// As they are: whoever is beyond knows the way back. A bridge is made.
    Route {
        /// Only by way of this interface of the host.
        device: Option<InterfaceName>,
    },
    /// As the host's own rules have it, of which none are made. A bridge is made.
    Open,
    /// They are on this bridge of the host, which is there.
    Bridge(InterfaceName),
    /// Each has a macvtap on one of these interfaces of the host: the one with the fewest.
    Direct {
        /// How frames are handed on.
        mode: DirectMode,
        /// 1 at least; each once.
        devices: Vec<InterfaceName>,
    },
    /// Each has a function of a device of the host: kept, and refused at the start until there is passthrough.
    HostDevices {
        /// Whether the host's driver is taken off and put back.
        managed: bool,
        /// Which functions.
        source: HostDeviceSource,
    },
}

/// The functions of a pool of host devices.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum HostDeviceSource {
    /// The virtual ones of this interface.
    PhysicalFunction(InterfaceName),
    /// These: domain, bus, device, function.
    Functions(Vec<(u32, u8, u8, u8)>),
}

/// How addresses are translated.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nat {
    /// Only by way of this interface of the host.
    pub device: Option<InterfaceName>,
    /// IPv6 as well.
    pub ipv6: bool,
    /// To one of these addresses, the first and the last, instead of that of the interface taken.
    pub addresses: Option<(Ipv4Addr, Ipv4Addr)>,
    /// From one of these ports; 1024 to 65535 where it is not said.
    pub ports: Option<PortRange>,
}

/// Ports of TCP and UDP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortRange {
    /// The first, not 0.
    pub first: u16,
    /// The last, no less.
    pub last: u16,
}

impl Forward {
    /// Whether its network has a bridge that is made for it.
    #[must_use]
    pub const fn makes_bridge(&self) -> bool {
        matches!(
            self,
            Self::Isolated | Self::Nat(_) | Self::Route { .. } | Self::Open
        )
    }

    /// The word that libvirt has for it; `None` of an isolated one, which says nothing.
    #[must_use]
    pub const fn word(&self) -> Option<&'static str> {
        match self {
            Self::Isolated => None,
            Self::Nat(_) => Some("nat"),
            Self::Route { .. } => Some("route"),
            Self::Open => Some("open"),
            Self::Bridge(_) => Some("bridge"),
            Self::Direct { mode, .. } => Some(mode.word()),
            Self::HostDevices { .. } => Some("hostdev"),
        }
    }

    /// The interface of the host that traffic goes out by, where only one may be.
    #[must_use]
    pub const fn device(&self) -> Option<&InterfaceName> {
        match self {
            Self::Nat(nat) => nat.device.as_ref(),
            Self::Route { device } => device.as_ref(),
            _ => None,
        }
    }
}
