//! `<forward>`: how guests reach what is not on their network.

use std::net::Ipv4Addr;

use reeve_ipc::model::{
    BridgeSettings, DirectMode, Forward, HostDeviceSource, InterfaceName, Nat, PortRange,
};

use super::super::XmlError;
use super::super::element::Element;
use super::super::write::Writer;
use super::{all, contents, needed};

/// The most of a slot and a function of a PCI address.
const MOST: (u32, u32) = (31, 7);

/// Reads how a network forwards. The bridge of one that is on a bridge of the host is taken from what is said of
/// its own.
pub(super) fn parse(root: Element<'_>, bridge: &mut BridgeSettings) -> Result<Forward, XmlError> {
    let Some(element) = root.child("forward") else {
        return Ok(Forward::Isolated);
    };
    element.known(&["dev", "mode", "managed"])?;
    let several = ["interface", "address"];
    contents(element, &["nat", "pf", "driver"], &several)?;
    // As in libvirt.
    let mode = element.attribute("mode").unwrap_or("nat");
    let of = |modes: &[&str], name: &str| match element.child(name) {
        Some(child) if !modes.contains(&mode) => {
            let why = format!("a network that forwards by '{mode}' has none");
            Err(child.invalid(why))
        }
        _ => Ok(()),
    };
    of(&["nat"], "nat")?;
    for name in ["pf", "driver", "address"] {
        of(&["hostdev"], name)?;
    }
    if mode != "hostdev" && element.attribute("managed").is_some() {
        return Err(element.invalid("only devices of the host are managed"));
    }
    match mode {
        "nat" => Ok(Forward::Nat(nat(element)?)),
        "route" => Ok(Forward::Route {
            device: device(element)?,
        }),
        "open" => match device(element)? {
            None => Ok(Forward::Open),
            Some(_) => Err(element.invalid("forward dev not allowed with forward mode='open'")),
        },
        "hostdev" => host_devices(element),
        "bridge" => match (bridge.name.take(), devices(element)?) {
            (Some(name), devices) if devices.is_empty() => Ok(Forward::Bridge(name)),
            (None, devices) if !devices.is_empty() => Ok(Forward::Direct {
                mode: DirectMode::Bridge,
                devices,
            }),
            (Some(_), _) => {
                Err(element.invalid("it is on a bridge or upon interfaces, and not on both"))
            }
            (None, _) => Err(element.invalid("it needs the name of a bridge, or an interface")),
        },
        "private" | "vepa" | "passthrough" => Ok(Forward::Direct {
            mode: mode.parse().map_err(|error| element.invalid(error))?,
            devices: devices(element)?,
        }),
        _ => {
            let there = "there is nat, route, open, bridge, private, vepa, passthrough and hostdev";
            Err(element.unsupported_value("mode", mode, there))
        }
    }
}

/// The interfaces that are named, each once: in the attribute, in elements, or as libvirt prints them, in both.
fn devices(element: Element<'_>) -> Result<Vec<InterfaceName>, XmlError> {
    let mut devices: Vec<InterfaceName> = Vec::new();
    for interface in all(element, "interface") {
        // How many are connected to it is for reading only.
        interface.known(&["dev", "connections"])?;
        interface.no_children()?;
        devices.push(needed(interface, "dev")?);
    }
    match element.parsed::<InterfaceName>("dev")? {
        Some(first) if devices.is_empty() => devices.push(first),
        Some(first) if devices.first() != Some(&first) => {
            let why = format!("forward dev '{first}' must match the first interface element dev");
            return Err(element.invalid(why));
        }
        _ => {}
    }
    Ok(devices)
}

/// The one that traffic goes out by.
fn device(element: Element<'_>) -> Result<Option<InterfaceName>, XmlError> {
    let mut devices = devices(element)?.into_iter();
    match (devices.next(), devices.next()) {
        (_, Some(_)) => {
            Err(element.invalid("multiple forwarding interfaces: only one is supported"))
        }
        (device, None) => Ok(device),
    }
}

fn nat(element: Element<'_>) -> Result<Nat, XmlError> {
    let mut nat = Nat {
        device: device(element)?,
        ..Nat::default()
    };
    let Some(element) = element.child("nat") else {
        return Ok(nat);
    };
    element.known(&["ipv6"])?;
    contents(element, &["address", "port"], &[])?;
    nat.ipv6 = element.switch("ipv6")?.unwrap_or(false);
    if let Some(addresses) = element.child("address") {
        addresses.known(&["start", "end"])?;
        addresses.no_children()?;
        let first: Ipv4Addr = needed(addresses, "start")?;
        nat.addresses = Some((first, addresses.parsed("end")?.unwrap_or(first)));
    }
    if let Some(ports) = element.child("port") {
        ports.known(&["start", "end"])?;
        ports.no_children()?;
        nat.ports = Some(PortRange {
            first: needed(ports, "start")?,
            last: needed(ports, "end")?,
        });
    }
    Ok(nat)
}

fn host_devices(element: Element<'_>) -> Result<Forward, XmlError> {
    if let Some(driver) = element.child("driver") {
        driver.known(&["name"])?;
        driver.no_children()?;
        driver.only("name", &["vfio"])?;
    }
    let mut named = all(element, "interface");
    if element.attribute("dev").is_some() || named.next().is_some() {
        let why = "devices of the host are named by their addresses, or as a <pf>";
        return Err(element.unsupported(why));
    }
    let mut functions = Vec::new();
    for address in all(element, "address") {
        functions.push(function(address)?);
    }
    let source = match element.child("pf") {
        Some(_) if !functions.is_empty() => {
            return Err(element.invalid("there is a <pf> or there are addresses, and not both"));
        }
        Some(physical) => {
            physical.known(&["dev"])?;
            physical.no_children()?;
            HostDeviceSource::PhysicalFunction(needed(physical, "dev")?)
        }
        None => HostDeviceSource::Functions(functions),
    };
    Ok(Forward::HostDevices {
        managed: element.switch("managed")?.unwrap_or(false),
        source,
    })
}

/// A function of a device on the PCI bus of the host.
fn function(address: Element<'_>) -> Result<(u32, u8, u8, u8), XmlError> {
    address.known(&["type", "domain", "bus", "slot", "function", "connections"])?;
    address.no_children()?;
    address.required("type")?;
    address.only("type", &["pci"])?;
    let number = |name: &str, most: u32| {
        let text = address.attribute(name).unwrap_or("0").trim();
        let parsed = match text.strip_prefix("0x") {
            Some(digits) => u32::from_str_radix(digits, 16).ok(),
            None => text.parse().ok(),
        };
        let parsed = parsed.filter(|number| *number <= most);
        parsed.ok_or_else(|| address.invalid(format!("attribute '{name}' is no such number")))
    };
    let byte = |name: &str, most: u32| number(name, most).map(|n| u8::try_from(n).unwrap_or(0));
    Ok((
        number("domain", u32::MAX)?,
        byte("bus", u8::MAX.into())?,
        byte("slot", MOST.0)?,
        byte("function", MOST.1)?,
    ))
}

pub(super) fn format(writer: &mut Writer, forward: &Forward) {
    let Some(mode) = forward.word() else {
        return;
    };
    let devices: Vec<&InterfaceName> = match forward {
        Forward::Direct { devices, .. } => devices.iter().collect(),
        other => other.device().into_iter().collect(),
    };
    let managed = matches!(forward, Forward::HostDevices { managed: true, .. });
    let tag = writer.tag("forward").optional("dev", devices.first());
    let tag = tag.attribute("mode", mode);
    let tag = tag.optional("managed", managed.then_some("yes"));
    let translated = match forward {
        Forward::Nat(nat) => {
            Some(nat).filter(|nat| nat.ipv6 || nat.addresses.is_some() || nat.ports.is_some())
        }
        _ => None,
    };
    let source = match forward {
        Forward::HostDevices { source, .. } => Some(source),
        _ => None,
    };
    if devices.is_empty() && translated.is_none() && source.is_none() {
        return tag.empty();
    }
    tag.open();
    if source.is_some() {
        // There is no other.
        writer.tag("driver").attribute("name", "vfio").empty();
    }
    if let Some(nat) = translated {
        format_nat(writer, nat);
    }
    for device in devices {
        writer.tag("interface").attribute("dev", device).empty();
    }
    match source {
        Some(HostDeviceSource::PhysicalFunction(name)) => {
            writer.tag("pf").attribute("dev", name).empty();
        }
        Some(HostDeviceSource::Functions(functions)) => {
            for (domain, bus, slot, function) in functions {
                let tag = writer.tag("address").attribute("type", "pci");
                tag.attribute("domain", format_args!("0x{domain:04x}"))
                    .attribute("bus", format_args!("0x{bus:02x}"))
                    .attribute("slot", format_args!("0x{slot:02x}"))
                    .attribute("function", format_args!("0x{function:x}"))
                    .empty();
            }
        }
        None => {}
    }
    writer.close("forward");
}

fn format_nat(writer: &mut Writer, nat: &Nat) {
    let tag = writer
        .tag("nat")
        .optional("ipv6", nat.ipv6.then_some("yes"));
    if nat.addresses.is_none() && nat.ports.is_none() {
        return tag.empty();
    }
    tag.open();
    if let Some((first, last)) = nat.addresses {
        let tag = writer.tag("address").attribute("start", first);
        tag.attribute("end", last).empty();
    }
    if let Some(PortRange { first, last }) = nat.ports {
        let tag = writer.tag("port").attribute("start", first);
        tag.attribute("end", last).empty();
    }
    writer.close("nat");
}
