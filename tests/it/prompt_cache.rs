//! Prompt caching: the first request of a step is sent alone, so that the others find its beginning in the cache.

use std::time::Duration;

use pointsman::Pointsman;
use pointsman::run::Report;
use pointsman::runtime::RunOptions;
use pointsman::simulator::{Counts, Settings, Simulator, Vendor};

use super::support::*;

fn start_slow_simulator(latency: &str) -> Simulator {
    start_simulator(toml::from_str::<Settings>(&format!("latency = \"{latency}\"")).unwrap())
}

/// Starts with 50 items in progress at once and a provider that could take more requests.
fn start_with(simulator: &Simulator) -> Pointsman {
    let more =
        format!("limits.concurrency = 200\n{}", LONG_TIMEOUTS.replace("2s", "20s").replace("5s", "60s"));
    start_pointsman(&format!("{}[run]\nmax_in_flight_items = 50\n", provider_config("a", simulator, &more)))
}

/// Returns a step whose requests share about 1,600 tokens.
fn shared_step(name: &str, more: &str) -> String {
    let text = "Sort the message of a customer. ".repeat(215);
    format!("[[step]]\nname = \"{name}\"\nprompt = \"{text}{name}: {{{{ item.id }}}}\"\n{more}\n")
}

fn plain_step(name: &str) -> String {
    format!("[[step]]\nname = \"{name}\"\nprompt = \"{name}: {{{{ item.id }}}}\"\n")
}

/// Returns the requests that wait for the provider or have been sent to it.
fn requests_at_provider(pointsman: &Pointsman) -> usize {
    let snapshot = provider_snapshot(pointsman, "a");
    snapshot.queued + snapshot.in_flight
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_second_request_arrives_after_the_first_one_is_answered() {
    let simulator = start_slow_simulator("1200ms");
    let pointsman = start_with(&simulator);
    let finished = run_pipeline(&pointsman, &shared_step("kind", ""), 100).await;
    assert_eq!((finished.report.items.completed, finished.report.calls.sent), (100, 100));
    let counts = simulator.counts();
    assert_eq!(counts.requests, 100);
    let first = counts.seconds[0];
    // The latency is more than a second, so an answered request and the next one are in different seconds.
    assert_eq!(first.admitted, 1, "{counts:?}");
    assert!(counts.peak_in_flight > 10, "the others are sent together: {counts:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_that_shares_too_little_or_is_not_cached_does_not_wait() {
    for step in [plain_step("kind"), shared_step("kind", "prompt_cache = \"off\"")] {
        let simulator = start_slow_simulator("3s");
        let pointsman = start_with(&simulator);
        let run = start_run(&pointsman, &step, 50, RunOptions::default()).await;
        wait_until("all requests are sent", || requests_at_provider(&pointsman) == 50).await;
        assert_eq!(simulator.counts().answered, 0, "no request waits for the answer to another one");
        assert_eq!(run.finish().await.report.items.completed, 50);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_steps_of_the_same_items_do_not_wait() {
    let simulator = start_slow_simulator("3s");
    let pointsman = start_with(&simulator);
    let steps = format!("{}{}", shared_step("kind", ""), plain_step("reply"));
    let run = start_run(&pointsman, &steps, 50, RunOptions::default()).await;
    wait_until("the other step is sent", || requests_at_provider(&pointsman) == 51).await;
    assert_eq!(simulator.counts().answered, 0, "only one request of the step that warms the cache is sent");
    let report = run.finish().await.report;
    assert_eq!((report.items.completed, report.calls.sent), (50, 100));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_step_has_a_first_request_of_its_own() {
    let simulator = start_slow_simulator("3s");
    let pointsman = start_with(&simulator);
    let steps = format!("{}{}", shared_step("kind", ""), shared_step("reply", ""));
    let run = start_run(&pointsman, &steps, 50, RunOptions::default()).await;
    wait_until("both first requests have arrived", || simulator.counts().requests == 2).await;
    assert_eq!((requests_at_provider(&pointsman), simulator.counts().answered), (2, 0));
    assert_eq!(run.finish().await.report.calls.sent, 100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_stops_does_not_wait_for_the_first_request() {
    let simulator = start_slow_simulator("20s");
    let pointsman = start_with(&simulator);
    let mut run = start_run(&pointsman, &shared_step("kind", ""), 50, RunOptions::default()).await;
    wait_until("the first request has arrived", || simulator.counts().requests == 1).await;
    run.run.cancel();
    let report = tokio::time::timeout(Duration::from_secs(10), run.run.report()).await.unwrap().unwrap();
    assert_eq!((report.items.completed, simulator.counts().requests), (0, 1));
}

/// Runs items whose requests share a system prompt of about 3,000 tokens, with the vendor's caching simulated.
/// Returns the report and what the simulator has counted.
async fn run_with_vendor_cache(format: &str, step: &str, items: usize) -> (Report, Counts) {
    let vendor = FORMATS.into_iter().find(|(name, _)| *name == format).unwrap().1;
    let settings = "latency = \"50ms\"\nprompt_cache = \"vendor\"\nanswer_tokens = 20";
    let simulator = start_simulator(toml::from_str::<Settings>(settings).unwrap());
    let price = "{ input = 1.0, output = 5.0, cached = 0.1, cache_write = 1.25 }";
    // Requests carry a key by themselves only at OpenAI's own addresses.
    let key = if vendor == Vendor::OpenAi { ", extra = { prompt_cache_key = \"library\" }" } else { "" };
    let config = format!(
        "[provider.a]\nformat = \"{format}\"\nbase_url = \"{}\"\nmodels.m = {{ price = {price}, min_cache_tokens = 1024{key} }}\n\
         limits.concurrency = 50\n{LONG_TIMEOUTS}[run]\nmax_in_flight_items = 50\n",
        simulator.base_url(vendor)
    );
    let system = "You sort the messages of customers of a village library. ".repeat(211);
    let step = format!(
        "[[step]]\nname = \"kind\"\nsystem = \"{system}\"\nprompt = \"Message {{{{ item.id }}}}.\"\n{step}\n"
    );
    let finished = run_pipeline(&start_pointsman(&config), &step, items).await;
    assert_eq!(finished.report.items.completed, items as u64, "{format}: {:?}", finished.report.errors);
    (finished.report, simulator.counts())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_shared_beginning_is_written_once_and_read_by_all_other_requests() {
    for (format, _) in FORMATS {
        let (report, counts) = run_with_vendor_cache(format, "", 200).await;
        assert_eq!((counts.cache_hits, counts.cache_misses), (199, 1), "{format}: {counts:?}");
        // Without a cache each input token costs 1 dollar per million, with it a tenth.
        let read = counts.cache_read_tokens as f64;
        let written = counts.cache_write_tokens as f64;
        let saved = (read * 0.9 - written * 0.25) / 1e6;
        let reported = report.cache_saved_usd.unwrap();
        assert!((reported - saved).abs() < 1e-6, "{format}: {reported} and {saved}");
        assert!(read > 199.0 * 2_800.0, "{format}: {counts:?}");
        let without = report.cost_usd.unwrap() + reported;
        assert!(report.cost_usd.unwrap() < without * 0.3, "{format}: {:?} and {without}", report.cost_usd);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_caching_anthropic_writes_and_reads_nothing() {
    let (report, counts) = run_with_vendor_cache("anthropic", "prompt_cache = \"off\"", 60).await;
    assert_eq!((counts.cache_read_tokens, counts.cache_write_tokens), (0, 0));
    assert_eq!(report.cache_saved_usd, None);
}
