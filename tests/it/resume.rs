//! A run that is kept goes on where it was, asks nothing twice, and has one line for each item.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use pointsman::run::{Ended, Output, Report};
use pointsman::runtime::{Error, Keep, Pointsman};
use pointsman::simulator::{Settings, Simulator};
use pointsman::sink::{Format, Sink, Target};
use pointsman::source::Source;
use pointsman::store::{Sqlite, Store};
use serde_json::{Value, json};

use super::stage::*;

const PIPELINE: &str = "
name = \"kept\"
[[step]]
name = \"first\"
prompt = \"Say something about {{ item.text }}.\"
[[step]]
name = \"beside\"
prompt = \"Say something else about {{ item.text }}.\"
[[step]]
name = \"last\"
prompt = \"Sum up: {{ first }} {{ beside }}\"
";

async fn store(folder: &Path) -> Arc<dyn Store> {
    Arc::new(Sqlite::open(&folder.join("a.db")).await.unwrap())
}

fn items(numbers: impl Iterator<Item = u32>) -> Vec<Value> {
    numbers.map(|number| json!({ "id": number, "text": format!("thing {number}") })).collect()
}

/// Runs these items, kept, and returns the report and the lines.
async fn run(
    pointsman: &Pointsman,
    pipeline: &str,
    items: Vec<Value>,
    keep: &Keep,
) -> Result<(Report, Vec<Value>), Error> {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.jsonl");
    let pipeline = pointsman.parse_pipeline(pipeline).unwrap();
    let steps: Vec<_> = pipeline.steps().iter().map(|step| step.name.clone()).collect();
    let sink = Sink::results(Target::file(out.clone(), &[]).unwrap(), Format::Jsonl, &steps).unwrap();
    let source = Source::values("items", items);
    let kept = pointsman.keep(&pipeline, keep.clone()).await?;
    let mut run = pointsman.run_kept(pipeline, source, Output::new(sink), kept).await?;
    let report = run.report().await?;
    let text = std::fs::read_to_string(out).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let keys: HashSet<_> = lines.iter().map(|line| line["key"].to_string()).collect();
    assert_eq!(keys.len(), lines.len(), "one line for each item");
    Ok((report, lines))
}

fn start_at(simulator: &Simulator) -> Pointsman {
    start(&provider("a", simulator, PATIENT))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_finished_run_asks_nothing_again_and_its_lines_are_the_same() {
    let (folder, simulator) = (tempfile::tempdir().unwrap(), play(Settings::default()));
    let pointsman = start_at(&simulator);
    let keep = Keep::new(store(folder.path()).await, "kept");
    let (report, mut lines) = run(&pointsman, PIPELINE, items(0..50), &keep).await.unwrap();
    assert_eq!((report.items.completed, report.items.settled_before), (50, 0));
    assert_eq!(simulator.counts().requests, 150);

    let (again, mut same) = run(&pointsman, PIPELINE, items(0..50), &keep).await.unwrap();
    assert_eq!((again.items.completed, again.items.settled_before, again.calls.made), (50, 50, 0));
    assert_eq!(simulator.counts().requests, 150);
    let key = |line: &Value| line["key"].to_string();
    lines.sort_by_key(key);
    same.sort_by_key(key);
    assert_eq!(lines, same);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn added_items_are_added_and_changed_ones_are_asked_again() {
    let (folder, simulator) = (tempfile::tempdir().unwrap(), play(Settings::default()));
    let pointsman = start_at(&simulator);
    let keep = Keep::new(store(folder.path()).await, "kept");
    run(&pointsman, PIPELINE, items(0..10), &keep).await.unwrap();
    let mut more = items(0..15);
    more[3]["text"] = json!("another thing");
    more[4]["unused"] = json!("no prompt mentions it");
    let (report, lines) = run(&pointsman, PIPELINE, more, &keep).await.unwrap();
    assert_eq!((report.items.completed, report.items.settled_before, lines.len()), (15, 8, 15));
    // Five new ones and one that is another; of the one that only looks so, every answer holds.
    assert_eq!(report.calls.made, 3 * 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_step_is_told_and_costs_only_what_depends_on_it() {
    let (folder, simulator) = (tempfile::tempdir().unwrap(), play(Settings::default()));
    let pointsman = start_at(&simulator);
    let mut keep = Keep::new(store(folder.path()).await, "kept");
    run(&pointsman, PIPELINE, items(0..10), &keep).await.unwrap();
    let changed = PIPELINE.replace("something else", "nothing new");
    let refused = run(&pointsman, &changed, items(0..10), &keep).await.unwrap_err().to_string();
    let said = "run 1 has changed since it began: changed steps: beside; steps that need their answers: last. It \
                has 10 settled items; of 30 answers 10 stay valid.";
    assert!(refused.starts_with(said), "{refused}");
    assert_eq!(simulator.counts().requests, 30);

    keep.accept_changes = true;
    let (report, _) = run(&pointsman, &changed, items(0..10), &keep).await.unwrap();
    assert_eq!((report.items.completed, report.items.settled_before, report.calls.made), (10, 0, 20));
    keep.accept_changes = false;
    let (report, _) = run(&pointsman, &changed, items(0..10), &keep).await.unwrap();
    assert_eq!((report.items.settled_before, report.calls.made), (10, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_was_cancelled_goes_on_and_asks_no_answered_step_again() {
    let folder = tempfile::tempdir().unwrap();
    let simulator = play(toml::from_str("latency = \"20ms\"").unwrap());
    let pointsman = start_at(&simulator);
    let keep = Keep::new(store(folder.path()).await, "kept");
    let pipeline = || pointsman.parse_pipeline(PIPELINE).unwrap();
    let source = || Source::values("items", items(0..400));
    let (sink, mut taken) = Sink::channel().unwrap();
    let kept = pointsman.keep(&pipeline(), keep.clone()).await.unwrap();
    let mut first = pointsman.run_kept(pipeline(), source(), Output::new(sink), kept).await.unwrap();
    let mut lines = 0;
    while taken.recv().await.is_some() {
        lines += 1;
        if lines == 20 {
            first.cancel();
        }
    }
    let report = first.report().await.unwrap();
    assert_eq!(report.ended, Ended::Interrupted);
    let sums = keep.store.sums(first.number().unwrap()).await.unwrap();
    assert_eq!(sums.settled(), lines, "a line is written once its item is kept");

    // Counted as they leave: the simulator may hear of one that was broken off only later.
    let provider = || pointsman.providers().remove(0);
    until("what was out is broken off", || (provider().in_flight, provider().waiting) == (0, 0)).await;
    let before = provider().calls;
    let (report, lines) = run(&pointsman, PIPELINE, items(0..400), &keep).await.unwrap();
    assert_eq!((report.items.completed, lines.len() as u64), (400, 400));
    assert_eq!(report.items.settled_before, sums.settled());
    // What was answered and kept is not asked again: only what was out when it was cancelled may be.
    let (answers, needed) = (sums.spent.calls, 1_200);
    assert_eq!(provider().calls - before, needed - answers);
    assert_eq!(keep.store.sums(first.number().unwrap()).await.unwrap().spent.calls, needed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_at_one_run_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let simulator = play(toml::from_str("latency = \"5s\"").unwrap());
    let pointsman = start_at(&simulator);
    let keep = Keep::new(store(folder.path()).await, "kept");
    let pipeline = || pointsman.parse_pipeline(PIPELINE).unwrap();
    let (sink, _lines) = Sink::channel().unwrap();
    let source = Source::values("items", items(0..5));
    let kept = pointsman.keep(&pipeline(), keep.clone()).await.unwrap();
    let first = pointsman.run_kept(pipeline(), source, Output::new(sink), kept).await.unwrap();
    let refused = run(&pointsman, PIPELINE, items(0..5), &keep).await.unwrap_err().to_string();
    assert!(refused.starts_with("run 1 is being worked on by process"), "{refused}");
    first.cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_requests_of_a_day_are_counted_by_the_store_across_starts() {
    let (folder, simulator) = (tempfile::tempdir().unwrap(), play(Settings::default()));
    let of_account = |limit| format!("models.m = {{}}\nlimits.requests_per_day = {limit}\n");
    let of_model = |limit| format!("models.m.limits.requests_per_day = {limit}\n");
    let limits =
        [(of_account(5), 5), (of_account(5), 5), (of_account(9), 9), (of_model(9), 9), (of_model(12), 12)];
    for (limit, requests) in limits {
        let config = provider("a", &simulator, PATIENT).replace("models.m = {}\n", &limit);
        let pointsman = start(&format!("{config}[run]\nmax_hold = \"5m\"\n"));
        let keep = Keep::new(store(folder.path()).await, "kept");
        let (report, _) = run(&pointsman, PIPELINE, items(0..20), &keep).await.unwrap();
        assert_eq!((report.ended, report.items.failed), (Ended::Paused, 0), "{limit}: {:?}", report.errors);
        assert_eq!(simulator.counts().requests, requests, "{limit}");
    }
}
