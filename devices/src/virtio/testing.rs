//! A driver's side of a queue, for the unit tests of devices.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::queue::{Queue, QueueLayout, QueueProgress, RingFeatures};
use super::{Interrupts, RunningQueue};
use crate::event::Event;
use crate::memory::GuestRam;

/// Counts what the driver is told.
#[derive(Debug, Default)]
pub(crate) struct RecordInterrupts {
    queue: AtomicUsize,
    config: AtomicUsize,
    needs_reset: AtomicUsize,
}

impl RecordInterrupts {
    /// Interrupts of any queue since last asked.
    pub(crate) fn take_queue(&self) -> usize {
        self.queue.swap(0, Ordering::Relaxed)
    }

    /// Changes of configuration since last asked.
    pub(crate) fn take_config(&self) -> usize {
        self.config.swap(0, Ordering::Relaxed)
    }

    /// Whether a reset was asked for.
    pub(crate) fn broken(&self) -> bool {
        self.needs_reset.load(Ordering::Relaxed) > 0
    }
}

impl Interrupts for RecordInterrupts {
    fn queue(&self, _index: u16) {
        self.queue.fetch_add(1, Ordering::Relaxed);
    }

    fn config(&self) {
        self.config.fetch_add(1, Ordering::Relaxed);
    }

    fn needs_reset(&self) {
        self.needs_reset.fetch_add(1, Ordering::Relaxed);
    }
}

/// A buffer as a driver describes it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Buffer {
    pub(crate) address: u64,
    pub(crate) len: u32,
    pub(crate) writable: bool,
}

/// The device reads these bytes.
pub(crate) fn out(address: u64, len: u32) -> Buffer {
    Buffer {
        address,
        len,
        writable: false,
    }
}

/// The device writes these bytes.
pub(crate) fn into(address: u64, len: u32) -> Buffer {
    Buffer {
        address,
        len,
        writable: true,
    }
}

/// A driver with one queue. It never reuses descriptors: good for as many as the queue has.
#[derive(Debug, Clone)]
pub(crate) struct Driver {
    pub(crate) ram: GuestRam,
    pub(crate) layout: QueueLayout,
    pub(crate) features: RingFeatures,
    next_descriptor: u16,
    available: u16,
    seen: u16,
}

impl Driver {
    /// Bytes that the rings of a queue of `size` take, at most.
    pub(crate) const fn bytes(size: u16) -> u64 {
        (size as u64) * 26 + 64
    }

    /// Puts the rings of a queue at `base`, aligned to 16.
    pub(crate) fn new(ram: &GuestRam, base: u64, size: u16) -> Self {
        let entries = u64::from(size);
        let available = base + entries * 16;
        let used = (available + 6 + entries * 2).next_multiple_of(4);
        Self {
            ram: ram.clone(),
            layout: QueueLayout {
                size,
                descriptors: base,
                available,
                used,
            },
            features: RingFeatures {
                indirect: true,
                event_index: false,
            },
            next_descriptor: 0,
            available: 0,
            seen: 0,
        }
    }

    /// The device's side.
    pub(crate) fn queue(&self) -> Queue {
        Queue::new(
            self.ram.clone(),
            self.layout,
            self.layout.size,
            self.features,
            QueueProgress::default(),
        )
        .expect("a good layout")
    }

    /// The device's side, running as queue `index`.
    pub(crate) fn running(&self, index: u16, interrupts: &Arc<RecordInterrupts>) -> RunningQueue {
        RunningQueue {
            queue: self.queue(),
            index,
            kick: Arc::new(Event::new().expect("an eventfd")),
            interrupts: Arc::clone(interrupts) as _,
        }
    }

    /// Writes one descriptor.
    pub(crate) fn descriptor(&self, index: u16, address: u64, len: u32, flags: u16, next: u16) {
        self.descriptor_in(self.layout.descriptors, index, address, len, flags, next);
    }

    /// Writes one descriptor of the table at `table`.
    pub(crate) fn descriptor_in(
        &self,
        table: u64,
        index: u16,
        address: u64,
        len: u32,
        flags: u16,
        next: u16,
    ) {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&address.to_le_bytes());
        bytes[8..12].copy_from_slice(&len.to_le_bytes());
        bytes[12..14].copy_from_slice(&flags.to_le_bytes());
        bytes[14..].copy_from_slice(&next.to_le_bytes());
        let place = table + u64::from(index) * 16;
        self.ram.write(place, &bytes).expect("the table is in RAM");
    }

    /// Uses the descriptors again from the first on: all chains have come back.
    pub(crate) fn reuse(&mut self) {
        self.next_descriptor = 0;
    }

    /// Makes a chain of `buffers` available; gives its head.
    pub(crate) fn add(&mut self, buffers: &[Buffer]) -> u16 {
        let head = self.next_descriptor;
        for (position, buffer) in buffers.iter().enumerate() {
            let index = self.next_descriptor;
            self.next_descriptor += 1;
            let last = position + 1 == buffers.len();
            let flags = u16::from(!last) | u16::from(buffer.writable) << 1;
            self.descriptor(index, buffer.address, buffer.len, flags, index + 1);
        }
        self.offer(head);
        head
    }

    /// Makes descriptor `head` available, whatever is there.
    pub(crate) fn offer(&mut self, head: u16) {
        let slot = u64::from(self.available % self.layout.size);
        let place = self.layout.available + 4 + slot * 2;
        self.ram
            .write(place, &head.to_le_bytes())
            .expect("the ring is in RAM");
        self.set_available(self.available.wrapping_add(1));
    }

    /// Sets the available index.
    pub(crate) fn set_available(&mut self, index: u16) {
        self.available = index;
        self.ram
            .write(self.layout.available + 2, &index.to_le_bytes())
            .expect("the ring is in RAM");
    }

    /// Says after which used entry an interrupt is wanted.
    pub(crate) fn set_used_event(&self, event: u16) {
        let place = self.layout.available + 4 + u64::from(self.layout.size) * 2;
        self.ram
            .write(place, &event.to_le_bytes())
            .expect("the ring is in RAM");
    }

    /// Says that no interrupt is wanted, or that one is.
    pub(crate) fn set_no_interrupt(&self, none: bool) {
        self.ram
            .write(self.layout.available, &u16::from(none).to_le_bytes())
            .expect("the ring is in RAM");
    }

    fn read_u16(&self, address: u64) -> u16 {
        let mut bytes = [0; 2];
        self.ram.read(address, &mut bytes).expect("in RAM");
        u16::from_le_bytes(bytes)
    }

    /// The device's flags in the used ring.
    pub(crate) fn used_flags(&self) -> u16 {
        self.read_u16(self.layout.used)
    }

    /// The index of which the device wants to be notified.
    pub(crate) fn available_event(&self) -> u16 {
        self.read_u16(self.layout.used + 4 + u64::from(self.layout.size) * 8)
    }

    /// What was given back since last asked: heads and bytes written.
    pub(crate) fn take_used(&mut self) -> Vec<(u32, u32)> {
        let index = self.read_u16(self.layout.used + 2);
        let mut used = Vec::new();
        while self.seen != index {
            let slot = u64::from(self.seen % self.layout.size);
            let mut entry = [0; 8];
            self.ram
                .read(self.layout.used + 4 + slot * 8, &mut entry)
                .expect("in RAM");
            let [h0, h1, h2, h3, w0, w1, w2, w3] = entry;
            used.push((
                u32::from_le_bytes([h0, h1, h2, h3]),
                u32::from_le_bytes([w0, w1, w2, w3]),
            ));
            self.seen = self.seen.wrapping_add(1);
        }
        used
    }
}
