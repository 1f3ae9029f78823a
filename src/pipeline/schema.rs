//! JSON Schemas: read from TOML, compiled once, and what they say about a value in words.
//!
//! Fetches nothing: a schema that refers to another file or address is refused.

use std::sync::Arc;

use jsonschema::{PatternOptions, ValidationError, Validator};
use serde_json::{Map, Value};

use super::explain;
use super::values::Kind;

/// A compiled JSON Schema.
#[derive(Debug, Clone)]
pub(super) struct Schema {
    value: Arc<Value>,
    validator: Arc<Validator>,
    /// Whether the work of a check grows no faster than the schema times the value.
    is_linear: bool,
}

/// Complaints told at once; a model mends a few and then more of them.
pub(super) const MOST_COMPLAINTS: usize = 8;
/// Characters of one complaint: it repeats the value, which can be large.
const LONGEST_COMPLAINT: usize = 300;

/// Longest text whose value is checked on an actor's thread.
pub(super) const MAX_QUICK_BYTES: usize = 8 << 10;

/// Keywords whose checks the validator does not remember, so that they can be repeated many times.
const NOT_LINEAR: [&str; 4] = ["$dynamicRef", "$recursiveRef", "unevaluatedItems", "unevaluatedProperties"];

/// Most subschemas that one plain value is held against on an actor's thread. The validator remembers what it decided
/// of lists and objects, and not of texts and numbers.
const MAX_QUICK_VISITS: usize = 500;

const TYPES: &str = "types are array, boolean, integer, null, number, object and string";

impl Schema {
    /// Compiles a schema.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn new(value: Value) -> Result<Self, String> {
        // An engine that takes linear time: a pattern is the author's, but the text it is held against is not.
        let options = jsonschema::options().with_pattern_options(PatternOptions::regex());
        let compiled = options.should_validate_formats(true).build(&value);
        let validator = compiled.map_err(|error| fault(&error))?;
        let visits = explain::visits_of_scalar(&value);
        if visits.is_some_and(|visits| visits > explain::MAX_VISITS) {
            return Err(format!(
                "its references multiply: a single value is checked against more than {} subschemas; name each of \
                 them once",
                explain::MAX_VISITS
            ));
        }
        let is_linear =
            visits.is_some_and(|visits| visits <= MAX_QUICK_VISITS) && !mentions(&value, &NOT_LINEAR);
        Ok(Self { value: Arc::new(value), validator: Arc::new(validator), is_linear })
    }

    /// Returns whether a check of a value whose text has `bytes` is short enough for an actor's thread.
    pub(super) fn is_quick(&self, bytes: usize) -> bool {
        self.is_linear && bytes <= MAX_QUICK_BYTES
    }

    /// Returns the schema as it was given.
    pub(super) fn value(&self) -> &Arc<Value> {
        &self.value
    }

    /// Checks a value. Decides first, which takes little memory; explains within a budget.
    ///
    /// # Errors
    /// The first few things that are wrong with it, in words.
    pub(super) fn check(&self, value: &Value) -> Result<(), String> {
        match self.is_valid(value) {
            true => Ok(()),
            false => Err(self.explain(value)),
        }
    }

    /// Returns whether a value matches. References that recurse are decided once per value, so that the work is
    /// bounded by the schema times the value.
    pub(super) fn is_valid(&self, value: &Value) -> bool {
        self.validator.is_valid(value)
    }

    /// Says what is wrong with a value that does not match.
    fn explain(&self, value: &Value) -> String {
        if !explain::is_cheap(&self.value, value) {
            let faults = explain::faults(&self.value, value);
            return match faults.is_empty() {
                true => "too much of it differs to say where".to_owned(),
                false => faults.join("; "),
            };
        }
        let mut errors = self.validator.iter_errors(value);
        let mut said: Vec<String> =
            errors.by_ref().take(MOST_COMPLAINTS).map(|error| complaint(&error)).collect();
        match errors.count() {
            0 => {}
            more => said.push(format!("and {more} more")),
        }
        said.join("; ")
    }

    /// Returns what kind of value stands at `path` in every value of this schema that has it, where that is certain.
    pub(super) fn kind(&self, path: &[&str]) -> Option<Kind> {
        let mut schema = &*self.value;
        for key in path {
            schema = schema.get("properties")?.get(*key)?;
        }
        Some(match schema.get("type")?.as_str()? {
            "string" => Kind::Text,
            "number" | "integer" => Kind::Number,
            "boolean" => Kind::Truth,
            "array" => Kind::List,
            "object" => Kind::Map,
            "null" => Kind::None,
            _ => return None,
        })
    }

    /// Returns whether the schema itself names a property of this name.
    pub(super) fn has_property(&self, name: &str) -> bool {
        self.value.get("properties").is_some_and(|properties| properties.get(name).is_some())
    }

    /// Finds the first key of `path` that no value of this schema can have, with the keys it could be.
    pub(super) fn unknown<'p, 's>(&'s self, path: &[&'p str]) -> Option<(&'p str, Vec<&'s str>)> {
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

/// Returns the properties of a schema that allows no others.
fn closed_properties(schema: &Value) -> Option<&Map<String, Value>> {
    let closed = schema.get("additionalProperties") == Some(&Value::Bool(false));
    let open = ["patternProperties", "$ref", "$dynamicRef", "allOf", "anyOf", "oneOf"];
    if !closed || open.iter().any(|keyword| schema.get(keyword).is_some()) {
        return None;
    }
    schema.get("properties")?.as_object()
}

/// Returns whether any of these keywords stands anywhere in a schema.
fn mentions(schema: &Value, keywords: &[&str]) -> bool {
    match schema {
        Value::Object(fields) => {
            fields.iter().any(|(name, inner)| keywords.contains(&name.as_str()) || mentions(inner, keywords))
        }
        Value::Array(elements) => elements.iter().any(|element| mentions(element, keywords)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

/// Says what is wrong with a schema.
fn fault(error: &ValidationError<'_>) -> String {
    let place = error.instance_path().as_str();
    // The rules for schemas say this in a way that helps nobody.
    if place.ends_with("/type") {
        return format!("{place}: {} is no type; {TYPES}", error.instance());
    }
    let is_pattern = place.ends_with("/pattern") || error.schema_path().as_str().ends_with("/format");
    match is_pattern {
        true => format!(
            "{}; a pattern is matched in linear time, so it cannot use look-around or back-references",
            complaint(error)
        ),
        false => complaint(error),
    }
}

fn complaint(error: &ValidationError<'_>) -> String {
    let mut said = error.to_string();
    if let Some((end, _)) = said.char_indices().nth(LONGEST_COMPLAINT) {
        said.truncate(end);
        said.push('…');
    }
    match error.instance_path().as_str() {
        "" => said,
        path => format!("at {path}: {said}"),
    }
}

/// Turns a TOML value into JSON; a date becomes a string.
pub(super) fn json_of(value: toml::Value) -> Value {
    match value {
        toml::Value::String(text) => text.into(),
        toml::Value::Integer(number) => number.into(),
        toml::Value::Float(number) => number.into(),
        toml::Value::Boolean(truth) => truth.into(),
        toml::Value::Datetime(date) => date.to_string().into(),
        toml::Value::Array(list) => list.into_iter().map(json_of).collect(),
        toml::Value::Table(table) => table.into_iter().map(|(key, value)| (key, json_of(value))).collect(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_complaint_has_its_path_and_their_number_is_bounded() {
        let schema = Schema::new(json!({ "type": "array", "items": { "type": "string" } })).unwrap();
        assert_eq!(schema.check(&json!(["a"])), Ok(()));
        assert_eq!(schema.check(&json!(["a", 5])).unwrap_err(), r#"at /1: 5 is not of type "string""#);
        let many = schema.check(&json!([1, 2, 3, 4, 5, 6, 7, 8, 9, 10])).unwrap_err();
        assert!(many.ends_with("; and 2 more"), "{many}");
        let long = schema.check(&json!("x".repeat(100_000))).unwrap_err();
        assert!(long.len() < 400, "{}", long.len());
    }

    /// A node is a text, or a list of nodes in one of two spellings.
    fn recursive() -> Schema {
        let branch = json!({ "type": "array", "items": { "$ref": "#/$defs/node" } });
        let node = json!({ "anyOf": [{ "type": "string" }, branch, branch, branch] });
        Schema::new(json!({ "$ref": "#/$defs/node", "$defs": { "node": node } })).unwrap()
    }

    #[test]
    fn a_wrong_answer_to_a_recursive_schema_is_refused_in_bounded_work() {
        // Gathering every branch's errors would build 3^90 of them.
        let deep = (0..90).fold(json!(1), |inner, _| json!([inner]));
        assert_eq!(recursive().check(&deep).unwrap_err(), "too much of it differs to say where");
        let fine = (0..90).fold(json!("x"), |inner, _| json!([inner]));
        assert_eq!(recursive().check(&fine), Ok(()));
        let wide = json!([["a", "b", ["c", "d", "e", ["f", ["g", 1]]]], "h"]);
        assert!(recursive().check(&wide).is_err());
    }

    #[test]
    fn a_long_wrong_list_is_refused_with_its_first_faults() {
        let schema = Schema::new(json!({ "type": "array", "items": { "type": "string" } })).unwrap();
        let reason = schema.check(&json!(vec![1; 500_000])).unwrap_err();
        assert!(reason.starts_with(r#"at /0: 1 is not of type "string"; at /1: "#), "{reason}");
        assert!(reason.len() < 1_000, "{}", reason.len());
    }

    /// Every level holds the next one twice.
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
    fn a_schema_whose_references_multiply_is_checked_off_the_actors_threads_or_refused() {
        assert!(Schema::new(doubling(5)).unwrap().is_quick(10));
        let slow = Schema::new(doubling(11)).unwrap();
        assert!(!slow.is_quick(10));
        assert!(slow.check(&json!([1, 2])).is_err());
        let reason = Schema::new(doubling(40)).unwrap_err();
        assert!(reason.contains("references multiply"), "{reason}");
        assert!(recursive().is_quick(10));
    }

    #[test]
    fn a_pattern_takes_linear_time() {
        let schema = Schema::new(json!({ "pattern": "^(a+)+$" })).unwrap();
        assert!(schema.check(&json!("a".repeat(50_000) + "b")).is_err());
        let reason = Schema::new(json!({ "pattern": "^(?=a)b" })).unwrap_err();
        assert!(reason.contains("look-around"), "{reason}");
    }

    #[test]
    fn a_schema_that_is_none_or_refers_elsewhere_is_refused() {
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
    fn a_key_is_unknown_only_where_the_schema_is_closed() {
        let inner = json!({ "properties": { "city": {} }, "additionalProperties": false });
        let closed = json!({ "properties": { "name": {}, "home": inner }, "additionalProperties": false });
        let closed = Schema::new(closed).unwrap();
        assert_eq!(closed.unknown(&["nmae"]), Some(("nmae", vec!["name", "home"])));
        assert_eq!(closed.unknown(&["home", "town"]), Some(("town", vec!["city"])));
        assert_eq!(closed.unknown(&["home", "city"]), None);
        assert_eq!(closed.unknown(&["name", "anything"]), None);
        assert_eq!(Schema::new(json!({ "properties": { "a": {} } })).unwrap().unknown(&["b"]), None);
    }

    #[test]
    fn toml_becomes_json_in_its_order() {
        let table: toml::Table = toml::from_str("z = 1\na = [1.5, true, 'x', 1979-05-27]").unwrap();
        let json = json_of(toml::Value::Table(table));
        assert_eq!(json.to_string(), r#"{"z":1,"a":[1.5,true,"x","1979-05-27"]}"#);
    }
}
