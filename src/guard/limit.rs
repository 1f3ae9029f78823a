//! One limit of an account: how many requests, or tokens, a minute may bring.
//!
//! Four things make the pace: what the configuration allows, what the provider's headers say, how large a
//! burst has proved to go through, and how much of the rate is really granted. Each is a page of its own;
//! here they are put together. Pure.

use std::time::Duration;

use tokio::time::Instant;

use super::Rate;
use super::burst::{Burst, BurstSettings, Room};
use super::share::Share;
use super::standing::Standing;
use super::told::{Mark, Told};

/// How often the pace follows a share that grows by itself.
const FOLLOW: Duration = Duration::from_millis(250);

/// One limit.
#[derive(Debug)]
pub(super) struct Limit {
    /// `None` as long as nobody has named a limit: then nothing is held back.
    rate: Option<Rate>,
    configured: Option<f64>,
    /// How many a minute are let through at most because more have been refused, whatever the limit is.
    estimated: Option<f64>,
    told: Told,
    burst: Burst,
    share: Share,
    /// When a burst was last refused: calls that left before that say nothing of the pace.
    burst_ended: Option<Instant>,
    followed: Instant,
}

impl Limit {
    /// Makes a limit of so many a minute; `None` is learned from the provider's headers, if they say.
    pub(super) fn new(per_minute: Option<f64>, burst: BurstSettings, now: Instant) -> Self {
        let mut limit = Self {
            rate: None,
            configured: per_minute,
            estimated: None,
            told: Told::default(),
            burst: Burst::new(burst),
            share: Share::new(now),
            burst_ended: None,
            followed: now,
        };
        limit.follow(now);
        limit
    }

    /// Returns how many a minute are let through now; `None` without a limit.
    pub(super) fn per_minute(&self) -> Option<f64> {
        self.rate.as_ref().map(Rate::per_minute)
    }

    /// Returns how many may go now; below zero, how many are owed.
    #[cfg(test)]
    pub(super) fn level(&self, now: Instant) -> f64 {
        self.rate.as_ref().map_or(f64::MAX, |rate| rate.level(now))
    }

    /// Returns how many may go at once after a pause.
    #[cfg(test)]
    pub(super) fn burst(&self) -> u64 {
        self.rate.as_ref().map_or(u64::MAX, Rate::burst)
    }

    /// Returns the limit that counts, whatever is granted of it: the smaller one of ours and theirs.
    pub(super) fn nominal(&self) -> Option<f64> {
        let told = self.told.per_minute().map(|limit| limit as f64);
        self.configured.into_iter().chain(told).reduce(f64::min)
    }

    /// Lets no more than so many a minute through; `None` is what the limit allows.
    pub(super) fn estimate(&mut self, per_minute: Option<f64>, now: Instant) {
        let is_new = self.estimated.is_some() != per_minute.is_some();
        self.estimated = per_minute;
        if is_new {
            self.follow(now);
        }
    }

    /// Returns the limit that counts, or as much as is let through where it is not known.
    pub(super) fn assumed(&self) -> Option<f64> {
        self.nominal().or(self.estimated)
    }

    /// Returns whether a burst beyond one second's worth may have been refused, or the limit is in use.
    pub(super) fn explains(&self, in_use: bool) -> bool {
        self.nominal().is_some() && (in_use || self.burst.is_grown())
    }

    /// Takes `cells`.
    ///
    /// # Errors
    /// The instant from which it is worth asking again; nothing was taken then.
    pub(super) fn take(&mut self, cells: u64, now: Instant) -> Result<(), Instant> {
        if now.saturating_duration_since(self.followed) >= FOLLOW {
            self.follow(now);
        }
        self.rate.as_ref().map_or(Ok(()), |rate| rate.take(cells, now))
    }

    /// Notes that a call leaves that usually takes so many. Returns its mark, and whether the limit was in
    /// use then: only that says anything about it.
    pub(super) fn left(&mut self, usual: u64, now: Instant) -> (Mark, bool) {
        let in_use = self.rate.as_ref().is_some_and(|rate| rate.level(now) < rate.burst() as f64 / 2.0);
        self.share.left(usual);
        (self.told.took(usual), in_use)
    }

    /// Takes back a call that did not leave after all.
    pub(super) fn stayed(&mut self, usual: u64) {
        self.share.stayed(usual);
        self.told.took_back(usual);
    }

    /// Gives back what was taken and not used.
    pub(super) fn give_back(&self, cells: u64) {
        if let Some(rate) = &self.rate {
            rate.give_back(cells);
        }
    }

    /// Takes what was used without having been taken.
    pub(super) fn owe(&self, cells: u64, now: Instant) {
        if let Some(rate) = &self.rate {
            rate.owe(cells, now);
        }
    }

    /// Believes what a response to the call of this mark said that left at that instant.
    pub(super) fn hear(&mut self, standing: &Standing, (mark, left): (Mark, Instant), now: Instant) {
        let nominal = self.nominal();
        self.told.hear(standing, mark, left);
        if nominal != self.nominal() {
            // What was refused was refused for the limit that we now know.
            self.share.forget(now);
        }
        self.follow(now);
        let Some(rate) = &self.rate else { return };
        if let Some(left) = self.told.left(rate.per_minute(), now) {
            rate.cap(left, now);
        }
    }

    /// Notes that the provider took a call of `cells` that left while the limit was in use.
    pub(super) fn went_through(&mut self, cells: u64, in_use: bool, now: Instant) {
        self.share.went_through(cells, now);
        let Some(rate) = &self.rate else { return };
        let Some(left) = self.told.left(rate.per_minute(), now) else { return };
        let room = Room { level: rate.level(now), left, most_left: self.told.most() };
        // What the provider has left is ours only where its limit is the one that counts.
        let is_theirs = self.told.per_minute().is_some_and(|told| self.nominal() == Some(told as f64));
        let Some(nominal) = self.nominal().filter(|_| in_use && is_theirs) else { return };
        if self.burst.went_through(cells, nominal, room, now) {
            self.follow(now);
        }
    }

    /// Learns that the provider refused a call of `cells` that left at `left`, and wants none before `until`. Only a
    /// limit that was in use can have been the reason.
    pub(super) fn refused(&mut self, cells: u64, in_use: bool, left: Instant, until: Instant, now: Instant) {
        let (Some(nominal), Some(_)) = (self.nominal(), &self.rate) else { return self.hold(until) };
        if self.burst.refused(nominal, now) {
            self.burst_ended = Some(now);
            self.follow(now);
            // The burst was ours to try; the provider names the time from which it is forgiven.
            if let Some(rate) = &self.rate {
                rate.begin_again(until);
            }
        } else if in_use && self.burst_ended.is_none_or(|ended| left > ended) {
            self.share.refused(cells, nominal / 60.0, left, now);
            self.follow(now);
        }
        self.hold(until);
    }

    /// Lets nothing through before `until`.
    pub(super) fn hold(&self, until: Instant) {
        if let Some(rate) = &self.rate {
            rate.hold(until);
        }
    }

    /// Returns when `cells` more than those already promised could leave.
    pub(super) fn expected(&self, cells: u64, now: Instant) -> Instant {
        self.rate.as_ref().map_or(now, |rate| rate.expected(cells, now))
    }

    /// Returns how many cells could go at once before long: what is there, or what the provider has left
    /// for a burst to grow into.
    pub(super) fn at_once(&self, now: Instant) -> f64 {
        let Some(rate) = &self.rate else { return f64::MAX };
        let left = self.told.left(rate.per_minute(), now).unwrap_or_default();
        rate.level(now).max(left).max(0.0)
    }

    /// Brings the pace in line with what is known.
    fn follow(&mut self, now: Instant) {
        self.followed = now;
        let granted = self.nominal().map(|nominal| nominal * self.share.value(now));
        let Some(per_minute) = granted.into_iter().chain(self.estimated).reduce(f64::min) else {
            self.rate = None;
            return;
        };
        let of_limit = self.nominal().unwrap_or(per_minute);
        let burst = self.burst.size(self.estimated.map_or(of_limit, |estimated| estimated.min(of_limit)));
        match &mut self.rate {
            Some(rate) if rate.per_minute() == per_minute && rate.burst() == burst => {}
            Some(rate) => rate.set(per_minute, burst, now),
            None => self.rate = Some(Rate::new(per_minute, burst, now)),
        }
    }
}
