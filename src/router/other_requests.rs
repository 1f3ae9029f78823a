//! Whether a target that has failed a request answers other requests meanwhile.
//!
//! Only counts; the caller decides what to do.

use std::collections::BTreeMap;

use crate::types::AttemptCounts;

use super::target::TargetHandle;

/// The attempt counts of the targets of one request, each taken when its first attempt at that target failed.
#[derive(Debug, Default)]
pub(super) struct OtherRequests {
    counts_at_failure: BTreeMap<usize, AttemptCounts>,
}

impl OtherRequests {
    /// Records that an attempt at the target with this index has failed. The provider has counted it already.
    pub(super) fn record_failure(&mut self, target: usize, targets: &[TargetHandle]) {
        self.counts_at_failure.entry(target).or_insert_with(|| counts(&targets[target]));
    }

    /// Returns whether the target with this index has answered other requests since that failure.
    pub(super) fn were_answered(&self, target: usize, targets: &[TargetHandle]) -> bool {
        let at_failure = self.counts_at_failure.get(&target);
        at_failure.is_some_and(|earlier| counts(&targets[target]).since(*earlier).answered > 0)
    }
}

fn counts(target: &TargetHandle) -> AttemptCounts {
    target.provider.attempt_counts(&target.name.model)
}
