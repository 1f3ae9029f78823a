//! Data with terminal control characters is printed safely.

use std::process::Command;

use super::program::*;

/// An id, a text and a file name with an escape sequence, a C1 control, a direction override and invisible
/// characters.
const HOSTILE_TEXT: &str = "a\u{1b}[2J\u{9b}31m\u{202e}b\u{2066}\u{200b}\u{e0041}c\u{7f}\u{200f}\u{61c}";

/// Asserts that `text` has no character that controls a terminal or is invisible.
#[track_caller]
fn assert_safe(text: &str) {
    let invisible = ['\u{202e}', '\u{2066}', '\u{200b}', '\u{e0041}', '\u{200f}', '\u{61c}'];
    let is_unsafe = |letter: &char| (letter.is_control() && *letter != '\n') || invisible.contains(letter);
    assert!(!text.chars().any(|letter| is_unsafe(&letter)), "{text:?}");
}

/// Creates a workspace whose items and file names contain [`HOSTILE_TEXT`]. Half of the items fail, with their
/// id in the message.
fn hostile_workspace() -> Workspace {
    let workspace = Workspace::new("[simulator]\nfaults = [{ kind = \"refusal\", share = 0.5 }]");
    let item = |number: u32| {
        serde_json::json!({ "id": format!("{HOSTILE_TEXT}\n{number}"), "text": HOSTILE_TEXT }).to_string()
    };
    let mut items: Vec<String> = (0..20).map(item).collect();
    items.push(item(3));
    items.push(format!("{{\"{HOSTILE_TEXT}"));
    workspace.write(&format!("{HOSTILE_TEXT}.jsonl"), items.join("\n"));
    workspace
}

#[test]
fn names_of_items_and_files_are_printed_without_control_characters() {
    let workspace = hostile_workspace();
    let run = format!(
        "run pipeline.toml --items {HOSTILE_TEXT}.jsonl --out {HOSTILE_TEXT}.out.jsonl --rejects {HOSTILE_TEXT}.rejects"
    );
    for more in ["-vv", "--json", "--quiet"] {
        let output = workspace.run(&format!("{run} --new --overwrite {more}"));
        output.expect_code(1);
        assert_safe(&output.stderr);
        assert_safe(&output.stdout);
    }
    for command in ["runs", "runs --json", "report 1", "report 1 --json", "failures 1", "failures 1 --json"] {
        let output = workspace.run(command);
        output.expect_code(0);
        assert!(!output.stdout.is_empty(), "{command}");
        assert_safe(&output.stdout);
        assert_safe(&output.stderr);
    }
    // Each failed item is one line, whatever its id.
    let failed = workspace.run("failures 1");
    assert!(failed.stdout.lines().all(|line| line.contains("content_filter")), "{}", failed.stdout);
    assert!(failed.stdout.lines().count() > 1);
    // In JSON the id is unchanged.
    let json = workspace.run("failures 1 --json");
    let first: serde_json::Value = serde_json::from_str(json.stdout.lines().next().unwrap()).unwrap();
    assert!(first["key"].as_str().unwrap().starts_with(HOSTILE_TEXT), "{first}");
}

#[test]
fn files_and_pipes_contain_the_data_unchanged() {
    let workspace = hostile_workspace();
    let out =
        workspace.run(&format!("run pipeline.toml --items {HOSTILE_TEXT}.jsonl --rejects rejects.jsonl"));
    out.expect_code(1);
    let keys = keys(&parse_lines(&out.stdout));
    assert!(keys.iter().all(|key| key.starts_with(HOSTILE_TEXT)), "{keys:?}");
    assert!(out.stdout.contains('\u{202e}'));
    assert!(workspace.read("rejects.jsonl").contains('\u{202e}'));
}

#[test]
fn errors_diagnostics_and_arguments_are_printed_without_control_characters() {
    let workspace = Workspace::new("");
    workspace.write_items(1);
    let missing = workspace.run(&format!("run pipeline.toml --items {HOSTILE_TEXT}"));
    assert_ne!(missing.code, Some(0));
    assert_safe(&missing.stderr);
    assert!(missing.stderr.contains("\u{fffd}[2J"), "{}", missing.stderr);

    let argument = workspace.run(&format!("run pipeline.toml --{HOSTILE_TEXT}"));
    argument.expect_code(2);
    assert_safe(&argument.stderr);

    workspace.write(
        &format!("{HOSTILE_TEXT}.toml"),
        format!("{ONE_STEP}\nnonsense = \"\u{202e}\u{2066}text\u{200b}\"\n"),
    );
    let diagnostics = workspace.run(&format!("check {HOSTILE_TEXT}.toml"));
    diagnostics.expect_stderr(3, &["nonsense", "text"]);
    assert_safe(&diagnostics.stderr);
}

#[test]
fn an_argument_cannot_add_a_line_to_an_error() {
    let workspace = Workspace::new("");
    for arguments in [
        ["runs", "--store", "n\nerror: fake"],
        ["runs", "--store", "n\u{2028}\u{2029}\nerror: fake"],
        ["results", "n\nerror: fake", "--overwrite"],
        ["report", "1", "--n\nerror: fake"],
        ["run", "pipeline.toml", "n\nerror: fake"],
        ["n\nerror: fake", "pipeline.toml", "n\nerror: fake"],
    ] {
        let mut command = workspace.command("");
        command.args(arguments);
        let refused = run_program(command);
        refused.expect_stderr(2, &["error: fake"]);
        assert_safe(&refused.stderr);
        let has_fake = refused.stderr.lines().any(|line| line.starts_with("error: fake"));
        assert!(!has_fake, "{arguments:?}: {}", refused.stderr);
    }
}

/// The name of the store contains all that a shell acts on.
#[test]
fn a_shell_reads_a_printed_command_without_running_a_part_of_its_values() {
    let workspace = Workspace::new("[simulator]\nfaults = [{ kind = \"refusal\" }]");
    workspace.write_items(2);
    let names =
        ["a b.db", "$(touch ran).db", "`touch ran`.db", "it's \"it\".db", "a;touch ran;.db", "a\nb.db"];
    for (number, name) in names.into_iter().enumerate() {
        let store = format!("sqlite:{name}");
        let out = format!("o{number}.jsonl");
        let mut command = workspace.command("run pipeline.toml --items items.jsonl");
        command.args(["--out", &out, "--store", &store]);
        let run = run_program(command);
        let (_, advice) = run.expect_code(1).split_once("`pointsman retry 1 ").unwrap();
        let (printed, _) = advice.split_once("` processes").unwrap();
        let mut shell = Command::new("bash");
        shell.args(["-c", &format!("printf '%s|' {printed}")]).current_dir(workspace.path("."));
        let read = run_program(shell);
        read.expect_code(0);
        assert_eq!(read.stdout, format!("--store|{store}|"), "{printed}");
        assert!(!workspace.path("ran").exists(), "{printed}");
    }
}

#[test]
fn a_cell_that_a_spreadsheet_would_run_is_text_unless_formulas_are_kept() {
    let config = "[simulator]\nfaults = [{ kind = \"refusal\", share = 0.5 }]";
    let run = "run pipeline.toml --items items.jsonl --out o.csv";
    for (more, first) in [("", "'=id"), ("--csv-formulas keep", "=id")] {
        let workspace = Workspace::new(config);
        let item = |number| format!("{{\"id\":\"=id{number}\",\"text\":\"thing {number}\"}}\n");
        workspace.write("items.jsonl", (0..20).map(item).collect::<String>());
        let keys_of = |workspace: &Workspace| -> Vec<String> {
            let mut rows = csv::Reader::from_path(workspace.path("o.csv")).unwrap();
            rows.records().map(|row| row.unwrap()[0].to_owned()).collect()
        };
        let all_begin = |keys: &[String]| keys.len() == 20 && keys.iter().all(|key| key.starts_with(first));
        workspace.run(&format!("{run} {more}")).expect_code(1);
        assert!(all_begin(&keys_of(&workspace)), "{:?}", keys_of(&workspace));
        // A resumed run uses the options of its command.
        workspace.write_config("");
        workspace.run("retry 1").expect_code(0);
        assert!(all_begin(&keys_of(&workspace)), "{:?}", keys_of(&workspace));
        workspace.run(&format!("results 1 --out o.csv {more}")).expect_code(0);
        assert!(all_begin(&keys_of(&workspace)), "{:?}", keys_of(&workspace));
    }
}

#[test]
#[cfg(unix)]
fn many_runs_are_deleted_with_few_open_files() {
    use pointsman::store::{RunNumber, Sqlite, Store};
    const RUNS: i64 = 130;
    let workspace = Workspace::new("");
    workspace.write_items(1);
    workspace.run("run pipeline.toml --items items.jsonl --out o.jsonl").expect_code(0);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let store = Sqlite::open(&workspace.path("pointsman.db")).await.unwrap();
        let metadata = store.run(RunNumber(1)).await.unwrap().metadata;
        for run in 1..RUNS {
            store.create(&format!("run {run}"), &metadata).await.unwrap();
        }
        store.close().await;
    });
    let limited = format!("ulimit -n 100; exec {} \"$@\"", env!("CARGO_BIN_EXE_pointsman"));
    let delete = |arguments: &[&str]| {
        let mut shell = Command::new("sh");
        shell.current_dir(workspace.path("")).args(["-c", &limited, "sh", "delete"]).args(arguments);
        run_program(shell)
    };
    delete(&["1", "2", "999"]).expect_stderr(4, &["there is no run 999"]);
    delete(&["--older-than", "1ms"]).expect_stderr(0, &["130 runs deleted, 0 left"]);
    let locks = std::fs::read_dir(workspace.path("")).unwrap().map(|file| file.unwrap().file_name());
    let locks: Vec<_> = locks.filter(|name| name.to_string_lossy().contains("lock")).collect();
    assert!(locks.is_empty(), "{locks:?}");
}
