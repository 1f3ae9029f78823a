//! Panics in what brings items and in what writes them: they end the run, clearly, and tear no line.

use pointsman::chaos::{Plan, arm};
use pointsman::run::Ended;
use pointsman::simulator::Settings;

use super::scene::*;
use super::stage::*;

/// More than can be answered while a task that panicked is found out, however busy the machine is.
const ITEMS: usize = 50_000;

async fn run_with(point: &'static str, passage: u64) -> Burnt {
    quiet();
    let simulator = play(Settings::default());
    let _armed = arm(Plan::new(1).at(point, passage));
    let pointsman = start(&format!("{UNDAUNTED}{}", provider("a", &simulator, PATIENT)));
    burn(&pointsman, ITEMS).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_of_what_writes_ends_the_run_and_every_line_is_whole() {
    for (point, why) in [
        ("writer.record", "the task that writes panicked: planned at writer.record"),
        ("sink.line", "a line panicked: planned at sink.line"),
    ] {
        let ran = run_with(point, 40).await;
        let (report, items) = (&ran.report, ran.report.items);
        assert_eq!(report.ended, Ended::Broken, "{point}");
        assert!(report.output_error.as_ref().unwrap().contains(why), "{:?}", report.output_error);
        assert!(ran.lines.len() >= 39 - 1 && ran.keys() == ran.lines.len(), "{point}: {}", ran.lines.len());
        assert_eq!(items.settled(), ran.lines.len() as u64 + items.unwritten, "{point}: {items:?}");
        assert!(items.settled() < ITEMS as u64, "{point}: it went on asking for answers that nobody keeps");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_of_what_brings_the_items_ends_the_run_after_those_that_have_come() {
    let ran = run_with("feed.entry", 40).await;
    let why = ran.report.input_error.as_deref();
    assert_eq!(why, Some("the task that brings the items panicked: planned at feed.entry"));
    assert_eq!(ran.report.ended, Ended::Broken);
    assert_eq!(ran.report.items.completed, ran.lines.len() as u64);
    assert!(ran.lines.len() < 40 && ran.keys() == ran.lines.len());
}
