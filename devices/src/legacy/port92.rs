//! System control port A, 0x92 (Intel ICH9 13.7.2): the A20 gate, and a reset.
//!
//! A20 is always on: KVM has no gate, and no guest of ours wants the address to wrap. Firmware turns the gate on
//! all the same, and must not read back a bit that resets the machine when it writes that.
//!
//! Without registers of its own the device has no saved state. vCPU threads, under the bus's lock.

use std::sync::Arc;

use crate::bus::{AccessError, BusDevice};
use crate::power::PowerSink;

/// INIT_NOW: resets.
const RESET: u8 = 1 << 0;
/// ALT_A20_GATE: A20 is on.
const A20: u8 = 1 << 1;

/// The port.
#[derive(Debug)]
pub struct Port92 {
    power: Arc<dyn PowerSink>,
}

impl Port92 {
    /// Number of ports it takes.
    pub const PORTS: u64 = 1;

    /// A port whose reset goes to `power`.
    #[must_use]
    pub fn new(power: Arc<dyn PowerSink>) -> Self {
        Self { power }
    }
}

impl BusDevice for Port92 {
    fn read(&mut self, _offset: u64, data: &mut [u8]) -> Result<(), AccessError> {
        let [byte] = data else {
            return Err(AccessError);
        };
        *byte = A20;
        Ok(())
    }

    fn write(&mut self, _offset: u64, data: &[u8]) -> Result<(), AccessError> {
        let [byte] = data else {
            return Err(AccessError);
        };
        if byte & RESET != 0 {
            self.power.reset();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::RecordPower;

    #[test]
    fn turning_a20_on_does_not_reset_and_the_reset_bit_does() {
        let power = Arc::new(RecordPower::default());
        let mut port = Port92::new(power.clone());
        let mut byte = [0xff];
        port.read(0, &mut byte).unwrap();
        port.write(0, &[byte[0] | A20]).unwrap();
        port.write(0, &[0]).unwrap();
        assert_eq!(*power.resets(), 0);
        port.read(0, &mut byte).unwrap();
        assert_eq!(byte, [A20]);
        port.write(0, &[byte[0] | RESET]).unwrap();
        assert_eq!(*power.resets(), 1);
        assert_eq!(port.write(0, &[RESET; 2]), Err(AccessError));
        assert_eq!(port.read(0, &mut [0; 2]), Err(AccessError));
    }
}
