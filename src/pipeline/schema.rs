//! JSON Schemas: converted from TOML, compiled once, and used to validate values with readable errors.
//!
//! Fetches nothing: a schema that refers to another file or URL is an error.

use std::sync::Arc;

use jsonschema::{PatternOptions, ValidationError, Validator};
use serde_json::{Map, Value};

use super::schema_errors;
use super::values::Kind;

/// A compiled JSON Schema.
#[derive(Debug, Clone)]
pub(super) struct Schema {
    value: Arc<Value>,
    validator: Arc<Validator>,
    /// Whether the work of a check is at most proportional to the size of the schema times that of the value.
    is_linear: bool,
}

/// Longest error message, in characters. It contains the value, which can be large.
const MAX_ERROR_CHARS: usize = 300;

/// Longest response whose value is checked on an actor's thread.
pub(super) const MAX_QUICK_BYTES: usize = 8 << 10;

/// Keywords whose results the validator does not memoize, so that they can be checked many times.
const UNMEMOIZED_KEYWORDS: [&str; 4] =
    ["$dynamicRef", "$recursiveRef", "unevaluatedItems", "unevaluatedProperties"];

/// Maximum number of subschemas that one scalar value is checked against on an actor's thread. The validator
/// memoizes results for lists and objects, but not for scalars.
const MAX_QUICK_SUBSCHEMA_VISITS: usize = 500;

const TYPE_NAMES: &str = "types are array, boolean, integer, null, number, object and string";

impl Schema {
    /// Compiles a schema.
    ///
    /// # Errors
    /// The error of the schema, in words.
    pub(super) fn new(value: Value) -> Result<Self, String> {
        // This engine matches in linear time. The pattern is trusted, but the text that it is matched against is
        // not.
        let options = jsonschema::options().with_pattern_options(PatternOptions::regex());
        let compiled = options.should_validate_formats(true).build(&value);
        let validator = compiled.map_err(|error| schema_error(&error))?;
        let visits = schema_errors::visits_of_scalar(&value);
        if visits.is_some_and(|visits| visits > schema_errors::MAX_SUBSCHEMA_VISITS) {
            return Err(format!(
                "its references multiply: a single value is checked against more than {} subschemas; name each of \
                 them once",
                schema_errors::MAX_SUBSCHEMA_VISITS
            ));
        }
        let is_linear = visits.is_some_and(|visits| visits <= MAX_QUICK_SUBSCHEMA_VISITS)
            && !contains_keyword(&value, &UNMEMOIZED_KEYWORDS);
        Ok(Self { value: Arc::new(value), validator: Arc::new(validator), is_linear })
    }

    /// Returns whether a check of a value whose text has `bytes` is short enough for an actor's thread.
    pub(super) fn is_quick(&self, bytes: usize) -> bool {
        self.is_linear && bytes <= MAX_QUICK_BYTES
    }

    /// Returns the schema as JSON.
    pub(super) fn value(&self) -> &Arc<Value> {
        &self.value
    }

    /// Checks a value. The decision takes little memory, and the explanation is bounded.
    ///
    /// # Errors
    /// The first few errors, in words.
    pub(super) fn check(&self, value: &Value) -> Result<(), String> {
        match self.is_valid(value) {
            true => Ok(()),
            false => Err(self.explain(value)),
        }
    }

    /// Returns whether a value matches. Recursive references are decided once per value, so the work is bounded by
    /// the size of the schema times that of the value.
    pub(super) fn is_valid(&self, value: &Value) -> bool {
        self.validator.is_valid(value)
    }

    /// Returns the errors of a value that does not match.
    fn explain(&self, value: &Value) -> String {
        if !schema_errors::is_cheap(&self.value, value) {
            let errors = schema_errors::basic_errors(&self.value, value);
            return match errors.is_empty() {
                true => "it differs in too many ways to list them".to_owned(),
                false => errors.join("; "),
            };
        }
        let mut errors = self.validator.iter_errors(value);
        let mut messages: Vec<String> = errors
            .by_ref()
            .take(schema_errors::MAX_REPORTED_ERRORS)
            .map(|error| error_message(&error))
            .collect();
        match errors.count() {
            0 => {}
            more => messages.push(format!("and {more} more")),
        }
        messages.join("; ")
    }

    /// Returns the type of the value at `path`, if it is the same in all values of this schema that have it.
    pub(super) fn kind(&self, path: &[&str]) -> Option<Kind> {
        let mut schema = &*self.value;
        for key in path {
            schema = schema.get("properties")?.get(*key)?;
        }
        Some(match schema.get("type")?.as_str()? {
            "string" => Kind::Text,
            "number" | "integer" => Kind::Number,
            "boolean" => Kind::Bool,
            "array" => Kind::List,
            "object" => Kind::Map,
            "null" => Kind::None,
            _ => return None,
        })
    }

    /// Returns whether the schema defines a property of this name at its top level.
    pub(super) fn has_property(&self, name: &str) -> bool {
        self.value.get("properties").is_some_and(|properties| properties.get(name).is_some())
    }

    /// Returns the first key of `path` that no value of this schema can have, with the valid keys.
    pub(super) fn unknown_key<'p, 's>(&'s self, path: &[&'p str]) -> Option<(&'p str, Vec<&'s str>)> {
        let mut schema = &*self.value;
        for key in path {
            let properties = closed_properties(schema)?;
            match properties.get(*key) {
                Some(inner) => schema = inner,
                None => return Some((key, properties.keys().map(String::as_str).collect())),
            }
        }
        None
    }
}

/// Returns the properties of a schema that forbids others.
fn closed_properties(schema: &Value) -> Option<&Map<String, Value>> {
    let is_closed = schema.get("additionalProperties") == Some(&Value::Bool(false));
    let opening_keywords = ["patternProperties", "$ref", "$dynamicRef", "allOf", "anyOf", "oneOf"];
    if !is_closed || opening_keywords.iter().any(|keyword| schema.get(keyword).is_some()) {
        return None;
    }
    schema.get("properties")?.as_object()
}

/// Returns whether a schema contains any of `keywords`, at any depth.
fn contains_keyword(schema: &Value, keywords: &[&str]) -> bool {
    match schema {
        Value::Object(fields) => fields
            .iter()
            .any(|(name, inner)| keywords.contains(&name.as_str()) || contains_keyword(inner, keywords)),
        Value::Array(elements) => elements.iter().any(|element| contains_keyword(element, keywords)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

/// Returns the error message for an invalid schema.
fn schema_error(error: &ValidationError<'_>) -> String {
    let path = error.instance_path().as_str();
    // The validator's message for an unknown type is hard to understand.
    if path.ends_with("/type") {
        return format!("{path}: {} is not a type; {TYPE_NAMES}", error.instance());
    }
    let is_pattern = path.ends_with("/pattern") || error.schema_path().as_str().ends_with("/format");
    match is_pattern {
        true => format!(
            "{}; a pattern is matched in linear time, so it cannot use look-around or back-references",
            error_message(error)
        ),
        false => error_message(error),
    }
}

fn error_message(error: &ValidationError<'_>) -> String {
    let mut message = error.to_string();
    if let Some((end, _)) = message.char_indices().nth(MAX_ERROR_CHARS) {
        message.truncate(end);
        message.push('…');
    }
    match error.instance_path().as_str() {
        "" => message,
        path => format!("at {path}: {message}"),
    }
}

/// Converts a TOML value into JSON; a date becomes a string.
pub(super) fn json_from_toml(value: toml::Value) -> Value {
    match value {
        toml::Value::String(text) => text.into(),
        toml::Value::Integer(number) => number.into(),
        toml::Value::Float(number) => number.into(),
        toml::Value::Boolean(truth) => truth.into(),
        toml::Value::Datetime(date) => date.to_string().into(),
        toml::Value::Array(list) => list.into_iter().map(json_from_toml).collect(),
        toml::Value::Table(table) => {
            table.into_iter().map(|(key, value)| (key, json_from_toml(value))).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_error_has_its_path_and_the_number_and_length_of_errors_are_bounded() {
        let schema = Schema::new(json!({ "type": "array", "items": { "type": "string" } })).unwrap();
        assert_eq!(schema.check(&json!(["a"])), Ok(()));
        assert_eq!(schema.check(&json!(["a", 5])).unwrap_err(), r#"at /1: 5 is not of type "string""#);
        let many = schema.check(&json!([1, 2, 3, 4, 5, 6, 7, 8, 9, 10])).unwrap_err();
        assert!(many.ends_with("; and 2 more"), "{many}");
        let long = schema.check(&json!("x".repeat(100_000))).unwrap_err();
        assert!(long.len() < 400, "{}", long.len());
    }

    /// A node is a text, or a list of nodes. The list branch occurs three times.
    fn recursive() -> Schema {
        let branch = json!({ "type": "array", "items": { "$ref": "#/$defs/node" } });
        let node = json!({ "anyOf": [{ "type": "string" }, branch, branch, branch] });
        Schema::new(json!({ "$ref": "#/$defs/node", "$defs": { "node": node } })).unwrap()
    }

    #[test]
    fn a_value_that_does_not_match_a_recursive_schema_is_refused_with_bounded_work() {
        // Collecting the errors of all branches would build 3^90 of them.
        let deep = (0..90).fold(json!(1), |inner, _| json!([inner]));
        assert_eq!(recursive().check(&deep).unwrap_err(), "it differs in too many ways to list them");
        let valid = (0..90).fold(json!("x"), |inner, _| json!([inner]));
        assert_eq!(recursive().check(&valid), Ok(()));
        let wide = json!([["a", "b", ["c", "d", "e", ["f", ["g", 1]]]], "h"]);
        assert!(recursive().check(&wide).is_err());
    }

    #[test]
    fn a_long_invalid_list_is_refused_with_its_first_errors() {
        let schema = Schema::new(json!({ "type": "array", "items": { "type": "string" } })).unwrap();
        let reason = schema.check(&json!(vec![1; 500_000])).unwrap_err();
        assert!(reason.starts_with(r#"at /0: 1 is not of type "string"; at /1: "#), "{reason}");
        assert!(reason.len() < 1_000, "{}", reason.len());
    }

    /// A schema in which each level references the next level twice.
    fn doubling(levels: usize) -> Value {
        let level = |number: usize| {
            let next = json!({ "$ref": format!("#/$defs/l{}", number + 1) });
            (format!("l{number}"), json!({ "anyOf": [next, next] }))
        };
        let mut levels: Map<String, Value> = (0..levels).map(level).collect();
        levels.insert(format!("l{}", levels.len()), json!({ "type": "string" }));
        json!({ "$ref": "#/$defs/l0", "$defs": levels })
    }

    #[test]
    fn a_schema_with_multiplying_references_is_slow_or_refused() {
        assert!(Schema::new(doubling(5)).unwrap().is_quick(10));
        let slow = Schema::new(doubling(11)).unwrap();
        assert!(!slow.is_quick(10));
        assert!(slow.check(&json!([1, 2])).is_err());
        let reason = Schema::new(doubling(40)).unwrap_err();
        assert!(reason.contains("references multiply"), "{reason}");
        assert!(recursive().is_quick(10));
    }

    #[test]
    fn a_pattern_is_matched_in_linear_time() {
        let schema = Schema::new(json!({ "pattern": "^(a+)+$" })).unwrap();
        assert!(schema.check(&json!("a".repeat(50_000) + "b")).is_err());
        let reason = Schema::new(json!({ "pattern": "^(?=a)b" })).unwrap_err();
        assert!(reason.contains("look-around"), "{reason}");
    }

    #[test]
    fn an_invalid_schema_and_an_external_reference_are_refused() {
        for wrong in [
            json!({ "type": "strin" }),
            json!({ "properties": { "a": { "minimum": "x" } } }),
            json!({ "$ref": "https://example.com/schema.json" }),
            json!({ "pattern": "(" }),
        ] {
            assert!(Schema::new(wrong.clone()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_key_is_unknown_only_if_the_schema_forbids_other_keys() {
        let inner = json!({ "properties": { "city": {} }, "additionalProperties": false });
        let closed = json!({ "properties": { "name": {}, "home": inner }, "additionalProperties": false });
        let closed = Schema::new(closed).unwrap();
        assert_eq!(closed.unknown_key(&["nmae"]), Some(("nmae", vec!["name", "home"])));
        assert_eq!(closed.unknown_key(&["home", "town"]), Some(("town", vec!["city"])));
        assert_eq!(closed.unknown_key(&["home", "city"]), None);
        assert_eq!(closed.unknown_key(&["name", "anything"]), None);
        assert_eq!(Schema::new(json!({ "properties": { "a": {} } })).unwrap().unknown_key(&["b"]), None);
    }

    #[test]
    fn toml_is_converted_to_json_in_its_order() {
        let table: toml::Table = toml::from_str("z = 1\na = [1.5, true, 'x', 1979-05-27]").unwrap();
        let json = json_from_toml(toml::Value::Table(table));
        assert_eq!(json.to_string(), r#"{"z":1,"a":[1.5,true,"x","1979-05-27"]}"#);
    }
}
