//! Tests of tool calls, reasoning, and answers at the length limit.

use super::*;
use crate::types::{FinishReason, LengthLimit, Part, Reasoning, Signature, Tool, ToolCall};

fn tools() -> Prompt {
    let tool = |name: &str| Tool::new(name, json!({ "type": "object" }));
    Prompt::text("x").with_tool(tool("shelf_lookup")).with_tool(tool("weather"))
}

fn complete(prompt: &Prompt, body: &[u8]) -> Result<Completion, Failure> {
    let mut decoder = Decoder::new(prompt, &Dialect::default());
    decoder.push_body(body)?;
    decoder.finish()
}

fn streamed<'e>(prompt: &Prompt, events: impl IntoIterator<Item = &'e str>) -> Result<Completion, Failure> {
    let mut decoder = Decoder::new(prompt, &Dialect::default());
    for data in events {
        decoder.push_event(None, data)?;
    }
    decoder.finish()
}

fn streamed_fixture(prompt: &Prompt, name: &str) -> Result<Completion, Failure> {
    let events = fixtures::events(name);
    streamed(prompt, events.iter().map(|(_, data)| data.as_str()))
}

/// Decodes events followed by the end of a message.
fn ended(prompt: &Prompt, events: &[Value], reason: &str) -> Result<Completion, Failure> {
    let mut events: Vec<String> = events.iter().map(Value::to_string).collect();
    events.insert(0, message_start());
    events.extend([stop_delta(reason), json!({ "type": "message_stop" }).to_string()]);
    streamed(prompt, events.iter().map(String::as_str))
}

fn start(index: u64, block: Value) -> Value {
    json!({ "type": "content_block_start", "index": index, "content_block": block })
}

fn delta(index: u64, delta: Value) -> Value {
    json!({ "type": "content_block_delta", "index": index, "delta": delta })
}

fn call_start(index: u64, id: &str, input: Value) -> Value {
    start(index, json!({ "type": "tool_use", "id": id, "name": "weather", "input": input }))
}

fn arguments_delta(index: u64, piece: &str) -> Value {
    delta(index, json!({ "type": "input_json_delta", "partial_json": piece }))
}

fn call(id: &str, arguments: &str) -> Part {
    Part::ToolCall(ToolCall::new(id, "weather", arguments))
}

fn signed(text: &str, signature: &str) -> Part {
    Part::Reasoning(Reasoning::new(text).with_signature(Signature::new(Format::Anthropic, signature)))
}

#[test]
fn a_recorded_tool_call_is_decoded() {
    let parts = |arguments: &str| {
        let call = ToolCall::new("toolu_01Fix", "shelf_lookup", arguments);
        vec![Part::text("Let me look."), Part::ToolCall(call)]
    };
    let body = fixtures::bytes("anthropic_messages_response_tool_use.json");
    let from_body = complete(&tools(), &body).unwrap();
    let from_stream = streamed_fixture(&tools(), "anthropic_messages_stream_tool_use.sse").unwrap();
    assert_eq!(from_body.parts, parts(r#"{"branch":"Arden"}"#));
    assert_eq!(from_stream.parts, parts(r#"{"branch": "Arden"}"#));
    for completion in [from_body, from_stream] {
        assert_eq!((&*completion.text, completion.finish_reason), ("Let me look.", FinishReason::ToolCalls));
    }
}

#[test]
fn recorded_reasoning_is_decoded_if_the_request_keeps_it() {
    let kept = Prompt::text("x").with_keep_reasoning(true);
    for (prompt, parts) in [
        (kept, vec![signed("Check the year.", "Zml4dHVyZS1zaWduYXR1cmU="), Part::text("1987.")]),
        (Prompt::text("x"), Vec::new()),
    ] {
        let body = fixtures::bytes("anthropic_messages_response_thinking.json");
        let from_body = complete(&prompt, &body).unwrap();
        let from_stream = streamed_fixture(&prompt, "anthropic_messages_stream_thinking.sse").unwrap();
        assert_eq!(from_body.parts, parts);
        assert_eq!(Completion { usage: from_body.usage, ..from_stream }, from_body);
    }
}

#[test]
fn parallel_calls_keep_their_arguments_apart() {
    let events = [
        call_start(1, "a", json!({})),
        arguments_delta(1, "{\"city\":"),
        call_start(7, "b", json!({})),
        arguments_delta(7, ""),
        arguments_delta(1, "\"Bern\"}"),
        call_start(2, "c", json!({})),
        arguments_delta(7, "{\"city\":\"Basel\"}"),
    ];
    let completion = ended(&tools(), &events, "tool_use").unwrap();
    let expected = [call("a", "{\"city\":\"Bern\"}"), call("b", "{\"city\":\"Basel\"}"), call("c", "{}")];
    assert_eq!(completion.parts, expected);
}

#[test]
fn the_arguments_of_the_opening_event_count_unless_pieces_follow() {
    let events = [
        call_start(0, "a", json!({ "city": "Bern" })),
        call_start(1, "b", json!({ "city": "Basel" })),
        arguments_delta(1, "{\"city\":\"Chur\"}"),
        call_start(2, "c", json!("{\"city\":\"Davos\"}")),
    ];
    let completion = ended(&tools(), &events, "tool_use").unwrap();
    let expected = [
        call("a", "{\"city\":\"Bern\"}"),
        call("b", "{\"city\":\"Chur\"}"),
        call("c", "{\"city\":\"Davos\"}"),
    ];
    assert_eq!(completion.parts, expected);
}

#[test]
fn the_arguments_of_the_opening_event_are_passed_on_at_the_end_of_the_block() {
    let mut decoder = Decoder::new(&tools(), &Dialect::default());
    let mut arguments = |event: Value| {
        decoder.push_event(None, &event.to_string()).unwrap();
        let deltas = decoder.take_deltas().into_iter().filter_map(|delta| match delta {
            StreamEvent::ToolCall(delta) => Some(delta.arguments),
            _ => None,
        });
        deltas.collect::<String>()
    };
    let stop = |index: u64| json!({ "type": "content_block_stop", "index": index });
    assert_eq!(arguments(call_start(3, "a", json!({ "city": "Bern" }))), "");
    assert_eq!(arguments(stop(2)), "");
    assert_eq!(arguments(stop(3)), "{\"city\":\"Bern\"}");
    assert_eq!(arguments(call_start(4, "b", json!({ "city": "Basel" }))), "");
    assert_eq!(arguments(json!({ "type": "message_stop" })), "{\"city\":\"Basel\"}");
}

#[test]
fn arguments_that_are_no_object_make_the_answer_invalid() {
    for input in [json!([1]), json!(7), json!("{\"city\":")] {
        let failure = ended(&tools(), &[call_start(0, "a", input)], "tool_use").unwrap_err();
        assert_eq!((failure.class, failure.scope), (Class::ValidationError, FailureScope::Answer));
        assert!(failure.usage.is_some());
    }
}

#[test]
fn the_tools_of_the_vendors_server_are_ignored() {
    let used = json!({ "type": "server_tool_use", "id": "s", "name": "web_search", "input": {} });
    let content = json!([{ "data": [1] }]);
    let result = json!({ "type": "web_search_tool_result", "tool_use_id": "s", "content": content });
    let events = [
        start(0, used.clone()),
        arguments_delta(0, "{\"query\":\"tide\"}"),
        start(1, result.clone()),
        start(2, json!({ "type": "text", "text": "Low tide." })),
    ];
    let from_stream = ended(&tools(), &events, "end_turn").unwrap();
    assert_eq!((&*from_stream.text, &*from_stream.parts), ("Low tide.", &[][..]));
    let body = json!({
        "content": [used, result, { "type": "text", "text": "Low tide." }], "stop_reason": "end_turn",
    });
    assert_eq!(complete(&tools(), body.to_string().as_bytes()).unwrap().text, "Low tide.");
}

#[test]
fn the_reasoning_of_each_block_stays_a_part() {
    let thinking = || json!({ "type": "thinking", "thinking": "", "signature": "" });
    let events = [
        start(0, thinking()),
        delta(0, json!({ "type": "thinking_delta", "thinking": "First" })),
        start(1, thinking()),
        delta(1, json!({ "type": "thinking_delta", "thinking": "Sec" })),
        delta(1, json!({ "type": "thinking_delta", "thinking": "ond" })),
        delta(1, json!({ "type": "signature_delta", "signature": "si" })),
        delta(1, json!({ "type": "signature_delta", "signature": "gn" })),
        start(2, thinking()),
        delta(2, json!({ "type": "signature_delta", "signature": "b21p" })),
        start(3, thinking()),
        start(4, json!({ "type": "redacted_thinking", "data": "aGlk" })),
        start(5, json!({ "type": "redacted_thinking", "data": "ZGVu" })),
        start(6, json!({ "type": "text", "text": "Yes." })),
    ];
    let completion = ended(&tools(), &events, "end_turn").unwrap();
    let redacted = |data: &str| Part::Reasoning(Reasoning::new("").with_signature(Signature::redacted(data)));
    let expected = [
        Part::Reasoning(Reasoning::new("First")),
        signed("Second", "sign"),
        signed("", "b21p"),
        redacted("aGlk"),
        redacted("ZGVu"),
        Part::text("Yes."),
    ];
    assert_eq!(completion.parts, expected);
    assert_eq!((&*completion.text, completion.finish_reason), ("Yes.", FinishReason::Stop));
}

#[test]
fn an_answer_at_the_length_limit_is_returned_if_the_request_wants_it() {
    let prompt = tools().with_length_limit(LengthLimit::Return);
    let body = fixtures::bytes("anthropic_messages_response_max_tokens.json");
    let completion = complete(&prompt, &body).unwrap();
    assert_eq!((&*completion.text, completion.finish_reason), (r#"{"title":"The Sal"#, FinishReason::Length));
    assert_eq!(completion.usage, Some(usage(40, 0, 0, 10, 0)));
    assert_eq!(completion.request_id.as_deref(), Some("msg_01FixtureAAAAAAAAAAAAAAAA"));

    let events = [
        call_start(0, "a", json!({})),
        arguments_delta(0, "{\"city\":\"Bern\"}"),
        call_start(1, "b", json!({})),
        arguments_delta(1, "{\"city\":\"Ba"),
    ];
    let completion = ended(&prompt, &events, "max_tokens").unwrap();
    assert_eq!(completion.parts, [call("a", "{\"city\":\"Bern\"}")]);
    assert_eq!(completion.finish_reason, FinishReason::Length);
    let failure = ended(&tools(), &events, "max_tokens").unwrap_err();
    assert_eq!((failure.class, failure.code.as_deref()), (Class::Truncated, Some("max_tokens")));
    assert_eq!(
        &*failure.message,
        "the answer reached max_tokens and is cut; raise max_tokens or ask for less"
    );
}

#[test]
fn a_requested_tool_without_a_call_is_unreadable() {
    let failure = ended(&tools(), &[], "tool_use").unwrap_err();
    assert_eq!((failure.class, failure.code.as_deref()), (Class::Unreadable, Some("tool_use")));
    let text = start(0, json!({ "type": "text", "text": "a" }));
    let completion = ended(&tools(), &[text], "tool_use").unwrap();
    assert_eq!((&*completion.text, completion.finish_reason), ("a", FinishReason::Stop));
}

#[test]
fn a_tool_call_after_the_stop_reason_is_a_failure() {
    let stop = || serde_json::from_str::<Value>(&stop_delta("end_turn")).unwrap();
    for late in [
        vec![stop(), call_start(0, "a", json!({}))],
        vec![call_start(0, "a", json!({})), stop(), arguments_delta(0, "{}")],
    ] {
        let failure = ended(&tools(), &late, "tool_use").unwrap_err();
        assert_eq!((failure.class, failure.charged), (Class::Unreadable, Charged::Maybe));
    }
    let empty = [call_start(0, "a", json!({})), stop(), arguments_delta(0, "")];
    assert_eq!(ended(&tools(), &empty, "tool_use").unwrap().parts, [call("a", "{}")]);
}

#[test]
fn a_huge_index_or_none_is_accepted() {
    let mut events = vec![call_start(u64::MAX, "a", json!({})), arguments_delta(u64::MAX, "{\"n\":1}")];
    let mut unnumbered = [call_start(0, "b", json!({})), arguments_delta(0, "{\"n\":2}")];
    for event in &mut unnumbered {
        event.as_object_mut().unwrap().shift_remove("index");
    }
    events.extend(unnumbered);
    let completion = ended(&tools(), &events, "tool_use").unwrap();
    assert_eq!(completion.parts, [call("a", "{\"n\":1}"), call("b", "{\"n\":2}")]);
}

#[test]
fn every_call_counts_as_memory() {
    let mut decoder = Decoder::new(&tools(), &Dialect::default());
    for index in 0..1_000 {
        decoder.push_event(None, &call_start(index, "a", json!({})).to_string()).unwrap();
    }
    assert!(decoder.buffered_bytes() > 1_000 * size_of::<ToolCall>());
    let before = decoder.buffered_bytes();
    let input = json!({ "text": "x".repeat(10_000) });
    decoder.push_event(None, &call_start(1_000, "a", input).to_string()).unwrap();
    assert!(decoder.buffered_bytes() > before + 10_000);
}

#[test]
fn surrogates_of_arguments_and_reasoning_are_restored() {
    let prompt = tools();
    let events = [
        message_start(),
        r#"{"type":"content_block_start","index":0,"content_block":{"type":"thinking","thinking":"\ud83c"}}"#.to_owned(),
        r#"{"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"\udf0a"}}"#.to_owned(),
        call_start(1, "a", json!({})).to_string(),
        r#"{"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":"{\"tide\":\"\ud83c"}}"#.to_owned(),
        r#"{"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":"\udf0a\"}"}}"#.to_owned(),
        stop_delta("tool_use"),
        json!({ "type": "message_stop" }).to_string(),
    ];
    let completion = streamed(&prompt, events.iter().map(String::as_str)).unwrap();
    assert_eq!(completion.parts, [Part::Reasoning(Reasoning::new("🌊")), call("a", "{\"tide\":\"🌊\"}")]);
    let body = br#"{"content":[{"type":"tool_use","id":"a","name":"weather","input":{"tide":"low\ud83c"}}],"stop_reason":"tool_use"}"#;
    assert_eq!(complete(&prompt, body).unwrap().parts, [call("a", "{\"tide\":\"low\u{fffd}\"}")]);
}
