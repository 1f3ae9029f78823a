//! The JSON structures of a response: an event of a stream, or a complete response.
//!
//! Unknown fields are ignored, and every known field may be missing or null. Texts are borrowed from the bytes.

use serde::Deserialize;

use crate::types::Usage;
use crate::wire::arguments::Arguments;
use crate::wire::bounded_list;
use crate::wire::count::Count;
use crate::wire::lenient::{LenientIndex, LenientObject, LenientText};
use crate::wire::openai_chat::{InputDetails, OutputDetails, TokenCounts};

/// One event of a stream.
#[derive(Debug, Deserialize)]
pub(super) struct Event<'a> {
    #[serde(rename = "type", borrow, default)]
    pub(super) kind: LenientText<'a>,
    #[serde(default)]
    pub(super) output_index: LenientIndex,
    #[serde(default)]
    pub(super) content_index: LenientIndex,
    #[serde(default)]
    pub(super) summary_index: LenientIndex,
    #[serde(borrow, default)]
    pub(super) delta: LenientText<'a>,
    #[serde(borrow, default)]
    pub(super) name: LenientText<'a>,
    #[serde(borrow, default)]
    pub(super) arguments: Arguments<'a>,
    /// Boxed to keep the event small: all events are moved, and most are deltas.
    #[serde(borrow, default)]
    pub(super) item: LenientObject<Box<Item<'a>>>,
    #[serde(borrow, default)]
    pub(super) response: LenientObject<Box<WholeResponse<'a>>>,
}

/// A complete response, or its beginning in the first events of a stream.
#[derive(Debug, Deserialize)]
pub(super) struct WholeResponse<'a> {
    #[serde(borrow, default)]
    pub(super) id: LenientText<'a>,
    #[serde(borrow, default)]
    pub(super) model: LenientText<'a>,
    #[serde(borrow, default)]
    pub(super) status: LenientText<'a>,
    #[serde(borrow, default)]
    pub(super) incomplete_details: LenientObject<IncompleteDetails<'a>>,
    #[serde(borrow, default, deserialize_with = "bounded_list::optional")]
    pub(super) output: Option<Vec<LenientObject<Item<'a>>>>,
    #[serde(default)]
    pub(super) usage: LenientObject<Counts>,
}

#[derive(Debug, Deserialize)]
pub(super) struct IncompleteDetails<'a> {
    #[serde(borrow, default)]
    pub(super) reason: LenientText<'a>,
}

/// An output item: a message, a function call or reasoning. Others are ignored.
#[derive(Debug, Deserialize)]
pub(super) struct Item<'a> {
    #[serde(rename = "type", borrow, default)]
    pub(super) kind: LenientText<'a>,
    #[serde(borrow, default)]
    pub(super) id: LenientText<'a>,
    #[serde(borrow, default)]
    pub(super) call_id: LenientText<'a>,
    #[serde(borrow, default)]
    pub(super) name: LenientText<'a>,
    #[serde(borrow, default)]
    arguments: Arguments<'a>,
    /// The text of a call of a tool that takes free text in place of arguments.
    #[serde(borrow, default)]
    input: Arguments<'a>,
    /// The parts of a message, or the reasoning of an open model.
    #[serde(borrow, default, deserialize_with = "bounded_list::optional")]
    pub(super) content: Option<Vec<LenientObject<ItemPart<'a>>>>,
    #[serde(borrow, default, deserialize_with = "bounded_list::optional")]
    pub(super) summary: Option<Vec<LenientObject<ItemPart<'a>>>>,
    #[serde(borrow, default)]
    pub(super) encrypted_content: LenientText<'a>,
}

/// A part of a message or of reasoning.
#[derive(Debug, Deserialize)]
pub(super) struct ItemPart<'a> {
    #[serde(rename = "type", borrow, default)]
    pub(super) kind: LenientText<'a>,
    #[serde(borrow, default)]
    pub(super) text: LenientText<'a>,
    #[serde(borrow, default)]
    pub(super) refusal: LenientText<'a>,
}

/// The kinds of items that make up an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ItemKind {
    Message,
    FunctionCall,
    Reasoning,
}

impl ItemKind {
    pub(super) const ALL: [Self; 3] = [Self::Message, Self::FunctionCall, Self::Reasoning];
}

/// What an event or an item contains of a function call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call<'t> {
    /// The id that the result of the call repeats.
    pub(super) id: Option<&'t str>,
    /// The id of the item, for servers that send no other.
    pub(super) item_id: Option<&'t str>,
    pub(super) name: Option<&'t str>,
    pub(super) arguments: &'t str,
}

impl Event<'_> {
    /// Returns what the event that ends the arguments of a call repeats of it.
    pub(super) fn call(&self) -> Call<'_> {
        Call { id: None, item_id: None, name: self.name.as_str(), arguments: &self.arguments.0 }
    }
}

impl Item<'_> {
    /// Returns its kind; `None` for an item that is ignored, such as a search of the vendor.
    pub(super) fn kind(&self) -> Option<ItemKind> {
        match self.kind.as_str()? {
            "message" => Some(ItemKind::Message),
            "function_call" | "custom_tool_call" => Some(ItemKind::FunctionCall),
            "reasoning" => Some(ItemKind::Reasoning),
            _ => None,
        }
    }

    /// Returns what it contains of a call.
    pub(super) fn call(&self) -> Call<'_> {
        Call {
            id: self.call_id.as_str(),
            item_id: self.id.as_str(),
            name: self.name.as_str(),
            arguments: if self.arguments.0.is_empty() { &self.input.0 } else { &self.arguments.0 },
        }
    }

    /// Returns the paragraphs of the reasoning: the summary if there is one, or else the text of an open model.
    pub(super) fn reasoning(&self) -> impl Iterator<Item = &str> {
        let summary = texts(self.summary.as_deref());
        let own = if summary.clone().next().is_some() { None } else { self.content.as_deref() };
        summary.chain(texts(own))
    }
}

/// Returns the texts of parts that are not empty.
fn texts<'t>(parts: Option<&'t [LenientObject<ItemPart<'_>>]>) -> impl Iterator<Item = &'t str> + Clone {
    let parts = parts.unwrap_or_default().iter();
    parts.filter_map(|part| part.0.as_ref()?.text.as_str())
}

/// The `usage` of a response.
#[derive(Debug, Deserialize)]
pub(super) struct Counts {
    #[serde(default)]
    input_tokens: Count,
    #[serde(default)]
    output_tokens: Count,
    #[serde(default)]
    total_tokens: Count,
    #[serde(default)]
    input_tokens_details: LenientObject<InputDetails>,
    #[serde(default)]
    output_tokens_details: LenientObject<OutputDetails>,
}

impl Counts {
    /// Converts the counts to [`Usage`]; `None` if a count is missing or not credible.
    pub(super) fn usage(&self) -> Option<Usage> {
        let counts = TokenCounts {
            input: self.input_tokens,
            output: self.output_tokens,
            total: self.total_tokens,
            input_details: &self.input_tokens_details,
            output_details: &self.output_tokens_details,
        };
        counts.usage()
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;
    use crate::types::Tokens;

    fn usage(json: &str) -> Option<Usage> {
        serde_json::from_str::<Counts>(json).unwrap().usage()
    }

    #[test]
    fn counts_are_read_with_their_details() {
        let json = r#"{"input_tokens": 10, "output_tokens": 5, "total_tokens": 15,
            "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 2},
            "output_tokens_details": {"reasoning_tokens": 3}}"#;
        let expected = Usage {
            input: Tokens(10),
            cached: Tokens(4),
            cache_write: Tokens(2),
            cache_write_1h: Tokens(0),
            output: Tokens(5),
            reasoning: Tokens(3),
        };
        assert_eq!(usage(json), Some(expected));
        let uncounted = usage(r#"{"input_tokens": 10, "output_tokens": 5, "total_tokens": 115}"#).unwrap();
        assert_eq!((uncounted.output, uncounted.reasoning), (Tokens(105), Tokens(100)));
    }

    #[test]
    fn invalid_and_missing_counts_are_unknown() {
        for json in [
            "{}",
            r#"{"input_tokens": 10}"#,
            r#"{"input_tokens": null, "output_tokens": 5}"#,
            r#"{"input_tokens": -1, "output_tokens": "many"}"#,
            r#"{"input_tokens": 18446744073709551615, "output_tokens": 18446744073709551615}"#,
        ] {
            assert_eq!(usage(json), None, "{json}");
        }
    }

    #[test]
    fn a_delta_is_borrowed() {
        let event: Event<'_> = serde_json::from_str(r#"{"type":"x","delta":"Low tide."}"#).unwrap();
        assert!(matches!(event.delta, LenientText::Text(Cow::Borrowed("Low tide."))));
    }

    #[test]
    fn values_of_unexpected_types_count_as_missing() {
        let json = r#"{"type":7,"output_index":"2","delta":[1],"item":"x","response":null,"more":{}}"#;
        let event: Event<'_> = serde_json::from_str(json).unwrap();
        assert_eq!((event.kind.as_str(), event.output_index.0), (Some("7"), 2));
        assert!(event.delta.as_str().is_none() && event.item.0.is_none() && event.response.0.is_none());
        let json = r#"{"id":1.5,"output":[null,3,{"type":"message","content":[null,{"text":4}]}],"usage":0}"#;
        let response: WholeResponse<'_> = serde_json::from_str(json).unwrap();
        assert_eq!(response.id.as_str(), Some("1.5"));
        let items: Vec<_> = response.output.unwrap().into_iter().filter_map(|item| item.0?.kind()).collect();
        assert_eq!(items, [ItemKind::Message]);
    }

    #[test]
    fn reasoning_is_the_summary_or_else_the_text() {
        let reasoning = |json: &str| {
            let item: Item<'_> = serde_json::from_str(json).unwrap();
            item.reasoning().collect::<Vec<_>>().join("|")
        };
        let own = r#""content":[{"type":"reasoning_text","text":"c"}]"#;
        assert_eq!(
            reasoning(&format!(r#"{{"summary":[{{"text":"a"}},{{"text":""}},{{"text":"b"}}],{own}}}"#)),
            "a|b"
        );
        assert_eq!(reasoning(&format!(r#"{{"summary":[],{own}}}"#)), "c");
        assert_eq!(reasoning(r#"{"summary":null,"content":null}"#), "");
    }
}
