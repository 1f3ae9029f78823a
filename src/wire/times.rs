//! Reads the many ways in which providers write a wait.
//!
//! Go durations, protobuf durations, seconds, milliseconds, words inside a message, and every moment
//! that [`instants`] knows. What is missing, negative, absurd or no number is unknown
//! and never zero; no text makes any of these panic.

use std::time::{Duration, SystemTime};

use http::HeaderMap;

use super::instants;

/// A longer wait is a mistake, and unknown.
pub(super) const LONGEST: Duration = Duration::from_hours(366 * 24);

/// Returns the text of a header; `None` when it is missing or no text.
pub(super) fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim)
}

/// Returns how long the headers ask to stay away. `retry-after-ms` is the finer one and wins;
/// a date in the past means now.
pub(super) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let fine = text(headers, "retry-after-ms").and_then(number).and_then(|count| wait(count / 1e3));
    fine.or_else(|| reset(text(headers, "retry-after")?, now))
}

/// Reads when a limit opens again, however that is written: `6m0s`, `64` and `33011.38` as seconds,
/// seconds or milliseconds since 1970, RFC 3339, a date as HTTP writes it.
pub(super) fn reset(text: &str, now: SystemTime) -> Option<Duration> {
    match number(text.trim()) {
        Some(number) => wait(number).or_else(|| instants::until_epoch(number, now)),
        None => go_duration(text).or_else(|| instants::until(text, now)),
    }
}

/// Reads a number of requests or tokens. Azure's `-1` is none; of `100, 100;w=60` the first counts.
pub(super) fn count(text: &str) -> Option<u64> {
    /// More than any account has: some servers write "no limit" as the largest number they know.
    const MOST: f64 = 1e15;
    let first = text.split([',', ';']).next().unwrap_or_default().trim();
    number(first).filter(|count| *count <= MOST).map(|count| count as u64)
}

/// Reads `6m0s`, `120ms`, `2m52.8s`.
fn go_duration(text: &str) -> Option<Duration> {
    let (wait, rest) = leading(text.trim())?;
    rest.is_empty().then_some(wait)
}

/// Reads `34s` and `3.957525076s`, the JSON form of a protobuf duration.
pub(super) fn protobuf_duration(text: &str) -> Option<Duration> {
    number(text.trim().strip_suffix('s')?).and_then(wait)
}

/// Finds the wait in a message such as `Please try again in 11.054s.` or `retry after 6 seconds`.
pub(super) fn wait_in_words(message: &str) -> Option<Duration> {
    const OPENINGS: [&str; 5] =
        ["try again in ", "retry in ", "try again after ", "retry after ", "please wait "];
    // ASCII lower case keeps every byte where it is, so what is found here can be read as it is.
    let lower = message.to_ascii_lowercase();
    let mut rests = OPENINGS
        .iter()
        .flat_map(|opening| lower.match_indices(opening).map(|(at, _)| &lower[at + opening.len()..]));
    rests.find_map(|rest| leading(rest).map(|(wait, _)| wait))
}

/// Reads pieces such as `1h10m17.5s`, `6 seconds` or `1 hour and 5 minutes` from the front; returns
/// what follows them.
fn leading(text: &str) -> Option<(Duration, &str)> {
    let (mut total, mut rest) = piece(text)?;
    while let Some((more, after)) = next_piece(rest) {
        total = total.saturating_add(more);
        rest = after;
    }
    Some((total, rest)).filter(|(total, _)| *total <= LONGEST)
}

fn next_piece(text: &str) -> Option<(Duration, &str)> {
    [" and ", ", ", " "].iter().find_map(|gap| piece(text.strip_prefix(gap)?)).or_else(|| piece(text))
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
    Duration::try_from_secs_f64(seconds).ok().filter(|wait| *wait <= LONGEST)
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

    fn now() -> SystemTime {
        // 2026-11-20T08:49:30Z
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_164_570)
    }

    fn headers(all: &[(&'static str, &str)]) -> HeaderMap {
        all.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect::<HeaderMap>()
    }

    #[test]
    fn every_reset_that_was_seen_is_read() {
        check(RESETS, |text| reset(text, now()));
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
    fn when_to_come_back_is_read_in_every_form() {
        let read = |value| retry_after(&headers(&[("retry-after", value)]), now());
        for (text, milliseconds) in [
            ("7", 7_000),
            (" 1.5 ", 1_500),
            ("0", 0),
            ("7.66s", 7_660),
            ("Fri, 20 Nov 2026 08:49:37 GMT", 7_000),
            ("Friday, 20-Nov-26 08:49:37 GMT", 7_000),
            ("Fri Nov 20 08:49:37 2026", 7_000),
            ("Fri, 20 Nov 2026 08:00:00 GMT", 0),
            ("2026-11-20T08:49:37Z", 7_000),
            ("1795164577", 7_000),
            ("1795164577500", 7_500),
            ("2592000", 2_592_000_000),
        ] {
            assert_eq!(read(text), Some(Duration::from_millis(milliseconds)), "{text}");
        }
    }

    #[test]
    fn nonsense_and_the_absurd_are_no_wait() {
        for nonsense in [
            "",
            "-1",
            "-0.5",
            "NaN",
            "inf",
            "1e3",
            "1e300",
            "soon",
            "1 2",
            ".",
            "1.",
            "+3",
            "-1s",
            "6m0x",
            "99999999999999999999",
            "9000h",
            "8000h8000h",
            "1795164577500000000000",
        ] {
            assert_eq!(reset(nonsense, now()), None, "{nonsense:?}");
            assert_eq!(retry_after(&headers(&[("retry-after", nonsense)]), now()), None, "{nonsense:?}");
            assert_eq!(retry_after(&headers(&[("retry-after-ms", nonsense)]), now()), None, "{nonsense:?}");
        }
        // A year and a bit: too long as seconds, a day and a bit as milliseconds.
        let long =
            retry_after(&headers(&[("retry-after", "99999999"), ("retry-after-ms", "99999999")]), now());
        assert_eq!((reset("99999999", now()), long), (None, Some(Duration::from_millis(99_999_999))));
        let huge = "9".repeat(400);
        assert_eq!((reset(&huge, now()), go_duration(&format!("{huge}h"))), (None, None));
        for nonsense in ["34", "-34s", "1e3s", "99999999s", "s", ""] {
            assert_eq!(protobuf_duration(nonsense), None, "{nonsense:?}");
        }
    }

    #[test]
    fn a_count_is_whole_and_not_negative() {
        for (text, read) in [
            ("500", Some(500)),
            ("0", Some(0)),
            ("21600000.0", Some(21_600_000)),
            ("100, 100;window=60", Some(100)),
            ("100;w=60", Some(100)),
            ("-1", None),
            ("", None),
            ("many", None),
            ("1e300", None),
            ("NaN", None),
            ("9223372036854775807", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(count(text), read, "{text:?}");
        }
        assert_eq!(count(&"9".repeat(400)), None);
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
            ("Please wait 34 seconds before the next request", Some(34_000)),
            ("Try again in 1 hour and 5 minutes.", Some(3_900_000)),
            ("Try again in 2 hours, 1 minute, 3 seconds", Some(7_263_000)),
            ("Try again in 1h 5m, or ask for more", Some(3_900_000)),
            ("Please retry in a moment. Try again in 5s", Some(5_000)),
            ("Please try again in 99999h", None),
            ("Please try again in -5s", None),
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
        fn no_text_makes_a_reader_panic(text in "\\PC*|[0-9.hmsuµn -]{0,40}|(try again|retry) (in|after) (\\PC*|[0-9.hms ,and]{0,30})") {
            let now = now();
            for wait in [reset(&text, now), protobuf_duration(&text), wait_in_words(&text)] {
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
