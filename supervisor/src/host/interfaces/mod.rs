//! The host's own network interfaces, and what it knows of its neighbours on them: read, and never changed. All of it
//! is asked of the kernel by rtnetlink(7): files beneath `/sys` are those of the network namespace that they were
//! mounted in.
//!
//! What lives here: reading. What may not: links that are made for networks and guests (`super::network`,
//! `super::tap`).

mod neighbours;
mod speed;

use std::collections::BTreeMap;
use std::net::IpAddr;

use netlink_packet_core::NLM_F_DUMP;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{
    BridgeStpState, InfoBond, InfoBridge, InfoData, InfoKind, InfoVlan, LinkAttribute, LinkInfo,
    LinkMessage, State,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use reeve_ipc::MAX_MESSAGE_BYTES;
use reeve_ipc::api::interface::{
    BondMonitor, HostInterface, HostInterfaceKind, HostInterfacePage, LinkState,
    MAX_INTERFACE_ADDRESSES, MAX_INTERFACE_NAME_BYTES, MAX_LINK_ADDRESS_BYTES,
};
use rustix::io::Errno;

pub use self::neighbours::{Beside, neighbours};
use self::speed::Speeds;
use super::network::links::Links;

/// What an interface takes at most in a message, beside its addresses and routers.
const INTERFACE_BYTES: usize = 512;
/// What an address takes at most, with its prefix.
const ADDRESS_BYTES: usize = 24;
/// What of a message is for everything else.
const MARGIN: usize = 4096;

/// A page of the host's interfaces behind `after`, by their names.
///
/// # Errors
/// The kernel's.
pub fn page(after: Option<&str>) -> Result<HostInterfacePage, Errno> {
    Ok(paged(all()?, after))
}

/// The first of `all` behind `after` that fit a message; one in any case.
pub fn paged(mut all: Vec<HostInterface>, after: Option<&str>) -> HostInterfacePage {
    all.sort_by(|one, other| one.name.cmp(&other.name));
    all.retain(|interface| after.is_none_or(|after| interface.name.as_str() > after));
    let mut room = MAX_MESSAGE_BYTES - MARGIN;
    let fit = all.iter().take_while(|interface| {
        let addresses = interface.addresses.len() + interface.routers.len();
        let left = room.checked_sub(INTERFACE_BYTES + addresses * ADDRESS_BYTES);
        room = left.unwrap_or(0);
        left.is_some()
    });
    let fit = fit.count().max(1);
    let more = all.len() > fit;
    all.truncate(fit);
    HostInterfacePage {
        interfaces: all,
        more,
    }
}

/// Every interface of the host.
fn all() -> Result<Vec<HostInterface>, Errno> {
    let mut links = Links::open()?;
    let mut messages = Vec::new();
    let get = RouteNetlinkMessage::GetLink(LinkMessage::default());
    links.ask(NLM_F_DUMP, get, |answer| {
        if let RouteNetlinkMessage::NewLink(link) = answer {
            messages.push(link);
        }
    })?;
    let names: BTreeMap<u32, String> = messages
        .iter()
        .map(|link| (link.header.index, name(link)))
        .collect();
    let mut addresses = addresses(&mut links)?;
    let mut routers = routers(&mut links)?;
    let speeds = Speeds::open();
    let interfaces = messages.iter().map(|link| {
        let index = link.header.index;
        let mut interface = interface(link, &names);
        interface.addresses = addresses.remove(&index).unwrap_or_default();
        interface.routers = routers.remove(&index).unwrap_or_default();
        if interface.state == LinkState::Up {
            interface.speed = speeds.of(&interface.name);
        }
        interface
    });
    Ok(interfaces.collect())
}

fn name(link: &LinkMessage) -> String {
    let name = link
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::IfName(name) => Some(name),
            _ => None,
        });
    let name = name.into_iter().flat_map(|name| name.chars());
    // The kernel's are at most 15 bytes.
    name.take(MAX_INTERFACE_NAME_BYTES / 4).collect()
}

fn interface(link: &LinkMessage, names: &BTreeMap<u32, String>) -> HostInterface {
    let mut interface = HostInterface {
        name: name(link),
        address: Vec::new(),
        mtu: 0,
        state: LinkState::Unknown,
        speed: None,
        kind: HostInterfaceKind::Ethernet,
        tap: false,
        part_of: None,
        addresses: Vec::new(),
        routers: Vec::new(),
        on_boot: None,
    };
    let mut beneath = None;
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::Address(address) => {
                let length = address.len().min(MAX_LINK_ADDRESS_BYTES);
                interface.address = address.get(..length).unwrap_or_default().to_vec();
            }
            LinkAttribute::Mtu(mtu) => interface.mtu = *mtu,
            LinkAttribute::OperState(state) => interface.state = state_of(*state),
            LinkAttribute::Controller(of) => interface.part_of = names.get(of).cloned(),
            LinkAttribute::Link(of) => beneath = names.get(of).cloned(),
            LinkAttribute::LinkInfo(info) => {
                interface.tap = info.contains(&LinkInfo::Kind(InfoKind::Tun));
                interface.kind = kind(info);
            }
            _ => {}
        }
    }
    if let HostInterfaceKind::Vlan { of, .. } = &mut interface.kind {
        *of = beneath;
    }
    interface
}

const fn state_of(state: State) -> LinkState {
    match state {
        State::NotPresent => LinkState::NotPresent,
        State::Down => LinkState::Down,
        State::LowerLayerDown => LinkState::LowerLayerDown,
        State::Testing => LinkState::Testing,
        State::Dormant => LinkState::Dormant,
        State::Up => LinkState::Up,
        _ => LinkState::Unknown,
    }
}

fn kind(info: &[LinkInfo]) -> HostInterfaceKind {
    let data = info.iter().find_map(|info| match info {
        LinkInfo::Data(data) => Some(data),
        _ => None,
    });
    match data {
        Some(InfoData::Bridge(settings)) => {
            let (mut stp, mut delay) = (false, 0);
            for setting in settings {
                match setting {
                    InfoBridge::StpState(state) => stp = *state != BridgeStpState::Disabled,
                    InfoBridge::ForwardDelay(hundredths) => delay = *hundredths,
                    _ => {}
                }
            }
            HostInterfaceKind::Bridge { stp, delay }
        }
        Some(InfoData::Vlan(settings)) => {
            let tag = settings.iter().find_map(|setting| match setting {
                InfoVlan::Id(tag) => Some(*tag),
                _ => None,
            });
            let tag = tag.unwrap_or(0);
            HostInterfaceKind::Vlan { tag, of: None }
        }
        Some(InfoData::Bond(settings)) => bond(settings),
        _ => HostInterfaceKind::Ethernet,
    }
}

fn bond(settings: &[InfoBond]) -> HostInterfaceKind {
    let mut mode = 0;
    let (mut every, mut up_ms, mut down_ms, mut carrier) = (0, 0, 0, true);
    let (mut arp, mut target) = (0, None);
    for setting in settings {
        match setting {
            InfoBond::Mode(found) => mode = u8::from(*found),
            InfoBond::MiiMon(ms) => every = *ms,
            InfoBond::UpDelay(ms) => up_ms = *ms,
            InfoBond::DownDelay(ms) => down_ms = *ms,
            InfoBond::UseCarrier(uses) => carrier = *uses,
            InfoBond::ArpInterval(ms) => arp = *ms,
            InfoBond::ArpIpTarget(targets) => target = targets.first().copied(),
            _ => {}
        }
    }
    let monitor = match target {
        _ if every > 0 => Some(BondMonitor::Link {
            every_ms: every,
            up_ms,
            down_ms,
            carrier,
        }),
        Some(target) if arp > 0 => Some(BondMonitor::Arp {
            every_ms: arp,
            target: IpAddr::V4(target),
        }),
        _ => None,
    };
    HostInterfaceKind::Bond { mode, monitor }
}

/// Adds to what an interface has, up to the bound.
fn add<T>(all: &mut BTreeMap<u32, Vec<T>>, index: u32, one: T) {
    let of = all.entry(index).or_default();
    if of.len() < MAX_INTERFACE_ADDRESSES {
        of.push(one);
    }
}

fn addresses(links: &mut Links) -> Result<BTreeMap<u32, Vec<(IpAddr, u8)>>, Errno> {
    let mut all = BTreeMap::new();
    let get = RouteNetlinkMessage::GetAddress(AddressMessage::default());
    links.ask(NLM_F_DUMP, get, |answer| {
        let RouteNetlinkMessage::NewAddress(message) = answer else {
            return;
        };
        let (mut local, mut address) = (None, None);
        for attribute in &message.attributes {
            match attribute {
                AddressAttribute::Local(found) => local = Some(*found),
                // Of a tunnel, that of the other end.
                AddressAttribute::Address(found) => address = Some(*found),
                _ => {}
            }
        }
        if let Some(address) = local.or(address) {
            let prefix = message.header.prefix_len;
            add(&mut all, message.header.index, (address, prefix));
        }
    })?;
    Ok(all)
}

/// The routers of the default routes of the main table, by the links to them.
fn routers(links: &mut Links) -> Result<BTreeMap<u32, Vec<IpAddr>>, Errno> {
    let mut all = BTreeMap::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut get = RouteMessage::default();
        get.header.address_family = family;
        let get = RouteNetlinkMessage::GetRoute(get);
        let asked = links.ask(NLM_F_DUMP, get, |answer| {
            if let RouteNetlinkMessage::NewRoute(route) = answer
                && let Some((index, router)) = default_router(&route)
            {
                add(&mut all, index, router);
            }
        });
        match asked {
            // A kernel without IPv6.
            Err(Errno::AFNOSUPPORT | Errno::OPNOTSUPP) => {}
            asked => asked?,
        }
    }
    Ok(all)
}

fn default_router(route: &RouteMessage) -> Option<(u32, IpAddr)> {
    let header = &route.header;
    let (mut table, mut index, mut router) = (u32::from(header.table), None, None);
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Table(number) => table = *number,
            RouteAttribute::Oif(number) => index = Some(*number),
            RouteAttribute::Gateway(RouteAddress::Inet(to)) => router = Some(IpAddr::V4(*to)),
            RouteAttribute::Gateway(RouteAddress::Inet6(to)) => router = Some(IpAddr::V6(*to)),
            _ => {}
        }
    }
    let main = table == u32::from(RouteHeader::RT_TABLE_MAIN);
    let default = header.destination_prefix_length == 0 && header.kind == RouteType::Unicast;
    Some((index?, router?)).filter(|_| main && default)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str, addresses: usize) -> HostInterface {
        let address = IpAddr::from([10, 0, 0, 1]);
        HostInterface {
            name: name.to_owned(),
            addresses: vec![(address, 24); addresses],
            ..interface(&LinkMessage::default(), &BTreeMap::new())
        }
    }

    #[test]
    fn the_loopback_interface_is_there_with_its_address() {
        let all = all().unwrap();
        let lo = all.iter().find(|interface| interface.name == "lo").unwrap();
        assert_eq!(lo.address, [0; 6]);
        assert!(lo.mtu > 0 && !lo.tap && lo.part_of.is_none());
        assert_eq!(lo.kind, HostInterfaceKind::Ethernet);
    }

    #[test]
    fn pages_have_all_of_them_in_the_order_of_their_names_and_fit_a_message() {
        let all: Vec<_> = (0..1_000)
            .rev()
            .map(|number| named(&format!("e{number:04}"), MAX_INTERFACE_ADDRESSES))
            .collect();
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let page = paged(all.clone(), after.as_deref());
            let bytes = reeve_ipc::codec::encode(&page).unwrap().len();
            assert!(bytes <= MAX_MESSAGE_BYTES, "{bytes}");
            seen.extend(page.interfaces.iter().map(|one| one.name.clone()));
            after = seen.last().cloned();
            if !page.more {
                break;
            }
        }
        assert_eq!(seen.len(), all.len());
        assert!(seen.is_sorted());
    }

    #[test]
    fn a_bond_is_watched_by_its_links_before_others() {
        let target = std::net::Ipv4Addr::new(10, 0, 0, 9);
        let asks = [
            InfoBond::ArpInterval(200),
            InfoBond::ArpIpTarget(vec![target]),
        ];
        let HostInterfaceKind::Bond { monitor, .. } = bond(&asks) else {
            panic!("no bond");
        };
        let every_ms = 200;
        let target = IpAddr::V4(target);
        assert_eq!(monitor, Some(BondMonitor::Arp { every_ms, target }));
        let looks = [InfoBond::MiiMon(100)];
        let both: Vec<_> = looks.into_iter().chain(asks).collect();
        let HostInterfaceKind::Bond { monitor, .. } = bond(&both) else {
            panic!("no bond");
        };
        assert!(matches!(
            monitor,
            Some(BondMonitor::Link { every_ms: 100, .. })
        ));
    }
}
