//! `pointsman check`: everything that is wrong with a configuration and pipelines, at once.

use crate::document::Faults;
use crate::pipeline::Pipeline;
use crate::types::RouteName;

use super::args::Check;
use super::exit::Exit;
use super::live::{Mode, say};
use super::run::load;

/// Checks a configuration and pipelines, and runs nothing: no key is read by command, nothing is called.
pub(super) fn check(args: &Check) -> Exit {
    let mode = Mode::Lines;
    let config = match load(args.config.as_deref()) {
        Ok(config) => config,
        Err(faults) => return mode.refuse(&faults),
    };
    let routes: Vec<RouteName> = config.routes.keys().cloned().collect();
    let mut faults = Faults::default();
    for path in &args.pipelines {
        if let Err(more) = Pipeline::load(path, &config.defaults, &routes) {
            faults.extend(more);
        }
    }
    let notes = match config.preview(&|name| std::env::var(name).ok()) {
        Ok(notes) => notes,
        Err(more) => {
            faults.extend(more);
            return mode.refuse(&faults);
        }
    };
    if !faults.0.is_empty() {
        return mode.refuse(&faults);
    }
    notes.iter().for_each(|note| say(note));
    let pipelines = match args.pipelines.len() {
        0 => String::new(),
        1 => " and 1 pipeline".to_owned(),
        more => format!(" and {more} pipelines"),
    };
    say(&format!("the configuration{pipelines}: no fault found"));
    Exit::Done
}
