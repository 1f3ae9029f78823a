//! Parses durations such as `"500ms"`, `"30s"`, `"1h 30m"` and `"30d"`. For serde's `with`.
//!
//! A day has 24 hours. Zero and durations over a year are treated as mistakes and rejected, so that clock arithmetic cannot overflow.

use std::fmt;
use std::time::Duration;

use jiff::fmt::friendly::{Designator, SpanParser, SpanPrinter};
use serde::de::{Error, Visitor};
use serde::{Deserializer, Serializer};

const MAX_DURATION: Duration = Duration::from_secs(366 * 24 * 60 * 60);

const HELP: &str =
    r#"write it like "500ms", "30s", "10m", "1h 30m" or "30d"; the units are ms, s, m, h and d"#;

/// Parses a duration.
///
/// # Errors
/// If `text` is not a duration, is zero, or is longer than a year.
pub fn parse(text: &str) -> Result<Duration, String> {
    match parse_from_zero(text)? {
        Duration::ZERO => Err(format!("{text:?} is zero; {HELP}")),
        duration => Ok(duration),
    }
}

/// Parses a duration that may be zero.
///
/// # Errors
/// If `text` is not a duration or is longer than a year.
pub fn parse_from_zero(text: &str) -> Result<Duration, String> {
    let duration = parse_of_any_length(text)?;
    if duration > MAX_DURATION {
        return Err(format!("{text:?} is longer than a year; {HELP}"));
    }
    Ok(duration)
}

/// Parses the age of something, which may be longer than a year.
///
/// # Errors
/// If `text` is not a duration, or is zero.
pub fn parse_age(text: &str) -> Result<Duration, String> {
    match parse_of_any_length(text)? {
        Duration::ZERO => Err(format!("{text:?} is zero; {HELP}")),
        age => Ok(age),
    }
}

/// Parses a duration that may be zero or longer than a year, such as an age. Clocks must not add it.
///
/// # Errors
/// If `text` is not a duration.
pub fn parse_of_any_length(text: &str) -> Result<Duration, String> {
    let (days, rest) = split_days(text);
    let rest = match (days, rest) {
        (Some(_), "") => Some(Duration::ZERO),
        (_, rest) => SpanParser::new().parse_unsigned_duration(rest).ok(),
    };
    let of_days = days.unwrap_or(0).checked_mul(24 * 60 * 60).map(Duration::from_secs);
    let duration = of_days.zip(rest).and_then(|(days, rest)| days.checked_add(rest));
    duration.ok_or_else(|| format!("{text:?} is not a duration; {HELP}"))
}

/// Splits the days from the start of a duration. The parser knows no days, because not all of them have 24 hours.
fn split_days(text: &str) -> (Option<u64>, &str) {
    let trimmed = text.trim();
    let end = trimmed.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(end);
    let unit = unit.trim_start();
    let rest = ["days", "day", "d"].into_iter().find_map(|name| unit.strip_prefix(name));
    match (number.parse().ok(), rest) {
        (Some(days), Some(rest)) if !rest.starts_with(char::is_alphabetic) => {
            let rest = rest.trim_start();
            (Some(days), rest.strip_prefix(',').map_or(rest, str::trim_start))
        }
        (Some(_) | None, _) => (None, text),
    }
}

/// Formats a duration so that [`parse`] accepts it.
pub fn format(duration: &Duration) -> String {
    let mut text = String::new();
    let printer = SpanPrinter::new().designator(Designator::Compact);
    match printer.print_unsigned_duration(duration, &mut text) {
        Ok(()) => text,
        Err(_) => format!("{duration:?}"),
    }
}

/// Deserializes a duration, for serde's `with`.
///
/// # Errors
/// As [`parse`], and if the value is not a string.
pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    from.deserialize_str(DurationVisitor(parse))
}

/// Deserializes a duration that may be zero.
///
/// # Errors
/// As [`parse_from_zero`], and if the value is not a string.
pub fn deserialize_from_zero<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    from.deserialize_str(DurationVisitor(parse_from_zero))
}

/// Serializes a duration, for serde's `with`.
///
/// # Errors
/// The errors of the serializer.
pub fn serialize<S: Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&format(duration))
}

struct DurationVisitor(fn(&str) -> Result<Duration, String>);

impl Visitor<'_> for DurationVisitor {
    type Value = Duration;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(r#"a duration with its unit, such as "30s""#)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Duration, E> {
        (self.0)(text).map_err(E::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_with_units_are_parsed() {
        let hour = 3_600_000;
        for (text, milliseconds) in [
            ("500ms", 500),
            ("30s", 30_000),
            ("10m", 600_000),
            ("1h 30m", 5_400_000),
            ("1.5s", 1_500),
            ("30d", 30 * 24 * hour),
            ("1d 12h", 36 * hour),
            ("1d12h", 36 * hour),
            ("2 days, 1h", 49 * hour),
            (" 1 day ", 24 * hour),
            ("0d 1s", 1_000),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        let years = Duration::from_hours(24 * 4_000);
        assert_eq!((parse_of_any_length("4000d"), parse_age("4000d")), (Ok(years), Ok(years)));
        assert!(parse_of_any_length("0d").is_ok() && parse_age("0d").is_err());
        assert!(parse("4000d").unwrap_err().contains("longer than a year"));
    }

    #[test]
    fn an_invalid_duration_is_rejected_with_help() {
        for text in [
            "",
            "30",
            "fast",
            "0s",
            "0d",
            "-5s",
            "-1d",
            "10 years",
            "2y",
            "1dx",
            "d",
            "1.5d",
            "1h 1d",
            "1d later",
            "9999999999h",
            "99999999999999999999d",
            "9999999999999999999d",
            "30s later",
        ] {
            let error = parse(text).unwrap_err();
            assert!(
                error.contains("; write it like") && error.contains("units are ms, s, m, h and d"),
                "{error}"
            );
        }
        assert_eq!(parse_from_zero("0s"), Ok(Duration::ZERO));
    }

    proptest! {
        #[test]
        fn a_formatted_duration_parses_to_the_same_value(milliseconds in 1_u64..31_536_000_000) {
            let duration = Duration::from_millis(milliseconds);
            prop_assert_eq!(parse(&format(&duration)), Ok(duration));
        }
    }
}
