//! Saved state of a configuration space: a part of its function's record.

use super::{ConfigSpace, LEN};
use crate::state::{StateError, StateReader, StateWriter, check};

/// The first 256 bytes, as the guest reads them; the others are zero.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigStateV1 {
    /// The registers.
    pub registers: [u8; LEN],
}

impl ConfigStateV1 {
    pub(crate) fn encode(&self, writer: &mut StateWriter) {
        writer.bytes(&self.registers);
    }

    /// Takes the registers of the same function as `space` is: what cannot be written is the same.
    pub(crate) fn decode(
        reader: &mut StateReader<'_>,
        space: &ConfigSpace,
    ) -> Result<Self, StateError> {
        let registers: [u8; LEN] = reader.bytes()?;
        let read_only_kept = registers
            .iter()
            .zip(&space.power_on)
            .zip(&space.writable)
            .all(|((saved, ours), writable)| (saved ^ ours) & !writable == 0);
        check(read_only_kept, "registers")?;
        Ok(Self { registers })
    }
}

impl ConfigSpace {
    /// The state as it is now.
    #[must_use]
    pub fn state(&self) -> ConfigStateV1 {
        ConfigStateV1 {
            registers: self.bytes,
        }
    }

    /// Takes over a state that was decoded for this space. Its owner tells the root afterwards.
    pub(crate) fn set_state(&mut self, state: &ConfigStateV1) {
        self.bytes = state.registers;
    }
}
