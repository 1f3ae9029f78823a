//! Tests of answers with tool calls and reasoning, streamed and whole.

use serde_json::{Value, json};

use crate::types::{
    Class, Completion, Failure, FailureScope, FinishReason, Format, LengthLimit, Part, Prompt, Reasoning,
    Tool, ToolCall,
};
use crate::wire::{Dialect, Progress};

use super::{decode_body, decode_data_for, decode_events_for, events, fixture, usage};

/// A request that offers the tool of the recordings.
pub(super) fn with_shelf_lookup() -> Prompt {
    Prompt::text("x").with_tool(Tool::new("shelf_lookup", json!({ "type": "object" })))
}

fn call(id: &str, arguments: &str) -> Part {
    Part::ToolCall(ToolCall::new(id, "shelf_lookup", arguments))
}

fn reasoning(text: &str) -> Part {
    Part::Reasoning(Reasoning::new(text))
}

/// Returns the chunk of a stream with this delta.
fn chunk(delta: &Value) -> String {
    json!({ "choices": [{ "index": 0, "delta": delta }] }).to_string()
}

fn stopped(reason: &str) -> String {
    json!({ "choices": [{ "index": 0, "delta": {}, "finish_reason": reason }] }).to_string()
}

fn whole(message: &Value, reason: &str) -> String {
    json!({ "choices": [{ "index": 0, "message": message, "finish_reason": reason }] }).to_string()
}

/// Decodes a stream of these deltas that ends for this reason.
fn stream(prompt: &Prompt, deltas: &[Value], reason: &str) -> Result<Completion, Failure> {
    let mut lines: Vec<String> = deltas.iter().map(chunk).collect();
    lines.extend([stopped(reason), "[DONE]".to_owned()]);
    decode_data_for(prompt, &lines.iter().map(String::as_str).collect::<Vec<_>>())
}

#[test]
fn recorded_tool_calls_are_decoded() {
    use Progress::{Answering, Ended, Waiting};
    let expected = Completion {
        parts: vec![
            call("call_Ar1", r#"{"branch":"Arden","title":"The Salt Harvest"}"#),
            call("call_Br2", r#"{"branch":"Bray","title":"The Salt Harvest"}"#),
        ],
        finish_reason: FinishReason::ToolCalls,
        usage: usage(142, 0, 58, 0),
        model: "gpt-6-luna".to_owned(),
        request_id: Some("chatcmpl-Bq7xQ2mZr0LtFixture0001".to_owned()),
        ..Completion::default()
    };
    let body = fixture!("openai_chat_response_tool_calls.json");
    assert_eq!(decode_body(body, &with_shelf_lookup()), Ok(expected.clone()));

    let expected = Completion {
        parts: vec![call("call_Ar1", r#"{"branch":"Arden"}"#), call("call_Br2", r#"{"branch":"Bray"}"#)],
        usage: usage(120, 0, 44, 0),
        request_id: Some("chatcmpl-Bq7xQ2mZr0LtFixture0002".to_owned()),
        ..expected
    };
    let recording = events(fixture!("openai_chat_stream_tool_calls.sse"));
    let (progress, answer) = decode_events_for(&with_shelf_lookup(), &recording);
    assert_eq!(answer, Ok(expected));
    let pieces = [Answering; 5];
    assert_eq!(progress, [&[Waiting][..], &pieces, &[Waiting, Waiting, Ended]].concat());
}

#[test]
fn recorded_reasoning_is_kept_for_a_request_that_wants_it() {
    let prompt = Prompt::text("x").with_keep_reasoning(true);
    let parts = |text: &str| vec![reasoning(text), Part::text("Low tide.")];
    for (body, expected) in [
        (fixture!("ollama_chat_response.json"), parts("The user wants a tide.")),
        (fixture!("llamacpp_chat_response.json"), parts("A tide.")),
        (fixture!("vllm_chat_response.json"), Vec::new()),
    ] {
        let answer = decode_body(body, &prompt).unwrap();
        assert_eq!((&*answer.text, answer.finish_reason), ("Low tide.", FinishReason::Stop));
        assert_eq!(answer.parts, expected);
    }
    let streamed = decode_events_for(&prompt, &events(fixture!("ollama_chat_stream.sse"))).1.unwrap();
    assert_eq!((&*streamed.text, streamed.parts), ("Low tide.", parts("The user")));
}

#[test]
fn a_stream_gives_the_completion_of_the_whole_response() {
    let function = |arguments: &str| json!({ "name": "shelf_lookup", "arguments": arguments });
    let called =
        |id: &str, arguments: &str| json!({ "id": id, "type": "function", "function": function(arguments) });
    let message = json!({
        "role": "assistant",
        "reasoning_content": "Two branches.",
        "content": "Let me look.",
        "tool_calls": [called("a", r#"{"n":1}"#), called("b", r#"{"n":2}"#)],
    });
    let first = |index: u64, id: &str| json!({ "index": index, "id": id, "function": function("") });
    let piece = |index: u64, text: &str| json!({ "index": index, "function": { "arguments": text } });
    let deltas = [
        json!({ "role": "assistant", "content": null }),
        json!({ "reasoning_content": "Two " }),
        json!({ "reasoning_content": "branches." }),
        json!({ "content": "Let me" }),
        json!({ "content": " look." }),
        json!({ "tool_calls": [first(0, "a"), first(1, "b")] }),
        json!({ "tool_calls": [piece(1, "{\"n\""), piece(0, "{\"n\":")] }),
        json!({ "tool_calls": [piece(0, "1}")] }),
        json!({ "tool_calls": [piece(1, ":2}")] }),
    ];
    let prompt = with_shelf_lookup();
    let expected = Completion {
        parts: vec![
            reasoning("Two branches."),
            Part::text("Let me look."),
            call("a", r#"{"n":1}"#),
            call("b", r#"{"n":2}"#),
        ],
        finish_reason: FinishReason::ToolCalls,
        ..Completion::new("Let me look.")
    };
    // Some servers end with `stop` in place of `tool_calls`.
    for reason in ["tool_calls", "stop"] {
        assert_eq!(decode_body(&whole(&message, reason), &prompt).as_ref(), Ok(&expected), "{reason}");
        assert_eq!(stream(&prompt, &deltas, reason).as_ref(), Ok(&expected), "{reason}");
    }
    let every_event: Vec<_> =
        deltas.iter().map(|delta| (None, chunk(delta))).chain([(None, stopped("tool_calls"))]).collect();
    for cut in 0..deltas.len() {
        let failure = decode_events_for(&prompt, &every_event[..cut]).1.unwrap_err();
        assert_eq!(failure.class, Class::Unreadable, "{cut} events");
    }
    assert_eq!(decode_events_for(&prompt, &every_event).1.as_ref(), Ok(&expected));
}

#[test]
fn a_legacy_function_call_is_a_tool_call() {
    let prompt = with_shelf_lookup();
    let expected = [call("pointsman_call_0", r#"{"n":1}"#)];
    let function = |name: &str, arguments: &str| json!({ "name": name, "arguments": arguments });
    let message = json!({ "content": null, "function_call": function("shelf_lookup", r#"{"n":1}"#) });
    assert_eq!(decode_body(&whole(&message, "function_call"), &prompt).unwrap().parts, expected);
    let deltas = [
        json!({ "function_call": function("shelf_lookup", "") }),
        json!({ "function_call": { "arguments": "{\"n\"" } }),
        json!({ "function_call": { "arguments": ":1}" } }),
    ];
    assert_eq!(stream(&prompt, &deltas, "function_call").unwrap().parts, expected);
    // Some servers send the same call under both names.
    let tool_call = json!({ "index": 0, "id": "a", "function": function("shelf_lookup", r#"{"n":1}"#) });
    let both = json!({ "tool_calls": [tool_call], "function_call": function("shelf_lookup", r#"{"n":1}"#) });
    assert_eq!(stream(&prompt, &[both], "tool_calls").unwrap().parts, [call("a", r#"{"n":1}"#)]);
}

#[test]
fn reasoning_under_both_names_is_read_once() {
    let prompt = Prompt::text("x").with_keep_reasoning(true);
    let both = |text: &str| json!({ "reasoning": text, "reasoning_content": text });
    let answer = stream(&prompt, &[both("Two "), both("tides."), json!({ "content": "a" })], "stop").unwrap();
    assert_eq!(answer.parts, [reasoning("Two tides."), Part::text("a")]);
    // Other values are progress, and are not read.
    let other = chunk(&json!({ "reasoning": [{ "text": "Hm." }] }));
    let events = [other, chunk(&json!({ "content": "a" })), stopped("stop")].map(|data| (None, data));
    let (progress, answer) = decode_events_for(&prompt, &events);
    assert_eq!(progress, [Progress::Answering, Progress::Answering, Progress::Waiting]);
    assert_eq!(answer, Ok(Completion::new("a")));
}

#[test]
fn a_call_that_was_not_offered_counts_only_without_text() {
    let custom = json!({ "id": "a", "type": "custom", "custom": { "name": "shell", "input": "ls" } });
    let message = |content: &str| json!({ "content": content, "tool_calls": [custom.clone()] });
    for prompt in [Prompt::text("x"), with_shelf_lookup()] {
        for reason in ["tool_calls", "stop"] {
            let failure = decode_body(&whole(&message("\n"), reason), &prompt).unwrap_err();
            assert_eq!((failure.class, failure.scope), (Class::ValidationError, FailureScope::Answer));
            assert_eq!(&*failure.message, "the model called the tool \"shell\", which was not offered");
            let answer = decode_body(&whole(&message("Low tide."), reason), &prompt);
            assert_eq!(answer, Ok(Completion::new("Low tide.")));
        }
    }
}

#[test]
fn an_answer_that_ends_for_a_missing_tool_call_is_invalid() {
    for message in [
        json!({ "content": null }),
        json!({ "content": " ", "tool_calls": [] }),
        json!({ "tool_calls": [{}] }),
        json!({ "tool_calls": "x" }),
    ] {
        let failure = decode_body(&whole(&message, "tool_calls"), &with_shelf_lookup()).unwrap_err();
        assert_eq!(
            (failure.class, failure.scope),
            (Class::ValidationError, FailureScope::Answer),
            "{message}"
        );
    }
}

#[test]
fn a_call_that_is_cut_at_the_length_limit_is_not_returned() {
    let delta = |arguments: &str| {
        let function = json!({ "name": "shelf_lookup", "arguments": arguments });
        json!({ "tool_calls": [{ "index": 0, "id": "a", "function": function }] })
    };
    let prompt = || with_shelf_lookup().with_max_tokens(9);
    let failure = stream(&prompt(), &[delta("{\"n\"")], "length").unwrap_err();
    assert_eq!(
        (failure.class, &*failure.message),
        (Class::Truncated, "the answer reached max_tokens = 9 and is cut; raise max_tokens")
    );
    let returned = prompt().with_length_limit(LengthLimit::Return);
    let cut = stream(&returned, &[delta("{\"n\"")], "length").unwrap();
    assert_eq!((cut.finish_reason, cut.parts), (FinishReason::Length, Vec::new()));
    let cut = stream(&returned, &[json!({ "content": "Low ti" }), delta("{}")], "length").unwrap();
    assert_eq!((cut.finish_reason, &*cut.text), (FinishReason::Length, "Low ti"));
    assert_eq!(cut.parts, [Part::text("Low ti"), call("a", "{}")]);
    // A numeric finish reason does not show that the answer is cut; the number of tokens does.
    let body = json!({
        "choices": [{ "message": { "content": "Low ti" }, "finish_reason": 1 }],
        "usage": { "prompt_tokens": 1, "completion_tokens": 9 },
    });
    let cut = decode_body(&body.to_string(), &returned).unwrap();
    assert_eq!((cut.finish_reason, &*cut.text), (FinishReason::Length, "Low ti"));
}

#[test]
fn a_call_after_the_finish_reason_needs_the_end_mark() {
    let marked = |id: &str| {
        let called = json!({ "id": id, "function": { "name": "shelf_lookup", "arguments": "{}" } });
        let delta = json!({ "tool_calls": [called] });
        json!({ "choices": [{ "delta": delta, "finish_reason": "tool_calls" }] }).to_string()
    };
    let first = marked("a");
    let second = marked("b");
    let read = |lines: &[&str]| {
        decode_data_for(&with_shelf_lookup(), lines)
            .map(|completion| completion.parts)
            .map_err(|failure| failure.class)
    };
    assert_eq!(read(&[&first, &second, "[DONE]"]), Ok(vec![call("a", "{}"), call("b", "{}")]));
    assert_eq!(read(&[&first, &second]), Err(Class::Unreadable));
    assert_eq!(read(&[&first]), Ok(vec![call("a", "{}")]));
}

#[test]
fn a_character_split_between_two_pieces_of_arguments_is_joined() {
    let piece =
        |rest: &str| format!(r#"{{"choices":[{{"delta":{{"tool_calls":[{{"index":0,{rest}}}]}}}}]}}"#);
    let first = piece(r#""id":"a","function":{"name":"shelf_lookup","arguments":"{\"n\":\"\ud83c"}"#);
    let second = piece(r#""function":{"arguments":"\udf0a\"}"}"#);
    let last = stopped("tool_calls");
    let answer = decode_data_for(&with_shelf_lookup(), &[&first, &second, &last, "[DONE]"]).unwrap();
    assert_eq!(answer.parts, [call("a", "{\"n\":\"🌊\"}")]);
}

#[test]
fn every_piece_of_an_answer_counts_as_memory() {
    let mut decoder = Format::Openai.decoder(&with_shelf_lookup(), &Dialect::default());
    let long = "i".repeat(1_000);
    let called = json!({ "index": 0, "id": long, "function": { "name": long, "arguments": long } });
    let all = [json!({ "reasoning": long }), json!({ "content": long }), json!({ "tool_calls": [called] })];
    for delta in all {
        let before = decoder.buffered_bytes();
        assert_eq!(decoder.push_event(None, &chunk(&delta)), Ok(Progress::Answering));
        assert!(decoder.buffered_bytes() >= before + 1_000);
    }
    assert!(decoder.buffered_bytes() >= 5_000);
}
