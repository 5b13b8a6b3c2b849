//! Sizes and media of disks that change while their guest uses them.
//!
//! The work is done by the thread that serves the disk, between two requests, or where none does by the
//! spawner, whose filter has a disk's calls; the control thread waits for it, and not for ever.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use reeve_devices::block::SizeChange;
use reeve_devices::virtio::block::{BlockControl, Resized};
use reeve_ipc::error::{ErrorCode, WireError};
use reeve_ipc::fd::FdTable;
use reeve_ipc::spec::{DeviceSpec, DiskSpec, LayerSpec, PciSlot};

use super::{BUILD_PATIENCE, Plugging};
use crate::build::BuildError;
use crate::build::devices::{disk, pci_slot};
use crate::device_set::{DeviceSetError, Handle};
use crate::hand_over::Kept;
use crate::spawner::Spawner;

/// Changes a disk's size.
///
/// # Errors
/// It cannot have that size, or its storage has not done it in time and may do it yet.
pub(super) fn resize(
    spawner: &Spawner,
    disk: &BlockControl,
    change: SizeChange,
) -> Result<(), WireError> {
    let (done, told) = later();
    let (disk, deadline) = (disk.clone(), Instant::now() + BUILD_PATIENCE);
    spawner
        .run_within(left(deadline), move || disk.resize(change, done))
        .map_err(BuildError::from)?;
    wait(&told, deadline, "its size").map(drop)
}

fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

impl Plugging {
    /// Puts another medium into a disk, or none.
    ///
    /// # Errors
    /// There is no such disk, it keeps its medium, or the new one cannot be used: nothing has changed then.
    /// Or its storage has not finished with the old one in time; it changes when it has.
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
        let medium = opening.map_err(BuildError::from)??;
        // From here on it changes, sooner or later.
        let (done, told) = later();
        let exchanging = self.spawner.run_within(left(deadline), move || {
            control.exchange(medium, done);
        });
        let exchanging = exchanging.map_err(|error| WireError::from(BuildError::from(error)));
        let result = exchanging.and_then(|()| wait(&told, deadline, "its medium"));
        let later = |error: &WireError| error.code == ErrorCode::Timeout;
        if result.as_ref().err().is_none_or(later) {
            // With it goes the last descriptor of the medium before, and its lock.
            *kept = new;
        }
        result.map(drop)
    }
}

/// A way to hear of a change that is made on another thread.
fn later() -> (Resized, Receiver<io::Result<u64>>) {
    let (tell, told) = sync_channel(1);
    // Nobody hears of one that comes too late.
    let done: Resized = Box::new(move |result| drop(tell.try_send(result)));
    (done, told)
}

fn wait(told: &Receiver<io::Result<u64>>, deadline: Instant, what: &str) -> Result<u64, WireError> {
    match told.recv_timeout(left(deadline)) {
        Ok(Ok(size)) => Ok(size),
        Ok(Err(error)) => {
            let code = match error.kind() {
                io::ErrorKind::InvalidInput | io::ErrorKind::ReadOnlyFilesystem => {
                    ErrorCode::InvalidArgument
                }
                io::ErrorKind::Unsupported => ErrorCode::Unsupported,
                _ => ErrorCode::Host,
            };
            Err(WireError::new(
                code,
                format!("cannot change {what}: {error}"),
            ))
        }
        Err(RecvTimeoutError::Timeout) => {
            let seconds = BUILD_PATIENCE.as_secs();
            let why = format!(
                "its storage has not finished what it had begun within {seconds} s; {what} changes when it has"
            );
            Err(WireError::new(ErrorCode::Timeout, why))
        }
        Err(RecvTimeoutError::Disconnected) => {
            let why = format!("cannot change {what}: its thread has ended");
            Err(WireError::new(ErrorCode::Host, why))
        }
    }
}

fn refused(why: String) -> WireError {
    WireError::new(ErrorCode::InvalidArgument, why)
}
