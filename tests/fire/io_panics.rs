//! Panics in the source and the sink of a run: they end the run with a clear error and leave no partial line.

use pointsman::chaos::{Plan, arm};
use pointsman::run::RunOutcome;
use pointsman::simulator::Settings;

use super::panic_runs::*;
use super::support::*;

/// More items than a run completes before it detects the panic of a task, however busy the machine is.
const ITEMS: usize = 50_000;

async fn run_with(point: &'static str, passage: u64) -> PanicRun {
    silence_planned_panics();
    let simulator = start_simulator(Settings::default());
    let _armed = arm(Plan::new(1).at(point, passage));
    let pointsman =
        start_pointsman(&format!("{UNLIMITED_RESTARTS}{}", provider_config("a", &simulator, LONG_TIMEOUTS)));
    run_items(&pointsman, ITEMS).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_of_the_sink_ends_the_run_and_every_line_is_complete() {
    for (point, cause) in [
        ("writer.record", "the task that writes panicked: planned at writer.record"),
        ("sink.line", "a line panicked: planned at sink.line"),
    ] {
        let run = run_with(point, 40).await;
        let report = &run.report;
        let items = report.items;
        assert_eq!(report.outcome, RunOutcome::IoFailed, "{point}");
        assert!(report.output_error.as_ref().unwrap().contains(cause), "{:?}", report.output_error);
        assert!(
            run.lines.len() >= 39 - 1 && run.distinct_keys() == run.lines.len(),
            "{point}: {}",
            run.lines.len()
        );
        assert_eq!(items.finished(), run.lines.len() as u64 + items.unwritten, "{point}: {items:?}");
        assert!(items.finished() < ITEMS as u64, "{point}: the run continued although it cannot write");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_of_the_source_ends_the_run_after_the_items_already_read() {
    let run = run_with("source.entry", 40).await;
    let input_error = run.report.input_error.as_deref();
    assert_eq!(input_error, Some("the task that reads the items panicked: planned at source.entry"));
    assert_eq!(run.report.outcome, RunOutcome::IoFailed);
    assert_eq!(run.report.items.completed, run.lines.len() as u64);
    assert!(run.lines.len() < 40 && run.distinct_keys() == run.lines.len());
}
