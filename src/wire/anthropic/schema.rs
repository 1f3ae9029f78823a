//! Tests of the JSON Schema features that Anthropic's structured output accepts.

use serde_json::{Value, json};

use crate::wire::schema_rules::ANTHROPIC;

fn accepts(schema: &Value) -> bool {
    ANTHROPIC.accepts(schema)
}

fn object(properties: Value) -> Value {
    json!({"type": "object", "properties": properties, "required": [], "additionalProperties": false})
}

#[test]
fn schemas_that_the_vendor_accepts_are_accepted() {
    let schemas = [
        object(json!({"title": {"type": "string"}, "when": {"type": ["string", "null"], "format": "date"}})),
        object(json!({"tags": {"type": "array", "minItems": 1, "items": {"enum": ["a", 1, null]}}})),
        object(json!({"either": {"anyOf": [{"const": true}, object(json!({}))]}})),
        json!({"$defs": {"word": {"type": "string"}}, "type": "array", "items": {"$ref": "#/$defs/word"}}),
        object(json!({"minimum": {"type": "integer"}})),
    ];
    for schema in schemas {
        assert!(accepts(&schema), "{schema}");
    }
}

#[test]
fn schemas_that_the_vendor_rejects_are_rejected() {
    let schemas = [
        json!({"type": "object", "properties": {}}),
        json!({"properties": {"a": {"type": "string"}}}),
        json!({"type": ["object", "null"], "properties": {}}),
        json!({"type": "object", "additionalProperties": true}),
        json!({"type": "object", "additionalProperties": {"type": "string"}}),
        object(json!({"a": {"type": "object"}})),
        object(json!({"a": {"type": "integer", "minimum": 1}})),
        object(json!({"a": {"type": "string", "maxLength": 9}})),
        object(json!({"a": {"type": "string", "pattern": "^a$"}})),
        object(json!({"a": {"type": "string", "format": "regex"}})),
        object(json!({"a": {"type": "array", "minItems": 2, "items": {"type": "string"}}})),
        object(json!({"a": {"enum": [["b"]]}})),
        object(json!({"a": {"oneOf": [{"type": "string"}]}})),
        object(json!({"a": true})),
        object(json!({"a": {"$ref": "https://example.invalid/a.json"}})),
        object(json!({"a": {"$ref": "#/$defs/missing"}})),
        json!(true),
    ];
    for schema in schemas {
        assert!(!accepts(&schema), "{schema}");
    }
}

#[test]
fn recursion_is_rejected() {
    let self_reference = object(json!({"child": {"$ref": "#"}}));
    let mut cycle = object(json!({"child": {"$ref": "#/$defs/a"}}));
    cycle["$defs"] =
        json!({"a": {"anyOf": [{"$ref": "#/$defs/b"}]}, "b": {"anyOf": [{"$ref": "#/$defs/a"}]}});
    assert!(!accepts(&self_reference) && !accepts(&cycle));
}

#[test]
fn references_that_fan_out_end_the_check_early() {
    let mut schema = object(json!({"start": {"$ref": "#/$defs/d0"}}));
    for level in 0..40 {
        let next = json!({"$ref": format!("#/$defs/d{}", level + 1)});
        schema["$defs"][format!("d{level}")] = json!({"anyOf": [next, next]});
    }
    schema["$defs"]["d40"] = json!({"type": "string"});
    assert!(!accepts(&schema));
}
