//! Deserializes settings from a document, part by part if the whole cannot be deserialized.

use std::collections::HashSet;

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue, Deserializer, Error};

use super::diagnostic::{Diagnostic, Diagnostics, MAX_LISTED};
use super::document::Document;
use super::explain::explain;
use super::node::{Node, Path, children, is_tables, span_of};
use super::search::ErrorSearch;

impl Document {
    /// Deserializes `T` and returns all errors with it. If there are errors, the returned `T` contains the valid
    /// parts, as far as `T` can be deserialized without the others. A list of plain values with an invalid element
    /// is omitted. Of many errors, one more is returned than [`Diagnostics`] lists.
    pub fn read<T: DeserializeOwned + Default>(&self) -> (T, Diagnostics) {
        let root = self.root();
        let root = Spanned::new(root.span(), DeValue::Table(root.into_inner()));
        let mut search = ErrorSearch::new(read_node::<T>);
        let found = search.find(&root);
        let mut diagnostics: Vec<Diagnostic> = Vec::new();
        for (path, error) in &found {
            if diagnostics.len() > MAX_LISTED {
                break;
            }
            let (message, help) = explain(error.message(), &search.error_context(&root, path, error));
            let help = help.map(Into::into);
            let diagnostic = Diagnostic { help, ..self.diagnostic(span_of(error), message) };
            if !diagnostics.contains(&diagnostic) {
                diagnostics.push(diagnostic);
            }
        }
        // Without the invalid parts, their parents may lack a required key. Then the parents are removed too.
        let deepest = found.iter().map(|(path, _)| path.len()).max().unwrap_or(0);
        let valid = (0..=deepest).rev().find_map(|depth| {
            let removed = found.iter().map(|(path, _)| path[..depth.min(path.len())].to_vec()).collect();
            read_node(without_paths(&root, &mut Vec::new(), &removed)?).ok()
        });
        (valid.unwrap_or_default(), Diagnostics(diagnostics))
    }
}

fn read_node<T: DeserializeOwned>(node: Node<'_>) -> Result<T, Error> {
    let span = node.span();
    match node.into_inner() {
        DeValue::Table(table) => T::deserialize(Deserializer::from(Spanned::new(span, table))),
        _ => T::deserialize(Deserializer::from(Spanned::new(span, DeTable::new()))),
    }
}

/// Returns `node` without the nodes at the paths in `removed`; `None` if all of it is removed.
fn without_paths<'i>(node: &Node<'i>, path: &mut Path, removed: &HashSet<Path>) -> Option<Node<'i>> {
    if removed.contains(path) {
        return None;
    }
    let mut remaining_children = Vec::new();
    for (position, (key, child)) in children(node).into_iter().enumerate() {
        path.push(position);
        remaining_children.push((key, child, without_paths(child, path, removed)));
        path.pop();
    }
    let value = match node.get_ref() {
        DeValue::Table(_) => {
            let entries =
                remaining_children.into_iter().filter_map(|(key, _, child)| Some((key?.clone(), child?)));
            DeValue::Table(entries.collect())
        }
        DeValue::Array(array) if is_tables(array) => {
            // An element that is removed becomes an empty table, because elements are identified by their
            // position.
            let empty = |node: &Node<'i>| Spanned::new(node.span(), DeValue::Table(DeTable::new()));
            let elements = remaining_children
                .into_iter()
                .map(|(_, original, child)| child.unwrap_or_else(|| empty(original)));
            DeValue::Array(elements.collect())
        }
        DeValue::Array(_) => DeValue::Array(
            remaining_children
                .into_iter()
                .map(|(_, _, child)| child)
                .collect::<Option<Vec<_>>>()?
                .into_iter()
                .collect(),
        ),
        other => other.clone(),
    };
    Some(Spanned::new(node.span(), value))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Default, Deserialize, PartialEq)]
    #[serde(default, deny_unknown_fields)]
    struct Root {
        name: Option<String>,
        step: Vec<Step>,
        provider: BTreeMap<String, Provider>,
    }

    #[derive(Debug, Default, Deserialize, PartialEq)]
    #[serde(default, deny_unknown_fields)]
    struct Step {
        name: Option<Spanned<String>>,
        max_validation_retries: Option<u8>,
    }

    #[derive(Debug, Default, Deserialize, PartialEq)]
    #[serde(default, deny_unknown_fields)]
    struct Provider {
        format: Option<String>,
        limits: BTreeMap<String, u32>,
    }

    #[test]
    fn every_error_is_found_at_its_position() {
        let text = "nmae = 'x'\n[[step]]\nname = 'a'\nmax_validation_retries = -1\n[[step]]\nname = 2\n[provider.p]\nformat = 'f'\nlimits = { rpm = 'ten', tpm = 5 }\n";
        let (root, diagnostics) = Document::parse("p.toml", text).unwrap().read::<Root>();
        let positions: Vec<String> =
            diagnostics.0.iter().map(|diagnostic| diagnostic.span.as_ref().unwrap().to_string()).collect();
        assert_eq!(positions, ["p.toml:1:1", "p.toml:4:26", "p.toml:6:8", "p.toml:9:18"], "{diagnostics}");
        assert_eq!(diagnostics.0[0].help, Some("did you mean `name`?".into()));
        assert_eq!(root.step[0].name.as_ref().map(|name| name.get_ref().as_str()), Some("a"));
        assert_eq!(root.step.len(), 2);
        assert_eq!(root.provider["p"].limits, BTreeMap::from([("tpm".to_owned(), 5)]));
    }

    #[test]
    fn every_wrong_element_of_a_list_is_found() {
        #[derive(Debug, Default, Deserialize, PartialEq)]
        #[serde(default)]
        struct Lists {
            numbers: Vec<u8>,
            words: Vec<String>,
        }
        let text = "numbers = [1, 'two', 3, 'four']\nwords = ['a']\n";
        let (lists, diagnostics) = Document::parse("l.toml", text).unwrap().read::<Lists>();
        let positions: Vec<String> =
            diagnostics.0.iter().map(|diagnostic| diagnostic.span.as_ref().unwrap().to_string()).collect();
        assert_eq!(positions, ["l.toml:1:15", "l.toml:1:25"]);
        assert_eq!(lists, Lists { numbers: vec![], words: vec!["a".to_owned()] });
    }

    #[test]
    fn a_required_key_is_reported_only_where_it_is_missing() {
        #[derive(Debug, Default, Deserialize, PartialEq)]
        #[serde(default)]
        struct Shop {
            name: String,
            prices: BTreeMap<String, Price>,
            diagnostics: Vec<Price>,
        }
        #[derive(Debug, Deserialize, PartialEq)]
        struct Price {
            input: u32,
            output: u32,
        }
        let text = "name = 3\n[prices.a]\ninput = 1\noutput = 2\n[prices.b]\ninput = 'x'\noutput = 2\n[prices.c]\ninput = 1\n[[diagnostics]]\noutput = 1\n";
        let (shop, diagnostics) = Document::parse("s.toml", text).unwrap().read::<Shop>();
        let messages: Vec<String> = diagnostics.0.iter().map(ToString::to_string).collect();
        assert_eq!(
            messages,
            [
                "s.toml:1:8: expected text in quotes, found `3`; write name = \"3\"",
                "s.toml:6:9: expected a whole number, 0 or more, found \"x\"; write input = NUMBER, a whole number without quotes or unit",
                "s.toml:8:1: missing key `output`; add `output = ...` here",
                "s.toml:10:1: missing key `input`; add `input = ...` here",
            ]
        );
        assert_eq!(shop.prices.keys().collect::<Vec<_>>(), ["a"]);
    }

    #[test]
    fn an_error_of_a_combination_of_values_is_reported_once_beside_other_errors() {
        #[derive(Debug, Default, Deserialize)]
        #[serde(default)]
        struct Root {
            name: String,
            spread: Option<Spread>,
        }
        #[derive(Debug, Clone, Deserialize)]
        #[serde(try_from = "BTreeMap<String, u32>")]
        struct Spread;
        impl TryFrom<BTreeMap<String, u32>> for Spread {
            type Error = String;
            fn try_from(written: BTreeMap<String, u32>) -> Result<Self, String> {
                match (written.get("low"), written.get("high")) {
                    (Some(low), Some(high)) if low <= high => Ok(Self),
                    (Some(_), Some(_)) => Err("high is below low".to_owned()),
                    _ => Err("give both".to_owned()),
                }
            }
        }
        let read = |text: &str| Document::parse("t", text).unwrap().read::<Root>().1.to_string();
        assert_eq!(
            read("name = 1\nspread = { low = 3, high = 2 }").lines().skip(1).collect::<Vec<_>>(),
            ["t:2:10: high is below low"]
        );
        assert_eq!(read("name = 1\n[spread]\nlow = 3\nhigh = 'x'\n").lines().count(), 2);
        assert_eq!(read("name = 1\n[spread]\nlow = 3\nhigh = 4\n").lines().count(), 1);
        assert_eq!(
            read("name = 1\n[spread]\nlow = 3\n").lines().skip(1).collect::<Vec<_>>(),
            ["t:2:1: give both"]
        );
    }

    #[test]
    fn of_many_errors_the_first_are_listed() {
        let keys = |count: usize| (0..count).map(|number| format!("key{number:04} = {{ a = {{}} }}\n"));
        for (text, name) in [
            (keys(5_000).collect::<String>(), "at the top"),
            (format!("[[step]]\n{}", keys(5_000).collect::<String>()), "in a step"),
            (keys(5_000).map(|key| format!("[[step]]\n{key}")).collect(), "in many steps"),
        ] {
            let (root, found) = Document::parse("p.toml", &text).unwrap().read::<Root>();
            assert_eq!(found.0.len(), MAX_LISTED + 1, "{name}");
            let listed = found.into_result(root).unwrap_err();
            assert_eq!(listed.0.len(), MAX_LISTED + 1, "{name}");
            assert!(listed.0[0].message.contains("`key0000`"), "{name}: {listed}");
            assert!(listed.0[MAX_LISTED].message.starts_with("and more errors"), "{name}: {listed}");
            assert_eq!(listed.0[MAX_LISTED].span, listed.0[MAX_LISTED - 1].span, "{name}");
        }
        let (root, found) =
            Document::parse("p.toml", &keys(MAX_LISTED).collect::<String>()).unwrap().read::<Root>();
        let listed = found.into_result(root).unwrap_err();
        assert_eq!(listed.0.len(), MAX_LISTED);
        assert!(listed.0.iter().all(|diagnostic| diagnostic.message.starts_with("unknown key")), "{listed}");
    }

    #[test]
    fn a_rendered_diagnostic_shows_its_line() {
        let (_, diagnostics) = Document::parse("c.toml", "nmae = 'ü'\n").unwrap().read::<Root>();
        let rendered = diagnostics.render(false);
        assert!(rendered.contains("nmae = 'ü'") && rendered.contains("c.toml:1:1"), "{rendered}");
    }
}
