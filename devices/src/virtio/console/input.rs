//! Input of a port that stands on a console ring: bounded, offered by another thread.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use crate::event::Event;
use crate::shared::{Wake, lock};

/// Bytes held until the guest has buffers for them.
const CAPACITY: usize = 4096;

/// Input on its way to a port. Any thread may offer some.
#[derive(Debug)]
pub struct PortInput {
    pending: Mutex<Pending>,
    /// Tells the device's thread.
    offered: Arc<Event>,
    room: Arc<dyn Wake>,
}

#[derive(Debug)]
struct Pending {
    bytes: VecDeque<u8>,
    /// Some was refused: whoever offered it waits for room.
    refused: bool,
}

impl PortInput {
    pub(super) fn new(offered: Arc<Event>, room: Arc<dyn Wake>) -> Self {
        let pending = Pending {
            bytes: VecDeque::new(),
            refused: false,
        };
        Self {
            pending: Mutex::new(pending),
            offered,
            room,
        }
    }

    /// Offers input; gives how many bytes of it were taken. If that is less than all, the wake that
    /// this was made with says when to offer the rest.
    pub fn enqueue(&self, bytes: &[u8]) -> usize {
        let mut pending = lock(&self.pending);
        let room = CAPACITY.saturating_sub(pending.bytes.len());
        let taken = bytes.get(..room).unwrap_or(bytes);
        pending.bytes.extend(taken);
        pending.refused |= taken.len() < bytes.len();
        drop(pending);
        if !taken.is_empty() {
            self.offered.signal();
        }
        taken.len()
    }

    /// Moves input into `buffer`; gives how many bytes.
    pub(super) fn take(&self, buffer: &mut [u8]) -> usize {
        let mut pending = lock(&self.pending);
        let len = pending.bytes.len().min(buffer.len());
        for (slot, byte) in buffer.iter_mut().zip(pending.bytes.drain(..len)) {
            *slot = byte;
        }
        let room = pending.bytes.is_empty() && std::mem::take(&mut pending.refused);
        drop(pending);
        if room {
            self.room.wake();
        }
        len
    }
}
