//! `<portgroup>` and what a network has of the same, and `<networkport>`.

use reeve_ipc::api::network::PortDetails;
use reeve_ipc::model::{PortGroup, PortLink, Vlan, VlanTag};
use reeve_ipc::spec::Rate;

use super::super::XmlError;
use super::super::device::rates;
use super::super::element::Element;
use super::super::write::Writer;
use super::{all, contents, needed};

/// Reads a kind of ports.
pub(super) fn parse_group(element: Element<'_>) -> Result<PortGroup, XmlError> {
    element.known(&["name", "default", "trustGuestRxFilters"])?;
    contents(element, &["vlan", "bandwidth"], &[])?;
    let (inbound, outbound) = bandwidth(element)?;
    Ok(PortGroup {
        name: element.required("name")?.to_owned(),
        default: element.switch("default")?.unwrap_or(false),
        inbound,
        outbound,
        vlan: element.child("vlan").map(vlan).transpose()?,
        trust_guest: element.switch("trustGuestRxFilters")?,
        isolated: None,
    })
}

/// Reads tags. As in libvirt, several of them, and one that is native, are a trunk's whether that is said or not.
pub(in super::super) fn vlan(element: Element<'_>) -> Result<Vlan, XmlError> {
    element.known(&["trunk"])?;
    contents(element, &[], &["tag"])?;
    let mut tags = Vec::new();
    for tag in all(element, "tag") {
        tag.known(&["id", "nativeMode"])?;
        tag.no_children()?;
        let native = match tag.attribute("nativeMode") {
            None => None,
            Some("tagged") => Some(true),
            Some("untagged") => Some(false),
            Some(_) => return Err(tag.invalid("a native tag is tagged or untagged")),
        };
        let id = needed(tag, "id")?;
        tags.push(VlanTag { id, native });
    }
    let several = tags.len() > 1 || tags.iter().any(|tag| tag.native.is_some());
    let trunk = element.switch("trunk")?;
    if several && trunk == Some(false) {
        return Err(element.invalid("several tags, or a native one, are a trunk's"));
    }
    Ok(Vlan {
        trunk: trunk.unwrap_or(several),
        tags,
    })
}

/// Reads what may go in, and out, of what an element is about.
pub(super) fn bandwidth(of: Element<'_>) -> Result<(Option<Rate>, Option<Rate>), XmlError> {
    let Some(element) = of.child("bandwidth") else {
        return Ok((None, None));
    };
    element.known(&[])?;
    contents(element, &["inbound", "outbound"], &[])?;
    let way = |name| match element.child(name) {
        Some(way) => rates::bandwidth(way),
        None => Ok(None),
    };
    Ok((way("inbound")?, way("outbound")?))
}

/// Reads whether the ports of a network are isolated.
pub(super) fn isolated(root: Element<'_>) -> Result<Option<bool>, XmlError> {
    let Some(port) = root.child("port") else {
        return Ok(None);
    };
    port.known(&["isolated"])?;
    port.no_children()?;
    port.switch("isolated")
}

pub(in super::super) fn format_vlan(writer: &mut Writer, vlan: &Vlan) {
    let tag = writer.tag("vlan");
    tag.optional("trunk", vlan.trunk.then_some("yes")).open();
    for VlanTag { id, native } in &vlan.tags {
        let native = native.map(|tagged| if tagged { "tagged" } else { "untagged" });
        let tag = writer.tag("tag").attribute("id", id);
        tag.optional("nativeMode", native).empty();
    }
    writer.close("vlan");
}

/// Writes those that it can say.
pub(super) fn format_bandwidth(writer: &mut Writer, inbound: Option<Rate>, outbound: Option<Rate>) {
    let rates = [("inbound", inbound), ("outbound", outbound)];
    let rates = rates.map(|(name, rate)| (name, rate.filter(|rate| rates::is_bandwidth(*rate))));
    if rates.iter().all(|(_, rate)| rate.is_none()) {
        return;
    }
    writer.tag("bandwidth").open();
    for (name, rate) in rates {
        if let Some(rate) = rate {
            rates::write_bandwidth(writer, name, rate);
        }
    }
    writer.close("bandwidth");
}

pub(super) fn format_isolated(writer: &mut Writer, isolated: bool) {
    if isolated {
        writer.tag("port").attribute("isolated", "yes").empty();
    }
}

pub(super) fn format_group(writer: &mut Writer, group: &PortGroup) {
    let trusted = group.trust_guest.map(|yes| if yes { "yes" } else { "no" });
    let tag = writer.tag("portgroup").attribute("name", &group.name);
    tag.optional("default", group.default.then_some("yes"))
        .optional("trustGuestRxFilters", trusted)
        .open();
    if let Some(vlan) = &group.vlan {
        format_vlan(writer, vlan);
    }
    format_bandwidth(writer, group.inbound, group.outbound);
    writer.close("portgroup");
}

/// Prints a port of a network that has a bridge of its own, or is on one of the host. What it is given is shown in
/// whole KiB.
#[must_use]
pub fn format_port(port: &PortDetails, own_bridge: bool) -> String {
    let mut writer = Writer::new();
    writer.tag("networkport").open();
    writer.text("uuid", port.port.uuid);
    writer.tag("owner").open();
    writer.text("name", &port.name);
    writer.text("uuid", port.domain);
    writer.close("owner");
    if let Some(group) = &port.port_group {
        writer.text("group", group);
    }
    writer.tag("mac").attribute("address", port.mac).empty();
    let given = &port.port;
    let whole = |rate: Option<Rate>| {
        rate.and_then(|rate| rates::rate_of(rates::bandwidth_of(rate)).ok().flatten())
    };
    format_bandwidth(&mut writer, whole(given.inbound), whole(given.outbound));
    let tag = writer.tag("rxfilters");
    let trusted = if given.trust_guest { "yes" } else { "no" };
    tag.attribute("trustGuest", trusted).empty();
    format_isolated(&mut writer, given.isolated);
    match &given.link {
        PortLink::Bridge(bridge) => {
            let kind = if own_bridge { "network" } else { "bridge" };
            let tag = writer.tag("plug").attribute("type", kind);
            tag.attribute("bridge", bridge).empty();
        }
        PortLink::OpenVswitch(port) => {
            let tag = writer.tag("plug").attribute("type", "bridge");
            tag.attribute("bridge", &port.bridge).empty();
        }
        PortLink::Direct { device, mode } => {
            let tag = writer.tag("plug").attribute("type", "direct");
            tag.attribute("dev", device).attribute("mode", mode).empty();
        }
    }
    writer.close("networkport");
    writer.finish()
}
