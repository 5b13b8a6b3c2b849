//! How a guest reaches configuration space: by memory (PCI Express 6.0 §7.2.2), or by two ports (PCI
//! Local Bus 3.0 §3.2.2.3.2).
//!
//! Both take an access of 1, 2 or 4 bytes inside one aligned dword, and no other. Registers of a
//! function that does not exist read as all ones: that is how a guest finds out, and no fault.

use std::fmt;

use super::{Root, WeakRoot};
use crate::bus::{AccessError, BusDevice};
use crate::legacy::reset::ResetControl;
use crate::pci::Slot;
use crate::power::Reset;
use crate::shared::{Shared, lock};
use crate::state::{Saveable, Schema, StateError, StateReader, StateWriter, check};

/// Refuses an access that is not inside one aligned dword.
fn check_access(offset: u64, width: usize) -> Result<(), AccessError> {
    if matches!(width, 1 | 2 | 4) && offset % 4 + width as u64 <= 4 {
        Ok(())
    } else {
        Err(AccessError)
    }
}

/// Configuration space as memory: 4096 bytes a function, 8 functions a slot, 32 slots a bus.
#[derive(Debug)]
pub struct Ecam {
    root: Root,
}

impl Ecam {
    /// Length of one bus in bytes. The region may be longer: there is nothing on buses but the first.
    pub const BUS_LEN: u64 = 1 << 20;

    /// The functions of `root`.
    #[must_use]
    pub fn new(root: Root) -> Self {
        Self { root }
    }

    /// The slot and the register that an access means; no slot if there can be nothing.
    fn decode(offset: u64, width: usize) -> Result<Option<(Slot, u16)>, AccessError> {
        check_access(offset, width)?;
        let [register_low, middle, bus_low, ..] = offset.to_le_bytes();
        let register = u16::from_le_bytes([register_low, middle & 0x0f]);
        let function = middle >> 4 & 7;
        let slot = (bus_low & 0x0f) << 1 | middle >> 7;
        let first_function = offset < Self::BUS_LEN && function == 0;
        Ok(Slot::new(slot)
            .filter(|_| first_function)
            .map(|slot| (slot, register)))
    }
}

impl BusDevice for Ecam {
    fn read(&mut self, offset: u64, data: &mut [u8]) -> Result<(), AccessError> {
        match Self::decode(offset, data.len())? {
            Some((slot, register)) => self.root.read_config(slot, register, data),
            None => data.fill(0xff),
        }
        Ok(())
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), AccessError> {
        if let Some((slot, register)) = Self::decode(offset, data.len())? {
            self.root.write_config(slot, register, data);
        }
        Ok(())
    }
}

/// Configuration space as memory, wherever the host bridge has it. It is itself a region of the bus, so it does
/// not keep the bus.
pub struct MovableEcam {
    root: WeakRoot,
}

impl MovableEcam {
    pub(super) fn new(root: WeakRoot) -> Self {
        Self { root }
    }

    fn ecam(&self) -> Result<Ecam, AccessError> {
        self.root.get().map(Ecam::new).ok_or(AccessError)
    }
}

impl BusDevice for MovableEcam {
    fn read(&mut self, offset: u64, data: &mut [u8]) -> Result<(), AccessError> {
        self.ecam()?.read(offset, data)
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), AccessError> {
        self.ecam()?.write(offset, data)
    }
}

impl fmt::Debug for MovableEcam {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MovableEcam").finish_non_exhaustive()
    }
}

/// CONFIG_ADDRESS: accesses to CONFIG_DATA are configuration accesses.
const ENABLE: u32 = 1 << 31;
/// CONFIG_ADDRESS: bus, device, function and dword; the other bits are reserved and zero.
const TARGET: u32 = 0x00ff_fffc;
/// Offset of CONFIG_DATA.
const DATA: u64 = 4;
/// Offset of the reset control register inside CONFIG_ADDRESS.
const RESET_CONTROL: u64 = 1;

const SCHEMA: Schema = Schema {
    name: "pci-config-ports",
    version: 1,
};

/// The ports 0xCF8..=0xCFF: CONFIG_ADDRESS, which is a dword and nothing less, and CONFIG_DATA. A byte
/// at 0xCF9 is the reset control register's.
#[derive(Debug)]
pub struct ConfigPorts {
    root: Root,
    reset_control: Shared<ResetControl>,
    address: u32,
}

impl ConfigPorts {
    /// The first port.
    pub const FIRST_PORT: u16 = 0xcf8;
    /// Number of ports.
    pub const PORTS: u64 = 8;

    /// The functions of `root`; the register at 0xCF9 is `reset_control`.
    #[must_use]
    pub fn new(root: Root, reset_control: Shared<ResetControl>) -> Self {
        Self {
            root,
            reset_control,
            address: 0,
        }
    }

    /// The slot and the register that an access to CONFIG_DATA means; no slot if there can be
    /// nothing.
    fn decode(&self, offset: u64, width: usize) -> Result<Option<(Slot, u16)>, AccessError> {
        check_access(offset, width)?;
        let byte = offset
            .checked_sub(DATA)
            .and_then(|byte| u8::try_from(byte).ok())
            .filter(|byte| *byte < 4)
            .ok_or(AccessError)?;
        if self.address & ENABLE == 0 {
            return Err(AccessError);
        }
        let [register, target, bus, _] = self.address.to_le_bytes();
        let (slot, function) = (target >> 3, target & 7);
        Ok(Slot::new(slot)
            .filter(|_| bus == 0 && function == 0)
            .map(|slot| (slot, u16::from(register | byte))))
    }
}

impl BusDevice for ConfigPorts {
    fn read(&mut self, offset: u64, data: &mut [u8]) -> Result<(), AccessError> {
        match (offset, data.len()) {
            (0, 4) => data.copy_from_slice(&self.address.to_le_bytes()),
            (RESET_CONTROL, 1) => lock(&self.reset_control).read(0, data)?,
            _ => match self.decode(offset, data.len())? {
                Some((slot, register)) => self.root.read_config(slot, register, data),
                None => data.fill(0xff),
            },
        }
        Ok(())
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), AccessError> {
        match (offset, data) {
            (0, [a, b, c, d]) => {
                self.address = u32::from_le_bytes([*a, *b, *c, *d]) & (ENABLE | TARGET);
            }
            (RESET_CONTROL, [_]) => lock(&self.reset_control).write(0, data)?,
            _ => {
                if let Some((slot, register)) = self.decode(offset, data.len())? {
                    self.root.write_config(slot, register, data);
                }
            }
        }
        Ok(())
    }
}

/// Without the reset control register, which is a device of its own.
impl Reset for ConfigPorts {
    fn reset(&mut self) {
        self.address = 0;
    }
}

/// Without the reset control register, which is a device of its own.
impl Saveable for ConfigPorts {
    fn schema(&self) -> Schema {
        SCHEMA
    }

    fn save(&self) -> Vec<u8> {
        StateWriter::new().u32(self.address).finish()
    }

    fn restore(&mut self, version: u32, bytes: &[u8]) -> Result<(), StateError> {
        SCHEMA.expect_version(version)?;
        let mut reader = StateReader::new(bytes);
        let address = reader.u32()?;
        reader.finish()?;
        check(address & !(ENABLE | TARGET) == 0, "address")?;
        self.address = address;
        Ok(())
    }
}
