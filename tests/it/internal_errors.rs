//! Injected panics: their cost, the stored answers and the booked spend.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use pointsman::chaos::{Plan, arm, point_counts};
use pointsman::router::EmbeddingRequest;
use pointsman::run::{Report, RunOutcome, RunOutput};
use pointsman::runtime::{Pointsman, ResumeOptions};
use pointsman::simulator::{Settings, Simulator, Vendor};
use pointsman::sink::{Line, Sink};
use pointsman::source::Source;
use pointsman::store::{ItemNumber, RunNumber, Sqlite, StepState, Store};
use pointsman::types::{Class, ItemStatus, Price, Spend, Tokens, Usage};
use serde_json::{Value, json};

use super::support::*;

const ONE_STEP: &str = "
name = \"internal\"
[[step]]
name = \"answer\"
prompt = \"Say something about {{ item.text }}.\"
";

const TWO_STEPS: &str = "
name = \"internal\"
[[step]]
name = \"first\"
prompt = \"Say something about {{ item.text }}.\"
[[step]]
name = \"last\"
prompt = \"Sum up: {{ first }}\"
";

/// `unevaluatedProperties` is not checked in linear time, so the check runs in its own thread.
const LARGE_CHECK: &str = "
name = \"internal\"
[[step]]
name = \"tags\"
prompt = \"Tag {{ item.text }}.\"
max_validation_retries = 2
[step.schema]
type = \"object\"
required = [\"tags\"]
unevaluatedProperties = false
properties.tags = { type = \"array\", items = { type = \"string\" } }
";

const PRICE: Price =
    Price { input: 1.0, output: 5.0, cached: None, cache_write: None, cache_write_1h: None, long: None };

fn priced_config(simulator: &Simulator) -> String {
    let url = simulator.base_url(Vendor::OpenAi);
    format!(
        "[provider.a]\nbase_url = \"{url}\"\nmodels.m = {{ price = {{ input = 1.0, output = 5.0 }} }}\n{LONG_TIMEOUTS}\n"
    )
}

async fn store(folder: &Path) -> Arc<dyn Store> {
    Arc::new(Sqlite::open(&folder.join("a.db")).await.unwrap())
}

/// Runs one item as a stored run, and returns the report and its line.
async fn run(pointsman: &Pointsman, pipeline: &str, options: &ResumeOptions) -> (Report, Option<Line>) {
    let pipeline = pointsman.parse_pipeline(pipeline).unwrap();
    let (sink, mut lines) = Sink::channel().unwrap();
    let source = Source::values("items", [json!({ "id": 1, "text": "a thing" })]);
    let prepared = pointsman.prepare_run(&pipeline, options.clone()).await.unwrap();
    let mut run = pointsman.run_stored(pipeline, source, RunOutput::new(sink), prepared).await.unwrap();
    let report = run.report().await.unwrap();
    (report, lines.recv().await)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_item_whose_actor_panics_twice_keeps_its_answers() {
    let folder = tempfile::tempdir().unwrap();
    let simulator = start_simulator(Settings::default());
    let pointsman = start_pointsman(&priced_config(&simulator));
    let options = ResumeOptions::new(store(folder.path()).await, "internal");
    // The first incarnation panics at its second answer. The second sends the missing request, and panics before
    // the response.
    let armed = arm(Plan::new(1).at("item.answered", 2).at("item.sends_request", 4));
    let (report, line) = run(&pointsman, TWO_STEPS, &options).await;
    drop(armed);
    assert_eq!(
        (point_counts()["item.answered"].panics, point_counts()["item.sends_request"].panics),
        (1, 1),
        "{:?}",
        point_counts()
    );
    let line = line.unwrap();
    assert_eq!((report.items.failed, line.status), (1, ItemStatus::Failed));
    let error = line.error.as_ref().unwrap();
    assert_eq!((error.class, error.step.clone()), (Class::Internal, Some("last".into())));
    let answer = &line.answers["first"];
    assert!(answer.as_str().is_some_and(|answer| !answer.is_empty()) && line.answers["last"].is_null());

    let items = options.store.items(RunNumber(1), ItemNumber(0), 10).await.unwrap();
    let records = items[0].steps.iter().map(|step| &step.record);
    let records: Vec<_> =
        records.map(|record| (record.step.as_str(), record.state, &record.answer)).collect();
    assert!(records.contains(&("first", StepState::Answered, answer)), "{records:?}");

    // Stored answers are not requested again, even after two more panics.
    let sent = simulator.counts().requests;
    let options = options.with_retry([]);
    let armed = arm(Plan::new(1).at("item.answered", 1).at("item.sends_request", 5));
    let (_, line) = run(&pointsman, TWO_STEPS, &options).await;
    drop(armed);
    assert_eq!(
        (point_counts()["item.answered"].panics, point_counts()["item.sends_request"].panics),
        (1, 1),
        "{:?}",
        point_counts()
    );
    assert_eq!(line.unwrap().answers["first"], *answer);
    let stored_items = options.store.items(RunNumber(1), ItemNumber(0), 10).await.unwrap();
    let last = stored_items[0].steps.iter().rfind(|step| step.record.step.as_str() == "first").unwrap();
    assert_eq!((last.session, last.record.state, &last.record.answer), (2, StepState::Answered, answer));

    let (report, line) = run(&pointsman, TWO_STEPS, &options).await;
    assert_eq!((report.items.completed, line.unwrap().answers["first"].clone()), (1, answer.clone()));
    let last_requests = simulator.counts().requests - sent;
    assert!((1..=3).contains(&last_requests), "{last_requests} requests");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_whose_check_panics_fails_as_internal_and_is_not_requested_again() {
    let folder = tempfile::tempdir().unwrap();
    let simulator = start_simulator(Settings::default());
    let pointsman = start_pointsman(&priced_config(&simulator));
    let options = ResumeOptions::new(store(folder.path()).await, "internal");
    let armed = arm(Plan::new(1).at("answer.check", 1));
    let (report, line) = run(&pointsman, LARGE_CHECK, &options).await;
    drop(armed);
    assert_eq!(point_counts()["answer.check"].panics, 1);
    let error = line.unwrap().error.unwrap();
    assert_eq!((error.class, report.items.failed), (Class::Internal, 1));
    assert!(error.message.contains("the check of the answer panicked"), "{}", error.message);
    assert_eq!((simulator.counts().requests, report.calls.answered), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_whose_answers_could_not_be_stored_are_booked() {
    let folder = tempfile::tempdir().unwrap();
    let simulator = start_simulator(Settings::default());
    let pointsman = start_pointsman(&priced_config(&simulator));
    let options = ResumeOptions::new(store(folder.path()).await, "internal");
    let armed = arm(Plan::new(1).share("ledger.commit", 1.0));
    let (report, _) = run(&pointsman, ONE_STEP, &options).await;
    drop(armed);
    assert_eq!(report.outcome, RunOutcome::IoFailed);
    assert!(report.store_error.is_some_and(|error| error.contains("panicked repeatedly")));
    wait_until("the simulator is idle", || simulator.counts().in_flight == 0).await;
    let counts = simulator.counts();
    let usage = Usage::new(Tokens(counts.input_tokens), Tokens(counts.output_tokens));
    let known: Spend = options.store.spent_by(RunNumber(1)).await.unwrap().into_values().sum();
    assert_eq!(
        (counts.requests, known),
        (1, Spend { cost: PRICE.cost(&usage).unwrap(), ..Spend::default() })
    );
    assert_eq!(options.store.items(RunNumber(1), ItemNumber(0), 10).await.unwrap(), []);
    // The same command resumes the run, and no cost is counted twice.
    let (report, line) = run(&pointsman, ONE_STEP, &options).await;
    assert_eq!(
        (report.outcome, line.map(|line| line.answers["answer"] != Value::Null)),
        (RunOutcome::Completed, Some(true))
    );
    let total: Spend = options.store.spent_by(RunNumber(1)).await.unwrap().into_values().sum();
    assert!(total.cost > known.cost && total.uncertain_cost == known.uncertain_cost, "{total:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_requests_of_a_joined_request_that_is_lost_twice_are_sent_alone() {
    let simulator = start_simulator(Settings::default());
    let pointsman = start_pointsman(&priced_config(&simulator));
    let embed = |number: usize| {
        let request = EmbeddingRequest::new("default", [format!("Passage {number}.")]);
        pointsman.embed(request.with_deadline(Duration::from_secs(30)))
    };
    let armed = arm(Plan::new(1).at("router.request", 1).at("router.request_started", 1));
    let all = join_all((0..20).map(embed)).await;
    drop(armed);
    let panics = ["router.request", "router.request_started"].map(|point| point_counts()[point].panics);
    assert_eq!(panics, [1, 1]);
    let distinct: HashSet<String> =
        all.into_iter().map(|embeddings| format!("{:?}", embeddings.unwrap().vectors)).collect();
    assert_eq!(distinct.len(), 20);
}
