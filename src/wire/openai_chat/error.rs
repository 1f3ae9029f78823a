//! Reads the errors of OpenAI and of those who imitate it, and says what each means.
//!
//! They come in nine shapes: an object, a string, a list, a flat one, FastAPI's `detail`, Google's,
//! a web page, plain words, nothing. What a code says goes before what the message says, and that
//! before the status. Nothing outside this file looks at any of them.

use std::time::SystemTime;

use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Map, Value};

use crate::types::{Class, Failure, Scope};
use crate::wire::excerpt::Excerpt;
use crate::wire::gemini;
use crate::wire::limited::exceeds_limit;
use crate::wire::parameter;
use crate::wire::phrases::{class_of_message, is_of_a_day};
use crate::wire::refused::{self, class_of_status, plain_text};
use crate::wire::times::wait_in_words;

use super::limits::{grants_nothing, read_hints};
use super::words::class_of_word;

/// Classifies a response whose status is no success.
pub(in crate::wire) fn read_error(status: u16, headers: &HeaderMap, body: &[u8], now: SystemTime) -> Failure {
    if let Some(page) = refused::page(status, body) {
        return page;
    }
    let value = serde_json::from_slice::<Value>(body).ok();
    let mut failure = match value.as_ref().and_then(error_of) {
        Some(Found::Google(error)) => gemini::classify(Some(status), error),
        Some(Found::Said(said)) => said.failure(Some(status)),
        None => Said { message: plain_text(body), ..Said::default() }.failure(Some(status)),
    };
    // OpenRouter's body repeats the headers of the limit that was met, and proxies drop the real ones.
    let repeated = value.as_ref().and_then(|value| value.pointer("/error/metadata/headers"));
    if let Some(repeated) = repeated.map(headers_of) {
        failure = complete(failure, &repeated, now);
    }
    complete(failure, headers, now)
}

/// Adds what only the headers and the clock know. The header is finer than the words, and goes first.
pub(in crate::wire) fn complete(mut failure: Failure, headers: &HeaderMap, now: SystemTime) -> Failure {
    let hints = read_hints(headers, now);
    if failure.class == Class::RateLimit && grants_nothing(headers) {
        failure.class = Class::Quota;
    }
    failure.retry_after = hints.retry_after.or(failure.retry_after);
    refused::complete(gemini::until_tomorrow(failure, now), &hints, now)
}

/// Takes what can be a header from an object of names and values.
fn headers_of(value: &Value) -> HeaderMap {
    let pairs = value.as_object().into_iter().flatten();
    let pair = |(name, value): (&String, &Value)| {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        Some((HeaderName::try_from(name).ok()?, HeaderValue::try_from(text).ok()?))
    };
    pairs.filter_map(pair).collect()
}

/// Reads an error that came with a success status, however long it is; `None` when `source` is no error.
///
/// An `error` that says nothing is an error all the same, and so is what has more parts than any error and is no
/// piece of an answer either.
pub(super) fn in_band(source: &[u8]) -> Option<Failure> {
    let Excerpt { value, incomplete } = serde_json::from_slice(source).ok()?;
    let bytes = source.len();
    match error_of(&value) {
        Some(Found::Google(error)) => Some(gemini::classify(None, error)),
        Some(Found::Said(said)) => Some(said.failure(None)),
        None if value.get("error").is_some_and(is_something) => {
            let message = format!("an error of {bytes} bytes that does not say what it is");
            Some(Said { message, ..Said::default() }.failure(None))
        }
        None if OF_OTHER_FORMATS.iter().any(|name| value.get(name).is_some_and(is_something)) => {
            Some(failure(Class::Unreadable, "an event of another format's answer"))
        }
        None if incomplete => Some(failure(
            Class::Unreadable,
            &format!("{bytes} bytes that are neither an answer nor an error"),
        )),
        None => None,
    }
}

/// Fields that carry an answer of Anthropic's and Gemini's formats: what they hold would be lost here.
const OF_OTHER_FORMATS: [&str; 3] = ["delta", "content_block", "candidates"];

/// Tells an error from the ways to say that there is none.
fn is_something(error: &Value) -> bool {
    match error {
        Value::Null => false,
        Value::Bool(is) => *is,
        Value::Number(code) => code.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(all) => !all.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
    }
}

/// Reads the data of an event that calls itself an error, whatever it is.
pub(super) fn in_band_text(data: &str) -> Failure {
    in_band(data.as_bytes())
        .unwrap_or_else(|| Said { message: plain_text(data.as_bytes()), ..Said::default() }.failure(None))
}

/// Makes a failure of a call that was let in.
pub(super) fn failure(class: Class, message: &str) -> Failure {
    refused::failure(class, None, message)
}

enum Found<'a> {
    /// One that Google's words tell more about.
    Google(&'a Value),
    Said(Said),
}

/// What an error says, wherever it stood.
#[derive(Default)]
struct Said {
    message: String,
    code: Option<String>,
    kind: Option<String>,
    /// The parameter of the request that it is about.
    param: Option<String>,
    /// A status inside the body, from servers that send theirs as the code.
    status: Option<u16>,
}

/// Finds the error in a body.
fn error_of(body: &Value) -> Option<Found<'_>> {
    let body = match body {
        Value::Array(all) => all.first()?.as_object()?,
        Value::Object(body) => body,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => return None,
    };
    match body.get("error") {
        Some(error) if is_google(error) => Some(Found::Google(error)),
        Some(Value::Object(error)) if !error.is_empty() => Some(Found::Said(fields(error))),
        Some(Value::String(message)) if !message.is_empty() => {
            Some(Found::Said(Said { message: message.clone(), ..fields(body) }))
        }
        _ if ["message", "error_msg"].iter().any(|name| body.get(*name).is_some_and(Value::is_string)) => {
            Some(Found::Said(fields(body)))
        }
        _ => body
            .get("detail")
            .map(|detail| Found::Said(Said { message: detail_text(detail), ..Said::default() })),
    }
}

/// Tells Google's errors, which name their status in capitals, from OpenAI's, which have none.
fn is_google(error: &Value) -> bool {
    let word = error.get("status").and_then(Value::as_str).unwrap_or_default();
    !word.is_empty() && word.bytes().all(|letter| letter.is_ascii_uppercase() || letter == b'_')
}

fn fields(error: &Map<String, Value>) -> Said {
    let text =
        |name| error.get(name).and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned);
    let code = error.get("code").or_else(|| error.get("error_code"));
    let number = code.and_then(Value::as_u64).or_else(|| code?.as_str()?.parse().ok());
    let status = number.and_then(|code| u16::try_from(code).ok()).filter(|code| (400..600).contains(code));
    let message = ["message", "msg", "detail", "error_msg"].into_iter().find_map(text);
    let message = message.unwrap_or_else(|| Value::Object(error.clone()).to_string());
    // What OpenRouter's provider said stands behind its own words.
    let raw = error.get("metadata").and_then(|metadata| metadata.get("raw")).and_then(Value::as_str);
    Said {
        message: raw.map_or_else(|| message.clone(), |raw| format!("{message}: {raw}")),
        // A number of the vendor's own is a word like any other; a status is none.
        code: match number {
            Some(number) => status.is_none().then(|| number.to_string()),
            None => text("code").or_else(|| text("error_code")),
        },
        kind: text("type").or_else(|| text("error_type")).or_else(|| text("__type")),
        param: text("param"),
        status,
    }
}

/// Brings FastAPI's `detail` into words: a text, or a list of places and what is wrong there.
fn detail_text(detail: &Value) -> String {
    let one = |fault: &Value| {
        let place = fault.get("loc").and_then(Value::as_array).into_iter().flatten();
        let place: Vec<_> =
            place.map(|step| step.as_str().map_or_else(|| step.to_string(), str::to_owned)).collect();
        match fault.get("msg").and_then(Value::as_str) {
            Some(message) if place.is_empty() => message.to_owned(),
            Some(message) => format!("{}: {message}", place.join(".")),
            None => fault.to_string(),
        }
    };
    match detail {
        Value::String(text) => text.clone(),
        Value::Array(faults) => faults.iter().map(one).collect::<Vec<_>>().join("; "),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => one(detail),
    }
}

impl Said {
    /// Classifies; `status` is the response's, or `None` when that was a success.
    fn failure(self, status: Option<u16>) -> Failure {
        let class = self.class(status.or(self.status));
        let mut failure = refused::failure(class, status, &self.message);
        failure.retry_after = wait_in_words(&self.message);
        failure.code = self.code.or(self.kind).map(Into::into);
        if let Some(param) = self.param.filter(|_| class == Class::ApiError) {
            let message = self.message.to_ascii_lowercase();
            let refused = parameter::refused_by_field(&param, failure.code.as_deref(), &message);
            failure.scope = refused.map_or(failure.scope, Scope::Parameter);
        }
        if failure.class == Class::TooLong && exceeds_limit(&self.message.to_ascii_lowercase()) {
            return failure.reaching(Scope::Target);
        }
        if failure.class == Class::ValidationError {
            // The model has written something.
            return failure.reaching(Scope::Answer).maybe_charged();
        }
        failure
    }

    fn class(&self, status: Option<u16>) -> Class {
        let message = self.message.to_ascii_lowercase();
        // Waiting never helps, and its code is that of an ordinary rate limit.
        if exceeds_limit(&message) {
            return Class::TooLong;
        }
        let words = [self.code.as_deref(), self.kind.as_deref()];
        let class = words
            .into_iter()
            .flatten()
            .find_map(|word| class_of_word(&word.to_ascii_lowercase(), status))
            .or_else(|| class_of_message(&message, status))
            .unwrap_or_else(|| match status {
                Some(status) => class_of_status(status),
                None if words.into_iter().flatten().any(is_callers_fault) => Class::ApiError,
                None => Class::ServerError,
            });
        // The code of a day's limit is that of a minute's.
        if class == Class::RateLimit && is_of_a_day(&message) { Class::Quota } else { class }
    }
}

fn is_callers_fault(word: &str) -> bool {
    ["invalid_request_error", "BadRequestError"].contains(&word)
}
