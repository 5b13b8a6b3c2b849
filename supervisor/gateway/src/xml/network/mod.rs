//! `<network>`, the parts of it that `virNetworkUpdate` hands in, and `<networkport>`.
//!
//! What a host says of a network (who is connected to it) is passed over where a document is read: clients hand in
//! what they were given. What is known and cannot be had is refused by its path. Addresses are printed in one form:
//! with a netmask where they are of IPv4, with a prefix where they are of IPv6.

mod address;
mod dns;
mod forward;
mod labels;
mod part;
pub(super) mod port;

use reeve_ipc::model::{
    BridgeSettings, Dns, Forward, Network, NetworkDomain, NetworkName, NetworkUuid,
};

pub use self::part::{Section, parse_part};
pub use self::port::format_port;
use super::XmlError;
use super::element::{Element, document};
use super::write::Writer;

/// What the documents of networks have once at most.
const ONCE: [&str; 14] = [
    "name",
    "uuid",
    "title",
    "description",
    "metadata",
    "forward",
    "bridge",
    "mtu",
    "mac",
    "domain",
    "dns",
    "vlan",
    "bandwidth",
    "port",
];
/// And what they may have several of.
const SEVERAL: [&str; 3] = ["ip", "route", "portgroup"];

/// That there is nothing in an element but these: the first ones once each.
fn contents(element: Element<'_>, once: &[&str], several: &[&str]) -> Result<(), XmlError> {
    let mut seen: Vec<&str> = Vec::new();
    for child in element.children() {
        let name = child.name();
        if several.contains(&name) {
            continue;
        }
        if !once.contains(&name) {
            return Err(child.not_provided());
        }
        if seen.contains(&name) {
            return Err(child.invalid("there is a second one"));
        }
        seen.push(name);
    }
    Ok(())
}

/// The elements of that name in another.
fn all<'a>(element: Element<'a>, name: &str) -> impl Iterator<Item = Element<'a>> {
    element.children().filter(move |child| child.name() == name)
}

/// The value of an attribute that must be there.
fn needed<T: std::str::FromStr>(element: Element<'_>, name: &str) -> Result<T, XmlError>
where
    T::Err: std::fmt::Display,
{
    element.required(name)?;
    let missing = || element.invalid(format!("attribute '{name}' is missing"));
    element.parsed(name)?.ok_or_else(missing)
}

/// Reads a network; one whose document has no UUID gets that one.
///
/// # Errors
/// [`XmlError`].
pub fn parse_network(text: &str, uuid: NetworkUuid) -> Result<Network, XmlError> {
    let document = document(text)?;
    let root = Element::any_root(&document);
    if root.name() != "network" {
        // As libvirt says it of networks, and not of domains.
        let found: String = root.local_name().chars().take(64).collect();
        let why = format!("expecting root element of 'network', not '{found}'");
        return Err(XmlError::invalid(why));
    }
    root.known(&["connections", "ipv6", "trustGuestRxFilters"])?;
    let once: Vec<&str> = ONCE.into_iter().chain(["virtualport"]).collect();
    contents(root, &once, &SEVERAL)?;
    let name = root.child("name").ok_or_else(XmlError::nameless)?;
    let name = NetworkName::try_from(name.text())?;
    let uuid = match root.child("uuid") {
        Some(uuid) => NetworkUuid(uuid.value()?),
        None => uuid,
    };
    let mut network = Network::new(name, uuid);
    let (labels, own) = labels::parse(root)?;
    network.labels = labels;
    network.ipv6 = root.switch("ipv6")?.unwrap_or(false);
    network.trust_guest = root.switch("trustGuestRxFilters")?.unwrap_or(false);
    network.bridge = bridge(root)?;
    network.forward = forward::parse(root, &mut network.bridge)?;
    if let Some(mtu) = root.child("mtu") {
        mtu.known(&["size"])?;
        mtu.no_children()?;
        network.mtu = Some(needed(mtu, "size")?);
    }
    if let Some(mac) = root.child("mac") {
        mac.known(&["address"])?;
        mac.no_children()?;
        network.mac = Some(needed(mac, "address")?);
    }
    if let Some(domain) = root.child("domain") {
        domain.known(&["name", "localOnly"])?;
        domain.no_children()?;
        network.domain = Some(NetworkDomain {
            name: domain.required("name")?.to_owned(),
            local_only: domain.switch("localOnly")?.unwrap_or(false),
        });
    }
    network.dns = root.child("dns").map_or(Ok(Dns::default()), dns::parse)?;
    network.vlan = root.child("vlan").map(port::vlan).transpose()?;
    (network.inbound, network.outbound) = port::bandwidth(root)?;
    network.isolated = port::isolated(root)?.unwrap_or(false);
    for ip in all(root, "ip") {
        network.addresses.push(address::parse(ip)?);
    }
    for route in all(root, "route") {
        network.routes.push(address::parse_route(route)?);
    }
    if let Some(virtual_port) = root.child("virtualport") {
        virtual_port.known(&["type"])?;
        virtual_port.no_children()?;
        virtual_port.required("type")?;
        virtual_port.only("type", &["openvswitch"])?;
        network.open_vswitch = true;
    }
    for group in all(root, "portgroup") {
        network.port_groups.push(port::parse_group(group)?);
    }
    own.apply(&mut network)?;
    forwards_somewhere(root, &network)?;
    Ok(network)
}

/// That a network whose packets the host forwards has an address, as libvirt wants it.
fn forwards_somewhere(root: Element<'_>, network: &Network) -> Result<(), XmlError> {
    let routed = matches!(
        network.forward,
        Forward::Nat(_) | Forward::Route { .. } | Forward::Open
    );
    match network.forward.word() {
        Some(word) if routed && network.addresses.is_empty() => Err(root.invalid(format!(
            "{word} forwarding requested, but no IP address provided for network '{}'",
            network.name
        ))),
        _ => Ok(()),
    }
}

fn bridge(root: Element<'_>) -> Result<BridgeSettings, XmlError> {
    let mut settings = BridgeSettings::default();
    let Some(bridge) = root.child("bridge") else {
        return Ok(settings);
    };
    bridge.known(&["name", "stp", "delay", "macTableManager"])?;
    bridge.no_children()?;
    bridge.only("macTableManager", &["kernel"])?;
    // The pattern of names that are given: there is none.
    if bridge.attribute("name") != Some("virbr%d") {
        settings.name = bridge.parsed("name")?;
    }
    settings.stp = bridge.switch("stp")?.unwrap_or(settings.stp);
    settings.delay = bridge.parsed("delay")?.unwrap_or(settings.delay);
    Ok(settings)
}

/// Prints a network; with so many interfaces connected to it, while it is active.
#[must_use]
pub fn format_network(network: &Network, connections: Option<u32>) -> String {
    let mut writer = Writer::new();
    let writer = &mut writer;
    let tag = writer.tag("network");
    let tag = tag.optional("connections", connections.filter(|count| *count > 0));
    let tag = tag.optional("ipv6", network.ipv6.then_some("yes"));
    tag.optional("trustGuestRxFilters", network.trust_guest.then_some("yes"))
        .open();
    writer.text("name", &network.name);
    writer.text("uuid", network.uuid);
    labels::format(writer, network);
    forward::format(writer, &network.forward);
    format_bridge(writer, network);
    if let Some(mtu) = network.mtu {
        writer.tag("mtu").attribute("size", mtu).empty();
    }
    if let Some(mac) = network.mac {
        writer.tag("mac").attribute("address", mac).empty();
    }
    if let Some(domain) = &network.domain {
        let tag = writer.tag("domain").attribute("name", &domain.name);
        tag.optional("localOnly", domain.local_only.then_some("yes"))
            .empty();
    }
    dns::format(writer, &network.dns);
    if let Some(vlan) = &network.vlan {
        port::format_vlan(writer, vlan);
    }
    port::format_bandwidth(writer, network.inbound, network.outbound);
    port::format_isolated(writer, network.isolated);
    for address in &network.addresses {
        address::format(writer, address);
    }
    for route in &network.routes {
        address::format_route(writer, route);
    }
    if network.open_vswitch {
        let tag = writer.tag("virtualport");
        tag.attribute("type", "openvswitch").empty();
    }
    for group in &network.port_groups {
        port::format_group(writer, group);
    }
    writer.close("network");
    std::mem::take(writer).finish()
}

fn format_bridge(writer: &mut Writer, network: &Network) {
    if let Forward::Bridge(name) = &network.forward {
        writer.tag("bridge").attribute("name", name).empty();
        return;
    }
    let bridge = &network.bridge;
    if !network.forward.makes_bridge() && *bridge == BridgeSettings::default() {
        return;
    }
    let tag = writer.tag("bridge").optional("name", bridge.name.as_ref());
    tag.attribute("stp", if bridge.stp { "on" } else { "off" })
        .attribute("delay", bridge.delay)
        .empty();
}
