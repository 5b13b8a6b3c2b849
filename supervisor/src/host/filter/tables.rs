//! Filters in tables of nf_tables, and the socket by which they are made. All of a filter is made in one transaction,
//! which also replaces one that is there: no frame sees half of it. What is called how stands in `placed.rs`.

use std::collections::BTreeSet;

use rustix::io::Errno;

use super::compiled::{Compiled, Entry};
use super::expression::{DATA_VALUE, Rule, terminated};
use super::placed::{self, CHAIN_HOOK, CHAIN_NAME, CHAIN_NOTE, Filter, Found, SET_NAME};
use super::rules::{DROPPED, FRAMES, Hook, IPV4, IPV6, Sender, Successor};
use crate::host::netlink::{self, APPEND, CREATE, DUMP, EXCLUSIVE, NESTED, attribute};
use crate::host::nf_tables::{
    DELETE_TABLE, GET_CHAIN, GET_RULE, GET_SET, GET_TABLE, NEW_CHAIN, NEW_ELEMENTS, NEW_RULE,
    NEW_SET, NEW_TABLE, Part, Socket,
};
use crate::host::tap::TapId;

/// `NFPROTO_NETDEV`: frames as a device takes them in, before any bridge.
pub(super) const FAMILY: u8 = 5;
const TABLE_NAME: u16 = 1;
const TABLE_FLAGS: u16 = 2;
/// `NLM_F_NONREC`: only what has nothing in it.
const ONLY_EMPTY: u16 = 0x100;
/// How often a filter is put up that somebody else changes meanwhile.
const TRIES: usize = 3;
/// How often what changes while it is listed is listed again.
const LISTS: usize = 20;
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

    /// Puts a tap's filter up, in place of the one that is there: also one that an earlier tap of that name
    /// has left, which the kernel would hook into this one (6.16 and later).
    /// Where there is one as far as is known (`again`), it is looked for at once.
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
        let messages = messages(tap, ruleset, flags);
        let mut made = Err(Errno::EXIST);
        if !again {
            made = self.0.transact(&messages);
        }
        let mut awake = false;
        for attempt in 0..TRIES {
            let before = match (made, attempt) {
                (Err(Errno::INVAL), _) if !awake => {
                    // What the table is cannot change in the transaction that hooks a chain.
                    self.wake(&tap.name)?;
                    awake = true;
                    self.find(&tap.name)?
                }
                (Err(Errno::EXIST | Errno::NOENT), 0) => self.find(&tap.name)?,
                // By other names than are known.
                (Err(Errno::EXIST | Errno::NOENT), _) => {
                    let all = self.all()?;
                    all.into_iter().find(|it| it.tap.name == tap.name)
                }
                _ => break,
            };
            if before.is_none() && made == Err(Errno::NOENT) {
                break;
            }
            let mut parts = before.map_or_else(Vec::new, |before| before.deletions());
            parts.extend_from_slice(&messages);
            made = self.0.transact(&parts);
        }
        made
    }

    /// Has a table looked through that somebody told the kernel not to (`NFT_TABLE_F_DORMANT`).
    fn wake(&mut self, tap: &str) -> Result<(), Errno> {
        let parts = [
            attribute(TABLE_NAME, &placed::table(tap)),
            attribute(TABLE_FLAGS, &0_u32.to_be_bytes()),
        ];
        let woken = self.0.transact(&[Part::new(NEW_TABLE, 0, parts.concat())]);
        match woken {
            // There is none that could sleep.
            Err(Errno::NOENT) => Ok(()),
            woken => woken,
        }
    }

    /// Deletes the filter by a tap's name where `unwanted` says so of it, and its table where nothing else is in it.
    pub(super) fn delete_where(
        &mut self,
        tap: &str,
        unwanted: impl Fn(&Filter) -> bool,
    ) -> Result<(), Errno> {
        for _ in 0..TRIES {
            let Some(filter) = self.find(tap)?.filter(&unwanted) else {
                self.tidy(tap);
                return Ok(());
            };
            // Where somebody has deleted a part of it meanwhile, the kernel itself among them, the rest is there.
            match self.delete(&filter) {
                Err(Errno::NOENT) => {}
                deleted => return deleted,
            }
        }
        Err(Errno::NOENT)
    }

    /// Deletes that very filter and no other of its name, and its table where nothing else is in it. All of it, or nothing.
    pub(super) fn delete(&mut self, filter: &Filter) -> Result<(), Errno> {
        let deleted = self.0.transact(&filter.deletions());
        self.tidy(&filter.tap.name);
        deleted
    }

    /// Deletes the table of a tap where nothing is in it.
    fn tidy(&mut self, tap: &str) {
        self.delete_empty(&placed::table(tap));
    }

    /// The same of all that there are.
    pub(super) fn tidy_all(&mut self) -> Result<(), Errno> {
        let mut tables = Vec::new();
        self.0.ask(GET_TABLE, DUMP, &[], |answer| {
            tables.extend(placed::described(answer));
        })?;
        tables.iter().for_each(|table| self.delete_empty(table));
        Ok(())
    }

    fn delete_empty(&mut self, table: &[u8]) {
        let named = attribute(TABLE_NAME, table);
        // What the kernel refuses to delete takes it milliseconds, for which all wait who tell it anything.
        let mut users = None;
        let asked = self.0.ask(GET_TABLE, 0, &named, |answer| {
            users = placed::users(answer);
        });
        if asked.is_err() || users != Some(0) {
            return;
        }
        // Others' filters may be in it, or it is gone.
        let _ = self
            .0
            .transact(&[Part::new(DELETE_TABLE, ONLY_EMPTY, named)]);
    }

    /// Has a table that nobody else may touch in place of the one of a tap of that name, for as long as the socket lives.
    #[cfg(test)]
    pub(super) fn seize(&mut self, tap: &str) -> Result<(), Errno> {
        let named = attribute(TABLE_NAME, &placed::table(tap));
        let flags = attribute(TABLE_FLAGS, &OWNED.to_be_bytes());
        let owned = [named.clone(), flags].concat();
        self.0.transact(&[
            Part::new(DELETE_TABLE, 0, named),
            Part::new(NEW_TABLE, CREATE | EXCLUSIVE, owned),
        ])
    }

    /// As [`put`](Self::put) after [`seize`](Self::seize).
    #[cfg(test)]
    pub(super) fn put_owned(&mut self, tap: &TapId, rules: Ruleset<'_>) -> Result<(), Errno> {
        self.seize(&tap.name)?;
        self.put_with(tap, rules, false, OWNED)
    }

    /// The filter of taps of that name, if there is one, or what is left of it.
    pub(super) fn find(&mut self, tap: &str) -> Result<Option<Filter>, Errno> {
        let table = placed::table(tap);
        let mut found = Vec::new();
        let chain = |own: &str| named(&table, CHAIN_NAME, &placed::name(tap, own));
        for own in [IPV4, IPV6] {
            let body = named(&table, SET_NAME, &placed::name(tap, own));
            self.look(GET_SET, &body, Found::set, &mut found)?;
        }
        self.look(GET_CHAIN, &chain(DROPPED), Found::chain, &mut found)?;
        if found.iter().any(Found::has_more) {
            for chain in self.ruled(&table, tap)? {
                let body = named(&table, CHAIN_NAME, &chain);
                self.look(GET_CHAIN, &body, Found::chain, &mut found)?;
            }
        }
        // Last: what says whose it all is, is not older than the rest.
        self.look(GET_CHAIN, &chain(FRAMES), Found::chain, &mut found)?;
        Ok(Filter::of(found).pop())
    }

    /// The chains of a tap's network filter, those that frames enter and those that have rules. The kernel tells of chains
    /// only by their names or all that there are, but of rules of one table.
    fn ruled(&mut self, table: &[u8], tap: &str) -> Result<BTreeSet<String>, Errno> {
        let body = attribute(TABLE_NAME, table);
        let entries = [Entry::FromGuest, Entry::ToGuest];
        let entries = entries.map(|entry| placed::name(tap, entry.name()));
        // What was there in one list and in the next is not any more is asked for in vain.
        let mut chains = BTreeSet::from(entries);
        for _ in 0..LISTS {
            let listed = self.0.list(GET_RULE, &body, |rule| {
                chains.extend(placed::chain_of(rule, tap).map(str::to_owned));
            });
            match listed {
                Ok(false) => continue,
                Ok(true) | Err(Errno::NOENT) => break,
                Err(errno) => return Err(errno),
            }
        }
        for own in [FRAMES, DROPPED] {
            chains.remove(&placed::name(tap, own));
        }
        Ok(chains)
    }

    /// All of ours, of whichever supervisor.
    pub(super) fn all(&mut self) -> Result<Vec<Filter>, Errno> {
        for _ in 0..LISTS {
            let mut found = Vec::new();
            let chains = self.0.list(GET_CHAIN, &[], |answer| {
                found.extend(Found::chain(answer));
            })?;
            let sets = self.0.list(GET_SET, &[], |answer| {
                found.extend(Found::set(answer));
            })?;
            if chains && sets {
                return Ok(Filter::of(found));
            }
        }
        Err(Errno::AGAIN)
    }

    /// Takes up what is there of what is asked for.
    fn look(
        &mut self,
        kind: u16,
        body: &[u8],
        read: impl Fn(&[u8]) -> Option<Found>,
        found: &mut Vec<Found>,
    ) -> Result<(), Errno> {
        let asked = self
            .0
            .ask(kind, 0, body, |answer| found.extend(read(answer)));
        match asked {
            Err(Errno::NOENT) => Ok(()),
            asked => asked,
        }
    }

    /// Deletes what frames enter by, and leaves the rest of a filter.
    #[cfg(test)]
    pub(super) fn delete_hooked(&mut self, tap: &str) -> Result<(), Errno> {
        let hooked = self.find(tap)?.map(|filter| filter.hooked().deletions());
        self.0.transact(&hooked.unwrap_or_default())
    }

    /// Has a table not looked through.
    #[cfg(test)]
    pub(super) fn put_to_sleep(&mut self, tap: &str) -> Result<(), Errno> {
        /// `NFT_TABLE_F_DORMANT`.
        const DORMANT: u32 = 1;
        let parts = [
            attribute(TABLE_NAME, &placed::table(tap)),
            attribute(TABLE_FLAGS, &DORMANT.to_be_bytes()),
        ];
        self.0.transact(&[Part::new(NEW_TABLE, 0, parts.concat())])
    }

    /// Deletes all rules of a table.
    #[cfg(test)]
    pub(super) fn flush(&mut self, tap: &str) -> Result<(), Errno> {
        use crate::host::nf_tables::DELETE_RULE;
        let table = attribute(TABLE_NAME, &placed::table(tap));
        self.0.transact(&[Part::new(DELETE_RULE, 0, table)])
    }

    /// How many tables of ours there are.
    #[cfg(test)]
    pub(super) fn count(&mut self) -> usize {
        let mut count = 0;
        let asked = self.0.ask(GET_TABLE, DUMP, &[], |answer| {
            count += usize::from(placed::described(answer).is_some());
        });
        asked.unwrap();
        count
    }

    /// Whether what looks at the frames of that very tap is there.
    pub(super) fn is_filtered(&mut self, tap: &TapId) -> Result<bool, Errno> {
        let frames = placed::name(&tap.name, FRAMES);
        let body = named(&placed::table(&tap.name), CHAIN_NAME, &frames);
        let mut found = Vec::new();
        self.look(GET_CHAIN, &body, Found::chain, &mut found)?;
        Ok(Filter::of(found).iter().any(|filter| filter.tap == *tap))
    }

    /// How many frames of a tap were dropped; `None` where the filter of that name is another tap's, or there
    /// is none.
    pub(super) fn dropped(&mut self, tap: &TapId) -> Result<Option<u64>, Errno> {
        let tap = tap.now()?;
        if !self.is_filtered(&tap)? {
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
        if !self.is_filtered(&tap)? {
            return Ok(0);
        }
        let mut rules = 0_u64;
        self.rules(&tap, FRAMES, |_| rules += 1)?;
        Ok(rules)
    }

    /// Has every rule of a chain of the filter by a tap's name taken.
    fn rules(&mut self, tap: &TapId, chain: &str, take: impl FnMut(&[u8])) -> Result<(), Errno> {
        let chain = placed::name(&tap.name, chain);
        let body = named(&placed::table(&tap.name), RULE_CHAIN, &chain);
        self.0.ask(GET_RULE, DUMP, &body, take)
    }
}

/// What is asked for by its name in a table.
fn named(table: &[u8], kind: u16, name: &str) -> Vec<u8> {
    [
        attribute(TABLE_NAME, table),
        attribute(kind, &terminated(name)),
    ]
    .concat()
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

/// What is in a filter.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ruleset<'a> {
    /// Whose frames pass; anybody's where it is not said.
    pub(super) sender: Option<&'a Sender>,
    /// The chains of a network filter.
    pub(super) compiled: Option<&'a Compiled>,
}

/// What makes a filter, where there is none by its name.
fn messages(tap: &TapId, ruleset: Ruleset<'_>, flags: u32) -> Vec<Part> {
    let Ruleset { sender, compiled } = ruleset;
    let into = Into {
        table: placed::table(&tap.name),
        tap,
    };
    let table = [
        attribute(TABLE_NAME, &into.table),
        attribute(TABLE_FLAGS, &flags.to_be_bytes()),
    ];
    let mut messages = vec![Part::new(NEW_TABLE, CREATE, table.concat())];
    if compiled.is_some() {
        messages.extend([
            into.chain(DROPPED, None),
            into.rule(DROPPED, &Rule::new().counted().drop()),
        ]);
    }
    if let Some(addresses) = sender.and_then(Sender::ipv4) {
        messages.extend(into.set(IPV4, KEY_IPV4, &addresses, |ip| ip.to_be_bytes().to_vec()));
    }
    if let Some(addresses) = sender.and_then(Sender::ipv6) {
        messages.extend(into.set(IPV6, KEY_IPV6, &addresses, |ip| ip.to_be_bytes().to_vec()));
    }
    let hook = sender.map_or(Hook::Ingress, |sender| sender.hook);
    messages.push(into.chain(FRAMES, Some(Place::source(hook))));
    // Where there is no source filter everything passes this chain.
    let rules = sender.map_or_else(|| vec![Rule::new().pass()], Sender::rules);
    messages.extend(rules.iter().map(|each| into.rule(FRAMES, each)));
    for each in compiled.map_or(&[][..], Compiled::chains) {
        messages.push(into.chain(&each.name, each.entry.map(Place::of)));
    }
    // Rules enter chains that are there.
    for each in compiled.map_or(&[][..], Compiled::chains) {
        messages.extend(each.rules.iter().map(|it| into.rule(&each.name, it)));
    }
    messages
}

/// What a filter is made in.
struct Into<'a> {
    table: Vec<u8>,
    tap: &'a TapId,
}

impl Into<'_> {
    fn named(&self, own: &str) -> Vec<u8> {
        terminated(&placed::name(&self.tap.name, own))
    }

    /// A chain; with a place, one that the tap's frames enter there.
    fn chain(&self, own: &str, entry: Option<Place>) -> Part {
        let mut body = [attribute(1, &self.table), attribute(3, &self.named(own))].concat();
        if let Some(place) = entry {
            let parts = [
                attribute(1, &place.number.to_be_bytes()),
                attribute(2, &place.priority.to_be_bytes()),
                attribute(3, &terminated(&self.tap.name)),
            ];
            body.extend(attribute(CHAIN_HOOK | NESTED, &parts.concat()));
            body.extend(attribute(5, &place.policy.to_be_bytes()));
            body.extend(attribute(7, &terminated("filter")));
        }
        if let Some(index) = self.tap.index.filter(|_| own == FRAMES) {
            body.extend(attribute(CHAIN_NOTE, &placed::note(index)));
        }
        Part::new(NEW_CHAIN, CREATE | EXCLUSIVE, body)
    }

    fn rule(&self, chain: &str, rule: &Rule) -> Part {
        let expressions = rule.expressions_named(|own| placed::name(&self.tap.name, own));
        let body = [
            attribute(1, &self.table),
            attribute(RULE_CHAIN, &self.named(chain)),
            attribute(RULE_EXPRESSIONS | NESTED, &expressions),
        ];
        Part::new(NEW_RULE, CREATE | APPEND, body.concat())
    }

    /// A set of ranges, with what is in it.
    fn set<T: Copy + Successor>(
        &self,
        own: &str,
        kind: u32,
        ranges: &[(T, T)],
        bytes: impl Fn(T) -> Vec<u8>,
    ) -> Vec<Part> {
        let length = u32::try_from(size_of::<T>()).unwrap_or(u32::MAX);
        let body = [
            attribute(1, &self.table),
            attribute(2, &self.named(own)),
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
        let mut parts = vec![Part::new(NEW_SET, CREATE | EXCLUSIVE, body.concat())];
        if !elements.is_empty() {
            let body = [
                attribute(1, &self.table),
                attribute(2, &self.named(own)),
                attribute(3 | NESTED, &elements),
            ];
            parts.push(Part::new(NEW_ELEMENTS, CREATE, body.concat()));
        }
        parts
    }
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
