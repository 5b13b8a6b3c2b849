//! The running clock: from the host's time to time registers, flags and the interrupt, and back.

use std::time::Duration;

use super::calendar::{DateTime, Encoding, SECOND};
use super::events::{self, Alarm, AlarmField};
use super::{
    A_DIVIDER_RESET, B_24_HOURS, B_ALARM, B_BINARY, B_INTERRUPTS, B_PERIODIC, B_SET, B_UPDATE,
    C_INTERRUPT, CENTURY, Cmos, DAY_OF_MONTH, HOURS, HOURS_ALARM, MINUTES, MINUTES_ALARM, MONTH,
    REGISTER_A, REGISTER_B, REGISTER_C, SECONDS, SECONDS_ALARM, TIME_REGISTERS, WEEKDAY, YEAR,
};
use crate::clock::TimedDevice;

impl Cmos {
    /// Guest time in nanoseconds since 1970.
    pub(super) fn now(&self) -> i128 {
        let host = i128::try_from(self.clock.now().as_nanos()).unwrap_or(i128::MAX);
        host.saturating_add(self.offset)
    }

    pub(super) fn divider_reset(&self) -> bool {
        self.get(REGISTER_A) & A_DIVIDER_RESET == A_DIVIDER_RESET
    }

    pub(super) fn is_running(&self) -> bool {
        self.get(REGISTER_B) & B_SET == 0 && !self.divider_reset()
    }

    pub(super) fn encoding(&self) -> Encoding {
        let control = self.get(REGISTER_B);
        Encoding {
            binary: control & B_BINARY != 0,
            hours_24: control & B_24_HOURS != 0,
        }
    }

    /// What time register `index` shows at guest time `now`.
    pub(super) fn show(&self, index: u8, now: i128) -> u8 {
        let (date, encoding) = (DateTime::from_nanoseconds(now), self.encoding());
        let value = match index {
            SECONDS => date.second,
            MINUTES => date.minute,
            HOURS => return encoding.encode_hour(date.hour),
            WEEKDAY => date.weekday(),
            DAY_OF_MONTH => date.day,
            MONTH => date.month,
            YEAR => (date.year % 100).to_le_bytes()[0],
            _ => (date.year / 100).to_le_bytes()[0],
        };
        encoding.encode(value)
    }

    /// Writes the running time into the time registers.
    pub(super) fn latch(&mut self) {
        let now = self.now();
        for index in TIME_REGISTERS {
            self.set(index, self.show(index, now));
        }
    }

    /// Sets the clock from the time registers, `fraction` nanoseconds into the second. The day of
    /// the week follows from the date.
    pub(super) fn commit(&mut self, fraction: i128) {
        let encoding = self.encoding();
        let field = |index| encoding.decode(self.get(index)).unwrap_or(0);
        let date = DateTime {
            year: u16::from(field(CENTURY).min(99)) * 100 + u16::from(field(YEAR).min(99)),
            month: field(MONTH),
            day: field(DAY_OF_MONTH),
            hour: encoding.decode_hour(self.get(HOURS)).unwrap_or(0),
            minute: field(MINUTES),
            second: field(SECONDS),
        };
        let target = i128::from(date.to_seconds()) * SECOND + fraction;
        self.offset = self
            .offset
            .saturating_add(target.saturating_sub(self.now()));
        self.seen = self.now();
    }

    pub(super) fn alarm(&self) -> Alarm {
        let encoding = self.encoding();
        let field = |index, is_hour: bool| match self.get(index) {
            0xc0.. => AlarmField::Any,
            byte if is_hour => encoding
                .decode_hour(byte)
                .map_or(AlarmField::Never, AlarmField::Is),
            byte => encoding
                .decode(byte)
                .map_or(AlarmField::Never, AlarmField::Is),
        };
        Alarm {
            hour: field(HOURS_ALARM, true),
            minute: field(MINUTES_ALARM, false),
            second: field(SECONDS_ALARM, false),
        }
    }

    /// Turns what has happened since the last look into flags, and drives the line.
    pub(super) fn catch_up(&mut self) {
        // Nothing has happened if the host's clock was set back.
        let (from, to) = (self.seen, self.now());
        self.seen = to;
        let mut flags = self.get(REGISTER_C) & B_INTERRUPTS;
        let rate = self.get(REGISTER_A);
        if !self.divider_reset() && events::periodic_between(rate, from, to) {
            flags |= B_PERIODIC;
        }
        if self.is_running() && events::update_between(from, to) {
            flags |= B_UPDATE;
            if flags & B_ALARM == 0 && self.alarm().next(from).is_some_and(|alarm| alarm <= to) {
                flags |= B_ALARM;
            }
        }
        self.set_flags(flags);
    }

    pub(super) fn set_flags(&mut self, flags: u8) {
        let high = flags & self.get(REGISTER_B) & B_INTERRUPTS != 0;
        self.set(REGISTER_C, flags | if high { C_INTERRUPT } else { 0 });
        if high != self.irq_high {
            self.irq_high = high;
            self.irq.set(high);
        }
    }

    /// Tells the timer thread to ask again, if the guest uses interrupts at all.
    pub(super) fn rearm(&self) {
        if self.get(REGISTER_B) & B_INTERRUPTS != 0 {
            self.timer.wake();
        }
    }
}

impl TimedDevice for Cmos {
    fn next_event(&self) -> Option<Duration> {
        if self.irq_high {
            return None;
        }
        // If the host's clock was set back, from there.
        let seen = self.seen.min(self.now());
        let wanted = |bit| self.get(REGISTER_B) & bit != 0 && self.get(REGISTER_C) & bit == 0;
        let periodic = if wanted(B_PERIODIC) && !self.divider_reset() {
            events::next_periodic(self.get(REGISTER_A), seen)
        } else {
            None
        };
        let running = self.is_running();
        let update = (running && wanted(B_UPDATE)).then(|| events::next_update(seen));
        let alarm = if running && wanted(B_ALARM) {
            self.alarm().next(seen)
        } else {
            None
        };
        let next = [periodic, update, alarm].into_iter().flatten().min()?;
        let wait = next.saturating_sub(self.now()).max(0);
        Some(Duration::from_nanos(
            u64::try_from(wait).unwrap_or(u64::MAX),
        ))
    }

    fn tick(&mut self) {
        self.catch_up();
    }
}
