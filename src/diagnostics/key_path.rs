//! The path of a key, in TOML syntax, as the position of an error in a generated document.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

use super::diagnostic::Diagnostics;
use super::document::Document;

impl Document {
    /// Replaces the positions in a generated document by the paths of their keys. A position that belongs to no key
    /// is removed. Does nothing for a file.
    pub fn locate_by_key(&self, diagnostics: &mut Diagnostics) {
        if !self.is_generated() || diagnostics.0.is_empty() {
            return;
        }
        let root = self.root();
        let mut keys = Vec::new();
        collect_table(root.get_ref(), &mut Vec::new(), &mut keys);
        for diagnostic in &mut diagnostics.0 {
            if let Some(span) = diagnostic.span.take() {
                diagnostic.key_path = innermost(&keys, &span.range()).map(key_path);
            }
        }
    }
}

/// A byte range that belongs to a key, and the path of the key from the root.
type KeyRange = (Range<usize>, Vec<String>);

/// Returns the path of the key with the smallest range that contains `position`. The header `[a.b]` is the range of
/// the table `a.b` and contains the range of the key `a`, so the deepest key would be wrong.
fn innermost<'k>(keys: &'k [KeyRange], position: &Range<usize>) -> Option<&'k [String]> {
    // An error without a position is reported at the start of the document.
    if position.is_empty() {
        return None;
    }
    let contains = |range: &Range<usize>| range.start <= position.start && position.end <= range.end;
    let containing = keys.iter().filter(|(range, _)| contains(range));
    containing.min_by_key(|(range, _)| range.len()).map(|(_, path)| path.as_slice())
}

/// Collects the ranges of all keys of a table, and of their values.
fn collect_table(table: &DeTable<'_>, path: &mut Vec<String>, keys: &mut Vec<KeyRange>) {
    for (key, value) in table {
        path.push(key.get_ref().to_string());
        keys.push((key.span(), path.clone()));
        keys.push((value.span(), path.clone()));
        collect_value(value.get_ref(), path, keys);
        path.pop();
    }
}

/// Collects the ranges of all keys in a value. An element of a list has no key, so it belongs to the key of the list.
fn collect_value(value: &DeValue<'_>, path: &mut Vec<String>, keys: &mut Vec<KeyRange>) {
    match value {
        DeValue::Table(table) => collect_table(table, path, keys),
        DeValue::Array(array) => {
            for element in array {
                keys.push((element.span(), path.clone()));
                collect_value(element.get_ref(), path, keys);
            }
        }
        DeValue::String(_)
        | DeValue::Integer(_)
        | DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_) => {}
    }
}

/// Returns the path of a key in TOML syntax: `provider.openai.models."gpt-4.1"`.
pub fn key_path<K: AsRef<str>>(path: &[K]) -> String {
    path.iter().map(|key| quoted_if_needed(key.as_ref())).collect::<Vec<_>>().join(".")
}

fn quoted_if_needed(key: &str) -> String {
    const VALUE: &str = " = true";
    let table = toml::Table::from_iter([(key.to_owned(), toml::Value::Boolean(true))]);
    let written = toml::to_string(&table).ok();
    let key_alone = written.as_deref().and_then(|text| text.trim_end().strip_suffix(VALUE));
    key_alone.map_or_else(|| format!("{key:?}"), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_path_is_written_in_toml_syntax() {
        for (path, written) in [
            (&["run", "max_hold"][..], "run.max_hold"),
            (&["provider", "openai", "models", "gpt-4.1"], "provider.openai.models.\"gpt-4.1\""),
            (&["route", "two words"], "route.\"two words\""),
            (&["route", ""], "route.\"\""),
            (&["a\nb = 1\n#"], "\"a\\nb = 1\\n#\""),
        ] {
            assert_eq!(key_path(path), written);
            let text = format!("{written} = true");
            let table: toml::Table = text.parse().unwrap();
            let first = &table[path[0]];
            let leaf = path[1..].iter().fold(first, |value, key| &value[*key]);
            assert_eq!(leaf.as_bool(), Some(true), "{written}");
        }
    }

    #[test]
    fn a_position_in_a_generated_document_becomes_the_path_of_its_key() {
        let text = "[provider.a]\nkeys = [\"x\", \"y\"]\n\n[provider.a.models.\"m.1\"]\nprice = { input = 1.0 }\n\n\
                    [[simulator.faults]]\nshare = 2.0\n\n[[simulator.faults]]\nshare = 3.0\n";
        let document = Document::generated(text).unwrap();
        let key_of = |part: &str, offset: usize| {
            let start = text.find(part).unwrap() + offset;
            let mut found = Diagnostics(vec![document.diagnostic(start..start + 1, "wrong")]);
            document.locate_by_key(&mut found);
            found.0.remove(0).key_path
        };
        let spans = document.spans();
        let key_at = |path: &[&str]| {
            let mut found = Diagnostics(vec![spans.diagnostic(path, "wrong")]);
            document.locate_by_key(&mut found);
            assert_eq!(found.0[0].span, None);
            found.0.remove(0).key_path
        };
        assert_eq!(key_of("\"y\"", 1).as_deref(), Some("provider.a.keys"));
        assert_eq!(key_of("share = 3.0", 8).as_deref(), Some("simulator.faults.share"));
        assert_eq!(key_at(&["provider"]).as_deref(), Some("provider"));
        assert_eq!(key_at(&["provider", "a"]).as_deref(), Some("provider.a"));
        assert_eq!(key_at(&["provider", "a", "limits", "burst"]).as_deref(), Some("provider.a"));
        assert_eq!(key_at(&["provider", "a", "keys", "1"]).as_deref(), Some("provider.a.keys"));
        let models = ["provider", "a", "models"];
        assert_eq!(key_at(&models).as_deref(), Some("provider.a.models"));
        let price = [&models[..], &["m.1", "price", "input"]].concat();
        assert_eq!(key_at(&price).as_deref(), Some("provider.a.models.\"m.1\".price.input"));
        assert_eq!(key_at(&["nothing"]), None);
        let header = "[provider.a.models.\"m.1\"]";
        let start = text.find(header).unwrap();
        let mut found = Diagnostics(vec![document.diagnostic(start..start + header.len(), "wrong")]);
        document.locate_by_key(&mut found);
        assert_eq!(found.0[0].key_path.as_deref(), Some("provider.a.models.\"m.1\""));
    }

    #[test]
    fn a_diagnostic_of_a_generated_document_is_shown_with_its_key_and_without_a_snippet() {
        let document = Document::generated("a = 1\n").unwrap();
        let diagnostic = document.spans().diagnostic(&["a"], "this is wrong").with_help("write 2");
        let mut diagnostics = Diagnostics(vec![diagnostic]);
        document.locate_by_key(&mut diagnostics);
        assert_eq!(diagnostics.to_string(), "a: this is wrong; write 2");
        let rendered = diagnostics.render(false);
        assert!(rendered.starts_with("error: a: this is wrong"), "{rendered}");
        assert!(rendered.contains("help: write 2") && !rendered.contains("a = 1"), "{rendered}");
    }

    #[test]
    fn a_position_in_a_file_stays() {
        let document = Document::parse("c.toml", "a = 1\n").unwrap();
        let mut diagnostics = Diagnostics(vec![document.spans().diagnostic(&["a"], "wrong")]);
        document.locate_by_key(&mut diagnostics);
        assert_eq!(diagnostics.to_string(), "c.toml:1:5: wrong");
        assert_eq!(diagnostics.0[0].key_path, None);
    }

    #[test]
    fn a_syntax_error_of_a_generated_document_has_no_position() {
        let diagnostics = Document::generated("a = = 1\n").unwrap_err();
        assert!(diagnostics.0.iter().all(|diagnostic| diagnostic.span.is_none()), "{diagnostics:?}");
    }
}
