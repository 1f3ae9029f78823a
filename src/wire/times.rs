//! Reads the many ways in which providers write a wait.
//!
//! Go durations, protobuf durations, seconds, milliseconds, HTTP dates, RFC 3339, and words inside a
//! message. No wait is longer than [`LONGEST`], and no text makes any of these panic.

use std::time::{Duration, SystemTime};

use http::HeaderMap;
use jiff::Timestamp;
use jiff::fmt::rfc2822;

/// What is asked for beyond a day is a mistake or a daily quota, and is tried again after a day.
pub(super) const LONGEST: Duration = Duration::from_hours(24);

/// Returns how long the headers ask to stay away. `retry-after-ms` is the finer one and wins;
/// a date in the past means now.
pub(super) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let fine = text("retry-after-ms").and_then(number).and_then(|count| wait(count / 1e3));
    fine.or_else(|| {
        let coarse = text("retry-after")?;
        number(coarse).and_then(wait).or_else(|| http_date_until(coarse, now))
    })
}

/// Reads `6m0s`, `120ms`, `2m52.8s`, and a bare `64` as seconds.
pub(super) fn go_duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    if let Some(seconds) = number(text) {
        return wait(seconds);
    }
    let (wait, rest) = leading(text)?;
    rest.is_empty().then_some(wait)
}

/// Reads `34s` and `3.957525076s`, the JSON form of a protobuf duration.
pub(super) fn protobuf_duration(text: &str) -> Option<Duration> {
    number(text.trim().strip_suffix('s')?).and_then(wait)
}

/// Returns how long it is until the RFC 3339 time in `text`; zero when it has passed.
pub(super) fn rfc3339_until(text: &str, now: SystemTime) -> Option<Duration> {
    until(text.trim().parse().ok()?, now)
}

/// Finds the wait in a message such as `Please try again in 11.054s.` or `retry after 6 seconds`.
pub(super) fn wait_in_words(message: &str) -> Option<Duration> {
    const OPENINGS: [&str; 4] = ["try again in ", "retry in ", "try again after ", "retry after "];
    // ASCII lower case keeps every byte where it is, so what is found here can be read as it is.
    let lower = message.to_ascii_lowercase();
    OPENINGS.iter().find_map(|opening| {
        let start = lower.find(opening)? + opening.len();
        leading(&lower[start..]).map(|(wait, _)| wait)
    })
}

fn http_date_until(text: &str, now: SystemTime) -> Option<Duration> {
    until(rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?, now)
}

fn until(then: Timestamp, now: SystemTime) -> Option<Duration> {
    let now = Timestamp::try_from(now).ok()?;
    let wait = Duration::try_from(then.duration_since(now)).unwrap_or(Duration::ZERO);
    Some(wait.min(LONGEST))
}

/// Reads pieces such as `1h10m17.5s` or `6 seconds` from the front; returns what follows them.
fn leading(text: &str) -> Option<(Duration, &str)> {
    let (mut total, mut rest) = piece(text)?;
    while let Some((more, after)) = piece(rest) {
        total += more;
        rest = after;
    }
    Some((total.min(LONGEST), rest))
}

fn piece(text: &str) -> Option<(Duration, &str)> {
    let (count, rest) = leading_number(text)?;
    let rest = rest.strip_prefix(' ').unwrap_or(rest);
    let end = rest.find(|letter: char| !letter.is_alphabetic()).unwrap_or(rest.len());
    let (unit, rest) = rest.split_at(end);
    let seconds = match unit {
        "d" | "day" | "days" => 86_400.0,
        "h" | "hr" | "hrs" | "hour" | "hours" => 3_600.0,
        "m" | "min" | "mins" | "minute" | "minutes" => 60.0,
        "s" | "sec" | "secs" | "second" | "seconds" => 1.0,
        "ms" | "millisecond" | "milliseconds" => 1e-3,
        "us" | "µs" | "μs" => 1e-6,
        "ns" => 1e-9,
        _ => return None,
    };
    Some((wait(count * seconds)?, rest))
}

/// Splits `11.054s` into 11.054 and `s`. A dot that no digit follows ends a sentence, not a number.
fn leading_number(text: &str) -> Option<(f64, &str)> {
    let digits = |text: &str| text.find(|digit: char| !digit.is_ascii_digit()).unwrap_or(text.len());
    let whole = digits(text);
    if whole == 0 {
        return None;
    }
    let fraction = text[whole..].strip_prefix('.').map_or(0, digits);
    let end = if fraction == 0 { whole } else { whole + 1 + fraction };
    let (number, rest) = text.split_at(end);
    Some((number.parse().ok()?, rest))
}

/// Reads a plain decimal number; no sign, no exponent, no `NaN`.
fn number(text: &str) -> Option<f64> {
    leading_number(text).filter(|(_, rest)| rest.is_empty()).map(|(number, _)| number)
}

fn wait(seconds: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(seconds.min(LONGEST.as_secs_f64())).ok()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const RESETS: &str = include_str!("../../tests/data/wire/openai_ratelimit_reset_values.json");
    const DELAYS: &str = include_str!("../../tests/data/wire/gemini_retrydelay_values.json");

    #[derive(serde::Deserialize)]
    struct Table {
        cases: BTreeMap<String, f64>,
    }

    fn check(table: &str, read: fn(&str) -> Option<Duration>) {
        let table: Table = serde_json::from_str(table).unwrap();
        assert!(!table.cases.is_empty());
        for (text, milliseconds) in table.cases {
            assert_eq!(read(&text), Some(Duration::from_secs_f64(milliseconds / 1e3)), "{text}");
        }
    }

    fn at(text: &str) -> SystemTime {
        text.parse::<Timestamp>().unwrap().into()
    }

    fn headers(all: &[(&'static str, &str)]) -> HeaderMap {
        all.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect::<HeaderMap>()
    }

    #[test]
    fn every_reset_that_was_seen_is_read() {
        check(RESETS, go_duration);
    }

    #[test]
    fn every_retry_delay_that_was_seen_is_read() {
        check(DELAYS, protobuf_duration);
    }

    #[test]
    fn milliseconds_win_over_seconds() {
        let now = SystemTime::UNIX_EPOCH;
        let both = headers(&[("retry-after", "1"), ("retry-after-ms", "699")]);
        assert_eq!(retry_after(&both, now), Some(Duration::from_millis(699)));
        let broken = headers(&[("retry-after", "1.5"), ("retry-after-ms", "soon")]);
        assert_eq!(retry_after(&broken, now), Some(Duration::from_millis(1500)));
    }

    #[test]
    fn a_date_is_a_wait_until_then() {
        let now = at("2026-11-20T08:49:30Z");
        let read = |value| retry_after(&headers(&[("retry-after", value)]), now);
        assert_eq!(read("Fri, 20 Nov 2026 08:49:37 GMT"), Some(Duration::from_secs(7)));
        assert_eq!(read("Fri, 20 Nov 2026 08:00:00 GMT"), Some(Duration::ZERO));
        assert_eq!(rfc3339_until("2026-11-20T08:50:00Z", now), Some(Duration::from_secs(30)));
        assert_eq!(rfc3339_until("2026-11-20T08:49:00Z", now), Some(Duration::ZERO));
        assert_eq!(rfc3339_until("2036-11-20T08:49:00Z", now), Some(LONGEST));
    }

    #[test]
    fn nonsense_is_no_wait_and_the_absurd_is_a_day() {
        let read = |value| retry_after(&headers(&[("retry-after", value)]), SystemTime::UNIX_EPOCH);
        for nonsense in ["", "-1", "NaN", "inf", "1e3", "soon", "1 2", ".", "1.", "+3"] {
            assert_eq!(read(nonsense), None, "{nonsense:?}");
        }
        assert_eq!(read("0"), Some(Duration::ZERO));
        assert_eq!(read("99999999999999999999"), Some(LONGEST));
        assert_eq!(read(&"9".repeat(400)), Some(LONGEST));
        assert_eq!(go_duration("999999h999999h"), Some(LONGEST));
        assert_eq!(go_duration("-1s"), None);
        assert_eq!(go_duration("6m0x"), None);
        assert_eq!(protobuf_duration("34"), None);
    }

    #[test]
    fn a_wait_is_found_in_a_message() {
        let cases = [
            ("Used 22999, Requested 12528. Please try again in 11.054s. Visit x", Some(11_054)),
            ("Please try again in 699ms.", Some(699)),
            ("Please retry in 10h17m5.72s.", Some(37_025_720)),
            ("Please retry after 6 seconds.", Some(6_000)),
            ("PLEASE TRY AGAIN IN 1 MINUTE", Some(60_000)),
            ("Please try again in 6m0s.", Some(360_000)),
            ("ç Try again in 5s", Some(5_000)),
            ("Please try again in a while", None),
            ("Please try again later", None),
            ("try again in 5 apples", None),
            ("", None),
        ];
        for (message, milliseconds) in cases {
            assert_eq!(wait_in_words(message), milliseconds.map(Duration::from_millis), "{message}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_a_reader_panic(text in "\\PC*|[0-9.hmsuµn -]{0,40}|(try again|retry) (in|after) \\PC*") {
            let now = at("2026-11-20T08:49:30Z");
            for wait in [go_duration(&text), protobuf_duration(&text), rfc3339_until(&text, now), wait_in_words(&text)] {
                prop_assert!(wait.is_none_or(|wait| wait <= LONGEST));
            }
            if let Ok(value) = text.parse::<http::HeaderValue>() {
                let mut headers = HeaderMap::new();
                headers.insert("retry-after", value.clone());
                headers.insert("retry-after-ms", value);
                prop_assert!(retry_after(&headers, now).is_none_or(|wait| wait <= LONGEST));
            }
        }
    }
}
