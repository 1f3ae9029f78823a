//! What a run that pauses advises: the remedy of this very reason, in the words of the user's own configuration.

use std::time::Duration;

use pointsman::run::Ended;
use pointsman::simulator::{Fault, FaultKind, Settings, Vendor};
use pointsman::types::Class;

use super::scripted::{ANSWER, Scripted, response, stream};
use super::stage::*;

const STEP: &str = "[[step]]\nname = \"s\"\nprompt = \"Greet {{ item.id }}.\"\n";

/// Returns why a run at these providers pauses, which holds for this long at most; no item may fail for it.
async fn paused(providers: &str, max_hold: &str, class: Class) -> String {
    let config = format!("{providers}{QUICK_RETRY}[run]\nmax_hold = \"{max_hold}\"\n");
    let report = run(&start(&config), STEP, 20).await.report;
    assert_eq!((report.ended, report.items.failed), (Ended::Paused, 0), "{:?}", report.errors);
    assert_eq!(report.paused_class, Some(class), "{:?}", report.paused);
    report.paused.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_wants_a_key_where_none_is_configured_is_given_one() {
    let simulator = play(Settings { keys: vec![key("K2").unwrap()], ..Settings::default() });
    let why = paused(&provider("a", &simulator, PATIENT), "none", Class::Auth).await;
    let advice = "(no key is configured for it); add `keys` to `[provider.a]`";
    assert!(why.contains(advice) && !why.contains("at the provider"), "{why}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_of_the_configuration_is_raised_there_and_not_at_the_provider() {
    let simulator = play(Settings::default());
    let more = format!("{PATIENT}limits.requests_per_day = 1\n");
    let why = paused(&provider("a", &simulator, &more), "1m", Class::Quota).await;
    assert!(why.contains("raise `requests_per_day` in `[provider.a]`") && !why.contains("credit"), "{why}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_with_https_of_a_server_without_tls_is_to_be_written_with_http() {
    let simulator = play(Settings::default());
    let url = simulator.base_url(Vendor::OpenAi).replace("http://", "https://");
    let why = paused(&provider_at("a", &url, PATIENT), "300ms", Class::NetworkError).await;
    assert!(why.contains("does not speak TLS: write http:// instead of https:// in base_url"), "{why}");
    assert!(!why.contains("InvalidContentType") && !why.contains("proxy settings"), "{why}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_that_wants_a_login_fails_no_item() {
    let body = "<html><title>Proxy Authentication Required</title></html>";
    let server = Scripted::start(move |_| response("407 Proxy Authentication Required", "", body)).await;
    let why = paused(&provider_at("a", &server.url(), PATIENT), "300ms", Class::NetworkError).await;
    assert!(why.contains("name and password into the proxy's address in HTTPS_PROXY"), "{why}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_without_v1_that_is_answered_with_200_pauses_the_run_at_once() {
    let body = r#"{"error":"Unexpected endpoint or method. (POST /chat/completions)"}"#;
    let json = "content-type: application/json; charset=utf-8\r\n";
    let server = Scripted::start(move |_| response("200 OK", json, body)).await;
    let why = paused(&provider_at("a", &server.url(), PATIENT), "none", Class::NotFound).await;
    assert!(why.contains("add /v1 to `base_url` in `[provider.a]`"), "{why}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_without_a_finish_reason_is_called_no_login_page() {
    let events = format!("{}\n\ndata: [DONE]\n\n", ANSWER.split("\n\n").next().unwrap());
    let server = Scripted::start(move |_| stream("", &events, true)).await;
    let why = paused(&provider_at("a", &server.url(), PATIENT), "300ms", Class::Unreadable).await;
    assert!(why.contains("without a finish reason") && !why.contains("login"), "{why}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redirect_comes_with_one_advice_and_the_base_url_to_write() {
    let moved = "location: https://api.example/v1/chat/completions\r\n";
    let server = Scripted::start(move |_| response("308 Permanent Redirect", moved, "")).await;
    let why = paused(&provider_at("a", &server.url(), PATIENT), "none", Class::NotFound).await;
    assert!(why.ends_with("use this address, base_url = \"https://api.example/v1\""), "{why}");
}

/// Returns what becomes of an item, by the table of docs/guarantees.md: of each fault that has one word for it.
fn documented() -> Vec<(FaultKind, String)> {
    let text = std::fs::read_to_string(super::program::repository("docs/guarantees.md")).unwrap();
    let rows = text.lines().filter_map(|line| {
        let cells: Vec<&str> = line.strip_prefix("| `")?.split(" | ").collect();
        let kind = cells.first()?.strip_suffix('`')?;
        Some((serde_json::from_value(kind.into()).ok()?, cells.get(4)?.to_string()))
    });
    rows.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_becomes_of_an_item_is_what_the_documentation_says() {
    let documented = documented();
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
    let becomes = kinds.map(|kind| async move {
        let simulator = faulty([Fault::new(kind)]);
        let more = format!("keys = [\"env:K1\"]{WARY}");
        let config = provider("a", &simulator, &more) + QUICK_RETRY + "[run]\nmax_hold = \"none\"\n";
        // What holds goes on until then.
        let ran = tokio::time::timeout(Duration::from_secs(15), run(&start(&config), STEP, 20)).await;
        match ran.map(|ran| ran.report) {
            Err(_) => "waits",
            Ok(report) if report.ended == Ended::Paused && report.items.failed == 0 => "run pauses",
            Ok(report) if report.items.failed == 20 => "fails",
            Ok(report) => panic!("{kind:?}: {:?}", report.items),
        }
    });
    let becomes = futures_util::future::join_all(becomes).await;
    for (kind, becomes) in kinds.into_iter().zip(becomes) {
        let (_, says) = documented.iter().find(|(known, _)| *known == kind).unwrap();
        assert_eq!(becomes, says.replace("run holds", "waits"), "{kind:?}");
    }
}
