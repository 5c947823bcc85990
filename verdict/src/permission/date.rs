//! The proleptic Gregorian calendar, from 1970 on, in UTC.

/// Days since 1970-01-01; None for a date that is none.
pub(super) fn day(year: u64, month: u64, day: u64) -> Option<u64> {
    let months = if is_leap(year) { &LEAP } else { &COMMON };
    let index = usize::try_from(month.checked_sub(1)?).ok()?;
    if !(1970..=9999).contains(&year) || day == 0 || day > *months.get(index)? {
        return None;
    }
    let before: u64 = months.iter().take(index).sum();
    let years = year.checked_sub(1970)?.checked_mul(365)?;
    let leaps = leaps_before(year)?.checked_sub(leaps_before(1970)?)?;
    years.checked_add(leaps)?.checked_add(before)?.checked_add(day.checked_sub(1)?)
}

/// `now` in seconds since the Unix epoch.
pub(super) const fn day_of(now: u64) -> u64 {
    now.div_euclid(SECONDS_A_DAY)
}

const fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn leaps_before(year: u64) -> Option<u64> {
    let last = year.checked_sub(1)?;
    last.div_euclid(4).checked_sub(last.div_euclid(100))?.checked_add(last.div_euclid(400))
}

const COMMON: [u64; 12] = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
const LEAP: [u64; 12] = [31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];

const SECONDS_A_DAY: u64 = 86_400;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_follow_each_other() {
        let mut expected = 0;
        for year in 1970..=2400 {
            for (month, days) in (1..).zip(if is_leap(year) { LEAP } else { COMMON }) {
                for number in 1..=days {
                    assert_eq!(day(year, month, number), Some(expected), "{year}-{month}-{number}");
                    expected += 1;
                }
                assert_eq!(day(year, month, days + 1), None);
            }
        }
        assert_eq!(day_of(1_700_000_000), day(2023, 11, 14).unwrap());
        for (year, month, number) in
            [(1969, 12, 31), (10_000, 1, 1), (2023, 0, 1), (2023, 13, 1), (2023, 1, 0), (2023, 2, 29)]
        {
            assert_eq!(day(year, month, number), None);
        }
    }
}
