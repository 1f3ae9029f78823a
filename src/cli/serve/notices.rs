//! What `serve` itself reports: plain lines, or events if the log has the format JSON, so that each line of stderr is an
//! object.

use tracing::{error, info, warn};

use crate::cli::advice;
use crate::cli::args::LogFormat;
use crate::cli::exit::Exit;
use crate::cli::print::eprint_line;
use crate::cli::progress::Mode;
use crate::diagnostics::Diagnostics;

/// The target of the events.
const TARGET: &str = "pointsman::serve";

/// Reports what `serve` does.
#[derive(Debug, Clone, Copy)]
pub(super) struct Notices(LogFormat);

impl Notices {
    /// Creates it for a log of this format, which has started.
    pub(super) fn new(format: LogFormat) -> Self {
        if format == LogFormat::Json {
            // A panic is contained and logged by its supervisor; its message has to be an object too.
            std::panic::set_hook(Box::new(|panic| error!(target: TARGET, "{panic}")));
        }
        Self(format)
    }

    /// Reports normal operation.
    pub(super) fn info(self, text: &str) {
        match self.0 {
            LogFormat::Text => eprint_line(text),
            LogFormat::Json => info!(target: TARGET, "{text}"),
        }
    }

    /// Reports what the user may want to act on.
    pub(super) fn warn(self, text: &str) {
        match self.0 {
            LogFormat::Text => eprint_line(text),
            LogFormat::Json => warn!(target: TARGET, "{text}"),
        }
    }

    /// Reports an error after which the daemon stops.
    pub(super) fn error(self, text: &str) {
        match self.0 {
            LogFormat::Text => eprint_line(text),
            LogFormat::Json => error!(target: TARGET, "{text}"),
        }
    }

    /// Reports what the daemon has written to a log of the format JSON itself.
    pub(super) fn info_in_text(self, text: &str) {
        match self.0 {
            LogFormat::Text => eprint_line(text),
            LogFormat::Json => {}
        }
    }

    /// Reports faults that the daemon has written to a log of the format JSON itself.
    pub(super) fn diagnostics_in_text(self, all: &Diagnostics) {
        match self.0 {
            LogFormat::Text => {
                Mode::Lines.report_diagnostics(all);
            }
            LogFormat::Json => {}
        }
    }

    /// Reports all faults, and returns the exit code.
    pub(super) fn diagnostics(self, all: &Diagnostics) -> Exit {
        match self.0 {
            LogFormat::Text => Mode::Lines.report_diagnostics(all),
            LogFormat::Json => {
                for diagnostic in advice::with_options(all.clone()).0 {
                    let location = diagnostic.span.as_ref().map(ToString::to_string);
                    let help = diagnostic.help.as_ref().map(ToString::to_string);
                    error!(target: TARGET, location, help, "{}", diagnostic.message);
                }
                Exit::Configuration
            }
        }
    }

    /// Reports an error with the chain of its causes, and returns `exit`.
    pub(super) fn fail(self, error: &anyhow::Error, exit: Exit) -> Exit {
        match self.0 {
            LogFormat::Text => Mode::Lines.fail(error, exit),
            LogFormat::Json => {
                error!(target: TARGET, "{}", advice::error_text(error));
                exit
            }
        }
    }
}
