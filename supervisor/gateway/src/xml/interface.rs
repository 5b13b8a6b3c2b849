//! `<interface>` of the host: what libvirt's interface driver shows, printed and never read.

use std::net::IpAddr;

use reeve_ipc::api::interface::{BondMonitor, HostInterface, HostInterfaceKind, LinkState};

use super::write::Writer;

/// Its address on the link, as libvirt writes it.
#[must_use]
pub fn link_address(interface: &HostInterface) -> String {
    let bytes = interface.address.iter();
    let bytes: Vec<String> = bytes.map(|byte| format!("{byte:02x}")).collect();
    bytes.join(":")
}

const fn state(state: LinkState) -> &'static str {
    match state {
        LinkState::Unknown => "unknown",
        LinkState::NotPresent => "notpresent",
        LinkState::Down => "down",
        LinkState::LowerLayerDown => "lowerlayerdown",
        LinkState::Testing => "testing",
        LinkState::Dormant => "dormant",
        LinkState::Up => "up",
    }
}

const fn bond_mode(mode: u8) -> Option<&'static str> {
    Some(match mode {
        0 => "balance-rr",
        1 => "active-backup",
        2 => "balance-xor",
        3 => "broadcast",
        4 => "802.3ad",
        5 => "balance-tlb",
        6 => "balance-alb",
        _ => return None,
    })
}

const fn kind(kind: &HostInterfaceKind) -> &'static str {
    match kind {
        HostInterfaceKind::Ethernet => "ethernet",
        HostInterfaceKind::Bridge { .. } => "bridge",
        HostInterfaceKind::Vlan { .. } => "vlan",
        HostInterfaceKind::Bond { .. } => "bond",
    }
}

/// Prints one of `all`: what is part of it is found there.
#[must_use]
pub fn format_interface(interface: &HostInterface, all: &[HostInterface]) -> String {
    let mut writer = Writer::new();
    open(&mut writer, interface);
    if let Some(on_boot) = interface.on_boot {
        let mode = if on_boot { "onboot" } else { "none" };
        writer.tag("start").attribute("mode", mode).empty();
    }
    if interface.mtu > 0 {
        let mtu = interface.mtu;
        writer.tag("mtu").attribute("size", mtu).empty();
    }
    protocol(&mut writer, interface, "ipv4", IpAddr::is_ipv4);
    protocol(&mut writer, interface, "ipv6", IpAddr::is_ipv6);
    inner(&mut writer, interface, all);
    writer.close("interface");
    writer.finish()
}

fn open(writer: &mut Writer, interface: &HostInterface) {
    let tag = writer.tag("interface");
    let tag = tag.attribute("type", kind(&interface.kind));
    tag.attribute("name", &interface.name).open();
}

/// The host's addresses of one family.
fn protocol(
    writer: &mut Writer,
    interface: &HostInterface,
    family: &str,
    is: impl Fn(&IpAddr) -> bool,
) {
    let addresses = interface.addresses.iter();
    let addresses: Vec<_> = addresses.filter(|(address, _)| is(address)).collect();
    if addresses.is_empty() {
        return;
    }
    let tag = writer.tag("protocol").attribute("family", family);
    tag.open();
    for (address, prefix) in addresses {
        let tag = writer.tag("ip").attribute("address", address);
        tag.attribute("prefix", prefix).empty();
    }
    // The format has one.
    if let Some(router) = interface.routers.iter().find(|router| is(router)) {
        writer.tag("route").attribute("gateway", router).empty();
    }
    writer.close("protocol");
}

/// What an interface has as a part of another, too.
fn inner(writer: &mut Writer, interface: &HostInterface, all: &[HostInterface]) {
    let is_bridge = matches!(interface.kind, HostInterfaceKind::Bridge { .. });
    // Nothing is known of what only looks like a host.
    if !is_bridge && interface.on_boot.is_none() {
        let tag = writer.tag("link").optional("speed", interface.speed);
        tag.attribute("state", state(interface.state)).empty();
    }
    match &interface.kind {
        HostInterfaceKind::Ethernet => {
            // The format has Ethernet's only.
            if interface.address.len() == 6 {
                let mac = link_address(interface);
                writer.tag("mac").attribute("address", mac).empty();
            }
        }
        HostInterfaceKind::Bridge { stp, delay } => {
            let stp = if *stp { "on" } else { "off" };
            let tag = writer.tag("bridge").attribute("stp", stp);
            tag.attribute("delay", delay).open();
            parts(writer, interface, all, |_| true);
            writer.close("bridge");
        }
        HostInterfaceKind::Vlan { tag, of } => {
            let vlan = writer.tag("vlan").attribute("tag", tag);
            // What it is upon may be in another network namespace; libvirt leaves it out, too.
            let Some(of) = of else { return vlan.empty() };
            vlan.open();
            writer.tag("interface").attribute("name", of).empty();
            writer.close("vlan");
        }
        HostInterfaceKind::Bond { mode, monitor } => {
            let tag = writer.tag("bond").optional("mode", bond_mode(*mode));
            tag.open();
            if let Some(monitor) = monitor {
                watch(writer, monitor);
            }
            let ethernet = |part: &HostInterface| part.kind == HostInterfaceKind::Ethernet;
            parts(writer, interface, all, ethernet);
            writer.close("bond");
        }
    }
}

fn watch(writer: &mut Writer, monitor: &BondMonitor) {
    match monitor {
        BondMonitor::Link {
            every_ms,
            up_ms,
            down_ms,
            carrier,
        } => {
            let carrier = if *carrier { "netif" } else { "ioctl" };
            let tag = writer.tag("miimon").attribute("freq", every_ms);
            tag.attribute("downdelay", down_ms)
                .attribute("updelay", up_ms)
                .attribute("carrier", carrier)
                .empty();
        }
        BondMonitor::Arp { every_ms, target } => {
            let tag = writer.tag("arpmon").attribute("interval", every_ms);
            tag.attribute("target", target).empty();
        }
    }
}

/// What is part of an interface, each as itself. None is part of what is part of it: the kernel has no such rings, and
/// bridges have no bridges in them.
fn parts(
    writer: &mut Writer,
    interface: &HostInterface,
    all: &[HostInterface],
    may: impl Fn(&HostInterface) -> bool,
) {
    let is_bridge = |part: &HostInterface| matches!(part.kind, HostInterfaceKind::Bridge { .. });
    let of = all
        .iter()
        .filter(|part| part.part_of.as_deref() == Some(interface.name.as_str()));
    for part in of.filter(|part| may(part) && !is_bridge(part)) {
        open(writer, part);
        match part.kind {
            // Only a bridge's parts have parts.
            HostInterfaceKind::Bond { .. }
                if matches!(interface.kind, HostInterfaceKind::Bond { .. }) => {}
            _ => inner(writer, part, all),
        }
        writer.close("interface");
    }
}
