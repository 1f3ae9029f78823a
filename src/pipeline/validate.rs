//! Validates a response against the answer format of its step.
//!
//! A response is accepted as a whole, or refused with a reason that a model can act on. It is never repaired.

use serde_json::Value;

use crate::terminal_text::is_blank;
use crate::types::{EmbeddingOptions, ResponseFormat};

use super::choice::{self, Choices};
use super::extract_json;
use super::schema::{MAX_QUICK_BYTES, Schema};

/// Longest plain text that is validated on an actor's thread. It is only trimmed and copied.
const MAX_QUICK_TEXT_BYTES: usize = 1 << 20;

/// Longest list of numbers that is validated on an actor's thread: more than 3,072 numbers need.
const MAX_QUICK_EMBEDDING_BYTES: usize = 64 << 10;

/// The answer format of a step.
#[derive(Debug, Clone)]
pub(super) enum AnswerValidator {
    /// Any text that is not blank.
    Text,
    /// One of these choices.
    Choice(Choices),
    /// JSON that matches this schema.
    Json(Schema),
    /// The vector of an embedding, with the required number of dimensions.
    Embedding(EmbeddingOptions),
}

impl AnswerValidator {
    /// Returns the response format for the provider.
    pub(super) fn response_format(&self) -> ResponseFormat {
        match self {
            Self::Text | Self::Embedding(_) => ResponseFormat::Text,
            Self::Choice(choices) => ResponseFormat::Choice(choices.choices().clone()),
            Self::Json(schema) => ResponseFormat::Json(schema.value().clone()),
        }
    }

    /// Returns the answer in the response `text`.
    ///
    /// # Errors
    /// Why it is invalid, in words for the model. The text continues "your answer was not accepted:".
    pub(super) fn validate(&self, text: &str) -> Result<Value, String> {
        match self {
            Self::Text if is_blank(text) => Err("it is empty".to_owned()),
            Self::Text => Ok(text.trim().into()),
            Self::Choice(choices) => choices.find_choice(text).map(Value::from),
            Self::Json(schema) => validate_json(schema, extract_json::extract(text)?),
            Self::Embedding(options) => validate_embedding(*options, text),
        }
    }

    /// Returns whether [`validate`](Self::validate) is fast enough for an actor's thread.
    pub(super) fn is_quick(&self, text: &str) -> bool {
        match self {
            Self::Text => text.len() <= MAX_QUICK_TEXT_BYTES,
            // A longer response is refused without parsing.
            Self::Choice(_) => text.len() <= MAX_QUICK_BYTES || text.len() > choice::MAX_ANSWER_BYTES,
            Self::Json(schema) => schema.is_quick(text.len()),
            Self::Embedding(_) => text.len() <= MAX_QUICK_EMBEDDING_BYTES,
        }
    }

    /// Returns the instruction at the end of the prompt of a retry.
    pub(super) fn retry_instruction(&self) -> &'static str {
        match self {
            Self::Text => "Answer in plain text.",
            Self::Choice(_) => "Answer with exactly one of the choices and nothing else.",
            Self::Json(_) => "Answer with the corrected JSON and nothing else.",
            // A step with `embed` has no validation retries.
            Self::Embedding(_) => "",
        }
    }
}

/// Accepts a list of finite numbers of the required length.
fn validate_embedding(options: EmbeddingOptions, text: &str) -> Result<Value, String> {
    let value: Value =
        serde_json::from_str(text).map_err(|error| format!("it is not a list of numbers: {error}"))?;
    let Some(numbers) = value.as_array().filter(|numbers| !numbers.is_empty()) else {
        return Err("it is not a list of numbers".to_owned());
    };
    let is_finite = |number: &Value| number.as_f64().is_some_and(f64::is_finite);
    if let Some(index) = numbers.iter().position(|number| !is_finite(number)) {
        return Err(format!("number {} of the vector is not a finite number", index + 1));
    }
    match options.dimensions {
        Some(dimensions) if dimensions.get() as usize != numbers.len() => {
            Err(format!("it has {} dimensions instead of {dimensions}", numbers.len()))
        }
        Some(_) | None => Ok(value),
    }
}

/// Accepts a value, or the value inside `{"answer": ..}`, because some providers can return only objects.
fn validate_json(schema: &Schema, mut value: Value) -> Result<Value, String> {
    let mut reason = match schema.check(&value) {
        Ok(()) => return Ok(value),
        Err(reason) => reason,
    };
    let wrapped = value.as_object_mut().filter(|object| object.len() == 1);
    if let Some(inner) = wrapped.and_then(|object| object.get_mut("answer")).map(Value::take) {
        match schema.check(&inner) {
            Ok(()) => return Ok(inner),
            // The model cannot correct anything that the error of the wrapper names.
            Err(inner_reason) if !schema.has_property("answer") => reason = inner_reason,
            Err(_) => {}
        }
    }
    Err(format!("it does not match the schema: {reason}"))
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use serde_json::json;

    use super::*;

    fn list() -> AnswerValidator {
        AnswerValidator::Json(Schema::new(json!({ "type": "array", "items": { "type": "string" } })).unwrap())
    }

    #[test]
    fn text_is_trimmed_and_a_blank_text_is_refused() {
        assert_eq!(AnswerValidator::Text.validate(" hello \n"), Ok(json!("hello")));
        for blank in ["", " \n", "\u{200b} \u{ad}", "\u{feff}", "\u{0}"] {
            assert!(AnswerValidator::Text.validate(blank).is_err(), "{blank:?}");
        }
    }

    #[test]
    fn a_choice_is_returned_as_it_was_configured() {
        let validator = AnswerValidator::Choice(Choices::new(vec!["Yes".to_owned(), "No".to_owned()]));
        assert_eq!(validator.validate("**yes**"), Ok(json!("Yes")));
    }

    #[test]
    fn a_long_choice_or_text_is_not_validated_on_an_actors_thread() {
        let choice = AnswerValidator::Choice(Choices::new(vec!["Yes".to_owned()]));
        assert!(choice.is_quick(&"\n".repeat(MAX_QUICK_BYTES)));
        assert!(!choice.is_quick(&"\n".repeat(MAX_QUICK_BYTES + 1)));
        assert!(choice.is_quick(&"\n".repeat(15 << 20)), "it is refused without parsing");
        assert!(AnswerValidator::Text.is_quick(&"\n".repeat(MAX_QUICK_TEXT_BYTES)));
        assert!(!AnswerValidator::Text.is_quick(&"\n".repeat(MAX_QUICK_TEXT_BYTES + 1)));
    }

    #[test]
    fn a_vector_is_a_list_of_finite_numbers_of_the_required_length() {
        let of = |dimensions| AnswerValidator::Embedding(EmbeddingOptions::new(NonZeroU32::new(dimensions)));
        assert_eq!(of(0).validate("[0.1,-2,3e-8]").unwrap().as_array().unwrap().len(), 3);
        assert_eq!(of(2).validate("[0.1,0.25]").map(|value| value.to_string()), Ok("[0.1,0.25]".to_owned()));
        assert_eq!(of(3).validate("[0.1,0.25]"), Err("it has 2 dimensions instead of 3".to_owned()));
        for text in ["[]", "{}", "0.5", "[null]", "[\"1\"]", "[[1]]", "", "[1e999]"] {
            assert!(of(0).validate(text).is_err(), "{text}");
        }
        assert!(of(0).is_quick(&"1".repeat(MAX_QUICK_EMBEDDING_BYTES)));
        assert!(!of(0).is_quick(&"1".repeat(MAX_QUICK_EMBEDDING_BYTES + 1)));
    }

    #[test]
    fn json_is_validated_and_the_reason_names_the_error() {
        assert_eq!(list().validate("```json\n[\"a\"]\n```"), Ok(json!(["a"])));
        assert_eq!(list().validate(r#"{"answer": ["a"]}"#), Ok(json!(["a"])));
        let reason = list().validate("[1]").unwrap_err();
        assert_eq!(reason, r#"it does not match the schema: at /0: 1 is not of type "string""#);
        assert!(list().validate("nothing").is_err());
    }

    #[test]
    fn the_reason_for_a_wrapped_answer_names_the_wrong_element_and_not_the_wrapper() {
        let reason = list().validate(r#"{"answer": ["a", 1]}"#).unwrap_err();
        assert_eq!(reason, r#"it does not match the schema: at /1: 1 is not of type "string""#);
        let own = json!({ "type": "object", "properties": { "answer": { "type": "string" } } });
        let reason =
            AnswerValidator::Json(Schema::new(own).unwrap()).validate(r#"{"answer": 1}"#).unwrap_err();
        assert_eq!(reason, r#"it does not match the schema: at /answer: 1 is not of type "string""#);
    }
}
