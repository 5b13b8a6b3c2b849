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
//! What a layout keeps in memory is written out when the guest flushes, and else once it is
//! [`KEPT_AT_MOST`] old, as the process may end at any time: that too begins when nothing is in flight.
//!
//! Bounds: at most [`MAX_REQUESTS`] requests, and none is taken while more than [`MAX_BYTES`] are
//! outstanding. That also bounds how long [`drain`](Engine::drain) takes.

mod parts;
mod peek;
mod requests;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use self::parts::Part;
use self::requests::{Request, Step};
use super::bounce::{Bounce, Direct};
use super::cache::CacheMode;
use super::sync::Blocking;
use super::uring::{DEPTH, Ring};
use super::{Layout, SizeChange};
use crate::event::Event;
use crate::memory::GuestRam;
use crate::virtio::chain::Span;

/// The most requests outstanding.
pub const MAX_REQUESTS: u16 = 128;
/// The most bytes outstanding when another request is taken.
pub const MAX_BYTES: u64 = 64 << 20;
/// The most bytes of one request.
pub const MAX_REQUEST_BYTES: u64 = 1 << 30;
/// How long a layout keeps what it has not written out.
pub const KEPT_AT_MOST: Duration = Duration::from_secs(5);

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
    /// Making a plain file durable failed, and the page cache has forgotten which data that was. Other
    /// layouts know by themselves which of their errors are for good.
    flush_failed: AtomicBool,
}

/// A disk with what moves its data. Kept by the device while it does not run, by a worker while it
/// does.
#[derive(Debug)]
pub struct Engine {
    // Goes first: that waits for what is in flight, which is the layout's files'.
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
    /// Of what is in `done`.
    bytes_done: u64,
    bytes: u64,
    again: bool,
    age: Age,
    /// Why the last [`detach`](Self::detach) left something unwritten.
    unwritten: Option<String>,
}

/// How old what the layout keeps is.
#[derive(Debug, Default)]
struct Age {
    /// Since when it keeps something, or since the last attempt to write it out failed.
    since: Option<Instant>,
    /// It is to be written out once nothing is in flight.
    due: bool,
    /// The last attempt failed, which was told.
    failed: bool,
}

/// What is in a drive: a layout, and what its files ask of direct transfers.
pub struct Medium {
    /// The layout.
    pub layout: Box<dyn Layout>,
    /// As for [`Engine::new`].
    pub direct: Direct,
}

impl std::fmt::Debug for Medium {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Medium").finish_non_exhaustive()
    }
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

/// An engine's own tables have what its own numbers say.
fn inconsistent() -> io::Error {
    io::Error::other("disk engine has lost count")
}

impl Engine {
    /// An engine for `layout`, by way of `ring` if there is one. `direct` says what files opened with
    /// `O_DIRECT` ask for, [`Direct::none`] that they were not.
    #[must_use]
    pub fn new(
        mut layout: Box<dyn Layout>,
        ring: Option<Ring>,
        cache: CacheMode,
        direct: Direct,
    ) -> Self {
        if !cache.honours_flush() {
            layout.forgo_stability();
        }
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
            bytes_done: 0,
            bytes: 0,
            again: false,
            age: Age::default(),
            unwritten: None,
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
        self.age = Age::default();
        let closed = self.layout.0.close();
        self.unwritten = closed.as_ref().err().map(ToString::to_string);
        closed
    }

    /// Why the image is not as its guest left it, if the last [`detach`](Self::detach) could not write the
    /// rest out. Here it is whole: the next one may.
    #[must_use]
    pub fn unwritten(&self) -> Option<&str> {
        self.unwritten.as_deref()
    }

    /// Sees to it that nothing the layout keeps becomes older than [`KEPT_AT_MOST`], at time `now` of a
    /// clock that does not go back. Called after each turn, and at [`look_again`](Self::look_again).
    pub fn look_at_age(&mut self, now: Instant) {
        if self.age.due {
            return;
        }
        if !self.layout.0.is_dirty() {
            self.age = Age::default();
            return;
        }
        let since = *self.age.since.get_or_insert(now);
        if now.saturating_duration_since(since) >= KEPT_AT_MOST {
            self.age.due = true;
            self.age.since = Some(now);
            self.pump();
        }
    }

    /// When [`look_at_age`](Self::look_at_age) is wanted, if no request brings it about.
    #[must_use]
    pub fn look_again(&self) -> Option<Instant> {
        // One that is due waits for completions.
        let since = self.age.since.filter(|_| !self.age.due)?;
        since.checked_add(KEPT_AT_MOST)
    }

    /// Looks at the storage's size again, or changes it; gives the size in bytes. What is under way is
    /// done first.
    ///
    /// # Errors
    /// As for [`Layout::resize`].
    pub fn resize(&mut self, change: SizeChange) -> io::Result<u64> {
        self.drain();
        self.layout.0.resize(change)?;
        Ok(self.layout.0.size())
    }

    /// Reads bytes of the disk for somebody else than its guest. What is under way is done first, so that its
    /// bytes are those that the guest wrote.
    ///
    /// # Errors
    /// `InvalidInput` for bytes beyond the disk; the storage's.
    pub fn peek(&mut self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        self.drain();
        peek::read(&mut *self.layout.0, offset, len)
    }

    /// Leaves alone what is behind byte `size` from now on. What is under way is done first.
    ///
    /// # Errors
    /// As for [`Layout::limit`].
    pub fn limit(&mut self, size: u64) -> io::Result<()> {
        self.drain();
        self.layout.0.limit(size)
    }

    /// Serves another medium from now on, and lets go of the one before. What is under way is done first.
    pub fn exchange(&mut self, medium: Medium) {
        self.drain();
        if let Err(error) = self.layout.0.close() {
            // Only what is written has something to write out.
            tracing::warn!(%error, "a medium that goes was not written out");
        }
        let Medium { layout, direct } = medium;
        self.bounce = Bounce::new(direct);
        self.install(layout);
    }

    fn install(&mut self, mut layout: Box<dyn Layout>) {
        if !self.cache.honours_flush() {
            layout.forgo_stability();
        }
        self.plain = layout.is_plain();
        self.layout = BoxedLayout(layout);
        self.common = Arc::default();
        self.age = Age::default();
        self.unwritten = None;
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
            if !self.settle_all() {
                self.again = !all;
                return;
            }
            self.pump();
        }
    }

    /// A request that is done.
    pub fn reap(&mut self) -> Option<Completion> {
        let completion = self.done.pop_front();
        if self.done.is_empty() {
            self.bytes_done = 0;
        }
        completion
    }

    /// Bytes that were moved for what has been done since [`reap`](Self::reap) last found nothing more.
    #[must_use]
    pub fn bytes_done(&self) -> u64 {
        self.bytes_done
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
}

impl Drop for Engine {
    fn drop(&mut self) {
        let blocking = Transport::Blocking(Blocking::default());
        if let Transport::Uring(ring) = std::mem::replace(&mut self.transport, blocking) {
            ring.give_back();
        }
    }
}

#[cfg(test)]
mod tests;
