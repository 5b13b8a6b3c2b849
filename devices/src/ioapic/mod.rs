//! The I/O APIC of a machine in split mode: Intel 82093AA with 24 inputs, version 0x20.
//!
//! ```text
//!  devices --IrqLine--> input --redirection entry--> MsiSink --> local APICs (in the kernel)
//!                                   |                                |
//!                                   +--> RouteSink (routing table)   | EOI of a level vector
//!                                   ^--------- end_of_interrupt -----+
//! ```
//!
//! Threads: vCPU threads write registers and report EOIs, any thread moves a line. All of it
//! happens under the IOAPIC's own mutex ([`Shared`]); the sinks are called with it held, so that
//! messages and routes leave in the order in which the state changed. Both are leaves: they must
//! not call a device or the IOAPIC. A device may hold its own lock when it moves its line.
//!
//! Levels are logical: `true` is asserted, and the polarity bit is stored and ignored, as KVM and
//! QEMU do, since guests disagree about it. An edge on a masked entry is lost (82093AA 3.2.4). A
//! level-triggered entry sends when its input is asserted, unmasked, and remote IRR is clear; remote
//! IRR is set only if a local APIC took the message.

use std::fmt::Debug;
use std::sync::Arc;

use crate::bus::{AccessError, BusDevice};
use crate::error::{DeviceError, FaultLog, GuestFault};
use crate::irq::{IrqBacking, IrqLine, MsiSink};
use crate::power::Reset;
use crate::shared::{Shared, lock};
use crate::state::{Saveable, Schema, StateError};

use self::entry::RedirectionEntry;
pub use self::entry::Route;
pub use self::state::IoapicStateV1;

mod entry;
mod state;
#[cfg(test)]
mod tests;

/// Interrupt inputs of the IOAPIC.
pub const PINS: usize = 24;

/// IOREGSEL.
const SELECT: u64 = 0x00;
/// IOWIN.
const WINDOW: u64 = 0x10;
/// EOIR, of version 0x20 and later.
const END_OF_INTERRUPT: u64 = 0x40;

const ID: u8 = 0x00;
const VERSION: u8 = 0x01;
const ARBITRATION: u8 = 0x02;
const REDIRECTION_TABLE: u8 = 0x10;

/// IOAPICVER: version 0x20, last redirection entry 23.
const VERSION_VALUE: u32 = 0x0017_0020;
/// The identifier lies in bits 24..=27 of IOAPICID.
const ID_SHIFT: u32 = 24;
const ID_MASK: u8 = 0x0f;

/// Keeps the hypervisor's routing table like the redirection table.
///
/// KVM reports the EOI of a vector only if its routing table has a level-triggered message with
/// that vector and a destination that matches, so level routes matter even though messages are sent
/// by [`MsiSink`]. They stay in place while an entry is masked: a guest masks before the EOI when it
/// moves an interrupt. Edge routes exist only while unmasked and matter only to an irqfd.
pub trait RouteSink: Debug + Send + Sync {
    /// The route of `pin` has become `route`; `None` if interrupts on it lead nowhere.
    fn route_changed(&self, pin: u8, route: Option<Route>);
}

/// The IOAPIC.
#[derive(Debug)]
pub struct Ioapic {
    id: u8,
    select: u8,
    /// Logical levels of the inputs, one bit each.
    levels: u32,
    table: [RedirectionEntry; PINS],
    messages: Arc<dyn MsiSink>,
    routes: Arc<dyn RouteSink>,
    faults: FaultLog,
}

impl Ioapic {
    /// Length of the register window in bytes.
    pub const MMIO_LEN: u64 = 0x1000;

    /// An IOAPIC after reset: identifier 0, every entry masked, every input low.
    pub fn new(messages: Arc<dyn MsiSink>, routes: Arc<dyn RouteSink>) -> Self {
        Self {
            id: 0,
            select: 0,
            levels: 0,
            table: [RedirectionEntry::RESET; PINS],
            messages,
            routes,
            faults: FaultLog::new(),
        }
    }

    /// The line that leads to input `pin`, for a device. One device a pin: lines do not share.
    ///
    /// # Errors
    /// There is no such pin.
    pub fn irq_line(ioapic: &Shared<Self>, pin: u8) -> Result<IrqLine, DeviceError> {
        if usize::from(pin) >= PINS {
            return Err(DeviceError::NoSuchPin { pin });
        }
        Ok(IrqLine::new(Arc::new(Pin {
            ioapic: ioapic.clone(),
            pin,
        })))
    }

    /// Input `pin` is asserted or not from now on; pins beyond the last are ignored.
    pub fn set_line(&mut self, pin: u8, asserted: bool) {
        if usize::from(pin) >= PINS {
            return;
        }
        let bit = 1 << pin;
        let rising = asserted && self.levels & bit == 0;
        if asserted {
            self.levels |= bit;
        } else {
            self.levels &= !bit;
        }
        match self.table.get(usize::from(pin)) {
            Some(entry) if entry.is_level() => self.service_level(pin),
            Some(entry) if rising && !entry.is_masked() => {
                self.send(pin, *entry);
            }
            _ => {}
        }
    }

    /// A local APIC has ended the level-triggered interrupt `vector` (KVM_EXIT_IOAPIC_EOI).
    /// Inputs that are still asserted interrupt again.
    pub fn end_of_interrupt(&mut self, vector: u8) {
        for pin in 0..PIN_NUMBERS {
            let Some(entry) = self.table.get_mut(usize::from(pin)) else {
                return;
            };
            if entry.is_level() && entry.remote_irr() && entry.vector() == vector {
                entry.set_remote_irr(false);
                self.service_level(pin);
            }
        }
    }

    /// The routes of all pins, as last told to the [`RouteSink`].
    pub fn routes(&self) -> [Option<Route>; PINS] {
        self.table.map(RedirectionEntry::route)
    }

    /// Sends a level-triggered interrupt if one is due.
    fn service_level(&mut self, pin: u8) {
        let Some(entry) = self.table.get(usize::from(pin)).copied() else {
            return;
        };
        let asserted = self.levels & 1 << pin != 0;
        if !asserted || !entry.is_level() || entry.is_masked() || entry.remote_irr() {
            return;
        }
        let taken = self.send(pin, entry);
        if let Some(entry) = self.table.get_mut(usize::from(pin)) {
            entry.set_remote_irr(taken);
        }
    }

    /// True if a local APIC took the interrupt.
    fn send(&self, pin: u8, entry: RedirectionEntry) -> bool {
        if let Some(message) = entry.message() {
            return self.messages.send(message);
        }
        self.faults.report(GuestFault::UndeliverableInterrupt {
            pin,
            entry: entry.bits(),
        });
        false
    }

    fn read_selected(&self) -> u32 {
        match self.select {
            ID | ARBITRATION => u32::from(self.id) << ID_SHIFT,
            VERSION => VERSION_VALUE,
            select => match self.table.get(usize::from(table_pin(select))) {
                Some(entry) if select % 2 == 0 => entry.low(),
                Some(entry) => entry.high(),
                // Registers that do not exist.
                None => 0,
            },
        }
    }

    fn write_selected(&mut self, value: u32) {
        if self.select == ID {
            self.id = (value >> ID_SHIFT) as u8 & ID_MASK;
            return;
        }
        let pin = table_pin(self.select);
        let Some(entry) = self.table.get_mut(usize::from(pin)) else {
            return;
        };
        let before = entry.route();
        if self.select % 2 == 0 {
            entry.set_low(value);
        } else {
            entry.set_high(value);
        }
        let after = entry.route();
        if before != after {
            self.routes.route_changed(pin, after);
        }
        self.service_level(pin);
    }
}

/// [`PINS`] as pins are numbered.
const PIN_NUMBERS: u8 = 24;

/// The pin whose entry register `select` belongs to; 0xff for registers outside the table.
fn table_pin(select: u8) -> u8 {
    select
        .checked_sub(REDIRECTION_TABLE)
        .map_or(u8::MAX, |register| register / 2)
}

/// Registers are 32 bits wide; the index register also takes narrower accesses to its low byte.
impl BusDevice for Ioapic {
    fn read(&mut self, offset: u64, data: &mut [u8]) -> Result<(), AccessError> {
        let value = match (offset, data.len()) {
            (SELECT, 1 | 2 | 4) => self.select.into(),
            (WINDOW, 4) => self.read_selected(),
            // EOIR is write-only.
            (END_OF_INTERRUPT, 4) => 0,
            _ => return Err(AccessError),
        };
        for (target, source) in data.iter_mut().zip(value.to_le_bytes()) {
            *target = source;
        }
        Ok(())
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), AccessError> {
        match (offset, data) {
            (SELECT, [low] | [low, _] | [low, _, _, _]) => self.select = *low,
            (WINDOW, &[a, b, c, d]) => self.write_selected(u32::from_le_bytes([a, b, c, d])),
            (END_OF_INTERRUPT, [vector] | [vector, _, _, _]) => self.end_of_interrupt(*vector),
            _ => return Err(AccessError),
        }
        Ok(())
    }
}

/// Inputs keep their levels: they belong to the devices, which lower them when they are reset.
impl Reset for Ioapic {
    fn reset(&mut self) {
        let before = self.routes();
        self.id = 0;
        self.select = 0;
        self.table = [RedirectionEntry::RESET; PINS];
        for (pin, route) in (0..).zip(before) {
            if route.is_some() {
                self.routes.route_changed(pin, None);
            }
        }
    }
}

impl Saveable for Ioapic {
    fn schema(&self) -> Schema {
        IoapicStateV1::SCHEMA
    }

    fn save(&self) -> Vec<u8> {
        IoapicStateV1 {
            id: self.id,
            select: self.select,
            levels: self.levels,
            table: self.table.map(RedirectionEntry::bits),
        }
        .encode()
    }

    /// Tells the route of every pin. Restored after the local APICs, to which an interrupt that is
    /// due (in a consistent snapshot there is none) is sent.
    fn restore(&mut self, version: u32, bytes: &[u8]) -> Result<(), StateError> {
        IoapicStateV1::SCHEMA.expect_version(version)?;
        let (state, table) = IoapicStateV1::decode(bytes)?;
        self.id = state.id;
        self.select = state.select;
        self.levels = state.levels;
        self.table = table;
        for (pin, route) in (0..).zip(self.routes()) {
            self.routes.route_changed(pin, route);
            self.service_level(pin);
        }
        Ok(())
    }
}

/// An input of an IOAPIC as the far end of a device's line.
#[derive(Debug)]
struct Pin {
    ioapic: Shared<Ioapic>,
    pin: u8,
}

impl IrqBacking for Pin {
    fn set_level(&self, asserted: bool) {
        lock(&self.ioapic).set_line(self.pin, asserted);
    }
}
