//! Classification of Gemini's errors.
//!
//! Never fails: an unreadable body is classified by the status.

use std::time::{Duration, SystemTime};

use http::HeaderMap;
use serde_json::Value;

use crate::types::{Class, Failure};
use crate::wire::{RateLimitHeaders, error_body, http_error, phrases, reset_time, retry_after};

pub(in crate::wire) fn read_error(status: u16, headers: &HeaderMap, body: &[u8], now: SystemTime) -> Failure {
    apply_headers(error_body::classify_body(status, body, classify), headers, now)
}

/// Adds the wait from the headers. The body takes precedence, because this vendor itself sends no such header.
pub(in crate::wire) fn apply_headers(mut failure: Failure, headers: &HeaderMap, now: SystemTime) -> Failure {
    let limits = read_rate_limit_headers(headers, now);
    failure.retry_after = failure.retry_after.or(limits.retry_after);
    http_error::apply_headers(with_daily_reset(failure, now), &limits, now)
}

/// Extends the wait of a daily quota to its reset. A wait over a minute in the body is exact. A wait up to a
/// minute belongs to another, shorter limit.
pub(in crate::wire) fn with_daily_reset(mut failure: Failure, now: SystemTime) -> Failure {
    const MINUTE: Duration = Duration::from_secs(60);
    if failure.class == Class::Quota && failure.code.as_deref().is_some_and(is_daily) {
        let named = failure.retry_after.filter(|wait| *wait > MINUTE);
        failure.retry_after = named.or_else(|| reset_time::until_pacific_midnight(now));
    }
    failure
}

/// Parses the headers that all vendors share; this vendor sends no rate-limit headers.
pub(in crate::wire) fn read_rate_limit_headers(headers: &HeaderMap, now: SystemTime) -> RateLimitHeaders {
    RateLimitHeaders::read_common(headers, now)
}

/// Classifies the `error` of a body, or of a chunk inside a stream, which has no status of its own.
pub(in crate::wire) fn classify(status: Option<u16>, error: &Value) -> Failure {
    let name = error.get("status").and_then(Value::as_str).unwrap_or_default();
    let message = error_body::error_message(error);
    let details = Details::read(error);
    let number = error.get("code").and_then(Value::as_u64).and_then(|code| u16::try_from(code).ok());
    let class = match CanonicalCode::read(name) {
        Some(status) => status.class(&details, message),
        None => status.or(number).map_or(Class::ServerError, http_error::class_of_status),
    };
    // A string in `code` is the error type of newer APIs.
    let name = error.get("code").and_then(Value::as_str).unwrap_or(name);
    let mut failure = http_error::failure(class, status, if message.is_empty() { name } else { message });
    let code = details.quota.or(details.reason).or(Some(name).filter(|name| !name.is_empty()));
    failure.code = code.map(Box::from);
    failure.retry_after = details.retry_delay.or_else(|| retry_after::wait_in_message(message));
    if details.is_zero_quota || has_zero_limit(message) {
        // The error states a short wait, but the quota is zero after it too. Plans seldom change.
        failure.retry_after = Some(ZERO_QUOTA_RETRY_AFTER);
    }
    failure
}

/// The wait before a retry of a model that the account's plan does not include.
const ZERO_QUOTA_RETRY_AFTER: Duration = Duration::from_hours(24);

/// Returns whether the id is that of a daily quota.
fn is_daily(quota: &str) -> bool {
    quota.contains("PerDay")
}

/// The `details` of an error.
#[derive(Debug, Default)]
struct Details<'a> {
    /// `ErrorInfo.reason`.
    reason: Option<&'a str>,
    /// `RetryInfo.retryDelay`.
    retry_delay: Option<Duration>,
    /// The id of a violated daily quota.
    quota: Option<&'a str>,
    /// Whether a violated quota is zero: the plan does not include the model.
    is_zero_quota: bool,
}

impl<'a> Details<'a> {
    fn read(error: &'a Value) -> Self {
        let mut all = Self::default();
        for detail in error.get("details").and_then(Value::as_array).into_iter().flatten() {
            let text = |name: &str| detail.get(name).and_then(Value::as_str);
            all.reason = all.reason.or(text("reason"));
            all.retry_delay =
                all.retry_delay.or(text("retryDelay").and_then(retry_after::parse_protobuf_duration));
            for violation in detail.get("violations").and_then(Value::as_array).into_iter().flatten() {
                let text = |name: &str| violation.get(name).and_then(Value::as_str).unwrap_or_default();
                all.is_zero_quota |= text("quotaValue") == "0";
                all.quota = all.quota.or(Some(text("quotaId")).filter(|quota| is_daily(quota)));
            }
        }
        all
    }

    fn is_exhausted(&self) -> bool {
        self.quota.is_some() || self.is_zero_quota
    }
}

/// The canonical error codes of Google's APIs.
#[derive(Debug, Clone, Copy)]
enum CanonicalCode {
    InvalidArgument,
    FailedPrecondition,
    OutOfRange,
    Unauthenticated,
    PermissionDenied,
    NotFound,
    AlreadyExists,
    Aborted,
    ResourceExhausted,
    Cancelled,
    DataLoss,
    Unknown,
    Internal,
    Unimplemented,
    Unavailable,
    DeadlineExceeded,
}

impl CanonicalCode {
    fn read(name: &str) -> Option<Self> {
        Some(match name {
            "INVALID_ARGUMENT" => Self::InvalidArgument,
            "FAILED_PRECONDITION" => Self::FailedPrecondition,
            "OUT_OF_RANGE" => Self::OutOfRange,
            "UNAUTHENTICATED" => Self::Unauthenticated,
            "PERMISSION_DENIED" => Self::PermissionDenied,
            "NOT_FOUND" => Self::NotFound,
            "ALREADY_EXISTS" => Self::AlreadyExists,
            "ABORTED" => Self::Aborted,
            "RESOURCE_EXHAUSTED" => Self::ResourceExhausted,
            "CANCELLED" => Self::Cancelled,
            "DATA_LOSS" => Self::DataLoss,
            "UNKNOWN" => Self::Unknown,
            "INTERNAL" => Self::Internal,
            "UNIMPLEMENTED" => Self::Unimplemented,
            "UNAVAILABLE" => Self::Unavailable,
            "DEADLINE_EXCEEDED" => Self::DeadlineExceeded,
            _ => return None,
        })
    }

    fn class(self, details: &Details<'_>, message: &str) -> Class {
        match self {
            // This vendor reports an invalid key as an invalid argument.
            Self::InvalidArgument if details.reason.is_some_and(|reason| reason.starts_with("API_KEY")) => {
                Class::Auth
            }
            Self::InvalidArgument if message.contains("exceeds the maximum number of tokens") => {
                Class::TooLong
            }
            Self::InvalidArgument | Self::OutOfRange | Self::AlreadyExists | Self::Unimplemented => {
                Class::ApiError
            }
            // The account or its location may not use the service; another provider may answer.
            Self::FailedPrecondition | Self::Unauthenticated | Self::PermissionDenied => Class::Auth,
            Self::NotFound => Class::NotFound,
            Self::ResourceExhausted if details.is_exhausted() || is_exhausted(message) => Class::Quota,
            // Not a limit of the account: the vendor lacks capacity.
            Self::ResourceExhausted if details.reason == Some("MODEL_CAPACITY_EXHAUSTED") => {
                Class::Overloaded
            }
            Self::ResourceExhausted => Class::RateLimit,
            Self::Unavailable => Class::Overloaded,
            Self::Aborted
            | Self::Cancelled
            | Self::DataLoss
            | Self::Unknown
            | Self::Internal
            | Self::DeadlineExceeded => Class::ServerError,
        }
    }
}

/// Returns whether a quota is exhausted or zero, and does not reset within a minute.
fn is_exhausted(message: &str) -> bool {
    has_zero_limit(message) || phrases::contains_any(message, &["credits are depleted", "spending cap"])
}

/// Returns whether a message contains `limit: 0`, but not `limit: 05` or `limit: 0.5`.
fn has_zero_limit(message: &str) -> bool {
    message
        .split("limit: 0")
        .skip(1)
        .any(|rest| !rest.starts_with(|next: char| next.is_ascii_digit() || next == '.'))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use serde_json::json;

    use super::*;
    use crate::types::{Charged, Prompt, RetryAction};
    use crate::wire::gemini::Decoder;
    use crate::wire::{Dialect, fixtures};

    const DAILY: &str = "GenerateRequestsPerDayPerProjectPerModel-FreeTier";

    #[test]
    fn every_recorded_error_is_classified() {
        let seconds = |seconds| Some(Duration::from_secs_f64(seconds));
        let cases = [
            (400, "400_api_key_invalid", Class::Auth, "API_KEY_INVALID", None, Charged::No),
            (400, "400_failed_precondition", Class::Auth, "FAILED_PRECONDITION", None, Charged::No),
            (400, "400_invalid_argument", Class::ApiError, "INVALID_ARGUMENT", None, Charged::No),
            (403, "403_permission", Class::Auth, "PERMISSION_DENIED", None, Charged::No),
            (404, "404_model", Class::NotFound, "NOT_FOUND", None, Charged::No),
            (429, "429_daily_quota", Class::Quota, DAILY, seconds(35_651.25), Charged::No),
            (429, "429_no_details", Class::RateLimit, "RESOURCE_EXHAUSTED", None, Charged::No),
            (429, "429_retryinfo", Class::RateLimit, "RESOURCE_EXHAUSTED", seconds(34.0), Charged::No),
            (500, "500_internal", Class::ServerError, "INTERNAL", None, Charged::Maybe),
            (503, "503_unavailable", Class::Overloaded, "UNAVAILABLE", None, Charged::No),
            (504, "504_deadline", Class::ServerError, "DEADLINE_EXCEEDED", None, Charged::Maybe),
        ];
        for (status, name, class, code, retry_after, charged) in cases {
            let body = fixtures::bytes(&format!("gemini_error_{name}.json"));
            let failure = read_error(status, &HeaderMap::new(), &body, fixtures::arrival());
            assert_eq!(
                (failure.class, failure.code.as_deref(), failure.status),
                (class, Some(code), Some(status)),
                "{name}"
            );
            assert_eq!((failure.retry_after, failure.charged), (retry_after, charged), "{name}");
            let is_retry =
                matches!(failure.retry_action(), RetryAction::Retry { after } if after == retry_after);
            assert_eq!(
                is_retry,
                matches!(class, Class::RateLimit | Class::Overloaded | Class::ServerError),
                "{name}"
            );
        }
    }

    #[test]
    fn an_exhausted_quota_is_distinguished_from_one_that_resets_within_a_minute() {
        let exhausted = |message: &str, details: Value| {
            let body = json!({"error": {"code": 429, "message": message, "status": "RESOURCE_EXHAUSTED", "details": details}});
            read_error(429, &HeaderMap::new(), body.to_string().as_bytes(), fixtures::arrival())
        };
        let cases = [
            (
                "Quota exceeded for metric: m, limit: 0, model: x\nPlease retry in 12s.",
                json!([]),
                Class::Quota,
            ),
            ("Quota exceeded for metric: m, limit: 0", json!([]), Class::Quota),
            ("Quota exceeded for metric: m, limit: 05, model: x", json!([]), Class::RateLimit),
            (
                "x",
                json!([{"violations": [{"quotaId": "GenerateRequestsPerMinute", "quotaValue": "0"}]}]),
                Class::Quota,
            ),
            ("x", json!([{"violations": [{"quotaId": "InputTokensPerDay"}]}]), Class::Quota),
            ("x", json!([{"violations": [{"quotaId": "InputTokensPerMinute"}]}]), Class::RateLimit),
            ("Your project has exceeded its monthly spending cap.", json!(null), Class::Quota),
            ("x", json!("odd"), Class::RateLimit),
        ];
        for (message, details, class) in cases {
            assert_eq!(exhausted(message, details).class, class, "{message}");
        }
        // Until midnight in the Pacific time zone, unless the body states the reset.
        let daily = |delay: &str| {
            let violation =
                json!({"violations": [{"quotaId": DAILY, "quotaValue": "20"}, {"quotaId": "PerMinute"}]});
            exhausted("x", json!([violation, {"retryDelay": delay}])).retry_after
        };
        let midnight = Some(Duration::from_secs(12 * 3_600 + 300));
        for (delay, wait) in [("", midnight), ("34s", midnight), ("-5s", midnight), ("1e300s", midnight)] {
            assert_eq!(daily(delay), wait, "{delay:?}");
        }
        assert_eq!(daily("35651.250000s"), Some(Duration::from_millis(35_651_250)));
        assert_eq!(daily("86400s"), Some(Duration::from_hours(24)));
        // A short wait does not help if the quota is zero.
        let zero_quota =
            exhausted("Quota exceeded for metric: m, limit: 0, model: x\nPlease retry in 12s.", json!([]));
        assert_eq!((zero_quota.class, zero_quota.retry_after), (Class::Quota, Some(ZERO_QUOTA_RETRY_AFTER)));
        let with_wait = exhausted("Please retry in 10h17m5.72s.", json!([]));
        assert_eq!(with_wait.retry_after, Some(Duration::from_millis(37_025_720)));
        let with_wait = exhausted("Please retry in 34.5s.", json!([]));
        assert_eq!(with_wait.retry_after, Some(Duration::from_millis(34_500)));
    }

    #[test]
    fn a_body_of_any_structure_is_classified() {
        let cases = [
            (
                400,
                r#"{"error":{"code":400,"status":"INVALID_ARGUMENT","message":"The input token count (1200000) exceeds the maximum number of tokens allowed (1048576)."}}"#,
                Class::TooLong,
            ),
            (400, r#"{"error":{"code":"invalid_request","message":"x"}}"#, Class::ApiError),
            (
                429,
                r#"[{"error":{"code":429,"message":"x","status":"RESOURCE_EXHAUSTED"}}]"#,
                Class::RateLimit,
            ),
            (402, r#"{"error":{"code":402}}"#, Class::Quota),
            (502, "<html><title>Bad gateway</title></html>", Class::ServerError),
            (503, "", Class::Overloaded),
            (401, r#"{"error":"Unauthorized"}"#, Class::Auth),
        ];
        for (status, body, class) in cases {
            let failure = read_error(status, &HeaderMap::new(), body.as_bytes(), fixtures::arrival());
            assert_eq!((failure.class, failure.status), (class, Some(status)), "{body}");
            assert!(!failure.message.is_empty());
        }
        let mut decoder = Decoder::new(&Prompt::default(), &Dialect::default());
        // In a stream, the code of the error replaces the status.
        let failure = decoder.push_event(None, r#"{"error":{"code":503,"message":"x"}}"#).unwrap_err();
        assert_eq!((failure.class, failure.status), (Class::Overloaded, None));
    }

    #[test]
    fn a_wait_in_the_body_takes_precedence_over_the_headers() {
        let headers: HeaderMap =
            [(http::header::RETRY_AFTER, HeaderValue::from_static("7"))].into_iter().collect();
        let read = |name| read_error(429, &headers, &fixtures::bytes(name), fixtures::arrival()).retry_after;
        assert_eq!(read("gemini_error_429_retryinfo.json"), Some(Duration::from_secs(34)));
        assert_eq!(read("gemini_error_429_no_details.json"), Some(Duration::from_secs(7)));
        let limits = read_rate_limit_headers(&headers, fixtures::arrival());
        assert_eq!(
            limits,
            RateLimitHeaders { retry_after: Some(Duration::from_secs(7)), ..RateLimitHeaders::default() }
        );
    }
}
