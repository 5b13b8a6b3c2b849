//! What one worker holds of the host besides its process: released together, after it.

use std::path::PathBuf;

use super::confinement::Confinement;
use super::identity::Identity;
use super::sockets::WorkerSockets;

/// A uid, a cgroup and sockets. Dropping it removes the sockets, then the cgroup, and frees the uid
/// last; nothing of the worker may live by then.
#[derive(Debug)]
pub(crate) struct Holdings {
    /// Unlinked when this is dropped.
    pub(crate) socket: Option<PathBuf>,
    /// What its devices listen on.
    pub(crate) device_sockets: WorkerSockets,
    /// Its cgroup.
    pub(crate) confinement: Confinement,
    /// Its uid and gid. Dropped last: fields are in order.
    pub(crate) identity: Identity,
}

impl Holdings {
    /// Whether releasing it may have to wait: for a cgroup to be empty, or for a file system.
    pub(crate) fn takes_time(&self) -> bool {
        self.confinement.path().is_some() || self.device_sockets.any()
    }

    /// Leaves everything to a later supervisor, which has a record of it.
    pub(crate) fn leave(&mut self) {
        self.socket = None;
        self.device_sockets.leave();
        self.confinement.leave();
        self.identity.leave();
    }
}

impl Drop for Holdings {
    fn drop(&mut self) {
        self.device_sockets.release();
        if let Some(socket) = &self.socket {
            // Gone already where its directory is.
            let _ = std::fs::remove_file(socket);
        }
    }
}
