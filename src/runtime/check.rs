//! Checks a configuration and pipelines as a run would, without starting anything.

use std::path::PathBuf;

use indexmap::IndexSet;

use crate::config::Config;
use crate::document::Faults;
use crate::pipeline::Pipeline;
use crate::provider::Env;
use crate::types::RouteName;

use super::purses::Purses;

/// Finds everything for which a run of one of `pipelines` would be refused, and returns what is good to know. Starts
/// nothing and runs no key command: each is taken to give a key. Without a pipeline the default route must have a
/// target that can be used, or any route where there is no default.
///
/// # Errors
/// Every fault at once.
pub fn check(config: &Config, pipelines: &[PathBuf], env: Env<'_>) -> Result<Vec<String>, Faults> {
    let routes: Vec<RouteName> = config.routes.keys().cloned().collect();
    let mut faults = Faults::default();
    let mut read = Vec::new();
    for path in pipelines {
        match Pipeline::load(path, &config.defaults, &routes) {
            Ok(pipeline) => read.push(pipeline),
            Err(more) => faults.extend(more),
        }
    }
    let usable = match config.preview(env) {
        Ok(usable) => usable,
        Err(more) => {
            faults.extend(more);
            return Err(faults);
        }
    };
    let mut asked: IndexSet<&RouteName> = read.iter().flat_map(Pipeline::routes).collect();
    if pipelines.is_empty() {
        match &config.defaults.route {
            Some(route) => asked.extend([route]),
            None if usable.routes.is_empty() => asked.extend(config.routes.keys()),
            None => {}
        }
    }
    if let Err(more) = usable.check(asked.iter().copied()) {
        faults.extend(more);
    }
    let mut notes = usable.notes.clone();
    let routes = asked.iter().filter_map(|route| usable.route(route).ok());
    let targets = routes.flat_map(|route| route.lanes.iter().map(|lane| lane.name.clone()));
    let is_capped = config.budget.run.is_some();
    match Purses::new(&config.budget).check(&usable, targets, is_capped) {
        Ok(more) => notes.extend(more),
        Err(more) => faults.extend(more),
    }
    faults.or(notes)
}
