//! Estimate of a rate limit that neither the configuration nor a header names, from 429 responses alone.
//!
//! A refusal means that the provider's bucket or window was empty when the call arrived. What was accepted
//! between two refusals, over the time between them, is therefore the limit. This holds for a token bucket
//! of any size and for a fixed window, unless the bucket was full for a part of the time, and then the
//! limit is higher. So the limit lies between this *measured rate* and the rate at which calls left when one was
//! refused. The estimate is `measured + trust * (sent - measured)`. `trust` falls when the estimate proves too
//! high (a refusal before it was reached again) or when the provider counts by windows, and rises when
//! it proves too low.
//!
//! Between refusals the rate is increased as CUBIC does (RFC 9438, section 4.2), which is the algorithm for exactly this
//! problem (find an unknown capacity from losses alone, stay near it, probe beyond it seldom):
//!
//! ```text
//! rate(x) = estimate * (1 - DEPTH * (1 - x)^3)   x < 1
//! rate(x) = estimate * (1 + STEEPNESS * (x - 1)^3)   x >= 1
//! ```
//!
//! `x` counts accepted calls instead of RFC 9438's seconds, 25 calls or one minute of them, whichever are
//! more. Hence at most one probe in about 50 calls at low rates, none in an unused minute, and a provider's
//! minute passes before the estimate is exceeded. The first 429 starts a search from what the last minute
//! accepted, and the rate grows with every call (slow start, RFC 5681) until the next.
//!
//! Not every refusal is a limit's. One that comes after many accepted calls is tolerated (`doubt.rs`), one that comes after ten or
//! more lowers the estimate by the share of refused calls only, and below the estimate the rate drifts upward by
//! [`DRIFT`] with each accepted call, so that few refusals at random never add up. Where refusals have lowered the estimate
//! much and then cease for a plateau, the search begins again: it was an incident, or the limit has risen.
//!
//! What is counted is what the refusals name: requests, or tokens; requests where they name nothing. Pure.

mod doubt;
mod known;
mod sent;

use std::time::Duration;

use tokio::time::Instant;

use crate::types::Limited;

use doubt::Doubt;
use known::{Incident, Known, Phase, SEARCH_REFUSALS};
pub(super) use sent::Sent;
use sent::{Amount, Recent};

/// Accepted calls, and the time at the present rate, from a refusal until the estimate is reached again.
const PLATEAU_CALLS: f64 = 25.0;
const PLATEAU_SECONDS: f64 = 60.0;

/// Growth of the rate in the search: with each accepted call, and in a second (natural logarithms).
const SEARCH_PER_CALL: f64 = 0.35;
const SEARCH_PER_SECOND: f64 = 0.4;

/// How much the estimate grows with each accepted call before it is reached: refusals of one call in a hundred that do
/// not depend on the rate must not lower it for good.
const DRIFT: f64 = 0.0002;

/// Refusals that are remembered to measure between.
const INCIDENTS: usize = 4;

/// The pause after a refusal that names none: in calls at the present rate, bounded, and in parts of the time
/// since the provider last accepted a call.
const PAUSE_CALLS: f64 = 1.0;
const PAUSE_CALLS_OF_A_WINDOW: f64 = 2.0;

/// The pause after the time that a refusal names, in calls. By then a bucket has room for one call and no more: every rate that is
/// the least bit too high would be refused again.
const PAUSE_CALLS_OF_A_BUCKET: f64 = 0.5;
const PAUSE_OF_CALLS_AT_MOST: f64 = 10.0;
const PAUSE_PART: f64 = 0.25;
const PAUSE_AT_LEAST: f64 = 0.25;
const PAUSE_AT_MOST: f64 = 60.0;

/// The estimate of one account's or model's limit.
#[derive(Debug)]
pub(super) struct RateEstimate {
    counted: Limited,
    sent: Amount,
    refused: Amount,
    recent: Recent,
    last_sent: Option<Instant>,
    /// `None` before refusals showed a limit.
    known: Option<Known>,
    doubt: Doubt,
}

impl RateEstimate {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            counted: Limited::Requests,
            sent: Amount::default(),
            refused: Amount::default(),
            recent: Recent::new(now),
            last_sent: None,
            known: None,
            doubt: Doubt::default(),
        }
    }

    /// Returns what is counted and how much of it a minute may have; `None` before the first refusal.
    pub(super) fn per_minute(&self) -> Option<(Limited, f64)> {
        self.known.as_ref().map(|known| (self.counted, known.rate() * 60.0))
    }

    /// Returns whether the rate is but a guess: it must turn no call away.
    pub(super) fn is_guess(&self) -> bool {
        self.known.as_ref().is_some_and(|known| matches!(known.phase, Phase::Search { .. }))
    }

    /// Forgets what was learned: a limit is known now.
    pub(super) fn forget(&mut self) {
        self.known = None;
    }

    /// Counts a call that leaves and usually takes so many tokens.
    pub(super) fn sent(&mut self, tokens: u64, now: Instant) -> Sent {
        let own = Amount::call(tokens);
        self.sent += own;
        self.recent.add(own, now);
        let pause = self.last_sent.map(|last| now.saturating_duration_since(last).as_secs_f64());
        self.last_sent = Some(now);
        let usual = self.known.as_ref().map(|known| self.per_call() / known.rate());
        // A rate that is not used says nothing when it is not refused.
        let in_use = pause.zip(usual).is_some_and(|(pause, usual)| pause <= usual * 1.5);
        Sent { at: now, own, sent: self.sent, in_use }
    }

    /// Takes back a call that did not leave after all.
    pub(super) fn stayed(&mut self, call: &Sent) {
        self.sent -= call.own;
        self.recent.remove(call);
    }

    /// Notes that the provider accepted a call. `is_paced` is whether the limit held calls back when it left.
    pub(super) fn accepted(&mut self, call: &Sent, is_paced: bool) {
        let per_call = self.per_call();
        let Some(known) = &mut self.known else { return };
        known.empty = 0;
        if !is_paced || !call.in_use || call.at <= known.cut_at {
            return;
        }
        let calls_a_second = known.rate() / per_call;
        match &mut known.phase {
            Phase::Search { refusals_left, growth } => {
                let slower = 0.5_f64.powi(SEARCH_REFUSALS.saturating_sub(*refusals_left) as i32);
                *growth *= (SEARCH_PER_CALL.min(SEARCH_PER_SECOND / calls_a_second) * slower).exp();
            }
            Phase::Track { progress } => {
                if *progress < 1.0 && !known.is_window {
                    known.estimate *= 1.0 + DRIFT;
                }
                *progress += 1.0 / PLATEAU_CALLS.max(PLATEAU_SECONDS * calls_a_second);
                known.look_for_rise();
            }
        }
    }

    /// Learns from a refusal for a limit of this kind. `named` is the wait that the provider asks for. Returns how long to
    /// wait, from the end of that time where it is named; `None` for the first that shows a limit.
    pub(super) fn refused(
        &mut self,
        call: &Sent,
        limited: Option<Limited>,
        named: Option<Duration>,
        now: Instant,
    ) -> Option<Duration> {
        self.count(limited.unwrap_or(self.counted));
        self.refused += call.own;
        self.recent.remove(call);
        // Calls that left later are not in yet, and may be refused, too.
        let accepted = call.sent - self.refused;
        let is_new = self.known.as_ref().is_none_or(|known| call.at > known.cut_at);
        let is_expected = self.known.as_ref().is_some_and(Known::expects_refusals);
        if is_new && self.doubt.is_tolerable(accepted) && !is_expected {
            return Some(Duration::ZERO);
        }
        let (per_call, counted) = (self.per_call(), self.counted);
        let in_all = self.sent - self.refused;
        let here = Incident { at: now, sent: self.sent, accepted: in_all };
        let Some(known) = &mut self.known else {
            let mut known = Known::new(here);
            known.begin(self.recent.a_second(now, counted), per_call, named, now);
            self.known = Some(known);
            return None;
        };
        if call.at <= known.cut_at {
            known.is_late(call);
            if known.incidents.len() == 1 && known.empty == 0 {
                known.begin(self.recent.a_second(now, counted), per_call, named, now);
            }
            return self.pause(named, now);
        }
        known.cut_at = now;
        let last = known.incidents.back().map(|last| last.accepted).unwrap_or_default();
        if (accepted - last).calls < 0.5 {
            known.is_spent(per_call, now);
            return self.pause(named, now);
        }
        known.is_refused(counted, per_call, accepted, (call.at, now), named);
        known.incidents.push_back(here);
        if known.incidents.len() > INCIDENTS {
            known.incidents.pop_front();
        }
        self.pause(named, now)
    }

    /// Returns how long to wait after a refusal, or after the time that it names.
    fn pause(&self, named: Option<Duration>, now: Instant) -> Option<Duration> {
        let known = self.known.as_ref()?;
        if named.is_some() {
            let calls = if known.is_window { 0.0 } else { PAUSE_CALLS_OF_A_BUCKET };
            let pause = calls * self.per_call() / known.rate();
            return Some(Duration::from_secs_f64(pause.min(PAUSE_OF_CALLS_AT_MOST)));
        }
        let calls = if known.is_window { PAUSE_CALLS_OF_A_WINDOW } else { PAUSE_CALLS };
        let of_calls = (calls * self.per_call() / known.rate()).min(PAUSE_OF_CALLS_AT_MOST);
        let refused_for = now.saturating_duration_since(known.refused_since).as_secs_f64();
        let of_time = if known.empty > 0 { refused_for * PAUSE_PART } else { 0.0 };
        let pause = of_calls.max(of_time).clamp(PAUSE_AT_LEAST, PAUSE_AT_MOST);
        Some(Duration::from_secs_f64(pause))
    }

    /// Counts something else from now on: what is known is brought into its unit.
    fn count(&mut self, limited: Limited) {
        if limited == self.counted {
            return;
        }
        let before = self.per_call();
        self.counted = limited;
        let factor = self.per_call() / before;
        if let Some(known) = &mut self.known {
            known.estimate *= factor;
        }
    }

    /// Returns how many counted units a call takes on average.
    fn per_call(&self) -> f64 {
        (self.sent.of(self.counted) / self.sent.calls.max(1.0)).max(1.0)
    }
}

#[cfg(test)]
mod tests;
