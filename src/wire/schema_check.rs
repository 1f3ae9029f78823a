//! Decides whether a vendor accepts a JSON Schema, by its [`SchemaRules`].
//!
//! The rules are an allowlist: in doubt a schema is not accepted. No vendor accepts keywords beside a `$ref`.

use serde_json::{Map, Value};

use super::schema_rules::{LARGE_ENUM_VALUES, MAX_SCHEMAS, Recursion, SchemaRules};

impl SchemaRules {
    /// Returns whether the vendor accepts `schema` unchanged.
    pub(super) fn accepts(&self, schema: &Value) -> bool {
        let is_object =
            schema.get("type").is_some_and(|root| root == "object") && schema.get("anyOf").is_none();
        let mut checker = SchemaChecker {
            rules: self,
            root: schema,
            open_references: Vec::new(),
            optional_above: 0,
            schemas: MAX_SCHEMAS,
            properties: self.properties,
            enum_values: self.enum_values,
            characters: self.characters,
            optional_properties: self.optional,
            unions: self.unions,
        };
        (is_object || !self.object_at_root) && checker.check_schema(schema, self.levels)
    }
}

/// The check of one schema. The numbers are the remainder of each limit.
struct SchemaChecker<'a> {
    rules: &'a SchemaRules,
    root: &'a Value,
    /// The references being followed, each with the number of optional properties above it.
    open_references: Vec<(&'a str, usize)>,
    /// The number of optional properties above the current schema.
    optional_above: usize,
    schemas: usize,
    properties: usize,
    enum_values: usize,
    characters: usize,
    optional_properties: usize,
    unions: usize,
}

impl<'a> SchemaChecker<'a> {
    fn check_schema(&mut self, schema: &'a Value, levels: usize) -> bool {
        let Value::Object(keywords) = schema else { return false };
        let rules = self.rules;
        consume(&mut self.schemas, 1)
            && levels > 0
            && (!keywords.contains_key("$ref") || keywords.keys().all(|key| key.starts_with('$')))
            && (!rules.typed || is_typed(keywords))
            && (!rules.closed || is_closed(keywords))
            && (!rules.all_required || requires_all(keywords))
            && (!is_union(keywords) || consume(&mut self.unions, 1))
            && keywords.iter().all(|(key, value)| self.check_keyword(keywords, key, value, levels - 1))
    }

    fn check_keyword(
        &mut self,
        keywords: &'a Map<String, Value>,
        key: &'a str,
        value: &'a Value,
        levels: usize,
    ) -> bool {
        let rules = self.rules;
        if rules.keywords.is_some_and(|known| !known.contains(&key)) {
            return false;
        }
        match (key, value) {
            ("properties", Value::Object(all)) => {
                consume(&mut self.properties, all.len())
                    && all.iter().all(|(name, schema)| self.check_property(keywords, name, schema, levels))
            }
            ("$defs" | "definitions", Value::Object(all)) => all.iter().all(|(name, schema)| {
                consume(&mut self.characters, name.len()) && self.check_schema(schema, levels)
            }),
            ("properties" | "$defs" | "definitions", _) => false,
            ("anyOf" | "oneOf" | "allOf" | "prefixItems", _) => {
                value.as_array().is_some_and(|all| all.iter().all(|schema| self.check_schema(schema, levels)))
            }
            ("additionalProperties", Value::Bool(false)) => true,
            ("additionalProperties", _) if rules.closed => false,
            ("items" | "additionalProperties", Value::Bool(_)) if rules.keywords.is_none() => true,
            ("items" | "additionalProperties", _) => self.check_schema(value, levels),
            ("enum", Value::Array(values)) => {
                consume(&mut self.enum_values, values.len())
                    && (values.len() <= LARGE_ENUM_VALUES || length_of(values) <= rules.enum_characters)
                    && values.iter().all(|value| self.check_value(value))
            }
            ("const", _) => self.check_value(value),
            ("minItems", _) => rules.min_items.is_none_or(|max| value.as_u64().is_some_and(|min| min <= max)),
            ("format", _) => {
                rules.formats.is_none_or(|all| value.as_str().is_some_and(|format| all.contains(&format)))
            }
            ("$ref", _) => value.as_str().is_some_and(|reference| self.check_reference(reference, levels)),
            _ => true,
        }
    }

    fn check_property(
        &mut self,
        keywords: &'a Map<String, Value>,
        name: &str,
        schema: &'a Value,
        levels: usize,
    ) -> bool {
        let is_optional = usize::from(!requires(keywords, name));
        self.optional_above += is_optional;
        let fits = consume(&mut self.optional_properties, is_optional)
            && consume(&mut self.characters, name.len())
            && self.check_schema(schema, levels);
        self.optional_above -= is_optional;
        fits
    }

    fn check_value(&mut self, value: &Value) -> bool {
        let is_scalar = !value.is_object() && !value.is_array();
        (is_scalar || !self.rules.scalar_values) && consume(&mut self.characters, length(value))
    }

    fn check_reference(&mut self, reference: &'a str, levels: usize) -> bool {
        let Some(target) = reference.strip_prefix('#').and_then(|pointer| self.root.pointer(pointer)) else {
            return false;
        };
        if let Some((_, above)) = self.open_references.iter().find(|(known, _)| *known == reference) {
            return self.rules.recursion == Recursion::BelowOptional && self.optional_above > *above;
        }
        if self.rules.recursion == Recursion::Anywhere {
            return true;
        }
        let is_root = reference == "#";
        if is_root && (self.rules.recursion == Recursion::Nowhere || self.optional_above == 0) {
            return false;
        }
        self.open_references.push((reference, self.optional_above));
        let fits = is_root || self.check_schema(target, levels);
        self.open_references.pop();
        fits && (self.rules.recursion != Recursion::Nowhere || !is_root)
    }
}

fn length(value: &Value) -> usize {
    value.as_str().map_or(0, |text| text.chars().count())
}

fn length_of(values: &[Value]) -> usize {
    values.iter().map(length).sum()
}

/// Returns whether several types are allowed.
fn is_union(keywords: &Map<String, Value>) -> bool {
    let types = keywords.get("type").and_then(Value::as_array);
    keywords.contains_key("anyOf") || types.is_some_and(|types| types.len() > 1)
}

/// Subtracts from the remainder of a limit; `false` if it is too small.
fn consume(remaining: &mut usize, number: usize) -> bool {
    let rest = remaining.checked_sub(number);
    *remaining = rest.unwrap_or(0);
    rest.is_some()
}

fn is_typed(keywords: &Map<String, Value>) -> bool {
    ["type", "$ref", "anyOf"].iter().any(|kind| keywords.contains_key(*kind))
        && (!has_type(keywords, "array") || keywords.contains_key("items"))
}

/// Returns whether an object schema forbids other properties.
fn is_closed(keywords: &Map<String, Value>) -> bool {
    let is_object =
        has_type(keywords, "object") || !keywords.contains_key("type") && keywords.contains_key("properties");
    !is_object || keywords.get("additionalProperties") == Some(&Value::Bool(false))
}

fn requires_all(keywords: &Map<String, Value>) -> bool {
    let all = || keywords.get("properties").and_then(Value::as_object);
    !has_type(keywords, "object") || all().is_some_and(|all| all.keys().all(|name| requires(keywords, name)))
}

fn requires(keywords: &Map<String, Value>, name: &str) -> bool {
    let required = keywords.get("required").and_then(Value::as_array);
    required.is_some_and(|all| all.iter().any(|required| required == name))
}

fn has_type(keywords: &Map<String, Value>, kind: &str) -> bool {
    match keywords.get("type") {
        Some(Value::Array(types)) => types.iter().any(|name| name == kind),
        Some(name) => name == kind,
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::wire::schema_rules::{ANTHROPIC, AZURE_STRICT, GEMINI, OPENAI_STRICT};

    use super::*;

    fn object(properties: &Value, required: &[&str]) -> Value {
        json!({ "type": "object", "properties": properties, "required": required, "additionalProperties": false })
    }

    #[test]
    fn no_vendor_accepts_keywords_beside_a_reference() {
        let with = |reference: Value| {
            let mut schema = object(&json!({ "a": reference }), &["a"]);
            schema["$defs"] = json!({ "d": { "type": "string" } });
            schema
        };
        let alone = with(json!({ "$ref": "#/$defs/d" }));
        let described = with(json!({ "$ref": "#/$defs/d", "description": "x" }));
        for rules in [&OPENAI_STRICT, &ANTHROPIC, &GEMINI] {
            assert!(rules.accepts(&alone) && !rules.accepts(&described), "{rules:?}");
        }
    }

    #[test]
    fn recursion_is_accepted_only_where_the_vendor_supports_it() {
        let node = |required: &[&str]| {
            let next = json!({ "$ref": "#/$defs/node" });
            let value = json!({ "type": "string" });
            let mut schema = object(&json!({ "node": next.clone() }), &["node"]);
            schema["$defs"] = json!({ "node": object(&json!({ "next": next, "value": value }), required) });
            schema
        };
        let optional = node(&["value"]);
        let required = node(&["next", "value"]);
        assert!(OPENAI_STRICT.accepts(&required));
        assert!(!ANTHROPIC.accepts(&optional) && !ANTHROPIC.accepts(&required));
        assert!(GEMINI.accepts(&optional) && !GEMINI.accepts(&required));
        let itself = |required: &[&str]| object(&json!({ "child": { "$ref": "#" } }), required);
        assert!(GEMINI.accepts(&itself(&[])) && !GEMINI.accepts(&itself(&["child"])));
        assert!(!ANTHROPIC.accepts(&itself(&[])));
    }

    #[test]
    fn a_schema_above_the_size_limits_of_openai_is_not_strict() {
        let names: Vec<String> = (0..5_001).map(|number| format!("p{number}")).collect();
        let of = |count: usize| {
            let properties: Map<String, Value> =
                names[..count].iter().map(|name| (name.clone(), json!({ "type": "string" }))).collect();
            let required: Vec<&str> = names[..count].iter().map(String::as_str).collect();
            object(&Value::Object(properties), &required)
        };
        assert!(OPENAI_STRICT.accepts(&of(5_000)) && !OPENAI_STRICT.accepts(&of(5_001)));
        let choice = |count: usize| {
            let values: Vec<String> = (0..count).map(|number| number.to_string()).collect();
            object(&json!({ "a": { "type": "string", "enum": values } }), &["a"])
        };
        assert!(OPENAI_STRICT.accepts(&choice(1_000)) && !OPENAI_STRICT.accepts(&choice(1_001)));
        let long = object(&json!({ "a": { "type": "string", "enum": ["x".repeat(120_000)] } }), &["a"]);
        assert!(!OPENAI_STRICT.accepts(&long));
    }

    /// A schema with one required property: an enum of this many words of this length.
    fn one_of(words: usize, length: usize) -> Value {
        let words: Vec<String> = (0..words).map(|number| format!("{number:0length$}")).collect();
        object(&json!({ "a": { "type": "string", "enum": words } }), &["a"])
    }

    #[test]
    fn the_total_length_of_a_large_enum_is_limited() {
        assert!(OPENAI_STRICT.accepts(&one_of(250, 100)) && OPENAI_STRICT.accepts(&one_of(251, 59)));
        assert!(!OPENAI_STRICT.accepts(&one_of(251, 60)));
        assert!(AZURE_STRICT.accepts(&one_of(251, 29)) && !AZURE_STRICT.accepts(&one_of(251, 30)));
        assert!(ANTHROPIC.accepts(&one_of(1_001, 60)) && GEMINI.accepts(&one_of(1_001, 60)));
    }

    #[test]
    fn azure_accepts_fewer_levels_than_openai() {
        let nest = |levels: usize| {
            let word = json!({ "type": "string" });
            (1..levels).fold(word, |inner, _| object(&json!({ "a": inner }), &["a"]))
        };
        assert!(AZURE_STRICT.accepts(&nest(5)) && !AZURE_STRICT.accepts(&nest(6)));
        assert!(OPENAI_STRICT.accepts(&nest(6)));
    }

    #[test]
    fn anthropic_limits_optional_properties_and_unions() {
        let of = |count: usize, schema: Value, is_required: bool| {
            let names: Vec<String> = (0..count).map(|number| format!("p{number}")).collect();
            let all: Map<String, Value> = names.iter().map(|name| (name.clone(), schema.clone())).collect();
            let required: Vec<&str> = names.iter().map(String::as_str).filter(|_| is_required).collect();
            object(&Value::Object(all), &required)
        };
        let word = json!({ "type": "string" });
        let union = json!({ "type": ["string", "null"] });
        assert!(
            ANTHROPIC.accepts(&of(24, word.clone(), false)) && ANTHROPIC.accepts(&of(99, word.clone(), true))
        );
        assert!(!ANTHROPIC.accepts(&of(25, word.clone(), false)));
        assert!(ANTHROPIC.accepts(&of(16, union.clone(), true)) && !ANTHROPIC.accepts(&of(17, union, true)));
        let either = json!({ "anyOf": [word, { "type": "null" }] });
        assert!(!ANTHROPIC.accepts(&of(17, either.clone(), true)));
        assert!(
            OPENAI_STRICT.accepts(&of(17, either.clone(), true)) && GEMINI.accepts(&of(30, either, false))
        );
    }

    #[test]
    fn a_schema_with_optional_properties_is_not_strict_and_is_accepted_by_the_other_vendors() {
        let schema = object(&json!({ "a": { "type": "string" }, "b": { "type": "string" } }), &["a"]);
        assert!(!OPENAI_STRICT.accepts(&schema) && ANTHROPIC.accepts(&schema) && GEMINI.accepts(&schema));
    }
}
