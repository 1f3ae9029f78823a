//! Where the keys of a configuration are written, to show the source of each value. Contains no values.

use std::collections::{HashMap, HashSet};

use crate::diagnostics::Spans;

/// Where the keys of a configuration are written. It also has the environment variables that stand for keys.
#[derive(Debug, Clone, Default)]
pub(super) struct WrittenKeys {
    lines: HashMap<Vec<String>, Written>,
    variables: HashMap<Vec<String>, String>,
    options: HashSet<Vec<String>>,
    is_generated: bool,
}

#[derive(Debug, Clone, Copy)]
struct Written {
    /// From 1.
    line: usize,
    is_table: bool,
}

/// What set a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum KeyOrigin<'w> {
    /// A line of the text, from 1.
    Line(usize),
    /// An environment variable.
    Variable(&'w str),
    /// An option of the command line.
    CommandLine,
    /// The program that built the configuration.
    Program,
}

impl WrittenKeys {
    /// Reads the positions of all keys.
    pub(super) fn of(spans: &Spans<'_>) -> Self {
        let text = spans.text();
        let line_ends: Vec<usize> = text.match_indices('\n').map(|(at, _)| at).collect();
        let mut lines: HashMap<Vec<String>, Written> = HashMap::new();
        for key in spans.keys() {
            let line = line_ends.partition_point(|end| *end < key.span.start) + 1;
            lines.insert(key.path.clone(), Written { line, is_table: false });
        }
        for key in spans.keys() {
            for end in 1..key.path.len() {
                if let Some(parent) = lines.get_mut(&key.path[..end]) {
                    parent.is_table = true;
                }
            }
        }
        Self { lines, variables: HashMap::new(), options: HashSet::new(), is_generated: false }
    }

    /// Marks the text as written by a program: its lines mean nothing to a user.
    pub(super) fn set_generated(&mut self) {
        self.is_generated = true;
    }

    /// Adds keys that environment variables set.
    pub(super) fn add_variables(&mut self, variables: impl IntoIterator<Item = (Vec<String>, String)>) {
        self.variables.extend(variables);
    }

    /// Adds a key that an option of the command line sets.
    pub(super) fn add_option(&mut self, path: Vec<String>) {
        self.options.insert(path);
    }

    /// Returns what set the value at `path`: the key itself, or one above it whose value is not a table, as in
    /// `concurrency = 4`. `None` if it is a default.
    pub(super) fn origin(&self, path: &[String]) -> Option<KeyOrigin<'_>> {
        if self.options.contains(path) {
            return Some(KeyOrigin::CommandLine);
        }
        if let Some(variable) = self.variables.get(path) {
            return Some(KeyOrigin::Variable(variable));
        }
        let exact = self.lines.get(path);
        let above = || (1..path.len()).rev().find_map(|end| self.lines.get(&path[..end]));
        let written = exact.or_else(|| above().filter(|written| !written.is_table))?;
        Some(if self.is_generated { KeyOrigin::Program } else { KeyOrigin::Line(written.line) })
    }
}

impl PartialEq for WrittenKeys {
    /// Always equal: configurations with equal settings are equal, wherever the settings are written.
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnostics::Document;

    #[test]
    fn a_key_has_the_line_on_which_it_or_its_short_form_is_written() {
        let text = "a = 1\n[b]\nc = 2\n\n[b.d]\ne.f = 3\n";
        let document = Document::parse("c.toml", text).unwrap();
        let mut keys = WrittenKeys::of(&document.spans());
        let path = |text: &str| text.split('.').map(str::to_owned).collect::<Vec<_>>();
        for (key, expected) in [
            ("a", Some(1)),
            ("a.b", Some(1)),
            ("b.c", Some(3)),
            ("b.c.max", Some(3)),
            ("b.x", None),
            ("b.d.x", None),
            ("b.d.e.f", Some(6)),
            ("x", None),
        ] {
            assert_eq!(keys.origin(&path(key)), expected.map(KeyOrigin::Line), "{key}");
        }
        keys.set_generated();
        assert_eq!(keys.origin(&path("a")), Some(KeyOrigin::Program));
        keys.add_variables([(path("p.q"), "KEY".to_owned())]);
        assert_eq!(keys.origin(&path("p.q")), Some(KeyOrigin::Variable("KEY")));
        keys.add_option(path("p.q"));
        assert_eq!(keys.origin(&path("p.q")), Some(KeyOrigin::CommandLine));
    }
}
