//! What a request concludes from how its targets are doing.

use tokio::time::Instant;

use crate::types::Priority;

use super::super::plan::End;
use super::super::unusable;
use super::Flow;

/// Attempts of a request after which a rate limit is its own that refuses it while others are answered.
const ATTEMPTS_BESIDE_OTHERS: usize = 10;

impl Flow {
    /// Returns the end of a request that must not be delayed, where none of its targets can be used in its time: its
    /// caller decides what to do meanwhile.
    pub(super) fn fails_fast(&self, now: Instant) -> Option<End> {
        if self.ask.priority != Priority::Interactive {
            return None;
        }
        let time = self.ask.deadline.saturating_duration_since(now);
        let (lane, outage) = unusable::outage(&self.lanes, time, now)?;
        Some(End { failure: outage.failure, lane: Some(lane) })
    }

    /// Returns whether a target has refused the request often enough for its rate limit, while it answers others.
    pub(super) fn is_limited_alone(&self, lane: usize) -> bool {
        self.trail.calls() >= ATTEMPTS_BESIDE_OTHERS && self.others.are_answered(lane, &self.lanes)
    }
}
