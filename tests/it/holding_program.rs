//! The program during an outage of its provider: it reports that it holds or pauses, and can be stopped at any
//! time.

use std::collections::HashSet;
use std::process::{Command, Stdio};
use std::time::Duration;

use pointsman::simulator::{Fault, FaultKind, Latency, Settings, Simulator};
use serde_json::Value;

use super::program::{RunningProgram, Workspace, keys, parse_lines, run_program, start_program};
use super::support::{
    LONG_TIMEOUTS, QUICK_BREAKER, QUICK_RETRY, provider_config, start_simulator, wait_until,
};

const RUN: &str = "run pipeline.toml --items items.jsonl --out o.jsonl";

const ITEMS: usize = 40;

/// Minimum number of answered items when an outage starts during a run.
const MIN_ANSWERED_BEFORE_OUTAGE: u64 = 12;

/// Failures that are retried after a short backoff.
const OUTAGES: [FaultKind; 3] = [FaultKind::ServerError, FaultKind::Unavailable, FaultKind::Reset];

/// A provider that answers after 10 ms, or fails every request with `outage`.
fn settings(outage: Option<FaultKind>) -> Settings {
    let latency = Latency::Fixed(Duration::from_millis(10));
    let faults = outage.map(Fault::new).into_iter().collect();
    Settings { faults, latency, track_prompts: true, ..Settings::default() }
}

/// Creates a workspace with [`ITEMS`] items for this provider. A run may hold for 200 ms.
fn new_workspace(simulator: &Simulator, guards: &str) -> Workspace {
    let provider = provider_config("a", simulator, guards);
    let workspace = Workspace::new(&format!(
        "{provider}{QUICK_RETRY}[run]\nmax_in_flight_items = 4\nmax_hold = \"200ms\"\n"
    ));
    workspace.write_items(ITEMS);
    workspace
}

fn program(workspace: &Workspace, arguments: &str) -> Command {
    let mut program = workspace.command(arguments);
    program.env("KEY_a", "secret");
    program
}

/// Starts a run and an outage of its provider during the run.
async fn start_with_outage(
    simulator: &Simulator,
    workspace: &Workspace,
    options: &str,
    outage: FaultKind,
) -> RunningProgram {
    let running = start_program(program(workspace, &format!("{RUN}{options}")));
    wait_until("some items are answered", || simulator.counts().answered >= MIN_ANSWERED_BEFORE_OUTAGE).await;
    simulator.set(settings(Some(outage)));
    running
}

/// Returns the row of the only run in the list.
fn listed_run(workspace: &Workspace) -> Value {
    let output = run_program(program(workspace, "runs --json"));
    output.expect_code(0);
    parse_lines(&output.stdout).remove(0)
}

/// Asserts that every item has one line, that none has failed, and that no request was sent twice.
fn assert_complete(workspace: &Workspace, simulator: &Simulator) {
    let lines = workspace.output_lines("o.jsonl");
    let keys: HashSet<_> = keys(&lines).into_iter().collect();
    assert_eq!((lines.len(), keys.len()), (ITEMS, ITEMS));
    let failed = lines.iter().filter(|line| line["status"] != "completed").count();
    let counts = simulator.counts();
    assert_eq!((failed, counts.distinct_prompts, counts.repeated_prompts), (0, Some(ITEMS as u64), Some(0)));
}

#[test]
fn a_holding_run_ends_when_the_reader_of_its_output_is_gone() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _entered = runtime.enter();
    // Adjacent items that always fail. Nothing shows that the items cause it.
    let failing =
        |item| Fault { contains: Some(format!("thing {item}")), ..Fault::new(FaultKind::ServerError) };
    let simulator = start_simulator(Settings { faults: [2, 3, 4].map(failing).into(), ..settings(None) });
    let workspace = new_workspace(&simulator, LONG_TIMEOUTS);
    let mut program = program(&workspace, "run pipeline.toml --items items.jsonl --store none");
    let mut running = start_program({
        program.stdout(Stdio::piped());
        program
    });
    drop(running.child.stdout.take());
    // The other items are answered and cannot be written. These are retried until `max_hold` has passed.
    assert_eq!(running.wait().code, Some(141));
}

#[test]
fn a_hold_that_starts_with_a_failed_request_is_logged() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _entered = runtime.enter();
    // The breaker never opens.
    let simulator = start_simulator(settings(Some(FaultKind::ServerError)));
    let ended = run_program(program(&new_workspace(&simulator, LONG_TIMEOUTS), RUN));
    ended.expect_stderr(5, &["WARN the run holds", "paused: server_error"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_wait_a_run_holds_beyond_max_hold_and_completes_when_the_provider_recovers() {
    for outage in OUTAGES {
        let simulator = start_simulator(settings(None));
        let workspace = new_workspace(&simulator, QUICK_BREAKER);
        let mut running = start_with_outage(&simulator, &workspace, " --wait", outage).await;
        running.wait_for_line("the run holds");
        // One probe every 200 ms.
        let before = simulator.counts().requests;
        wait_until("the provider is probed", || simulator.counts().requests >= before + 4).await;
        assert!(running.child.try_wait().unwrap().is_none(), "{outage:?}: the run has paused");
        simulator.set(settings(None));
        running.wait().expect_stderr(0, &["40 completed"]);
        assert_complete(&workspace, &simulator);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_resumed_in_an_outage_pauses_again_or_holds_until_the_provider_recovers() {
    for outage in OUTAGES {
        let simulator = start_simulator(settings(None));
        let workspace = new_workspace(&simulator, QUICK_BREAKER);
        let running = start_with_outage(&simulator, &workspace, "", outage).await;
        running.wait().expect_stderr(5, &["paused: ", "`pointsman resume 1` resumes it"]);
        let answered = simulator.counts().answered;
        for _ in 0..2 {
            let row = listed_run(&workspace);
            let counted = ["completed", "failed"].map(|what| row[what].as_u64());
            assert_eq!((&row["state"], counted), (&"paused".into(), [Some(answered), Some(0)]), "{outage:?}");
            run_program(program(&workspace, "resume 1")).expect_stderr(5, &["the run holds", "paused: "]);
        }
        let mut resumed = start_program(program(&workspace, "resume 1 --wait"));
        resumed.wait_for_line("the run holds");
        simulator.set(settings(None));
        resumed.wait().expect_code(0);
        assert_complete(&workspace, &simulator);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_killed_while_it_holds_repeats_no_answered_request() {
    for outage in OUTAGES {
        let simulator = start_simulator(settings(None));
        let workspace = new_workspace(&simulator, QUICK_BREAKER);
        let mut running = start_with_outage(&simulator, &workspace, " --wait", outage).await;
        running.wait_for_line("the run holds");
        wait_until("every answer is stored", || {
            listed_run(&workspace)["completed"].as_u64() == Some(simulator.counts().answered)
        })
        .await;
        running.signal("KILL");
        assert_eq!(running.wait().code, None);
        simulator.set(settings(None));
        run_program(program(&workspace, "resume 1")).expect_code(0);
        assert_complete(&workspace, &simulator);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_is_interrupted_while_it_holds_stops_and_can_be_resumed() {
    for outage in OUTAGES {
        let simulator = start_simulator(settings(None));
        let workspace = new_workspace(&simulator, QUICK_BREAKER);
        let mut running = start_with_outage(&simulator, &workspace, " --wait", outage).await;
        running.wait_for_line("the run holds");
        running.signal("INT");
        running.wait_for_line("stopping: items in flight");
        let before = simulator.counts().requests;
        running.wait().expect_stderr(130, &["(interrupted)", "`pointsman resume 1` resumes it"]);
        // The probes that are sent in half a second, one every 200 ms.
        assert!(simulator.counts().requests <= before + 4, "{outage:?}: the run sent more requests");
        assert_eq!(listed_run(&workspace)["failed"], 0);
        simulator.set(settings(None));
        run_program(program(&workspace, "resume 1")).expect_code(0);
        assert_complete(&workspace, &simulator);
    }
}
