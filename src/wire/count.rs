//! Lenient parsing of token counts.
//!
//! A malformed count never fails the response that contains it.

use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::exact_number::read_number;

/// The value of a token count field.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Count {
    /// Absent or `null`.
    #[default]
    Missing,
    /// Not a token count, such as a string or a negative number.
    Invalid,
    /// A number, which may still be too large to be credible.
    Known(u64),
}

impl Count {
    /// Returns the number of a mandatory count.
    pub(super) fn required(self) -> Option<u64> {
        match self {
            Self::Missing | Self::Invalid => None,
            Self::Known(count) => Some(count),
        }
    }

    /// Returns the number of a count that a provider may omit if it is zero.
    pub(super) fn or_zero(self) -> Option<u64> {
        match self {
            Self::Missing => Some(0),
            Self::Invalid => None,
            Self::Known(count) => Some(count),
        }
    }

    /// Returns this count, or `earlier` if this one is missing or is zero after a number.
    pub(super) fn or_earlier(self, earlier: Self) -> Self {
        match (self, earlier) {
            (Self::Missing, _) | (Self::Known(0), Self::Known(_)) => earlier,
            (Self::Invalid | Self::Known(_), _) => self,
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
                Ok(Count::Invalid)
            }

            fn visit_i128<E>(self, _: i128) -> Result<Self::Value, E> {
                Ok(Count::Invalid)
            }

            fn visit_u128<E>(self, _: u128) -> Result<Self::Value, E> {
                Ok(Count::Invalid)
            }

            fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
                Ok(Count::Invalid)
            }

            fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
                Ok(Count::Invalid)
            }

            fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
                Ok(Count::Invalid)
            }

            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(Count::Missing)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut all: A) -> Result<Self::Value, A::Error> {
                while all.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Count::Invalid)
            }

            fn visit_map<A: MapAccess<'de>>(self, all: A) -> Result<Self::Value, A::Error> {
                let digits = read_number(all)?;
                Ok(digits.and_then(|digits| digits.parse().ok()).map_or(Count::Invalid, Count::Known))
            }
        }

        from.deserialize_any(Reader)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_json_value_is_accepted_as_a_count() {
        for (json, count) in [
            ("7", Count::Known(7)),
            ("18446744073709551615", Count::Known(u64::MAX)),
            ("18446744073709551616", Count::Invalid),
            ("-1", Count::Invalid),
            ("1.5", Count::Invalid),
            ("1e3", Count::Invalid),
            ("null", Count::Missing),
            ("true", Count::Invalid),
            (r#""7""#, Count::Invalid),
            ("[1, {}]", Count::Invalid),
            ("{}", Count::Invalid),
            (r#"{"a": 1, "b": [2]}"#, Count::Invalid),
        ] {
            assert_eq!(serde_json::from_str::<Count>(json).unwrap(), count, "{json}");
            let parsed: serde_json::Value = serde_json::from_str(json).unwrap();
            assert_eq!(serde_json::from_value::<Count>(parsed).unwrap(), count, "{json}");
        }
    }
}
