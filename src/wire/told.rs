//! Finds the `error` in a body, or the words of a body that has none.
//!
//! Takes JSON of several shapes, a web page, plain text, nothing. It never fails.

use serde_json::Value;

use crate::types::{Cause, Class, Failure};

use super::refused;

/// What the body of a refusal says.
#[derive(Debug, PartialEq)]
pub(super) enum Told {
    /// What stands under `error`, with or without an array around it: an object or a text.
    Error(Value),
    /// The words of any other body; may be empty.
    Words(String),
}

impl Told {
    pub(super) fn read(body: &[u8]) -> Self {
        let mut json = match serde_json::from_slice(body) {
            Ok(Value::Array(mut all)) if !all.is_empty() => all.swap_remove(0),
            Ok(json) => json,
            Err(_) => return Self::Words(refused::plain_text(body)),
        };
        if let Some(error) = json.get_mut("error").filter(|error| error.is_object() || error.is_string()) {
            return Self::Error(error.take());
        }
        Self::Words(match ["message", "detail"].iter().find_map(|name| json.get(name)).unwrap_or(&json) {
            Value::String(text) => text.clone(),
            Value::Null => String::new(),
            other => other.to_string(),
        })
    }
}

/// Returns the message of an `error`, which may itself be the message.
pub(super) fn message_of(error: &Value) -> &str {
    error.as_str().or_else(|| error.get("message")?.as_str()).unwrap_or_default()
}

/// Makes the failure for a body that came as an answer and is none.
pub(super) fn unreadable(body: &[u8], error: &serde_json::Error) -> Failure {
    let start = String::from_utf8_lossy(&body[..body.len().min(64)]);
    let message = if refused::looks_like_html(&start) {
        format!("a web page came instead of an answer: {}", refused::plain_text(body))
    } else {
        format!("cannot read the answer: {error}")
    };
    refused::failure(Class::Unreadable, None, &message).because(Cause::NoApi)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_found_in_every_shape() {
        for body in [r#"{"error":{"message":"no"}}"#, r#"[{"error":{"message":"no"}}]"#, r#"{"error":"no"}"#]
        {
            let Told::Error(error) = Told::read(body.as_bytes()) else { panic!("{body}") };
            assert_eq!(message_of(&error), "no", "{body}");
        }
    }

    #[test]
    fn any_other_body_gives_its_words() {
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
        for (body, words) in cases {
            assert_eq!(Told::read(body.as_bytes()), Told::Words(words.to_owned()), "{body}");
        }
    }

    #[test]
    fn a_web_page_is_no_answer_and_is_named_by_its_title() {
        let page = b"<html><title>Sign in</title></html>";
        let failure = unreadable(page, &serde_json::from_slice::<Value>(page).unwrap_err());
        assert_eq!(&*failure.message, "a web page came instead of an answer: Sign in");
    }
}
