//! State of an unknown limit as shown by 429 responses: the estimate, and the rate at which calls are sent.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::types::RateLimitResource;

use super::send_record::{Amount, SendRecord};

/// How far below the estimate the rate falls at a 429 response, and how fast it grows beyond the estimate.
const REDUCTION_DEPTH: f64 = 0.05;
const GROWTH_STEEPNESS: f64 = 0.25;

/// Divisor of the search rate for a 429 response with nothing accepted since the previous one.
const SEARCH_BACKOFF: f64 = 1.5;

/// 429 responses that end the search; after each but the last it continues from half of the rate, half as
/// fast.
pub(super) const MAX_SEARCH_THROTTLES: u32 = 3;

/// Minimum calls per minute from which the search starts.
const MIN_SEARCH_CALLS_PER_MINUTE: f64 = 60.0;

/// Minimum share of the rate that remains after a 429 response that comes before the estimate is reached,
/// for the first, second, and third or later of consecutive such responses.
const MIN_REMAINING_SHARE: [f64; 3] = [0.9, 0.8, 0.75];

/// The same if the end of the provider's window is known, which makes the measurement exact.
const MIN_REMAINING_SHARE_OF_WINDOW: f64 = 0.1;

/// Maximum share of the rate that remains after a 429 response.
const MAX_REMAINING_SHARE: f64 = 0.97;

/// A limit below this share of the previous rate counts as fallen.
const MAX_SHARE_OF_FALLEN_LIMIT: f64 = 0.7;

/// Accepted calls that a measurement needs when the limit has fallen.
const MIN_CALLS_FOR_MEASUREMENT: f64 = 10.0;

/// A wait that the provider names is that of a window, and not of a bucket, when it is longer than this and
/// has permits for `MIN_CALLS_DURING_WINDOW_WAIT` calls.
const MAX_WAIT_OF_BUCKET: Duration = Duration::from_secs(2);
const MIN_CALLS_DURING_WINDOW_WAIT: f64 = 2.0;

/// Minimum number of calls that a window has accepted: a bucket that holds one call may name as long a wait
/// while the rate is far too high.
const MIN_ACCEPTED_IN_WINDOW: f64 = 5.0;

/// Consecutive 429 responses, with nothing accepted between them, that show an exhausted window, and their
/// minimum duration: a bucket rejects several calls that arrive together, too.
const MIN_EMPTY_THROTTLES: u32 = 2;
const MIN_EMPTY_DURATION: Duration = Duration::from_secs(1);

/// Accepted calls between two 429 responses of the search that measure the limit better than half of the
/// rejected rate.
const MIN_CALLS_FOR_SEARCH_MEASUREMENT: f64 = 5.0;

/// Bounds of the rate, in units per second.
const MIN_RATE: f64 = 1.0 / 600.0;
const MAX_RATE: f64 = 1e9;

/// State of an unknown limit. Rates are in units per second.
#[derive(Debug)]
pub(super) struct TrackedLimit {
    pub(super) estimate: f64,
    /// The accepted rate in the minute before the first 429 response.
    pub(super) initial_rate: f64,
    pub(super) phase: Phase,
    /// Time of the latest 429 response that counted: calls sent before belong to the same overload.
    pub(super) throttled_at: Instant,
    /// End of the wait that the latest 429 response named.
    pub(super) resumes_at: Instant,
    /// The first 429 response since a call was accepted.
    pub(super) throttled_since: Instant,
    /// Consecutive 429 responses with nothing accepted between them, less the first.
    pub(super) empty_throttles: u32,
    /// Consecutive 429 responses that came before the estimate was reached again.
    pub(super) early_throttles: usize,
    /// The rate before the first of these.
    pub(super) rate_before_early: f64,
    pub(super) trust: f64,
    pub(super) is_window: bool,
    pub(super) throttles: VecDeque<Throttle>,
}

/// Phase of the estimation.
#[derive(Debug, Clone, Copy)]
pub(super) enum Phase {
    /// The limit is unknown: the rate is `estimate * growth`.
    Search { throttles_left: u32, growth: f64 },
    /// The limit is near the estimate: the rate follows the cubic curve.
    Track { progress: f64 },
}

/// A 429 response, and what had been accepted or was in flight by then.
#[derive(Debug, Clone, Copy)]
pub(super) struct Throttle {
    pub(super) at: Instant,
    pub(super) sent: Amount,
    pub(super) accepted: Amount,
}

impl TrackedLimit {
    pub(super) fn new(first: Throttle) -> Self {
        Self {
            estimate: MIN_RATE,
            initial_rate: 0.0,
            phase: Phase::Search { throttles_left: MAX_SEARCH_THROTTLES, growth: 1.0 },
            throttled_at: first.at,
            resumes_at: first.at,
            throttled_since: first.at,
            empty_throttles: 0,
            early_throttles: 0,
            rate_before_early: 0.0,
            trust: 1.0,
            is_window: false,
            throttles: VecDeque::from([first]),
        }
    }

    /// Starts with what the minute before the first 429 response accepted. Calls sent together are rejected
    /// one by one, and each may show that it was less.
    pub(super) fn start(
        &mut self,
        initial_rate: f64,
        per_call: f64,
        named_wait: Option<Duration>,
        now: Instant,
    ) {
        let is_enough = initial_rate * 60.0 >= MIN_ACCEPTED_IN_WINDOW * per_call;
        let window = window_wait(named_wait, initial_rate / per_call).filter(|_| is_enough);
        self.initial_rate = initial_rate;
        self.is_window = window.is_some();
        self.resumes_at = now + window.unwrap_or_default();
        // What a window accepted is its limit; otherwise the limit is searched for.
        let min_rate =
            if self.is_window { per_call / 60.0 } else { MIN_SEARCH_CALLS_PER_MINUTE / 60.0 * per_call };
        self.estimate = initial_rate.max(min_rate);
        self.trust = if self.is_window { 0.0 } else { 1.0 };
        self.phase = match self.is_window {
            true => Phase::Track { progress: 1.0 },
            false => Phase::Search { throttles_left: MAX_SEARCH_THROTTLES, growth: 1.0 },
        };
    }

    pub(super) fn rate(&self) -> f64 {
        let factor = match self.phase {
            Phase::Search { growth, .. } => growth,
            Phase::Track { progress } if progress < 1.0 => 1.0 + REDUCTION_DEPTH * (progress - 1.0).powi(3),
            Phase::Track { progress } => 1.0 + GROWTH_STEEPNESS * (progress - 1.0).powi(3),
        };
        (self.estimate * factor).clamp(MIN_RATE, MAX_RATE)
    }

    /// Returns whether the rate has reached the estimate, so that a 429 response is expected.
    pub(super) fn has_reached_estimate(&self) -> bool {
        matches!(self.phase, Phase::Track { progress } if progress >= 1.0)
    }

    /// Starts a search for a limit that has risen again, once the estimate has been reached without a 429
    /// response: it fell because of 429 responses, and those may have been an incident.
    pub(super) fn search_after_fall(&mut self) {
        let has_fallen = self.estimate < self.rate_before_early * MAX_SHARE_OF_FALLEN_LIMIT;
        if self.has_reached_estimate() && has_fallen && !self.is_window {
            self.phase = Phase::Search { throttles_left: 1, growth: 1.0 };
            self.rate_before_early = 0.0;
            self.early_throttles = 0;
        }
    }

    /// Subtracts a late rejected call from what was assumed to be accepted: it had been sent before those
    /// 429 responses.
    pub(super) fn correct_accepted(&mut self, call: &SendRecord) {
        let calls = call.total_sent.calls;
        for throttle in self.throttles.iter_mut().filter(|throttle| calls <= throttle.sent.calls) {
            throttle.accepted -= call.amount;
        }
    }

    /// Records a 429 response with nothing accepted since the previous one: it shows nothing about the rate.
    pub(super) fn record_empty_throttle(&mut self, per_call: f64, now: Instant) {
        self.empty_throttles += 1;
        let lasts = now.saturating_duration_since(self.throttled_since) >= MIN_EMPTY_DURATION;
        let is_first = self.throttles.len() == 1;
        let is_search = matches!(self.phase, Phase::Search { .. });
        let is_enough = !is_first || self.initial_rate * 60.0 >= MIN_CALLS_FOR_MEASUREMENT * per_call;
        if self.empty_throttles >= MIN_EMPTY_THROTTLES && lasts && is_enough {
            self.is_window = true;
            self.trust = 0.0;
            if is_search && is_first {
                self.estimate = self.initial_rate;
            }
            if is_search {
                self.phase = Phase::Track { progress: 1.0 };
            }
        } else if is_search && is_first {
            // A call at this rate was rejected.
            self.estimate = (self.estimate / SEARCH_BACKOFF).max(self.initial_rate).max(MIN_RATE);
        }
    }

    /// Updates the estimate. `accepted` is what had been accepted when the rejected call was sent, at `sent_at`.
    pub(super) fn record_throttle(
        &mut self,
        resource: RateLimitResource,
        per_call: f64,
        accepted: Amount,
        sent_at: Instant,
        now: Instant,
        named_wait: Option<Duration>,
    ) {
        let rate = self.rate();
        self.throttled_since = now;
        self.empty_throttles = 0;
        let measure_since = |throttle: &Throttle| {
            let seconds = sent_at.saturating_duration_since(throttle.at).as_secs_f64().max(1e-3);
            (accepted - throttle.accepted).of(resource).max(0.0) / seconds
        };
        let is_enough =
            |throttle: &&Throttle| (accepted - throttle.accepted).calls >= MIN_CALLS_FOR_MEASUREMENT;
        let mut long_term = self.throttles.front().map_or(rate, measure_since);
        let recent = self.throttles.iter().rev().find(is_enough).or(self.throttles.front());
        let mut recent = recent.map_or(rate, measure_since);
        let mut min_share = MIN_REMAINING_SHARE[self.early_throttles.min(MIN_REMAINING_SHARE.len() - 1)];
        let last = self.throttles.back().map_or(accepted, |last| accepted - last.accepted);
        let window =
            window_wait(named_wait, rate / per_call).filter(|_| last.calls >= MIN_ACCEPTED_IN_WINDOW);
        let is_window = window.is_some();
        if let (Some(wait), Some(last)) = (window, self.throttles.back()) {
            // Between the ends of two consecutive windows exactly one limit is accepted.
            let seconds = (now + wait).saturating_duration_since(self.resumes_at.max(last.at)).as_secs_f64();
            long_term = (accepted - last.accepted).of(resource).max(0.0) / seconds.max(1.0);
            recent = long_term;
            min_share = MIN_REMAINING_SHARE_OF_WINDOW;
            self.is_window = true;
            self.trust = 0.0;
        }
        self.resumes_at = now + named_wait.unwrap_or_default();
        match self.phase {
            Phase::Search { throttles_left, .. } if throttles_left > 1 && !is_window => {
                let measurable =
                    self.throttles.back().filter(|_| last.calls >= MIN_CALLS_FOR_SEARCH_MEASUREMENT);
                let short_term = measurable.map_or(0.0, measure_since);
                self.estimate = long_term.max(short_term).max(rate / 2.0).min(rate * MAX_REMAINING_SHARE);
                self.phase = Phase::Search { throttles_left: throttles_left - 1, growth: 1.0 };
                return;
            }
            Phase::Search { .. } => {
                self.estimate = (long_term + self.trust * (rate - long_term).max(0.0)).min(rate);
            }
            Phase::Track { progress }
                if progress < 1.0
                    && last.calls >= MIN_CALLS_FOR_MEASUREMENT
                    && resource == RateLimitResource::Requests
                    && !self.is_window =>
            {
                // Few of the calls are rejected: the limit is lower by at most their share.
                self.estimate *= 1.0 - 1.0 / (last.calls + 1.0);
                return;
            }
            Phase::Track { progress } if progress < 1.0 => {
                self.early_throttles += 1;
                self.rate_before_early = self.rate_before_early.max(rate);
                // Several in a row mean that the limit has fallen; they say nothing about the bucket.
                if self.early_throttles == 1 {
                    self.trust /= 2.0;
                }
                self.estimate = recent.max(min_share * rate).min(MAX_REMAINING_SHARE * rate);
            }
            Phase::Track { .. } => {
                self.early_throttles = 0;
                let growth = if rate < 1.1 * self.estimate { 1.5 } else { 1.0 };
                self.trust = (self.trust * growth + 0.05).min(1.0);
                let measured = long_term.max(self.estimate);
                self.estimate = (measured + self.trust * (rate - measured).max(0.0)).min(rate);
            }
        }
        self.phase = Phase::Track { progress: 0.0 };
    }
}

/// Returns the named wait if it is that of a window, and not of a bucket, at this many calls per second.
fn window_wait(named_wait: Option<Duration>, calls_per_second: f64) -> Option<Duration> {
    named_wait.filter(|wait| {
        *wait > MAX_WAIT_OF_BUCKET && wait.as_secs_f64() * calls_per_second > MIN_CALLS_DURING_WINDOW_WAIT
    })
}
