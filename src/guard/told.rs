//! One limit as the provider itself sees it, from its headers.
//!
//! What a header says is true of the instant at which the provider counted: about when the call left that it
//! answers. Calls that left later were not in yet, and what has come back since is not either. Each call
//! keeps a [`Mark`], so that those can be counted off. A provider that counts when it answers has seen both;
//! as they cancel out while calls flow, it need not be known which kind it is. Pure.

use tokio::time::Instant;

use super::standing::Standing;
use super::windows::{Counted, Windows};

/// How much had been taken when a call left, itself included.
#[derive(Debug, Clone, Copy, Default, PartialEq, PartialOrd)]
pub(super) struct Mark(f64);

/// The provider's picture of one limit.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// All that calls have taken, by what they usually take.
    taken: f64,
    /// The most that ever was left: what the provider's bucket holds at least.
    most: f64,
    /// What was left, less what left since, and as of when.
    left: Option<(f64, Instant)>,
    /// The mark of the last call that was heard of: answers overtake one another.
    heard: Mark,
    per_minute: Option<u64>,
    windows: Windows,
}

impl Told {
    /// Counts a call that leaves.
    pub(super) fn took(&mut self, usual: u64) -> Mark {
        self.taken += usual as f64;
        if let Some((left, _)) = &mut self.left {
            *left -= usual as f64;
        }
        Mark(self.taken)
    }

    /// Takes back a call that did not leave after all.
    pub(super) fn took_back(&mut self, usual: u64) {
        self.taken -= usual as f64;
        if let Some((left, _)) = &mut self.left {
            *left += usual as f64;
        }
    }

    /// Believes what came back with the call of `mark` that left at `said`.
    pub(super) fn hear(&mut self, standing: &Standing, mark: Mark, said: Instant) {
        // Some name a limit of nothing where there is none, and answer all the same.
        if standing.limit == Some(0) {
            return;
        }
        let minutes = match self.windows.of(standing, said) {
            Counted::ForLong => {
                // Of such a limit no pace can be learned, and what is left of it is for a day.
                (self.per_minute, self.left) = (None, None);
                return;
            }
            Counted::Unclear => return,
            Counted::Over(window) => 60.0 / window.as_secs_f64(),
        };
        let per_minute = |limit: u64| ((limit as f64 * minutes) as u64).max(1);
        self.per_minute = standing.limit.map(per_minute).or(self.per_minute);
        if mark < self.heard {
            return;
        }
        self.heard = mark;
        // More cannot be left of a limit than it is: a burst must not grow into what is not there.
        let most = standing.limit.or(self.per_minute).unwrap_or(u64::MAX);
        let remaining = standing.remaining.min(most) as f64;
        self.most = self.most.max(remaining);
        self.left = Some((remaining - (self.taken - mark.0), said));
    }

    /// Returns how many the provider says it takes in a minute.
    pub(super) fn per_minute(&self) -> Option<u64> {
        self.per_minute
    }

    /// Returns the most that ever was left.
    pub(super) fn most(&self) -> f64 {
        self.most
    }

    /// Returns what must be left at `now` if `per_minute` come back; below zero when more has left than
    /// there is. `None` before the provider has said anything.
    pub(super) fn left(&self, per_minute: f64, now: Instant) -> Option<f64> {
        let (left, said) = self.left?;
        let back = now.saturating_duration_since(said).as_secs_f64() * per_minute / 60.0;
        Some((left + back).min(self.most))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::types::LimitWindow;

    fn said(remaining: u64) -> Standing {
        Standing { limit: Some(600), remaining, reset: None, window: LimitWindow::OfVendor }
    }

    #[test]
    fn calls_that_left_later_are_counted_off() {
        let (mut told, now) = (Told::default(), Instant::now());
        let first = told.took(1);
        assert_eq!(told.left(600.0, now), None);
        told.took(1);
        told.took(1);
        told.hear(&said(99), first, now);
        assert_eq!(told.left(600.0, now), Some(97.0));
        told.took(5);
        assert_eq!(told.left(600.0, now), Some(92.0));
        assert_eq!(told.left(600.0, now + Duration::from_millis(300)), Some(95.0));
        assert_eq!(told.left(600.0, now + Duration::from_secs(60)), Some(99.0), "never more than it said");
    }

    #[test]
    fn an_answer_that_was_overtaken_is_old_news() {
        let (mut told, now) = (Told::default(), Instant::now());
        let (first, second) = (told.took(1), told.took(1));
        told.hear(&said(40), second, now);
        told.hear(&said(50), first, now);
        assert_eq!(told.left(600.0, now), Some(40.0));
    }

    #[test]
    fn more_than_the_limit_is_never_left_and_a_limit_of_nothing_is_none() {
        let (mut told, now) = (Told::default(), Instant::now());
        let mark = told.took(1);
        told.hear(
            &Standing { limit: Some(0), remaining: 0, reset: None, window: LimitWindow::OfVendor },
            mark,
            now,
        );
        assert_eq!((told.per_minute(), told.left(600.0, now)), (None, None));
        told.hear(&said(u64::MAX), mark, now);
        assert_eq!((told.left(600.0, now), told.most()), (Some(600.0), 600.0));
    }

    #[test]
    fn a_limit_by_the_day_is_no_pace() {
        let mut told = Told::default();
        let mark = told.took(1);
        let by_day = Standing {
            limit: Some(14_400),
            remaining: 14_370,
            reset: Some(Duration::from_secs(180)),
            window: LimitWindow::OfVendor,
        };
        told.hear(&by_day, mark, Instant::now());
        assert_eq!(told.per_minute(), None);
        told.hear(&said(1), mark, Instant::now());
        assert_eq!(told.per_minute(), Some(600));
    }
}
