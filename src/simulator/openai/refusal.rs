//! Writes OpenAI's errors, and how an account's limits stand, as headers.
//!
//! Whether a call is refused was decided before; nothing here decides it.

use std::borrow::Cow;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::json;

use crate::simulator::account::{Quantity, Standing};
use crate::simulator::reply::{ErrorReply, header_value as value};
use crate::simulator::trouble::{Forbidden, Hint, Throttled, Trouble, unaffordable};

/// Writes an error.
pub(in crate::simulator) fn error(trouble: &Trouble) -> ErrorReply {
    let (status, message, kind, param, code): (u16, Cow<'_, str>, &str, Option<&str>, Option<&str>) =
        match trouble {
            Trouble::Invalid { message, param, code } => {
                (400, message.into(), "invalid_request_error", *param, *code)
            }
            Trouble::TooLarge => (
                413,
                "Request body exceeds the maximum allowed size.".into(),
                "invalid_request_error",
                None,
                None,
            ),
            Trouble::NoKey => (
                401,
                "You didn't provide an API key. You need to provide your API key in an Authorization \
             header using Bearer auth."
                    .into(),
                "invalid_request_error",
                None,
                None,
            ),
            Trouble::Key { given } => (
                401,
                format!(
                    "Incorrect API key provided: {}. You can find your API key in your account settings.",
                    hidden(given)
                )
                .into(),
                "invalid_request_error",
                None,
                Some("invalid_api_key"),
            ),
            Trouble::NoModel { model } => (
                404,
                format!("The model `{model}` does not exist or you do not have access to it.").into(),
                "invalid_request_error",
                None,
                Some("model_not_found"),
            ),
            Trouble::NoAddress { what } => (
                404,
                format!("Unknown request URL: {what}.").into(),
                "invalid_request_error",
                None,
                Some("unknown_url"),
            ),
            Trouble::Throttled(throttled) => (
                429,
                throttled_message(throttled).into(),
                quantity(throttled).2,
                None,
                Some("rate_limit_exceeded"),
            ),
            Trouble::Quota { .. } => (
                429,
                "You exceeded your current quota, please check your plan and billing details.".into(),
                "insufficient_quota",
                None,
                Some("insufficient_quota"),
            ),
            Trouble::Forbidden(Forbidden::Unsaid) => {
                (403, "You are not permitted to make this request.".into(), "invalid_request_error", None, None)
            }
            // As Groq answers for a model that a project has turned off.
            Trouble::Forbidden(Forbidden::Model(model)) => (
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
            Trouble::Forbidden(Forbidden::File) => (
                403,
                "You do not have access to the file file-practice, or it may not exist.".into(),
                "invalid_request_error",
                None,
                None,
            ),
            // As OpenRouter answers, whose code is the status.
            Trouble::Unaffordable { max_tokens } => {
                let error = json!({ "message": unaffordable(*max_tokens), "code": 402 });
                return (402, json!({ "error": error }).to_string().into_bytes());
            }
            Trouble::Server { status } => (
                *status,
                "The server had an error while processing your request. Sorry about that!".into(),
                "server_error",
                None,
                None,
            ),
            Trouble::Unavailable { status } => {
                (*status, OVERLOADED.into(), UNAVAILABLE, None, Some("server_is_overloaded"))
            }
            Trouble::Overloaded { status } => {
                (status.unwrap_or(503), OVERLOADED.into(), UNAVAILABLE, None, Some("server_is_overloaded"))
            }
        };
    let body = json!({ "error": { "message": message, "type": kind, "param": param, "code": code } });
    (status, body.to_string().into_bytes())
}

const OVERLOADED: &str = "The server is currently overloaded. Please try again later.";
const UNAVAILABLE: &str = "service_unavailable_error";

/// Shows as much of a key as the vendor does.
fn hidden(key: &str) -> String {
    let start = &key[..key.floor_char_boundary(7)];
    let end = &key[key.ceil_char_boundary(key.len().saturating_sub(4))..];
    if key.len() < 16 { "********".to_owned() } else { format!("{start}********{end}") }
}

/// Returns the words for a quantity, its abbreviation, and the error's type.
fn quantity(throttled: &Throttled) -> (&'static str, &'static str, &'static str) {
    match throttled.quantity {
        Quantity::Requests => ("requests per min", "RPM", "requests"),
        Quantity::Tokens => ("tokens per min", "TPM", "tokens"),
        Quantity::InputTokens => ("input tokens per min", "ITPM", "tokens"),
        Quantity::OutputTokens => ("output tokens per min", "OTPM", "tokens"),
    }
}

fn throttled_message(throttled: &Throttled) -> String {
    let Throttled { model, limit, used, requested, hint, .. } = throttled;
    let (words, short, _) = quantity(throttled);
    let again = match hint {
        Hint::Nothing => String::new(),
        Hint::After(wait) => format!(" Please try again in {}.", go_duration(*wait)),
        Hint::Absurd(seconds) => format!(" Please try again in {seconds}s."),
    };
    if requested > limit {
        return format!(
            "Request too large for {model} in organization org-practice on {words} ({short}): Limit {limit}, \
             Requested {requested}. The input or output tokens must be reduced in order to run successfully."
        );
    }
    format!(
        "Rate limit reached for {model} in organization org-practice on {words} ({short}): Limit {limit}, Used {used}, \
         Requested {requested}.{again}"
    )
}

/// Adds the headers that every reply carries.
pub(in crate::simulator) fn add_headers(headers: &mut HeaderMap, serial: u64) {
    headers.insert(HeaderName::from_static("x-request-id"), value(format_args!("req_{serial:032x}")));
    headers.insert(HeaderName::from_static("openai-organization"), HeaderValue::from_static("org-practice"));
    headers.insert(HeaderName::from_static("openai-processing-ms"), HeaderValue::from_static("0"));
    headers.insert(HeaderName::from_static("openai-version"), HeaderValue::from_static("2020-10-01"));
}

/// Adds how the limits stand.
pub(in crate::simulator) fn add_standing(headers: &mut HeaderMap, standing: &Standing) {
    for gauge in standing.iter().flatten() {
        let [limit, remaining, reset] = match gauge.quantity {
            Quantity::Requests => {
                ["x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"]
            }
            Quantity::Tokens => {
                ["x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"]
            }
            // This vendor has no headers for these.
            Quantity::InputTokens | Quantity::OutputTokens => continue,
        };
        headers.insert(HeaderName::from_static(limit), gauge.limit.into());
        headers.insert(HeaderName::from_static(remaining), gauge.remaining.into());
        headers.insert(HeaderName::from_static(reset), value(go_duration(gauge.reset)));
    }
}

/// Adds when to come back.
pub(in crate::simulator) fn add_retry_after(headers: &mut HeaderMap, trouble: &Trouble) {
    let hint = trouble.hint();
    let Some(seconds) = hint.seconds() else { return };
    headers.insert(http::header::RETRY_AFTER, seconds.into());
    let millis = match hint {
        Hint::After(wait) => i64::try_from(wait.as_millis()).unwrap_or(i64::MAX).max(1),
        _ => seconds.saturating_mul(1_000),
    };
    headers.insert(HeaderName::from_static("retry-after-ms"), millis.into());
    headers.insert(HeaderName::from_static("x-should-retry"), HeaderValue::from_static("true"));
}

/// Writes a duration as Go does, to the millisecond: `120ms`, `1.5s`, `6m0s`, `1h0m0s`.
fn go_duration(duration: Duration) -> String {
    let millis = duration.as_nanos().div_ceil(1_000_000);
    if (1..1_000).contains(&millis) {
        return format!("{millis}ms");
    }
    let (hours, minutes) = (millis / 3_600_000, millis / 60_000 % 60);
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
    fn durations_are_written_as_go_writes_them() {
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
    fn a_key_is_never_shown_whole() {
        assert_eq!(hidden("sk-fixture-aaaa-bbbb-0000"), "sk-fixt********0000");
        assert_eq!(hidden("short"), "********");
    }
}
