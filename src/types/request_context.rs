//! The context of a request, for fairness between runs and for statistics per step.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::{ScopeName, StepName};

/// The id of a run, unique within this process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId(u64);

impl RunId {
    /// Returns a new id.
    pub fn next() -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        Self(LAST.fetch_add(1, Relaxed) + 1)
    }
}

/// The item that a request belongs to: a run, and the rank of the item in it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RunItem(RunId, u64);

/// The context of a request. All requests with the default context are treated as one run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequestContext {
    /// The scope that the request belongs to. Scopes share a provider evenly, by tokens.
    pub scope: ScopeName,
    /// The run that the request belongs to. The runs of a scope share its part evenly, by tokens.
    pub run: RunId,
    /// The step that the request belongs to. Answer lengths are learned per scope and step.
    pub step: Option<StepName>,
    /// The order within the run: of the queued calls of one run, the lowest rank is sent first. A run uses the
    /// number of the item as the rank, so that items that started early finish early.
    pub rank: u64,
    /// Whether the request has failed before, so that its next attempt is not the first.
    pub has_failed: bool,
}

impl RequestContext {
    /// Returns the item that the request belongs to.
    pub fn item(&self) -> RunItem {
        RunItem(self.run, self.rank)
    }
}
