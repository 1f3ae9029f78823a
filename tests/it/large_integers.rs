//! Integers of any length are passed through the program unchanged.

use pointsman::simulator::{Settings, Simulator, Vendor};
use serde_json::Value;

use super::program::Workspace;
use super::scripted_server::{ScriptedServer, stream};
use super::support::start_simulator;

const RUN: &str = "run pipeline.toml --items items.jsonl --out o.jsonl --ordered";
const ITEM: &str = "123456789012345678901234567890";
const OTHER_ITEM: &str = "123456789012345678901234567891";
const ANSWER: &str = "98765432109876543210987654321098765432109876543210";

/// The first step has numbers in its answer, the second has them in its prompt, which the simulator repeats.
const PIPELINE: &str = r#"
name = "numbers"
[[step]]
name = "facts"
route = "scripted"
prompt = "Read {{ item.account }}"
[step.schema]
type = "object"
required = ["account", "share"]
properties.account = { type = "integer", minimum = 5 }
properties.share = { type = "number", maximum = 1 }
[[step]]
name = "repeated"
route = "simulated"
prompt = "Repeat: account {{ item.account }} and {{ facts.account }} with {{ facts.share }}"
"#;

/// Creates a workspace and its simulator.
async fn new_workspace() -> (Workspace, Simulator) {
    let content = format!("{{\\\"account\\\": {ANSWER}, \\\"share\\\": 0.25}}");
    let events = format!(
        "data: {{\"id\":\"c\",\"model\":\"m\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{content}\"}},\"finish_reason\":\"stop\"}}]}}\n\ndata: [DONE]\n\n"
    );
    let scripted = ScriptedServer::start(move |_| stream("", &events, true)).await;
    let simulator = start_simulator(Settings::default());
    let scripted_url = scripted.url();
    let simulator_url = simulator.base_url(Vendor::OpenAi);
    let workspace = Workspace::new(&format!(
        "[provider.a]\nbase_url = \"{scripted_url}/v1\"\nmodels.m = {{}}\n[provider.b]\nbase_url = \"{simulator_url}\"\nmodels.m = {{}}\n\
         [route.scripted]\ntargets = [\"a/m\"]\n[route.simulated]\ntargets = [\"b/m\"]\n"
    ));
    workspace.write("pipeline.toml", PIPELINE);
    workspace
        .write("items.jsonl", [ITEM, OTHER_ITEM].map(|item| format!("{{\"account\":{item}}}\n")).concat());
    (workspace, simulator)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_integer_of_any_length_is_unchanged_in_prompts_and_outputs() {
    let (workspace, _simulator) = new_workspace().await;
    workspace.run(RUN).expect_stderr(0, &["2 completed"]);
    let written = workspace.read("o.jsonl");
    assert_eq!(written.matches(&format!("\"account\":{ANSWER},\"share\":0.25")).count(), 2, "{written}");
    for item in [ITEM, OTHER_ITEM] {
        let expected = format!("account {item} and {ANSWER} with 0.25");
        assert_eq!(written.matches(&expected).count(), 1, "{expected:?} in {written}");
    }
    // The store has the numbers unchanged, and items that differ only in the last digit are two items.
    let exported = workspace.run("results 1");
    exported.expect_code(0);
    assert_eq!(exported.stdout, written);
    std::fs::remove_file(workspace.path("o.jsonl")).unwrap();
    workspace.run(RUN).expect_stderr(0, &["2 completed", "0 calls"]);
    assert_eq!(workspace.read("o.jsonl").matches(ANSWER).count(), 4);
    let table = workspace.run("results 1 --format csv");
    table.expect_code(0);
    assert!(table.stdout.starts_with("account,facts.account,facts.share,repeated,"), "{}", table.stdout);
    for item in [ITEM, OTHER_ITEM] {
        assert_eq!(table.stdout.matches(&format!("\n{item},{ANSWER},0.25,")).count(), 1, "{}", table.stdout);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_number_that_is_too_long_or_out_of_range_is_rejected_with_the_reason() {
    let (workspace, _simulator) = new_workspace().await;
    let long = "9".repeat(5_000);
    workspace.write(
        "items.jsonl",
        format!("{{\"account\":1e999999999}}\n{{\"account\":{long}}}\n{{\"account\":{ITEM}}}\n"),
    );
    workspace.run(&format!("{RUN} --rejects r.jsonl")).expect_stderr(1, &["1 completed, 2 rejected"]);
    let reasons: Vec<Value> = workspace.output_lines("r.jsonl");
    let reason = |at: usize| reasons[at]["reason"].as_str().unwrap();
    assert!(reason(0).contains("out of range, such as 1e999; write it as text"), "{}", reason(0));
    assert!(reason(1).contains("a number of more than 4300 characters"), "{}", reason(1));
}
