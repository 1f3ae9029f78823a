//! Holds the names that a template mentions against those that exist.
//!
//! Judges only what is certain before any item is seen: a field is unknown when a schema forbids it.

use std::collections::HashMap;
use std::ops::Range;

use crate::document::{Fault, Faults, nearest};
use crate::types::StepName;

use super::check::Check;
use super::code::{self, Role};
use super::compile::Source;
use super::load::{Loader, listed};
use super::schema::Schema;
use super::template::{FUNCTIONS, Mentions};

/// Every name that a template may mention.
pub(super) struct Known<'k> {
    names: &'k [StepName],
    places: HashMap<&'k str, usize>,
    schemas: HashMap<&'k str, &'k Schema>,
}

impl<'k> Known<'k> {
    pub(super) fn new(names: &'k [StepName], checks: &'k [Check], input: Option<&'k Schema>) -> Self {
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
        Self { names, places, schemas }
    }

    /// Returns the place of a step.
    pub(super) fn step(&self, name: &str) -> Option<usize> {
        self.places.get(name).copied()
    }

    /// Returns the steps that are mentioned.
    pub(super) fn steps_in<'m>(&'m self, mentions: &'m Mentions) -> impl Iterator<Item = &'m str> {
        mentions
            .variables
            .iter()
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
        for name in &mentions.variables {
            if name == "item" || self.step(name).is_some() || FUNCTIONS.contains(&name.as_str()) {
                continue;
            }
            let fault = loader.fault_at_name(source, &[name], format!("unknown name `{name}`"));
            faults.push(fault.advise(self.advice(name, true)));
        }
        for path in &mentions.paths {
            let keys: Vec<&str> = path.split('.').collect();
            let Some((first, rest)) = keys.split_first() else { continue };
            let Some((unknown, known)) = self.schemas.get(first).and_then(|schema| schema.unknown(rest))
            else {
                continue;
            };
            let message = format!("`{path}` cannot exist: the schema of `{first}` has no `{unknown}`");
            let fault = loader.fault_at_name(source, &keys, message);
            faults.push(fault.advise(match nearest(unknown, known.iter().copied()) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => format!("it has {}", listed(known.into_iter())),
            }));
        }
        faults
    }
}

impl Loader<'_> {
    /// Makes a fault where `keys` (a variable and its attributes) are first mentioned in a template.
    pub(super) fn fault_at_name(&self, source: &Source<'_>, keys: &[&str], message: String) -> Fault {
        self.fault_in(source, place_of(source, keys), message)
    }
}

fn place_of(source: &Source<'_>, keys: &[&str]) -> Option<Range<usize>> {
    let names = match source.is_condition {
        true => code::names_of_expression(source.text),
        false => code::names(source.text),
    };
    let is_it = |window: &&[code::Name<'_>]| {
        let roles = std::iter::once(Role::Variable).chain(std::iter::repeat(Role::Attribute));
        window.iter().zip(keys).zip(roles).all(|((name, key), role)| name.text == *key && name.role == role)
    };
    let found = names.windows(keys.len()).find(is_it)?;
    Some(found.first()?.range.start..found.last()?.range.end)
}
