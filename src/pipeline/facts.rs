//! What is known about a pipeline's templates before any item is seen, and what a template's source tells.

use std::collections::BTreeMap;
use std::ops::Range;

use minijinja::Error;

use super::values::Kind;

/// What is known about a pipeline before any item is.
pub(super) trait Facts {
    /// Returns whether a step is called so.
    fn is_step(&self, name: &str) -> bool;

    /// Returns what kind of value a path such as `item.amount` has for every item, where that is certain.
    fn kind(&self, path: &[&str]) -> Option<Kind>;
}

/// Knows nothing.
#[cfg(test)]
pub(super) struct NoFacts;

#[cfg(test)]
impl Facts for NoFacts {
    fn is_step(&self, _: &str) -> bool {
        false
    }

    fn kind(&self, _: &[&str]) -> Option<Kind> {
        None
    }
}

/// What a template's source says, found while it was compiled; each with its first place.
#[derive(Debug, Default)]
pub(super) struct Mentions {
    /// Variables that the template does not set itself.
    pub(super) variables: BTreeMap<String, Range<usize>>,
    /// Paths like `item.sender.name`.
    pub(super) paths: BTreeMap<String, Range<usize>>,
}

/// Why a template does not compile, and where in its source.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Flaw {
    pub(super) message: String,
    pub(super) range: Option<Range<usize>>,
}

impl Flaw {
    pub(super) fn of(error: &Error) -> Self {
        let message = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
        Self { message, range: error.range() }
    }
}
