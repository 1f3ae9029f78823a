//! Reads durations as people write them: `"500ms"`, `"30s"`, `"1h 30m"`. For serde's `with`.
//!
//! A setting of no time at all, or of more than a year, is a slip of the pen and refused here, so
//! that no clock arithmetic ever overflows.

use std::fmt;
use std::time::Duration;

use jiff::fmt::friendly::{Designator, SpanParser, SpanPrinter};
use serde::de::{Error, Visitor};
use serde::{Deserializer, Serializer};

const LONGEST: Duration = Duration::from_secs(366 * 24 * 60 * 60);

const ADVICE: &str =
    r#"write it like "500ms", "30s", "10m" or "1h 30m"; the units are ms, s, m and h, and a day is "24h""#;

/// Reads a duration.
///
/// # Errors
/// When `text` is none, is zero, or is longer than a year.
pub fn parse(text: &str) -> Result<Duration, String> {
    match parse_from_zero(text)? {
        Duration::ZERO => Err(format!("{text:?} is no time at all; {ADVICE}")),
        some => Ok(some),
    }
}

/// Reads a duration that may be no time at all.
///
/// # Errors
/// When `text` is none, or is longer than a year.
pub fn parse_from_zero(text: &str) -> Result<Duration, String> {
    let Ok(duration) = SpanParser::new().parse_unsigned_duration(text) else {
        return Err(format!("{text:?} is no duration; {ADVICE}"));
    };
    if duration > LONGEST {
        return Err(format!("{text:?} is longer than a year; {ADVICE}"));
    }
    Ok(duration)
}

/// Writes a duration so that [`parse`] reads it back.
pub fn show(duration: &Duration) -> String {
    let mut text = String::new();
    let printer = SpanPrinter::new().designator(Designator::Compact);
    match printer.print_unsigned_duration(duration, &mut text) {
        Ok(()) => text,
        Err(_) => format!("{duration:?}"),
    }
}

/// Reads a duration, for serde's `with`.
///
/// # Errors
/// As [`parse`], and when the value is no text.
pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    from.deserialize_str(Text(parse))
}

/// Reads a duration that may be no time at all.
///
/// # Errors
/// As [`parse_from_zero`], and when the value is no text.
pub fn deserialize_from_zero<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    from.deserialize_str(Text(parse_from_zero))
}

/// Writes a duration, for serde's `with`.
///
/// # Errors
/// The serializer's own.
pub fn serialize<S: Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&show(duration))
}

struct Text(fn(&str) -> Result<Duration, String>);

impl Visitor<'_> for Text {
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
    fn durations_are_read_as_people_write_them() {
        for (text, milliseconds) in
            [("500ms", 500), ("30s", 30_000), ("10m", 600_000), ("1h 30m", 5_400_000), ("1.5s", 1_500)]
        {
            assert_eq!(parse(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
    }

    #[test]
    fn what_is_no_sensible_duration_is_refused_with_advice() {
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
        fn a_duration_shown_reads_back(milliseconds in 1_u64..31_536_000_000) {
            let duration = Duration::from_millis(milliseconds);
            prop_assert_eq!(parse(&show(&duration)), Ok(duration));
        }
    }
}
