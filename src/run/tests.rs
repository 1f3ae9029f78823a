//! Items whose actors die, and what becomes of their lines.

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
use crate::router::{LaneHandle, Policy, RetrySettings, RouteHandle, Router};
use crate::sink::{self, Sink, Target};
use crate::source::Source;
use crate::supervisor::{ChildExited, ChildId, ChildSpec, Exit, GaveUp, Slot, Start, Supervisor};
use crate::types::Priority;

use super::*;

/// What was written, for the test to read.
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

/// A router whose only provider has no actor: every question waits.
fn patient_router() -> Addr<Router> {
    let settings = provider::Settings::simulated();
    let account = Account {
        name: "absent".into(),
        settings,
        base_url: "http://127.0.0.1:9/v1".to_owned(),
        keys: Vec::new(),
        headers: HeaderMap::new(),
        purses: Vec::new(),
    };
    let provider = provider::State::new(account, Handle::current()).unwrap();
    let lane = LaneHandle { name: "absent/any".parse().unwrap(), weight: 1, provider };
    let route = RouteHandle { policy: Policy::Priority, lanes: vec![lane], ..RouteHandle::default() };
    let draining = Arc::default();
    Router::new(
        HashMap::from([("default".into(), route)]),
        RetrySettings::default(),
        Handle::current(),
        draining,
    )
    .start()
}

/// A router that knows no route, so that each question is answered at once, on two threads: the second takes
/// over when the first dies.
async fn killed_router() -> (Slot<Router>, Addr<Supervisor>, Arbiter) {
    struct Nobody;
    impl Actor for Nobody {
        type Context = Context<Self>;
    }
    impl Handler<GaveUp> for Nobody {
        type Result = ();
        fn handle(&mut self, _: GaveUp, _: &mut Self::Context) {}
    }
    let (supervisor, slot) = (Supervisor::new(Nobody.start().recipient()).start(), Slot::default());
    let (first, second) = (Arbiter::new(), Arbiter::new());
    let runtime = Handle::current();
    let make = move |_: &mut Context<Router>| {
        Router::new(HashMap::new(), RetrySettings::default(), runtime.clone(), Arc::default())
    };
    let spec = ChildSpec::in_place("router", slot.clone(), make).on([first.handle(), second.handle()]);
    supervisor.send(Start(spec)).await.unwrap().unwrap();
    assert!(slot.get().is_some());
    first.stop();
    first.join().unwrap();
    (slot, supervisor, second)
}

struct Begun {
    run: Addr<Run>,
    lines: Memory,
    progress: watch::Receiver<Progress>,
    report: oneshot::Receiver<Report>,
}

fn begin(items: usize) -> Begun {
    begin_with(patient_router().into(), items)
}

fn begin_with(router: Slot<Router>, items: usize) -> Begun {
    let (progress_to, progress) = watch::channel(Progress::default());
    let (run, lines, report) = begin_told(router, items, progress_to);
    Begun { run, lines, progress, report }
}

/// Begins a run that tells its progress there.
fn begin_told(
    router: Slot<Router>,
    items: usize,
    progress_to: watch::Sender<Progress>,
) -> (Addr<Run>, Memory, oneshot::Receiver<Report>) {
    let lines = Memory::default();
    let (run, report) = begin_over(router, items, progress_to, Target::writer("memory", lines.clone()));
    (run, lines, report)
}

/// Begins a run that writes to `target`.
fn begin_over(
    router: Slot<Router>,
    items: usize,
    progress_to: watch::Sender<Progress>,
    target: Target,
) -> (Addr<Run>, oneshot::Receiver<Report>) {
    let text = "name = \"greet\"\n[[step]]\nname = \"greeting\"\nprompt = \"Greet {{ item.id }}.\"\n";
    let pipeline =
        Pipeline::parse("p.toml", text, Path::new("."), &Defaults::default(), &["default".into()]).unwrap();
    let (report_to, report) = oneshot::channel();
    let setup = RunSetup {
        protected: Arc::default(),
        pipeline: Arc::new(pipeline),
        router,
        providers: Vec::new(),
        priority: Priority::Batch,
        window: None,
        keeping: None,
        purses: RunPurses::uncapped(),
        routes: Vec::new(),
        limits: RunLimits::default(),
        progress: Arc::new(progress_to),
        report: report_to,
    };
    let sink = Sink::results(target, sink::Format::Jsonl, &["greeting".into()]).unwrap();
    let source = Source::values("values", (1..=items).map(|id| json!({ "id": id })));
    let output = Output { lines: sink, rejects: None, ordered: false };
    let (run, tasks) = setup.split(source.read().unwrap(), output);
    let run = run.start();
    actix_rt::spawn(tasks.work(run.clone()));
    (run, report)
}

async fn die(run: &Addr<Run>, id: u64, life: u64) {
    let exit = Exit::Panicked("as planned".to_owned());
    run.send(ChildExited { id: ChildId(id), life, exit }).await.unwrap();
}

#[actix::test]
async fn an_item_whose_actor_dies_twice_has_failed_and_has_one_line() {
    let mut begun = begin(1);
    begun.progress.wait_for(|progress| progress.in_flight == 1).await.unwrap();
    die(&begun.run, 0, 1).await;
    begun.progress.wait_for(|progress| progress.in_flight == 1).await.unwrap();
    assert!(begun.lines.lines().is_empty(), "its second life has just begun");
    // A late word about the first life changes nothing.
    die(&begun.run, 0, 1).await;
    die(&begun.run, 1, 2).await;
    let report = begun.report.await.unwrap();
    let lines = begun.lines.lines();
    assert_eq!((lines.len(), report.items.failed), (1, 1));
    assert_eq!(lines[0]["error"]["class"], "internal");
    assert_eq!((report.ended, report.items.unwritten), (Ended::Whole, 0));
}

#[actix::test]
async fn a_cancelled_run_tells_what_it_gave_up() {
    let mut begun = begin(3);
    begun.progress.wait_for(|progress| progress.in_flight == 3).await.unwrap();
    begun.run.send(Cancel).await.unwrap();
    let report = begun.report.await.unwrap();
    assert_eq!((report.ended, report.items.unfinished), (Ended::Interrupted, 3));
    let nothing = NotBegun { share: Some(0.0), about: Some(0) };
    assert_eq!(report.not_begun, Some(nothing), "all three were begun");
    assert!(begun.lines.lines().is_empty());
}

#[actix::test]
async fn a_run_that_is_given_up_says_which_file_it_has_left_as_it_was() {
    /// A disk that takes nothing until its other end is dropped.
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
    let target = Target::file(&path, &[]).unwrap().after(&path, 9).through(Blocked(blocked));
    let router = Router::new(HashMap::new(), RetrySettings::default(), Handle::current(), Arc::default());
    let (progress_to, mut progress) = watch::channel(Progress::default());
    let (run, report) = begin_over(router.start().into(), 3, progress_to, target);
    progress.wait_for(|progress| progress.items.failed == 3).await.unwrap();
    run.send(Cancel).await.unwrap();
    let report = report.await.unwrap();
    assert_eq!((report.ended, report.items.unwritten), (Ended::Interrupted, 3));
    assert_eq!(report.output_left_before.as_deref(), path.to_str());
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "before\n".repeat(9));
}

#[actix::test]
async fn a_run_asks_the_next_router_when_the_first_was_killed() {
    let (router, _supervisor, _arbiter) = killed_router().await;
    let begun = begin_with(router, 3);
    let report = begun.report.await.unwrap();
    let lines = begun.lines.lines();
    assert_eq!((lines.len(), report.items.failed), (3, 3));
    for line in lines {
        // The answer of a router that lives.
        assert_eq!(line["error"]["message"], "there is no route called default");
    }
}

#[actix::test]
async fn a_run_makes_snapshots_only_while_they_are_watched() {
    let snapshots = watch::Sender::new(Progress::default());
    let (run, _lines, _report) = begin_told(patient_router().into(), 3, snapshots.clone());
    let mut progress = snapshots.subscribe();
    run.do_send(Watched);
    progress.wait_for(|progress| progress.in_flight == 3).await.unwrap();
    drop(progress);
    // From here on only the clock can wake the run: its items wait for a provider that never answers.
    tokio::time::pause();
    snapshots.send_replace(Progress::default());
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(*snapshots.borrow(), Progress::default(), "nothing watches, and a snapshot was made");
    let mut progress = snapshots.subscribe();
    run.do_send(Watched);
    let now = progress.wait_for(|progress| progress.in_flight == 3).await.unwrap().clone();
    progress.wait_for(|later| later.seconds > now.seconds).await.unwrap();
}
