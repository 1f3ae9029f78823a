//! Counts of sent calls, for the daily limits.

use std::time::Duration;

use crate::types::TargetName;

/// Calls to one target that were sent within the same ten minutes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallCount {
    /// The target.
    pub target: TargetName,
    /// The time since the start of these ten minutes; zero if it is in the future because the clock was set back.
    pub age: Duration,
    /// The number of calls.
    pub calls: u64,
}
