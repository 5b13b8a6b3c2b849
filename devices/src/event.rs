//! An eventfd: one thread tells another that there is work for it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{EventfdFlags, eventfd};

use crate::shared::Wake;

/// A counter that a thread can wait for. Signals may be merged.
#[derive(Debug)]
pub struct Event(OwnedFd);

impl Event {
    /// One without a signal, non-blocking and close-on-exec.
    ///
    /// # Errors
    /// The host has no descriptor left.
    pub fn new() -> rustix::io::Result<Self> {
        eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map(Self)
    }

    /// One that another process made, for tests.
    #[cfg(test)]
    pub(crate) fn of(descriptor: OwnedFd) -> Self {
        Self(descriptor)
    }

    /// Signals.
    pub fn signal(&self) {
        // Fails only when the counter is full, and then there is a signal as well.
        let _ = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }

    /// Forgets the signals so far; true if there were any.
    pub fn take(&self) -> bool {
        rustix::io::read(&self.0, &mut [0; 8]).is_ok()
    }
}

impl AsFd for Event {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Wake for Event {
    fn wake(&self) {
        self.signal();
    }
}
