//! Limits of a disk's rate: bytes and operations a second, of reads, of writes and of both.
//!
//! Each limit is a bucket that fills with what is done and leaks at the limit's rate. Work is begun
//! while the bucket is not over its rim, and may then overfill it: so an operation larger than the
//! bucket goes through and is waited for afterwards. Bursts are as QEMU's and libvirt's `iotune` has
//! them: for `burst_seconds` a disk may do `burst` a second, after which it is held to `rate` until
//! it has rested.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use crate::event::Event;
use crate::shared::lock;

/// Nano-units in a unit: levels are exact, however short the time between two operations.
const NANO: u128 = 1_000_000_000;
/// How much of a second a bucket without a burst holds, as nanoseconds.
const SLACK: u128 = NANO / 10;
/// Waits are cut into pieces no longer than this; at the end of one the buckets are asked again.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// One limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limit {
    /// Units a second; 0 for no limit.
    pub rate: u64,
    /// Units a second during a burst, more than `rate`; 0 for none.
    pub burst: u64,
    /// The longest burst, in seconds; 0 counts as 1.
    pub burst_seconds: u32,
}

/// All limits of a disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes read and written.
    pub total_bytes: Limit,
    /// Bytes read.
    pub read_bytes: Limit,
    /// Bytes written.
    pub write_bytes: Limit,
    /// Operations.
    pub total_operations: Limit,
    /// Reads.
    pub read_operations: Limit,
    /// Writes.
    pub write_operations: Limit,
    /// The bytes that count as one operation: a larger one counts as several. 0: each counts as one.
    pub operation_bytes: u64,
}

/// Which way data goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// To the guest.
    Read,
    /// From the guest.
    Write,
}

#[derive(Debug, Clone, Copy, Default)]
struct Bucket {
    limit: Limit,
    /// Nano-units over the long run, and of the burst.
    level: u128,
    burst_level: u128,
}

impl Bucket {
    fn leak(&mut self, nanoseconds: u128) {
        let leaked = |rate: u64| u128::from(rate).saturating_mul(nanoseconds);
        self.level = self.level.saturating_sub(leaked(self.limit.rate));
        self.burst_level = self.burst_level.saturating_sub(leaked(self.limit.burst));
    }

    /// Nanoseconds until it is no longer over its rim.
    fn wait(&self) -> u128 {
        let Limit {
            rate,
            burst,
            burst_seconds,
        } = self.limit;
        if rate == 0 {
            return 0;
        }
        let (rate, burst, seconds) = (
            u128::from(rate),
            u128::from(burst),
            u128::from(burst_seconds),
        );
        let over = |level: u128, rim: u128, rate: u128| level.saturating_sub(rim).div_ceil(rate);
        if burst == 0 {
            return over(self.level, rate * SLACK, rate);
        }
        let rim = burst.saturating_mul(seconds.max(1)).saturating_mul(NANO);
        let long = over(self.level, rim, rate);
        // A burst of one second is its own rim.
        let short = if seconds > 1 {
            over(self.burst_level, burst * SLACK, burst)
        } else {
            0
        };
        long.max(short)
    }

    fn charge(&mut self, units: u64) {
        if self.limit.rate > 0 {
            let filled = u128::from(units) * NANO;
            self.level = self.level.saturating_add(filled);
            self.burst_level = self.burst_level.saturating_add(filled);
        }
    }
}

#[derive(Debug, Default)]
struct Buckets {
    limits: Limits,
    /// Total, reads, writes: bytes, then operations.
    bytes: [Bucket; 3],
    operations: [Bucket; 3],
    leaked: Option<Instant>,
}

impl Buckets {
    fn new(limits: Limits) -> Self {
        let bucket = |limit| Bucket {
            limit,
            ..Bucket::default()
        };
        Self {
            limits,
            bytes: [limits.total_bytes, limits.read_bytes, limits.write_bytes].map(bucket),
            operations: [
                limits.total_operations,
                limits.read_operations,
                limits.write_operations,
            ]
            .map(bucket),
            leaked: None,
        }
    }

    fn admit(&mut self, direction: Direction, bytes: u64, now: Instant) -> Result<(), Instant> {
        let since = self.leaked.replace(now).unwrap_or(now);
        let nanoseconds = now.saturating_duration_since(since).as_nanos();
        let operations = match self.limits.operation_bytes {
            0 => 1,
            one => bytes.div_ceil(one).max(1),
        };
        let mut wait = 0;
        for (buckets, _) in [(&mut self.bytes, bytes), (&mut self.operations, operations)] {
            for bucket in buckets.iter_mut() {
                bucket.leak(nanoseconds);
            }
            for bucket in concerned(buckets, direction) {
                wait = wait.max(bucket.wait());
            }
        }
        if wait > 0 {
            let wait = u64::try_from(wait).map_or(LONGEST_WAIT, Duration::from_nanos);
            return Err(now + wait.min(LONGEST_WAIT));
        }
        for (buckets, units) in [(&mut self.bytes, bytes), (&mut self.operations, operations)] {
            for bucket in concerned(buckets, direction) {
                bucket.charge(units);
            }
        }
        Ok(())
    }
}

/// The buckets that an operation goes into.
fn concerned(
    [total, read, write]: &mut [Bucket; 3],
    direction: Direction,
) -> impl Iterator<Item = &mut Bucket> {
    let own = match direction {
        Direction::Read => read,
        Direction::Write => write,
    };
    [total, own].into_iter()
}

/// The limits of one disk, shared by its queues and whoever sets them.
#[derive(Debug, Default)]
pub struct Throttle {
    limited: AtomicBool,
    buckets: Mutex<Buckets>,
    waiting: Mutex<Vec<Weak<Event>>>,
}

impl Throttle {
    /// A disk with these limits.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        let throttle = Self::default();
        throttle.set(limits);
        throttle
    }

    /// The limits now.
    #[must_use]
    pub fn limits(&self) -> Limits {
        lock(&self.buckets).limits
    }

    /// Sets other limits. What waits is looked at again at once.
    pub fn set(&self, limits: Limits) {
        {
            let mut buckets = lock(&self.buckets);
            *buckets = Buckets::new(limits);
            let all = [&buckets.bytes, &buckets.operations];
            let limited = all.into_iter().flatten().any(|one| one.limit.rate > 0);
            self.limited.store(limited, Ordering::Release);
        }
        for event in lock(&self.waiting).iter().filter_map(Weak::upgrade) {
            event.signal();
        }
    }

    /// Has `event` signalled when limits are set, while it exists.
    pub fn watch(&self, event: &Arc<Event>) {
        let mut waiting = lock(&self.waiting);
        waiting.retain(|event| event.strong_count() > 0);
        let event = Arc::downgrade(event);
        // A queue's event is the same at every start of the device.
        if !waiting.iter().any(|known| known.ptr_eq(&event)) {
            waiting.push(event);
        }
    }

    /// Begins an operation, at time `now` of a clock that does not go back.
    ///
    /// # Errors
    /// Not yet: the time when to ask again. Nothing is counted then.
    pub fn admit(&self, direction: Direction, bytes: u64, now: Instant) -> Result<(), Instant> {
        if !self.limited.load(Ordering::Acquire) {
            return Ok(());
        }
        lock(&self.buckets).admit(direction, bytes, now)
    }
}

#[cfg(test)]
#[path = "throttle/tests.rs"]
mod tests;
