use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use futures_util::stream;

use super::*;
use crate::provider::settings::Timeouts;

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
    let asked = Asked { format, prompt: &Prompt::text("x"), dialect: &Dialect::default() };
    read_stream(&asked, pieces, clocks, &Handle::current()).await
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

#[tokio::test(start_paused = true)]
async fn an_event_whose_end_has_not_come_counts_as_a_large_reply() {
    let unfinished = || {
        let start = answer().remove(0);
        pieces(vec![start, format!("data: {}", "x".repeat(2 << 20))]).chain(stream::pending())
    };
    // The last two have less time than those that have a place.
    let reads = (0..6).map(|number| read_within(if number < 4 { 5 } else { 4 } * SECOND, unfinished()));
    let failures = futures_util::future::join_all(reads).await;
    let waited = failures.iter().filter(|failure| {
        let failure = failure.as_ref().unwrap_err();
        assert_eq!(failure.class, Class::Deadline);
        failure.message.contains("large replies")
    });
    assert_eq!(waited.count(), 2);
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
