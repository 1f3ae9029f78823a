//! Times in JSON: text such as `2026-11-30T08:15:00.250Z` (RFC 3339, UTC, always with milliseconds). In the program they are
//! milliseconds since 1970. For serde's `with`.

use jiff::Timestamp;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serializer};

/// Returns a time as text.
pub fn format(milliseconds: i64) -> String {
    let nearest = if milliseconds < 0 { Timestamp::MIN } else { Timestamp::MAX };
    format!("{:.3}", Timestamp::from_millisecond(milliseconds).unwrap_or(nearest))
}

/// Serializes milliseconds since 1970 as text.
///
/// # Errors
/// Those of the serializer.
pub fn serialize<S: Serializer>(milliseconds: &i64, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&format(*milliseconds))
}

/// Serializes a time as text or null.
///
/// # Errors
/// Those of the serializer.
pub fn serialize_timestamp<S: Serializer>(time: &Option<Timestamp>, to: S) -> Result<S::Ok, S::Error> {
    optional::serialize(&time.map(Timestamp::as_millisecond), to)
}

/// Deserializes a text as milliseconds since 1970.
///
/// # Errors
/// If the text is not a time.
pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<i64, D::Error> {
    parse(&String::deserialize(from)?)
}

/// Times that may be missing. For serde's `with`.
pub mod optional {
    use serde::{Deserialize, Deserializer, Serializer};

    /// Serializes milliseconds since 1970 as text or null.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(milliseconds: &Option<i64>, to: S) -> Result<S::Ok, S::Error> {
        match milliseconds {
            Some(milliseconds) => super::serialize(milliseconds, to),
            None => to.serialize_none(),
        }
    }

    /// Deserializes a text or null.
    ///
    /// # Errors
    /// If the text is not a time.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<i64>, D::Error> {
        let text = Option::<String>::deserialize(from)?;
        text.map(|text| super::parse(&text)).transpose()
    }
}

fn parse<E: Error>(text: &str) -> Result<i64, E> {
    let time: Timestamp = text.parse().map_err(E::custom)?;
    Ok(time.as_millisecond())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, serde::Serialize, Deserialize)]
    struct Times {
        #[serde(with = "super")]
        at: i64,
        #[serde(with = "super::optional")]
        end: Option<i64>,
    }

    #[test]
    fn a_time_is_text_with_milliseconds_and_is_read_again() {
        for (times, text) in [
            (
                Times { at: 1_796_000_000_000, end: Some(1_796_000_000_250) },
                r#"{"at":"2026-11-30T00:53:20.000Z","end":"2026-11-30T00:53:20.250Z"}"#,
            ),
            (Times { at: -1, end: None }, r#"{"at":"1969-12-31T23:59:59.999Z","end":null}"#),
        ] {
            assert_eq!(serde_json::to_string(&times).unwrap(), text);
            assert_eq!(serde_json::from_str::<Times>(text).unwrap(), times);
        }
        assert!(format(i64::MAX).starts_with("9999-"), "{}", format(i64::MAX));
        assert!(serde_json::from_str::<Times>(r#"{"at":"yesterday","end":null}"#).is_err());
    }
}
