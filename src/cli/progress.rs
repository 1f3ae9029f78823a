//! Shows the progress of a run: redrawn in place on a terminal, as a line every few seconds otherwise.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use tokio::time::Instant;

use crate::diagnostics::{Diagnostic, Diagnostics};
use crate::run::Progress;
use crate::sink;
use crate::terminal_text;

use super::advice;
use super::exit::Exit;
use super::print::{StdoutError, eprint_colored, eprint_lines, stderr_is_terminal};
pub(super) use super::print::{eprint_json, eprint_line};
use super::progress_text;

/// How often a line is written if the display cannot be redrawn.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// How often a JSON line is written.
const JSON_INTERVAL: Duration = Duration::from_secs(1);

/// The most problems that are shown as text: a file of the wrong kind has one in each line.
const MAX_SHOWN_DIAGNOSTICS: usize = 20;

/// How a run is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// Redrawn in place.
    Drawn,
    /// A line every few seconds.
    Lines,
    /// A JSON line every second.
    Json,
    /// Not at all.
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

impl Mode {
    pub(super) fn choose(quiet: bool, json: bool) -> Self {
        match (quiet, json, stderr_is_terminal()) {
            (true, ..) => Self::Quiet,
            (_, true, _) => Self::Json,
            (_, _, true) => Self::Drawn,
            (_, _, false) => Self::Lines,
        }
    }

    /// Shows a note, except in quiet mode.
    pub(super) fn note(self, text: &str) {
        match self {
            Self::Quiet => {}
            Self::Json => eprint_json("note", &text),
            Self::Drawn | Self::Lines => eprint_line(text),
        }
    }

    /// Shows why the program ends with `exit`, and returns it. In quiet mode success is not shown.
    pub(super) fn end(self, text: &str, exit: Exit) -> Exit {
        match self {
            Self::Quiet if exit != Exit::Success => eprint_line(text),
            Self::Quiet | Self::Json | Self::Drawn | Self::Lines => self.note(text),
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
            Self::Drawn | Self::Lines | Self::Quiet => eprint_line(&format!("error: {text}")),
        }
        exit
    }

    /// Shows problems with their locations: all of them as JSON, the first ones as text.
    pub(super) fn report_diagnostics(self, all: &Diagnostics) -> Exit {
        let all = advice::with_options(all.clone());
        let shown = Diagnostics(all.0.iter().take(MAX_SHOWN_DIAGNOSTICS).cloned().collect());
        match self {
            Self::Json => {
                let to_json = |diagnostic: &'_ Diagnostic| {
                    let location = diagnostic.span.as_ref().map(ToString::to_string);
                    serde_json::json!(JsonDiagnostic {
                        location,
                        message: &diagnostic.message,
                        help: diagnostic.help.as_ref().map(ToString::to_string)
                    })
                };
                eprint_json("diagnostics", &all.0.iter().map(to_json).collect::<Vec<_>>());
            }
            Self::Drawn | Self::Lines if stderr_is_terminal() => eprint_colored(&shown.render(true)),
            Self::Drawn | Self::Lines => eprint_lines(&shown.render(false)),
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

/// The display of one run.
pub(super) struct ProgressDisplay {
    mode: Mode,
    bar: ProgressBar,
    title: String,
    last: Option<Instant>,
}

impl ProgressDisplay {
    pub(super) fn new(mode: Mode, title: &str) -> Self {
        let target = if mode == Mode::Drawn {
            ProgressDrawTarget::stderr_with_hz(5)
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(None, target);
        // The template is constant and valid; without it the bar would show less.
        bar.set_style(
            ProgressStyle::with_template("{msg}").unwrap_or_else(|_| ProgressStyle::default_spinner()),
        );
        Self { mode, bar, title: title.to_owned(), last: None }
    }

    /// Returns the bar that has to be suspended while a log line is written.
    pub(super) fn bar(&self) -> ProgressBar {
        self.bar.clone()
    }

    /// Shows `progress` if the interval has passed.
    pub(super) fn show(&mut self, progress: &Progress) {
        let now = Instant::now();
        let due = |every| self.last.is_none_or(|last| now - last >= every);
        match self.mode {
            Mode::Quiet => {}
            Mode::Drawn => {
                // A terminal shows `^C` at the cursor, which is at the end of the last line. Without space for it a
                // new line begins, which is never cleared.
                let width = usize::from(console::Term::stderr().size().1).saturating_sub(3);
                self.bar.set_message(fit_lines(&progress_text::lines(&self.title, progress, width), width));
                self.bar.tick();
            }
            Mode::Lines if due(LINE_INTERVAL) => {
                self.last = Some(now);
                eprint_line(&progress_text::line(&self.title, progress));
            }
            Mode::Json if due(JSON_INTERVAL) => {
                self.last = Some(now);
                eprint_json("progress", progress);
            }
            Mode::Lines | Mode::Json => {}
        }
    }

    /// Sets the title, which is the pipeline's name.
    pub(super) fn set_title(&mut self, name: &str) {
        self.title = name.to_owned();
    }

    /// Shows a note above the display, except in quiet mode.
    pub(super) fn note(&self, text: &str) {
        self.bar.suspend(|| self.mode.note(text));
    }

    /// Removes the display.
    pub(super) fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

/// Returns the lines, truncated to `width` columns.
fn fit_lines(lines: &[String], width: usize) -> String {
    let lines =
        lines.iter().map(|line| console::truncate_str(&terminal_text::line(line), width, "…").into_owned());
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_display_fits_its_columns_for_any_item_key() {
        for key in [
            "請求書-二〇二六年十一月二十八日-株式会社山田商事",
            "👩‍👩‍👧👩‍👩‍👧👩‍👩‍👧👩‍👩‍👧👩‍👩‍👧👩‍👩‍👧",
            "\u{1b}[2J\nsecond line\u{202e}",
            "e\u{301}e\u{301}",
        ] {
            let progress = Progress { oldest_item: Some((key.into(), 3.0)), ..Progress::default() };
            for title in ["email", "請求書"] {
                for width in [20, 40, 77] {
                    let shown = fit_lines(&progress_text::lines(title, &progress, width), width);
                    assert_eq!(shown.lines().count(), 4, "{shown}");
                    for line in shown.lines() {
                        assert!(console::measure_text_width(line) <= width, "{line}");
                        assert_eq!(terminal_text::line(line), line);
                    }
                }
            }
        }
    }

    #[test]
    fn the_lines_of_a_display_begin_in_the_same_column() {
        let progress = Progress { oldest_item: Some(("k".into(), 3.0)), ..Progress::default() };
        let shown = fit_lines(&progress_text::lines("請求書", &progress, 80), 80);
        let columns: Vec<usize> = shown
            .lines()
            .map(|line| console::measure_text_width(&line[..line.find("  ").unwrap()]))
            .collect();
        // The first line has the title, the others have spaces of the same width.
        assert_eq!(columns[0], 6);
        let second = shown.lines().nth(1).unwrap();
        assert_eq!(second.len() - second.trim_start().len(), 6 + 2);
    }
}
