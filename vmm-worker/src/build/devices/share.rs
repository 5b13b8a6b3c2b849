//! A shared directory: the front end of the process that serves it.
//!
//! It has a thread of its own, which waits for that process when the device stops.

use std::time::Duration;

use reeve_devices::virtio::fs::{Fs, QUEUES};
use reeve_devices::virtio::vhost_user::{BackEndError, SharedMemory, VhostUser};
use reeve_ipc::fd::FdTable;
use reeve_ipc::spec::ShareSpec;

use super::{BuildError, Made, start_thread};
use crate::device_set::Handle;
use crate::memory::GuestMemory;

/// How long the process may take to start and introduce itself.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) fn make(
    spec: ShareSpec,
    memory: &GuestMemory,
    descriptors: &mut FdTable,
) -> Result<Made, BuildError> {
    let (socket, words) = (
        descriptors.take(spec.socket)?,
        descriptors.take(spec.words)?,
    );
    let failed = |source: BackEndError| BuildError::Share {
        tag: spec.tag.clone(),
        source,
    };
    // The worker of a private copy has guest memory that nobody else sees.
    let shared = SharedMemory::new(memory.map_ref())?;
    let back_end =
        VhostUser::connect(socket, shared, QUEUES, Some(words), PATIENCE).map_err(failed)?;
    let fs = Fs::new(&spec.tag, back_end)?;
    Ok(Made {
        device: Box::new(fs),
        threads: vec![start_thread("share")?],
        handle: Handle::Share,
    })
}
