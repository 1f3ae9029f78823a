//! The day that daily budgets count by: from midnight to midnight, UTC.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

const MILLISECONDS_PER_DAY: i64 = 24 * 60 * 60 * 1_000;

/// The number of days since 1970-01-01, UTC.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(pub i64);

impl Day {
    /// Returns the day that contains an instant, given in milliseconds since 1970.
    pub fn at(milliseconds: i64) -> Self {
        Self(milliseconds.div_euclid(MILLISECONDS_PER_DAY))
    }
}

/// Writes the date, such as `2026-07-31`. A day beyond the calendar is written as its number.
impl fmt::Display for Day {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Timestamp::from_millisecond(self.0.saturating_mul(MILLISECONDS_PER_DAY)) {
            Ok(at) => out.pad(&at.strftime("%Y-%m-%d").to_string()),
            Err(_) => out.pad(&self.0.to_string()),
        }
    }
}

/// A text is not a date.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("write the day as YYYY-MM-DD, such as 2026-07-31")]
pub struct DayError;

impl FromStr for Day {
    type Err = DayError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // The parser of dates also reads a date with a time.
        if text.len() != "YYYY-MM-DD".len() {
            return Err(DayError);
        }
        let date: Date = text.parse().map_err(|_| DayError)?;
        let start = date.to_zoned(TimeZone::UTC).map_err(|_| DayError)?;
        Ok(Self::at(start.timestamp().as_millisecond()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_read_as_it_is_written() {
        for (text, number) in [("1970-01-01", 0), ("1969-12-31", -1), ("2024-02-29", 19_782)] {
            assert_eq!(text.parse(), Ok(Day(number)));
            assert_eq!(Day(number).to_string(), text);
        }
        assert_eq!(Day(i64::MAX).to_string(), i64::MAX.to_string());
        for wrong in ["", "2024-02-30", "2024-2-9", "2024-02-29T10:00:00", "20240229", "today"] {
            assert_eq!(wrong.parse::<Day>(), Err(DayError), "{wrong}");
        }
    }
}
