//! Property tests: no input causes a panic or is accepted as an answer by mistake.

use std::time::SystemTime;

use bytes::Bytes;
use http::HeaderMap;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::types::{Completion, Failure, FinishReason, Format, Prompt, ToolCall};
use crate::wire::Dialect;

use super::request::vendor_fields;
use super::tool_calls::with_shelf_lookup;
use super::{decode_body, decode_events, decode_events_for, events, events_in_pieces, fixture, read};

/// A request that offers every tool and keeps the reasoning.
fn with_any_tool() -> Prompt {
    Prompt::text("x").with_keep_reasoning(true).with_vendor_fields(vendor_fields(&json!({ "tools": [] })))
}

/// Returns whether each call of an answer has an id and JSON arguments, and the finish reason is that of its calls.
fn is_sound(answer: &Result<Completion, Failure>) -> bool {
    let Ok(answer) = answer else { return true };
    let is_object =
        |call: &ToolCall| serde_json::from_str::<Value>(&call.arguments).is_ok_and(|read| read.is_object());
    let has_calls = answer.tool_calls().next().is_some();
    let expected = if has_calls { FinishReason::ToolCalls } else { FinishReason::Stop };
    answer.finish_reason == expected && answer.tool_calls().all(|call| !call.id.is_empty() && is_object(call))
}

/// JSON that resembles a response and is not valid.
fn near_miss_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "stop|length|error|tool_calls|\\{\\}|\\PC{0,8}".prop_map(Value::from),
    ];
    let key = prop_oneof![
        Just("choices"),
        Just("delta"),
        Just("message"),
        Just("content"),
        Just("finish_reason"),
        Just("index"),
        Just("error"),
        Just("code"),
        Just("type"),
        Just("detail"),
        Just("loc"),
        Just("usage"),
        Just("status"),
        Just("prompt_tokens"),
        Just("total_tokens"),
        Just("reasoning"),
        Just("reasoning_content"),
        Just("refusal"),
        Just("text"),
        Just("tool_calls"),
        Just("function_call"),
        Just("function"),
        Just("custom"),
        Just("id"),
        Just("name"),
        Just("arguments"),
        Just("input"),
    ]
    .prop_map(str::to_owned);
    leaf.prop_recursive(5, 40, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((key.clone(), inner), 0..6)
                .prop_map(|all| Value::Object(all.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn no_event_causes_a_panic(name in prop::option::of("error|message|\\PC*"), data in "\\PC*|data: .*|\\{\"choices\":\\PC*\\}") {
        // Only the absence of a panic is tested.
        let _ = decode_events(&[(name, data)]);
    }

    #[test]
    fn no_json_causes_a_panic(all in prop::collection::vec(near_miss_json(), 1..4), status in 0u16..1000) {
        let texts: Vec<_> = all.iter().map(Value::to_string).collect();
        // Without a finish reason the result is a failure.
        let events: Vec<_> = texts.iter().map(|data| (None, data.clone())).collect();
        let is_finished = texts.iter().any(|data| data.contains("\"finish_reason\""));
        prop_assert!(decode_events(&events).1.is_err() || is_finished);
        let with_tools = decode_events_for(&with_any_tool(), &events).1;
        prop_assert!(with_tools.is_err() || is_finished);
        prop_assert!(is_sound(&with_tools));
        for text in &texts {
            // Only the absence of a panic is tested.
            let _ = decode_body(text, &Prompt::text("x"));
            prop_assert!(is_sound(&decode_body(text, &with_any_tool())));
            prop_assert!(!read(status, text).message.is_empty());
        }
    }

    #[test]
    fn no_body_causes_a_panic(body: Vec<u8>, status in 0u16..1000) {
        let mut decoder = Format::Openai.decoder(&Prompt::text("x"), &Dialect::default());
        prop_assert!(decoder.push_body(&body).is_err() || decoder.finish().is_err());
        let failure = Format::Openai.read_error(status, &HeaderMap::new(), &body, SystemTime::UNIX_EPOCH);
        prop_assert!(!failure.message.is_empty());
    }

    #[test]
    fn a_text_is_decoded_unchanged_from_a_stream(pieces in prop::collection::vec("\\PC{0,20}|[\"\\\\\n\u{2028}]{1,3}", 1..8)) {
        let text = pieces.concat();
        prop_assume!(!text.trim().is_empty());
        let mut data: Vec<_> =
            pieces.iter().map(|piece| json!({ "choices": [{ "index": 0, "delta": { "content": piece } }] }).to_string()).collect();
        data.push(r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#.to_owned());
        data.push("[DONE]".to_owned());
        let events: Vec<_> = data.into_iter().map(|data| (None, data)).collect();
        prop_assert_eq!(decode_events(&events).1.unwrap().text, text);
    }

    #[test]
    fn a_message_with_any_tool_calls_is_decoded_or_refused(calls in near_miss_json(), function in near_miss_json(), reasoning in near_miss_json()) {
        let message = json!({ "tool_calls": [calls.clone(), { "index": 0, "function": function.clone() }], "function_call": function, "reasoning": reasoning });
        let delta = json!({ "choices": [{ "delta": message }] }).to_string();
        let stopped = json!({ "choices": [{ "delta": { "tool_calls": calls }, "finish_reason": "tool_calls" }] }).to_string();
        let events = [delta, stopped, "[DONE]".to_owned()].map(|data| (None, data));
        prop_assert!(is_sound(&decode_events_for(&with_any_tool(), &events).1));
    }

    #[test]
    fn calls_and_reasoning_are_decoded_unchanged_from_interleaved_pieces(
        reasoning in prop::collection::vec("\\PC{0,20}|[\"\\\\\n\u{2028}]{1,3}", 0..4),
        values in prop::collection::vec("\\PC{0,20}|[\"\\\\\n\u{2028}]{1,3}", 1..4),
        size in 1usize..8,
    ) {
        let arguments: Vec<String> = values.iter().map(|value| json!({ "value": value }).to_string()).collect();
        let characters: Vec<Vec<char>> = arguments.iter().map(|text| text.chars().collect()).collect();
        let pieces: Vec<Vec<String>> =
            characters.iter().map(|all| all.chunks(size).map(|piece| piece.iter().collect()).collect()).collect();
        let longest = pieces.iter().map(Vec::len).max().unwrap_or_default();
        let mut deltas: Vec<_> = reasoning.iter().map(|piece| json!({ "reasoning_content": piece })).collect();
        for round in 0..longest {
            for (index, pieces) in pieces.iter().enumerate() {
                let Some(piece) = pieces.get(round) else { continue };
                let mut call = json!({ "index": index, "function": { "arguments": piece } });
                if round == 0 {
                    call["id"] = json!(format!("call_{index}"));
                    call["function"]["name"] = json!("any");
                }
                deltas.push(json!({ "tool_calls": [call] }));
            }
        }
        let mut data: Vec<_> = deltas.iter().map(|delta| json!({ "choices": [{ "index": 0, "delta": delta }] }).to_string()).collect();
        data.extend([r#"{"choices":[{"delta":{},"finish_reason":"tool_calls"}]}"#.to_owned(), "[DONE]".to_owned()]);
        let events: Vec<_> = data.into_iter().map(|data| (None, data)).collect();
        let answer = decode_events_for(&with_any_tool(), &events).1.unwrap();
        let expected: Vec<_> = arguments.iter().enumerate().map(|(index, text)| ToolCall::new(format!("call_{index}"), "any", text.as_str())).collect();
        prop_assert_eq!(answer.tool_calls().cloned().collect::<Vec<_>>(), expected);
        prop_assert_eq!(answer.reasoning(), reasoning.concat());
    }

    #[test]
    fn a_recorded_stream_is_decoded_alike_in_any_pieces(cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12)) {
        for recording in [
            fixture!("openai_chat_stream.sse"),
            fixture!("openai_chat_stream_tool_calls.sse"),
            fixture!("ollama_chat_stream.sse"),
        ] {
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(recording.len() + 1)).collect();
            cuts.extend([0, recording.len()]);
            cuts.sort_unstable();
            let bytes = recording.as_bytes();
            let pieces = cuts.windows(2).map(|cut| Bytes::from_static(&bytes[cut[0]..cut[1]]));
            let pieces = pieces.filter(|piece| !piece.is_empty()).collect();
            let prompt = with_shelf_lookup();
            let at_once = decode_events_for(&prompt, &events(recording)).1;
            prop_assert!(at_once.is_ok());
            prop_assert_eq!(decode_events_for(&prompt, &events_in_pieces(pieces)).1, at_once);
        }
    }
}
