//! Disks that fill up, databases that go away, processes that stand still: what is durable stays, and goes on.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use pointsman::run::{Ended, Output};
use pointsman::runtime::Keep;
use pointsman::sink::{Format, Sink, Target};
use pointsman::source::Source;
use pointsman::store::{Sqlite, Store};
use serde_json::json;
use sqlx::{Connection, SqliteConnection};

use super::program::*;
use super::stage::{self, PATIENT, play, provider, until};

const RUN: &str = "run pipeline.toml --items items.jsonl --out o.jsonl";

/// Runs it to its end, and fails unless every item has one line and no call was made that was not needed.
fn goes_on(room: &Room, items: u64, at_least_before: u64) {
    let ended = room.run(&format!("{RUN} --report r.json"));
    ended.says(0, &["run 1 goes on"]);
    assert_eq!(room.json("r.json")["items"]["completed"], items);
    room.nothing_is_lost(usize::try_from(items).unwrap(), "o.jsonl", "none");
    let report = room.json("r.json");
    let (before, made) = (&report["items"]["settled_before"], &report["calls"]["made"]);
    assert!(before.as_u64() >= Some(at_least_before), "{before}");
    assert_eq!(made.as_u64().unwrap(), items - before.as_u64().unwrap());
}

#[test]
fn a_disk_that_fills_up_under_the_store_stops_the_run_and_resume_works() {
    let room = Room::new("[run]\nwindow = 20");
    room.write("none", "");
    room.items(2_000);
    let mut limited = Command::new("bash");
    // Files may have 1,200 blocks of 1 KB here; the output is smaller than the store. However few items share a
    // commit, more than a hundred have one by then.
    let program = env!("CARGO_BIN_EXE_pointsman");
    limited
        .env_clear()
        .args(["-c", &format!("ulimit -f 1200; exec {program} {RUN}")])
        .current_dir(room.path(""));
    let ended = finish(limited);
    ended.says(
        4,
        &["(broken off)", "error: cannot write the database pointsman.db", "`pointsman resume 1` goes on"],
    );
    let written = room.lines("o.jsonl").len() as u64;
    assert!((100..2_000).contains(&written), "{written}");
    goes_on(&room, 2_000, written);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_another_process_locks_the_database_no_more_than_a_window_waits_beside_that_in_flight() {
    let folder = tempfile::tempdir().unwrap();
    let simulator = play(toml::from_str("latency = \"20ms\"\nchunks = 1\nheaders = false").unwrap());
    let limits = format!("limits = {{ concurrency = 16 }}\n{PATIENT}");
    let pointsman = stage::start(&provider("a", &simulator, &limits));
    let store: Arc<dyn Store> = Arc::new(Sqlite::open(&folder.path().join("a.db")).await.unwrap());
    let pipeline = pointsman.parse_pipeline(ONE_STEP).unwrap();
    let steps: Vec<_> = pipeline.steps().iter().map(|step| step.name.clone()).collect();
    let out = folder.path().join("out.jsonl");
    let sink = Sink::results(Target::file(out.clone(), &[]).unwrap(), Format::Jsonl, &steps).unwrap();
    let kept = pointsman.keep(&pipeline, Keep::new(store.clone(), "locked")).await.unwrap();
    let items = (0..2_000).map(|id| json!({ "id": id, "text": "thing" }));
    let source = Source::values("items", items);
    let mut run = pointsman.run_kept(pipeline, source, Output::new(sink), kept).await.unwrap();
    let mut progress = run.progress();
    until("it is at work", || simulator.counts().requests > 200).await;

    let path = folder.path().join("a.db");
    let mut other = SqliteConnection::connect(&format!("sqlite://{}", path.display())).await.unwrap();
    sqlx::query("BEGIN IMMEDIATE").execute(&mut other).await.unwrap();
    let mut window = 0;
    loop {
        progress.changed().await.unwrap();
        let now = progress.borrow_and_update().clone();
        window = window.max(now.window);
        if now.in_flight == 0 && simulator.counts().in_flight == 0 {
            break;
        }
    }
    let asked = simulator.counts().requests;
    let durable = store.sums(run.number().unwrap()).await.unwrap().settled();
    assert!(
        asked < 2_000 && asked - durable <= 2 * window as u64,
        "{asked}, {durable}, a window of {window}"
    );

    sqlx::query("ROLLBACK").execute(&mut other).await.unwrap();
    let report = run.report().await.unwrap();
    assert_eq!((report.ended, report.items.completed), (Ended::Whole, 2_000));
    assert_eq!((simulator.counts().requests, lines(&fs::read_to_string(out).unwrap()).len()), (2_000, 2_000));
}

#[test]
fn the_limit_on_open_files_is_raised_as_far_as_allowed() {
    let room = Room::new("");
    room.items(50);
    let limited = |limit: &str| {
        let mut bash = Command::new("bash");
        let program = env!("CARGO_BIN_EXE_pointsman");
        bash.env_clear().current_dir(room.path(""));
        bash.args(["-c", &format!("{limit}; exec {program} {RUN}")]);
        finish(bash)
    };
    limited("ulimit -S -n 20").says(0, &["50 completed"]);
}

#[test]
fn a_database_that_is_removed_under_the_run_stops_it() {
    let room = Room::new("[simulator]\nlatency = \"50ms\"\n[run]\nwindow = 4");
    room.write("none", "");
    room.items(400);
    fs::create_dir(room.path("kept")).unwrap();
    let store = "--store sqlite:kept/runs.db";
    let mut running = start(room.program(&format!("{RUN} {store}")));
    running.wait_for("in flight");
    fs::rename(room.path("kept"), room.path("moved")).unwrap();
    let said = ["error: cannot write the database kept/runs.db", "it was moved or removed"];
    running
        .end()
        .says(4, &[&said[..], &["answered and could not be stored, at a known cost of $0"]].concat());
    assert!(room.lines("o.jsonl").len() < 400);

    fs::rename(room.path("moved"), room.path("kept")).unwrap();
    room.run(&format!("{RUN} {store}")).says(0, &["run 1 goes on", "400 completed"]);
    room.nothing_is_lost(400, "o.jsonl", "none");
}

#[test]
fn a_database_that_may_only_be_read_is_refused_before_anything_is_asked() {
    let room = Room::new("");
    room.items(3);
    room.run(RUN).expect(0);
    let lines = room.read("o.jsonl");
    room.items(4);
    let may = |path: &str, mode: u32| {
        fs::set_permissions(room.path(path), fs::Permissions::from_mode(mode)).unwrap()
    };
    may("pointsman.db", 0o444);
    may("", 0o755);
    may("o.jsonl", 0o666);
    let mut program = room.program(RUN);
    if Command::new("id").arg("-u").output().unwrap().stdout == b"0\n" {
        // Nothing is forbidden to root.
        program = Command::new("setpriv");
        program.env_clear().args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]);
        program.arg(env!("CARGO_BIN_EXE_pointsman")).args(RUN.split(' ')).current_dir(room.path(""));
    }
    finish(program).says(4, &["cannot open the database pointsman.db", "writable"]);
    assert_eq!(room.read("o.jsonl"), lines);
    may("pointsman.db", 0o644);
    room.run(RUN).says(0, &["run 1 goes on: 3 items settled before", "4 completed"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_stands_still_for_longer_than_every_timeout_loses_nothing() {
    let simulator = play(toml::from_str("latency = \"100ms\"").unwrap());
    let room = Room::new(&format!("{}\n[run]\nwindow = 20", provider("a", &simulator, PATIENT)));
    room.write("none", "");
    room.items(300);
    let mut running = start(room.program(&format!("{RUN} --report r.json")));
    running.wait_for("in flight");
    running.signal("STOP");
    // PATIENT waits two seconds for a word, and five in all.
    tokio::time::sleep(Duration::from_secs(10)).await;
    running.signal("CONT");
    running.end().says(0, &["300 completed"]);
    room.nothing_is_lost(300, "o.jsonl", "none");
    let report = room.json("r.json");
    assert_eq!(report["items"]["failed"], 0);
    assert!(simulator.counts().requests <= 300 + 20, "only what was out is asked again");
}

#[test]
fn after_two_sigterms_the_run_goes_on_where_it_was() {
    let room = Room::new("[simulator]\nlatency = \"200ms\"\n[run]\nwindow = 8");
    room.write("none", "");
    room.items(60);
    let mut running = start(room.program(RUN));
    running.wait_for("in flight");
    running.signal("TERM");
    running.wait_for("stopping: items in flight are finished");
    running.signal("TERM");
    running.end().says(130, &["`pointsman resume 1` goes on"]);
    let before = room.lines("o.jsonl").len() as u64;
    assert!(before < 60);
    room.run("resume").says(0, &["run 1 goes on", "60 completed"]);
    room.nothing_is_lost(60, "o.jsonl", "none");
}
