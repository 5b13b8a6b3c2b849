//! The engine of a disk: takes requests, finds out from the [`Layout`] where their bytes are, and moves
//! them between guest memory and files, by io_uring or by blocking calls.
//!
//! ```text
//!  submit --> waiting, in order --> parts, one for each extent --> all done --> [flush] --> reap
//!                 |  one at a time       at most DEPTH in flight         write-through only
//!                 +- flush, discard, zeroes: the layout does them
//! ```
//!
//! A request is cut up only as parts become free, so however scattered it is, it takes no more than
//! its buffers' list. Requests begin in order and may overtake each other afterwards. Where the layout
//! is more than a plain file, those that change it as a whole (flush, discard, zeroes) begin when
//! nothing is in flight and hold up those behind them: so no data lands in a cluster that was freed
//! meanwhile, and a flush finds no write under way.
//!
//! Bounds: at most [`MAX_REQUESTS`] requests, and none is taken while more than [`MAX_BYTES`] are
//! outstanding. That also bounds how long [`drain`](Engine::drain) takes.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::bounce::{Bounce, Direct};
use super::cache::CacheMode;
use super::run::Run;
use super::sync::Blocking;
use super::uring::{DEPTH, Ring};
use super::{Extent, Layout};
use crate::event::Event;
use crate::memory::GuestRam;
use crate::virtio::chain::Span;

/// The most requests outstanding.
pub const MAX_REQUESTS: u16 = 128;
/// The most bytes outstanding when another request is taken.
pub const MAX_BYTES: u64 = 64 << 20;
/// The most bytes of one request.
pub const MAX_REQUEST_BYTES: u64 = 1 << 30;
/// How often a part is tried again that the kernel asks to try again.
const RETRIES: u8 = 8;

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Read into guest memory.
    Read,
    /// Write from guest memory.
    Write,
    /// Make durable what was written before.
    Flush,
    /// [`Layout::discard`].
    Discard,
    /// [`Layout::write_zeroes`].
    WriteZeroes {
        /// The room may be given back.
        unmap: bool,
    },
}

/// A request that is done.
#[derive(Debug)]
pub struct Completion {
    /// The number it was submitted with.
    pub tag: u32,
    /// How it went.
    pub result: io::Result<()>,
}

/// What the engines of one disk have in common.
#[derive(Debug, Default)]
struct Common {
    /// A flush failed, and the page cache has forgotten which data that was.
    flush_failed: AtomicBool,
}

/// A disk with what moves its data. Kept by the device while it does not run, by a worker while it
/// does.
#[derive(Debug)]
pub struct Engine {
    // Dropped first: it waits for what is in flight, which is the layout's files'.
    transport: Transport,
    layout: BoxedLayout,
    plain: bool,
    cache: CacheMode,
    bounce: Bounce,
    common: Arc<Common>,
    guest: Option<Guest>,
    requests: Vec<Request>,
    free_requests: Vec<u16>,
    parts: Vec<Part>,
    free_parts: Vec<u16>,
    /// Requests of which something is still to be begun.
    waiting: VecDeque<u16>,
    done: VecDeque<Completion>,
    bytes: u64,
    again: bool,
}

struct BoxedLayout(Box<dyn Layout>);

impl std::fmt::Debug for BoxedLayout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Layout")
    }
}

#[derive(Debug)]
enum Transport {
    Blocking(Blocking),
    Uring(Box<Ring>),
}

#[derive(Debug)]
struct Guest {
    ram: GuestRam,
    write_through: bool,
}

/// What of a request is to be begun next.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Step {
    #[default]
    Transfer,
    Flush,
    Discard,
    WriteZeroes {
        unmap: bool,
    },
}

#[derive(Debug, Default)]
struct Request {
    tag: u32,
    step: Step,
    write: bool,
    offset: u64,
    len: u64,
    spans: Vec<Span>,
    skip: u64,
    /// Bytes handed to parts.
    begun: u64,
    /// Parts in flight.
    parts: u16,
    waiting: bool,
    error: Option<io::Error>,
}

impl Request {
    fn run(&self, skip: u64, len: u64) -> Run<'_> {
        Run {
            spans: &self.spans,
            skip: self.skip.saturating_add(skip),
            len,
        }
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Part {
    request: u16,
    work: Work,
    file: usize,
    offset: u64,
    /// Bytes of the request before it.
    skip: u64,
    len: u64,
    retries: u8,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Work {
    #[default]
    Read,
    Write,
    Sync,
}

/// Whether the kernel only wants to be asked again.
fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock
    )
}

/// The same error once more, for another request.
fn copy(error: &io::Error) -> io::Error {
    error
        .raw_os_error()
        .map_or_else(|| error.kind().into(), io::Error::from_raw_os_error)
}

/// An engine's own tables have what its own numbers say.
fn inconsistent() -> io::Error {
    io::Error::other("disk engine has lost count")
}

impl Engine {
    /// An engine for `layout`, by way of `ring` if there is one. `direct` says what files opened with
    /// `O_DIRECT` ask for, [`Direct::none`] that they were not.
    #[must_use]
    pub fn new(
        layout: Box<dyn Layout>,
        ring: Option<Ring>,
        cache: CacheMode,
        direct: Direct,
    ) -> Self {
        Self {
            transport: ring.map_or_else(
                || Transport::Blocking(Blocking::default()),
                |ring| Transport::Uring(Box::new(ring)),
            ),
            plain: layout.is_plain(),
            layout: BoxedLayout(layout),
            cache,
            bounce: Bounce::new(direct),
            common: Arc::default(),
            guest: None,
            requests: (0..MAX_REQUESTS).map(|_| Request::default()).collect(),
            free_requests: (0..MAX_REQUESTS).rev().collect(),
            parts: vec![Part::default(); DEPTH.into()],
            free_parts: (0..DEPTH).rev().collect(),
            waiting: VecDeque::with_capacity(MAX_REQUESTS.into()),
            done: VecDeque::with_capacity(MAX_REQUESTS.into()),
            bytes: 0,
            again: false,
        }
    }

    /// Another engine for the same disk: `layout` is this one's once more, as a raw disk can have it.
    #[must_use]
    pub fn sibling(&self, layout: Box<dyn Layout>, ring: Option<Ring>) -> Self {
        let direct = self.bounce.direct().clone();
        let mut engine = Self::new(layout, ring, self.cache, direct);
        engine.common = Arc::clone(&self.common);
        engine
    }

    /// How the disk is cached.
    #[must_use]
    pub fn cache(&self) -> CacheMode {
        self.cache
    }

    /// The disk's size in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.layout.0.size()
    }

    /// What is signalled when [`poll`](Self::poll) has something to do. `None`: nothing is ever in
    /// flight between two calls.
    #[must_use]
    pub fn event(&self) -> Option<&Event> {
        match &self.transport {
            Transport::Blocking(_) => None,
            Transport::Uring(ring) => Some(ring.event()),
        }
    }

    /// Serves a guest with this RAM. `write_through` says that it does not know about flushes, so that
    /// its writes are durable when they complete whatever the cache mode.
    pub fn attach(&mut self, ram: &GuestRam, write_through: bool) {
        self.drain();
        if let Transport::Uring(ring) = &mut self.transport {
            ring.attach(ram.clone());
        }
        self.guest = Some(Guest {
            ram: ram.clone(),
            write_through: self.cache.honours_flush()
                && (write_through || self.cache.is_write_through()),
        });
    }

    /// Serves the guest no longer: all is done, what the layout keeps is written out, and guest memory
    /// is let go. Completions are still to be reaped.
    ///
    /// # Errors
    /// The layout could not write its own out.
    pub fn detach(&mut self) -> io::Result<()> {
        self.drain();
        if let Transport::Uring(ring) = &mut self.transport {
            ring.detach();
        }
        self.guest = None;
        self.layout.0.close()
    }

    /// Looks at the storage's size again, or changes it; gives the size in bytes.
    ///
    /// # Errors
    /// As for [`Layout::resize`].
    pub fn resize(&mut self, size: u64) -> io::Result<u64> {
        self.drain();
        self.layout.0.resize(size)?;
        Ok(self.layout.0.size())
    }

    /// Whether another request can be submitted.
    #[must_use]
    pub fn has_room(&self) -> bool {
        !self.free_requests.is_empty() && self.bytes < MAX_BYTES
    }

    /// Whether requests are outstanding.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.free_requests.len() == self.requests.len()
    }

    /// Whether [`poll`](Self::poll) is wanted soon, without an event: the kernel had no room.
    #[must_use]
    pub fn wants_poll(&self) -> bool {
        self.again
    }

    /// Whether the event is signalled. Off while the engine is polled anyway; [`poll`](Self::poll)
    /// once more after switching it on.
    pub fn signal_completions(&mut self, on: bool) {
        if let Transport::Uring(ring) = &mut self.transport {
            ring.signal_completions(on);
        }
    }

    /// Begins a request: `len` bytes at byte `offset` of the disk, from or to those behind the first
    /// `skip` of `spans`. It completes as `tag`, with an error if it is not within the disk or there is
    /// no room.
    pub fn submit(
        &mut self,
        tag: u32,
        operation: Operation,
        offset: u64,
        len: u64,
        spans: &[Span],
        skip: u64,
    ) {
        let inside = offset
            .checked_add(len)
            .is_some_and(|end| end <= self.size());
        let transfer = matches!(operation, Operation::Read | Operation::Write);
        if !inside || transfer && len > MAX_REQUEST_BYTES {
            let result = Err(io::ErrorKind::InvalidInput.into());
            self.done.push_back(Completion { tag, result });
            return;
        }
        let index = self.free_requests.pop();
        let request = index.and_then(|index| self.requests.get_mut(usize::from(index)));
        let (Some(index), Some(request)) = (index, request) else {
            let result = Err(io::ErrorKind::ResourceBusy.into());
            self.done.push_back(Completion { tag, result });
            return;
        };
        request.tag = tag;
        request.write = operation != Operation::Read && operation != Operation::Flush;
        request.step = match operation {
            Operation::Read | Operation::Write => Step::Transfer,
            Operation::Flush => Step::Flush,
            Operation::Discard => Step::Discard,
            Operation::WriteZeroes { unmap } => Step::WriteZeroes { unmap },
        };
        request.offset = offset;
        request.len = len;
        request.spans.clear();
        request.spans.extend_from_slice(spans);
        request.skip = skip;
        request.begun = 0;
        request.parts = 0;
        request.waiting = true;
        request.error = None;
        self.bytes += len;
        self.waiting.push_back(index);
        self.pump();
    }

    /// Moves everything on as far as it goes without waiting: hands the kernel what was prepared,
    /// takes what it has done.
    pub fn poll(&mut self) {
        self.again = false;
        loop {
            let Transport::Uring(ring) = &mut self.transport else {
                return;
            };
            let all = ring.submit();
            let Some((index, result)) = ring.reap() else {
                self.again = !all;
                return;
            };
            self.settle(index, result);
            self.pump();
        }
    }

    /// A request that is done.
    pub fn reap(&mut self) -> Option<Completion> {
        self.done.pop_front()
    }

    /// Waits until all requests are done. Takes as long as the storage does.
    pub fn drain(&mut self) {
        self.pump();
        loop {
            self.poll();
            if self.is_idle() {
                return;
            }
            if let Transport::Uring(ring) = &mut self.transport {
                ring.wait();
            }
        }
    }

    fn in_flight(&self) -> bool {
        self.free_parts.len() < self.parts.len()
    }

    /// Begins what waits, in order, until there is nothing or something must be done first.
    fn pump(&mut self) {
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

    /// Begins all of a transfer; false if no part is free.
    fn begin_transfer(&mut self, index: u16) -> io::Result<bool> {
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
            let (Extent::Data { len, .. } | Extent::Zero { len }) = extent;
            if len == 0 || len > rest {
                return Err(io::ErrorKind::InvalidData.into());
            }
            self.request(index)?.begun += len;
            match extent {
                Extent::Zero { .. } if write => return Err(io::ErrorKind::InvalidData.into()),
                Extent::Zero { .. } => {
                    let (guest, request) = (&self.guest, self.requests.get(usize::from(index)));
                    if let (Some(guest), Some(request)) = (guest, request) {
                        request.run(begun, len).zero(&guest.ram);
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
    fn begin_flush(&mut self, index: u16) -> io::Result<bool> {
        if !self.cache.honours_flush() {
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
        if result.is_err() {
            self.note_failed_flush();
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
    fn begin_discard(&mut self, index: u16, step: Step) -> io::Result<bool> {
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

    /// Begins a part, and does it too as far as that needs no waiting.
    fn begin_part(&mut self, index: u16, part: Part) {
        if let Some(place) = self.parts.get_mut(usize::from(index)) {
            *place = part;
        }
        self.drive(index);
    }

    fn drive(&mut self, index: u16) {
        while let Some(result) = self.try_part(index) {
            if self.note(index, result) {
                return;
            }
        }
    }

    /// A part of which the kernel has done something: goes on with it, unless that was all.
    fn settle(&mut self, index: u16, result: io::Result<u64>) {
        if !self.note(index, result) {
            self.drive(index);
        }
    }

    /// Has what is left of a part moved: the result, or `None` if it will come.
    fn try_part(&mut self, index: u16) -> Option<io::Result<u64>> {
        let Part {
            request,
            work,
            file,
            offset,
            skip,
            len,
            ..
        } = *self.parts.get(usize::from(index))?;
        let (Some(fd), Some(guest), Some(request)) = (
            self.layout.0.file(file),
            &self.guest,
            self.requests.get(usize::from(request)),
        ) else {
            return Some(Err(inconsistent()));
        };
        let (ram, run, write) = (&guest.ram, request.run(skip, len), work == Work::Write);
        if work != Work::Sync && !self.bounce.direct().allows(ram, run, offset) {
            return Some(if write {
                self.bounce.write(fd, ram, run, offset)
            } else {
                self.bounce.read(fd, ram, run, offset)
            });
        }
        match &mut self.transport {
            Transport::Blocking(_) if work == Work::Sync => Some(Err(inconsistent())),
            Transport::Blocking(blocking) => Some(blocking.transfer(write, fd, ram, run, offset)),
            Transport::Uring(ring) => match work {
                Work::Sync => ring.sync(index, fd),
                Work::Read | Work::Write => ring.transfer(index, write, fd, run, offset),
            }
            .err()
            .map(Err),
        }
    }

    /// Notes what became of a part's last attempt; true if it is at its end.
    fn note(&mut self, index: u16, result: io::Result<u64>) -> bool {
        let Some(part) = self.parts.get_mut(usize::from(index)) else {
            return true;
        };
        let (request, work) = (part.request, part.work);
        let outcome = match (work, result) {
            (_, Err(error)) if is_passing(&error) && part.retries < RETRIES => {
                part.retries += 1;
                return false;
            }
            (_, Err(error)) => Err(error),
            (Work::Sync, Ok(_)) => Ok(()),
            (Work::Write, Ok(0)) => Err(io::ErrorKind::WriteZero.into()),
            (Work::Write, Ok(moved)) if moved >= part.len => Ok(()),
            (Work::Read | Work::Write, Ok(moved)) => {
                let moved = moved.min(part.len);
                let (skip, len) = (part.skip, part.len);
                part.skip += moved;
                part.offset += moved;
                part.len -= moved;
                let place = self.requests.get(usize::from(request));
                if let (Work::Read, Some(guest), Some(request)) = (work, &self.guest, place) {
                    request.run(skip, moved).mark_written(&guest.ram);
                    // Behind the end of the file.
                    if moved == 0 {
                        request.run(skip, len).zero(&guest.ram);
                    }
                }
                if moved > 0 && moved < len {
                    return false;
                }
                Ok(())
            }
        };
        if outcome.is_err() && work == Work::Sync {
            self.note_failed_flush();
        }
        self.free_parts.push(index);
        if let Some(request) = self.requests.get_mut(usize::from(request)) {
            request.parts = request.parts.saturating_sub(1);
        }
        if let Err(error) = outcome {
            self.fail(request, error);
        }
        self.advance(request, false);
        true
    }

    fn note_failed_flush(&self) {
        if !self.cache.is_direct() {
            self.common.flush_failed.store(true, Ordering::Relaxed);
        }
    }

    fn fail(&mut self, index: u16, error: io::Error) {
        if let Some(request) = self.requests.get_mut(usize::from(index)) {
            request.error.get_or_insert(error);
        }
    }

    /// Takes a request on to its next step or its end, once all of this one is begun and done. `begun`
    /// says that all of it has been begun now.
    fn advance(&mut self, index: u16, begun: bool) {
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
        let tag = request.tag;
        self.free_requests.push(index);
        self.done.push_back(Completion { tag, result });
    }

    fn request(&mut self, index: u16) -> io::Result<&mut Request> {
        self.requests
            .get_mut(usize::from(index))
            .ok_or_else(inconsistent)
    }
}

#[cfg(test)]
#[path = "engine/tests.rs"]
mod tests;
