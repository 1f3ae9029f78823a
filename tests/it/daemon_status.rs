//! What the status and the metrics of a daemon show of runs that have not ended, and of its store.

use std::num::NonZeroU64;
use std::time::Duration;

use pointsman::daemon::{ItemsFrom, NewRun, NewToken, Permission, TokenLimits};
use pointsman::simulator::{Latency, Settings};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::daemon::{DaemonFolder, MAX_WAIT, TestDaemon, values};
use super::support::*;

async fn status(daemon: &TestDaemon) -> Value {
    daemon.get("/status").await.json()
}

/// Asserts that the metrics have this line.
async fn assert_metric(daemon: &TestDaemon, line: &str) {
    let text = daemon.daemon.metrics_text().await.replace("{}", "");
    assert!(text.lines().any(|shown| shown == line), "{line} is not in\n{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_that_need_an_operator_are_named_with_their_reasons_and_counted_in_the_metrics() {
    let latency = Latency::Fixed(Duration::from_secs(600));
    let simulator = start_simulator(Settings { latency, ..Settings::default() });
    let folder = DaemonFolder::new(&simulator);
    let daemon = folder.start().await;
    assert_metric(&daemon, "pointsman_ready 1.0").await;
    assert_metric(&daemon, "pointsman_store_writable 1.0").await;
    assert_metric(&daemon, "pointsman_failed_commits_total 0").await;
    assert_metric(&daemon, "pointsman_runs{state=\"running\"} 0.0").await;
    let held = daemon.create_run(1).await;
    let lost = daemon.create_run(1).await;
    assert_eq!(daemon.post(&format!("/runs/{held}/hold")).await.status, 200);
    let shown = status(&daemon).await;
    assert_eq!((&shown["runs"]["paused"], &shown["runs"]["stuck"]), (&1.into(), &0.into()), "{shown}");
    assert_metric(&daemon, "pointsman_runs{state=\"running\"} 1.0").await;
    assert_metric(&daemon, "pointsman_runs{state=\"paused\"} 1.0").await;
    // The paused one first: it needs its user.
    let listed = shown["unfinished_runs"].as_array().unwrap();
    let runs: Vec<(&Value, &Value)> = listed.iter().map(|run| (&run["run"], &run["state"])).collect();
    assert_eq!(runs, [(&held.into(), &"paused".into()), (&lost.into(), &"running".into())], "{shown}");
    assert!(listed.iter().all(|run| run["pipeline"] == "one"), "{shown}");
    assert!(listed.iter().all(|run| run["waiting_for_scope"].is_null()), "{shown}");

    // Without its items, a run cannot be resumed.
    daemon.stop(Duration::from_secs(1)).await;
    let items = folder.path("runs.db-data").join("items");
    std::fs::read_dir(items).unwrap().for_each(|file| std::fs::remove_file(file.unwrap().path()).unwrap());
    let daemon = folder.start().await;
    let end = Instant::now() + MAX_WAIT;
    let shown = loop {
        let shown = status(&daemon).await;
        if !shown["unfinished_runs"][0]["reason"].is_null() {
            break shown;
        }
        assert!(Instant::now() < end, "{shown}");
        sleep(Duration::from_millis(20)).await;
    };
    assert_eq!((&shown["runs"]["open"], &shown["runs"]["stuck"]), (&0.into(), &1.into()), "{shown}");
    let first = &shown["unfinished_runs"][0];
    assert_eq!((&first["run"], &first["state"]), (&lost.into(), &"stopped".into()), "{shown}");
    assert!(first["reason"].as_str().unwrap().contains("could not be resumed"), "{shown}");
    assert_metric(&daemon, "pointsman_runs{state=\"stopped\"} 1.0").await;
    assert_metric(&daemon, "pointsman_runs{state=\"paused\"} 1.0").await;
    daemon.stop(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_status_names_the_limit_for_which_a_run_waits() {
    let simulator = start_simulator(Settings::default());
    let daemon = DaemonFolder::new(&simulator).start().await;
    let mut limits = TokenLimits::new();
    limits.requests_per_minute = NonZeroU64::new(5);
    let token = NewToken::new("slow", [Permission::Run]).with_limits(limits);
    let (_, token) = daemon.daemon.create_token(&token, "").await.unwrap();
    let caller = daemon.daemon.authenticate(token.expose()).await.unwrap().unwrap().caller;
    let new = NewRun::new("one", ItemsFrom::Values(values(50)));
    let run = daemon.daemon.create_run(new, &caller).await.unwrap().run.0;
    let end = Instant::now() + MAX_WAIT;
    let wait = loop {
        let shown = status(&daemon).await;
        let first = &shown["unfinished_runs"][0];
        if !first["waiting_for_scope"].is_null() {
            assert_eq!((&first["run"], &first["state"]), (&run.into(), &"running".into()), "{shown}");
            break first["waiting_for_scope"].clone();
        }
        assert!(Instant::now() < end, "{shown}");
        sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(wait["scope"], "token:slow", "{wait}");
    assert!(wait["limit"].as_str().unwrap().contains('5') && wait["requests"].as_u64() > Some(0), "{wait}");
    daemon.stop(Duration::ZERO).await;
}
