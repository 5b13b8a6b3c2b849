//! The watchdog on the bus: its configuration space, and the way from there to its registers.

use super::state::WatchdogStateV1;
use super::{Watchdog, WatchdogParams};
use crate::pci::config_space::{
    BarWidth, Change, ConfigSpace, ConfigStateV1, Identity, LayoutError,
};
use crate::pci::{Bar, Bars, PciFunction};
use crate::power::Reset;
use crate::shared::{Shared, lock, share};
use crate::state::{Saveable, Schema, StateError, StateReader, StateWriter};

/// The vendor of the 6300ESB, its watchdog, and what that is: some other part of a system.
const IDENTITY: Identity = Identity {
    vendor: 0x8086,
    device: 0x25ab,
    revision: 0,
    class: 0x08_80_00,
    subsystem_vendor: 0x8086,
    subsystem: 0x25ab,
};

/// The one BAR.
const BAR: u8 = 0;
/// Bytes of it: a page, of which the first 16 are registers.
const BAR_BYTES: u64 = 4096;
/// INTA#.
const INTERRUPT_PIN: u8 = 1;

/// The configuration register, of which the upper half is reserved.
const CONFIG: usize = 0x60;
/// The lock register.
const LOCK: usize = 0x68;

const SCHEMA: Schema = Schema {
    name: "i6300esb",
    version: 1,
};

/// The function.
#[derive(Debug)]
pub struct WatchdogFunction {
    config: ConfigSpace,
    watchdog: Shared<Watchdog>,
}

impl WatchdogFunction {
    /// The function of a disabled watchdog. Its BAR is at `address` after power-on, and its interrupt line
    /// register says `line`.
    ///
    /// # Errors
    /// The BAR cannot be at `address`.
    pub fn new(params: WatchdogParams, address: u64, line: u8) -> Result<Self, LayoutError> {
        let mut config = ConfigSpace::new(IDENTITY);
        config.add_memory_bar(BAR, BAR_BYTES, BarWidth::Bits32)?;
        config.set_bar_address(BAR, address)?;
        config.set_interrupt(INTERRUPT_PIN, line);
        Ok(Self {
            config,
            watchdog: share(Watchdog::new(params)),
        })
    }

    /// The registers and the timers.
    #[must_use]
    pub fn watchdog(&self) -> Shared<Watchdog> {
        Shared::clone(&self.watchdog)
    }
}

impl PciFunction for WatchdogFunction {
    fn read_config(&mut self, register: u16, data: &mut [u8]) {
        self.config.read(register, data);
        for (byte, place) in data.iter_mut().zip(usize::from(register)..) {
            match place {
                CONFIG => *byte = lock(&self.watchdog).config,
                LOCK => *byte = lock(&self.watchdog).lock,
                _ => {}
            }
        }
    }

    fn write_config(&mut self, register: u16, data: &[u8]) -> Change {
        for (byte, place) in data.iter().zip(usize::from(register)..) {
            match place {
                CONFIG => lock(&self.watchdog).write_config(*byte),
                LOCK => lock(&self.watchdog).write_lock(*byte),
                _ => {}
            }
        }
        self.config.write(register, data)
    }

    fn bars(&self) -> Bars {
        let bar = Bar {
            size: BAR_BYTES,
            address: self.config.bar(BAR),
            device: Shared::clone(&self.watchdog) as _,
        };
        let mut bars = Bars::default();
        if let Some(first) = bars.first_mut() {
            *first = Some(bar);
        }
        bars
    }

    fn bar_moved(&mut self, _bar: u8, _address: Option<u64>) {}
}

impl Reset for WatchdogFunction {
    fn reset(&mut self) {
        self.config.reset();
        lock(&self.watchdog).power_on();
    }
}

/// Whoever restores it tells the root.
impl Saveable for WatchdogFunction {
    fn schema(&self) -> Schema {
        SCHEMA
    }

    fn save(&self) -> Vec<u8> {
        let mut writer = StateWriter::new();
        self.config.state().encode(&mut writer);
        lock(&self.watchdog).state().encode(&mut writer);
        writer.finish()
    }

    fn restore(&mut self, version: u32, bytes: &[u8]) -> Result<(), StateError> {
        SCHEMA.expect_version(version)?;
        let mut reader = StateReader::new(bytes);
        let config = ConfigStateV1::decode(&mut reader, &self.config)?;
        let state = WatchdogStateV1::decode(&mut reader)?;
        reader.finish()?;
        self.config.set_state(&config);
        lock(&self.watchdog).set_state(&state);
        Ok(())
    }
}
