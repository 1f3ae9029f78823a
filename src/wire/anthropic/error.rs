//! Classification of Anthropic's errors, and parsing of its rate-limit headers.
//!
//! Never fails: an unreadable body is classified by the status.

use std::time::SystemTime;

use http::HeaderMap;
use serde_json::Value;

use crate::types::{Class, Failure};
use crate::wire::limit_status::read_limit_status;
use crate::wire::{RateLimitHeaders, error_body, http_error, phrases};

pub(in crate::wire) fn read_error(status: u16, headers: &HeaderMap, body: &[u8], now: SystemTime) -> Failure {
    apply_headers(error_body::classify_body(status, body, classify), headers, now)
}

/// Adds the wait from the headers. The header takes precedence over the message.
pub(in crate::wire) fn apply_headers(mut failure: Failure, headers: &HeaderMap, now: SystemTime) -> Failure {
    let limits = read_rate_limit_headers(headers, now);
    failure.retry_after = limits.retry_after.or(failure.retry_after);
    http_error::apply_headers(failure, &limits, now)
}

/// Parses `anthropic-ratelimit-*`, which are limits per minute. `-tokens-*` is the most restrictive token limit,
/// and remaining tokens are rounded to thousands. The headers of the priority tier (`anthropic-priority-*`) do
/// not apply to calls without it.
pub(in crate::wire) fn read_rate_limit_headers(headers: &HeaderMap, now: SystemTime) -> RateLimitHeaders {
    macro_rules! limit {
        ($of:literal) => {
            read_limit_status(
                headers,
                [
                    concat!("anthropic-ratelimit-", $of, "-limit"),
                    concat!("anthropic-ratelimit-", $of, "-remaining"),
                    concat!("anthropic-ratelimit-", $of, "-reset"),
                ],
                now,
            )
        };
    }
    let common = RateLimitHeaders::read_common(headers, now);
    RateLimitHeaders {
        requests: limit!("requests").or(common.requests),
        tokens: limit!("tokens"),
        input_tokens: limit!("input-tokens"),
        output_tokens: limit!("output-tokens"),
        ..common
    }
}

/// Classifies the `error` of a body, or of an event inside a stream, which has no status.
pub(super) fn classify(status: Option<u16>, error: &Value) -> Failure {
    let kind = error.get("type").and_then(Value::as_str).unwrap_or_default();
    let code = error.pointer("/details/error_code").and_then(Value::as_str);
    let message = error_body::error_message(error);
    let class_of_message = || phrases::class_of_message(&message.to_ascii_lowercase(), status);
    let class = match ErrorType::read(kind) {
        // Errors without a specific type, and those of gateways to other vendors, are classified by the message.
        Some(kind @ (ErrorType::InvalidRequest | ErrorType::Api)) => {
            let class = kind.class(code.unwrap_or_default(), message);
            if matches!(class, Class::ApiError | Class::ServerError) {
                class_of_message().unwrap_or(class)
            } else {
                class
            }
        }
        Some(kind) => kind.class(code.unwrap_or_default(), message),
        None => class_of_message()
            .unwrap_or_else(|| status.map_or(Class::ServerError, http_error::class_of_status)),
    };
    let message = if message.is_empty() { kind } else { message };
    let mut failure = http_error::failure(class, status, message);
    failure.code = code.or(Some(kind).filter(|kind| !kind.is_empty())).map(Box::from);
    failure
}

/// The error types of the vendor.
#[derive(Debug, Clone, Copy)]
enum ErrorType {
    InvalidRequest,
    Authentication,
    Billing,
    Permission,
    NotFound,
    Conflict,
    TooLarge,
    RateLimit,
    Api,
    Timeout,
    Overloaded,
}

impl ErrorType {
    fn read(name: &str) -> Option<Self> {
        Some(match name {
            "invalid_request_error" => Self::InvalidRequest,
            "authentication_error" => Self::Authentication,
            "billing_error" => Self::Billing,
            "permission_error" => Self::Permission,
            "not_found_error" => Self::NotFound,
            "conflict_error" => Self::Conflict,
            "request_too_large" => Self::TooLarge,
            "rate_limit_error" => Self::RateLimit,
            "api_error" => Self::Api,
            "timeout_error" => Self::Timeout,
            "overloaded_error" => Self::Overloaded,
            _ => return None,
        })
    }

    fn class(self, code: &str, message: &str) -> Class {
        match self {
            Self::InvalidRequest if is_out_of_credit(message) => Class::Quota,
            Self::InvalidRequest if is_too_long(message) => Class::TooLong,
            Self::InvalidRequest => Class::ApiError,
            Self::Authentication | Self::Permission => Class::Auth,
            Self::Billing => Class::Quota,
            Self::NotFound => Class::NotFound,
            Self::TooLarge => Class::TooLong,
            Self::RateLimit if code.ends_with("spend_limit_reached") || is_out_of_credit(message) => {
                Class::Quota
            }
            Self::RateLimit => Class::RateLimit,
            Self::Conflict | Self::Api | Self::Timeout => Class::ServerError,
            Self::Overloaded => Class::Overloaded,
        }
    }
}

/// Exhausted credit has no error type of its own: the status is 400, 402 or 429.
fn is_out_of_credit(message: &str) -> bool {
    phrases::contains_any(message, &["credit balance is too low", "API usage limits", "spend limit"])
}

fn is_too_long(message: &str) -> bool {
    phrases::contains_any(message, &["prompt is too long", "exceed context limit"])
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::types::{Charged, RateLimitStatus, RetryAction};
    use crate::wire::fixtures;

    #[test]
    fn every_recorded_error_is_classified() {
        let cases = [
            (400, "400_credit_balance", Class::Quota, Charged::No),
            (400, "400_invalid_request", Class::ApiError, Charged::No),
            (400, "400_prompt_too_long", Class::TooLong, Charged::No),
            (400, "400_temperature_removed", Class::ApiError, Charged::No),
            (401, "401_authentication", Class::Auth, Charged::No),
            (402, "402_billing", Class::Quota, Charged::No),
            (403, "403_permission", Class::Auth, Charged::No),
            (404, "404_model", Class::NotFound, Charged::No),
            (413, "413_too_large", Class::TooLong, Charged::No),
            (429, "429_rate_limit", Class::RateLimit, Charged::No),
            (429, "429_spend_limit", Class::Quota, Charged::No),
            (500, "500_api_error", Class::ServerError, Charged::Maybe),
            (504, "504_timeout", Class::ServerError, Charged::Maybe),
            (529, "overloaded", Class::Overloaded, Charged::No),
        ];
        for (status, name, class, charged) in cases {
            let body = fixtures::bytes(&format!("anthropic_error_{name}.json"));
            let failure = read_error(status, &HeaderMap::new(), &body, fixtures::arrival());
            assert_eq!(
                (failure.class, failure.charged, failure.status),
                (class, charged, Some(status)),
                "{name}"
            );
            let recorded = fixtures::json(&format!("anthropic_error_{name}.json"));
            assert_eq!(recorded.pointer("/error/message").unwrap(), &*failure.message, "{name}");
            assert!(failure.code.is_some(), "{name}");
        }
    }

    #[test]
    fn the_message_of_a_spend_limit_states_its_reset() {
        let body = fixtures::bytes("anthropic_error_429_spend_limit.json");
        let failure = read_error(429, &HeaderMap::new(), &body, fixtures::arrival());
        assert_eq!(failure.code.as_deref(), Some("enforced_spend_limit_reached"));
        assert_eq!(failure.retry_after, Some(Duration::from_hours(10 * 24 + 4)));
        assert_eq!(failure.retry_action(), RetryAction::Failover);
    }

    #[test]
    fn without_retry_after_the_wait_is_the_reset_of_the_exhausted_limit() {
        let body = fixtures::bytes("anthropic_error_429_rate_limit.json");
        let mut headers = fixtures::headers("anthropic_headers_429.json");
        headers.remove("retry-after");
        let failure = read_error(429, &headers, &body, fixtures::arrival());
        assert_eq!((failure.class, failure.retry_after), (Class::RateLimit, Some(Duration::from_secs(12))));
        headers.insert("anthropic-ratelimit-input-tokens-reset", "-1".parse().unwrap());
        assert_eq!(read_error(429, &headers, &body, fixtures::arrival()).retry_after, None);
    }

    #[test]
    fn a_rate_limit_is_retried_after_the_wait_of_the_header() {
        let body = fixtures::bytes("anthropic_error_429_rate_limit.json");
        let headers = fixtures::headers("anthropic_headers_429.json");
        let failure = read_error(429, &headers, &body, fixtures::arrival());
        assert_eq!(failure.retry_action(), RetryAction::Retry { after: Some(Duration::from_secs(12)) });
    }

    #[test]
    fn a_body_of_any_structure_is_classified() {
        let cases = [
            (502, "<html><title>Bad gateway</title></html>", Class::ServerError),
            (529, "", Class::Overloaded),
            (401, r#"{"error":"Unauthorized"}"#, Class::Auth),
            (
                400,
                r#"{"type":"error","error":{"type":"invalid_request_error","message":"input length and `max_tokens` exceed context limit: 1 + 2 > 2"}}"#,
                Class::TooLong,
            ),
            (429, r#"{"type":"error","error":{"type":"newer_error","message":"x"}}"#, Class::RateLimit),
            (
                429,
                r#"{"type":"error","error":{"type":"rate_limit_error","details":{"error_code":"ramp_limit_exceeded"}}}"#,
                Class::RateLimit,
            ),
            (418, "[1, 2]", Class::ApiError),
        ];
        for (status, body, class) in cases {
            let failure = read_error(status, &HeaderMap::new(), body.as_bytes(), fixtures::arrival());
            assert_eq!((failure.class, failure.status), (class, Some(status)), "{body}");
            assert!(!failure.message.is_empty());
        }
    }

    #[test]
    fn rate_limit_headers_are_parsed() {
        let limit = |limit, remaining, seconds| {
            let window = crate::types::LimitWindow::VendorDefault;
            Some(RateLimitStatus {
                limit: Some(limit),
                remaining,
                reset: Some(Duration::from_secs(seconds)),
                window,
            })
        };
        let limits = read_rate_limit_headers(
            &fixtures::headers("anthropic_headers_success.json"),
            fixtures::arrival(),
        );
        assert_eq!(limits.requests, limit(1000, 999, 1));
        assert_eq!(limits.tokens, limit(96_000, 95_000, 2));
        assert_eq!(limits.input_tokens, limit(80_000, 79_000, 2));
        assert_eq!(limits.output_tokens, limit(16_000, 16_000, 0));
        assert_eq!(limits.retry_after, None);

        let limits =
            read_rate_limit_headers(&fixtures::headers("anthropic_headers_429.json"), fixtures::arrival());
        assert_eq!((limits.tokens, limits.input_tokens), (None, limit(80_000, 0, 12)));
        assert_eq!(limits.retry_after, Some(Duration::from_secs(12)));
    }
}
