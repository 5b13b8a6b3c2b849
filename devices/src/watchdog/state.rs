//! Saved state of the watchdog: a part of its function's record.

use std::time::Duration;

use super::{CONFIG_MASK, Countdown, ENABLED, LENGTH_MASK, LOCK_MASK, MIN_STAGE, Watchdog};
use crate::state::{StateError, StateReader, StateWriter, check};

/// The longest that a stage lasts, in nanoseconds.
const MAX_STAGE_NS: u64 = ((LENGTH_MASK as u64) << 15) * 1000 / 33;
const _: () = assert!(MAX_STAGE_NS as u128 > MIN_STAGE.as_nanos());

/// The registers, and how far the timer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WatchdogStateV1 {
    /// The configuration register.
    pub config: u8,
    /// The lock register.
    pub lock: u8,
    /// The timers' lengths, in 20 bits each.
    pub lengths: [u32; 2],
    /// It is the second timer that runs, or ran last.
    pub second: bool,
    /// How many of the two writes that unlock a register were made: 0 to 2.
    pub unlocked: u8,
    /// The interrupt's status.
    pub interrupt: bool,
    /// It has expired since the guest last cleared that.
    pub timed_out: bool,
    /// It has expired, and nothing was done about it yet.
    pub expired: bool,
    /// Nanoseconds until the timer runs out, if it runs.
    pub left_ns: Option<u64>,
}

impl WatchdogStateV1 {
    pub(super) fn encode(&self, writer: &mut StateWriter) {
        let [first, second] = self.lengths;
        writer
            .u8(self.config)
            .u8(self.lock)
            .u32(first)
            .u32(second)
            .bool(self.second)
            .u8(self.unlocked)
            .bool(self.interrupt)
            .bool(self.timed_out)
            .bool(self.expired)
            .bool(self.left_ns.is_some())
            .u64(self.left_ns.unwrap_or(0));
    }

    pub(super) fn decode(reader: &mut StateReader<'_>) -> Result<Self, StateError> {
        let state = Self {
            config: reader.u8()?,
            lock: reader.u8()?,
            lengths: [reader.u32()?, reader.u32()?],
            second: reader.bool("second")?,
            unlocked: reader.u8()?,
            interrupt: reader.bool("interrupt")?,
            timed_out: reader.bool("timed-out")?,
            expired: reader.bool("expired")?,
            left_ns: {
                let runs = reader.bool("runs")?;
                let left = reader.u64()?;
                check(runs || left == 0, "left")?;
                runs.then_some(left)
            },
        };
        check(state.config & !CONFIG_MASK == 0, "config")?;
        check(state.lock & !LOCK_MASK == 0, "lock")?;
        let fit = state
            .lengths
            .iter()
            .all(|length| length & !LENGTH_MASK == 0);
        check(fit, "lengths")?;
        check(state.unlocked <= 2, "unlocked")?;
        let enabled = state.lock & ENABLED != 0;
        let possible = state
            .left_ns
            .is_none_or(|left| enabled && left <= MAX_STAGE_NS);
        check(possible, "left")?;
        Ok(state)
    }
}

impl Watchdog {
    pub(super) fn state(&self) -> WatchdogStateV1 {
        let left = match self.countdown {
            Countdown::Stopped => None,
            Countdown::Held(left) => Some(left),
            Countdown::Until(end) => Some(end.saturating_sub(self.clock.now())),
        };
        let nanoseconds = |left: Duration| u64::try_from(left.as_nanos()).unwrap_or(u64::MAX);
        WatchdogStateV1 {
            config: self.config,
            lock: self.lock,
            lengths: self.lengths,
            second: self.second,
            unlocked: self.unlocked,
            interrupt: self.interrupt,
            timed_out: self.timed_out,
            expired: self.expired,
            left_ns: left.map(nanoseconds),
        }
    }

    /// Takes over a state that was decoded. The time between counts for nothing, as the machine stood.
    pub(super) fn set_state(&mut self, state: &WatchdogStateV1) {
        let WatchdogStateV1 {
            config,
            lock,
            lengths,
            second,
            unlocked,
            interrupt,
            timed_out,
            expired,
            left_ns,
        } = *state;
        (self.config, self.lock, self.lengths) = (config, lock, lengths);
        (self.second, self.unlocked) = (second, unlocked);
        (self.interrupt, self.timed_out, self.expired) = (interrupt, timed_out, expired);
        self.irq.set(interrupt);
        let left = left_ns.map(Duration::from_nanos);
        self.countdown = match left {
            None => Countdown::Stopped,
            Some(left) if self.held => Countdown::Held(left),
            Some(left) => Countdown::Until(self.clock.now().saturating_add(left)),
        };
        self.timer.wake();
        if expired {
            self.news.wake();
        }
    }
}
