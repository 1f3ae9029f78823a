//! Adaptive concurrency limit of one target.
//!
//! A loss-based limiter. The limit doubles with every round trip until the provider first signals overload
//! (429 without a known limit, 503, 529, no response). It decreases in proportion to the share of overload
//! responses, as DCTCP does (RFC 8257): the number of overload responses in a round trip counts, not merely
//! their presence. Once a round has more of them than chance explains, each lowers the limit by one. If a
//! provider accepts 40 of 512 attempts, its 472 rejections lower the limit to 40. If a provider rejects 2%
//! at random at any concurrency, the limit stays. `overload_detector.rs` distinguishes the two cases.
//!
//! The smallest number of attempts in flight that caused overload is the *ceiling*. The limit returns to
//! just below it, or to where it has been before, within a few round trips. The ceiling is trusted for a
//! quarter of its age: after an incident of a few seconds the limit is restored within seconds, and a
//! ceiling that persists is exceeded less and less often, in steps of 1, 2, 4 and so on. Growth also stops
//! where it brings no more throughput (`throughput_probe.rs`, a gradient by goodput). Long latencies alone
//! do not lower the limit.
//!
//! Why none of the usual algorithms is used as it is:
//!
//! - AIMD, as in Netflix's concurrency-limits (`AIMDLimit`: times 0.9 for any drop) and vector's adaptive
//!   request concurrency (`controller.rs`: times 0.9 for any round with back pressure, plus one for one
//!   without), only decreases under random rejections. With 2% of them and 512 in flight, almost every
//!   round has one.
//! - Gradients by latency (Netflix's `Gradient2Limit` and `VegasLimit`, Envoy's adaptive concurrency
//!   filter) compare the current latency with that under little load. A model takes a second or a minute to
//!   answer, depending on the request. Envoy also measures its base by admitting only three requests at a
//!   time, every minute. Neither counts rejections as such.
//! - DCTCP halves the share, because its marks arrive before the queue is full. Here an overload response
//!   is a lost attempt, and the excess is exactly the number of rejected attempts.
//!
//! The limiter counts the attempts in flight itself. It reads no clock; the owner passes `now`.

use std::time::Duration;

use tokio::time::Instant;

use super::ConcurrencySettings;
use super::ceiling::{Ceiling, Reduction};
use super::overload_detector::{OverloadDetector, OverloadVerdict};
use super::throughput_probe::{AnsweredCall, SampleSlot, ThroughputProbe};

/// The limit counts as used from this many tenths of it in flight.
const MIN_USED_TENTHS: usize = 9;

/// The target counts as idle below this many tenths of the limit in flight: such calls say nothing about
/// the throughput at the limit.
const MIN_BUSY_TENTHS: usize = 5;

/// The limit after an outage: the limit before divided by `OUTAGE_DIVISOR`, and at least
/// `MIN_LIMIT_AFTER_OUTAGE`.
const OUTAGE_DIVISOR: usize = 8;
const MIN_LIMIT_AFTER_OUTAGE: usize = 2;

/// Growth for each accepted call on the way back to a former limit.
const RECOVERY_STEP: usize = 3;

/// A step requires that the limit divided by this many calls were accepted since the last one.
const STEP_CREDIT_DIVISOR: usize = 8;

/// Longest time until the next step, however long overload responses take.
const MAX_STEP_INTERVAL: Duration = Duration::from_secs(2);

/// A call that was sent. It must be returned once, with [`ConcurrencyLimit::release`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InFlightToken {
    sent_at: Instant,
    /// Calls in flight when it was sent, itself included.
    in_flight: usize,
    /// The limit at that time.
    limit: usize,
    epoch: u64,
    /// Its round, see [`OverloadDetector`].
    round: u64,
    sample_slot: Option<SampleSlot>,
}

impl InFlightToken {
    /// Returns when the call was sent.
    pub fn sent_at(&self) -> Instant {
        self.sent_at
    }
}

/// How a call ended, as far as it matters for the concurrency limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConcurrencyOutcome {
    /// It was answered completely.
    Answered,
    /// The provider signaled overload: a 429 without a known limit, a 503 or a 529.
    Throttled,
    /// It had no response for too long.
    TimedOut,
    /// Anything else.
    Other,
}

/// Why the limit was lowered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReductionCause {
    /// The provider signaled overload.
    Overload,
    /// Calls had no response for too long.
    NoResponse,
    /// More concurrency brought no more throughput.
    Throughput,
}

/// The concurrency limit of one target.
#[derive(Debug)]
pub struct ConcurrencyLimit {
    min: usize,
    max: usize,
    limit: usize,
    in_flight: usize,
    /// Attempts in flight that are stalled: they will probably never end, and use no capacity.
    stalled: usize,
    /// Incremented when the limit is lowered: calls sent before were sent under another limit.
    epoch: u64,
    /// Whether the provider has never signaled overload.
    is_unchallenged: bool,
    /// The limit before an outage, until it is reached again; zero without an outage.
    limit_before_outage: usize,
    /// The largest number in flight without overload.
    max_accepted_in_flight: usize,
    /// Accepted calls since the limit last grew by a step.
    accepted_since_step: usize,
    /// Size of the next step, if the limit does not grow with every call.
    next_step: usize,
    /// When it last grew by a step.
    stepped_at: Option<Instant>,
    overload_detector: OverloadDetector,
    ceiling: Option<Ceiling>,
    /// Why the limit was last lowered.
    reduction_cause: ReductionCause,
    throughput_probe: ThroughputProbe,
    /// Mean time to response headers.
    time_to_headers: Option<Duration>,
    /// Twice the time that the latest overload response took: steps are at least this far apart.
    min_step_interval: Duration,
}

impl ConcurrencyLimit {
    /// Creates a limit at its start value.
    pub fn new(settings: ConcurrencySettings) -> Self {
        let [min, start, max] =
            [settings.min, settings.start, settings.max].map(|number| number.get() as usize);
        // Parsed settings are consistent; settings built by a program may not be.
        let max = max.max(min);
        let limit = start.clamp(min, max);
        Self {
            min,
            max,
            limit,
            in_flight: 0,
            stalled: 0,
            epoch: 0,
            is_unchallenged: true,
            limit_before_outage: 0,
            max_accepted_in_flight: 0,
            accepted_since_step: 0,
            next_step: 1,
            stepped_at: None,
            overload_detector: OverloadDetector::new(),
            ceiling: None,
            reduction_cause: ReductionCause::Overload,
            throughput_probe: ThroughputProbe::new(limit),
            time_to_headers: None,
            min_step_interval: Duration::ZERO,
        }
    }

    /// Sets the bounds of the limit. What it has learned stays, within the bounds. Before the provider's first objection it
    /// is at least the start value.
    pub fn set_bounds(&mut self, settings: ConcurrencySettings) {
        let [min, start, max] =
            [settings.min, settings.start, settings.max].map(|number| number.get() as usize);
        self.min = min;
        self.max = max.max(min);
        let start = if self.is_unchallenged { start } else { 0 };
        self.limit = self.limit.max(start).clamp(self.min, self.max);
        self.limit_before_outage = self.limit_before_outage.min(self.max);
        self.max_accepted_in_flight = self.max_accepted_in_flight.min(self.max);
    }

    /// Returns the current limit.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Returns the upper bound of the limit.
    pub fn max(&self) -> usize {
        self.max
    }

    /// Returns the number of calls in flight; above the limit for a while after it was lowered.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Returns the number of calls in flight that are not stalled.
    pub fn active(&self) -> usize {
        self.in_flight.saturating_sub(self.stalled)
    }

    /// Records that this many of the attempts in flight are stalled.
    pub fn mark_stalled(&mut self, attempts: usize) {
        self.stalled += attempts;
    }

    /// Records that one attempt is no longer stalled: it has ended or had a response.
    pub fn unmark_stalled(&mut self) {
        self.stalled = self.stalled.saturating_sub(1);
    }

    /// Returns whether one more call may be sent. `rate_limited` is whether a rate limit is known that
    /// calls respect.
    pub fn has_capacity(&self, rate_limited: bool) -> bool {
        self.active() < self.effective_limit(rate_limited)
    }

    /// Returns how many calls may be in flight. Where calls respect a known rate limit, that limit holds
    /// them back and this one applies only from the provider's first overload response on: a burst that the
    /// rate limit allows must not wait for it.
    pub fn effective_limit(&self, rate_limited: bool) -> usize {
        if rate_limited && self.is_unchallenged && self.limit_before_outage == 0 {
            self.max
        } else {
            self.limit
        }
    }

    /// Counts a call that is being sent. A probe or a forced call is sent even without free capacity.
    /// `rate_limited` as for [`Self::has_capacity`].
    pub fn record_sent(&mut self, rate_limited: bool, now: Instant) -> InFlightToken {
        self.in_flight += 1;
        if rate_limited && self.is_unchallenged && self.limit_before_outage == 0 {
            // The rate limit admitted more calls than this limit. An overload response refers to that
            // larger number.
            self.limit = self.limit.max(self.active().min(self.max));
        }
        let in_flight = self.active();
        let limit = self.limit;
        // A call to an idle target shows nothing about the throughput at the limit.
        let is_informative = !is_idle(in_flight, limit) && limit >= self.limit_before_outage;
        let sample_slot = if is_informative { self.throughput_probe.reserve_slot() } else { None };
        let ceiling = self.ceiling.map(|ceiling| ceiling.at);
        let round = self.overload_detector.record_sent(limit, in_flight, ceiling);
        InFlightToken { sent_at: now, in_flight, limit, epoch: self.epoch, round, sample_slot }
    }

    /// Records that the provider accepted a call: the headers of a success have arrived, or the whole
    /// response if headers cannot be seen before it. At most once per call, before [`Self::release`].
    pub fn record_accepted(&mut self, token: InFlightToken, now: Instant) {
        let latency = now.saturating_duration_since(token.sent_at);
        self.time_to_headers = Some(self.time_to_headers.map_or(latency, |mean| (mean * 7 + latency) / 8));
        let was_used = self.max_in_flight_with(token) * 10 >= token.limit * MIN_USED_TENTHS;
        let cap = self.growth_cap(now);
        let may_grow = was_used && self.limit < cap && !self.overload_detector.is_trial_pending();
        if token.epoch != self.epoch || !may_grow {
            return;
        }
        if self.is_unchallenged {
            self.limit += 1;
        } else if self.limit < self.known_good_limit(now) {
            self.limit = (self.limit + RECOVERY_STEP).min(self.known_good_limit(now));
        } else if self.stepped_at.is_none_or(|stepped_at| {
            token.sent_at >= stepped_at && now >= stepped_at + self.min_step_interval
        }) {
            self.accepted_since_step += 1;
            if self.accepted_since_step * STEP_CREDIT_DIVISOR >= self.limit
                && self.accepted_since_step >= self.next_step / 2
            {
                self.take_step(cap, now);
            }
        }
        if self.limit >= self.limit_before_outage && self.limit_before_outage > 0 {
            self.limit_before_outage = 0;
            self.throughput_probe.reset(self.limit);
        }
    }

    /// Returns the token of a call that ended. Returns whether the call was an excess call that lowered the
    /// limit.
    pub fn release(&mut self, token: InFlightToken, outcome: ConcurrencyOutcome, now: Instant) -> bool {
        let lowered_limit = match outcome {
            ConcurrencyOutcome::Throttled => self.on_overload(token, ReductionCause::Overload, now),
            ConcurrencyOutcome::TimedOut => self.on_overload(token, ReductionCause::NoResponse, now),
            ConcurrencyOutcome::Answered | ConcurrencyOutcome::Other => false,
        };
        self.record_end(token, outcome, now);
        lowered_limit
    }

    fn record_end(&mut self, token: InFlightToken, outcome: ConcurrencyOutcome, now: Instant) {
        let ceiling = self.ceiling.map(|ceiling| ceiling.at);
        if let Some(accepted) = self.overload_detector.record_end(token.round, ceiling) {
            self.max_accepted_in_flight = self.max_accepted_in_flight.max(accepted);
            self.ceiling =
                self.ceiling.filter(|ceiling| accepted < self.max && !ceiling.is_passed_by(accepted));
        }
        self.in_flight = self.in_flight.saturating_sub(1);
        let Some(slot) = token.sample_slot else { return };
        if outcome != ConcurrencyOutcome::Answered {
            return self.throughput_probe.release_slot(slot);
        }
        let answered = AnsweredCall {
            slot,
            in_flight: token.in_flight,
            limit: token.limit,
            latency: now.saturating_duration_since(token.sent_at),
        };
        if let Some(limit) = self.throughput_probe.record_answer(answered, self.limit, self.max, now) {
            self.lower_to(limit);
            self.reduction_cause = ReductionCause::Throughput;
        }
    }

    /// Restarts after an outage, when the breaker has closed: with a fraction of the limit, which
    /// multiplies with every round trip until the former limit is reached.
    pub fn restart_after_outage(&mut self, now: Instant) {
        // A recent ceiling was caused by the outage.
        self.ceiling = self.ceiling.filter(|ceiling| !ceiling.is_recent(now));
        let below_ceiling = self.ceiling.map_or(usize::MAX, Ceiling::below);
        let proven = self.max_accepted_in_flight.min(below_ceiling);
        let before = self.limit_before_outage.max(self.limit).max(proven);
        // The outage may have lowered the limit below this already.
        self.limit = (before / OUTAGE_DIVISOR).max(MIN_LIMIT_AFTER_OUTAGE).clamp(self.min, self.max);
        self.epoch += 1;
        self.accepted_since_step = 0;
        self.next_step = 1;
        self.limit_before_outage = if self.limit < before { before } else { 0 };
        self.overload_detector.reset();
        self.throughput_probe.reset(before);
    }

    /// Returns the limit before a reduction or outage that is not reached again yet; `None` if there is
    /// none.
    pub fn reduced_from(&self) -> Option<usize> {
        // More may have been accepted under a higher bound.
        let before = self.limit_before_outage.max(self.max_accepted_in_flight).min(self.max);
        Some(before).filter(|before| *before > self.limit)
    }

    /// Returns why the limit was last lowered.
    pub fn reduction_cause(&self) -> ReductionCause {
        self.reduction_cause
    }

    /// Returns whether the limit is growing back after an outage without a reduction since.
    pub fn is_recovering(&self) -> bool {
        self.limit_before_outage > 0 && self.ceiling.is_none()
    }

    /// Grows beyond the known good limit. While there is no overload, each step is twice as large as the
    /// one before.
    fn take_step(&mut self, cap: usize, now: Instant) {
        self.ceiling = self.ceiling.filter(|ceiling| !ceiling.is_passed_by(self.limit));
        self.limit = (self.limit + self.next_step).min(cap);
        self.next_step = (self.next_step * 2).min(self.limit);
        self.accepted_since_step = 0;
        self.stepped_at = Some(now);
    }

    /// Lowers the limit by one for an overload response, if it belongs to an excess call. Returns whether
    /// it did.
    fn on_overload(&mut self, token: InFlightToken, cause: ReductionCause, now: Instant) -> bool {
        let can_shrink = self.limit > self.min;
        self.min_step_interval = (now.saturating_duration_since(token.sent_at) * 2).min(MAX_STEP_INTERVAL);
        let ceiling = self.ceiling.map(|ceiling| ceiling.at);
        let verdict = self.overload_detector.record_overload(token.round, token.in_flight, ceiling);
        let Some(verdict) = verdict else { return false };
        let to = match verdict {
            OverloadVerdict::TooMany { in_flight, excess, min_overloaded_at, is_first_of_round } => {
                let to = in_flight.saturating_sub(excess);
                if is_first_of_round {
                    self.reduce(in_flight, to, min_overloaded_at, now);
                } else if let Some(ceiling) = &mut self.ceiling {
                    ceiling.at = ceiling.at.min(min_overloaded_at.max(to + 1));
                }
                to
            }
            OverloadVerdict::TryHalf { in_flight } => {
                self.reduce(in_flight, in_flight, in_flight, now);
                in_flight / 2
            }
            OverloadVerdict::Unrelated => {
                self.ceiling = None;
                self.limit = self.limit.max(self.known_good_limit(now));
                return false;
            }
        };
        self.limit = to.clamp(self.min, self.max).min(self.limit);
        self.reduction_cause = cause;
        can_shrink
    }

    /// Begins a reduction from `from` to `to`. `fewest` is the smallest number in flight at which an
    /// attempt was rejected.
    fn reduce(&mut self, from: usize, to: usize, fewest: usize, now: Instant) {
        self.is_unchallenged = false;
        self.epoch += 1;
        self.accepted_since_step = 0;
        self.next_step = 1;
        let reduction = Reduction { from, to, fewest };
        self.ceiling = Some(Ceiling::after_reduction(self.ceiling, reduction, self.time_to_headers, now));
        self.throughput_probe.reset(self.limit.max(self.max_accepted_in_flight));
    }

    /// Returns the limit up to which growth needs no trial: below the ceiling, else where the limit has
    /// been before.
    fn known_good_limit(&self, now: Instant) -> usize {
        let proven = self.ceiling.map_or(self.max_accepted_in_flight, Ceiling::below);
        proven.max(self.limit_before_outage).min(self.growth_cap(now))
    }

    fn lower_to(&mut self, limit: usize) {
        self.limit = limit.clamp(self.min, self.max).min(self.limit);
        self.epoch += 1;
        self.accepted_since_step = 0;
        self.next_step = 1;
    }

    /// Returns how far the limit may grow at `now`.
    fn growth_cap(&self, now: Instant) -> usize {
        let ceiling = self.ceiling.filter(|ceiling| ceiling.holds(now));
        let up_to_ceiling = ceiling.map_or(usize::MAX, Ceiling::below);
        // Up to the limit before an outage, growth was worthwhile once.
        let worthwhile = self.throughput_probe.max_limit().max(self.limit_before_outage);
        self.max.min(up_to_ceiling).min(worthwhile)
    }

    /// Returns the largest number of calls known to have been in flight together with this one, itself
    /// included. The first calls of a burst are sent alone but do not stay alone.
    fn max_in_flight_with(&self, token: InFlightToken) -> usize {
        token.in_flight.max(self.active())
    }
}

fn is_idle(in_flight: usize, limit: usize) -> bool {
    in_flight * 10 < limit * MIN_BUSY_TENTHS
}

#[cfg(test)]
mod overload_tests;
#[cfg(test)]
mod simulated;
#[cfg(test)]
mod tests;
