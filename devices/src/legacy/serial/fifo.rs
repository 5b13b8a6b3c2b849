//! The receive FIFO: 16 characters in place, no allocation.

/// A ring of at most [`ReceiveFifo::CAPACITY`] characters.
#[derive(Debug, Clone)]
pub(super) struct ReceiveFifo {
    bytes: [u8; Self::CAPACITY],
    /// Index of the oldest character; below the capacity.
    head: usize,
    len: usize,
}

impl ReceiveFifo {
    pub(super) const CAPACITY: usize = 16;

    pub(super) const fn new() -> Self {
        Self {
            bytes: [0; Self::CAPACITY],
            head: 0,
            len: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn clear(&mut self) {
        self.len = 0;
    }

    /// Appends a character; a full FIFO ignores it.
    pub(super) fn push(&mut self, byte: u8) {
        if self.len == Self::CAPACITY {
            return;
        }
        let tail = (self.head + self.len) % Self::CAPACITY;
        if let Some(slot) = self.bytes.get_mut(tail) {
            *slot = byte;
            self.len += 1;
        }
    }

    /// Takes the oldest character.
    pub(super) fn pop(&mut self) -> Option<u8> {
        if self.len == 0 {
            return None;
        }
        let byte = self.bytes.get(self.head).copied();
        self.head = (self.head + 1) % Self::CAPACITY;
        self.len -= 1;
        byte
    }
}
