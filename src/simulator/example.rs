//! Makes up a JSON value that a JSON Schema accepts.
//!
//! Understands types (also in capitals, as Gemini writes them), `properties`, `required`, `items`, `enum`,
//! `const`, `anyOf`, `oneOf`, `allOf`, `$ref` within the schema, bounds, lengths and the common formats. It
//! ignores `pattern`, `not`, `if` and the other conditions, and never grows beyond a fixed size.

mod bounds;

use std::borrow::Cow;

use fastrand::Rng;
use serde_json::{Map, Value};

use bounds::{exclusive, whole};

use super::answer::MARK;
use super::merge::merged;

/// From this depth on everything optional is left out, so that recursive schemas come to an end.
const DEEP: usize = 6;
/// Below this depth nothing more is made.
const DEEPEST: usize = 48;
/// Most values in one answer.
const VALUES: usize = 5_000;
/// Most bytes of made-up strings in one answer.
const BYTES: usize = 1 << 20;

/// Makes up a value for `schema`, always the same one for the same `seed`.
pub fn example(schema: &Value, seed: u64) -> Value {
    of(schema, &["some", "words", "of", "an", "answer"], &mut Rng::with_seed(seed))
}

/// Makes up a value for `schema`; its strings are made of `words`.
pub(super) fn of(schema: &Value, words: &[&str], rng: &mut Rng) -> Value {
    Maker { root: schema, words, rng, values: VALUES, bytes: BYTES }.value(schema, 0)
}

struct Maker<'a> {
    root: &'a Value,
    words: &'a [&'a str],
    rng: &'a mut Rng,
    values: usize,
    bytes: usize,
}

impl Maker<'_> {
    fn value(&mut self, schema: &Value, depth: usize) -> Value {
        if self.values == 0 {
            return Value::Null;
        }
        self.values -= 1;
        if depth >= DEEPEST {
            return Value::Null;
        }
        let Value::Object(schema) = schema else {
            // `true` accepts anything, `false` nothing.
            return if schema == &Value::Bool(true) { self.text(&Map::new()) } else { Value::Null };
        };
        let schema = self.plain(schema, depth);
        if let Some(value) = schema.get("const") {
            return value.clone();
        }
        if let Some(Value::Array(options)) = schema.get("enum") {
            let kinds = kinds(&schema);
            let fitting: Vec<_> = options
                .iter()
                .filter(|option| kinds.is_empty() || kinds.iter().any(|kind| is(option, kind)))
                .collect();
            return self.one_of(&fitting).map_or(Value::Null, |option| (*option).clone());
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

    fn one_of<'v, T>(&mut self, options: &'v [T]) -> Option<&'v T> {
        if options.is_empty() { None } else { Some(&options[self.rng.usize(..options.len())]) }
    }

    /// Returns the schema without `$ref`, `allOf`, `anyOf` and `oneOf`: followed, merged, chosen.
    fn plain<'s>(&mut self, schema: &'s Map<String, Value>, depth: usize) -> Cow<'s, Map<String, Value>> {
        const PLACES: [&str; 4] = ["$ref", "allOf", "anyOf", "oneOf"];
        if !PLACES.iter().any(|place| schema.contains_key(*place)) {
            return Cow::Borrowed(schema);
        }
        let mut schema = schema.clone();
        // A reference to itself would go round for ever.
        for _ in 0..DEEPEST {
            let Some(place) = PLACES.iter().find(|place| schema.contains_key(**place)) else { break };
            let Some(found) = schema.shift_remove(*place) else { break };
            let parts = match found {
                Value::String(reference) => self.referenced(&reference).into_iter().collect(),
                Value::Array(parts) if *place == "allOf" => parts,
                Value::Array(parts) => self.alternative(&parts, depth).into_iter().collect(),
                _ => Vec::new(),
            };
            for part in parts {
                if let Value::Object(part) = part {
                    schema = merged(schema, part);
                }
            }
        }
        Cow::Owned(schema)
    }

    fn referenced(&self, reference: &str) -> Option<Value> {
        self.root.pointer(reference.strip_prefix('#')?).cloned()
    }

    fn alternative(&mut self, parts: &[Value], depth: usize) -> Option<Value> {
        if depth >= DEEP {
            return parts.iter().min_by_key(|part| weight(part)).cloned();
        }
        let full: Vec<_> =
            parts.iter().filter(|part| !kinds_of(part).iter().any(|kind| kind == "null")).collect();
        self.one_of(&full).map(|part| (*part).clone()).or_else(|| parts.first().cloned())
    }

    fn kind(&mut self, schema: &Map<String, Value>, depth: usize) -> String {
        let kinds = kinds(schema);
        let null = kinds.iter().any(|kind| kind == "null");
        if null && depth >= DEEP {
            return "null".to_owned();
        }
        let full: Vec<_> = kinds.iter().filter(|kind| *kind != "null").collect();
        match self.one_of(&full) {
            Some(kind) => (*kind).clone(),
            None if null => "null".to_owned(),
            None => implied_kind(schema).to_owned(),
        }
    }

    fn object(&mut self, schema: &Map<String, Value>, depth: usize) -> Value {
        let none = Map::new();
        let properties = schema.get("properties").and_then(Value::as_object).unwrap_or(&none);
        let required: Vec<&str> = array(schema, "required").iter().filter_map(Value::as_str).collect();
        let most = number(schema, "maxProperties").unwrap_or(usize::MAX);
        let mut optional = most.saturating_sub(required.len());
        let mut object = Map::new();
        for (name, property) in properties {
            let wanted = required.contains(&name.as_str()) || {
                let chosen =
                    optional > 0 && depth < DEEP && property != &Value::Bool(false) && self.rng.u8(..4) > 0;
                optional -= usize::from(chosen);
                chosen
            };
            if wanted {
                let value = self.value(property, depth + 1);
                object.insert(name.clone(), value);
            }
        }
        let further = schema.get("additionalProperties").unwrap_or(&Value::Bool(true));
        for name in required {
            if !object.contains_key(name) {
                let value = self.value(further, depth + 1);
                object.insert(name.to_owned(), value);
            }
        }
        self.fill(&mut object, schema, properties, further, depth);
        Value::Object(object)
    }

    /// Adds properties until there are `minProperties`.
    fn fill(
        &mut self,
        object: &mut Map<String, Value>,
        schema: &Map<String, Value>,
        properties: &Map<String, Value>,
        further: &Value,
        depth: usize,
    ) {
        let least = number(schema, "minProperties").unwrap_or(0).min(self.values);
        for (name, property) in properties {
            if object.len() < least && !object.contains_key(name) {
                let value = self.value(property, depth + 1);
                object.insert(name.clone(), value);
            }
        }
        for extra in 1..=least.saturating_sub(object.len()) {
            if further != &Value::Bool(false) {
                let value = self.value(further, depth + 1);
                object.insert(format!("practice_{extra}"), value);
            }
        }
    }

    fn array(&mut self, schema: &Map<String, Value>, depth: usize) -> Value {
        let least = number(schema, "minItems").unwrap_or(0).min(self.values);
        let most = number(schema, "maxItems").unwrap_or(usize::MAX).max(least);
        let anything = Value::Bool(true);
        let (first, rest) = match schema.get("items") {
            Some(Value::Array(first)) => {
                (first.as_slice(), schema.get("additionalItems").unwrap_or(&anything))
            }
            rest => (array(schema, "prefixItems"), rest.unwrap_or(&anything)),
        };
        let usual = if depth >= DEEP { 0 } else { self.rng.usize(1..4) };
        let closed = if rest == &Value::Bool(false) { first.len() } else { usize::MAX };
        let length = usual.max(least).max(first.len()).min(most).min(closed);
        let unique = schema.get("uniqueItems") == Some(&Value::Bool(true));
        let mut items: Vec<Value> = Vec::new();
        for at in 0..length {
            if self.values == 0 {
                break;
            }
            let item = first.get(at).unwrap_or(rest);
            // Few options soon repeat themselves: some attempts, then fewer items.
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
        let (low, high) = whole(schema);
        let step = schema
            .get("multipleOf")
            .and_then(Value::as_f64)
            .filter(|step| step.fract() == 0.0 && *step > 0.0);
        let step = step.unwrap_or(1.0);
        let (first, last) = ((low / step).ceil(), (high / step).floor());
        Value::from((self.between(first, last) * step) as i64)
    }

    fn number(&mut self, schema: &Map<String, Value>) -> Value {
        let (low, high) = exclusive(schema);
        if let Some(step) = schema.get("multipleOf").and_then(Value::as_f64).filter(|step| *step > 0.0) {
            let value = self.between((low / step).ceil(), (high / step).floor()) * step;
            return if value.fract() == 0.0 { Value::from(value as i64) } else { Value::from(value) };
        }
        // Strictly inside, so that it does not matter whether a bound is exclusive.
        let inside = low + (high - low) * (0.25 + 0.5 * self.rng.f64());
        let short = (inside * 100.0).round() / 100.0;
        Value::from(if low < short && short < high { short } else { inside })
    }

    /// Returns a whole number from `first` to `last`, of which the second may be the smaller by mistake.
    fn between(&mut self, first: f64, last: f64) -> f64 {
        let span = (last - first).clamp(0.0, 1e6) as u64;
        first + self.rng.u64(..=span) as f64
    }

    fn text(&mut self, schema: &Map<String, Value>) -> Value {
        let least = number(schema, "minLength").unwrap_or(0).min(self.bytes / 4);
        let most = number(schema, "maxLength").unwrap_or(usize::MAX).max(least);
        let text =
            match schema.get("format").and_then(Value::as_str).and_then(|format| self.formatted(format)) {
                Some(text) if (least..=most).contains(&text.chars().count()) => text,
                _ => self.words(least, most),
            };
        self.bytes = self.bytes.saturating_sub(text.len());
        Value::String(text)
    }

    fn words(&mut self, least: usize, most: usize) -> String {
        let mut text = MARK.to_owned();
        let start = self.rng.usize(..self.words.len().max(1));
        for word in self.words.iter().cycle().skip(start).take(self.rng.usize(3..8)) {
            text.push(' ');
            text.push_str(&word[..word.floor_char_boundary(100)]);
        }
        let length = text.chars().count();
        if length < least {
            text.extend(std::iter::repeat_n('.', least - length));
        }
        if let Some((end, _)) = text.char_indices().nth(most) {
            text.truncate(end);
        }
        text
    }

    fn formatted(&mut self, format: &str) -> Option<String> {
        let (day, hour, n) = (self.rng.u8(1..=28), self.rng.u8(..24), self.rng.u16(1..1000));
        Some(match format {
            "date" => format!("2026-11-{day:02}"),
            "date-time" => format!("2026-11-{day:02}T{hour:02}:30:00Z"),
            "time" => format!("{hour:02}:30:00Z"),
            "duration" => format!("PT{n}M"),
            "email" | "idn-email" => format!("practice{n}@example.com"),
            "uri" | "url" | "iri" | "uri-reference" | "iri-reference" => {
                format!("https://example.com/practice/{n}")
            }
            "hostname" | "idn-hostname" => format!("practice{n}.example.com"),
            "ipv4" => format!("192.0.2.{day}"),
            "ipv6" => format!("2001:db8::{n:x}"),
            "uuid" => format!("00000000-0000-4000-8000-{:012x}", self.rng.u32(..)),
            _ => return None,
        })
    }
}

/// Returns the types that a schema allows, in small letters.
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

fn is(value: &Value, kind: &str) -> bool {
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

/// Orders alternatives by how soon they end.
fn weight(schema: &Value) -> u8 {
    let Some(map) = schema.as_object() else { return 0 };
    if map.contains_key("const") || map.contains_key("enum") {
        return 1;
    }
    if map.contains_key("$ref") {
        return 5;
    }
    let kinds = kinds(map);
    let heaviest = |kind: &String| match kind.as_str() {
        "null" => 0,
        "array" => 3,
        "object" => 4,
        _ => 2,
    };
    kinds.iter().map(heaviest).min().unwrap_or(3)
}

fn array<'s>(schema: &'s Map<String, Value>, key: &str) -> &'s [Value] {
    schema.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Returns a count such as `minItems`, also where it is written `2.0`, or `"2"` as Gemini's own types do.
fn number(schema: &Map<String, Value>, key: &str) -> Option<usize> {
    let value = schema.get(key)?;
    let number = value.as_f64().or_else(|| value.as_str()?.parse().ok())?;
    (number >= 0.0).then_some(number as usize)
}

#[cfg(test)]
mod tests;
