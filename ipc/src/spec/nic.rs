//! A network interface: the queues of a tap, and what the guest sees of them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::words::words;
use super::{PciSlot, Rate};
use crate::fd::FdSlot;

/// The most pairs of queues of a network interface.
pub const MAX_NIC_QUEUES: u16 = 8;
/// The least MTU that a guest may be told: what every IPv4 network carries (RFC 791).
pub const MIN_MTU: u16 = 68;

words! {
    /// What moves a network interface's frames between its guest and its tap (libvirt `<driver name='...'>`,
    /// whose `qemu` is read as `user`).
    NicDriver, "driver of a network interface" {
        /// The domain's worker, which checks what its guest says of each.
        User = "user" or "qemu",
        /// The host's kernel, by vhost-net; the worker while the link is down or a rate is set. Not with a source
        /// filter, behind which the kernel writes checksums where the guest says.
        Vhost = "vhost",
    }
}

/// A network interface (virtio 1.3 §5.1).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NicSpec {
    /// Its place on the bus.
    pub slot: PciSlot,
    /// The tap's name on the host, for messages.
    pub name: String,
    /// Its address.
    pub mac: MacAddress,
    /// The tap's queues, 1 to [`MAX_NIC_QUEUES`], non-blocking, each frame behind a virtio header of 12
    /// bytes in little endian.
    pub taps: Vec<FdSlot>,
    /// What the guest is told of the network's MTU, at least [`MIN_MTU`]; 1500 is what it takes where it
    /// is told nothing.
    pub mtu: Option<u16>,
    /// Whether the link is up at the start.
    pub link_up: bool,
    /// Bytes to the guest, at most.
    pub inbound: Option<Rate>,
    /// Bytes from the guest, at most.
    pub outbound: Option<Rate>,
    /// Whether the guest may send from another address than `mac`, and set another.
    pub may_change_mac: bool,
    /// `/dev/vhost-net` for each of `taps`, of no owner, by which the kernel serves it; none where the worker
    /// serves them.
    pub vhost: Vec<FdSlot>,
}

/// A network interface whose queues a switch serves, another process of the host's, by the vhost-user
/// protocol.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwitchedNicSpec {
    /// Its place on the bus.
    pub slot: PciSlot,
    /// The path of the switch's socket, for messages.
    pub name: String,
    /// Its address.
    pub mac: MacAddress,
    /// A stream socket that is connected to the switch.
    pub socket: FdSlot,
    /// Its pairs of queues, 1 to [`MAX_NIC_QUEUES`].
    pub queues: u16,
    /// What the guest is told of the network's MTU, at least [`MIN_MTU`].
    pub mtu: Option<u16>,
}

/// A network interface whose frames go over a stream socket to a process that speaks for its guest (passt(1)), each
/// behind its length: four bytes in big endian.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserNicSpec {
    /// Its place on the bus.
    pub slot: PciSlot,
    /// Its address.
    pub mac: MacAddress,
    /// A stream socket that is connected to the process.
    pub socket: FdSlot,
    /// The reading end of a pipe with what the process says to people. It lives as long as somebody holds this.
    pub words: FdSlot,
    /// What the guest is told of the network's MTU, at least [`MIN_MTU`].
    pub mtu: Option<u16>,
    /// Whether the link is up at the start.
    pub link_up: bool,
    /// Bytes to the guest, at most.
    pub inbound: Option<Rate>,
    /// Bytes from the guest, at most.
    pub outbound: Option<Rate>,
}

/// An Ethernet address of one station.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MacAddress([u8; 6]);

/// What no station has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidMac {
    /// Not six bytes.
    #[error("'{0}' is not an Ethernet address: write six bytes as in 52:54:00:12:34:56")]
    Form(String),
    /// For groups, or for nobody.
    #[error(
        "{0} is not the Ethernet address of one station: its first byte must be even, and not all 0"
    )]
    Group(MacText),
}

/// Six bytes as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MacText([u8; 6]);

impl fmt::Display for MacText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl MacAddress {
    /// The bytes in the order they are sent.
    #[must_use]
    pub const fn octets(self) -> [u8; 6] {
        self.0
    }
}

impl TryFrom<[u8; 6]> for MacAddress {
    type Error = InvalidMac;

    fn try_from(octets: [u8; 6]) -> Result<Self, InvalidMac> {
        if octets == [0; 6] || octets[0] & 1 != 0 {
            return Err(InvalidMac::Group(MacText(octets)));
        }
        Ok(Self(octets))
    }
}

impl FromStr for MacAddress {
    type Err = InvalidMac;

    fn from_str(text: &str) -> Result<Self, InvalidMac> {
        let refuse = || InvalidMac::Form(text.chars().take(64).collect());
        let mut octets = [0; 6];
        let mut parts = text.split(':');
        for octet in &mut octets {
            let part = parts.next().ok_or_else(refuse)?;
            if part.len() != 2 || !part.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                return Err(refuse());
            }
            *octet = u8::from_str_radix(part, 16).map_err(|_| refuse())?;
        }
        if parts.next().is_some() {
            return Err(refuse());
        }
        Self::try_from(octets)
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        MacText(self.0).fmt(f)
    }
}

/// Text where people read it, six bytes on the wire.
impl Serialize for MacAddress {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            self.0.serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for MacAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let address = if deserializer.is_human_readable() {
            String::deserialize(deserializer)?.parse()
        } else {
            <[u8; 6]>::deserialize(deserializer)?.try_into()
        };
        address.map_err(serde::de::Error::custom)
    }
}
