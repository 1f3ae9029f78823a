//! Items whose requests always fail while others succeed: only those items fail, and they block no other item.

use std::time::Duration;

use pointsman::run::RunOutcome;
use pointsman::runtime::{PauseOptions, RunOptions};
use pointsman::simulator::{Fault, FaultKind, Latency, Settings, Simulator};
use pointsman::types::Class;
use tokio::time::timeout;

use super::support::*;

const STEP: &str = "[[step]]\nname = \"s\"\nprompt = \"Greet {{ item.id }}.\"\n";

/// The default breaker with a tenth of its open durations.
const BREAKER: &str = "breaker = { open_duration = \"500ms\", max_open_duration = \"1s\" }\n";

/// Returns a fault for the requests of each of these items.
fn faults_of_items(kind: FaultKind, items: impl IntoIterator<Item = usize>) -> Vec<Fault> {
    let fault = |item| Fault { contains: Some(format!("item-{item}.")), ..Fault::new(kind) };
    items.into_iter().map(fault).collect()
}

fn start_slow_simulator(faults: Vec<Fault>, latency: u64) -> Simulator {
    let latency = Latency::Fixed(Duration::from_millis(latency));
    start_simulator(Settings { faults, latency, ..Settings::default() })
}

/// Asserts that exactly `failed` items failed and all others completed.
fn assert_only_failed(finished: &FinishedRun, items: u64, failed: u64, case: &str) {
    let report = &finished.report;
    let counts = (report.items.completed, report.items.failed);
    assert_eq!(counts, (items - failed, failed), "{case}: {:?} {:?}", report.errors, report.paused);
    assert_eq!(report.outcome, RunOutcome::Completed, "{case}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_adjacent_items_that_always_fail_block_no_other_item() {
    let run_with = |kind| async move {
        let simulator = start_slow_simulator(faults_of_items(kind, [30, 31, 32]), 400);
        let more = format!("{BREAKER}limits.concurrency = 4\n");
        let config = format!("{}[run]\nmax_hold = \"20s\"\n", provider_config("a", &simulator, &more));
        (kind, run_pipeline(&start_pointsman(&config), STEP, 120).await)
    };
    for (kind, finished) in [tokio::join!(run_with(FaultKind::ServerError), run_with(FaultKind::Reset))]
        .into_iter()
        .flat_map(|(a, b)| [a, b])
    {
        assert_only_failed(&finished, 120, 3, &format!("{kind:?}"));
    }
}

/// Runs 500 items, twenty of which always fail with this fault.
async fn run_with_twenty_failing(kind: FaultKind) -> (FaultKind, FinishedRun) {
    let simulator = start_slow_simulator(faults_of_items(kind, (0..20).map(|number| number * 25 + 3)), 100);
    let config = format!("{}[run]\nmax_hold = \"20s\"\n", provider_config("a", &simulator, BREAKER));
    (kind, run_pipeline(&start_pointsman(&config), STEP, 500).await)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_of_five_hundred_items_that_always_fail_all_fail_alone() {
    let kinds = [
        FaultKind::ServerError,
        FaultKind::Unavailable,
        FaultKind::Reset,
        FaultKind::Cut,
        FaultKind::Html,
        FaultKind::NotFound,
        FaultKind::MaxTokensUnaffordable,
    ];
    for (kind, finished) in futures_util::future::join_all(kinds.map(run_with_twenty_failing)).await {
        assert_only_failed(&finished, 500, 20, &format!("{kind:?}"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_of_five_hundred_items_with_key_errors_block_no_other_item() {
    let kinds = [FaultKind::Auth, FaultKind::Forbidden, FaultKind::ModelForbidden];
    for (kind, finished) in futures_util::future::join_all(kinds.map(run_with_twenty_failing)).await {
        let report = &finished.report;
        let items = &report.items;
        assert_eq!(
            (items.completed, items.failed + items.paused),
            (480, 20),
            "{kind:?}: {:?}",
            report.errors
        );
        // If the last items are never sent together with others, the key may be the reason, and the run pauses.
        let expected = if items.paused == 0 { RunOutcome::Completed } else { RunOutcome::Paused };
        assert_eq!(report.outcome, expected, "{kind:?}: {:?}", report.paused);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_items_of_a_run_that_always_fail_fail_like_earlier_ones() {
    const STEPS: &str = "[[step]]\nname = \"s\"\nprompt = \"Greet {{ item.id }}.\"\n\
        [[step]]\nname = \"t\"\nprompt = \"Describe {{ item.id }}.\"\n\
        [[step]]\nname = \"u\"\nprompt = \"Sum up {{ s }} and {{ t }} for {{ item.id }}.\"\n";
    let kinds = [FaultKind::ServerError, FaultKind::Reset, FaultKind::Unavailable];
    let run_with = |kind| async move {
        let simulator = start_slow_simulator(faults_of_items(kind, [10, 150, 296, 298]), 50);
        let more = format!("{BREAKER}limits.concurrency = 8\n");
        let config = format!("{}[run]\nmax_hold = \"20s\"\n", provider_config("a", &simulator, &more));
        (kind, run_pipeline(&start_pointsman(&config), STEPS, 300).await)
    };
    for (kind, finished) in futures_util::future::join_all(kinds.map(run_with)).await {
        assert_only_failed(&finished, 300, 4, &format!("{kind:?}"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_item_that_is_refused_before_the_first_answer_does_not_pause_the_run() {
    let run_with = |(kind, latency, items, more)| async move {
        let simulator = start_slow_simulator(faults_of_items(kind, [0]), latency);
        let more = format!("{LONG_TIMEOUTS}{more}");
        let config = format!("{}[run]\nmax_hold = \"60s\"\n", provider_config("a", &simulator, &more));
        let finished = run_pipeline(&start_pointsman(&config), STEP, items).await;
        assert_only_failed(&finished, items as u64, 1, &format!("{kind:?} {more}"));
    };
    let kinds = [FaultKind::NotFound, FaultKind::Auth, FaultKind::Html];
    let among_many = kinds.map(|kind| (kind, 1_000, 400, ""));
    // Nothing else is in flight when the first request is refused.
    let alone = kinds.map(|kind| (kind, 100, 40, "limits.concurrency = 1\n"));
    futures_util::future::join_all(among_many.into_iter().chain(alone).map(run_with)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_pauses_when_every_item_fails_from_some_time_on() {
    let simulator = start_slow_simulator(
        vec![Fault { from: Some(Duration::from_secs(1)), ..Fault::new(FaultKind::Firewall) }],
        20,
    );
    let more = format!("{LONG_TIMEOUTS}limits.concurrency = 8\n");
    let finished =
        run_pipeline(&start_pointsman(&provider_config("a", &simulator, &more)), STEP, 5_000).await;
    let report = &finished.report;
    assert!(report.items.completed >= 50, "{:?}", report.items);
    assert_eq!((report.outcome, report.paused_class), (RunOutcome::Paused, Some(Class::ApiError)));
    let reason = report.paused.as_ref().unwrap().split(';').next();
    let in_a_row = reason.and_then(|reason| reason.strip_suffix(" items failed in a row")?.parse().ok());
    assert!(in_a_row.is_some_and(|count| (50..=report.items.failed).contains(&count)), "{reason:?}");
    assert!((50..200).contains(&report.items.failed), "{:?}", report.items);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_pauses_aborts_calls_to_an_unresponsive_provider_and_sends_no_more() {
    let no_response = Fault { from: Some(Duration::from_millis(300)), ..Fault::new(FaultKind::Silent) };
    let simulator = start_slow_simulator(vec![no_response], 20);
    let more =
        "limits.concurrency = 8\ntimeouts = { first_token = \"10m\", idle = \"10m\", total = \"20m\" }\n";
    let config = format!("{}[run]\nmax_hold = \"2s\"\n", provider_config("a", &simulator, more));
    let pointsman = start_pointsman(&config);
    let finished = timeout(Duration::from_secs(60), run_pipeline(&pointsman, STEP, 2_000)).await.unwrap();
    assert_eq!(
        (finished.report.outcome, finished.report.paused_class),
        (RunOutcome::Paused, Some(Class::Timeout))
    );
    assert_eq!(finished.report.items.failed, 0);
    assert_eq!(finished.report.calls.sent, simulator.counts().requests, "every sent call is counted");
    assert!(finished.report.calls.failed > 0, "{:?}", finished.report.calls);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_give_up_items_that_hold_longer_than_max_hold_fail() {
    let simulator = start_faulty_simulator([Fault::new(FaultKind::ServerError)]);
    let config =
        format!("{}{QUICK_RETRY}[run]\nmax_hold = \"1s\"\n", provider_config("a", &simulator, QUICK_BREAKER));
    let options = RunOptions::new().with_pause(PauseOptions::new().with_give_up(true));
    let finished = run_pipeline_with(&start_pointsman(&config), STEP, 6, options).await;
    let report = &finished.report;
    assert_eq!(
        (report.outcome, report.items.failed),
        (RunOutcome::Completed, 6),
        "{:?} {:?}",
        report.items,
        report.paused
    );
    assert_eq!(finished.lines[0]["error"]["class"], "server_error", "{:?}", finished.lines[0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_random_failing_items_and_outages_only_those_items_fail() {
    let runs = (0..6_u64).map(|seed| async move {
        let mut random = fastrand::Rng::with_seed(seed);
        let kinds = [FaultKind::ServerError, FaultKind::Reset, FaultKind::Unavailable];
        let items = random.usize(80..300);
        let concurrency = random.usize(1..=16);
        let share = random.f64() * 0.05;
        let failing_items: Vec<usize> = (0..items).filter(|_| random.f64() < share).collect();
        let mut faults = faults_of_items(kinds[random.usize(..3)], failing_items.clone());
        let mut at = 0.0;
        for _ in 0..2 {
            let from = at + random.f64() * 2.0;
            at = from + random.f64() * 1.5;
            let [from, until] = [from, at].map(|at| Some(Duration::from_secs_f64(at)));
            faults.push(Fault { from, until, ..Fault::new(kinds[random.usize(..3)]) });
        }
        let simulators = [start_slow_simulator(faults.clone(), 30), start_slow_simulator(faults, 30)];
        let more = format!("{BREAKER}limits.concurrency = {concurrency}\n");
        let targets = if random.bool() { "\"a/m\"" } else { "\"a/m\", \"b/m\"" };
        let [a, b] = &simulators;
        let config = format!(
            "{}{}[route.default]\ntargets = [{targets}]\n[run]\nmax_hold = \"12s\"\n",
            provider_config("a", a, &more),
            provider_config("b", b, &more)
        );
        let finished = run_pipeline(&start_pointsman(&config), STEP, items).await;
        let case = format!("seed {seed}: {items} items at {concurrency}, {targets}");
        let report = &finished.report;
        let item_number = |line: &serde_json::Value| -> usize {
            line["key"].as_str().unwrap().rsplit('-').next().unwrap().parse().unwrap()
        };
        let (failed, completed): (Vec<_>, Vec<_>) =
            finished.lines.iter().partition(|line| line["status"] == "failed");
        assert_eq!(
            completed.len(),
            items - failing_items.len(),
            "{case}: {:?} {:?}",
            report.errors,
            report.paused
        );
        for line in &failed {
            assert!(failing_items.contains(&item_number(line)), "{case}: {line}");
        }
        // If a failing item was never sent together with items that succeeded, the cause is unknown, and the run
        // pauses.
        let expected =
            if failed.len() == failing_items.len() { RunOutcome::Completed } else { RunOutcome::Paused };
        assert_eq!(report.outcome, expected, "{case}: {:?}", report.paused);
        usize::from(report.outcome == RunOutcome::Completed)
    });
    let completed: usize = futures_util::future::join_all(runs).await.into_iter().sum();
    assert!(completed >= 3, "{completed} of 6 runs completed");
}
