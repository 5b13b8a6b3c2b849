//! What the control thread does with a socket device: it gives the sockets by which the host's side
//! comes and goes.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::io::{Errno, ioctl_fionbio};

use crate::event::Event;
use crate::shared::{Shared, lock};

/// Sockets that were given and the device has not taken yet: the last of each counts, `Some(None)`
/// takes one away.
#[derive(Debug, Default)]
pub(super) struct Given {
    pub(super) listener: Option<Option<OwnedFd>>,
    pub(super) acceptor: Option<Option<OwnedFd>>,
}

/// A socket device as the control thread holds it; any thread may.
#[derive(Debug, Clone)]
pub struct VsockControl {
    pub(super) given: Shared<Given>,
    /// Tells the worker of it.
    pub(super) changed: Arc<Event>,
    pub(super) connections: Arc<AtomicUsize>,
}

impl VsockControl {
    /// Takes clients from the listening stream socket `listener` from now on: each says
    /// `CONNECT <port>\n`, is answered `OK <port of its own>\n` once the guest has accepted, and is
    /// connected from then on; it is closed if the guest does not. `None`: no clients.
    ///
    /// # Errors
    /// The descriptor cannot be made non-blocking; nothing has changed.
    pub fn set_listener(&self, listener: Option<OwnedFd>) -> Result<(), Errno> {
        if let Some(socket) = &listener {
            ioctl_fionbio(socket, true)?;
        }
        lock(&self.given).listener = Some(listener);
        self.changed.signal();
        Ok(())
    }

    /// Asks on `acceptor`, a connected `SOCK_SEQPACKET` socket, for a stream whenever the guest
    /// connects to the host. A question is three numbers of four bytes, little-endian: its id, the
    /// port of the host and that of the guest. An answer is two, the id and a verdict: 1 with the
    /// connected stream socket as the one descriptor beside it, or 0 to refuse. At most 64
    /// questions are open at once, each for at most ten seconds. `None`, or its other end closed:
    /// the guest is refused every connection.
    ///
    /// # Errors
    /// The descriptor cannot be made non-blocking; nothing has changed.
    pub fn set_acceptor(&self, acceptor: Option<OwnedFd>) -> Result<(), Errno> {
        if let Some(socket) = &acceptor {
            ioctl_fionbio(socket, true)?;
        }
        lock(&self.given).acceptor = Some(acceptor);
        self.changed.signal();
        Ok(())
    }

    /// Connections there are, in whatever state.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}
