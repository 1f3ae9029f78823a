//! Statistics of the token sizes of one model's calls: the error of prompt estimates, and the answer lengths of
//! each step.
//!
//! The steps of a scope have statistics of their own. The expected cost of a call with a scope depends only on answers of
//! that scope, so that no scope changes what the budgets reserve for another one. Bounded, however many scopes and steps
//! there are. Independent of limits.

use crate::guard::TokenCost;
use crate::types::{RequestContext, ScopeName, StepName};

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

/// Maximum number of steps of scopes, of all scopes together.
const MAX_SCOPE_STEPS: usize = 1_024;

/// Statistics of a model's calls.
#[derive(Debug, Default)]
pub(in crate::provider) struct TokenStats {
    ratio: EstimateRatio,
    /// The answers of all calls.
    all: PercentileWindow,
    /// The answers of each step, of calls without a scope.
    steps: RecentSteps<StepName, PercentileWindow>,
    /// The answers of each step of a scope. Without a step: all answers of the scope.
    scopes: RecentSteps<(ScopeName, Option<StepName>), PercentileWindow, MAX_SCOPE_STEPS>,
}

/// Identifies the calls whose answers are alike: those of a step, in a scope.
#[derive(Debug, Clone, Copy)]
pub(in crate::provider) struct StatsKey<'a> {
    /// `None` for calls without a scope.
    scope: Option<&'a ScopeName>,
    step: Option<&'a StepName>,
}

impl<'a> StatsKey<'a> {
    /// Calls without a scope and a step. The statistics of all calls apply to them.
    pub(in crate::provider) const ALL: Self = Self { scope: None, step: None };

    pub(in crate::provider) fn new(scope: &'a ScopeName, step: Option<&'a StepName>) -> Self {
        Self { scope: Some(scope).filter(|scope| !scope.is_empty()), step }
    }

    /// Returns the key of the calls with this context.
    pub(in crate::provider) fn of(context: &'a RequestContext) -> Self {
        Self::new(&context.scope, context.step.as_ref())
    }
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

    /// Returns what 95 of 100 such calls stay within.
    pub(in crate::provider) fn p95_cost(&self, key: StatsKey<'_>, estimate: Estimate) -> TokenCost {
        self.p95_of(self.window_for(key), estimate)
    }

    fn p95_of(&self, answers: Option<&PercentileWindow>, estimate: Estimate) -> TokenCost {
        let output = answers.map_or(ASSUMED_OUTPUT, PercentileWindow::p95);
        let limit = estimate.max_tokens.unwrap_or(u64::MAX);
        // At least one token, unless the call has no output at all.
        TokenCost { input: self.corrected_input(estimate.input), output: output.max(1).min(limit) }
    }

    /// Returns the tokens that the expected cost of such a call is computed from. The first answers to arrive are
    /// the short ones: until there are enough answers of the step, this is the output limit, or the assumed output
    /// without a limit, and never less than what was seen.
    pub(in crate::provider) fn expected_cost(&self, key: StatsKey<'_>, estimate: Estimate) -> TokenCost {
        let own = self.window_of(key);
        let known = own.filter(|answers| answers.len() >= MIN_STEP_ANSWERS);
        // Not the answers of other scopes: they would make the calls of this one look cheap or too expensive.
        let answers = known.or_else(|| self.window_of_scope(key).filter(|answers| !answers.is_empty()));
        let p95 = self.p95_of(answers, estimate);
        if own.map_or(0, PercentileWindow::len) >= MIN_ANSWERS_FOR_COST {
            return p95;
        }
        let limit = estimate.max_tokens.unwrap_or(ASSUMED_OUTPUT);
        TokenCost { output: p95.output.max(limit), ..p95 }
    }

    /// Returns the tokens that the maximum cost of such a call is computed from. Earlier answers do not lower it,
    /// because the caller determines their lengths. The output is the output limit. Without a limit it is what is
    /// expected, and never less than the longest recent answer of the scope.
    pub(in crate::provider) fn max_cost(&self, key: StatsKey<'_>, estimate: Estimate) -> TokenCost {
        let expected = self.expected_cost(key, estimate);
        let longest = || self.window_of_scope(key).map_or(0, PercentileWindow::max);
        TokenCost {
            input: expected.input.max(estimate.input),
            output: estimate.max_tokens.unwrap_or_else(|| expected.output.max(longest())),
        }
    }

    /// Returns the mean output of such calls; `None` before the first answer of any call.
    pub(in crate::provider) fn mean_output(&self, key: StatsKey<'_>) -> Option<u64> {
        self.window_for(key).map(PercentileWindow::mean)
    }

    /// Records that a prompt with this estimate had `read` tokens by the provider's count, and its answer
    /// `written`; `None` is an incomplete answer.
    pub(in crate::provider) fn record(
        &mut self,
        key: StatsKey<'_>,
        estimated: u64,
        read: u64,
        written: Option<u64>,
    ) {
        self.ratio.update(estimated, read);
        let Some(written) = written.map(|written| written.min(MAX_CREDIBLE_OUTPUT)) else { return };
        self.all.add(written);
        if let Some(scope) = key.scope {
            self.scopes.use_step((scope.clone(), None)).add(written);
            if let Some(step) = key.step {
                self.scopes.use_step((scope.clone(), Some(step.clone()))).add(written);
            }
        } else if let Some(step) = key.step {
            self.steps.use_step(step.clone()).add(written);
        }
    }

    /// Restores the answer sizes of a step of a scope from an earlier session, unless this one has recorded some.
    pub(in crate::provider) fn restore(
        &mut self,
        scope: &ScopeName,
        step: &StepName,
        written: impl IntoIterator<Item = u64>,
    ) {
        let key = StatsKey::new(scope, Some(step));
        if self.window_of(key).is_some() {
            return;
        }
        // The estimates of their prompts are not stored.
        written.into_iter().for_each(|written| self.record(key, 0, 0, Some(written)));
    }

    /// Returns the answers by which a call is paced: its own if they are enough, else those of its scope, else all.
    fn window_for(&self, key: StatsKey<'_>) -> Option<&PercentileWindow> {
        let is_known = |answers: &&PercentileWindow| answers.len() >= MIN_STEP_ANSWERS;
        let own = self.window_of(key).filter(is_known);
        let own = own.or_else(|| self.window_of_scope(key).filter(is_known));
        own.or_else(|| Some(&self.all).filter(|all| !all.is_empty()))
    }

    /// Returns the answers of the calls with exactly this key.
    fn window_of(&self, key: StatsKey<'_>) -> Option<&PercentileWindow> {
        match (key.scope, key.step) {
            (None, None) => Some(&self.all),
            (None, Some(step)) => self.steps.get(step),
            (Some(scope), step) => self.scopes.get(&(scope.clone(), step.cloned())),
        }
    }

    /// Returns the answers of the whole scope; all answers for calls without a scope.
    fn window_of_scope(&self, key: StatsKey<'_>) -> Option<&PercentileWindow> {
        self.window_of(StatsKey { step: None, ..key })
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

    const ALL: StatsKey<'static> = StatsKey::ALL;

    /// The key of a step, of calls without a scope.
    fn key(step: &StepName) -> StatsKey<'_> {
        StatsKey { scope: None, step: Some(step) }
    }

    fn record_all(stats: &mut TokenStats, step: &str, written: impl IntoIterator<Item = u64>) {
        for written in written {
            stats.record(key(&step.into()), 100, 100, Some(written));
        }
    }

    #[test]
    fn before_the_first_answer_the_output_is_assumed_but_never_above_max_tokens() {
        let stats = TokenStats::default();
        let capped = Estimate { input: 100, max_tokens: Some(60) };
        assert_eq!(stats.p95_cost(ALL, estimate(100)), TokenCost { input: 100, output: 500 });
        assert_eq!(stats.p95_cost(ALL, capped), TokenCost { input: 100, output: 60 });
        assert_eq!(stats.mean_output(ALL), None);
    }

    #[test]
    fn a_call_without_output_reserves_none() {
        let mut stats = TokenStats::default();
        let embeddings = Estimate { input: 100, max_tokens: Some(0) };
        for _ in 0..2 {
            assert_eq!(stats.p95_cost(ALL, embeddings), TokenCost { input: 100, output: 0 });
            assert_eq!(stats.expected_cost(ALL, embeddings), TokenCost { input: 100, output: 0 });
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
        assert_eq!(stats.p95_cost(key(&short), estimate(1)).output, 290);
        record_all(&mut stats, "short", [4]);
        assert_eq!(
            (stats.p95_cost(key(&short), estimate(1)).output, stats.mean_output(key(&short))),
            (4, Some(4))
        );
        assert_eq!(
            (stats.p95_cost(key(&long), estimate(1)).output, stats.mean_output(key(&long))),
            (300, Some(160))
        );
        let unknown = "unknown".into();
        assert_eq!(stats.p95_cost(key(&unknown), estimate(1)), stats.p95_cost(ALL, estimate(1)));
    }

    #[test]
    fn the_first_counts_correct_the_estimate_fully_and_absurd_counts_only_within_bounds() {
        let mut stats = TokenStats::default();
        stats.record(ALL, 100, 150, None);
        assert_eq!(stats.corrected_input(1_000), 1_500);
        stats.record(ALL, 100, 50, None);
        assert_eq!(stats.corrected_input(1_000), 1_000);
        stats.record(ALL, 100, 0, None);
        assert_eq!(stats.corrected_input(1_000), 1_000);
        (0..500).for_each(|_| stats.record(ALL, 1, u64::MAX, None));
        assert_eq!(stats.corrected_input(1_000), 5_000);
    }

    #[test]
    fn one_absurd_count_does_not_delay_the_calls_after_it() {
        let mut stats = TokenStats::default();
        record_all(&mut stats, "step", [100; 99]);
        record_all(&mut stats, "step", [u64::MAX]);
        let step = "step".into();
        assert_eq!(stats.p95_cost(key(&step), estimate(1)).output, 100);
        assert_eq!(stats.mean_output(key(&step)), Some((99 * 100 + MAX_CREDIBLE_OUTPUT) / 100));
    }

    #[test]
    fn a_constant_overhead_per_prompt_does_not_make_long_prompts_look_longer() {
        let mut stats = TokenStats::default();
        // Fifty more tokens each, whatever the size.
        (0..100).for_each(|_| stats.record(ALL, 10, 60, None));
        (0..100).for_each(|_| stats.record(ALL, 10_000, 10_050, None));
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
        let assumed = stats.expected_cost(key(&step), estimate(100)).output;
        stats.restore(&ScopeName::default(), &step, [20; MIN_ANSWERS_FOR_COST]);
        assert_eq!((assumed, stats.expected_cost(key(&step), estimate(100)).output), (ASSUMED_OUTPUT, 20));
        assert_eq!(stats.corrected_input(1_000), 1_000, "prompt statistics are not restored");
        stats.restore(&ScopeName::default(), &step, [900; 100]);
        assert_eq!(stats.p95_cost(key(&step), estimate(100)).output, 20, "recorded answers take precedence");
    }

    /// Records answers of a step of a scope.
    fn record_scoped(
        stats: &mut TokenStats,
        scope: &str,
        step: Option<&str>,
        written: impl IntoIterator<Item = u64>,
    ) {
        let scope = scope.into();
        let step = step.map(StepName::from);
        for written in written {
            stats.record(StatsKey::new(&scope, step.as_ref()), 100, 100, Some(written));
        }
    }

    #[test]
    fn the_answers_of_one_scope_do_not_change_the_cost_that_is_expected_for_another() {
        let mut stats = TokenStats::default();
        let short = ScopeName::from("short");
        let long = ScopeName::from("long");
        let step = StepName::from("step");
        let keys = |scope| [StatsKey::new(scope, None), StatsKey::new(scope, Some(&step))];
        record_scoped(&mut stats, "long", Some("step"), [90_000; 100]);
        record_all(&mut stats, "step", [80_000; 100]);
        let limited = Estimate { input: 100, max_tokens: Some(700) };
        for key in keys(&short) {
            assert_eq!(stats.expected_cost(key, estimate(100)).output, ASSUMED_OUTPUT);
            assert_eq!(stats.max_cost(key, estimate(100)).output, ASSUMED_OUTPUT);
            assert_eq!(stats.expected_cost(key, limited).output, 700);
            // Its calls are paced by the answers of all calls until it has its own.
            assert_eq!(stats.p95_cost(key, estimate(100)).output, 90_000);
        }
        record_scoped(&mut stats, "short", Some("step"), [3; MIN_ANSWERS_FOR_COST]);
        for key in keys(&short) {
            assert_eq!(stats.expected_cost(key, estimate(100)).output, 3);
            assert_eq!((stats.p95_cost(key, estimate(100)).output, stats.mean_output(key)), (3, Some(3)));
        }
        for key in keys(&long) {
            assert_eq!(stats.expected_cost(key, estimate(100)).output, 90_000);
        }
        // An unknown step of a scope is expected to cost as much as the scope's other answers or the assumed one.
        let other = StepName::from("other");
        let unknown = |scope| stats.expected_cost(StatsKey::new(scope, Some(&other)), estimate(100)).output;
        assert_eq!((unknown(&short), unknown(&long)), (ASSUMED_OUTPUT, 90_000));
        assert_eq!(stats.expected_cost(key(&step), estimate(100)).output, 80_000);
    }

    #[test]
    fn the_maximum_cost_is_the_output_limit_or_at_least_the_longest_recent_answer() {
        let mut stats = TokenStats::default();
        let scope = ScopeName::from("team-a");
        record_scoped(&mut stats, "team-a", None, [1; 100]);
        let key = StatsKey::new(&scope, None);
        let limited = Estimate { input: 100, max_tokens: Some(100_000) };
        assert_eq!(stats.expected_cost(key, limited).output, 1);
        assert_eq!(stats.max_cost(key, limited).output, 100_000);
        assert_eq!(stats.max_cost(key, Estimate { input: 100, max_tokens: Some(0) }).output, 0);
        assert_eq!(stats.max_cost(key, estimate(100)).output, 1);
        record_scoped(&mut stats, "team-a", Some("step"), [4_000]);
        assert_eq!(stats.expected_cost(key, estimate(100)).output, 1);
        assert_eq!(stats.max_cost(key, estimate(100)).output, 4_000);
        // Prompts whose estimates are too high do not make the next one cheaper.
        (0..100).for_each(|_| stats.record(key, 1_000, 300, None));
        assert!(stats.expected_cost(key, estimate(1_000)).input < 400);
        assert_eq!(stats.max_cost(key, estimate(1_000)).input, 1_000);
    }

    #[test]
    fn the_statistics_of_a_scope_are_restored_for_this_scope_only() {
        let mut stats = TokenStats::default();
        let scope = ScopeName::from("team-a");
        let other = ScopeName::from("team-b");
        let step = StepName::from("step");
        stats.restore(&scope, &step, [20; MIN_ANSWERS_FOR_COST]);
        stats.restore(&scope, &step, [900; 100]);
        let expected = |scope, step| stats.expected_cost(StatsKey::new(scope, step), estimate(100)).output;
        assert_eq!((expected(&scope, Some(&step)), expected(&scope, None)), (20, 20));
        assert_eq!(expected(&other, Some(&step)), ASSUMED_OUTPUT);
        assert_eq!(expected(&ScopeName::default(), Some(&step)), ASSUMED_OUTPUT);
    }

    #[test]
    fn the_statistics_of_scopes_are_bounded_and_evict_none_of_calls_without_a_scope() {
        let mut stats = TokenStats::default();
        record_all(&mut stats, "step", [7; MIN_ANSWERS_FOR_COST]);
        for scope in 0..MAX_SCOPE_STEPS + 9 {
            record_scoped(&mut stats, &scope.to_string(), None, [1]);
        }
        assert_eq!((stats.scopes.len(), stats.steps.len()), (MAX_SCOPE_STEPS, 1));
        assert_eq!(stats.expected_cost(key(&"step".into()), estimate(100)).output, 7);
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
        /// The answers of other scopes and of calls without a scope come in between.
        #[test]
        fn the_expected_and_the_maximum_cost_of_a_scope_depend_only_on_its_own_answers(
            answers in proptest::collection::vec((0u8..4, 0u8..3, 0u64..100_000), 1..300),
            max_tokens in proptest::option::of(1u64..100_000),
        ) {
            let own = ScopeName::from("1");
            let steps = ["1", "2"].map(StepName::from);
            let mut all = TokenStats::default();
            let mut alone = TokenStats::default();
            for (scope, step, written) in answers {
                let scope = if scope == 0 { ScopeName::default() } else { scope.to_string().into() };
                let step = usize::from(step).checked_sub(1).map(|step| &steps[step]);
                let key = StatsKey::new(&scope, step);
                all.record(key, 100, 100, Some(written));
                if scope == own {
                    alone.record(key, 100, 100, Some(written));
                }
                for step in [None, Some(&steps[0]), Some(&steps[1])] {
                    let key = StatsKey::new(&own, step);
                    let estimate = Estimate { input: 100, max_tokens };
                    let expected = all.expected_cost(key, estimate);
                    let most = all.max_cost(key, estimate);
                    prop_assert_eq!(expected, alone.expected_cost(key, estimate));
                    prop_assert_eq!(most, alone.max_cost(key, estimate));
                    prop_assert!(most.input >= expected.input && most.output >= expected.output);
                    prop_assert!(max_tokens.is_none_or(|limit| most.output == limit));
                }
            }
        }

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
                stats.record(key(&step.to_string().into()), estimated, read, Some(written));
                let ratio = stats.ratio.value();
                prop_assert!(ratio >= least - 1e-9 && ratio <= limit + 1e-9, "{ratio}");
                let name = step.to_string().into();
                let output = stats.p95_cost(key(&name), estimate(estimated)).output;
                prop_assert!(output >= shortest && output <= longest.max(1), "{output}");
                let mean = stats.mean_output(key(&name)).unwrap();
                prop_assert!(mean >= shortest && mean <= longest, "{mean}");
            }
        }
    }
}
