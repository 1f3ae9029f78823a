//! Keeps the first lines of a run, shortened, so that a program can show them after the run.
//!
//! Bounded: a preview keeps a limited number of lines, and of each answer its beginning.

use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use serde_json::Value;

use crate::sink::{Line, StepLine, StepStatus};
use crate::types::{ItemKey, ItemStatus, StepName};

/// Most characters of a cell that are kept.
const MAX_CELL_CHARACTERS: usize = 400;

/// The first lines of a run.
///
/// ```
/// use pointsman::run::ResultPreview;
///
/// let preview = ResultPreview::new(10);
/// assert!(preview.rows().is_empty());
/// ```
#[derive(Debug, Clone)]
pub struct ResultPreview {
    max_rows: usize,
    rows: Arc<Mutex<Vec<PreviewRow>>>,
}

/// One line of a run, shortened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PreviewRow {
    /// The item's key.
    pub key: ItemKey,
    /// The line of the input on which the item begins, from 1.
    pub line: u64,
    /// How it ended.
    pub status: ItemStatus,
    /// The answer of each step, or why it has none, in the pipeline's order.
    pub steps: Vec<(StepName, String)>,
    /// Why the item failed, if none of its steps says so.
    pub error: Option<String>,
}

impl ResultPreview {
    /// Keeps at most `max_rows` lines.
    pub fn new(max_rows: usize) -> Self {
        Self { max_rows, rows: Arc::default() }
    }

    /// Returns the lines that were kept, in the order of the input.
    pub fn rows(&self) -> Vec<PreviewRow> {
        let mut rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner).clone();
        rows.sort_by_key(|row| row.line);
        rows
    }

    /// Adds a line if there is space.
    pub(super) fn add(&self, line: &Line) {
        let mut rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        if rows.len() < self.max_rows {
            rows.push(PreviewRow::of(line));
        }
    }
}

impl PreviewRow {
    /// Shortens a line.
    pub fn of(line: &Line) -> Self {
        let cell = |(name, step): &(StepName, StepLine)| {
            let answer = line.answers.get(name.as_str()).unwrap_or(&Value::Null);
            (name.clone(), cell_text(step, answer))
        };
        let error = line.error.as_ref().filter(|error| error.step.is_none());
        Self {
            key: line.key.clone(),
            line: line.line,
            status: line.status,
            steps: line.steps.iter().map(cell).collect(),
            error: error.map(|error| shortened(&format!("{}: {}", error.class, error.message))),
        }
    }
}

/// Returns the answer of a step, or why it has none.
fn cell_text(step: &StepLine, answer: &Value) -> String {
    match (step.status, &step.error) {
        (StepStatus::Completed, _) => match answer {
            Value::String(text) => shortened(text),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
                shortened(&answer.to_string())
            }
        },
        (StepStatus::Failed, Some(error)) => shortened(&format!("{}: {}", error.class, error.message)),
        (StepStatus::Failed, None) => "failed".to_owned(),
        (StepStatus::Skipped, _) => "skipped".to_owned(),
        (StepStatus::Unfinished, _) => String::new(),
    }
}

/// Returns the beginning of a text in one line, with single spaces.
fn shortened(text: &str) -> String {
    let mut shown = String::new();
    let mut count = 0;
    for word in text.split_whitespace() {
        if count > 0 {
            shown.push(' ');
            count += 1;
        }
        for character in word.chars() {
            if count >= MAX_CELL_CHARACTERS {
                shown.push('…');
                return shown;
            }
            shown.push(character);
            count += 1;
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::types::AttemptLog;

    fn line(number: u64, answer: &str) -> Line {
        let step = StepName::from("answer");
        let steps = vec![(step, StepLine::completed(&AttemptLog::default(), false))];
        let key = ItemKey::from(format!("i{number}"));
        let mut line = Line::new(key, number, ItemStatus::Completed, Duration::ZERO, steps);
        line.answers.insert("answer".to_owned(), answer.into());
        line
    }

    #[test]
    fn a_preview_keeps_its_number_of_lines_in_the_order_of_the_input() {
        let preview = ResultPreview::new(2);
        [3, 1, 2].into_iter().for_each(|number| preview.add(&line(number, "yes")));
        let lines: Vec<u64> = preview.rows().iter().map(|row| row.line).collect();
        assert_eq!(lines, [1, 3]);
    }

    #[test]
    fn an_answer_of_many_lines_is_one_short_line() {
        let long = format!("one\n\n  two\t{}", "é".repeat(1_000));
        let row = PreviewRow::of(&line(1, &long));
        let shown = &row.steps[0].1;
        assert!(shown.starts_with("one two éé") && shown.ends_with("é…"), "{shown}");
        assert_eq!(shown.chars().count(), MAX_CELL_CHARACTERS + 1);
    }
}
