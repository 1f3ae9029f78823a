//! Many concurrent requests while a provider is down, recovers, or sends wrong responses. `matrix` tests each fault
//! with one request.

use std::net::TcpListener;
use std::time::Duration;

use pointsman::guard::BreakerState;
use pointsman::simulator::{Fault, FaultKind, Settings, Simulator, Vendor};
use pointsman::types::Class::*;
use tokio::time::{Instant, sleep};

use super::scripted_server::{RESPONSE_STREAM, ScriptedServer, response, stream};
use super::support::*;

/// Short timeouts, and a circuit breaker that does not open.
const SHORT_TIMEOUTS: &str = r#"
timeouts = { connect = "1s", first_token = "300ms", idle = "300ms", total = "5s" }
breaker = { consecutive_failures = 1000, min_requests = 1000 }
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_is_down_is_seldom_called_and_used_again_after_its_recovery() {
    let down = start_faulty_simulator([Fault {
        until: Some(Duration::from_millis(1_200)),
        ..Fault::new(FaultKind::Reset)
    }]);
    let healthy = start_simulator(Settings::default());
    let config = format!(
        "[route.r]\ntargets = [\"down/m\", \"healthy/m\"]\n{}{}",
        provider_config("down", &down, QUICK_BREAKER),
        provider_config("healthy", &healthy, LONG_TIMEOUTS)
    );
    let pointsman = start_pointsman(&config);
    let mut sent = 0;
    let started = Instant::now();
    loop {
        let response = send_request(&pointsman, "r", &format!("Request {sent}.")).await.unwrap();
        sent += 1;
        let has_recovered = response.target.provider.as_str() == "down";
        assert!(!has_recovered || started.elapsed() > Duration::from_secs(1), "{:?}", response.attempts);
        if has_recovered {
            break;
        }
        assert!(started.elapsed() < Duration::from_secs(3), "it is not used after its recovery");
        sleep(Duration::from_millis(5)).await;
    }
    // Two failed connections open the breaker. Then there is at most one probe in 150 ms.
    let calls = down.counts().by_fault[&FaultKind::Reset];
    assert!(sent > 40 && (3..=12).contains(&calls), "{calls} calls for {sent} requests");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unresponsive_provider_is_detected_even_if_every_request_ends_at_its_deadline() {
    let silent = start_simulator(Settings::default());
    let healthy = start_simulator(Settings::default());
    let long_timeouts = QUICK_BREAKER.replace("300ms", "4s");
    let config = format!(
        "[route.r]\ntargets = [\"silent/m\", \"healthy/m\"]\n{}{}",
        provider_config("silent", &silent, &long_timeouts),
        provider_config("healthy", &healthy, LONG_TIMEOUTS)
    );
    let pointsman = start_pointsman(&config);
    send_request(&pointsman, "r", "Request 0.").await.unwrap();
    silent.set(Settings { faults: vec![Fault::new(FaultKind::Silent)], ..Settings::default() });
    let send_with_short_deadline =
        |text| pointsman.send(new_request("r", text, Duration::from_millis(1_100)));
    let requests = ["Request 1.", "Request 2.", "Request 3."].map(send_with_short_deadline);
    let results = futures_util::future::join_all(requests).await;
    assert!(results.iter().all(|result| failure_class(result) == Some(Deadline)), "{results:?}");
    // If the router does not have the new state of the target yet, the target refuses the call.
    let attempts = attempt_summary(&send_with_short_deadline("Request 4.").await);
    assert!(["healthy:ok", "silent:refused healthy:ok"].contains(&&*attempts), "{attempts}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_that_refuses_connections_is_avoided_and_used_again_after_a_server_listens() {
    let free_port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let healthy = start_simulator(Settings::default());
    let config = format!(
        "[route.r]\ntargets = [\"late/m\", \"healthy/m\"]\n{}{}",
        provider_config_at("late", &format!("http://{free_port}/v1"), QUICK_BREAKER),
        provider_config("healthy", &healthy, LONG_TIMEOUTS)
    );
    let pointsman = start_pointsman(&config);
    let results = send_requests(&pointsman, "r", 50).await;
    assert!(results.iter().all(Result::is_ok));
    let refused = results.iter().find(|result| attempt_summary(result) == "late:network_error healthy:ok");
    assert!(format!("{:?}", refused.unwrap()).contains("onnection refused"));
    assert_ne!(provider_snapshot(&pointsman, "late").targets[0].breaker, BreakerState::Closed);
    let runtime = tokio::runtime::Handle::current();
    let late = Simulator::start(Settings::default(), free_port, &runtime).unwrap();
    let end = Instant::now() + Duration::from_secs(3);
    while send_request(&pointsman, "r", "Does it work?").await.unwrap().target.provider.as_str() != "late" {
        assert!(Instant::now() < end, "it is not used after its recovery");
    }
    assert!(late.counts().answered > 0);
}

fn with_fault(kind: FaultKind) -> Settings {
    Settings { faults: vec![Fault::new(kind)], ..Settings::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_wait_for_the_end_of_an_outage_of_their_only_target_with_one_probe_at_a_time() {
    let simulator = start_simulator(Settings::default());
    let config = format!("{QUICK_RETRY}{}", provider_config("a", &simulator, QUICK_BREAKER));
    let pointsman = start_pointsman(&config);
    send_request(&pointsman, "default", "Does it work?").await.unwrap();
    simulator.set(with_fault(FaultKind::Silent));
    let requests = spawn({
        let pointsman = pointsman.clone();
        async move { send_requests(&pointsman, "default", 40).await }
    });
    wait_until("the breaker is open and every call has ended", || {
        let snapshot = provider_snapshot(&pointsman, "a");
        let all_ended = snapshot.in_flight == 0 && simulator.counts().in_flight == 0;
        snapshot.targets[0].breaker == BreakerState::Open && all_ended
    })
    .await;
    simulator.reset();
    wait_until("three probes have been made", || simulator.counts().requests >= 3).await;
    assert_eq!(simulator.counts().peak_in_flight, 1);
    simulator.set(Settings::default());
    for result in requests.await.unwrap() {
        assert_eq!(failure_class(&result), None, "{}", attempt_summary(&result));
    }
    assert_eq!(provider_snapshot(&pointsman, "a").in_flight, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_single_request_survives_an_outage() {
    let simulator = start_simulator(Settings::default());
    let config = format!("{QUICK_RETRY}{}", provider_config("a", &simulator, QUICK_BREAKER));
    let pointsman = start_pointsman(&config);
    send_request(&pointsman, "default", "Does it work?").await.unwrap();
    simulator.reset();
    simulator.set(with_fault(FaultKind::Reset));
    let request = spawn({
        let pointsman = pointsman.clone();
        async move { send_request(&pointsman, "default", "Does it work again?").await }
    });
    wait_until("six calls have failed", || simulator.counts().requests >= 6).await;
    simulator.set(Settings::default());
    let response = request.await.unwrap().unwrap();
    // More calls than `[retry]` allows: failed probes are not counted as attempts.
    assert!(response.attempts.calls() > 5, "{:?}", response.attempts);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_to_a_target_that_never_answered_fail_long_before_their_deadlines() {
    let simulator = start_faulty_simulator([Fault::new(FaultKind::Reset)]);
    let config = format!("{QUICK_RETRY}{}", provider_config("a", &simulator, QUICK_BREAKER));
    let pointsman = start_pointsman(&config);
    let results = send_requests(&pointsman, "default", 20).await;
    assert!(results.iter().all(|result| failure_class(result) == Some(NetworkError)), "{:?}", results[0]);
    let calls = simulator.counts().requests;
    assert!(calls < 40, "the breaker has not saved calls: {calls}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pipeline_completes_despite_errors_and_timeouts_at_both_providers() {
    let start_faulty = |seed| {
        let faults =
            vec![Fault::new(FaultKind::ServerError).share(0.05), Fault::new(FaultKind::Silent).share(0.02)];
        start_simulator(Settings { seed, faults, track_prompts: true, ..Settings::default() })
    };
    let first = start_faulty(1);
    let second = start_faulty(2);
    let short_timeouts = LONG_TIMEOUTS.replace("2s", "1s");
    let config = format!(
        "{QUICK_RETRY}[route.r]\npolicy = \"weighted\"\ntargets = [\"a/m\", \"b/m\"]\n{}{}",
        provider_config("a", &first, &short_timeouts),
        provider_config("b", &second, &short_timeouts)
    );
    let pointsman = start_pointsman(&config);
    let finished =
        run_pipeline(&pointsman, "[[step]]\nname = \"greeting\"\nprompt = \"Greet {{ item.id }}.\"", 300)
            .await;
    assert_eq!((finished.report.items.completed, finished.lines.len()), (300, 300), "{:?}", finished.report);
    let ids: std::collections::BTreeSet<&str> =
        finished.lines.iter().map(|line| line["key"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), 300);
    let faults: u64 =
        [&first, &second].map(|simulator| simulator.counts().by_fault.values().sum()).iter().sum();
    assert!(faults >= 10, "only {faults} faults occurred");
    assert_eq!(finished.report.calls.sent, 300 + faults);
    // No prompt was answered twice.
    let answered = [&first, &second].map(|simulator| simulator.counts().distinct_prompts.unwrap());
    assert_eq!(answered.iter().sum::<u64>(), 300);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn truncated_json_with_a_finish_reason_is_not_a_success() {
    let simulator = start_faulty_simulator([Fault::new(FaultKind::TruncatedJson)]);
    for (format, vendor) in FORMATS {
        let url = simulator.base_url(vendor);
        let pointsman =
            start_pointsman(&provider_config_at("a", &url, &format!("format = \"{format}\"{LONG_TIMEOUTS}")));
        let step = r#"
            [[step]]
            name = "verdict"
            prompt = "Judge {{ item.id }}."
            max_validation_retries = 1
            schema = { type = "object", properties = { good = { type = "boolean" }, why = { type = "string" } }, required = ["good", "why"], additionalProperties = false }
        "#;
        let finished = run_pipeline(&pointsman, step, 3).await;
        assert_eq!((finished.report.items.completed, finished.report.items.failed), (0, 3), "{format}");
        assert_eq!(
            finished.lines[0]["error"]["class"], "validation_error",
            "{format}: {}",
            finished.lines[0]
        );
        // Each item has one request and one validation retry.
        assert_eq!(finished.report.calls.sent, 6, "{format}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_deadline_of_a_step_includes_its_validation_retries() {
    let mut settings: Settings = toml::from_str("latency = \"800ms\"").unwrap();
    settings.faults = vec![Fault::new(FaultKind::TruncatedJson)];
    let simulator = start_simulator(settings);
    let pointsman = start_pointsman(&provider_config("a", &simulator, LONG_TIMEOUTS));
    let step = r#"
        [[step]]
        name = "verdict"
        prompt = "Judge {{ item.id }}."
        deadline = "2s"
        max_validation_retries = 5
        schema = { type = "object", properties = { good = { type = "boolean" } }, required = ["good"], additionalProperties = false }
    "#;
    let finished = run_pipeline(&pointsman, step, 1).await;
    assert_eq!(finished.lines[0]["error"]["class"], "deadline", "{}", finished.lines[0]);
    assert!(finished.report.calls.sent <= 3, "{} calls were made", finished.report.calls.sent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn weighted_targets_get_their_shares() {
    let first = start_simulator(Settings::default());
    let second = start_simulator(Settings::default());
    let config = format!(
        "[route.r]\npolicy = \"weighted\"\ntargets = [{{ target = \"a/m\", weight = 3 }}, \"b/m\"]\n{}{}",
        provider_config("a", &first, LONG_TIMEOUTS),
        provider_config("b", &second, LONG_TIMEOUTS)
    );
    let pointsman = start_pointsman(&config);
    assert!(send_requests(&pointsman, "r", 80).await.iter().all(Result::is_ok));
    assert_eq!((first.counts().answered, second.counts().answered), (60, 20));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_simulated_target_never_replaces_a_real_one() {
    let simulator = start_faulty_simulator([Fault::new(FaultKind::NotFound)]);
    let config = format!(
        "[provider.s]\nbase_url = \"simulator\"\n[route.r]\ntargets = [\"a/m\"]\n\
        [route.simulated]\ntargets = [\"s/any\"]\n{}",
        provider_config("a", &simulator, LONG_TIMEOUTS)
    );
    let pointsman = start_pointsman(&config);
    let result = send_request(&pointsman, "r", "Are you real?").await;
    assert_eq!(
        (attempt_summary(&result), failure_class(&result)),
        ("a:not_found".to_owned(), Some(NotFound))
    );
    assert!(send_request(&pointsman, "simulated", "Are you real?").await.unwrap().simulated);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_arrives_in_chunks_within_the_timeouts_is_complete() {
    let settings: Settings =
        toml::from_str("latency = \"600ms\"\nfirst_token = \"100ms\"\nchunks = 6").unwrap();
    let simulator = start_simulator(settings);
    for (format, vendor) in FORMATS {
        let url = simulator.base_url(vendor);
        let pointsman =
            start_pointsman(&provider_config_at("a", &url, &format!("format = \"{format}\"{LONG_TIMEOUTS}")));
        let response = send_request(&pointsman, "default", "Take your time.").await.unwrap();
        let attempt = &response.attempts.0[0];
        let first_token = attempt.first_token.unwrap();
        let is_plausible = first_token >= Duration::from_millis(100) && first_token < attempt.duration;
        assert!(is_plausible, "{format}: {attempt:?}");
        assert!(attempt.duration >= Duration::from_millis(590), "{format}: {attempt:?}");
    }
    let vendors = simulator.counts().by_vendor;
    // OpenAI has two formats.
    assert_eq!([Vendor::OpenAi, Vendor::Anthropic, Vendor::Gemini].map(|vendor| vendors[&vendor]), [2, 1, 1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_retry_after_does_not_delay_requests_that_have_another_target() {
    let body = r#"{"error":{"message":"slow down","type":"requests","code":"rate_limit_exceeded"}}"#;
    let head = "retry-after: 60\r\ncontent-type: application/json\r\n";
    let text = response("429 Too Many Requests", head, body);
    let throttled = ScriptedServer::start(move |_| text.clone()).await;
    let healthy = start_simulator(Settings::default());
    // The concurrency limit is low, so most requests are queued when the first is refused.
    let low_concurrency = format!("limits.concurrency = 4{LONG_TIMEOUTS}");
    let config = format!(
        "[route.r]\ntargets = [\"a/m\", \"b/m\"]\n{}{}",
        provider_config_at("a", &format!("{}/v1", throttled.url()), &low_concurrency),
        provider_config("b", &healthy, LONG_TIMEOUTS)
    );
    let pointsman = start_pointsman(&config);
    let started = Instant::now();
    for _ in 0..2 {
        let results = send_requests(&pointsman, "r", 50).await;
        assert!(
            results.iter().all(|result| attempt_summary(result).ends_with("b:ok")),
            "{:?}",
            attempt_summary(&results[49])
        );
    }
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    assert!(throttled.requests() <= 4, "{} calls despite the retry time", throttled.requests());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn if_all_targets_send_a_retry_after_the_one_with_the_shortest_is_used() {
    let start_throttled = |seconds: u32| {
        let body = r#"{"error":{"message":"slow down","type":"requests","code":"rate_limit_exceeded"}}"#;
        let calls = std::sync::atomic::AtomicUsize::new(0);
        let head = format!("retry-after: {seconds}\r\ncontent-type: application/json\r\n");
        ScriptedServer::start(move |_| match calls.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
            0 => response("429 Too Many Requests", &head, body),
            _ => stream("", RESPONSE_STREAM, true),
        })
    };
    let long = start_throttled(15).await;
    let short = start_throttled(3).await;
    let config = format!(
        "{QUICK_RETRY}[route.r]\ntargets = [\"a/m\", \"b/m\"]\n{}{}",
        provider_config_at("a", &format!("{}/v1", long.url()), LONG_TIMEOUTS),
        provider_config_at("b", &format!("{}/v1", short.url()), LONG_TIMEOUTS)
    );
    let pointsman = start_pointsman(&config);
    let result = send_request(&pointsman, "r", "Hello?").await;
    assert_eq!(attempt_summary(&result), "a:rate_limit b:rate_limit b:ok");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failover_refusals_sends_a_refused_request_to_the_next_target() {
    let refusing = start_faulty_simulator([Fault::new(FaultKind::Refusal)]);
    let other = start_simulator(Settings::default());
    let targets = "targets = [\"a/m\", \"b/m\"]";
    let config = format!(
        "[route.strict]\n{targets}\n[route.lenient]\n{targets}\nfailover_refusals = true\n{}{}",
        provider_config("a", &refusing, LONG_TIMEOUTS),
        provider_config("b", &other, LONG_TIMEOUTS)
    );
    let pointsman = start_pointsman(&config);
    assert_eq!(attempt_summary(&send_request(&pointsman, "strict", "May I?").await), "a:content_filter");
    assert_eq!(
        attempt_summary(&send_request(&pointsman, "lenient", "May I?").await),
        "a:content_filter b:ok"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unresponsive_target_is_not_tried_again_while_another_target_remains() {
    let silent = start_faulty_simulator([Fault::new(FaultKind::Silent)]);
    let failing = start_faulty_simulator([Fault::new(FaultKind::Cut)]);
    let config = format!(
        "{QUICK_RETRY}[route.r]\ntargets = [\"a/m\", \"b/m\"]\n{}{}",
        provider_config("a", &silent, SHORT_TIMEOUTS),
        provider_config("b", &failing, LONG_TIMEOUTS)
    );
    let result = send_request(&start_pointsman(&config), "r", "Hello?").await;
    let attempts = attempt_summary(&result);
    assert!(
        attempts.starts_with("a:timeout b:unreadable b:unreadable b:unreadable b:unreadable a:timeout"),
        "{attempts}"
    );
}
