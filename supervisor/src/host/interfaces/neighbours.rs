//! The host's neighbours (RFC 826, RFC 4861): the addresses that it has learned of guests by talking to them.
//!
//! Guests say of themselves which addresses they have, and the kernel bounds how many it learns; of each interface only
//! so many are told. A neighbour counts for a guest's interface only where it is behind the link that the interface is
//! on: the same Ethernet address elsewhere is somebody else's.

use std::collections::BTreeSet;
use std::net::IpAddr;

use netlink_packet_core::NLM_F_DUMP;
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use reeve_ipc::api::interface::{MAX_INTERFACE_ADDRESSES, NicNeighbour};
use reeve_ipc::model::InterfaceName;
use reeve_ipc::spec::MacAddress;
use rustix::io::Errno;

use crate::host::network::links::Links;

/// An interface of a guest, and what it is beside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beside {
    /// Its address on the link.
    pub mac: MacAddress,
    /// Its name on the host.
    pub tap: String,
    /// The bridge that it was connected to, where it was to one: that of Open vSwitch is no link's master.
    pub bridge: Option<InterfaceName>,
}

/// What the host knows of each of them, of which it knows anything.
///
/// # Errors
/// The kernel's.
pub fn neighbours(of: Vec<Beside>) -> Result<Vec<NicNeighbour>, Errno> {
    let mut links = Links::open()?;
    let mut known = Vec::new();
    for beside in of {
        // A tap that has just gone has no neighbours.
        let behind = behind(&mut links, &beside)?;
        known.push((beside, behind, BTreeSet::new()));
    }
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut get = NeighbourMessage::default();
        get.header.family = family;
        let get = RouteNetlinkMessage::GetNeighbour(get);
        let asked = links.ask(NLM_F_DUMP, get, |answer| {
            let RouteNetlinkMessage::NewNeighbour(message) = answer else {
                return;
            };
            let Some((mac, address)) = learned(&message) else {
                return;
            };
            let index = message.header.ifindex;
            for (beside, behind, addresses) in &mut known {
                if beside.mac.octets() == *mac
                    && behind.contains(&index)
                    && addresses.len() < MAX_INTERFACE_ADDRESSES
                {
                    addresses.insert(address);
                }
            }
        });
        match asked {
            // A kernel without IPv6.
            Err(Errno::AFNOSUPPORT | Errno::OPNOTSUPP) => {}
            asked => asked?,
        }
    }
    let known = known
        .into_iter()
        .filter(|(_, _, addresses)| !addresses.is_empty());
    let known = known.map(|(beside, _, addresses)| NicNeighbour {
        mac: beside.mac,
        host: beside.tap,
        addresses: addresses.into_iter().collect(),
    });
    Ok(known.collect())
}

/// The links by which the host would reach a guest's interface: its tap, what that is a port of, and its bridge.
fn behind(links: &mut Links, beside: &Beside) -> Result<Vec<u32>, Errno> {
    let mut behind = Vec::new();
    let bridge = beside.bridge.as_ref().map(InterfaceName::as_str);
    for name in [Some(beside.tap.as_str()), bridge].into_iter().flatten() {
        let mut get = LinkMessage::default();
        let named = LinkAttribute::IfName(name.to_owned());
        get.attributes.push(named);
        let asked = links.ask(0, RouteNetlinkMessage::GetLink(get), |answer| {
            let RouteNetlinkMessage::NewLink(link) = answer else {
                return;
            };
            behind.push(link.header.index);
            behind.extend(
                link.attributes
                    .iter()
                    .find_map(|attribute| match attribute {
                        LinkAttribute::Controller(master) => Some(*master),
                        _ => None,
                    }),
            );
        });
        match asked {
            Err(Errno::NODEV | Errno::NXIO) => {}
            asked => asked?,
        }
    }
    Ok(behind)
}

/// Which address a neighbour has, where the host has learned it and not given it up.
fn learned(message: &NeighbourMessage) -> Option<(&[u8], IpAddr)> {
    let given_up = matches!(
        message.header.state,
        NeighbourState::Incomplete
            | NeighbourState::Failed
            | NeighbourState::Noarp
            | NeighbourState::None
    );
    let (mut mac, mut address) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::LinkLayerAddress(found) => mac = Some(found.as_slice()),
            NeighbourAttribute::Destination(NeighbourAddress::Inet(found)) => {
                address = Some(IpAddr::V4(*found));
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(found)) => {
                address = Some(IpAddr::V6(*found));
            }
            _ => {}
        }
    }
    Some((mac?, address?)).filter(|_| !given_up)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(state: NeighbourState, attributes: Vec<NeighbourAttribute>) -> NeighbourMessage {
        let mut message = NeighbourMessage::default();
        message.header.state = state;
        message.attributes = attributes;
        message
    }

    #[test]
    fn only_what_was_learned_and_is_not_given_up_counts() {
        let address = || {
            let address = NeighbourAddress::Inet([10, 0, 0, 7].into());
            NeighbourAttribute::Destination(address)
        };
        let mac = || NeighbourAttribute::LinkLayerAddress(vec![0x52, 0x54, 0, 0, 0, 1]);
        for state in [
            NeighbourState::Reachable,
            NeighbourState::Stale,
            NeighbourState::Permanent,
        ] {
            let message = message(state, vec![address(), mac()]);
            let (mac, address) = learned(&message).unwrap();
            assert_eq!(mac, [0x52, 0x54, 0, 0, 0, 1]);
            assert_eq!(address, IpAddr::from([10, 0, 0, 7]));
        }
        for state in [NeighbourState::Incomplete, NeighbourState::Failed] {
            assert_eq!(learned(&message(state, vec![address(), mac()])), None);
        }
        let reachable = NeighbourState::Reachable;
        assert_eq!(learned(&message(reachable, vec![address()])), None);
        assert_eq!(learned(&message(reachable, vec![mac()])), None);
    }

    #[test]
    fn what_is_gone_has_no_neighbours() {
        let beside = Beside {
            mac: "52:54:00:00:00:01".parse().unwrap(),
            tap: "reeve-gone0".to_owned(),
            bridge: Some("reeve-gone1".parse().unwrap()),
        };
        assert_eq!(neighbours(vec![beside]), Ok(Vec::new()));
    }
}
