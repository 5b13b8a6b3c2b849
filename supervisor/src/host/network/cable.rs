//! Where a cable of the host's own (veth(4)) ends: one whose other end is a port of a bridge is no way out of the host,
//! but a place on that bridge.

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage};
use rustix::io::Errno;

use super::links::Links;

/// More than the kernel stacks links (`MAX_NEST_DEV`).
const TAGS: usize = 16;

/// The link that the other end of a cable, or of that which `device` is a tag of, is a port of: a bridge as a rule.
/// `None` of what is no cable, of a cable to another network namespace, and of one whose other end is no port.
///
/// # Errors
/// Why it cannot be seen; `ENODEV` without such a device.
pub(crate) fn ends_at(device: &str) -> Result<Option<String>, Errno> {
    let mut links = Links::open()?;
    let mut asked = LinkMessage::default();
    let name = LinkAttribute::IfName(device.to_owned());
    asked.attributes.push(name);
    for _ in 0..TAGS {
        let found = End::of(&mut links, asked)?;
        let Some(lower) = found.lower else {
            return Ok(None);
        };
        match found.kind {
            Some(InfoKind::Vlan) => asked = numbered(lower),
            Some(InfoKind::Veth) => {
                let other = End::of(&mut links, numbered(lower))?;
                let port_of = other.port_of.map(|bridge| links.name(bridge));
                return Ok(port_of.transpose()?.flatten());
            }
            _ => return Ok(None),
        }
    }
    Err(Errno::LOOP)
}

fn numbered(index: u32) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message
}

/// What is to be known of a link.
#[derive(Debug, Default)]
struct End {
    kind: Option<InfoKind>,
    /// What it is upon, or connected with, in this network namespace.
    lower: Option<u32>,
    port_of: Option<u32>,
}

impl End {
    fn of(links: &mut Links, asked: LinkMessage) -> Result<Self, Errno> {
        let mut found = None;
        links.ask(0, RouteNetlinkMessage::GetLink(asked), |answer| {
            if let RouteNetlinkMessage::NewLink(link) = answer {
                found = Some(Self::read(&link));
            }
        })?;
        found.ok_or(Errno::NODEV)
    }

    fn read(link: &LinkMessage) -> Self {
        let mut end = Self::default();
        let mut elsewhere = false;
        for attribute in &link.attributes {
            match attribute {
                LinkAttribute::LinkInfo(info) => {
                    end.kind = info.iter().find_map(|info| match info {
                        LinkInfo::Kind(kind) => Some(kind.clone()),
                        _ => None,
                    });
                }
                LinkAttribute::Link(lower) => end.lower = Some(*lower),
                LinkAttribute::LinkNetNsId(_) => elsewhere = true,
                LinkAttribute::Controller(of) => end.port_of = Some(*of),
                _ => {}
            }
        }
        // The number is of something else here.
        end.lower = end.lower.filter(|_| !elsewhere);
        end
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::tap::tests::{alone, ip};

    #[test]
    fn a_cable_to_a_bridge_is_told_from_one_that_leads_elsewhere() {
        alone(|| {
            for (near, far) in [("near0", "far0"), ("near1", "far1")] {
                ip(&["link", "add", near, "type", "veth", "peer", "name", far]);
            }
            ip(&["link", "add", "br0", "type", "bridge"]);
            ip(&["link", "set", "far0", "master", "br0"]);
            ip(&["link", "set", "near1", "master", "br0"]);
            assert_eq!(ends_at("near0"), Ok(Some("br0".to_owned())));
            // That it is a port itself is no matter, nor are a bridge and what is no cable.
            for device in ["near1", "far0", "br0", "lo"] {
                assert_eq!(ends_at(device), Ok(None), "{device}");
            }
            assert_eq!(ends_at("none0"), Err(Errno::NODEV));
        });
    }
}
