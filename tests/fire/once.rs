//! One panic, and exactly what it costs.

use std::time::Duration;

use pointsman::chaos::{Plan, arm, passed};
use pointsman::guard::BreakerState;
use pointsman::run::Ended;
use pointsman::simulator::{Fault, FaultKind, Latency, Settings};

use super::everywhere::POINTS;
use super::scene::*;
use super::stage::*;

/// Where a panic costs a call that was made already: the answer, or the end of it, is lost.
const PAID_TWICE: [&str; 9] = [
    // The router has sent the first call before.
    "flow.plan",
    "call.headers",
    "call.piece",
    "call.settle",
    "call.tell",
    "state.settle",
    "flow.told",
    "item.answered",
    "router.begun",
];

/// How long answers take: where an item passes once more when it is answered, the second passage is to be another's.
fn answer_after(point: &str) -> Latency {
    if point == "item.asks" { Latency::Fixed(Duration::from_secs(1)) } else { Latency::default() }
}

/// Where a run may come by once only: a provider is told once of all that have come.
const ONCE: [&str; 4] = ["provider.started", "provider.tick", "provider.told", "run.ends"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_panic_costs_one_call_at_most_wherever_it_is() {
    quiet();
    for point in POINTS.into_iter().chain(["run.ends"]) {
        let simulator = play(Settings { latency: answer_after(point), ..Settings::default() });
        // So slow that some calls wait for an alarm.
        let more = format!("limits.requests_per_minute = 1_200{PATIENT}");
        let config = format!("{UNDAUNTED}{AT_ONCE}{}", provider("a", &simulator, &more));
        let passage = if ONCE.contains(&point) { 1 } else { 2 };
        let armed = arm(Plan::new(1).at(point, passage));
        let pointsman = start(&config);
        let ran = burn(&pointsman, 25).await;
        // Some come once a second.
        until(point, || passed().get(point).is_some_and(|passed| passed.panics == 1)).await;
        assert_eq!(
            (ran.report.ended, ran.report.items.completed),
            (Ended::Whole, 25),
            "{point}: {:?}",
            ran.report
        );
        assert_eq!((ran.lines.len(), ran.keys()), (25, 25), "{point}");
        let again = simulator.counts().requests - 25;
        let allowed = u64::from(PAID_TWICE.contains(&point));
        assert!(again <= allowed, "{point}: {again} calls were made again");
        until(point, || snapshot(&pointsman, "a").up).await;
        assert!(ask(&pointsman, "default", "And now?").await.is_ok(), "{point}");
        let after = snapshot(&pointsman, "a");
        assert_eq!((after.in_flight, after.waiting), (0, 0), "{point}");
        drop(armed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_was_queued_when_its_provider_panicked_is_not_made_twice() {
    quiet();
    let simulator = play(toml::from_str("latency = \"30ms\"\ntrack_prompts = true").unwrap());
    let more = format!("limits.concurrency = 1{PATIENT}");
    let _armed = arm(Plan::new(1).at("provider.queued", 3));
    let pointsman = start(&format!("{UNDAUNTED}{AT_ONCE}{}", provider("a", &simulator, &more)));
    let answers = ask_many(&pointsman, "default", 8).await;
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!(passed()["provider.queued"].panics, 1);
    let counts = simulator.counts();
    assert_eq!((counts.requests, counts.distinct_prompts, counts.repeated_prompts), (8, Some(8), Some(0)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_provider_knows_survives_its_panic() {
    quiet();
    let simulator = faulty([Fault::new(FaultKind::ServerError)]);
    let one_try = "[retry]\nattempts_per_lane = 1\nrounds = 1\n";
    let lasting = WARY.replace("200ms", "1m").replace("\"300ms\" }", "\"2m\" }");
    let pointsman = start(&format!("{UNDAUNTED}{one_try}{}", provider("a", &simulator, &lasting)));
    for _ in 0..3 {
        assert!(ask(&pointsman, "default", "Are you well?").await.is_err());
    }
    let before = snapshot(&pointsman, "a");
    assert_eq!((before.calls, before.lanes[0].breaker), (3, BreakerState::Open));
    let armed = arm(Plan::new(1).at("provider.tick", 1));
    until("it panics", || passed().get("provider.tick").is_some_and(|passed| passed.panics == 1)).await;
    until("it lives again", || snapshot(&pointsman, "a").up).await;
    drop(armed);
    let after = snapshot(&pointsman, "a");
    assert_eq!((after.calls, after.in_flight, after.lanes[0].breaker), (3, 0, BreakerState::Open));
    let short = question("default", "And now?", Duration::from_millis(200));
    assert!(pointsman.send(short).await.is_err());
    assert_eq!(simulator.counts().requests, 3, "an open breaker lets nobody through");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_between_admission_and_dispatch_gives_back_what_was_taken_and_books_nothing() {
    quiet();
    for point in ["state.admitted", "call.leave"] {
        let simulator = play(Settings::default());
        let price = "models.m = { price = { input = 1.0, output = 5.0 } }";
        let priced = provider("a", &simulator, PATIENT).replace("models.m = {}", price);
        let armed = arm(Plan::new(1).at(point, 2));
        let pointsman = start(&format!("{UNDAUNTED}{AT_ONCE}{priced}"));
        let ran = burn(&pointsman, 25).await;
        assert_eq!(passed()[point].panics, 1, "{point}");
        assert_eq!((ran.report.items.completed, ran.report.perhaps_cost_usd), (25, 0.0), "{point}");
        assert_eq!(simulator.counts().requests, 25, "{point}");
        let after = snapshot(&pointsman, "a");
        assert_eq!((after.in_flight, after.waiting), (0, 0), "{point}");
        drop(armed);
    }
}
