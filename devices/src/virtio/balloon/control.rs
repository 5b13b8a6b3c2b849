//! What the control thread sees of a balloon, and how it moves it.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::PAGE_BYTES;
use super::stats::BalloonStats;
use crate::event::Event;
use crate::shared::{Wake, lock};
use crate::virtio::Interrupts;

/// A balloon as the control thread holds it; any thread may.
#[derive(Debug)]
pub struct BalloonControl {
    memory: AtomicU64,
    target: AtomicU32,
    /// As the driver wrote it: any number.
    actual: AtomicU32,
    returned: AtomicU64,
    ignored: AtomicU64,
    stats_wanted: AtomicBool,
    stats: Mutex<Option<(BalloonStats, Instant)>>,
    /// Tells the worker that statistics are wanted.
    pub(super) wanted: Event,
    changed: Arc<dyn Wake>,
    /// The way to the driver, while there is one.
    interrupts: Mutex<Option<Arc<dyn Interrupts>>>,
}

/// How a balloon is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BalloonInfo {
    /// Bytes the host wants lent.
    pub target_bytes: u64,
    /// Bytes the driver says it has lent; never more than the machine's memory.
    pub actual_bytes: u64,
    /// Bytes given back since the device was made, by inflating and by reporting; the same memory
    /// counts as often as it was given.
    pub returned_bytes: u64,
    /// Pages that the driver named and the device did not take: outside of memory, or too many at
    /// once.
    pub ignored_pages: u64,
}

impl BalloonControl {
    pub(super) fn new(memory_bytes: u64, wanted: Event, changed: Arc<dyn Wake>) -> Self {
        Self {
            memory: AtomicU64::new(memory_bytes),
            target: AtomicU32::new(0),
            actual: AtomicU32::new(0),
            returned: AtomicU64::new(0),
            ignored: AtomicU64::new(0),
            stats_wanted: AtomicBool::new(false),
            stats: Mutex::new(None),
            wanted,
            changed,
            interrupts: Mutex::new(None),
        }
    }

    /// Asks the guest to lend `bytes` in all, and gives what it was asked for: whole pages, and no
    /// more than the machine has. A driver that is not there yet learns it when it comes.
    pub fn set_target(&self, bytes: u64) -> u64 {
        let pages = to_pages(bytes.min(self.memory.load(Ordering::Relaxed)));
        self.set_target_pages(pages);
        let interrupts = lock(&self.interrupts).clone();
        if let Some(interrupts) = interrupts {
            interrupts.config();
        }
        u64::from(pages) * PAGE_BYTES
    }

    /// The machine has `bytes` of memory from now on.
    pub fn set_memory(&self, bytes: u64) {
        self.memory.store(bytes, Ordering::Relaxed);
    }

    /// How it is now.
    #[must_use]
    pub fn info(&self) -> BalloonInfo {
        let actual = u64::from(self.actual_pages()) * PAGE_BYTES;
        BalloonInfo {
            target_bytes: u64::from(self.target_pages()) * PAGE_BYTES,
            actual_bytes: actual.min(self.memory.load(Ordering::Relaxed)),
            returned_bytes: self.returned.load(Ordering::Relaxed),
            ignored_pages: self.ignored.load(Ordering::Relaxed),
        }
    }

    /// Asks the driver for fresh statistics. It answers when it likes, or never.
    pub fn request_stats(&self) {
        self.stats_wanted.store(true, Ordering::Relaxed);
        self.wanted.signal();
    }

    /// The last statistics, and how old they are.
    #[must_use]
    pub fn stats(&self) -> Option<(BalloonStats, Duration)> {
        let stats = *lock(&self.stats);
        stats.map(|(stats, taken)| (stats, taken.elapsed()))
    }

    pub(super) fn target_pages(&self) -> u32 {
        self.target.load(Ordering::Relaxed)
    }

    pub(super) fn set_target_pages(&self, pages: u32) {
        self.target.store(pages, Ordering::Relaxed);
    }

    /// Whether a target is one that `set_target` could have set.
    pub(super) fn fits(&self, pages: u32) -> bool {
        u64::from(pages) * PAGE_BYTES <= self.memory.load(Ordering::Relaxed)
    }

    pub(super) fn actual_pages(&self) -> u32 {
        self.actual.load(Ordering::Relaxed)
    }

    pub(super) fn set_actual(&self, pages: u32) {
        if self.actual.swap(pages, Ordering::Relaxed) != pages {
            self.changed.wake();
        }
    }

    /// What the driver said is no longer so.
    pub(super) fn forget(&self) {
        self.set_actual(0);
        *lock(&self.stats) = None;
    }

    pub(super) fn connect(&self, interrupts: Option<Arc<dyn Interrupts>>) {
        *lock(&self.interrupts) = interrupts;
    }

    /// Whether statistics were asked for since last asked.
    pub(super) fn take_stats_wanted(&self) -> bool {
        self.stats_wanted.swap(false, Ordering::Relaxed)
    }

    pub(super) fn set_stats(&self, stats: BalloonStats) {
        *lock(&self.stats) = Some((stats, Instant::now()));
        self.changed.wake();
    }

    /// Called by the worker alone.
    pub(super) fn count_returned(&self, bytes: u64) {
        add(&self.returned, bytes);
    }

    /// Called by the worker alone.
    pub(super) fn count_ignored(&self, pages: u64) {
        add(&self.ignored, pages);
    }
}

/// Adds without wrapping, for a counter with one writer.
fn add(counter: &AtomicU64, more: u64) {
    let sum = counter.load(Ordering::Relaxed).saturating_add(more);
    counter.store(sum, Ordering::Relaxed);
}

fn to_pages(bytes: u64) -> u32 {
    u32::try_from(bytes / PAGE_BYTES).unwrap_or(u32::MAX)
}
