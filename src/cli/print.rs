//! Where text leaves to the terminal: nothing else in the program writes to stdout or stderr.
//!
//! Whatever it was made of, it is shown without what a terminal would act on (`crate::screen`).

use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use crate::screen;

use super::exit::Exit;
use super::stderr;

/// Standard output cannot be written to.
#[derive(Debug, thiserror::Error)]
#[error("cannot write to standard output")]
pub(super) struct Unwritten(#[from] io::Error);

impl Unwritten {
    /// Returns whether the process that read it has gone, as `head` does.
    pub(super) fn is_broken_pipe(&self) -> bool {
        self.0.kind() == io::ErrorKind::BrokenPipe
    }
}

/// Writes one line for people to stderr.
pub(super) fn say(text: &str) {
    to_stderr(&screen::line(text));
}

/// Writes several lines for people to stderr.
pub(super) fn say_lines(text: &str) {
    to_stderr(&screen::lines(text));
}

/// Writes a JSON line `{"KIND": ...}` for machines to stderr.
pub(super) fn say_json(kind: &str, value: &impl Serialize) {
    match serde_json::to_value(value) {
        Ok(value) => to_stderr(&screen::json(&serde_json::json!({ kind: value }).to_string())),
        Err(error) => say(&format!("cannot write {kind} as JSON: {error}")),
    }
}

/// Writes a line of the log to stderr, its level coloured.
pub(super) fn say_log(text: &str) {
    let text = screen::line(text);
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

/// Writes text to stderr in which data was made safe before it was coloured.
pub(super) fn say_coloured(text: &str) {
    to_stderr(text);
}

fn to_stderr(text: &str) {
    stderr::write_line(text);
}

/// Writes lines for people to stdout.
///
/// # Errors
/// Where standard output cannot be written to.
pub(super) fn print(text: &str) -> Result<(), Unwritten> {
    Ok(writeln!(io::stdout(), "{}", screen::lines(text))?)
}

/// Writes JSON to stdout.
///
/// # Errors
/// Where standard output cannot be written to.
pub(super) fn print_json(json: &str) -> Result<(), Unwritten> {
    Ok(writeln!(io::stdout(), "{}", screen::json(json))?)
}

/// Writes many lines to stdout, in blocks.
pub(super) struct Listing(io::BufWriter<io::StdoutLock<'static>>);

impl Listing {
    /// Starts one. Nothing else writes to stdout until it is dropped.
    pub(super) fn new() -> Self {
        Self(io::BufWriter::new(io::stdout().lock()))
    }

    /// Writes one line for people.
    ///
    /// # Errors
    /// Where standard output cannot be written to.
    pub(super) fn show(&mut self, text: &str) -> Result<(), Unwritten> {
        Ok(writeln!(self.0, "{}", screen::line(text))?)
    }

    /// Writes one line of JSON.
    ///
    /// # Errors
    /// Where standard output cannot be written to.
    pub(super) fn show_json(&mut self, json: &str) -> Result<(), Unwritten> {
        Ok(writeln!(self.0, "{}", screen::json(json))?)
    }

    /// Writes what is left.
    ///
    /// # Errors
    /// Where standard output cannot be written to.
    pub(super) fn finish(mut self) -> Result<(), Unwritten> {
        Ok(self.0.flush()?)
    }
}

/// Returns whether people see what is written to stderr.
pub(super) fn is_seen() -> bool {
    io::stderr().is_terminal()
}

/// Shows what is wrong with the arguments, or the help that was asked for.
///
/// # Errors
/// Where standard output cannot be written to.
pub(super) fn usage(error: &clap::Error) -> Result<Exit, Unwritten> {
    let text = error.render().to_string();
    // As clap shows it, with its colours.
    let as_clap_shows_it = || error.print().and_then(|()| io::stdout().flush());
    if !error.use_stderr() {
        as_clap_shows_it()?;
        return Ok(Exit::Done);
    }
    if screen::lines(&text) == text {
        // There is nowhere left to say that stderr is closed.
        let _ = as_clap_shows_it();
    } else {
        say_lines(text.trim_end());
    }
    Ok(Exit::Usage)
}

/// Shows panics as everything else is shown: the text of one may repeat data.
pub(super) fn panics_are_shown() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let text = panic.to_string();
        if screen::lines(&text) == text { before(panic) } else { say_lines(&text) }
    }));
}
