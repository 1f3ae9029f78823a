//! Requests of a library caller that are lost when the router or the provider actor panics.

use pointsman::chaos::{Plan, arm, point_counts};
use pointsman::simulator::Settings;
use pointsman::types::{Charged, Class};

use super::panic_runs::*;
use super::support::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_is_lost_once_is_answered_and_reports_one_resend() {
    silence_planned_panics();
    // At `flow.plan` the router has already sent a call.
    for (point, max_calls) in [("router.request", 1), ("router.request_started", 1), ("execution.plan", 2)] {
        let simulator = start_simulator(Settings::default());
        let _armed = arm(Plan::new(1).at(point, 1));
        let pointsman = start_pointsman(&format!(
            "{UNLIMITED_RESTARTS}{}",
            provider_config("a", &simulator, LONG_TIMEOUTS)
        ));
        let response = send_request(&pointsman, "default", "Say hello.").await.unwrap();
        assert_eq!((response.resends, point_counts()[point].panics), (1, 1), "{point}");
        let calls = simulator.counts().requests;
        assert!((1..=max_calls).contains(&calls), "{point}: {calls} calls");
        assert_eq!(
            send_request(&pointsman, "default", "Say hello again.").await.unwrap().resends,
            0,
            "{point}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_is_lost_every_time_fails_as_possibly_charged() {
    silence_planned_panics();
    for point in ["router.request", "router.request_started", "execution.plan"] {
        let simulator = start_simulator(Settings::default());
        let _armed = arm(Plan::new(1).share(point, 1.0));
        let pointsman = start_pointsman(&format!(
            "{UNLIMITED_RESTARTS}{}",
            provider_config("a", &simulator, LONG_TIMEOUTS)
        ));
        let error = send_request(&pointsman, "default", "Say hello.").await.unwrap_err();
        let failure = &error.failure;
        assert_eq!((failure.class, failure.charged), (Class::Internal, Charged::Maybe), "{point}");
        assert_eq!((error.resends, point_counts()[point].panics), (2, 2), "{point}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_of_a_provider_actor_loses_at_most_one_of_300_calls() {
    silence_planned_panics();
    for (point, passage) in
        [("provider.notified", 1), ("provider.call", 30), ("state.enqueue", 30), ("provider.dispatched", 30)]
    {
        let simulator = start_simulator(Settings::default());
        let _armed = arm(Plan::new(1).at(point, passage));
        let settings = format!("limits.concurrency = 8{LONG_TIMEOUTS}");
        let pointsman = start_pointsman(&format!(
            "{UNLIMITED_RESTARTS}{FAST_RETRIES}{}",
            provider_config("a", &simulator, &settings)
        ));
        let results = send_requests(&pointsman, "default", 300).await;
        assert!(results.iter().all(Result::is_ok), "{point}");
        let lost: usize = results.iter().map(|result| attempt_log(result).lost()).sum();
        assert!(lost <= 1, "{point}: {lost} lost calls");
        assert_eq!((point_counts()[point].panics, simulator.counts().requests), (1, 300), "{point}");
    }
}
