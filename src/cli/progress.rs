//! Shows the progress of a run: redrawn in place on a terminal, as a line every few seconds otherwise.

mod line;
mod providers;
mod screen;
#[cfg(test)]
mod screen_tests;

use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use crate::clock::now;
use crate::diagnostics::{Diagnostic, Diagnostics};
use crate::run::Progress;
use crate::sink;

use super::advice;
use super::color::{is_dumb_terminal, stderr_has_color};
use super::exit::Exit;
use super::live_lines::LiveLine;
use super::print::{StdoutError, eprint_colored, eprint_lines, stderr_is_terminal};
pub(super) use super::print::{eprint_json, eprint_line};
use super::progress_format::ProgressFormat;
use super::{progress_text, stderr};

/// How often the lines are drawn again, so that they are read easily.
const DRAW_INTERVAL: Duration = Duration::from_millis(200);

/// How often a line is written if the display cannot be redrawn.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// How often a JSON line is written.
const JSON_INTERVAL: Duration = Duration::from_secs(1);

/// The most problems that are shown as text: a file of the wrong kind has one in each line.
const MAX_SHOWN_DIAGNOSTICS: usize = 20;

/// How everything besides the progress of a run is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// As lines of text.
    Lines,
    /// As JSON lines.
    Json,
    /// Errors as lines of text, and nothing else.
    Quiet,
}

/// A problem as JSON.
#[derive(Serialize)]
struct JsonDiagnostic<'a> {
    /// `FILE:LINE:COLUMN`.
    location: Option<String>,
    message: &'a str,
    help: Option<String>,
}

/// Returns problems as JSON.
fn json_diagnostics(all: &Diagnostics) -> Vec<serde_json::Value> {
    let to_json = |diagnostic: &'_ Diagnostic| {
        let location = diagnostic.span.as_ref().map(ToString::to_string);
        serde_json::json!(JsonDiagnostic {
            location,
            message: &diagnostic.message,
            help: diagnostic.help.as_ref().map(ToString::to_string)
        })
    };
    all.0.iter().map(to_json).collect()
}

/// Returns problems as JSON, with the options of this command in their help.
pub(super) fn problems_as_json(all: &Diagnostics) -> Vec<serde_json::Value> {
    json_diagnostics(&advice::with_options(all.clone()))
}

impl Mode {
    pub(super) fn choose(quiet: bool, json: bool) -> Self {
        match (quiet, json) {
            (true, _) => Self::Quiet,
            (false, true) => Self::Json,
            (false, false) => Self::Lines,
        }
    }

    /// Shows a note, except in quiet mode.
    pub(super) fn note(self, text: &str) {
        match self {
            Self::Quiet => {}
            Self::Json => eprint_json("note", &text),
            Self::Lines => eprint_line(text),
        }
    }

    /// Shows why the program ends with `exit`, and returns it. In quiet mode success is not shown.
    pub(super) fn end(self, text: &str, exit: Exit) -> Exit {
        match self {
            Self::Quiet if exit != Exit::Success => eprint_line(text),
            Self::Quiet | Self::Json | Self::Lines => self.note(text),
        }
        exit
    }

    /// Shows an error with the chain of its causes, and returns `exit`. Shows nothing if the program that reads an
    /// output has closed it.
    pub(super) fn fail(self, error: &anyhow::Error, exit: Exit) -> Exit {
        if is_broken_pipe(error) {
            return Exit::BrokenPipe;
        }
        let text = advice::error_text(error);
        match self {
            Self::Json => eprint_json("error", &text),
            Self::Lines | Self::Quiet => eprint_line(&format!("error: {text}")),
        }
        exit
    }

    /// Shows problems with their locations: all of them as JSON, the first ones as text.
    pub(super) fn report_diagnostics(self, all: &Diagnostics) -> Exit {
        let all = advice::with_options(all.clone());
        let shown = Diagnostics(all.0.iter().take(MAX_SHOWN_DIAGNOSTICS).cloned().collect());
        match self {
            Self::Json => {
                eprint_json("diagnostics", &json_diagnostics(&all));
            }
            Self::Lines if stderr_has_color() => eprint_colored(&shown.render(true)),
            Self::Lines => eprint_lines(&shown.render(false)),
            Self::Quiet => shown.0.iter().for_each(|diagnostic| eprint_line(&format!("error: {diagnostic}"))),
        }
        let more = all.0.len() - shown.0.len();
        if more > 0 && self != Self::Json {
            eprint_line(&format!("and {more} more"));
        }
        Exit::Configuration
    }
}

/// Returns whether the program that reads an output has closed it, as `head` does.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref().is_some_and(sink::Error::is_broken_pipe)
        || error.downcast_ref().is_some_and(StdoutError::is_broken_pipe)
}

/// How the progress of a run is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Display {
    /// Redrawn in place.
    Bar,
    /// A line every few seconds.
    Plain,
    /// A JSON line every second.
    Json,
    /// Not at all.
    None,
}

impl Display {
    /// Returns the display that an option requests. Without one, JSON is shown where everything is JSON, nothing in quiet
    /// mode, and a bar on a terminal that can redraw it.
    fn choose(requested: ProgressFormat, mode: Mode) -> Self {
        match (requested, mode) {
            (ProgressFormat::Bar, _) => Self::Bar,
            (ProgressFormat::Plain, _) => Self::Plain,
            (ProgressFormat::Json, _) | (ProgressFormat::Auto, Mode::Json) => Self::Json,
            (ProgressFormat::None, _) | (ProgressFormat::Auto, Mode::Quiet) => Self::None,
            (ProgressFormat::Auto, Mode::Lines) if stderr_is_terminal() && !is_dumb_terminal() => Self::Bar,
            (ProgressFormat::Auto, Mode::Lines) => Self::Plain,
        }
    }

    /// Returns the shortest time between two updates.
    fn interval(self) -> Duration {
        match self {
            Self::Bar => DRAW_INTERVAL,
            Self::Plain => LINE_INTERVAL,
            Self::Json => JSON_INTERVAL,
            Self::None => Duration::MAX,
        }
    }
}

/// The display of one run.
pub(super) struct ProgressDisplay {
    mode: Mode,
    display: Display,
    title: String,
    last: Option<Instant>,
}

impl ProgressDisplay {
    /// Creates the display of a run whose other messages are shown in `mode`.
    pub(super) fn new(mode: Mode, requested: ProgressFormat, title: &str) -> Self {
        Self { mode, display: Display::choose(requested, mode), title: title.to_owned(), last: None }
    }

    /// Returns whether the number of items is shown, which costs reading them a second time.
    pub(super) fn needs_count(&self) -> bool {
        self.display != Display::None
    }

    /// Shows `progress` if the interval has passed.
    pub(super) fn show(&mut self, progress: &Progress) {
        let now = Instant::now();
        if self.last.is_some_and(|last| now - last < self.display.interval()) {
            return;
        }
        self.last = Some(now);
        match self.display {
            Display::None => {}
            Display::Bar => stderr::draw(drawn(&self.title, progress)),
            Display::Plain => eprint_line(&progress_text::line(&self.title, progress)),
            Display::Json => eprint_json("progress", progress),
        }
    }

    /// Sets the title, which is the pipeline's name.
    pub(super) fn set_title(&mut self, name: &str) {
        self.title = name.to_owned();
    }

    /// Shows a note, except in quiet mode.
    pub(super) fn note(&self, text: &str) {
        self.mode.note(text);
    }

    /// Removes the display.
    pub(super) fn clear(&self) {
        if self.display == Display::Bar {
            stderr::clear();
        }
    }
}

/// Returns the lines of the display for the terminal.
fn drawn(title: &str, progress: &Progress) -> Vec<LiveLine> {
    let (rows, columns) = stderr::size();
    // The cursor is in the last row, and needs a column behind each line.
    let size = (rows.saturating_sub(1), columns.saturating_sub(1));
    let lines = screen::lines(title, progress, now(), size);
    let has_color = stderr_has_color();
    lines.iter().map(|line| line.to_live(has_color)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_decides_only_how_the_progress_is_shown() {
        for mode in [Mode::Lines, Mode::Json, Mode::Quiet] {
            for (requested, display) in [
                (ProgressFormat::Bar, Display::Bar),
                (ProgressFormat::Plain, Display::Plain),
                (ProgressFormat::Json, Display::Json),
                (ProgressFormat::None, Display::None),
            ] {
                assert_eq!(Display::choose(requested, mode), display);
            }
        }
        assert_eq!(Display::choose(ProgressFormat::Auto, Mode::Json), Display::Json);
        assert_eq!(Display::choose(ProgressFormat::Auto, Mode::Quiet), Display::None);
    }
}
