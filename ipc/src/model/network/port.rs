//! Kinds of ports (libvirt `<portgroup>`) and their tags (libvirt `<vlan>`).

use serde::{Deserialize, Serialize};

use crate::spec::Rate;

/// A kind of ports: what is said here stands instead of what the network says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortGroup {
    /// Its name, within its network.
    pub name: String,
    /// It is that of interfaces that name none; one at most is.
    pub default: bool,
    /// To the guest.
    pub inbound: Option<Rate>,
    /// From the guest.
    pub outbound: Option<Rate>,
    /// Tags of its frames.
    pub vlan: Option<Vlan>,
    /// It may take other Ethernet addresses than its own.
    pub trust_guest: Option<bool>,
    /// It reaches no other isolated port.
    pub isolated: Option<bool>,
}

/// Tags of the frames of a port (IEEE 802.1Q).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vlan {
    /// Frames go to the guest with their tags, of which there may be several.
    pub trunk: bool,
    /// 1 at least; each once.
    pub tags: Vec<VlanTag>,
}

/// One tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct VlanTag {
    /// 0 to 4095.
    pub id: u16,
    /// Frames without a tag are of it, of one at most; `Some(true)` where they get one on their way to the guest
    /// (libvirt `nativeMode`: `tagged`, `untagged`).
    pub native: Option<bool>,
}
