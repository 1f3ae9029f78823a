//! Parses a TOML text and reads settings from it, leaf by leaf when they do not read whole.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue, Deserializer, Error};

use super::words::explain;
use super::{Fault, Faults, Place, Places};

/// A TOML text that parses.
#[derive(Debug, Clone)]
pub struct Document {
    file: Arc<str>,
    text: Arc<str>,
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
        let faults = errors.iter().map(|error| document.fault(span_of(error), error.message()));
        Faults(faults.collect()).or(document)
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

    /// Reads `T`, with every fault found. What is returned beside faults holds all that was right,
    /// which works for a `T` whose keys are all optional and whose lists may be of any length;
    /// otherwise it is the default. A list of values of which one is wrong is left out whole.
    pub fn read<T: DeserializeOwned + Default>(&self) -> (T, Faults) {
        let (root, _) = DeTable::parse_recoverable(&self.text);
        if let Ok(whole) = T::deserialize(Deserializer::from(root.clone())) {
            return (whole, Faults::default());
        }
        let root = Spanned::new(root.span(), DeValue::Table(root.into_inner()));
        let mut faults = Faults::default();
        let mut wrong = HashSet::new();
        for (number, leaf) in leaves(&root).into_iter().enumerate() {
            if let Err(error) = read_node::<T>(leaf) {
                wrong.insert(number);
                faults.push(self.explain(&error));
            }
        }
        let Some(right) = without(&root, &wrong, &mut 0) else { return (T::default(), faults) };
        let value = read_node(right).unwrap_or_else(|error| {
            // What is left can be wrong only together.
            if wrong.is_empty() {
                faults.push(self.explain(&error));
            }
            T::default()
        });
        (value, faults)
    }

    fn explain(&self, error: &Error) -> Fault {
        let (wrong, advice) = explain(error.message());
        Fault { advice, ..self.fault(span_of(error), wrong) }
    }
}

fn span_of(error: &Error) -> Range<usize> {
    error.span().unwrap_or(0..0)
}

fn read_node<T: DeserializeOwned>(node: Node<'_>) -> Result<T, Error> {
    let span = node.span();
    match node.into_inner() {
        DeValue::Table(table) => T::deserialize(Deserializer::from(Spanned::new(span, table))),
        _ => T::deserialize(Deserializer::from(Spanned::new(span, DeTable::new()))),
    }
}

/// Whether an array holds tables only, as `[[step]]` does: such an array is looked into.
fn is_tables(array: &DeArray<'_>) -> bool {
    !array.is_empty() && array.iter().all(|element| element.get_ref().is_table())
}

/// Returns one copy of `node` for each of its leaves, holding that leaf and nothing else.
fn leaves<'i>(node: &Node<'i>) -> Vec<Node<'i>> {
    let span = node.span();
    match node.get_ref() {
        DeValue::Table(table) if !table.is_empty() => table
            .iter()
            .flat_map(|(key, value)| leaves(value).into_iter().map(|leaf| (key.clone(), leaf)))
            .map(|pair| Spanned::new(span.clone(), DeValue::Table(DeTable::from_iter([pair]))))
            .collect(),
        DeValue::Array(array) if !array.is_empty() => array
            .iter()
            .flat_map(leaves)
            .map(|leaf| Spanned::new(span.clone(), DeValue::Array(DeArray::from_iter([leaf]))))
            .collect(),
        _ => vec![node.clone()],
    }
}

/// Returns `node` without the leaves whose numbers (in the order of [`leaves`]) are in `wrong`;
/// `None` when nothing of it may stay.
fn without<'i>(node: &Node<'i>, wrong: &HashSet<usize>, next: &mut usize) -> Option<Node<'i>> {
    let value = match node.get_ref() {
        DeValue::Table(table) if !table.is_empty() => {
            let mut kept = DeTable::new();
            for (key, value) in table {
                if let Some(value) = without(value, wrong, next) {
                    kept.insert(key.clone(), value);
                }
            }
            DeValue::Table(kept)
        }
        DeValue::Array(array) if is_tables(array) => {
            // An element stays even when nothing of it does: others are told apart by position.
            let kept = |element| without(element, wrong, next).unwrap_or_else(|| Node::clone(element));
            DeValue::Array(array.iter().map(kept).collect())
        }
        _ => {
            let first = *next;
            *next += leaves(node).len();
            return (first..*next).all(|number| !wrong.contains(&number)).then(|| node.clone());
        }
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
