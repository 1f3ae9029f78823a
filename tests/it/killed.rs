//! The program is killed, at random and at every point that matters, and goes on as if nothing had happened.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use pointsman::simulator::{Settings, Simulator};
use pointsman::store::{ItemNumber, KnownItem, RunNumber, Sqlite, Store};

use super::program::{Room, finish, start};
use super::stage::{PATIENT, play, provider};

const RUN: &str = "run pipeline.toml --items items.jsonl --out o.jsonl";

/// Items in flight at once.
const WINDOW: u64 = 64;

fn room(simulator: &Simulator, window: u64, steps: &[(&str, &str)]) -> Room {
    let room = Room::empty();
    room.write("config.toml", format!("{}\n[run]\nwindow = {window}", provider("a", simulator, PATIENT)));
    let mut pipeline = "name = \"killed\"\n".to_owned();
    for (name, prompt) in steps {
        write!(pipeline, "[[step]]\nname = \"{name}\"\nprompt = \"{prompt}\"\n").unwrap();
    }
    room.write("pipeline.toml", pipeline);
    room
}

fn program(room: &Room, dies_at: &str) -> Command {
    let mut program = room.program(RUN);
    program.env("KEY_a", "secret").env("POINTSMAN_DIES_AT", dies_at);
    program
}

/// Reads everything that is kept of the first run.
async fn kept(database: &Path) -> Vec<KnownItem> {
    let store = Sqlite::open(database).await.unwrap();
    let (mut items, mut after) = (Vec::new(), ItemNumber(0));
    loop {
        let page = store.items(RunNumber(1), after, 1_000).await.unwrap();
        let Some(last) = page.last() else { break };
        after = last.head.number;
        items.extend(page);
    }
    store.close().await;
    items
}

/// Prints what is kept, a line for each item: its state, and each of its steps with its calls.
fn as_text(items: &[KnownItem]) -> String {
    let line = |item: &KnownItem| {
        let state = item.settled.as_ref().map_or("open", |settled| settled.status.as_str());
        let step = |known: &pointsman::store::KnownStep| {
            let step = &known.record;
            format!(", {} {} in {}", step.step, step.state.as_str(), step.trail.0.len())
        };
        format!("{} {state}{}\n", item.head.key, item.steps.iter().map(step).collect::<String>())
    };
    items.iter().map(line).collect()
}

/// Fails unless every item has one record, each of its steps was paid for once, and each item has one line.
fn is_whole(room: &Room, items: &[KnownItem], count: usize, steps: usize) {
    assert_eq!(items.len(), count);
    for item in items {
        assert!(item.settled.is_some(), "{}", as_text(std::slice::from_ref(item)));
        let mut calls: BTreeMap<&str, usize> = BTreeMap::new();
        let records = item.steps.iter().map(|known| &known.record);
        for step in records.filter(|step| !step.trail.0.is_empty()) {
            *calls.entry(step.step.as_str()).or_default() += step.trail.0.len();
        }
        assert!(
            calls.len() == steps && calls.values().all(|calls| *calls == 1),
            "{}: {calls:?}",
            item.head.key
        );
    }
    let lines = room.lines("o.jsonl");
    let keys: HashSet<String> = lines.iter().map(|line| line["key"].to_string()).collect();
    assert_eq!((lines.len(), keys.len()), (count, count));
    let files = std::fs::read_dir(room.path("")).unwrap().map(|file| file.unwrap().file_name());
    let left: Vec<_> = files.filter(|name| name.to_string_lossy().ends_with(".new")).collect();
    assert!(left.is_empty(), "outputs that were begun are left behind: {left:?}");
}

fn dies(room: &Room, point: &str) {
    let mut program = program(room, point);
    let status = program.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
    assert!(status.signal().is_some(), "it passed {point} and lived: {status}");
}

/// One item after the other, each with two questions of which the second needs the first's answer: so it is
/// certain what has been kept at each point. Dies at `point`, whose passage belongs to the third item, or to the last; returns
/// what was kept then, and how many calls were made twice in the end.
async fn killed_at(point: &str) -> (String, u64) {
    let simulator = play(Settings::default());
    let steps = [("one", "Say something about {{ item.text }}."), ("two", "More: {{ one }}")];
    let room = room(&simulator, 1, &steps);
    room.items(5);
    dies(&room, point);
    let kept_then = as_text(&kept(&room.path("pointsman.db")).await);
    finish(program(&room, "")).says(0, &["5 completed"]);
    is_whole(&room, &kept(&room.path("pointsman.db")).await, 5, 2);
    (kept_then, simulator.counts().requests - 10)
}

const TWO: &str = "i1 completed, one answered in 1, two answered in 1\ni2 completed, one answered in 1, two answered in 1\n";

/// What is kept when every item has settled.
fn all() -> String {
    (1..=5).map(|item| format!("i{item} completed, one answered in 1, two answered in 1\n")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_after_an_item_was_begun() {
    assert_eq!(killed_at("item.started:3").await, (TWO.into(), 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_during_a_call() {
    assert_eq!(killed_at("call.headers:5").await, (TWO.into(), 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_between_an_answer_and_its_record() {
    assert_eq!(killed_at("item.answered:5").await, (TWO.into(), 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_before_a_commit() {
    assert_eq!(killed_at("ledger.commit:5").await, (TWO.into(), 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_in_the_middle_of_a_commit() {
    assert_eq!(killed_at("store.commit:5").await, (TWO.into(), 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_after_a_record_and_before_anybody_hears_of_it() {
    assert_eq!(killed_at("ledger.committed:5").await, (format!("{TWO}i3 open, one answered in 1\n"), 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_between_a_settlement_and_its_line() {
    // The last line: while the thread that writes comes to another, the next item may have begun to ask.
    assert_eq!(killed_at("sink.line:5").await, (all(), 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_the_end_before_the_report() {
    assert_eq!(killed_at("run.ends:1").await, (all(), 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_while_it_drains() {
    let simulator = play(toml::from_str("latency = \"1s\"").unwrap());
    let room = room(&simulator, 4, &[("one", "Say something about {{ item.text }}.")]);
    room.items(9);
    let mut draining = start(program(&room, ""));
    draining.wait_for("4 in flight");
    draining.signal("TERM");
    draining.wait_for("stopping: items in flight are finished");
    draining.signal("KILL");
    assert_eq!(draining.end().code, None);
    finish(program(&room, "")).says(0, &["9 completed"]);
    is_whole(&room, &kept(&room.path("pointsman.db")).await, 9, 1);
    assert!(simulator.counts().requests <= 9 + 4, "{}", simulator.counts().requests);
}

/// Kills the program `kills` times at random, each time after about as many calls as make them end before the
/// input does, and then lets it finish.
#[expect(clippy::print_stderr, reason = "how many calls are made twice is a figure worth seeing")]
async fn killed_again_and_again(items: usize, kills: u64, seed: u64) {
    let simulator = play(Settings::default());
    let steps = [
        ("first", "Say something about {{ item.text }}."),
        ("beside", "Say something else about {{ item.text }}."),
        ("last", "Sum up: {{ first }} {{ beside }}"),
    ];
    let room = room(&simulator, WINDOW, &steps);
    room.items(items);
    let needed = 3 * items as u64;
    let mut random = fastrand::Rng::with_seed(seed);
    for _ in 0..kills {
        let until = simulator.counts().requests + random.u64(0..2 * needed / kills * 9 / 10);
        let mut running = start(program(&room, ""));
        // Some die before their first call, at whatever they do then.
        let at_once = random.u64(0..8) == 0;
        tokio::time::sleep(Duration::from_millis(if at_once { random.u64(0..150) } else { 0 })).await;
        while !at_once && simulator.counts().requests < until && running.child.try_wait().unwrap().is_none() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        running.child.kill().unwrap();
        assert_eq!(running.child.wait().unwrap().code(), None, "it has ended before it was killed");
    }
    start(program(&room, "")).end().expect(0);
    is_whole(&room, &kept(&room.path("pointsman.db")).await, items, 3);
    let repeated = simulator.counts().requests - needed;
    eprintln!("{items} items, {kills} kills: {repeated} of {needed} calls were made twice");
    // Two questions of each item in flight may be out at once.
    assert!(repeated <= 2 * WINDOW * kills, "{repeated}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_random_again_and_again() {
    let items = std::env::var("POINTSMAN_KILLED_ITEMS").ok().and_then(|items| items.parse().ok());
    killed_again_and_again(items.unwrap_or(3_000), 50, 7).await;
}
