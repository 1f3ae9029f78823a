//! Errors that report an invalid generation of the model, such as Groq's `json_validate_failed`. They do not count
//! against the health of the target.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use pointsman::guard::BreakerState;
use pointsman::types::Class;
use serde_json::Value;

use super::scripted_server::{RESPONSE_STREAM, ScriptedServer, response, stream_of_length};
use super::support::*;

/// Returns Groq's recorded response to a generation that is not JSON.
fn invalid_json_response() -> String {
    let bodies = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/errors/bodies.jsonl"));
    let recorded = bodies.lines().find(|line| line.contains("json_validate_failed")).unwrap();
    let recorded: Value = serde_json::from_str(recorded).unwrap();
    response("400 Bad Request", "content-type: application/json\r\n", recorded["body"].as_str().unwrap())
}

/// Starts a server that responds after 20 ms, to this random fraction of the requests with the error.
async fn start_groq(fraction: f64) -> ScriptedServer {
    let error = invalid_json_response();
    let answer = stream_of_length(RESPONSE_STREAM.len(), RESPONSE_STREAM);
    let requests = AtomicU64::new(0);
    ScriptedServer::start_late(Duration::from_millis(20), move |_| {
        let draw = fastrand::Rng::with_seed(requests.fetch_add(1, SeqCst)).f64();
        if draw < fraction { error.clone() } else { answer.clone() }
    })
    .await
}

/// Long timeouts, and the default circuit breaker.
const DEFAULT_BREAKER: &str =
    "timeouts = { connect = \"2s\", first_token = \"2s\", idle = \"2s\", total = \"5s\" }";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failed_generations_do_not_affect_the_breaker_and_the_concurrency_limit() {
    let scripted = start_groq(0.3).await;
    let retry = "[retry]\nattempts_per_target = 3\nmax_rounds = 6\ninitial_backoff = \"10ms\"\nmax_backoff = \"40ms\"\n";
    let pointsman =
        start_pointsman(&format!("{retry}{}", provider_config_at("a", &scripted.url(), DEFAULT_BREAKER)));
    for _ in 0..6 {
        let results = send_requests(&pointsman, "default", 100).await;
        let failed = results.iter().filter(|result| result.is_err()).count();
        assert_eq!(failed, 0, "{:?}", results.iter().map(attempt_summary).max_by_key(String::len));
        let target = provider_snapshot(&pointsman, "a").targets.remove(0);
        assert_eq!((target.breaker, target.reduced_from), (BreakerState::Closed, None), "{target:?}");
        assert!(target.last_failure.is_none(), "{target:?}");
    }
    // The server has sent the error to the expected fraction of the requests.
    let retries = scripted.requests() - 600;
    assert!((180..400).contains(&retries), "{retries}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failed_generations_are_validation_errors_and_take_nothing_from_the_retry_budget() {
    let scripted = start_groq(1.0).await;
    let pointsman = start_pointsman(&format!(
        "{QUICK_RETRY}{}",
        provider_config_at("a", &scripted.url(), DEFAULT_BREAKER)
    ));
    let results = send_requests(&pointsman, "default", 40).await;
    assert!(results.iter().all(|result| failure_class(result) == Some(Class::ValidationError)));
    assert_eq!(attempt_summary(&results[0]), ["a:validation_error"; 4].join(" "));
    assert_eq!(scripted.requests(), 160);
    let snapshot = provider_snapshot(&pointsman, "a");
    assert!(
        snapshot.retry_budget_wait.is_zero() && snapshot.targets[0].breaker == BreakerState::Closed,
        "{snapshot:?}"
    );
}
