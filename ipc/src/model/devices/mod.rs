//! The devices of a domain: disks, network interfaces and the smaller ones, in the words of libvirt's
//! users.
//!
//! A definition may leave addresses out; [`Devices::complete`] fills them in when it is taken, and they
//! are kept with it, so that a guest finds each device where it was. What is taken for a device (a file,
//! a bridge, a socket's path) is named here, and opened by nobody but the supervisor.

mod assign;
mod disk;
mod error;
mod ip_range;
mod names;
mod nic;
mod open_vswitch;
mod plug;
mod ports;
mod share;
mod small;

use serde::{Deserialize, Serialize};

pub use self::disk::{BlockSize, Disk, Layer, Medium};
pub use self::error::DeviceError;
pub use self::ip_range::IpRange;
pub use self::names::{DiskTarget, InterfaceName, MAX_INTERFACE_NAME_BYTES};
pub use self::nic::{MAX_NIC_ADDRESSES, NetworkPort, Nic, NicSource, PortLink};
pub use self::open_vswitch::{MAX_PORT_TAGS, MAX_PROFILE_BYTES, OpenVswitchPort, VirtualPort};
pub use self::plug::{Device, DeviceName};
pub use self::ports::DevicePlace;
pub use self::share::Share;
pub use self::small::{Balloon, Channel, PluggableMemory, PortConsole, Rng, Vsock, Watchdog};
use super::DomainUuid;
use crate::spec::{MAX_DEVICES, PciSlot, Rate};

/// What a decoder counts for all of a device but its texts and lists, at most.
const DEVICE_BYTES: usize = 512;
/// What it counts for an element of a list but its texts, at most.
const ELEMENT_BYTES: usize = 64;

/// Every device of a domain.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Devices {
    /// Its disks.
    pub disks: Vec<Disk>,
    /// Its network interfaces.
    pub nics: Vec<Nic>,
    /// Its entropy device.
    pub rng: Option<Rng>,
    /// Its balloon.
    pub balloon: Option<Balloon>,
    /// Its socket device.
    pub vsock: Option<Vsock>,
    /// Channels, on one serial controller with the consoles.
    pub channels: Vec<Channel>,
    /// Consoles beside the serial one that every domain has: `hvc0` and on.
    pub consoles: Vec<PortConsole>,
    /// Where the serial controller of channels and consoles is on the bus.
    pub ports_address: Option<PciSlot>,
    /// Directories of the host.
    pub shares: Vec<Share>,
    /// Its watchdog.
    pub watchdog: Option<Watchdog>,
    /// The memory it can be given while it runs.
    pub memory: Option<PluggableMemory>,
}

impl Devices {
    /// Fills in what a definition may leave out: an address on the bus for each device that has none, the
    /// lowest that is free, disks first; a number for each port; and an Ethernet address for each interface,
    /// drawn from the domain's UUID, so that the same definition has the same ones. What is there stays.
    ///
    /// # Errors
    /// [`DeviceError::TooMany`], [`DeviceError::TooManyPorts`].
    pub fn complete(&mut self, domain: DomainUuid) -> Result<(), DeviceError> {
        assign::complete(self, domain)
    }

    /// Whether there is no device.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether there is a serial controller.
    #[must_use]
    pub fn has_ports(&self) -> bool {
        !self.channels.is_empty() || !self.consoles.is_empty()
    }

    /// How many places on the bus they take.
    #[must_use]
    pub fn count(&self) -> usize {
        let single = [
            self.rng.is_some(),
            self.balloon.is_some(),
            self.vsock.is_some(),
            self.has_ports(),
            self.watchdog.is_some(),
            self.memory.is_some(),
        ];
        let single = single.into_iter().filter(|there| *there).count();
        self.disks.len() + self.nics.len() + self.shares.len() + single
    }

    /// Checks ranges, and that nothing is used twice that can be used once.
    ///
    /// # Errors
    /// [`DeviceError`] names the device.
    pub fn validate(&self) -> Result<(), DeviceError> {
        if self.count() > MAX_DEVICES {
            return Err(DeviceError::TooMany(self.count()));
        }
        self.check_ports()?;
        self.disks.iter().try_for_each(Disk::validate)?;
        for (index, nic) in self.nics.iter().enumerate() {
            nic.validate(index)?;
        }
        if let Some(rate) = self.rng.and_then(|rng| rng.rate) {
            check_rate(rate, "the entropy device", "bytes")?;
        }
        if let Some(vsock) = &self.vsock {
            vsock.validate()?;
        }
        self.channels.iter().try_for_each(Channel::validate)?;
        self.shares.iter().try_for_each(Share::validate)?;
        self.check_uses()
    }

    /// What beyond [`validate`](Self::validate) is asked of devices that are new or to be started, and not of
    /// those in a record: it may be of an earlier build, whose domain runs.
    ///
    /// # Errors
    /// [`DeviceError`] names the device.
    pub fn accept(&self) -> Result<(), DeviceError> {
        let mut nics = self.nics.iter().enumerate();
        nics.try_for_each(|(index, nic)| nic.accept(index))
    }

    /// That nothing is used twice.
    fn check_uses(&self) -> Result<(), DeviceError> {
        let mut slots: Vec<(PciSlot, String)> = Vec::new();
        for (slot, what) in assign::placed(self) {
            if let Some((_, other)) = slots.iter().find(|(taken, _)| *taken == slot) {
                let other = other.clone();
                return Err(DeviceError::Address { slot, what, other });
            }
            slots.push((slot, what));
        }
        twice(self.disks.iter().map(|disk| &disk.target))
            .map_or(Ok(()), |target| Err(DeviceError::Target(target.clone())))?;
        self.check_images()?;
        twice(self.nics.iter().filter_map(|nic| nic.mac))
            .map_or(Ok(()), |mac| Err(DeviceError::Mac(mac)))?;
        twice(self.nics.iter().filter_map(Nic::host_name))
            .map_or(Ok(()), |name| Err(DeviceError::Interface(name.clone())))?;
        twice(self.channels.iter().map(|channel| &channel.name))
            .map_or(Ok(()), |name| Err(DeviceError::ChannelTwice(name.clone())))?;
        twice(self.shares.iter().map(|share| &share.tag))
            .map_or(Ok(()), |tag| Err(DeviceError::TagTwice(tag.clone())))?;
        twice(self.sockets().map(|(_, path)| path))
            .map_or(Ok(()), |path| Err(DeviceError::Socket(path.to_owned())))
    }

    /// A file that is written by one disk is no other disk's.
    fn check_images(&self) -> Result<(), DeviceError> {
        for (index, disk) in self.disks.iter().enumerate() {
            for other in self.disks.iter().skip(index + 1) {
                let written = |by: &Disk, of: &Disk| {
                    let image = by.image.as_ref().filter(|_| !by.read_only);
                    image
                        .filter(|image| of.layers().any(|layer| layer.path == image.path))
                        .map(|image| image.path.clone())
                };
                if let Some(path) = written(disk, other).or_else(|| written(other, disk)) {
                    let (first, second) = (disk.target.clone(), other.target.clone());
                    return Err(DeviceError::Image {
                        path,
                        first,
                        second,
                    });
                }
            }
        }
        Ok(())
    }

    /// The paths of sockets that devices listen on, each with what it is for.
    pub fn sockets(&self) -> impl Iterator<Item = (&'static str, &std::path::Path)> {
        let vsock = self.vsock.iter().map(|vsock| ("vsock", &vsock.path));
        let channels = self.channels.iter().map(|port| ("channel", &port.path));
        let consoles = self.consoles.iter().map(|port| ("console", &port.path));
        let paths = vsock.chain(channels).chain(consoles);
        paths.map(|(what, path)| (what, path.as_path()))
    }

    /// At least what a decoder counts for them.
    pub(super) fn bytes(&self) -> usize {
        let text = |path: &std::path::Path| path.as_os_str().len();
        let layers = self.disks.iter().flat_map(Disk::layers);
        let layers = layers.map(|layer| text(&layer.path) + ELEMENT_BYTES);
        let disks = self.disks.iter().map(|disk| {
            DEVICE_BYTES + disk.target.as_str().len() + disk.serial.as_ref().map_or(0, String::len)
        });
        // A name of an interface is short, and so are addresses.
        let nics = self.nics.iter();
        let nics = nics.map(|nic| {
            let switch = match &nic.source {
                NicSource::Switch(path) => text(path),
                NicSource::Network {
                    network,
                    port_group,
                    ..
                } => {
                    let group = port_group.as_ref().map_or(0, String::len);
                    DEVICE_BYTES + network.as_str().len() + group
                }
                NicSource::OpenVswitch(port) => {
                    let tags = port.vlan.as_ref().map_or(0, |vlan| vlan.tags.len());
                    2 * DEVICE_BYTES + ELEMENT_BYTES * tags
                }
                _ => 0,
            };
            let filter = nic.filter.as_ref().map_or(0, |filter| filter.bytes());
            DEVICE_BYTES + switch + filter + 2 * ELEMENT_BYTES * nic.addresses.len()
        });
        let names = self.channels.iter().map(|channel| channel.name.len());
        let sockets = self.sockets().map(|(_, path)| text(path) + ELEMENT_BYTES);
        let shares = self.shares.iter();
        let shares = shares.map(|share| DEVICE_BYTES + share.tag.len() + text(&share.source));
        let parts = layers.chain(disks).chain(nics).chain(names).chain(sockets);
        let parts = parts.chain(shares);
        // And those of which there is one.
        DEVICE_BYTES + parts.sum::<usize>()
    }
}

/// The first that comes a second time.
fn twice<T: PartialEq + Clone>(items: impl Iterator<Item = T>) -> Option<T> {
    let mut seen: Vec<T> = Vec::new();
    for item in items {
        if seen.contains(&item) {
            return Some(item);
        }
        seen.push(item);
    }
    None
}

/// Checks a rate of `what`.
pub(super) fn check_rate(rate: Rate, what: &str, unit: &'static str) -> Result<(), DeviceError> {
    use crate::spec::MAX_BURST_SECONDS;
    let fits = rate.per_second > 0
        && rate.burst.is_none_or(|burst| {
            burst.per_second >= rate.per_second && (1..=MAX_BURST_SECONDS).contains(&burst.seconds)
        });
    if fits {
        return Ok(());
    }
    let what = what.to_owned();
    Err(DeviceError::Rate { what, unit })
}
