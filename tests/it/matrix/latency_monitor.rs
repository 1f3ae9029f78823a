//! Measures the latency of healthy requests, to detect a machine that is too slow for the measurement.
//!
//! It does not check cells. It distinguishes a slow machine from a wrong program.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use pointsman::runtime::Pointsman;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::support::{send_request, spawn};

/// Time between two probes.
const PROBE_INTERVAL: Duration = Duration::from_millis(20);

/// A probe takes a few milliseconds. A probe that takes this long shows that measurements are unreliable.
const MAX_PROBE_LATENCY: Duration = Duration::from_millis(300);

/// Sends probe requests one after the other until it is stopped.
pub(super) struct LatencyMonitor {
    probes: JoinHandle<()>,
    /// Latency of the slowest probe, in milliseconds.
    slowest_ms: Arc<AtomicU64>,
    started_at: Instant,
}

impl LatencyMonitor {
    /// Starts to send probes along the route `latency_probe`.
    pub(super) fn start(pointsman: &Pointsman) -> Self {
        let pointsman = pointsman.clone();
        let slowest_ms = Arc::new(AtomicU64::new(0));
        let recorded = slowest_ms.clone();
        let probes = spawn(async move {
            for number in 0.. {
                let start = Instant::now();
                sleep(PROBE_INTERVAL).await;
                // A failed probe is slow too: it fails by a timeout.
                drop(send_request(&pointsman, "latency_probe", &format!("Probe {number}.")).await);
                recorded.fetch_max(start.elapsed().as_millis() as u64, Relaxed);
            }
        });
        Self { probes, slowest_ms, started_at: Instant::now() }
    }

    /// Stops the probes, and returns whether all of them were fast.
    pub(super) fn was_on_time(self) -> bool {
        self.probes.abort();
        // If no probe has finished, the first one has taken all the time.
        let slowest = match self.slowest_ms.load(Relaxed) {
            0 => self.started_at.elapsed(),
            milliseconds => Duration::from_millis(milliseconds),
        };
        slowest < MAX_PROBE_LATENCY
    }
}
