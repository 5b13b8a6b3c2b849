//! The PM timer: a counter of 3.579545 MHz worked out from the monotonic clock (ACPI 6.5 4.8.2.1).

use std::sync::Arc;
use std::time::Duration;

use crate::clock::MonotonicClock;

/// Ticks a second.
const FREQUENCY: u128 = 3_579_545;
const NANOSECONDS: u128 = 1_000_000_000;

/// How many bits of the PM timer count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PmTimerWidth {
    /// Wraps every 4.7 s; FADT flag TMR_VAL_EXT clear.
    Bits24,
    /// Wraps every 20 min; FADT flag TMR_VAL_EXT set.
    Bits32,
}

impl PmTimerWidth {
    fn bits(self) -> u32 {
        match self {
            Self::Bits24 => 24,
            Self::Bits32 => 32,
        }
    }
}

/// The counter, and whether its highest bit has changed since that was last acknowledged.
#[derive(Debug)]
pub(super) struct PmTimer {
    width: PmTimerWidth,
    clock: Arc<dyn MonotonicClock>,
    /// Clock time at which the counter stood at `base`.
    started: Duration,
    base: u64,
    /// How often the highest bit had changed at the last acknowledgement.
    acknowledged: u64,
}

impl PmTimer {
    pub(super) fn new(width: PmTimerWidth, clock: Arc<dyn MonotonicClock>) -> Self {
        let started = clock.now();
        Self {
            width,
            clock,
            started,
            base: 0,
            acknowledged: 0,
        }
    }

    /// Ticks since power-on, not cut to the width.
    pub(super) fn ticks(&self) -> u64 {
        let elapsed = self.clock.now().saturating_sub(self.started);
        self.base.wrapping_add(ticks_in(elapsed))
    }

    /// Lets time pass that the clock has not shown.
    pub(super) fn pass(&mut self, time: Duration) {
        self.base = self.base.wrapping_add(ticks_in(time));
    }

    /// The register's value.
    pub(super) fn count(&self) -> u32 {
        let mask = match self.width {
            PmTimerWidth::Bits24 => 0x00ff_ffff,
            PmTimerWidth::Bits32 => 0xffff_ffff,
        };
        (self.ticks() & mask & 0xffff_ffff) as u32
    }

    /// How often the highest bit has changed.
    fn carries(&self) -> u64 {
        self.ticks() >> (self.width.bits() - 1)
    }

    pub(super) fn has_carried(&self) -> bool {
        self.carries() != self.acknowledged
    }

    pub(super) fn acknowledge_carry(&mut self) {
        self.acknowledged = self.carries();
    }

    /// Time until the highest bit changes next.
    pub(super) fn until_carry(&self) -> Duration {
        let period = 1_u64 << (self.width.bits() - 1);
        let ticks = u128::from(period - (self.ticks() & (period - 1)));
        // Rounded up: a tick that comes early would find nothing.
        let nanoseconds = (ticks * NANOSECONDS).div_ceil(FREQUENCY) + 1;
        Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
    }

    /// Goes on from `ticks`, nothing to acknowledge.
    pub(super) fn restart_at(&mut self, ticks: u64) {
        self.started = self.clock.now();
        self.base = ticks;
        self.acknowledge_carry();
    }

    pub(super) fn set_carried(&mut self, carried: bool) {
        self.acknowledged = self.carries().wrapping_sub(u64::from(carried));
    }
}

/// Whole ticks in a time.
fn ticks_in(time: Duration) -> u64 {
    let ticks = time.as_nanos().saturating_mul(FREQUENCY) / NANOSECONDS;
    u64::try_from(ticks).unwrap_or(u64::MAX)
}
