//! Saved state of the panic port.

use super::{CRASH_LOADED, PANICKED};
use crate::state::{Schema, StateError, StateReader, StateWriter, check};

/// What the guest has said by the port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PvPanicStateV1 {
    /// [`PANICKED`] and [`CRASH_LOADED`], as far as they were told since the machine was last reset.
    pub told: u8,
    /// [`CRASH_LOADED`] was told and nobody has heard of it yet.
    pub untaken: bool,
}

impl PvPanicStateV1 {
    /// The layout's name and version.
    pub const SCHEMA: Schema = Schema {
        name: "pvpanic",
        version: 1,
    };

    pub(super) fn encode(&self) -> Vec<u8> {
        StateWriter::new().u8(self.told).bool(self.untaken).finish()
    }

    pub(super) fn decode(version: u32, bytes: &[u8]) -> Result<Self, StateError> {
        Self::SCHEMA.expect_version(version)?;
        let mut reader = StateReader::new(bytes);
        let state = Self {
            told: reader.u8()?,
            untaken: reader.bool("untaken")?,
        };
        reader.finish()?;
        check(state.told & !(PANICKED | CRASH_LOADED) == 0, "told")?;
        Ok(state)
    }
}
