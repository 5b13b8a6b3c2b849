//! Doubles for the worker's side of a device, for the unit tests of this crate.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use crate::clock::{MonotonicClock, WallClock};
use crate::console::ConsoleSink;
use crate::irq::{IrqBacking, IrqLine};
use crate::power::PowerSink;
use crate::shared::{Wake, lock};

/// Records power requests.
#[derive(Debug, Default)]
pub(crate) struct RecordPower {
    resets: Mutex<usize>,
    power_offs: Mutex<usize>,
}

impl RecordPower {
    pub(crate) fn resets(&self) -> MutexGuard<'_, usize> {
        lock(&self.resets)
    }

    pub(crate) fn power_offs(&self) -> MutexGuard<'_, usize> {
        lock(&self.power_offs)
    }
}

impl PowerSink for RecordPower {
    fn power_off(&self) {
        *self.power_offs() += 1;
    }

    fn reset(&self) {
        *self.resets() += 1;
    }
}

/// An interrupt line that remembers its level and counts rising edges.
#[derive(Debug, Default)]
pub(crate) struct RecordLine {
    level: AtomicBool,
    edges: AtomicUsize,
}

impl RecordLine {
    pub(crate) fn line() -> (IrqLine, Arc<Self>) {
        let record = Arc::new(Self::default());
        (IrqLine::new(record.clone()), record)
    }

    pub(crate) fn is_high(&self) -> bool {
        self.level.load(Ordering::Relaxed)
    }

    pub(crate) fn take_edges(&self) -> usize {
        self.edges.swap(0, Ordering::Relaxed)
    }
}

impl IrqBacking for RecordLine {
    fn set_level(&self, asserted: bool) {
        if !self.level.swap(asserted, Ordering::Relaxed) && asserted {
            self.edges.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Counts wakes.
#[derive(Debug, Default)]
pub(crate) struct RecordWake(AtomicUsize);

impl RecordWake {
    pub(crate) fn take(&self) -> usize {
        self.0.swap(0, Ordering::Relaxed)
    }
}

impl Wake for RecordWake {
    fn wake(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Keeps console output.
#[derive(Debug, Default)]
pub(crate) struct RecordConsole(Mutex<Vec<u8>>);

impl RecordConsole {
    pub(crate) fn take(&self) -> Vec<u8> {
        std::mem::take(&mut lock(&self.0))
    }
}

impl ConsoleSink for RecordConsole {
    fn push(&self, bytes: &[u8]) {
        lock(&self.0).extend_from_slice(bytes);
    }
}

/// A clock that goes only when it is told to.
#[derive(Debug, Default)]
pub(crate) struct ManualClock(Mutex<Duration>);

impl ManualClock {
    pub(crate) fn at(now: Duration) -> Arc<Self> {
        Arc::new(Self(Mutex::new(now)))
    }

    pub(crate) fn set(&self, now: Duration) {
        *lock(&self.0) = now;
    }

    pub(crate) fn advance(&self, by: Duration) {
        *lock(&self.0) += by;
    }
}

impl WallClock for ManualClock {
    fn now(&self) -> Duration {
        *lock(&self.0)
    }
}

impl MonotonicClock for ManualClock {
    fn now(&self) -> Duration {
        *lock(&self.0)
    }
}
