//! How long operations took: a histogram of fixed size, from which percentiles are read. Pure, and
//! compiled into the host library's tests as well.
//!
//! Each power of two is cut into [`PARTS`] buckets, so that a percentile is told by at most a thirty-second
//! part too much, whatever its size.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Buckets of a power of two.
const PARTS: u64 = 32;
/// Their number's bits.
const BITS: u32 = PARTS.trailing_zeros();
/// One for each value below [`PARTS`], and [`PARTS`] for each power of two from there on.
const BUCKETS: usize = ((64 - BITS as usize) + 1) * PARTS as usize;

/// Times of operations, in whatever unit. Atomic so that it can be `static`; one processor adds to it.
pub struct Latencies {
    counts: [AtomicU32; BUCKETS],
    number: AtomicU64,
    total: AtomicU64,
    least: AtomicU64,
    most: AtomicU64,
}

impl Latencies {
    /// None yet: all zeroes, which take no room in an image.
    pub const fn new() -> Self {
        Self {
            counts: [const { AtomicU32::new(0) }; BUCKETS],
            number: AtomicU64::new(0),
            total: AtomicU64::new(0),
            least: AtomicU64::new(0),
            most: AtomicU64::new(0),
        }
    }

    /// Forgets all.
    pub fn clear(&self) {
        for count in &self.counts {
            count.store(0, Ordering::Relaxed);
        }
        self.number.store(0, Ordering::Relaxed);
        self.total.store(0, Ordering::Relaxed);
        self.least.store(0, Ordering::Relaxed);
        self.most.store(0, Ordering::Relaxed);
    }

    /// Adds one.
    pub fn note(&self, time: u64) {
        let add = |place: &AtomicU64, value: u64| {
            // One processor adds, so that no locked instruction is needed.
            place.store(
                place.load(Ordering::Relaxed).wrapping_add(value),
                Ordering::Relaxed,
            );
        };
        if let Some(count) = self.counts.get(bucket(time)) {
            count.store(count.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        }
        if self.number() == 0 || time < self.least() {
            self.least.store(time, Ordering::Relaxed);
        }
        add(&self.number, 1);
        add(&self.total, time);
        if time > self.most.load(Ordering::Relaxed) {
            self.most.store(time, Ordering::Relaxed);
        }
    }

    /// How many there are.
    pub fn number(&self) -> u64 {
        self.number.load(Ordering::Relaxed)
    }

    /// The mean; zero without any.
    pub fn mean(&self) -> u64 {
        self.total.load(Ordering::Relaxed) / self.number().max(1)
    }

    /// The least; zero without any.
    pub fn least(&self) -> u64 {
        self.least.load(Ordering::Relaxed)
    }

    /// The most; zero without any.
    pub fn most(&self) -> u64 {
        self.most.load(Ordering::Relaxed)
    }

    /// What so many percent of all do not exceed, by the upper end of its bucket.
    pub fn percentile(&self, percent: u64) -> u64 {
        let rank = (self.number() * percent).div_ceil(100).max(1);
        let mut passed = 0;
        for (number, count) in self.counts.iter().enumerate() {
            passed += u64::from(count.load(Ordering::Relaxed));
            if passed >= rank {
                return last(number).min(self.most());
            }
        }
        self.most()
    }
}

/// The bucket of a value.
const fn bucket(value: u64) -> usize {
    if value < PARTS {
        return value as usize;
    }
    let power = 63 - value.leading_zeros();
    let part = value >> (power - BITS) & (PARTS - 1);
    (power - BITS + 1) as usize * PARTS as usize + part as usize
}

/// The largest value of a bucket.
const fn last(bucket: usize) -> u64 {
    let (row, part) = (bucket as u64 / PARTS, bucket as u64 % PARTS);
    if row == 0 {
        return part;
    }
    let width = 1 << (row - 1);
    ((PARTS + part) * width).wrapping_add(width - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_in_the_bucket_that_ends_with_it_or_after_it() {
        for value in (0..5000).chain([u64::MAX, u64::MAX - 1, 1 << 63, (1 << 40) + 12345]) {
            let bucket = bucket(value);
            assert!(bucket < BUCKETS, "{value}");
            let end = last(bucket);
            assert!(end >= value && end - value <= value / PARTS, "{value}");
            assert!(bucket == 0 || last(bucket - 1) < value, "{value}");
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn percentiles_are_those_of_what_was_added() {
        let latencies = Latencies::new();
        assert_eq!((latencies.percentile(99), latencies.least()), (0, 0));
        for time in 1..=1000 {
            latencies.note(time * 1000);
        }
        assert_eq!((latencies.number(), latencies.mean()), (1000, 500_500));
        assert_eq!((latencies.least(), latencies.most()), (1000, 1_000_000));
        for (percent, exact) in [(50, 500_000), (99, 990_000)] {
            let told = latencies.percentile(percent);
            assert!((exact..=exact + exact / PARTS).contains(&told), "{told}");
        }
        assert_eq!(latencies.percentile(100), 1_000_000);
        latencies.clear();
        latencies.note(7);
        assert_eq!((latencies.number(), latencies.percentile(99)), (1, 7));
    }
}
