//! Who asks: what fairness between runs and the learning of sizes go by.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::StepName;

/// One run of this process, for as long as the process lives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId(u64);

impl RunId {
    /// Returns an id that no other run of this process has.
    pub fn next() -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        Self(LAST.fetch_add(1, Relaxed) + 1)
    }
}

/// The item that a request is of: a run, and the item's rank in it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ItemOfRun(RunId, u64);

/// Who asks. The default is nobody in particular: all of those share one turn among the runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Asker {
    /// The run that the question belongs to; runs share a provider evenly.
    pub run: RunId,
    /// The step that it belongs to; how long answers are is learned for each.
    pub step: Option<StepName>,
    /// Its rank within its run: of the calls of one run that wait, those of the lowest rank leave first. A run gives the
    /// calls of an item the item's number, so that items that began early end early.
    pub rank: u64,
    /// Whether the request has failed before, so that an attempt of it is no first one.
    pub has_failed: bool,
}

impl Asker {
    /// Returns the item that the request is of.
    pub fn item(&self) -> ItemOfRun {
        ItemOfRun(self.run, self.rank)
    }
}
