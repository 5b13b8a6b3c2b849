//! `<virtualport type='openvswitch'>` and `<vlan>` of an interface on a bridge.

use reeve_ipc::model::{NicSource, OpenVswitchPort};

use super::super::XmlError;
use super::super::element::Element;
use super::super::network::port;
use super::super::write::Writer;

/// Whether an interface may have them: one of a virtual network has what that says.
pub(super) fn may_be(element: Element<'_>) -> bool {
    let source = element.child("source");
    let of_network = source.is_some_and(|source| source.attribute("network").is_some());
    element.attribute("type") == Some("bridge") && !of_network
}

/// Makes of a bridge one of Open vSwitch, where that is said.
pub(super) fn parse(element: Element<'_>, source: NicSource) -> Result<NicSource, XmlError> {
    let NicSource::Bridge(bridge) = source else {
        return Ok(source);
    };
    let vlan = element.child("vlan");
    let Some(virtual_port) = element.child("virtualport") else {
        return match vlan {
            Some(vlan) => Err(vlan.unsupported(
                "tags are put on frames by Open vSwitch: it takes <virtualport type='openvswitch'>, and a bridge of its",
            )),
            None => Ok(NicSource::Bridge(bridge)),
        };
    };
    virtual_port.known(&["type"])?;
    virtual_port.required("type")?;
    virtual_port.only("type", &["openvswitch"])?;
    let mut port = OpenVswitchPort::of(bridge);
    for child in virtual_port.children() {
        if child.name() != "parameters" {
            return Err(child.not_provided());
        }
        child.known(&["interfaceid", "profileid"])?;
        child.no_children()?;
        port.interface_id = child.parsed("interfaceid")?;
        port.profile = child.attribute("profileid").map(str::to_owned);
    }
    port.vlan = vlan.map(port::vlan).transpose()?;
    Ok(NicSource::OpenVswitch(Box::new(port)))
}

pub(super) fn format(writer: &mut Writer, port: &OpenVswitchPort) {
    if let Some(vlan) = &port.vlan {
        port::format_vlan(writer, vlan);
    }
    let tag = writer.tag("virtualport").attribute("type", "openvswitch");
    if port.interface_id.is_none() && port.profile.is_none() {
        return tag.empty();
    }
    tag.open();
    let tag = writer.tag("parameters");
    tag.optional("interfaceid", port.interface_id)
        .optional("profileid", port.profile.as_ref())
        .empty();
    writer.close("virtualport");
}
