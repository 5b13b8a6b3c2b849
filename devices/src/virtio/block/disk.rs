//! What the front, the workers and the control thread share of one disk.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::super::Interrupts;
use super::request::{Allowed, ID_BYTES};
use crate::block::SizeChange;
use crate::block::engine::{Engine, Medium, Operation};
use crate::block::raw::would_shrink;
use crate::block::stats::BlockStats;
use crate::block::throttle::Throttle;
use crate::event::Event;
use crate::shared::lock;

/// A request that storage failed.
#[derive(Debug)]
pub struct DiskError {
    /// What was asked.
    pub operation: Operation,
    /// First byte of the disk.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
    /// What the storage said.
    pub error: io::Error,
}

/// Told of requests that storage failed; the driver has been told as well. Called on a device thread:
/// does not block, and sees to it itself that a guest cannot flood it.
pub trait ErrorSink: std::fmt::Debug + Send + Sync {
    /// One has failed.
    fn failed(&self, error: &DiskError);
}

/// What of a disk all its queues share.
#[derive(Debug)]
pub(super) struct Disk {
    /// Bytes. Changed by [`set_capacity`](Self::set_capacity) only.
    pub(super) capacity: AtomicU64,
    /// How often that has changed. Held while it changes, so that whoever asks finds both as they were or both
    /// as they are.
    pub(super) changes: Mutex<u8>,
    pub(super) allowed: Allowed,
    pub(super) block_bytes: u32,
    pub(super) id: [u8; ID_BYTES],
    pub(super) stats: Arc<BlockStats>,
    pub(super) throttle: Arc<Throttle>,
    pub(super) errors: Option<Arc<dyn ErrorSink>>,
    /// A change of size or medium is under way.
    pub(super) changing: AtomicBool,
    /// Bytes are being read for somebody else than its guest.
    pub(super) peeking: AtomicBool,
    /// The size may have changed while no driver could be told.
    pub(super) changed: AtomicBool,
    /// The way to the driver, while it runs.
    pub(super) interrupts: Mutex<Option<Arc<dyn Interrupts>>>,
}

impl Disk {
    /// Sets the size; gives the one before.
    pub(super) fn set_capacity(&self, size: u64) -> u64 {
        let mut changes = lock(&self.changes);
        let before = self.capacity.swap(size, Ordering::AcqRel);
        if before != size {
            *changes = changes.wrapping_add(1);
        }
        before
    }

    /// Tells the driver that the configuration has changed, now or once it runs.
    fn tell(&self) {
        match &*lock(&self.interrupts) {
            Some(interrupts) => interrupts.config(),
            None => self.changed.store(true, Ordering::Release),
        }
    }
}

/// Where the engine of a queue is.
#[derive(Debug)]
pub(super) enum Place {
    /// Here: the queue does not run.
    Idle(Box<Engine>),
    /// With the queue's worker.
    Running {
        /// Wakes the worker.
        kick: Arc<Event>,
        /// What it is to do besides, in this order: one change and one look at most, each by its flag.
        orders: Vec<Order>,
    },
}

/// The place of one engine. Never held while an engine works, but for an [`Order`] while idle.
pub(super) type Slot = Arc<Mutex<Place>>;

/// Called with the disk's new size in bytes, on whichever thread had the last of its engines.
pub type Resized = Box<dyn FnOnce(io::Result<u64>) + Send>;

/// Called with bytes of the disk, on whichever thread has its engine.
pub type Peeked = Box<dyn FnOnce(io::Result<Vec<u8>>) + Send>;

/// What an engine is to do besides serving its queue.
#[derive(Debug)]
pub(super) enum Order {
    /// Change the size.
    Resize(Arc<Resize>),
    /// Change the medium, of the only engine.
    Exchange(Exchange),
    /// Read some of it.
    Peek(Peek),
}

impl Order {
    /// Does it. True if the driver is to be told.
    pub(super) fn carry_out(self, engine: &mut Engine) -> bool {
        match self {
            Self::Resize(resize) => resize.carry_out(engine),
            Self::Exchange(exchange) => exchange.carry_out(engine),
            Self::Peek(peek) => peek.carry_out(engine),
        }
    }
}

/// A change of size, which each engine makes for itself.
pub(super) struct Resize {
    change: SizeChange,
    left: AtomicUsize,
    outcome: Mutex<io::Result<u64>>,
    done: Mutex<Option<Resized>>,
    disk: Arc<Disk>,
}

impl std::fmt::Debug for Resize {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Resize")
            .field("change", &self.change)
            .field("left", &self.left)
            .finish_non_exhaustive()
    }
}

impl Resize {
    fn new(disk: &Arc<Disk>, change: SizeChange, engines: usize, done: Resized) -> Self {
        Self {
            change,
            left: AtomicUsize::new(engines),
            outcome: Mutex::new(Ok(u64::MAX)),
            done: Mutex::new(Some(done)),
            disk: Arc::clone(disk),
        }
    }

    /// Makes the change with this engine. True if it was the last and the disk's size is another now, of
    /// which the driver is to be told.
    fn carry_out(&self, engine: &mut Engine) -> bool {
        let before = self.disk.capacity.load(Ordering::Acquire);
        let cut = self.change.to.filter(|size| *size < before);
        self.note(match cut {
            // What is cut off must not come back by another queue's write.
            Some(size) if self.change.shrink => engine.limit(size).map(|()| size),
            _ => engine.resize(self.change),
        });
        if self.left.fetch_sub(1, Ordering::AcqRel) != 1 {
            return false;
        }
        let mut outcome = std::mem::replace(&mut *lock(&self.outcome), Ok(0));
        let size = outcome.as_ref().ok().copied();
        if cut.is_some() && size.is_some() {
            outcome = engine.resize(self.change);
        }
        let changed = size.is_some_and(|size| self.disk.set_capacity(size) != size);
        self.disk.changing.store(false, Ordering::Release);
        if let Some(done) = lock(&self.done).take() {
            done(outcome);
        }
        changed
    }

    fn note(&self, result: io::Result<u64>) {
        let mut outcome = lock(&self.outcome);
        match (&mut *outcome, result) {
            (Err(_), _) => {}
            (Ok(smallest), Ok(size)) => *smallest = size.min(*smallest),
            (place, Err(error)) => *place = Err(error),
        }
    }
}

/// A change of medium.
pub(super) struct Exchange {
    medium: Medium,
    done: Resized,
    disk: Arc<Disk>,
}

impl std::fmt::Debug for Exchange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exchange").finish_non_exhaustive()
    }
}

impl Exchange {
    fn carry_out(self, engine: &mut Engine) -> bool {
        engine.exchange(self.medium);
        let size = engine.size();
        let before = self.disk.set_capacity(size);
        self.disk.changing.store(false, Ordering::Release);
        (self.done)(Ok(size));
        // Another medium of the same size is news too; none after none is not.
        before != 0 || size != 0
    }
}

/// Bytes that are wanted of a disk.
pub(super) struct Peek {
    offset: u64,
    len: usize,
    done: Peeked,
    disk: Arc<Disk>,
}

impl std::fmt::Debug for Peek {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Peek").finish_non_exhaustive()
    }
}

impl Peek {
    /// No news for the driver in any case.
    fn carry_out(self, engine: &mut Engine) -> bool {
        let bytes = engine.peek(self.offset, self.len);
        self.disk.peeking.store(false, Ordering::Release);
        (self.done)(bytes);
        false
    }
}

/// What changes a disk while it is served. Its clones change the same disk.
#[derive(Debug, Clone)]
pub struct BlockControl {
    pub(super) disk: Arc<Disk>,
    pub(super) slots: Arc<[Slot]>,
}

impl BlockControl {
    /// What the disk has done so far.
    #[must_use]
    pub fn stats(&self) -> &BlockStats {
        &self.disk.stats
    }

    /// Its limits, which can be set at any time.
    #[must_use]
    pub fn throttle(&self) -> &Throttle {
        &self.disk.throttle
    }

    /// The disk's size in bytes; 0 without a medium.
    #[must_use]
    pub fn capacity(&self) -> u64 {
        self.disk.capacity.load(Ordering::Acquire)
    }

    /// Changes the disk's size, tells the driver of it, and calls `done` when all its queues know: at once
    /// if none runs, later and on a device's thread otherwise. Requests under way are done first. One
    /// change at a time; another is refused with `ResourceBusy`. Where what a disk lost could not be cut
    /// off its file there is an error, and the disk is smaller all the same.
    pub fn resize(&self, change: SizeChange, done: Resized) {
        if let Err(error) = self.check(change) {
            return done(Err(error));
        }
        if self.disk.changing.swap(true, Ordering::AcqRel) {
            return done(Err(busy()));
        }
        let job = Arc::new(Resize::new(&self.disk, change, self.slots.len(), done));
        let mut changed = false;
        for slot in self.slots.iter() {
            changed |= order(slot, Order::Resize(Arc::clone(&job)));
        }
        if changed {
            self.disk.tell();
        }
    }

    fn check(&self, change: SizeChange) -> io::Result<()> {
        let Some(size) = change.to else {
            return Ok(());
        };
        let block = u64::from(self.disk.block_bytes);
        if size == 0 || size % block != 0 {
            let why = format!("its size is a multiple of its blocks of {block} bytes, and not 0");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        let now = self.capacity();
        if size < now && !change.shrink {
            return Err(would_shrink(now, size));
        }
        Ok(())
    }

    /// Reads `len` bytes at `offset` between two of the guest's requests, and calls `done` with them: as
    /// [`resize`](Self::resize). One at a time, behind a change that is under way; it is none itself.
    pub fn peek(&self, offset: u64, len: usize, done: Peeked) {
        let Some(slot) = self.slots.first() else {
            return done(Err(busy()));
        };
        if self.disk.peeking.swap(true, Ordering::AcqRel) {
            let why = "its storage has not read what was asked of it before yet";
            return done(Err(io::Error::new(io::ErrorKind::ResourceBusy, why)));
        }
        let peek = Peek {
            offset,
            len,
            done,
            disk: Arc::clone(&self.disk),
        };
        order(slot, Order::Peek(peek));
    }

    /// Has another medium served from now on, tells the driver, and calls `done` with its size: as
    /// [`resize`](Self::resize). What the one before was made of is closed by then.
    ///
    /// Refused with `Unsupported` for a disk of several queues.
    pub fn exchange(&self, medium: Medium, done: Resized) {
        let [slot] = &*self.slots else {
            let why = "a disk of several queues keeps its medium";
            return done(Err(io::Error::new(io::ErrorKind::Unsupported, why)));
        };
        if self.disk.changing.swap(true, Ordering::AcqRel) {
            return done(Err(busy()));
        }
        let exchange = Exchange {
            medium,
            done,
            disk: Arc::clone(&self.disk),
        };
        if order(slot, Order::Exchange(exchange)) {
            self.disk.tell();
        }
    }
}

fn busy() -> io::Error {
    let why = "an earlier change of it is still under way";
    io::Error::new(io::ErrorKind::ResourceBusy, why)
}

/// Has the engine of that place do something, here if it is idle; true if it has and the driver is to be
/// told.
fn order(slot: &Slot, order: Order) -> bool {
    match &mut *lock(slot) {
        Place::Idle(engine) => order.carry_out(engine),
        Place::Running { kick, orders } => {
            orders.push(order);
            kick.signal();
            false
        }
    }
}
