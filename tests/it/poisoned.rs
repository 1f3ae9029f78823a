//! Requests that fail each time, of themselves, beside others that are answered: they fail alone, and hold up no other.

use std::time::Duration;

use pointsman::run::Ended;
use pointsman::runtime::{PauseOptions, RunOptions};
use pointsman::simulator::{Fault, FaultKind, Latency, Settings, Simulator};
use pointsman::types::Class;
use tokio::time::timeout;

use super::stage::*;

const STEP: &str = "[[step]]\nname = \"s\"\nprompt = \"Greet {{ item.id }}.\"\n";

/// A breaker as it is by default, with pauses of a tenth.
const BREAKER: &str = "breaker = { pause = \"500ms\", max_open_duration = \"1s\" }\n";

/// A fault of each request whose item has one of these numbers.
fn poison(kind: FaultKind, items: impl IntoIterator<Item = usize>) -> Vec<Fault> {
    let fault = |item| Fault { contains: Some(format!("item-{item}.")), ..Fault::new(kind) };
    items.into_iter().map(fault).collect()
}

fn slow(faults: Vec<Fault>, latency: u64) -> Simulator {
    let latency = Latency::Fixed(Duration::from_millis(latency));
    play(Settings { faults, latency, ..Settings::default() })
}

/// Fails unless exactly so many items of `ran` have failed, and all others have completed.
fn failed_alone(ran: &Ran, items: u64, failed: u64, what: &str) {
    let report = &ran.report;
    let settled = (report.items.completed, report.items.failed);
    assert_eq!(settled, (items - failed, failed), "{what}: {:?} {:?}", report.errors, report.paused);
    assert_eq!(report.ended, Ended::Whole, "{what}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_neighbours_that_always_fail_keep_no_other_item_from_being_asked() {
    let ran = |kind| async move {
        let simulator = slow(poison(kind, [30, 31, 32]), 400);
        let more = format!("{BREAKER}limits.concurrency = 4\n");
        let config = format!("{}[run]\nmax_hold = \"20s\"\n", provider("a", &simulator, &more));
        (kind, run(&start(&config), STEP, 120).await)
    };
    for (kind, ran) in [tokio::join!(ran(FaultKind::ServerError), ran(FaultKind::Reset))]
        .into_iter()
        .flat_map(|(a, b)| [a, b])
    {
        failed_alone(&ran, 120, 3, &format!("{kind:?}"));
    }
}

/// Runs 500 items of which twenty meet a fault of this kind each time.
async fn with_twenty_poisoned(kind: FaultKind) -> (FaultKind, Ran) {
    let simulator = slow(poison(kind, (0..20).map(|number| number * 25 + 3)), 100);
    let config = format!("{}[run]\nmax_hold = \"20s\"\n", provider("a", &simulator, BREAKER));
    (kind, run(&start(&config), STEP, 500).await)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_of_five_hundred_that_always_fail_do_not_hide_each_other() {
    let kinds = [
        FaultKind::ServerError,
        FaultKind::Unavailable,
        FaultKind::Reset,
        FaultKind::Cut,
        FaultKind::Html,
        FaultKind::NotFound,
        FaultKind::MaxTokensUnaffordable,
    ];
    for (kind, ran) in futures_util::future::join_all(kinds.map(with_twenty_poisoned)).await {
        failed_alone(&ran, 500, 20, &format!("{kind:?}"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_of_five_hundred_whose_refusals_blame_the_key_keep_no_other_from_its_answer() {
    let kinds = [FaultKind::Auth, FaultKind::Forbidden, FaultKind::ModelForbidden];
    for (kind, ran) in futures_util::future::join_all(kinds.map(with_twenty_poisoned)).await {
        let (report, items) = (&ran.report, &ran.report.items);
        assert_eq!(
            (items.completed, items.failed + items.paused),
            (480, 20),
            "{kind:?}: {:?}",
            report.errors
        );
        // Those that were never asked beside others may be refused for the key: then the run pauses.
        let expected = if items.paused == 0 { Ended::Whole } else { Ended::Paused };
        assert_eq!(report.ended, expected, "{kind:?}: {:?}", report.paused);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_items_of_a_run_that_always_fail_fail_as_those_before_them_do() {
    const STEPS: &str = "[[step]]\nname = \"s\"\nprompt = \"Greet {{ item.id }}.\"\n\
        [[step]]\nname = \"t\"\nprompt = \"Describe {{ item.id }}.\"\n\
        [[step]]\nname = \"u\"\nprompt = \"Sum up {{ s }} and {{ t }} for {{ item.id }}.\"\n";
    let kinds = [FaultKind::ServerError, FaultKind::Reset, FaultKind::Unavailable];
    let ran = |kind| async move {
        let simulator = slow(poison(kind, [10, 150, 296, 298]), 50);
        let more = format!("{BREAKER}limits.concurrency = 8\n");
        let config = format!("{}[run]\nmax_hold = \"20s\"\n", provider("a", &simulator, &more));
        (kind, run(&start(&config), STEPS, 300).await)
    };
    for (kind, ran) in futures_util::future::join_all(kinds.map(ran)).await {
        failed_alone(&ran, 300, 4, &format!("{kind:?}"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_item_that_is_refused_before_the_first_answer_does_not_pause_the_run() {
    let ran = |kind| async move {
        let simulator = slow(poison(kind, [0]), 500);
        let config = format!("{}[run]\nmax_hold = \"60s\"\n", provider("a", &simulator, PATIENT));
        (kind, run(&start(&config), STEP, 200).await)
    };
    let kinds = [FaultKind::NotFound, FaultKind::Auth, FaultKind::Html];
    for (kind, ran) in futures_util::future::join_all(kinds.map(ran)).await {
        failed_alone(&ran, 200, 1, &format!("{kind:?}"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_whose_every_item_fails_from_some_moment_on_pauses() {
    let simulator =
        slow(vec![Fault { from: Some(Duration::from_secs(1)), ..Fault::new(FaultKind::Firewall) }], 20);
    let more = format!("{PATIENT}limits.concurrency = 8\n");
    let ran = run(&start(&provider("a", &simulator, &more)), STEP, 5_000).await;
    let report = &ran.report;
    assert!(report.items.completed >= 50, "{:?}", report.items);
    assert_eq!((report.ended, report.paused_class), (Ended::Paused, Some(Class::ApiError)));
    let why = report.paused.as_ref().unwrap().split(';').next();
    assert_eq!(why, Some("50 items failed in a row"));
    assert!((50..200).contains(&report.items.failed), "{:?}", report.items);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_pauses_breaks_off_what_a_silent_provider_has_and_sends_nothing_more() {
    let silent = Fault { from: Some(Duration::from_millis(300)), ..Fault::new(FaultKind::Silent) };
    let simulator = slow(vec![silent], 20);
    let more =
        "limits.concurrency = 8\ntimeouts = { first_token = \"10m\", idle = \"10m\", total = \"20m\" }\n";
    let config = format!("{}[run]\nmax_hold = \"2s\"\n", provider("a", &simulator, more));
    let pointsman = start(&config);
    let ran = timeout(Duration::from_secs(60), run(&pointsman, STEP, 2_000)).await.unwrap();
    assert_eq!((ran.report.ended, ran.report.paused_class), (Ended::Paused, Some(Class::Timeout)));
    assert_eq!(ran.report.items.failed, 0);
    assert_eq!(ran.report.calls.made, simulator.counts().requests, "none is sent again unnoticed:");
    assert!(ran.report.calls.failed > 0, "{:?}", ran.report.calls);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn items_whose_requests_hold_for_too_long_fail_where_they_are_given_up() {
    let simulator = faulty([Fault::new(FaultKind::ServerError)]);
    let config = format!("{}{QUICK_RETRY}[run]\nmax_hold = \"1s\"\n", provider("a", &simulator, WARY));
    let pause = PauseOptions { give_up: true, ..PauseOptions::default() };
    let options = RunOptions { pause, ..RunOptions::default() };
    let ran = run_with(&start(&config), STEP, 6, options).await;
    let report = &ran.report;
    assert_eq!(
        (report.ended, report.items.failed),
        (Ended::Whole, 6),
        "{:?} {:?}",
        report.items,
        report.paused
    );
    assert_eq!(ran.lines[0]["error"]["class"], "server_error", "{:?}", ran.lines[0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn among_random_poison_and_outages_every_item_ends_as_it_should() {
    let histories = (0..6_u64).map(|seed| async move {
        let mut random = fastrand::Rng::with_seed(seed);
        let kinds = [FaultKind::ServerError, FaultKind::Reset, FaultKind::Unavailable];
        let (items, concurrency) = (random.usize(80..300), random.usize(1..=16));
        let share = random.f64() * 0.05;
        let poisoned: Vec<usize> = (0..items).filter(|_| random.f64() < share).collect();
        let mut faults = poison(kinds[random.usize(..3)], poisoned.clone());
        let mut at = 0.0;
        for _ in 0..2 {
            let from = at + random.f64() * 2.0;
            at = from + random.f64() * 1.5;
            let [from, until] = [from, at].map(|at| Some(Duration::from_secs_f64(at)));
            faults.push(Fault { from, until, ..Fault::new(kinds[random.usize(..3)]) });
        }
        let simulators = [slow(faults.clone(), 30), slow(faults, 30)];
        let more = format!("{BREAKER}limits.concurrency = {concurrency}\n");
        let lanes = if random.bool() { "\"a/m\"" } else { "\"a/m\", \"b/m\"" };
        let [a, b] = &simulators;
        let config = format!(
            "{}{}[route.default]\nlanes = [{lanes}]\n[run]\nmax_hold = \"12s\"\n",
            provider("a", a, &more),
            provider("b", b, &more)
        );
        let ran = run(&start(&config), STEP, items).await;
        let what = format!("seed {seed}: {items} items at {concurrency}, {lanes}");
        let (report, number) = (&ran.report, |line: &serde_json::Value| -> usize {
            line["key"].as_str().unwrap().rsplit('-').next().unwrap().parse().unwrap()
        });
        let (failed, completed): (Vec<_>, Vec<_>) = ran.lines.iter().partition(|it| it["status"] == "failed");
        assert_eq!(
            completed.len(),
            items - poisoned.len(),
            "{what}: {:?} {:?}",
            report.errors,
            report.paused
        );
        for line in &failed {
            assert!(poisoned.contains(&number(line)), "{what}: {line}");
        }
        // Where one that fails each time was never sent beside others that were answered, nothing shows whose failure it is.
        let expected = if failed.len() == poisoned.len() { Ended::Whole } else { Ended::Paused };
        assert_eq!(report.ended, expected, "{what}: {:?}", report.paused);
        usize::from(report.ended == Ended::Whole)
    });
    let whole: usize = futures_util::future::join_all(histories).await.into_iter().sum();
    assert!(whole >= 3, "{whole} of 6");
}
