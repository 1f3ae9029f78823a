//! The tool calls of a response: their pieces, and which call a piece belongs to.
//!
//! OpenAI counts the calls of an answer: each piece of a stream has the index of its call, and only the first piece
//! has the id and the name. Other servers send whole calls, without an index or all with the index 0, or repeat the id
//! in each piece.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use crate::wire::answer::Answer;
use crate::wire::answer_parts::PartialToolCall;
use crate::wire::arguments::Arguments;
use crate::wire::lenient::{LenientIndex, LenientObject, LenientText, skip_object};
use crate::wire::surrogates::restore;

/// The first key of the calls that have no index of their own. It is higher than every index.
const GENERATED_KEYS: u64 = 1 << 63;

/// Maximum number of pieces of tool calls in one chunk or body.
const MAX_PIECES: usize = 10_000;

/// The `tool_calls` of a message.
#[derive(Debug, Default)]
pub(super) struct ToolCallPieces<'a> {
    pub(super) pieces: Vec<ToolCallPiece<'a>>,
    /// Whether the field has a value of any type; null and empty values count as absent.
    pub(super) is_present: bool,
}

impl ToolCallPieces<'_> {
    fn without_pieces(is_present: bool) -> Self {
        Self { pieces: Vec::new(), is_present }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for ToolCallPieces<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Reader;

        impl<'de> Visitor<'de> for Reader {
            type Value = ToolCallPieces<'de>;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("anything")
            }

            fn visit_bool<E>(self, is: bool) -> Result<Self::Value, E> {
                Ok(ToolCallPieces::without_pieces(is))
            }

            fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
                Ok(ToolCallPieces::without_pieces(true))
            }

            fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
                Ok(ToolCallPieces::without_pieces(true))
            }

            fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
                Ok(ToolCallPieces::without_pieces(true))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(ToolCallPieces::without_pieces(!text.is_empty()))
            }

            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(ToolCallPieces::without_pieces(false))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut all: A) -> Result<Self::Value, A::Error> {
                let mut found = ToolCallPieces::default();
                while let Some(piece) = all.next_element::<LenientObject<ToolCallPiece<'de>>>()? {
                    found.is_present = true;
                    if found.pieces.len() >= MAX_PIECES {
                        return Err(A::Error::custom(format!("more than {MAX_PIECES} tool calls at once")));
                    }
                    found.pieces.extend(piece.0.filter(|piece| !piece.is_empty()));
                }
                Ok(found)
            }

            fn visit_map<A: MapAccess<'de>>(self, all: A) -> Result<Self::Value, A::Error> {
                skip_object(all).map(ToolCallPieces::without_pieces)
            }
        }

        from.deserialize_any(Reader)
    }
}

/// A piece of a tool call, or a complete one.
#[derive(Debug, Default, serde::Deserialize)]
pub(super) struct ToolCallPiece<'a> {
    #[serde(default)]
    index: Option<LenientIndex>,
    #[serde(borrow, default)]
    id: LenientText<'a>,
    #[serde(borrow, default)]
    function: LenientObject<FunctionPiece<'a>>,
    #[serde(borrow, default)]
    custom: LenientObject<CustomPiece<'a>>,
}

/// A piece of a called function. Older servers send it alone, as `function_call`.
#[derive(Debug, Default, serde::Deserialize)]
pub(super) struct FunctionPiece<'a> {
    #[serde(borrow, default)]
    name: LenientText<'a>,
    #[serde(borrow, default)]
    arguments: Arguments<'a>,
}

/// A piece of a call with free text in place of arguments.
#[derive(Debug, Default, serde::Deserialize)]
struct CustomPiece<'a> {
    #[serde(borrow, default)]
    name: LenientText<'a>,
    #[serde(borrow, default)]
    input: Arguments<'a>,
}

impl<'a> From<FunctionPiece<'a>> for ToolCallPiece<'a> {
    fn from(function: FunctionPiece<'a>) -> Self {
        Self { index: Some(LenientIndex(0)), function: LenientObject(Some(function)), ..Self::default() }
    }
}

impl ToolCallPiece<'_> {
    pub(super) fn is_empty(&self) -> bool {
        self.id().is_empty() && self.name().is_empty() && self.arguments().is_empty()
    }

    fn id(&self) -> &str {
        self.id.as_str().unwrap_or_default()
    }

    fn name(&self) -> &str {
        let of_function = self.function.0.as_ref().and_then(|function| function.name.as_str());
        let of_custom = || self.custom.0.as_ref().and_then(|custom| custom.name.as_str());
        of_function.or_else(of_custom).unwrap_or_default()
    }

    fn arguments(&self) -> &str {
        let of_function = self.function.0.as_ref().map(|function| &*function.arguments.0);
        let of_custom = || self.custom.0.as_ref().map(|custom| &*custom.input.0);
        of_function.or_else(of_custom).unwrap_or_default()
    }
}

/// Finds the call that a piece belongs to.
#[derive(Debug, Default)]
pub(super) struct CallKeys {
    /// The key of the latest call with an index that an earlier call had.
    by_index: BTreeMap<u64, u64>,
    /// The key of the call of the piece before.
    last: Option<u64>,
    /// The number of keys for calls without an index of their own.
    generated: u64,
}

impl CallKeys {
    /// Adds the pieces of one message to the answer.
    pub(super) fn add(&mut self, answer: &mut Answer, pieces: &[ToolCallPiece<'_>], mark: Option<char>) {
        for (position, piece) in pieces.iter().enumerate() {
            let id = restore(piece.id(), mark);
            let name = restore(piece.name(), mark);
            let key = match piece.index {
                Some(LenientIndex(index)) => self.indexed(answer, index, &id, &name),
                // A message has each of its calls once, so only its first piece can continue a call.
                None => self.unindexed(answer, position == 0, &id, &name),
            };
            self.last = Some(key);
            let call = answer.tool_call(key);
            if call.id.is_empty() {
                call.id = id.into_owned();
            }
            if call.name.is_empty() {
                call.name = name.into_owned();
            }
            call.arguments.push(piece.arguments(), mark);
        }
    }

    fn indexed(&mut self, answer: &mut Answer, index: u64, id: &str, name: &str) -> u64 {
        let index = index & !GENERATED_KEYS;
        let key = self.by_index.get(&index).copied().unwrap_or(index);
        if !begins_another(answer.tool_call(key), id, name) {
            return key;
        }
        let key = self.generate();
        self.by_index.insert(index, key);
        key
    }

    fn unindexed(&mut self, answer: &mut Answer, may_continue: bool, id: &str, name: &str) -> u64 {
        let last = self.last.filter(|_| may_continue);
        let continued = last.filter(|last| {
            let call = answer.tool_call(*last);
            if id.is_empty() { name.is_empty() } else { call.id == id }
        });
        continued.unwrap_or_else(|| self.generate())
    }

    fn generate(&mut self) -> u64 {
        let key = GENERATED_KEYS + self.generated;
        self.generated += 1;
        key
    }
}

/// Returns whether a piece with the index of `call` begins another call: a server that does not count its calls
/// sends each one whole, with its name.
fn begins_another(call: &PartialToolCall, id: &str, name: &str) -> bool {
    let differs = |known: &str, sent: &str| !known.is_empty() && known != sent;
    let has_ids = !call.id.is_empty() && !id.is_empty();
    !name.is_empty() && if has_ids { differs(&call.id, id) } else { differs(&call.name, name) }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::types::{Format, Prompt, ToolCall, VendorFields};
    use crate::wire::Dialect;
    use crate::wire::answer_rules::AnswerRules;

    /// Returns the calls of messages with these `tool_calls`.
    fn calls(messages: &[Value]) -> Vec<ToolCall> {
        let mut answer = Answer::default();
        let mut keys = CallKeys::default();
        for message in messages {
            let text = message.to_string();
            let read: ToolCallPieces<'_> = serde_json::from_str(&text).unwrap();
            keys.add(&mut answer, &read.pieces, None);
        }
        let any_tool = json!({ "tools": [] }).as_object().cloned().unwrap();
        let prompt = Prompt::text("x").with_vendor_fields(VendorFields::new(Format::Openai, any_tool));
        let rules = AnswerRules::of(&prompt, Format::Openai, &Dialect::default());
        answer.complete(&rules, false).unwrap().tool_calls().cloned().collect()
    }

    fn two_calls() -> [ToolCall; 2] {
        [ToolCall::new("1", "a", r#"{"x":1}"#), ToolCall::new("2", "b", r#"{"y":2}"#)]
    }

    fn whole(index: Option<u64>, id: &str, name: &str, arguments: &str) -> Value {
        let function = json!({ "name": name, "arguments": arguments });
        let mut call = json!({ "id": id, "type": "function", "function": function });
        if let Some(index) = index {
            call["index"] = json!(index);
        }
        call
    }

    #[test]
    fn pieces_are_joined_by_their_index() {
        let piece = |index: u64, text: &str| json!({ "index": index, "function": { "arguments": text } });
        let read = calls(&[
            json!([whole(Some(0), "1", "a", "")]),
            json!([piece(0, "{\"x\"")]),
            json!([whole(Some(1), "2", "b", "{\"y\""), piece(0, ":1}")]),
            json!([piece(1, ":2}")]),
        ]);
        assert_eq!(read, two_calls());
    }

    #[test]
    fn whole_calls_need_no_index_of_their_own() {
        let first = |index| whole(index, "1", "a", r#"{"x":1}"#);
        let second = |index| whole(index, "2", "b", r#"{"y":2}"#);
        for index in [None, Some(0), Some(u64::MAX)] {
            assert_eq!(calls(&[json!([first(index), second(index)])]), two_calls(), "{index:?}");
            assert_eq!(calls(&[json!([first(index)]), json!([second(index)])]), two_calls(), "{index:?}");
        }
        let unnamed = |name: &str, arguments: &str| whole(Some(0), "", name, arguments);
        let read = calls(&[json!([unnamed("a", r#"{"x":1}"#)]), json!([unnamed("b", r#"{"y":2}"#)])]);
        assert_eq!(read.iter().map(|call| &*call.name).collect::<Vec<_>>(), ["a", "b"]);
        // Two calls of one message are two calls even with the same id.
        let same = || whole(None, "1", "a", r#"{"x":1}"#);
        assert_eq!(calls(&[json!([same(), same()])]).len(), 2);
    }

    #[test]
    fn an_id_and_a_name_may_be_repeated() {
        for index in [None, Some(0)] {
            let read = calls(&[
                json!([whole(index, "1", "a", "{\"x\"")]),
                json!([whole(index, "1", "a", ":")]),
                json!([whole(index, "1", "", "1}")]),
            ]);
            assert_eq!(read, two_calls()[..1], "{index:?}");
        }
        let without_index = json!([{ "function": { "arguments": ":1}" } }]);
        assert_eq!(calls(&[json!([whole(None, "1", "a", "{\"x\"")]), without_index]), two_calls()[..1]);
        // Some servers generate an id for every piece.
        let other_id = json!([{ "index": 0, "id": "7", "function": { "arguments": ":1}" } }]);
        assert_eq!(calls(&[json!([whole(Some(0), "1", "a", "{\"x\"")]), other_id]), two_calls()[..1]);
    }

    #[test]
    fn arguments_may_be_json_itself() {
        let call = json!([{ "id": 1, "function": { "name": "a", "arguments": { "x": 1 } } }]);
        assert_eq!(calls(&[call]), two_calls()[..1]);
        let none = json!([{ "id": "1", "function": { "name": "a", "arguments": null } }]);
        assert_eq!(calls(&[none]), [ToolCall::new("1", "a", "{}")]);
    }

    #[test]
    fn a_custom_call_has_its_name_and_its_input() {
        let call = json!([{ "id": "1", "type": "custom", "custom": { "name": "a", "input": "{\"x\":1}" } }]);
        assert_eq!(calls(&[call]), two_calls()[..1]);
    }

    #[test]
    fn other_values_count_as_present_only() {
        for (json, is_present) in [
            ("null", false),
            ("[]", false),
            ("{}", false),
            ("false", false),
            (r#""""#, false),
            ("0", true),
            (r#""x""#, true),
            (r#"{"a":1}"#, true),
            (r#"[null,7,"x",[],{},{"index":3}]"#, true),
        ] {
            let read = serde_json::from_str::<ToolCallPieces<'_>>(json).unwrap();
            assert_eq!((read.is_present, read.pieces.len()), (is_present, 0), "{json}");
        }
    }
}
