//! How the attempts of other requests end while one fails: whether its targets work is seen by that.
//!
//! Only counts; what follows from it is its asker's.

use std::collections::BTreeMap;

use crate::types::AttemptCounts;

use super::lane::LaneHandle;

/// What the targets that a request tried had counted when its first attempt there failed.
#[derive(Debug, Default)]
pub(super) struct Others {
    targets: BTreeMap<usize, Target>,
}

#[derive(Debug)]
struct Target {
    /// With that failure in it.
    at_first: AttemptCounts,
    /// Failures of the request after it.
    own: u64,
}

impl Others {
    /// Notes that an attempt at the target of this number has failed, and was counted.
    pub(super) fn failed(&mut self, target: usize, targets: &[LaneHandle]) {
        match self.targets.get_mut(&target) {
            Some(known) => known.own += 1,
            None => {
                let at_first = counts(&targets[target]);
                self.targets.insert(target, Target { at_first, own: 0 });
            }
        }
    }

    /// Returns whether the target of this number has answered others since.
    pub(super) fn are_answered(&self, target: usize, targets: &[LaneHandle]) -> bool {
        let known = self.targets.get(&target);
        known.is_some_and(|known| counts(&targets[target]).since(known.at_first).answered > 0)
    }

    /// Returns how attempts of others have ended since, at the targets that have failed.
    pub(super) fn meanwhile(&self, targets: &[LaneHandle]) -> AttemptCounts {
        let since = |(number, Target { at_first, own }): (&usize, &Target)| {
            let since = counts(&targets[*number]).since(*at_first);
            AttemptCounts { failed: since.failed.saturating_sub(*own), ..since }
        };
        self.targets.iter().map(since).fold(AttemptCounts::default(), AttemptCounts::plus)
    }
}

fn counts(target: &LaneHandle) -> AttemptCounts {
    target.provider.attempt_counts(&target.name.model)
}
