//! Many questions at once while a provider is dark, comes back, or answers wrongly; `matrix` has what follows
//! each fault.

use std::net::TcpListener;
use std::time::Duration;

use pointsman::guard::BreakerState;
use pointsman::simulator::{Fault, FaultKind, Settings, Simulator, Vendor};
use pointsman::types::Class::*;
use tokio::time::{Instant, sleep};

use super::scripted::{ANSWER, Scripted, response, stream};
use super::stage::*;

/// Short waits for what never comes, and a breaker that stays out of the way.
const HURRIED: &str = r#"
timeouts = { connect = "1s", first_token = "300ms", idle = "300ms", total = "5s" }
breaker = { failures = 1000, min_calls = 1000 }
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dark_provider_is_seldom_called_and_used_again_after_its_return() {
    let dark = faulty([Fault { until: Some(Duration::from_millis(1_200)), ..Fault::new(FaultKind::Reset) }]);
    let healthy = play(Settings::default());
    let config = format!(
        "[route.r]\nlanes = [\"dark/m\", \"healthy/m\"]\n{}{}",
        provider("dark", &dark, WARY),
        provider("healthy", &healthy, PATIENT)
    );
    let pointsman = start(&config);
    let mut asked = 0;
    let began = Instant::now();
    loop {
        let answer = ask(&pointsman, "r", &format!("Question {asked}?")).await.unwrap();
        asked += 1;
        let back = answer.lane.provider.as_str() == "dark";
        assert!(!back || began.elapsed() > Duration::from_secs(1), "{:?}", answer.trail);
        if back {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(3), "it is not used after its return");
        sleep(Duration::from_millis(5)).await;
    }
    // Two connections that fail are enough; then there is a probe every 150 ms at most.
    let calls = dark.counts().by_fault[&FaultKind::Reset];
    assert!(asked > 40 && (3..=12).contains(&calls), "{calls} calls for {asked} questions");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_is_silent_beyond_every_deadline_is_found_out_all_the_same() {
    let (silent, healthy) = (play(Settings::default()), play(Settings::default()));
    let patient = WARY.replace("300ms", "4s");
    let config = format!(
        "[route.r]\nlanes = [\"silent/m\", \"healthy/m\"]\n{}{}",
        provider("silent", &silent, &patient),
        provider("healthy", &healthy, PATIENT)
    );
    let pointsman = start(&config);
    ask(&pointsman, "r", "How long does it take?").await.unwrap();
    silent.set(Settings { faults: vec![Fault::new(FaultKind::Silent)], ..Settings::default() });
    let short = |text| pointsman.send(question("r", text, Duration::from_millis(1_100)));
    let (one, two, three) = tokio::join!(short("One?"), short("Two?"), short("Three?"));
    assert_eq!([one, two, three].each_ref().map(class), [Some(Deadline); 3]);
    // The router may not have heard of it yet, and is told by the lane itself.
    let four = story(&short("Four?").await);
    assert!(["healthy:ok", "silent:refused healthy:ok"].contains(&&*four), "{four}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_that_refuses_is_left_alone_and_used_once_somebody_listens() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let healthy = play(Settings::default());
    let config = format!(
        "[route.r]\nlanes = [\"late/m\", \"healthy/m\"]\n{}{}",
        provider_at("late", &format!("http://{free}/v1"), WARY),
        provider("healthy", &healthy, PATIENT)
    );
    let pointsman = start(&config);
    let answers = ask_many(&pointsman, "r", 50).await;
    assert!(answers.iter().all(Result::is_ok));
    let refused = answers.iter().find(|answer| story(answer) == "late:network_error healthy:ok");
    assert!(format!("{:?}", refused.unwrap()).contains("onnection refused"));
    assert_ne!(snapshot(&pointsman, "late").lanes[0].breaker, BreakerState::Closed);
    let here = tokio::runtime::Handle::current();
    let late = Simulator::start(Settings::default(), free, &here).unwrap();
    let end = Instant::now() + Duration::from_secs(3);
    while ask(&pointsman, "r", "Are you there?").await.unwrap().lane.provider.as_str() != "late" {
        assert!(Instant::now() < end, "it is not used after its return");
    }
    assert!(late.counts().answered > 0);
}

fn with_fault(kind: FaultKind) -> Settings {
    Settings { faults: vec![Fault::new(kind)], ..Settings::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn asks_wait_out_the_outage_of_their_only_lane_behind_one_probe_at_a_time() {
    let simulator = play(Settings::default());
    let config = format!("{QUICK_RETRY}{}", provider("a", &simulator, WARY));
    let pointsman = start(&config);
    ask(&pointsman, "default", "Does it work?").await.unwrap();
    simulator.set(with_fault(FaultKind::Silent));
    let asks = spawn({
        let pointsman = pointsman.clone();
        async move { ask_many(&pointsman, "default", 40).await }
    });
    until("the breaker opens and every call has come back", || {
        let snapshot = snapshot(&pointsman, "a");
        let all_back = snapshot.in_flight == 0 && simulator.counts().in_flight == 0;
        snapshot.lanes[0].breaker == BreakerState::Open && all_back
    })
    .await;
    simulator.reset();
    until("three probes have been made", || simulator.counts().requests >= 3).await;
    assert_eq!(simulator.counts().peak_in_flight, 1);
    simulator.set(Settings::default());
    for answer in asks.await.unwrap() {
        assert_eq!(class(&answer), None, "{}", story(&answer));
    }
    assert_eq!(snapshot(&pointsman, "a").in_flight, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ask_that_is_alone_in_an_outage_is_not_lost() {
    let simulator = play(Settings::default());
    let config = format!("{QUICK_RETRY}{}", provider("a", &simulator, WARY));
    let pointsman = start(&config);
    ask(&pointsman, "default", "Does it work?").await.unwrap();
    simulator.reset();
    simulator.set(with_fault(FaultKind::Reset));
    let alone = spawn({
        let pointsman = pointsman.clone();
        async move { ask(&pointsman, "default", "Is anybody there?").await }
    });
    until("six calls have failed", || simulator.counts().requests >= 6).await;
    simulator.set(Settings::default());
    let answer = alone.await.unwrap().unwrap();
    // More failures than its attempts would have allowed: those of probes do not count.
    assert!(answer.trail.calls() > 5, "{:?}", answer.trail);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lane_that_never_answered_is_given_up_long_before_the_deadline() {
    let simulator = faulty([Fault::new(FaultKind::Reset)]);
    let config = format!("{QUICK_RETRY}{}", provider("a", &simulator, WARY));
    let pointsman = start(&config);
    let answers = ask_many(&pointsman, "default", 20).await;
    assert!(answers.iter().all(|answer| class(answer) == Some(NetworkError)), "{:?}", answers[0]);
    let calls = simulator.counts().requests;
    assert!(calls < 40, "its breaker spared it no call: {calls}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_pipeline_survives_errors_and_silence_at_both_providers() {
    let trouble = |seed| {
        let faults =
            vec![Fault::new(FaultKind::ServerError).share(0.05), Fault::new(FaultKind::Silent).share(0.02)];
        play(Settings { seed, faults, track_prompts: true, ..Settings::default() })
    };
    let (first, second) = (trouble(1), trouble(2));
    let short = PATIENT.replace("2s", "1s");
    let config = format!(
        "{QUICK_RETRY}[route.r]\npolicy = \"weighted\"\nlanes = [\"a/m\", \"b/m\"]\n{}{}",
        provider("a", &first, &short),
        provider("b", &second, &short)
    );
    let pointsman = start(&config);
    let ran = run(&pointsman, "[[step]]\nname = \"greeting\"\nprompt = \"Greet {{ item.id }}.\"", 300).await;
    assert_eq!((ran.report.items.completed, ran.lines.len()), (300, 300), "{:?}", ran.report);
    let ids: std::collections::BTreeSet<&str> =
        ran.lines.iter().map(|line| line["key"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), 300);
    let faults: u64 =
        [&first, &second].map(|simulator| simulator.counts().by_fault.values().sum()).iter().sum();
    assert!(faults >= 10, "only {faults} faults were played");
    assert_eq!(ran.report.calls.made, 300 + faults);
    // No prompt was answered twice, by either.
    let answered = [&first, &second].map(|simulator| simulator.counts().distinct_prompts.unwrap());
    assert_eq!(answered.iter().sum::<u64>(), 300);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn json_that_was_cut_and_called_finished_is_no_success() {
    let simulator = faulty([Fault::new(FaultKind::TruncatedJson)]);
    for (format, vendor) in FORMATS {
        let url = simulator.base_url(vendor);
        let pointsman = start(&provider_at("a", &url, &format!("format = \"{format}\"{PATIENT}")));
        let step = r#"
            [[step]]
            name = "verdict"
            prompt = "Judge {{ item.id }}."
            reasks = 1
            schema = { type = "object", properties = { good = { type = "boolean" }, why = { type = "string" } }, required = ["good", "why"], additionalProperties = false }
        "#;
        let ran = run(&pointsman, step, 3).await;
        assert_eq!((ran.report.items.completed, ran.report.items.failed), (0, 3), "{format}");
        assert_eq!(ran.lines[0]["error"]["class"], "validation_error", "{format}: {}", ran.lines[0]);
        // The first question and its repetition, with the reason.
        assert_eq!(ran.report.calls.made, 6, "{format}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_deadline_of_a_step_includes_its_reasks() {
    let mut settings: Settings = toml::from_str("latency = \"800ms\"").unwrap();
    settings.faults = vec![Fault::new(FaultKind::TruncatedJson)];
    let simulator = play(settings);
    let pointsman = start(&provider("a", &simulator, PATIENT));
    let step = r#"
        [[step]]
        name = "verdict"
        prompt = "Judge {{ item.id }}."
        deadline = "2s"
        reasks = 5
        schema = { type = "object", properties = { good = { type = "boolean" } }, required = ["good"], additionalProperties = false }
    "#;
    let ran = run(&pointsman, step, 1).await;
    assert_eq!(ran.lines[0]["error"]["class"], "deadline", "{}", ran.lines[0]);
    assert!(ran.report.calls.made <= 3, "{} calls were made", ran.report.calls.made);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn weighted_lanes_get_their_shares() {
    let (first, second) = (play(Settings::default()), play(Settings::default()));
    let config = format!(
        "[route.r]\npolicy = \"weighted\"\nlanes = [{{ lane = \"a/m\", weight = 3 }}, \"b/m\"]\n{}{}",
        provider("a", &first, PATIENT),
        provider("b", &second, PATIENT)
    );
    let pointsman = start(&config);
    assert!(ask_many(&pointsman, "r", 80).await.iter().all(Result::is_ok));
    assert_eq!((first.counts().answered, second.counts().answered), (60, 20));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_simulated_target_never_stands_in_for_a_real_one() {
    let simulator = faulty([Fault::new(FaultKind::NotFound)]);
    let config = format!(
        "[provider.s]\nbase_url = \"simulator\"\n[route.r]\nlanes = [\"a/m\"]\n\
        [route.simulated]\nlanes = [\"s/any\"]\n{}",
        provider("a", &simulator, PATIENT)
    );
    let pointsman = start(&config);
    let answer = ask(&pointsman, "r", "Are you real?").await;
    assert_eq!((story(&answer), class(&answer)), ("a:not_found".to_owned(), Some(NotFound)));
    assert!(ask(&pointsman, "simulated", "Are you real?").await.unwrap().practice);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_comes_in_time_and_in_pieces_is_whole() {
    let settings: Settings =
        toml::from_str("latency = \"600ms\"\nfirst_token = \"100ms\"\nchunks = 6").unwrap();
    let simulator = play(settings);
    for (format, vendor) in FORMATS {
        let url = simulator.base_url(vendor);
        let pointsman = start(&provider_at("a", &url, &format!("format = \"{format}\"{PATIENT}")));
        let answer = ask(&pointsman, "default", "Take your time.").await.unwrap();
        let attempt = &answer.trail.0[0];
        let first = attempt.first_token.unwrap();
        assert!(first >= Duration::from_millis(100) && first < attempt.took, "{format}: {attempt:?}");
        assert!(attempt.took >= Duration::from_millis(590), "{format}: {attempt:?}");
    }
    let vendors = simulator.counts().by_vendor;
    assert_eq!([Vendor::OpenAi, Vendor::Anthropic, Vendor::Gemini].map(|vendor| vendors[&vendor]), [1; 3]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_asks_for_a_long_wait_holds_up_nobody_who_can_go_elsewhere() {
    let body = r#"{"error":{"message":"slow down","type":"requests","code":"rate_limit_exceeded"}}"#;
    let head = "retry-after: 60\r\ncontent-type: application/json\r\n";
    let text = response("429 Too Many Requests", head, body);
    let throttled = Scripted::start(move |_| text.clone()).await;
    let healthy = play(Settings::default());
    // Few may be out: most wait in the queue when the first is refused.
    let narrow = format!("limits.concurrency = 4{PATIENT}");
    let config = format!(
        "[route.r]\nlanes = [\"a/m\", \"b/m\"]\n{}{}",
        provider_at("a", &format!("{}/v1", throttled.url()), &narrow),
        provider("b", &healthy, PATIENT)
    );
    let pointsman = start(&config);
    let began = Instant::now();
    for _ in 0..2 {
        let answers = ask_many(&pointsman, "r", 50).await;
        assert!(answers.iter().all(|answer| story(answer).ends_with("b:ok")), "{:?}", story(&answers[49]));
    }
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    assert!(throttled.requests() <= 4, "{} calls in spite of the wait", throttled.requests());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lane_that_comes_back_first_is_used_when_all_ask_for_a_wait() {
    let wait = |seconds: u32| {
        let body = r#"{"error":{"message":"slow down","type":"requests","code":"rate_limit_exceeded"}}"#;
        let times = std::sync::atomic::AtomicUsize::new(0);
        let head = format!("retry-after: {seconds}\r\ncontent-type: application/json\r\n");
        Scripted::start(move |_| match times.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
            0 => response("429 Too Many Requests", &head, body),
            _ => stream("", ANSWER, true),
        })
    };
    let (long, short) = (wait(15).await, wait(3).await);
    let config = format!(
        "{QUICK_RETRY}[route.r]\nlanes = [\"a/m\", \"b/m\"]\n{}{}",
        provider_at("a", &format!("{}/v1", long.url()), PATIENT),
        provider_at("b", &format!("{}/v1", short.url()), PATIENT)
    );
    let pointsman = start(&config);
    let answer = ask(&pointsman, "r", "Which of you?").await;
    assert_eq!(story(&answer), "a:rate_limit b:rate_limit b:ok");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_goes_elsewhere_where_that_is_wished() {
    let (refuses, other) = (faulty([Fault::new(FaultKind::Refusal)]), play(Settings::default()));
    let lanes = "lanes = [\"a/m\", \"b/m\"]";
    let config = format!(
        "[route.strict]\n{lanes}\n[route.lenient]\n{lanes}\nfailover_refusals = true\n{}{}",
        provider("a", &refuses, PATIENT),
        provider("b", &other, PATIENT)
    );
    let pointsman = start(&config);
    assert_eq!(story(&ask(&pointsman, "strict", "May I?").await), "a:content_filter");
    assert_eq!(story(&ask(&pointsman, "lenient", "May I?").await), "a:content_filter b:ok");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_lane_is_left_alone_while_another_can_still_be_asked() {
    let (silent, failing) = (faulty([Fault::new(FaultKind::Silent)]), faulty([Fault::new(FaultKind::Cut)]));
    let config = format!(
        "{QUICK_RETRY}[route.r]\nlanes = [\"a/m\", \"b/m\"]\n{}{}",
        provider("a", &silent, HURRIED),
        provider("b", &failing, PATIENT)
    );
    let answer = ask(&start(&config), "r", "Anybody?").await;
    let told = story(&answer);
    assert!(
        told.starts_with("a:timeout b:unreadable b:unreadable b:unreadable b:unreadable a:timeout"),
        "{told}"
    );
}
