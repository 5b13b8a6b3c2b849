//! The debug port, 0x402, on which firmware for QEMU tells what it does (QEMU, docs/specs/isa-debugcon).
//!
//! One port of 8 bits: reading it gives 0xE9, by which firmware knows that somebody listens; what is written is
//! a byte of text. Where nobody listens there is no device, and firmware says nothing: each byte costs an exit.
//!
//! Without registers the device has no saved state. vCPU threads, under the bus's lock.

use std::sync::Arc;

use crate::bus::{AccessError, BusDevice};
use crate::console::ConsoleSink;

/// What says that somebody listens.
const LISTENING: u8 = 0xe9;

/// The port.
#[derive(Debug)]
pub struct DebugPort {
    sink: Arc<dyn ConsoleSink>,
}

impl DebugPort {
    /// Number of ports it takes.
    pub const PORTS: u64 = 1;

    /// A port whose text goes to `sink`.
    #[must_use]
    pub fn new(sink: Arc<dyn ConsoleSink>) -> Self {
        Self { sink }
    }
}

impl BusDevice for DebugPort {
    fn read(&mut self, _offset: u64, data: &mut [u8]) -> Result<(), AccessError> {
        let [byte] = data else {
            return Err(AccessError);
        };
        *byte = LISTENING;
        Ok(())
    }

    fn write(&mut self, _offset: u64, data: &[u8]) -> Result<(), AccessError> {
        let [byte] = data else {
            return Err(AccessError);
        };
        self.sink.push(&[*byte]);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shared::lock;
    use std::sync::Mutex;

    #[derive(Debug, Default)]
    struct Text(Mutex<Vec<u8>>);

    impl ConsoleSink for Text {
        fn push(&self, bytes: &[u8]) {
            lock(&self.0).extend_from_slice(bytes);
        }
    }

    #[test]
    fn firmware_is_heard_byte_by_byte() {
        let text = Arc::new(Text::default());
        let mut port = DebugPort::new(text.clone());
        let mut byte = [0];
        port.read(0, &mut byte).unwrap();
        assert_eq!(byte, [0xe9]);
        for byte in b"POST" {
            port.write(0, &[*byte]).unwrap();
        }
        assert_eq!(*lock(&text.0), b"POST");
        assert_eq!(port.write(0, &[0; 2]), Err(AccessError));
        assert_eq!(port.read(0, &mut [0; 4]), Err(AccessError));
    }
}
