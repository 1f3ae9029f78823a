//! Finds the names that a template's code mentions, and where.
//!
//! Understands just enough to tell a variable from a filter, a test and an attribute; whether the
//! code means anything is for the template engine.

use std::ops::Range;

/// A name in a template's code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Name<'t> {
    pub(super) role: Role,
    pub(super) text: &'t str,
    pub(super) range: Range<usize>,
}

/// What a [`Name`] names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// A variable, a function, a keyword, or the name of an argument.
    Variable,
    /// The first word of a `{% block %}`.
    Statement,
    /// What follows a dot.
    Attribute,
    /// What follows `|`.
    Filter,
    /// What follows `is`.
    Test,
}

/// Returns the names in a template.
pub(super) fn names(template: &str) -> Vec<Name<'_>> {
    let mut names = Vec::new();
    let mut at = 0;
    while let Some(open) = template[at..].find('{') {
        let inside = at + open + 1;
        at = match template.as_bytes().get(inside) {
            Some(b'#') => template[inside..].find("#}").map_or(template.len(), |end| inside + end + 2),
            Some(b'{') => Code::new(template, inside + 1, "}}").read(&mut names),
            Some(b'%') => {
                let first = names.len();
                let end = Code::new(template, inside + 1, "%}").read(&mut names);
                block(template, &mut names, first, end)
            }
            _ => inside,
        };
    }
    names
}

/// Returns the names in an expression.
pub(super) fn names_of_expression(expression: &str) -> Vec<Name<'_>> {
    let mut names = Vec::new();
    Code::new(expression, 0, "").read(&mut names);
    names
}

/// Sees to the two blocks whose first word changes what follows; returns where to read on.
fn block(template: &str, names: &mut Vec<Name<'_>>, first: usize, end: usize) -> usize {
    let Some(statement) = names.get_mut(first) else { return end };
    statement.role = Role::Statement;
    match statement.text {
        "filter" => {
            if let Some(name) = names.get_mut(first + 1) {
                name.role = Role::Filter;
            }
            end
        }
        "raw" => template[end..].find("endraw").map_or(template.len(), |at| end + at),
        _ => end,
    }
}

/// A stretch of code, read from `at` until `close`.
struct Code<'t> {
    text: &'t str,
    at: usize,
    close: &'static str,
    nesting: usize,
}

impl<'t> Code<'t> {
    fn new(text: &'t str, at: usize, close: &'static str) -> Self {
        Self { text, at, close, nesting: 0 }
    }

    /// Adds the names and returns where the code ends.
    fn read(mut self, names: &mut Vec<Name<'t>>) -> usize {
        let mut before = Role::Variable;
        while let Some(character) = self.text[self.at..].chars().next() {
            if self.nesting == 0 && !self.close.is_empty() && self.text[self.at..].starts_with(self.close) {
                return self.at + self.close.len();
            }
            if character == '_' || character.is_ascii_alphabetic() {
                let name = self.name(before);
                before = match (name.role, name.text, before) {
                    (Role::Variable, "is", _) | (Role::Test, "not", Role::Test) => Role::Test,
                    _ => Role::Variable,
                };
                // `is not odd`: the word between is none.
                if !(name.role == Role::Test && name.text == "not") {
                    names.push(name);
                }
                continue;
            }
            before = match character {
                '.' => Role::Attribute,
                '|' => Role::Filter,
                space if space.is_whitespace() => before,
                _ => Role::Variable,
            };
            self.step(character);
        }
        self.at
    }

    fn name(&mut self, role: Role) -> Name<'t> {
        let rest = &self.text[self.at..];
        let length =
            rest.find(|next: char| next != '_' && !next.is_ascii_alphanumeric()).unwrap_or(rest.len());
        let range = self.at..self.at + length;
        self.at = range.end;
        Name { role, text: &self.text[range.clone()], range }
    }

    fn step(&mut self, character: char) {
        match character {
            '(' | '[' | '{' => self.nesting += 1,
            ')' | ']' | '}' => self.nesting = self.nesting.saturating_sub(1),
            '"' | '\'' => return self.string(character),
            // So that the `e5` of `1e5` is no name.
            digit if digit.is_ascii_digit() => {
                let rest = &self.text[self.at..];
                let end = rest.find(|next: char| next != '_' && !next.is_ascii_alphanumeric());
                self.at += end.unwrap_or(rest.len());
                return;
            }
            _ => {}
        }
        self.at += character.len_utf8();
    }

    fn string(&mut self, quote: char) {
        let mut escaped = false;
        for (at, character) in self.text[self.at..].char_indices().skip(1) {
            match character {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                end if end == quote => {
                    self.at += at + 1;
                    return;
                }
                _ => {}
            }
        }
        self.at = self.text.len();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(template: &str) -> Vec<(Role, &str)> {
        names(template).into_iter().map(|name| (name.role, name.text)).collect()
    }

    #[test]
    fn names_are_told_apart_by_what_stands_before_them() {
        use Role::{Attribute, Filter, Statement, Test, Variable};
        assert_eq!(
            read("text item {{ item.a | default('x }} y') }} {# item #} {% if b is not odd %}{% endif %}"),
            [
                (Variable, "item"),
                (Attribute, "a"),
                (Filter, "default"),
                (Statement, "if"),
                (Variable, "b"),
                (Variable, "is"),
                (Test, "odd"),
                (Statement, "endif")
            ]
        );
        assert_eq!(
            read("{% filter upper|trim %}{% raw %}{{ no }}{% endraw %}{{ {'a': {}} ~ z }}"),
            [(Statement, "filter"), (Filter, "upper"), (Filter, "trim"), (Statement, "raw"), (Variable, "z")]
        );
    }

    #[test]
    fn a_name_knows_its_place() {
        let found = names_of_expression("1e5 > item.size");
        assert_eq!(found[0].range, 6..10);
        assert_eq!((found[1].role, found[1].range.clone()), (Role::Attribute, 11..15));
    }

    proptest! {
        #[test]
        fn any_text_can_be_read(text in "[ {}%#|.'\"a-zé0-9\\\\()]{0,40}") {
            for name in names(&text).into_iter().chain(names_of_expression(&text)) {
                prop_assert_eq!(text.get(name.range), Some(name.text));
            }
        }
    }
}
