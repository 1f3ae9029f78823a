use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use tokio::runtime::Handle;
use tokio::time::advance;

use super::*;
use crate::provider::admission::decision::{NextCall, ReadyCall};
use crate::provider::admission::grant::{Abort, CallOutcome, SendTime};
use crate::provider::admission::permit::Permit;
use crate::provider::state::tests::enqueue;
use crate::provider::{Account, Settings};
use crate::telemetry::text_of;
use crate::types::{Class, Completion, Failure, Price, Spend, Tokens, Usage};

const SECOND: Duration = Duration::from_secs(1);

const PRICE: &str = "price = { input = 1, output = 5 }";

/// A provider with one model. The clock must be paused before.
fn state(limits: &str) -> Arc<State> {
    let settings =
        format!("base_url = 'http://127.0.0.1:9'\nmodels.m = {{ {PRICE} }}\nlimits = {{ {limits} }}");
    let settings: Settings = toml::from_str(&settings).unwrap();
    let base_url = settings.base_url.clone().unwrap();
    let name = "a".into();
    let keys = Vec::new();
    let headers = HeaderMap::new();
    let budgets = Vec::new();
    State::new(Account { name, settings, base_url, keys, headers, budgets }, Handle::current()).unwrap()
}

/// Returns a call that was queued for two seconds, after a pause in which the provider recovers.
async fn admit(state: &Arc<State>) -> ReadyCall {
    advance(60 * SECOND).await;
    // Without the receiver the call is not sent.
    let _receiver = enqueue(state, 600 * SECOND);
    advance(2 * SECOND).await;
    match state.next(Instant::now()) {
        NextCall::Ready(ready) => *ready,
        NextCall::WaitUntil(_) | NextCall::Idle => panic!("the call is not ready"),
    }
}

async fn send(state: &Arc<State>) -> Permit {
    let ReadyCall { queued, mut permit, .. } = admit(state).await;
    let at = Instant::now();
    permit.mark_sent(SendTime { at, queue_time: at - queued.requested_at });
    permit
}

fn metrics(state: &State) -> TargetMetricsSnapshot {
    state.lock().targets["m"].metrics.snapshot()
}

/// Returns how many attempts had each outcome that occurred.
fn outcomes(state: &State) -> BTreeMap<&'static str, u64> {
    metrics(state).sums.outcomes().filter(|(_, count)| *count > 0).collect()
}

/// Returns the value of a series in the text of the provider's metrics.
fn reported(state: &State, series: &str) -> Option<f64> {
    let mut samples = Samples::default();
    state.report_metrics(Instant::now(), &mut samples);
    let text = text_of(&samples);
    let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
    Some(value.parse().unwrap())
}

#[actix_web::test]
async fn an_attempt_that_was_sent_has_one_outcome_however_it_ends() {
    tokio::time::pause();
    let state = state("");
    let failed = |class| Some(Err(Failure::new(class, "as planned")));
    let mut expected = BTreeMap::new();
    for (result, abort, outcome) in [
        (Some(Ok(Completion::default())), None, "answered"),
        (failed(Class::ServerError), None, "server_error"),
        (None, Some(Abort::Superseded), "superseded"),
        (failed(Class::RateLimit), None, "rate_limit"),
        (None, Some(Abort::Cancelled), "cancelled"),
        // Its task has died.
        (None, None, "network_error"),
        (Some(Ok(Completion::default())), None, "answered"),
    ] {
        let permit = send(&state).await;
        assert_eq!(outcomes(&state), expected, "it is in flight");
        advance(3 * SECOND).await;
        match (&result, abort) {
            (Some(result), _) => {
                let first_token = result.is_ok().then_some(SECOND);
                permit.finish(&CallOutcome { result, took: 3 * SECOND, first_token });
            }
            (None, Some(abort)) => permit.abort(abort),
            (None, None) => drop(permit),
        }
        *expected.entry(outcome).or_default() += 1;
        assert_eq!(outcomes(&state), expected);
    }
    let metrics = metrics(&state);
    assert_eq!((metrics.durations.count(), metrics.durations.sum), (7, 21.0));
    assert_eq!((metrics.queue_times.count(), metrics.queue_times.sum), (7, 14.0));
    assert_eq!((metrics.first_tokens.count(), metrics.first_tokens.sum), (2, 2.0));
    let answered = r#"pointsman_attempts_total{provider="a",model="m",outcome="answered"}"#;
    assert_eq!(reported(&state, answered), Some(2.0));
    let count = r#"pointsman_attempt_duration_seconds_count{provider="a",model="m"}"#;
    assert_eq!(reported(&state, count), Some(7.0));
}

#[actix_web::test]
async fn an_attempt_that_was_not_sent_counts_nothing() {
    tokio::time::pause();
    let state = state("");
    // The target cannot express it.
    send(&state).await.withdraw();
    // It was lost or withdrawn before it was sent.
    drop(admit(&state).await);
    let metrics = metrics(&state);
    assert_eq!(outcomes(&state), BTreeMap::new());
    assert_eq!((metrics.durations.count(), metrics.queue_times.count()), (0, 0));
    assert_eq!((metrics.sums.spend, metrics.sums.possibly_charged), (Spend::default(), 0));
    let answered = r#"pointsman_attempts_total{provider="a",model="m",outcome="answered"}"#;
    assert_eq!(reported(&state, answered), Some(0.0));
}

#[actix_web::test]
async fn tokens_and_cost_are_those_that_are_booked_for_each_attempt() {
    tokio::time::pause();
    let state = state("");
    let usage = Usage {
        input: Tokens(10_000),
        cached: Tokens(4_000),
        cache_write: Tokens(2_000),
        output: Tokens(4_000),
        reasoning: Tokens(3_000),
        ..Usage::default()
    };
    let completion = Completion { usage: Some(usage), ..Completion::default() };
    let mut spend = Spend::default();
    for result in [
        Ok(completion.clone()),
        Err(Failure::new(Class::Truncated, "as planned").with_usage(Some(usage))),
        // Booked with an estimate.
        Ok(Completion { usage: None, ..completion }),
        Err(Failure::new(Class::RateLimit, "as planned")),
        Err(Failure::new(Class::Timeout, "as planned").maybe_charged()),
    ] {
        let permit = send(&state).await;
        let outcome = CallOutcome { result: &result, took: SECOND, first_token: None };
        spend += permit.finish(&outcome).0;
        assert_eq!(metrics(&state).sums.spend, spend, "{result:?}");
    }
    for abort in [Abort::Superseded, Abort::Cancelled] {
        let permit = send(&state).await;
        spend.uncertain_cost += permit.usage().expected_cost();
        permit.abort(abort);
        assert_eq!(metrics(&state).sums.spend, spend, "{abort:?}");
    }
    let permit = send(&state).await;
    spend.uncertain_cost += permit.usage().expected_cost();
    drop(permit);

    let sums = metrics(&state).sums;
    let price: Price = toml::from_str("input = 1\noutput = 5").unwrap();
    let cost = price.cost(&usage).unwrap();
    assert_eq!((sums.spend.cost, sums.spend), (cost + cost, spend));
    assert_eq!(sums.usage.total(), usage.total() + usage.total());
    // The truncated one, the timeout, and those that ended without a result.
    assert_eq!(sums.possibly_charged, 5);
    for (kind, tokens) in [
        ("input", 20_000.0),
        ("cached", 8_000.0),
        ("cache_write", 4_000.0),
        ("output", 8_000.0),
        ("reasoning", 6_000.0),
    ] {
        let series = format!(r#"pointsman_tokens_total{{provider="a",model="m",kind="{kind}"}}"#);
        assert_eq!(reported(&state, &series), Some(tokens), "{kind}");
    }
    let labels = r#"{provider="a",model="m"}"#;
    let dollars = |name: &str| reported(&state, &format!("{name}{labels}"));
    assert_eq!(dollars("pointsman_cost_usd_total"), Some(spend.cost.dollars()));
    assert_eq!(dollars("pointsman_uncertain_cost_usd_total"), Some(spend.uncertain_cost.dollars()));
    assert_eq!(dollars("pointsman_possibly_charged_attempts_total"), Some(5.0));
}

#[actix_web::test]
async fn the_gauges_show_what_is_queued_and_in_flight_and_how_much_of_a_limit_is_used() {
    tokio::time::pause();
    let state = state("requests_per_minute = 60, concurrency = 1");
    let _first = enqueue(&state, 600 * SECOND);
    let NextCall::Ready(_in_flight) = state.next(Instant::now()) else { panic!("the call is not ready") };
    let _second = enqueue(&state, 600 * SECOND);
    advance(5 * SECOND).await;
    let _third = enqueue(&state, 600 * SECOND);
    let of_target = r#"{provider="a",model="m"}"#;
    let of_provider = r#"{provider="a"}"#;
    for (series, value) in [
        (format!("pointsman_attempts_in_flight{of_target}"), 1.0),
        (format!("pointsman_concurrency_limit{of_target}"), 1.0),
        (format!("pointsman_queued_attempts{of_target}"), 2.0),
        (format!("pointsman_oldest_queued_attempt_seconds{of_provider}"), 5.0),
        (format!("pointsman_provider_held_seconds{of_provider}"), 0.0),
        (format!("pointsman_keys_in_cooldown{of_provider}"), 0.0),
        (r#"pointsman_breaker_state{provider="a",model="m",state="closed"}"#.to_owned(), 1.0),
        (r#"pointsman_breaker_state{provider="a",model="m",state="open"}"#.to_owned(), 0.0),
        (r#"pointsman_breaker_state{provider="a",model="m",state="half-open"}"#.to_owned(), 0.0),
    ] {
        assert_eq!(reported(&state, &series), Some(value), "{series}");
    }
    let series = r#"pointsman_rate_limit_utilization_ratio{provider="a",limit="requests"}"#;
    let utilization = reported(&state, series).unwrap();
    // One request in five seconds.
    assert!((utilization - 0.2).abs() < 1e-9, "{utilization}");
}
