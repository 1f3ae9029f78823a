//! What a process has that starts, runs and stops the library many times, or holds many idle runs: threads,
//! descriptors, memory, locks, processor time. Each test runs alone in a process of its own.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use pointsman::chaos::{self, Plan};
use pointsman::run::Output;
use pointsman::runtime::{Error, Keep, Pointsman};
use pointsman::sink::{Format, Sink, Target};
use pointsman::source::Source;
use pointsman::store;
use pointsman::types::{Booked, NanoUsd};
use serde_json::json;
use tokio::time::{Instant, timeout};

use super::*;

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
    let ended =
        command.arg(program).arg(format!("host::footprint::{name}")).env(CHILD, "1").output().unwrap();
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
    // Panics nowhere, and counts the calls that leave.
    let _counting = chaos::arm(Plan::new(7));
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
    let left = chaos::passed()["call.leave"].times;
    show(&format!(
        "{cycles} cycles: threads {} before, {} after; descriptors {}, {}; resident {} KB, {} KB; locks {}; {} runs, \
         {left} calls left, {} requests, ${:.2} charged, ${:.2} booked, ${:.2} of it for calls of unknown cost",
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
    // What the simulator has answered is booked. A call that left is booked once, with half a dollar at most. Some of
    // those were broken off before the simulator read their request.
    assert!(spent.all() >= charged, "{} booked, {} charged", spent.all(), charged);
    assert!(spent.all() <= NanoUsd(left * 500_000_000), "{} for {left} calls", spent.all());
}

/// A stack so large that a limit on memory is one on threads.
const STACK: u64 = 1 << 30;

#[test]
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
