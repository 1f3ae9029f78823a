//! How many attempts are in flight at once: of each model, and of all models of a provider together.

use std::time::Duration;

use futures_util::future::join_all;
use pointsman::runtime::Pointsman;
use pointsman::simulator::{Fault, FaultKind, Settings, Simulator, Vendor};

use super::stage::{play, question, spawn, start, until};

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
