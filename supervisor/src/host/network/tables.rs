//! The table of nf_tables of all networks, with a few chains for each.
//!
//! ```text
//!   forward ──── by the interface it goes out by:  map into ─► into-virbr0: rules of that network
//!           └─── by the interface it came in by:   map from ─► from-virbr0
//!   postrouting ─ by the interface it came in by:  map nat  ─► nat-virbr0
//! ```
//!
//! A packet meets two looks into a map, and the rules of the networks that it is from and for; how many others there
//! are costs nothing. A network's start and stop write its own chains and elements, in one transaction. What the hooked
//! chains themselves hold is written anew with each: that is all there is to know whether it is still there.

use rustix::io::Errno;

use super::rules::Chains;
use crate::host::filter::expression::{DATA_VALUE, Rule, Way, interface_name, jump, terminated};
use crate::host::netlink::{self, APPEND, CREATE, DUMP, NESTED, Received, attribute};
use crate::host::nf_tables::{
    DELETE_CHAIN, DELETE_ELEMENTS, DELETE_RULE, DELETE_TABLE, GET_CHAIN, GET_ELEMENTS, GET_RULE,
    NEW_CHAIN, NEW_ELEMENTS, NEW_RULE, NEW_SET, NEW_TABLE, Part, Socket, is_deletion,
};

/// The table's name.
pub(super) const TABLE: &str = "reeve-networks";
/// `NFPROTO_INET`: IPv4 and IPv6.
const FAMILY: u8 = 1;
/// `NFT_SET_MAP`.
const MAP: u32 = 8;
/// What `nft` calls the kind of a key, so that it shows it: the name of an interface, of 16 bytes.
const KEY_NAME: u32 = 41;
const KEY_BYTES: u32 = 16;
/// What `nft` notes of a set, so that it shows its keys: they are as the host has them (`NFTNL_UDATA_SET_KEYBYTEORDER`).
const KEY_NOTE: [u8; 6] = [0, 4, 1, 0, 0, 0];
/// `NFT_DATA_VERDICT`.
const VERDICT: u32 = 0xffff_ff00;
const ACCEPT: u32 = 1;
const RULE_CHAIN: u16 = 2;

/// One of the ways to a network's chains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Into,
    From,
    Nat,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Into, Self::From, Self::Nat];

    /// The map, and what the names of chains begin with.
    const fn map(self) -> &'static str {
        match self {
            Self::Into => "into",
            Self::From => "from",
            Self::Nat => "nat",
        }
    }

    const fn way(self) -> Way {
        match self {
            Self::Into => Way::Out,
            Self::From | Self::Nat => Way::In,
        }
    }

    fn chain(self, bridge: &str) -> String {
        format!("{}-{bridge}", self.map())
    }

    fn rules(self, chains: &Chains) -> &[Rule] {
        match self {
            Self::Into => &chains.into,
            Self::From => &chains.from,
            Self::Nat => &chains.nat,
        }
    }
}

/// A chain that the kernel has packets go through.
struct Hooked {
    name: &'static str,
    kind: &'static str,
    /// `NF_INET_*`.
    hook: u32,
    priority: i32,
    ways: &'static [Kind],
}

const HOOKED: [Hooked; 2] = [
    Hooked {
        name: "forward",
        kind: "filter",
        hook: 2,
        priority: 0,
        ways: &[Kind::Into, Kind::From],
    },
    Hooked {
        name: "postrouting",
        kind: "nat",
        hook: 4,
        priority: 100,
        ways: &[Kind::Nat],
    },
];

fn named(kind: u16, name: &str) -> Vec<u8> {
    let table = attribute(1, &terminated(TABLE));
    [table, attribute(kind, &terminated(name))].concat()
}

fn rule(chain: &str, rule: &Rule) -> Part {
    let mut body = named(RULE_CHAIN, chain);
    body.extend(attribute(4 | NESTED, &rule.expressions()));
    Part::new(NEW_RULE, CREATE | APPEND, body)
}

fn empty(chain: &str) -> Part {
    Part::new(DELETE_RULE, 0, named(RULE_CHAIN, chain))
}

fn element(kind: Kind, bridge: &str) -> Vec<u8> {
    let key = attribute(1 | NESTED, &attribute(DATA_VALUE, &interface_name(bridge)));
    let data = attribute(2 | NESTED, &jump(&kind.chain(bridge)));
    let element = attribute(1 | NESTED, &[key, data].concat());
    let mut body = named(2, kind.map());
    body.extend(attribute(3 | NESTED, &element));
    body
}

/// All that does not belong to one network.
fn frame() -> Vec<Part> {
    let mut parts = vec![Part::new(
        NEW_TABLE,
        CREATE,
        attribute(1, &terminated(TABLE)),
    )];
    for (number, kind) in (1_u32..).zip(Kind::ALL) {
        let mut body = named(2, kind.map());
        body.extend(attribute(3, &MAP.to_be_bytes()));
        body.extend(attribute(4, &KEY_NAME.to_be_bytes()));
        body.extend(attribute(5, &KEY_BYTES.to_be_bytes()));
        body.extend(attribute(6, &VERDICT.to_be_bytes()));
        // Its number in the transaction.
        body.extend(attribute(10, &number.to_be_bytes()));
        body.extend(attribute(13, &KEY_NOTE));
        parts.push(Part::new(NEW_SET, CREATE, body));
    }
    for hooked in &HOOKED {
        let hook = [
            attribute(1, &hooked.hook.to_be_bytes()),
            attribute(2, &hooked.priority.to_be_bytes()),
        ];
        let mut body = named(3, hooked.name);
        body.extend(attribute(4 | NESTED, &hook.concat()));
        body.extend(attribute(5, &ACCEPT.to_be_bytes()));
        body.extend(attribute(7, &terminated(hooked.kind)));
        parts.push(Part::new(NEW_CHAIN, CREATE, body));
        parts.push(empty(hooked.name));
        for kind in hooked.ways {
            let look = Rule::new().go_by(kind.way(), kind.map());
            parts.push(rule(hooked.name, &look));
        }
    }
    parts
}

/// The chains and elements of one network, however it was before.
fn written(chains: &Chains) -> Vec<Part> {
    let mut parts = Vec::new();
    for kind in Kind::ALL {
        let bridge = chains.bridge.as_str();
        let chain = kind.chain(bridge);
        parts.push(Part::new(NEW_CHAIN, CREATE, named(3, &chain)));
        parts.push(empty(&chain));
        parts.extend(kind.rules(chains).iter().map(|each| rule(&chain, each)));
        parts.push(Part::new(NEW_ELEMENTS, CREATE, element(kind, bridge)));
    }
    parts
}

/// The socket by which the table is made.
#[derive(Debug)]
pub(super) struct Tables(Socket);

impl Tables {
    pub(super) fn open() -> Result<Self, Errno> {
        Socket::open(FAMILY).map(Self)
    }

    /// Whether somebody else than this socket took something from the table.
    pub(super) fn is_taken_from(port: u32, message: &Received<'_>) -> bool {
        let Some((family, attributes)) = message.body.split_first_chunk::<4>() else {
            return false;
        };
        // Whatever it is about, its first attribute is the table's name.
        let name = netlink::find(attributes, 1).and_then(netlink::text);
        is_deletion(message) && message.port != port && family[0] == FAMILY && name == Some(TABLE)
    }

    pub(super) fn port(&self) -> u32 {
        self.0.port
    }

    /// Has a network's chains be those, in one transaction.
    pub(super) fn put(&mut self, chains: &Chains) -> Result<(), Errno> {
        let mut parts = frame();
        parts.extend(written(chains));
        self.0.transact(&parts)
    }

    /// Takes a network's chains away, and the table with the `last` of this supervisor, unless others have chains in it:
    /// one that is in the middle of making some puts them back.
    pub(super) fn remove(&mut self, bridge: &str, last: bool) -> Result<(), Errno> {
        if last && self.is_anothers(bridge)? == Some(false) {
            let table = attribute(1, &terminated(TABLE));
            return self.0.transact(&[Part::new(DELETE_TABLE, 0, table)]);
        }
        // What is not there cannot be taken away: it is made first.
        let mut parts = Vec::new();
        for kind in Kind::ALL {
            let chain = kind.chain(bridge);
            parts.push(Part::new(NEW_CHAIN, CREATE, named(3, &chain)));
            parts.push(Part::new(NEW_ELEMENTS, CREATE, element(kind, bridge)));
            parts.push(Part::new(DELETE_ELEMENTS, 0, element(kind, bridge)));
            parts.push(Part::new(DELETE_CHAIN, 0, named(3, &chain)));
        }
        match self.0.transact(&parts) {
            // There is no such table.
            Err(Errno::NOENT) => Ok(()),
            removed => removed,
        }
    }

    /// Whether there are chains of other networks than that of a bridge; `None` where there are none at all.
    fn is_anothers(&mut self, bridge: &str) -> Result<Option<bool>, Errno> {
        let chains = match self.chains() {
            Err(Errno::NOENT) => return Ok(None),
            chains => chains?,
        };
        let own = Kind::ALL.map(|kind| kind.chain(bridge));
        let hooked = |name: &String| HOOKED.iter().any(|hooked| hooked.name == name);
        let others = chains
            .iter()
            .any(|name| !own.contains(name) && !hooked(name));
        Ok((!chains.is_empty()).then_some(others))
    }

    /// The names of the table's chains.
    fn chains(&mut self) -> Result<Vec<String>, Errno> {
        let mut names = Vec::new();
        let table = attribute(1, &terminated(TABLE));
        self.0.ask(GET_CHAIN, DUMP, &table, |answer| {
            let attributes = answer.get(4..).unwrap_or_default();
            let of = netlink::find(attributes, 1).and_then(netlink::text);
            let name = netlink::find(attributes, 3).and_then(netlink::text);
            names.extend(name.filter(|_| of == Some(TABLE)).map(str::to_owned));
        })?;
        Ok(names)
    }

    /// Whether all of those networks' chains are there, and the ways to them.
    pub(super) fn hold<'a>(
        &mut self,
        networks: impl Iterator<Item = &'a Chains>,
    ) -> Result<bool, Errno> {
        let mut rules = std::collections::BTreeMap::<String, usize>::new();
        let table = attribute(1, &terminated(TABLE));
        self.0.ask(GET_RULE, DUMP, &table, |answer| {
            let attributes = answer.get(4..).unwrap_or_default();
            let of = netlink::find(attributes, 1).and_then(netlink::text);
            let chain = netlink::find(attributes, RULE_CHAIN).and_then(netlink::text);
            if let Some(chain) = chain.filter(|_| of == Some(TABLE)) {
                *rules.entry(chain.to_owned()).or_default() += 1;
            }
        })?;
        let has = |chain: &str, count: usize| rules.get(chain).copied().unwrap_or(0) == count;
        if !HOOKED
            .iter()
            .all(|hooked| has(hooked.name, hooked.ways.len()))
        {
            return Ok(false);
        }
        let mut maps = Vec::new();
        for kind in Kind::ALL {
            maps.push((kind, self.elements(kind)?));
        }
        let mut networks = networks;
        Ok(networks.all(|chains| {
            let bridge = chains.bridge.as_str();
            maps.iter().all(|(kind, names)| {
                has(&kind.chain(bridge), kind.rules(chains).len())
                    && names.contains(&interface_name(bridge).to_vec())
            })
        }))
    }

    /// The keys of a map.
    fn elements(&mut self, kind: Kind) -> Result<Vec<Vec<u8>>, Errno> {
        let mut keys = Vec::new();
        self.0
            .ask(GET_ELEMENTS, DUMP, &named(2, kind.map()), |answer| {
                let attributes = answer.get(4..).unwrap_or_default();
                let list = netlink::find(attributes, 3).unwrap_or_default();
                keys.extend(netlink::attributes(list).filter_map(|(_, element)| {
                    let key = netlink::find(element, 1)?;
                    netlink::find(key, DATA_VALUE).map(<[u8]>::to_vec)
                }));
            })?;
        Ok(keys)
    }
}
