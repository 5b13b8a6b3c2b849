//! Saved state of a serial port.

use super::fifo::ReceiveFifo;
use super::{FCR_ENABLE, FCR_KEPT, IER_MASK, MCR_MASK, Registers};
use crate::state::{Schema, StateError, StateReader, StateWriter, check};

/// Everything a 16550A remembers. Fields are the registers of the data sheet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SerialStateV1 {
    /// IER, bits 0..=3.
    pub interrupt_enable: u8,
    /// FCR as kept: bits 0, 3, 6 and 7; 0 while the FIFO is off.
    pub fifo_control: u8,
    /// LCR.
    pub line_control: u8,
    /// MCR, bits 0..=4.
    pub modem_control: u8,
    /// LSR's overrun bit.
    pub overrun: bool,
    /// MSR's delta bits 0..=3.
    pub modem_deltas: u8,
    /// SCR.
    pub scratch: u8,
    /// DLM and DLL.
    pub divisor: u16,
    /// The transmitter-empty interrupt has not been reported yet.
    pub transmitter_pending: bool,
    /// Characters in the receiver: at most 16, at most 1 while the FIFO is off.
    pub received_len: u8,
    /// The characters, oldest first, then zeros.
    pub received: [u8; ReceiveFifo::CAPACITY],
}

impl SerialStateV1 {
    /// The layout's name and version.
    pub const SCHEMA: Schema = Schema {
        name: "serial",
        version: 1,
    };

    pub(super) fn encode(&self) -> Vec<u8> {
        StateWriter::new()
            .u8(self.interrupt_enable)
            .u8(self.fifo_control)
            .u8(self.line_control)
            .u8(self.modem_control)
            .bool(self.overrun)
            .u8(self.modem_deltas)
            .u8(self.scratch)
            .u16(self.divisor)
            .bool(self.transmitter_pending)
            .u8(self.received_len)
            .bytes(&self.received)
            .finish()
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, StateError> {
        let mut reader = StateReader::new(bytes);
        let state = Self {
            interrupt_enable: reader.u8()?,
            fifo_control: reader.u8()?,
            line_control: reader.u8()?,
            modem_control: reader.u8()?,
            overrun: reader.bool("overrun")?,
            modem_deltas: reader.u8()?,
            scratch: reader.u8()?,
            divisor: reader.u16()?,
            transmitter_pending: reader.bool("transmitter_pending")?,
            received_len: reader.u8()?,
            received: reader.bytes()?,
        };
        reader.finish()?;
        check(state.interrupt_enable & !IER_MASK == 0, "interrupt_enable")?;
        check(state.fifo_control & !FCR_KEPT == 0, "fifo_control")?;
        let fifo = state.fifo_control & FCR_ENABLE != 0;
        check(fifo || state.fifo_control == 0, "fifo_control")?;
        check(state.modem_control & !MCR_MASK == 0, "modem_control")?;
        check(state.modem_deltas & !0x0f == 0, "modem_deltas")?;
        let len = usize::from(state.received_len);
        check(
            len <= if fifo { ReceiveFifo::CAPACITY } else { 1 },
            "received_len",
        )?;
        check(
            state.received.iter().skip(len).all(|byte| *byte == 0),
            "received",
        )?;
        Ok(state)
    }
}

impl From<&Registers> for SerialStateV1 {
    fn from(registers: &Registers) -> Self {
        let mut fifo = registers.fifo.clone();
        let mut received = [0; ReceiveFifo::CAPACITY];
        let mut received_len = 0;
        for slot in &mut received {
            let Some(byte) = fifo.pop() else { break };
            *slot = byte;
            received_len += 1;
        }
        Self {
            interrupt_enable: registers.interrupt_enable,
            fifo_control: registers.fifo_control,
            line_control: registers.line_control,
            modem_control: registers.modem_control,
            overrun: registers.overrun,
            modem_deltas: registers.modem_deltas,
            scratch: registers.scratch,
            divisor: registers.divisor,
            transmitter_pending: registers.transmitter_pending,
            received_len,
            received,
        }
    }
}

impl From<SerialStateV1> for Registers {
    fn from(state: SerialStateV1) -> Self {
        let mut fifo = ReceiveFifo::new();
        for byte in state.received.iter().take(state.received_len.into()) {
            fifo.push(*byte);
        }
        Self {
            interrupt_enable: state.interrupt_enable,
            fifo_control: state.fifo_control,
            line_control: state.line_control,
            modem_control: state.modem_control,
            overrun: state.overrun,
            modem_deltas: state.modem_deltas,
            scratch: state.scratch,
            divisor: state.divisor,
            transmitter_pending: state.transmitter_pending,
            fifo,
        }
    }
}
