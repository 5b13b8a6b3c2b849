//! `<virtualport type='openvswitch'>` and `<vlan>` of an interface on a bridge, or on a virtual network.

use reeve_ipc::model::{NicSource, OpenVswitchPort, VirtualPort, Vlan};
use uuid::Uuid;

use super::super::XmlError;
use super::super::element::Element;
use super::super::network::port;
use super::super::write::Writer;

/// Whether an interface may have them.
pub(super) fn may_be(element: Element<'_>) -> bool {
    matches!(element.attribute("type"), Some("bridge" | "network"))
}

/// Makes of a bridge one of Open vSwitch, where that is said; with what an interface of a network says of its port.
pub(super) fn parse(
    element: Element<'_>,
    source: NicSource,
) -> Result<(NicSource, Option<Box<VirtualPort>>), XmlError> {
    let said = read(element)?;
    match source {
        NicSource::Bridge(bridge) if said.open_vswitch => {
            let port = OpenVswitchPort {
                bridge,
                interface_id: said.interface_id,
                profile: said.profile,
                vlan: said.vlan,
            };
            Ok((NicSource::OpenVswitch(Box::new(port)), None))
        }
        NicSource::Network { .. } => {
            let said = Some(said).filter(|said| *said != VirtualPort::default());
            Ok((source, said.map(Box::new)))
        }
        source => match element.child("vlan") {
            Some(vlan) => Err(vlan.unsupported(
                "tags are put on frames by Open vSwitch: it takes <virtualport type='openvswitch'>, and a bridge of its",
            )),
            None => Ok((source, None)),
        },
    }
}

fn read(element: Element<'_>) -> Result<VirtualPort, XmlError> {
    let mut said = VirtualPort {
        vlan: element.child("vlan").map(port::vlan).transpose()?,
        ..VirtualPort::default()
    };
    let Some(virtual_port) = element.child("virtualport") else {
        return Ok(said);
    };
    virtual_port.known(&["type"])?;
    virtual_port.required("type")?;
    virtual_port.only("type", &["openvswitch"])?;
    said.open_vswitch = true;
    for child in virtual_port.children() {
        if child.name() != "parameters" {
            return Err(child.not_provided());
        }
        child.known(&["interfaceid", "profileid"])?;
        child.no_children()?;
        said.interface_id = child.parsed("interfaceid")?;
        said.profile = child.attribute("profileid").map(str::to_owned);
    }
    Ok(said)
}

/// Writes a port.
pub(super) fn format(writer: &mut Writer, port: &OpenVswitchPort) {
    format_vlan(writer, port.vlan.as_ref());
    format_virtual_port(writer, port.interface_id, port.profile.as_ref());
}

/// Writes what an interface of a network says of its port.
pub(super) fn format_own(writer: &mut Writer, port: &VirtualPort) {
    format_vlan(writer, port.vlan.as_ref());
    if port.open_vswitch {
        format_virtual_port(writer, port.interface_id, port.profile.as_ref());
    }
}

fn format_vlan(writer: &mut Writer, vlan: Option<&Vlan>) {
    if let Some(vlan) = vlan {
        port::format_vlan(writer, vlan);
    }
}

fn format_virtual_port(writer: &mut Writer, interface_id: Option<Uuid>, profile: Option<&String>) {
    let tag = writer.tag("virtualport").attribute("type", "openvswitch");
    if interface_id.is_none() && profile.is_none() {
        return tag.empty();
    }
    tag.open();
    let tag = writer.tag("parameters");
    tag.optional("interfaceid", interface_id)
        .optional("profileid", profile)
        .empty();
    writer.close("virtualport");
}
