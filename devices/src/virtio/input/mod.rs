//! Input devices (virtio 1.3 §5.8): a keyboard, and a tablet that says where the pointer is.
//!
//! ```text
//!  whoever has a person's input ──► InputEvents: bounded, in order ──► eventq ──► the guest
//!                                                           statusq ◄── lights of the keyboard: dropped
//! ```
//! Events that come while no driver runs are dropped: nobody wants to have typed an hour ago. Those that wait for the
//! driver's buffers are bounded; then what is new is dropped, but no release of a key that is down.

mod config;
mod events;
#[cfg(test)]
mod tests;
mod worker;

use std::sync::Arc;

pub use self::events::{InputEvents, MAX_POSITION, PointerEvent};
use self::worker::InputWorker;
use super::{
    DeviceId, QueueWorker, Start, StartError, VirtioDevice, read_config_space, take_queue,
};
use crate::state::{StateError, StateReader, StateWriter, check};

/// Queues by number: events, and what the driver says of lights.
const EVENTS: u16 = 0;
const STATUS: u16 = 1;
const QUEUE_SIZES: &[u16] = &[64, 64];

/// What it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InputKind {
    /// A keyboard.
    Keyboard,
    /// A tablet with three buttons and two wheels.
    Tablet,
}

/// The front half.
#[derive(Debug)]
pub struct Input {
    kind: InputKind,
    /// What the driver asks for in the configuration space (§5.8.5).
    select: u8,
    subselect: u8,
    events: Arc<InputEvents>,
}

impl Input {
    /// A device of that kind, which gives its driver what is put into `events`.
    #[must_use]
    pub fn new(kind: InputKind, events: Arc<InputEvents>) -> Self {
        Self {
            kind,
            select: 0,
            subselect: 0,
            events,
        }
    }
}

impl VirtioDevice for Input {
    fn id(&self) -> DeviceId {
        DeviceId::Input
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> &[u16] {
        QUEUE_SIZES
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let answer = config::answer(self.kind, self.select, self.subselect);
        let size = u8::try_from(answer.len()).unwrap_or(0);
        let mut space = vec![self.select, self.subselect, size, 0, 0, 0, 0, 0];
        space.extend(answer);
        read_config_space(&space, offset, data);
    }

    fn write_config(&mut self, offset: u64, data: &[u8]) {
        for (place, byte) in (offset..).zip(data) {
            match place {
                0 => self.select = *byte,
                1 => self.subselect = *byte,
                _ => {}
            }
        }
    }

    fn start(&mut self, mut start: Start) -> Result<Vec<Box<dyn QueueWorker>>, StartError> {
        let events = take_queue(&mut start.queues, EVENTS)?;
        let status = take_queue(&mut start.queues, STATUS)?;
        let source = Arc::clone(&self.events);
        source.open();
        Ok(vec![Box::new(InputWorker::new(events, status, source))])
    }

    fn reset(&mut self) {
        self.select = 0;
        self.subselect = 0;
        self.events.close();
    }

    fn save(&self) -> Vec<u8> {
        StateWriter::new()
            .u8(self.select)
            .u8(self.subselect)
            .finish()
    }

    fn restore(&mut self, version: u32, bytes: &[u8]) -> Result<(), StateError> {
        check(version == 1, "device")?;
        let mut reader = StateReader::new(bytes);
        let (select, subselect) = (reader.u8()?, reader.u8()?);
        reader.finish()?;
        self.select = select;
        self.subselect = subselect;
        Ok(())
    }
}
