//! A long run in which everything panics now and then.

use std::num::NonZeroU64;

use pointsman::chaos::{Plan, arm, passed};
use pointsman::run::Ended;
use pointsman::simulator::{BucketSize, Limits, Settings};
use pointsman::supervisor::ChildState;
use pointsman::types::Class;

use super::scene::*;
use super::stage::*;

/// Where a run that is to end whole may panic. What brings the items and what writes them ends it.
pub(crate) const POINTS: [&str; 34] = [
    "router.ask",
    "router.begun",
    "router.health",
    "flow.plan",
    "flow.told",
    "provider.started",
    "provider.tick",
    "provider.alarm",
    "provider.told",
    "provider.call",
    "provider.queued",
    "provider.pumped",
    "provider.leave",
    "provider.released",
    "state.enqueue",
    "state.next",
    "state.admitted",
    "state.settle",
    "call.leave",
    "call.encode",
    "call.send",
    "call.headers",
    "call.piece",
    "call.settle",
    "call.tell",
    "run.entry",
    "run.settled",
    "run.exited",
    "run.goes_on",
    "run.tick",
    "item.started",
    "item.asks",
    "item.answered",
    "item.settled",
];

/// Points that come too seldom for a small share to strike them.
const SELDOM: [&str; 5] =
    ["provider.started", "provider.tick", "provider.alarm", "router.health", "run.tick"];

/// What a panic of would end the run.
const LAST: [&str; 5] = ["feed.entry", "writer.record", "sink.line", "supervisor.exited", "run.ends"];

/// Runs so many items against a provider that takes so many calls a minute, a second's worth at once, while
/// this share of all events panics. `spared` are points that may come to nothing.
#[expect(clippy::print_stderr, reason = "what a hundred thousand items came to is worth a look")]
async fn burn_everywhere(items: usize, per_minute: u64, share: f64, spared: &[&str]) {
    quiet();
    let requests_per_minute = NonZeroU64::new(per_minute);
    let limits = Limits { requests_per_minute, bucket: BucketSize::Second, ..Limits::default() };
    let simulator = play(Settings { limits, ..Settings::default() });
    let more = format!("limits.requests_per_minute = {per_minute}{PATIENT}");
    let pointsman = start(&format!("{UNDAUNTED}{AT_ONCE}{}", provider("a", &simulator, &more)));
    let plan = SELDOM.iter().fold(Plan::new(1).everywhere(share), |plan, point| plan.share(point, 0.05));
    let _armed = arm(LAST.iter().fold(plan, |plan, point| plan.share(point, 0.0)));
    let burnt = burn(&pointsman, items).await;

    let (report, items, panics) = (&burnt.report, items as u64, panics());
    assert_eq!((report.ended, report.items.settled()), (Ended::Whole, items));
    assert_eq!((burnt.lines.len() as u64, burnt.keys() as u64), (items, items), "one line for each item");
    // Only an item whose actor died twice, or whose question was lost twice, has failed. Each passes about five
    // points on its way, so some 50 in a square of shares are to be expected; 400 do not come by chance.
    let internal = report.errors.get(&Class::Internal).map_or(0, |errors| errors.count);
    assert_eq!(report.items.failed, internal, "{:?}", report.errors);
    let twice = items as f64 * (20.0 * share).powi(2);
    assert!(internal as f64 <= twice, "{internal} items failed, {twice} may");
    assert_eq!(burnt.completed() as u64, report.items.completed);

    let passed = passed();
    let struck = |point: &str| passed.get(point).is_some_and(|of| of.panics > 0);
    // On a machine too busy for the limit to be felt nobody waits for it.
    let is_felt = report.items_per_second > 0.9 * per_minute as f64 / 60.0;
    let may_be_whole = |point: &str| spared.contains(&point) || (point == "provider.alarm" && !is_felt);
    let whole: Vec<_> = POINTS.iter().filter(|point| !struck(point) && !may_be_whole(point)).collect();
    assert!(whole.is_empty(), "nothing panicked at {whole:?}: {passed:#?}");

    let counts = simulator.counts();
    assert!(counts.refused <= counts.requests / 1_000, "{} of {}", counts.refused, counts.requests);
    // A panic makes one call be made again at most.
    let again = counts.requests - items;
    assert!(again <= panics, "{again} calls more than items, after {panics} panics");
    let after = snapshot(&pointsman, "a");
    assert_eq!((after.in_flight, after.waiting), (0, 0));
    assert!(after.calls >= counts.requests, "{} calls, {} requests", after.calls, counts.requests);
    assert!(after.calls <= counts.requests + panics, "{} calls, {} requests", after.calls, counts.requests);
    let children = pointsman.children().await;
    assert!(children.iter().all(|child| child.state != ChildState::Down && child.life > 3), "{children:?}");
    let lives: Vec<_> = children.iter().map(|child| (&child.name, child.life)).collect();
    eprintln!(
        "{items} items, {:.0} a second; {panics} panics, lives {lives:?}; {internal} items failed; {again} calls \
        more, {} refused by the limit",
        report.items_per_second, counts.refused
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_items_settle_once_while_everything_panics_now_and_then() {
    // A provider that panics several times a second never comes to its next tick.
    burn_everywhere(100_000, 90_000, 0.001, &["provider.tick", "provider.alarm"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_that_holds_everything_back_is_obeyed_while_everything_panics_often() {
    // Few are told that they may go on, unless many wait.
    burn_everywhere(2_000, 12_000, 0.005, &["provider.tick", "provider.released"]).await;
}
