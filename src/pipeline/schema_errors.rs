//! Explains why a value does not match a JSON Schema, with bounded work.
//!
//! The validator builds the errors of all branches before it returns the first, which takes gigabytes for a
//! recursive schema. So the work is estimated first. If it is too much, this file finds the first few errors of
//! basic keywords itself. It never decides whether a value matches.

use serde_json::{Map, Value};

/// Maximum number of errors that are reported at once. A model corrects a few, and then the next.
pub(super) const MAX_REPORTED_ERRORS: usize = 8;

/// Maximum number of pairs of a subschema and a value that an explanation visits.
pub(super) const MAX_SUBSCHEMA_VISITS: usize = 20_000;

/// Longest chain of subschemas that an explanation follows.
const MAX_CHAIN: usize = 256;

/// Longest text value that an error shows.
const MAX_SHOWN_LENGTH: usize = 80;

/// Returns whether the validator would visit at most [`MAX_SUBSCHEMA_VISITS`] pairs of a subschema and a value to
/// collect all errors.
pub(super) fn is_cheap(schema: &Value, value: &Value) -> bool {
    let mut estimate = VisitEstimate { root: schema, remaining: MAX_SUBSCHEMA_VISITS };
    estimate.visit(schema, value, 0).is_some()
}

/// Returns how many subschemas a scalar value, such as a number, is checked against; `None` if that cannot be
/// estimated. Larger numbers than [`MAX_SUBSCHEMA_VISITS`] are returned as one more than that.
pub(super) fn visits_of_scalar(schema: &Value) -> Option<usize> {
    let mut estimate = VisitEstimate { root: schema, remaining: MAX_SUBSCHEMA_VISITS };
    match estimate.visit(schema, &Value::Null, 0) {
        Some(()) => Some(MAX_SUBSCHEMA_VISITS - estimate.remaining),
        None => (estimate.remaining == 0).then_some(MAX_SUBSCHEMA_VISITS + 1),
    }
}

/// Returns the first errors of basic keywords in `value`; none if only other keywords fail. Takes bounded time and
/// memory.
pub(super) fn basic_errors(schema: &Value, value: &Value) -> Vec<String> {
    let mut search =
        ErrorSearch { root: schema, remaining: MAX_SUBSCHEMA_VISITS, found: Vec::new(), path: Vec::new() };
    search.visit(schema, value, 0);
    search.found
}

/// Returns the subschema that a reference within the schema points to.
fn resolve<'s>(root: &'s Value, reference: &str) -> Option<&'s Value> {
    let pointer = reference.strip_prefix('#')?;
    match pointer {
        "" => Some(root),
        _ => root.pointer(pointer),
    }
}

struct VisitEstimate<'s> {
    root: &'s Value,
    remaining: usize,
}

impl VisitEstimate<'_> {
    /// Counts the visits; `None` if there are too many, or if they cannot be estimated.
    fn visit(&mut self, schema: &Value, value: &Value, chain: usize) -> Option<()> {
        self.remaining = self.remaining.checked_sub(1)?;
        if chain > MAX_CHAIN {
            return None;
        }
        let Value::Object(keywords) = schema else { return Some(()) };
        for (keyword, inner) in keywords {
            self.visit_keyword(keyword, inner, value, chain + 1)?;
        }
        Some(())
    }

    fn visit_keyword(&mut self, keyword: &str, inner: &Value, value: &Value, chain: usize) -> Option<()> {
        match keyword {
            "$ref" => {
                let target = resolve(self.root, inner.as_str()?)?;
                self.visit(target, value, chain)
            }
            "$dynamicRef" | "$recursiveRef" => None,
            "allOf" | "anyOf" | "oneOf" => {
                inner.as_array()?.iter().try_for_each(|branch| self.visit(branch, value, chain))
            }
            "not" | "if" | "then" | "else" => self.visit(inner, value, chain),
            "dependentSchemas" | "dependencies" => {
                inner.as_object()?.values().try_for_each(|branch| self.visit(branch, value, chain))
            }
            "properties" => {
                let Some(fields) = value.as_object() else { return Some(()) };
                let mut present =
                    inner.as_object()?.iter().filter_map(|(name, schema)| Some((schema, fields.get(name)?)));
                present.try_for_each(|(schema, field)| self.visit(schema, field, chain))
            }
            "patternProperties" => inner.as_object()?.values().try_for_each(|schema| {
                let mut fields = value.as_object().into_iter().flat_map(Map::values);
                fields.try_for_each(|field| self.visit(schema, field, chain))
            }),
            "additionalProperties" | "unevaluatedProperties" | "propertyNames" => {
                let mut fields = value.as_object().into_iter().flat_map(Map::values);
                fields.try_for_each(|field| self.visit(inner, field, chain))
            }
            "items" | "prefixItems" | "additionalItems" | "contains" | "unevaluatedItems" => {
                let elements = value.as_array().into_iter().flatten();
                match inner {
                    Value::Array(schemas) => schemas
                        .iter()
                        .zip(elements)
                        .try_for_each(|(schema, element)| self.visit(schema, element, chain)),
                    schema => {
                        let mut elements = elements;
                        elements.try_for_each(|element| self.visit(schema, element, chain))
                    }
                }
            }
            _ => Some(()),
        }
    }
}

/// Finds errors of the basic keywords: types, required properties, and allowed values.
struct ErrorSearch<'s> {
    root: &'s Value,
    remaining: usize,
    found: Vec<String>,
    path: Vec<String>,
}

impl ErrorSearch<'_> {
    fn visit(&mut self, schema: &Value, value: &Value, chain: usize) {
        let is_exhausted =
            self.remaining == 0 || chain > MAX_CHAIN || self.found.len() >= MAX_REPORTED_ERRORS;
        let Some(keywords) = schema.as_object().filter(|_| !is_exhausted) else { return };
        self.remaining -= 1;
        for (keyword, inner) in keywords {
            self.check_keyword(keyword, inner, value);
        }
        let target = keywords.get("$ref").and_then(Value::as_str);
        if let Some(target) = target.and_then(|target| resolve(self.root, target)) {
            self.visit(target, value, chain + 1);
        }
        for branch in keywords.get("allOf").and_then(Value::as_array).into_iter().flatten() {
            self.visit(branch, value, chain + 1);
        }
        self.visit_children(keywords, value, chain + 1);
    }

    /// Checks the fields or elements of a value.
    fn visit_children(&mut self, keywords: &Map<String, Value>, value: &Value, chain: usize) {
        match value {
            Value::Object(fields) => {
                let properties = keywords.get("properties").and_then(Value::as_object);
                for (name, schema) in properties.into_iter().flatten() {
                    if let Some(field) = fields.get(name) {
                        self.visit_at(name.clone(), |search| search.visit(schema, field, chain));
                    }
                }
            }
            Value::Array(elements) => {
                let Some(schema @ Value::Object(_)) = keywords.get("items") else { return };
                for (index, element) in elements.iter().enumerate() {
                    if self.remaining == 0 || self.found.len() >= MAX_REPORTED_ERRORS {
                        return;
                    }
                    self.visit_at(index.to_string(), |search| search.visit(schema, element, chain));
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    fn visit_at(&mut self, key: String, visit: impl FnOnce(&mut Self)) {
        self.path.push(key);
        visit(self);
        self.path.pop();
    }

    fn check_keyword(&mut self, keyword: &str, inner: &Value, value: &Value) {
        match keyword {
            "type" => {
                let mut types = match inner {
                    Value::Array(types) => types.iter().collect(),
                    single => vec![single],
                }
                .into_iter()
                .filter_map(Value::as_str);
                if !types.clone().any(|name| is_type(name, value)) {
                    match (types.next(), types.next()) {
                        (Some(name), None) => {
                            self.report(&format!("{} is not of type {name:?}", display(value)))
                        }
                        _ => self.report(&format!("{} is of none of the allowed types", display(value))),
                    }
                }
            }
            "required" => {
                let Some(fields) = value.as_object() else { return };
                for name in inner.as_array().into_iter().flatten().filter_map(Value::as_str) {
                    if !fields.contains_key(name) {
                        self.report(&format!("{name:?} is a required property"));
                    }
                }
            }
            "enum" if inner.as_array().is_some_and(|choices| !choices.contains(value)) => {
                self.report(&format!("{} is not one of the allowed values", display(value)));
            }
            "const" if inner != value => self.report(&format!("{} was expected", display(inner))),
            _ => {}
        }
    }

    fn report(&mut self, error: &str) {
        if self.found.len() >= MAX_REPORTED_ERRORS {
            return;
        }
        let path: String = self.path.iter().map(|key| format!("/{}", truncate(key))).collect();
        self.found.push(if path.is_empty() { error.to_owned() } else { format!("at {path}: {error}") });
    }
}

fn is_type(name: &str, value: &Value) -> bool {
    match (name, value) {
        ("null", Value::Null) | ("boolean", Value::Bool(_)) | ("string", Value::String(_)) => true,
        ("array", Value::Array(_)) | ("object", Value::Object(_)) | ("number", Value::Number(_)) => true,
        ("integer", Value::Number(number)) => {
            !number.is_f64() || number.as_f64().is_some_and(|float| float.fract() == 0.0)
        }
        _ => false,
    }
}

/// Returns a small value as JSON, and the type of a large one.
fn display(value: &Value) -> String {
    match value {
        Value::Array(_) => "an array".to_owned(),
        Value::Object(_) => "an object".to_owned(),
        Value::String(text) if text.len() > MAX_SHOWN_LENGTH => Value::from(truncate(text)).to_string(),
        value => value.to_string(),
    }
}

fn truncate(text: &str) -> String {
    match text.char_indices().nth(MAX_SHOWN_LENGTH) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_recursive_schema_with_branches_is_expensive_and_a_list_is_cheap() {
        let branch = json!({ "type": "array", "items": { "$ref": "#/$defs/node" } });
        let node = json!({ "anyOf": [{ "type": "string" }, branch, branch] });
        let schema = json!({ "$ref": "#/$defs/node", "$defs": { "node": node } });
        let deep = |depth: usize| (0..depth).fold(json!(1), |inner, _| json!([inner]));
        assert!(is_cheap(&schema, &deep(4)));
        assert!(!is_cheap(&schema, &deep(40)));
        let list = json!({ "type": "array", "items": { "type": "string" } });
        assert!(is_cheap(&list, &json!(vec![1; 1_000])));
        assert!(!is_cheap(&list, &json!(vec![1; 100_000])));
    }

    #[test]
    fn errors_of_basic_keywords_are_found_at_any_depth() {
        let home = json!({ "type": "object", "required": ["city"] });
        let schema = json!({
            "$defs": { "home": home },
            "properties": {
                "home": { "$ref": "#/$defs/home" },
                "tags": { "items": { "enum": ["a", "b"] } },
                "age": { "type": "integer" },
                "kind": { "type": ["string", "null"] },
            },
        });
        let value = json!({ "home": {}, "tags": ["a", "c"], "age": 1.5, "kind": [] });
        assert_eq!(
            basic_errors(&schema, &value),
            [
                r#"at /home: "city" is a required property"#,
                r#"at /tags/1: "c" is not one of the allowed values"#,
                r#"at /age: 1.5 is not of type "integer""#,
                "at /kind: an array is of none of the allowed types",
            ]
        );
        assert!(basic_errors(&schema, &json!({ "age": 2.0, "kind": null })).is_empty());
    }

    #[test]
    fn a_reference_to_itself_terminates() {
        let schema = json!({ "$ref": "#" });
        assert!(!is_cheap(&schema, &json!(1)));
        assert!(basic_errors(&schema, &json!(1)).is_empty());
    }
}
