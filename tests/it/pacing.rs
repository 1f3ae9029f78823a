//! Rate limits are never exceeded, whether they are configured or advertised by the provider.

use std::num::NonZeroU64;
use std::time::Duration;

use futures_util::StreamExt;
use pointsman::router::Request;
use pointsman::simulator::{
    AccountLimits, BucketSize, Fault, FaultKind, OutputAccounting, RetryAfter, Settings, Simulator,
};
use pointsman::types::{Class, Outcome, Priority, Prompt};
use tokio::time::Instant;

use super::scripted_server::{ScriptedServer, stream};
use super::support::*;

fn start_throttling_simulator(retry_after: RetryAfter, fault: Fault) -> Simulator {
    start_faulty_simulator([Fault { retry_after: Some(retry_after), ..fault }])
}

fn rate_limit_fault() -> Fault {
    Fault::new(FaultKind::RateLimited)
}

const ONE_ATTEMPT: &str = "[retry]\nattempts_per_target = 1\nmax_rounds = 1\ninitial_backoff = \"10ms\"\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_call_is_sent_before_retry_after_has_passed() {
    for (format, vendor) in FORMATS {
        let fault = Fault { contains: Some("first".to_owned()), times: Some(1), ..rate_limit_fault() };
        let simulator = start_throttling_simulator(RetryAfter::Truthful, fault);
        let url = simulator.base_url(vendor);
        // Anthropic sends the wait in a header, Gemini in the body, OpenAI in both.
        let more = format!("format = \"{format}\"{LONG_TIMEOUTS}");
        let pointsman = start_pointsman(&format!("{ONE_ATTEMPT}{}", provider_config_at("a", &url, &more)));
        let start = Instant::now();
        let first = spawn({
            let pointsman = pointsman.clone();
            async move { send_request(&pointsman, "default", "The first.").await }
        });
        wait_until("the first call is refused", || provider_snapshot(&pointsman, "a").throttled == 1).await;
        let others = spawn({
            let pointsman = pointsman.clone();
            async move { send_requests(&pointsman, "default", 10).await }
        });
        wait_until("all are queued", || provider_snapshot(&pointsman, "a").queued == 11).await;
        wait_until("the next call arrives", || simulator.counts().requests > 1).await;
        assert!(start.elapsed() >= Duration::from_secs(1), "{format}: {:?}", start.elapsed());
        // A 429 does not use up an attempt: there is only one.
        assert_eq!(attempt_summary(&first.await.unwrap()), "a:rate_limit a:ok", "{format}");
        assert!(others.await.unwrap().iter().all(|result| attempt_summary(result) == "a:ok"), "{format}");
        assert_eq!(simulator.counts().requests, 12, "{format}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wait_beyond_the_deadline_fails_over_or_fails_at_once() {
    let simulator = start_throttling_simulator(RetryAfter::Truthful, rate_limit_fault());
    let other = start_simulator(Settings::default());
    let config = format!(
        "[route.alone]\ntargets = [\"a/m\"]\n[route.both]\ntargets = [\"a/m\", \"b/m\"]\n{}{}",
        provider_config("a", &simulator, LONG_TIMEOUTS),
        provider_config("b", &other, LONG_TIMEOUTS)
    );
    let pointsman = start_pointsman(&config);
    let start = Instant::now();
    let timeout = Duration::from_millis(500);
    let both = pointsman.send(new_request("both", "Hurry!", timeout)).await;
    assert_eq!(attempt_summary(&both), "a:rate_limit a:refused b:ok");
    let alone = pointsman.send(new_request("alone", "Hurry!", timeout)).await;
    assert_eq!(
        (attempt_summary(&alone), failure_class(&alone)),
        ("a:refused".to_owned(), Some(Class::Deadline))
    );
    assert!(start.elapsed() < timeout, "{:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rate_limit_error_in_a_stream_lasts_as_long_as_the_headers_say() {
    const HEADERS: &str = "x-ratelimit-remaining-tokens: 0\r\nx-ratelimit-reset-tokens: 1h0m0s\r\n";
    const EVENT: &str = "data: {\"error\":{\"message\":\"Slow down.\",\"code\":\"rate_limit_exceeded\"}}\n\n";
    let server = ScriptedServer::start(|_| stream(HEADERS, EVENT, true)).await;
    let pointsman = start_pointsman(&provider_config_at("a", &server.url(), LONG_TIMEOUTS));
    // Without the headers the request would be retried after a second.
    let result = pointsman.send(new_request("default", "Now?", Duration::from_secs(30))).await;
    assert_eq!(
        (attempt_summary(&result), failure_class(&result)),
        ("a:rate_limit a:refused".to_owned(), Some(Class::RateLimit))
    );
    assert_eq!(server.requests(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_retry_after_the_backoff_grows() {
    let fault = Fault { until: Some(Duration::from_millis(700)), ..rate_limit_fault() };
    let simulator = start_throttling_simulator(RetryAfter::Missing, fault);
    let pointsman =
        start_pointsman(&format!("{ONE_ATTEMPT}{}", provider_config("a", &simulator, LONG_TIMEOUTS)));
    let start = Instant::now();
    let result = send_request(&pointsman, "default", "May I?").await.unwrap();
    // 0.5 to 1 s after the first refusal, 1 to 2 s after the second.
    let refusals = result.attempts.calls() - 1;
    assert!((1..=2).contains(&refusals), "{:?}", result.attempts);
    assert!(start.elapsed() >= Duration::from_millis(500) * refusals as u32, "{:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_absurd_retry_after_neither_blocks_a_provider_nor_causes_a_retry_storm() {
    let fault = Fault { until: Some(Duration::from_millis(600)), ..rate_limit_fault() };
    let simulator = start_throttling_simulator(RetryAfter::Absurd, fault);
    let pointsman =
        start_pointsman(&format!("{ONE_ATTEMPT}{}", provider_config("a", &simulator, LONG_TIMEOUTS)));
    // Each response has another absurd value: -5, 0, a billion, the largest integer.
    let results = send_requests(&pointsman, "default", 12).await;
    assert!(
        results.iter().all(Result::is_ok),
        "{:?}",
        results.iter().map(attempt_summary).collect::<Vec<_>>()
    );
    // Zero is replaced by a growing backoff: 50, 100, 200 ms ..
    assert!(simulator.counts().requests <= 12 * 8, "{} requests", simulator.counts().requests);
}

fn start_limited_simulator(limits: AccountLimits, more: &str) -> Simulator {
    let settings: Settings = toml::from_str(more).unwrap();
    start_simulator(Settings { limits: AccountLimits { bucket: BucketSize::Second, ..limits }, ..settings })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_configured_rate_is_fully_used_and_never_exceeded() {
    let limits = AccountLimits { requests_per_minute: NonZeroU64::new(600), ..AccountLimits::default() };
    let simulator = start_limited_simulator(limits, "latency = \"40ms\"");
    let more = format!("limits.requests_per_minute = 600{LONG_TIMEOUTS}");
    let pointsman = start_pointsman(&provider_config("a", &simulator, &more));
    let start = Instant::now();
    let results = send_requests(&pointsman, "default", 26).await;
    let took = start.elapsed();
    assert!(results.iter().all(|result| attempt_summary(result) == "a:ok"));
    // Nine calls, for 0.9 s of the rate, are sent at once, and the 17 others at ten per second.
    let ideal = Duration::from_millis(1_740);
    assert!(took >= Duration::from_millis(1_700) && took < ideal * 2, "{took:?}");
    assert_eq!(simulator.counts().refused, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_in_flight_never_exceed_the_concurrency_limit() {
    let settings: Settings = toml::from_str("latency = \"40ms\"").unwrap();
    let simulator = start_simulator(settings);
    let pointsman =
        start_pointsman(&provider_config("a", &simulator, &format!("limits.concurrency = 5{LONG_TIMEOUTS}")));
    let start = Instant::now();
    assert!(send_requests(&pointsman, "default", 50).await.iter().all(Result::is_ok));
    assert_eq!(simulator.counts().peak_in_flight, 5);
    // Ten rounds of 40 ms: the next call is sent as soon as a response arrives.
    assert!(start.elapsed() < Duration::from_millis(800), "{:?}", start.elapsed());
    assert_eq!(provider_snapshot(&pointsman, "a").in_flight, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn token_limits_are_never_exceeded() {
    let limits = AccountLimits { tokens_per_minute: NonZeroU64::new(60_000), ..AccountLimits::default() };
    let simulator = start_limited_simulator(limits, "answer_tokens = 100");
    let more = format!("limits.tokens_per_minute = 60_000{LONG_TIMEOUTS}");
    let pointsman = start_pointsman(&provider_config("a", &simulator, &more));
    // About 200 tokens each, and the limit is a thousand per second.
    let requests = (0..16).map(|number| {
        let text = format!("{number} {}", "word ".repeat(80));
        pointsman.send(limited_request(&text, 100))
    });
    let start = Instant::now();
    let results = futures_util::future::join_all(requests).await;
    assert!(results.iter().all(|result| attempt_summary(result) == "a:ok"));
    let counts = simulator.counts();
    let took = start.elapsed().as_secs_f64();
    assert_eq!(counts.refused, 0);
    let used = (counts.input_tokens + counts.output_tokens) as f64 / 1_000.0;
    // The calls for one second of the rate may be sent at once.
    assert!(took > used - 1.0 && took < used * 1.4, "{used} s worth of tokens took {took} s");
}

/// Returns a batch request with this `max_tokens` and a timeout of 20 s.
fn limited_request(text: &str, max_tokens: u32) -> Request {
    Request::new("default", Prompt::text(text).with_max_tokens(max_tokens))
        .with_priority(Priority::Batch)
        .with_deadline(Duration::from_secs(20))
}

/// Returns a request of a step with this `max_tokens`.
fn step_request(step: &str, text: &str, max_tokens: u32) -> Request {
    let mut request = limited_request(text, max_tokens);
    request.context.step = Some(step.into());
    request
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn short_answers_are_not_paced_by_max_tokens() {
    let limits =
        AccountLimits { output_tokens_per_minute: NonZeroU64::new(60_000), ..AccountLimits::default() };
    let simulator = start_limited_simulator(limits, "answer_tokens = 10");
    let more = format!("limits.output_tokens_per_minute = 60_000{LONG_TIMEOUTS}");
    let pointsman = start_pointsman(&provider_config("a", &simulator, &more));
    let requests = (0..60).map(|number| pointsman.send(step_request("short", &format!("{number}?"), 4_000)));
    let start = Instant::now();
    let results = futures_util::future::join_all(requests).await;
    assert!(results.iter().all(|result| attempt_summary(result) == "a:ok"));
    // 600 tokens at 1,000 per second. If every call reserved 500 tokens, it would take half a minute.
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
    assert_eq!(simulator.counts().refused, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_counts_max_tokens_is_paced_by_max_tokens() {
    let limits = AccountLimits {
        tokens_per_minute: NonZeroU64::new(60_000),
        output_accounting: OutputAccounting::MaxTokens,
        ..AccountLimits::default()
    };
    let simulator = start_limited_simulator(limits, "answer_tokens = 10");
    let more =
        format!("output_reservation = \"max_tokens\"\nlimits.tokens_per_minute = 60_000{LONG_TIMEOUTS}");
    let pointsman = start_pointsman(&provider_config("a", &simulator, &more));
    let requests = (0..12).map(|number| pointsman.send(step_request("short", &format!("{number}?"), 250)));
    let results = futures_util::future::join_all(requests).await;
    assert!(results.iter().all(|result| attempt_summary(result) == "a:ok"));
    assert_eq!(simulator.counts().refused, 0);
    let refused = pointsman.send(step_request("long", "Tell me everything.", 90_000)).await.unwrap_err();
    assert_eq!(refused.failure.class, Class::TooLong);
    let expected = "max_tokens = 90000 and a prompt of about";
    assert!(refused.failure.message.contains(expected), "{}", refused.failure);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_counts_max_tokens_is_detected_from_its_429_responses() {
    for format in ["openai", "anthropic"] {
        let limits = AccountLimits {
            tokens_per_minute: NonZeroU64::new(600_000),
            output_accounting: OutputAccounting::MaxTokens,
            ..AccountLimits::default()
        };
        // As with many gateways, no header has the remaining limit.
        let settings: Settings = toml::from_str("answer_tokens = 10\nheaders = false").unwrap();
        let simulator = start_simulator(Settings { limits, ..settings });
        let vendor = FORMATS.into_iter().find(|(name, _)| *name == format).unwrap().1;
        let more = format!("format = \"{format}\"\nlimits.tokens_per_minute = 600_000{LONG_TIMEOUTS}");
        let pointsman = start_pointsman(&provider_config_at("a", &simulator.base_url(vendor), &more));
        // With `max_tokens`, thirty requests use the limit of a minute. The actual tokens are a hundredth of it.
        let requests =
            (0..36).map(|number| pointsman.send(step_request("short", &format!("{number}?"), 20_000)));
        let results = futures_util::future::join_all(requests).await;
        assert!(results.iter().all(Result::is_ok), "{format}");
        // The calls in flight at the first 429, and one for the clock difference.
        let refused = simulator.counts().refused;
        assert!(refused <= 8, "{format}: {refused} refused");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exhausted_daily_limit_is_an_error_with_the_time_of_the_next_free_request() {
    let simulator = start_simulator(Settings::default());
    let pointsman = start_pointsman(&provider_config(
        "a",
        &simulator,
        &format!("limits.requests_per_day = 2{LONG_TIMEOUTS}"),
    ));
    assert!(send_requests(&pointsman, "default", 2).await.iter().all(Result::is_ok));
    let failure = send_request(&pointsman, "default", "One more?").await.unwrap_err().failure;
    assert_eq!(failure.class, Class::Quota, "{failure}");
    assert!(
        failure.message.contains("requests_per_day = 2 of provider a is used up: there is room again at 2")
    );
    let wait = failure.retry_after.expect("the failure has a retry-after");
    assert!(wait > Duration::from_hours(23) && wait < Duration::from_hours(25), "{wait:?}");
    assert_eq!(simulator.counts().requests, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_above_a_limit_fails_at_once_with_the_reason_or_fails_over() {
    let small = start_simulator(Settings::default());
    let large = start_simulator(Settings::default());
    let config = format!(
        "[route.minute]\ntargets = [\"a/m\"]\n[route.context]\ntargets = [\"b/small\"]\n\
        [route.both]\ntargets = [\"a/m\", \"b/small\", \"b/m\"]\n{}{}",
        provider_config("a", &small, &format!("limits.tokens_per_minute = 1_000{LONG_TIMEOUTS}")),
        provider_config("b", &large, &format!("models.small = {{ context = 1_000 }}{LONG_TIMEOUTS}"))
    );
    let pointsman = start_pointsman(&config);
    let long = "word ".repeat(1_600);
    for (route, reason) in
        [("minute", "the limit is 1000 per minute"), ("context", "the context of b/small has 1000")]
    {
        let error = send_request(&pointsman, route, &long).await.unwrap_err();
        assert_eq!(error.failure.class, Class::TooLong, "{route}");
        assert!(error.failure.message.contains(reason), "{route}: {}", error.failure);
        assert_eq!(error.attempts.calls(), 0, "{route}");
    }
    let result = send_request(&pointsman, "both", &long).await;
    assert_eq!(attempt_summary(&result), "a:refused b:refused b:ok");
    assert_eq!((small.counts().requests, large.counts().requests), (0, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_wait_for_a_full_queue_and_none_is_lost() {
    let settings: Settings = toml::from_str("latency = \"20ms\"").unwrap();
    let simulator = start_simulator(settings);
    let more = format!("queue = 4\nlimits.concurrency = 2{LONG_TIMEOUTS}");
    let pointsman = start_pointsman(&format!("{QUICK_RETRY}{}", provider_config("a", &simulator, &more)));
    // The first call measures the latency.
    send_request(&pointsman, "default", "How long?").await.unwrap();
    let results = send_requests(&pointsman, "default", 40).await;
    assert!(
        results.iter().all(Result::is_ok),
        "{:?}",
        results.iter().map(attempt_summary).collect::<Vec<_>>()
    );
    let refused = |attempt: &pointsman::types::Attempt| matches!(attempt.outcome, Outcome::Refused(_));
    assert!(
        results.iter().any(|result| attempt_log(result).0.iter().any(refused)),
        "the queue was never full"
    );
    assert_eq!(simulator.counts().answered, 41);
}

/// Sends more requests than the limit admits, for `seconds` seconds. Returns the number of responses.
async fn send_for(seconds: u64, pointsman: &pointsman::Pointsman) -> usize {
    let end = Instant::now() + Duration::from_secs(seconds);
    let numbers = (0_usize..).take_while(|_| Instant::now() < end);
    let requests = futures_util::stream::iter(numbers).map(|number| {
        let request = Request::new("default", format!("Request {number}."));
        pointsman.send(request.with_deadline(Duration::from_secs(10)))
    });
    requests.buffer_unordered(50).filter(|result| std::future::ready(result.is_ok())).count().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateways_limit_per_second_is_used_per_second() {
    for gateway in ["ietf", "kong"] {
        let settings = format!("latency = '20ms'\ngateway = '{gateway}'");
        let limits =
            AccountLimits { requests_per_minute: NonZeroU64::new(1_200), ..AccountLimits::default() };
        let simulator = start_limited_simulator(limits, &settings);
        let pointsman = start_pointsman(&provider_config("a", &simulator, LONG_TIMEOUTS));
        send_for(8, &pointsman).await;
        let before = simulator.counts().admitted;
        send_for(4, &pointsman).await;
        let admitted = simulator.counts().admitted - before;
        // 20 per second, not 20 per minute.
        assert!(admitted >= 60, "{gateway}: {admitted} admitted in 4 s");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_are_learned_from_dates_although_the_clock_is_minutes_off() {
    let settings = "latency = '20ms'\nclock_ahead = '7m'";
    let limits = AccountLimits { requests_per_minute: NonZeroU64::new(600), ..AccountLimits::default() };
    let simulator = start_limited_simulator(limits, settings);
    let more = format!("format = \"anthropic\"{LONG_TIMEOUTS}");
    let pointsman = start_pointsman(&provider_config_at(
        "a",
        &simulator.base_url(pointsman::simulator::Vendor::Anthropic),
        &more,
    ));
    for number in 0..8 {
        send_request(&pointsman, "default", &format!("Request {number}.")).await.unwrap();
    }
    let limit = provider_snapshot(&pointsman, "a").limit.expect("the limit is known");
    assert_eq!((limit.limit, limit.per_minute), ("requests", 600.0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_low_limit_without_headers_is_learned_from_few_429_responses() {
    for (format, vendor) in FORMATS {
        let settings: Settings =
            toml::from_str("headers = false\nretry_after = true\nlatency = '20ms'").unwrap();
        let limits = AccountLimits { requests_per_minute: NonZeroU64::new(600), ..AccountLimits::default() };
        let simulator = start_simulator(Settings {
            limits: AccountLimits { bucket: BucketSize::Second, ..limits },
            ..settings
        });
        let url = simulator.base_url(vendor);
        let pointsman =
            start_pointsman(&provider_config_at("a", &url, &format!("format = \"{format}\"{LONG_TIMEOUTS}")));
        let results = send_requests(&pointsman, "default", 100).await;
        let failed: Vec<_> = results.iter().filter(|result| result.is_err()).map(attempt_summary).collect();
        assert!(failed.is_empty(), "{format}: {failed:?}");
        let counts = simulator.counts();
        // The first calls beyond the bucket are refused. After them at most one call in twenty is refused.
        let refused_later = counts.refused.saturating_sub(30);
        assert!(refused_later * 20 <= counts.admitted, "{format}: {} refused", counts.refused);
        assert!(counts.most_repeated <= 5, "{format}: {} attempts", counts.most_repeated);
        assert_eq!(counts.answered, 100, "{format}");
    }
}
