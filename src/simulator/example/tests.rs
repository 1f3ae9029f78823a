//! Generated values are accepted by the validator that the rest of the program uses.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn generate(schema: &Value, seed: u64) -> Value {
    example_from(schema, &["some", "wörds", "of", "the", "prompt"], &mut fastrand::Rng::with_seed(seed))
}

fn assert_valid(schema: &Value) {
    let validator = jsonschema::options().should_validate_formats(true).build(schema).unwrap();
    for seed in 0..200 {
        let value = generate(schema, seed);
        if let Err(error) = validator.validate(&value) {
            panic!("{schema}\ngenerated {value}\n{error}");
        }
    }
}

#[test]
fn generated_values_are_valid() {
    for schema in [
        json!(true),
        json!({}),
        json!({ "type": "string" }),
        json!({ "type": "string", "minLength": 40, "maxLength": 40 }),
        json!({ "type": "string", "maxLength": 3 }),
        json!({ "type": "string", "format": "date" }),
        json!({ "type": "string", "format": "date-time" }),
        json!({ "type": "string", "format": "email" }),
        json!({ "type": "string", "format": "uri" }),
        json!({ "type": "string", "format": "uuid" }),
        json!({ "type": "string", "format": "ipv4" }),
        json!({ "type": ["string", "null"] }),
        json!({ "type": "null" }),
        json!({ "type": "boolean" }),
        json!({ "type": "integer", "minimum": 1900, "maximum": 1905 }),
        json!({ "type": "integer", "exclusiveMinimum": 4, "exclusiveMaximum": 6 }),
        json!({ "type": "integer", "multipleOf": 7, "minimum": 50 }),
        json!({ "type": "number", "minimum": 0, "maximum": 1 }),
        json!({ "type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 0.001 }),
        json!({ "type": "number", "multipleOf": 0.5, "minimum": -3, "maximum": 3 }),
        json!({ "type": "number", "maximum": -5 }),
        json!({ "enum": ["a", 1, null] }),
        json!({ "type": "string", "enum": ["a", 1, "b"] }),
        json!({ "const": { "a": 1 } }),
        json!({ "type": "array", "items": { "type": "string" } }),
        json!({ "type": "array", "items": { "type": "string" }, "minItems": 3, "maxItems": 3 }),
        json!({ "type": "array", "items": { "enum": [1, 2, 3] }, "uniqueItems": true }),
        json!({ "type": "array", "maxItems": 0 }),
        json!({ "type": "array", "prefixItems": [{ "type": "integer" }, { "type": "boolean" }], "items": false }),
        json!({ "type": "object" }),
        json!({ "type": "object", "minProperties": 2, "maxProperties": 2, "properties": { "a": {}, "b": {}, "c": {} } }),
        json!({ "type": "object", "required": ["x"], "additionalProperties": { "type": "integer" } }),
        json!({ "properties": { "a": { "items": { "minimum": 4 } } }, "required": ["a"] }),
        json!({ "anyOf": [{ "type": "string" }, { "type": "integer" }], "description": "either" }),
        json!({ "oneOf": [
            { "type": "object", "properties": { "kind": { "const": "a" } }, "required": ["kind"] },
            { "type": "object", "properties": { "kind": { "const": "b" } }, "required": ["kind"] },
        ] }),
        json!({ "allOf": [
            { "type": "object", "properties": { "a": { "type": "integer", "minimum": 3 } }, "required": ["a"] },
            { "properties": { "a": { "maximum": 5 }, "b": { "type": "string" } }, "required": ["b"] },
        ] }),
        json!({ "$defs": { "word": { "type": "string", "maxLength": 5 } }, "type": "object",
            "properties": { "w": { "$ref": "#/$defs/word", "description": "rounded" } }, "required": ["w"] }),
        json!({ "$defs": { "node": { "type": "object", "required": ["name", "children"], "properties": {
            "name": { "type": "string" }, "children": { "type": "array", "items": { "$ref": "#/$defs/node" } } } } },
            "$ref": "#/$defs/node" }),
        json!({ "$defs": { "link": { "type": "object", "required": ["next"], "properties": {
            "next": { "anyOf": [{ "$ref": "#/$defs/link" }, { "type": "null" }] } } } }, "$ref": "#/$defs/link" }),
    ] {
        assert_valid(&schema);
    }
}

#[test]
fn types_in_upper_case_are_supported() {
    let schema = json!({ "type": "OBJECT", "required": ["n", "maybe"], "properties": {
        "n": { "type": "INTEGER" }, "maybe": { "type": "STRING", "nullable": true }, "l": { "type": "ARRAY",
        "items": { "type": "STRING", "enum": ["x"] }, "minItems": "2" } } });
    let value = generate(&schema, 1);
    assert!(value["n"].is_i64() && value["maybe"].is_string(), "{value}");
}

#[test]
fn an_impossible_or_hostile_schema_results_in_a_bounded_value() {
    for schema in [
        json!(false),
        json!({ "$ref": "#" }),
        json!({ "allOf": [{ "$ref": "#" }] }),
        json!({ "$ref": "http://elsewhere.example/schema" }),
        json!({ "type": "object", "required": ["a"], "properties": { "a": { "$ref": "#" } } }),
        json!({ "type": "array", "minItems": 4_000_000_000u64, "items": { "$ref": "#" } }),
        json!({ "type": "string", "minLength": 1e18 }),
        json!({ "type": "integer", "minimum": 1e300, "maximum": -1e300 }),
        json!({ "type": "number", "minimum": 5, "maximum": 1, "multipleOf": 1e-300 }),
        json!({ "type": [], "enum": [] }),
        json!({ "type": 5, "properties": 5, "required": 5, "items": 5, "anyOf": [], "allOf": 5 }),
        json!({ "type": "object", "minProperties": 1e12 }),
        json!({ "type": "array", "minItems": 3000, "items": { "type": "string", "minLength": 100_000 } }),
    ] {
        let text = generate(&schema, 1).to_string();
        assert!(text.len() < 4 << 20, "{schema} generated {} bytes", text.len());
    }
}

/// Typical schemas with a depth of up to 4.
fn schema() -> impl Strategy<Value = Value> {
    let text = (0usize..30, 0usize..30)
        .prop_map(|(a, more)| json!({ "type": "string", "minLength": a, "maxLength": a + more }));
    let whole = (-1000i64..1000, 0i64..1000, 1i64..9).prop_map(
        |(low, span, step)| json!({ "type": "integer", "minimum": low, "maximum": low + span + step, "multipleOf": step }),
    );
    let real = (-100i64..100, 1i64..100)
        .prop_map(|(low, span)| json!({ "type": "number", "exclusiveMinimum": low, "maximum": low + span }));
    let leaf = prop_oneof![
        text,
        whole,
        real,
        Just(json!({ "type": "boolean" })),
        Just(json!({ "type": ["null", "string"] })),
        Just(json!({ "$ref": "#/$defs/word" })),
        prop::collection::vec("[a-z]{1,8}", 1..5).prop_map(|options| json!({ "enum": options })),
    ];
    leaf.prop_recursive(4, 32, 5, |inner| {
        let object =
            (prop::collection::btree_map("[a-z]{1,6}", inner.clone(), 0..5), any::<bool>(), any::<u8>());
        prop_oneof![
            object.prop_map(|(properties, open, mask)| {
                let required: Vec<_> = properties
                    .keys()
                    .enumerate()
                    .filter(|(at, _)| mask >> at & 1 == 1)
                    .map(|(_, key)| key)
                    .collect();
                json!({ "type": "object", "required": required, "properties": &properties,
                    "additionalProperties": open })
            }),
            (inner.clone(), 0usize..4, 0usize..4).prop_map(|(items, min, more)| json!({
                "type": "array", "items": items, "minItems": min, "maxItems": min + more })),
            prop::collection::vec(inner.clone(), 1..4).prop_map(|parts| json!({ "anyOf": parts })),
            inner.prop_map(|part| json!({ "allOf": [part, { "description": "x" }] })),
        ]
    })
}

proptest! {
    #[test]
    fn typical_schemas_are_satisfied(body in schema(), seed in any::<u64>()) {
        let schema = json!({ "$defs": { "word": { "type": "string", "maxLength": 9 } }, "allOf": [body] });
        let value = generate(&schema, seed);
        let validator = jsonschema::validator_for(&schema).unwrap();
        prop_assert!(validator.is_valid(&value), "{}\ngenerated {}", schema, value);
    }
}
