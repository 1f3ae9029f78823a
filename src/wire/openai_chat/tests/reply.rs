//! What the recorded replies and streams say, and what they say when they are cut.

use serde_json::json;

use crate::types::{Charged, Class, Failure, Prompt, Reply, Shape, Tokens, Usage, Verdict};
use crate::wire::Progress;

use super::{events, fixture, lines, play, whole};

const STREAMS: [&str; 4] = [
    fixture!("openai_chat_stream.sse"),
    fixture!("openai_chat_stream_no_usage.sse"),
    fixture!("openai_chat_stream_tool_calls.sse"),
    fixture!("ollama_chat_stream.sse"),
];

fn stream(recording: &str) -> (Vec<Progress>, Result<Reply, Failure>) {
    play(&events(recording))
}

fn usage(input: u64, cached: u64, output: u64, reasoning: u64) -> Option<Usage> {
    Some(Usage {
        input: Tokens(input),
        cached: Tokens(cached),
        cache_write: Tokens(0),
        output: Tokens(output),
        reasoning: Tokens(reasoning),
    })
}

fn reply(text: &str, usage: Option<Usage>, model: &str, id: &str) -> Result<Reply, Failure> {
    Ok(Reply { text: text.to_owned(), usage, model: model.to_owned(), request_id: Some(id.to_owned()) })
}

#[test]
fn every_recorded_answer_is_read() {
    let id = "chatcmpl-Bq7xQ2mZr0LtFixture0001";
    let card = r#"{"title":"The Salt Harvest","year":1987,"genre":"fiction"}"#;
    for (body, expected) in [
        (fixture!("openai_chat_response.json"), reply(card, usage(1312, 1024, 86, 64), "gpt-6-luna", id)),
        (
            fixture!("openai_chat_response_n2.json"),
            reply("A quiet coastal novel.", usage(60, 0, 18, 0), "gpt-6-luna", id),
        ),
        (
            fixture!("ollama_chat_response.json"),
            reply("Low tide.", usage(14, 0, 30, 0), "qwen3:0.6b", "chatcmpl-511"),
        ),
        (
            fixture!("vllm_chat_response.json"),
            reply("Low tide.", usage(14, 0, 4, 0), "local/tiny", "chatcmpl-8d2c"),
        ),
        (
            fixture!("llamacpp_chat_response.json"),
            reply("Low tide.", usage(14, 10, 4, 0), "tiny.gguf", "chatcmpl-fixture"),
        ),
    ] {
        assert_eq!(whole(body, &Prompt::text("x")), expected, "{body}");
    }
}

#[test]
fn an_answer_that_is_none_says_why_and_what_it_used() {
    for (body, class, message, used, text) in [
        (
            fixture!("openai_chat_response_content_filter.json"),
            Class::ContentFilter,
            "the provider's content filter stopped the answer",
            usage(70, 0, 6, 0),
            Some("The first chapter opens with"),
        ),
        (
            fixture!("openai_chat_response_refusal.json"),
            Class::ContentFilter,
            "the model refused: I can't help with that request.",
            usage(88, 0, 12, 0),
            None,
        ),
        (
            fixture!("openai_chat_response_length_all_reasoning.json"),
            Class::Truncated,
            "reasoning used up max_tokens = 256 before the answer began; raise max_tokens",
            usage(95, 0, 256, 256),
            None,
        ),
        (
            fixture!("openai_chat_response_tool_calls.json"),
            Class::ApiError,
            "the model answered with a tool call, which was not offered",
            usage(142, 0, 58, 0),
            None,
        ),
    ] {
        let failure = whole(body, &Prompt { max_tokens: Some(256), ..Prompt::text("x") }).unwrap_err();
        assert_eq!((failure.class, &*failure.message), (class, message));
        assert_eq!((failure.usage.as_deref().copied(), failure.text.as_deref()), (used, text), "{message}");
        assert_eq!((failure.charged, failure.verdict()), (Charged::Maybe, Verdict::Never), "{message}");
    }
}

#[test]
fn a_cut_answer_keeps_its_text() {
    let body = r#"{"choices":[{"message":{"content":"Low ti"},"finish_reason":"length"}]}"#;
    let failure = whole(body, &Prompt::text("x")).unwrap_err();
    assert_eq!((failure.class, failure.text.as_deref()), (Class::Truncated, Some("Low ti")));
    assert_eq!(&*failure.message, "the answer reached the provider's own limit and is cut; raise max_tokens");
}

#[test]
fn an_array_comes_back_out_of_its_wrapping() {
    let list = json!({ "type": "array" });
    let prompt = Prompt { shape: Shape::Json(list.into()), ..Prompt::text("x") };
    let said = |text: &str| {
        json!({ "choices": [{ "message": { "content": text }, "finish_reason": "stop" }] }).to_string()
    };
    assert_eq!(whole(&said(r#"{"answer": ["a"]}"#), &prompt).unwrap().text, r#"["a"]"#);
    assert_eq!(whole(&said(r#"["a"]"#), &prompt).unwrap().text, r#"["a"]"#);
    assert_eq!(
        whole(&said(r#"{"answer": ["a"]}"#), &Prompt::text("x")).unwrap().text,
        r#"{"answer": ["a"]}"#
    );
}

#[test]
fn every_recorded_stream_is_read() {
    use Progress::{Answering, Ended, Waiting};
    let id = "chatcmpl-Bq7xQ2mZr0LtFixture0002";
    let tide = "Low tide at dawn — ça va? 🌊";

    let (progress, answer) = stream(fixture!("openai_chat_stream.sse"));
    assert_eq!(progress, [Waiting, Answering, Answering, Answering, Waiting, Waiting, Ended]);
    assert_eq!(answer, reply(tide, usage(42, 0, 7, 0), "gpt-6-luna", id));

    let (_, answer) = stream(fixture!("openai_chat_stream_no_usage.sse"));
    assert_eq!(answer, reply("Low tide.", None, "gpt-6-luna", id));

    // The reasoning before the answer is progress and no part of it.
    let (progress, answer) = stream(fixture!("ollama_chat_stream.sse"));
    assert_eq!(progress, [Answering, Answering, Answering, Waiting, Waiting, Ended]);
    assert_eq!(answer, reply("Low tide.", usage(14, 0, 30, 0), "qwen3:0.6b", "chatcmpl-512"));

    let (_, answer) = stream(fixture!("openai_chat_stream_tool_calls.sse"));
    let failure = answer.unwrap_err();
    assert_eq!((failure.class, failure.usage.as_deref().copied()), (Class::ApiError, usage(120, 0, 44, 0)));
}

#[test]
fn a_stream_cut_at_any_event_before_its_finish_reason_is_no_reply() {
    for recording in STREAMS {
        let all = events(recording);
        let finish = all.iter().position(|(_, data)| data.contains(r#""finish_reason":""#)).unwrap();
        for cut in 0..=finish {
            let failure = play(&all[..cut]).1.unwrap_err();
            assert_eq!((failure.class, failure.charged), (Class::Unreadable, Charged::Maybe), "{cut} events");
        }
    }
}

#[test]
fn a_stream_cut_at_any_byte_before_its_finish_reason_is_no_reply() {
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
fn an_error_in_a_stream_is_that_error() {
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
        let failure = play(&[(name.map(str::to_owned), data.to_owned())]).1.unwrap_err();
        assert_eq!(failure.class, class, "{data}: {failure}");
    }
}

#[test]
fn only_a_finish_reason_makes_a_reply() {
    const SAID: &str = r#"{"choices":[{"delta":{"content":"a"}}]}"#;
    let stopped = |word: &str| format!(r#"{{"choices":[{{"delta":{{}},"finish_reason":"{word}"}}]}}"#);
    let ended = |word: &str| lines(&[SAID, &stopped(word), "[DONE]"]).map_err(|failure| failure.class);
    assert_eq!(ended("stop").map(|reply| reply.text), Ok("a".to_owned()));
    assert_eq!(ended("eos_token").map(|reply| reply.text), Ok("a".to_owned()));
    assert_eq!(ended("tool_calls").map(|reply| reply.text), Ok("a".to_owned()));
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
    assert_eq!(lines(&[SAID, "[DONE]"]).unwrap_err().class, Class::Unreadable);
    assert_eq!(lines(&[SAID, &stopped("stop")]).map(|reply| reply.text), Ok("a".to_owned()));
    assert_eq!(lines(&[SAID, &stopped("length")]).unwrap_err().class, Class::Truncated);
    assert_eq!(lines(&["[DONE]"]).unwrap_err().class, Class::Unreadable);
}

#[test]
fn what_servers_add_or_leave_out_spoils_no_answer() {
    let answer = lines(&[
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
        answer.map(|reply| (reply.text, reply.usage, reply.request_id)),
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
        assert_eq!(whole(body, &Prompt::text("x")).unwrap_err().class, class, "{body}");
    }
    let failure = whole(fixture!("openai_error_502_html.html"), &Prompt::text("x")).unwrap_err();
    assert_eq!(&*failure.message, "a web page came instead of an answer: 502 Bad Gateway");
}

#[test]
fn of_several_finish_reasons_the_worst_counts() {
    const SAID: &str = r#"{"choices":[{"delta":{"content":"a"}}]}"#;
    let class = |words: &[&str]| {
        let stopped = |word: &&str| format!(r#"{{"choices":[{{"delta":{{}},"finish_reason":"{word}"}}]}}"#);
        let stopped: Vec<_> = words.iter().map(stopped).collect();
        let all: Vec<_> =
            [SAID].into_iter().chain(stopped.iter().map(String::as_str)).chain(["[DONE]"]).collect();
        lines(&all).map(|reply| reply.text).map_err(|failure| failure.class)
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
fn nothing_of_an_answer_comes_after_its_finish_reason() {
    let class = |all: &[&str]| lines(all).map(|reply| reply.text).map_err(|failure| failure.class);
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
fn an_answer_that_is_empty_is_a_reply() {
    for text in [Some(""), Some(" \u{200b} \u{ad}"), Some("\u{feff}"), None] {
        let said = json!({ "choices": [{ "message": { "content": text }, "finish_reason": "stop" }] });
        let reply = whole(&said.to_string(), &Prompt::text("x")).unwrap();
        assert_eq!(reply.text, text.unwrap_or_default());
    }
}

#[test]
fn a_stream_with_a_finish_reason_needs_no_end_mark() {
    let expected = reply("Low tide at dawn.", usage(14, 0, 4, 0), "local/tiny", "chatcmpl-Fixture0003");
    assert_eq!(stream(fixture!("openai_chat_stream_without_done.sse")).1, expected);
}

#[test]
fn a_character_whose_halves_come_in_two_chunks_is_read() {
    let (progress, answer) = stream(fixture!("openai_chat_stream_split_character.sse"));
    assert_eq!(answer.unwrap().text, "Low tide 🌊 at dawn.");
    assert_eq!(progress[..2], [Progress::Answering; 2]);
    // Reasoning is read and left out, whatever it is cut into.
    let thought = r#"{"choices":[{"delta":{"reasoning_content":"\ud83c"}}]}"#;
    let said = r#"{"choices":[{"delta":{"content":"a\udf0a"},"finish_reason":"stop"}]}"#;
    assert_eq!(lines(&[thought, said, "[DONE]"]).unwrap().text, "a\u{fffd}");
    let body = r#"{"choices":[{"message":{"content":"cut \ud83c"},"finish_reason":"stop"}]}"#;
    assert_eq!(whole(body, &Prompt::text("x")).unwrap().text, "cut \u{fffd}");
}

#[test]
fn a_later_usage_of_zeros_replaces_no_real_one() {
    let (_, answer) = stream(fixture!("openai_chat_stream_zero_usage_last.sse"));
    assert_eq!(answer.unwrap().usage, usage(14, 0, 4, 0));
}

#[test]
fn a_number_where_a_text_is_expected_loses_no_answer() {
    let (_, answer) = stream(fixture!("openai_chat_stream_numbers.sse"));
    assert_eq!(answer, reply("Low tide.", usage(14, 0, 4, 0), "3", "7"));
    let body = r#"{"id":1.5,"choices":[{"index":"0","message":{"content":42},"finish_reason":9}],"usage":0}"#;
    assert_eq!(whole(body, &Prompt::text("x")), reply("42", None, "", "1.5"));
    let other = r#"{"choices":[{"index":"1","message":{"content":"b"},"finish_reason":"stop"}]}"#;
    assert_eq!(whole(other, &Prompt::text("x")).unwrap_err().class, Class::Unreadable);
}

#[test]
fn a_number_for_a_finish_reason_is_never_taken_for_more_than_it_says() {
    let said = r#"{"choices":[{"delta":{"content":"a"},"finish_reason":0}]}"#;
    let class = |all: &[&str]| lines(all).map(|reply| reply.text).map_err(|failure| failure.class);
    assert_eq!(class(&[said, "[DONE]"]), Ok("a".to_owned()));
    assert_eq!(class(&[said, said, "[DONE]"]), Ok("aa".to_owned()));
    // Without the mark nothing says that the answer is over.
    assert_eq!(class(&[said]), Err(Class::Unreadable));
    let filtered = r#"{"choices":[{"delta":{},"finish_reason":"content_filter"}]}"#;
    assert_eq!(class(&[said, filtered, "[DONE]"]), Err(Class::ContentFilter));
    // An answer as long as it may be is cut.
    let body = r#"{"choices":[{"message":{"content":"a"},"finish_reason":1}],
        "usage":{"prompt_tokens":1,"completion_tokens":8}}"#;
    let limited = |most| whole(body, &Prompt { max_tokens: Some(most), ..Prompt::text("x") });
    assert_eq!(limited(8).unwrap_err().class, Class::Truncated);
    assert_eq!(limited(9).unwrap().text, "a");
}

#[test]
fn an_event_of_another_format_in_a_stream_fails_it() {
    let said = r#"{"choices":[{"delta":{"content":"a"}}]}"#;
    let stopped = r#"{"choices":[{"delta":{},"finish_reason":"stop"}]}"#;
    for (other, is_answer) in [
        (r#"{"type":"content_block_delta","delta":{"type":"text_delta","text":"lost"}}"#, false),
        (r#"{"candidates":[{"content":{"parts":[{"text":"lost"}]}}]}"#, false),
        (r#"{"type":"ping"}"#, true),
        (r#"{"object":"metadata","id":"x"}"#, true),
    ] {
        assert_eq!(lines(&[said, other, stopped, "[DONE]"]).is_ok(), is_answer, "{other}");
    }
}

#[test]
fn long_words_of_a_server_are_cut() {
    let long = "i".repeat(1 << 20);
    let stopped = |word: &str| {
        let choice = json!({ "index": 0, "delta": { "content": "a" }, "finish_reason": word });
        json!({ "id": long, "model": long, "choices": [choice] }).to_string()
    };
    let reply = lines(&[&stopped("stop"), "[DONE]"]).unwrap();
    assert_eq!((reply.model.len(), reply.request_id.map(|id| id.len())), (256, Some(256)));
    let failure = lines(&[&stopped(&long), "[DONE]"]).unwrap_err();
    assert!(failure.message.len() < 600, "{}", failure.message.len());
}

#[test]
fn an_answer_whose_every_chunk_has_the_finish_reason_stop_is_read_to_its_end_mark() {
    let said = |text: &str| {
        let delta = format!(r#"{{"role":"assistant","content":"{text}"}}"#);
        format!(r#"{{"choices":[{{"delta":{delta},"finish_reason":"stop"}}]}}"#)
    };
    let read = |all: &[&str]| lines(all).map(|reply| reply.text).map_err(|failure| failure.class);
    let (empty, a, b) = (said(""), said("a"), said("b"));
    let unmarked = r#"{"choices":[{"delta":{"content":"c"}}]}"#;
    assert_eq!(read(&[&empty, &a, &b, "[DONE]"]), Ok("ab".to_owned()));
    // Without the end mark, the body may have ended after any of its chunks.
    assert_eq!(read(&[&empty, &a, &b]), Err(Class::Unreadable));
    assert_eq!(read(&[&a]), Ok("a".to_owned()));
    assert_eq!(read(&[&a, &b, unmarked, "[DONE]"]), Err(Class::Unreadable));
    assert_eq!(read(&[unmarked, &a, &b, "[DONE]"]), Err(Class::Unreadable));
}
