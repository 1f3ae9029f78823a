//! Responses that would take more memory than the limit.
//!
//! The memory budget is one per process, so each test needs its own process, as with nextest.

use std::sync::Arc;
use std::time::Duration;

use pointsman::guard::{MemoryBudget, ResponseMemory};
use serde_json::{Value, json};

use super::scripted_server::{ScriptedServer, response, stream_of_length};
use super::support::*;

const MIB: usize = 1 << 20;

/// Maximum bytes that a response reserves before it needs them.
const RESERVATION_STEP: usize = MIB;

fn chunk(delta: &Value, finish: &Value) -> String {
    let choice = json!({ "index": 0, "delta": delta, "finish_reason": finish });
    format!("data: {}\n\n", json!({ "id": "c", "model": "m", "choices": [choice] }))
}

/// Returns a response with a text of `bytes` bytes, as a stream or as one JSON body.
fn answer(bytes: usize, streams: bool) -> String {
    let text = "low tide ".repeat(bytes / 9);
    if streams {
        let size = 32 << 10;
        let chunks =
            (0..text.len().div_ceil(size)).map(|at| &text[at * size..text.len().min((at + 1) * size)]);
        let events: String = chunks.map(|text| chunk(&json!({ "content": text }), &Value::Null)).collect();
        let events = format!("{events}{}data: [DONE]\n\n", chunk(&json!({}), &json!("stop")));
        return stream_of_length(events.len(), &events);
    }
    let message = json!({ "role": "assistant", "content": text });
    let choice = json!({ "index": 0, "message": message, "finish_reason": "stop" });
    let body = json!({ "id": "c", "model": "m", "choices": [choice] });
    response("200 OK", "content-type: application/json\r\n", &body.to_string())
}

const CALLS: usize = 16;

fn config(server: &ScriptedServer, max_memory: &str, more: &str) -> String {
    let limits = format!("limits = {{ concurrency = {CALLS} }}\n{more}");
    let run = format!("[run]\nmax_memory = \"{max_memory}\"\nmax_in_flight_items = {CALLS}\n");
    format!("{run}{}", provider_config_at("a", &server.url(), &limits))
}

/// Takes more than all memory, as one response may.
async fn take_all_memory(budget: &Arc<MemoryBudget>) -> ResponseMemory {
    let mut all = budget.take(0).await.response(false);
    all.hold(64 * MIB).await;
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_large_responses_stay_within_the_memory_limit() {
    const RESPONSE_BYTES: usize = MIB;
    let budget = MemoryBudget::of_process();
    for (streams, steps) in [(true, 1), (false, 1), (true, 2)] {
        let text = answer(RESPONSE_BYTES, streams);
        let server = ScriptedServer::start(move |_| text.clone()).await;
        let pointsman = start_pointsman(&config(&server, "4MiB", LONG_TIMEOUTS));
        let step = |number| format!("[[step]]\nname = \"s{number}\"\nprompt = \"Say {{{{ item.id }}}}\"\n");
        let pipeline: String = (0..steps).map(step).collect();
        let finished = run_pipeline(&pointsman, &pipeline, CALLS).await;
        assert_eq!(finished.report.items.completed as usize, CALLS, "{:?}", finished.report);
        assert_eq!(server.requests(), CALLS * steps);
        let peak = budget.peak();
        if steps == 1 {
            assert!(peak >= 4 * RESPONSE_BYTES, "{peak} bytes: the memory of responses is not counted");
            let max = 4 * MIB + 4 * (RESPONSE_BYTES + 64 * 1024) + RESERVATION_STEP;
            assert!(peak <= max, "{peak} bytes were used at once, and at most {max} are allowed");
        }
        drop(pointsman);
        wait_until("all memory is released", || budget.used() == 0).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_response_that_waits_for_memory_neither_times_out_nor_is_hedged() {
    let large = answer(MIB, true);
    let small = answer(9, true);
    let first = ScriptedServer::start(move |_| large.clone()).await;
    let other = ScriptedServer::start(move |_| small.clone()).await;
    let timeouts = "timeouts = { connect = \"1s\", first_token = \"1s\", idle = \"1s\", total = \"1500ms\" }";
    let config = format!(
        "{}{}[route.r]\ntargets = [\"a/m\", \"b/m\"]\n[retry]\nhedge_after = \"1200ms\"\nhedge_ratio = 1.0\n",
        config(&first, "2MiB", timeouts),
        provider_config_at("b", &other.url(), LONG_TIMEOUTS)
    );
    let pointsman = start_pointsman(&config);
    let budget = MemoryBudget::of_process();
    let all = take_all_memory(&budget).await;
    let used = budget.used();
    let client = pointsman.clone();
    let sending =
        spawn(async move { client.send(new_request("r", "Low tide?", Duration::from_millis(1_800))).await });
    wait_until("a request arrives", || first.requests() == 1).await;
    // All timeouts pass.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(!sending.is_finished());
    assert_eq!(budget.used(), used);
    drop(all);
    let result = sending.await.unwrap();
    assert_eq!((attempt_summary(&result), other.requests()), ("a:ok".to_owned(), 0));
    wait_until("all memory is released", || budget.used() == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_run_does_not_wait_for_the_memory_of_its_responses() {
    use pointsman::run::RunOutput;
    use pointsman::sink::{Destination, Format, Sink};
    use pointsman::source::Source;
    let text = answer(MIB, false);
    let server = ScriptedServer::start(move |_| text.clone()).await;
    let pointsman = start_pointsman(&config(&server, "2MiB", LONG_TIMEOUTS));
    let budget = MemoryBudget::of_process();
    let pipeline = "name = 'p'\n[[step]]\nname = 'answer'\nprompt = 'Say {{ item.id }}'";
    let pipeline = pointsman.parse_pipeline(pipeline).unwrap();
    let items = Source::values("items", (0..CALLS).map(|id| json!({ "id": id })));
    let output = RunOutput::new(Sink::results(Destination::none(), Format::Jsonl, &[]).unwrap());
    let mut run = pointsman.run(pipeline, items, output).await.unwrap();
    // The items are started first, so that intake does not wait for memory.
    wait_until("items are started", || budget.used() > 0).await;
    let all = take_all_memory(&budget).await;
    wait_until("a request arrives", || server.requests() > 0).await;
    run.cancel();
    let report = tokio::time::timeout(Duration::from_secs(10), run.report()).await.unwrap().unwrap();
    assert_eq!(report.items.failed, 0, "{report:?}");
    drop(all);
    wait_until("all memory is released", || budget.used() == 0).await;
}
