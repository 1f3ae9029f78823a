//! Reads the many ways in which providers write a moment, and says how far away it is.
//!
//! RFC 3339, the three dates of HTTP, seconds and milliseconds since 1970, and words inside a message.
//! A moment that has just passed is now; one more than [`LONGEST`] away on either side is a mistake
//! and unknown. Never reads a clock, and knows no time zones.

use std::time::{Duration, SystemTime};

use http::HeaderMap;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::fmt::rfc2822::DateTimeParser;
use jiff::tz::TimeZone;

use super::times::LONGEST;

/// From here on a number counts milliseconds since 1970 and not seconds: as seconds it would be the year 5138.
const MILLISECONDS_FROM: f64 = 1e11;

/// Seconds of a day.
const DAY: u64 = 86_400;

/// Seconds after midnight UTC at which a new day has begun at the Pacific: at 08:00 in winter, at
/// 07:00 in summer. The later is always right, and some minutes more forgive clocks that differ.
const PACIFIC_MIDNIGHT: u64 = 8 * 3_600 + 5 * 60;

/// How far a server's clock and ours may be apart until its own counts: a `Date` is whole seconds, and on its way for some
/// time.
const SAME: Duration = Duration::from_secs(3);

/// Returns what the server's clock showed when it answered, where that is not about `now`: the dates in its
/// headers and its words are by that clock.
pub(super) fn of_server(headers: &HeaderMap, now: SystemTime) -> SystemTime {
    let date = headers.get(http::header::DATE).and_then(|date| http_date(date.to_str().ok()?.trim()));
    let date = date.map(SystemTime::from);
    let apart =
        |date: SystemTime| date.duration_since(now).or_else(|_| now.duration_since(date)).unwrap_or_default();
    date.filter(|date| apart(*date) > SAME).unwrap_or(now)
}

/// Returns how long it is until the date in `text`, in RFC 3339 or as HTTP writes it; zero when it has passed.
pub(super) fn until(text: &str, now: SystemTime) -> Option<Duration> {
    let text = text.trim();
    let then = text.parse().ok().or_else(|| http_date(text))?;
    wait(seconds_of(then), now)
}

/// Returns how long it is until a number of seconds or milliseconds since 1970.
pub(super) fn until_epoch(number: f64, now: SystemTime) -> Option<Duration> {
    wait(if number < MILLISECONDS_FROM { number } else { number / 1e3 }, now)
}

/// Returns how long it is until the moment in a message such as `You will regain access on 2026-12-01
/// at 00:00 UTC` or `Your limit resets at 2026-11-21T00:00:00Z`.
pub(super) fn until_in_words(message: &str, now: SystemTime) -> Option<Duration> {
    const OPENINGS: [&str; 6] =
        ["access on ", "again on ", "again at ", "again after ", "reset at ", "resets at "];
    // ASCII lower case keeps every byte where it is, so what is found here can be read as it is.
    let lower = message.to_ascii_lowercase();
    let mut rests = OPENINGS
        .iter()
        .flat_map(|opening| lower.match_indices(opening).map(|(at, _)| &lower[at + opening.len()..]));
    rests.find_map(|rest| wait(seconds_of(moment(rest)?), now))
}

/// Returns how long it is until the day is over by which Google counts: midnight at the Pacific.
pub(super) fn until_pacific_midnight(now: SystemTime) -> Option<Duration> {
    let now = now.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs();
    let gone = (now % DAY + DAY - PACIFIC_MIDNIGHT) % DAY;
    Some(Duration::from_secs(DAY - gone))
}

/// Reads a date in one of the three forms that HTTP allows.
fn http_date(text: &str) -> Option<Timestamp> {
    const FORMS: [&str; 3] = ["%d %b %Y %H:%M:%S", "%d-%b-%y %H:%M:%S", "%b %e %H:%M:%S %Y"];
    if let Ok(then) = DateTimeParser::new().relaxed_weekday(true).parse_timestamp(text) {
        return Some(then);
    }
    // The day of the week says nothing that the date does not.
    let date = text.trim_start_matches(|letter: char| letter.is_alphabetic()).trim_start_matches([',', ' ']);
    let date = ["GMT", "UTC"].iter().find_map(|zone| date.strip_suffix(zone)).unwrap_or(date).trim_end();
    let then = FORMS.iter().find_map(|form| DateTime::strptime(form, date).ok())?;
    Some(then.to_zoned(TimeZone::UTC).ok()?.timestamp())
}

/// Reads the date and time at the front of lower-case words: `2026-12-01 at 00:00 utc, when`.
fn moment(words: &str) -> Option<Timestamp> {
    let (date, rest) = words.split_at_checked(10)?;
    let rest = rest.trim_start();
    let rest = rest.strip_prefix("at ").or(rest.strip_prefix('t')).unwrap_or(rest);
    let end = rest.find(|letter: char| !letter.is_ascii_digit() && !matches!(letter, ':' | '.'))?;
    let (time, zone) = rest.split_at(end);
    let seconds = if time.matches(':').count() == 1 { ":00" } else { "" };
    // Without a zone nobody knows which moment is meant.
    ["utc", "gmt", "z"].iter().find(|zulu| zone.trim_start().starts_with(**zulu))?;
    format!("{date}T{time}{seconds}Z").parse().ok()
}

fn seconds_of(then: Timestamp) -> f64 {
    then.as_millisecond() as f64 / 1e3
}

/// Returns how long it is until `then`, in seconds since 1970.
fn wait(then: f64, now: SystemTime) -> Option<Duration> {
    let now = now.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs_f64();
    let wait = then - now;
    // To the millisecond: a number of this size holds no more.
    (wait.abs() <= LONGEST.as_secs_f64()).then(|| Duration::from_millis((wait * 1e3).round().max(0.0) as u64))
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
    fn a_date_is_read_in_every_form() {
        let now = at("2026-11-20T08:49:30Z");
        for (text, wait) in [
            ("2026-11-20T08:49:37Z", seconds(7.0)),
            ("2026-11-20T08:49:30.25Z", seconds(0.25)),
            ("2026-11-20T10:49:37+02:00", seconds(7.0)),
            ("Fri, 20 Nov 2026 08:49:37 GMT", seconds(7.0)),
            ("Friday, 20-Nov-26 08:49:37 GMT", seconds(7.0)),
            ("Fri Nov 20 08:49:37 2026", seconds(7.0)),
            ("Wed Dec  2 08:49:30 2026", seconds(12.0 * 86_400.0)),
            // The wrong day of the week, as servers with a bug of their own send it.
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
            assert_eq!(until(text, now), wait, "{text:?}");
        }
    }

    #[test]
    fn a_clock_that_is_minutes_off_is_the_servers_by_its_date() {
        let now = at("2026-11-20T20:00:00Z");
        let with = |date: &str| [("date".parse().unwrap(), date.parse().unwrap())].into_iter().collect();
        let behind = of_server(&with("Fri, 20 Nov 2026 20:07:00 GMT"), now);
        assert_eq!(until("2026-11-20T20:07:30Z", behind), seconds(30.0));
        let ahead = of_server(&with("Fri, 20 Nov 2026 19:53:00 GMT"), now);
        assert_eq!(until("Fri, 20 Nov 2026 19:53:12 GMT", ahead), seconds(12.0));
        for same in ["Fri, 20 Nov 2026 19:59:58 GMT", "Fri, 20 Nov 2026 20:00:02 GMT", "yesterday", ""] {
            assert_eq!(of_server(&with(same), now), now, "{same:?}");
        }
    }

    #[test]
    fn a_number_since_1970_is_seconds_or_milliseconds() {
        let now = at("2026-11-20T20:00:00Z");
        assert_eq!(until_epoch(1_795_204_859.5, now), seconds(59.5));
        assert_eq!(until_epoch(1_795_204_859_500.0, now), seconds(59.5));
        assert_eq!(until_epoch(1_795_204_000.0, now), seconds(0.0));
        for senseless in [0.0, 64.0, 9e9, 1e300, f64::INFINITY, f64::NAN, -1.0] {
            assert_eq!(until_epoch(senseless, now), None, "{senseless}");
        }
    }

    #[test]
    fn a_moment_is_found_in_a_message() {
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
            assert_eq!(until_in_words(message, now), wait, "{message:?}");
        }
    }

    #[test]
    fn googles_day_is_over_at_the_pacific() {
        let hours = |hours: f64| seconds(hours * 3_600.0 + 300.0);
        assert_eq!(until_pacific_midnight(at("2026-11-20T20:00:00Z")), hours(12.0));
        assert_eq!(until_pacific_midnight(at("2026-11-20T07:00:00Z")), hours(1.0));
        assert_eq!(until_pacific_midnight(at("2026-11-20T08:04:59Z")), seconds(1.0));
        assert_eq!(until_pacific_midnight(at("2026-11-20T08:05:00Z")), seconds(86_400.0));
        assert_eq!(until_pacific_midnight(SystemTime::UNIX_EPOCH), hours(8.0));
    }

    proptest! {
        #[test]
        fn no_text_makes_a_reader_panic(
            text in "\\PC*|(resets at|access on) [0-9TtZ:. -]{0,24}( UTC)?|[A-Za-z]{3},? [0-9]{2}[ -][A-Z][a-z]{2}[ -][0-9]{2,4} [0-9:]{8}( GMT)?",
            number: f64,
            now in 0_u64..1 << 50,
        ) {
            let now = SystemTime::UNIX_EPOCH + Duration::from_secs(now);
            for wait in [until(&text, now), until_in_words(&text, now), until_epoch(number, now)] {
                prop_assert!(wait.is_none_or(|wait| wait <= LONGEST));
            }
            prop_assert!(until_pacific_midnight(now).is_some_and(|wait| wait <= Duration::from_secs(DAY)));
        }
    }
}
