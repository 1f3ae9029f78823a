//! A number of tokens as a provider writes it.
//!
//! Whatever stands there spoils no answer. Decides nothing about what a count is of.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// The key under which serde_json shows a number as it is written.
pub(super) const NUMBER: &str = "$serde_json::private::Number";

/// What stands where a number of tokens belongs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Count {
    /// Nothing, or `null`.
    #[default]
    Missing,
    /// Something that is no number of tokens, such as a text or a negative number.
    Senseless,
    /// A number, which may still be too large to be believed.
    Known(u64),
}

impl Count {
    /// Returns the number of a count without which nothing is known.
    pub(super) fn needed(self) -> Option<u64> {
        match self {
            Self::Missing | Self::Senseless => None,
            Self::Known(count) => Some(count),
        }
    }

    /// Returns the number of a count that a provider may leave out where it is zero.
    pub(super) fn or_zero(self) -> Option<u64> {
        match self {
            Self::Missing => Some(0),
            Self::Senseless => None,
            Self::Known(count) => Some(count),
        }
    }

    /// Returns this count, or `earlier` where it is missing, or a zero after a number.
    pub(super) fn or_unless_zero(self, earlier: Self) -> Self {
        match (self, earlier) {
            (Self::Missing, _) | (Self::Known(0), Self::Known(_)) => earlier,
            (Self::Senseless | Self::Known(_), _) => self,
        }
    }
}

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Reader;

        impl<'de> Visitor<'de> for Reader {
            type Value = Count;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("anything")
            }

            fn visit_u64<E>(self, count: u64) -> Result<Self::Value, E> {
                Ok(Count::Known(count))
            }

            fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
                Ok(Count::Senseless)
            }

            fn visit_i128<E>(self, _: i128) -> Result<Self::Value, E> {
                Ok(Count::Senseless)
            }

            fn visit_u128<E>(self, _: u128) -> Result<Self::Value, E> {
                Ok(Count::Senseless)
            }

            fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
                Ok(Count::Senseless)
            }

            fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
                Ok(Count::Senseless)
            }

            fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
                Ok(Count::Senseless)
            }

            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(Count::Missing)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut all: A) -> Result<Self::Value, A::Error> {
                while all.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Count::Senseless)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut all: A) -> Result<Self::Value, A::Error> {
                // With `exact-numbers`, serde_json shows a number as a map of its text.
                match all.next_key::<Cow<'de, str>>()?.as_deref() {
                    Some(NUMBER) => {
                        let written = all.next_value::<String>()?;
                        return Ok(written.parse().map_or(Count::Senseless, Count::Known));
                    }
                    Some(_) => all.next_value::<IgnoredAny>().map(|_| ())?,
                    None => return Ok(Count::Senseless),
                }
                while all.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Count::Senseless)
            }
        }

        from.deserialize_any(Reader)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_read_whatever_stands_there() {
        for (json, count) in [
            ("7", Count::Known(7)),
            ("18446744073709551615", Count::Known(u64::MAX)),
            ("18446744073709551616", Count::Senseless),
            ("-1", Count::Senseless),
            ("1.5", Count::Senseless),
            ("1e3", Count::Senseless),
            ("null", Count::Missing),
            ("true", Count::Senseless),
            (r#""7""#, Count::Senseless),
            ("[1, {}]", Count::Senseless),
            ("{}", Count::Senseless),
            (r#"{"a": 1, "b": [2]}"#, Count::Senseless),
        ] {
            assert_eq!(serde_json::from_str::<Count>(json).unwrap(), count, "{json}");
            let parsed: serde_json::Value = serde_json::from_str(json).unwrap();
            assert_eq!(serde_json::from_value::<Count>(parsed).unwrap(), count, "{json}");
        }
    }
}
