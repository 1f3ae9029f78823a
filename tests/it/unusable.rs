//! Requests of a library while no target can be used: they fail at once, and say how long that is expected to last.

use std::time::Duration;

use pointsman::router::Ask;
use pointsman::runtime::Pointsman;
use pointsman::simulator::{Fault, FaultKind, Settings};
use pointsman::types::{Answer, Class, Priority, Unanswered};

use super::stage::*;

const LONG_WAITS: &str = r#"
timeouts = { connect = "2s", first_token = "2s", idle = "2s", total = "5s" }
breaker = { failures = 3, min_calls = 1000, pause = "5s", max_open_duration = "5s" }
"#;

/// Asks for somebody who is waiting, for 20 s at most.
async fn ask_now(pointsman: &Pointsman, text: &str) -> Result<Answer, Box<Unanswered>> {
    let question = question("default", text, Duration::from_secs(20));
    pointsman.send(Ask { priority: Priority::Interactive, ..question }).await
}

/// Returns class, named wait and expected wait of a request that failed without an attempt.
async fn refused_at_once(pointsman: &Pointsman) -> (Class, Option<Duration>, Duration) {
    let unanswered = ask_now(pointsman, "And now?").await.unwrap_err();
    assert_eq!(unanswered.trail.calls(), 0, "{unanswered:?}");
    let expected = unanswered.expected_wait.unwrap_or_else(|| panic!("{unanswered:?}"));
    (unanswered.failure.class, unanswered.failure.retry_after, expected)
}

fn is_between(wait: Duration, least: u64, most: u64) -> bool {
    wait > Duration::from_secs(least) && wait <= Duration::from_secs(most)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_key_is_expected_to_rest_and_the_provider_has_named_no_time() {
    for (format, vendor) in FORMATS {
        let simulator = play(Settings { keys: vec![key("K2").unwrap()], ..Settings::default() });
        let more = format!("format = \"{format}\"\nkeys = [\"env:K1\"]{LONG_WAITS}");
        let pointsman = start(&provider_at("a", &simulator.base_url(vendor), &more));
        let first = ask_now(&pointsman, "Is it valid?").await.unwrap_err();
        assert_eq!((first.failure.class, first.failure.retry_after), (Class::Auth, None), "{format}");
        assert!(is_between(first.expected_wait.unwrap(), 0, 5), "{format}: {first:?}");
        let (class, named, expected) = refused_at_once(&pointsman).await;
        assert_eq!((class, named), (Class::Auth, None), "{format}");
        assert!(is_between(expected, 0, 5), "{format}: {expected:?}");
        assert_eq!(simulator.counts().requests, 1, "{format}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quota_without_a_time_is_expected_to_be_looked_at_again() {
    let simulator = faulty([Fault::new(FaultKind::Quota)]);
    let pointsman = start(&provider("a", &simulator, &format!("keys = [\"env:K1\"]{LONG_WAITS}")));
    let first = ask_now(&pointsman, "Is there money?").await.unwrap_err();
    assert_eq!((first.failure.class, first.failure.retry_after), (Class::Quota, None));
    let (class, named, expected) = refused_at_once(&pointsman).await;
    assert_eq!((class, named), (Class::Quota, None));
    assert!(is_between(expected, 0, 5), "{expected:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_breaker_refuses_an_interactive_request_at_once_with_the_last_failure() {
    let simulator = play(Settings::default());
    let pointsman = start(&format!("{QUICK_RETRY}{}", provider("a", &simulator, LONG_WAITS)));
    assert_eq!(class(&ask_now(&pointsman, "Does it work?").await), None);
    simulator.set(Settings { faults: vec![Fault::new(FaultKind::ServerError)], ..Settings::default() });
    let first = ask_now(&pointsman, "Is it well?").await.unwrap_err();
    assert_eq!(first.failure.class, Class::ServerError);
    let asked = simulator.counts().requests;
    assert_eq!(asked, 4, "{}", story(&Err(first)));
    let (class, named, expected) = refused_at_once(&pointsman).await;
    assert_eq!((class, named), (Class::ServerError, None));
    assert!(is_between(expected, 0, 5), "{expected:?}");
    assert_eq!(simulator.counts().requests, asked);
    // A request that may be delayed waits for the next probe.
    simulator.set(Settings::default());
    assert_eq!(class_of_patient(&pointsman).await, None);
}

async fn class_of_patient(pointsman: &Pointsman) -> Option<Class> {
    class(&ask(pointsman, "default", "And when it is back?").await)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daily_limit_that_is_used_up_says_when_there_is_room_again() {
    let simulator = play(Settings::default());
    let more = format!("limits = {{ requests_per_day = 1 }}{LONG_WAITS}");
    let pointsman = start(&provider("a", &simulator, &more));
    assert_eq!(class(&ask_now(&pointsman, "The first?").await), None);
    let (class, named, expected) = refused_at_once(&pointsman).await;
    let named = named.unwrap();
    assert_eq!(class, Class::Quota);
    assert!(named.abs_diff(expected) < Duration::from_secs(2), "{named:?} {expected:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_fails_for_its_own_reason_has_nothing_to_wait_for() {
    let simulator = faulty([Fault::new(FaultKind::FileForbidden)]);
    let pointsman = start(&provider("a", &simulator, &format!("keys = [\"env:K1\"]{LONG_WAITS}")));
    let own = ask_now(&pointsman, "What is in the file?").await.unwrap_err();
    assert_eq!((own.failure.class, own.expected_wait), (Class::ApiError, None));
    // One of two targets can be asked.
    let broken = faulty([Fault::new(FaultKind::Auth)]);
    let both = format!("{}{}", provider("b", &broken, LONG_WAITS), provider("a", &simulator, LONG_WAITS));
    let route = "[route.both]\nlanes = [\"b/m\", \"a/m\"]\n";
    let pointsman = start(&format!("{both}{route}"));
    let both = ask(&pointsman, "both", "What is in the file?").await.unwrap_err();
    assert_eq!(both.expected_wait, None, "{both:?}");
}
