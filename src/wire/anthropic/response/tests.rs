use std::sync::Arc;

use http::HeaderMap;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::types::{Charged, FailureScope, ResponseFormat, Tokens, Usage};
use crate::wire::anthropic::{encode, read_error};
use crate::wire::fixtures;

mod parts;
mod pieces;

fn decoder() -> Decoder {
    Decoder::new(&Prompt::default(), &Dialect::default())
}

fn decode_fixture(name: &str) -> Result<Completion, Failure> {
    let mut decoder = decoder();
    decoder.push_body(&fixtures::bytes(name))?;
    decoder.finish()
}

fn decode_events(events: &[(Option<String>, String)]) -> Result<Completion, Failure> {
    let mut decoder = decoder();
    for (name, data) in events {
        decoder.push_event(name.as_deref(), data)?;
    }
    decoder.finish()
}

fn decode_stream(name: &str) -> Result<Completion, Failure> {
    decode_events(&fixtures::events(name))
}

fn usage(input: u64, cached: u64, cache_write: u64, output: u64, reasoning: u64) -> Usage {
    Usage {
        input: Tokens(input),
        cached: Tokens(cached),
        cache_write: Tokens(cache_write),
        cache_write_1h: Tokens(0),
        output: Tokens(output),
        reasoning: Tokens(reasoning),
    }
}

#[test]
fn complete_messages_are_decoded() {
    let cases = [
        ("response", r#"{"title":"The Salt Harvest","year":1987}"#, usage(2069, 2048, 0, 18, 0)),
        ("response_cache_write", "Filed.", usage(2069, 0, 2048, 4, 0)),
        ("response_thinking", "1987.", usage(40, 0, 0, 60, 52)),
    ];
    for (name, text, usage) in cases {
        let completion = decode_fixture(&format!("anthropic_messages_{name}.json")).unwrap();
        assert_eq!((&*completion.text, completion.usage), (text, Some(usage)), "{name}");
        assert_eq!(completion.model, "claude-haiku-5-5");
        assert_eq!(completion.request_id.as_deref(), Some("msg_01FixtureAAAAAAAAAAAAAAAA"));
    }
}

#[test]
fn tokens_that_are_cached_for_an_hour_are_counted() {
    let with_usage = |usage: Value| {
        let mut message = fixtures::json("anthropic_messages_response_cache_write.json");
        message["usage"] = usage;
        let mut decoder = decoder();
        decoder.push_body(message.to_string().as_bytes()).unwrap();
        decoder.finish().unwrap().usage
    };
    let written = |creation: Value| {
        with_usage(json!({
            "input_tokens": 21, "cache_creation_input_tokens": 2048, "output_tokens": 4, "cache_creation": creation,
        }))
    };
    let expected =
        |cache_write_1h| Some(Usage { cache_write_1h: Tokens(cache_write_1h), ..usage(2069, 0, 2048, 4, 0) });
    let both = json!({ "ephemeral_5m_input_tokens": 48, "ephemeral_1h_input_tokens": 2000 });
    assert_eq!(written(both), expected(2000));
    assert_eq!(written(json!({ "ephemeral_1h_input_tokens": 9999 })), expected(2048));
    for none in [json!(null), json!({}), json!("x"), json!({ "ephemeral_1h_input_tokens": null })] {
        assert_eq!(written(none), expected(0));
    }
    assert_eq!(written(json!({ "ephemeral_1h_input_tokens": -1 })), None);
}

#[test]
fn a_stream_keeps_the_tokens_of_its_start_that_are_cached_for_an_hour() {
    let mut events = fixtures::events("anthropic_messages_stream.sse");
    for (_, data) in &mut events {
        let mut event: Value = serde_json::from_str(data).unwrap();
        if event["type"] == "message_start" {
            event["message"]["usage"]["cache_creation_input_tokens"] = json!(100);
            event["message"]["usage"]["cache_creation"] = json!({ "ephemeral_1h_input_tokens": 100 });
            *data = event.to_string();
        }
    }
    let later = json!({
        "type": "message_delta",
        "delta": {},
        "usage": { "cache_creation": { "ephemeral_1h_input_tokens": 0 } },
    });
    let at = events.iter().position(|(_, data)| data.contains("message_delta")).unwrap();
    let started = decode_events(&events).unwrap().usage;
    events.insert(at, (Some("message_delta".to_owned()), later.to_string()));
    let expected = Usage { cache_write_1h: Tokens(100), ..usage(125, 0, 100, 9, 0) };
    assert_eq!((started, decode_events(&events).unwrap().usage), (Some(expected), Some(expected)));
}

#[test]
fn complete_messages_without_an_answer_are_failures() {
    let cases = [
        ("context_window", Class::TooLong, Some("and so on"), usage(199_000, 0, 0, 1000, 0)),
        ("max_tokens", Class::Truncated, Some(r#"{"title":"The Sal"#), usage(40, 0, 0, 10, 0)),
        ("refusal", Class::ContentFilter, None, usage(40, 0, 0, 1, 0)),
    ];
    for (name, class, text, usage) in cases {
        let failure = decode_fixture(&format!("anthropic_messages_response_{name}.json")).unwrap_err();
        assert_eq!((failure.class, failure.text.as_deref()), (class, text), "{name}");
        assert_eq!(failure.usage.as_deref(), Some(&usage), "{name}");
        assert_eq!(failure.charged, Charged::Maybe, "{name}");
    }
    let refusal = decode_fixture("anthropic_messages_response_refusal.json").unwrap_err();
    assert_eq!(&*refusal.message, "the model refused (bio)");
}

#[test]
fn streams_are_decoded() {
    let completion = decode_stream("anthropic_messages_stream.sse").unwrap();
    assert_eq!((&*completion.text, completion.usage), ("Low tide — ça va? 🌊", Some(usage(25, 0, 0, 9, 0))));
    assert_eq!(
        (&*completion.model, completion.request_id.as_deref()),
        ("claude-haiku-5-5", Some("msg_01FixtureAAAAAAAAAAAAAAAA"))
    );
    let completion = decode_stream("anthropic_messages_stream_thinking.sse").unwrap();
    assert_eq!((&*completion.text, completion.usage), ("1987.", Some(usage(25, 0, 0, 60, 52))));
}

#[test]
fn a_tool_call_that_was_not_offered_is_ignored_beside_text() {
    let complete = decode_fixture("anthropic_messages_response_tool_use.json").unwrap();
    let streamed = decode_stream("anthropic_messages_stream_tool_use.sse").unwrap();
    for (completion, usage) in [(complete, usage(310, 0, 0, 52, 0)), (streamed, usage(25, 0, 0, 48, 0))] {
        assert_eq!((&*completion.text, &*completion.parts), ("Let me look.", &[][..]));
        assert_eq!(completion.usage, Some(usage));
    }
}

#[test]
fn an_answer_that_is_only_a_tool_call_that_was_not_offered_is_invalid() {
    let mut events = fixtures::events("anthropic_messages_stream_tool_use.sse");
    events.retain(|(_, data)| !data.contains("text_delta"));
    let failure = decode_events(&events).unwrap_err();
    assert_eq!((failure.class, failure.scope), (Class::ValidationError, FailureScope::Answer));
    assert_eq!(&*failure.message, "the model called the tool \"shelf_lookup\", which was not offered");
    assert_eq!(failure.usage.as_deref(), Some(&usage(25, 0, 0, 48, 0)));
    assert_eq!(failure.charged, Charged::Maybe);
}

#[test]
fn an_error_in_a_stream_is_classified_like_an_error_response() {
    let failure = decode_stream("anthropic_messages_stream_error_overloaded.sse").unwrap_err();
    assert_eq!((failure.class, failure.charged), (Class::Overloaded, Charged::Maybe));
    assert_eq!(
        (&*failure.message, failure.code.as_deref(), failure.usage),
        ("Overloaded", Some("overloaded_error"), None)
    );

    let refused = r#"{"type":"error","error":{"type":"rate_limit_error","message":"Slow down"}}"#;
    let failure = decoder().push_event(Some("error"), refused).unwrap_err();
    assert_eq!((failure.class, failure.charged), (Class::RateLimit, Charged::No));
}

#[test]
fn progress_distinguishes_content_from_opening_events() {
    use Progress::{Answering, Ended, Waiting};
    let mut decoder = decoder();
    let progress: Vec<Progress> = fixtures::events("anthropic_messages_stream_thinking.sse")
        .iter()
        .map(|(name, data)| decoder.push_event(name.as_deref(), data).unwrap())
        .collect();
    assert_eq!(
        progress,
        [Waiting, Waiting, Answering, Answering, Waiting, Waiting, Answering, Waiting, Waiting, Ended]
    );
}

#[test]
fn a_stream_cut_after_any_event_is_a_failure() {
    for name in ["stream", "stream_thinking", "stream_tool_use", "stream_error_overloaded"] {
        let events = fixtures::events(&format!("anthropic_messages_{name}.sse"));
        for cut in 0..events.len() {
            let failure = decode_events(&events[..cut]).unwrap_err();
            assert_eq!(
                (failure.class, failure.charged),
                (Class::Unreadable, Charged::Maybe),
                "{name} after {cut}"
            );
        }
    }
}

#[test]
fn the_usage_of_a_cut_stream_is_unknown_before_its_final_counts() {
    let events = fixtures::events("anthropic_messages_stream.sse");
    assert_eq!(decode_events(&events[..5]).unwrap_err().usage, None);
    assert_eq!(decode_events(&events[..7]).unwrap_err().usage.as_deref(), Some(&usage(25, 0, 0, 9, 0)));
}

#[test]
fn unknown_stream_events_are_ignored() {
    let mut events = fixtures::events("anthropic_messages_stream.sse");
    let unknown = [
        (Some("tea_break"), r#"{"type":"tea_break","delta":[1],"usage":"none"}"#),
        (None, r#"{"type":"ping"}"#),
        (
            Some("content_block_start"),
            r#"{"type":"content_block_start","index":7,"content_block":{"type":"novel","pages":9}}"#,
        ),
        (
            Some("content_block_delta"),
            r#"{"type":"content_block_delta","index":7,"delta":{"type":"page_delta","page":"x"}}"#,
        ),
        (None, ""),
    ];
    for (name, data) in unknown {
        events.insert(4, (name.map(str::to_owned), data.to_owned()));
    }
    assert_eq!(decode_events(&events).unwrap().text, "Low tide — ça va? 🌊");
}

#[test]
fn an_event_with_invalid_json_is_a_failure() {
    let failure =
        decoder().push_event(Some("content_block_delta"), r#"{"type":"content_block_del"#).unwrap_err();
    assert_eq!((failure.class, failure.charged), (Class::Unreadable, Charged::Maybe));
}

#[test]
fn an_unfinished_answer_is_unreadable() {
    for body in [
        r#"{"content":[{"type":"text","text":"Hi"}]}"#,
        r#"{"content":[{"type":"text","text":"Hi"}],"stop_reason":"pause_turn"}"#,
        r#"{"content":[{"type":"text","text":"Hi"}],"stop_reason":"never_seen"}"#,
        "<html><title>Sign in</title></html>",
        "",
    ] {
        let mut decoder = decoder();
        let failure = decoder.push_body(body.as_bytes()).and_then(|()| decoder.finish()).unwrap_err();
        assert_eq!((failure.class, failure.charged), (Class::Unreadable, Charged::Maybe), "{body}");
    }
}

#[test]
fn without_usage_in_the_response_the_usage_is_unknown() {
    let mut decoder = decoder();
    decoder.push_body(br#"{"content":[{"type":"text","text":"Hi"}],"stop_reason":"end_turn"}"#).unwrap();
    assert_eq!(decoder.finish().unwrap().usage, None);
}

#[test]
fn a_missing_or_incredible_count_makes_only_the_usage_unknown() {
    for counts in [
        json!({"input_tokens": u64::MAX, "output_tokens": 1}),
        json!({"input_tokens": 1, "output_tokens": u64::MAX}),
        json!({"input_tokens": 1, "output_tokens": 1, "cache_read_input_tokens": u64::MAX}),
        json!({"input_tokens": 1.5, "output_tokens": 1}),
        json!({"input_tokens": 1, "output_tokens": -1}),
        json!({"input_tokens": 1}),
        json!({"output_tokens": 1}),
    ] {
        let body = json!({
            "content": [{"type": "text", "text": "Hi"}], "stop_reason": "end_turn", "usage": counts,
        });
        let mut decoder = decoder();
        decoder.push_body(body.to_string().as_bytes()).unwrap();
        assert_eq!(decoder.finish().unwrap().usage, None, "{counts}");
    }
}

#[test]
fn a_wrapped_answer_is_unwrapped() {
    let list = json!({"type": "array", "items": {"type": "string"}});
    let prompt = Prompt { response_format: ResponseFormat::Json(Arc::new(list)), ..Prompt::text("List.") };
    let request = encode(&prompt, "claude-haiku-5-5", &Dialect::default()).unwrap();
    let sent: Value = serde_json::from_slice(&request.body).unwrap();
    assert_eq!(sent.pointer("/output_config/format/schema/type"), Some(&json!("object")));
    let mut decoder = Decoder::new(&prompt, &Dialect::default());
    let answer =
        json!({"content": [{"type": "text", "text": r#"{"answer":["a"]}"#}], "stop_reason": "end_turn"});
    decoder.push_body(answer.to_string().as_bytes()).unwrap();
    assert_eq!(decoder.finish().unwrap().text, r#"["a"]"#);
}

proptest! {
    #[test]
    fn decoding_never_panics(
        pieces in prop::collection::vec((prop::option::of(any::<String>()), any::<String>()), 0..8),
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        status in 100u16..600,
    ) {
        let mut streamed = decoder();
        let mut complete = decoder();
        for (name, data) in &pieces {
            // Only the absence of a panic is tested.
            let _ = streamed.push_event(name.as_deref(), data);
        }
        prop_assert!(streamed.finish().is_err());
        prop_assert!(complete.push_body(&bytes).is_err() || complete.finish().is_err());
        let failure = read_error(status, &HeaderMap::new(), &bytes, fixtures::arrival());
        prop_assert!(!failure.message.is_empty());
    }

    #[test]
    fn decoding_a_damaged_stream_never_panics(event in 0usize..8, at in 0usize..400, letter in any::<char>()) {
        let mut events = fixtures::events("anthropic_messages_stream.sse");
        let data: Vec<char> = events[event].1.chars().collect();
        let at = at % data.len();
        events[event].1 = data[..at].iter().chain([&letter]).chain(&data[at + 1..]).collect();
        if let Ok(completion) = decode_events(&events) {
            prop_assert!(!completion.text.is_empty());
        }
    }
}

#[test]
fn an_error_of_any_length_is_classified() {
    let details = vec![json!({ "a": [null] }); 20_000];
    let pad = "y".repeat(70_000);
    let error = json!({ "type": "overloaded_error", "message": "Overloaded", "pad": pad, "zz": details });
    let data = json!({ "type": "error", "error": error }).to_string();
    let streamed = decode_events(&[(None, data.clone())]).unwrap_err();
    let from_body = decoder().push_body(data.as_bytes()).unwrap_err();
    for failure in [streamed, from_body] {
        assert_eq!((failure.class, &*failure.message), (Class::Overloaded, "Overloaded"));
    }
}

fn message_start() -> String {
    json!({ "type": "message_start", "message": { "usage": { "input_tokens": 3, "output_tokens": 1 } } })
        .to_string()
}

fn text_delta(text: &str) -> String {
    json!({ "type": "content_block_delta", "delta": { "type": "text_delta", "text": text } }).to_string()
}

fn stop_delta(reason: &str) -> String {
    json!({ "type": "message_delta", "delta": { "stop_reason": reason }, "usage": { "output_tokens": 4 } })
        .to_string()
}

/// Decodes these events followed by the end of the message.
fn decode(events: &[String]) -> Result<String, Class> {
    let end = json!({ "type": "message_stop" }).to_string();
    let all: Vec<_> =
        [message_start()].iter().chain(events).chain([&end]).map(|data| (None, data.clone())).collect();
    decode_events(&all).map(|completion| completion.text).map_err(|failure| failure.class)
}

#[test]
fn the_worst_of_several_stop_reasons_is_kept() {
    for (reason, expected) in [
        ("end_turn", Ok("a".to_owned())),
        ("stop_sequence", Ok("a".to_owned())),
        ("tool_use", Ok("a".to_owned())),
        ("newer", Err(Class::Unreadable)),
        ("max_tokens", Err(Class::Truncated)),
        ("refusal", Err(Class::ContentFilter)),
    ] {
        assert_eq!(
            decode(&[text_delta("a"), stop_delta(reason), stop_delta("end_turn")]),
            expected,
            "{reason}"
        );
        assert_eq!(
            decode(&[text_delta("a"), stop_delta("end_turn"), stop_delta(reason)]),
            expected,
            "{reason}"
        );
    }
}

#[test]
fn text_after_the_stop_reason_is_a_failure() {
    assert_eq!(decode(&[text_delta("a"), stop_delta("end_turn"), text_delta("")]), Ok("a".to_owned()));
    assert_eq!(decode(&[text_delta("a"), stop_delta("end_turn"), text_delta("b")]), Err(Class::Unreadable));
}

#[test]
fn an_empty_answer_is_accepted() {
    assert_eq!(decode(&[stop_delta("end_turn")]), Ok(String::new()));
    let blank = " \u{200b}\u{ad}";
    assert_eq!(decode(&[text_delta(blank), stop_delta("end_turn")]), Ok(blank.to_owned()));
    let mut from_body = decoder();
    from_body.push_body(br#"{"content":[],"stop_reason":"end_turn"}"#).unwrap();
    assert_eq!(from_body.finish().unwrap().text, "");
}

#[test]
fn a_character_split_between_two_events_is_joined() {
    let completion = decode_stream("anthropic_messages_stream_split_character.sse").unwrap();
    assert_eq!(completion.text, "Low tide 🌊 at dawn.");
    let mut from_body = decoder();
    let body = br#"{"content":[{"type":"text","text":"\ud83c"},{"type":"text","text":"\udf0a"}],"stop_reason":"end_turn"}"#;
    from_body.push_body(body).unwrap();
    assert_eq!(from_body.finish().unwrap().text, "🌊");
}

#[test]
fn a_later_usage_of_zeros_is_ignored() {
    let completion = decode_stream("anthropic_messages_stream_zero_usage_last.sse").unwrap();
    assert_eq!(completion.usage, Some(usage(25, 0, 0, 9, 0)));
}

#[test]
fn numbers_in_place_of_strings_are_accepted() {
    let body = |max_tokens: u32| {
        let prompt = Prompt { max_tokens: Some(max_tokens), ..Prompt::text("x") };
        let mut decoder = Decoder::new(&prompt, &Dialect::default());
        let body = json!({
            "id": 7, "model": 3, "content": [{ "type": "text", "text": "a" }], "stop_reason": 1, "stop_details": 0,
            "usage": { "input_tokens": 2, "output_tokens": 8, "output_tokens_details": 0 },
        });
        decoder.push_body(body.to_string().as_bytes()).unwrap();
        decoder.finish()
    };
    let completion = body(9).unwrap();
    assert_eq!(
        (&*completion.text, &*completion.model, completion.request_id.as_deref()),
        ("a", "3", Some("7"))
    );
    assert_eq!(completion.usage, Some(usage(2, 0, 0, 8, 0)));
    // A numeric stop reason does not show that the answer was cut; the token count does.
    assert_eq!(body(8).unwrap_err().class, Class::Truncated);
}

#[test]
fn long_labels_are_truncated() {
    let long = "i".repeat(1 << 20);
    let body = json!({
        "id": long, "model": long, "content": [{ "type": "text", "text": "a" }], "stop_reason": "end_turn"
    });
    let mut decoder = decoder();
    decoder.push_body(body.to_string().as_bytes()).unwrap();
    let completion = decoder.finish().unwrap();
    assert_eq!((completion.model.len(), completion.request_id.map(|id| id.len())), (256, Some(256)));
}
