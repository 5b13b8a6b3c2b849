//! The driver's side of a split virtqueue (virtio 1.3 §2.7), with or without event indexes.
//!
//! Descriptors are the caller's: it says with which one a chain begins, and gives none that is in
//! flight. So a request that is made again and again costs one entry of the available ring.

use super::memory::{self, Registers, barrier, poke_u16, poke_u32, poke_u64};
use super::ring::{INDIRECT, NEXT, Rings, WRITE, passed};
use crate::machine::{read_u16, read_u32};
use crate::ring0::Interrupt;
use crate::time;

/// `VIRTQ_AVAIL_F_NO_INTERRUPT`, and `VIRTQ_USED_F_NO_NOTIFY`.
const NOT_WANTED: u16 = 1;

/// A buffer as a request describes it.
#[derive(Clone, Copy)]
pub struct Buffer {
    /// Physical address.
    pub address: u64,
    /// Length in bytes.
    pub length: u32,
    /// Whether the device writes it.
    pub writable: bool,
}

/// The device reads it.
pub const fn out(address: u64, length: u32) -> Buffer {
    Buffer {
        address,
        length,
        writable: false,
    }
}

/// The device writes it.
pub const fn into(address: u64, length: u32) -> Buffer {
    Buffer {
        address,
        length,
        writable: true,
    }
}

/// What the device gave back.
#[derive(Clone, Copy)]
pub struct Used {
    /// The chain's first descriptor.
    pub head: u32,
    /// Bytes the device says it wrote.
    pub length: u32,
}

/// How a driver learns of what is done.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// By looking.
    Poll,
    /// By sleeping until it is interrupted.
    Interrupt,
}

/// A queue in use.
#[derive(Clone, Copy)]
pub struct Queue {
    /// Where its rings are.
    pub rings: Rings,
    /// Its number.
    pub index: u16,
    notify: Registers,
    event_index: bool,
    /// Entries put into the available ring.
    offered: u16,
    /// Entries the device was shown.
    shown: u16,
    /// Entries taken out of the used ring.
    seen: u16,
}

impl Queue {
    /// A queue whose rings are at their beginning; clears them.
    pub fn new(rings: Rings, index: u16, notify: Registers, event_index: bool, wait: Wait) -> Self {
        memory::fill(rings.descriptors, memory::RING_BYTES, 0);
        let queue = Self {
            rings,
            index,
            notify,
            event_index,
            offered: 0,
            shown: 0,
            seen: 0,
        };
        if wait == Wait::Poll {
            poke_u16(rings.available, NOT_WANTED);
            poke_u16(rings.used_event(), u16::MAX);
        }
        queue
    }

    /// Writes one descriptor, whatever it says.
    pub fn descriptor(&self, index: u16, address: u64, length: u32, flags: u16, next: u16) {
        put_descriptor(self.rings.descriptor(index), address, length, flags, next);
    }

    /// Writes a chain into the descriptors from `first` on.
    pub fn describe(&self, first: u16, buffers: &[Buffer]) {
        self.describe_at(self.rings.descriptor(first), first, buffers);
    }

    /// Writes a chain into a table at `table`, to which descriptor `head` points.
    pub fn describe_indirect(&self, head: u16, table: u64, buffers: &[Buffer]) {
        self.describe_at(table, 0, buffers);
        self.descriptor(head, table, buffers.len() as u32 * 16, INDIRECT, 0);
    }

    fn describe_at(&self, place: u64, first: u16, buffers: &[Buffer]) {
        for (step, buffer) in (0_u16..).zip(buffers) {
            let last = usize::from(step) + 1 == buffers.len();
            let next = if last { 0 } else { NEXT };
            let write = if buffer.writable { WRITE } else { 0 };
            put_descriptor(
                place + u64::from(step) * 16,
                buffer.address,
                buffer.length,
                next | write,
                first.wrapping_add(step).wrapping_add(1),
            );
        }
    }

    /// Puts a chain into the available ring; [`Self::show`] lets the device see it.
    pub fn offer(&mut self, head: u16) {
        poke_u16(self.rings.available_entry(self.offered), head);
        self.offered = self.offered.wrapping_add(1);
    }

    /// Shows what was offered, and notifies the device if it wants that.
    pub fn show(&mut self) {
        let (old, new) = (self.shown, self.offered);
        if old == new {
            return;
        }
        self.shown = new;
        poke_u16(self.rings.available_index(), new);
        barrier();
        let wanted = if self.event_index {
            passed(read_u16(self.rings.available_event()), new, old)
        } else {
            read_u16(self.rings.used) & NOT_WANTED == 0
        };
        if wanted {
            self.kick();
        }
    }

    /// Notifies the device.
    pub fn kick(&self) {
        self.notify.write_u16(0, self.index);
    }

    /// One chain, shown at once.
    pub fn submit(&mut self, head: u16) {
        self.offer(head);
        self.show();
    }

    /// Moves the available index without entries to match.
    pub fn jump(&mut self, by: u16) {
        self.offered = self.offered.wrapping_add(by);
        self.shown = self.offered;
        poke_u16(self.rings.available_index(), self.offered);
    }

    /// Takes one entry of the used ring.
    pub fn take(&mut self) -> Option<Used> {
        if read_u16(self.rings.used_index()) == self.seen {
            return None;
        }
        let entry = self.rings.used_entry(self.seen);
        self.seen = self.seen.wrapping_add(1);
        Some(Used {
            head: read_u32(entry),
            length: read_u32(entry + 4),
        })
    }

    /// Chains that are shown and not taken back.
    pub fn in_flight(&self) -> u16 {
        self.shown.wrapping_sub(self.seen)
    }

    /// Waits for an entry of the used ring, no longer than until the time-stamp counter is at
    /// `deadline`. Sleeping, a timer has to run that ends the sleep when no interrupt comes.
    pub fn wait(&mut self, wait: Wait, deadline: u64) -> Option<Used> {
        self.wait_for(1, wait, deadline)
    }

    /// As [`Self::wait`], but sleeps until there are so many entries; with event indexes only.
    pub fn wait_for(&mut self, entries: u16, wait: Wait, deadline: u64) -> Option<Used> {
        loop {
            let count = Interrupt::Device.count();
            if let Some(used) = self.take() {
                return Some(used);
            }
            if time::cycles() > deadline {
                return None;
            }
            if wait == Wait::Poll {
                core::hint::spin_loop();
                continue;
            }
            let last = entries.saturating_sub(1);
            poke_u16(self.rings.used_event(), self.seen.wrapping_add(last));
            barrier();
            if read_u16(self.rings.used_index()).wrapping_sub(self.seen) <= last {
                Interrupt::Device.wait(count);
            }
        }
    }
}

/// Writes a descriptor anywhere in the arena.
pub fn put_descriptor(place: u64, address: u64, length: u32, flags: u16, next: u16) {
    poke_u64(place, address);
    poke_u32(place + 8, length);
    poke_u16(place + 12, flags);
    poke_u16(place + 14, next);
}
