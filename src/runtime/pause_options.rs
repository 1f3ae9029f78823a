//! When a run pauses: options of the caller, with defaults from the configuration.

use crate::config::{MaxHold, RunSettings};
use crate::run::{MaxFailures, RunLimits};

/// When a run pauses. `None` uses the value of `[run]`. If that is not set either, a run of the library holds
/// without a limit (the program: 10 minutes), and a run pauses when 50 items in a row have failed with
/// none completed between them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PauseOptions {
    /// How long it may hold.
    pub max_hold: Option<MaxHold>,
    /// How many of its items may fail, not counting failures of providers, limits and accounts.
    pub max_failures: Option<MaxFailures>,
    /// Whether items whose requests hold for longer than `max_hold` fail, instead of the run pausing.
    pub give_up: bool,
}

impl PauseOptions {
    /// Creates options that use the values of the configuration.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets how long the run may hold.
    #[must_use]
    pub fn with_max_hold(mut self, max_hold: impl Into<MaxHold>) -> Self {
        self.max_hold = Some(max_hold.into());
        self
    }

    /// Sets how many items of the run may fail.
    #[must_use]
    pub fn with_max_failures(mut self, max_failures: MaxFailures) -> Self {
        self.max_failures = Some(max_failures);
        self
    }

    /// Sets whether items whose requests hold for longer than the run may hold fail, instead of the run pausing.
    #[must_use]
    pub fn with_give_up(mut self, give_up: bool) -> Self {
        self.give_up = give_up;
        self
    }

    pub(super) fn or_configured(self, settings: &RunSettings) -> RunLimits {
        RunLimits {
            max_hold: self.max_hold.or(settings.max_hold).and_then(MaxHold::limit),
            max_failures: self.max_failures.or(settings.max_failures).unwrap_or_default(),
            fail_held_items: self.give_up,
        }
    }
}
