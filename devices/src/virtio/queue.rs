//! The device's side of a split virtqueue (virtio 1.3 §2.7), with indirect descriptors and event
//! indexes.
//!
//! Everything in the rings is hostile. A descriptor is read once, into a copy that is checked; a chain
//! comes out whole or the queue is broken ([`QueueFault`]), after which the device asks to be reset
//! and touches the queue no more. No chain is silently cut short, which is why this is not the
//! library's queue: its iterator ends in the same way at a bad descriptor and at the last one.
//!
//! Bounds, whatever the guest does: a chain has at most [`MAX_CHAIN`] buffers, and at most as many
//! chains are out at once as the queue has entries.

use std::sync::atomic::{Ordering, fence};

use super::chain::{Chain, Span};
use crate::memory::{GuestRam, OutsideRam};

/// The most entries of a queue that a device of ours offers.
pub const MAX_SIZE: u16 = 1024;
/// The most buffers of one chain. A driver should not make one longer than the queue (§2.7.5.3.1),
/// but those with indirect tables are known to.
pub const MAX_CHAIN: usize = 1024;

/// Bytes of a descriptor.
const DESCRIPTOR_BYTES: u64 = 16;
/// `VIRTQ_DESC_F_NEXT`.
const NEXT: u16 = 1;
/// `VIRTQ_DESC_F_WRITE`.
const WRITE: u16 = 2;
/// `VIRTQ_DESC_F_INDIRECT`.
const INDIRECT: u16 = 4;
/// `VIRTQ_AVAIL_F_NO_INTERRUPT`.
const NO_INTERRUPT: u16 = 1;
/// `VIRTQ_USED_F_NO_NOTIFY`.
const NO_NOTIFY: u16 = 1;

/// Where a driver says its rings are, and how large they are. Hostile until [`Queue::new`] took it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct QueueLayout {
    /// Entries: a power of two, at most what the device offered.
    pub size: u16,
    /// Descriptor table, aligned to 16.
    pub descriptors: u64,
    /// Driver area (the available ring), aligned to 2.
    pub available: u64,
    /// Device area (the used ring), aligned to 4.
    pub used: u64,
}

impl QueueLayout {
    /// The address, the alignment and the bytes of the descriptor table, the driver area and the device area
    /// (§2.7). The addresses are as hostile as the layout.
    pub(crate) fn parts(&self) -> [(u64, u64, u64); 3] {
        let entries = u64::from(self.size);
        [
            (self.descriptors, 16, entries * DESCRIPTOR_BYTES),
            (self.available, 2, 6 + entries * 2),
            (self.used, 4, 6 + entries * 8),
        ]
    }
}

/// Which of the ring features were negotiated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RingFeatures {
    /// `VIRTIO_F_INDIRECT_DESC`.
    pub indirect: bool,
    /// `VIRTIO_F_EVENT_IDX`.
    pub event_index: bool,
}

/// How far a queue has come: all that is not in guest memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct QueueProgress {
    /// The next entry of the available ring to be taken, counted on without end.
    pub next_available: u16,
    /// The next entry of the used ring to be filled, counted on without end.
    pub next_used: u16,
}

/// What a correct driver does not do with a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QueueFault {
    /// A size that is no power of two, or larger than offered.
    #[error("queue of {size} entries")]
    Size {
        /// The size.
        size: u16,
    },
    /// A ring that is not aligned.
    #[error("ring at {address:#x} is not aligned")]
    Alignment {
        /// Its address.
        address: u64,
    },
    /// A ring or a buffer outside RAM.
    #[error(transparent)]
    Memory(#[from] OutsideRam),
    /// The available index is further ahead than the queue is long.
    #[error("available index jumps from {from} to {to}")]
    AvailableIndex {
        /// The next entry.
        from: u16,
        /// The index.
        to: u16,
    },
    /// More chains out than the queue has entries: one was made available twice.
    #[error("more chains than entries")]
    TooManyChains,
    /// A descriptor number beyond the table.
    #[error("descriptor {index} is beyond the table")]
    Descriptor {
        /// The number.
        index: u16,
    },
    /// A chain of too many descriptors, or one that goes in a circle.
    #[error("chain is too long")]
    ChainLength,
    /// A buffer without a byte.
    #[error("buffer without a byte")]
    EmptyBuffer,
    /// A readable buffer behind a writable one.
    #[error("readable buffer behind a writable one")]
    Order,
    /// A table of descriptors that is not allowed here, or has no whole number of them.
    #[error("bad table of indirect descriptors")]
    Indirect,
    /// Requests whose form is beyond what the device can answer.
    #[error("{0}")]
    Request(&'static str),
}

/// A descriptor, as copied from the table.
#[derive(Debug, Clone, Copy)]
struct Descriptor {
    address: u64,
    len: u32,
    flags: u16,
    next: u16,
}

impl Descriptor {
    fn read(ram: &GuestRam, table: u64, index: u16) -> Result<Self, QueueFault> {
        let mut bytes = [0; 16];
        // Cannot wrap: the table was checked to be in RAM.
        ram.read(table + u64::from(index) * DESCRIPTOR_BYTES, &mut bytes)?;
        let [
            a0,
            a1,
            a2,
            a3,
            a4,
            a5,
            a6,
            a7,
            l0,
            l1,
            l2,
            l3,
            f0,
            f1,
            n0,
            n1,
        ] = bytes;
        Ok(Self {
            address: u64::from_le_bytes([a0, a1, a2, a3, a4, a5, a6, a7]),
            len: u32::from_le_bytes([l0, l1, l2, l3]),
            flags: u16::from_le_bytes([f0, f1]),
            next: u16::from_le_bytes([n0, n1]),
        })
    }
}

/// A queue that runs, owned by the thread that serves it.
#[derive(Debug)]
pub struct Queue {
    ram: GuestRam,
    layout: QueueLayout,
    features: RingFeatures,
    progress: QueueProgress,
    /// Chains taken and not given back.
    out: u16,
    /// `next_used` when the driver was last looked at for an interrupt.
    signalled: u16,
    /// The available index when it was last looked at: up to there chains can be taken without another look,
    /// for which the driver's processor would have to give its cache line away each time.
    available: u16,
}

impl Queue {
    /// A queue where `layout` says, going on from `progress`.
    ///
    /// # Errors
    /// [`QueueFault`]: the layout is not what a driver may choose.
    pub fn new(
        ram: GuestRam,
        layout: QueueLayout,
        max_size: u16,
        features: RingFeatures,
        progress: QueueProgress,
    ) -> Result<Self, QueueFault> {
        let size = layout.size;
        if !size.is_power_of_two() || size > max_size {
            return Err(QueueFault::Size { size });
        }
        for (address, alignment, len) in layout.parts() {
            if address % alignment != 0 {
                return Err(QueueFault::Alignment { address });
            }
            if !ram.contains(address, len) {
                return Err(OutsideRam { address, len }.into());
            }
        }
        Ok(Self {
            ram,
            layout,
            features,
            progress,
            out: 0,
            signalled: progress.next_used,
            available: progress.next_available,
        })
    }

    /// The RAM its buffers are in.
    #[must_use]
    pub fn ram(&self) -> &GuestRam {
        &self.ram
    }

    /// Entries.
    #[must_use]
    pub fn size(&self) -> u16 {
        self.layout.size
    }

    /// How far it has come. Chains that are out were not given back: give them back first.
    #[must_use]
    pub fn progress(&self) -> QueueProgress {
        self.progress
    }

    /// Goes on from where somebody else has left it, whose next available entry was `next_available`; without
    /// their word, behind what they have given back. No chain is out.
    pub(crate) fn go_on_from(&mut self, next_available: Option<u16>) {
        let progress = self.progress_of_other(next_available);
        self.progress = progress;
        self.out = 0;
        self.signalled = progress.next_used;
        self.available = progress.next_available;
    }

    /// How far somebody else has come who serves it, and whose next available entry is `next_available`;
    /// without their word, as far as they have given back. What they have given back is known from the used
    /// ring alone, which the driver can write.
    pub(crate) fn progress_of_other(&self, next_available: Option<u16>) -> QueueProgress {
        let next_used = self.used_index().unwrap_or_default();
        QueueProgress {
            next_available: next_available.unwrap_or(next_used),
            next_used,
        }
    }

    /// Where its rings are.
    #[must_use]
    pub fn layout(&self) -> QueueLayout {
        self.layout
    }

    /// The index of the used ring as the driver sees it, whoever serves the queue. The driver can write it.
    ///
    /// # Errors
    /// As for [`Self::push`].
    pub fn used_index(&self) -> Result<u16, QueueFault> {
        let index = self.ram.load(self.layout.used + 2, Ordering::Acquire)?;
        Ok(u16::from_le(index))
    }

    /// Chains taken and not given back.
    #[must_use]
    pub fn out(&self) -> u16 {
        self.out
    }

    /// Takes the next chain; false if there is none.
    ///
    /// # Errors
    /// [`QueueFault`]: the queue is broken for good.
    pub fn pop(&mut self, chain: &mut Chain) -> Result<bool, QueueFault> {
        if self.progress.next_available == self.available {
            let waiting = self.waiting()?;
            if waiting == 0 {
                return Ok(false);
            }
            self.available = self.available.wrapping_add(waiting);
        }
        if self.out >= self.layout.size {
            return Err(QueueFault::TooManyChains);
        }
        let slot = u64::from(self.progress.next_available % self.layout.size);
        let head: u16 = self
            .ram
            .load(self.layout.available + 4 + slot * 2, Ordering::Relaxed)?;
        self.collect(u16::from_le(head), chain)?;
        self.progress.next_available = self.progress.next_available.wrapping_add(1);
        self.out += 1;
        Ok(true)
    }

    /// Puts the chain taken last back where it was: there is no room for what it asks now.
    pub fn unpop(&mut self) {
        self.progress.next_available = self.progress.next_available.wrapping_sub(1);
        self.out = self.out.saturating_sub(1);
    }

    /// How many chains wait to be taken.
    ///
    /// # Errors
    /// [`QueueFault::AvailableIndex`].
    pub fn waiting(&self) -> Result<u16, QueueFault> {
        let index: u16 = self
            .ram
            .load(self.layout.available + 2, Ordering::Acquire)?;
        let to = u16::from_le(index);
        let from = self.progress.next_available;
        let waiting = to.wrapping_sub(from);
        if waiting > self.layout.size {
            return Err(QueueFault::AvailableIndex { from, to });
        }
        Ok(waiting)
    }

    fn collect(&self, head: u16, chain: &mut Chain) -> Result<(), QueueFault> {
        chain.clear(head);
        let mut table = self.layout.descriptors;
        let mut entries = self.layout.size;
        let mut index = head;
        let mut indirect = false;
        // Each round adds a buffer, of which there is a limit, or is the only one to change tables: so a
        // circle ends too.
        loop {
            if index >= entries {
                return Err(QueueFault::Descriptor { index });
            }
            let descriptor = Descriptor::read(&self.ram, table, index)?;
            if descriptor.flags & INDIRECT != 0 {
                // §2.7.5.3: the last of its chain but for what it points to, and not in a table itself.
                // Whether it is writable says nothing (§2.7.5.3.2).
                if indirect || !self.features.indirect || descriptor.flags & NEXT != 0 {
                    return Err(QueueFault::Indirect);
                }
                let len = u64::from(descriptor.len);
                let count = len / DESCRIPTOR_BYTES;
                if len % DESCRIPTOR_BYTES != 0 || !(1..=MAX_CHAIN as u64).contains(&count) {
                    return Err(QueueFault::Indirect);
                }
                let address = descriptor.address;
                if !self.ram.contains(address, len) {
                    return Err(OutsideRam { address, len }.into());
                }
                table = address;
                entries = u16::try_from(count).map_err(|_| QueueFault::Indirect)?;
                index = 0;
                indirect = true;
                continue;
            }
            self.add(descriptor, chain)?;
            if descriptor.flags & NEXT == 0 {
                return Ok(());
            }
            index = descriptor.next;
        }
    }

    fn add(&self, descriptor: Descriptor, chain: &mut Chain) -> Result<(), QueueFault> {
        let Descriptor { address, len, .. } = descriptor;
        if len == 0 {
            return Err(QueueFault::EmptyBuffer);
        }
        if chain.spans.len() >= MAX_CHAIN {
            return Err(QueueFault::ChainLength);
        }
        let bytes = u64::from(len);
        if !self.ram.contains(address, bytes) {
            return Err(OutsideRam {
                address,
                len: bytes,
            }
            .into());
        }
        if descriptor.flags & WRITE != 0 {
            chain.writable_bytes += bytes;
        } else if chain.readable < chain.spans.len() {
            return Err(QueueFault::Order);
        } else {
            chain.readable += 1;
            chain.readable_bytes += bytes;
        }
        chain.spans.push(Span { address, len });
        Ok(())
    }

    /// Gives the chain that began with `head` back, with `written` bytes in it.
    ///
    /// # Errors
    /// Never for a queue that [`Queue::new`] made, since RAM stays; the type is the other calls'.
    pub fn push(&mut self, head: u16, written: u32) -> Result<(), QueueFault> {
        let slot = u64::from(self.progress.next_used % self.layout.size);
        let [h0, h1, h2, h3] = u32::from(head).to_le_bytes();
        let [w0, w1, w2, w3] = written.to_le_bytes();
        self.ram.write(
            self.layout.used + 4 + slot * 8,
            &[h0, h1, h2, h3, w0, w1, w2, w3],
        )?;
        self.progress.next_used = self.progress.next_used.wrapping_add(1);
        self.out = self.out.saturating_sub(1);
        self.publish()
    }

    /// Fills in a used entry without showing it yet; [`Self::show`] does. `ahead` counts the entries
    /// filled and not shown.
    ///
    /// # Errors
    /// As for [`Self::push`].
    pub fn fill(&mut self, ahead: u16, head: u16, written: u32) -> Result<(), QueueFault> {
        let index = self.progress.next_used.wrapping_add(ahead);
        let slot = u64::from(index % self.layout.size);
        let [h0, h1, h2, h3] = u32::from(head).to_le_bytes();
        let [w0, w1, w2, w3] = written.to_le_bytes();
        let entry = [h0, h1, h2, h3, w0, w1, w2, w3];
        Ok(self.ram.write(self.layout.used + 4 + slot * 8, &entry)?)
    }

    /// Shows the driver `count` entries that were filled in, all at once.
    ///
    /// # Errors
    /// As for [`Self::push`].
    pub fn show(&mut self, count: u16) -> Result<(), QueueFault> {
        self.progress.next_used = self.progress.next_used.wrapping_add(count);
        self.out = self.out.saturating_sub(count);
        self.publish()
    }

    fn publish(&self) -> Result<(), QueueFault> {
        let index = self.progress.next_used.to_le();
        // Release: the entry is seen before the index that tells of it.
        Ok(self
            .ram
            .store(self.layout.used + 2, index, Ordering::Release)?)
    }

    /// Whether the driver wants an interrupt for what was given back since it was last asked (§2.7.7).
    ///
    /// # Errors
    /// As for [`Self::push`].
    pub fn wants_interrupt(&mut self) -> Result<bool, QueueFault> {
        let (old, new) = (self.signalled, self.progress.next_used);
        if old == new {
            return Ok(false);
        }
        self.signalled = new;
        // The index must be seen before the driver's wish is read: it writes its wish, then looks at
        // the index.
        fence(Ordering::SeqCst);
        if self.features.event_index {
            let address = self.layout.available + 4 + u64::from(self.layout.size) * 2;
            let event = u16::from_le(self.ram.load(address, Ordering::Relaxed)?);
            return Ok(passed(event, new, old));
        }
        let flags = u16::from_le(self.ram.load(self.layout.available, Ordering::Relaxed)?);
        Ok(flags & NO_INTERRUPT == 0)
    }

    /// Asks the driver not to notify (§2.7.10): the queue is being looked at anyway.
    ///
    /// # Errors
    /// As for [`Self::push`].
    pub fn disable_notifications(&mut self) -> Result<(), QueueFault> {
        // With event indexes the index stays where it is, behind: the driver does not reach it again
        // until the index has gone all the way round.
        if self.features.event_index {
            return Ok(());
        }
        Ok(self
            .ram
            .store(self.layout.used, NO_NOTIFY.to_le(), Ordering::Relaxed)?)
    }

    /// Asks the driver to notify of the next chain; true if chains wait already, of which it may not
    /// have notified.
    ///
    /// # Errors
    /// [`QueueFault::AvailableIndex`].
    pub fn enable_notifications(&mut self) -> Result<bool, QueueFault> {
        if self.features.event_index {
            let address = self.layout.used + 4 + u64::from(self.layout.size) * 8;
            let event = self.progress.next_available.to_le();
            self.ram.store(address, event, Ordering::Relaxed)?;
        } else {
            self.ram.store(self.layout.used, 0_u16, Ordering::Relaxed)?;
        }
        // The wish must be seen before the index is read, or both sides wait for each other.
        fence(Ordering::SeqCst);
        Ok(self.waiting()? > 0)
    }
}

/// `vring_need_event` (§2.7.7.1): whether going from `old` to `new` passed `event`.
fn passed(event: u16, new: u16, old: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}

#[cfg(test)]
#[path = "queue/tests.rs"]
mod tests;
