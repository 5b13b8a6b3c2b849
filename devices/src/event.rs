//! An eventfd: one thread tells another that there is work for it.
//!
//! Whether a read or a write of one waits is the open file's own setting, which is everybody's who has it. So an
//! event that another process has as well is neither read here nor signalled but by the thread that serves that
//! process (`Event::share`): the other one may have filled the counter, and have whoever writes wait.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, OnceLock};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use crate::shared::Wake;

/// A counter that a thread can wait for. Signals may be merged.
#[derive(Debug)]
pub struct Event {
    counter: OwnedFd,
    /// What is signalled in its place since another process has it.
    relay: OnceLock<Arc<Event>>,
}

impl Event {
    /// One without a signal, non-blocking and close-on-exec.
    ///
    /// # Errors
    /// The host has no descriptor left.
    pub fn new() -> rustix::io::Result<Self> {
        eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map(Self::with)
    }

    /// One that another process made, for tests.
    #[cfg(test)]
    pub(crate) fn of(descriptor: OwnedFd) -> Self {
        Self::with(descriptor)
    }

    fn with(counter: OwnedFd) -> Self {
        Self {
            counter,
            relay: OnceLock::new(),
        }
    }

    /// To be called before another process gets it, which is not trusted: from now on it is `relay` that is
    /// signalled in its place, for good, and whoever waits for that is to pass it on ([`pass_on`]).
    ///
    /// [`pass_on`]: Self::pass_on
    pub(crate) fn share(&self, relay: &Arc<Self>) {
        // Once shared it stays so, by the same relay: there is one for all of a device.
        let _ = self.relay.set(Arc::clone(relay));
    }

    /// Signals. Never waits.
    pub fn signal(&self) {
        match self.relay.get() {
            Some(relay) => relay.write(),
            None => self.write(),
        }
    }

    /// Signals one that another process has. For the thread that serves that process and nobody else: it waits
    /// where that fills the counter at this very instant, and has made writes wait.
    pub(crate) fn pass_on(&self) {
        let mut room = [PollFd::new(&self.counter, PollFlags::OUT)];
        // A counter without room is a signal.
        if poll(&mut room, Some(&Timespec::default())).is_ok_and(|ready| ready > 0) {
            self.write();
        }
    }

    fn write(&self) {
        // Fails only when the counter is full, and then there is a signal as well.
        let _ = rustix::io::write(&self.counter, &1_u64.to_ne_bytes());
    }

    /// Forgets the signals so far; true if there were any. Those of one that another process has are that one's
    /// to take.
    pub fn take(&self) -> bool {
        self.relay.get().is_none() && rustix::io::read(&self.counter, &mut [0; 8]).is_ok()
    }
}

impl AsFd for Event {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.counter.as_fd()
    }
}

impl Wake for Event {
    fn wake(&self) {
        self.signal();
    }
}
