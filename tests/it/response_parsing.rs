//! Undocumented responses of real servers over HTTP: which are accepted, and which are failures.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use pointsman::run::RunOutput;
use pointsman::simulator::{Fault, FaultKind, Settings};
use pointsman::sink::{Destination, Format, Sink};
use pointsman::source::Source;
use pointsman::types::{Class, Tokens};

use super::scripted_server::{RESPONSE_STREAM, ScriptedServer, response, stream, stream_of_length};
use super::support::*;

/// A recording of `tests/data/wire`.
macro_rules! recording {
    ($name:literal) => {
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/wire/", $name))
    };
}

const WITHOUT_DONE: &str = recording!("openai_chat_stream_without_done.sse");

const STEP: &str = "[[step]]\nname = \"say\"\nprompt = \"Say {{ item.id }}.\"\n";

/// One attempt at each target.
const ONE_ATTEMPT: &str =
    "[retry]\nattempts_per_target = 1\nmax_rounds = 1\ninitial_backoff = \"10ms\"\nmax_backoff = \"10ms\"\n";

/// Returns the text of a response from the server, or the class of the failure.
async fn read(server: &ScriptedServer, format: &str) -> Result<String, Class> {
    let more = format!("format = \"{format}\"\n{LONG_TIMEOUTS}");
    let pointsman =
        start_pointsman(&format!("{ONE_ATTEMPT}{}", provider_config_at("a", &server.url(), &more)));
    let result = send_request(&pointsman, "default", "Say.").await;
    assert!(result.is_err() || server.requests() == 1);
    result.map(|answer| answer.completion.text).map_err(|error| error.failure.class)
}

async fn read_stream(events: &str, is_ended: bool, format: &str) -> Result<String, Class> {
    let response = stream("", events, is_ended);
    let server = ScriptedServer::start_closing(move |_| response.clone()).await;
    read(&server, format).await
}

#[tokio::test]
async fn a_stream_with_a_finish_reason_whose_body_ended_is_complete_without_its_end_mark() {
    let expected = Ok("Low tide at dawn.".to_owned());
    assert_eq!(read_stream(WITHOUT_DONE, true, "openai").await, expected);
    let response = stream_of_length(WITHOUT_DONE.len(), WITHOUT_DONE);
    let server = ScriptedServer::start(move |_| response.clone()).await;
    assert_eq!(read(&server, "openai").await, expected);
}

#[tokio::test]
async fn a_stream_whose_body_is_cut_off_is_unreadable() {
    assert_eq!(read_stream(WITHOUT_DONE, false, "openai").await, Err(Class::Unreadable));
    let response = stream_of_length(WITHOUT_DONE.len() + 1, WITHOUT_DONE);
    let server = ScriptedServer::start_closing(move |_| response.clone()).await;
    assert_eq!(read(&server, "openai").await, Err(Class::Unreadable));
    // The body ends correctly, but in the middle of the answer.
    let (middle, _) = WITHOUT_DONE.rsplit_once("data: ").unwrap();
    assert_eq!(read_stream(middle, true, "openai").await, Err(Class::Unreadable));
}

#[tokio::test]
async fn the_last_event_is_read_with_one_line_end_after_it_or_none() {
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
async fn an_answer_whose_every_chunk_has_a_finish_reason_is_read_completely() {
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
    let expected = Ok("Low tide at dawn.".to_owned());
    let events = [gemini("Low "), gemini("tide "), gemini("at dawn.")].concat();
    assert_eq!(read_stream(&events, true, "gemini").await, expected);
    let events = [openai(""), openai("Low tide "), openai("at dawn."), "data: [DONE]\n\n".to_owned()];
    assert_eq!(read_stream(&events.concat(), true, "openai").await, expected);
    // A part of such an answer is a failure: the last chunk looks like any other chunk.
    assert_eq!(read_stream(&gemini("Low "), false, "gemini").await, Err(Class::Unreadable));
    assert_eq!(read_stream(&events[..3].concat(), true, "openai").await, Err(Class::Unreadable));
}

#[tokio::test]
async fn a_character_split_over_two_chunks_is_read_in_every_format() {
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
async fn a_number_in_place_of_a_text_loses_no_answer() {
    let text = read_stream(recording!("openai_chat_stream_numbers.sse"), true, "openai").await;
    assert_eq!(text, Ok("Low tide.".to_owned()));
}

#[tokio::test]
async fn zero_usage_at_the_end_of_a_stream_does_not_replace_earlier_counts() {
    for (format, recorded, tokens) in [
        ("openai", recording!("openai_chat_stream_zero_usage_last.sse"), (14, 4)),
        ("anthropic", recording!("anthropic_messages_stream_zero_usage_last.sse"), (25, 9)),
        ("gemini", recording!("gemini_stream_zero_usage_last.sse"), (12, 9)),
    ] {
        let response = stream("", recorded, true);
        let server = ScriptedServer::start(move |_| response.clone()).await;
        let more = format!("format = \"{format}\"\n{LONG_TIMEOUTS}");
        let pointsman =
            start_pointsman(&format!("{ONE_ATTEMPT}{}", provider_config_at("a", &server.url(), &more)));
        let usage = send_request(&pointsman, "default", "Say.").await.unwrap().completion.usage.unwrap();
        assert_eq!((usage.input, usage.output), (Tokens(tokens.0), Tokens(tokens.1)), "{format}");
    }
}

#[tokio::test]
async fn a_redirect_is_reported_with_its_location() {
    let location = "location: https://models.example.com/v1/chat/completions?token=hidden\r\n";
    for status in ["301 Moved Permanently", "302 Found", "307 Temporary Redirect", "308 Permanent Redirect"] {
        let response = response(status, location, "<html><title>Moved</title></html>");
        let server = ScriptedServer::start(move |_| response.clone()).await;
        let pointsman = start_pointsman(&format!(
            "{ONE_ATTEMPT}{}",
            provider_config_at("a", &format!("{}/v1", server.url()), LONG_TIMEOUTS)
        ));
        let failure = send_request(&pointsman, "default", "Say.").await.unwrap_err().failure;
        assert_eq!(failure.class, Class::NotFound);
        let expected = "redirects to another host, models.example.com: check base_url. The address of the redirect \
                        is \"https://models.example.com/v1/chat/completions\"";
        assert!(failure.message.contains(expected) && !failure.message.contains("hidden"), "{failure}");
    }
}

/// The deadline of the request is 20 s, the timeout for the body is 60 s.
#[tokio::test]
async fn the_body_of_an_http_error_is_awaited_for_one_second() {
    const HEAD: &str =
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n";
    let server = ScriptedServer::start(|_| HEAD.to_owned()).await;
    let healthy = start_simulator(Settings::default());
    let slow = "timeouts = { first_token = \"60s\", idle = \"60s\" }\n";
    let config =
        provider_config_at("a", &server.url(), slow) + &provider_config("b", &healthy, LONG_TIMEOUTS);
    let pointsman = start_pointsman(&format!("{QUICK_RETRY}{config}"));
    let result = send_request(&pointsman, "default", "Say.").await;
    assert_eq!(attempt_summary(&result), "a:overloaded a:overloaded b:ok");
}

/// Returns an event stream of OpenAI with this text.
fn openai_stream(text: &str) -> String {
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
        let response = stream("", &openai_stream(text), true);
        let server = ScriptedServer::start(move |_| response.clone()).await;
        let pointsman = start_pointsman(&provider_config_at("a", &server.url(), ""));
        let finished = run_pipeline(&pointsman, &format!("{STEP}{check}"), 1).await;
        assert_eq!(finished.lines[0]["answers"]["say"], answer, "{:?}", finished.lines);
        assert_eq!(server.requests(), 1);
    }
    let response = stream("", &openai_stream("<think>Hm.</think>\nHello."), true);
    let server = ScriptedServer::start(move |_| response.clone()).await;
    let pointsman = start_pointsman(&provider_config_at("a", &server.url(), "reasoning_tags = \"keep\"\n"));
    let finished = run_pipeline(&pointsman, STEP, 1).await;
    assert_eq!(finished.lines[0]["answers"]["say"], "<think>Hm.</think>\nHello.");
}

/// The simulator refuses files as the vendors do: OpenAI and Anthropic all but PDFs, Gemini JSON and XML.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_attached_text_is_sent_in_a_form_that_the_vendor_accepts() {
    let folder = tempfile::tempdir().unwrap();
    let pipeline = folder.path().join("pipeline.toml");
    let out = folder.path().join("out.jsonl");
    let endings = ["txt", "md", "csv", "html", "json", "xml"];
    for ending in endings {
        std::fs::write(folder.path().join(format!("tides.{ending}")), "Low at dawn.").unwrap();
    }
    let step =
        "name = \"test\"\n[[step]]\nname = \"say\"\nprompt = \"When?\"\nattach = [\"tides.{{ item.id }}\"]\n";
    std::fs::write(&pipeline, step).unwrap();
    for (format, vendor) in FORMATS {
        let simulator = start_simulator(Settings::default());
        let more = format!("format = \"{format}\"\n{LONG_TIMEOUTS}");
        let pointsman = start_pointsman(&provider_config_at("a", &simulator.base_url(vendor), &more));
        let pipeline = pointsman.pipeline(&pipeline).unwrap_or_else(|diagnostics| panic!("{diagnostics}"));
        let names: Vec<_> = pipeline.steps().iter().map(|step| step.name.clone()).collect();
        let sink = Sink::results(Destination::file(&out, &[]).unwrap(), Format::Jsonl, &names).unwrap();
        let values = endings.into_iter().map(|ending| serde_json::json!({ "id": ending }));
        let source = Source::values("items", values);
        let mut run = pointsman.run(pipeline, source, RunOutput::new(sink)).await.unwrap();
        let report = run.report().await.unwrap();
        let lines = std::fs::read_to_string(&out).unwrap();
        assert_eq!((report.items.completed, report.items.failed), (6, 0), "{format}: {lines}");
    }
}

/// The answers to 11 of 40 items are always empty.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn empty_answers_fail_their_items_and_neither_stall_the_run_nor_open_the_breaker() {
    // The text is in the prompts of `item-1` and of `item-10` to `item-19`.
    let empty = Fault { contains: Some("item-1".to_owned()), ..Fault::new(FaultKind::Empty) };
    for (format, vendor) in FORMATS {
        let simulator = start_faulty_simulator([empty.clone()]);
        // One call at a time, so that empty answers come one after the other.
        let more = format!("format = \"{format}\"\nlimits.concurrency = 1\n");
        let pointsman = start_pointsman(&provider_config_at("a", &simulator.base_url(vendor), &more));
        let finished = run_pipeline(&pointsman, STEP, 40).await;
        let failed: Vec<_> = finished.lines.iter().filter(|line| line["error"].is_object()).collect();
        assert_eq!(failed.len(), 11, "{format}");
        assert!(
            failed.iter().all(|line| line["error"]["class"] == "validation_error"),
            "{format}: {failed:?}"
        );
        // Only these requests were sent again, each twice.
        assert_eq!(simulator.counts().requests, 29 + 3 * 11, "{format}");
        assert_eq!(provider_snapshot(&pointsman, "a").targets[0].breaker.as_str(), "closed");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_answer_is_requested_again_and_the_next_one_counts() {
    const EMPTY: &str =
        "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";
    let request_count = AtomicUsize::new(0);
    let answer = move |_: &str| {
        let is_first = request_count.fetch_add(1, SeqCst) == 0;
        stream("", if is_first { EMPTY } else { RESPONSE_STREAM }, true)
    };
    let server = ScriptedServer::start(answer).await;
    let pointsman = start_pointsman(&provider_config_at("a", &server.url(), ""));
    let finished = run_pipeline(&pointsman, STEP, 1).await;
    assert_eq!(finished.lines[0]["answers"]["say"], "Hello.", "{:?}", finished.lines);
    assert_eq!(server.requests(), 2);
}
