//! Aliases: the names that libvirt gives the devices of a running domain, as `virtio-disk0`, `net0`.

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
    let nics = devices.nics.iter().enumerate();
    let nics =
        nics.filter_map(|(index, nic)| Some((format!("net{index}"), DeviceName::Nic(nic.mac?))));
    let shares = devices.shares.iter().enumerate();
    let shares =
        shares.map(|(index, share)| (format!("fs{index}"), DeviceName::Share(share.tag.clone())));
    let channels = devices.channels.iter().enumerate();
    let channels = channels.map(|(index, port)| {
        (
            format!("channel{index}"),
            DeviceName::Channel(port.name.clone()),
        )
    });
    // Number 0 is the serial console's.
    let consoles = devices.consoles.iter().enumerate();
    let consoles = consoles.filter_map(|(index, port)| {
        Some((
            format!("console{}", index + 1),
            DeviceName::Console(port.port?),
        ))
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
    use super::*;

    #[test]
    fn the_order_of_names_is_that_of_disks() {
        for place in [0, 1, 25, 26, 27, 701, 702, 18_277] {
            let target = DiskTarget::at(place).unwrap();
            assert_eq!(index_of(&target), Some(place), "{target}");
        }
    }
}
