//! State of one target: its health, its limits, and what its calls use.
//!
//! Independent of the other models and of the account that they share.

use std::time::Duration;

use tokio::time::Instant;

use crate::guard::{
    Breaker, BreakerToken, ConcurrencyLimit, ConcurrencySettings, HeaderScope, RateLimiter, RateLimits,
    ReductionCause, SentCall, TokenCost, TokenLimits, TripReason,
};
use crate::types::{AttemptCounts, Class, Completion, Failure, Price, StepName};
use crate::wire::{StreamSupport, UnsupportedParameters};

use super::admission::grant::Grant;
use super::admission::output_accounting::OutputAccounting;
use super::admission::reservation::{Reservation, Reservations};
use super::admission::token_stats::{ASSUMED_OUTPUT, StatsKey, TokenStats};
use super::call::Rejection;
use super::health::first_attempts::FirstAttempts;
use super::health::metrics::TargetMetrics;
use super::health::pending_attempts::{PendingAttempt, PendingAttempts};
use super::health::refused_requests::RefusedRequests;
use super::health::stats::{Ewma, LatencyWindow};
use super::health::step_latencies::StepLatencies;
use super::health::unresponsive_timeouts::UnresponsiveTimeouts;
use super::health::utilization::RecentUsage;
use super::keys::refusal_tracker::{RefusalTracker, RefusedAttempt};
use super::model::Model;
use super::settings::Settings;

/// The assumed token cost of a call before the first one.
pub(super) const ASSUMED_TOKEN_COST: TokenCost = TokenCost { input: 500, output: ASSUMED_OUTPUT };

/// A cancelled call without response headers counts only if it lasted longer than this quantile of the
/// latencies.
const CANCELLED_LATENCY_QUANTILE: f64 = 0.95;
const MIN_CANCELLED_WITHOUT_RESPONSE: u32 = 3;

/// How long no further call is sent after a failure, while the calls in flight can tell whether the target is
/// down.
const FAILURE_HOLD: Duration = Duration::from_secs(1);

/// State of one target.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) breaker: Breaker,
    pub(super) concurrency: ConcurrencyLimit,
    /// Its own limits, configured or learned from headers.
    pub(super) limits: RateLimiter,
    /// Whether rate-limit headers describe its own limits rather than the account's.
    pub(super) has_own_limits: bool,
    /// Whether an operator has opened its breaker, until it is closed by hand.
    pub(super) is_forced_open: bool,
    /// Whether it is no longer configured, and only its last calls end.
    pub(super) is_retired: bool,
    /// Until when its own limits admit no call.
    pub(super) blocked_until: Option<Instant>,
    /// Until when no further call is sent after a failure, unless a call is answered before.
    pub(super) failure_hold_until: Option<Instant>,
    pub(super) reservations: Reservations,
    /// Whether its provider counts `max_tokens`, as far as refusals show it.
    pub(super) output_accounting: OutputAccounting,
    pub(super) refused_requests: RefusedRequests,
    /// The price of its tokens, if known.
    pub(super) price: Option<Price>,
    pub(super) has_answered: bool,
    /// The parameters that requests leave out because the model refused them.
    pub(super) unsupported_parameters: UnsupportedParameters,
    /// Counts of its attempts by result.
    pub(super) counts: AttemptCounts,
    /// What its attempts add up to, for metrics. Boxed because it is large.
    pub(super) metrics: Box<TargetMetrics>,
    /// Results of the first attempts of requests.
    pub(super) first_attempts: FirstAttempts,
    /// The last failure that counted against it.
    pub(super) last_failure: Option<Failure>,
    /// Tracks requests that were refused because there is no such model.
    pub(super) not_found: RefusalTracker,
    has_unreported_not_found: bool,
    /// Consecutive rate-limit refusals.
    pub(super) consecutive_throttles: u32,
    /// The last failure with a retry-after time that was not a rate limit.
    pub(super) hold_failure: Option<Failure>,
    /// Mean input tokens of a call, by estimate.
    mean_input: Ewma,
    /// Mean number of reserved output tokens per call that the provider counts even if they are not used.
    mean_nonrefundable_output: Ewma,
    /// Whether a call without output was sent: one for embeddings.
    sends_embeddings: bool,
    /// Token statistics of its calls.
    pub(super) token_stats: TokenStats,
    /// Calls sent since a store last counted them, if a daily limit applies.
    pub(super) unstored_calls: u64,
    /// Recent use of its limits.
    pub(super) recent_usage: RecentUsage,
    /// Latencies of its recent calls.
    pub(super) latencies: LatencyWindow,
    /// Latencies of recent calls by step.
    pub(super) step_latencies: StepLatencies,
    /// How long it may send no response headers before it counts as unresponsive.
    unresponsive_after: UnresponsiveTimeouts,
    /// Whether its calls ask for streams. The headers of a whole response come with the end of the answer.
    stream: StreamSupport,
    /// Calls without response headers.
    pending: PendingAttempts,
    /// When response headers last arrived.
    last_response_at: Instant,
    /// When it last accepted a call.
    pub(super) last_accepted_at: Option<Instant>,
    /// The latest send time among the accepted calls.
    latest_accepted_sent_at: Option<Instant>,
    /// Whether the reduction of its concurrency was logged.
    is_reduction_reported: bool,
    /// Consecutive calls that were cancelled after a long time without response headers.
    cancelled_without_response: u32,
}

/// A change of a target's concurrency limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ConcurrencyChange {
    /// The limit is at most half of what it was.
    Reduced { to: usize, from: usize, cause: ReductionCause },
    /// The limit is back at its earlier value, or nearly.
    Restored(usize),
}

/// The limits of a target by the settings of its provider and its model.
struct TargetLimits {
    rates: RateLimits,
    concurrency: ConcurrencySettings,
    /// The lower of its own limits and those of the account.
    narrowest: RateLimits,
    has_own: bool,
}

impl TargetLimits {
    fn of(settings: &Settings, model: &Model) -> Self {
        let own = model.limits.as_ref();
        let rates = own.map(super::Limits::rates).unwrap_or_default();
        let rates = RateLimits { burst: own.map_or(settings.limits.burst, |own| own.burst), ..rates };
        Self {
            rates,
            concurrency: own.map_or(settings.limits.concurrency, |own| own.concurrency),
            narrowest: settings.limits.rates().narrowed(&rates),
            has_own: own.is_some() || settings.models.len() > 1,
        }
    }
}

impl Target {
    pub(super) fn new(settings: &Settings, model: &Model, now: Instant) -> Self {
        let TargetLimits { rates, concurrency, narrowest, has_own } = TargetLimits::of(settings, model);
        Self {
            breaker: Breaker::new(settings.breaker.clone()),
            concurrency: ConcurrencyLimit::new(concurrency),
            limits: RateLimiter::new(&rates, now),
            has_own_limits: has_own,
            is_forced_open: false,
            is_retired: false,
            blocked_until: None,
            failure_hold_until: None,
            reservations: Reservations::new(settings.output_reservation, narrowest),
            output_accounting: OutputAccounting::new(now),
            refused_requests: RefusedRequests::default(),
            price: model.price,
            has_answered: false,
            unsupported_parameters: UnsupportedParameters::default(),
            counts: AttemptCounts::default(),
            metrics: Box::default(),
            first_attempts: FirstAttempts::default(),
            last_failure: None,
            not_found: RefusalTracker::default(),
            has_unreported_not_found: false,
            consecutive_throttles: 0,
            hold_failure: None,
            mean_input: Ewma::default(),
            mean_nonrefundable_output: Ewma::default(),
            sends_embeddings: false,
            token_stats: TokenStats::default(),
            unstored_calls: 0,
            recent_usage: RecentUsage::new(now),
            latencies: LatencyWindow::default(),
            step_latencies: StepLatencies::default(),
            unresponsive_after: settings.unresponsive_after,
            stream: settings.dialect.stream,
            pending: PendingAttempts::default(),
            last_response_at: now,
            last_accepted_at: None,
            latest_accepted_sent_at: None,
            is_reduction_reported: false,
            cancelled_without_response: 0,
        }
    }

    /// Applies changed settings. What was learned and what is in use stays. `is_other_model` is whether its name at the
    /// provider has changed, so that what was found about the former model does not apply.
    pub(super) fn reconfigure(
        &mut self,
        settings: &Settings,
        model: &Model,
        is_other_model: bool,
        now: Instant,
    ) {
        let TargetLimits { rates, concurrency, narrowest, has_own } = TargetLimits::of(settings, model);
        self.breaker.set_settings(settings.breaker.clone());
        self.concurrency.set_bounds(concurrency);
        self.limits.set_limits(&rates, now);
        self.has_own_limits = has_own;
        self.blocked_until = None;
        self.reservations.set(settings.output_reservation, narrowest);
        self.price = model.price;
        self.unresponsive_after = settings.unresponsive_after;
        self.stream = if self.sends_embeddings { StreamSupport::Never } else { settings.dialect.stream };
        self.is_retired = false;
        if is_other_model {
            self.unsupported_parameters = UnsupportedParameters::default();
            self.not_found = RefusalTracker::default();
            self.has_answered = false;
            self.breaker.force_close();
        }
    }

    /// Returns whether its own limits let the scheduler consider a call. A call that a breaker would refuse or
    /// use as its probe must not wait for calls that hang. `is_endpoint_down` is whether the endpoint breaker
    /// refuses.
    pub(super) fn can_dispatch(&self, shared: &RateLimiter, is_endpoint_down: bool, now: Instant) -> bool {
        let ignores_concurrency = match self.breaker.trip_reason() {
            Some(TripReason::ConsecutiveFailures) => true,
            // Where calls may be forced through, only the probe may exceed the concurrency limit.
            Some(TripReason::FailureRate | TripReason::Unresponsive) => self.breaker.would_admit(now),
            None => is_endpoint_down,
        };
        self.blocked_until.is_none_or(|until| until <= now)
            && (ignores_concurrency
                || !self.is_on_failure_hold(now)
                    && self.concurrency.has_capacity(self.is_rate_limited(shared)))
    }

    fn is_on_failure_hold(&self, now: Instant) -> bool {
        // The calls in flight may have been answered since.
        self.failure_hold_until.is_some_and(|until| until > now) && self.breaker.could_trip()
    }

    /// Returns when its queued calls should be considered again, if known.
    pub(super) fn next_check_at(&self) -> Option<Instant> {
        self.blocked_until.max(self.failure_hold_until.filter(|_| self.breaker.could_trip()))
    }

    /// Records a failure that counts against the target. While the calls in flight can tell whether the target
    /// is down, no further call is sent for a moment: it might hang. If a call that was sent later was
    /// accepted, the failure is outdated.
    pub(super) fn start_failure_hold(&mut self, sent_at: Instant, now: Instant) {
        if self.latest_accepted_sent_at.is_some_and(|latest| latest > sent_at) {
            return;
        }
        // Whether the calls in flight are enough is decided when the next one could be sent: one that is sent after
        // several have failed may be the last that is needed.
        self.failure_hold_until = Some(now + FAILURE_HOLD);
    }

    /// Returns whether its calls are limited by a known or estimated rate, its own or the account's.
    pub(super) fn is_rate_limited(&self, shared: &RateLimiter) -> bool {
        self.limits.is_rate_limited() || shared.is_rate_limited()
    }

    /// Returns the known token limits, its own or the account's.
    pub(super) fn token_limits(&self, shared: &RateLimiter) -> TokenLimits {
        let [own, shared] = [&self.limits, shared].map(RateLimiter::known_token_limits);
        let lower = |one: Option<f64>, other: Option<f64>| one.into_iter().chain(other).reduce(f64::min);
        TokenLimits { tokens: lower(own.tokens, shared.tokens), output: lower(own.output, shared.output) }
    }

    /// Takes a call's tokens from its limits.
    ///
    /// # Errors
    /// When to try again; other targets need not wait for it.
    pub(super) fn take(&mut self, reservation: &Reservation, now: Instant) -> Result<SentCall, Instant> {
        let result = self.limits.take(reservation.reserved, reservation.mean, now);
        self.blocked_until = result.as_ref().err().copied();
        result
    }

    /// Gives back what a call took that was not sent.
    pub(super) fn rollback_unsent(&mut self, grant: &Grant, now: Instant) {
        self.limits.rollback(grant.reservation.reserved, &grant.own);
        self.output_accounting.rollback(&grant.reservation, now);
        self.unstored_calls = self.unstored_calls.saturating_sub(1);
    }

    /// Returns which rate-limit headers apply to its own limits.
    pub(super) fn header_scope(&self) -> HeaderScope {
        if self.has_own_limits { HeaderScope::Own } else { HeaderScope::MatchingOnly }
    }

    /// Records that its model is asked for embeddings, whose responses are whole.
    pub(super) fn record_embeddings(&mut self) {
        self.stream = StreamSupport::Never;
    }

    /// Records a sent call.
    pub(super) fn add_pending(&mut self, number: u64, attempt: PendingAttempt) {
        self.pending.insert(number, attempt);
    }

    /// Records the response headers of a call: the target is responsive.
    pub(super) fn record_response(&mut self, number: u64, now: Instant) {
        self.remove_pending(number);
        self.last_response_at = now;
        self.cancelled_without_response = 0;
        if self.is_unresponsive() {
            self.mark_recovered(number);
        }
        // The concurrency limit restarts only after an outage that a probe has confirmed.
        if self.breaker.record_response() {
            self.concurrency.restart_after_outage(now);
        }
    }

    /// Records that a call has shown that the target works again after an outage. Calls that were sent before
    /// it and have no response headers no longer count against the concurrency limit: they may hang for
    /// minutes.
    pub(super) fn mark_recovered(&mut self, number: u64) {
        self.concurrency.mark_stalled(self.pending.mark_hung_before(number));
    }

    /// Returns whether it is unresponsive.
    pub(super) fn is_unresponsive(&self) -> bool {
        self.breaker.trip_reason() == Some(TripReason::Unresponsive)
    }

    /// Records that it accepted a call that was sent at `sent_at`.
    pub(super) fn record_accepted(&mut self, sent_at: Instant, now: Instant) {
        self.last_accepted_at = Some(now);
        self.latest_accepted_sent_at = self.latest_accepted_sent_at.max(Some(sent_at));
    }

    /// Returns whether its concurrency limit has dropped to half or recovered; each change once.
    pub(super) fn take_concurrency_change(&mut self) -> Option<ConcurrencyChange> {
        let to = self.concurrency.limit();
        match (self.is_reduction_reported, self.concurrency.reduced_from()) {
            // After an outage the limit starts low, and nothing has lowered it.
            (false, Some(from)) if to * 2 <= from && !self.concurrency.is_recovering() => {
                self.is_reduction_reported = true;
                Some(ConcurrencyChange::Reduced { to, from, cause: self.concurrency.reduction_cause() })
            }
            (true, from) if from.is_none_or(|from| to * 10 >= from * 9) => {
                self.is_reduction_reported = false;
                Some(ConcurrencyChange::Restored(to))
            }
            _ => None,
        }
    }

    /// Removes a call that has ended or has response headers. Returns whether it counted as hung.
    pub(super) fn remove_pending(&mut self, number: u64) -> bool {
        self.pending.remove(number);
        let hung = self.pending.remove_hung(number);
        if hung {
            self.concurrency.unmark_stalled();
        }
        hung
    }

    /// Records a cancelled call. A call that lasted longer than nearly all others without any response since it
    /// was sent suggests that the target is unresponsive: without this rule, a target whose hedges always
    /// answer first would never be detected. Several such calls in a row are proof.
    pub(super) fn record_cancelled(&mut self, number: u64, jitter: fn() -> f64, now: Instant) {
        let Some(PendingAttempt { sent_at, breaker_token, step, .. }) = self.pending.remove(number) else {
            return;
        };
        // What is long for one step is normal for another.
        let long_latency = match (self.stream, &step) {
            (StreamSupport::Never, step) => self.whole_response_timeout(step.as_ref()),
            (StreamSupport::Auto, Some(step)) => {
                self.step_latencies.quantile(Some(step), CANCELLED_LATENCY_QUANTILE)
            }
            (StreamSupport::Auto, None) => self.latencies.quantile(CANCELLED_LATENCY_QUANTILE),
        };
        if self.last_response_at >= sent_at
            || long_latency.is_none_or(|long_latency| now.saturating_duration_since(sent_at) < long_latency)
        {
            return;
        }
        self.cancelled_without_response = self.cancelled_without_response.saturating_add(1);
        if self.cancelled_without_response >= MIN_CANCELLED_WITHOUT_RESPONSE || self.is_unresponsive() {
            self.breaker.record_unresponsive(breaker_token, sent_at, now, jitter());
        }
    }

    /// Returns how long a call of `step` may stay without response headers before that is evidence against the
    /// target, if it asked for a whole response; `None` if that is not known yet.
    fn whole_response_timeout(&self, step: Option<&StepName>) -> Option<Duration> {
        self.unresponsive_after.for_whole_response(&self.step_latencies, step)
    }

    /// Returns after which time a deadline that cut off a call of `step` without a response is evidence against the
    /// target; `of_stream` if it asked for a stream. `None` if no time is.
    pub(super) fn min_silence(&self, step: Option<&StepName>, of_stream: Duration) -> Option<Duration> {
        match self.stream {
            StreamSupport::Auto => Some(of_stream),
            StreamSupport::Never => self.whole_response_timeout(step),
        }
    }

    /// Finds calls without response headers for too long while no other response arrived. `mean_latency` is the
    /// provider's, in seconds. Returns whether the target has just become unresponsive.
    pub(super) fn detect_unresponsive(
        &mut self,
        mean_latency: Option<f64>,
        jitter: fn() -> f64,
        now: Instant,
    ) -> bool {
        let tripped_before = self.breaker.trip_reason();
        let latencies = &self.step_latencies;
        let timeouts = self.unresponsive_after;
        let stream = self.stream;
        let is_unresponsive = self.is_unresponsive();
        let timeout_of = |attempt: &PendingAttempt| {
            let step = attempt.step.as_ref();
            let timeout = match stream {
                StreamSupport::Auto => timeouts.for_attempt(latencies, step, mean_latency),
                StreamSupport::Never => timeouts.for_whole_response(latencies, step).unwrap_or(Duration::MAX),
            };
            // The next probe does not wait for a probe that may hang as well; a late response of that one still
            // counts.
            if is_unresponsive && attempt.breaker_token.is_probe() {
                timeout.min(timeouts.min)
            } else {
                timeout
            }
        };
        for PendingAttempt { sent_at, breaker_token, .. } in self.pending.mark_overdue(timeout_of, now) {
            if self.last_response_at <= sent_at {
                self.breaker.record_unresponsive(breaker_token, sent_at, now, jitter());
            }
        }
        tripped_before.is_none() && self.is_unresponsive()
    }

    /// Records that the provider has no such model. If the target has never answered, and several different
    /// requests in a row were refused for this, the breaker opens, because the configuration is wrong.
    pub(super) fn record_not_found(
        &mut self,
        failure: &Failure,
        is_probe: bool,
        attempt: RefusedAttempt<'_>,
        jitter: fn() -> f64,
        now: Instant,
    ) {
        // A provider sends the same error for a request that names a missing file.
        let attempt = RefusedAttempt { is_explicit: false, ..attempt };
        let is_refused = !self.has_answered && (self.not_found.record_refused(attempt) || is_probe);
        if is_refused && self.breaker.force_open(now, jitter()) {
            self.has_unreported_not_found =
                self.last_failure.as_ref().is_none_or(|last| last.class != Class::NotFound);
            self.last_failure = Some(failure.clone());
        }
    }

    /// Returns, once, whether it was found that there is no such model.
    pub(super) fn take_not_found_notice(&mut self) -> bool {
        std::mem::take(&mut self.has_unreported_not_found)
    }

    /// Counts a failure of the target. `was_too_many` is whether the concurrency limit was already reduced for
    /// this failure. The breaker cannot tell yet whether the provider handles the smaller number.
    pub(super) fn record_failure(
        &mut self,
        breaker_token: BreakerToken,
        result: Option<&Result<Completion, Failure>>,
        was_too_many: bool,
        sent_at: Instant,
        jitter: fn() -> f64,
        now: Instant,
    ) {
        let class = result.and_then(|result| result.as_ref().err()).map(|failure| failure.class);
        match class {
            Some(Class::Overloaded) if was_too_many && !breaker_token.is_probe() => {
                return self.breaker.release(breaker_token);
            }
            Some(Class::Overloaded) => self.breaker.record_overload(breaker_token, now, jitter()),
            _ => self.breaker.record_failure(breaker_token, now, jitter()),
        }
        self.start_failure_hold(sent_at, now);
    }

    /// Returns the rejection for an open breaker.
    pub(super) fn rejection(&self, until: Option<Instant>) -> Rejection {
        match &self.last_failure {
            Some(last) if !self.has_answered && last.class == Class::NotFound => {
                Rejection::ModelNotFound(last.clone())
            }
            Some(last) if !self.has_answered => Rejection::NeverAnswered(last.clone()),
            _ => Rejection::BreakerOpen { until },
        }
    }

    /// Records the reservation of a sent call.
    pub(super) fn record_dispatched(&mut self, reservation: &Reservation) {
        self.mean_input.update(reservation.reserved.input as f64);
        self.sends_embeddings |= !reservation.estimate.has_output();
        if reservation.is_nonrefundable {
            self.mean_nonrefundable_output.update(reservation.reserved.output as f64);
        }
    }

    /// Returns the mean token cost of a call; `None` before the first one.
    pub(super) fn mean_token_cost(&self) -> Option<TokenCost> {
        let nonrefundable = self.mean_nonrefundable_output.0.map(|output| output as u64);
        let assumed = if self.sends_embeddings { 0 } else { ASSUMED_OUTPUT };
        let mean_output = || self.token_stats.mean_output(StatsKey::ALL);
        let output = nonrefundable.or_else(mean_output).unwrap_or(assumed);
        self.mean_input.0.map(|input| TokenCost { input: input as u64, output })
    }

    /// Returns the number of the oldest call without response headers.
    pub(super) fn oldest_pending(&self) -> Option<u64> {
        self.pending.oldest_pending()
    }

    /// Returns when the oldest call without response headers was sent.
    pub(super) fn oldest_pending_sent_at(&self) -> Option<Instant> {
        self.pending.oldest_sent_at()
    }

    /// Returns the number of calls without response headers.
    #[cfg(test)]
    pub(super) fn pending_calls(&self) -> usize {
        self.pending.len()
    }

    /// Sets the mean number of input tokens.
    #[cfg(test)]
    pub(super) fn set_mean_input(&mut self, tokens: f64) {
        self.mean_input.0 = Some(tokens);
    }
}
