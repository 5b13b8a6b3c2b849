//! The block device (virtio 1.3 §5.2).
//!
//! ```text
//!  front: features, configuration ── start ──► one Worker for each queue ──► Engine ──► files
//!    │  Slot: the engine, while no worker has it ◄── stop ──┘                  (crate::block)
//!    └─ Disk: size, counters, limits; shared
//! ```
//!
//! The front keeps the engines while the device does not run and lends one to each queue's worker. So
//! when nothing runs the disk is whole in the front's hands: all requests are done and the format's
//! metadata is written out. What else there is to save is in the image.

mod config;
mod disk;
mod request;
#[cfg(test)]
mod tests;
mod worker;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

pub use self::disk::{BlockControl, DiskError, ErrorSink, Peeked, Resized};

use self::config::Config;
use self::disk::{Disk, Place, Slot};
use self::request::Allowed;
use self::worker::Worker;
use super::queue::MAX_SIZE;
use super::{DeviceId, QueueWorker, Start, StartError, Unwritten, VirtioDevice};
use crate::block::cache::CacheMode;
use crate::block::engine::Engine;
use crate::block::stats::BlockStats;
use crate::block::throttle::{Limits, Throttle};
use crate::shared::lock;
use crate::state::{Schema, StateError, StateReader, StateWriter};

/// The layout of the saved state: the size that the driver was told, in bytes, and whether there is a change
/// that it was not told of.
const SCHEMA: Schema = Schema {
    name: "virtio-blk",
    version: 1,
};

/// `VIRTIO_BLK_F_SEG_MAX`.
const F_SEG_MAX: u64 = 1 << 2;
/// `VIRTIO_BLK_F_RO`.
const F_RO: u64 = 1 << 5;
/// `VIRTIO_BLK_F_BLK_SIZE`.
const F_BLK_SIZE: u64 = 1 << 6;
/// `VIRTIO_BLK_F_FLUSH`.
const F_FLUSH: u64 = 1 << 9;
/// `VIRTIO_BLK_F_TOPOLOGY`.
const F_TOPOLOGY: u64 = 1 << 10;
/// `VIRTIO_BLK_F_MQ`.
const F_MQ: u64 = 1 << 12;
/// `VIRTIO_BLK_F_DISCARD`.
const F_DISCARD: u64 = 1 << 13;
/// `VIRTIO_BLK_F_WRITE_ZEROES`.
const F_WRITE_ZEROES: u64 = 1 << 14;

/// The most queues of a disk.
pub const MAX_QUEUES: usize = 64;

/// What a disk is to its driver.
#[derive(Debug, Clone)]
pub struct BlockParams {
    /// What the driver gets for a serial number: at most 20 bytes, shorter ones end in zeroes.
    pub serial: [u8; 20],
    /// Whether writes are refused.
    pub read_only: bool,
    /// Bytes of a logical block: a power of two from 512 to 4096.
    pub block_bytes: u32,
    /// Bytes of a physical block: a power of two, at least a logical one.
    pub physical_block_bytes: u32,
    /// Bytes that discards are best aligned to: a multiple of a logical block.
    pub discard_granularity: u32,
    /// Entries of each queue: a power of two from 4 to [`MAX_SIZE`].
    pub queue_size: u16,
    /// Whether the driver may discard, and have zeroed ranges give their room back.
    pub discard: bool,
    /// Limits of its rate.
    pub limits: Limits,
    /// Who is told of failed requests besides the driver.
    pub errors: Option<Arc<dyn ErrorSink>>,
}

impl Default for BlockParams {
    fn default() -> Self {
        Self {
            serial: [0; 20],
            read_only: false,
            block_bytes: 512,
            physical_block_bytes: 512,
            discard_granularity: 512,
            queue_size: 256,
            discard: true,
            limits: Limits::default(),
            errors: None,
        }
    }
}

/// Why a disk cannot be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// No engine, or more than [`MAX_QUEUES`].
    #[error("a disk cannot have {0} queues")]
    Queues(usize),
    /// A size of blocks or queues that there is not.
    #[error("{name} cannot be {value}")]
    Size {
        /// Which.
        name: &'static str,
        /// What it is.
        value: u32,
    },
}

/// The front half.
#[derive(Debug)]
pub struct Block {
    disk: Arc<Disk>,
    slots: Arc<[Slot]>,
    params: BlockParams,
    cache: CacheMode,
    queue_sizes: Vec<u16>,
}

impl Block {
    /// A disk with a queue for each of `engines`: one, or [siblings](Engine::sibling).
    ///
    /// # Errors
    /// [`BlockError`].
    pub fn new(params: BlockParams, engines: Vec<Engine>) -> Result<Self, BlockError> {
        let queues = engines.len();
        let first = engines.first().ok_or(BlockError::Queues(0))?;
        if queues > MAX_QUEUES {
            return Err(BlockError::Queues(queues));
        }
        let power = |value: u32, least: u32, most: u32| {
            value.is_power_of_two() && (least..=most).contains(&value)
        };
        let block = params.block_bytes;
        let granularity = params.discard_granularity;
        for (name, value, good) in [
            ("logical block", block, power(block, 512, 4096)),
            (
                "physical block",
                params.physical_block_bytes,
                power(params.physical_block_bytes, block, 1 << 20),
            ),
            (
                "discard granularity",
                granularity,
                granularity >= block && granularity % block == 0,
            ),
            (
                "queue",
                params.queue_size.into(),
                power(params.queue_size.into(), 4, MAX_SIZE.into()),
            ),
        ] {
            if !good {
                return Err(BlockError::Size { name, value });
            }
        }
        let write = !params.read_only;
        let disk = Disk {
            capacity: AtomicU64::new(first.size()),
            changes: Mutex::new(0),
            allowed: Allowed {
                write,
                discard: write && params.discard,
                write_zeroes: write,
                unmap: params.discard,
            },
            id: params.serial,
            stats: Arc::default(),
            throttle: Arc::new(Throttle::new(params.limits)),
            errors: params.errors.clone(),
            block_bytes: block,
            changing: AtomicBool::new(false),
            peeking: AtomicBool::new(false),
            changed: AtomicBool::new(false),
            interrupts: Mutex::new(None),
        };
        Ok(Self {
            cache: first.cache(),
            queue_sizes: vec![params.queue_size; queues],
            slots: engines
                .into_iter()
                .map(|engine| Arc::new(Mutex::new(Place::Idle(Box::new(engine)))))
                .collect(),
            disk: Arc::new(disk),
            params,
        })
    }

    /// What it has done so far.
    #[must_use]
    pub fn stats(&self) -> Arc<BlockStats> {
        Arc::clone(&self.disk.stats)
    }

    /// Its limits, which can be set at any time.
    #[must_use]
    pub fn throttle(&self) -> Arc<Throttle> {
        Arc::clone(&self.disk.throttle)
    }

    /// What changes it while it is served.
    #[must_use]
    pub fn control(&self) -> BlockControl {
        BlockControl {
            disk: Arc::clone(&self.disk),
            slots: Arc::clone(&self.slots),
        }
    }

    fn config(&self) -> Config {
        Config {
            capacity: self.disk.capacity.load(Ordering::Acquire),
            // A descriptor each for header and status.
            seg_max: u32::from(self.params.queue_size) - 2,
            block: self.params.block_bytes,
            physical_block: self.params.physical_block_bytes,
            discard_granularity: self.params.discard_granularity,
            queues: u16::try_from(self.slots.len()).unwrap_or(u16::MAX),
            unmap: self.disk.allowed.unmap,
        }
    }
}

impl VirtioDevice for Block {
    fn id(&self) -> DeviceId {
        DeviceId::Block
    }

    fn features(&self) -> u64 {
        let allowed = self.disk.allowed;
        let optional = [
            (self.params.read_only, F_RO),
            // Where each write is durable there is nothing to flush, and without the feature the
            // driver knows that.
            (!self.cache.is_write_through(), F_FLUSH),
            (self.slots.len() > 1, F_MQ),
            (allowed.discard, F_DISCARD),
            (allowed.write_zeroes, F_WRITE_ZEROES),
        ];
        optional
            .iter()
            .filter(|(offered, _)| *offered)
            .fold(F_SEG_MAX | F_BLK_SIZE | F_TOPOLOGY, |all, (_, one)| {
                all | one
            })
    }

    fn queue_sizes(&self) -> &[u16] {
        &self.queue_sizes
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        self.config().read(offset, data);
    }

    fn config_changes(&self) -> u8 {
        *lock(&self.disk.changes)
    }

    fn start(&mut self, start: Start) -> Result<Vec<Box<dyn QueueWorker>>, StartError> {
        let mut queues = start.queues;
        if queues.iter().all(Option::is_none) {
            return Err(StartError::MissingQueue(0));
        }
        // Before any engine is lent, so that a failure leaves all of them here.
        if self
            .slots
            .iter()
            .any(|slot| matches!(*lock(slot), Place::Running { .. }))
        {
            return Err(StartError::Host("the disk is still being served".into()));
        }
        let write_through = start.features & F_FLUSH == 0;
        let mut workers: Vec<Box<dyn QueueWorker>> = Vec::with_capacity(self.slots.len());
        for (slot, queue) in self.slots.iter().zip(&mut queues) {
            let Some(queue) = queue.take() else {
                continue;
            };
            let running = Place::Running {
                kick: Arc::clone(&queue.kick),
                orders: Vec::new(),
            };
            let place = std::mem::replace(&mut *lock(slot), running);
            let Place::Idle(mut engine) = place else {
                continue;
            };
            engine.attach(queue.queue.ram(), write_through);
            let (disk, slot) = (Arc::clone(&self.disk), Arc::clone(slot));
            workers.push(Box::new(Worker::new(queue, engine, disk, slot)));
        }
        let mut interrupts = lock(&self.disk.interrupts);
        if self.disk.changed.swap(false, Ordering::AcqRel) {
            start.interrupts.config();
        }
        *interrupts = Some(start.interrupts);
        drop(interrupts);
        Ok(workers)
    }

    fn stopped(&mut self) {
        *lock(&self.disk.interrupts) = None;
    }

    fn save(&self) -> Vec<u8> {
        StateWriter::new()
            .u64(self.disk.capacity.load(Ordering::Acquire))
            .bool(self.disk.changed.load(Ordering::Acquire))
            .finish()
    }

    /// Its size is the image's, which may have changed since the driver was last told: while the disk was not
    /// served, or between the two that served it. A record without a size is of one that did not note it.
    fn restore(&mut self, version: u32, bytes: &[u8]) -> Result<(), StateError> {
        SCHEMA.expect_version(version)?;
        let (mut other, mut untold) = (true, true);
        if !bytes.is_empty() {
            let mut reader = StateReader::new(bytes);
            let told = reader.u64()?;
            untold = reader.bool("changed")?;
            reader.finish()?;
            other = told != self.disk.capacity.load(Ordering::Acquire);
        }
        if other {
            // The driver may have read a part of the other.
            let mut changes = lock(&self.disk.changes);
            *changes = changes.wrapping_add(1);
        }
        self.disk.changed.store(other || untold, Ordering::Release);
        Ok(())
    }

    fn check_saveable(&self) -> Result<(), Unwritten> {
        for slot in self.slots.iter() {
            let place = lock(slot);
            let unwritten = match &*place {
                Place::Idle(engine) => engine.unwritten(),
                Place::Running { .. } => None,
            };
            if let Some(error) = unwritten {
                return Err(Unwritten(error.to_owned()));
            }
        }
        Ok(())
    }
}
