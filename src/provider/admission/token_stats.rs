//! Statistics of the token sizes of one model's calls: the error of prompt estimates, and the answer lengths of
//! each step.
//!
//! Bounded, however many steps there are. Independent of limits.

use crate::guard::TokenCost;
use crate::types::StepName;

use super::estimate::Estimate;
use crate::provider::health::recent_steps::RecentSteps;
use crate::provider::health::stats::PercentileWindow;

/// The assumed output tokens of an answer before the first one.
pub(in crate::provider) const ASSUMED_OUTPUT: u64 = 500;

/// The maximum credible answer: no model generates more, and one absurd count in a window must not delay the
/// calls after it.
const MAX_CREDIBLE_OUTPUT: u64 = 1_000_000;

/// With fewer answers of a step, the statistics of all steps are used.
const MIN_STEP_ANSWERS: usize = 10;

/// With fewer answers of a step, `max_tokens` is reserved for its cost.
const MIN_ANSWERS_FOR_COST: usize = 20;

/// The credible range of the provider's count relative to the estimate.
const CREDIBLE_RATIOS: (f64, f64) = (0.2, 5.0);

/// Number of calls over which the ratio is averaged.
const RATIO_WINDOW_CALLS: u32 = 20;

/// The share of the corrected estimate that a prompt certainly has, with few and with enough calls.
const INITIAL_CERTAIN_SHARE: f64 = 0.75;
const CERTAIN_SHARE: f64 = 0.9;

/// Statistics of a model's calls.
#[derive(Debug, Default)]
pub(in crate::provider) struct TokenStats {
    ratio: EstimateRatio,
    all: PercentileWindow,
    steps: RecentSteps<StepName, PercentileWindow>,
}

impl TokenStats {
    /// Returns the corrected estimate of a prompt.
    pub(in crate::provider) fn corrected_input(&self, estimated: u64) -> u64 {
        ((estimated as f64 * self.ratio.value()).round() as u64).max(1)
    }

    /// Returns the tokens that such a prompt certainly has.
    pub(in crate::provider) fn min_input(&self, estimated: u64) -> u64 {
        let certain_share =
            if self.ratio.seen < MIN_STEP_ANSWERS as u32 { INITIAL_CERTAIN_SHARE } else { CERTAIN_SHARE };
        (self.corrected_input(estimated) as f64 * certain_share) as u64
    }

    /// Returns what 95 of 100 calls of `step` stay within.
    pub(in crate::provider) fn p95_cost(&self, step: Option<&StepName>, estimate: Estimate) -> TokenCost {
        let output = self.window_for(step).map_or(ASSUMED_OUTPUT, PercentileWindow::p95);
        let limit = estimate.max_tokens.unwrap_or(u64::MAX);
        // At least one token, unless the call has no output at all.
        TokenCost { input: self.corrected_input(estimate.input), output: output.max(1).min(limit) }
    }

    /// Returns the tokens that the expected cost of a call of `step` is computed from. The first answers to
    /// arrive are the short ones: until there are enough answers of the step, this is the output limit, or the
    /// assumed output without a limit, and never less than what was seen.
    pub(in crate::provider) fn expected_cost(
        &self,
        step: Option<&StepName>,
        estimate: Estimate,
    ) -> TokenCost {
        let p95 = self.p95_cost(step, estimate);
        let answers = match step {
            Some(step) => self.steps.get(step).map_or(0, PercentileWindow::len),
            None => self.all.len(),
        };
        if answers >= MIN_ANSWERS_FOR_COST {
            return p95;
        }
        let limit = estimate.max_tokens.unwrap_or(ASSUMED_OUTPUT);
        TokenCost { output: p95.output.max(limit), ..p95 }
    }

    /// Returns the mean output of `step`; `None` before the first answer of any step.
    pub(in crate::provider) fn mean_output(&self, step: Option<&StepName>) -> Option<u64> {
        self.window_for(step).map(PercentileWindow::mean)
    }

    /// Records that a prompt with this estimate had `read` tokens by the provider's count, and its answer
    /// `written`; `None` is an incomplete answer.
    pub(in crate::provider) fn record(
        &mut self,
        step: Option<&StepName>,
        estimated: u64,
        read: u64,
        written: Option<u64>,
    ) {
        self.ratio.update(estimated, read);
        let Some(written) = written.map(|written| written.min(MAX_CREDIBLE_OUTPUT)) else { return };
        self.all.add(written);
        if let Some(step) = step {
            self.steps.use_step(step.clone()).add(written);
        }
    }

    /// Restores the answer sizes of `step` from an earlier session, unless this one has recorded some.
    pub(in crate::provider) fn restore(&mut self, step: &StepName, written: impl IntoIterator<Item = u64>) {
        if self.steps.get(step).is_some() {
            return;
        }
        // The estimates of their prompts are not stored.
        written.into_iter().for_each(|written| self.record(Some(step), 0, 0, Some(written)));
    }

    fn window_for(&self, step: Option<&StepName>) -> Option<&PercentileWindow> {
        let own = step.and_then(|step| self.steps.get(step));
        let own = own.filter(|answers| answers.len() >= MIN_STEP_ANSWERS);
        own.or_else(|| Some(&self.all).filter(|all| !all.is_empty()))
    }
}

/// Ratio of the provider's count to the estimate, as a moving average. Calls are weighted by size, so that a
/// constant overhead per prompt does not make long prompts look longer.
#[derive(Debug, Default)]
struct EstimateRatio {
    read: f64,
    estimated: f64,
    seen: u32,
}

impl EstimateRatio {
    fn value(&self) -> f64 {
        if self.seen == 0 {
            1.0
        } else {
            (self.read / self.estimated).clamp(CREDIBLE_RATIOS.0, CREDIBLE_RATIOS.1)
        }
    }

    fn update(&mut self, estimated: u64, read: u64) {
        // A server that does not count sends zero.
        if estimated == 0 || read == 0 {
            return;
        }
        let estimated = estimated as f64;
        let read = (read as f64).clamp(estimated * CREDIBLE_RATIOS.0, estimated * CREDIBLE_RATIOS.1);
        self.seen = self.seen.saturating_add(1);
        // The first calls have full weight: an average of all calls so far.
        let weight = 1.0 / f64::from(self.seen.min(RATIO_WINDOW_CALLS));
        self.read += (read - self.read) * weight;
        self.estimated += (estimated - self.estimated) * weight;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::provider::health::recent_steps::MAX_STEPS;

    fn estimate(input: u64) -> Estimate {
        Estimate { input, max_tokens: None }
    }

    fn record_all(stats: &mut TokenStats, step: &str, written: impl IntoIterator<Item = u64>) {
        for written in written {
            stats.record(Some(&step.into()), 100, 100, Some(written));
        }
    }

    #[test]
    fn before_the_first_answer_the_output_is_assumed_but_never_above_max_tokens() {
        let stats = TokenStats::default();
        let capped = Estimate { input: 100, max_tokens: Some(60) };
        assert_eq!(stats.p95_cost(None, estimate(100)), TokenCost { input: 100, output: 500 });
        assert_eq!(stats.p95_cost(None, capped), TokenCost { input: 100, output: 60 });
        assert_eq!(stats.mean_output(None), None);
    }

    #[test]
    fn a_call_without_output_reserves_none() {
        let mut stats = TokenStats::default();
        let embeddings = Estimate { input: 100, max_tokens: Some(0) };
        for _ in 0..2 {
            assert_eq!(stats.p95_cost(None, embeddings), TokenCost { input: 100, output: 0 });
            assert_eq!(stats.expected_cost(None, embeddings), TokenCost { input: 100, output: 0 });
            record_all(&mut stats, "chat", [400; 30]);
        }
    }

    #[test]
    fn every_step_has_its_own_statistics_once_it_has_enough_answers() {
        let mut stats = TokenStats::default();
        let short = "short".into();
        let long = "long".into();
        record_all(&mut stats, "short", [4; 9]);
        record_all(&mut stats, "long", (1..=31).map(|tens| tens * 10));
        // Nine are too few: the statistics of all steps are used.
        assert_eq!(stats.p95_cost(Some(&short), estimate(1)).output, 290);
        record_all(&mut stats, "short", [4]);
        assert_eq!(
            (stats.p95_cost(Some(&short), estimate(1)).output, stats.mean_output(Some(&short))),
            (4, Some(4))
        );
        assert_eq!(
            (stats.p95_cost(Some(&long), estimate(1)).output, stats.mean_output(Some(&long))),
            (300, Some(160))
        );
        let unknown = "unknown".into();
        assert_eq!(stats.p95_cost(Some(&unknown), estimate(1)), stats.p95_cost(None, estimate(1)));
    }

    #[test]
    fn the_first_counts_correct_the_estimate_fully_and_absurd_counts_only_within_bounds() {
        let mut stats = TokenStats::default();
        stats.record(None, 100, 150, None);
        assert_eq!(stats.corrected_input(1_000), 1_500);
        stats.record(None, 100, 50, None);
        assert_eq!(stats.corrected_input(1_000), 1_000);
        stats.record(None, 100, 0, None);
        assert_eq!(stats.corrected_input(1_000), 1_000);
        (0..500).for_each(|_| stats.record(None, 1, u64::MAX, None));
        assert_eq!(stats.corrected_input(1_000), 5_000);
    }

    #[test]
    fn one_absurd_count_does_not_delay_the_calls_after_it() {
        let mut stats = TokenStats::default();
        record_all(&mut stats, "step", [100; 99]);
        record_all(&mut stats, "step", [u64::MAX]);
        let step = "step".into();
        assert_eq!(stats.p95_cost(Some(&step), estimate(1)).output, 100);
        assert_eq!(stats.mean_output(Some(&step)), Some((99 * 100 + MAX_CREDIBLE_OUTPUT) / 100));
    }

    #[test]
    fn a_constant_overhead_per_prompt_does_not_make_long_prompts_look_longer() {
        let mut stats = TokenStats::default();
        // Fifty more tokens each, whatever the size.
        (0..100).for_each(|_| stats.record(None, 10, 60, None));
        (0..100).for_each(|_| stats.record(None, 10_000, 10_050, None));
        assert!(
            (10_050..11_000).contains(&stats.corrected_input(10_000)),
            "{}",
            stats.corrected_input(10_000)
        );
    }

    #[test]
    fn the_statistics_of_an_earlier_session_are_restored_only_if_there_are_none_yet() {
        let mut stats = TokenStats::default();
        let step = "step".into();
        let assumed = stats.expected_cost(Some(&step), estimate(100)).output;
        stats.restore(&step, [20; MIN_ANSWERS_FOR_COST]);
        assert_eq!((assumed, stats.expected_cost(Some(&step), estimate(100)).output), (ASSUMED_OUTPUT, 20));
        assert_eq!(stats.corrected_input(1_000), 1_000, "prompt statistics are not restored");
        stats.restore(&step, [900; 100]);
        assert_eq!(stats.p95_cost(Some(&step), estimate(100)).output, 20, "recorded answers take precedence");
    }

    #[test]
    fn the_least_recently_used_step_is_evicted() {
        let mut stats = TokenStats::default();
        for step in 0..MAX_STEPS {
            record_all(&mut stats, &step.to_string(), [1; MIN_STEP_ANSWERS]);
        }
        record_all(&mut stats, "0", [1]);
        record_all(&mut stats, "new", [1]);
        assert_eq!(stats.steps.len(), MAX_STEPS);
        let is_known = |step: &str| stats.steps.get(&step.into()).is_some();
        assert!(is_known("0") && is_known("new") && !is_known("1"));
    }

    proptest! {
        #[test]
        fn statistics_stay_within_the_samples(
            calls in proptest::collection::vec((1u64..10_000, 0.2f64..5.0, 0u64..5_000, 0u8..4), 1..300),
        ) {
            let mut stats = TokenStats::default();
            let mut least = f64::MAX;
            let mut limit = f64::MIN;
            let mut shortest = u64::MAX;
            let mut longest = 0;
            for (estimated, ratio, written, step) in calls {
                let read = ((estimated as f64 * ratio) as u64).max(1);
                let seen = (read as f64 / estimated as f64).clamp(CREDIBLE_RATIOS.0, CREDIBLE_RATIOS.1);
                least = least.min(seen);
                limit = limit.max(seen);
                shortest = shortest.min(written);
                longest = longest.max(written);
                stats.record(Some(&step.to_string().into()), estimated, read, Some(written));
                let ratio = stats.ratio.value();
                prop_assert!(ratio >= least - 1e-9 && ratio <= limit + 1e-9, "{ratio}");
                let name = step.to_string().into();
                let output = stats.p95_cost(Some(&name), estimate(estimated)).output;
                prop_assert!(output >= shortest && output <= longest.max(1), "{output}");
                let mean = stats.mean_output(Some(&name)).unwrap();
                prop_assert!(mean >= shortest && mean <= longest, "{mean}");
            }
        }
    }
}
