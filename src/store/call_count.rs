//! How many calls left, and when, as a store counts them for the limits of a day.

use std::time::Duration;

use crate::types::LaneName;

/// Calls to one target that left within the same ten minutes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallCount {
    /// The target.
    pub target: LaneName,
    /// How long ago these ten minutes began; zero for those that the clock has yet to reach.
    pub age: Duration,
    /// The number of calls.
    pub calls: u64,
}
