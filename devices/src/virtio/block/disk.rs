//! What the front, the workers and the control thread share of one disk.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::request::{Allowed, ID_BYTES};
use crate::block::engine::{Engine, Operation};
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
    /// Bytes.
    pub(super) capacity: AtomicU64,
    pub(super) allowed: Allowed,
    pub(super) id: [u8; ID_BYTES],
    pub(super) stats: Arc<BlockStats>,
    pub(super) throttle: Arc<Throttle>,
    pub(super) errors: Option<Arc<dyn ErrorSink>>,
    /// A change of size is under way.
    pub(super) resizing: AtomicBool,
    /// The size has changed while no driver could be told.
    pub(super) changed: AtomicBool,
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
        /// What it is to do besides.
        resize: Option<Arc<Resize>>,
    },
}

/// The place of one engine. Never held while an engine works, but for a change of size while idle.
pub(super) type Slot = Arc<Mutex<Place>>;

/// Called with the disk's new size in bytes, on whichever thread had the last of its engines.
pub type Resized = Box<dyn FnOnce(io::Result<u64>) + Send>;

/// A change of size, which each engine makes for itself.
pub(super) struct Resize {
    /// The least size wanted.
    pub(super) size: u64,
    left: AtomicUsize,
    outcome: Mutex<io::Result<u64>>,
    done: Mutex<Option<Resized>>,
    disk: Arc<Disk>,
}

impl std::fmt::Debug for Resize {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Resize")
            .field("size", &self.size)
            .field("left", &self.left)
            .finish_non_exhaustive()
    }
}

impl Resize {
    pub(super) fn new(disk: &Arc<Disk>, size: u64, engines: usize, done: Resized) -> Self {
        Self {
            size,
            left: AtomicUsize::new(engines),
            outcome: Mutex::new(Ok(u64::MAX)),
            done: Mutex::new(Some(done)),
            disk: Arc::clone(disk),
        }
    }

    /// An engine has made the change, or could not. True if it was the last and the disk's size is
    /// another now, of which the driver is to be told.
    pub(super) fn note(&self, result: io::Result<u64>) -> bool {
        {
            let mut outcome = lock(&self.outcome);
            match (&mut *outcome, result) {
                (Err(_), _) => {}
                (Ok(smallest), Ok(size)) => *smallest = size.min(*smallest),
                (place, Err(error)) => *place = Err(error),
            }
        }
        if self.left.fetch_sub(1, Ordering::AcqRel) != 1 {
            return false;
        }
        let outcome = std::mem::replace(&mut *lock(&self.outcome), Ok(0));
        let changed = outcome
            .as_ref()
            .is_ok_and(|size| self.disk.capacity.swap(*size, Ordering::AcqRel) != *size);
        self.disk.resizing.store(false, Ordering::Release);
        if let Some(done) = lock(&self.done).take() {
            done(outcome);
        }
        changed
    }
}
