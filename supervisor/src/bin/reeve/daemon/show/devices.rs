//! A domain's devices, a line each, as `reeve info` shows them.

use reeve_ipc::model::{Devices, Disk, Nic, NicSource, Platform};
use reeve_ipc::spec::NicDriver;

use super::super::file;

/// What is shown, with its name.
pub(super) fn lines(devices: &Devices) -> Vec<(&'static str, String)> {
    let disks = devices.disks.iter().map(|one| ("Disk", disk(one)));
    let nics = devices.nics.iter().map(|one| ("Network", nic(one)));
    let vsock = devices.vsock.iter();
    let vsock = vsock.map(|vsock| ("Vsock", vsock.path.display().to_string()));
    let channels = devices.channels.iter().map(|channel| {
        let text = format!("{}: {}", channel.name, channel.path.display());
        ("Channel", text)
    });
    let consoles = devices.consoles.iter();
    let consoles = consoles.map(|port| ("Port console", port.path.display().to_string()));
    let shares = devices.shares.iter().map(|share| {
        let access = if share.read_only { " (read-only)" } else { "" };
        let text = format!("{}: {}{access}", share.tag, share.source.display());
        ("Share", text)
    });
    let watchdog = devices.watchdog.iter();
    let watchdog = watchdog.map(|watchdog| ("Watchdog", format!("i6300esb, {}", watchdog.action)));
    let memory = devices.memory.iter();
    let memory = memory.map(|memory| ("Most memory", memory.max.to_string()));
    let single = [
        (devices.rng.is_some(), "entropy"),
        (devices.balloon.is_some(), "balloon"),
    ];
    let single: Vec<&str> = single
        .into_iter()
        .filter_map(|(there, name)| there.then_some(name))
        .collect();
    let single = Some(("Devices", single.join(", "))).filter(|(_, names)| !names.is_empty());
    disks
        .chain(nics)
        .chain(vsock)
        .chain(channels)
        .chain(consoles)
        .chain(shares)
        .chain(watchdog)
        .chain(memory)
        .chain(single)
        .collect()
}

/// What it has of the platform.
pub(super) fn platform(platform: Platform) -> String {
    let Platform {
        generation_id,
        panic_port,
    } = platform;
    let id = file::generation_id_text(generation_id);
    let port = if panic_port { ", panic port" } else { "" };
    format!("generation id {id}{port}")
}

fn disk(disk: &Disk) -> String {
    let Some(image) = &disk.image else {
        return format!("{}: no medium", disk.target);
    };
    let mut text = format!(
        "{}: {} ({}{})",
        disk.target,
        image.path.display(),
        image.format,
        if disk.read_only { ", read-only" } else { "" }
    );
    for layer in &disk.backing {
        text.push_str(&format!(" on {} ({})", layer.path.display(), layer.format));
    }
    text
}

fn nic(nic: &Nic) -> String {
    let mac = nic.mac.map_or_else(String::new, |mac| format!("{mac} "));
    let source = match &nic.source {
        NicSource::Bridge(bridge) => format!("on bridge {bridge}"),
        NicSource::Tap(tap) => format!("on tap {tap}"),
        NicSource::Nothing => "connected to nothing".to_owned(),
        NicSource::Switch(path) => format!("on switch {}", path.display()),
        NicSource::Network {
            network,
            port_group: Some(group),
            ..
        } => format!("on network {network} as '{group}'"),
        NicSource::Network { network, .. } => format!("on network {network}"),
        NicSource::Direct { device, mode } => format!("directly on {device} ({mode})"),
        NicSource::User => "by a process without privilege".to_owned(),
        NicSource::OpenVswitch(port) => format!("on bridge {} of Open vSwitch", port.bridge),
    };
    let target = nic.target.as_ref();
    let target = target.map_or_else(String::new, |target| format!(" by {target}"));
    let down = if nic.link_up { "" } else { ", link down" };
    let driver = match nic.driver {
        NicDriver::User => "",
        NicDriver::Vhost => ", by vhost-net",
    };
    let mut text = format!("{mac}{source}{target}{down}{driver}");
    for (first, address) in (0..).zip(&nic.addresses) {
        text.push_str(if first == 0 { ", from " } else { " " });
        text.push_str(&address.to_string());
    }
    if let Some(filter) = &nic.filter {
        text.push_str(&format!(", through filter '{}'", filter.filter));
    }
    text
}
