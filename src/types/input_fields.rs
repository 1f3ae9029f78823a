//! The names of the fields of an input, which are columns of a table of results.
//!
//! The names come from the items themselves, in the order in which they first appear, so they are the header of a
//! CSV file. Plain data; nothing here reads an input.

use indexmap::IndexSet;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::item::ItemKey;

/// Most names that are kept. A table with more columns fits no program.
const MAX_NAMES: usize = 4_096;

/// Most bytes of the names together.
const MAX_NAME_BYTES: usize = 1 << 20;

/// The names of the fields of an input.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct InputFields {
    /// The names, in the order of the input.
    pub names: Vec<String>,
    /// Whether items may have other fields, because not all of them were looked at.
    pub has_more: bool,
    /// Whether one of the fields has the key of each item, such as `id`.
    pub has_key: bool,
}

impl InputFields {
    /// Creates the fields with these names.
    pub fn new<N: Into<String>>(names: impl IntoIterator<Item = N>) -> Self {
        Self { names: names.into_iter().map(Into::into).collect(), has_more: false, has_key: false }
    }

    /// Sets whether items may have other fields.
    #[must_use]
    pub fn with_more(self, has_more: bool) -> Self {
        Self { has_more, ..self }
    }

    /// Sets whether one of the fields has the key of each item.
    #[must_use]
    pub fn with_key(self, has_key: bool) -> Self {
        Self { has_key, ..self }
    }
}

/// Collects the fields of the items that it is shown.
#[derive(Debug, Default)]
pub struct FieldCollector {
    names: IndexSet<String>,
    name_bytes: usize,
    /// Whether there were too many names.
    is_full: bool,
    /// Fields that have the key of each item so far; `None` before the first item.
    key_fields: Option<Vec<String>>,
}

impl FieldCollector {
    /// Adds the fields of an item.
    pub(crate) fn add(&mut self, key: &ItemKey, item: &Map<String, Value>) {
        // Most inputs have the same fields in each item.
        if item.len() != self.names.len() || !item.keys().eq(self.names.iter()) {
            self.add_names(item);
        }
        match &mut self.key_fields {
            None => {
                let has_key = |(_, value): &(&String, &Value)| is_key(value, key);
                self.key_fields = Some(item.iter().filter(has_key).map(|(name, _)| name.clone()).collect());
            }
            Some(fields) => fields.retain(|name| item.get(name).is_some_and(|value| is_key(value, key))),
        }
    }

    fn add_names(&mut self, item: &Map<String, Value>) {
        for name in item.keys() {
            if self.names.contains(name) {
                continue;
            }
            let has_space =
                self.names.len() < MAX_NAMES && self.name_bytes.saturating_add(name.len()) <= MAX_NAME_BYTES;
            if has_space {
                self.name_bytes += name.len();
                self.names.insert(name.clone());
            } else {
                self.is_full = true;
            }
        }
    }

    /// Returns the fields of all items that were added. `has_more` is whether the input may have others.
    pub(crate) fn fields(&self, has_more: bool) -> InputFields {
        InputFields {
            names: self.names.iter().cloned().collect(),
            has_more: has_more || self.is_full,
            has_key: self.key_fields.as_ref().is_some_and(|fields| !fields.is_empty()),
        }
    }
}

fn is_key(value: &Value, key: &ItemKey) -> bool {
    match value {
        Value::String(text) => text == key.as_str(),
        Value::Number(number) => number.to_string() == key.as_str(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn collected(items: &[(&str, Value)]) -> InputFields {
        let mut collector = FieldCollector::default();
        for (key, item) in items {
            collector.add(&ItemKey::from(*key), item.as_object().unwrap());
        }
        collector.fields(false)
    }

    #[test]
    fn names_are_in_the_order_in_which_they_first_appear() {
        let fields = collected(&[("1", json!({"b": 1, "a": 2})), ("2", json!({"c": 3, "a": 2}))]);
        assert_eq!(fields, InputFields::new(["b", "a", "c"]));
    }

    #[test]
    fn a_field_is_the_key_only_if_it_is_that_of_each_item() {
        let items = [("7", json!({"id": 7, "same": "7"})), ("x", json!({"id": "x", "same": "7"}))];
        assert!(collected(&items).has_key);
        let items = [("7", json!({"id": 7})), ("sha-0", json!({"id": ""}))];
        assert!(!collected(&items).has_key);
        assert!(!collected(&[]).has_key);
    }

    #[test]
    fn too_many_names_are_not_kept_and_this_is_known() {
        let item: Map<String, Value> = (0..MAX_NAMES + 1).map(|n| (format!("f{n}"), Value::Null)).collect();
        let fields = collected(&[("1", Value::Object(item))]);
        assert!(fields.names.len() == MAX_NAMES && fields.has_more);
    }
}
