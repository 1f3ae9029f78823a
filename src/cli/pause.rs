//! The arguments that say when a run pauses.

use std::time::Duration;

use crate::config::{MaxHold, RunSettings};
use crate::run::MaxFailures;
use crate::runtime::PauseOptions;

/// How long a command holds where neither it nor the configuration says so.
const MAX_HOLD: Duration = Duration::from_mins(10);

/// When a run pauses.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub(super) struct PauseArgs {
    /// Hold without an end while an account, a limit or a provider lets no request through [default: pause after
    /// `[run] max_hold`, else after 10 minutes].
    #[arg(long)]
    pub(super) wait: bool,
    /// Fail the items whose requests hold for longer than a run may hold, instead of pausing; `retry` asks them again. Items
    /// that have not begun stay open.
    #[arg(long, conflicts_with = "wait")]
    pub(super) give_up: bool,
    /// Pause when so many items have failed for their own reasons: a number, a share such as 5%, or none [default:
    /// `[run] max_failures`, else 50 in a row with none completed between them].
    #[arg(long, value_name = "ITEMS", allow_negative_numbers = true)]
    pub(super) max_failures: Option<MaxFailures>,
}

impl PauseArgs {
    /// Returns when a run pauses whose configuration is `settings`.
    pub(super) fn options(self, settings: &RunSettings) -> PauseOptions {
        let max_hold = match (self.wait, settings.max_hold) {
            (true, _) => MaxHold::Unlimited,
            (false, Some(max_hold)) => max_hold,
            (false, None) => MaxHold::For(MAX_HOLD),
        };
        PauseOptions { max_hold: Some(max_hold), max_failures: self.max_failures, give_up: self.give_up }
    }
}
