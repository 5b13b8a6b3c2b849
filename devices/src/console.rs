//! The console ring: guest output on its way from vCPU threads to the I/O thread.
//!
//! ```text
//!  vCPU threads --push--> [ ring, bounded ] --read--> ConsoleReader (attached client)
//!  (never block)              |             --read--> ConsoleReader (log), ...
//!                             +-- wake, once per "all read" -> "something to read"
//! ```
//!
//! The guest is never held up and never makes memory grow: when the ring is full the oldest bytes
//! give way, and a reader that had not seen them is told how many it missed. Every reader has its
//! own absolute position (bytes since the machine started), so a client that attaches late gets
//! the backlog that still exists. Storage is reserved at the start and its pages are touched only
//! as output fills them. Pushing does not allocate.

use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use crate::shared::{Wake, lock};

#[cfg(test)]
mod tests;

/// Where a serial port or console device puts the guest's output.
pub trait ConsoleSink: Debug + Send + Sync {
    /// Takes all of `bytes` without blocking. Called on vCPU threads with the device lock held.
    fn push(&self, bytes: &[u8]);
}

/// The ring, shared by the writing devices and all readers.
#[derive(Debug)]
pub struct ConsoleRing {
    ring: Mutex<Ring>,
    capacity: usize,
    wake: Arc<dyn Wake>,
}

#[derive(Debug)]
struct Ring {
    /// Grows to the capacity, then byte `p` of all output lies at `p % capacity`.
    bytes: Vec<u8>,
    /// Absolute position after the newest byte.
    end: u64,
    /// A reader has been told that there is nothing more; it waits for the wake.
    armed: bool,
}

/// How much has passed through a ring.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ConsoleStats {
    /// Bytes the guest has written.
    pub written: u64,
    /// Bytes of those that the ring no longer holds, read or not.
    pub discarded: u64,
}

/// What a reader got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    /// Bytes placed at the front of the buffer. 0: the reader has caught up, a wake will follow.
    pub len: usize,
    /// Bytes that were lost to this reader just before those.
    pub skipped: u64,
}

impl ConsoleRing {
    /// Capacity for one guest console: some thousand lines.
    pub const DEFAULT_CAPACITY: usize = 64 * 1024;

    /// A ring of `capacity` bytes (at least 1). `wake` is called from vCPU threads, only for the
    /// first output after a reader had caught up: a flood does not cost a system call a byte.
    pub fn new(capacity: usize, wake: Arc<dyn Wake>) -> Self {
        let capacity = capacity.max(1);
        let ring = Ring {
            bytes: Vec::with_capacity(capacity),
            end: 0,
            armed: false,
        };
        Self {
            ring: Mutex::new(ring),
            capacity,
            wake,
        }
    }

    /// A reader that starts with the oldest output still held.
    pub fn reader(self: &Arc<Self>) -> ConsoleReader {
        let position = lock(&self.ring).start();
        ConsoleReader {
            ring: self.clone(),
            position,
        }
    }

    /// A reader that starts at the absolute `position`, or with the oldest output where that is not
    /// held any more; one beyond the end starts at the end.
    pub fn reader_from(self: &Arc<Self>, position: u64) -> ConsoleReader {
        let ring = lock(&self.ring);
        let position = position.clamp(ring.start(), ring.end);
        drop(ring);
        ConsoleReader {
            ring: self.clone(),
            position,
        }
    }

    /// A reader that sees only what the guest writes from now on.
    pub fn reader_from_now(self: &Arc<Self>) -> ConsoleReader {
        let position = lock(&self.ring).end;
        ConsoleReader {
            ring: self.clone(),
            position,
        }
    }

    /// Bytes the guest has written, and those of the last of them that are still held.
    pub fn held(&self) -> (u64, Vec<u8>) {
        let ring = lock(&self.ring);
        let at = Ring::index(ring.start(), self.capacity).min(ring.bytes.len());
        let (newer, older) = ring.bytes.split_at(at);
        (ring.end, [older, newer].concat())
    }

    /// Makes a ring into which nothing was written yet go on where another one of its capacity stood:
    /// `written` bytes in all, the last of which are `held`. What of them is missing reads as zeroes.
    pub fn go_on_from(&self, written: u64, held: &[u8]) {
        let mut ring = lock(&self.ring);
        if ring.end != 0 {
            return;
        }
        let length = usize::try_from(written).map_or(self.capacity, |n| n.min(self.capacity));
        ring.bytes.resize(length, 0);
        ring.end = written;
        let newest_first = (0..written).rev().zip(held.iter().rev()).take(length);
        for (position, byte) in newest_first {
            let at = Ring::index(position, self.capacity);
            if let Some(place) = ring.bytes.get_mut(at) {
                *place = *byte;
            }
        }
    }

    /// Counters since the ring was made.
    pub fn stats(&self) -> ConsoleStats {
        let ring = lock(&self.ring);
        ConsoleStats {
            written: ring.end,
            discarded: ring.start(),
        }
    }
}

impl ConsoleSink for ConsoleRing {
    fn push(&self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let wake = {
            let mut ring = lock(&self.ring);
            ring.append(bytes, self.capacity);
            std::mem::take(&mut ring.armed)
        };
        if wake {
            self.wake.wake();
        }
    }
}

impl Ring {
    /// Absolute position of the oldest byte held.
    fn start(&self) -> u64 {
        self.end - self.bytes.len() as u64
    }

    /// Index of absolute position `position`.
    fn index(position: u64, capacity: usize) -> usize {
        // The remainder is below `capacity`, which is a usize.
        usize::try_from(position % capacity as u64).unwrap_or(0)
    }

    fn append(&mut self, bytes: &[u8], capacity: usize) {
        // Of more than a ringful only the newest ringful can stay.
        let skipped = bytes.len().saturating_sub(capacity);
        let (gone, mut rest) = bytes.split_at(skipped);
        if !gone.is_empty() {
            // Fill what is not filled yet, so that index arithmetic holds; it is overwritten below.
            let missing = capacity - self.bytes.len();
            self.bytes.extend(gone.iter().chain(rest).take(missing));
            self.end = self.end.saturating_add(gone.len() as u64);
        }
        let room = (capacity - self.bytes.len()).min(rest.len());
        let (fresh, wrapped) = rest.split_at(room);
        self.bytes.extend_from_slice(fresh);
        self.end = self.end.saturating_add(fresh.len() as u64);
        rest = wrapped;
        while !rest.is_empty() {
            let at = Self::index(self.end, capacity);
            let run = rest.len().min(capacity - at);
            let (now, later) = rest.split_at(run);
            if let Some(target) = self.bytes.get_mut(at..at + run) {
                target.copy_from_slice(now);
            }
            self.end = self.end.saturating_add(run as u64);
            rest = later;
        }
    }
}

/// One reader of a ring, used by one thread.
///
/// Read until a chunk of length 0 comes; only then is the ring's wake armed for this reader.
#[derive(Debug)]
pub struct ConsoleReader {
    ring: Arc<ConsoleRing>,
    position: u64,
}

impl ConsoleReader {
    /// Moves output into `buffer` and past it.
    pub fn read(&mut self, buffer: &mut [u8]) -> Chunk {
        let chunk = self.peek(buffer);
        self.consume(chunk.len);
        chunk
    }

    /// Copies output into `buffer` without moving past it: for a client that may take only a part,
    /// which [`consume`](ConsoleReader::consume) then acknowledges. A loss is reported once.
    pub fn peek(&mut self, buffer: &mut [u8]) -> Chunk {
        let mut ring = lock(&self.ring.ring);
        let oldest = ring.start();
        let skipped = oldest.saturating_sub(self.position);
        self.position = self.position.max(oldest);
        let available = usize::try_from(ring.end - self.position).unwrap_or(usize::MAX);
        if available == 0 {
            ring.armed = true;
            return Chunk { len: 0, skipped };
        }
        let len = available.min(buffer.len());
        let at = Ring::index(self.position, self.ring.capacity);
        let (wrapped, direct) = ring.bytes.split_at(at.min(ring.bytes.len()));
        for (target, source) in buffer
            .iter_mut()
            .zip(direct.iter().chain(wrapped).take(len))
        {
            *target = *source;
        }
        Chunk { len, skipped }
    }

    /// Moves past `len` bytes that `peek` returned.
    pub fn consume(&mut self, len: usize) {
        let end = lock(&self.ring.ring).end;
        self.position = self.position.saturating_add(len as u64).min(end);
    }

    /// Absolute position of the next byte, counted from the machine's first output.
    pub fn position(&self) -> u64 {
        self.position
    }
}
