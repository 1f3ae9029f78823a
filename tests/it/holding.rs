//! A run holds or pauses while accounts, limits or providers block every request. No item fails because of that.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use pointsman::run::RunOutcome;
use pointsman::simulator::{Fault, FaultKind, Latency, RetryAfter, Settings, Simulator};
use pointsman::types::Class;
use tokio::runtime::Handle;

use super::support::*;

const STEP: &str = "[[step]]\nname = \"s\"\nprompt = \"Greet {{ item.id }}.\"\n";

fn seconds(seconds: f64) -> Option<Duration> {
    Some(Duration::from_secs_f64(seconds))
}

/// Asserts that no item failed or was lost: all of them are complete.
fn assert_complete(finished: &FinishedRun, items: u64) {
    assert_eq!(
        (finished.report.items.completed, finished.report.items.failed),
        (items, 0),
        "{:?}",
        finished.report.errors
    );
    assert_eq!((finished.report.outcome, finished.lines.len() as u64), (RunOutcome::Completed, items));
    let mut ids: Vec<String> = finished.lines.iter().map(|line| line["key"].to_string()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len() as u64, items);
}

/// Asserts that the run paused because of this class and that no item failed.
fn assert_paused(finished: &FinishedRun, class: Class) {
    let report = &finished.report;
    assert_eq!(
        (report.outcome, report.paused_class),
        (RunOutcome::Paused, Some(class)),
        "{:?}",
        report.paused
    );
    assert_eq!(report.items.failed, 0, "{:?}", report.errors);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_key_pauses_the_run_before_the_rest_of_its_input_is_read() {
    for (format, vendor) in FORMATS {
        let simulator =
            start_simulator(Settings { keys: vec![lookup_key("K2").unwrap()], ..Settings::default() });
        let url = simulator.base_url(vendor);
        let more = format!("format = \"{format}\"\nkeys = [\"env:K1\"]\n{LONG_TIMEOUTS}");
        let finished =
            run_pipeline(&start_pointsman(&provider_config_at("a", &url, &more)), STEP, 20_000).await;
        assert_paused(&finished, Class::Auth);
        let report = finished.report;
        let requests = simulator.counts().requests;
        assert!(requests <= 64, "{format}: {requests}");
        assert!(report.unprocessed.unwrap().fraction.unwrap() > 0.9, "{format}: {:?}", report.unprocessed);
        let reason = report.paused.unwrap();
        assert!(reason.contains("check the key"), "{format}: {reason}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_that_does_not_exist_pauses_the_run() {
    let simulator = start_faulty_simulator([Fault::new(FaultKind::NotFound)]);
    let finished =
        run_pipeline(&start_pointsman(&provider_config("a", &simulator, LONG_TIMEOUTS)), STEP, 1_000).await;
    assert_paused(&finished, Class::NotFound);
    assert!(finished.report.paused.unwrap().contains("check the model's name"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_pauses_if_no_response_is_from_an_api() {
    let simulator = start_faulty_simulator([Fault::new(FaultKind::Html)]);
    let finished = run_pipeline(
        &start_pointsman(&(provider_config("a", &simulator, QUICK_BREAKER) + QUICK_RETRY)),
        STEP,
        1_000,
    )
    .await;
    assert_paused(&finished, Class::Unreadable);
    assert!(finished.report.paused.unwrap().contains("check `base_url`"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_holds_until_an_outage_at_its_start_ends() {
    let kinds = [
        FaultKind::ServerError,
        FaultKind::Unavailable,
        FaultKind::Reset,
        FaultKind::Silent,
        FaultKind::Cut,
        FaultKind::MalformedChunk,
    ];
    for kind in kinds {
        let simulator = start_faulty_simulator([Fault { until: seconds(1.5), ..Fault::new(kind) }]);
        let finished = run_pipeline(
            &start_pointsman(&(provider_config("a", &simulator, QUICK_BREAKER) + QUICK_RETRY)),
            STEP,
            400,
        )
        .await;
        assert_complete(&finished, 400);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_holds_until_an_outage_ends_beyond_the_deadline_of_the_step() {
    let outage = Fault { from: seconds(0.3), until: seconds(4.5), ..Fault::new(FaultKind::ServerError) };
    let latency = Latency::Fixed(Duration::from_millis(5));
    let simulator = start_simulator(Settings { faults: vec![outage], latency, ..Settings::default() });
    let steps = format!("{STEP}deadline = \"2s\"\n");
    let finished = run_pipeline(
        &start_pointsman(&(provider_config("a", &simulator, QUICK_BREAKER) + QUICK_RETRY)),
        &steps,
        5_000,
    )
    .await;
    assert_complete(&finished, 5_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_holds_until_an_unreachable_provider_starts() {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let more = format!("{QUICK_BREAKER}limits.concurrency = 8\n");
    let pointsman = start_pointsman(
        &(provider_config_at("a", &format!("http://127.0.0.1:{port}/v1"), &more) + QUICK_RETRY),
    );
    let start_late = async {
        wait_until("the run probes the provider", || provider_snapshot(&pointsman, "a").calls >= 3).await;
        Simulator::start(
            Settings::default(),
            SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            &Handle::current(),
        )
        .unwrap()
    };
    let (finished, _simulator) = tokio::join!(run_pipeline(&pointsman, STEP, 100), start_late);
    assert_complete(&finished, 100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_obeys_retry_after_beyond_the_deadline_of_the_step() {
    let wait = RetryAfter::After(Duration::from_secs(2));
    let fault = Fault { retry_after: Some(wait), until: seconds(0.2), ..Fault::new(FaultKind::RateLimited) };
    let simulator = start_faulty_simulator([fault]);
    let steps = format!("{STEP}deadline = \"1s\"\n");
    let finished =
        run_pipeline(&start_pointsman(&provider_config("a", &simulator, LONG_TIMEOUTS)), &steps, 500).await;
    assert_complete(&finished, 500);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_would_hold_longer_than_max_hold_pauses_at_once() {
    let wait = RetryAfter::After(Duration::from_secs(900));
    let fault = Fault {
        retry_after: Some(wait),
        contains: Some("item-200.".to_owned()),
        ..Fault::new(FaultKind::RateLimited)
    };
    let simulator = start_faulty_simulator([fault]);
    let config = format!("{}[run]\nmax_hold = \"5m\"\n", provider_config("a", &simulator, LONG_TIMEOUTS));
    let finished = run_pipeline(&start_pointsman(&config), STEP, 2_000).await;
    assert_paused(&finished, Class::RateLimit);
    let report = finished.report;
    let started = report.items.completed + report.items.paused;
    assert!(report.items.completed >= 100 && started < 2_000, "{:?}", report.items);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_longer_than_max_hold_pauses_the_run() {
    let simulator = start_faulty_simulator([Fault::new(FaultKind::ServerError)]);
    let config =
        format!("{}{QUICK_RETRY}[run]\nmax_hold = \"1s\"\n", provider_config("a", &simulator, QUICK_BREAKER));
    let finished = run_pipeline(&start_pointsman(&config), STEP, 500).await;
    assert_paused(&finished, Class::ServerError);
    let duration = finished.report.duration_seconds;
    assert!(duration.is_some_and(|seconds| seconds >= 1.0), "{duration:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exhausted_daily_quota_pauses_the_run_and_fails_no_item() {
    let simulator = start_simulator(Settings::default());
    let more = format!("{LONG_TIMEOUTS}limits.requests_per_day = 1\n");
    let config = format!("{}[run]\nmax_hold = \"5m\"\n", provider_config("a", &simulator, &more));
    let finished = run_pipeline(&start_pointsman(&config), STEP, 20).await;
    assert_paused(&finished, Class::Quota);
    assert_eq!((finished.report.items.completed, simulator.counts().requests), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_item_that_fails_while_others_succeed_fails_alone() {
    for kind in [FaultKind::ServerError, FaultKind::Silent, FaultKind::Cut] {
        let fault = Fault { contains: Some("item-7.".to_owned()), ..Fault::new(kind) };
        let latency = Latency::Fixed(Duration::from_millis(20));
        let simulator = start_simulator(Settings { faults: vec![fault], latency, ..Settings::default() });
        let more = format!("{LONG_TIMEOUTS}limits.concurrency = 4\n")
            .replace("first_token = \"2s\"", "first_token = \"200ms\"");
        let finished = run_pipeline(
            &start_pointsman(&(provider_config("a", &simulator, &more) + QUICK_RETRY)),
            STEP,
            300,
        )
        .await;
        let report = &finished.report;
        assert_eq!((report.items.completed, report.items.failed), (299, 1), "{kind:?}: {:?}", report.errors);
        assert_eq!(report.outcome, RunOutcome::Completed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn items_with_many_concurrent_steps_start_as_the_rate_limit_allows() {
    let simulator = start_simulator(Settings::default());
    let steps: String = (0..8)
        .map(|step| format!("{}deadline = \"1s\"\n", STEP.replace("\"s\"", &format!("\"s{step}\""))))
        .collect();
    let more = format!("{LONG_TIMEOUTS}limits.requests_per_minute = 6000\n");
    let finished = run_pipeline(&start_pointsman(&provider_config("a", &simulator, &more)), &steps, 60).await;
    assert_complete(&finished, 60);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_whose_items_all_fail_pauses() {
    let simulator = start_simulator(Settings::default());
    let steps = "[[step]]\nname = \"s\"\nprompt = \"Greet {{ item.name }}.\"\n";
    let finished =
        run_pipeline(&start_pointsman(&provider_config("a", &simulator, LONG_TIMEOUTS)), steps, 5_000).await;
    let report = &finished.report;
    assert_eq!((report.outcome, report.paused_class), (RunOutcome::Paused, Some(Class::TemplateError)));
    assert!((50..500).contains(&report.items.failed), "{:?}", report.items);
    assert!(report.max_failures_reached);
    assert_eq!(
        report.paused.as_ref().unwrap().split(';').next(),
        Some(format!("{} items failed and none has completed", report.items.failed).as_str())
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_has_processed_its_whole_input_is_complete_even_if_all_items_failed() {
    let simulator = start_simulator(Settings::default());
    let steps = "[[step]]\nname = \"s\"\nprompt = \"Greet {{ item.name }}.\"\n";
    let config = format!("{}[run]\nmax_failures = 5\n", provider_config("a", &simulator, LONG_TIMEOUTS));
    let finished = run_pipeline(&start_pointsman(&config), steps, 5).await;
    let report = &finished.report;
    assert_eq!(
        (report.outcome, report.items.failed, report.paused.as_ref()),
        (RunOutcome::Completed, 5, None)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rare_faults_and_short_outages_fail_no_item() {
    for seed in 0..2_u64 {
        let mut random = fastrand::Rng::with_seed(seed);
        let kinds = [FaultKind::Unavailable, FaultKind::ServerError, FaultKind::Reset, FaultKind::Cut];
        let mut faults: Vec<Fault> =
            kinds.iter().map(|kind| Fault { share: random.f64() * 0.05, ..Fault::new(*kind) }).collect();
        let mut at = 0.0;
        for _ in 0..3 {
            let from = at + random.f64();
            at = from + random.f64();
            let kind = kinds[random.usize(..3)];
            faults.insert(0, Fault { from: seconds(from), until: seconds(at), ..Fault::new(kind) });
        }
        let latency = Latency::Fixed(Duration::from_millis(10));
        let simulator = start_simulator(Settings { faults, latency, ..Settings::default() });
        let finished = run_pipeline(
            &start_pointsman(&(provider_config("a", &simulator, QUICK_BREAKER) + QUICK_RETRY)),
            STEP,
            1_000,
        )
        .await;
        assert_complete(&finished, 1_000);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_holds_until_an_exhausted_quota_is_restored() {
    let exhausted = Fault { from: seconds(0.3), until: seconds(2.0), ..Fault::new(FaultKind::Quota) };
    let latency = Latency::Fixed(Duration::from_millis(5));
    let simulator = start_simulator(Settings { faults: vec![exhausted], latency, ..Settings::default() });
    let steps = format!("{STEP}deadline = \"2s\"\n");
    let more = format!("{LONG_TIMEOUTS}limits.concurrency = 32\n");
    let finished =
        run_pipeline(&start_pointsman(&provider_config("a", &simulator, &more)), &steps, 3_000).await;
    assert_complete(&finished, 3_000);
    // The requests in flight when the quota was exhausted, and a few probes.
    let refused = simulator.counts().by_status[&429];
    assert!(refused <= 40, "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_holds_while_every_stream_is_cut_off() {
    for kind in [FaultKind::Cut, FaultKind::MalformedChunk, FaultKind::NoEnd] {
        let simulator = start_faulty_simulator([Fault { until: seconds(1.5), ..Fault::new(kind) }]);
        let finished = run_pipeline(
            &start_pointsman(&(provider_config("a", &simulator, QUICK_BREAKER) + QUICK_RETRY)),
            STEP,
            200,
        )
        .await;
        assert_complete(&finished, 200);
    }
}
