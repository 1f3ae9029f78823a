//! Generates a JSON value that a JSON Schema accepts.
//!
//! Supported are types (also in upper case as in Gemini's schemas), `properties`, `required`, `items`, `enum`,
//! `const`, `anyOf`, `oneOf`, `allOf`, `$ref` within the schema, bounds, lengths and the common formats.
//! `pattern`, `not`, `if` and the other conditions are ignored. The size of a value is bounded.

mod bounds;

use std::borrow::Cow;

use fastrand::Rng;
use serde_json::{Map, Value};

use bounds::{integer_bounds, number_bounds};

use super::merge::merge_schemas;

/// Prefix of generated text and strings.
pub(super) const ANSWER_PREFIX: &str = "[simulated]";
/// Depth from which optional values are omitted, so that recursive schemas terminate.
const MAX_OPTIONAL_DEPTH: usize = 6;
/// Depth from which only `null` is generated.
const MAX_DEPTH: usize = 48;
/// Maximum number of values in one answer.
const MAX_VALUES: usize = 5_000;
/// Maximum total size of generated strings in one answer, in bytes.
const MAX_STRING_BYTES: usize = 1 << 20;

/// Generates a value for `schema`. The value depends only on `schema` and `seed`.
pub fn example(schema: &Value, seed: u64) -> Value {
    example_from(schema, &["some", "words", "of", "an", "answer"], &mut Rng::with_seed(seed))
}

/// Generates a value for `schema` whose strings consist of `words`.
pub(super) fn example_from(schema: &Value, words: &[&str], rng: &mut Rng) -> Value {
    ExampleGenerator {
        root: schema,
        words,
        rng,
        remaining_values: MAX_VALUES,
        remaining_string_bytes: MAX_STRING_BYTES,
    }
    .value(schema, 0)
}

struct ExampleGenerator<'a> {
    root: &'a Value,
    words: &'a [&'a str],
    rng: &'a mut Rng,
    remaining_values: usize,
    remaining_string_bytes: usize,
}

impl ExampleGenerator<'_> {
    fn value(&mut self, schema: &Value, depth: usize) -> Value {
        if self.remaining_values == 0 {
            return Value::Null;
        }
        self.remaining_values -= 1;
        if depth >= MAX_DEPTH {
            return Value::Null;
        }
        let Value::Object(schema) = schema else {
            // `true` accepts any value, `false` accepts none.
            return if schema == &Value::Bool(true) { self.text(&Map::new()) } else { Value::Null };
        };
        let schema = self.resolve_composition(schema, depth);
        if let Some(value) = schema.get("const") {
            return value.clone();
        }
        if let Some(Value::Array(options)) = schema.get("enum") {
            let kinds = kinds(&schema);
            let matching: Vec<_> = options
                .iter()
                .filter(|option| kinds.is_empty() || kinds.iter().any(|kind| has_type(option, kind)))
                .collect();
            return self.choose(&matching).map_or(Value::Null, |option| (*option).clone());
        }
        match self.kind(&schema, depth).as_str() {
            "object" => self.object(&schema, depth),
            "array" => self.array(&schema, depth),
            "integer" => self.integer(&schema),
            "number" => self.number(&schema),
            "boolean" => Value::Bool(self.rng.bool()),
            "null" => Value::Null,
            _ => self.text(&schema),
        }
    }

    fn choose<'v, T>(&mut self, options: &'v [T]) -> Option<&'v T> {
        if options.is_empty() { None } else { Some(&options[self.rng.usize(..options.len())]) }
    }

    /// Returns the schema with `$ref` resolved, `allOf` merged, and one alternative of `anyOf` and `oneOf`
    /// selected.
    fn resolve_composition<'s>(
        &mut self,
        schema: &'s Map<String, Value>,
        depth: usize,
    ) -> Cow<'s, Map<String, Value>> {
        const COMPOSITION_KEYWORDS: [&str; 4] = ["$ref", "allOf", "anyOf", "oneOf"];
        if !COMPOSITION_KEYWORDS.iter().any(|keyword| schema.contains_key(*keyword)) {
            return Cow::Borrowed(schema);
        }
        let mut schema = schema.clone();
        // Bounded, because a reference to itself would never terminate.
        for _ in 0..MAX_DEPTH {
            let Some(keyword) = COMPOSITION_KEYWORDS.iter().find(|keyword| schema.contains_key(**keyword))
            else {
                break;
            };
            let Some(found) = schema.shift_remove(*keyword) else { break };
            let parts = match found {
                Value::String(reference) => self.referenced(&reference).into_iter().collect(),
                Value::Array(parts) if *keyword == "allOf" => parts,
                Value::Array(parts) => self.alternative(&parts, depth).into_iter().collect(),
                _ => Vec::new(),
            };
            for part in parts {
                if let Value::Object(part) = part {
                    schema = merge_schemas(schema, part);
                }
            }
        }
        Cow::Owned(schema)
    }

    fn referenced(&self, reference: &str) -> Option<Value> {
        self.root.pointer(reference.strip_prefix('#')?).cloned()
    }

    fn alternative(&mut self, parts: &[Value], depth: usize) -> Option<Value> {
        if depth >= MAX_OPTIONAL_DEPTH {
            return parts.iter().min_by_key(|part| nesting_rank(part)).cloned();
        }
        let non_null: Vec<_> =
            parts.iter().filter(|part| !kinds_of(part).iter().any(|kind| kind == "null")).collect();
        self.choose(&non_null).map(|part| (*part).clone()).or_else(|| parts.first().cloned())
    }

    fn kind(&mut self, schema: &Map<String, Value>, depth: usize) -> String {
        let kinds = kinds(schema);
        let allows_null = kinds.iter().any(|kind| kind == "null");
        if allows_null && depth >= MAX_OPTIONAL_DEPTH {
            return "null".to_owned();
        }
        let non_null: Vec<_> = kinds.iter().filter(|kind| *kind != "null").collect();
        match self.choose(&non_null) {
            Some(kind) => (*kind).clone(),
            None if allows_null => "null".to_owned(),
            None => implied_kind(schema).to_owned(),
        }
    }

    fn object(&mut self, schema: &Map<String, Value>, depth: usize) -> Value {
        let no_properties = Map::new();
        let properties = schema.get("properties").and_then(Value::as_object).unwrap_or(&no_properties);
        let required: Vec<&str> = array(schema, "required").iter().filter_map(Value::as_str).collect();
        let max = number(schema, "maxProperties").unwrap_or(usize::MAX);
        let mut optional = max.saturating_sub(required.len());
        let mut object = Map::new();
        for (name, property) in properties {
            let is_included = required.contains(&name.as_str()) || {
                let is_chosen = optional > 0
                    && depth < MAX_OPTIONAL_DEPTH
                    && property != &Value::Bool(false)
                    && self.rng.u8(..4) > 0;
                optional -= usize::from(is_chosen);
                is_chosen
            };
            if is_included {
                let value = self.value(property, depth + 1);
                object.insert(name.clone(), value);
            }
        }
        let additional = schema.get("additionalProperties").unwrap_or(&Value::Bool(true));
        for name in required {
            if !object.contains_key(name) {
                let value = self.value(additional, depth + 1);
                object.insert(name.to_owned(), value);
            }
        }
        self.add_missing_properties(&mut object, schema, properties, additional, depth);
        Value::Object(object)
    }

    /// Adds properties until there are `minProperties`.
    fn add_missing_properties(
        &mut self,
        object: &mut Map<String, Value>,
        schema: &Map<String, Value>,
        properties: &Map<String, Value>,
        additional: &Value,
        depth: usize,
    ) {
        let min = number(schema, "minProperties").unwrap_or(0).min(self.remaining_values);
        for (name, property) in properties {
            if object.len() < min && !object.contains_key(name) {
                let value = self.value(property, depth + 1);
                object.insert(name.clone(), value);
            }
        }
        for extra in 1..=min.saturating_sub(object.len()) {
            if additional != &Value::Bool(false) {
                let value = self.value(additional, depth + 1);
                object.insert(format!("simulated_{extra}"), value);
            }
        }
    }

    fn array(&mut self, schema: &Map<String, Value>, depth: usize) -> Value {
        let min = number(schema, "minItems").unwrap_or(0).min(self.remaining_values);
        let max = number(schema, "maxItems").unwrap_or(usize::MAX).max(min);
        let any_value = Value::Bool(true);
        let (first, rest) = match schema.get("items") {
            Some(Value::Array(first)) => {
                (first.as_slice(), schema.get("additionalItems").unwrap_or(&any_value))
            }
            rest => (array(schema, "prefixItems"), rest.unwrap_or(&any_value)),
        };
        let default_length = if depth >= MAX_OPTIONAL_DEPTH { 0 } else { self.rng.usize(1..4) };
        let max_positional = if rest == &Value::Bool(false) { first.len() } else { usize::MAX };
        let length = default_length.max(min).max(first.len()).min(max).min(max_positional);
        let unique = schema.get("uniqueItems") == Some(&Value::Bool(true));
        let mut items: Vec<Value> = Vec::new();
        for at in 0..length {
            if self.remaining_values == 0 {
                break;
            }
            let item = first.get(at).unwrap_or(rest);
            // With few options, unique items may not be found: after 32 attempts the array has fewer items.
            for _ in 0..if unique { 32 } else { 1 } {
                let value = self.value(item, depth + 1);
                if !unique || !items.contains(&value) {
                    items.push(value);
                    break;
                }
            }
        }
        Value::Array(items)
    }

    fn integer(&mut self, schema: &Map<String, Value>) -> Value {
        let (low, high) = integer_bounds(schema);
        let step = schema
            .get("multipleOf")
            .and_then(Value::as_f64)
            .filter(|step| step.fract() == 0.0 && *step > 0.0);
        let step = step.unwrap_or(1.0);
        let first = (low / step).ceil();
        let last = (high / step).floor();
        Value::from((self.random_whole_number(first, last) * step) as i64)
    }

    fn number(&mut self, schema: &Map<String, Value>) -> Value {
        let (low, high) = number_bounds(schema);
        if let Some(step) = schema.get("multipleOf").and_then(Value::as_f64).filter(|step| *step > 0.0) {
            let value = self.random_whole_number((low / step).ceil(), (high / step).floor()) * step;
            return if value.fract() == 0.0 { Value::from(value as i64) } else { Value::from(value) };
        }
        // Strictly between the bounds, so that exclusive bounds need no special case.
        let value = low + (high - low) * (0.25 + 0.5 * self.rng.f64());
        let rounded = (value * 100.0).round() / 100.0;
        Value::from(if low < rounded && rounded < high { rounded } else { value })
    }

    /// Returns a whole number from `first` to `last`, or `first` if `last` is smaller.
    fn random_whole_number(&mut self, first: f64, last: f64) -> f64 {
        let span = (last - first).clamp(0.0, 1e6) as u64;
        first + self.rng.u64(..=span) as f64
    }

    fn text(&mut self, schema: &Map<String, Value>) -> Value {
        let min = number(schema, "minLength").unwrap_or(0).min(self.remaining_string_bytes / 4);
        let max = number(schema, "maxLength").unwrap_or(usize::MAX).max(min);
        let text =
            match schema.get("format").and_then(Value::as_str).and_then(|format| self.formatted(format)) {
                Some(text) if (min..=max).contains(&text.chars().count()) => text,
                _ => self.words(min, max),
            };
        self.remaining_string_bytes = self.remaining_string_bytes.saturating_sub(text.len());
        Value::String(text)
    }

    fn words(&mut self, min: usize, max: usize) -> String {
        let mut text = ANSWER_PREFIX.to_owned();
        let start = self.rng.usize(..self.words.len().max(1));
        for word in self.words.iter().cycle().skip(start).take(self.rng.usize(3..8)) {
            text.push(' ');
            text.push_str(&word[..word.floor_char_boundary(100)]);
        }
        let length = text.chars().count();
        if length < min {
            text.extend(std::iter::repeat_n('.', min - length));
        }
        if let Some((end, _)) = text.char_indices().nth(max) {
            text.truncate(end);
        }
        text
    }

    fn formatted(&mut self, format: &str) -> Option<String> {
        let day = self.rng.u8(1..=28);
        let hour = self.rng.u8(..24);
        let n = self.rng.u16(1..1000);
        Some(match format {
            "date" => format!("2026-11-{day:02}"),
            "date-time" => format!("2026-11-{day:02}T{hour:02}:30:00Z"),
            "time" => format!("{hour:02}:30:00Z"),
            "duration" => format!("PT{n}M"),
            "email" | "idn-email" => format!("simulated{n}@example.com"),
            "uri" | "url" | "iri" | "uri-reference" | "iri-reference" => {
                format!("https://example.com/simulated/{n}")
            }
            "hostname" | "idn-hostname" => format!("simulated{n}.example.com"),
            "ipv4" => format!("192.0.2.{day}"),
            "ipv6" => format!("2001:db8::{n:x}"),
            "uuid" => format!("00000000-0000-4000-8000-{:012x}", self.rng.u32(..)),
            _ => return None,
        })
    }
}

/// Returns the types that a schema allows, in lower case.
fn kinds(schema: &Map<String, Value>) -> Vec<String> {
    let mut kinds: Vec<String> = match schema.get("type") {
        Some(Value::String(kind)) => vec![kind.to_ascii_lowercase()],
        Some(Value::Array(kinds)) => {
            kinds.iter().filter_map(Value::as_str).map(str::to_ascii_lowercase).collect()
        }
        _ => Vec::new(),
    };
    if schema.get("nullable") == Some(&Value::Bool(true)) && !kinds.is_empty() {
        kinds.push("null".to_owned());
    }
    kinds
}

fn kinds_of(schema: &Value) -> Vec<String> {
    schema.as_object().map(kinds).unwrap_or_default()
}

fn has_type(value: &Value, kind: &str) -> bool {
    match value {
        Value::Null => kind == "null",
        Value::Bool(_) => kind == "boolean",
        Value::Number(number) => {
            kind == "number" || (kind == "integer" && number.as_f64().is_some_and(|n| n.fract() == 0.0))
        }
        Value::String(_) => kind == "string",
        Value::Array(_) => kind == "array",
        Value::Object(_) => kind == "object",
    }
}

fn implied_kind(schema: &Map<String, Value>) -> &'static str {
    let has = |keys: &[&str]| keys.iter().any(|key| schema.contains_key(*key));
    if has(&["properties", "required", "additionalProperties", "minProperties"]) {
        "object"
    } else if has(&["items", "prefixItems", "minItems", "uniqueItems"]) {
        "array"
    } else if has(&["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"]) {
        "number"
    } else {
        "string"
    }
}

/// Ranks alternatives by the expected depth of their values.
fn nesting_rank(schema: &Value) -> u8 {
    let Some(map) = schema.as_object() else { return 0 };
    if map.contains_key("const") || map.contains_key("enum") {
        return 1;
    }
    if map.contains_key("$ref") {
        return 5;
    }
    let kinds = kinds(map);
    let rank = |kind: &String| match kind.as_str() {
        "null" => 0,
        "array" => 3,
        "object" => 4,
        _ => 2,
    };
    kinds.iter().map(rank).min().unwrap_or(3)
}

fn array<'s>(schema: &'s Map<String, Value>, key: &str) -> &'s [Value] {
    schema.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Returns a count such as `minItems`. It may be written `2.0`, or `"2"` as in Gemini's schemas.
fn number(schema: &Map<String, Value>, key: &str) -> Option<usize> {
    let value = schema.get(key)?;
    let number = value.as_f64().or_else(|| value.as_str()?.parse().ok())?;
    (number >= 0.0).then_some(number as usize)
}

#[cfg(test)]
mod tests;
