//! Chains: where the rules of a filter are met.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::NwfilterError;
use super::error::short;

/// The most bytes of a chain's name.
const MAX_BYTES: usize = 12;

/// The chain of a filter: `root`, or one that is entered from there by the frames of a layer, which its name begins
/// with: `ipv4`, `ipv4-ip`, ...
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FilterChain(String);

/// Which frames enter a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FilterLayer {
    /// All, and it is not entered from another.
    Root,
    /// All.
    Mac,
    /// Those of spanning trees, by the address that they go to.
    Stp,
    /// Tagged ones.
    Vlan,
    /// ARP.
    Arp,
    /// Reverse ARP.
    Rarp,
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}

const LAYERS: [(&str, FilterLayer); 8] = [
    ("root", FilterLayer::Root),
    ("mac", FilterLayer::Mac),
    ("stp", FilterLayer::Stp),
    ("vlan", FilterLayer::Vlan),
    ("arp", FilterLayer::Arp),
    ("rarp", FilterLayer::Rarp),
    ("ipv4", FilterLayer::Ipv4),
    ("ipv6", FilterLayer::Ipv6),
];

impl FilterLayer {
    /// The priority of a chain of it whose filter says none, as in libvirt.
    #[must_use]
    pub const fn priority(self) -> i16 {
        match self {
            Self::Root => 0,
            Self::Stp => -810,
            Self::Mac => -800,
            Self::Vlan => -750,
            Self::Ipv4 => -700,
            Self::Ipv6 => -600,
            Self::Arp => -500,
            Self::Rarp => -400,
        }
    }
}

fn layer(name: &str) -> Option<FilterLayer> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.:-".contains(&byte);
    if name.len() > MAX_BYTES || !name.bytes().all(plain) {
        return None;
    }
    if name == "root" {
        return Some(FilterLayer::Root);
    }
    let mut layers = LAYERS.iter().skip(1);
    let (_, layer) = layers.find(|(prefix, _)| name.starts_with(prefix))?;
    Some(*layer)
}

impl FilterChain {
    /// The chain that every frame meets.
    #[must_use]
    pub fn root() -> Self {
        Self("root".to_owned())
    }

    /// Its name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Which frames enter it.
    #[must_use]
    pub fn layer(&self) -> FilterLayer {
        // None is made without.
        layer(&self.0).unwrap_or(FilterLayer::Mac)
    }
}

impl TryFrom<String> for FilterChain {
    type Error = NwfilterError;

    fn try_from(name: String) -> Result<Self, NwfilterError> {
        match layer(&name) {
            Some(_) => Ok(Self(name)),
            None => Err(NwfilterError::Chain(short(&name))),
        }
    }
}

impl FromStr for FilterChain {
    type Err = NwfilterError;

    fn from_str(name: &str) -> Result<Self, NwfilterError> {
        Self::try_from(name.to_owned())
    }
}

impl From<FilterChain> for String {
    fn from(chain: FilterChain) -> Self {
        chain.0
    }
}

impl fmt::Display for FilterChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
