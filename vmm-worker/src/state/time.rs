//! How much time has passed between a save and a restore, and what the counters read then.
//!
//! On the host and in the boot where the machine was saved, the host's own counters have gone on: the
//! guest's TSC keeps its distance to the host's, and is exact; the rest moves on by the monotonic clock,
//! which no administrator sets. Anywhere else the time of day is all that two hosts share.

use std::time::Duration;

use super::{ClockStateV1, Tsc};

/// Where a machine was saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// On this host, which has not been started anew since.
    ThisBoot,
    /// Anywhere else, or before.
    Elsewhere,
}

/// The host's clocks at one moment, in nanoseconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    pub monotonic: u64,
    pub realtime: u64,
}

impl Moment {
    pub fn now() -> Self {
        Self {
            monotonic: monotonic(),
            realtime: read(libc::CLOCK_REALTIME),
        }
    }
}

/// The host's monotonic clock, in nanoseconds.
pub(crate) fn monotonic() -> u64 {
    read(libc::CLOCK_MONOTONIC)
}

/// Of the C library, which found the kernel's fast clock when the process started: to look for it now is
/// what no filter of ours allows.
#[expect(unsafe_code, reason = "the C library's own clock is what is wanted")]
fn read(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the kernel writes a time to the live variable, and nothing where it fails, which it does
    // for no clock that it has.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    // Neither clock is negative on a host whose time of day was ever set.
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanoseconds = u64::try_from(time.tv_nsec).unwrap_or(0);
    seconds
        .saturating_mul(1_000_000_000)
        .saturating_add(nanoseconds)
}

/// The time since a machine was saved.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Passage {
    pub origin: Origin,
    pub saved: ClockStateV1,
}

impl Passage {
    /// Up to now.
    pub fn elapsed(&self) -> Duration {
        Duration::from_nanos(self.elapsed_at(Moment::now()))
    }

    /// Nanoseconds up to `now`; none if the clock that counts was set back.
    pub fn elapsed_at(&self, now: Moment) -> u64 {
        match self.origin {
            Origin::ThisBoot => now.monotonic.saturating_sub(self.saved.monotonic),
            Origin::Elsewhere => now.realtime.saturating_sub(self.saved.realtime),
        }
    }

    /// What is to be added to every vCPU's offset of the TSC, at `khz`. `then` is the counter of a
    /// vCPU as it was saved, `fresh` that of a vCPU just made, read a moment before `now`.
    pub fn shift(&self, then: Tsc, fresh: Tsc, now: Moment, khz: u32) -> u64 {
        let (Origin::Elsewhere, Some(then_offset), Some(fresh_offset)) =
            (self.origin, then.offset, fresh.offset)
        else {
            return 0;
        };
        let host_then = then.value.wrapping_sub(then_offset);
        let host_fresh = fresh.value.wrapping_sub(fresh_offset);
        let elapsed = self.elapsed_at(Moment {
            // Back from `now` to the moment of `fresh`, and on from the clock's moment to `then`'s.
            realtime: now
                .realtime
                .saturating_sub(now.monotonic.saturating_sub(fresh.monotonic))
                .saturating_sub(then.monotonic.saturating_sub(self.saved.monotonic)),
            ..now
        });
        host_then
            .wrapping_add(ticks(elapsed, khz))
            .wrapping_sub(host_fresh)
    }

    /// What a vCPU's TSC that was `then` reads now, for a KVM that takes values only.
    pub fn value(&self, then: Tsc, now: Moment, khz: u32) -> u64 {
        let late = then.monotonic.saturating_sub(self.saved.monotonic);
        let elapsed = self.elapsed_at(now).saturating_sub(late);
        then.value.wrapping_add(ticks(elapsed, khz))
    }
}

/// Ticks of a counter of `khz` in a time of nanoseconds.
fn ticks(nanoseconds: u64, khz: u32) -> u64 {
    let ticks = u128::from(nanoseconds) * u128::from(khz) / 1_000_000;
    u64::try_from(ticks).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const SAVED: ClockStateV1 = ClockStateV1 {
        kvmclock: 7 * SECOND,
        realtime: 1000 * SECOND,
        monotonic: 50 * SECOND,
    };
    const THEN: Tsc = Tsc {
        value: 3_000_000,
        offset: Some(1_000_000),
        monotonic: 50 * SECOND,
    };

    #[test]
    fn on_the_same_host_offsets_stay_and_the_monotonic_clock_counts() {
        let passage = Passage {
            origin: Origin::ThisBoot,
            saved: SAVED,
        };
        let now = Moment {
            monotonic: 53 * SECOND,
            // Set back meanwhile.
            realtime: 900 * SECOND,
        };
        assert_eq!(passage.elapsed_at(now), 3 * SECOND);
        assert_eq!(passage.shift(THEN, THEN, now, 1_000_000), 0);
        assert_eq!(passage.value(THEN, now, 1_000_000), 3_000_000 + 3 * SECOND);
    }

    #[test]
    fn elsewhere_the_guest_reads_what_it_would_have_read() {
        let passage = Passage {
            origin: Origin::Elsewhere,
            saved: SAVED,
        };
        // A host that started later: its counter is at 40, its monotonic clock at 2 seconds.
        let fresh = Tsc {
            value: 0,
            offset: Some(0_u64.wrapping_sub(40)),
            monotonic: 2 * SECOND,
        };
        let now = Moment {
            monotonic: 2 * SECOND + 500,
            realtime: 1010 * SECOND + 500,
        };
        // 1 GHz.
        let shift = passage.shift(THEN, fresh, now, 1_000_000);
        let offset = THEN.offset.map(|offset| offset.wrapping_add(shift));
        // At `fresh`, when the host's counter was at 40, ten seconds had passed.
        assert_eq!(
            offset.map(|offset| offset.wrapping_add(40)),
            Some(THEN.value + 10 * SECOND)
        );
        assert_eq!(passage.elapsed_at(now), 10 * SECOND + 500);
    }

    #[test]
    fn a_clock_that_was_set_back_means_no_time_at_all() {
        let passage = Passage {
            origin: Origin::Elsewhere,
            saved: SAVED,
        };
        let now = Moment {
            monotonic: 0,
            realtime: 0,
        };
        assert_eq!(passage.elapsed_at(now), 0);
        assert_eq!(passage.value(THEN, now, 2_000_000), THEN.value);
    }

    #[test]
    fn impossible_times_overflow_nothing() {
        let saved = ClockStateV1 {
            kvmclock: u64::MAX,
            realtime: 0,
            monotonic: u64::MAX,
        };
        let passage = Passage {
            origin: Origin::Elsewhere,
            saved,
        };
        let tsc = Tsc {
            value: u64::MAX,
            offset: Some(u64::MAX),
            monotonic: u64::MAX,
        };
        let now = Moment::now();
        passage.shift(tsc, Tsc::default(), now, u32::MAX);
        passage.value(tsc, now, u32::MAX);
    }
}
