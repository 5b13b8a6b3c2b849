//! Dates as the RTC shows them: proleptic Gregorian, UTC, years 0 to 9999, one byte a field.

/// Nanoseconds in a second, in the type of guest time.
pub(super) const SECOND: i128 = 1_000_000_000;
/// Seconds in a day.
pub(super) const DAY: i64 = 86_400;

/// 0000-01-01T00:00:00Z in seconds since 1970.
const FIRST_SECOND: i64 = -62_167_219_200;
/// 9999-12-31T23:59:59Z.
const LAST_SECOND: i64 = 253_402_300_799;

/// A date and time of day. Fields are in range: month and day from 1, hour 0..=23.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DateTime {
    pub(super) year: u16,
    pub(super) month: u8,
    pub(super) day: u8,
    pub(super) hour: u8,
    pub(super) minute: u8,
    pub(super) second: u8,
}

impl DateTime {
    /// The date at `nanoseconds` since 1970; the first or last that can be shown if out of range.
    pub(super) fn from_nanoseconds(nanoseconds: i128) -> Self {
        let range = (i128::from(FIRST_SECOND), i128::from(LAST_SECOND));
        let seconds = nanoseconds.div_euclid(SECOND).clamp(range.0, range.1);
        let seconds = i64::try_from(seconds).unwrap_or(LAST_SECOND);
        let days = seconds.div_euclid(DAY);
        let of_day = seconds.rem_euclid(DAY);
        let (year, month, day) = civil_from_days(days);
        Self {
            year,
            month,
            day,
            hour: (of_day / 3600 % 24).try_into().unwrap_or(0),
            minute: (of_day / 60 % 60).try_into().unwrap_or(0),
            second: (of_day % 60).try_into().unwrap_or(0),
        }
    }

    /// Seconds since 1970. Fields that a guest set out of range are taken as the nearest in range.
    pub(super) fn to_seconds(self) -> i64 {
        let month = self.month.clamp(1, 12);
        let day = self.day.clamp(1, days_in_month(self.year, month));
        let days = days_from_civil(i64::from(self.year.min(9999)), month.into(), day.into());
        let hour = i64::from(self.hour.min(23));
        days * DAY
            + hour * 3600
            + i64::from(self.minute.min(59)) * 60
            + i64::from(self.second.min(59))
    }

    /// Day of the week, 1 is Sunday.
    pub(super) fn weekday(self) -> u8 {
        let days = self.to_seconds().div_euclid(DAY);
        // 1970-01-01 was a Thursday.
        u8::try_from((days + 4).rem_euclid(7)).unwrap_or(0) + 1
    }
}

fn days_in_month(year: u16, month: u8) -> u8 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Days since 1970-01-01 (Hinnant, "chrono-compatible low-level date algorithms").
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    // The year starts in March, so that the leap day is its last.
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// Inverse of [`days_from_civil`]; `days` lies in years 0 to 9999.
fn civil_from_days(days: i64) -> (u16, u8, u8) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (
        u16::try_from(year).unwrap_or(0),
        u8::try_from(month).unwrap_or(1),
        u8::try_from(day).unwrap_or(1),
    )
}

/// How register B says fields are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Encoding {
    pub(super) binary: bool,
    pub(super) hours_24: bool,
}

/// PM, bit 7 of the hours in 12-hour mode.
const PM: u8 = 0x80;

impl Encoding {
    /// A field, at most 99.
    pub(super) fn encode(self, value: u8) -> u8 {
        if self.binary {
            value
        } else {
            ((value / 10) << 4) | (value % 10)
        }
    }

    /// `None` for digits above 9.
    pub(super) fn decode(self, byte: u8) -> Option<u8> {
        if self.binary {
            return Some(byte);
        }
        let (tens, ones) = (byte >> 4, byte & 0x0f);
        (tens < 10 && ones < 10).then_some(tens * 10 + ones)
    }

    /// An hour, 0..=23.
    pub(super) fn encode_hour(self, hour: u8) -> u8 {
        if self.hours_24 {
            return self.encode(hour);
        }
        let shown = if hour % 12 == 0 { 12 } else { hour % 12 };
        self.encode(shown) | if hour >= 12 { PM } else { 0 }
    }

    pub(super) fn decode_hour(self, byte: u8) -> Option<u8> {
        if self.hours_24 {
            return self.decode(byte);
        }
        let hour = self
            .decode(byte & !PM)
            .filter(|hour| (1..=12).contains(hour))?
            % 12;
        Some(if byte & PM != 0 { hour + 12 } else { hour })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn date(year: u16, month: u8, day: u8) -> DateTime {
        DateTime {
            year,
            month,
            day,
            hour: 0,
            minute: 0,
            second: 0,
        }
    }

    #[test]
    fn known_dates_have_their_known_seconds_and_weekdays() {
        for (date, seconds, weekday) in [
            (date(1970, 1, 1), 0, 5),
            (date(2000, 2, 29), 951_782_400, 3),
            (date(2026, 11, 22), 1_795_305_600, 1),
            (date(0, 1, 1), FIRST_SECOND, 7),
            (date(9999, 12, 31), LAST_SECOND - 86_399, 6),
        ] {
            assert_eq!(date.to_seconds(), seconds);
            assert_eq!(
                DateTime::from_nanoseconds(i128::from(seconds) * SECOND),
                date
            );
            assert_eq!(date.weekday(), weekday, "{date:?}");
        }
    }

    #[test]
    fn times_out_of_range_show_the_nearest() {
        assert_eq!(DateTime::from_nanoseconds(i128::MIN), date(0, 1, 1));
        assert_eq!(DateTime::from_nanoseconds(i128::MAX).year, 9999);
        assert_eq!(
            date(2023, 2, 31).to_seconds(),
            date(2023, 2, 28).to_seconds()
        );
        assert_eq!(date(2023, 0, 0).to_seconds(), date(2023, 1, 1).to_seconds());
    }

    #[test]
    fn hours_go_through_noon_and_midnight() {
        let encoding = Encoding {
            binary: false,
            hours_24: false,
        };
        for (hour, byte) in [
            (0, 0x12),
            (1, 0x01),
            (11, 0x11),
            (12, 0x92),
            (13, 0x81),
            (23, 0x91),
        ] {
            assert_eq!(encoding.encode_hour(hour), byte);
            assert_eq!(encoding.decode_hour(byte), Some(hour));
        }
        assert_eq!(encoding.decode_hour(0x13), None);
        assert_eq!(encoding.decode_hour(0x00), None);
    }

    proptest! {
        #[test]
        fn every_second_survives_the_round_trip(seconds in FIRST_SECOND..=LAST_SECOND) {
            let date = DateTime::from_nanoseconds(i128::from(seconds) * SECOND);
            prop_assert_eq!(date.to_seconds(), seconds);
        }

        #[test]
        fn every_field_survives_every_encoding(
            value in 0u8..100, hour in 0u8..24, binary: bool, hours_24: bool,
        ) {
            let encoding = Encoding { binary, hours_24 };
            prop_assert_eq!(encoding.decode(encoding.encode(value)), Some(value));
            prop_assert_eq!(encoding.decode_hour(encoding.encode_hour(hour)), Some(hour));
        }
    }
}
