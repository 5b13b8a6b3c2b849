//! Saved state of the RTC and its CMOS RAM.

use super::{
    A_UPDATE_IN_PROGRESS, B_SET, B_UPDATE, RAM_LEN, REGISTER_A, REGISTER_B, REGISTER_C,
    REGISTER_C_FLAGS, REGISTER_D,
};
use crate::state::{Schema, StateError, StateReader, StateWriter, check};

/// Further from the host's time than any guest clock of the years 0 to 9999 can be.
const OFFSET_LIMIT: i128 = 1_000_000_000_000 * 1_000_000_000;

/// Everything the RTC remembers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CmosStateV1 {
    /// Selected register, 0..=127.
    pub index: u8,
    /// NMI is masked (bit 7 of port 0x70).
    pub nmi_masked: bool,
    /// Guest time minus host time (UTC), in nanoseconds.
    pub offset: i128,
    /// All registers; those of a running clock as they last stood still.
    pub ram: [u8; RAM_LEN],
}

impl CmosStateV1 {
    /// The layout's name and version.
    pub const SCHEMA: Schema = Schema {
        name: "cmos",
        version: 1,
    };

    pub(super) fn encode(&self) -> Vec<u8> {
        StateWriter::new()
            .u8(self.index)
            .bool(self.nmi_masked)
            .i128(self.offset)
            .bytes(&self.ram)
            .finish()
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, StateError> {
        let mut reader = StateReader::new(bytes);
        let state = Self {
            index: reader.u8()?,
            nmi_masked: reader.bool("nmi_masked")?,
            offset: reader.i128()?,
            ram: reader.bytes()?,
        };
        reader.finish()?;
        check(usize::from(state.index) < RAM_LEN, "index")?;
        check(
            (-OFFSET_LIMIT..=OFFSET_LIMIT).contains(&state.offset),
            "offset",
        )?;
        let register = |index: u8| state.ram.get(usize::from(index)).copied().unwrap_or(0);
        // UIP and VRT are worked out, not kept.
        check(
            register(REGISTER_A) & A_UPDATE_IN_PROGRESS == 0,
            "register A",
        )?;
        check(register(REGISTER_D) == 0, "register D")?;
        check(register(REGISTER_C) & !REGISTER_C_FLAGS == 0, "register C")?;
        // Setting SET clears UIE, so both at once cannot be.
        check(
            register(REGISTER_B) & (B_SET | B_UPDATE) != B_SET | B_UPDATE,
            "register B",
        )?;
        Ok(state)
    }
}
