//! How long a model may say nothing at all before it counts as silent.
//!
//! Pure. What is long depends on the step: one asks for a word, another for half a minute of thinking.

use std::time::Duration;

use crate::types::StepName;

use super::step_times::StepTimes;

/// The share of a step's attempts of which twice the time is long.
const MOST: f64 = 0.95;

/// How many average attempts are long, where nothing is known of the step.
const OF_USUAL: f64 = 5.0;

/// How long a model may say nothing, as far as its own times do not tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// At least, whatever is known.
    pub at_least: Duration,
    /// As long as the model has not answered.
    pub at_first: Duration,
    /// For a step of which too few answers are known, at a model that has answered.
    pub new_step: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            at_least: Duration::from_secs(5),
            at_first: Duration::from_secs(10),
            new_step: Duration::from_secs(20),
        }
    }
}

impl Patience {
    /// Returns how long an attempt of `step` may be without a word while nothing else is heard of the model. `usual`
    /// is how many seconds attempts at the provider take.
    pub(super) fn of(self, times: &StepTimes, step: Option<&StepName>, usual: Option<f64>) -> Duration {
        if let Some(most) = times.usual(step, MOST) {
            return self.at_least.max(most * 2);
        }
        let usual = usual.map_or(Duration::ZERO, |seconds| Duration::from_secs_f64(seconds * OF_USUAL));
        let longest = times.longest(step).unwrap_or_default() * 2;
        let least = if times.is_empty() { self.at_first } else { self.new_step };
        self.at_least.max(least).max(usual).max(longest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_step_whose_answers_begin_late_is_waited_for_longer_than_its_neighbours() {
        let (mut times, patience) = (StepTimes::default(), Patience::default());
        let (short, long): (StepName, StepName) = ("short".into(), "long".into());
        assert_eq!(patience.of(&times, Some(&long), None), 10 * SECOND);
        (0..100).for_each(|_| times.answered(Some(&short), SECOND / 5));
        assert_eq!(patience.of(&times, Some(&short), Some(0.2)), 5 * SECOND);
        assert_eq!(patience.of(&times, Some(&long), Some(0.2)), 20 * SECOND);
        times.answered(Some(&long), 15 * SECOND);
        assert_eq!(patience.of(&times, Some(&long), Some(1.0)), 30 * SECOND);
        (0..20).for_each(|_| times.answered(Some(&long), 7 * SECOND));
        assert_eq!(patience.of(&times, Some(&long), Some(1.0)), 14 * SECOND);
        assert_eq!(patience.of(&times, Some(&short), Some(1.0)), 5 * SECOND);
    }
}
