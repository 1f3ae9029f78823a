//! What a provider refuses that its own model has written: nothing of that is the target's fault.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use pointsman::guard::BreakerState;
use pointsman::types::Class;
use serde_json::Value;

use super::scripted::{ANSWER, Scripted, response, stream_of_length};
use super::stage::*;

/// Returns what Groq answers where its model wrote no JSON, as recorded.
fn no_json() -> String {
    let bodies = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/errors/bodies.jsonl"));
    let recorded = bodies.lines().find(|line| line.contains("json_validate_failed")).unwrap();
    let recorded: Value = serde_json::from_str(recorded).unwrap();
    response("400 Bad Request", "content-type: application/json\r\n", recorded["body"].as_str().unwrap())
}

/// Answers every request after 20 ms, this share of them at random with the refusal.
async fn groq(share: f64) -> Scripted {
    let (refusal, answer) = (no_json(), stream_of_length(ANSWER.len(), ANSWER));
    let number = AtomicU64::new(0);
    Scripted::start_late(Duration::from_millis(20), move |_| {
        let draw = fastrand::Rng::with_seed(number.fetch_add(1, SeqCst)).f64();
        if draw < share { refusal.clone() } else { answer.clone() }
    })
    .await
}

/// A breaker that opens at its defaults.
const STEADY: &str = "timeouts = { connect = \"2s\", first_token = \"2s\", idle = \"2s\", total = \"5s\" }";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failed_generations_leave_breaker_and_concurrency_alone() {
    let scripted = groq(0.3).await;
    let retry = "[retry]\nattempts_per_lane = 3\nrounds = 6\nbase = \"10ms\"\nmax = \"40ms\"\n";
    let pointsman = start(&format!("{retry}{}", provider_at("a", &scripted.url(), STEADY)));
    for _ in 0..6 {
        let answers = ask_many(&pointsman, "default", 100).await;
        let refused = answers.iter().filter(|answer| answer.is_err()).count();
        assert_eq!(refused, 0, "{:?}", answers.iter().map(story).max_by_key(String::len));
        let lane = snapshot(&pointsman, "a").lanes.remove(0);
        assert_eq!((lane.breaker, lane.reduced_from), (BreakerState::Closed, None), "{lane:?}");
        assert!(lane.last_failure.is_none(), "{lane:?}");
    }
    // The share was there all the time.
    let again = scripted.requests() - 600;
    assert!((180..400).contains(&again), "{again}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_whose_generation_always_fails_fails_for_its_own_reason_and_costs_no_retries() {
    let scripted = groq(1.0).await;
    let pointsman = start(&format!("{QUICK_RETRY}{}", provider_at("a", &scripted.url(), STEADY)));
    let answers = ask_many(&pointsman, "default", 40).await;
    assert!(answers.iter().all(|answer| class(answer) == Some(Class::ValidationError)));
    assert_eq!(story(&answers[0]), ["a:validation_error"; 4].join(" "));
    assert_eq!(scripted.requests(), 160);
    let now = snapshot(&pointsman, "a");
    assert!(now.retries_wait_for.is_zero() && now.lanes[0].breaker == BreakerState::Closed, "{now:?}");
}
