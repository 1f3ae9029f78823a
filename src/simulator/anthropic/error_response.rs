//! Anthropic's error responses and rate-limit headers.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, HeaderValue};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use crate::simulator::account::{LimitKind, LimitStatus, LimitStatuses};
use crate::simulator::api_error::{
    ApiError, ForbiddenResource, RetryHint, insufficient_credits_message, with_commas,
};
use crate::simulator::response_data::{ErrorResponse, header_value};

/// Renders an error response.
pub(in crate::simulator) fn render_error(api_error: &ApiError, serial: u64) -> ErrorResponse {
    let mut details = None;
    let (status, kind, message): (u16, &str, Cow<'_, str>) = match api_error {
        ApiError::InvalidRequest { message, .. } => (400, "invalid_request_error", message.into()),
        ApiError::RequestTooLarge => (413, "request_too_large", "Request exceeds the maximum size".into()),
        ApiError::InvalidKey { .. } => (401, "authentication_error", "invalid x-api-key".into()),
        ApiError::MissingKey => (401, "authentication_error", "x-api-key header is required".into()),
        ApiError::ModelNotFound { model } => (404, "not_found_error", format!("model: {model}").into()),
        ApiError::RouteNotFound { .. } => (404, "not_found_error", "Not Found".into()),
        ApiError::RateLimited(rate_limit) => {
            let unit = match rate_limit.limit_kind {
                LimitKind::Requests => "requests",
                LimitKind::Tokens => "tokens",
                LimitKind::InputTokens => "input tokens",
                LimitKind::OutputTokens => "output tokens",
            };
            let limit = with_commas(rate_limit.limit);
            let message = format!(
                "This request would exceed your organization's rate limit of {limit} {unit} per minute."
            );
            (429, "rate_limit_error", message.into())
        }
        ApiError::QuotaExceeded { .. } => {
            details = Some(json!({ "error_code": "enforced_spend_limit_reached" }));
            let message =
                "You have reached your API usage limits. You will regain access on 2099-01-01 at 00:00 UTC.";
            (429, "rate_limit_error", message.into())
        }
        ApiError::Forbidden(ForbiddenResource::Unspecified) => {
            (403, "permission_error", "You are not permitted to make this request.".into())
        }
        ApiError::Forbidden(ForbiddenResource::Model(model)) => (
            403,
            "permission_error",
            format!("Your organization does not have access to the model {model}.").into(),
        ),
        ApiError::Forbidden(ForbiddenResource::File) => {
            (403, "permission_error", "You do not have access to the file file_simulated.".into())
        }
        ApiError::InsufficientCredits { max_tokens } => {
            (402, "billing_error", insufficient_credits_message(*max_tokens).into())
        }
        ApiError::ServerError { status: 504 } => {
            (504, "timeout_error", "The request timed out while processing.".into())
        }
        ApiError::ServerError { status } | ApiError::Unavailable { status } => {
            (*status, "api_error", "Internal server error".into())
        }
        ApiError::Overloaded { status } => (status.unwrap_or(529), "overloaded_error", "Overloaded".into()),
    };
    let mut error = json!({ "type": kind, "message": message });
    if let Some(details) = details {
        error["details"] = details;
    }
    let body = json!({ "type": "error", "error": error, "request_id": request_id(serial) });
    (status, body.to_string().into_bytes())
}

fn request_id(serial: u64) -> String {
    format!("req_011{serial:021x}")
}

/// Adds the headers of every response.
pub(in crate::simulator) fn add_common_headers(headers: &mut HeaderMap, serial: u64) {
    headers.insert(HeaderName::from_static("request-id"), header_value(request_id(serial)));
    headers.insert(
        HeaderName::from_static("anthropic-organization-id"),
        HeaderValue::from_static("00000000-0000-4000-8000-000000000000"),
    );
}

/// Adds the rate-limit headers.
pub(in crate::simulator) fn add_rate_limit_headers(
    headers: &mut HeaderMap,
    limit_statuses: &LimitStatuses,
    now: Timestamp,
) {
    let [requests, tokens, input, output] = limit_statuses;
    // Without a limit on all tokens, Anthropic reports the sum of the input and output limits.
    let sum_of_both = || {
        let input = input.as_ref()?;
        let output = output.as_ref()?;
        Some(LimitStatus {
            limit_kind: LimitKind::Tokens,
            limit: input.limit + output.limit,
            remaining: input.remaining + output.remaining,
            reset: input.reset.max(output.reset),
        })
    };
    for limit_status in [*requests, tokens.or_else(sum_of_both), *input, *output].into_iter().flatten() {
        let [limit, remaining, reset] = match limit_status.limit_kind {
            LimitKind::Requests => [
                "anthropic-ratelimit-requests-limit",
                "anthropic-ratelimit-requests-remaining",
                "anthropic-ratelimit-requests-reset",
            ],
            LimitKind::Tokens => [
                "anthropic-ratelimit-tokens-limit",
                "anthropic-ratelimit-tokens-remaining",
                "anthropic-ratelimit-tokens-reset",
            ],
            LimitKind::InputTokens => [
                "anthropic-ratelimit-input-tokens-limit",
                "anthropic-ratelimit-input-tokens-remaining",
                "anthropic-ratelimit-input-tokens-reset",
            ],
            LimitKind::OutputTokens => [
                "anthropic-ratelimit-output-tokens-limit",
                "anthropic-ratelimit-output-tokens-remaining",
                "anthropic-ratelimit-output-tokens-reset",
            ],
        };
        headers.insert(HeaderName::from_static(limit), limit_status.limit.into());
        headers.insert(HeaderName::from_static(remaining), displayed_remaining(&limit_status).into());
        headers.insert(HeaderName::from_static(reset), header_value(reset_time(now, limit_status)));
    }
}

/// Rounds remaining tokens to thousands, as the vendor does. Limits below 10,000 stay exact, so that they are
/// useful.
fn displayed_remaining(limit_status: &LimitStatus) -> u64 {
    if limit_status.limit_kind == LimitKind::Requests || limit_status.limit < 10_000 {
        limit_status.remaining
    } else {
        (limit_status.remaining + 500) / 1_000 * 1_000
    }
}

/// Returns the time at which the limit is fully available again, rounded up to a whole second. It is formatted as
/// RFC 3339 in UTC.
fn reset_time(now: Timestamp, limit_status: LimitStatus) -> Timestamp {
    let reset = SignedDuration::try_from(limit_status.reset).unwrap_or(SignedDuration::MAX);
    let full = now.checked_add(reset).unwrap_or(now);
    let second = full.as_second() + i64::from(full.subsec_nanosecond() > 0);
    Timestamp::from_second(second).unwrap_or(now)
}

/// Adds the Retry-After headers.
pub(in crate::simulator) fn add_retry_after(headers: &mut HeaderMap, api_error: &ApiError) {
    let retry_hint = api_error.retry_hint();
    let Some(seconds) = retry_hint.seconds() else { return };
    headers.insert(http::header::RETRY_AFTER, seconds.into());
    if retry_hint != RetryHint::Missing {
        headers.insert(HeaderName::from_static("x-should-retry"), HeaderValue::from_static("true"));
    }
}
