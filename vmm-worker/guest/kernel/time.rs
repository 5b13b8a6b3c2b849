//! Time-stamp counter, power-management timer, real-time clock.

use core::arch::x86_64::_rdtsc;

use crate::console;
use crate::machine::{PM_TIMER, in32, read_cmos};

/// The power-management timer's frequency (ACPI 6.5, 4.8.3.3).
const PM_HZ: u64 = 3_579_545;
/// Bound of every wait for a device or another processor: 7 to 17 seconds on any of today. A host that is busy may
/// not run the thread that is waited for any sooner.
const PATIENCE: u64 = 1 << 35;

/// Reads the time-stamp counter.
pub fn cycles() -> u64 {
    // SAFETY: the instruction exists on every x86-64 processor, and CR4.TSD is clear.
    unsafe { _rdtsc() }
}

/// Spins until `done`; false if it takes longer than anything here should.
pub fn wait_until(mut done: impl FnMut() -> bool) -> bool {
    let start = cycles();
    while !done() {
        if cycles().wrapping_sub(start) > PATIENCE {
            return false;
        }
        core::hint::spin_loop();
    }
    true
}

/// A moment on both counters.
#[derive(Clone, Copy)]
pub struct Moment {
    pm: u32,
    tsc: u64,
}

/// What passed between two moments.
pub struct Elapsed {
    /// By the power-management timer.
    pub microseconds: u64,
    /// By the time-stamp counter.
    pub cycles: u64,
}

/// Reads both counters. The slow one first each time, so that its delay cancels.
pub fn now() -> Moment {
    let pm = in32(PM_TIMER);
    Moment { pm, tsc: cycles() }
}

impl Moment {
    /// Time since this moment; the slow counter wraps after 4.6 s (24 bits).
    pub fn elapsed(self) -> Elapsed {
        self.elapsed_at(now())
    }

    /// Time from this moment to `end`.
    pub fn elapsed_at(self, end: Moment) -> Elapsed {
        let ticks = u64::from(end.pm.wrapping_sub(self.pm) & 0xff_ffff);
        Elapsed {
            microseconds: ticks * 1_000_000 / PM_HZ,
            cycles: end.tsc.wrapping_sub(self.tsc),
        }
    }
}

/// The time-stamp counter's frequency in kHz, measured for five milliseconds. Says so if the
/// power-management timer stands still.
pub fn measure_tsc_khz() -> Option<u64> {
    let start = undisturbed();
    let moved = wait_until(|| start.elapsed().microseconds >= 5000);
    let elapsed = start.elapsed_at(undisturbed());
    if !moved {
        say_still();
        return None;
    }
    Some(elapsed.cycles * 1000 / elapsed.microseconds.max(1))
}

/// Whether there is a power-management timer and it runs.
#[cfg(drivers)]
pub fn pm_timer_runs() -> bool {
    const LONG: u64 = 1 << 21;
    let (first, start) = (in32(PM_TIMER), cycles());
    while cycles().wrapping_sub(start) < LONG {
        if in32(PM_TIMER) != first {
            return true;
        }
    }
    false
}

/// A fault of the machine.
pub fn say_still() {
    console::print(b"timer: FAILED, PM timer stands still\n");
}

/// The tightest of a few readings: the host may stop this processor between the two counters.
fn undisturbed() -> Moment {
    let mut best = (u64::MAX, now());
    for _ in 0..4 {
        let before = cycles();
        let moment = now();
        let width = moment.tsc.wrapping_sub(before);
        if width < best.0 {
            best = (width, moment);
        }
    }
    best.1
}

/// A date and time of day, in whatever zone the clock is kept.
pub struct Date {
    /// Full year.
    pub year: u64,
    /// 1 to 12.
    pub month: u64,
    /// 1 to 31.
    pub day: u64,
    /// 0 to 23.
    pub hour: u64,
    /// 0 to 59.
    pub minute: u64,
    /// 0 to 59.
    pub second: u64,
}

/// Reads the real-time clock (MC146818). The century is at index 0x32, as the FADT would say.
pub fn date() -> Date {
    const STATUS_A: u8 = 0x0a;
    const STATUS_B: u8 = 0x0b;
    const UPDATING: u8 = 0x80;
    const BINARY: u8 = 1 << 2;
    const HOURS_24: u8 = 1 << 1;
    const PM: u8 = 0x80;
    // A fresh update ends at least a quarter of a millisecond before the next begins.
    wait_until(|| read_cmos(STATUS_A) & UPDATING == 0);
    let status = read_cmos(STATUS_B);
    let decode = |value: u8| {
        let value = u64::from(value);
        if status & BINARY != 0 {
            value
        } else {
            (value >> 4) * 10 + (value & 0xf)
        }
    };
    let read = |index| decode(read_cmos(index));
    let hour = read_cmos(4);
    let mut date = Date {
        year: read(9) + 100 * read(0x32),
        month: read(8),
        day: read(7),
        hour: decode(hour),
        minute: read(2),
        second: read(0),
    };
    if status & HOURS_24 == 0 {
        let afternoon = if hour & PM != 0 { 12 } else { 0 };
        date.hour = decode(hour & !PM) % 12 + afternoon;
    }
    date
}
