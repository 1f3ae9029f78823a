//! Static information about the symbols of templates, the symbols that a template references, and compile errors.

use std::collections::BTreeMap;
use std::ops::Range;

use minijinja::Error;

use super::values::Kind;

/// Static information about the symbols that templates can use.
pub(super) trait SymbolInfo {
    /// Returns whether a step has this name.
    fn is_step(&self, name: &str) -> bool;

    /// Returns the type of the value at a path such as `item.amount`, if it is the same for every item.
    fn kind(&self, path: &[&str]) -> Option<Kind>;
}

/// No information.
#[cfg(test)]
pub(super) struct NoSymbols;

#[cfg(test)]
impl SymbolInfo for NoSymbols {
    fn is_step(&self, _: &str) -> bool {
        false
    }

    fn kind(&self, _: &[&str]) -> Option<Kind> {
        None
    }
}

/// The symbols that a template references, each with its first position in the source.
#[derive(Debug, Default)]
pub(super) struct References {
    /// Variables that the template does not define itself.
    pub(super) variables: BTreeMap<String, Range<usize>>,
    /// Paths like `item.sender.name`.
    pub(super) paths: BTreeMap<String, Range<usize>>,
}

/// An error in a template, and its position in the source.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct CompileError {
    pub(super) message: String,
    pub(super) range: Option<Range<usize>>,
}

impl CompileError {
    pub(super) fn of(error: &Error) -> Self {
        let message = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
        Self { message, range: error.range() }
    }
}
