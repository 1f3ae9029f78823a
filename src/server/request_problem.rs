//! How the failure of a request is answered: its class decides the status.

use std::time::Duration;

use crate::clock;
use crate::types::{Cause, Class, RequestError, error_chain};

use super::problem::{Problem, ProblemType};

const SECONDS_PER_DAY: i64 = 24 * 60 * 60;

/// How long a caller waits before it sends a request again that the daemon cancelled, in seconds.
const RESTART_WAIT: u64 = 5;

/// How long a caller waits before it sends a request again whose targets an operator has taken out of service, in seconds.
const OPERATOR_WAIT: u64 = 30;

/// What a caller learns of a failure of the daemon's own account. What the provider says is in the log: it may name the
/// account.
const ACCOUNT_DETAIL: &str = "no account of the daemon at a provider can be used now";

impl Problem {
    /// Returns the problem of a request that no target answered.
    pub(super) fn of_request(error: &RequestError) -> Self {
        let class = error.class();
        if error.failure.cause == Some(Cause::OutOfService) {
            return Self::out_of_service(error);
        }
        if class == Class::Internal || is_of_account(class) {
            tracing::error!(error = %error_chain(error), "a request was not answered");
        }
        let detail = if is_of_account(class) { ACCOUNT_DETAIL } else { &*error.failure.message };
        let problem = Self::new(ProblemType::Request(class), detail);
        match retry_after(error) {
            Some(seconds) => problem.with_retry_after(seconds),
            None => problem,
        }
    }

    /// Returns the problem of a request whose targets an operator has taken out of service. No provider has failed.
    fn out_of_service(error: &RequestError) -> Self {
        let message = &error.failure.message;
        let detail = match &error.target {
            Some(target) => format!("{target}: {message}"),
            None => message.to_string(),
        };
        let problem = Self::new(ProblemType::Unavailable, detail).with_retry_after(OPERATOR_WAIT);
        problem.with_advice(
            "an operator resumes the provider, closes the breaker or changes the configuration; or use another route",
        )
    }
}

/// Returns whether the daemon's account at a provider is the cause.
fn is_of_account(class: Class) -> bool {
    matches!(class, Class::Auth | Class::Quota)
}

/// Returns after how many seconds the request may succeed, if waiting helps.
fn retry_after(error: &RequestError) -> Option<u64> {
    let wait = error.expected_wait.or(error.failure.retry_after).map(whole_seconds);
    match error.class() {
        Class::RateLimit => Some(wait.unwrap_or(1)),
        // No day admits it.
        Class::Budget if error.failure.cause == Some(Cause::NeverWithinBudget) => None,
        Class::Budget => Some(seconds_until_midnight(clock::milliseconds())),
        Class::Cancelled => Some(RESTART_WAIT),
        Class::Quota | Class::Auth | Class::Overloaded => wait,
        Class::ServerError
        | Class::NetworkError
        | Class::Timeout
        | Class::Unreadable
        | Class::NotFound
        | Class::TooLong
        | Class::ContentFilter
        | Class::ApiError
        | Class::Truncated
        | Class::ValidationError
        | Class::TemplateError
        | Class::Deadline
        | Class::Internal => None,
    }
}

/// Returns a wait in seconds, rounded up, and at least one.
fn whole_seconds(wait: Duration) -> u64 {
    let rounded = wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0));
    rounded.max(1)
}

/// Returns the seconds until the next day in UTC, when daily budgets begin again.
fn seconds_until_midnight(milliseconds: i64) -> u64 {
    let passed = milliseconds.div_euclid(1_000).rem_euclid(SECONDS_PER_DAY);
    (SECONDS_PER_DAY - passed).unsigned_abs()
}

#[cfg(test)]
mod tests {
    use actix_web::ResponseError;
    use actix_web::http::header::RETRY_AFTER;

    use super::*;
    use crate::server::request_status::status_of;
    use crate::types::{Failure, TargetName};

    #[test]
    fn no_failure_of_a_request_is_answered_as_if_it_were_one_of_the_callers_token() {
        for class in Class::ALL {
            let status = status_of(class).as_u16();
            assert!(![401, 402, 403, 404, 413].contains(&status) && status >= 400, "{class}: {status}");
        }
    }

    #[test]
    fn what_a_provider_says_of_the_account_is_not_passed_on() {
        for class in [Class::Auth, Class::Quota] {
            let error = RequestError::from(Failure::new(class, "organization org-1 has no credit"));
            let problem = Problem::of_request(&error);
            assert_eq!((problem.status, problem.class), (503, class.as_str()));
            assert!(!problem.detail.contains("org-1"));
        }
    }

    #[test]
    fn a_target_that_an_operator_has_taken_out_of_service_is_named_and_is_no_failure_of_a_provider() {
        let failure = Failure::new(Class::NetworkError, "its breaker was opened by hand");
        let mut error = RequestError::from(failure.with_cause(Cause::OutOfService));
        error.target = Some(TargetName { provider: "a".into(), model: "m".into() });
        let problem = Problem::of_request(&error);
        assert_eq!((problem.status, problem.class), (503, "unavailable"));
        assert_eq!(&*problem.detail, "a/m: its breaker was opened by hand");
        assert!(problem.advice.is_some());
        assert_eq!(problem.error_response().headers().get(RETRY_AFTER).unwrap(), "30");
    }

    #[test]
    fn a_caller_learns_how_long_to_wait() {
        let header = |class: Class, wait: Option<Duration>| {
            let mut error = RequestError::from(Failure::new(class, "wait"));
            error.expected_wait = wait;
            let response = Problem::of_request(&error).error_response();
            response.headers().get(RETRY_AFTER).map(|value| value.to_str().unwrap().to_owned())
        };
        assert_eq!(header(Class::RateLimit, Some(Duration::from_millis(1_200))).as_deref(), Some("2"));
        assert_eq!(header(Class::RateLimit, None).as_deref(), Some("1"));
        assert_eq!(header(Class::ContentFilter, Some(Duration::from_secs(9))), None);
        let until_midnight: u64 = header(Class::Budget, None).unwrap().parse().unwrap();
        assert!((1..=86_400).contains(&until_midnight));
        let mut never =
            RequestError::from(Failure::new(Class::Budget, "the call alone is likely to cost $2.00"));
        never.failure.cause = Some(Cause::NeverWithinBudget);
        let response = Problem::of_request(&never).error_response();
        assert_eq!((response.status().as_u16(), response.headers().get(RETRY_AFTER)), (429, None));
        assert_eq!(seconds_until_midnight(86_399_001), 1);
        assert_eq!(seconds_until_midnight(0), 86_400);
    }
}
