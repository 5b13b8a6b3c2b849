//! Devices of few words: entropy, the balloon, memory, and those whose host ends are UNIX sockets.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::DeviceError;
use crate::model::MemorySize;
use crate::spec::{
    MAX_CHANNEL_NAME_BYTES, MAX_GUEST_CID, MIN_GUEST_CID, PciSlot, Rate, WatchdogAction,
};

/// An entropy device (libvirt `<rng>`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rng {
    /// Bytes that the guest gets, at most.
    pub rate: Option<Rate>,
    /// Where it is on the bus.
    pub address: Option<PciSlot>,
}

/// A balloon (libvirt `<memballoon>`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Balloon {
    /// The guest names free pages, which go back to the host.
    pub free_page_reporting: bool,
    /// The guest takes pages back by itself before it kills for want of memory.
    pub deflate_on_oom: bool,
    /// Where it is on the bus.
    pub address: Option<PciSlot>,
}

/// Memory that a domain can be given while it runs, beyond what it starts with (libvirt `<maxMemory>`, and
/// `<memory model='virtio-mem'>`). The device for it comes and goes with a start of the domain only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluggableMemory {
    /// The most that the domain can have, what it starts with and this together.
    pub max: MemorySize,
    /// Where the device is on the bus.
    pub address: Option<PciSlot>,
}

impl PluggableMemory {
    /// That of a domain that starts with `memory`, where its maximum is said and is another. One that is
    /// less is refused as such.
    #[must_use]
    pub fn up_to(
        max: Option<MemorySize>,
        memory: MemorySize,
        address: Option<PciSlot>,
    ) -> Option<Self> {
        let max = max.filter(|max| *max != memory)?;
        Some(Self { max, address })
    }
}

/// A watchdog (libvirt `<watchdog model='i6300esb'>`). It comes and goes with a start of the domain only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watchdog {
    /// What is done when it expires.
    pub action: WatchdogAction,
    /// Where it is on the bus.
    pub address: Option<PciSlot>,
}

impl Watchdog {
    /// The action of that name, as people write it.
    ///
    /// # Errors
    /// [`DeviceError::WatchdogDump`] of one that libvirt has and we do not; [`DeviceError::WatchdogAction`].
    pub fn action(word: &str) -> Result<WatchdogAction, DeviceError> {
        match word {
            "dump" => Err(DeviceError::WatchdogDump),
            word => Ok(word.parse()?),
        }
    }
}

/// A socket device (libvirt `<vsock>`), whose host end is a UNIX socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vsock {
    /// The guest's context id, [`MIN_GUEST_CID`] to [`MAX_GUEST_CID`]; [`MIN_GUEST_CID`] where there is
    /// none, since each guest's host end is its own.
    pub cid: Option<u32>,
    /// Where programs of the host connect to the guest's ports. At this path with `_P` behind it a program of
    /// the host listens for what the guest connects to the host's port P, if it is to.
    pub path: PathBuf,
    /// Where it is on the bus.
    pub address: Option<PciSlot>,
}

impl Vsock {
    pub(super) fn validate(&self) -> Result<(), DeviceError> {
        match self.cid {
            Some(cid) if !(MIN_GUEST_CID..=MAX_GUEST_CID).contains(&cid) => {
                Err(DeviceError::Cid(cid))
            }
            _ => Ok(()),
        }
    }
}

/// A channel between a program in the guest and one of the host (libvirt `<channel>`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Channel {
    /// The name under which the guest finds it, as `org.qemu.guest_agent.0`: 1 to
    /// [`MAX_CHANNEL_NAME_BYTES`] bytes of printable ASCII without a slash.
    pub name: String,
    /// The host's end.
    pub path: PathBuf,
    /// Its number on the serial controller, 1 to 30; the lowest that is free where there is none.
    pub port: Option<u8>,
}

/// Whether a channel may have that name.
pub(super) fn is_channel_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_graphic() && byte != b'/';
    (1..=MAX_CHANNEL_NAME_BYTES).contains(&name.len()) && name.bytes().all(plain)
}

impl Channel {
    pub(super) fn validate(&self) -> Result<(), DeviceError> {
        if is_channel_name(&self.name) {
            return Ok(());
        }
        Err(DeviceError::ChannelName(
            self.name.chars().take(64).collect(),
        ))
    }
}

/// A console on a virtio port (libvirt `<console>` with `<target type='virtio'>`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortConsole {
    /// The host's end.
    pub path: PathBuf,
    /// Its number on the serial controller, 0 to 30; the lowest that is free where there is none.
    pub port: Option<u8>,
}
