//! Addresses of IPv4 and IPv6: one, or all with the same beginning (RFC 4632).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::DeviceError;

/// One address, or all that begin with the same bits: `192.0.2.5`, `2001:db8::/64`. In text, and on the
/// wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct IpRange {
    first: IpAddr,
    /// Bits that all have in common: 1 to 32, or to 128.
    prefix: u8,
}

/// Bits of an address.
const fn bits(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

impl IpRange {
    /// The lowest of them.
    #[must_use]
    pub const fn first(&self) -> IpAddr {
        self.first
    }

    /// The highest of them.
    #[must_use]
    pub fn last(&self) -> IpAddr {
        match self.first {
            IpAddr::V4(first) => {
                let rest = u32::MAX.checked_shr(self.prefix.into()).unwrap_or(0);
                IpAddr::V4(Ipv4Addr::from_bits(first.to_bits() | rest))
            }
            IpAddr::V6(first) => {
                let rest = u128::MAX.checked_shr(self.prefix.into()).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from_bits(first.to_bits() | rest))
            }
        }
    }

    /// Whether any of them is no station's: unspecified, for groups, or for everybody.
    fn has_others(&self) -> bool {
        let is_other = |address: IpAddr| {
            let broadcast = matches!(address, IpAddr::V4(address) if address.is_broadcast());
            address.is_unspecified() || address.is_multicast() || broadcast
        };
        is_other(self.first) || is_other(self.last())
    }
}

impl FromStr for IpRange {
    type Err = DeviceError;

    fn from_str(text: &str) -> Result<Self, DeviceError> {
        let refuse = || DeviceError::IpForm(text.chars().take(64).collect());
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let first: IpAddr = address.parse().map_err(|_| refuse())?;
        let prefix = match prefix {
            Some(prefix) if prefix.bytes().all(|byte| byte.is_ascii_digit()) => {
                prefix.parse().map_err(|_| refuse())?
            }
            Some(_) => return Err(refuse()),
            None => bits(first),
        };
        if !(1..=bits(first)).contains(&prefix) {
            return Err(refuse());
        }
        let range = Self { first, prefix };
        let is_lowest = match (first, range.last()) {
            (IpAddr::V4(first), IpAddr::V4(last)) => {
                let rest = u32::MAX.checked_shr(prefix.into()).unwrap_or(0);
                first.to_bits() == last.to_bits() & !rest
            }
            (IpAddr::V6(first), IpAddr::V6(last)) => {
                let rest = u128::MAX.checked_shr(prefix.into()).unwrap_or(0);
                first.to_bits() == last.to_bits() & !rest
            }
            _ => false,
        };
        if !is_lowest || range.has_others() {
            return Err(refuse());
        }
        Ok(range)
    }
}

impl fmt::Display for IpRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.first.fmt(f)?;
        if self.prefix < bits(self.first) {
            write!(f, "/{}", self.prefix)?;
        }
        Ok(())
    }
}

impl TryFrom<String> for IpRange {
    type Error = DeviceError;

    fn try_from(text: String) -> Result<Self, DeviceError> {
        text.parse()
    }
}

impl From<IpRange> for String {
    fn from(range: IpRange) -> Self {
        range.to_string()
    }
}
