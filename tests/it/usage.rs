//! Token counts of a provider are accepted within bounds, in every format.

use std::sync::Arc;

use pointsman::run::{Report, RunOutcome, RunOutput};
use pointsman::runtime::{Pointsman, ResumeOptions};
use pointsman::sink::{Destination, Format, Sink};
use pointsman::source::Source;
use pointsman::store::{RunNumber, Sqlite, Store};
use pointsman::types::{NanoUsd, Spend, Tokens, Usage};
use serde_json::{Value, json};

use super::scripted_server::{ScriptedServer, stream};
use super::support::*;

const PIPELINE: &str = "name = \"counted\"\n[[step]]\nname = \"answer\"\nprompt = \"Greet {{ item.id }}.\"\n";

/// The token counts of one response as sent by a provider; `None` omits a count.
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

    /// Returns a complete response, `Hello.`, as an event stream of this format.
    fn response(&self, format: &str) -> String {
        let collect_counts = |names: [(&str, &Option<Value>); 2]| -> Value {
            let counts = names.into_iter().filter_map(|(name, count)| Some((name.into(), count.clone()?)));
            Value::Object(counts.collect())
        };
        let events = match format {
            "openai" => {
                let mut usage =
                    collect_counts([("prompt_tokens", &self.input), ("completion_tokens", &self.output)]);
                if let Some(cached) = &self.cached {
                    usage["prompt_tokens_details"] = json!({ "cached_tokens": cached });
                }
                let choice = json!({ "index": 0, "delta": { "content": "Hello." }, "finish_reason": "stop" });
                let chunk = json!({ "id": "c", "model": "m", "choices": [choice] });
                let last = json!({ "id": "c", "model": "m", "choices": [], "usage": usage });
                format!("data: {chunk}\n\ndata: {last}\n\ndata: [DONE]\n\n")
            }
            "openai_responses" => {
                let mut usage =
                    collect_counts([("input_tokens", &self.input), ("output_tokens", &self.output)]);
                if let Some(cached) = &self.cached {
                    usage["input_tokens_details"] = json!({ "cached_tokens": cached });
                }
                let response = json!({ "id": "c", "model": "m", "status": "completed", "usage": usage });
                let delta =
                    json!({ "type": "response.output_text.delta", "output_index": 0, "delta": "Hello." });
                let last = json!({ "type": "response.completed", "response": response });
                format!("data: {delta}\n\ndata: {last}\n\n")
            }
            "anthropic" => {
                let mut usage =
                    collect_counts([("input_tokens", &self.input), ("output_tokens", &self.output)]);
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
                let mut usage = collect_counts([
                    ("promptTokenCount", &self.input),
                    ("candidatesTokenCount", &self.output),
                ]);
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

async fn start_counting(format: &'static str, counts: Counts) -> (ScriptedServer, Pointsman) {
    let server = ScriptedServer::start(move |_| counts.response(format)).await;
    let price = "models.m = { price = { input = 1.0, output = 5.0, cached = 0.5 } }";
    let config = format!(
        "[provider.a]\nformat = \"{format}\"\nbase_url = \"{}\"\n{price}\n{LONG_TIMEOUTS}\n[budget]\nday = 5.0\n",
        server.url()
    );
    let pointsman = start_pointsman(&config);
    (server, pointsman)
}

/// Runs three items with a cap of the run and a cap of the day.
async fn run_capped(pointsman: &Pointsman, store: &Arc<dyn Store>, name: &str) -> Report {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.jsonl");
    let pipeline = pointsman.parse_pipeline(PIPELINE).unwrap();
    let steps: Vec<_> = pipeline.steps().iter().map(|step| step.name.clone()).collect();
    let sink = Sink::results(Destination::file(out, &[]).unwrap(), Format::Jsonl, &steps).unwrap();
    let values = (0..3).map(|number| json!({ "id": number }));
    let mut options = ResumeOptions::new(store.clone(), name);
    options.max_cost = Some(NanoUsd(1_000_000_000).into());
    let prepared = pointsman.prepare_run(&pipeline, options).await.unwrap();
    let source = Source::values("items", values);
    let mut run = pointsman.run_stored(pipeline, source, RunOutput::new(sink), prepared).await.unwrap();
    run.report().await.unwrap()
}

/// Returns implausible counts and incomplete counts.
fn unknown_counts() -> [Counts; 10] {
    let valid = Counts::new(1, 1);
    [
        Counts::new(0, 1),
        Counts::new(1, 0),
        Counts::new(10_000_000, 1),
        Counts::new(1, 1_000_000),
        Counts::new(u64::MAX, 1),
        Counts::new(1, u64::MAX),
        Counts::new(u64::MAX, u64::MAX),
        Counts::new(-1, "many"),
        Counts { input: None, ..valid.clone() },
        Counts { output: None, ..valid },
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn implausible_usage_is_unknown_and_blocks_neither_its_run_nor_the_next() {
    for (format, _) in FORMATS {
        for counts in unknown_counts() {
            let folder = tempfile::tempdir().unwrap();
            let store: Arc<dyn Store> = Arc::new(Sqlite::open(&folder.path().join("a.db")).await.unwrap());
            let (_scripted, pointsman) = start_counting(format, counts.clone()).await;
            for (number, name) in [(1, "first"), (2, "second")] {
                let case = format!("{format}, {counts:?}, {name}");
                let report = run_capped(&pointsman, &store, name).await;
                assert_eq!(
                    (report.outcome, report.items.completed),
                    (RunOutcome::Completed, 3),
                    "{case}: {report:?}"
                );
                // No usage is known. Each response counts with the reserved cost.
                let totals = store.totals(RunNumber(number)).await.unwrap();
                assert_eq!(
                    (totals.usage.tokens, totals.usage.cost),
                    (Usage::default(), NanoUsd(0)),
                    "{case}"
                );
                assert_eq!(totals.usage.calls_of_unknown_cost, 3, "{case}");
                let booked: Spend = store.spent_by(RunNumber(number)).await.unwrap().into_values().sum();
                assert_eq!(booked.cost, NanoUsd(0), "{case}");
                assert!(
                    booked.uncertain_cost > NanoUsd(0) && booked.uncertain_cost < NanoUsd(100_000_000),
                    "{case}"
                );
            }
            pointsman.drain(std::time::Duration::from_secs(5)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cached_tokens_above_the_input_are_clamped_to_it() {
    for format in ["openai", "openai_responses", "gemini"] {
        let counts = Counts { cached: Some(u64::MAX.into()), ..Counts::new(100, 10) };
        let (_scripted, pointsman) = start_counting(format, counts).await;
        let response = send_request(&pointsman, "default", "Hello?").await.unwrap();
        let usage = response.completion.usage.unwrap();
        assert_eq!((usage.input, usage.cached, usage.output), (Tokens(100), Tokens(100), Tokens(10)));
        // 100 cached tokens at $0.5 and 10 at $5 a million.
        assert_eq!(response.cost, Some(NanoUsd(50_000 + 50_000)), "{format}");
    }
}
