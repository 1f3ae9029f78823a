//! How the failure of a request is answered: its class decides the status.

use std::time::Duration;

use actix_web::http::StatusCode;

use crate::clock;
use crate::types::{Class, RequestError, error_chain};

use super::problem::Problem;

const SECONDS_PER_DAY: i64 = 24 * 60 * 60;

/// How long a caller waits before it sends a request again that the daemon cancelled, in seconds.
const RESTART_WAIT: u64 = 5;

/// What a caller learns of a failure of the daemon's own account. What the provider says is in the log: it may name the
/// account.
const ACCOUNT_DETAIL: &str = "no account of the daemon at a provider can be used now";

impl Problem {
    /// Returns the problem of a request that no target answered.
    pub(super) fn of_request(error: &RequestError) -> Self {
        let class = error.class();
        let status = status(class);
        if status == StatusCode::INTERNAL_SERVER_ERROR || is_of_account(class) {
            tracing::error!(error = %error_chain(error), "a request was not answered");
        }
        let detail = if is_of_account(class) { ACCOUNT_DETAIL } else { &*error.failure.message };
        let problem = Self::new(status, class, detail);
        match retry_after(error) {
            Some(seconds) => problem.with_retry_after(seconds),
            None => problem,
        }
    }
}

/// Returns the status of a class. No `_` arm, so that a new class does not compile without a decision.
fn status(class: Class) -> StatusCode {
    match class {
        // A budget is one of a day: its caller has to wait, as for a rate limit.
        Class::RateLimit | Class::Budget => StatusCode::TOO_MANY_REQUESTS,
        // Not 401 or 402, which would be about the caller's token and money.
        Class::Quota | Class::Auth | Class::Overloaded | Class::Cancelled => StatusCode::SERVICE_UNAVAILABLE,
        Class::ServerError | Class::NetworkError | Class::Unreadable | Class::NotFound => {
            StatusCode::BAD_GATEWAY
        }
        Class::Timeout | Class::Deadline => StatusCode::GATEWAY_TIMEOUT,
        // Not 413, which would be about the size of the body.
        Class::TooLong | Class::ApiError => StatusCode::BAD_REQUEST,
        Class::ContentFilter | Class::Truncated | Class::ValidationError | Class::TemplateError => {
            StatusCode::UNPROCESSABLE_ENTITY
        }
        Class::Internal => StatusCode::INTERNAL_SERVER_ERROR,
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
    use crate::types::Failure;

    #[test]
    fn no_failure_of_a_request_is_answered_as_if_it_were_one_of_the_callers_token() {
        for class in Class::ALL {
            let status = status(class).as_u16();
            assert!(![401, 402, 403, 404, 413].contains(&status) && status >= 400, "{class}: {status}");
        }
    }

    #[test]
    fn what_a_provider_says_of_the_account_is_not_passed_on() {
        for class in [Class::Auth, Class::Quota] {
            let error = RequestError::from(Failure::new(class, "organization org-1 has no credit"));
            let problem = Problem::of_request(&error);
            assert_eq!((problem.status, problem.class), (503, class));
            assert!(!problem.detail.contains("org-1"));
        }
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
        assert_eq!(seconds_until_midnight(86_399_001), 1);
        assert_eq!(seconds_until_midnight(0), 86_400);
    }
}
