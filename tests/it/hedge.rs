//! Hedges: a second target gets a request whose first call is slow, within the allowed ratio.

use std::time::Duration;

use pointsman::config::Config;
use pointsman::runtime::Pointsman;
use pointsman::simulator::{Fault, FaultKind, Settings, Simulator};
use pointsman::types::{Class, Outcome};
use tokio::time::Instant;

use super::scripted_server::{RESPONSE_STREAM, ScriptedServer, stream};
use super::support::*;

fn start_slow_simulator(latency: &str) -> Simulator {
    start_simulator(toml::from_str::<Settings>(&format!("latency = \"{latency}\"")).unwrap())
}

/// Returns a configuration with two targets and these keys of `[retry]`.
fn two_targets(first: &Simulator, second: &Simulator, retry: &str) -> String {
    format!(
        "[retry]\n{retry}\n[route.r]\ntargets = [\"a/m\", \"b/m\"]\n{}{}",
        provider_config("a", first, LONG_TIMEOUTS),
        provider_config("b", second, LONG_TIMEOUTS)
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hedge_supersedes_an_unresponsive_call_which_may_have_been_charged() {
    let silent = start_faulty_simulator([Fault::new(FaultKind::Silent)]);
    let healthy = start_simulator(Settings::default());
    let config = two_targets(&silent, &healthy, "hedge_after = \"100ms\"\nhedge_ratio = 1.0");
    let pointsman = start_pointsman(&config.replace("2s", "20s").replace("total = \"5s\"", "total = \"1m\""));
    let started = Instant::now();
    let result = send_request(&pointsman, "r", "Hello?").await;
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    assert_eq!(attempt_summary(&result), "a:superseded b:ok");
    let log = attempt_log(&result);
    let counts = (log.calls(), log.hedges(), log.possibly_charged(), log.failovers());
    assert_eq!(counts, (2, 1, 1, 0));
    assert!(log.0[1].hedged && !log.0[0].hedged);
    assert_eq!(log.0[0].outcome, Outcome::Superseded, "{log:?}");
    assert!(log.0[0].duration >= Duration::from_millis(100), "{log:?}");
    wait_until("the first call is aborted", || silent.counts().in_flight == 0).await;
    assert_eq!(provider_snapshot(&pointsman, "a").in_flight, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_hedge_is_sent_unless_it_is_configured() {
    let slow = start_slow_simulator("400ms");
    let other = start_simulator(Settings::default());
    let pointsman = start_pointsman(&two_targets(&slow, &other, "hedge_ratio = 1.0"));
    assert_eq!(attempt_summary(&send_request(&pointsman, "r", "Slow?").await), "a:ok");
    assert_eq!(other.counts().requests, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hedges_never_exceed_the_configured_ratio_of_the_requests() {
    let slow = start_slow_simulator("400ms");
    let other = start_simulator(Settings::default());
    let pointsman = start_pointsman(&two_targets(&slow, &other, "hedge_after = \"20ms\"\nhedge_ratio = 0.1"));
    let results = send_requests(&pointsman, "r", 40).await;
    assert!(results.iter().all(Result::is_ok));
    let hedges: usize = results.iter().map(|result| attempt_log(result).hedges()).sum();
    assert_eq!((hedges, other.counts().requests), (4, 4));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_item_whose_request_was_hedged_has_one_line_and_one_answer() {
    let first = start_slow_simulator("150ms");
    let second = start_slow_simulator("50ms");
    let route = "[defaults]\nroute = \"r\"\n";
    let config = two_targets(&first, &second, "hedge_after = \"40ms\"\nhedge_ratio = 1.0") + route;
    let pointsman = start_pointsman(&config);
    let finished =
        run_pipeline(&pointsman, "[[step]]\nname = \"greeting\"\nprompt = \"Greet {{ item.id }}.\"", 60)
            .await;
    let keys: std::collections::BTreeSet<&str> =
        finished.lines.iter().map(|line| line["key"].as_str().unwrap()).collect();
    assert_eq!((finished.report.items.completed, finished.lines.len(), keys.len()), (60, 60, 60));
    let calls = finished.report.calls;
    assert!(calls.answered == 60 && calls.hedged > 0, "{calls:?}");
    assert_eq!((calls.sent, calls.failed), (calls.answered + calls.superseded, 0));
    assert!(finished.report.failed_calls.is_empty() && finished.report.superseded_cost_usd.is_none());
    // The report counts superseded calls, which may have been charged, and hedged requests.
    assert_eq!((calls.possibly_charged, calls.failovers, calls.sent), (0, 0, 60 + calls.hedged));
    assert_eq!(calls.superseded, calls.hedged);
    let lines_with_note = finished.lines.iter().filter(|line| {
        line["steps"]["greeting"]["notes"][0]
            == "b/m: hedge: sent in parallel to a slow call to another target"
    });
    assert_eq!(lines_with_note.count() as u64, calls.hedged);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_failed_hedge_the_first_call_may_still_answer() {
    for (kind, class) in [(FaultKind::ServerError, "server_error"), (FaultKind::Refusal, "content_filter")] {
        let slow = start_slow_simulator("500ms");
        let failing = start_faulty_simulator([Fault::new(kind)]);
        let pointsman =
            start_pointsman(&two_targets(&slow, &failing, "hedge_after = \"50ms\"\nhedge_ratio = 1.0"));
        let result = send_request(&pointsman, "r", "Well?").await;
        assert_eq!(attempt_summary(&result), format!("b:{class} a:ok"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_of_the_first_target_is_final_even_during_a_hedge() {
    let mut settings: Settings = toml::from_str("latency = \"200ms\"").unwrap();
    settings.faults.push(Fault::new(FaultKind::Refusal));
    let refusing = start_simulator(settings);
    let slower = start_slow_simulator("2s");
    let pointsman =
        start_pointsman(&two_targets(&refusing, &slower, "hedge_after = \"50ms\"\nhedge_ratio = 1.0"));
    let result = send_request(&pointsman, "r", "Well?").await;
    assert_eq!(
        (attempt_summary(&result), failure_class(&result)),
        ("a:content_filter b:superseded".to_owned(), Some(Class::ContentFilter))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn if_the_call_and_its_hedge_both_fail_the_request_goes_to_the_next_target() {
    let start_failing = |latency: &str| {
        let mut settings: Settings = toml::from_str(&format!("latency = \"{latency}\"")).unwrap();
        settings.faults.push(Fault::new(FaultKind::Cut));
        start_simulator(settings)
    };
    let first = start_failing("400ms");
    let second = start_failing("400ms");
    let third = start_simulator(Settings::default());
    let config = two_targets(&first, &second, "hedge_after = \"50ms\"\nhedge_ratio = 1.0")
        .replace("\"b/m\"]", "\"b/m\", \"c/m\"]")
        + &provider_config("c", &third, LONG_TIMEOUTS);
    let pointsman = start_pointsman(&config);
    let result = send_request(&pointsman, "r", "Well?").await;
    assert_eq!(attempt_summary(&result), "a:unreadable b:unreadable c:ok");
    assert_eq!((first.counts().requests, second.counts().requests), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_time_in_the_queue_does_not_count_towards_hedge_after() {
    let limited = start_slow_simulator("20ms");
    let other = start_simulator(Settings::default());
    let config = two_targets(&limited, &other, "hedge_after = \"700ms\"\nhedge_ratio = 1.0").replacen(
        "models.m",
        "limits.concurrency = 1\nmodels.m",
        1,
    );
    let pointsman = start_pointsman(&config);
    // The last request waits for 59 others, for more than a second.
    let results = send_requests(&pointsman, "r", 60).await;
    assert!(results.iter().all(|result| attempt_summary(result) == "a:ok"));
    assert_eq!(other.counts().requests, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_with_queued_requests_gets_no_hedge() {
    let slow = start_slow_simulator("500ms");
    let busy = start_slow_simulator("500ms");
    let config = two_targets(&slow, &busy, "hedge_after = \"50ms\"\nhedge_ratio = 1.0")
        .replace("[provider.b]", "[route.b]\ntargets = [\"b/m\"]\n[provider.b]\nlimits.concurrency = 1");
    let pointsman = start_pointsman(&config);
    let busy_requests = spawn({
        let pointsman = pointsman.clone();
        async move { send_requests(&pointsman, "b", 2).await }
    });
    wait_until("a call is in flight", || provider_snapshot(&pointsman, "b").in_flight == 1).await;
    assert_eq!(attempt_summary(&send_request(&pointsman, "r", "Slow?").await), "a:ok");
    assert!(busy_requests.await.unwrap().iter().all(Result::is_ok));
    assert_eq!(busy.counts().requests, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hedge_after_p95_is_learned_from_twenty_calls() {
    let first = start_slow_simulator("20ms");
    let second = start_simulator(Settings::default());
    let pointsman =
        start_pointsman(&two_targets(&first, &second, "hedge_after = \"p95\"\nhedge_ratio = 1.0"));
    assert!(send_requests(&pointsman, "r", 19).await.iter().all(|result| attempt_summary(result) == "a:ok"));
    first.set(toml::from_str::<Settings>("latency = \"600ms\"").unwrap());
    // The percentile is unknown before the twentieth call, which is this one.
    assert_eq!(attempt_summary(&send_request(&pointsman, "r", "How slow?").await), "a:ok");
    first.set(Settings { faults: vec![Fault::new(FaultKind::Silent)], ..Settings::default() });
    assert_eq!(attempt_summary(&send_request(&pointsman, "r", "And now?").await), "a:superseded b:ok");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_hedge_is_sent_during_a_drain() {
    let slow = start_slow_simulator("700ms");
    let other = start_simulator(Settings::default());
    let pointsman =
        start_pointsman(&two_targets(&slow, &other, "hedge_after = \"400ms\"\nhedge_ratio = 1.0"));
    let request = spawn({
        let pointsman = pointsman.clone();
        async move { send_request(&pointsman, "r", "The last request.").await }
    });
    wait_until("the call is in flight", || slow.counts().in_flight == 1).await;
    pointsman.drain(Duration::from_secs(5)).await;
    assert_eq!(attempt_summary(&request.await.unwrap()), "a:ok");
    assert_eq!(other.counts().requests, 0);
}

/// Starts the library; a call without a response for this long is unresponsive, and its request is hedged.
fn start_with_unresponsive_after(config: &str, unresponsive_after: Duration) -> Pointsman {
    let mut config =
        Config::parse("test.toml", config, &lookup_key).unwrap_or_else(|diagnostics| panic!("{diagnostics}"));
    config.retry.unresponsive_after = unresponsive_after;
    Pointsman::start_blocking_with(&config, lookup_key).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn a_call_is_unresponsive_after_twenty_seconds_by_default() {
    let config = Config::parse("test.toml", "[provider.a]\nbase_url = \"simulator\"\n", &lookup_key);
    assert_eq!(
        config.unwrap_or_else(|diagnostics| panic!("{diagnostics}")).retry.unresponsive_after,
        Duration::from_secs(20)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unresponsive_provider_is_hedged_once_until_it_has_answered() {
    let silent = Settings { faults: vec![Fault::new(FaultKind::Silent)], ..Settings::default() };
    let first = start_simulator(silent.clone());
    let second = start_simulator(Settings::default());
    // `hedge_after` is not set, and the hedge ratio allows no hedge.
    let config = two_targets(&first, &second, "hedge_ratio = 0.001");
    let pointsman = start_with_unresponsive_after(&config, Duration::from_millis(200));
    let result = send_request(&pointsman, "r", "Hello?").await;
    assert_eq!(attempt_summary(&result), "a:superseded b:ok");
    let log = attempt_log(&result);
    assert_eq!((log.calls(), log.hedges(), log.failovers()), (2, 1, 0));
    // The provider has been hedged once and has not answered since, so this request waits for the first-token
    // timeout.
    assert_eq!(attempt_summary(&send_request(&pointsman, "r", "And now?").await), "a:timeout b:ok");
    first.set(Settings::default());
    assert_eq!(attempt_summary(&send_request(&pointsman, "r", "Are you back?").await), "a:ok");
    first.set(silent);
    assert_eq!(attempt_summary(&send_request(&pointsman, "r", "And again?").await), "a:superseded b:ok");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_item_whose_first_provider_is_unresponsive_is_answered_by_another() {
    let silent = start_faulty_simulator([Fault::new(FaultKind::Silent)]);
    let healthy = start_simulator(Settings::default());
    let config =
        two_targets(&silent, &healthy, "").replace("2s", "20s").replace("total = \"5s\"", "total = \"1m\"");
    let pointsman =
        start_with_unresponsive_after(&(config + "[defaults]\nroute = \"r\"\n"), Duration::from_millis(200));
    let finished =
        run_pipeline(&pointsman, "[[step]]\nname = \"greeting\"\nprompt = \"Greet {{ item.id }}.\"", 1).await;
    let calls = finished.report.calls;
    assert_eq!((calls.sent, calls.answered, calls.hedged, calls.failed), (2, 1, 1, 0), "{calls:?}");
    assert_eq!(finished.lines[0]["steps"]["greeting"]["provider"], "b");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_whose_headers_are_only_late_is_not_hedged_a_second_time() {
    // Longer than a request waits for its first call without a hedge.
    let late =
        ScriptedServer::start_late(Duration::from_millis(1_400), |_| stream("", RESPONSE_STREAM, true)).await;
    let second = start_simulator(Settings::default());
    let config = format!(
        "[route.r]\ntargets = [\"a/m\", \"b/m\"]\n{}{}",
        provider_config_at("a", &late.url(), LONG_TIMEOUTS),
        provider_config("b", &second, LONG_TIMEOUTS)
    );
    let pointsman = start_with_unresponsive_after(&config, Duration::from_millis(400));
    let mut hedges = Vec::new();
    for number in 0..3 {
        let result = send_request(&pointsman, "r", &format!("Request {number}.")).await;
        assert!(result.is_ok(), "{}", attempt_summary(&result));
        hedges.push(attempt_log(&result).hedges());
    }
    assert_eq!(hedges, [1, 0, 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_whose_headers_have_arrived_is_not_unresponsive() {
    // The headers arrive at once, and no event follows.
    let stalled = ScriptedServer::start(|_| stream("", ": waits\n\n", false)).await;
    let second = start_simulator(Settings::default());
    let config = format!(
        "[route.r]\ntargets = [\"a/m\", \"b/m\"]\n{}{}",
        provider_config_at("a", &stalled.url(), LONG_TIMEOUTS),
        provider_config("b", &second, LONG_TIMEOUTS)
    );
    let pointsman = start_with_unresponsive_after(&config, Duration::from_millis(200));
    assert_eq!(attempt_summary(&send_request(&pointsman, "r", "Well?").await), "a:timeout b:ok");
}
