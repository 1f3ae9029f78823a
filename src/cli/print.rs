//! Writes text to stdout and stderr. Nothing else in the program does.
//!
//! All text is printed without characters that a terminal would act on (`crate::terminal_text`).

use std::io::{self, IsTerminal, Write};

use clap::error::{ContextKind, ContextValue};
use serde::Serialize;

use crate::terminal_text;

use super::exit::Exit;
use super::stderr;

/// Standard output cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write to standard output")]
pub(super) struct StdoutError(#[from] io::Error);

impl StdoutError {
    /// Returns whether its reader has closed it, as `head` does.
    pub(super) fn is_broken_pipe(&self) -> bool {
        self.0.kind() == io::ErrorKind::BrokenPipe
    }
}

/// Writes one line of text to stderr.
pub(super) fn eprint_line(text: &str) {
    to_stderr(&terminal_text::line(text));
}

/// Writes several lines of text to stderr.
pub(super) fn eprint_lines(text: &str) {
    to_stderr(&terminal_text::lines(text));
}

/// Writes a JSON line `{"KIND": ...}` to stderr.
pub(super) fn eprint_json(kind: &str, value: &impl Serialize) {
    match serde_json::to_value(value) {
        Ok(value) => to_stderr(&terminal_text::json(&serde_json::json!({ kind: value }).to_string())),
        Err(error) => eprint_line(&format!("cannot write {kind} as JSON: {error}")),
    }
}

/// Writes a line of the log to stderr, with its level in color.
pub(super) fn eprint_log(text: &str) {
    let text = terminal_text::line(text);
    let start = text.len() - text.trim_start().len();
    let end = text[start..].find(' ').map_or(text.len(), |at| start + at);
    let (level, rest) = text.split_at(end);
    let level = match &level[start..] {
        "ERROR" => console::style(level).red(),
        "WARN" => console::style(level).yellow(),
        "INFO" => console::style(level).green(),
        _ => console::style(level).blue(),
    };
    to_stderr(&format!("{}{rest}", level.for_stderr()));
}

/// Writes colored text to stderr. Its data was made safe before it was colored.
pub(super) fn eprint_colored(text: &str) {
    to_stderr(text);
}

fn to_stderr(text: &str) {
    stderr::write_line(text);
}

/// Writes lines of text to stdout.
///
/// # Errors
/// If standard output cannot be written.
pub(super) fn print(text: &str) -> Result<(), StdoutError> {
    Ok(writeln!(io::stdout(), "{}", terminal_text::lines(text))?)
}

/// Writes JSON to stdout.
///
/// # Errors
/// If standard output cannot be written.
pub(super) fn print_json(json: &str) -> Result<(), StdoutError> {
    Ok(writeln!(io::stdout(), "{}", terminal_text::json(json))?)
}

/// Writes many lines to stdout, in blocks.
pub(super) struct Listing(io::BufWriter<io::StdoutLock<'static>>);

impl Listing {
    /// Locks stdout until the listing is dropped.
    pub(super) fn new() -> Self {
        Self(io::BufWriter::new(io::stdout().lock()))
    }

    /// Writes one line of text.
    ///
    /// # Errors
    /// If standard output cannot be written.
    pub(super) fn show(&mut self, text: &str) -> Result<(), StdoutError> {
        Ok(writeln!(self.0, "{}", terminal_text::line(text))?)
    }

    /// Writes one line of JSON.
    ///
    /// # Errors
    /// If standard output cannot be written.
    pub(super) fn show_json(&mut self, json: &str) -> Result<(), StdoutError> {
        Ok(writeln!(self.0, "{}", terminal_text::json(json))?)
    }

    /// Writes the rest of the buffer.
    ///
    /// # Errors
    /// If standard output cannot be written.
    pub(super) fn finish(mut self) -> Result<(), StdoutError> {
        Ok(self.0.flush()?)
    }
}

/// Returns whether stderr is a terminal.
pub(super) fn stderr_is_terminal() -> bool {
    io::stderr().is_terminal()
}

/// Shows an error in the arguments, or the requested help.
///
/// # Errors
/// If standard output cannot be written.
pub(super) fn usage(error: &clap::Error) -> Result<Exit, StdoutError> {
    let text = error.render().to_string();
    let print_with_clap = || error.print().and_then(|()| io::stdout().flush());
    if !error.use_stderr() {
        print_with_clap()?;
        return Ok(Exit::Success);
    }
    if terminal_text::lines(&text) == text {
        // A closed stderr cannot be reported anywhere.
        let _ = print_with_clap();
    } else {
        eprint_lines(text.trim_end());
    }
    if let Some((old, new)) = renamed_word(error) {
        eprint_lines(&format!("\n`{old}` is now called `{new}`"));
    }
    Ok(Exit::Usage)
}

/// Words of the command line that earlier versions called otherwise, each with the new one.
const RENAMED_WORDS: [(&str, &str); 4] =
    [("--from", "--input-format"), ("--to", "--output-format"), ("failed", "failures"), ("forget", "delete")];

/// Returns the old word that was refused, and its new name.
fn renamed_word(error: &clap::Error) -> Option<(&'static str, &'static str)> {
    let refused = [ContextKind::InvalidArg, ContextKind::InvalidSubcommand].map(|kind| error.get(kind));
    let is_refused = |word: &str| {
        let is_word = |value: &&ContextValue| matches!(value, ContextValue::String(text) if text == word);
        refused.into_iter().flatten().any(|value| is_word(&value))
    };
    RENAMED_WORDS.into_iter().find(|(old, _)| is_refused(old))
}

/// Prints panics without characters that a terminal would act on, because their text may have data.
pub(super) fn install_panic_hook() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let text = panic.to_string();
        if terminal_text::lines(&text) == text { before(panic) } else { eprint_lines(&text) }
    }));
}
