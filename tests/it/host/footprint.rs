//! Resources of a process that starts, runs and stops the library many times, or holds many idle runs:
//! threads, file descriptors, memory, lock files, CPU time. Each test runs in its own child process.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use pointsman::chaos::{self, Plan};
use pointsman::run::RunOutput;
use pointsman::runtime::{Error, Pointsman, ResumeOptions};
use pointsman::sink::{Destination, Format, Sink};
use pointsman::source::Source;
use pointsman::store;
use pointsman::types::{NanoUsd, Spend};
use serde_json::json;
use tokio::time::{Instant, timeout};

use super::*;

/// Environment variable that marks the child process of a test.
const CHILD_PROCESS_VARIABLE: &str = "POINTSMAN_TEST_CHILD";

/// Runs the test of this name in a child process, with limited address space if `kilobytes` is given. Returns
/// its output.
fn run_in_child(name: &str, kilobytes: Option<u64>) -> String {
    let program = std::env::current_exe().unwrap();
    let limit = kilobytes.map_or_else(String::new, |limit| {
        format!("ulimit -v {limit}; export RUST_MIN_STACK={CHILD_STACK_BYTES};")
    });
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!("{limit} exec \"$0\" \"$1\" --exact --nocapture --test-threads 1"));
    let output = command
        .arg(program)
        .arg(format!("host::footprint::{name}"))
        .env(CHILD_PROCESS_VARIABLE, "1")
        .output()
        .unwrap();
    let text =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    assert!(output.status.success(), "{kilobytes:?}: {text}");
    text
}

#[expect(clippy::print_stderr, reason = "the figures are worth a look")]
fn print_figures(figures: &str) {
    eprintln!("{figures}");
}

fn is_child() -> bool {
    std::env::var_os(CHILD_PROCESS_VARIABLE).is_some()
}

/// Returns a count from an environment variable, which a longer test may set.
fn count_from_env(variable: &str, default: usize) -> usize {
    std::env::var(variable).ok().and_then(|number| number.parse().ok()).unwrap_or(default)
}

/// The resources of this process.
#[derive(Debug, Clone, Copy)]
struct ProcessResources {
    threads: usize,
    descriptors: usize,
    kilobytes: usize,
}

impl ProcessResources {
    fn measure() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let number = |name: &str| -> usize {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace().nth(1).unwrap().parse().unwrap()
        };
        let descriptors = std::fs::read_dir("/proc/self/fd").unwrap().count();
        Self { threads: number("Threads:"), descriptors, kilobytes: number("VmRSS:") }
    }
}

/// Returns the number of threads of this process with this name.
fn threads_named(name: &str) -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")).ok());
    names.filter(|found| found.trim() == name).count()
}

fn lock_file_count(folder: &Path) -> usize {
    let names = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().file_name());
    names.filter(|name| name.to_string_lossy().ends_with(".lock")).count()
}

/// One cycle of the library in a host: it starts, starts a stored run, and stops at a random time in a random
/// way.
async fn cycle(folder: &Path, config: &str, random: &mut fastrand::Rng) {
    let store = store(folder).await;
    let pointsman = start_pointsman(config);
    let options = ResumeOptions::new(store.clone(), format!("hosted {}", random.u8(..5)));
    let delay = Duration::from_micros(random.u64(..60_000));
    let stop_method = random.u8(..5);
    let starting = start_stored_run(&pointsman, &options, 400, no_output());
    if stop_method == 0 {
        // The host stops waiting for the start.
        drop(timeout(delay / 20, starting).await);
        return drain(&pointsman, Duration::ZERO).await;
    }
    let run = match starting.await {
        // The previous run, whose handle was dropped, is not closed yet.
        Err(Error::Store(store::Error::Busy { .. })) => return,
        run => run.unwrap(),
    };
    tokio::time::sleep(delay).await;
    match stop_method {
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
    if !is_child() {
        print_figures(&run_in_child("many_cycles_of_start_run_and_stop_leave_nothing_behind", None));
        return;
    }
    let cycles = count_from_env("POINTSMAN_CYCLES", 30);
    let folder = tempfile::tempdir().unwrap();
    let simulator = simulator_with("latency = \"15ms\"\nchunks = 1");
    let config = priced_config(&simulator);
    let mut random = fastrand::Rng::with_seed(7);
    // The plan has no panics. It counts the sent calls.
    let _armed = chaos::arm(Plan::new(7));
    for _ in 0..5 {
        cycle(folder.path(), &config, &mut random).await;
    }
    let wait_for_release = async |max: ProcessResources| {
        let end = Instant::now() + MAX_TEST_WAIT;
        loop {
            let now = ProcessResources::measure();
            if (now.threads <= max.threads && now.descriptors <= max.descriptors) || Instant::now() > end {
                return now;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    // After the first cycles only the threads of this test and of the simulator are left.
    let before = wait_for_release(ProcessResources { threads: 6, descriptors: 20, kilobytes: 0 }).await;
    for _ in 0..cycles {
        cycle(folder.path(), &config, &mut random).await;
    }
    let after = wait_for_release(before).await;
    let store = store(folder.path()).await;
    let runs = store.runs().await.unwrap();
    let mut spent = Spend::default();
    for run in &runs {
        assert_closed(&*store, run.number).await;
        spent += booked_spend(&*store, run.number).await;
    }
    wait_until("the simulator is done", || simulator.counts().in_flight == 0).await;
    let counts = simulator.counts();
    let charged = NanoUsd(counts.output_tokens * 500_000);
    let sent_calls = chaos::point_counts()["call.dispatch"].times;
    print_figures(&format!(
        "{cycles} cycles: threads {} before, {} after; descriptors {}, {}; resident {} KB, {} KB; locks {}; {} runs, \
         {sent_calls} calls sent, {} requests, ${:.2} charged, ${:.2} booked, ${:.2} of it uncertain",
        before.threads,
        after.threads,
        before.descriptors,
        after.descriptors,
        before.kilobytes,
        after.kilobytes,
        lock_file_count(folder.path()),
        runs.len(),
        counts.requests,
        charged.dollars(),
        spent.total().dollars(),
        spent.uncertain_cost.dollars()
    ));
    assert!(
        after.threads <= before.threads && after.descriptors <= before.descriptors,
        "{before:?} {after:?}"
    );
    assert!(after.kilobytes < before.kilobytes + 64 * 1_024, "{before:?} {after:?}");
    assert_eq!(lock_file_count(folder.path()), 0);
    // Every answered call is booked. A sent call is booked once, with half a dollar at most. Some calls were
    // cancelled before the simulator read their request.
    assert!(spent.total() >= charged, "{} booked, {} charged", spent.total(), charged);
    assert!(spent.total() <= NanoUsd(sent_calls * 500_000_000), "{} for {sent_calls} calls", spent.total());
}

/// A stack so large that the limit of the address space limits the number of threads.
const CHILD_STACK_BYTES: u64 = 1 << 30;

#[test]
fn a_start_without_threads_is_an_error_and_no_panic() {
    if is_child() {
        let config = "[provider.simulated]\nbase_url = 'simulator'";
        let config = pointsman::Config::parse("config.toml", config, &|_| None).unwrap();
        return match Pointsman::start_blocking(&config) {
            Ok(_) => print_figures("started"),
            Err(error @ Error::System { .. }) => print_figures(&format!("refused: {error}")),
            Err(error) => panic!("{error:?}"),
        };
    }
    let outputs: Vec<_> = (1..=16)
        .map(|threads| {
            run_in_child(
                "a_start_without_threads_is_an_error_and_no_panic",
                Some(threads * (CHILD_STACK_BYTES >> 10)),
            )
        })
        .collect();
    assert!(outputs.iter().all(|output| !output.contains("panicked")), "{outputs:#?}");
    assert!(outputs.iter().any(|output| output.contains("refused: cannot start")), "{outputs:#?}");
    assert!(outputs[15].contains("started"), "{outputs:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_waits_for_its_input_uses_one_thread_and_no_cpu_time() {
    if !is_child() {
        print_figures(&run_in_child("a_run_that_waits_for_its_input_uses_one_thread_and_no_cpu_time", None));
        return;
    }
    let count = count_from_env("POINTSMAN_IDLE_RUNS", 40);
    let simulator = simulator_with("");
    let pointsman = start_pointsman(&priced_config(&simulator));
    let before = ProcessResources::measure().threads;
    let mut runs = Vec::new();
    let mut inputs = Vec::new();
    for number in 0..count {
        let (input, items) = std::sync::mpsc::channel();
        input.send(json!({ "id": number })).unwrap();
        let pipeline = pointsman.parse_pipeline(PIPELINE).unwrap();
        let source = Source::values("items", std::iter::from_fn(move || items.recv().ok()));
        runs.push(pointsman.run(pipeline, source, discarded_output()).await.unwrap());
        inputs.push(input);
    }
    wait_until("each run has written its first line", || simulator.counts().answered >= count as u64).await;
    wait_until("no writer thread is left", || threads_named("sink") == 0).await;
    assert_eq!(threads_named("source"), count);
    let cpu_before = cpu_seconds();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let cpu_usage = (cpu_seconds() - cpu_before) / 3.0;
    print_figures(&format!(
        "{count} idle runs: {} threads more, {cpu_usage:.3} of a core",
        ProcessResources::measure().threads - before
    ));
    assert!(
        ProcessResources::measure().threads <= before + count + 4,
        "{} threads",
        ProcessResources::measure().threads
    );
    drop(inputs);
    for run in &mut runs {
        assert_eq!(run.report().await.unwrap().items.completed, 1);
    }
}

fn discarded_output() -> RunOutput {
    RunOutput::new(Sink::results(Destination::writer("memory", std::io::sink()), Format::Jsonl, &[]).unwrap())
}

/// Returns the CPU time of this process, in seconds.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    ticks / 100.0
}
