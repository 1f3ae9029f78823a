//! The arguments that decide when a run pauses.

use std::time::Duration;

use crate::config::{MaxHold, RunSettings};
use crate::run::MaxFailures;
use crate::runtime::PauseOptions;

/// How long a run holds if neither the command nor the configuration sets a limit.
const DEFAULT_MAX_HOLD: Duration = Duration::from_mins(10);

/// When a run pauses.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub(super) struct PauseArgs {
    /// Hold without a time limit while no request can succeed, because an account or a limit is exhausted or a
    /// provider is down [default: pause after `[run] max_hold`, else after 10 minutes].
    #[arg(long)]
    pub(super) wait: bool,
    /// Instead of pausing after `max_hold`, fail the items whose requests are held; `retry` processes them
    /// again. Items that have not started are left for `resume`.
    #[arg(long, conflicts_with = "wait")]
    pub(super) give_up: bool,
    /// Pause when this many items have failed, not counting failures of providers, limits and accounts: a
    /// number, a share such as 5%, or none [default: `[run] max_failures`, else 50 in a row with none
    /// completed between them].
    #[arg(long, value_name = "ITEMS", allow_negative_numbers = true)]
    pub(super) max_failures: Option<MaxFailures>,
}

impl PauseArgs {
    /// Returns the pause options of a run with the configuration `settings`.
    pub(super) fn options(self, settings: &RunSettings) -> PauseOptions {
        let max_hold = match (self.wait, settings.max_hold) {
            (true, _) => MaxHold::Unlimited,
            (false, Some(max_hold)) => max_hold,
            (false, None) => MaxHold::For(DEFAULT_MAX_HOLD),
        };
        PauseOptions { max_hold: Some(max_hold), max_failures: self.max_failures, give_up: self.give_up }
    }
}
