//! Writes text to stdout and stderr. Nothing else in the program does.
//!
//! All text is printed without characters that a terminal would act on (`crate::terminal_text`).

use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};

use clap::error::{ContextKind, ContextValue, ErrorKind};
use serde::Serialize;

use crate::diagnostics::hide_likely_secrets;
use crate::terminal_text;

use super::color::stderr_has_color;
use super::exit::Exit;
use super::shell_word::shell_word;
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

/// Writes one line of JSON to stderr.
pub(super) fn eprint_json_line(json: &str) {
    to_stderr(&terminal_text::json(json));
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
    to_stderr(&format!("{}{rest}", level.force_styling(stderr_has_color())));
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

/// Most characters of a cell of a table.
const MAX_CELL_CHARACTERS: usize = 80;

/// Returns a text as a cell of a table: on one line, and not longer than a cell may be. It may be of a provider.
pub(super) fn cell(text: &str) -> String {
    let text = terminal_text::line(text);
    match text.char_indices().nth(MAX_CELL_CHARACTERS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.into_owned(),
    }
}

/// Writes JSON to stdout.
///
/// # Errors
/// If standard output cannot be written.
pub(super) fn print_json(json: &str) -> Result<(), StdoutError> {
    Ok(writeln!(io::stdout(), "{}", terminal_text::json(json))?)
}

/// Standard output on a terminal, which may show the progress of a run on stderr: what is written appears above it.
pub(super) struct TerminalStdout;

impl Write for TerminalStdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        stderr::above(|| {
            let mut stdout = io::stdout();
            stdout.write_all(bytes).and_then(|()| stdout.flush())
        })?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stdout().flush()
    }
}

/// Writes a piece of an answer to the terminal at once.
///
/// # Errors
/// If standard output cannot be written.
pub(super) fn print_piece(piece: &str) -> Result<(), StdoutError> {
    let mut stdout = io::stdout();
    stdout.write_all(terminal_text::lines(piece).as_bytes())?;
    Ok(stdout.flush()?)
}

/// Writes a text and a line end, as it is unless standard output is a terminal.
///
/// # Errors
/// If standard output cannot be written.
pub(super) fn print_answer(text: &str) -> Result<(), StdoutError> {
    if stdout_is_terminal() {
        return print(text);
    }
    Ok(writeln!(io::stdout(), "{text}")?)
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

    /// Writes complete lines as they are. If standard output is a terminal, without characters that it would act on.
    ///
    /// # Errors
    /// If standard output cannot be written.
    #[cfg(feature = "server")]
    pub(super) fn write(&mut self, lines: &[u8], is_json: bool) -> Result<(), StdoutError> {
        if !io::stdout().is_terminal() {
            return Ok(self.0.write_all(lines)?);
        }
        let text = String::from_utf8_lossy(lines);
        let shown = if is_json { terminal_text::json(&text) } else { terminal_text::lines(&text) };
        Ok(self.0.write_all(shown.as_bytes())?)
    }

    /// Writes the rest of the buffer.
    ///
    /// # Errors
    /// If standard output cannot be written.
    pub(super) fn finish(mut self) -> Result<(), StdoutError> {
        Ok(self.0.flush()?)
    }
}

/// Returns whether stdout is a terminal.
pub(super) fn stdout_is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Returns how wide the terminal of stdout is; `None` if stdout is no terminal.
pub(super) fn stdout_columns() -> Option<usize> {
    console::Term::stdout().size_checked().map(|(_, columns)| usize::from(columns))
}

/// Returns whether stderr is a terminal.
pub(super) fn stderr_is_terminal() -> bool {
    stderr::is_terminal()
}

/// Returns how wide the terminal of stderr is; `None` if stderr is no terminal.
pub(super) fn stderr_columns() -> Option<usize> {
    stderr_is_terminal().then(|| stderr::size().1)
}

/// Shows an error in the arguments, or the requested help. The first of the arguments is the program.
///
/// # Errors
/// If standard output cannot be written.
pub(super) fn usage(error: &clap::Error, arguments: &[OsString]) -> Result<Exit, StdoutError> {
    let rendered = error.render().to_string();
    let text = without_secrets(error, &rendered);
    let print_with_clap = || error.print().and_then(|()| io::stdout().flush());
    if !error.use_stderr() {
        print_with_clap()?;
        return Ok(Exit::Success);
    }
    if terminal_text::lines(&text) == rendered {
        // A closed stderr cannot be reported anywhere.
        let _ = print_with_clap();
    } else {
        eprint_lines(text.trim_end());
    }
    let advice = misplaced_argument(error, arguments)
        .or_else(|| renamed_word(error).map(|(old, new)| format!("`{old}` is now called `{new}`")));
    if let Some(advice) = advice {
        eprint_line("");
        eprint_line(&advice);
    }
    Ok(Exit::Usage)
}

/// Returns the text of an error in the arguments without the keys and passwords of the arguments that it repeats.
fn without_secrets(error: &clap::Error, rendered: &str) -> String {
    let mut text = rendered.to_owned();
    for (_, value) in error.context() {
        if let ContextValue::String(argument) = value {
            text = text.replace(argument.as_str(), &hide_likely_secrets(argument));
        }
    }
    text
}

/// What to do in place of a run on this machine whose answers are from a daemon.
const UPLOAD_ADVICE: &str = "`run` and `plan` work on this machine: give items to a daemon with `POST /api/v1/runs` or \
                             `POST /api/v1/runs/upload?pipeline=NAME`";

/// Options that a command does not have, each with the command, and the advice.
const MISPLACED_OPTIONS: [(&str, &str, &str); 5] = [
    ("run", "--server", UPLOAD_ADVICE),
    ("plan", "--server", UPLOAD_ADVICE),
    ("run", "--sample", "`pointsman plan ... --sample ITEMS` processes a sample of the items"),
    ("results", "--output-format", "the format of `results` is `--format`"),
    ("results", "--to", "the format of `results` is `--format`"),
];

/// Returns the advice for an argument that is not one of its command.
fn misplaced_argument(error: &clap::Error, arguments: &[OsString]) -> Option<String> {
    let command = arguments.get(1)?.to_str()?;
    let Some(ContextValue::String(refused)) = error.get(ContextKind::InvalidArg) else { return None };
    let mut options = MISPLACED_OPTIONS.into_iter();
    if let Some((_, _, advice)) =
        options.find(|(of, option, _)| (*of, *option) == (command, refused.as_str()))
    {
        return Some(advice.to_owned());
    }
    let has_items = arguments.iter().any(|argument| argument.to_string_lossy().starts_with("--items"));
    let is_items = error.kind() == ErrorKind::UnknownArgument
        && matches!(command, "run" | "plan")
        && !refused.starts_with('-')
        && !has_items;
    is_items.then(|| format!("the items are an option: --items {}", shell_word(refused)))
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
        stderr::clear_before_panic();
        if terminal_text::lines(&text) == text { before(panic) } else { eprint_lines(&text) }
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_adds_no_line_to_its_table_and_does_not_widen_it() {
        assert_eq!(cell("p/a\n\u{202e}fake\u{1b}[31m"), "p/a fake\u{fffd}[31m");
        assert_eq!(cell(&"w".repeat(300)).chars().count(), MAX_CELL_CHARACTERS + 1);
    }
}
