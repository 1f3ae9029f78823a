//! Learns how large the calls of one model really are: how far off the estimate of a prompt is, and how
//! long the answers of each step are.
//!
//! Bounded, however many steps there are. Knows no limits, and never holds a call back.

use std::collections::HashMap;

use crate::guard::Need;
use crate::types::StepName;

use super::estimate::Estimate;
use super::window::Window;

/// Tokens that an answer is assumed to have before one has been seen.
pub(super) const ASSUMED_OUTPUT: u64 = 500;

/// Tokens of the longest answer that is believed: no model writes more, and one absurd count among a window
/// of honest ones must not hold the calls after it back.
const LONGEST: u64 = 1_000_000;

/// Answers of a step that say more about it than those of all steps do.
const ENOUGH: usize = 10;

/// Steps that are remembered.
const STEPS: usize = 256;

/// Answers of a step from which on what they cost is known well enough to reserve no more.
const SURE_OF_MONEY: usize = 20;

/// How far the provider's count may be from the estimate; beyond it is no count.
const RATIOS: (f64, f64) = (0.2, 5.0);

/// Calls that the learned ratio looks back to.
const LOOKS_BACK: u32 = 20;

/// Part of the estimate that a prompt surely has, before there was a call and after some.
const SURE_AT_FIRST: f64 = 0.75;
const SURE: f64 = 0.9;

/// What is known of a model's calls.
#[derive(Debug, Default)]
pub(super) struct Sizes {
    ratio: Ratio,
    all: Window,
    steps: HashMap<StepName, Step>,
    /// Answers so far: the time that steps were last used by.
    answers: u64,
}

#[derive(Debug, Default)]
struct Step {
    answers: Window,
    last: u64,
}

impl Sizes {
    /// Returns the tokens of a prompt that is estimated to have `estimated`.
    pub(super) fn input(&self, estimated: u64) -> u64 {
        ((estimated as f64 * self.ratio.value()).round() as u64).max(1)
    }

    /// Returns the tokens that such a prompt has at least, beyond doubt.
    pub(super) fn least_input(&self, estimated: u64) -> u64 {
        let sure = if self.ratio.seen < ENOUGH as u32 { SURE_AT_FIRST } else { SURE };
        (self.input(estimated) as f64 * sure) as u64
    }

    /// Returns what a call of `step` stays within 95 times of 100.
    pub(super) fn need(&self, step: Option<&StepName>, estimate: Estimate) -> Need {
        let output = self.answers_of(step).map_or(ASSUMED_OUTPUT, Window::p95);
        let most = estimate.max_tokens.unwrap_or(u64::MAX);
        Need { input: self.input(estimate.input), output: output.min(most).max(1) }
    }

    /// Returns what a call of `step` is likely to be charged for. The first answers to come back are the short
    /// ones: until enough of the step are known, as much as it may write, or what is assumed if nothing caps it, and
    /// never less than was seen.
    pub(super) fn likely(&self, step: Option<&StepName>, estimate: Estimate) -> Need {
        let need = self.need(step, estimate);
        let known = match step {
            Some(step) => self.steps.get(step).map_or(0, |step| step.answers.len()),
            None => self.all.len(),
        };
        if known >= SURE_OF_MONEY {
            return need;
        }
        let most = estimate.max_tokens.unwrap_or(ASSUMED_OUTPUT);
        Need { output: need.output.max(most), ..need }
    }

    /// Returns the tokens of an answer of `step` on average; `None` before there was one of any step.
    pub(super) fn usual(&self, step: Option<&StepName>) -> Option<u64> {
        self.answers_of(step).map(Window::mean)
    }

    /// Learns that a prompt `estimated` so had `read` tokens by the provider's count, and its answer
    /// `written`; `None` is an answer that did not come to its end.
    pub(super) fn learn(&mut self, step: Option<&StepName>, estimated: u64, read: u64, written: Option<u64>) {
        self.ratio.learn(estimated, read);
        let Some(written) = written.map(|written| written.min(LONGEST)) else { return };
        self.answers += 1;
        self.all.add(written);
        if let Some(step) = step {
            let known = self.step(step);
            known.answers.add(written);
        }
    }

    /// Takes over the sizes of the answers of `step` that an earlier session had, unless this one has seen some.
    pub(super) fn restore(&mut self, step: &StepName, written: impl IntoIterator<Item = u64>) {
        if self.steps.contains_key(step) {
            return;
        }
        // What their prompts were estimated at is not recorded.
        written.into_iter().for_each(|written| self.learn(Some(step), 0, 0, Some(written)));
    }

    fn answers_of(&self, step: Option<&StepName>) -> Option<&Window> {
        let own = step.and_then(|step| self.steps.get(step)).map(|step| &step.answers);
        let own = own.filter(|answers| answers.len() >= ENOUGH);
        own.or_else(|| Some(&self.all).filter(|all| !all.is_empty()))
    }

    fn step(&mut self, name: &StepName) -> &mut Step {
        if self.steps.len() >= STEPS && !self.steps.contains_key(name) {
            let longest_unused = self.steps.iter().min_by_key(|(_, step)| step.last);
            let longest_unused = longest_unused.map(|(name, _)| name.clone());
            longest_unused.and_then(|unused| self.steps.remove(&unused));
        }
        let step = self.steps.entry(name.clone()).or_default();
        step.last = self.answers;
        step
    }
}

/// What the provider counts, for each token of the estimate. Weighs each call by its size, so that what
/// a provider adds to every prompt does not make the long ones look longer.
#[derive(Debug, Default)]
struct Ratio {
    read: f64,
    estimated: f64,
    seen: u32,
}

impl Ratio {
    fn value(&self) -> f64 {
        if self.seen == 0 { 1.0 } else { (self.read / self.estimated).clamp(RATIOS.0, RATIOS.1) }
    }

    fn learn(&mut self, estimated: u64, read: u64) {
        // A server that counts nothing says zero.
        if estimated == 0 || read == 0 {
            return;
        }
        let estimated = estimated as f64;
        let read = (read as f64).clamp(estimated * RATIOS.0, estimated * RATIOS.1);
        self.seen = self.seen.saturating_add(1);
        // The first ones count fully: an average of all there are.
        let weight = 1.0 / f64::from(self.seen.min(LOOKS_BACK));
        self.read += (read - self.read) * weight;
        self.estimated += (estimated - self.estimated) * weight;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn estimate(input: u64) -> Estimate {
        Estimate { input, max_tokens: None }
    }

    fn learn(sizes: &mut Sizes, step: &str, written: impl IntoIterator<Item = u64>) {
        for written in written {
            sizes.learn(Some(&step.into()), 100, 100, Some(written));
        }
    }

    #[test]
    fn before_the_first_answer_a_size_is_assumed_and_never_above_max_tokens() {
        let sizes = Sizes::default();
        let capped = Estimate { input: 100, max_tokens: Some(60) };
        assert_eq!(sizes.need(None, estimate(100)), Need { input: 100, output: 500 });
        assert_eq!(sizes.need(None, capped), Need { input: 100, output: 60 });
        assert_eq!(sizes.usual(None), None);
    }

    #[test]
    fn every_step_has_its_own_sizes_once_it_has_been_seen_often_enough() {
        let (mut sizes, short, long) = (Sizes::default(), "short".into(), "long".into());
        learn(&mut sizes, "short", [4; 9]);
        learn(&mut sizes, "long", (1..=31).map(|tens| tens * 10));
        // Nine are too few: all steps together say more.
        assert_eq!(sizes.need(Some(&short), estimate(1)).output, 290);
        learn(&mut sizes, "short", [4]);
        assert_eq!((sizes.need(Some(&short), estimate(1)).output, sizes.usual(Some(&short))), (4, Some(4)));
        assert_eq!((sizes.need(Some(&long), estimate(1)).output, sizes.usual(Some(&long))), (300, Some(160)));
        let unknown = "unknown".into();
        assert_eq!(sizes.need(Some(&unknown), estimate(1)), sizes.need(None, estimate(1)));
    }

    #[test]
    fn the_first_counts_correct_the_estimate_fully_and_nonsense_only_within_bounds() {
        let mut sizes = Sizes::default();
        sizes.learn(None, 100, 150, None);
        assert_eq!(sizes.input(1_000), 1_500);
        sizes.learn(None, 100, 50, None);
        assert_eq!(sizes.input(1_000), 1_000);
        sizes.learn(None, 100, 0, None);
        assert_eq!(sizes.input(1_000), 1_000);
        (0..500).for_each(|_| sizes.learn(None, 1, u64::MAX, None));
        assert_eq!(sizes.input(1_000), 5_000);
    }

    #[test]
    fn one_absurd_count_does_not_hold_back_the_calls_after_it() {
        let mut sizes = Sizes::default();
        learn(&mut sizes, "step", [100; 99]);
        learn(&mut sizes, "step", [u64::MAX]);
        let step = "step".into();
        assert_eq!(sizes.need(Some(&step), estimate(1)).output, 100);
        assert_eq!(sizes.usual(Some(&step)), Some((99 * 100 + LONGEST) / 100));
    }

    #[test]
    fn what_is_added_to_every_prompt_does_not_make_long_ones_look_longer() {
        let mut sizes = Sizes::default();
        // Fifty tokens more each, whatever the size.
        (0..100).for_each(|_| sizes.learn(None, 10, 60, None));
        (0..100).for_each(|_| sizes.learn(None, 10_000, 10_050, None));
        assert!((10_050..11_000).contains(&sizes.input(10_000)), "{}", sizes.input(10_000));
    }

    #[test]
    fn what_an_earlier_session_learned_is_restored_where_nothing_is_known_yet() {
        let (mut sizes, step) = (Sizes::default(), "step".into());
        let assumed = sizes.likely(Some(&step), estimate(100)).output;
        sizes.restore(&step, [20; SURE_OF_MONEY]);
        assert_eq!((assumed, sizes.likely(Some(&step), estimate(100)).output), (ASSUMED_OUTPUT, 20));
        assert_eq!(sizes.input(1_000), 1_000, "nothing is said of prompts");
        sizes.restore(&step, [900; 100]);
        assert_eq!(sizes.need(Some(&step), estimate(100)).output, 20, "what was seen counts");
    }

    #[test]
    fn the_step_that_was_not_used_for_longest_is_forgotten() {
        let mut sizes = Sizes::default();
        for step in 0..STEPS {
            learn(&mut sizes, &step.to_string(), [1; ENOUGH]);
        }
        learn(&mut sizes, "0", [1]);
        learn(&mut sizes, "new", [1]);
        assert_eq!(sizes.steps.len(), STEPS);
        assert!(sizes.steps.contains_key("0") && sizes.steps.contains_key("new"));
        assert!(!sizes.steps.contains_key("1"));
    }

    proptest! {
        #[test]
        fn what_is_learned_stays_within_what_was_seen(
            calls in proptest::collection::vec((1u64..10_000, 0.2f64..5.0, 0u64..5_000, 0u8..4), 1..300),
        ) {
            let mut sizes = Sizes::default();
            let (mut least, mut most) = (f64::MAX, f64::MIN);
            let (mut shortest, mut longest) = (u64::MAX, 0);
            for (estimated, ratio, written, step) in calls {
                let read = ((estimated as f64 * ratio) as u64).max(1);
                let seen = (read as f64 / estimated as f64).clamp(RATIOS.0, RATIOS.1);
                (least, most) = (least.min(seen), most.max(seen));
                (shortest, longest) = (shortest.min(written), longest.max(written));
                sizes.learn(Some(&step.to_string().into()), estimated, read, Some(written));
                let ratio = sizes.ratio.value();
                prop_assert!(ratio >= least - 1e-9 && ratio <= most + 1e-9, "{ratio}");
                let name = step.to_string().into();
                let output = sizes.need(Some(&name), estimate(estimated)).output;
                prop_assert!(output >= shortest && output <= longest.max(1), "{output}");
                let usual = sizes.usual(Some(&name)).unwrap();
                prop_assert!(usual >= shortest && usual <= longest, "{usual}");
            }
        }
    }
}
