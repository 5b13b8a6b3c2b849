//! Waking the I/O thread: an eventfd that devices and the control thread write.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use reeve_devices::shared::Wake;
use rustix::event::{EventfdFlags, eventfd};

/// An eventfd behind the devices' trait.
#[derive(Debug)]
pub struct Waker {
    event: OwnedFd,
}

impl Waker {
    /// A new one.
    ///
    /// # Errors
    /// The host has no descriptor left.
    pub fn new() -> rustix::io::Result<Self> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { event })
    }

    /// Wakes the thread; calls may be merged.
    pub fn wake_thread(&self) {
        // Fails only when the counter is full, and then the thread wakes as well.
        let _ = rustix::io::write(&self.event, &1_u64.to_ne_bytes());
    }

    /// On the thread: forgets the wakes so far.
    pub fn drain(&self) {
        let _ = rustix::io::read(&self.event, &mut [0; 8]);
    }
}

impl Wake for Waker {
    fn wake(&self) {
        self.wake_thread();
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}
