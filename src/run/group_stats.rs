//! Statistics of the attempts of one step or one target: counts, times, tokens, cost.

use std::time::Duration;

use hdrhistogram::Histogram;

use super::report::{GroupReport, LatencySummary};
use crate::types::{Attempt, NanoUsd, Outcome, Savings, Usage};

/// Statistics of one step or one target.
#[derive(Debug)]
pub(super) struct GroupStats {
    attempts: u64,
    failed: u64,
    superseded: u64,
    took: LatencyHistogram,
    /// Total of all attempts.
    seconds: f64,
    waited: LatencyHistogram,
    tokens: Usage,
    cost: Cost,
    simulated: bool,
}

/// What attempts cost, as far as that is known.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Cost {
    known: NanoUsd,
    /// What the providers' caches saved, as far as they were used and the price is known.
    cache_savings: Option<Savings>,
    /// Attempts with a model that has no price.
    without_price: u64,
    /// Attempts that ended without a usage report.
    without_usage: u64,
}

/// Times in microseconds, to three digits.
#[derive(Debug)]
pub(super) struct LatencyHistogram(Histogram<u64>);

/// Longer times are recorded as this one, which bounds the histogram.
const MAX_RECORDED_TIME: Duration = Duration::from_secs(7 * 24 * 3600);

impl Cost {
    pub(super) fn add(&mut self, attempt: &Attempt) {
        if let Some(savings) = attempt.cache_savings {
            *self.cache_savings.get_or_insert_default() += savings;
        }
        match attempt.cost {
            Some(cost) => self.known += cost,
            None if attempt.is_free() || attempt.counted_elsewhere => {}
            None if attempt.usage.is_some() => self.without_price += 1,
            None => self.without_usage += 1,
        }
    }

    /// Returns the sum of the known costs in dollars; `None` if something was charged and nothing is known.
    pub(super) fn dollars(&self) -> Option<f64> {
        (self.unknown() == 0 || self.known > NanoUsd(0)).then(|| self.known.dollars())
    }

    /// Returns what the providers' caches saved, in dollars; `None` if they were not used or no price is known.
    pub(super) fn cache_saved_dollars(&self) -> Option<f64> {
        self.cache_savings.map(Savings::dollars)
    }

    /// Returns the number of attempts whose cost is unknown.
    pub(super) fn unknown(&self) -> u64 {
        self.without_price + self.without_usage
    }
}

impl LatencyHistogram {
    pub(super) fn new() -> Self {
        #[expect(clippy::expect_used, reason = "the only thing refused is more than five digits")]
        Self(Histogram::new(3).expect("three digits are accepted"))
    }

    pub(super) fn add(&mut self, time: Duration) {
        // Not `saturating_record`: it truncates every time to the current range of the histogram, which is
        // microseconds at first, instead of growing it. An error would be a time beyond the bounds of a growing
        // histogram, which cannot happen.
        let _ = self.0.record(time.min(MAX_RECORDED_TIME).as_micros() as u64);
    }

    pub(super) fn summary(&self) -> LatencySummary {
        let seconds = |microseconds: u64| microseconds as f64 / 1e6;
        let at = |quantile: f64| seconds(self.0.value_at_quantile(quantile));
        let average = self.0.mean() / 1e6;
        let max = seconds(self.0.max());
        LatencySummary { average, p50: at(0.5), p95: at(0.95), p99: at(0.99), max }
    }
}

impl GroupStats {
    pub(super) fn new() -> Self {
        Self {
            attempts: 0,
            failed: 0,
            superseded: 0,
            took: LatencyHistogram::new(),
            seconds: 0.0,
            waited: LatencyHistogram::new(),
            tokens: Usage::default(),
            cost: Cost::default(),
            simulated: false,
        }
    }

    /// Adds the tokens and the cost of an attempt that another request counts.
    pub(super) fn add_share(&mut self, share: &Attempt, simulated: bool) {
        self.tokens += share.usage.unwrap_or_default();
        self.cost.add(share);
        self.simulated |= simulated;
    }

    pub(super) fn add(&mut self, attempt: &Attempt, simulated: bool) {
        self.attempts += 1;
        let is_superseded = attempt.outcome == Outcome::Superseded;
        self.superseded += u64::from(is_superseded);
        self.failed += u64::from(!is_superseded && attempt.outcome != Outcome::Answered);
        self.took.add(attempt.duration);
        self.seconds += attempt.duration.as_secs_f64();
        self.waited.add(attempt.queue_time);
        self.tokens += attempt.usage.unwrap_or_default();
        self.cost.add(attempt);
        self.simulated |= simulated;
    }

    pub(super) fn report(&self) -> GroupReport {
        GroupReport {
            calls: self.attempts,
            failed: self.failed,
            superseded: self.superseded,
            duration_seconds: self.took.summary(),
            queued_seconds: self.waited.summary(),
            tokens: self.tokens,
            cost_usd: self.cost.dollars(),
            cache_saved_usd: self.cost.cache_saved_dollars(),
            calls_of_unknown_cost: self.cost.unknown(),
            calls_without_price: self.cost.without_price,
            calls_without_usage: self.cost.without_usage,
            simulated: self.simulated,
        }
    }

    /// Returns what its superseded attempts may have cost: as much as the answered ones on average.
    pub(super) fn superseded_dollars(&self) -> Option<f64> {
        let answered = self.attempts.saturating_sub(self.failed + self.superseded);
        let known = answered > 0 && self.cost.without_price == 0;
        known.then(|| self.cost.known.dollars() / answered as f64 * self.superseded as f64)
    }

    /// Returns whether any of its attempts was superseded.
    pub(super) fn has_superseded(&self) -> bool {
        self.superseded > 0
    }

    /// Returns the number of attempts and their total duration in seconds.
    pub(super) fn attempts_and_seconds(&self) -> (u64, f64) {
        (self.attempts, self.seconds)
    }
}
