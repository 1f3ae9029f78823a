//! The library in a long-running host program: it is drained, dropped and started again, and leaves nothing
//! behind.

use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use pointsman::guard::SharedBudget;
use pointsman::run::{Report, RunOutcome, RunOutput};
use pointsman::runtime::{Error, Pointsman, ResumeOptions, RunHandle};
use pointsman::simulator::{Simulator, Vendor};
use pointsman::sink::{Destination, Format, Sink};
use pointsman::source::Source;
use pointsman::store::{self, RunNumber, RunState, Sqlite, Store};
use pointsman::supervisor;
use pointsman::types::{Class, NanoUsd, Spend};
use serde_json::json;
use tokio::time::timeout;

use super::support::*;

#[cfg(all(target_os = "linux", feature = "chaos"))]
mod footprint;

/// Longer than any test here takes on a busy machine, and shorter than a drain that waits for a hanging run.
const MAX_TEST_WAIT: Duration = Duration::from_secs(40);

const PIPELINE: &str = "
name = \"hosted\"
[[step]]
name = \"answer\"
prompt = \"Say something about {{ item.id }}.\"
max_tokens = 1000
";

fn simulator_with(settings: &str) -> Simulator {
    start_simulator(toml::from_str(settings).unwrap())
}

/// Returns the configuration of a provider whose calls cost at most half a dollar.
fn priced_config(simulator: &Simulator) -> String {
    let url = simulator.base_url(Vendor::OpenAi);
    let timeouts = "timeouts = { first_token = \"1h\", idle = \"1h\", total = \"1h\" }";
    let price = "models.m = { price = { input = 0.0, output = 500.0 } }";
    format!("[provider.a]\nbase_url = \"{url}\"\n{price}\n{timeouts}\n")
}

async fn store(folder: &Path) -> Arc<dyn Store> {
    Arc::new(Sqlite::open(&folder.join("a.db")).await.unwrap())
}

fn items(count: u64) -> Source {
    Source::values("items", (0..count).map(|id| json!({ "id": id })))
}

fn no_output() -> RunOutput {
    RunOutput::new(Sink::results(Destination::none(), Format::Jsonl, &[]).unwrap())
}

async fn start_stored_run(
    pointsman: &Pointsman,
    options: &ResumeOptions,
    count: u64,
    output: RunOutput,
) -> Result<RunHandle, Error> {
    let pipeline = pointsman.parse_pipeline(PIPELINE).unwrap();
    let prepared_run = pointsman.prepare_run(&pipeline, options.clone()).await?;
    pointsman.run_stored(pipeline, items(count), output, prepared_run).await
}

/// Returns the spend of a run as booked in the store.
async fn booked_spend(store: &dyn Store, run: RunNumber) -> Spend {
    store.spent_by(run).await.unwrap().into_values().sum()
}

/// Asserts that a run is closed, and returns its state.
async fn assert_closed(store: &dyn Store, run: RunNumber) -> RunState {
    assert!(!store.is_locked(run), "run {run} is locked");
    let known = store.run(run).await.unwrap();
    assert_ne!(known.state, RunState::Running, "run {run} is open");
    assert!(!known.outcome.is_null(), "run {run} has no outcome");
    known.state
}

async fn drain(pointsman: &Pointsman, time: Duration) {
    timeout(MAX_TEST_WAIT, pointsman.drain(time)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_past_its_deadline_books_the_calls_that_it_aborted_and_closes_its_runs() {
    let folder = tempfile::tempdir().unwrap();
    let simulator = simulator_with("latency = \"1h\"");
    let config = format!("[budget]\nday = 8.0\n{}", priced_config(&simulator));
    let options = ResumeOptions::new(store(folder.path()).await, "hosted");
    let mut spent = NanoUsd(0);
    for start_number in 1..=4 {
        let pointsman = start_pointsman(&config);
        let before = simulator.counts().requests;
        let run = start_stored_run(&pointsman, &options, 1_000, no_output()).await.unwrap();
        if start_number == 1 {
            wait_until("calls are in flight", || simulator.counts().in_flight >= 4).await;
        }
        drain(&pointsman, Duration::ZERO).await;
        let number = run.id().unwrap();
        let sent = simulator.counts().requests - before;
        let now = booked_spend(&*options.store, number).await.total();
        assert!(now >= spent, "booked spend was lost");
        assert!(sent == 0 || now > spent, "{sent} calls were aborted, and nothing is booked");
        spent = now;
        // A run that begins when all 16 calls of the day are spent may have paused before it was drained.
        let expected = match assert_closed(&*options.store, number).await {
            RunState::Paused if before == 16 => RunState::Paused,
            _ => RunState::Stopped,
        };
        assert_eq!(assert_closed(&*options.store, number).await, expected, "{before} calls before");
        // Half a dollar is reserved for each call, and 8 dollars are allowed.
        assert!(simulator.counts().requests <= 16, "{} calls", simulator.counts().requests);
    }
    assert!(spent >= NanoUsd(2_000_000_000) && spent <= NanoUsd(8_500_000_000), "{spent}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_a_drain_aborts_counts_in_its_budget_as_possibly_charged() {
    let simulator = simulator_with("latency = \"1h\"");
    let pointsman = start_pointsman(&priced_config(&simulator));
    let budget = SharedBudget::for_run(None, Spend::default(), false);
    let request = new_request("default", "Hello?", Duration::from_secs(3_600)).with_budget(budget.clone());
    let client = pointsman.clone();
    let sending = spawn(async move { client.send(request).await });
    wait_until("the call is in flight", || simulator.counts().in_flight == 1).await;
    drain(&pointsman, Duration::ZERO).await;
    let error = timeout(MAX_TEST_WAIT, sending).await.unwrap().unwrap().unwrap_err();
    assert_eq!(error.failure.class, Class::Cancelled, "{error:?}");
    wait_until("the call is settled", || budget.status().reserved == NanoUsd(0)).await;
    let spent = budget.status().spent;
    assert!(spent.uncertain_cost > NanoUsd(0) && spent.total() == spent.uncertain_cost, "{spent:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_started_after_a_drain_is_refused_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let simulator = simulator_with("");
    let pointsman = start_pointsman(&priced_config(&simulator));
    let options = ResumeOptions::new(store(folder.path()).await, "hosted");
    let pipeline = pointsman.parse_pipeline(PIPELINE).unwrap();
    let prepared = pointsman.prepare_run(&pipeline, options.clone()).await.unwrap();
    drain(&pointsman, Duration::from_secs(5)).await;
    let stored = pointsman.run_stored(pipeline, items(3), no_output(), prepared).await;
    assert!(matches!(stored, Err(Error::Stopped)), "{stored:?}");
    let pipeline = pointsman.parse_pipeline(PIPELINE).unwrap();
    let unstored = pointsman.run(pipeline, items(3), no_output()).await;
    assert!(matches!(unstored, Err(Error::Stopped)), "{unstored:?}");
    assert_eq!((options.store.runs().await.unwrap().len(), simulator.counts().requests), (0, 0));
    let files: Vec<_> =
        std::fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
    assert!(!files.iter().any(|name| name.to_string_lossy().ends_with(".lock")), "{files:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_is_dropped_at_any_await_leaves_no_run_that_a_drain_waits_for() {
    let folder = tempfile::tempdir().unwrap();
    let simulator = simulator_with("latency = \"1h\"");
    let store = store(folder.path()).await;
    let pointsman = start_pointsman(&priced_config(&simulator));
    for polls in 0..40_u32 {
        let options = ResumeOptions::new(store.clone(), format!("hosted {polls}"));
        let pipeline = pointsman.parse_pipeline(PIPELINE).unwrap();
        let prepared_run = pointsman.prepare_run(&pipeline, options).await.unwrap();
        let mut starting = pin!(pointsman.run_stored(pipeline, items(10), no_output(), prepared_run));
        // Dropped before its first await, in the middle, or when the run has just started.
        for _ in 0..polls / 4 {
            // A run continues when its handle is dropped, so it is cancelled here.
            if let Poll::Ready(run) = futures_util::poll!(&mut starting) {
                run.unwrap().cancel();
                break;
            }
            tokio::time::sleep(Duration::from_micros(u64::from(polls) * 100)).await;
        }
    }
    drain(&pointsman, Duration::from_secs(120)).await;
    for run in store.runs().await.unwrap() {
        assert_closed(&*store, run.number).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prepared_run_that_is_never_started_blocks_no_other_run_of_its_store() {
    let folder = tempfile::tempdir().unwrap();
    let simulator = simulator_with("latency = \"1h\"");
    let pointsman = start_pointsman(&priced_config(&simulator));
    let options = ResumeOptions::new(store(folder.path()).await, "hosted");
    let pipeline = pointsman.parse_pipeline(PIPELINE).unwrap();
    let _unused = pointsman.prepare_run(&pipeline, options.clone()).await.unwrap();
    let late = pointsman.prepare_run(&pipeline, options.clone()).await.unwrap();
    // Their handles are kept: a dropped handle cancels its run, which then is not in use.
    let other_options = options.clone().with_identity("other");
    let other = start_stored_run(&pointsman, &other_options, 3, no_output()).await.unwrap();
    let same = start_stored_run(&pointsman, &options, 3, no_output()).await.unwrap();
    assert_eq!((other.id(), same.id()), (Some(RunNumber(1)), Some(RunNumber(2))));
    // Of two starts of the same run, the second finds it in use.
    let second = pointsman.run_stored(pipeline, items(3), no_output(), late).await;
    assert!(matches!(second, Err(Error::Store(store::Error::Busy { .. }))), "{second:?}");
    drain(&pointsman, Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_was_prepared_before_another_process_ran_the_same_items_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let simulator = simulator_with("");
    let pointsman = start_pointsman(&priced_config(&simulator));
    let options = ResumeOptions::new(store(folder.path()).await, "hosted");
    let pipeline = pointsman.parse_pipeline(PIPELINE).unwrap();
    let late = pointsman.prepare_run(&pipeline, options.clone()).await.unwrap();
    let mut first = start_stored_run(&pointsman, &options, 3, no_output()).await.unwrap();
    assert_eq!(first.report().await.unwrap().items.completed, 3);
    let error = pointsman.run_stored(pipeline, items(3), no_output(), late).await.unwrap_err();
    assert!(matches!(error, Error::StartedElsewhere { run: RunNumber(1), finished: 3 }), "{error:?}");
    assert!(error.to_string().contains("start it again"), "{error}");
    // Nothing is locked, and nothing has changed.
    assert_eq!(assert_closed(&*options.store, RunNumber(1)).await, RunState::Completed);
    let mut second = start_stored_run(&pointsman, &options, 4, no_output()).await.unwrap();
    assert_eq!(second.report().await.unwrap().items.finished_before, 3);
}

/// Starts a run of many items whose lines are not received. Returns it when nothing more can be written.
async fn start_blocked_run(
    pointsman: &Pointsman,
    options: &ResumeOptions,
) -> (RunHandle, tokio::sync::mpsc::Receiver<pointsman::sink::Line>) {
    let (sink, lines) = Sink::channel().unwrap();
    let run = start_stored_run(pointsman, options, 2_000, RunOutput::new(sink)).await.unwrap();
    let mut progress = run.watch_progress();
    let is_blocked = progress.wait_for(|now| now.items.completed > 300 && now.in_flight == 0);
    timeout(MAX_TEST_WAIT, is_blocked).await.unwrap().unwrap();
    (run, lines)
}

fn assert_lines_are_counted(report: &Report, mut lines: tokio::sync::mpsc::Receiver<pointsman::sink::Line>) {
    let mut received = 0;
    while lines.try_recv().is_ok() {
        received += 1;
    }
    assert_eq!(
        (report.outcome, report.items.completed),
        (RunOutcome::Interrupted, received + report.items.unwritten)
    );
    assert!(report.items.unwritten > 0, "{:?}", report.items);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_whose_lines_are_not_received_can_be_cancelled_and_counts_unwritten_lines() {
    let folder = tempfile::tempdir().unwrap();
    let simulator = simulator_with("");
    let pointsman = start_pointsman(&priced_config(&simulator));
    let options = ResumeOptions::new(store(folder.path()).await, "hosted");
    let (mut run, lines) = start_blocked_run(&pointsman, &options).await;
    run.cancel();
    let report = timeout(MAX_TEST_WAIT, run.report()).await.unwrap().unwrap();
    assert_lines_are_counted(&report, lines);
    assert_eq!(assert_closed(&*options.store, RunNumber(1)).await, RunState::Stopped);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_whose_lines_are_not_received_can_be_drained() {
    let folder = tempfile::tempdir().unwrap();
    let simulator = simulator_with("");
    let pointsman = start_pointsman(&priced_config(&simulator));
    let options = ResumeOptions::new(store(folder.path()).await, "hosted");
    let (mut run, lines) = start_blocked_run(&pointsman, &options).await;
    drain(&pointsman, Duration::from_millis(100)).await;
    assert_eq!(assert_closed(&*options.store, RunNumber(1)).await, RunState::Stopped);
    assert_lines_are_counted(&run.report().await.unwrap(), lines);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drained_run_is_complete_in_its_database_without_the_journal() {
    let folder = tempfile::tempdir().unwrap();
    let simulator = simulator_with("");
    let pointsman = start_pointsman(&priced_config(&simulator));
    let options = ResumeOptions::new(store(folder.path()).await, "hosted");
    let mut run = start_stored_run(&pointsman, &options, 20, no_output()).await.unwrap();
    drain(&pointsman, Duration::from_secs(60)).await;
    let report = run.report().await.unwrap();
    let copy = folder.path().join("copy.db");
    std::fs::copy(folder.path().join("a.db"), &copy).unwrap();
    let copy = Sqlite::open(&copy).await.unwrap();
    let known = copy.run(RunNumber(1)).await.unwrap();
    assert_ne!(known.state, RunState::Running);
    assert_eq!(copy.totals(RunNumber(1)).await.unwrap().finished(), report.items.finished());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_cannot_be_restarted_by_name_and_continues() {
    let simulator = simulator_with("latency = \"200ms\"");
    let pointsman = start_pointsman(&priced_config(&simulator));
    let pipeline = pointsman.parse_pipeline(PIPELINE).unwrap();
    let mut run = pointsman.run(pipeline, items(8), no_output()).await.unwrap();
    let children = pointsman.children().await;
    let child = children.iter().find(|child| child.name.starts_with("run ")).unwrap();
    let error = pointsman.restart(&child.name).await;
    assert!(
        matches!(error, Err(Error::Restart(supervisor::Error::ManualRestartRefused { .. }))),
        "{error:?}"
    );
    let report = run.report().await.unwrap();
    assert_eq!((report.outcome, report.items.completed), (RunOutcome::Completed, 8));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_progress_of_a_run_ends_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let simulator = simulator_with("");
    let pointsman = start_pointsman(&priced_config(&simulator));
    let options = ResumeOptions::new(store(folder.path()).await, "hosted");
    let mut run = start_stored_run(&pointsman, &options, 5, no_output()).await.unwrap();
    let mut progress = run.watch_progress();
    let progress_end = async { while progress.changed().await.is_ok() {} };
    timeout(MAX_TEST_WAIT, progress_end).await.unwrap();
    let report = timeout(MAX_TEST_WAIT, run.report()).await.unwrap().unwrap();
    assert_eq!((report.outcome, report.items.completed), (RunOutcome::Completed, 5));
    // A later receiver gets the last progress, and then the end.
    let mut late_progress = run.watch_progress();
    assert_eq!(late_progress.borrow().items.completed, 5);
    assert!(timeout(MAX_TEST_WAIT, late_progress.changed()).await.unwrap().is_err());
}
