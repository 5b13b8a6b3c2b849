//! When the RTC's three events happen: pure functions of guest time and the alarm registers.
//!
//! Guest time is in nanoseconds since 1970 as the guest's clock shows it.

use std::ops::RangeInclusive;

use super::calendar::{DAY, DateTime, SECOND};

/// Frequency of the time base behind the periodic interrupt.
const TIME_BASE: i128 = 32_768;

/// Ticks of the time base between periodic interrupts; `rate` is RS, the low bits of register A.
/// `None` while RS is 0.
fn period(rate: u8) -> Option<i128> {
    match rate & 0x0f {
        0 => None,
        // RS 1 and 2 give the periods of 8 and 9 (256 and 128 Hz) with this time base.
        rate @ 1..=2 => Some(1 << (rate + 6)),
        rate => Some(1 << (rate - 1)),
    }
}

/// True if a periodic interrupt falls into (`from`, `to`].
pub(super) fn periodic_between(rate: u8, from: i128, to: i128) -> bool {
    period(rate).is_some_and(|period| count(period, to) > count(period, from))
}

/// The first periodic interrupt after `from`.
pub(super) fn next_periodic(rate: u8, from: i128) -> Option<i128> {
    let period = period(rate)?;
    let ticks = (count(period, from) + 1) * period;
    // Rounded up, so that the count has changed when it is asked for at that time.
    Some((ticks * SECOND).div_euclid(TIME_BASE) + 1)
}

fn count(period: i128, nanoseconds: i128) -> i128 {
    (nanoseconds * TIME_BASE).div_euclid(SECOND * period)
}

/// True if the second changes in (`from`, `to`].
pub(super) fn update_between(from: i128, to: i128) -> bool {
    to.div_euclid(SECOND) > from.div_euclid(SECOND)
}

/// The first change of the second after `from`.
pub(super) fn next_update(from: i128) -> i128 {
    (from.div_euclid(SECOND) + 1) * SECOND
}

/// One alarm register, decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AlarmField {
    /// Matches every value (both top bits set).
    Any,
    /// Matches this value; one that the clock never shows never matches.
    Is(u8),
    /// Not a number in the clock's encoding: never matches.
    Never,
}

impl AlarmField {
    fn matches(self, value: u8) -> bool {
        self == Self::Any || self == Self::Is(value)
    }
}

/// The alarm registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Alarm {
    pub(super) hour: AlarmField,
    pub(super) minute: AlarmField,
    pub(super) second: AlarmField,
}

impl Alarm {
    /// The first second after `from` that the alarm matches.
    pub(super) fn next(self, from: i128) -> Option<i128> {
        let midnight = from.div_euclid(SECOND * i128::from(DAY)) * SECOND * i128::from(DAY);
        let now = DateTime::from_nanoseconds(from);
        let of_day =
            u32::from(now.hour) * 3600 + u32::from(now.minute) * 60 + u32::from(now.second);
        let today = self.first_in_day(of_day + 1).map(i128::from);
        let tomorrow = || {
            self.first_in_day(0)
                .map(|second| i128::from(second) + i128::from(DAY))
        };
        today
            .or_else(tomorrow)
            .map(|second| midnight + second * SECOND)
    }

    /// The first matching second of a day, not before `earliest`.
    fn first_in_day(self, earliest: u32) -> Option<u32> {
        let values = |field: AlarmField, range: RangeInclusive<u8>| {
            range
                .filter(move |value| field.matches(*value))
                .map(u32::from)
        };
        // At most 24 + 60 + 60 comparisons a branch taken: hours and minutes that end too early
        // are left out before the next field is looked at.
        for hour in values(self.hour, 0..=23).filter(|hour| hour * 3600 + 3599 >= earliest) {
            for minute in values(self.minute, 0..=59) {
                let base = hour * 3600 + minute * 60;
                if base + 59 < earliest {
                    continue;
                }
                if let Some(second) =
                    values(self.second, 0..=59).find(|second| base + second >= earliest)
                {
                    return Some(base + second);
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn field() -> impl Strategy<Value = AlarmField> {
        prop_oneof![
            Just(AlarmField::Any),
            Just(AlarmField::Never),
            (0u8..61).prop_map(AlarmField::Is)
        ]
    }

    #[test]
    fn periods_are_those_of_the_data_sheet() {
        assert_eq!(period(0), None);
        assert_eq!(period(1), period(8));
        assert_eq!(period(2), period(9));
        assert_eq!(period(6), Some(32), "1024 Hz");
        assert_eq!(period(15), Some(16_384), "2 Hz");
        let fired = (0..10_000)
            .filter(|step| periodic_between(6, step * 100_000, (step + 1) * 100_000))
            .count();
        assert_eq!(fired, 1024);
    }

    proptest! {
        #[test]
        fn the_next_periodic_interrupt_is_exact(rate in 1u8..16, from in -SECOND..SECOND * 1000) {
            let next = next_periodic(rate, from).unwrap();
            prop_assert!(next > from);
            prop_assert!(periodic_between(rate, from, next));
            prop_assert!(!periodic_between(rate, from, next - 2));
        }
    }

    proptest! {
        // Each case walks through a day.
        #![proptest_config(ProptestConfig::with_cases(40))]

        #[test]
        fn the_next_alarm_agrees_with_waiting_for_it(
            hour in field(), minute in field(), second in field(), start in 0i64..DAY,
        ) {
            let alarm = Alarm { hour, minute, second };
            let waited = (start + 1..=start + DAY).find(|now| {
                let now = DateTime::from_nanoseconds(i128::from(*now) * SECOND);
                hour.matches(now.hour) && minute.matches(now.minute) && second.matches(now.second)
            });
            let next = alarm.next(i128::from(start) * SECOND + 5);
            prop_assert_eq!(next, waited.map(|second| i128::from(second) * SECOND));
        }
    }
}
