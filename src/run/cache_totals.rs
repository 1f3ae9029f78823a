//! What the answer cache answered.

use super::report::CacheReport;
use crate::store::StepRecord;
use crate::types::NanoUsd;

/// What the answer cache answered, and the requests that were sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct CacheTotals {
    /// Answers of the cache.
    pub(super) hits: u64,
    /// What their requests had cost, as far as it is known.
    pub(super) saved: NanoUsd,
    /// Requests that were sent; one with all its attempts counts once.
    pub(super) sent: u64,
}

impl CacheTotals {
    /// Counts a stored record of a step.
    pub(super) fn count(&mut self, record: &StepRecord) {
        if let Some(reused) = &record.reused {
            self.hits += 1;
            self.saved += reused.cost.unwrap_or(NanoUsd(0));
        } else if record.attempts.calls() > 0 {
            self.sent += 1;
        }
    }

    /// Returns the part of the report; `None` if the cache answered nothing.
    pub(super) fn report(self) -> Option<CacheReport> {
        let Self { hits, saved, sent } = self;
        let requests = hits.saturating_add(sent);
        (hits > 0).then(|| CacheReport { answers: hits, requests, saved_usd: saved.dollars() })
    }
}
