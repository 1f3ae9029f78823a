//! Merges two JSON Schemas into one that accepts the values that both accept.
//!
//! References, alternatives and conditions are not merged: generated values do not need it.

use serde_json::{Map, Value, json};

/// Returns a schema with the constraints of both.
pub(super) fn merge_schemas(mut base: Map<String, Value>, other: Map<String, Value>) -> Map<String, Value> {
    for (key, value) in other {
        let merged_value = match base.shift_remove(&key) {
            None => value,
            Some(old) => merge_keyword(&key, old, value),
        };
        base.insert(key, merged_value);
    }
    base
}

fn merge_keyword(key: &str, old: Value, new: Value) -> Value {
    match (key, old, new) {
        ("properties", Value::Object(mut old), Value::Object(new)) => {
            for (name, property) in new {
                let property = match old.shift_remove(&name) {
                    None => property,
                    Some(existing) => json!({ "allOf": [existing, property] }),
                };
                old.insert(name, property);
            }
            Value::Object(old)
        }
        ("required" | "allOf", Value::Array(mut old), Value::Array(new)) => {
            old.extend(new);
            Value::Array(old)
        }
        ("enum", Value::Array(old), Value::Array(new)) => {
            Value::Array(old.into_iter().filter(|value| new.contains(value)).collect())
        }
        ("type", old, new) => common_type(old, new),
        ("items", old @ Value::Object(_), new @ Value::Object(_)) => json!({ "allOf": [old, new] }),
        ("additionalProperties", Value::Bool(false), _) => Value::Bool(false),
        ("minimum" | "exclusiveMinimum" | "minLength" | "minItems" | "minProperties", old, new) => {
            if old.as_f64() > new.as_f64() { old } else { new }
        }
        ("maximum" | "exclusiveMaximum" | "maxLength" | "maxItems" | "maxProperties", old, new) => {
            if old.as_f64() < new.as_f64() { old } else { new }
        }
        (_, _, new) => new,
    }
}

fn common_type(old: Value, new: Value) -> Value {
    let to_list = |value: Value| match value {
        Value::Array(kinds) => kinds,
        kind => vec![kind],
    };
    let old = to_list(old);
    let new = to_list(new);
    let is_integer_and_number = |kinds: &[Value], others: &[Value]| {
        kinds.contains(&json!("integer"))
            && others.contains(&json!("number"))
            && !others.contains(&json!("integer"))
    };
    let has_common_integer = is_integer_and_number(&old, &new) || is_integer_and_number(&new, &old);
    let mut common: Vec<Value> = old.into_iter().filter(|kind| new.contains(kind)).collect();
    if has_common_integer {
        common.push(json!("integer"));
    }
    Value::Array(common)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stricter_of_two_constraints_applies() {
        let merge = |a: Value, b: Value| {
            let (Value::Object(a), Value::Object(b)) = (a, b) else { panic!() };
            Value::Object(merge_schemas(a, b))
        };
        assert_eq!(
            merge(json!({ "minimum": 1, "maximum": 9 }), json!({ "minimum": 3, "maximum": 12 })),
            json!({ "minimum": 3, "maximum": 9 })
        );
        assert_eq!(
            merge(json!({ "type": ["string", "number"] }), json!({ "type": "integer" })),
            json!({ "type": ["integer"] })
        );
        assert_eq!(
            merge(json!({ "required": ["a"], "enum": [1, 2] }), json!({ "required": ["b"], "enum": [2, 3] })),
            json!({ "required": ["a", "b"], "enum": [2] })
        );
    }
}
