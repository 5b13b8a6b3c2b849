//! The devices of a machine: what each is, where it is on the bus, and what a guest may use of it.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{DiskSpec, NicSpec, SwitchedNicSpec, UserNicSpec};
use crate::fd::FdSlot;

/// The most devices a machine has: one for each [`PciSlot`].
pub const MAX_DEVICES: usize = PciSlot::MAX as usize;
/// The most ports of a serial controller, consoles and channels together; their numbers are below it.
pub const MAX_PORTS: usize = 31;
/// Numbers of ports that every serial controller has, so that some can come later.
pub const LEAST_PORTS_ROOM: u16 = 8;
/// The most bytes of a channel's name.
pub const MAX_CHANNEL_NAME_BYTES: usize = 63;
/// The least context id a guest may have: those below mean a hypervisor or a host (vsock(7)).
pub const MIN_GUEST_CID: u32 = 3;
/// The greatest context id a guest may have: the one above means any.
pub const MAX_GUEST_CID: u32 = u32::MAX - 1;
/// The longest that more than the lasting rate may be used, in seconds.
pub const MAX_BURST_SECONDS: u32 = 24 * 60 * 60;

/// The most bytes of the tag by which a guest mounts a shared directory (virtio 1.3 §5.11.4).
pub const MAX_TAG_BYTES: usize = 36;

/// A device's number on the machine's only PCI bus: [`PciSlot::MIN`] to [`PciSlot::MAX`]. Slot 0 is the
/// host bridge's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct PciSlot(u8);

/// A number that is no slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0} is not an address of a device: it is {min} to {max}",
    min = PciSlot::MIN,
    max = PciSlot::MAX
)]
pub struct NoSlot(u8);

impl PciSlot {
    /// The first slot.
    pub const MIN: u8 = 1;
    /// The last slot.
    pub const MAX: u8 = 31;

    /// The number.
    #[must_use]
    pub const fn number(self) -> u8 {
        self.0
    }

    /// Every slot, rising.
    pub fn all() -> impl Iterator<Item = Self> {
        (Self::MIN..=Self::MAX).map(Self)
    }
}

impl TryFrom<u8> for PciSlot {
    type Error = NoSlot;

    fn try_from(number: u8) -> Result<Self, NoSlot> {
        if (Self::MIN..=Self::MAX).contains(&number) {
            Ok(Self(number))
        } else {
            Err(NoSlot(number))
        }
    }
}

impl From<PciSlot> for u8 {
    fn from(slot: PciSlot) -> Self {
        slot.0
    }
}

impl fmt::Display for PciSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How much of something may be used in a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rate {
    /// Units a second in the long run; not 0.
    pub per_second: u64,
    /// More than that for a while.
    pub burst: Option<Burst>,
}

/// What may be used of a [`Rate`] after a rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Burst {
    /// Units a second, at least those of the rate.
    pub per_second: u64,
    /// For so many seconds: 1 to [`MAX_BURST_SECONDS`].
    pub seconds: u32,
}

/// One device. What a machine is launched with and what is plugged in later are the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeviceSpec {
    /// A virtio disk.
    Disk(DiskSpec),
    /// A virtio network interface.
    Nic(NicSpec),
    /// A virtio entropy device.
    Rng(RngSpec),
    /// A virtio balloon.
    Balloon(BalloonSpec),
    /// A virtio socket device.
    Vsock(VsockSpec),
    /// A virtio serial controller with its ports.
    Ports(PortsSpec),
    /// A virtio file system device.
    Share(ShareSpec),
    /// A virtio network interface that a switch serves.
    SwitchedNic(SwitchedNicSpec),
    /// A virtio memory device.
    Memory(MemoryDeviceSpec),
    /// A virtio network interface for which a process speaks.
    UserNic(UserNicSpec),
}

impl DeviceSpec {
    /// Where it is on the bus; no two of a machine's have the same.
    #[must_use]
    pub const fn slot(&self) -> PciSlot {
        match self {
            Self::Disk(disk) => disk.slot,
            Self::Nic(nic) => nic.slot,
            Self::Rng(rng) => rng.slot,
            Self::Balloon(balloon) => balloon.slot,
            Self::Vsock(vsock) => vsock.slot,
            Self::Ports(ports) => ports.slot,
            Self::Share(share) => share.slot,
            Self::SwitchedNic(nic) => nic.slot,
            Self::Memory(memory) => memory.slot,
            Self::UserNic(nic) => nic.slot,
        }
    }

    /// Every slot of the device, in a fixed order.
    pub fn slots_mut(&mut self) -> Vec<&mut FdSlot> {
        match self {
            Self::Disk(disk) => disk.layers.iter_mut().map(|layer| &mut layer.fd).collect(),
            Self::Nic(nic) => nic.taps.iter_mut().chain(&mut nic.vhost).collect(),
            Self::Rng(_) | Self::Balloon(_) | Self::Memory(_) => Vec::new(),
            Self::Vsock(vsock) => std::iter::once(&mut vsock.listener)
                .chain(&mut vsock.acceptor)
                .collect(),
            Self::Ports(ports) => {
                let ports = ports.ports.iter_mut();
                ports.map(|port| &mut port.listener).collect()
            }
            Self::Share(share) => vec![&mut share.socket, &mut share.words],
            Self::SwitchedNic(nic) => vec![&mut nic.socket],
            Self::UserNic(nic) => vec![&mut nic.socket, &mut nic.words],
        }
    }

    /// What it is, for messages: "disk", "network interface".
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Disk(_) => "disk",
            Self::Nic(_) => "network interface",
            Self::Rng(_) => "entropy device",
            Self::Balloon(_) => "balloon",
            Self::Vsock(_) => "socket device",
            Self::Ports(_) => "serial controller",
            Self::Share(_) => "shared folder",
            Self::SwitchedNic(_) | Self::UserNic(_) => "network interface",
            Self::Memory(_) => "memory device",
        }
    }
}

/// An entropy device (virtio 1.3 §5.4). Its bytes come from the kernel's own generator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RngSpec {
    /// Its place on the bus.
    pub slot: PciSlot,
    /// Bytes that the guest gets, at most.
    pub rate: Option<Rate>,
}

/// A balloon (virtio 1.3 §5.5). It is empty at the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BalloonSpec {
    /// Its place on the bus.
    pub slot: PciSlot,
    /// The guest may name free pages, which go back to the host.
    pub free_page_reporting: bool,
    /// The guest takes pages back by itself before it kills for want of memory.
    pub deflate_on_oom: bool,
}

/// A memory device (virtio 1.3 §5.15), by which the guest takes up and gives back the memory that can be
/// plugged in ([`super::PluggableSpec`]). Nothing is plugged, nor asked for, at the start; it comes and goes
/// with the machine only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryDeviceSpec {
    /// Its place on the bus.
    pub slot: PciSlot,
}

/// A socket device (virtio 1.3 §5.10), whose host end is a UNIX socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct VsockSpec {
    /// Its place on the bus.
    pub slot: PciSlot,
    /// The guest's context id: [`MIN_GUEST_CID`] to [`MAX_GUEST_CID`].
    pub cid: u32,
    /// A listening stream socket: whoever connects says which of the guest's ports is meant.
    pub listener: FdSlot,
    /// Where connections that the guest opens are asked for. Without it they are refused.
    pub acceptor: Option<FdSlot>,
}

/// A serial controller (virtio 1.3 §5.3) with several ports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortsSpec {
    /// Its place on the bus.
    pub slot: PciSlot,
    /// Its ports, at most [`MAX_PORTS`], by rising number.
    pub ports: Vec<PortSpec>,
    /// Below this are the numbers that ports can have as long as it is there: 1 to [`MAX_PORTS`].
    pub room: u16,
}

/// A port of a serial controller: bytes between the guest and one client of a UNIX socket at a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortSpec {
    /// Its number on the controller. Only a console may be port 0, which a driver without the multiport
    /// feature takes for one.
    pub number: u16,
    /// What the guest takes it for.
    pub kind: PortKind,
    /// A listening stream socket.
    pub listener: FdSlot,
}

/// What a guest takes a port for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum PortKind {
    /// A console (`hvc0`, ...).
    Console,
    /// A channel that a program in the guest opens by name.
    Channel {
        /// Its name, 1 to [`MAX_CHANNEL_NAME_BYTES`] bytes of printable ASCII.
        name: String,
    },
}

/// A file system device (virtio 1.3 §5.11): a directory of the host, served by a process of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShareSpec {
    /// Its place on the bus.
    pub slot: PciSlot,
    /// What a guest mounts it by, 1 to [`MAX_TAG_BYTES`] bytes of printable ASCII.
    pub tag: String,
    /// A stream socket that is connected to that process, which speaks vhost-user.
    pub socket: FdSlot,
    /// The reading end of a pipe with what the process says to people. It lives as long as somebody holds
    /// this.
    pub words: FdSlot,
}
