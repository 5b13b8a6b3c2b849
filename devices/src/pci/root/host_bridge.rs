//! The host bridge, 00:00.0: it is there to be found, and does nothing.

use super::super::config_space::{Change, ConfigSpace, ConfigStateV1, Identity};
use super::super::{Bars, PciFunction};
use crate::power::Reset;
use crate::state::{Schema, StateError, StateReader, StateWriter};

/// Red Hat's generic PCI Express host bridge: an id for which no kernel has special cases.
const IDENTITY: Identity = Identity {
    vendor: 0x1b36,
    device: 0x0008,
    revision: 0,
    class: 0x06_00_00,
    subsystem_vendor: 0,
    subsystem: 0,
};

/// The function in slot 0.
#[derive(Debug)]
pub(super) struct HostBridge {
    config: ConfigSpace,
}

impl HostBridge {
    pub(super) const SCHEMA: Schema = Schema {
        name: "pci-host-bridge",
        version: 1,
    };

    pub(super) fn new() -> Self {
        Self {
            config: ConfigSpace::new(IDENTITY),
        }
    }

    pub(super) fn save(&self) -> Vec<u8> {
        let mut writer = StateWriter::new();
        self.config.state().encode(&mut writer);
        writer.finish()
    }

    pub(super) fn restore(&mut self, version: u32, bytes: &[u8]) -> Result<(), StateError> {
        Self::SCHEMA.expect_version(version)?;
        let mut reader = StateReader::new(bytes);
        let state = ConfigStateV1::decode(&mut reader, &self.config)?;
        reader.finish()?;
        self.config.set_state(&state);
        Ok(())
    }
}

impl PciFunction for HostBridge {
    fn read_config(&mut self, register: u16, data: &mut [u8]) {
        self.config.read(register, data);
    }

    fn write_config(&mut self, register: u16, data: &[u8]) -> Change {
        self.config.write(register, data)
    }

    fn bars(&self) -> Bars {
        Bars::default()
    }

    fn bar_moved(&mut self, _bar: u8, _address: Option<u64>) {}
}

impl Reset for HostBridge {
    fn reset(&mut self) {
        self.config.reset();
    }
}
