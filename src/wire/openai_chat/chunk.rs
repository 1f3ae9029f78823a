//! The JSON structures of a response: a chunk of a stream, or a complete body.
//!
//! Unknown fields are ignored, and every known field may be missing or null. Texts are borrowed from the bytes.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use crate::wire::exact_number::read_number;
use crate::wire::lenient::{LenientIndex, LenientObject, LenientText, skip_list, skip_object};

use super::tool_calls::{FunctionPiece, ToolCallPieces};
use super::usage::Counts;

/// One `data:` line of a stream, or the body of a response without a stream.
#[derive(Debug, serde::Deserialize)]
pub(super) struct Chunk<'a> {
    #[serde(borrow, default)]
    pub(super) id: LenientText<'a>,
    #[serde(borrow, default)]
    pub(super) model: LenientText<'a>,
    /// Empty in the chunk with the usage; missing if the JSON is not a chunk.
    #[serde(borrow, default)]
    pub(super) choices: Option<FirstChoice<'a>>,
    /// Boxed to keep the chunk small: only one chunk of a stream has it, and all chunks are moved.
    #[serde(default)]
    pub(super) usage: LenientObject<Box<Counts>>,
    #[serde(default)]
    pub(super) error: Presence,
}

/// The first choice, the only one that was requested; others are ignored.
#[derive(Debug)]
pub(super) struct FirstChoice<'a>(pub(super) Option<Choice<'a>>);

impl<'de: 'a, 'a> Deserialize<'de> for FirstChoice<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Reader;

        impl<'de> Visitor<'de> for Reader {
            type Value = Option<Choice<'de>>;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a list of answers")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut all: A) -> Result<Self::Value, A::Error> {
                let mut first = None;
                while let Some(choice) = all.next_element::<Choice<'de>>()? {
                    if first.is_none() && choice.index.0 == 0 {
                        first = Some(choice);
                    }
                }
                Ok(first)
            }
        }

        from.deserialize_seq(Reader).map(FirstChoice)
    }
}

/// One choice. Requests ask for one.
#[derive(Debug, serde::Deserialize)]
pub(super) struct Choice<'a> {
    #[serde(default)]
    pub(super) index: LenientIndex,
    #[serde(borrow, default)]
    pub(super) delta: Option<MessageContent<'a>>,
    #[serde(borrow, default)]
    pub(super) message: Option<Box<MessageContent<'a>>>,
    #[serde(borrow, default)]
    pub(super) finish_reason: LenientText<'a>,
}

/// The content of a chunk or of a complete message.
#[derive(Debug, serde::Deserialize)]
pub(super) struct MessageContent<'a> {
    #[serde(borrow, default)]
    pub(super) content: Option<ContentText<'a>>,
    #[serde(borrow, default)]
    pub(super) refusal: Option<ContentText<'a>>,
    #[serde(borrow, default)]
    pub(super) reasoning: ReasoningText<'a>,
    #[serde(borrow, default)]
    pub(super) reasoning_content: ReasoningText<'a>,
    /// Boxed, like the next field, to keep the chunk small: most answers have neither.
    #[serde(borrow, default)]
    pub(super) tool_calls: Option<Box<ToolCallPieces<'a>>>,
    #[serde(borrow, default)]
    pub(super) function_call: LenientObject<Box<FunctionPiece<'a>>>,
}

/// A string, a number, or the texts of a list of typed parts, as some servers send them.
#[derive(Debug)]
pub(super) struct ContentText<'a>(pub(super) Cow<'a, str>);

#[derive(serde::Deserialize)]
struct TypedPart<'a> {
    #[serde(borrow, default)]
    r#type: Cow<'a, str>,
    #[serde(borrow, default)]
    text: Cow<'a, str>,
}

impl<'de: 'a, 'a> Deserialize<'de> for ContentText<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Reader;

        impl<'de> Visitor<'de> for Reader {
            type Value = Cow<'de, str>;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a text or a list of parts")
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

            fn visit_map<A: MapAccess<'de>>(self, all: A) -> Result<Self::Value, A::Error> {
                read_number(all)?
                    .map(Cow::Owned)
                    .ok_or_else(|| A::Error::custom("an object instead of a text"))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Self::Value, A::Error> {
                let mut all = String::new();
                while let Some(part) = parts.next_element::<TypedPart<'de>>()? {
                    if part.r#type == "text" {
                        all.push_str(&part.text);
                    }
                }
                Ok(Cow::Owned(all))
            }
        }

        from.deserialize_any(Reader).map(ContentText)
    }
}

/// The reasoning of a message. A value other than a string is not read.
#[derive(Debug, Default, PartialEq)]
pub(super) enum ReasoningText<'a> {
    /// Null and empty values count as absent.
    #[default]
    Absent,
    Text(Cow<'a, str>),
    /// A value of another type, of which only the presence counts.
    Other,
}

impl ReasoningText<'_> {
    fn of_presence(is_present: bool) -> Self {
        if is_present { Self::Other } else { Self::Absent }
    }

    pub(super) fn is_present(&self) -> bool {
        match self {
            Self::Absent => false,
            Self::Text(_) | Self::Other => true,
        }
    }

    /// Returns the text; empty if there is none.
    pub(super) fn text(&self) -> &str {
        match self {
            Self::Absent | Self::Other => "",
            Self::Text(text) => text,
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for ReasoningText<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Reader;

        impl<'de> Visitor<'de> for Reader {
            type Value = ReasoningText<'de>;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("anything")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                if text.is_empty() {
                    return Ok(ReasoningText::Absent);
                }
                Ok(ReasoningText::Text(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                if text.is_empty() {
                    return Ok(ReasoningText::Absent);
                }
                Ok(ReasoningText::Text(Cow::Owned(text.to_owned())))
            }

            fn visit_bool<E>(self, is: bool) -> Result<Self::Value, E> {
                Ok(ReasoningText::of_presence(is))
            }

            fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
                Ok(ReasoningText::Other)
            }

            fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
                Ok(ReasoningText::Other)
            }

            fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
                Ok(ReasoningText::Other)
            }

            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(ReasoningText::Absent)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, all: A) -> Result<Self::Value, A::Error> {
                skip_list(all).map(ReasoningText::of_presence)
            }

            fn visit_map<A: MapAccess<'de>>(self, all: A) -> Result<Self::Value, A::Error> {
                skip_object(all).map(ReasoningText::of_presence)
            }
        }

        from.deserialize_any(Reader)
    }
}

/// Whether a field has a value of any type; null and empty values count as absent.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Presence(pub(super) bool);

impl<'de> Deserialize<'de> for Presence {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        ReasoningText::deserialize(from).map(|value| Self(value.is_present()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_parts_are_joined_without_thinking() {
        let message: MessageContent<'_> = serde_json::from_str(
            r#"{"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
                {"type": "text", "text": "Low \n"}, {"type": "text", "text": "tide."}]}"#,
        )
        .unwrap();
        assert_eq!(message.content.unwrap().0, "Low \ntide.");
    }

    #[test]
    fn plain_content_is_borrowed() {
        let message: MessageContent<'_> = serde_json::from_str(r#"{"content": "Low tide."}"#).unwrap();
        assert!(matches!(message.content, Some(ContentText(Cow::Borrowed("Low tide.")))));
    }

    #[test]
    fn null_and_empty_values_are_absent() {
        for (json, is_present) in
            [("null", false), ("[]", false), ("{}", false), ("\"\"", false), ("[null]", true), ("0", true)]
        {
            assert_eq!(serde_json::from_str::<Presence>(json).unwrap(), Presence(is_present), "{json}");
        }
    }

    #[test]
    fn reasoning_is_a_string_and_other_values_count_as_present_only() {
        for (json, text, is_present) in [
            (r#""Hm.""#, "Hm.", true),
            (r#""H\u006d.""#, "Hm.", true),
            (r#""""#, "", false),
            ("null", "", false),
            ("true", "", true),
            ("1.5", "", true),
            (r#"[{"text":"Hm."}]"#, "", true),
            (r#"{"text":"Hm."}"#, "", true),
            ("[]", "", false),
        ] {
            let read = serde_json::from_str::<ReasoningText<'_>>(json).unwrap();
            assert_eq!((read.text(), read.is_present()), (text, is_present), "{json}");
        }
    }
}
