use std::sync::Arc;

use http::HeaderMap;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::types::{Charged, Shape, Tokens, Usage, Verdict};
use crate::wire::anthropic::{encode, read_error};
use crate::wire::fixtures;

fn decoder() -> Decoder {
    Decoder::new(&Prompt::default(), &Dialect::default())
}

fn whole(name: &str) -> Result<Reply, Failure> {
    let mut decoder = decoder();
    decoder.whole(&fixtures::bytes(name))?;
    decoder.finish()
}

fn streamed(events: &[(Option<String>, String)]) -> Result<Reply, Failure> {
    let mut decoder = decoder();
    for (name, data) in events {
        decoder.event(name.as_deref(), data)?;
    }
    decoder.finish()
}

fn stream(name: &str) -> Result<Reply, Failure> {
    streamed(&fixtures::events(name))
}

fn usage(input: u64, cached: u64, cache_write: u64, output: u64, reasoning: u64) -> Usage {
    Usage {
        input: Tokens(input),
        cached: Tokens(cached),
        cache_write: Tokens(cache_write),
        output: Tokens(output),
        reasoning: Tokens(reasoning),
    }
}

#[test]
fn whole_messages_become_replies() {
    let cases = [
        ("response", r#"{"title":"The Salt Harvest","year":1987}"#, usage(2069, 2048, 0, 18, 0)),
        ("response_cache_write", "Filed.", usage(2069, 0, 2048, 4, 0)),
        ("response_thinking", "1987.", usage(40, 0, 0, 60, 52)),
    ];
    for (name, text, usage) in cases {
        let reply = whole(&format!("anthropic_messages_{name}.json")).unwrap();
        assert_eq!((&*reply.text, reply.usage), (text, Some(usage)), "{name}");
        assert_eq!(reply.model, "claude-haiku-5-5");
        assert_eq!(reply.request_id.as_deref(), Some("msg_01FixtureAAAAAAAAAAAAAAAA"));
    }
}

#[test]
fn whole_messages_that_are_no_answers_become_failures() {
    let cases = [
        ("context_window", Class::TooLong, Some("and so on"), usage(199_000, 0, 0, 1000, 0)),
        ("max_tokens", Class::Truncated, Some(r#"{"title":"The Sal"#), usage(40, 0, 0, 10, 0)),
        ("refusal", Class::ContentFilter, None, usage(40, 0, 0, 1, 0)),
        ("tool_use", Class::Unreadable, Some("Let me look."), usage(310, 0, 0, 52, 0)),
    ];
    for (name, class, text, usage) in cases {
        let failure = whole(&format!("anthropic_messages_response_{name}.json")).unwrap_err();
        assert_eq!((failure.class, failure.text.as_deref()), (class, text), "{name}");
        assert_eq!(failure.usage.as_deref(), Some(&usage), "{name}");
        assert_eq!(failure.charged, Charged::Maybe, "{name}");
    }
    let refusal = whole("anthropic_messages_response_refusal.json").unwrap_err();
    assert_eq!(&*refusal.message, "the model refused (bio)");
}

#[test]
fn streams_become_replies() {
    let reply = stream("anthropic_messages_stream.sse").unwrap();
    assert_eq!((&*reply.text, reply.usage), ("Low tide — ça va? 🌊", Some(usage(25, 0, 0, 9, 0))));
    assert_eq!(
        (&*reply.model, reply.request_id.as_deref()),
        ("claude-haiku-5-5", Some("msg_01FixtureAAAAAAAAAAAAAAAA"))
    );
    let reply = stream("anthropic_messages_stream_thinking.sse").unwrap();
    assert_eq!((&*reply.text, reply.usage), ("1987.", Some(usage(25, 0, 0, 60, 52))));
}

#[test]
fn a_stream_that_ends_in_a_tool_call_is_no_reply() {
    let failure = stream("anthropic_messages_stream_tool_use.sse").unwrap_err();
    assert_eq!((failure.class, failure.verdict()), (Class::Unreadable, Verdict::Elsewhere));
    assert_eq!(failure.usage.as_deref(), Some(&usage(25, 0, 0, 48, 0)));
}

#[test]
fn an_error_inside_a_stream_is_classified_like_one_outside() {
    let failure = stream("anthropic_messages_stream_error_overloaded.sse").unwrap_err();
    assert_eq!((failure.class, failure.charged), (Class::Overloaded, Charged::Maybe));
    assert_eq!(
        (&*failure.message, failure.code.as_deref(), failure.usage),
        ("Overloaded", Some("overloaded_error"), None)
    );

    let refused = r#"{"type":"error","error":{"type":"rate_limit_error","message":"Slow down"}}"#;
    let failure = decoder().event(Some("error"), refused).unwrap_err();
    assert_eq!((failure.class, failure.charged), (Class::RateLimit, Charged::No));
}

#[test]
fn progress_tells_reasoning_and_answer_from_openings() {
    use Progress::{Answering, Ended, Waiting};
    let mut decoder = decoder();
    let progress: Vec<Progress> = fixtures::events("anthropic_messages_stream_thinking.sse")
        .iter()
        .map(|(name, data)| decoder.event(name.as_deref(), data).unwrap())
        .collect();
    assert_eq!(
        progress,
        [Waiting, Waiting, Answering, Answering, Waiting, Waiting, Answering, Waiting, Waiting, Ended]
    );
}

#[test]
fn a_stream_cut_after_any_event_is_never_a_reply() {
    for name in ["stream", "stream_thinking", "stream_tool_use", "stream_error_overloaded"] {
        let events = fixtures::events(&format!("anthropic_messages_{name}.sse"));
        for cut in 0..events.len() {
            let failure = streamed(&events[..cut]).unwrap_err();
            assert_eq!(
                (failure.class, failure.charged),
                (Class::Unreadable, Charged::Maybe),
                "{name} after {cut}"
            );
        }
    }
}

#[test]
fn the_usage_of_a_cut_stream_is_unknown_until_its_end_was_told() {
    let events = fixtures::events("anthropic_messages_stream.sse");
    assert_eq!(streamed(&events[..5]).unwrap_err().usage, None);
    assert_eq!(streamed(&events[..7]).unwrap_err().usage.as_deref(), Some(&usage(25, 0, 0, 9, 0)));
}

#[test]
fn what_is_new_in_a_stream_is_passed_over() {
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
    assert_eq!(streamed(&events).unwrap().text, "Low tide — ça va? 🌊");
}

#[test]
fn an_event_that_is_no_json_ends_the_call() {
    let failure = decoder().event(Some("content_block_delta"), r#"{"type":"content_block_del"#).unwrap_err();
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
        let failure = decoder.whole(body.as_bytes()).and_then(|()| decoder.finish()).unwrap_err();
        assert_eq!((failure.class, failure.charged), (Class::Unreadable, Charged::Maybe), "{body}");
    }
}

#[test]
fn a_reply_without_usage_says_unknown() {
    let mut decoder = decoder();
    decoder.whole(br#"{"content":[{"type":"text","text":"Hi"}],"stop_reason":"end_turn"}"#).unwrap();
    assert_eq!(decoder.finish().unwrap().usage, None);
}

#[test]
fn a_count_that_is_missing_or_cannot_be_believed_is_unknown_and_spoils_no_answer() {
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
        decoder.whole(body.to_string().as_bytes()).unwrap();
        assert_eq!(decoder.finish().unwrap().usage, None, "{counts}");
    }
}

#[test]
fn a_wrapped_answer_is_unwrapped() {
    let list = json!({"type": "array", "items": {"type": "string"}});
    let prompt = Prompt { shape: Shape::Json(Arc::new(list)), ..Prompt::text("List.") };
    let request = encode(&prompt, "claude-haiku-5-5", &Dialect::default()).unwrap();
    let sent: Value = serde_json::from_slice(&request.body).unwrap();
    assert_eq!(sent.pointer("/output_config/format/schema/type"), Some(&json!("object")));
    let mut decoder = Decoder::new(&prompt, &Dialect::default());
    let answer =
        json!({"content": [{"type": "text", "text": r#"{"answer":["a"]}"#}], "stop_reason": "end_turn"});
    decoder.whole(answer.to_string().as_bytes()).unwrap();
    assert_eq!(decoder.finish().unwrap().text, r#"["a"]"#);
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(
        pieces in prop::collection::vec((prop::option::of(any::<String>()), any::<String>()), 0..8),
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        status in 100u16..600,
    ) {
        let (mut pieced, mut whole) = (decoder(), decoder());
        for (name, data) in &pieces {
            let _ = pieced.event(name.as_deref(), data);
        }
        prop_assert!(pieced.finish().is_err());
        prop_assert!(whole.whole(&bytes).is_err() || whole.finish().is_err());
        let failure = read_error(status, &HeaderMap::new(), &bytes, fixtures::arrival());
        prop_assert!(!failure.message.is_empty());
    }

    #[test]
    fn a_damaged_stream_never_panics(event in 0usize..8, at in 0usize..400, letter in any::<char>()) {
        let mut events = fixtures::events("anthropic_messages_stream.sse");
        let data: Vec<char> = events[event].1.chars().collect();
        let at = at % data.len();
        events[event].1 = data[..at].iter().chain([&letter]).chain(&data[at + 1..]).collect();
        if let Ok(reply) = streamed(&events) {
            prop_assert!(!reply.text.is_empty());
        }
    }
}

#[test]
fn an_error_is_read_however_long_it_is() {
    let details = vec![json!({ "a": [null] }); 20_000];
    let pad = "y".repeat(70_000);
    let error = json!({ "type": "overloaded_error", "message": "Overloaded", "pad": pad, "zz": details });
    let data = json!({ "type": "error", "error": error }).to_string();
    let streamed = streamed(&[(None, data.clone())]).unwrap_err();
    let whole = decoder().whole(data.as_bytes()).unwrap_err();
    for failure in [streamed, whole] {
        assert_eq!((failure.class, &*failure.message), (Class::Overloaded, "Overloaded"));
    }
}

fn started() -> String {
    json!({ "type": "message_start", "message": { "usage": { "input_tokens": 3, "output_tokens": 1 } } })
        .to_string()
}

fn said(text: &str) -> String {
    json!({ "type": "content_block_delta", "delta": { "type": "text_delta", "text": text } }).to_string()
}

fn stopped(reason: &str) -> String {
    json!({ "type": "message_delta", "delta": { "stop_reason": reason }, "usage": { "output_tokens": 4 } })
        .to_string()
}

/// Plays these events, and the end of the message.
fn ends(events: &[String]) -> Result<String, Class> {
    let end = json!({ "type": "message_stop" }).to_string();
    let all: Vec<_> =
        [started()].iter().chain(events).chain([&end]).map(|data| (None, data.clone())).collect();
    streamed(&all).map(|reply| reply.text).map_err(|failure| failure.class)
}

#[test]
fn of_several_stop_reasons_the_worst_counts() {
    for (reason, expected) in [
        ("end_turn", Ok("a".to_owned())),
        ("stop_sequence", Ok("a".to_owned())),
        ("tool_use", Err(Class::Unreadable)),
        ("newer", Err(Class::Unreadable)),
        ("max_tokens", Err(Class::Truncated)),
        ("refusal", Err(Class::ContentFilter)),
    ] {
        assert_eq!(ends(&[said("a"), stopped(reason), stopped("end_turn")]), expected, "{reason}");
        assert_eq!(ends(&[said("a"), stopped("end_turn"), stopped(reason)]), expected, "{reason}");
    }
}

#[test]
fn nothing_of_an_answer_comes_after_its_stop_reason() {
    assert_eq!(ends(&[said("a"), stopped("end_turn"), said("")]), Ok("a".to_owned()));
    assert_eq!(ends(&[said("a"), stopped("end_turn"), said("b")]), Err(Class::Unreadable));
}

#[test]
fn an_answer_that_is_empty_is_a_reply() {
    assert_eq!(ends(&[stopped("end_turn")]), Ok(String::new()));
    let blank = " \u{200b}\u{ad}";
    assert_eq!(ends(&[said(blank), stopped("end_turn")]), Ok(blank.to_owned()));
    let mut whole = decoder();
    whole.whole(br#"{"content":[],"stop_reason":"end_turn"}"#).unwrap();
    assert_eq!(whole.finish().unwrap().text, "");
}

#[test]
fn a_character_whose_halves_come_in_two_events_is_read() {
    let reply = stream("anthropic_messages_stream_split_character.sse").unwrap();
    assert_eq!(reply.text, "Low tide 🌊 at dawn.");
    let mut whole = decoder();
    let body = br#"{"content":[{"type":"text","text":"\ud83c"},{"type":"text","text":"\udf0a"}],"stop_reason":"end_turn"}"#;
    whole.whole(body).unwrap();
    assert_eq!(whole.finish().unwrap().text, "🌊");
}

#[test]
fn a_later_usage_of_zeros_replaces_no_real_one() {
    let reply = stream("anthropic_messages_stream_zero_usage_last.sse").unwrap();
    assert_eq!(reply.usage, Some(usage(25, 0, 0, 9, 0)));
}

#[test]
fn a_number_where_a_text_is_expected_loses_no_answer() {
    let body = |most: u32| {
        let prompt = Prompt { max_tokens: Some(most), ..Prompt::text("x") };
        let mut decoder = Decoder::new(&prompt, &Dialect::default());
        let body = json!({
            "id": 7, "model": 3, "content": [{ "type": "text", "text": "a" }], "stop_reason": 1, "stop_details": 0,
            "usage": { "input_tokens": 2, "output_tokens": 8, "output_tokens_details": 0 },
        });
        decoder.whole(body.to_string().as_bytes()).unwrap();
        decoder.finish()
    };
    let reply = body(9).unwrap();
    assert_eq!((&*reply.text, &*reply.model, reply.request_id.as_deref()), ("a", "3", Some("7")));
    assert_eq!(reply.usage, Some(usage(2, 0, 0, 8, 0)));
    // A number does not say that the answer was cut; its length does.
    assert_eq!(body(8).unwrap_err().class, Class::Truncated);
}

#[test]
fn long_words_of_a_server_are_cut() {
    let long = "i".repeat(1 << 20);
    let body = json!({
        "id": long, "model": long, "content": [{ "type": "text", "text": "a" }], "stop_reason": "end_turn"
    });
    let mut decoder = decoder();
    decoder.whole(body.to_string().as_bytes()).unwrap();
    let reply = decoder.finish().unwrap();
    assert_eq!((reply.model.len(), reply.request_id.map(|id| id.len())), (256, Some(256)));
}
