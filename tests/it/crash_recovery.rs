//! Crash recovery: the program is killed at random and at named points, and the run is resumed without a loss.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use pointsman::simulator::{Settings, Simulator};
use pointsman::store::{ItemNumber, RunNumber, Sqlite, Store, StoredItem};

use super::program::{Workspace, run_program, start_program};
use super::support::{LONG_TIMEOUTS, provider_config, start_simulator};

const RUN: &str = "run pipeline.toml --items items.jsonl --out o.jsonl";

/// Maximum items in flight.
const WINDOW: u64 = 64;

fn new_workspace(simulator: &Simulator, window: u64, steps: &[(&str, &str)]) -> Workspace {
    let workspace = Workspace::empty();
    workspace.write(
        "config.toml",
        format!("{}\n[run]\nmax_in_flight_items = {window}", provider_config("a", simulator, LONG_TIMEOUTS)),
    );
    let mut pipeline = "name = \"killed\"\n".to_owned();
    for (name, prompt) in steps {
        write!(pipeline, "[[step]]\nname = \"{name}\"\nprompt = \"{prompt}\"\n").unwrap();
    }
    workspace.write("pipeline.toml", pipeline);
    workspace
}

fn program(workspace: &Workspace, abort_point: &str) -> Command {
    let mut program = workspace.command(RUN);
    program.env("KEY_a", "secret").env("POINTSMAN_ABORT_AT", abort_point);
    program
}

/// Reads all stored items of the first run.
async fn stored_items(database: &Path) -> Vec<StoredItem> {
    let store = Sqlite::open(database).await.unwrap();
    let mut items = Vec::new();
    let mut after = ItemNumber(0);
    loop {
        let page = store.items(RunNumber(1), after, 1_000).await.unwrap();
        let Some(last) = page.last() else { break };
        after = last.head.number;
        items.extend(page);
    }
    store.close().await;
    items
}

/// Formats the items, one line each: the state, and each step with its number of calls.
fn summary(items: &[StoredItem]) -> String {
    let format_item = |item: &StoredItem| {
        let state = item.outcome.as_ref().map_or("open", |outcome| outcome.status.as_str());
        let format_step = |known: &pointsman::store::StoredStep| {
            let step = &known.record;
            format!(", {} {} in {}", step.step, step.state.as_str(), step.attempts.0.len())
        };
        format!("{} {state}{}\n", item.head.key, item.steps.iter().map(format_step).collect::<String>())
    };
    items.iter().map(format_item).collect()
}

/// Asserts that every item has one record and one line, and that each of its steps had one call.
fn assert_complete(workspace: &Workspace, items: &[StoredItem], count: usize, steps: usize) {
    assert_eq!(items.len(), count);
    for item in items {
        assert!(item.outcome.is_some(), "{}", summary(std::slice::from_ref(item)));
        let mut calls: BTreeMap<&str, usize> = BTreeMap::new();
        let records = item.steps.iter().map(|known| &known.record);
        for step in records.filter(|step| !step.attempts.0.is_empty()) {
            *calls.entry(step.step.as_str()).or_default() += step.attempts.0.len();
        }
        assert!(
            calls.len() == steps && calls.values().all(|calls| *calls == 1),
            "{}: {calls:?}",
            item.head.key
        );
    }
    let lines = workspace.output_lines("o.jsonl");
    let keys: HashSet<String> = lines.iter().map(|line| line["key"].to_string()).collect();
    assert_eq!((lines.len(), keys.len()), (count, count));
    let files = std::fs::read_dir(workspace.path("")).unwrap().map(|file| file.unwrap().file_name());
    let temporary: Vec<_> = files.filter(|name| name.to_string_lossy().ends_with(".new")).collect();
    assert!(temporary.is_empty(), "temporary outputs are left behind: {temporary:?}");
}

fn abort_at(workspace: &Workspace, point: &str) {
    let mut program = program(workspace, point);
    let status = program.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
    assert!(status.signal().is_some(), "the program passed {point} without an abort: {status}");
}

/// Processes one item after the other. The second step of an item needs the answer of the first, so what is
/// stored at each point is certain. The program aborts at `point`, which it passes for the third item or for the
/// last. Returns what was stored then, and how many calls were repeated in the end.
async fn kill_at(point: &str) -> (String, u64) {
    let simulator = start_simulator(Settings::default());
    let steps = [("one", "Say something about {{ item.text }}."), ("two", "More: {{ one }}")];
    let workspace = new_workspace(&simulator, 1, &steps);
    workspace.write_items(5);
    abort_at(&workspace, point);
    let stored = summary(&stored_items(&workspace.path("pointsman.db")).await);
    run_program(program(&workspace, "")).expect_stderr(0, &["5 completed"]);
    assert_complete(&workspace, &stored_items(&workspace.path("pointsman.db")).await, 5, 2);
    (stored, simulator.counts().requests - 10)
}

/// What is stored when two items have finished.
const TWO: &str = "i1 completed, one answered in 1, two answered in 1\ni2 completed, one answered in 1, two answered in 1\n";

/// What is stored when all items have finished.
fn all_finished() -> String {
    (1..=5).map(|item| format!("i{item} completed, one answered in 1, two answered in 1\n")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_between_joined_embeddings() {
    let simulator = start_simulator(Settings::default());
    let workspace = new_workspace(&simulator, WINDOW, &[]);
    let step = "[[step]]\nname = \"vector\"\nembed = \"{{ item.text }}\"\n";
    workspace.write("pipeline.toml", format!("name = \"killed\"\n{step}"));
    workspace.write_items(500);
    abort_at(&workspace, "item.answered:300");
    let stored = stored_items(&workspace.path("pointsman.db")).await;
    let finished = stored.iter().filter(|item| item.outcome.is_some()).count();
    assert!((1..500).contains(&finished), "{finished}");
    run_program(program(&workspace, "")).expect_stderr(0, &["500 completed"]);
    // Each item has one attempt: no stored answer was requested again.
    assert_complete(&workspace, &stored_items(&workspace.path("pointsman.db")).await, 500, 1);
    let requests = simulator.counts().requests;
    assert!(requests <= 150, "{requests} calls");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_after_an_item_was_started() {
    assert_eq!(kill_at("item.started:3").await, (TWO.into(), 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_during_a_call() {
    assert_eq!(kill_at("call.headers:5").await, (TWO.into(), 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_between_an_answer_and_its_record() {
    assert_eq!(kill_at("item.answered:5").await, (TWO.into(), 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_before_a_commit() {
    assert_eq!(kill_at("ledger.commit:5").await, (TWO.into(), 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_in_the_middle_of_a_commit() {
    assert_eq!(kill_at("store.commit:5").await, (TWO.into(), 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_after_a_commit_and_before_it_is_reported() {
    assert_eq!(kill_at("ledger.committed:5").await, (format!("{TWO}i3 open, one answered in 1\n"), 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_between_the_end_of_an_item_and_its_line() {
    // The last line, because after an earlier line the next item may have sent a request already.
    assert_eq!(kill_at("sink.line:5").await, (all_finished(), 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_the_end_before_the_report() {
    assert_eq!(kill_at("run.ends:1").await, (all_finished(), 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_while_items_in_flight_finish() {
    let simulator = start_simulator(toml::from_str("latency = \"1s\"").unwrap());
    let workspace = new_workspace(&simulator, 4, &[("one", "Say something about {{ item.text }}.")]);
    workspace.write_items(9);
    let mut draining = start_program(program(&workspace, ""));
    draining.wait_for_line("4 in flight");
    draining.signal("TERM");
    draining.wait_for_line("stopping: items in flight finish");
    draining.signal("KILL");
    assert_eq!(draining.wait().code, None);
    run_program(program(&workspace, "")).expect_stderr(0, &["9 completed"]);
    assert_complete(&workspace, &stored_items(&workspace.path("pointsman.db")).await, 9, 1);
    assert!(simulator.counts().requests <= 9 + 4, "{}", simulator.counts().requests);
}

/// Kills the program `kills` times at random and then lets it finish. The calls between two kills are so few that
/// all kills happen before the end of the input.
#[expect(clippy::print_stderr, reason = "the number of repeated calls is of interest")]
async fn kill_repeatedly(items: usize, kills: u64, seed: u64) {
    let simulator = start_simulator(Settings::default());
    let steps = [
        ("first", "Say something about {{ item.text }}."),
        ("second", "Say something else about {{ item.text }}."),
        ("last", "Sum up: {{ first }} {{ second }}"),
    ];
    let workspace = new_workspace(&simulator, WINDOW, &steps);
    workspace.write_items(items);
    let needed = 3 * items as u64;
    let mut random = fastrand::Rng::with_seed(seed);
    for _ in 0..kills {
        let kill_after = simulator.counts().requests + random.u64(0..2 * needed / kills * 9 / 10);
        let mut running = start_program(program(&workspace, ""));
        // Some are killed before their first call.
        let at_once = random.u64(0..8) == 0;
        tokio::time::sleep(Duration::from_millis(if at_once { random.u64(0..150) } else { 0 })).await;
        while !at_once
            && simulator.counts().requests < kill_after
            && running.child.try_wait().unwrap().is_none()
        {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        running.child.kill().unwrap();
        assert_eq!(running.child.wait().unwrap().code(), None, "the program ended before it was killed");
    }
    start_program(program(&workspace, "")).wait().expect_code(0);
    assert_complete(&workspace, &stored_items(&workspace.path("pointsman.db")).await, items, 3);
    let repeated = simulator.counts().requests - needed;
    eprintln!("{items} items, {kills} kills: {repeated} of {needed} calls were repeated");
    // An item has up to two requests in flight.
    assert!(repeated <= 2 * WINDOW * kills, "{repeated}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_repeatedly_at_random() {
    let items = std::env::var("POINTSMAN_KILLED_ITEMS").ok().and_then(|items| items.parse().ok());
    kill_repeatedly(items.unwrap_or(3_000), 50, 7).await;
}
