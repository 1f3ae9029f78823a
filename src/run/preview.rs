//! Keeps the first lines of a run, shortened, so that a program can show them after the run.
//!
//! Bounded: a preview keeps a limited number of lines, of each answer its beginning, and the beginnings of some fields of
//! the item.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use serde_json::Value;

use crate::sink::{Line, StepLine, StepStatus};
use crate::source::is_content_key;
use crate::types::{ItemKey, ItemStatus, StepName};

/// Most characters of an answer that are kept.
const MAX_ANSWER_CHARACTERS: usize = 400;

/// Most characters of a field that are kept.
const MAX_FIELD_CHARACTERS: usize = 200;

/// Most characters of the name of a field that are kept.
const MAX_NAME_CHARACTERS: usize = 60;

/// Most fields of an item that are kept: six, and one that may be the key.
const MAX_FIELDS: usize = 7;

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
    /// The first fields of the item with their values. Empty if they are not known.
    pub fields: Vec<(String, String)>,
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

    /// Returns whether there is space for another line.
    pub(super) fn has_space(&self) -> bool {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner).len() < self.max_rows
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
            fields: line.item.as_ref().map(fields_of).unwrap_or_default(),
            status: line.status,
            steps: line.steps.iter().map(cell).collect(),
            error: error.map(|error| shortened_answer(&format!("{}: {}", error.class, error.message))),
        }
    }

    /// Returns the key if it is an id of the item; `None` if it is the hash of the item's content.
    pub fn id(&self) -> Option<&ItemKey> {
        Some(&self.key).filter(|key| !is_content_key(key.as_str()))
    }
}

/// Returns the first fields of an item, shortened.
fn fields_of(item: &Value) -> Vec<(String, String)> {
    let fields = item.as_object().into_iter().flatten().take(MAX_FIELDS);
    let fields = fields.map(|(name, value)| {
        let text = match value {
            Value::String(text) => shortened(text, MAX_FIELD_CHARACTERS),
            Value::Null => String::new(),
            Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
                shortened(&json_beginning(value), MAX_FIELD_CHARACTERS)
            }
        };
        (shortened(name, MAX_NAME_CHARACTERS), text)
    });
    fields.collect()
}

/// Returns the beginning of a value as JSON: more than is kept of a field, and not much more.
fn json_beginning(value: &Value) -> String {
    // A character has at most 4 bytes.
    let mut out = Beginning { bytes: Vec::new(), max_bytes: 4 * (MAX_FIELD_CHARACTERS + 1) };
    // The error is that there is no more space.
    let _ = serde_json::to_writer(&mut out, value);
    String::from_utf8_lossy(&out.bytes).into_owned()
}

/// Keeps the beginning of what is written, and refuses the rest.
struct Beginning {
    bytes: Vec<u8>,
    max_bytes: usize,
}

impl io::Write for Beginning {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let space = self.max_bytes - self.bytes.len();
        let kept = &bytes[..bytes.len().min(space)];
        self.bytes.extend_from_slice(kept);
        // No byte written is an error for the caller.
        Ok(kept.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Returns the answer of a step, or why it has none.
fn cell_text(step: &StepLine, answer: &Value) -> String {
    match (step.status, &step.error) {
        (StepStatus::Completed, _) => match answer {
            Value::String(text) => shortened_answer(text),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
                shortened_answer(&answer.to_string())
            }
        },
        (StepStatus::Failed, Some(error)) => shortened_answer(&format!("{}: {}", error.class, error.message)),
        (StepStatus::Failed, None) => "failed".to_owned(),
        (StepStatus::Skipped, _) => "skipped".to_owned(),
        (StepStatus::Unfinished, _) => String::new(),
    }
}

fn shortened_answer(text: &str) -> String {
    shortened(text, MAX_ANSWER_CHARACTERS)
}

/// Returns the beginning of a text in one line, with single spaces.
fn shortened(text: &str, max_characters: usize) -> String {
    let mut shown = String::new();
    let mut count = 0;
    for word in text.split_whitespace() {
        if count > 0 {
            shown.push(' ');
            count += 1;
        }
        for character in word.chars() {
            if count >= max_characters {
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

    use serde_json::json;

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
        assert_eq!(shown.chars().count(), MAX_ANSWER_CHARACTERS + 1);
    }

    #[test]
    fn a_row_keeps_the_beginnings_of_the_first_fields_and_no_hash_as_an_id() {
        let mut line = line(1, "yes");
        assert_eq!(PreviewRow::of(&line).id().map(ItemKey::as_str), Some("i1"));
        let mut item = json!({ "id": "i1", "text": format!("a\n b{}", "é".repeat(1_000)) });
        item["none"] = Value::Null;
        item["list"] = json!(vec![["請", "\\\""]; 100_000]);
        item["number"] = json!(1.5);
        (0..1_000).for_each(|number| item[format!("f{number}")] = number.into());
        line.item = Some(item);
        let row = PreviewRow::of(&line);
        let names: Vec<&str> = row.fields.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["id", "text", "none", "list", "number", "f0", "f1"]);
        let texts: Vec<&str> = row.fields.iter().skip(1).map(|(_, text)| text.as_str()).collect();
        assert!(texts[0].starts_with("a bé") && texts[0].ends_with("é…"), "{}", texts[0]);
        assert!(texts[2].starts_with("[[\"請\",\"") && texts[2].ends_with('…'), "{}", texts[2]);
        assert_eq!((texts[1], texts[3]), ("", "1.5"));
        assert!(texts.iter().all(|text| text.chars().count() <= MAX_FIELD_CHARACTERS + 1));
        line.key = "sha-ecf9e98ec0641e23113ff3ce8bdc78d0".into();
        assert_eq!(PreviewRow::of(&line).id(), None);
    }
}
