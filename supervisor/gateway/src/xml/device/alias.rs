//! Aliases: the names that libvirt gives the devices of a running domain, as `virtio-disk0`, `net0`.
//!
//! libvirt draws them once and keeps them; here each is made of what its device keeps for as long as it is there:
//! a disk's target, a port's number, and of others the place on the bus. None changes when another device comes
//! or goes.

use reeve_ipc::model::{DeviceName, Devices, DiskTarget};

/// The alias of the device of that name.
#[must_use]
pub fn of(name: &DeviceName, devices: &Devices) -> Option<String> {
    all(devices)
        .into_iter()
        .find(|(_, named)| named == name)
        .map(|(alias, _)| alias)
}

/// The device of that alias.
#[must_use]
pub fn resolve(alias: &str, devices: &Devices) -> Option<DeviceName> {
    all(devices)
        .into_iter()
        .find(|(named, _)| named == alias)
        .map(|(_, name)| name)
}

/// Every alias of a domain's devices, with what the device is called. The serial console, `serial0`, is none of
/// them.
#[must_use]
pub fn all(devices: &Devices) -> Vec<(String, DeviceName)> {
    let disks = devices.disks.iter().filter_map(|disk| {
        let alias = format!("virtio-disk{}", index_of(&disk.target)?);
        Some((alias, DeviceName::Disk(disk.target.clone())))
    });
    let nics = devices.nics.iter().filter_map(|nic| {
        let alias = format!("net{}", nic.address?.number());
        Some((alias, DeviceName::Nic(nic.mac?)))
    });
    let shares = devices.shares.iter().filter_map(|share| {
        let alias = format!("fs{}", share.address?.number());
        Some((alias, DeviceName::Share(share.tag.clone())))
    });
    // Port 0 is never a channel's.
    let channels = devices.channels.iter().filter_map(|channel| {
        let alias = format!("channel{}", channel.port?.checked_sub(1)?);
        Some((alias, DeviceName::Channel(channel.name.clone())))
    });
    // Number 0 is the serial console's.
    let consoles = devices.consoles.iter().filter_map(|console| {
        let port = console.port?;
        let alias = format!("console{}", u16::from(port) + 1);
        Some((alias, DeviceName::Console(port)))
    });
    let single = [
        (devices.rng.is_some(), "rng0", DeviceName::Rng),
        (devices.balloon.is_some(), "balloon0", DeviceName::Balloon),
        (devices.vsock.is_some(), "vsock0", DeviceName::Vsock),
        (
            devices.watchdog.is_some(),
            "watchdog0",
            DeviceName::Watchdog,
        ),
        (devices.memory.is_some(), "virtiomem0", DeviceName::Memory),
        (devices.has_ports(), "virtio-serial0", DeviceName::Ports),
    ];
    let single = single.into_iter().filter(|(there, ..)| *there);
    let single = single.map(|(_, alias, name)| (alias.to_owned(), name));
    disks
        .chain(nics)
        .chain(shares)
        .chain(channels)
        .chain(consoles)
        .chain(single)
        .collect()
}

/// The place of a disk's name in the order of names: 0 for `vda`, 26 for `vdaa`.
pub(super) fn index_of(target: &DiskTarget) -> Option<usize> {
    let letters = target.as_str().strip_prefix("vd")?;
    let mut index = 0_usize;
    for letter in letters.bytes() {
        let digit = usize::from(letter.checked_sub(b'a')?) + 1;
        index = index.checked_mul(26)?.checked_add(digit)?;
    }
    index.checked_sub(1)
}

#[cfg(test)]
mod tests {
    use reeve_ipc::model::{Channel, Nic, NicSource, PortConsole, Share};
    use reeve_ipc::spec::PciSlot;

    use super::*;

    #[test]
    fn an_alias_stays_when_another_device_goes() {
        let nic = |last, slot| Nic {
            mac: Some([0x52, 0x54, 0, 0, 0, last].try_into().unwrap()),
            address: Some(PciSlot::try_from(slot).unwrap()),
            ..Nic::new(NicSource::Nothing)
        };
        let channel = |name: &str, port| Channel {
            name: name.to_owned(),
            path: format!("/{name}").into(),
            port: Some(port),
        };
        let console = |port| PortConsole {
            path: format!("/{port}").into(),
            port: Some(port),
        };
        let share = Share {
            tag: "a".to_owned(),
            source: "/a".into(),
            read_only: false,
            address: Some(PciSlot::try_from(9).unwrap()),
        };
        let mut devices = Devices {
            nics: vec![nic(1, 4), nic(2, 7)],
            channels: vec![channel("a", 1), channel("b", 3)],
            consoles: vec![console(0), console(2)],
            shares: vec![share],
            ..Devices::default()
        };
        let before = all(&devices);
        let names: Vec<&str> = before.iter().map(|(alias, _)| alias.as_str()).collect();
        let expected = [
            "net4",
            "net7",
            "fs9",
            "channel0",
            "channel2",
            "console1",
            "console3",
            "virtio-serial0",
        ];
        assert_eq!(names, expected);
        devices.nics.remove(0);
        devices.channels.remove(0);
        devices.consoles.remove(0);
        for (alias, name) in all(&devices) {
            assert!(before.contains(&(alias.clone(), name.clone())), "{alias}");
            assert_eq!(resolve(&alias, &devices), Some(name));
        }
        assert_eq!(resolve("net4", &devices), None);
    }

    #[test]
    fn the_order_of_names_is_that_of_disks() {
        for place in [0, 1, 25, 26, 27, 701, 702, 18_277] {
            let target = DiskTarget::at(place).unwrap();
            assert_eq!(index_of(&target), Some(place), "{target}");
        }
    }
}
