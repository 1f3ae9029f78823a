//! The command line: one file per command. This is the only module that prints.
//!
//! Data goes to stdout, everything else to stderr. All logic is in the library.

mod advice;
mod args;
mod check;
mod config;
mod exit;
mod io;
mod limits;
mod log;
mod main;
mod metrics;
mod next_command;
mod open_store;
#[cfg(feature = "otel")]
mod otlp;
mod pause;
mod plan;
mod prices;
mod print;
mod progress;
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
mod shell_word;
mod signals;
#[cfg(feature = "simulator")]
mod simulate;
#[cfg(feature = "server")]
mod status;
mod stderr;
#[cfg(feature = "server")]
mod systemd;
mod table;
#[cfg(feature = "server")]
mod token;
#[cfg(feature = "server")]
mod top;
mod watch;

pub use exit::Exit;
pub use main::main;
