//! What of JSON Schema Anthropic's structured output accepts, example by example.

use serde_json::{Value, json};

use crate::wire::schema_rules::ANTHROPIC;

fn fits(schema: &Value) -> bool {
    ANTHROPIC.accepts(schema)
}

fn object(properties: Value) -> Value {
    json!({"type": "object", "properties": properties, "required": [], "additionalProperties": false})
}

#[test]
fn what_the_vendor_accepts_fits() {
    let schemas = [
        object(json!({"title": {"type": "string"}, "when": {"type": ["string", "null"], "format": "date"}})),
        object(json!({"tags": {"type": "array", "minItems": 1, "items": {"enum": ["a", 1, null]}}})),
        object(json!({"either": {"anyOf": [{"const": true}, object(json!({}))]}})),
        json!({"$defs": {"word": {"type": "string"}}, "type": "array", "items": {"$ref": "#/$defs/word"}}),
        object(json!({"minimum": {"type": "integer"}})),
    ];
    for schema in schemas {
        assert!(fits(&schema), "{schema}");
    }
}

#[test]
fn what_the_vendor_refuses_does_not_fit() {
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
        assert!(!fits(&schema), "{schema}");
    }
}

#[test]
fn recursion_does_not_fit() {
    let itself = object(json!({"child": {"$ref": "#"}}));
    let mut in_a_ring = object(json!({"child": {"$ref": "#/$defs/a"}}));
    in_a_ring["$defs"] =
        json!({"a": {"anyOf": [{"$ref": "#/$defs/b"}]}, "b": {"anyOf": [{"$ref": "#/$defs/a"}]}});
    assert!(!fits(&itself) && !fits(&in_a_ring));
}

#[test]
fn references_that_fan_out_end_the_walk_early() {
    let mut schema = object(json!({"start": {"$ref": "#/$defs/d0"}}));
    for level in 0..40 {
        let next = json!({"$ref": format!("#/$defs/d{}", level + 1)});
        schema["$defs"][format!("d{level}")] = json!({"anyOf": [next, next]});
    }
    schema["$defs"]["d40"] = json!({"type": "string"});
    assert!(!fits(&schema));
}
