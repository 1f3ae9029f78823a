//! A JSON value of bounded size: long strings are truncated, and values beyond the limit are dropped.
//!
//! For errors, whose length the server decides. A complete JSON tree takes up to forty times the memory of its
//! text.

use std::cell::Cell;
use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::exact_number::NUMBER_KEY;

/// The maximum number of values, nested ones included.
const MAX_VALUES: usize = 1_000;

/// The maximum number of bytes of a string. A message is truncated far below that.
const MAX_TEXT_BYTES: usize = 4 << 10;

/// The maximum number of bytes of all strings and field names together.
const MAX_TOTAL_BYTES: usize = 64 << 10;

/// The maximum length of a number.
const MAX_NUMBER_BYTES: usize = 40;

/// The maximum number of bytes of a label, such as the id of a response or the name of its model.
pub(super) const MAX_LABEL_BYTES: usize = 256;

/// Truncates a label to [`MAX_LABEL_BYTES`].
pub(super) fn truncate_label(text: &str) -> String {
    text[..text.floor_char_boundary(MAX_LABEL_BYTES)].to_owned()
}

/// A value, and whether parts of it were dropped.
#[derive(Debug)]
pub(super) struct BoundedJson {
    pub(super) value: Value,
    /// Whether values were dropped; truncated strings do not count.
    pub(super) incomplete: bool,
}

impl<'de> Deserialize<'de> for BoundedJson {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let limiter = SizeLimiter::default();
        let value = limiter.deserialize(from)?;
        Ok(Self { value, incomplete: limiter.incomplete.get() })
    }
}

/// The size of the value so far.
#[derive(Debug, Default)]
struct SizeLimiter {
    values: Cell<usize>,
    bytes: Cell<usize>,
    incomplete: Cell<bool>,
}

impl SizeLimiter {
    /// Counts one more value; `false` if the limit is reached.
    fn admit_value(&self) -> bool {
        let values = self.values.get();
        let bytes = self.bytes.get();
        let is_free = values < MAX_VALUES && bytes < MAX_TOTAL_BYTES;
        self.values.set(values + usize::from(is_free));
        is_free
    }

    /// Truncates `text` to the limits and counts it.
    fn truncate_text(&self, text: &str) -> String {
        let bytes = self.bytes.get();
        let max_bytes = MAX_TEXT_BYTES.min(MAX_TOTAL_BYTES.saturating_sub(bytes));
        let truncated = &text[..text.floor_char_boundary(max_bytes)];
        self.bytes.set(bytes + truncated.len());
        truncated.to_owned()
    }
}

impl<'de> DeserializeSeed<'de> for &SizeLimiter {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for &SizeLimiter {
    type Value = Value;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("anything")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, is: bool) -> Result<Value, E> {
        Ok(Value::Bool(is))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::String(self.truncate_text(text)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut all: A) -> Result<Value, A::Error> {
        let mut result = Vec::new();
        while self.admit_value() {
            match all.next_element_seed(self)? {
                Some(value) => result.push(value),
                None => return Ok(Value::Array(result)),
            }
        }
        while all.next_element::<IgnoredAny>()?.is_some() {
            self.incomplete.set(true);
        }
        Ok(Value::Array(result))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut all: A) -> Result<Value, A::Error> {
        let mut result = Map::new();
        while self.admit_value() {
            let Some(name) = all.next_key_seed(NameSeed(self))? else { return Ok(Value::Object(result)) };
            if name == NUMBER_KEY {
                return Ok(parse_number(&all.next_value::<String>()?));
            }
            result.insert(name, all.next_value_seed(self)?);
        }
        while all.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
            self.incomplete.set(true);
        }
        Ok(Value::Object(result))
    }
}

/// With `exact-numbers`, serde_json presents a number as a map with its text.
fn parse_number(written: &str) -> Value {
    let bounded = Some(written).filter(|written| written.len() <= MAX_NUMBER_BYTES);
    bounded.and_then(|written| written.parse::<Number>().ok()).map_or(Value::Null, Value::Number)
}

/// Deserializes a field name.
struct NameSeed<'a>(&'a SizeLimiter);

impl<'de> DeserializeSeed<'de> for NameSeed<'_> {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<String, D::Error> {
        from.deserialize_str(self)
    }
}

impl Visitor<'_> for NameSeed<'_> {
    type Value = String;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("the name of a field")
    }

    fn visit_str<E>(self, name: &str) -> Result<String, E> {
        Ok(self.0.truncate_text(name))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(json: &str) -> BoundedJson {
        serde_json::from_str(json).unwrap()
    }

    fn values(value: &Value) -> usize {
        match value {
            Value::Array(all) => 1 + all.iter().map(values).sum::<usize>(),
            Value::Object(all) => 1 + all.values().map(values).sum::<usize>(),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 1,
        }
    }

    #[test]
    fn a_short_value_is_kept_completely() {
        let value = json!({
            "error": { "message": "no \u{1f30a} \"way\"\n", "code": 429, "retry": -1.5, "param": null, "ok": false },
            "details": [[], {}, ["a", 1]]
        });
        let bounded = read(&value.to_string());
        assert_eq!((bounded.value, bounded.incomplete), (value, false));
    }

    #[test]
    fn a_long_string_is_truncated_and_later_values_are_kept() {
        let long = "\u{e9}".repeat(1 << 20);
        let bounded = read(&json!({ "a": long, "message": "died" }).to_string());
        assert_eq!(bounded.value["a"].as_str().map(str::len), Some(MAX_TEXT_BYTES));
        assert_eq!((&bounded.value["message"], bounded.incomplete), (&json!("died"), false));
    }

    #[test]
    fn values_beyond_the_limit_are_dropped() {
        let nested = |inner: &str| format!("{}{inner}{}", "[".repeat(90), "]".repeat(90));
        let many = vec!["{\"a\":[null]}"; 100_000].join(",");
        for json in [
            format!("[{many}]"),
            format!("{{\"details\":[{many}],\"message\":\"late\"}}"),
            nested(&vec!["0"; 1_000_000].join(",")),
        ] {
            let bounded = read(&json);
            assert!(bounded.incomplete);
            assert!(values(&bounded.value) <= MAX_VALUES + 1, "{}", values(&bounded.value));
        }
        let texts = serde_json::to_string(&vec!["a".repeat(MAX_TEXT_BYTES); 500]).unwrap();
        assert!(read(&texts).value.to_string().len() < 2 * MAX_TOTAL_BYTES);
    }

    #[test]
    fn a_number_of_any_length_is_parsed() {
        let bounded = read(&format!("[7, 1e5, {}, 3]", "9".repeat(200)));
        assert_eq!((&bounded.value[0], &bounded.value[3]), (&json!(7), &json!(3)));
    }
}
