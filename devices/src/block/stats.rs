//! What a disk has done: counters that its workers add to and that anybody may read at any time.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Counters of one kind of request. Each counts up without end (and wraps after 2^64).
#[derive(Debug, Default)]
pub struct OperationCounters {
    operations: AtomicU64,
    bytes: AtomicU64,
    nanoseconds: AtomicU64,
    errors: AtomicU64,
}

impl OperationCounters {
    /// Counts a request of `bytes` that took `time`, from when it was taken to when it was given back.
    pub fn count(&self, bytes: u64, time: Duration, failed: bool) {
        if failed {
            self.errors.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.operations.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
    }

    /// The counters now. They are read one after the other.
    pub fn read(&self) -> OperationFigures {
        OperationFigures {
            operations: self.operations.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            nanoseconds: self.nanoseconds.load(Ordering::Relaxed),
            errors: self.errors.load(Ordering::Relaxed),
        }
    }
}

/// Counters of one kind of request, as they were.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OperationFigures {
    /// Requests that succeeded.
    pub operations: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The time they took, summed: more than has passed where they overlap.
    pub nanoseconds: u64,
    /// Requests that failed.
    pub errors: u64,
}

/// The counters of one disk, all its queues together.
#[derive(Debug, Default)]
pub struct BlockStats {
    /// Reads.
    pub reads: OperationCounters,
    /// Writes of data.
    pub writes: OperationCounters,
    /// Flushes; without bytes.
    pub flushes: OperationCounters,
    /// Ranges discarded or zeroed.
    pub discards: OperationCounters,
}
