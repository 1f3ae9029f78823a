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
mod pause;
mod plan;
mod prices;
mod print;
mod progress;
mod results;
mod resume;
mod run;
mod runs;
mod saved_args;
mod shell_word;
mod signals;
#[cfg(feature = "server")]
mod simulate;
mod status;
mod stderr;
mod table;
mod watch;

pub use exit::Exit;
pub use main::main;
