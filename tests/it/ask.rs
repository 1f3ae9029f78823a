//! `pointsman ask`.

use std::process::Command;

use serde_json::{Value, json};

use pointsman::simulator::{Fault, FaultKind, Settings, Simulator, Vendor};

use super::program::*;
use super::support::{provider_config, start_faulty_simulator, start_simulator};

fn command(workspace: &Workspace, arguments: &[&str]) -> Command {
    let mut program = workspace.command("ask");
    program.args(arguments);
    program
}

/// A workspace whose configuration has one target at the simulator, and short waits.
fn workspace_at(simulator: &Simulator) -> Workspace {
    let retry = "[retry]\nmax_rounds = 2\ninitial_backoff = \"10ms\"\nmax_backoff = \"20ms\"\n";
    Workspace::new(&(retry.to_owned() + &provider_config("a", simulator, "")))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_answer_is_all_that_is_on_stdout() {
    let simulator = start_simulator(Settings::default());
    let workspace = workspace_at(&simulator);
    let output = run_program(command(&workspace, &["Say something about {{ cats }}", "--usage"]));
    output.expect_stderr(0, &["tokens in"]);
    // The prompt is a text and no template.
    assert!(output.stdout.contains("{{ cats }}"), "{}", output.stdout);
    assert!(output.stdout.ends_with('\n') && !output.stdout.ends_with("\n\n"), "{:?}", output.stdout);
    assert_eq!(output.stderr.lines().count(), 1, "{}", output.stderr);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn text_that_is_piped_in_comes_before_the_prompt() {
    let simulator = start_simulator(Settings::default());
    let workspace = workspace_at(&simulator);
    let output = run_program_with_stdin(command(&workspace, &["Summarise this."]), b"A long mail.\n");
    output.expect_code(0);
    let mail = output.stdout.find("A long mail.").unwrap();
    assert!(mail < output.stdout.find("Summarise this.").unwrap(), "{}", output.stdout);
    let alone = run_program_with_stdin(command(&workspace, &["--system", "Answer in French"]), b"Hello?");
    alone.expect_code(0);
    assert!(alone.stdout.contains("Hello?"), "{}", alone.stdout);
    for stdin in [&b""[..], b" \n"] {
        let nothing = run_program_with_stdin(command(&workspace, &[]), stdin);
        nothing.expect_stderr(2, &["nothing is asked"]);
    }
    let binary = run_program_with_stdin(command(&workspace, &["What is this?"]), b"\xff\xfe");
    binary.expect_stderr(4, &["no UTF-8", "--attach -"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_structured_answer_is_validated_and_printed_as_json() {
    let simulator = start_simulator(Settings::default());
    let workspace = workspace_at(&simulator);
    workspace.write(
        "reply.schema.json",
        r#"{"type":"object","properties":{"ok":{"type":"boolean"}},"required":["ok"]}"#,
    );
    for schema in ["reply.schema.json", "ok bool"] {
        let output = run_program(command(&workspace, &["Is it?", "--schema", schema]));
        output.expect_code(0);
        let answer: Value = serde_json::from_str(&output.stdout).unwrap();
        assert!(answer["ok"].is_boolean(), "{answer}");
    }
    let output = run_program(command(&workspace, &["Which?", "--choice", "yes,no", "--json"]));
    output.expect_code(0);
    let answer: Value = serde_json::from_str(&output.stdout).unwrap();
    assert!(["yes", "no"].contains(&answer["answer"].as_str().unwrap()), "{answer}");
    assert_eq!(
        (&answer["target"], &answer["calls"], &answer["simulated"]),
        (&json!("a/m"), &json!(1), &json!(false))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_are_attached_by_their_content() {
    let simulator = start_simulator(Settings::default());
    let workspace = workspace_at(&simulator);
    workspace.write("report", b"%PDF-1.7 x");
    workspace.write("notes.txt", "Some notes.");
    workspace.write("empty.txt", "");
    workspace.write("program.bin", b"\x7fELF\xff");
    let output = run_program(command(&workspace, &["Summarise", "-a", "notes.txt", "--attach", "report"]));
    output.expect_code(0);
    let piped = run_program_with_stdin(command(&workspace, &["Summarise", "--attach", "-"]), b"Some notes.");
    piped.expect_code(0);
    for (file, words) in [
        ("missing.pdf", "cannot attach missing.pdf"),
        ("empty.txt", "it is empty"),
        ("program.bin", "unknown type"),
        (".", "it is a folder"),
    ] {
        let refused = run_program(command(&workspace, &["Summarise", "--attach", file]));
        refused.expect_stderr(4, &[words]);
        assert_eq!(refused.stderr.lines().count(), 1, "{}", refused.stderr);
    }
    assert_eq!(simulator.counts().requests, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_exit_code_is_that_of_the_class() {
    for (kind, code, class) in [
        (FaultKind::Refusal, 1, "content_filter"),
        (FaultKind::Length, 1, "truncated"),
        (FaultKind::Auth, 5, "auth"),
        (FaultKind::Quota, 5, "quota"),
        (FaultKind::ServerError, 5, "server_error"),
        (FaultKind::NotFound, 5, "not_found"),
    ] {
        let simulator = start_faulty_simulator([Fault::new(kind)]);
        let workspace = workspace_at(&simulator);
        let output = run_program(command(&workspace, &["Hello?", "--deadline", "10s"]));
        output.expect_stderr(code, &[class]);
        let is_of_account = class == "auth" || class == "quota";
        assert!(
            !is_of_account || !output.stderr.contains("try again"),
            "waiting does not help: {}",
            output.stderr
        );
        assert_eq!(output.stdout, "", "{kind:?}: an answer that is not complete is not written to a pipe");
    }
    let workspace = Workspace::empty();
    run_program(command(&workspace, &["Hello?"])).expect_stderr(3, &["no provider is configured"]);
    let simulated = run_program(command(&workspace, &["Hello?", "--simulate"]));
    simulated.expect_code(0);
    assert!(simulated.stdout.contains("[simulated]"), "{}", simulated.stdout);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cap_of_the_day_holds_for_single_requests() {
    let simulator = start_simulator(Settings::default());
    let provider = "models.m = { price = { input = 1000.0, output = 1000.0 } }";
    let url = simulator.base_url(Vendor::OpenAi);
    let config = format!("[budget]\nday = 0.05\n[provider.a]\nbase_url = \"{url}\"\n{provider}\n");
    let workspace = Workspace::new(&config);
    let mut answered = 0;
    let refused = loop {
        let output = run_program(command(&workspace, &["Hello?", "--max-tokens", "20"]));
        if output.code != Some(0) {
            break output;
        }
        answered += 1;
        assert!(answered < 20, "the cap never held");
    };
    refused.expect_stderr(5, &["budget"]);
    assert!(answered > 0, "{}", refused.stderr);
}
