//! Saved state of an IOAPIC.

use super::entry::RedirectionEntry;
use super::{ID_MASK, PINS};
use crate::state::{Schema, StateError, StateReader, StateWriter, check};

/// Everything an IOAPIC remembers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IoapicStateV1 {
    /// Identifier, 0..=15.
    pub id: u8,
    /// IOREGSEL.
    pub select: u8,
    /// Logical levels of the inputs, bit 0 for pin 0.
    pub levels: u32,
    /// Redirection entries as the guest reads them.
    pub table: [u64; PINS],
}

impl IoapicStateV1 {
    /// The layout's name and version.
    pub const SCHEMA: Schema = Schema {
        name: "ioapic",
        version: 1,
    };

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut writer = StateWriter::new();
        writer.u8(self.id).u8(self.select).u32(self.levels);
        for bits in self.table {
            writer.u64(bits);
        }
        writer.finish()
    }

    /// The state, and its table checked.
    pub(super) fn decode(bytes: &[u8]) -> Result<(Self, [RedirectionEntry; PINS]), StateError> {
        let mut reader = StateReader::new(bytes);
        let (id, select, levels) = (reader.u8()?, reader.u8()?, reader.u32()?);
        let mut table = [0; PINS];
        let mut entries = [RedirectionEntry::RESET; PINS];
        for (bits, entry) in table.iter_mut().zip(&mut entries) {
            *bits = reader.u64()?;
            let field = StateError::Invalid { field: "table" };
            *entry = RedirectionEntry::from_saved(*bits).ok_or(field)?;
        }
        reader.finish()?;
        check(id <= ID_MASK, "id")?;
        check(levels >> PINS == 0, "levels")?;
        Ok((
            Self {
                id,
                select,
                levels,
                table,
            },
            entries,
        ))
    }
}
