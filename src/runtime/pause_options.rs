//! When a run pauses, as its caller says or the configuration does.

use crate::config::{MaxHold, RunSettings};
use crate::run::{MaxFailures, RunLimits};

/// When a run pauses. What is `None` is as `[run]` says; where that says nothing either, a run holds without an end, and
/// pauses when 50 items in a row have failed with none completed between them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PauseOptions {
    /// How long it may hold.
    pub max_hold: Option<MaxHold>,
    /// How many of its items may fail for their own reasons.
    pub max_failures: Option<MaxFailures>,
    /// Whether the items whose requests hold for longer fail, instead of the run pausing for them.
    pub give_up: bool,
}

impl PauseOptions {
    pub(super) fn or_configured(self, settings: &RunSettings) -> RunLimits {
        RunLimits {
            max_hold: self.max_hold.or(settings.max_hold).and_then(MaxHold::limit),
            max_failures: self.max_failures.or(settings.max_failures).unwrap_or_default(),
            give_up: self.give_up,
        }
    }
}
