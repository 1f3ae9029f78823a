//! `pointsman check`: all problems of a configuration and pipelines at once.

use crate::provider::process_env;
use crate::runtime;

use super::args::Check;
use super::config::{load, scope_note};
use super::exit::Exit;
use super::progress::{Mode, eprint_line};

/// Checks a configuration and pipelines. Runs no key command and sends no request.
pub(super) fn check(args: &Check) -> Exit {
    let mode = Mode::Lines;
    let config = match load(args.config.as_deref(), args.simulate) {
        Ok(config) => config,
        Err(diagnostics) => return mode.report_diagnostics(&diagnostics),
    };
    let notes = match runtime::check(&config, &args.pipelines, &process_env) {
        Ok(notes) => notes,
        Err(diagnostics) => return mode.report_diagnostics(&diagnostics),
    };
    notes.iter().map(String::as_str).chain(scope_note(&config)).for_each(eprint_line);
    let pipelines = match args.pipelines.len() {
        0 => String::new(),
        1 => " and 1 pipeline".to_owned(),
        count => format!(" and {count} pipelines"),
    };
    eprint_line(&format!("the configuration{pipelines}: no problems found"));
    Exit::Success
}
