//! Loads the configuration of a command.

use std::path::Path;

use crate::config::Config;
use crate::diagnostics::Diagnostics;
use crate::provider::process_env;

/// Loads the configuration with the process's environment, with every target simulated if `simulate` is set.
pub(super) fn load(path: Option<&Path>, simulate: bool) -> Result<Config, Diagnostics> {
    let config = Config::load_with(path, &process_env)?;
    Ok(if simulate { config.simulated() } else { config })
}
