//! The pieces of a reply as they lie on the wire: a chunk of a stream, or the whole at once.
//!
//! Unknown fields are ignored and every known one may be missing or null. Texts are borrowed from
//! the bytes; nothing here decides what a piece means.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::types::{Tokens, Usage};
use crate::wire::count::Count;
use crate::wire::lenient::{Index, Label, Object, number};

/// One `data:` of a stream, or the body of a reply without a stream.
#[derive(Debug, serde::Deserialize)]
pub(super) struct Chunk<'a> {
    #[serde(borrow, default)]
    pub(super) id: Label<'a>,
    #[serde(borrow, default)]
    pub(super) model: Label<'a>,
    /// Empty in the chunk that carries the usage; missing in what is no chunk at all.
    #[serde(borrow, default)]
    pub(super) choices: Option<First<'a>>,
    /// Boxed, as what follows is: one piece of a stream has it, and all are moved about.
    #[serde(default)]
    pub(super) usage: Object<Box<Counts>>,
    #[serde(default)]
    pub(super) error: Sign,
}

/// The first of the answers, which is the only one that was asked for; the others are left out.
#[derive(Debug)]
pub(super) struct First<'a>(pub(super) Option<Choice<'a>>);

impl<'de: 'a, 'a> Deserialize<'de> for First<'a> {
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

        from.deserialize_seq(Reader).map(First)
    }
}

/// One of the answers asked for; we only ever ask for one.
#[derive(Debug, serde::Deserialize)]
pub(super) struct Choice<'a> {
    #[serde(default)]
    pub(super) index: Index,
    #[serde(borrow, default)]
    pub(super) delta: Option<Said<'a>>,
    #[serde(borrow, default)]
    pub(super) message: Option<Box<Said<'a>>>,
    #[serde(borrow, default)]
    pub(super) finish_reason: Label<'a>,
}

/// What the model said in this piece.
#[derive(Debug, serde::Deserialize)]
pub(super) struct Said<'a> {
    #[serde(borrow, default)]
    pub(super) content: Option<Words<'a>>,
    #[serde(borrow, default)]
    pub(super) refusal: Option<Words<'a>>,
    #[serde(default)]
    pub(super) reasoning: Sign,
    #[serde(default)]
    pub(super) reasoning_content: Sign,
    #[serde(default)]
    pub(super) tool_calls: Sign,
    #[serde(default)]
    pub(super) function_call: Sign,
}

/// A text, a number, or the texts of a list of typed parts, as some servers send them.
#[derive(Debug)]
pub(super) struct Words<'a>(pub(super) Cow<'a, str>);

#[derive(serde::Deserialize)]
struct TypedPart<'a> {
    #[serde(borrow, default)]
    r#type: Cow<'a, str>,
    #[serde(borrow, default)]
    text: Cow<'a, str>,
}

impl<'de: 'a, 'a> Deserialize<'de> for Words<'a> {
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
                number(all)?.map(Cow::Owned).ok_or_else(|| A::Error::custom("an object instead of a text"))
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

        from.deserialize_any(Reader).map(Words)
    }
}

/// Whether anything stands here, whatever it is; null and emptiness are nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Sign(pub(super) bool);

impl<'de> Deserialize<'de> for Sign {
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

        from.deserialize_any(Reader).map(Sign)
    }
}

/// `usage`, as OpenAI and its likes count.
#[derive(Debug, serde::Deserialize)]
pub(super) struct Counts {
    #[serde(default)]
    prompt_tokens: Count,
    #[serde(default)]
    completion_tokens: Count,
    #[serde(default)]
    total_tokens: Count,
    #[serde(default)]
    prompt_tokens_details: Object<InputDetails>,
    #[serde(default)]
    completion_tokens_details: Object<OutputDetails>,
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
    /// Returns whether nothing was counted.
    pub(super) fn is_empty(&self) -> bool {
        let counts = [self.prompt_tokens, self.completion_tokens];
        counts.iter().all(|count| *count == Count::Missing)
    }

    /// Returns whether nothing was counted but zeros: no call that was answered used nothing.
    pub(super) fn is_zero(&self) -> bool {
        let counts = [self.prompt_tokens, self.completion_tokens, self.total_tokens];
        counts.iter().all(|count| matches!(count, Count::Missing | Count::Known(0)))
    }

    /// Brings the counts to our one form; `None` when one of them is missing or cannot be believed.
    pub(super) fn usage(&self) -> Option<Usage> {
        let input = self.prompt_tokens.needed()?;
        let said = self.completion_tokens.needed()?;
        // Some servers count reasoning neither as prompt nor as completion, only in the total.
        let beside = self.total_tokens.or_zero()?.saturating_sub(input.saturating_add(said));
        let input_details = self.prompt_tokens_details.0.as_ref();
        let cached = input_details.map_or(Some(0), |details| details.cached_tokens.or_zero())?;
        let cache_write = input_details.map_or(Some(0), |details| details.cache_write_tokens.or_zero())?;
        let output_details = self.completion_tokens_details.0.as_ref();
        let reasoning = output_details.map_or(Some(0), |details| details.reasoning_tokens.or_zero())?;
        let usage = Usage {
            input: Tokens(input),
            cached: Tokens(cached),
            cache_write: Tokens(cache_write),
            output: Tokens(said.saturating_add(beside)),
            reasoning: Tokens(reasoning.max(beside)),
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
    fn reasoning_that_only_the_total_knows_is_output() {
        let usage = usage(r#"{"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 115}"#).unwrap();
        assert_eq!((usage.input, usage.output, usage.reasoning), (Tokens(10), Tokens(105), Tokens(100)));
    }

    #[test]
    fn senseless_counts_are_unknown_and_spoil_nothing() {
        assert_eq!(usage("{}"), None);
        assert_eq!(usage(r#"{"prompt_tokens": null, "total_tokens": 5}"#), None);
        assert_eq!(usage(r#"{"prompt_tokens": -1, "completion_tokens": "many"}"#), None);
        let huge =
            usage(r#"{"prompt_tokens": 18446744073709551615, "completion_tokens": 18446744073709551615}"#);
        assert_eq!(huge, None);
        assert_eq!(usage(r#"{"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 1e19}"#), None);
    }

    #[test]
    fn a_missing_part_makes_the_usage_unknown() {
        assert_eq!(usage(r#"{"prompt_tokens": 10}"#), None);
        assert_eq!(usage(r#"{"completion_tokens": 10, "prompt_tokens": null}"#), None);
    }

    #[test]
    fn cached_tokens_above_the_prompt_are_clamped() {
        let told = r#"{"prompt_tokens": 10, "completion_tokens": 5,
            "prompt_tokens_details": {"cached_tokens": 18446744073709551615}}"#;
        assert_eq!(usage(told).unwrap().cached, Tokens(10));
    }

    #[test]
    fn content_in_parts_is_joined_and_thinking_left_out() {
        let said: Said<'_> = serde_json::from_str(
            r#"{"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
                {"type": "text", "text": "Low \n"}, {"type": "text", "text": "tide."}]}"#,
        )
        .unwrap();
        assert_eq!(said.content.unwrap().0, "Low \ntide.");
    }

    #[test]
    fn plain_content_is_borrowed() {
        let said: Said<'_> = serde_json::from_str(r#"{"content": "Low tide."}"#).unwrap();
        assert!(matches!(said.content, Some(Words(Cow::Borrowed("Low tide.")))));
    }

    #[test]
    fn emptiness_is_no_sign() {
        for (json, sign) in
            [("null", false), ("[]", false), ("{}", false), ("\"\"", false), ("[null]", true), ("0", true)]
        {
            assert_eq!(serde_json::from_str::<Sign>(json).unwrap(), Sign(sign), "{json}");
        }
    }
}
