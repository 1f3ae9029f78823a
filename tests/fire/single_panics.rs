//! What one panic costs at each failure point.

use std::time::Duration;

use pointsman::chaos::{Plan, arm, point_counts};
use pointsman::guard::BreakerState;
use pointsman::run::RunOutcome;
use pointsman::simulator::{Fault, FaultKind, Latency, Settings};

use super::panic_runs::*;
use super::random_panics::FAILURE_POINTS;
use super::support::*;

/// Points at which a panic costs a call that was already sent: its response, or the end of it, is lost.
const POINTS_THAT_REPEAT_A_CALL: [&str; 9] = [
    // The router has already sent the first call.
    "execution.plan",
    "call.headers",
    "call.chunk",
    "call.settle",
    "call.respond",
    "state.settle",
    "execution.call_ended",
    "item.answered",
    "router.request_started",
];

/// Returns the latency of the provider. An item passes `item.asks` a second time when it is answered. The
/// delay makes the second passage of that point belong to another item.
fn latency_for(point: &str) -> Latency {
    if point == "item.sends_request" { Latency::Fixed(Duration::from_secs(1)) } else { Latency::default() }
}

/// Points that a run may pass only once. A provider actor receives one message for all queued calls.
const POINTS_PASSED_ONCE: [&str; 4] = ["provider.started", "provider.tick", "provider.notified", "run.ends"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_panic_costs_at_most_one_call_at_any_point() {
    silence_planned_panics();
    for point in FAILURE_POINTS.into_iter().chain(["run.ends"]) {
        let simulator = start_simulator(Settings { latency: latency_for(point), ..Settings::default() });
        // The rate limit is so low that some calls wait for a timer.
        let settings = format!("limits.requests_per_minute = 1_200{LONG_TIMEOUTS}");
        let config =
            format!("{UNLIMITED_RESTARTS}{FAST_RETRIES}{}", provider_config("a", &simulator, &settings));
        let passage = if POINTS_PASSED_ONCE.contains(&point) { 1 } else { 2 };
        let armed = arm(Plan::new(1).at(point, passage));
        let pointsman = start_pointsman(&config);
        let run = run_items(&pointsman, 25).await;
        // Some points are passed once per second.
        wait_until(point, || point_counts().get(point).is_some_and(|count| count.panics == 1)).await;
        assert_eq!(
            (run.report.outcome, run.report.items.completed),
            (RunOutcome::Completed, 25),
            "{point}: {:?}",
            run.report
        );
        assert_eq!((run.lines.len(), run.distinct_keys()), (25, 25), "{point}");
        let repeated = simulator.counts().requests - 25;
        let allowed = u64::from(POINTS_THAT_REPEAT_A_CALL.contains(&point));
        assert!(repeated <= allowed, "{point}: {repeated} calls were repeated");
        wait_until(point, || provider_snapshot(&pointsman, "a").up).await;
        assert!(send_request(&pointsman, "default", "Say hello again.").await.is_ok(), "{point}");
        let after = provider_snapshot(&pointsman, "a");
        assert_eq!((after.in_flight, after.queued), (0, 0), "{point}");
        drop(armed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_is_queued_when_its_provider_actor_panics_is_sent_once() {
    silence_planned_panics();
    let simulator = start_simulator(toml::from_str("latency = \"30ms\"\ntrack_prompts = true").unwrap());
    let settings = format!("limits.concurrency = 1{LONG_TIMEOUTS}");
    let _armed = arm(Plan::new(1).at("provider.queued", 3));
    let pointsman = start_pointsman(&format!(
        "{UNLIMITED_RESTARTS}{FAST_RETRIES}{}",
        provider_config("a", &simulator, &settings)
    ));
    let results = send_requests(&pointsman, "default", 8).await;
    assert!(results.iter().all(Result::is_ok));
    assert_eq!(point_counts()["provider.queued"].panics, 1);
    let counts = simulator.counts();
    assert_eq!((counts.requests, counts.distinct_prompts, counts.repeated_prompts), (8, Some(8), Some(0)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_state_of_a_provider_survives_a_panic_of_its_actor() {
    silence_planned_panics();
    let simulator = start_faulty_simulator([Fault::new(FaultKind::ServerError)]);
    let single_attempt = "[retry]\nattempts_per_target = 1\nmax_rounds = 1\n";
    let long_open_breaker = QUICK_BREAKER.replace("200ms", "1m").replace("\"300ms\" }", "\"2m\" }");
    let pointsman = start_pointsman(&format!(
        "{UNLIMITED_RESTARTS}{single_attempt}{}",
        provider_config("a", &simulator, &long_open_breaker)
    ));
    for _ in 0..3 {
        assert!(send_request(&pointsman, "default", "Say hello.").await.is_err());
    }
    let before = provider_snapshot(&pointsman, "a");
    assert_eq!((before.calls, before.targets[0].breaker), (3, BreakerState::Open));
    let armed = arm(Plan::new(1).at("provider.tick", 1));
    wait_until("the provider actor panics", || {
        point_counts().get("provider.tick").is_some_and(|count| count.panics == 1)
    })
    .await;
    wait_until("the provider actor restarts", || provider_snapshot(&pointsman, "a").up).await;
    drop(armed);
    let after = provider_snapshot(&pointsman, "a");
    assert_eq!((after.calls, after.in_flight, after.targets[0].breaker), (3, 0, BreakerState::Open));
    let request = new_request("default", "Say hello again.", Duration::from_millis(200));
    assert!(pointsman.send(request).await.is_err());
    assert_eq!(simulator.counts().requests, 3, "an open breaker rejects every call");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_between_admission_and_dispatch_releases_the_reservation_and_books_nothing() {
    silence_planned_panics();
    for point in ["state.admitted", "call.dispatch"] {
        let simulator = start_simulator(Settings::default());
        let price = "models.m = { price = { input = 1.0, output = 5.0 } }";
        let priced = provider_config("a", &simulator, LONG_TIMEOUTS).replace("models.m = {}", price);
        let armed = arm(Plan::new(1).at(point, 2));
        let pointsman = start_pointsman(&format!("{UNLIMITED_RESTARTS}{FAST_RETRIES}{priced}"));
        let run = run_items(&pointsman, 25).await;
        assert_eq!(point_counts()[point].panics, 1, "{point}");
        assert_eq!((run.report.items.completed, run.report.uncertain_cost_usd), (25, 0.0), "{point}");
        assert_eq!(simulator.counts().requests, 25, "{point}");
        let after = provider_snapshot(&pointsman, "a");
        assert_eq!((after.in_flight, after.queued), (0, 0), "{point}");
        drop(armed);
    }
}
