use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::types::{Charged, ResponseFormat, RetryAction, Tokens, Usage};
use crate::wire::fixtures;
use crate::wire::gemini::{encode, read_error};

fn decoder() -> Decoder {
    Decoder::new(&Prompt::default(), &Dialect::default())
}

fn decode_body(body: &[u8]) -> Result<Completion, Failure> {
    let mut decoder = decoder();
    decoder.push_body(body)?;
    decoder.finish()
}

fn decode_fixture(name: &str) -> Result<Completion, Failure> {
    decode_body(&fixtures::bytes(&format!("gemini_generate_{name}.json")))
}

fn decode_events(events: &[(Option<String>, String)]) -> Result<Completion, Failure> {
    let mut decoder = decoder();
    for (name, data) in events {
        decoder.push_event(name.as_deref(), data)?;
    }
    decoder.finish()
}

pub(super) fn usage(input: u64, output: u64, reasoning: u64) -> Usage {
    Usage { input: Tokens(input), output: Tokens(output), reasoning: Tokens(reasoning), ..Usage::default() }
}

#[test]
fn complete_responses_are_decoded() {
    let cases = [
        ("response", r#"{"title":"The Salt Harvest","year":1987}"#, usage(30, 82, 64)),
        ("response_thought_part", "1987.", usage(50, 24, 20)),
    ];
    for (name, text, usage) in cases {
        let completion = decode_fixture(name).unwrap();
        assert_eq!((&*completion.text, completion.usage), (text, Some(usage)), "{name}");
        assert_eq!(
            (&*completion.model, completion.request_id.as_deref()),
            ("gemini-3.8-flash", Some("fixtureAAAAAAAAAAAAAA"))
        );
    }
}

#[test]
fn complete_responses_without_an_answer_are_failures() {
    let cases = [
        ("function_call", Class::ValidationError, "STOP", usage(50, 32, 20)),
        ("malformed_function_call", Class::ValidationError, "MALFORMED_FUNCTION_CALL", usage(50, 0, 0)),
        ("max_tokens_no_parts", Class::Truncated, "MAX_TOKENS", usage(50, 396, 396)),
        ("prompt_blocked", Class::ContentFilter, "PROHIBITED_CONTENT", usage(50, 0, 0)),
        ("recitation", Class::ContentFilter, "RECITATION", usage(50, 0, 0)),
        ("safety", Class::ContentFilter, "SAFETY", usage(50, 0, 0)),
    ];
    for (name, class, code, usage) in cases {
        let failure = decode_fixture(&format!("response_{name}")).unwrap_err();
        assert_eq!((failure.class, failure.code.as_deref()), (class, Some(code)), "{name}");
        assert_eq!((failure.usage.as_deref(), failure.charged), (Some(&usage), Charged::Maybe), "{name}");
        let named = if code == "STOP" { "\"shelf_lookup\", which was not offered" } else { code };
        assert!(failure.message.contains(named), "{failure}");
        assert_eq!(failure.text, None);
    }
}

#[test]
fn every_finish_reason_except_stop_is_a_failure() {
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
        (Class::ValidationError, &["MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "TOO_MANY_TOOL_CALLS"]),
        (
            Class::Unreadable,
            &[
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
        decode_body(
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
fn text_before_a_limit_is_kept() {
    let body = r#"{"candidates":[{"content":{"parts":[{"text":"and so"}]},"finishReason":"MAX_TOKENS"}]}"#;
    let failure = decode_body(body.as_bytes()).unwrap_err();
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
    let usage = decode_body(body.to_string().as_bytes()).unwrap().usage.unwrap();
    let expected = Usage {
        input: Tokens(107),
        cached: Tokens(64),
        cache_write: Tokens(0),
        cache_write_1h: Tokens(0),
        output: Tokens(8),
        reasoning: Tokens(5),
    };
    assert_eq!(usage, expected);
}

#[test]
fn a_missing_or_incredible_count_makes_only_the_usage_unknown() {
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
        let completion = decode_body(body.to_string().as_bytes()).unwrap();
        assert_eq!((&*completion.text, completion.usage), ("Hi", None), "{counts}");
    }
}

#[test]
fn a_stream_is_decoded() {
    let completion = decode_events(&fixtures::events("gemini_stream.sse")).unwrap();
    assert_eq!((&*completion.text, completion.usage), ("Low tide — ça va? 🌊", Some(usage(12, 39, 30))));
}

#[test]
fn a_body_with_an_array_of_chunks_is_decoded() {
    let chunks: Vec<Value> = fixtures::events("gemini_stream.sse")
        .iter()
        .map(|(_, data)| serde_json::from_str(data).unwrap())
        .collect();
    let completion = decode_body(Value::from(chunks.clone()).to_string().as_bytes()).unwrap();
    assert_eq!((&*completion.text, completion.usage), ("Low tide — ça va? 🌊", Some(usage(12, 39, 30))));
    let cut = decode_body(Value::from(chunks[..2].to_vec()).to_string().as_bytes()).unwrap_err();
    assert_eq!(cut.class, Class::Unreadable);
}

#[test]
fn progress_is_complete_only_after_the_usage() {
    use Progress::{Answering, Complete, Waiting};
    let mut decoder = decoder();
    let mut event = |data: &str| decoder.push_event(None, data).unwrap();
    assert_eq!(event(""), Waiting);
    assert_eq!(event(r#"{"candidates":[{"content":{"parts":[{"text":"Hm","thought":true}]}}]}"#), Answering);
    assert_eq!(
        event(r#"{"candidates":[{"content":{"parts":[{"text":"Hi"}]}}],"usageMetadata":{}}"#),
        Answering
    );
    assert_eq!(event(r#"{"candidates":[{"finishReason":"STOP"}]}"#), Waiting);
    assert_eq!(event(r#"{"usageMetadata":{"promptTokenCount":2,"candidatesTokenCount":1}}"#), Complete);
    let completion = decoder.finish().unwrap();
    assert_eq!((&*completion.text, completion.usage), ("Hi", Some(usage(2, 1, 0))));
}

#[test]
fn a_blocked_prompt_ends_the_stream_and_is_a_failure() {
    let events = fixtures::events("gemini_stream_prompt_blocked.sse");
    assert_eq!(decoder().push_event(None, &events[0].1).unwrap(), Progress::Ended);
    let failure = decode_events(&events).unwrap_err();
    assert_eq!((failure.class, failure.code.as_deref()), (Class::ContentFilter, Some("SAFETY")));
    assert_eq!(&*failure.message, "the provider blocked the prompt (SAFETY)");
}

#[test]
fn an_error_in_a_stream_is_classified_like_an_error_response() {
    let failure = decode_events(&fixtures::events("gemini_stream_error_midway.sse")).unwrap_err();
    assert_eq!(
        (failure.class, failure.charged, failure.code.as_deref()),
        (Class::Overloaded, Charged::Maybe, Some("UNAVAILABLE"))
    );

    let refused = String::from_utf8(fixtures::bytes("gemini_error_429_retryinfo.json")).unwrap();
    let failure = decoder().push_event(None, &refused).unwrap_err();
    assert_eq!((failure.class, failure.charged), (Class::RateLimit, Charged::No));
    assert_eq!(failure.retry_action(), RetryAction::Retry { after: Some(Duration::from_secs(34)) });
}

#[test]
fn a_stream_cut_after_any_event_is_a_failure() {
    for name in ["gemini_stream.sse", "gemini_stream_error_midway.sse", "gemini_stream_prompt_blocked.sse"] {
        let events = fixtures::events(name);
        for cut in 0..events.len() {
            let failure = decode_events(&events[..cut]).unwrap_err();
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
fn a_malformed_response_is_unreadable() {
    for body in [
        r#"{"candidates":[]}"#,
        "{}",
        "[]",
        r#"{"candidates":[{"content""#,
        "<html><title>Sign in</title></html>",
        "",
    ] {
        let failure = decode_body(body.as_bytes()).unwrap_err();
        assert_eq!((failure.class, failure.charged), (Class::Unreadable, Charged::Maybe), "{body}");
    }
    let failure = decoder().push_event(None, r#"{"candidates":[{"con"#).unwrap_err();
    assert_eq!((failure.class, failure.charged), (Class::Unreadable, Charged::Maybe));
}

#[test]
fn a_wrapped_answer_is_unwrapped() {
    let list = json!({"type": "array", "items": {"type": "string"}});
    let prompt = Prompt { response_format: ResponseFormat::Json(Arc::new(list)), ..Prompt::text("List.") };
    let request = encode(&prompt, "gemini-3.8-flash", &Dialect::default()).unwrap();
    let sent: Value = serde_json::from_slice(&request.body).unwrap();
    assert_eq!(sent.pointer("/generationConfig/responseJsonSchema/type"), Some(&json!("object")));
    let mut decoder = Decoder::new(&prompt, &Dialect::default());
    let answer = json!({"candidates": [{"content": {"parts": [{"text": r#"{"answer":["a"]}"#}]}, "finishReason": "STOP"}]});
    decoder.push_body(answer.to_string().as_bytes()).unwrap();
    assert_eq!(decoder.finish().unwrap().text, r#"["a"]"#);
}

proptest! {
    #[test]
    fn decoding_never_panics(
        pieces in prop::collection::vec(any::<String>(), 0..8),
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        status in 100u16..600,
    ) {
        let mut streamed = decoder();
        for data in &pieces {
            // Only the absence of a panic is tested.
            let _ = streamed.push_event(None, data);
        }
        prop_assert!(streamed.finish().is_err());
        prop_assert!(decode_body(&bytes).is_err());
        let failure = read_error(status, &HeaderMap::new(), &bytes, fixtures::arrival());
        prop_assert!(!failure.message.is_empty());
    }

    #[test]
    fn decoding_a_damaged_stream_never_panics(event in 0usize..3, at in 0usize..400, letter in any::<char>()) {
        let mut events = fixtures::events("gemini_stream.sse");
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
    let pad = "y".repeat(70_000);
    let error = json!({ "code": 503, "status": "UNAVAILABLE", "message": "busy", "pad": pad });
    let data = json!({ "error": error }).to_string();
    let streamed = decode_events(&[(None, data.clone())]).unwrap_err();
    let from_body = decode_body(data.as_bytes()).unwrap_err();
    for failure in [streamed, from_body] {
        assert_eq!((failure.class, &*failure.message), (Class::Overloaded, "busy"));
    }
}

/// Decodes chunks that have a text and a finish reason each.
fn decode(chunks: &[(&str, Option<&str>)]) -> Result<String, Class> {
    let chunk = |(text, reason): &(&str, Option<&str>)| {
        let content = json!({ "parts": [{ "text": text }] });
        (None, json!({ "candidates": [{ "content": content, "finishReason": reason }] }).to_string())
    };
    let all: Vec<_> = chunks.iter().map(chunk).collect();
    decode_events(&all).map(|completion| completion.text).map_err(|failure| failure.class)
}

#[test]
fn the_worst_of_several_finish_reasons_is_kept() {
    for (reason, expected) in [
        ("STOP", Ok("a".to_owned())),
        ("NEWER", Err(Class::Unreadable)),
        ("MALFORMED_RESPONSE", Err(Class::Unreadable)),
        ("MAX_TOKENS", Err(Class::Truncated)),
        ("SAFETY", Err(Class::ContentFilter)),
    ] {
        assert_eq!(decode(&[("a", Some(reason)), ("", Some("STOP"))]), expected, "{reason}");
        assert_eq!(decode(&[("a", Some("STOP")), ("", Some(reason))]), expected, "{reason}");
    }
}

#[test]
fn text_after_the_finish_reason_is_a_failure() {
    assert_eq!(decode(&[("a", Some("STOP")), ("", None)]), Ok("a".to_owned()));
    assert_eq!(decode(&[("a", Some("STOP")), ("b", None)]), Err(Class::Unreadable));
    assert_eq!(decode(&[("a", None), ("b", Some("STOP")), ("b", Some("STOP"))]), Err(Class::Unreadable));
}

#[test]
fn an_answer_with_stop_in_every_chunk_is_decoded_to_its_end() {
    let with_stop = |text: &'static str| (text, Some("STOP"));
    assert_eq!(decode(&[with_stop("a"), with_stop("b"), with_stop("c")]), Ok("abc".to_owned()));
    assert_eq!(
        decode(&[with_stop(""), with_stop("a"), with_stop("b"), ("", Some("STOP"))]),
        Ok("ab".to_owned())
    );
    assert_eq!(decode(&[with_stop("a"), with_stop("b"), ("c", Some("MAX_TOKENS"))]), Err(Class::Unreadable));
    assert_eq!(decode(&[with_stop("a"), with_stop("b"), ("c", None)]), Err(Class::Unreadable));
    let chunk = json!({
        "candidates": [{ "content": { "parts": [{ "text": "a" }] }, "finishReason": "STOP" }],
        "usageMetadata": { "promptTokenCount": 2, "candidatesTokenCount": 1 },
    });
    let mut decoder = decoder();
    // The first chunk may be the last. The second shows that the finish reason does not mark the end.
    assert_eq!(decoder.push_event(None, &chunk.to_string()), Ok(Progress::Complete));
    assert_eq!(decoder.push_event(None, &chunk.to_string()), Ok(Progress::Answering));
}

#[test]
fn an_empty_answer_is_accepted() {
    assert_eq!(decode(&[("\u{200b} \u{ad}", Some("STOP"))]), Ok("\u{200b} \u{ad}".to_owned()));
    let thought = json!({ "parts": [{ "text": "only thought", "thought": true }] });
    let body = json!({ "candidates": [{ "content": thought, "finishReason": "STOP" }] });
    assert_eq!(decode_body(body.to_string().as_bytes()).unwrap().text, "");
}

#[test]
fn a_character_split_between_two_chunks_is_joined() {
    let recorded = fixtures::events("gemini_stream_split_character.sse");
    assert_eq!(decode_events(&recorded).unwrap().text, "Low tide 🌊 at dawn.");
    let chunks: Vec<&str> = recorded.iter().map(|(_, data)| &**data).collect();
    let from_body = format!("[{}]", chunks.join(","));
    assert_eq!(decode_body(from_body.as_bytes()).unwrap().text, "Low tide 🌊 at dawn.");
}

#[test]
fn a_later_usage_of_zeros_is_ignored() {
    let completion = decode_events(&fixtures::events("gemini_stream_zero_usage_last.sse")).unwrap();
    assert_eq!(completion.usage, Some(usage(12, 9, 0)));
}

#[test]
fn numbers_in_place_of_strings_are_accepted() {
    let body = |reason: u32| {
        let content = json!({ "parts": [{ "text": "a" }] });
        let candidate =
            json!({ "content": content, "finishReason": reason, "index": "0", "finishMessage": 1 });
        json!({ "candidates": [candidate], "modelVersion": 3, "responseId": 7, "usageMetadata": 0 })
            .to_string()
    };
    let completion = decode_body(body(1).as_bytes()).unwrap();
    assert_eq!(
        (&*completion.text, &*completion.model, completion.request_id.as_deref()),
        ("a", "3", Some("7"))
    );
    for (reason, class) in
        [(0, Class::Unreadable), (2, Class::Truncated), (3, Class::ContentFilter), (5, Class::Unreadable)]
    {
        assert_eq!(decode_body(body(reason).as_bytes()).unwrap_err().class, class, "{reason}");
    }
}

#[test]
fn long_labels_are_truncated() {
    let long = "i".repeat(1 << 20);
    let content = json!({ "parts": [{ "text": "a" }] });
    let body = |reason: &str| {
        let candidate = json!({ "content": content, "finishReason": reason, "finishMessage": long });
        json!({ "candidates": [candidate], "modelVersion": long, "responseId": long }).to_string()
    };
    let completion = decode_body(body("STOP").as_bytes()).unwrap();
    assert_eq!((completion.model.len(), completion.request_id.map(|id| id.len())), (256, Some(256)));
    let failure = decode_body(body(&long).as_bytes()).unwrap_err();
    assert!(failure.message.len() < 2_000, "{}", failure.message.len());
}
