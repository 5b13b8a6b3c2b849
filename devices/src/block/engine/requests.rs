//! Requests: their steps from waiting to done.

use std::io;
use std::sync::atomic::Ordering;

use super::parts::{Part, Work};
use super::{Age, Completion, Engine, Transport, inconsistent};
use crate::block::Extent;
use crate::block::run::Run;
use crate::virtio::chain::Span;

/// What of a request is to be begun next.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Step {
    #[default]
    Transfer,
    Flush,
    Discard,
    WriteZeroes {
        unmap: bool,
    },
}

#[derive(Debug, Default)]
pub(super) struct Request {
    pub(super) tag: u32,
    pub(super) step: Step,
    pub(super) write: bool,
    pub(super) offset: u64,
    pub(super) len: u64,
    pub(super) spans: Vec<Span>,
    pub(super) skip: u64,
    /// Bytes handed to parts.
    pub(super) begun: u64,
    /// Parts in flight.
    pub(super) parts: u16,
    pub(super) waiting: bool,
    pub(super) error: Option<io::Error>,
}

impl Request {
    pub(super) fn run(&self, skip: u64, len: u64) -> Run<'_> {
        Run {
            spans: &self.spans,
            skip: self.skip.saturating_add(skip),
            len,
        }
    }
}

/// The same error once more, for another request.
fn copy(error: &io::Error) -> io::Error {
    error
        .raw_os_error()
        .map_or_else(|| error.kind().into(), io::Error::from_raw_os_error)
}

impl Engine {
    /// Begins what waits, in order, until there is nothing or something must be done first.
    pub(super) fn pump(&mut self) {
        if self.age.due {
            if self.in_flight() {
                return;
            }
            self.write_out();
        }
        while let Some(&index) = self.waiting.front() {
            let Some(step) = self.requests.get(usize::from(index)).map(|one| one.step) else {
                self.waiting.pop_front();
                continue;
            };
            let begun = match step {
                Step::Transfer => self.begin_transfer(index),
                Step::Flush => self.begin_flush(index),
                Step::Discard | Step::WriteZeroes { .. } => self.begin_discard(index, step),
            };
            match begun {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => self.fail(index, error),
            }
            // A flush may have taken others along.
            if self.waiting.front() == Some(&index) {
                self.waiting.pop_front();
                self.advance(index, true);
            }
        }
    }

    /// Writes out what the layout keeps.
    fn write_out(&mut self) {
        self.age.due = false;
        match self.layout.0.close() {
            Ok(()) => self.age = Age::default(),
            // The next attempt is as far off as the first was.
            Err(error) => {
                if !std::mem::replace(&mut self.age.failed, true) {
                    tracing::warn!(%error, "writing out a disk's metadata failed; tried again later");
                }
            }
        }
    }

    /// Begins all of a transfer; false if no part is free.
    pub(super) fn begin_transfer(&mut self, index: u16) -> io::Result<bool> {
        loop {
            let request = self.request(index)?;
            let (write, offset, begun) = (request.write, request.offset, request.begun);
            let rest = request.len - begun;
            if rest == 0 || request.error.is_some() {
                return Ok(true);
            }
            let Some(&part) = self.free_parts.last() else {
                return Ok(false);
            };
            let extent = if write {
                self.layout.0.map_write(offset + begun, rest)?
            } else {
                self.layout.0.map_read(offset + begun, rest)?
            };
            let (Extent::Data { len, .. } | Extent::Zero { len } | Extent::Buffered { len }) =
                extent;
            if len == 0 || len > rest {
                return Err(io::ErrorKind::InvalidData.into());
            }
            self.request(index)?.begun += len;
            match extent {
                Extent::Zero { .. } | Extent::Buffered { .. } if write => {
                    return Err(io::ErrorKind::InvalidData.into());
                }
                Extent::Zero { .. } | Extent::Buffered { .. } => {
                    let (guest, request) = (&self.guest, self.requests.get(usize::from(index)));
                    if let (Some(guest), Some(request)) = (guest, request) {
                        let run = request.run(begun, len);
                        if matches!(extent, Extent::Zero { .. }) {
                            run.zero(&guest.ram);
                        } else {
                            let bytes = self.layout.0.buffered();
                            if (bytes.len() as u64) < len {
                                return Err(io::ErrorKind::InvalidData.into());
                            }
                            run.fill(&guest.ram, bytes);
                        }
                    }
                }
                Extent::Data { file, offset, .. } => {
                    self.free_parts.pop();
                    self.request(index)?.parts += 1;
                    let work = if write { Work::Write } else { Work::Read };
                    self.begin_part(
                        part,
                        Part {
                            request: index,
                            work,
                            file,
                            offset,
                            skip: begun,
                            len,
                            retries: 0,
                        },
                    );
                }
            }
        }
    }

    /// Begins or does a flush; false if something must be done first.
    pub(super) fn begin_flush(&mut self, index: u16) -> io::Result<bool> {
        // Other layouts have metadata to write, which they do without waiting for storage.
        if self.plain && !self.cache.honours_flush() {
            return Ok(true);
        }
        if self.common.flush_failed.load(Ordering::Relaxed) {
            return Err(io::Error::other("an earlier flush failed"));
        }
        if self.plain && matches!(self.transport, Transport::Uring(_)) {
            let Some(part) = self.free_parts.pop() else {
                return Ok(false);
            };
            self.request(index)?.parts += 1;
            let work = Work::Sync;
            let whole = Part {
                request: index,
                work,
                ..Part::default()
            };
            self.begin_part(part, whole);
            return Ok(true);
        }
        if !self.plain && self.in_flight() {
            return Ok(false);
        }
        let result = self.layout.0.flush();
        if let (true, Err(error)) = (self.plain, &result) {
            self.note_failed_sync(error);
        }
        // Those that wait for the same are served by the same: nothing was in flight.
        while let Some(&next) = self.waiting.front() {
            if next != index && self.request(next)?.step != Step::Flush {
                break;
            }
            self.waiting.pop_front();
            if let Err(error) = &result {
                self.fail(next, copy(error));
            }
            self.advance(next, true);
        }
        Ok(true)
    }

    /// Does a discard, or zeroes; false if something must be done first.
    pub(super) fn begin_discard(&mut self, index: u16, step: Step) -> io::Result<bool> {
        if !self.plain && self.in_flight() {
            return Ok(false);
        }
        let request = self.request(index)?;
        let (offset, len) = (request.offset, request.len);
        if len > 0 {
            match step {
                Step::WriteZeroes { unmap } => self.layout.0.write_zeroes(offset, len, unmap)?,
                _ => self.layout.0.discard(offset, len)?,
            }
        }
        Ok(true)
    }

    pub(super) fn fail(&mut self, index: u16, error: io::Error) {
        if let Some(request) = self.requests.get_mut(usize::from(index)) {
            request.error.get_or_insert(error);
        }
    }

    /// Takes a request on to its next step or its end, once all of this one is begun and done. `begun`
    /// says that all of it has been begun now.
    pub(super) fn advance(&mut self, index: u16, begun: bool) {
        let write_through = self.guest.as_ref().is_some_and(|one| one.write_through);
        let Some(request) = self.requests.get_mut(usize::from(index)) else {
            return;
        };
        if begun {
            request.waiting = false;
        }
        if request.waiting || request.parts > 0 {
            return;
        }
        let flush = request.write && write_through && request.step != Step::Flush;
        if flush && request.error.is_none() {
            request.step = Step::Flush;
            request.waiting = true;
            self.waiting.push_front(index);
            return;
        }
        let result = request.error.take().map_or(Ok(()), Err);
        self.bytes = self.bytes.saturating_sub(request.len);
        self.bytes_done = self.bytes_done.saturating_add(request.len);
        let tag = request.tag;
        self.free_requests.push(index);
        self.done.push_back(Completion { tag, result });
    }

    pub(super) fn request(&mut self, index: u16) -> io::Result<&mut Request> {
        self.requests
            .get_mut(usize::from(index))
            .ok_or_else(inconsistent)
    }
}
