//! The answer cache: a request whose answer is in the store is not sent again, whatever run, file or pipeline it belongs to,
//! and identical requests at the same time are sent once.

use std::sync::Arc;

use pointsman::run::RunOutput;
use pointsman::runtime::{Pointsman, ResumeOptions};
use pointsman::simulator::{Fault, FaultKind, Settings, Simulator, Vendor};
use pointsman::sink::{Destination, Format, Sink};
use pointsman::source::Source;
use pointsman::store::{Sqlite, Store};
use pointsman::{CacheMode, Report};
use serde_json::{Value, json};

use super::program::*;
use super::support::{start_faulty_simulator, start_pointsman, start_simulator, wait_until};

const RUN: &str = "run pipeline.toml --items items.jsonl --out o.jsonl";

/// A step whose answers are reused by default.
const COLD: &str =
    "name = \"cold\"\n[[step]]\nname = \"answer\"\ntemperature = 0\nprompt = \"Name {{ item.text }}\"\n";

/// Returns a configuration with one provider, whose model has a price.
fn config(simulator: &Simulator, more: &str) -> String {
    let url = simulator.base_url(Vendor::OpenAi);
    format!(
        "[provider.a]\nbase_url = \"{url}\"\nmodels.m = {{ price = {{ input = 1000.0, output = 5000.0 }} }}\n{more}\n"
    )
}

fn answers(workspace: &Workspace, file: &str) -> Vec<Value> {
    let mut lines = workspace.output_lines(file);
    lines.sort_by_key(|line| line["key"].as_str().unwrap().to_owned());
    lines
        .into_iter()
        .map(|line| line["answers"].as_object().unwrap().values().next().unwrap().clone())
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_is_paid_for_once_across_runs_files_and_pipelines() {
    let simulator = start_simulator(Settings::default());
    let config = config(&simulator, "");
    let workspace = Workspace::new(&config);
    workspace.write("pipeline.toml", COLD);
    workspace.write_items(3);
    workspace.run(RUN).expect_stderr(0, &["3 calls"]);
    let first = answers(&workspace, "o.jsonl");

    // Another pipeline, step, route, file and provider name.
    let other = config.replace("provider.a", "provider.other") + "[route.mine]\ntargets = [\"other/m\"]\n";
    workspace.write_config(&other);
    let pipeline = COLD.replace("cold", "warm").replace("\"answer\"", "\"label\"\nroute = \"mine\"");
    workspace.write("other.toml", pipeline);
    workspace.write("others.jsonl", workspace.read("items.jsonl").replace("\"id\":\"i", "\"id\":\"n"));
    let command = "run other.toml --items others.jsonl --out p.jsonl";
    let output = workspace.run(command);
    output.expect_stderr(0, &["3 completed", "cache: 3 of 3 requests answered from the store, $", " saved"]);
    assert_eq!(simulator.counts().requests, 3);
    assert_eq!(answers(&workspace, "p.jsonl"), first);
    let line = workspace.output_lines("p.jsonl").remove(0);
    let step = &line["steps"]["label"];
    assert_eq!((&step["provider"], &step["model"]), (&json!("other"), &json!("m")), "{line}");
    assert_eq!(
        (&line["cost_usd"], &line["attempts"], &line["simulated"]),
        (&json!(0.0), &json!(0), &json!(false))
    );

    // The stored run says the same, and its lines can be written again.
    let report: Value = serde_json::from_str(&workspace.run("report 2 --json").stdout).unwrap();
    assert_eq!(
        (&report["cache"]["answers"], &report["cache"]["requests"]),
        (&json!(3), &json!(3)),
        "{report}"
    );
    let saved = report["cache"]["saved_usd"].as_f64().unwrap();
    assert!(saved > 0.0 && report["calls"]["sent"] == 0, "{report}");
    let exported = workspace.run("results 2");
    exported.expect_code(0);
    let by_key = |mut lines: Vec<Value>| {
        lines.sort_by_key(|line| line["key"].to_string());
        lines
    };
    assert_eq!(by_key(parse_lines(&exported.stdout)), by_key(workspace.output_lines("p.jsonl")));

    // One item has changed.
    workspace.write("others.jsonl", workspace.read("others.jsonl").replace("thing 2", "thing 9"));
    workspace.run(command).expect_stderr(0, &["3 completed"]);
    assert_eq!(simulator.counts().requests, 4);
    let shown: Value = serde_json::from_str(&workspace.run("cache --json").stdout).unwrap();
    assert_eq!((&shown["entries"], &shown["hits"]), (&json!(4), &json!(3)), "{shown}");
    assert!(workspace.run("cache").stdout.contains("4 answers, "), "{}", workspace.run("cache").stdout);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_mode_decides_which_steps_use_the_cache() {
    let choice = COLD.replace("temperature = 0", "choice = [\"A\", \"B\"]");
    let schema = "schema = { type = \"object\", properties = { a = { type = \"string\" } } }";
    let schema = COLD.replace("temperature = 0", schema);
    let warm = COLD.replace("temperature = 0", "temperature = 1");
    for (pipeline, option, second) in [
        (COLD, "", 0),
        (choice.as_str(), "", 0),
        (schema.as_str(), "", 0),
        (warm.as_str(), "", 2),
        (warm.as_str(), "--cache store", 0),
        (warm.as_str(), "--cache auto", 2),
        (COLD, "--cache run", 2),
        (COLD, "--cache off", 2),
    ] {
        let simulator = start_simulator(Settings::default());
        let workspace = Workspace::new(&config(&simulator, ""));
        workspace.write("pipeline.toml", pipeline);
        workspace.write_items(2);
        workspace.write("others.jsonl", workspace.read("items.jsonl"));
        workspace.run(&format!("{RUN} {option}")).expect_code(0);
        let other = format!("run pipeline.toml --items others.jsonl --out p.jsonl {option}");
        workspace.run(&other).expect_code(0);
        assert_eq!(simulator.counts().requests, 2 + second, "{option} {pipeline}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_configuration_sets_the_mode_and_a_resumed_run_keeps_that_of_its_command() {
    let simulator = start_simulator(Settings::default());
    let workspace = Workspace::new(&config(&simulator, "[run]\ncache = \"run\""));
    workspace.write("pipeline.toml", COLD);
    workspace.write_items(2);
    workspace.write("others.jsonl", workspace.read("items.jsonl"));
    let other = "run pipeline.toml --items others.jsonl --out p.jsonl";
    workspace.run(RUN).expect_code(0);
    workspace.run(other).expect_code(0);
    assert_eq!(simulator.counts().requests, 4);
    workspace.run(&format!("{RUN} --new --overwrite --cache store")).expect_code(0);
    assert_eq!(simulator.counts().requests, 6);
    workspace.write("thirds.jsonl", workspace.read("items.jsonl"));
    let third = "run pipeline.toml --items thirds.jsonl --out q.jsonl";
    workspace.run(&format!("{third} --cache store")).expect_stderr(0, &["cache: 2 of 2 requests"]);
    assert_eq!(simulator.counts().requests, 6);
    // The run keeps the mode of its command, not that of the configuration.
    workspace.write(
        "thirds.jsonl",
        format!("{}{}", workspace.read("items.jsonl"), "{\"id\":\"x\",\"text\":\"thing 1\"}\n"),
    );
    workspace.run("resume 4").expect_stderr(0, &["3 completed"]);
    assert_eq!(simulator.counts().requests, 6);
    workspace.write_config("[run]\ncache = \"always\"\n");
    workspace.run(other).expect_stderr(3, &["cache", "auto"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_run_and_a_retry_send_every_request_again_and_keep_the_answers() {
    let simulator = start_faulty_simulator([Fault { times: Some(1), ..Fault::new(FaultKind::Refusal) }]);
    let workspace = Workspace::new(&config(&simulator, ""));
    workspace.write("pipeline.toml", COLD);
    workspace.write("items.jsonl", "{\"id\":1,\"text\":\"a cat\"}\n");
    workspace.run(RUN).expect_stderr(1, &["1 failed"]);
    let sent = simulator.counts().requests;
    workspace.write("others.jsonl", workspace.read("items.jsonl"));
    let other = "run pipeline.toml --items others.jsonl --out p.jsonl";
    workspace.run(other).expect_code(0);
    assert_eq!(simulator.counts().requests, sent + 1, "a failure is not an answer");
    workspace.run("retry 1").expect_code(0);
    assert_eq!(simulator.counts().requests, sent + 2);
    workspace.run(&format!("{other} --new --overwrite")).expect_code(0);
    assert_eq!(simulator.counts().requests, sent + 3);
    // Every item of the new run, also one that is added later.
    workspace.write("others.jsonl", "{\"id\":1,\"text\":\"a cat\"}\n{\"id\":2,\"text\":\"a cat\"}\n");
    workspace.run(other).expect_stderr(0, &["2 completed"]);
    assert_eq!(simulator.counts().requests, sent + 4);
    workspace.write("thirds.jsonl", workspace.read("items.jsonl"));
    workspace
        .run("run pipeline.toml --items thirds.jsonl --out q.jsonl")
        .expect_stderr(0, &["cache: 1 of 1 request"]);
    assert_eq!(simulator.counts().requests, sent + 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_model_address_parameter_or_attachment_has_its_own_answers() {
    let simulator = start_simulator(Settings::default());
    let elsewhere = start_simulator(Settings::default());
    let requests = || simulator.counts().requests + elsewhere.counts().requests;
    let plain = config(&simulator, "");
    let workspace = Workspace::new(&plain);
    workspace.write("items.jsonl", "{\"id\":1,\"text\":\"a cat\",\"photo\":\"one.png\"}\n");
    workspace.write("one.png", b"the first image");
    let attaching = COLD.replace("prompt", "attach = [\"{{ item.photo }}\"]\nprompt");
    let mut number = 0;
    let mut run = |pipeline: &str, config: &str| {
        number += 1;
        workspace.write(&format!("p{number}.toml"), pipeline);
        workspace.write_config(config);
        workspace
            .run(&format!("run p{number}.toml --items items.jsonl --out o{number}.jsonl"))
            .expect_code(0);
        requests()
    };
    let other_model = plain.replace("models.m", "models.n");
    let other_address = config(&elsewhere, "");
    let with_header = plain.replace("models.m", "headers = { x-version = \"2\" }\nmodels.m");
    let seeded = COLD.replace("prompt", "seed = 1\nprompt");
    for (sent, pipeline, config) in [
        (1, COLD, &plain),
        (2, COLD, &other_model),
        (3, COLD, &other_address),
        (4, COLD, &with_header),
        (5, &seeded, &plain),
        (6, &attaching, &plain),
        (6, &attaching, &plain),
        (6, COLD, &other_address),
        (6, COLD, &other_model),
    ] {
        assert_eq!(run(pipeline, config), sent, "{pipeline}{config}");
    }
    workspace.write("one.png", b"the other image");
    assert_eq!(run(&attaching, &plain), 7, "the content of the attachment has changed");
    workspace.write("two.png", b"the first image");
    workspace.write("items.jsonl", "{\"id\":1,\"text\":\"a cat\",\"photo\":\"two.png\"}\n");
    let sent = run(&attaching, &plain);
    assert!((7..=8).contains(&sent), "the name of a file may count");
    // An answer of a target that is not in the route is not used, and one of any target of the route is.
    let two = format!("{plain}models.n = {{}}\n[route.default]\ntargets = [\"a/n\", \"a/m\"]\n");
    assert_eq!(run(COLD, &two), sent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_simulated_answer_is_never_taken_for_a_real_one() {
    let simulator = start_simulator(Settings::default());
    let workspace = Workspace::new(&config(&simulator, ""));
    workspace.write("pipeline.toml", COLD);
    workspace.write_items(2);
    let simulated = "run pipeline.toml --items items.jsonl --out s.jsonl --simulate --cache store";
    workspace.run(simulated).expect_stderr(0, &["2 calls"]);
    workspace.run(RUN).expect_stderr(0, &["2 calls"]);
    assert_eq!(simulator.counts().requests, 2);
    assert!(workspace.output_lines("o.jsonl").iter().all(|line| line["simulated"] == false));
    workspace.write("others.jsonl", workspace.read("items.jsonl"));
    let again = "run pipeline.toml --items others.jsonl --out t.jsonl --simulate --cache store";
    workspace.run(again).expect_stderr(0, &["cache: 2 of 2 requests"]);
    assert!(workspace.output_lines("t.jsonl").iter().all(|line| line["simulated"] == true));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn identical_requests_in_flight_are_sent_once() {
    let simulator = start_simulator(toml::from_str("latency = \"300ms\"").unwrap());
    let workspace = Workspace::new(&config(&simulator, ""));
    workspace.write("pipeline.toml", COLD);
    let items = (0..60).map(|number| format!("{{\"id\":{number},\"text\":\"thing {}\"}}\n", number % 3));
    workspace.write("items.jsonl", items.collect::<String>());
    workspace
        .run(RUN)
        .expect_stderr(0, &["60 completed", "cache: 57 of 60 requests answered from the store"]);
    assert_eq!(simulator.counts().requests, 3);
    assert_eq!(workspace.output_lines("o.jsonl").len(), 60);
    for line in workspace.output_lines("o.jsonl") {
        let number: u32 = line["key"].as_str().unwrap().parse().unwrap();
        let text = format!("thing {}", number % 3);
        assert!(line["answers"]["answer"].as_str().unwrap().contains(&text), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn if_the_first_of_identical_requests_fails_the_others_are_sent_on_their_own() {
    let fault = Fault { times: Some(1), ..Fault::new(FaultKind::Refusal) };
    let settings: Settings = toml::from_str("latency = \"300ms\"").unwrap();
    let simulator = start_simulator(Settings { faults: vec![fault], ..settings });
    let workspace = Workspace::new(&config(&simulator, ""));
    workspace.write("pipeline.toml", COLD);
    workspace.write(
        "items.jsonl",
        (0..6).map(|number| format!("{{\"id\":{number},\"text\":\"it\"}}\n")).collect::<String>(),
    );
    workspace.run(RUN).expect_stderr(1, &["5 completed", "1 failed"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_reuse_only_an_interrupted_item_keeps_its_answers() {
    let simulator = start_simulator(Settings::default());
    let workspace = Workspace::new(&config(&simulator, ""));
    workspace.write("pipeline.toml", COLD);
    for (text, sent) in [("a cat", 1), ("a dog", 2), ("a cat", 3)] {
        workspace.write("items.jsonl", format!("{{\"id\":1,\"text\":\"{text}\"}}\n"));
        workspace.run(&format!("{RUN} --cache off")).expect_code(0);
        assert_eq!(simulator.counts().requests, sent, "{text}");
        // The item has finished, so its line is written again.
        std::fs::remove_file(workspace.path("o.jsonl")).unwrap();
        workspace.run(&format!("{RUN} --cache off")).expect_code(0);
        assert_eq!(simulator.counts().requests, sent, "{text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_reuse_an_item_that_was_interrupted_continues_with_its_answers() {
    let simulator = start_simulator(toml::from_str("latency = \"1s\"").unwrap());
    let workspace = Workspace::new(&config(&simulator, ""));
    let second = "[[step]]\nname = \"second\"\nneeds = [\"answer\"]\nprompt = \"Say {{ item.text }}\"\n";
    workspace.write("pipeline.toml", format!("{COLD}{second}"));
    workspace.write("items.jsonl", "{\"id\":1,\"text\":\"a cat\"}\n");
    let killed = start_program(workspace.command(&format!("{RUN} --cache off")));
    // The second request is sent after the first answer was committed.
    wait_until("the second step is in flight", || simulator.counts().requests == 2).await;
    killed.signal("KILL");
    drop(killed);
    workspace.run(&format!("{RUN} --cache off")).expect_stderr(0, &["1 completed"]);
    assert_eq!(simulator.counts().requests, 3, "the first step is not repeated");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cache_is_pruned_by_age_and_size_and_deleting_a_run_deletes_its_answers() {
    let simulator = start_simulator(Settings::default());
    let workspace = Workspace::new(&config(&simulator, ""));
    assert!(workspace.run("cache").expect_code(4).contains("no runs are stored here"));
    workspace.write("pipeline.toml", COLD);
    workspace.write_items(3);
    workspace.run(RUN).expect_code(0);
    workspace.run("cache prune").expect_code(2);
    // None of them is as old as this: what is younger than an age stays, however short the age is.
    for age in ["1d", "5m"] {
        workspace.run(&format!("cache prune --older-than {age}")).expect_code(0);
    }
    let shown = |workspace: &Workspace| -> Value {
        serde_json::from_str(&workspace.run("cache --json").stdout).unwrap()
    };
    assert_eq!(shown(&workspace)["entries"], 3);
    assert_eq!(shown(&workspace)["targets"][0]["target"], "a/m");
    let pruned = workspace.run("cache prune --max-size 1KiB --json");
    pruned.expect_code(0);
    let pruned: Value = serde_json::from_str(&pruned.stdout).unwrap();
    let left = 3 - pruned["entries"].as_u64().unwrap();
    assert_eq!(shown(&workspace)["entries"], left);
    assert!(shown(&workspace)["bytes"].as_u64().unwrap() <= 1024);
    // The run keeps its answers.
    assert_eq!(workspace.run("results 1").stdout.lines().count(), 3);

    workspace.write("others.jsonl", workspace.read("items.jsonl"));
    workspace.run("run pipeline.toml --items others.jsonl --out p.jsonl").expect_code(0);
    assert_eq!(simulator.counts().requests, 6 - left);
    workspace.run("delete 1").expect_code(0);
    assert_eq!(shown(&workspace)["entries"], 3 - left, "the answers of run 2 stay");
    workspace.run("delete 2").expect_code(0);
    assert_eq!(shown(&workspace)["entries"], 0);
    assert!(workspace.run("cache").stdout.contains("the answer cache is empty"));
    // A small limit of the configuration applies when a run ends.
    workspace.write_config(config(&simulator, "[store]\ncache_max_size = \"1KiB\""));
    workspace.write_items(40);
    workspace.run(&format!("{RUN} --overwrite")).expect_code(0);
    assert!(shown(&workspace)["bytes"].as_u64().unwrap() <= 1024);
}

async fn run_stored(pointsman: &Pointsman, options: ResumeOptions) -> Report {
    let pipeline = pointsman.parse_pipeline(COLD).unwrap();
    let source = Source::values("items", (0..4).map(|id| json!({ "id": id, "text": format!("thing {id}") })));
    let output = RunOutput::new(Sink::results(Destination::none(), Format::Jsonl, &[]).unwrap());
    let prepared = pointsman.prepare_run(&pipeline, options).await.unwrap();
    let mut run = pointsman.run_stored(pipeline, source, output, prepared).await.unwrap();
    run.report().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scope_does_not_see_the_answers_of_another() {
    let simulator = start_simulator(Settings::default());
    let pointsman = start_pointsman(&config(&simulator, ""));
    let folder = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(Sqlite::open(&folder.path().join("a.db")).await.unwrap());
    let options = |identity: &str, scope: &str| {
        ResumeOptions::new(store.clone(), identity).with_scope(scope).with_cache(CacheMode::Store)
    };
    for (identity, scope, sent) in
        [("1", "team-a", 4), ("2", "team-b", 8), ("3", "", 12), ("4", "team-a", 12)]
    {
        run_stored(&pointsman, options(identity, scope)).await;
        assert_eq!(simulator.counts().requests, sent, "{scope}");
    }
    // Two runs at the same time share their requests only within a scope.
    let other = folder.path().join("b.db");
    let store: Arc<dyn Store> = Arc::new(Sqlite::open(&other).await.unwrap());
    let options = |identity: &str, scope: &str| ResumeOptions::new(store.clone(), identity).with_scope(scope);
    let (first, second, third) = tokio::join!(
        run_stored(&pointsman, options("1", "team-c")),
        run_stored(&pointsman, options("2", "team-c")),
        run_stored(&pointsman, options("3", "team-d")),
    );
    assert_eq!(simulator.counts().requests, 20);
    assert_eq!(first.calls.sent + second.calls.sent, 4);
    assert_eq!((third.calls.sent, third.cache), (4, None));
}
