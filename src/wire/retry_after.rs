//! Parsing of the waits that providers request.
//!
//! Formats: Go durations, protobuf durations, seconds, milliseconds, text inside a message, and every point in
//! time that [`reset_time`] parses. A missing, negative, excessive or malformed wait is unknown and never zero.
//! No input causes a panic.

use std::time::{Duration, SystemTime};

use http::HeaderMap;

use super::reset_time::{self, MAX_PARSED_WAIT};

/// Returns the text of a header; `None` if it is missing or not text.
pub(super) fn header_text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim)
}

/// Returns the wait that the headers request. `retry-after-ms` has precedence because it is more precise. A date
/// in the past is a wait of zero.
pub(super) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let precise = header_text(headers, "retry-after-ms")
        .and_then(parse_number)
        .and_then(|count| credible_wait(count / 1e3));
    precise.or_else(|| parse_reset(header_text(headers, "retry-after")?, now))
}

/// Parses the reset of a limit: `6m0s`, `64` and `33011.38` as seconds, seconds or milliseconds since 1970, RFC
/// 3339, or an HTTP date.
pub(super) fn parse_reset(text: &str, now: SystemTime) -> Option<Duration> {
    match parse_number(text.trim()) {
        Some(number) => credible_wait(number).or_else(|| reset_time::until_epoch(number, now)),
        None => parse_go_duration(text).or_else(|| reset_time::until_date(text, now)),
    }
}

/// Parses a number of requests or tokens. Azure's `-1` is unknown; of `100, 100;w=60` the first number counts.
pub(super) fn parse_count(text: &str) -> Option<u64> {
    /// More than the limit of any account: some servers write "no limit" as the largest number.
    const MAX_CREDIBLE_COUNT: f64 = 1e15;
    let first = text.split([',', ';']).next().unwrap_or_default().trim();
    parse_number(first).filter(|count| *count <= MAX_CREDIBLE_COUNT).map(|count| count as u64)
}

/// Parses `6m0s`, `120ms`, `2m52.8s`.
fn parse_go_duration(text: &str) -> Option<Duration> {
    let (wait, rest) = parse_prefix(text.trim())?;
    rest.is_empty().then_some(wait)
}

/// Parses `34s` and `3.957525076s`, the JSON form of a protobuf duration.
pub(super) fn parse_protobuf_duration(text: &str) -> Option<Duration> {
    parse_number(text.trim().strip_suffix('s')?).and_then(credible_wait)
}

/// Finds the wait in a message such as `Please try again in 11.054s.` or `retry after 6 seconds`.
pub(super) fn wait_in_message(message: &str) -> Option<Duration> {
    const OPENINGS: [&str; 5] =
        ["try again in ", "retry in ", "try again after ", "retry after ", "please wait "];
    reset_time::find_after(message, &OPENINGS, |rest| parse_prefix(rest).map(|(wait, _)| wait))
}

/// Parses a duration such as `1h10m17.5s`, `6 seconds` or `1 hour and 5 minutes` at the start; returns the rest
/// too.
fn parse_prefix(text: &str) -> Option<(Duration, &str)> {
    let (mut total, mut rest) = parse_component(text)?;
    while let Some((more, after)) = parse_next_component(rest) {
        total = total.saturating_add(more);
        rest = after;
    }
    Some((total, rest)).filter(|(total, _)| *total <= MAX_PARSED_WAIT)
}

fn parse_next_component(text: &str) -> Option<(Duration, &str)> {
    [" and ", ", ", " "]
        .iter()
        .find_map(|gap| parse_component(text.strip_prefix(gap)?))
        .or_else(|| parse_component(text))
}

fn parse_component(text: &str) -> Option<(Duration, &str)> {
    let (count, rest) = split_number(text)?;
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
    Some((credible_wait(count * seconds)?, rest))
}

/// Splits `11.054s` into 11.054 and `s`. A dot without a digit after it ends a sentence and is not part of the
/// number.
fn split_number(text: &str) -> Option<(f64, &str)> {
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

/// Parses a plain decimal number: no sign, no exponent, no `NaN`.
fn parse_number(text: &str) -> Option<f64> {
    split_number(text).filter(|(_, rest)| rest.is_empty()).map(|(number, _)| number)
}

fn credible_wait(seconds: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(seconds).ok().filter(|wait| *wait <= MAX_PARSED_WAIT)
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
    fn every_recorded_reset_is_parsed() {
        check(RESETS, |text| parse_reset(text, now()));
    }

    #[test]
    fn every_recorded_retry_delay_is_parsed() {
        check(DELAYS, parse_protobuf_duration);
    }

    #[test]
    fn retry_after_ms_has_precedence() {
        let now = SystemTime::UNIX_EPOCH;
        let both = headers(&[("retry-after", "1"), ("retry-after-ms", "699")]);
        assert_eq!(retry_after(&both, now), Some(Duration::from_millis(699)));
        let broken = headers(&[("retry-after", "1.5"), ("retry-after-ms", "soon")]);
        assert_eq!(retry_after(&broken, now), Some(Duration::from_millis(1500)));
    }

    #[test]
    fn retry_after_is_parsed_in_every_format() {
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
    fn invalid_and_excessive_waits_are_unknown() {
        for invalid in [
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
            assert_eq!(parse_reset(invalid, now()), None, "{invalid:?}");
            assert_eq!(retry_after(&headers(&[("retry-after", invalid)]), now()), None, "{invalid:?}");
            assert_eq!(retry_after(&headers(&[("retry-after-ms", invalid)]), now()), None, "{invalid:?}");
        }
        // Over three years as seconds, which is too long; 28 hours as milliseconds.
        let long =
            retry_after(&headers(&[("retry-after", "99999999"), ("retry-after-ms", "99999999")]), now());
        assert_eq!((parse_reset("99999999", now()), long), (None, Some(Duration::from_millis(99_999_999))));
        let huge = "9".repeat(400);
        assert_eq!((parse_reset(&huge, now()), parse_go_duration(&format!("{huge}h"))), (None, None));
        for invalid in ["34", "-34s", "1e3s", "99999999s", "s", ""] {
            assert_eq!(parse_protobuf_duration(invalid), None, "{invalid:?}");
        }
    }

    #[test]
    fn a_count_is_a_whole_number_and_not_negative() {
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
            assert_eq!(parse_count(text), read, "{text:?}");
        }
        assert_eq!(parse_count(&"9".repeat(400)), None);
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
            assert_eq!(wait_in_message(message), milliseconds.map(Duration::from_millis), "{message}");
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in "\\PC*|[0-9.hmsuµn -]{0,40}|(try again|retry) (in|after) (\\PC*|[0-9.hms ,and]{0,30})") {
            let now = now();
            for wait in [parse_reset(&text, now), parse_protobuf_duration(&text), wait_in_message(&text)] {
                prop_assert!(wait.is_none_or(|wait| wait <= MAX_PARSED_WAIT));
            }
            if let Ok(value) = text.parse::<http::HeaderValue>() {
                let mut headers = HeaderMap::new();
                headers.insert("retry-after", value.clone());
                headers.insert("retry-after-ms", value);
                prop_assert!(retry_after(&headers, now).is_none_or(|wait| wait <= MAX_PARSED_WAIT));
            }
        }
    }
}
