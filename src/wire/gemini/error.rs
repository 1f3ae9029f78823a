//! Says what Gemini's errors mean.
//!
//! Never fails: a body that cannot be read still has its status.

use std::time::{Duration, SystemTime};

use http::HeaderMap;
use serde_json::Value;

use crate::types::{Class, Failure};
use crate::wire::told::{self, Told};
use crate::wire::{Hints, instants, refused, times};

pub(in crate::wire) fn read_error(status: u16, headers: &HeaderMap, body: &[u8], now: SystemTime) -> Failure {
    if let Some(page) = refused::page(status, body) {
        return page;
    }
    let failure = match Told::read(body) {
        Told::Error(error) => classify(Some(status), &error),
        Told::Words(words) => refused::failure(refused::class_of_status(status), Some(status), &words),
    };
    complete(failure, headers, now)
}

/// Adds what only the headers and the clock know. The body goes before the header, which this vendor
/// does not send of its own.
pub(in crate::wire) fn complete(mut failure: Failure, headers: &HeaderMap, now: SystemTime) -> Failure {
    let hints = read_hints(headers, now);
    failure.retry_after = failure.retry_after.or(hints.retry_after);
    refused::complete(until_tomorrow(failure, now), &hints, now)
}

/// Lets the refusal of a daily quota last until the day is over by which it counts. What the body names
/// beyond a minute is that moment, and exact; up to a minute it is the wait of another, shorter limit.
pub(in crate::wire) fn until_tomorrow(mut failure: Failure, now: SystemTime) -> Failure {
    const OF_A_MINUTE: Duration = Duration::from_secs(60);
    if failure.class == Class::Quota && failure.code.as_deref().is_some_and(is_daily) {
        let named = failure.retry_after.filter(|wait| *wait > OF_A_MINUTE);
        failure.retry_after = named.or_else(|| instants::until_pacific_midnight(now));
    }
    failure
}

/// Reads the headers, which say nothing about limits here.
pub(in crate::wire) fn read_hints(headers: &HeaderMap, now: SystemTime) -> Hints {
    Hints::common(headers, now)
}

/// Classifies the `error` of a body, or of a chunk inside a stream, which has no status of its own.
pub(in crate::wire) fn classify(status: Option<u16>, error: &Value) -> Failure {
    let word = error.get("status").and_then(Value::as_str).unwrap_or_default();
    let message = told::message_of(error);
    let details = Details::read(error);
    let number = error.get("code").and_then(Value::as_u64).and_then(|code| u16::try_from(code).ok());
    let class = match Status::read(word) {
        Some(status) => status.class(&details, message),
        None => status.or(number).map_or(Class::ServerError, refused::class_of_status),
    };
    // A word in `code` is the newer interfaces' kind of error.
    let word = error.get("code").and_then(Value::as_str).unwrap_or(word);
    let mut failure = refused::failure(class, status, if message.is_empty() { word } else { message });
    let code = details.quota.or(details.reason).or(Some(word).filter(|word| !word.is_empty()));
    failure.code = code.map(Box::from);
    failure.retry_after = details.retry_delay.or_else(|| times::wait_in_words(message));
    if details.granted_nothing || grants_nothing(message) {
        // It names a short wait all the same, after which there is still nothing. Plans seldom change.
        failure.retry_after = Some(A_DAY);
    }
    failure
}

/// How long a model is left alone that the account's plan does not hold.
const A_DAY: Duration = Duration::from_hours(24);

/// Tells a quota that counts by the day, by its id.
fn is_daily(quota: &str) -> bool {
    quota.contains("PerDay")
}

/// What the `details` of an error add to it.
#[derive(Debug, Default)]
struct Details<'a> {
    /// `ErrorInfo.reason`.
    reason: Option<&'a str>,
    /// `RetryInfo.retryDelay`.
    retry_delay: Option<Duration>,
    /// The id of a violated quota that opens again only tomorrow.
    quota: Option<&'a str>,
    /// Whether a violated quota never opens: the model is not part of the plan.
    granted_nothing: bool,
}

impl<'a> Details<'a> {
    fn read(error: &'a Value) -> Self {
        let mut all = Self::default();
        for detail in error.get("details").and_then(Value::as_array).into_iter().flatten() {
            let text = |name: &str| detail.get(name).and_then(Value::as_str);
            all.reason = all.reason.or(text("reason"));
            all.retry_delay = all.retry_delay.or(text("retryDelay").and_then(times::protobuf_duration));
            for violation in detail.get("violations").and_then(Value::as_array).into_iter().flatten() {
                let text = |name: &str| violation.get(name).and_then(Value::as_str).unwrap_or_default();
                all.granted_nothing |= text("quotaValue") == "0";
                all.quota = all.quota.or(Some(text("quotaId")).filter(|quota| is_daily(quota)));
            }
        }
        all
    }

    fn is_spent(&self) -> bool {
        self.quota.is_some() || self.granted_nothing
    }
}

/// The canonical codes of Google's interfaces.
#[derive(Debug, Clone, Copy)]
enum Status {
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
    NoReason,
    Internal,
    Unimplemented,
    Unavailable,
    DeadlineExceeded,
}

impl Status {
    fn read(word: &str) -> Option<Self> {
        Some(match word {
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
            "UNKNOWN" => Self::NoReason,
            "INTERNAL" => Self::Internal,
            "UNIMPLEMENTED" => Self::Unimplemented,
            "UNAVAILABLE" => Self::Unavailable,
            "DEADLINE_EXCEEDED" => Self::DeadlineExceeded,
            _ => return None,
        })
    }

    fn class(self, details: &Details<'_>, message: &str) -> Class {
        match self {
            // A bad key is a wrong argument to this vendor.
            Self::InvalidArgument if details.reason.is_some_and(|reason| reason.starts_with("API_KEY")) => {
                Class::Auth
            }
            Self::InvalidArgument if message.contains("exceeds the maximum number of tokens") => {
                Class::TooLong
            }
            Self::InvalidArgument | Self::OutOfRange | Self::AlreadyExists | Self::Unimplemented => {
                Class::ApiError
            }
            // The account or its place may not use the service at all; another provider may still answer.
            Self::FailedPrecondition | Self::Unauthenticated | Self::PermissionDenied => Class::Auth,
            Self::NotFound => Class::NotFound,
            Self::ResourceExhausted if details.is_spent() || is_spent(message) => Class::Quota,
            // No limit of the account: the vendor has no room.
            Self::ResourceExhausted if details.reason == Some("MODEL_CAPACITY_EXHAUSTED") => {
                Class::Overloaded
            }
            Self::ResourceExhausted => Class::RateLimit,
            Self::Unavailable => Class::Overloaded,
            Self::Aborted
            | Self::Cancelled
            | Self::DataLoss
            | Self::NoReason
            | Self::Internal
            | Self::DeadlineExceeded => Class::ServerError,
        }
    }
}

/// Tells a quota that is spent, or was never granted, from one that opens within the minute.
fn is_spent(message: &str) -> bool {
    grants_nothing(message)
        || ["credits are depleted", "spending cap"].iter().any(|words| message.contains(words))
}

/// Tells `limit: 0` from `limit: 05` and `limit: 0.5`.
fn grants_nothing(message: &str) -> bool {
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
    use crate::types::{Charged, Prompt, Verdict};
    use crate::wire::gemini::Decoder;
    use crate::wire::{Dialect, fixtures};

    const DAILY: &str = "GenerateRequestsPerDayPerProjectPerModel-FreeTier";

    #[test]
    fn every_recorded_error_has_its_class() {
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
            let again = matches!(failure.verdict(), Verdict::Again { after } if after == retry_after);
            assert_eq!(
                again,
                matches!(class, Class::RateLimit | Class::Overloaded | Class::ServerError),
                "{name}"
            );
        }
    }

    #[test]
    fn a_spent_quota_is_told_from_one_that_opens_within_the_minute() {
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
        // Until midnight at the Pacific, unless the body names a moment of its own.
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
        // A short wait does not help where nothing was granted.
        let nothing =
            exhausted("Quota exceeded for metric: m, limit: 0, model: x\nPlease retry in 12s.", json!([]));
        assert_eq!((nothing.class, nothing.retry_after), (Class::Quota, Some(A_DAY)));
        let hinted = exhausted("Please retry in 10h17m5.72s.", json!([]));
        assert_eq!(hinted.retry_after, Some(Duration::from_millis(37_025_720)));
        let hinted = exhausted("Please retry in 34.5s.", json!([]));
        assert_eq!(hinted.retry_after, Some(Duration::from_millis(34_500)));
    }

    #[test]
    fn a_body_of_any_shape_still_has_its_status() {
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
        // Inside a stream the error's own number stands in for the status.
        let failure = decoder.event(None, r#"{"error":{"code":503,"message":"x"}}"#).unwrap_err();
        assert_eq!((failure.class, failure.status), (Class::Overloaded, None));
    }

    #[test]
    fn a_wait_in_the_body_goes_before_one_in_the_headers() {
        let headers: HeaderMap =
            [(http::header::RETRY_AFTER, HeaderValue::from_static("7"))].into_iter().collect();
        let read = |name| read_error(429, &headers, &fixtures::bytes(name), fixtures::arrival()).retry_after;
        assert_eq!(read("gemini_error_429_retryinfo.json"), Some(Duration::from_secs(34)));
        assert_eq!(read("gemini_error_429_no_details.json"), Some(Duration::from_secs(7)));
        let hints = read_hints(&headers, fixtures::arrival());
        assert_eq!(hints, Hints { retry_after: Some(Duration::from_secs(7)), ..Hints::default() });
    }
}
