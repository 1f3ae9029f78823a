//! The vendors' restrictions on JSON Schemas for structured output.
//!
//! A schema that a vendor would reject is rejected with the vendor's message.

use serde_json::{Map, Value};

/// Checks a `strict` schema by OpenAI's rules. The error is OpenAI's message.
pub(super) fn check_openai(schema: &Value) -> Result<(), String> {
    let enums = all_enums(schema);
    let values: usize = enums.iter().map(|values| values.len()).sum();
    if values > 1_000 {
        return Err(format!(
            "Expected at most 1000 enum values in total within a single schema when using structured outputs, but \
             received {values}. Consider reducing the number of enums, or opt out of structured outputs by setting \
             'strict: false'."
        ));
    }
    let total_length =
        |values: &[Value]| values.iter().filter_map(Value::as_str).map(str::len).sum::<usize>();
    if enums.iter().any(|values| values.len() > 250 && total_length(values) > 15_000) {
        return Err(
            "Expected at most 15000 characters in the values of an enum of more than 250 values.".to_owned()
        );
    }
    let root = schema.get("type").and_then(Value::as_str);
    if root != Some("object") {
        let shown = root.unwrap_or("None");
        return Err(format!("schema must be a JSON Schema of 'type: \"object\"', got 'type: \"{shown}\"'."));
    }
    check_schemas(schema, |object| {
        check_reference_siblings(object)?;
        const NOT_PERMITTED: [&str; 10] = [
            "allOf",
            "oneOf",
            "not",
            "if",
            "then",
            "else",
            "dependentRequired",
            "dependentSchemas",
            "default",
            "patternProperties",
        ];
        if let Some(keyword) = NOT_PERMITTED.iter().find(|keyword| object.contains_key(**keyword)) {
            return Err(format!("In context=(), '{keyword}' is not permitted."));
        }
        if is_object(object) {
            if object.get("additionalProperties") != Some(&Value::Bool(false)) {
                return Err(
                    "In context=(), 'additionalProperties' is required to be supplied and to be false."
                        .to_owned(),
                );
            }
            let required: Vec<_> =
                object.get("required").and_then(Value::as_array).into_iter().flatten().collect();
            let properties = object.get("properties").and_then(Value::as_object);
            let missing = properties
                .into_iter()
                .flat_map(Map::keys)
                .find(|name| !required.contains(&&Value::from(name.as_str())));
            if let Some(name) = missing {
                return Err(format!(
                    "In context=(), 'required' is required to be supplied and to be an array including every key in \
                     properties. Missing '{name}'."
                ));
            }
        }
        Ok(())
    })
}

/// Checks a schema by Gemini's rules: a reference has no other keywords. The error is Gemini's message.
pub(super) fn check_gemini(schema: &Value) -> Result<(), String> {
    check_schemas(schema, check_reference_siblings)
}

/// Rejects keywords next to a reference, except those that start with `$`.
fn check_reference_siblings(object: &Map<String, Value>) -> Result<(), String> {
    if !object.contains_key("$ref") {
        return Ok(());
    }
    let siblings: Vec<String> =
        object.keys().filter(|key| !key.starts_with('$')).map(|key| format!("'{key}'")).collect();
    if siblings.is_empty() {
        return Ok(());
    }
    Err(format!("context=(), $ref cannot have keywords {{{}}}.", siblings.join(", ")))
}

/// Returns the values of each `enum` within a schema.
fn all_enums(schema: &Value) -> Vec<&Vec<Value>> {
    let mut enums = Vec::new();
    visit_schemas(schema, &mut |object| enums.extend(object.get("enum").and_then(Value::as_array)));
    enums
}

/// Checks a schema by Anthropic's rules. The error is Anthropic's message.
pub(super) fn check_anthropic(schema: &Value) -> Result<(), String> {
    let mut optional = 0;
    let mut unions = 0;
    visit_schemas(schema, &mut |object| {
        let all = object.get("properties").and_then(Value::as_object).map_or(0, Map::len);
        let required = object.get("required").and_then(Value::as_array).map_or(0, Vec::len);
        optional += all.saturating_sub(required);
        let has_types = object.get("type").and_then(Value::as_array).is_some_and(|types| types.len() > 1);
        unions += usize::from(has_types || object.contains_key("anyOf"));
    });
    if optional > 24 {
        return Err(format!(
            "Schemas contains too many optional parameters ({optional}), which would make grammar compilation \
             inefficient. Reduce the number of optional parameters in your tool schemas (limit: 24)."
        ));
    }
    if unions > 16 {
        return Err(format!(
            "Schemas contains too many parameters with union types ({unions} parameters with type arrays or anyOf) which \
             exceeds the limit: 16"
        ));
    }
    const BOUNDS: [(&str, &str); 5] = [
        ("minimum", "number"),
        ("maximum", "number"),
        ("multipleOf", "number"),
        ("minLength", "string"),
        ("maxLength", "string"),
    ];
    check_schemas(schema, |object| {
        if is_object(object) && object.get("additionalProperties") != Some(&Value::Bool(false)) {
            return Err(
                "For 'object' type, 'additionalProperties' must be explicitly set to false".to_owned()
            );
        }
        match BOUNDS.iter().find(|(bound, _)| object.contains_key(*bound)) {
            Some((bound, kind)) => Err(format!("For '{kind}' type, property '{bound}' is not supported")),
            None => Ok(()),
        }
    })
}

fn is_object(schema: &Map<String, Value>) -> bool {
    match schema.get("type") {
        Some(Value::String(kind)) => kind == "object",
        Some(Value::Array(kinds)) => kinds.iter().any(|kind| kind == "object"),
        _ => schema.contains_key("properties"),
    }
}

/// Checks one schema without its subschemas.
type Check = fn(&Map<String, Value>) -> Result<(), String>;

/// Calls `visit` for `schema` and each of its subschemas.
fn visit_schemas<'a>(schema: &'a Value, visit: &mut impl FnMut(&'a Map<String, Value>)) {
    let Value::Object(object) = schema else { return };
    visit(object);
    for (key, inner) in object {
        match (key.as_str(), inner) {
            ("properties" | "$defs" | "definitions", Value::Object(schemas)) => {
                schemas.values().for_each(|schema| visit_schemas(schema, visit));
            }
            ("anyOf" | "oneOf" | "allOf" | "prefixItems", Value::Array(schemas)) => {
                schemas.iter().for_each(|schema| visit_schemas(schema, visit));
            }
            ("items" | "additionalProperties", schema) => visit_schemas(schema, visit),
            _ => {}
        }
    }
}

/// Calls `check` for `schema` and each of its subschemas until it returns an error.
fn check_schemas(schema: &Value, check: Check) -> Result<(), String> {
    let Value::Object(object) = schema else { return Ok(()) };
    check(object)?;
    for (key, inner) in object {
        match (key.as_str(), inner) {
            ("properties" | "$defs" | "definitions", Value::Object(schemas)) => {
                schemas.values().try_for_each(|schema| check_schemas(schema, check))?;
            }
            ("anyOf" | "oneOf" | "allOf" | "prefixItems", Value::Array(schemas)) => {
                schemas.iter().try_for_each(|schema| check_schemas(schema, check))?;
            }
            ("items" | "additionalProperties", schema) => check_schemas(schema, check)?,
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_strict_schema_is_closed_and_requires_all_properties_at_every_depth() {
        let inner = |inner: Value| {
            json!({ "type": "object", "properties": { "a": { "type": "array", "items": inner } }, "required": ["a"],
                "additionalProperties": false })
        };
        let closed = json!({ "type": "object", "properties": { "b": { "type": "string" } }, "required": ["b"],
            "additionalProperties": false });
        assert_eq!(check_openai(&inner(closed)), Ok(()));
        let open =
            json!({ "type": "object", "properties": { "b": { "type": "string" } }, "required": ["b"] });
        assert!(check_openai(&inner(open)).unwrap_err().contains("additionalProperties"));
        let optional = json!({ "type": "object", "properties": { "b": { "type": "string" } }, "additionalProperties": false });
        assert!(check_openai(&inner(optional)).unwrap_err().contains("Missing 'b'"));
        let described = json!({ "$ref": "#", "description": "x" });
        assert!(check_openai(&inner(described.clone())).unwrap_err().contains("$ref cannot have keywords"));
        assert!(
            check_gemini(&inner(described)).is_err() && check_gemini(&inner(json!({ "$ref": "#" }))).is_ok()
        );
        assert!(check_openai(&inner(json!({ "oneOf": [] }))).unwrap_err().contains("'oneOf'"));
        assert!(check_openai(&json!({ "type": "array" })).unwrap_err().contains("got 'type: \"array\"'"));
    }

    #[test]
    fn anthropic_accepts_closed_objects_without_bounds() {
        let schema = |age: Value| {
            json!({ "type": "object", "properties": { "minimum": { "type": "string" }, "age": age },
                "additionalProperties": false })
        };
        assert_eq!(check_anthropic(&schema(json!({ "type": "integer" }))), Ok(()));
        assert!(
            check_anthropic(&schema(json!({ "type": "integer", "minimum": 0 })))
                .unwrap_err()
                .contains("'minimum'")
        );
        assert!(check_anthropic(&json!({ "type": "object" })).unwrap_err().contains("additionalProperties"));
        assert_eq!(check_anthropic(&json!({ "type": "array", "items": { "type": "string" } })), Ok(()));
    }
}
