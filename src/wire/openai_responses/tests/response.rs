//! Tests of the decoding of recorded responses and streams, complete and cut.

use proptest::prelude::*;
use serde_json::json;

use crate::types::{
    Charged, Class, Completion, Failure, FailureScope, FinishReason, Format, LengthLimit, Part, Prompt,
    RetryAction, StreamEvent, ToolCall,
};
use crate::wire::{Dialect, Progress};

use super::{
    CALL_STREAM, Event, STREAM, decode_body, decode_data, decode_events, events, events_in_pieces, fixture,
    prompt_with_tool, usage,
};

const RATE_LIMITED: &str = fixture!("openai_responses_stream_rate_limited_in_200.sse");

/// The end of a response without output.
const COMPLETED: &str = r#"{"type":"response.completed","response":{"status":"completed"}}"#;

fn recorded(text: &str) -> Completion {
    Completion {
        usage: usage(),
        model: "gpt-6-luna".to_owned(),
        request_id: Some("resp_Fixture0001".to_owned()),
        ..Completion::new(text)
    }
}

fn recorded_call() -> Completion {
    let call = ToolCall::new("call_Ar1", "shelf_lookup", r#"{"branch":"Arden"}"#);
    let parts = vec![Part::ToolCall(call)];
    Completion { parts, finish_reason: FinishReason::ToolCalls, ..recorded("") }
}

fn class(result: Result<Completion, Failure>) -> Result<String, Class> {
    result.map(|completion| completion.text).map_err(|failure| failure.class)
}

#[test]
fn a_response_is_decoded_alike_from_a_body_and_from_a_stream() {
    let prompt = Prompt::text("x");
    assert_eq!(decode_body(fixture!("openai_responses_response.json"), &prompt), Ok(recorded("Low tide.")));
    let (progress, answer) = decode_events(&events(STREAM), &prompt);
    assert_eq!(answer, Ok(recorded("Low tide.")));
    let expected = [vec![Progress::Waiting; 4], vec![Progress::Answering; 5], vec![Progress::Ended]].concat();
    assert_eq!(progress, expected);

    let prompt = prompt_with_tool();
    let body = fixture!("openai_responses_response_function_call.json");
    assert_eq!(decode_body(body, &prompt), Ok(recorded_call()));
    let (progress, answer) = decode_events(&events(CALL_STREAM), &prompt);
    assert_eq!(answer, Ok(recorded_call()));
    let expected = [vec![Progress::Waiting], vec![Progress::Answering; 5], vec![Progress::Ended]].concat();
    assert_eq!(progress, expected);
}

#[test]
fn a_call_that_was_not_offered_makes_the_answer_invalid() {
    let body = fixture!("openai_responses_response_function_call.json");
    for result in
        [decode_body(body, &Prompt::text("x")), decode_events(&events(CALL_STREAM), &Prompt::text("x")).1]
    {
        let failure = result.unwrap_err();
        assert_eq!((failure.class, failure.scope), (Class::ValidationError, FailureScope::Answer));
        assert_eq!(&*failure.message, "the model called the tool \"shelf_lookup\", which was not offered");
        assert_eq!((failure.usage.as_deref().copied(), failure.charged), (usage(), Charged::Maybe));
    }
}

#[test]
fn a_cut_answer_fails_with_its_text_or_is_returned() {
    let body = fixture!("openai_responses_response_incomplete.json");
    let prompt = Prompt::text("x").with_max_tokens(400);
    let failure = decode_body(body, &prompt).unwrap_err();
    assert_eq!((failure.class, failure.text.as_deref()), (Class::Truncated, Some("Low")));
    assert_eq!(&*failure.message, "the answer reached max_tokens = 400 and is cut; raise max_tokens");
    assert_eq!(failure.usage.as_deref().copied(), usage());
    let completion = decode_body(body, &prompt.with_length_limit(LengthLimit::Return)).unwrap();
    assert_eq!(completion, Completion { finish_reason: FinishReason::Length, ..recorded("Low") });
}

#[test]
fn a_refusal_is_a_failure_from_a_body_and_from_a_stream() {
    let body = fixture!("openai_responses_response_refusal.json");
    let stream = decode_data(
        &[
            r#"{"type":"response.refusal.delta","output_index":0,"delta":"I can't help "}"#,
            r#"{"type":"response.refusal.delta","output_index":0,"delta":"with that request."}"#,
            r#"{"type":"response.output_item.done","item":{"type":"message","content":[{"type":"refusal","refusal":"I can't help with that request."}]}}"#,
            &format!(r#"{{"type":"response.completed","response":{body}}}"#),
        ],
        &Prompt::text("x"),
    );
    for result in [decode_body(body, &Prompt::text("x")), stream] {
        let failure = result.unwrap_err();
        assert_eq!(&*failure.message, "the model refused: I can't help with that request.");
        assert_eq!((failure.class, failure.retry_action()), (Class::ContentFilter, RetryAction::Fail));
        assert_eq!(failure.usage.as_deref().copied(), usage());
    }
}

#[test]
fn an_error_in_a_stream_is_classified() {
    let all = events(RATE_LIMITED);
    // The event `error`, and `response.failed` without it.
    for events in [&all[..], &[all[0].clone(), all[2].clone()]] {
        let failure = decode_events(events, &Prompt::text("x")).1.unwrap_err();
        assert_eq!((failure.class, failure.charged), (Class::RateLimit, Charged::No));
        assert_eq!(&*failure.message, "Your requests have exceeded the rate limit.");
        assert_eq!(failure.code.as_deref(), Some("rate_limit_exceeded"));
    }
    let failed = |error: &str| {
        format!(r#"{{"type":"response.failed","response":{{"status":"failed","error":{error}}}}}"#)
    };
    for (name, data, class) in [
        (None, failed(r#"{"code":"server_error","message":"died"}"#), Class::ServerError),
        (None, failed(r#"{"code":"invalid_prompt","message":"no"}"#), Class::ContentFilter),
        (None, failed(r#"{"code":"invalid_image_format","message":"no"}"#), Class::ApiError),
        (None, failed("null"), Class::ServerError),
        (None, r#"{"type":"response.failed"}"#.to_owned(), Class::ServerError),
        (None, r#"{"type":"error","code":"insufficient_quota","message":"no"}"#.to_owned(), Class::Quota),
        (None, r#"{"type":"error","error":{"code":"slow_down"}}"#.to_owned(), Class::Overloaded),
        (None, r#"{"error":{"code":429,"message":"slow"}}"#.to_owned(), Class::RateLimit),
        (None, r#"{"detail":"Internal"}"#.to_owned(), Class::ServerError),
        (None, r#"{"candidates":[{"content":{}}]}"#.to_owned(), Class::Unreadable),
        (None, r#"{"type":"content_block_delta","delta":{"text":"a"}}"#.to_owned(), Class::Unreadable),
        (None, "<html><title>Login</title>".to_owned(), Class::Unreadable),
        (Some("error"), "the engine died".to_owned(), Class::ServerError),
        (Some("response.failed"), r#"{"response":{}}"#.to_owned(), Class::ServerError),
    ] {
        let failure = decode_events(&[(name.map(str::to_owned), data.clone())], &Prompt::text("x"));
        assert_eq!(failure.1.unwrap_err().class, class, "{data}");
    }
}

#[test]
fn a_failure_after_output_may_be_charged() {
    let text = r#"{"type":"response.output_text.delta","delta":"Low"}"#;
    let failed = r#"{"type":"response.failed","response":{"error":{"code":"rate_limit_exceeded"},
        "usage":{"input_tokens":9,"output_tokens":2}}}"#;
    let failure = decode_data(&[text, failed], &Prompt::text("x")).unwrap_err();
    assert_eq!((failure.class, failure.charged), (Class::RateLimit, Charged::Maybe));
    assert_eq!(failure.usage.map(|usage| usage.output.0), Some(2));
}

#[test]
fn a_stream_cut_at_any_event_or_byte_before_its_end_is_a_failure() {
    for recording in [STREAM, CALL_STREAM] {
        let all = events(recording);
        for cut in 0..all.len() - 1 {
            let failure = decode_events(&all[..cut], &prompt_with_tool()).1.unwrap_err();
            assert_eq!((failure.class, failure.charged), (Class::Unreadable, Charged::Maybe), "{cut} events");
        }
        let end = recording.find("event: response.completed").unwrap();
        for cut in (0..end).step_by(7) {
            assert!(decode_events(&events(&recording[..cut]), &prompt_with_tool()).1.is_err(), "{cut} bytes");
        }
    }
}

#[test]
fn only_a_completed_response_is_complete() {
    let text = r#"{"type":"response.output_text.delta","delta":"a"}"#;
    let ended = |name: &str, response: &str| {
        let data = format!(r#"{{"type":"response.{name}","response":{response}}}"#);
        class(decode_data(&[text, &data], &Prompt::text("x").with_max_tokens(8)))
    };
    let incomplete = |reason: &str| {
        let response = format!(r#"{{"status":"incomplete","incomplete_details":{{"reason":"{reason}"}}}}"#);
        (ended("incomplete", &response), ended("completed", &response))
    };
    assert_eq!(ended("completed", r#"{"status":"completed"}"#), Ok("a".to_owned()));
    assert_eq!(ended("completed", "{}"), Ok("a".to_owned()));
    assert_eq!(ended("completed", r#"{"status":7}"#), Ok("a".to_owned()));
    assert_eq!(ended("completed", r#"{"status":"cancelled"}"#), Err(Class::Unreadable));
    assert_eq!(ended("completed", r#"{"status":"failed"}"#), Err(Class::ServerError));
    assert_eq!(ended("incomplete", "{}"), Err(Class::Unreadable));
    assert_eq!(ended("incomplete", r#"{"status":"completed"}"#), Err(Class::Unreadable));
    let at_limit = r#"{"usage":{"input_tokens":1,"output_tokens":8}}"#;
    assert_eq!(ended("incomplete", at_limit), Err(Class::Truncated));
    for (reason, class) in [
        ("max_output_tokens", Class::Truncated),
        ("content_filter", Class::ContentFilter),
        ("steered", Class::Unreadable),
    ] {
        assert_eq!(incomplete(reason), (Err(class), Err(class)), "{reason}");
    }
    assert_eq!(class(decode_data(&[text, "[DONE]"], &Prompt::text("x"))), Err(Class::Unreadable));
}

#[test]
fn a_body_without_an_answer_is_a_failure() {
    for (body, class) in [
        ("", Class::Unreadable),
        ("{}", Class::Unreadable),
        ("null", Class::Unreadable),
        (r#"{"status":"in_progress","output":[]}"#, Class::Unreadable),
        (r#"{"status":"completed","output":[]"#, Class::Unreadable),
        (
            r#"{"output":[{"type":"message","content":[{"type":"output_text","text":"a"}]}]}"#,
            Class::Unreadable,
        ),
        (r#"{"error":{"message":"no money","code":"insufficient_quota"}}"#, Class::Quota),
        (r#"[{"error":{"message":"no money","code":"insufficient_quota"}}]"#, Class::Quota),
        (r#"{"status":"failed","error":{"code":"rate_limit_exceeded","message":"slow"}}"#, Class::RateLimit),
        (r#"{"status":"failed","error":null}"#, Class::ServerError),
        (fixture!("openai_error_502_html.html"), Class::Unreadable),
    ] {
        assert_eq!(decode_body(body, &Prompt::text("x")).unwrap_err().class, class, "{body}");
    }
}

#[test]
fn what_the_deltas_have_not_sent_is_taken_from_the_events_that_repeat_it() {
    let text = r#"{"type":"message","content":[{"type":"output_text","text":"Low tide."}]}"#;
    let call = r#"{"type":"function_call","call_id":"a","name":"shelf_lookup","arguments":"{}"}"#;
    let done = |index: u64, item: &str| {
        format!(r#"{{"type":"response.output_item.done","output_index":{index},"item":{item}}}"#)
    };
    let completed = format!(
        r#"{{"type":"response.completed","response":{{"status":"completed","output":[{text},{call}]}}}}"#
    );
    let delta = r#"{"type":"response.output_text.delta","output_index":0,"delta":"Low tide."}"#;
    let text_done = done(0, text);
    let call_done = done(1, call);
    let expected = vec![Part::text("Low tide."), Part::ToolCall(ToolCall::new("a", "shelf_lookup", "{}"))];
    for events in [
        &[&*completed][..],
        &[delta, &completed],
        &[&*text_done, &call_done, &completed],
        &[delta, &text_done, &call_done, &completed],
        &[delta, &text_done, &call_done, COMPLETED],
    ] {
        assert_eq!(decode_data(events, &prompt_with_tool()).unwrap().parts, expected, "{events:?}");
    }
}

#[test]
fn parallel_calls_are_decoded_whether_or_not_they_have_an_index() {
    let calls = |indexes: [&str; 2]| {
        let [first, second] = indexes;
        let event =
            |kind: &str, index: &str, rest: &str| format!(r#"{{"type":"response.{kind}",{index}{rest}}}"#);
        let item = |id: &str, arguments: &str| json!({ "type": "function_call", "call_id": id, "name": "shelf_lookup", "arguments": arguments });
        let item_event = |kind: &str, index: &str, id: &str, arguments: &str| {
            event(kind, index, &format!(r#""item":{}"#, item(id, arguments)))
        };
        let delta = |index: &str, text: &str| {
            event("function_call_arguments.delta", index, &format!(r#""delta":{}"#, json!(text)))
        };
        let events = [
            item_event("output_item.added", first, "a", ""),
            delta(first, r#"{"branch":"#),
            delta(first, r#""Arden"}"#),
            item_event("output_item.done", first, "a", r#"{"branch":"Arden"}"#),
            item_event("output_item.added", second, "b", ""),
            delta(second, "{}"),
            item_event("output_item.done", second, "b", "{}"),
            // Repeated once more.
            item_event("output_item.done", first, "a", r#"{"branch":"Arden"}"#),
            COMPLETED.to_owned(),
        ];
        let events: Vec<&str> = events.iter().map(String::as_str).collect();
        decode_data(&events, &prompt_with_tool()).unwrap().parts
    };
    let call = |id: &str, arguments: &str| Part::ToolCall(ToolCall::new(id, "shelf_lookup", arguments));
    let expected = vec![call("a", r#"{"branch":"Arden"}"#), call("b", "{}")];
    assert_eq!(calls([r#""output_index":1,"#, r#""output_index":2,"#]), expected);
    assert_eq!(calls(["", ""]), expected);
}

#[test]
fn an_answer_of_unsupported_items_is_a_failure() {
    let body = |items: &str| format!(r#"{{"status":"completed","output":[{items}]}}"#);
    let unsupported = r#"{"type":"computer_call","call_id":"a"}"#;
    let failure = decode_body(&body(unsupported), &Prompt::text("x")).unwrap_err();
    assert_eq!((failure.class, failure.charged), (Class::ApiError, Charged::Maybe));
    assert!(failure.message.contains("\"computer_call\""), "{failure}");
    // Beside a message it is what the provider did for the answer, such as a search.
    let message = r#"{"type":"message","content":[{"type":"output_text","text":"a"}]}"#;
    let both = body(&format!("{unsupported},{message}"));
    assert_eq!(class(decode_body(&both, &Prompt::text("x"))), Ok("a".to_owned()));
    let custom = r#"{"type":"custom_tool_call","call_id":"a","name":"shelf_lookup","input":"free text"}"#;
    assert_eq!(class(decode_body(&body(custom), &prompt_with_tool())), Err(Class::ValidationError));
}

#[test]
fn additional_missing_and_misplaced_fields_are_accepted() {
    let lines = [
        "",
        r#"{"type":"keepalive"}"#,
        r#"{"type":"response.created","response":{"id":7,"model":3,"usage":null,"error":null,"more":{}}}"#,
        r#"{"type":"response.future.delta","delta":"x"}"#,
        r#"{"type":"response.output_item.added","item":null}"#,
        r#"{"type":"response.output_item.added","item":{"type":"web_search_call"}}"#,
        r#"{"type":"response.output_text.delta","output_index":"1","delta":42,"logprobs":[]}"#,
        r#"{"type":"response.output_text.delta","output_index":1,"delta":null}"#,
        r#"{"type":"response.output_item.done","output_index":1,"item":{"type":"message","content":null}}"#,
        r#"{"type":"response.completed","response":{"status":"completed","output":[null,{"type":"message"}],"usage":0}}"#,
        "what comes after the end",
    ];
    let completion = decode_data(&lines, &Prompt::text("x")).unwrap();
    let expected =
        Completion { model: "3".to_owned(), request_id: Some("7".to_owned()), ..Completion::new("42") };
    assert_eq!(completion, expected);
    // The name of the event, for servers that do not repeat it.
    let named = |name: &str, data: &str| (Some(name.to_owned()), data.to_owned());
    let events: [Event; 2] =
        [named("response.output_text.delta", r#"{"delta":"a"}"#), named("response.completed", "{}")];
    assert_eq!(class(decode_events(&events, &Prompt::text("x")).1), Ok("a".to_owned()));
}

#[test]
fn a_character_split_between_two_events_is_joined() {
    let lines = [
        r#"{"type":"response.output_text.delta","delta":"Low \ud83c"}"#,
        r#"{"type":"response.output_text.delta","delta":"\udf0a tide"}"#,
        COMPLETED,
    ];
    assert_eq!(class(decode_data(&lines, &Prompt::text("x"))), Ok("Low 🌊 tide".to_owned()));
    let body = r#"{"status":"completed","output":[{"type":"message","content":[{"text":"cut \ud83c"}]}]}"#;
    assert_eq!(class(decode_body(body, &Prompt::text("x"))), Ok("cut \u{fffd}".to_owned()));
}

#[test]
fn an_empty_answer_is_accepted() {
    assert_eq!(decode_data(&[COMPLETED], &Prompt::text("x")), Ok(Completion::new("")));
    let body = r#"{"status":"completed","output":null}"#;
    assert_eq!(decode_body(body, &Prompt::text("x")), Ok(Completion::new("")));
}

#[test]
fn text_and_calls_are_passed_on_as_they_arrive() {
    let deltas = |recording: &str| {
        let mut decoder = Format::OpenaiResponses.decoder(&prompt_with_tool(), &Dialect::default());
        let mut all = Vec::new();
        for (name, data) in events(recording) {
            decoder.push_event(name.as_deref(), &data).unwrap();
            all.extend(decoder.take_deltas());
        }
        all
    };
    let text = |text: &str| StreamEvent::Text(text.to_owned());
    assert_eq!(deltas(STREAM), [text("Low"), text(" tide.")]);
    let arguments: Vec<String> = deltas(CALL_STREAM)
        .into_iter()
        .map(|delta| match delta {
            StreamEvent::ToolCall(call) => format!("{}:{}", call.id, call.arguments),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(arguments, ["call_Ar1:", ":{\"branch\":", ":\"Arden\"}"]);
}

#[test]
fn the_memory_of_an_answer_is_counted() {
    let mut decoder = Format::OpenaiResponses.decoder(&Prompt::text("x"), &Dialect::default());
    for index in 0..1_000 {
        let data = format!(r#"{{"type":"response.output_text.delta","output_index":{index},"delta":"a"}}"#);
        decoder.push_event(None, &data).unwrap();
    }
    assert!(decoder.buffered_bytes() >= 1_000 * 9);
}

proptest! {
    #[test]
    fn the_size_of_the_pieces_does_not_change_the_answer(sizes in prop::collection::vec(1usize..200, 1..20)) {
        for (recording, expected) in [(STREAM, recorded("Low tide.")), (CALL_STREAM, recorded_call())] {
            let events = events_in_pieces(recording, &sizes);
            prop_assert_eq!(decode_events(&events, &prompt_with_tool()).1, Ok(expected));
        }
        let failure = decode_events(&events_in_pieces(RATE_LIMITED, &sizes), &Prompt::text("x")).1;
        prop_assert_eq!(class(failure), Err(Class::RateLimit));
    }
}
