//! The reset control register, port 0xCF9 (Intel ICH9 13.7.5), which the FADT names as RESET_REG.
//!
//! The port lies inside the PCI configuration address register 0xCF8..=0xCFB. That one takes only
//! 32-bit accesses and this one only bytes, so a PCI host bridge that claims the range hands byte
//! accesses to offset 1 on to this device. vCPU threads, under the bus's lock.

use std::sync::Arc;

use crate::bus::{AccessError, BusDevice};
use crate::power::{PowerSink, Reset};
use crate::state::{Saveable, Schema, StateError, StateReader, StateWriter, check};

/// SYS_RST: hard instead of soft reset.
const SYSTEM_RESET: u8 = 1 << 1;
/// RST_CPU: resets when set.
const RESET_CPU: u8 = 1 << 2;
/// FULL_RST: power cycle.
const FULL_RESET: u8 = 1 << 3;

const SCHEMA: Schema = Schema {
    name: "reset-control",
    version: 1,
};

/// The reset control register.
#[derive(Debug)]
pub struct ResetControl {
    kind: u8,
    power: Arc<dyn PowerSink>,
}

impl ResetControl {
    /// Length of the register in ports.
    pub const PORTS: u64 = 1;

    /// A register whose reset goes to `power`.
    pub fn new(power: Arc<dyn PowerSink>) -> Self {
        Self { kind: 0, power }
    }
}

impl BusDevice for ResetControl {
    fn read(&mut self, _offset: u64, data: &mut [u8]) -> Result<(), AccessError> {
        let [byte] = data else {
            return Err(AccessError);
        };
        *byte = self.kind;
        Ok(())
    }

    fn write(&mut self, _offset: u64, data: &[u8]) -> Result<(), AccessError> {
        let [byte] = data else {
            return Err(AccessError);
        };
        self.kind = byte & (SYSTEM_RESET | FULL_RESET);
        // Hardware wants a 0 -> 1 transition; RST_CPU never reads back as 1 here, so each write
        // with the bit set is one.
        if byte & RESET_CPU != 0 {
            self.power.reset();
        }
        Ok(())
    }
}

impl Reset for ResetControl {
    fn reset(&mut self) {
        self.kind = 0;
    }
}

impl Saveable for ResetControl {
    fn schema(&self) -> Schema {
        SCHEMA
    }

    fn save(&self) -> Vec<u8> {
        StateWriter::new().u8(self.kind).finish()
    }

    fn restore(&mut self, version: u32, bytes: &[u8]) -> Result<(), StateError> {
        SCHEMA.expect_version(version)?;
        let mut reader = StateReader::new(bytes);
        let kind = reader.u8()?;
        reader.finish()?;
        check(kind & !(SYSTEM_RESET | FULL_RESET) == 0, "kind")?;
        self.kind = kind;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::RecordPower;

    #[test]
    fn the_fadt_value_resets() {
        let power = Arc::new(RecordPower::default());
        let mut device = ResetControl::new(power.clone());
        device.write(0, &[0x06]).unwrap();
        assert_eq!(*power.resets(), 1);
    }

    #[test]
    fn linux_reboot_by_cf9_resets_on_its_second_write() {
        let power = Arc::new(RecordPower::default());
        let mut device = ResetControl::new(power.clone());
        let mut value = [0xff];
        device.read(0, &mut value).unwrap();
        let kept = value[0] & !0x0e;
        device.write(0, &[kept | 0x02]).unwrap();
        assert_eq!(*power.resets(), 0);
        device.write(0, &[kept | 0x0e]).unwrap();
        assert_eq!(*power.resets(), 1);
    }

    #[test]
    fn configuration_address_accesses_are_not_taken() {
        let mut device = ResetControl::new(Arc::new(RecordPower::default()));
        assert_eq!(device.write(0, &[0x06; 4]), Err(AccessError));
        assert_eq!(device.read(0, &mut [0; 2]), Err(AccessError));
    }

    #[test]
    fn state_is_one_checked_byte() {
        let mut device = ResetControl::new(Arc::new(RecordPower::default()));
        device.write(0, &[0x0a]).unwrap();
        assert_eq!(device.save(), [0x0a]);
        assert_eq!(
            device.restore(1, &[0x04]),
            Err(StateError::Invalid { field: "kind" })
        );
        assert_eq!(device.restore(1, &[0x02]), Ok(()));
        assert_eq!(device.save(), [0x02]);
    }
}
