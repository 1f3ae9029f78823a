//! Counts of commits.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::telemetry::{Bounds, Histogram, Samples, table};

/// The commits of all ledgers that share it. Those that failed have a count of their own. The time of a commit is from its start
/// until its records are durable, with attempts that panicked, and without the wait for the commit before.
#[derive(Debug)]
pub struct LedgerMetrics {
    commits: Histogram,
    records: AtomicU64,
    failed: AtomicU64,
}

impl Default for LedgerMetrics {
    fn default() -> Self {
        let commits = Histogram::new(Bounds::SHORT_SECONDS);
        Self { commits, records: AtomicU64::default(), failed: AtomicU64::default() }
    }
}

impl LedgerMetrics {
    /// Adds its values to `samples`.
    pub fn report_metrics(&self, samples: &mut Samples) {
        let commits = self.commits.snapshot();
        samples.counter(&table::COMMITS, &[], commits.count());
        samples.histogram(&table::COMMIT_SECONDS, &[], commits);
        samples.counter(&table::COMMITTED_RECORDS, &[], self.records.load(Relaxed));
        samples.counter(&table::FAILED_COMMITS, &[], self.failed.load(Relaxed));
    }

    pub(super) fn record_commit(&self, records: usize, time: Duration) {
        self.commits.record(time);
        self.records.fetch_add(records as u64, Relaxed);
    }

    pub(super) fn record_failed_commit(&self) {
        self.failed.fetch_add(1, Relaxed);
    }
}
