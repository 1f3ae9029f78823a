//! How many attempts are in flight at once: of each model, and of all models of a provider together.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::join_all;
use pointsman::guard::BreakerState;
use pointsman::runtime::Pointsman;
use pointsman::simulator::{Counts, Fault, FaultKind, Latency, Settings, Simulator, Vendor};
use pointsman::types::Class;

use super::stage::{play, question, snapshot, spawn, start, until};

/// Starts one provider with these models, each with a route of its own name.
fn start_with(simulator: &Simulator, models: &[&str], more: &str) -> Pointsman {
    let url = simulator.base_url(Vendor::OpenAi);
    let mut config = format!("[provider.a]\nbase_url = \"{url}\"\nbreaker.failures = 1000\n{more}\n");
    for model in models {
        let name = model.split_once(' ').map_or(*model, |(name, _)| name);
        let rest = model.split_once(' ').map_or("{}", |(_, rest)| rest);
        config = format!("[route.{name}]\nlanes = [\"a/{name}\"]\n{config}models.{name} = {rest}\n");
    }
    start(&config)
}

/// A provider whose answers take so long that all attempts which may leave at once are in flight together.
fn slow() -> Simulator {
    play(toml::from_str("latency = \"300ms\"").unwrap())
}

/// Asks every model this many different questions at once, and returns how many were answered.
async fn ask_each(pointsman: &Pointsman, models: &[&str], count: usize) -> usize {
    let asks = models.iter().flat_map(|model| (0..count).map(move |number| (*model, number)));
    let asks = asks.map(|(model, number)| {
        let ask = question(model, &format!("{model} {number}?"), Duration::from_secs(20));
        async move { pointsman.send(ask).await }
    });
    join_all(asks).await.iter().filter(|answer| answer.is_ok()).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_concurrency_of_an_account_holds_for_each_of_its_models_by_itself() {
    let (simulator, models) = (slow(), ["x", "y", "z"]);
    let pointsman = start_with(&simulator, &models, "limits.concurrency = 8");
    assert_eq!(ask_each(&pointsman, &models, 16).await, 48);
    assert_eq!(simulator.counts().peak_in_flight, 24);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_models_own_concurrency_holds_beside_the_accounts() {
    let simulator = slow();
    let models =
        ["usual", "small { limits = { concurrency = 3 } }", "large { limits = { concurrency = 12 } }"];
    let pointsman = start_with(&simulator, &models, "limits.concurrency = 5");
    for (model, bound) in [("usual", 5), ("small", 3), ("large", 12)] {
        simulator.reset();
        assert_eq!(ask_each(&pointsman, &[model], 24).await, 24);
        assert_eq!(simulator.counts().peak_in_flight, bound, "{model}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bound_on_all_models_together_is_a_key_of_its_own() {
    let (simulator, models) = (slow(), ["x", "y", "z"]);
    let pointsman = start_with(&simulator, &models, "limits.concurrency = 8\nmax_concurrency = 10");
    assert_eq!(ask_each(&pointsman, &models, 16).await, 48);
    assert_eq!(simulator.counts().peak_in_flight, 10);
}

fn silent(model: &str) -> Settings {
    let fault = Fault { model: Some(model.to_owned()), ..Fault::new(FaultKind::Silent) };
    Settings { faults: vec![fault], ..Settings::default() }
}

const LONG: &str = "timeouts = { first_token = \"1m\" }";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_to_one_model_never_wait_for_those_to_another() {
    let simulator = play(silent("quiet"));
    let pointsman = start_with(&simulator, &["quiet", "well"], &format!("limits.concurrency = 4\n{LONG}"));
    let hanging = hang(&pointsman, &simulator, 8, 4).await;
    assert_eq!(ask_each(&pointsman, &["well"], 20).await, 20);
    assert!(
        hanging.iter().all(|hanging| !hanging.is_finished()),
        "the silent model gave its calls up before"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_that_has_fallen_silent_takes_nothing_from_the_bound_on_all_models() {
    let simulator = play(Settings::default());
    let more = format!("limits.concurrency = 8\nmax_concurrency = 4\n{LONG}");
    let pointsman = start_with(&simulator, &["quiet", "well"], &more);
    // So that it is known how long its calls usually take.
    assert_eq!(ask_each(&pointsman, &["quiet"], 30).await, 30);
    simulator.set(silent("quiet"));
    let hanging = hang(&pointsman, &simulator, 4, 4).await;
    assert_eq!(ask_each(&pointsman, &["well"], 20).await, 20);
    assert!(
        hanging.iter().all(|hanging| !hanging.is_finished()),
        "the silent model gave its calls up before"
    );
}

/// Asks the silent model, and returns once as many attempts as may be hang there.
async fn hang(
    pointsman: &Pointsman,
    simulator: &Simulator,
    count: usize,
    hang: u64,
) -> Vec<tokio::task::JoinHandle<()>> {
    let asks = (0..count).map(|number| {
        let (asking, text) = (pointsman.clone(), format!("Silence {number}?"));
        spawn(async move { drop(asking.send(question("quiet", &text, Duration::from_secs(60))).await) })
    });
    let asks = asks.collect();
    until("all that may be in flight hang", || simulator.counts().in_flight == hang).await;
    asks
}

/// The most attempts in flight in the tests of refusals: enough for a share, and few enough for a busy machine.
const MOST: u64 = 48;

/// A provider that answers in a tenth of a second, with this going wrong.
fn with_faults(faults: Vec<Fault>) -> Simulator {
    play(Settings { faults, latency: Latency::Fixed(Duration::from_millis(100)), ..Settings::default() })
}

/// One model with that many attempts in flight, whose calls are made again soon.
fn start_refused(simulator: &Simulator, more: &str) -> Pointsman {
    let retry = "[retry]\nrounds = 10\nbase = \"20ms\"\nmax = \"200ms\"\n";
    let limits = format!("limits.concurrency = {{ start = 24, max = {MOST} }}");
    let url = simulator.base_url(Vendor::OpenAi);
    start(&format!("{retry}[provider.a]\nbase_url = \"{url}\"\nmodels.m = {{}}\n{limits}\n{more}\n"))
}

/// Keeps so many questions under way until so many are answered, and returns how many were not.
async fn ask_on(pointsman: &Pointsman, from: usize, count: usize) -> usize {
    let asks = futures_util::stream::iter(from..from + count).map(|number| {
        let ask = question("default", &format!("{number}?"), Duration::from_secs(60));
        async move { pointsman.send(ask).await.is_err() }
    });
    asks.buffer_unordered(3 * MOST as usize).filter(|failed| std::future::ready(*failed)).count().await
}

fn concurrency_of(pointsman: &Pointsman) -> usize {
    snapshot(pointsman, "a").concurrency
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_at_random_leave_as_many_attempts_in_flight_as_without() {
    for (kind, status) in
        [(FaultKind::Unavailable, None), (FaultKind::Overloaded, Some(529)), (FaultKind::ServerError, None)]
    {
        for share in [0.02, 0.05] {
            let simulator = with_faults(vec![Fault { status, ..Fault::new(kind).share(share) }]);
            let pointsman = start_refused(&simulator, "");
            assert_eq!(ask_on(&pointsman, 0, 2_000).await, 0, "{kind:?} {share}");
            assert_eq!(concurrency_of(&pointsman), MOST as usize, "{kind:?} {share}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silence_at_random_leaves_as_many_attempts_in_flight_as_without() {
    let simulator = with_faults(vec![Fault::new(FaultKind::Silent).share(0.02)]);
    let pointsman = start_refused(&simulator, "timeouts.first_token = \"1s\"");
    assert_eq!(ask_on(&pointsman, 0, 1_500).await, 0);
    assert!(concurrency_of(&pointsman) >= MOST as usize * 9 / 10, "{}", concurrency_of(&pointsman));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_takes_20_at_once_is_asked_for_about_20() {
    let simulator = with_faults(vec![Fault { above: Some(20), ..Fault::new(FaultKind::Overloaded) }]);
    let pointsman = start_refused(&simulator, "");
    assert_eq!(ask_on(&pointsman, 0, 600).await, 0);
    let before = simulator.counts();
    assert_eq!(ask_on(&pointsman, 600, 1_000).await, 0);
    let counts = simulator.counts();
    let refused = |counts: &Counts| counts.by_fault.get(&FaultKind::Overloaded).copied().unwrap_or(0);
    assert!((16..=24).contains(&concurrency_of(&pointsman)), "{}", concurrency_of(&pointsman));
    assert!(refused(&counts) - refused(&before) < 50, "{} of 1,000", refused(&counts) - refused(&before));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_an_outage_calls_are_made_again_as_fast_as_the_provider_answers() {
    let simulator = with_faults(Vec::new());
    let more = "breaker = { pause = \"300ms\", max_open_duration = \"1s\" }\nretries.floor_per_second = 1.0";
    let pointsman = start_refused(&simulator, more);
    assert_eq!(ask_on(&pointsman, 0, 500).await, 0);
    simulator.set(Settings { faults: vec![Fault::new(FaultKind::Unavailable)], ..simulator.settings() });
    // As many as may be in flight fail, and wait for another attempt.
    let asking = pointsman.clone();
    let waiting = spawn(async move { ask_on(&asking, 1_000, 150).await });
    until("the breaker has opened", || {
        snapshot(&pointsman, "a").lanes.iter().any(|lane| lane.breaker != BreakerState::Closed)
    })
    .await;
    let lane = snapshot(&pointsman, "a").lanes.remove(0);
    assert_eq!(lane.last_failure.map(|(class, _)| class), Some(Class::Overloaded));
    assert!(lane.reduced_from.is_some());
    simulator.set(Settings { faults: Vec::new(), ..simulator.settings() });
    assert_eq!(waiting.await.unwrap(), 0);
    assert_eq!(ask_on(&pointsman, 2_000, 500).await, 0);
    assert_eq!(concurrency_of(&pointsman), MOST as usize);
    let after = snapshot(&pointsman, "a");
    assert_eq!((after.retries_wait_for, after.lanes[0].reduced_from), (Duration::ZERO, None));
}
