//! Tests of the schemas that OpenAI accepts with `strict: true`.

use serde_json::{Value, json};

use crate::wire::schema_rules::OPENAI_STRICT;

fn meets_strict_rules(schema: &Value) -> bool {
    OPENAI_STRICT.accepts(schema)
}

/// A strict schema whose property `x` is `inner`.
fn with(inner: &Value) -> Value {
    json!({ "type": "object", "properties": { "x": inner }, "required": ["x"], "additionalProperties": false })
}

#[test]
fn a_closed_schema_with_supported_keywords_is_strict() {
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
fn a_schema_that_violates_one_rule_is_not_strict() {
    let open = json!({ "type": "object", "properties": { "a": { "type": "string" } }, "required": ["a"] });
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
fn the_root_must_be_an_object() {
    assert!(!meets_strict_rules(&json!({ "type": "array", "items": { "type": "string" } })));
    assert!(!meets_strict_rules(&json!({ "anyOf": [with(&json!({ "type": "string" }))] })));
    assert!(!meets_strict_rules(
        &json!({ "type": ["object", "null"], "properties": {}, "additionalProperties": false })
    ));
    assert!(!meets_strict_rules(&json!(null)));
}

#[test]
fn a_schema_with_too_many_levels_is_not_strict() {
    let nest = |depth| (0..depth).fold(json!({ "type": "string" }), |inner, _| with(&inner));
    assert!(meets_strict_rules(&nest(9)));
    assert!(!meets_strict_rules(&nest(10)));
}
