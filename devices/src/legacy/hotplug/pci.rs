//! Hotplug of the functions in the slots of the PCI root bus.
//!
//! ```text
//!  offset 0  UP    u32  read: slots filled since the last read; bit n is slot n
//!         4  DOWN  u32  read: slots whose function shall go, asked since the last read
//!         8  EJECT u32  write: bit n ejects what is in slot n; reads as 0
//!        12  reserved, reads as 0
//! ```
//!
//! Bits 1 to 31 are slots; bit 0, the host bridge, is always clear and ignored. Reading UP or DOWN
//! clears it, so that each change is notified once: a request that a slow guest saw twice could
//! eject what has been plugged into the slot since.
//!
//! Registers are read and written on vCPU threads, changes come from the control thread; all under
//! the device's lock.

use std::sync::Arc;

use super::{EjectSink, Ejected, register};
use crate::bus::{AccessError, BusDevice};
use crate::legacy::acpi_pm::GpeSource;
use crate::power::Reset;
use crate::state::{Saveable, Schema, StateError, StateReader, StateWriter, check};

#[cfg(test)]
mod tests;

/// Offset of UP.
pub const UP: u64 = 0;
/// Offset of DOWN.
pub const DOWN: u64 = 4;
/// Offset of EJECT.
pub const EJECT: u64 = 8;

/// The highest slot.
const LAST_SLOT: u8 = 31;
/// The bits that are slots.
const SLOTS: u32 = !1;

/// The bit of a slot that can be plugged.
fn bit(slot: u8) -> Option<u32> {
    (1..=LAST_SLOT).contains(&slot).then(|| 1 << slot)
}

/// The hotplug registers of the root bus.
#[derive(Debug)]
pub struct PciHotplug {
    up: u32,
    down: u32,
    sink: Arc<dyn EjectSink>,
}

impl PciHotplug {
    /// Number of ports the registers take.
    pub const PORTS: u64 = super::PORTS;

    /// Registers with nothing to report. `sink` hears of ejections, as [`Ejected::Slot`].
    pub fn new(sink: Arc<dyn EjectSink>) -> Self {
        Self {
            up: 0,
            down: 0,
            sink,
        }
    }

    /// Says that there is something new in `slot`; the caller has put it there and raises the event
    /// afterwards. False, and nothing is said, for a slot that is not 1 to 31.
    pub fn insert(&mut self, slot: u8) -> bool {
        let Some(bit) = bit(slot) else {
            return false;
        };
        // A request that the guest has not seen was about what was there before.
        self.down &= !bit;
        self.up |= bit;
        true
    }

    /// Asks the guest to let go of what is in `slot`; the caller raises the event afterwards. False,
    /// and nothing is asked, for a slot that is not 1 to 31.
    ///
    /// The guest may take its time, refuse, or not listen at all: the answer is
    /// [`EjectSink::ejected`], if it ever comes.
    pub fn request_removal(&mut self, slot: u8) -> bool {
        let Some(bit) = bit(slot) else {
            return false;
        };
        self.down |= bit;
        true
    }

    fn eject(&mut self, slots: u32) {
        for slot in 1..=LAST_SLOT {
            let Some(bit) = bit(slot).filter(|bit| slots & bit != 0) else {
                continue;
            };
            self.up &= !bit;
            self.down &= !bit;
            self.sink.ejected(Ejected::Slot(slot));
        }
    }
}

/// Aligned accesses of 32 bits; others are not answered.
impl BusDevice for PciHotplug {
    fn read(&mut self, offset: u64, data: &mut [u8]) -> Result<(), AccessError> {
        let value = match register(offset, data.len())? {
            UP => std::mem::take(&mut self.up),
            DOWN => std::mem::take(&mut self.down),
            _ => 0,
        };
        data.copy_from_slice(&value.to_le_bytes());
        Ok(())
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), AccessError> {
        let value = <[u8; 4]>::try_from(data).map_err(|_| AccessError)?;
        if register(offset, data.len())? == EJECT {
            self.eject(u32::from_le_bytes(value) & SLOTS);
        }
        Ok(())
    }
}

impl GpeSource for PciHotplug {
    fn has_news(&self) -> bool {
        (self.up | self.down) != 0
    }
}

/// After a reset a guest finds by itself what is there, and nothing is asked of it: a removal that
/// was under way is the owner's to complete, as nobody uses the function now.
impl Reset for PciHotplug {
    fn reset(&mut self) {
        self.up = 0;
        self.down = 0;
    }
}

/// What the root bus's hotplug registers remember.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PciHotplugStateV1 {
    /// UP.
    pub up: u32,
    /// DOWN.
    pub down: u32,
}

impl PciHotplugStateV1 {
    /// The layout's name and version.
    pub const SCHEMA: Schema = Schema {
        name: "pci-hotplug",
        version: 1,
    };

    fn encode(&self) -> Vec<u8> {
        StateWriter::new().u32(self.up).u32(self.down).finish()
    }

    fn decode(bytes: &[u8]) -> Result<Self, StateError> {
        let mut reader = StateReader::new(bytes);
        let state = Self {
            up: reader.u32()?,
            down: reader.u32()?,
        };
        reader.finish()?;
        check(state.up & !SLOTS == 0, "up")?;
        check(state.down & !SLOTS == 0, "down")?;
        Ok(state)
    }
}

impl Saveable for PciHotplug {
    fn schema(&self) -> Schema {
        PciHotplugStateV1::SCHEMA
    }

    fn save(&self) -> Vec<u8> {
        PciHotplugStateV1 {
            up: self.up,
            down: self.down,
        }
        .encode()
    }

    fn restore(&mut self, version: u32, bytes: &[u8]) -> Result<(), StateError> {
        PciHotplugStateV1::SCHEMA.expect_version(version)?;
        let state = PciHotplugStateV1::decode(bytes)?;
        self.up = state.up;
        self.down = state.down;
        Ok(())
    }
}
