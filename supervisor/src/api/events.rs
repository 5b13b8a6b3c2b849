//! The log of events: numbered, kept for a while, read by every subscriber at its own pace.
//!
//! The ring is the only queue there is: a subscriber has a place in it and nothing of its own, so
//! that one which does not read costs nothing and loses the oldest.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use reeve_ipc::api::call::Subscribed;
use reeve_ipc::api::event::{
    Cursor, DomainEvent, Event, EventKind, NetworkEvent, NetworkEventKind, PoolEvent, PoolEventKind,
};
use reeve_ipc::model::{DomainName, DomainUuid, NetworkName, NetworkUuid, PoolName, PoolUuid};
use tokio::sync::watch;

use crate::domain::world::{EventSink, now_ms};

/// Events that are kept.
pub const KEPT: usize = 4096;

/// Every event of this process.
#[derive(Debug)]
pub struct EventLog {
    epoch: u64,
    kept: Mutex<VecDeque<Event>>,
    /// The number of the last event; 0 before the first.
    last: watch::Sender<u64>,
}

impl EventLog {
    /// An empty log with an epoch of its own.
    #[must_use]
    pub fn new(epoch: u64) -> Self {
        Self {
            epoch,
            kept: Mutex::new(VecDeque::new()),
            last: watch::channel(0).0,
        }
    }

    fn kept(&self) -> MutexGuard<'_, VecDeque<Event>> {
        // Nothing panics while it is held.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a subscription behind `after`, or now.
    #[must_use]
    pub fn subscribe(&self, after: Option<Cursor>) -> (Subscribed, watch::Receiver<u64>) {
        let kept = self.kept();
        let last = *self.last.borrow();
        let first_kept = last - kept.len() as u64 + 1;
        let (number, lost) = match after {
            None => (last, false),
            Some(cursor) if cursor.epoch != self.epoch || cursor.number > last => (last, true),
            Some(cursor) => {
                let oldest = first_kept.saturating_sub(1);
                (cursor.number.max(oldest), cursor.number < oldest)
            }
        };
        let subscribed = Subscribed {
            cursor: Cursor {
                epoch: self.epoch,
                number,
            },
            lost,
        };
        (subscribed, self.last.subscribe())
    }

    /// The first event behind `number` that is kept.
    #[must_use]
    pub fn next(&self, number: u64) -> Option<(Cursor, Event)> {
        let kept = self.kept();
        let last = *self.last.borrow();
        let first_kept = last - kept.len() as u64 + 1;
        let number = (number + 1).max(first_kept);
        let index = usize::try_from(number - first_kept).ok()?;
        let event = kept.get(index)?.clone();
        let cursor = Cursor {
            epoch: self.epoch,
            number,
        };
        Some((cursor, event))
    }
}

impl EventSink for EventLog {
    fn domain_event(&self, uuid: DomainUuid, name: &DomainName, kind: EventKind) {
        self.push(Event::Domain(DomainEvent {
            time_ms: now_ms(),
            uuid,
            name: name.clone(),
            kind,
        }));
    }
}

impl EventLog {
    /// Something happened to a storage pool.
    pub fn pool_event(&self, uuid: PoolUuid, name: &PoolName, kind: PoolEventKind) {
        self.push(Event::Pool(PoolEvent {
            time_ms: now_ms(),
            uuid,
            name: name.clone(),
            kind,
        }));
    }

    /// Something happened to a virtual network.
    pub fn network_event(&self, uuid: NetworkUuid, name: &NetworkName, kind: NetworkEventKind) {
        self.push(Event::Network(NetworkEvent {
            time_ms: now_ms(),
            uuid,
            name: name.clone(),
            kind,
        }));
    }

    fn push(&self, event: Event) {
        let mut kept = self.kept();
        if kept.len() >= KEPT {
            kept.pop_front();
        }
        kept.push_back(event);
        // With the lock held: whoever is woken finds the event.
        self.last.send_modify(|last| *last += 1);
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn log(events: u64) -> EventLog {
        let log = EventLog::new(7);
        for _ in 0..events {
            let name = "web".parse().unwrap();
            log.domain_event(DomainUuid(Uuid::nil()), &name, EventKind::Undefined);
        }
        log
    }

    fn cursor(number: u64) -> Cursor {
        Cursor { epoch: 7, number }
    }

    fn numbers(log: &EventLog, mut number: u64) -> Vec<u64> {
        let next = || {
            let (cursor, _) = log.next(number)?;
            number = cursor.number;
            Some(number)
        };
        std::iter::from_fn(next).collect()
    }

    #[test]
    fn a_subscriber_goes_on_where_it_was() {
        let log = log(5);
        let (subscribed, _) = log.subscribe(Some(cursor(3)));
        assert_eq!((subscribed.cursor, subscribed.lost), (cursor(3), false));
        assert_eq!(numbers(&log, 3), [4, 5]);
        let (subscribed, _) = log.subscribe(None);
        assert_eq!(subscribed.cursor, cursor(5));
        assert!(numbers(&log, 5).is_empty());
        let (subscribed, _) = log.subscribe(Some(cursor(0)));
        assert!(!subscribed.lost);
        assert_eq!(numbers(&log, 0), [1, 2, 3, 4, 5]);
    }

    #[test]
    fn one_that_was_away_too_long_is_told() {
        let many = KEPT as u64 + 10;
        let log = log(many);
        let (subscribed, _) = log.subscribe(Some(cursor(3)));
        assert_eq!((subscribed.cursor, subscribed.lost), (cursor(10), true));
        assert_eq!(numbers(&log, 3).len(), KEPT);
        assert_eq!(numbers(&log, 3).first(), Some(&11), "the gap shows");
    }

    #[test]
    fn a_cursor_of_another_supervisor_means_nothing_here() {
        let log = log(5);
        let other = Cursor {
            epoch: 8,
            number: 3,
        };
        let (subscribed, _) = log.subscribe(Some(other));
        assert_eq!((subscribed.cursor, subscribed.lost), (cursor(5), true));
        let (subscribed, _) = log.subscribe(Some(cursor(6)));
        assert!(subscribed.lost, "from the future");
    }
}
