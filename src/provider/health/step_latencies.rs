//! Latencies of the recent attempts of each step. A latency that is long for one step is normal for another.
//!
//! Bounded, however many steps there are. Reads no clock.

use std::time::Duration;

use crate::types::StepName;

use super::recent_steps::RecentSteps;
use super::stats::LatencyWindow;

/// The latencies of a target's recent attempts, by step.
#[derive(Debug, Default)]
pub(in crate::provider) struct StepLatencies {
    steps: RecentSteps<Option<StepName>, Step>,
}

#[derive(Debug, Default)]
struct Step {
    latencies: LatencyWindow,
    /// The longest latency, also when there are too few samples for a quantile.
    longest: Duration,
}

impl StepLatencies {
    /// Records the latency of an answered attempt.
    pub(in crate::provider) fn record(&mut self, step: Option<&StepName>, latency: Duration) {
        let known = self.steps.use_step(step.cloned());
        known.latencies.record(latency);
        known.longest = known.longest.max(latency);
    }

    /// Returns whether no step has an answer yet.
    pub(in crate::provider) fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Returns this quantile of the step's latencies; `None` with too few samples.
    pub(in crate::provider) fn quantile(&self, step: Option<&StepName>, quantile: f64) -> Option<Duration> {
        self.of(step)?.latencies.quantile(quantile)
    }

    /// Returns the longest latency of the step; `None` before its first answer.
    pub(in crate::provider) fn longest(&self, step: Option<&StepName>) -> Option<Duration> {
        self.of(step).map(|known| known.longest)
    }

    fn of(&self, step: Option<&StepName>) -> Option<&Step> {
        self.steps.get(&step.cloned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::health::recent_steps::MAX_STEPS;

    #[test]
    fn each_step_has_its_own_latencies() {
        let mut latencies = StepLatencies::default();
        let second = Duration::from_secs(1);
        let short: StepName = "short".into();
        let long: StepName = "long".into();
        assert!(latencies.is_empty());
        (0..20).for_each(|_| latencies.record(Some(&short), second));
        latencies.record(Some(&long), 9 * second);
        assert_eq!(latencies.quantile(Some(&short), 0.95), Some(second));
        assert_eq!(
            (latencies.quantile(Some(&long), 0.95), latencies.longest(Some(&long))),
            (None, Some(9 * second))
        );
        assert_eq!((latencies.quantile(None, 0.95), latencies.longest(None)), (None, None));
    }

    #[test]
    fn the_least_recently_used_step_is_evicted() {
        let mut latencies = StepLatencies::default();
        let second = Duration::from_secs(1);
        let name = |number: usize| StepName::from(number.to_string().as_str());
        (0..MAX_STEPS).for_each(|number| latencies.record(Some(&name(number)), second));
        latencies.record(Some(&name(0)), second);
        latencies.record(Some(&name(MAX_STEPS)), second);
        assert_eq!(latencies.steps.len(), MAX_STEPS);
        let is_known = |number| latencies.longest(Some(&name(number))).is_some();
        assert!(is_known(0) && is_known(MAX_STEPS) && !is_known(1));
    }
}
