//! The number of inputs that the servers of a route accept in one request, as far as refusals have shown it. Pure: the
//! caller passes `now`.

use std::time::Duration;

use tokio::time::Instant;

/// Fewer inputs are never learned. A refusal may have had another reason, and small requests cost more calls.
const MIN_LEARNED_INPUTS: usize = 16;

/// Answered requests of about the learned number of inputs, after which the number is doubled.
const ANSWERS_TO_GROW: u32 = 100;

/// Time after which the learned number is doubled.
const TIME_TO_GROW: Duration = Duration::from_mins(10);

/// The limit of one route.
#[derive(Debug, Default)]
pub(super) struct LearnedLimit(Option<Learned>);

#[derive(Debug)]
struct Learned {
    inputs: usize,
    /// Requests of about so many inputs that were answered since.
    answered: u32,
    since: Instant,
}

impl LearnedLimit {
    /// Returns how many inputs a request may have.
    pub(super) fn inputs(&mut self, now: Instant) -> usize {
        let Some(learned) = &mut self.0 else { return usize::MAX };
        if now.saturating_duration_since(learned.since) >= TIME_TO_GROW {
            learned.grow(now);
        }
        learned.inputs
    }

    /// Records that so many inputs were accepted after more had been refused.
    pub(super) fn learn(&mut self, accepted: usize, now: Instant) {
        let inputs = accepted.max(MIN_LEARNED_INPUTS).min(self.inputs(now));
        self.0 = Some(Learned { inputs, answered: 0, since: now });
    }

    /// Records that a request with so many inputs was answered.
    pub(super) fn record_answered(&mut self, inputs: usize, now: Instant) {
        let Some(learned) = &mut self.0 else { return };
        // The last request that fits is seldom exactly at the limit.
        if inputs > learned.inputs / 2 {
            learned.answered += 1;
        }
        if learned.answered >= ANSWERS_TO_GROW {
            learned.grow(now);
        }
    }
}

impl Learned {
    fn grow(&mut self, now: Instant) {
        *self = Self { inputs: self.inputs.saturating_mul(2), answered: 0, since: now };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_the_smallest_accepted_number_and_at_least_sixteen() {
        let now = Instant::now();
        let mut limit = LearnedLimit::default();
        assert_eq!(limit.inputs(now), usize::MAX);
        for (accepted, inputs) in [(64, 64), (100, 64), (31, 31), (1, 16)] {
            limit.learn(accepted, now);
            assert_eq!(limit.inputs(now), inputs, "{accepted}");
        }
    }

    #[test]
    fn the_limit_is_doubled_after_a_hundred_answers_of_its_size() {
        let now = Instant::now();
        let mut limit = LearnedLimit::default();
        limit.learn(20, now);
        for _ in 0..1_000 {
            limit.record_answered(10, now);
        }
        for _ in 1..ANSWERS_TO_GROW {
            limit.record_answered(20, now);
        }
        assert_eq!(limit.inputs(now), 20);
        limit.record_answered(11, now);
        assert_eq!(limit.inputs(now), 40);
        limit.record_answered(40, now);
        assert_eq!(limit.inputs(now), 40, "a hundred more are needed");
    }

    #[test]
    fn the_limit_is_doubled_after_ten_minutes() {
        let now = Instant::now();
        let mut limit = LearnedLimit::default();
        limit.learn(20, now);
        let later = now + TIME_TO_GROW;
        assert_eq!(limit.inputs(later - Duration::from_secs(1)), 20);
        assert_eq!(limit.inputs(later), 40);
        assert_eq!(limit.inputs(later), 40);
        assert_eq!(limit.inputs(later + TIME_TO_GROW), 80);
    }
}
