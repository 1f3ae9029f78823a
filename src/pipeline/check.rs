//! Holds an answer against what its step asked for.
//!
//! An answer is accepted whole or refused with a reason that a model can act on; never mended.

use serde_json::Value;

use crate::screen::is_blank;
use crate::types::Shape;

use super::choice::{self, Choices};
use super::json;
use super::schema::{MAX_QUICK_BYTES, Schema};

/// Longest plain text that is checked on an actor's thread: it is only trimmed and copied.
const MAX_QUICK_TEXT: usize = 1 << 20;

/// What the answer of a step must be.
#[derive(Debug, Clone)]
pub(super) enum Check {
    /// Any text but an empty one.
    Text,
    /// One of these.
    Choice(Choices),
    /// JSON of this schema.
    Json(Schema),
}

impl Check {
    /// Returns what to tell the provider of it.
    pub(super) fn shape(&self) -> Shape {
        match self {
            Self::Text => Shape::Text,
            Self::Choice(choices) => Shape::Choice(choices.given().clone()),
            Self::Json(schema) => Shape::Json(schema.value().clone()),
        }
    }

    /// Returns the answer to give out for a model's `text`.
    ///
    /// # Errors
    /// Why it is not accepted, in words for the model; they go on from "your answer".
    pub(super) fn accept(&self, text: &str) -> Result<Value, String> {
        match self {
            Self::Text if is_blank(text) => Err("it is empty".to_owned()),
            Self::Text => Ok(text.trim().into()),
            Self::Choice(choices) => choices.pick(text).map(Value::from),
            Self::Json(schema) => accept_json(schema, json::find(text)?),
        }
    }

    /// Returns whether [`accept`](Self::accept) is short enough for an actor's thread.
    pub(super) fn is_quick(&self, text: &str) -> bool {
        match self {
            Self::Text => text.len() <= MAX_QUICK_TEXT,
            // A longer one is refused unread.
            Self::Choice(_) => text.len() <= MAX_QUICK_BYTES || text.len() > choice::MAX_ANSWER,
            Self::Json(schema) => schema.is_quick(text.len()),
        }
    }

    /// Says what is wanted, for a re-ask.
    pub(super) fn wanted(&self) -> &'static str {
        match self {
            Self::Text => "Answer in plain text.",
            Self::Choice(_) => "Answer with exactly one of the choices and nothing else.",
            Self::Json(_) => "Answer with the corrected JSON and nothing else.",
        }
    }
}

/// Accepts a value, or the one inside `{"answer": ..}`: some providers can give only objects.
fn accept_json(schema: &Schema, mut value: Value) -> Result<Value, String> {
    let mut reason = match schema.check(&value) {
        Ok(()) => return Ok(value),
        Err(reason) => reason,
    };
    let wrapped = value.as_object_mut().filter(|object| object.len() == 1);
    if let Some(inner) = wrapped.and_then(|object| object.get_mut("answer")).map(Value::take) {
        match schema.check(&inner) {
            Ok(()) => return Ok(inner),
            // The reason about the wrapper would name nothing that the model can correct.
            Err(inside) if !schema.has_property("answer") => reason = inside,
            Err(_) => {}
        }
    }
    Err(format!("it does not match the schema: {reason}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn list() -> Check {
        Check::Json(Schema::new(json!({ "type": "array", "items": { "type": "string" } })).unwrap())
    }

    #[test]
    fn text_is_trimmed_and_never_empty() {
        assert_eq!(Check::Text.accept(" hello \n"), Ok(json!("hello")));
        for blank in ["", " \n", "\u{200b} \u{ad}", "\u{feff}", "\u{0}"] {
            assert!(Check::Text.accept(blank).is_err(), "{blank:?}");
        }
    }

    #[test]
    fn a_choice_is_given_out_as_it_was_configured() {
        let check = Check::Choice(Choices::new(vec!["Yes".to_owned(), "No".to_owned()]));
        assert_eq!(check.accept("**yes**"), Ok(json!("Yes")));
    }

    #[test]
    fn a_long_choice_or_text_is_not_checked_on_the_actors_thread() {
        let choice = Check::Choice(Choices::new(vec!["Yes".to_owned()]));
        assert!(choice.is_quick(&"\n".repeat(MAX_QUICK_BYTES)));
        assert!(!choice.is_quick(&"\n".repeat(MAX_QUICK_BYTES + 1)));
        assert!(choice.is_quick(&"\n".repeat(15 << 20)), "it is refused unread");
        assert!(Check::Text.is_quick(&"\n".repeat(MAX_QUICK_TEXT)));
        assert!(!Check::Text.is_quick(&"\n".repeat(MAX_QUICK_TEXT + 1)));
    }

    #[test]
    fn json_is_checked_and_the_reason_names_what_is_wrong() {
        assert_eq!(list().accept("```json\n[\"a\"]\n```"), Ok(json!(["a"])));
        assert_eq!(list().accept(r#"{"answer": ["a"]}"#), Ok(json!(["a"])));
        let reason = list().accept("[1]").unwrap_err();
        assert_eq!(reason, r#"it does not match the schema: at /0: 1 is not of type "string""#);
        assert!(list().accept("nothing").is_err());
    }

    #[test]
    fn the_reason_for_a_wrapped_answer_names_the_wrong_element_and_not_the_wrapper() {
        let reason = list().accept(r#"{"answer": ["a", 1]}"#).unwrap_err();
        assert_eq!(reason, r#"it does not match the schema: at /1: 1 is not of type "string""#);
        let own = json!({ "type": "object", "properties": { "answer": { "type": "string" } } });
        let reason = Check::Json(Schema::new(own).unwrap()).accept(r#"{"answer": 1}"#).unwrap_err();
        assert_eq!(reason, r#"it does not match the schema: at /answer: 1 is not of type "string""#);
    }
}
