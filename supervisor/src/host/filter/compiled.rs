//! Network filters as chains of nf_tables.
//!
//! ```text
//!   from the guest ─► from-guest ─┬─► from-guest-mac ...      each chain of a filter is entered by the frames of its
//!                                 └─► from-guest-ipv4-ip ...  layer, in the order of priorities, among the rules of
//!   to the guest ───► to-guest ───┬─► to-guest-arp ...        the root chain; a frame that comes back goes on there,
//!                                 └─► ...                     and one that no rule decides on passes
//! ```
//!
//! What passes from the guest meets the source filter after that, where there is one (`rules.rs`).

use std::collections::BTreeMap;
use std::sync::Arc;

use reeve_ipc::model::{
    FieldValue, FilterChain, FilterLayer, FilterReference, FilterRule, RuleAction, RuleDirection,
    RuleField as F, RuleProtocol as P,
};
use reeve_ipc::spec::MacAddress;

use super::expression::{Base, Rule};
use super::rules::DROPPED;
use crate::nwfilter::book::Book;
use crate::nwfilter::instance::{InstanceError, MAX_RULES, Placed, octets};

const DESTINATION: u32 = 0;
const SOURCE: u32 = 6;
const KIND: u32 = 12;
const TAG: u32 = 14;
const TAGGED_KIND: u32 = 16;
/// Where a frame of a spanning tree has what it says of it, behind Ethernet and LLC.
const BPDU: u32 = 17;
const SPANNING_TREE: [u8; 6] = [0x01, 0x80, 0xc2, 0, 0, 0];
/// LLC of a spanning tree (IEEE 802.1D, 9.2), behind the length.
const LLC: [u8; 3] = [0x42, 0x42, 0x03];
/// ARP between Ethernet and IPv4 addresses (RFC 826).
const ARP_HEADER: [u8; 6] = [0, 1, 0x08, 0, 6, 4];
const ICMPV6: u8 = 58;

/// Which way frames go that enter a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entry {
    FromGuest,
    ToGuest,
}

impl Entry {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::FromGuest => "from-guest",
            Self::ToGuest => "to-guest",
        }
    }
}

/// A chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chain {
    pub(super) name: String,
    /// Where frames enter it; those of others are entered from there.
    pub(super) entry: Option<Entry>,
    pub(super) rules: Vec<Rule>,
}

/// What the kernel is told of a network filter on an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Compiled(Vec<Chain>);

/// A network filter on an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bound {
    /// Which, and what its variables stand for.
    pub(crate) reference: FilterReference,
    /// The guest's Ethernet address.
    pub(crate) mac: MacAddress,
    /// What comes of it.
    pub(super) compiled: Arc<Compiled>,
}

impl Bound {
    /// By the filters that there are.
    pub(crate) fn new(
        book: &Book,
        reference: &FilterReference,
        mac: MacAddress,
    ) -> Result<Self, InstanceError> {
        let placed = book.instantiate(reference, mac)?;
        let compiled =
            Compiled::of(&placed).ok_or_else(|| InstanceError::Rules(reference.filter.clone()))?;
        Ok(Self {
            reference: reference.clone(),
            mac,
            compiled: Arc::new(compiled),
        })
    }

    /// No frame passes.
    pub(crate) fn blocked(reference: &FilterReference, mac: MacAddress) -> Self {
        let chain = |entry: Entry, rule: Rule| Chain {
            name: entry.name().to_owned(),
            entry: Some(entry),
            rules: vec![rule],
        };
        Self {
            reference: reference.clone(),
            mac,
            compiled: Arc::new(Compiled(vec![
                chain(Entry::FromGuest, Rule::new().go(DROPPED)),
                chain(Entry::ToGuest, Rule::new().drop()),
            ])),
        }
    }

    pub(super) fn again(&self, book: &Book) -> Result<Self, InstanceError> {
        Self::new(book, &self.reference, self.mac)
    }
}

impl Compiled {
    /// `None` where it is more than the kernel is told at once.
    pub(super) fn of(placed: &[Placed]) -> Option<Self> {
        let mut chains = Vec::new();
        for entry in [Entry::FromGuest, Entry::ToGuest] {
            let turned = placed.iter().filter_map(|it| passing(it, entry));
            chains.extend(entered(entry, &turned.collect::<Vec<_>>()));
        }
        let rules: usize = chains.iter().map(|chain| chain.rules.len()).sum();
        Some(Self(chains)).filter(|_| rules <= 2 * MAX_RULES)
    }

    pub(super) fn chains(&self) -> &[Chain] {
        &self.0
    }

    /// Whether it needs the kernel to look at what goes to the guest.
    pub(super) fn looks_at_what_comes(&self) -> bool {
        self.0
            .iter()
            .any(|chain| chain.entry == Some(Entry::ToGuest))
    }
}

/// The rule as it is for frames that go that way, if it is for any. One for both ways is said of what comes to the
/// guest, as with libvirt.
fn passing(placed: &Placed, entry: Entry) -> Option<Placed> {
    match (placed.rule.direction, entry) {
        (RuleDirection::Out, Entry::FromGuest)
        | (RuleDirection::In | RuleDirection::InOut, Entry::ToGuest) => Some(placed.clone()),
        (RuleDirection::InOut, Entry::FromGuest) => Some(placed.turned()),
        _ => None,
    }
}

/// Rules with their priorities.
type Prioritised = Vec<(i16, Rule)>;

/// The chains that frames meet which go one way.
fn entered(entry: Entry, placed: &[Placed]) -> Vec<Chain> {
    let mut root: Vec<(i16, usize, Rule)> = Vec::new();
    let mut others: BTreeMap<&FilterChain, (i16, Prioritised)> = BTreeMap::new();
    for it in placed {
        let Some(rule) = rule(&it.rule, entry) else {
            continue;
        };
        if it.chain.layer() == FilterLayer::Root {
            root.push((it.rule.priority, 1, rule));
            continue;
        }
        let (priority, rules) = others
            .entry(&it.chain)
            .or_insert_with(|| (it.priority, Vec::new()));
        *priority = (*priority).min(it.priority);
        rules.push((it.rule.priority, rule));
    }
    if root.is_empty() && others.is_empty() {
        return Vec::new();
    }
    let mut chains = Vec::new();
    for (chain, (priority, mut rules)) in others {
        let name = format!("{}-{chain}", entry.name());
        // As in libvirt a chain is entered before a rule of the same priority is met.
        root.push((priority, 0, of_layer(chain.layer()).enter(&name)));
        // Those of the same priority stay in order.
        rules.sort_by_key(|(priority, _)| *priority);
        chains.push(Chain {
            name,
            entry: None,
            rules: rules.into_iter().map(|(_, rule)| rule).collect(),
        });
    }
    root.sort_by_key(|(priority, last, _)| (*priority, *last));
    chains.push(Chain {
        name: entry.name().to_owned(),
        entry: Some(entry),
        rules: root.into_iter().map(|(_, _, rule)| rule).collect(),
    });
    chains
}

/// Of frames of a layer.
fn of_layer(layer: FilterLayer) -> Rule {
    let kind: [u8; 2] = match layer {
        FilterLayer::Root | FilterLayer::Mac => return Rule::new(),
        FilterLayer::Stp => return Rule::new().link(DESTINATION, &SPANNING_TREE),
        FilterLayer::Vlan => [0x81, 0],
        FilterLayer::Arp => [0x08, 0x06],
        FilterLayer::Rarp => [0x80, 0x35],
        FilterLayer::Ipv4 => [0x08, 0],
        FilterLayer::Ipv6 => [0x86, 0xdd],
    };
    Rule::new().link(KIND, &kind)
}

/// A rule as the kernel is told it; `None` of one that decides nothing.
fn rule(rule: &FilterRule, entry: Entry) -> Option<Rule> {
    let matching = matching(rule);
    Some(match (rule.action, entry) {
        (RuleAction::Continue, _) => return None,
        (RuleAction::Accept, _) => matching.pass(),
        (RuleAction::Return, _) => matching.back(),
        // Ethernet has no way to tell a sender, and libvirt drops there too.
        (RuleAction::Drop | RuleAction::Reject, Entry::FromGuest) => matching.go(DROPPED),
        (RuleAction::Drop | RuleAction::Reject, Entry::ToGuest) => matching.drop(),
    })
}

/// What frames must be.
fn matching(rule: &FilterRule) -> Rule {
    let fields = Fields { rule };
    let Some(protocol) = rule.protocol else {
        return Rule::new();
    };
    let layer = match protocol {
        P::Vlan => FilterLayer::Vlan,
        P::Stp => FilterLayer::Stp,
        P::Arp => FilterLayer::Arp,
        P::Rarp => FilterLayer::Rarp,
        P::Ip => FilterLayer::Ipv4,
        P::Ipv6 => FilterLayer::Ipv6,
        _ => FilterLayer::Mac,
    };
    let mut matching = of_layer(layer);
    matching = fields.mac(matching, F::SourceMac, F::SourceMacMask, SOURCE);
    matching = fields.mac(
        matching,
        F::DestinationMac,
        F::DestinationMacMask,
        DESTINATION,
    );
    match protocol {
        P::Vlan => {
            matching = fields.masked(matching, F::VlanId, TAG, [0x0f, 0xff]);
            fields.short(matching, Base::Link, F::Encapsulated, None, TAGGED_KIND)
        }
        P::Stp => fields.spanning_tree(matching.link(TAG, &LLC)),
        P::Arp | P::Rarp => fields.arp(matching),
        P::Ip => fields.ipv4(matching),
        P::Ipv6 => fields.ipv6(matching),
        _ => fields.short(matching, Base::Link, F::ProtocolId, None, KIND),
    }
}

/// What a rule says of frames.
struct Fields<'a> {
    rule: &'a FilterRule,
}

/// The last bytes of a number.
fn bytes<const N: usize>(number: u32) -> [u8; N] {
    let mut bytes = [0; N];
    for (to, from) in bytes
        .iter_mut()
        .rev()
        .zip(number.to_be_bytes().iter().rev())
    {
        *to = *from;
    }
    bytes
}

/// So many bits, in as many bytes as an address has.
fn prefix(bits: u32, length: usize) -> Vec<u8> {
    let rest = u128::MAX.checked_shr(bits).unwrap_or(0);
    let mask = (!rest).to_be_bytes();
    mask.into_iter().take(length).collect()
}

impl Fields<'_> {
    fn is(&self) -> bool {
        !self.rule.negated
    }

    fn number(&self, field: F) -> Option<u32> {
        self.rule.value(field)?.number()
    }

    fn mac_of(&self, field: F) -> Option<[u8; 6]> {
        match self.rule.value(field)? {
            FieldValue::Mac(octets) => Some(*octets),
            _ => None,
        }
    }

    fn mac(&self, rule: Rule, field: F, mask: F, offset: u32) -> Rule {
        let Some(octets) = self.mac_of(field) else {
            return rule;
        };
        let mask = self.mac_of(mask);
        let mask = mask.as_ref().map(|mask| mask.as_slice());
        rule.field(Base::Link, offset, &octets, mask, self.is())
    }

    fn masked(&self, rule: Rule, field: F, offset: u32, mask: [u8; 2]) -> Rule {
        match self.number(field) {
            Some(number) => {
                let value: [u8; 2] = bytes(number);
                rule.field(Base::Link, offset, &value, Some(&mask), self.is())
            }
            None => rule,
        }
    }

    fn numbered<const N: usize>(
        &self,
        rule: Rule,
        base: Base,
        first: F,
        last: Option<F>,
        offset: u32,
    ) -> Rule {
        let Some(from) = self.number(first) else {
            return rule;
        };
        let last = last.and_then(|last| self.number(last));
        match last.filter(|last| *last != from) {
            None => rule.field(base, offset, &bytes::<N>(from), None, self.is()),
            Some(last) => {
                let range = (&bytes::<N>(from)[..], &bytes::<N>(last)[..]);
                rule.between(base, offset, range, self.is())
            }
        }
    }

    fn short(&self, rule: Rule, base: Base, first: F, last: Option<F>, offset: u32) -> Rule {
        self.numbered::<2>(rule, base, first, last, offset)
    }

    fn octet(&self, rule: Rule, base: Base, first: F, last: Option<F>, offset: u32) -> Rule {
        self.numbered::<1>(rule, base, first, last, offset)
    }

    fn address(&self, rule: Rule, field: F, mask: Option<F>, offset: u32) -> Rule {
        let Some(FieldValue::Ip(address)) = self.rule.value(field) else {
            return rule;
        };
        let octets = octets(*address);
        let bits = mask.and_then(|mask| self.number(mask));
        let mask = bits.map(|bits| prefix(bits, octets.len()));
        rule.field(Base::Network, offset, &octets, mask.as_deref(), self.is())
    }

    fn arp(&self, mut rule: Rule) -> Rule {
        let base = Base::Network;
        rule = self.short(rule, base, F::HardwareType, None, 0);
        rule = self.short(rule, base, F::ProtocolType, None, 2);
        rule = self.short(rule, base, F::Opcode, None, 6);
        let addresses = [
            F::ArpSourceMac,
            F::ArpSourceIp,
            F::ArpDestinationMac,
            F::ArpDestinationIp,
        ];
        if addresses
            .iter()
            .any(|field| self.rule.value(*field).is_some())
        {
            // They are where they are looked for.
            rule = rule.network(0, &ARP_HEADER);
        }
        for (field, offset) in [(F::ArpSourceMac, 8), (F::ArpDestinationMac, 18)] {
            if let Some(octets) = self.mac_of(field) {
                rule = rule.field(base, offset, &octets, None, self.is());
            }
        }
        rule = self.address(rule, F::ArpSourceIp, None, 14);
        self.address(rule, F::ArpDestinationIp, None, 24)
    }

    fn ipv4(&self, mut rule: Rule) -> Rule {
        rule = self.address(rule, F::SourceIp, Some(F::SourceIpMask), 12);
        rule = self.address(rule, F::DestinationIp, Some(F::DestinationIpMask), 16);
        rule = self.octet(rule, Base::Network, F::Protocol, None, 9);
        if let Some(dscp) = self.number(F::Dscp) {
            let value = bytes::<1>(dscp << 2);
            rule = rule.field(Base::Network, 1, &value, Some(&[0xfc]), self.is());
        }
        self.ports(rule)
    }

    fn ipv6(&self, mut rule: Rule) -> Rule {
        rule = self.address(rule, F::SourceIpv6, Some(F::SourceIpv6Mask), 8);
        rule = self.address(rule, F::DestinationIpv6, Some(F::DestinationIpv6Mask), 24);
        if let Some(protocol) = self.number(F::Protocol) {
            let [protocol] = bytes(protocol);
            rule = rule.protocol_is(protocol, self.is());
        }
        let kinds = [F::Type, F::Code];
        if kinds.iter().any(|field| self.rule.value(*field).is_some()) {
            rule = rule.of(ICMPV6);
            rule = self.octet(rule, Base::Transport, F::Type, Some(F::TypeEnd), 0);
            rule = self.octet(rule, Base::Transport, F::Code, Some(F::CodeEnd), 1);
        }
        self.ports(rule)
    }

    fn ports(&self, mut rule: Rule) -> Rule {
        let ports = [F::SourcePort, F::DestinationPort];
        if ports.iter().any(|field| self.rule.value(*field).is_some()) {
            if let Some(protocol) = self.number(F::Protocol) {
                let [protocol] = bytes(protocol);
                rule = rule.of(protocol);
            }
        }
        let transport = Base::Transport;
        rule = self.short(rule, transport, F::SourcePort, Some(F::SourcePortEnd), 0);
        self.short(
            rule,
            transport,
            F::DestinationPort,
            Some(F::DestinationPortEnd),
            2,
        )
    }

    fn spanning_tree(&self, mut rule: Rule) -> Rule {
        let link = Base::Link;
        rule = self.octet(rule, link, F::Type, None, BPDU + 3);
        rule = self.octet(rule, link, F::StpFlags, None, BPDU + 4);
        let shorts = [
            (F::RootPriority, F::RootPriorityEnd, 5),
            (F::SenderPriority, F::SenderPriorityEnd, 17),
            (F::Port, F::PortEnd, 25),
            (F::Age, F::AgeEnd, 27),
            (F::MaxAge, F::MaxAgeEnd, 29),
            (F::HelloTime, F::HelloTimeEnd, 31),
            (F::ForwardDelay, F::ForwardDelayEnd, 33),
        ];
        for (first, last, offset) in shorts {
            rule = self.short(rule, link, first, Some(last), BPDU + offset);
        }
        rule = self.numbered::<4>(rule, link, F::RootCost, Some(F::RootCostEnd), BPDU + 13);
        rule = self.mac(rule, F::RootAddress, F::RootAddressMask, BPDU + 7);
        self.mac(rule, F::SenderAddress, F::SenderAddressMask, BPDU + 19)
    }
}
