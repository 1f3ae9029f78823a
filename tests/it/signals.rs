//! Ctrl-C, SIGTERM and SIGHUP: the first signal finishes items in flight, the second stops the run at once.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;

use tokio::time::{Duration, Instant};

use super::program::{COMMAND_TIMEOUT, Workspace, keys, start_program};

fn slow_workspace(latency: &str) -> Workspace {
    let workspace =
        Workspace::new(&format!("[run]\nmax_in_flight_items = 4\n[simulator]\nlatency = \"{latency}\""));
    workspace.write_items(500);
    workspace
}

fn assert_items_in_flight_finish(signal: &str) {
    let workspace = slow_workspace("600ms");
    let mut running = start_program(
        workspace.command("run pipeline.toml --items items.jsonl --out o.jsonl --report report.json"),
    );
    running.wait_for_line("4 in flight");
    running.signal(signal);
    running.wait_for_line("press Ctrl-C again to stop now");
    let output = running.wait();
    output.expect_stderr(
        130,
        &["(interrupted)", "4 completed", "99% of the input was not started, about 496 items"],
    );
    let report = workspace.read_json("report.json");
    let share = report["unprocessed"]["fraction"].as_f64().unwrap();
    assert!((share - 496.0 / 500.0).abs() < 0.005, "{report}");
    assert_eq!(report["outcome"], "interrupted");
    assert_eq!((&report["items"]["completed"], &report["items"]["unfinished"]), (&4.into(), &0.into()));
    let mut keys = keys(&workspace.output_lines("o.jsonl"));
    keys.sort();
    assert_eq!(keys, ["i1", "i2", "i3", "i4"]);
}

#[test]
fn ctrl_c_finishes_items_in_flight_and_starts_no_more() {
    assert_items_in_flight_finish("INT");
}

#[test]
fn sigterm_stops_a_run_like_ctrl_c() {
    assert_items_in_flight_finish("TERM");
}

#[test]
fn sighup_stops_a_run_like_ctrl_c() {
    assert_items_in_flight_finish("HUP");
}

#[test]
fn a_signal_during_the_start_ends_the_program_and_its_key_command() {
    for signal in ["TERM", "INT", "KILL"] {
        let workspace = Workspace::new(
            "[provider.a]\nbase_url = \"http://127.0.0.1:9\"\nmodels.m = {}\n\
             keys = [\"command:exec 3>pipe; echo started >&3; sleep 600\"]\n",
        );
        workspace.write_items(1);
        let pipe = workspace.path("pipe");
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            let mut pipe = BufReader::new(File::open(pipe).unwrap());
            let mut line = String::new();
            pipe.read_line(&mut line).unwrap();
            sender.send(line.clone()).unwrap();
            // Ends when no process has the pipe open.
            pipe.read_to_string(&mut line).unwrap();
            sender.send(line).unwrap();
        });
        let running = start_program(workspace.command("run pipeline.toml --items items.jsonl --out o.jsonl"));
        assert_eq!(receiver.recv_timeout(COMMAND_TIMEOUT).unwrap(), "started\n");
        running.signal(signal);
        assert_eq!(running.wait().code, None, "{signal}");
        assert_eq!(
            receiver.recv_timeout(COMMAND_TIMEOUT).unwrap(),
            "started\n",
            "{signal}: the key command is still running"
        );
    }
}

#[test]
fn a_second_sighup_has_no_effect() {
    let workspace = slow_workspace("600ms");
    let mut running = start_program(workspace.command("run pipeline.toml --items items.jsonl --out o.jsonl"));
    running.wait_for_line("4 in flight");
    running.signal("HUP");
    running.wait_for_line("press Ctrl-C again to stop now");
    running.signal("HUP");
    running.wait().expect_stderr(130, &["(interrupted)", "4 completed"]);
    assert_eq!(workspace.output_lines("o.jsonl").len(), 4);
}

#[test]
fn after_a_second_ctrl_c_the_report_counts_the_calls_that_progress_counted() {
    let workspace = Workspace::new(
        "[run]\nmax_in_flight_items = 4\n[retry]\ninitial_backoff = \"24h\"\nmax_backoff = \"24h\"\n[defaults]\ndeadline = \"100h\"\n\
         [simulator]\nfaults = [{ kind = \"server_error\" }]",
    );
    workspace.write_items(20);
    let mut running = start_program(
        workspace.command("run pipeline.toml --items items.jsonl --out o.jsonl --json --report report.json"),
    );
    running.wait_for_line("\"failed\":4,");
    running.signal("INT");
    running.wait_for_line("press Ctrl-C again to stop now");
    running.signal("INT");
    running.wait().expect_code(130);
    let report = workspace.read_json("report.json");
    assert_eq!((&report["calls"]["sent"], &report["calls"]["failed"]), (&4.into(), &4.into()), "{report}");
    assert_eq!(report["items"]["unfinished"], 4);
}

#[test]
fn a_second_ctrl_c_stops_within_a_second_and_counts_cancelled_items() {
    let workspace = slow_workspace("1h");
    let mut running = start_program(
        workspace.command("run pipeline.toml --items items.jsonl --out o.jsonl --report report.json"),
    );
    running.wait_for_line("4 in flight");
    running.signal("INT");
    running.wait_for_line("press Ctrl-C again to stop now");
    let second = Instant::now();
    running.signal("INT");
    let output = running.wait();
    assert!(second.elapsed() < Duration::from_secs(1), "{:?}", second.elapsed());
    output.expect_stderr(
        130,
        &["(interrupted)", "4 unfinished", "4 items cancelled in progress, without a line"],
    );
    assert!(!output.stderr.contains("WARN"), "{}", output.stderr);
    assert_eq!(workspace.read_json("report.json")["items"]["unfinished"], 4);
    assert_eq!(workspace.read("o.jsonl"), "");
}

#[test]
fn ctrl_c_ends_the_wait_for_an_idle_stdin() {
    let workspace = Workspace::new("");
    let mut program = workspace.command("run pipeline.toml --items - --out o.jsonl");
    program.stdin(Stdio::piped());
    let mut running = start_program(program);
    let stdin = running.child.stdin.take();
    running.wait_for_line("0 in flight");
    running.signal("INT");
    running.wait().expect_stderr(
        130,
        &["(interrupted)", "0 completed", "an unknown part of the input was not started"],
    );
    drop(stdin);
}

#[test]
fn ctrl_c_after_all_items_have_started_does_not_interrupt_the_run() {
    let workspace = Workspace::new("[simulator]\nlatency = \"600ms\"");
    workspace.write_items(3);
    let mut running = start_program(workspace.command("run pipeline.toml --items items.jsonl --out o.jsonl"));
    running.wait_for_line("3 in flight");
    running.signal("INT");
    let output = running.wait();
    output.expect_stderr(0, &["3 completed (100.0% success)"]);
    assert!(
        !output.stderr.contains("interrupted") && !output.stderr.contains("not started"),
        "{}",
        output.stderr
    );
}

#[test]
fn a_second_ctrl_c_exits_although_the_output_is_not_read() {
    let workspace = Workspace::new("");
    workspace.write_items(2_000);
    let mut program = workspace.command("run pipeline.toml --items items.jsonl --json");
    program.stdout(Stdio::piped());
    let mut running = start_program(program);
    // The pipe is full, and the waiting lines fill the window.
    running.wait_for_line("\"in_flight\":0,");
    running.signal("INT");
    running.wait_for_line("press Ctrl-C again to stop now");
    running.signal("INT");
    running.wait_for_line("exit although the output is not read");
    // The program waits for the reader a moment longer, and counts the unwritten lines.
    running.wait().expect_stderr(130, &["\"outcome\":\"interrupted\"", "\"unwritten\":"]);
}

#[test]
fn sigterm_does_not_wait_for_a_step_that_waits_for_a_rate_limit() {
    let workspace =
        Workspace::new("[run]\nmax_in_flight_items = 4\n[simulator]\nlimits.requests_per_minute = 1");
    workspace.write_items(500);
    let mut running = start_program(
        workspace.command("run pipeline.toml --items items.jsonl --out o.jsonl --report report.json"),
    );
    running.wait_for_line("4 in flight");
    running.signal("TERM");
    running.wait_for_line("press Ctrl-C again to stop now");
    let stopped = Instant::now();
    running.wait().expect_stderr(130, &["(interrupted)"]);
    // The limit admits one call per minute.
    assert!(stopped.elapsed() < Duration::from_secs(20), "{:?}", stopped.elapsed());
    let report = workspace.read_json("report.json");
    assert_eq!(report["items"]["failed"], 0, "{report}");
    assert!(report["items"]["unfinished"].as_u64().unwrap() >= 2, "{report}");
}
