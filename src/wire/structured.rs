//! Decides how a shape is asked for, and undoes what that did to the answer.
//!
//! Providers insist on an object at a schema's root, so any other root travels as `{"answer": ...}`.
//! Whether an answer has its shape is not checked here: the pipeline does that, and asks again.

use std::borrow::Cow;

use serde::de::IgnoredAny;
use serde_json::{Map, Value, json};

use crate::types::Shape;

use super::Structured;
use super::schema_rules::Rules;
use super::translate_schema::translate;

/// How a shape is asked for.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Asked<'a> {
    /// The schema to send by the provider's own means.
    pub(super) schema: Option<Cow<'a, Value>>,
    /// Ask, by the provider's own means, for JSON of any form. Never together with `schema`.
    pub(super) json_only: bool,
    /// Words to add to the system text.
    pub(super) instruction: Option<String>,
    /// The answer comes as `{"answer": ...}`; see [`unwrap`].
    pub(super) wrapped: bool,
}

impl Asked<'_> {
    /// Returns the system text with the instruction added to it.
    pub(super) fn system<'s>(&'s self, system: Option<&'s str>) -> Option<Cow<'s, str>> {
        match (system, self.instruction.as_deref()) {
            (Some(system), Some(more)) => Some(Cow::Owned(format!("{system}\n\n{more}"))),
            (Some(alone), None) | (None, Some(alone)) => Some(Cow::Borrowed(alone)),
            (None, None) => None,
        }
    }
}

/// Decides how to ask for `shape`. `rules` are what the provider accepts: a schema is translated by them, and asked
/// for in words where it is still not accepted. Without them every schema is sent as it is.
pub(super) fn ask<'a>(shape: &'a Shape, structured: Structured, rules: Option<&Rules>) -> Asked<'a> {
    let schema = match shape {
        Shape::Text => return Asked::default(),
        Shape::Choice(words) => return Asked { instruction: Some(one_of(words)), ..Asked::default() },
        Shape::Json(schema) => schema,
    };
    let wrapped = needs_wrapping(shape, structured);
    let sent = if wrapped { Cow::Owned(wrap(schema)) } else { Cow::Borrowed(&**schema) };
    match structured {
        Structured::Schema => {
            let accepted = match rules {
                Some(rules) => accepted_by(rules, sent.clone()),
                None => Some(sent.clone()),
            };
            match accepted {
                Some(schema) => Asked { schema: Some(schema), json_only: false, instruction: None, wrapped },
                None => Asked { schema: None, json_only: true, instruction: Some(in_words(&sent)), wrapped },
            }
        }
        Structured::Json => {
            Asked { schema: None, json_only: true, instruction: Some(in_words(&sent)), wrapped }
        }
        Structured::Prompt => {
            Asked { schema: None, json_only: false, instruction: Some(in_words(&sent)), wrapped }
        }
    }
}

/// Returns a schema as the provider of these rules accepts it; `None` where it does not, however it is written.
pub(super) fn accepted_by<'a>(rules: &Rules, schema: Cow<'a, Value>) -> Option<Cow<'a, Value>> {
    let translated = translate(schema.clone(), rules);
    [translated, schema].into_iter().find(|schema| rules.accepts(schema))
}

/// Tells whether [`ask`] wraps the answer to `shape`, for the decoder that will read it.
pub(super) fn needs_wrapping(shape: &Shape, structured: Structured) -> bool {
    let by_own_means = match structured {
        Structured::Schema | Structured::Json => true,
        Structured::Prompt => false,
    };
    match shape {
        Shape::Text | Shape::Choice(_) => false,
        Shape::Json(schema) => by_own_means && schema.get("type").is_none_or(|root| root != "object"),
    }
}

/// Takes the answer out of `{"answer": ...}`. A provider that ignored the wrapping is taken at its
/// word: the text stays as it is.
pub(super) fn unwrap(text: String, wrapped: bool) -> String {
    match inner(&text) {
        Some(answer) if wrapped => answer.to_owned(),
        Some(_) | None => text,
    }
}

/// Returns the answer's own text, digit for digit, so that no number passes through a float.
fn inner(text: &str) -> Option<&str> {
    let value = text.trim().strip_prefix('{')?.trim_start().strip_prefix("\"answer\"")?;
    let value = value.trim_start().strip_prefix(':')?.trim_start();
    let mut values = serde_json::Deserializer::from_str(value).into_iter::<IgnoredAny>();
    values.next()?.ok()?;
    let (answer, rest) = value.split_at_checked(values.byte_offset())?;
    (rest.trim() == "}").then_some(answer)
}

fn one_of(words: &[String]) -> String {
    let words = words.join(", ");
    format!(
        "Reply with one word of the list and nothing else, no explanation.\nAnswer with exactly one of: {words}"
    )
}

fn in_words(schema: &Value) -> String {
    format!("Answer with JSON only, no code fence, that satisfies this JSON Schema:\n{schema}")
}

fn wrap(schema: &Value) -> Value {
    let mut inner = schema.clone();
    move_references(&mut inner);
    let mut root = Map::new();
    if let Value::Object(inner) = &mut inner {
        // Definitions stay where references look for them, and where providers allow them: at the root.
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

/// Points references into the schema's body to where the body moves.
fn move_references(schema: &mut Value) {
    match schema {
        Value::Object(keywords) => {
            for (keyword, value) in keywords {
                match (keyword.as_str(), &mut *value) {
                    ("const" | "default" | "enum" | "examples", _) => {}
                    // The keys below these are names, whatever keyword they look like.
                    (
                        "properties" | "patternProperties" | "dependentSchemas" | "$defs" | "definitions",
                        Value::Object(named),
                    ) => {
                        named.values_mut().for_each(move_references);
                    }
                    ("$ref", Value::String(target)) => {
                        let at_root =
                            ["#/$defs/", "#/definitions/"].iter().any(|root| target.starts_with(root));
                        if let (false, Some(path)) = (at_root, target.strip_prefix('#')) {
                            *target = format!("#/properties/answer{path}");
                        }
                    }
                    _ => move_references(value),
                }
            }
        }
        Value::Array(all) => all.iter_mut().for_each(move_references),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::schema_rules::ANTHROPIC;

    fn list() -> Shape {
        Shape::Json(json!({ "type": "array", "items": { "type": "string" } }).into())
    }

    fn object() -> Shape {
        Shape::Json(json!({ "type": "object" }).into())
    }

    #[test]
    fn an_object_is_asked_for_as_it_is() {
        let shape = object();
        let asked = ask(&shape, Structured::Schema, None);
        assert_eq!(asked.schema.as_deref(), Some(&json!({ "type": "object" })));
        assert!(!asked.wrapped && !asked.json_only && asked.instruction.is_none());
    }

    #[test]
    fn any_other_root_travels_inside_an_object() {
        let shape = list();
        let asked = ask(&shape, Structured::Schema, None);
        let expected = json!({
            "type": "object",
            "properties": { "answer": { "type": "array", "items": { "type": "string" } } },
            "required": ["answer"],
            "additionalProperties": false,
        });
        assert_eq!(asked.schema.as_deref(), Some(&expected));
        assert!(asked.wrapped);
    }

    #[test]
    fn references_still_hit_after_wrapping() {
        let schema = json!({
            "type": "array",
            "items": { "anyOf": [{ "$ref": "#" }, { "$ref": "#/$defs/word" }, { "$ref": "#/contains" }] },
            "contains": { "type": "object", "properties": { "default": { "$ref": "#" } } },
            "minContains": 0,
            "$defs": { "word": { "type": "string", "examples": [{ "$ref": "#" }], "maxLength": 1 } },
        });
        let wrapped = wrap(&schema);
        assert_eq!(wrapped["$defs"]["word"]["examples"], json!([{ "$ref": "#" }]));
        let validator = jsonschema::validator_for(&wrapped).unwrap();
        assert!(validator.is_valid(&json!({ "answer": [[], ["w"], { "default": [[]] }] })));
        assert!(!validator.is_valid(&json!({ "answer": ["word"] })));
        assert!(!validator.is_valid(&json!({ "answer": [{ "default": 1 }] })));
        assert!(!validator.is_valid(&json!([])));
    }

    #[test]
    fn a_schema_that_the_provider_cannot_take_is_asked_for_in_words() {
        let (list, object) = (list(), object());
        let asked = ask(&object, Structured::Schema, Some(&ANTHROPIC));
        assert!(asked.schema.is_none() && asked.json_only);
        assert!(asked.instruction.unwrap().ends_with("JSON Schema:\n{\"type\":\"object\"}"));
        let asked = ask(&list, Structured::Json, None);
        assert!(asked.json_only && asked.wrapped && asked.instruction.unwrap().contains("\"answer\""));
        let asked = ask(&list, Structured::Prompt, None);
        assert!(!asked.json_only && !asked.wrapped);
        assert!(asked.instruction.unwrap().ends_with("{\"type\":\"array\",\"items\":{\"type\":\"string\"}}"));
    }

    #[test]
    fn a_choice_ends_with_its_words_on_a_line_of_their_own() {
        let shape = Shape::Choice(["URGENT", "OTHER"].map(str::to_owned).into());
        let asked = ask(&shape, Structured::Schema, None);
        let system = asked.system(Some("Sort mail.")).unwrap();
        assert!(system.starts_with("Sort mail.\n\n"));
        assert_eq!(system.lines().last(), Some("Answer with exactly one of: URGENT, OTHER"));
        assert!(asked.schema.is_none() && !asked.json_only && !asked.wrapped);
    }

    #[test]
    fn plain_text_adds_no_words() {
        let asked = ask(&Shape::Text, Structured::Schema, None);
        assert_eq!(asked, Asked::default());
        assert_eq!(asked.system(None), None);
        assert_eq!(asked.system(Some("x")).as_deref(), Some("x"));
    }

    #[test]
    fn unwrapping_takes_out_the_answer_and_nothing_else() {
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
            assert_eq!(unwrap(text.to_owned(), true), answer, "{text}");
            assert_eq!(unwrap(text.to_owned(), false), text);
        }
    }

    proptest! {
        #[test]
        fn unwrapping_never_panics(text in "\\PC*|\\{\"answer\":\\PC*\\}") {
            unwrap(text, true);
        }
    }
}
