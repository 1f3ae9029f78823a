//! Interactive requests while no target is usable: they fail at once, with the expected wait.

use std::time::Duration;

use pointsman::runtime::Pointsman;
use pointsman::simulator::{Fault, FaultKind, Settings};
use pointsman::types::{Class, Priority, RequestError, Response};

use super::support::*;

const LONG_WAITS: &str = r#"
timeouts = { connect = "2s", first_token = "2s", idle = "2s", total = "5s" }
breaker = { consecutive_failures = 3, min_requests = 1000, open_duration = "5s", max_open_duration = "5s" }
"#;

/// Sends an interactive request with a timeout of 20 s.
async fn send_interactive(pointsman: &Pointsman, text: &str) -> Result<Response, Box<RequestError>> {
    let request = new_request("default", text, Duration::from_secs(20));
    pointsman.send(request.with_priority(Priority::Interactive)).await
}

/// Returns the class, retry-after and expected wait of a request that fails without an attempt.
async fn send_refused(pointsman: &Pointsman) -> (Class, Option<Duration>, Duration) {
    let error = send_interactive(pointsman, "And now?").await.unwrap_err();
    assert_eq!(error.attempts.calls(), 0, "{error:?}");
    let expected = error.expected_wait.unwrap_or_else(|| panic!("{error:?}"));
    (error.failure.class, error.failure.retry_after, expected)
}

fn is_between(wait: Duration, min: u64, max: u64) -> bool {
    wait > Duration::from_secs(min) && wait <= Duration::from_secs(max)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_key_has_an_expected_wait_and_no_retry_after() {
    for (format, vendor) in FORMATS {
        let simulator =
            start_simulator(Settings { keys: vec![lookup_key("K2").unwrap()], ..Settings::default() });
        let more = format!("format = \"{format}\"\nkeys = [\"env:K1\"]{LONG_WAITS}");
        let pointsman = start_pointsman(&provider_config_at("a", &simulator.base_url(vendor), &more));
        let first = send_interactive(&pointsman, "Is it valid?").await.unwrap_err();
        assert_eq!((first.failure.class, first.failure.retry_after), (Class::Auth, None), "{format}");
        assert!(is_between(first.expected_wait.unwrap(), 0, 5), "{format}: {first:?}");
        let (class, retry_after, expected) = send_refused(&pointsman).await;
        assert_eq!((class, retry_after), (Class::Auth, None), "{format}");
        assert!(is_between(expected, 0, 5), "{format}: {expected:?}");
        assert_eq!(simulator.counts().requests, 1, "{format}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exhausted_quota_without_a_time_has_an_expected_wait() {
    let simulator = start_faulty_simulator([Fault::new(FaultKind::Quota)]);
    let pointsman =
        start_pointsman(&provider_config("a", &simulator, &format!("keys = [\"env:K1\"]{LONG_WAITS}")));
    let first = send_interactive(&pointsman, "Is there money?").await.unwrap_err();
    assert_eq!((first.failure.class, first.failure.retry_after), (Class::Quota, None));
    let (class, retry_after, expected) = send_refused(&pointsman).await;
    assert_eq!((class, retry_after), (Class::Quota, None));
    assert!(is_between(expected, 0, 5), "{expected:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_breaker_refuses_an_interactive_request_at_once_with_the_last_failure() {
    let simulator = start_simulator(Settings::default());
    let pointsman =
        start_pointsman(&format!("{QUICK_RETRY}{}", provider_config("a", &simulator, LONG_WAITS)));
    assert_eq!(failure_class(&send_interactive(&pointsman, "Does it work?").await), None);
    simulator.set(Settings { faults: vec![Fault::new(FaultKind::ServerError)], ..Settings::default() });
    let first = send_interactive(&pointsman, "Is it well?").await.unwrap_err();
    assert_eq!(first.failure.class, Class::ServerError);
    let sent = simulator.counts().requests;
    assert_eq!(sent, 4, "{}", attempt_summary(&Err(first)));
    let (class, retry_after, expected) = send_refused(&pointsman).await;
    assert_eq!((class, retry_after), (Class::ServerError, None));
    assert!(is_between(expected, 0, 5), "{expected:?}");
    assert_eq!(simulator.counts().requests, sent);
    // A request that may be delayed waits for the next probe.
    simulator.set(Settings::default());
    let delayed = send_request(&pointsman, "default", "And when it is back?").await;
    assert_eq!(failure_class(&delayed), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exhausted_daily_limit_names_the_time_of_the_next_free_request() {
    let simulator = start_simulator(Settings::default());
    let more = format!("limits = {{ requests_per_day = 1 }}{LONG_WAITS}");
    let pointsman = start_pointsman(&provider_config("a", &simulator, &more));
    assert_eq!(failure_class(&send_interactive(&pointsman, "The first?").await), None);
    let (class, retry_after, expected) = send_refused(&pointsman).await;
    let retry_after = retry_after.unwrap();
    assert_eq!(class, Class::Quota);
    assert!(retry_after.abs_diff(expected) < Duration::from_secs(2), "{retry_after:?} {expected:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_fails_for_its_own_reason_has_no_expected_wait() {
    let simulator = start_faulty_simulator([Fault::new(FaultKind::FileForbidden)]);
    let pointsman =
        start_pointsman(&provider_config("a", &simulator, &format!("keys = [\"env:K1\"]{LONG_WAITS}")));
    let own = send_interactive(&pointsman, "What is in the file?").await.unwrap_err();
    assert_eq!((own.failure.class, own.expected_wait), (Class::ApiError, None));
    // One of two targets is usable.
    let faulty = start_faulty_simulator([Fault::new(FaultKind::Auth)]);
    let both = format!(
        "{}{}",
        provider_config("b", &faulty, LONG_WAITS),
        provider_config("a", &simulator, LONG_WAITS)
    );
    let route = "[route.both]\ntargets = [\"b/m\", \"a/m\"]\n";
    let pointsman = start_pointsman(&format!("{both}{route}"));
    let both = send_request(&pointsman, "both", "What is in the file?").await.unwrap_err();
    assert_eq!(both.expected_wait, None, "{both:?}");
}
