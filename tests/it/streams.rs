//! Streamed answers: their pieces, the commit to one target, back-pressure, and the end of a dropped stream.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::join_all;
use pointsman::guard::SharedBudget;
use pointsman::runtime::Pointsman;
use pointsman::simulator::{Fault, FaultKind, FirstToken, Latency, Length, Settings, Simulator, Vendor};
use pointsman::types::{
    Class, LengthLimit, Price, Prompt, RequestError, Response, Spend, StreamEvent, Tokens, Usage,
};
use pointsman::{Request, ResponseStream, StreamMode};
use tokio::time::{Instant, timeout};

use super::scripted_server::{self, ScriptedServer};
use super::support::*;

/// What a reader got of a stream.
#[derive(Default)]
struct Read {
    targets: Vec<String>,
    text: String,
    pieces: usize,
    first_piece: Option<Duration>,
    end: Option<Result<Response, Box<RequestError>>>,
}

impl Read {
    fn response(&self) -> &Response {
        self.end.as_ref().unwrap().as_ref().unwrap()
    }

    fn error(&self) -> &RequestError {
        self.end.as_ref().unwrap().as_ref().unwrap_err()
    }
}

/// Reads a stream to its end, and checks the order of its events.
async fn read(mut stream: ResponseStream) -> Read {
    let started = Instant::now();
    let mut read = Read::default();
    while let Some(item) = timeout(Duration::from_secs(60), stream.next()).await.unwrap() {
        assert!(read.end.is_none(), "nothing follows the end");
        match item {
            Ok(StreamEvent::Started { target }) => read.targets.push(target.to_string()),
            Ok(StreamEvent::Text(text)) => {
                assert_eq!(read.targets.len(), 1, "an answer comes from one target");
                read.first_piece.get_or_insert(started.elapsed());
                read.text.push_str(&text);
                read.pieces += 1;
            }
            Ok(StreamEvent::Finished(response)) => read.end = Some(Ok(*response)),
            Ok(event) => panic!("{event:?}"),
            Err(error) => read.end = Some(Err(error)),
        }
    }
    assert!(read.end.is_some(), "a stream has an end");
    read
}

fn request(text: &str) -> Request {
    new_request("default", text, Duration::from_secs(30))
}

/// A simulator whose answers have so many tokens, take `latency` and come in up to 20 chunks.
fn start_streaming_simulator(latency: u64, tokens: u64, faults: Vec<Fault>) -> Simulator {
    start_simulator(Settings {
        latency: Latency::Fixed(Duration::from_millis(latency)),
        first_token: FirstToken::Fraction(0.1),
        chunks: 20.try_into().unwrap(),
        answer_tokens: Some(Length::Fixed(tokens)),
        faults,
        ..Settings::default()
    })
}

/// A configuration with this provider in a format.
fn provider_of(name: &str, format: &str, simulator: &Simulator, more: &str) -> String {
    let vendor = match format {
        "anthropic" => Vendor::Anthropic,
        "gemini" => Vendor::Gemini,
        _ => Vendor::OpenAi,
    };
    provider_config(name, simulator, &format!("format = \"{format}\"\n{more}"))
        .replace(&simulator.base_url(Vendor::OpenAi), &simulator.base_url(vendor))
}

const STREAM_FORMATS: [&str; 4] = ["openai", "openai_responses", "anthropic", "gemini"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_pieces_of_a_stream_arrive_one_by_one_and_are_the_answer() {
    for format in STREAM_FORMATS {
        let simulator = start_streaming_simulator(1_000, 200, Vec::new());
        let pointsman = start_pointsman(&provider_of("a", format, &simulator, LONG_TIMEOUTS));
        let read = read(pointsman.stream(request("Tell me a story."))).await;
        let response = read.response();
        assert_eq!((&read.targets[..], &*read.text), (&["a/m".to_owned()][..], response.text()), "{format}");
        assert!(read.pieces >= 10, "{format}: {} pieces", read.pieces);
        assert!(response.completion.usage.is_some(), "{format}");
        // A tenth of the latency, and not all of it.
        assert!(read.first_piece.unwrap() < Duration::from_millis(600), "{format}: {:?}", read.first_piece);
        // The same answer without a stream.
        let whole = pointsman.send(request("Tell me a story.")).await.unwrap();
        assert_eq!(whole.text(), read.text, "{format}");
    }
}

/// Two providers; the first has this fault for its first call.
fn start_two(kind: FaultKind, more: &str) -> (Pointsman, [Simulator; 2]) {
    let fault = Fault { delay: Some(Duration::from_secs(20)), ..Fault::new(kind) };
    let first = start_streaming_simulator(100, 200, vec![fault]);
    let second = start_streaming_simulator(100, 200, Vec::new());
    let timeouts =
        "timeouts = { connect = \"1s\", first_token = \"500ms\", idle = \"500ms\", total = \"5s\" }\n";
    let config = format!(
        "{}{}[route.default]\ntargets = [\"a/m\", \"b/m\"]\n{QUICK_RETRY}{more}",
        provider_config("a", &first, timeouts),
        provider_config("b", &second, timeouts)
    );
    (start_pointsman(&config), [first, second])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failure_before_the_first_piece_is_invisible() {
    let kinds = [
        FaultKind::ServerError,
        FaultKind::Unavailable,
        FaultKind::Overloaded,
        FaultKind::Reset,
        FaultKind::Silent,
        FaultKind::SlowFirstToken,
        FaultKind::Html,
        FaultKind::Auth,
        FaultKind::NotFound,
        FaultKind::Firewall,
    ];
    join_all(kinds.map(|kind| async move {
        let (pointsman, _simulators) = start_two(kind, "");
        let read = read(pointsman.stream(request("Tell me a story."))).await;
        assert_eq!(read.targets, ["b/m"], "{kind:?}");
        assert_eq!(read.text, read.response().text(), "{kind:?}");
    }))
    .await;
}

/// The faults that begin in the middle of an answer.
const LATE_FAULTS: [FaultKind; 5] = [
    FaultKind::Cut,
    FaultKind::Stalled,
    FaultKind::MalformedChunk,
    FaultKind::NoEnd,
    FaultKind::ErrorInStream,
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failure_after_the_first_piece_is_an_error_and_never_joined_to_another_answer() {
    join_all(LATE_FAULTS.map(|kind| async move {
        let (pointsman, [_first, second]) = start_two(kind, "");
        let read = read(pointsman.stream(request("Tell me a story."))).await;
        assert_eq!((read.targets.len(), &*read.targets[0]), (1, "a/m"), "{kind:?}");
        assert!(!read.text.is_empty(), "{kind:?}");
        let error = read.error();
        assert_eq!(error.attempts.calls(), 1, "{kind:?}: {error}");
        assert_eq!(second.counts().requests, 0, "{kind:?}");
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_commits_at_its_end_survives_every_failure() {
    join_all(LATE_FAULTS.map(|kind| async move {
        let (pointsman, _simulators) = start_two(kind, "");
        let request = request("Tell me a story.").with_stream_mode(StreamMode::Whole);
        let read = read(pointsman.stream(request)).await;
        assert_eq!((read.targets, read.pieces), (vec!["b/m".to_owned()], 1), "{kind:?}");
        assert_eq!(read.text, read.end.unwrap().unwrap().text(), "{kind:?}");
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_is_hedged_until_it_commits() {
    let hedging = "hedge_after = \"100ms\"\nhedge_ratio = 1.0\n";
    let (pointsman, [first, _second]) = start_two(FaultKind::Silent, hedging);
    let read = read(pointsman.stream(request("Tell me a story."))).await;
    assert_eq!(read.targets, ["b/m"]);
    assert_eq!(attempt_summary(&read.end.unwrap()), "a:superseded b:ok");
    wait_until("the first call is aborted", || first.counts().in_flight == 0).await;

    // The pieces of a slow stream are no reason for a hedge.
    let slow = start_streaming_simulator(1_000, 200, Vec::new());
    let other = start_streaming_simulator(10, 200, Vec::new());
    let config = format!(
        "{}{}[route.default]\ntargets = [\"a/m\", \"b/m\"]\n[retry]\nhedge_after = \"400ms\"\nhedge_ratio = 1.0\n",
        provider_config("a", &slow, LONG_TIMEOUTS),
        provider_config("b", &other, LONG_TIMEOUTS)
    );
    let pointsman = start_pointsman(&config);
    let read = self::read(pointsman.stream(request("Tell me a story."))).await;
    assert_eq!((read.targets, other.counts().requests), (vec!["a/m".to_owned()], 0));
}

/// Waits until nothing is in flight at the simulator and at the provider.
async fn assert_all_returned(pointsman: &Pointsman, simulator: &Simulator) {
    wait_until("the calls are aborted", || simulator.counts().in_flight == 0).await;
    wait_until("everything is given back", || {
        let provider = provider_snapshot(pointsman, "a");
        provider.in_flight == 0 && provider.targets.iter().all(|target| target.queued == 0)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_is_dropped_at_any_moment_gives_everything_back() {
    let simulator = start_streaming_simulator(400, 400, Vec::new());
    let limits = "limits.concurrency = 32\n";
    let pointsman = start_pointsman(&provider_config("a", &simulator, &format!("{LONG_TIMEOUTS}{limits}")));
    // Before, at and after its first piece, and while it is still queued.
    let streams = (0..300_u64).map(|number| {
        let mut stream = pointsman.stream(request(&format!("Tell me story {number}.")));
        async move {
            match number % 3 {
                0 => drop(timeout(Duration::from_millis(number), stream.next()).await),
                1 => {
                    while let Some(Ok(event)) = stream.next().await {
                        if matches!(event, StreamEvent::Text(_)) {
                            break;
                        }
                    }
                }
                _ => {
                    let read = read(stream).await;
                    assert_eq!(read.text, read.response().text());
                }
            }
        }
    });
    join_all(streams).await;
    assert_all_returned(&pointsman, &simulator).await;
    let counts = simulator.counts();
    assert!(counts.abandoned > 0, "{counts:?}");
    // The provider works as before.
    assert!(read(pointsman.stream(request("And another one."))).await.end.unwrap().is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_stream_closes_its_connection_at_once() {
    let simulator = start_streaming_simulator(20_000, 400, Vec::new());
    let pointsman = start_pointsman(&provider_config("a", &simulator, "timeouts = { idle = \"20s\" }\n"));
    let mut stream = pointsman.stream(request("Tell me a story."));
    assert!(matches!(stream.next().await, Some(Ok(StreamEvent::Started { .. }))));
    let dropped = Instant::now();
    drop(stream);
    wait_until("the call is aborted", || simulator.counts().in_flight == 0).await;
    assert!(dropped.elapsed() < Duration::from_secs(2), "{:?}", dropped.elapsed());
    assert_eq!(simulator.counts().abandoned, 1);
}

/// The tokens of the long answers that [`drop_late`] reads.
const LONG_ANSWER: u32 = 20_000;

/// A request of the scope `team-a` for an answer of at most so many tokens.
fn scoped_request(text: &str, max_tokens: u32) -> Request {
    let prompt = Prompt::text(text).with_max_tokens(max_tokens).with_length_limit(LengthLimit::Return);
    Request::new("default", prompt).with_deadline(Duration::from_secs(30)).with_scope("team-a")
}

/// Reads nine tenths of a long answer and drops the rest. Returns the class of the failure, if it fails.
async fn drop_late(mut stream: ResponseStream) -> Option<Class> {
    let mut bytes = 0;
    // A token has four bytes.
    while bytes < 4 * LONG_ANSWER as usize / 10 * 9 {
        match timeout(Duration::from_secs(60), stream.next()).await.unwrap() {
            Some(Ok(StreamEvent::Text(text))) => bytes += text.len(),
            Some(Ok(StreamEvent::Started { .. })) => {}
            Some(Err(error)) => return Some(error.class()),
            other => panic!("after {bytes} bytes: {other:?}"),
        }
    }
    None
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_stream_is_booked_with_what_was_streamed_and_a_cap_stops_its_caller() {
    const PRICE: Price =
        Price { input: 1.0, output: 5.0, cached: None, cache_write: None, cache_write_1h: None, long: None };
    join_all(STREAM_FORMATS.map(|format| async move {
        let simulator = start_streaming_simulator(600, LONG_ANSWER.into(), Vec::new());
        let provider = provider_of("a", format, &simulator, LONG_TIMEOUTS)
            .replace("models.m = {}", "models.m = { price = { input = 1.0, output = 5.0 } }");
        let pointsman = start_pointsman(&format!("{provider}\n[budget]\nscope = {{ team-a = 0.5 }}\n"));
        let budget = SharedBudget::for_run(None, Spend::default(), false);
        let request = |text: &str, max_tokens| scoped_request(text, max_tokens).with_budget(budget.clone());
        // From now on a long answer is not expected.
        let short = (0..30).map(|number| pointsman.send(request(&format!("Is it {number} o'clock?"), 4)));
        assert!(join_all(short).await.iter().all(Result::is_ok), "{format}");
        let mut dropped = 0;
        let refused = loop {
            let stream = pointsman.stream(request(&format!("Tell me story {dropped}."), LONG_ANSWER));
            let failed = drop_late(stream).await;
            assert_all_returned(&pointsman, &simulator).await;
            if failed.is_some() {
                break failed;
            }
            dropped += 1;
            // Each costs about $0.10.
            assert!(dropped < 10, "{format}: the cap does not stop the caller");
        };
        assert_eq!(refused, Some(Class::Budget), "{format}");
        let counts = simulator.counts();
        let charged =
            PRICE.cost(&Usage::new(Tokens(counts.input_tokens), Tokens(counts.output_tokens))).unwrap();
        let spent = budget.status().spent;
        assert!(spent.uncertain_cost.0 > 0 && budget.status().reserved.0 == 0, "{format}: {spent:?}");
        let booked = spent.total().0 as f64 / charged.0 as f64;
        assert!((0.8..2.0).contains(&booked), "{format}: {spent:?} of {charged}");
        // No more than the cap and one call.
        assert!(charged.0 < 700_000_000, "{format}: {charged} after {dropped} streams");
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_stream_counts_with_what_was_streamed_for_the_tokens_of_its_scope() {
    let simulator = start_streaming_simulator(600, LONG_ANSWER.into(), Vec::new());
    let provider = provider_config("a", &simulator, LONG_TIMEOUTS);
    // 1,000 tokens a second.
    let pointsman = start_pointsman(&format!("{provider}\n[scope.team-a]\ntokens_per_minute = 60_000\n"));
    let stream = pointsman.stream(scoped_request("Tell me a story.", LONG_ANSWER));
    assert_eq!(drop_late(stream).await, None);
    assert_all_returned(&pointsman, &simulator).await;
    let refused = pointsman.try_send(scoped_request("Tell me another one.", 4)).await.unwrap_err().failure;
    assert_eq!(refused.class, Class::RateLimit, "{refused}");
    assert!(refused.retry_after.unwrap() > Duration::from_secs(15), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_that_do_not_read_hold_back_only_their_own_calls() {
    // Each answer has 2 MB, more than a socket and the buffer of a stream hold.
    let simulator = start_streaming_simulator(0, 500_000, Vec::new());
    let fast = start_streaming_simulator(0, 50, Vec::new());
    let timeouts = "timeouts = { idle = \"1s\" }\n";
    let config = format!(
        "{}{}[route.default]\ntargets = [\"a/m\"]\n[route.other]\ntargets = [\"b/m\"]\n",
        provider_config("a", &simulator, timeouts),
        provider_config("b", &fast, timeouts)
    );
    let pointsman = start_pointsman(&config);
    let deadline = Duration::from_secs(3);
    let stalled: Vec<ResponseStream> = (0..20)
        .map(|number| pointsman.stream(request(&format!("Story {number}.")).with_deadline(deadline)))
        .collect();
    wait_until("the calls are sent", || simulator.counts().requests > 0).await;
    let results = send_requests(&pointsman, "other", 200).await;
    assert!(results.iter().all(Result::is_ok));
    // The idle timeout is that of the provider. A reader ends its own request at the deadline.
    let read = join_all(stalled.into_iter().map(|stream| async move {
        tokio::time::sleep(Duration::from_secs(4)).await;
        read(stream).await
    }))
    .await;
    for read in read {
        assert_eq!(read.error().class(), Class::Deadline);
    }
    assert_all_returned(&pointsman, &simulator).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_in_a_stream_is_redacted_even_in_pieces() {
    let key = lookup_key("K1").unwrap();
    let server = ScriptedServer::start(move |_| {
        let pieces = ["The key is ", &key[..5], &key[5..12], &key[12..], ", yes", "."];
        let chunk = |piece: &str| {
            let chunk = serde_json::json!({ "choices": [{ "delta": { "content": piece } }] });
            format!("data: {chunk}\n\n")
        };
        let chunks: String = pieces.into_iter().map(chunk).collect();
        let end = "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";
        scripted_server::stream("", &(chunks + end), true)
    })
    .await;
    let config = provider_config_at("a", &server.url(), "keys = [\"env:K1\"]\n");
    let read = read(start_pointsman(&config).stream(request("Which key?"))).await;
    assert_eq!((&*read.text, read.response().text()), ("The key is ***, yes.", "The key is ***, yes."));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_of_a_stopped_instance_ends_with_an_error() {
    let simulator = start_streaming_simulator(0, 50, Vec::new());
    let pointsman = start_pointsman(&provider_config("a", &simulator, LONG_TIMEOUTS));
    pointsman.drain(Duration::ZERO).await;
    let read = read(pointsman.stream(Request::new("default", Prompt::text("Hello?")))).await;
    assert_eq!((read.targets.len(), read.error().class()), (0, Class::Cancelled));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_without_streams_answers_a_stream_with_one_piece() {
    join_all(STREAM_FORMATS.map(|format| async move {
        let simulator = start_streaming_simulator(400, 200, Vec::new());
        let more = format!("stream = \"never\"\n{LONG_TIMEOUTS}");
        let pointsman = start_pointsman(&provider_of("a", format, &simulator, &more));
        let read = read(pointsman.stream(request("Tell me a story."))).await;
        let response = read.response();
        assert_eq!((&read.targets[..], &*read.text), (&["a/m".to_owned()][..], response.text()), "{format}");
        assert!(!read.text.is_empty(), "{format}");
        assert_eq!(read.pieces, 1, "{format}");
        // The first piece of a stream arrives after a tenth of the latency.
        assert!(read.first_piece.unwrap() >= Duration::from_millis(350), "{format}: {:?}", read.first_piece);
        assert!(response.completion.usage.is_some(), "{format}");
        let whole = pointsman.send(request("Tell me a story.")).await.unwrap();
        assert_eq!(whole.text(), read.text, "{format}");
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_whole_response_is_no_timeout() {
    let timeouts = "timeouts = { first_token = \"1s\", idle = \"1s\", total = \"10s\" }\n";
    join_all(STREAM_FORMATS.map(|format| async move {
        let simulator = start_streaming_simulator(3_000, 200, Vec::new());
        let more = format!("stream = \"never\"\n{timeouts}");
        let pointsman = start_pointsman(&provider_of("a", format, &simulator, &more));
        let streamed = read(pointsman.stream(request("Tell me a story.")));
        let (read, sent) = tokio::join!(streamed, pointsman.send(request("Tell me another story.")));
        assert_eq!((read.pieces, read.response().attempts.calls()), (1, 1), "{format}");
        assert_eq!(attempt_summary(&sent), "a:ok", "{format}");
        assert_eq!(simulator.counts().requests, 2, "{format}");
    }))
    .await;
    // A stream of the same provider has to begin earlier.
    let fault = Fault { delay: Some(Duration::from_secs(3)), ..Fault::new(FaultKind::SlowFirstToken) };
    let simulator = start_streaming_simulator(0, 200, vec![fault]);
    let config =
        provider_config("a", &simulator, timeouts) + "[retry]\nattempts_per_target = 1\nmax_rounds = 1\n";
    let read = read(start_pointsman(&config).stream(request("Tell me a story."))).await;
    assert_eq!(read.error().class(), Class::Timeout);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failure_of_a_whole_response_is_invisible_even_in_its_middle() {
    let kinds = [
        FaultKind::ServerError,
        FaultKind::Overloaded,
        FaultKind::Reset,
        FaultKind::Silent,
        FaultKind::SlowFirstToken,
        FaultKind::Html,
        FaultKind::Cut,
        FaultKind::Stalled,
        FaultKind::MalformedChunk,
        FaultKind::ErrorInStream,
    ];
    for format in STREAM_FORMATS {
        join_all(kinds.map(|kind| async move {
            let fault = Fault { delay: Some(Duration::from_secs(20)), ..Fault::new(kind) };
            let first = start_streaming_simulator(100, 200, vec![fault]);
            let second = start_streaming_simulator(100, 200, Vec::new());
            let more =
                "stream = \"never\"\ntimeouts = { connect = \"1s\", idle = \"500ms\", total = \"1s\" }\n";
            let config = format!(
                "{}{}[route.default]\ntargets = [\"a/m\", \"b/m\"]\n{QUICK_RETRY}",
                provider_of("a", format, &first, more),
                provider_config("b", &second, LONG_TIMEOUTS)
            );
            let read = read(start_pointsman(&config).stream(request("Tell me a story."))).await;
            assert_eq!(read.targets, ["b/m"], "{format} {kind:?}");
            assert_eq!(read.text, read.response().text(), "{format} {kind:?}");
        }))
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_response_is_read_whatever_its_type() {
    let choice = serde_json::json!({ "message": { "content": "Hello." }, "finish_reason": "stop" });
    let body = serde_json::json!({ "choices": [choice] });
    let whole = scripted_server::response("200 OK", "content-type: text/plain\r\n", &format!("\n\n{body}"));
    let untyped = scripted_server::response("200 OK", "", &body.to_string());
    // A server that streams all the same.
    let stream = scripted_server::stream("", scripted_server::RESPONSE_STREAM, true);
    for response in [whole, untyped, stream] {
        let server = ScriptedServer::start(move |_| response.clone()).await;
        let pointsman = start_pointsman(&provider_config_at("a", &server.url(), "stream = \"never\"\n"));
        let read = read(pointsman.stream(request("Hello?"))).await;
        assert_eq!((&*read.text, read.pieces), ("Hello.", 1));
    }
}
