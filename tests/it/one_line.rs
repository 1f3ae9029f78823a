//! Runs and plans whose step is on the command line.

use std::process::Command;

use serde_json::{Value, json};

use pointsman::simulator::{Settings, Simulator, Vendor};

use super::program::*;
use super::support::{provider_config, start_simulator};

const KEY: &str = "sk-secret-4711-0815";

/// A workspace with five items as CSV, and no configuration.
fn workspace() -> Workspace {
    let workspace = Workspace::empty();
    let rows = "id,text\n1,It crashes\n2,How do I log in?\n3,Great\n4,It is slow\n5,Thanks\n";
    workspace.write("feedback.csv", rows);
    workspace
}

fn command(workspace: &Workspace, arguments: &[&str]) -> Command {
    let mut program = workspace.command("");
    program.args(arguments);
    program
}

/// Runs the program with the key of OpenAI, whose address is that of the simulator.
fn run_at(simulator: &Simulator, workspace: &Workspace, arguments: &[&str]) -> Output {
    let mut program = command(workspace, arguments);
    program.env("OPENAI_API_KEY", KEY).env("OPENAI_BASE_URL", simulator.base_url(Vendor::OpenAi));
    run_program(program)
}

const ITEMS: [&str; 4] = ["--items", "feedback.csv", "--out", "o.jsonl"];

fn with_items<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
    arguments.iter().copied().chain(ITEMS).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prompt_and_choices_on_the_command_line_need_no_file() {
    let simulator = start_simulator(Settings::default());
    let workspace = workspace();
    let arguments = with_items(&[
        "run",
        "--prompt",
        "Classify: {{ item.text }}",
        "--choice",
        "bug, question,praise",
        "--model",
        "openai/gpt-6-luna",
        "--temperature",
        "0",
        "--max-tokens",
        "50",
    ]);
    let output = run_at(&simulator, &workspace, &arguments);
    output.expect_stderr(0, &["answer: 5 completed"]);
    assert!(!output.stderr.contains(KEY), "{}", output.stderr);
    let lines = workspace.output_lines("o.jsonl");
    assert_eq!(lines.len(), 5);
    for line in &lines {
        let answer = line["answers"]["answer"].as_str().unwrap();
        assert!(["bug", "question", "praise"].contains(&answer), "{line}");
        assert_eq!(line["steps"]["answer"]["provider"], "openai", "{line}");
        assert_eq!(line["steps"]["answer"]["model"], "gpt-6-luna", "{line}");
    }
    // The same command is the same run: nothing is sent again.
    run_at(&simulator, &workspace, &arguments).expect_code(0);
    assert_eq!(simulator.counts().requests, 5);
    // `resume` knows the settings.
    workspace.write("feedback.csv", "id,text\n6,New\n");
    let mut resumed = workspace.command("resume 1");
    resumed.env("OPENAI_API_KEY", KEY).env("OPENAI_BASE_URL", simulator.base_url(Vendor::OpenAi));
    run_program(resumed).expect_code(0);
    assert_eq!(simulator.counts().requests, 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_setting_makes_another_run() {
    let simulator = start_simulator(Settings::default());
    let workspace = workspace();
    let runs = [
        vec!["--prompt", "A {{ item.text }}"],
        vec!["--prompt", "B {{ item.text }}"],
        vec!["--prompt", "B {{ item.text }}", "--temperature", "0.5"],
        vec!["--prompt", "B {{ item.text }}", "--schema", "kind, urgent bool"],
        vec!["--prompt", "B {{ item.text }}", "--system", "Be brief."],
    ];
    for (number, settings) in runs.iter().enumerate() {
        let out = format!("{number}.jsonl");
        let arguments =
            [&["run", "--model", "gpt-6-luna", "--items", "feedback.csv", "--out", &out], &settings[..]];
        run_at(&simulator, &workspace, &arguments.concat()).expect_code(0);
        assert_eq!(workspace.output_lines(&out).len(), 5);
    }
    let listed = workspace.run("runs --json");
    assert_eq!(listed.stdout.lines().count(), runs.len(), "{}", listed.stdout);
    let structured = &workspace.output_lines("3.jsonl")[0]["answers"]["answer"];
    assert!(structured["kind"].is_string() && structured["urgent"].is_boolean(), "{structured}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_pipeline_says_is_replaced_by_the_command_line() {
    let simulator = start_simulator(Settings::default());
    let config = provider_config("a", &simulator, "") + "[provider.a.models.large]\n";
    let workspace = Workspace::new(&config);
    workspace.write_items(2);
    workspace.write("prompt.txt", "Translate {{ item.text }}\n");
    let run = |arguments: &[&str]| {
        let files = ["run", "pipeline.toml", "--items", "items.jsonl", "--out", "o.jsonl", "--overwrite"];
        run_program(command(&workspace, &[&files[..], arguments].concat()))
    };
    run(&["--prompt", "@prompt.txt", "--model", "large"]).expect_code(0);
    let line = &workspace.output_lines("o.jsonl")[0];
    assert_eq!(line["steps"]["answer"]["model"], "large");
    let answer = line["answers"]["answer"].as_str().unwrap();
    assert!(answer.contains("Translate") && !answer.contains("Say something"), "{answer}");
    // Without the settings it is the run of the file again.
    run(&[]).expect_code(0);
    let answer = workspace.output_lines("o.jsonl")[0]["answers"]["answer"].clone();
    assert!(answer.as_str().unwrap().contains("Say something"), "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_concurrency_of_the_command_line_is_that_of_the_run() {
    let simulator = start_simulator(Settings {
        latency: pointsman::simulator::Latency::Fixed(std::time::Duration::from_millis(50)),
        ..Settings::default()
    });
    let workspace = Workspace::new(&provider_config("a", &simulator, "limits.concurrency = 2"));
    workspace.write_items(40);
    let run = |more: &str| {
        workspace
            .run(&format!("run pipeline.toml --items items.jsonl --out o.jsonl --new --overwrite {more}"))
    };
    run("--concurrency 5").expect_code(0);
    assert_eq!(simulator.counts().peak_in_flight, 5);
}

#[test]
fn the_plan_has_the_same_settings() {
    let workspace = workspace();
    let arguments =
        ["plan", "--prompt", "Say {{ item.text }}", "--items", "feedback.csv", "--simulate", "--json"];
    let output = run_program(command(&workspace, &arguments));
    output.expect_code(0);
    let plan: Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!((&plan["items"], &plan["pipeline"]), (&json!(5), &json!("answer")));
}

#[test]
fn a_prompt_without_a_field_of_the_item_is_noted_once_with_what_is_meant() {
    let workspace = workspace();
    workspace.write("pr.txt", "Classify: {{ item.text }}\n");
    let constant = "the prompt uses no field of the item: every item gets the same request";
    for (prompt, meant) in [
        ("x {item.text}", "write {{ item.text }} with two braces"),
        ("x {text}", "write {{ item.text }} with two braces"),
        ("pr.txt", "pr.txt is a file, and --prompt @pr.txt reads it"),
        ("x", "same request\n"),
        ("@pr.txt", ""),
    ] {
        for command_line in [&["run", "--store", "none"][..], &["plan"], &["check"]] {
            let step = ["--prompt", prompt, "--items", "feedback.csv", "--simulate"];
            let output = run_program(command(&workspace, &[command_line, &step].concat()));
            output.expect_code(0);
            let notes = output.stderr.matches(constant).count();
            assert_eq!(
                notes,
                usize::from(!meant.is_empty()),
                "{prompt}, {command_line:?}: {}",
                output.stderr
            );
            assert!(output.stderr.contains(meant), "{prompt}, {command_line:?}: {}", output.stderr);
        }
    }
    let check = ["check", "--prompt", "x", "--items", "feedback.csv", "--simulate", "--json"];
    let checked: Value = serde_json::from_str(&run_program(command(&workspace, &check)).stdout).unwrap();
    let notes = checked["notes"].as_array().unwrap();
    assert_eq!(notes.iter().filter(|note| **note == constant).count(), 1, "{checked}");
}

#[test]
fn an_unknown_field_is_explained_with_those_that_the_items_have() {
    let workspace = workspace();
    let run = |prompt: &str| {
        let arguments = with_items(&["run", "--simulate", "--prompt", prompt]);
        run_program(command(&workspace, &arguments))
    };
    run("{{ item.zzz }}").expect_stderr(3, &["`item.zzz` is undefined; the item has `id`, `text`"]);
    let bare = run("{{ text }}");
    bare.expect_stderr(3, &["unknown name `text`", "written item.NAME, such as `item.text`"]);
    let own = run("{{ answr }}");
    own.expect_stderr(3, &["such as `item.answr`"]);
    assert!(!own.stderr.contains("`answer`"), "{}", own.stderr);
}

#[test]
fn a_wrong_setting_is_one_message_that_says_what_to_do() {
    let workspace = workspace();
    workspace.write("two.toml", TWO_STEPS);
    let prompt = ["--prompt", "Say {{ item.text }}"];
    let cases: [(&[&str], i32, &[&str]); 15] = [
        (&["--prompt", "a", "--prompt", "b"], 2, &["--prompt", "cannot be used multiple times"]),
        (&[], 2, &["there is no prompt", "--prompt \"Classify: {{ item.text }}\""]),
        (&["Say {{ item.text }}"], 2, &["write a prompt after --prompt"]),
        (&["none.toml"], 3, &["cannot read the pipeline none.toml"]),
        (&[&prompt[..], &["--choice", "bug|question"]].concat(), 2, &["with commas between them"]),
        (&[&prompt[..], &["--model", "claude-haiku-4-5"]].concat(), 3, &["ANTHROPIC_API_KEY"]),
        (&[&prompt[..], &["--model", "gpt-6-lnua"]].concat(), 3, &["OPENAI_API_KEY"]),
        (&[&prompt[..], &["--model", "opneai/gpt-6-luna"]].concat(), 3, &["no provider `opneai`"]),
        (&[&prompt[..], &["--model", "cluade-haiku-4-5"]].concat(), 3, &["did you mean claude-haiku-4-5?"]),
        (&[&prompt[..], &["--schema", "age itn"]].concat(), 2, &["--schema", "did you mean \"int\"?"]),
        (&[&prompt[..], &["--schema", "no.json"]].concat(), 2, &["there is no file no.json"]),
        (&[&prompt[..], &["--choice", "a,,b"]].concat(), 2, &["an answer is empty"]),
        (&[&prompt[..], &["--choice", "a", "--schema", "b"]].concat(), 2, &["cannot be used with"]),
        (&["--prompt", "@none.txt"], 2, &["cannot read none.txt"]),
        (&["two.toml", "--prompt", "x", "--simulate"], 3, &["the pipeline has 2 steps with a prompt"]),
    ];
    for (arguments, code, words) in cases {
        let output = run_program(command(&workspace, &[&["run"], &with_items(arguments)[..]].concat()));
        output.expect_stderr(code, words);
        assert!(!workspace.path("o.jsonl").exists(), "{arguments:?}");
    }
    for name in ["o.xlsx", "o.csv.gz", "o.tsv"] {
        let arguments =
            [&["run", "--simulate", "--items", "feedback.csv", "--out", name], &prompt[..]].concat();
        run_program(command(&workspace, &arguments)).expect_stderr(2, &["results are not written as"]);
    }
}

const TWO_STEPS: &str = r#"
name = "two"
[[step]]
name = "topic"
prompt = "Name the topic of {{ item.text }}"
[[step]]
name = "reply"
prompt = "Reply to {{ item.text }}"
"#;
