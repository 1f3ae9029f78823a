//! Writes the library's log to stderr without damaging the progress display.

use std::io::{self, Write};

use indicatif::ProgressBar;
use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use super::print::eprint_log;
use super::progress::{Mode, eprint_json};

/// Starts logging: warnings, and more with `verbose`. `bar` is suspended while a line is written. In JSON mode a
/// line is `{"log": ...}`.
pub(super) fn start(verbose: u8, bar: ProgressBar, mode: Mode) {
    let level = match verbose {
        0 => Level::WARN,
        1 => Level::DEBUG,
        _ => Level::TRACE,
    };
    let ours = Targets::new().with_target("pointsman", level).with_default(Level::ERROR);
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(LogWriter { bar, json: mode == Mode::Json })
        .with_target(false)
        .without_time()
        // If the log had colors, escape sequences in a field could not be recognized and removed.
        .with_ansi(false);
    // If logging has started before in this process, the first logger stays.
    drop(tracing_subscriber::registry().with(ours).with(lines).try_init());
}

struct LogWriter {
    bar: ProgressBar,
    json: bool,
}

impl<'a> MakeWriter<'a> for LogWriter {
    type Writer = LogLine<'a>;

    fn make_writer(&'a self) -> LogLine<'a> {
        LogLine { around: self, text: Vec::new() }
    }
}

/// Collects a line and writes it at once when it is dropped.
struct LogLine<'a> {
    around: &'a LogWriter,
    text: Vec<u8>,
}

impl Write for LogLine<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for LogLine<'_> {
    fn drop(&mut self) {
        self.around.bar.suspend(|| {
            let text = String::from_utf8_lossy(&self.text);
            let text = text.trim_end();
            if self.around.json { eprint_json("log", &text.trim_start()) } else { eprint_log(text) }
        });
    }
}
