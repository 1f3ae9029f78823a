//! How many calls of one lane may be out at once: found by trying.
//!
//! The limit doubles with every round trip until the provider first objects (429, 529, silence), and from
//! then on grows by one a round trip. It grows only while it is really used. An objection takes three
//! tenths off, once for all the calls that left before; where it came is remembered as a ceiling, and
//! growth stops just below that and looks only now and then whether it still holds. Growth also stops
//! where it brings no more answers (`payoff.rs`). Answers that take long lower nothing.
//!
//! Counts the calls that are out itself. Never reads a clock, and knows neither why a call may have to
//! wait for other reasons nor that there are other lanes; its owner passes `now`.

use std::time::Duration;

use tokio::time::Instant;

use super::ConcurrencySettings;
use super::payoff::{Member, Payoff};

/// What is left of the limit after a cut, in tenths.
const CUT_TO: usize = 7;

/// Calls out from which a limit counts as used, in tenths of it.
const USED: usize = 9;

/// Calls out below which a limit counts as idle, in tenths of it: whatever the provider objects to then,
/// it is not how many calls are out.
const IDLE: usize = 5;

/// Calls at once after a breaker has closed.
const AFTER_AN_OUTAGE: usize = 2;

/// Until a ceiling is first tried again, and at most.
const CEILING_HOLDS: Duration = Duration::from_secs(30);
const CEILING_HOLDS_AT_MOST: Duration = Duration::from_secs(240);

/// A call that has left. It has to be given back once, with [`Concurrency::ended`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    left: Instant,
    /// Calls that were out when it left, itself included.
    out: usize,
    /// The limit then.
    limit: usize,
    epoch: u64,
    member: Option<Member>,
}

/// How a call ended, as far as it says something of how many may be out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Its answer is there, whole.
    Answered,
    /// The provider asked us to slow down: 429, 529.
    Throttled,
    /// It stayed silent for too long.
    TimedOut,
    /// Anything else.
    Other,
}

/// The concurrency of one lane.
#[derive(Debug)]
pub struct Concurrency {
    min: usize,
    max: usize,
    limit: usize,
    in_flight: usize,
    /// Grows whenever the limit is lowered: calls that left before left under another.
    epoch: u64,
    /// Whether the provider has never objected.
    is_new: bool,
    /// What the limit was before an outage; it doubles until it is there again.
    before: usize,
    /// Accepted calls since the limit last grew by one.
    credit: usize,
    ceiling: Option<Ceiling>,
    payoff: Payoff,
}

/// Where the provider objected.
#[derive(Debug, Clone, Copy)]
struct Ceiling {
    at: usize,
    holds: Duration,
    until: Instant,
}

impl Ceiling {
    /// Returns the largest limit that does not touch it.
    fn below(self) -> usize {
        (self.at * 95 / 100).min(self.at.saturating_sub(1))
    }
}

impl Concurrency {
    /// Makes one that has seen nothing.
    pub fn new(settings: ConcurrencySettings) -> Self {
        let [min, start, max] =
            [settings.min, settings.start, settings.max].map(|number| number.get() as usize);
        // The settings as read are in order; those that a program makes need not be.
        let max = max.max(min);
        let limit = start.clamp(min, max);
        Self {
            min,
            max,
            limit,
            in_flight: 0,
            epoch: 0,
            is_new: true,
            before: 0,
            credit: 0,
            ceiling: None,
            payoff: Payoff::new(limit),
        }
    }

    /// Returns how many calls may be out at once.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Returns how many may be out at most, however well it goes.
    pub fn max(&self) -> usize {
        self.max
    }

    /// Returns how many are out: more than the limit for a while after it was lowered.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Returns whether one more may leave. `paced` is whether a limit is known that calls keep to.
    pub fn has_room(&self, paced: bool) -> bool {
        self.in_flight < self.reachable(paced)
    }

    /// Returns how many calls may be out. Where calls keep to a known limit that is their pace, and trying
    /// begins with the provider's first objection: a burst that the limit has room for must not wait for it.
    pub fn reachable(&self, paced: bool) -> usize {
        if paced && self.is_new && self.before == 0 { self.max } else { self.limit }
    }

    /// Counts a call that leaves. Does not ask whether there is room: a probe or a forced call may leave
    /// without. `paced` as for [`Self::has_room`].
    pub fn left(&mut self, paced: bool, now: Instant) -> Ticket {
        self.in_flight += 1;
        if paced && self.is_new && self.before == 0 {
            // More than were tried, because a known limit let them: that is what an objection is about.
            self.limit = self.limit.max(self.in_flight.min(self.max));
        }
        let (out, limit) = (self.in_flight, self.limit);
        // What leaves into an idle lane says nothing about how much it gets done at the limit.
        let is_told = !is_idle(out, limit) && self.limit >= self.before;
        let member = if is_told { self.payoff.left() } else { None };
        Ticket { left: now, out, limit, epoch: self.epoch, member }
    }

    /// Learns that the provider took a call: the headers of a success are there, or all of it where there
    /// are none to be seen before. At most once for each call, before [`Self::ended`].
    pub fn accepted(&mut self, ticket: Ticket, now: Instant) {
        let was_used = self.busiest(ticket) * 10 >= ticket.limit * USED;
        if ticket.epoch != self.epoch || !was_used || self.limit >= self.most(now) {
            return;
        }
        let is_near_ceiling = self.ceiling.is_some_and(|ceiling| self.limit >= ceiling.below());
        let doubles = (self.is_new || self.limit < self.before) && !is_near_ceiling;
        self.credit += 1;
        if doubles || self.credit >= self.limit {
            self.credit = 0;
            self.limit += 1;
        }
        // A whole round of calls was taken at the ceiling: it holds no longer.
        self.ceiling = self.ceiling.filter(|ceiling| self.limit <= ceiling.at);
        if self.limit == self.before {
            self.before = 0;
            self.payoff.forget(self.limit);
        }
    }

    /// Takes a call back that has ended, however it did.
    pub fn ended(&mut self, ticket: Ticket, how: Ended, now: Instant) {
        match how {
            Ended::Throttled | Ended::TimedOut => self.cut(ticket, now),
            Ended::Answered | Ended::Other => {}
        }
        self.in_flight = self.in_flight.saturating_sub(1);
        let Some(member) = ticket.member else { return };
        if how != Ended::Answered {
            return self.payoff.gone(member);
        }
        let (took, then) = (now.saturating_duration_since(ticket.left), (ticket.out, ticket.limit));
        if let Some(limit) = self.payoff.answered(member, then, took, self.limit, self.max, now) {
            self.lower(limit);
        }
    }

    /// Starts anew after an outage, when the breaker has closed: with few calls at once, which double with
    /// every round trip until there are as many as before.
    pub fn restart(&mut self) {
        self.before = self.before.max(self.limit);
        self.lower(AFTER_AN_OUTAGE);
        if self.limit >= self.before {
            self.before = 0;
        }
        self.payoff.forget(self.before.max(self.limit));
    }

    /// Obeys an objection of the provider, unless it is about calls of before the last cut.
    fn cut(&mut self, ticket: Ticket, now: Instant) {
        let out = self.busiest(ticket);
        if ticket.epoch != self.epoch || is_idle(out, ticket.limit) {
            return;
        }
        // Where fewer were out than allowed, it is those that were too many.
        let at = out.min(self.limit);
        let holds = match self.ceiling {
            Some(ceiling) if at >= ceiling.below() => (ceiling.holds * 2).min(CEILING_HOLDS_AT_MOST),
            _ => CEILING_HOLDS,
        };
        self.ceiling = Some(Ceiling { at, holds, until: now + holds });
        (self.is_new, self.before) = (false, 0);
        self.lower(at * CUT_TO / 10);
        self.payoff.forget(self.limit);
    }

    fn lower(&mut self, limit: usize) {
        self.limit = limit.clamp(self.min, self.max).min(self.limit);
        self.epoch += 1;
        self.credit = 0;
    }

    /// Returns how far the limit may grow at `now`.
    fn most(&self, now: Instant) -> usize {
        let ceiling = self.ceiling.filter(|ceiling| now < ceiling.until);
        let below_ceiling = ceiling.map_or(usize::MAX, Ceiling::below);
        // Up to where it was before an outage growing has paid once.
        let worth = self.payoff.most().max(self.before);
        self.max.min(below_ceiling).min(worth)
    }

    /// Returns the most calls that are known to have been out with a call, itself included. Those that
    /// leave first in a burst leave alone, and are not alone for long.
    fn busiest(&self, ticket: Ticket) -> usize {
        ticket.out.max(self.in_flight)
    }
}

fn is_idle(out: usize, limit: usize) -> bool {
    out * 10 < limit * IDLE
}

#[cfg(test)]
mod simulated;
#[cfg(test)]
mod tests;
