//! Tells whether a schema may be sent with `strict: true`.
//!
//! OpenAI then holds the model to the schema token by token, but refuses schemas beyond its rules.
//! A schema that breaks them is still sent, without `strict`: nothing here changes a schema.

use serde_json::{Map, Value};

/// Levels of nesting that OpenAI takes.
const DEEPEST: usize = 10;

const KEYWORDS: [&str; 23] = [
    "$defs",
    "$ref",
    "$schema",
    "additionalProperties",
    "anyOf",
    "const",
    "definitions",
    "description",
    "enum",
    "exclusiveMaximum",
    "exclusiveMinimum",
    "format",
    "items",
    "maxItems",
    "maximum",
    "minItems",
    "minimum",
    "multipleOf",
    "pattern",
    "properties",
    "required",
    "title",
    "type",
];

const FORMATS: [&str; 9] =
    ["date", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "time", "uuid"];

/// Tells whether `schema` keeps to OpenAI's rules for strict schemas. Says no when in doubt.
pub(super) fn meets_strict_rules(schema: &Value) -> bool {
    schema.get("type").is_some_and(|root| root == "object")
        && schema.get("anyOf").is_none()
        && fits(schema, DEEPEST)
}

fn fits(schema: &Value, levels: usize) -> bool {
    let Some(keywords) = schema.as_object() else { return false };
    levels > 0
        && keywords.iter().all(|(keyword, value)| keyword_fits(keyword, value, levels - 1))
        && ["type", "$ref", "anyOf"].iter().any(|kind| keywords.contains_key(*kind))
        && (!is(keywords, "object") || is_closed(keywords))
        && (!is(keywords, "array") || keywords.contains_key("items"))
}

fn keyword_fits(keyword: &str, value: &Value, levels: usize) -> bool {
    match keyword {
        "properties" | "$defs" | "definitions" => {
            value.as_object().is_some_and(|all| all.values().all(|schema| fits(schema, levels)))
        }
        "anyOf" => value.as_array().is_some_and(|all| all.iter().all(|schema| fits(schema, levels))),
        "items" => fits(value, levels),
        "format" => value.as_str().is_some_and(|format| FORMATS.contains(&format)),
        other => KEYWORDS.contains(&other),
    }
}

/// Tells whether an object names all its properties as required and takes no others.
fn is_closed(object: &Map<String, Value>) -> bool {
    let required = object.get("required").and_then(Value::as_array);
    let is_required =
        |name: &String| required.is_some_and(|all| all.iter().any(|required| required == name.as_str()));
    object.get("additionalProperties") == Some(&Value::Bool(false))
        && object.get("properties").and_then(Value::as_object).is_some_and(|all| all.keys().all(is_required))
}

fn is(keywords: &Map<String, Value>, kind: &str) -> bool {
    match keywords.get("type") {
        Some(Value::Array(kinds)) => kinds.iter().any(|one| one == kind),
        Some(one) => one == kind,
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A strict schema whose property `x` is `inner`.
    fn with(inner: &Value) -> Value {
        json!({ "type": "object", "properties": { "x": inner }, "required": ["x"], "additionalProperties": false })
    }

    #[test]
    fn a_closed_schema_of_known_keywords_is_strict() {
        for inner in [
            json!({ "type": "string", "enum": ["a"], "description": "one" }),
            json!({ "type": ["string", "null"], "format": "date-time" }),
            json!({ "type": "array", "items": { "type": "integer", "minimum": 1 }, "maxItems": 3 }),
            json!({ "anyOf": [{ "type": "string" }, { "$ref": "#" }] }),
            with(&json!({ "type": "number" })),
        ] {
            assert!(meets_strict_rules(&with(&inner)), "{inner}");
        }
    }

    #[test]
    fn one_rule_broken_anywhere_and_it_is_not() {
        let open =
            json!({ "type": "object", "properties": { "a": { "type": "string" } }, "required": ["a"] });
        let optional = json!({ "type": "object", "properties": { "a": { "type": "string" } }, "additionalProperties": false });
        for inner in [
            json!({ "type": "string", "minLength": 1 }),
            json!({ "type": "string", "format": "uri" }),
            json!({ "type": "string", "default": "a" }),
            json!({ "type": "array" }),
            json!({ "type": "array", "items": true }),
            json!({ "enum": ["a"] }),
            json!({ "oneOf": [{ "type": "string" }] }),
            json!({ "type": "object" }),
            json!({ "type": ["object", "null"] }),
            json!({ "type": "array", "items": open.clone() }),
            json!({ "anyOf": [optional.clone()] }),
            json!({}),
            json!(true),
            open,
            optional,
        ] {
            assert!(!meets_strict_rules(&with(&inner)), "{inner}");
        }
    }

    #[test]
    fn the_root_must_be_one_object() {
        assert!(!meets_strict_rules(&json!({ "type": "array", "items": { "type": "string" } })));
        assert!(!meets_strict_rules(&json!({ "anyOf": [with(&json!({ "type": "string" }))] })));
        assert!(!meets_strict_rules(
            &json!({ "type": ["object", "null"], "properties": {}, "additionalProperties": false })
        ));
        assert!(!meets_strict_rules(&json!(null)));
    }

    #[test]
    fn a_schema_deeper_than_openai_takes_is_not_strict() {
        let nest = |depth| (0..depth).fold(json!({ "type": "string" }), |inner, _| with(&inner));
        assert!(meets_strict_rules(&nest(9)));
        assert!(!meets_strict_rules(&nest(10)));
    }
}
