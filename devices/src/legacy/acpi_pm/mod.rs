//! ACPI fixed hardware: PM1a event and control registers, PM timer, power button, and the block of
//! general-purpose events GPE0 (ACPI 6.5 4.8).
//!
//! ```text
//!  offset 0  PM1_STS u16   write 1 to clear      8..=11  PM_TMR u32, read-only
//!         2  PM1_EN  u16                            12  GPE0_STS u16   write 1 to clear
//!         4  PM1_CNT u16   SCI_EN always 1          14  GPE0_EN  u16
//!      6..=7 nothing there
//! ```
//!
//! ACPI mode is always on: the FADT gives no SMI command port. SCI is a level, asserted while any
//! enabled status bit of either kind is set. SLP_EN with the S5 type asks the [`PowerSink`] to
//! power off; no other sleep state exists.
//!
//! vCPU threads read and write registers, the control thread presses the button and raises general
//! events, the timer thread ticks; all under the device's lock. The PM timer needs no thread: it is
//! a function of the monotonic clock, and its status bit is worked out when somebody looks.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use crate::bus::{AccessError, BusDevice};
use crate::clock::{MonotonicClock, TimedDevice};
use crate::error::{FaultLog, GuestFault};
use crate::irq::IrqLine;
use crate::power::{PowerSink, Reset};
use crate::shared::{Shared, Wake, lock};
use crate::state::{Saveable, Schema, StateError};

use self::gpe::GpeBlock;
pub use self::state::{AcpiPmStateV1, AcpiPmStateV2};
use self::timer::PmTimer;
pub use self::timer::PmTimerWidth;

mod gpe;
mod state;
#[cfg(test)]
mod tests;
mod timer;

/// SLP_TYP of S5 (soft off), as the DSDT's `_S5` has to give it.
pub const SLEEP_TYPE_S5: u8 = 5;

/// Offset of the PM1a event block: status, then enable, 2 bytes each.
pub const EVENT_BLOCK: u64 = 0;
/// Offset of the PM1a control block, 2 bytes.
pub const CONTROL_BLOCK: u64 = 4;
/// Offset of the PM timer, 4 bytes.
pub const TIMER_BLOCK: u64 = 8;
/// Offset of the GPE0 block: status, then enable, 2 bytes each.
pub const GPE0_BLOCK: u64 = 12;

const TIMER_STATUS: u16 = 1 << 0;
const GLOBAL_STATUS: u16 = 1 << 5;
const POWER_BUTTON_STATUS: u16 = 1 << 8;
/// Status bits that something here sets.
const STATUS_MASK: u16 = TIMER_STATUS | POWER_BUTTON_STATUS;
/// Enable bits kept: timer, global lock, power button, sleep button, RTC, PCIe wake disable.
const ENABLE_MASK: u16 = TIMER_STATUS | GLOBAL_STATUS | POWER_BUTTON_STATUS | 0x4600;

const CONTROL_SCI_EN: u16 = 1 << 0;
const CONTROL_BM_RLD: u16 = 1 << 1;
const CONTROL_SLEEP_TYPE: u16 = 0x1c00;
const CONTROL_SLEEP_ENABLE: u16 = 1 << 13;
/// What is kept of the control register: GBL_RLS and SLP_EN are write-only.
const CONTROL_MASK: u16 = CONTROL_BM_RLD | CONTROL_SLEEP_TYPE;

/// Registers that a general-purpose event is about.
pub trait GpeSource: Debug + Send {
    /// Whether they hold news that the guest has not looked at.
    fn has_news(&self) -> bool;
}

/// The worker's side of the power management registers.
#[derive(Debug)]
pub struct AcpiPmParams {
    /// Width of the PM timer; the FADT's TMR_VAL_EXT flag has to say the same.
    pub timer_width: PmTimerWidth,
    /// Drives the PM timer.
    pub clock: Arc<dyn MonotonicClock>,
    /// The system control interrupt.
    pub sci: IrqLine,
    /// Hears of S5.
    pub power: Arc<dyn PowerSink>,
    /// Told when [`TimedDevice::next_event`] has changed.
    pub timer: Arc<dyn Wake>,
    /// What general-purpose events are about, by their numbers. Looked at with the lock of these registers
    /// held, when the guest enables the event.
    pub gpes: Vec<(u8, Shared<dyn GpeSource>)>,
}

/// The power management registers.
#[derive(Debug)]
pub struct AcpiPm {
    /// Status bits other than the timer's.
    status: u16,
    enable: u16,
    control: u16,
    gpe: GpeBlock,
    pm_timer: PmTimer,
    sci_high: bool,
    sci: IrqLine,
    power: Arc<dyn PowerSink>,
    timer: Arc<dyn Wake>,
    gpes: Vec<(u8, Shared<dyn GpeSource>)>,
    faults: FaultLog,
}

impl AcpiPm {
    /// Number of ports the registers take.
    pub const PORTS: u64 = 16;
    /// Number of general-purpose events in GPE0.
    pub const GPES: u8 = 16;

    /// Registers after power-on.
    pub fn new(params: AcpiPmParams) -> Self {
        Self {
            status: 0,
            enable: 0,
            control: 0,
            gpe: GpeBlock::default(),
            pm_timer: PmTimer::new(params.timer_width, params.clock),
            sci_high: false,
            sci: params.sci,
            power: params.power,
            timer: params.timer,
            gpes: params.gpes,
            faults: FaultLog::new(),
        }
    }

    /// Presses the power button once: the guest is asked to shut down. It takes no notice if it
    /// does not listen, as with a real button.
    pub fn press_power_button(&mut self) {
        self.status |= POWER_BUTTON_STATUS;
        self.update_sci();
    }

    /// Lets time pass on the PM timer that its clock has not shown: that between a save and a restore.
    pub fn pass(&mut self, time: Duration) {
        self.pm_timer.pass(time);
        self.update_sci();
    }

    /// True once the guest's ACPI driver listens for the power button.
    pub fn power_button_enabled(&self) -> bool {
        self.enable & POWER_BUTTON_STATUS != 0
    }

    /// Sets the status of general-purpose event `number`: the guest runs its method `\_GPE._Exx`.
    /// Nothing happens for a number from [`GPES`](Self::GPES) on.
    ///
    /// A guest clears what was raised before its ACPI driver came up. So it is raised again when that
    /// driver enables the event, if its [`GpeSource`] still has news then.
    pub fn raise_gpe(&mut self, number: u8) {
        self.gpe.raise(number);
        self.update_sci();
    }

    /// Raises the events among `enabled`, which the guest has just enabled, that have news: what was raised
    /// before its driver came up it has cleared without a look.
    fn raise_forgotten(&mut self, enabled: u16) {
        for (number, source) in &self.gpes {
            if enabled & GpeBlock::bit(*number) != 0 && lock(source).has_news() {
                self.gpe.raise(*number);
            }
        }
    }

    /// True once the guest has a method for general-purpose event `number`, and has enabled it.
    pub fn gpe_enabled(&self, number: u8) -> bool {
        self.gpe.enabled(number)
    }

    fn status(&self) -> u16 {
        let timer = if self.pm_timer.has_carried() {
            TIMER_STATUS
        } else {
            0
        };
        self.status | timer
    }

    fn wants_sci(&self) -> bool {
        self.status() & self.enable != 0 || self.gpe.wants_sci()
    }

    fn update_sci(&mut self) {
        let high = self.wants_sci();
        if high != self.sci_high {
            self.sci_high = high;
            self.sci.set(high);
        }
    }

    /// All registers in the order of their offsets.
    fn image(&self) -> [u8; 16] {
        let [s0, s1] = self.status().to_le_bytes();
        let [e0, e1] = self.enable.to_le_bytes();
        let [c0, c1] = (self.control | CONTROL_SCI_EN).to_le_bytes();
        let [t0, t1, t2, t3] = self.pm_timer.count().to_le_bytes();
        let [g0, g1, g2, g3] = self.gpe.image();
        [
            s0, s1, e0, e1, c0, c1, 0xff, 0xff, t0, t1, t2, t3, g0, g1, g2, g3,
        ]
    }

    fn write_status(&mut self, clear: u16) {
        self.status &= !clear;
        if clear & TIMER_STATUS != 0 {
            self.pm_timer.acknowledge_carry();
        }
    }

    fn write_control(&mut self, value: u16) {
        self.control = value & CONTROL_MASK;
        if value & CONTROL_SLEEP_ENABLE == 0 {
            return;
        }
        let sleep_type = ((value & CONTROL_SLEEP_TYPE) >> 10) as u8;
        if sleep_type == SLEEP_TYPE_S5 {
            self.power.power_off();
        } else {
            self.faults
                .report(GuestFault::UnsupportedSleepType { sleep_type });
        }
    }
}

/// Any width at any offset inside the registers: bytes that an access does not cover are as if
/// written with what they read (status: with zeros).
impl BusDevice for AcpiPm {
    fn read(&mut self, offset: u64, data: &mut [u8]) -> Result<(), AccessError> {
        let skip = usize::try_from(offset).map_err(|_| AccessError)?;
        let image = self.image();
        let registers = image.get(skip..).and_then(|rest| rest.get(..data.len()));
        data.copy_from_slice(registers.ok_or(AccessError)?);
        // The timer's status may have become visible just now.
        self.update_sci();
        Ok(())
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), AccessError> {
        let mut clear = [0; 2];
        let enabled = self.gpe.enable;
        let mut enable = self.enable.to_le_bytes();
        let mut control = self.control.to_le_bytes();
        let mut control_written = false;
        // All or nothing: an access that ends beyond the registers changes none of them.
        let end = offset.checked_add(data.len() as u64);
        if end.is_none_or(|end| end > Self::PORTS) {
            return Err(AccessError);
        }
        for (offset, byte) in (offset..).zip(data) {
            let [clear_low, clear_high] = &mut clear;
            let [enable_low, enable_high] = &mut enable;
            let [control_low, control_high] = &mut control;
            match offset {
                0 => *clear_low = *byte,
                1 => *clear_high = *byte,
                2 => *enable_low = *byte,
                3 => *enable_high = *byte,
                4 => (*control_low, control_written) = (*byte, true),
                5 => (*control_high, control_written) = (*byte, true),
                GPE0_BLOCK.. => self.gpe.write(offset - GPE0_BLOCK, *byte),
                _ => {}
            }
        }
        let timed = self.enable & TIMER_STATUS != 0;
        self.enable = u16::from_le_bytes(enable) & ENABLE_MASK;
        self.write_status(u16::from_le_bytes(clear));
        self.raise_forgotten(self.gpe.enable & !enabled);
        self.update_sci();
        if timed || self.enable & TIMER_STATUS != 0 {
            self.timer.wake();
        }
        if control_written {
            self.write_control(u16::from_le_bytes(control));
        }
        Ok(())
    }
}

impl TimedDevice for AcpiPm {
    fn next_event(&self) -> Option<Duration> {
        let waiting = self.enable & TIMER_STATUS != 0 && !self.sci_high;
        waiting.then(|| self.pm_timer.until_carry())
    }

    fn tick(&mut self) {
        self.update_sci();
    }
}

impl Reset for AcpiPm {
    fn reset(&mut self) {
        self.status = 0;
        self.enable = 0;
        self.control = 0;
        self.gpe = GpeBlock::default();
        self.pm_timer.restart_at(0);
        self.update_sci();
    }
}

impl Saveable for AcpiPm {
    fn schema(&self) -> Schema {
        AcpiPmStateV2::SCHEMA
    }

    fn save(&self) -> Vec<u8> {
        let fixed = AcpiPmStateV1 {
            status: self.status(),
            enable: self.enable,
            control: self.control,
            timer_ticks: self.pm_timer.ticks(),
        };
        AcpiPmStateV2 {
            fixed,
            gpe_status: self.gpe.status,
            gpe_enable: self.gpe.enable,
        }
        .encode()
    }

    fn restore(&mut self, version: u32, bytes: &[u8]) -> Result<(), StateError> {
        let AcpiPmStateV2 {
            fixed,
            gpe_status,
            gpe_enable,
        } = AcpiPmStateV2::decode_any(version, bytes)?;
        self.status = fixed.status & !TIMER_STATUS;
        self.enable = fixed.enable;
        self.control = fixed.control;
        self.gpe = GpeBlock {
            status: gpe_status,
            enable: gpe_enable,
        };
        self.pm_timer.restart_at(fixed.timer_ticks);
        self.pm_timer.set_carried(fixed.status & TIMER_STATUS != 0);
        self.sci_high = self.wants_sci();
        self.sci.set(self.sci_high);
        Ok(())
    }
}
