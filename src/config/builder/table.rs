//! The keys of one TOML table that a program sets, and the errors of setting them.

use std::fmt;

use serde::Serialize;
use toml::Value;
use toml::de::{DeTable, DeValue};

use crate::diagnostics::{Diagnostic, Diagnostics, key_path};

use super::toml_value::{KeyError, to_toml};

/// The keys of a table that is being built.
#[derive(Clone, Default)]
pub(super) struct KeyTable {
    table: toml::Table,
    /// Errors, with the paths of their keys in this table.
    errors: Vec<KeyError>,
}

impl fmt::Debug for KeyTable {
    /// Omits the values: one may be a secret by mistake.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_set().entries(self.table.keys()).finish()
    }
}

impl KeyTable {
    /// Sets the key, which is in TOML syntax, to `value`.
    pub(super) fn set(&mut self, key: &str, value: &impl Serialize) {
        let Some(path) = parse_key(key) else {
            let help = "separate names by dots, and put a name with other characters than letters, digits, `-` and `_` into quotes";
            let diagnostic = Diagnostic::new(format!("{key:?} is not a key"));
            self.errors.push((Vec::new(), diagnostic.with_help(help)));
            return;
        };
        self.set_value(&path, value);
    }

    /// Sets the key at `path` to `value`.
    pub(super) fn set_value(&mut self, path: &[String], value: &impl Serialize) {
        match to_toml(value, path) {
            Ok(value) => self.insert(path, value),
            Err(errors) => {
                self.remove_errors(path);
                self.errors.extend(errors);
            }
        }
    }

    /// Sets the key at `path` to `value`. Removes the errors of what was set for it before.
    pub(super) fn insert(&mut self, path: &[String], value: Value) {
        self.remove_errors(path);
        self.put(path, value);
    }

    /// Removes the errors at `path` and below it.
    fn remove_errors(&mut self, path: &[String]) {
        self.errors.retain(|(key, _)| !key.starts_with(path));
    }

    fn put(&mut self, path: &[String], value: Value) {
        let Some((last, parents)) = path.split_last() else { return };
        let mut table = &mut self.table;
        for (depth, name) in parents.iter().enumerate() {
            match table.entry(name.clone()).or_insert_with(|| Value::Table(toml::Table::new())) {
                Value::Table(inner) => table = inner,
                Value::String(_)
                | Value::Integer(_)
                | Value::Float(_)
                | Value::Boolean(_)
                | Value::Datetime(_)
                | Value::Array(_) => {
                    let parent = key_path(&parents[..=depth]);
                    let diagnostic = Diagnostic::new(format!("`{parent}` is set to a value, not to a table"));
                    let help = format!("set `{parent}` to a table, or do not set it");
                    self.errors.push((path.to_vec(), diagnostic.with_help(help)));
                    return;
                }
            }
        }
        table.insert(last.clone(), value);
    }

    /// Appends `value` to the list at the key `name` of this table.
    pub(super) fn push(&mut self, name: &str, value: Value) {
        match self.table.entry(name).or_insert_with(|| Value::Array(Vec::new())) {
            Value::Array(list) => list.push(value),
            Value::String(_)
            | Value::Integer(_)
            | Value::Float(_)
            | Value::Boolean(_)
            | Value::Datetime(_)
            | Value::Table(_) => {
                let diagnostic = Diagnostic::new("this is set to a value, not to a list");
                let diagnostic = diagnostic.with_help("set it to a list, or do not set it");
                self.errors.push((vec![name.to_owned()], diagnostic));
            }
        }
    }

    /// Sets the key at `path` to the table `inner`. Removes the errors of what was set for it before.
    pub(super) fn insert_table(&mut self, path: &[String], inner: Self) {
        self.remove_errors(path);
        let errors = inner.errors.into_iter();
        self.errors.extend(errors.map(|(key, diagnostic)| ([path, &key].concat(), diagnostic)));
        self.put(path, Value::Table(inner.table));
    }

    /// Returns the text of the table as a TOML document, and the errors of the keys that are missing in it.
    pub(super) fn write(self) -> (String, Diagnostics) {
        let located = self.errors.into_iter().map(|(path, diagnostic)| {
            let key_path = (!path.is_empty()).then(|| key_path(&path));
            Diagnostic { key_path, ..diagnostic }
        });
        let mut diagnostics = Diagnostics(located.collect());
        let text = toml::to_string(&self.table).unwrap_or_else(|error| {
            diagnostics.push(Diagnostic::new(format!("the configuration cannot be written: {error}")));
            String::new()
        });
        (text, diagnostics)
    }
}

/// Parses a key in TOML syntax into its names.
fn parse_key(key: &str) -> Option<Vec<String>> {
    const ASSIGNMENT: &str = " = ";
    // A line break would end the assignment that this key is read in.
    if key.contains(['\n', '\r']) {
        return None;
    }
    let text = format!("{key}{ASSIGNMENT}0");
    let root = DeTable::parse(&text).ok()?;
    let mut table = root.get_ref();
    let mut path = Vec::new();
    loop {
        let mut entries = table.iter();
        let (name, value) = entries.next()?;
        if entries.next().is_some() {
            return None;
        }
        path.push(name.get_ref().to_string());
        match value.get_ref() {
            DeValue::Table(inner) => table = inner,
            // If `key` has a value or a comment of its own, this is not the value at the end of the text.
            DeValue::Integer(_) if value.span().start == key.len() + ASSIGNMENT.len() => return Some(path),
            DeValue::Integer(_)
            | DeValue::String(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_)
            | DeValue::Array(_) => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn errors(table: KeyTable) -> String {
        table.write().1.to_string()
    }

    #[test]
    fn a_key_has_toml_syntax() {
        for (key, path) in [
            ("run", vec!["run"]),
            ("run.max_hold", vec!["run", "max_hold"]),
            (" run . max_hold ", vec!["run", "max_hold"]),
            (r#"models."gpt-4.1".name"#, vec!["models", "gpt-4.1", "name"]),
            ("models.'a\\b = #'.name", vec!["models", "a\\b = #", "name"]),
            (r#""a\nb\"""#, vec!["a\nb\""]),
            ("\"\"", vec![""]),
            ("1.2", vec!["1", "2"]),
        ] {
            assert_eq!(parse_key(key), Some(path.into_iter().map(str::to_owned).collect()), "{key}");
        }
        for wrong in [
            "",
            " ",
            ".",
            "a.",
            ".a",
            "a..b",
            "a b",
            "a.b!",
            "\"a",
            "[a]",
            "[a]\nb",
            "a = 0 #",
            "a = 1\nb",
            "a = 0\r\nb",
            "a = { b",
            "a = [",
            "# a",
            "a #",
            "a = \"\"\" ",
            "café",
        ] {
            assert_eq!(parse_key(wrong), None, "{wrong}");
        }
        let mut table = KeyTable::default();
        table.set("a b", &1);
        table.set("a", &1);
        let (text, diagnostics) = table.write();
        assert_eq!(text, "a = 1\n");
        assert!(diagnostics.to_string().starts_with("\"a b\" is not a key; separate names by dots"));
    }

    #[test]
    fn a_key_that_is_set_again_has_the_last_value() {
        let mut table = KeyTable::default();
        table.set("a.b", &json!({ "c": 1 }));
        table.set("a.b.d", &2);
        table.set("a.b.c", &[3]);
        assert_eq!(table.clone().write().0, "[a.b]\nc = [3]\nd = 2\n");
        table.set("a.b", &4);
        assert_eq!(table.write().0, "[a]\nb = 4\n");
    }

    #[test]
    fn a_key_that_is_set_again_has_no_errors_of_the_earlier_value() {
        let mut table = KeyTable::default();
        table.set("a", &f64::NAN);
        table.set("a", &1);
        table.set("b", &json!({ "c": { "d": null } }));
        table.set("b.c", &2);
        table.set("e", &f64::NAN);
        table.set("e", &f64::NAN);
        assert_eq!(errors(table.clone()).lines().count(), 1, "{}", errors(table.clone()));
        assert!(errors(table.clone()).starts_with("e: this value is null"));
        table.set("e", &3);
        let (written, diagnostics) = table.write();
        let root: toml::Table = written.parse().unwrap();
        assert_eq!(root, "a = 1\nb.c = 2\ne = 3\n".parse().unwrap());
        assert_eq!(diagnostics.to_string(), "");

        let path = ["provider".to_owned(), "p".to_owned()];
        let mut inner = KeyTable::default();
        inner.set("queue", &f64::NAN);
        let mut outer = KeyTable::default();
        outer.insert_table(&path, inner);
        assert_eq!(errors(outer.clone()).lines().count(), 1);
        outer.insert_table(&path, KeyTable::default());
        assert_eq!(errors(outer), "");
    }

    #[test]
    fn a_key_below_a_value_is_an_error_that_names_both() {
        let mut table = KeyTable::default();
        table.set("run.max_hold", &"1h");
        table.set("run.max_hold.x.y", &1);
        table.set("keys", &"env:A");
        table.push("keys", "env:B".into());
        let mut outer = KeyTable::default();
        outer.insert_table(&["provider".to_owned(), "a.b".to_owned()], table);
        assert_eq!(
            errors(outer),
            "provider.\"a.b\".run.max_hold.x.y: `run.max_hold` is set to a value, not to a table; \
             set `run.max_hold` to a table, or do not set it\n\
             provider.\"a.b\".keys: this is set to a value, not to a list; set it to a list, or do not set it"
        );
    }

    #[test]
    fn debug_shows_no_value() {
        let mut table = KeyTable::default();
        table.set("keys", &["sk-live-0123456789"]);
        assert_eq!(format!("{table:?}"), "{\"keys\"}");
    }

    proptest! {
        #[test]
        fn every_name_and_text_is_written_and_read_unchanged(
            names in prop::collection::vec("[\\PC\u{0}-\u{1f}\u{7f}\"'\\\\.=#]{0,8}", 1..4),
            text in "[\\PC\u{0}-\u{1f}\u{7f}\"'\\\\]{0,20}",
        ) {
            let mut table = KeyTable::default();
            let path = key_path(&names);
            table.set(&path, &text);
            let (written, diagnostics) = table.write();
            prop_assert_eq!(diagnostics.to_string(), "");
            let root: toml::Table = written.parse().unwrap();
            let first = &root[&names[0]];
            let leaf = names[1..].iter().fold(first, |value, name| &value[name.as_str()]);
            prop_assert_eq!(leaf.as_str(), Some(text.as_str()));
        }
    }
}
