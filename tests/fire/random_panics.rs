//! Long runs with random panics at every failure point.

use std::num::NonZeroU64;

use pointsman::chaos::{Plan, arm, point_counts};
use pointsman::run::RunOutcome;
use pointsman::simulator::{AccountLimits, BucketSize, Settings};
use pointsman::supervisor::ChildState;
use pointsman::types::Class;

use super::panic_runs::*;
use super::support::*;

/// Failure points at which a run survives a panic. A panic of its source or its sink ends the run.
pub(crate) const FAILURE_POINTS: [&str; 34] = [
    "router.request",
    "router.request_started",
    "router.health",
    "execution.plan",
    "execution.call_ended",
    "provider.started",
    "provider.tick",
    "provider.timer",
    "provider.notified",
    "provider.call",
    "provider.queued",
    "provider.dispatched",
    "provider.dispatch",
    "provider.released",
    "state.enqueue",
    "state.next",
    "state.admitted",
    "state.settle",
    "call.dispatch",
    "call.encode",
    "call.send",
    "call.headers",
    "call.chunk",
    "call.settle",
    "call.respond",
    "run.entry",
    "run.item_finished",
    "run.exited",
    "run.resumes",
    "run.tick",
    "item.started",
    "item.sends_request",
    "item.answered",
    "item.finished",
];

/// Points that are passed too rarely for a small panic probability. They get a higher one.
const RARE_POINTS: [&str; 5] =
    ["provider.started", "provider.tick", "provider.timer", "router.health", "run.tick"];

/// Points at which a panic ends the run.
const FATAL_POINTS: [&str; 5] =
    ["source.entry", "writer.record", "sink.line", "supervisor.exited", "run.ends"];

/// Runs `items` items against a provider that admits `per_minute` requests per minute, with a burst of one
/// second. Every passage of a point panics with probability `panic_probability`. The points in
/// `may_stay_intact` need not panic.
#[expect(clippy::print_stderr, reason = "the figures of the run are worth a look")]
async fn run_with_random_panics(
    items: usize,
    per_minute: u64,
    panic_probability: f64,
    may_stay_intact: &[&str],
) {
    silence_planned_panics();
    let requests_per_minute = NonZeroU64::new(per_minute);
    let limits =
        AccountLimits { requests_per_minute, bucket: BucketSize::Second, ..AccountLimits::default() };
    let simulator = start_simulator(Settings { limits, ..Settings::default() });
    let settings = format!("limits.requests_per_minute = {per_minute}{LONG_TIMEOUTS}");
    let pointsman = start_pointsman(&format!(
        "{UNLIMITED_RESTARTS}{FAST_RETRIES}{}",
        provider_config("a", &simulator, &settings)
    ));
    let plan = RARE_POINTS
        .iter()
        .fold(Plan::new(1).everywhere(panic_probability), |plan, point| plan.share(point, 0.05));
    let _armed = arm(FATAL_POINTS.iter().fold(plan, |plan, point| plan.share(point, 0.0)));
    let run = run_items(&pointsman, items).await;

    let report = &run.report;
    let items = items as u64;
    let panics = panic_count();
    assert_eq!((report.outcome, report.items.finished()), (RunOutcome::Completed, items));
    assert_eq!(
        (run.lines.len() as u64, run.distinct_keys() as u64),
        (items, items),
        "one line for each item"
    );
    // An item fails only if its actor panicked twice or its request was lost twice. Each item passes about
    // five points, so the expected failures are about 50 times the squared probability, per item. The limit
    // is 400 times.
    let internal = report.errors.get(&Class::Internal).map_or(0, |errors| errors.count);
    assert_eq!(report.items.failed, internal, "{:?}", report.errors);
    let max_failures = items as f64 * (20.0 * panic_probability).powi(2);
    assert!(internal as f64 <= max_failures, "{internal} items failed, at most {max_failures} may");
    assert_eq!(run.completed() as u64, report.items.completed);

    let counts_by_point = point_counts();
    let has_panicked = |point: &str| counts_by_point.get(point).is_some_and(|count| count.panics > 0);
    // On a machine that is too busy to reach the rate limit, no call waits for the limit.
    let items_per_second = report.items_per_second.unwrap();
    let limit_is_reached = items_per_second > 0.9 * per_minute as f64 / 60.0;
    let may_be_intact =
        |point: &str| may_stay_intact.contains(&point) || (point == "provider.timer" && !limit_is_reached);
    let intact: Vec<_> =
        FAILURE_POINTS.iter().filter(|point| !has_panicked(point) && !may_be_intact(point)).collect();
    assert!(intact.is_empty(), "no panic at {intact:?}: {counts_by_point:#?}");

    let counts = simulator.counts();
    assert!(counts.refused <= counts.requests / 1_000, "{} of {}", counts.refused, counts.requests);
    // One panic repeats at most one call.
    let repeated = counts.requests - items;
    assert!(repeated <= panics, "{repeated} repeated calls after {panics} panics");
    let after = provider_snapshot(&pointsman, "a");
    assert_eq!((after.in_flight, after.queued), (0, 0));
    assert!(after.calls >= counts.requests, "{} calls, {} requests", after.calls, counts.requests);
    assert!(after.calls <= counts.requests + panics, "{} calls, {} requests", after.calls, counts.requests);
    let children = pointsman.children().await;
    assert!(
        children.iter().all(|child| child.state != ChildState::Down && child.incarnation > 3),
        "{children:?}"
    );
    let incarnations: Vec<_> = children.iter().map(|child| (&child.name, child.incarnation)).collect();
    eprintln!(
        "{items} items, {:.0} per second; {panics} panics, incarnations {incarnations:?}; {internal} items failed; \
        {repeated} calls repeated, {} rejected by the rate limit",
        items_per_second, counts.refused
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_of_100_000_items_ends_once_despite_random_panics() {
    // A provider actor that panics several times per second never reaches its next tick.
    run_with_random_panics(100_000, 90_000, 0.001, &["provider.tick", "provider.timer"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rate_limit_is_kept_despite_frequent_panics() {
    // Without a long queue few calls pass `provider.released`.
    run_with_random_panics(2_000, 12_000, 0.005, &["provider.tick", "provider.released"]).await;
}
