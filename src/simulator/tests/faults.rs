//! Tests of all kinds of faults, for each vendor.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::simulator::{Fault, FaultKind, RetryAfter};

use super::*;

fn faulty(fault: Fault) -> Simulator {
    start(Settings { faults: vec![fault], ..Settings::default() })
}

async fn send_with_fault(kind: FaultKind, call: &Call) -> ReceivedResponse {
    let simulator = faulty(Fault::new(kind));
    let response = call.send(&simulator).await;
    assert_eq!(simulator.counts().by_fault, [(kind, 1)].into());
    assert_eq!(simulator.counts().answered, 0);
    response
}

/// Returns the bytes received over a TCP connection until it closes or stays idle for 300 ms, and how it ended.
async fn raw_response(simulator: &Simulator, call: &Call) -> (String, Ending) {
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

/// Returns whether the body is incomplete but not empty: shorter than its length, or without the last chunk.
fn is_half(read: &str) -> bool {
    let (head, body) = read.split_once("\r\n\r\n").unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    match length {
        Some(length) => !body.is_empty() && body.len() < length.parse::<usize>().unwrap(),
        None => body.contains("[simulated]") && !body.contains("letter.") && !body.ends_with("0\r\n\r\n"),
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
        let response = send_with_fault(kind, &call(vendor, true)).await;
        assert_eq!(response.status, status, "{kind:?} {vendor}");
        let simulated = response.json();
        let real = fixture_json(name);
        assert_eq!(shape(&simulated), shape(&real), "{kind:?} {vendor}");
        for pointer in ["/error/type", "/error/code", "/error/status", "/error/details/0/error_code"] {
            assert_eq!(simulated.pointer(pointer), real.pointer(pointer), "{kind:?} {vendor} {pointer}");
        }
    }
}

#[tokio::test]
async fn only_a_rate_limit_has_a_retry_delay() {
    let limited = send_with_fault(FaultKind::RateLimited, &call(Vendor::OpenAi, true)).await;
    assert_eq!(limited.header("retry-after"), Some("1"));
    let quota = send_with_fault(FaultKind::Quota, &call(Vendor::Anthropic, true)).await;
    assert_eq!(quota.header("retry-after"), None);
    let without_delay =
        Fault { retry_after: Some(RetryAfter::Missing), ..Fault::new(FaultKind::RateLimited) };
    let response = call(Vendor::OpenAi, true).send(&faulty(without_delay)).await;
    assert_eq!((response.status, response.header("retry-after")), (429, None));
}

#[tokio::test]
async fn the_status_can_be_set() {
    let bad_gateway = Fault { status: Some(502), ..Fault::new(FaultKind::ServerError) };
    assert_eq!(call(Vendor::OpenAi, true).send(&faulty(bad_gateway)).await.status, 502);
    let overloaded = Fault { status: Some(529), ..Fault::new(FaultKind::Overloaded) };
    assert_eq!(call(Vendor::Gemini, true).send(&faulty(overloaded)).await.status, 529);
}

#[tokio::test]
async fn a_reset_happens_before_any_byte() {
    for vendor in Vendor::ALL {
        let simulator = faulty(Fault::new(FaultKind::Reset));
        assert_eq!(raw_response(&simulator, &call(vendor, true)).await, (String::new(), Ending::Reset));
        assert_eq!((simulator.counts().in_flight, simulator.counts().by_status.len()), (0, 0));
    }
}

#[tokio::test]
async fn a_silent_fault_keeps_the_connection_open_without_a_byte() {
    let simulator = faulty(Fault::new(FaultKind::Silent));
    assert_eq!(raw_response(&simulator, &call(Vendor::OpenAi, true)).await, (String::new(), Ending::Open));
    assert_eq!(simulator.counts().by_fault, [(FaultKind::Silent, 1)].into());
}

#[tokio::test]
async fn a_cut_closes_the_connection_in_the_middle_of_an_answer() {
    for vendor in Vendor::ALL {
        for stream in [true, false] {
            let (read, ending) =
                raw_response(&faulty(Fault::new(FaultKind::Cut)), &call(vendor, stream)).await;
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
            let (read, ending) =
                raw_response(&faulty(Fault::new(FaultKind::Stalled)), &call(vendor, stream)).await;
            assert_eq!(ending, Ending::Open, "{vendor}");
            assert!(is_half(&read), "{vendor} {stream}: {read}");
        }
    }
}

#[tokio::test]
async fn a_slow_first_token_is_sent_after_its_delay() {
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
async fn a_malformed_chunk_is_one_invalid_event_in_a_valid_stream() {
    for vendor in Vendor::ALL {
        let body = send_with_fault(FaultKind::MalformedChunk, &call(vendor, true)).await.body;
        let data: Vec<_> = body.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
        let broken =
            data.iter().filter(|data| **data != "[DONE]" && serde_json::from_str::<Value>(data).is_err());
        assert_eq!(broken.count(), 1, "{body}");
        let whole = send_with_fault(FaultKind::MalformedChunk, &call(vendor, false)).await.body;
        assert!(serde_json::from_str::<Value>(&whole).is_err());
    }
}

#[tokio::test]
async fn a_stream_without_an_end_has_all_its_text_but_no_end_marker() {
    for (vendor, marker) in
        [(Vendor::OpenAi, "[DONE]"), (Vendor::Anthropic, "message_stop"), (Vendor::Gemini, "finishReason")]
    {
        let response = send_with_fault(FaultKind::NoEnd, &call(vendor, true)).await;
        assert_eq!(response.text(), "[simulated] Please tell me what stands in this letter.");
        assert!(
            !response.body.contains(marker) && !response.body.contains("finish_reason\":\"stop"),
            "{}",
            response.body
        );
        let simulator = faulty(Fault::new(FaultKind::NoEnd));
        assert_eq!(call(vendor, false).send(&simulator).await.status, 200);
        assert!(simulator.counts().by_fault.is_empty(), "only streams have an end marker");
    }
}

#[tokio::test]
async fn truncated_json_is_marked_as_complete() {
    let list = json!({ "type": "object", "properties": { "a": { "type": "string" } }, "required": ["a"],
        "additionalProperties": false });
    for vendor in Vendor::ALL {
        let body = send_with_fault(FaultKind::TruncatedJson, &call(vendor, false)).await.body;
        assert!(body.starts_with('{') && serde_json::from_str::<Value>(&body).is_err());
        let response =
            send_with_fault(FaultKind::TruncatedJson, &call(vendor, true).schema(list.clone())).await;
        assert!(serde_json::from_str::<Value>(&response.text()).is_err(), "{}", response.text());
        let marker = ["[DONE]", "message_stop", "STOP"].iter().any(|marker| response.body.contains(marker));
        assert!(marker, "{}", response.body);
    }
}

#[tokio::test]
async fn html_has_status_200() {
    let response = send_with_fault(FaultKind::Html, &call(Vendor::OpenAi, true)).await;
    assert_eq!((response.status, response.header("content-type")), (200, Some("text/html; charset=UTF-8")));
    assert!(response.body.starts_with("<html>"));
}

#[tokio::test]
async fn wrong_content_is_a_valid_response_that_violates_the_schema() {
    let schema = json!({ "type": "object", "properties": { "a": { "type": "string" } }, "required": ["a"],
        "additionalProperties": false });
    for vendor in Vendor::ALL {
        let text =
            send_with_fault(FaultKind::WrongContent, &call(vendor, true).schema(schema.clone())).await.text();
        let value: Value = serde_json::from_str(&text).unwrap();
        assert!(!jsonschema::is_valid(&schema, &value));
        let choice = call(vendor, true).prompt("Answer with exactly one of: A, B");
        let text = send_with_fault(FaultKind::WrongContent, &choice).await.text();
        assert_eq!(text, "[simulated] none of these");
    }
}

#[tokio::test]
async fn empty_length_and_refusal_have_the_vendors_format() {
    for (kind, vendor, pointer, marker) in [
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
        let whole = send_with_fault(kind, &call(vendor, false)).await;
        assert_eq!(whole.status, 200);
        assert_eq!(whole.json().pointer(pointer), Some(&marker), "{kind:?} {vendor}");
        let stream = send_with_fault(kind, &call(vendor, true)).await;
        if kind != FaultKind::Length {
            assert_eq!(stream.text(), "", "{}", stream.body);
        }
    }
    for (vendor, name) in [
        (Vendor::OpenAi, "openai_chat_response_refusal.json"),
        (Vendor::Anthropic, "anthropic_messages_response_refusal.json"),
        (Vendor::Gemini, "gemini_generate_response_safety.json"),
    ] {
        let refusal = send_with_fault(FaultKind::Refusal, &call(vendor, false)).await.json();
        assert_eq!(shape(&refusal), shape(&fixture_json(name)), "{vendor}");
    }
}

#[tokio::test]
async fn an_error_in_a_stream_is_sent_after_the_first_chunk() {
    for (vendor, name) in [
        (Vendor::OpenAi, "openai_chat_stream_error_midway.sse"),
        (Vendor::Anthropic, "anthropic_messages_stream_error_overloaded.sse"),
        (Vendor::Gemini, "gemini_stream_error_midway.sse"),
    ] {
        let response = send_with_fault(FaultKind::ErrorInStream, &call(vendor, true)).await;
        assert_eq!(response.status, 200);
        assert!(response.text().starts_with("[simulated]"), "{}", response.body);
        let simulated = events(&response.body);
        let real = events(&fixture(name));
        assert_eq!(simulated.last().unwrap()["error"], real.last().unwrap()["error"], "{vendor}");
        assert_eq!(response.body.contains("event: error"), vendor == Vendor::Anthropic);
    }
}

#[tokio::test]
async fn a_fault_does_not_apply_outside_its_time() {
    let over = Fault { until: Some(Duration::ZERO), ..Fault::new(FaultKind::Reset) };
    let coming = Fault { from: Some(Duration::from_secs(3_600)), ..Fault::new(FaultKind::Reset) };
    let simulator = start(Settings { faults: vec![over, coming], ..Settings::default() });
    assert_eq!(call(Vendor::OpenAi, true).send(&simulator).await.status, 200);
}

#[tokio::test]
async fn a_fault_with_times_1_does_not_apply_to_the_repetition() {
    let once = Fault { times: Some(1), ..Fault::new(FaultKind::Unavailable) };
    let simulator = faulty(once);
    let call = call(Vendor::OpenAi, true);
    assert_eq!(call.send(&simulator).await.status, 503);
    assert_eq!(call.send(&simulator).await.status, 200);
    assert_eq!(call.prompt("another").send(&simulator).await.status, 503);
}

#[tokio::test]
async fn the_share_holds_over_many_requests() {
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
