//! Parsing of the points in time at which limits reset, as the wait until then.
//!
//! Formats: RFC 3339, the three date formats of HTTP, seconds and milliseconds since 1970, and text inside a
//! message. A time in the past is a wait of zero. A time further than [`MAX_PARSED_WAIT`] in the past or
//! future is unknown. Pure: the caller passes `now`. Time zones other than UTC are not supported.

use std::time::{Duration, SystemTime};

use http::HeaderMap;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::fmt::rfc2822::DateTimeParser;
use jiff::tz::TimeZone;

/// A longer wait is treated as a mistake and unknown.
pub(super) const MAX_PARSED_WAIT: Duration = Duration::from_hours(366 * 24);

/// Numbers from here on are milliseconds since 1970 and not seconds: as seconds this would be the year 5138.
const MIN_EPOCH_MILLISECONDS: f64 = 1e11;

const SECONDS_PER_DAY: u64 = 86_400;

/// Seconds after midnight UTC at which a new day has begun in the Pacific time zone: 08:00 UTC in winter, 07:00
/// in summer. The later one is always correct, and five more minutes allow for clock skew.
const PACIFIC_MIDNIGHT_SECONDS: u64 = 8 * 3_600 + 5 * 60;

/// The maximum difference between the clock of the server and ours at which ours is used. A `Date` header has
/// whole seconds and is delayed by the network.
const CLOCK_SKEW_TOLERANCE: Duration = Duration::from_secs(3);

/// Returns the time of the server's clock if it differs from `now` by more than [`CLOCK_SKEW_TOLERANCE`], because
/// the dates in its headers and messages refer to that clock. Otherwise returns `now`.
pub(super) fn server_time(headers: &HeaderMap, now: SystemTime) -> SystemTime {
    let date = headers.get(http::header::DATE).and_then(|date| parse_http_date(date.to_str().ok()?.trim()));
    let date = date.map(SystemTime::from);
    let skew =
        |date: SystemTime| date.duration_since(now).or_else(|_| now.duration_since(date)).unwrap_or_default();
    date.filter(|date| skew(*date) > CLOCK_SKEW_TOLERANCE).unwrap_or(now)
}

/// Returns the time until the date in `text`, in RFC 3339 or an HTTP date format; zero if it has passed.
pub(super) fn until_date(text: &str, now: SystemTime) -> Option<Duration> {
    let text = text.trim();
    let instant = text.parse().ok().or_else(|| parse_http_date(text))?;
    credible_wait(seconds_of(instant), now)
}

/// Returns the time until a number of seconds or milliseconds since 1970.
pub(super) fn until_epoch(number: f64, now: SystemTime) -> Option<Duration> {
    credible_wait(if number < MIN_EPOCH_MILLISECONDS { number } else { number / 1e3 }, now)
}

/// Returns the time until the point in time in a message such as `You will regain access on 2026-12-01
/// at 00:00 UTC` or `Your limit resets at 2026-11-21T00:00:00Z`.
pub(super) fn until_time_in_message(message: &str, now: SystemTime) -> Option<Duration> {
    const OPENINGS: [&str; 6] =
        ["access on ", "again on ", "again at ", "again after ", "reset at ", "resets at "];
    find_after(message, &OPENINGS, |rest| credible_wait(seconds_of(leading_timestamp(rest)?), now))
}

/// Returns the first value that `parse` reads from the lower-case text after one of the openings.
pub(super) fn find_after<T>(
    message: &str,
    openings: &[&str],
    parse: impl FnMut(&str) -> Option<T>,
) -> Option<T> {
    // ASCII lower case keeps all byte positions.
    let lower = message.to_ascii_lowercase();
    let mut rests = openings
        .iter()
        .flat_map(|opening| lower.match_indices(opening).map(|(at, _)| &lower[at + opening.len()..]));
    rests.find_map(parse)
}

/// Returns the time until midnight in the Pacific time zone, when Google's daily quotas reset.
pub(super) fn until_pacific_midnight(now: SystemTime) -> Option<Duration> {
    let now = now.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs();
    let elapsed = (now % SECONDS_PER_DAY + SECONDS_PER_DAY - PACIFIC_MIDNIGHT_SECONDS) % SECONDS_PER_DAY;
    Some(Duration::from_secs(SECONDS_PER_DAY - elapsed))
}

/// Parses a date in one of the three formats that HTTP allows.
fn parse_http_date(text: &str) -> Option<Timestamp> {
    const FORMATS: [&str; 3] = ["%d %b %Y %H:%M:%S", "%d-%b-%y %H:%M:%S", "%b %e %H:%M:%S %Y"];
    if let Ok(instant) = DateTimeParser::new().relaxed_weekday(true).parse_timestamp(text) {
        return Some(instant);
    }
    // The day of the week is redundant.
    let date = text.trim_start_matches(|letter: char| letter.is_alphabetic()).trim_start_matches([',', ' ']);
    let date = ["GMT", "UTC"].iter().find_map(|zone| date.strip_suffix(zone)).unwrap_or(date).trim_end();
    let instant = FORMATS.iter().find_map(|format| DateTime::strptime(format, date).ok())?;
    Some(instant.to_zoned(TimeZone::UTC).ok()?.timestamp())
}

/// Parses the date and time at the start of a lower-case text: `2026-12-01 at 00:00 utc, when`.
fn leading_timestamp(text: &str) -> Option<Timestamp> {
    let (date, rest) = text.split_at_checked(10)?;
    let rest = rest.trim_start();
    let rest = rest.strip_prefix("at ").or(rest.strip_prefix('t')).unwrap_or(rest);
    let end = rest.find(|letter: char| !letter.is_ascii_digit() && !matches!(letter, ':' | '.'))?;
    let (time, zone) = rest.split_at(end);
    let missing_seconds = if time.matches(':').count() == 1 { ":00" } else { "" };
    // Without a time zone the point in time is unknown.
    ["utc", "gmt", "z"].iter().find(|utc| zone.trim_start().starts_with(**utc))?;
    format!("{date}T{time}{missing_seconds}Z").parse().ok()
}

fn seconds_of(instant: Timestamp) -> f64 {
    instant.as_millisecond() as f64 / 1e3
}

/// Returns the time until `instant`, in seconds since 1970.
fn credible_wait(instant: f64, now: SystemTime) -> Option<Duration> {
    let now = now.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs_f64();
    let wait = instant - now;
    // Milliseconds are the precision of a number of this size.
    (wait.abs() <= MAX_PARSED_WAIT.as_secs_f64())
        .then(|| Duration::from_millis((wait * 1e3).round().max(0.0) as u64))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> SystemTime {
        text.parse::<Timestamp>().unwrap().into()
    }

    fn seconds(seconds: f64) -> Option<Duration> {
        Some(Duration::from_secs_f64(seconds))
    }

    #[test]
    fn a_date_is_parsed_in_every_format() {
        let now = at("2026-11-20T08:49:30Z");
        for (text, wait) in [
            ("2026-11-20T08:49:37Z", seconds(7.0)),
            ("2026-11-20T08:49:30.25Z", seconds(0.25)),
            ("2026-11-20T10:49:37+02:00", seconds(7.0)),
            ("Fri, 20 Nov 2026 08:49:37 GMT", seconds(7.0)),
            ("Friday, 20-Nov-26 08:49:37 GMT", seconds(7.0)),
            ("Fri Nov 20 08:49:37 2026", seconds(7.0)),
            ("Wed Dec  2 08:49:30 2026", seconds(12.0 * 86_400.0)),
            // The wrong day of the week, as some servers send it.
            ("Mon, 20 Nov 2026 08:49:37 GMT", seconds(7.0)),
            ("Fri, 20 Nov 2026 08:00:00 GMT", seconds(0.0)),
            ("2026-11-20T08:49:00Z", seconds(0.0)),
            ("2036-11-20T08:49:00Z", None),
            ("Sun Nov  6 08:49:37 1994", None),
            ("1970-01-01T00:00:00Z", None),
            ("9999-12-31T23:59:59Z", None),
            ("Fri, 20 Nov 2026", None),
            ("20 Nov", None),
            ("tomorrow", None),
            ("", None),
        ] {
            assert_eq!(until_date(text, now), wait, "{text:?}");
        }
    }

    #[test]
    fn dates_refer_to_the_clock_of_the_server_if_it_is_minutes_off() {
        let now = at("2026-11-20T20:00:00Z");
        let with = |date: &str| [("date".parse().unwrap(), date.parse().unwrap())].into_iter().collect();
        let behind = server_time(&with("Fri, 20 Nov 2026 20:07:00 GMT"), now);
        assert_eq!(until_date("2026-11-20T20:07:30Z", behind), seconds(30.0));
        let ahead = server_time(&with("Fri, 20 Nov 2026 19:53:00 GMT"), now);
        assert_eq!(until_date("Fri, 20 Nov 2026 19:53:12 GMT", ahead), seconds(12.0));
        for same in ["Fri, 20 Nov 2026 19:59:58 GMT", "Fri, 20 Nov 2026 20:00:02 GMT", "yesterday", ""] {
            assert_eq!(server_time(&with(same), now), now, "{same:?}");
        }
    }

    #[test]
    fn an_epoch_number_is_seconds_or_milliseconds() {
        let now = at("2026-11-20T20:00:00Z");
        assert_eq!(until_epoch(1_795_204_859.5, now), seconds(59.5));
        assert_eq!(until_epoch(1_795_204_859_500.0, now), seconds(59.5));
        assert_eq!(until_epoch(1_795_204_000.0, now), seconds(0.0));
        for invalid in [0.0, 64.0, 9e9, 1e300, f64::INFINITY, f64::NAN, -1.0] {
            assert_eq!(until_epoch(invalid, now), None, "{invalid}");
        }
    }

    #[test]
    fn a_point_in_time_is_found_in_a_message() {
        let now = at("2026-11-20T20:00:00Z");
        for (message, wait) in [
            ("You will regain access on 2026-12-01 at 00:00 UTC.", seconds((10.0 * 24.0 + 4.0) * 3_600.0)),
            ("Your limit resets at 2026-11-20T20:01:00Z", seconds(60.0)),
            ("Try again at 2026-11-20 20:01:00.500 UTC (soon)", seconds(60.5)),
            ("It resets at noon. Try again after 2026-11-20 20:00 GMT", seconds(0.0)),
            ("resets at 2026-11-20 20:01:00", None),
            ("resets at 2026-13-41 99:99 UTC", None),
            ("resets at 2126-11-20 20:01:00 UTC", None),
            ("resets at £££££££££££ UTC", None),
            ("resets at ", None),
            ("Please try again later.", None),
        ] {
            assert_eq!(until_time_in_message(message, now), wait, "{message:?}");
        }
    }

    #[test]
    fn the_day_of_google_ends_at_midnight_in_the_pacific_time_zone() {
        let hours = |hours: f64| seconds(hours * 3_600.0 + 300.0);
        assert_eq!(until_pacific_midnight(at("2026-11-20T20:00:00Z")), hours(12.0));
        assert_eq!(until_pacific_midnight(at("2026-11-20T07:00:00Z")), hours(1.0));
        assert_eq!(until_pacific_midnight(at("2026-11-20T08:04:59Z")), seconds(1.0));
        assert_eq!(until_pacific_midnight(at("2026-11-20T08:05:00Z")), seconds(86_400.0));
        assert_eq!(until_pacific_midnight(SystemTime::UNIX_EPOCH), hours(8.0));
    }

    proptest! {
        #[test]
        fn parsing_never_panics(
            text in "\\PC*|(resets at|access on) [0-9TtZ:. -]{0,24}( UTC)?|[A-Za-z]{3},? [0-9]{2}[ -][A-Z][a-z]{2}[ -][0-9]{2,4} [0-9:]{8}( GMT)?",
            number: f64,
            now in 0_u64..1 << 50,
        ) {
            let now = SystemTime::UNIX_EPOCH + Duration::from_secs(now);
            for wait in [until_date(&text, now), until_time_in_message(&text, now), until_epoch(number, now)] {
                prop_assert!(wait.is_none_or(|wait| wait <= MAX_PARSED_WAIT));
            }
            prop_assert!(until_pacific_midnight(now).is_some_and(|wait| wait <= Duration::from_secs(SECONDS_PER_DAY)));
        }
    }
}
