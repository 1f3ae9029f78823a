//! The system clock. A time that cannot be written as a date is an error and never a panic.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;

/// The system clock has a time that cannot be written as a date.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the system clock is beyond the year 9999: set it, then start again")]
pub struct ClockError;

/// Checks that the time of the system clock can be written as a date.
///
/// # Errors
/// If it cannot.
pub(crate) fn check() -> Result<(), ClockError> {
    at(SystemTime::now()).map(drop)
}

/// Returns the time, or the last valid time if the clock was set wrong after the program had started.
pub(crate) fn now() -> Timestamp {
    at(SystemTime::now()).unwrap_or(Timestamp::MAX)
}

/// Returns the time in milliseconds since 1970.
pub(crate) fn milliseconds() -> i64 {
    now().as_millisecond()
}

/// Converts a time. The last day of the calendar is an error, so that an hour from now is always a valid time.
fn at(time: SystemTime) -> Result<Timestamp, ClockError> {
    let last = Duration::from_secs(Timestamp::MAX.as_second().unsigned_abs()) - Duration::from_hours(24);
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) if since > last => Err(ClockError),
        _ => Timestamp::try_from(time).map_err(|_| ClockError),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_beyond_the_year_9999_is_an_error() {
        let year = Duration::from_hours(24 * 366);
        assert_eq!(at(UNIX_EPOCH + year * 8_040), Err(ClockError));
        assert_eq!(at(UNIX_EPOCH + year * 1_000_000), Err(ClockError));
        assert!(at(UNIX_EPOCH + year * 50).is_ok() && at(UNIX_EPOCH - year).is_ok() && check().is_ok());
        assert!(ClockError.to_string().contains("set it"));
    }
}
