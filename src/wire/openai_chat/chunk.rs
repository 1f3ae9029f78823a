//! The JSON structures of a response: a chunk of a stream, or a complete body.
//!
//! Unknown fields are ignored, and every known field may be missing or null. Texts are borrowed from the bytes.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::types::{Tokens, Usage};
use crate::wire::count::Count;
use crate::wire::exact_number::read_number;
use crate::wire::lenient::{LenientIndex, LenientObject, LenientText};

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
    #[serde(default)]
    pub(super) reasoning: Presence,
    #[serde(default)]
    pub(super) reasoning_content: Presence,
    #[serde(default)]
    pub(super) tool_calls: Presence,
    #[serde(default)]
    pub(super) function_call: Presence,
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

/// Whether a field has a value of any type; null and empty values count as absent.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Presence(pub(super) bool);

impl<'de> Deserialize<'de> for Presence {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Reader;

        impl<'de> Visitor<'de> for Reader {
            type Value = bool;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("anything")
            }

            fn visit_bool<E>(self, is: bool) -> Result<bool, E> {
                Ok(is)
            }

            fn visit_u64<E>(self, _: u64) -> Result<bool, E> {
                Ok(true)
            }

            fn visit_i64<E>(self, _: i64) -> Result<bool, E> {
                Ok(true)
            }

            fn visit_f64<E>(self, _: f64) -> Result<bool, E> {
                Ok(true)
            }

            fn visit_str<E>(self, text: &str) -> Result<bool, E> {
                Ok(!text.is_empty())
            }

            fn visit_unit<E>(self) -> Result<bool, E> {
                Ok(false)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut all: A) -> Result<bool, A::Error> {
                let mut any = false;
                while all.next_element::<IgnoredAny>()?.is_some() {
                    any = true;
                }
                Ok(any)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut all: A) -> Result<bool, A::Error> {
                let mut any = false;
                while all.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
                    any = true;
                }
                Ok(any)
            }
        }

        from.deserialize_any(Reader).map(Presence)
    }
}

/// The `usage` of OpenAI and compatible servers.
#[derive(Debug, serde::Deserialize)]
pub(super) struct Counts {
    #[serde(default)]
    prompt_tokens: Count,
    #[serde(default)]
    completion_tokens: Count,
    #[serde(default)]
    total_tokens: Count,
    #[serde(default)]
    prompt_tokens_details: LenientObject<InputDetails>,
    #[serde(default)]
    completion_tokens_details: LenientObject<OutputDetails>,
}

#[derive(Debug, Default, serde::Deserialize)]
struct InputDetails {
    #[serde(default)]
    cached_tokens: Count,
    #[serde(default)]
    cache_write_tokens: Count,
}

#[derive(Debug, Default, serde::Deserialize)]
struct OutputDetails {
    #[serde(default)]
    reasoning_tokens: Count,
}

impl Counts {
    /// Returns whether all counts are missing.
    pub(super) fn is_empty(&self) -> bool {
        let counts = [self.prompt_tokens, self.completion_tokens];
        counts.iter().all(|count| *count == Count::Missing)
    }

    /// Returns whether all counts are zero or missing, which no answered call can have.
    pub(super) fn is_zero(&self) -> bool {
        let counts = [self.prompt_tokens, self.completion_tokens, self.total_tokens];
        counts.iter().all(|count| matches!(count, Count::Missing | Count::Known(0)))
    }

    /// Converts the counts to [`Usage`]; `None` if a count is missing or not credible.
    pub(super) fn usage(&self) -> Option<Usage> {
        let input = self.prompt_tokens.required()?;
        let completion = self.completion_tokens.required()?;
        // Some servers count reasoning neither as prompt nor as completion, only in the total.
        let uncounted = self.total_tokens.or_zero()?.saturating_sub(input.saturating_add(completion));
        let input_details = self.prompt_tokens_details.0.as_ref();
        let cached = input_details.map_or(Some(0), |details| details.cached_tokens.or_zero())?;
        let cache_write = input_details.map_or(Some(0), |details| details.cache_write_tokens.or_zero())?;
        let output_details = self.completion_tokens_details.0.as_ref();
        let reasoning = output_details.map_or(Some(0), |details| details.reasoning_tokens.or_zero())?;
        let usage = Usage {
            input: Tokens(input),
            cached: Tokens(cached),
            cache_write: Tokens(cache_write),
            output: Tokens(completion.saturating_add(uncounted)),
            reasoning: Tokens(reasoning.max(uncounted)),
        };
        usage.credible()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(json: &str) -> Option<Usage> {
        serde_json::from_str::<Counts>(json).unwrap().usage()
    }

    #[test]
    fn reasoning_counted_only_in_the_total_is_output() {
        let usage = usage(r#"{"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 115}"#).unwrap();
        assert_eq!((usage.input, usage.output, usage.reasoning), (Tokens(10), Tokens(105), Tokens(100)));
    }

    #[test]
    fn invalid_counts_are_unknown() {
        assert_eq!(usage("{}"), None);
        assert_eq!(usage(r#"{"prompt_tokens": null, "total_tokens": 5}"#), None);
        assert_eq!(usage(r#"{"prompt_tokens": -1, "completion_tokens": "many"}"#), None);
        let huge =
            usage(r#"{"prompt_tokens": 18446744073709551615, "completion_tokens": 18446744073709551615}"#);
        assert_eq!(huge, None);
        assert_eq!(usage(r#"{"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 1e19}"#), None);
    }

    #[test]
    fn a_missing_count_makes_the_usage_unknown() {
        assert_eq!(usage(r#"{"prompt_tokens": 10}"#), None);
        assert_eq!(usage(r#"{"completion_tokens": 10, "prompt_tokens": null}"#), None);
    }

    #[test]
    fn cached_tokens_above_the_prompt_are_clamped() {
        let json = r#"{"prompt_tokens": 10, "completion_tokens": 5,
            "prompt_tokens_details": {"cached_tokens": 18446744073709551615}}"#;
        assert_eq!(usage(json).unwrap().cached, Tokens(10));
    }

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
}
