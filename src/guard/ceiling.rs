//! Where a provider objected to so many attempts in flight, and for how long that is believed.
//!
//! A ceiling holds for a part of the time for which it has been there: what an incident of seconds took is tried again
//! within seconds, and a ceiling that lasts ever more rarely.

use std::time::Duration;

use tokio::time::Instant;

/// For how long a ceiling holds: this part of its age, within these bounds; and for two first words of the provider,
/// if they come within this time.
const HOLDS_PART: u32 = 4;
const HOLDS_AT_LEAST: Duration = Duration::from_secs(1);
const HOLDS_AT_MOST: Duration = Duration::from_secs(240);
const TWO_WORDS_AT_MOST: Duration = Duration::from_secs(8);

/// A ceiling that has been there for less than this may be that of an outage which began before its breaker opened.
const YOUNG: Duration = Duration::from_secs(60);

/// A limit has passed a ceiling where it is a quarter and this many beyond it, and is near it from a fifth below.
const PAST: usize = 5;

/// Where the provider objected.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ceiling {
    /// The fewest in flight that it objected to.
    pub(super) at: usize,
    since: Instant,
    until: Instant,
}

impl Ceiling {
    /// Makes the ceiling of a cut from `from` to `to`, where `fewest` in flight were objected to; `known` is the one
    /// there was, and `word` how long the provider's first word takes.
    pub(super) fn found(
        known: Option<Self>,
        (from, to, fewest): (usize, usize, usize),
        word: Option<Duration>,
        now: Instant,
    ) -> Self {
        let (at, since) = match known.filter(|ceiling| ceiling.is_near(from)) {
            // Below a ceiling that holds nothing was objected to before: this is another one.
            Some(ceiling) if from < ceiling.at && ceiling.holds(now) => (to + 1, now),
            Some(ceiling) => (ceiling.at.min(fewest), ceiling.since),
            None => (fewest, now),
        };
        let least = HOLDS_AT_LEAST.max((word.unwrap_or_default() * 2).min(TWO_WORDS_AT_MOST));
        let holds = now.saturating_duration_since(since) / HOLDS_PART;
        Self { at, since, until: now + holds.clamp(least, HOLDS_AT_MOST) }
    }

    /// Returns the largest limit that does not touch it.
    pub(super) fn below(self) -> usize {
        self.at.saturating_sub(1)
    }

    /// Returns whether it is believed.
    pub(super) fn holds(self, now: Instant) -> bool {
        now < self.until
    }

    /// Returns whether it has not been there for long.
    pub(super) fn is_young(self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) < YOUNG
    }

    /// Returns whether so many in flight show that there is none any more.
    pub(super) fn is_passed_by(self, limit: usize) -> bool {
        limit * (PAST - 1) > self.at * PAST && limit >= self.at + PAST
    }

    fn is_near(self, limit: usize) -> bool {
        limit * PAST >= self.at * (PAST - 1) && !self.is_passed_by(limit)
    }

    /// Returns for how long it is believed.
    #[cfg(test)]
    pub(super) fn held_for(self, now: Instant) -> Duration {
        self.until.saturating_duration_since(now)
    }
}
