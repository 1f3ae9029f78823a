//! When a run pauses: options of the caller, with defaults from the configuration.

use crate::config::{MaxHold, RunSettings};
use crate::run::{MaxFailures, RunLimits};

/// When a run pauses. `None` uses the value of `[run]`. If that is not set either, a run of the library holds
/// without a limit (the command line: 10 minutes), and a run pauses when 50 items in a row have failed with
/// none completed between them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PauseOptions {
    /// How long it may hold.
    pub max_hold: Option<MaxHold>,
    /// How many of its items may fail, not counting failures of providers, limits and accounts.
    pub max_failures: Option<MaxFailures>,
    /// Whether items whose requests hold for longer than `max_hold` fail, instead of the run pausing.
    pub give_up: bool,
}

impl PauseOptions {
    pub(super) fn or_configured(self, settings: &RunSettings) -> RunLimits {
        RunLimits {
            max_hold: self.max_hold.or(settings.max_hold).and_then(MaxHold::limit),
            max_failures: self.max_failures.or(settings.max_failures).unwrap_or_default(),
            fail_held_items: self.give_up,
        }
    }
}
