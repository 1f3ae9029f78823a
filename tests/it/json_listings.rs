//! `--json` of the commands that list: the fields are those of docs/operations.md, and standard output has nothing else.

use std::fs;
#[cfg(feature = "server")]
use std::time::Duration;

use serde_json::Value;

#[cfg(feature = "server")]
use super::daemon::DaemonFolder;
use super::program::{Output, Workspace, parse_lines, repository_path};
#[cfg(feature = "server")]
use super::support::start_simulator;

/// Creates a workspace with a run of three items, one of which fails.
fn workspace_with_a_run() -> Workspace {
    let workspace = Workspace::new("[simulator]\nfaults = [{ kind = \"refusal\", contains = \"thing 2\" }]");
    workspace.write_items(3);
    workspace.run("run pipeline.toml --items items.jsonl --out o.jsonl").expect_code(1);
    workspace
}

/// Creates a workspace whose models have a price from each source.
fn workspace_with_prices() -> Workspace {
    Workspace::new(
        "[provider.simulated]\nbase_url = \"simulator\"\nmodels.any = {}\n\
         [provider.mine]\nbase_url = \"http://localhost:1/v1\"\n[provider.mine.models]\n\
         own = { price = { input = 7, output = 9.5 } }\nother = {}\n[provider.claude]\nformat = \"anthropic\"\n\
         keys = [\"env:NONE\"]\nmodels.claude-haiku-4-5 = {}\n\
         [route.default]\ntargets = [\"claude/claude-haiku-4-5\"]\n",
    )
}

/// Returns the documented fields of a command's objects.
fn documented_fields(command: &str) -> Vec<String> {
    let text = fs::read_to_string(repository_path("docs/operations.md")).unwrap();
    let start = format!("| {command} | ");
    let row = text.lines().find_map(|line| line.strip_prefix(&start)).unwrap_or_else(|| panic!("{command}"));
    let (_, fields) = row.split_once(" | ").unwrap();
    // What follows a colon are values.
    let fields = fields.split(": ").next().unwrap();
    fields.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Asserts that an object has the documented fields of a command.
#[track_caller]
fn assert_has_fields(command: &str, object: &Value) {
    let fields = documented_fields(command);
    assert!(!fields.is_empty(), "{command}");
    for field in fields {
        assert!(object.get(&field).is_some(), "{command} has no {field}: {object}");
    }
}

/// Returns the one object that a command has written.
fn object(output: &Output) -> Value {
    output.expect_code(0);
    serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", output.stdout))
}

#[test]
fn each_line_of_a_listing_has_the_documented_fields() {
    let workspace = workspace_with_a_run();
    for (row, command) in [("`runs`", "runs --json"), ("`failures RUN`", "failures 1 --json")] {
        let output = workspace.run(command);
        output.expect_code(0);
        let lines = parse_lines(&output.stdout);
        assert_eq!(lines.len(), 1, "{command}: {lines:?}");
        lines.iter().for_each(|line| assert_has_fields(row, line));
    }
    assert_has_fields("`report RUN`", &object(&workspace.run("report 1 --json")));
}

#[test]
fn prices_are_listed_as_json_with_a_word_for_their_source() {
    let output = workspace_with_prices().run("prices --json");
    assert_eq!(output.expect_code(0), "");
    let lines = parse_lines(&output.stdout);
    assert_eq!(lines.len(), 4, "{lines:?}");
    lines.iter().for_each(|line| assert_has_fields("`prices`", line));
    let source = |target: &str| {
        let line = lines.iter().find(|line| line["target"] == target).unwrap_or_else(|| panic!("{target}"));
        (line["source"].as_str().unwrap().to_owned(), line["price"].clone())
    };
    assert_eq!(source("simulated/any"), ("simulated".to_owned(), Value::Null));
    assert_eq!(source("mine/other"), ("unknown".to_owned(), Value::Null));
    let (own, price) = source("mine/own");
    let dollars = (price["input"].as_f64(), price["output"].as_f64());
    assert_eq!((own.as_str(), dollars), ("configuration", (Some(7.0), Some(9.5))));
    let (listed, price) = source("claude/claude-haiku-4-5");
    assert_eq!((listed.as_str(), price["input"].as_f64()), ("built_in_list", Some(1.0)));
}

#[test]
fn the_whole_list_of_prices_names_the_vendor_of_each_model() {
    let output = Workspace::empty().run("prices --all --json");
    assert_eq!(output.expect_code(0), "");
    let lines = parse_lines(&output.stdout);
    lines.iter().for_each(|line| assert_has_fields("`prices --all`", line));
    for vendor in ["anthropic", "openai", "gemini"] {
        assert!(lines.iter().any(|line| line["vendor"] == vendor), "{vendor}");
    }
    for line in &lines {
        assert!(line["price"]["input"].as_f64().is_some_and(|dollars| dollars > 0.0), "{line}");
        assert!(line["source"].as_str().unwrap().starts_with("https://"), "{line}");
    }
    let text = Workspace::empty().run("prices --all").stdout;
    assert_eq!(text.lines().count() - 1, lines.len());
}

#[test]
fn a_check_is_one_object_with_the_problems_or_what_was_found_in_the_items() {
    let workspace = Workspace::new("");
    workspace.write_items(2);
    let valid = object(&workspace.run("check pipeline.toml --json"));
    assert_has_fields("`check`", &valid);
    assert_eq!((&valid["valid"], &valid["items"]), (&true.into(), &Value::Null));
    assert_eq!(valid["problems"], Value::Array(Vec::new()));
    let items = object(&workspace.run("check pipeline.toml --items items.jsonl --json"));
    assert_eq!(items["items"]["failing_items"], 0, "{items}");
    workspace.write("items.jsonl", "{\"txt\": \"a\"}\n");
    let failing = workspace.run("check pipeline.toml --items items.jsonl --json");
    assert_eq!(failing.expect_code(1), "");
    let failing: Value = serde_json::from_str(&failing.stdout).unwrap();
    assert_eq!((&failing["valid"], &failing["items"]["failing_items"]), (&true.into(), &1.into()));
    workspace.write("pipeline.toml", "name = \"one\"\n[[step]]\nname = \"answer\"\npromt = \"a\"\n");
    let faulty = workspace.run("check pipeline.toml --json");
    assert_eq!(faulty.expect_code(3), "");
    let faulty: Value = serde_json::from_str(&faulty.stdout).unwrap();
    assert_has_fields("`check`", &faulty);
    assert_eq!(faulty["valid"], false);
    let mut problems = faulty["problems"].as_array().unwrap().iter();
    let problem = problems.find(|problem| problem["message"] == "unknown key `promt`").unwrap();
    assert_eq!(problem["location"], "pipeline.toml:4:1", "{faulty}");
    assert!(problem["help"].as_str().unwrap().contains("prompt"), "{faulty}");
}

#[test]
fn the_configuration_the_models_and_the_cache_have_the_documented_fields() {
    let workspace = workspace_with_a_run();
    let config = object(&workspace.run("config --json"));
    assert_has_fields("`config`", &config);
    for field in ["key", "value", "source"] {
        assert!(config["values"][0].get(field).is_some(), "{field}: {}", config["values"][0]);
    }
    assert_has_fields("`cache`", &object(&workspace.run("cache --json")));
    assert_has_fields("`cache prune`", &object(&workspace.run("cache prune --older-than 30d --json")));
    let models = workspace.run("models --json");
    let models: Value = serde_json::from_str(&models.stdout).unwrap_or_else(|_| panic!("{models:?}"));
    assert_has_fields("`models`", &models[0]);
}

#[cfg(feature = "server")]
#[test]
fn tokens_and_the_state_of_a_store_have_the_documented_fields() {
    let workspace = workspace_with_a_run();
    let none = workspace.run("token list --json");
    assert_eq!((none.expect_code(0), none.stdout.as_str()), ("", ""));
    workspace.run("token new --name ci --scope read,run --rate 60/m").expect_code(0);
    let listed = workspace.run("token list --json");
    assert_eq!(listed.expect_code(0), "");
    let tokens = parse_lines(&listed.stdout);
    assert_eq!(tokens.len(), 1);
    assert_has_fields("`token list`", &tokens[0]);
    let status = object(&workspace.run("status --json"));
    assert_has_fields("`status` of a store", &status);
    assert_has_fields("`runs`", &status["runs"][0]);
    assert_eq!(status["server"], Value::Null);
}

#[cfg(feature = "server")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_state_and_the_prices_of_a_daemon_have_the_documented_fields() {
    let simulator = start_simulator(pointsman::simulator::Settings::default());
    let folder = DaemonFolder::new(&simulator);
    let daemon = folder.start().await;
    let workspace = Workspace::empty();
    let server = format!("--server http://{}", daemon.address());
    let status = tokio::task::block_in_place(|| object(&workspace.run(&format!("status --json {server}"))));
    assert_has_fields("`status` of a daemon", &status);
    let prices = tokio::task::block_in_place(|| workspace.run(&format!("prices --json {server}")));
    assert_eq!(prices.expect_code(0), "");
    let prices = parse_lines(&prices.stdout);
    assert!(!prices.is_empty());
    prices.iter().for_each(|line| assert_has_fields("`prices`", line));
    daemon.stop(Duration::ZERO).await;
}
