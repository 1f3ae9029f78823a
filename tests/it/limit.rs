//! `run --limit`: the first items, their answers as a table, and the same command without it.

use super::program::*;

const RUN: &str = "run pipeline.toml --items items.jsonl --out o.jsonl";

#[test]
fn a_limited_run_is_continued_by_the_same_command_without_the_limit() {
    let workspace = Workspace::new("");
    workspace.write_items(50);
    let first = workspace.run(&format!("{RUN} --limit 10"));
    first.expect_stderr(
        0,
        &["one [simulated] (limited)", "10 items of the input are processed", "`pointsman resume 1`"],
    );
    // The user knows that there is more; programs find how much in the report.
    assert!(!first.stderr.contains("not started"), "{}", first.stderr);
    let report: serde_json::Value = serde_json::from_str(&workspace.run("report 1 --json").stdout).unwrap();
    let rest = report["unprocessed"]["fraction"].as_f64().unwrap();
    assert!((0.8..0.82).contains(&rest), "{report}");
    assert_eq!(workspace.output_lines("o.jsonl").len(), 10);
    let state = || parse_lines(&workspace.run("runs --json").stdout)[0]["state"].clone();
    assert_eq!(state(), "stopped");
    // Nothing is processed twice.
    let again = workspace.run(&format!("{RUN} --limit 10 --report r.json"));
    again.expect_stderr(0, &["10 items finished before"]);
    assert_eq!(workspace.read_json("r.json")["calls"]["sent"], 0);
    assert_eq!(workspace.read_json("r.json")["outcome"], "limited");
    let more = workspace.run(&format!("{RUN} --limit 20 --report r.json"));
    more.expect_stderr(0, &["10 items finished before", "20 items of the input are processed"]);
    assert_eq!(workspace.read_json("r.json")["calls"]["sent"], 10);
    // A lower limit leaves the lines of the other items.
    workspace.run(&format!("{RUN} --limit 5")).expect_code(0);
    assert_eq!(workspace.output_lines("o.jsonl").len(), 20);
    let rest = workspace.run(&format!("{RUN} --report r.json"));
    rest.expect_stderr(0, &["20 items finished before"]);
    assert_eq!(workspace.read_json("r.json")["calls"]["sent"], 30);
    assert_eq!(workspace.read_json("r.json")["outcome"], "completed");
    workspace.write("none.jsonl", "");
    workspace.assert_nothing_is_lost(50, "o.jsonl", "none.jsonl");
    assert_eq!(state(), "completed");
}

#[test]
fn a_limited_run_is_resumed_by_its_number() {
    let workspace = Workspace::new("");
    workspace.write_items(12);
    workspace.run(&format!("{RUN} --limit 4")).expect_code(0);
    workspace.run("resume 1").expect_code(0);
    assert_eq!(workspace.output_lines("o.jsonl").len(), 12);
}

#[test]
fn a_limit_that_is_not_reached_is_a_complete_run() {
    let workspace = Workspace::new("");
    workspace.write_items(10);
    for limit in [10, 11] {
        let output = workspace.run(&format!("{RUN} --limit {limit} --new --overwrite --report r.json"));
        output.expect_code(0);
        assert_eq!(workspace.read_json("r.json")["outcome"], "completed", "{limit}");
        assert!(!output.stderr.contains("limited"), "{}", output.stderr);
    }
}

#[test]
fn lines_of_a_limited_run_go_to_a_pipe() {
    let workspace = Workspace::new("");
    workspace.write_items(10);
    let output = workspace.run("run pipeline.toml --items items.jsonl --limit 3");
    output.expect_code(0);
    assert_eq!(parse_lines(&output.stdout).len(), 3);
    let refused = workspace.run(&format!("{RUN} --limit 0"));
    refused.expect_stderr(2, &["--limit"]);
}

#[test]
fn items_of_a_pipe_are_limited_and_a_run_that_is_not_stored_says_so() {
    let workspace = Workspace::new("");
    let lines = (0..100).map(|number| format!("{{\"id\":{number},\"text\":\"t\"}}\n")).collect::<String>();
    let command = workspace.command("run pipeline.toml --items - --limit 7 --store none");
    let output = run_program_with_stdin(command, lines.as_bytes());
    output.expect_stderr(0, &["nothing is stored, so the same command without --limit"]);
    assert_eq!(parse_lines(&output.stdout).len(), 7);
}

/// Runs a command in a terminal of 80 columns, and returns what it shows.
#[cfg(target_os = "linux")]
fn in_terminal(workspace: &Workspace, arguments: &str) -> Output {
    let program = env!("CARGO_BIN_EXE_pointsman");
    let mut command = std::process::Command::new("script");
    command.current_dir(workspace.path("")).env("TERM", "xterm").args([
        "-qec",
        &format!("stty cols 80 rows 40; exec {program} {arguments}"),
        "/dev/null",
    ]);
    run_program(command)
}

#[test]
#[cfg(target_os = "linux")]
fn a_terminal_shows_the_answers_as_a_table() {
    if std::process::Command::new("script").arg("--version").output().is_err() {
        return;
    }
    let workspace = Workspace::new("");
    workspace.write_items(30);
    let output = in_terminal(&workspace, "run pipeline.toml --items items.jsonl --limit 3");
    assert_eq!(output.code, Some(0), "{}", output.stdout);
    let rows: Vec<&str> = output.stdout.lines().filter(|line| line.contains(" completed ")).collect();
    assert!(output.stdout.contains("key") && output.stdout.contains("status"), "{}", output.stdout);
    let table: Vec<&&str> = rows
        .iter()
        .filter(|row| ["i1 ", "i2 ", "i3 "].iter().any(|key| row.trim().starts_with(key)))
        .collect();
    assert_eq!(table.len(), 3, "{}", output.stdout);
    assert!(!output.stdout.contains("\"answers\""), "{}", output.stdout);
    // The results are in the store.
    assert_eq!(parse_lines(&workspace.run("results 1").stdout).len(), 3);
}

#[test]
fn items_without_an_id_are_shown_by_their_fields() {
    let workspace = Workspace::new("");
    workspace.write("items.csv", "text,stars\nIt broke,1\nWell done,5\n");
    let output = workspace.run("plan pipeline.toml --items items.csv --sample 2");
    output.expect_code(0);
    let (_, table) = output.stdout.split_once("answers of the sample:\n").unwrap();
    let header: Vec<&str> = table.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(header[..3], ["text", "stars", "status"], "{table}");
    assert!(table.contains("It broke") && table.contains("Well done") && !table.contains("sha-"), "{table}");
    // The lines have no fields of their item.
    let lines = workspace.run("run pipeline.toml --items items.csv").stdout;
    assert!(!lines.contains("\"stars\""), "{lines}");
    #[cfg(target_os = "linux")]
    if std::process::Command::new("script").arg("--version").output().is_ok() {
        let out = "run pipeline.toml --items items.csv --limit 2 --new --out answers.jsonl";
        let output = in_terminal(&workspace, out);
        assert!(output.stdout.contains("It broke") && !output.stdout.contains("sha-"), "{}", output.stdout);
        assert!(
            !workspace.read("answers.jsonl").contains("\"stars\""),
            "{}",
            workspace.read("answers.jsonl")
        );
    }
}

#[test]
fn a_sample_of_a_plan_shows_its_answers() {
    let workspace = Workspace::new("");
    workspace.write_items(20);
    let output = workspace.run("plan pipeline.toml --items items.jsonl --sample 4");
    output.expect_code(0);
    let (_, table) = output.stdout.split_once("answers of the sample:\n").unwrap();
    assert_eq!(table.lines().count(), 5, "{table}");
    assert!(table.lines().next().unwrap().contains("answer"), "{table}");
    assert_eq!(table.matches("completed").count(), 4, "{table}");
    let json = workspace.run("plan pipeline.toml --items items.jsonl --sample 4 --json");
    let plan: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(plan["sampled"], 4);
}
