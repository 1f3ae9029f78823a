//! How many attempts to one target may be in flight at once: found by trying.
//!
//! A loss-based limiter. It doubles with every round trip until the provider first objects (429 without a known limit,
//! 503, 529, silence). It decreases in proportion to the share of objections, as DCTCP does (RFC 8257): not whether a
//! round trip had an objection counts, but how many. Once a round has more of them than chance brings, each takes one
//! place; so a provider that takes 40 of 512 is found by its 472 refusals, and one that refuses 2% at random, whatever
//! is in flight, costs nothing. `objections.rs` tells one from the other.
//!
//! The fewest in flight that were objected to are a *ceiling*. Up to just below it, or to where the limit has been
//! before, it returns within a few round trips. The ceiling holds for a quarter of the time for which it has been
//! there: what an incident of seconds took is back within seconds, and one that lasts is tried ever more rarely, in
//! steps of 1, 2, 4 and so on. Growth stops as well where it brings no more answers (`payoff.rs`, a gradient by
//! goodput). Answers that take long lower nothing by themselves.
//!
//! Why none of the usual ones as it is:
//!
//! - AIMD of Netflix' concurrency-limits (`AIMDLimit`: times 0.9 for any drop) and of vector's adaptive request
//!   concurrency (`controller.rs`: times 0.9 for any round with back pressure, plus one for one without) is a ratchet
//!   under random refusals: at 2% of them and 512 in flight hardly a round is without. So was this one.
//! - Gradients by latency (Netflix' `Gradient2Limit` and `VegasLimit`, Envoy's adaptive concurrency filter) compare
//!   the times of now with those of little load. Answers of models take a second or a minute by what is asked; Envoy
//!   measures its base by letting three requests through at a time, every minute. Neither counts refusals as such.
//! - DCTCP halves the share: its marks come before the queue is full. Here an objection is an attempt that is lost, and
//!   the places that are too many are exactly those that were refused.
//!
//! Counts the attempts in flight itself. Never reads a clock, and knows neither why an attempt may have to wait for
//! other reasons nor that there are other targets; its owner passes `now`.

use std::time::Duration;

use tokio::time::Instant;

use super::ConcurrencySettings;
use super::ceiling::Ceiling;
use super::objections::{Objections, Telling};
use super::payoff::{Member, Payoff};

/// Calls out from which a limit counts as used, in tenths of it.
const USED: usize = 9;

/// Calls out below which a limit counts as idle, in tenths of it: they say nothing of what is done at the limit.
const IDLE: usize = 5;

/// Attempts in flight after an outage: this part of what there were, and at least so many.
const PART_AFTER_AN_OUTAGE: usize = 8;
const AFTER_AN_OUTAGE: usize = 2;

/// By how much it grows for each call that is taken, on the way back to where it was.
const RECOVERS: usize = 3;

/// Calls that must have been taken since the last step before the next one: this part of the limit.
const ENOUGH_TO_STEP: usize = 8;

/// Until the next step at the latest, however long objections take.
const STEP_AT_LATEST: Duration = Duration::from_secs(2);

/// A call that has left. It has to be given back once, with [`Concurrency::ended`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    left: Instant,
    /// Calls that were out when it left, itself included.
    out: usize,
    /// The limit then.
    limit: usize,
    epoch: u64,
    /// Its round, see [`Objections`].
    round: u64,
    member: Option<Member>,
}

impl Ticket {
    /// Returns when the call left.
    pub fn left(&self) -> Instant {
        self.left
    }
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
    /// Those of them that hang: nothing is to be expected of them, and they take no room from others.
    hung: usize,
    /// Grows whenever the limit is lowered: calls that left before left under another.
    epoch: u64,
    /// Whether the provider has never objected.
    is_new: bool,
    /// What the limit was before an outage, until it is there again. Zero where there was none.
    before: usize,
    /// The largest number in flight that the provider did not object to.
    reached: usize,
    /// Accepted calls since the limit last grew.
    credit: usize,
    /// By how much it grows next where it does not grow with every call.
    step: usize,
    /// When it did so last.
    stepped: Option<Instant>,
    objections: Objections,
    ceiling: Option<Ceiling>,
    payoff: Payoff,
    /// How long the provider's first word takes.
    word: Option<Duration>,
    /// How long its latest objection took, twice: no step follows another sooner.
    objects_after: Duration,
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
            hung: 0,
            epoch: 0,
            is_new: true,
            before: 0,
            reached: 0,
            credit: 0,
            step: 1,
            stepped: None,
            objections: Objections::new(),
            ceiling: None,
            payoff: Payoff::new(limit),
            word: None,
            objects_after: Duration::ZERO,
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

    /// Returns how many are out that do not hang.
    pub fn counted(&self) -> usize {
        self.in_flight.saturating_sub(self.hung)
    }

    /// Notes that so many of the attempts in flight hang.
    pub fn hang(&mut self, attempts: usize) {
        self.hung += attempts;
    }

    /// Takes back that one attempt hangs: it has ended, or had a word after all.
    pub fn hangs_no_more(&mut self) {
        self.hung = self.hung.saturating_sub(1);
    }

    /// Returns whether one more may leave. `paced` is whether a limit is known that calls keep to.
    pub fn has_room(&self, paced: bool) -> bool {
        self.counted() < self.reachable(paced)
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
            self.limit = self.limit.max(self.counted().min(self.max));
        }
        let (out, limit) = (self.counted(), self.limit);
        // What leaves into an idle lane says nothing about how much it gets done at the limit.
        let is_told = !is_idle(out, limit) && self.limit >= self.before;
        let member = if is_told { self.payoff.left() } else { None };
        let round = self.objections.left(limit, out);
        Ticket { left: now, out, limit, epoch: self.epoch, round, member }
    }

    /// Learns that the provider took a call: the headers of a success are there, or all of it where there
    /// are none to be seen before. At most once for each call, before [`Self::ended`].
    pub fn accepted(&mut self, ticket: Ticket, now: Instant) {
        let took = now.saturating_duration_since(ticket.left);
        self.word = Some(self.word.map_or(took, |word| (word * 7 + took) / 8));
        let was_used = self.busiest(ticket) * 10 >= ticket.limit * USED;
        let most = self.most(now);
        if ticket.epoch != self.epoch || !was_used || self.limit >= most || self.objections.is_trying() {
            return;
        }
        if self.is_new {
            self.limit += 1;
        } else if self.limit < self.known_good(now) {
            self.limit = (self.limit + RECOVERS).min(self.known_good(now));
        } else if self
            .stepped
            .is_none_or(|stepped| ticket.left >= stepped && now >= stepped + self.objects_after)
        {
            self.credit += 1;
            if self.credit * ENOUGH_TO_STEP >= self.limit && self.credit >= self.step / 2 {
                self.take_step(most, now);
            }
        }
        if self.limit >= self.before && self.before > 0 {
            self.before = 0;
            self.payoff.forget(self.limit);
        }
    }

    /// Takes a call back that has ended, however it did. Returns whether it was one of too many, and its place has
    /// been taken away.
    pub fn ended(&mut self, ticket: Ticket, how: Ended, now: Instant) -> bool {
        let was_too_many = match how {
            Ended::Throttled | Ended::TimedOut => self.objected(ticket, now),
            Ended::Answered | Ended::Other => false,
        };
        self.is_back(ticket, how, now);
        was_too_many
    }

    fn is_back(&mut self, ticket: Ticket, how: Ended, now: Instant) {
        if let Some(taken) = self.objections.ended(ticket.round, self.ceiling.map(|ceiling| ceiling.at)) {
            self.reached = self.reached.max(taken);
            self.ceiling = self.ceiling.filter(|ceiling| taken < self.max && !ceiling.is_passed_by(taken));
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

    /// Starts anew after an outage, when the breaker has closed: with a part of the calls, which multiplies with
    /// every round trip until there are as many as before.
    pub fn restart(&mut self, now: Instant) {
        // A young one is the outage's.
        self.ceiling = self.ceiling.filter(|ceiling| !ceiling.is_young(now));
        let known = self.ceiling.map_or(usize::MAX, Ceiling::below);
        let before = self.before.max(self.limit).max(self.reached.min(known));
        // The outage may have cut it further.
        self.limit = (before / PART_AFTER_AN_OUTAGE).max(AFTER_AN_OUTAGE).clamp(self.min, self.max);
        self.epoch += 1;
        (self.credit, self.step) = (0, 1);
        self.before = if self.limit < before { before } else { 0 };
        self.objections.forget();
        self.payoff.forget(before);
    }

    /// Returns the limit before the cut or the outage that it has not made up for; `None` where there is none.
    pub fn reduced_from(&self) -> Option<usize> {
        Some(self.before.max(self.reached)).filter(|before| *before > self.limit)
    }

    /// Returns whether the limit is on its way back after an outage, and no objection has lowered it.
    pub fn is_recovering(&self) -> bool {
        self.before > 0 && self.ceiling.is_none()
    }

    /// Grows beyond what is known to be good. As long as nothing is objected to, each step is twice as large as the one
    /// before.
    fn take_step(&mut self, most: usize, now: Instant) {
        self.ceiling = self.ceiling.filter(|ceiling| !ceiling.is_passed_by(self.limit));
        self.limit = (self.limit + self.step).min(most);
        self.step = (self.step * 2).min(self.limit);
        (self.credit, self.stepped) = (0, Some(now));
    }

    /// Takes a place away for an objection, if it is one of too many. Returns whether it was.
    fn objected(&mut self, ticket: Ticket, now: Instant) -> bool {
        let had_places = self.limit > self.min;
        self.objects_after = (now.saturating_duration_since(ticket.left) * 2).min(STEP_AT_LATEST);
        let ceiling = self.ceiling.map(|ceiling| ceiling.at);
        let Some(telling) = self.objections.objected(ticket.round, ticket.out, ceiling) else { return false };
        let to = match telling {
            Telling::TooMany { at, by, fewest, is_new } => {
                let to = at.saturating_sub(by);
                if is_new {
                    self.cut(at, to, fewest, now);
                } else if let Some(ceiling) = &mut self.ceiling {
                    ceiling.at = ceiling.at.min(fewest.max(to + 1));
                }
                to
            }
            Telling::TryHalf { at } => {
                self.cut(at, at, at, now);
                at / 2
            }
            Telling::Unrelated => {
                self.ceiling = None;
                self.limit = self.limit.max(self.known_good(now));
                return false;
            }
        };
        self.limit = to.clamp(self.min, self.max).min(self.limit);
        had_places
    }

    /// Begins a cut from `from` to `to`, where `fewest` in flight were objected to.
    fn cut(&mut self, from: usize, to: usize, fewest: usize, now: Instant) {
        self.is_new = false;
        self.epoch += 1;
        (self.credit, self.step) = (0, 1);
        self.ceiling = Some(Ceiling::found(self.ceiling, (from, to, fewest), self.word, now));
        self.payoff.forget(self.limit.max(self.reached));
    }

    /// Returns the limit up to which nothing needs to be tried: below the ceiling, else where it has been.
    fn known_good(&self, now: Instant) -> usize {
        let known = self.ceiling.map_or(self.reached, Ceiling::below).max(self.before);
        known.min(self.most(now))
    }

    fn lower(&mut self, limit: usize) {
        self.limit = limit.clamp(self.min, self.max).min(self.limit);
        self.epoch += 1;
        (self.credit, self.step) = (0, 1);
    }

    /// Returns how far the limit may grow at `now`.
    fn most(&self, now: Instant) -> usize {
        let ceiling = self.ceiling.filter(|ceiling| ceiling.holds(now));
        let up_to_ceiling = ceiling.map_or(usize::MAX, Ceiling::below);
        // Up to where it was before an outage growing has paid once.
        let worth = self.payoff.most().max(self.before);
        self.max.min(up_to_ceiling).min(worth)
    }

    /// Returns the most calls that are known to have been out with a call, itself included. Those that
    /// leave first in a burst leave alone, and are not alone for long.
    fn busiest(&self, ticket: Ticket) -> usize {
        ticket.out.max(self.counted())
    }
}

fn is_idle(out: usize, limit: usize) -> bool {
    out * 10 < limit * IDLE
}

#[cfg(test)]
mod refusals;
#[cfg(test)]
mod simulated;
#[cfg(test)]
mod tests;
