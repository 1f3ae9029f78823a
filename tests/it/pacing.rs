//! Limits are kept, whether they were configured or the provider tells them.

use std::num::NonZeroU64;
use std::time::Duration;

use futures_util::StreamExt;
use pointsman::simulator::{
    BucketSize, Fault, FaultKind, Limits, OutputCounts, RetryAfter, Settings, Simulator,
};
use pointsman::types::{Class, Outcome, Prompt};
use tokio::time::Instant;

use super::scripted::{Scripted, stream};
use super::stage::*;

fn throttling(retry_after: RetryAfter, fault: Fault) -> Simulator {
    faulty([Fault { retry_after: Some(retry_after), ..fault }])
}

fn throttled() -> Fault {
    Fault::new(FaultKind::RateLimited)
}

const ONE_TRY: &str = "[retry]\nattempts_per_lane = 1\nrounds = 1\nbase = \"10ms\"\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_calls_before_the_wait_is_over_that_a_provider_asked_for() {
    for (format, vendor) in FORMATS {
        let fault = Fault { contains: Some("first".to_owned()), times: Some(1), ..throttled() };
        let simulator = throttling(RetryAfter::Truthful, fault);
        let url = simulator.base_url(vendor);
        // Anthropic says it in a header, Gemini in the body, OpenAI in both.
        let more = format!("format = \"{format}\"{PATIENT}");
        let pointsman = start(&format!("{ONE_TRY}{}", provider_at("a", &url, &more)));
        let began = Instant::now();
        let first = spawn({
            let pointsman = pointsman.clone();
            async move { ask(&pointsman, "default", "The first.").await }
        });
        until("the first call is refused", || snapshot(&pointsman, "a").throttled == 1).await;
        let others = spawn({
            let pointsman = pointsman.clone();
            async move { ask_many(&pointsman, "default", 10).await }
        });
        until("all wait", || snapshot(&pointsman, "a").waiting == 11).await;
        until("the next call comes", || simulator.counts().requests > 1).await;
        assert!(began.elapsed() >= Duration::from_secs(1), "{format}: {:?}", began.elapsed());
        // It costs no attempt: there is only one.
        assert_eq!(story(&first.await.unwrap()), "a:rate_limit a:ok", "{format}");
        assert!(others.await.unwrap().iter().all(|answer| story(answer) == "a:ok"), "{format}");
        assert_eq!(simulator.counts().requests, 12, "{format}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wait_that_does_not_fit_sends_the_ask_elsewhere_or_ends_it_at_once() {
    let (simulator, other) = (throttling(RetryAfter::Truthful, throttled()), play(Settings::default()));
    let config = format!(
        "[route.alone]\nlanes = [\"a/m\"]\n[route.both]\nlanes = [\"a/m\", \"b/m\"]\n{}{}",
        provider("a", &simulator, PATIENT),
        provider("b", &other, PATIENT)
    );
    let pointsman = start(&config);
    let began = Instant::now();
    let half = Duration::from_millis(500);
    let both = pointsman.send(question("both", "Hurry!", half)).await;
    assert_eq!(story(&both), "a:rate_limit a:refused b:ok");
    let alone = pointsman.send(question("alone", "Hurry!", half)).await;
    assert_eq!((story(&alone), class(&alone)), ("a:refused".to_owned(), Some(Class::Deadline)));
    assert!(began.elapsed() < half, "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_inside_a_success_lasts_as_long_as_the_headers_of_that_success_say() {
    const HEADERS: &str = "x-ratelimit-remaining-tokens: 0\r\nx-ratelimit-reset-tokens: 1h0m0s\r\n";
    const EVENT: &str = "data: {\"error\":{\"message\":\"Slow down.\",\"code\":\"rate_limit_exceeded\"}}\n\n";
    let scripted = Scripted::start(|_| stream(HEADERS, EVENT, true)).await;
    let pointsman = start(&provider_at("a", &scripted.url(), PATIENT));
    // Without the headers it would be asked again after a second.
    let answer = pointsman.send(question("default", "Now?", Duration::from_secs(30))).await;
    assert_eq!(
        (story(&answer), class(&answer)),
        ("a:rate_limit a:refused".to_owned(), Some(Class::RateLimit))
    );
    assert_eq!(scripted.requests(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_does_not_say_for_how_long_is_left_alone_for_a_growing_while() {
    let fault = Fault { until: Some(Duration::from_millis(700)), ..throttled() };
    let simulator = throttling(RetryAfter::Missing, fault);
    let pointsman = start(&format!("{ONE_TRY}{}", provider("a", &simulator, PATIENT)));
    let began = Instant::now();
    let answer = ask(&pointsman, "default", "May I?").await.unwrap();
    // 0.5 to 1 s after the first refusal, 1 to 2 s after the second.
    let refusals = answer.trail.calls() - 1;
    assert!((1..=2).contains(&refusals), "{:?}", answer.trail);
    assert!(began.elapsed() >= Duration::from_millis(500) * refusals as u32, "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_absurd_wait_neither_locks_a_provider_out_nor_makes_a_storm() {
    let fault = Fault { until: Some(Duration::from_millis(600)), ..throttled() };
    let simulator = throttling(RetryAfter::Absurd, fault);
    let pointsman = start(&format!("{ONE_TRY}{}", provider("a", &simulator, PATIENT)));
    // Each has another of the absurd values: -5, 0, a billion, the largest number there is.
    let answers = ask_many(&pointsman, "default", 12).await;
    assert!(answers.iter().all(Result::is_ok), "{:?}", answers.iter().map(story).collect::<Vec<_>>());
    // Zero is obeyed with a growing pause of our own: 50, 100, 200 ms ..
    assert!(simulator.counts().requests <= 12 * 8, "{} requests", simulator.counts().requests);
}

fn limited(limits: Limits, more: &str) -> Simulator {
    let settings: Settings = toml::from_str(more).unwrap();
    play(Settings { limits: Limits { bucket: BucketSize::Second, ..limits }, ..settings })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_configured_rate_is_used_to_the_full_and_never_exceeded() {
    let limits = Limits { requests_per_minute: NonZeroU64::new(600), ..Limits::default() };
    let simulator = limited(limits, "latency = \"40ms\"");
    let more = format!("limits.requests_per_minute = 600{PATIENT}");
    let pointsman = start(&provider("a", &simulator, &more));
    let began = Instant::now();
    let answers = ask_many(&pointsman, "default", 26).await;
    let took = began.elapsed();
    assert!(answers.iter().all(|answer| story(answer) == "a:ok"));
    // Nine tenths of a second's worth leave at once, the 17 others at ten a second.
    let ideal = Duration::from_millis(1_740);
    assert!(took >= Duration::from_millis(1_700) && took < ideal * 2, "{took:?}");
    assert_eq!(simulator.counts().refused, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_calls_are_out_than_the_concurrency_allows() {
    let settings: Settings = toml::from_str("latency = \"40ms\"").unwrap();
    let simulator = play(settings);
    let pointsman = start(&provider("a", &simulator, &format!("limits.concurrency = 5{PATIENT}")));
    let began = Instant::now();
    assert!(ask_many(&pointsman, "default", 50).await.iter().all(Result::is_ok));
    assert_eq!(simulator.counts().peak_in_flight, 5);
    // Ten waves of 40 ms: the next call leaves as soon as one has come back.
    assert!(began.elapsed() < Duration::from_millis(800), "{:?}", began.elapsed());
    assert_eq!(snapshot(&pointsman, "a").in_flight, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn token_limits_are_kept() {
    let limits = Limits { tokens_per_minute: NonZeroU64::new(60_000), ..Limits::default() };
    let simulator = limited(limits, "answer_tokens = 100");
    let more = format!("limits.tokens_per_minute = 60_000{PATIENT}");
    let pointsman = start(&provider("a", &simulator, &more));
    // About 200 tokens each, of which a thousand a second may pass.
    let asks = (0..16).map(|number| {
        let mut ask =
            question("default", &format!("{number} {}", "word ".repeat(80)), Duration::from_secs(20));
        ask.prompt = std::sync::Arc::new(Prompt { max_tokens: Some(100), ..Prompt::clone(&ask.prompt) });
        pointsman.send(ask)
    });
    let began = Instant::now();
    let answers = futures_util::future::join_all(asks).await;
    assert!(answers.iter().all(|answer| story(answer) == "a:ok"));
    let (counts, took) = (simulator.counts(), began.elapsed().as_secs_f64());
    assert_eq!(counts.refused, 0);
    let used = (counts.input_tokens + counts.output_tokens) as f64 / 1_000.0;
    // A second's worth may leave at once.
    assert!(took > used - 1.0 && took < used * 1.4, "{used} s worth of tokens took {took} s");
}

/// A question of a step, whose answer may have this many tokens.
fn of_step(step: &str, text: &str, max_tokens: u32) -> pointsman::router::Ask {
    let mut ask = question("default", text, Duration::from_secs(20));
    ask.asker.step = Some(step.into());
    ask.prompt = std::sync::Arc::new(Prompt { max_tokens: Some(max_tokens), ..Prompt::clone(&ask.prompt) });
    ask
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_turn_out_short_are_not_paced_by_their_max_tokens() {
    let limits = Limits { output_tokens_per_minute: NonZeroU64::new(60_000), ..Limits::default() };
    let simulator = limited(limits, "answer_tokens = 10");
    let more = format!("limits.output_tokens_per_minute = 60_000{PATIENT}");
    let pointsman = start(&provider("a", &simulator, &more));
    let asks = (0..60).map(|number| pointsman.send(of_step("short", &format!("{number}?"), 4_000)));
    let began = Instant::now();
    let answers = futures_util::future::join_all(asks).await;
    assert!(answers.iter().all(|answer| story(answer) == "a:ok"));
    // 600 tokens of 1,000 a second; with 500 assumed for each to the end it were half a minute.
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    assert_eq!(simulator.counts().refused, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_counts_max_tokens_is_paced_by_them() {
    let limits = Limits {
        tokens_per_minute: NonZeroU64::new(60_000),
        output_counts: OutputCounts::MaxTokens,
        ..Limits::default()
    };
    let simulator = limited(limits, "answer_tokens = 10");
    let more = format!("reserve = \"max_tokens\"\nlimits.tokens_per_minute = 60_000{PATIENT}");
    let pointsman = start(&provider("a", &simulator, &more));
    let asks = (0..12).map(|number| pointsman.send(of_step("short", &format!("{number}?"), 250)));
    let answers = futures_util::future::join_all(asks).await;
    assert!(answers.iter().all(|answer| story(answer) == "a:ok"));
    assert_eq!(simulator.counts().refused, 0);
    let refused = pointsman.send(of_step("long", "Tell me everything.", 90_000)).await.unwrap_err();
    assert_eq!(refused.failure.class, Class::TooLong);
    let why = "max_tokens = 90000 and a prompt of about";
    assert!(refused.failure.message.contains(why), "{}", refused.failure);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_counts_max_tokens_unasked_is_found_out_by_its_refusals() {
    for format in ["openai", "anthropic"] {
        let limits = Limits {
            tokens_per_minute: NonZeroU64::new(600_000),
            output_counts: OutputCounts::MaxTokens,
            ..Limits::default()
        };
        // As with many gateways: no header tells how much is left.
        let settings: Settings = toml::from_str("answer_tokens = 10\nheaders = false").unwrap();
        let simulator = play(Settings { limits, ..settings });
        let vendor = FORMATS.into_iter().find(|(name, _)| *name == format).unwrap().1;
        let more = format!("format = \"{format}\"\nlimits.tokens_per_minute = 600_000{PATIENT}");
        let pointsman = start(&provider_at("a", &simulator.base_url(vendor), &more));
        // Thirty are a minute's limit with their max_tokens; as they are written, a hundredth of it.
        let asks = (0..36).map(|number| pointsman.send(of_step("short", &format!("{number}?"), 20_000)));
        let answers = futures_util::future::join_all(asks).await;
        assert!(answers.iter().all(Result::is_ok), "{format}");
        // Those that were under way, and one for a clock that is not ours; they used to come back together.
        let refused = simulator.counts().refused;
        assert!(refused <= 8, "{format}: {refused} refused");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spent_day_is_refused_with_the_time_from_which_there_is_room() {
    let simulator = play(Settings::default());
    let pointsman = start(&provider("a", &simulator, &format!("limits.requests_per_day = 2{PATIENT}")));
    assert!(ask_many(&pointsman, "default", 2).await.iter().all(Result::is_ok));
    let failure = ask(&pointsman, "default", "One more?").await.unwrap_err().failure;
    assert_eq!(failure.class, Class::Quota, "{failure}");
    assert!(
        failure.message.contains("requests_per_day = 2 of provider a is used up: there is room again at 2")
    );
    let wait = failure.retry_after.expect("it says when");
    assert!(wait > Duration::from_hours(23) && wait < Duration::from_hours(25), "{wait:?}");
    assert_eq!(simulator.counts().requests, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_never_fits_fails_at_once_by_name_or_goes_elsewhere() {
    let (small, large) = (play(Settings::default()), play(Settings::default()));
    let config = format!(
        "[route.minute]\nlanes = [\"a/m\"]\n[route.context]\nlanes = [\"b/small\"]\n\
        [route.both]\nlanes = [\"a/m\", \"b/small\", \"b/m\"]\n{}{}",
        provider("a", &small, &format!("limits.tokens_per_minute = 1_000{PATIENT}")),
        provider("b", &large, &format!("models.small = {{ context = 1_000 }}{PATIENT}"))
    );
    let pointsman = start(&config);
    let long = "word ".repeat(1_600);
    for (route, why) in [("minute", "the limit is 1000 per minute"), ("context", "b/small takes 1000")] {
        let unanswered = ask(&pointsman, route, &long).await.unwrap_err();
        assert_eq!(unanswered.failure.class, Class::TooLong, "{route}");
        assert!(unanswered.failure.message.contains(why), "{route}: {}", unanswered.failure);
        assert_eq!(unanswered.trail.calls(), 0, "{route}");
    }
    let answer = ask(&pointsman, "both", &long).await;
    assert_eq!(story(&answer), "a:refused b:refused b:ok");
    assert_eq!((small.counts().requests, large.counts().requests), (0, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_is_waited_for_and_loses_nobody() {
    let settings: Settings = toml::from_str("latency = \"20ms\"").unwrap();
    let simulator = play(settings);
    let more = format!("queue = 4\nlimits.concurrency = 2{PATIENT}");
    let pointsman = start(&format!("{QUICK_RETRY}{}", provider("a", &simulator, &more)));
    // The first teaches how long a call takes.
    ask(&pointsman, "default", "How long?").await.unwrap();
    let answers = ask_many(&pointsman, "default", 40).await;
    assert!(answers.iter().all(Result::is_ok), "{:?}", answers.iter().map(story).collect::<Vec<_>>());
    let refused = |attempt: &pointsman::types::Attempt| matches!(attempt.outcome, Outcome::Refused(_));
    assert!(answers.iter().any(|answer| trail(answer).0.iter().any(refused)), "the queue was never full");
    assert_eq!(simulator.counts().answered, 41);
}

/// Keeps more questions waiting than the limit lets through, for so many seconds.
async fn ask_for(seconds: u64, pointsman: &pointsman::Pointsman) -> usize {
    let end = Instant::now() + Duration::from_secs(seconds);
    let numbers = (0_usize..).take_while(|_| Instant::now() < end);
    let asks = futures_util::stream::iter(numbers).map(|number| {
        let mut ask = question("default", &format!("Question {number}?"), Duration::from_secs(10));
        ask.priority = pointsman::types::Priority::Interactive;
        pointsman.send(ask)
    });
    asks.buffer_unordered(50).filter(|answered| std::future::ready(answered.is_ok())).count().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateways_limit_by_the_second_is_used_by_the_second() {
    for gateway in ["ietf", "kong"] {
        let settings = format!("latency = '20ms'\ngateway = '{gateway}'");
        let limits = Limits { requests_per_minute: NonZeroU64::new(1_200), ..Limits::default() };
        let simulator = limited(limits, &settings);
        let pointsman = start(&provider("a", &simulator, PATIENT));
        ask_for(8, &pointsman).await;
        let before = simulator.counts().admitted;
        ask_for(4, &pointsman).await;
        let admitted = simulator.counts().admitted - before;
        // 20 a second, and not 20 a minute.
        assert!(admitted >= 60, "{gateway}: {admitted} admitted in 4 s");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_is_minutes_off_learns_limits_from_dates_all_the_same() {
    let settings = "latency = '20ms'\nclock_ahead = '7m'";
    let limits = Limits { requests_per_minute: NonZeroU64::new(600), ..Limits::default() };
    let simulator = limited(limits, settings);
    let more = format!("format = \"anthropic\"{PATIENT}");
    let pointsman =
        start(&provider_at("a", &simulator.base_url(pointsman::simulator::Vendor::Anthropic), &more));
    for number in 0..8 {
        ask(&pointsman, "default", &format!("Question {number}?")).await.unwrap();
    }
    let limit = snapshot(&pointsman, "a").limit.expect("the limit is learned");
    assert_eq!((limit.what, limit.per_minute), ("requests", 600.0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_low_limit_that_no_header_names_is_found_by_a_few_refusals() {
    for (format, vendor) in FORMATS {
        let settings: Settings =
            toml::from_str("headers = false\nretry_after = true\nlatency = '20ms'").unwrap();
        let limits = Limits { requests_per_minute: NonZeroU64::new(600), ..Limits::default() };
        let simulator =
            play(Settings { limits: Limits { bucket: BucketSize::Second, ..limits }, ..settings });
        let url = simulator.base_url(vendor);
        let pointsman = start(&provider_at("a", &url, &format!("format = \"{format}\"{PATIENT}")));
        let answers = ask_many(&pointsman, "default", 100).await;
        let lost: Vec<_> = answers.iter().filter(|answer| answer.is_err()).map(story).collect();
        assert!(lost.is_empty(), "{format}: {lost:?}");
        let counts = simulator.counts();
        // The first wave is refused but for the bucket; after it one call in twenty at most, and those few times.
        let later = |all: u64| all.saturating_sub(30);
        assert!(later(counts.refused) * 20 <= counts.admitted, "{format}: {} refused", counts.refused);
        assert!(counts.most_repeated <= 5, "{format}: {} attempts", counts.most_repeated);
        assert_eq!(counts.answered, 100, "{format}");
    }
}
