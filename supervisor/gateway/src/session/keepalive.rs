//! When to ask a silent client whether it is still there (libvirt's keepalive program). Pure.
//!
//! A client is asked only once it has said that it would answer, by asking for the feature; others do not know
//! how. Whatever it sends is a sign of life.

use std::time::{Duration, Instant};

/// Silence after which a client is asked, and after which it is asked again.
pub(super) const INTERVAL: Duration = Duration::from_secs(5);
/// Questions without any answer, after which it is given up.
pub(super) const MISSES: u32 = 5;

/// What is to be done now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// Ask.
    Ping,
    /// It is gone.
    Dead,
}

/// How long a client has been silent.
#[derive(Debug)]
pub(super) struct Keepalive {
    armed: bool,
    missed: u32,
    next: Instant,
}

impl Keepalive {
    /// A client that has just connected, and is not asked yet.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            armed: false,
            missed: 0,
            next: now + INTERVAL,
        }
    }

    /// From now on it is asked.
    pub(super) fn arm(&mut self, now: Instant) {
        self.armed = true;
        self.heard(now);
    }

    /// It sent something, or nobody listens to it just now.
    pub(super) fn heard(&mut self, now: Instant) {
        self.missed = 0;
        self.next = now + INTERVAL;
    }

    /// When [`Self::due`] is to be called, if ever.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.armed.then_some(self.next)
    }

    /// What is to be done, if anything.
    pub(super) fn due(&mut self, now: Instant) -> Option<Due> {
        if !self.armed || now < self.next {
            return None;
        }
        if self.missed >= MISSES {
            return Some(Due::Dead);
        }
        self.missed += 1;
        self.next = now + INTERVAL;
        Some(Due::Ping)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_never_asked_for_it_is_never_asked() {
        let start = Instant::now();
        let mut keepalive = Keepalive::new(start);
        assert_eq!(keepalive.deadline(), None);
        assert_eq!(keepalive.due(start + Duration::from_secs(3600)), None);
    }

    #[test]
    fn silence_is_asked_about_five_times_and_then_is_the_end() {
        let start = Instant::now();
        let mut keepalive = Keepalive::new(start);
        keepalive.arm(start);
        let mut pings = 0;
        for second in 0..30 {
            match keepalive.due(start + Duration::from_secs(second)) {
                Some(Due::Ping) => pings += 1,
                Some(Due::Dead) => panic!("given up after {second} s"),
                None => {}
            }
        }
        assert_eq!(pings, 5);
        assert_eq!(keepalive.due(start + INTERVAL * 6), Some(Due::Dead));
    }

    #[test]
    fn any_message_is_a_sign_of_life() {
        let start = Instant::now();
        let mut keepalive = Keepalive::new(start);
        keepalive.arm(start);
        for round in 1..20 {
            let now = start + INTERVAL * round;
            assert_eq!(keepalive.due(now), Some(Due::Ping));
            keepalive.heard(now);
        }
    }
}
