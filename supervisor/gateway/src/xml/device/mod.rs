//! Devices one by one: each kind's element, read and written side by side, and documents of a single device,
//! by which clients attach, detach and change one.

mod address;
pub mod alias;
mod disk;
mod memory;
mod nic;
mod open_vswitch;
mod ports;
pub(super) mod rates;
mod share;
mod small;
mod watchdog;

use std::path::{Path, PathBuf};

use reeve_ipc::model::{Device, DeviceName, Devices, Domain, DomainUuid};

use super::XmlError;
use super::domain::{EMULATOR, Live, View};
use super::element::{Element, document};
use super::kept::{Accepted, Keeper};
use super::write::Writer;

pub(super) use self::memory::{format_sizes, parse as parse_memory, sizes};
pub(super) use self::nic::own as own_of_nic;
pub(super) use self::rates::is_rng as rng_rate_is_sayable;
pub(crate) use self::rates::{Bandwidth, bandwidth_of, rate_of};
pub(super) use self::small::{format_panic, parse_panic};

/// Where sockets are that a document does not name.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sockets<'a> {
    pub(super) directory: &'a Path,
    pub(super) domain: DomainUuid,
}

impl Sockets<'_> {
    pub(super) fn channel(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{}.{name}", self.domain))
    }

    pub(super) fn vsock(&self) -> PathBuf {
        self.directory.join(format!("{}.vsock", self.domain))
    }
}

/// A device of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParsedDevice {
    /// The device.
    pub device: Device,
    /// What of it is taken and not provided.
    pub accepted: Vec<Accepted>,
}

/// Reads a document of one device that a domain is to have, or that one of its is to become.
///
/// `sockets` is as [`super::domain::Parse::sockets`].
///
/// # Errors
/// [`XmlError`].
pub fn parse(text: &str, domain: DomainUuid, sockets: &Path) -> Result<ParsedDevice, XmlError> {
    let document = document(text)?;
    let element = Element::any_root(&document);
    let sockets = Sockets {
        directory: sockets,
        domain,
    };
    let mut keeper = Keeper::of_device();
    let device = match element.name() {
        "disk" => Device::Disk(disk::parse(element, &mut keeper)?),
        "interface" => Device::Nic(nic::parse(element, &mut keeper)?),
        "rng" => Device::Rng(small::parse_rng(element, &mut keeper)?),
        "memballoon" => {
            let balloon = small::parse_balloon(element, &mut keeper)?;
            Device::Balloon(balloon.ok_or_else(|| element.invalid("it is none"))?)
        }
        "vsock" => Device::Vsock(small::parse_vsock(element, &mut keeper, sockets)?),
        "filesystem" => Device::Share(share::parse(element, &mut keeper)?),
        "channel" => Device::Channel(ports::parse_channel(element, &mut keeper, sockets)?),
        "console" => match ports::parse_console(element, &mut keeper)? {
            Some(console) => Device::Console(console),
            None => return Err(element.invalid("every domain has its serial console already")),
        },
        "watchdog" | "memory" | "panic" | "serial" => {
            let message =
                "this device comes and goes with a start of the domain only; change its definition";
            return Err(element.unsupported(message));
        }
        _ => return Err(element.not_provided()),
    };
    let accepted = keeper.accepted;
    Ok(ParsedDevice { device, accepted })
}

/// The device of a domain that a document means: a disk by its target, an interface by its address, a share by
/// its tag, a channel by its name, others by their kind; any by its alias or place where it has nothing else.
///
/// # Errors
/// [`XmlError`]: no document, or none that tells which.
pub fn identify(text: &str, devices: &Devices) -> Result<DeviceName, XmlError> {
    let document = document(text)?;
    let element = Element::any_root(&document);
    let attribute = |child: &str, name: &str| element.child(child)?.attribute(name);
    let by_key = match element.name() {
        "disk" => attribute("target", "dev").and_then(|dev| dev.parse().ok().map(DeviceName::Disk)),
        "interface" => {
            attribute("mac", "address").and_then(|mac| mac.parse().ok().map(DeviceName::Nic))
        }
        "filesystem" => attribute("target", "dir").map(|tag| DeviceName::Share(tag.to_owned())),
        "channel" => attribute("target", "name").map(|name| DeviceName::Channel(name.to_owned())),
        "rng" => Some(DeviceName::Rng),
        "memballoon" => Some(DeviceName::Balloon),
        "vsock" => Some(DeviceName::Vsock),
        "watchdog" => Some(DeviceName::Watchdog),
        "memory" => Some(DeviceName::Memory),
        "console" => attribute("address", "port")
            .and_then(|port| port.parse().ok())
            .map(DeviceName::Console),
        _ => return Err(element.not_provided()),
    };
    let by_alias = || alias::resolve(attribute("alias", "name")?, devices);
    let by_place = || {
        let address = element.child("address")?;
        address::pci(address).ok().map(DeviceName::Slot)
    };
    by_key
        .or_else(by_alias)
        .or_else(by_place)
        .ok_or_else(|| element.invalid("nothing in it tells which device is meant"))
}

/// Prints one device of a domain as it stands among its others.
#[must_use]
pub fn format(domain: &Domain, name: &DeviceName, view: &View<'_>) -> Option<String> {
    let (place, _) = domain.devices.locate(name)?;
    let mut only = domain.clone();
    only.devices = domain.devices.only_at(place);
    let mut writer = Writer::new();
    write_devices(&mut writer, &only, &domain.devices, view);
    Some(writer.finish())
}

/// Why a domain is refused a second device of random numbers.
pub const ONE_RNG: &str =
    "a domain has one random number generator at most, and this is a second one";

/// Reads the devices of a domain.
pub(super) fn parse_all(
    element: Element<'_>,
    keeper: &mut Keeper,
    sockets: Sockets<'_>,
    devices: &mut Devices,
) -> Result<(), XmlError> {
    element.known(&[])?;
    let mut balloon = None;
    let mut serial = false;
    let mut ports = Vec::new();
    for child in element.children() {
        let second = || child.invalid("there may be one only");
        match child.name() {
            "disk" => devices.disks.push(disk::parse(child, keeper)?),
            "interface" => devices.nics.push(nic::parse(child, keeper)?),
            "rng" => {
                let rng = small::parse_rng(child, keeper)?;
                if devices.rng.replace(rng).is_some() {
                    return Err(child.unsupported(ONE_RNG));
                }
            }
            "memballoon" => {
                let parsed = small::parse_balloon(child, keeper)?;
                if balloon.replace(parsed).is_some() {
                    return Err(second());
                }
            }
            "vsock" => {
                let vsock = small::parse_vsock(child, keeper, sockets)?;
                if devices.vsock.replace(vsock).is_some() {
                    return Err(second());
                }
            }
            "watchdog" => {
                let watchdog = watchdog::parse(child, keeper)?;
                if devices.watchdog.replace(watchdog).is_some() {
                    return Err(second());
                }
            }
            "filesystem" => devices.shares.push(share::parse(child, keeper)?),
            "channel" => devices
                .channels
                .push(ports::parse_channel(child, keeper, sockets)?),
            "console" => devices
                .consoles
                .extend(ports::parse_console(child, keeper)?),
            "serial" => {
                ports::parse_serial(child, keeper)?;
                if std::mem::replace(&mut serial, true) {
                    return Err(child.unsupported("there is one serial port only"));
                }
            }
            "controller" if child.attribute("type") == Some("virtio-serial") => ports.push(child),
            // Read by whoever reads the domain.
            "memory" | "panic" => {}
            // As it is printed of every domain.
            "emulator" if child.text().trim() == EMULATOR => {
                child.known(&[])?;
                child.no_children()?;
            }
            _ => keeper.offer(child)?,
        }
    }
    for controller in ports {
        ports::parse_controller(controller, keeper, devices)?;
    }
    // As libvirt does: one that is not said is there.
    devices.balloon = balloon.unwrap_or_else(|| Some(Default::default()));
    Ok(())
}

/// Writes those devices of a domain that are in `domain`, with their aliases among `all`.
pub(super) fn write_devices(writer: &mut Writer, domain: &Domain, all: &Devices, view: &View<'_>) {
    let live = view.live.as_ref();
    let devices = &domain.devices;
    let named = |name: Option<DeviceName>| {
        live?;
        alias::of(&name?, all)
    };
    for disk in &devices.disks {
        let alias = named(Some(DeviceName::Disk(disk.target.clone())));
        disk::format(writer, disk, alias.as_deref(), &domain.kept);
    }
    for share in &devices.shares {
        let alias = named(Some(DeviceName::Share(share.tag.clone())));
        share::format(writer, share, alias.as_deref());
    }
    for nic in &devices.nics {
        let alias = named(nic.mac.map(DeviceName::Nic));
        let host = live.and_then(|live| live.tap(nic.address?));
        nic::format(writer, nic, alias.as_deref(), host, &domain.kept);
    }
    for channel in &devices.channels {
        let alias = named(Some(DeviceName::Channel(channel.name.clone())));
        let sockets = Sockets {
            directory: view.sockets,
            domain: domain.uuid,
        };
        let path = sockets.channel(&channel.name);
        let said = live.is_some() || path != channel.path;
        let open = live.and_then(|live| live.is_open(&channel.name));
        ports::format_channel(writer, channel, alias.as_deref(), said, open);
    }
    for console in &devices.consoles {
        let alias = named(console.port.map(DeviceName::Console));
        ports::format_console(writer, console, alias.as_deref());
    }
    if let Some(watchdog) = &devices.watchdog {
        watchdog::format(
            writer,
            watchdog,
            named(Some(DeviceName::Watchdog)).as_deref(),
        );
    }
    if let Some(balloon) = &devices.balloon {
        let alias = named(Some(DeviceName::Balloon));
        small::format_balloon(writer, balloon, alias.as_deref(), &domain.kept);
    }
    if let Some(rng) = &devices.rng {
        small::format_rng(writer, rng, named(Some(DeviceName::Rng)).as_deref());
    }
    if let Some(vsock) = &devices.vsock {
        let alias = named(Some(DeviceName::Vsock));
        small::format_vsock(writer, vsock, alias.as_deref());
    }
    if devices.memory.is_some() {
        let alias = named(Some(DeviceName::Memory));
        memory::format(writer, domain, live, alias.as_deref());
    }
}

/// Writes what every domain has and no list names: its serial console; and the controller of its ports.
pub(super) fn write_fixed(writer: &mut Writer, domain: &Domain, live: Option<&Live<'_>>) {
    ports::format_controller(writer, &domain.devices, live.is_some());
    // One that is not said is there.
    if domain.devices.balloon.is_none() {
        writer.tag("memballoon").attribute("model", "none").empty();
    }
    ports::format_serial(writer, live, &domain.kept);
}
