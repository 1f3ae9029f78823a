//! Explains why a value does not match a JSON Schema, within a budget.
//!
//! The validator builds the errors of every branch before it shows the first: with a recursive schema that takes
//! gigabytes. So the work is estimated first, and where it is too much this file looks for the first few plain
//! faults itself. It never decides whether a value matches.

use serde_json::{Map, Value};

use super::schema::MOST_COMPLAINTS;

/// Most pairs of a subschema and a value that an explanation visits.
pub(super) const MAX_VISITS: usize = 20_000;

/// Deepest chain of subschemas that an explanation follows.
const MAX_CHAIN: usize = 256;

/// Longest value that a complaint shows, in bytes of JSON.
const MAX_SHOWN: usize = 80;

/// Returns whether at most [`MAX_VISITS`] pairs of a subschema and a value exist, counted as the validator would
/// visit them to gather every error.
pub(super) fn is_cheap(schema: &Value, value: &Value) -> bool {
    let mut estimate = Estimate { root: schema, left: MAX_VISITS };
    estimate.visit(schema, value, 0).is_some()
}

/// Returns how many pairs of a subschema and a value exist where the value is a plain one, such as a number; `None`
/// when they cannot be foreseen. Counts to just beyond [`MAX_VISITS`].
pub(super) fn visits_of_scalar(schema: &Value) -> Option<usize> {
    let mut estimate = Estimate { root: schema, left: MAX_VISITS };
    match estimate.visit(schema, &Value::Null, 0) {
        Some(()) => Some(MAX_VISITS - estimate.left),
        None => (estimate.left == 0).then_some(MAX_VISITS + 1),
    }
}

/// Returns a few plain faults of `value`, none when they are not plain. Takes bounded time and memory.
pub(super) fn faults(schema: &Value, value: &Value) -> Vec<String> {
    let mut search = Search { root: schema, left: MAX_VISITS, found: Vec::new(), path: Vec::new() };
    search.visit(schema, value, 0);
    search.found
}

/// Returns the subschema that a reference inside the schema names.
fn resolve<'s>(root: &'s Value, reference: &str) -> Option<&'s Value> {
    let pointer = reference.strip_prefix('#')?;
    match pointer {
        "" => Some(root),
        _ => root.pointer(pointer),
    }
}

struct Estimate<'s> {
    root: &'s Value,
    left: usize,
}

impl Estimate<'_> {
    /// Counts down the visits; `None` when there are too many, or when they cannot be foreseen.
    fn visit(&mut self, schema: &Value, value: &Value, chain: usize) -> Option<()> {
        self.left = self.left.checked_sub(1)?;
        if chain > MAX_CHAIN {
            return None;
        }
        let Value::Object(keywords) = schema else { return Some(()) };
        for (keyword, inner) in keywords {
            self.keyword(keyword, inner, value, chain + 1)?;
        }
        Some(())
    }

    fn keyword(&mut self, keyword: &str, inner: &Value, value: &Value, chain: usize) -> Option<()> {
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

/// Looks for faults of the plain keywords: types, required and forbidden properties, choices.
struct Search<'s> {
    root: &'s Value,
    left: usize,
    found: Vec<String>,
    path: Vec<String>,
}

impl Search<'_> {
    fn visit(&mut self, schema: &Value, value: &Value, chain: usize) {
        let is_over = self.left == 0 || chain > MAX_CHAIN || self.found.len() >= MOST_COMPLAINTS;
        let Some(keywords) = schema.as_object().filter(|_| !is_over) else { return };
        self.left -= 1;
        for (keyword, inner) in keywords {
            self.plain(keyword, inner, value);
        }
        let target = keywords.get("$ref").and_then(Value::as_str);
        if let Some(target) = target.and_then(|target| resolve(self.root, target)) {
            self.visit(target, value, chain + 1);
        }
        for branch in keywords.get("allOf").and_then(Value::as_array).into_iter().flatten() {
            self.visit(branch, value, chain + 1);
        }
        self.inside(keywords, value, chain + 1);
    }

    /// Visits the fields or elements of a value.
    fn inside(&mut self, keywords: &Map<String, Value>, value: &Value, chain: usize) {
        match value {
            Value::Object(fields) => {
                let properties = keywords.get("properties").and_then(Value::as_object);
                for (name, schema) in properties.into_iter().flatten() {
                    if let Some(field) = fields.get(name) {
                        self.at(name.clone(), |search| search.visit(schema, field, chain));
                    }
                }
            }
            Value::Array(elements) => {
                let Some(schema @ Value::Object(_)) = keywords.get("items") else { return };
                for (index, element) in elements.iter().enumerate() {
                    if self.left == 0 || self.found.len() >= MOST_COMPLAINTS {
                        return;
                    }
                    self.at(index.to_string(), |search| search.visit(schema, element, chain));
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    fn at(&mut self, key: String, visit: impl FnOnce(&mut Self)) {
        self.path.push(key);
        visit(self);
        self.path.pop();
    }

    fn plain(&mut self, keyword: &str, inner: &Value, value: &Value) {
        match keyword {
            "type" => {
                let mut types = match inner {
                    Value::Array(types) => types.iter().collect(),
                    one => vec![one],
                }
                .into_iter()
                .filter_map(Value::as_str);
                if !types.clone().any(|name| is_of(name, value)) {
                    match (types.next(), types.next()) {
                        (Some(one), None) => self.say(&format!("{} is not of type {one:?}", shown(value))),
                        _ => self.say(&format!("{} is of none of the allowed types", shown(value))),
                    }
                }
            }
            "required" => {
                let Some(fields) = value.as_object() else { return };
                for name in inner.as_array().into_iter().flatten().filter_map(Value::as_str) {
                    if !fields.contains_key(name) {
                        self.say(&format!("{name:?} is a required property"));
                    }
                }
            }
            "enum" if inner.as_array().is_some_and(|choices| !choices.contains(value)) => {
                self.say(&format!("{} is not one of the allowed values", shown(value)));
            }
            "const" if inner != value => self.say(&format!("{} was expected", shown(inner))),
            _ => {}
        }
    }

    fn say(&mut self, fault: &str) {
        if self.found.len() >= MOST_COMPLAINTS {
            return;
        }
        let path: String = self.path.iter().map(|key| format!("/{}", cut(key))).collect();
        self.found.push(if path.is_empty() { fault.to_owned() } else { format!("at {path}: {fault}") });
    }
}

fn is_of(name: &str, value: &Value) -> bool {
    match (name, value) {
        ("null", Value::Null) | ("boolean", Value::Bool(_)) | ("string", Value::String(_)) => true,
        ("array", Value::Array(_)) | ("object", Value::Object(_)) | ("number", Value::Number(_)) => true,
        ("integer", Value::Number(number)) => {
            !number.is_f64() || number.as_f64().is_some_and(|float| float.fract() == 0.0)
        }
        _ => false,
    }
}

/// Shows a small value as JSON, and of a large one what it is.
fn shown(value: &Value) -> String {
    match value {
        Value::Array(_) => "an array".to_owned(),
        Value::Object(_) => "an object".to_owned(),
        Value::String(text) if text.len() > MAX_SHOWN => Value::from(cut(text)).to_string(),
        value => value.to_string(),
    }
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(MAX_SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_recursive_schema_with_branches_is_dear_and_a_list_is_not() {
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
    fn plain_faults_are_found_wherever_they_stand() {
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
            faults(&schema, &value),
            [
                r#"at /home: "city" is a required property"#,
                r#"at /tags/1: "c" is not one of the allowed values"#,
                r#"at /age: 1.5 is not of type "integer""#,
                "at /kind: an array is of none of the allowed types",
            ]
        );
        assert!(faults(&schema, &json!({ "age": 2.0, "kind": null })).is_empty());
    }

    #[test]
    fn a_reference_to_itself_ends() {
        let schema = json!({ "$ref": "#" });
        assert!(!is_cheap(&schema, &json!(1)));
        assert!(faults(&schema, &json!(1)).is_empty());
    }
}
