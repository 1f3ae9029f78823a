//! The answers of some items as a table: one line per item, and one column per step.

use comfy_table::{ContentArrangement, Row, Table, presets};

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

/// Formats rows as a table of at most `width` columns, one line per row.
fn answer_table(rows: &[PreviewRow], width: u16) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
    let steps = rows.first().map(|row| row.steps.as_slice()).unwrap_or_default();
    let names = steps.iter().map(|(name, _)| terminal_text::line(name.as_str()).into_owned());
    table.set_header(["key".to_owned(), "status".to_owned()].into_iter().chain(names));
    for row in rows {
        let status = match &row.error {
            Some(error) => format!("{}: {error}", row.status.as_str()),
            None => row.status.as_str().to_owned(),
        };
        let cells = [row.key.as_str(), &status].into_iter();
        let cells = cells.chain(row.steps.iter().map(|(_, answer)| answer.as_str()));
        let mut line: Row =
            cells.map(|cell| terminal_text::line(cell).into_owned()).collect::<Vec<_>>().into();
        line.max_height(1);
        table.add_row(line);
    }
    table.trim_fmt()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::sink::{Line, StepLine};
    use crate::types::{AttemptLog, ItemKey, ItemStatus, StepName};

    fn row(key: &str, answers: &[(&str, &str)]) -> PreviewRow {
        let step = |(name, _): &(&str, &str)| {
            (StepName::from(*name), StepLine::completed(&AttemptLog::default(), false))
        };
        let steps = answers.iter().map(step).collect();
        let mut line = Line::new(ItemKey::from(key), 1, ItemStatus::Completed, Duration::ZERO, steps);
        line.answers = answers.iter().map(|(name, text)| ((*name).to_owned(), (*text).into())).collect();
        PreviewRow::of(&line)
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
            assert_eq!(shown.lines().count(), 4, "{shown}");
            for line in shown.lines() {
                assert!(console::measure_text_width(line) <= usize::from(width), "{width}: {line}");
                assert_eq!(terminal_text::line(line), line);
            }
            assert!(shown.contains("bug") && shown.contains("praise"), "{shown}");
        }
    }
}
