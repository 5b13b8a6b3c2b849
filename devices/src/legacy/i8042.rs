//! The one use left of the keyboard controller (8042): its reset line.
//!
//! There is no keyboard and no controller behind the ports. The status register reads "a byte is
//! waiting, ready for a command", for ever: Linux flushes the buffer at most 16 times, finds it
//! never empty and reports no controller at once, where an empty buffer makes it wait half a second
//! for answers, and the busy bit (as in all ones) makes its reboot path spin for 65,536 port reads.
//!
//! UEFI firmware would read such a buffer for ever. Where it may run, the status register has two errors as well, by
//! which it knows that there is no keyboard.
//!
//! Without registers of its own the device has no saved state. vCPU threads, under the bus's lock.

use std::sync::Arc;

use crate::bus::{AccessError, BusDevice};
use crate::power::PowerSink;

/// Offset of the data port.
pub const DATA: u64 = 0;
/// Offset of the status (read) and command (write) port: 0x64 where the data port is 0x60.
pub const COMMAND: u64 = 4;

/// Status: output buffer full (bit 0), input buffer empty (bit 1 clear).
const STATUS: u8 = 0x01;
/// Status: parity error, and no answer from the keyboard.
const ERRORS: u8 = 0xc0;

/// The absent keyboard controller.
#[derive(Debug)]
pub struct I8042 {
    status: u8,
    power: Arc<dyn PowerSink>,
}

impl I8042 {
    /// A controller whose reset line leads to `power`.
    pub fn new(power: Arc<dyn PowerSink>) -> Self {
        Self {
            status: STATUS,
            power,
        }
    }

    /// The same, whose status register has errors too: for a machine that starts in firmware.
    #[must_use]
    pub fn with_errors(self) -> Self {
        Self {
            status: STATUS | ERRORS,
            ..self
        }
    }
}

impl BusDevice for I8042 {
    fn read(&mut self, offset: u64, data: &mut [u8]) -> Result<(), AccessError> {
        match (offset, data) {
            (DATA, [byte]) => *byte = 0,
            (COMMAND, [byte]) => *byte = self.status,
            _ => return Err(AccessError),
        }
        Ok(())
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), AccessError> {
        match (offset, data) {
            // 0xF0..=0xFF pulse the output lines whose bit is 0; bit 0 is the processor's reset.
            (COMMAND, [command]) if command & 0xf1 == 0xf0 => {
                self.power.reset();
            }
            (DATA | COMMAND, [_]) => {}
            _ => return Err(AccessError),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::RecordPower;

    #[test]
    fn command_fe_resets_and_nothing_else_does() {
        let power = Arc::new(RecordPower::default());
        let mut device = I8042::new(power.clone());
        for command in 0..=0xff_u8 {
            device.write(COMMAND, &[command]).unwrap();
            device.write(DATA, &[command]).unwrap();
            let expected = usize::from(matches!(command, 0xf0 | 0xf2 | 0xf4 | 0xf6))
                + usize::from(matches!(command, 0xf8 | 0xfa | 0xfc | 0xfe));
            assert_eq!(
                std::mem::take(&mut *power.resets()),
                expected,
                "{command:#x}"
            );
        }
    }

    #[test]
    fn uefi_firmware_finds_no_keyboard_where_it_may_run() {
        let device = || I8042::new(Arc::new(RecordPower::default()));
        let mut status = [0];
        device().read(COMMAND, &mut status).unwrap();
        assert_eq!(status[0], 0x01);
        device().with_errors().read(COMMAND, &mut status).unwrap();
        assert_eq!(status[0] & 0xc0, 0xc0, "Ps2KeyboardDxe gives up");
    }

    #[test]
    fn linux_finds_no_controller_and_its_reboot_path_does_not_wait() {
        for device in [I8042::new, |power| I8042::new(power).with_errors()] {
            gives_up(device(Arc::new(RecordPower::default())));
        }
    }

    fn gives_up(mut device: I8042) {
        let mut status = [0];
        let flushed = (0..)
            .take_while(|_| {
                device.read(COMMAND, &mut status).unwrap();
                status[0] & 1 != 0 && device.read(DATA, &mut [0]).is_ok()
            })
            .take(17)
            .count();
        assert_eq!(flushed, 17, "i8042_flush gives up after 16 bytes");
        assert_eq!(status[0] & 2, 0, "kb_wait returns at once");
    }
}
