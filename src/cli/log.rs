//! Sends what the library logs to stderr, around a live display and never through it.

use std::io::{self, Write};

use indicatif::ProgressBar;
use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use super::live::{Mode, say_json};
use super::print::say_log;

/// Starts logging: warnings, with `verbose` more; `bar` is taken away while a line is written. For
/// machines a line is JSON, `{"log": ...}`.
pub(super) fn start(verbose: u8, bar: ProgressBar, mode: Mode) {
    let level = match verbose {
        0 => Level::WARN,
        1 => Level::DEBUG,
        _ => Level::TRACE,
    };
    let ours = Targets::new().with_target("pointsman", level).with_default(Level::ERROR);
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(Around { bar, json: mode == Mode::Json })
        .with_target(false)
        .without_time()
        // Colours would be told apart from those that a field holds no more.
        .with_ansi(false);
    // A second start in one process keeps the first.
    drop(tracing_subscriber::registry().with(ours).with(lines).try_init());
}

struct Around {
    bar: ProgressBar,
    json: bool,
}

impl<'a> MakeWriter<'a> for Around {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { around: self, text: Vec::new() }
    }
}

/// Gathers a line and writes it whole when it is done.
struct Line<'a> {
    around: &'a Around,
    text: Vec<u8>,
}

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        self.around.bar.suspend(|| {
            let text = String::from_utf8_lossy(&self.text);
            let text = text.trim_end();
            if self.around.json { say_json("log", &text.trim_start()) } else { say_log(text) }
        });
    }
}
