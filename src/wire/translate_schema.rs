//! Writes a schema the way a vendor takes it, without changing which answers are valid.
//!
//! A `$ref` that is described, as code generators write it, gets the schema that it refers to in its place;
//! remarks that the vendor does not know are left out. Where that would copy much, the reference keeps its place and
//! loses its description instead.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::schema_rules::Rules;

/// Keywords beside a `$ref` that say nothing about which values are valid.
const REMARKS: [&str; 8] =
    ["title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly", "$comment"];

/// How often references are followed: one that still refers to others then stays alone.
const DEEPEST: usize = 8;

/// Schemas that are written at most: references that fan out end there.
const MOST_SCHEMAS: usize = 20_000;

/// Values that are copied in the place of references at most. An enum alone may have thousands, and each property may
/// refer to it.
const MOST_COPIED: usize = 1_000;

/// Returns the schema as the vendor of these rules takes it; as it was where nothing has to be changed.
pub(super) fn translate<'a>(schema: Cow<'a, Value>, rules: &Rules) -> Cow<'a, Value> {
    let write = |copies_left| {
        let mut writer = Writer { root: &schema, rules, left: MOST_SCHEMAS, copies_left, changed: false };
        let written = writer.schema(&schema, DEEPEST);
        (writer.changed && writer.left > 0).then_some(written)
    };
    let written = match write(MOST_COPIED) {
        // The copies may be what is too much for the vendor.
        Some(written) if !rules.accepts(&written) => {
            write(0).filter(|bare| rules.accepts(bare)).or(Some(written))
        }
        written => written,
    };
    written.map_or(schema, Cow::Owned)
}

struct Writer<'a> {
    root: &'a Value,
    rules: &'a Rules,
    left: usize,
    /// Values that may still be copied.
    copies_left: usize,
    changed: bool,
}

impl Writer<'_> {
    fn schema(&mut self, schema: &Value, depth: usize) -> Value {
        self.left = self.left.saturating_sub(1);
        let Value::Object(keywords) = schema else { return schema.clone() };
        if self.left == 0 {
            return schema.clone();
        }
        if let Some(described) = self.described_reference(keywords, depth) {
            self.changed = true;
            return described;
        }
        let mut written = Map::new();
        for (key, value) in keywords {
            if self.rules.left_out.contains(&key.as_str()) {
                self.changed = true;
                continue;
            }
            if key == "const" && self.is_to_be_enum(keywords, value) {
                self.changed = true;
                written.insert("enum".to_owned(), Value::Array(vec![value.clone()]));
                continue;
            }
            let value = match (key.as_str(), value) {
                ("properties" | "patternProperties" | "$defs" | "definitions", Value::Object(all)) => {
                    let one = |(name, schema): (&String, &Value)| (name.clone(), self.schema(schema, depth));
                    Value::Object(all.iter().map(one).collect())
                }
                ("anyOf" | "oneOf" | "allOf" | "prefixItems", Value::Array(all)) => {
                    Value::Array(all.iter().map(|schema| self.schema(schema, depth)).collect())
                }
                ("items" | "additionalProperties" | "not", schema) => self.schema(schema, depth),
                (_, other) => other.clone(),
            };
            written.insert(key.clone(), value);
        }
        Value::Object(written)
    }

    /// Returns whether a value is written as the only one of an `enum`, which takes texts and numbers.
    fn is_to_be_enum(&self, of: &Map<String, Value>, value: &Value) -> bool {
        self.rules.const_as_enum && !of.contains_key("enum") && (value.is_string() || value.is_number())
    }

    /// Writes a reference with remarks beside it as what it refers to, with these remarks; without them where it
    /// has been followed often enough or too much would be copied.
    fn described_reference(&mut self, keywords: &Map<String, Value>, depth: usize) -> Option<Value> {
        let reference = keywords.get("$ref")?.as_str()?;
        let beside = || keywords.iter().filter(|(key, _)| *key != "$ref");
        if beside().next().is_none() || !beside().all(|(key, _)| REMARKS.contains(&key.as_str())) {
            return None;
        }
        let target = reference.strip_prefix('#').and_then(|pointer| self.root.pointer(pointer));
        let target = target.filter(|_| depth > 0);
        let Some((target, left)) = target.and_then(|target| Some((target, count(target, self.copies_left)?)))
        else {
            return Some(Value::Object([("$ref".to_owned(), reference.into())].into_iter().collect()));
        };
        self.copies_left = left;
        let mut written = self.schema(target, depth - 1);
        // What is itself a bare reference takes no remarks either.
        if let Value::Object(written) = &mut written
            && !written.contains_key("$ref")
        {
            let kept = beside().filter(|(key, _)| !self.rules.left_out.contains(&key.as_str()));
            written.extend(kept.map(|(key, value)| (key.clone(), value.clone())));
        }
        Some(written)
    }
}

/// Counts a value and those inside it; returns what is left of the most there may be.
fn count(value: &Value, most: usize) -> Option<usize> {
    let left = most.checked_sub(1)?;
    match value {
        Value::Array(all) => all.iter().try_fold(left, |left, value| count(value, left)),
        Value::Object(fields) => fields.values().try_fold(left, |left, value| count(value, left)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Some(left),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::wire::schema_rules::{ANTHROPIC, GEMINI, OPENAI_STRICT};

    #[test]
    fn a_described_reference_becomes_what_it_refers_to() {
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
    fn a_schema_without_anything_to_change_stays_as_it_is() {
        let schema =
            json!({ "type": "object", "properties": { "a": { "$ref": "#/$defs/d" } }, "$defs": { "d": {} } });
        assert!(matches!(translate(Cow::Borrowed(&schema), &OPENAI_STRICT), Cow::Borrowed(_)));
    }

    #[test]
    fn remarks_that_a_vendor_does_not_know_are_left_out() {
        let schema = json!({ "type": "object", "properties": { "default": { "type": "string", "default": "a" } },
            "required": ["default"], "additionalProperties": false });
        let written = translate(Cow::Borrowed(&schema), &OPENAI_STRICT);
        assert_eq!(written["properties"], json!({ "default": { "type": "string" } }));
        assert!(OPENAI_STRICT.accepts(&written));
    }

    #[test]
    fn null_is_asked_for_as_the_schema_says_and_by_no_keyword_of_openapi() {
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
    fn a_constant_is_an_enum_of_one_value_where_its_vendor_does_not_heed_it() {
        let schema = |constant: Value| json!({ "type": "object", "properties": { "const": constant } });
        let constant = schema(json!({ "const": "a", "description": "x" }));
        let written = translate(Cow::Borrowed(&constant), &GEMINI);
        assert_eq!(*written, schema(json!({ "enum": ["a"], "description": "x" })));
        for stays in [json!({ "const": true }), json!({ "const": "a", "enum": ["a", "b"] })] {
            let stays = schema(stays);
            assert_eq!(*translate(Cow::Borrowed(&stays), &GEMINI), stays);
        }
        assert!(matches!(translate(Cow::Borrowed(&constant), &OPENAI_STRICT), Cow::Borrowed(_)));
    }

    #[test]
    fn what_would_be_copied_often_stays_a_reference_without_its_description() {
        for (properties, values, is_copied) in
            [(20, 10, true), (40, 150, false), (40, 600, false), (300, 6_000, false)]
        {
            let names: Vec<_> = (0..properties).map(|number| format!("p{number}")).collect();
            let one = |name: &String| (name.clone(), json!({ "$ref": "#/$defs/tz", "description": "d" }));
            let zones: Vec<_> = (0..values).map(|number| format!("Zone/{number}")).collect();
            let schema = json!({
                "type": "object",
                "properties": names.iter().map(one).collect::<Map<_, _>>(),
                "required": names,
                "additionalProperties": false,
                "$defs": { "tz": { "type": "string", "enum": zones } },
            });
            let written = translate(Cow::Borrowed(&schema), &OPENAI_STRICT);
            let last = &written["properties"][names.last().unwrap()];
            assert_eq!(last.get("enum").is_some(), is_copied, "{properties} {values}");
            assert!(written.to_string().len() < schema.to_string().len() + 30 * MOST_COPIED);
            assert_eq!(OPENAI_STRICT.accepts(&written), values < 1_000, "{properties} {values}");
        }
    }

    #[test]
    fn a_described_recursion_ends() {
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
