//! The metrics of the daemon, in addition to those of its parts.

use crate::telemetry::{Samples, table, text_of};

use super::daemon::Daemon;
use super::readiness::Readiness;
use super::unfinished_runs::StoredCounts;

impl Daemon {
    /// Returns the metrics of the process in the Prometheus text format. It checks whether the daemon is ready.
    pub async fn metrics_text(&self) -> String {
        let mut samples = self.pointsman().metric_samples();
        report_readiness(&self.readiness().await, &mut samples);
        // Without the store there are no numbers of runs. The metric of the store shows why.
        if let Ok(runs) = self.unfinished_runs().await {
            let holding = samples.gauge_sum(&table::RUNS_HOLDING);
            report_runs(StoredCounts::of(&**self.store(), &runs), holding, &mut samples);
        }
        text_of(&samples)
    }

    /// Returns the number of attempts that were cancelled since the start.
    pub(super) fn cancelled_attempts(&self) -> u64 {
        let samples = self.pointsman().metric_samples();
        let is_cancelled = |labels: &[String]| labels.last().is_some_and(|outcome| outcome == "cancelled");
        let cancelled = samples.counters(&table::ATTEMPTS).filter(|(labels, _)| is_cancelled(labels));
        cancelled.map(|(_, count)| count).sum()
    }
}

fn report_readiness(readiness: &Readiness, samples: &mut Samples) {
    let gauge = |is_so: bool| f64::from(u8::from(is_so));
    samples.gauge(&table::READY, &[], gauge(readiness.is_ready()));
    if let Some(is_writable) = readiness.is_store_writable() {
        samples.gauge(&table::STORE_WRITABLE, &[], gauge(is_writable));
    }
}

/// Reports the numbers of runs. `holding` of those that are in progress hold.
fn report_runs(counts: StoredCounts, holding: f64, samples: &mut Samples) {
    let StoredCounts { running, paused, stopped, io_error, crashed } = counts;
    // A run that is being paused may hold until it has ended.
    let holding = holding.min(running as f64);
    for (state, count) in [
        ("running", running as f64 - holding),
        ("holding", holding),
        ("paused", paused as f64),
        ("stopped", stopped as f64),
        ("io_error", io_error as f64),
        ("crashed", crashed as f64),
    ] {
        samples.gauge(&table::RUNS, &[state], count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::readiness::{Reason, STOPPING, STORE_UNWRITABLE};

    fn text(report: impl FnOnce(&mut Samples)) -> String {
        let mut samples = Samples::default();
        report(&mut samples);
        text_of(&samples).replace("{}", "")
    }

    fn readiness_text(reason: Option<&'static str>) -> String {
        let reasons = reason.into_iter().map(|reason| Reason { reason, detail: None });
        text(|samples| report_readiness(&Readiness::of(reasons.collect()), samples))
    }

    #[test]
    fn a_store_that_cannot_be_written_is_shown_and_is_unknown_while_the_daemon_stops() {
        for (reason, ready, writable) in [
            (None, "pointsman_ready 1.0", "pointsman_store_writable 1.0"),
            (Some("another reason"), "pointsman_ready 0.0", "pointsman_store_writable 1.0"),
            (Some(STORE_UNWRITABLE), "pointsman_ready 0.0", "pointsman_store_writable 0.0"),
        ] {
            let shown = readiness_text(reason);
            for expected in [ready, writable] {
                assert!(shown.lines().any(|line| line == expected), "{expected} is not in\n{shown}");
            }
        }
        let stopping = readiness_text(Some(STOPPING));
        assert!(stopping.lines().any(|line| line == "pointsman_ready 0.0"), "{stopping}");
        assert!(!stopping.contains("pointsman_store_writable"), "{stopping}");
    }

    #[test]
    fn every_state_has_its_number_of_runs_and_a_run_that_holds_is_not_running() {
        let counts = StoredCounts { running: 3, paused: 4, stopped: 5, io_error: 6, crashed: 7 };
        let shown = text(|samples| report_runs(counts, 2.0, samples));
        for (state, count) in
            [("running", 1), ("holding", 2), ("paused", 4), ("stopped", 5), ("io_error", 6), ("crashed", 7)]
        {
            let line = format!("pointsman_runs{{state=\"{state}\"}} {count}.0");
            assert!(shown.lines().any(|shown| shown == line), "{line} is not in\n{shown}");
        }
        let ending = text(|samples| report_runs(StoredCounts::default(), 1.0, samples));
        assert!(ending.contains("pointsman_runs{state=\"running\"} 0.0\n"), "{ending}");
    }
}
