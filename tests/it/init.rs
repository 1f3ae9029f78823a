//! `pointsman init`: the files that it writes work as the next command says.

use std::process::Command;

use super::program::{Output, Workspace, run_program};

fn with_keys(workspace: &Workspace, arguments: &str, keys: &[&str]) -> Output {
    let mut command: Command = workspace.command(arguments);
    command.envs(keys.iter().map(|key| (*key, "sk-secret-4711-0815")));
    run_program(command)
}

/// Returns the command that the last line names.
fn next_command(output: &Output) -> String {
    let line = output.stderr.lines().find_map(|line| line.split_once("next: pointsman ")).unwrap();
    line.1.to_owned()
}

#[test]
fn only_vendors_with_a_key_are_written_and_the_key_is_not() {
    let workspace = Workspace::empty();
    let output = with_keys(&workspace, "init", &["ANTHROPIC_API_KEY", "GEMINI_API_KEY"]);
    output.expect_stderr(
        0,
        &["wrote pointsman.toml with anthropic, gemini", "next: pointsman init --items FILE"],
    );
    let text = workspace.read("pointsman.toml");
    assert!(text.contains("env:ANTHROPIC_API_KEY") && !text.contains("[provider.openai]"), "{text}");
    assert!(!text.contains("4711"), "{text}");
    with_keys(&workspace, "check", &["ANTHROPIC_API_KEY", "GEMINI_API_KEY"])
        .expect_stderr(0, &["no problems found"]);
    with_keys(&workspace, "init", &["ANTHROPIC_API_KEY"])
        .expect_stderr(4, &["stays as it is", "--overwrite"]);
    assert_eq!(workspace.read("pointsman.toml"), text);
    with_keys(&workspace, "init --overwrite", &["OPENAI_API_KEY"]).expect_stderr(0, &["with openai"]);
    assert!(workspace.read("pointsman.toml").contains("[provider.openai]"));
}

#[test]
fn a_pipeline_for_a_file_of_items_works_without_a_key() {
    let workspace = Workspace::empty();
    let rows: String =
        (1..=12).map(|number| format!("{number},me{number}@example.org,\"Hello, you\"\n")).collect();
    workspace.write(
        "data.csv",
        format!("id,E-Mail,2nd \"line\"\n{}", rows).replace("2nd \"line\"", "\"2nd \"\"line\"\"\""),
    );
    let output = workspace.run("init --items data.csv");
    output.expect_stderr(
        0,
        &["wrote pointsman.toml", "wrote pipeline.toml", "set OPENAI_API_KEY, ANTHROPIC_API_KEY or"],
    );
    let next = next_command(&output);
    assert_eq!(next, "run pipeline.toml --items data.csv --out results.csv --limit 10 --simulate");
    let pipeline = workspace.read("pipeline.toml");
    assert!(pipeline.contains("{{ item[\"E-Mail\"] }}"), "{pipeline}");
    workspace.run(&next).expect_stderr(0, &["10 completed"]);
    assert!(workspace.read("results.csv").lines().count() >= 11);
    // A second time nothing is overwritten.
    workspace.run("init --items data.csv").expect_stderr(4, &["pipeline.toml exists"]);
    assert_eq!(workspace.read("pipeline.toml"), pipeline);
    // The configuration that was edited stays, also if the pipeline is replaced.
    let edited = workspace.read("pointsman.toml") + "# mine\n";
    workspace.write("pointsman.toml", &edited);
    workspace.run("init --items data.csv --overwrite").expect_stderr(0, &["results-2.csv"]);
    assert_eq!(workspace.read("pointsman.toml"), edited);
}

#[test]
fn a_configuration_that_is_there_stays_and_the_pipeline_is_written() {
    let workspace = Workspace::empty();
    workspace.write_config("");
    workspace.write("items.jsonl", "{\"a\": 1, \"b c\": {\"d\": 2}}\n");
    let output = workspace.run("init --items items.jsonl");
    output.expect_stderr(0, &["config.toml is a configuration already"]);
    assert!(!workspace.path("pointsman.toml").exists());
    workspace.run(&next_command(&output)).expect_stderr(0, &["1 completed"]);
}

#[test]
fn items_that_cannot_be_read_are_one_error_and_nothing_is_written() {
    let workspace = Workspace::empty();
    workspace.write("empty.jsonl", "");
    for (arguments, problem) in [
        ("init --items gone.csv", "gone.csv"),
        ("init --items empty.jsonl", "no items in empty.jsonl"),
        ("init --items -", "name a file"),
    ] {
        let output = workspace.run(arguments);
        output.expect_stderr(4, &[problem]);
        assert_eq!(output.stderr.matches("error: ").count(), 1, "{}", output.stderr);
        assert!(!workspace.path("pointsman.toml").exists());
    }
}
