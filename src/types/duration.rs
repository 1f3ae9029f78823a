//! Parses durations such as `"500ms"`, `"30s"` and `"1h 30m"`. For serde's `with`.
//!
//! Zero and durations over a year are treated as mistakes and rejected, so that clock arithmetic cannot overflow.

use std::fmt;
use std::time::Duration;

use jiff::fmt::friendly::{Designator, SpanParser, SpanPrinter};
use serde::de::{Error, Visitor};
use serde::{Deserializer, Serializer};

const MAX_DURATION: Duration = Duration::from_secs(366 * 24 * 60 * 60);

const HELP: &str =
    r#"write it like "500ms", "30s", "10m" or "1h 30m"; the units are ms, s, m and h, and a day is "24h""#;

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
    let Ok(duration) = SpanParser::new().parse_unsigned_duration(text) else {
        return Err(format!("{text:?} is not a duration; {HELP}"));
    };
    if duration > MAX_DURATION {
        return Err(format!("{text:?} is longer than a year; {HELP}"));
    }
    Ok(duration)
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
        for (text, milliseconds) in
            [("500ms", 500), ("30s", 30_000), ("10m", 600_000), ("1h 30m", 5_400_000), ("1.5s", 1_500)]
        {
            assert_eq!(parse(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
    }

    #[test]
    fn an_invalid_duration_is_rejected_with_help() {
        for text in ["", "30", "fast", "0s", "-5s", "10 years", "2y", "1d", "9999999999h", "30s later"] {
            let error = parse(text).unwrap_err();
            assert!(
                error.contains("; write it like") && error.contains("units are ms, s, m and h"),
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
