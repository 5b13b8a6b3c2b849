//! What one worker holds of the host besides its process: released together, after it. While one worker
//! hands its machine to another, both hold it.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::confinement::Confinement;
use super::identity::Identity;
use super::sockets::WorkerSockets;
use super::tap::WorkerMacvtaps;

/// A uid, a cgroup, sockets and macvtaps. Dropping it removes the sockets and macvtaps, then the cgroup, and frees the
/// uid last; nothing of the worker may live by then.
#[derive(Debug)]
pub(crate) struct Holdings {
    /// Unlinked when this is dropped.
    pub(crate) socket: Option<PathBuf>,
    /// What its devices listen on.
    pub(crate) device_sockets: WorkerSockets,
    /// By which its guest is on the network and which do not end with it.
    pub(crate) macvtaps: WorkerMacvtaps,
    /// Its cgroup.
    pub(crate) confinement: Confinement,
    /// Its uid and gid. Dropped last: fields are in order.
    pub(crate) identity: Identity,
}

impl Holdings {
    /// Whether releasing it may have to wait: for a cgroup to be empty, for a file system, or for the kernel to let go
    /// of links.
    pub(crate) fn takes_time(&self) -> bool {
        self.confinement.path().is_some() || self.device_sockets.any() || self.macvtaps.any()
    }

    /// Leaves everything to a later supervisor, which has a record of it.
    pub(crate) fn leave(&mut self) {
        self.socket = None;
        self.device_sockets.leave();
        self.macvtaps.leave();
        self.confinement.leave();
        self.identity.leave();
    }
}

/// Holdings of the processes between which a machine goes: released with the last that has them. Cheap to
/// clone.
#[derive(Debug, Clone)]
pub(crate) struct SharedHoldings(Arc<Mutex<Holdings>>);

impl SharedHoldings {
    /// Of one process so far.
    pub(crate) fn new(holdings: Holdings) -> Self {
        Self(Arc::new(Mutex::new(holdings)))
    }

    /// For a look at them.
    pub(crate) fn held(&self) -> MutexGuard<'_, Holdings> {
        // Nothing panics while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A way to them for as long as a process has them.
    pub(crate) fn downgrade(&self) -> HoldingsOfAnother {
        HoldingsOfAnother(Arc::downgrade(&self.0))
    }
}

/// The way to what a process holds.
#[derive(Debug, Clone, Default)]
pub(crate) struct HoldingsOfAnother(Weak<Mutex<Holdings>>);

impl HoldingsOfAnother {
    /// For another process beside it; none once it is gone.
    pub(crate) fn share(&self) -> Option<SharedHoldings> {
        self.0.upgrade().map(SharedHoldings)
    }
}

impl Drop for Holdings {
    fn drop(&mut self) {
        self.device_sockets.release();
        self.macvtaps.release();
        if let Some(socket) = &self.socket {
            // Gone already where its directory is.
            let _ = std::fs::remove_file(socket);
        }
    }
}
