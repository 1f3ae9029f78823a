//! `pointsman simulate`, and runs against it from another process.

use super::program::{RunningProgram, Workspace, start_program};

/// Starts a simulator in its own process. Returns the process and its address.
pub(crate) fn start_simulator_process(workspace: &Workspace, arguments: &str) -> (RunningProgram, String) {
    let mut simulator =
        start_program(workspace.command(&format!("simulate --listen 127.0.0.1:0 {arguments}")));
    let line = simulator.wait_for_line("simulating providers at");
    let address = line.split_whitespace().find(|word| word.starts_with("127.0.0.1:")).unwrap();
    (simulator, address.trim_end_matches(';').to_owned())
}

#[test]
fn a_run_uses_providers_that_another_process_simulates() {
    let workspace = Workspace::empty();
    let (simulator, address) =
        start_simulator_process(&workspace, "--set latency=50ms --set keys=[\"good\"]");
    let workspace = Workspace::new(&format!(
        "[provider.one]\nbase_url = \"http://{address}/v1\"\nkeys = [\"file:key\"]\n[provider.one.models.m]\n\
         [provider.two]\nformat = \"anthropic\"\nbase_url = \"http://{address}\"\nkeys = [\"file:key\"]\n[provider.two.models.m]\n\
         [provider.three]\nformat = \"gemini\"\nbase_url = \"http://{address}\"\nkeys = [\"file:key\"]\n[provider.three.models.m]\n\
         [route.default]\npolicy = \"weighted\"\ntargets = [\"one/m\", \"two/m\", \"three/m\"]\n",
    ));
    workspace.write("key", "good\n");
    workspace.write_items(30);
    workspace.run("run pipeline.toml --items items.jsonl --out o.jsonl --report report.json").expect_code(0);
    let targets = workspace.read_json("report.json")["targets"].as_object().unwrap().len();
    assert_eq!(targets, 3);
    assert!(
        workspace.output_lines("o.jsonl").iter().all(|line| line["simulated"] == false),
        "a remote simulator counts as a real provider"
    );
    simulator.signal("INT");
    simulator.wait().expect_code(0);
}

#[test]
fn sigterm_ends_the_simulator_like_ctrl_c() {
    let workspace = Workspace::empty();
    let (simulator, _) = start_simulator_process(&workspace, "");
    simulator.signal("TERM");
    simulator.wait().expect_code(0);
}

#[test]
fn an_invalid_set_option_is_refused_with_help() {
    let workspace = Workspace::empty();
    let refused = |set: &str| workspace.run(&format!("simulate --listen 127.0.0.1:0 --set {set}"));
    refused("latncy=1s").expect_stderr(3, &["unknown key `latncy`", "did you mean `latency`?"]);
    refused("latency=soon")
        .expect_stderr(3, &["--set:1:", "\"soon\" is not a duration", "the units are ms, s, m, h and d"]);
    refused("limits.requests_per_minute=0").expect_stderr(3, &["expected a whole number above 0"]);
    refused("faults=[").expect_stderr(3, &["--set:1:"]);
}

#[test]
fn an_address_that_cannot_be_bound_is_named() {
    let workspace = Workspace::empty();
    let (_simulator, address) = start_simulator_process(&workspace, "");
    workspace.run(&format!("simulate --listen {address}")).expect_stderr(4, &["--listen", &address]);
    workspace.run("simulate --listen nowhere").expect_stderr(2, &["--listen"]);
}
