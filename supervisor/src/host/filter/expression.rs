//! Rules of nf_tables, and what they are made of (`linux/netfilter/nf_tables.h`): each rule is a list of
//! expressions that load a part of a frame, compare it, and decide. One that finds no such part ends the
//! rule without a decision, so that what lets a frame pass must name every part that matters.

use crate::host::netlink::{NESTED, attribute};

const EXPRESSION_NAME: u16 = 1;
const EXPRESSION_DATA: u16 = 2;
/// `NFTA_LIST_ELEM`.
const ELEMENT: u16 = 1;
/// `NFTA_DATA_VALUE`.
pub(super) const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;
const VERDICT_CHAIN: u16 = 2;
/// `NFT_REG_VERDICT`.
const VERDICT_REGISTER: u32 = 0;
/// `NFT_REG_1`, of 16 bytes: all that is loaded goes there.
const REGISTER: u32 = 1;
const EQUAL: u32 = 0;
const UNEQUAL: u32 = 1;
/// `NFT_META_L4PROTO`.
const TRANSPORT_PROTOCOL: u32 = 16;
/// `NFT_LOOKUP_F_INV`.
const INVERTED: u32 = 1;
const DROP: i32 = 0;
const ACCEPT: i32 = 1;
const GOTO: i32 = -4;

/// Where in a frame an offset is counted from.
#[derive(Debug, Clone, Copy)]
#[repr(u32)]
enum Base {
    /// The Ethernet header.
    Link = 0,
    /// What follows it.
    Network = 1,
    /// The header of the transport protocol, behind every extension of IPv6; there is none in a later
    /// fragment of a packet.
    Transport = 2,
}

/// A rule, as the list of its expressions.
#[derive(Debug, Clone, Default)]
#[must_use]
pub(super) struct Rule(Vec<u8>);

fn number(kind: u16, value: u32) -> Vec<u8> {
    attribute(kind, &value.to_be_bytes())
}

impl Rule {
    pub(super) fn new() -> Self {
        Self::default()
    }

    fn with(mut self, name: &str, data: &[Vec<u8>]) -> Self {
        let parts = [
            attribute(EXPRESSION_NAME, &terminated(name)),
            attribute(EXPRESSION_DATA | NESTED, &data.concat()),
        ];
        self.0.extend(attribute(ELEMENT | NESTED, &parts.concat()));
        self
    }

    fn load(self, base: Base, offset: u32, length: u32) -> Self {
        let parts = [
            number(1, REGISTER),
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

    /// Of frames whose Ethernet header has `value` at `offset`.
    pub(super) fn link(self, offset: u32, value: &[u8]) -> Self {
        self.at(Base::Link, offset, value)
    }

    /// Of frames whose Ethernet header has there anything but `value`.
    pub(super) fn link_not(self, offset: u32, value: &[u8]) -> Self {
        let length = u32::try_from(value.len()).unwrap_or(u32::MAX);
        self.load(Base::Link, offset, length)
            .compare(UNEQUAL, value)
    }

    /// Of packets that have `value` at `offset`.
    pub(super) fn network(self, offset: u32, value: &[u8]) -> Self {
        self.at(Base::Network, offset, value)
    }

    /// Of packets whose transport protocol is this, and has `value` at `offset` of its header.
    pub(super) fn transport(self, protocol: u8, offset: u32, value: &[u8]) -> Self {
        self.protocol(EQUAL, protocol)
            .at(Base::Transport, offset, value)
    }

    /// Of packets that are what their headers say, so that their transport protocol is known.
    pub(super) fn well_formed(self) -> Self {
        // 255 is no protocol's (RFC 1700).
        self.protocol(UNEQUAL, 255)
    }

    /// Of packets with this transport protocol, later fragments too.
    pub(super) fn of(self, protocol: u8) -> Self {
        self.protocol(EQUAL, protocol)
    }

    fn protocol(self, how: u32, protocol: u8) -> Self {
        let parts = [number(1, REGISTER), number(2, TRANSPORT_PROTOCOL)];
        self.with("meta", &parts).compare(how, &[protocol])
    }

    /// Of packets that have a member of a set at `offset`.
    pub(super) fn network_in(self, offset: u32, length: u32, set: &str) -> Self {
        self.load(Base::Network, offset, length).lookup(set, 0)
    }

    /// Of packets whose transport header has no member of a set at `offset`.
    pub(super) fn transport_not_in(self, offset: u32, length: u32, set: &str) -> Self {
        self.load(Base::Transport, offset, length)
            .lookup(set, INVERTED)
    }

    fn lookup(self, set: &str, flags: u32) -> Self {
        let parts = [
            attribute(1, &terminated(set)),
            number(2, REGISTER),
            number(5, flags),
        ];
        self.with("lookup", &parts)
    }

    /// Counts frames that come so far.
    pub(super) fn counted(self) -> Self {
        self.with("counter", &[])
    }

    fn verdict(self, code: i32, chain: Option<&str>) -> Self {
        let mut verdict = attribute(VERDICT_CODE, &code.to_be_bytes());
        if let Some(chain) = chain {
            verdict.extend(attribute(VERDICT_CHAIN, &terminated(chain)));
        }
        let data = attribute(DATA_VERDICT | NESTED, &verdict);
        let parts = [number(1, VERDICT_REGISTER), attribute(2 | NESTED, &data)];
        self.with("immediate", &parts)
    }

    /// They pass.
    pub(super) fn pass(self) -> Self {
        self.verdict(ACCEPT, None)
    }

    /// They are dropped.
    pub(super) fn drop(self) -> Self {
        self.verdict(DROP, None)
    }

    /// Another chain decides.
    pub(super) fn go(self, chain: &str) -> Self {
        self.verdict(GOTO, Some(chain))
    }

    /// The value of the attribute that has them.
    pub(super) fn expressions(&self) -> &[u8] {
        &self.0
    }
}

/// A name with the zero that ends it.
pub(super) fn terminated(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.push(0);
    bytes
}
