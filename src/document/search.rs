//! Finds what is wrong in a text that does not read whole, and asks serde what could stand there.
//!
//! Asking means to read something that cannot be right and to look at what was wanted instead: so no
//! list of keys or words is kept beside the types.

use std::collections::HashSet;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeArray, DeString, DeTable, DeValue, Error};

use super::read::span_of;
use super::words::{About, unknown, wants_a_table, wants_a_word};

type Node<'i> = Spanned<DeValue<'i>>;
type Key<'i> = Spanned<DeString<'i>>;

/// Positions from the root down.
pub(super) type Path = Vec<usize>;

/// What nobody calls anything.
const NOBODY: &str = "\u{1}";

/// Whether an array holds tables only, as `[[step]]` does: such an array is looked into.
pub(super) fn is_tables(array: &DeArray<'_>) -> bool {
    !array.is_empty() && array.iter().all(|element| element.get_ref().is_table())
}

/// Returns what `node` holds, each with its key if it is a table.
pub(super) fn children<'n, 'i>(node: &'n Node<'i>) -> Vec<(Option<&'n Key<'i>>, &'n Node<'i>)> {
    match node.get_ref() {
        DeValue::Table(table) => table.iter().map(|(key, value)| (Some(key), value)).collect(),
        DeValue::Array(array) => array.iter().map(|value| (None, value)).collect(),
        _ => Vec::new(),
    }
}

/// Finds the smallest parts of a text that are wrong each for itself: a part that reads well alone,
/// with nothing beside it but the tables that it stands in, is not looked into.
pub(super) struct Search<'i, R> {
    read: R,
    /// The span of each table or list above, and under which key of it the search is.
    above: Vec<(Range<usize>, Option<Key<'i>>)>,
    path: Path,
}

impl<'i, T, R: Fn(Node<'i>) -> Result<T, Error>> Search<'i, R> {
    pub(super) fn new(read: R) -> Self {
        Self { read, above: Vec::new(), path: Vec::new() }
    }

    /// Finds every part that is wrong, with its error.
    pub(super) fn find(&mut self, root: &Node<'i>) -> Vec<(Path, Error)> {
        // serde takes the elements of a list for the keys of a table, in their order, and a date for a
        // table of one key: nobody means that.
        let mut lists = HashSet::new();
        self.lists(root, &mut lists);
        let found = self.run(&without_lists(root, &mut Vec::new(), &lists));
        self.above.clear();
        self.path.clear();
        found
    }

    fn run(&mut self, node: &Node<'i>) -> Vec<(Path, Error)> {
        let Err(error) = (self.read)(self.alone(node)) else { return Vec::new() };
        let mut found = Vec::new();
        // An error of the whole is found when all of its parts have been read: they are right.
        let is_whole = span_of(&error) == node.span();
        let parts = if is_whole || self.takes_a_word(node) { Vec::new() } else { children(node) };
        for (position, (key, child)) in parts.into_iter().enumerate() {
            self.above.push((node.span(), key.cloned()));
            self.path.push(position);
            let inside = self.run(child);
            found.extend(inside.into_iter().filter(|(_, error)| !self.is_of_solitude(error)));
            self.path.pop();
            self.above.pop();
        }
        if found.is_empty() {
            // The key of a table where a word should be is not what is wrong.
            let instead = self.takes_a_word(node).then(|| self.ask(node, DeValue::Boolean(true)));
            found.push((self.path.clone(), instead.flatten().unwrap_or(error)));
        }
        found
    }

    /// Returns a copy of `node` within what is above it, and nothing else.
    fn alone(&self, node: &Node<'i>) -> Node<'i> {
        self.above.iter().rev().fold(node.clone(), |inner, (span, key)| {
            let outer = match key {
                Some(key) => DeValue::Table(DeTable::from_iter([(key.clone(), inner)])),
                None => DeValue::Array(DeArray::from_iter([inner])),
            };
            Spanned::new(span.clone(), outer)
        })
    }

    /// Whether an error is about what stands above: then it comes from what [`Self::alone`] took away.
    fn is_of_solitude(&self, error: &Error) -> bool {
        self.above.iter().any(|(span, _)| *span == span_of(error))
    }

    /// Reads `value` in place of `node`; `None` when it is right.
    fn ask(&self, node: &Node<'i>, value: DeValue<'i>) -> Option<Error> {
        (self.read)(self.alone(&Spanned::new(node.span(), value))).err()
    }

    /// Whether a table stands where one word of a list should.
    fn takes_a_word(&self, node: &Node<'i>) -> bool {
        let says = |error: Error| wants_a_word(error.message());
        node.get_ref().is_table() && self.ask(node, DeValue::Boolean(true)).is_some_and(says)
    }

    /// Collects the lists that stand where a table should, and the dates: those read as tables, too.
    fn lists(&mut self, node: &Node<'i>, found: &mut HashSet<Path>) {
        if node.get_ref().is_array() || node.get_ref().is_datetime() {
            let wants_table = |error: Error| span_of(&error) == node.span() && wants_a_table(error.message());
            if self.ask(node, DeValue::Boolean(true)).is_some_and(wants_table) {
                found.insert(self.path.clone());
                return;
            }
        }
        for (position, (key, child)) in children(node).into_iter().enumerate() {
            self.above.push((node.span(), key.cloned()));
            self.path.push(position);
            self.lists(child, found);
            self.path.pop();
            self.above.pop();
        }
    }

    /// Returns what can be told of the place at `path` of `root`, where `error` was found.
    pub(super) fn about<'n>(&mut self, root: &'n Node<'i>, path: &[usize], error: &Error) -> About<'n> {
        self.above.clear();
        let mut node = root;
        for position in path {
            let Some((key, child)) = children(node).into_iter().nth(*position) else { break };
            self.above.push((node.span(), key.cloned()));
            node = child;
        }
        let key = self.above.last().and_then(|(_, key)| key.as_ref()).map(|key| key.get_ref().to_string());
        let is_here = span_of(error) == node.span();
        let value = is_here.then(|| node.get_ref());
        let known = if is_here { self.known(node) } else { Vec::new() };
        let home = match unknown(error.message()) {
            Some(("key", key, siblings)) => self.home(root, path, key, &siblings),
            _ => None,
        };
        About { key, value, known, home }
    }

    /// Returns the words, or the keys, that can stand where `node` does.
    fn known(&self, node: &Node<'i>) -> Vec<String> {
        let table = || {
            let key = Spanned::new(node.span(), NOBODY.into());
            DeValue::Table(DeTable::from_iter([(key, Spanned::new(node.span(), DeValue::Boolean(true)))]))
        };
        let errors = [self.ask(node, DeValue::String(NOBODY.into())), self.ask(node, table())];
        let known = |error: &Error| {
            let (_, name, known) = unknown(error.message())?;
            (name == NOBODY).then(|| known.into_iter().map(str::to_owned).collect())
        };
        errors.iter().flatten().find_map(known).unwrap_or_default()
    }

    /// Returns the heading of the table nearby where `wrong` is a key: above the one at `path`, in which it
    /// was written, or below that.
    fn home(&mut self, root: &Node<'i>, path: &[usize], wrong: &str, siblings: &[&str]) -> Option<String> {
        let knows = |search: &Self, node: &Node<'i>| search.known(node).iter().any(|key| key == wrong);
        let mut steps: Vec<String> = Vec::new();
        let mut above = Vec::new();
        let mut node = root;
        self.above.clear();
        for position in path {
            if knows(self, node) {
                above.push(steps.join("."));
            }
            let (key, child) = children(node).into_iter().nth(*position)?;
            steps.push(key?.get_ref().to_string());
            self.above.push((node.span(), key.cloned()));
            node = child;
        }
        // Now at the wrong key itself: its siblings are asked in its place.
        let (span, key) = self.above.pop()?;
        steps.pop();
        let parent = path.split_last().and_then(|(_, path)| at(root, path))?;
        let written = children(parent).into_iter().filter_map(|(key, child)| Some((key?.clone(), child)));
        let mut rooms: Vec<(Vec<Key<'i>>, &Node<'i>)> = Vec::new();
        for (key, child) in written {
            let inner = children(child).into_iter().filter(|(_, inner)| inner.get_ref().is_table());
            rooms.extend(inner.filter_map(|(inner, node)| Some((vec![key.clone(), inner?.clone()], node))));
        }
        let unwritten = siblings.iter().filter(|sibling| **sibling != wrong);
        let place = key.map(|key| key.span()).unwrap_or_default();
        let named = |name: &&str| (vec![Spanned::new(place.clone(), (*name).to_owned().into())], node);
        let rooms: Vec<_> = unwritten.map(named).chain(rooms).collect();
        for (keys, node) in rooms {
            let depth = self.above.len();
            self.above.extend(keys.iter().map(|key| (span.clone(), Some(key.clone()))));
            let is_home = knows(self, node);
            self.above.truncate(depth);
            if is_home {
                let inner = keys.iter().map(|key| key.get_ref().to_string());
                return Some(steps.iter().cloned().chain(inner).collect::<Vec<_>>().join("."));
            }
        }
        above.pop().filter(|heading| !heading.is_empty())
    }
}

fn at<'n, 'i>(root: &'n Node<'i>, path: &[usize]) -> Option<&'n Node<'i>> {
    path.iter()
        .try_fold(root, |node, position| children(node).into_iter().nth(*position).map(|(_, child)| child))
}

/// Returns `node` with something that is no table in place of the `lists`.
fn without_lists<'i>(node: &Node<'i>, path: &mut Path, lists: &HashSet<Path>) -> Node<'i> {
    if lists.contains(path) {
        return Spanned::new(node.span(), DeValue::Boolean(true));
    }
    let mut kept = Vec::new();
    for (position, (key, child)) in children(node).into_iter().enumerate() {
        path.push(position);
        kept.push((key, without_lists(child, path, lists)));
        path.pop();
    }
    let value = match node.get_ref() {
        DeValue::Table(_) => {
            DeValue::Table(kept.into_iter().filter_map(|(key, child)| Some((key?.clone(), child))).collect())
        }
        DeValue::Array(_) => DeValue::Array(kept.into_iter().map(|(_, child)| child).collect()),
        other => other.clone(),
    };
    Spanned::new(node.span(), value)
}
