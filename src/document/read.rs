//! Parses a TOML text and reads settings from it, leaf by leaf when they do not read whole.

use std::collections::HashSet;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue, Deserializer, Error};

use super::search::{Path, Search, children, is_tables};
use super::words::{advise_syntax, explain};
use super::{Fault, Faults, Place, Places};

/// A TOML text that parses.
#[derive(Clone)]
pub struct Document {
    file: Arc<str>,
    text: Arc<str>,
}

impl fmt::Debug for Document {
    /// Leaves the text out: it may hold a secret.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Document").field("file", &self.file).finish_non_exhaustive()
    }
}

type Node<'i> = Spanned<DeValue<'i>>;

impl Document {
    /// Parses `text`; `file` is what faults call it.
    ///
    /// # Errors
    /// Every place where the text is no TOML.
    pub fn parse(file: &str, text: &str) -> Result<Self, Faults> {
        let document = Self { file: file.into(), text: text.into() };
        let (_, errors) = DeTable::parse_recoverable(&document.text);
        let faults = errors.iter().map(|error| {
            let advice = advise_syntax(error.message()).map(str::to_owned);
            Fault { advice, ..document.fault(span_of(error), error.message()) }
        });
        let mut faults: Vec<Fault> = faults.collect();
        faults.dedup();
        Faults(faults).or(document)
    }

    /// Returns the text that was parsed.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Makes a fault at `span` of this document.
    pub fn fault(&self, span: Range<usize>, message: impl Into<String>) -> Fault {
        Fault { place: Some(Place::new(&self.file, &self.text, span)), ..Fault::new(message) }
    }

    /// Finds where everything stands.
    pub fn places(&self) -> Places<'_> {
        let (root, _) = DeTable::parse_recoverable(&self.text);
        Places::new(self, root.get_ref())
    }

    /// Reads `T`, with every fault found. What is returned beside faults holds what was right, as far
    /// as it makes a `T` without the rest: a list of values of which one is wrong is left out whole.
    pub fn read<T: DeserializeOwned + Default>(&self) -> (T, Faults) {
        let (root, _) = DeTable::parse_recoverable(&self.text);
        let root = Spanned::new(root.span(), DeValue::Table(root.into_inner()));
        let mut search = Search::new(read_node::<T>);
        let found = search.find(&root);
        let mut faults: Vec<Fault> = Vec::new();
        for (path, error) in &found {
            let (wrong, advice) = explain(error.message(), &search.about(&root, path, error));
            let fault = Fault { advice, ..self.fault(span_of(error), wrong) };
            if !faults.contains(&fault) {
                faults.push(fault);
            }
        }
        // What is left may lack something without which the rest makes no sense: then more must go.
        let deepest = found.iter().map(|(path, _)| path.len()).max().unwrap_or(0);
        let right = (0..=deepest).rev().find_map(|depth| {
            let wrong = found.iter().map(|(path, _)| path[..depth.min(path.len())].to_vec()).collect();
            read_node(without(&root, &mut Vec::new(), &wrong)?).ok()
        });
        (right.unwrap_or_default(), Faults(faults))
    }
}

pub(super) fn span_of(error: &Error) -> Range<usize> {
    error.span().unwrap_or(0..0)
}

fn read_node<T: DeserializeOwned>(node: Node<'_>) -> Result<T, Error> {
    let span = node.span();
    match node.into_inner() {
        DeValue::Table(table) => T::deserialize(Deserializer::from(Spanned::new(span, table))),
        _ => T::deserialize(Deserializer::from(Spanned::new(span, DeTable::new()))),
    }
}

/// Returns `node` without what stands at the `wrong` paths; `None` when nothing of it may stay.
fn without<'i>(node: &Node<'i>, path: &mut Path, wrong: &HashSet<Path>) -> Option<Node<'i>> {
    if wrong.contains(path) {
        return None;
    }
    let mut kept = Vec::new();
    for (position, (key, child)) in children(node).into_iter().enumerate() {
        path.push(position);
        kept.push((key, child, without(child, path, wrong)));
        path.pop();
    }
    let value = match node.get_ref() {
        DeValue::Table(_) => {
            let right = kept.into_iter().filter_map(|(key, _, child)| Some((key?.clone(), child?)));
            DeValue::Table(right.collect())
        }
        DeValue::Array(array) if is_tables(array) => {
            // An element stays even when nothing of it does: others are told apart by position.
            let empty = |node: &Node<'i>| Spanned::new(node.span(), DeValue::Table(DeTable::new()));
            let elements = kept.into_iter().map(|(_, was, is)| is.unwrap_or_else(|| empty(was)));
            DeValue::Array(elements.collect())
        }
        DeValue::Array(_) => DeValue::Array(
            kept.into_iter().map(|(_, _, child)| child).collect::<Option<Vec<_>>>()?.into_iter().collect(),
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
        reasks: Option<u8>,
    }

    #[derive(Debug, Default, Deserialize, PartialEq)]
    #[serde(default, deny_unknown_fields)]
    struct Provider {
        format: Option<String>,
        limits: BTreeMap<String, u32>,
    }

    #[test]
    fn every_fault_is_found_and_has_its_place() {
        let text = "nmae = 'x'\n[[step]]\nname = 'a'\nreasks = -1\n[[step]]\nname = 2\n[provider.p]\nformat = 'f'\nlimits = { rpm = 'ten', tpm = 5 }\n";
        let (root, faults) = Document::parse("p.toml", text).unwrap().read::<Root>();
        let places: Vec<String> =
            faults.0.iter().map(|fault| fault.place.as_ref().unwrap().to_string()).collect();
        assert_eq!(places, ["p.toml:1:1", "p.toml:4:10", "p.toml:6:8", "p.toml:9:18"], "{faults}");
        assert_eq!(faults.0[0].advice.as_deref(), Some("did you mean `name`?"));
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
        let (lists, faults) = Document::parse("l.toml", text).unwrap().read::<Lists>();
        let places: Vec<String> =
            faults.0.iter().map(|fault| fault.place.as_ref().unwrap().to_string()).collect();
        assert_eq!(places, ["l.toml:1:15", "l.toml:1:25"]);
        assert_eq!(lists, Lists { numbers: vec![], words: vec!["a".to_owned()] });
    }

    #[test]
    fn what_is_required_is_missed_only_where_it_is_missing() {
        #[derive(Debug, Default, Deserialize, PartialEq)]
        #[serde(default)]
        struct Shop {
            name: String,
            prices: BTreeMap<String, Price>,
            faults: Vec<Price>,
        }
        #[derive(Debug, Deserialize, PartialEq)]
        struct Price {
            input: u32,
            output: u32,
        }
        let text = "name = 3\n[prices.a]\ninput = 1\noutput = 2\n[prices.b]\ninput = 'x'\noutput = 2\n[prices.c]\ninput = 1\n[[faults]]\noutput = 1\n";
        let (shop, faults) = Document::parse("s.toml", text).unwrap().read::<Shop>();
        let said: Vec<String> = faults.0.iter().map(ToString::to_string).collect();
        assert_eq!(
            said,
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
    fn what_is_wrong_only_together_is_said_once_beside_what_is_wrong_alone() {
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
    fn a_text_that_is_no_toml_is_refused_with_its_line() {
        let faults = Document::parse("c.toml", "a = 1\nb = = 2\n").unwrap_err();
        assert_eq!(faults.0[0].place.as_ref().unwrap().line_and_column().0, 2);
    }

    #[test]
    fn a_rendered_fault_shows_its_line() {
        let (_, faults) = Document::parse("c.toml", "nmae = 'ü'\n").unwrap().read::<Root>();
        let shown = faults.render(false);
        assert!(shown.contains("nmae = 'ü'") && shown.contains("c.toml:1:1"), "{shown}");
    }
}
