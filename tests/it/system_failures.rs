//! Full disks, removed or locked databases, suspended processes: stored answers are kept, and the run
//! can be resumed.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use pointsman::run::{RunOutcome, RunOutput};
use pointsman::runtime::ResumeOptions;
use pointsman::sink::{Destination, Format, Sink};
use pointsman::source::Source;
use pointsman::store::{Sqlite, Store};
use serde_json::json;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{Connection, SqliteConnection};

use super::program::*;
use super::support::{self, LONG_TIMEOUTS, provider_config, start_simulator, wait_until};

const RUN: &str = "run pipeline.toml --items items.jsonl --out o.jsonl";

/// Resumes the run to its end. Asserts that every item has one line and that no unnecessary call was sent.
fn resume_to_end(workspace: &Workspace, items: u64, min_finished_before: u64) {
    let output = workspace.run(&format!("{RUN} --report r.json"));
    output.expect_stderr(0, &["resuming run 1"]);
    assert_eq!(workspace.read_json("r.json")["items"]["completed"], items);
    workspace.assert_nothing_is_lost(usize::try_from(items).unwrap(), "o.jsonl", "none");
    let report = workspace.read_json("r.json");
    let before = &report["items"]["finished_before"];
    let sent = &report["calls"]["sent"];
    assert!(before.as_u64() >= Some(min_finished_before), "{before}");
    assert_eq!(sent.as_u64().unwrap(), items - before.as_u64().unwrap());
}

#[test]
fn a_full_disk_stops_the_run_and_resume_works() {
    let workspace = Workspace::new("[run]\nmax_in_flight_items = 20");
    workspace.write("none", "");
    workspace.write_items(2_000);
    let mut limited = Command::new("bash");
    // A file may have 1,200 blocks of 1 KB. The output is smaller than the store. More than a hundred items are
    // committed by then, even if few items share a commit.
    let program = env!("CARGO_BIN_EXE_pointsman");
    limited
        .env_clear()
        .args(["-c", &format!("ulimit -f 1200; exec {program} {RUN}")])
        .current_dir(workspace.path(""));
    let output = run_program(limited);
    output.expect_stderr(
        4,
        &["(I/O error)", "error: cannot write the database pointsman.db", "`pointsman resume 1` resumes it"],
    );
    let written = workspace.output_lines("o.jsonl").len() as u64;
    assert!((100..2_000).contains(&written), "{written}");
    resume_to_end(&workspace, 2_000, written);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_another_process_locks_the_database_at_most_two_windows_of_answers_are_uncommitted() {
    let folder = tempfile::tempdir().unwrap();
    let simulator =
        start_simulator(toml::from_str("latency = \"20ms\"\nchunks = 1\nheaders = false").unwrap());
    let limits = format!("limits = {{ concurrency = 16 }}\n{LONG_TIMEOUTS}");
    let pointsman = support::start_pointsman(&provider_config("a", &simulator, &limits));
    let store: Arc<dyn Store> = Arc::new(Sqlite::open(&folder.path().join("a.db")).await.unwrap());
    let pipeline = pointsman.parse_pipeline(ONE_STEP).unwrap();
    let steps: Vec<_> = pipeline.steps().iter().map(|step| step.name.clone()).collect();
    let out = folder.path().join("out.jsonl");
    let sink = Sink::results(Destination::file(out.clone(), &[]).unwrap(), Format::Jsonl, &steps).unwrap();
    let prepared_run =
        pointsman.prepare_run(&pipeline, ResumeOptions::new(store.clone(), "locked")).await.unwrap();
    // Half of the items come after the lock, so that the run cannot end before it, however late it is taken.
    let (locked_tx, locked_rx) = mpsc::channel();
    let items = (0..2_000).map(move |id| {
        if id == 1_000 {
            locked_rx.recv().unwrap();
        }
        json!({ "id": id, "text": "thing" })
    });
    let source = Source::values("items", items);
    let mut run = pointsman.run_stored(pipeline, source, RunOutput::new(sink), prepared_run).await.unwrap();
    let mut progress = run.watch_progress();
    let path = folder.path().join("a.db");
    let options = SqliteConnectOptions::new().filename(&path).busy_timeout(Duration::ZERO);
    let mut other = SqliteConnection::connect_with(&options).await.unwrap();
    wait_until("the run is active", || simulator.counts().requests > 200).await;

    // SQLite's own waiting sleeps between its attempts, and may miss every gap between two commits of the run.
    while sqlx::query("BEGIN IMMEDIATE").execute(&mut other).await.is_err() {}
    locked_tx.send(()).unwrap();
    let mut window = 0;
    loop {
        progress.changed().await.unwrap();
        let now = progress.borrow_and_update().clone();
        window = window.max(now.max_in_flight);
        if now.in_flight == 0 && simulator.counts().in_flight == 0 {
            break;
        }
    }
    let sent = simulator.counts().requests;
    let durable = store.totals(run.id().unwrap()).await.unwrap().finished();
    assert!(
        sent < 2_000 && sent - durable <= 2 * window as u64,
        "{sent} sent, {durable} stored, a window of {window}"
    );

    sqlx::query("ROLLBACK").execute(&mut other).await.unwrap();
    let report = run.report().await.unwrap();
    assert_eq!((report.outcome, report.items.completed), (RunOutcome::Completed, 2_000));
    assert_eq!(
        (simulator.counts().requests, parse_lines(&fs::read_to_string(out).unwrap()).len()),
        (2_000, 2_000)
    );
}

#[test]
fn the_limit_on_open_files_is_raised_as_far_as_allowed() {
    let workspace = Workspace::new("");
    workspace.write_items(50);
    let limited = |limit: &str| {
        let mut bash = Command::new("bash");
        let program = env!("CARGO_BIN_EXE_pointsman");
        bash.env_clear().current_dir(workspace.path(""));
        bash.args(["-c", &format!("{limit}; exec {program} {RUN}")]);
        run_program(bash)
    };
    limited("ulimit -S -n 20").expect_stderr(0, &["50 completed"]);
}

#[test]
fn a_database_removed_during_a_run_stops_the_run() {
    let workspace = Workspace::new("[simulator]\nlatency = \"50ms\"\n[run]\nmax_in_flight_items = 4");
    workspace.write("none", "");
    workspace.write_items(400);
    fs::create_dir(workspace.path("store")).unwrap();
    let store = "--store sqlite:store/runs.db";
    let mut running = start_program(workspace.command(&format!("{RUN} {store}")));
    running.wait_for_line("in flight");
    fs::rename(workspace.path("store"), workspace.path("moved")).unwrap();
    let expected = ["error: cannot write the database store/runs.db", "it was moved or removed"];
    running.wait().expect_stderr(
        4,
        &[&expected[..], &["answered and could not be stored, at a known cost of $0"]].concat(),
    );
    assert!(workspace.output_lines("o.jsonl").len() < 400);

    fs::rename(workspace.path("moved"), workspace.path("store")).unwrap();
    workspace.run(&format!("{RUN} {store}")).expect_stderr(0, &["resuming run 1", "400 completed"]);
    workspace.assert_nothing_is_lost(400, "o.jsonl", "none");
}

#[test]
fn a_read_only_database_is_refused_before_any_request() {
    let workspace = Workspace::new("");
    workspace.write_items(3);
    workspace.run(RUN).expect_code(0);
    let lines = workspace.read("o.jsonl");
    workspace.write_items(4);
    let set_mode = |path: &str, mode: u32| {
        fs::set_permissions(workspace.path(path), fs::Permissions::from_mode(mode)).unwrap()
    };
    set_mode("pointsman.db", 0o444);
    set_mode("", 0o755);
    set_mode("o.jsonl", 0o666);
    let mut program = workspace.command(RUN);
    if Command::new("id").arg("-u").output().unwrap().stdout == b"0\n" {
        // Root may write any file.
        program = Command::new("setpriv");
        program.env_clear().args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]);
        program.arg(env!("CARGO_BIN_EXE_pointsman")).args(RUN.split(' ')).current_dir(workspace.path(""));
    }
    run_program(program).expect_stderr(4, &["cannot open the database pointsman.db", "writable"]);
    assert_eq!(workspace.read("o.jsonl"), lines);
    set_mode("pointsman.db", 0o644);
    workspace.run(RUN).expect_stderr(0, &["resuming run 1: 3 items finished before", "4 completed"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_suspended_for_longer_than_every_timeout_loses_nothing() {
    let simulator = start_simulator(toml::from_str("latency = \"100ms\"").unwrap());
    let workspace = Workspace::new(&format!(
        "{}\n[run]\nmax_in_flight_items = 20",
        provider_config("a", &simulator, LONG_TIMEOUTS)
    ));
    workspace.write("none", "");
    workspace.write_items(300);
    let mut running = start_program(workspace.command(&format!("{RUN} --report r.json")));
    running.wait_for_line("in flight");
    running.signal("STOP");
    // Longer than the timeouts of `LONG_TIMEOUTS`: two seconds without data, five in total.
    tokio::time::sleep(Duration::from_secs(10)).await;
    running.signal("CONT");
    running.wait().expect_stderr(0, &["300 completed"]);
    workspace.assert_nothing_is_lost(300, "o.jsonl", "none");
    let report = workspace.read_json("r.json");
    assert_eq!(report["items"]["failed"], 0);
    assert!(simulator.counts().requests <= 300 + 20, "only requests in flight are sent again");
}

#[test]
fn after_two_sigterms_the_run_can_be_resumed() {
    let workspace = Workspace::new("[simulator]\nlatency = \"200ms\"\n[run]\nmax_in_flight_items = 8");
    workspace.write("none", "");
    workspace.write_items(60);
    let mut running = start_program(workspace.command(RUN));
    running.wait_for_line("in flight");
    running.signal("TERM");
    running.wait_for_line("stopping: items in flight finish");
    running.signal("TERM");
    running.wait().expect_stderr(130, &["`pointsman resume 1` resumes it"]);
    let before = workspace.output_lines("o.jsonl").len() as u64;
    assert!(before < 60);
    workspace.run("resume").expect_stderr(0, &["resuming run 1", "60 completed"]);
    workspace.assert_nothing_is_lost(60, "o.jsonl", "none");
}
