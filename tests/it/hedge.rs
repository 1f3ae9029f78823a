//! A second lane is asked beside one that takes long, and never more than was allowed.

use std::time::Duration;

use pointsman::config::Config;
use pointsman::runtime::Pointsman;
use pointsman::simulator::{Fault, FaultKind, Settings, Simulator};
use pointsman::types::{Class, Outcome};
use tokio::time::Instant;

use super::scripted::{ANSWER, Scripted, stream};
use super::stage::*;

fn slow(latency: &str) -> Simulator {
    play(toml::from_str::<Settings>(&format!("latency = \"{latency}\"")).unwrap())
}

/// Two lanes; `hedge_after` and what else is to stand in `[retry]`.
fn two(first: &Simulator, second: &Simulator, retry: &str) -> String {
    format!(
        "[retry]\n{retry}\n[route.r]\nlanes = [\"a/m\", \"b/m\"]\n{}{}",
        provider("a", first, PATIENT),
        provider("b", second, PATIENT)
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_first_lane_is_overtaken_and_its_call_may_have_been_paid() {
    let (silent, healthy) = (faulty([Fault::new(FaultKind::Silent)]), play(Settings::default()));
    let config = two(&silent, &healthy, "hedge_after = \"100ms\"\nhedge_share = 1.0");
    let pointsman = start(&config.replace("2s", "20s").replace("total = \"5s\"", "total = \"1m\""));
    let began = Instant::now();
    let answer = ask(&pointsman, "r", "Anybody?").await;
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert_eq!(story(&answer), "a:superseded b:ok");
    let trail = trail(&answer);
    let counted = (trail.calls(), trail.hedges(), trail.maybe_charged(), trail.failovers());
    assert_eq!(counted, (2, 1, 1, 0));
    assert!(trail.0[1].hedge && !trail.0[0].hedge);
    assert_eq!(trail.0[0].outcome, Outcome::Superseded, "{trail:?}");
    assert!(trail.0[0].took >= Duration::from_millis(100), "{trail:?}");
    until("the first is broken off", || silent.counts().in_flight == 0).await;
    assert_eq!(snapshot(&pointsman, "a").in_flight, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_sent_beside_unless_it_is_asked_for() {
    let (slow, other) = (slow("400ms"), play(Settings::default()));
    let pointsman = start(&two(&slow, &other, "hedge_share = 1.0"));
    assert_eq!(story(&ask(&pointsman, "r", "Slow?").await), "a:ok");
    assert_eq!(other.counts().requests, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_than_the_share_is_sent_beside_however_slow_the_first_lane_is() {
    let (slow, other) = (slow("400ms"), play(Settings::default()));
    let pointsman = start(&two(&slow, &other, "hedge_after = \"20ms\"\nhedge_share = 0.1"));
    let answers = ask_many(&pointsman, "r", 40).await;
    assert!(answers.iter().all(Result::is_ok));
    let told: usize = answers.iter().map(|answer| trail(answer).hedges()).sum();
    assert_eq!((told, other.counts().requests), (4, 4));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_item_whose_question_went_to_two_lanes_has_one_line_and_one_answer() {
    let (first, second) = (slow("150ms"), slow("50ms"));
    let route = "[defaults]\nroute = \"r\"\n";
    let config = two(&first, &second, "hedge_after = \"40ms\"\nhedge_share = 1.0") + route;
    let pointsman = start(&config);
    let ran = run(&pointsman, "[[step]]\nname = \"greeting\"\nprompt = \"Greet {{ item.id }}.\"", 60).await;
    let keys: std::collections::BTreeSet<&str> =
        ran.lines.iter().map(|line| line["key"].as_str().unwrap()).collect();
    assert_eq!((ran.report.items.completed, ran.lines.len(), keys.len()), (60, 60, 60));
    let calls = ran.report.calls;
    assert!(calls.answered == 60 && calls.hedged > 0, "{calls:?}");
    assert_eq!((calls.made, calls.failed), (calls.answered + calls.beaten, 0));
    assert!(ran.report.failed_calls.is_empty() && ran.report.beaten_cost_usd.is_none());
    // What was broken off may have been paid for: that is told, and so is what was asked twice.
    assert_eq!((calls.maybe_charged, calls.failovers, calls.made), (0, 0, 60 + calls.hedged));
    assert_eq!(calls.beaten, calls.hedged);
    let noted = ran.lines.iter().filter(|line| {
        line["steps"]["greeting"]["notes"][0] == "b/m: asked beside another lane that took long"
    });
    assert_eq!(noted.count() as u64, calls.hedged);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lane_beside_that_fails_leaves_the_first_its_chance() {
    for (kind, class) in [(FaultKind::ServerError, "server_error"), (FaultKind::Refusal, "content_filter")] {
        let (slow, bad) = (slow("500ms"), faulty([Fault::new(kind)]));
        let pointsman = start(&two(&slow, &bad, "hedge_after = \"50ms\"\nhedge_share = 1.0"));
        let answer = ask(&pointsman, "r", "Well?").await;
        assert_eq!(story(&answer), format!("b:{class} a:ok"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_of_the_first_lane_is_final_also_with_another_beside_it() {
    let mut settings: Settings = toml::from_str("latency = \"200ms\"").unwrap();
    settings.faults.push(Fault::new(FaultKind::Refusal));
    let (refuses, slower) = (play(settings), slow("2s"));
    let pointsman = start(&two(&refuses, &slower, "hedge_after = \"50ms\"\nhedge_share = 1.0"));
    let answer = ask(&pointsman, "r", "Well?").await;
    assert_eq!(
        (story(&answer), class(&answer)),
        ("a:content_filter b:superseded".to_owned(), Some(Class::ContentFilter))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_both_fail_the_ask_goes_on_elsewhere() {
    let refused = |latency: &str| {
        let mut settings: Settings = toml::from_str(&format!("latency = \"{latency}\"")).unwrap();
        settings.faults.push(Fault::new(FaultKind::Cut));
        play(settings)
    };
    let (first, second, third) = (refused("400ms"), refused("400ms"), play(Settings::default()));
    let config = two(&first, &second, "hedge_after = \"50ms\"\nhedge_share = 1.0")
        .replace("\"b/m\"]", "\"b/m\", \"c/m\"]")
        + &provider("c", &third, PATIENT);
    let pointsman = start(&config);
    let answer = ask(&pointsman, "r", "Well?").await;
    assert_eq!(story(&answer), "a:unreadable b:unreadable c:ok");
    assert_eq!((first.counts().requests, second.counts().requests), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_time_in_the_queue_does_not_count() {
    let (narrow, other) = (slow("20ms"), play(Settings::default()));
    let config = two(&narrow, &other, "hedge_after = \"700ms\"\nhedge_share = 1.0").replacen(
        "models.m",
        "limits.concurrency = 1\nmodels.m",
        1,
    );
    let pointsman = start(&config);
    // The last waits for 59 others: more than a second.
    let answers = ask_many(&pointsman, "r", 60).await;
    assert!(answers.iter().all(|answer| story(answer) == "a:ok"));
    assert_eq!(other.counts().requests, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lane_where_others_wait_is_not_asked_beside() {
    let (slow_one, busy) = (slow("500ms"), slow("500ms"));
    let config = two(&slow_one, &busy, "hedge_after = \"50ms\"\nhedge_share = 1.0")
        .replace("[provider.b]", "[route.b]\nlanes = [\"b/m\"]\n[provider.b]\nlimits.concurrency = 1");
    let pointsman = start(&config);
    let busy_asks = spawn({
        let pointsman = pointsman.clone();
        async move { ask_many(&pointsman, "b", 2).await }
    });
    until("one is out there", || snapshot(&pointsman, "b").in_flight == 1).await;
    assert_eq!(story(&ask(&pointsman, "r", "Slow?").await), "a:ok");
    assert!(busy_asks.await.unwrap().iter().all(Result::is_ok));
    assert_eq!(busy.counts().requests, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_long_is_learnt_from_twenty_calls() {
    let (first, second) = (slow("20ms"), play(Settings::default()));
    let pointsman = start(&two(&first, &second, "hedge_after = \"p95\"\nhedge_share = 1.0"));
    assert!(ask_many(&pointsman, "r", 19).await.iter().all(|answer| story(answer) == "a:ok"));
    first.set(toml::from_str::<Settings>("latency = \"600ms\"").unwrap());
    // Nobody knows yet; this is the twentieth.
    assert_eq!(story(&ask(&pointsman, "r", "How slow?").await), "a:ok");
    first.set(Settings { faults: vec![Fault::new(FaultKind::Silent)], ..Settings::default() });
    assert_eq!(story(&ask(&pointsman, "r", "And now?").await), "a:superseded b:ok");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_sent_beside_in_a_drain() {
    let (slow, other) = (slow("700ms"), play(Settings::default()));
    let pointsman = start(&two(&slow, &other, "hedge_after = \"400ms\"\nhedge_share = 1.0"));
    let asked = spawn({
        let pointsman = pointsman.clone();
        async move { ask(&pointsman, "r", "The last one.").await }
    });
    until("it is out", || slow.counts().in_flight == 1).await;
    pointsman.drain(Instant::now() + Duration::from_secs(5)).await;
    assert_eq!(story(&asked.await.unwrap()), "a:ok");
    assert_eq!(other.counts().requests, 0);
}

/// Starts with two targets, of which the second is asked beside the first after this long a silence.
fn start_impatient(config: &str, silent_after: Duration) -> Pointsman {
    let mut config = Config::parse("test.toml", config, &key).unwrap_or_else(|faults| panic!("{faults}"));
    config.retry.silent_after = silent_after;
    Pointsman::start_with(&config, &key).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn a_silence_is_long_after_twenty_seconds() {
    let config = Config::parse("test.toml", "[provider.a]\nbase_url = \"simulator\"\n", &key);
    assert_eq!(
        config.unwrap_or_else(|faults| panic!("{faults}")).retry.silent_after,
        Duration::from_secs(20)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beside_a_provider_that_never_answers_another_is_asked_once_until_it_has_answered() {
    let silent = Settings { faults: vec![Fault::new(FaultKind::Silent)], ..Settings::default() };
    let (first, second) = (play(silent.clone()), play(Settings::default()));
    // Nothing was opted for, and no share of the calls is saved up.
    let config = two(&first, &second, "hedge_share = 0.001");
    let pointsman = start_impatient(&config, Duration::from_millis(200));
    let answer = ask(&pointsman, "r", "Anybody?").await;
    assert_eq!(story(&answer), "a:superseded b:ok");
    let told = trail(&answer);
    assert_eq!((told.calls(), told.hedges(), told.failovers()), (2, 1, 0));
    // It has been asked beside once, and has not answered since: this question waits for as long as it may be silent.
    assert_eq!(story(&ask(&pointsman, "r", "And now?").await), "a:timeout b:ok");
    first.set(Settings::default());
    assert_eq!(story(&ask(&pointsman, "r", "Are you back?").await), "a:ok");
    first.set(silent);
    assert_eq!(story(&ask(&pointsman, "r", "And again?").await), "a:superseded b:ok");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_item_whose_first_provider_never_answers_is_answered_by_another() {
    let (silent, healthy) = (faulty([Fault::new(FaultKind::Silent)]), play(Settings::default()));
    let config = two(&silent, &healthy, "").replace("2s", "20s").replace("total = \"5s\"", "total = \"1m\"");
    let pointsman = start_impatient(&(config + "[defaults]\nroute = \"r\"\n"), Duration::from_millis(200));
    let ran = run(&pointsman, "[[step]]\nname = \"greeting\"\nprompt = \"Greet {{ item.id }}.\"", 1).await;
    let calls = ran.report.calls;
    assert_eq!((calls.made, calls.answered, calls.hedged, calls.failed), (2, 1, 1, 0), "{calls:?}");
    assert_eq!(ran.lines[0]["steps"]["greeting"]["provider"], "b");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beside_a_provider_whose_headers_are_only_late_another_is_asked_no_second_time() {
    // Longer than a question waits for its first call by itself.
    let late = Scripted::start_late(Duration::from_millis(1_400), |_| stream("", ANSWER, true)).await;
    let second = play(Settings::default());
    let config = format!(
        "[route.r]\nlanes = [\"a/m\", \"b/m\"]\n{}{}",
        provider_at("a", &late.url(), PATIENT),
        provider("b", &second, PATIENT)
    );
    let pointsman = start_impatient(&config, Duration::from_millis(400));
    let mut hedges = Vec::new();
    for number in 0..3 {
        let answer = ask(&pointsman, "r", &format!("Question {number}?")).await;
        assert!(answer.is_ok(), "{}", story(&answer));
        hedges.push(trail(&answer).hedges());
    }
    assert_eq!(hedges, [1, 0, 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_whose_headers_have_come_is_not_silent() {
    // The headers come at once, and no event after them.
    let begun = Scripted::start(|_| stream("", ": waits\n\n", false)).await;
    let second = play(Settings::default());
    let config = format!(
        "[route.r]\nlanes = [\"a/m\", \"b/m\"]\n{}{}",
        provider_at("a", &begun.url(), PATIENT),
        provider("b", &second, PATIENT)
    );
    let pointsman = start_impatient(&config, Duration::from_millis(200));
    assert_eq!(story(&ask(&pointsman, "r", "Well?").await), "a:timeout b:ok");
}
