//! Panics that never end: what is given up then, and what goes on.

use std::time::Duration;

use pointsman::chaos::{Plan, arm, passed};
use pointsman::run::{Ended, Items};
use pointsman::simulator::Settings;
use pointsman::supervisor::{ChildState, ChildStatus};
use pointsman::types::Class;

use super::scene::*;
use super::stage::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_item_that_always_dies_and_a_question_that_is_always_lost_fail_and_have_one_line() {
    quiet();
    for (point, tries) in [("item.started", 2), ("router.ask", 2), ("flow.plan", 2)] {
        let simulator = play(Settings::default());
        let _armed = arm(Plan::new(1).share(point, 1.0));
        let pointsman = start(&format!("{UNDAUNTED}{}", provider("a", &simulator, PATIENT)));
        let ran = burn(&pointsman, 10).await;
        let report = &ran.report;
        assert_eq!((report.ended, report.items.failed, ran.keys()), (Ended::Whole, 10, 10), "{point}");
        assert_eq!(report.errors[&Class::Internal].count, 10, "{point}");
        assert_eq!(passed()[point].panics, 10 * tries, "{point}");
        assert_eq!(report.calls.maybe_charged, 10 * tries, "{point}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_over_which_the_run_panics_is_rejected_and_a_settlement_fails() {
    quiet();
    for (point, rejected, failed) in [("run.entry", 5, 0), ("run.settled", 0, 5)] {
        let simulator = play(Settings::default());
        let _armed = arm(Plan::new(1).share(point, 1.0));
        let pointsman = start(&format!("{UNDAUNTED}{}", provider("a", &simulator, PATIENT)));
        let ran = burn(&pointsman, 5).await;
        let items = ran.report.items;
        assert_eq!((items.rejected, items.failed, ran.keys() as u64), (rejected, failed, failed), "{point}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_panics_again_and_again_stays_down_and_another_answers() {
    quiet();
    let (bad, good) = (play(Settings::default()), play(Settings::default()));
    let config = "[supervisor]\nprovider_restarts = 3\npause = \"1ms\"\n";
    let config = format!(
        "{config}{AT_ONCE}{}{}",
        provider("a", &bad, &format!("limits.concurrency = 1{PATIENT}")),
        provider("b", &good, PATIENT)
    );
    let armed = arm(Plan::new(1).share("provider.call", 1.0));
    let pointsman = start(&config);
    let answer = spawn({
        let pointsman = pointsman.clone();
        // One that takes its provider down again and again ends; others come.
        async move {
            loop {
                if let Ok(answer) = ask(&pointsman, "default", "Anybody?").await {
                    return answer;
                }
            }
        }
    });
    let down = |child: &ChildStatus| child.state == ChildState::Down;
    while pointsman.children().await.iter().filter(|child| down(child)).count() < 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(passed()["provider.call"].panics, 8, "three restarts each");
    let unanswered = ask(&pointsman, "default", "Nobody?").await.unwrap_err();
    let why = "internal: the actor of a is down: it used up its restarts";
    assert_eq!(unanswered.failure.to_string(), why, "{:?}", unanswered.trail);
    drop(armed);
    pointsman.restart("provider b").await.unwrap();
    assert_eq!(answer.await.unwrap().lane.provider.as_str(), "b");
    assert_eq!((bad.counts().requests, good.counts().requests), (0, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_router_or_a_run_that_panics_again_and_again_is_told_to_the_owner() {
    quiet();
    for (point, child) in [("router.ask", "router"), ("run.goes_on", "run ")] {
        let simulator = play(Settings::default());
        let config = "[supervisor]\nrouter_restarts = 3\nrun_restarts = 3\npause = \"1ms\"\n";
        let pointsman = start(&format!("{config}{}", provider("a", &simulator, PATIENT)));
        let _armed = arm(Plan::new(1).share(point, 1.0));
        let folder = tempfile::tempdir().unwrap();
        let mut run = begin(&pointsman, folder.path(), 10).await;
        let why = pointsman.gave_up().await;
        let last = format!(": it used up its restarts; at last it panicked: planned at {point}");
        assert!(why.starts_with(child) && why.ends_with(&last), "{why}");
        run.stop_intake();
        // With no run there is nobody to report; with no router all items are left for later, but those whose
        // question was one of four panics twice.
        let report = run.report().await;
        assert_eq!(report.is_ok(), child == "router", "{report:?}");
        if let Ok(report) = report {
            let Items { failed, unfinished, .. } = report.items;
            assert_eq!((report.ended, failed + unfinished), (Ended::Interrupted, 10));
            assert!(failed <= 2, "{failed} failed");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_supervisor_that_panics_takes_everything_down_and_its_owner_hears_of_it() {
    quiet();
    let simulator = play(toml::from_str("latency = \"60s\"").unwrap());
    let _armed = arm(Plan::new(1).share("supervisor.exited", 1.0).at("router.health", 2));
    let pointsman = start(&format!(
        "{UNDAUNTED}{}",
        provider("a", &simulator, "timeouts = { first_token = \"60s\", total = \"60s\" }")
    ));
    let folder = tempfile::tempdir().unwrap();
    let mut run = begin(&pointsman, folder.path(), 10).await;
    assert_eq!(pointsman.gave_up().await, "pointsman has stopped");
    // The run dies, too, or leaves all that was under way.
    if let Ok(report) = run.report().await {
        assert_eq!((report.ended, report.items.unfinished), (Ended::Interrupted, 10));
    }
    let lines = std::fs::read_to_string(folder.path().join("out.jsonl")).unwrap();
    assert!(lines.is_empty(), "{lines}");
    assert!(ask(&pointsman, "default", "Anybody?").await.is_err());
}
