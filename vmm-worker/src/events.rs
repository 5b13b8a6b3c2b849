//! What the worker says to its supervisor: numbered events and replies, in one place.
//!
//! The last ones are kept for a supervisor that comes back. A guest can reset as fast as it likes, so
//! resets of one second beyond `PER_SECOND` are not told; their numbers are used up, which shows the
//! gap. Which vCPUs there are is told a few times a second and as often as they change, which the supervisor
//! brings about. What a balloon holds is told a few times a second, and again when it changes: it may be dropped, as
//! may which ports are open, and that a watchdog expired or a crash kernel starts, at most once a second each. Of everything else there is at most one for each device until the supervisor acts: that is always told.

use std::collections::VecDeque;
use std::time::Instant;

use reeve_ipc::endpoint::{Delivery, Endpoint, EndpointError};
use reeve_ipc::event::{Event, NumberedEvent};
use reeve_ipc::message::{FromWorker, ToWorker};
use reeve_ipc::request::MAX_KEPT_EVENTS;

/// The control socket's end in the worker.
pub type Control = Endpoint<FromWorker, ToWorker>;

/// Resets told in one second; the supervisor allows four times as many.
const PER_SECOND: u32 = 64;

/// Numbers, keeps and sends events.
#[derive(Debug)]
pub struct Events {
    last: u64,
    /// The last that was sent.
    told: u64,
    kept: VecDeque<NumberedEvent>,
    second: Instant,
    sent: u32,
}

impl Events {
    /// None sent yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            last: 0,
            told: 0,
            kept: VecDeque::new(),
            second: Instant::now(),
            sent: 0,
        }
    }

    /// The number of the last event.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.last
    }

    /// The number of the last event that was sent to a supervisor, whatever it made of it.
    #[must_use]
    pub fn told(&self) -> u64 {
        self.told
    }

    /// All of them are told: they are in a report.
    pub fn all_told(&mut self) {
        self.told = self.last;
    }

    /// Those behind `number` that are kept.
    #[must_use]
    pub fn after(&self, number: u64) -> Vec<NumberedEvent> {
        let newer = |event: &&NumberedEvent| event.number > number;
        self.kept.iter().filter(newer).cloned().collect()
    }

    /// Numbers `event` and keeps it, in place of the oldest of those that a guest brings about again and again;
    /// where there is none of them, of the oldest of all, unless it is such a one itself.
    pub fn keep(&mut self, event: Event) {
        self.last += 1;
        if matches!(
            event,
            Event::BalloonChanged { .. } | Event::VcpusChanged(_) | Event::PortsChanged { .. }
        ) {
            // Only the newest counts, and none may push out what happens once.
            let kind = std::mem::discriminant(&event);
            self.kept
                .retain(|kept| std::mem::discriminant(&kept.event) != kind);
        }
        if self.kept.len() >= MAX_KEPT_EVENTS {
            let mut kept = self.kept.iter();
            match kept.position(|kept| may_come_again(&kept.event)) {
                Some(again) => drop(self.kept.remove(again)),
                // It takes no place of what happens once, and it will be so again.
                None if may_come_again(&event) => return,
                None => drop(self.kept.pop_front()),
            }
        }
        self.kept.push_back(NumberedEvent {
            number: self.last,
            event,
        });
    }

    /// Keeps `event` and sends it, unless it is one reset too many.
    ///
    /// # Errors
    /// The socket failed.
    pub fn send(&mut self, control: &mut Control, event: Event) -> Result<(), EndpointError> {
        self.keep(event.clone());
        let delivery = match event {
            Event::GuestReset { .. } if !self.may_tell_reset() => return Ok(()),
            ref event if may_come_again(event) => Delivery::Droppable,
            _ => Delivery::Reliable,
        };
        let number = self.last;
        control.send(&FromWorker::Event { number, event }, delivery)?;
        self.told = number;
        Ok(())
    }

    fn may_tell_reset(&mut self) -> bool {
        if self.second.elapsed().as_secs() > 0 {
            self.second = Instant::now();
            self.sent = 0;
        }
        self.sent = self.sent.saturating_add(1);
        self.sent <= PER_SECOND
    }
}

/// Whether a guest can bring it about again and again: it takes no place from what happens once.
const fn may_come_again(event: &Event) -> bool {
    matches!(
        event,
        Event::GuestReset { .. }
            | Event::BalloonChanged { .. }
            | Event::PortsChanged { .. }
            | Event::GuestCrashKernel
            | Event::WatchdogExpired { .. }
    )
}

impl Default for Events {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use reeve_ipc::phase::Phase;
    use reeve_ipc::scm;

    use super::*;

    #[test]
    fn what_happens_while_nobody_listens_was_not_told() {
        let (ours, theirs) = scm::pair().unwrap();
        let mut control = Control::new(ours);
        let mut events = Events::new();
        events.send(&mut control, Event::GuestPoweredOff).unwrap();
        events.keep(Event::GuestCrashKernel);
        assert_eq!((events.told(), events.last()), (1, 2));
        events.all_told();
        assert_eq!(events.told(), 2);
        drop(theirs);
        assert!(events.send(&mut control, Event::GuestPoweredOff).is_err());
        assert_eq!((events.told(), events.last()), (2, 3));
    }

    #[test]
    fn what_happens_once_is_kept_behind_any_number_of_resets() {
        let mut events = Events::new();
        events.keep(Event::PhaseChanged(Phase::Paused));
        for count in 1..=1000 {
            events.keep(Event::GuestReset { count });
        }
        events.keep(Event::GuestPoweredOff);
        let kept = events.after(0);
        assert_eq!(kept.len(), MAX_KEPT_EVENTS);
        assert_eq!(kept[0].event, Event::PhaseChanged(Phase::Paused));
        let last = &kept[MAX_KEPT_EVENTS - 2..];
        assert_eq!(last[0].event, Event::GuestReset { count: 1000 });
        assert_eq!(
            (last[1].number, &last[1].event),
            (1002, &Event::GuestPoweredOff)
        );
        assert!(kept.is_sorted_by_key(|event| event.number));
        // Where all happen once the oldest goes, and none for a reset.
        for _ in 0..MAX_KEPT_EVENTS {
            events.keep(Event::GuestPoweredOff);
        }
        events.keep(Event::GuestReset { count: 1001 });
        let kept = events.after(0);
        assert_eq!(kept.len(), MAX_KEPT_EVENTS);
        let once = |kept: &NumberedEvent| kept.event == Event::GuestPoweredOff;
        assert!(kept.iter().all(|kept| kept.number > 1002 && once(kept)));
    }

    #[test]
    fn an_end_is_told_behind_any_number_of_resets() {
        let (ours, theirs) = scm::pair().unwrap();
        let mut control = Control::new(ours);
        let mut supervisor = Endpoint::<ToWorker, FromWorker>::new(theirs);
        let mut events = Events::new();
        let mut told = Vec::new();
        for count in 1..=1000 {
            let reset = Event::GuestReset { count };
            events.send(&mut control, reset).unwrap();
        }
        events.send(&mut control, Event::GuestPoweredOff).unwrap();
        let off = Event::PhaseChanged(Phase::Off);
        events.send(&mut control, off.clone()).unwrap();
        while let Some((message, _)) = supervisor.receive().unwrap() {
            if let FromWorker::Event { number, event } = message {
                told.push((number, event));
            }
            control.flush().unwrap();
        }
        // The clock may have gone into another second meanwhile.
        let resets = told.len() - 2;
        assert!((64..=128).contains(&resets), "{resets} resets");
        assert_eq!(told[resets], (1001, Event::GuestPoweredOff));
        assert_eq!(told[resets + 1], (1002, off));
        assert!(told.iter().zip(told.iter().skip(1)).all(|(a, b)| a.0 < b.0));
    }
}
