//! Whole runs, as a user sees them: the program, its files, its exit codes.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![expect(clippy::panic, reason = "a test that waited in vain says for what")]

mod bad_input;
mod check;
mod embed;
mod environment;
mod library;
mod program;
mod run;
mod simulate;
mod stop;
