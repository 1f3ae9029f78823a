//! The command line: one file per command. This is the only module that prints.
//!
//! Data goes to stdout, everything else to stderr. All logic is in the library.

mod advice;
mod answer_table;
mod args;
mod ask;
mod cache;
mod cache_args;
mod check;
mod check_items;
mod color;
mod completions;
mod config;
mod config_args;
mod exit;
mod help_topics;
mod init;
mod input_args;
mod io;
mod limit;
mod limits;
mod line_format;
mod live_lines;
mod log;
mod main;
mod man;
mod metrics;
mod models;
mod next_command;
mod open_store;
#[cfg(feature = "otel")]
mod otlp;
mod output_args;
mod pause;
mod plan;
mod prices;
mod print;
mod progress;
mod progress_format;
mod progress_text;
#[cfg(feature = "server")]
mod remote;
mod results;
mod resume;
mod run;
mod runs;
mod saved_args;
#[cfg(feature = "server")]
mod serve;
mod shell_args;
mod shell_word;
mod show_config;
mod signals;
#[cfg(feature = "simulator")]
mod simulate;
#[cfg(feature = "server")]
mod status;
mod stderr;
mod step_args;
#[cfg(feature = "server")]
mod systemd;
mod table;
#[cfg(feature = "server")]
mod token;
#[cfg(feature = "server")]
mod top;
mod version;
mod watch;

pub use exit::Exit;
pub use main::main;
