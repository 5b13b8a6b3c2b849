//! Sizes and media of disks that change while their guest uses them.
//!
//! The work is done by the thread that serves the disk, between two requests, or where none does by the
//! spawner, whose filter has a disk's calls; the control thread waits for it, and not for ever. For a look at
//! what is on a disk it waits less long, and not again while storage owes it an answer: however many disks and
//! however many ask, all such looks together hold it up for no longer.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use reeve_devices::block::SizeChange;
use reeve_devices::virtio::block::{BlockControl, Peeked, Resized};
use reeve_ipc::error::{ErrorCode, WireError};
use reeve_ipc::fd::FdTable;
use reeve_ipc::spec::{DeviceSpec, DiskSpec, LayerSpec, PciSlot};

use super::{BUILD_PATIENCE, Plugging};
use crate::build::devices::{disk, pci_slot};
use crate::device_set::{DeviceSetError, Handle};
use crate::hand_over::Kept;
use crate::spawner::{Spawner, SpawnerError};

/// Changes a disk's size.
///
/// # Errors
/// It cannot have that size. With [`ErrorCode::Timeout`], and no other: its storage has not done it in time,
/// and does it yet.
pub(super) fn resize(
    spawner: &Spawner,
    disk: &BlockControl,
    change: SizeChange,
) -> Result<(), WireError> {
    const WHAT: &str = "its size";
    let (tell, told) = sync_channel(1);
    // Nobody hears of one that comes too late.
    let done: Resized = Box::new(move |result| drop(tell.try_send(result)));
    let (disk, deadline) = (disk.clone(), Instant::now() + BUILD_PATIENCE);
    spawner
        .run_within(left(deadline), move || disk.resize(change, done))
        .map_err(|error| not_yet(error, WHAT))?;
    verdict(wait(&told, deadline, WHAT)?, WHAT)
}

/// How long storage may take to read what somebody looks at, while nothing else is done.
const PEEK_PATIENCE: Duration = Duration::from_millis(500);

/// The look at a disk that storage has not answered in time, if there is one.
#[derive(Debug, Default)]
pub struct LatePeek(Weak<()>);

impl LatePeek {
    /// Waits for what `begin` has read, unless an earlier look is still owed.
    fn wait_for(
        &mut self,
        begin: impl FnOnce(Duration, Peeked) -> Result<(), SpawnerError>,
    ) -> Result<Vec<u8>, WireError> {
        let late = || {
            let why = "storage has not read what was asked of it in time; try again when it has";
            WireError::new(ErrorCode::Timeout, why)
        };
        if self.0.strong_count() > 0 {
            return Err(late());
        }
        let deadline = Instant::now() + PEEK_PATIENCE;
        let (tell, told) = sync_channel(1);
        let owed = Arc::new(());
        self.0 = Arc::downgrade(&owed);
        // Nobody hears of those that come too late.
        let done: Peeked = Box::new(move |result| {
            drop(owed);
            drop(tell.try_send(result));
        });
        begin(PEEK_PATIENCE, done).map_err(|error| match error {
            SpawnerError::Slow(_) => late(),
            error => not_begun(&error),
        })?;
        let read = told.recv_timeout(left(deadline)).map_err(|_| late())?;
        read.map_err(|error| {
            let code = match error.kind() {
                io::ErrorKind::InvalidInput => ErrorCode::InvalidArgument,
                _ => ErrorCode::Host,
            };
            WireError::new(code, format!("the disk was not read: {error}"))
        })
    }
}

/// Reads bytes of a disk.
///
/// # Errors
/// There are none there, or its storage cannot read them, or not in time, or another's that were asked for before.
pub(super) fn peek(
    spawner: &Spawner,
    owed: &mut LatePeek,
    disk: &BlockControl,
    offset: u64,
    len: usize,
) -> Result<Vec<u8>, WireError> {
    let disk = disk.clone();
    owed.wait_for(|patience, done| {
        spawner.run_within(patience, move || disk.peek(offset, len, done))
    })
}

fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

impl Plugging {
    /// Puts another medium into a disk, or none.
    ///
    /// # Errors
    /// There is no such disk, it keeps its medium, or the new one cannot be used: nothing has changed then, nor
    /// will. With [`ErrorCode::Timeout`], and no other: its storage has not finished with the old one in time; it
    /// changes when it has.
    pub fn change_medium(
        &mut self,
        slot: PciSlot,
        layers: Vec<LayerSpec>,
        mut descriptors: FdTable,
    ) -> Result<(), WireError> {
        let slot = pci_slot(slot);
        let handle = self
            .devices
            .handle(slot)
            .ok_or(DeviceSetError::Empty(slot))?;
        let Handle::Disk(control) = handle else {
            return Err(refused(format!("the device in slot {slot} is no disk")));
        };
        let control = control.clone();
        let kept = self.devices.kept_mut(slot);
        let kept = kept.ok_or(DeviceSetError::Empty(slot))?;
        let spec = match kept.parts().0 {
            DeviceSpec::Disk(spec) if spec.read_only => DiskSpec {
                layers,
                ..spec.clone()
            },
            _ => {
                let why = format!("the disk in slot {slot} is written, and keeps its medium");
                return Err(refused(why));
            }
        };
        let new = Kept::of(&DeviceSpec::Disk(spec.clone()), &descriptors)?;
        let deadline = Instant::now() + BUILD_PATIENCE;
        let opening = self.spawner.run_within(left(deadline), move || {
            disk::medium(&spec, &mut descriptors)
        });
        let medium = opening.map_err(|error| not_begun(&error))??;
        // The spawner is free: it has just answered.
        let spawner = &self.spawner;
        exchange(kept, new, deadline, |done| {
            spawner.run_within(left(deadline), move || control.exchange(medium, done))
        })
    }
}

/// Has `begin` exchange a medium, of which `kept` has what makes it again elsewhere. What `kept` had goes with
/// the last descriptor of the medium before, and its lock: closing that may take as long as its storage likes,
/// and happens where the exchange does.
fn exchange(
    kept: &mut Kept,
    new: Kept,
    deadline: Instant,
    begin: impl FnOnce(Resized) -> Result<(), SpawnerError>,
) -> Result<(), WireError> {
    const WHAT: &str = "its medium";
    let old = std::mem::replace(kept, new);
    let (tell, told) = sync_channel(1);
    let done: Resized = Box::new(move |result| {
        let outcome = match result {
            Ok(_) => {
                drop(old);
                Ok(())
            }
            // It stays as it was.
            Err(error) => Err((error, old)),
        };
        // Nobody hears of one that comes too late.
        drop(tell.try_send(outcome));
    });
    // From here on it changes, sooner or later.
    begin(done).map_err(|error| not_yet(error, WHAT))?;
    match wait(&told, deadline, WHAT)? {
        Ok(()) => Ok(()),
        Err((error, old)) => {
            *kept = old;
            Err(failed(&error, WHAT))
        }
    }
}

/// Waits for a change that is made on another thread.
fn wait<T>(told: &Receiver<T>, deadline: Instant, what: &str) -> Result<T, WireError> {
    told.recv_timeout(left(deadline))
        .map_err(|error| match error {
            RecvTimeoutError::Timeout => late(what),
            RecvTimeoutError::Disconnected => {
                let why = format!("cannot change {what}: its thread has ended");
                WireError::new(ErrorCode::Host, why)
            }
        })
}

fn verdict(result: io::Result<u64>, what: &str) -> Result<(), WireError> {
    result.map(drop).map_err(|error| failed(&error, what))
}

fn failed(error: &io::Error, what: &str) -> WireError {
    let code = match error.kind() {
        io::ErrorKind::InvalidInput | io::ErrorKind::ReadOnlyFilesystem => {
            ErrorCode::InvalidArgument
        }
        io::ErrorKind::Unsupported => ErrorCode::Unsupported,
        _ => ErrorCode::Host,
    };
    WireError::new(code, format!("cannot change {what}: {error}"))
}

fn late(what: &str) -> WireError {
    let seconds = BUILD_PATIENCE.as_secs();
    let why = format!(
        "its storage has not finished what it had begun within {seconds} s; {what} changes when it has"
    );
    WireError::new(ErrorCode::Timeout, why)
}

/// Of a change that the spawner was asked for.
fn not_yet(error: SpawnerError, what: &str) -> WireError {
    match error {
        SpawnerError::Slow(_) => late(what),
        error => not_begun(&error),
    }
}

/// Of what is not done, and will not be.
fn not_begun(error: &SpawnerError) -> WireError {
    WireError::new(ErrorCode::Host, error.to_string())
}

fn refused(why: String) -> WireError {
    WireError::new(ErrorCode::InvalidArgument, why)
}

#[cfg(test)]
#[path = "media/tests.rs"]
mod tests;
