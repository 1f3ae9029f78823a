//! Translates the vendor's schemas, a subset of OpenAPI 3.0, to JSON Schema.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::names::snake_case;

/// Keywords that are written in two ways, and whose names differ from their names in snake case.
const KEYWORDS: [&str; 9] = [
    "anyOf",
    "maxItems",
    "minItems",
    "maxLength",
    "minLength",
    "maxProperties",
    "minProperties",
    "propertyOrdering",
    "additionalProperties",
];

/// Keywords with whole numbers of 64 bits, which protocol buffers write as strings.
const COUNTS: [&str; 6] =
    ["maxItems", "minItems", "maxLength", "minLength", "maxProperties", "minProperties"];

/// The names of the types in the vendor's schemas.
const TYPES: [&str; 7] = ["STRING", "NUMBER", "INTEGER", "BOOLEAN", "ARRAY", "OBJECT", "NULL"];

/// Returns the JSON Schema of a schema. Keywords of JSON Schema stay as they are.
pub(super) fn to_json_schema(schema: Value) -> Value {
    let Value::Object(keywords) = schema else { return schema };
    let mut written = Map::new();
    let mut order = None;
    let mut is_nullable = false;
    for (name, value) in keywords {
        let known = KEYWORDS.into_iter().find(|known| snake_case(known) == name);
        let name = known.map_or(name, str::to_owned);
        match (&*name, value) {
            ("nullable", Value::Bool(nullable)) => is_nullable = nullable,
            ("propertyOrdering", Value::Array(names)) => order = Some(names),
            ("type", Value::String(kind)) if kind == "TYPE_UNSPECIFIED" => {}
            ("type", Value::String(kind)) if TYPES.contains(&&*kind) => {
                written.insert(name, kind.to_ascii_lowercase().into());
            }
            ("example", example) => {
                written.insert("examples".to_owned(), json!([example]));
            }
            ("properties", Value::Object(all)) => {
                let all = all.into_iter().map(|(name, schema)| (name, to_json_schema(schema)));
                written.insert(name, all.collect::<Map<_, _>>().into());
            }
            ("anyOf", Value::Array(all)) => {
                written.insert(name, all.into_iter().map(to_json_schema).collect());
            }
            ("items" | "additionalProperties", schema) => {
                written.insert(name, to_json_schema(schema));
            }
            (_, value) => {
                let value = if COUNTS.contains(&&*name) { to_count(value) } else { value };
                written.insert(name, value);
            }
        }
    }
    if let Some(order) = order {
        reorder(&mut written, &order);
    }
    if is_nullable {
        allow_null(&mut written);
    }
    Value::Object(written)
}

fn to_count(value: Value) -> Value {
    match value.as_str().and_then(|text| text.parse::<u64>().ok()) {
        Some(count) => count.into(),
        None => value,
    }
}

/// Moves the properties into the order in which the model writes them. Properties that the order lacks are the last.
fn reorder(schema: &mut Map<String, Value>, order: &[Value]) {
    let Some(Value::Object(properties)) = schema.get_mut("properties") else { return };
    let positions: HashMap<&str, usize> = order.iter().filter_map(Value::as_str).zip(0..).collect();
    let mut sorted: Vec<(String, Value)> = std::mem::take(properties).into_iter().collect();
    sorted.sort_by_key(|(name, _)| positions.get(name.as_str()).copied().unwrap_or(usize::MAX));
    properties.extend(sorted);
}

fn allow_null(schema: &mut Map<String, Value>) {
    match schema.get_mut("type") {
        Some(kind @ Value::String(_)) => *kind = json!([kind.take(), "null"]),
        Some(Value::Array(kinds)) => kinds.push("null".into()),
        Some(_) | None => {}
    }
    if let Some(Value::Array(all)) = schema.get_mut("enum") {
        all.push(Value::Null);
    }
    if let Some(Value::Array(all)) = schema.get_mut("anyOf") {
        all.push(json!({ "type": "null" }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_of_openapi_becomes_json_schema() {
        let schema = json!({
            "type": "OBJECT",
            "description": "A book.",
            "properties": {
                "title": { "type": "STRING", "example": "Emma", "max_length": "80" },
                "genre": { "type": "STRING", "format": "enum", "enum": ["NOVEL", "OTHER"], "nullable": true },
                "type": { "type": "TYPE_UNSPECIFIED", "nullable": false },
                "copies": { "type": "ARRAY", "items": { "type": "INTEGER", "nullable": true }, "minItems": "1" },
                "of": { "any_of": [{ "type": "NUMBER" }, { "type": "boolean" }], "nullable": true },
            },
            "required": ["title"],
            "propertyOrdering": ["copies", "title", "missing"],
        });
        let expected = json!({
            "type": "object",
            "description": "A book.",
            "properties": {
                "copies": { "type": "array", "items": { "type": ["integer", "null"] }, "minItems": 1 },
                "title": { "type": "string", "examples": ["Emma"], "maxLength": 80 },
                "genre": { "type": ["string", "null"], "format": "enum", "enum": ["NOVEL", "OTHER", null] },
                "type": {},
                "of": { "anyOf": [{ "type": "number" }, { "type": "boolean" }, { "type": "null" }] },
            },
            "required": ["title"],
        });
        let written = to_json_schema(schema);
        assert_eq!(written.to_string(), expected.to_string(), "the order counts");
    }

    #[test]
    fn a_json_schema_stays_as_it_is() {
        let schema = json!({
            "type": "object",
            "properties": { "nullable": { "type": ["string", "null"] }, "any_of": { "const": "STRING" } },
            "additionalProperties": false,
            "$defs": { "a": { "type": "string" } },
        });
        assert_eq!(to_json_schema(schema.clone()), schema);
        for other in [json!(null), json!(true), json!(7), json!("STRING"), json!([{ "type": "STRING" }])] {
            assert_eq!(to_json_schema(other.clone()), other);
        }
    }
}
