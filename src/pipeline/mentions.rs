//! Holds the names that a template mentions against those that exist.
//!
//! Judges only what is certain before any item is seen: a field is unknown when a schema forbids it.

use std::collections::HashMap;

use crate::document::{Faults, nearest};
use crate::types::StepName;

use super::check::Check;
use super::compile::Source;
use super::facts::{Facts, Mentions};
use super::load::{Loader, listed};
use super::schema::Schema;
use super::template::FUNCTIONS;
use super::values::Kind;

/// Every name that a template may mention.
pub(super) struct Known<'k> {
    names: &'k [StepName],
    places: HashMap<&'k str, usize>,
    schemas: HashMap<&'k str, &'k Schema>,
    checks: &'k [Check],
    /// Whether every field of an item is a text, as from CSV.
    item_is_text: bool,
}

impl<'k> Known<'k> {
    pub(super) fn new(
        names: &'k [StepName],
        checks: &'k [Check],
        input: Option<&'k Schema>,
        item_is_text: bool,
    ) -> Self {
        let mut places = HashMap::new();
        let mut schemas = HashMap::new();
        for (at, (name, check)) in names.iter().zip(checks).enumerate() {
            places.entry(name.as_str()).or_insert(at);
            if let Check::Json(schema) = check {
                schemas.entry(name.as_str()).or_insert(schema);
            }
        }
        if let Some(input) = input {
            schemas.insert("item", input);
        }
        Self { names, places, schemas, checks, item_is_text }
    }

    /// Returns the place of a step.
    pub(super) fn step(&self, name: &str) -> Option<usize> {
        self.places.get(name).copied()
    }

    /// Returns the steps that are mentioned.
    pub(super) fn steps_in<'m>(&'m self, mentions: &'m Mentions) -> impl Iterator<Item = &'m str> {
        mentions
            .variables
            .keys()
            .map(String::as_str)
            .filter(|name| *name != "item" && self.step(name).is_some())
    }

    /// Says what was probably meant, or what there is.
    pub(super) fn advice(&self, wrong: &str, with_item: bool) -> String {
        let is_first = |(at, name): &(usize, &str)| self.is_nameable(name) && self.step(name) == Some(*at);
        let steps =
            self.names.iter().map(StepName::as_str).enumerate().filter(is_first).map(|(_, name)| name);
        let known: Vec<&str> = with_item.then_some("item").into_iter().chain(steps).collect();
        match nearest(wrong, known.iter().copied()) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => format!("known here: {}", listed(known.into_iter())),
        }
    }

    /// A step without a name has a stand-in that is no word.
    fn is_nameable(&self, name: &str) -> bool {
        !name.contains(' ')
    }

    /// Finds mentioned names that do not exist.
    pub(super) fn faults(&self, loader: &Loader<'_>, source: &Source<'_>, mentions: &Mentions) -> Faults {
        let mut faults = Faults::default();
        for (name, range) in &mentions.variables {
            if name == "item" || self.step(name).is_some() || FUNCTIONS.contains(&name.as_str()) {
                continue;
            }
            let fault = loader.fault_in(source, Some(range.clone()), format!("unknown name `{name}`"));
            faults.push(fault.advise(self.advice(name, true)));
        }
        for (path, range) in &mentions.paths {
            let keys: Vec<&str> = path.split('.').collect();
            let Some((first, rest)) = keys.split_first() else { continue };
            let Some((unknown, known)) = self.schemas.get(first).and_then(|schema| schema.unknown(rest))
            else {
                continue;
            };
            let message = format!("`{path}` cannot exist: the schema of `{first}` has no `{unknown}`");
            let fault = loader.fault_in(source, Some(range.clone()), message);
            faults.push(fault.advise(match nearest(unknown, known.iter().copied()) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => format!("it has {}", listed(known.into_iter())),
            }));
        }
        faults
    }
}

impl Facts for Known<'_> {
    fn is_step(&self, name: &str) -> bool {
        self.step(name).is_some()
    }

    fn kind(&self, path: &[&str]) -> Option<Kind> {
        let (first, rest) = path.split_first()?;
        if *first == "item" && self.item_is_text && rest.len() == 1 {
            return Some(Kind::Text);
        }
        if let Some(schema) = self.schemas.get(first) {
            return schema.kind(rest);
        }
        let step = self.step(first)?;
        let is_text = matches!(self.checks.get(step)?, Check::Text | Check::Choice(_));
        (is_text && rest.is_empty()).then_some(Kind::Text)
    }
}
