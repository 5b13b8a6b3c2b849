//! The rules of the networks that are active, and the thread that puts them back when somebody else takes them away, as
//! `nft flush ruleset` does: again and again where the kernel refuses, later each time, and says so once.

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
use super::links::Links;
use super::rules::Chains;
use super::tables::Tables;
use crate::host::{netlink, reason};

/// `NFNLGRP_NFTABLES`, as a bit.
const RULESETS: u32 = 1 << 6;
/// More than any event has.
const EVENT_BYTES: usize = 32 << 10;
/// How soon it is tried again what the kernel has refused; each time later.
const PAUSE: Duration = Duration::from_secs(1);
/// How long that becomes.
const LONGEST: Duration = Duration::from_secs(60);

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
    /// What the kernel refused last, and how often.
    refused: Option<(Errno, u32)>,
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
        let limits = self.restore_limits();
        let rules = self.restore_rules();
        let Err(errno) = limits.and(rules) else {
            self.refused = None;
            return true;
        };
        let times = match self.refused {
            Some((before, times)) if before == errno => times.saturating_add(1),
            _ => {
                let reason = reason(errno);
                tracing::error!(
                    "the rules of networks are gone and cannot be put back: {reason}; it is tried again until they \
                     can, which is said"
                );
                1
            }
        };
        self.refused = Some((errno, times));
        false
    }

    /// How long it waits before the next time.
    fn pause(&self) -> Duration {
        let times = self.refused.map_or(0, |(_, times)| times.saturating_sub(1));
        let pause = PAUSE.saturating_mul(2_u32.saturating_pow(times));
        pause.min(LONGEST)
    }

    fn restore_limits(&mut self) -> Result<(), Errno> {
        let limited = std::mem::take(&mut self.limited);
        let mut restored = Ok(());
        for (bridge, limit) in limited {
            // Nothing passes there; whoever makes the bridge again gives it its limit.
            if !is_there(&bridge) {
                tracing::warn!(
                    bridge,
                    "the bridge of a network is gone, and the limit of what it sends with it"
                );
                continue;
            }
            restored = restored.and(self.restore_limit(&bridge, limit));
            self.limited.insert(bridge, limit);
        }
        restored
    }

    fn restore_limit(&mut self, bridge: &str, limit: Limit) -> Result<(), Errno> {
        let limits = self.limits()?;
        if !limits.hold(bridge).unwrap_or(false) {
            limits.put(bridge, limit)?;
            tracing::warn!(
                bridge,
                "the limit of what a network sends was gone, and is back"
            );
        }
        Ok(())
    }

    fn restore_rules(&mut self) -> Result<(), Errno> {
        if self.networks.is_empty() {
            return Ok(());
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
        restored
    }
}

/// Whether there is a link of that name, as far as can be seen.
fn is_there(bridge: &str) -> bool {
    let found = Links::open().and_then(|mut links| links.find(bridge));
    !matches!(found, Ok(None))
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
            let restored = kept.restore();
            let pause = Timespec::try_from(kept.pause()).ok();
            again = pause.filter(|_| !restored);
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

#[cfg(test)]
mod tests {
    use reeve_ipc::model::Network;
    use reeve_ipc::spec::Rate;

    use super::*;
    use crate::host::tap::tests::{alone, ip};

    #[test]
    fn a_limit_goes_with_its_bridge_and_is_not_tried_for_ever() {
        alone(|| {
            let mut kept = Kept::default();
            let uuid = NetworkUuid(uuid::Uuid::from_u128(1));
            let mut network = Network::new("n".parse().unwrap(), uuid);
            network.outbound = Some(Rate {
                per_second: 1000,
                burst: None,
            });
            let limit = Limit::outbound(&network).unwrap();
            ip(&["link", "add", "limited", "type", "bridge"]);
            kept.limits().unwrap().put("limited", limit).unwrap();
            kept.limited.insert("limited".to_owned(), limit);
            kept.limits().unwrap().remove("limited").unwrap();
            assert!(kept.restore(), "it is put back");
            assert_eq!(kept.limits().unwrap().hold("limited"), Ok(true));
            ip(&["link", "delete", "limited"]);
            kept.limits().unwrap().remove("limited").unwrap();
            assert!(kept.restore());
            assert!(kept.limited.is_empty());
        });
    }

    #[test]
    fn what_is_refused_is_tried_again_later_each_time() {
        let after = |times| {
            let refused = Some((Errno::NOMEM, times));
            let kept = Kept {
                refused,
                ..Kept::default()
            };
            kept.pause().as_secs()
        };
        assert_eq!([1, 2, 3, 7, u32::MAX].map(after), [1, 2, 4, 60, 60]);
    }
}
