//! Stops calling a lane that keeps failing.
//!
//! Closed: calls flow. Open: calls are refused. Half-open: one probe decides. A lane that is merely ill
//! (opened by its share of failures, not by a row of them) still takes the calls that have nowhere else
//! to go, as forced ones; when nothing but failures comes of those either, it counts as down.
//! The breaker never sleeps and never reads a clock; its owner passes `now`.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::outcomes::{Evidence, Outcomes};
use super::{BreakerSettings, Trouble};

/// Where a breaker stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BreakerState {
    /// Calls flow.
    Closed,
    /// Calls are refused.
    Open,
    /// One probe is under way, or due.
    HalfOpen,
}

impl BreakerState {
    /// Returns the word used in progress and reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half-open",
        }
    }
}

/// Permission for one call. Its outcome counts only in the epoch that gave it: an answer that comes
/// late, after the breaker has moved, says nothing about the lane as it is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pass {
    epoch: u64,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Ordinary,
    Probe,
    Forced,
}

impl Pass {
    /// Returns whether the call finds out for all others if the lane is well again.
    pub fn is_probe(self) -> bool {
        self.kind == Kind::Probe
    }

    /// Returns whether the call passes although the breaker is open, because it has nowhere else to go.
    pub fn is_forced(self) -> bool {
        self.kind == Kind::Forced
    }
}

#[derive(Debug, Clone, Copy)]
enum State {
    Closed,
    Open { until: Instant },
    HalfOpen { probing: bool },
}

/// The breaker of one lane.
#[derive(Debug)]
pub struct Breaker {
    settings: BreakerSettings,
    state: State,
    /// Grows with every move from state to state.
    epoch: u64,
    /// The epoch it was last opened in while closed. Forced calls belong to the whole outage: one may
    /// outlast a probe.
    outage: u64,
    /// What it was opened by; `None` while closed.
    trouble: Option<Trouble>,
    /// Openings since it was last closed for good.
    openings: u32,
    /// The latest that the provider told us to stay away until, during this outage.
    told: Option<Instant>,
    /// Of the ordinary calls of this epoch.
    outcomes: Outcomes,
    /// Of the forced calls of this outage.
    forced: Outcomes,
}

impl Breaker {
    /// Makes a closed breaker.
    pub fn new(settings: BreakerSettings) -> Self {
        Self {
            settings,
            state: State::Closed,
            epoch: 0,
            outage: 0,
            trouble: None,
            openings: 0,
            told: None,
            outcomes: Outcomes::default(),
            forced: Outcomes::default(),
        }
    }

    /// Returns where it stands at `now`.
    pub fn state(&self, now: Instant) -> BreakerState {
        match self.state {
            State::Closed => BreakerState::Closed,
            State::Open { until } if now < until => BreakerState::Open,
            State::Open { .. } | State::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }

    /// Returns why it is not closed; `None` while it is.
    pub fn trouble(&self) -> Option<Trouble> {
        self.trouble
    }

    /// Returns when its pause ends; `None` while it is closed, or a probe is due or under way.
    pub fn rests_until(&self, now: Instant) -> Option<Instant> {
        match self.state {
            State::Open { until } => Some(until).filter(|until| *until > now),
            State::Closed | State::HalfOpen { .. } => None,
        }
    }

    /// Returns whether a call that could go elsewhere would pass at `now`. False while a probe is under
    /// way.
    pub fn would_admit(&self, now: Instant) -> bool {
        self.check(now, false).is_ok()
    }

    /// Says whether a call would pass at `now`, and lets none pass. `alone` as for [`Self::admit`].
    ///
    /// # Errors
    /// As for [`Self::admit`].
    pub fn check(&self, now: Instant, alone: bool) -> Result<(), Option<Instant>> {
        self.decide(now, alone).map(|_| ())
    }

    /// Lets a call pass, or not. `alone` is a call that no other lane is left for: it passes as a forced
    /// one where the lane still answers at times.
    ///
    /// # Errors
    /// When to ask again: for an open breaker the instant of its probe; `None` while a probe is under
    /// way, which takes as long as it takes.
    pub fn admit(&mut self, now: Instant, alone: bool) -> Result<Pass, Option<Instant>> {
        let kind = self.decide(now, alone)?;
        let epoch = match kind {
            Kind::Ordinary => {
                self.outcomes.left();
                self.epoch
            }
            Kind::Probe => {
                self.move_to(State::HalfOpen { probing: true });
                self.epoch
            }
            Kind::Forced => {
                self.forced.left();
                self.outage
            }
        };
        Ok(Pass { epoch, kind })
    }

    /// Returns how many calls count as out.
    #[cfg(test)]
    pub(crate) fn calls_out(&self) -> u32 {
        self.outcomes.out() + self.forced.out()
    }

    fn decide(&self, now: Instant, alone: bool) -> Result<Kind, Option<Instant>> {
        let refusal = match self.state {
            State::Closed => return Ok(Kind::Ordinary),
            State::Open { until } if now < until => Some(until),
            State::HalfOpen { probing: true } => None,
            State::Open { .. } | State::HalfOpen { probing: false } => return Ok(Kind::Probe),
        };
        let is_surely_down = !matches!(self.trouble, Some(Trouble::Share | Trouble::Silence));
        if alone && !is_surely_down { Ok(Kind::Forced) } else { Err(refusal) }
    }

    /// Counts a success, and returns whether it has closed the breaker: that of a probe does.
    pub fn succeeded(&mut self, pass: Pass, now: Instant) -> bool {
        if self.is_late(pass) {
            return false;
        }
        match pass.kind {
            Kind::Ordinary => self.outcomes.succeeded(&self.settings, now),
            Kind::Forced => self.forced.succeeded(&self.settings, now),
            Kind::Probe => self.close(),
        }
        pass.is_probe()
    }

    /// Opens it for a reason that is no failure of the provider's, unless it is open or a probe is under way. Returns
    /// whether it has opened. `jitter` as for [`Self::failed`].
    pub fn rest_lane(&mut self, now: Instant, jitter: f64) -> bool {
        if matches!(self.state, State::Open { .. } | State::HalfOpen { probing: true }) {
            return false;
        }
        self.trouble = Some(Trouble::Row);
        self.open(now, jitter);
        self.outage = self.epoch;
        true
    }

    /// Closes it, whatever it was open for, because the provider has shown that it works. Returns whether it was open.
    pub fn works_again(&mut self) -> bool {
        let was_open = self.trouble.is_some();
        if was_open {
            self.close();
        }
        was_open
    }

    /// Returns whether the calls that are out are enough to tell if the lane has failed: the last one did, and nothing
    /// has been decided yet.
    pub fn is_doubtful(&self) -> bool {
        matches!(self.state, State::Closed) && self.outcomes.is_doubtful(&self.settings)
    }

    /// Counts a failure of the provider. `jitter` lies in `0.0..1.0` and spreads the pause.
    pub fn failed(&mut self, pass: Pass, now: Instant, jitter: f64) {
        self.count_failure(pass, Evidence::Whole, now, jitter);
    }

    /// Counts a failure that says no more than that the provider has too many calls. `jitter` as for
    /// [`Self::failed`].
    pub fn overloaded(&mut self, pass: Pass, now: Instant, jitter: f64) {
        self.count_failure(pass, Evidence::Overload, now, jitter);
    }

    /// Counts a failure of a call while the lane has answered others that left later: it belongs to no row. `jitter`
    /// as for [`Self::failed`].
    pub fn failed_alone(&mut self, pass: Pass, now: Instant, jitter: f64) {
        self.count_failure(pass, Evidence::Alone, now, jitter);
    }

    fn count_failure(&mut self, pass: Pass, evidence: Evidence, now: Instant, jitter: f64) {
        if self.is_late(pass) {
            return;
        }
        match pass.kind {
            Kind::Ordinary => {
                self.outcomes.failed(&self.settings, evidence, now);
                if let Some(trouble) = self.outcomes.trouble(&self.settings) {
                    self.trouble = Some(trouble);
                    self.open(now, jitter);
                    self.outage = self.epoch;
                }
            }
            Kind::Forced => {
                self.forced.failed(&self.settings, evidence, now);
                if self.forced.is_row(&self.settings) {
                    self.trouble = Some(Trouble::Row);
                }
            }
            // A silent one has been counted.
            Kind::Probe if self.is_probing() => self.open(now, jitter),
            Kind::Probe => {}
        }
    }

    /// Notes that a call that left at `left` has been out for much longer than usual without a word, and no other
    /// has had one since. That is no failure yet, but others do better elsewhere until a probe has come back.
    pub fn silent(&mut self, pass: Pass, left: Instant, now: Instant, jitter: f64) {
        if self.is_late(pass) {
            return;
        }
        match pass.kind {
            Kind::Ordinary => {
                self.trouble = Some(Trouble::Silence);
                self.open(now, jitter);
                self.outage = self.epoch;
            }
            // Another probe is due some time after this one left: a provider that is back is not waited for until
            // its silence has been noticed once more. If this one succeeds before that, so much the better.
            Kind::Probe if self.is_probing() => {
                self.openings = self.openings.saturating_add(1);
                self.state = State::Open { until: (left + self.pause(jitter)).max(now) };
                self.state = self.rest().unwrap_or(self.state);
            }
            Kind::Probe | Kind::Forced => {}
        }
    }

    /// Returns whether a probe is under way.
    pub fn is_probing(&self) -> bool {
        matches!(self.state, State::HalfOpen { probing: true })
    }

    /// Notes that the lane has said something, which closes a breaker that was open for its silence. Returns
    /// whether that had been more than a pause: a probe had found it silent, too.
    pub fn spoke(&mut self) -> bool {
        let was_long = self.openings > 1;
        let was_silent = self.trouble == Some(Trouble::Silence);
        if was_silent {
            self.close();
        }
        was_silent && was_long
    }

    /// Takes back a pass whose call says nothing about the provider: it never left, or the caller was
    /// at fault, or it was cancelled.
    pub fn said_nothing(&mut self, pass: Pass) {
        if self.is_late(pass) {
            return;
        }
        match pass.kind {
            Kind::Ordinary => self.outcomes.came_back(),
            Kind::Forced => self.forced.came_back(),
            Kind::Probe if self.is_probing() => {
                self.state = self.rest().unwrap_or(State::HalfOpen { probing: false });
            }
            Kind::Probe => {}
        }
    }

    /// Obeys a provider that told us, during an outage, to stay away `until` then: it only ever makes
    /// the wait longer. A closed breaker takes no notice; neither does a probe that is under way, but if
    /// it does not succeed the next one waits.
    pub fn not_before(&mut self, until: Instant) {
        if matches!(self.state, State::Closed) {
            return;
        }
        self.told = self.told.max(Some(until));
        if !matches!(self.state, State::HalfOpen { probing: true }) {
            self.state = self.rest().unwrap_or(self.state);
        }
    }

    /// Returns whether the breaker has moved on since it gave `pass`.
    fn is_late(&self, pass: Pass) -> bool {
        match pass.kind {
            Kind::Ordinary | Kind::Probe => pass.epoch != self.epoch,
            Kind::Forced => self.trouble.is_none() || pass.epoch != self.outage,
        }
    }

    /// Returns the rest that the provider asked for, where that is the longer one.
    fn rest(&self) -> Option<State> {
        let until = match self.state {
            State::Open { until } => self.told?.max(until),
            State::Closed | State::HalfOpen { .. } => self.told?,
        };
        Some(State::Open { until })
    }

    fn open(&mut self, now: Instant, jitter: f64) {
        self.openings = self.openings.saturating_add(1);
        self.move_to(State::Open { until: now + self.pause(jitter) });
        self.state = self.rest().unwrap_or(self.state);
    }

    /// Returns how long it rests after so many openings.
    fn pause(&self, jitter: f64) -> Duration {
        let tripled =
            self.settings.pause.saturating_mul(3u32.saturating_pow(self.openings.saturating_sub(1)));
        // Over the last tenth: those who failed together do not return together, and an outage is probed no more
        // often than the settings say.
        let spread = 0.9 + jitter.clamp(0.0, 1.0) / 10.0;
        tripled.min(self.settings.max_open_duration).mul_f64(spread)
    }

    fn close(&mut self) {
        self.move_to(State::Closed);
        (self.openings, self.trouble, self.told) = (0, None, None);
        self.forced = Outcomes::default();
    }

    fn move_to(&mut self, state: State) {
        self.epoch += 1;
        self.state = state;
        self.outcomes = Outcomes::default();
    }
}

#[cfg(test)]
mod tests;
