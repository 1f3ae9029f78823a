//! A run whose accounts, limits or providers let nothing through holds or pauses; no item fails for it.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use pointsman::run::Ended;
use pointsman::simulator::{Fault, FaultKind, Latency, RetryAfter, Settings, Simulator};
use pointsman::types::Class;
use tokio::runtime::Handle;

use super::stage::*;

const STEP: &str = "[[step]]\nname = \"s\"\nprompt = \"Greet {{ item.id }}.\"\n";

fn seconds(seconds: f64) -> Option<Duration> {
    Some(Duration::from_secs_f64(seconds))
}

/// Fails if an item of `ran` failed or was lost: all of them are complete.
fn is_whole(ran: &Ran, items: u64) {
    assert_eq!((ran.report.items.completed, ran.report.items.failed), (items, 0), "{:?}", ran.report.errors);
    assert_eq!((ran.report.ended, ran.lines.len() as u64), (Ended::Whole, items));
    let mut ids: Vec<String> = ran.lines.iter().map(|line| line["key"].to_string()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len() as u64, items);
}

/// Fails unless `ran` has paused for this class and failed no item.
fn has_paused(ran: &Ran, class: Class) {
    let report = &ran.report;
    assert_eq!((report.ended, report.paused_class), (Ended::Paused, Some(class)), "{:?}", report.paused);
    assert_eq!(report.items.failed, 0, "{:?}", report.errors);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_key_pauses_the_run_before_the_rest_of_its_input_is_read() {
    for (format, vendor) in FORMATS {
        let simulator = play(Settings { keys: vec![key("K2").unwrap()], ..Settings::default() });
        let url = simulator.base_url(vendor);
        let more = format!("format = \"{format}\"\nkeys = [\"env:K1\"]\n{PATIENT}");
        let ran = run(&start(&provider_at("a", &url, &more)), STEP, 20_000).await;
        has_paused(&ran, Class::Auth);
        let (report, requests) = (ran.report, simulator.counts().requests);
        assert!(requests <= 64, "{format}: {requests}");
        assert!(report.not_begun.unwrap().share.unwrap() > 0.9, "{format}: {:?}", report.not_begun);
        let why = report.paused.unwrap();
        assert!(why.contains("check the key"), "{format}: {why}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_that_does_not_exist_pauses_the_run() {
    let simulator = faulty([Fault::new(FaultKind::NotFound)]);
    let ran = run(&start(&provider("a", &simulator, PATIENT)), STEP, 1_000).await;
    has_paused(&ran, Class::NotFound);
    assert!(ran.report.paused.unwrap().contains("check the model's name"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_are_no_apis_to_every_request_pause_the_run() {
    let simulator = faulty([Fault::new(FaultKind::Html)]);
    let ran = run(&start(&(provider("a", &simulator, WARY) + QUICK_RETRY)), STEP, 1_000).await;
    has_paused(&ran, Class::Unreadable);
    assert!(ran.report.paused.unwrap().contains("check `base_url`"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_at_the_start_is_waited_for() {
    let kinds = [
        FaultKind::ServerError,
        FaultKind::Unavailable,
        FaultKind::Reset,
        FaultKind::Silent,
        FaultKind::Cut,
        FaultKind::MalformedChunk,
    ];
    for kind in kinds {
        let simulator = faulty([Fault { until: seconds(1.5), ..Fault::new(kind) }]);
        let ran = run(&start(&(provider("a", &simulator, WARY) + QUICK_RETRY)), STEP, 400).await;
        is_whole(&ran, 400);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_in_the_middle_is_waited_for_beyond_the_deadline_of_the_step() {
    let down = Fault { from: seconds(0.3), until: seconds(4.5), ..Fault::new(FaultKind::ServerError) };
    let latency = Latency::Fixed(Duration::from_millis(5));
    let simulator = play(Settings { faults: vec![down], latency, ..Settings::default() });
    let steps = format!("{STEP}deadline = \"2s\"\n");
    let ran = run(&start(&(provider("a", &simulator, WARY) + QUICK_RETRY)), &steps, 5_000).await;
    is_whole(&ran, 5_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_cannot_be_reached_at_the_start_is_waited_for() {
    let free = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let more = format!("{WARY}limits.concurrency = 8\n");
    let pointsman = start(&(provider_at("a", &format!("http://127.0.0.1:{port}/v1"), &more) + QUICK_RETRY));
    let starts_late = async {
        until("the run holds", || snapshot(&pointsman, "a").calls >= 3).await;
        Simulator::start(
            Settings::default(),
            SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            &Handle::current(),
        )
        .unwrap()
    };
    let (ran, _simulator) = tokio::join!(run(&pointsman, STEP, 100), starts_late);
    is_whole(&ran, 100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wait_that_the_provider_names_is_waited_for_beyond_the_deadline_of_the_step() {
    let wait = RetryAfter::After(Duration::from_secs(2));
    let once = Fault { retry_after: Some(wait), until: seconds(0.2), ..Fault::new(FaultKind::RateLimited) };
    let simulator = faulty([once]);
    let steps = format!("{STEP}deadline = \"1s\"\n");
    let ran = run(&start(&provider("a", &simulator, PATIENT)), &steps, 500).await;
    is_whole(&ran, 500);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_would_hold_longer_than_it_may_pauses_at_once() {
    let wait = RetryAfter::After(Duration::from_secs(900));
    let once = Fault {
        retry_after: Some(wait),
        contains: Some("item-200.".to_owned()),
        ..Fault::new(FaultKind::RateLimited)
    };
    let simulator = faulty([once]);
    let config = format!("{}[run]\nmax_hold = \"5m\"\n", provider("a", &simulator, PATIENT));
    let ran = run(&start(&config), STEP, 2_000).await;
    has_paused(&ran, Class::RateLimit);
    let report = ran.report;
    let left = report.items.completed + report.items.paused;
    assert!(report.items.completed >= 100 && left < 2_000, "{:?}", report.items);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_that_lasts_longer_than_a_run_may_hold_pauses_it() {
    let simulator = faulty([Fault::new(FaultKind::ServerError)]);
    let config = format!("{}{QUICK_RETRY}[run]\nmax_hold = \"1s\"\n", provider("a", &simulator, WARY));
    let ran = run(&start(&config), STEP, 500).await;
    has_paused(&ran, Class::ServerError);
    assert!(ran.report.seconds >= 1.0, "{}", ran.report.seconds);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_day_without_requests_left_pauses_the_run_and_fails_no_item() {
    let simulator = play(Settings::default());
    let more = format!("{PATIENT}limits.requests_per_day = 1\n");
    let config = format!("{}[run]\nmax_hold = \"5m\"\n", provider("a", &simulator, &more));
    let ran = run(&start(&config), STEP, 20).await;
    has_paused(&ran, Class::Quota);
    assert_eq!((ran.report.items.completed, simulator.counts().requests), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_item_that_fails_while_others_succeed_fails_alone() {
    for kind in [FaultKind::ServerError, FaultKind::Silent, FaultKind::Cut] {
        let poison = Fault { contains: Some("item-7.".to_owned()), ..Fault::new(kind) };
        let latency = Latency::Fixed(Duration::from_millis(20));
        let simulator = play(Settings { faults: vec![poison], latency, ..Settings::default() });
        let more = format!("{PATIENT}limits.concurrency = 4\n")
            .replace("first_token = \"2s\"", "first_token = \"200ms\"");
        let ran = run(&start(&(provider("a", &simulator, &more) + QUICK_RETRY)), STEP, 300).await;
        let report = &ran.report;
        assert_eq!((report.items.completed, report.items.failed), (299, 1), "{kind:?}: {:?}", report.errors);
        assert_eq!(report.ended, Ended::Whole);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn items_with_many_steps_at_once_begin_as_their_limit_allows() {
    let simulator = play(Settings::default());
    let steps: String = (0..8)
        .map(|step| format!("{}deadline = \"1s\"\n", STEP.replace("\"s\"", &format!("\"s{step}\""))))
        .collect();
    let more = format!("{PATIENT}limits.requests_per_minute = 6000\n");
    let ran = run(&start(&provider("a", &simulator, &more)), &steps, 60).await;
    is_whole(&ran, 60);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_of_which_every_item_fails_pauses() {
    let simulator = play(Settings::default());
    let steps = "[[step]]\nname = \"s\"\nprompt = \"Greet {{ item.name }}.\"\n";
    let ran = run(&start(&provider("a", &simulator, PATIENT)), steps, 5_000).await;
    let report = &ran.report;
    assert_eq!((report.ended, report.paused_class), (Ended::Paused, Some(Class::TemplateError)));
    assert!((50..500).contains(&report.items.failed), "{:?}", report.items);
    assert_eq!(
        report.paused.as_ref().unwrap().split(';').next(),
        Some("50 items failed and none has completed")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_has_dealt_with_all_of_its_input_is_whole_however_many_items_failed() {
    let simulator = play(Settings::default());
    let steps = "[[step]]\nname = \"s\"\nprompt = \"Greet {{ item.name }}.\"\n";
    let config = format!("{}[run]\nmax_failures = 5\n", provider("a", &simulator, PATIENT));
    let ran = run(&start(&config), steps, 5).await;
    let report = &ran.report;
    assert_eq!((report.ended, report.items.failed, report.paused.as_ref()), (Ended::Whole, 5, None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_shares_of_faults_and_outages_between_them_fail_no_item() {
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
        let simulator = play(Settings { faults, latency, ..Settings::default() });
        let ran = run(&start(&(provider("a", &simulator, WARY) + QUICK_RETRY)), STEP, 1_000).await;
        is_whole(&ran, 1_000);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quota_that_is_spent_and_restored_is_waited_for() {
    let spent = Fault { from: seconds(0.3), until: seconds(2.0), ..Fault::new(FaultKind::Quota) };
    let latency = Latency::Fixed(Duration::from_millis(5));
    let simulator = play(Settings { faults: vec![spent], latency, ..Settings::default() });
    let steps = format!("{STEP}deadline = \"2s\"\n");
    let more = format!("{PATIENT}limits.concurrency = 32\n");
    let ran = run(&start(&provider("a", &simulator, &more)), &steps, 3_000).await;
    is_whole(&ran, 3_000);
    // Those in flight when it was spent, and few that find out.
    let refused = simulator.counts().by_status[&429];
    assert!(refused <= 40, "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_break_off_at_the_start_are_waited_for_like_any_outage() {
    for kind in [FaultKind::Cut, FaultKind::MalformedChunk, FaultKind::NoEnd] {
        let simulator = faulty([Fault { until: seconds(1.5), ..Fault::new(kind) }]);
        let ran = run(&start(&(provider("a", &simulator, WARY) + QUICK_RETRY)), STEP, 200).await;
        is_whole(&ran, 200);
    }
}
