//! Days of the proleptic Gregorian calendar in UTC, from 1970 to 9999.

use time::{Date, Month, UtcDateTime};

/// The Julian day number of 1970-01-01.
const UNIX_EPOCH_JULIAN_DAY: i32 = UtcDateTime::UNIX_EPOCH.to_julian_day();

/// Number of seconds of a day.
const SECONDS_PER_DAY: u64 = 86_400;

/// Returns the days since 1970-01-01, or `None` if there is no such date from 1970 to 9999.
pub(super) fn day_number(year: u64, month: u64, day: u64) -> Option<u64> {
    let year = i32::try_from(year).ok().filter(|year| (1970..=9999).contains(year))?;
    let month = Month::try_from(u8::try_from(month).ok()?).ok()?;
    let date = Date::from_calendar_date(year, month, u8::try_from(day).ok()?).ok()?;
    u64::try_from(date.to_julian_day().checked_sub(UNIX_EPOCH_JULIAN_DAY)?).ok()
}

/// Returns the number of days since 1970-01-01. `now` is in seconds since the Unix epoch.
pub(super) const fn day_at(now: u64) -> u64 {
    now.div_euclid(SECONDS_PER_DAY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_consecutive() {
        let mut expected = 0;
        for year in 1970..=2400_u64 {
            let is_leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
            let february = if is_leap { 29 } else { 28 };
            for (month, days) in (1..).zip([31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]) {
                for number in 1..=days {
                    assert_eq!(day_number(year, month, number), Some(expected), "{year}-{month}-{number}");
                    expected += 1;
                }
                assert_eq!(day_number(year, month, days + 1), None);
            }
        }
        assert_eq!(day_at(1_700_000_000), day_number(2023, 11, 14).unwrap());
        assert_eq!(day_number(9999, 12, 31), Some(2_932_896));
        for (year, month, number) in [
            (1969, 12, 31),
            (10_000, 1, 1),
            (2023, 0, 1),
            (2023, 13, 1),
            (2023, 1, 0),
            (2023, 2, 29),
            (u64::MAX, 1, 1),
            (2023, 257, 1),
            (2023, 1, 257),
        ] {
            assert_eq!(day_number(year, month, number), None);
        }
    }
}
