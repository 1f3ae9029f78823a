//! Each fault does what it says, at every vendor.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::simulator::{Fault, FaultKind, RetryAfter};

use super::*;

fn faulty(fault: Fault) -> Simulator {
    start(Settings { faults: vec![fault], ..Settings::default() })
}

async fn reply(kind: FaultKind, call: &Call) -> Reply {
    let simulator = faulty(Fault::new(kind));
    let reply = call.send(&simulator).await;
    assert_eq!(simulator.counts().by_fault, [(kind, 1)].into());
    assert_eq!(simulator.counts().answered, 0);
    reply
}

/// What comes over a plain connection until nothing more comes, and how it ends.
async fn raw(simulator: &Simulator, call: &Call) -> (String, Ending) {
    let mut stream = TcpStream::connect(simulator.addr()).await.unwrap();
    let body = call.body().to_string();
    let prefix = if call.vendor == Vendor::OpenAi { "/v1" } else { "" };
    let head = format!(
        "POST {prefix}{} HTTP/1.1\r\nhost: x\r\nanthropic-version: 2023-06-01\r\ncontent-length: {}\r\n\r\n",
        call.path(),
        body.len()
    );
    stream.write_all((head + &body).as_bytes()).await.unwrap();
    let mut read = Vec::new();
    let ending = loop {
        let mut part = [0; 4096];
        match tokio::time::timeout(Duration::from_millis(300), stream.read(&mut part)).await {
            Err(_) => break Ending::Open,
            Ok(Ok(0)) => break Ending::Closed,
            Ok(Ok(length)) => read.extend_from_slice(&part[..length]),
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionReset => break Ending::Reset,
            Ok(Err(error)) => panic!("{error}"),
        }
    };
    (String::from_utf8(read).unwrap(), ending)
}

/// Whether a part of the body came, and not all: less than its length, or no last chunk.
fn is_half(read: &str) -> bool {
    let (head, body) = read.split_once("\r\n\r\n").unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    match length {
        Some(length) => !body.is_empty() && body.len() < length.parse::<usize>().unwrap(),
        None => body.contains("[practice]") && !body.contains("letter.") && !body.ends_with("0\r\n\r\n"),
    }
}

#[derive(Debug, PartialEq)]
enum Ending {
    Open,
    Closed,
    Reset,
}

#[tokio::test]
async fn errors_have_the_vendors_status_and_body() {
    for (kind, vendor, status, name) in [
        (FaultKind::RateLimited, Vendor::OpenAi, 429, "openai_error_429_rate_limit_requests.json"),
        (FaultKind::RateLimited, Vendor::Anthropic, 429, "anthropic_error_429_rate_limit.json"),
        (FaultKind::RateLimited, Vendor::Gemini, 429, "gemini_error_429_retryinfo.json"),
        (FaultKind::ServerError, Vendor::OpenAi, 500, "openai_error_500_server_error.json"),
        (FaultKind::ServerError, Vendor::Anthropic, 500, "anthropic_error_500_api_error.json"),
        (FaultKind::ServerError, Vendor::Gemini, 500, "gemini_error_500_internal.json"),
        (FaultKind::Unavailable, Vendor::OpenAi, 503, "openai_error_503_overloaded.json"),
        (FaultKind::Unavailable, Vendor::Anthropic, 503, "anthropic_error_500_api_error.json"),
        (FaultKind::Unavailable, Vendor::Gemini, 503, "gemini_error_503_unavailable.json"),
        (FaultKind::Overloaded, Vendor::OpenAi, 503, "openai_error_503_overloaded.json"),
        (FaultKind::Overloaded, Vendor::Anthropic, 529, "anthropic_error_overloaded.json"),
        (FaultKind::Overloaded, Vendor::Gemini, 503, "gemini_error_503_unavailable.json"),
        (FaultKind::Auth, Vendor::OpenAi, 401, "openai_error_401_invalid_api_key.json"),
        (FaultKind::Auth, Vendor::Anthropic, 401, "anthropic_error_401_authentication.json"),
        (FaultKind::Auth, Vendor::Gemini, 400, "gemini_error_400_api_key_invalid.json"),
        (FaultKind::Quota, Vendor::OpenAi, 429, "openai_error_429_insufficient_quota_legacy.json"),
        (FaultKind::Quota, Vendor::Anthropic, 429, "anthropic_error_429_spend_limit.json"),
        (FaultKind::Quota, Vendor::Gemini, 429, "gemini_error_429_daily_quota.json"),
        (FaultKind::NotFound, Vendor::OpenAi, 404, "openai_error_404_model_not_found.json"),
        (FaultKind::NotFound, Vendor::Anthropic, 404, "anthropic_error_404_model.json"),
        (FaultKind::NotFound, Vendor::Gemini, 404, "gemini_error_404_model.json"),
    ] {
        let reply = reply(kind, &call(vendor, true)).await;
        assert_eq!(reply.status, status, "{kind:?} {vendor}");
        let (played, real) = (reply.json(), fixture_json(name));
        assert_eq!(shape(&played), shape(&real), "{kind:?} {vendor}");
        for place in ["/error/type", "/error/code", "/error/status", "/error/details/0/error_code"] {
            assert_eq!(played.pointer(place), real.pointer(place), "{kind:?} {vendor} {place}");
        }
    }
}

#[tokio::test]
async fn only_a_rate_limit_says_when_to_come_back() {
    let limited = reply(FaultKind::RateLimited, &call(Vendor::OpenAi, true)).await;
    assert_eq!(limited.header("retry-after"), Some("1"));
    let quota = reply(FaultKind::Quota, &call(Vendor::Anthropic, true)).await;
    assert_eq!(quota.header("retry-after"), None);
    let silent = Fault { retry_after: Some(RetryAfter::Missing), ..Fault::new(FaultKind::RateLimited) };
    let reply = call(Vendor::OpenAi, true).send(&faulty(silent)).await;
    assert_eq!((reply.status, reply.header("retry-after")), (429, None));
}

#[tokio::test]
async fn a_status_can_be_given() {
    let bad_gateway = Fault { status: Some(502), ..Fault::new(FaultKind::ServerError) };
    assert_eq!(call(Vendor::OpenAi, true).send(&faulty(bad_gateway)).await.status, 502);
    let overloaded = Fault { status: Some(529), ..Fault::new(FaultKind::Overloaded) };
    assert_eq!(call(Vendor::Gemini, true).send(&faulty(overloaded)).await.status, 529);
}

#[tokio::test]
async fn a_reset_comes_before_any_byte() {
    for vendor in Vendor::ALL {
        let simulator = faulty(Fault::new(FaultKind::Reset));
        assert_eq!(raw(&simulator, &call(vendor, true)).await, (String::new(), Ending::Reset));
        assert_eq!((simulator.counts().in_flight, simulator.counts().by_status.len()), (0, 0));
    }
}

#[tokio::test]
async fn silence_is_an_open_connection_without_a_byte() {
    let simulator = faulty(Fault::new(FaultKind::Silent));
    assert_eq!(raw(&simulator, &call(Vendor::OpenAi, true)).await, (String::new(), Ending::Open));
    assert_eq!(simulator.counts().by_fault, [(FaultKind::Silent, 1)].into());
}

#[tokio::test]
async fn a_cut_ends_the_connection_in_the_middle_of_an_answer() {
    for vendor in Vendor::ALL {
        for stream in [true, false] {
            let (read, ending) = raw(&faulty(Fault::new(FaultKind::Cut)), &call(vendor, stream)).await;
            assert_eq!(ending, Ending::Closed, "{vendor}");
            assert!(read.starts_with("HTTP/1.1 200 OK"), "{read}");
            assert!(is_half(&read), "{vendor} {stream}: {read}");
        }
    }
}

#[tokio::test]
async fn a_stalled_answer_stops_and_stays_open() {
    for vendor in Vendor::ALL {
        for stream in [true, false] {
            let (read, ending) = raw(&faulty(Fault::new(FaultKind::Stalled)), &call(vendor, stream)).await;
            assert_eq!(ending, Ending::Open, "{vendor}");
            assert!(is_half(&read), "{vendor} {stream}: {read}");
        }
    }
}

#[tokio::test]
async fn a_slow_first_token_comes_after_the_head_and_not_before_its_delay() {
    let slow = Fault { delay: Some(Duration::from_millis(150)), ..Fault::new(FaultKind::SlowFirstToken) };
    let simulator = faulty(slow);
    let begin = tokio::time::Instant::now();
    let mut response = call(Vendor::Anthropic, true).request(&simulator).send().await.unwrap();
    let first = response.chunk().await.unwrap().unwrap();
    assert!(begin.elapsed() >= Duration::from_millis(149), "{:?}", begin.elapsed());
    assert!(first.starts_with(b"event: message_start"));
    assert!(response.text().await.unwrap().contains("message_stop"));
}

#[tokio::test]
async fn a_malformed_chunk_is_one_broken_event_among_whole_ones() {
    for vendor in Vendor::ALL {
        let body = reply(FaultKind::MalformedChunk, &call(vendor, true)).await.body;
        let data: Vec<_> = body.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
        let broken =
            data.iter().filter(|data| **data != "[DONE]" && serde_json::from_str::<Value>(data).is_err());
        assert_eq!(broken.count(), 1, "{body}");
        let whole = reply(FaultKind::MalformedChunk, &call(vendor, false)).await.body;
        assert!(serde_json::from_str::<Value>(&whole).is_err());
    }
}

#[tokio::test]
async fn a_stream_without_an_end_has_all_its_text_and_no_mark() {
    for (vendor, mark) in
        [(Vendor::OpenAi, "[DONE]"), (Vendor::Anthropic, "message_stop"), (Vendor::Gemini, "finishReason")]
    {
        let reply = reply(FaultKind::NoEnd, &call(vendor, true)).await;
        assert_eq!(reply.text(), "[practice] Please tell me what stands in this letter.");
        assert!(
            !reply.body.contains(mark) && !reply.body.contains("finish_reason\":\"stop"),
            "{}",
            reply.body
        );
        let simulator = faulty(Fault::new(FaultKind::NoEnd));
        assert_eq!(call(vendor, false).send(&simulator).await.status, 200);
        assert!(simulator.counts().by_fault.is_empty(), "only streams have an end mark");
    }
}

#[tokio::test]
async fn truncated_json_says_that_it_is_finished() {
    let list = json!({ "type": "object", "properties": { "a": { "type": "string" } }, "required": ["a"],
        "additionalProperties": false });
    for vendor in Vendor::ALL {
        let body = reply(FaultKind::TruncatedJson, &call(vendor, false)).await.body;
        assert!(body.starts_with('{') && serde_json::from_str::<Value>(&body).is_err());
        let reply = reply(FaultKind::TruncatedJson, &call(vendor, true).schema(list.clone())).await;
        assert!(serde_json::from_str::<Value>(&reply.text()).is_err(), "{}", reply.text());
        let mark = ["[DONE]", "message_stop", "STOP"].iter().any(|mark| reply.body.contains(mark));
        assert!(mark, "{}", reply.body);
    }
}

#[tokio::test]
async fn html_comes_with_a_200() {
    let reply = reply(FaultKind::Html, &call(Vendor::OpenAi, true)).await;
    assert_eq!((reply.status, reply.header("content-type")), (200, Some("text/html; charset=UTF-8")));
    assert!(reply.body.starts_with("<html>"));
}

#[tokio::test]
async fn wrong_content_is_a_proper_reply_that_breaks_the_rule() {
    let schema = json!({ "type": "object", "properties": { "a": { "type": "string" } }, "required": ["a"],
        "additionalProperties": false });
    for vendor in Vendor::ALL {
        let text = reply(FaultKind::WrongContent, &call(vendor, true).schema(schema.clone())).await.text();
        let value: Value = serde_json::from_str(&text).unwrap();
        assert!(!jsonschema::is_valid(&schema, &value));
        let choice = call(vendor, true).prompt("Answer with exactly one of: A, B");
        let text = reply(FaultKind::WrongContent, &choice).await.text();
        assert_eq!(text, "[practice] none of these");
    }
}

#[tokio::test]
async fn empty_length_and_refusal_are_marked_as_each_vendor_marks_them() {
    for (kind, vendor, place, mark) in [
        (FaultKind::Empty, Vendor::OpenAi, "/choices/0/message/content", json!("")),
        (FaultKind::Empty, Vendor::Anthropic, "/content", json!([])),
        (FaultKind::Empty, Vendor::Gemini, "/candidates/0/finishReason", json!("STOP")),
        (FaultKind::Length, Vendor::OpenAi, "/choices/0/finish_reason", json!("length")),
        (FaultKind::Length, Vendor::Anthropic, "/stop_reason", json!("max_tokens")),
        (FaultKind::Length, Vendor::Gemini, "/candidates/0/finishReason", json!("MAX_TOKENS")),
        (FaultKind::Refusal, Vendor::OpenAi, "/choices/0/message/content", Value::Null),
        (FaultKind::Refusal, Vendor::Anthropic, "/stop_reason", json!("refusal")),
        (FaultKind::Refusal, Vendor::Gemini, "/candidates/0/finishReason", json!("SAFETY")),
    ] {
        let whole = reply(kind, &call(vendor, false)).await;
        assert_eq!(whole.status, 200);
        assert_eq!(whole.json().pointer(place), Some(&mark), "{kind:?} {vendor}");
        let stream = reply(kind, &call(vendor, true)).await;
        if kind != FaultKind::Length {
            assert_eq!(stream.text(), "", "{}", stream.body);
        }
    }
    for (vendor, name) in [
        (Vendor::OpenAi, "openai_chat_response_refusal.json"),
        (Vendor::Anthropic, "anthropic_messages_response_refusal.json"),
        (Vendor::Gemini, "gemini_generate_response_safety.json"),
    ] {
        let refusal = reply(FaultKind::Refusal, &call(vendor, false)).await.json();
        assert_eq!(shape(&refusal), shape(&fixture_json(name)), "{vendor}");
    }
}

#[tokio::test]
async fn an_error_inside_a_200_comes_after_the_first_piece() {
    for (vendor, name) in [
        (Vendor::OpenAi, "openai_chat_stream_error_midway.sse"),
        (Vendor::Anthropic, "anthropic_messages_stream_error_overloaded.sse"),
        (Vendor::Gemini, "gemini_stream_error_midway.sse"),
    ] {
        let reply = reply(FaultKind::ErrorInStream, &call(vendor, true)).await;
        assert_eq!(reply.status, 200);
        assert!(reply.text().starts_with("[practice]"), "{}", reply.body);
        let (played, real) = (events(&reply.body), events(&fixture(name)));
        assert_eq!(played.last().unwrap()["error"], real.last().unwrap()["error"], "{vendor}");
        assert_eq!(reply.body.contains("event: error"), vendor == Vendor::Anthropic);
    }
}

#[tokio::test]
async fn an_outage_ends_when_its_time_is_over() {
    let over = Fault { until: Some(Duration::ZERO), ..Fault::new(FaultKind::Reset) };
    let coming = Fault { from: Some(Duration::from_secs(3_600)), ..Fault::new(FaultKind::Reset) };
    let simulator = start(Settings { faults: vec![over, coming], ..Settings::default() });
    assert_eq!(call(Vendor::OpenAi, true).send(&simulator).await.status, 200);
}

#[tokio::test]
async fn a_fault_of_one_time_lets_the_repetition_through() {
    let once = Fault { times: Some(1), ..Fault::new(FaultKind::Unavailable) };
    let simulator = faulty(once);
    let call = call(Vendor::OpenAi, true);
    assert_eq!(call.send(&simulator).await.status, 503);
    assert_eq!(call.send(&simulator).await.status, 200);
    assert_eq!(call.prompt("another").send(&simulator).await.status, 503);
}

#[tokio::test]
async fn shares_hold_over_many_requests() {
    let simulator = faulty(Fault::new(FaultKind::ServerError).share(0.2));
    let http = client();
    let url = simulator.base_url(Vendor::OpenAi) + "/chat/completions";
    let mut failed = 0;
    for nth in 0..500 {
        let body = call(Vendor::OpenAi, true).prompt(format!("item {nth}")).body().to_string();
        let response = http.post(&url).body(body).send().await.unwrap();
        failed += usize::from(response.status() == 500);
        response.bytes().await.unwrap();
    }
    assert!((70..130).contains(&failed), "{failed} of 500");
    assert_eq!(simulator.counts().by_fault, [(FaultKind::ServerError, failed as u64)].into());
}
