//! Providers that accept requests and never respond, permanently or temporarily, with and without a healthy
//! provider.

use std::sync::Arc;
use std::time::Duration;

use pointsman::config::Config;
use pointsman::provider::UnresponsiveTimeouts;
use pointsman::run::RunOutcome;
use pointsman::runtime::Pointsman;
use pointsman::simulator::{Fault, FaultKind, Settings, Simulator};
use pointsman::types::Class;
use tokio::time::{sleep, timeout};

use super::support::*;

const STEP: &str = "[[step]]\nname = \"s\"\nprompt = \"Greet {{ item.id }}.\"\n";

/// A breaker that probes within half a second, and timeouts that only hanging calls reach.
const SCALED_CONFIG: &str = r#"
timeouts = { connect = "5s", first_token = "15s", idle = "15s", total = "60s" }
breaker = { open_duration = "250ms", max_open_duration = "500ms" }
"#;

/// Maximum duration of a test. A test that takes longer hangs.
const MAX_TEST_DURATION: Duration = Duration::from_secs(100);

/// Starts the library with a twentieth of the default durations after which a provider counts as unresponsive.
fn start_scaled(config: &str) -> Pointsman {
    let mut config =
        Config::parse("test.toml", config, &lookup_key).unwrap_or_else(|diagnostics| panic!("{diagnostics}"));
    config.retry.unresponsive_after = Duration::from_millis(1_000);
    for provider in config.providers.values_mut() {
        provider.unresponsive_after = UnresponsiveTimeouts {
            min: Duration::from_millis(250),
            before_first_answer: Duration::from_millis(500),
            new_step: Duration::from_millis(1_000),
        };
    }
    Pointsman::start_blocking_with(&config, lookup_key).unwrap_or_else(|error| panic!("{error}"))
}

/// Returns a configuration with two targets, the first preferred, each with these limits.
fn two_targets(first: &Simulator, second: &Simulator, limits: &str) -> String {
    let more = format!("{SCALED_CONFIG}{limits}\n");
    format!(
        "{QUICK_RETRY}[defaults]\nroute = \"r\"\n[route.r]\ntargets = [\"a/m\", \"b/m\"]\n{}{}",
        provider_config("a", first, &more),
        provider_config("b", second, &more)
    )
}

fn healthy() -> Settings {
    toml::from_str("latency = \"20ms\"").unwrap()
}

fn unresponsive() -> Settings {
    Settings { faults: vec![Fault::new(FaultKind::Silent)], ..healthy() }
}

/// Asserts that all items are complete and that no call reached its timeout.
fn assert_complete_without_timeouts(finished: &FinishedRun, items: u64, what: &str) {
    assert_complete_with_timeouts(finished, items, 0, what);
}

/// Asserts that all items are complete and that at most `max_timeouts` calls reached their timeout.
fn assert_complete_with_timeouts(finished: &FinishedRun, items: u64, max_timeouts: u64, what: &str) {
    let report = &finished.report;
    assert_eq!(
        (report.items.completed, report.outcome),
        (items, RunOutcome::Completed),
        "{what}: {:?}",
        report.errors
    );
    assert_eq!(finished.lines.len() as u64, items, "{what}");
    let timeouts = report.failed_calls.get(&Class::Timeout).map_or(0, |timeouts| timeouts.count);
    assert!(timeouts <= max_timeouts, "{what}: {:?}", report.failed_calls);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn if_the_first_target_never_responds_the_second_answers_everything() {
    for (limits, concurrency) in [("limits.concurrency = 4", 4), ("limits.concurrency = 8", 8), ("", 32)] {
        let first = start_simulator(unresponsive());
        let second = start_simulator(healthy());
        let pointsman = start_scaled(&two_targets(&first, &second, limits));
        let finished =
            timeout(MAX_TEST_DURATION, run_pipeline(&pointsman, STEP, 400)).await.expect("the run hangs");
        assert_complete_without_timeouts(&finished, 400, limits);
        // The calls in flight when the target was found unresponsive, and some probes. Each is also sent
        // elsewhere.
        let received = first.counts().requests;
        assert!((concurrency..=concurrency + 24).contains(&received), "{limits}: {received}");
        let calls = finished.report.calls;
        assert!(
            (1..=received).contains(&calls.hedged) && calls.superseded <= received,
            "{limits}: {calls:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_temporarily_unresponsive_target_stalls_no_item_and_is_used_again() {
    let first = Arc::new(start_simulator(healthy()));
    let second = Arc::new(start_simulator(healthy()));
    let pointsman = start_scaled(&two_targets(&first, &second, "limits.concurrency = 8"));
    let outage = spawn({
        let first = first.clone();
        async move {
            wait_until("the target is used", || first.counts().answered >= 40).await;
            first.set(unresponsive());
            sleep(Duration::from_secs(3)).await;
            first.set(healthy());
            first.counts().answered
        }
    });
    let finished =
        timeout(MAX_TEST_DURATION, run_pipeline(&pointsman, STEP, 3_000)).await.expect("the run hangs");
    assert_complete_without_timeouts(&finished, 3_000, "3 s without responses");
    let before = outage.await.unwrap();
    let after = first.counts().answered - before;
    let answered_by_second = second.counts().answered;
    assert!(
        after > 200 && answered_by_second > 40,
        "answered: {before} by the first target before, {after} after, {answered_by_second} by the second"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_only_target_is_used_again_after_an_unresponsive_period_although_calls_hang() {
    let simulator = Arc::new(start_simulator(healthy()));
    let config = format!(
        "{QUICK_RETRY}{}",
        provider_config("a", &simulator, &format!("{SCALED_CONFIG}limits.concurrency = 8\n"))
    );
    let pointsman = start_scaled(&config);
    let outage = spawn({
        let simulator = simulator.clone();
        async move {
            wait_until("the target is used", || simulator.counts().answered >= 40).await;
            simulator.set(unresponsive());
            sleep(Duration::from_secs(3)).await;
            simulator.set(healthy());
            let before = simulator.counts();
            wait_until("the target is used again", || simulator.counts().answered >= before.answered + 400)
                .await;
            before.in_flight
        }
    });
    let finished =
        timeout(MAX_TEST_DURATION, run_pipeline(&pointsman, STEP, 1_000)).await.expect("the run hangs");
    let hanging = outage.await.unwrap();
    assert!(hanging >= 8, "{hanging} hung");
    // Hanging calls are sent again when others are answered. None occupies a slot until its timeout.
    assert_complete_without_timeouts(&finished, 1_000, "hanging calls");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_unresponsive_periods_and_resets_of_both_providers_stall_no_item() {
    let first = Arc::new(start_simulator(healthy()));
    let second = Arc::new(start_simulator(healthy()));
    let pointsman = start_scaled(&two_targets(&first, &second, "limits.concurrency = 8"));
    let seed = fastrand::u64(..);
    let disturbance = spawn({
        let providers = [first.clone(), second.clone()];
        async move {
            let mut random = fastrand::Rng::with_seed(seed);
            let resets = |share: f64| Settings {
                faults: vec![Fault { share, ..Fault::new(FaultKind::Reset) }],
                ..healthy()
            };
            for _ in 0..8 {
                let index = random.usize(..2);
                providers[index].set(if random.bool() { unresponsive() } else { resets(0.05) });
                sleep(Duration::from_millis(random.u64(100..1_500))).await;
                providers[index].set(resets(0.02));
                sleep(Duration::from_millis(random.u64(100..500))).await;
            }
            providers.iter().for_each(|provider| provider.set(healthy()));
        }
    });
    let finished = timeout(MAX_TEST_DURATION, run_pipeline(&pointsman, STEP, 3_000))
        .await
        .unwrap_or_else(|_| panic!("hangs with seed {seed}"));
    // A call and its hedge can both hang if one provider becomes unresponsive after the other.
    assert_complete_with_timeouts(&finished, 3_000, 2 * 8, &format!("seed {seed}"));
    disturbance.await.unwrap();
    let answered = first.counts().answered + second.counts().answered;
    // Requests that were answered twice had a call in flight at an unresponsive provider.
    assert!((3_000..=3_400).contains(&answered), "seed {seed}: {answered}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_pauses_does_not_wait_for_hanging_calls() {
    let simulator = start_simulator(unresponsive());
    let more =
        format!("{SCALED_CONFIG}limits.concurrency = 4\n").replace("15s", "300s").replace("60s", "300s");
    let config =
        format!("{QUICK_RETRY}{}[run]\nmax_hold = \"1s\"\n", provider_config("a", &simulator, &more));
    let finished = timeout(MAX_TEST_DURATION, run_pipeline(&start_scaled(&config), STEP, 100))
        .await
        .expect("the run hangs");
    let report = &finished.report;
    assert_eq!((report.outcome, report.items.failed, report.items.completed), (RunOutcome::Paused, 0, 0));
    let received = simulator.counts().requests;
    assert!((4..=24).contains(&received), "{received}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_target_without_its_model_is_no_longer_used_after_a_few_errors() {
    let first = start_faulty_simulator([Fault::new(FaultKind::NotFound)]);
    let second = start_simulator(healthy());
    let config = two_targets(&first, &second, "limits.concurrency = 4")
        .replace("\"250ms\"", "\"5s\"")
        .replace("\"500ms\"", "\"10s\"");
    let finished = run_pipeline(&start_scaled(&config), STEP, 300).await;
    assert_complete_without_timeouts(&finished, 300, "unknown model");
    let received = first.counts().requests;
    // Three refusals are enough, and twelve while an older request has no response yet; three more are in flight.
    assert!((3..=12 + 3).contains(&received), "{received}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_item_whose_connections_are_reset_blocks_no_other_item() {
    let reset_fault =
        |id: &str| Fault { contains: Some(format!("item-{id}.")), ..Fault::new(FaultKind::Reset) };
    let simulator =
        start_simulator(Settings { faults: vec![reset_fault("100"), reset_fault("101")], ..healthy() });
    let config = format!("{QUICK_RETRY}{}", provider_config("a", &simulator, "limits.concurrency = 8\n"));
    let pointsman = start_pointsman(&config);
    let finished =
        timeout(MAX_TEST_DURATION, run_pipeline(&pointsman, STEP, 300)).await.expect("the run hangs");
    assert_eq!(
        (finished.report.items.completed, finished.report.items.failed),
        (298, 2),
        "{:?}",
        finished.report.errors
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_that_is_asked_for_whole_responses_is_not_unresponsive_while_it_generates() {
    let slow: Settings = toml::from_str("latency = \"4s\"").unwrap();
    let first = start_simulator(slow);
    let second = start_simulator(healthy());
    let config = two_targets(&first, &second, "limits.concurrency = 2");
    // All scaled durations are shorter than the latency of the first target.
    let config = config.replacen("[provider.a]\n", "[provider.a]\nstream = \"never\"\n", 1);
    let pointsman = start_scaled(&config);
    let results = send_requests(&pointsman, "r", 2).await;
    for result in &results {
        assert_eq!(attempt_summary(result), "a:ok");
    }
    assert_eq!((first.counts().requests, second.counts().requests), (2, 0));
}
