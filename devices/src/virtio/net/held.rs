//! Receive buffers taken from the driver and not given back: frames fill them from the front.
//!
//! All buffers' pieces lie in one row, so that a frame is read into as many buffers as it needs by one
//! call. They are bounded by what is gathered: a piece has at least a byte, and no more are taken than
//! the longest frame needs.

use std::collections::VecDeque;

use super::header::HEADER_BYTES;
use crate::virtio::chain::{Chain, Span};
use crate::virtio::queue::{Queue, QueueFault};

/// One buffer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Buffer {
    /// By which it is given back.
    pub(super) head: u16,
    /// Bytes, at least the header's.
    pub(super) len: u64,
    spans: usize,
}

/// Buffers in the order in which they were taken.
#[derive(Debug, Default)]
pub(super) struct Held {
    buffers: VecDeque<Buffer>,
    spans: VecDeque<Span>,
    bytes: u64,
}

impl Held {
    /// Takes buffers until there are `bytes` in them, or the driver has no more.
    ///
    /// # Errors
    /// [`QueueFault`]; also for a buffer that can hold no frame.
    pub(super) fn gather(
        &mut self,
        bytes: u64,
        queue: &mut Queue,
        chain: &mut Chain,
    ) -> Result<(), QueueFault> {
        while self.bytes < bytes && queue.pop(chain)? {
            let len = chain.writable_bytes();
            if len < HEADER_BYTES as u64 || !chain.readable().is_empty() {
                return Err(QueueFault::Request(
                    "receive buffer without room for a header",
                ));
            }
            self.bytes += len;
            self.buffers.push_back(Buffer {
                head: chain.head(),
                len,
                spans: chain.writable().len(),
            });
            self.spans.extend(chain.writable());
        }
        Ok(())
    }

    /// Bytes in all buffers.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The first buffer.
    pub(super) fn first(&self) -> Option<Buffer> {
        self.buffers.front().copied()
    }

    /// The buffers in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = Buffer> + '_ {
        self.buffers.iter().copied()
    }

    /// The pieces of the first buffer, or of all.
    pub(super) fn spans(&mut self, all: bool) -> &[Span] {
        let count = match self.buffers.front() {
            Some(first) if !all => first.spans,
            _ => self.spans.len(),
        };
        self.spans
            .make_contiguous()
            .get(..count)
            .unwrap_or_default()
    }

    /// Forgets the first `count` buffers: they were given back.
    pub(super) fn forget(&mut self, count: u16) {
        for _ in 0..count {
            let Some(buffer) = self.buffers.pop_front() else {
                return;
            };
            self.bytes -= buffer.len;
            self.spans.drain(..buffer.spans.min(self.spans.len()));
        }
    }

    /// Puts all of them back where they were taken from.
    pub(super) fn release(&mut self, queue: &mut Queue) {
        for _ in 0..self.buffers.len() {
            queue.unpop();
        }
        self.buffers.clear();
        self.spans.clear();
        self.bytes = 0;
    }
}
