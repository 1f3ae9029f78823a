//! Determines the key of an item: its `id`, or else the hash of its content; or the field that the user names.
//!
//! A field that the user names must be in every item. There is no hash in its place, because the user expects to find
//! results by that field.
//!
//! The hash is the first half of SHA-256, in hexadecimal after `sha-`, over the item as compact JSON with
//! sorted keys. It depends neither on the order in which a file writes the fields nor on how it writes a
//! fraction (`1.50` is `1.5`). A key never depends on the item's position in the file, with one exception: of several
//! items with the same content, the second has `-2` after the hash, the third `-3`, so that each has its result.

use std::fmt::Write;

use serde_json::{Map, Number, Value};
use sha2::{Digest, Sha256};

use crate::types::{Fingerprint, ItemKey};

/// Longest key in bytes.
const MAX_KEY_BYTES: usize = 512;

/// Prefix of the key of an item without an `id`.
const CONTENT_KEY_PREFIX: &str = "sha-";

/// An item's key and its origin.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) key: ItemKey,
    /// Whether it is the hash of the content, because there is no `id`.
    pub(super) from_content: bool,
}

/// Returns the item's key, or the reason why its `id` is not a valid key. The number 7 and the text "7" are the
/// same key; a null or empty `id` counts as missing. `key_field` is the field in place of `id`, which must not be
/// missing.
pub(super) fn key_of(item: &Map<String, Value>, key_field: Option<&str>) -> Result<Key, String> {
    let field = key_field.unwrap_or("id");
    let missing = |found: &str| match key_field {
        None => Ok(content_key(item)),
        Some(name) => Err(format!("{found} {name:?}, which is to be the key")),
    };
    let key_text = match item.get(field) {
        None => return missing("has no field"),
        Some(Value::Null) => return missing("has null as"),
        Some(Value::String(key_text)) if key_text.is_empty() => return missing("has an empty"),
        Some(Value::String(key_text)) => key_text.as_str().into(),
        Some(Value::Number(number)) => {
            let text_of_number = canonical(number);
            // Beyond 2^53 a double is rounded, so two ids may have become one.
            let is_whole = text_of_number.bytes().all(|byte| byte == b'-' || byte.is_ascii_digit());
            if !is_whole && number.as_f64().is_none_or(|float| float.abs() >= 9_007_199_254_740_992.0) {
                return Err(format!(
                    "has a number as `{field}` that is too large to be exact; write it as text"
                ));
            }
            ItemKey::from(text_of_number)
        }
        Some(Value::Bool(_)) => return Err(format!("has true or false as `{field}`; use text or a number")),
        Some(Value::Array(_)) => return Err(format!("has an array as `{field}`; use text or a number")),
        Some(Value::Object(_)) => return Err(format!("has an object as `{field}`; use text or a number")),
    };
    if key_text.as_str().len() > MAX_KEY_BYTES {
        return Err(format!(
            "has a `{field}` of {} bytes; the longest key may have {MAX_KEY_BYTES}",
            key_text.as_str().len()
        ));
    }
    // With a field that must be in every item, no item has such a key.
    if key_field.is_none() && is_content_key(key_text.as_str()) {
        return Err(
            "has an `id` that looks like the key of an item without an `id` (`sha-` and 32 hexadecimal digits, \
             alone or before a number), which could be another item's; put a word before it, or leave the `id` out"
                .into(),
        );
    }
    Ok(Key { key: key_text, from_content: false })
}

/// Returns the key that an item has in a source, or the reason why its `id` is not a valid key.
#[cfg(feature = "server")]
pub(crate) fn item_key(item: &Map<String, Value>) -> Result<ItemKey, String> {
    key_of(item, None).map(|key| key.key)
}

/// Returns whether a key has the form of the key of an item without an `id`: only a field that the user names as the key
/// may have it, too.
pub(crate) fn is_content_key(id: &str) -> bool {
    let Some(rest) = id.strip_prefix(CONTENT_KEY_PREFIX) else { return false };
    let (hash, number) = match rest.split_once('-') {
        Some((hash, number)) => (hash, Some(number)),
        None => (rest, None),
    };
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|digit| digit.is_ascii_digit());
    hash.len() == 32 && hash.bytes().all(|digit| digit.is_ascii_hexdigit()) && number.is_none_or(is_number)
}

/// Returns the key of the item that is the one with this number, from 1, among those with the same content.
pub(super) fn occurrence_key(content_key: ItemKey, number: u64) -> ItemKey {
    if number == 1 { content_key } else { format!("{content_key}-{number}").into() }
}

/// Returns the fingerprint of all fields of an item. It does not depend on the order in which they are written.
pub(crate) fn content_fingerprint(item: &Value) -> Fingerprint {
    let mut canonical = String::new();
    write_value(item, &mut canonical);
    Fingerprint::of([canonical.as_bytes()])
}

fn content_key(item: &Map<String, Value>) -> Key {
    let mut canonical = String::new();
    write_object(item, &mut canonical);
    let digest = Sha256::digest(canonical.as_bytes());
    let mut key = String::from(CONTENT_KEY_PREFIX);
    for byte in &digest[..16] {
        // Writing to a string cannot fail.
        let _ = write!(key, "{byte:02x}");
    }
    Key { key: key.into(), from_content: true }
}

/// Returns a number as text so that one value has one text: integers with all their digits, others as the
/// shortest text of their double.
fn canonical(number: &Number) -> String {
    let text_of_number = number.to_string();
    if !text_of_number.contains(['.', 'e', 'E']) {
        return text_of_number;
    }
    number.as_f64().and_then(Number::from_f64).map_or(text_of_number, |double| double.to_string())
}

fn write_object(object: &Map<String, Value>, out: &mut String) {
    let mut fields: Vec<_> = object.iter().collect();
    fields.sort_unstable_by_key(|(name, _)| *name);
    out.push('{');
    for (index, (name, value)) in fields.into_iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        let _ = write!(out, "{}:", Value::from(name.as_str()));
        write_value(value, out);
    }
    out.push('}');
}

fn write_value(value: &Value, out: &mut String) {
    match value {
        Value::Object(object) => write_object(object, out),
        Value::Array(elements) => {
            out.push('[');
            for (index, element) in elements.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_value(element, out);
            }
            out.push(']');
        }
        Value::Number(number) => out.push_str(&canonical(number)),
        Value::Null | Value::Bool(_) | Value::String(_) => {
            let _ = write!(out, "{value}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(json: &str) -> Result<Key, String> {
        key_of(&serde_json::from_str(json).unwrap(), None)
    }

    #[test]
    fn a_field_that_the_user_names_is_the_key_and_must_be_in_every_item() {
        let key = |json: &str| key_of(&serde_json::from_str(json).unwrap(), Some("sku"));
        let sku = |text: &str| Ok(Key { key: text.into(), from_content: false });
        assert_eq!(key(r#"{"id": 1, "sku": "a-7"}"#), sku("a-7"));
        assert_eq!(key(r#"{"sku": 7.0}"#), sku("7.0"));
        let content_key = "sha-ecf9e98ec0641e23113ff3ce8bdc78d0";
        assert_eq!(key(&format!(r#"{{"sku": "{content_key}"}}"#)), sku(content_key));
        for (json, reason) in [
            (r#"{"id": 1}"#, "has no field \"sku\", which is to be the key"),
            (r#"{"sku": null}"#, "has null as \"sku\", which is to be the key"),
            (r#"{"sku": ""}"#, "has an empty \"sku\", which is to be the key"),
            (r#"{"sku": []}"#, "has an array as `sku`; use text or a number"),
        ] {
            assert_eq!(key(json), Err(reason.to_owned()), "{json}");
        }
    }

    #[test]
    fn a_text_or_number_id_is_the_key() {
        for (json, expected) in [
            (r#"{"id": "a-1"}"#, "a-1"),
            (r#"{"id": 7}"#, "7"),
            (r#"{"id": -3}"#, "-3"),
            (r#"{"id": 18446744073709551615}"#, "18446744073709551615"),
            (r#"{"id": 1.5}"#, "1.5"),
        ] {
            assert_eq!(key(json), Ok(Key { key: expected.into(), from_content: false }), "{json}");
        }
    }

    #[test]
    fn without_an_id_the_key_depends_on_the_content_and_not_on_the_order_of_its_fields() {
        let one = key(r#"{"b": {"y": 1, "x": [null, "é"]}, "a": true}"#).unwrap();
        let other = key(r#"{"a": true, "b": {"x": [null, "é"], "y": 1}}"#).unwrap();
        assert!(one.from_content);
        assert_eq!(one, other);
        assert_ne!(one, key(r#"{"a": true, "b": {"x": ["é", null], "y": 1}}"#).unwrap());
        assert!(key(r#"{"id": null}"#).unwrap().from_content);
        assert!(key(r#"{"id": "", "a": 1}"#).unwrap().from_content);
    }

    #[test]
    fn the_hash_is_that_of_compact_sorted_json() {
        // printf '{"a":1,"b":"x"}' | sha256sum | head -c 32
        let expected = "sha-ecf9e98ec0641e23113ff3ce8bdc78d0";
        assert_eq!(key(r#"{"b": "x", "a": 1}"#).unwrap().key.as_str(), expected);
    }

    #[test]
    fn an_id_of_another_type_is_rejected_with_its_type() {
        for json in [r#"{"id": true}"#, r#"{"id": []}"#, r#"{"id": {}}"#] {
            assert!(key(json).unwrap_err().contains("`id`"), "{json}");
        }
    }

    #[test]
    fn ids_that_would_be_rounded_to_the_same_key_are_rejected() {
        assert!(key(r#"{"id": 1.2345e30}"#).unwrap_err().contains("as text"));
    }

    #[test]
    #[cfg(feature = "exact-numbers")]
    fn an_integer_of_any_length_is_an_id_and_part_of_the_content() {
        let id = "123456789012345678901234567890";
        assert_eq!(key(&format!(r#"{{"id": {id}}}"#)).unwrap().key.as_str(), id);
        let of = |number: &str| key(&format!(r#"{{"a": {number}}}"#)).unwrap().key;
        assert_ne!(of(id), of("123456789012345678901234567891"));
    }

    #[test]
    fn a_fraction_has_the_same_content_key_however_it_is_written() {
        let of = |number: &str| key(&format!(r#"{{"a": {number}}}"#)).unwrap().key;
        assert_eq!(of("1.50"), of("1.5"));
        assert_eq!(of("1.5e2"), of("150.0"));
        assert_ne!(of("1.5"), of("1.51"));
        assert_eq!(key(r#"{"id": 2.50}"#).unwrap().key.as_str(), "2.5");
    }

    #[test]
    fn an_id_that_looks_like_a_content_key_is_rejected() {
        let content_key = key(r#"{"text": "x"}"#).unwrap();
        for taken in [content_key.key.clone(), occurrence_key(content_key.key, 12)] {
            let reason = key(&format!(r#"{{"id": "{taken}"}}"#)).unwrap_err();
            assert!(
                reason.contains("looks like the key of an item without an `id`")
                    && reason.contains("leave the `id` out"),
                "{reason}"
            );
        }
        for id in [
            "sha-",
            "sha-1",
            "my-sha-ecf9e98ec0641e23113ff3ce8bdc78d0",
            "sha-ecf9e98ec0641e23113ff3ce8bdc78dx",
            "sha-ecf9e98ec0641e23113ff3ce8bdc78d0-",
            "sha-ecf9e98ec0641e23113ff3ce8bdc78d0-a",
        ] {
            assert!(key(&format!(r#"{{"id": "{id}"}}"#)).is_ok(), "{id}");
        }
    }

    #[test]
    fn the_first_of_equal_items_has_the_hash_alone_and_later_ones_their_number() {
        let number = |number| occurrence_key("sha-0".into(), number).as_str().to_owned();
        assert_eq!([number(1), number(2), number(30)], ["sha-0", "sha-0-2", "sha-0-30"]);
    }

    #[test]
    fn a_long_id_is_rejected() {
        assert!(key(&format!(r#"{{"id": "{}"}}"#, "x".repeat(512))).is_ok());
        assert!(key(&format!(r#"{{"id": "{}"}}"#, "x".repeat(513))).unwrap_err().contains("513"));
    }
}
