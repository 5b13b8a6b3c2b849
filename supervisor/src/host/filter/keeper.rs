//! What is guarded, and the thread that keeps it so: it hears of interfaces that go and of filters of which something
//! is deleted.
//!
//! A tap is the interface with its number, whatever others have its name before and after: a filter is noted with
//! the number, and neither replaced nor deleted where the tap of its name is another than was guarded. It is hooked
//! into whatever has that name (6.16 and later) and named for it: a tap that is renamed gets one by its new name. One is
//! deleted only when its tap is gone, and by its handles: one that another supervisor, or this one, makes meanwhile for a
//! new tap of the same name is another filter, unless all that was in the table went meanwhile, and the table. What cannot
//! be put in its place is tried again, ever more rarely, for as long as the tap is there.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use reeve_ipc::model::{DomainName, DomainUuid};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::RecvFlags;
use rustix::net::netlink::{NETFILTER, SocketAddrNetlink};

use super::compiled::Bound;
use super::placed::{self, Filter, Taken};
use super::rules::Sender;
use super::tables::{Ruleset, Tables};
use super::turns::Turns;
use crate::host::netlink::{self, Received};
use crate::host::reason;
use crate::host::tap::TapId;
use crate::nwfilter::book::Book;
use crate::nwfilter::instance::InstanceError;

/// `RTMGRP_LINK`: interfaces.
const LINKS: u32 = 1;
/// `NFNLGRP_NFTABLES`, as a bit.
const RULESETS: u32 = 1 << 6;
const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
/// `IFLA_IFNAME`.
const LINK_NAME: u16 = 3;
/// `struct ifinfomsg`.
const LINK_HEADER_BYTES: usize = 16;
/// More than any event has.
const EVENT_BYTES: usize = 32 << 10;
/// How soon it is tried again what the kernel has refused; each time twice as long after that.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest of those pauses.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Whose frames a filter lets pass, and whose log says what becomes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Guarded {
    /// What it may send; anything where it is not said.
    pub(crate) sender: Option<Sender>,
    /// The network filter that its definition names.
    pub(crate) bound: Option<Bound>,
    /// The guest; none but in tests.
    pub(crate) guest: Option<Guest>,
}

/// A guest, as logs name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Guest {
    pub(crate) domain: DomainName,
    pub(crate) uuid: DomainUuid,
}

/// A filter that is not in its place.
#[derive(Debug, Clone, Copy)]
struct Retry {
    due: Instant,
    /// How long it is waited after that.
    pause: Duration,
}

#[derive(Debug)]
struct Entry {
    guarded: Guarded,
    /// The tap's name when its filter was put up.
    name: String,
    retry: Option<Retry>,
}

/// What is guarded.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// Opened when it is used first.
    tables: Option<Tables>,
    guarded: BTreeMap<TapId, Entry>,
    /// The same by the numbers of their interfaces: what happens to any interface of the host is looked up here.
    numbers: BTreeMap<i32, Vec<TapId>>,
    /// And by the names that their filters are for.
    names: BTreeMap<String, BTreeSet<TapId>>,
    /// Those whose filters are not in their places.
    waiting: BTreeSet<TapId>,
    /// The keeper is to end.
    pub(super) ending: bool,
}

impl Kept {
    fn tables(&mut self) -> Result<&mut Tables, Errno> {
        match &mut self.tables {
            Some(tables) => Ok(tables),
            none => Ok(none.insert(Tables::open()?)),
        }
    }

    /// Guards a tap, or leaves everything as it was.
    pub(super) fn guard(&mut self, tap: &TapId, guarded: Guarded) -> Result<(), Errno> {
        let entry = Entry {
            name: self.put(tap, &guarded)?,
            guarded,
            retry: None,
        };
        self.enter(tap, entry);
        Ok(())
    }

    /// Guards a tap, now or as soon as the kernel lets.
    pub(super) fn guard_soon(
        &mut self,
        tap: &TapId,
        guarded: Guarded,
        at: Instant,
    ) -> Result<(), Errno> {
        let put = self.put(tap, &guarded);
        let retry = put.as_ref().err().map(|_| Retry::first(at));
        let entry = Entry {
            // Where it is refused, what is in its place is by the name of before.
            name: put.clone().unwrap_or_else(|_| self.name_of(tap)),
            guarded,
            retry,
        };
        self.enter(tap, entry);
        put.map(drop)
    }

    /// Guards a tap whose filter of before holds, and leaves that as it is: what takes its place when it is gone,
    /// and when it is to be another, is `guarded`. `false` where none holds, and nothing is done.
    pub(super) fn enter_held(&mut self, tap: &TapId, guarded: Guarded) -> bool {
        let held = self.is_held(tap, &guarded);
        if held {
            let entry = Entry {
                name: tap.now().map_or_else(|_| self.name_of(tap), |now| now.name),
                guarded,
                retry: None,
            };
            self.enter(tap, entry);
        }
        held
    }

    /// Puts a filter up for that very tap, by the name that it has, which is given. Those by other names that it
    /// had are deleted.
    fn put(&mut self, tap: &TapId, guarded: &Guarded) -> Result<String, Errno> {
        let named = tap.now()?;
        let again = self.names.contains_key(&named.name);
        self.tables()?.put(&named, guarded.ruleset(), again)?;
        if tap.now().as_ref() != Ok(&named) {
            // It went meanwhile, or has another name, and the filter may be on another tap.
            self.tables()?
                .delete_where(&named.name, |filter| filter.is_of(&named))?;
            return Err(Errno::NODEV);
        }
        if self.name_of(tap) != named.name || tap.name != named.name {
            if let Err(errno) = self.delete_others(&named, &self.name_of(tap)) {
                let (tap, reason) = (&named.name, reason(errno));
                tracing::warn!(
                    tap,
                    "the filter by a tap's earlier name cannot be deleted: {reason}"
                );
            }
        }
        Ok(named.name)
    }

    /// Whether an earlier filter of a tap is in its place: one that says whose frames pass, where `guarded` does.
    pub(super) fn is_held(&mut self, tap: &TapId, guarded: &Guarded) -> bool {
        let rules = self.tables().and_then(|tables| tables.held(tap));
        // Where nobody is said to be the sender there is one, which lets everything pass.
        rules.unwrap_or(0) > u64::from(guarded.sender.is_some())
    }

    /// The name that a tap had when its filter was put up.
    fn name_of(&self, tap: &TapId) -> String {
        let entry = self.guarded.get(tap);
        entry.map_or(&tap.name, |entry| &entry.name).clone()
    }

    /// Deletes the filters of a tap by other names than this, of which it had `earlier` last.
    fn delete_others(&mut self, named: &TapId, earlier: &str) -> Result<(), Errno> {
        let tables = self.tables()?;
        let names = tables.all()?.into_iter().filter(|filter| {
            let own = named.index.is_some() && filter.tap.index == named.index;
            own || (filter.tap.index.is_none() && filter.tap.name == earlier)
        });
        let names = names.map(|filter| filter.tap.name);
        for name in names.filter(|name| *name != named.name) {
            tables.delete_where(&name, |filter| filter.is_of(named))?;
        }
        Ok(())
    }

    /// Deletes what is of taps that are gone. What cannot be deleted keeps nothing else.
    pub(super) fn sweep(&mut self) -> Result<(), Errno> {
        let tables = self.tables()?;
        let mut swept = Ok(());
        for filter in tables.all()? {
            if filter.tap.is_gone() {
                let deleted = match tables.delete(&filter) {
                    Err(Errno::NOENT) => {
                        let unwanted = |found: &Filter| found.is_of(&filter.tap);
                        tables.delete_where(&filter.tap.name, unwanted)
                    }
                    deleted => deleted,
                };
                swept = swept.and(deleted);
            }
        }
        swept.and(tables.tidy_all())
    }

    /// Deletes what an earlier tap of that name has left.
    pub(super) fn clear(&mut self, tap: &TapId) -> Result<(), Errno> {
        self.tables()?
            .delete_where(&tap.name, |filter| filter.tap != *tap)
    }

    /// Deletes the filters of that very tap, by whichever names, and keeps it no more.
    pub(super) fn release(&mut self, tap: &TapId) -> Result<(), Errno> {
        let now = tap.now()?;
        for name in BTreeSet::from([self.name_of(tap), now.name.clone()]) {
            self.tables()?
                .delete_where(&name, |filter| filter.is_of(&now))?;
        }
        self.leave(tap);
        Ok(())
    }

    /// Deletes the filter of a tap, if that is gone.
    pub(super) fn gone(&mut self, tap: &TapId) {
        let name = self.name_of(tap);
        // What is there by its name when it is gone may be another's, which without numbers cannot be told.
        let found = match tap.index {
            Some(_) => Ok(None),
            None => self.tables().and_then(|tables| tables.find(&name)),
        };
        if !tap.is_gone() {
            return;
        }
        self.leave(tap);
        let deleted = self.tables().and_then(|tables| match (found?, tap.index) {
            (Some(filter), None) => tables.delete(&filter),
            (None, None) => Ok(()),
            (_, Some(_)) => tables.delete_where(&name, |filter| filter.is_of(tap)),
        });
        if let Err(errno) = deleted {
            let (tap, reason) = (&tap.name, reason(errno));
            tracing::warn!(
                tap,
                "the filter of a tap that is gone cannot be deleted: {reason}"
            );
        }
    }

    /// What has a network filter, by the names that the taps have. Some of them may be gone.
    pub(super) fn bound(&self) -> Vec<(TapId, Guarded)> {
        let bound = self.guarded.iter();
        let bound = bound.filter(|(_, entry)| entry.guarded.bound.is_some());
        bound
            .map(|(tap, entry)| {
                let named = TapId {
                    name: entry.name.clone(),
                    ..tap.clone()
                };
                (named, entry.guarded.clone())
            })
            .collect()
    }

    /// The tap that is kept which has that number, and is guarded so: by whatever name, which it may have since.
    fn entered(&self, named: &TapId, guarded: &Guarded) -> Option<TapId> {
        let numbered = named.index.and_then(|index| self.numbers.get(&index));
        let by_name = self.names.get(&named.name).into_iter().flatten();
        let unnumbered = by_name.filter(|tap| (tap.index, named.index) == (None, None));
        let mut taps = numbered.into_iter().flatten().chain(unnumbered);
        let entry = |tap: &TapId| self.guarded.get(tap);
        let tap = taps.find(|tap| entry(tap).is_some_and(|entry| entry.guarded == *guarded));
        tap.cloned()
    }

    /// Guards a tap otherwise that `was` guards, or leaves everything as it was. Where something else guards it, or it
    /// is gone, nothing is done.
    pub(super) fn renew(
        &mut self,
        named: &TapId,
        was: &Guarded,
        anew: Guarded,
    ) -> Result<(), Errno> {
        let Some(tap) = self.entered(named, was) else {
            return Ok(());
        };
        match self.guard(&tap, anew) {
            Err(_) if tap.is_gone() => Ok(()),
            guarded => guarded,
        }
    }

    /// Undoes that where it was done, now or as soon as the kernel lets.
    pub(super) fn restore(
        &mut self,
        named: &TapId,
        was: &Guarded,
        before: Guarded,
    ) -> Result<(), Errno> {
        match self.entered(named, was) {
            Some(tap) => self.guard_soon(&tap, before, Instant::now()),
            None => Ok(()),
        }
    }

    /// Somebody took something from filters.
    pub(super) fn taken_from(&mut self, taken: &Taken, at: Instant) {
        let (names, there) = match taken {
            Taken::Tap(name) => (vec![name.clone()], false),
            // What somebody has of his own in it may be all that was taken.
            Taken::Table(table) => {
                let names = self.names.keys();
                let names = names.filter(|name| placed::table(name) == *table);
                (names.cloned().collect(), true)
            }
        };
        for name in names {
            for tap in self.names.get(&name).cloned().into_iter().flatten() {
                if !there || !self.is_filtered(&tap) {
                    self.put_back(&tap, at);
                }
            }
        }
    }

    /// Whether what looks at a tap's frames is there, by the name that it had.
    fn is_filtered(&mut self, tap: &TapId) -> bool {
        let named = TapId {
            name: self.name_of(tap),
            index: tap.index,
        };
        let found = self.tables().and_then(|tables| tables.is_filtered(&named));
        // Where that is not known it is put back.
        found.unwrap_or(false)
    }

    fn enter(&mut self, tap: &TapId, entry: Entry) {
        self.leave(tap);
        if let Some(index) = tap.index {
            self.numbers.entry(index).or_default().push(tap.clone());
        }
        if entry.retry.is_some() {
            self.waiting.insert(tap.clone());
        }
        let named = self.names.entry(entry.name.clone()).or_default();
        named.insert(tap.clone());
        self.guarded.insert(tap.clone(), entry);
    }

    fn leave(&mut self, tap: &TapId) {
        if let Some(entry) = self.guarded.remove(tap) {
            self.unname(tap, &entry.name);
        }
        self.waiting.remove(tap);
        let Some(index) = tap.index else { return };
        if let Some(taps) = self.numbers.get_mut(&index) {
            taps.retain(|other| other != tap);
            if taps.is_empty() {
                self.numbers.remove(&index);
            }
        }
    }

    fn unname(&mut self, tap: &TapId, name: &str) {
        if let Some(taps) = self.names.get_mut(name) {
            taps.remove(tap);
            if taps.is_empty() {
                self.names.remove(name);
            }
        }
    }

    /// Where a tap is known: among what is guarded, by its number, and among what waits. By its number once at most.
    #[cfg(test)]
    pub(super) fn knows(&self, tap: &TapId) -> (bool, bool, bool) {
        let numbered = self.numbers.values().flatten();
        let numbered = numbered.filter(|other| *other == tap).count();
        assert!(numbered <= 1 && self.numbers.values().all(|taps| !taps.is_empty()));
        let named = self.names.iter();
        let named = named.flat_map(|(name, taps)| taps.iter().map(move |tap| (tap, name)));
        let named: BTreeMap<_, _> = named.collect();
        let entries = self.guarded.iter();
        assert!(named == entries.map(|(tap, entry)| (tap, &entry.name)).collect());
        let guarded = self.guarded.contains_key(tap);
        (guarded, numbered == 1, self.waiting.contains(tap))
    }

    /// The taps with these numbers.
    fn among(&self, numbers: &BTreeSet<i32>) -> Vec<TapId> {
        let taps = numbers.iter().filter_map(|index| self.numbers.get(index));
        taps.flatten().cloned().collect()
    }

    /// Whether the tap with that number is guarded by another name.
    fn is_renamed(&self, index: i32, name: &str) -> bool {
        let taps = self.numbers.get(&index).into_iter().flatten();
        let mut entries = taps.filter_map(|tap| self.guarded.get(tap));
        entries.any(|entry| entry.name != name)
    }

    /// A tap may have another name than that by which it is guarded.
    fn renamed(&mut self, tap: &TapId, at: Instant) {
        let name = self.name_of(tap);
        if tap.now().is_ok_and(|now| now.name != name) {
            self.put_back(tap, at);
        }
    }

    fn put_back(&mut self, tap: &TapId, at: Instant) {
        let Some(entry) = self.guarded.get(tap) else {
            return;
        };
        // The kernel itself takes the chain of a tap that goes.
        if tap.is_gone() {
            return;
        }
        let (guarded, name, retry) = (entry.guarded.clone(), entry.name.clone(), entry.retry);
        let (name, next) = match (self.put(tap, &guarded), retry) {
            (Ok(now), _) => {
                let what = match now == name {
                    true => "its source filter was gone, and is back",
                    false => "it has another name, and its source filter by that",
                };
                guarded.warn(&now, what);
                (now, None)
            }
            (Err(errno), None) => {
                guarded.failed(&name, errno, self.is_held(tap, &guarded));
                (name, Some(Retry::first(at)))
            }
            (Err(_), Some(retry)) => (name, Some(retry.next(at))),
        };
        let entry = Entry {
            guarded,
            name,
            retry: next,
        };
        self.enter(tap, entry);
    }

    /// Events were lost: looks at everything.
    fn look(&mut self, at: Instant) {
        for tap in self.guarded.keys().cloned().collect::<Vec<_>>() {
            self.gone(&tap);
            self.renamed(&tap, at);
            if !self.is_filtered(&tap) {
                self.put_back(&tap, at);
            }
        }
    }

    /// Tries again what is due; gives how long it is until the next is.
    pub(super) fn retry(&mut self, at: Instant) -> Option<Duration> {
        let due = |entry: &Entry| entry.retry.is_some_and(|retry| retry.due <= at);
        let due = |tap: &&TapId| self.guarded.get(*tap).is_some_and(due);
        for tap in self.waiting.iter().filter(due).cloned().collect::<Vec<_>>() {
            self.gone(&tap);
            self.put_back(&tap, at);
        }
        self.next_retry(at)
    }

    /// How long it is until something is tried again.
    fn next_retry(&self, at: Instant) -> Option<Duration> {
        let waiting = self.waiting.iter();
        let retries = waiting.filter_map(|tap| self.guarded.get(tap)?.retry);
        let pauses = retries.map(|retry| retry.due.saturating_duration_since(at));
        pauses.min()
    }
}

impl Retry {
    fn first(now: Instant) -> Self {
        Self {
            due: now + FIRST_PAUSE,
            pause: FIRST_PAUSE * 2,
        }
    }

    fn next(self, now: Instant) -> Self {
        Self {
            due: now + self.pause,
            pause: (self.pause * 2).min(LONGEST_PAUSE),
        }
    }
}

impl Guarded {
    /// The same by the filters that there are now.
    pub(crate) fn again(&self, book: &Book) -> Result<Self, InstanceError> {
        let bound = self.bound.as_ref();
        Ok(Self {
            bound: bound.map(|bound| bound.again(book)).transpose()?,
            ..self.clone()
        })
    }

    pub(super) fn ruleset(&self) -> Ruleset<'_> {
        Ruleset {
            sender: self.sender.as_ref(),
            compiled: self.bound.as_ref().map(|bound| &*bound.compiled),
        }
    }

    /// Says it in the guest's log, too.
    fn warn(&self, tap: &str, what: &str) {
        match &self.guest {
            Some(Guest { domain, uuid }) => tracing::warn!(%domain, %uuid, tap, "{what}"),
            None => tracing::warn!(tap, "{what}"),
        }
    }

    /// Says in the guest's log, too, that its tap has no filter, or one of before that is still `held`.
    pub(super) fn failed(&self, tap: &str, errno: Errno, held: bool) {
        let until = match held {
            true => "the one of before holds",
            false => "the guest may use others' addresses",
        };
        let what = format!(
            "its source filter cannot be put in its place: {}; until it is {until}, and it is tried again",
            reason(errno)
        );
        match &self.guest {
            Some(Guest { domain, uuid }) => tracing::error!(%domain, %uuid, tap, "{what}"),
            None => tracing::error!(tap, "{what}"),
        }
    }
}

/// What the thread hears.
#[derive(Debug)]
pub(super) struct Events {
    links: OwnedFd,
    rulesets: OwnedFd,
    /// What is kept has changed.
    wake: OwnedFd,
}

/// What happened to interfaces and tables since it was looked last.
#[derive(Debug, Default)]
struct News {
    /// Their numbers.
    gone: BTreeSet<i32>,
    /// Numbers of those that are guarded by another name.
    renamed: BTreeSet<i32>,
    taken_from: BTreeSet<Taken>,
    /// More than this.
    lost: bool,
}

impl Events {
    pub(super) fn listen(wake: OwnedFd) -> Result<Self, Errno> {
        let links = netlink::socket(None)?;
        rustix::net::bind(&links, &SocketAddrNetlink::new(0, LINKS))?;
        let rulesets = netlink::socket(Some(NETFILTER))?;
        rustix::net::bind(&rulesets, &SocketAddrNetlink::new(0, RULESETS))?;
        Ok(Self {
            links,
            rulesets,
            wake,
        })
    }

    /// Keeps what is guarded until that is ended, and once more then.
    pub(super) fn keep(self, turns: &Turns) {
        let mut pause = None;
        loop {
            let waited = poll(
                &mut [
                    PollFd::new(&self.links, PollFlags::IN),
                    PollFd::new(&self.rulesets, PollFlags::IN),
                    PollFd::new(&self.wake, PollFlags::IN),
                ],
                pause
                    .and_then(|pause| Timespec::try_from(pause).ok())
                    .as_ref(),
            );
            let _ = rustix::io::read(&self.wake, &mut [0; 8]);
            let mut kept = turns.take();
            let now = Instant::now();
            let port = kept.tables.as_ref().map_or(0, Tables::port);
            let mut news = News::default();
            news.read(&self.links, |message, news| {
                news.gone.extend(deleted(message));
                let named = named(message).filter(|(index, name)| kept.is_renamed(*index, name));
                news.renamed.extend(named.map(|(index, _)| index));
            });
            news.read(&self.rulesets, |message, news| {
                news.taken_from.extend(Taken::from(message, port));
            });
            for tap in kept.among(&news.gone) {
                kept.gone(&tap);
            }
            for tap in kept.among(&news.renamed) {
                kept.renamed(&tap, now);
            }
            for taken in &news.taken_from {
                kept.taken_from(taken, now);
            }
            if news.lost || kept.ending {
                kept.look(now);
            }
            if kept.ending || !matches!(waited, Ok(_) | Err(Errno::INTR)) {
                return;
            }
            pause = kept.retry(now);
        }
    }
}

impl News {
    /// Reads all that is there.
    fn read(&mut self, socket: &OwnedFd, mut take: impl FnMut(&Received<'_>, &mut Self)) {
        let mut buffer = vec![0; EVENT_BYTES];
        loop {
            match rustix::net::recv(socket, &mut buffer, RecvFlags::DONTWAIT) {
                Ok((length, _)) => {
                    let received = buffer.get(..length).unwrap_or_default();
                    for message in netlink::messages(received) {
                        take(&message, self);
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::NOBUFS) => self.lost = true,
                Err(_) => return,
            }
        }
    }
}

/// The number of the interface that a message says is gone; leaving a bridge is told alike, in that family.
fn deleted(message: &Received<'_>) -> Option<i32> {
    about(message, RTM_DELLINK).map(|(index, _)| index)
}

/// The number of an interface and the name that a message says it has.
fn named<'a>(message: &Received<'a>) -> Option<(i32, &'a str)> {
    let (index, attributes) = about(message, RTM_NEWLINK)?;
    Some((index, netlink::text(netlink::find(attributes, LINK_NAME)?)?))
}

/// The number and the attributes of the interface that a message of that kind is about.
fn about<'a>(message: &Received<'a>, kind: u16) -> Option<(i32, &'a [u8])> {
    let (header, attributes) = message.body.split_first_chunk::<LINK_HEADER_BYTES>()?;
    if message.kind != kind || i32::from(header[0]) != libc::AF_UNSPEC {
        return None;
    }
    let [_, _, _, _, a, b, c, d, ..] = *header;
    Some((i32::from_ne_bytes([a, b, c, d]), attributes))
}
