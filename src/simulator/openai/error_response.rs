//! OpenAI's error responses and rate-limit headers.

use std::borrow::Cow;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::json;

use crate::simulator::account::{LimitKind, LimitStatuses};
use crate::simulator::api_error::{
    ApiError, ForbiddenResource, RateLimitDetails, RetryHint, insufficient_credits_message,
};
use crate::simulator::response_data::{ErrorResponse, header_value};

/// Renders an error response.
pub(in crate::simulator) fn render_error(api_error: &ApiError) -> ErrorResponse {
    let (status, message, kind, param, code): (u16, Cow<'_, str>, &str, Option<&str>, Option<&str>) =
        match api_error {
            ApiError::InvalidRequest { message, param, code } => {
                (400, message.into(), "invalid_request_error", *param, *code)
            }
            ApiError::RequestTooLarge => (
                413,
                "Request body exceeds the maximum allowed size.".into(),
                "invalid_request_error",
                None,
                None,
            ),
            ApiError::MissingKey => (
                401,
                "You didn't provide an API key. You need to provide your API key in an Authorization \
             header using Bearer auth."
                    .into(),
                "invalid_request_error",
                None,
                None,
            ),
            ApiError::InvalidKey { given } => (
                401,
                format!(
                    "Incorrect API key provided: {}. You can find your API key in your account settings.",
                    masked_key(given)
                )
                .into(),
                "invalid_request_error",
                None,
                Some("invalid_api_key"),
            ),
            ApiError::ModelNotFound { model } => (
                404,
                format!("The model `{model}` does not exist or you do not have access to it.").into(),
                "invalid_request_error",
                None,
                Some("model_not_found"),
            ),
            ApiError::RouteNotFound { request } => (
                404,
                format!("Unknown request URL: {request}.").into(),
                "invalid_request_error",
                None,
                Some("unknown_url"),
            ),
            ApiError::RateLimited(rate_limit) => (
                429,
                rate_limit_message(rate_limit).into(),
                limit_kind_names(rate_limit).2,
                None,
                Some("rate_limit_exceeded"),
            ),
            ApiError::QuotaExceeded { .. } => (
                429,
                "You exceeded your current quota, please check your plan and billing details.".into(),
                "insufficient_quota",
                None,
                Some("insufficient_quota"),
            ),
            ApiError::Forbidden(ForbiddenResource::Unspecified) => {
                (403, "You are not permitted to make this request.".into(), "invalid_request_error", None, None)
            }
            // Groq's response for a model that is disabled in the project.
            ApiError::Forbidden(ForbiddenResource::Model(model)) => (
                403,
                format!(
                    "The model `{model}` is blocked at the project level. Please have a project admin enable this \
                     model in the project settings."
                )
                .into(),
                "permissions_error",
                None,
                Some("model_permission_blocked_project"),
            ),
            ApiError::Forbidden(ForbiddenResource::File) => (
                403,
                "You do not have access to the file file-simulated, or it may not exist.".into(),
                "invalid_request_error",
                None,
                None,
            ),
            // OpenRouter's response, whose code is the status.
            ApiError::InsufficientCredits { max_tokens } => {
                let error = json!({ "message": insufficient_credits_message(*max_tokens), "code": 402 });
                return (402, json!({ "error": error }).to_string().into_bytes());
            }
            ApiError::ServerError { status } => (
                *status,
                "The server had an error while processing your request. Sorry about that!".into(),
                "server_error",
                None,
                None,
            ),
            ApiError::Unavailable { status } => {
                (*status, OVERLOADED.into(), UNAVAILABLE, None, Some("server_is_overloaded"))
            }
            ApiError::Overloaded { status } => {
                (status.unwrap_or(503), OVERLOADED.into(), UNAVAILABLE, None, Some("server_is_overloaded"))
            }
        };
    let body = json!({ "error": { "message": message, "type": kind, "param": param, "code": code } });
    (status, body.to_string().into_bytes())
}

const OVERLOADED: &str = "The server is currently overloaded. Please try again later.";
const UNAVAILABLE: &str = "service_unavailable_error";

/// Returns the key masked as the vendor does.
fn masked_key(key: &str) -> String {
    let start = &key[..key.floor_char_boundary(7)];
    let end = &key[key.ceil_char_boundary(key.len().saturating_sub(4))..];
    if key.len() < 16 { "********".to_owned() } else { format!("{start}********{end}") }
}

/// Returns the name of the limit, its abbreviation, and the error's type.
fn limit_kind_names(rate_limit: &RateLimitDetails) -> (&'static str, &'static str, &'static str) {
    match rate_limit.limit_kind {
        LimitKind::Requests => ("requests per min", "RPM", "requests"),
        LimitKind::Tokens => ("tokens per min", "TPM", "tokens"),
        LimitKind::InputTokens => ("input tokens per min", "ITPM", "tokens"),
        LimitKind::OutputTokens => ("output tokens per min", "OTPM", "tokens"),
    }
}

fn rate_limit_message(rate_limit: &RateLimitDetails) -> String {
    let RateLimitDetails { model, limit, used, requested, retry_hint, .. } = rate_limit;
    let (name, abbreviation, _) = limit_kind_names(rate_limit);
    let retry_advice = match retry_hint {
        RetryHint::Missing => String::new(),
        RetryHint::After(wait) => format!(" Please try again in {}.", go_duration(*wait)),
        RetryHint::Implausible(seconds) => format!(" Please try again in {seconds}s."),
    };
    if requested > limit {
        return format!(
            "Request too large for {model} in organization org-simulated on {name} ({abbreviation}): Limit {limit}, \
             Requested {requested}. The input or output tokens must be reduced in order to run successfully."
        );
    }
    format!(
        "Rate limit reached for {model} in organization org-simulated on {name} ({abbreviation}): Limit {limit}, Used {used}, \
         Requested {requested}.{retry_advice}"
    )
}

/// Adds the headers of every response.
pub(in crate::simulator) fn add_common_headers(headers: &mut HeaderMap, serial: u64) {
    headers.insert(HeaderName::from_static("x-request-id"), header_value(format_args!("req_{serial:032x}")));
    headers.insert(HeaderName::from_static("openai-organization"), HeaderValue::from_static("org-simulated"));
    headers.insert(HeaderName::from_static("openai-processing-ms"), HeaderValue::from_static("0"));
    headers.insert(HeaderName::from_static("openai-version"), HeaderValue::from_static("2020-10-01"));
}

/// Adds the rate-limit headers.
pub(in crate::simulator) fn add_rate_limit_headers(headers: &mut HeaderMap, limit_statuses: &LimitStatuses) {
    for limit_status in limit_statuses.iter().flatten() {
        let [limit, remaining, reset] = match limit_status.limit_kind {
            LimitKind::Requests => {
                ["x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"]
            }
            LimitKind::Tokens => {
                ["x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"]
            }
            // OpenAI has no headers for these limits.
            LimitKind::InputTokens | LimitKind::OutputTokens => continue,
        };
        headers.insert(HeaderName::from_static(limit), limit_status.limit.into());
        headers.insert(HeaderName::from_static(remaining), limit_status.remaining.into());
        headers.insert(HeaderName::from_static(reset), header_value(go_duration(limit_status.reset)));
    }
}

/// Adds the Retry-After headers.
pub(in crate::simulator) fn add_retry_after(headers: &mut HeaderMap, api_error: &ApiError) {
    let retry_hint = api_error.retry_hint();
    let Some(seconds) = retry_hint.seconds() else { return };
    headers.insert(http::header::RETRY_AFTER, seconds.into());
    let millis = match retry_hint {
        RetryHint::After(wait) => i64::try_from(wait.as_millis()).unwrap_or(i64::MAX).max(1),
        _ => seconds.saturating_mul(1_000),
    };
    headers.insert(HeaderName::from_static("retry-after-ms"), millis.into());
    headers.insert(HeaderName::from_static("x-should-retry"), HeaderValue::from_static("true"));
}

/// Formats a duration as Go does, rounded up to a millisecond: `120ms`, `1.5s`, `6m0s`, `1h0m0s`.
fn go_duration(duration: Duration) -> String {
    let millis = duration.as_nanos().div_ceil(1_000_000);
    if (1..1_000).contains(&millis) {
        return format!("{millis}ms");
    }
    let hours = millis / 3_600_000;
    let minutes = millis / 60_000 % 60;
    let seconds = millis as f64 % 60_000.0 / 1e3;
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, _) => format!("{minutes}m{seconds}s"),
        _ => format!("{hours}h{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_formatted_as_in_go() {
        for (millis, text) in [
            (0, "0s"),
            (17, "17ms"),
            (120, "120ms"),
            (1_000, "1s"),
            (8_640, "8.64s"),
            (59_463, "59.463s"),
            (72_000, "1m12s"),
            (360_000, "6m0s"),
            (3_600_000, "1h0m0s"),
            (4_217_500, "1h10m17.5s"),
        ] {
            assert_eq!(go_duration(Duration::from_millis(millis)), text);
        }
        assert_eq!(go_duration(Duration::from_micros(500)), "1ms");
    }

    #[test]
    fn a_key_is_never_shown_completely() {
        assert_eq!(masked_key("sk-fixture-aaaa-bbbb-0000"), "sk-fixt********0000");
        assert_eq!(masked_key("short"), "********");
    }
}
