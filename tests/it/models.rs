//! `pointsman models`: the lists of the providers, over HTTP.

use serde_json::Value;

use super::program::{Output, Workspace, run_program};
use super::scripted_server::{ScriptedServer, response};
use super::simulate::start_simulator_process;

const KEY: &str = "sk-secret-4711-0815";

fn run(workspace: &Workspace, arguments: &str) -> Output {
    let mut command = workspace.command(arguments);
    command.env("KEY", KEY).env("WRONG", "sk-wrong-4711-0815");
    run_program(command)
}

/// Starts a simulator with this many models, and writes a configuration with a provider of each format.
fn start(workspace: &Workspace, models: usize) -> (super::program::RunningProgram, String) {
    let names: Vec<String> = (0..models).map(|number| format!("\"model-{number:04}\"")).collect();
    workspace
        .write("sim.toml", format!("[simulator]\nkeys = [\"{KEY}\"]\nmodels = [{}]\n", names.join(", ")));
    let (simulator, address) = start_simulator_process(workspace, "--config sim.toml");
    workspace.write(
        "pointsman.toml",
        format!(
            "[provider.one]\nbase_url = \"http://{address}/v1\"\nkeys = [\"env:KEY\"]\n\
             models.small = {{ name = \"model-0001\", context = 1000, price = {{ input = 1, output = 2 }} }}\n\
             [provider.two]\nformat = \"anthropic\"\nbase_url = \"http://{address}\"\nkeys = [\"env:KEY\"]\n\
             [provider.three]\nformat = \"gemini\"\nbase_url = \"http://{address}\"\nkeys = [\"env:KEY\"]\n"
        ),
    );
    (simulator, address)
}

#[test]
fn every_page_of_every_format_is_listed() {
    let workspace = Workspace::empty();
    let (_simulator, _) = start(&workspace, 2_500);
    let output = run(&workspace, "models --json");
    output.expect_code(0);
    let listed: Value = serde_json::from_str(&output.stdout).unwrap();
    let providers = listed.as_array().unwrap();
    assert_eq!(providers.len(), 3);
    for provider in providers {
        let models = provider["models"].as_array().unwrap();
        assert_eq!(models.len(), 2_500, "{}", provider["provider"]);
        assert_eq!(models[2_499]["name"], "model-2499");
    }
    let small = &providers[0]["models"][1];
    assert_eq!((&small["context"], &small["configured_as"]), (&1000.into(), &"small".into()));
    assert_eq!(small["price"]["output"], 2.0);
    assert_eq!(providers[1]["models"][0]["context"], 200_000);
    assert_eq!(providers[2]["models"][0]["max_output"], 65_536);
}

#[test]
fn a_table_shows_the_models_of_one_provider() {
    let workspace = Workspace::empty();
    let (_simulator, _) = start(&workspace, 3);
    let output = run(&workspace, "models --provider one");
    output.expect_stderr(0, &["--model"]);
    let lines: Vec<&str> = output.stdout.lines().collect();
    assert_eq!(lines.len(), 4, "{}", output.stdout);
    assert!(lines[2].contains("one/model-0001") && lines[2].contains("one/small"), "{}", output.stdout);
    run(&workspace, "models --provider on").expect_stderr(4, &["there is no provider `on`"]);
    run(&workspace, "models --provider thre").expect_stderr(4, &["did you mean three?"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_a_provider_chooses_is_one_cell_of_the_table() {
    let name = format!("evil\\n  FAKE  0.1\\u001b[31m{}", "w".repeat(300));
    let body = format!("{{\"data\":[{{\"id\":\"{name}\"}},{{\"id\":\"good\"}}]}}");
    let server =
        ScriptedServer::start(move |_| response("200 OK", "content-type: application/json\r\n", &body)).await;
    let workspace =
        Workspace::new(&format!("[provider.p]\nbase_url = \"{}/v1\"\nmodels.m = {{}}\n", server.url()));
    let output = run(&workspace, "models");
    output.expect_code(0);
    assert_eq!(output.stdout.lines().count(), 3, "{}", output.stdout);
    assert!(!output.stdout.contains('\u{1b}'), "{:?}", output.stdout);
    assert!(output.stdout.lines().all(|line| line.chars().count() < 160), "{}", output.stdout);
}

#[test]
fn an_error_of_a_provider_is_one_line_and_the_others_are_listed() {
    let workspace = Workspace::empty();
    let (_simulator, _) = start(&workspace, 3);
    let config = workspace.read("pointsman.toml");
    let more = "[provider.wrong]\nbase_url = \"URL\"\nkeys = [\"env:WRONG\"]\n\
                [provider.gone]\nbase_url = \"http://127.0.0.1:9/v1\"\n\
                [provider.unset]\nkeys = [\"env:UNSET\"]\n\
                [provider.failing]\nbase_url = \"http://127.0.0.1:9/v1\"\nkeys = [\"command:false\"]\n";
    let url = config.lines().find_map(|line| line.strip_prefix("base_url = ")).unwrap().trim_matches('"');
    workspace.write("pointsman.toml", format!("{config}{}", more.replace("URL", url)));
    let output = run(&workspace, "models");
    output.expect_stderr(4, &["wrong: ", "gone: cannot connect", "unset: UNSET is not set", "failing: "]);
    assert_eq!(output.stdout.lines().count(), 10, "{}", output.stdout);
    assert!(!output.stderr.contains("4711"), "{}", output.stderr);
    let one = run(&workspace, "models --provider unset");
    one.expect_stderr(3, &["unset: UNSET is not set"]);
}

#[test]
fn a_key_in_the_environment_is_enough() {
    let workspace = Workspace::empty();
    let (_simulator, address) = start(&workspace, 2);
    std::fs::remove_file(workspace.path("pointsman.toml")).unwrap();
    let mut command = workspace.command("models");
    command.env("OPENAI_API_KEY", KEY).env("OPENAI_BASE_URL", format!("http://{address}/v1"));
    let output = run_program(command);
    output.expect_code(0);
    assert!(output.stdout.contains("openai/model-0001"), "{}", output.stdout);
    workspace.run("models").expect_stderr(3, &["no provider is configured"]);
}

#[test]
fn a_list_that_is_none_is_an_error() {
    let workspace = Workspace::empty();
    let (_simulator, address) = start(&workspace, 2);
    workspace.write(
        "pointsman.toml",
        format!("[provider.p]\nbase_url = \"http://{address}/nothing\"\nkeys = [\"env:KEY\"]\n"),
    );
    let output = run(&workspace, "models");
    output.expect_stderr(4, &["p: "]);
    assert_eq!(output.stdout, "");
}
