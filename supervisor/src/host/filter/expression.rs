//! Rules of nf_tables, and what they are made of (`linux/netfilter/nf_tables.h`): each rule is a list of
//! expressions that load a part of a frame, compare it, and decide. One that finds no such part ends the
//! rule without a decision, so that what lets a frame pass must name every part that matters.

use std::net::{IpAddr, Ipv4Addr};

use crate::host::netlink::{NESTED, attribute};

const EXPRESSION_NAME: u16 = 1;
const EXPRESSION_DATA: u16 = 2;
/// `NFTA_LIST_ELEM`.
const ELEMENT: u16 = 1;
/// `NFTA_DATA_VALUE`.
pub(in crate::host) const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;
const VERDICT_CHAIN: u16 = 2;
/// `NFT_REG_VERDICT`.
const VERDICT_REGISTER: u32 = 0;
/// `NFT_REG_1`, of 16 bytes: all that is loaded goes there.
const REGISTER: u32 = 1;
/// `NFT_REG32_00`: the first four bytes of that, which three more follow.
const FIRST_WORD: u32 = 8;
const EQUAL: u32 = 0;
const UNEQUAL: u32 = 1;
/// `NFT_META_L4PROTO`.
const TRANSPORT_PROTOCOL: u32 = 16;
/// `NFT_LOOKUP_F_INV`.
const INVERTED: u32 = 1;
const DROP: i32 = 0;
const ACCEPT: i32 = 1;
const JUMP: i32 = -3;
const GOTO: i32 = -4;
const RETURN: i32 = -5;
/// `NFT_REG_2` and on, of 16 bytes each: what is translated to.
const FIRST_ADDRESS: u32 = 1;
const LAST_ADDRESS: u32 = 2;
const FIRST_PORT: u32 = 3;
const LAST_PORT: u32 = 4;
/// `NF_NAT_RANGE_PROTO_SPECIFIED`: without it the kernel keeps a port that is free, whichever.
const PORTS_SAID: u32 = 2;
/// `NFT_META_IIFNAME`, `NFT_META_OIFNAME`, `NFT_META_NFPROTO`.
const INCOMING_NAME: u32 = 6;
const OUTGOING_NAME: u32 = 7;
const FAMILY: u32 = 15;
/// Bytes of the name of an interface where it is compared (`IFNAMSIZ`), filled up with zeros.
const NAME_BYTES: usize = 16;
/// Established and related (`NF_CT_STATE_BIT`).
const KNOWN: u32 = 0b110;
/// `NFPROTO_IPV4`, `NFPROTO_IPV6`.
const IPV4: u8 = 2;
const IPV6: u8 = 10;

/// Where in a frame an offset is counted from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(in crate::host) enum Base {
    /// The Ethernet header.
    Link = 0,
    /// What follows it.
    Network = 1,
    /// The header of the transport protocol, behind every extension of IPv6; there is none in a later
    /// fragment of a packet.
    Transport = 2,
}

/// Which of the two interfaces of a packet that is forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::host) enum Way {
    /// The one that it came by.
    In,
    /// The one that it goes by.
    Out,
}

/// Which of the two addresses of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::host) enum End {
    Source,
    Destination,
}

/// A rule, as the list of its expressions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use]
pub(in crate::host) struct Rule(Vec<Expression>);

/// One that names a chain or a set of its table does so when the kernel is told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Expression {
    Complete(Vec<u8>),
    /// Another chain decides.
    Chain {
        code: i32,
        name: String,
    },
    /// Whether what is loaded is in a set.
    Set {
        flags: u32,
        name: String,
    },
}

impl Expression {
    fn named(name: &str, data: &[Vec<u8>]) -> Vec<u8> {
        let parts = [
            attribute(EXPRESSION_NAME, &terminated(name)),
            attribute(EXPRESSION_DATA | NESTED, &data.concat()),
        ];
        attribute(ELEMENT | NESTED, &parts.concat())
    }

    fn verdict(verdict: &[u8]) -> Vec<u8> {
        let data = attribute(DATA_VERDICT | NESTED, verdict);
        let parts = [number(1, VERDICT_REGISTER), attribute(2 | NESTED, &data)];
        Self::named("immediate", &parts)
    }

    fn bytes(&self, named: impl Fn(&str) -> String) -> Vec<u8> {
        match self {
            Self::Complete(bytes) => bytes.clone(),
            Self::Chain { code, name } => {
                let chain = terminated(&named(name));
                let verdict = [
                    attribute(VERDICT_CODE, &code.to_be_bytes()),
                    attribute(VERDICT_CHAIN, &chain),
                ];
                Self::verdict(&verdict.concat())
            }
            Self::Set { flags, name } => {
                let parts = [
                    attribute(1, &terminated(&named(name))),
                    number(2, REGISTER),
                    number(5, *flags),
                ];
                Self::named("lookup", &parts)
            }
        }
    }
}

fn number(kind: u16, value: u32) -> Vec<u8> {
    attribute(kind, &value.to_be_bytes())
}

impl Rule {
    pub(in crate::host) fn new() -> Self {
        Self::default()
    }

    fn with(mut self, name: &str, data: &[Vec<u8>]) -> Self {
        self.0
            .push(Expression::Complete(Expression::named(name, data)));
        self
    }

    fn load(self, base: Base, offset: u32, length: u32) -> Self {
        self.load_to(REGISTER, base, offset, length)
    }

    fn load_to(self, register: u32, base: Base, offset: u32, length: u32) -> Self {
        let parts = [
            number(1, register),
            number(2, base as u32),
            number(3, offset),
            number(4, length),
        ];
        self.with("payload", &parts)
    }

    fn compare(self, how: u32, value: &[u8]) -> Self {
        let value = attribute(DATA_VALUE, value);
        let parts = [
            number(1, REGISTER),
            number(2, how),
            attribute(3 | NESTED, &value),
        ];
        self.with("cmp", &parts)
    }

    fn at(self, base: Base, offset: u32, value: &[u8]) -> Self {
        // None has more than 16 bytes.
        let length = u32::try_from(value.len()).unwrap_or(u32::MAX);
        self.load(base, offset, length).compare(EQUAL, value)
    }

    /// Of frames that have `value` at `offset` in those bits that `mask` has, or do not.
    pub(in crate::host) fn field(
        self,
        base: Base,
        offset: u32,
        value: &[u8],
        mask: Option<&[u8]>,
        is: bool,
    ) -> Self {
        // None has more than 16 bytes.
        let length = u32::try_from(value.len()).unwrap_or(u32::MAX);
        let how = if is { EQUAL } else { UNEQUAL };
        let loaded = self.load(base, offset, length);
        match mask {
            None => loaded.compare(how, value),
            Some(mask) => {
                let wanted: Vec<u8> = value.iter().zip(mask).map(|(a, b)| a & b).collect();
                loaded.masked(mask).compare(how, &wanted)
            }
        }
    }

    /// Of frames that have a number at `offset` from the one to the other, or do not.
    pub(in crate::host) fn between(
        self,
        base: Base,
        offset: u32,
        (first, last): (&[u8], &[u8]),
        is: bool,
    ) -> Self {
        let length = u32::try_from(first.len()).unwrap_or(u32::MAX);
        let parts = [
            number(1, REGISTER),
            number(2, if is { EQUAL } else { UNEQUAL }),
            attribute(3 | NESTED, &attribute(DATA_VALUE, first)),
            attribute(4 | NESTED, &attribute(DATA_VALUE, last)),
        ];
        self.load(base, offset, length).with("range", &parts)
    }

    /// Of packets with this transport protocol or any but it, later fragments too.
    pub(in crate::host) fn protocol_is(self, protocol: u8, is: bool) -> Self {
        self.protocol(if is { EQUAL } else { UNEQUAL }, protocol)
    }

    /// Another chain decides, and where it does not this one goes on.
    pub(in crate::host) fn enter(self, chain: &str) -> Self {
        self.verdict(JUMP, Some(chain))
    }

    /// Of frames whose Ethernet header has `value` at `offset`.
    pub(in crate::host) fn link(self, offset: u32, value: &[u8]) -> Self {
        self.at(Base::Link, offset, value)
    }

    /// Of frames whose Ethernet header has there anything but `value`.
    pub(in crate::host) fn link_not(self, offset: u32, value: &[u8]) -> Self {
        let length = u32::try_from(value.len()).unwrap_or(u32::MAX);
        self.load(Base::Link, offset, length)
            .compare(UNEQUAL, value)
    }

    /// Of packets that have `value` at `offset`.
    pub(in crate::host) fn network(self, offset: u32, value: &[u8]) -> Self {
        self.at(Base::Network, offset, value)
    }

    /// Of packets whose transport protocol is this, and has `value` at `offset` of its header.
    pub(in crate::host) fn transport(self, protocol: u8, offset: u32, value: &[u8]) -> Self {
        self.protocol(EQUAL, protocol)
            .at(Base::Transport, offset, value)
    }

    /// Of packets that have anything but `value` at `offset` of the header of their transport protocol or behind it. One
    /// that is too short for that is none of them.
    pub(in crate::host) fn transport_not(self, offset: u32, value: &[u8]) -> Self {
        let length = u32::try_from(value.len()).unwrap_or(u32::MAX);
        self.load(Base::Transport, offset, length)
            .compare(UNEQUAL, value)
    }

    /// Of packets that are what their headers say, so that their transport protocol is known.
    pub(in crate::host) fn well_formed(self) -> Self {
        // 255 is no protocol's (RFC 1700).
        self.protocol(UNEQUAL, 255)
    }

    /// Of packets with this transport protocol, later fragments too.
    pub(in crate::host) fn of(self, protocol: u8) -> Self {
        self.protocol(EQUAL, protocol)
    }

    fn protocol(self, how: u32, protocol: u8) -> Self {
        let parts = [number(1, REGISTER), number(2, TRANSPORT_PROTOCOL)];
        self.with("meta", &parts).compare(how, &[protocol])
    }

    /// Of packets that have a member of a set at `offset`.
    pub(in crate::host) fn network_in(self, offset: u32, length: u32, set: &str) -> Self {
        self.load(Base::Network, offset, length).lookup(set, 0)
    }

    /// Of packets whose transport header has no member of a set of IPv6 addresses at `offset`. It is loaded four bytes
    /// at a time, as `rules.rs` says.
    pub(in crate::host) fn transport_address_not_in(self, offset: u32, set: &str) -> Self {
        let words = (0..4).zip((offset..).step_by(4));
        let loaded = words.fold(self, |rule, (word, at)| {
            rule.load_to(FIRST_WORD + word, Base::Transport, at, 4)
        });
        loaded.lookup(set, INVERTED)
    }

    fn lookup(mut self, set: &str, flags: u32) -> Self {
        let name = set.to_owned();
        self.0.push(Expression::Set { flags, name });
        self
    }

    /// Counts frames that come so far.
    pub(in crate::host) fn counted(self) -> Self {
        self.with("counter", &[])
    }

    fn verdict(mut self, code: i32, chain: Option<&str>) -> Self {
        self.0.push(match chain {
            None => {
                let code = attribute(VERDICT_CODE, &code.to_be_bytes());
                Expression::Complete(Expression::verdict(&code))
            }
            Some(chain) => Expression::Chain {
                code,
                name: chain.to_owned(),
            },
        });
        self
    }

    /// They pass.
    pub(in crate::host) fn pass(self) -> Self {
        self.verdict(ACCEPT, None)
    }

    /// They are dropped.
    pub(in crate::host) fn drop(self) -> Self {
        self.verdict(DROP, None)
    }

    /// Another chain decides.
    pub(in crate::host) fn go(self, chain: &str) -> Self {
        self.verdict(GOTO, Some(chain))
    }

    fn meta(self, key: u32) -> Self {
        self.with("meta", &[number(1, REGISTER), number(2, key)])
    }

    fn interface(self, way: Way) -> Self {
        self.meta(match way {
            Way::In => INCOMING_NAME,
            Way::Out => OUTGOING_NAME,
        })
    }

    /// Of packets that came, or go, by the interface of that name.
    pub(in crate::host) fn by(self, way: Way, name: &str) -> Self {
        self.interface(way).compare(EQUAL, &interface_name(name))
    }

    /// A map says which chain is next for the interface by which a packet came, or goes.
    pub(in crate::host) fn go_by(self, way: Way, map: &str) -> Self {
        let parts = [
            attribute(1, &terminated(map)),
            number(2, REGISTER),
            number(3, VERDICT_REGISTER),
        ];
        self.interface(way).with("lookup", &parts)
    }

    /// Of packets one of whose addresses begins as `address` does, or does not.
    pub(in crate::host) fn address(self, end: End, address: IpAddr, prefix: u8, is: bool) -> Self {
        let (family, offset, bytes) = match (address, end) {
            (IpAddr::V4(ip), End::Source) => (IPV4, 12, ip.octets().to_vec()),
            (IpAddr::V4(ip), End::Destination) => (IPV4, 16, ip.octets().to_vec()),
            (IpAddr::V6(ip), End::Source) => (IPV6, 8, ip.octets().to_vec()),
            (IpAddr::V6(ip), End::Destination) => (IPV6, 24, ip.octets().to_vec()),
        };
        let rest = u128::MAX.checked_shr(prefix.into()).unwrap_or(0);
        let mask = (!rest).to_be_bytes();
        let mask = mask.get(..bytes.len()).unwrap_or_default();
        let wanted: Vec<u8> = bytes
            .iter()
            .zip(mask)
            .map(|(byte, mask)| byte & mask)
            .collect();
        // None has more than 16 bytes.
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let how = if is { EQUAL } else { UNEQUAL };
        self.meta(FAMILY)
            .compare(EQUAL, &[family])
            .load(Base::Network, offset, length)
            .masked(mask)
            .compare(how, &wanted)
    }

    fn masked(self, mask: &[u8]) -> Self {
        let length = u32::try_from(mask.len()).unwrap_or(u32::MAX);
        let parts = [
            number(1, REGISTER),
            number(2, REGISTER),
            number(3, length),
            attribute(4 | NESTED, &attribute(DATA_VALUE, mask)),
            attribute(5 | NESTED, &attribute(DATA_VALUE, &vec![0; mask.len()])),
        ];
        self.with("bitwise", &parts)
    }

    /// Of packets of a connection that is known, or that are about one.
    pub(in crate::host) fn known(self) -> Self {
        // NFT_CT_STATE is 0; it is a number of the host.
        let state = self.with("ct", &[number(1, REGISTER), number(2, 0)]);
        state.masked(&KNOWN.to_ne_bytes()).compare(UNEQUAL, &[0; 4])
    }

    /// Of frames beyond so many bytes a second, and beyond so many more at once.
    pub(in crate::host) fn over(self, bytes: u64, burst: u64) -> Self {
        let burst = u32::try_from(burst).unwrap_or(u32::MAX);
        // NFT_LIMIT_PKT_BYTES, NFT_LIMIT_F_INV.
        let parts = [
            attribute(1, &bytes.to_be_bytes()),
            attribute(2, &1_u64.to_be_bytes()),
            number(3, burst),
            number(4, 1),
            number(5, 1),
        ];
        self.with("limit", &parts)
    }

    /// They are not for this chain to decide on.
    pub(in crate::host) fn back(self) -> Self {
        self.verdict(RETURN, None)
    }

    /// They are refused, and whoever sent them is told that there is no such port.
    pub(in crate::host) fn reject(self) -> Self {
        // NFT_REJECT_ICMPX_UNREACH, NFT_REJECT_ICMPX_PORT_UNREACH.
        self.with("reject", &[number(1, 2), attribute(2, &[1])])
    }

    fn value(self, register: u32, value: &[u8]) -> Self {
        let data = attribute(DATA_VALUE, value);
        let parts = [number(1, register), attribute(2 | NESTED, &data)];
        self.with("immediate", &parts)
    }

    /// They get the address of the interface that they go by for their source, and one of those ports.
    pub(in crate::host) fn masquerade(self, ports: Option<(u16, u16)>) -> Self {
        match ports {
            None => self.with("masq", &[]),
            Some(_) => self.ports(ports).with(
                "masq",
                &[
                    number(1, PORTS_SAID),
                    number(2, FIRST_PORT),
                    number(3, LAST_PORT),
                ],
            ),
        }
    }

    fn ports(self, ports: Option<(u16, u16)>) -> Self {
        match ports {
            None => self,
            Some((first, last)) => self
                .value(FIRST_PORT, &first.to_be_bytes())
                .value(LAST_PORT, &last.to_be_bytes()),
        }
    }

    /// They get one of those addresses for their source, and one of those ports.
    pub(in crate::host) fn source(
        self,
        addresses: (Ipv4Addr, Ipv4Addr),
        ports: Option<(u16, u16)>,
    ) -> Self {
        let rule = self
            .value(FIRST_ADDRESS, &addresses.0.octets())
            .value(LAST_ADDRESS, &addresses.1.octets())
            .ports(ports);
        // NFT_NAT_SNAT is 0.
        let mut parts = vec![
            number(1, 0),
            number(2, IPV4.into()),
            number(3, FIRST_ADDRESS),
            number(4, LAST_ADDRESS),
        ];
        if ports.is_some() {
            parts.push(number(5, FIRST_PORT));
            parts.push(number(6, LAST_PORT));
            parts.push(number(7, PORTS_SAID));
        }
        rule.with("nat", &parts)
    }

    /// The value of the attribute that has them.
    pub(in crate::host) fn expressions(&self) -> Vec<u8> {
        self.expressions_named(str::to_owned)
    }

    /// The same where chains and sets have other names in their table than this rule has for them.
    pub(in crate::host) fn expressions_named(&self, named: impl Fn(&str) -> String) -> Vec<u8> {
        let all = self.0.iter().flat_map(|each| each.bytes(&named));
        all.collect()
    }
}

/// The name of an interface as it is compared.
pub(in crate::host) fn interface_name(name: &str) -> [u8; NAME_BYTES] {
    let mut bytes = [0; NAME_BYTES];
    // None is longer than leaves room for a zero.
    for (to, from) in bytes.iter_mut().zip(name.bytes()) {
        *to = from;
    }
    bytes
}

/// What an element of a map is that has a chain decide.
pub(in crate::host) fn jump(chain: &str) -> Vec<u8> {
    let verdict = [
        attribute(VERDICT_CODE, &JUMP.to_be_bytes()),
        attribute(VERDICT_CHAIN, &terminated(chain)),
    ];
    attribute(DATA_VERDICT | NESTED, &verdict.concat())
}

/// A name with the zero that ends it.
pub(in crate::host) fn terminated(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.push(0);
    bytes
}
