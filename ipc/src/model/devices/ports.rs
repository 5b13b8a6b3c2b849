//! Ports of the serial controller, one by one: their numbers, and where they are among the devices.
//!
//! A port keeps its number as long as it is there, whatever comes and goes beside it: it is what its guest
//! knows it by. The controller comes with the first port and goes with the last.

use serde::{Deserialize, Serialize};

use super::small::is_channel_name;
use super::{Channel, Device, DeviceError, DeviceName, Devices, PortConsole};
use crate::spec::{MAX_PORTS, PciSlot};

/// Where a device is: its place on the bus, and of a port its number on the controller that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DevicePlace {
    /// The place on the bus.
    pub slot: PciSlot,
    /// The port's number, where a port is meant and not all that is there.
    pub port: Option<u8>,
}

impl DevicePlace {
    /// A port of the controller at that place on the bus.
    #[must_use]
    pub const fn port(slot: PciSlot, number: u8) -> Self {
        let port = Some(number);
        Self { slot, port }
    }

    /// Whether what is at `other` is here, or a part of it.
    #[must_use]
    pub fn has(self, other: Self) -> bool {
        self.slot == other.slot && (self.port.is_none() || self.port == other.port)
    }
}

impl From<PciSlot> for DevicePlace {
    fn from(slot: PciSlot) -> Self {
        Self { slot, port: None }
    }
}

/// The numbers that ports have, rising. A driver that knows of one port takes number 0 for a console.
pub(super) fn numbers() -> impl Iterator<Item = u8> {
    (0..).take(MAX_PORTS)
}

/// The name of the console at that port, if it may be one's.
pub(super) fn console_name(text: &str) -> Option<DeviceName> {
    let number = numbers().find(|number| number.to_string() == text)?;
    Some(DeviceName::Console(number))
}

/// The name of the channel of that name.
pub(super) fn channel_name(text: &str) -> Option<DeviceName> {
    is_channel_name(text).then(|| DeviceName::Channel(text.to_owned()))
}

impl Devices {
    /// Fills in the numbers of ports that have none: the lowest that are free, consoles first.
    pub(super) fn number_ports(&mut self) -> Result<(), DeviceError> {
        let count = self.channels.len() + self.consoles.len();
        let mut taken: Vec<u8> = self.port_numbers().collect();
        let mut next = |channel: bool| {
            let mut fitting = numbers().skip(usize::from(channel));
            let number = fitting.find(|number| !taken.contains(number));
            let number = number.ok_or(DeviceError::TooManyPorts(count))?;
            taken.push(number);
            Ok::<_, DeviceError>(Some(number))
        };
        for console in self.consoles.iter_mut().filter(|port| port.port.is_none()) {
            console.port = next(false)?;
        }
        for channel in self.channels.iter_mut().filter(|port| port.port.is_none()) {
            channel.port = next(true)?;
        }
        Ok(())
    }

    /// That each has a number that it may have, and its own.
    pub(super) fn check_ports(&self) -> Result<(), DeviceError> {
        let count = self.channels.len() + self.consoles.len();
        // Number 0 is no channel's.
        if count > MAX_PORTS || self.channels.len() >= MAX_PORTS {
            return Err(DeviceError::TooManyPorts(count));
        }
        let consoles = self.consoles.iter().map(|console| (console.port, false));
        let channels = self.channels.iter().map(|channel| (channel.port, true));
        let numbered = consoles.chain(channels);
        for (number, channel) in numbered.filter_map(|(port, of)| Some((port?, of))) {
            let mut fitting = numbers().skip(usize::from(channel));
            if !fitting.any(|fitting| fitting == number) {
                return Err(DeviceError::PortNumber(number));
            }
        }
        super::twice(self.port_numbers())
            .map_or(Ok(()), |number| Err(DeviceError::PortTwice(number)))
    }

    fn port_numbers(&self) -> impl Iterator<Item = u8> {
        let consoles = self.consoles.iter().filter_map(|console| console.port);
        consoles.chain(self.channels.iter().filter_map(|channel| channel.port))
    }

    /// The lowest number that a further console may have beside these ports and those of `other`.
    #[must_use]
    pub fn free_console_port(&self, other: &Self) -> Option<u8> {
        let taken: Vec<u8> = self.port_numbers().chain(other.port_numbers()).collect();
        numbers().find(|number| !taken.contains(number))
    }

    /// How many ports there are.
    #[must_use]
    pub fn port_count(&self) -> usize {
        self.channels.len() + self.consoles.len()
    }

    /// Every device with where it is and what it is called, those on the bus first, as [`Self::named`]; and
    /// then every port.
    #[must_use]
    pub fn placed(&self) -> Vec<(DevicePlace, DeviceName)> {
        let named = self.named().into_iter();
        let named = named.map(|(slot, name)| (DevicePlace::from(slot), name));
        named.chain(self.placed_ports()).collect()
    }

    /// Every port with where it is and what it is called, by rising number.
    #[must_use]
    pub fn placed_ports(&self) -> Vec<(DevicePlace, DeviceName)> {
        let Some(slot) = self.ports_address else {
            return Vec::new();
        };
        let consoles = self.consoles.iter().filter_map(|console| {
            let number = console.port?;
            Some((DevicePlace::port(slot, number), DeviceName::Console(number)))
        });
        let channels = self.channels.iter().filter_map(|channel| {
            let name = DeviceName::Channel(channel.name.clone());
            Some((DevicePlace::port(slot, channel.port?), name))
        });
        let mut ports: Vec<_> = consoles.chain(channels).collect();
        ports.sort_unstable_by_key(|(place, _)| *place);
        ports
    }

    /// What the device at that place is called.
    #[must_use]
    pub fn name_at(&self, place: DevicePlace) -> Option<DeviceName> {
        let mut placed = self.placed().into_iter();
        placed
            .find(|(there, _)| *there == place)
            .map(|(_, name)| name)
    }

    /// Where the device of that name is, and what it is called for good.
    #[must_use]
    pub fn locate(&self, name: &DeviceName) -> Option<(DevicePlace, DeviceName)> {
        let (slot, name) = self.find(name)?;
        let port = match &name {
            DeviceName::Console(number) => Some(*number),
            DeviceName::Channel(wanted) => {
                let mut channels = self.channels.iter();
                channels.find(|channel| channel.name == *wanted)?.port
            }
            _ => None,
        };
        Some((DevicePlace { slot, port }, name))
    }

    /// Only the device at that place; of a port its controller with it alone.
    #[must_use]
    pub fn only_at(&self, place: DevicePlace) -> Self {
        let mut all = self.only(place.slot);
        if place.port.is_some() {
            all.consoles.retain(|console| console.port == place.port);
            all.channels.retain(|channel| channel.port == place.port);
        }
        all
    }

    /// The port of that name as it is defined.
    #[must_use]
    pub fn port(&self, name: &DeviceName) -> Option<Device> {
        let mut consoles = self.consoles.iter();
        let mut channels = self.channels.iter();
        match name {
            DeviceName::Console(number) => {
                let found = consoles.find(|console| console.port == Some(*number));
                found.cloned().map(Device::Console)
            }
            DeviceName::Channel(name) => {
                let found = channels.find(|channel| channel.name == *name);
                found.cloned().map(Device::Channel)
            }
            _ => None,
        }
    }
}

impl Device {
    /// The number of a port, where it has one.
    #[must_use]
    pub const fn port_number(&self) -> Option<u8> {
        match self {
            Self::Channel(Channel { port, .. }) | Self::Console(PortConsole { port, .. }) => *port,
            _ => None,
        }
    }
}
