//! The environment variables of the vendors, without a configuration file.

use super::program::{ONE_STEP, Output, Workspace, run_program};
use super::simulate::start_simulator_process;

const KEY: &str = "sk-secret-4711-0815";
const RUN: &str = "run pipeline.toml --items items.jsonl --out o.jsonl --report report.json";

fn new_workspace() -> Workspace {
    let workspace = Workspace::empty();
    workspace.write("pipeline.toml", ONE_STEP);
    workspace.write_items(3);
    workspace
}

fn run_with(workspace: &Workspace, variables: &[(&str, &str)], more: &str) -> Output {
    let mut program = workspace.command(&format!("{RUN} {more}"));
    program.envs(variables.iter().copied());
    run_program(program)
}

fn assert_no_key_in(workspace: &Workspace, output: &Output) {
    let written = ["o.jsonl", "report.json"]
        .map(|name| std::fs::read_to_string(workspace.path(name)).unwrap_or_default());
    for text in [&output.stdout, &output.stderr, &written[0], &written[1]] {
        // With their dashes, so that a duration of 14.711 ms does not match.
        let leaked = [KEY, "-4711", "4711-"].into_iter().find(|part| text.contains(part));
        assert!(leaked.is_none(), "{text}");
    }
}

#[test]
fn a_key_a_base_url_and_a_model_are_sufficient() {
    let workspace = new_workspace();
    let (_simulator, address) = start_simulator_process(&workspace, &format!("--set keys=[\"{KEY}\"]"));
    let base_url = format!("http://{address}/v1");
    let variables = [("OPENAI_API_KEY", KEY), ("OPENAI_BASE_URL", &base_url), ("OPENAI_MODEL", "gpt-x")];
    let output = run_with(&workspace, &variables, "-vv");
    output.expect_stderr(0, &["3 completed"]);
    assert!(!output.stderr.to_lowercase().contains("simulated"), "{}", output.stderr);
    let lines = workspace.output_lines("o.jsonl");
    assert_eq!(
        (&lines[0]["simulated"], &lines[0]["steps"]["answer"]["key"]),
        (&false.into(), &"env:OPENAI_API_KEY".into())
    );
    assert_no_key_in(&workspace, &output);
}

#[test]
fn a_refused_key_is_reported_by_its_label_and_never_shown() {
    let workspace = new_workspace();
    let (_simulator, address) = start_simulator_process(&workspace, "--set keys=[\"another\"]");
    let base_url = format!("http://{address}/v1");
    let variables = [("OPENAI_API_KEY", KEY), ("OPENAI_BASE_URL", &base_url), ("OPENAI_MODEL", "gpt-x")];
    for more in ["", "-vv --new --overwrite", "--json -vv --new --overwrite"] {
        let output = run_with(&workspace, &variables, more);
        output.expect_stderr(5, &["auth", "env:OPENAI_API_KEY"]);
        assert_eq!(workspace.output_lines("o.jsonl").len(), 0);
        assert_no_key_in(&workspace, &output);
    }
}

#[test]
fn without_a_key_one_message_names_the_variables_and_the_option_and_nothing_is_written() {
    let workspace = new_workspace();
    for command in [RUN, "plan pipeline.toml --items items.jsonl", "check pipeline.toml"] {
        let output = run_program(workspace.command(command));
        output.expect_stderr(
            3,
            &["no provider is configured", "OPENAI_API_KEY", "ANTHROPIC_API_KEY", "--simulate"],
        );
        assert_eq!(output.stderr.matches("error: ").count(), 1, "{command}: {}", output.stderr);
    }
    let mut files: Vec<_> =
        std::fs::read_dir(workspace.path(".")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    files.sort();
    assert_eq!(files, ["items.jsonl", "pipeline.toml"]);
}

#[test]
fn with_quiet_a_missing_configuration_is_one_line_and_exit_code_3() {
    let workspace = new_workspace();
    let elsewhere = Workspace::empty();
    for (name, more) in [("items.jsonl", "--quiet"), ("items.jsonl", "--quiet --new")] {
        let arguments = format!(
            "run {} --items {} --out {} {more}",
            workspace.path("pipeline.toml").display(),
            workspace.path(name).display(),
            workspace.path("o.jsonl").display(),
        );
        let output = elsewhere.run(&arguments);
        output.expect_stderr(3, &["error: no provider is configured; ", "OPENAI_API_KEY", "--simulate"]);
        assert_eq!((output.stderr.lines().count(), output.stdout.as_str()), (1, ""), "{}", output.stderr);
    }
    assert!(!workspace.path("o.jsonl").exists());
    assert_eq!(std::fs::read_dir(elsewhere.path(".")).unwrap().count(), 0);
}

#[test]
fn without_a_key_a_run_is_simulated_if_simulate_is_given() {
    let workspace = new_workspace();
    let output = run_with(&workspace, &[], "--simulate");
    output.expect_stderr(0, &["one [simulated]: 3 completed", "SIMULATED"]);
    assert_eq!(workspace.read_json("report.json")["simulated"], true);
    assert!(workspace.output_lines("o.jsonl").iter().all(|line| line["simulated"] == true));
    let planned = workspace.run("plan pipeline.toml --items items.jsonl --simulate");
    planned.expect_code(0);
    assert!(planned.stdout.contains("simulated/any [simulated]"), "{}", planned.stdout);
    workspace.run("check pipeline.toml --simulate").expect_stderr(0, &["no problems found"]);
}

#[test]
fn a_missing_key_never_replaces_real_answers_with_simulated_ones() {
    let workspace = new_workspace();
    let (_simulator, address) = start_simulator_process(&workspace, &format!("--set keys=[\"{KEY}\"]"));
    let base_url = format!("http://{address}/v1");
    let variables = [("OPENAI_API_KEY", KEY), ("OPENAI_BASE_URL", &base_url), ("OPENAI_MODEL", "gpt-x")];
    run_with(&workspace, &variables, "").expect_code(0);
    let lines = workspace.read("o.jsonl");
    let database = std::fs::read(workspace.path("pointsman.db")).unwrap();
    workspace.write(
        "items.jsonl",
        format!("{}{{\"id\":\"new\",\"text\":\"y\"}}\n", workspace.read("items.jsonl")),
    );
    let output = run_with(&workspace, &[("OPENAI_MODEL", "gpt-x")], "--quiet");
    output.expect_stderr(3, &["OPENAI_API_KEY", "--simulate"]);
    assert_eq!(
        (workspace.read("o.jsonl"), std::fs::read(workspace.path("pointsman.db")).unwrap()),
        (lines, database)
    );
}

#[test]
fn a_key_without_a_model_is_refused_and_the_missing_variable_is_named() {
    let workspace = new_workspace();
    let output = run_with(&workspace, &[("OPENAI_API_KEY", KEY)], "");
    output.expect_stderr(3, &["OPENAI_MODEL is not set", "OPENAI_MODEL=", "pointsman init", "--model MODEL"]);
    assert_no_key_in(&workspace, &output);
    assert!(!workspace.path("o.jsonl").exists());
}

#[test]
fn all_invalid_variables_are_reported_at_once() {
    let workspace = new_workspace();
    let variables = [
        ("OPENAI_API_KEY", KEY),
        ("OPENAI_MODEL", "m"),
        ("OPENAI_BASE_URL", "nowhere"),
        ("OPENAI_TEMPERATURE", "hot"),
        ("CLAUDE_API_KEY", KEY),
    ];
    let output = run_with(&workspace, &variables, "");
    output.expect_stderr(3, &["OPENAI_BASE_URL", "OPENAI_TEMPERATURE", "ANTHROPIC_MODEL is not set"]);
    assert_no_key_in(&workspace, &output);
}
