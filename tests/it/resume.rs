//! A stored run is resumed where it ended, sends no request twice, and has one line for each item.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use pointsman::run::{Report, RunOutcome, RunOutput};
use pointsman::runtime::{Error, Pointsman, ResumeOptions};
use pointsman::simulator::{Settings, Simulator};
use pointsman::sink::{Destination, Format, Sink};
use pointsman::source::Source;
use pointsman::store::{Sqlite, Store};
use serde_json::{Value, json};

use super::support::*;

const PIPELINE: &str = "
name = \"stored\"
[[step]]
name = \"first\"
prompt = \"Say something about {{ item.text }}.\"
[[step]]
name = \"second\"
prompt = \"Say something else about {{ item.text }}.\"
[[step]]
name = \"last\"
prompt = \"Sum up: {{ first }} {{ second }}\"
";

async fn store(folder: &Path) -> Arc<dyn Store> {
    Arc::new(Sqlite::open(&folder.join("a.db")).await.unwrap())
}

fn items(numbers: impl Iterator<Item = u32>) -> Vec<Value> {
    numbers.map(|number| json!({ "id": number, "text": format!("thing {number}") })).collect()
}

/// Runs these items as a stored run, and returns the report and the lines.
async fn run(
    pointsman: &Pointsman,
    pipeline: &str,
    items: Vec<Value>,
    options: &ResumeOptions,
) -> Result<(Report, Vec<Value>), Error> {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.jsonl");
    let pipeline = pointsman.parse_pipeline(pipeline).unwrap();
    let steps: Vec<_> = pipeline.steps().iter().map(|step| step.name.clone()).collect();
    let sink = Sink::results(Destination::file(out.clone(), &[]).unwrap(), Format::Jsonl, &steps).unwrap();
    let source = Source::values("items", items);
    let prepared = pointsman.prepare_run(&pipeline, options.clone()).await?;
    let mut run = pointsman.run_stored(pipeline, source, RunOutput::new(sink), prepared).await?;
    let report = run.report().await?;
    let text = std::fs::read_to_string(out).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let keys: HashSet<_> = lines.iter().map(|line| line["key"].to_string()).collect();
    assert_eq!(keys.len(), lines.len(), "one line for each item");
    Ok((report, lines))
}

fn start_at(simulator: &Simulator) -> Pointsman {
    start_pointsman(&provider_config("a", simulator, LONG_TIMEOUTS))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_finished_run_sends_no_request_again_and_its_lines_are_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let simulator = start_simulator(Settings::default());
    let pointsman = start_at(&simulator);
    let options = ResumeOptions::new(store(folder.path()).await, "stored");
    let (report, mut lines) = run(&pointsman, PIPELINE, items(0..50), &options).await.unwrap();
    assert_eq!((report.items.completed, report.items.finished_before), (50, 0));
    assert_eq!(simulator.counts().requests, 150);

    let (again, mut same) = run(&pointsman, PIPELINE, items(0..50), &options).await.unwrap();
    assert_eq!((again.items.completed, again.items.finished_before, again.calls.sent), (50, 50, 0));
    assert_eq!(simulator.counts().requests, 150);
    let key = |line: &Value| line["key"].to_string();
    lines.sort_by_key(key);
    same.sort_by_key(key);
    assert_eq!(lines, same);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_added_and_changed_items_are_processed_again() {
    let folder = tempfile::tempdir().unwrap();
    let simulator = start_simulator(Settings::default());
    let pointsman = start_at(&simulator);
    let options = ResumeOptions::new(store(folder.path()).await, "stored");
    run(&pointsman, PIPELINE, items(0..10), &options).await.unwrap();
    let mut more = items(0..15);
    more[3]["text"] = json!("another thing");
    more[4]["unused"] = json!("no prompt mentions it");
    let (report, lines) = run(&pointsman, PIPELINE, more, &options).await.unwrap();
    assert_eq!((report.items.completed, report.items.finished_before, lines.len()), (15, 8, 15));
    // Five new items and one changed item. The other changed item has a field that no prompt uses.
    assert_eq!(report.calls.sent, 3 * 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_step_is_reported_and_only_it_and_its_dependents_are_repeated() {
    let folder = tempfile::tempdir().unwrap();
    let simulator = start_simulator(Settings::default());
    let pointsman = start_at(&simulator);
    let mut options = ResumeOptions::new(store(folder.path()).await, "stored");
    run(&pointsman, PIPELINE, items(0..10), &options).await.unwrap();
    let changed = PIPELINE.replace("something else", "nothing new");
    let error = run(&pointsman, &changed, items(0..10), &options).await.unwrap_err().to_string();
    let expected = "run 1 has changed since it began: changed steps: second; steps that need their answers: last. \
                Finished items: 10; answers that stay valid: 10 of 30.";
    assert!(error.starts_with(expected), "{error}");
    assert_eq!(simulator.counts().requests, 30);

    options.accept_changes = true;
    let (report, _) = run(&pointsman, &changed, items(0..10), &options).await.unwrap();
    assert_eq!((report.items.completed, report.items.finished_before, report.calls.sent), (10, 0, 20));
    options.accept_changes = false;
    let (report, _) = run(&pointsman, &changed, items(0..10), &options).await.unwrap();
    assert_eq!((report.items.finished_before, report.calls.sent), (10, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_run_resumes_and_repeats_no_answered_step() {
    let folder = tempfile::tempdir().unwrap();
    let simulator = start_simulator(toml::from_str("latency = \"20ms\"").unwrap());
    let pointsman = start_at(&simulator);
    let options = ResumeOptions::new(store(folder.path()).await, "stored");
    let pipeline = || pointsman.parse_pipeline(PIPELINE).unwrap();
    let source = || Source::values("items", items(0..400));
    let (sink, mut received) = Sink::channel().unwrap();
    let prepared = pointsman.prepare_run(&pipeline(), options.clone()).await.unwrap();
    let mut first = pointsman.run_stored(pipeline(), source(), RunOutput::new(sink), prepared).await.unwrap();
    let mut lines = 0;
    while received.recv().await.is_some() {
        lines += 1;
        if lines == 20 {
            first.cancel();
        }
    }
    let report = first.report().await.unwrap();
    assert_eq!(report.outcome, RunOutcome::Interrupted);
    let totals = options.store.totals(first.id().unwrap()).await.unwrap();
    assert_eq!(totals.finished(), lines, "a line is written after its item is stored");

    // Calls are counted when they are sent. The simulator may receive an aborted call later.
    let provider = || pointsman.providers().remove(0);
    wait_until("calls in flight are aborted", || (provider().in_flight, provider().queued) == (0, 0)).await;
    let before = provider().calls;
    let (report, lines) = run(&pointsman, PIPELINE, items(0..400), &options).await.unwrap();
    assert_eq!((report.items.completed, lines.len() as u64), (400, 400));
    assert_eq!(report.items.finished_before, totals.finished());
    // Stored answers are not requested again. Only calls in flight at the cancellation may be repeated.
    let answers = totals.usage.calls;
    let needed = 1_200;
    assert_eq!(provider().calls - before, needed - answers);
    assert_eq!(options.store.totals(first.id().unwrap()).await.unwrap().usage.calls, needed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_start_of_a_run_in_use_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let simulator = start_simulator(toml::from_str("latency = \"5s\"").unwrap());
    let pointsman = start_at(&simulator);
    let options = ResumeOptions::new(store(folder.path()).await, "stored");
    let pipeline = || pointsman.parse_pipeline(PIPELINE).unwrap();
    let (sink, _lines) = Sink::channel().unwrap();
    let source = Source::values("items", items(0..5));
    let prepared = pointsman.prepare_run(&pipeline(), options.clone()).await.unwrap();
    let first = pointsman.run_stored(pipeline(), source, RunOutput::new(sink), prepared).await.unwrap();
    let error = run(&pointsman, PIPELINE, items(0..5), &options).await.unwrap_err().to_string();
    assert!(error.starts_with("run 1 is in use by process"), "{error}");
    first.cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_requests_of_a_day_are_counted_across_starts() {
    let folder = tempfile::tempdir().unwrap();
    let simulator = start_simulator(Settings::default());
    let account_limit = |limit| format!("models.m = {{}}\nlimits.requests_per_day = {limit}\n");
    let model_limit = |limit| format!("models.m.limits.requests_per_day = {limit}\n");
    let limits = [
        (account_limit(5), 5),
        (account_limit(5), 5),
        (account_limit(9), 9),
        (model_limit(9), 9),
        (model_limit(12), 12),
    ];
    for (limit, requests) in limits {
        let config = provider_config("a", &simulator, LONG_TIMEOUTS).replace("models.m = {}\n", &limit);
        let pointsman = start_pointsman(&format!("{config}[run]\nmax_hold = \"5m\"\n"));
        let options = ResumeOptions::new(store(folder.path()).await, "stored");
        let (report, _) = run(&pointsman, PIPELINE, items(0..20), &options).await.unwrap();
        assert_eq!(
            (report.outcome, report.items.failed),
            (RunOutcome::Paused, 0),
            "{limit}: {:?}",
            report.errors
        );
        assert_eq!(simulator.counts().requests, requests, "{limit}");
    }
}
