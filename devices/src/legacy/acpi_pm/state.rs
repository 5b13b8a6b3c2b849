//! Saved state of the power management registers.

use super::{CONTROL_MASK, ENABLE_MASK, STATUS_MASK};
use crate::state::{Schema, StateError, StateReader, StateWriter, check};

/// What the power management registers remembered before there were general-purpose events.
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

    fn read(reader: &mut StateReader<'_>) -> Result<Self, StateError> {
        let state = Self {
            status: reader.u16()?,
            enable: reader.u16()?,
            control: reader.u16()?,
            timer_ticks: reader.u64()?,
        };
        check(state.status & !STATUS_MASK == 0, "status")?;
        check(state.enable & !ENABLE_MASK == 0, "enable")?;
        check(state.control & !CONTROL_MASK == 0, "control")?;
        Ok(state)
    }
}

/// Everything the power management registers remember.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcpiPmStateV2 {
    /// The registers that version 1 has.
    pub fixed: AcpiPmStateV1,
    /// GPE0_STS.
    pub gpe_status: u16,
    /// GPE0_EN.
    pub gpe_enable: u16,
}

impl AcpiPmStateV2 {
    /// The layout's name and version.
    pub const SCHEMA: Schema = Schema {
        version: 2,
        ..AcpiPmStateV1::SCHEMA
    };

    pub(super) fn encode(&self) -> Vec<u8> {
        StateWriter::new()
            .u16(self.fixed.status)
            .u16(self.fixed.enable)
            .u16(self.fixed.control)
            .u64(self.fixed.timer_ticks)
            .u16(self.gpe_status)
            .u16(self.gpe_enable)
            .finish()
    }

    /// Takes either version; with version 1 no general-purpose event is pending or enabled.
    pub(super) fn decode_any(version: u32, bytes: &[u8]) -> Result<Self, StateError> {
        let mut reader = StateReader::new(bytes);
        if version != AcpiPmStateV1::SCHEMA.version {
            Self::SCHEMA.expect_version(version)?;
        }
        let fixed = AcpiPmStateV1::read(&mut reader)?;
        let (gpe_status, gpe_enable) = match version {
            1 => (0, 0),
            _ => (reader.u16()?, reader.u16()?),
        };
        reader.finish()?;
        Ok(Self {
            fixed,
            gpe_status,
            gpe_enable,
        })
    }
}
