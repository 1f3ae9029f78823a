//! Money: a cap holds calls back before they leave, and what was spent is the simulator's own count.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use pointsman::run::{CapOf, Ended, Output, Report};
use pointsman::runtime::{Keep, Pointsman, RunOptions};
use pointsman::simulator::{Simulator, Vendor};
use pointsman::sink::{Format, Sink, Target};
use pointsman::source::Source;
use pointsman::store::{RunNumber, RunState, Sqlite, Store};
use pointsman::types::{Booked, Class, NanoUsd, Price, Tokens, Usage};
use serde_json::{Value, json};

use super::stage::*;

const PRICE: Price = Price { input: 1.0, output: 5.0, cached: None, cache_write: None, long: None };

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

/// Writes a provider whose model has a price.
fn priced(name: &str, simulator: &Simulator, more: &str) -> String {
    let url = simulator.base_url(Vendor::OpenAi);
    let price = "models.m = { price = { input = 1.0, output = 5.0 } }";
    format!("[provider.{name}]\nbase_url = \"{url}\"\n{price}\n{PATIENT}\n{more}\n")
}

fn plays(settings: &str) -> Simulator {
    play(toml::from_str(settings).unwrap())
}

/// What the simulator would charge, once it has counted everything that it has written.
async fn charged(simulator: &Simulator) -> NanoUsd {
    until("the simulator is done", || simulator.counts().in_flight == 0).await;
    let counts = simulator.counts();
    let usage = Usage {
        input: Tokens(counts.input_tokens),
        output: Tokens(counts.output_tokens),
        ..Usage::default()
    };
    PRICE.cost(&usage).unwrap()
}

async fn store(folder: &Path) -> Arc<dyn Store> {
    Arc::new(Sqlite::open(&folder.join("a.db")).await.unwrap())
}

fn items(count: u32) -> Vec<Value> {
    (0..count).map(|number| json!({ "id": number, "text": format!("thing {number}") })).collect()
}

/// Runs these items, kept, and returns the report and the keys of the lines.
async fn run(pointsman: &Pointsman, pipeline: &str, count: u32, keep: &Keep) -> (Report, HashSet<String>) {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.jsonl");
    let pipeline = pointsman.parse_pipeline(pipeline).unwrap();
    let steps: Vec<_> = pipeline.steps().iter().map(|step| step.name.clone()).collect();
    let sink = Sink::results(Target::file(out.clone(), &[]).unwrap(), Format::Jsonl, &steps).unwrap();
    let source = Source::values("items", items(count));
    let kept = pointsman.keep(&pipeline, keep.clone()).await.unwrap();
    let mut run = pointsman.run_kept(pipeline, source, Output::new(sink), kept).await.unwrap();
    let report = run.report().await.unwrap();
    let text = std::fs::read_to_string(out).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let keys: HashSet<_> = lines.iter().map(|line| line["key"].to_string()).collect();
    assert_eq!(keys.len(), lines.len(), "one line for each item");
    (report, keys)
}

/// What the store has booked of a run.
async fn booked(keep: &Keep, run: i64) -> Booked {
    keep.store.spent_by(RunNumber(run)).await.unwrap().into_values().sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cap_of_a_dollar_pauses_ten_thousand_items_and_a_higher_one_goes_on_to_the_cent() {
    let folder = tempfile::tempdir().unwrap();
    // From the shortest twentieth to the longest: ten times as long.
    let simulator = plays("answer_tokens = { median = 30, p95 = 95 }\nchunks = 1\nheaders = false");
    let pointsman = start(&priced("a", &simulator, ""));
    let mut keep = Keep::new(store(folder.path()).await, "capped");
    keep.max_cost = Some(dollars(1.0).into());
    let (report, first) = run(&pointsman, PIPELINE, 10_000, &keep).await;
    let cap = &report.caps[0];
    assert_eq!((report.ended, cap.of, report.items.failed), (Ended::Paused, CapOf::Run, 0), "{report:?}");
    let met = cap.met.unwrap();
    let (spent, calls) = (charged(&simulator).await, simulator.counts().requests);
    assert_eq!((dollars(cap.spent_usd), calls), (spent, report.calls.made));
    assert_eq!(booked(&keep, 1).await, Booked { cost: spent, ..Booked::default() });
    // No call of this length costs more than a cent.
    assert!(cap.overshoot_usd <= met.calls_in_flight as f64 * 0.01, "{cap:?}");
    assert!(cap.spent_usd > 0.99, "it gave up too early: {cap:?}");
    assert_eq!(keep.store.run(RunNumber(1)).await.unwrap().state, RunState::Paused);
    // Of items that wait for money nothing is known yet.
    assert_eq!(keep.store.sums(RunNumber(1)).await.unwrap().open, 0);
    assert!(report.paused.unwrap().starts_with("the run's cap of $1.00 is met: "));

    keep.max_cost = Some(dollars(8.0).into());
    let (report, second) = run(&pointsman, PIPELINE, 10_000, &keep).await;
    assert_eq!((report.ended, report.items.completed), (Ended::Whole, 10_000));
    assert_eq!((report.items.settled_before, second.len()), (first.len() as u64, 10_000));
    let spent = charged(&simulator).await;
    assert_eq!((dollars(report.caps[0].spent_usd), simulator.counts().requests), (spent, 10_000));
    assert_eq!(booked(&keep, 1).await, Booked { cost: spent, ..Booked::default() });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_item_that_waits_for_money_keeps_its_answers_and_asks_only_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    let simulator = plays("answer_tokens = 100\nlatency = \"5ms\"");
    let pointsman = start(&priced("a", &simulator, ""));
    let mut keep = Keep::new(store(folder.path()).await, "capped");
    keep.max_cost = Some(dollars(0.06).into());
    let (report, _) = run(&pointsman, TWO_STEPS, 200, &keep).await;
    assert_eq!((report.ended, report.items.failed), (Ended::Paused, 0));
    assert!(report.items.paused > 0, "{:?}", report.items);
    keep.max_cost = Some(dollars(1.0).into());
    let (report, _) = run(&pointsman, TWO_STEPS, 200, &keep).await;
    assert_eq!((report.ended, report.items.completed), (Ended::Whole, 200));
    assert_eq!(simulator.counts().requests, 400);
    assert_eq!(booked(&keep, 1).await.all(), charged(&simulator).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_days_cap_counts_what_other_runs_of_the_store_have_spent_also_in_another_process() {
    let folder = tempfile::tempdir().unwrap();
    let simulator = plays("answer_tokens = 100");
    let config = format!("{}\n[budget]\nday = 0.09\nprovider = {{ a = 9 }}", priced("a", &simulator, ""));
    let keep = |name: &str, store: Arc<dyn Store>| Keep::new(store, name);
    let (first, _) = run(&start(&config), PIPELINE, 100, &keep("one", store(folder.path()).await)).await;
    assert_eq!((first.ended, first.caps.len()), (Ended::Whole, 2));
    assert_eq!(dollars(first.caps[0].spent_usd), charged(&simulator).await);
    let (second, _) = run(&start(&config), PIPELINE, 100, &keep("two", store(folder.path()).await)).await;
    assert_eq!((second.ended, second.caps[0].of), (Ended::Paused, CapOf::Day));
    assert_eq!(dollars(second.caps[0].spent_usd), charged(&simulator).await);
    assert!(second.caps[0].spent_usd > 0.06 && second.calls.made < 100, "{:?}", second.caps);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_whose_day_is_spent_leaves_its_calls_to_the_other_lane() {
    let (one, other) = (plays("answer_tokens = 100"), plays("answer_tokens = 100"));
    let route = "[route.default]\nlanes = [\"a/m\", \"b/m\"]\n[budget]\nprovider = { a = 0.016 }";
    let pointsman = start(&format!("{}{}{route}", priced("a", &one, ""), priced("b", &other, "")));
    let ran =
        super::stage::run(&pointsman, "[[step]]\nname = \"s\"\nprompt = \"{{ item.id }}?\"\n", 100).await;
    assert_eq!((ran.report.ended, ran.report.items.completed), (Ended::Whole, 100));
    let cap = &ran.report.caps[0];
    assert_eq!((cap.of, cap.provider.as_ref().unwrap().as_str()), (CapOf::Provider, "a"));
    assert_eq!(dollars(cap.spent_usd), charged(&one).await);
    assert!(one.counts().requests > 10 && other.counts().requests > 50, "{cap:?}");
    // A question of its own, too, and where nobody else is left it says why.
    assert_eq!(ask(&pointsman, "default", "Anybody?").await.unwrap().lane.to_string(), "b/m");
    let alone = start(&format!("{}[budget]\nday = 0.000001", priced("a", &one, "")));
    let refused = ask(&alone, "default", "Anybody?").await.unwrap_err();
    assert_eq!((refused.failure.class, refused.trail.calls()), (Class::Budget, 0), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_no_price_cannot_be_capped_and_is_refused_before_anything_starts() {
    let simulator = plays("");
    let pointsman = start(&provider("a", &simulator, PATIENT));
    let begin = async |pointsman: &Pointsman, max_cost| {
        let pipeline = pointsman.parse_pipeline(PIPELINE).unwrap();
        let (sink, _lines) = Sink::channel().unwrap();
        let (source, options) =
            (Source::values("items", items(3)), RunOptions { max_cost, ..RunOptions::default() });
        pointsman.run_with(pipeline, source, Output::new(sink), &options).await
    };
    let refused = begin(&pointsman, Some(dollars(1.0).into())).await.unwrap_err().to_string();
    let said = "spending is capped, and nobody knows what a/m costs";
    assert!(refused.contains(said) && refused.contains("[provider.a.models.m]"), "{refused}");
    assert_eq!(simulator.counts().by_vendor.len(), 0);
    assert!(begin(&pointsman, None).await.is_ok());
    // Simulated answers cost nothing.
    let simulated = start("[provider.p]\nbase_url = \"simulator\"");
    let mut run = begin(&simulated, Some(dollars(1.0).into())).await.unwrap();
    assert!(run.notes()[0].starts_with("p/any: simulated answers cost nothing"), "{:?}", run.notes());
    assert_eq!(run.report().await.unwrap().items.completed, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_were_cancelled_in_flight_are_booked_as_perhaps_paid() {
    let folder = tempfile::tempdir().unwrap();
    let simulator = plays("latency = \"2s\"");
    let pointsman = start(&priced("a", &simulator, ""));
    let mut keep = Keep::new(store(folder.path()).await, "capped");
    keep.max_cost = Some(dollars(5.0).into());
    let pipeline = pointsman.parse_pipeline(PIPELINE).unwrap();
    let (sink, _lines) = Sink::channel().unwrap();
    let source = Source::values("items", items(4));
    let kept = pointsman.keep(&pipeline, keep.clone()).await.unwrap();
    let mut cancelled = pointsman.run_kept(pipeline, source, Output::new(sink), kept).await.unwrap();
    until("four calls are out", || simulator.counts().in_flight == 4).await;
    cancelled.cancel();
    let report = cancelled.report().await.unwrap();
    assert_eq!((report.ended, report.cost_usd), (Ended::Interrupted, Some(0.0)));
    assert_eq!(report.calls.maybe_charged, 4, "as many as money is counted for");
    let known = booked(&keep, 1).await;
    assert_eq!((known.cost, known.perhaps), (NanoUsd(0), dollars(report.perhaps_cost_usd)));
    // Before any answer was seen each had 500 tokens reserved, and its prompt.
    assert!(known.perhaps > dollars(4.0 * 500.0 * 5e-6), "{known:?}");
    assert_eq!(dollars(report.caps[0].spent_usd), known.perhaps);

    simulator.reset();
    let (report, _) = run(&pointsman, PIPELINE, 4, &keep).await;
    assert_eq!(report.ended, Ended::Whole);
    let all = Booked { cost: charged(&simulator).await, perhaps: known.perhaps };
    assert_eq!((booked(&keep, 1).await, dollars(report.caps[0].spent_usd)), (all, all.all()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_is_stopped_books_nothing_for_calls_that_never_left() {
    let folder = tempfile::tempdir().unwrap();
    let simulator = plays("latency = \"300ms\"");
    let pointsman = start(&priced("a", &simulator, ""));
    let keep = Keep::new(store(folder.path()).await, "capped");
    let beside = format!("{PIPELINE}[[step]]\nname = \"beside\"\nprompt = \"And {{{{ item.text }}}}?\"\n");
    for round in 0..5 {
        simulator.reset();
        let pipeline = pointsman.parse_pipeline(&beside).unwrap();
        let steps: Vec<_> = pipeline.steps().iter().map(|step| step.name.clone()).collect();
        let out = Target::file(folder.path().join(format!("{round}.jsonl")), &[]).unwrap();
        let sink = Sink::results(out, Format::Jsonl, &steps).unwrap();
        let keep = Keep { identity: format!("round {round}"), ..keep.clone() };
        let kept = pointsman.keep(&pipeline, keep).await.unwrap();
        let source = Source::values("items", items(20_000));
        let mut run = pointsman.run_kept(pipeline, source, Output::new(sink), kept).await.unwrap();
        until("it is at work", || simulator.counts().requests > 600).await;
        run.stop_intake();
        let report = run.report().await.unwrap();
        assert_eq!(report.ended, Ended::Interrupted);
        until("the simulator is done", || simulator.counts().in_flight == 0).await;
        let counts = simulator.counts();
        assert_eq!((report.calls.made, report.calls.answered), (counts.requests, counts.requests));
        assert_eq!((report.perhaps_cost_usd, report.calls.maybe_charged), (0.0, 0), "round {round}");
    }
}

#[test]
fn the_program_pauses_at_its_cap_with_a_code_of_its_own_and_says_what_helps() {
    let price =
        "[provider.p]\nbase_url = \"simulator\"\nmodels.any = { price = { input = 1, output = 5 } }\n";
    let room = super::program::Room::new(price);
    room.items(200);
    let run = |more: &str| room.run(&format!("run pipeline.toml --items items.jsonl --out out.jsonl {more}"));
    run("--max-cost five").says(2, &["--max-cost", "\"five\" is no cap; write US dollars"]);
    run("--max-cost -1").says(2, &["-1 is no cap; write US dollars, above 0"]);
    let paused = ["(paused)", "waiting for money", "paused: the run's cap of $0.010000 is met"];
    run("--max-cost 0.01 --store none").says(5, &paused);
    run("--max-cost 0.01 --store none --overwrite").says(5, &["nothing was kept"]);
    run("--max-cost 0.01 --overwrite").says(5, &paused);
    assert!(room.run("runs").out.contains("paused"));
    // Paused with fewer lines than the run before it, it may still replace that run's output.
    room.run("resume --max-cost none").says(0, &["run 1 goes on", "200 completed"]);
    run("--max-cost 0.01 --new --overwrite")
        .says(5, &["`pointsman resume 2 --max-cost USD` goes on with more"]);
    // A price that is written for simulated answers counts.
    room.run("resume --max-cost 5").says(0, &["run 2 goes on", "200 completed", "cap: $0.", " of $5.00"]);
    room.write("config.toml", "[provider.p]\nbase_url = \"http://127.0.0.1:9/v1\"\nmodels.m = {}\n");
    let before = room.read("out.jsonl");
    run("--max-cost 5 --new").says(3, &["nobody knows what p/m costs", "[provider.p.models.m]"]);
    assert_eq!(room.read("out.jsonl"), before, "what is refused takes nothing away");
}

#[test]
fn the_cap_that_was_named_last_holds_on_resume_on_retry_and_on_the_same_command() {
    let price = "models.any = { price = { input = 1, output = 5 } }";
    let room = super::program::Room::new(&format!(
        "[provider.p]\nbase_url = \"simulator\"\n{price}\n[simulator]\nanswer_tokens = 20\n"
    ));
    room.items(300);
    let begin = "run pipeline.toml --items items.jsonl --out out.jsonl";
    let spent = || {
        let runs = room.run("runs --json").out;
        serde_json::from_str::<Value>(&runs).unwrap()["cost_usd"].as_f64().unwrap()
    };
    let holds = |command: &str, cap: &str| {
        let said = [&*format!("the run's cap of {cap} is met"), &*format!("its cap of {cap} holds")];
        room.run(command).says(5, &said);
    };
    room.run(&format!("{begin} --max-cost 0.01")).says(5, &["the run's cap of $0.010000 is met"]);
    holds("resume 1", "$0.010000");
    holds(begin, "$0.010000");
    room.run("resume 1 --max-cost 0.015").says(5, &["the run's cap of $0.015000 is met"]);
    holds("resume 1", "$0.015000");
    assert!(spent() < 0.016, "{}", spent());
    let report = room.run("report 1").out;
    for words in ["paused: the run's cap of $0.015000 is met", "(--max-cost)", "cap: $0.01"] {
        assert!(report.contains(words), "{words:?} is not in:\n{report}");
    }
    room.run("resume 1 --max-cost none").says(0, &["300 completed"]);

    // What failed is asked again within the cap, too.
    let fail = "faults = [{ kind = \"refusal\" }]";
    room.config(format!(
        "[provider.p]\nbase_url = \"simulator\"\n{price}\n[simulator]\nanswer_tokens = 20\n{fail}\n"
    ));
    room.items(80);
    room.run(&format!("{begin} --new --overwrite --max-cost 0.012 --max-failures none")).expect(1);
    room.config(format!(
        "[provider.p]\nbase_url = \"simulator\"\n{price}\n[simulator]\nanswer_tokens = 20\n"
    ));
    holds("retry 2", "$0.012000");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_grow_thirtyfold_without_a_warning_exceed_the_cap_by_the_calls_in_flight_alone() {
    let folder = tempfile::tempdir().unwrap();
    let settings = |tokens: u32| format!("answer_tokens = {tokens}\nlatency = \"20ms\"\nchunks = 1");
    let simulator = Arc::new(plays(&settings(30)));
    let pointsman = start(&priced("a", &simulator, ""));
    let mut keep = Keep::new(store(folder.path()).await, "capped");
    keep.max_cost = Some(dollars(0.1).into());
    let grows = {
        let (simulator, settings) = (simulator.clone(), toml::from_str(&settings(900)).unwrap());
        spawn(async move {
            until("it has learned how long answers are", || simulator.counts().requests > 100).await;
            simulator.set(settings);
        })
    };
    let (report, lines) = run(&pointsman, PIPELINE, 1_000, &keep).await;
    grows.await.unwrap();
    let cap = &report.caps[0];
    let met = cap.met.unwrap();
    assert_eq!((report.ended, report.items.failed), (Ended::Paused, 0), "{report:?}");
    assert_eq!(
        (dollars(cap.spent_usd), lines.len() as u64),
        (charged(&simulator).await, report.calls.answered)
    );
    assert!(cap.overshoot_usd > 0.0 && met.calls_in_flight > 0, "{cap:?}");
    let over = NanoUsd((cap.overshoot_usd * 1e9).round() as u64);
    assert!(report.paused.as_ref().unwrap().ends_with(&format!("{over} more is spent")), "{report:?}");
    // Each costs 900 tokens, and its prompt.
    assert!(cap.overshoot_usd <= met.calls_in_flight as f64 * 0.004_6, "{cap:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_was_not_needed_in_the_end_is_booked_once() {
    let folder = tempfile::tempdir().unwrap();
    let (slow, fast) = (plays("latency = \"1s\""), plays(""));
    let more =
        "[route.default]\nlanes = [\"a/m\", \"b/m\"]\n[retry]\nhedge_after = \"20ms\"\nhedge_share = 1.0";
    let pointsman = start(&format!("{}{}{more}", priced("a", &slow, ""), priced("b", &fast, "")));
    let mut keep = Keep::new(store(folder.path()).await, "capped");
    keep.max_cost = Some(dollars(1.0).into());
    let (report, _) = run(&pointsman, PIPELINE, 4, &keep).await;
    assert_eq!((report.ended, report.items.completed, report.calls.beaten), (Ended::Whole, 4, 4));
    let known = booked(&keep, 1).await;
    assert_eq!(known, Booked { cost: charged(&fast).await, perhaps: dollars(report.perhaps_cost_usd) });
    assert_eq!((dollars(report.caps[0].spent_usd), known.perhaps > NanoUsd(0)), (known.all(), true));
}

#[test]
fn a_small_cap_holds_although_the_first_answers_back_are_the_short_ones() {
    let room = super::program::Room::new(
        "[provider.p]\nbase_url = \"simulator\"\nmodels.any = { price = { input = 1, output = 5 } }\n\
         [simulator]\nlatency = { median = \"100ms\", p95 = \"300ms\" }\n\
         answer_tokens = { median = 300, p95 = 3000 }\n",
    );
    room.items(500);
    room.run("run pipeline.toml --items items.jsonl --out o.jsonl --max-cost 0.05 --report r.json").expect(5);
    let spent = room.json("r.json")["cost_usd"].as_f64().unwrap();
    // One answer in twenty has 3,000 tokens and costs $0.015; nothing says so before it comes.
    assert!(spent < 0.1, "{spent}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resumed_run_reserves_what_its_answers_were_like_and_does_not_pause_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let simulator = plays("answer_tokens = 20\nchunks = 1");
    let mut keep = Keep::new(store(folder.path()).await, "capped");
    // As in another process: what was learned is gone with the first.
    let first = start(&priced("a", &simulator, ""));
    keep.max_cost = Some(dollars(1.0).into());
    let (report, _) = run(&first, PIPELINE, 50, &keep).await;
    assert_eq!((report.ended, report.items.completed), (Ended::Whole, 50));
    let spent = report.cost_usd.unwrap();
    // Ten answers more cost a fifth of that; one of the assumed 500 tokens would cost more by itself.
    let left = spent * 0.4;
    assert!(left < 0.0025, "{spent}");
    keep.max_cost = Some(dollars(spent + left).into());
    let second = start(&priced("a", &simulator, "[run]\nwindow = 1\n"));
    let (report, lines) = run(&second, PIPELINE, 60, &keep).await;
    assert_eq!((report.ended, lines.len()), (Ended::Whole, 60), "{report:?}");
    assert_eq!(simulator.counts().requests, 60);
}

#[test]
fn a_run_with_two_cents_left_continues_where_each_of_its_answers_cost_a_hundredth_of_a_cent() {
    let price = "models.any = { price = { input = 1, output = 5 } }";
    let config =
        format!("[provider.p]\nbase_url = \"simulator\"\n{price}\n[simulator]\nanswer_tokens = 16\n");
    let room = super::program::Room::new(&config);
    room.write("pipeline.toml", PIPELINE.replace("prompt =", "max_tokens = 5000\nprompt ="));
    room.items(500);
    let spent = || room.json("r.json")["cost_usd"].as_f64().unwrap();
    room.run("run pipeline.toml --items items.jsonl --out o.jsonl --report r.json").expect(0);
    let each = spent() / 500.0;
    assert!((0.000_05..0.000_15).contains(&each), "{each}");
    // One answer of 5,000 tokens would cost more than what is left.
    room.items(600);
    let cap = spent() + 0.022_5;
    room.run(&format!("resume 1 --max-cost {cap:.6}")).says(0, &["600 completed", "100 calls"]);
}
