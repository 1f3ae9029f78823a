//! JSON Schemas: read from TOML, compiled once, and what they say about a value in words.
//!
//! Fetches nothing: a schema that refers to another file or address is refused.

use std::sync::Arc;

use jsonschema::{ValidationError, Validator};
use serde_json::{Map, Value};

/// A compiled JSON Schema.
#[derive(Debug, Clone)]
pub(super) struct Schema {
    value: Arc<Value>,
    validator: Arc<Validator>,
}

/// Complaints told at once; a model mends a few and then more of them.
const MOST_COMPLAINTS: usize = 8;
/// Characters of one complaint: it repeats the value, which can be large.
const LONGEST_COMPLAINT: usize = 300;

const TYPES: &str = "types are array, boolean, integer, null, number, object and string";

impl Schema {
    /// Compiles a schema.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn new(value: Value) -> Result<Self, String> {
        let compiled = jsonschema::options().should_validate_formats(true).build(&value);
        let validator =
            compiled.map_err(|error| match error.instance_path().as_str().ends_with("/type") {
                // The rules for schemas say this in a way that helps nobody.
                true => format!("{}: {} is no type; {TYPES}", error.instance_path(), error.instance()),
                false => complaint(&error),
            })?;
        Ok(Self { value: Arc::new(value), validator: Arc::new(validator) })
    }

    /// Returns the schema as it was given.
    pub(super) fn value(&self) -> &Arc<Value> {
        &self.value
    }

    /// Checks a value.
    ///
    /// # Errors
    /// Everything that is wrong with it, in words.
    pub(super) fn check(&self, value: &Value) -> Result<(), String> {
        if self.validator.is_valid(value) {
            return Ok(());
        }
        let mut errors = self.validator.iter_errors(value);
        let mut said: Vec<String> =
            errors.by_ref().take(MOST_COMPLAINTS).map(|error| complaint(&error)).collect();
        match errors.count() {
            0 => {}
            more => said.push(format!("and {more} more")),
        }
        Err(said.join("; "))
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
