//! Lines that somebody else may cause as often as he likes: a few in a while, and how many were not logged.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// So many lines ...
const LINES: u32 = 10;
/// ... in such a time.
const WHILE: Duration = Duration::from_secs(10);

/// The lines of one kind.
#[derive(Debug, Default)]
pub(crate) struct Seldom {
    counted: Mutex<Counted>,
}

#[derive(Debug, Default)]
struct Counted {
    since: Option<Instant>,
    lines: u32,
    left_out: u64,
}

impl Seldom {
    /// Whether a line is logged: then with how many before it were not.
    pub(crate) fn may(&self) -> Option<u64> {
        self.may_at(Instant::now())
    }

    fn may_at(&self, now: Instant) -> Option<u64> {
        // Nothing panics while it is held.
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        let is_over = |since| now.saturating_duration_since(since) >= WHILE;
        if counted.since.is_none_or(is_over) {
            counted.since = Some(now);
            counted.lines = 0;
        }
        if counted.lines >= LINES {
            counted.left_out = counted.left_out.saturating_add(1);
            return None;
        }
        counted.lines += 1;
        Some(std::mem::take(&mut counted.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_a_few_lines_and_a_count() {
        let seldom = Seldom::default();
        let begin = Instant::now();
        let flood = |at| {
            (0..1000)
                .filter_map(|_| seldom.may_at(at))
                .collect::<Vec<_>>()
        };
        assert_eq!(flood(begin), [0; 10]);
        assert!(flood(begin + WHILE - Duration::from_millis(1)).is_empty());
        let next = flood(begin + WHILE);
        assert_eq!((next.len(), next[0], next[1]), (10, 1990, 0));
    }
}
