//! The next action of a retry plan, by kind of failure.

use std::num::NonZeroU64;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

const OTHER_KEY: (HasOtherKey, IsProbe) = (HasOtherKey(true), IsProbe(false));
const NO_OTHER_KEY: (HasOtherKey, IsProbe) = (HasOtherKey(false), IsProbe(false));

/// Returns targets of distinct providers.
fn targets_of_distinct_providers(targets: usize) -> impl Iterator<Item = Candidate> {
    (0..targets).map(|target| Candidate { provider: format!("p{target}").into(), context_window: None })
}

/// Returns a plan over one target of each of these providers.
fn plan_for_providers(providers: &[&str]) -> (RetryPlan, Instant) {
    let targets = providers.iter().map(|name| Candidate { provider: (*name).into(), context_window: None });
    plan_with(targets, RetrySettings::default())
}

fn plan_with(targets: impl IntoIterator<Item = Candidate>, retry: RetrySettings) -> (RetryPlan, Instant) {
    let now = Instant::now();
    (RetryPlan::new(targets, retry, now + Duration::from_secs(600)), now)
}

fn plan_of(targets: usize) -> (RetryPlan, Instant) {
    plan_with(targets_of_distinct_providers(targets), RetrySettings::default())
}

fn failure(class: Class) -> Failure {
    Failure::new(class, "as planned")
}

/// Runs a plan whose calls all fail with `class`, and returns the targets that were called.
fn calls_until_failure(targets: usize, class: Class) -> Vec<usize> {
    let (mut plan, mut now) = plan_of(targets);
    let mut calls = Vec::new();
    loop {
        match plan.next(now, 0.5) {
            NextAction::Call(target) => {
                calls.push(target);
                plan.record_failure(target, failure(class), NO_OTHER_KEY, now, 0.5);
            }
            NextAction::Wait(until) => now = until,
            NextAction::Fail(end) => {
                assert_eq!(end.failure.class, class);
                return calls;
            }
        }
    }
}

#[test]
fn a_server_error_is_retried_once_and_then_fails_over() {
    assert_eq!(calls_until_failure(2, Class::ServerError)[..4], [0, 0, 1, 1]);
}

#[test]
fn a_network_error_fails_over_at_once() {
    assert_eq!(calls_until_failure(2, Class::NetworkError)[..2], [0, 1]);
}

#[test]
fn a_single_target_is_tried_in_several_rounds() {
    assert_eq!(calls_until_failure(1, Class::NetworkError).len(), 6);
}

#[test]
fn an_api_error_is_not_retried() {
    assert_eq!(calls_until_failure(3, Class::ApiError), [0]);
}

#[test]
fn a_model_that_does_not_exist_is_called_once_in_all_rounds() {
    assert_eq!(calls_until_failure(2, Class::NotFound), [0, 1]);
}

#[test]
fn an_exhausted_key_is_replaced_by_the_next_key_of_the_same_target() {
    let (mut plan, now) = plan_of(2);
    assert_eq!(plan.next(now, 0.0), NextAction::Call(0));
    plan.record_failure(0, failure(Class::Quota), OTHER_KEY, now, 0.0);
    assert_eq!(plan.next(now, 0.0), NextAction::Call(0));
    plan.record_failure(0, failure(Class::Quota), NO_OTHER_KEY, now, 0.0);
    assert_eq!(plan.next(now, 0.0), NextAction::Call(1));
}

#[test]
fn a_rate_limit_costs_no_attempt() {
    let (mut plan, mut now) = plan_of(1);
    for _ in 0..50 {
        while let NextAction::Wait(until) = plan.next(now, 0.0) {
            now = until;
        }
        plan.record_failure(0, failure(Class::RateLimit), OTHER_KEY, now, 0.0);
    }
    assert!(matches!(plan.next(now, 0.0), NextAction::Wait(_)));
}

#[test]
fn a_plan_with_only_open_breakers_waits_for_the_first_of_them() {
    let (mut plan, now) = plan_of(2);
    let at = |seconds| Some(now + Duration::from_secs(seconds));
    assert_eq!(plan.next(now, 0.0), NextAction::Call(0));
    plan.record_rejection(0, &Rejection::BreakerOpen { until: at(20) }, now, 0.0);
    assert_eq!(plan.next(now, 0.0), NextAction::Call(1));
    plan.record_rejection(1, &Rejection::BreakerOpen { until: at(8) }, now, 0.0);
    assert_eq!(plan.next(now, 0.0), NextAction::Wait(now + Duration::from_secs(8)));
    assert_eq!(plan.next(now + Duration::from_secs(8), 0.0), NextAction::Call(1));
}

#[test]
fn a_failed_target_is_retried_before_one_whose_breaker_is_open_for_long() {
    let (mut plan, now) = plan_of(2);
    assert_eq!(plan.next(now, 0.0), NextAction::Call(0));
    plan.record_rejection(
        0,
        &Rejection::BreakerOpen { until: Some(now + Duration::from_secs(60)) },
        now,
        0.0,
    );
    assert_eq!(plan.next(now, 0.0), NextAction::Call(1));
    plan.record_failure(1, failure(Class::NetworkError), OTHER_KEY, now, 0.0);
    let NextAction::Wait(until) = plan.next(now, 0.0) else { panic!("it does not wait") };
    assert!(until < now + Duration::from_secs(5), "{:?}", until - now);
    assert_eq!(plan.next(until, 0.0), NextAction::Call(1));
}

/// Continues a plan whose further calls all fail with `class`, and returns the targets that were called.
fn remaining_calls(plan: &mut RetryPlan, mut now: Instant, class: Class) -> Vec<usize> {
    let mut calls = Vec::new();
    loop {
        match plan.next(now, 0.0) {
            NextAction::Call(target) => {
                calls.push(target);
                plan.record_failure(target, failure(class), OTHER_KEY, now, 0.0);
            }
            NextAction::Wait(until) => now = until,
            NextAction::Fail(_) => return calls,
        }
    }
}

#[test]
fn a_target_that_timed_out_is_called_again_only_after_all_rounds_of_the_others() {
    let (mut plan, now) = plan_of(2);
    assert_eq!(plan.next(now, 0.0), NextAction::Call(0));
    plan.record_failure(0, failure(Class::Timeout), OTHER_KEY, now, 0.0);
    assert_eq!(remaining_calls(&mut plan, now, Class::ServerError), [1, 1, 1, 1, 1, 1, 0, 0]);
}

#[test]
fn a_target_that_timed_out_is_not_called_again_while_the_breaker_of_another_is_open() {
    let (mut plan, now) = plan_of(2);
    assert_eq!(plan.next(now, 0.0), NextAction::Call(0));
    plan.record_failure(0, failure(Class::Timeout), OTHER_KEY, now, 0.0);
    assert_eq!(plan.next(now, 0.0), NextAction::Call(1));
    let until = now + Duration::from_secs(60);
    plan.record_rejection(1, &Rejection::BreakerOpen { until: Some(until) }, now, 0.0);
    assert_eq!(plan.next(now, 0.0), NextAction::Wait(until));
    assert_eq!(plan.next(until, 0.0), NextAction::Call(1));
    // The wait took no round.
    plan.record_failure(1, failure(Class::NetworkError), OTHER_KEY, until, 0.0);
    assert_eq!(remaining_calls(&mut plan, until, Class::NetworkError), [1, 1, 1, 1, 1, 0, 0]);
}

#[test]
fn a_target_that_timed_out_is_called_again_if_the_others_recover_after_the_deadline() {
    let (mut plan, now) = plan_of(2);
    assert_eq!(plan.next(now, 0.0), NextAction::Call(0));
    plan.record_failure(0, failure(Class::Timeout), OTHER_KEY, now, 0.0);
    assert_eq!(plan.next(now, 0.0), NextAction::Call(1));
    plan.record_rejection(
        1,
        &Rejection::BreakerOpen { until: Some(now + Duration::from_secs(3_600)) },
        now,
        0.0,
    );
    let NextAction::Wait(until) = plan.next(now, 0.0) else { panic!("the request failed") };
    assert_eq!(plan.next(until, 0.0), NextAction::Call(0));
}

#[test]
fn targets_that_all_timed_out_are_called_in_rounds() {
    assert_eq!(calls_until_failure(1, Class::Timeout).len(), 6);
    let two = calls_until_failure(2, Class::Timeout);
    assert_eq!((two[..2].to_vec(), two.contains(&1)), (vec![0, 1], true));
    assert!(two.iter().filter(|target| **target == 0).count() >= 3, "{two:?}");
}

#[test]
fn a_probe_costs_its_request_no_attempt() {
    let (mut plan, mut now) = plan_of(1);
    for _ in 0..20 {
        assert_eq!(plan.next(now, 0.0), NextAction::Call(0));
        plan.record_failure(0, failure(Class::NetworkError), (HasOtherKey(true), IsProbe(true)), now, 0.0);
        let NextAction::Wait(until) = plan.next(now, 0.0) else { panic!("the request failed") };
        now = until;
    }
}

#[test]
fn a_target_that_has_never_answered_is_not_awaited_until_the_deadline() {
    let (mut plan, start) = plan_of(1);
    let mut now = start;
    let mut rejections = 0;
    loop {
        match plan.next(now, 0.5) {
            NextAction::Call(target) => {
                rejections += 1;
                plan.record_rejection(
                    target,
                    &Rejection::NeverAnswered(failure(Class::NetworkError)),
                    now,
                    0.5,
                );
            }
            NextAction::Wait(until) => now = until,
            NextAction::Fail(end) => {
                assert_eq!((end.failure.class, rejections), (Class::NetworkError, 3));
                return assert!(now - start < Duration::from_secs(10), "{:?}", now - start);
            }
        }
    }
}

/// Continues a plan whose targets all reject their calls with `rejection`, and returns when and why it failed.
fn reject_all(plan: &mut RetryPlan, mut now: Instant, rejection: &Rejection) -> (Instant, Failure) {
    loop {
        match plan.next(now, 0.5) {
            NextAction::Call(target) => plan.record_rejection(target, rejection, now, 0.5),
            NextAction::Wait(until) => now = until,
            NextAction::Fail(end) => return (now, end.failure),
        }
    }
}

#[test]
fn a_request_whose_provider_actors_are_all_down_fails_within_seconds() {
    let down = failure(Class::Internal);
    for targets in [1, 3] {
        let (mut plan, start) = plan_of(targets);
        let (end, failure) = reject_all(&mut plan, start, &Rejection::ActorDown(down.clone()));
        assert_eq!(failure, down);
        assert!(end - start < Duration::from_secs(10), "{:?}", end - start);
    }
}

#[test]
fn a_restarting_provider_actor_is_awaited() {
    let (mut plan, start) = plan_of(1);
    let (end, failure) = reject_all(&mut plan, start, &Rejection::ActorRestarting);
    assert_eq!(failure.class, Class::Deadline);
    assert!(end - start > Duration::from_secs(595), "{:?}", end - start);
}

#[test]
fn a_provider_actor_that_is_down_neither_delays_nor_replaces_the_failure_of_the_others() {
    let (mut plan, start) = plan_of(2);
    let mut now = start;
    let mut calls = 0;
    let failure = loop {
        match plan.next(now, 0.5) {
            NextAction::Call(0) => {
                plan.record_rejection(0, &Rejection::ActorDown(failure(Class::Internal)), now, 0.5)
            }
            NextAction::Call(target) => {
                calls += 1;
                plan.record_failure(target, failure(Class::ServerError), NO_OTHER_KEY, now, 0.5);
            }
            NextAction::Wait(until) => now = until,
            NextAction::Fail(end) => break end.failure,
        }
    };
    assert_eq!((failure.class, calls), (Class::ServerError, 6));
    assert!(now - start < Duration::from_secs(20), "{:?}", now - start);
}

#[test]
fn a_wait_beyond_the_deadline_fails_at_once() {
    let now = Instant::now();
    let mut plan = RetryPlan::new(
        targets_of_distinct_providers(1),
        RetrySettings::default(),
        now + Duration::from_secs(5),
    );
    assert_eq!(plan.next(now, 0.0), NextAction::Call(0));
    plan.record_rejection(0, &Rejection::Busy { until: now + Duration::from_secs(60) }, now, 0.0);
    assert!(matches!(plan.next(now, 0.0), NextAction::Fail(end) if end.failure.class == Class::Deadline));
}

#[test]
fn a_call_is_a_retry_after_its_provider_has_failed_the_request() {
    for (class, retry) in [
        (Class::ServerError, true),
        (Class::NetworkError, true),
        (Class::Timeout, true),
        (Class::Unreadable, true),
        (Class::RateLimit, false),
        (Class::Quota, false),
        (Class::Auth, false),
        (Class::NotFound, false),
        (Class::TooLong, false),
    ] {
        let (mut plan, now) = plan_for_providers(&["a", "a", "b"]);
        assert!(!plan.is_retry(0));
        plan.record_failure(0, failure(class), OTHER_KEY, now, 0.0);
        // A call to the other model of the same provider is a retry, too; one to another provider is not.
        let is_retry = [0, 1, 2].map(|target| plan.is_retry(target));
        assert_eq!(is_retry, [retry, retry, false], "{class}");
    }
    let (mut plan, now) = plan_for_providers(&["a"]);
    plan.record_rejection(0, &Rejection::BreakerOpen { until: None }, now, 0.0);
    assert!(!plan.is_retry(0), "the call was not sent");
}

#[test]
fn an_exhausted_retry_budget_costs_no_attempt_and_fails_over() {
    let (mut plan, now) = plan_of(2);
    let until = now + Duration::from_secs(7);
    assert_eq!(plan.next(now, 0.0), NextAction::Call(0));
    plan.record_failure(0, failure(Class::ServerError), OTHER_KEY, now, 0.0);
    let NextAction::Wait(now) = plan.next(now, 0.0) else { panic!("it does not back off") };
    assert_eq!(plan.next(now, 0.0), NextAction::Call(0));
    plan.record_rejection(0, &Rejection::RetryBudgetExhausted { until }, now, 0.0);
    assert_eq!(plan.next(now, 0.0), NextAction::Call(1));
    plan.record_failure(1, failure(Class::ApiError), OTHER_KEY, now, 0.0);
    assert!(matches!(plan.next(now, 0.0), NextAction::Fail(_)));
}

#[test]
fn an_exhausted_retry_budget_is_awaited_if_there_is_no_other_target() {
    let (mut plan, now) = plan_of(1);
    let until = now + Duration::from_secs(7);
    assert_eq!(plan.next(now, 0.0), NextAction::Call(0));
    for _ in 0..20 {
        plan.record_rejection(0, &Rejection::RetryBudgetExhausted { until }, now, 0.0);
        assert_eq!(plan.next(now, 0.0), NextAction::Wait(until));
        assert_eq!(plan.next(until, 0.0), NextAction::Call(0));
    }
    // The jitter spreads the requests that wait for the same instant.
    plan.record_rejection(0, &Rejection::RetryBudgetExhausted { until }, now, 1.0);
    assert_eq!(plan.next(now, 0.0), NextAction::Wait(until + Duration::from_millis(250)));
}

#[test]
fn a_target_is_the_only_option_if_no_other_is_usable() {
    let all_healthy = |_: usize| true;
    let (single, now) = plan_of(1);
    assert!(single.is_only_option_now(0, now, all_healthy) && single.is_only_option(0));
    let (two, now) = plan_of(2);
    assert!(!two.is_only_option_now(0, now, all_healthy) && !two.is_only_option(0));
    assert!(two.is_only_option_now(0, now, |target| target != 1), "the other is not healthy");
    assert!(!two.is_only_option(0), "the other may recover");
    let options_after = |event: &dyn Fn(&mut RetryPlan, Instant)| {
        let (mut plan, now) = plan_of(2);
        event(&mut plan, now);
        (plan.is_only_option_now(0, now, all_healthy), plan.is_only_option(0))
    };
    let until = now + Duration::from_secs(60);
    let rejection = Rejection::BreakerOpen { until: Some(until) };
    assert_eq!(options_after(&|plan, now| plan.record_rejection(1, &rejection, now, 0.0)), (true, false));
    assert_eq!(
        options_after(&|plan, now| plan.record_failure(1, failure(Class::Quota), NO_OTHER_KEY, now, 0.0)),
        (true, true)
    );
    assert_eq!(
        options_after(&|plan, now| plan.record_failure(1, failure(Class::Timeout), OTHER_KEY, now, 0.0)),
        (true, true)
    );
    assert_eq!(
        options_after(&|plan, now| plan.record_failure(1, failure(Class::NetworkError), OTHER_KEY, now, 0.0)),
        (true, false)
    );
    assert_eq!(
        options_after(&|plan, now| plan.record_failure(1, failure(Class::RateLimit), OTHER_KEY, now, 0.0)),
        (false, false)
    );
}

#[test]
fn a_long_requested_wait_fails_over_if_another_target_is_eligible() {
    for class in [Class::RateLimit, Class::Overloaded, Class::ServerError] {
        let failure_with_wait =
            |seconds| Failure { retry_after: Some(Duration::from_secs(seconds)), ..failure(class) };
        let (mut two, now) = plan_of(2);
        assert_eq!(two.next(now, 0.0), NextAction::Call(0));
        two.record_failure(0, failure_with_wait(60), OTHER_KEY, now, 0.0);
        assert_eq!(two.next(now, 0.0), NextAction::Call(1), "{class}");
        two.record_failure(1, failure(Class::NotFound), OTHER_KEY, now, 0.0);
        assert_eq!(two.next(now, 0.0), NextAction::Wait(now + Duration::from_secs(60)), "{class}");
        assert_eq!(two.next(now + Duration::from_secs(60), 0.0), NextAction::Call(0), "{class}");
        let (mut short, now) = plan_of(2);
        assert_eq!(short.next(now, 0.0), NextAction::Call(0));
        short.record_failure(0, failure_with_wait(2), OTHER_KEY, now, 0.0);
        let action = short.next(now, 0.0);
        let stays = class == Class::RateLimit && action == NextAction::Call(0);
        assert!(stays || action == NextAction::Wait(now + Duration::from_secs(2)), "{class}: {action:?}");
    }
}

#[test]
fn an_implausibly_long_requested_wait_is_ignored() {
    let (mut plan, now) = plan_of(1);
    assert_eq!(plan.next(now, 0.0), NextAction::Call(0));
    let years = Failure { retry_after: Some(Duration::MAX), ..failure(Class::ServerError) };
    plan.record_failure(0, years, OTHER_KEY, now, 1.0);
    assert_eq!(plan.next(now, 0.0), NextAction::Wait(now + Duration::from_millis(500)));
}

#[test]
fn a_prompt_that_is_too_long_fails_over_to_targets_with_a_larger_or_unknown_context() {
    let targets_called = |tokens: [u64; 4]| {
        let windows = tokens.map(NonZeroU64::new);
        let targets = windows.map(|context_window| Candidate { provider: "p".into(), context_window });
        let (mut plan, now) = plan_with(targets, RetrySettings::default());
        remaining_calls(&mut plan, now, Class::TooLong)
    };
    // Zero means unknown.
    assert_eq!(targets_called([8_000, 4_000, 8_000, 200_000]), [0, 3]);
    assert_eq!(targets_called([8_000, 0, 8_000, 4_000]), [0, 1]);
    assert_eq!(targets_called([0, 4_000, 8_000, 0]), [0, 1, 2, 3]);
}

#[test]
fn a_failure_of_a_target_with_a_larger_context_is_reported_before_too_long() {
    for class in [Class::NetworkError, Class::ServerError, Class::Overloaded, Class::Quota, Class::Auth] {
        for first in [0, 1] {
            let (mut plan, mut now) = plan_of(2);
            let end = loop {
                match plan.next(now, 0.5) {
                    NextAction::Call(target) => {
                        let class = if target == first { class } else { Class::TooLong };
                        plan.record_failure(target, failure(class), NO_OTHER_KEY, now, 0.5);
                    }
                    NextAction::Wait(until) => now = until,
                    NextAction::Fail(end) => break end,
                }
            };
            assert_eq!((end.failure.class, end.target), (class, Some(first)), "{class}");
        }
    }
    let (mut plan, now) = plan_of(2);
    plan.record_failure(1, failure(Class::TooLong), NO_OTHER_KEY, now, 0.0);
    plan.record_rejection(
        0,
        &Rejection::BreakerOpen { until: Some(now + Duration::from_hours(1)) },
        now,
        0.0,
    );
    let NextAction::Fail(end) = plan.next(now, 0.0) else { panic!("it waits") };
    assert_eq!((end.failure.class, end.target), (Class::Deadline, None), "its breaker is open");
}

/// Runs a plan in which these targets refuse the request before it is sent and all others fail with `class`. Returns
/// the targets that were called and the failure.
fn calls_with_unsupported(
    targets: usize,
    unsupported: &[usize],
    class: Class,
) -> (Vec<usize>, RequestFailure) {
    let (mut plan, mut now) = plan_of(targets);
    let mut calls = Vec::new();
    loop {
        match plan.next(now, 0.5) {
            NextAction::Call(target) if unsupported.contains(&target) => {
                calls.push(target);
                let refusal =
                    Failure::new(Class::ApiError, format!("{target}")).with_scope(FailureScope::Target);
                plan.record_rejection(target, &Rejection::Unsupported(refusal), now, 0.5);
            }
            NextAction::Call(target) => {
                calls.push(target);
                plan.record_failure(target, failure(class), NO_OTHER_KEY, now, 0.5);
            }
            NextAction::Wait(until) => now = until,
            NextAction::Fail(end) => return (calls, end),
        }
    }
}

#[test]
fn a_target_that_cannot_express_a_request_is_asked_once_and_the_others_are_called() {
    let (calls, end) = calls_with_unsupported(3, &[0, 1], Class::NotFound);
    assert_eq!((calls, end.failure.class, end.target), (vec![0, 1, 2], Class::NotFound, Some(2)));
    // Its refusal does not hide what happened at the other target before.
    let (calls, end) = calls_with_unsupported(2, &[1], Class::NetworkError);
    assert_eq!((end.failure.class, end.target), (Class::NetworkError, Some(0)));
    assert_eq!(calls.iter().filter(|target| **target == 1).count(), 1);
}

#[test]
fn a_request_that_no_target_can_express_fails_with_the_first_reason() {
    let (calls, end) = calls_with_unsupported(2, &[0, 1], Class::ServerError);
    let expected = (vec![0, 1], Class::ApiError, "0", Some(0));
    assert_eq!((calls, end.failure.class, &*end.failure.message, end.target), expected);
}

#[test]
fn a_refusal_before_the_call_does_not_end_a_request_while_another_target_is_down() {
    let (mut plan, now) = plan_of(2);
    let refusal = Failure::new(Class::ApiError, "no seed").with_scope(FailureScope::Target);
    plan.record_rejection(0, &Rejection::Unsupported(refusal), now, 0.0);
    let until = now + Duration::from_secs(30);
    plan.record_rejection(1, &Rejection::BreakerOpen { until: Some(until) }, now, 0.0);
    assert_eq!(plan.next(now, 0.0), NextAction::Wait(until));
    let until = now + Duration::from_hours(1);
    plan.record_rejection(1, &Rejection::BreakerOpen { until: Some(until) }, now, 0.0);
    let NextAction::Fail(end) = plan.next(now, 0.0) else { panic!("it waits") };
    assert_eq!((end.failure.class, end.target), (Class::Deadline, None));
}

#[test]
fn a_request_that_no_format_can_express_fails_at_once() {
    let (mut plan, now) = plan_of(2);
    let broken = failure(Class::ApiError);
    plan.record_rejection(0, &Rejection::Unsupported(broken.clone()), now, 0.0);
    assert_eq!(plan.next(now, 0.0), NextAction::Fail(RequestFailure { failure: broken, target: Some(0) }));
}

#[test]
fn an_answer_with_an_invalid_tool_call_is_requested_once_again_at_each_target() {
    let invalid = || failure(Class::ValidationError).with_scope(FailureScope::Answer);
    let calls_of = |failure: Failure| {
        let (mut plan, mut now) = plan_of(2);
        let mut calls = Vec::new();
        loop {
            match plan.next(now, 0.5) {
                NextAction::Call(target) => {
                    calls.push(target);
                    plan.record_failure(target, failure.clone(), NO_OTHER_KEY, now, 0.5);
                }
                NextAction::Wait(until) => now = until,
                NextAction::Fail(end) => break (calls, end.failure.class),
            }
        }
    };
    let (calls, class) = calls_of(invalid().with_cause(Cause::InvalidToolCall));
    assert_eq!((calls, class), (vec![0, 0, 1, 1], Class::ValidationError));
    // An output that the provider itself rejects differs at each attempt.
    assert!(calls_of(invalid()).0.len() > 4);
}

#[test]
fn a_refusal_is_final_unless_failover_of_refusals_is_enabled() {
    assert_eq!(calls_until_failure(3, Class::ContentFilter), [0]);
    let retry = RetrySettings { failover_refusals: true, ..RetrySettings::default() };
    let (mut plan, now) = plan_with(targets_of_distinct_providers(3), retry);
    assert_eq!(remaining_calls(&mut plan, now, Class::ContentFilter), [0, 1, 2]);
    let (mut plan, now) = plan_with(targets_of_distinct_providers(3), retry);
    assert_eq!(remaining_calls(&mut plan, now, Class::ApiError), [0], "an API error is not a refusal");
}

#[test]
fn a_hedge_prefers_targets_of_other_providers() {
    let (mut plan, now) = plan_for_providers(&["a", "a", "b", "c", "c"]);
    assert_eq!(plan.hedge_candidates(0, now), [2, 3, 4, 1]);
    plan.record_failure(2, failure(Class::Timeout), OTHER_KEY, now, 0.0);
    plan.record_rejection(3, &Rejection::BreakerOpen { until: None }, now, 0.0);
    plan.exclude(4, failure(Class::ApiError));
    assert_eq!(plan.hedge_candidates(0, now), [1]);
}

#[test]
fn a_hedge_counts_toward_the_maximum_number_of_targets() {
    let retry = RetrySettings { max_targets: std::num::NonZeroU32::MIN, ..RetrySettings::default() };
    let (plan, now) = plan_with(targets_of_distinct_providers(2), retry);
    assert!(plan.hedge_candidates(0, now).is_empty());
}

#[test]
fn a_hedge_that_fails_by_the_request_excludes_only_its_own_target() {
    let (mut plan, now) = plan_of(2);
    assert_eq!(plan.next(now, 0.0), NextAction::Call(0));
    plan.exclude(1, failure(Class::ApiError));
    assert!(!plan.is_over());
    plan.record_failure(0, failure(Class::ServerError), OTHER_KEY, now, 0.0);
    assert!(remaining_calls(&mut plan, now, Class::ServerError).iter().all(|target| *target == 0));
}

#[test]
fn the_failures_of_a_call_and_its_hedge_are_both_recorded() {
    let (mut plan, now) = plan_of(3);
    assert_eq!(plan.next(now, 0.0), NextAction::Call(0));
    assert_eq!(plan.hedge_candidates(0, now)[0], 1);
    plan.record_failure(1, failure(Class::NetworkError), OTHER_KEY, now, 0.0);
    plan.record_failure(0, failure(Class::NetworkError), OTHER_KEY, now, 0.0);
    assert_eq!(plan.next(now, 0.0), NextAction::Call(2));
}

proptest! {
    #[test]
    fn every_plan_ends_before_its_deadline(
        targets in 1usize..5,
        events in proptest::collection::vec((0u8..9, 0u64..5_000), 0..400),
    ) {
        let (mut plan, start) = plan_of(targets);
        let mut now = start;
        let mut events = events.into_iter();
        let mut calls = vec![0; targets];
        for _ in 0..100_000 {
            match plan.next(now, 0.5) {
                NextAction::Wait(until) => {
                    prop_assert!(until > now && until < start + Duration::from_secs(600));
                    now = until;
                }
                NextAction::Fail(_) => return Ok(()),
                NextAction::Call(target) => {
                    calls[target] += 1;
                    let (event, took) = events.next().unwrap_or((0, 10));
                    now += Duration::from_millis(took);
                    match event {
                        0 => plan.record_failure(target, failure(Class::ServerError), OTHER_KEY, now, 0.5),
                        1 => plan.record_failure(target, failure(Class::NetworkError), OTHER_KEY, now, 0.5),
                        2 => plan.record_failure(target, failure(Class::Timeout), OTHER_KEY, now, 0.5),
                        3 => plan.record_failure(target, failure(Class::Auth), NO_OTHER_KEY, now, 0.5),
                        4 => plan.record_rejection(target, &Rejection::BreakerOpen { until: None }, now, 0.5),
                        5 => plan.record_rejection(target, &Rejection::ActorRestarting, now, 0.5),
                        6 => plan.record_rejection(target, &Rejection::Busy { until: now }, now, 0.5),
                        7 => {
                            let probe = (HasOtherKey(true), IsProbe(true));
                            plan.record_failure(target, failure(Class::Timeout), probe, now, 0.5);
                        }
                        8 => {
                            let rejection = Rejection::ActorDown(failure(Class::Internal));
                            plan.record_rejection(target, &rejection, now, 0.5);
                        }
                        _ => plan.record_failure(target, failure(Class::Unreadable), OTHER_KEY, now, 0.5),
                    }
                }
            }
        }
        prop_assert!(false, "the plan does not end: {calls:?}");
    }
}

#[test]
fn a_target_that_rejects_all_calls_does_not_delay_the_next_round_of_the_other() {
    let (mut plan, mut now) = plan_of(2);
    let start = now;
    let mut calls = 0;
    loop {
        match plan.next(now, 0.5) {
            NextAction::Call(0) => plan.record_rejection(0, &Rejection::ActorRestarting, now, 0.5),
            NextAction::Call(target) => {
                calls += 1;
                plan.record_failure(target, failure(Class::NetworkError), NO_OTHER_KEY, now, 0.5);
            }
            NextAction::Wait(until) => now = until,
            NextAction::Fail(_) => break,
        }
    }
    // One call in each of three rounds, with the backoff between them.
    assert!(calls >= 3, "{calls} calls");
    assert!(now - start >= Duration::from_secs(2));
}

#[test]
fn repeated_rate_limits_fail_over_to_a_ready_target() {
    let (mut plan, mut now) = plan_of(2);
    let mut rate_limit = failure(Class::RateLimit);
    rate_limit.retry_after = Some(Duration::from_millis(100));
    let mut targets = Vec::new();
    while targets.len() < 5 {
        match plan.next(now, 0.5) {
            NextAction::Call(target) => {
                targets.push(target);
                plan.record_failure(target, rate_limit.clone(), OTHER_KEY, now, 0.5);
            }
            NextAction::Wait(until) => now = until,
            NextAction::Fail(end) => panic!("{end:?}"),
        }
    }
    assert_eq!(targets, [0, 0, 0, 0, 1]);
}

fn budget_rejection(for_all_targets: bool) -> Rejection {
    Rejection::Budget { failure: failure(Class::Budget), for_all_targets }
}

#[test]
fn an_exhausted_provider_budget_fails_over_and_an_exhausted_run_budget_ends_the_request() {
    let (mut plan, now) = plan_of(3);
    plan.record_rejection(0, &budget_rejection(false), now, 0.0);
    assert_eq!(plan.next(now, 0.0), NextAction::Call(1));
    plan.record_rejection(1, &Rejection::Busy { until: now }, now, 0.0);
    plan.record_rejection(2, &budget_rejection(true), now, 0.0);
    assert_eq!(plan.next(now, 0.0), NextAction::Fail(failure(Class::Budget).into()));
}

#[test]
fn a_request_fails_for_its_budget_only_if_every_target_is_excluded() {
    let (mut both, now) = plan_of(2);
    both.record_rejection(0, &Rejection::NoUsableKey(failure(Class::Auth)), now, 0.0);
    both.record_rejection(1, &budget_rejection(false), now, 0.0);
    assert_eq!(
        both.next(now, 0.0),
        NextAction::Fail(RequestFailure { failure: failure(Class::Budget), target: Some(1) })
    );
    let (mut other, mut now) = plan_of(2);
    other.record_rejection(0, &budget_rejection(false), now, 0.0);
    loop {
        match other.next(now, 0.0) {
            NextAction::Call(target) => {
                assert_eq!(target, 1);
                other.record_failure(1, failure(Class::ServerError), OTHER_KEY, now, 0.0);
            }
            NextAction::Wait(until) => now = until,
            NextAction::Fail(end) => return assert_eq!(end.failure, failure(Class::ServerError)),
        }
    }
}

#[test]
fn the_failure_of_a_request_names_the_target_that_caused_it() {
    let (mut plan, now) = plan_of(2);
    plan.record_rejection(0, &Rejection::NoUsableKey(failure(Class::Auth)), now, 0.0);
    plan.record_rejection(1, &Rejection::NoUsableKey(failure(Class::Auth)), now, 0.0);
    assert_eq!(
        plan.next(now, 0.0),
        NextAction::Fail(RequestFailure { failure: failure(Class::Auth), target: Some(0) })
    );

    let (mut late, now) = plan_of(1);
    let after_deadline = now + Duration::from_secs(601);
    assert!(matches!(late.next(after_deadline, 0.0), NextAction::Fail(RequestFailure { target: None, .. })));
}

#[test]
fn a_request_that_exceeds_the_limit_of_a_target_fails_over_to_targets_of_any_context_and_ends_without_one() {
    for class in [Class::RateLimit, Class::TooLong] {
        let equal_windows = targets_of_distinct_providers(2)
            .map(|target| Candidate { context_window: NonZeroU64::new(8_000), ..target });
        let (mut plan, now) = plan_with(equal_windows, RetrySettings::default());
        let too_large = failure(class).with_scope(FailureScope::Target);
        assert_eq!(plan.next(now, 0.5), NextAction::Call(0));
        plan.record_failure(0, too_large.clone(), NO_OTHER_KEY, now, 0.5);
        assert_eq!(plan.next(now, 0.5), NextAction::Call(1), "{class}");
        plan.record_failure(1, too_large.clone(), NO_OTHER_KEY, now, 0.5);
        assert_eq!(
            plan.next(now, 0.5),
            NextAction::Fail(RequestFailure { failure: too_large, target: Some(1) })
        );
    }
}

#[test]
fn the_wait_of_a_request_grows_with_repeated_rate_limits() {
    let (mut plan, start) = plan_of(1);
    let mut now = start;
    let mut times = Vec::new();
    while times.len() < 10 {
        match plan.next(now, 0.5) {
            NextAction::Call(_) => {
                times.push((now - start).as_secs());
                plan.record_failure(0, failure(Class::RateLimit), NO_OTHER_KEY, now, 0.5);
            }
            NextAction::Wait(until) => now = until,
            NextAction::Fail(end) => panic!("{end:?}"),
        }
    }
    // The first retry has no wait of its own: the provider state delays the call.
    assert_eq!(times[..2], [0; 2]);
    assert!(times[9] >= 20, "{times:?}");
}
