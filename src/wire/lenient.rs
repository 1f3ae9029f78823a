//! Lenient parsing of secondary fields: an unexpected type never fails the response.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::exact_number::read_number;
use super::{bounded_json, surrogates};

/// A field that should be a string, such as the id of a response.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum LenientText<'a> {
    /// Absent, or neither a string nor a number.
    #[default]
    Missing,
    /// A string, as documented.
    Text(Cow<'a, str>),
    /// A number, in its original notation.
    Number(Box<str>),
}

impl LenientText<'_> {
    /// Returns the value as a string; `None` if it is missing or empty.
    pub(super) fn as_str(&self) -> Option<&str> {
        match self {
            Self::Missing => None,
            Self::Text(text) => Some(text).filter(|text| !text.is_empty()).map(|text| &**text),
            Self::Number(number) => Some(number),
        }
    }

    /// Returns the value as a label of the response, such as its id: truncated, with the surrogates of a repaired
    /// chunk restored.
    pub(super) fn label(&self, mark: Option<char>) -> Option<String> {
        self.as_str().map(|text| bounded_json::truncate_label(&surrogates::restore(text, mark)))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for LenientText<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Reader;

        impl<'de> Visitor<'de> for Reader {
            type Value = LenientText<'de>;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("anything")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(LenientText::Text(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(LenientText::Text(Cow::Owned(text.to_owned())))
            }

            fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
                Ok(LenientText::Number(number.to_string().into()))
            }

            fn visit_i64<E>(self, number: i64) -> Result<Self::Value, E> {
                Ok(LenientText::Number(number.to_string().into()))
            }

            fn visit_f64<E>(self, number: f64) -> Result<Self::Value, E> {
                Ok(LenientText::Number(number.to_string().into()))
            }

            fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
                Ok(LenientText::Missing)
            }

            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(LenientText::Missing)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut all: A) -> Result<Self::Value, A::Error> {
                while all.next_element::<IgnoredAny>()?.is_some() {}
                Ok(LenientText::Missing)
            }

            fn visit_map<A: MapAccess<'de>>(self, all: A) -> Result<Self::Value, A::Error> {
                let digits = read_number(all)?;
                Ok(digits.map_or(LenientText::Missing, |digits| LenientText::Number(digits.into())))
            }
        }

        from.deserialize_any(Reader)
    }
}

/// The index of one of several answers: a number, or a string with a number. Anything else is 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct LenientIndex(pub(super) u64);

impl<'de> Deserialize<'de> for LenientIndex {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let written = LenientText::deserialize(from)?;
        Ok(Self(written.as_str().and_then(|written| written.trim().parse().ok()).unwrap_or(0)))
    }
}

/// An object. A value of any other type counts as missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LenientObject<T>(pub(super) Option<T>);

impl<T> Default for LenientObject<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for LenientObject<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Reader<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Reader<T> {
            type Value = Option<T>;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("anything")
            }

            fn visit_map<A: MapAccess<'de>>(self, all: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(all)).map(Some)
            }

            fn visit_str<E: Error>(self, _: &str) -> Result<Self::Value, E> {
                Ok(None)
            }

            fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
                Ok(None)
            }

            fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
                Ok(None)
            }

            fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
                Ok(None)
            }

            fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
                Ok(None)
            }

            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(None)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut all: A) -> Result<Self::Value, A::Error> {
                while all.next_element::<IgnoredAny>()?.is_some() {}
                Ok(None)
            }
        }

        from.deserialize_any(Reader(PhantomData)).map(LenientObject)
    }
}

/// Reads a list to its end. Returns whether it has elements.
pub(super) fn skip_list<'de, A: SeqAccess<'de>>(mut all: A) -> Result<bool, A::Error> {
    let mut has_elements = false;
    while all.next_element::<IgnoredAny>()?.is_some() {
        has_elements = true;
    }
    Ok(has_elements)
}

/// Reads an object to its end. Returns whether it has fields.
pub(super) fn skip_object<'de, A: MapAccess<'de>>(mut all: A) -> Result<bool, A::Error> {
    let mut has_fields = false;
    while all.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
        has_fields = true;
    }
    Ok(has_fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default, PartialEq, serde::Deserialize)]
    #[serde(default)]
    struct Details {
        known: u64,
    }

    #[test]
    fn any_json_value_is_accepted_as_text() {
        for (json, text) in [
            (r#""a""#, Some("a")),
            (r#""a\n""#, Some("a\n")),
            ("7", Some("7")),
            ("-7", Some("-7")),
            ("1.5", Some("1.5")),
            (r#""""#, None),
            ("null", None),
            ("true", None),
            ("[1, [2]]", None),
            (r#"{"a": 1, "b": {}}"#, None),
            ("{}", None),
        ] {
            assert_eq!(serde_json::from_str::<LenientText<'_>>(json).unwrap().as_str(), text, "{json}");
        }
    }

    #[test]
    fn an_index_may_be_a_string() {
        for (json, index) in [("1", 1), (r#""1""#, 1), ("null", 0), (r#""x""#, 0), ("-1", 0), ("[]", 0)] {
            assert_eq!(serde_json::from_str::<LenientIndex>(json).unwrap(), LenientIndex(index), "{json}");
        }
    }

    #[test]
    fn a_value_that_is_not_an_object_counts_as_missing() {
        for (json, known) in [
            (r#"{"known": 3, "more": 1}"#, Some(3)),
            ("{}", Some(0)),
            ("null", None),
            ("[1]", None),
            (r#""x""#, None),
            ("true", None),
        ] {
            let read = serde_json::from_str::<LenientObject<Details>>(json).unwrap().0;
            assert_eq!(read.map(|details| details.known), known, "{json}");
        }
        // A number may be presented as a map, whose only field is unknown.
        let read = serde_json::from_str::<LenientObject<Details>>("0").unwrap().0;
        assert_eq!(read.unwrap_or_default(), Details::default());
    }
}
