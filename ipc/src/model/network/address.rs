//! The host's addresses on a network, and what is given out beside them (libvirt `<ip>`, `<dhcp>`, `<route>`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::spec::MacAddress;

/// An address of the host on a network (libvirt `<ip>`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkAddress {
    /// The host's own.
    pub address: IpAddr,
    /// Bits that all on the network have in common: 1 to 32, or to 128.
    pub prefix: u8,
    /// Names of its addresses that are not known are not asked for elsewhere (libvirt `localPtr`).
    pub local_ptr: bool,
    /// What is given out of it.
    pub dhcp: Option<Dhcp>,
    /// A directory whose files are served by TFTP; IPv4 only.
    pub tftp_root: Option<PathBuf>,
}

/// What is given out by DHCP, or DHCPv6 (libvirt `<dhcp>`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dhcp {
    /// To whoever asks.
    pub ranges: Vec<DhcpRange>,
    /// To those who are known.
    pub hosts: Vec<DhcpHost>,
    /// What they boot from; IPv4 only.
    pub bootp: Option<Bootp>,
}

/// Addresses for whoever asks (libvirt `<range>`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DhcpRange {
    /// The lowest.
    pub first: IpAddr,
    /// The highest.
    pub last: IpAddr,
    /// For how long; an hour where it is not said.
    pub lease: Option<LeaseTime>,
}

/// How long an address is lent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum LeaseTime {
    /// For good.
    Infinite,
    /// So many seconds, 120 at least.
    Seconds(u32),
    /// So many minutes, 2 at least.
    Minutes(u32),
    /// So many hours, 1 at least.
    Hours(u32),
}

/// One that is known (libvirt `<host>` of `<dhcp>`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DhcpHost {
    /// By its Ethernet address; IPv4 only.
    pub mac: Option<MacAddress>,
    /// By what it calls itself: colon-separated bytes or text. IPv6 only.
    pub id: Option<String>,
    /// The name that it is given.
    pub name: Option<String>,
    /// The address that it is given; one of the range where there is none.
    pub address: Option<IpAddr>,
    /// For how long; as the range says where it is not said.
    pub lease: Option<LeaseTime>,
}

/// What a guest without a system boots from (libvirt `<bootp>`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bootp {
    /// The file.
    pub file: String,
    /// Who serves it, an address or a name; the network's own server where it is not said.
    pub server: Option<String>,
}

/// What the host reaches by way of a guest (libvirt `<route>`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkRoute {
    /// All that begin so. The bits beyond are 0.
    pub destination: IpAddr,
    /// How many bits: 0 to 32, or to 128.
    pub prefix: u8,
    /// The guest; on the network, of the same family.
    pub gateway: IpAddr,
    /// The lower the better; not 0. The kernel's own where it is not said.
    pub metric: Option<u32>,
}

/// The lowest address of those that begin as `address` does.
pub(super) fn first_of(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let rest = u32::MAX.checked_shr(prefix.into()).unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from_bits(address.to_bits() & !rest))
        }
        IpAddr::V6(address) => {
            let rest = u128::MAX.checked_shr(prefix.into()).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !rest))
        }
    }
}

/// The highest of them.
pub(super) fn last_of(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let rest = u32::MAX.checked_shr(prefix.into()).unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from_bits(address.to_bits() | rest))
        }
        IpAddr::V6(address) => {
            let rest = u128::MAX.checked_shr(prefix.into()).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() | rest))
        }
    }
}

impl NetworkAddress {
    /// The lowest address of the network that this is on: for IPv4 the network's own.
    #[must_use]
    pub fn first(&self) -> IpAddr {
        first_of(self.address, self.prefix)
    }

    /// The highest: for IPv4 everybody's.
    #[must_use]
    pub fn last(&self) -> IpAddr {
        last_of(self.address, self.prefix)
    }

    /// Whether `address` is on it.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.address.is_ipv4() == address.is_ipv4()
            && (self.first()..=self.last()).contains(&address)
    }
}
