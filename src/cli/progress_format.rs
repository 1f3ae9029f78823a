//! The option that decides how the progress of a run is shown.

use clap::ValueEnum;

/// How the progress of a run is shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum ProgressFormat {
    /// The default: a bar on a terminal, else lines. Nothing with --quiet, and JSON lines with --json.
    #[default]
    Auto,
    /// A bar that is redrawn in place, also if stderr is no terminal.
    Bar,
    /// A line every 5 seconds.
    Plain,
    /// A JSON line `{"progress": ...}` every second.
    Json,
    /// No progress, but notes and the report.
    None,
}
