//! Why a network cannot be had as it is said.

use std::net::IpAddr;
use std::path::PathBuf;

use crate::model::{InterfaceName, ModelError};

/// Why a network cannot be had as it is said. One line each.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// Of title, description or metadata.
    #[error(transparent)]
    Labels(#[from] ModelError),
    /// More than [`MAX_NETWORK_BYTES`](super::MAX_NETWORK_BYTES).
    #[error("the definition has {0} bytes, which is more than {max}; leave something out", max = super::MAX_NETWORK_BYTES)]
    Size(usize),
    /// What only a network with a bridge of its own has.
    #[error("{what} is not for a network that forwards by '{forward}': it makes no bridge")]
    NoBridge {
        /// What was said.
        what: &'static str,
        /// How it forwards.
        forward: &'static str,
    },
    /// What only a network connected to a bridge or an interface has.
    #[error(
        "{0} is only for a network that is connected to a bridge of Open vSwitch, or to interfaces"
    )]
    OwnBridge(&'static str),
    /// No interface to forward by.
    #[error("a network that forwards by '{0}' needs an interface of the host")]
    NoDevice(&'static str),
    /// An interface twice.
    #[error("the interface '{0}' is there twice")]
    DeviceTwice(InterfaceName),
    /// Not 68 to 65535.
    #[error("an MTU of {0} is none: it is 68 to 65535")]
    Mtu(u16),
    /// Not 0 to 30.
    #[error("a delay of {0} s is none: it is 0 to 30")]
    Delay(u32),
    /// A range upside down.
    #[error("the ports {0} to {1} are no range: it begins at 1 at least and ends no lower")]
    Ports(u16, u16),
    /// Not 1 to 32, or to 128.
    #[error(
        "{address}/{prefix} is no address with a prefix: that is 1 to 32 of IPv4, to 128 of IPv6"
    )]
    Prefix {
        /// Of which address.
        address: IpAddr,
        /// What was said.
        prefix: u8,
    },
    /// An address that no station has.
    #[error("{0} is not the address of one station")]
    Station(IpAddr),
    /// Two addresses on the same network.
    #[error("{0} and {1} are on the same network")]
    AddressesOverlap(IpAddr, IpAddr),
    /// An address that is not on the network, or the network's or everybody's own.
    #[error("{address} is not one that a guest can have on {network}/{prefix}")]
    NotOnNetwork {
        /// Which.
        address: IpAddr,
        /// Of which network.
        network: IpAddr,
        /// Its prefix.
        prefix: u8,
    },
    /// A range upside down, of two families, or too long.
    #[error("{0} to {1} is no range of at most 65536 addresses")]
    Range(IpAddr, IpAddr),
    /// Two ranges share addresses.
    #[error("the ranges that begin at {0} and {1} overlap")]
    RangesOverlap(IpAddr, IpAddr),
    /// DHCP twice for a family.
    #[error("there is DHCP for two addresses of {0}; a network has one of each family")]
    DhcpTwice(&'static str),
    /// DHCPv6 on a prefix that nothing can be given out of.
    #[error("DHCPv6 needs a prefix of 64 bits or more, and this is {0}")]
    Dhcp6Prefix(u8),
    /// A known host without what it is known by, or with what its family does not have.
    #[error("a host of DHCP is known by {0}")]
    DhcpHost(&'static str),
    /// A known host twice.
    #[error("there is a host of DHCP with '{0}' already")]
    DhcpHostTwice(String),
    /// What only IPv4 has.
    #[error("{0} is of IPv4 only")]
    Ipv4Only(&'static str),
    /// A lease that is too short.
    #[error("a lease has two minutes at least")]
    Lease,
    /// A name or text with characters that it cannot have.
    #[error("'{text}' is no {what}")]
    Text {
        /// What it should be.
        what: &'static str,
        /// What it is, cut.
        text: String,
    },
    /// A directory that is no absolute path.
    #[error("the directory '{path}' must be an absolute path without '..' or control characters", path = .0.display())]
    Directory(PathBuf),
    /// A name of DNS twice.
    #[error("there is {what} '{name}' already")]
    DnsTwice {
        /// What.
        what: &'static str,
        /// Which.
        name: String,
    },
    /// Neither an address nor a domain.
    #[error("a forwarder has an address, a domain or both")]
    Forwarder,
    /// Without names.
    #[error("the host {0} of DNS has no names")]
    NoNames(IpAddr),
    /// A port, priority or weight without a target.
    #[error("a service without a target has no port, priority or weight")]
    NoTarget,
    /// A route of two families, or with bits beyond its prefix.
    #[error(
        "{0}/{1} is no destination: bits beyond the prefix must be 0, and the prefix 0 to 32, or to 128"
    )]
    Destination(IpAddr, u8),
    /// A network or a destination that would be the host's own way out.
    #[error("{0}/{1} is too wide: a network or a route has 8 bits of IPv4 or 16 of IPv6 at least")]
    TooWide(IpAddr, u8),
    /// The gateway is not on the network.
    #[error("the gateway {0} is on none of the network's addresses")]
    Gateway(IpAddr),
    /// Metric 0.
    #[error("a metric is 1 at least")]
    Metric,
    /// A tag out of its range, twice, or several where frames have none.
    #[error(
        "a VLAN has tags of 0 to 4095, each once, one of them native at most, and several only as a trunk"
    )]
    Vlan,
    /// A port group twice, or two that are the default.
    #[error("there is a port group '{0}' already, or another that is the default")]
    PortGroupTwice(String),
    /// No port group of this name.
    #[error("there is no port group '{0}'")]
    NoPortGroup(String),
    /// A rate that is none.
    #[error("{0}")]
    Rate(String),
    /// What is to be changed or deleted is not there.
    #[error("there is no {0}")]
    NotThere(String),
    /// What is to be deleted is there more than once.
    #[error("there is more than one {0}: say more of the one that is meant")]
    Several(String),
    /// A host of DNS to be added, by its names alone.
    #[error("a host of DNS that is added has an address")]
    DnsHostAddress,
    /// What is to be added is there.
    #[error("there is {0} already")]
    There(String),
    /// A part that is only added and deleted, as libvirt has it.
    #[error("{0} cannot be modified; delete it and add another")]
    NeverModified(&'static str),
    /// A change of an address that is not there.
    #[error("there is no <ip> number {0}")]
    NoAddress(u32),
    /// A change of what this network does not have.
    #[error("a network that forwards by '{0}' has none of these")]
    NotOfForward(&'static str),
}
