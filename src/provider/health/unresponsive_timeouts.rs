//! How long a model may send no response headers before it counts as unresponsive.
//!
//! Pure. The time depends on the step: some steps produce one word, others think for half a minute first. The headers
//! of a whole response come with the end of its answer, so their time depends on its length as well.

use std::time::Duration;

use crate::types::StepName;

use super::step_latencies::StepLatencies;

/// Twice this quantile of a step's latencies is too long.
const STEP_LATENCY_QUANTILE: f64 = 0.95;

/// How many mean latencies of the provider are too long, if nothing is known about the step.
const MAX_MEAN_LATENCIES: f64 = 5.0;

/// Bounds of the time without response headers, used as far as a model's own latencies are not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnresponsiveTimeouts {
    /// The lower bound in all cases.
    pub min: Duration,
    /// The lower bound before the model's first answer.
    pub before_first_answer: Duration,
    /// The lower bound for a step with too few answers, at a model that has answered.
    pub new_step: Duration,
}

impl Default for UnresponsiveTimeouts {
    fn default() -> Self {
        Self {
            min: Duration::from_secs(5),
            before_first_answer: Duration::from_secs(10),
            new_step: Duration::from_secs(20),
        }
    }
}

impl UnresponsiveTimeouts {
    /// Returns how long an attempt of `step` may stay without response headers while no other response of the
    /// model arrives. `mean_latency` is the mean latency of the provider's attempts, in seconds.
    pub(in crate::provider) fn for_attempt(
        self,
        latencies: &StepLatencies,
        step: Option<&StepName>,
        mean_latency: Option<f64>,
    ) -> Duration {
        if let Some(quantile) = latencies.quantile(step, STEP_LATENCY_QUANTILE) {
            return self.min.max(quantile * 2);
        }
        let mean_latency = mean_latency
            .map_or(Duration::ZERO, |seconds| Duration::from_secs_f64(seconds * MAX_MEAN_LATENCIES));
        let longest = latencies.longest(step).unwrap_or_default() * 2;
        let lower_bound = if latencies.is_empty() { self.before_first_answer } else { self.new_step };
        self.min.max(lower_bound).max(mean_latency).max(longest)
    }

    /// Returns the same for an attempt that asked for a whole response: twice the longest latency of the step. `None`
    /// while too few answers of the step are known, because only the total timeout bounds the first ones.
    pub(in crate::provider) fn for_whole_response(
        self,
        latencies: &StepLatencies,
        step: Option<&StepName>,
    ) -> Option<Duration> {
        latencies.quantile(step, STEP_LATENCY_QUANTILE)?;
        let longest = latencies.longest(step)?;
        Some(self.min.max(self.new_step).max(longest * 2))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_step_with_slow_answers_has_a_longer_timeout_than_the_others() {
        let mut latencies = StepLatencies::default();
        let timeouts = UnresponsiveTimeouts::default();
        let short: StepName = "short".into();
        let long: StepName = "long".into();
        assert_eq!(timeouts.for_attempt(&latencies, Some(&long), None), 10 * SECOND);
        (0..100).for_each(|_| latencies.record(Some(&short), SECOND / 5));
        assert_eq!(timeouts.for_attempt(&latencies, Some(&short), Some(0.2)), 5 * SECOND);
        assert_eq!(timeouts.for_attempt(&latencies, Some(&long), Some(0.2)), 20 * SECOND);
        latencies.record(Some(&long), 15 * SECOND);
        assert_eq!(timeouts.for_attempt(&latencies, Some(&long), Some(1.0)), 30 * SECOND);
        (0..20).for_each(|_| latencies.record(Some(&long), 7 * SECOND));
        assert_eq!(timeouts.for_attempt(&latencies, Some(&long), Some(1.0)), 14 * SECOND);
        assert_eq!(timeouts.for_attempt(&latencies, Some(&short), Some(1.0)), 5 * SECOND);
    }

    #[test]
    fn a_whole_response_may_take_twice_the_longest_time_and_any_time_at_first() {
        let mut latencies = StepLatencies::default();
        let timeouts = UnresponsiveTimeouts::default();
        let step: StepName = "short".into();
        let too_long = |latencies: &StepLatencies| timeouts.for_whole_response(latencies, Some(&step));
        assert_eq!(too_long(&latencies), None);
        (0..19).for_each(|_| latencies.record(Some(&step), SECOND));
        assert_eq!(too_long(&latencies), None);
        latencies.record(Some(&step), SECOND);
        assert_eq!(too_long(&latencies), Some(20 * SECOND));
        // One long answer among many counts, however short the others are.
        latencies.record(Some(&step), 40 * SECOND);
        (0..200).for_each(|_| latencies.record(Some(&step), SECOND));
        assert_eq!(too_long(&latencies), Some(80 * SECOND));
        assert_eq!(timeouts.for_whole_response(&latencies, None), None);
    }
}
