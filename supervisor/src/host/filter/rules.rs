//! What a guest may send: the rules of a filter. What no rule lets pass is dropped and counted.
//!
//! A guest sends IPv4, ARP and IPv6 in plain Ethernet frames, from its own addresses. Everything else is
//! dropped, tagged frames among it: what is neither of these hides a source address from these rules
//! (another encapsulation) or is the business of switches (spanning tree). So are the words of those whom
//! other guests believe: servers of DHCP, and routers of IPv6. A server of DHCP gives a lease to each Ethernet address
//! that it is asked for, which is in the request and not that of the frame: it must be the guest's own, or one guest
//! could have all leases there are.
//!
//! Headers are read by the kernel: behind the extension headers of IPv6, and of the first fragment of a packet
//! only. A packet whose first fragment does not hold them all is dropped.
//!
//! What is behind the header of a packet is loaded 1, 2 or 4 bytes at a time, and at a multiple of that. Kernels before
//! `0ae8e4cca787` ("set transport header offset for egress hook") look in the wrong place at egress for all other loads.

use std::net::IpAddr;

use reeve_ipc::model::IpRange;
use reeve_ipc::spec::MacAddress;

use super::expression::{Base, Rule};

/// The chain that decides on each frame.
pub(super) const FRAMES: &str = "frames";
/// The chain of a network filter that drops, and counts.
pub(super) const DROPPED: &str = "dropped";
/// The set of IPv4 addresses.
pub(super) const IPV4: &str = "ipv4";
/// The set of IPv6 addresses.
pub(super) const IPV6: &str = "ipv6";

/// The source address of a frame.
const SOURCE: u32 = 6;
/// The kind of its content; that of a tag where it is tagged.
const KIND: u32 = 12;
const KIND_IPV4: [u8; 2] = [0x08, 0x00];
const KIND_ARP: [u8; 2] = [0x08, 0x06];
const KIND_IPV6: [u8; 2] = [0x86, 0xdd];
/// ARP between Ethernet and IPv4 addresses (RFC 826).
const ARP_HEADER: [u8; 6] = [0, 1, 0x08, 0, 6, 4];
const ARP_SENDER_MAC: u32 = 8;
const ARP_SENDER_IP: u32 = 14;
const IPV4_SOURCE: u32 = 12;
const IPV6_SOURCE: u32 = 8;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;
const SOURCE_PORT: u32 = 0;
const DESTINATION_PORT: u32 = 2;
/// Where a packet of IPv4 says whether it is a piece of one, and the bits that do (RFC 791).
const PIECE: u32 = 6;
const IS_PIECE: [u8; 2] = [0x3f, 0xff];
/// From there on, the bits that say of a packet that it is UDP, and the first piece or the only: a later one has no
/// header of its transport protocol.
const PROTOCOL: [u8; 4] = [0x1f, 0xff, 0, 0xff];
const IS_UDP: [u8; 4] = [0, 0, 0, UDP];
const TRANSPORT: Base = Base::Transport;
/// The server of DHCP, its client, and both.
const DHCP_SERVER: [u8; 2] = 67_u16.to_be_bytes();
const DHCP_CLIENT: [u8; 2] = 68_u16.to_be_bytes();
const DHCP_PORTS: (&[u8], &[u8]) = (&DHCP_SERVER, &DHCP_CLIENT);
/// The kind and the length of the client's address in a message of DHCP, behind the header of UDP, and the address, in
/// two parts (RFC 2131, section 2).
const DHCP_KIND: u32 = 8 + 1;
const DHCP_LENGTH: u32 = 8 + 2;
const DHCP_ADDRESS: u32 = 8 + 28;
const DHCP_ADDRESS_END: u32 = DHCP_ADDRESS + 4;
/// An Ethernet address.
const DHCP_ETHERNET: u8 = 1;
/// Its bytes.
const DHCP_ETHERNET_LENGTH: u8 = 6;
const ROUTER_ADVERTISEMENT: u8 = 134;
const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
const REDIRECT: u8 = 137;
/// The address that a neighbour advertisement is about, in it.
const TARGET: u32 = 8;

/// Whose frames pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sender {
    /// Its Ethernet address.
    pub(crate) mac: MacAddress,
    /// Whether it may use others.
    pub(crate) any_mac: bool,
    /// Its addresses; any where there is none.
    pub(crate) addresses: Vec<IpRange>,
    /// Where they pass.
    pub(crate) hook: Hook,
}

/// Where the frames of a guest meet its rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hook {
    /// As the host takes them in by a tap (`NF_NETDEV_INGRESS`).
    Ingress,
    /// As they leave by a macvtap, which the host takes nothing in by (`NF_NETDEV_EGRESS`, Linux 5.16 with
    /// `CONFIG_NETFILTER_EGRESS`).
    Egress,
}

impl Hook {
    /// The kernel's number of it.
    pub(super) const fn number(self) -> u32 {
        match self {
            Self::Ingress => 0,
            Self::Egress => 1,
        }
    }
}

impl Sender {
    fn has_addresses(&self) -> bool {
        !self.addresses.is_empty()
    }

    /// The addresses of IPv4 that it may use, from the first to the last of each range; `None` for any.
    pub(super) fn ipv4(&self) -> Option<Vec<(u32, u32)>> {
        let ranges =
            self.addresses
                .iter()
                .filter_map(|range| match (range.first(), range.last()) {
                    (IpAddr::V4(first), IpAddr::V4(last)) => Some((first.into(), last.into())),
                    _ => None,
                });
        self.has_addresses().then(|| merged(ranges.collect()))
    }

    /// The same of IPv6, with the address that it gives itself on its link (RFC 4862).
    pub(super) fn ipv6(&self) -> Option<Vec<(u128, u128)>> {
        let ranges =
            self.addresses
                .iter()
                .filter_map(|range| match (range.first(), range.last()) {
                    (IpAddr::V6(first), IpAddr::V6(last)) => Some((first.into(), last.into())),
                    _ => None,
                });
        self.has_addresses().then(|| {
            let mut ranges: Vec<_> = ranges.collect();
            ranges.push(self.link_local());
            merged(ranges)
        })
    }

    /// `fe80::` with its Ethernet address in the lower half (RFC 4291, appendix A); with all of them where
    /// it may use others.
    fn link_local(&self) -> (u128, u128) {
        const PREFIX: u128 = 0xfe80 << 112;
        if self.any_mac {
            return (PREFIX, PREFIX | u128::from(u64::MAX));
        }
        let [a, b, c, d, e, f] = self.mac.octets();
        let interface = u64::from_be_bytes([a ^ 2, b, c, 0xff, 0xfe, d, e, f]);
        let address = PREFIX | u128::from(interface);
        (address, address)
    }

    /// The rules of [`FRAMES`], in order. There are as few as can be: each costs the kernel, when it is told of it, a look
    /// at every table that there is.
    pub(super) fn rules(&self) -> Vec<Rule> {
        let mut rules = Vec::new();
        let mac = self.mac.octets();
        let own = Some(&mac).filter(|_| !self.any_mac);
        if let Some(own) = own {
            rules.push(dropped(Rule::new().link_not(SOURCE, own)));
        }
        rules.extend(self.ipv4_rules(own));
        rules.extend(self.arp_rules(own));
        rules.extend(self.ipv6_rules());
        rules.push(dropped(Rule::new()));
        rules
    }

    fn ipv4_rules(&self, own: Option<&[u8; 6]>) -> Vec<Rule> {
        let packet = || Rule::new().link(KIND, &KIND_IPV4);
        let from_own = |rule: Rule| match self.has_addresses() {
            true => rule.network_in(IPV4_SOURCE, 4, IPV4),
            false => rule,
        };
        // Any other protocol, or a later piece.
        let other = packet().field(Base::Network, PIECE, &IS_UDP, Some(&PROTOCOL), false);
        let datagram = packet().of(UDP).transport_not(SOURCE_PORT, &DHCP_SERVER);
        let datagram = match own {
            Some(_) => datagram.between(TRANSPORT, DESTINATION_PORT, DHCP_PORTS, false),
            None => datagram.transport_not(DESTINATION_PORT, &DHCP_CLIENT),
        };
        let mut rules = vec![
            from_own(other.well_formed()).pass(),
            from_own(datagram).pass(),
        ];
        if let Some(own) = own {
            let request = dhcp_request(packet(), own).transport_not(SOURCE_PORT, &DHCP_SERVER);
            rules.push(from_own(request).pass());
        }
        if self.has_addresses() {
            // A client of DHCP that has no address yet.
            let request = match own {
                Some(own) => dhcp_request(packet(), own),
                None => packet().transport(UDP, DESTINATION_PORT, &DHCP_SERVER),
            };
            let client = request.field(TRANSPORT, SOURCE_PORT, &DHCP_CLIENT, None, true);
            rules.push(client.network(IPV4_SOURCE, &[0; 4]).pass());
        }
        rules
    }

    fn arp_rules(&self, own: Option<&[u8; 6]>) -> Vec<Rule> {
        let packet = || {
            let packet = Rule::new().link(KIND, &KIND_ARP).network(0, &ARP_HEADER);
            match own {
                Some(own) => packet.network(ARP_SENDER_MAC, own),
                None => packet,
            }
        };
        if self.has_addresses() {
            vec![
                // Whoever asks whether an address is free has none (RFC 5227).
                packet().network(ARP_SENDER_IP, &[0; 4]).pass(),
                packet().network_in(ARP_SENDER_IP, 4, IPV4).pass(),
            ]
        } else {
            vec![packet().pass()]
        }
    }

    fn ipv6_rules(&self) -> Vec<Rule> {
        let packet = || Rule::new().link(KIND, &KIND_IPV6);
        let between = |rule: Rule, first: u8, last: u8, is: bool| {
            rule.between(TRANSPORT, 0, (&[first], &[last]), is)
        };
        // Both ends of a range, of which neighbours' words are the middle.
        let routers = between(packet().of(ICMPV6), ROUTER_ADVERTISEMENT, REDIRECT, true);
        let routers = between(
            routers,
            NEIGHBOUR_SOLICITATION,
            NEIGHBOUR_ADVERTISEMENT,
            false,
        );
        let mut rules = vec![
            dropped(routers),
            dropped(packet().transport(UDP, SOURCE_PORT, &547_u16.to_be_bytes())),
            dropped(packet().transport(UDP, DESTINATION_PORT, &546_u16.to_be_bytes())),
        ];
        if self.has_addresses() {
            let advertisement = packet().transport(ICMPV6, 0, &[NEIGHBOUR_ADVERTISEMENT]);
            rules.push(dropped(
                advertisement.transport_address_not_in(TARGET, IPV6),
            ));
            // Whoever asks whether an address is free, or joins a group before it has one (RFC 4862, RFC 3590).
            rules.push(packet().of(ICMPV6).network(IPV6_SOURCE, &[0; 16]).pass());
            rules.push(
                packet()
                    .well_formed()
                    .network_in(IPV6_SOURCE, 16, IPV6)
                    .pass(),
            );
        } else {
            rules.push(packet().well_formed().pass());
        }
        rules
    }
}

/// They are counted and dropped.
fn dropped(rule: Rule) -> Rule {
    rule.counted().drop()
}

/// Of packets that are what may be asked of a server of DHCP: whole messages, for the own address.
fn dhcp_request(packet: Rule, own: &[u8; 6]) -> Rule {
    let [a, b, c, d, e, f] = *own;
    let at =
        |rule: Rule, offset: u32, value: &[u8]| rule.field(TRANSPORT, offset, value, None, true);
    let whole = packet.field(Base::Network, PIECE, &[0; 2], Some(&IS_PIECE), true);
    let mut message = whole.transport(UDP, DESTINATION_PORT, &DHCP_SERVER);
    message = at(message, DHCP_KIND, &[DHCP_ETHERNET]);
    message = at(message, DHCP_LENGTH, &[DHCP_ETHERNET_LENGTH]);
    message = at(message, DHCP_ADDRESS, &[a, b, c, d]);
    at(message, DHCP_ADDRESS_END, &[e, f])
}

/// Ranges that neither overlap nor touch, in order.
fn merged<T: Copy + Ord + Successor>(mut ranges: Vec<(T, T)>) -> Vec<(T, T)> {
    ranges.sort_unstable();
    let mut merged: Vec<(T, T)> = Vec::new();
    for (first, last) in ranges {
        match merged.last_mut() {
            Some((_, end)) if end.next().is_none_or(|next| first <= next) => {
                *end = (*end).max(last);
            }
            _ => merged.push((first, last)),
        }
    }
    merged
}

/// Numbers of which most have a next.
pub(super) trait Successor: Sized {
    /// The next; `None` behind the last.
    fn next(&self) -> Option<Self>;
}

impl Successor for u32 {
    fn next(&self) -> Option<Self> {
        self.checked_add(1)
    }
}

impl Successor for u128 {
    fn next(&self) -> Option<Self> {
        self.checked_add(1)
    }
}
