//! What is guarded, and the thread that keeps it so: it hears of interfaces that go and of tables that are
//! deleted.
//!
//! A table is deleted only when its tap is gone, and by its handle, which is asked for before that is looked
//! at: one that another supervisor, or this one, makes meanwhile for a new tap of the same name is another
//! table.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::sync::Mutex;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::RecvFlags;
use rustix::net::netlink::{NETFILTER, SocketAddrNetlink};

use super::lock;
use super::rules::Sender;
use super::tables::{self, Tables};
use crate::host::netlink::{self, Received};
use crate::host::{reason, tap};

/// `RTMGRP_LINK`: interfaces.
const LINKS: u32 = 1;
/// `NFNLGRP_NFTABLES`, as a bit.
const RULESETS: u32 = 1 << 6;
const RTM_DELLINK: u16 = 17;
/// `struct ifinfomsg`.
const LINK_HEADER_BYTES: usize = 16;
const IFLA_IFNAME: u16 = 3;
/// More than any event has.
const EVENT_BYTES: usize = 32 << 10;

/// What is guarded.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// Opened when it is used first.
    tables: Option<Tables>,
    /// By the taps' names.
    guarded: BTreeMap<String, Sender>,
}

impl Kept {
    fn tables(&mut self) -> Result<&mut Tables, Errno> {
        match &mut self.tables {
            Some(tables) => Ok(tables),
            none => Ok(none.insert(Tables::open()?)),
        }
    }

    pub(super) fn guard(&mut self, tap: &str, sender: Sender) -> Result<(), Errno> {
        self.tables()?.put(tap, &sender)?;
        self.guarded.insert(tap.to_owned(), sender);
        Ok(())
    }

    pub(super) fn sweep(&mut self) -> Result<(), Errno> {
        let tables = self.tables()?;
        for table in tables.all()? {
            if !tap::is_there(&table.tap) {
                match tables.delete(&table) {
                    // Another supervisor's by now.
                    Err(Errno::NOENT) => {}
                    deleted => deleted?,
                }
            }
        }
        Ok(())
    }

    pub(super) fn dropped(&mut self, tap: &str) -> Option<u64> {
        self.guarded.get(tap)?;
        self.tables.as_mut()?.dropped(tap).ok()
    }

    /// Deletes the table of a tap, if that is gone.
    pub(super) fn gone(&mut self, tap: &str) {
        let table = self.tables().and_then(|tables| tables.find(tap));
        if tap::is_there(tap) {
            return;
        }
        self.guarded.remove(tap);
        let deleted = table.and_then(|table| match table {
            Some(table) => self.tables()?.delete(&table),
            None => Ok(()),
        });
        match deleted {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => {
                let reason = reason(errno);
                tracing::warn!(
                    tap,
                    "the filter of a tap that is gone cannot be deleted: {reason}"
                );
            }
        }
    }

    /// Somebody took something from the table of a tap.
    fn taken_from(&mut self, tap: &str) {
        let Some(sender) = self.guarded.get(tap).cloned() else {
            return;
        };
        // The kernel itself takes the chain of a tap that goes.
        if !tap::is_there(tap) {
            return;
        }
        match self.tables().and_then(|tables| tables.put(tap, &sender)) {
            Ok(()) => tracing::warn!(
                tap,
                "its source filter was deleted by somebody, and is back"
            ),
            Err(errno) if tap::is_there(tap) => {
                let reason = reason(errno);
                tracing::error!(
                    tap,
                    "its source filter was deleted and cannot be put back: {reason}"
                );
            }
            Err(_) => {}
        }
    }

    /// Events were lost: looks at everything.
    fn look(&mut self) {
        for tap in self.guarded.keys().cloned().collect::<Vec<_>>() {
            self.gone(&tap);
            let found = self.tables().and_then(|tables| tables.find(&tap));
            if matches!(found, Ok(None)) {
                self.taken_from(&tap);
            }
        }
    }
}

/// What the thread hears.
#[derive(Debug)]
pub(super) struct Events {
    links: OwnedFd,
    rulesets: OwnedFd,
    stop: OwnedFd,
}

/// What happened to interfaces and tables since it was looked last.
#[derive(Debug, Default)]
struct News {
    gone: BTreeSet<String>,
    taken_from: BTreeSet<String>,
    /// More than this.
    lost: bool,
}

impl Events {
    pub(super) fn listen(stop: OwnedFd) -> Result<Self, Errno> {
        let links = netlink::socket(None)?;
        rustix::net::bind(&links, &SocketAddrNetlink::new(0, LINKS))?;
        let rulesets = netlink::socket(Some(NETFILTER))?;
        rustix::net::bind(&rulesets, &SocketAddrNetlink::new(0, RULESETS))?;
        Ok(Self {
            links,
            rulesets,
            stop,
        })
    }

    /// Keeps what is guarded until `stop` is signalled, and once more then.
    pub(super) fn keep(self, kept: &Mutex<Kept>) {
        loop {
            let waited = poll(
                &mut [
                    PollFd::new(&self.links, PollFlags::IN),
                    PollFd::new(&self.rulesets, PollFlags::IN),
                    PollFd::new(&self.stop, PollFlags::IN),
                ],
                None,
            );
            let stop = rustix::io::read(&self.stop, &mut [0; 8]).is_ok();
            let mut kept = lock(kept);
            let port = kept.tables.as_ref().map_or(0, |tables| tables.port);
            let mut news = News::default();
            news.read(&self.links, |message, news| {
                news.gone.extend(deleted(message))
            });
            news.read(&self.rulesets, |message, news| {
                news.taken_from.extend(tables::taken_from(message, port));
            });
            for tap in &news.gone {
                if kept.guarded.contains_key(tap) {
                    kept.gone(tap);
                }
            }
            for tap in &news.taken_from {
                kept.taken_from(tap);
            }
            if news.lost || stop {
                kept.look();
            }
            if stop || !matches!(waited, Ok(_) | Err(Errno::INTR)) {
                return;
            }
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

/// The interface that a message says is gone; leaving a bridge is told alike, in that family.
fn deleted(message: &Received<'_>) -> Option<String> {
    let (header, attributes) = message.body.split_first_chunk::<LINK_HEADER_BYTES>()?;
    if message.kind != RTM_DELLINK || i32::from(header[0]) != libc::AF_UNSPEC {
        return None;
    }
    netlink::text(netlink::find(attributes, IFLA_IFNAME)?).map(str::to_owned)
}
