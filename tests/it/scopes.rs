//! Scopes: limits and budgets of a tenant or token, compared with what the simulator counts.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::future::{join_all, select_all};
use pointsman::run::{CapScope, Report, RunOutcome, RunOutput};
use pointsman::runtime::{Pointsman, ResumeOptions, RunHandle, RunOptions};
use pointsman::simulator::{SecondCounts, Simulator};
use pointsman::sink::{Destination, Format, Sink};
use pointsman::source::Source;
use pointsman::store::{RunNumber, Sqlite, Store};
use pointsman::types::{Class, Day, NanoUsd, Price, RequestError, Response, Spend, Tokens, Usage};
use pointsman::{EmbeddingRequest, Embeddings, Request};
use serde_json::json;
use tokio::time::{Instant, timeout};

use super::support::*;

const STEP: &str = "[[step]]\nname = \"s\"\nprompt = \"{{ item.id }}?\"\n";

/// The price of the model that [`start`] configures.
const PRICE: Price =
    Price { input: 1.0, output: 5.0, cached: None, cache_write: None, cache_write_1h: None, long: None };

/// The longest time that a test waits for a result.
const MAX_TEST_WAIT: Duration = Duration::from_secs(60);

fn simulate(settings: &str) -> Simulator {
    start_simulator(toml::from_str(settings).unwrap())
}

/// Starts the library with one provider, whose model has a price, and these further settings.
fn start(simulator: &Simulator, more: &str) -> Pointsman {
    let provider = provider_config("a", simulator, LONG_TIMEOUTS);
    let priced = provider.replace("models.m = {}", "models.m = { price = { input = 1.0, output = 5.0 } }");
    start_pointsman(&format!("{priced}\n{more}\n"))
}

fn scoped_request(scope: &str, text: &str) -> Request {
    new_request("default", text, MAX_TEST_WAIT).with_scope(scope)
}

/// Sends `count` requests of a scope concurrently.
async fn send_scoped(
    pointsman: &Pointsman,
    scope: &str,
    count: usize,
) -> Vec<Result<Response, Box<RequestError>>> {
    let send = |number| pointsman.send(scoped_request(scope, &format!("Request {number}.")));
    join_all((0..count).map(send)).await
}

/// Asserts that by the end of each second at most `burst` and what `per_second` allows since the start was counted.
/// Calls arrive after they were admitted, so a delay cannot break this.
fn assert_rate(simulator: &Simulator, per_second: f64, burst: f64, amount: impl Fn(&SecondCounts) -> u64) {
    let mut total = 0;
    for second in &simulator.counts().seconds {
        total += amount(second);
        let allowed = burst + per_second * (second.second + 1) as f64;
        assert!(total as f64 <= allowed, "{total} by second {}, {allowed} allowed", second.second);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_requests_of_a_scope_keep_its_rate_and_others_do_not_wait() {
    let simulator = simulate("");
    // 20 requests a second, and a burst of 18.
    let pointsman = start(&simulator, "[scope.team-a]\nrequests_per_minute = 1200");
    let began = Instant::now();
    let (limited, others) =
        tokio::join!(send_scoped(&pointsman, "team-a", 60), send_scoped(&pointsman, "team-b", 60));
    assert!(limited.iter().chain(&others).all(Result::is_ok));
    assert!(began.elapsed() >= Duration::from_millis(2_050), "{:?}", began.elapsed());
    assert_eq!(simulator.counts().requests, 120);
    // The others are sent in the burst.
    assert_rate(&simulator, 20.0, 18.0 + 60.0, |second| second.admitted);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_tokens_of_a_scope_keep_its_rate() {
    let simulator = simulate("answer_tokens = 100\nchunks = 1");
    // 1,000 tokens a second, and a burst of 900.
    let pointsman = start(&simulator, "[scope.team-a]\ntokens_per_minute = 60_000");
    let began = Instant::now();
    let send = |number: u32| {
        let prompt = pointsman::Prompt::text(format!("Request {number}.")).with_max_tokens(100);
        let request = Request::new("default", prompt).with_deadline(MAX_TEST_WAIT).with_scope("team-a");
        pointsman.send(request)
    };
    assert!(join_all((0..40).map(send)).await.iter().all(Result::is_ok));
    let seconds = began.elapsed().as_secs_f64();
    let counts = simulator.counts();
    let total = (counts.input_tokens + counts.output_tokens) as f64;
    // One request exceeds the burst, and an estimate is within a third.
    let burst = 900.0 + 150.0;
    assert!(total > 4_000.0 && total * 0.67 <= burst + 1_000.0 * seconds, "{total} in {seconds} s");
    let tokens = |second: &SecondCounts| second.input_tokens + second.output_tokens;
    assert_rate(&simulator, 1_000.0 / 0.67, burst / 0.67, tokens);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_concurrency_of_a_scope_is_never_exceeded() {
    let simulator = simulate("latency = \"20ms\"");
    let pointsman = start(&simulator, "[scope.team-a]\nconcurrency = 3");
    assert!(send_scoped(&pointsman, "team-a", 60).await.iter().all(Result::is_ok));
    let stream = pointsman.stream(scoped_request("team-a", "A stream."));
    assert!(stream.response().await.is_ok());
    let counts = simulator.counts();
    assert_eq!((counts.requests, counts.peak_in_flight), (61, 3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_of_a_scope_answers_at_once_with_the_expected_wait() {
    let simulator = simulate("latency = \"4s\"");
    let pointsman = start(&simulator, "[scope.team-a]\nconcurrency = 1\nqueue = 2");
    let began = Instant::now();
    let send = |number: u32| {
        let request = scoped_request("team-a", &format!("Request {number}."));
        Box::pin(pointsman.send(request))
    };
    // One is in flight and two wait.
    let (refused, _, pending) = select_all((0..4).map(send)).await;
    let failure = refused.unwrap_err().failure;
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    assert_eq!(failure.class, Class::RateLimit);
    assert!(failure.retry_after.is_some_and(|wait| wait > Duration::ZERO), "{failure:?}");
    let message = "scope team-a has 2 requests waiting (queue = 2): expected wait ";
    assert!(failure.message.starts_with(message), "{failure}");
    assert_eq!(pending.len(), 3);
    // Other scopes, and requests without one, are not refused.
    let other = send_scoped(&pointsman, "team-b", 3);
    let (others, without) = tokio::join!(other, send_request(&pointsman, "default", "Hello."));
    assert!(others.iter().all(Result::is_ok) && without.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiting_request_that_is_dropped_is_not_sent_and_the_next_one_is() {
    let simulator = simulate("latency = \"500ms\"");
    let pointsman = start(&simulator, "[scope.team-a]\nconcurrency = 1");
    let send = |text: &'static str| {
        let pointsman = pointsman.clone();
        spawn(async move { pointsman.send(scoped_request("team-a", text)).await })
    };
    let first = send("First.");
    wait_until("the first request is in flight", || simulator.counts().in_flight == 1).await;
    let dropped = send("Dropped.");
    let last = send("Last.");
    dropped.abort();
    assert!(dropped.await.unwrap_err().is_cancelled());
    let both = timeout(MAX_TEST_WAIT, async { (first.await.unwrap(), last.await.unwrap()) }).await.unwrap();
    assert!(both.0.is_ok() && both.1.is_ok());
    assert_eq!((simulator.counts().requests, simulator.counts().peak_in_flight), (2, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_daily_budget_of_a_scope_is_exact_and_others_are_not_affected() {
    let simulator = simulate("answer_tokens = 100\nchunks = 1");
    let pointsman = start(&simulator, "[budget]\nscope = { team-a = 0.016 }");
    let (capped, others) =
        tokio::join!(send_scoped(&pointsman, "team-a", 60), send_scoped(&pointsman, "team-b", 60));
    assert!(others.iter().all(Result::is_ok));
    let cost = |response: &Response| response.cost.unwrap();
    let spent: NanoUsd = capped.iter().flatten().map(cost).sum();
    let refused: Vec<_> = capped.iter().filter_map(|result| result.as_ref().err()).collect();
    // Calls in flight may cost a few input tokens more than their estimates.
    assert!(spent <= NanoUsd(16_300_000) && spent > NanoUsd(5_000_000), "{spent}");
    assert!(!refused.is_empty() && refused.len() < 60);
    for error in refused {
        assert_eq!((error.failure.class, error.attempts.calls()), (Class::Budget, 0), "{error}");
        let cap = "the day's cap (UTC) of scope team-a of $0.016";
        assert!(error.failure.message.starts_with(cap), "{error}");
    }
    assert_eq!(simulator.counts().requests, 60 + capped.iter().flatten().count() as u64);
    let again = pointsman.send(scoped_request("team-a", "Is anything left?")).await.unwrap_err();
    assert_eq!(again.failure.class, Class::Budget);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_costs_more_than_is_left_of_its_scope_is_refused_alone() {
    let simulator = simulate("answer_tokens = 10\nchunks = 1");
    let pointsman = start(&simulator, "[budget]\nscope = { team-a = 0.016 }");
    let long = scoped_request("team-a", &"word ".repeat(50_000));
    let failure = pointsman.send(long).await.unwrap_err().failure;
    assert_eq!(failure.class, Class::Budget, "{failure}");
    let cap = "the day's cap (UTC) of scope team-a of $0.016";
    assert!(failure.message.starts_with(cap), "{failure}");
    assert!(failure.message.contains(": the call alone may cost "), "{failure}");
    assert_eq!(simulator.counts().requests, 0);
    assert!(pointsman.send(scoped_request("team-a", "Hello.")).await.is_ok());
}

/// Sends requests of a scope concurrently, whose answers have at most `max_tokens` tokens.
async fn send_limited(
    pointsman: &Pointsman,
    scope: &str,
    count: usize,
    max_tokens: u32,
) -> Vec<Result<Response, Box<RequestError>>> {
    let send = |number| {
        let prompt = pointsman::Prompt::text(format!("Request {number}.")).with_max_tokens(max_tokens);
        let request = Request::new("default", prompt).with_deadline(MAX_TEST_WAIT).with_scope(scope);
        pointsman.send(request)
    };
    join_all((0..count).map(send)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn short_answers_do_not_let_a_scope_spend_more_than_its_budget_on_long_ones() {
    let simulator = simulate("answer_tokens = 2\nchunks = 1");
    let pointsman = start(&simulator, "[budget]\nscope = { team-a = 0.05 }");
    for _ in 0..30 {
        assert!(send_limited(&pointsman, "team-a", 1, 1_000).await.iter().all(Result::is_ok));
    }
    let of_short_answers = charged(&simulator).await;
    assert!(of_short_answers < dollars(0.002), "{of_short_answers}");
    simulator.set(toml::from_str("answer_tokens = 900\nchunks = 1\nlatency = \"50ms\"").unwrap());
    // Each costs $0.0045, and at most $0.005.
    let long = send_limited(&pointsman, "team-a", 20, 1_000).await;
    let spent = charged(&simulator).await;
    assert!(spent <= dollars(0.05) && spent > dollars(0.04), "{spent}");
    let refused: Vec<_> = long.iter().filter_map(|result| result.as_ref().err()).collect();
    assert!(!refused.is_empty() && refused.len() < 20, "{}", refused.len());
    for error in refused {
        assert_eq!((error.failure.class, error.attempts.calls()), (Class::Budget, 0), "{error}");
        let cap = "the day's cap (UTC) of scope team-a of $0.05";
        assert!(error.failure.message.starts_with(cap), "{error}");
    }
    // A request that certainly costs less than what is left is sent.
    simulator.set(toml::from_str("answer_tokens = 2\nchunks = 1").unwrap());
    assert!(send_limited(&pointsman, "team-a", 1, 2).await.iter().all(Result::is_ok));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_answers_of_one_scope_do_not_change_what_the_budget_of_another_reserves() {
    let simulator = simulate("answer_tokens = 3000\nchunks = 1");
    let budgets = "[budget]\nscope = { team-a = 5, team-b = 0.01, team-c = 0.004 }";
    let pointsman = start(&simulator, budgets);
    assert!(send_scoped(&pointsman, "team-a", 30).await.iter().all(Result::is_ok));
    // An answer as long as those of team-a would cost more than the budget of team-b.
    simulator.set(toml::from_str("answer_tokens = 400\nchunks = 1").unwrap());
    assert!(send_scoped(&pointsman, "team-b", 2).await.iter().all(Result::is_ok));
    // Ten answers as short as the latest ones of team-a would cost less than the budget of team-c.
    simulator.set(toml::from_str("answer_tokens = 2\nchunks = 1").unwrap());
    for _ in 0..22 {
        assert!(send_scoped(&pointsman, "team-a", 10).await.iter().all(Result::is_ok));
    }
    let before = charged(&simulator).await;
    simulator.set(toml::from_str("answer_tokens = 400\nchunks = 1\nlatency = \"50ms\"").unwrap());
    let sent = send_scoped(&pointsman, "team-c", 10).await;
    assert!(sent.iter().any(Result::is_ok) && sent.iter().any(Result::is_err));
    let spent = charged(&simulator).await.saturating_sub(before);
    assert!(spent <= dollars(0.004), "{spent}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_costs_more_than_is_left_of_the_day_does_not_stop_the_others() {
    let simulator = simulate("answer_tokens = 10\nchunks = 1");
    for (budget, name) in [("day = 0.05", ""), ("provider = { a = 0.05 }", " of provider a")] {
        simulator.reset();
        let pointsman = start(&simulator, &format!("[budget]\n{budget}"));
        let large = scoped_request("team-a", &"word ".repeat(100_000));
        let failure = pointsman.send(large).await.unwrap_err().failure;
        assert_eq!(failure.class, Class::Budget, "{failure}");
        let message = format!("the day's cap (UTC){name} of $0.050000 does not admit the call: ");
        assert!(failure.message.starts_with(&message), "{failure}");
        assert_eq!(simulator.counts().requests, 0);
        let (same, other, without) = tokio::join!(
            send_scoped(&pointsman, "team-a", 3),
            send_scoped(&pointsman, "team-b", 3),
            send_request(&pointsman, "default", "Hello.")
        );
        assert!(same.iter().chain(&other).all(Result::is_ok) && without.is_ok(), "{budget}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_pauses_when_a_request_costs_more_than_is_left_of_the_day_and_others_are_sent() {
    let simulator = simulate("answer_tokens = 10\nchunks = 1");
    // A request without `max_tokens` is expected to cost $0.0025.
    let pointsman = start(&simulator, "[budget]\nday = 0.001");
    let report = run_pipeline(&pointsman, STEP, 5).await.report;
    assert_eq!((report.outcome, report.items.failed), (RunOutcome::Paused, 0), "{report:?}");
    assert_eq!((report.paused_class, report.calls.sent), (Some(Class::Budget), 0));
    let paused = report.paused.as_deref().unwrap_or_default();
    assert!(paused.starts_with("the day's cap (UTC) of $0.001000 does not admit the call: "), "{paused}");
    assert_eq!((report.caps[0].scope, report.caps[0].reached), (CapScope::Day, None));
    assert!(send_limited(&pointsman, "team-a", 3, 10).await.iter().all(Result::is_ok));
    let short = run_pipeline(&pointsman, &format!("{STEP}max_tokens = 10\n"), 5).await.report;
    assert_eq!((short.outcome, short.items.completed), (RunOutcome::Completed, 5), "{short:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn try_send_does_not_wait_for_the_limits_of_a_scope() {
    let simulator = simulate("latency = \"4s\"");
    let pointsman = start(&simulator, "[scope.team-a]\nconcurrency = 1");
    let began = Instant::now();
    let sender = pointsman.clone();
    let first = spawn(async move { sender.send(scoped_request("team-a", "First.")).await });
    wait_until("the first request is in flight", || simulator.counts().in_flight == 1).await;
    let refused = pointsman.try_send(scoped_request("team-a", "Second.")).await.unwrap_err().failure;
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    assert_eq!(refused.class, Class::RateLimit, "{refused}");
    assert!(refused.retry_after.is_some_and(|wait| wait > Duration::ZERO), "{refused:?}");
    assert!(pointsman.try_send(scoped_request("team-b", "Third.")).await.is_ok());
    assert!(first.await.unwrap().is_ok());
    assert_eq!(simulator.counts().requests, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scope_without_limits_and_budget_works_also_for_embeddings() {
    let simulator = simulate("");
    let pointsman = start(&simulator, "");
    assert!(pointsman.send(scoped_request("other", "Hello.")).await.is_ok());
    assert!(pointsman.try_send(scoped_request("other", "Hello again.")).await.is_ok());
    let limited = start(&simulator, "[scope.team-a]\nconcurrency = 1\ntokens_per_minute = 60_000");
    for pointsman in [pointsman, limited] {
        let request = EmbeddingRequest::new("default", ["low tide", "high tide"]).with_scope("team-a");
        let Embeddings { vectors, .. } = pointsman.embed(request).await.unwrap();
        assert_eq!(vectors.len(), 2);
        assert!(pointsman.try_send(scoped_request("team-a", "Hello.")).await.is_ok());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_waits_for_the_rate_of_its_scope_and_no_item_fails() {
    let simulator = simulate("");
    let pointsman = start(&simulator, "[scope.team-a]\nrequests_per_minute = 1200\nqueue = 1");
    let began = Instant::now();
    // The wait for the scope is longer than the deadline of the step, and does not count.
    let step = format!("{STEP}deadline = \"2s\"\n");
    let finished = run_pipeline_with(&pointsman, &step, 100, RunOptions::new().with_scope("team-a")).await;
    let report = &finished.report;
    assert_eq!((report.outcome, report.items.completed), (RunOutcome::Completed, 100), "{report:?}");
    assert_eq!((report.calls.sent, report.calls.failed), (100, 0));
    assert!(began.elapsed() >= Duration::from_millis(4_050), "{:?}", began.elapsed());
    assert_rate(&simulator, 20.0, 18.0, |second| second.admitted);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_pauses_when_the_budget_of_its_scope_is_spent_and_another_run_completes() {
    let simulator = simulate("answer_tokens = 100\nchunks = 1");
    let more = "[budget]\nscope = { team-a = 0.016 }\n[scope.team-a]\nconcurrency = 4";
    let pointsman = start(&simulator, more);
    let capped = run_pipeline_with(&pointsman, STEP, 100, RunOptions::new().with_scope("team-a")).await;
    let report = &capped.report;
    assert_eq!((report.outcome, report.items.failed), (RunOutcome::Paused, 0), "{report:?}");
    let cap = &report.caps[0];
    let scope_name = cap.scope_name.as_ref().map(|name| name.as_str());
    assert_eq!((cap.scope, scope_name), (CapScope::Scope, Some("team-a")));
    assert!(cap.spent_usd <= 0.016_1 && cap.spent_usd > 0.005, "{cap:?}");
    assert!(report.paused.as_ref().unwrap().starts_with("the day's cap (UTC) of scope team-a"));
    assert!(report.calls.sent < 100 && simulator.counts().peak_in_flight <= 4);
    let other = run_pipeline(&pointsman, STEP, 50).await;
    assert_eq!((other.report.outcome, other.report.items.completed), (RunOutcome::Completed, 50));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_under_the_budget_of_a_scope_needs_prices() {
    let simulator = simulate("");
    let config = format!("{}\n[budget]\nscope.team-a = 1", provider_config("a", &simulator, LONG_TIMEOUTS));
    let pointsman = start_pointsman(&config);
    let pipeline = pointsman.parse_pipeline(&format!("name = \"test\"\n{STEP}")).unwrap();
    let (sink, _lines) = Sink::channel().unwrap();
    let source = Source::values("items", [json!({ "id": 1 })]);
    let options = RunOptions::new().with_scope("team-a");
    let refused = pointsman.run_with(pipeline, source, sink, &options).await.unwrap_err().to_string();
    assert!(refused.contains("spending is capped, and a/m has no price"), "{refused}");
    assert_eq!(run_pipeline(&pointsman, STEP, 3).await.report.items.completed, 3);
}

fn dollars(dollars: f64) -> NanoUsd {
    NanoUsd((dollars * 1e9).round() as u64)
}

/// Returns what the simulator has charged, after all of its calls have ended.
async fn charged(simulator: &Simulator) -> NanoUsd {
    wait_until("all calls of the simulator have ended", || simulator.counts().in_flight == 0).await;
    let counts = simulator.counts();
    let usage = Usage::new(Tokens(counts.input_tokens), Tokens(counts.output_tokens));
    PRICE.cost(&usage).unwrap()
}

/// Opens the store in `folder`, as each process does.
async fn stored_run(folder: &Path, identity: &str) -> ResumeOptions {
    let store: Arc<dyn Store> = Arc::new(Sqlite::open(&folder.join("a.db")).await.unwrap());
    ResumeOptions::new(store, identity)
}

async fn begin_stored(pointsman: &Pointsman, options: &ResumeOptions, count: u32) -> RunHandle {
    let pipeline = pointsman.parse_pipeline(&format!("name = \"test\"\n{STEP}")).unwrap();
    let source = Source::values("items", (0..count).map(|id| json!({ "id": id })));
    let output = RunOutput::new(Sink::results(Destination::none(), Format::Jsonl, &[]).unwrap());
    let prepared = pointsman.prepare_run(&pipeline, options.clone()).await.unwrap();
    pointsman.run_stored(pipeline, source, output, prepared).await.unwrap()
}

/// Runs or resumes `count` items as a stored run.
async fn run_stored(pointsman: &Pointsman, options: &ResumeOptions, count: u32) -> Report {
    begin_stored(pointsman, options, count).await.report().await.unwrap()
}

/// Returns the recorded spend of scopes, of today and of the days beside it.
async fn recorded(options: &ResumeOptions) -> BTreeMap<String, Spend> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let Day(today) = Day::at(i64::try_from(now.as_millis()).unwrap());
    let mut sums = BTreeMap::<String, Spend>::new();
    for day in today - 1..=today + 1 {
        for (scope, spend) in options.store.scopes_spent_on(Day(day), None).await.unwrap() {
            *sums.entry(scope.as_str().to_owned()).or_default() += spend;
        }
    }
    sums
}

/// Returns the scope and the spend of the only cap of a report.
fn scope_cap(report: &Report) -> (&str, NanoUsd) {
    assert_eq!((report.caps.len(), report.caps[0].scope), (1, CapScope::Scope), "{:?}", report.caps);
    let cap = &report.caps[0];
    (cap.scope_name.as_ref().unwrap().as_str(), dollars(cap.spent_usd))
}

fn known(cost: NanoUsd) -> Spend {
    Spend { cost, ..Spend::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_budget_of_a_scope_counts_the_stored_runs_of_the_scope_also_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let simulator = simulate("answer_tokens = 100\nchunks = 1");
    let run = async |identity: &str, scope: &str, count| {
        let pointsman = start(&simulator, "[budget]\nscope = { team-a = 0.016, team-b = 5 }");
        let options = stored_run(folder.path(), identity).await.with_scope(scope);
        let report = run_stored(&pointsman, &options, count).await;
        pointsman.drain(Duration::ZERO).await;
        (report, options)
    };
    let (first, _) = run("one", "team-a", 10).await;
    assert_eq!((first.outcome, first.items.completed), (RunOutcome::Completed, 10), "{first:?}");
    let of_first = charged(&simulator).await;
    assert_eq!(scope_cap(&first), ("team-a", of_first));

    let (other, _) = run("two", "team-b", 20).await;
    assert_eq!((other.outcome, other.items.completed), (RunOutcome::Completed, 20), "{other:?}");
    let of_other = charged(&simulator).await.saturating_sub(of_first);
    assert_eq!(scope_cap(&other), ("team-b", of_other));

    let (second, options) = run("three", "team-a", 100).await;
    assert_eq!((second.outcome, second.items.failed), (RunOutcome::Paused, 0), "{second:?}");
    let of_team_a = charged(&simulator).await.saturating_sub(of_other);
    assert_eq!(scope_cap(&second), ("team-a", of_team_a));
    // Calls in flight may cost a few input tokens more than their estimates.
    assert!(of_team_a <= NanoUsd(16_300_000) && of_team_a > NanoUsd(10_000_000), "{of_team_a}");
    assert!(second.calls.sent > 0 && second.calls.sent < 25, "{:?}", second.calls);
    let expected =
        BTreeMap::from([("team-a".to_owned(), known(of_team_a)), ("team-b".to_owned(), known(of_other))]);
    assert_eq!(recorded(&options).await, expected);

    // A program that sends requests of its own reads the store itself.
    let pointsman = start(&simulator, "[budget]\nscope = { team-a = 0.016, team-b = 5 }");
    pointsman.sync_budgets(&*options.store).await.unwrap();
    let results = send_scoped(&pointsman, "team-a", 30).await;
    let refused = results.iter().filter_map(|result| result.as_ref().err());
    assert!(refused.clone().count() >= 29, "{results:?}");
    assert!(refused.clone().all(|error| error.failure.class == Class::Budget), "{results:?}");
    pointsman.drain(Duration::ZERO).await;
    let of_requests = charged(&simulator).await.saturating_sub(of_team_a).saturating_sub(of_other);

    // Nothing, or less than a call costs, is left to the next process.
    let (third, options) = run("four", "team-a", 100).await;
    let total = charged(&simulator).await.saturating_sub(of_other).saturating_sub(of_requests);
    assert_eq!((third.outcome, scope_cap(&third)), (RunOutcome::Paused, ("team-a", total)), "{third:?}");
    assert!(total <= NanoUsd(16_300_000), "{total}");
    assert_eq!(recorded(&options).await["team-a"], known(total));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_and_stored_runs_of_a_scope_count_once_when_the_store_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let simulator = simulate("answer_tokens = 100\nchunks = 1");
    let pointsman = start(&simulator, "[budget]\nscope = { team-a = 5 }");
    let mut of_stored_runs = NanoUsd(0);
    for identity in ["one", "two", "three"] {
        assert!(send_scoped(&pointsman, "team-a", 5).await.iter().all(Result::is_ok));
        let before = charged(&simulator).await;
        let options = stored_run(folder.path(), identity).await.with_scope("team-a");
        let report = run_stored(&pointsman, &options, 10).await;
        assert_eq!((report.outcome, report.items.completed), (RunOutcome::Completed, 10), "{report:?}");
        let all = charged(&simulator).await;
        of_stored_runs += all.saturating_sub(before);
        assert_eq!(scope_cap(&report), ("team-a", all));
        let stored = BTreeMap::from([("team-a".to_owned(), known(of_stored_runs))]);
        assert_eq!(recorded(&options).await, stored);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resumed_run_keeps_its_scope_until_another_one_or_none_is_set() {
    let folder = tempfile::tempdir().unwrap();
    let simulator = simulate("answer_tokens = 100\nchunks = 1");
    let resume = async |scope: Option<&str>, budget: &str, count| {
        let pointsman = start(&simulator, &format!("[budget]\nscope = {{ team-a = {budget}, team-b = 5 }}"));
        let options = stored_run(folder.path(), "scoped").await;
        let options = match scope {
            Some(scope) => options.with_scope(scope),
            None => options,
        };
        let report = run_stored(&pointsman, &options, count).await;
        pointsman.drain(Duration::ZERO).await;
        (report, options)
    };
    let (report, _) = resume(Some("team-a"), "0.008", 100).await;
    assert_eq!((report.outcome, report.items.failed), (RunOutcome::Paused, 0), "{report:?}");
    let first = charged(&simulator).await;
    assert_eq!(scope_cap(&report), ("team-a", first));
    assert!(first <= NanoUsd(8_300_000), "{first}");

    let (report, options) = resume(None, "0.016", 100).await;
    assert_eq!((report.outcome, report.items.failed), (RunOutcome::Paused, 0), "{report:?}");
    let both = charged(&simulator).await;
    assert_eq!(scope_cap(&report), ("team-a", both));
    assert!(both <= NanoUsd(16_300_000) && both > first, "{both} after {first}");
    let of_team_a = BTreeMap::from([("team-a".to_owned(), known(both))]);
    assert_eq!(recorded(&options).await, of_team_a);

    // Without a scope no budget applies, also in later sessions.
    let (report, _) = resume(Some(""), "0.016", 100).await;
    assert_eq!((report.outcome, report.items.completed), (RunOutcome::Completed, 100), "{report:?}");
    let (report, options) = resume(None, "0.016", 110).await;
    assert_eq!((report.outcome, report.items.completed), (RunOutcome::Completed, 110), "{report:?}");
    assert_eq!(report.caps, []);
    assert_eq!(recorded(&options).await, of_team_a);

    let before = charged(&simulator).await;
    let (report, _) = resume(Some("team-b"), "0.016", 120).await;
    assert_eq!(report.outcome, RunOutcome::Completed, "{report:?}");
    let (report, options) = resume(None, "0.016", 130).await;
    assert_eq!(report.outcome, RunOutcome::Completed, "{report:?}");
    let of_team_b = charged(&simulator).await.saturating_sub(before);
    assert_eq!(scope_cap(&report), ("team-b", of_team_b));
    let expected =
        BTreeMap::from([("team-a".to_owned(), known(both)), ("team-b".to_owned(), known(of_team_b))]);
    assert_eq!(recorded(&options).await, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_of_a_stored_run_that_are_cancelled_in_flight_count_for_its_scope_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let simulator = simulate("latency = \"2s\"");
    let config = "[budget]\nscope = { team-a = 5 }";
    let options = stored_run(folder.path(), "scoped").await.with_scope("team-a");
    let pointsman = start(&simulator, config);
    let mut cancelled = begin_stored(&pointsman, &options, 4).await;
    wait_until("four calls are in flight", || simulator.counts().in_flight == 4).await;
    cancelled.cancel();
    let report = cancelled.report().await.unwrap();
    assert_eq!((report.outcome, report.calls.possibly_charged), (RunOutcome::Interrupted, 4), "{report:?}");
    let uncertain = Spend { uncertain_cost: dollars(report.uncertain_cost_usd), ..Spend::default() };
    assert!(uncertain.uncertain_cost > NanoUsd(0));
    assert_eq!(recorded(&options).await, BTreeMap::from([("team-a".to_owned(), uncertain)]));
    let of_run: Spend = options.store.spent_by(RunNumber(1)).await.unwrap().into_values().sum();
    assert_eq!(of_run, uncertain);
    pointsman.drain(Duration::ZERO).await;

    simulator.reset();
    let options = stored_run(folder.path(), "scoped").await;
    let report = run_stored(&start(&simulator, config), &options, 4).await;
    assert_eq!((report.outcome, report.items.completed), (RunOutcome::Completed, 4), "{report:?}");
    let all = Spend { cost: charged(&simulator).await, ..uncertain };
    assert_eq!(scope_cap(&report), ("team-a", all.total()));
    assert_eq!(recorded(&options).await, BTreeMap::from([("team-a".to_owned(), all)]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stored_run_without_a_scope_records_no_spend_of_scopes() {
    let folder = tempfile::tempdir().unwrap();
    let simulator = simulate("answer_tokens = 100\nchunks = 1");
    let pointsman = start(&simulator, "[budget]\nscope = { team-a = 0.001 }");
    let options = stored_run(folder.path(), "unscoped").await;
    let report = run_stored(&pointsman, &options, 20).await;
    assert_eq!((report.outcome, report.items.completed), (RunOutcome::Completed, 20), "{report:?}");
    assert_eq!(report.caps, []);
    let of_run: Spend = options.store.spent_by(RunNumber(1)).await.unwrap().into_values().sum();
    assert_eq!(of_run, known(charged(&simulator).await));
    assert_eq!(recorded(&options).await, BTreeMap::new());
}
