//! Resolves the names that templates reference.
//!
//! Reports only what fails for every item: a field is unknown only if a schema forbids it.

use std::collections::HashMap;
use std::ops::Range;

use crate::diagnostics::nearest;
use crate::types::StepName;

use super::schema::Schema;
use super::starter::field_expression;
use super::symbols::{References, SymbolInfo};
use super::template::FUNCTIONS;
use super::validate::AnswerValidator;
use super::values::Kind;

/// All names that a template may reference.
pub(super) struct SymbolTable<'k> {
    names: &'k [StepName],
    step_indices: HashMap<&'k str, usize>,
    schemas: HashMap<&'k str, &'k Schema>,
    validators: &'k [AnswerValidator],
    /// Whether all fields of an item are texts, as in CSV.
    item_is_text: bool,
}

impl<'k> SymbolTable<'k> {
    pub(super) fn new(
        names: &'k [StepName],
        validators: &'k [AnswerValidator],
        input: Option<&'k Schema>,
        item_is_text: bool,
    ) -> Self {
        let mut step_indices = HashMap::new();
        let mut schemas = HashMap::new();
        for (index, (name, validator)) in names.iter().zip(validators).enumerate() {
            step_indices.entry(name.as_str()).or_insert(index);
            if let AnswerValidator::Json(schema) = validator {
                schemas.entry(name.as_str()).or_insert(schema);
            }
        }
        if let Some(input) = input {
            schemas.insert("item", input);
        }
        Self { names, step_indices, schemas, validators, item_is_text }
    }

    /// Returns the index of a step.
    pub(super) fn step_index(&self, name: &str) -> Option<usize> {
        self.step_indices.get(name).copied()
    }

    /// Returns whether a step has `embed`.
    fn is_embedding(&self, name: &str) -> bool {
        let validator = self.step_index(name).and_then(|index| self.validators.get(index));
        matches!(validator, Some(AnswerValidator::Embedding(_)))
    }

    /// Returns the names of the steps that are referenced.
    pub(super) fn referenced_steps<'r>(
        &'r self,
        references: &'r References,
    ) -> impl Iterator<Item = &'r str> {
        references
            .variables
            .keys()
            .map(String::as_str)
            .filter(|name| *name != "item" && self.step_index(name).is_some())
    }

    /// Returns help for the name of a step that step `own` needs and that does not exist: the similar name, or all valid
    /// names.
    pub(super) fn unknown_step_help(&self, wrong: &str, own: usize) -> String {
        let known: Vec<&str> = self.other_steps(Some(own)).collect();
        match nearest(wrong, known.iter().copied()) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None if known.is_empty() => "the pipeline has no other step".to_owned(),
            None => format!("known here: {}", quoted_list(known.into_iter())),
        }
    }

    /// Returns help for an unknown name in a template of step `own`: the similar name, or how fields are written. A default
    /// template belongs to no step.
    fn unknown_name_help(&self, wrong: &str, own: Option<usize>) -> String {
        let is_field = self.schemas.get("item").is_some_and(|schema| schema.has_property(wrong));
        if is_field {
            return format!("did you mean `{}`?", field_expression(wrong));
        }
        if let Some(meant) = nearest(wrong, ["item"].into_iter().chain(self.other_steps(own))) {
            return format!("did you mean `{meant}`?");
        }
        let known = quoted_list(["item"].into_iter().chain(self.other_steps(own)));
        format!(
            "fields of the item are written item.NAME, such as `{}`; known here: {known}",
            field_expression(wrong)
        )
    }

    /// Returns the names of the steps that templates of step `own` can reference: not its own, because a step cannot wait
    /// for its own answer.
    fn other_steps(&self, own: Option<usize>) -> impl Iterator<Item = &str> {
        let names = self.names.iter().map(StepName::as_str).enumerate();
        let is_meant = move |(index, name): &(usize, &str)| {
            self.is_nameable(name) && self.step_index(name) == Some(*index) && own != Some(*index)
        };
        names.filter(is_meant).map(|(_, name)| name)
    }

    /// Returns whether templates can reference a step of this name. A step without a name has a placeholder with a
    /// space.
    fn is_nameable(&self, name: &str) -> bool {
        !name.contains(' ')
    }

    /// Returns the errors of the names that step `own` references and that do not exist, at most `max`.
    pub(super) fn check_references(
        &self,
        references: &References,
        own: Option<usize>,
        max: usize,
    ) -> Vec<ReferenceError> {
        let mut errors = Vec::new();
        for (name, range) in &references.variables {
            if name == "item" || self.step_index(name).is_some() || FUNCTIONS.contains(&name.as_str()) {
                continue;
            }
            if errors.len() >= max {
                return errors;
            }
            errors.push(ReferenceError {
                range: range.clone(),
                message: format!("unknown name `{name}`"),
                help: self.unknown_name_help(name, own),
            });
        }
        for (path, range) in &references.paths {
            if errors.len() >= max {
                break;
            }
            let keys: Vec<&str> = path.split('.').collect();
            let Some((first, rest)) = keys.split_first() else { continue };
            if !rest.is_empty() && self.is_embedding(first) {
                errors.push(ReferenceError {
                    range: range.clone(),
                    message: format!("`{path}` cannot exist: the answer of `{first}` is a list of numbers"),
                    help: format!("its numbers are `{first}[0]`, `{first}[1]` and so on"),
                });
                continue;
            }
            let Some((unknown, valid)) = self.schemas.get(first).and_then(|schema| schema.unknown_key(rest))
            else {
                continue;
            };
            errors.push(ReferenceError {
                range: range.clone(),
                message: format!("`{path}` cannot exist: the schema of `{first}` has no `{unknown}`"),
                help: match nearest(unknown, valid.iter().copied()) {
                    Some(meant) => format!("did you mean `{meant}`?"),
                    None => format!("it has {}", quoted_list(valid.into_iter())),
                },
            });
        }
        errors
    }
}

/// A name in a template that does not exist, and its position in the template.
pub(super) struct ReferenceError {
    pub(super) range: Range<usize>,
    pub(super) message: String,
    pub(super) help: String,
}

impl SymbolInfo for SymbolTable<'_> {
    fn is_step(&self, name: &str) -> bool {
        self.step_index(name).is_some()
    }

    fn kind(&self, path: &[&str]) -> Option<Kind> {
        let (first, rest) = path.split_first()?;
        if *first == "item" && self.item_is_text && rest.len() == 1 {
            return Some(Kind::Text);
        }
        if let Some(schema) = self.schemas.get(first) {
            return schema.kind(rest);
        }
        let step = self.step_index(first)?;
        let kind = match self.validators.get(step)? {
            AnswerValidator::Text | AnswerValidator::Choice(_) => Kind::Text,
            AnswerValidator::Embedding(_) => Kind::List,
            AnswerValidator::Json(schema) => return schema.kind(rest),
        };
        rest.is_empty().then_some(kind)
    }
}

/// Returns names as a list for a message.
pub(super) fn quoted_list<'n>(names: impl Iterator<Item = &'n str>) -> String {
    names.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}
