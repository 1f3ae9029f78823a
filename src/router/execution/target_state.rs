//! Decisions of an execution that depend on the state of its targets.

use tokio::time::Instant;

use crate::types::Priority;

use super::super::outage;
use super::super::retry_plan::RequestFailure;
use super::Execution;

/// Number of attempts after which a rate limit is attributed to the request itself, if the target answers other
/// requests.
const MIN_ATTEMPTS_FOR_OWN_LIMIT: usize = 10;

impl Execution {
    /// Returns the failure of an interactive request if none of its targets is usable before its deadline. The
    /// caller decides what to do meanwhile.
    pub(super) fn fail_fast(&self, now: Instant) -> Option<RequestFailure> {
        if self.request.priority != Priority::Interactive {
            return None;
        }
        let max_wait = self.request.deadline.saturating_duration_since(now);
        let (target, outage) = outage::common_outage(&self.targets, max_wait, now)?;
        Some(RequestFailure { failure: outage.failure, target: Some(target) })
    }

    /// Returns whether the rate limit of a target is attributed to the request itself: it was attempted often
    /// enough, and the target answers other requests.
    pub(super) fn is_limited_by_itself(&self, target: usize) -> bool {
        self.attempts.calls() >= MIN_ATTEMPTS_FOR_OWN_LIMIT
            && self.other_requests.were_answered(target, &self.targets)
    }
}
