use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use futures_util::stream;

use super::*;
use crate::guard::{HeldMemory, MemoryBudget, ResponseMemory};
use crate::provider::call::DispatchSignal;
use crate::provider::settings::Timeouts;
use crate::types::ResponseFormat;
use crate::wire::StreamSupport;

const SECOND: Duration = Duration::from_secs(1);

fn answer() -> Vec<String> {
    vec![
        "data: {\"choices\":[{\"delta\":{\"content\":\"fine\"}}]}\n\n".to_owned(),
        "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n".to_owned(),
    ]
}

fn body(all: Vec<String>) -> impl BodyStream {
    stream::iter(all.into_iter().map(|part| Ok(Bytes::from(part))))
}

/// Reads a stream with timeouts of eight hours.
async fn read(body: impl BodyStream) -> Result<Completion, Failure> {
    read_within(8 * 3_600 * SECOND, body).await
}

async fn read_within(time: Duration, body: impl BodyStream) -> Result<Completion, Failure> {
    let timeouts = Timeouts { connect: SECOND, first_token: time, idle: time, total: time };
    let now = Instant::now();
    let mut call = CallTimeouts::start(&timeouts, StreamSupport::Auto, now + time, now);
    read_as(Format::Openai, body, &mut call).await
}

async fn read_as(
    format: Format,
    body: impl BodyStream,
    timeouts: &mut CallTimeouts<'_>,
) -> Result<Completion, Failure> {
    let budget = Arc::new(MemoryBudget::new(usize::MAX));
    let held = budget.take(0).await;
    let mut limit = ResponseLimit::new(held.response(true), None);
    let contents = RequestContents { format, prompt: &Prompt::text("x"), dialect: &Dialect::default() };
    let usage = UnreportedUsage::default();
    read_stream(&contents, body, (timeouts, &mut limit), &usage, None, &Handle::current()).await
}

async fn read_gemini(body: impl BodyStream) -> Result<Completion, Failure> {
    let timeouts = Timeouts::default();
    let now = Instant::now();
    let mut call = CallTimeouts::start(&timeouts, StreamSupport::Auto, now + 600 * SECOND, now);
    read_as(Format::Gemini, body, &mut call).await
}

/// A Gemini event with this text and a finish reason; it may be the last one.
fn last(text: &str) -> String {
    let candidate = serde_json::json!({ "content": { "parts": [{ "text": text }] }, "finishReason": "STOP" });
    let usage = serde_json::json!({ "promptTokenCount": 1, "candidatesTokenCount": 1 });
    let chunk = serde_json::json!({ "candidates": [candidate], "usageMetadata": usage });
    format!("data: {chunk}\n\n")
}

/// A body whose parts each follow the previous one after this many seconds.
fn paced(all: Vec<(u32, String)>) -> impl BodyStream {
    let part = async |(seconds, part)| {
        tokio::time::sleep(seconds * SECOND).await;
        Ok(Bytes::from(part))
    };
    Box::pin(stream::iter(all).then(part))
}

#[tokio::test]
async fn an_answer_is_complete_wherever_its_stream_is_split() {
    let all = answer().concat();
    for at in 0..all.len() {
        let (start, end) = all.split_at(at);
        let completion = read(body(vec![start.to_owned(), end.to_owned()])).await.unwrap();
        assert_eq!(completion.text, "fine", "{at}");
        // A body that ends after the finish reason is complete, with or without the end marker.
        let ended = read(body(vec![start.to_owned()])).await;
        let rest = start.split_once("\"finish_reason\":\"stop\"}]}").map(|(_, rest)| rest.trim_start());
        let is_complete = |rest: &str| "data: ".starts_with(rest) || rest.starts_with("data: [DONE]");
        assert_eq!(ended.is_ok(), rest.is_some_and(is_complete), "{at}");
        // After a connection error it is complete only if the end marker was received.
        let closed = Failure::new(Class::Unreadable, "the connection was closed");
        let closed = stream::iter([Ok(Bytes::from(start.to_owned())), Err(closed)]);
        assert_eq!(read(closed).await.is_ok(), start.contains("[DONE]\n\n"), "{at}");
    }
}

#[actix_web::test]
async fn other_tasks_run_while_tiny_events_are_read() {
    for part in ["data:{}\n\n".repeat(400), ":\n".repeat(4_000)] {
        let others = Arc::new(AtomicBool::default());
        let ran = others.clone();
        let other = actix_rt::spawn(async move { ran.store(true, SeqCst) });
        let mut all = vec![part; 200];
        all.extend(answer());
        assert_eq!(read(body(all)).await.unwrap().text, "fine");
        assert!(others.load(SeqCst), "no other task ran before the answer was complete");
        other.await.unwrap();
    }
}

#[tokio::test]
async fn a_flood_of_events_without_an_answer_is_unreadable() {
    let mut all = answer();
    let end = all.split_off(1);
    let long = format!("data:{{\"x\":\"{}\"}}\n\n", "x".repeat(60_000));
    for (flood, limit) in [
        ("data:{}\n\n".repeat(25_000), "100000 events"),
        ("id:1\n\n".repeat(25_000), "100000 events"),
        (long, "4 MiB"),
    ] {
        let accepted = [all.clone(), vec![flood.clone(); 3], end.clone()].concat();
        assert_eq!(read(body(accepted)).await.unwrap().text, "fine");
        let excessive = [all.clone(), vec![flood; 80], end.clone()].concat();
        let failure = read(body(excessive)).await.unwrap_err();
        assert_eq!(failure.class, Class::Unreadable);
        let expected = format!("more than {limit} came without a part of the answer");
        assert!(failure.message.contains(&expected), "{}", failure.message);
    }
}

#[tokio::test(start_paused = true)]
async fn an_hour_of_pings_before_the_answer_is_not_a_failure() {
    let ping = serde_json::json!({
        "id": "c".repeat(100), "object": "chat.completion.chunk", "model": "m".repeat(100),
        "choices": [{ "index": 0, "delta": { "role": "assistant", "content": "" }, "finish_reason": null }],
    });
    let pings = [format!("data: {ping}\n\n"), ": OPENROUTER PROCESSING\n\n".to_owned()].concat();
    let mut all = vec![pings; 3_600];
    all.extend(answer());
    let paced = Box::pin(body(all).then(async |part| {
        tokio::time::sleep(SECOND).await;
        part
    }));
    let started = Instant::now();
    assert_eq!(read(paced).await.unwrap().text, "fine");
    assert!(started.elapsed() >= 3_600 * SECOND);
}

fn chunk(text: &str) -> String {
    format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"{text}\"}}}}]}}\n\n")
}

/// Reads with the memory of `held` and short timeouts.
async fn read_holding(
    body: impl BodyStream,
    held: &HeldMemory,
    signal: &DispatchSignal,
    time: Duration,
) -> Result<Completion, Failure> {
    let timeouts = Timeouts { connect: SECOND, first_token: time, idle: time, total: time };
    let now = Instant::now();
    let mut call = CallTimeouts::start(&timeouts, StreamSupport::Auto, now + time, now);
    let mut limit = ResponseLimit::new(held.response(true), Some(signal));
    let contents =
        RequestContents { format: Format::Openai, prompt: &Prompt::text("x"), dialect: &Dialect::default() };
    let usage = UnreportedUsage::default();
    let read = read_stream(&contents, body, (&mut call, &mut limit), &usage, None, &Handle::current()).await;
    if let Ok(completion) = &read {
        limit.hold_answer(completion, &ResponseFormat::Text, &mut call).await;
    }
    limit.end(&read);
    read
}

/// Takes all memory, and the slot of the one response that may exceed it.
async fn take_all(budget: &Arc<MemoryBudget>) -> ResponseMemory {
    let mut all = budget.take(0).await.response(true);
    all.hold(32 << 20).await;
    all
}

#[tokio::test(start_paused = true)]
async fn the_wait_for_memory_does_not_count_against_the_timeouts() {
    let budget = Arc::new(MemoryBudget::new(1 << 20));
    let held = budget.take(0).await;
    let signal = DispatchSignal::new();
    let all = take_all(&budget).await;
    // The provider's pauses alone are nearly as long as the timeouts.
    let text = "x".repeat(100_000);
    let mut events = vec![(3, chunk(&text)), (0, chunk(&text)), (1, chunk(&text))];
    events.extend(answer().into_iter().map(|part| (0, part)));
    let reading = read_holding(paced(events), &held, &signal, 5 * SECOND);
    let (response, ()) = tokio::join!(reading, async {
        tokio::time::sleep(600 * SECOND).await;
        assert_eq!(signal.paused_for(), 597 * SECOND);
        drop(all);
    });
    assert_eq!(response.unwrap().text.len(), 300_004);
    assert_eq!(signal.paused_for(), 597 * SECOND);
    assert_eq!(held.waited(), 597 * SECOND);
    // Four times the text, until the item ends.
    assert_eq!(budget.used(), 4 * 300_004);
    drop(held);
    assert_eq!(budget.used(), 0);
}

#[tokio::test(start_paused = true)]
async fn timeouts_continue_when_memory_is_available_again() {
    let budget = Arc::new(MemoryBudget::new(1 << 20));
    let held = budget.take(0).await;
    let signal = DispatchSignal::new();
    let all = take_all(&budget).await;
    let events = body(vec![chunk(&"x".repeat(100_000))]).chain(stream::pending());
    let began = Instant::now();
    let (failure, ()) = tokio::join!(read_holding(events, &held, &signal, 5 * SECOND), async {
        tokio::time::sleep(60 * SECOND).await;
        drop(all);
    });
    // The deadline, the total and the idle timeout have the same length here.
    assert_eq!((failure.unwrap_err().class, began.elapsed()), (Class::Deadline, 65 * SECOND));
    assert_eq!(budget.used(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_aborted_while_it_waits_for_memory_holds_no_memory() {
    let budget = Arc::new(MemoryBudget::new(1 << 20));
    let held = budget.take(0).await;
    let signal = DispatchSignal::new();
    let all = take_all(&budget).await;
    let used = budget.used();
    let reading = read_holding(body(vec![chunk(&"x".repeat(100_000))]), &held, &signal, 5 * SECOND);
    assert!(timeout(60 * SECOND, reading).await.is_err());
    assert_eq!((budget.used(), signal.paused_for()), (used, 60 * SECOND));
    drop(all);
    assert_eq!(budget.used(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_small_response_does_not_wait_for_memory() {
    let budget = Arc::new(MemoryBudget::new(1 << 20));
    let held = budget.take(0).await;
    let signal = DispatchSignal::new();
    let _all = take_all(&budget).await;
    let mut events = vec![chunk(&"x".repeat(60_000))];
    events.extend(answer());
    let completion = read_holding(body(events), &held, &signal, 5 * SECOND).await.unwrap();
    assert_eq!((completion.text.len(), signal.paused_for()), (60_004, Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn a_failed_response_holds_memory_only_for_its_kept_text() {
    let budget = Arc::new(MemoryBudget::new(1 << 20));
    let held = budget.take(0).await;
    let signal = DispatchSignal::new();
    let cut = "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"length\"}]}\n\ndata: [DONE]\n\n";
    let events = vec![chunk(&"x".repeat(100_000)), cut.to_owned()];
    let failure = read_holding(body(events), &held, &signal, 5 * SECOND).await.unwrap_err();
    assert_eq!((failure.class, budget.used()), (Class::Truncated, 400_000));
    let closed = Failure::new(Class::Unreadable, "the connection was closed");
    let events = body(vec![chunk(&"x".repeat(900_000))]).chain(stream::iter([Err(closed)]));
    let failure = read_holding(events, &held, &signal, 5 * SECOND).await.unwrap_err();
    assert_eq!((failure.class, budget.used()), (Class::Unreadable, 400_000));
}

#[tokio::test(start_paused = true)]
async fn text_after_a_finish_reason_is_read_wherever_its_stream_is_split() {
    let all = [last("Low "), last("tide "), last("at dawn.")].concat();
    for at in 0..all.len() {
        let (start, end) = all.split_at(at);
        let both = vec![(1, start.to_owned()), (4, end.to_owned())];
        assert_eq!(read_gemini(paced(both)).await.unwrap().text, "Low tide at dawn.", "{at}");
    }
    // A second finish reason shows that this provider's finish reason does not end an answer: the answer may
    // pause.
    let slow = [(1, "Low "), (4, "tide "), (40, "at dawn.")];
    let slow = slow.map(|(seconds, text)| (seconds, last(text))).to_vec();
    assert_eq!(read_gemini(paced(slow)).await.unwrap().text, "Low tide at dawn.");
    let closed = stream::iter([
        Ok(last("Low ").into()),
        Err(Failure::new(Class::Unreadable, "the connection was closed")),
    ]);
    assert_eq!(read_gemini(closed).await.unwrap_err().class, Class::Unreadable);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_stays_open_delays_a_complete_answer_by_five_seconds() {
    let started = Instant::now();
    let completion = read_gemini(paced(vec![(1, last("fine"))]).chain(stream::pending())).await.unwrap();
    assert_eq!((&*completion.text, started.elapsed()), ("fine", SECOND + MAX_WAIT_AFTER_COMPLETE));
    // Pings do not extend the wait.
    let pings = paced((0..100).map(|_| (1, ": ping\n\n".to_owned())).collect());
    let started = Instant::now();
    assert_eq!(read_gemini(paced(vec![(1, last("fine"))]).chain(pings)).await.unwrap().text, "fine");
    assert_eq!(started.elapsed(), SECOND + MAX_WAIT_AFTER_COMPLETE);
    let half = last("more");
    let half = half[..half.len() / 2].to_owned();
    let half = paced(vec![(1, last("fine")), (1, half)]).chain(stream::pending());
    assert_eq!(read_gemini(half).await.unwrap_err().class, Class::Unreadable);
}

/// Reads a whole response whose parts each follow the previous one after this many seconds.
async fn read_whole(stream: StreamSupport, parts: Vec<(u32, String)>) -> Result<Completion, Failure> {
    let timeouts =
        Timeouts { connect: SECOND, first_token: 20 * SECOND, idle: 5 * SECOND, total: 600 * SECOND };
    let now = Instant::now();
    let mut call = CallTimeouts::start(&timeouts, stream, now + 900 * SECOND, now);
    let budget = Arc::new(MemoryBudget::new(usize::MAX));
    let held = budget.take(0).await;
    let mut limit = ResponseLimit::new(held.response(true), None);
    let contents =
        RequestContents { format: Format::Openai, prompt: &Prompt::text("x"), dialect: &Dialect::default() };
    read_json(&contents, paced(parts), (&mut call, &mut limit), &UnreportedUsage::default()).await
}

/// Reads a response until it is dropped after a minute, and returns the output tokens that were received until then.
async fn received_tokens(is_whole: bool, parts: Vec<(u32, String)>) -> u64 {
    let time = 900 * SECOND;
    let timeouts = Timeouts { connect: SECOND, first_token: time, idle: time, total: time };
    let now = Instant::now();
    let mut call = CallTimeouts::start(&timeouts, StreamSupport::Auto, now + time, now);
    let budget = Arc::new(MemoryBudget::new(usize::MAX));
    let held = budget.take(0).await;
    let mut limit = ResponseLimit::new(held.response(true), None);
    let contents =
        RequestContents { format: Format::Openai, prompt: &Prompt::text("x"), dialect: &Dialect::default() };
    let usage = UnreportedUsage::default();
    let state = (&mut call, &mut limit);
    let is_dropped = if is_whole {
        timeout(60 * SECOND, read_json(&contents, paced(parts), state, &usage)).await.is_err()
    } else {
        let runtime = Handle::current();
        timeout(60 * SECOND, read_stream(&contents, paced(parts), state, &usage, None, &runtime))
            .await
            .is_err()
    };
    assert!(is_dropped, "the response has ended");
    usage.output_tokens()
}

#[tokio::test(start_paused = true)]
async fn what_was_received_of_a_response_that_is_dropped_is_known() {
    let text = "x".repeat(300);
    let reasoning = format!("data: {{\"choices\":[{{\"delta\":{{\"reasoning\":\"{text}\"}}}}]}}\n\n");
    // Two events in one part of the body, and reasoning that is not kept.
    let two = chunk(&text) + &chunk(&text);
    let parts = vec![(0, chunk(&text)), (1, two), (1, reasoning), (600, chunk(&text))];
    assert_eq!(received_tokens(false, parts).await, 400);
    // Blank lines are not output.
    let parts = vec![(0, "\n\n".repeat(300)), (1, format!("{text}\n")), (600, text)];
    assert_eq!(received_tokens(true, parts).await, 100);
}

#[tokio::test(start_paused = true)]
async fn blank_lines_before_a_whole_response_do_not_start_the_idle_timeout() {
    let choice = serde_json::json!({ "message": { "content": "fine" }, "finish_reason": "stop" });
    let answer = serde_json::json!({ "choices": [choice] }).to_string();
    let parts = || vec![(1, "\n".to_owned()), (40, "\n".to_owned()), (100, answer.clone())];
    assert_eq!(read_whole(StreamSupport::Never, parts()).await.unwrap().text, "fine");
    assert_eq!(read_whole(StreamSupport::Auto, parts()).await.unwrap_err().class, Class::Timeout);
    // Nor is a body that stops in the middle awaited.
    let (start, end) = answer.split_at(20);
    let cut = vec![(1, start.to_owned()), (6, end.to_owned())];
    assert_eq!(read_whole(StreamSupport::Never, cut).await.unwrap_err().class, Class::Timeout);
}
