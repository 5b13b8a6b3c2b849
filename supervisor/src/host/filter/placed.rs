//! Filters that are in their places, as the kernel tells of them.
//!
//! | | named |
//! |---|---|
//! | table of netdev | `reeve-taps-NUMBER`: the taps whose names come to that number, of whichever supervisor |
//! | chain, set | `NAME/TAP`; the chain `frames/TAP` is noted with the number of its tap |
//!
//! The kernel looks through all tables for each message that it is told, by their names, and it is told a dozen for each
//! tap: with one for each tap that grows with their number. With one for all taps it would check the rules of all whenever
//! one changes.
//!
//! Kernels before 6.16 delete a chain that is hooked into an interface when that goes, and nothing else of its filter.

use std::collections::BTreeMap;

use super::expression::terminated;
use super::rules::{DROPPED, FRAMES};
use super::tables::FAMILY;
use crate::host::netlink::{self, Received, attribute};
use crate::host::nf_tables::{
    DELETE_CHAIN, DELETE_RULE, DELETE_SET, Part, is_deletion, message_kind,
};
use crate::host::tap::TapId;

/// What the name of a table of ours begins with; its number follows.
const PREFIX: &str = "reeve-taps-";
/// How many there are at most.
const TABLES: u32 = 64;
/// Between what a chain or a set is and the name of its tap, which has none (`dev_valid_name`). The tap is last: it may begin
/// with a digit, with which `nft` reads no name.
const BETWEEN: char = '/';
const TABLE: u16 = 1;
const TABLE_USERS: u16 = 3;
const CHAIN_HANDLE: u16 = 2;
pub(super) const CHAIN_NAME: u16 = 3;
pub(super) const CHAIN_HOOK: u16 = 4;
pub(super) const CHAIN_NOTE: u16 = 12;
pub(super) const SET_NAME: u16 = 2;
const SET_HANDLE: u16 = 16;
const RULE_CHAIN: u16 = 2;
/// What the note of a chain begins with; the number of its tap follows.
const NOTE: &str = "interface ";

/// The filter of a tap that is there, or what is left of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Filter {
    /// The tap: its name as it was when it was guarded. Of one by another hand, and of what is left where the kernel has
    /// deleted the chain, it has no number.
    pub(super) tap: TapId,
    objects: Vec<Object>,
}

/// What is deleted by a number that no other has while the table is there, in this order: nothing goes before what refers
/// to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Object {
    kind: Kind,
    handle: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// A chain that frames enter.
    Entry,
    /// A chain that is entered from others.
    Chain,
    /// The chain that those end in.
    Dropped,
    Set,
}

/// A chain or a set of a filter.
pub(super) struct Found {
    tap: TapId,
    object: Object,
}

impl Found {
    /// Whether its filter has chains by any name.
    pub(super) fn has_more(&self) -> bool {
        self.object.kind == Kind::Dropped
    }

    /// The chain that a message describes, if it is one of a filter.
    pub(super) fn chain(body: &[u8]) -> Option<Self> {
        let (attributes, tap, name) = named(body, CHAIN_NAME)?;
        let noted = netlink::find(attributes, CHAIN_NOTE).and_then(|note| {
            // The kind and the length of the text, then the text.
            let text = netlink::text(note.get(2..)?)?;
            text.strip_prefix(NOTE)?.parse().ok()
        });
        let kind = match netlink::find(attributes, CHAIN_HOOK) {
            Some(_) => Kind::Entry,
            // What the kernel has unhooked is entered from nowhere.
            None if name == FRAMES => Kind::Entry,
            None if name == DROPPED => Kind::Dropped,
            None => Kind::Chain,
        };
        Some(Self {
            tap: TapId {
                name: tap.to_owned(),
                index: noted,
            },
            object: Object {
                kind,
                handle: handle(attributes, CHAIN_HANDLE)?,
            },
        })
    }

    /// The set that a message describes, if it is one of a filter.
    pub(super) fn set(body: &[u8]) -> Option<Self> {
        let (attributes, tap, _) = named(body, SET_NAME)?;
        Some(Self {
            tap: TapId {
                name: tap.to_owned(),
                index: None,
            },
            object: Object {
                kind: Kind::Set,
                handle: handle(attributes, SET_HANDLE)?,
            },
        })
    }
}

impl Filter {
    /// Those that the chains and sets make up.
    pub(super) fn of(found: impl IntoIterator<Item = Found>) -> Vec<Self> {
        let mut filters: BTreeMap<String, Self> = BTreeMap::new();
        for Found { tap, object } in found {
            let filter = filters.entry(tap.name.clone()).or_insert_with(|| Self {
                tap: TapId {
                    index: None,
                    ..tap.clone()
                },
                objects: Vec::new(),
            });
            filter.tap.index = filter.tap.index.or(tap.index);
            filter.objects.push(object);
        }
        let mut filters: Vec<Self> = filters.into_values().collect();
        filters
            .iter_mut()
            .for_each(|filter| filter.objects.sort_unstable());
        filters
    }

    /// Whether it is of that very tap, or of none any more and in nobody's way.
    pub(super) fn is_of(&self, tap: &TapId) -> bool {
        self.tap.index == tap.index || self.tap.index.is_none()
    }

    /// What of it frames enter by.
    #[cfg(test)]
    pub(super) fn hooked(mut self) -> Self {
        self.objects.retain(|object| object.kind == Kind::Entry);
        self
    }

    /// What deletes it, and no other by its name.
    pub(super) fn deletions(&self) -> Vec<Part> {
        let table = table(&self.tap.name);
        let objects = self.objects.iter().map(|object| {
            let (message, attribute_of) = match object.kind {
                Kind::Set => (DELETE_SET, SET_HANDLE),
                _ => (DELETE_CHAIN, CHAIN_HANDLE),
            };
            let handle = attribute(attribute_of, &object.handle.to_be_bytes());
            Part::new(message, 0, [attribute(TABLE, &table), handle].concat())
        });
        objects.collect()
    }
}

/// What somebody took something from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Taken {
    /// The filter of the tap of that name.
    Tap(String),
    /// All that are in the table of that name.
    Table(Vec<u8>),
}

impl Taken {
    /// As a message says, if it is one of a filter and somebody else's deed than of the socket with that `port`.
    pub(super) fn from(message: &Received<'_>, port: u32) -> Option<Self> {
        if !is_deletion(message) || message.port == port {
            return None;
        }
        let name = match message.kind {
            kind if kind == message_kind(DELETE_CHAIN) => CHAIN_NAME,
            kind if kind == message_kind(DELETE_RULE) => RULE_CHAIN,
            _ => SET_NAME,
        };
        if let Some((_, tap, _)) = named(message.body, name) {
            return Some(Self::Tap(tap.to_owned()));
        }
        let attributes = ours(message.body)?;
        let table = netlink::text(netlink::find(attributes, TABLE)?)?;
        Some(Self::Table(terminated(table)))
    }
}

/// The table of a tap.
pub(super) fn table(tap: &str) -> Vec<u8> {
    // FNV-1a, whose upper half is the better one.
    let number = tap.bytes().fold(0x811c_9dc5_u32, |number, byte| {
        (number ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    terminated(&format!("{PREFIX}{}", (number >> 16) % TABLES))
}

/// The table that a message describes, if it is one of ours.
pub(super) fn described(body: &[u8]) -> Option<Vec<u8>> {
    let table = netlink::find(ours(body)?, TABLE)?;
    netlink::text(table).map(terminated)
}

/// How many chains and sets are in the table that a message describes.
pub(super) fn users(body: &[u8]) -> Option<u32> {
    let users = netlink::find(ours(body)?, TABLE_USERS)?.first_chunk()?;
    Some(u32::from_be_bytes(*users))
}

/// What a chain or a set of a tap is called.
pub(super) fn name(tap: &str, own: &str) -> String {
    format!("{own}{BETWEEN}{tap}")
}

/// What `nft` shows as the comment of a chain: whose it is.
pub(super) fn note(index: i32) -> Vec<u8> {
    /// `NFTNL_UDATA_CHAIN_COMMENT`.
    const COMMENT: u8 = 0;
    let text = terminated(&format!("{NOTE}{index}"));
    let mut note = vec![COMMENT, u8::try_from(text.len()).unwrap_or(u8::MAX)];
    note.extend(text);
    note
}

/// The chain that the rule of a message is in, if it is one of that tap's.
pub(super) fn chain_of<'a>(rule: &'a [u8], tap: &str) -> Option<&'a str> {
    let (attributes, of, _) = named(rule, RULE_CHAIN)?;
    let chain = || netlink::text(netlink::find(attributes, RULE_CHAIN)?);
    (of == tap).then(chain).flatten()
}

/// The attributes of what is in a table of ours.
fn ours(body: &[u8]) -> Option<&[u8]> {
    let (family, attributes) = body.split_first_chunk::<4>()?;
    // Whatever it is about, its first attribute is the table's name.
    let table = netlink::text(netlink::find(attributes, TABLE)?)?;
    let ours = family[0] == FAMILY && table.starts_with(PREFIX);
    ours.then_some(attributes)
}

/// The attributes, whose it is, and its own name.
fn named(body: &[u8], name: u16) -> Option<(&[u8], &str, &str)> {
    let attributes = ours(body)?;
    let name = netlink::text(netlink::find(attributes, name)?)?;
    let (own, tap) = name.rsplit_once(BETWEEN)?;
    Some((attributes, tap, own))
}

fn handle(attributes: &[u8], kind: u16) -> Option<u64> {
    let handle = netlink::find(attributes, kind)?.first_chunk()?;
    Some(u64::from_be_bytes(*handle))
}
