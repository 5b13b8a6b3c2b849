//! How the guest's own end reaches the control thread: a power-off, a reset, a crash.
//!
//! A vCPU thread raises it from inside a register write or after an exit; the first one stands until
//! the control thread takes it, and every vCPU stops at its next exit meanwhile. The wake-up is an
//! eventfd that the control thread polls.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use reeve_devices::legacy::pvpanic::PanicSink;
use reeve_devices::power::PowerSink;
use reeve_ipc::event::CrashReport;
use rustix::event::{EventfdFlags, eventfd};

/// How a guest ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GuestEnd {
    /// It powered off.
    PowerOff,
    /// It asked for a reset.
    Reset,
    /// A vCPU cannot go on.
    Crash(CrashReport),
}

/// The place a guest's end is left at.
#[derive(Debug)]
pub struct EndSignal {
    pending: AtomicBool,
    /// A vCPU has said that the guest panicked, and is about to make an end of it.
    panicked: AtomicBool,
    end: Mutex<Option<GuestEnd>>,
    event: OwnedFd,
}

impl EndSignal {
    /// An empty one.
    ///
    /// # Errors
    /// The host has no descriptor left.
    pub fn new() -> rustix::io::Result<Self> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self {
            pending: AtomicBool::new(false),
            panicked: AtomicBool::new(false),
            end: Mutex::new(None),
            event,
        })
    }

    /// Whether an end waits for the control thread: no vCPU runs then.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        self.pending.load(Ordering::Acquire)
    }

    /// Leaves `end`, unless one waits already, or was taken and the vCPUs were not let run since: the guest has
    /// one end only.
    pub fn raise(&self, end: GuestEnd) {
        let mut place = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        if place.is_none() && !self.is_pending() {
            *place = Some(end);
            self.pending.store(true, Ordering::Release);
            // Fails only when the counter is full, which wakes the reader as well.
            let _ = rustix::io::write(&self.event, &1_u64.to_ne_bytes());
        }
    }

    /// On a vCPU thread, after it wrote a port: whether the guest has said that it panicked, and no vCPU has
    /// made an end of it yet. This one does.
    pub(super) fn take_panic(&self) -> bool {
        self.panicked.load(Ordering::Relaxed) && self.panicked.swap(false, Ordering::Relaxed)
    }

    /// On the control thread: takes what waits.
    pub fn take(&self) -> Option<GuestEnd> {
        let _ = rustix::io::read(&self.event, &mut [0; 8]);
        self.end
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    /// On the control thread, with every vCPU standing: lets them run again.
    pub fn clear(&self) {
        let _ = self.take();
        self.panicked.store(false, Ordering::Relaxed);
        self.pending.store(false, Ordering::Release);
    }
}

impl PowerSink for EndSignal {
    fn power_off(&self) {
        self.raise(GuestEnd::PowerOff);
    }

    fn reset(&self) {
        self.raise(GuestEnd::Reset);
    }
}

/// The vCPU that wrote the port tells how it stands: `EndSignal::take_panic`.
impl PanicSink for EndSignal {
    fn panicked(&self) {
        self.panicked.store(true, Ordering::Relaxed);
    }
}

impl AsFd for EndSignal {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}
