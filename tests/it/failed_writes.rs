//! Failed writes: for every subcommand, the exit code and one message report them, and no stored result is lost.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::process::{Command, Stdio};

use super::program::{Output, Workspace, parse_lines, program, run_program, start_program};

/// The system's message for a full disk.
const DISK_FULL: &str = "No space left on device";

/// A subcommand, and what its commands write.
struct Subcommand {
    name: &'static str,
    /// Commands that write to standard output.
    to_stdout: &'static [&'static str],
    /// Commands that write to the file in place of `FILE`.
    to_file: &'static [&'static str],
    /// Commands that write only messages, with their exit codes.
    messages_only: &'static [(&'static str, i32)],
}

/// Every subcommand. Run 1 is complete and has a failed item. Run 2 wrote to standard output.
const SUBCOMMANDS: &[Subcommand] = &[
    Subcommand {
        name: "run",
        to_stdout: &[
            "run pipeline.toml --items items.jsonl --new",
            "run pipeline.toml --items items.jsonl --new --quiet",
            "run pipeline.toml --items items.jsonl --new --json",
            "run pipeline.toml --items items.jsonl --new --ordered --output-format csv",
            "run pipeline.toml --items items.jsonl --new --store none",
            "run pipeline.toml --items items.jsonl --new --out new.jsonl --rejects -",
            "run pipeline.toml --items items.jsonl --new --out report.jsonl --report -",
        ],
        to_file: &[
            "run pipeline.toml --items items.jsonl --new --out FILE",
            "run pipeline.toml --items items.jsonl --new --rejects FILE",
            "run pipeline.toml --items items.jsonl --new --report FILE",
        ],
        messages_only: &[],
    },
    Subcommand { name: "resume", to_stdout: &["resume 2"], to_file: &[], messages_only: &[] },
    Subcommand { name: "retry", to_stdout: &["retry 2"], to_file: &[], messages_only: &[] },
    Subcommand {
        name: "plan",
        to_stdout: &[
            "plan pipeline.toml --items items.jsonl",
            "plan pipeline.toml --items items.jsonl --json",
            "plan pipeline.toml --items items.jsonl --sample 1",
        ],
        to_file: &[],
        messages_only: &[],
    },
    Subcommand { name: "runs", to_stdout: &["runs", "runs --json"], to_file: &[], messages_only: &[] },
    Subcommand {
        name: "report",
        to_stdout: &["report 1", "report 1 --json"],
        to_file: &[],
        messages_only: &[],
    },
    Subcommand {
        name: "results",
        to_stdout: &["results 1", "results 1 --format csv"],
        to_file: &["results 1 --out FILE", "results 1 --out FILE --format csv"],
        messages_only: &[],
    },
    Subcommand {
        name: "failures",
        to_stdout: &["failures 1", "failures 1 --json"],
        to_file: &[],
        messages_only: &[],
    },
    Subcommand {
        name: "cache",
        to_stdout: &[
            "cache",
            "cache --json",
            "cache prune --older-than 30d",
            "cache prune --max-size 1GiB --json",
        ],
        to_file: &[],
        messages_only: &[],
    },
    Subcommand {
        name: "prices",
        to_stdout: &["prices", "prices --all", "prices --json"],
        to_file: &[],
        messages_only: &[],
    },
    Subcommand { name: "models", to_stdout: &["models", "models --json"], to_file: &[], messages_only: &[] },
    Subcommand { name: "config", to_stdout: &["config", "config --json"], to_file: &[], messages_only: &[] },
    Subcommand { name: "ask", to_stdout: &["ask Hello"], to_file: &[], messages_only: &[] },
    Subcommand { name: "help", to_stdout: &["help", "help templates"], to_file: &[], messages_only: &[] },
    Subcommand { name: "init", to_stdout: &[], to_file: &[], messages_only: &[("init", 4)] },
    Subcommand {
        name: "completions",
        to_stdout: &["completions bash", "completions zsh", "completions fish"],
        to_file: &[],
        messages_only: &[],
    },
    Subcommand { name: "man", to_stdout: &["man"], to_file: &[], messages_only: &[("man --dir pages", 0)] },
    Subcommand {
        name: "check",
        to_stdout: &["check pipeline.toml --json"],
        to_file: &[],
        messages_only: &[("check pipeline.toml", 0), ("check items.jsonl", 3)],
    },
    Subcommand { name: "cancel", to_stdout: &[], to_file: &[], messages_only: &[("cancel 1", 4)] },
    Subcommand {
        name: "delete",
        to_stdout: &[],
        to_file: &[],
        messages_only: &[("delete 2", 0), ("delete 2", 4)],
    },
    Subcommand {
        name: "token",
        to_stdout: &["token new --name a --scope read", "token list", "token list --json"],
        to_file: &[],
        messages_only: &[("token revoke b", 4)],
    },
    Subcommand { name: "serve", to_stdout: &[], to_file: &[], messages_only: &[("serve --listen no", 2)] },
    Subcommand {
        name: "status",
        to_stdout: &["status", "status --json"],
        to_file: &[],
        messages_only: &[("status --server no", 2)],
    },
    // It draws on a terminal, which standard output is not here.
    Subcommand { name: "top", to_stdout: &[], to_file: &[], messages_only: &[("top", 2)] },
    Subcommand {
        name: "simulate",
        to_stdout: &[],
        to_file: &[],
        messages_only: &[("simulate --set no=1", 3)],
    },
];

/// Creates a workspace with two runs of three items, one of which fails. The fourth input line is not an item.
fn workspace_with_two_runs() -> Workspace {
    let workspace = Workspace::new("[simulator]\nfaults = [{ kind = \"refusal\", contains = \"thing 2\" }]");
    workspace.write_items(3);
    workspace.write("items.jsonl", format!("{}no json\n", workspace.read("items.jsonl")));
    workspace.write("more.jsonl", workspace.read("items.jsonl"));
    workspace.run("run pipeline.toml --items items.jsonl --out o.jsonl").expect_code(1);
    workspace.run("run pipeline.toml --items more.jsonl").expect_code(1);
    workspace
}

/// Runs a command with this standard output.
fn run_with_stdout(workspace: &Workspace, command: &str, stdout: impl Into<Stdio>) -> Output {
    let mut program = workspace.command(command);
    program.stdout(stdout);
    let output = program.output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    Output { code: output.status.code(), stdout: String::new(), stderr }
}

/// Opens a device on which every write fails because the disk is full.
fn full_device() -> File {
    File::options().write(true).open("/dev/full").unwrap()
}

/// Returns a pipe whose reader is closed.
fn closed_pipe() -> io::PipeWriter {
    io::pipe().unwrap().1
}

/// Asserts that the command ended with exit code 4 and one message, which names the output and the reason.
fn assert_one_write_error(command: &str, output: &Output, name: &str) {
    let context = format!("{command}: {}", output.stderr);
    assert_eq!(output.code, Some(4), "{context}");
    // With `--json`, the report has the error too.
    let (reports, messages): (Vec<&str>, Vec<&str>) =
        output.stderr.lines().partition(|line| line.starts_with("{\"report\":"));
    assert_eq!(messages.join("\n").matches(DISK_FULL).count(), 1, "{context}");
    assert!(reports.join("\n").matches(DISK_FULL).count() <= 1, "{context}");
    let message = messages.into_iter().find(|line| line.contains(DISK_FULL)).unwrap();
    assert!(message.contains(&format!("cannot write to {name}")), "{context}");
}

/// Asserts that the newest run has a line for each of its finished items, and that run 1 still has its lines.
fn assert_nothing_is_lost(workspace: &Workspace, command: &str) {
    let runs = workspace.run("runs --json");
    runs.expect_code(0);
    let newest = parse_lines(&runs.stdout).into_iter().max_by_key(|run| run["run"].as_u64()).unwrap();
    let count = |name: &str| newest[name].as_u64().unwrap();
    let settled = count("completed") + count("failed") + count("skipped");
    for (run, expected) in [(&newest["run"], settled), (&1.into(), 3)] {
        let results = workspace.run(&format!("results {run}"));
        results.expect_code(0);
        assert_eq!(parse_lines(&results.stdout).len() as u64, expected, "{command}: run {run}");
    }
}

/// Returns the subcommands that `--help` lists.
fn listed_subcommands() -> BTreeSet<String> {
    let help = run_program(program("--help"));
    help.expect_code(0);
    let commands = help.stdout.lines().skip_while(|line| *line != "Commands:").skip(1);
    let names = commands.take_while(|line| !line.is_empty()).filter_map(|line| line.strip_prefix("  "));
    let names = names.filter(|line| !line.starts_with(' ')).filter_map(|line| line.split(' ').next());
    names.map(str::to_owned).collect()
}

#[test]
fn every_subcommand_has_tests_of_failed_writes() {
    let tested: BTreeSet<_> = SUBCOMMANDS.iter().map(|subcommand| subcommand.name.to_owned()).collect();
    let mut known = listed_subcommands();
    // A program without the terminal view has the command, which says so, and does not list it.
    known.extend((!cfg!(feature = "tui")).then(|| "top".to_owned()));
    assert_eq!(known, tested);
    for subcommand in SUBCOMMANDS {
        let belongs_to = |command: &str| command.split(' ').next() == Some(subcommand.name);
        let messages_only = subcommand.messages_only.iter().map(|(command, _)| command);
        assert!(
            subcommand
                .to_stdout
                .iter()
                .chain(subcommand.to_file)
                .chain(messages_only)
                .all(|command| belongs_to(command))
        );
    }
}

#[test]
fn a_full_disk_under_standard_output_is_exit_code_4_and_one_message_for_every_subcommand() {
    let workspace = workspace_with_two_runs();
    for command in SUBCOMMANDS.iter().flat_map(|subcommand| subcommand.to_stdout) {
        assert_one_write_error(
            command,
            &run_with_stdout(&workspace, command, full_device()),
            "standard output",
        );
        assert_nothing_is_lost(&workspace, command);
    }
    // A resume writes the lines that could not be written before.
    let resumed = workspace.run("resume 2");
    resumed.expect_code(1);
    assert_eq!(parse_lines(&resumed.stdout).len(), 3);
}

#[test]
fn a_file_on_a_full_disk_is_exit_code_4_and_one_message_that_names_it() {
    let workspace = workspace_with_two_runs();
    for command in SUBCOMMANDS.iter().flat_map(|subcommand| subcommand.to_file) {
        assert_one_write_error(command, &workspace.run(&command.replace("FILE", "/dev/full")), "/dev/full");
        assert_nothing_is_lost(&workspace, command);
    }
}

#[test]
fn a_closed_reader_of_the_output_is_exit_code_141_without_an_error_for_every_subcommand() {
    let workspace = workspace_with_two_runs();
    for command in SUBCOMMANDS.iter().flat_map(|subcommand| subcommand.to_stdout) {
        let output = run_with_stdout(&workspace, command, closed_pipe());
        assert_eq!(output.code, Some(141), "{command}: {}", output.stderr);
        let stderr = &output.stderr;
        for error in ["error: ", "{\"error\":", "os error", "_error\":"] {
            assert!(!stderr.contains(error), "{command}: {stderr}");
        }
        assert_nothing_is_lost(&workspace, command);
    }
}

#[test]
fn a_subcommand_that_writes_only_messages_does_not_depend_on_standard_output() {
    let workspace = workspace_with_two_runs();
    for (command, code) in SUBCOMMANDS.iter().flat_map(|subcommand| subcommand.messages_only) {
        run_with_stdout(&workspace, command, full_device()).expect_code(*code);
    }
    assert_nothing_is_lost(&workspace, "delete");
    let mut simulator = workspace.command("simulate --listen 127.0.0.1:0");
    simulator.stdout(full_device());
    let mut running = start_program(simulator);
    running.wait_for_line("counts");
    running.signal("INT");
    running.wait().expect_code(0);
}

#[test]
fn help_is_exit_code_4_if_it_cannot_be_written_and_exit_code_141_if_its_reader_is_closed() {
    let workspace = Workspace::empty();
    let of_subcommands = SUBCOMMANDS.iter().map(|subcommand| format!("{} --help", subcommand.name));
    for command in ["--help".to_owned(), "--version".to_owned()].into_iter().chain(of_subcommands) {
        assert_one_write_error(
            &command,
            &run_with_stdout(&workspace, &command, full_device()),
            "standard output",
        );
        let closed = run_with_stdout(&workspace, &command, closed_pipe());
        assert_eq!((closed.code, closed.stderr.as_str()), (Some(141), ""), "{command}");
        run_with_stdout(&workspace, &command, Stdio::null()).expect_code(0);
    }
}

#[test]
fn a_file_size_limit_is_a_write_error_and_not_a_signal() {
    let workspace = Workspace::new("");
    workspace.write_items(300);
    workspace.run("run pipeline.toml --items items.jsonl --out o.jsonl").expect_code(0);
    let run_limited = |blocks: u32, command: &str| {
        let mut shell = Command::new("bash");
        let program = env!("CARGO_BIN_EXE_pointsman");
        let command = format!("ulimit -f {blocks}; exec {program} {command}");
        shell.env_clear().args(["-c", &command]).current_dir(workspace.path(""));
        run_program(shell)
    };
    for (blocks, command, name) in [
        (1, "prices --all > listed", "standard output"),
        (64, "results 1 > listed", "standard output"),
        (64, "results 1 --out r.jsonl", "r.jsonl"),
    ] {
        let output = run_limited(blocks, command);
        output.expect_stderr(4, &[&format!("cannot write to {name}"), "File too large"]);
    }
    assert_eq!(workspace.run("results 1").stdout.lines().count(), 300);
}

#[test]
fn a_stderr_that_nothing_reads_does_not_stop_a_run() {
    let workspace = Workspace::new("[simulator]\nlatency = \"20ms\"");
    workspace.write_items(30);
    let (reader, mut writer) = io::pipe().unwrap();
    // This fills the pipe: nothing more can be written to it until something is read.
    io::Write::write_all(&mut writer, &[b'x'; 1 << 16]).unwrap();
    let run = "run pipeline.toml --items items.jsonl --out o.jsonl -vv";
    let status = workspace.command(run).stderr(writer.try_clone().unwrap()).status().unwrap();
    assert_eq!((status.code(), workspace.output_lines("o.jsonl").len()), (Some(0), 30));
    drop((reader, writer));
}
