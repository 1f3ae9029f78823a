//! Loads the configuration of a command.

use std::path::{Path, PathBuf};

use crate::config::{Config, FILE_NAMES, LoadOptions};
use crate::diagnostics::Diagnostics;
use crate::guard::ScopeSettings;
use crate::provider::process_env;
use crate::store::StoreUrl;

use super::args::Run;
use super::step_args::StepArgs;

/// Loads the configuration with the process's environment, with every target simulated if `simulate` is set.
pub(super) fn load(path: Option<&Path>, simulate: bool) -> Result<Config, Diagnostics> {
    load_beside(None, path, simulate)
}

/// Loads the configuration of a command with a pipeline, which may be in the folder of the pipeline.
pub(super) fn load_beside(
    pipeline: Option<&Path>,
    path: Option<&Path>,
    simulate: bool,
) -> Result<Config, Diagnostics> {
    let options = LoadOptions::new().with_file(path).with_pipeline(pipeline);
    Config::load_as(options.with_simulated_targets(simulate), &process_env)
}

/// Returns whether there is a configuration file, also without `--config`.
#[cfg(feature = "server")]
pub(super) fn is_file_found(path: Option<&Path>) -> bool {
    Config::locate(LoadOptions::new().with_file(path), &process_env).is_some()
}

/// Returns the files that are the configuration of a command, or would be: no output may replace them.
pub(super) fn used_files(path: Option<&Path>) -> Vec<PathBuf> {
    path.map_or_else(|| FILE_NAMES.map(PathBuf::from).to_vec(), |path| vec![path.to_owned()])
}

/// Returns the arguments with the configuration that was found outside of the working directory, so that a stored run names
/// it; and with its store, if the commands for stored runs would not find that.
pub(super) fn with_found_file(args: &Run, config: &Config) -> Run {
    let mut args = args.clone();
    let is_here = |file: &Path| FILE_NAMES.iter().any(|name| file == Path::new(name));
    let Some(file) = config.file().filter(|file| args.config.is_none() && !is_here(file)) else {
        return args;
    };
    args.config = Some(file.to_owned());
    if Config::locate(LoadOptions::new(), &process_env).as_deref() != Some(file)
        && args.stored.store.is_none()
    {
        args.stored.store = Some(config.store.url.clone()).filter(|url| *url != StoreUrl::default());
    }
    args
}

/// Loads the configuration of a command with settings of steps: with its only model, if it names one.
pub(super) fn load_for(
    step: &StepArgs,
    pipeline: Option<&Path>,
    path: Option<&Path>,
    simulate: bool,
) -> Result<Config, Diagnostics> {
    let options = LoadOptions::new().with_file(path).with_pipeline(pipeline);
    let options = options.with_model(step.answer.model.as_deref()).with_simulated_targets(simulate);
    let mut config = Config::load_as(options, &process_env)?;
    if let Some(requests) = step.concurrency {
        config.set_max_concurrency(requests);
    }
    Ok(config)
}

/// Returns a note if the configuration limits scopes, which the command line cannot name. A run that a library has begun
/// may have one.
pub(super) fn scope_note(config: &Config) -> Option<&'static str> {
    let is_limited = config.scopes.values().any(ScopeSettings::is_limited) || !config.budget.scope.is_empty();
    is_limited.then_some(
        "the limits and budgets of scopes apply only to runs with a scope, which programs that use the library name",
    )
}
