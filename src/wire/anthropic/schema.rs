//! Tells whether a JSON Schema stays within what Anthropic's structured output accepts.
//!
//! Knows what is accepted, not what is refused: a schema with anything unknown is asked for in words,
//! and checked afterwards like any other. It never changes a schema.

use serde_json::{Map, Value};

/// Bounds the walk, so that references that fan out cannot make it long.
const MOST_NODES: usize = 2_000;

/// String formats that the vendor knows.
const FORMATS: [&str; 10] =
    ["date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid"];

/// Returns whether the vendor takes `schema` as it is.
pub(super) fn fits(schema: &Value) -> bool {
    Walk { root: schema, within: Vec::new(), left: MOST_NODES }.schema(schema)
}

struct Walk<'a> {
    root: &'a Value,
    /// The references that are being followed: meeting one again means recursion.
    within: Vec<&'a str>,
    left: usize,
}

impl<'a> Walk<'a> {
    fn schema(&mut self, schema: &'a Value) -> bool {
        self.left = self.left.saturating_sub(1);
        let Value::Object(schema) = schema else { return false };
        self.left > 0 && closed(schema) && schema.iter().all(|(key, value)| self.keyword(key, value))
    }

    fn keyword(&mut self, key: &str, value: &'a Value) -> bool {
        match key {
            "type" | "required" | "title" | "description" | "default" | "$schema" | "$id" | "$comment" => {
                true
            }
            "additionalProperties" => value == &Value::Bool(false),
            "properties" | "$defs" | "definitions" => {
                value.as_object().is_some_and(|named| named.values().all(|schema| self.schema(schema)))
            }
            "items" => self.schema(value),
            "anyOf" => {
                value.as_array().is_some_and(|schemas| schemas.iter().all(|schema| self.schema(schema)))
            }
            "enum" => value.as_array().is_some_and(|values| values.iter().all(is_scalar)),
            "const" => is_scalar(value),
            "minItems" => matches!(value.as_u64(), Some(0 | 1)),
            "format" => value.as_str().is_some_and(|format| FORMATS.contains(&format)),
            "$ref" => value.as_str().is_some_and(|reference| self.reference(reference)),
            _ => false,
        }
    }

    fn reference(&mut self, reference: &'a str) -> bool {
        let Some(target) = reference.strip_prefix('#').and_then(|pointer| self.root.pointer(pointer)) else {
            return false;
        };
        if self.within.contains(&reference) {
            return false;
        }
        self.within.push(reference);
        let fits = self.schema(target);
        self.within.pop();
        fits
    }
}

/// Every object must say that it takes no other properties.
fn closed(schema: &Map<String, Value>) -> bool {
    let is_object = match schema.get("type") {
        Some(Value::String(kind)) => kind == "object",
        Some(Value::Array(kinds)) => kinds.iter().any(|kind| kind == "object"),
        _ => schema.contains_key("properties"),
    };
    !is_object || schema.get("additionalProperties") == Some(&Value::Bool(false))
}

fn is_scalar(value: &Value) -> bool {
    !value.is_object() && !value.is_array()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(properties: Value) -> Value {
        json!({"type": "object", "properties": properties, "required": [], "additionalProperties": false})
    }

    #[test]
    fn what_the_vendor_accepts_fits() {
        let schemas = [
            object(
                json!({"title": {"type": "string"}, "when": {"type": ["string", "null"], "format": "date"}}),
            ),
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
}
