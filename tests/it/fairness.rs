//! How scopes share a provider: by tokens, whatever the number and the length of their requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use pointsman::simulator::{Fault, FaultKind, Settings};
use pointsman::types::LengthLimit;
use pointsman::{Pointsman, Priority, Prompt, Request};
use tokio::task::JoinSet;

use super::support::{LONG_TIMEOUTS, provider_config, start_pointsman, start_simulator, wait_until};

/// The tokens that a scope has used.
#[derive(Debug, Default)]
struct Share {
    tokens: AtomicU64,
    answers: AtomicU64,
}

/// Keeps `callers` requests of a scope pending, with answers of so many tokens, until `stop` is set.
fn keep_busy(
    tasks: &mut JoinSet<()>,
    pointsman: &Pointsman,
    scope: &'static str,
    (callers, answer_tokens): (usize, u32),
    stop: &Arc<AtomicBool>,
) -> Arc<Share> {
    let share: Arc<Share> = Arc::default();
    for _ in 0..callers {
        let pointsman = pointsman.clone();
        let share = share.clone();
        let stop = stop.clone();
        tasks.spawn(async move {
            while !stop.load(Relaxed) {
                let prompt = Prompt::text("Write a long text.")
                    .with_max_tokens(answer_tokens)
                    .with_length_limit(LengthLimit::Return);
                let request =
                    Request::new("default", prompt).with_scope(scope).with_priority(Priority::Batch);
                let response = pointsman.send(request).await.unwrap();
                let usage = response.completion.usage.unwrap();
                share.tokens.fetch_add(usage.input.0 + usage.output.0, Relaxed);
                share.answers.fetch_add(1, Relaxed);
            }
        });
    }
    share
}

/// Two scopes share a provider with these limits: one sends few requests with long answers, the other many with short
/// ones. Asserts that each gets half of the tokens, within 5%.
async fn assert_equal_shares(limits: &str, min_tokens: u64) {
    let settings = "latency = \"20ms\"\nanswer_tokens = 1000\nchunks = 1\nheaders = false";
    let simulator = start_simulator(toml::from_str(settings).unwrap());
    let pointsman = start_pointsman(&provider_config("a", &simulator, &format!("{limits}\n{LONG_TIMEOUTS}")));
    let stop = Arc::new(AtomicBool::new(false));
    let mut tasks = JoinSet::new();
    let long = keep_busy(&mut tasks, &pointsman, "long", (24, 400), &stop);
    let short = keep_busy(&mut tasks, &pointsman, "short", (96, 40), &stop);
    let total = || long.tokens.load(Relaxed) + short.tokens.load(Relaxed);
    while total() < min_tokens {
        let before = total();
        wait_until("answers arrive", || total() > before).await;
    }
    let of_long = long.tokens.load(Relaxed) as f64 / total() as f64;
    stop.store(true, Relaxed);
    while tasks.join_next().await.is_some_and(|task| task.is_ok()) {}
    assert!((0.475..=0.525).contains(&of_long), "{of_long}: {long:?}, {short:?}");
    assert!(short.answers.load(Relaxed) > 4 * long.answers.load(Relaxed), "{long:?}, {short:?}");
}

/// Keeps `callers` requests of a scope pending until `stop` is set, whatever their results.
fn keep_asking(
    tasks: &mut JoinSet<()>,
    pointsman: &Pointsman,
    scope: &'static str,
    callers: usize,
    stop: &Arc<AtomicBool>,
) {
    for _ in 0..callers {
        let pointsman = pointsman.clone();
        let stop = stop.clone();
        tasks.spawn(async move {
            while !stop.load(Relaxed) {
                let request = Request::new("default", format!("A text of {scope}."));
                // The simulator counts the results.
                let _ = pointsman.send(request.with_scope(scope).with_priority(Priority::Batch)).await;
            }
        });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scope_whose_requests_fail_at_once_does_not_get_every_turn() {
    let mut settings: Settings = toml::from_str("latency = \"20ms\"\nchunks = 1\nheaders = false").unwrap();
    let refused = Fault {
        contains: Some("failing".to_owned()),
        status: Some(400),
        ..Fault::new(FaultKind::ServerError)
    };
    settings.faults = vec![refused];
    let simulator = start_simulator(settings);
    let limits = format!("limits = {{ concurrency = 4 }}\n{LONG_TIMEOUTS}");
    let pointsman = start_pointsman(&provider_config("a", &simulator, &limits));
    let stop = Arc::new(AtomicBool::new(false));
    let mut tasks = JoinSet::new();
    keep_asking(&mut tasks, &pointsman, "healthy", 24, &stop);
    wait_until("requests are answered", || simulator.counts().answered > 20).await;
    keep_asking(&mut tasks, &pointsman, "failing", 24, &stop);
    wait_until("requests fail", || simulator.counts().requests > simulator.counts().answered + 20).await;
    let before = simulator.counts();
    while simulator.counts().requests < before.requests + 600 {
        let requests = simulator.counts().requests;
        wait_until("requests arrive", || simulator.counts().requests > requests).await;
    }
    let answered = simulator.counts().answered - before.answered;
    stop.store(true, Relaxed);
    while tasks.join_next().await.is_some_and(|task| task.is_ok()) {}
    assert!(answered >= 200, "{answered} of 600 requests are of the scope whose requests are answered");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_scopes_get_half_of_the_token_limit_each() {
    assert_equal_shares("limits = { tokens_per_minute = 4_000_000, concurrency = 64 }", 400_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_scopes_get_half_of_the_tokens_each_if_only_concurrency_is_limited() {
    assert_equal_shares("limits = { concurrency = 8 }", 200_000).await;
}
