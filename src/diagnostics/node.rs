//! The tree of a TOML document as its parser returns it, and the positions in it.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeArray, DeString, DeValue, Error};

/// A value and its position.
pub(super) type Node<'i> = Spanned<DeValue<'i>>;

/// A key and its position.
pub(super) type Key<'i> = Spanned<DeString<'i>>;

/// Child positions from the root to a node.
pub(super) type Path = Vec<usize>;

/// Returns whether an array contains only tables, as `[[step]]` does. The elements of such an array are searched
/// one by one.
pub(super) fn is_tables(array: &DeArray<'_>) -> bool {
    !array.is_empty() && array.iter().all(|element| element.get_ref().is_table())
}

/// Returns the children of `node`, each with its key if `node` is a table.
pub(super) fn children<'n, 'i>(node: &'n Node<'i>) -> Vec<(Option<&'n Key<'i>>, &'n Node<'i>)> {
    match node.get_ref() {
        DeValue::Table(table) => table.iter().map(|(key, value)| (Some(key), value)).collect(),
        DeValue::Array(array) => array.iter().map(|value| (None, value)).collect(),
        _ => Vec::new(),
    }
}

/// Returns the position of an error; the start of the document if it has none.
pub(super) fn span_of(error: &Error) -> Range<usize> {
    error.span().unwrap_or(0..0)
}
