//! A token bucket: how much may pass in a time, with a debt for what turned out larger than allowed.
//!
//! Something passes while the bucket holds anything at all, and is then paid for in full, so that the
//! level may go below zero; the next one waits until it is above zero again. So the size of a thing
//! need not be known before it has passed, and nothing is too large to pass ever. Time comes with each
//! call: the bucket has no clock of its own.

use std::time::{Duration, Instant};

/// Nanoseconds of a second: the level counts in these parts of a token, so that nothing is rounded.
const PARTS: i128 = 1_000_000_000;

/// How much passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BucketRate {
    /// Tokens a second; 0 is taken for 1, or nothing would ever pass again.
    pub per_second: u64,
    /// The most tokens that gather while nothing passes; 0 is taken for 1.
    pub capacity: u64,
}

/// A bucket that fills at a rate.
#[derive(Debug, Clone)]
pub struct TokenBucket {
    per_second: u64,
    /// In parts, above zero.
    capacity: i128,
    /// In parts, at most `capacity`.
    level: i128,
    refilled: Instant,
}

impl TokenBucket {
    /// A full one.
    #[must_use]
    pub fn new(rate: BucketRate, now: Instant) -> Self {
        let capacity = parts(rate.capacity);
        Self {
            per_second: rate.per_second.max(1),
            capacity,
            level: capacity,
            refilled: now,
        }
    }

    /// Changes the rate from now on. A debt stays; what is above the new capacity is lost.
    pub fn set_rate(&mut self, rate: BucketRate, now: Instant) {
        self.refill(now);
        self.per_second = rate.per_second.max(1);
        self.capacity = parts(rate.capacity);
        self.level = self.level.min(self.capacity);
    }

    /// How long until something may pass; `None` if it may now.
    pub fn wait(&mut self, now: Instant) -> Option<Duration> {
        self.refill(now);
        if self.level > 0 {
            return None;
        }
        let missing = (1 - self.level).unsigned_abs();
        let nanoseconds = missing.div_ceil(u128::from(self.per_second));
        Some(Duration::from_nanos(
            u64::try_from(nanoseconds).unwrap_or(u64::MAX),
        ))
    }

    /// Pays for what has passed.
    pub fn take(&mut self, tokens: u64) {
        self.level = self.level.saturating_sub(i128::from(tokens) * PARTS);
    }

    fn refill(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.refilled).as_nanos();
        // A later call with an earlier time must not be paid twice.
        self.refilled = self.refilled.max(now);
        let elapsed = i128::try_from(elapsed).unwrap_or(i128::MAX);
        let earned = elapsed.saturating_mul(i128::from(self.per_second));
        self.level = self.level.saturating_add(earned).min(self.capacity);
    }
}

fn parts(tokens: u64) -> i128 {
    i128::from(tokens.max(1)) * PARTS
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bucket(per_second: u64, capacity: u64) -> (TokenBucket, Instant) {
        let now = Instant::now();
        let rate = BucketRate {
            per_second,
            capacity,
        };
        (TokenBucket::new(rate, now), now)
    }

    #[test]
    fn a_full_bucket_lets_its_capacity_pass_at_once_and_then_its_rate() {
        let (mut bucket, start) = bucket(1000, 500);
        bucket.take(499);
        assert_eq!(bucket.wait(start), None);
        bucket.take(1);
        // Anything above zero will do: a part of a token takes a microsecond at most.
        assert!(bucket.wait(start).expect("empty") <= Duration::from_micros(1));
        bucket.take(100);
        let wait = bucket.wait(start).expect("in debt");
        assert!(wait >= Duration::from_millis(100) && wait < Duration::from_millis(101));
        assert_eq!(bucket.wait(start + wait), None);
    }

    #[test]
    fn something_larger_than_the_bucket_passes_and_is_paid_for_afterwards() {
        let (mut bucket, start) = bucket(10, 10);
        bucket.take(1000);
        let wait = bucket.wait(start).expect("in debt");
        assert!(wait > Duration::from_secs(98) && wait < Duration::from_secs(100));
    }

    #[test]
    fn a_time_that_goes_back_pays_nothing_twice() {
        let (mut bucket, start) = bucket(1000, 1000);
        bucket.take(2000);
        let later = start + Duration::from_secs(1);
        let first = bucket.wait(later);
        assert!(bucket.wait(start).is_some());
        assert_eq!(bucket.wait(later), first);
    }

    #[test]
    fn a_new_rate_keeps_the_debt_and_cuts_the_savings() {
        let (mut bucket, start) = bucket(1000, 1000);
        bucket.set_rate(
            BucketRate {
                per_second: 1,
                capacity: 2,
            },
            start,
        );
        bucket.take(3);
        let wait = bucket.wait(start).expect("in debt");
        assert!(wait > Duration::from_millis(999) && wait <= Duration::from_millis(1001));
    }

    proptest! {
        #[test]
        fn no_more_passes_than_rate_and_capacity_allow(
            per_second in 0..u64::MAX,
            capacity in 0..u64::MAX,
            steps in prop::collection::vec((0..10_000_000_u64, 0..100_000_u64), 1..64),
        ) {
            let (mut bucket, start) = bucket(per_second, capacity);
            let (mut now, mut passed, mut last) = (start, 0_u128, 0_u128);
            for (nanoseconds, size) in steps {
                now += Duration::from_nanos(nanoseconds);
                if bucket.wait(now).is_none() {
                    bucket.take(size);
                    passed += u128::from(size);
                    last = u128::from(size);
                }
            }
            let earned = (now - start).as_nanos() * u128::from(per_second.max(1)) / 1_000_000_000;
            let allowed = u128::from(capacity.max(1)) + earned + last;
            prop_assert!(passed <= allowed, "{passed} > {allowed}");
        }
    }
}
