//! Loads the configuration of a command.

use std::path::Path;

use crate::config::Config;
use crate::diagnostics::Diagnostics;
use crate::guard::ScopeSettings;
use crate::provider::process_env;

/// Loads the configuration with the process's environment, with every target simulated if `simulate` is set.
pub(super) fn load(path: Option<&Path>, simulate: bool) -> Result<Config, Diagnostics> {
    let config = Config::load_with(path, &process_env)?;
    Ok(if simulate { config.simulated() } else { config })
}

/// Returns a note if the configuration limits scopes, which the command line cannot name. A run that a library has begun
/// may have one.
pub(super) fn scope_note(config: &Config) -> Option<&'static str> {
    let is_limited = config.scopes.values().any(ScopeSettings::is_limited) || !config.budget.scope.is_empty();
    is_limited.then_some(
        "the limits and budgets of scopes apply only to runs with a scope, which programs that use the library name",
    )
}
