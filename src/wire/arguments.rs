//! The arguments of a function call in a response.

use std::borrow::Cow;
use std::fmt;

use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

/// The arguments as text: a string with JSON, as documented, or the JSON itself, as some servers send it. Empty if
/// they are missing.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Arguments<'a>(pub(super) Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Arguments<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Reader;

        impl<'de> Visitor<'de> for Reader {
            type Value = Cow<'de, str>;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("anything")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Cow::Borrowed(text))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Cow::Owned(text.to_owned()))
            }

            fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
                Ok(Cow::Owned(number.to_string()))
            }

            fn visit_i64<E>(self, number: i64) -> Result<Self::Value, E> {
                Ok(Cow::Owned(number.to_string()))
            }

            fn visit_f64<E>(self, number: f64) -> Result<Self::Value, E> {
                Ok(Cow::Owned(number.to_string()))
            }

            fn visit_bool<E>(self, is: bool) -> Result<Self::Value, E> {
                Ok(Cow::Owned(is.to_string()))
            }

            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(Cow::Borrowed(""))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, all: A) -> Result<Self::Value, A::Error> {
                let value = Value::deserialize(SeqAccessDeserializer::new(all))?;
                Ok(Cow::Owned(value.to_string()))
            }

            fn visit_map<A: MapAccess<'de>>(self, all: A) -> Result<Self::Value, A::Error> {
                let value = Value::deserialize(MapAccessDeserializer::new(all))?;
                Ok(Cow::Owned(value.to_string()))
            }
        }

        from.deserialize_any(Reader).map(Arguments)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_a_string_or_the_json_itself() {
        for (json, text) in [
            (r#""{\"a\": 1}""#, r#"{"a": 1}"#),
            (r#""{}""#, "{}"),
            (r#"{"b": 2, "a": [1.5, "x"]}"#, r#"{"b":2,"a":[1.5,"x"]}"#),
            ("[1, {}]", "[1,{}]"),
            ("7", "7"),
            ("true", "true"),
            ("null", ""),
        ] {
            assert_eq!(serde_json::from_str::<Arguments<'_>>(json).unwrap().0, text, "{json}");
        }
        let borrowed: Arguments<'_> = serde_json::from_str(r#""{}""#).unwrap();
        assert!(matches!(borrowed.0, Cow::Borrowed("{}")));
    }
}
