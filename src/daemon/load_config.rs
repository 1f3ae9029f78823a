//! How a daemon gets its configuration again.

use std::sync::Arc;

use crate::config::Config;
use crate::diagnostics::Diagnostics;

/// Loads the configuration, as at the start.
pub type LoadConfig = Arc<dyn Fn() -> Result<Config, Diagnostics> + Send + Sync>;
