//! What is guarded, and the thread that keeps it so: it hears of interfaces that go and of tables that are
//! deleted.
//!
//! A tap is the interface with its number, whatever others have its name before and after: a table is noted with
//! the number, and neither replaced nor deleted where the tap of its name is another than was guarded. One is
//! deleted only when its tap is gone, and by its handle, which is asked for before that is looked at: one that
//! another supervisor, or this one, makes meanwhile for a new tap of the same name is another table. What cannot
//! be put in its place is tried again, ever more rarely, for as long as the tap is there.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use reeve_ipc::model::{DomainName, DomainUuid};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::RecvFlags;
use rustix::net::netlink::{NETFILTER, SocketAddrNetlink};

use super::lock;
use super::rules::Sender;
use super::tables::{self, Table, Tables};
use crate::host::netlink::{self, Received};
use crate::host::reason;
use crate::host::tap::TapId;

/// `RTMGRP_LINK`: interfaces.
const LINKS: u32 = 1;
/// `NFNLGRP_NFTABLES`, as a bit.
const RULESETS: u32 = 1 << 6;
const RTM_DELLINK: u16 = 17;
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
    /// What it may send.
    pub(crate) sender: Sender,
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
    retry: Option<Retry>,
}

/// What is guarded.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// Opened when it is used first.
    tables: Option<Tables>,
    guarded: BTreeMap<TapId, Entry>,
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
        self.put(tap, &guarded.sender)?;
        let retry = None;
        self.guarded.insert(tap.clone(), Entry { guarded, retry });
        Ok(())
    }

    /// Guards a tap, now or as soon as the kernel lets.
    pub(super) fn guard_soon(&mut self, tap: &TapId, guarded: Guarded) -> Result<(), Errno> {
        let put = self.put(tap, &guarded.sender);
        let retry = put.err().map(|_| Retry::first());
        self.guarded.insert(tap.clone(), Entry { guarded, retry });
        put
    }

    /// Puts a table up for that very tap.
    fn put(&mut self, tap: &TapId, sender: &Sender) -> Result<(), Errno> {
        if !tap.is_there() {
            return Err(Errno::NODEV);
        }
        self.tables()?.put(tap, sender)?;
        if tap.is_there() {
            return Ok(());
        }
        // It went meanwhile, and the table may be on another of its name.
        self.delete(|table| table.tap == *tap, &tap.name)?;
        Err(Errno::NODEV)
    }

    /// Deletes the table of taps of that name where `unwanted` says so of it.
    fn delete(&mut self, unwanted: impl FnOnce(&Table) -> bool, name: &str) -> Result<(), Errno> {
        let tables = self.tables()?;
        match tables.find(name)?.filter(unwanted) {
            Some(table) => ignore_gone(tables.delete(&table)),
            None => Ok(()),
        }
    }

    pub(super) fn sweep(&mut self) -> Result<(), Errno> {
        let tables = self.tables()?;
        for table in tables.all()? {
            if table.tap.is_gone() {
                ignore_gone(tables.delete(&table))?;
            }
        }
        Ok(())
    }

    /// Deletes what an earlier tap of that name has left.
    pub(super) fn clear(&mut self, tap: &TapId) -> Result<(), Errno> {
        self.delete(|table| table.tap != *tap, &tap.name)
    }

    /// Deletes the table of a tap, if that is gone.
    pub(super) fn gone(&mut self, tap: &TapId) {
        let table = self.tables().and_then(|tables| tables.find(&tap.name));
        if !tap.is_gone() {
            return;
        }
        self.guarded.remove(tap);
        let deleted = table.and_then(|table| match table {
            Some(table) if tap.index.is_none() || table.tap == *tap => {
                ignore_gone(self.tables()?.delete(&table))
            }
            _ => Ok(()),
        });
        if let Err(errno) = deleted {
            let (tap, reason) = (&tap.name, reason(errno));
            tracing::warn!(
                tap,
                "the filter of a tap that is gone cannot be deleted: {reason}"
            );
        }
    }

    /// Somebody took something from the table of taps of that name.
    pub(super) fn taken_from(&mut self, name: &str) {
        let taps = self.guarded.keys().filter(|tap| tap.name == name);
        for tap in taps.cloned().collect::<Vec<_>>() {
            self.put_back(&tap);
        }
    }

    fn put_back(&mut self, tap: &TapId) {
        let Some(entry) = self.guarded.get(tap) else {
            return;
        };
        // The kernel itself takes the chain of a tap that goes.
        if tap.is_gone() {
            return;
        }
        let (guarded, retry) = (entry.guarded.clone(), entry.retry);
        let put = self.put(tap, &guarded.sender);
        let next = match (put, retry) {
            (Ok(()), _) => {
                guarded.warn(&tap.name, "its source filter was gone, and is back");
                None
            }
            (Err(errno), None) => {
                guarded.failed(&tap.name, errno);
                Some(Retry::first())
            }
            (Err(_), Some(retry)) => Some(retry.next()),
        };
        if let Some(entry) = self.guarded.get_mut(tap) {
            entry.retry = next;
        }
    }

    /// Events were lost: looks at everything.
    fn look(&mut self) {
        for tap in self.guarded.keys().cloned().collect::<Vec<_>>() {
            self.gone(&tap);
            let found = self.tables().and_then(|tables| tables.find(&tap.name));
            if found.is_ok_and(|found| found.is_none_or(|table| table.tap != tap)) {
                self.put_back(&tap);
            }
        }
    }

    /// Tries again what is due; gives how long it is until the next is.
    pub(super) fn retry(&mut self, now: Instant) -> Option<Duration> {
        let due = |entry: &Entry| entry.retry.is_some_and(|retry| retry.due <= now);
        let taps = self.guarded.iter().filter(|(_, entry)| due(entry));
        for tap in taps.map(|(tap, _)| tap.clone()).collect::<Vec<_>>() {
            self.gone(&tap);
            self.put_back(&tap);
        }
        self.next_retry(now)
    }

    /// How long it is until something is tried again.
    pub(super) fn next_retry(&self, now: Instant) -> Option<Duration> {
        let retries = self.guarded.values().filter_map(|entry| entry.retry);
        let pauses = retries.map(|retry| retry.due.saturating_duration_since(now));
        pauses.min()
    }
}

impl Retry {
    fn first() -> Self {
        Self {
            due: Instant::now() + FIRST_PAUSE,
            pause: FIRST_PAUSE * 2,
        }
    }

    fn next(self) -> Self {
        Self {
            due: Instant::now() + self.pause,
            pause: (self.pause * 2).min(LONGEST_PAUSE),
        }
    }
}

impl Guarded {
    /// Says it in the guest's log, too.
    fn warn(&self, tap: &str, what: &str) {
        match &self.guest {
            Some(Guest { domain, uuid }) => tracing::warn!(%domain, %uuid, tap, "{what}"),
            None => tracing::warn!(tap, "{what}"),
        }
    }

    /// Says in the guest's log, too, that its tap has no filter.
    pub(super) fn failed(&self, tap: &str, errno: Errno) {
        let what = format!(
            "its source filter cannot be put in its place: {}; until it is the guest may use others' \
             addresses, and it is tried again",
            reason(errno)
        );
        match &self.guest {
            Some(Guest { domain, uuid }) => tracing::error!(%domain, %uuid, tap, "{what}"),
            None => tracing::error!(tap, "{what}"),
        }
    }
}

/// A table that is gone is another supervisor's deed, and what was wanted.
fn ignore_gone(deleted: Result<(), Errno>) -> Result<(), Errno> {
    match deleted {
        Err(Errno::NOENT) => Ok(()),
        deleted => deleted,
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
    taken_from: BTreeSet<String>,
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
    pub(super) fn keep(self, kept: &Mutex<Kept>) {
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
            let mut kept = lock(kept);
            let port = kept.tables.as_ref().map_or(0, |tables| tables.port);
            let mut news = News::default();
            news.read(&self.links, |message, news| {
                news.gone.extend(deleted(message))
            });
            news.read(&self.rulesets, |message, news| {
                news.taken_from.extend(tables::taken_from(message, port));
            });
            let gone = kept.guarded.keys();
            let gone = gone.filter(|tap| tap.index.is_some_and(|own| news.gone.contains(&own)));
            for tap in gone.cloned().collect::<Vec<_>>() {
                kept.gone(&tap);
            }
            for name in &news.taken_from {
                kept.taken_from(name);
            }
            if news.lost || kept.ending {
                kept.look();
            }
            if kept.ending || !matches!(waited, Ok(_) | Err(Errno::INTR)) {
                return;
            }
            pause = kept.retry(Instant::now());
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
    let (header, _) = message.body.split_first_chunk::<LINK_HEADER_BYTES>()?;
    if message.kind != RTM_DELLINK || i32::from(header[0]) != libc::AF_UNSPEC {
        return None;
    }
    let [_, _, _, _, a, b, c, d, ..] = *header;
    Some(i32::from_ne_bytes([a, b, c, d]))
}
