//! Classification of the errors of OpenAI and compatible servers.
//!
//! There are nine structures: an object, a string, a list, a flat object, FastAPI's `detail`, Google's errors, a
//! web page, plain text, and an empty body. The code takes precedence over the message, and the message over the
//! status.

use std::time::SystemTime;

use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Map, Value};

use crate::types::{Class, Failure, FailureScope};
use crate::wire::bounded_json::BoundedJson;
use crate::wire::gemini;
use crate::wire::http_error::{self, class_of_status, plain_text};
use crate::wire::limited_resource::exceeds_limit;
use crate::wire::phrases::{class_of_message, is_long_period_limit};
use crate::wire::rejected_parameter;
use crate::wire::retry_after::wait_in_message;

use super::error_codes::class_of_code;
use super::rate_limit_headers::{has_zero_limit, read_rate_limit_headers};

/// Classifies a response with an error status.
pub(in crate::wire) fn read_error(status: u16, headers: &HeaderMap, body: &[u8], now: SystemTime) -> Failure {
    let value = serde_json::from_slice::<Value>(body).ok();
    let mut failure = match value.as_ref().and_then(error_of) {
        Some(FoundError::Google(error)) => gemini::classify(Some(status), error),
        Some(FoundError::OpenAi(fields)) => fields.failure(Some(status)),
        None => ErrorFields { message: plain_text(body), ..ErrorFields::default() }.failure(Some(status)),
    };
    // OpenRouter's body repeats the headers of the limit that was reached, because proxies drop the real ones.
    let repeated = value.as_ref().and_then(|value| value.pointer("/error/metadata/headers"));
    if let Some(repeated) = repeated.map(headers_of) {
        failure = apply_headers(failure, &repeated, now);
    }
    apply_headers(failure, headers, now)
}

/// Adds the wait from the headers. The header takes precedence because it is more precise than the message.
pub(in crate::wire) fn apply_headers(mut failure: Failure, headers: &HeaderMap, now: SystemTime) -> Failure {
    let limits = read_rate_limit_headers(headers, now);
    if failure.class == Class::RateLimit && has_zero_limit(headers) {
        failure.class = Class::Quota;
    }
    failure.retry_after = limits.retry_after.or(failure.retry_after);
    http_error::apply_headers(gemini::with_daily_reset(failure, now), &limits, now)
}

/// Converts an object of names and values to headers, without those that are invalid.
fn headers_of(value: &Value) -> HeaderMap {
    let pairs = value.as_object().into_iter().flatten();
    let pair = |(name, value): (&String, &Value)| {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        Some((HeaderName::try_from(name).ok()?, HeaderValue::try_from(text).ok()?))
    };
    pairs.filter_map(pair).collect()
}

/// Parses an error that came with a success status, of any length; `None` if `source` is not an error.
///
/// An `error` without content is an error too, and so is a value that is larger than any error and not a part of
/// an answer.
pub(in crate::wire) fn in_band(source: &[u8]) -> Option<Failure> {
    let BoundedJson { value, incomplete } = serde_json::from_slice(source).ok()?;
    let bytes = source.len();
    match error_of(&value) {
        Some(FoundError::Google(error)) => Some(gemini::classify(None, error)),
        Some(FoundError::OpenAi(fields)) => Some(fields.failure(None)),
        None if value.get("error").is_some_and(is_present) => {
            let message = format!("an error of {bytes} bytes without a message");
            Some(ErrorFields { message, ..ErrorFields::default() }.failure(None))
        }
        None if OTHER_FORMAT_FIELDS.iter().any(|name| value.get(name).is_some_and(is_present)) => {
            Some(failure(Class::Unreadable, "an event of another API format"))
        }
        None if incomplete => Some(failure(
            Class::Unreadable,
            &format!("{bytes} bytes that are neither an answer nor an error"),
        )),
        None => None,
    }
}

/// Fields of answers in Anthropic's and Gemini's formats, which this decoder would ignore.
const OTHER_FORMAT_FIELDS: [&str; 3] = ["delta", "content_block", "candidates"];

/// Returns whether a value is an error and not one of the notations for no error.
fn is_present(error: &Value) -> bool {
    match error {
        Value::Null => false,
        Value::Bool(is) => *is,
        Value::Number(code) => code.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(all) => !all.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
    }
}

/// Parses the data of an `error` event, whatever its structure.
pub(in crate::wire) fn in_band_text(data: &str) -> Failure {
    in_band(data.as_bytes()).unwrap_or_else(|| {
        ErrorFields { message: plain_text(data.as_bytes()), ..ErrorFields::default() }.failure(None)
    })
}

/// Creates the failure of a call that the server accepted.
pub(in crate::wire) fn failure(class: Class, message: &str) -> Failure {
    http_error::failure(class, None, message)
}

enum FoundError<'a> {
    /// An error in Google's format.
    Google(&'a Value),
    /// An error in any other format.
    OpenAi(ErrorFields),
}

/// The fields of an error, from any structure.
#[derive(Default)]
struct ErrorFields {
    message: String,
    code: Option<String>,
    kind: Option<String>,
    /// The request parameter that the error refers to.
    param: Option<String>,
    /// The status inside the body, from servers that send it as the code.
    status: Option<u16>,
}

/// Finds the error in a body.
fn error_of(body: &Value) -> Option<FoundError<'_>> {
    let body = match body {
        Value::Array(all) => all.first()?.as_object()?,
        Value::Object(body) => body,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => return None,
    };
    match body.get("error") {
        Some(error) if is_google(error) => Some(FoundError::Google(error)),
        Some(Value::Object(error)) if !error.is_empty() => Some(FoundError::OpenAi(error_fields(error))),
        Some(Value::String(message)) if !message.is_empty() => {
            Some(FoundError::OpenAi(ErrorFields { message: message.clone(), ..error_fields(body) }))
        }
        _ if ["message", "error_msg"].iter().any(|name| body.get(*name).is_some_and(Value::is_string)) => {
            Some(FoundError::OpenAi(error_fields(body)))
        }
        _ => body.get("detail").map(|detail| {
            FoundError::OpenAi(ErrorFields { message: detail_text(detail), ..ErrorFields::default() })
        }),
    }
}

/// Returns whether an error has Google's format, with a `status` in upper case. OpenAI's errors have none.
fn is_google(error: &Value) -> bool {
    let code = error.get("status").and_then(Value::as_str).unwrap_or_default();
    !code.is_empty() && code.bytes().all(|letter| letter.is_ascii_uppercase() || letter == b'_')
}

fn error_fields(error: &Map<String, Value>) -> ErrorFields {
    let text =
        |name| error.get(name).and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned);
    let code = error.get("code").or_else(|| error.get("error_code"));
    let number = code.and_then(Value::as_u64).or_else(|| code?.as_str()?.parse().ok());
    let status = number.and_then(|code| u16::try_from(code).ok()).filter(|code| (400..600).contains(code));
    let message = ["message", "msg", "detail", "error_msg"].into_iter().find_map(text);
    let message = message.unwrap_or_else(|| Value::Object(error.clone()).to_string());
    // The message of OpenRouter's upstream provider follows OpenRouter's own.
    let raw = error.get("metadata").and_then(|metadata| metadata.get("raw")).and_then(Value::as_str);
    ErrorFields {
        message: raw.map_or_else(|| message.clone(), |raw| format!("{message}: {raw}")),
        // A vendor-specific number is a code; an HTTP status is not.
        code: match number {
            Some(number) => status.is_none().then(|| number.to_string()),
            None => text("code").or_else(|| text("error_code")),
        },
        kind: text("type").or_else(|| text("error_type")).or_else(|| text("__type")),
        param: text("param"),
        status,
    }
}

/// Formats FastAPI's `detail`: a string, or a list of locations and messages.
fn detail_text(detail: &Value) -> String {
    let format_one = |error: &Value| {
        let location = error.get("loc").and_then(Value::as_array).into_iter().flatten();
        let location: Vec<_> =
            location.map(|step| step.as_str().map_or_else(|| step.to_string(), str::to_owned)).collect();
        match error.get("msg").and_then(Value::as_str) {
            Some(message) if location.is_empty() => message.to_owned(),
            Some(message) => format!("{}: {message}", location.join(".")),
            None => error.to_string(),
        }
    };
    match detail {
        Value::String(text) => text.clone(),
        Value::Array(errors) => errors.iter().map(format_one).collect::<Vec<_>>().join("; "),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => format_one(detail),
    }
}

impl ErrorFields {
    /// Classifies the error; `status` is that of the response, or `None` if it was a success.
    fn failure(self, status: Option<u16>) -> Failure {
        let class = self.class(status.or(self.status));
        let mut failure = http_error::failure(class, status, &self.message);
        failure.retry_after = wait_in_message(&self.message);
        failure.code = self.code.or(self.kind).map(Into::into);
        if let Some(param) = self.param.filter(|_| class == Class::ApiError) {
            let message = self.message.to_ascii_lowercase();
            let rejected = rejected_parameter::in_field(&param, failure.code.as_deref(), &message);
            failure.scope = rejected.map_or(failure.scope, FailureScope::Parameter);
        }
        if failure.class == Class::TooLong && exceeds_limit(&self.message.to_ascii_lowercase()) {
            return failure.with_scope(FailureScope::Target);
        }
        if failure.class == Class::ValidationError {
            // The model has produced output.
            return failure.with_scope(FailureScope::Answer).maybe_charged();
        }
        failure
    }

    fn class(&self, status: Option<u16>) -> Class {
        let message = self.message.to_ascii_lowercase();
        // Waiting does not help, but the code is that of an ordinary rate limit.
        if exceeds_limit(&message) {
            return Class::TooLong;
        }
        let codes = [self.code.as_deref(), self.kind.as_deref()];
        let class = codes
            .into_iter()
            .flatten()
            .find_map(|code| class_of_code(&code.to_ascii_lowercase(), status))
            .or_else(|| class_of_message(&message, status))
            .unwrap_or_else(|| match status {
                Some(status) => class_of_status(status),
                None if codes.into_iter().flatten().any(is_invalid_request_code) => Class::ApiError,
                None => Class::ServerError,
            });
        // Limits per day and per minute have the same code.
        if class == Class::RateLimit && is_long_period_limit(&message) { Class::Quota } else { class }
    }
}

fn is_invalid_request_code(code: &str) -> bool {
    ["invalid_request_error", "BadRequestError"].contains(&code)
}
