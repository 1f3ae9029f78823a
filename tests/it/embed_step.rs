//! Runs of pipelines with a step `embed`.

use std::collections::HashSet;
use std::time::Duration;

use pointsman::router::EmbeddingRequest;
use pointsman::run::RunOutcome;
use pointsman::runtime::RunOptions;
use pointsman::simulator::{Fault, FaultKind, Settings, Simulator, Vendor};
use pointsman::types::NanoUsd;
use serde_json::{Value, json};

use super::program::Workspace;
use super::support::*;

const STEP: &str = "[[step]]\nname = \"vector\"\nembed = \"Passage {{ item.id }}.\"\ndimensions = 16\n";

fn priced_config(simulator: &Simulator, more: &str) -> String {
    let url = simulator.base_url(Vendor::OpenAi);
    let price = "models.m = { price = { input = 1.0, output = 5.0 }, context = 200 }";
    format!("[provider.a]\nbase_url = \"{url}\"\n{price}\n{LONG_TIMEOUTS}\n{more}")
}

fn numbers(answer: &Value) -> Vec<f32> {
    serde_json::from_value(answer.clone()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_items_have_their_own_vectors_with_few_calls() {
    let simulator = start_simulator(Settings::default());
    let pointsman = start_pointsman(&priced_config(&simulator, ""));
    let FinishedRun { report, lines } = run_pipeline(&pointsman, STEP, 500).await;
    let counts = simulator.counts();
    assert_eq!((lines.len(), report.items.completed), (500, 500));
    assert!(counts.requests <= 100, "{} calls", counts.requests);
    assert_eq!(report.calls.sent, counts.requests, "each call is counted once");
    assert_eq!(report.calls.answered, counts.requests);
    assert_eq!(report.tokens.input.0, counts.input_tokens);
    let dollars = counts.input_tokens as f64 / 1e6;
    assert!((report.cost_usd.unwrap() - dollars).abs() < 1e-9, "{:?} and {dollars}", report.cost_usd);
    assert_eq!(report.calls_of_unknown_cost, 0);
    assert_eq!(report.targets["a/m"].calls, counts.requests);
    assert_eq!(report.targets["a/m"].tokens.input.0, counts.input_tokens);
    let distinct: HashSet<String> = lines.iter().map(|line| line["answers"]["vector"].to_string()).collect();
    assert_eq!(distinct.len(), 500);
    for line in lines.iter().step_by(100) {
        let text = format!("Passage {}.", line["key"].as_str().unwrap());
        let alone = EmbeddingRequest::new("default", [text]).with_dimensions(16);
        let alone = pointsman.embed(alone).await.unwrap();
        assert_eq!(numbers(&line["answers"]["vector"]), *alone.vectors[0], "{line}");
        assert_eq!(line["steps"]["vector"]["attempts"], json!(1));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_item_with_a_text_that_is_empty_or_too_long_fails_alone() {
    let simulator = start_simulator(Settings::default());
    let pointsman = start_pointsman(&priced_config(&simulator, ""));
    let step = "[[step]]\nname = \"vector\"\nembed = \"\"\"{% if item.id == 'item-7' %}{% for n in range(400) %}\
        high tide {% endfor %}{% elif item.id != 'item-9' %}{{ item.id }}{% endif %}\"\"\"\n";
    let FinishedRun { report, lines } = run_pipeline(&pointsman, step, 60).await;
    assert_eq!((report.items.completed, report.items.failed), (58, 2));
    let error = |key: &str| {
        let line = lines.iter().find(|line| line["key"] == key).unwrap();
        (line["error"]["class"].clone(), line["error"]["message"].to_string())
    };
    assert_eq!(error("item-7").0, "too_long");
    let (class, message) = error("item-9");
    assert_eq!(class, "template_error");
    assert!(message.contains("it is empty"), "{message}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_later_step_uses_the_vector() {
    let simulator = start_simulator(Settings::default());
    let pointsman = start_pointsman(&priced_config(&simulator, ""));
    let steps = format!("{STEP}[[step]]\nname = \"note\"\nprompt = \"{{{{ vector | length }}}} numbers\"\n");
    let FinishedRun { report, lines } = run_pipeline(&pointsman, &steps, 20).await;
    assert_eq!(report.items.completed, 20);
    assert!(lines.iter().all(|line| line["answers"]["note"].is_string()), "{lines:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_vector_of_the_largest_model_is_stored_and_restored() {
    let simulator = start_simulator(Settings::default());
    let workspace = Workspace::empty();
    workspace.write("config.toml", priced_config(&simulator, ""));
    let pipeline = |text: &str| {
        format!("name = \"large\"\n[[step]]\nname = \"vector\"\nembed = \"{text}\"\ndimensions = 3072\n")
    };
    workspace.write("pipeline.toml", pipeline("{{ item.text }}"));
    workspace.write_items(20);
    let run = "run pipeline.toml --items items.jsonl --out o.jsonl --overwrite";
    let program = |arguments: &str| {
        let mut program = workspace.command(arguments);
        program.env("KEY_a", "secret");
        super::program::run_program(program)
    };
    program(run).expect_stderr(0, &["20 completed"]);
    let first = workspace.output_lines("o.jsonl");
    assert!(first.iter().all(|line| numbers(&line["answers"]["vector"]).len() == 3_072));
    let calls = simulator.counts().requests;
    program("results 1 --out again.jsonl").expect_code(0);
    let sorted = |mut lines: Vec<Value>| {
        lines.sort_by_key(|line| line["key"].to_string());
        lines.into_iter().map(|line| line["answers"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(sorted(workspace.output_lines("again.jsonl")), sorted(first));
    // A change of the step is a change of its answers.
    workspace.write("pipeline.toml", pipeline("About: {{ item.text }}"));
    let refused = program(run);
    assert_ne!(refused.code, Some(0), "{refused:?}");
    assert_eq!(simulator.counts().requests, calls);
}

#[test]
fn the_example_has_a_vector_for_each_passage() {
    let workspace = Workspace::empty();
    let mut program = super::program::program(&format!(
        "run examples/search/pipeline.toml --items examples/search/passages.jsonl \
         --config examples/search/config.toml --simulate --out {} --store sqlite:{}",
        workspace.path("vectors.jsonl").display(),
        workspace.path("runs.db").display(),
    ));
    program.current_dir(super::program::repository_path(""));
    super::program::run_program(program).expect_stderr(0, &["10 completed"]);
    let lines = workspace.output_lines("vectors.jsonl");
    assert_eq!(lines.len(), 10);
    assert!(lines.iter().all(|line| numbers(&line["answers"]["vector"]).len() == 256));
}

#[test]
fn a_plan_has_no_output_tokens_and_the_price_of_the_input() {
    let workspace = Workspace::empty();
    workspace.write(
        "config.toml",
        "[provider.openai]\nkeys = [\"env:KEY\"]\nmodels.small = { name = \"text-embedding-3-small\" }\n",
    );
    workspace.write("pipeline.toml", format!("name = \"plan\"\n{STEP}"));
    workspace.write_items(100);
    let mut program = workspace.command("plan pipeline.toml --items items.jsonl --json");
    program.env("KEY", "secret");
    let output = super::program::run_program(program);
    output.expect_code(0);
    let plan: Value = serde_json::from_str(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    assert_eq!(plan["output"]["high"], json!(0.0), "{plan}");
    let input = plan["input"]["likely"].as_f64().unwrap();
    let dollars = plan["cost_usd"]["likely"].as_f64().unwrap();
    // The tokens of each call are rounded.
    assert!(input > 0.0 && (dollars / (input * 0.02e-6) - 1.0).abs() < 0.2, "{plan}");
    assert_eq!(plan["calls"]["likely"], json!(100.0));
}

#[test]
fn a_plan_of_embeddings_bounds_the_time_by_full_calls() {
    let workspace = Workspace::empty();
    workspace.write("pipeline.toml", format!("name = \"plan\"\n{STEP}"));
    workspace.write_items(100);
    let plan = |provider: &str, more: &str, arguments: &str| {
        let model = "models.small = { name = \"text-embedding-3-small\" }";
        let limits = "limits.requests_per_minute = 60";
        let keys = "keys = [\"env:KEY\"]";
        let config = format!("[provider.openai]\n{keys}\n{limits}\n{provider}\n{model}\n{more}\n");
        workspace.write("config.toml", config);
        let mut program = workspace.command(&format!("plan pipeline.toml --items items.jsonl {arguments}"));
        program.env("KEY", "secret");
        let output = super::program::run_program(program);
        output.expect_code(0);
        output
    };
    for (provider, more, max_inputs, calls) in [
        ("", "", 2_048, 1.0),
        ("embedding_inputs = 10", "", 10, 10.0),
        ("embedding_inputs = 30", "", 30, 4.0),
        ("embedding_inputs = 30", "[run]\nmax_in_flight_items = 20", 20, 5.0),
    ] {
        let plan: Value = serde_json::from_str(&plan(provider, more, "--json").stdout).unwrap();
        let joined = &plan["steps"]["vector"]["joined"];
        assert_eq!(joined["max_inputs"], json!(max_inputs), "{plan}");
        assert_eq!(joined["min_calls"]["likely"], json!(calls), "{plan}");
        assert_eq!(plan["calls"]["likely"], json!(100.0), "without joining");
        let bound = &plan["bounds"][0];
        assert_eq!(bound["limit"], "60 requests/min", "{plan}");
        assert!((bound["seconds"]["likely"].as_f64().unwrap() - calls).abs() < 1e-6, "{bound}");
    }
    let alone: Value = serde_json::from_str(&plan("embedding_inputs = 1", "", "--json").stdout).unwrap();
    assert_eq!(alone["steps"]["vector"]["joined"], Value::Null);
    assert!((alone["bounds"][0]["seconds"]["likely"].as_f64().unwrap() - 100.0).abs() < 1e-6, "{alone}");

    let shown = plan("embedding_inputs = 10", "", "");
    for words in [
        "calls 100, at least 10 when joined",
        "joined into calls of at most 10 texts: 10 if each call is full",
    ] {
        assert!(shown.stdout.contains(words), "{words}: {}", shown.stdout);
    }
    shown.expect_stderr(0, &["the tokens are estimated; --sample 20"]);
    assert!(!shown.stderr.contains("answers"), "an embedding has no answer length: {}", shown.stderr);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn items_in_flight_fill_the_calls() {
    let simulator = start_simulator(toml::from_str("latency = \"20ms\"").unwrap());
    let limits = "limits.concurrency = { min = 1, start = 2, max = 2 }";
    let pointsman = start_pointsman(&priced_config(&simulator, limits));
    let run = run_pipeline(&pointsman, STEP, 1_000);
    let FinishedRun { report, .. } = tokio::time::timeout(Duration::from_secs(60), run).await.unwrap();
    assert_eq!(report.items.completed, 1_000);
    assert!(report.calls.sent <= 200, "{} calls", report.calls.sent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_has_the_embeddings_that_its_budget_covers_and_pauses() {
    let simulator = start_simulator(Settings::default());
    let whole = run_pipeline(&start_pointsman(&priced_config(&simulator, "")), STEP, 300).await.report;
    // For about fifty of the items.
    let cap = whole.cost_usd.unwrap() / 6.0;
    let of_run = RunOptions::new().with_max_cost(NanoUsd((cap * 1e9) as u64));
    let of_scope = RunOptions::new().with_scope("team-a");
    let budget_of_scope = format!("[budget]\nscope = {{ team-a = {cap:.9} }}");
    for (options, more) in [(of_run, ""), (of_scope, budget_of_scope.as_str())] {
        let before = simulator.counts().requests;
        let pointsman = start_pointsman(&priced_config(&simulator, more));
        let FinishedRun { report, .. } = run_pipeline_with(&pointsman, STEP, 300, options).await;
        assert_eq!((report.outcome, report.items.failed), (RunOutcome::Paused, 0), "{more}: {report:?}");
        assert!((35..=60).contains(&report.items.completed), "{more}: {report:?}");
        assert!(report.cost_usd.unwrap() <= 1.3 * cap, "{cap}: {report:?}");
        assert_eq!(report.calls.sent, simulator.counts().requests - before, "{more}: {report:?}");
    }
}

/// A provider without embeddings and one with embeddings and a price.
const TWO_FORMATS: &str = r#"
[provider.claude]
format   = "anthropic"
base_url = "http://127.0.0.1:9"
models.m = {}
[provider.gpt]
base_url = "http://127.0.0.1:9"
limits.requests_per_minute = 60
models.m = { price = { input = 1, output = 5 } }
"#;

#[test]
fn a_step_whose_route_has_no_target_with_embeddings_is_refused_before_anything_is_sent() {
    let workspace = Workspace::empty();
    workspace.write("config.toml", format!("{TWO_FORMATS}[route.r]\ntargets = [\"claude/m\"]\n"));
    workspace.write("pipeline.toml", format!("name = \"none\"\n{STEP}route = \"r\"\n"));
    workspace.write_items(5);
    for command in [
        "check pipeline.toml",
        "plan pipeline.toml --items items.jsonl",
        "run pipeline.toml --items items.jsonl --out o.jsonl",
    ] {
        let output = workspace.run(command);
        assert_ne!(output.code, Some(0), "{command}: {output:?}");
        for words in [
            "step `vector` has `embed`, and no usable target of route `r` has embeddings",
            "add a target of a provider with format = \"openai\" or format = \"gemini\" to the route",
        ] {
            assert!(output.stderr.contains(words), "{command}: {}", output.stderr);
        }
    }
    assert!(!workspace.path("o.jsonl").exists());
    // The simulated targets of a simulated configuration have embeddings.
    workspace.run("check pipeline.toml --simulate").expect_code(0);
}

#[test]
fn only_targets_with_embeddings_count_for_the_prices_and_the_plan_of_a_step() {
    let workspace = Workspace::empty();
    let route = "[route.default]\ntargets = [\"claude/m\", \"gpt/m\"]\n";
    workspace.write("config.toml", format!("{TWO_FORMATS}{route}[budget]\nrun = 1\n"));
    workspace.write("pipeline.toml", format!("name = \"two\"\n{STEP}"));
    workspace.write_items(100);
    // `claude/m` has no price, and is not called.
    workspace.run("check pipeline.toml").expect_code(0);
    let output = workspace.run("plan pipeline.toml --items items.jsonl --json");
    output.expect_code(0);
    let plan: Value = serde_json::from_str(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    assert!(plan["cost_usd"]["likely"].as_f64().is_some_and(|cost| cost > 0.0), "{plan}");
    let targets = plan["routes"]["default"].as_array().unwrap();
    assert_eq!(targets.iter().map(|target| &target["target"]).collect::<Vec<_>>(), ["gpt/m"], "{plan}");
    assert_eq!(plan["bounds"][0]["limit_of"], "gpt", "{plan}");
}

#[test]
fn a_plan_from_a_sample_scales_its_calls_by_the_requests() {
    let workspace = Workspace::new(
        "[provider.p]\nbase_url = \"simulator\"\nlimits = { requests_per_minute = 6_000 }\n\
         [provider.p.models.any]\nprice = { input = 1, output = 5 }\n",
    );
    workspace.write("pipeline.toml", format!("name = \"plan\"\n{STEP}"));
    workspace.write_items(200);
    let output = workspace.run("plan pipeline.toml --items items.jsonl --sample 20 --json");
    output.expect_code(0);
    let plan: Value = serde_json::from_str(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    let number = |value: &Value| value.as_f64().unwrap_or_else(|| panic!("{plan}"));
    let calls = &plan["calls"];
    let likely = number(&calls["likely"]);
    // One request of an item is like another, so that only the small sample makes them uncertain.
    assert!(number(&calls["low"]) > 0.75 * likely && number(&calls["high"]) < 1.25 * likely, "{plan}");
    let min_calls = &plan["steps"]["vector"]["joined"]["min_calls"];
    // At least 150 requests, and at most 100 texts in a call.
    assert!(number(&min_calls["low"]) >= 1.5 && number(&min_calls["high"]) <= 1.25 * likely, "{plan}");
    assert!(number(&plan["bounds"][0]["seconds"]["low"]) > 0.0, "{plan}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_holds_while_the_only_target_with_embeddings_is_down() {
    let outage = Fault { until: Some(Duration::from_secs(3)), ..Fault::new(FaultKind::ServerError) };
    let down = start_simulator(Settings { faults: vec![outage], ..Settings::default() });
    let other = start_simulator(Settings::default());
    let config = format!(
        "{QUICK_RETRY}[provider.a]\nbase_url = \"{}\"\nmodels.m = {{}}\n\
         breaker = {{ open_duration = \"250ms\", max_open_duration = \"500ms\" }}\n\
         [provider.b]\nformat = \"anthropic\"\nbase_url = \"{}\"\nmodels.m = {{}}\n\
         [route.default]\ntargets = [\"b/m\", \"a/m\"]\n[run]\nmax_hold = \"60s\"\n",
        down.base_url(Vendor::OpenAi),
        other.base_url(Vendor::Anthropic)
    );
    let step = format!("{STEP}deadline = \"2s\"\n");
    let FinishedRun { report, .. } = run_pipeline(&start_pointsman(&config), &step, 50).await;
    assert_eq!((report.items.completed, report.items.failed), (50, 0), "{:?}", report.errors);
    assert_eq!(other.counts().requests, 0);
}
