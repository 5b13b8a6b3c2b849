//! The back half of a disk: serves one queue with one engine.
//!
//! Chains that cannot be begun now, because the engine is full or the disk is held to a rate, stay in
//! the queue; the engine's event or the time that the throttle named brings another turn.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::disk::{Disk, DiskError, Place, Slot};
use super::request::{self, Command, HEADER_BYTES, IOERR, OK};
use crate::block::engine::{Completion, Engine, MAX_REQUESTS, Operation};
use crate::block::throttle::Direction;
use crate::reactor::{Interest, Sources};
use crate::shared::lock;
use crate::virtio::chain::Chain;
use crate::virtio::queue::QueueFault;
use crate::virtio::{BrokenQueue, Progress, QueueWorker, RunningQueue};

/// The queue's kick.
const KICK: u32 = 0;
/// The engine's event.
const ENGINE: u32 = 1;
/// Bytes that are moved at most before the driver is told, where moving them is done at once.
const BATCH_BYTES: u64 = 256 << 10;
/// Time until the engine is polled again when the kernel had no room.
const POLL: Duration = Duration::from_millis(1);

/// A chain that is out.
#[derive(Debug)]
struct Pending {
    head: u16,
    /// Where the status goes.
    status: u64,
    written: u32,
    operation: Operation,
    offset: u64,
    len: u64,
    begun: Instant,
}

/// Why no more chains are taken.
enum Halt {
    /// There are none.
    Empty,
    /// The turn is over.
    Turn,
    /// The engine is full.
    Full,
    /// Not before that time.
    Until(Instant),
}

/// Serves one queue.
#[derive(Debug)]
pub(super) struct Worker {
    queue: RunningQueue,
    chain: Chain,
    engine: Box<Engine>,
    disk: Arc<Disk>,
    slot: Slot,
    pending: Vec<Option<Pending>>,
    free: Vec<u16>,
    broken: BrokenQueue,
    /// When another turn is wanted.
    again: Option<Instant>,
}

impl Worker {
    /// A worker for `queue` with an engine that is attached to the guest. `slot` is where the engine
    /// goes in the end.
    pub(super) fn new(
        queue: RunningQueue,
        engine: Box<Engine>,
        disk: Arc<Disk>,
        slot: Slot,
    ) -> Self {
        disk.throttle.watch(&queue.kick);
        Self {
            queue,
            chain: Chain::new(),
            engine,
            disk,
            slot,
            pending: (0..MAX_REQUESTS).map(|_| None).collect(),
            free: (0..MAX_REQUESTS).rev().collect(),
            broken: BrokenQueue::new("block"),
            again: None,
        }
    }

    fn serve(&mut self) {
        self.again = None;
        self.obey();
        let result = if self.broken.is_broken() {
            self.finish();
            Ok(())
        } else {
            self.turn()
        };
        self.broken.note(result, &*self.queue.interrupts);
        let now = Instant::now();
        self.engine.look_at_age(now);
        let soon = self.engine.wants_poll().then(|| now + POLL);
        let times = [self.again, soon, self.engine.look_again()];
        self.again = times.into_iter().flatten().min();
    }

    /// Makes a change of the disk that was asked for.
    fn obey(&mut self) {
        let orders = match &mut *lock(&self.slot) {
            Place::Running { orders, .. } => std::mem::take(orders),
            Place::Idle(_) => Vec::new(),
        };
        for order in orders {
            if order.carry_out(&mut self.engine) {
                self.queue.interrupts.config();
            }
        }
    }

    fn turn(&mut self) -> Result<(), QueueFault> {
        self.queue.queue.disable_notifications()?;
        let mut budget = self.queue.queue.size();
        loop {
            self.engine.signal_completions(false);
            self.give_back()?;
            let halt = self.take(&mut budget)?;
            self.give_back()?;
            // What completes from here on signals; what came before is looked at.
            self.engine.signal_completions(true);
            self.give_back()?;
            match halt {
                Halt::Empty if self.queue.queue.enable_notifications()? => {}
                Halt::Full if self.has_room() => {}
                Halt::Empty | Halt::Full => break,
                Halt::Turn => {
                    self.queue.kick.signal();
                    break;
                }
                Halt::Until(time) => {
                    self.again = Some(time);
                    break;
                }
            }
        }
        self.queue.notify()
    }

    fn has_room(&self) -> bool {
        !self.free.is_empty() && self.engine.has_room()
    }

    /// Begins requests until something halts that.
    fn take(&mut self, budget: &mut u16) -> Result<Halt, QueueFault> {
        while *budget > 0 {
            if !self.has_room() {
                return Ok(Halt::Full);
            }
            if !self.queue.queue.pop(&mut self.chain)? {
                return Ok(Halt::Empty);
            }
            if let Some(time) = self.begin()? {
                self.queue.queue.unpop();
                return Ok(Halt::Until(time));
            }
            *budget -= 1;
            // What was done at once may be enough to have the driver go on with it meanwhile.
            if self.engine.bytes_done() >= BATCH_BYTES {
                self.give_back()?;
                self.queue.notify()?;
            }
        }
        Ok(Halt::Turn)
    }

    /// Begins the request of the chain just taken, or answers it. The time when to try again, if not
    /// now.
    fn begin(&mut self) -> Result<Option<Instant>, QueueFault> {
        let ram = self.queue.queue.ram();
        let request = request::parse(&self.chain, ram, self.disk.allowed)?;
        // All of the writable part counts as written: the status, which always is, is its end.
        let written = u32::try_from(self.chain.writable_bytes()).unwrap_or(u32::MAX);
        let (head, status) = (self.chain.head(), request.status);
        let (operation, offset, len) = match request.command {
            Ok(Command::Read { offset, len }) => (Operation::Read, offset, len),
            Ok(Command::Write { offset, len }) => (Operation::Write, offset, len),
            Ok(Command::Flush) => (Operation::Flush, 0, 0),
            Ok(Command::Discard { offset, len }) => (Operation::Discard, offset, len),
            Ok(Command::WriteZeroes { offset, len, unmap }) => {
                (Operation::WriteZeroes { unmap }, offset, len)
            }
            Ok(Command::Identify) => {
                self.chain.write_at(ram, 0, &self.disk.id);
                self.answer(head, status, written, OK)?;
                return Ok(None);
            }
            Err(refusal) => {
                self.answer(head, status, written, refusal)?;
                return Ok(None);
            }
        };
        let now = Instant::now();
        if let Err(time) = self.admit(operation, len, now) {
            return Ok(Some(time));
        }
        let Some(tag) = self.free.pop() else {
            // There was room.
            return Ok(Some(now + POLL));
        };
        if let Some(place) = self.pending.get_mut(usize::from(tag)) {
            *place = Some(Pending {
                head,
                status,
                written,
                operation,
                offset,
                len,
                begun: now,
            });
        }
        let (spans, skip) = match operation {
            Operation::Read => (self.chain.writable(), 0),
            Operation::Write => (self.chain.readable(), HEADER_BYTES as u64),
            _ => (Default::default(), 0),
        };
        self.engine
            .submit(tag.into(), operation, offset, len, spans, skip);
        Ok(None)
    }

    /// Whether the disk's limits allow the operation now.
    fn admit(&self, operation: Operation, len: u64, now: Instant) -> Result<(), Instant> {
        let (direction, bytes) = match operation {
            Operation::Read => (Direction::Read, len),
            Operation::Write | Operation::WriteZeroes { .. } => (Direction::Write, len),
            // Moves no data.
            Operation::Discard => (Direction::Write, 0),
            Operation::Flush => return Ok(()),
        };
        self.disk.throttle.admit(direction, bytes, now)
    }

    /// Gives back what the engine has done.
    fn give_back(&mut self) -> Result<(), QueueFault> {
        self.engine.poll();
        while let Some(completion) = self.engine.reap() {
            if let Some((pending, status)) = self.complete(completion) {
                self.answer(pending.head, pending.status, pending.written, status)?;
            }
        }
        Ok(())
    }

    /// As [`Self::give_back`], for a queue that may not be touched.
    fn finish(&mut self) {
        self.engine.poll();
        while let Some(completion) = self.engine.reap() {
            self.complete(completion);
        }
    }

    /// Counts a request that is done; which it was, and its status.
    fn complete(&mut self, completion: Completion) -> Option<(Pending, u8)> {
        let tag = u16::try_from(completion.tag).ok()?;
        let pending = self.pending.get_mut(usize::from(tag))?.take()?;
        self.free.push(tag);
        let counters = match pending.operation {
            Operation::Read => &self.disk.stats.reads,
            Operation::Write => &self.disk.stats.writes,
            Operation::Flush => &self.disk.stats.flushes,
            Operation::Discard | Operation::WriteZeroes { .. } => &self.disk.stats.discards,
        };
        let failed = completion.result.is_err();
        counters.count(pending.len, pending.begun.elapsed(), failed);
        if let (Err(error), Some(errors)) = (completion.result, &self.disk.errors) {
            errors.failed(&DiskError {
                operation: pending.operation,
                offset: pending.offset,
                len: pending.len,
                error,
            });
        }
        Some((pending, if failed { IOERR } else { OK }))
    }

    fn answer(
        &mut self,
        head: u16,
        address: u64,
        written: u32,
        status: u8,
    ) -> Result<(), QueueFault> {
        self.queue.queue.ram().write(address, &[status])?;
        self.queue.queue.push(head, written)
    }
}

impl QueueWorker for Worker {
    fn start(&mut self, sources: &Sources<'_>) {
        let mut added = sources.add(&*self.queue.kick, KICK, Interest::Arrival);
        if let Some(event) = self.engine.event() {
            added = added.and(sources.add(event, ENGINE, Interest::Arrival));
        }
        if let Err(error) = added {
            tracing::error!(%error, "cannot wait for a disk's events");
            self.queue.interrupts.needs_reset();
        }
        self.serve();
    }

    fn ready(&mut self, _token: u32, _hung_up: bool, _sources: &Sources<'_>) {
        self.serve();
    }

    fn next_event(&self) -> Option<Instant> {
        self.again
    }

    fn tick(&mut self, _sources: &Sources<'_>) {
        self.serve();
    }

    fn stop(mut self: Box<Self>, sources: &Sources<'_>) -> Progress {
        // Not registered if `start` failed.
        let _ = sources.remove(&*self.queue.kick);
        if let Some(event) = self.engine.event() {
            let _ = sources.remove(event);
        }
        self.engine.signal_completions(false);
        if let Err(error) = self.engine.detach() {
            tracing::error!(%error, "writing out a disk's metadata failed");
        }
        if self.broken.is_broken() {
            self.finish();
        } else {
            let result = self.give_back().and_then(|()| self.queue.notify());
            self.broken.note(result, &*self.queue.interrupts);
        }
        let progress = vec![(self.queue.index, self.queue.queue.progress())];
        // An order that comes from here on finds the engine idle.
        let mut place = lock(&self.slot);
        let orders = match &mut *place {
            Place::Running { orders, .. } => std::mem::take(orders),
            Place::Idle(_) => Vec::new(),
        };
        for order in orders {
            if order.carry_out(&mut self.engine) {
                self.disk.changed.store(true, Ordering::Release);
            }
        }
        *place = Place::Idle(self.engine);
        progress
    }
}
