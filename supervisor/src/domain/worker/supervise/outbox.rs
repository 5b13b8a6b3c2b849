//! Notices that wait for an actor that is busy: in order, and never more than a few.

use std::collections::VecDeque;

use crate::domain::driver::Notice;

/// The most notices that wait. The actor takes them at once; as many only come from a worker that
/// makes them up.
const MAX_WAITING: usize = 64;

/// A queue in which resets that follow each other are one.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    notices: VecDeque<Notice>,
}

impl Outbox {
    /// Puts a notice behind the others; false where there are too many, and it is left out. A last
    /// notice always fits.
    pub(super) fn push(&mut self, notice: Notice) -> bool {
        if let (Some(Notice::Reset(before)), Notice::Reset(count)) =
            (self.notices.back_mut(), &notice)
        {
            *before = *count;
            return true;
        }
        let fits = self.notices.len() < MAX_WAITING || matches!(notice, Notice::Gone(_));
        if fits {
            self.notices.push_back(notice);
        }
        fits
    }

    pub(super) fn pop(&mut self) -> Option<Notice> {
        self.notices.pop_front()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.notices.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::driver::{GuestEnd, Verdict};

    #[test]
    fn resets_that_follow_each_other_are_one() {
        let mut outbox = Outbox::default();
        for count in 1..1000 {
            assert!(outbox.push(Notice::Reset(count)));
        }
        assert_eq!(outbox.pop(), Some(Notice::Reset(999)));
        assert!(outbox.is_empty());
    }

    #[test]
    fn a_flood_is_cut_and_the_last_notice_is_not() {
        let mut outbox = Outbox::default();
        let end = || Notice::GuestEnded(GuestEnd::PoweredOff);
        let taken = (0..1000).filter(|_| outbox.push(end())).count();
        assert_eq!(taken, MAX_WAITING);
        assert!(outbox.push(Notice::Gone(Verdict::Asked)));
    }
}
