use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::types::{Charged, Shape, Verdict};
use crate::wire::fixtures;
use crate::wire::gemini::{encode, read_error};

fn decoder() -> Decoder {
    Decoder::new(&Prompt::default(), &Dialect::default())
}

fn read_whole(body: &[u8]) -> Result<Reply, Failure> {
    let mut decoder = decoder();
    decoder.whole(body)?;
    decoder.finish()
}

fn whole(name: &str) -> Result<Reply, Failure> {
    read_whole(&fixtures::bytes(&format!("gemini_generate_{name}.json")))
}

fn streamed(events: &[(Option<String>, String)]) -> Result<Reply, Failure> {
    let mut decoder = decoder();
    for (name, data) in events {
        decoder.event(name.as_deref(), data)?;
    }
    decoder.finish()
}

fn usage(input: u64, output: u64, reasoning: u64) -> Usage {
    Usage { input: Tokens(input), output: Tokens(output), reasoning: Tokens(reasoning), ..Usage::default() }
}

#[test]
fn whole_responses_become_replies() {
    let cases = [
        ("response", r#"{"title":"The Salt Harvest","year":1987}"#, usage(30, 82, 64)),
        ("response_thought_part", "1987.", usage(50, 24, 20)),
    ];
    for (name, text, usage) in cases {
        let reply = whole(name).unwrap();
        assert_eq!((&*reply.text, reply.usage), (text, Some(usage)), "{name}");
        assert_eq!(
            (&*reply.model, reply.request_id.as_deref()),
            ("gemini-3.8-flash", Some("fixtureAAAAAAAAAAAAAA"))
        );
    }
}

#[test]
fn whole_responses_that_are_no_answers_become_failures() {
    let cases = [
        ("function_call", Class::Unreadable, "STOP", usage(50, 32, 20)),
        ("malformed_function_call", Class::Unreadable, "MALFORMED_FUNCTION_CALL", usage(50, 0, 0)),
        ("max_tokens_no_parts", Class::Truncated, "MAX_TOKENS", usage(50, 396, 396)),
        ("prompt_blocked", Class::ContentFilter, "PROHIBITED_CONTENT", usage(50, 0, 0)),
        ("recitation", Class::ContentFilter, "RECITATION", usage(50, 0, 0)),
        ("safety", Class::ContentFilter, "SAFETY", usage(50, 0, 0)),
    ];
    for (name, class, code, usage) in cases {
        let failure = whole(&format!("response_{name}")).unwrap_err();
        assert_eq!((failure.class, failure.code.as_deref()), (class, Some(code)), "{name}");
        assert_eq!((failure.usage.as_deref(), failure.charged), (Some(&usage), Charged::Maybe), "{name}");
        assert!(failure.message.contains(code), "{failure}");
        assert_eq!(failure.text, None);
    }
}

#[test]
fn every_reason_to_stop_but_one_is_a_failure() {
    let expected = [
        (Class::Truncated, &["MAX_TOKENS"][..]),
        (
            Class::ContentFilter,
            &[
                "SAFETY",
                "RECITATION",
                "LANGUAGE",
                "BLOCKLIST",
                "PROHIBITED_CONTENT",
                "SPII",
                "MODEL_ARMOR",
                "IMAGE_SAFETY",
                "IMAGE_PROHIBITED_CONTENT",
                "IMAGE_RECITATION",
                "ESCALATION",
                "PUP_LIMITED_DISABLED",
            ],
        ),
        (Class::ApiError, &["MISSING_THOUGHT_SIGNATURE"]),
        (
            Class::Unreadable,
            &[
                "MALFORMED_FUNCTION_CALL",
                "UNEXPECTED_TOOL_CALL",
                "TOO_MANY_TOOL_CALLS",
                "MALFORMED_RESPONSE",
                "CONTINUATION",
                "IMAGE_OTHER",
                "NO_IMAGE",
                "OTHER",
                "SOMETHING_NEW",
                "FINISH_REASON_UNSPECIFIED",
                "",
            ],
        ),
    ];
    let ended = |reason: &str| {
        read_whole(
            json!({"candidates": [{"content": {"parts": [{"text": "Hi"}]}, "finishReason": reason}]})
                .to_string()
                .as_bytes(),
        )
    };
    assert_eq!(ended("STOP").unwrap().text, "Hi");
    for (class, reasons) in expected {
        for reason in reasons {
            assert_eq!(ended(reason).unwrap_err().class, class, "{reason}");
        }
    }
}

#[test]
fn what_was_said_before_a_limit_is_kept() {
    let body = r#"{"candidates":[{"content":{"parts":[{"text":"and so"}]},"finishReason":"MAX_TOKENS"}]}"#;
    let failure = read_whole(body.as_bytes()).unwrap_err();
    assert_eq!(
        (failure.class, failure.text.as_deref(), failure.usage),
        (Class::Truncated, Some("and so"), None)
    );
}

#[test]
fn tokens_of_tools_and_cache_are_part_of_the_input() {
    let body = json!({
        "candidates": [{"content": {"parts": [{"text": "Hi"}]}, "finishReason": "STOP"}],
        "usageMetadata": {
            "promptTokenCount": 100, "cachedContentTokenCount": 64, "toolUsePromptTokenCount": 7,
            "candidatesTokenCount": 3, "thoughtsTokenCount": 5,
        },
    });
    let usage = read_whole(body.to_string().as_bytes()).unwrap().usage.unwrap();
    let expected = Usage {
        input: Tokens(107),
        cached: Tokens(64),
        cache_write: Tokens(0),
        output: Tokens(8),
        reasoning: Tokens(5),
    };
    assert_eq!(usage, expected);
}

#[test]
fn a_count_that_is_missing_or_cannot_be_believed_is_unknown_and_spoils_no_answer() {
    for counts in [
        json!({"promptTokenCount": u64::MAX, "candidatesTokenCount": 1}),
        json!({"promptTokenCount": 1, "candidatesTokenCount": u64::MAX}),
        json!({"promptTokenCount": -1, "candidatesTokenCount": 1}),
        json!({"promptTokenCount": 1, "candidatesTokenCount": 1, "thoughtsTokenCount": "many"}),
        json!({"promptTokenCount": 1}),
        json!({"candidatesTokenCount": 1}),
    ] {
        let candidate = json!({"content": {"parts": [{"text": "Hi"}]}, "finishReason": "STOP"});
        let body = json!({"candidates": [candidate], "usageMetadata": counts});
        let reply = read_whole(body.to_string().as_bytes()).unwrap();
        assert_eq!((&*reply.text, reply.usage), ("Hi", None), "{counts}");
    }
}

#[test]
fn a_stream_becomes_a_reply() {
    let reply = streamed(&fixtures::events("gemini_stream.sse")).unwrap();
    assert_eq!((&*reply.text, reply.usage), ("Low tide — ça va? 🌊", Some(usage(12, 39, 30))));
}

#[test]
fn the_chunks_of_an_ignored_stream_come_as_an_array() {
    let chunks: Vec<Value> = fixtures::events("gemini_stream.sse")
        .iter()
        .map(|(_, data)| serde_json::from_str(data).unwrap())
        .collect();
    let reply = read_whole(Value::from(chunks.clone()).to_string().as_bytes()).unwrap();
    assert_eq!((&*reply.text, reply.usage), ("Low tide — ça va? 🌊", Some(usage(12, 39, 30))));
    let cut = read_whole(Value::from(chunks[..2].to_vec()).to_string().as_bytes()).unwrap_err();
    assert_eq!(cut.class, Class::Unreadable);
}

#[test]
fn progress_waits_for_the_usage_that_comes_after_the_end_mark() {
    use Progress::{Answering, Complete, Waiting};
    let mut decoder = decoder();
    let mut event = |data: &str| decoder.event(None, data).unwrap();
    assert_eq!(event(""), Waiting);
    assert_eq!(event(r#"{"candidates":[{"content":{"parts":[{"text":"Hm","thought":true}]}}]}"#), Answering);
    assert_eq!(
        event(r#"{"candidates":[{"content":{"parts":[{"text":"Hi"}]}}],"usageMetadata":{}}"#),
        Answering
    );
    assert_eq!(event(r#"{"candidates":[{"finishReason":"STOP"}]}"#), Waiting);
    assert_eq!(event(r#"{"usageMetadata":{"promptTokenCount":2,"candidatesTokenCount":1}}"#), Complete);
    let reply = decoder.finish().unwrap();
    assert_eq!((&*reply.text, reply.usage), ("Hi", Some(usage(2, 1, 0))));
}

#[test]
fn a_blocked_prompt_ends_the_stream_and_is_no_reply() {
    let events = fixtures::events("gemini_stream_prompt_blocked.sse");
    assert_eq!(decoder().event(None, &events[0].1).unwrap(), Progress::Ended);
    let failure = streamed(&events).unwrap_err();
    assert_eq!((failure.class, failure.code.as_deref()), (Class::ContentFilter, Some("SAFETY")));
    assert_eq!(&*failure.message, "the provider refused the prompt (SAFETY)");
}

#[test]
fn an_error_inside_a_stream_is_classified_like_one_outside() {
    let failure = streamed(&fixtures::events("gemini_stream_error_midway.sse")).unwrap_err();
    assert_eq!(
        (failure.class, failure.charged, failure.code.as_deref()),
        (Class::Overloaded, Charged::Maybe, Some("UNAVAILABLE"))
    );

    let refused = String::from_utf8(fixtures::bytes("gemini_error_429_retryinfo.json")).unwrap();
    let failure = decoder().event(None, &refused).unwrap_err();
    assert_eq!((failure.class, failure.charged), (Class::RateLimit, Charged::No));
    assert_eq!(failure.verdict(), Verdict::Again { after: Some(Duration::from_secs(34)) });
}

#[test]
fn a_stream_cut_after_any_event_is_never_a_reply() {
    for name in ["gemini_stream.sse", "gemini_stream_error_midway.sse", "gemini_stream_prompt_blocked.sse"] {
        let events = fixtures::events(name);
        for cut in 0..events.len() {
            let failure = streamed(&events[..cut]).unwrap_err();
            assert_eq!(
                (failure.class, failure.charged),
                (Class::Unreadable, Charged::Maybe),
                "{name} after {cut}"
            );
            assert_eq!(failure.usage, None, "the usage of a part is not the usage of the call");
        }
    }
}

#[test]
fn a_broken_answer_is_unreadable() {
    for body in [
        r#"{"candidates":[]}"#,
        "{}",
        "[]",
        r#"{"candidates":[{"content""#,
        "<html><title>Sign in</title></html>",
        "",
    ] {
        let failure = read_whole(body.as_bytes()).unwrap_err();
        assert_eq!((failure.class, failure.charged), (Class::Unreadable, Charged::Maybe), "{body}");
    }
    let failure = decoder().event(None, r#"{"candidates":[{"con"#).unwrap_err();
    assert_eq!((failure.class, failure.charged), (Class::Unreadable, Charged::Maybe));
}

#[test]
fn a_wrapped_answer_is_unwrapped() {
    let list = json!({"type": "array", "items": {"type": "string"}});
    let prompt = Prompt { shape: Shape::Json(Arc::new(list)), ..Prompt::text("List.") };
    let request = encode(&prompt, "gemini-3.8-flash", &Dialect::default()).unwrap();
    let sent: Value = serde_json::from_slice(&request.body).unwrap();
    assert_eq!(sent.pointer("/generationConfig/responseJsonSchema/type"), Some(&json!("object")));
    let mut decoder = Decoder::new(&prompt, &Dialect::default());
    let answer = json!({"candidates": [{"content": {"parts": [{"text": r#"{"answer":["a"]}"#}]}, "finishReason": "STOP"}]});
    decoder.whole(answer.to_string().as_bytes()).unwrap();
    assert_eq!(decoder.finish().unwrap().text, r#"["a"]"#);
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(
        pieces in prop::collection::vec(any::<String>(), 0..8),
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        status in 100u16..600,
    ) {
        let mut pieced = decoder();
        for data in &pieces {
            let _ = pieced.event(None, data);
        }
        prop_assert!(pieced.finish().is_err());
        prop_assert!(read_whole(&bytes).is_err());
        let failure = read_error(status, &HeaderMap::new(), &bytes, fixtures::arrival());
        prop_assert!(!failure.message.is_empty());
    }

    #[test]
    fn a_damaged_stream_never_panics(event in 0usize..3, at in 0usize..400, letter in any::<char>()) {
        let mut events = fixtures::events("gemini_stream.sse");
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
    let pad = "y".repeat(70_000);
    let error = json!({ "code": 503, "status": "UNAVAILABLE", "message": "busy", "pad": pad });
    let data = json!({ "error": error }).to_string();
    let streamed = streamed(&[(None, data.clone())]).unwrap_err();
    let whole = read_whole(data.as_bytes()).unwrap_err();
    for failure in [streamed, whole] {
        assert_eq!((failure.class, &*failure.message), (Class::Overloaded, "busy"));
    }
}

/// Plays chunks of a text and a finish reason each.
fn ends(chunks: &[(&str, Option<&str>)]) -> Result<String, Class> {
    let chunk = |(text, reason): &(&str, Option<&str>)| {
        let content = json!({ "parts": [{ "text": text }] });
        (None, json!({ "candidates": [{ "content": content, "finishReason": reason }] }).to_string())
    };
    let all: Vec<_> = chunks.iter().map(chunk).collect();
    streamed(&all).map(|reply| reply.text).map_err(|failure| failure.class)
}

#[test]
fn of_several_finish_reasons_the_worst_counts() {
    for (reason, expected) in [
        ("STOP", Ok("a".to_owned())),
        ("NEWER", Err(Class::Unreadable)),
        ("MALFORMED_RESPONSE", Err(Class::Unreadable)),
        ("MAX_TOKENS", Err(Class::Truncated)),
        ("SAFETY", Err(Class::ContentFilter)),
    ] {
        assert_eq!(ends(&[("a", Some(reason)), ("", Some("STOP"))]), expected, "{reason}");
        assert_eq!(ends(&[("a", Some("STOP")), ("", Some(reason))]), expected, "{reason}");
    }
}

#[test]
fn nothing_of_an_answer_comes_after_its_finish_reason() {
    assert_eq!(ends(&[("a", Some("STOP")), ("", None)]), Ok("a".to_owned()));
    assert_eq!(ends(&[("a", Some("STOP")), ("b", None)]), Err(Class::Unreadable));
    assert_eq!(ends(&[("a", None), ("b", Some("STOP")), ("b", Some("STOP"))]), Err(Class::Unreadable));
}

#[test]
fn an_answer_whose_every_chunk_has_the_finish_reason_stop_is_read_to_its_end() {
    let said = |text: &'static str| (text, Some("STOP"));
    assert_eq!(ends(&[said("a"), said("b"), said("c")]), Ok("abc".to_owned()));
    assert_eq!(ends(&[said(""), said("a"), said("b"), ("", Some("STOP"))]), Ok("ab".to_owned()));
    assert_eq!(ends(&[said("a"), said("b"), ("c", Some("MAX_TOKENS"))]), Err(Class::Unreadable));
    assert_eq!(ends(&[said("a"), said("b"), ("c", None)]), Err(Class::Unreadable));
    let chunk = json!({
        "candidates": [{ "content": { "parts": [{ "text": "a" }] }, "finishReason": "STOP" }],
        "usageMetadata": { "promptTokenCount": 2, "candidatesTokenCount": 1 },
    });
    let mut decoder = decoder();
    // The first may be the last; the second has shown that the reason says nothing of the end.
    assert_eq!(decoder.event(None, &chunk.to_string()), Ok(Progress::Complete));
    assert_eq!(decoder.event(None, &chunk.to_string()), Ok(Progress::Answering));
}

#[test]
fn an_answer_that_is_empty_is_a_reply() {
    assert_eq!(ends(&[("\u{200b} \u{ad}", Some("STOP"))]), Ok("\u{200b} \u{ad}".to_owned()));
    let thought = json!({ "parts": [{ "text": "only thought", "thought": true }] });
    let body = json!({ "candidates": [{ "content": thought, "finishReason": "STOP" }] });
    assert_eq!(read_whole(body.to_string().as_bytes()).unwrap().text, "");
}

#[test]
fn a_character_whose_halves_come_in_two_chunks_is_read() {
    let recorded = fixtures::events("gemini_stream_split_character.sse");
    assert_eq!(streamed(&recorded).unwrap().text, "Low tide 🌊 at dawn.");
    let chunks: Vec<&str> = recorded.iter().map(|(_, data)| &**data).collect();
    let whole = format!("[{}]", chunks.join(","));
    assert_eq!(read_whole(whole.as_bytes()).unwrap().text, "Low tide 🌊 at dawn.");
}

#[test]
fn a_later_usage_of_zeros_replaces_no_real_one() {
    let reply = streamed(&fixtures::events("gemini_stream_zero_usage_last.sse")).unwrap();
    assert_eq!(reply.usage, Some(usage(12, 9, 0)));
}

#[test]
fn a_number_where_a_text_is_expected_loses_no_answer() {
    let body = |reason: u32| {
        let content = json!({ "parts": [{ "text": "a" }] });
        let candidate =
            json!({ "content": content, "finishReason": reason, "index": "0", "finishMessage": 1 });
        json!({ "candidates": [candidate], "modelVersion": 3, "responseId": 7, "usageMetadata": 0 })
            .to_string()
    };
    let reply = read_whole(body(1).as_bytes()).unwrap();
    assert_eq!((&*reply.text, &*reply.model, reply.request_id.as_deref()), ("a", "3", Some("7")));
    for (reason, class) in
        [(0, Class::Unreadable), (2, Class::Truncated), (3, Class::ContentFilter), (5, Class::Unreadable)]
    {
        assert_eq!(read_whole(body(reason).as_bytes()).unwrap_err().class, class, "{reason}");
    }
}

#[test]
fn long_words_of_a_server_are_cut() {
    let long = "i".repeat(1 << 20);
    let content = json!({ "parts": [{ "text": "a" }] });
    let body = |reason: &str| {
        let candidate = json!({ "content": content, "finishReason": reason, "finishMessage": long });
        json!({ "candidates": [candidate], "modelVersion": long, "responseId": long }).to_string()
    };
    let reply = read_whole(body("STOP").as_bytes()).unwrap();
    assert_eq!((reply.model.len(), reply.request_id.map(|id| id.len())), (256, Some(256)));
    let failure = read_whole(body(&long).as_bytes()).unwrap_err();
    assert!(failure.message.len() < 2_000, "{}", failure.message.len());
}
