//! The library inside a program that runs for months: it is drained, dropped and started again, and leaves nothing.

use std::path::Path;
use std::pin::pin;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use pointsman::pipeline::run::{Ended, Output, Report};
use pointsman::pipeline::sink::{Format, Sink, Target};
use pointsman::pipeline::source::Source;
use pointsman::runtime::{Error, Keep, Pointsman, RunHandle};
use pointsman::simulator::{Simulator, Vendor};
use pointsman::store::{self, RunNumber, RunState, Sqlite, Store};
use pointsman::supervisor;
use pointsman::types::{Booked, NanoUsd};
use serde_json::json;
use tokio::time::{Instant, timeout};

use super::stage::*;

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
            if futures_util::poll!(&mut starting).is_ready() {
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

/// Returns a run of many items whose lines nobody takes, once nothing more can be written.
async fn stuck(
    pointsman: &Pointsman,
    keep: &Keep,
) -> (RunHandle, tokio::sync::mpsc::Receiver<pointsman::pipeline::sink::Line>) {
    let (sink, lines) = Sink::channel().unwrap();
    let run = begin(pointsman, keep, 2_000, Output::new(sink)).await.unwrap();
    let mut progress = run.progress();
    let is_stuck = progress.wait_for(|now| now.items.completed > 300 && now.in_flight == 0);
    timeout(ENOUGH, is_stuck).await.unwrap().unwrap();
    (run, lines)
}

fn assert_counted(report: &Report, mut lines: tokio::sync::mpsc::Receiver<pointsman::pipeline::sink::Line>) {
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

/// Says to a test that it is the only one in its process, and how much it is to do.
const CHILD: &str = "POINTSMAN_TEST_CHILD";

/// Runs the test of this name again, alone in a process whose memory is limited where `kilobytes` are given, and
/// returns what it said.
fn alone(name: &str, kilobytes: Option<u64>) -> String {
    let program = std::env::current_exe().unwrap();
    let limit = kilobytes
        .map_or_else(String::new, |most| format!("ulimit -v {most}; export RUST_MIN_STACK={STACK};"));
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!("{limit} exec \"$0\" \"$1\" --exact --nocapture --test-threads 1"));
    let ended = command.arg(program).arg(format!("host::{name}")).env(CHILD, "1").output().unwrap();
    let said = [ended.stdout, ended.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    assert!(ended.status.success(), "{kilobytes:?}: {said}");
    said
}

#[expect(clippy::print_stderr, reason = "figures are worth a look")]
fn show(figures: &str) {
    eprintln!("{figures}");
}

fn is_alone() -> bool {
    std::env::var_os(CHILD).is_some()
}

/// Returns a number that a longer try may set.
fn how_many(variable: &str, usually: usize) -> usize {
    std::env::var(variable).ok().and_then(|number| number.parse().ok()).unwrap_or(usually)
}

/// What this process has.
#[derive(Debug, Clone, Copy)]
struct Holds {
    threads: usize,
    files: usize,
    kilobytes: usize,
}

impl Holds {
    fn now() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let number = |name: &str| -> usize {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace().nth(1).unwrap().parse().unwrap()
        };
        let files = std::fs::read_dir("/proc/self/fd").unwrap().count();
        Self { threads: number("Threads:"), files, kilobytes: number("VmRSS:") }
    }
}

/// Returns how many threads of this process have that name.
fn threads_named(name: &str) -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")).ok());
    names.filter(|found| found.trim() == name).count()
}

fn locks(folder: &Path) -> usize {
    let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().file_name());
    files.filter(|name| name.to_string_lossy().ends_with(".lock")).count()
}

/// One life of the library in a host: it starts, begins a stored run, and is stopped at some moment in some way.
async fn cycle(folder: &Path, config: &str, random: &mut fastrand::Rng) {
    let store = store(folder).await;
    let pointsman = start(config);
    let keep = Keep::new(store.clone(), format!("hosted {}", random.u8(..5)));
    let moment = Duration::from_micros(random.u64(..60_000));
    let way = random.u8(..5);
    let begun = begin(&pointsman, &keep, 400, nowhere());
    if way == 0 {
        // The host gives up waiting for the start itself.
        drop(timeout(moment / 20, begun).await);
        return drain(&pointsman, Duration::ZERO).await;
    }
    let run = match begun.await {
        // The run before it, of a handle that was dropped, is being closed still.
        Err(Error::Store(store::Error::Busy { .. })) => return,
        run => run.unwrap(),
    };
    tokio::time::sleep(moment).await;
    match way {
        1 => drop((pointsman, run)),
        2 => {
            drop(pointsman);
            run.cancel();
        }
        3 => drain(&pointsman, Duration::ZERO).await,
        _ => drain(&pointsman, Duration::from_millis(200)).await,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg(target_os = "linux")]
async fn many_cycles_of_start_run_and_stop_leave_nothing_behind() {
    if !is_alone() {
        show(&alone("many_cycles_of_start_run_and_stop_leave_nothing_behind", None));
        return;
    }
    let cycles = how_many("POINTSMAN_CYCLES", 30);
    let folder = tempfile::tempdir().unwrap();
    let simulator = plays("latency = \"15ms\"\nchunks = 1");
    let config = priced(&simulator);
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..5 {
        cycle(folder.path(), &config, &mut random).await;
    }
    let settles = async |most: Holds| {
        let end = Instant::now() + ENOUGH;
        loop {
            let now = Holds::now();
            if (now.threads <= most.threads && now.files <= most.files) || Instant::now() > end {
                return now;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    // Of the first cycles nothing is left but what is there once: the threads of this test and the simulator.
    let before = settles(Holds { threads: 6, files: 20, kilobytes: 0 }).await;
    for _ in 0..cycles {
        cycle(folder.path(), &config, &mut random).await;
    }
    let after = settles(before).await;
    let store = store(folder.path()).await;
    let runs = store.runs().await.unwrap();
    let mut spent = Booked::default();
    for run in &runs {
        closed(&*store, run.number).await;
        spent += booked(&*store, run.number).await;
    }
    until("the simulator is done", || simulator.counts().in_flight == 0).await;
    let counts = simulator.counts();
    let charged = NanoUsd(counts.output_tokens * 500_000);
    show(&format!(
        "{cycles} cycles: threads {} before, {} after; descriptors {}, {}; resident {} KB, {} KB; locks {}; {} runs, \
         {} requests, ${:.2} charged, ${:.2} booked, ${:.2} of it for calls of unknown cost",
        before.threads,
        after.threads,
        before.files,
        after.files,
        before.kilobytes,
        after.kilobytes,
        locks(folder.path()),
        runs.len(),
        counts.requests,
        charged.dollars(),
        spent.all().dollars(),
        spent.perhaps.dollars()
    ));
    assert!(after.threads <= before.threads && after.files <= before.files, "{before:?} {after:?}");
    assert!(after.kilobytes < before.kilobytes + 64 * 1_024, "{before:?} {after:?}");
    assert_eq!(locks(folder.path()), 0);
    // Whatever the simulator has answered is booked, and no call for more than it may cost at most.
    assert!(spent.all() >= charged, "{} booked, {} charged", spent.all(), charged);
    assert!(
        spent.all().0 <= counts.requests * 500_000_000 + 500_000_000,
        "{} for {}",
        spent.all(),
        counts.requests
    );
}

/// A stack so large that a limit on memory is one on threads.
const STACK: u64 = 1 << 30;

#[test]
#[cfg(target_os = "linux")]
fn a_start_without_threads_is_an_error_and_no_panic() {
    if is_alone() {
        let config = "[provider.practice]\nbase_url = 'simulator'";
        let config = pointsman::Config::parse("config.toml", config, &|_| None).unwrap();
        return match Pointsman::start(&config) {
            Ok(_) => show("it has started"),
            Err(error @ Error::System { .. }) => show(&format!("it was refused: {error}")),
            Err(error) => panic!("{error:?}"),
        };
    }
    let said: Vec<_> = (1..=16)
        .map(|threads| {
            alone("a_start_without_threads_is_an_error_and_no_panic", Some(threads * (STACK >> 10)))
        })
        .collect();
    assert!(said.iter().all(|said| !said.contains("panicked")), "{said:#?}");
    assert!(said.iter().any(|said| said.contains("it was refused: cannot start")), "{said:#?}");
    assert!(said[15].contains("it has started"), "{said:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg(target_os = "linux")]
async fn a_run_that_waits_for_its_input_has_one_thread_and_needs_no_core() {
    if !is_alone() {
        show(&alone("a_run_that_waits_for_its_input_has_one_thread_and_needs_no_core", None));
        return;
    }
    let count = how_many("POINTSMAN_IDLE_RUNS", 40);
    let simulator = plays("");
    let pointsman = start(&priced(&simulator));
    let before = Holds::now().threads;
    let (mut runs, mut inputs) = (Vec::new(), Vec::new());
    for number in 0..count {
        let (input, items) = std::sync::mpsc::channel();
        input.send(json!({ "id": number })).unwrap();
        let pipeline = pointsman.parse_pipeline(PIPELINE).unwrap();
        let source = Source::values("items", std::iter::from_fn(move || items.recv().ok()));
        runs.push(pointsman.run(pipeline, source, memory()).await.unwrap());
        inputs.push(input);
    }
    until("each has its first line written", || simulator.counts().answered >= count as u64).await;
    until("no thread writes any more", || threads_named("sink") == 0).await;
    assert_eq!(threads_named("source"), count);
    let began = cpu_seconds();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let share = (cpu_seconds() - began) / 3.0;
    show(&format!("{count} idle runs: {} threads more, {share:.3} of a core", Holds::now().threads - before));
    assert!(Holds::now().threads <= before + count + 4, "{} threads", Holds::now().threads);
    drop(inputs);
    for run in &mut runs {
        assert_eq!(run.report().await.unwrap().items.completed, 1);
    }
}

fn memory() -> Output {
    Output::new(Sink::results(Target::writer("memory", std::io::sink()), Format::Jsonl, &[]).unwrap())
}

/// Returns what this process has used of its cores, in seconds.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    ticks / 100.0
}
