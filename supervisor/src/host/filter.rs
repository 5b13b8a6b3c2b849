//! Source filters: what guests may send through their taps.
//!
//! ```text
//!   guest ─► worker ─► tap ─► netdev ingress: chain frames/TAP ─► bridge ─► ...
//!                                 ▲
//!   plan, adoption ─ guard ───────┤
//!   keeper ─ tap gone: delete ────┤
//!          ─ deleted by others: put back
//! ```
//!
//! What a guest sends by a macvtap the host does not take in: it leaves by it, and meets the same rules at netdev egress.
//!
//! Each guarded tap has a chain of nf_tables of its own, which is hooked into that device: a frame
//! meets the rules of its own tap and no other's, however many there are, and before anything of the host
//! looks at it. A filter is made in one transaction before its tap is up, replaced in one when a later
//! supervisor takes over, deleted when its tap is gone, and put back when somebody else deletes something of it, as
//! `nft flush ruleset` does: again and again where the kernel refuses. Where there can be none the guest does
//! not start.
//!
//! The kernel is spoken to directly (`expression.rs`, `tables.rs`), and not through `nft`: a supervisor
//! executes nothing on behalf of a definition, what is said is a few fixed shapes, and the answers say which
//! table is meant where names are used again. The bindings that exist are of C or under another licence.
//!
//! Runs in the supervisor; the keeper is a thread, started with the first tap.

mod compiled;
pub(in crate::host) mod expression;
mod keeper;
mod placed;
mod rules;
mod tables;
mod turns;

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use reeve_ipc::device::{DeviceFigures, DeviceReport};
use reeve_ipc::model::{InterfaceName, NwfilterName};
use reeve_ipc::spec::PciSlot;
use rustix::event::EventfdFlags;
use rustix::io::Errno;

pub(crate) use self::compiled::Bound;
use self::keeper::Events;
pub(crate) use self::keeper::{Guarded, Guest};
pub(crate) use self::rules::{Hook, Sender};
use self::tables::Tables;
use self::turns::Turns;
use super::reason;
use super::tap::TapId;
use crate::domain::driver::DeviceResources;
pub use crate::nwfilter::instance::InstanceError;

/// Why a tap is not guarded. One line: what failed, on what, what to do.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// The kernel refused.
    #[error(
        "cannot keep the guest on '{tap}' from using others' addresses: {}; {}",
        reason(*.errno),
        mend(*.errno)
    )]
    Refused {
        /// The tap.
        tap: String,
        /// Why.
        errno: Errno,
    },
    /// The kernel cannot look at what goes to a guest.
    #[error(
        "cannot put the network filter of '{tap}' in its place: {}; it looks at what goes to the guest, for which the \
         host's kernel needs the egress hook of netdev (Linux 5.16, NETFILTER_EGRESS)",
        reason(*.errno)
    )]
    Egress {
        /// The tap.
        tap: String,
        /// Why.
        errno: Errno,
    },
    /// Its network filter cannot be had.
    #[error(transparent)]
    Nwfilter(#[from] InstanceError),
    /// The tap is somebody else's.
    #[error(
        "the tap '{0}' was not made by reeved, which keeps the guests of this host apart (multi_tenant): \
         give the network interface a bridge"
    )]
    NotOurs(InterfaceName),
    /// The kernel has no place for rules on a macvtap.
    #[error(
        "cannot keep the guest on '{tap}' from using others' addresses: {}; of a network interface of type direct \
         that takes Linux 5.16 with CONFIG_NETFILTER_EGRESS and nf_tables: connect it to a bridge, or a guest that \
         may use any address needs trust-guest",
        reason(*.errno)
    )]
    NoEgress {
        /// The macvtap.
        tap: String,
        /// Why.
        errno: Errno,
    },
    /// Guests would reach one another.
    #[error(
        "guests in mode bridge on '{0}' reach one another, and those of this host are kept apart (multi_tenant): give \
         the network interface mode private, vepa or passthrough"
    )]
    Beside(InterfaceName),
    /// A network filter where there is none.
    #[error(
        "the network filter '{0}' cannot be had on a network interface upon a device of the host: give the \
         interface a bridge, or no filterref"
    )]
    UponDevice(NwfilterName),
    /// Frames do not pass the host's kernel.
    #[error(
        "what a guest sends to the switch {path} cannot be filtered, and the guests of this host are kept \
         apart (multi_tenant): give the network interface a bridge",
        path = .0.display()
    )]
    Switch(PathBuf),
}

/// What mends a host without.
pub(super) const MEND: &str = "the host's kernel needs nf_tables with its netdev family: 'sudo modprobe \
    nf_tables'; a guest that may use any address needs trust-guest";

const fn mend(errno: Errno) -> &'static str {
    match errno {
        Errno::PROTONOSUPPORT | Errno::OPNOTSUPP | Errno::NOENT | Errno::INVAL => MEND,
        Errno::PERM => "it takes CAP_NET_ADMIN",
        _ => "look at 'nft list ruleset'",
    }
}

/// The filters of one supervisor. Cheap to clone; the keeper ends with the last.
#[derive(Debug, Clone, Default)]
pub(crate) struct TapFilters(Arc<Owner>);

#[derive(Debug, Default)]
struct Owner {
    kept: Arc<Turns>,
    keeper: Mutex<Option<Keeper>>,
}

#[derive(Debug)]
struct Keeper {
    thread: JoinHandle<()>,
    /// An event: what is kept has changed.
    wake: OwnedFd,
}

impl Keeper {
    fn wake(&self) {
        // An event that is set already is what was wanted.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while one is held.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The taps on this host that have a filter, of whichever supervisor.
///
/// # Errors
/// The kernel has no nf_tables, or this process may not ask it.
pub fn guarded() -> Result<Vec<String>, Errno> {
    let filters = Tables::open()?.all()?;
    Ok(filters.into_iter().map(|filter| filter.tap.name).collect())
}

/// Takes the filter of a tap away, as somebody else would: for tests of what comes of that.
///
/// # Errors
/// As [`guarded`].
pub fn unguard(tap: &str) -> Result<(), Errno> {
    let mut tables = Tables::open()?;
    match tables.find(tap)? {
        Some(filter) => tables.delete(&filter),
        None => Ok(()),
    }
}

impl TapFilters {
    /// Lets a tap send what `guarded` says only, from now on until it is gone.
    ///
    /// # Errors
    /// [`FilterError::Refused`]: what was there before is there.
    pub(crate) fn guard(&self, tap: &TapId, guarded: Guarded) -> Result<(), FilterError> {
        let hook = guarded.sender.as_ref().map(|sender| sender.hook);
        let bound = guarded.bound.as_ref();
        let to_guest = bound.is_some_and(|bound| bound.compiled.looks_at_what_comes());
        let refused = |errno| {
            let tap = tap.name.clone();
            match (hook, errno) {
                // It is the same for a kernel that knows no such hook.
                (
                    Some(Hook::Egress),
                    Errno::PROTONOSUPPORT | Errno::OPNOTSUPP | Errno::NOENT | Errno::INVAL,
                ) => FilterError::NoEgress { tap, errno },
                (_, Errno::OPNOTSUPP) if to_guest => FilterError::Egress { tap, errno },
                _ => FilterError::Refused { tap, errno },
            }
        };
        self.0.start().map_err(refused)?;
        self.0.kept.take().guard(tap, guarded).map_err(refused)
    }

    /// The taps that have a network filter and are there, and what guards them.
    pub(crate) fn bound(&self) -> Vec<(TapId, Guarded)> {
        let mut bound = self.0.kept.take().bound();
        // The kernel is asked of each: others have their turn meanwhile.
        bound.retain(|(tap, _)| !tap.is_gone());
        bound
    }

    /// Guards a tap otherwise that `was` guards, or leaves it as it is; where something else guards it by now, or it is
    /// gone, too.
    pub(crate) fn renew(&self, tap: &TapId, was: &Guarded, anew: Guarded) -> Result<(), Errno> {
        self.0.kept.take().renew(tap, was, anew)
    }

    /// Has what `was` guards guarded as `before` again. Where the kernel refuses, it is tried again until it does not.
    pub(crate) fn restore(&self, tap: &TapId, was: &Guarded, before: Guarded) -> Result<(), Errno> {
        let restored = self.0.kept.take().restore(tap, was, before);
        if let Some(keeper) = &*lock(&self.0.keeper) {
            keeper.wake();
        }
        restored
    }

    /// Whether a tap has a filter of before: one that says whose frames pass, where `guarded` does.
    pub(crate) fn is_held(&self, tap: &TapId, guarded: &Guarded) -> bool {
        self.0.kept.take().is_held(tap, guarded)
    }

    /// As [`guard_soon`](Self::guard_soon), and a filter of before stays until it is taken away or is to be another.
    pub(crate) fn guard_held(&self, tap: &TapId, guarded: Guarded) {
        // It hears of what is taken away from now on.
        let started = self.0.start();
        if !self.0.kept.take().enter_held(tap, guarded.clone()) {
            self.guard_soon(tap, guarded);
        } else if let Err(errno) = started {
            guarded.failed(&tap.name, errno, true);
        }
    }

    /// The same of a tap by which a guest is on the network already: where the kernel refuses, the guest's log
    /// says so, and it is tried again until it does not.
    pub(crate) fn guard_soon(&self, tap: &TapId, guarded: Guarded) {
        // It is kept also where there is no keeper yet: the next that can be started tries it again.
        let started = self.0.start();
        let put = self
            .0
            .kept
            .take()
            .guard_soon(tap, guarded.clone(), Instant::now());
        if let Some(keeper) = &*lock(&self.0.keeper) {
            keeper.wake();
        }
        if let Err(errno) = started.and(put) {
            let held = self.0.kept.take().is_held(tap, &guarded);
            guarded.failed(&tap.name, errno, held);
        }
    }

    /// Takes away from a new tap that is not to be guarded what an earlier one of its name has left. A host
    /// that may have no filter has none left.
    pub(crate) fn clear(&self, tap: &TapId) {
        if let Err(errno) = self.0.kept.take().clear(tap) {
            tracing::debug!(tap = tap.name, "an earlier tap's filter: {}", reason(errno));
        }
    }

    /// Takes the filters of a tap away, whoever put them there: from now on everything passes it.
    ///
    /// # Errors
    /// [`FilterError::Refused`]: what was there before is there.
    pub(crate) fn release(&self, tap: &TapId) -> Result<(), FilterError> {
        let released = self.0.kept.take().release(tap);
        released.map_err(|errno| FilterError::Refused {
            tap: tap.name.clone(),
            errno,
        })
    }

    /// The same of a tap that an earlier supervisor may have guarded. A host that may have no filter has none left.
    pub(crate) fn release_earlier(&self, tap: &TapId) {
        match self.0.kept.take().release(tap) {
            // It is gone, or there never was a filter.
            Ok(()) | Err(Errno::NODEV) => {}
            Err(errno @ (Errno::PERM | Errno::PROTONOSUPPORT | Errno::OPNOTSUPP)) => {
                tracing::debug!(tap = tap.name, "an earlier filter: {}", reason(errno));
            }
            Err(errno) => {
                let (tap, reason) = (&tap.name, reason(errno));
                tracing::warn!(
                    tap,
                    "the filter that it had before cannot be deleted: {reason}"
                );
            }
        }
    }

    /// Deletes filters whose taps are gone: what supervisors left that were not there to see it. For the
    /// start of a daemon; where that may not be, there are none.
    pub(crate) fn sweep(&self) {
        if let Err(errno) = self.0.kept.take().sweep() {
            tracing::debug!("filters of taps that are gone: {}", reason(errno));
        }
    }

    /// Deletes the filter of a tap that an earlier supervisor guarded, if the tap is gone.
    pub(crate) fn forget(&self, tap: &TapId) {
        self.0.kept.take().gone(tap);
    }

    /// How many frames of `taps` were dropped, of those that are guarded. The kernel is asked, by a socket of
    /// this call's own: for where that may take its time; the keeper is not held up.
    pub(crate) fn dropped<'a>(&self, taps: impl IntoIterator<Item = &'a TapId>) -> u64 {
        // Without a keeper nothing is guarded, and the kernel may have nothing to ask.
        if lock(&self.0.keeper).is_none() {
            return 0;
        }
        let Ok(mut tables) = Tables::open() else {
            return 0;
        };
        let dropped = taps.into_iter().filter_map(|tap| tables.dropped(tap).ok()?);
        dropped.fold(0, u64::saturating_add)
    }
}

/// The taps of one worker by the places of their devices on the bus, whoever knows of them. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct WorkerTaps(Arc<Mutex<BTreeMap<PciSlot, Vec<TapId>>>>);

impl WorkerTaps {
    /// Those of what a worker holds.
    pub(crate) fn of(devices: &[DeviceResources]) -> Self {
        let taps = Self::default();
        devices.iter().for_each(|device| taps.add(device));
        taps
    }

    /// Takes up a further device's.
    pub(crate) fn add(&self, device: &DeviceResources) {
        if !device.taps.is_empty() {
            let taps = device.taps.iter().map(TapId::numbered).collect();
            lock(&self.0).insert(device.place.slot, taps);
        }
    }

    /// The name of the tap at a place.
    pub(crate) fn name(&self, slot: PciSlot) -> Option<String> {
        Some(self.at(slot)?.name)
    }

    /// The tap at a place.
    pub(crate) fn at(&self, slot: PciSlot) -> Option<TapId> {
        let taps = lock(&self.0);
        taps.get(&slot)?.first().cloned()
    }

    /// Those of a device are gone.
    pub(crate) fn remove(&self, slot: PciSlot) {
        lock(&self.0).remove(&slot);
    }

    /// Counts what passed where the worker does not see it: frames that the kernel moves, and among those that
    /// guests sent and lost the ones that the filters dropped. The kernel is asked, which may take its time.
    pub(crate) fn count(&self, filters: &TapFilters, reports: &mut [DeviceReport]) {
        let taps = lock(&self.0).clone();
        for report in reports {
            let DeviceFigures::Nic(figures) = &mut report.figures else {
                continue;
            };
            let taps = taps.get(&report.slot).into_iter().flatten();
            taps.clone().for_each(|tap| super::tap::count(figures, tap));
            let dropped = filters.dropped(taps);
            figures.sent.drops = figures.sent.drops.saturating_add(dropped);
        }
    }
}

impl Owner {
    fn start(&self) -> Result<(), Errno> {
        let mut keeper = lock(&self.keeper);
        if keeper.is_some() {
            return Ok(());
        }
        let wake = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let events = Events::listen(rustix::io::fcntl_dupfd_cloexec(&wake, 0)?)?;
        let kept = Arc::clone(&self.kept);
        let thread = std::thread::Builder::new().name("filters".to_owned());
        let thread = thread.spawn(move || events.keep(&kept));
        let thread = thread.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        *keeper = Some(Keeper { thread, wake });
        Ok(())
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        let keeper = self
            .keeper
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(keeper) = keeper.take() {
            self.kept.take().ending = true;
            keeper.wake();
            let _ = keeper.thread.join();
        }
    }
}

#[cfg(test)]
mod tests;
