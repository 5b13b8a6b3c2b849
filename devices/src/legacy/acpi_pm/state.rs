//! Saved state of the power management registers.

use super::{CONTROL_MASK, ENABLE_MASK, STATUS_MASK};
use crate::state::{Schema, StateError, StateReader, StateWriter, check};

/// Everything the power management registers remember.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcpiPmStateV1 {
    /// PM1_STS: timer and power button.
    pub status: u16,
    /// PM1_EN.
    pub enable: u16,
    /// PM1_CNT without its write-only and constant bits.
    pub control: u16,
    /// Ticks of the PM timer since power-on, at 3.579545 MHz.
    pub timer_ticks: u64,
}

impl AcpiPmStateV1 {
    /// The layout's name and version.
    pub const SCHEMA: Schema = Schema {
        name: "acpi-pm",
        version: 1,
    };

    pub(super) fn encode(&self) -> Vec<u8> {
        StateWriter::new()
            .u16(self.status)
            .u16(self.enable)
            .u16(self.control)
            .u64(self.timer_ticks)
            .finish()
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, StateError> {
        let mut reader = StateReader::new(bytes);
        let state = Self {
            status: reader.u16()?,
            enable: reader.u16()?,
            control: reader.u16()?,
            timer_ticks: reader.u64()?,
        };
        reader.finish()?;
        check(state.status & !STATUS_MASK == 0, "status")?;
        check(state.enable & !ENABLE_MASK == 0, "enable")?;
        check(state.control & !CONTROL_MASK == 0, "control")?;
        Ok(state)
    }
}
