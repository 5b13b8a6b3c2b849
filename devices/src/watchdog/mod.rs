//! A watchdog: Intel's 6300ESB (Intel 6300ESB I/O Controller Hub Datasheet, chapter 16) as a function of
//! the PCI bus, which stock kernels know as `i6300esb`.
//!
//! ```text
//!            enable, reload          first timer runs out       second timer runs out
//!  disabled ---------------> stage 1 ---------------------> stage 2 ----------------> output: expired,
//!      ^                        ^  interrupt, if it is asked for |                     disabled again
//!      +--- disable, reset -----+----------- reload -------------+--- output off: stage 1 or nothing
//! ```
//!
//! Here are the registers in memory and the two timers; [`function`](WatchdogFunction) has the
//! configuration space in front of them. A timer counts a 33 MHz clock that is divided by 2^15 or 2^5; none
//! is shorter than a millisecond, so that a guest cannot keep the thread that ticks busy. It counts
//! only while the machine runs: [`hold`](Watchdog::hold) and [`go_on`](Watchdog::go_on).
//!
//! What expired is a flag that the worker takes, woken by the device: what it means is the worker's. It is
//! part of the saved state until it is taken, and forgotten at a reset: what it was about is over.
//!
//! vCPU threads read and write registers, the timer thread ticks, the control thread holds, lets go on and
//! takes; all under the device's lock.

use std::sync::Arc;
use std::time::Duration;

use crate::bus::{AccessError, BusDevice};
use crate::clock::{MonotonicClock, TimedDevice};
use crate::irq::IrqLine;
use crate::shared::Wake;

mod function;
mod state;
#[cfg(test)]
mod tests;

pub use self::function::WatchdogFunction;
pub use self::state::WatchdogStateV1;

/// Registers in memory: the timers' lengths, the interrupt's status, and reload.
const TIMER_1: u64 = 0x0;
const TIMER_2: u64 = 0x4;
const INTERRUPT: u64 = 0x8;
const RELOAD: u64 = 0xc;
/// Bytes of them.
const REGISTERS: usize = 16;

/// The bits of a timer's length.
const LENGTH_MASK: u32 = 0xf_ffff;
/// Of the interrupt's status: the first timer has run out. Write 1 to clear.
const INTERRUPT_ACTIVE: u8 = 1 << 0;
/// Of reload: start again with the first timer.
const RELOAD_NOW: u32 = 1 << 8;
/// Of reload: the watchdog has expired since this was last cleared. Write 1 to clear.
const TIMED_OUT: u32 = 1 << 9;
/// What is written to reload, one after the other, before a protected register takes a write.
const UNLOCK: [u32; 2] = [0x80, 0x86];

/// Of the configuration register: which interrupt the first timer gives.
const INTERRUPT_TYPE: u8 = 0b11;
/// An interrupt by the line.
const INTERRUPT_BY_LINE: u8 = 0b00;
/// The clock is divided by 2^5, not by 2^15.
const FAST: u8 = 1 << 2;
/// The output is off.
const OUTPUT_OFF: u8 = 1 << 5;
/// What is kept of it.
const CONFIG_MASK: u8 = INTERRUPT_TYPE | FAST | OUTPUT_OFF;

/// Of the lock register: it takes no more writes until the machine is reset.
const LOCKED: u8 = 1 << 0;
/// The timers run.
const ENABLED: u8 = 1 << 1;
/// Once the second timer has run out and the output is off, the first starts again.
const FREE_RUNNING: u8 = 1 << 2;
/// What is kept of it.
const LOCK_MASK: u8 = LOCKED | ENABLED | FREE_RUNNING;

/// The least that a stage lasts.
const MIN_STAGE: Duration = Duration::from_millis(1);

/// The worker's side of a watchdog.
#[derive(Debug)]
pub struct WatchdogParams {
    /// Drives the timers.
    pub clock: Arc<dyn MonotonicClock>,
    /// Raised at the end of stage 1, if the guest asks for it.
    pub irq: IrqLine,
    /// Told when [`TimedDevice::next_event`] has come nearer.
    pub timer: Arc<dyn Wake>,
    /// Woken when [`Watchdog::take_expired`] has something to give.
    pub news: Arc<dyn Wake>,
}

/// The timer of the stage that the watchdog is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Countdown {
    /// It does not run.
    Stopped,
    /// The machine stands; so much is left.
    Held(Duration),
    /// Until then, by the clock.
    Until(Duration),
}

/// The registers in memory, and the timers.
#[derive(Debug)]
pub struct Watchdog {
    config: u8,
    lock: u8,
    /// The timers' lengths.
    lengths: [u32; 2],
    /// It is the second timer that runs.
    second: bool,
    /// How many of [`UNLOCK`] were written.
    unlocked: u8,
    interrupt: bool,
    timed_out: bool,
    /// It has expired, and nobody has taken that yet.
    expired: bool,
    countdown: Countdown,
    held: bool,
    clock: Arc<dyn MonotonicClock>,
    irq: IrqLine,
    timer: Arc<dyn Wake>,
    news: Arc<dyn Wake>,
}

impl Watchdog {
    /// A disabled one, of a machine that stands.
    #[must_use]
    pub fn new(params: WatchdogParams) -> Self {
        Self {
            config: 0,
            lock: 0,
            lengths: [LENGTH_MASK; 2],
            second: false,
            unlocked: 0,
            interrupt: false,
            timed_out: false,
            expired: false,
            countdown: Countdown::Stopped,
            held: true,
            clock: params.clock,
            irq: params.irq,
            timer: params.timer,
            news: params.news,
        }
    }

    /// The machine stands from now on: the timer does too.
    pub fn hold(&mut self) {
        self.held = true;
        if let Countdown::Until(end) = self.countdown {
            self.countdown = Countdown::Held(end.saturating_sub(self.clock.now()));
        }
    }

    /// The machine runs again.
    pub fn go_on(&mut self) {
        self.held = false;
        if let Countdown::Held(left) = self.countdown {
            self.countdown = Countdown::Until(self.clock.now().saturating_add(left));
            self.timer.wake();
        }
    }

    /// Whether it has expired, and was not taken since.
    #[must_use]
    pub fn has_expired(&self) -> bool {
        self.expired
    }

    /// As [`has_expired`](Self::has_expired); it is taken then.
    pub fn take_expired(&mut self) -> bool {
        std::mem::take(&mut self.expired)
    }

    /// How long the stage lasts.
    fn stage_length(&self) -> Duration {
        let [first, second] = self.lengths;
        let length = if self.second { second } else { first };
        let divider = if self.config & FAST == 0 { 15 } else { 5 };
        // 33 MHz: 1000 ns for 33 ticks. At most 2^35 ticks.
        let ticks = u64::from(length & LENGTH_MASK) << divider;
        Duration::from_nanos(ticks * 1000 / 33).max(MIN_STAGE)
    }

    /// Starts the first or the second timer, if the watchdog is enabled, for a thread that asks next.
    fn start(&mut self, second: bool) {
        if self.lock & ENABLED == 0 {
            return;
        }
        self.second = second;
        let length = self.stage_length();
        self.countdown = if self.held {
            Countdown::Held(length)
        } else {
            Countdown::Until(self.clock.now().saturating_add(length))
        };
    }

    /// As [`start`](Self::start) with the first timer, on a vCPU thread. Whoever waits for an earlier end
    /// finds nothing due then, and asks again.
    fn start_anew(&mut self) {
        let before = self.countdown;
        self.start(false);
        let later = match (before, self.countdown) {
            (Countdown::Until(before), Countdown::Until(end)) => before <= end,
            _ => false,
        };
        if !later {
            self.timer.wake();
        }
    }

    fn set_interrupt(&mut self, active: bool) {
        if self.interrupt != active {
            self.interrupt = active;
            self.irq.set(active);
        }
    }

    /// As after power-on; the guest finds across a reset that it has expired, and nobody else does.
    fn power_on(&mut self) {
        self.expired = false;
        self.config = 0;
        self.lock = 0;
        self.lengths = [LENGTH_MASK; 2];
        self.second = false;
        self.unlocked = 0;
        self.countdown = Countdown::Stopped;
        self.set_interrupt(false);
    }

    fn run_out(&mut self) {
        self.countdown = Countdown::Stopped;
        if !self.second {
            if self.config & INTERRUPT_TYPE == INTERRUPT_BY_LINE {
                self.set_interrupt(true);
            }
            self.start(true);
        } else if self.config & OUTPUT_OFF == 0 {
            self.power_on();
            self.timed_out = true;
            self.expired = true;
            self.news.wake();
        } else if self.lock & FREE_RUNNING != 0 {
            self.start(false);
        }
    }

    /// The lock register, as the guest writes it.
    fn write_lock(&mut self, value: u8) {
        if self.lock & LOCKED != 0 {
            return;
        }
        let was_enabled = self.lock & ENABLED != 0;
        self.lock = value & LOCK_MASK;
        if self.lock & ENABLED == 0 {
            self.countdown = Countdown::Stopped;
        } else if !was_enabled {
            self.start_anew();
        }
    }

    fn write_config(&mut self, value: u8) {
        self.config = value & CONFIG_MASK;
    }

    /// A write to a register that takes one only behind the two of [`UNLOCK`].
    fn write_protected(&mut self, register: u64, value: u32) {
        let [first, second] = UNLOCK;
        self.unlocked = match (register, value, self.unlocked) {
            (RELOAD, value, _) if value == first => 1,
            (RELOAD, value, 1) if value == second => 2,
            (register, value, 2) => {
                self.write_unlocked(register, value);
                0
            }
            _ => 0,
        };
    }

    fn write_unlocked(&mut self, register: u64, value: u32) {
        let [first, second] = &mut self.lengths;
        match register {
            TIMER_1 => *first = value & LENGTH_MASK,
            TIMER_2 => *second = value & LENGTH_MASK,
            RELOAD => {
                if value & TIMED_OUT != 0 {
                    self.timed_out = false;
                }
                if value & RELOAD_NOW != 0 {
                    self.start_anew();
                }
            }
            _ => {}
        }
    }

    fn image(&self) -> [u8; REGISTERS] {
        let [first, second] = self.lengths.map(u32::to_le_bytes);
        let interrupt = if self.interrupt { INTERRUPT_ACTIVE } else { 0 };
        let reload = if self.timed_out { TIMED_OUT } else { 0 };
        let mut image = [0; REGISTERS];
        let fields = [first, second, [interrupt, 0, 0, 0], reload.to_le_bytes()];
        for (byte, field) in image.iter_mut().zip(fields.as_flattened()) {
            *byte = *field;
        }
        image
    }
}

/// Any width within the registers is read; a write begins where a register does, and has at most its
/// 4 bytes.
impl BusDevice for Watchdog {
    fn read(&mut self, offset: u64, data: &mut [u8]) -> Result<(), AccessError> {
        let skip = usize::try_from(offset).map_err(|_| AccessError)?;
        let image = self.image();
        let registers = image.get(skip..).and_then(|rest| rest.get(..data.len()));
        data.copy_from_slice(registers.ok_or(AccessError)?);
        Ok(())
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), AccessError> {
        if data.len() > 4 || offset >= REGISTERS as u64 {
            return Err(AccessError);
        }
        let value = data
            .iter()
            .rev()
            .fold(0, |value, byte| value << 8 | u32::from(*byte));
        if offset == INTERRUPT {
            if value & u32::from(INTERRUPT_ACTIVE) != 0 {
                self.set_interrupt(false);
            }
            self.unlocked = 0;
        } else {
            self.write_protected(offset, value);
        }
        Ok(())
    }
}

impl TimedDevice for Watchdog {
    fn next_event(&self) -> Option<Duration> {
        match self.countdown {
            Countdown::Until(end) => Some(end.saturating_sub(self.clock.now())),
            Countdown::Stopped | Countdown::Held(_) => None,
        }
    }

    fn tick(&mut self) {
        if let Countdown::Until(end) = self.countdown {
            if end <= self.clock.now() {
                self.run_out();
            }
        }
    }
}
