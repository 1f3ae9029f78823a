//! Decides how a response format is requested, and unwraps the answer.
//!
//! Providers require an object at the root of a schema, so any other root is wrapped as `{"answer": ...}`. The
//! pipeline validates the answer and retries.

use std::borrow::Cow;

use serde::de::IgnoredAny;
use serde_json::{Map, Value, json};

use crate::types::ResponseFormat;

use super::StructuredOutput;
use super::schema_rules::SchemaRules;
use super::translate_schema::translate;

/// How a response format is requested.
#[derive(Debug, Default, PartialEq)]
pub(super) struct RequestedFormat<'a> {
    /// The schema for the provider's structured output.
    pub(super) schema: Option<Cow<'a, Value>>,
    /// Whether to use the provider's JSON mode. Never together with `schema`.
    pub(super) json_only: bool,
    /// An instruction for the system prompt.
    pub(super) instruction: Option<String>,
    /// Whether the answer is wrapped as `{"answer": ...}`; see [`unwrap_answer`].
    pub(super) wrapped: bool,
}

impl RequestedFormat<'_> {
    /// Returns the system prompt with the instruction added.
    pub(super) fn system<'s>(&'s self, system: Option<&'s str>) -> Option<Cow<'s, str>> {
        match (system, self.instruction.as_deref()) {
            (Some(system), Some(instruction)) => Some(Cow::Owned(format!("{system}\n\n{instruction}"))),
            (Some(alone), None) | (None, Some(alone)) => Some(Cow::Borrowed(alone)),
            (None, None) => None,
        }
    }
}

/// Decides how to request `response_format`. A schema is translated by the `rules` of the provider, and put into
/// the prompt if it is still not accepted. Without rules every schema is sent unchanged.
pub(super) fn request_format<'a>(
    response_format: &'a ResponseFormat,
    structured: StructuredOutput,
    rules: Option<&SchemaRules>,
) -> RequestedFormat<'a> {
    let schema = match response_format {
        ResponseFormat::Text => return RequestedFormat::default(),
        ResponseFormat::Choice(choices) => {
            return RequestedFormat {
                instruction: Some(choice_instruction(choices)),
                ..RequestedFormat::default()
            };
        }
        ResponseFormat::Json(schema) => schema,
    };
    let wrapped = needs_wrapping(response_format, structured);
    let sent = if wrapped { Cow::Owned(wrap_schema(schema)) } else { Cow::Borrowed(&**schema) };
    match structured {
        StructuredOutput::Schema => {
            let accepted = match rules {
                Some(rules) => accepted_by(rules, sent.clone()),
                None => Some(sent.clone()),
            };
            match accepted {
                Some(schema) => {
                    RequestedFormat { schema: Some(schema), json_only: false, instruction: None, wrapped }
                }
                None => RequestedFormat {
                    schema: None,
                    json_only: true,
                    instruction: Some(schema_instruction(&sent)),
                    wrapped,
                },
            }
        }
        StructuredOutput::Json => RequestedFormat {
            schema: None,
            json_only: true,
            instruction: Some(schema_instruction(&sent)),
            wrapped,
        },
        StructuredOutput::Prompt => RequestedFormat {
            schema: None,
            json_only: false,
            instruction: Some(schema_instruction(&sent)),
            wrapped,
        },
    }
}

/// Returns a schema in a form that the vendor accepts, translated if necessary; `None` if there is none.
pub(super) fn accepted_by<'a>(rules: &SchemaRules, schema: Cow<'a, Value>) -> Option<Cow<'a, Value>> {
    let translated = translate(schema.clone(), rules);
    [translated, schema].into_iter().find(|schema| rules.accepts(schema))
}

/// Returns whether [`request_format`] wraps the answer, for the decoder of the response.
pub(super) fn needs_wrapping(response_format: &ResponseFormat, structured: StructuredOutput) -> bool {
    let is_native = match structured {
        StructuredOutput::Schema | StructuredOutput::Json => true,
        StructuredOutput::Prompt => false,
    };
    match response_format {
        ResponseFormat::Text | ResponseFormat::Choice(_) => false,
        ResponseFormat::Json(schema) => is_native && schema.get("type").is_none_or(|root| root != "object"),
    }
}

/// Unwraps `{"answer": ...}`. If the provider ignored the wrapping, the text is unchanged.
pub(super) fn unwrap_answer(text: String, wrapped: bool) -> String {
    match wrapped_value(&text) {
        Some(answer) if wrapped => answer.to_owned(),
        Some(_) | None => text,
    }
}

/// Returns the original text of the answer, so that no number is converted to a float.
fn wrapped_value(text: &str) -> Option<&str> {
    let value = text.trim().strip_prefix('{')?.trim_start().strip_prefix("\"answer\"")?;
    let value = value.trim_start().strip_prefix(':')?.trim_start();
    let mut values = serde_json::Deserializer::from_str(value).into_iter::<IgnoredAny>();
    values.next()?.ok()?;
    let (answer, rest) = value.split_at_checked(values.byte_offset())?;
    (rest.trim() == "}").then_some(answer)
}

fn choice_instruction(choices: &[String]) -> String {
    let choices = choices.join(", ");
    format!(
        "Reply with one word of the list and nothing else, no explanation.\nAnswer with exactly one of: {choices}"
    )
}

fn schema_instruction(schema: &Value) -> String {
    format!("Answer with JSON only, no code fence, that satisfies this JSON Schema:\n{schema}")
}

fn wrap_schema(schema: &Value) -> Value {
    let mut inner = schema.clone();
    rebase_references(&mut inner);
    let mut root = Map::new();
    if let Value::Object(inner) = &mut inner {
        // Definitions stay at the root, where references and providers expect them.
        for name in ["$schema", "$defs", "definitions"] {
            root.extend(inner.shift_remove(name).map(|value| (name.to_owned(), value)));
        }
    }
    root.insert("type".to_owned(), json!("object"));
    root.insert("properties".to_owned(), json!({ "answer": inner }));
    root.insert("required".to_owned(), json!(["answer"]));
    root.insert("additionalProperties".to_owned(), json!(false));
    Value::Object(root)
}

/// Adjusts references into the schema to its new position.
fn rebase_references(schema: &mut Value) {
    match schema {
        Value::Object(keywords) => {
            for (keyword, value) in keywords {
                match (keyword.as_str(), &mut *value) {
                    ("const" | "default" | "enum" | "examples", _) => {}
                    // The keys below these are names and not keywords.
                    (
                        "properties" | "patternProperties" | "dependentSchemas" | "$defs" | "definitions",
                        Value::Object(named),
                    ) => {
                        named.values_mut().for_each(rebase_references);
                    }
                    ("$ref", Value::String(target)) => {
                        let at_root =
                            ["#/$defs/", "#/definitions/"].iter().any(|root| target.starts_with(root));
                        if let (false, Some(path)) = (at_root, target.strip_prefix('#')) {
                            *target = format!("#/properties/answer{path}");
                        }
                    }
                    _ => rebase_references(value),
                }
            }
        }
        Value::Array(all) => all.iter_mut().for_each(rebase_references),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::schema_rules::ANTHROPIC;

    fn list() -> ResponseFormat {
        ResponseFormat::Json(json!({ "type": "array", "items": { "type": "string" } }).into())
    }

    fn object() -> ResponseFormat {
        ResponseFormat::Json(json!({ "type": "object" }).into())
    }

    #[test]
    fn an_object_schema_is_sent_unchanged() {
        let response_format = object();
        let request = request_format(&response_format, StructuredOutput::Schema, None);
        assert_eq!(request.schema.as_deref(), Some(&json!({ "type": "object" })));
        assert!(!request.wrapped && !request.json_only && request.instruction.is_none());
    }

    #[test]
    fn any_other_root_is_wrapped_in_an_object() {
        let response_format = list();
        let request = request_format(&response_format, StructuredOutput::Schema, None);
        let expected = json!({
            "type": "object",
            "properties": { "answer": { "type": "array", "items": { "type": "string" } } },
            "required": ["answer"],
            "additionalProperties": false,
        });
        assert_eq!(request.schema.as_deref(), Some(&expected));
        assert!(request.wrapped);
    }

    #[test]
    fn references_are_valid_after_wrapping() {
        let schema = json!({
            "type": "array",
            "items": { "anyOf": [{ "$ref": "#" }, { "$ref": "#/$defs/word" }, { "$ref": "#/contains" }] },
            "contains": { "type": "object", "properties": { "default": { "$ref": "#" } } },
            "minContains": 0,
            "$defs": { "word": { "type": "string", "examples": [{ "$ref": "#" }], "maxLength": 1 } },
        });
        let wrapped = wrap_schema(&schema);
        assert_eq!(wrapped["$defs"]["word"]["examples"], json!([{ "$ref": "#" }]));
        let validator = jsonschema::validator_for(&wrapped).unwrap();
        assert!(validator.is_valid(&json!({ "answer": [[], ["w"], { "default": [[]] }] })));
        assert!(!validator.is_valid(&json!({ "answer": ["word"] })));
        assert!(!validator.is_valid(&json!({ "answer": [{ "default": 1 }] })));
        assert!(!validator.is_valid(&json!([])));
    }

    #[test]
    fn a_schema_that_the_provider_does_not_accept_is_put_into_the_prompt() {
        let list = list();
        let object = object();
        let request = request_format(&object, StructuredOutput::Schema, Some(&ANTHROPIC));
        assert!(request.schema.is_none() && request.json_only);
        assert!(request.instruction.unwrap().ends_with("JSON Schema:\n{\"type\":\"object\"}"));
        let request = request_format(&list, StructuredOutput::Json, None);
        assert!(request.json_only && request.wrapped && request.instruction.unwrap().contains("\"answer\""));
        let request = request_format(&list, StructuredOutput::Prompt, None);
        assert!(!request.json_only && !request.wrapped);
        assert!(
            request.instruction.unwrap().ends_with("{\"type\":\"array\",\"items\":{\"type\":\"string\"}}")
        );
    }

    #[test]
    fn the_instruction_of_a_choice_ends_with_the_list_of_choices() {
        let response_format = ResponseFormat::Choice(["URGENT", "OTHER"].map(str::to_owned).into());
        let request = request_format(&response_format, StructuredOutput::Schema, None);
        let system = request.system(Some("Sort mail.")).unwrap();
        assert!(system.starts_with("Sort mail.\n\n"));
        assert_eq!(system.lines().last(), Some("Answer with exactly one of: URGENT, OTHER"));
        assert!(request.schema.is_none() && !request.json_only && !request.wrapped);
    }

    #[test]
    fn plain_text_adds_no_instruction() {
        let request = request_format(&ResponseFormat::Text, StructuredOutput::Schema, None);
        assert_eq!(request, RequestedFormat::default());
        assert_eq!(request.system(None), None);
        assert_eq!(request.system(Some("x")).as_deref(), Some("x"));
    }

    #[test]
    fn only_a_wrapped_answer_is_unwrapped() {
        let cases = [
            (r#"{"answer":["a","b"]}"#, r#"["a","b"]"#),
            (" { \"answer\" :\n \"a}\" } ", r#""a}""#),
            (r#"{"answer":12345678901234567890.10}"#, "12345678901234567890.10"),
            (r#"{"answer":null}"#, "null"),
            (r#"{"answer":{"answer":1}}"#, r#"{"answer":1}"#),
            (r#"["a","b"]"#, r#"["a","b"]"#),
            (r#"{"answer":1,"more":2}"#, r#"{"answer":1,"more":2}"#),
            (r#"{"answer":1"#, r#"{"answer":1"#),
            (r#"{"answer":}"#, r#"{"answer":}"#),
            (r#"{"answers":1}"#, r#"{"answers":1}"#),
            ("", ""),
        ];
        for (text, answer) in cases {
            assert_eq!(unwrap_answer(text.to_owned(), true), answer, "{text}");
            assert_eq!(unwrap_answer(text.to_owned(), false), text);
        }
    }

    proptest! {
        #[test]
        fn unwrapping_never_panics(text in "\\PC*|\\{\"answer\":\\PC*\\}") {
            unwrap_answer(text, true);
        }
    }
}
