//! The real-time clock and its CMOS RAM: Motorola MC146818A as Linux's rtc_cmos and firmware use it.
//!
//! ```text
//!  offset 0 (port 0x70)  register index, bit 7 masks NMI; write-only
//!         1 (port 0x71)  the register: 0..=9 time and alarm, A..=D control, the rest RAM
//!
//!           SET or divider reset                     both clear
//!  running ----------------------> standing still ---------------> running
//!  time = host's + offset          time registers are RAM          offset from the RAM
//! ```
//!
//! The clock is a function of the host's time of day, shown in UTC: there is no thread and nothing
//! drifts. Flags of register C are worked out when somebody looks, and pushed as an interrupt by
//! [`TimedDevice::tick`](crate::clock::TimedDevice::tick) only when the guest has enabled them; a guest that never acknowledges
//! costs nothing, since an asserted line has no next event.
//!
//! vCPU threads read and write registers, the timer thread ticks; both under the device's lock.
//! Battery-backed: a machine reset keeps time and RAM.

use std::sync::Arc;

use crate::bus::{AccessError, BusDevice};
use crate::clock::WallClock;
use crate::irq::IrqLine;
use crate::power::Reset;
use crate::shared::Wake;
use crate::state::{Saveable, Schema, StateError};

use self::calendar::SECOND;
pub use self::memory::CmosMemory;
pub use self::state::CmosStateV1;

mod calendar;
mod events;
mod memory;
mod state;
#[cfg(test)]
mod tests;
mod timekeeping;

/// Registers and RAM together.
const RAM_LEN: usize = 128;

const SECONDS: u8 = 0x00;
const SECONDS_ALARM: u8 = 0x01;
const MINUTES: u8 = 0x02;
const MINUTES_ALARM: u8 = 0x03;
const HOURS: u8 = 0x04;
const HOURS_ALARM: u8 = 0x05;
const WEEKDAY: u8 = 0x06;
const DAY_OF_MONTH: u8 = 0x07;
const MONTH: u8 = 0x08;
const YEAR: u8 = 0x09;
const REGISTER_A: u8 = 0x0a;
const REGISTER_B: u8 = 0x0b;
const REGISTER_C: u8 = 0x0c;
const REGISTER_D: u8 = 0x0d;
const EQUIPMENT: u8 = 0x14;
/// Century, as the FADT's CENTURY field has to say.
pub const CENTURY: u8 = 0x32;

const TIME_REGISTERS: [u8; 8] = [
    SECONDS,
    MINUTES,
    HOURS,
    WEEKDAY,
    DAY_OF_MONTH,
    MONTH,
    YEAR,
    CENTURY,
];

/// UIP: the time is about to change.
const A_UPDATE_IN_PROGRESS: u8 = 1 << 7;
/// DV1 and DV2 together hold the divider in reset.
const A_DIVIDER_RESET: u8 = 0x60;
/// 32,768 Hz time base, 1,024 Hz periodic rate.
const A_POWER_ON: u8 = 0x26;

const B_SET: u8 = 1 << 7;
const B_PERIODIC: u8 = 1 << 6;
const B_ALARM: u8 = 1 << 5;
const B_UPDATE: u8 = 1 << 4;
const B_SQUARE_WAVE: u8 = 1 << 3;
const B_BINARY: u8 = 1 << 2;
const B_24_HOURS: u8 = 1 << 1;
const B_INTERRUPTS: u8 = B_PERIODIC | B_ALARM | B_UPDATE;

/// IRQF: an enabled flag is set. The flags have the bits of their enables in register B.
const C_INTERRUPT: u8 = 1 << 7;
const REGISTER_C_FLAGS: u8 = C_INTERRUPT | B_INTERRUPTS;

/// VRT: RAM and time are valid.
const D_VALID: u8 = 1 << 7;

/// UIP leads the update by 244 us.
const UPDATE_LEAD: i128 = 244_000;
/// The first update follows half a second after the divider leaves reset.
const AFTER_DIVIDER_RESET: i128 = SECOND / 2;

/// The worker's side of the RTC.
#[derive(Debug)]
pub struct CmosParams {
    /// The host's time of day.
    pub clock: Arc<dyn WallClock>,
    /// The RTC's interrupt.
    pub irq: IrqLine,
    /// Told when [`TimedDevice::next_event`](crate::clock::TimedDevice::next_event) has changed.
    pub timer: Arc<dyn Wake>,
    /// RAM sizes for firmware.
    pub memory: CmosMemory,
}

/// The real-time clock.
#[derive(Debug)]
pub struct Cmos {
    index: u8,
    nmi_masked: bool,
    ram: [u8; RAM_LEN],
    /// Guest time minus host time, in nanoseconds.
    offset: i128,
    /// Guest time up to which events have become flags.
    seen: i128,
    irq_high: bool,
    clock: Arc<dyn WallClock>,
    irq: IrqLine,
    timer: Arc<dyn Wake>,
}

impl Cmos {
    /// Number of ports the registers take.
    pub const PORTS: u64 = 2;

    /// A clock that shows the host's time in BCD and 24 hours, as PC firmware leaves it.
    pub fn new(params: CmosParams) -> Self {
        let mut device = Self {
            index: 0,
            nmi_masked: false,
            ram: [0; RAM_LEN],
            offset: 0,
            seen: 0,
            irq_high: false,
            clock: params.clock,
            irq: params.irq,
            timer: params.timer,
        };
        device.set(REGISTER_A, A_POWER_ON);
        device.set(REGISTER_B, B_24_HOURS);
        // A coprocessor, no diskette drive.
        device.set(EQUIPMENT, 0x02);
        for (index, value) in params.memory.registers() {
            device.set(index, value);
        }
        device.seen = device.now();
        device
    }

    /// True if the guest has masked NMI through port 0x70.
    pub fn nmi_masked(&self) -> bool {
        self.nmi_masked
    }

    fn get(&self, index: u8) -> u8 {
        self.ram.get(usize::from(index)).copied().unwrap_or(0)
    }

    fn set(&mut self, index: u8, value: u8) {
        if let Some(register) = self.ram.get_mut(usize::from(index)) {
            *register = value;
        }
    }

    fn read_selected(&mut self) -> u8 {
        match self.index {
            index if TIME_REGISTERS.contains(&index) && self.is_running() => {
                self.show(index, self.now())
            }
            REGISTER_A => {
                let to_update = SECOND - self.now().rem_euclid(SECOND);
                let updating = self.is_running() && to_update <= UPDATE_LEAD;
                self.get(REGISTER_A) | if updating { A_UPDATE_IN_PROGRESS } else { 0 }
            }
            REGISTER_C => {
                self.catch_up();
                let value = self.get(REGISTER_C);
                self.set_flags(0);
                self.rearm();
                value
            }
            REGISTER_D => D_VALID,
            index => self.get(index),
        }
    }

    fn write_selected(&mut self, value: u8) {
        match self.index {
            index if TIME_REGISTERS.contains(&index) => {
                if !self.is_running() {
                    self.set(index, value);
                    return;
                }
                self.catch_up();
                let fraction = self.now().rem_euclid(SECOND);
                self.latch();
                self.set(index, value);
                self.commit(fraction);
                self.rearm();
            }
            SECONDS_ALARM | MINUTES_ALARM | HOURS_ALARM => {
                // What came before is judged by the old alarm.
                self.catch_up();
                self.set(self.index, value);
                self.rearm();
            }
            REGISTER_A => self.write_control(REGISTER_A, value & !A_UPDATE_IN_PROGRESS),
            REGISTER_B => {
                // SET going high clears UIE.
                let kept = if value & B_SET != 0 { !B_UPDATE } else { 0xff };
                self.write_control(REGISTER_B, value & kept);
            }
            REGISTER_C | REGISTER_D => {}
            index => self.set(index, value),
        }
    }

    /// Writes register A or B, stopping or setting the clock as they say.
    fn write_control(&mut self, index: u8, value: u8) {
        self.catch_up();
        let (was_running, was_reset) = (self.is_running(), self.divider_reset());
        if was_running {
            // Harmless if it runs on, and in the old encoding, as it would have been frozen.
            self.latch();
        }
        let fraction = if was_reset {
            AFTER_DIVIDER_RESET
        } else {
            self.now().rem_euclid(SECOND)
        };
        self.set(index, value);
        if !was_running && self.is_running() {
            self.commit(fraction);
        }
        // Enabling a flag that is set already raises the line.
        self.set_flags(self.get(REGISTER_C) & B_INTERRUPTS);
        self.rearm();
    }
}

/// Wide accesses are taken apart into bytes at rising ports, as the ISA bus does: index and value
/// may be written at once.
impl BusDevice for Cmos {
    fn read(&mut self, offset: u64, data: &mut [u8]) -> Result<(), AccessError> {
        for (offset, byte) in (offset..).zip(data) {
            *byte = match offset {
                1 => self.read_selected(),
                _ => 0xff,
            };
        }
        Ok(())
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), AccessError> {
        for (offset, byte) in (offset..).zip(data) {
            match offset {
                0 => {
                    self.index = byte & 0x7f;
                    self.nmi_masked = byte & 0x80 != 0;
                }
                1 => self.write_selected(*byte),
                _ => return Err(AccessError),
            }
        }
        Ok(())
    }
}

impl Reset for Cmos {
    fn reset(&mut self) {
        self.index = 0;
        self.nmi_masked = false;
        self.set(
            REGISTER_B,
            self.get(REGISTER_B) & !(B_INTERRUPTS | B_SQUARE_WAVE),
        );
        self.seen = self.now();
        self.set_flags(0);
    }
}

impl Saveable for Cmos {
    fn schema(&self) -> Schema {
        CmosStateV1::SCHEMA
    }

    fn save(&self) -> Vec<u8> {
        let Self {
            index,
            nmi_masked,
            offset,
            ram,
            ..
        } = *self;
        CmosStateV1 {
            index,
            nmi_masked,
            offset,
            ram,
        }
        .encode()
    }

    /// The clock goes on with the host's time: it shows how long the guest was away.
    fn restore(&mut self, version: u32, bytes: &[u8]) -> Result<(), StateError> {
        CmosStateV1::SCHEMA.expect_version(version)?;
        let state = CmosStateV1::decode(bytes)?;
        self.index = state.index;
        self.nmi_masked = state.nmi_masked;
        self.offset = state.offset;
        self.ram = state.ram;
        self.seen = self.now();
        self.set_flags(self.get(REGISTER_C) & B_INTERRUPTS);
        self.irq.set(self.irq_high);
        Ok(())
    }
}
