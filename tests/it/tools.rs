//! Tools, and requests that a target cannot express.

use std::time::Duration;

use pointsman::guard::BreakerState;
use pointsman::router::Request;
use pointsman::run::RunOutcome;
use pointsman::simulator::{Settings, Simulator, Vendor};
use pointsman::types::{Class, FinishReason, Outcome, Prompt, ToolChoice};

use super::support::*;

#[path = "../../examples/tools.rs"]
#[expect(dead_code, reason = "the test runs what `main` runs")]
mod example;

/// Returns the configuration of a target in Anthropic's format, whose requests have no seed, and of one in OpenAI's
/// format. `more` belongs to the first.
fn two_targets(simulator: &Simulator, more: &str) -> String {
    let more = format!("format = \"anthropic\"\n{more}{LONG_TIMEOUTS}");
    let routes = "route.both.targets = [\"claude/m\", \"gpt/m\"]\nroute.claude.targets = [\"claude/m\"]\n";
    format!(
        "{routes}{}{}",
        provider_config_at("claude", &simulator.base_url(Vendor::Anthropic), &more),
        provider_config("gpt", simulator, LONG_TIMEOUTS),
    )
}

fn seeded(route: &str) -> Request {
    Request::new(route, Prompt::text("Hello?").with_seed(7)).with_deadline(Duration::from_secs(20))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_a_target_cannot_express_is_answered_by_another_target() {
    let simulator = start_simulator(Settings::default());
    let pointsman = start_pointsman(&two_targets(&simulator, ""));
    for _ in 0..20 {
        let result = pointsman.send(seeded("both")).await;
        assert_eq!(attempt_summary(&result), "claude:refused gpt:ok");
        let log = attempt_log(&result);
        let Outcome::Refused(reason) = &log.0[0].outcome else { panic!("{log:?}") };
        assert!(reason.contains("Anthropic's format cannot express seed"), "{reason}");
        assert_eq!((log.calls(), log.failovers(), log.possibly_charged()), (1, 1, 0));
    }
    assert_eq!(simulator.counts().requests, 20);
    let target = provider_snapshot(&pointsman, "claude").targets.remove(0);
    assert_eq!((target.breaker, target.in_flight, target.reduced_from), (BreakerState::Closed, 0, None));
    assert!(target.last_failure.is_none(), "{target:?}");
    assert_eq!(attempt_summary(&send_request(&pointsman, "both", "Hello?").await), "claude:ok");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_was_not_sent_gives_its_rate_back() {
    let simulator = start_simulator(Settings::default());
    let pointsman = start_pointsman(&two_targets(&simulator, "limits.requests_per_day = 1\n"));
    for _ in 0..5 {
        assert_eq!(attempt_summary(&pointsman.send(seeded("both")).await), "claude:refused gpt:ok");
    }
    assert_eq!(attempt_summary(&send_request(&pointsman, "both", "Hello?").await), "claude:ok");
    let over_quota = attempt_summary(&send_request(&pointsman, "both", "And now?").await);
    assert!(over_quota.ends_with("gpt:ok"), "{over_quota}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_no_target_can_express_fails_and_names_the_reason() {
    let simulator = start_simulator(Settings::default());
    let pointsman = start_pointsman(&two_targets(&simulator, ""));
    let error = pointsman.send(seeded("claude")).await.unwrap_err();
    assert_eq!((error.class(), error.attempts.calls(), error.expected_wait), (Class::ApiError, 0, None));
    assert!(error.failure.message.contains("seed"), "{error}");
    assert_eq!(error.target.unwrap().to_string(), "claude/m");
    assert_eq!(simulator.counts().requests, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn items_that_no_target_can_express_fail_for_their_own_reason() {
    let simulator = start_simulator(Settings::default());
    let pointsman = start_pointsman(&two_targets(&simulator, ""));
    let step = |route: &str| {
        let prompt = "prompt = \"Greet {{ item.id }}.\"";
        format!("[[step]]\nname = \"s\"\nroute = \"{route}\"\nseed = 7\n{prompt}\n")
    };
    let finished = run_pipeline(&pointsman, &step("claude"), 10).await;
    let report = &finished.report;
    assert_eq!((report.items.failed, report.outcome), (10, RunOutcome::Completed), "{:?}", report.paused);
    let names_seed =
        |line: &serde_json::Value| line["error"]["class"] == "api_error" && line.to_string().contains("seed");
    assert!(finished.lines.iter().all(names_seed), "{:#?}", finished.lines);
    assert_eq!(simulator.counts().requests, 0);
    let finished = run_pipeline(&pointsman, &step("both"), 10).await;
    assert_eq!(finished.report.items.completed, 10, "{:?}", finished.report.errors);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_parameter_that_the_configuration_drops_is_left_out() {
    let simulator = start_simulator(Settings::default());
    let pointsman = start_pointsman(&two_targets(&simulator, "drop_parameters = [\"seed\"]\n"));
    assert_eq!(attempt_summary(&pointsman.send(seeded("both")).await), "claude:ok");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prompt_that_no_provider_could_accept_fails_without_attempts() {
    let simulator = start_simulator(Settings::default());
    let pointsman = start_pointsman(&two_targets(&simulator, ""));
    let request = || {
        let prompt = Prompt::text("Hello?").with_tool_choice(ToolChoice::Required);
        Request::new("both", prompt).with_deadline(Duration::from_secs(20))
    };
    let router = pointsman.router();
    let by_actor = router.recipient().send(request()).await.unwrap();
    for result in [pointsman.send(request()).await, router.send(request()).await, by_actor] {
        let error = result.unwrap_err();
        assert_eq!((error.class(), error.attempts.0.len()), (Class::ApiError, 0));
        assert!(error.failure.message.contains("there are no tools"), "{error}");
    }
    assert_eq!(simulator.counts().requests, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_conversation_with_tools_works_in_every_format() {
    for (format, vendor) in FORMATS {
        let simulator = start_simulator(Settings::default());
        let more = format!("format = \"{format}\"\n{LONG_TIMEOUTS}");
        let pointsman = start_pointsman(&provider_config_at("a", &simulator.base_url(vendor), &more));
        let prompt = Prompt::text("Call the tool weather. Do I need an umbrella in Bern?")
            .with_tool(example::weather_tool());
        let router = pointsman.router();
        let called = router.send(Request::new("default", prompt.clone())).await.unwrap();
        assert_eq!(called.finish_reason(), FinishReason::ToolCalls, "{format}");
        let names: Vec<&str> = called.tool_calls().map(|call| &*call.name).collect();
        assert_eq!(names, ["weather"], "{format}");
        let response = example::converse(&router, prompt).await.unwrap();
        assert_eq!(response.finish_reason(), FinishReason::Stop, "{format}");
        assert!(!response.text().is_empty(), "{format}");
        assert_eq!(simulator.counts().requests, 3, "{format}");
    }
}
