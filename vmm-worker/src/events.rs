//! What the worker says to its supervisor: numbered events and replies, in one place.
//!
//! A guest can cause events as fast as it can reset, so those of one second beyond
//! `PER_SECOND` are not sent; their numbers are used up, which shows the gap.

use std::time::Instant;

use reeve_ipc::endpoint::{Delivery, Endpoint, EndpointError};
use reeve_ipc::event::Event;
use reeve_ipc::message::{FromWorker, ToWorker};

/// The control socket's end in the worker.
pub type Control = Endpoint<FromWorker, ToWorker>;

/// Events sent in one second; the supervisor allows four times as many.
const PER_SECOND: u32 = 64;

/// Numbers and sends events.
#[derive(Debug)]
pub struct Events {
    last: u64,
    second: Instant,
    sent: u32,
}

impl Events {
    /// None sent yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            last: 0,
            second: Instant::now(),
            sent: 0,
        }
    }

    /// The number of the last event.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.last
    }

    /// Sends `event`, or uses up its number where that would be too many.
    ///
    /// # Errors
    /// The socket failed.
    pub fn send(&mut self, control: &mut Control, event: Event) -> Result<(), EndpointError> {
        self.last += 1;
        if self.second.elapsed().as_secs() > 0 {
            self.second = Instant::now();
            self.sent = 0;
        }
        if self.sent >= PER_SECOND {
            return Ok(());
        }
        self.sent += 1;
        control.send(
            &FromWorker::Event {
                number: self.last,
                event,
            },
            Delivery::Droppable,
        )
    }
}

impl Default for Events {
    fn default() -> Self {
        Self::new()
    }
}
