//! Which configuration a command uses, the `.env` file beside it, and `pointsman config`.

use std::fs;
use std::process::Command;

use serde_json::Value;

use super::program::{ONE_STEP, Output, Workspace, run_program};
use super::simulate::start_simulator_process;

const SIMULATED: &str = "[provider.NAME]\nbase_url = \"simulator\"\n";
const KEY: &str = "sk-secret-4711-0815";

fn config_of(name: &str) -> String {
    SIMULATED.replace("NAME", name)
}

/// Returns the providers of the configuration that a command finds, separated by spaces.
fn providers(command: Command) -> String {
    let output = run_program(command);
    output.expect_code(0);
    let shown: Value = serde_json::from_str(&output.stdout).unwrap();
    let keys = shown["values"].as_array().unwrap().iter().map(|value| value["key"].as_str().unwrap());
    let mut found: Vec<&str> =
        keys.filter_map(|key| key.strip_prefix("provider.")?.split('.').next()).collect();
    found.dedup();
    found.join(" ")
}

#[test]
fn the_first_configuration_in_the_order_is_used() {
    let workspace = Workspace::empty();
    let home = workspace.path("home");
    for folder in ["home/pointsman", "p"] {
        fs::create_dir_all(workspace.path(folder)).unwrap();
    }
    workspace.write("p/pipeline.toml", ONE_STEP);
    let found = |variables: &[(&str, &str)], arguments: &str| {
        let mut command = workspace.command(&format!("config --json {arguments}"));
        command.env("XDG_CONFIG_HOME", &home).envs(variables.iter().copied());
        providers(command)
    };
    let pipeline = "p/pipeline.toml";
    assert_eq!(found(&[], pipeline), "");
    for (file, name) in [
        ("home/pointsman/config.toml", "user"),
        ("p/config.toml", "beside-common"),
        ("p/pointsman.toml", "beside"),
        ("config.toml", "common"),
        ("pointsman.toml", "own"),
    ] {
        workspace.write(file, config_of(name));
        assert_eq!(found(&[], pipeline), name);
    }
    workspace.write("other.toml", config_of("other"));
    assert_eq!(found(&[("POINTSMAN_CONFIG", "other.toml")], pipeline), "other");
    assert_eq!(found(&[("POINTSMAN_CONFIG", "")], pipeline), "own");
    assert_eq!(found(&[("POINTSMAN_CONFIG", "other.toml")], "--config config.toml"), "common");
    let mut command = workspace.command("check");
    command.env("POINTSMAN_CONFIG", "gone.toml");
    run_program(command).expect_stderr(3, &["gone.toml", "POINTSMAN_CONFIG"]);
}

#[test]
fn a_configuration_that_the_variable_names_and_that_is_faulty_leads_to_no_other_store() {
    let workspace = Workspace::new("");
    workspace.write_items(1);
    workspace.run("run pipeline.toml --items items.jsonl --out o.jsonl").expect_code(0);
    workspace.write("faulty.toml", "[store]\nurl = ");
    for file in ["gone.toml", "faulty.toml"] {
        for arguments in ["delete 1", "runs", "resume", "cache", "results 1"] {
            let mut command = workspace.command(arguments);
            command.env("POINTSMAN_CONFIG", file);
            run_program(command).expect_stderr(3, &[file]);
        }
    }
    assert_eq!(workspace.run("runs --json").stdout.lines().count(), 1, "nothing was deleted");
}

#[test]
fn the_config_toml_of_another_program_is_skipped_with_a_note() {
    let workspace = Workspace::empty();
    workspace.write("pipeline.toml", ONE_STEP);
    workspace.write_items(2);
    let hugo = "baseURL = 'https://example.org/'\ntitle = 'A page'\n[markup.goldmark]\nx = 1\n";
    workspace.write("config.toml", hugo);
    let run = "run pipeline.toml --items items.jsonl --out o.jsonl --simulate";
    workspace.run(run).expect_stderr(0, &["2 completed", "config.toml", "is skipped", "pointsman.toml"]);
    workspace.run("check").expect_stderr(3, &["no provider is configured", "pointsman init"]);
    workspace.write("config.toml", "[provider.a\nbase_url = ");
    workspace.run("check").expect_stderr(3, &["config.toml:1:"]);
    workspace.write("config.toml", "[providr.a]\nbase_url = 'simulator'\n");
    workspace.run("check").expect_stderr(3, &["did you mean `provider`?"]);
}

#[test]
fn paths_in_a_configuration_are_relative_to_it_and_the_default_store_is_not() {
    let workspace = Workspace::empty();
    let (simulator, address) = start_simulator_process(&workspace, &format!("--set keys=[\"{KEY}\"]"));
    fs::create_dir(workspace.path("conf")).unwrap();
    workspace.write("conf/key", KEY);
    workspace.write("conf/pipeline.toml", ONE_STEP);
    workspace.write_items(2);
    let provider = format!(
        "[provider.p]\nbase_url = \"http://{address}/v1\"\nkeys = [\"file:key\"]\nheaders = {{ x-team = \"file:key\" }}\n\
         models.m = {{}}\n"
    );
    workspace.write("conf/pointsman.toml", &provider);
    let run = "run conf/pipeline.toml --items items.jsonl --out o.jsonl";
    workspace.run(run).expect_stderr(0, &["2 completed"]);
    assert!(workspace.path("pointsman.db").exists() && !workspace.path("conf/pointsman.db").exists());
    workspace.write("conf/pointsman.toml", format!("{provider}[store]\nurl = \"sqlite:runs.db\"\n"));
    workspace.run(&format!("{run} --new --overwrite")).expect_stderr(0, &["2 completed"]);
    assert!(workspace.path("conf/runs.db").exists());
    let listed = workspace.run("runs --config conf/pointsman.toml --json");
    listed.expect_code(0);
    assert_eq!(listed.stdout.lines().count(), 1, "{}", listed.stdout);
    simulator.signal("INT");
    simulator.wait().expect_code(0);
}

#[test]
fn a_stored_run_is_resumed_with_the_configuration_that_the_variable_named() {
    let workspace = Workspace::empty();
    workspace.write("mine.toml", config_of("mine"));
    workspace.write("pipeline.toml", ONE_STEP);
    workspace.write_items(2);
    let mut command = workspace.command("run pipeline.toml --items items.jsonl --out o.jsonl");
    command.env("POINTSMAN_CONFIG", "mine.toml");
    run_program(command).expect_stderr(0, &["2 completed"]);
    workspace.write_items(3);
    workspace.run("resume 1").expect_code(0);
    assert_eq!(workspace.output_lines("o.jsonl").len(), 3);
}

fn with_key(workspace: &Workspace, arguments: &str, variables: &[(&str, &str)]) -> Output {
    let mut command = workspace.command(arguments);
    command.envs(variables.iter().copied());
    run_program(command)
}

#[test]
fn a_dot_env_beside_the_configuration_gives_keys_and_never_overrides_the_environment() {
    let workspace = Workspace::empty();
    let (simulator, address) = start_simulator_process(&workspace, &format!("--set keys=[\"{KEY}\"]"));
    fs::create_dir(workspace.path("conf")).unwrap();
    workspace.write("conf/pipeline.toml", ONE_STEP);
    workspace.write_items(2);
    workspace.write(
        "conf/pointsman.toml",
        format!(
            "[provider.p]\nbase_url = \"http://{address}/v1\"\nkeys = [\"env:MY_KEY\"]\nmodels.m = {{}}\n"
        ),
    );
    workspace.write("conf/.env", format!("# keys\nexport MY_KEY='{KEY}'\n"));
    let run = "run conf/pipeline.toml --items items.jsonl --out o.jsonl --new --overwrite -vv";
    let output = with_key(&workspace, run, &[]);
    output.expect_stderr(0, &["2 completed"]);
    assert!(!output.stderr.contains("4711"), "{}", output.stderr);
    with_key(&workspace, run, &[("MY_KEY", "")]).expect_stderr(0, &["2 completed"]);
    with_key(&workspace, run, &[("MY_KEY", "another")]).expect_stderr(5, &["auth"]);
    // Without a configuration, that of the working directory is read.
    workspace.write("pipeline.toml", ONE_STEP);
    let run = run.replace("conf/", "");
    workspace.run(&run).expect_stderr(3, &["no provider is configured"]);
    let variables = format!("OPENAI_API_KEY={KEY}\nOPENAI_BASE_URL=http://{address}/v1\nOPENAI_MODEL=m\n");
    workspace.write(".env", &variables);
    workspace.run(&run).expect_stderr(0, &["2 completed"]);
    let shown = workspace.run("config");
    shown.expect_code(0);
    assert!(shown.stdout.contains("# OPENAI_MODEL in .env:3\n"), "{}", shown.stdout);
    assert!(!shown.stdout.contains("4711"), "{}", shown.stdout);
    simulator.signal("INT");
    simulator.wait().expect_code(0);
}

#[test]
fn a_faulty_line_of_a_dot_env_is_one_error_without_its_content() {
    let workspace = Workspace::new("");
    workspace.write(".env", format!("A=1\n\nMY_KEY {KEY}\n"));
    let output = workspace.run("check");
    output.expect_stderr(3, &[".env:3: this line does not set a variable"]);
    assert!(!output.stderr.contains("4711"), "{}", output.stderr);
    assert_eq!(output.stderr.matches("error: ").count(), 1, "{}", output.stderr);
    workspace.write(".env", "OPENAI_API_KEY=x\n");
    workspace.run("check").expect_stderr(0, &["no problems found"]);
}

#[test]
fn the_configuration_is_shown_as_toml_with_the_source_of_every_value_and_no_secret() {
    let workspace = Workspace::empty();
    workspace.write(
        "pointsman.toml",
        "[provider.p]\nbase_url = \"http://127.0.0.1:1/v1\"\nkeys = [\"command:echo sk-live-0123456789abcdef\"]\n\
         headers.x-team = \"hunter2\"\nmodels.gpt-4.1 = { context = 1000 }\n[retry]\nmax_rounds = 2\n",
    );
    let shown = workspace.run("config");
    shown.expect_code(0);
    let table: toml::Table = shown.stdout.parse().unwrap_or_else(|error| panic!("{error}\n{}", shown.stdout));
    assert_eq!(table["provider"]["p"]["models"]["gpt-4.1"]["context"].as_integer(), Some(1000));
    for part in ["max_rounds = 2", "# pointsman.toml:7", "# pointsman.toml:5", "# default"] {
        assert!(shown.stdout.contains(part), "{part}\n{}", shown.stdout);
    }
    for secret in ["hunter2", "0123456789abcdef"] {
        assert!(!shown.stdout.contains(secret), "{}", shown.stdout);
    }
    let json: Value = serde_json::from_str(&workspace.run("config --json").stdout).unwrap();
    assert_eq!(json["file"], "pointsman.toml");
    let values = json["values"].as_array().unwrap();
    let rounds = values.iter().find(|value| value["key"] == "retry.max_rounds").unwrap();
    assert_eq!(rounds["source"], serde_json::json!({ "from": "file", "file": "pointsman.toml", "line": 7 }));
}

#[test]
fn a_model_with_a_version_needs_no_quotes_and_another_dot_gets_advice() {
    let workspace = Workspace::empty();
    let provider = "[provider.p]\nbase_url = \"http://127.0.0.1:1/v1\"\n";
    workspace.write("pipeline.toml", format!("{ONE_STEP}route = \"r\"\n"));
    workspace.write(
        "pointsman.toml",
        format!("{provider}[provider.p.models.gpt-4.1]\n[provider.p.models.llama3.2]\ncontext = 8000\n[route.r]\ntargets = [\"p/gpt-4.1\", \"p/llama3.2\"]\n"),
    );
    workspace.run("check pipeline.toml").expect_stderr(0, &["no problems found"]);
    workspace.write("pointsman.toml", format!("{provider}[provider.p.models.mistral.large]\n"));
    workspace.run("check").expect_stderr(3, &["unknown key `large`", "in quotes: \"mistral.large\""]);
    workspace.write("pointsman.toml", format!("{provider}[provider.p.models.m.limit]\nburst = \"1s\"\n"));
    workspace.run("check").expect_stderr(3, &["did you mean `limits`?"]);
}

#[test]
fn keys_of_other_programs_in_a_step_are_explained() {
    let workspace = Workspace::new("");
    for (line, advice) in [
        ("model = \"gpt-6-luna\"", "write route = \"NAME\""),
        ("provider = \"openai\"", "[route.NAME]"),
        ("timeout = \"30s\"", "deadline = \"5m\""),
        ("retries = 3", "max_validation_retries"),
        ("when = \"{{ item.text == 'x' }}\"", "a condition has no braces: write when = \"item.text == 'x'\""),
        ("attach = [\"{{ item.E-Mail }}\"]", "write item[\"E-Mail\"]"),
        ("system = \"{{ item.2nd }}\"", "write item[\"2nd\"]"),
    ] {
        workspace.write("pipeline.toml", format!("{ONE_STEP}{line}\n"));
        let output = workspace.run("check pipeline.toml");
        output.expect_stderr(3, &[advice]);
        assert_eq!(output.stderr.matches("error: ").count(), 1, "{}", output.stderr);
    }
}
