//! Finds the `error` in a response body, or the text of a body without one; for the formats of Anthropic and
//! Gemini.
//!
//! Accepts JSON of several structures, a web page, plain text and an empty body. Never fails.

use serde_json::Value;

use crate::types::{Cause, Class, Failure};

use super::http_error;

/// Classifies a response with an error status. `classify` knows the error codes of the format. A body without an
/// `error` is classified by the status.
pub(super) fn classify_body(
    status: u16,
    body: &[u8],
    classify: impl FnOnce(Option<u16>, &Value) -> Failure,
) -> Failure {
    match ErrorBody::read(body) {
        ErrorBody::Error(error) => classify(Some(status), &error),
        ErrorBody::Text(text) => {
            http_error::failure(http_error::class_of_status(status), Some(status), &text)
        }
    }
}

/// The content of an error body.
#[derive(Debug, PartialEq)]
enum ErrorBody {
    /// The value of `error`, an object or a string. The body may be an array around it.
    Error(Value),
    /// The text of any other body; may be empty.
    Text(String),
}

impl ErrorBody {
    fn read(body: &[u8]) -> Self {
        let mut json = match serde_json::from_slice(body) {
            Ok(Value::Array(mut all)) if !all.is_empty() => all.swap_remove(0),
            Ok(json) => json,
            Err(_) => return Self::Text(http_error::plain_text(body)),
        };
        if let Some(error) = json.get_mut("error").filter(|error| error.is_object() || error.is_string()) {
            return Self::Error(error.take());
        }
        Self::Text(match ["message", "detail"].iter().find_map(|name| json.get(name)).unwrap_or(&json) {
            Value::String(text) => text.clone(),
            Value::Null => String::new(),
            other => other.to_string(),
        })
    }
}

/// Returns the message of an `error`, which may be a string itself.
pub(super) fn error_message(error: &Value) -> &str {
    error.as_str().or_else(|| error.get("message")?.as_str()).unwrap_or_default()
}

/// Creates the failure of a success response whose body is not an answer.
pub(super) fn unreadable(body: &[u8], error: &serde_json::Error) -> Failure {
    let message = if http_error::is_web_page(body) {
        http_error::web_page_message(body)
    } else {
        format!("cannot read the answer: {error}")
    };
    http_error::failure(Class::Unreadable, None, &message).with_cause(Cause::NotAnApi)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_found_in_every_structure() {
        for body in [r#"{"error":{"message":"no"}}"#, r#"[{"error":{"message":"no"}}]"#, r#"{"error":"no"}"#]
        {
            let ErrorBody::Error(error) = ErrorBody::read(body.as_bytes()) else { panic!("{body}") };
            assert_eq!(error_message(&error), "no", "{body}");
        }
    }

    #[test]
    fn any_other_body_yields_its_text() {
        let cases = [
            (r#"{"detail":"gone"}"#, "gone"),
            (r#"{"message":"no","error":null}"#, "no"),
            (r#"{"detail":[{"loc":["body"]}]}"#, r#"[{"loc":["body"]}]"#),
            ("[]", "[]"),
            ("null", ""),
            ("", ""),
            ("<html><title>Bad gateway</title>", "Bad gateway"),
            ("upstream died", "upstream died"),
        ];
        for (body, text) in cases {
            assert_eq!(ErrorBody::read(body.as_bytes()), ErrorBody::Text(text.to_owned()), "{body}");
        }
    }

    #[test]
    fn a_web_page_is_unreadable_and_its_message_contains_the_title() {
        let page = b"<html><title>Sign in</title></html>";
        let failure = unreadable(page, &serde_json::from_slice::<Value>(page).unwrap_err());
        assert_eq!(&*failure.message, "received a web page instead of an answer: Sign in");
    }
}
