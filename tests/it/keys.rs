//! Rotation and cooldown of keys. A key is never shown.

use std::time::Duration;

use pointsman::simulator::{Fault, FaultKind, Settings};
use pointsman::types::{Class, RequestError, Response};

use super::scripted_server::{RESPONSE_STREAM, ScriptedServer, header, response, stream};
use super::support::*;

const TWO_KEYS: &str = "keys = [\"env:K1\", \"env:K2\"]";

/// Returns all text that a result can show.
fn all_text(result: &Result<Response, Box<RequestError>>) -> String {
    let json = serde_json::to_string(attempt_log(result)).unwrap();
    let shown = result.as_ref().err().map(ToString::to_string);
    format!("{result:?} {result:#?} {json} {shown:?}")
}

fn shows_a_key(text: &str) -> bool {
    ["K1", "K2"].into_iter().any(|name| text.contains(&lookup_key(name).unwrap()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_key_cools_down_and_the_next_key_is_used() {
    for (format, vendor) in FORMATS {
        let simulator =
            start_simulator(Settings { keys: vec![lookup_key("K2").unwrap()], ..Settings::default() });
        let url = simulator.base_url(vendor);
        let more = format!("format = \"{format}\"\n{TWO_KEYS}{LONG_TIMEOUTS}");
        let pointsman = start_pointsman(&provider_config_at("a", &url, &more));
        let first = send_request(&pointsman, "default", "Who am I?").await;
        assert_eq!(attempt_summary(&first), "a:auth a:ok", "{format}");
        let labels: Vec<_> =
            attempt_log(&first).0.iter().map(|attempt| attempt.key.clone().unwrap().to_string()).collect();
        assert_eq!(labels, ["env:K1", "env:K2"], "{format}");
        let second = send_request(&pointsman, "default", "And now?").await;
        assert_eq!(attempt_summary(&second), "a:ok", "{format}");
        let snapshot = provider_snapshot(&pointsman, "a");
        assert_eq!(snapshot.keys_in_cooldown[0].key.as_str(), "env:K1", "{format}");
        let json = serde_json::to_string(&snapshot).unwrap();
        let everything =
            format!("{} {} {snapshot:?} {json} {pointsman:?}", all_text(&first), all_text(&second));
        assert!(!shows_a_key(&everything), "{everything}");
        assert_eq!((simulator.counts().requests, simulator.counts().answered), (3, 2), "{format}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_without_quota_cools_down_and_without_a_usable_key_requests_fail_as_quota() {
    for (format, vendor) in FORMATS {
        let exhausted = |name| Fault { key: lookup_key(name), ..Fault::new(FaultKind::Quota) };
        let simulator = start_faulty_simulator([exhausted("K1")]);
        let url = simulator.base_url(vendor);
        let more = format!("format = \"{format}\"\n{TWO_KEYS}{LONG_TIMEOUTS}");
        let pointsman = start_pointsman(&provider_config_at("a", &url, &more));
        assert_eq!(
            attempt_summary(&send_request(&pointsman, "default", "Am I rich?").await),
            "a:quota a:ok",
            "{format}"
        );
        simulator.set(Settings { faults: vec![exhausted("K1"), exhausted("K2")], ..Settings::default() });
        let last = send_request(&pointsman, "default", "Still?").await;
        assert_eq!(
            (attempt_summary(&last), failure_class(&last)),
            ("a:quota".to_owned(), Some(Class::Quota)),
            "{format}"
        );
        // No key is usable, so no call is sent.
        let none = send_request(&pointsman, "default", "Even now?").await;
        assert_eq!(
            (attempt_summary(&none), failure_class(&none)),
            ("a:refused".to_owned(), Some(Class::Quota)),
            "{format}"
        );
        assert_eq!(simulator.counts().requests, 3, "{format}");
        assert!(!shows_a_key(&(all_text(&last) + &all_text(&none))), "{format}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_calls_with_a_refused_key_all_succeed_with_the_next_key() {
    let simulator =
        start_simulator(Settings { keys: vec![lookup_key("K2").unwrap()], ..Settings::default() });
    let pointsman = start_pointsman(&provider_config("a", &simulator, &format!("{TWO_KEYS}{LONG_TIMEOUTS}")));
    let results = send_requests(&pointsman, "default", 100).await;
    assert!(results.iter().all(Result::is_ok));
    // At most the calls that were in flight together.
    assert!(simulator.counts().by_status[&401] <= 64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_run_writes_a_key() {
    let simulator =
        start_simulator(Settings { keys: vec![lookup_key("K2").unwrap()], ..Settings::default() });
    let pointsman = start_pointsman(&provider_config("a", &simulator, &format!("{TWO_KEYS}{LONG_TIMEOUTS}")));
    let finished =
        run_pipeline(&pointsman, "[[step]]\nname = \"s\"\nprompt = \"Greet {{ item.id }}.\"", 3).await;
    let report = serde_json::to_string(&finished.report).unwrap();
    assert_eq!(finished.report.items.completed, 3, "{report}");
    assert!(finished.lines.iter().any(|line| line.to_string().contains("env:K2")), "{:?}", finished.lines);
    assert!(!shows_a_key(&format!("{report} {:?} {:?}", finished.report, finished.lines)));
}

/// Returns the label of the key of the last attempt.
fn last_key(result: &Result<Response, Box<RequestError>>) -> String {
    attempt_log(result).0.last().unwrap().key.clone().unwrap().to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_rotate_on_schedule_and_a_refused_key_is_skipped() {
    let simulator = start_simulator(Settings::default());
    let more = format!("{TWO_KEYS}\nrotate_every = \"150ms\"\n{LONG_TIMEOUTS}");
    let pointsman = start_pointsman(&provider_config("a", &simulator, &more));
    let mut order = Vec::new();
    for number in 0.. {
        let label = last_key(&send_request(&pointsman, "default", &format!("{number}?")).await);
        if order.last() != Some(&label) {
            order.push(label);
        }
        if order.len() == 4 {
            break;
        }
    }
    simulator.set(Settings { keys: vec![lookup_key("K2").unwrap()], ..Settings::default() });
    for number in 0.. {
        let answer = send_request(&pointsman, "default", &format!("And now, {number}?")).await;
        assert_eq!(last_key(&answer), "env:K2");
        // The key has worked before, so only three consecutive refusals start its cooldown.
        assert!(number < 10_000, "the key has no cooldown");
        if !provider_snapshot(&pointsman, "a").keys_in_cooldown.is_empty() {
            break;
        }
    }
    assert_eq!(simulator.counts().by_status[&401], 3);
}

/// Returns the key of a request in any format.
fn sent_key(head: &str) -> String {
    let bearer = header(head, "authorization").and_then(|value| value.strip_prefix("Bearer "));
    bearer.or(header(head, "x-api-key")).or(header(head, "x-goog-api-key")).unwrap().to_owned()
}

type Echo = fn(&str) -> String;

/// Responses of a provider that repeats the key it was sent.
const ECHOES: [(&str, Echo); 9] = [
    ("a JSON error", |key| {
        let body =
            format!(r#"{{"error":{{"message":"Incorrect API key provided: {key}.","code":"{key}"}}}}"#);
        response("401 Unauthorized", "content-type: application/json\r\n", &body)
    }),
    ("plain text", |key| response("400 Bad Request", "", &format!("what is {key}? {key}!"))),
    ("a truncated message", |key| {
        response("403 Forbidden", "", &format!("{}{key}", "x".repeat(500 - key.len() / 2)))
    }),
    ("UTF-16", |key| {
        let units: String = key.chars().map(|character| format!("{character}\0")).collect();
        response("400 Bad Request", "", &format!("what is {units}"))
    }),
    ("a truncated message with escapes", |key| {
        let escaped: String = key.bytes().map(|byte| format!("%{byte:02x}")).collect();
        response("403 Forbidden", "", &format!("{}{escaped}", "x".repeat(470)))
    }),
    ("a page with a 200", |key| {
        response("200 OK", "content-type: text/html\r\n", &format!("<html><p>{key}</p></html>"))
    }),
    ("a page with its title", |key| {
        let page = format!("<html><title>{key} is wrong</title></html>");
        response("502 Bad Gateway", "content-type: text/html\r\n", &page)
    }),
    ("HTML declared as JSON", |key| {
        response("200 OK", "content-type: application/json\r\n", &format!("<html><title>{key}</title>"))
    }),
    ("an error in a stream", |key| {
        let event =
            format!("data: {{\"error\":{{\"message\":\"no such key {key}\",\"type\":\"{key}\"}}}}\n\n");
        stream("", &event, true)
    }),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_a_provider_repeats_is_redacted() {
    for (what, echo) in ECHOES {
        let server = ScriptedServer::start(move |head| echo(&sent_key(head))).await;
        for (format, _) in FORMATS {
            let more = format!("format = \"{format}\"\nkeys = [\"env:K1\"]{LONG_TIMEOUTS}");
            let pointsman =
                start_pointsman(&format!("{QUICK_RETRY}{}", provider_config_at("a", &server.url(), &more)));
            let answer = send_request(&pointsman, "default", "Who am I?").await;
            let everything = format!("{} {:?}", all_text(&answer), provider_snapshot(&pointsman, "a"));
            assert!(!everything.contains("0123456789"), "{what}, {format}: {everything}");
            assert!(
                failure_class(&answer).is_some() && everything.contains("***"),
                "{what}, {format}: {everything}"
            );
        }
        assert!(server.requests() >= FORMATS.len());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redirect_is_not_followed_and_receives_no_key() {
    let destination = ScriptedServer::start(|_| stream("", RESPONSE_STREAM, true)).await;
    let to = destination.url();
    let redirecting = ScriptedServer::start(move |_| {
        response("307 Temporary Redirect", &format!("location: {to}/v1/chat/completions\r\n"), "")
    })
    .await;
    let more = format!("keys = [\"env:K1\"]{LONG_TIMEOUTS}");
    let pointsman = start_pointsman(&provider_config_at("a", &redirecting.url(), &more));
    let answer = send_request(&pointsman, "default", "Where are you?").await;
    assert_eq!(failure_class(&answer), Some(Class::NotFound));
    assert_eq!((redirecting.requests(), destination.requests()), (1, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_request_id_is_read_from_the_header() {
    for (name, value) in [("x-request-id", "req_header"), ("request-id", "req_other")] {
        let server =
            ScriptedServer::start(move |_| stream(&format!("{name}: {value}\r\n"), RESPONSE_STREAM, true))
                .await;
        let pointsman = start_pointsman(&provider_config_at("a", &server.url(), LONG_TIMEOUTS));
        let answer = send_request(&pointsman, "default", "Which?").await.unwrap();
        assert_eq!(answer.completion.request_id.as_deref(), Some(value));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn consecutive_calls_share_a_connection() {
    let server = ScriptedServer::start(|_| stream("", RESPONSE_STREAM, true)).await;
    let pointsman = start_pointsman(&provider_config_at("a", &server.url(), LONG_TIMEOUTS));
    for number in 0..30 {
        let answer = send_request(&pointsman, "default", &format!("{number}?")).await.unwrap();
        assert_eq!(answer.completion.text, "Hello.");
    }
    assert_eq!(server.requests(), 30);
    // One, except on a busy machine where the end of a response arrives after the next request.
    assert!(server.connections() <= 3, "{} connections", server.connections());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_does_not_end_its_stream_delays_no_response() {
    let server = ScriptedServer::start(|_| stream("", RESPONSE_STREAM, false)).await;
    let pointsman = start_pointsman(&provider_config_at("a", &server.url(), LONG_TIMEOUTS));
    let mut times = Vec::new();
    for number in 0..10 {
        let answer = send_request(&pointsman, "default", &format!("{number}?")).await.unwrap();
        times.push(answer.attempts.0[0].duration);
    }
    // Waiting for the end would delay all of them. A busy machine delays only some.
    assert!(times.iter().any(|took| *took < Duration::from_millis(40)), "{times:?}");
}
