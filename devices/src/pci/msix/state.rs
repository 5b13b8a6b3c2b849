//! Saved state of MSI-X: a part of its function's record. Message control and bus master are in the
//! function's configuration space.
use super::{ADDRESS_RESERVED, Entry, Msix, WORD_VECTORS};
use crate::shared::lock;
use crate::state::{StateError, StateReader, StateWriter, check};

/// The table and the pending bits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MsixStateV1 {
    /// Address (bits 1:0 zero), data and mask of each vector.
    pub table: Vec<(u64, u32, bool)>,
    /// One bit a vector, 64 to a word; those beyond the last vector are zero.
    pub pending: Vec<u64>,
}

impl MsixStateV1 {
    pub(crate) fn encode(&self, writer: &mut StateWriter) {
        for (address, data, masked) in &self.table {
            writer.u64(*address).u32(*data).bool(*masked);
        }
        for word in &self.pending {
            writer.u64(*word);
        }
    }

    /// Takes the state of as many vectors as `msix` has: the number is no part of the record.
    pub(crate) fn decode(reader: &mut StateReader<'_>, msix: &Msix) -> Result<Self, StateError> {
        let count = usize::from(msix.count);
        let mut table = Vec::with_capacity(count);
        for _ in 0..count {
            let entry = (reader.u64()?, reader.u32()?, reader.bool("masked")?);
            check(entry.0 & ADDRESS_RESERVED == 0, "address")?;
            table.push(entry);
        }
        let words = count.div_ceil(WORD_VECTORS);
        let mut pending = Vec::with_capacity(words);
        for word in 0..words {
            let bits = reader.u64()?;
            let vectors = (count - word * WORD_VECTORS).min(WORD_VECTORS);
            let beyond = u64::MAX.checked_shl(u32::try_from(vectors).unwrap_or(u32::MAX));
            check(bits & beyond.unwrap_or(0) == 0, "pending")?;
            pending.push(bits);
        }
        Ok(Self { table, pending })
    }
}

impl Msix {
    /// The state as it is now.
    #[must_use]
    pub fn state(&self) -> MsixStateV1 {
        let vectors = lock(&self.vectors);
        MsixStateV1 {
            table: vectors
                .entries
                .iter()
                .map(|entry| (entry.address, entry.data, entry.masked))
                .collect(),
            pending: vectors.pending.clone(),
        }
    }

    /// Takes over a state that was decoded for these vectors. Sends nothing before the next
    /// [`follow`](Msix::follow).
    pub(crate) fn set_state(&self, state: MsixStateV1) {
        let mut vectors = lock(&self.vectors);
        vectors.entries = state
            .table
            .into_iter()
            .map(|(address, data, masked)| Entry {
                address,
                data,
                masked,
            })
            .collect();
        vectors.pending = state.pending;
    }
}
