//! Devices one by one: what users call each, and how a definition gains, loses and changes one.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::ports::{channel_name, console_name};
use super::share::is_tag;
use super::{
    Balloon, Channel, DeviceError, Devices, Disk, DiskTarget, InterfaceName, Medium, Nic,
    NicSource, PortConsole, Rng, Share, Vsock, assign,
};
use crate::device::DeviceChange;
use crate::model::{FilterReference, Vlan};
use crate::spec::{MacAddress, PciSlot};

/// A device that a domain is to have beside those it has. Channels and consoles are ports of one
/// controller, which comes with the first and goes with the last; a watchdog comes and goes with a start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Device {
    /// A disk.
    Disk(Disk),
    /// A network interface.
    Nic(Nic),
    /// An entropy device.
    Rng(Rng),
    /// A balloon.
    Balloon(Balloon),
    /// A socket device.
    Vsock(Vsock),
    /// A directory of the host.
    Share(Share),
    /// A channel.
    Channel(Channel),
    /// A console on a port.
    Console(PortConsole),
}

/// What users call a device of a domain. In text, and on the wire: a disk by its target (`vda`), a
/// network interface by its address or by its name on the host, a share by its tag (`share:TAG`), a channel
/// by its name (`channel:NAME`), a console by its port (`console:0`), one of a kind by that (`rng`,
/// `balloon`, `vsock`, `ports`, `watchdog`, `memory`), and any by its address on the bus (`5`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum DeviceName {
    /// A disk.
    Disk(DiskTarget),
    /// A network interface, by its address.
    Nic(MacAddress),
    /// A network interface, by its name on the host where the definition says it.
    Interface(InterfaceName),
    /// The entropy device.
    Rng,
    /// The balloon.
    Balloon,
    /// The socket device.
    Vsock,
    /// The serial controller of channels and consoles.
    Ports,
    /// Whatever is there on the bus.
    Slot(PciSlot),
    /// A share, by its tag.
    Share(String),
    /// The watchdog.
    Watchdog,
    /// A channel, by its name.
    Channel(String),
    /// A console, by its port.
    Console(u8),
    /// The device of the memory that can be plugged in.
    Memory,
}

impl FromStr for DeviceName {
    type Err = DeviceError;

    fn from_str(text: &str) -> Result<Self, DeviceError> {
        let refuse = || DeviceError::Name(text.chars().take(64).collect());
        match text {
            "rng" => return Ok(Self::Rng),
            "balloon" => return Ok(Self::Balloon),
            "vsock" => return Ok(Self::Vsock),
            "ports" => return Ok(Self::Ports),
            "watchdog" => return Ok(Self::Watchdog),
            "memory" => return Ok(Self::Memory),
            _ => {}
        }
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            let number = text.parse::<u8>().map_err(|_| refuse())?;
            return PciSlot::try_from(number)
                .map(Self::Slot)
                .map_err(|_| refuse());
        }
        if let Ok(target) = text.parse() {
            return Ok(Self::Disk(target));
        }
        if let Some(tag) = text.strip_prefix("share:") {
            let tag = Some(tag).filter(|tag| is_tag(tag)).ok_or_else(refuse)?;
            return Ok(Self::Share(tag.to_owned()));
        }
        if let Some(name) = text.strip_prefix("channel:") {
            return channel_name(name).ok_or_else(refuse);
        }
        if let Some(port) = text.strip_prefix("console:") {
            return console_name(port).ok_or_else(refuse);
        }
        if text.contains(':') {
            return text.parse().map(Self::Nic).map_err(|_| refuse());
        }
        text.parse().map(Self::Interface).map_err(|_| refuse())
    }
}

impl TryFrom<String> for DeviceName {
    type Error = DeviceError;

    fn try_from(text: String) -> Result<Self, DeviceError> {
        text.parse()
    }
}

impl From<DeviceName> for String {
    fn from(name: DeviceName) -> Self {
        name.to_string()
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disk(target) => target.fmt(f),
            Self::Nic(mac) => mac.fmt(f),
            Self::Interface(name) => name.fmt(f),
            Self::Rng => f.write_str("rng"),
            Self::Balloon => f.write_str("balloon"),
            Self::Vsock => f.write_str("vsock"),
            Self::Ports => f.write_str("ports"),
            Self::Slot(slot) => slot.fmt(f),
            Self::Share(tag) => write!(f, "share:{tag}"),
            Self::Watchdog => f.write_str("watchdog"),
            Self::Channel(name) => write!(f, "channel:{name}"),
            Self::Console(port) => write!(f, "console:{port}"),
            Self::Memory => f.write_str("memory"),
        }
    }
}

/// Where a device is in the lists of a definition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Disk(usize),
    Nic(usize),
    Rng,
    Balloon,
    Vsock,
    Ports,
    Share(usize),
    Watchdog,
    Channel(usize),
    Console(usize),
    Memory,
}

impl Devices {
    /// Every device that is on the bus, with what it is called: network interfaces by their addresses. One
    /// that lacks what it is called by, or a place, is left out; a completed definition has none of those.
    #[must_use]
    pub fn named(&self) -> Vec<(PciSlot, DeviceName)> {
        let named = self.places().into_iter();
        named
            .filter_map(|place| Some((self.slot_of(place)?, self.name_of(place)?)))
            .collect()
    }

    /// What the device of that name is called for good, and where it is on the bus.
    #[must_use]
    pub fn find(&self, name: &DeviceName) -> Option<(PciSlot, DeviceName)> {
        let place = self.place(name)?;
        Some((self.slot_of(place)?, self.name_of(place)?))
    }

    /// Takes up one more. What it leaves out is filled in by [`Self::complete`], and what it uses that
    /// another does is found by [`Self::validate`].
    ///
    /// # Errors
    /// [`DeviceError::Second`]: there is one of its kind, and there may be one only.
    pub fn add(&mut self, device: Device) -> Result<(), DeviceError> {
        fn single<T>(
            place: &mut Option<T>,
            device: T,
            what: &'static str,
        ) -> Result<(), DeviceError> {
            match place {
                Some(_) => Err(DeviceError::Second(what)),
                None => {
                    *place = Some(device);
                    Ok(())
                }
            }
        }
        match device {
            Device::Disk(disk) => self.disks.push(disk),
            Device::Nic(nic) => self.nics.push(nic),
            Device::Rng(rng) => single(&mut self.rng, rng, "entropy device")?,
            Device::Balloon(balloon) => single(&mut self.balloon, balloon, "balloon")?,
            Device::Vsock(vsock) => single(&mut self.vsock, vsock, "socket device")?,
            Device::Share(share) => self.shares.push(share),
            Device::Channel(channel) => self.channels.push(channel),
            Device::Console(console) => self.consoles.push(console),
        }
        Ok(())
    }

    /// Gives up the device of that name, the serial controller with all its ports and with the last of them;
    /// false if there is none.
    pub fn remove(&mut self, name: &DeviceName) -> bool {
        let had_ports = self.has_ports();
        match self.place(name) {
            Some(Place::Disk(index)) => drop(self.disks.remove(index)),
            Some(Place::Nic(index)) => drop(self.nics.remove(index)),
            Some(Place::Share(index)) => drop(self.shares.remove(index)),
            Some(Place::Rng) => self.rng = None,
            Some(Place::Balloon) => self.balloon = None,
            Some(Place::Vsock) => self.vsock = None,
            Some(Place::Watchdog) => self.watchdog = None,
            Some(Place::Memory) => self.memory = None,
            Some(Place::Ports) => {
                self.channels.clear();
                self.consoles.clear();
            }
            Some(Place::Channel(index)) => drop(self.channels.remove(index)),
            Some(Place::Console(index)) => drop(self.consoles.remove(index)),
            None => return false,
        }
        if had_ports && !self.has_ports() {
            self.ports_address = None;
        }
        true
    }

    /// Only the device at that place on the bus.
    #[must_use]
    pub fn only(&self, slot: PciSlot) -> Self {
        let mut all = self.clone();
        let here = |address: Option<PciSlot>| address == Some(slot);
        all.disks.retain(|disk| here(disk.address));
        all.nics.retain(|nic| here(nic.address));
        all.shares.retain(|share| here(share.address));
        all.rng = all.rng.filter(|rng| here(rng.address));
        all.balloon = all.balloon.filter(|balloon| here(balloon.address));
        all.vsock = all.vsock.filter(|vsock| here(vsock.address));
        all.watchdog = all.watchdog.filter(|watchdog| here(watchdog.address));
        all.memory = all.memory.filter(|memory| here(memory.address));
        if !here(all.ports_address) {
            all.channels.clear();
            all.consoles.clear();
            all.ports_address = None;
        }
        all
    }

    /// Changes what a definition says of the device of that name, and gives what would change it back.
    /// What is asked of a balloon or a memory device is none of a definition's, nor is the size of a disk.
    ///
    /// # Errors
    /// [`DeviceError::NoDevice`], [`DeviceError::Change`], or a rate that makes no sense.
    pub fn change(
        &mut self,
        name: &DeviceName,
        change: DeviceChange,
    ) -> Result<DeviceChange, DeviceError> {
        let missing = || DeviceError::NoDevice(name.clone());
        let refused = || DeviceError::Change(name.clone());
        match (self.place(name).ok_or_else(missing)?, change) {
            (Place::Nic(index), DeviceChange::Link { up }) => {
                let nic = self.nics.get_mut(index).ok_or_else(missing)?;
                let before = std::mem::replace(&mut nic.link_up, up);
                nic.validate(index)?;
                Ok(DeviceChange::Link { up: before })
            }
            (Place::Nic(index), DeviceChange::NicRates { inbound, outbound }) => {
                let nic = self.nics.get_mut(index).ok_or_else(missing)?;
                let before = DeviceChange::NicRates {
                    inbound: std::mem::replace(&mut nic.inbound, inbound),
                    outbound: std::mem::replace(&mut nic.outbound, outbound),
                };
                nic.validate(index).map(|()| before)
            }
            (Place::Disk(index), DeviceChange::DiskThrottle(throttle)) => {
                let disk = self.disks.get_mut(index).ok_or_else(missing)?;
                let before = std::mem::replace(&mut disk.throttle, throttle);
                disk.validate()?;
                Ok(DeviceChange::DiskThrottle(before))
            }
            (Place::Disk(index), DeviceChange::DiskSize { bytes, .. }) => {
                let disk = self.disks.get(index).ok_or_else(missing)?;
                match disk.image {
                    None => Err(DeviceError::NoMedium(disk.target.clone())),
                    // That a block device has grown can be looked at.
                    Some(_) if disk.read_only && bytes.is_some() => {
                        Err(DeviceError::ReadOnly(disk.target.clone()))
                    }
                    Some(_) => Ok(change),
                }
            }
            (Place::Balloon, DeviceChange::BalloonTarget { .. } | DeviceChange::BalloonPoll)
            | (Place::Memory, DeviceChange::MemoryRequest { .. }) => Ok(change),
            _ => Err(refused()),
        }
    }

    /// Puts a medium into the disk of that name, or takes the one that is there out; gives what was there.
    ///
    /// # Errors
    /// [`DeviceError::NoDevice`], [`DeviceError::Change`], [`DeviceError::NotRemovable`], or a medium that
    /// makes no sense.
    pub fn change_medium(
        &mut self,
        name: &DeviceName,
        medium: Option<Medium>,
    ) -> Result<Option<Medium>, DeviceError> {
        let place = self.place(name);
        let place = place.ok_or_else(|| DeviceError::NoDevice(name.clone()))?;
        let disk = match place {
            Place::Disk(index) => self.disks.get_mut(index),
            _ => None,
        };
        let disk = disk.ok_or_else(|| DeviceError::Change(name.clone()))?;
        if !disk.removable {
            return Err(DeviceError::NotRemovable(disk.target.clone()));
        }
        let before = disk.exchange(medium);
        disk.validate()?;
        Ok(before)
    }

    /// Gives the port of the interface of that name other tags, or none.
    ///
    /// # Errors
    /// [`DeviceError::NoDevice`], [`DeviceError::Change`] of what is not on a bridge of Open vSwitch itself, or tags
    /// that make no sense.
    pub fn change_tags(
        &mut self,
        name: &DeviceName,
        vlan: Option<Vlan>,
    ) -> Result<(), DeviceError> {
        let (index, nic) = self.nic_of(name)?;
        let NicSource::OpenVswitch(port) = &mut nic.source else {
            return Err(DeviceError::Change(name.clone()));
        };
        port.vlan = vlan;
        nic.validate(index)
    }

    /// The interface of that name.
    #[must_use]
    pub fn nic(&self, name: &DeviceName) -> Option<&Nic> {
        match self.place(name)? {
            Place::Nic(index) => self.nics.get(index),
            _ => None,
        }
    }

    /// Gives the interface of that name another network filter, or none.
    ///
    /// # Errors
    /// [`DeviceError::NoDevice`], [`DeviceError::Change`] also of an interface that can have none, or a filter that the
    /// interface cannot have.
    pub fn change_filter(
        &mut self,
        name: &DeviceName,
        filter: Option<Box<FilterReference>>,
    ) -> Result<(), DeviceError> {
        let (index, nic) = self.nic_of(name)?;
        if matches!(
            nic.source,
            NicSource::Tap(_) | NicSource::Switch(_) | NicSource::User
        ) {
            return Err(DeviceError::Change(name.clone()));
        }
        nic.filter = filter;
        nic.validate(index)?;
        // One of before that has what it may not have any more may lose it.
        match nic.filter {
            Some(_) => nic.accept(index),
            None => Ok(()),
        }
    }

    /// The interface of that name, with its place among them.
    fn nic_of(&mut self, name: &DeviceName) -> Result<(usize, &mut Nic), DeviceError> {
        let missing = || DeviceError::NoDevice(name.clone());
        let index = match self.place(name).ok_or_else(missing)? {
            Place::Nic(index) => index,
            _ => return Err(DeviceError::Change(name.clone())),
        };
        let nic = self.nics.get_mut(index).ok_or_else(missing)?;
        Ok((index, nic))
    }

    /// Whether nothing is at that place on the bus.
    #[must_use]
    pub fn is_free(&self, slot: PciSlot) -> bool {
        !assign::placed(self).any(|(taken, _)| taken == slot)
    }

    fn places(&self) -> Vec<Place> {
        let disks = (0..self.disks.len()).map(Place::Disk);
        let nics = (0..self.nics.len()).map(Place::Nic);
        let single = [
            self.rng.is_some().then_some(Place::Rng),
            self.balloon.is_some().then_some(Place::Balloon),
            self.vsock.is_some().then_some(Place::Vsock),
            self.has_ports().then_some(Place::Ports),
            self.watchdog.is_some().then_some(Place::Watchdog),
            self.memory.is_some().then_some(Place::Memory),
        ];
        let shares = (0..self.shares.len()).map(Place::Share);
        disks
            .chain(nics)
            .chain(single.into_iter().flatten())
            .chain(shares)
            .collect()
    }

    fn ports(&self) -> impl Iterator<Item = Place> {
        let channels = (0..self.channels.len()).map(Place::Channel);
        channels.chain((0..self.consoles.len()).map(Place::Console))
    }

    fn slot_of(&self, place: Place) -> Option<PciSlot> {
        match place {
            Place::Disk(index) => self.disks.get(index)?.address,
            Place::Nic(index) => self.nics.get(index)?.address,
            Place::Rng => self.rng?.address,
            Place::Balloon => self.balloon?.address,
            Place::Vsock => self.vsock.as_ref()?.address,
            Place::Ports | Place::Channel(_) | Place::Console(_) => self.ports_address,
            Place::Share(index) => self.shares.get(index)?.address,
            Place::Watchdog => self.watchdog?.address,
            Place::Memory => self.memory?.address,
        }
    }

    fn name_of(&self, place: Place) -> Option<DeviceName> {
        match place {
            Place::Disk(index) => Some(DeviceName::Disk(self.disks.get(index)?.target.clone())),
            Place::Nic(index) => Some(DeviceName::Nic(self.nics.get(index)?.mac?)),
            Place::Rng => Some(DeviceName::Rng),
            Place::Balloon => Some(DeviceName::Balloon),
            Place::Vsock => Some(DeviceName::Vsock),
            Place::Ports => Some(DeviceName::Ports),
            Place::Watchdog => Some(DeviceName::Watchdog),
            Place::Memory => Some(DeviceName::Memory),
            Place::Share(index) => Some(DeviceName::Share(self.shares.get(index)?.tag.clone())),
            Place::Channel(index) => {
                let name = self.channels.get(index)?.name.clone();
                Some(DeviceName::Channel(name))
            }
            Place::Console(index) => Some(DeviceName::Console(self.consoles.get(index)?.port?)),
        }
    }

    fn place(&self, name: &DeviceName) -> Option<Place> {
        // What is on the bus comes first: an address there is the controller's.
        let mut places = self.places().into_iter().chain(self.ports());
        places.find(|place| match name {
            DeviceName::Slot(slot) => self.slot_of(*place) == Some(*slot),
            DeviceName::Interface(interface) => match place {
                Place::Nic(index) => {
                    let nic = self.nics.get(*index);
                    nic.and_then(Nic::host_name) == Some(interface)
                }
                _ => false,
            },
            name => self.name_of(*place).as_ref() == Some(name),
        })
    }
}
