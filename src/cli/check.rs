//! `pointsman check`: everything that is wrong with a configuration and pipelines, at once.

use crate::provider::process_env;
use crate::runtime;

use super::args::Check;
use super::exit::Exit;
use super::live::{Mode, say};
use super::run::load;

/// Checks a configuration and pipelines, and runs nothing: no key is read by command, nothing is called.
pub(super) fn check(args: &Check) -> Exit {
    let mode = Mode::Lines;
    let config = match load(args.config.as_deref(), args.simulate) {
        Ok(config) => config,
        Err(faults) => return mode.refuse(&faults),
    };
    let notes = match runtime::check(&config, &args.pipelines, &process_env) {
        Ok(notes) => notes,
        Err(faults) => return mode.refuse(&faults),
    };
    notes.iter().for_each(|note| say(note));
    let pipelines = match args.pipelines.len() {
        0 => String::new(),
        1 => " and 1 pipeline".to_owned(),
        more => format!(" and {more} pipelines"),
    };
    say(&format!("the configuration{pipelines}: no fault found"));
    Exit::Done
}
