//! How long the attempts of each step took lately: what is long for one step is usual for another.
//!
//! Bounded, however many steps there are. Reads no clock.

use std::collections::HashMap;
use std::time::Duration;

use crate::types::StepName;

use super::times::Times;

/// Steps that are remembered.
const STEPS: usize = 256;

/// The times of a target's latest attempts, by step.
#[derive(Debug, Default)]
pub(super) struct StepTimes {
    steps: HashMap<Option<StepName>, Step>,
    /// Answers so far: the time that steps were last used by.
    answers: u64,
}

#[derive(Debug, Default)]
struct Step {
    times: Times,
    /// The longest time, also where too few are known to tell what is usual.
    longest: Duration,
    last: u64,
}

impl StepTimes {
    /// Learns from an attempt that was answered.
    pub(super) fn answered(&mut self, step: Option<&StepName>, took: Duration) {
        let step = step.cloned();
        if self.steps.len() >= STEPS && !self.steps.contains_key(&step) {
            let unused = self.steps.iter().min_by_key(|(_, known)| known.last).map(|(name, _)| name.clone());
            unused.and_then(|unused| self.steps.remove(&unused));
        }
        self.answers += 1;
        let known = self.steps.entry(step).or_default();
        known.times.answered(took);
        known.longest = known.longest.max(took);
        known.last = self.answers;
    }

    /// Returns whether nothing is known of any step.
    pub(super) fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Returns the time that this share of the step's attempts did not outlast; `None` while too few are known.
    pub(super) fn usual(&self, step: Option<&StepName>, share: f64) -> Option<Duration> {
        self.of(step)?.times.usual(share)
    }

    /// Returns the longest time of the step; `None` before its first answer.
    pub(super) fn longest(&self, step: Option<&StepName>) -> Option<Duration> {
        self.of(step).map(|known| known.longest)
    }

    fn of(&self, step: Option<&StepName>) -> Option<&Step> {
        self.steps.get(&step.cloned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_step_has_its_own_times() {
        let (mut times, second) = (StepTimes::default(), Duration::from_secs(1));
        let (short, long): (StepName, StepName) = ("short".into(), "long".into());
        assert!(times.is_empty());
        (0..20).for_each(|_| times.answered(Some(&short), second));
        times.answered(Some(&long), 9 * second);
        assert_eq!(times.usual(Some(&short), 0.95), Some(second));
        assert_eq!((times.usual(Some(&long), 0.95), times.longest(Some(&long))), (None, Some(9 * second)));
        assert_eq!((times.usual(None, 0.95), times.longest(None)), (None, None));
    }

    #[test]
    fn the_step_that_was_not_used_for_longest_is_forgotten() {
        let (mut times, second) = (StepTimes::default(), Duration::from_secs(1));
        let name = |number: usize| StepName::from(number.to_string().as_str());
        (0..STEPS).for_each(|number| times.answered(Some(&name(number)), second));
        times.answered(Some(&name(0)), second);
        times.answered(Some(&name(STEPS)), second);
        assert_eq!(times.steps.len(), STEPS);
        let is_known = |number| times.longest(Some(&name(number))).is_some();
        assert!(is_known(0) && is_known(STEPS) && !is_known(1));
    }
}
