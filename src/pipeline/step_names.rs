//! Names of steps, by which templates reference their answers.

use std::collections::HashMap;

use crate::types::StepName;

use super::raw::RawStep;
use super::source_diagnostics::SourceDiagnostics;

/// Names that have another meaning in templates.
const RESERVED: [&str; 22] = [
    "item",
    "true",
    "false",
    "none",
    "True",
    "False",
    "None",
    "and",
    "or",
    "not",
    "in",
    "is",
    "if",
    "else",
    "loop",
    "self",
    "range",
    "dict",
    "namespace",
    "debug",
    "varargs",
    "kwargs",
];

/// Returns the names of the steps, and reports missing, invalid and repeated names.
pub(super) fn step_names(steps: &[RawStep], diagnostics: &mut SourceDiagnostics<'_>) -> Vec<StepName> {
    let mut seen: HashMap<&str, usize> = HashMap::new();
    for (index, step) in steps.iter().enumerate() {
        let Some(name) = step.name.as_deref() else {
            if !diagnostics.is_written(&["step", &index.to_string(), "name"]) {
                let message = format!("step {} has no name", index + 1);
                diagnostics.push_at_step(
                    index,
                    &["name"],
                    message,
                    "add name = \"..\"; templates reference its answer by this name",
                );
            }
            continue;
        };
        if let Some(help) = invalid_name_help(name) {
            diagnostics.push_at_step(index, &["name"], format!("a step cannot be called {name:?}"), help);
        } else if let Some(first) = seen.get(name) {
            let message = format!("step {} is called `{name}` like step {}", index + 1, first + 1);
            diagnostics.push_at_step(index, &["name"], message, "give each step a different name");
        } else {
            seen.insert(name, index);
        }
    }
    let name_or_placeholder = |(index, step): (usize, &RawStep)| match &step.name {
        Some(name) => StepName::from(name.as_str()),
        // A placeholder that no template can reference, because it is not an identifier.
        None => StepName::from(format!("step {}", index + 1)),
    };
    steps.iter().enumerate().map(name_or_placeholder).collect()
}

/// Returns help for a step name that is invalid.
fn invalid_name_help(name: &str) -> Option<&'static str> {
    let is_word = name.chars().all(|letter| letter == '_' || letter.is_ascii_alphanumeric());
    if !is_word || name.starts_with(|first: char| first.is_ascii_digit()) || name.is_empty() {
        return Some(
            "use letters, digits and `_`, and no digit first: templates reference its answer by this name",
        );
    }
    RESERVED.contains(&name).then_some("the word has another meaning in templates; choose another name")
}
