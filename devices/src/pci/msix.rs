//! MSI-X: a function's table of messages, and which of them are pending (PCI Express 6.0 §7.7.2).
//!
//! ```text
//!  vCPU: table, message control, bus master ---+
//!                                              +--> deliverable? --> MsiSink
//!  I/O thread: trigger(vector) --> pending? ---+
//! ```
//!
//! A vector that is triggered while it cannot be delivered (MSI-X off, function or vector masked, no
//! bus master) is pending, and goes out once, with the message of that moment, when it can be. Messages
//! are what the guest made of them, address and all: the sink decides what it takes, and none is ever
//! a write to memory.
//!
//! Shared by the function, which has the capability and the BAR, and by the I/O threads. One lock, an
//! inner one: it is taken with a function's lock held or none, and only the [`MsiSink`], a leaf, is
//! called with it held, so that messages leave in the order in which the table changed.

use std::fmt;
use std::sync::{Arc, Mutex};

use super::config_space::{ConfigSpace, LayoutError};
use crate::bus::AccessError;
use crate::irq::{MsiMessage, MsiSink};
use crate::shared::lock;

mod state;
#[cfg(test)]
mod tests;

pub use self::state::MsixStateV1;

/// Id of the capability.
const ID: u8 = 0x11;
/// Message control: enable.
const CONTROL_ENABLE: u16 = 1 << 15;
/// Message control: function mask.
const CONTROL_MASK: u16 = 1 << 14;
/// Vector control: mask.
const VECTOR_MASK: u32 = 1;
/// Bits 1:0 of a message address, which are zero.
const ADDRESS_RESERVED: u64 = 0b11;
/// Dwords of a table entry.
const ENTRY_DWORDS: usize = 4;
/// Vectors of one word of the pending bits.
const WORD_VECTORS: usize = 64;

/// A place in a BAR.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BarOffset {
    /// The BAR, 0 to 5.
    pub bar: u8,
    /// Offset in bytes, a multiple of 8.
    pub offset: u32,
}

impl BarOffset {
    fn register(self) -> u32 {
        self.offset & !7 | u32::from(self.bar & 7)
    }
}

/// An entry of the table. After power-on every vector is masked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    address: u64,
    data: u32,
    masked: bool,
}

impl Entry {
    const POWER_ON: Self = Self {
        address: 0,
        data: 0,
        masked: true,
    };

    fn message(self) -> MsiMessage {
        MsiMessage {
            address: self.address,
            data: self.data,
        }
    }

    fn dword(self, field: usize) -> u32 {
        let [low, high] = halves(self.address);
        match field {
            0 => low,
            1 => high,
            2 => self.data,
            _ => u32::from(self.masked),
        }
    }

    fn set_dword(&mut self, field: usize, value: u32) {
        let [low, high] = halves(self.address);
        match field {
            0 => self.address = join(value, high) & !ADDRESS_RESERVED,
            1 => self.address = join(low, value),
            2 => self.data = value,
            // The other bits are reserved and stay zero.
            _ => self.masked = value & VECTOR_MASK != 0,
        }
    }
}

/// What of the configuration space decides about messages.
#[derive(Debug, Clone, Copy, Default)]
struct Control {
    enabled: bool,
    masked: bool,
    bus_master: bool,
}

#[derive(Debug)]
struct Vectors {
    control: Control,
    entries: Vec<Entry>,
    /// One bit a vector; the bits beyond the last vector are zero.
    pending: Vec<u64>,
}

impl Vectors {
    fn new(count: u16) -> Self {
        let count = usize::from(count);
        Self {
            control: Control::default(),
            entries: vec![Entry::POWER_ON; count],
            pending: vec![0; count.div_ceil(WORD_VECTORS)],
        }
    }

    /// The message of a vector that can be delivered now.
    fn deliverable(&self, vector: usize) -> Option<MsiMessage> {
        let Control {
            enabled,
            masked,
            bus_master,
        } = self.control;
        self.entries
            .get(vector)
            .filter(|entry| enabled && !masked && bus_master && !entry.masked)
            .map(|entry| entry.message())
    }

    fn set_pending(&mut self, vector: usize) {
        if let Some(word) = self.pending.get_mut(vector / WORD_VECTORS) {
            *word |= 1 << (vector % WORD_VECTORS);
        }
    }

    /// Sends `vector` if it is pending and can be delivered.
    fn flush(&mut self, vector: usize, sink: &dyn MsiSink) {
        let bit = 1 << (vector % WORD_VECTORS);
        let is_pending = self
            .pending
            .get(vector / WORD_VECTORS)
            .is_some_and(|word| word & bit != 0);
        if !is_pending {
            return;
        }
        if let Some(message) = self.deliverable(vector) {
            if let Some(word) = self.pending.get_mut(vector / WORD_VECTORS) {
                *word &= !bit;
            }
            sink.send(message);
        }
    }

    fn flush_all(&mut self, sink: &dyn MsiSink) {
        for word in 0..self.pending.len() {
            // Nearly always nothing is pending, and drivers mask and unmask often.
            if self.pending.get(word).is_some_and(|bits| *bits != 0) {
                let first = word * WORD_VECTORS;
                for vector in first..first + WORD_VECTORS {
                    self.flush(vector, sink);
                }
            }
        }
    }

    fn table_dword(&self, index: usize) -> Option<u32> {
        let entry = self.entries.get(index / ENTRY_DWORDS)?;
        Some(entry.dword(index % ENTRY_DWORDS))
    }

    fn pending_dword(&self, index: usize) -> Option<u32> {
        let word = self.pending.get(index / 2)?;
        halves(*word).get(index % 2).copied()
    }
}

/// The vectors of one function.
pub struct Msix {
    count: u16,
    sink: Arc<dyn MsiSink>,
    vectors: Mutex<Vectors>,
}

impl Msix {
    /// The most vectors there can be.
    pub const MAX_VECTORS: u16 = 2048;
    /// Bytes of a table entry.
    pub const ENTRY_LEN: u64 = 16;

    /// `count` vectors, 1 to 2048, whose messages go to `sink`.
    ///
    /// # Errors
    /// [`LayoutError::Vectors`].
    pub fn new(count: u16, sink: Arc<dyn MsiSink>) -> Result<Arc<Self>, LayoutError> {
        if !(1..=Self::MAX_VECTORS).contains(&count) {
            return Err(LayoutError::Vectors { count });
        }
        Ok(Arc::new(Self {
            count,
            sink,
            vectors: Mutex::new(Vectors::new(count)),
        }))
    }

    /// How many vectors there are.
    #[must_use]
    pub fn count(&self) -> u16 {
        self.count
    }

    /// Length of the table in bytes.
    #[must_use]
    pub fn table_len(&self) -> u64 {
        u64::from(self.count) * Self::ENTRY_LEN
    }

    /// Length of the pending bits in bytes.
    #[must_use]
    pub fn pba_len(&self) -> u64 {
        u64::from(self.count).div_ceil(64) * 8
    }

    /// Appends the capability to `config`; the BAR's handler sends accesses to the two places to
    /// [`read_table`](Self::read_table), [`write_table`](Self::write_table) and
    /// [`read_pba`](Self::read_pba). The offset of the capability.
    ///
    /// # Errors
    /// [`LayoutError::Capability`].
    pub fn add_capability(
        &self,
        config: &mut ConfigSpace,
        table: BarOffset,
        pba: BarOffset,
    ) -> Result<u8, LayoutError> {
        let (mut body, mut writable) = ([0; 10], [0; 10]);
        let fields = (self.count - 1)
            .to_le_bytes()
            .into_iter()
            .chain(table.register().to_le_bytes())
            .chain(pba.register().to_le_bytes());
        for (byte, field) in body.iter_mut().zip(fields) {
            *byte = field;
        }
        let control = (CONTROL_ENABLE | CONTROL_MASK).to_le_bytes();
        for (byte, mask) in writable.iter_mut().zip(control) {
            *byte = mask;
        }
        config.add_capability(ID, &body, &writable)
    }

    /// Takes over message control, from the capability at `capability`, and bus master as they are in
    /// `config`, and sends what is pending and can now be delivered. To be called after every write to
    /// the configuration space, and after a restore.
    pub fn follow(&self, config: &ConfigSpace, capability: u8) {
        let mut control = [0; 2];
        config.read(u16::from(capability) + 2, &mut control);
        let control = u16::from_le_bytes(control);
        let mut vectors = lock(&self.vectors);
        vectors.control = Control {
            enabled: control & CONTROL_ENABLE != 0,
            masked: control & CONTROL_MASK != 0,
            bus_master: config.bus_master(),
        };
        vectors.flush_all(&*self.sink);
    }

    /// Interrupts by `vector`, or makes it pending. A vector beyond the last is ignored: the guest may
    /// have chosen it. Any thread, a function's lock held or none.
    pub fn trigger(&self, vector: u16) {
        if vector >= self.count {
            return;
        }
        let vector = usize::from(vector);
        let mut vectors = lock(&self.vectors);
        match vectors.deliverable(vector) {
            Some(message) => {
                self.sink.send(message);
            }
            None => vectors.set_pending(vector),
        }
    }

    /// The message that [`trigger`](Self::trigger) would send now; `None` if it would make the vector
    /// pending, or there is no such vector.
    #[must_use]
    pub fn message(&self, vector: u16) -> Option<MsiMessage> {
        lock(&self.vectors).deliverable(vector.into())
    }

    /// Fills `data` from `offset` of the table.
    ///
    /// # Errors
    /// Accesses have 4 or 8 bytes, are aligned and inside the table.
    pub fn read_table(&self, offset: u64, data: &mut [u8]) -> Result<(), AccessError> {
        let vectors = lock(&self.vectors);
        read_dwords(offset, data, |index| vectors.table_dword(index))
    }

    /// Takes a write to `offset` of the table, and sends the vector if it is pending and the write has
    /// unmasked it.
    ///
    /// # Errors
    /// As for [`read_table`](Self::read_table).
    pub fn write_table(&self, offset: u64, data: &[u8]) -> Result<(), AccessError> {
        let first = first_dword(offset, data.len())?;
        let vector = first / ENTRY_DWORDS;
        let mut vectors = lock(&self.vectors);
        // Aligned: all of the access is in this entry.
        let entry = vectors.entries.get_mut(vector).ok_or(AccessError)?;
        for (chunk, field) in data.chunks_exact(4).zip(first % ENTRY_DWORDS..) {
            if let Some(bytes) = chunk.first_chunk() {
                entry.set_dword(field, u32::from_le_bytes(*bytes));
            }
        }
        vectors.flush(vector, &*self.sink);
        Ok(())
    }

    /// Fills `data` from `offset` of the pending bits, which are read-only.
    ///
    /// # Errors
    /// Accesses have 4 or 8 bytes, are aligned and inside the array.
    pub fn read_pba(&self, offset: u64, data: &mut [u8]) -> Result<(), AccessError> {
        let vectors = lock(&self.vectors);
        read_dwords(offset, data, |index| vectors.pending_dword(index))
    }

    /// Goes to the state after power-on: off, every vector masked, none pending. Sends nothing.
    pub fn reset(&self) {
        *lock(&self.vectors) = Vectors::new(self.count);
    }
}

impl fmt::Debug for Msix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Msix")
            .field("count", &self.count)
            .finish_non_exhaustive()
    }
}

fn halves(value: u64) -> [u32; 2] {
    let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
    [[a, b, c, d], [e, f, g, h]].map(u32::from_le_bytes)
}

fn join(low: u32, high: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}

/// The dword that an access begins with, if its width and alignment are right (§6.1.4.2).
fn first_dword(offset: u64, width: usize) -> Result<usize, AccessError> {
    let aligned = matches!(width, 4 | 8) && offset % width as u64 == 0;
    if !aligned {
        return Err(AccessError);
    }
    usize::try_from(offset / 4).map_err(|_| AccessError)
}

/// Fills `data` by dwords, all of which must exist.
fn read_dwords(
    offset: u64,
    data: &mut [u8],
    dword: impl Fn(usize) -> Option<u32>,
) -> Result<(), AccessError> {
    let first = first_dword(offset, data.len())?;
    for (chunk, index) in data.chunks_exact_mut(4).zip(first..) {
        let value = dword(index).ok_or(AccessError)?;
        chunk.copy_from_slice(&value.to_le_bytes());
    }
    Ok(())
}
