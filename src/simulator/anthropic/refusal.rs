//! Writes Anthropic's errors, and how an account's limits stand, as headers.
//!
//! Whether a call is refused was decided before; nothing here decides it.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, HeaderValue};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use crate::simulator::account::{Gauge, Quantity, Standing};
use crate::simulator::reply::{ErrorReply, header_value as value};
use crate::simulator::trouble::{Forbidden, Hint, Trouble, unaffordable, with_commas};

/// Writes an error.
pub(in crate::simulator) fn error(trouble: &Trouble, serial: u64) -> ErrorReply {
    let mut details = None;
    let (status, kind, message): (u16, &str, Cow<'_, str>) = match trouble {
        Trouble::Invalid { message, .. } => (400, "invalid_request_error", message.into()),
        Trouble::TooLarge => (413, "request_too_large", "Request exceeds the maximum size".into()),
        Trouble::Key { .. } => (401, "authentication_error", "invalid x-api-key".into()),
        Trouble::NoKey => (401, "authentication_error", "x-api-key header is required".into()),
        Trouble::NoModel { model } => (404, "not_found_error", format!("model: {model}").into()),
        Trouble::NoAddress { .. } => (404, "not_found_error", "Not Found".into()),
        Trouble::Throttled(throttled) => {
            let what = match throttled.quantity {
                Quantity::Requests => "requests",
                Quantity::Tokens => "tokens",
                Quantity::InputTokens => "input tokens",
                Quantity::OutputTokens => "output tokens",
            };
            let limit = with_commas(throttled.limit);
            let message = format!(
                "This request would exceed your organization's rate limit of {limit} {what} per minute."
            );
            (429, "rate_limit_error", message.into())
        }
        Trouble::Quota { .. } => {
            details = Some(json!({ "error_code": "enforced_spend_limit_reached" }));
            let message =
                "You have reached your API usage limits. You will regain access on 2099-01-01 at 00:00 UTC.";
            (429, "rate_limit_error", message.into())
        }
        Trouble::Forbidden(Forbidden::Unsaid) => {
            (403, "permission_error", "You are not permitted to make this request.".into())
        }
        Trouble::Forbidden(Forbidden::Model(model)) => (
            403,
            "permission_error",
            format!("Your organization does not have access to the model {model}.").into(),
        ),
        Trouble::Forbidden(Forbidden::File) => {
            (403, "permission_error", "You do not have access to the file file_practice.".into())
        }
        Trouble::Unaffordable { max_tokens } => (402, "billing_error", unaffordable(*max_tokens).into()),
        Trouble::Server { status: 504 } => {
            (504, "timeout_error", "The request timed out while processing.".into())
        }
        Trouble::Server { status } | Trouble::Unavailable { status } => {
            (*status, "api_error", "Internal server error".into())
        }
        Trouble::Overloaded { status } => (status.unwrap_or(529), "overloaded_error", "Overloaded".into()),
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

/// Adds the headers that every reply carries.
pub(in crate::simulator) fn add_headers(headers: &mut HeaderMap, serial: u64) {
    headers.insert(HeaderName::from_static("request-id"), value(request_id(serial)));
    headers.insert(
        HeaderName::from_static("anthropic-organization-id"),
        HeaderValue::from_static("00000000-0000-4000-8000-000000000000"),
    );
}

/// Adds how the limits stand.
pub(in crate::simulator) fn add_standing(headers: &mut HeaderMap, standing: &Standing, now: Timestamp) {
    let [requests, tokens, input, output] = standing;
    // Without a limit on both together, this vendor sums up the two.
    let sum = || {
        let (input, output) = (input.as_ref()?, output.as_ref()?);
        Some(Gauge {
            quantity: Quantity::Tokens,
            limit: input.limit + output.limit,
            remaining: input.remaining + output.remaining,
            reset: input.reset.max(output.reset),
        })
    };
    for gauge in [*requests, tokens.or_else(sum), *input, *output].into_iter().flatten() {
        let [limit, remaining, reset] = match gauge.quantity {
            Quantity::Requests => [
                "anthropic-ratelimit-requests-limit",
                "anthropic-ratelimit-requests-remaining",
                "anthropic-ratelimit-requests-reset",
            ],
            Quantity::Tokens => [
                "anthropic-ratelimit-tokens-limit",
                "anthropic-ratelimit-tokens-remaining",
                "anthropic-ratelimit-tokens-reset",
            ],
            Quantity::InputTokens => [
                "anthropic-ratelimit-input-tokens-limit",
                "anthropic-ratelimit-input-tokens-remaining",
                "anthropic-ratelimit-input-tokens-reset",
            ],
            Quantity::OutputTokens => [
                "anthropic-ratelimit-output-tokens-limit",
                "anthropic-ratelimit-output-tokens-remaining",
                "anthropic-ratelimit-output-tokens-reset",
            ],
        };
        headers.insert(HeaderName::from_static(limit), gauge.limit.into());
        headers.insert(HeaderName::from_static(remaining), rounded(&gauge).into());
        headers.insert(HeaderName::from_static(reset), value(whole_seconds(now, gauge)));
    }
}

/// Rounds remaining tokens to thousands, as the vendor does; small limits stay exact so that they say anything.
fn rounded(gauge: &Gauge) -> u64 {
    if gauge.quantity == Quantity::Requests || gauge.limit < 10_000 {
        gauge.remaining
    } else {
        (gauge.remaining + 500) / 1_000 * 1_000
    }
}

/// Returns when the gauge is full again, in RFC 3339 and UTC, rounded up to a whole second.
fn whole_seconds(now: Timestamp, gauge: Gauge) -> Timestamp {
    let reset = SignedDuration::try_from(gauge.reset).unwrap_or(SignedDuration::MAX);
    let full = now.checked_add(reset).unwrap_or(now);
    let second = full.as_second() + i64::from(full.subsec_nanosecond() > 0);
    Timestamp::from_second(second).unwrap_or(now)
}

/// Adds when to come back.
pub(in crate::simulator) fn add_retry_after(headers: &mut HeaderMap, trouble: &Trouble) {
    let hint = trouble.hint();
    let Some(seconds) = hint.seconds() else { return };
    headers.insert(http::header::RETRY_AFTER, seconds.into());
    if hint != Hint::Nothing {
        headers.insert(HeaderName::from_static("x-should-retry"), HeaderValue::from_static("true"));
    }
}
