//! Tables of nf_tables, one for each guarded tap, and the socket by which they are made. All of a table is made
//! in one transaction, which also replaces one that is there: no frame sees half of it.

use rustix::io::Errno;

use super::compiled::{Compiled, Entry};
use super::expression::{DATA_VALUE, Rule, terminated};
use super::rules::{DROPPED, FRAMES, Hook, IPV4, IPV6, Sender, Successor};
use crate::host::netlink::{self, APPEND, CREATE, DUMP, EXCLUSIVE, NESTED, Received, attribute};
use crate::host::nf_tables::{
    DELETE_TABLE, GET_RULE, GET_TABLE, NEW_CHAIN, NEW_ELEMENTS, NEW_RULE, NEW_SET, NEW_TABLE, Part,
    Socket, is_deletion,
};
use crate::host::tap::TapId;

/// What the name of a table of ours begins with; the tap's follows.
const PREFIX: &str = "reeve-";
/// `NFPROTO_NETDEV`: frames as a device takes them in, before any bridge.
pub(super) const FAMILY: u8 = 5;
const TABLE_NAME: u16 = 1;
const TABLE_FLAGS: u16 = 2;
const TABLE_HANDLE: u16 = 4;
const TABLE_NOTE: u16 = 6;
/// What the note of a table begins with; the number of its tap follows.
const NOTE: &str = "interface ";
const RULE_CHAIN: u16 = 2;
const RULE_EXPRESSIONS: u16 = 4;
const COUNTER_PACKETS: u16 = 2;
/// `NFT_SET_INTERVAL`: elements are ranges.
const RANGES: u32 = 4;
/// `NFT_SET_ELEM_INTERVAL_END`: the first that is in no range any more.
const RANGE_END: u32 = 1;
/// What `nft` calls the kinds of a key, so that it shows them.
const KEY_IPV4: u32 = 7;
const KEY_IPV6: u32 = 8;

/// `NFT_TABLE_F_OWNER`.
#[cfg(test)]
const OWNED: u32 = 2;

/// A table of ours that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Table {
    /// The tap: its name as it was when it was guarded. Of one by another hand it may have no number.
    pub(super) tap: TapId,
    /// What no other table ever has.
    handle: u64,
}

/// The socket.
#[derive(Debug)]
pub(super) struct Tables(Socket);

impl Tables {
    pub(super) fn open() -> Result<Self, Errno> {
        Socket::open(FAMILY).map(Self)
    }

    /// The port of the socket, which is in what others are told of its requests.
    pub(super) fn port(&self) -> u32 {
        self.0.port
    }

    /// Makes the table of a tap, in place of the one that is there: also one that an earlier tap of that name
    /// has left, which the kernel would hook into this one (6.16 and later).
    /// Where there is one as far as is known (`again`), that is said at once.
    pub(super) fn put(
        &mut self,
        tap: &TapId,
        rules: Ruleset<'_>,
        again: bool,
    ) -> Result<(), Errno> {
        self.put_with(tap, rules, again, 0)
    }

    /// As [`put`](Self::put), with flags of the table (`NFT_TABLE_F_*`).
    fn put_with(
        &mut self,
        tap: &TapId,
        ruleset: Ruleset<'_>,
        again: bool,
        flags: u32,
    ) -> Result<(), Errno> {
        let Ruleset { sender, compiled } = ruleset;
        let table = name(&tap.name);
        let mut noted = attribute(TABLE_NAME, &table);
        noted.extend(attribute(TABLE_FLAGS, &flags.to_be_bytes()));
        if let Some(index) = tap.index {
            noted.extend(attribute(TABLE_NOTE, &note(index)));
        }
        let mut messages = vec![Part::new(NEW_TABLE, CREATE | EXCLUSIVE, noted)];
        if compiled.is_some() {
            messages.extend([
                chain(&table, DROPPED, None),
                rule(&table, DROPPED, &Rule::new().counted().drop()),
            ]);
        }
        if let Some(addresses) = sender.and_then(Sender::ipv4) {
            messages.extend(set(&table, IPV4, KEY_IPV4, &addresses, |ip| {
                ip.to_be_bytes().to_vec()
            }));
        }
        if let Some(addresses) = sender.and_then(Sender::ipv6) {
            messages.extend(set(&table, IPV6, KEY_IPV6, &addresses, |ip| {
                ip.to_be_bytes().to_vec()
            }));
        }
        let hook = sender.map_or(Hook::Ingress, |sender| sender.hook);
        let hook = Place::source(hook);
        messages.push(chain(&table, FRAMES, Some((&tap.name, hook))));
        // Where there is no source filter everything passes this chain.
        let rules = sender.map_or_else(|| vec![Rule::new().pass()], Sender::rules);
        messages.extend(rules.iter().map(|each| rule(&table, FRAMES, each)));
        for each in compiled.map_or(&[][..], Compiled::chains) {
            let entry = each
                .entry
                .map(|entry| (tap.name.as_str(), Place::of(entry)));
            messages.push(chain(&table, &each.name, entry));
        }
        // Rules enter chains that are there.
        for each in compiled.map_or(&[][..], Compiled::chains) {
            let rules = each.rules.iter().map(|it| rule(&table, &each.name, it));
            messages.extend(rules);
        }
        // Each message costs the kernel a look at every table that there is.
        if !again {
            let made = self.0.transact(&messages);
            if made != Err(Errno::EXIST) {
                return made;
            }
        }
        let before = [
            Part::new(NEW_TABLE, CREATE, attribute(TABLE_NAME, &table)),
            Part::new(DELETE_TABLE, 0, attribute(TABLE_NAME, &table)),
        ];
        messages.splice(0..0, before);
        self.0.transact(&messages)
    }

    /// Deletes that very table and no other of its name.
    pub(super) fn delete(&mut self, table: &Table) -> Result<(), Errno> {
        let handle = attribute(TABLE_HANDLE, &table.handle.to_be_bytes());
        self.0.transact(&[Part::new(DELETE_TABLE, 0, handle)])
    }

    /// Has a table that nobody else may touch in place of the one of that name, for as long as the socket lives.
    #[cfg(test)]
    pub(super) fn seize(&mut self, tap: &str) -> Result<(), Errno> {
        let named = attribute(TABLE_NAME, &name(tap));
        let flags = attribute(TABLE_FLAGS, &OWNED.to_be_bytes());
        let owned = [named.clone(), flags].concat();
        self.0.transact(&[
            Part::new(DELETE_TABLE, 0, named),
            Part::new(NEW_TABLE, CREATE | EXCLUSIVE, owned),
        ])
    }

    /// As [`put`](Self::put), and nobody else may touch it for as long as the socket lives.
    #[cfg(test)]
    pub(super) fn put_owned(&mut self, tap: &TapId, rules: Ruleset<'_>) -> Result<(), Errno> {
        self.put_with(tap, rules, true, OWNED)
    }

    /// The table of taps of that name, if there is one.
    pub(super) fn find(&mut self, tap: &str) -> Result<Option<Table>, Errno> {
        let mut found = None;
        let body = attribute(TABLE_NAME, &name(tap));
        let asked = self.0.ask(GET_TABLE, 0, &body, |answer| {
            found = found.take().or(table(answer))
        });
        match asked {
            Err(Errno::NOENT) => Ok(None),
            asked => asked.map(|()| found),
        }
    }

    /// All of ours, of whichever supervisor.
    pub(super) fn all(&mut self) -> Result<Vec<Table>, Errno> {
        let mut tables = Vec::new();
        self.0
            .ask(GET_TABLE, DUMP, &[], |answer| tables.extend(table(answer)))?;
        Ok(tables)
    }

    /// How many frames of a tap were dropped; `None` where the table of that name is another tap's, or there
    /// is none.
    pub(super) fn dropped(&mut self, tap: &TapId) -> Result<Option<u64>, Errno> {
        let tap = tap.now()?;
        if self.find(&tap.name)?.is_none_or(|table| table.tap != tap) {
            return Ok(None);
        }
        let mut dropped = 0_u64;
        // One that is not there has no rules.
        for chain in [FRAMES, DROPPED] {
            self.rules(&tap, chain, |rule| {
                dropped = dropped.saturating_add(counted(rule).unwrap_or(0));
            })?;
        }
        Ok(Some(dropped))
    }

    /// How many rules of whose frames pass a tap has, however old.
    pub(super) fn held(&mut self, tap: &TapId) -> Result<u64, Errno> {
        let tap = tap.now()?;
        if self.find(&tap.name)?.is_none_or(|table| table.tap != tap) {
            return Ok(0);
        }
        let mut rules = 0_u64;
        self.rules(&tap, FRAMES, |_| rules += 1)?;
        Ok(rules)
    }

    /// Has every rule of a chain of the table by a tap's name taken.
    fn rules(&mut self, tap: &TapId, chain: &str, take: impl FnMut(&[u8])) -> Result<(), Errno> {
        let body = [
            attribute(TABLE_NAME, &name(&tap.name)),
            attribute(RULE_CHAIN, &terminated(chain)),
        ];
        self.0.ask(GET_RULE, DUMP, &body.concat(), take)
    }
}

/// The tap whose table somebody else than the socket with that `port` took something from.
pub(super) fn taken_from(message: &Received<'_>, port: u32) -> Option<String> {
    let (family, attributes) = message.body.split_first_chunk::<4>()?;
    if !is_deletion(message) || message.port == port || family[0] != FAMILY {
        return None;
    }
    // Whatever it is about, its first attribute is the table's name.
    let name = netlink::text(netlink::find(attributes, TABLE_NAME)?)?;
    name.strip_prefix(PREFIX).map(str::to_owned)
}

fn name(tap: &str) -> Vec<u8> {
    terminated(&format!("{PREFIX}{tap}"))
}

/// What `nft` shows as the comment of a table: whose it is.
fn note(index: i32) -> Vec<u8> {
    /// `NFTNL_UDATA_TABLE_COMMENT`.
    const COMMENT: u8 = 0;
    let text = terminated(&format!("{NOTE}{index}"));
    let mut note = vec![COMMENT, u8::try_from(text.len()).unwrap_or(u8::MAX)];
    note.extend(text);
    note
}

/// Where a chain is hooked into a device.
#[derive(Debug, Clone, Copy)]
struct Place {
    /// `NF_NETDEV_*`.
    number: u32,
    priority: i32,
    /// `NF_DROP` or `NF_ACCEPT` where no rule decides.
    policy: u32,
}

impl Place {
    /// That of [`FRAMES`].
    const fn source(hook: Hook) -> Self {
        Self {
            number: hook.number(),
            priority: 0,
            policy: 0,
        }
    }

    /// Of the chains of a network filter: what passes one from the guest has the source filter still before it.
    const fn of(entry: Entry) -> Self {
        let number = match entry {
            Entry::FromGuest => 0,
            Entry::ToGuest => 1,
        };
        Self {
            number,
            priority: -10,
            policy: 1,
        }
    }
}

/// What is in a table.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ruleset<'a> {
    /// Whose frames pass; anybody's where it is not said.
    pub(super) sender: Option<&'a Sender>,
    /// The chains of a network filter.
    pub(super) compiled: Option<&'a Compiled>,
}

/// A chain; with a tap, one that its frames enter there.
fn chain(table: &[u8], name: &str, entry: Option<(&str, Place)>) -> Part {
    let mut body = [attribute(1, table), attribute(3, &terminated(name))].concat();
    if let Some((tap, place)) = entry {
        let parts = [
            attribute(1, &place.number.to_be_bytes()),
            attribute(2, &place.priority.to_be_bytes()),
            attribute(3, &terminated(tap)),
        ];
        body.extend(attribute(4 | NESTED, &parts.concat()));
        body.extend(attribute(5, &place.policy.to_be_bytes()));
        body.extend(attribute(7, &terminated("filter")));
    }
    Part::new(NEW_CHAIN, CREATE, body)
}

fn rule(table: &[u8], chain: &str, rule: &Rule) -> Part {
    let body = [
        attribute(1, table),
        attribute(RULE_CHAIN, &terminated(chain)),
        attribute(RULE_EXPRESSIONS | NESTED, rule.expressions()),
    ];
    Part::new(NEW_RULE, CREATE | APPEND, body.concat())
}

/// A set of ranges, with what is in it.
fn set<T: Copy + Successor>(
    table: &[u8],
    name: &str,
    kind: u32,
    ranges: &[(T, T)],
    bytes: impl Fn(T) -> Vec<u8>,
) -> Vec<Part> {
    let length = u32::try_from(size_of::<T>()).unwrap_or(u32::MAX);
    let body = [
        attribute(1, table),
        attribute(2, &terminated(name)),
        attribute(3, &RANGES.to_be_bytes()),
        attribute(4, &kind.to_be_bytes()),
        attribute(5, &length.to_be_bytes()),
        // Its number in the transaction: there are two at most, of one kind each.
        attribute(10, &kind.to_be_bytes()),
    ];
    let element = |key: T, flags: u32| {
        let mut element = attribute(1 | NESTED, &attribute(DATA_VALUE, &bytes(key)));
        if flags != 0 {
            element.extend(attribute(3, &flags.to_be_bytes()));
        }
        attribute(1 | NESTED, &element)
    };
    let elements = ranges.iter().flat_map(|(first, last)| {
        // The last address of all has none behind it.
        let end = last.next().map(|end| element(end, RANGE_END));
        [Some(element(*first, 0)), end].into_iter().flatten()
    });
    let elements: Vec<u8> = elements.flatten().collect();
    let mut parts = vec![Part::new(NEW_SET, CREATE, body.concat())];
    if !elements.is_empty() {
        let body = [
            attribute(1, table),
            attribute(2, &terminated(name)),
            attribute(3 | NESTED, &elements),
        ];
        parts.push(Part::new(NEW_ELEMENTS, CREATE, body.concat()));
    }
    parts
}

/// The table of ours that a message describes.
fn table(body: &[u8]) -> Option<Table> {
    let (family, attributes) = body.split_first_chunk::<4>()?;
    let name = netlink::text(netlink::find(attributes, TABLE_NAME)?)?;
    let tap = name.strip_prefix(PREFIX).filter(|_| family[0] == FAMILY)?;
    let handle = netlink::find(attributes, TABLE_HANDLE)?.first_chunk()?;
    let noted = netlink::find(attributes, TABLE_NOTE).and_then(|note| {
        // The kind and the length of the text, then the text.
        let text = netlink::text(note.get(2..)?)?;
        text.strip_prefix(NOTE)?.parse().ok()
    });
    Some(Table {
        tap: TapId {
            name: tap.to_owned(),
            index: noted,
        },
        handle: u64::from_be_bytes(*handle),
    })
}

/// The frames that the rule of a message has counted.
fn counted(body: &[u8]) -> Option<u64> {
    let attributes = body.get(4..)?;
    let expressions = netlink::find(attributes, RULE_EXPRESSIONS)?;
    netlink::attributes(expressions).find_map(|(_, expression)| {
        let name = netlink::text(netlink::find(expression, 1)?)?;
        let data = netlink::find(expression, 2).filter(|_| name == "counter")?;
        let packets = netlink::find(data, COUNTER_PACKETS)?.first_chunk()?;
        Some(u64::from_be_bytes(*packets))
    })
}
