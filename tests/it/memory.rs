//! Replies that would take more memory than there is.
//!
//! The budget is that of the process: these tests need one of their own, which nextest gives them.

use std::sync::Arc;
use std::time::Duration;

use pointsman::guard::{MemoryBudget, ReplyMemory};
use serde_json::{Value, json};

use super::scripted::{Scripted, response, stream_of_length};
use super::stage::*;

const MIB: usize = 1 << 20;

/// Most bytes that are taken for a reply before it needs them.
const STEP: usize = MIB;

fn chunk(delta: &Value, finish: &Value) -> String {
    let choice = json!({ "index": 0, "delta": delta, "finish_reason": finish });
    format!("data: {}\n\n", json!({ "id": "c", "model": "m", "choices": [choice] }))
}

/// Writes an answer of so many bytes, as a stream or whole.
fn answer(bytes: usize, streams: bool) -> String {
    let text = "low tide ".repeat(bytes / 9);
    if streams {
        let size = 32 << 10;
        let pieces =
            (0..text.len().div_ceil(size)).map(|at| &text[at * size..text.len().min((at + 1) * size)]);
        let events: String = pieces.map(|text| chunk(&json!({ "content": text }), &Value::Null)).collect();
        let events = format!("{events}{}data: [DONE]\n\n", chunk(&json!({}), &json!("stop")));
        return stream_of_length(events.len(), &events);
    }
    let message = json!({ "role": "assistant", "content": text });
    let choice = json!({ "index": 0, "message": message, "finish_reason": "stop" });
    let body = json!({ "id": "c", "model": "m", "choices": [choice] });
    response("200 OK", "content-type: application/json\r\n", &body.to_string())
}

const CALLS: usize = 16;

fn config(server: &Scripted, max_memory: &str, more: &str) -> String {
    let limits = format!("limits = {{ concurrency = {CALLS} }}\n{more}");
    let run = format!("[run]\nmax_memory = \"{max_memory}\"\nwindow = {CALLS}\n");
    format!("{run}{}", provider_at("a", &server.url(), &limits))
}

/// Takes all memory and more, as one reply may.
async fn take_all(budget: &Arc<MemoryBudget>) -> ReplyMemory {
    let mut all = budget.take(0).await.reply(false);
    all.hold(64 * MIB).await;
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_replies_at_once_take_no_more_memory_than_the_limit_and_one_of_them() {
    const REPLY: usize = MIB;
    let budget = MemoryBudget::of_process();
    for (streams, steps) in [(true, 1), (false, 1), (true, 2)] {
        let text = answer(REPLY, streams);
        let server = Scripted::start(move |_| text.clone()).await;
        let pointsman = start(&config(&server, "4MiB", PATIENT));
        let step = |number| format!("[[step]]\nname = \"s{number}\"\nprompt = \"Say {{{{ item.id }}}}\"\n");
        let pipeline: String = (0..steps).map(step).collect();
        let ran = run(&pointsman, &pipeline, CALLS).await;
        assert_eq!(ran.report.items.completed as usize, CALLS, "{:?}", ran.report);
        assert_eq!(server.requests(), CALLS * steps);
        let peak = budget.peak();
        if steps == 1 {
            assert!(peak >= 4 * REPLY, "{peak} bytes: it is not counted");
            let most = 4 * MIB + 4 * (REPLY + 64 * 1024) + STEP;
            assert!(peak <= most, "{peak} bytes were held at once, and at most {most} may be");
        }
        drop(pointsman);
        until("all memory is given back", || budget.used() == 0).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reply_that_waits_for_memory_is_neither_late_nor_slow_nor_asked_elsewhere() {
    let (large, small) = (answer(MIB, true), answer(9, true));
    let first = Scripted::start(move |_| large.clone()).await;
    let other = Scripted::start(move |_| small.clone()).await;
    let times =
        "timeouts = { connect = \"300ms\", first_token = \"300ms\", idle = \"300ms\", total = \"500ms\" }";
    let config = format!(
        "{}{}[route.r]\nlanes = [\"a/m\", \"b/m\"]\n[retry]\nhedge_after = \"400ms\"\nhedge_share = 1.0\n",
        config(&first, "2MiB", times),
        provider_at("b", &other.url(), PATIENT)
    );
    let pointsman = start(&config);
    let budget = MemoryBudget::of_process();
    let all = take_all(&budget).await;
    let used = budget.used();
    let asker = pointsman.clone();
    let asked =
        spawn(async move { asker.send(question("r", "Low tide?", Duration::from_millis(600))).await });
    until("it is asked", || first.requests() == 1).await;
    // All of its times pass.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(!asked.is_finished());
    assert_eq!(budget.used(), used);
    drop(all);
    let answered = asked.await.unwrap();
    assert_eq!((story(&answered), other.requests()), ("a:ok".to_owned(), 0));
    until("all memory is given back", || budget.used() == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_is_cancelled_does_not_wait_for_the_memory_of_its_replies() {
    use pointsman::run::Output;
    use pointsman::sink::{Format, Sink, Target};
    use pointsman::source::Source;
    let text = answer(MIB, false);
    let server = Scripted::start(move |_| text.clone()).await;
    let pointsman = start(&config(&server, "2MiB", PATIENT));
    let budget = MemoryBudget::of_process();
    let pipeline = "name = 'p'\n[[step]]\nname = 'answer'\nprompt = 'Say {{ item.id }}'";
    let pipeline = pointsman.parse_pipeline(pipeline).unwrap();
    let items = Source::values("items", (0..CALLS).map(|id| json!({ "id": id })));
    let output = Output::new(Sink::results(Target::none(), Format::Jsonl, &[]).unwrap());
    let mut run = pointsman.run(pipeline, items, output).await.unwrap();
    // Begun already, so that intake does not wait.
    until("items are begun", || budget.used() > 0).await;
    let all = take_all(&budget).await;
    until("it is asked", || server.requests() > 0).await;
    run.cancel();
    let report = tokio::time::timeout(Duration::from_secs(10), run.report()).await.unwrap().unwrap();
    assert_eq!(report.items.failed, 0, "{report:?}");
    drop(all);
    until("all memory is given back", || budget.used() == 0).await;
}
