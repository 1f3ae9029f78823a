//! Tests of the decoding of recorded responses and streams, complete and cut.

use serde_json::json;

use crate::types::{Charged, Class, Completion, Failure, Prompt, ResponseFormat, RetryAction, Usage};
use crate::wire::Progress;

use super::{decode_body, decode_data, decode_events, events, fixture, usage};

const STREAMS: [&str; 4] = [
    fixture!("openai_chat_stream.sse"),
    fixture!("openai_chat_stream_no_usage.sse"),
    fixture!("openai_chat_stream_tool_calls.sse"),
    fixture!("ollama_chat_stream.sse"),
];

fn stream(recording: &str) -> (Vec<Progress>, Result<Completion, Failure>) {
    decode_events(&events(recording))
}

fn completion(text: &str, usage: Option<Usage>, model: &str, id: &str) -> Result<Completion, Failure> {
    let request_id = Some(id.to_owned());
    Ok(Completion { usage, model: model.to_owned(), request_id, ..Completion::new(text) })
}

#[test]
fn every_recorded_response_is_decoded() {
    let id = "chatcmpl-Bq7xQ2mZr0LtFixture0001";
    let card = r#"{"title":"The Salt Harvest","year":1987,"genre":"fiction"}"#;
    for (body, expected) in [
        (
            fixture!("openai_chat_response.json"),
            completion(card, usage(1312, 1024, 86, 64), "gpt-6-luna", id),
        ),
        (
            fixture!("openai_chat_response_n2.json"),
            completion("A quiet coastal novel.", usage(60, 0, 18, 0), "gpt-6-luna", id),
        ),
        (
            fixture!("ollama_chat_response.json"),
            completion("Low tide.", usage(14, 0, 30, 0), "qwen3:0.6b", "chatcmpl-511"),
        ),
        (
            fixture!("vllm_chat_response.json"),
            completion("Low tide.", usage(14, 0, 4, 0), "local/tiny", "chatcmpl-8d2c"),
        ),
        (
            fixture!("llamacpp_chat_response.json"),
            completion("Low tide.", usage(14, 10, 4, 0), "tiny.gguf", "chatcmpl-fixture"),
        ),
    ] {
        assert_eq!(decode_body(body, &Prompt::text("x")), expected, "{body}");
    }
}

#[test]
fn a_response_without_an_answer_is_a_failure_with_usage() {
    let again = RetryAction::Retry { after: None };
    for (body, class, message, used, text, action) in [
        (
            fixture!("openai_chat_response_content_filter.json"),
            Class::ContentFilter,
            "the provider's content filter stopped the answer",
            usage(70, 0, 6, 0),
            Some("The first chapter opens with"),
            RetryAction::Fail,
        ),
        (
            fixture!("openai_chat_response_refusal.json"),
            Class::ContentFilter,
            "the model refused: I can't help with that request.",
            usage(88, 0, 12, 0),
            None,
            RetryAction::Fail,
        ),
        (
            fixture!("openai_chat_response_length_all_reasoning.json"),
            Class::Truncated,
            "reasoning used up max_tokens = 256 before the answer began; raise max_tokens",
            usage(95, 0, 256, 256),
            None,
            RetryAction::Fail,
        ),
        (
            fixture!("openai_chat_response_tool_calls.json"),
            Class::ValidationError,
            "the model called the tool \"shelf_lookup\", which was not offered",
            usage(142, 0, 58, 0),
            None,
            again,
        ),
    ] {
        let failure = decode_body(body, &Prompt { max_tokens: Some(256), ..Prompt::text("x") }).unwrap_err();
        assert_eq!((failure.class, &*failure.message), (class, message));
        assert_eq!((failure.usage.as_deref().copied(), failure.text.as_deref()), (used, text), "{message}");
        assert_eq!((failure.charged, failure.retry_action()), (Charged::Maybe, action), "{message}");
    }
}

#[test]
fn a_truncated_answer_keeps_its_text() {
    let body = r#"{"choices":[{"message":{"content":"Low ti"},"finish_reason":"length"}]}"#;
    let failure = decode_body(body, &Prompt::text("x")).unwrap_err();
    assert_eq!((failure.class, failure.text.as_deref()), (Class::Truncated, Some("Low ti")));
    assert_eq!(&*failure.message, "the answer reached the provider's own limit and is cut; raise max_tokens");
}

#[test]
fn a_wrapped_array_is_unwrapped() {
    let list = json!({ "type": "array" });
    let prompt = Prompt { response_format: ResponseFormat::Json(list.into()), ..Prompt::text("x") };
    let body = |text: &str| {
        json!({ "choices": [{ "message": { "content": text }, "finish_reason": "stop" }] }).to_string()
    };
    assert_eq!(decode_body(&body(r#"{"answer": ["a"]}"#), &prompt).unwrap().text, r#"["a"]"#);
    assert_eq!(decode_body(&body(r#"["a"]"#), &prompt).unwrap().text, r#"["a"]"#);
    assert_eq!(
        decode_body(&body(r#"{"answer": ["a"]}"#), &Prompt::text("x")).unwrap().text,
        r#"{"answer": ["a"]}"#
    );
}

#[test]
fn every_recorded_stream_is_decoded() {
    use Progress::{Answering, Ended, Waiting};
    let id = "chatcmpl-Bq7xQ2mZr0LtFixture0002";
    let tide = "Low tide at dawn — ça va? 🌊";

    let (progress, answer) = stream(fixture!("openai_chat_stream.sse"));
    assert_eq!(progress, [Waiting, Answering, Answering, Answering, Waiting, Waiting, Ended]);
    assert_eq!(answer, completion(tide, usage(42, 0, 7, 0), "gpt-6-luna", id));

    let (_, answer) = stream(fixture!("openai_chat_stream_no_usage.sse"));
    assert_eq!(answer, completion("Low tide.", None, "gpt-6-luna", id));

    // Reasoning before the answer is progress and not part of the answer.
    let (progress, answer) = stream(fixture!("ollama_chat_stream.sse"));
    assert_eq!(progress, [Answering, Answering, Answering, Waiting, Waiting, Ended]);
    assert_eq!(answer, completion("Low tide.", usage(14, 0, 30, 0), "qwen3:0.6b", "chatcmpl-512"));

    let (_, answer) = stream(fixture!("openai_chat_stream_tool_calls.sse"));
    let failure = answer.unwrap_err();
    assert_eq!(
        (failure.class, failure.usage.as_deref().copied()),
        (Class::ValidationError, usage(120, 0, 44, 0))
    );
}

#[test]
fn a_stream_cut_at_any_event_before_its_finish_reason_is_a_failure() {
    for recording in STREAMS {
        let all = events(recording);
        let finish = all.iter().position(|(_, data)| data.contains(r#""finish_reason":""#)).unwrap();
        for cut in 0..=finish {
            let failure = decode_events(&all[..cut]).1.unwrap_err();
            assert_eq!((failure.class, failure.charged), (Class::Unreadable, Charged::Maybe), "{cut} events");
        }
    }
}

#[test]
fn a_stream_cut_at_any_byte_before_its_finish_reason_is_a_failure() {
    let recording = fixture!("openai_chat_stream.sse");
    let end = recording.find(r#""finish_reason":"stop""#).unwrap();
    for cut in (0..end).step_by(7) {
        let mut cut = cut;
        while !recording.is_char_boundary(cut) {
            cut += 1;
        }
        assert!(stream(&recording[..cut]).1.is_err(), "{cut} bytes");
    }
}

#[test]
fn an_error_in_a_stream_is_classified() {
    let (progress, failed) = stream(fixture!("openai_chat_stream_error_midway.sse"));
    let failure = failed.unwrap_err();
    assert_eq!(progress.len(), 2);
    assert_eq!((failure.class, failure.charged, failure.status), (Class::ServerError, Charged::Maybe, None));
    assert!(failure.message.starts_with("The server had an error"), "{failure}");

    let failure = stream(fixture!("lmstudio_stream_error_in_200.sse")).1.unwrap_err();
    assert_eq!((failure.class, failure.charged), (Class::TooLong, Charged::No));

    for (name, data, class) in [
        (None, r#"{"error":{"code":429,"message":"slow"}}"#, Class::RateLimit),
        (
            None,
            r#"{"error":{"code":"429","message":"slow"},"choices":[{"index":0,"delta":{"content":""}}]}"#,
            Class::RateLimit,
        ),
        (
            None,
            r#"{"error":{"code":503,"message":"Loading model","type":"unavailable_error"}}"#,
            Class::Overloaded,
        ),
        (None, r#"{"object":"error","message":"bad","type":"BadRequestError","code":400}"#, Class::ApiError),
        (None, r#"{"error":"server busy, please try again"}"#, Class::Overloaded),
        (None, r#"[{"error":{"message":"no","type":"invalid_request_error"}}]"#, Class::ApiError),
        (None, r#"{"detail":"Internal"}"#, Class::ServerError),
        (None, "<html><title>Login</title>", Class::Unreadable),
        (None, r#"{"choices":[{"delta":{"content":"a"#, Class::Unreadable),
        (Some("error"), "the engine died", Class::ServerError),
        (Some("error"), r#"{"choices":[]}"#, Class::ServerError),
    ] {
        let failure = decode_events(&[(name.map(str::to_owned), data.to_owned())]).1.unwrap_err();
        assert_eq!(failure.class, class, "{data}: {failure}");
    }
}

#[test]
fn only_a_finish_reason_completes_an_answer() {
    const TEXT_CHUNK: &str = r#"{"choices":[{"delta":{"content":"a"}}]}"#;
    let stopped = |word: &str| format!(r#"{{"choices":[{{"delta":{{}},"finish_reason":"{word}"}}]}}"#);
    let ended =
        |word: &str| decode_data(&[TEXT_CHUNK, &stopped(word), "[DONE]"]).map_err(|failure| failure.class);
    assert_eq!(ended("stop").map(|completion| completion.text), Ok("a".to_owned()));
    assert_eq!(ended("eos_token").map(|completion| completion.text), Ok("a".to_owned()));
    assert_eq!(ended("tool_calls").map(|completion| completion.text), Ok("a".to_owned()));
    for (word, class) in [
        ("length", Class::Truncated),
        ("model_length", Class::Truncated),
        ("content_filter", Class::ContentFilter),
        ("insufficient_system_resource", Class::Overloaded),
        ("error", Class::ServerError),
        ("abort", Class::Unreadable),
        ("", Class::Unreadable),
    ] {
        assert_eq!(ended(word).unwrap_err(), class, "{word}");
    }
    assert_eq!(decode_data(&[TEXT_CHUNK, "[DONE]"]).unwrap_err().class, Class::Unreadable);
    assert_eq!(
        decode_data(&[TEXT_CHUNK, &stopped("stop")]).map(|completion| completion.text),
        Ok("a".to_owned())
    );
    assert_eq!(decode_data(&[TEXT_CHUNK, &stopped("length")]).unwrap_err().class, Class::Truncated);
    assert_eq!(decode_data(&["[DONE]"]).unwrap_err().class, Class::Unreadable);
}

#[test]
fn additional_and_missing_fields_are_accepted() {
    let answer = decode_data(&[
        "",
        r#"{"choices":[],"prompt_filter_results":[{"prompt_index":0}]}"#,
        r#"{"id":null,"model":null,"choices":[{"index":0,"content_filter_results":{}}],"usage":null,"error":null}"#,
        r#"{"choices":[{"index":1,"delta":{"content":"another"}},{"index":null,"delta":{"content":"a"},"more":{}}]}"#,
        r#"{"choices":null,"usage":{"prompt_tokens":1,"completion_tokens":1}}"#,
        r#"{"choices":[{"index":0,"delta":null,"finish_reason":"stop"}]}"#,
        "[DONE]",
        "what comes after the end",
    ]);
    assert_eq!(
        answer.map(|completion| (completion.text, completion.usage, completion.request_id)),
        Ok(("a".to_owned(), usage(1, 0, 1, 0), None))
    );
}

#[test]
fn a_body_without_an_answer_is_a_failure() {
    for (body, class) in [
        ("", Class::Unreadable),
        ("{}", Class::Unreadable),
        ("null", Class::Unreadable),
        (r#"{"choices":[]}"#, Class::Unreadable),
        (r#"{"choices":[{"message":{"content":"a"}}]}"#, Class::Unreadable),
        (r#"{"choices":[{"message":{"content":"a"},"finish_reason":"stop"}]"#, Class::Unreadable),
        (r#"{"error":{"message":"no money","code":"insufficient_quota"}}"#, Class::Quota),
        (fixture!("openai_error_502_html.html"), Class::Unreadable),
    ] {
        assert_eq!(decode_body(body, &Prompt::text("x")).unwrap_err().class, class, "{body}");
    }
    let failure = decode_body(fixture!("openai_error_502_html.html"), &Prompt::text("x")).unwrap_err();
    assert_eq!(&*failure.message, "received a web page instead of an answer: 502 Bad Gateway");
}

#[test]
fn the_worst_of_several_finish_reasons_is_kept() {
    const TEXT_CHUNK: &str = r#"{"choices":[{"delta":{"content":"a"}}]}"#;
    let class = |words: &[&str]| {
        let stopped = |word: &&str| format!(r#"{{"choices":[{{"delta":{{}},"finish_reason":"{word}"}}]}}"#);
        let stopped: Vec<_> = words.iter().map(stopped).collect();
        let all: Vec<_> =
            [TEXT_CHUNK].into_iter().chain(stopped.iter().map(String::as_str)).chain(["[DONE]"]).collect();
        decode_data(&all).map(|completion| completion.text).map_err(|failure| failure.class)
    };
    for (word, expected) in [
        ("stop", Ok("a".to_owned())),
        ("null", Ok("a".to_owned())),
        ("tool_calls", Ok("a".to_owned())),
        ("abort", Err(Class::Unreadable)),
        ("error", Err(Class::ServerError)),
        ("insufficient_system_resource", Err(Class::Overloaded)),
        ("length", Err(Class::Truncated)),
        ("content_filter", Err(Class::ContentFilter)),
    ] {
        assert_eq!(class(&[word, "stop"]), expected, "{word}");
        assert_eq!(class(&["stop", word]), expected, "{word}");
        assert_eq!(class(&[word, "content_filter"]), Err(Class::ContentFilter), "{word}");
    }
}

#[test]
fn text_after_the_finish_reason_is_a_failure() {
    let class =
        |all: &[&str]| decode_data(all).map(|completion| completion.text).map_err(|failure| failure.class);
    let last = r#"{"choices":[{"delta":{"content":"a"},"finish_reason":"stop"}]}"#;
    let usage = r#"{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1}}"#;
    let empty = r#"{"choices":[{"delta":{"role":"assistant","content":""},"finish_reason":"stop"}]}"#;
    let line_end = r#"{"choices":[{"delta":{"content":"\n"}}]}"#;
    assert_eq!(class(&[last, empty, usage, "[DONE]"]), Ok("a".to_owned()));
    assert_eq!(class(&[last, line_end, "[DONE]"]), Ok("a\n".to_owned()));
    for more in [
        r#"{"choices":[{"delta":{"content":"b"}}]}"#,
        r#"{"choices":[{"delta":{"content":"b"},"finish_reason":"length"}]}"#,
        r#"{"choices":[{"delta":{"refusal":"no"}}]}"#,
    ] {
        assert_eq!(class(&[last, more, "[DONE]"]), Err(Class::Unreadable), "{more}");
    }
}

#[test]
fn an_empty_answer_is_accepted() {
    for text in [Some(""), Some(" \u{200b} \u{ad}"), Some("\u{feff}"), None] {
        let body = json!({ "choices": [{ "message": { "content": text }, "finish_reason": "stop" }] });
        let completion = decode_body(&body.to_string(), &Prompt::text("x")).unwrap();
        assert_eq!(completion.text, text.unwrap_or_default());
    }
}

#[test]
fn a_stream_with_a_finish_reason_needs_no_end_mark() {
    let expected = completion("Low tide at dawn.", usage(14, 0, 4, 0), "local/tiny", "chatcmpl-Fixture0003");
    assert_eq!(stream(fixture!("openai_chat_stream_without_done.sse")).1, expected);
}

#[test]
fn a_character_split_between_two_chunks_is_joined() {
    let (progress, answer) = stream(fixture!("openai_chat_stream_split_character.sse"));
    assert_eq!(answer.unwrap().text, "Low tide 🌊 at dawn.");
    assert_eq!(progress[..2], [Progress::Answering; 2]);
    // Split characters in the reasoning are ignored.
    let reasoning = r#"{"choices":[{"delta":{"reasoning_content":"\ud83c"}}]}"#;
    let text_chunk = r#"{"choices":[{"delta":{"content":"a\udf0a"},"finish_reason":"stop"}]}"#;
    assert_eq!(decode_data(&[reasoning, text_chunk, "[DONE]"]).unwrap().text, "a\u{fffd}");
    let body = r#"{"choices":[{"message":{"content":"cut \ud83c"},"finish_reason":"stop"}]}"#;
    assert_eq!(decode_body(body, &Prompt::text("x")).unwrap().text, "cut \u{fffd}");
}

#[test]
fn a_later_usage_of_zeros_is_ignored() {
    let (_, answer) = stream(fixture!("openai_chat_stream_zero_usage_last.sse"));
    assert_eq!(answer.unwrap().usage, usage(14, 0, 4, 0));
}

#[test]
fn numbers_in_place_of_strings_are_accepted() {
    let (_, answer) = stream(fixture!("openai_chat_stream_numbers.sse"));
    assert_eq!(answer, completion("Low tide.", usage(14, 0, 4, 0), "3", "7"));
    let body = r#"{"id":1.5,"choices":[{"index":"0","message":{"content":42},"finish_reason":9}],"usage":0}"#;
    assert_eq!(decode_body(body, &Prompt::text("x")), completion("42", None, "", "1.5"));
    let other = r#"{"choices":[{"index":"1","message":{"content":"b"},"finish_reason":"stop"}]}"#;
    assert_eq!(decode_body(other, &Prompt::text("x")).unwrap_err().class, Class::Unreadable);
}

#[test]
fn a_numeric_finish_reason_needs_an_end_mark() {
    let text_chunk = r#"{"choices":[{"delta":{"content":"a"},"finish_reason":0}]}"#;
    let class =
        |all: &[&str]| decode_data(all).map(|completion| completion.text).map_err(|failure| failure.class);
    assert_eq!(class(&[text_chunk, "[DONE]"]), Ok("a".to_owned()));
    assert_eq!(class(&[text_chunk, text_chunk, "[DONE]"]), Ok("aa".to_owned()));
    // Without the end mark the end of the answer is unknown.
    assert_eq!(class(&[text_chunk]), Err(Class::Unreadable));
    let filtered = r#"{"choices":[{"delta":{},"finish_reason":"content_filter"}]}"#;
    assert_eq!(class(&[text_chunk, filtered, "[DONE]"]), Err(Class::ContentFilter));
    // An answer that reaches max_tokens is truncated.
    let body = r#"{"choices":[{"message":{"content":"a"},"finish_reason":1}],
        "usage":{"prompt_tokens":1,"completion_tokens":8}}"#;
    let limited = |max| decode_body(body, &Prompt { max_tokens: Some(max), ..Prompt::text("x") });
    assert_eq!(limited(8).unwrap_err().class, Class::Truncated);
    assert_eq!(limited(9).unwrap().text, "a");
}

#[test]
fn an_event_of_another_format_in_a_stream_is_a_failure() {
    let text_chunk = r#"{"choices":[{"delta":{"content":"a"}}]}"#;
    let stopped = r#"{"choices":[{"delta":{},"finish_reason":"stop"}]}"#;
    for (other, is_answer) in [
        (r#"{"type":"content_block_delta","delta":{"type":"text_delta","text":"lost"}}"#, false),
        (r#"{"candidates":[{"content":{"parts":[{"text":"lost"}]}}]}"#, false),
        (r#"{"type":"ping"}"#, true),
        (r#"{"object":"metadata","id":"x"}"#, true),
    ] {
        assert_eq!(decode_data(&[text_chunk, other, stopped, "[DONE]"]).is_ok(), is_answer, "{other}");
    }
}

#[test]
fn long_labels_are_truncated() {
    let long = "i".repeat(1 << 20);
    let stopped = |word: &str| {
        let choice = json!({ "index": 0, "delta": { "content": "a" }, "finish_reason": word });
        json!({ "id": long, "model": long, "choices": [choice] }).to_string()
    };
    let completion = decode_data(&[&stopped("stop"), "[DONE]"]).unwrap();
    assert_eq!((completion.model.len(), completion.request_id.map(|id| id.len())), (256, Some(256)));
    let failure = decode_data(&[&stopped(&long), "[DONE]"]).unwrap_err();
    assert!(failure.message.len() < 600, "{}", failure.message.len());
}

#[test]
fn an_answer_with_stop_in_every_chunk_is_decoded_to_its_end_mark() {
    let chunk = |text: &str| {
        let delta = format!(r#"{{"role":"assistant","content":"{text}"}}"#);
        format!(r#"{{"choices":[{{"delta":{delta},"finish_reason":"stop"}}]}}"#)
    };
    let read =
        |all: &[&str]| decode_data(all).map(|completion| completion.text).map_err(|failure| failure.class);
    let empty = chunk("");
    let a = chunk("a");
    let b = chunk("b");
    let unmarked = r#"{"choices":[{"delta":{"content":"c"}}]}"#;
    assert_eq!(read(&[&empty, &a, &b, "[DONE]"]), Ok("ab".to_owned()));
    // Without the end mark, the body may have been cut after any of its chunks.
    assert_eq!(read(&[&empty, &a, &b]), Err(Class::Unreadable));
    assert_eq!(read(&[&a]), Ok("a".to_owned()));
    assert_eq!(read(&[&a, &b, unmarked, "[DONE]"]), Err(Class::Unreadable));
    assert_eq!(read(&[unmarked, &a, &b, "[DONE]"]), Err(Class::Unreadable));
}
