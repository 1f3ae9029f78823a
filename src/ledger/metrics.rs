//! Counts of commits.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::telemetry::{Bounds, Histogram, Samples, table};

/// The commits of all ledgers that share it. A commit that failed is not counted. The time of a commit is from its start
/// until its records are durable, with attempts that panicked, and without the wait for the commit before.
#[derive(Debug)]
pub struct LedgerMetrics {
    commits: Histogram,
    records: AtomicU64,
}

impl Default for LedgerMetrics {
    fn default() -> Self {
        Self { commits: Histogram::new(Bounds::SHORT_SECONDS), records: AtomicU64::default() }
    }
}

impl LedgerMetrics {
    /// Adds its values to `samples`.
    pub fn report_metrics(&self, samples: &mut Samples) {
        let commits = self.commits.snapshot();
        samples.counter(&table::COMMITS, &[], commits.count());
        samples.histogram(&table::COMMIT_SECONDS, &[], commits);
        samples.counter(&table::COMMITTED_RECORDS, &[], self.records.load(Relaxed));
    }

    pub(super) fn record_commit(&self, records: usize, time: Duration) {
        self.commits.record(time);
        self.records.fetch_add(records as u64, Relaxed);
    }
}
