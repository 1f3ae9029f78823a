//! What servers send beside what is documented, over real HTTP: which answers are read, and which are none.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use pointsman::run::Output;
use pointsman::simulator::{Fault, FaultKind, Settings};
use pointsman::sink::{Format, Sink, Target};
use pointsman::source::Source;
use pointsman::types::{Class, Tokens};

use super::scripted::{ANSWER, Scripted, response, stream, stream_of_length};
use super::stage::*;

/// A recording of `tests/data/wire`.
macro_rules! recording {
    ($name:literal) => {
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/wire/", $name))
    };
}

const WITHOUT_DONE: &str = recording!("openai_chat_stream_without_done.sse");

const STEP: &str = "[[step]]\nname = \"say\"\nprompt = \"Say {{ item.id }}.\"\n";

/// One attempt at one target, and a second after a failure.
const ONCE: &str = "[retry]\nattempts_per_lane = 1\nrounds = 1\nbase = \"10ms\"\nmax = \"10ms\"\n";

/// Returns the text that is read from a server, or the class of the failure.
async fn read(scripted: &Scripted, format: &str) -> Result<String, Class> {
    let more = format!("format = \"{format}\"\n{PATIENT}");
    let pointsman = start(&format!("{ONCE}{}", provider_at("a", &scripted.url(), &more)));
    let answered = ask(&pointsman, "default", "Say.").await;
    assert!(answered.is_err() || scripted.requests() == 1);
    answered.map(|answer| answer.reply.text).map_err(|unanswered| unanswered.failure.class)
}

async fn read_stream(events: &str, is_ended: bool, format: &str) -> Result<String, Class> {
    let response = stream("", events, is_ended);
    let scripted = Scripted::start_closing(move |_| response.clone()).await;
    read(&scripted, format).await
}

#[tokio::test]
async fn a_stream_with_a_finish_reason_whose_body_ended_is_complete_without_its_end_mark() {
    let whole = Ok("Low tide at dawn.".to_owned());
    assert_eq!(read_stream(WITHOUT_DONE, true, "openai").await, whole);
    let response = stream_of_length(WITHOUT_DONE.len(), WITHOUT_DONE);
    let scripted = Scripted::start(move |_| response.clone()).await;
    assert_eq!(read(&scripted, "openai").await, whole);
}

#[tokio::test]
async fn a_stream_whose_body_breaks_off_is_unreadable() {
    assert_eq!(read_stream(WITHOUT_DONE, false, "openai").await, Err(Class::Unreadable));
    let response = stream_of_length(WITHOUT_DONE.len() + 1, WITHOUT_DONE);
    let scripted = Scripted::start_closing(move |_| response.clone()).await;
    assert_eq!(read(&scripted, "openai").await, Err(Class::Unreadable));
    // Ended as it should, but in the middle of the answer.
    let (middle, _) = WITHOUT_DONE.rsplit_once("data: ").unwrap();
    assert_eq!(read_stream(middle, true, "openai").await, Err(Class::Unreadable));
}

#[tokio::test]
async fn the_last_event_counts_with_one_line_end_after_it_or_none() {
    for end in ["\n", "", "\r\n"] {
        let events = format!("{WITHOUT_DONE}data: [DONE]{end}");
        assert_eq!(read_stream(&events, true, "openai").await, Ok("Low tide at dawn.".to_owned()), "{end:?}");
        for (format, recorded) in [
            ("anthropic", recording!("anthropic_messages_stream.sse")),
            ("gemini", recording!("gemini_stream.sse")),
        ] {
            let events = format!("{}{end}", recorded.trim_end());
            let text = read_stream(&events, true, format).await;
            assert_eq!(text, Ok("Low tide — ça va? 🌊".to_owned()), "{format} {end:?}");
        }
    }
}

#[tokio::test]
async fn an_answer_whose_every_chunk_has_a_finish_reason_is_read_whole() {
    let gemini = |text: &str| {
        let usage = r#"{"promptTokenCount":3,"candidatesTokenCount":2}"#;
        let content = format!(r#"{{"parts":[{{"text":"{text}"}}],"role":"model"}}"#);
        let candidate = format!(r#"{{"content":{content},"finishReason":"STOP","index":0}}"#);
        format!("data: {{\"candidates\":[{candidate}],\"usageMetadata\":{usage}}}\n\n")
    };
    let openai = |text: &str| {
        let choice = format!(r#"{{"index":0,"delta":{{"content":"{text}"}},"finish_reason":"stop"}}"#);
        format!("data: {{\"choices\":[{choice}]}}\n\n")
    };
    let whole = Ok("Low tide at dawn.".to_owned());
    let events = [gemini("Low "), gemini("tide "), gemini("at dawn.")].concat();
    assert_eq!(read_stream(&events, true, "gemini").await, whole);
    let events = [openai(""), openai("Low tide "), openai("at dawn."), "data: [DONE]\n\n".to_owned()];
    assert_eq!(read_stream(&events.concat(), true, "openai").await, whole);
    // A part of such an answer is none, and its end cannot be told from any other of its chunks.
    assert_eq!(read_stream(&gemini("Low "), false, "gemini").await, Err(Class::Unreadable));
    assert_eq!(read_stream(&events[..3].concat(), true, "openai").await, Err(Class::Unreadable));
}

#[tokio::test]
async fn a_character_whose_halves_come_in_two_chunks_is_read_in_every_format() {
    for (format, recorded) in [
        ("openai", recording!("openai_chat_stream_split_character.sse")),
        ("anthropic", recording!("anthropic_messages_stream_split_character.sse")),
        ("gemini", recording!("gemini_stream_split_character.sse")),
    ] {
        let text = read_stream(recorded, true, format).await;
        assert_eq!(text, Ok("Low tide 🌊 at dawn.".to_owned()), "{format}");
    }
}

#[tokio::test]
async fn a_number_where_a_text_is_expected_loses_no_answer_over_http() {
    let text = read_stream(recording!("openai_chat_stream_numbers.sse"), true, "openai").await;
    assert_eq!(text, Ok("Low tide.".to_owned()));
}

#[tokio::test]
async fn a_usage_of_zeros_at_the_end_of_a_stream_costs_no_count() {
    for (format, recorded, tokens) in [
        ("openai", recording!("openai_chat_stream_zero_usage_last.sse"), (14, 4)),
        ("anthropic", recording!("anthropic_messages_stream_zero_usage_last.sse"), (25, 9)),
        ("gemini", recording!("gemini_stream_zero_usage_last.sse"), (12, 9)),
    ] {
        let response = stream("", recorded, true);
        let scripted = Scripted::start(move |_| response.clone()).await;
        let more = format!("format = \"{format}\"\n{PATIENT}");
        let pointsman = start(&format!("{ONCE}{}", provider_at("a", &scripted.url(), &more)));
        let usage = ask(&pointsman, "default", "Say.").await.unwrap().reply.usage.unwrap();
        assert_eq!((usage.input, usage.output), (Tokens(tokens.0), Tokens(tokens.1)), "{format}");
    }
}

#[tokio::test]
async fn a_redirect_is_reported_with_its_location() {
    let location = "location: https://models.example.com/v1/chat/completions?token=hidden\r\n";
    for status in ["301 Moved Permanently", "302 Found", "307 Temporary Redirect", "308 Permanent Redirect"] {
        let response = response(status, location, "<html><title>Moved</title></html>");
        let scripted = Scripted::start(move |_| response.clone()).await;
        let pointsman =
            start(&format!("{ONCE}{}", provider_at("a", &format!("{}/v1", scripted.url()), PATIENT)));
        let failure = ask(&pointsman, "default", "Say.").await.unwrap_err().failure;
        assert_eq!(failure.class, Class::NotFound);
        let expected = "redirects to https://models.example.com/v1/chat/completions: use this address, \
                        base_url = \"https://models.example.com/v1\"";
        assert!(failure.message.contains(expected), "{failure}");
    }
}

/// The question has 20 s, the body would be waited for 60 s.
#[tokio::test]
async fn the_body_of_a_refusal_is_waited_for_a_second() {
    const HEAD: &str =
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n";
    let scripted = Scripted::start(|_| HEAD.to_owned()).await;
    let healthy = play(Settings::default());
    let slow = "timeouts = { first_token = \"60s\", idle = \"60s\" }\n";
    let config = provider_at("a", &scripted.url(), slow) + &provider("b", &healthy, PATIENT);
    let pointsman = start(&format!("{QUICK_RETRY}{config}"));
    let answered = ask(&pointsman, "default", "Say.").await;
    assert_eq!(story(&answered), "a:overloaded a:overloaded b:ok");
}

/// Answers with this text, as a stream of OpenAI's.
fn said(text: &str) -> String {
    let choice = serde_json::json!({ "index": 0, "delta": { "content": text }, "finish_reason": "stop" });
    format!("data: {}\n\ndata: [DONE]\n\n", serde_json::json!({ "choices": [choice] }))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reasoning_between_tags_is_removed_before_choice_schema_and_text_are_checked() {
    let choice = "choice = [\"URGENT\", \"OTHER\"]\n";
    let schema =
        "schema = { type = \"object\", properties = { n = { type = \"integer\" } }, required = [\"n\"] }\n";
    let list = "schema = { type = \"array\", items = { type = \"integer\" } }\n";
    for (check, text, answer) in [
        (choice, "<think>\nURGENT? No: OTHER.\nOTHER\n</think>\n\nURGENT", serde_json::json!("URGENT")),
        (schema, "<think>{\"n\": 1}</think>{\"n\": 2}", serde_json::json!({ "n": 2 })),
        (list, "<think>[1]</think>{\"answer\": [2]}", serde_json::json!([2])),
        ("", "<think>Hm.</think>\nHello.", serde_json::json!("Hello.")),
    ] {
        let response = stream("", &said(text), true);
        let scripted = Scripted::start(move |_| response.clone()).await;
        let pointsman = start(&provider_at("a", &scripted.url(), ""));
        let ran = run(&pointsman, &format!("{STEP}{check}"), 1).await;
        assert_eq!(ran.lines[0]["answers"]["say"], answer, "{:?}", ran.lines);
        assert_eq!(scripted.requests(), 1);
    }
    let response = stream("", &said("<think>Hm.</think>\nHello."), true);
    let scripted = Scripted::start(move |_| response.clone()).await;
    let pointsman = start(&provider_at("a", &scripted.url(), "reasoning_tags = \"keep\"\n"));
    let ran = run(&pointsman, STEP, 1).await;
    assert_eq!(ran.lines[0]["answers"]["say"], "<think>Hm.</think>\nHello.");
}

/// The simulator refuses files as the vendors do: OpenAI and Anthropic all but PDFs, Gemini JSON and XML.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_text_that_is_attached_is_sent_so_that_the_vendor_takes_it() {
    let folder = tempfile::tempdir().unwrap();
    let (pipeline, out) = (folder.path().join("pipeline.toml"), folder.path().join("out.jsonl"));
    let endings = ["txt", "md", "csv", "html", "json", "xml"];
    for ending in endings {
        std::fs::write(folder.path().join(format!("tides.{ending}")), "Low at dawn.").unwrap();
    }
    let step =
        "name = \"test\"\n[[step]]\nname = \"say\"\nprompt = \"When?\"\nattach = [\"tides.{{ item.id }}\"]\n";
    std::fs::write(&pipeline, step).unwrap();
    for (format, vendor) in FORMATS {
        let simulator = play(Settings::default());
        let more = format!("format = \"{format}\"\n{PATIENT}");
        let pointsman = start(&provider_at("a", &simulator.base_url(vendor), &more));
        let pipeline = pointsman.pipeline(&pipeline).unwrap_or_else(|faults| panic!("{faults}"));
        let names: Vec<_> = pipeline.steps().iter().map(|step| step.name.clone()).collect();
        let sink = Sink::results(Target::file(&out, &[]).unwrap(), Format::Jsonl, &names).unwrap();
        let values = endings.into_iter().map(|ending| serde_json::json!({ "id": ending }));
        let output = Output { lines: sink, rejects: None, ordered: false };
        let mut run = pointsman.run(pipeline, Source::values("items", values), output).await.unwrap();
        let report = run.report().await.unwrap();
        let lines = std::fs::read_to_string(&out).unwrap();
        assert_eq!((report.items.completed, report.items.failed), (6, 0), "{format}: {lines}");
    }
}

/// 30 of 300 answers are empty, each time that their question is asked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn empty_answers_fail_their_items_and_neither_stall_the_run_nor_open_the_breaker() {
    // `item-1` and `item-10` to `item-19`, `item-100` to `item-199` hold the text.
    let empty = Fault { contains: Some("item-1".to_owned()), ..Fault::new(FaultKind::Empty) };
    for (format, vendor) in FORMATS {
        let simulator = faulty([empty.clone()]);
        // One call at a time, so that empty answers come one after the other.
        let more = format!("format = \"{format}\"\nlimits.concurrency = 1\n");
        let pointsman = start(&provider_at("a", &simulator.base_url(vendor), &more));
        let ran = run(&pointsman, STEP, 40).await;
        let failed: Vec<_> = ran.lines.iter().filter(|line| line["error"].is_object()).collect();
        assert_eq!(failed.len(), 11, "{format}");
        assert!(
            failed.iter().all(|line| line["error"]["class"] == "validation_error"),
            "{format}: {failed:?}"
        );
        // Each was asked again twice, and nothing else was.
        assert_eq!(simulator.counts().requests, 29 + 3 * 11, "{format}");
        assert_eq!(snapshot(&pointsman, "a").lanes[0].breaker.as_str(), "closed");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_answer_is_asked_again_and_the_next_one_counts() {
    const EMPTY: &str =
        "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";
    let asked = AtomicUsize::new(0);
    let answer = move |_: &str| {
        let is_first = asked.fetch_add(1, SeqCst) == 0;
        stream("", if is_first { EMPTY } else { ANSWER }, true)
    };
    let scripted = Scripted::start(answer).await;
    let pointsman = start(&provider_at("a", &scripted.url(), ""));
    let ran = run(&pointsman, STEP, 1).await;
    assert_eq!(ran.lines[0]["answers"]["say"], "Hello.", "{:?}", ran.lines);
    assert_eq!(scripted.requests(), 2);
}
