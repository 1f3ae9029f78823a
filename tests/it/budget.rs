//! Spending caps: calls are held back before they exceed a cap, and the booked spend is what the simulator counts.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use pointsman::run::{CapScope, Report, RunOutcome, RunOutput};
use pointsman::runtime::{Pointsman, ResumeOptions, RunOptions};
use pointsman::simulator::{Simulator, Vendor};
use pointsman::sink::{Destination, Format, Sink};
use pointsman::source::Source;
use pointsman::store::{RunNumber, RunState, Sqlite, Store};
use pointsman::types::{Class, NanoUsd, Price, Spend, Tokens, Usage};
use serde_json::{Value, json};

use super::support::*;

const PRICE: Price =
    Price { input: 1.0, output: 5.0, cached: None, cache_write: None, cache_write_1h: None, long: None };

const PIPELINE: &str = "
name = \"capped\"
[[step]]
name = \"answer\"
prompt = \"Say something about {{ item.text }}.\"
";

const TWO_STEPS: &str = "
name = \"capped\"
[[step]]
name = \"first\"
prompt = \"Say something about {{ item.text }}.\"
[[step]]
name = \"last\"
prompt = \"Sum up: {{ first }}\"
";

fn dollars(dollars: f64) -> NanoUsd {
    NanoUsd((dollars * 1e9).round() as u64)
}

/// Returns the configuration of a provider whose model has a price.
fn priced_provider(name: &str, simulator: &Simulator, more: &str) -> String {
    let url = simulator.base_url(Vendor::OpenAi);
    let price = "models.m = { price = { input = 1.0, output = 5.0 } }";
    format!("[provider.{name}]\nbase_url = \"{url}\"\n{price}\n{LONG_TIMEOUTS}\n{more}\n")
}

fn simulate(settings: &str) -> Simulator {
    start_simulator(toml::from_str(settings).unwrap())
}

/// Returns what the simulator charges, after all of its calls have ended.
async fn charged(simulator: &Simulator) -> NanoUsd {
    wait_until("all calls of the simulator have ended", || simulator.counts().in_flight == 0).await;
    let counts = simulator.counts();
    let usage = Usage::new(Tokens(counts.input_tokens), Tokens(counts.output_tokens));
    PRICE.cost(&usage).unwrap()
}

async fn store(folder: &Path) -> Arc<dyn Store> {
    Arc::new(Sqlite::open(&folder.join("a.db")).await.unwrap())
}

fn items(count: u32) -> Vec<Value> {
    (0..count).map(|number| json!({ "id": number, "text": format!("thing {number}") })).collect()
}

/// Runs `count` items as a stored run, and returns the report and the keys of the output lines.
async fn run(
    pointsman: &Pointsman,
    pipeline: &str,
    count: u32,
    options: &ResumeOptions,
) -> (Report, HashSet<String>) {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.jsonl");
    let pipeline = pointsman.parse_pipeline(pipeline).unwrap();
    let steps: Vec<_> = pipeline.steps().iter().map(|step| step.name.clone()).collect();
    let sink = Sink::results(Destination::file(out.clone(), &[]).unwrap(), Format::Jsonl, &steps).unwrap();
    let source = Source::values("items", items(count));
    let prepared = pointsman.prepare_run(&pipeline, options.clone()).await.unwrap();
    let mut run = pointsman.run_stored(pipeline, source, RunOutput::new(sink), prepared).await.unwrap();
    let report = run.report().await.unwrap();
    let text = std::fs::read_to_string(out).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let keys: HashSet<_> = lines.iter().map(|line| line["key"].to_string()).collect();
    assert_eq!(keys.len(), lines.len(), "two lines have the same key");
    (report, keys)
}

/// Returns the spend of a run that the store has booked.
async fn booked(options: &ResumeOptions, run: i64) -> Spend {
    options.store.spent_by(RunNumber(run)).await.unwrap().into_values().sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cap_pauses_a_run_of_ten_thousand_items_and_a_higher_cap_resumes_it_with_exact_spend() {
    let folder = tempfile::tempdir().unwrap();
    // The 95th percentile of the answer lengths is ten times the 5th percentile.
    let simulator = simulate("answer_tokens = { median = 30, p95 = 95 }\nchunks = 1\nheaders = false");
    let pointsman = start_pointsman(&priced_provider("a", &simulator, ""));
    let mut options = ResumeOptions::new(store(folder.path()).await, "capped");
    options.max_cost = Some(dollars(1.0).into());
    let (report, first) = run(&pointsman, PIPELINE, 10_000, &options).await;
    let cap = &report.caps[0];
    assert_eq!(
        (report.outcome, cap.scope, report.items.failed),
        (RunOutcome::Paused, CapScope::Run, 0),
        "{report:?}"
    );
    let cap_reached = cap.reached.unwrap();
    let spent = charged(&simulator).await;
    let calls = simulator.counts().requests;
    assert_eq!((dollars(cap.spent_usd), calls), (spent, report.calls.sent));
    assert_eq!(booked(&options, 1).await, Spend { cost: spent, ..Spend::default() });
    // No call costs more than a cent.
    assert!(cap.overshoot_usd <= cap_reached.calls_in_flight as f64 * 0.01, "{cap:?}");
    assert!(cap.spent_usd > 0.99, "the run paused too early: {cap:?}");
    assert_eq!(options.store.run(RunNumber(1)).await.unwrap().state, RunState::Paused);
    // Items that wait for budget have no result in the store yet.
    assert_eq!(options.store.totals(RunNumber(1)).await.unwrap().open, 0);
    assert!(report.paused.unwrap().starts_with("the run's cap of $1.00 is reached: "));

    options.max_cost = Some(dollars(8.0).into());
    let (report, second) = run(&pointsman, PIPELINE, 10_000, &options).await;
    assert_eq!((report.outcome, report.items.completed), (RunOutcome::Completed, 10_000));
    assert_eq!((report.items.finished_before, second.len()), (first.len() as u64, 10_000));
    let spent = charged(&simulator).await;
    assert_eq!((dollars(report.caps[0].spent_usd), simulator.counts().requests), (spent, 10_000));
    assert_eq!(booked(&options, 1).await, Spend { cost: spent, ..Spend::default() });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_item_that_waits_for_budget_keeps_its_answers_and_resumes_with_the_remaining_steps() {
    let folder = tempfile::tempdir().unwrap();
    let simulator = simulate("answer_tokens = 100\nlatency = \"5ms\"");
    let pointsman = start_pointsman(&priced_provider("a", &simulator, ""));
    let mut options = ResumeOptions::new(store(folder.path()).await, "capped");
    options.max_cost = Some(dollars(0.06).into());
    let (report, _) = run(&pointsman, TWO_STEPS, 200, &options).await;
    assert_eq!((report.outcome, report.items.failed), (RunOutcome::Paused, 0));
    assert!(report.items.paused > 0, "{:?}", report.items);
    options.max_cost = Some(dollars(1.0).into());
    let (report, _) = run(&pointsman, TWO_STEPS, 200, &options).await;
    assert_eq!((report.outcome, report.items.completed), (RunOutcome::Completed, 200));
    assert_eq!(simulator.counts().requests, 400);
    assert_eq!(booked(&options, 1).await.total(), charged(&simulator).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daily_cap_counts_the_spend_of_other_runs_in_the_store_also_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let simulator = simulate("answer_tokens = 100");
    let config =
        format!("{}\n[budget]\nday = 0.09\nprovider = {{ a = 9 }}", priced_provider("a", &simulator, ""));
    let (first, _) =
        run(&start_pointsman(&config), PIPELINE, 100, &ResumeOptions::new(store(folder.path()).await, "one"))
            .await;
    assert_eq!((first.outcome, first.caps.len()), (RunOutcome::Completed, 2));
    assert_eq!(dollars(first.caps[0].spent_usd), charged(&simulator).await);
    let (second, _) =
        run(&start_pointsman(&config), PIPELINE, 100, &ResumeOptions::new(store(folder.path()).await, "two"))
            .await;
    assert_eq!((second.outcome, second.caps[0].scope), (RunOutcome::Paused, CapScope::Day));
    assert_eq!(dollars(second.caps[0].spent_usd), charged(&simulator).await);
    assert!(second.caps[0].spent_usd > 0.06 && second.calls.sent < 100, "{:?}", second.caps);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_daily_cap_of_a_provider_is_reached_its_calls_go_to_the_other_target() {
    let capped = simulate("answer_tokens = 100");
    let other = simulate("answer_tokens = 100");
    let route = "[route.default]\ntargets = [\"a/m\", \"b/m\"]\n[budget]\nprovider = { a = 0.016 }";
    let pointsman = start_pointsman(&format!(
        "{}{}{route}",
        priced_provider("a", &capped, ""),
        priced_provider("b", &other, "")
    ));
    let finished =
        run_pipeline(&pointsman, "[[step]]\nname = \"s\"\nprompt = \"{{ item.id }}?\"\n", 100).await;
    assert_eq!((finished.report.outcome, finished.report.items.completed), (RunOutcome::Completed, 100));
    let cap = &finished.report.caps[0];
    assert_eq!((cap.scope, cap.provider.as_ref().unwrap().as_str()), (CapScope::Provider, "a"));
    assert_eq!(dollars(cap.spent_usd), charged(&capped).await);
    assert!(capped.counts().requests > 10 && other.counts().requests > 50, "{cap:?}");
    // A direct request also goes to the other target. If there is no other target, the error is the budget.
    assert_eq!(
        send_request(&pointsman, "default", "Is a target left?").await.unwrap().target.to_string(),
        "b/m"
    );
    let alone = start_pointsman(&format!("{}[budget]\nday = 0.000001", priced_provider("a", &capped, "")));
    let refused = send_request(&alone, "default", "Is a target left?").await.unwrap_err();
    assert_eq!((refused.failure.class, refused.attempts.calls()), (Class::Budget, 0), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cap_on_a_target_without_a_price_is_refused_before_any_call() {
    let simulator = simulate("");
    let pointsman = start_pointsman(&provider_config("a", &simulator, LONG_TIMEOUTS));
    let start = async |pointsman: &Pointsman, max_cost| {
        let pipeline = pointsman.parse_pipeline(PIPELINE).unwrap();
        let (sink, _lines) = Sink::channel().unwrap();
        let source = Source::values("items", items(3));
        let mut options = RunOptions::new();
        options.max_cost = max_cost;
        pointsman.run_with(pipeline, source, RunOutput::new(sink), &options).await
    };
    let refused = start(&pointsman, Some(dollars(1.0).into())).await.unwrap_err().to_string();
    let expected = "spending is capped, and a/m has no price";
    assert!(refused.contains(expected) && refused.contains("[provider.a.models.m]"), "{refused}");
    assert_eq!(simulator.counts().by_vendor.len(), 0);
    assert!(start(&pointsman, None).await.is_ok());
    // Simulated answers cost nothing.
    let simulated = start_pointsman("[provider.p]\nbase_url = \"simulator\"");
    let mut run = start(&simulated, Some(dollars(1.0).into())).await.unwrap();
    assert!(run.notes()[0].starts_with("p/any: simulated answers cost nothing"), "{:?}", run.notes());
    assert_eq!(run.report().await.unwrap().items.completed, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_are_cancelled_in_flight_are_booked_as_uncertain_cost() {
    let folder = tempfile::tempdir().unwrap();
    let simulator = simulate("latency = \"2s\"");
    let pointsman = start_pointsman(&priced_provider("a", &simulator, ""));
    let mut options = ResumeOptions::new(store(folder.path()).await, "capped");
    options.max_cost = Some(dollars(5.0).into());
    let pipeline = pointsman.parse_pipeline(PIPELINE).unwrap();
    let (sink, _lines) = Sink::channel().unwrap();
    let source = Source::values("items", items(4));
    let prepared = pointsman.prepare_run(&pipeline, options.clone()).await.unwrap();
    let mut cancelled = pointsman.run_stored(pipeline, source, RunOutput::new(sink), prepared).await.unwrap();
    wait_until("four calls are in flight", || simulator.counts().in_flight == 4).await;
    cancelled.cancel();
    let report = cancelled.report().await.unwrap();
    assert_eq!((report.outcome, report.cost_usd), (RunOutcome::Interrupted, Some(0.0)));
    assert_eq!(report.calls.possibly_charged, 4, "each cancelled call is possibly charged");
    let known = booked(&options, 1).await;
    assert_eq!((known.cost, known.uncertain_cost), (NanoUsd(0), dollars(report.uncertain_cost_usd)));
    // Before the first answer, each call reserves 500 output tokens and its prompt.
    assert!(known.uncertain_cost > dollars(4.0 * 500.0 * 5e-6), "{known:?}");
    assert_eq!(dollars(report.caps[0].spent_usd), known.uncertain_cost);

    simulator.reset();
    let (report, _) = run(&pointsman, PIPELINE, 4, &options).await;
    assert_eq!(report.outcome, RunOutcome::Completed);
    let all = Spend { cost: charged(&simulator).await, uncertain_cost: known.uncertain_cost };
    assert_eq!((booked(&options, 1).await, dollars(report.caps[0].spent_usd)), (all, all.total()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_run_books_nothing_for_calls_that_were_not_sent() {
    let folder = tempfile::tempdir().unwrap();
    let simulator = simulate("latency = \"300ms\"");
    let pointsman = start_pointsman(&priced_provider("a", &simulator, ""));
    let options = ResumeOptions::new(store(folder.path()).await, "capped");
    let pipeline_text =
        format!("{PIPELINE}[[step]]\nname = \"parallel\"\nprompt = \"And {{{{ item.text }}}}?\"\n");
    for round in 0..5 {
        simulator.reset();
        let pipeline = pointsman.parse_pipeline(&pipeline_text).unwrap();
        let steps: Vec<_> = pipeline.steps().iter().map(|step| step.name.clone()).collect();
        let out = Destination::file(folder.path().join(format!("{round}.jsonl")), &[]).unwrap();
        let sink = Sink::results(out, Format::Jsonl, &steps).unwrap();
        let options = options.clone().with_identity(format!("round {round}"));
        let prepared = pointsman.prepare_run(&pipeline, options).await.unwrap();
        let source = Source::values("items", items(20_000));
        let mut run = pointsman.run_stored(pipeline, source, RunOutput::new(sink), prepared).await.unwrap();
        wait_until("600 requests have been sent", || simulator.counts().requests > 600).await;
        run.stop_intake();
        let report = run.report().await.unwrap();
        assert_eq!(report.outcome, RunOutcome::Interrupted);
        wait_until("all calls of the simulator have ended", || simulator.counts().in_flight == 0).await;
        let counts = simulator.counts();
        assert_eq!((report.calls.sent, report.calls.answered), (counts.requests, counts.requests));
        assert_eq!((report.uncertain_cost_usd, report.calls.possibly_charged), (0.0, 0), "round {round}");
    }
}

#[test]
fn the_program_pauses_at_its_cap_with_exit_code_5_and_advice() {
    let price =
        "[provider.p]\nbase_url = \"simulator\"\nmodels.any = { price = { input = 1, output = 5 } }\n";
    let workspace = super::program::Workspace::new(price);
    workspace.write_items(200);
    let run =
        |more: &str| workspace.run(&format!("run pipeline.toml --items items.jsonl --out out.jsonl {more}"));
    run("--max-cost five").expect_stderr(2, &["--max-cost", "\"five\" is not a cap; write US dollars"]);
    run("--max-cost -1").expect_stderr(2, &["-1 is not a cap; write US dollars, above 0"]);
    let paused = ["(paused)", "waiting for budget", "paused: the run's cap of $0.010000 is reached"];
    run("--max-cost 0.01 --store none").expect_stderr(5, &paused);
    run("--max-cost 0.01 --store none --overwrite").expect_stderr(5, &["nothing was stored"]);
    run("--max-cost 0.01 --overwrite").expect_stderr(5, &paused);
    assert!(workspace.run("runs").stdout.contains("paused"));
    // A paused run with fewer lines than the run before it may still replace its output.
    workspace.run("resume --max-cost none").expect_stderr(0, &["resuming run 1", "200 completed"]);
    run("--max-cost 0.01 --new --overwrite")
        .expect_stderr(5, &["`pointsman resume 2 --max-cost USD` resumes it with a higher cap"]);
    // A configured price of a simulated target counts.
    workspace
        .run("resume --max-cost 5")
        .expect_stderr(0, &["resuming run 2", "200 completed", "cap: $0.", " of $5.00"]);
    workspace.write("config.toml", "[provider.p]\nbase_url = \"http://127.0.0.1:9/v1\"\nmodels.m = {}\n");
    let before = workspace.read("out.jsonl");
    run("--max-cost 5 --new").expect_stderr(3, &["p/m has no price", "[provider.p.models.m]"]);
    assert_eq!(workspace.read("out.jsonl"), before, "a refused command does not change the output");
}

#[test]
fn the_last_cap_applies_to_resume_to_retry_and_to_the_same_command() {
    let price = "models.any = { price = { input = 1, output = 5 } }";
    let workspace = super::program::Workspace::new(&format!(
        "[provider.p]\nbase_url = \"simulator\"\n{price}\n[simulator]\nanswer_tokens = 20\n"
    ));
    workspace.write_items(300);
    let run_command = "run pipeline.toml --items items.jsonl --out out.jsonl";
    let spent = || {
        let runs = workspace.run("runs --json").stdout;
        serde_json::from_str::<Value>(&runs).unwrap()["cost_usd"].as_f64().unwrap()
    };
    let expect_cap = |command: &str, cap: &str| {
        let expected =
            [&*format!("the run's cap of {cap} is reached"), &*format!("its cap of {cap} applies")];
        workspace.run(command).expect_stderr(5, &expected);
    };
    workspace
        .run(&format!("{run_command} --max-cost 0.01"))
        .expect_stderr(5, &["the run's cap of $0.010000 is reached"]);
    expect_cap("resume 1", "$0.010000");
    expect_cap(run_command, "$0.010000");
    workspace.run("resume 1 --max-cost 0.015").expect_stderr(5, &["the run's cap of $0.015000 is reached"]);
    expect_cap("resume 1", "$0.015000");
    assert!(spent() < 0.016, "{}", spent());
    let report = workspace.run("report 1").stdout;
    for words in ["paused: the run's cap of $0.015000 is reached", "(--max-cost)", "cap: $0.01"] {
        assert!(report.contains(words), "{words:?} is not in:\n{report}");
    }
    workspace.run("resume 1 --max-cost none").expect_stderr(0, &["300 completed"]);

    // Failed items are retried within the cap too.
    let fail = "faults = [{ kind = \"refusal\" }]";
    workspace.write_config(format!(
        "[provider.p]\nbase_url = \"simulator\"\n{price}\n[simulator]\nanswer_tokens = 20\n{fail}\n"
    ));
    workspace.write_items(80);
    workspace
        .run(&format!("{run_command} --new --overwrite --max-cost 0.012 --max-failures none"))
        .expect_code(1);
    workspace.write_config(format!(
        "[provider.p]\nbase_url = \"simulator\"\n{price}\n[simulator]\nanswer_tokens = 20\n"
    ));
    expect_cap("retry 2", "$0.012000");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_suddenly_grow_thirtyfold_exceed_the_cap_only_by_the_calls_in_flight() {
    let folder = tempfile::tempdir().unwrap();
    // Long enough that many calls are in flight when the answers grow, also on a busy machine.
    let settings = |tokens: u32| format!("answer_tokens = {tokens}\nlatency = \"100ms\"\nchunks = 1");
    let simulator = Arc::new(simulate(&settings(30)));
    let pointsman = start_pointsman(&priced_provider("a", &simulator, ""));
    let mut options = ResumeOptions::new(store(folder.path()).await, "capped");
    options.max_cost = Some(dollars(0.1).into());
    let change = {
        let simulator = simulator.clone();
        let settings = toml::from_str(&settings(900)).unwrap();
        spawn(async move {
            wait_until("the length of the answers is learned", || simulator.counts().requests > 100).await;
            simulator.set(settings);
        })
    };
    let (report, lines) = run(&pointsman, PIPELINE, 1_000, &options).await;
    change.await.unwrap();
    let cap = &report.caps[0];
    let cap_reached = cap.reached.unwrap();
    assert_eq!((report.outcome, report.items.failed), (RunOutcome::Paused, 0), "{report:?}");
    assert_eq!(
        (dollars(cap.spent_usd), lines.len() as u64),
        (charged(&simulator).await, report.calls.answered)
    );
    assert!(cap.overshoot_usd > 0.0 && cap_reached.calls_in_flight > 0, "{cap:?}");
    let over = NanoUsd((cap.overshoot_usd * 1e9).round() as u64);
    assert!(report.paused.as_ref().unwrap().ends_with(&format!("{over} more is spent")), "{report:?}");
    // Each call costs 900 tokens and its prompt.
    assert!(cap.overshoot_usd <= cap_reached.calls_in_flight as f64 * 0.004_6, "{cap:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_superseded_call_is_booked_once() {
    let folder = tempfile::tempdir().unwrap();
    let slow = simulate("latency = \"1s\"");
    let fast = simulate("");
    let more =
        "[route.default]\ntargets = [\"a/m\", \"b/m\"]\n[retry]\nhedge_after = \"20ms\"\nhedge_ratio = 1.0";
    let pointsman = start_pointsman(&format!(
        "{}{}{more}",
        priced_provider("a", &slow, ""),
        priced_provider("b", &fast, "")
    ));
    let mut options = ResumeOptions::new(store(folder.path()).await, "capped");
    options.max_cost = Some(dollars(1.0).into());
    let (report, _) = run(&pointsman, PIPELINE, 4, &options).await;
    assert_eq!(
        (report.outcome, report.items.completed, report.calls.superseded),
        (RunOutcome::Completed, 4, 4)
    );
    let known = booked(&options, 1).await;
    assert_eq!(
        known,
        Spend { cost: charged(&fast).await, uncertain_cost: dollars(report.uncertain_cost_usd) }
    );
    assert_eq!((dollars(report.caps[0].spent_usd), known.uncertain_cost > NanoUsd(0)), (known.total(), true));
}

#[test]
fn a_small_cap_holds_although_the_short_answers_arrive_first() {
    let workspace = super::program::Workspace::new(
        "[provider.p]\nbase_url = \"simulator\"\nmodels.any = { price = { input = 1, output = 5 } }\n\
         [simulator]\nlatency = { median = \"100ms\", p95 = \"300ms\" }\n\
         answer_tokens = { median = 300, p95 = 3000 }\n",
    );
    workspace.write_items(500);
    workspace
        .run("run pipeline.toml --items items.jsonl --out o.jsonl --max-cost 0.05 --report r.json")
        .expect_code(5);
    let spent = workspace.read_json("r.json")["cost_usd"].as_f64().unwrap();
    // One answer in twenty has at least 3,000 tokens and costs $0.015 or more, which is unknown before it arrives.
    assert!(spent < 0.1, "{spent}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resumed_run_reserves_by_its_earlier_answers_and_does_not_pause_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let simulator = simulate("answer_tokens = 20\nchunks = 1");
    let mut options = ResumeOptions::new(store(folder.path()).await, "capped");
    // A second instance has no statistics of the first, as in another process.
    let first = start_pointsman(&priced_provider("a", &simulator, ""));
    options.max_cost = Some(dollars(1.0).into());
    let (report, _) = run(&first, PIPELINE, 50, &options).await;
    assert_eq!((report.outcome, report.items.completed), (RunOutcome::Completed, 50));
    let spent = report.cost_usd.unwrap();
    // Ten more answers cost a fifth of `spent`. One answer of the assumed 500 tokens would cost more than is left.
    let left = spent * 0.4;
    assert!(left < 0.0025, "{spent}");
    options.max_cost = Some(dollars(spent + left).into());
    let second = start_pointsman(&priced_provider("a", &simulator, "[run]\nmax_in_flight_items = 1\n"));
    let (report, lines) = run(&second, PIPELINE, 60, &options).await;
    assert_eq!((report.outcome, lines.len()), (RunOutcome::Completed, 60), "{report:?}");
    assert_eq!(simulator.counts().requests, 60);
}

#[test]
fn a_resumed_run_continues_if_the_budget_left_covers_answers_like_its_earlier_ones() {
    let price = "models.any = { price = { input = 1, output = 5 } }";
    let config =
        format!("[provider.p]\nbase_url = \"simulator\"\n{price}\n[simulator]\nanswer_tokens = 16\n");
    let workspace = super::program::Workspace::new(&config);
    workspace.write("pipeline.toml", PIPELINE.replace("prompt =", "max_tokens = 5000\nprompt ="));
    workspace.write_items(500);
    let spent = || workspace.read_json("r.json")["cost_usd"].as_f64().unwrap();
    workspace.run("run pipeline.toml --items items.jsonl --out o.jsonl --report r.json").expect_code(0);
    let each = spent() / 500.0;
    assert!((0.000_05..0.000_15).contains(&each), "{each}");
    // One answer of 5,000 tokens would cost more than is left.
    workspace.write_items(600);
    let cap = spent() + 0.022_5;
    workspace.run(&format!("resume 1 --max-cost {cap:.6}")).expect_stderr(0, &["600 completed", "100 calls"]);
}
