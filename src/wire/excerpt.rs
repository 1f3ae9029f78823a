//! A JSON value as a tree of bounded size: long texts are cut, and what is more than enough is left out.
//!
//! For errors, of which any server decides how long they are. Read whole, a text takes up to forty times its memory as a
//! tree. Decides nothing about what a value means.

use std::cell::Cell;
use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::count::NUMBER;

/// Most values of an excerpt, those inside others included.
const MAX_VALUES: usize = 1_000;

/// Most bytes of each text. A message is cut far below that.
const MAX_TEXT_BYTES: usize = 4 << 10;

/// Most bytes of all texts and names together.
const MAX_TOTAL_BYTES: usize = 64 << 10;

/// Most digits of a number that is kept.
const MAX_NUMBER_BYTES: usize = 40;

/// Most bytes of a word that is kept, such as the id of an answer or the name of its model.
pub(super) const MAX_WORD_BYTES: usize = 256;

/// Returns as much of a word as is kept.
pub(super) fn word(text: &str) -> String {
    text[..text.floor_char_boundary(MAX_WORD_BYTES)].to_owned()
}

/// A value, and whether some of its parts were left out.
#[derive(Debug)]
pub(super) struct Excerpt {
    pub(super) value: Value,
    /// Whether values were left out; a text that was only cut is not meant.
    pub(super) incomplete: bool,
}

impl<'de> Deserialize<'de> for Excerpt {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let room = Room::default();
        let value = room.deserialize(from)?;
        Ok(Self { value, incomplete: room.incomplete.get() })
    }
}

/// How much was kept so far.
#[derive(Debug, Default)]
struct Room {
    values: Cell<usize>,
    bytes: Cell<usize>,
    incomplete: Cell<bool>,
}

impl Room {
    /// Says whether there is room for one more value, and takes it.
    fn take(&self) -> bool {
        let values = self.values.get();
        let bytes = self.bytes.get();
        let is_free = values < MAX_VALUES && bytes < MAX_TOTAL_BYTES;
        self.values.set(values + usize::from(is_free));
        is_free
    }

    /// Returns as much of `text` as is kept.
    fn text(&self, text: &str) -> String {
        let bytes = self.bytes.get();
        let most = MAX_TEXT_BYTES.min(MAX_TOTAL_BYTES.saturating_sub(bytes));
        let kept = &text[..text.floor_char_boundary(most)];
        self.bytes.set(bytes + kept.len());
        kept.to_owned()
    }
}

impl<'de> DeserializeSeed<'de> for &Room {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for &Room {
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
        Ok(Value::String(self.text(text)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut all: A) -> Result<Value, A::Error> {
        let mut kept = Vec::new();
        while self.take() {
            match all.next_element_seed(self)? {
                Some(value) => kept.push(value),
                None => return Ok(Value::Array(kept)),
            }
        }
        while all.next_element::<IgnoredAny>()?.is_some() {
            self.incomplete.set(true);
        }
        Ok(Value::Array(kept))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut all: A) -> Result<Value, A::Error> {
        let mut kept = Map::new();
        while self.take() {
            let Some(name) = all.next_key_seed(Name(self))? else { return Ok(Value::Object(kept)) };
            if name == NUMBER {
                return Ok(number(&all.next_value::<String>()?));
            }
            kept.insert(name, all.next_value_seed(self)?);
        }
        while all.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
            self.incomplete.set(true);
        }
        Ok(Value::Object(kept))
    }
}

/// With `exact-numbers`, serde_json shows a number as a map of its text.
fn number(written: &str) -> Value {
    let kept = Some(written).filter(|written| written.len() <= MAX_NUMBER_BYTES);
    kept.and_then(|written| written.parse::<Number>().ok()).map_or(Value::Null, Value::Number)
}

/// Reads the name of a field.
struct Name<'a>(&'a Room);

impl<'de> DeserializeSeed<'de> for Name<'_> {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<String, D::Error> {
        from.deserialize_str(self)
    }
}

impl Visitor<'_> for Name<'_> {
    type Value = String;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("the name of a field")
    }

    fn visit_str<E>(self, name: &str) -> Result<String, E> {
        Ok(self.0.text(name))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(json: &str) -> Excerpt {
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
    fn a_short_value_is_kept_whole() {
        let value = json!({
            "error": { "message": "no \u{1f30a} \"way\"\n", "code": 429, "retry": -1.5, "param": null, "ok": false },
            "details": [[], {}, ["a", 1]]
        });
        let excerpt = read(&value.to_string());
        assert_eq!((excerpt.value, excerpt.incomplete), (value, false));
    }

    #[test]
    fn a_long_text_is_cut_and_what_stands_after_it_is_kept() {
        let long = "\u{e9}".repeat(1 << 20);
        let excerpt = read(&json!({ "a": long, "message": "died" }).to_string());
        assert_eq!(excerpt.value["a"].as_str().map(str::len), Some(MAX_TEXT_BYTES));
        assert_eq!((&excerpt.value["message"], excerpt.incomplete), (&json!("died"), false));
    }

    #[test]
    fn of_many_values_no_more_than_the_bound_is_kept() {
        let nested = |inner: &str| format!("{}{inner}{}", "[".repeat(90), "]".repeat(90));
        let many = vec!["{\"a\":[null]}"; 100_000].join(",");
        for json in [
            format!("[{many}]"),
            format!("{{\"details\":[{many}],\"message\":\"late\"}}"),
            nested(&vec!["0"; 1_000_000].join(",")),
        ] {
            let excerpt = read(&json);
            assert!(excerpt.incomplete);
            assert!(values(&excerpt.value) <= MAX_VALUES + 1, "{}", values(&excerpt.value));
        }
        let texts = serde_json::to_string(&vec!["a".repeat(MAX_TEXT_BYTES); 500]).unwrap();
        assert!(read(&texts).value.to_string().len() < 2 * MAX_TOTAL_BYTES);
    }

    #[test]
    fn a_number_of_any_length_is_read() {
        let excerpt = read(&format!("[7, 1e5, {}, 3]", "9".repeat(200)));
        assert_eq!((&excerpt.value[0], &excerpt.value[3]), (&json!(7), &json!(3)));
    }
}
