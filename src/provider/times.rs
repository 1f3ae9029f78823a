//! How long the latest calls to a lane took, for whoever wants to know what is long.
//!
//! Bounded; reads no clock.

use std::collections::VecDeque;
use std::time::Duration;

/// Calls that are remembered.
const REMEMBERED: usize = 128;

/// Calls without which nobody knows what is usual.
const ENOUGH: usize = 20;

/// The share of the calls that a call has to outlast before its being broken off says something.
const MOST: f64 = 0.95;

/// The times of a lane's latest calls, from leaving to their end.
#[derive(Debug, Default)]
pub(super) struct Times(VecDeque<Duration>);

impl Times {
    /// Learns from a call that was answered.
    pub(super) fn answered(&mut self, took: Duration) {
        if self.0.len() == REMEMBERED {
            self.0.pop_front();
        }
        self.0.push_back(took);
    }

    /// Learns from a call that nobody waited for any longer. One that had outlasted most others counts as
    /// having taken as long as that: else the slow ones would never be seen, and ever shorter times would
    /// be taken for long.
    pub(super) fn broken_off(&mut self, after: Duration) {
        if self.usual(MOST).is_some_and(|most| after >= most) {
            self.answered(after);
        }
    }

    /// Returns the time that this share of the calls did not outlast; `None` while too few are known.
    pub(super) fn usual(&self, share: f64) -> Option<Duration> {
        if self.0.len() < ENOUGH {
            return None;
        }
        let mut times: Vec<Duration> = self.0.iter().copied().collect();
        times.sort_unstable();
        let last = times.len() - 1;
        times.get(((times.len() as f64 * share).ceil() as usize).saturating_sub(1).min(last)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(milliseconds: impl IntoIterator<Item = u64>) -> Times {
        let mut times = Times::default();
        milliseconds.into_iter().for_each(|took| times.answered(Duration::from_millis(took)));
        times
    }

    #[test]
    fn what_is_usual_is_known_after_twenty_calls() {
        assert_eq!(times(1..=19).usual(0.95), None);
        assert_eq!(times(1..=20).usual(0.95), Some(Duration::from_millis(19)));
        assert_eq!(times((1..=100).rev()).usual(0.5), Some(Duration::from_millis(50)));
    }

    #[test]
    fn the_latest_calls_count_and_no_others() {
        let times = times((0..1_000).map(|_| 9_000).chain((0..128).map(|_| 7)));
        assert_eq!((times.usual(1.0), times.0.len()), (Some(Duration::from_millis(7)), REMEMBERED));
    }

    #[test]
    fn a_call_that_was_broken_off_late_counts_and_one_broken_off_early_does_not() {
        let mut times = times((0..40).map(|_| 100));
        (0..40).for_each(|_| times.broken_off(Duration::from_millis(99)));
        assert_eq!(times.0.len(), 40);
        times.broken_off(Duration::from_millis(500));
        assert_eq!(times.usual(1.0), Some(Duration::from_millis(500)));
    }
}
