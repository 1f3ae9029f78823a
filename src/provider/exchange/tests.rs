use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use futures_util::stream;

use super::*;
use crate::guard::{HeldMemory, MemoryBudget, ReplyMemory};
use crate::provider::call::Departure;
use crate::provider::settings::Timeouts;
use crate::types::Shape;

const SECOND: Duration = Duration::from_secs(1);

fn answer() -> Vec<String> {
    vec![
        "data: {\"choices\":[{\"delta\":{\"content\":\"fine\"}}]}\n\n".to_owned(),
        "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n".to_owned(),
    ]
}

fn pieces(all: Vec<String>) -> impl Pieces {
    stream::iter(all.into_iter().map(|piece| Ok(Bytes::from(piece))))
}

/// Reads a stream as a call with eight hours of time does.
async fn read(pieces: impl Pieces) -> Result<Reply, Failure> {
    read_within(8 * 3_600 * SECOND, pieces).await
}

async fn read_within(time: Duration, pieces: impl Pieces) -> Result<Reply, Failure> {
    let timeouts = Timeouts { connect: SECOND, first_token: time, idle: time, total: time };
    let now = Instant::now();
    let mut clocks = Clocks::start(&timeouts, now + time, now);
    read_as(Format::Openai, pieces, &mut clocks).await
}

async fn read_as(format: Format, pieces: impl Pieces, clocks: &mut Clocks<'_>) -> Result<Reply, Failure> {
    let budget = Arc::new(MemoryBudget::new(usize::MAX));
    let held = budget.take(0).await;
    let mut limit = ReplyLimit::new(held.reply(true), None);
    let asked = Asked { format, prompt: &Prompt::text("x"), dialect: &Dialect::default() };
    read_stream(&asked, pieces, (clocks, &mut limit), &Handle::current()).await
}

async fn read_gemini(pieces: impl Pieces) -> Result<Reply, Failure> {
    let timeouts = Timeouts::default();
    let now = Instant::now();
    let mut clocks = Clocks::start(&timeouts, now + 600 * SECOND, now);
    read_as(Format::Gemini, pieces, &mut clocks).await
}

/// An event of Gemini's that says so much and may be the last.
fn last(text: &str) -> String {
    let candidate = serde_json::json!({ "content": { "parts": [{ "text": text }] }, "finishReason": "STOP" });
    let usage = serde_json::json!({ "promptTokenCount": 1, "candidatesTokenCount": 1 });
    let chunk = serde_json::json!({ "candidates": [candidate], "usageMetadata": usage });
    format!("data: {chunk}\n\n")
}

/// Each piece comes so many seconds after the one before it.
fn paced(all: Vec<(u32, String)>) -> impl Pieces {
    let piece = async |(seconds, piece)| {
        tokio::time::sleep(seconds * SECOND).await;
        Ok(Bytes::from(piece))
    };
    Box::pin(stream::iter(all).then(piece))
}

#[tokio::test]
async fn an_answer_is_read_wherever_its_stream_is_cut() {
    let all = answer().concat();
    for at in 0..all.len() {
        let (start, end) = all.split_at(at);
        let reply = read(pieces(vec![start.to_owned(), end.to_owned()])).await.unwrap();
        assert_eq!(reply.text, "fine", "{at}");
        // A body that ends after the finish reason is complete, whether its last event is the mark or not.
        let ended = read(pieces(vec![start.to_owned()])).await;
        let rest = start.split_once("\"finish_reason\":\"stop\"}]}").map(|(_, rest)| rest.trim_start());
        let is_whole = |rest: &str| "data: ".starts_with(rest) || rest.starts_with("data: [DONE]");
        assert_eq!(ended.is_ok(), rest.is_some_and(is_whole), "{at}");
        // One that breaks off is not, unless the mark has come.
        let broken = Failure::new(Class::Unreadable, "the reply broke off");
        let broken = stream::iter([Ok(Bytes::from(start.to_owned())), Err(broken)]);
        assert_eq!(read(broken).await.is_ok(), start.contains("[DONE]\n\n"), "{at}");
    }
}

#[actix_web::test]
async fn other_tasks_run_while_tiny_events_are_read() {
    for piece in ["data:{}\n\n".repeat(400), ":\n".repeat(4_000)] {
        let others = Arc::new(AtomicBool::default());
        let ran = others.clone();
        let other = actix_rt::spawn(async move { ran.store(true, SeqCst) });
        let mut all = vec![piece; 200];
        all.extend(answer());
        assert_eq!(read(pieces(all)).await.unwrap().text, "fine");
        assert!(others.load(SeqCst), "nothing else ran before the answer was there");
        other.await.unwrap();
    }
}

#[tokio::test]
async fn a_flood_of_events_without_an_answer_is_unreadable() {
    let mut all = answer();
    let end = all.split_off(1);
    let long = format!("data:{{\"x\":\"{}\"}}\n\n", "x".repeat(60_000));
    for (flood, most) in [
        ("data:{}\n\n".repeat(25_000), "100000 events"),
        ("id:1\n\n".repeat(25_000), "100000 events"),
        (long, "4 MiB"),
    ] {
        let within = [all.clone(), vec![flood.clone(); 3], end.clone()].concat();
        assert_eq!(read(pieces(within)).await.unwrap().text, "fine");
        let beyond = [all.clone(), vec![flood; 80], end.clone()].concat();
        let failure = read(pieces(beyond)).await.unwrap_err();
        assert_eq!(failure.class, Class::Unreadable);
        let said = format!("more than {most} came without a part of the answer");
        assert!(failure.message.contains(&said), "{}", failure.message);
    }
}

#[tokio::test(start_paused = true)]
async fn an_hour_of_pings_before_the_answer_is_waited_for() {
    let ping = serde_json::json!({
        "id": "c".repeat(100), "object": "chat.completion.chunk", "model": "m".repeat(100),
        "choices": [{ "index": 0, "delta": { "role": "assistant", "content": "" }, "finish_reason": null }],
    });
    let pings = [format!("data: {ping}\n\n"), ": OPENROUTER PROCESSING\n\n".to_owned()].concat();
    let mut all = vec![pings; 3_600];
    all.extend(answer());
    let paced = Box::pin(pieces(all).then(async |piece| {
        tokio::time::sleep(SECOND).await;
        piece
    }));
    let started = Instant::now();
    assert_eq!(read(paced).await.unwrap().text, "fine");
    assert!(started.elapsed() >= 3_600 * SECOND);
}

fn chunk(text: &str) -> String {
    format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"{text}\"}}}}]}}\n\n")
}

/// Reads with the memory that `held` has, within short times.
async fn read_holding(
    pieces: impl Pieces,
    held: &HeldMemory,
    departure: &Departure,
    time: Duration,
) -> Result<Reply, Failure> {
    let timeouts = Timeouts { connect: SECOND, first_token: time, idle: time, total: time };
    let now = Instant::now();
    let mut clocks = Clocks::start(&timeouts, now + time, now);
    let mut limit = ReplyLimit::new(held.reply(true), Some(departure));
    let asked = Asked { format: Format::Openai, prompt: &Prompt::text("x"), dialect: &Dialect::default() };
    let read = read_stream(&asked, pieces, (&mut clocks, &mut limit), &Handle::current()).await;
    if let Ok(reply) = &read {
        limit.hold_answer(&reply.text, &Shape::Text, &mut clocks).await;
    }
    limit.end(&read);
    read
}

/// Takes all memory, and the place of the reply that may take more.
async fn take_all(budget: &Arc<MemoryBudget>) -> ReplyMemory {
    let mut all = budget.take(0).await.reply(true);
    all.hold(32 << 20).await;
    all
}

#[tokio::test(start_paused = true)]
async fn a_reply_that_waits_for_memory_has_as_much_more_time_and_is_read_to_its_end() {
    let budget = Arc::new(MemoryBudget::new(1 << 20));
    let (held, departure) = (budget.take(0).await, Departure::new());
    let all = take_all(&budget).await;
    // Each is waited for as long as it may take at all, after pauses of the provider that are nearly as long.
    let text = "x".repeat(100_000);
    let mut events = vec![(3, chunk(&text)), (0, chunk(&text)), (1, chunk(&text))];
    events.extend(answer().into_iter().map(|piece| (0, piece)));
    let reading = read_holding(paced(events), &held, &departure, 5 * SECOND);
    let (reply, ()) = tokio::join!(reading, async {
        tokio::time::sleep(600 * SECOND).await;
        assert_eq!(departure.paused(), 597 * SECOND);
        drop(all);
    });
    assert_eq!(reply.unwrap().text.len(), 300_004);
    assert_eq!(departure.paused(), 597 * SECOND);
    assert_eq!(held.waited(), 597 * SECOND);
    // Four times its text, until its item ends.
    assert_eq!(budget.used(), 4 * 300_004);
    drop(held);
    assert_eq!(budget.used(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_silence_counts_again_once_there_is_memory() {
    let budget = Arc::new(MemoryBudget::new(1 << 20));
    let (held, departure) = (budget.take(0).await, Departure::new());
    let all = take_all(&budget).await;
    let events = pieces(vec![chunk(&"x".repeat(100_000))]).chain(stream::pending());
    let began = Instant::now();
    let (failure, ()) = tokio::join!(read_holding(events, &held, &departure, 5 * SECOND), async {
        tokio::time::sleep(60 * SECOND).await;
        drop(all);
    });
    // The deadline, the total and the silence are as long here.
    assert_eq!((failure.unwrap_err().class, began.elapsed()), (Class::Deadline, 65 * SECOND));
    assert_eq!(budget.used(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_broken_off_while_it_waits_for_memory_ends_at_once_and_holds_nothing() {
    let budget = Arc::new(MemoryBudget::new(1 << 20));
    let (held, departure) = (budget.take(0).await, Departure::new());
    let all = take_all(&budget).await;
    let used = budget.used();
    let reading = read_holding(pieces(vec![chunk(&"x".repeat(100_000))]), &held, &departure, 5 * SECOND);
    assert!(timeout(60 * SECOND, reading).await.is_err());
    assert_eq!((budget.used(), departure.paused()), (used, 60 * SECOND));
    drop(all);
    assert_eq!(budget.used(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_small_reply_waits_for_no_memory() {
    let budget = Arc::new(MemoryBudget::new(1 << 20));
    let (held, departure) = (budget.take(0).await, Departure::new());
    let _all = take_all(&budget).await;
    let mut events = vec![chunk(&"x".repeat(60_000))];
    events.extend(answer());
    let reply = read_holding(pieces(events), &held, &departure, 5 * SECOND).await.unwrap();
    assert_eq!((reply.text.len(), departure.paused()), (60_004, Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn what_a_failed_reply_had_said_is_counted_and_the_rest_given_back() {
    let budget = Arc::new(MemoryBudget::new(1 << 20));
    let (held, departure) = (budget.take(0).await, Departure::new());
    let cut = "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"length\"}]}\n\ndata: [DONE]\n\n";
    let events = vec![chunk(&"x".repeat(100_000)), cut.to_owned()];
    let failure = read_holding(pieces(events), &held, &departure, 5 * SECOND).await.unwrap_err();
    assert_eq!((failure.class, budget.used()), (Class::Truncated, 400_000));
    let broken = Failure::new(Class::Unreadable, "the reply broke off");
    let events = pieces(vec![chunk(&"x".repeat(900_000))]).chain(stream::iter([Err(broken)]));
    let failure = read_holding(events, &held, &departure, 5 * SECOND).await.unwrap_err();
    assert_eq!((failure.class, budget.used()), (Class::Unreadable, 400_000));
}

#[tokio::test(start_paused = true)]
async fn text_after_a_finish_reason_is_read_wherever_its_stream_is_cut() {
    let all = [last("Low "), last("tide "), last("at dawn.")].concat();
    for at in 0..all.len() {
        let (start, end) = all.split_at(at);
        let both = vec![(1, start.to_owned()), (4, end.to_owned())];
        assert_eq!(read_gemini(paced(both)).await.unwrap().text, "Low tide at dawn.", "{at}");
    }
    // Two of them have shown what the reason is worth: from then on the answer may pause.
    let slow = [(1, "Low "), (4, "tide "), (40, "at dawn.")];
    let slow = slow.map(|(seconds, text)| (seconds, last(text))).to_vec();
    assert_eq!(read_gemini(paced(slow)).await.unwrap().text, "Low tide at dawn.");
    let broken = stream::iter([Ok(last("Low ").into()), Err(Failure::new(Class::Unreadable, "broke off"))]);
    assert_eq!(read_gemini(broken).await.unwrap_err().class, Class::Unreadable);
}

#[tokio::test(start_paused = true)]
async fn a_complete_answer_is_kept_back_a_few_seconds_by_a_connection_that_stays_open() {
    let started = Instant::now();
    let reply = read_gemini(paced(vec![(1, last("fine"))]).chain(stream::pending())).await.unwrap();
    assert_eq!((&*reply.text, started.elapsed()), ("fine", SECOND + REST));
    // Pings are no more of it.
    let pings = paced((0..100).map(|_| (1, ": ping\n\n".to_owned())).collect());
    let started = Instant::now();
    assert_eq!(read_gemini(paced(vec![(1, last("fine"))]).chain(pings)).await.unwrap().text, "fine");
    assert_eq!(started.elapsed(), SECOND + REST);
    let half = last("more");
    let half = half[..half.len() / 2].to_owned();
    let half = paced(vec![(1, last("fine")), (1, half)]).chain(stream::pending());
    assert_eq!(read_gemini(half).await.unwrap_err().class, Class::Unreadable);
}
