//! Merges two JSON Schemas into one that accepts what both accept.
//!
//! Only as deep as made-up values need it: it never looks into references, alternatives or conditions.

use serde_json::{Map, Value, json};

/// Returns a schema that keeps the rules of both.
pub(super) fn merged(mut base: Map<String, Value>, more: Map<String, Value>) -> Map<String, Value> {
    for (key, value) in more {
        let both = match base.shift_remove(&key) {
            None => value,
            Some(old) => both(&key, old, value),
        };
        base.insert(key, both);
    }
    base
}

fn both(key: &str, old: Value, new: Value) -> Value {
    match (key, old, new) {
        ("properties", Value::Object(mut old), Value::Object(new)) => {
            for (name, property) in new {
                let property = match old.shift_remove(&name) {
                    None => property,
                    Some(other) => json!({ "allOf": [other, property] }),
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
    let list = |value: Value| match value {
        Value::Array(kinds) => kinds,
        kind => vec![kind],
    };
    let (old, new) = (list(old), list(new));
    let whole_number = |kinds: &[Value], others: &[Value]| {
        kinds.contains(&json!("integer"))
            && others.contains(&json!("number"))
            && !others.contains(&json!("integer"))
    };
    let narrowed = whole_number(&old, &new) || whole_number(&new, &old);
    let mut common: Vec<Value> = old.into_iter().filter(|kind| new.contains(kind)).collect();
    if narrowed {
        common.push(json!("integer"));
    }
    Value::Array(common)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_narrower_rule_of_two_wins() {
        let merge = |a: Value, b: Value| {
            let (Value::Object(a), Value::Object(b)) = (a, b) else { panic!() };
            Value::Object(merged(a, b))
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
