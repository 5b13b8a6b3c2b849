//! Time as devices see it. The worker supplies the clocks, so that it alone decides what a pause,
//! a snapshot or a migration does to them; tests supply clocks that stand still.

use std::fmt::Debug;
use std::time::{Duration, Instant, SystemTime};

/// The time of day, in UTC.
pub trait WallClock: Debug + Send + Sync {
    /// Time since 1970-01-01T00:00:00Z. May step in either direction.
    fn now(&self) -> Duration;
}

/// A clock that counts up steadily.
pub trait MonotonicClock: Debug + Send + Sync {
    /// Time since an arbitrary origin; never less than an earlier answer.
    fn now(&self) -> Duration;
}

/// The host's time of day.
#[derive(Debug, Default, Clone, Copy)]
pub struct HostWallClock;

impl WallClock for HostWallClock {
    fn now(&self) -> Duration {
        // A host clock before 1970 is shown as 1970: the guest's clock has no earlier range.
        SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default()
    }
}

/// The host's monotonic clock, counted from the moment this value was made.
#[derive(Debug, Clone, Copy)]
pub struct HostMonotonicClock {
    origin: Instant,
}

impl HostMonotonicClock {
    /// A clock that reads zero now.
    pub fn new() -> Self {
        Self {
            origin: Instant::now(),
        }
    }
}

impl Default for HostMonotonicClock {
    fn default() -> Self {
        Self::new()
    }
}

impl MonotonicClock for HostMonotonicClock {
    fn now(&self) -> Duration {
        self.origin.elapsed()
    }
}

/// A device that has something to do at a given time.
///
/// Devices own no thread and no timer. One thread of the worker asks each timed device for
/// [`next_event`](TimedDevice::next_event), sleeps that long or until the device's [`Wake`] says
/// that the answer has changed, and calls [`tick`](TimedDevice::tick). A tick that comes late is
/// caught up with, one that comes early does nothing.
///
/// [`Wake`]: crate::shared::Wake
pub trait TimedDevice: Send {
    /// How long from now until the device has to act, or `None` while it has nothing to wait for.
    fn next_event(&self) -> Option<Duration>;

    /// Does whatever has become due.
    fn tick(&mut self);
}
