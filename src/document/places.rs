//! Finds where a key stood, for what is found wrong only after the reading.
//!
//! Knows paths, never what they mean.

use std::collections::HashMap;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{Document, Fault, Faults};

/// Where everything of a [`Document`] stands. A path is the keys from the top, list elements by
/// their number: `["route", "cheap", "lanes", "0"]`.
#[derive(Debug)]
pub struct Places<'d> {
    document: &'d Document,
    spans: HashMap<Vec<String>, Range<usize>>,
    strings: Vec<Text>,
}

/// A string of a document.
#[derive(Clone, PartialEq, Eq)]
pub struct Text {
    /// Where it stands.
    pub path: Vec<String>,
    /// Its place in the text, quotes included.
    pub span: Range<usize>,
    /// What it says. May be a secret, so this type's `Debug` leaves it out.
    pub value: String,
}

impl std::fmt::Debug for Text {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Text").field("path", &self.path).field("span", &self.span).finish_non_exhaustive()
    }
}

impl<'d> Places<'d> {
    pub(super) fn new(document: &'d Document, root: &DeTable<'_>) -> Self {
        let mut places = Self { document, spans: HashMap::new(), strings: Vec::new() };
        places.table(root, &[]);
        places
    }

    /// Returns whether something was written at `path`.
    pub fn has(&self, path: &[&str]) -> bool {
        self.span(path).is_some()
    }

    /// Makes a fault at `path`, or at what is written closest above it.
    pub fn fault(&self, path: &[&str], message: impl Into<String>) -> Fault {
        match (0..=path.len()).rev().find_map(|end| self.span(&path[..end])) {
            Some(span) => self.document.fault(span, message),
            None => self.document.fault(0..0, message),
        }
    }

    /// Returns whether a fault stands at `path` or at anything under it.
    pub fn is_faulty(&self, path: &[&str], faults: &Faults) -> bool {
        let under = |key: &&Vec<String>| {
            key.len() >= path.len() && key.iter().zip(path).all(|(key, step)| key == step)
        };
        self.spans.keys().filter(under).filter_map(|key| self.spans.get(key)).any(|span| {
            faults.0.iter().filter_map(|fault| fault.place.as_ref()).any(|place| place.overlaps(span))
        })
    }

    /// Returns every string in the order of the text.
    pub fn strings(&self) -> &[Text] {
        &self.strings
    }

    fn span(&self, path: &[&str]) -> Option<Range<usize>> {
        let path: Vec<String> = path.iter().map(|key| (*key).to_owned()).collect();
        self.spans.get(&path).cloned()
    }

    fn table(&mut self, table: &DeTable<'_>, above: &[String]) {
        for (key, value) in table {
            let path = [above, &[key.get_ref().to_string()]].concat();
            // A table is found by its name; its own span may be all of its lines.
            let span = if value.get_ref().is_table() { key.span() } else { value.span() };
            self.spans.insert(path.clone(), span);
            self.value(value, &path);
        }
    }

    fn value(&mut self, value: &Spanned<DeValue<'_>>, path: &[String]) {
        match value.get_ref() {
            DeValue::Table(table) => self.table(table, path),
            DeValue::Array(array) => {
                for (number, element) in array.iter().enumerate() {
                    let path = [path, &[number.to_string()]].concat();
                    self.spans.insert(path.clone(), element.span());
                    self.value(element, &path);
                }
            }
            DeValue::String(text) => {
                self.strings.push(Text { path: path.to_vec(), span: value.span(), value: text.to_string() });
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_stands_at_its_key_or_at_what_is_closest_above() {
        let text = "[provider.claude.models.haiku]\nname = 'x'\n[route.r]\nlanes = ['a', { lane = 'b' }]\n";
        let document = Document::parse("c.toml", text).unwrap();
        let places = document.places();
        let place = |path: &[&str]| places.fault(path, "wrong").place.unwrap().to_string();
        assert_eq!(place(&["provider", "claude", "models", "haiku", "name"]), "c.toml:2:8");
        assert_eq!(place(&["provider", "claude", "keys"]), "c.toml:1:11");
        assert_eq!(place(&["route", "r", "lanes", "1", "lane"]), "c.toml:4:24");
        assert_eq!(place(&["route", "r", "lanes", "7"]), "c.toml:4:9");
        assert_eq!(place(&["nothing"]), "c.toml:1:1");
        assert!(places.has(&["route", "r"]) && !places.has(&["route", "s"]));
    }

    #[test]
    fn a_fault_is_known_from_everywhere_above_it() {
        let document = Document::parse("c.toml", "a = { b = [1, 2], c = 3 }\nd = 4\n").unwrap();
        let places = document.places();
        let faults = Faults(vec![places.fault(&["a", "b", "1"], "wrong")]);
        for (path, faulty) in [
            (&["a"][..], true),
            (&["a", "b"], true),
            (&["a", "b", "0"], false),
            (&["a", "c"], false),
            (&["d"], false),
        ] {
            assert_eq!(places.is_faulty(path, &faults), faulty, "{path:?}");
        }
    }
}
