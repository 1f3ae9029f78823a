//! Ctrl-C, SIGTERM and SIGHUP: once to finish what is in flight, twice to stop now.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;

use tokio::time::{Duration, Instant};

use super::program::{LIMIT, Room, keys, start};

fn slow(latency: &str) -> Room {
    let room = Room::new(&format!("[run]\nwindow = 4\n[simulator]\nlatency = \"{latency}\""));
    room.items(500);
    room
}

fn finishes_what_is_in_flight(signal: &str) {
    let room = slow("600ms");
    let mut running =
        start(room.program("run pipeline.toml --items items.jsonl --out o.jsonl --report report.json"));
    running.wait_for("4 in flight");
    running.signal(signal);
    running.wait_for("press Ctrl-C again to stop now");
    let ended = running.end();
    ended.says(130, &["(interrupted)", "4 completed", "99% of the input was not begun, about 5"]);
    let report = room.json("report.json");
    let share = report["not_begun"]["share"].as_f64().unwrap();
    assert!((share - 496.0 / 500.0).abs() < 0.005, "{report}");
    assert_eq!(report["ended"], "interrupted");
    assert_eq!((&report["items"]["completed"], &report["items"]["unfinished"]), (&4.into(), &0.into()));
    let mut keys = keys(&room.lines("o.jsonl"));
    keys.sort();
    assert_eq!(keys, ["i1", "i2", "i3", "i4"]);
}

#[test]
fn ctrl_c_finishes_what_is_in_flight_and_starts_nothing_more() {
    finishes_what_is_in_flight("INT");
}

#[test]
fn sigterm_does_what_ctrl_c_does() {
    finishes_what_is_in_flight("TERM");
}

#[test]
fn sighup_does_what_ctrl_c_does() {
    finishes_what_is_in_flight("HUP");
}

#[test]
fn a_key_command_ends_with_the_program_that_a_signal_ends_during_its_start() {
    for signal in ["TERM", "INT", "KILL"] {
        let room = Room::new(
            "[provider.a]\nbase_url = \"http://127.0.0.1:9\"\nmodels.m = {}\n\
             keys = [\"command:exec 3>held; echo begun >&3; sleep 600\"]\n",
        );
        room.items(1);
        let held = room.path("held");
        assert!(Command::new("mkfifo").arg(&held).status().unwrap().success());
        let (to, from) = mpsc::channel();
        thread::spawn(move || {
            let mut held = BufReader::new(File::open(held).unwrap());
            let mut line = String::new();
            held.read_line(&mut line).unwrap();
            to.send(line.clone()).unwrap();
            // Ends when no process has the pipe open any more.
            held.read_to_string(&mut line).unwrap();
            to.send(line).unwrap();
        });
        let running = start(room.program("run pipeline.toml --items items.jsonl --out o.jsonl"));
        assert_eq!(from.recv_timeout(LIMIT).unwrap(), "begun\n");
        running.signal(signal);
        assert_eq!(running.end().code, None, "{signal}");
        assert_eq!(from.recv_timeout(LIMIT).unwrap(), "begun\n", "{signal}: the command is still there");
    }
}

#[test]
fn a_second_sighup_stops_no_sooner_than_the_first() {
    let room = slow("600ms");
    let mut running = start(room.program("run pipeline.toml --items items.jsonl --out o.jsonl"));
    running.wait_for("4 in flight");
    running.signal("HUP");
    running.wait_for("press Ctrl-C again to stop now");
    running.signal("HUP");
    running.end().says(130, &["(interrupted)", "4 completed"]);
    assert_eq!(room.lines("o.jsonl").len(), 4);
}

#[test]
fn after_a_second_ctrl_c_the_report_counts_the_calls_that_progress_counted() {
    let room = Room::new(
        "[run]\nwindow = 4\n[retry]\nbase = \"24h\"\nmax = \"24h\"\n[defaults]\ndeadline = \"100h\"\n\
         [simulator]\nfaults = [{ kind = \"server_error\" }]",
    );
    room.items(20);
    let mut running = start(
        room.program("run pipeline.toml --items items.jsonl --out o.jsonl --json --report report.json"),
    );
    running.wait_for("\"failed\":4,");
    running.signal("INT");
    running.wait_for("press Ctrl-C again to stop now");
    running.signal("INT");
    running.end().expect(130);
    let report = room.json("report.json");
    assert_eq!((&report["calls"]["made"], &report["calls"]["failed"]), (&4.into(), &4.into()), "{report}");
    assert_eq!(report["items"]["unfinished"], 4);
}

#[test]
fn a_second_ctrl_c_stops_within_a_second_and_counts_what_was_given_up() {
    let room = slow("1h");
    let mut running =
        start(room.program("run pipeline.toml --items items.jsonl --out o.jsonl --report report.json"));
    running.wait_for("4 in flight");
    running.signal("INT");
    running.wait_for("press Ctrl-C again to stop now");
    let second = Instant::now();
    running.signal("INT");
    let ended = running.end();
    assert!(second.elapsed() < Duration::from_secs(1), "{:?}", second.elapsed());
    ended.says(130, &["(interrupted)", "4 unfinished", "4 items given up half-way, without a line"]);
    assert!(!ended.err.contains("WARN"), "{}", ended.err);
    assert_eq!(room.json("report.json")["items"]["unfinished"], 4);
    assert_eq!(room.read("o.jsonl"), "");
}

#[test]
fn ctrl_c_ends_the_wait_for_a_stdin_that_says_nothing() {
    let room = Room::new("");
    let mut program = room.program("run pipeline.toml --items - --out o.jsonl");
    program.stdin(Stdio::piped());
    let mut running = start(program);
    let stdin = running.child.stdin.take();
    running.wait_for("0 in flight");
    running.signal("INT");
    running
        .end()
        .says(130, &["(interrupted)", "0 completed", "how much of the input was not begun is not known"]);
    drop(stdin);
}

#[test]
fn ctrl_c_when_nothing_is_left_to_begin_interrupts_nothing() {
    let room = Room::new("[simulator]\nlatency = \"600ms\"");
    room.items(3);
    let mut running = start(room.program("run pipeline.toml --items items.jsonl --out o.jsonl"));
    running.wait_for("3 in flight");
    running.signal("INT");
    let ended = running.end();
    ended.says(0, &["3 completed (100.0% success)"]);
    assert!(!ended.err.contains("interrupted") && !ended.err.contains("not begun"), "{}", ended.err);
}

#[test]
fn a_second_ctrl_c_leaves_an_output_that_nobody_reads() {
    let room = Room::new("");
    room.items(2_000);
    let mut program = room.program("run pipeline.toml --items items.jsonl --json");
    program.stdout(Stdio::piped());
    let mut running = start(program);
    // The pipe is full, and the lines that wait behind it fill the window.
    running.wait_for("\"in_flight\":0,");
    running.signal("INT");
    running.wait_for("press Ctrl-C again to stop now");
    running.signal("INT");
    running.wait_for("leave an output that is not read");
    // Lines that nobody takes are waited for a moment longer, and counted.
    running.end().says(130, &["\"ended\":\"interrupted\"", "\"unwritten\":"]);
}

#[test]
fn sigterm_does_not_wait_for_a_step_that_waits_for_a_rate_limit() {
    let room = Room::new("[run]\nwindow = 4\n[simulator]\nlimits.requests_per_minute = 1");
    room.items(500);
    let mut running =
        start(room.program("run pipeline.toml --items items.jsonl --out o.jsonl --report report.json"));
    running.wait_for("4 in flight");
    running.signal("TERM");
    running.wait_for("press Ctrl-C again to stop now");
    let stopped = Instant::now();
    running.end().says(130, &["(interrupted)"]);
    // The limit lets one call go in a minute.
    assert!(stopped.elapsed() < Duration::from_secs(20), "{:?}", stopped.elapsed());
    let report = room.json("report.json");
    assert_eq!(report["items"]["failed"], 0, "{report}");
    assert!(report["items"]["unfinished"].as_u64().unwrap() >= 2, "{report}");
}
