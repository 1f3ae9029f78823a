//! What a provider counts is believed within bounds, in every format.

use std::sync::Arc;

use pointsman::run::{Ended, Output, Report};
use pointsman::runtime::{Keep, Pointsman};
use pointsman::sink::{Format, Sink, Target};
use pointsman::source::Source;
use pointsman::store::{RunNumber, Sqlite, Store};
use pointsman::types::{Booked, NanoUsd, Tokens, Usage};
use serde_json::{Value, json};

use super::scripted::{Scripted, stream};
use super::stage::*;

const PIPELINE: &str = "name = \"counted\"\n[[step]]\nname = \"answer\"\nprompt = \"Greet {{ item.id }}.\"\n";

/// The counts of one answer as a provider writes them; `None` leaves a count out.
#[derive(Debug, Clone)]
struct Counts {
    input: Option<Value>,
    cached: Option<Value>,
    output: Option<Value>,
}

impl Counts {
    fn new(input: impl Into<Value>, output: impl Into<Value>) -> Self {
        Self { input: Some(input.into()), cached: None, output: Some(output.into()) }
    }

    /// Writes a whole answer, `Hello.`, as a stream of this format.
    fn answer(&self, format: &str) -> String {
        let named = |names: [(&str, &Option<Value>); 2]| -> Value {
            let counts = names.into_iter().filter_map(|(name, count)| Some((name.into(), count.clone()?)));
            Value::Object(counts.collect())
        };
        let events = match format {
            "openai" => {
                let mut usage = named([("prompt_tokens", &self.input), ("completion_tokens", &self.output)]);
                if let Some(cached) = &self.cached {
                    usage["prompt_tokens_details"] = json!({ "cached_tokens": cached });
                }
                let choice = json!({ "index": 0, "delta": { "content": "Hello." }, "finish_reason": "stop" });
                let chunk = json!({ "id": "c", "model": "m", "choices": [choice] });
                let last = json!({ "id": "c", "model": "m", "choices": [], "usage": usage });
                format!("data: {chunk}\n\ndata: {last}\n\ndata: [DONE]\n\n")
            }
            "anthropic" => {
                let mut usage = named([("input_tokens", &self.input), ("output_tokens", &self.output)]);
                if let Some(cached) = &self.cached {
                    usage["cache_read_input_tokens"] = cached.clone();
                }
                [
                    json!({ "type": "message_start", "message": { "id": "c", "model": "m" } }),
                    json!({ "type": "content_block_delta", "index": 0, "delta": { "type": "text_delta", "text": "Hello." } }),
                    json!({ "type": "message_delta", "delta": { "stop_reason": "end_turn" }, "usage": usage }),
                    json!({ "type": "message_stop" }),
                ]
                .into_iter()
                .map(|event| format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap()))
                .collect()
            }
            _ => {
                let mut usage =
                    named([("promptTokenCount", &self.input), ("candidatesTokenCount", &self.output)]);
                if let Some(cached) = &self.cached {
                    usage["cachedContentTokenCount"] = cached.clone();
                }
                let candidate =
                    json!({ "content": { "parts": [{ "text": "Hello." }] }, "finishReason": "STOP" });
                format!("data: {}\n\n", json!({ "candidates": [candidate], "usageMetadata": usage }))
            }
        };
        stream("", &events, true)
    }
}

async fn start_counting(format: &'static str, counts: Counts) -> (Scripted, Pointsman) {
    let scripted = Scripted::start(move |_| counts.answer(format)).await;
    let price = "models.m = { price = { input = 1.0, output = 5.0, cached = 0.5 } }";
    let config = format!(
        "[provider.a]\nformat = \"{format}\"\nbase_url = \"{}\"\n{price}\n{PATIENT}\n[budget]\nday = 5.0\n",
        scripted.url()
    );
    let pointsman = start(&config);
    (scripted, pointsman)
}

/// Runs three items under the run's cap and the day's.
async fn run_capped(pointsman: &Pointsman, store: &Arc<dyn Store>, name: &str) -> Report {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.jsonl");
    let pipeline = pointsman.parse_pipeline(PIPELINE).unwrap();
    let steps: Vec<_> = pipeline.steps().iter().map(|step| step.name.clone()).collect();
    let sink = Sink::results(Target::file(out, &[]).unwrap(), Format::Jsonl, &steps).unwrap();
    let values = (0..3).map(|number| json!({ "id": number }));
    let mut keep = Keep::new(store.clone(), name);
    keep.max_cost = Some(NanoUsd(1_000_000_000).into());
    let kept = pointsman.keep(&pipeline, keep).await.unwrap();
    let source = Source::values("items", values);
    let mut run = pointsman.run_kept(pipeline, source, Output::new(sink), kept).await.unwrap();
    run.report().await.unwrap()
}

/// Counts that cannot be believed, and counts of which a part is missing.
fn unknown() -> [Counts; 10] {
    let whole = Counts::new(1, 1);
    [
        Counts::new(0, 1),
        Counts::new(1, 0),
        Counts::new(10_000_000, 1),
        Counts::new(1, 1_000_000),
        Counts::new(u64::MAX, 1),
        Counts::new(1, u64::MAX),
        Counts::new(u64::MAX, u64::MAX),
        Counts::new(-1, "many"),
        Counts { input: None, ..whole.clone() },
        Counts { output: None, ..whole },
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn usage_that_cannot_be_believed_is_unknown_and_blocks_neither_its_run_nor_the_next() {
    for (format, _) in FORMATS {
        for counts in unknown() {
            let folder = tempfile::tempdir().unwrap();
            let store: Arc<dyn Store> = Arc::new(Sqlite::open(&folder.path().join("a.db")).await.unwrap());
            let (_scripted, pointsman) = start_counting(format, counts.clone()).await;
            for (number, name) in [(1, "first"), (2, "second")] {
                let what = format!("{format}, {counts:?}, {name}");
                let report = run_capped(&pointsman, &store, name).await;
                assert_eq!((report.ended, report.items.completed), (Ended::Whole, 3), "{what}: {report:?}");
                // Nothing is taken for known; each answer counts with what was reserved for it.
                let sums = store.sums(RunNumber(number)).await.unwrap();
                assert_eq!((sums.spent.tokens, sums.spent.cost), (Usage::default(), NanoUsd(0)), "{what}");
                assert_eq!(sums.spent.unknown, 3, "{what}");
                let booked: Booked = store.spent_by(RunNumber(number)).await.unwrap().into_values().sum();
                assert_eq!(booked.cost, NanoUsd(0), "{what}");
                assert!(booked.perhaps > NanoUsd(0) && booked.perhaps < NanoUsd(100_000_000), "{what}");
            }
            pointsman.drain(tokio::time::Instant::now() + std::time::Duration::from_secs(5)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cached_tokens_above_the_input_are_clamped_to_it() {
    for format in ["openai", "gemini"] {
        let counts = Counts { cached: Some(u64::MAX.into()), ..Counts::new(100, 10) };
        let (_scripted, pointsman) = start_counting(format, counts).await;
        let answer = ask(&pointsman, "default", "Hello?").await.unwrap();
        let usage = answer.reply.usage.unwrap();
        assert_eq!((usage.input, usage.cached, usage.output), (Tokens(100), Tokens(100), Tokens(10)));
        // 100 cached tokens at $0.5 and 10 at $5 a million.
        assert_eq!(answer.cost, Some(NanoUsd(50_000 + 50_000)), "{format}");
    }
}
