//! Reuse of stored answers: rewritten lines have the answers for the present items, and no request with a valid
//! answer is sent again.

use std::io::Write;

use pointsman::simulator::{Fault, FaultKind, Settings, Simulator};
use pointsman::store::{RunMetadata, Sqlite, Store};
use serde_json::{Value, json};

use super::program::*;
use super::scripted_server::{RESPONSE_STREAM, ScriptedServer, stream};
use super::support::{provider_config, provider_config_at, start_faulty_simulator, start_simulator};

const RUN: &str = "run pipeline.toml --items items.jsonl --out o.jsonl";

/// Two steps: the second needs the first and runs if `item.wanted` is true.
const TWO_STEPS: &str = r#"
name = "two"
[[step]]
name = "topic"
prompt = "Name the topic of {{ item.text }}"
[[step]]
name = "reply"
needs = ["topic"]
when = "item.wanted"
prompt = "Reply to {{ item.text }}"
"#;

fn write_item(workspace: &Workspace, text: &str) {
    workspace.write("items.jsonl", format!("{{\"id\":1,\"text\":\"{text}\",\"wanted\":true}}\n"));
}

/// Returns the line of the only item as written by `results` and by the next run, which must be equal.
#[track_caller]
fn rewritten_line(workspace: &Workspace, config: &str) -> Value {
    workspace.write_config(config);
    let exported = workspace.run("results 1");
    exported.expect_code(0);
    std::fs::remove_file(workspace.path("o.jsonl")).unwrap();
    let code = if exported.stdout.contains("\"status\":\"failed\"") { 1 } else { 0 };
    workspace.run(RUN).expect_code(code);
    let mut lines = workspace.output_lines("o.jsonl");
    assert_eq!(lines, parse_lines(&exported.stdout));
    assert_eq!(lines.len(), 1);
    lines.remove(0)
}

#[track_caller]
fn assert_mentions(line: &Value, step: &str, words: &str) {
    assert!(line["answers"][step].as_str().unwrap_or_default().contains(words), "{words:?} is not in {line}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_item_that_is_changed_back_gets_its_earlier_answer_without_a_call() {
    let simulator = start_simulator(Settings::default());
    let config = provider_config("a", &simulator, "");
    let workspace = Workspace::new(&config);
    for (text, calls) in [("a cat", 1), ("a dog", 2), ("a cat", 2), ("a dog", 2), ("a cat", 2)] {
        write_item(&workspace, text);
        workspace.run(RUN).expect_code(0);
        assert_eq!(simulator.counts().requests, calls, "{text}");
        assert_mentions(&workspace.output_lines("o.jsonl")[0], "answer", text);
        assert_mentions(&rewritten_line(&workspace, &config), "answer", text);
    }
    assert_eq!(simulator.counts().requests, 2);
    let report = workspace.run("report 1 --json");
    let report: Value = serde_json::from_str(&report.stdout).unwrap();
    assert_eq!(report["calls"]["sent"], 2, "a reused answer is counted once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prompt_that_is_changed_back_gets_its_earlier_answers_without_a_call() {
    let simulator = start_simulator(Settings::default());
    let config = provider_config("a", &simulator, "");
    let workspace = Workspace::new(&config);
    write_item(&workspace, "a cat");
    workspace.run(RUN).expect_code(0);
    for (words, calls) in [("nothing", 2), ("something", 2), ("nothing", 2), ("something", 2)] {
        workspace.write("pipeline.toml", ONE_STEP.replace("something", words));
        workspace.run(&format!("{RUN} --accept-changes")).expect_code(0);
        assert_eq!(simulator.counts().requests, calls, "{words}");
        assert_mentions(&rewritten_line(&workspace, &config), "answer", words);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_that_is_skipped_or_not_reached_shows_no_older_answer() {
    let simulator = start_simulator(Settings::default());
    let config = provider_config("a", &simulator, "");
    let workspace = Workspace::new(&config);
    workspace.write("pipeline.toml", TWO_STEPS);
    write_item(&workspace, "a cat");
    workspace.run(RUN).expect_code(0);
    assert_mentions(&rewritten_line(&workspace, &config), "reply", "a cat");

    workspace.write("items.jsonl", "{\"id\":1,\"text\":\"a cat\",\"wanted\":false}\n");
    workspace.run(RUN).expect_code(0);
    let skipped = rewritten_line(&workspace, &config);
    assert_eq!(
        (&skipped["answers"]["reply"], &skipped["steps"]["reply"]["status"]),
        (&Value::Null, &"skipped".into())
    );
    assert_mentions(&skipped, "topic", "a cat");
    assert_eq!(simulator.counts().requests, 2);

    // The first step fails before its request, so the second is not reached.
    workspace.write("items.jsonl", "{\"id\":1,\"wanted\":true}\n");
    workspace.run(RUN).expect_code(1);
    let failed = rewritten_line(&workspace, &config);
    assert_eq!(failed["answers"], serde_json::json!({ "topic": null, "reply": null }));
    assert_eq!((&failed["status"], &failed["error"]["class"]), (&"failed".into(), &"template_error".into()));
    assert_eq!(
        (&failed["steps"]["topic"]["status"], &failed["steps"]["reply"]["status"]),
        (&"failed".into(), &"unfinished".into())
    );

    write_item(&workspace, "a cat");
    workspace.run(RUN).expect_code(0);
    assert_mentions(&rewritten_line(&workspace, &config), "reply", "a cat");
    assert_eq!(simulator.counts().requests, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_names_the_target_of_its_answer() {
    let first = start_simulator(Settings::default());
    let second = start_simulator(Settings::default());
    let route = "[route.default]\npolicy = \"priority\"\ntargets = [\"a/m\", \"b/m\"]\n";
    let config = format!("{}{}{route}", provider_config("a", &first, ""), provider_config("b", &second, ""));
    let workspace = Workspace::new(&config);
    write_item(&workspace, "a cat");
    workspace.run(RUN).expect_code(0);
    assert_eq!(workspace.output_lines("o.jsonl")[0]["steps"]["answer"]["provider"], "a");
    drop(first);
    write_item(&workspace, "a dog");
    workspace.run(RUN).expect_code(0);
    assert_eq!(workspace.output_lines("o.jsonl")[0]["steps"]["answer"]["provider"], "b");
    write_item(&workspace, "a cat");
    workspace.run(RUN).expect_code(0);
    assert_eq!(workspace.output_lines("o.jsonl")[0]["steps"]["answer"]["provider"], "a");
    assert_eq!(rewritten_line(&workspace, &config)["steps"]["answer"]["provider"], "a");
}

/// Starts a run of three items, changes their file when it has been read, and waits for the end of the run.
fn run_and_change_input(simulator: &Simulator, change: impl FnOnce(&Workspace)) -> Workspace {
    let workspace = Workspace::new(&provider_config("a", simulator, ""));
    workspace.write_items(3);
    let mut running = start_program(workspace.command(&format!("{RUN} --json")));
    running.wait_for_line("\"input_fraction\":1.0");
    change(&workspace);
    running.wait().expect_code(0);
    assert_eq!(workspace.output_lines("o.jsonl").len(), 3);
    workspace
}

fn slow_settings() -> Settings {
    toml::from_str("latency = \"2s\"").unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn items_appended_during_a_run_are_processed_by_the_next_run() {
    let simulator = start_simulator(slow_settings());
    let workspace = run_and_change_input(&simulator, |workspace| {
        let mut items = std::fs::OpenOptions::new().append(true).open(workspace.path("items.jsonl")).unwrap();
        items.write_all(b"{\"id\":\"i4\",\"text\":\"a late thing\"}\n").unwrap();
    });
    workspace.run(RUN).expect_stderr(0, &["resuming run 1: 3 items finished before", "4 completed"]);
    assert_eq!((workspace.output_lines("o.jsonl").len(), simulator.counts().requests), (4, 4));
    workspace.run(RUN).expect_stderr(0, &["there is nothing to do"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_input_replaced_during_a_run_is_processed_by_the_next_run() {
    let simulator = start_simulator(slow_settings());
    let workspace = run_and_change_input(&simulator, |workspace| {
        workspace.write("new.jsonl", workspace.read("items.jsonl").replace("thing 2", "other 2"));
        std::fs::rename(workspace.path("new.jsonl"), workspace.path("items.jsonl")).unwrap();
    });
    workspace.run(RUN).expect_stderr(0, &["resuming run 1: 3 items finished before"]);
    let line = workspace.output_lines("o.jsonl").into_iter().find(|line| line["key"] == "i2").unwrap();
    assert_mentions(&line, "answer", "other 2");
    assert_eq!(simulator.counts().requests, 4);
    workspace.run(RUN).expect_stderr(0, &["there is nothing to do"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn targets_swapped_between_routes_are_detected_and_their_steps_repeated() {
    let simulator = start_simulator(Settings::default());
    let url = simulator.base_url(pointsman::simulator::Vendor::OpenAi);
    let config = |fast: &str, good: &str| {
        let provider =
            format!("[provider.a]\nbase_url = \"{url}\"\nmodels.small = {{}}\nmodels.large = {{}}\n");
        format!("{provider}[route.fast]\ntargets = [\"a/{fast}\"]\n[route.good]\ntargets = [\"a/{good}\"]\n")
    };
    let workspace = Workspace::new(&config("small", "large"));
    let two_routes = TWO_STEPS.replace("name = \"topic\"", "name = \"topic\"\nroute = \"fast\"");
    let two_routes = two_routes.replace("name = \"reply\"", "name = \"reply\"\nroute = \"good\"");
    workspace.write("pipeline.toml", &two_routes);
    write_item(&workspace, "a cat");
    workspace.run(RUN).expect_code(0);
    workspace.write_config(config("large", "small"));
    workspace
        .run(RUN)
        .expect_stderr(3, &["run 1 has changed since it began: steps that use other models: topic, reply"]);
    workspace.run(&format!("{RUN} --accept-changes")).expect_code(0);
    let line = workspace.output_lines("o.jsonl").remove(0);
    let models = ["topic", "reply"].map(|step| line["steps"][step]["model"].as_str().unwrap().to_owned());
    assert_eq!((models, simulator.counts().requests), (["large".to_owned(), "small".to_owned()], 4));

    // A step that is moved to the other route uses the other model.
    workspace.write(
        "pipeline.toml",
        two_routes.replace("\"good\"", "\"x\"").replace("\"fast\"", "\"good\"").replace("\"x\"", "\"fast\""),
    );
    workspace
        .run(RUN)
        .expect_stderr(
            3,
            &[
                "steps that use other models: topic, reply",
                "answers of the last version that stay valid: 0 of 2; answers of earlier versions that are valid again \
                 are reused too",
            ],
        );
    workspace.run(&format!("{RUN} --accept-changes")).expect_code(0);
    assert_eq!(simulator.counts().requests, 4, "the earlier answers of each model are valid again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_item_is_processed_again_when_its_image_is_replaced() {
    let simulator = start_simulator(Settings::default());
    let workspace = Workspace::new(&provider_config("a", &simulator, ""));
    workspace
        .write("pipeline.toml", ONE_STEP.replace("[[step]]", "[[step]]\nattach = [\"{{ item.photo }}\"]"));
    let items = ["one", "two"]
        .map(|name| format!("{{\"id\":\"{name}\",\"text\":\"it\",\"photo\":\"{name}.png\"}}\n"));
    workspace.write("items.jsonl", items.concat());
    workspace.write("one.png", b"the first image");
    workspace.write("two.png", b"the other image");
    workspace.run(RUN).expect_code(0);
    workspace.run(RUN).expect_stderr(0, &["2 completed"]);
    assert_eq!(simulator.counts().requests, 2);
    workspace.write("two.png", b"the third image");
    workspace.run(RUN).expect_stderr(0, &["2 completed"]);
    assert_eq!(simulator.counts().requests, 3);
    // Another file with the same content is the same image.
    workspace.write("new.png", b"the third image");
    std::fs::rename(workspace.path("new.png"), workspace.path("two.png")).unwrap();
    workspace.run(RUN).expect_stderr(0, &["2 completed"]);
    assert_eq!(simulator.counts().requests, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_item_is_processed_again_when_its_image_is_replaced() {
    let fault = |kind| Fault { times: Some(1), ..Fault::new(kind) };
    let simulator = start_faulty_simulator([fault(FaultKind::Refusal)]);
    let workspace = Workspace::new(&provider_config("a", &simulator, ""));
    workspace
        .write("pipeline.toml", ONE_STEP.replace("[[step]]", "[[step]]\nattach = [\"{{ item.photo }}\"]"));
    workspace.write("items.jsonl", "{\"id\":1,\"text\":\"it\",\"photo\":\"one.png\"}\n");
    workspace.write("one.png", b"the first image");
    workspace.run(RUN).expect_stderr(1, &["1 failed"]);
    let sent = simulator.counts().requests;
    workspace.run(RUN).expect_stderr(1, &["1 failed"]);
    assert_eq!(simulator.counts().requests, sent, "only `retry` repeats failed requests");
    workspace.write("one.png", b"another image");
    workspace.run(RUN).expect_stderr(1, &["1 failed"]);
    assert!(simulator.counts().requests > sent, "the image has changed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_invalidates_no_answer_is_reported_and_needs_no_option() {
    let simulator = start_simulator(Settings::default());
    let price = |dollars: &str| {
        let url = simulator.base_url(pointsman::simulator::Vendor::OpenAi);
        format!(
            "[provider.a]\nbase_url = \"{url}\"\nmodels.m = {{ price = {{ input = {dollars}, output = 2 }} }}\n"
        )
    };
    let workspace = Workspace::new(&price("1.0"));
    workspace.write_items(3);
    workspace.run(RUN).expect_code(0);
    workspace.write_config(price("2.0"));
    workspace
        .run(RUN)
        .expect_stderr(0, &["run 1 has changed since it began: other prices: a/m; every answer stays valid"]);
    let more = "[[step]]\nname = \"more\"\nprompt = \"Say more about {{ item.text }}\"\n";
    workspace.write("pipeline.toml", format!("{ONE_STEP}{more}"));
    workspace.run(RUN).expect_stderr(0, &["new steps: more; every answer stays valid", "3 calls"]);
    assert!(workspace.output_lines("o.jsonl").iter().all(|line| line["answers"]["more"].is_string()));
    assert_eq!(simulator.counts().requests, 6);
}

#[test]
fn a_run_of_database_version_2_is_read_by_every_command() {
    let workspace = Workspace::new("");
    std::fs::copy(repository_path("tests/data/store/version_2.sqlite"), workspace.path("pointsman.db"))
        .unwrap();
    let listed = workspace.run("runs");
    listed.expect_code(0);
    assert_eq!(listed.stdout.lines().count(), 3, "{}", listed.stdout);
    for run in [1, 2] {
        let lines = workspace.run(&format!("results {run}"));
        lines.expect_code(0);
        assert_eq!(lines.stdout.lines().count(), 3);
        workspace.run(&format!("report {run}")).expect_code(0);
        workspace.run(&format!("failures {run}")).expect_stderr(0, &[]);
    }
}

/// A simulator that refuses half of the items.
const REFUSING: &str = "[simulator]\nfaults = [{ kind = \"refusal\", share = 0.5 }]";

fn statuses(workspace: &Workspace) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let mut all: Vec<_> = workspace
        .output_lines("o.jsonl")
        .iter()
        .map(|line| (text(&line["key"]), text(&line["status"])))
        .collect();
    all.sort();
    all
}

#[test]
fn a_retry_that_accepts_changes_keeps_every_other_line_and_leaves_the_run_open() {
    let workspace = Workspace::new(REFUSING);
    workspace.write_items(12);
    workspace.run(RUN).expect_code(1);
    let before = workspace.output_lines("o.jsonl");
    let failed = before.iter().filter(|line| line["status"] == "failed").count();
    assert!((1..12).contains(&failed));
    workspace.write_config("");
    workspace.write("pipeline.toml", ONE_STEP.replace("something", "nothing"));
    workspace.run("retry 1").expect_stderr(3, &["--accept-changes"]);
    let others = 12 - failed;
    workspace.run("retry 1 --accept-changes").expect_stderr(
        1,
        &[&format!("{others} items not processed yet: new, changed"), "`pointsman resume 1"],
    );
    let after = workspace.output_lines("o.jsonl");
    assert_eq!(after.len(), 12);
    for line in &after {
        let old = before.iter().find(|old| old["key"] == line["key"]).unwrap();
        if old["status"] == "completed" {
            assert_eq!(line, old);
        } else {
            assert_mentions(line, "answer", "nothing");
        }
    }
    assert!(workspace.run("runs").stdout.contains("stopped"));
    let results = workspace.run("results 1");
    results.expect_stderr(
        0,
        &[&format!("{others} lines of items that finished before the pipeline of run 1 changed")],
    );
    assert_eq!(results.stdout.lines().count(), 12);

    workspace.run("resume 1").expect_stderr(0, &[&format!("{others} calls")]);
    assert_eq!(workspace.output_lines("o.jsonl").len(), 12);
    workspace.output_lines("o.jsonl").iter().for_each(|line| assert_mentions(line, "answer", "nothing"));
    workspace.run(RUN).expect_stderr(0, &["there is nothing to do"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_corrected_row_without_an_id_is_paid_for_once_and_has_one_line() {
    let simulator = start_simulator(Settings::default());
    let workspace = Workspace::new(&provider_config("a", &simulator, ""));
    workspace.write("items.jsonl", "{\"text\":\"a cat\"}\n{\"txt\":\"a dog\"}\n");
    workspace.run(RUN).expect_code(1);
    assert_eq!(statuses(&workspace).iter().filter(|(_, status)| status == "failed").count(), 1);
    // The corrected record is another item, and the failed item is missing from the input.
    workspace.write("items.jsonl", "{\"text\":\"a cat\"}\n{\"text\":\"a dog\"}\n");
    workspace
        .run("retry 1")
        .expect_stderr(1, &["1 item not processed yet: new, changed", "`pointsman resume 1"]);
    assert_eq!((workspace.output_lines("o.jsonl").len(), simulator.counts().requests), (1, 1));
    workspace.run("resume 1").expect_stderr(0, &["2 completed"]);
    assert_eq!((workspace.output_lines("o.jsonl").len(), simulator.counts().requests), (2, 2));
    // Without the input file, its last known state counts.
    std::fs::remove_file(workspace.path("items.jsonl")).unwrap();
    workspace.run("retry 1").expect_stderr(0, &["no failed items: there is nothing to retry"]);
    assert_eq!((workspace.output_lines("o.jsonl").len(), simulator.counts().requests), (2, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_processes_the_present_version_of_an_item() {
    let simulator = start_simulator(Settings::default());
    let workspace = Workspace::new(&provider_config("a", &simulator, ""));
    workspace.write("items.jsonl", "{\"id\":1,\"text\":\"a cat\"}\n{\"id\":2}\nno item\n");
    workspace.run(RUN).expect_code(1);
    workspace.write("items.jsonl", "{\"id\":1,\"text\":\"a cat\"}\n{\"id\":2,\"text\":\"a dog\"}\nno item\n");
    workspace.run("retry 1").expect_stderr(1, &["2 completed, 1 rejected"]);
    assert_mentions(&workspace.output_lines("o.jsonl")[1], "answer", "a dog");
    assert_eq!((workspace.output_lines("o.jsonl").len(), simulator.counts().requests), (2, 2));
}

#[test]
fn a_stopped_session_keeps_the_lines_of_all_finished_items() {
    let workspace = Workspace::new("");
    workspace.write_items(20);
    workspace.run(RUN).expect_code(0);
    let before = workspace.output_lines("o.jsonl");
    // Thirty new items come first, and their calls are slow.
    let new = (1..=30).map(|number| format!("{{\"id\":\"n{number}\",\"text\":\"new {number}\"}}\n"));
    workspace.write("items.jsonl", format!("{}{}", new.collect::<String>(), workspace.read("items.jsonl")));
    workspace.write_config("[simulator]\nlatency = \"300ms\"\n[run]\nmax_in_flight_items = 4");
    let mut stopped = start_program(workspace.command(&format!("{RUN} --json")));
    stopped.wait_for_line("\"progress\"");
    stopped.signal("INT");
    stopped.wait().expect_code(130);
    let after = workspace.output_lines("o.jsonl");
    assert!((21..50).contains(&after.len()), "{}", after.len());
    assert!(before.iter().all(|line| after.contains(line)));
    assert_eq!(workspace.run("results 1").stdout.lines().count(), after.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_whose_manifest_cannot_be_decoded_is_an_error_and_no_empty_result() {
    let workspace = Workspace::new("");
    let metadata = RunMetadata {
        name: "one".to_owned(),
        command: Value::Null,
        pipeline: ONE_STEP.to_owned(),
        manifest: json!({ "steps": 3 }),
    };
    let store = Sqlite::open(&workspace.path("pointsman.db")).await.unwrap();
    store.create("one", &metadata).await.unwrap();
    drop(store);
    for command in ["results 1", "failures 1", "report 1"] {
        let output = workspace.run(command);
        output.expect_stderr(4, &["the manifest of run 1 cannot be read", "--new"]);
        assert_eq!(output.stdout, "");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_reasoning_of_an_answer_is_in_each_of_its_lines() {
    let events =
        RESPONSE_STREAM.replacen("\"content\":", "\"reasoning_content\":\"Greet back.\",\"content\":", 1);
    let server = ScriptedServer::start(move |_| stream("", &events, true)).await;
    let config = provider_config_at("a", &format!("{}/v1", server.url()), "");
    let workspace = Workspace::new(&config);
    let pipeline = |keep: bool| {
        let defaults = format!("name = \"two\"\n[defaults]\nkeep_reasoning = {keep}\n");
        TWO_STEPS.replace("name = \"two\"\n", &defaults)
    };
    workspace.write("pipeline.toml", pipeline(true));
    // The answers of the last text are those of the first.
    for (text, requests) in [("a cat", 2), ("a dog", 4), ("a cat", 4)] {
        write_item(&workspace, text);
        workspace.run(RUN).expect_code(0);
        assert_eq!(server.requests(), requests, "{text}");
        for line in [workspace.output_lines("o.jsonl").remove(0), rewritten_line(&workspace, &config)] {
            for step in ["topic", "reply"] {
                assert_eq!(line["answers"][step], "Hello.", "{line}");
                assert_eq!(line["steps"][step]["reasoning"], "Greet back.", "{line}");
            }
        }
    }
    workspace.write("pipeline.toml", pipeline(false));
    workspace.run(&format!("{RUN} --accept-changes")).expect_code(0);
    assert_eq!(server.requests(), 6);
    let line = rewritten_line(&workspace, &config);
    assert_eq!(line["steps"]["reply"].get("reasoning"), None, "{line}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_depend_on_the_settings_of_a_step_and_on_the_vendor_fields_of_a_model() {
    // The text of the answer names the fields of its request.
    let server = ScriptedServer::start(|request| {
        let fields =
            ["\"top_p\":0.5", "\"seed\":7", "\"service_tier\":\"flex\"", "\"service_tier\":\"auto\""];
        let found: Vec<_> = fields.into_iter().filter(|field| request.contains(field)).collect();
        let answer = found.join(" ").replace('"', "");
        stream("", &RESPONSE_STREAM.replace("Hello.", &answer), true)
    })
    .await;
    let config = |provider: &str, extra: &str| {
        let url = server.url();
        format!("[provider.a]\nbase_url = \"{url}/v1\"\n{provider}\nmodels.m = {{ extra = {{ {extra} }} }}\n")
    };
    let plain = config("", "");
    let workspace = Workspace::new(&plain);
    write_item(&workspace, "a cat");
    let pipeline = format!("{ONE_STEP}top_p = 0.5\n");
    let seeded = format!("{pipeline}seed = 7\n");
    let flex = config("drop_parameters = [\"seed\"]", "service_tier = \"flex\"");
    let auto = config("", "service_tier = \"auto\"");
    for (pipeline, config, answer, requests) in [
        (&pipeline, &plain, "top_p:0.5", 1),
        (&seeded, &plain, "top_p:0.5 seed:7", 2),
        (&seeded, &flex, "top_p:0.5 service_tier:flex", 3),
        (&seeded, &auto, "top_p:0.5 seed:7 service_tier:auto", 4),
        (&seeded, &flex, "top_p:0.5 service_tier:flex", 4),
        (&pipeline, &plain, "top_p:0.5", 4),
    ] {
        workspace.write("pipeline.toml", pipeline);
        workspace.write_config(config);
        if requests > 1 {
            workspace.run(RUN).expect_stderr(3, &["--accept-changes"]);
        }
        workspace.run(&format!("{RUN} --accept-changes")).expect_code(0);
        assert_eq!(workspace.output_lines("o.jsonl")[0]["answers"]["answer"], answer);
        assert_eq!(server.requests(), requests, "{answer}");
    }
}
