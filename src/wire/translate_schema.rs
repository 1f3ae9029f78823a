//! Translates a schema to the form that a vendor accepts, without changing which answers are valid.
//!
//! A `$ref` with annotations, as code generators write it, is replaced by the schema it refers to. Annotations
//! that the vendor does not support are removed. If the replacement would copy too much, the reference stays and
//! loses its annotations instead.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::schema_rules::{MAX_SCHEMAS, SchemaRules};

/// Keywords beside a `$ref` that do not affect validation.
const ANNOTATIONS: [&str; 8] =
    ["title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly", "$comment"];

/// The maximum depth to which references are followed. A deeper reference stays, without annotations.
const MAX_REFERENCE_DEPTH: usize = 8;

/// The maximum number of values copied in place of references. An enum alone may have thousands, and each
/// property may refer to it.
const MAX_COPIED_VALUES: usize = 1_000;

/// Returns the schema in the form that the vendor accepts, borrowed if it needs no change.
pub(super) fn translate<'a>(schema: Cow<'a, Value>, rules: &SchemaRules) -> Cow<'a, Value> {
    let write = |copies_left| {
        let mut translator =
            Translator { root: &schema, rules, schemas_left: MAX_SCHEMAS, copies_left, changed: false };
        let written = translator.translate_schema(&schema, MAX_REFERENCE_DEPTH);
        (translator.changed && translator.schemas_left > 0).then_some(written)
    };
    let written = match write(MAX_COPIED_VALUES) {
        // The copies may exceed the limits of the vendor.
        Some(written) if !rules.accepts(&written) => {
            write(0).filter(|unexpanded| rules.accepts(unexpanded)).or(Some(written))
        }
        written => written,
    };
    written.map_or(schema, Cow::Owned)
}

struct Translator<'a> {
    root: &'a Value,
    rules: &'a SchemaRules,
    schemas_left: usize,
    /// The number of values that may still be copied.
    copies_left: usize,
    changed: bool,
}

impl Translator<'_> {
    fn translate_schema(&mut self, schema: &Value, depth: usize) -> Value {
        self.schemas_left = self.schemas_left.saturating_sub(1);
        let Value::Object(keywords) = schema else { return schema.clone() };
        if self.schemas_left == 0 {
            return schema.clone();
        }
        if let Some(expanded) = self.expand_reference(keywords, depth) {
            self.changed = true;
            return expanded;
        }
        let mut written = Map::new();
        for (key, value) in keywords {
            if self.rules.removed_keywords.contains(&key.as_str()) {
                self.changed = true;
                continue;
            }
            if key == "const" && self.becomes_enum(keywords, value) {
                self.changed = true;
                written.insert("enum".to_owned(), Value::Array(vec![value.clone()]));
                continue;
            }
            let value = match (key.as_str(), value) {
                ("properties" | "patternProperties" | "$defs" | "definitions", Value::Object(all)) => {
                    let translate_entry = |(name, schema): (&String, &Value)| {
                        (name.clone(), self.translate_schema(schema, depth))
                    };
                    Value::Object(all.iter().map(translate_entry).collect())
                }
                ("anyOf" | "oneOf" | "allOf" | "prefixItems", Value::Array(all)) => {
                    Value::Array(all.iter().map(|schema| self.translate_schema(schema, depth)).collect())
                }
                ("items" | "additionalProperties" | "not", schema) => self.translate_schema(schema, depth),
                (_, other) => other.clone(),
            };
            written.insert(key.clone(), value);
        }
        Value::Object(written)
    }

    /// Returns whether a `const` is written as an `enum` of one value, which must be a string or a number.
    fn becomes_enum(&self, keywords: &Map<String, Value>, value: &Value) -> bool {
        self.rules.const_as_enum && !keywords.contains_key("enum") && (value.is_string() || value.is_number())
    }

    /// Replaces a reference with annotations by its target with these annotations. At the maximum depth, or if
    /// too much would be copied, returns the reference without annotations.
    fn expand_reference(&mut self, keywords: &Map<String, Value>, depth: usize) -> Option<Value> {
        let reference = keywords.get("$ref")?.as_str()?;
        let annotations = || keywords.iter().filter(|(key, _)| *key != "$ref");
        if annotations().next().is_none()
            || !annotations().all(|(key, _)| ANNOTATIONS.contains(&key.as_str()))
        {
            return None;
        }
        let target = reference.strip_prefix('#').and_then(|pointer| self.root.pointer(pointer));
        let target = target.filter(|_| depth > 0);
        let Some((target, remaining)) =
            target.and_then(|target| Some((target, remaining_after(target, self.copies_left)?)))
        else {
            return Some(Value::Object([("$ref".to_owned(), reference.into())].into_iter().collect()));
        };
        self.copies_left = remaining;
        let mut written = self.translate_schema(target, depth - 1);
        // A target that is itself a reference cannot have annotations either.
        if let Value::Object(written) = &mut written
            && !written.contains_key("$ref")
        {
            let supported =
                annotations().filter(|(key, _)| !self.rules.removed_keywords.contains(&key.as_str()));
            written.extend(supported.map(|(key, value)| (key.clone(), value.clone())));
        }
        Some(written)
    }
}

/// Subtracts the number of a value and its nested values from `max`; `None` if it is too small.
fn remaining_after(value: &Value, max: usize) -> Option<usize> {
    let remaining = max.checked_sub(1)?;
    match value {
        Value::Array(all) => {
            all.iter().try_fold(remaining, |remaining, value| remaining_after(value, remaining))
        }
        Value::Object(fields) => {
            fields.values().try_fold(remaining, |remaining, value| remaining_after(value, remaining))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Some(remaining),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::wire::schema_rules::{ANTHROPIC, GEMINI, OPENAI_STRICT};

    #[test]
    fn a_reference_with_annotations_is_replaced_by_its_target() {
        let schema = json!({
            "type": "object",
            "properties": { "hero": { "$ref": "#/$defs/chart", "description": "the hero" } },
            "required": ["hero"],
            "additionalProperties": false,
            "$defs": { "chart": { "type": "string", "description": "a chart" } },
        });
        for rules in [&OPENAI_STRICT, &ANTHROPIC, &GEMINI] {
            let written = translate(Cow::Borrowed(&schema), rules);
            assert_eq!(written["properties"]["hero"], json!({ "type": "string", "description": "the hero" }));
            assert!(rules.accepts(&written) && !rules.accepts(&schema));
        }
    }

    #[test]
    fn a_schema_that_needs_no_change_is_borrowed() {
        let schema =
            json!({ "type": "object", "properties": { "a": { "$ref": "#/$defs/d" } }, "$defs": { "d": {} } });
        assert!(matches!(translate(Cow::Borrowed(&schema), &OPENAI_STRICT), Cow::Borrowed(_)));
    }

    #[test]
    fn unsupported_annotations_are_removed() {
        let schema = json!({ "type": "object", "properties": { "default": { "type": "string", "default": "a" } },
            "required": ["default"], "additionalProperties": false });
        let written = translate(Cow::Borrowed(&schema), &OPENAI_STRICT);
        assert_eq!(written["properties"], json!({ "default": { "type": "string" } }));
        assert!(OPENAI_STRICT.accepts(&written));
    }

    #[test]
    fn the_nullable_keyword_of_openapi_is_removed() {
        let schema = json!({ "type": "object", "required": ["a", "b", "c", "nullable"], "additionalProperties": false,
            "properties": {
                "a": { "type": "string", "nullable": true },
                "b": { "type": ["string", "null"] },
                "c": { "anyOf": [{ "type": "string" }, { "type": "null" }] },
                "nullable": { "type": "string" },
            } });
        for rules in [&OPENAI_STRICT, &ANTHROPIC, &GEMINI] {
            let written = translate(Cow::Borrowed(&schema), rules);
            let mut expected = schema.clone();
            expected["properties"]["a"] = json!({ "type": "string" });
            assert_eq!(*written, expected);
            assert!(rules.accepts(&written), "{rules:?}");
        }
    }

    #[test]
    fn a_const_becomes_an_enum_of_one_value_where_the_vendor_ignores_const() {
        let schema = |constant: Value| json!({ "type": "object", "properties": { "const": constant } });
        let constant = schema(json!({ "const": "a", "description": "x" }));
        let written = translate(Cow::Borrowed(&constant), &GEMINI);
        assert_eq!(*written, schema(json!({ "enum": ["a"], "description": "x" })));
        for unchanged in [json!({ "const": true }), json!({ "const": "a", "enum": ["a", "b"] })] {
            let unchanged = schema(unchanged);
            assert_eq!(*translate(Cow::Borrowed(&unchanged), &GEMINI), unchanged);
        }
        assert!(matches!(translate(Cow::Borrowed(&constant), &OPENAI_STRICT), Cow::Borrowed(_)));
    }

    #[test]
    fn a_target_that_would_be_copied_too_often_stays_a_reference() {
        for (properties, values, is_copied) in
            [(20, 10, true), (40, 150, false), (40, 600, false), (300, 6_000, false)]
        {
            let names: Vec<_> = (0..properties).map(|number| format!("p{number}")).collect();
            let property =
                |name: &String| (name.clone(), json!({ "$ref": "#/$defs/tz", "description": "d" }));
            let zones: Vec<_> = (0..values).map(|number| format!("Zone/{number}")).collect();
            let schema = json!({
                "type": "object",
                "properties": names.iter().map(property).collect::<Map<_, _>>(),
                "required": names,
                "additionalProperties": false,
                "$defs": { "tz": { "type": "string", "enum": zones } },
            });
            let written = translate(Cow::Borrowed(&schema), &OPENAI_STRICT);
            let last = &written["properties"][names.last().unwrap()];
            assert_eq!(last.get("enum").is_some(), is_copied, "{properties} {values}");
            assert!(written.to_string().len() < schema.to_string().len() + 30 * MAX_COPIED_VALUES);
            assert_eq!(OPENAI_STRICT.accepts(&written), values < 1_000, "{properties} {values}");
        }
    }

    #[test]
    fn recursion_with_annotations_terminates() {
        let schema = json!({
            "type": "object",
            "properties": { "next": { "$ref": "#/$defs/node", "description": "x" } },
            "required": ["next"],
            "additionalProperties": false,
            "$defs": { "node": { "type": "object", "required": ["next"], "additionalProperties": false,
                "properties": { "next": { "$ref": "#/$defs/node", "description": "y" } } } },
        });
        let written = translate(Cow::Borrowed(&schema), &GEMINI);
        assert!(!written.to_string().contains(r##""$ref":"#/$defs/node","description""##));
        assert!(!GEMINI.accepts(&written), "it recurs below required properties");
    }
}
