//! Shows a run while it runs: drawn over itself on a terminal, a line now and then otherwise.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use tokio::time::Instant;

use crate::document::{Fault, Faults};
use crate::run::Progress;
use crate::screen;
use crate::sink;

use super::exit::Exit;
use super::print::{Unwritten, is_seen, say_coloured, say_lines};
pub(super) use super::print::{say, say_json};
use super::status;

/// How often a line is written where nothing can be drawn over.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// How often machines are told.
const JSON_EVERY: Duration = Duration::from_secs(1);

/// Faults that people are shown at once: a file of the wrong kind has one in each of its lines.
const SHOWN: usize = 20;

/// How a run is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// Drawn over itself.
    Drawn,
    /// A line every few seconds.
    Lines,
    /// A JSON line every second.
    Json,
    /// Not at all.
    Quiet,
}

/// A fault as machines are told it.
#[derive(Serialize)]
struct JsonFault<'a> {
    /// `FILE:LINE:COLUMN`.
    place: Option<String>,
    message: &'a str,
    advice: Option<&'a str>,
}

impl Mode {
    pub(super) fn choose(quiet: bool, json: bool) -> Self {
        match (quiet, json, is_seen()) {
            (true, ..) => Self::Quiet,
            (_, true, _) => Self::Json,
            (_, _, true) => Self::Drawn,
            (_, _, false) => Self::Lines,
        }
    }

    /// Says what is good to know, unless it is to be quiet.
    pub(super) fn note(self, text: &str) {
        match self {
            Self::Quiet => {}
            Self::Json => say_json("note", &text),
            Self::Drawn | Self::Lines => say(text),
        }
    }

    /// Says why the program ends with `exit`; also when it is to be quiet, unless all is well.
    pub(super) fn end(self, text: &str, exit: Exit) -> Exit {
        match self {
            Self::Quiet if exit != Exit::Done => say(text),
            Self::Quiet | Self::Json | Self::Drawn | Self::Lines => self.note(text),
        }
        exit
    }

    /// Shows an error with the whole chain of its causes, and returns `exit`. Where the reader of an output has gone
    /// nothing is shown.
    pub(super) fn fail(self, error: &anyhow::Error, exit: Exit) -> Exit {
        if is_broken_pipe(error) {
            return Exit::BrokenPipe;
        }
        match self {
            Self::Json => say_json("error", &format!("{error:#}")),
            Self::Drawn | Self::Lines | Self::Quiet => say(&format!("error: {error:#}")),
        }
        exit
    }

    /// Shows faults, each with its place: all of them to machines, the first to people.
    pub(super) fn refuse(self, all: &Faults) -> Exit {
        let faults = &Faults(all.0.iter().take(SHOWN).cloned().collect());
        match self {
            Self::Json => {
                let fault = |fault: &'_ Fault| {
                    let place = fault.place.as_ref().map(ToString::to_string);
                    serde_json::json!(JsonFault {
                        place,
                        message: &fault.message,
                        advice: fault.advice.as_deref()
                    })
                };
                say_json("faults", &all.0.iter().map(fault).collect::<Vec<_>>());
            }
            Self::Drawn | Self::Lines if is_seen() => say_coloured(&faults.render(true)),
            Self::Drawn | Self::Lines => say_lines(&faults.render(false)),
            Self::Quiet => faults.0.iter().for_each(|fault| say(&format!("error: {fault}"))),
        }
        let more = all.0.len() - faults.0.len();
        if more > 0 && self != Self::Json {
            say(&format!("and {more} more"));
        }
        Exit::Configuration
    }
}

/// Returns whether `error` says that the reader of an output has gone, as `head` does.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref().is_some_and(sink::Error::is_broken_pipe)
        || error.downcast_ref().is_some_and(Unwritten::is_broken_pipe)
}

/// The display of one run.
pub(super) struct Live {
    mode: Mode,
    bar: ProgressBar,
    title: String,
    last: Option<Instant>,
}

impl Live {
    pub(super) fn new(mode: Mode, title: &str) -> Self {
        let target = if mode == Mode::Drawn {
            ProgressDrawTarget::stderr_with_hz(5)
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(None, target);
        // The template is ours and fixed; without it the bar would show less, not nothing.
        bar.set_style(
            ProgressStyle::with_template("{msg}").unwrap_or_else(|_| ProgressStyle::default_spinner()),
        );
        Self { mode, bar, title: title.to_owned(), last: None }
    }

    /// Returns what a log line has to be written around.
    pub(super) fn bar(&self) -> ProgressBar {
        self.bar.clone()
    }

    /// Shows `progress`, if it is time.
    pub(super) fn show(&mut self, progress: &Progress) {
        let now = Instant::now();
        let due = |every| self.last.is_none_or(|last| now - last >= every);
        match self.mode {
            Mode::Quiet => {}
            Mode::Drawn => {
                // A terminal shows `^C` where the cursor stands, at the end of the last line: there must be
                // room for it, or it begins a line that nobody clears away.
                let width = usize::from(console::Term::stderr().size().1).saturating_sub(3);
                self.bar.set_message(drawn(&status::lines(&self.title, progress, width), width));
                self.bar.tick();
            }
            Mode::Lines if due(LINE_EVERY) => {
                self.last = Some(now);
                say(&status::line(&self.title, progress));
            }
            Mode::Json if due(JSON_EVERY) => {
                self.last = Some(now);
                say_json("progress", progress);
            }
            Mode::Lines | Mode::Json => {}
        }
    }

    /// Calls the run by its pipeline's name.
    pub(super) fn name(&mut self, name: &str) {
        self.title = name.to_owned();
    }

    /// Says something beside the display, unless it is to be quiet.
    pub(super) fn note(&self, text: &str) {
        self.bar.suspend(|| self.mode.note(text));
    }

    /// Takes the display away.
    pub(super) fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

/// Returns the lines of a display that is `width` columns wide.
fn drawn(lines: &[String], width: usize) -> String {
    let lines = lines.iter().map(|line| console::truncate_str(&screen::line(line), width, "…").into_owned());
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_display_is_no_wider_than_its_columns_whatever_an_item_is_called() {
        for key in [
            "請求書-二〇二六年十一月二十八日-株式会社山田商事",
            "👩‍👩‍👧👩‍👩‍👧👩‍👩‍👧👩‍👩‍👧👩‍👩‍👧👩‍👩‍👧",
            "\u{1b}[2J\nsecond line\u{202e}",
            "e\u{301}e\u{301}",
        ] {
            let progress = Progress { oldest: Some((key.into(), 3.0)), ..Progress::default() };
            for title in ["email", "請求書"] {
                for width in [20, 40, 77] {
                    let shown = drawn(&status::lines(title, &progress, width), width);
                    assert_eq!(shown.lines().count(), 4, "{shown}");
                    for line in shown.lines() {
                        assert!(console::measure_text_width(line) <= width, "{line}");
                        assert_eq!(screen::line(line), line);
                    }
                }
            }
        }
    }

    #[test]
    fn the_lines_of_a_display_begin_in_one_column() {
        let progress = Progress { oldest: Some(("k".into(), 3.0)), ..Progress::default() };
        let shown = drawn(&status::lines("請求書", &progress, 80), 80);
        let columns: Vec<usize> = shown
            .lines()
            .map(|line| console::measure_text_width(&line[..line.find("  ").unwrap()]))
            .collect();
        // The first has the title, the others as many spaces.
        assert_eq!(columns[0], 6);
        let second = shown.lines().nth(1).unwrap();
        assert_eq!(second.len() - second.trim_start().len(), 6 + 2);
    }
}
