//! Lays a result out in the columns of a CSV file.
//!
//! The columns follow from the pipeline's steps alone, so every line has the same ones:
//! `key,line,status,practice`, one per step for its answer, `error_class,error_step,error_message`,
//! two per step for its `.provider` and `.model`, `input_tokens,output_tokens,cost_usd,seconds,attempts`.
//! A step with the name of another column has its answer in `answer.NAME`. JSON answers are JSON
//! text; no answer is an empty cell. A cell that a spreadsheet would run as a formula begins with an apostrophe, and so
//! does each piece of a cell that it may take for a cell of its own, unless formulas are kept.

use std::io;

use icu_normalizer::ComposingNormalizerBorrowed;
use serde_json::Value;

use super::Formulas;
use super::line::{Line, StepLine, seconds};
use crate::screen;
use crate::types::StepName;

const BEFORE: [&str; 4] = ["key", "line", "status", "practice"];
const ERROR: [&str; 3] = ["error_class", "error_step", "error_message"];
const AFTER: [&str; 5] = ["input_tokens", "output_tokens", "cost_usd", "seconds", "attempts"];

pub(super) struct Columns {
    steps: Vec<StepName>,
    formulas: Formulas,
}

impl Columns {
    pub(super) fn new(steps: &[StepName], formulas: Formulas) -> Self {
        Self { steps: steps.to_vec(), formulas }
    }

    /// Returns the header row.
    pub(super) fn header(&self) -> io::Result<Vec<u8>> {
        let lanes = self.steps.iter().flat_map(|step| [format!("{step}.provider"), format!("{step}.model")]);
        let tail: Vec<String> =
            ERROR.map(String::from).into_iter().chain(lanes).chain(AFTER.map(String::from)).collect();
        let taken = |name: &String| BEFORE.contains(&name.as_str()) || tail.contains(name);
        let answers = self.steps.iter().map(|step| {
            let mut name = step.to_string();
            while taken(&name) {
                name.insert_str(0, "answer.");
            }
            name
        });
        let names = BEFORE.map(String::from).into_iter().chain(answers).chain(tail.clone());
        let mut out = Vec::new();
        self.write_row(&mut out, names)?;
        Ok(out)
    }

    fn write_row(&self, out: &mut Vec<u8>, cells: impl Iterator<Item = String>) -> io::Result<()> {
        let cells = cells.map(|cell| match self.formulas {
            Formulas::Neutral => neutral(cell).into_bytes(),
            Formulas::Kept => cell.into_bytes(),
        });
        let mut writer = csv::WriterBuilder::new().buffer_capacity(1024).flexible(true).from_writer(out);
        writer.write_record(cells)?;
        writer.flush()
    }

    /// Appends the row of `line`.
    pub(super) fn write(&self, line: &Line, out: &mut Vec<u8>) -> io::Result<()> {
        let before =
            [line.key.to_string(), line.line.to_string(), line.status.to_string(), line.practice.to_string()];
        let answers =
            self.steps.iter().map(|step| line.answers.get(step.as_str()).map(cell).unwrap_or_default());
        let error = line.error.as_ref();
        let error = [
            error.map(|error| error.class.to_string()),
            error.and_then(|error| error.step.as_ref()).map(ToString::to_string),
            error.map(|error| error.message.clone()),
        ];
        let lanes = self.steps.iter().flat_map(|name| {
            let step = line.steps.iter().find(|(step, _)| step == name).map(|(_, step)| step);
            let provider = |step: &StepLine| step.provider.as_ref().map(ToString::to_string);
            let model = |step: &StepLine| step.model.as_ref().map(ToString::to_string);
            [step.and_then(provider), step.and_then(model)]
        });
        let after = [
            line.tokens.input.to_string(),
            line.tokens.output.to_string(),
            line.cost.map(|cost| cost.dollars().to_string()).unwrap_or_default(),
            seconds(line.took).to_string(),
            line.attempts.to_string(),
        ];
        let optional = error.into_iter().chain(lanes).map(Option::unwrap_or_default);
        self.write_row(out, before.into_iter().chain(answers).chain(optional).chain(after))
    }
}

fn cell(answer: &Value) -> String {
    match answer {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => answer.to_string(),
    }
}

/// Returns the text of a cell with an apostrophe before each formula in it.
///
/// Where the separator of the user's locale is `;`, a spreadsheet tears cells there, at tabs and at line ends, also
/// within quotes: they do not stand at the beginning of what it takes for a cell. So quotes would not help.
fn neutral(cell: String) -> String {
    let is_formula_itself = is_formula(&cell);
    if !is_formula_itself && !cell.contains(BREAKS) {
        return cell;
    }
    let mut out = String::with_capacity(cell.len() + 8);
    if is_formula_itself {
        out.push('\'');
    }
    let mut pieces = cell.split_inclusive(BREAKS);
    let mut before = pieces.next().unwrap_or_default();
    out.push_str(before);
    for piece in pieces {
        if is_formula_within(piece, !before.ends_with(LINE_ENDS)) {
            out.push('\'');
        }
        out.push_str(piece);
        before = piece;
    }
    out
}

/// Where a spreadsheet may tear a cell.
const BREAKS: [char; 4] = [';', '\t', '\r', '\n'];

const LINE_ENDS: [char; 2] = ['\r', '\n'];

/// Characters without which a formula calls no function and no program, and reads no other file.
const CALLS: [char; 5] = ['(', '|', '!', '#', '['];

/// Returns whether a spreadsheet may run a piece of a cell. The entries of a list in a text, as in `- one`, are not
/// taken for formulas as long as they could do nothing.
fn is_formula_within(piece: &str, follows_separator: bool) -> bool {
    let piece = piece.trim_end_matches(BREAKS);
    let is_entry = !follows_separator && piece.trim_start().starts_with("- ") && !piece.contains(CALLS);
    piece.contains(char::is_alphanumeric) && !is_entry && is_formula(piece)
}

/// Returns whether a spreadsheet may run the text of a cell (<https://owasp.org/www-community/attacks/CSV_Injection>):
/// it begins as a formula does, also behind blanks and quotes, or with a character that a spreadsheet drops.
fn is_formula(text: &str) -> bool {
    if text.starts_with(['\t', '\r', '\n']) {
        return true;
    }
    // What cannot be seen does not show in a cell either, and some programs drop it.
    let shown = screen::line(text);
    let inner = shown.trim_start_matches(|letter: char| letter.is_whitespace() || QUOTES.contains(&letter));
    let mut letters = inner.chars();
    let begins = letters.next().is_some_and(begins_formula);
    // A sign alone is none: people write `-` where there is nothing.
    begins && letters.next().is_some() && !is_number(text.trim_matches(' '))
}

/// Returns whether a formula may begin with this character, or with another form of the same (NFKC), such as a wide,
/// small or raised one: some spreadsheets read them alike.
fn begins_formula(character: char) -> bool {
    let plain = ComposingNormalizerBorrowed::new_nfkc().normalize_iter(std::iter::once(character)).next();
    plain.is_some_and(|plain| ['=', '+', '-', '@', MINUS].contains(&plain))
}

/// The minus sign of typeset text.
const MINUS: char = '\u{2212}';

const QUOTES: [char; 4] = ['"', '\'', '`', '\u{fffd}'];

/// Returns whether the text is one number and nothing else, such as `-5`, `−5` or `+3.2e-7`.
fn is_number(text: &str) -> bool {
    let text = text.strip_prefix(MINUS).unwrap_or(text);
    text.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte)) && text.parse::<f64>().is_ok()
}
