//! Positions of keys and values in a TOML document, for errors that are found after the document was read.

use std::collections::HashMap;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostic::{Diagnostic, Diagnostics};
use super::document::Document;
use super::suggest::toml_text;
use super::toml_string::TomlString;

/// Positions of all keys and values of a [`Document`]. A path consists of the keys from the root; list elements
/// are numbered from 0: `["route", "cheap", "targets", "0"]`.
#[derive(Debug)]
pub struct Spans<'d> {
    document: &'d Document,
    spans: HashMap<Vec<String>, Range<usize>>,
    strings: Vec<TomlString>,
    keys: Vec<TomlString>,
    numbers: Vec<TomlString>,
}

impl Document {
    /// Returns the positions of all keys and values.
    pub fn spans(&self) -> Spans<'_> {
        let root = self.root();
        Spans::new(self, root.get_ref())
    }
}

impl<'d> Spans<'d> {
    fn new(document: &'d Document, root: &DeTable<'_>) -> Self {
        let mut spans = Self {
            document,
            spans: HashMap::new(),
            strings: Vec::new(),
            keys: Vec::new(),
            numbers: Vec::new(),
        };
        spans.add_table(root, &[]);
        spans
    }

    /// Returns whether the document has a value at `path`.
    pub fn contains(&self, path: &[&str]) -> bool {
        self.span(path).is_some()
    }

    /// Creates a diagnostic at `path`, or at its closest ancestor in the document.
    pub fn diagnostic(&self, path: &[&str], message: impl Into<String>) -> Diagnostic {
        match (0..=path.len()).rev().find_map(|end| self.span(&path[..end])) {
            Some(span) => self.document.diagnostic(span, message),
            None => self.document.diagnostic(0..0, message),
        }
    }

    /// Returns whether any of `diagnostics` overlaps the value at `path` or a value below it.
    pub fn has_diagnostic(&self, path: &[&str], diagnostics: &Diagnostics) -> bool {
        let is_at_or_below = |key: &&Vec<String>| {
            key.len() >= path.len() && key.iter().zip(path).all(|(key, step)| key == step)
        };
        self.spans.keys().filter(is_at_or_below).filter_map(|key| self.spans.get(key)).any(|span| {
            diagnostics
                .0
                .iter()
                .filter_map(|diagnostic| diagnostic.span.as_ref())
                .any(|other| other.overlaps(span))
        })
    }

    /// Returns whether the value of a key is a table.
    pub(crate) fn is_table(&self, key: &TomlString) -> bool {
        // The position of a table is that of its key.
        self.spans.get(&key.path) == Some(&key.span)
    }

    /// Returns every string value in document order.
    pub fn strings(&self) -> &[TomlString] {
        &self.strings
    }

    /// Returns every key in document order. Its path includes itself.
    pub(crate) fn keys(&self) -> &[TomlString] {
        &self.keys
    }

    /// Returns every number in document order, as messages write it.
    pub(crate) fn numbers(&self) -> &[TomlString] {
        &self.numbers
    }

    /// Returns the text of the document.
    pub(crate) fn text(&self) -> &str {
        self.document.text()
    }

    fn span(&self, path: &[&str]) -> Option<Range<usize>> {
        let path: Vec<String> = path.iter().map(|key| (*key).to_owned()).collect();
        self.spans.get(&path).cloned()
    }

    fn add_table(&mut self, table: &DeTable<'_>, parent: &[String]) {
        for (key, value) in table {
            let path = [parent, &[key.get_ref().to_string()]].concat();
            // A table's own span may cover all of its lines, so its position is that of its key.
            let span = if value.get_ref().is_table() { key.span() } else { value.span() };
            self.spans.insert(path.clone(), span);
            let name = key.get_ref().to_string();
            self.keys.push(TomlString { path: path.clone(), span: key.span(), value: name });
            self.add_value(value, &path);
        }
    }

    fn add_value(&mut self, value: &Spanned<DeValue<'_>>, path: &[String]) {
        match value.get_ref() {
            DeValue::Table(table) => self.add_table(table, path),
            DeValue::Array(array) => {
                for (number, element) in array.iter().enumerate() {
                    let path = [path, &[number.to_string()]].concat();
                    self.spans.insert(path.clone(), element.span());
                    self.add_value(element, &path);
                }
            }
            DeValue::String(text) => {
                self.strings.push(TomlString {
                    path: path.to_vec(),
                    span: value.span(),
                    value: text.to_string(),
                });
            }
            DeValue::Integer(_) | DeValue::Float(_) => {
                self.numbers.push(TomlString {
                    path: path.to_vec(),
                    span: value.span(),
                    value: toml_text(value.get_ref()),
                });
            }
            DeValue::Boolean(_) | DeValue::Datetime(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_diagnostic_points_at_its_key_or_at_the_closest_ancestor() {
        let text =
            "[provider.claude.models.haiku]\nname = 'x'\n[route.r]\ntargets = ['a', { target = 'b' }]\n";
        let document = Document::parse("c.toml", text).unwrap();
        let spans = document.spans();
        let position = |path: &[&str]| spans.diagnostic(path, "wrong").span.unwrap().to_string();
        assert_eq!(position(&["provider", "claude", "models", "haiku", "name"]), "c.toml:2:8");
        assert_eq!(position(&["provider", "claude", "keys"]), "c.toml:1:11");
        assert_eq!(position(&["route", "r", "targets", "1", "target"]), "c.toml:4:28");
        assert_eq!(position(&["route", "r", "targets", "7"]), "c.toml:4:11");
        assert_eq!(position(&["nothing"]), "c.toml:1:1");
        assert!(spans.contains(&["route", "r"]) && !spans.contains(&["route", "s"]));
    }

    #[test]
    fn a_diagnostic_belongs_to_its_path_and_to_every_ancestor() {
        let document = Document::parse("c.toml", "a = { b = [1, 2], c = 3 }\nd = 4\n").unwrap();
        let spans = document.spans();
        let diagnostics = Diagnostics(vec![spans.diagnostic(&["a", "b", "1"], "wrong")]);
        for (path, expected) in [
            (&["a"][..], true),
            (&["a", "b"], true),
            (&["a", "b", "0"], false),
            (&["a", "c"], false),
            (&["d"], false),
        ] {
            assert_eq!(spans.has_diagnostic(path, &diagnostics), expected, "{path:?}");
        }
    }
}
