//! How the attempts of other requests end while one fails: whether its targets work is seen by that.
//!
//! Only counts; what follows from it is its asker's.

use std::collections::BTreeMap;

use crate::types::AttemptCounts;

use super::lane::LaneHandle;

/// What the targets that a request tried had counted when its first attempt there failed.
#[derive(Debug, Default)]
pub(super) struct Others {
    targets: BTreeMap<usize, AttemptCounts>,
}

impl Others {
    /// Notes that an attempt at the target of this number has failed, and was counted.
    pub(super) fn failed(&mut self, target: usize, targets: &[LaneHandle]) {
        self.targets.entry(target).or_insert_with(|| counts(&targets[target]));
    }

    /// Returns whether the target of this number has answered others since.
    pub(super) fn are_answered(&self, target: usize, targets: &[LaneHandle]) -> bool {
        let known = self.targets.get(&target);
        known.is_some_and(|known| counts(&targets[target]).since(*known).answered > 0)
    }
}

fn counts(target: &LaneHandle) -> AttemptCounts {
    target.provider.attempt_counts(&target.name.model)
}
