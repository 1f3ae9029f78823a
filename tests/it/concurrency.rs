//! Concurrency limits: the attempts in flight of each model, and of all models of a provider together.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::join_all;
use pointsman::guard::BreakerState;
use pointsman::runtime::Pointsman;
use pointsman::simulator::{Counts, Fault, FaultKind, Latency, Settings, Simulator, Vendor};
use pointsman::types::Class;

use super::support::{new_request, provider_snapshot, spawn, start_pointsman, start_simulator, wait_until};

/// Starts with one provider with these models. Each model has a route of its name.
fn start_with(simulator: &Simulator, models: &[&str], more: &str) -> Pointsman {
    let url = simulator.base_url(Vendor::OpenAi);
    let mut config =
        format!("[provider.a]\nbase_url = \"{url}\"\nbreaker.consecutive_failures = 1000\n{more}\n");
    for model in models {
        let name = model.split_once(' ').map_or(*model, |(name, _)| name);
        let rest = model.split_once(' ').map_or("{}", |(_, rest)| rest);
        config = format!("[route.{name}]\ntargets = [\"a/{name}\"]\n{config}models.{name} = {rest}\n");
    }
    start_pointsman(&config)
}

/// Starts a provider whose latency is so long that all attempts that the limits allow are in flight together.
fn start_slow_simulator() -> Simulator {
    start_simulator(toml::from_str("latency = \"300ms\"").unwrap())
}

/// Sends `count` different requests to each model concurrently, and returns the number of responses.
async fn send_to_each(pointsman: &Pointsman, models: &[&str], count: usize) -> usize {
    let requests = models.iter().flat_map(|model| (0..count).map(move |number| (*model, number)));
    let requests = requests.map(|(model, number)| {
        let request = new_request(model, &format!("{model} {number}?"), Duration::from_secs(20));
        async move { pointsman.send(request).await }
    });
    join_all(requests).await.iter().filter(|result| result.is_ok()).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_concurrency_limit_of_an_account_applies_to_each_of_its_models_separately() {
    let simulator = start_slow_simulator();
    let models = ["x", "y", "z"];
    let pointsman = start_with(&simulator, &models, "limits.concurrency = 8");
    assert_eq!(send_to_each(&pointsman, &models, 16).await, 48);
    assert_eq!(simulator.counts().peak_in_flight, 24);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_concurrency_limit_of_a_model_replaces_that_of_its_account() {
    let simulator = start_slow_simulator();
    let models =
        ["usual", "small { limits = { concurrency = 3 } }", "large { limits = { concurrency = 12 } }"];
    let pointsman = start_with(&simulator, &models, "limits.concurrency = 5");
    for (model, limit) in [("usual", 5), ("small", 3), ("large", 12)] {
        simulator.reset();
        assert_eq!(send_to_each(&pointsman, &[model], 24).await, 24);
        assert_eq!(simulator.counts().peak_in_flight, limit, "{model}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn max_concurrency_limits_all_models_of_a_provider_together() {
    let simulator = start_slow_simulator();
    let models = ["x", "y", "z"];
    let pointsman = start_with(&simulator, &models, "limits.concurrency = 8\nmax_concurrency = 10");
    assert_eq!(send_to_each(&pointsman, &models, 16).await, 48);
    assert_eq!(simulator.counts().peak_in_flight, 10);
}

/// Returns settings with which one model never responds.
fn unresponsive(model: &str) -> Settings {
    let fault = Fault { model: Some(model.to_owned()), ..Fault::new(FaultKind::Silent) };
    Settings { faults: vec![fault], ..Settings::default() }
}

const LONG_FIRST_TOKEN_TIMEOUT: &str = "timeouts = { first_token = \"1m\" }";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_to_one_model_do_not_wait_for_calls_to_another() {
    let simulator = start_simulator(unresponsive("quiet"));
    let pointsman = start_with(
        &simulator,
        &["quiet", "well"],
        &format!("limits.concurrency = 4\n{LONG_FIRST_TOKEN_TIMEOUT}"),
    );
    let hanging = start_hanging_requests(&pointsman, &simulator, 8, 4).await;
    assert_eq!(send_to_each(&pointsman, &["well"], 20).await, 20);
    assert!(
        hanging.iter().all(|hanging| !hanging.is_finished()),
        "a call to the unresponsive model has ended too early"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unresponsive_model_does_not_use_up_max_concurrency() {
    let simulator = start_simulator(Settings::default());
    let more = format!("limits.concurrency = 8\nmax_concurrency = 4\n{LONG_FIRST_TOKEN_TIMEOUT}");
    let pointsman = start_with(&simulator, &["quiet", "well"], &more);
    // The usual latency of the model is learned.
    assert_eq!(send_to_each(&pointsman, &["quiet"], 30).await, 30);
    simulator.set(unresponsive("quiet"));
    let hanging = start_hanging_requests(&pointsman, &simulator, 4, 4).await;
    assert_eq!(send_to_each(&pointsman, &["well"], 20).await, 20);
    assert!(
        hanging.iter().all(|hanging| !hanging.is_finished()),
        "a call to the unresponsive model has ended too early"
    );
}

/// Sends `count` requests to the unresponsive model, and returns when `in_flight` attempts wait for it.
async fn start_hanging_requests(
    pointsman: &Pointsman,
    simulator: &Simulator,
    count: usize,
    in_flight: u64,
) -> Vec<tokio::task::JoinHandle<()>> {
    let requests = (0..count).map(|number| {
        let pointsman = pointsman.clone();
        let text = format!("Request {number}.");
        spawn(async move { drop(pointsman.send(new_request("quiet", &text, Duration::from_secs(60))).await) })
    });
    let requests = requests.collect();
    wait_until("all attempts that the limit allows hang", || simulator.counts().in_flight == in_flight).await;
    requests
}

/// Maximum attempts in flight in the tests of rejections: enough to measure a fraction, and few enough for a busy
/// machine.
const MAX_IN_FLIGHT: u64 = 48;

/// Starts a provider with a latency of 100 ms and these faults.
fn start_with_faults(faults: Vec<Fault>) -> Simulator {
    start_simulator(Settings {
        faults,
        latency: Latency::Fixed(Duration::from_millis(100)),
        ..Settings::default()
    })
}

/// Starts with one model, up to [`MAX_IN_FLIGHT`] attempts in flight, and short backoffs.
fn start_limited(simulator: &Simulator, more: &str) -> Pointsman {
    let retry = "[retry]\nmax_rounds = 10\ninitial_backoff = \"20ms\"\nmax_backoff = \"200ms\"\n";
    let limits = format!("limits.concurrency = {{ start = 24, max = {MAX_IN_FLIGHT} }}");
    let url = simulator.base_url(Vendor::OpenAi);
    start_pointsman(&format!(
        "{retry}[provider.a]\nbase_url = \"{url}\"\nmodels.m = {{}}\n{limits}\n{more}\n"
    ))
}

/// Sends `count` requests, three times [`MAX_IN_FLIGHT`] of them concurrently, and returns the number of failures.
async fn send_many(pointsman: &Pointsman, from: usize, count: usize) -> usize {
    let requests = futures_util::stream::iter(from..from + count).map(|number| {
        let request = new_request("default", &format!("{number}?"), Duration::from_secs(60));
        async move { pointsman.send(request).await.is_err() }
    });
    requests
        .buffer_unordered(3 * MAX_IN_FLIGHT as usize)
        .filter(|failed| std::future::ready(*failed))
        .count()
        .await
}

fn concurrency_of(pointsman: &Pointsman) -> usize {
    provider_snapshot(pointsman, "a").concurrency
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_rejections_do_not_reduce_the_concurrency_limit() {
    for (kind, status) in
        [(FaultKind::Unavailable, None), (FaultKind::Overloaded, Some(529)), (FaultKind::ServerError, None)]
    {
        for share in [0.02, 0.05] {
            let simulator = start_with_faults(vec![Fault { status, ..Fault::new(kind).share(share) }]);
            let pointsman = start_limited(&simulator, "");
            assert_eq!(send_many(&pointsman, 0, 500).await, 0, "{kind:?} {share}");
            // Chance makes one round in some ten thousand look like overload. That costs a few attempts in flight for
            // a few round trips.
            let limits = limits_while_sending(&pointsman, 500, 1_500).await;
            let (max, count) = (MAX_IN_FLIGHT as usize, limits.len());
            let (sum, min) = (limits.iter().sum::<usize>(), limits.iter().min().unwrap());
            assert!(sum * 100 >= max * count * 97, "{kind:?} {share}: a mean of {sum} / {count}");
            assert!(min * 4 >= max * 3, "{kind:?} {share}: {min}");
        }
    }
}

/// Sends as [`send_many`] does, and returns the concurrency limit after each request.
async fn limits_while_sending(pointsman: &Pointsman, from: usize, count: usize) -> Vec<usize> {
    let requests = futures_util::stream::iter(from..from + count).map(|number| {
        let request = new_request("default", &format!("{number}?"), Duration::from_secs(60));
        async move {
            pointsman.send(request).await.unwrap();
            concurrency_of(pointsman)
        }
    });
    requests.buffer_unordered(3 * MAX_IN_FLIGHT as usize).collect().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_timeouts_do_not_reduce_the_concurrency_limit() {
    let simulator = start_with_faults(vec![Fault::new(FaultKind::Silent).share(0.02)]);
    let pointsman = start_limited(&simulator, "timeouts.first_token = \"1s\"");
    assert_eq!(send_many(&pointsman, 0, 1_500).await, 0);
    assert!(concurrency_of(&pointsman) >= MAX_IN_FLIGHT as usize * 9 / 10, "{}", concurrency_of(&pointsman));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_concurrency_limit_converges_to_the_20_attempts_that_the_provider_accepts() {
    let simulator = start_with_faults(vec![Fault { above: Some(20), ..Fault::new(FaultKind::Overloaded) }]);
    let pointsman = start_limited(&simulator, "");
    assert_eq!(send_many(&pointsman, 0, 600).await, 0);
    let before = simulator.counts();
    assert_eq!(send_many(&pointsman, 600, 1_000).await, 0);
    let counts = simulator.counts();
    let rejections = |counts: &Counts| counts.by_fault.get(&FaultKind::Overloaded).copied().unwrap_or(0);
    assert!((16..=24).contains(&concurrency_of(&pointsman)), "{}", concurrency_of(&pointsman));
    assert!(
        rejections(&counts) - rejections(&before) < 50,
        "{} of 1,000",
        rejections(&counts) - rejections(&before)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_an_outage_the_full_concurrency_is_restored() {
    let simulator = start_with_faults(Vec::new());
    let more = "breaker = { open_duration = \"300ms\", max_open_duration = \"1s\" }\nretry_budget.min_per_second = 1.0";
    let pointsman = start_limited(&simulator, more);
    assert_eq!(send_many(&pointsman, 0, 500).await, 0);
    simulator.set(Settings { faults: vec![Fault::new(FaultKind::Unavailable)], ..simulator.settings() });
    // The attempts in flight fail, and their requests wait for another attempt.
    let waiting = spawn({
        let pointsman = pointsman.clone();
        async move { send_many(&pointsman, 1_000, 150).await }
    });
    // The breaker may open before enough attempts have failed to reduce the limit.
    wait_until("the breaker has opened and the concurrency limit is reduced", || {
        let target = provider_snapshot(&pointsman, "a").targets.remove(0);
        target.breaker != BreakerState::Closed && target.reduced_from.is_some()
    })
    .await;
    let target = provider_snapshot(&pointsman, "a").targets.remove(0);
    assert_eq!(target.last_failure.map(|(class, _)| class), Some(Class::Overloaded));
    simulator.set(Settings { faults: Vec::new(), ..simulator.settings() });
    assert_eq!(waiting.await.unwrap(), 0);
    assert_eq!(send_many(&pointsman, 2_000, 500).await, 0);
    assert_eq!(concurrency_of(&pointsman), MAX_IN_FLIGHT as usize);
    let after = provider_snapshot(&pointsman, "a");
    assert_eq!((after.retry_budget_wait, after.targets[0].reduced_from), (Duration::ZERO, None));
}
