//! The host bridge, 00:00.0: it is there to be found, and does nothing, or is what firmware for PCs knows.
//!
//! The one that firmware knows is the memory controller hub of a Q35 chipset (Intel 316966, 5.1), of which it has
//! the register that says where configuration space is in memory (PCIEXBAR), and the attributes of the memory
//! below 1 MiB (PAM), which can be written and change nothing: that memory is RAM at any time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::super::config_space::{Change, ConfigSpace, ConfigStateV1, Identity};
use super::super::{Bar, Bars, PciFunction};
use crate::bus::BusDevice;
use crate::power::Reset;
use crate::shared::Shared;
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

/// The hub. Firmware takes the subsystem for the sign of a virtual machine.
const MEMORY_CONTROLLER: Identity = Identity {
    vendor: 0x8086,
    device: 0x29c0,
    revision: 0,
    class: 0x06_00_00,
    subsystem_vendor: 0x1af4,
    subsystem: 0x1100,
};

/// The register of the place of configuration space: 64 bits.
const EXPRESS_BASE: u8 = 0x60;
/// What of it can be written: the address, a multiple of 256 MiB, the length, the enable bit. A Q35 takes addresses
/// below 64 GiB; here it is below 4 GiB, where the tables leave it out of the window of BARs.
const EXPRESS_BASE_WRITABLE: u64 = 0xf000_0007;
const EXPRESS_BASE_ADDRESS: u64 = 0xf000_0000;
const EXPRESS_BASE_ENABLE: u64 = 1 << 0;
/// The length: zero for 256 MiB, which is the only one there is.
const EXPRESS_BASE_LENGTH: u64 = 0b11 << 1;
/// Length of configuration space in memory: 256 buses.
const EXPRESS_BYTES: u64 = 256 << 20;

/// The attributes of the memory below 1 MiB: after power-on, that there is no RAM, by which SeaBIOS knows that it
/// has to copy itself there. Only its last 128 KiB are there before.
const ATTRIBUTES: u8 = 0x90;
const ATTRIBUTES_AFTER_RESET: [u8; 7] = [0; 7];

/// Where configuration space is in memory now, by the word of the guest's firmware. A clone is the same place.
#[derive(Debug, Clone, Default)]
pub struct EcamPlace(Arc<AtomicU64>);

impl EcamPlace {
    /// Its first address; none if it is not there. It is never at 0.
    #[must_use]
    pub fn base(&self) -> Option<u64> {
        Some(self.0.load(Ordering::Acquire)).filter(|base| *base != 0)
    }

    fn set(&self, base: Option<u64>) {
        self.0.store(base.unwrap_or(0), Ordering::Release);
    }
}

/// What the hub has besides its registers.
struct Express {
    /// Answers there.
    device: Shared<dyn BusDevice>,
    place: EcamPlace,
}

/// The function in slot 0.
pub(super) struct HostBridge {
    config: ConfigSpace,
    express: Option<Express>,
}

impl HostBridge {
    pub(super) const SCHEMA: Schema = Schema {
        name: "pci-host-bridge",
        version: 1,
    };

    pub(super) fn new() -> Self {
        Self {
            config: ConfigSpace::new(IDENTITY),
            express: None,
        }
    }

    /// The hub. `device` answers where configuration space is.
    pub(super) fn memory_controller(device: Shared<dyn BusDevice>) -> Self {
        let mut config = ConfigSpace::new(MEMORY_CONTROLLER);
        config.add_registers(EXPRESS_BASE, &[0; 8], &EXPRESS_BASE_WRITABLE.to_le_bytes());
        config.add_registers(ATTRIBUTES, &ATTRIBUTES_AFTER_RESET, &[0x33; 7]);
        Self {
            config,
            express: Some(Express {
                device,
                place: EcamPlace::default(),
            }),
        }
    }

    /// Where configuration space is, if it can be anywhere.
    pub(super) fn ecam_place(&self) -> Option<EcamPlace> {
        self.express.as_ref().map(|express| express.place.clone())
    }

    /// Where the register says that it is.
    fn express_base(&self) -> Option<u64> {
        self.express.as_ref()?;
        let mut register = [0; 8];
        self.config.read(EXPRESS_BASE.into(), &mut register);
        let register = u64::from_le_bytes(register);
        let base = register & EXPRESS_BASE_ADDRESS;
        let decoded = register & (EXPRESS_BASE_ENABLE | EXPRESS_BASE_LENGTH) == EXPRESS_BASE_ENABLE;
        (decoded && base != 0).then_some(base)
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
        let before = self.express_base();
        match self.config.write(register, data) {
            Change::Nothing if self.express_base() == before => Change::Nothing,
            _ => Change::Decoding,
        }
    }

    /// Configuration space is moved about as a BAR is, though its register is none.
    fn bars(&self) -> Bars {
        let mut bars = Bars::default();
        if let (Some(express), [first, ..]) = (&self.express, &mut bars) {
            *first = Some(Bar {
                size: EXPRESS_BYTES,
                address: self.express_base(),
                device: Arc::clone(&express.device),
            });
        }
        bars
    }

    fn bar_moved(&mut self, _bar: u8, address: Option<u64>) {
        if let Some(express) = &self.express {
            express.place.set(address);
        }
    }
}

impl std::fmt::Debug for HostBridge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HostBridge")
            .field("ecam", &self.express_base())
            .finish_non_exhaustive()
    }
}

impl Reset for HostBridge {
    fn reset(&mut self) {
        self.config.reset();
    }
}

#[cfg(test)]
mod tests;
