//! Reloads of a daemon that no caller asks for, and reloads after which it is not ready.

use std::sync::Arc;

use pointsman::config::Config;
use pointsman::daemon::Daemon;
use pointsman::runtime::Pointsman;
use pointsman::simulator::Settings;
use reqwest::Method;
use serde_json::json;
use tokio::time::{Duration, Instant, sleep};

use super::daemon::{Answer, DaemonFolder, Extra, MAX_WAIT, TestDaemon};
use super::support::*;

/// The only route of a configuration.
const MAIN: &str = "[route.main]\ntargets = [\"a/m\"]\n";

/// Waits until a reason why the daemon is not ready contains `part`.
async fn wait_for_reason(daemon: &TestDaemon, part: &str) {
    let end = Instant::now() + MAX_WAIT;
    loop {
        let readiness = daemon.daemon.readiness().await;
        let is_meant = |detail: &String| detail.contains(part);
        if readiness.reasons.iter().any(|reason| reason.detail.as_ref().is_some_and(is_meant)) {
            return;
        }
        assert!(Instant::now() < end, "{part}: {readiness:?}");
        sleep(Duration::from_millis(100)).await;
    }
}

/// Waits until the daemon is ready.
async fn wait_until_ready(daemon: &TestDaemon) {
    let end = Instant::now() + MAX_WAIT;
    loop {
        let readiness = daemon.daemon.readiness().await;
        if readiness.is_ready() {
            return;
        }
        assert!(Instant::now() < end, "{readiness:?}");
        sleep(Duration::from_millis(100)).await;
    }
}

/// Renames the only route, and reloads.
async fn rename_route(folder: &DaemonFolder, daemon: &TestDaemon) {
    let text = std::fs::read_to_string(folder.path("config.toml")).unwrap();
    folder.write("config.toml", text.replace("[route.main]", "[route.other]"));
    assert_eq!(daemon.post("/config/reload").await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_configuration_file_that_is_gone_is_noticed_and_used_again_when_it_is_back() {
    let simulator = start_simulator(Settings::default());
    let folder = DaemonFolder::new(&simulator);
    let daemon = folder.start().await;
    let text = std::fs::read_to_string(folder.path("config.toml")).unwrap();
    std::fs::remove_file(folder.path("config.toml")).unwrap();
    wait_for_reason(&daemon, "config.toml").await;
    // The content is the same as before the fault.
    folder.write("config.toml", text);
    wait_until_ready(&daemon).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_the_file_between_its_load_and_the_start_of_the_daemon_is_found() {
    let simulator = start_simulator(Settings::default());
    let folder = DaemonFolder::new(&simulator);
    let path = folder.path("config.toml");
    let load = move || Config::load_with(Some(&path), &lookup_key);
    let pointsman = Pointsman::start_with(&load().unwrap(), lookup_key).await.unwrap();
    folder.write("config.toml", "[route.main]\n");
    let daemon = Daemon::start(pointsman, Arc::new(load)).await.unwrap();
    wait_until("the change is found", || daemon.reload_fault().is_some()).await;
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fault_that_ends_without_a_change_of_the_configuration_file_is_over() {
    use std::os::unix::fs::PermissionsExt;

    let simulator = start_simulator(Settings::default());
    let keys = tempfile::tempdir().unwrap();
    let key = keys.path().join("key");
    let write_key = || {
        std::fs::write(&key, "sk-live-0123456789abcdef\n").unwrap();
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    };
    write_key();
    let provider = format!("keys = [\"file:{}\"]\n", key.display());
    let folder = DaemonFolder::with(&simulator, &Extra { provider: &provider, ..Extra::default() });
    let daemon = folder.start().await;
    std::fs::remove_file(&key).unwrap();
    assert_eq!(daemon.post("/config/reload").await.status, 422);
    assert!(daemon.daemon.reload_fault().is_some());
    write_key();
    wait_until_ready(&daemon).await;
    assert_eq!(daemon.daemon.reload_fault(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_the_file_that_was_reloaded_already_is_not_reloaded_again() {
    let simulator = start_simulator(Settings::default());
    let folder = DaemonFolder::new(&simulator);
    let daemon = folder.start().await;
    let mut stream = daemon.events("/events", None).await;
    let text = std::fs::read_to_string(folder.path("config.toml")).unwrap();
    folder.write("config.toml", format!("{text}\n[budget]\nday = 5\n"));
    assert_eq!(daemon.post("/config/reload").await.status, 200);
    stream.next_of("configuration_reloaded").await;
    // The watcher needs 300 ms.
    sleep(Duration::from_secs(2)).await;
    folder.write("config.toml", format!("{text}\n[budget]\nday = 6\n"));
    let next = stream.next_of("configuration_reloaded").await.data;
    let changes = next["data"]["changes"].as_array().unwrap();
    assert_eq!(changes.len(), 1, "the first change was reloaded twice: {next}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_whose_run_uses_a_route_that_is_gone_is_not_ready() {
    let simulator = start_simulator(toml::from_str("latency = \"100ms\"").unwrap());
    let tables = format!("{MAIN}[run]\nmax_in_flight_items = 1\n");
    let folder = DaemonFolder::with(&simulator, &Extra { tables: &tables, ..Extra::default() });
    let daemon = folder.start().await;
    wait_until_ready(&daemon).await;
    let run = daemon.create_run(1_000).await;
    wait_until("some items are answered", || simulator.counts().requests >= 3).await;
    rename_route(&folder, &daemon).await;
    wait_for_reason(&daemon, "main: it is not configured").await;
    assert_eq!(daemon.post(&format!("/runs/{run}/cancel")).await.status, 200);
    daemon.wait_for_state(run, "cancelled").await;
    // The pipeline of the file uses the only route, whatever its name.
    wait_until_ready(&daemon).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_whose_stored_pipeline_uses_a_route_that_is_gone_is_not_ready() {
    let simulator = start_simulator(Settings::default());
    let folder = DaemonFolder::with(&simulator, &Extra { tables: MAIN, ..Extra::default() });
    let daemon = folder.start().await;
    let pipeline = "name = \"two\"\n[[step]]\nname = \"answer\"\nroute = \"main\"\nprompt = \"Say hello.\"\n";
    let put = daemon.request(Method::PUT, "/pipelines/two").header("content-type", "application/toml");
    assert_eq!(Answer::of(put.body(pipeline)).await.status, 201);
    wait_until_ready(&daemon).await;
    rename_route(&folder, &daemon).await;
    wait_for_reason(&daemon, "two: ").await;
    let shown = daemon.get("/pipelines/two").await.json();
    assert_ne!(shown["problems"], json!([]), "{shown}");
    assert_eq!(daemon.delete("/pipelines/two").await.status, 204);
    wait_until_ready(&daemon).await;
}
