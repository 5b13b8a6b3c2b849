//! Notices that wait for an actor that is busy: in order, and never more than a few.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

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
    /// notice always fits. What is told already is not told twice: of a device that is gone, of the guest's
    /// memory and of the vCPUs.
    pub(super) fn push(&mut self, notice: Notice) -> bool {
        if matches!(notice, Notice::DeviceRemoved(_) | Notice::Lost)
            && self.notices.contains(&notice)
        {
            return true;
        }
        if matches!(notice, Notice::Devices(..)) {
            // Of two answers only the newer is waited for.
            self.notices
                .retain(|waiting| !matches!(waiting, Notice::Devices(..)));
        }
        if let (Some(Notice::Memory(before)), Notice::Memory(guest)) =
            (self.notices.back_mut(), &notice)
        {
            *before = *guest;
            return true;
        }
        if let (Some(before @ Notice::Ports(..)), Notice::Ports(..)) =
            (self.notices.back_mut(), &notice)
        {
            *before = notice;
            return true;
        }
        if let (Some(Notice::Vcpus(before)), Notice::Vcpus(standing)) =
            (self.notices.back_mut(), &notice)
        {
            *before = *standing;
            return true;
        }
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

/// How often a change of the guest's memory is told, at most: a guest changes it as fast as it likes.
pub(super) const MEMORY_NEWS: Duration = Duration::from_millis(200);
/// How often a change of which ports the guest has open is told, at most: it is told of each.
pub(super) const PORT_NEWS: Duration = Duration::from_secs(1);
/// How often it is told that something was lost, at most: it has the worker asked.
const LOST_NEWS: Duration = Duration::from_secs(1);

/// What a guest changes as fast as it likes: the newest, told at once where it has not been told of late.
#[derive(Debug)]
pub(super) struct Newest<T> {
    news: Option<T>,
    told: Option<Instant>,
    /// How often it is told, at most.
    pace: Duration,
}

impl<T> Newest<T> {
    pub(super) const fn paced(pace: Duration) -> Self {
        Self {
            news: None,
            told: None,
            pace,
        }
    }

    pub(super) fn changed(&mut self, news: T) {
        self.news = Some(news);
    }

    /// When there is something to be told.
    pub(super) fn due(&self) -> Option<Instant> {
        self.news.as_ref()?;
        Some(self.told.map_or_else(Instant::now, |told| told + self.pace))
    }

    /// What is to be told now.
    pub(super) fn take(&mut self) -> Option<T> {
        self.told = Some(Instant::now());
        self.news.take()
    }
}

/// That something was lost, told now and then: a guest that resets without end has that said of it too.
#[derive(Debug, Default)]
pub(super) struct LostNews {
    happened: bool,
    told: Option<Instant>,
}

impl LostNews {
    pub(super) fn happened(&mut self) {
        self.happened = true;
    }

    /// When it is to be told.
    pub(super) fn due(&self) -> Option<Instant> {
        let next = self.told.map_or_else(Instant::now, |told| told + LOST_NEWS);
        self.happened.then_some(next)
    }

    /// It is told now.
    pub(super) fn take(&mut self) {
        self.told = Some(Instant::now());
        self.happened = false;
    }
}

#[cfg(test)]
mod tests {
    use reeve_ipc::model::DevicePlace;
    use reeve_ipc::spec::PciSlot;
    use reeve_ipc::vcpus::VcpuStanding;

    use super::*;
    use crate::domain::driver::{GuestEnd, GuestMemory, Verdict};

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
    fn of_vcpus_that_change_all_the_time_the_newest_is_told() {
        let mut outbox = Outbox::default();
        let standing = |vcpus: u32| VcpuStanding {
            present: (0..vcpus).collect(),
            ..VcpuStanding::default()
        };
        for vcpus in 1..1000 {
            assert!(outbox.push(Notice::Vcpus(standing(vcpus))));
        }
        assert_eq!(outbox.pop(), Some(Notice::Vcpus(standing(999))));
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

    #[test]
    fn a_device_that_is_gone_is_told_once_however_often_it_is_said() {
        let mut outbox = Outbox::default();
        for _ in 0..1000 {
            for number in 1..=31 {
                let slot: PciSlot = number.try_into().unwrap();
                assert!(outbox.push(Notice::DeviceRemoved(DevicePlace::from(slot))));
            }
        }
        let told = std::iter::from_fn(|| outbox.pop()).count();
        assert_eq!(told, 31);
    }

    #[test]
    fn memory_that_changes_all_the_time_is_told_now_and_then() {
        let guest = |lent| GuestMemory { lent, plugged: 7 };
        let mut news = Newest::paced(MEMORY_NEWS);
        assert_eq!(news.due(), None);
        news.changed(guest(1));
        assert!(news.due().is_some_and(|due| due <= Instant::now()));
        assert_eq!(news.take(), Some(guest(1)));
        for bytes in 2..1000 {
            news.changed(guest(bytes));
        }
        assert!(news.due().is_some_and(|due| due > Instant::now()));
        assert_eq!(news.take(), Some(guest(999)));
        assert_eq!(news.due(), None);
    }
}
