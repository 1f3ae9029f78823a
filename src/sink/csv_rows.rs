//! Writes rows of a table of results as CSV.
//!
//! A missing value is an empty cell, and a value that is not a text is written as JSON. A cell that a spreadsheet would
//! run as a formula starts with an apostrophe, and so does each part of a cell that a spreadsheet may treat as a
//! separate cell, unless formulas are written verbatim.

use std::borrow::Cow;
use std::io;

use icu_normalizer::ComposingNormalizerBorrowed;
use serde_json::Value;

use super::columns::{Cell, Columns};
use super::format::FormulaCells;
use super::line::Line;
use crate::terminal_text;

#[derive(Debug)]
pub(super) struct CsvRows {
    columns: Columns,
    formulas: FormulaCells,
}

impl CsvRows {
    pub(super) fn new(columns: Columns, formulas: FormulaCells) -> Self {
        Self { columns, formulas }
    }

    /// Returns the header row.
    pub(super) fn header(&self) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        self.write_row(&mut out, self.columns.names().map(str::to_owned))?;
        Ok(out)
    }

    /// Appends the row of `line`.
    pub(super) fn write(&self, line: &Line, out: &mut Vec<u8>) -> io::Result<()> {
        self.columns.check(line)?;
        self.write_row(out, self.columns.cells(line).map(cell_text))
    }

    fn write_row(&self, out: &mut Vec<u8>, cells: impl Iterator<Item = String>) -> io::Result<()> {
        let cells = cells.map(|cell| match self.formulas {
            FormulaCells::Escaped => escape_formulas(cell).into_bytes(),
            FormulaCells::Verbatim => cell.into_bytes(),
        });
        let mut writer = csv::WriterBuilder::new().buffer_capacity(1024).flexible(true).from_writer(out);
        writer.write_record(cells)?;
        writer.flush()
    }
}

fn cell_text(cell: Cell<'_>) -> String {
    match cell {
        Cell::Float(number) => number.to_string(),
        Cell::Value(Cow::Owned(Value::String(text))) => text,
        Cell::Value(value) => match &*value {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
        },
    }
}

/// Returns the text of a cell with an apostrophe before each formula in it.
///
/// If the separator of the user's locale is `;`, a spreadsheet splits cells there, at tabs and at line ends,
/// even within quotes, because the quotes are not at the beginning of what it treats as a cell. So quotes would
/// not help.
fn escape_formulas(cell: String) -> String {
    let is_formula_itself = is_formula(&cell);
    if !is_formula_itself && !cell.contains(CELL_BREAKS) {
        return cell;
    }
    let mut out = String::with_capacity(cell.len() + 8);
    if is_formula_itself {
        out.push('\'');
    }
    let mut parts = cell.split_inclusive(CELL_BREAKS);
    let mut before = parts.next().unwrap_or_default();
    out.push_str(before);
    for part in parts {
        if is_formula_within(part, !before.ends_with(LINE_ENDS)) {
            out.push('\'');
        }
        out.push_str(part);
        before = part;
    }
    out
}

/// Characters at which a spreadsheet may split a cell.
const CELL_BREAKS: [char; 4] = [';', '\t', '\r', '\n'];

const LINE_ENDS: [char; 2] = ['\r', '\n'];

/// Without one of these characters a formula calls no function or program and reads no other file.
const FORMULA_CALL_CHARACTERS: [char; 5] = ['(', '|', '!', '#', '['];

/// Returns whether a spreadsheet may run a part of a cell. List entries such as `- one` are not treated as
/// formulas if they contain none of the [`FORMULA_CALL_CHARACTERS`] characters.
fn is_formula_within(part: &str, follows_separator: bool) -> bool {
    let part = part.trim_end_matches(CELL_BREAKS);
    let is_entry =
        !follows_separator && part.trim_start().starts_with("- ") && !part.contains(FORMULA_CALL_CHARACTERS);
    part.contains(char::is_alphanumeric) && !is_entry && is_formula(part)
}

/// Returns whether a spreadsheet may run the text of a cell
/// (<https://owasp.org/www-community/attacks/CSV_Injection>): it begins like a formula, possibly after blanks
/// and quotes, or with a character that a spreadsheet drops.
fn is_formula(text: &str) -> bool {
    if text.starts_with(['\t', '\r', '\n']) {
        return true;
    }
    // Invisible characters do not show in a cell, and some programs drop them.
    let shown = terminal_text::line(text);
    let inner = shown.trim_start_matches(|letter: char| letter.is_whitespace() || QUOTES.contains(&letter));
    let mut letters = inner.chars();
    let begins = letters.next().is_some_and(begins_formula);
    // A sign alone is not a formula: `-` is often written for an empty value.
    begins && letters.next().is_some() && !is_number(text.trim_matches(' '))
}

/// Returns whether a formula may begin with this character, or with a compatible form of it (NFKC) such as a
/// wide, small or superscript one: some spreadsheets treat them alike.
fn begins_formula(character: char) -> bool {
    let plain = ComposingNormalizerBorrowed::new_nfkc().normalize_iter(std::iter::once(character)).next();
    plain.is_some_and(|plain| ['=', '+', '-', '@', MINUS].contains(&plain))
}

/// The typographic minus sign.
const MINUS: char = '\u{2212}';

const QUOTES: [char; 4] = ['"', '\'', '`', '\u{fffd}'];

/// Returns whether the text is a single number, such as `-5`, `−5` or `+3.2e-7`.
fn is_number(text: &str) -> bool {
    let text = text.strip_prefix(MINUS).unwrap_or(text);
    text.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte)) && text.parse::<f64>().is_ok()
}
