//! `<interface>`.

use std::path::PathBuf;

use reeve_ipc::model::{DirectMode, InterfaceName, KeptElement, Nic, NicSource, PortLink};
use reeve_ipc::spec::NicDriver;

use super::super::XmlError;
use super::super::element::Element;
use super::super::kept::{self, Keeper};
use super::super::nwfilter;
use super::super::own::OwnInterface;
use super::super::write::Writer;
use super::{address, open_vswitch, rates};

/// What the names begin with that are drawn for a start (libvirt `VIR_NET_GENERATED_VNET_PREFIX`).
const DRAWN: [&str; 2] = ["vnet", "macvtap"];

pub(super) fn parse(element: Element<'_>, keeper: &mut Keeper) -> Result<Nic, XmlError> {
    element.known(&["type", "trustGuestRxFilters"])?;
    let mac = element.child("mac");
    let mac_text = mac.and_then(|mac| mac.attribute("address"));
    let mac_text = mac_text.map(str::to_ascii_lowercase);
    for child in element.children() {
        let name = child.name();
        let once = matches!(name, "virtualport" | "vlan" | "filterref");
        let first = element.child(name).filter(|_| once);
        if first.is_some_and(|first| first.node() != child.node()) {
            return Err(child.invalid("there is a second one"));
        }
        match name {
            "boot" => keeper.offer_of(child, mac_text.as_deref())?,
            "mac" | "source" | "model" | "target" | "driver" | "mtu" | "link" | "bandwidth"
            | "port" | "filterref" | "alias" | "address" => {}
            "virtualport" if element.attribute("type") == Some("direct") => {
                let why = "a switch is told of no port (802.1Qbg and 802.1Qbh, which lldpad speaks); there is mode \
                           vepa without it";
                return Err(child.unsupported(why));
            }
            "virtualport" | "vlan" if open_vswitch::may_be(element) => {}
            _ => return Err(child.not_provided()),
        }
    }
    let (source, target) = source(element)?;
    let (source, virtual_port) = open_vswitch::parse(element, source)?;
    let mut nic = Nic::new(source);
    nic.virtual_port = virtual_port;
    nic.target = target;
    if let Some(mac) = mac {
        mac.known(&["address"])?;
        nic.mac = mac.parsed("address")?;
    }
    nic.trust_guest = element.switch("trustGuestRxFilters")?.unwrap_or(false);
    if let Some(model) = element.child("model") {
        model.known(&["type"])?;
        let values = ["virtio", "virtio-non-transitional"];
        model.only("type", &values)?;
    }
    if let Some(driver) = element.child("driver") {
        driver.known(&["name", "queues", "event_idx", "ioeventfd"])?;
        driver.no_children()?;
        driver.only("event_idx", &["on"])?;
        driver.only("ioeventfd", &["on"])?;
        nic.driver = driver.word("name")?.unwrap_or(nic.driver);
        nic.queues = driver.parsed("queues")?.unwrap_or(nic.queues);
    }
    if let Some(mtu) = element.child("mtu") {
        mtu.known(&["size"])?;
        nic.mtu = mtu.parsed("size")?;
    }
    if let Some(link) = element.child("link") {
        link.known(&["state"])?;
        nic.link_up = match link.required("state")? {
            "up" => true,
            "down" => false,
            _ => return Err(link.invalid("a link is up or down")),
        };
    }
    if let Some(bandwidth) = element.child("bandwidth") {
        bandwidth.known(&[])?;
        for child in bandwidth.children() {
            match child.name() {
                "inbound" => nic.inbound = rates::bandwidth(child)?,
                "outbound" => nic.outbound = rates::bandwidth(child)?,
                _ => return Err(child.not_provided()),
            }
        }
    }
    if let Some(port) = element.child("port") {
        port.known(&["isolated"])?;
        nic.isolated = port.switch("isolated")?.unwrap_or(false);
    }
    if let Some(filter) = element.child("filterref") {
        nic.filter = Some(Box::new(nwfilter::parse_reference(filter)?));
    }
    nic.address = address::place(element)?;
    Ok(nic)
}

/// What it is connected to, and the name of the tap that is made for it.
fn source(element: Element<'_>) -> Result<(NicSource, Option<InterfaceName>), XmlError> {
    let target = target(element)?;
    let source = element.child("source");
    let needed = || source.ok_or_else(|| element.invalid("there is no <source> in it"));
    let kind = element.required("type")?;
    // As libvirt has it of a domain that runs, whose interface is said to be what its network gave it.
    let given = source.filter(|source| source.attribute("network").is_some());
    if let Some(source) = given.filter(|_| matches!(kind, "bridge" | "direct")) {
        return of_network(source).map(|source| (source, target.map(|(name, _)| name)));
    }
    match kind {
        "bridge" => {
            let source = needed()?;
            source.known(&["bridge"])?;
            source.no_children()?;
            let bridge = source.required("bridge")?;
            let bridge = bridge.parse().map_err(|error| source.invalid(error))?;
            Ok((NicSource::Bridge(bridge), target.map(|(name, _)| name)))
        }
        "ethernet" => {
            if let Some(source) = source {
                return Err(source.not_provided());
            }
            match target {
                Some((name, false)) => Ok((NicSource::Tap(name), None)),
                target => Ok((NicSource::Nothing, target.map(|(name, _)| name))),
            }
        }
        "vhostuser" => {
            let source = needed()?;
            source.known(&["type", "path", "mode"])?;
            source.no_children()?;
            source.only("type", &["unix"])?;
            source.only("mode", &["client"])?;
            source.required("mode")?;
            let path = PathBuf::from(source.required("path")?);
            // libvirt names the port of a switch here; it is nothing on the host.
            Ok((NicSource::Switch(path), None))
        }
        "network" => of_network(needed()?).map(|source| (source, target.map(|(name, _)| name))),
        "direct" => {
            let source = needed()?;
            source.known(&["dev", "mode"])?;
            source.no_children()?;
            let device = source.required("dev")?;
            let device = device.parse().map_err(|error| source.invalid(error))?;
            // As in libvirt.
            let mode = source.word("mode")?.unwrap_or(DirectMode::Vepa);
            let source = NicSource::Direct { device, mode };
            Ok((source, target.map(|(name, _)| name)))
        }
        "user" => {
            if let Some(source) = source {
                return Err(source.not_provided());
            }
            Ok((NicSource::User, None))
        }
        _ => {
            let message = "there is network, bridge, direct, ethernet, user and vhostuser";
            Err(element.unsupported_value("type", kind, message))
        }
    }
}

/// A virtual network. What it is connected to while it runs is for reading only, as in libvirt.
fn of_network(source: Element<'_>) -> Result<NicSource, XmlError> {
    source.known(&["network", "portgroup", "portid", "bridge", "dev", "mode"])?;
    source.no_children()?;
    let network = source.required("network")?;
    Ok(NicSource::Network {
        network: network.parse().map_err(|error| source.invalid(error))?,
        port_group: source.attribute("portgroup").map(str::to_owned),
        port: None,
    })
}

/// What libvirt calls an interface: one of a network that runs by macvtap, by what it is.
fn kind(source: &NicSource) -> &'static str {
    match source {
        NicSource::Network {
            port: Some(port), ..
        } if matches!(port.link, PortLink::Direct { .. }) => "direct",
        source => source.kind(),
    }
}

/// The name of a tap, and whether it is made and not found. One that is made for a start is no part of a
/// definition, and a document of a domain that runs has it: as libvirt does, a name that looks like one is left
/// out.
fn target(element: Element<'_>) -> Result<Option<(InterfaceName, bool)>, XmlError> {
    let Some(target) = element.child("target") else {
        return Ok(None);
    };
    target.known(&["dev", "managed"])?;
    target.no_children()?;
    let made = target.switch("managed")?.unwrap_or(true);
    match target.attribute("dev") {
        Some(dev) if made && DRAWN.iter().any(|drawn| dev.starts_with(drawn)) => Ok(None),
        Some(dev) => {
            let name = dev.parse().map_err(|error| target.invalid(error))?;
            Ok(Some((name, made)))
        }
        None if made => Ok(None),
        None => Err(target.invalid("a tap that is there has a name: attribute 'dev' is missing")),
    }
}

/// What of an interface its element does not say.
pub(in super::super) fn own(index: usize, nic: &Nic) -> OwnInterface {
    let rate = |rate: Option<_>| rate.filter(|rate| !rates::is_bandwidth(*rate));
    OwnInterface {
        index,
        inbound: rate(nic.inbound),
        outbound: rate(nic.outbound),
        addresses: nic.addresses.clone(),
    }
}

pub(super) fn format(
    writer: &mut Writer,
    nic: &Nic,
    alias: Option<&str>,
    host: Option<&str>,
    kept: &[KeptElement],
) {
    let trusted = nic.trust_guest.then_some("yes");
    let tag = writer.tag("interface").attribute("type", kind(&nic.source));
    tag.optional("trustGuestRxFilters", trusted).open();
    if let Some(mac) = nic.mac {
        writer.tag("mac").attribute("address", mac).empty();
    }
    match &nic.source {
        NicSource::Bridge(bridge) => writer.tag("source").attribute("bridge", bridge).empty(),
        NicSource::OpenVswitch(port) => {
            let tag = writer.tag("source");
            tag.attribute("bridge", &port.bridge).empty();
            open_vswitch::format(writer, port);
        }
        NicSource::Switch(path) => {
            let tag = writer.tag("source").attribute("type", "unix");
            tag.attribute("path", path.display())
                .attribute("mode", "client")
                .empty();
        }
        NicSource::Network {
            network,
            port_group,
            port,
        } => {
            let port = port.as_deref();
            let tag = writer.tag("source").attribute("network", network);
            let tag = tag.optional("portgroup", port_group.as_deref());
            let tag = tag.optional("portid", port.map(|port| port.uuid));
            match port.map(|port| &port.link) {
                Some(PortLink::Bridge(bridge)) => tag.attribute("bridge", bridge).empty(),
                Some(PortLink::OpenVswitch(port)) => {
                    tag.attribute("bridge", &port.bridge).empty();
                }
                Some(PortLink::Direct { device, mode }) => {
                    tag.attribute("dev", device).attribute("mode", mode).empty();
                }
                None => tag.empty(),
            }
            if let Some(own) = &nic.virtual_port {
                open_vswitch::format_own(writer, own);
            }
        }
        NicSource::Direct { device, mode } => {
            let tag = writer.tag("source").attribute("dev", device);
            tag.attribute("mode", mode).empty();
        }
        NicSource::Tap(_) | NicSource::Nothing | NicSource::User => {}
    }
    let managed = matches!(nic.source, NicSource::Tap(_)).then_some("no");
    let name = nic.host_name().map(InterfaceName::as_str).or(host);
    let none = matches!(nic.source, NicSource::Switch(_) | NicSource::User);
    if let Some(name) = name.filter(|_| !none) {
        let tag = writer.tag("target").attribute("dev", name);
        tag.optional("managed", managed).empty();
    }
    writer.tag("model").attribute("type", "virtio").empty();
    let queues = Some(nic.queues).filter(|queues| *queues != 1);
    if queues.is_some() || nic.driver != NicDriver::User {
        let name = match nic.driver {
            NicDriver::User if matches!(nic.source, NicSource::Switch(_)) => None,
            NicDriver::User => Some("qemu"),
            NicDriver::Vhost => Some("vhost"),
        };
        let tag = writer.tag("driver").optional("name", name);
        tag.optional("queues", queues).empty();
    }
    let rates = [("inbound", nic.inbound), ("outbound", nic.outbound)];
    let rates = rates.map(|(name, rate)| (name, rate.filter(|rate| rates::is_bandwidth(*rate))));
    if rates.iter().any(|(_, rate)| rate.is_some()) {
        writer.tag("bandwidth").open();
        for (name, rate) in rates {
            if let Some(rate) = rate {
                rates::write_bandwidth(writer, name, rate);
            }
        }
        writer.close("bandwidth");
    }
    if nic.isolated {
        writer.tag("port").attribute("isolated", "yes").empty();
    }
    if let Some(filter) = &nic.filter {
        nwfilter::format_reference(writer, filter);
    }
    if !nic.link_up {
        writer.tag("link").attribute("state", "down").empty();
    }
    if let Some(mtu) = nic.mtu {
        writer.tag("mtu").attribute("size", mtu).empty();
    }
    if let Some(mac) = nic.mac {
        kept::write(writer, kept, &format!("devices/interface[{mac}]"));
    }
    address::format(writer, alias, nic.address);
    writer.close("interface");
}
