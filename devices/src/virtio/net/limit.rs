//! Limits on what passes in one direction, shared by all pairs of queues and set while they run.

use std::num::NonZeroU64;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::shared::lock;
use crate::token_bucket::{BucketRate, TokenBucket};

/// How much may pass in one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bandwidth {
    /// Bytes a second in the long run.
    pub average: NonZeroU64,
    /// Bytes a second while the burst lasts; no limit if `None`.
    pub peak: Option<NonZeroU64>,
    /// Bytes that may pass at the peak; what is less than a few frames' worth is taken for that.
    pub burst: u64,
}

/// The least burst: one longest frame.
const LEAST_BURST: u64 = 65_550;
/// The least pause: a thread woken for every frame would do little else.
const LEAST_PAUSE: Duration = Duration::from_millis(1);
/// A bucket must hold what the rate earns in a few pauses, or the rate would not be reached.
const PAUSES: u64 = 4;

#[derive(Debug)]
struct Buckets {
    average: TokenBucket,
    peak: Option<TokenBucket>,
}

/// The limit of one direction, if it has one.
#[derive(Debug, Default)]
pub(super) struct Limiter {
    /// Whether there are buckets: frames of an unlimited device take no lock.
    limited: AtomicBool,
    buckets: Mutex<Option<Buckets>>,
}

fn rate(per_second: NonZeroU64, burst: u64) -> BucketRate {
    let per_second = per_second.get();
    let pauses = per_second / 1000 * PAUSES;
    BucketRate {
        per_second,
        capacity: burst.max(pauses).max(LEAST_BURST),
    }
}

impl Limiter {
    /// Sets the limit from `now` on. What was passed in excess before still counts.
    pub(super) fn set(&self, bandwidth: Option<Bandwidth>, now: Instant) {
        let mut buckets = lock(&self.buckets);
        match (bandwidth, buckets.as_mut()) {
            (None, _) => *buckets = None,
            (Some(bandwidth), Some(buckets)) => {
                let average = rate(bandwidth.average, bandwidth.burst);
                buckets.average.set_rate(average, now);
                buckets.peak = bandwidth.peak.map(|peak| {
                    let rate = rate(peak, 0);
                    let mut bucket = buckets.peak.take();
                    if let Some(bucket) = bucket.as_mut() {
                        bucket.set_rate(rate, now);
                    }
                    bucket.unwrap_or_else(|| TokenBucket::new(rate, now))
                });
            }
            (Some(bandwidth), none) => {
                debug_assert!(none.is_none(), "the arm above takes it");
                let average = rate(bandwidth.average, bandwidth.burst);
                *buckets = Some(Buckets {
                    average: TokenBucket::new(average, now),
                    peak: bandwidth
                        .peak
                        .map(|peak| TokenBucket::new(rate(peak, 0), now)),
                });
            }
        }
        self.limited.store(buckets.is_some(), Ordering::Relaxed);
    }

    /// Whether there is a limit.
    pub(super) fn is_limited(&self) -> bool {
        self.limited.load(Ordering::Relaxed)
    }

    /// When something may pass, if not now.
    pub(super) fn resume_at(&self) -> Option<Instant> {
        if !self.is_limited() {
            return None;
        }
        let now = Instant::now();
        self.wait(now)
            .map(|wait| now.checked_add(wait).unwrap_or(now))
    }

    fn wait(&self, now: Instant) -> Option<Duration> {
        let mut buckets = lock(&self.buckets);
        let buckets = buckets.as_mut()?;
        let average = buckets.average.wait(now);
        let peak = buckets.peak.as_mut().and_then(|peak| peak.wait(now));
        average.max(peak).map(|wait| wait.max(LEAST_PAUSE))
    }

    /// Pays for a frame that has passed.
    pub(super) fn take(&self, bytes: usize) {
        if !self.limited.load(Ordering::Relaxed) {
            return;
        }
        if let Some(buckets) = lock(&self.buckets).as_mut() {
            buckets.average.take(bytes as u64);
            if let Some(peak) = buckets.peak.as_mut() {
                peak.take(bytes as u64);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bandwidth(average: u64, peak: Option<u64>, burst: u64) -> Option<Bandwidth> {
        Some(Bandwidth {
            average: NonZeroU64::new(average).expect("not zero"),
            peak: peak.and_then(NonZeroU64::new),
            burst,
        })
    }

    /// Bytes that pass in `time`, in frames of 1000.
    fn passed(limiter: &Limiter, start: Instant, time: Duration) -> u64 {
        let (mut now, mut bytes) = (start, 0);
        while now < start + time {
            match limiter.wait(now) {
                Some(wait) => now += wait,
                None => {
                    limiter.take(1000);
                    bytes += 1000;
                }
            }
        }
        bytes
    }

    #[test]
    fn the_burst_passes_at_the_peak_and_the_rest_at_the_average() {
        let (limiter, start) = (Limiter::default(), Instant::now());
        limiter.set(bandwidth(1_000_000, Some(10_000_000), 5_000_000), start);
        let first = passed(&limiter, start, Duration::from_millis(100));
        assert!((1_000_000..1_100_000).contains(&first), "{first}");
        let ten = first
            + passed(
                &limiter,
                start + Duration::from_millis(100),
                Duration::from_millis(9900),
            );
        assert!((14_900_000..15_100_000).contains(&ten), "{ten}");
    }

    #[test]
    fn a_high_rate_is_reached_in_spite_of_the_pauses() {
        let (limiter, start) = (Limiter::default(), Instant::now());
        limiter.set(bandwidth(1_000_000_000, None, 0), start);
        let bytes = passed(&limiter, start, Duration::from_millis(500));
        assert!((495_000_000..505_000_000).contains(&bytes), "{bytes}");
    }

    #[test]
    fn a_limit_is_lifted_and_lowered_while_it_is_in_force() {
        let (limiter, start) = (Limiter::default(), Instant::now());
        assert_eq!(limiter.resume_at(), None);
        limiter.set(bandwidth(1000, None, 0), start);
        limiter.take(200_000);
        assert!(limiter.wait(start) > Some(Duration::from_secs(100)));
        limiter.set(bandwidth(1_000_000, Some(2_000_000), 0), start);
        assert!(limiter.wait(start) < Some(Duration::from_secs(1)));
        limiter.set(None, start);
        assert_eq!(limiter.resume_at(), None);
    }
}
