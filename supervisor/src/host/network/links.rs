//! Bridges, their addresses and routes: asked and told by rtnetlink(7).
//!
//! ## Decisions
//!
//! 1. 2026-11: messages by `netlink-packet-route`, which is what `rtnetlink` is made of, over our own socket. A call
//!    here is on a thread that may wait, asks one thing and has its answer at once; `rtnetlink` would have it run a
//!    loop of tokio's and a task for that, and the routes of a thread's own network namespace asked for on another.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::OwnedFd;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkHeader,
    NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage,
};
use netlink_packet_route::link::{
    BridgeStpState, InfoBridge, InfoData, InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use reeve_ipc::model::{InterfaceName, Network, NetworkAddress, NetworkRoute};
use reeve_ipc::spec::MacAddress;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

use crate::host::netlink;
use crate::host::tap::FIRST_NUMBER;

/// More than the kernel says at once.
const ANSWER_BYTES: usize = 64 << 10;
/// The least seconds of a new port's waiting that the kernel has with STP.
const LEAST_DELAY: u32 = 2;
/// In what the kernel counts them.
const HUNDREDTHS: u32 = 100;
/// The MTU of a bridge of which none is said.
const ETHERNET_MTU: u32 = 1500;

/// A bridge as it is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bridge {
    pub(super) name: InterfaceName,
    pub(super) mac: Option<MacAddress>,
    pub(super) mtu: Option<u16>,
    pub(super) stp: bool,
    /// Seconds.
    pub(super) delay: u32,
}

impl Bridge {
    /// That of a network; `None` where it has no name yet, or makes none.
    pub(super) fn of(network: &Network) -> Option<Self> {
        let name = network.bridge.name.as_ref();
        let name = name.filter(|_| network.forward.makes_bridge())?;
        Some(Self {
            name: name.clone(),
            mac: network.mac,
            mtu: network.mtu,
            stp: network.bridge.stp,
            delay: network.bridge.delay,
        })
    }

    fn attributes(&self) -> Vec<LinkAttribute> {
        let least = if self.stp { LEAST_DELAY } else { 0 };
        let delay = self.delay.max(least).saturating_mul(HUNDREDTHS);
        let stp = match self.stp {
            true => BridgeStpState::KernelStp,
            false => BridgeStpState::Disabled,
        };
        let data = vec![InfoBridge::ForwardDelay(delay), InfoBridge::StpState(stp)];
        let mut attributes = vec![LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Bridge),
            LinkInfo::Data(InfoData::Bridge(data)),
        ])];
        if let Some(mac) = self.mac {
            attributes.push(LinkAttribute::Address(mac.octets().to_vec()));
        }
        let mtu = self.mtu.map_or(ETHERNET_MTU, u32::from);
        attributes.push(LinkAttribute::Mtu(mtu));
        attributes
    }
}

/// A link that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) index: u32,
    pub(super) name: String,
    pub(super) is_bridge: bool,
    address: Vec<u8>,
}

impl Link {
    /// Whether that is its Ethernet address.
    pub(super) fn has(&self, mac: MacAddress) -> bool {
        self.address == mac.octets()
    }
}

/// Where the host finds addresses: an address of its own with those beside it, or a route of its main table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reached {
    /// The link.
    pub(super) index: u32,
    /// The lowest of them, or the host's own.
    pub(super) address: IpAddr,
    pub(super) prefix: u8,
    /// They are behind a router.
    pub(super) behind: bool,
    /// A router has told of it.
    pub(super) advertised: bool,
}

/// A socket of rtnetlink.
#[derive(Debug)]
pub(in crate::host) struct Links {
    socket: OwnedFd,
    number: u32,
}

fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

impl Links {
    pub(in crate::host) fn open() -> Result<Self, Errno> {
        let socket = netlink::socket(None)?;
        Ok(Self { socket, number: 0 })
    }

    /// Sends a message and takes what comes, until the kernel has said that this is all.
    pub(in crate::host) fn ask(
        &mut self,
        flags: u16,
        message: RouteNetlinkMessage,
        mut take: impl FnMut(RouteNetlinkMessage),
    ) -> Result<(), Errno> {
        self.number = self.number.wrapping_add(1);
        let number = self.number;
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        header.sequence_number = number;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        rustix::net::send(&self.socket, &bytes, SendFlags::empty())?;
        let mut buffer = vec![0; ANSWER_BYTES];
        loop {
            let received = rustix::net::recv(&self.socket, &mut *buffer, RecvFlags::empty());
            let (length, _) = match received {
                Err(Errno::INTR) => continue,
                received => received?,
            };
            let mut rest = buffer.get(..length).unwrap_or_default();
            while let Some(first) = rest.first_chunk::<4>() {
                let length = usize::try_from(u32::from_ne_bytes(*first)).unwrap_or(usize::MAX);
                // The kernel does not write half a message.
                let one = rest.get(..length).ok_or(Errno::PROTO)?;
                rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
                // One of a form that the library does not know says nothing of what is looked for here.
                let Ok(answer) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(one) else {
                    continue;
                };
                if answer.header.sequence_number != number {
                    continue;
                }
                match answer.payload {
                    NetlinkPayload::Done(_) => return Ok(()),
                    NetlinkPayload::Error(error) => {
                        let code = error.raw_code();
                        return match code {
                            0 => Ok(()),
                            code => Err(Errno::from_raw_os_error(code.saturating_neg())),
                        };
                    }
                    NetlinkPayload::InnerMessage(message) => take(message),
                    _ => {}
                }
            }
        }
    }

    fn tell(&mut self, flags: u16, message: RouteNetlinkMessage) -> Result<(), Errno> {
        self.ask(flags, message, |_| ())
    }

    /// The link of that name.
    pub(super) fn find(&mut self, name: &str) -> Result<Option<Link>, Errno> {
        let mut message = LinkMessage::default();
        message
            .attributes
            .push(LinkAttribute::IfName(name.to_owned()));
        self.find_by(message)
    }

    /// The name of a link.
    pub(super) fn name(&mut self, index: u32) -> Result<Option<String>, Errno> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        Ok(self.find_by(message)?.map(|link| link.name))
    }

    fn find_by(&mut self, message: LinkMessage) -> Result<Option<Link>, Errno> {
        let mut found = None;
        let asked = self.ask(0, RouteNetlinkMessage::GetLink(message), |answer| {
            if let RouteNetlinkMessage::NewLink(link) = answer {
                found = Some(link_of(&link));
            }
        });
        match asked {
            Err(Errno::NODEV | Errno::NXIO) => Ok(None),
            asked => asked.map(|()| found),
        }
    }

    /// Makes a bridge, which is down. `EEXIST` where anything has its name.
    pub(super) fn make(&mut self, bridge: &Bridge) -> Result<u32, Errno> {
        let mut message = LinkMessage::default();
        let name = LinkAttribute::IfName(bridge.name.as_str().to_owned());
        message.attributes.push(name);
        message.attributes.extend(bridge.attributes());
        let flags = NLM_F_CREATE | NLM_F_EXCL;
        self.tell(flags, RouteNetlinkMessage::NewLink(message))?;
        let made = self.find(bridge.name.as_str())?;
        made.map(|link| link.index).ok_or(Errno::NODEV)
    }

    /// Gives a bridge that is there those settings.
    pub(super) fn set(&mut self, index: u32, bridge: &Bridge) -> Result<(), Errno> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.attributes = bridge.attributes();
        self.tell(0, RouteNetlinkMessage::NewLink(message))
    }

    pub(super) fn up(&mut self, index: u32) -> Result<(), Errno> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        self.tell(0, RouteNetlinkMessage::SetLink(message))
    }

    /// Sets the taps down that are ports of a bridge: without it they would be links of the host's own, and their guests
    /// its neighbours.
    pub(super) fn taps_down(&mut self, bridge: u32) -> Result<(), Errno> {
        let mut taps = Vec::new();
        let message = RouteNetlinkMessage::GetLink(LinkMessage::default());
        self.ask(NLM_F_DUMP, message, |answer| {
            if let RouteNetlinkMessage::NewLink(link) = answer {
                let is_port = link.attributes.contains(&LinkAttribute::Controller(bridge));
                let tun = LinkInfo::Kind(InfoKind::Tun);
                let is_tap = link.attributes.iter().any(
                    |attribute| matches!(attribute, LinkAttribute::LinkInfo(info) if info.contains(&tun)),
                );
                if is_port && is_tap {
                    taps.push(link.header.index);
                }
            }
        })?;
        for tap in taps {
            let mut message = LinkMessage::default();
            message.header.index = tap;
            message.header.change_mask = LinkFlags::Up;
            gone(self.tell(0, RouteNetlinkMessage::SetLink(message)))?;
        }
        Ok(())
    }

    /// Deletes a link; one that is gone is.
    pub(super) fn delete(&mut self, index: u32) -> Result<(), Errno> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        gone(self.tell(0, RouteNetlinkMessage::DelLink(message)))
    }

    /// Gives a link an address of a network. Of IPv6 without asking whether somebody has it: nobody is there yet who
    /// could, and a bridge without a port would ask for ever.
    pub(super) fn add_address(
        &mut self,
        index: u32,
        address: &NetworkAddress,
    ) -> Result<(), Errno> {
        let mut message = about(index, address);
        match (address.address, address.last()) {
            (IpAddr::V4(_), IpAddr::V4(last)) if address.prefix < 31 => {
                message.attributes.push(AddressAttribute::Broadcast(last));
            }
            (IpAddr::V6(_), _) => {
                message.header.flags = AddressHeaderFlags::Nodad;
                let flags = AddressFlags::Nodad;
                message.attributes.push(AddressAttribute::Flags(flags));
            }
            _ => {}
        }
        let flags = NLM_F_CREATE | NLM_F_REPLACE;
        self.tell(flags, RouteNetlinkMessage::NewAddress(message))
    }

    pub(super) fn delete_address(
        &mut self,
        index: u32,
        address: &NetworkAddress,
    ) -> Result<(), Errno> {
        let message = RouteNetlinkMessage::DelAddress(about(index, address));
        gone(self.tell(0, message))
    }

    /// A route of the main table by a link. `EEXIST` where the host has one like it by another.
    pub(super) fn add_route(&mut self, index: u32, route: &NetworkRoute) -> Result<(), Errno> {
        let message = RouteNetlinkMessage::NewRoute(route_message(index, route));
        let added = self.tell(NLM_F_CREATE | NLM_F_EXCL, message);
        if added != Err(Errno::EXIST) {
            return added;
        }
        let ours = |found: &Reached| {
            let to = (found.address, found.prefix);
            found.index == index && to == (route.destination, route.prefix)
        };
        match self.routes()?.iter().any(ours) {
            true => Ok(()),
            false => added,
        }
    }

    pub(super) fn delete_route(&mut self, index: u32, route: &NetworkRoute) -> Result<(), Errno> {
        let message = RouteNetlinkMessage::DelRoute(route_message(index, route));
        gone(self.tell(0, message))
    }

    /// The highest number of a link that the kernel has dealt out: it gives a new one the next. Those of macvtaps say
    /// nothing of when they came.
    pub(super) fn newest(&mut self) -> Result<u32, Errno> {
        let mut newest = 0;
        let message = RouteNetlinkMessage::GetLink(LinkMessage::default());
        self.ask(NLM_F_DUMP, message, |answer| {
            if let RouteNetlinkMessage::NewLink(link) = answer {
                if is_dealt_out(link.header.index) {
                    newest = newest.max(link.header.index);
                }
            }
        })?;
        Ok(newest)
    }

    /// The host's own addresses.
    pub(super) fn addresses(&mut self) -> Result<Vec<Reached>, Errno> {
        let mut all = Vec::new();
        let message = AddressMessage::default();
        self.ask(
            NLM_F_DUMP,
            RouteNetlinkMessage::GetAddress(message),
            |answer| {
                if let RouteNetlinkMessage::NewAddress(message) = answer {
                    all.extend(own_address(&message));
                }
            },
        )?;
        Ok(all)
    }

    /// The host's own addresses and what its main table has, but for default routes.
    pub(super) fn reached(&mut self) -> Result<Vec<Reached>, Errno> {
        let mut all = self.addresses()?;
        all.extend(self.routes()?.into_iter().filter(|route| route.prefix > 0));
        Ok(all)
    }

    /// What its main table has.
    pub(super) fn routes(&mut self) -> Result<Vec<Reached>, Errno> {
        let mut all = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut message = RouteMessage::default();
            message.header.address_family = family;
            let asked = self.ask(
                NLM_F_DUMP,
                RouteNetlinkMessage::GetRoute(message),
                |answer| {
                    if let RouteNetlinkMessage::NewRoute(message) = answer {
                        all.extend(main_route(&message));
                    }
                },
            );
            match asked {
                // A kernel without IPv6.
                Err(Errno::AFNOSUPPORT | Errno::OPNOTSUPP) => {}
                asked => asked?,
            }
        }
        Ok(all)
    }
}

/// What is not there any more is what was wanted.
fn gone(deleted: Result<(), Errno>) -> Result<(), Errno> {
    match deleted {
        Err(Errno::NODEV | Errno::NXIO | Errno::ADDRNOTAVAIL | Errno::SRCH) => Ok(()),
        deleted => deleted,
    }
}

fn link_of(message: &LinkMessage) -> Link {
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        is_bridge: false,
        address: Vec::new(),
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Address(address) => link.address.clone_from(address),
            LinkAttribute::LinkInfo(info) => {
                link.is_bridge = info.contains(&LinkInfo::Kind(InfoKind::Bridge));
            }
            _ => {}
        }
    }
    link
}

/// Whether the kernel has given a link its number, and not one of us, who draws it.
pub(super) const fn is_dealt_out(index: u32) -> bool {
    index < FIRST_NUMBER
}

fn about(index: u32, address: &NetworkAddress) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family(address.address);
    message.header.prefix_len = address.prefix;
    message.header.index = index;
    message.attributes = vec![
        AddressAttribute::Local(address.address),
        AddressAttribute::Address(address.address),
    ];
    message
}

fn route_message(index: u32, route: &NetworkRoute) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family(route.destination);
    message.header.destination_prefix_length = route.prefix;
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Static;
    message.header.scope = RouteScope::Universe;
    message.header.kind = RouteType::Unicast;
    message.attributes = vec![
        RouteAttribute::Destination(route.destination.into()),
        RouteAttribute::Gateway(route.gateway.into()),
        RouteAttribute::Oif(index),
    ];
    // What libvirt gives those of which none is said.
    let metric = route.metric.unwrap_or(1);
    message.attributes.push(RouteAttribute::Priority(metric));
    message
}

fn own_address(message: &AddressMessage) -> Option<Reached> {
    let (mut local, mut address) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(found) => local = Some(*found),
            // Of a tunnel, that of the other end.
            AddressAttribute::Address(found) => address = Some(*found),
            _ => {}
        }
    }
    Some(Reached {
        index: message.header.index,
        address: local.or(address)?,
        prefix: message.header.prefix_len,
        behind: false,
        advertised: false,
    })
}

fn main_route(message: &RouteMessage) -> Option<Reached> {
    let header = &message.header;
    let (mut table, mut index) = (u32::from(header.table), 0);
    let (mut destination, mut behind) = (None, false);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Table(number) => table = *number,
            RouteAttribute::Oif(number) => index = *number,
            RouteAttribute::Gateway(_) | RouteAttribute::Via(_) | RouteAttribute::MultiPath(_) => {
                behind = true;
            }
            RouteAttribute::Destination(RouteAddress::Inet(to)) => {
                destination = Some(IpAddr::V4(*to));
            }
            RouteAttribute::Destination(RouteAddress::Inet6(to)) => {
                destination = Some(IpAddr::V6(*to));
            }
            _ => {}
        }
    }
    if table != u32::from(RouteHeader::RT_TABLE_MAIN) || header.kind != RouteType::Unicast {
        return None;
    }
    let everywhere = match header.address_family {
        AddressFamily::Inet => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        _ => IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED),
    };
    Some(Reached {
        index,
        address: destination.unwrap_or(everywhere),
        prefix: header.destination_prefix_length,
        behind,
        advertised: header.protocol == RouteProtocol::Ra,
    })
}
