//! The advice of a paused run: it fits the reason of the pause, and names keys of the user's configuration.

use std::time::Duration;

use pointsman::run::RunOutcome;
use pointsman::simulator::{Fault, FaultKind, Settings, Vendor};
use pointsman::types::Class;

use super::scripted_server::{RESPONSE_STREAM, ScriptedServer, response, stream};
use super::support::*;

const STEP: &str = "[[step]]\nname = \"s\"\nprompt = \"Greet {{ item.id }}.\"\n";

/// Runs 20 items with this maximum duration of a hold, and returns why the run paused. Asserts the class of the
/// pause, and that no item failed.
async fn pause_reason(providers: &str, max_hold: &str, class: Class) -> String {
    let config = format!("{providers}{QUICK_RETRY}[run]\nmax_hold = \"{max_hold}\"\n");
    let report = run_pipeline(&start_pointsman(&config), STEP, 20).await.report;
    assert_eq!((report.outcome, report.items.failed), (RunOutcome::Paused, 0), "{:?}", report.errors);
    assert_eq!(report.paused_class, Some(class), "{:?}", report.paused);
    report.paused.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_advice_for_a_provider_that_requires_a_key_is_to_add_keys() {
    let simulator =
        start_simulator(Settings { keys: vec![lookup_key("K2").unwrap()], ..Settings::default() });
    let reason = pause_reason(&provider_config("a", &simulator, LONG_TIMEOUTS), "none", Class::Auth).await;
    let advice = "(no key is configured for it); add `keys` to `[provider.a]`";
    assert!(reason.contains(advice) && !reason.contains("at the provider"), "{reason}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_advice_for_a_configured_daily_limit_is_to_raise_it_in_the_configuration() {
    let simulator = start_simulator(Settings::default());
    let more = format!("{LONG_TIMEOUTS}limits.requests_per_day = 1\n");
    let reason = pause_reason(&provider_config("a", &simulator, &more), "1m", Class::Quota).await;
    assert!(
        reason.contains("raise `requests_per_day` in `[provider.a]`") && !reason.contains("credit"),
        "{reason}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_advice_for_an_https_url_of_a_server_without_tls_is_to_write_http() {
    let simulator = start_simulator(Settings::default());
    let url = simulator.base_url(Vendor::OpenAi).replace("http://", "https://");
    let reason =
        pause_reason(&provider_config_at("a", &url, LONG_TIMEOUTS), "300ms", Class::NetworkError).await;
    assert!(reason.contains("does not speak TLS: write http:// instead of https:// in base_url"), "{reason}");
    assert!(!reason.contains("InvalidContentType") && !reason.contains("proxy settings"), "{reason}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_that_requires_a_login_fails_no_item() {
    let body = "<html><title>Proxy Authentication Required</title></html>";
    let server =
        ScriptedServer::start(move |_| response("407 Proxy Authentication Required", "", body)).await;
    let reason =
        pause_reason(&provider_config_at("a", &server.url(), LONG_TIMEOUTS), "300ms", Class::NetworkError)
            .await;
    assert!(reason.contains("name and password into the proxy's address in HTTPS_PROXY"), "{reason}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_base_url_without_v1_pauses_the_run_immediately_even_if_the_status_is_200() {
    let body = r#"{"error":"Unexpected endpoint or method. (POST /chat/completions)"}"#;
    let json = "content-type: application/json; charset=utf-8\r\n";
    let server = ScriptedServer::start(move |_| response("200 OK", json, body)).await;
    let reason =
        pause_reason(&provider_config_at("a", &server.url(), LONG_TIMEOUTS), "none", Class::NotFound).await;
    assert!(reason.contains("add /v1 to `base_url` in `[provider.a]`"), "{reason}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_without_a_finish_reason_is_not_reported_as_a_login_page() {
    let events = format!("{}\n\ndata: [DONE]\n\n", RESPONSE_STREAM.split("\n\n").next().unwrap());
    let server = ScriptedServer::start(move |_| stream("", &events, true)).await;
    let reason =
        pause_reason(&provider_config_at("a", &server.url(), LONG_TIMEOUTS), "300ms", Class::Unreadable)
            .await;
    assert!(reason.contains("without a finish reason") && !reason.contains("login"), "{reason}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_advice_for_a_redirect_is_the_base_url_to_write() {
    let reason_for = async |location: &str| {
        let moved = format!("location: {location}\r\n");
        let server = ScriptedServer::start(move |_| response("308 Permanent Redirect", &moved, "")).await;
        let config = provider_config_at("a", &server.url(), LONG_TIMEOUTS);
        (pause_reason(&config, "none", Class::NotFound).await, server.url())
    };
    let (reason, url) = reason_for("/v2/chat/completions").await;
    assert!(reason.ends_with(&format!("use this address, base_url = \"{url}/v2\"")), "{reason}");
    let (reason, _) = reason_for("https://api.example/v1/chat/completions").await;
    assert!(reason.contains("redirects to another host, api.example: check base_url"), "{reason}");
    assert!(!reason.contains("base_url = "), "{reason}");
}

/// Returns the column *item* of the table in docs/guarantees.md, for each row whose first cell is only the name of
/// a fault.
fn documented_outcomes() -> Vec<(FaultKind, String)> {
    let text = std::fs::read_to_string(super::program::repository_path("docs/guarantees.md")).unwrap();
    let rows = text.lines().filter_map(|line| {
        let cells: Vec<&str> = line.strip_prefix("| `")?.split(" | ").collect();
        let kind = cells.first()?.strip_suffix('`')?;
        Some((serde_json::from_value(kind.into()).ok()?, cells.get(4)?.to_string()))
    });
    rows.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_outcome_of_an_item_after_each_fault_is_the_documented_one() {
    let documented = documented_outcomes();
    let kinds = [
        FaultKind::Auth,
        FaultKind::ModelForbidden,
        FaultKind::Forbidden,
        FaultKind::NotFound,
        FaultKind::Html,
        FaultKind::Quota,
        FaultKind::ServerError,
        FaultKind::Reset,
        FaultKind::Cut,
        FaultKind::NoEnd,
        FaultKind::Refusal,
        FaultKind::Length,
    ];
    let outcomes = kinds.map(|kind| async move {
        let simulator = start_faulty_simulator([Fault::new(kind)]);
        let more = format!("keys = [\"env:K1\"]{QUICK_BREAKER}");
        let config = provider_config("a", &simulator, &more) + QUICK_RETRY + "[run]\nmax_hold = \"none\"\n";
        // A run that waits does not end before this timeout.
        let finished =
            tokio::time::timeout(Duration::from_secs(15), run_pipeline(&start_pointsman(&config), STEP, 20))
                .await;
        match finished.map(|run| run.report) {
            Err(_) => "waits",
            Ok(report) if report.outcome == RunOutcome::Paused && report.items.failed == 0 => "run pauses",
            Ok(report) if report.items.failed == 20 => "fails",
            Ok(report) => panic!("{kind:?}: {:?}", report.items),
        }
    });
    let outcomes = futures_util::future::join_all(outcomes).await;
    for (kind, outcome) in kinds.into_iter().zip(outcomes) {
        let (_, expected) = documented.iter().find(|(documented_kind, _)| *documented_kind == kind).unwrap();
        assert_eq!(outcome, expected.replace("run holds", "waits"), "{kind:?}");
    }
}
