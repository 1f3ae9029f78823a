//! Tests of tool calls, reasoning and signatures.

use std::fmt::Write as _;

use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::{Value, json};

use super::tests::usage;
use super::*;
use crate::types::{
    Charged, FinishReason as Reason, LengthLimit, Message, Part, Reasoning, Role, Signature, Tool, ToolCall,
    ToolResult,
};
use crate::wire::fixtures;
use crate::wire::gemini::encode;

const FIXTURES: [&str; 8] = [
    "response",
    "response_function_call",
    "response_malformed_function_call",
    "response_max_tokens_no_parts",
    "response_prompt_blocked",
    "response_recitation",
    "response_safety",
    "response_thought_part",
];

fn prompt() -> Prompt {
    Prompt::text("Is it in Arden?").with_tool(Tool::new("shelf_lookup", json!({ "type": "object" })))
}

fn decode_body(prompt: &Prompt, body: &str) -> Result<Completion, Failure> {
    let mut decoder = Decoder::new(prompt, &Dialect::default());
    decoder.push_body(body.as_bytes())?;
    decoder.finish()
}

fn decode_stream(prompt: &Prompt, chunks: &[String]) -> Result<Completion, Failure> {
    let mut decoder = Decoder::new(prompt, &Dialect::default());
    for chunk in chunks {
        decoder.push_event(None, chunk)?;
    }
    decoder.finish()
}

/// Decodes one chunk with these parts and this finish reason.
fn decode_parts(prompt: &Prompt, parts: &Value, reason: &str) -> Result<Completion, Failure> {
    let candidate = json!({ "content": { "parts": parts }, "finishReason": reason, "finishMessage": "why" });
    decode_body(prompt, &json!({ "candidates": [candidate] }).to_string())
}

fn fixture(name: &str) -> String {
    String::from_utf8(fixtures::bytes(&format!("gemini_generate_{name}.json"))).unwrap()
}

fn sign(value: &str) -> Signature {
    Signature::new(Format::Gemini, value)
}

fn signed(text: &str, signature: &str) -> Part {
    Part::Reasoning(Reasoning::new(text).with_signature(sign(signature)))
}

fn call(id: &str, arguments: &str) -> Part {
    Part::ToolCall(ToolCall::new(id, "shelf_lookup", arguments))
}

#[test]
fn a_recorded_tool_call_is_decoded_with_its_signature() {
    let completion = decode_body(&prompt(), &fixture("response_function_call")).unwrap();
    let expected = ToolCall::new("fc1", "shelf_lookup", r#"{"branch":"Arden"}"#);
    assert_eq!(completion.parts, [Part::ToolCall(expected.with_signature(sign("Zml4dHVyZQ==")))]);
    assert_eq!(
        (&*completion.text, completion.finish_reason, completion.usage),
        ("", Reason::ToolCalls, Some(usage(50, 32, 20)))
    );
}

#[test]
fn a_recorded_conversation_with_a_tool_is_continued() {
    let question = Prompt::text("Is it in Arden?");
    let answer = decode_body(&prompt(), &fixture("response_function_call")).unwrap();
    let result = ToolResult::new("fc1", r#"{"copies":2}"#);
    let next = question.with_message(answer.message()).with_message(Message::tool([result]));
    let request = encode(&next, "gemini-3.8-flash", &Dialect::default()).unwrap();
    let sent: Value = serde_json::from_slice(&request.body).unwrap();
    assert_eq!(sent, fixtures::json("gemini_generate_request_function_response.json"));
}

#[test]
fn recorded_reasoning_is_a_part_if_the_request_keeps_it() {
    let kept = Prompt::text("When?").with_keep_reasoning(true);
    let completion = decode_body(&kept, &fixture("response_thought_part")).unwrap();
    assert_eq!(
        completion.parts,
        [Part::Reasoning(Reasoning::new("Checking the year.")), Part::text("1987.")]
    );
    assert_eq!((&*completion.text, &*completion.reasoning()), ("1987.", "Checking the year."));
    let completion = decode_body(&Prompt::text("When?"), &fixture("response_thought_part")).unwrap();
    assert_eq!((&*completion.text, completion.parts), ("1987.", vec![]));
}

#[test]
fn a_recorded_response_is_the_same_as_a_stream_and_as_a_body() {
    for name in FIXTURES {
        for prompt in [prompt(), prompt().with_length_limit(LengthLimit::Return), Prompt::text("x")] {
            let body = fixture(name);
            let streamed = decode_stream(&prompt, std::slice::from_ref(&body));
            assert_eq!(streamed, decode_body(&prompt, &body), "{name}");
        }
    }
}

#[test]
fn a_signature_belongs_to_its_part() {
    let parts = json!([
        { "text": "Let me ", "thought": true },
        { "text": "look.", "thought": true },
        { "text": "", "thought": true, "thoughtSignature": "s1" },
        { "text": "More.", "thought": true, "thoughtSignature": "s2" },
        { "text": "I " },
        { "text": "ask.", "thoughtSignature": "s3" },
        { "text": "Hm.", "thought": true },
        { "functionCall": { "id": "a", "name": "shelf_lookup", "args": {} }, "thoughtSignature": "s4" },
        { "functionCall": { "id": "b", "name": "shelf_lookup" } },
        { "text": "", "thoughtSignature": "s5" },
    ]);
    let completion = decode_parts(&prompt(), &parts, "STOP").unwrap();
    let with_signature = ToolCall::new("a", "shelf_lookup", "{}").with_signature(sign("s4"));
    let expected = [
        signed("Let me look.", "s1"),
        signed("More.", "s2"),
        Part::text("I ask."),
        signed("", "s3"),
        Part::Reasoning(Reasoning::new("Hm.")),
        Part::ToolCall(with_signature),
        call("b", "{}"),
        signed("", "s5"),
    ];
    assert_eq!(completion.parts, expected);
    // The next request repeats each signature with its part.
    let next = prompt().with_message(completion.message());
    let request = encode(&next, "gemini-3.8-flash", &Dialect::default()).unwrap();
    let mut sent: Value = serde_json::from_slice(&request.body).unwrap();
    assert_eq!(
        sent["contents"][1]["parts"].take(),
        json!([
            { "text": "Let me look.", "thought": true, "thoughtSignature": "s1" },
            { "text": "More.", "thought": true, "thoughtSignature": "s2" },
            { "text": "I ask.", "thoughtSignature": "s3" },
            { "functionCall": { "id": "a", "name": "shelf_lookup", "args": {} }, "thoughtSignature": "s4" },
            { "functionCall": { "id": "b", "name": "shelf_lookup", "args": {} } },
            { "text": "", "thoughtSignature": "s5" },
        ])
    );
}

#[test]
fn calls_without_ids_get_ids_that_the_conversation_does_not_have() {
    let parts = json!([
        { "functionCall": { "name": "shelf_lookup", "args": { "branch": "Arden" } } },
        { "functionCall": { "name": "shelf_lookup", "args": { "branch": "Dale" } } },
    ]);
    let first = decode_parts(&prompt(), &parts, "STOP").unwrap();
    let expected =
        [call("pointsman_call_0", r#"{"branch":"Arden"}"#), call("pointsman_call_1", r#"{"branch":"Dale"}"#)];
    assert_eq!(first.parts, expected);
    let results = ["pointsman_call_0", "pointsman_call_1"].map(|id| ToolResult::new(id, "0 copies"));
    let next = prompt().with_message(first.message()).with_message(Message::tool(results));
    let second = decode_parts(&next, &parts, "STOP").unwrap();
    let ids: Vec<_> = second.tool_calls().map(|call| &*call.id).collect();
    assert_eq!(ids, ["pointsman_call_2", "pointsman_call_3"]);
    assert_eq!(next.with_message(second.message()).check(), Ok(()));
}

#[test]
fn arguments_keep_their_order_and_their_characters() {
    let body = r#"{"candidates":[{"content":{"parts":[{"functionCall":{"id":"a","name":"shelf_lookup",
        "args":{"z":[1,-2.5,18446744073709551615,null],"a":"\u00e9\n\ud83c\udf0a \ud83c"}}}]},"finishReason":"STOP"}]}"#;
    let completion = decode_body(&prompt(), body).unwrap();
    let expected = "{\"z\":[1,-2.5,18446744073709551615,null],\"a\":\"é\\n🌊 \u{fffd}\"}";
    assert_eq!(completion.parts, [call("a", expected)]);
}

#[test]
fn arguments_that_are_no_object_make_the_answer_invalid() {
    for arguments in [json!([]), json!("x"), json!(7), json!(true)] {
        let parts = json!([{ "functionCall": { "id": "a", "name": "shelf_lookup", "args": arguments } }]);
        let failure = decode_parts(&prompt(), &parts, "STOP").unwrap_err();
        assert_eq!(
            (failure.class, failure.scope),
            (Class::ValidationError, FailureScope::Answer),
            "{arguments}"
        );
    }
    let pieces =
        json!([{ "functionCall": { "name": "shelf_lookup", "partialArgs": [{ "jsonPath": "$.a" }] } }]);
    let failure = decode_parts(&prompt(), &pieces, "STOP").unwrap_err();
    assert_eq!((failure.class, failure.charged), (Class::Unreadable, Charged::Maybe));
}

#[test]
fn an_unoffered_call_is_ignored_beside_text_and_invalid_without_it() {
    let call = json!({ "functionCall": { "id": "a", "name": "clock", "args": {} } });
    let beside_text = decode_parts(&prompt(), &json!([{ "text": "Noon." }, call]), "STOP").unwrap();
    assert_eq!(beside_text, Completion::new("Noon."));
    let failure = decode_parts(&prompt(), &json!([call]), "STOP").unwrap_err();
    assert_eq!(
        (failure.class, failure.scope, failure.charged),
        (Class::ValidationError, FailureScope::Answer, Charged::Maybe)
    );
}

#[test]
fn a_call_that_the_vendor_rejects_makes_the_answer_invalid() {
    for reason in ["MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "TOO_MANY_TOOL_CALLS"] {
        let failure = decode_parts(&prompt(), &json!([{ "text": "I look." }]), reason).unwrap_err();
        assert_eq!(
            (failure.class, failure.scope, failure.charged),
            (Class::ValidationError, FailureScope::Answer, Charged::Maybe)
        );
        assert_eq!(failure.cause, Some(Cause::InvalidToolCall));
        assert!(failure.message.ends_with(&format!("({reason}): why")), "{failure}");
        assert_eq!((failure.code.as_deref(), failure.text.as_deref()), (Some(reason), Some("I look.")));
    }
}

#[test]
fn a_cut_answer_fails_or_is_returned_with_its_complete_calls() {
    let parts = json!([
        { "text": "Low ti" },
        { "functionCall": { "id": "a", "name": "shelf_lookup" } },
    ]);
    let failure = decode_parts(&prompt(), &parts, "MAX_TOKENS").unwrap_err();
    assert_eq!((failure.class, failure.code.as_deref()), (Class::Truncated, Some("MAX_TOKENS")));
    assert_eq!(failure.text.as_deref(), Some("Low ti"));
    let returned = prompt().with_length_limit(LengthLimit::Return);
    let completion = decode_parts(&returned, &parts, "MAX_TOKENS").unwrap();
    assert_eq!((&*completion.text, completion.finish_reason), ("Low ti", Reason::Length));
    assert_eq!(completion.parts, [Part::text("Low ti"), call("a", "{}")]);
    let no_parts = decode_body(&returned, &fixture("response_max_tokens_no_parts")).unwrap();
    assert_eq!((&*no_parts.text, no_parts.finish_reason), ("", Reason::Length));
    assert_eq!(no_parts.usage, Some(usage(50, 396, 396)));
}

#[test]
fn a_call_after_the_finish_reason_is_a_failure_unless_every_chunk_has_one() {
    let chunk = |part: &Value, reason: Option<&str>| {
        json!({ "candidates": [{ "content": { "parts": [part] }, "finishReason": reason }] }).to_string()
    };
    let text = json!({ "text": "I look." });
    let call = json!({ "functionCall": { "id": "a", "name": "shelf_lookup", "args": {} } });
    let decode = |first, second| {
        let chunks = [chunk(&text, first), chunk(&call, second)];
        decode_stream(&prompt(), &chunks)
            .map(|completion| completion.parts.len())
            .map_err(|failure| failure.class)
    };
    assert_eq!(decode(None, Some("STOP")), Ok(2));
    assert_eq!(decode(Some("STOP"), Some("STOP")), Ok(2));
    assert_eq!(decode(Some("STOP"), None), Err(Class::Unreadable));
}

#[test]
fn the_usage_of_a_call_needs_its_output_tokens() {
    let parts = json!([{ "functionCall": { "id": "a", "name": "shelf_lookup", "args": {} } }]);
    let candidate = json!({ "content": { "parts": parts }, "finishReason": "STOP" });
    let counts = json!({ "promptTokenCount": 5 });
    let body = json!({ "candidates": [candidate], "usageMetadata": counts }).to_string();
    assert_eq!(decode_body(&prompt(), &body).unwrap().usage, None);
}

/// A part of a random answer.
#[derive(Debug, Clone)]
enum Item {
    Text { text: String, is_thought: bool, signature: Option<u8> },
    Call { name: &'static str, has_id: bool, argument: String, signature: Option<u8> },
}

fn item() -> impl Strategy<Value = Item> {
    let signature = || prop::option::of(any::<u8>());
    prop_oneof![
        3 => (any::<String>(), any::<bool>(), signature())
            .prop_map(|(text, is_thought, signature)| Item::Text { text, is_thought, signature }),
        1 => (prop::sample::select(vec!["shelf_lookup", "clock"]), any::<bool>(), any::<String>(), signature())
            .prop_map(|(name, has_id, argument, signature)| Item::Call { name, has_id, argument, signature }),
    ]
}

/// Returns a string of JSON with each UTF-16 unit escaped.
fn escaped(units: &[u16]) -> String {
    let mut json = String::from("\"");
    for unit in units {
        write!(json, "\\u{unit:04x}").unwrap();
    }
    json + "\""
}

impl Item {
    /// Returns the part in JSON; a text is cut into pieces, of which the last one has the signature.
    fn pieces(&self, number: usize, cuts: &[Index]) -> Vec<String> {
        let add = |json: String, signature: Option<u8>| match signature {
            Some(value) => format!("{{{json},\"thoughtSignature\":\"s{value}\"}}"),
            None => format!("{{{json}}}"),
        };
        match self {
            Self::Call { name, has_id, argument, signature } => {
                let id = has_id.then(|| format!("c{number}"));
                let call = json!({ "id": id, "name": name, "args": { "a": argument } });
                vec![add(format!("\"functionCall\":{call}"), *signature)]
            }
            Self::Text { text, is_thought, signature } => {
                let units: Vec<u16> = text.encode_utf16().collect();
                let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(units.len() + 1)).collect();
                cuts.extend([0, units.len()]);
                cuts.sort_unstable();
                let last = cuts.len() - 2;
                let piece = |(at, cut): (usize, &[usize])| {
                    let text = escaped(&units[cut[0]..cut[1]]);
                    add(format!("\"text\":{text},\"thought\":{is_thought}"), signature.filter(|_| at == last))
                };
                cuts.windows(2).enumerate().map(piece).collect()
            }
        }
    }
}

fn chunk(parts: &[String], is_last: bool) -> String {
    let content = format!("\"content\":{{\"parts\":[{}],\"role\":\"model\"}}", parts.join(","));
    let counts = r#""usageMetadata":{"promptTokenCount":5,"candidatesTokenCount":7}"#;
    if is_last {
        format!("{{\"candidates\":[{{{content},\"finishReason\":\"STOP\"}}],{counts}}}")
    } else {
        format!("{{\"candidates\":[{{{content}}}]}}")
    }
}

proptest! {
    #[test]
    fn a_stream_cut_anywhere_gives_the_answer_of_the_whole_body(
        items in prop::collection::vec(item(), 0..6),
        cuts in prop::collection::vec(any::<Index>(), 0..3),
        chunk_length in 1usize..4,
        keep in any::<bool>(),
    ) {
        let all = |cuts: &[Index]| -> Vec<String> {
            items.iter().enumerate().flat_map(|(number, item)| item.pieces(number, cuts)).collect()
        };
        let prompt = if keep { prompt() } else { Prompt::text("x") };
        let whole = decode_body(&prompt, &chunk(&all(&[]), true));
        let pieces = all(&cuts);
        let mut chunks: Vec<String> = pieces.chunks(chunk_length).map(|parts| chunk(parts, false)).collect();
        chunks.push(chunk(&[], true));
        prop_assert_eq!(&decode_stream(&prompt, &chunks), &whole);
        prop_assert_eq!(&decode_body(&prompt, &format!("[{}]", chunks.join(","))), &whole);
        if let Ok(completion) = whole {
            let message = completion.message();
            prop_assert_eq!(message.role, Role::Assistant);
            prop_assert!(encode(&prompt.with_message(message), "m", &Dialect::default()).is_ok());
        }
    }
}
