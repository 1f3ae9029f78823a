//! Tests of items whose actors die, and of their lines.

use std::collections::HashMap;
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix::prelude::*;
use http::HeaderMap;
use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};

use crate::pipeline::{Defaults, Pipeline};
use crate::provider::{self, Account};
use crate::router::{Policy, RetrySettings, RouteHandle, Router, TargetHandle};
use crate::sink::{self, Destination, Sink};
use crate::source::Source;
use crate::supervisor::{ChildExited, ChildId, ChildSpec, Exit, RestartsExhausted, Slot, Start, Supervisor};
use crate::types::{Priority, ScopeName};

use super::*;

/// A writer to memory that the test can read.
#[derive(Clone, Default)]
struct Memory(Arc<Mutex<Vec<u8>>>);

impl Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Memory {
    fn lines(&self) -> Vec<Value> {
        let bytes = self.0.lock().unwrap();
        bytes
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| serde_json::from_slice(line).unwrap())
            .collect()
    }
}

/// A router whose only provider has no actor: every request waits.
fn waiting_router() -> Addr<Router> {
    let settings = provider::Settings::simulated();
    let account = Account {
        name: "absent".into(),
        settings,
        base_url: "http://127.0.0.1:9/v1".to_owned(),
        keys: Vec::new(),
        headers: HeaderMap::new(),
        budgets: Vec::new(),
    };
    let provider = provider::State::new(account, Handle::current()).unwrap();
    let target = TargetHandle { name: "absent/any".parse().unwrap(), weight: 1, provider };
    let route = RouteHandle { policy: Policy::Priority, targets: vec![target], ..RouteHandle::default() };
    Router::new([("default".into(), route)].into(), RetrySettings::default(), Arc::default()).start()
}

/// A router without routes, so that each request is answered at once, on two threads: the second takes over
/// when the first dies.
async fn killed_router() -> (Slot<Router>, Addr<Supervisor>, Arbiter) {
    struct IgnoreExhausted;
    impl Actor for IgnoreExhausted {
        type Context = Context<Self>;
    }
    impl Handler<RestartsExhausted> for IgnoreExhausted {
        type Result = ();
        fn handle(&mut self, _: RestartsExhausted, _: &mut Self::Context) {}
    }
    let supervisor = Supervisor::new(IgnoreExhausted.start().recipient()).start();
    let slot = Slot::default();
    let first = Arbiter::new();
    let second = Arbiter::new();
    let make =
        move |_: &mut Context<Router>| Router::new(HashMap::new(), RetrySettings::default(), Arc::default());
    let spec = ChildSpec::in_place("router", slot.clone(), make).on([first.handle(), second.handle()]);
    supervisor.send(Start(spec)).await.unwrap().unwrap();
    assert!(slot.get().is_some());
    first.stop();
    first.join().unwrap();
    (slot, supervisor, second)
}

struct StartedRun {
    run: Addr<Run>,
    lines: Memory,
    progress: watch::Receiver<Progress>,
    report: oneshot::Receiver<Report>,
}

fn start_run(items: usize) -> StartedRun {
    start_with_router(waiting_router().into(), items)
}

fn start_with_router(router: Slot<Router>, items: usize) -> StartedRun {
    let (progress_to, progress) = watch::channel(Progress::default());
    let (run, lines, report) = start_with_progress(router, items, progress_to);
    StartedRun { run, lines, progress, report }
}

/// Starts a run that publishes its progress to `progress_to`.
fn start_with_progress(
    router: Slot<Router>,
    items: usize,
    progress_to: watch::Sender<Progress>,
) -> (Addr<Run>, Memory, oneshot::Receiver<Report>) {
    let lines = Memory::default();
    let (run, report) =
        start_with_destination(router, items, progress_to, Destination::writer("memory", lines.clone()));
    (run, lines, report)
}

/// Starts a run that writes to `destination`.
fn start_with_destination(
    router: Slot<Router>,
    items: usize,
    progress_to: watch::Sender<Progress>,
    destination: Destination,
) -> (Addr<Run>, oneshot::Receiver<Report>) {
    let text = "name = \"greet\"\n[[step]]\nname = \"greeting\"\nprompt = \"Greet {{ item.id }}.\"\n";
    let pipeline =
        Pipeline::parse("p.toml", text, Path::new("."), &Defaults::default(), &["default".into()]).unwrap();
    let (report_to, report) = oneshot::channel();
    let setup = RunSetup {
        protected: Arc::default(),
        pipeline: Arc::new(pipeline),
        router,
        priority: Priority::Batch,
        scope: ScopeName::default(),
        scope_limits: None,
        window: None,
        persistence: None,
        budgets: RunBudgets::uncapped(),
        routes: Vec::new(),
        limits: RunLimits::default(),
        metrics: RunMetrics::default(),
        request_metrics: Arc::default(),
        progress: Arc::new(progress_to),
        report: report_to,
    };
    let sink = Sink::results(destination, sink::Format::Jsonl, &["greeting".into()]).unwrap();
    let source = Source::values("values", (1..=items).map(|id| json!({ "id": id })));
    let output = RunOutput::new(sink);
    let (run, tasks) = setup.split(source.read().unwrap(), output);
    let run = run.start();
    actix_rt::spawn(tasks.work(run.clone()));
    (run, report)
}

async fn die(run: &Addr<Run>, id: u64, incarnation: u64) {
    let exit = Exit::Panicked("as planned".to_owned());
    run.send(ChildExited { id: ChildId(id), incarnation, exit }).await.unwrap();
}

#[actix::test]
async fn an_item_whose_actor_dies_twice_fails_and_has_one_line() {
    let mut started = start_run(1);
    started.progress.wait_for(|progress| progress.in_flight == 1).await.unwrap();
    die(&started.run, 0, 1).await;
    started.progress.wait_for(|progress| progress.in_flight == 1).await.unwrap();
    assert!(started.lines.lines().is_empty(), "its second incarnation has just started");
    // A late exit of the first incarnation has no effect.
    die(&started.run, 0, 1).await;
    die(&started.run, 1, 2).await;
    let report = started.report.await.unwrap();
    let lines = started.lines.lines();
    assert_eq!((lines.len(), report.items.failed), (1, 1));
    assert_eq!(lines[0]["error"]["class"], "internal");
    assert_eq!((report.outcome, report.items.unwritten), (RunOutcome::Completed, 0));
}

#[actix::test]
async fn a_cancelled_run_reports_its_unfinished_items() {
    let mut started = start_run(3);
    started.progress.wait_for(|progress| progress.in_flight == 3).await.unwrap();
    started.run.send(Cancel).await.unwrap();
    let report = started.report.await.unwrap();
    assert_eq!((report.outcome, report.items.unfinished), (RunOutcome::Interrupted, 3));
    let unprocessed = Unprocessed { fraction: Some(0.0), estimated_items: Some(0) };
    assert_eq!(report.unprocessed, Some(unprocessed), "all three were started");
    assert!(started.lines.lines().is_empty());
}

#[actix::test]
async fn an_aborted_run_reports_which_original_file_it_has_kept() {
    /// A disk that blocks until its other end is dropped.
    struct Blocked(std::sync::mpsc::Receiver<()>);
    impl Write for Blocked {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("o.jsonl");
    std::fs::write(&path, "before\n".repeat(9)).unwrap();
    let (_writes, blocked) = std::sync::mpsc::channel();
    let destination =
        Destination::file(&path, &[]).unwrap().replacing_after(&path, 9).through(Blocked(blocked));
    let router = Router::new(HashMap::new(), RetrySettings::default(), Arc::default());
    let (progress_to, mut progress) = watch::channel(Progress::default());
    let (run, report) = start_with_destination(router.start().into(), 3, progress_to, destination);
    progress.wait_for(|progress| progress.items.failed == 3).await.unwrap();
    run.send(Cancel).await.unwrap();
    let report = report.await.unwrap();
    assert_eq!((report.outcome, report.items.unwritten), (RunOutcome::Interrupted, 3));
    assert_eq!(report.unreplaced_output.as_deref(), path.to_str());
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "before\n".repeat(9));
}

#[actix::test]
async fn a_run_uses_the_next_router_when_the_first_was_killed() {
    let (router, _supervisor, _arbiter) = killed_router().await;
    let started = start_with_router(router, 3);
    let report = started.report.await.unwrap();
    let lines = started.lines.lines();
    assert_eq!((lines.len(), report.items.failed), (3, 3));
    for line in lines {
        // The response of the router that is running.
        let message = "the configuration in use has no usable target for route `default` (there is no route `default`; \
                       known routes: )";
        assert_eq!(line["error"]["message"], message);
    }
}

#[actix::test]
async fn a_run_publishes_snapshots_only_while_they_are_watched() {
    let snapshots = watch::Sender::new(Progress::default());
    let (run, _lines, _report) = start_with_progress(waiting_router().into(), 3, snapshots.clone());
    let mut progress = snapshots.subscribe();
    run.do_send(ProgressWatched);
    progress.wait_for(|progress| progress.in_flight == 3).await.unwrap();
    drop(progress);
    // From here on only the clock can wake the run: its items wait for a provider that never answers.
    tokio::time::pause();
    snapshots.send_replace(Progress::default());
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(*snapshots.borrow(), Progress::default(), "a snapshot was published without a watcher");
    let mut progress = snapshots.subscribe();
    run.do_send(ProgressWatched);
    let now = progress.wait_for(|progress| progress.in_flight == 3).await.unwrap().clone();
    progress.wait_for(|later| later.elapsed_seconds > now.elapsed_seconds).await.unwrap();
}
