//! When a run pauses: options of the caller, with defaults from the configuration.

use crate::config::{MaxHold, RunSettings};
use crate::run::{MaxFailures, RunLimits};

/// When a run pauses. `None` takes the value of `[run]`. Without that, a run holds without a limit, and pauses
/// when 50 items in a row have failed with none completed between them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PauseOptions {
    /// How long it may hold.
    pub max_hold: Option<MaxHold>,
    /// How many of its items may fail for reasons of their own.
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
