//! Whether it is worth staying awake for what comes next.
//!
//! To sleep and be woken on an idle processor takes longer than the supervisor takes for most answers: of a look-up's
//! time nearly all is four such wake-ups, two of them of the gateway. So a wait that is likely to be short begins
//! awake, for [`AWAKE`] at most, as a hypervisor's own halt polling does. What is likely is learned from the wait
//! before it: a client that asks now and then is slept for, as is a supervisor that takes its time.
//!
//! While awake, other processes have their turn first: on a host with one processor whom one waits for runs at once.

use std::time::{Duration, Instant};

/// How long one stays awake.
const AWAKE: Duration = Duration::from_micros(50);
/// A wait as short as that, its wake-up included, is one to stay awake for the next time.
const SHORT: Duration = Duration::from_micros(120);

/// Waits of one kind.
#[derive(Debug)]
struct Waits {
    since: Option<Instant>,
    short: bool,
}

impl Waits {
    const fn new(short: bool) -> Self {
        Self { since: None, short }
    }

    fn begin(&mut self, now: Instant) {
        self.since.get_or_insert(now);
    }

    /// What was waited for has come.
    fn end(&mut self, now: Instant) {
        if let Some(since) = self.since.take() {
            self.short = now.saturating_duration_since(since) <= SHORT;
        }
    }

    fn awake_at(&self, now: Instant) -> bool {
        let waited = |since: Instant| now.saturating_duration_since(since);
        self.short && self.since.is_some_and(|since| waited(since) < AWAKE)
    }
}

/// The waits of a connection: for the answer to the only call under way, and for the next call where there is none.
/// With several calls there is something to do meanwhile.
#[derive(Debug)]
pub(super) struct Pace {
    answer: Waits,
    call: Waits,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            answer: Waits::new(true),
            call: Waits::new(false),
        }
    }
}

impl Pace {
    /// There is nothing to do with so many calls under way; whether to stay awake.
    pub(super) fn waits(&mut self, calls: usize, now: Instant) -> bool {
        match calls {
            0 => {
                self.answer.since = None;
                self.call.begin(now);
            }
            1 => self.answer.begin(now),
            _ => self.answer.since = None,
        }
        self.answer.awake_at(now) || self.call.awake_at(now)
    }

    /// An answer has come.
    pub(super) fn answered(&mut self, now: Instant) {
        self.answer.end(now);
    }

    /// The client has said something.
    pub(super) fn called(&mut self, now: Instant) {
        self.call.end(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MICROSECOND: Duration = Duration::from_micros(1);

    #[test]
    fn an_answer_is_stayed_awake_for_as_long_as_answers_are_quick() {
        let mut pace = Pace::default();
        let start = Instant::now();
        assert!(pace.waits(1, start));
        assert!(pace.waits(1, start + 49 * MICROSECOND));
        assert!(!pace.waits(1, start + 50 * MICROSECOND));
        pace.answered(start + 500 * MICROSECOND);
        let start = start + 600 * MICROSECOND;
        assert!(!pace.waits(1, start), "the last one was slow");
        pace.answered(start + 100 * MICROSECOND);
        let start = start + 200 * MICROSECOND;
        assert!(pace.waits(1, start), "and that was not");
    }

    #[test]
    fn a_client_that_asks_again_at_once_is_stayed_awake_for() {
        let mut pace = Pace::default();
        let start = Instant::now();
        assert!(!pace.waits(0, start));
        pace.called(start + 80 * MICROSECOND);
        let start = start + 300 * MICROSECOND;
        assert!(pace.waits(0, start));
        assert!(!pace.waits(0, start + 51 * MICROSECOND));
        pace.called(start + Duration::from_secs(1));
        assert!(!pace.waits(0, start + Duration::from_secs(2)));
    }

    #[test]
    fn nobody_stays_awake_for_one_of_several_calls() {
        let mut pace = Pace::default();
        let start = Instant::now();
        assert!(pace.waits(1, start));
        assert!(!pace.waits(2, start + MICROSECOND));
        pace.answered(start + 2 * MICROSECOND);
        assert!(pace.waits(1, start + 3 * MICROSECOND));
    }
}
