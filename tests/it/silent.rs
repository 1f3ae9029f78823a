//! Providers that accept requests and say nothing, for good or for a while, beside one that answers.

use std::sync::Arc;
use std::time::Duration;

use pointsman::config::Config;
use pointsman::provider::Patience;
use pointsman::run::Ended;
use pointsman::runtime::Pointsman;
use pointsman::simulator::{Fault, FaultKind, Settings, Simulator};
use pointsman::types::Class;
use tokio::time::{sleep, timeout};

use super::stage::*;

const STEP: &str = "[[step]]\nname = \"s\"\nprompt = \"Greet {{ item.id }}.\"\n";

/// A breaker that probes within half a second, and times that only what is stuck outlasts.
const SCALED: &str = r#"
timeouts = { connect = "5s", first_token = "15s", idle = "15s", total = "60s" }
breaker = { pause = "250ms", max_open_duration = "500ms" }
"#;

/// How long the slowest of these tests may take before it counts as stuck.
const STUCK: Duration = Duration::from_secs(100);

/// Starts with a twentieth of the default patience with silence.
fn start_scaled(config: &str) -> Pointsman {
    let mut config = Config::parse("test.toml", config, &key).unwrap_or_else(|faults| panic!("{faults}"));
    config.retry.silent_after = Duration::from_millis(1_000);
    for provider in config.providers.values_mut() {
        provider.patience = Patience {
            at_least: Duration::from_millis(250),
            at_first: Duration::from_millis(500),
            new_step: Duration::from_millis(1_000),
        };
    }
    Pointsman::start_with(&config, &key).unwrap_or_else(|error| panic!("{error}"))
}

/// Two targets, the first preferred, with these limits for each.
fn two(first: &Simulator, second: &Simulator, limits: &str) -> String {
    let more = format!("{SCALED}{limits}\n");
    format!(
        "{QUICK_RETRY}[defaults]\nroute = \"r\"\n[route.r]\nlanes = [\"a/m\", \"b/m\"]\n{}{}",
        provider("a", first, &more),
        provider("b", second, &more)
    )
}

fn healthy() -> Settings {
    toml::from_str("latency = \"20ms\"").unwrap()
}

fn silent() -> Settings {
    Settings { faults: vec![Fault::new(FaultKind::Silent)], ..healthy() }
}

/// Fails unless all items are complete and no call was waited for until its time was up.
fn is_whole_without_timeouts(ran: &Ran, items: u64, what: &str) {
    is_whole_with_timeouts(ran, items, 0, what);
}

/// Fails unless all items are complete and no more calls than these were waited for until their time was up.
fn is_whole_with_timeouts(ran: &Ran, items: u64, at_most: u64, what: &str) {
    let report = &ran.report;
    assert_eq!((report.items.completed, report.ended), (items, Ended::Whole), "{what}: {:?}", report.errors);
    assert_eq!(ran.lines.len() as u64, items, "{what}");
    let timeouts = report.failed_calls.get(&Class::Timeout).map_or(0, |timeouts| timeouts.count);
    assert!(timeouts <= at_most, "{what}: {:?}", report.failed_calls);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beside_a_first_target_that_never_answers_the_second_answers_everything() {
    for (limits, at_once) in [("limits.concurrency = 4", 4), ("limits.concurrency = 8", 8), ("", 32)] {
        let (first, second) = (play(silent()), play(healthy()));
        let pointsman = start_scaled(&two(&first, &second, limits));
        let ran = timeout(STUCK, run(&pointsman, STEP, 400)).await.expect("the run is stuck");
        is_whole_without_timeouts(&ran, 400, limits);
        // Those in flight when it was found silent, and some probes; each of them is asked elsewhere as well.
        let asked = first.counts().requests;
        assert!((at_once..=at_once + 24).contains(&asked), "{limits}: {asked}");
        let calls = ran.report.calls;
        assert!((1..=asked).contains(&calls.hedged) && calls.beaten <= asked, "{limits}: {calls:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_that_falls_silent_for_a_while_holds_up_no_item_and_is_used_again() {
    let (first, second) = (Arc::new(play(healthy())), Arc::new(play(healthy())));
    let pointsman = start_scaled(&two(&first, &second, "limits.concurrency = 8"));
    let dark = spawn({
        let first = first.clone();
        async move {
            until("it is used", || first.counts().answered >= 40).await;
            first.set(silent());
            sleep(Duration::from_secs(3)).await;
            first.set(healthy());
            first.counts().answered
        }
    });
    let ran = timeout(STUCK, run(&pointsman, STEP, 3_000)).await.expect("the run is stuck");
    is_whole_without_timeouts(&ran, 3_000, "3 s of silence");
    let before = dark.await.unwrap();
    let (again, beside) = (first.counts().answered - before, second.counts().answered);
    assert!(
        again > 200 && beside > 40,
        "{before} answered by the first before, {again} after it, {beside} by the second"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_only_target_is_used_again_after_a_silence_although_calls_to_it_hang() {
    let simulator = Arc::new(play(healthy()));
    let config =
        format!("{QUICK_RETRY}{}", provider("a", &simulator, &format!("{SCALED}limits.concurrency = 8\n")));
    let pointsman = start_scaled(&config);
    let dark = spawn({
        let simulator = simulator.clone();
        async move {
            until("it is used", || simulator.counts().answered >= 40).await;
            simulator.set(silent());
            sleep(Duration::from_secs(3)).await;
            simulator.set(healthy());
            let before = simulator.counts();
            until("it is used again", || simulator.counts().answered >= before.answered + 400).await;
            before.in_flight
        }
    });
    let ran = timeout(STUCK, run(&pointsman, STEP, 1_000)).await.expect("the run is stuck");
    let hung = dark.await.unwrap();
    assert!(hung >= 8, "{hung} hung");
    // Calls that hang are made again once others are answered: none takes a place until its time is up.
    is_whole_without_timeouts(&ran, 1_000, "they hang");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_silences_and_resets_of_either_provider_hold_up_no_item() {
    let (first, second) = (Arc::new(play(healthy())), Arc::new(play(healthy())));
    let pointsman = start_scaled(&two(&first, &second, "limits.concurrency = 8"));
    let seed = fastrand::u64(..);
    let shaken = spawn({
        let providers = [first.clone(), second.clone()];
        async move {
            let mut random = fastrand::Rng::with_seed(seed);
            let resets = |share: f64| Settings {
                faults: vec![Fault { share, ..Fault::new(FaultKind::Reset) }],
                ..healthy()
            };
            for _ in 0..8 {
                let which = random.usize(..2);
                providers[which].set(if random.bool() { silent() } else { resets(0.05) });
                sleep(Duration::from_millis(random.u64(100..1_500))).await;
                providers[which].set(resets(0.02));
                sleep(Duration::from_millis(random.u64(100..500))).await;
            }
            providers.iter().for_each(|provider| provider.set(healthy()));
        }
    });
    let ran = timeout(STUCK, run(&pointsman, STEP, 3_000))
        .await
        .unwrap_or_else(|_| panic!("stuck with seed {seed}"));
    // A call and the one beside it can both hang, where one provider falls silent after the other.
    is_whole_with_timeouts(&ran, 3_000, 2 * 8, &format!("seed {seed}"));
    shaken.await.unwrap();
    let answered = first.counts().answered + second.counts().answered;
    // What was asked twice is a call in flight at a provider that was silent.
    assert!((3_000..=3_400).contains(&answered), "seed {seed}: {answered}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_pauses_waits_for_no_call_that_hangs() {
    let simulator = play(silent());
    let more = format!("{SCALED}limits.concurrency = 4\n").replace("15s", "300s").replace("60s", "300s");
    let config = format!("{QUICK_RETRY}{}[run]\nmax_hold = \"1s\"\n", provider("a", &simulator, &more));
    let ran = timeout(STUCK, run(&start_scaled(&config), STEP, 100)).await.expect("the run is stuck");
    let report = &ran.report;
    assert_eq!((report.ended, report.items.failed, report.items.completed), (Ended::Paused, 0, 0));
    let asked = simulator.counts().requests;
    assert!((4..=24).contains(&asked), "{asked}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_target_whose_model_does_not_exist_is_left_alone_after_a_few_refusals() {
    let (first, second) = (faulty([Fault::new(FaultKind::NotFound)]), play(healthy()));
    let config = two(&first, &second, "limits.concurrency = 4")
        .replace("\"250ms\"", "\"5s\"")
        .replace("\"500ms\"", "\"10s\"");
    let ran = run(&start_scaled(&config), STEP, 300).await;
    is_whole_without_timeouts(&ran, 300, "no such model");
    let asked = first.counts().requests;
    assert!((3..=12).contains(&asked), "{asked}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_item_whose_connections_are_reset_stops_no_other() {
    let bad = |id: &str| Fault { contains: Some(format!("item-{id}.")), ..Fault::new(FaultKind::Reset) };
    let simulator = play(Settings { faults: vec![bad("100"), bad("101")], ..healthy() });
    let config = format!("{QUICK_RETRY}{}", provider("a", &simulator, "limits.concurrency = 8\n"));
    let pointsman = start(&config);
    let ran = timeout(STUCK, run(&pointsman, STEP, 300)).await.expect("the run is stuck");
    assert_eq!((ran.report.items.completed, ran.report.items.failed), (298, 2), "{:?}", ran.report.errors);
}
