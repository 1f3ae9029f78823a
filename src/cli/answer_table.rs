//! The answers of some items as a table: one line per item, with its key or its first fields, and one column per step.

use comfy_table::{ContentArrangement, Row, Table, presets};
use console::measure_text_width;
use indexmap::IndexSet;

use crate::run::{PreviewRow, ResultPreview};
use crate::terminal_text;

use super::args::Run;
use super::print::{
    eprint_lines, print, stderr_columns, stderr_is_terminal, stdout_columns, stdout_is_terminal,
};
use super::progress_text::counted;
use super::saved_args::is_dash;

/// Most items that a table shows.
const MAX_TABLE_ROWS: usize = 200;

/// Columns of a table that is not written to a terminal.
const DEFAULT_WIDTH: u16 = 100;

/// Fewest columns of a table: a narrower terminal wraps its lines.
const MIN_WIDTH: u16 = 40;

/// Most fields of an item that a table shows.
const MAX_TABLE_FIELDS: usize = 6;

/// Columns of the terminal that a long field has at least: another field is shown only if there is so much space.
const MIN_FIELD_WIDTH: usize = 16;

/// Columns of the terminal that a long answer, key or status has at least if fields are shown.
const MIN_ANSWER_WIDTH: usize = 20;

/// Columns of the terminal between two columns of a table.
const PADDING: usize = 2;

/// Where a table is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TableTarget {
    Stdout,
    Stderr,
}

impl TableTarget {
    /// Returns where the answers of `run --limit` are shown; `None` if they are not.
    pub(super) fn of(args: &Run) -> Option<Self> {
        if args.limit.max_items.is_none() || args.show.quiet || args.show.json {
            return None;
        }
        if stdout_is_terminal() {
            return Some(Self::Stdout);
        }
        // Lines that are piped to another program are the answers.
        (!is_dash(&args.out) && stderr_is_terminal()).then_some(Self::Stderr)
    }
}

/// Returns where the lines of the first `items` items are kept for a table.
pub(super) fn preview(items: u64) -> ResultPreview {
    ResultPreview::new(usize::try_from(items).unwrap_or(usize::MAX).min(MAX_TABLE_ROWS))
}

/// Writes the answers of a preview.
///
/// # Errors
/// If standard output cannot be written.
pub(super) fn show(preview: &ResultPreview, target: TableTarget) -> anyhow::Result<()> {
    let Some(text) = text(preview, target) else { return Ok(()) };
    match target {
        TableTarget::Stdout => print(&text)?,
        TableTarget::Stderr => eprint_lines(&text),
    }
    Ok(())
}

/// Returns the answers of a preview as text; `None` if it has none.
pub(super) fn text(preview: &ResultPreview, target: TableTarget) -> Option<String> {
    let rows = preview.rows();
    if rows.is_empty() {
        return None;
    }
    let mut text = answer_table(&rows, width(target));
    if rows.len() == MAX_TABLE_ROWS {
        text.push_str(&format!("\nonly {} are shown", counted(rows.len() as u64, "item")));
    }
    Some(text)
}

/// Returns the columns of the terminal.
fn width(target: TableTarget) -> u16 {
    let columns = match target {
        TableTarget::Stdout => stdout_columns(),
        TableTarget::Stderr => stderr_columns(),
    };
    let columns = columns.and_then(|columns| u16::try_from(columns).ok());
    columns.map_or(DEFAULT_WIDTH, |columns| columns.max(MIN_WIDTH))
}

/// One column of a table, safe for a terminal.
struct Column {
    name: String,
    cells: Vec<String>,
}

impl Column {
    fn new<'r>(name: &str, cells: impl Iterator<Item = &'r str>) -> Self {
        let cells = cells.map(|cell| terminal_text::line(cell).into_owned()).collect();
        Self { name: terminal_text::line(name).into_owned(), cells }
    }

    /// Returns the width that it needs, where `enough` is enough for a long text.
    fn needed_width(&self, enough: usize) -> usize {
        let texts = self.cells.iter().chain([&self.name]);
        texts.map(|text| measure_text_width(text)).max().unwrap_or(0).min(enough) + PADDING
    }
}

/// Formats rows as a table of at most `width` columns, one line per row.
fn answer_table(rows: &[PreviewRow], width: u16) -> String {
    let statuses: Vec<String> = rows
        .iter()
        .map(|row| match &row.error {
            Some(error) => format!("{}: {error}", row.status.as_str()),
            None => row.status.as_str().to_owned(),
        })
        .collect();
    let mut answers = vec![Column::new("status", statuses.iter().map(String::as_str))];
    let steps = rows.first().map(|row| row.steps.as_slice()).unwrap_or_default();
    answers.extend(steps.iter().enumerate().map(|(at, (name, _))| {
        let cells = rows.iter().map(|row| row.steps.get(at).map_or("", |(_, answer)| answer.as_str()));
        Column::new(name.as_str(), cells)
    }));
    let mut columns = item_columns(rows, &answers, usize::from(width));
    columns.append(&mut answers);

    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
    table.set_header(columns.iter().map(|column| column.name.as_str()));
    for at in 0..rows.len() {
        let cells = columns.iter().map(|column| column.cells.get(at).map_or("", String::as_str));
        let mut line: Row = cells.collect::<Vec<_>>().into();
        line.max_height(1);
        table.add_row(line);
    }
    table.trim_fmt()
}

/// Returns the columns by which a reader recognises an item: its id, if items have any, and its first fields, as many as
/// fit beside the answers. The key without an id, which is a hash, is shown only if no field is known.
fn item_columns(rows: &[PreviewRow], answers: &[Column], width: usize) -> Vec<Column> {
    let mut columns = Vec::new();
    if rows.iter().any(|row| row.id().is_some()) {
        columns.push(Column::new("key", rows.iter().map(|row| row.id().map_or("", |id| id.as_str()))));
    }
    let has_ids = !columns.is_empty();
    let widths = columns.iter().chain(answers).map(|column| column.needed_width(MIN_ANSWER_WIDTH));
    let mut used: usize = widths.sum();
    let fields = rows.iter().flat_map(|row| &row.fields);
    let names: IndexSet<&str> = fields.map(|(name, _)| name.as_str()).collect();
    let value = |row: &PreviewRow, name: &str| {
        let field = row.fields.iter().find(|(field, _)| field == name);
        field.map(|(_, text)| text.clone()).unwrap_or_default()
    };
    let mut shown = 0;
    for name in names {
        let values: Vec<String> = rows.iter().map(|row| value(row, name)).collect();
        let is_key = has_ids && values.iter().zip(rows).all(|(value, row)| value == row.key.as_str());
        if is_key || values.iter().all(String::is_empty) {
            continue;
        }
        let column = Column::new(name, values.iter().map(String::as_str));
        used += column.needed_width(MIN_FIELD_WIDTH);
        // Without an id, at least one field says which item it is.
        if shown == MAX_TABLE_FIELDS || used > width && !columns.is_empty() {
            break;
        }
        columns.push(column);
        shown += 1;
    }
    if columns.is_empty() {
        columns.push(Column::new("key", rows.iter().map(|row| row.key.as_str())));
    }
    columns
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::sink::{Line, StepLine};
    use crate::types::{AttemptLog, ItemKey, ItemStatus, StepName};

    fn row(key: &str, answers: &[(&str, &str)]) -> PreviewRow {
        PreviewRow::of(&line(key, answers))
    }

    fn line(key: &str, answers: &[(&str, &str)]) -> Line {
        let step = |(name, _): &(&str, &str)| {
            (StepName::from(*name), StepLine::completed(&AttemptLog::default(), false))
        };
        let steps = answers.iter().map(step).collect();
        let mut line = Line::new(ItemKey::from(key), 1, ItemStatus::Completed, Duration::ZERO, steps);
        line.answers = answers.iter().map(|(name, text)| ((*name).to_owned(), (*text).into())).collect();
        line
    }

    #[test]
    fn a_table_has_one_line_per_item_within_its_width() {
        let long = "a long answer of many words ".repeat(20);
        let wide = "請求書の要約です。".repeat(30);
        let hostile = "a\u{1b}[2J\u{202e}b";
        let rows = [
            row("i1", &[("summary", long.as_str()), ("kind", "bug")]),
            row("i2", &[("summary", wide.as_str()), ("kind", "question")]),
            row(hostile, &[("summary", hostile), ("kind", "praise")]),
        ];
        for width in [40, 80, 120, 200] {
            let shown = answer_table(&rows, width);
            assert_fits(&shown, 4, width);
            assert!(shown.contains("bug") && shown.contains("praise"), "{shown}");
        }
    }

    fn assert_fits(shown: &str, lines: usize, width: u16) {
        assert_eq!(shown.lines().count(), lines, "{shown}");
        for line in shown.lines() {
            assert!(measure_text_width(line) <= usize::from(width), "{width}: {line}");
            assert_eq!(terminal_text::line(line), line);
        }
    }

    fn with_item(key: &str, item: serde_json::Value, answers: &[(&str, &str)]) -> PreviewRow {
        let mut line = line(key, answers);
        line.item = Some(item);
        PreviewRow::of(&line)
    }

    const HASH: &str = "sha-ecf9e98ec0641e23113ff3ce8bdc78d0";

    #[test]
    fn an_item_without_an_id_is_shown_by_its_first_fields_and_not_by_a_hash() {
        let wide = "請求書の要約です。".repeat(30);
        let hostile = "a\u{1b}[2J\u{202e}b\n c";
        let item = |text: &str| {
            serde_json::json!({ "customer": "ann", "text": text, "empty": "", "\u{1b}[31mred": hostile, "stars": 5,
                "tags": ["a", "b"], "more": text, "last": text })
        };
        let rows = [
            with_item(HASH, item("It broke"), &[("kind", "bug")]),
            with_item(HASH, item(&wide), &[("kind", "question")]),
            with_item(HASH, item(hostile), &[("kind", "praise")]),
        ];
        for width in 60..=200 {
            let shown = answer_table(&rows, width);
            assert_fits(&shown, 4, width);
            assert!(!shown.contains("sha-") && !shown.contains("key") && !shown.contains("empty"), "{shown}");
            for word in ["customer", "ann", "text", "It broke", "請求書", "kind", "bug", "completed"] {
                assert!(shown.contains(word), "{width}, {word}:\n{shown}");
            }
        }
        assert!(!answer_table(&rows, 60).contains("tags"));
        let wide = answer_table(&rows, 200);
        assert!(wide.contains("stars") && wide.contains("[\"a\",\"b\"]") && !wide.contains("last"), "{wide}");
        // Nothing else is known of an item whose fields are not stored.
        assert!(answer_table(&[row(HASH, &[("kind", "bug")])], 80).contains("sha-"));
    }

    #[test]
    fn an_id_is_shown_once_with_the_fields_that_fit() {
        let item = |id: &str, page: u64| serde_json::json!({ "id": id, "page": page, "text": "It broke" });
        let rows = [
            with_item("1", item("1", 1), &[("kind", "bug")]),
            with_item("2", item("2", 1), &[("kind", "praise")]),
        ];
        let shown = answer_table(&rows, 80);
        let header: Vec<&str> = shown.lines().next().unwrap().split_whitespace().collect();
        assert_eq!(header, ["key", "page", "text", "status", "kind"]);
    }
}
