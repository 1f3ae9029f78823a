//! What refusals have shown of a limit: the estimate, and the rate that calls leave at.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::types::Limited;

use super::sent::{Amount, Sent};

/// How far below the estimate the rate falls at a refusal, and how fast it grows beyond the estimate.
const DEPTH: f64 = 0.05;
const STEEPNESS: f64 = 0.25;

/// How much slower the search is after a refusal with nothing accepted since the one before.
const SEARCH_BACK: f64 = 1.5;

/// Refusals that end the search; after each but the last it continues from half of the rate, half as fast.
pub(super) const SEARCH_REFUSALS: u32 = 3;

/// Calls a minute that the search starts from at least.
const SEARCH_FROM: f64 = 60.0;

/// How much of the rate one refusal leaves at least that comes before the estimate is reached, when it
/// is the first, second, third or later of such in a row.
const LEAST_LEFT: [f64; 3] = [0.9, 0.8, 0.75];

/// Likewise where the end of the provider's window is known, which makes the measurement exact.
const LEAST_OF_A_WINDOW: f64 = 0.1;

/// A refusal always leaves less than the rate that was refused.
const MOST_LEFT: f64 = 0.97;

/// Which part of the rate of before is a limit that has fallen.
const FALLEN: f64 = 0.7;

/// Accepted calls that a measurement needs when the limit has fallen.
const MEASURED_CALLS: f64 = 10.0;

/// A wait that the provider names is that of a window, and not of a bucket, when it is longer than this and
/// has room for this many calls.
const WINDOW_WAIT: Duration = Duration::from_secs(2);
const WINDOW_CALLS: f64 = 2.0;

/// Calls that a window has accepted at least: a bucket that holds one may name as long a wait while the rate is far too
/// high.
const WINDOW_ACCEPTED: f64 = 5.0;

/// Refusals in a row, with nothing accepted between them, that show a spent window, and for how long they last at least:
/// a bucket refuses several calls that arrive together, too.
const SPENT: u32 = 2;
const SPENT_FOR: Duration = Duration::from_secs(1);

/// Accepted calls between two refusals of the search that tell the limit better than half of the refused rate.
const SEARCH_CALLS: f64 = 5.0;

/// Bounds of the rate, in counted units a second.
const LEAST_RATE: f64 = 1.0 / 600.0;
const MOST_RATE: f64 = 1e9;

/// What refusals have shown. Rates are in counted units a second.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) estimate: f64,
    /// What was accepted in the minute before the first refusal.
    pub(super) minute: f64,
    pub(super) phase: Phase,
    /// Calls that left before this are of the last incident.
    pub(super) cut_at: Instant,
    /// When the wait is over that the last incident named.
    pub(super) resumes_at: Instant,
    /// The first refusal since a call was accepted.
    pub(super) refused_since: Instant,
    /// Refusals in a row with nothing accepted between them, less the first.
    pub(super) empty: u32,
    /// Refusals in a row that came before the estimate was reached again.
    pub(super) early: usize,
    /// The rate before the first of these.
    pub(super) before: f64,
    pub(super) trust: f64,
    pub(super) is_window: bool,
    pub(super) incidents: VecDeque<Incident>,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Phase {
    /// The limit is not known yet: the rate is `estimate * growth`.
    Search { refusals_left: u32, growth: f64 },
    /// The limit is about the estimate: the rate follows the cubic.
    Track { progress: f64 },
}

/// A refusal: by then so much had been accepted, or was under way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Incident {
    pub(super) at: Instant,
    pub(super) sent: Amount,
    pub(super) accepted: Amount,
}

impl Known {
    pub(super) fn new(first: Incident) -> Self {
        Self {
            estimate: LEAST_RATE,
            minute: 0.0,
            phase: Phase::Search { refusals_left: SEARCH_REFUSALS, growth: 1.0 },
            cut_at: first.at,
            resumes_at: first.at,
            refused_since: first.at,
            empty: 0,
            early: 0,
            before: 0.0,
            trust: 1.0,
            is_window: false,
            incidents: VecDeque::from([first]),
        }
    }

    /// Begins with what the minute before the first refusal accepted. Calls that left together are refused one by
    /// one, and each may show that it was less.
    pub(super) fn begin(&mut self, minute: f64, per_call: f64, named: Option<Duration>, now: Instant) {
        let is_enough = minute * 60.0 >= WINDOW_ACCEPTED * per_call;
        let window = of_a_window(named, minute / per_call).filter(|_| is_enough);
        self.minute = minute;
        self.is_window = window.is_some();
        self.resumes_at = now + window.unwrap_or_default();
        // What a window accepted is its limit; else it is searched for.
        let least = if self.is_window { per_call / 60.0 } else { SEARCH_FROM / 60.0 * per_call };
        self.estimate = minute.max(least);
        self.trust = if self.is_window { 0.0 } else { 1.0 };
        self.phase = match self.is_window {
            true => Phase::Track { progress: 1.0 },
            false => Phase::Search { refusals_left: SEARCH_REFUSALS, growth: 1.0 },
        };
    }

    pub(super) fn rate(&self) -> f64 {
        let factor = match self.phase {
            Phase::Search { growth, .. } => growth,
            Phase::Track { progress } if progress < 1.0 => 1.0 + DEPTH * (progress - 1.0).powi(3),
            Phase::Track { progress } => 1.0 + STEEPNESS * (progress - 1.0).powi(3),
        };
        (self.estimate * factor).clamp(LEAST_RATE, MOST_RATE)
    }

    /// Returns whether a refusal is expected, because the rate has reached the estimate.
    pub(super) fn expects_refusals(&self) -> bool {
        matches!(self.phase, Phase::Track { progress } if progress >= 1.0)
    }

    /// Looks for a limit that has risen again, once the estimate has been reached without a refusal: it fell because calls
    /// were refused, and that may have been an incident.
    pub(super) fn look_for_rise(&mut self) {
        let has_fallen = self.estimate < self.before * FALLEN;
        if self.expects_refusals() && has_fallen && !self.is_window {
            self.phase = Phase::Search { refusals_left: 1, growth: 1.0 };
            (self.before, self.early) = (0.0, 0);
        }
    }

    /// Corrects what was taken to be accepted: the call had left before the incident.
    pub(super) fn is_late(&mut self, call: &Sent) {
        for incident in self.incidents.iter_mut().filter(|incident| call.sent.calls <= incident.sent.calls) {
            incident.accepted -= call.own;
        }
    }

    /// Notes a refusal since the last of which nothing was accepted: it says nothing of the rate.
    pub(super) fn is_spent(&mut self, per_call: f64, now: Instant) {
        self.empty += 1;
        let lasts = now.saturating_duration_since(self.refused_since) >= SPENT_FOR;
        let is_first = self.incidents.len() == 1;
        let is_search = matches!(self.phase, Phase::Search { .. });
        let is_enough = !is_first || self.minute * 60.0 >= MEASURED_CALLS * per_call;
        if self.empty >= SPENT && lasts && is_enough {
            self.is_window = true;
            self.trust = 0.0;
            if is_search && is_first {
                self.estimate = self.minute;
            }
            if is_search {
                self.phase = Phase::Track { progress: 1.0 };
            }
        } else if is_search && is_first {
            // A call at this rate was not accepted.
            self.estimate = (self.estimate / SEARCH_BACK).max(self.minute).max(LEAST_RATE);
        }
    }

    /// Sets the estimate anew: until the refused call left, so much was accepted.
    pub(super) fn is_refused(
        &mut self,
        counted: Limited,
        per_call: f64,
        accepted: Amount,
        (left, now): (Instant, Instant),
        named: Option<Duration>,
    ) {
        let rate = self.rate();
        self.refused_since = now;
        self.empty = 0;
        let since = |incident: &Incident| {
            let seconds = left.saturating_duration_since(incident.at).as_secs_f64().max(1e-3);
            (accepted - incident.accepted).of(counted).max(0.0) / seconds
        };
        let is_enough = |incident: &&Incident| (accepted - incident.accepted).calls >= MEASURED_CALLS;
        let mut long = self.incidents.front().map_or(rate, since);
        let recent = self.incidents.iter().rev().find(is_enough).or(self.incidents.front());
        let mut recent = recent.map_or(rate, since);
        let mut least = LEAST_LEFT[self.early.min(LEAST_LEFT.len() - 1)];
        let last = self.incidents.back().map_or(accepted, |last| accepted - last.accepted);
        let of_window = of_a_window(named, rate / per_call).filter(|_| last.calls >= WINDOW_ACCEPTED);
        let is_window = of_window.is_some();
        if let (Some(named), Some(last)) = (of_window, self.incidents.back()) {
            // From one window's end to the next one's exactly a limit is accepted.
            let seconds = (now + named).saturating_duration_since(self.resumes_at.max(last.at)).as_secs_f64();
            long = (accepted - last.accepted).of(counted).max(0.0) / seconds.max(1.0);
            recent = long;
            least = LEAST_OF_A_WINDOW;
            self.is_window = true;
            self.trust = 0.0;
        }
        self.resumes_at = now + named.unwrap_or_default();
        match self.phase {
            Phase::Search { refusals_left, .. } if refusals_left > 1 && !is_window => {
                let short = self.incidents.back().filter(|_| last.calls >= SEARCH_CALLS).map_or(0.0, since);
                self.estimate = long.max(short).max(rate / 2.0).min(rate * MOST_LEFT);
                self.phase = Phase::Search { refusals_left: refusals_left - 1, growth: 1.0 };
                return;
            }
            Phase::Search { .. } => {
                self.estimate = (long + self.trust * (rate - long).max(0.0)).min(rate);
            }
            Phase::Track { progress }
                if progress < 1.0
                    && last.calls >= MEASURED_CALLS
                    && counted == Limited::Requests
                    && !self.is_window =>
            {
                // Few of the calls are refused: the limit is that much lower at most.
                self.estimate *= 1.0 - 1.0 / (last.calls + 1.0);
                return;
            }
            Phase::Track { progress } if progress < 1.0 => {
                self.early += 1;
                self.before = self.before.max(rate);
                // Several in a row are a limit that has fallen, and say nothing of the bucket.
                if self.early == 1 {
                    self.trust /= 2.0;
                }
                self.estimate = recent.max(least * rate).min(MOST_LEFT * rate);
            }
            Phase::Track { .. } => {
                self.early = 0;
                let growth = if rate < 1.1 * self.estimate { 1.5 } else { 1.0 };
                self.trust = (self.trust * growth + 0.05).min(1.0);
                let least = long.max(self.estimate);
                self.estimate = (least + self.trust * (rate - least).max(0.0)).min(rate);
            }
        }
        self.phase = Phase::Track { progress: 0.0 };
    }
}

/// Returns a wait that is a window's, and not a bucket's, at so many calls a second.
fn of_a_window(named: Option<Duration>, calls_a_second: f64) -> Option<Duration> {
    named.filter(|named| *named > WINDOW_WAIT && named.as_secs_f64() * calls_a_second > WINDOW_CALLS)
}
