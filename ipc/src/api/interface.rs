//! The host's own network interfaces as clients see them, and which addresses its neighbours on them have.
//!
//! Every word is the kernel's own, read by the supervisor in its network namespace. What the neighbours of a host
//! are called they have said themselves: guests' addresses here are as trustworthy as their guests.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::spec::MacAddress;

/// The most addresses of one interface that are told of, and the most of one neighbour.
pub const MAX_INTERFACE_ADDRESSES: usize = 64;
/// The most bytes of the address of an interface on its link: that of InfiniBand.
pub const MAX_LINK_ADDRESS_BYTES: usize = 32;
/// The most bytes of an interface's name.
pub const MAX_INTERFACE_NAME_BYTES: usize = 64;

/// One network interface of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostInterface {
    /// Its name; bytes of it that are no text are replaced.
    pub name: String,
    /// Its address on the link, at most [`MAX_LINK_ADDRESS_BYTES`]: six bytes on Ethernet, none of one that has none.
    pub address: Vec<u8>,
    /// The most bytes of a packet.
    pub mtu: u32,
    /// How it stands.
    pub state: LinkState,
    /// Megabits a second, where its driver says it of one that is up.
    pub speed: Option<u32>,
    /// What it is.
    pub kind: HostInterfaceKind,
    /// It is a tun or tap: the end of what a process serves, as guests' interfaces are.
    pub tap: bool,
    /// The name of the bridge, bond or other interface that it is a part of.
    pub part_of: Option<String>,
    /// The host's addresses on it with their prefixes, at most [`MAX_INTERFACE_ADDRESSES`].
    pub addresses: Vec<(IpAddr, u8)>,
    /// The routers of the host's default routes by it, at most [`MAX_INTERFACE_ADDRESSES`].
    pub routers: Vec<IpAddr>,
    /// Whether it is set up when the host boots, where that is known: the kernel does not know it.
    pub on_boot: Option<bool>,
}

/// How a link stands (RFC 2863, `ifOperStatus`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LinkState {
    /// Its driver does not say.
    Unknown,
    /// A part of it is missing.
    NotPresent,
    /// It is down.
    Down,
    /// What is beneath it is down.
    LowerLayerDown,
    /// It is being tried.
    Testing,
    /// It waits for something outside.
    Dormant,
    /// It passes packets.
    Up,
}

/// What an interface of the host is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HostInterfaceKind {
    /// Nothing below.
    Ethernet,
    /// A bridge of the kernel. What is on it says so itself.
    Bridge {
        /// It speaks the spanning tree protocol.
        stp: bool,
        /// Hundredths of a second that a new port waits.
        delay: u32,
    },
    /// The frames of one tag of another interface.
    Vlan {
        /// The tag.
        tag: u16,
        /// The other interface.
        of: Option<String>,
    },
    /// Several interfaces as one. What is of it says so itself.
    Bond {
        /// How they are used: the kernel's number, 0 (in turn) to 6 (by load both ways).
        mode: u8,
        /// How their links are watched.
        monitor: Option<BondMonitor>,
    },
}

/// How the links of a bond are watched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BondMonitor {
    /// By asking their drivers.
    Link {
        /// Milliseconds between two looks.
        every_ms: u32,
        /// Milliseconds until one that came up is used.
        up_ms: u32,
        /// Milliseconds until one that went down is not.
        down_ms: u32,
        /// By the state that the kernel has for every link, rather than the driver's own.
        carrier: bool,
    },
    /// By asking others for their addresses.
    Arp {
        /// Milliseconds between two.
        every_ms: u32,
        /// Whom: the first.
        target: IpAddr,
    },
}

/// A page of interfaces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostInterfacePage {
    /// In order of their names, as many as fit a message.
    pub interfaces: Vec<HostInterface>,
    /// There are more.
    pub more: bool,
}

/// What the host has learned of one interface of a domain by talking to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NicNeighbour {
    /// The interface's address on the link.
    pub mac: MacAddress,
    /// Its name on the host.
    pub host: String,
    /// Addresses that the host's table of neighbours (RFC 826, RFC 4861) has for it, in their order, IPv4 first; at
    /// most [`MAX_INTERFACE_ADDRESSES`].
    pub addresses: Vec<IpAddr>,
}
