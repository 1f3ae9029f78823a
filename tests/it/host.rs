//! The library inside a program that runs for months: it is drained, dropped and started again, and leaves nothing.

use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use pointsman::guard::Purse;
use pointsman::router::Ask;
use pointsman::run::{Ended, Output, Report};
use pointsman::runtime::{Error, Keep, Pointsman, RunHandle};
use pointsman::simulator::{Simulator, Vendor};
use pointsman::sink::{Format, Sink, Target};
use pointsman::source::Source;
use pointsman::store::{self, RunNumber, RunState, Sqlite, Store};
use pointsman::supervisor;
use pointsman::types::{Booked, Class, NanoUsd};
use serde_json::json;
use tokio::time::{Instant, timeout};

use super::stage::*;

#[cfg(all(target_os = "linux", feature = "chaos"))]
mod footprint;

/// Longer than anything here takes on the busiest machine, and shorter than a drain that waits in vain.
const ENOUGH: Duration = Duration::from_secs(40);

const PIPELINE: &str = "
name = \"hosted\"
[[step]]
name = \"answer\"
prompt = \"Say something about {{ item.id }}.\"
max_tokens = 1000
";

fn plays(settings: &str) -> Simulator {
    play(toml::from_str(settings).unwrap())
}

/// Writes a provider whose calls cost half a dollar at most.
fn priced(simulator: &Simulator) -> String {
    let url = simulator.base_url(Vendor::OpenAi);
    let long = "timeouts = { first_token = \"1h\", idle = \"1h\", total = \"1h\" }";
    let price = "models.m = { price = { input = 0.0, output = 500.0 } }";
    format!("[provider.a]\nbase_url = \"{url}\"\n{price}\n{long}\n")
}

async fn store(folder: &Path) -> Arc<dyn Store> {
    Arc::new(Sqlite::open(&folder.join("a.db")).await.unwrap())
}

fn items(count: u64) -> Source {
    Source::values("items", (0..count).map(|id| json!({ "id": id })))
}

fn nowhere() -> Output {
    Output::new(Sink::results(Target::none(), Format::Jsonl, &[]).unwrap())
}

async fn begin(pointsman: &Pointsman, keep: &Keep, count: u64, output: Output) -> Result<RunHandle, Error> {
    let pipeline = pointsman.parse_pipeline(PIPELINE).unwrap();
    let kept = pointsman.keep(&pipeline, keep.clone()).await?;
    pointsman.run_kept(pipeline, items(count), output, kept).await
}

/// What the store has booked of a run.
async fn booked(store: &dyn Store, run: RunNumber) -> Booked {
    store.spent_by(run).await.unwrap().into_values().sum()
}

/// Checks that a run is closed, and returns how far it came.
async fn closed(store: &dyn Store, run: RunNumber) -> RunState {
    assert!(!store.is_at_work(run), "run {run} is locked");
    let known = store.run(run).await.unwrap();
    assert_ne!(known.state, RunState::Open, "run {run} is open");
    assert!(!known.outcome.is_null(), "run {run} has no outcome");
    known.state
}

async fn drain(pointsman: &Pointsman, time: Duration) {
    timeout(ENOUGH, pointsman.drain(Instant::now() + time)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_past_its_deadline_books_the_calls_that_it_broke_off_and_closes_its_runs() {
    let folder = tempfile::tempdir().unwrap();
    let simulator = plays("latency = \"1h\"");
    let config = format!("[budget]\nday = 8.0\n{}", priced(&simulator));
    let keep = Keep::new(store(folder.path()).await, "hosted");
    let mut spent = NanoUsd(0);
    for start_number in 1..=4 {
        let pointsman = start(&config);
        let before = simulator.counts().requests;
        let run = begin(&pointsman, &keep, 1_000, nowhere()).await.unwrap();
        if start_number == 1 {
            until("calls are out", || simulator.counts().in_flight >= 4).await;
        }
        drain(&pointsman, Duration::ZERO).await;
        let number = run.number().unwrap();
        let made = simulator.counts().requests - before;
        let now = booked(&*keep.store, number).await.all();
        assert!(now >= spent, "what was booked is gone");
        assert!(made == 0 || now > spent, "{made} calls were broken off, and nothing is booked");
        spent = now;
        assert_eq!(closed(&*keep.store, number).await, RunState::Stopped);
        // Half a dollar is reserved for each, and eight are allowed.
        assert!(simulator.counts().requests <= 16, "{} calls", simulator.counts().requests);
    }
    assert!(spent >= NanoUsd(2_000_000_000) && spent <= NanoUsd(8_500_000_000), "{spent}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_question_that_a_drain_breaks_off_counts_in_its_budget_as_possibly_charged() {
    let simulator = plays("latency = \"1h\"");
    let pointsman = start(&priced(&simulator));
    let purse = Purse::of_run(None, Booked::default(), false);
    let ask = Ask { purse: Some(purse.clone()), ..question("default", "Hello?", Duration::from_secs(3_600)) };
    let asker = pointsman.clone();
    let asked = spawn(async move { asker.send(ask).await });
    until("the call is out", || simulator.counts().in_flight == 1).await;
    drain(&pointsman, Duration::ZERO).await;
    let unanswered = timeout(ENOUGH, asked).await.unwrap().unwrap().unwrap_err();
    assert_eq!(unanswered.failure.class, Class::Cancelled, "{unanswered:?}");
    until("the call is settled", || purse.state().reserved == NanoUsd(0)).await;
    let spent = purse.state().spent;
    assert!(spent.perhaps > NanoUsd(0) && spent.all() == spent.perhaps, "{spent:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_begins_after_a_drain_is_told_so_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let simulator = plays("");
    let pointsman = start(&priced(&simulator));
    let keep = Keep::new(store(folder.path()).await, "hosted");
    let pipeline = pointsman.parse_pipeline(PIPELINE).unwrap();
    let prepared = pointsman.keep(&pipeline, keep.clone()).await.unwrap();
    drain(&pointsman, Duration::from_secs(5)).await;
    let kept = pointsman.run_kept(pipeline, items(3), nowhere(), prepared).await;
    assert!(matches!(kept, Err(Error::Stopped)), "{kept:?}");
    let pipeline = pointsman.parse_pipeline(PIPELINE).unwrap();
    let passing = pointsman.run(pipeline, items(3), nowhere()).await;
    assert!(matches!(passing, Err(Error::Stopped)), "{passing:?}");
    assert_eq!((keep.store.runs().await.unwrap().len(), simulator.counts().requests), (0, 0));
    let files: Vec<_> =
        std::fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
    assert!(!files.iter().any(|name| name.to_string_lossy().ends_with(".lock")), "{files:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_is_dropped_at_any_await_leaves_no_run_that_a_drain_waits_for() {
    let folder = tempfile::tempdir().unwrap();
    let simulator = plays("latency = \"1h\"");
    let store = store(folder.path()).await;
    let pointsman = start(&priced(&simulator));
    for polls in 0..40_u32 {
        let keep = Keep::new(store.clone(), format!("hosted {polls}"));
        let pipeline = pointsman.parse_pipeline(PIPELINE).unwrap();
        let kept = pointsman.keep(&pipeline, keep).await.unwrap();
        let mut starting = pin!(pointsman.run_kept(pipeline, items(10), nowhere(), kept));
        // Dropped sooner or later: before its first await, in the middle, and when it has just begun.
        for _ in 0..polls / 4 {
            // A handle that the caller has had may be dropped, and its run goes on: so it is cancelled here.
            if let Poll::Ready(begun) = futures_util::poll!(&mut starting) {
                begun.unwrap().cancel();
                break;
            }
            tokio::time::sleep(Duration::from_micros(u64::from(polls) * 100)).await;
        }
    }
    drain(&pointsman, Duration::from_secs(120)).await;
    for run in store.runs().await.unwrap() {
        closed(&*store, run.number).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prepared_run_that_never_begins_holds_up_no_other_in_its_store() {
    let folder = tempfile::tempdir().unwrap();
    let simulator = plays("latency = \"1h\"");
    let pointsman = start(&priced(&simulator));
    let keep = Keep::new(store(folder.path()).await, "hosted");
    let pipeline = pointsman.parse_pipeline(PIPELINE).unwrap();
    let _forgotten = pointsman.keep(&pipeline, keep.clone()).await.unwrap();
    let late = pointsman.keep(&pipeline, keep.clone()).await.unwrap();
    let other = begin(&pointsman, &Keep { identity: "other".into(), ..keep.clone() }, 3, nowhere()).await;
    let same = begin(&pointsman, &keep, 3, nowhere()).await;
    let numbers = (other.unwrap().number(), same.unwrap().number());
    assert_eq!(numbers, (Some(RunNumber(1)), Some(RunNumber(2))));
    // Of two that begin the same one, the second finds it at work.
    let second = pointsman.run_kept(pipeline, items(3), nowhere(), late).await;
    assert!(matches!(second, Err(Error::Store(store::Error::Busy { .. }))), "{second:?}");
    drain(&pointsman, Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_was_prepared_before_another_process_ran_the_same_items_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let simulator = plays("");
    let pointsman = start(&priced(&simulator));
    let keep = Keep::new(store(folder.path()).await, "hosted");
    let pipeline = pointsman.parse_pipeline(PIPELINE).unwrap();
    let late = pointsman.keep(&pipeline, keep.clone()).await.unwrap();
    let mut first = begin(&pointsman, &keep, 3, nowhere()).await.unwrap();
    assert_eq!(first.report().await.unwrap().items.completed, 3);
    let refused = pointsman.run_kept(pipeline, items(3), nowhere(), late).await.unwrap_err();
    assert!(matches!(refused, Error::BegunMeanwhile { run: RunNumber(1), settled: 3 }), "{refused:?}");
    assert!(refused.to_string().contains("run the same command again"), "{refused}");
    // Nothing is held, and nothing has changed.
    assert_eq!(closed(&*keep.store, RunNumber(1)).await, RunState::Complete);
    let mut again = begin(&pointsman, &keep, 4, nowhere()).await.unwrap();
    assert_eq!(again.report().await.unwrap().items.settled_before, 3);
}

/// Returns a run of many items whose lines nobody takes, once nothing more can be written.
async fn stuck(
    pointsman: &Pointsman,
    keep: &Keep,
) -> (RunHandle, tokio::sync::mpsc::Receiver<pointsman::sink::Line>) {
    let (sink, lines) = Sink::channel().unwrap();
    let run = begin(pointsman, keep, 2_000, Output::new(sink)).await.unwrap();
    let mut progress = run.progress();
    let is_stuck = progress.wait_for(|now| now.items.completed > 300 && now.in_flight == 0);
    timeout(ENOUGH, is_stuck).await.unwrap().unwrap();
    (run, lines)
}

fn assert_counted(report: &Report, mut lines: tokio::sync::mpsc::Receiver<pointsman::sink::Line>) {
    let mut taken = 0;
    while lines.try_recv().is_ok() {
        taken += 1;
    }
    assert_eq!((report.ended, report.items.completed), (Ended::Interrupted, taken + report.items.unwritten));
    assert!(report.items.unwritten > 0, "{:?}", report.items);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_whose_lines_nobody_takes_is_cancelled_and_counts_what_was_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let simulator = plays("");
    let pointsman = start(&priced(&simulator));
    let keep = Keep::new(store(folder.path()).await, "hosted");
    let (mut run, lines) = stuck(&pointsman, &keep).await;
    run.cancel();
    let report = timeout(ENOUGH, run.report()).await.unwrap().unwrap();
    assert_counted(&report, lines);
    assert_eq!(closed(&*keep.store, RunNumber(1)).await, RunState::Stopped);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_whose_lines_nobody_takes_is_drained() {
    let folder = tempfile::tempdir().unwrap();
    let simulator = plays("");
    let pointsman = start(&priced(&simulator));
    let keep = Keep::new(store(folder.path()).await, "hosted");
    let (mut run, lines) = stuck(&pointsman, &keep).await;
    drain(&pointsman, Duration::from_millis(100)).await;
    assert_eq!(closed(&*keep.store, RunNumber(1)).await, RunState::Stopped);
    assert_counted(&run.report().await.unwrap(), lines);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drained_run_is_whole_in_its_database_without_the_journal() {
    let folder = tempfile::tempdir().unwrap();
    let simulator = plays("");
    let pointsman = start(&priced(&simulator));
    let keep = Keep::new(store(folder.path()).await, "hosted");
    let mut run = begin(&pointsman, &keep, 20, nowhere()).await.unwrap();
    drain(&pointsman, Duration::from_secs(60)).await;
    let report = run.report().await.unwrap();
    let copy = folder.path().join("copy.db");
    std::fs::copy(folder.path().join("a.db"), &copy).unwrap();
    let copy = Sqlite::open(&copy).await.unwrap();
    let known = copy.run(RunNumber(1)).await.unwrap();
    assert_ne!(known.state, RunState::Open);
    assert_eq!(copy.sums(RunNumber(1)).await.unwrap().settled(), report.items.settled());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_is_not_restarted_by_name_and_goes_on() {
    let simulator = plays("latency = \"200ms\"");
    let pointsman = start(&priced(&simulator));
    let pipeline = pointsman.parse_pipeline(PIPELINE).unwrap();
    let mut run = pointsman.run(pipeline, items(8), nowhere()).await.unwrap();
    let children = pointsman.children().await;
    let child = children.iter().find(|child| child.name.starts_with("run ")).unwrap();
    let refused = pointsman.restart(&child.name).await;
    assert!(matches!(refused, Err(Error::Restart(supervisor::Error::NeverByName { .. }))), "{refused:?}");
    let report = run.report().await.unwrap();
    assert_eq!((report.ended, report.items.completed), (Ended::Whole, 8));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_progress_of_a_run_ends_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let simulator = plays("");
    let pointsman = start(&priced(&simulator));
    let keep = Keep::new(store(folder.path()).await, "hosted");
    let mut run = begin(&pointsman, &keep, 5, nowhere()).await.unwrap();
    let mut progress = run.progress();
    let to_its_end = async { while progress.changed().await.is_ok() {} };
    timeout(ENOUGH, to_its_end).await.unwrap();
    let report = timeout(ENOUGH, run.report()).await.unwrap().unwrap();
    assert_eq!((report.ended, report.items.completed), (Ended::Whole, 5));
    // A watcher that comes later sees the last progress, and that nothing will follow.
    let mut late = run.progress();
    assert_eq!(late.borrow().items.completed, 5);
    assert!(timeout(ENOUGH, late.changed()).await.unwrap().is_err());
}
