//! A message that arrives in pieces is the same as the complete message.

use super::*;
use crate::types::{LengthLimit, Tool};

/// A content block of a random message.
#[derive(Debug, Clone)]
enum RandomBlock {
    Text(String),
    Thinking {
        text: String,
        signature: String,
    },
    Redacted(String),
    Call {
        name: &'static str,
        arguments: Value,
    },
    /// A tool of the vendor's server.
    Server(Value),
}

impl RandomBlock {
    /// Returns the block in a complete message.
    fn complete(&self, index: usize) -> Value {
        let id = format!("call_{index}");
        match self {
            Self::Text(text) => json!({ "type": "text", "text": text }),
            Self::Thinking { text, signature } => {
                json!({ "type": "thinking", "thinking": text, "signature": signature })
            }
            Self::Redacted(data) => json!({ "type": "redacted_thinking", "data": data }),
            Self::Call { name, arguments } => {
                json!({ "type": "tool_use", "id": id, "name": name, "input": arguments })
            }
            Self::Server(arguments) => {
                json!({ "type": "server_tool_use", "id": id, "name": "search", "input": arguments })
            }
        }
    }

    /// Returns the block as it begins in a stream, and the deltas that follow.
    fn pieces(&self, index: usize, cuts: &[prop::sample::Index]) -> (Value, Vec<Value>) {
        let mut start = self.complete(index);
        let deltas = |kind: &str, field: &str, text: &str| {
            let pieces = cut(text, cuts).into_iter();
            pieces.map(|piece| json!({ "type": kind, field: piece })).collect::<Vec<_>>()
        };
        let pieces = match self {
            Self::Text(text) => {
                start["text"] = json!("");
                deltas("text_delta", "text", text)
            }
            Self::Thinking { text, signature } => {
                start["thinking"] = json!("");
                start["signature"] = json!("");
                let mut pieces = deltas("thinking_delta", "thinking", text);
                pieces.extend(deltas("signature_delta", "signature", signature));
                pieces
            }
            Self::Redacted(_) => Vec::new(),
            Self::Call { arguments, .. } | Self::Server(arguments) => {
                start["input"] = json!({});
                let is_empty = arguments.as_object().is_some_and(serde_json::Map::is_empty);
                let written = if is_empty { String::new() } else { arguments.to_string() };
                deltas("input_json_delta", "partial_json", &written)
            }
        };
        (start, pieces)
    }
}

/// Cuts a text between characters. Some pieces may be empty.
fn cut(text: &str, cuts: &[prop::sample::Index]) -> Vec<String> {
    let letters: Vec<char> = text.chars().collect();
    let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(letters.len() + 1)).collect();
    ends.extend([0, letters.len()]);
    ends.sort_unstable();
    ends.windows(2).map(|ends| letters[ends[0]..ends[1]].iter().collect()).collect()
}

fn arguments() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(json!({})),
        (any::<String>(), any::<i64>()).prop_map(|(city, count)| json!({ "city": city, "count": count })),
        any::<String>().prop_map(|text| json!([text])),
    ]
}

fn block() -> impl Strategy<Value = RandomBlock> {
    prop_oneof![
        any::<String>().prop_map(RandomBlock::Text),
        ("\\PC{0,12}", "[A-Za-z0-9+/]{0,8}")
            .prop_map(|(text, signature)| RandomBlock::Thinking { text, signature }),
        "[A-Za-z0-9+/]{0,8}".prop_map(RandomBlock::Redacted),
        (prop::sample::select(vec!["weather", "clock"]), arguments())
            .prop_map(|(name, arguments)| RandomBlock::Call { name, arguments }),
        arguments().prop_map(RandomBlock::Server),
    ]
}

fn from_body(prompt: &Prompt, blocks: &[RandomBlock], reason: &str) -> Result<Completion, Failure> {
    let content: Vec<Value> = blocks.iter().enumerate().map(|(index, block)| block.complete(index)).collect();
    let body = json!({
        "id": "msg_1", "model": "m", "content": content, "stop_reason": reason,
        "usage": { "input_tokens": 3, "output_tokens": 4 },
    });
    let mut decoder = Decoder::new(prompt, &Dialect::default());
    decoder.push_body(body.to_string().as_bytes())?;
    decoder.finish()
}

fn from_stream(
    prompt: &Prompt,
    blocks: &[RandomBlock],
    cuts: &[prop::sample::Index],
    reason: &str,
) -> Result<Completion, Failure> {
    let usage = json!({ "input_tokens": 3, "output_tokens": 1 });
    let message = json!({ "id": "msg_1", "model": "m", "content": [], "usage": usage });
    let mut events = vec![json!({ "type": "message_start", "message": message })];
    for (index, block) in blocks.iter().enumerate() {
        let (start, deltas) = block.pieces(index, cuts);
        events.push(json!({ "type": "content_block_start", "index": index, "content_block": start }));
        for delta in deltas {
            events.push(json!({ "type": "ping" }));
            events.push(json!({ "type": "content_block_delta", "index": index, "delta": delta }));
        }
        events.push(json!({ "type": "content_block_stop", "index": index }));
    }
    let usage = json!({ "output_tokens": 4 });
    events.push(json!({ "type": "message_delta", "delta": { "stop_reason": reason }, "usage": usage }));
    events.push(json!({ "type": "message_stop" }));
    let mut decoder = Decoder::new(prompt, &Dialect::default());
    for event in events {
        decoder.push_event(None, &event.to_string())?;
    }
    decoder.finish()
}

proptest! {
    #[test]
    fn a_stream_in_any_pieces_gives_the_answer_of_the_complete_message(
        blocks in prop::collection::vec(block(), 0..6),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..5),
        reason in prop::sample::select(vec![
            "end_turn", "stop_sequence", "tool_use", "max_tokens", "refusal", "pause_turn", "newer",
        ]),
        has_tool in any::<bool>(),
        keep_reasoning in any::<bool>(),
        returns_cut_answers in any::<bool>(),
    ) {
        let mut prompt = Prompt::text("x").with_keep_reasoning(keep_reasoning);
        if has_tool {
            prompt = prompt.with_tool(Tool::new("weather", json!({ "type": "object" })));
        }
        if returns_cut_answers {
            prompt = prompt.with_length_limit(LengthLimit::Return);
        }
        prop_assert_eq!(from_stream(&prompt, &blocks, &cuts, reason), from_body(&prompt, &blocks, reason));
    }
}
