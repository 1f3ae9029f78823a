//! Repeated panics: which items, calls and actors fail, and what continues.

use std::time::Duration;

use pointsman::chaos::{Plan, arm, point_counts};
use pointsman::run::{Items, RunOutcome};
use pointsman::simulator::Settings;
use pointsman::supervisor::{ChildState, ChildStatus};
use pointsman::types::Class;

use super::panic_runs::*;
use super::support::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_item_whose_actor_or_request_panics_every_time_fails_with_one_line() {
    silence_planned_panics();
    for (point, attempts) in [("item.started", 2), ("router.request", 2), ("execution.plan", 2)] {
        let simulator = start_simulator(Settings::default());
        let _armed = arm(Plan::new(1).share(point, 1.0));
        let pointsman = start_pointsman(&format!(
            "{UNLIMITED_RESTARTS}{}",
            provider_config("a", &simulator, LONG_TIMEOUTS)
        ));
        let run = run_items(&pointsman, 10).await;
        let report = &run.report;
        assert_eq!(
            (report.outcome, report.items.failed, run.distinct_keys()),
            (RunOutcome::Completed, 10, 10),
            "{point}"
        );
        assert_eq!(report.errors[&Class::Internal].count, 10, "{point}");
        assert_eq!(point_counts()[point].panics, 10 * attempts, "{point}");
        assert_eq!(report.calls.possibly_charged, 10 * attempts, "{point}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_over_which_the_run_panics_is_rejected_and_a_finished_item_fails() {
    silence_planned_panics();
    for (point, rejected, failed) in [("run.entry", 5, 0), ("run.item_finished", 0, 5)] {
        let simulator = start_simulator(Settings::default());
        let _armed = arm(Plan::new(1).share(point, 1.0));
        let pointsman = start_pointsman(&format!(
            "{UNLIMITED_RESTARTS}{}",
            provider_config("a", &simulator, LONG_TIMEOUTS)
        ));
        let run = run_items(&pointsman, 5).await;
        let items = run.report.items;
        assert_eq!(
            (items.rejected, items.failed, run.distinct_keys() as u64),
            (rejected, failed, failed),
            "{point}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_actor_that_exhausts_its_restarts_stays_down_and_another_provider_answers() {
    silence_planned_panics();
    let bad = start_simulator(Settings::default());
    let good = start_simulator(Settings::default());
    let config = "[supervisor]\nprovider_restarts = 3\nbackoff = \"1ms\"\n";
    let config = format!(
        "{config}{FAST_RETRIES}{}{}",
        provider_config("a", &bad, &format!("limits.concurrency = 1{LONG_TIMEOUTS}")),
        provider_config("b", &good, LONG_TIMEOUTS)
    );
    let armed = arm(Plan::new(1).share("provider.call", 1.0));
    let pointsman = start_pointsman(&config);
    let response = spawn({
        let pointsman = pointsman.clone();
        // A request whose provider actor panics repeatedly fails. The next request tries again.
        async move {
            loop {
                if let Ok(response) = send_request(&pointsman, "default", "Say hello.").await {
                    return response;
                }
            }
        }
    });
    let is_down = |child: &ChildStatus| child.state == ChildState::Down;
    while pointsman.children().await.iter().filter(|child| is_down(child)).count() < 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(point_counts()["provider.call"].panics, 8, "three restarts of each provider actor");
    let error = send_request(&pointsman, "default", "Say hello again.").await.unwrap_err();
    let expected = "internal: the actor of a is down: it used up its restarts";
    assert_eq!(error.failure.to_string(), expected, "{:?}", error.attempts);
    drop(armed);
    pointsman.restart("provider b").await.unwrap();
    assert_eq!(response.await.unwrap().target.provider.as_str(), "b");
    assert_eq!((bad.counts().requests, good.counts().requests), (0, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_router_or_a_run_that_exhausts_its_restarts_is_reported_as_a_fatal_error() {
    silence_planned_panics();
    for (point, child) in [("router.request", "router"), ("run.resumes", "run ")] {
        let simulator = start_simulator(Settings::default());
        let config = "[supervisor]\nrouter_restarts = 3\nrun_restarts = 3\nbackoff = \"1ms\"\n";
        let pointsman =
            start_pointsman(&format!("{config}{}", provider_config("a", &simulator, LONG_TIMEOUTS)));
        let _armed = arm(Plan::new(1).share(point, 1.0));
        let folder = tempfile::tempdir().unwrap();
        let mut run = start_items(&pointsman, folder.path(), 10).await;
        let fatal_error = pointsman.fatal_error().await;
        let cause = format!(": it used up its restarts; at last it panicked: planned at {point}");
        assert!(fatal_error.starts_with(child) && fatal_error.ends_with(&cause), "{fatal_error}");
        run.stop_intake();
        // Without its run actor a run has no report. Without the router all items stay unfinished, except
        // those whose request was lost twice in the four panics.
        let report = run.report().await;
        assert_eq!(report.is_ok(), child == "router", "{report:?}");
        if let Ok(report) = report {
            let Items { failed, unfinished, .. } = report.items;
            assert_eq!((report.outcome, failed + unfinished), (RunOutcome::Interrupted, 10));
            assert!(failed <= 2, "{failed} failed");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_of_the_supervisor_stops_everything_and_is_reported_as_a_fatal_error() {
    silence_planned_panics();
    let simulator = start_simulator(toml::from_str("latency = \"60s\"").unwrap());
    let _armed = arm(Plan::new(1).share("supervisor.exited", 1.0).at("router.health", 2));
    let pointsman = start_pointsman(&format!(
        "{UNLIMITED_RESTARTS}{}",
        provider_config("a", &simulator, "timeouts = { first_token = \"60s\", total = \"60s\" }")
    ));
    let folder = tempfile::tempdir().unwrap();
    let mut run = start_items(&pointsman, folder.path(), 10).await;
    assert_eq!(pointsman.fatal_error().await, "pointsman has stopped");
    // The run fails as well, or reports its in-flight items as unfinished.
    if let Ok(report) = run.report().await {
        assert_eq!((report.outcome, report.items.unfinished), (RunOutcome::Interrupted, 10));
    }
    let lines = std::fs::read_to_string(folder.path().join("out.jsonl")).unwrap();
    assert!(lines.is_empty(), "{lines}");
    assert!(send_request(&pointsman, "default", "Say hello.").await.is_err());
}
