//! The device's way to its driver: interrupts by vector, and what the driver may ask of them.
//!
//! Reached from device threads and vCPU threads at once, so it is atomics only; what sends a message is
//! a leaf of the lock order.

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, Ordering};

use super::super::Interrupts;

/// `VIRTIO_MSI_NO_VECTOR` (§4.1.5.1.2).
pub const NO_VECTOR: u16 = 0xffff;

/// `ISR` bit: a queue was used (§4.1.4.5).
const ISR_QUEUE: u8 = 1;
/// `ISR` bit: the configuration has changed.
const ISR_CONFIG: u8 = 2;

/// What sends the interrupt of a vector.
pub trait Vectors: Debug + Send + Sync {
    /// Sends it, or keeps it pending while it is masked. A vector there is not is ignored.
    fn trigger(&self, vector: u16);

    /// How many vectors there are.
    fn count(&self) -> u16;
}

/// Which vector stands for what, and what is yet to be seen by the driver.
#[derive(Debug)]
pub struct Line {
    vectors: Arc<dyn Vectors>,
    config_vector: AtomicU16,
    queue_vectors: Vec<AtomicU16>,
    isr: AtomicU8,
    generation: AtomicU8,
    needs_reset: AtomicBool,
}

impl Line {
    /// A line for `queues` queues; no vector stands for anything yet.
    #[must_use]
    pub fn new(vectors: Arc<dyn Vectors>, queues: usize) -> Self {
        Self {
            vectors,
            config_vector: AtomicU16::new(NO_VECTOR),
            queue_vectors: (0..queues).map(|_| AtomicU16::new(NO_VECTOR)).collect(),
            isr: AtomicU8::new(0),
            generation: AtomicU8::new(0),
            needs_reset: AtomicBool::new(false),
        }
    }

    /// `vector` if there is such a one, else [`NO_VECTOR`]: what a driver reads back when a vector it
    /// wrote was not taken.
    fn checked(&self, vector: u16) -> u16 {
        if vector < self.vectors.count() {
            vector
        } else {
            NO_VECTOR
        }
    }

    /// The vector of configuration changes.
    #[must_use]
    pub fn config_vector(&self) -> u16 {
        self.config_vector.load(Ordering::Relaxed)
    }

    /// Chooses the vector of configuration changes.
    pub fn set_config_vector(&self, vector: u16) {
        self.config_vector
            .store(self.checked(vector), Ordering::Relaxed);
    }

    /// The vector of queue `index`.
    #[must_use]
    pub fn queue_vector(&self, index: u16) -> u16 {
        self.queue_vectors
            .get(usize::from(index))
            .map_or(NO_VECTOR, |vector| vector.load(Ordering::Relaxed))
    }

    /// Chooses the vector of queue `index`.
    pub fn set_queue_vector(&self, index: u16, vector: u16) {
        if let Some(place) = self.queue_vectors.get(usize::from(index)) {
            place.store(self.checked(vector), Ordering::Relaxed);
        }
    }

    /// The interrupt status, which reading clears.
    pub fn take_isr(&self) -> u8 {
        self.isr.swap(0, Ordering::Relaxed)
    }

    /// Changes whenever the driver is told that the configuration space has changed.
    #[must_use]
    pub fn generation(&self) -> u8 {
        self.generation.load(Ordering::Acquire)
    }

    /// Puts `generation` where it is to go on from.
    pub(super) fn restore_generation(&self, generation: u8) {
        self.generation.store(generation, Ordering::Release);
    }

    /// Whether the device asks to be reset.
    #[must_use]
    pub fn wants_reset(&self) -> bool {
        self.needs_reset.load(Ordering::Acquire)
    }

    /// Puts `needs_reset` back where a saved state had it.
    pub(super) fn restore_wants_reset(&self, wants: bool) {
        self.needs_reset.store(wants, Ordering::Release);
    }

    /// To the state after power-on.
    pub fn reset(&self) {
        self.config_vector.store(NO_VECTOR, Ordering::Relaxed);
        for vector in &self.queue_vectors {
            vector.store(NO_VECTOR, Ordering::Relaxed);
        }
        self.isr.store(0, Ordering::Relaxed);
        self.needs_reset.store(false, Ordering::Release);
    }

    fn trigger(&self, vector: u16) {
        if vector != NO_VECTOR {
            self.vectors.trigger(vector);
        }
    }
}

impl Interrupts for Line {
    fn queue(&self, index: u16) {
        self.isr.fetch_or(ISR_QUEUE, Ordering::Relaxed);
        self.trigger(self.queue_vector(index));
    }

    fn config(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.isr.fetch_or(ISR_CONFIG, Ordering::Relaxed);
        self.trigger(self.config_vector());
    }

    fn needs_reset(&self) {
        if !self.needs_reset.swap(true, Ordering::AcqRel) {
            self.config();
        }
    }
}
