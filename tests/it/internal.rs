//! Panics on purpose: what they cost, and what stays of the items and of the money.

use std::path::Path;
use std::sync::Arc;

use pointsman::chaos::{Plan, arm, passed};
use pointsman::run::{Ended, Output, Report};
use pointsman::runtime::{Keep, Pointsman};
use pointsman::simulator::{Settings, Simulator, Vendor};
use pointsman::sink::{Line, Sink};
use pointsman::source::Source;
use pointsman::store::{ItemNumber, RunNumber, Sqlite, StepState, Store};
use pointsman::types::{Booked, Class, ItemStatus, Price, Tokens, Usage};
use serde_json::{Value, json};

use super::stage::*;

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

/// Whether a property was evaluated is not decided in linear time: such a check has a thread of its own.
const LARGE_CHECK: &str = "
name = \"internal\"
[[step]]
name = \"tags\"
prompt = \"Tag {{ item.text }}.\"
reasks = 2
[step.schema]
type = \"object\"
required = [\"tags\"]
unevaluatedProperties = false
properties.tags = { type = \"array\", items = { type = \"string\" } }
";

const PRICE: Price = Price { input: 1.0, output: 5.0, cached: None, cache_write: None, long: None };

fn priced(simulator: &Simulator) -> String {
    let url = simulator.base_url(Vendor::OpenAi);
    format!(
        "[provider.a]\nbase_url = \"{url}\"\nmodels.m = {{ price = {{ input = 1.0, output = 5.0 }} }}\n{PATIENT}\n"
    )
}

async fn store(folder: &Path) -> Arc<dyn Store> {
    Arc::new(Sqlite::open(&folder.join("a.db")).await.unwrap())
}

/// Runs one item, kept, and returns the report and its line.
async fn run(pointsman: &Pointsman, pipeline: &str, keep: &Keep) -> (Report, Option<Line>) {
    let pipeline = pointsman.parse_pipeline(pipeline).unwrap();
    let (sink, mut lines) = Sink::channel().unwrap();
    let source = Source::values("items", [json!({ "id": 1, "text": "a thing" })]);
    let kept = pointsman.keep(&pipeline, keep.clone()).await.unwrap();
    let mut run = pointsman.run_kept(pipeline, source, Output::new(sink), kept).await.unwrap();
    let report = run.report().await.unwrap();
    (report, lines.recv().await)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_item_whose_actor_dies_twice_keeps_the_answers_that_it_had() {
    let folder = tempfile::tempdir().unwrap();
    let simulator = play(Settings::default());
    let pointsman = start(&priced(&simulator));
    let keep = Keep::new(store(folder.path()).await, "internal");
    // The first life dies of its second answer. The second asks for what is missing, and dies before that comes.
    let armed = arm(Plan::new(1).at("item.answered", 2).at("item.asks", 4));
    let (report, line) = run(&pointsman, TWO_STEPS, &keep).await;
    drop(armed);
    assert_eq!((passed()["item.answered"].panics, passed()["item.asks"].panics), (1, 1), "{:?}", passed());
    let line = line.unwrap();
    assert_eq!((report.items.failed, line.status), (1, ItemStatus::Failed));
    let error = line.error.as_ref().unwrap();
    assert_eq!((error.class, error.step.clone()), (Class::Internal, Some("last".into())));
    let answer = &line.answers["first"];
    assert!(answer.as_str().is_some_and(|answer| !answer.is_empty()) && line.answers["last"].is_null());

    let items = keep.store.items(RunNumber(1), ItemNumber(0), 10).await.unwrap();
    let records = items[0].steps.iter().map(|step| &step.record);
    let records: Vec<_> =
        records.map(|record| (record.step.as_str(), record.state, &record.answer)).collect();
    assert!(records.contains(&("first", StepState::Answered, answer)), "{records:?}");

    // What it has is not asked again, also when it dies twice once more.
    let asked = simulator.counts().requests;
    let keep = Keep { retry: Some(Vec::new()), ..keep };
    let armed = arm(Plan::new(1).at("item.answered", 1).at("item.asks", 5));
    let (_, line) = run(&pointsman, TWO_STEPS, &keep).await;
    drop(armed);
    assert_eq!((passed()["item.answered"].panics, passed()["item.asks"].panics), (1, 1), "{:?}", passed());
    assert_eq!(line.unwrap().answers["first"], *answer);
    let again = keep.store.items(RunNumber(1), ItemNumber(0), 10).await.unwrap();
    let last = again[0].steps.iter().rfind(|step| step.record.step.as_str() == "first").unwrap();
    assert_eq!((last.session, last.record.state, &last.record.answer), (2, StepState::Answered, answer));

    let (report, line) = run(&pointsman, TWO_STEPS, &keep).await;
    assert_eq!((report.items.completed, line.unwrap().answers["first"].clone()), (1, answer.clone()));
    let last_questions = simulator.counts().requests - asked;
    assert!((1..=3).contains(&last_questions), "{last_questions} requests");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_whose_check_panics_is_not_wrong_and_its_question_is_not_sent_again() {
    let folder = tempfile::tempdir().unwrap();
    let simulator = play(Settings::default());
    let pointsman = start(&priced(&simulator));
    let keep = Keep::new(store(folder.path()).await, "internal");
    let armed = arm(Plan::new(1).at("answer.check", 1));
    let (report, line) = run(&pointsman, LARGE_CHECK, &keep).await;
    drop(armed);
    assert_eq!(passed()["answer.check"].panics, 1);
    let error = line.unwrap().error.unwrap();
    assert_eq!((error.class, report.items.failed), (Class::Internal, 1));
    assert!(error.message.contains("the check of the answer panicked"), "{}", error.message);
    assert_eq!((simulator.counts().requests, report.calls.answered), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_whose_answers_could_not_be_kept_are_booked() {
    let folder = tempfile::tempdir().unwrap();
    let simulator = play(Settings::default());
    let pointsman = start(&priced(&simulator));
    let keep = Keep::new(store(folder.path()).await, "internal");
    let armed = arm(Plan::new(1).share("ledger.commit", 1.0));
    let (report, _) = run(&pointsman, ONE_STEP, &keep).await;
    drop(armed);
    assert_eq!(report.ended, Ended::Broken);
    assert!(report.store_error.is_some_and(|why| why.contains("panicked again and again")));
    until("the simulator is done", || simulator.counts().in_flight == 0).await;
    let counts = simulator.counts();
    let usage = Usage {
        input: Tokens(counts.input_tokens),
        output: Tokens(counts.output_tokens),
        ..Usage::default()
    };
    let known: Booked = keep.store.spent_by(RunNumber(1)).await.unwrap().into_values().sum();
    assert_eq!(
        (counts.requests, known),
        (1, Booked { cost: PRICE.cost(&usage).unwrap(), ..Booked::default() })
    );
    assert_eq!(keep.store.items(RunNumber(1), ItemNumber(0), 10).await.unwrap(), []);
    // The same command goes on, and the money is not counted twice.
    let (report, line) = run(&pointsman, ONE_STEP, &keep).await;
    assert_eq!(
        (report.ended, line.map(|line| line.answers["answer"] != Value::Null)),
        (Ended::Whole, Some(true))
    );
    let all: Booked = keep.store.spent_by(RunNumber(1)).await.unwrap().into_values().sum();
    assert!(all.cost > known.cost && all.perhaps == known.perhaps, "{all:?}");
}
