//! A 16550A serial port as Linux's 8250 driver and firmware expect it (TI PC16550D data sheet).
//!
//! ```text
//!  guest THR write --> ConsoleSink (at once: the transmitter is always empty)
//!  guest RBR read  <-- 16-byte receive FIFO <-- enqueue() from the I/O thread
//! ```
//!
//! Registers are handled on vCPU threads under the device's lock; [`Serial::enqueue`] takes the
//! same lock on the I/O thread. Input is never lost to an overrun: `enqueue` takes what fits and
//! the sender keeps the rest until the guest has emptied the FIFO. Characters take no time on this
//! wire, so a FIFO below its trigger level reports a character timeout at once, and the transmitter
//! is empty again by the time a write to it returns. Break, parity and framing errors do not exist.
//! OUT2 does not gate the interrupt: guests that forget it would otherwise hang.

use std::sync::Arc;

use crate::bus::{AccessError, BusDevice};
use crate::console::ConsoleSink;
use crate::irq::IrqLine;
use crate::power::Reset;
use crate::shared::Wake;
use crate::state::{Saveable, Schema, StateError};

use self::fifo::ReceiveFifo;
pub use self::state::SerialStateV1;

mod fifo;
mod state;
#[cfg(test)]
mod tests;

/// RBR and THR, or DLL with DLAB set.
const DATA: u64 = 0;
/// IER, or DLM with DLAB set.
const INTERRUPT_ENABLE: u64 = 1;
/// IIR (read) and FCR (write).
const INTERRUPT_ID: u64 = 2;
const LINE_CONTROL: u64 = 3;
const MODEM_CONTROL: u64 = 4;
const LINE_STATUS: u64 = 5;
const MODEM_STATUS: u64 = 6;
const SCRATCH: u64 = 7;

const IER_RECEIVED: u8 = 1 << 0;
const IER_TRANSMITTER_EMPTY: u8 = 1 << 1;
const IER_LINE_STATUS: u8 = 1 << 2;
const IER_MODEM_STATUS: u8 = 1 << 3;
const IER_MASK: u8 = 0x0f;

const IIR_NONE: u8 = 0x01;
const IIR_MODEM_STATUS: u8 = 0x00;
const IIR_TRANSMITTER_EMPTY: u8 = 0x02;
const IIR_RECEIVED: u8 = 0x04;
const IIR_LINE_STATUS: u8 = 0x06;
const IIR_TIMEOUT: u8 = 0x0c;
const IIR_FIFO_ENABLED: u8 = 0xc0;

const FCR_ENABLE: u8 = 1 << 0;
const FCR_CLEAR_RECEIVER: u8 = 1 << 1;
/// What is kept of FCR: enable, DMA mode, trigger level. The clear bits clear themselves.
const FCR_KEPT: u8 = 0xc9;

const LCR_DLAB: u8 = 1 << 7;

const MCR_DTR: u8 = 1 << 0;
const MCR_RTS: u8 = 1 << 1;
const MCR_OUT1: u8 = 1 << 2;
const MCR_OUT2: u8 = 1 << 3;
const MCR_LOOPBACK: u8 = 1 << 4;
const MCR_MASK: u8 = 0x1f;

const LSR_DATA_READY: u8 = 1 << 0;
const LSR_OVERRUN: u8 = 1 << 1;
const LSR_TRANSMITTER_EMPTY: u8 = 0x60;

const MSR_CTS: u8 = 1 << 4;
const MSR_DSR: u8 = 1 << 5;
const MSR_RI: u8 = 1 << 6;
const MSR_DCD: u8 = 1 << 7;
/// Inputs whose every change shows as a delta bit; RI shows only its falling edge.
const MSR_BOTH_EDGES: u8 = MSR_CTS | MSR_DSR | MSR_DCD;

/// 9600 baud, as firmware leaves a port.
const DEFAULT_DIVISOR: u16 = 12;

/// Registers of the port, without anything of the host side.
#[derive(Debug, Clone)]
struct Registers {
    interrupt_enable: u8,
    fifo_control: u8,
    line_control: u8,
    modem_control: u8,
    overrun: bool,
    /// Delta bits of MSR, bits 0..=3.
    modem_deltas: u8,
    scratch: u8,
    divisor: u16,
    /// The transmitter has become empty since IIR last reported it.
    transmitter_pending: bool,
    fifo: ReceiveFifo,
}

impl Registers {
    fn power_on() -> Self {
        Self {
            interrupt_enable: 0,
            fifo_control: 0,
            line_control: 0,
            modem_control: 0,
            overrun: false,
            modem_deltas: 0,
            scratch: 0,
            divisor: DEFAULT_DIVISOR,
            transmitter_pending: false,
            fifo: ReceiveFifo::new(),
        }
    }

    fn fifo_enabled(&self) -> bool {
        self.fifo_control & FCR_ENABLE != 0
    }

    /// Characters that the receiver holds: the FIFO, or the buffer register alone.
    fn capacity(&self) -> usize {
        if self.fifo_enabled() {
            ReceiveFifo::CAPACITY
        } else {
            1
        }
    }

    fn trigger(&self) -> usize {
        match (self.fifo_enabled(), self.fifo_control >> 6) {
            (false, _) | (true, 0) => 1,
            (true, 1) => 4,
            (true, 2) => 8,
            (true, _) => 14,
        }
    }

    fn loopback(&self) -> bool {
        self.modem_control & MCR_LOOPBACK != 0
    }

    fn divisor_access(&self) -> bool {
        self.line_control & LCR_DLAB != 0
    }

    /// Modem inputs, bits 4..=7 of MSR. A peer is always there and ready.
    fn modem_inputs(&self) -> u8 {
        if !self.loopback() {
            return MSR_CTS | MSR_DSR | MSR_DCD;
        }
        [
            (MCR_RTS, MSR_CTS),
            (MCR_DTR, MSR_DSR),
            (MCR_OUT1, MSR_RI),
            (MCR_OUT2, MSR_DCD),
        ]
        .into_iter()
        .filter(|(output, _)| self.modem_control & output != 0)
        .fold(0, |inputs, (_, input)| inputs | input)
    }

    /// IIR without the FIFO bits: the cause of highest priority.
    fn interrupt_cause(&self) -> u8 {
        let enabled = |bit| self.interrupt_enable & bit != 0;
        if enabled(IER_LINE_STATUS) && self.overrun {
            IIR_LINE_STATUS
        } else if enabled(IER_RECEIVED) && !self.fifo.is_empty() {
            if self.fifo.len() >= self.trigger() {
                IIR_RECEIVED
            } else {
                IIR_TIMEOUT
            }
        } else if enabled(IER_TRANSMITTER_EMPTY) && self.transmitter_pending {
            IIR_TRANSMITTER_EMPTY
        } else if enabled(IER_MODEM_STATUS) && self.modem_deltas != 0 {
            IIR_MODEM_STATUS
        } else {
            IIR_NONE
        }
    }

    /// A character from the loopback wire.
    fn receive_looped(&mut self, byte: u8) {
        if self.fifo.len() < self.capacity() {
            self.fifo.push(byte);
            return;
        }
        self.overrun = true;
        if !self.fifo_enabled() {
            // Without a FIFO the new character replaces the unread one; with it, the new one is lost.
            self.fifo.clear();
            self.fifo.push(byte);
        }
    }

    fn set_modem_control(&mut self, value: u8) {
        let before = self.modem_inputs();
        self.modem_control = value & MCR_MASK;
        let after = self.modem_inputs();
        let changed = (before ^ after) & MSR_BOTH_EDGES | before & !after & MSR_RI;
        self.modem_deltas |= changed >> 4;
    }

    fn set_fifo_control(&mut self, value: u8) {
        let toggled = (self.fifo_control ^ value) & FCR_ENABLE != 0;
        if toggled || value & FCR_CLEAR_RECEIVER != 0 {
            self.fifo.clear();
        }
        // The other bits take effect only together with the enable bit.
        self.fifo_control = if value & FCR_ENABLE != 0 {
            value & FCR_KEPT
        } else {
            0
        };
    }

    fn set_interrupt_enable(&mut self, value: u8) {
        let rising = value & !self.interrupt_enable;
        self.interrupt_enable = value & IER_MASK;
        // Enabling the interrupt reports an empty transmitter even if IIR has reported it before:
        // Linux tests ports for it (UART_BUG_THRE), Windows relies on it.
        if rising & IER_TRANSMITTER_EMPTY != 0 {
            self.transmitter_pending = true;
        }
    }
}

/// A serial port.
#[derive(Debug)]
pub struct Serial {
    registers: Registers,
    /// The level last given to `irq`.
    irq_high: bool,
    /// An `enqueue` was cut short; the sender waits for `input_room`.
    input_refused: bool,
    irq: IrqLine,
    output: Arc<dyn ConsoleSink>,
    input_room: Arc<dyn Wake>,
}

impl Serial {
    /// Number of ports the registers take.
    pub const PORTS: u64 = 8;

    /// A port after power-on. `input_room` is called once after an `enqueue` that took less than
    /// it was offered, when the guest has emptied the receiver.
    pub fn new(irq: IrqLine, output: Arc<dyn ConsoleSink>, input_room: Arc<dyn Wake>) -> Self {
        Self {
            registers: Registers::power_on(),
            irq_high: false,
            input_refused: false,
            irq,
            output,
            input_room,
        }
    }

    /// Offers input to the guest; how many bytes of it the receiver has taken. If that is less
    /// than all, `input_room` says when to offer the rest.
    pub fn enqueue(&mut self, bytes: &[u8]) -> usize {
        // In loopback mode the receiver is cut off from the wire.
        let room = if self.registers.loopback() {
            0
        } else {
            self.registers
                .capacity()
                .saturating_sub(self.registers.fifo.len())
        };
        let accepted = room.min(bytes.len());
        for byte in bytes.iter().take(accepted) {
            self.registers.fifo.push(*byte);
        }
        self.input_refused |= accepted < bytes.len();
        self.update_irq();
        accepted
    }

    fn update_irq(&mut self) {
        let high = self.registers.interrupt_cause() != IIR_NONE;
        if high != self.irq_high {
            self.irq_high = high;
            self.irq.set(high);
        }
    }

    fn offer_room(&mut self) {
        let empty = self.registers.fifo.is_empty() && !self.registers.loopback();
        if empty && std::mem::take(&mut self.input_refused) {
            self.input_room.wake();
        }
    }

    fn read_register(&mut self, offset: u64) -> u8 {
        let registers = &mut self.registers;
        match offset {
            DATA if registers.divisor_access() => registers.divisor.to_le_bytes()[0],
            DATA => registers.fifo.pop().unwrap_or(0),
            INTERRUPT_ENABLE if registers.divisor_access() => registers.divisor.to_le_bytes()[1],
            INTERRUPT_ENABLE => registers.interrupt_enable,
            INTERRUPT_ID => {
                let cause = registers.interrupt_cause();
                if cause == IIR_TRANSMITTER_EMPTY {
                    registers.transmitter_pending = false;
                }
                if registers.fifo_enabled() {
                    cause | IIR_FIFO_ENABLED
                } else {
                    cause
                }
            }
            LINE_CONTROL => registers.line_control,
            MODEM_CONTROL => registers.modem_control,
            LINE_STATUS => {
                let overrun = if std::mem::take(&mut registers.overrun) {
                    LSR_OVERRUN
                } else {
                    0
                };
                let ready = if registers.fifo.is_empty() {
                    0
                } else {
                    LSR_DATA_READY
                };
                LSR_TRANSMITTER_EMPTY | overrun | ready
            }
            MODEM_STATUS => registers.modem_inputs() | std::mem::take(&mut registers.modem_deltas),
            SCRATCH => registers.scratch,
            _ => 0xff,
        }
    }

    fn write_register(&mut self, offset: u64, value: u8) {
        let registers = &mut self.registers;
        match offset {
            DATA if registers.divisor_access() => {
                registers.divisor = u16::from_le_bytes([value, registers.divisor.to_le_bytes()[1]]);
            }
            DATA => {
                if registers.loopback() {
                    registers.receive_looped(value);
                } else {
                    self.output.push(&[value]);
                }
                registers.transmitter_pending = true;
            }
            INTERRUPT_ENABLE if registers.divisor_access() => {
                registers.divisor = u16::from_le_bytes([registers.divisor.to_le_bytes()[0], value]);
            }
            INTERRUPT_ENABLE => registers.set_interrupt_enable(value),
            INTERRUPT_ID => registers.set_fifo_control(value),
            LINE_CONTROL => registers.line_control = value,
            MODEM_CONTROL => registers.set_modem_control(value),
            SCRATCH => registers.scratch = value,
            // LSR and MSR are read-only.
            _ => {}
        }
    }
}

/// Wide accesses are taken apart into bytes at rising ports, as the ISA bus does.
impl BusDevice for Serial {
    fn read(&mut self, offset: u64, data: &mut [u8]) -> Result<(), AccessError> {
        for (offset, byte) in (offset..).zip(data) {
            *byte = self.read_register(offset);
        }
        self.update_irq();
        self.offer_room();
        Ok(())
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), AccessError> {
        for (offset, byte) in (offset..).zip(data) {
            self.write_register(offset, *byte);
        }
        self.update_irq();
        self.offer_room();
        Ok(())
    }
}

impl Reset for Serial {
    fn reset(&mut self) {
        self.registers = Registers::power_on();
        self.update_irq();
        self.offer_room();
    }
}

impl Saveable for Serial {
    fn schema(&self) -> Schema {
        SerialStateV1::SCHEMA
    }

    fn save(&self) -> Vec<u8> {
        SerialStateV1::from(&self.registers).encode()
    }

    fn restore(&mut self, version: u32, bytes: &[u8]) -> Result<(), StateError> {
        SerialStateV1::SCHEMA.expect_version(version)?;
        self.registers = SerialStateV1::decode(bytes)?.into();
        self.irq_high = self.registers.interrupt_cause() != IIR_NONE;
        self.irq.set(self.irq_high);
        self.offer_room();
        Ok(())
    }
}
