//! Counts the part of a run that one step or one lane had: calls, times, tokens, money.

use std::time::Duration;

use hdrhistogram::Histogram;

use super::report::{Part, Times};
use crate::types::{Attempt, NanoUsd, Outcome, Usage};

/// The part of a run that one step or one lane had.
#[derive(Debug)]
pub(super) struct Share {
    calls: u64,
    failed: u64,
    beaten: u64,
    took: Clock,
    /// Of all calls together.
    seconds: f64,
    waited: Clock,
    tokens: Usage,
    cost: Cost,
    practice: bool,
}

/// What calls cost, as far as that is known.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Cost {
    known: NanoUsd,
    /// Calls of a model that has no price.
    without_price: u64,
    /// Calls that ended without a word on what they used.
    without_usage: u64,
}

/// Times in microseconds, to three digits.
#[derive(Debug)]
pub(super) struct Clock(Histogram<u64>);

/// Longer times count as this one, which bounds the histogram.
const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);

impl Cost {
    pub(super) fn add(&mut self, attempt: &Attempt) {
        match attempt.cost {
            Some(cost) => self.known += cost,
            None if attempt.is_free() => {}
            None if attempt.usage.is_some() => self.without_price += 1,
            None => self.without_usage += 1,
        }
    }

    /// Returns the sum of what is known, in dollars; `None` when there was a cost and none is known.
    pub(super) fn dollars(&self) -> Option<f64> {
        (self.unknown() == 0 || self.known > NanoUsd(0)).then(|| self.known.dollars())
    }

    /// Returns how many calls cost nobody knows what.
    pub(super) fn unknown(&self) -> u64 {
        self.without_price + self.without_usage
    }
}

impl Clock {
    pub(super) fn new() -> Self {
        #[expect(clippy::expect_used, reason = "the only thing refused is more than five digits")]
        Self(Histogram::new(3).expect("three digits are accepted"))
    }

    pub(super) fn add(&mut self, time: Duration) {
        // Not `saturating_record`: that cuts every time at what the histogram has room for so far, which
        // is microseconds at first, instead of growing.
        // An error is a time beyond the bounds of a histogram that grows: there is none.
        let _ = self.0.record(time.min(LONGEST).as_micros() as u64);
    }

    pub(super) fn times(&self) -> Times {
        let seconds = |microseconds: u64| microseconds as f64 / 1e6;
        let at = |quantile: f64| seconds(self.0.value_at_quantile(quantile));
        let (average, max) = (self.0.mean() / 1e6, seconds(self.0.max()));
        Times { average, p50: at(0.5), p95: at(0.95), p99: at(0.99), max }
    }
}

impl Share {
    pub(super) fn new() -> Self {
        let (calls, failed, beaten, practice) = (0, 0, 0, false);
        let (tokens, cost) = (Usage::default(), Cost::default());
        Self {
            calls,
            failed,
            beaten,
            took: Clock::new(),
            seconds: 0.0,
            waited: Clock::new(),
            tokens,
            cost,
            practice,
        }
    }

    pub(super) fn add(&mut self, attempt: &Attempt, practice: bool) {
        self.calls += 1;
        let beaten = attempt.outcome == Outcome::Superseded;
        self.beaten += u64::from(beaten);
        self.failed += u64::from(!beaten && attempt.outcome != Outcome::Answered);
        self.took.add(attempt.took);
        self.seconds += attempt.took.as_secs_f64();
        self.waited.add(attempt.waited);
        self.tokens += attempt.usage.unwrap_or_default();
        self.cost.add(attempt);
        self.practice |= practice;
    }

    pub(super) fn part(&self) -> Part {
        Part {
            calls: self.calls,
            failed: self.failed,
            beaten: self.beaten,
            seconds: self.took.times(),
            waited: self.waited.times(),
            tokens: self.tokens,
            cost_usd: self.cost.dollars(),
            calls_of_unknown_cost: self.cost.unknown(),
            calls_without_price: self.cost.without_price,
            calls_without_usage: self.cost.without_usage,
            practice: self.practice,
        }
    }

    /// Returns what its beaten calls may have cost: as much as those that were answered.
    pub(super) fn beaten_dollars(&self) -> Option<f64> {
        let answered = self.calls.saturating_sub(self.failed + self.beaten);
        let known = answered > 0 && self.cost.without_price == 0;
        known.then(|| self.cost.known.dollars() / answered as f64 * self.beaten as f64)
    }

    /// Returns whether any of its calls was beaten.
    pub(super) fn has_beaten(&self) -> bool {
        self.beaten > 0
    }

    /// Returns how many calls there were, and how many seconds they took together.
    pub(super) fn time(&self) -> (u64, f64) {
        (self.calls, self.seconds)
    }
}
