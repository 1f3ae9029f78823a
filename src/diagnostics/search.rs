//! Finds all errors of a document that cannot be deserialized as a whole, and what serde would accept at their
//! positions.
//!
//! To learn what serde accepts, this file deserializes a value that is never valid, and parses the list of expected
//! keys or values from the error. The types are therefore the only list of them.

use std::collections::HashSet;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue, Error};

use super::diagnostic::MAX_LISTED;
use super::error_context::ErrorContext;
use super::explain::{expects_enum_value, expects_table, parse_unknown};
use super::node::{Key, Node, Path, children, span_of};

/// Most tables in which the place of an unknown key is searched.
const MAX_CANDIDATES: usize = 200;

/// A name that no key and no enum value has.
const UNKNOWN_NAME: &str = "\u{1}";

/// Finds the smallest invalid parts of a document. A part is deserialized in isolation: only with the tables and
/// lists that contain it. The children of a part that is valid in isolation are not searched.
pub(super) struct ErrorSearch<'i, R> {
    read: R,
    /// The span of each ancestor, and the key of its child on the path to the current node.
    ancestors: Vec<(Range<usize>, Option<Key<'i>>)>,
    path: Path,
}

impl<'i, T, R: Fn(Node<'i>) -> Result<T, Error>> ErrorSearch<'i, R> {
    pub(super) fn new(read: R) -> Self {
        Self { read, ancestors: Vec::new(), path: Vec::new() }
    }

    /// Returns the path and the error of every invalid part; of many parts, of more than are listed.
    pub(super) fn find(&mut self, root: &Node<'i>) -> Vec<(Path, Error)> {
        // serde accepts a list in place of a table, and takes its elements as the fields in order. It accepts a
        // date as a table of one key. Neither is intended, so both are replaced by a value that is an error.
        let mut misread = HashSet::new();
        self.collect_misread_nodes(root, &mut misread);
        let found = self.run(&replace_nodes(root, &mut Vec::new(), &misread));
        self.ancestors.clear();
        self.path.clear();
        found
    }

    fn run(&mut self, node: &Node<'i>) -> Vec<(Path, Error)> {
        let Err(error) = (self.read)(self.isolated(node)) else { return Vec::new() };
        let mut found = Vec::new();
        // serde reports an error of the whole node only after all children were deserialized, so the children are
        // valid.
        let is_whole = span_of(&error) == node.span();
        let parts = if is_whole || self.expects_enum_value_at(node) { Vec::new() } else { children(node) };
        for (position, (key, child)) in parts.into_iter().enumerate() {
            if found.len() > MAX_LISTED {
                break;
            }
            self.ancestors.push((node.span(), key.cloned()));
            self.path.push(position);
            let nested = self.run(child);
            found.extend(nested.into_iter().filter(|(_, error)| !self.is_caused_by_isolation(error)));
            self.path.pop();
            self.ancestors.pop();
        }
        if found.is_empty() {
            // If a table stands in place of an enum value, the error is the table and not one of its keys.
            let enum_error =
                self.expects_enum_value_at(node).then(|| self.probe(node, DeValue::Boolean(true)));
            found.push((self.path.clone(), enum_error.flatten().unwrap_or(error)));
        }
        found
    }

    /// Returns a copy of `node` inside copies of its ancestors that contain nothing else.
    fn isolated(&self, node: &Node<'i>) -> Node<'i> {
        self.ancestors.iter().rev().fold(node.clone(), |inner, (span, key)| {
            let outer = match key {
                Some(key) => DeValue::Table(DeTable::from_iter([(key.clone(), inner)])),
                None => DeValue::Array(DeArray::from_iter([inner])),
            };
            Spanned::new(span.clone(), outer)
        })
    }

    /// Returns whether an error is reported at an ancestor. It is then caused by what [`Self::isolated`] left out.
    fn is_caused_by_isolation(&self, error: &Error) -> bool {
        self.ancestors.iter().any(|(span, _)| *span == span_of(error))
    }

    /// Deserializes `value` in place of `node` and returns the error; `None` if it is valid.
    fn probe(&self, node: &Node<'i>, value: DeValue<'i>) -> Option<Error> {
        (self.read)(self.isolated(&Spanned::new(node.span(), value))).err()
    }

    /// Returns whether `node` is a table in place of an enum value.
    fn expects_enum_value_at(&self, node: &Node<'i>) -> bool {
        let is_expected = |error: Error| expects_enum_value(error.message());
        node.get_ref().is_table() && self.probe(node, DeValue::Boolean(true)).is_some_and(is_expected)
    }

    /// Collects the paths of lists and dates in place of a table. serde would accept both as tables.
    fn collect_misread_nodes(&mut self, node: &Node<'i>, found: &mut HashSet<Path>) {
        if node.get_ref().is_array() || node.get_ref().is_datetime() {
            let wants_table = |error: Error| span_of(&error) == node.span() && expects_table(error.message());
            if self.probe(node, DeValue::Boolean(true)).is_some_and(wants_table) {
                found.insert(self.path.clone());
                return;
            }
        }
        for (position, (key, child)) in children(node).into_iter().enumerate() {
            self.ancestors.push((node.span(), key.cloned()));
            self.path.push(position);
            self.collect_misread_nodes(child, found);
            self.path.pop();
            self.ancestors.pop();
        }
    }

    /// Returns what is known about the node at `path` of `root`, where `error` was found.
    pub(super) fn error_context<'n>(
        &mut self,
        root: &'n Node<'i>,
        path: &[usize],
        error: &Error,
    ) -> ErrorContext<'n> {
        self.ancestors.clear();
        let mut node = root;
        for position in path {
            let Some((key, child)) = children(node).into_iter().nth(*position) else { break };
            self.ancestors.push((node.span(), key.cloned()));
            node = child;
        }
        let key =
            self.ancestors.last().and_then(|(_, key)| key.as_ref()).map(|key| key.get_ref().to_string());
        let is_here = span_of(error) == node.span();
        let value = is_here.then(|| node.get_ref());
        let accepted = if is_here { self.accepted_names(node) } else { Vec::new() };
        let accepting_table = match parse_unknown(error.message()) {
            Some(("key", key, siblings)) => self.table_accepting(root, path, key, &siblings),
            _ => None,
        };
        ErrorContext { key, value, accepted, accepting_table }
    }

    /// Returns the enum values, or the keys, that serde accepts in place of `node`.
    fn accepted_names(&self, node: &Node<'i>) -> Vec<String> {
        let table = || {
            let key = Spanned::new(node.span(), UNKNOWN_NAME.into());
            DeValue::Table(DeTable::from_iter([(key, Spanned::new(node.span(), DeValue::Boolean(true)))]))
        };
        let errors = [self.probe(node, DeValue::String(UNKNOWN_NAME.into())), self.probe(node, table())];
        let parse = |error: &Error| {
            let (_, name, accepted) = parse_unknown(error.message())?;
            (name == UNKNOWN_NAME).then(|| accepted.into_iter().map(str::to_owned).collect())
        };
        errors.iter().flatten().find_map(parse).unwrap_or_default()
    }

    /// Returns the header of a nearby table that accepts the key `wrong`: an ancestor of the table at `path` that
    /// contains it, or a table below that.
    fn table_accepting(
        &mut self,
        root: &Node<'i>,
        path: &[usize],
        wrong: &str,
        siblings: &[&str],
    ) -> Option<String> {
        let accepts =
            |search: &Self, node: &Node<'i>| search.accepted_names(node).iter().any(|key| key == wrong);
        let mut steps: Vec<String> = Vec::new();
        let mut accepting = Vec::new();
        let mut node = root;
        self.ancestors.clear();
        for position in path {
            if accepts(self, node) {
                accepting.push(steps.join("."));
            }
            let (key, child) = children(node).into_iter().nth(*position)?;
            steps.push(key?.get_ref().to_string());
            self.ancestors.push((node.span(), key.cloned()));
            node = child;
        }
        // `node` is now the value of the wrong key. Its siblings are probed in its place.
        let (span, key) = self.ancestors.pop()?;
        steps.pop();
        let parent = path.split_last().and_then(|(_, path)| node_at(root, path))?;
        let written = children(parent).into_iter().filter_map(|(key, child)| Some((key?, child)));
        let mut candidates: Vec<(Vec<Key<'i>>, &Node<'i>)> = Vec::new();
        for (key, child) in written {
            let inner = children(child).into_iter().filter(|(_, inner)| inner.get_ref().is_table());
            let inner = inner.take(MAX_CANDIDATES.saturating_sub(candidates.len()));
            candidates
                .extend(inner.filter_map(|(inner, node)| Some((vec![key.clone(), inner?.clone()], node))));
        }
        let absent = siblings.iter().filter(|sibling| **sibling != wrong);
        let key_span = key.map(|key| key.span()).unwrap_or_default();
        let placeholder =
            |name: &&str| (vec![Spanned::new(key_span.clone(), (*name).to_owned().into())], node);
        let candidates: Vec<_> = absent.map(placeholder).chain(candidates).collect();
        for (keys, node) in candidates {
            let depth = self.ancestors.len();
            self.ancestors.extend(keys.iter().map(|key| (span.clone(), Some(key.clone()))));
            let is_accepted = accepts(self, node);
            self.ancestors.truncate(depth);
            if is_accepted {
                let inner = keys.iter().map(|key| key.get_ref().to_string());
                return Some(steps.iter().cloned().chain(inner).collect::<Vec<_>>().join("."));
            }
        }
        accepting.pop().filter(|header| !header.is_empty())
    }
}

fn node_at<'n, 'i>(root: &'n Node<'i>, path: &[usize]) -> Option<&'n Node<'i>> {
    path.iter()
        .try_fold(root, |node, position| children(node).into_iter().nth(*position).map(|(_, child)| child))
}

/// Returns `node` with a boolean in place of each node in `replaced`, which is an error where a table is expected.
fn replace_nodes<'i>(node: &Node<'i>, path: &mut Path, replaced: &HashSet<Path>) -> Node<'i> {
    if replaced.contains(path) {
        return Spanned::new(node.span(), DeValue::Boolean(true));
    }
    let mut replaced_children = Vec::new();
    for (position, (key, child)) in children(node).into_iter().enumerate() {
        path.push(position);
        replaced_children.push((key, replace_nodes(child, path, replaced)));
        path.pop();
    }
    let value = match node.get_ref() {
        DeValue::Table(_) => DeValue::Table(
            replaced_children.into_iter().filter_map(|(key, child)| Some((key?.clone(), child))).collect(),
        ),
        DeValue::Array(_) => DeValue::Array(replaced_children.into_iter().map(|(_, child)| child).collect()),
        other => other.clone(),
    };
    Spanned::new(node.span(), value)
}
