//! Circuit breaker of one target.
//!
//! Closed: calls are admitted. Open: calls are rejected. Half-open: one probe is admitted and its result
//! decides. A breaker that opened because of the failure rate or unresponsiveness still admits calls that
//! have no other target (*forced* calls); consecutive failures of forced calls open it for them, too. The
//! breaker never sleeps and reads no clock; the owner passes `now`.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::outcome_window::{Evidence, OutcomeWindow};
use super::{BreakerSettings, TripReason};

/// State of a breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum BreakerState {
    /// Calls are admitted.
    Closed,
    /// Calls are rejected.
    Open,
    /// One probe is in flight, or due.
    HalfOpen,
}

impl BreakerState {
    /// Returns the word used in progress output and reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half-open",
        }
    }
}

/// Permission for one call. Its outcome counts only in the epoch that issued it: an outcome that arrives
/// after the breaker has changed its state shows nothing about the target as it is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerToken {
    epoch: u64,
    kind: TokenKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TokenKind {
    Ordinary,
    Probe,
    Forced,
}

impl BreakerToken {
    /// Returns whether the call tests for all others whether the target has recovered.
    pub fn is_probe(self) -> bool {
        self.kind == TokenKind::Probe
    }

    /// Returns whether the call was admitted although the breaker is open, because it has no other target.
    pub fn is_forced(self) -> bool {
        self.kind == TokenKind::Forced
    }
}

#[derive(Debug, Clone, Copy)]
enum State {
    Closed,
    Open { until: Instant },
    HalfOpen { probing: bool },
}

/// The breaker of one target.
#[derive(Debug)]
pub struct Breaker {
    settings: BreakerSettings,
    state: State,
    /// Incremented with every state transition.
    epoch: u64,
    /// The epoch in which it last opened from closed. Forced calls belong to the whole outage, because one
    /// may outlast a probe.
    outage_epoch: u64,
    /// Why it opened; `None` while closed.
    trip_reason: Option<TripReason>,
    /// Openings since it last closed after a success.
    consecutive_openings: u32,
    /// The latest end of a wait that the provider requested during this outage.
    provider_wait_until: Option<Instant>,
    /// Outcomes of the ordinary calls of this epoch.
    outcomes: OutcomeWindow,
    /// Outcomes of the forced calls of this outage.
    forced_outcomes: OutcomeWindow,
}

impl Breaker {
    /// Creates a closed breaker.
    pub fn new(settings: BreakerSettings) -> Self {
        Self {
            settings,
            state: State::Closed,
            epoch: 0,
            outage_epoch: 0,
            trip_reason: None,
            consecutive_openings: 0,
            provider_wait_until: None,
            outcomes: OutcomeWindow::default(),
            forced_outcomes: OutcomeWindow::default(),
        }
    }

    /// Sets the settings. The state and the counted outcomes stay.
    pub fn set_settings(&mut self, settings: BreakerSettings) {
        self.settings = settings;
    }

    /// Returns the state at `now`.
    pub fn state(&self, now: Instant) -> BreakerState {
        match self.state {
            State::Closed => BreakerState::Closed,
            State::Open { until } if now < until => BreakerState::Open,
            State::Open { .. } | State::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }

    /// Returns why it is not closed; `None` while it is closed.
    pub fn trip_reason(&self) -> Option<TripReason> {
        self.trip_reason
    }

    /// Returns when the open state ends; `None` while it is closed, or a probe is due or in flight.
    pub fn open_until(&self, now: Instant) -> Option<Instant> {
        match self.state {
            State::Open { until } => Some(until).filter(|until| *until > now),
            State::Closed | State::HalfOpen { .. } => None,
        }
    }

    /// Returns whether a call that has other targets would be admitted at `now`; false while a probe is in
    /// flight.
    pub fn would_admit(&self, now: Instant) -> bool {
        self.check(now, false).is_ok()
    }

    /// Returns what [`Self::admit`] would decide, and admits nothing.
    ///
    /// # Errors
    /// As for [`Self::admit`].
    pub fn check(&self, now: Instant, is_only_option: bool) -> Result<(), Option<Instant>> {
        self.decide(now, is_only_option).map(|_| ())
    }

    /// Admits a call or rejects it. `is_only_option` is whether the call has no other target: it is then
    /// admitted as a forced call if the target still answers some calls.
    ///
    /// # Errors
    /// When to retry: for an open breaker the instant of its probe; `None` while a probe is in flight,
    /// whose duration is unknown.
    pub fn admit(&mut self, now: Instant, is_only_option: bool) -> Result<BreakerToken, Option<Instant>> {
        let kind = self.decide(now, is_only_option)?;
        let epoch = match kind {
            TokenKind::Ordinary => {
                self.outcomes.record_sent();
                self.epoch
            }
            TokenKind::Probe => {
                self.transition_to(State::HalfOpen { probing: true });
                self.epoch
            }
            TokenKind::Forced => {
                self.forced_outcomes.record_sent();
                self.outage_epoch
            }
        };
        Ok(BreakerToken { epoch, kind })
    }

    /// Returns the number of calls in flight.
    #[cfg(test)]
    pub(crate) fn in_flight(&self) -> u32 {
        self.outcomes.in_flight() + self.forced_outcomes.in_flight()
    }

    fn decide(&self, now: Instant, is_only_option: bool) -> Result<TokenKind, Option<Instant>> {
        let rejection = match self.state {
            State::Closed => return Ok(TokenKind::Ordinary),
            State::Open { until } if now < until => Some(until),
            State::HalfOpen { probing: true } => None,
            State::Open { .. } | State::HalfOpen { probing: false } => return Ok(TokenKind::Probe),
        };
        let is_down = !matches!(self.trip_reason, Some(TripReason::FailureRate | TripReason::Unresponsive));
        if is_only_option && !is_down { Ok(TokenKind::Forced) } else { Err(rejection) }
    }

    /// Records a success. Returns whether it closed the breaker, which the success of a probe does.
    pub fn record_success(&mut self, token: BreakerToken, now: Instant) -> bool {
        if self.is_stale(token) {
            return false;
        }
        match token.kind {
            TokenKind::Ordinary => self.outcomes.record_success(&self.settings, now),
            TokenKind::Forced => self.forced_outcomes.record_success(&self.settings, now),
            TokenKind::Probe => self.close(),
        }
        token.is_probe()
    }

    /// Opens it for a reason other than a failure of the provider, unless it is open or a probe is in
    /// flight. Returns whether it opened. `jitter` as for [`Self::record_failure`].
    pub fn force_open(&mut self, now: Instant, jitter: f64) -> bool {
        if matches!(self.state, State::Open { .. } | State::HalfOpen { probing: true }) {
            return false;
        }
        self.trip_reason = Some(TripReason::ConsecutiveFailures);
        self.open(now, jitter);
        self.outage_epoch = self.epoch;
        true
    }

    /// Closes it, whatever the reason for opening, because the provider has shown that it works. Returns
    /// whether it was open.
    pub fn force_close(&mut self) -> bool {
        let was_open = self.trip_reason.is_some();
        if was_open {
            self.close();
        }
        was_open
    }

    /// Returns whether the last call failed and the calls in flight are enough to trip the breaker if they
    /// fail too.
    pub fn could_trip(&self) -> bool {
        matches!(self.state, State::Closed) && self.outcomes.could_trip(&self.settings)
    }

    /// Records a failure of the provider. `jitter` lies in `0.0..1.0` and spreads the open duration.
    pub fn record_failure(&mut self, token: BreakerToken, now: Instant, jitter: f64) {
        self.count_failure(token, Evidence::Full, now, jitter);
    }

    /// Records a failure that shows only that the provider has too many calls. `jitter` as for
    /// [`Self::record_failure`].
    pub fn record_overload(&mut self, token: BreakerToken, now: Instant, jitter: f64) {
        self.count_failure(token, Evidence::Overload, now, jitter);
    }

    /// Records a failure of a call while the target has answered calls that were sent later. It does not
    /// count toward a streak. `jitter` as for [`Self::record_failure`].
    pub fn record_isolated_failure(&mut self, token: BreakerToken, now: Instant, jitter: f64) {
        self.count_failure(token, Evidence::Isolated, now, jitter);
    }

    fn count_failure(&mut self, token: BreakerToken, evidence: Evidence, now: Instant, jitter: f64) {
        if self.is_stale(token) {
            return;
        }
        match token.kind {
            TokenKind::Ordinary => {
                self.outcomes.record_failure(&self.settings, evidence, now);
                if let Some(reason) = self.outcomes.trip_reason(&self.settings) {
                    self.trip_reason = Some(reason);
                    self.open(now, jitter);
                    self.outage_epoch = self.epoch;
                }
            }
            TokenKind::Forced => {
                self.forced_outcomes.record_failure(&self.settings, evidence, now);
                if self.forced_outcomes.has_failure_streak(&self.settings) {
                    self.trip_reason = Some(TripReason::ConsecutiveFailures);
                }
            }
            // A probe that was recorded as unresponsive is counted already.
            TokenKind::Probe if self.is_probing() => self.open(now, jitter),
            TokenKind::Probe => {}
        }
    }

    /// Records that a call sent at `sent_at` has had no response for much longer than usual, and that no
    /// other call has had one since. This is no failure yet, but other calls use other targets until a
    /// probe is answered.
    pub fn record_unresponsive(&mut self, token: BreakerToken, sent_at: Instant, now: Instant, jitter: f64) {
        if self.is_stale(token) {
            return;
        }
        match token.kind {
            TokenKind::Ordinary => {
                self.trip_reason = Some(TripReason::Unresponsive);
                self.open(now, jitter);
                self.outage_epoch = self.epoch;
            }
            // The next probe is due at a fixed time after this one was sent, so that the recovery of the
            // provider is noticed without waiting for another detection. This probe may still
            // succeed before.
            TokenKind::Probe if self.is_probing() => {
                self.consecutive_openings = self.consecutive_openings.saturating_add(1);
                self.state = State::Open { until: (sent_at + self.open_duration(jitter)).max(now) };
                self.state = self.open_until_provider_wait().unwrap_or(self.state);
            }
            TokenKind::Probe | TokenKind::Forced => {}
        }
    }

    /// Returns whether a probe is in flight.
    pub fn is_probing(&self) -> bool {
        matches!(self.state, State::HalfOpen { probing: true })
    }

    /// Records that the target has sent a response, which closes a breaker that was open as unresponsive.
    /// Returns whether a probe had also found it unresponsive.
    pub fn record_response(&mut self) -> bool {
        let failed_a_probe = self.consecutive_openings > 1;
        let was_unresponsive = self.trip_reason == Some(TripReason::Unresponsive);
        if was_unresponsive {
            self.close();
        }
        was_unresponsive && failed_a_probe
    }

    /// Returns a token whose call shows nothing about the provider: it was not sent, the caller was at
    /// fault, or it was cancelled.
    pub fn release(&mut self, token: BreakerToken) {
        if self.is_stale(token) {
            return;
        }
        match token.kind {
            TokenKind::Ordinary => self.outcomes.release(),
            TokenKind::Forced => self.forced_outcomes.release(),
            TokenKind::Probe if self.is_probing() => {
                self.state = self.open_until_provider_wait().unwrap_or(State::HalfOpen { probing: false });
            }
            TokenKind::Probe => {}
        }
    }

    /// Applies a wait that the provider requested during an outage. It can only extend the open state. A
    /// closed breaker ignores it; a probe in flight does too, but if it does not succeed the next probe
    /// waits.
    pub fn extend_open_until(&mut self, until: Instant) {
        if matches!(self.state, State::Closed) {
            return;
        }
        self.provider_wait_until = self.provider_wait_until.max(Some(until));
        if !matches!(self.state, State::HalfOpen { probing: true }) {
            self.state = self.open_until_provider_wait().unwrap_or(self.state);
        }
    }

    /// Returns whether the breaker has changed its state since it issued the token.
    fn is_stale(&self, token: BreakerToken) -> bool {
        match token.kind {
            TokenKind::Ordinary | TokenKind::Probe => token.epoch != self.epoch,
            TokenKind::Forced => self.trip_reason.is_none() || token.epoch != self.outage_epoch,
        }
    }

    /// Returns the open state that the provider's wait requires, if that is longer than the current one.
    fn open_until_provider_wait(&self) -> Option<State> {
        let until = match self.state {
            State::Open { until } => self.provider_wait_until?.max(until),
            State::Closed | State::HalfOpen { .. } => self.provider_wait_until?,
        };
        Some(State::Open { until })
    }

    fn open(&mut self, now: Instant, jitter: f64) {
        self.consecutive_openings = self.consecutive_openings.saturating_add(1);
        self.transition_to(State::Open { until: now + self.open_duration(jitter) });
        self.state = self.open_until_provider_wait().unwrap_or(self.state);
    }

    /// Returns the open duration after so many openings.
    fn open_duration(&self, jitter: f64) -> Duration {
        let tripled = self
            .settings
            .open_duration
            .saturating_mul(3u32.saturating_pow(self.consecutive_openings.saturating_sub(1)));
        // Spread over the last twentieth, so that targets that failed together are not probed together. With a
        // wider one, an outage of a minute could cost one probe more.
        let spread = 0.95 + jitter.clamp(0.0, 1.0) / 20.0;
        tripled.min(self.settings.max_open_duration).mul_f64(spread)
    }

    fn close(&mut self) {
        self.transition_to(State::Closed);
        self.consecutive_openings = 0;
        self.trip_reason = None;
        self.provider_wait_until = None;
        self.forced_outcomes = OutcomeWindow::default();
    }

    fn transition_to(&mut self, state: State) {
        self.epoch += 1;
        self.state = state;
        self.outcomes = OutcomeWindow::default();
    }
}

#[cfg(test)]
mod tests;
