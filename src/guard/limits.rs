//! All the limits of one account, or of one model, together: requests, and tokens of each direction.
//!
//! A call takes from all of them or from none. Tokens are reserved by estimate before the call and
//! settled after it, on success and on failure. Pure.

use std::num::NonZeroU64;
use std::time::Duration;

use tokio::time::Instant;

use super::burst::BurstSettings;
use super::daily::Daily;
use super::limit::Limit;
use super::rate_estimate::{RateEstimate, Sent};
use super::standing::Standing;
use super::told::Mark;
use crate::types::Limited;

/// Limits as they are configured; `None` is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RateLimits {
    /// Calls a second.
    pub requests_per_second: Option<NonZeroU64>,
    /// Calls a minute.
    pub requests: Option<NonZeroU64>,
    /// Calls in any 24 hours.
    pub requests_per_day: Option<NonZeroU64>,
    /// Tokens of both directions a minute.
    pub tokens: Option<NonZeroU64>,
    /// Tokens a minute that the model reads.
    pub input_tokens: Option<NonZeroU64>,
    /// Tokens a minute that the model writes.
    pub output_tokens: Option<NonZeroU64>,
    /// How much of each may go at once.
    pub burst: BurstSettings,
}

impl RateLimits {
    /// Returns the smaller one of each, with the burst of `self`.
    #[must_use]
    pub fn narrowed(&self, other: &Self) -> Self {
        let smaller = |one: Option<NonZeroU64>, other| one.into_iter().chain(other).min();
        Self {
            requests_per_second: smaller(self.requests_per_second, other.requests_per_second),
            requests: smaller(self.requests, other.requests),
            requests_per_day: smaller(self.requests_per_day, other.requests_per_day),
            tokens: smaller(self.tokens, other.tokens),
            input_tokens: smaller(self.input_tokens, other.input_tokens),
            output_tokens: smaller(self.output_tokens, other.output_tokens),
            burst: self.burst,
        }
    }
}

/// What a call takes, or took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Need {
    /// Tokens that the model reads.
    pub input: u64,
    /// Tokens that the model writes.
    pub output: u64,
}

/// What the headers of one response said about the limits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Standings {
    /// Requests.
    pub requests: Option<Standing>,
    /// Requests of a second, or of a few.
    pub requests_per_second: Option<Standing>,
    /// Tokens of both directions.
    pub tokens: Option<Standing>,
    /// Tokens that the model reads.
    pub input_tokens: Option<Standing>,
    /// Tokens that the model writes.
    pub output_tokens: Option<Standing>,
}

impl Standings {
    /// Leaves out limits smaller than a call that the provider has just taken, of `input` tokens at least:
    /// they are none, and calls of this size would be refused by name ever after.
    #[must_use]
    pub fn borne_out_by(self, input: u64) -> Self {
        let borne_out = |standing: &Standing| standing.limit.is_none_or(|limit| limit >= input);
        let (tokens, input_tokens) = (self.tokens.filter(borne_out), self.input_tokens.filter(borne_out));
        Self { tokens, input_tokens, ..self }
    }
}

/// Whether what the headers say is about these limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hearing {
    /// It is.
    All,
    /// Vendors tell of the model that answered; of an account with several models only what has the
    /// account's own numbers is about the account.
    OwnNumbers,
}

/// A call that has left, as the limits remember it.
#[derive(Debug, Clone, Copy)]
pub struct Left {
    at: Instant,
    usual: Need,
    /// For each limit: how much had been taken, and whether it was in use.
    marks: [(Mark, bool); 5],
    sent: Sent,
}

/// A call that is larger than a whole minute's limit: it would wait for ever.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("needs about {needed} {what}, and the limit is {limit} per minute")]
pub struct NeverFits {
    what: &'static str,
    needed: u64,
    limit: u64,
}

/// The limits of one account or model.
#[derive(Debug)]
pub struct Limits {
    requests: Limit,
    by_second: Limit,
    tokens: Limit,
    input: Limit,
    output: Limit,
    daily: Option<Daily>,
    /// What refusals have shown of limits that are not known.
    estimate: RateEstimate,
    held: Instant,
}

impl Limits {
    /// Makes limits of which none starts with more than one second's worth.
    pub fn new(limits: &RateLimits, now: Instant) -> Self {
        let limit = |per_minute: Option<NonZeroU64>| {
            Limit::new(per_minute.map(|limit| limit.get() as f64), limits.burst, now)
        };
        // A second's limit has no more at once than a second brings.
        let by_second = limits.requests_per_second.map(|limit| limit.get() as f64 * 60.0);
        Self {
            requests: limit(limits.requests),
            by_second: Limit::new(by_second, BurstSettings::Auto, now),
            tokens: limit(limits.tokens),
            input: limit(limits.input_tokens),
            output: limit(limits.output_tokens),
            daily: limits.requests_per_day.map(|limit| Daily::new(limit.get())),
            estimate: RateEstimate::new(now),
            held: now,
        }
    }

    /// Says whether a call of this size can ever leave.
    ///
    /// # Errors
    /// The limit that it exceeds by itself.
    pub fn fits(&self, need: Need) -> Result<(), NeverFits> {
        let limits = [
            ("tokens", &self.tokens, need.input.saturating_add(need.output)),
            ("input tokens", &self.input, need.input),
            ("output tokens", &self.output, need.output),
        ];
        for (what, limit, needed) in limits {
            if let Some(limit) = limit.nominal().filter(|limit| needed as f64 > *limit) {
                return Err(NeverFits { what, needed, limit: limit as u64 });
            }
        }
        Ok(())
    }

    /// Takes one call and its tokens: `need` is reserved, `usual` is what such a call takes on average.
    ///
    /// # Errors
    /// The instant from which it is worth asking again; nothing was taken then.
    pub fn take(&mut self, need: Need, usual: Need, now: Instant) -> Result<Left, Instant> {
        if now < self.held {
            return Err(self.held);
        }
        let cells = cells(need);
        for (index, cells) in cells.into_iter().enumerate() {
            if let Err(ready) = self.each()[index].take(cells, now) {
                self.give_back_first(index, need);
                return Err(ready);
            }
        }
        if let Some(Err(ready)) = self.daily.as_mut().map(|daily| daily.take(now)) {
            self.give_back_first(5, need);
            return Err(ready);
        }
        let mut marks = [(Mark::default(), false); 5];
        for ((limit, usual), mark) in self.each().into_iter().zip(self::cells(usual)).zip(&mut marks) {
            *mark = limit.left(usual, now);
        }
        let sent = self.estimate.sent(usual.input.saturating_add(usual.output), now);
        Ok(Left { at: now, usual, marks, sent })
    }

    /// Puts right what a call had reserved, once it is known what it used.
    pub fn settle(&self, reserved: Need, used: Need, now: Instant) {
        let pairs = cells(reserved).into_iter().zip(cells(used));
        for (limit, (reserved, used)) in self.all().into_iter().zip(pairs) {
            limit.give_back(reserved.saturating_sub(used));
            limit.owe(used.saturating_sub(reserved), now);
        }
    }

    /// Gives everything back, the request too: the call never left.
    pub fn stayed(&mut self, need: Need, left: &Left) {
        self.give_back_first(5, need);
        for (limit, usual) in self.each().into_iter().zip(cells(left.usual)) {
            limit.stayed(usual);
        }
        self.estimate.stayed(&left.sent);
        if let Some(daily) = &mut self.daily {
            daily.give_back();
        }
    }

    /// Lets nothing through before `until`; a shorter hold never shortens a longer one.
    pub fn hold(&mut self, until: Instant) {
        self.held = self.held.max(until);
        for limit in self.each() {
            limit.hold(until);
        }
    }

    /// Believes what came back with a call.
    pub fn hear(&mut self, said: &Standings, left: &Left, hearing: Hearing, now: Instant) {
        let by_second = said.requests_per_second;
        let said = [said.requests, by_second, said.tokens, said.input_tokens, said.output_tokens];
        for ((limit, said), (mark, _)) in self.each().into_iter().zip(said).zip(left.marks) {
            let own = |standing: &Standing| {
                hearing == Hearing::All
                    || limit
                        .nominal()
                        .is_some_and(|own| standing.limit_per_minute().is_some_and(|told| told == own))
            };
            if let Some(standing) = said.filter(own) {
                limit.hear(&standing, (mark, left.at), now);
            }
        }
        self.follow_estimate(now);
    }

    /// Notes that the provider took a call.
    pub fn went_through(&mut self, left: &Left, now: Instant) {
        let marks = left.marks.into_iter().zip(cells(left.usual));
        for (limit, ((_, in_use), usual)) in self.each().into_iter().zip(marks) {
            limit.went_through(usual, in_use, now);
        }
        let is_paced = self.estimate.per_minute().is_some_and(|(limited, _)| left.marks[index(limited)].1);
        self.estimate.accepted(&left.sent, is_paced);
        self.follow_estimate(now);
    }

    /// Learns from a refusal for a limit that is not known: those that are known were not in use. `limited` is
    /// what the refusal says it counts, and `named` the wait that it asks for. Returns how long to wait, from the end of that wait
    /// where it names one, if that is known.
    pub fn refused_unexplained(
        &mut self,
        left: &Left,
        limited: Option<Limited>,
        named: Option<Duration>,
        now: Instant,
    ) -> Option<Duration> {
        let explains = |(limit, (_, in_use)): (&Limit, (Mark, bool))| limit.explains(in_use);
        let is_known = |limit: &Limit| limit.nominal().is_some();
        let is_explained = self.all().into_iter().zip(left.marks).any(explains);
        let is_of_tokens = limited == Some(Limited::Tokens);
        let has_requests = is_known(&self.requests) || is_known(&self.by_second);
        if is_explained || has_requests && !is_of_tokens || is_known(&self.tokens) && is_of_tokens {
            return None;
        }
        let pause = self.estimate.refused(&left.sent, limited, named, now);
        self.follow_estimate(now);
        pause
    }

    /// Lets through what the estimate allows.
    fn follow_estimate(&mut self, now: Instant) {
        let is_named = self.estimate.per_minute().is_some_and(|(limited, _)| match limited {
            Limited::Requests => self.requests.nominal().or(self.by_second.nominal()).is_some(),
            Limited::Tokens => self.tokens.nominal().is_some(),
        });
        if is_named {
            self.estimate.forget();
        }
        let estimated = self.estimate.per_minute();
        let of = |limited| estimated.filter(|(is, _)| *is == limited).map(|(_, per_minute)| per_minute);
        self.requests.estimate(of(Limited::Requests), now);
        self.tokens.estimate(of(Limited::Tokens), now);
    }

    /// Learns that the provider refused a call for its limits, and wants none before `until`.
    pub fn refused(&mut self, left: &Left, until: Instant, now: Instant) {
        let marks = left.marks.into_iter().zip(cells(left.usual));
        for (limit, ((_, in_use), usual)) in self.each().into_iter().zip(marks) {
            limit.refused(usual, in_use, left.at, until, now);
        }
        self.held = self.held.max(until);
    }

    /// Returns until when a call waits that comes after `ahead` others of about the same need.
    pub fn expected(&self, ahead: u64, need: Need, now: Instant) -> Instant {
        let all = ahead.saturating_add(1);
        let paced = self.all().into_iter().zip(cells(need));
        let is_certain = |(limit, _): &(&Limit, u64)| limit.nominal().is_some() || !self.estimate.is_guess();
        let paced = paced.filter(is_certain);
        let paced = paced.map(|(limit, cells)| limit.expected(cells.saturating_mul(all), now));
        let daily = self.daily.as_ref().map(|daily| daily.expected(ahead, now));
        paced.chain(daily).fold(self.held.max(now), Instant::max)
    }

    /// Returns the limit of a day that is used up, and when there is room again; `None` where there is some.
    pub fn day_is_spent(&self, now: Instant) -> Option<(u64, Instant)> {
        self.daily.as_ref().and_then(|daily| daily.spent_until(now))
    }

    /// Returns how many calls of this need the limits let through in a second; `None` is no limit.
    pub fn calls_per_second(&self, need: Need) -> Option<f64> {
        let rates = self.all().into_iter().zip(cells(need));
        rates
            .filter_map(|(limit, cells)| Some(limit.per_minute()? / 60.0 / cells.max(1) as f64))
            .reduce(f64::min)
    }

    /// Returns how many calls of this need could leave at once before long; infinite without a limit.
    pub fn calls_at_once(&self, need: Need, now: Instant) -> f64 {
        let limits = self.all().into_iter().zip(cells(need));
        limits.map(|(limit, cells)| limit.at_once(now) / cells.max(1) as f64).fold(f64::MAX, f64::min)
    }

    /// Returns what each limit counts and how many a minute may have, as far as that is known from ourselves
    /// or the provider: requests by the minute and by the second, tokens, input tokens, output tokens.
    pub fn named(&self) -> [(&'static str, Option<f64>); 5] {
        let names = ["requests", "requests", "tokens", "input tokens", "output tokens"];
        let mut named = names.map(|name| (name, None));
        for ((_, limit), known) in named.iter_mut().zip(self.all()) {
            *limit = known.assumed();
        }
        named
    }

    /// Returns the limits of tokens of both directions, and of those that are written, that are known.
    pub fn known_tokens(&self) -> (Option<f64>, Option<f64>) {
        (self.tokens.nominal(), self.output.nominal())
    }

    /// Returns whether any limit is known, by the configuration or the provider's word.
    pub fn is_known(&self) -> bool {
        self.all().into_iter().any(|limit| limit.nominal().is_some())
    }

    /// Returns whether calls are held to a pace: a limit is known, or estimated.
    pub fn is_paced(&self) -> bool {
        self.is_known() || self.estimate.per_minute().is_some()
    }

    /// Returns how long everything is held back at the provider's wish.
    pub fn held_for(&self, now: Instant) -> Duration {
        self.held.saturating_duration_since(now)
    }

    /// Returns whether calls of a day are limited.
    pub fn counts_day(&self) -> bool {
        self.daily.is_some()
    }

    /// Takes over calls that left before: how long ago, and how many.
    pub fn restore_day(&mut self, calls: impl Iterator<Item = (Duration, u64)>, now: Instant) {
        if let Some(daily) = &mut self.daily {
            daily.restore(calls, now);
        }
    }

    fn give_back_first(&self, count: usize, need: Need) {
        for (limit, cells) in self.all().into_iter().zip(cells(need)).take(count) {
            limit.give_back(cells);
        }
    }

    fn all(&self) -> [&Limit; 5] {
        [&self.requests, &self.by_second, &self.tokens, &self.input, &self.output]
    }

    fn each(&mut self) -> [&mut Limit; 5] {
        [&mut self.requests, &mut self.by_second, &mut self.tokens, &mut self.input, &mut self.output]
    }
}

/// Returns which limit the estimate is of.
fn index(limited: Limited) -> usize {
    match limited {
        Limited::Requests => 0,
        Limited::Tokens => 2,
    }
}

/// Returns what a call of this need takes of each limit.
fn cells(need: Need) -> [u64; 5] {
    [1, 1, need.input.saturating_add(need.output), need.input, need.output]
}

#[cfg(test)]
mod tests;
