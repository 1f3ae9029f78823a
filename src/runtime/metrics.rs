//! The counts that the parts of a Pointsman share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use tokio::time::Instant;

use crate::guard::MemoryBudget;
use crate::ledger::LedgerMetrics;
use crate::router::RequestMetrics;
use crate::run::RunMetrics;
use crate::supervisor::RestartCounts;
use crate::telemetry::{Samples, table};

/// The counts that the parts of a Pointsman share.
#[derive(Debug)]
pub(super) struct Metrics {
    started: Instant,
    pub(super) requests: Arc<RequestMetrics>,
    pub(super) runs: RunMetrics,
    pub(super) ledgers: Arc<LedgerMetrics>,
    pub(super) restarts: Arc<RestartCounts>,
    /// Whether the last reload was refused.
    pub(super) is_configuration_faulty: AtomicBool,
}

impl Metrics {
    /// Creates counts that are zero. The uptime begins now.
    pub(super) fn new() -> Self {
        Self {
            started: Instant::now(),
            requests: Arc::default(),
            runs: RunMetrics::default(),
            ledgers: Arc::default(),
            restarts: Arc::default(),
            is_configuration_faulty: AtomicBool::new(false),
        }
    }

    /// Reports the counts, and the numbers of the process.
    pub(super) fn report_metrics(&self, samples: &mut Samples) {
        let Self { started, requests, runs, ledgers, restarts, is_configuration_faulty } = self;
        requests.report_metrics(samples);
        runs.report_metrics(samples);
        ledgers.report_metrics(samples);
        restarts.report_metrics(samples);
        MemoryBudget::of_process().report_metrics(samples);
        let is_faulty = is_configuration_faulty.load(Relaxed);
        samples.gauge(&table::CONFIGURATION_FAULTY, &[], f64::from(u8::from(is_faulty)));
        samples.gauge(&table::UPTIME_SECONDS, &[], started.elapsed().as_secs_f64());
        samples.gauge(&table::BUILD_INFO, &[env!("CARGO_PKG_VERSION")], 1.0);
    }
}
