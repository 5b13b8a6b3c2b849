//! The rules of the networks that are active, and the thread that puts them back when somebody else takes them away, as
//! `nft flush ruleset` does: again and again where the kernel refuses.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use reeve_ipc::model::NetworkUuid;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::RecvFlags;
use rustix::net::netlink::{NETFILTER, SocketAddrNetlink};

use super::bandwidth::{Limit, Limits};
use super::rules::Chains;
use super::tables::Tables;
use crate::host::{netlink, reason};

/// `NFNLGRP_NFTABLES`, as a bit.
const RULESETS: u32 = 1 << 6;
/// More than any event has.
const EVENT_BYTES: usize = 32 << 10;
/// How soon it is tried again what the kernel has refused.
const PAUSE: Duration = Duration::from_secs(1);

/// What is kept.
#[derive(Debug, Default)]
struct Kept {
    /// Opened when it is used first.
    tables: Option<Tables>,
    /// Likewise.
    limits: Option<Limits>,
    networks: BTreeMap<NetworkUuid, Chains>,
    /// By the names of bridges.
    limited: BTreeMap<String, Limit>,
    ending: bool,
}

impl Kept {
    fn tables(&mut self) -> Result<&mut Tables, Errno> {
        match &mut self.tables {
            Some(tables) => Ok(tables),
            none => Ok(none.insert(Tables::open()?)),
        }
    }

    fn limits(&mut self) -> Result<&mut Limits, Errno> {
        match &mut self.limits {
            Some(limits) => Ok(limits),
            none => Ok(none.insert(Limits::open()?)),
        }
    }

    /// Puts back what is gone; gives whether all is there.
    fn restore(&mut self) -> bool {
        let limited = std::mem::take(&mut self.limited);
        let limits = limited.iter().try_for_each(|(bridge, limit)| {
            let limits = self.limits()?;
            if !limits.hold(bridge).unwrap_or(false) {
                limits.put(bridge, *limit)?;
                tracing::warn!(
                    bridge,
                    "the limit of what a network sends was gone, and is back"
                );
            }
            Ok(())
        });
        self.limited = limited;
        self.restore_rules(limits)
    }

    fn restore_rules(&mut self, limits: Result<(), Errno>) -> bool {
        if self.networks.is_empty() {
            return failed(limits);
        }
        let networks = std::mem::take(&mut self.networks);
        let restored = self.tables().and_then(|tables| {
            if tables.hold(networks.values()).unwrap_or(false) {
                return Ok(());
            }
            networks
                .values()
                .try_for_each(|chains| tables.put(chains))?;
            tracing::warn!("the rules of networks were gone, and are back");
            Ok(())
        });
        self.networks = networks;
        failed(limits.and(restored))
    }
}

/// Says what cannot be put back; gives whether it was.
fn failed(restored: Result<(), Errno>) -> bool {
    if let Err(errno) = restored {
        let reason = reason(errno);
        tracing::error!(
            "the rules of networks are gone and cannot be put back: {reason}; it is tried again"
        );
    }
    restored.is_ok()
}

#[derive(Debug)]
struct Keeper {
    thread: JoinHandle<()>,
    /// An event: it is to end.
    wake: OwnedFd,
}

/// The rules of one supervisor's networks.
#[derive(Debug, Default)]
pub(super) struct Rules {
    kept: Arc<Mutex<Kept>>,
    keeper: Mutex<Option<Keeper>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while one is held.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Rules {
    /// Has a network's rules be those, from now on until they are removed.
    pub(super) fn put(&self, uuid: NetworkUuid, chains: Chains) -> Result<(), Errno> {
        self.listen()?;
        let mut kept = lock(&self.kept);
        kept.tables()?.put(&chains)?;
        kept.networks.insert(uuid, chains);
        Ok(())
    }

    /// Takes a network's rules away, whoever made them.
    pub(super) fn remove(&self, uuid: NetworkUuid, bridge: &str) -> Result<(), Errno> {
        let mut kept = lock(&self.kept);
        let kept_before = kept.networks.remove(&uuid);
        let last = kept.networks.is_empty();
        let tables = kept.tables();
        let removed = tables.and_then(|tables| tables.remove(bridge, last));
        match removed {
            // A kernel without, where none were made.
            Err(Errno::PROTONOSUPPORT | Errno::OPNOTSUPP) if kept_before.is_none() => Ok(()),
            removed => removed,
        }
    }

    /// Has a bridge take in no more than that from now on.
    pub(super) fn limit(&self, bridge: &str, limit: Option<Limit>) -> Result<(), Errno> {
        if limit.is_some() {
            self.listen()?;
        }
        let mut kept = lock(&self.kept);
        let before = kept.limited.remove(bridge);
        let Some(limit) = limit else {
            return match kept.limits().and_then(|limits| limits.remove(bridge)) {
                // A kernel without, where none was made.
                Err(Errno::PROTONOSUPPORT | Errno::OPNOTSUPP) if before.is_none() => Ok(()),
                removed => removed,
            };
        };
        kept.limits()?.put(bridge, limit)?;
        kept.limited.insert(bridge.to_owned(), limit);
        Ok(())
    }

    fn listen(&self) -> Result<(), Errno> {
        let mut keeper = lock(&self.keeper);
        if keeper.is_some() {
            return Ok(());
        }
        let wake = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let woken = rustix::io::fcntl_dupfd_cloexec(&wake, 0)?;
        let rulesets = netlink::socket(Some(NETFILTER))?;
        rustix::net::bind(&rulesets, &SocketAddrNetlink::new(0, RULESETS))?;
        let kept = Arc::clone(&self.kept);
        let thread = std::thread::Builder::new().name("network-rules".to_owned());
        let thread = thread.spawn(move || keep(&kept, &rulesets, &woken));
        let thread = thread.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        *keeper = Some(Keeper { thread, wake });
        Ok(())
    }
}

impl Drop for Rules {
    fn drop(&mut self) {
        let keeper = self.keeper.get_mut();
        if let Some(keeper) = keeper.unwrap_or_else(PoisonError::into_inner).take() {
            lock(&self.kept).ending = true;
            // An event that is set already is what was wanted.
            let _ = rustix::io::write(&keeper.wake, &1_u64.to_ne_bytes());
            let _ = keeper.thread.join();
        }
    }
}

fn keep(kept: &Mutex<Kept>, rulesets: &OwnedFd, wake: &OwnedFd) {
    let mut again = None;
    loop {
        let mut fds = [
            PollFd::new(rulesets, PollFlags::IN),
            PollFd::new(wake, PollFlags::IN),
        ];
        let _ = poll(&mut fds, again.as_ref());
        let mut kept = lock(kept);
        if kept.ending {
            return;
        }
        let ports = (
            kept.tables.as_ref().map_or(0, Tables::port),
            kept.limits.as_ref().map_or(0, Limits::port),
        );
        let taken = is_taken_from(rulesets, ports);
        if taken || again.is_some() {
            let pause = Timespec::try_from(PAUSE).ok();
            again = pause.filter(|_| !kept.restore());
        }
    }
}

/// Reads what happened; gives whether anything was taken from the table, or may have been.
fn is_taken_from(rulesets: &OwnedFd, ports: (u32, u32)) -> bool {
    let mut buffer = vec![0; EVENT_BYTES];
    let mut taken = false;
    loop {
        match rustix::net::recv(rulesets, &mut *buffer, RecvFlags::DONTWAIT) {
            Ok((length, _)) => {
                let received = buffer.get(..length).unwrap_or_default();
                let mut messages = netlink::messages(received);
                taken |= messages.any(|message| {
                    Tables::is_taken_from(ports.0, &message)
                        || Limits::is_taken_from(ports.1, &message)
                });
            }
            Err(Errno::INTR) => {}
            Err(Errno::NOBUFS) => taken = true,
            Err(_) => return taken,
        }
    }
}
