//! A write that fails shows in the exit code and in one message, for every verb; nothing that is recorded is lost.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::process::{Command, Stdio};

use super::program::{Ended, Room, finish, lines, program, start};

/// What the system says of a full disk.
const FULL: &str = "No space left on device";

/// What a verb writes, and by which commands.
struct Verb {
    name: &'static str,
    /// Commands that write to standard output.
    to_stdout: &'static [&'static str],
    /// Commands that write to the file in place of `FILE`.
    to_file: &'static [&'static str],
    /// Commands that write messages alone, and their exit code.
    silent: &'static [(&'static str, i32)],
}

/// Every verb. Run 1 is complete and has a failed item; run 2 wrote to standard output.
const VERBS: &[Verb] = &[
    Verb {
        name: "run",
        to_stdout: &[
            "run pipeline.toml --items items.jsonl --new",
            "run pipeline.toml --items items.jsonl --new --quiet",
            "run pipeline.toml --items items.jsonl --new --json",
            "run pipeline.toml --items items.jsonl --new --ordered --to csv",
            "run pipeline.toml --items items.jsonl --new --store none",
            "run pipeline.toml --items items.jsonl --new --out new.jsonl --rejects -",
            "run pipeline.toml --items items.jsonl --new --out report.jsonl --report -",
        ],
        to_file: &[
            "run pipeline.toml --items items.jsonl --new --out FILE",
            "run pipeline.toml --items items.jsonl --new --rejects FILE",
            "run pipeline.toml --items items.jsonl --new --report FILE",
        ],
        silent: &[],
    },
    Verb { name: "resume", to_stdout: &["resume 2"], to_file: &[], silent: &[] },
    Verb { name: "retry", to_stdout: &["retry 2"], to_file: &[], silent: &[] },
    Verb {
        name: "plan",
        to_stdout: &[
            "plan pipeline.toml --items items.jsonl",
            "plan pipeline.toml --items items.jsonl --json",
            "plan pipeline.toml --items items.jsonl --sample 1",
        ],
        to_file: &[],
        silent: &[],
    },
    Verb { name: "runs", to_stdout: &["runs", "runs --json"], to_file: &[], silent: &[] },
    Verb { name: "report", to_stdout: &["report 1", "report 1 --json"], to_file: &[], silent: &[] },
    Verb {
        name: "results",
        to_stdout: &["results 1", "results 1 --format csv"],
        to_file: &["results 1 --out FILE", "results 1 --out FILE --format csv"],
        silent: &[],
    },
    Verb { name: "failed", to_stdout: &["failed 1", "failed 1 --json"], to_file: &[], silent: &[] },
    Verb { name: "prices", to_stdout: &["prices", "prices --all"], to_file: &[], silent: &[] },
    Verb {
        name: "check",
        to_stdout: &[],
        to_file: &[],
        silent: &[("check pipeline.toml", 0), ("check items.jsonl", 3)],
    },
    Verb { name: "cancel", to_stdout: &[], to_file: &[], silent: &[("cancel 1", 4)] },
    Verb { name: "forget", to_stdout: &[], to_file: &[], silent: &[("forget 2", 0), ("forget 2", 4)] },
    Verb { name: "simulate", to_stdout: &[], to_file: &[], silent: &[("simulate --set no=1", 3)] },
];

/// A room with two runs of three items, one of which fails; a fourth line is no item.
fn room() -> Room {
    let room = Room::new("[simulator]\nfaults = [{ kind = \"refusal\", contains = \"thing 2\" }]");
    room.items(3);
    room.write("items.jsonl", format!("{}no json\n", room.read("items.jsonl")));
    room.write("more.jsonl", room.read("items.jsonl"));
    room.run("run pipeline.toml --items items.jsonl --out o.jsonl").expect(1);
    room.run("run pipeline.toml --items more.jsonl").expect(1);
    room
}

/// Runs a command that writes to this.
fn to(room: &Room, command: &str, stdout: impl Into<Stdio>) -> Ended {
    let mut program = room.program(command);
    program.stdout(stdout);
    let output = program.output().unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    Ended { code: output.status.code(), out: String::new(), err }
}

fn full() -> File {
    File::options().write(true).open("/dev/full").unwrap()
}

/// A pipe whose reader has gone.
fn unread() -> io::PipeWriter {
    io::pipe().unwrap().1
}

/// Fails unless the command ended with code 4 and one message that names what was written to, and why.
fn says_once(command: &str, ended: &Ended, name: &str) {
    let why = format!("{command}: {}", ended.err);
    assert_eq!(ended.code, Some(4), "{why}");
    assert_eq!(ended.err.matches(FULL).count(), 1, "{why}");
    let message = ended.err.lines().find(|line| line.contains(FULL)).unwrap();
    assert!(message.contains(&format!("cannot write to {name}")), "{why}");
}

/// Fails unless the newest run has a line for each of the items that it settled, and run 1 has its own.
fn nothing_is_lost(room: &Room, command: &str) {
    let runs = room.run("runs --json");
    runs.expect(0);
    let newest = lines(&runs.out).into_iter().max_by_key(|run| run["run"].as_u64()).unwrap();
    let count = |name: &str| newest[name].as_u64().unwrap();
    let settled = count("completed") + count("failed") + count("skipped");
    for (run, wanted) in [(&newest["run"], settled), (&1.into(), 3)] {
        let results = room.run(&format!("results {run}"));
        results.expect(0);
        assert_eq!(lines(&results.out).len() as u64, wanted, "{command}: run {run}");
    }
}

/// Returns the verbs that `--help` lists.
fn listed() -> BTreeSet<String> {
    let help = finish(program("--help"));
    help.expect(0);
    let commands = help.out.lines().skip_while(|line| *line != "Commands:").skip(1);
    let names = commands.take_while(|line| !line.is_empty()).filter_map(|line| line.strip_prefix("  "));
    let names = names.filter(|line| !line.starts_with(' ')).filter_map(|line| line.split(' ').next());
    names.map(str::to_owned).collect()
}

#[test]
fn every_verb_is_tried_with_writes_that_fail() {
    let tried: BTreeSet<_> = VERBS.iter().map(|verb| verb.name.to_owned()).collect();
    assert_eq!(listed(), tried);
    for verb in VERBS {
        let of_verb = |command: &str| command.split(' ').next() == Some(verb.name);
        let silent = verb.silent.iter().map(|(command, _)| command);
        assert!(verb.to_stdout.iter().chain(verb.to_file).chain(silent).all(|command| of_verb(command)));
    }
}

#[test]
fn a_full_disk_under_standard_output_is_code_4_and_one_message_for_every_verb() {
    let room = room();
    for command in VERBS.iter().flat_map(|verb| verb.to_stdout) {
        says_once(command, &to(&room, command, full()), "standard output");
        nothing_is_lost(&room, command);
    }
    // What could not be written is written when it can be.
    let again = room.run("resume 2");
    again.expect(1);
    assert_eq!(lines(&again.out).len(), 3);
}

#[test]
fn a_file_on_a_full_disk_is_code_4_and_one_message_that_names_it() {
    let room = room();
    for command in VERBS.iter().flat_map(|verb| verb.to_file) {
        says_once(command, &room.run(&command.replace("FILE", "/dev/full")), "/dev/full");
        nothing_is_lost(&room, command);
    }
}

#[test]
fn a_reader_that_has_gone_is_code_141_and_no_error_for_every_verb() {
    let room = room();
    for command in VERBS.iter().flat_map(|verb| verb.to_stdout) {
        let ended = to(&room, command, unread());
        assert_eq!(ended.code, Some(141), "{command}: {}", ended.err);
        let said = &ended.err;
        for error in ["error: ", "{\"error\":", "os error", "_error\":"] {
            assert!(!said.contains(error), "{command}: {said}");
        }
        nothing_is_lost(&room, command);
    }
}

#[test]
fn a_verb_that_writes_messages_alone_does_its_work_whatever_standard_output_is() {
    let room = room();
    for (command, code) in VERBS.iter().flat_map(|verb| verb.silent) {
        to(&room, command, full()).expect(*code);
    }
    nothing_is_lost(&room, "forget");
    let mut simulator = room.program("simulate --listen 127.0.0.1:0");
    simulator.stdout(full());
    let mut running = start(simulator);
    running.wait_for("counts");
    running.signal("INT");
    running.end().expect(0);
}

#[test]
fn help_that_cannot_be_written_is_code_4_and_help_that_is_not_read_is_code_141() {
    let room = Room::empty();
    let of_verbs = VERBS.iter().map(|verb| format!("{} --help", verb.name));
    for command in ["--help".to_owned(), "--version".to_owned()].into_iter().chain(of_verbs) {
        says_once(&command, &to(&room, &command, full()), "standard output");
        let unread = to(&room, &command, unread());
        assert_eq!((unread.code, unread.err.as_str()), (Some(141), ""), "{command}");
        to(&room, &command, Stdio::null()).expect(0);
    }
}

#[test]
fn a_limit_on_file_sizes_is_an_error_and_no_signal_for_every_verb_that_writes() {
    let room = Room::new("");
    room.items(300);
    room.run("run pipeline.toml --items items.jsonl --out o.jsonl").expect(0);
    let limited = |blocks: u32, command: &str| {
        let mut shell = Command::new("bash");
        let program = env!("CARGO_BIN_EXE_pointsman");
        let command = format!("ulimit -f {blocks}; exec {program} {command}");
        shell.env_clear().args(["-c", &command]).current_dir(room.path(""));
        finish(shell)
    };
    for (blocks, command, name) in [
        (1, "prices --all > listed", "standard output"),
        (64, "results 1 > listed", "standard output"),
        (64, "results 1 --out r.jsonl", "r.jsonl"),
    ] {
        let ended = limited(blocks, command);
        ended.says(4, &[&format!("cannot write to {name}"), "File too large"]);
    }
    assert_eq!(room.run("results 1").out.lines().count(), 300);
}

#[test]
fn a_stderr_that_is_not_read_does_not_stop_a_run() {
    let room = Room::new("[simulator]\nlatency = \"20ms\"");
    room.items(30);
    let (unread, mut full) = io::pipe().unwrap();
    // As much as a pipe takes: nothing more can be written to it until something is read.
    io::Write::write_all(&mut full, &[b'x'; 1 << 16]).unwrap();
    let run = "run pipeline.toml --items items.jsonl --out o.jsonl -vv";
    let ended = room.program(run).stderr(full.try_clone().unwrap()).status().unwrap();
    assert_eq!((ended.code(), room.lines("o.jsonl").len()), (Some(0), 30));
    drop((unread, full));
}
