//! The ceiling: the number of attempts in flight at which the provider signals overload, and the time for
//! which that number is trusted.
//!
//! A ceiling is trusted for a fraction of its age. After an incident of a few seconds the limit therefore
//! grows again within seconds, and a ceiling that persists is exceeded less and less often.

use std::time::Duration;

use tokio::time::Instant;

/// A ceiling is trusted for its age divided by this, within `MIN_HOLD` and `MAX_HOLD`, and for at least
/// twice the provider's time to headers, of which at most `MAX_HOLD_FOR_HEADERS` counts.
const AGE_DIVISOR: u32 = 4;
const MIN_HOLD: Duration = Duration::from_secs(1);
const MAX_HOLD: Duration = Duration::from_secs(240);
const MAX_HOLD_FOR_HEADERS: Duration = Duration::from_secs(8);

/// A younger ceiling may belong to an outage that began before the breaker opened.
const MAX_AGE_OF_OUTAGE_CEILING: Duration = Duration::from_secs(60);

/// A limit has passed a ceiling when it is a quarter and at least this many above it; it is near the
/// ceiling from a fifth below it.
const TOLERANCE: usize = 5;

/// The fewest attempts in flight that caused overload, and how long this is trusted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ceiling {
    /// Fewest attempts in flight that the provider rejected as overload.
    pub(super) at: usize,
    since: Instant,
    until: Instant,
}

/// A reduction of the limit because of overload.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reduction {
    pub(super) from: usize,
    pub(super) to: usize,
    /// The smallest number in flight at which an attempt was rejected.
    pub(super) fewest: usize,
}

impl Ceiling {
    /// Returns the ceiling after a reduction. `known` is the previous ceiling; `time_to_headers` is the
    /// provider's mean time to response headers.
    pub(super) fn after_reduction(
        known: Option<Self>,
        reduction: Reduction,
        time_to_headers: Option<Duration>,
        now: Instant,
    ) -> Self {
        let Reduction { from, to, fewest } = reduction;
        let (at, since) = match known.filter(|ceiling| ceiling.is_near(from)) {
            // The limit was below a trusted ceiling, and this was not rejected before: it is a different
            // ceiling.
            Some(ceiling) if from < ceiling.at && ceiling.holds(now) => (to + 1, now),
            Some(ceiling) => (ceiling.at.min(fewest), ceiling.since),
            None => (fewest, now),
        };
        let min_hold = MIN_HOLD.max((time_to_headers.unwrap_or_default() * 2).min(MAX_HOLD_FOR_HEADERS));
        let hold = now.saturating_duration_since(since) / AGE_DIVISOR;
        Self { at, since, until: now + hold.clamp(min_hold, MAX_HOLD) }
    }

    /// Returns the largest limit below the ceiling.
    pub(super) fn below(self) -> usize {
        self.at.saturating_sub(1)
    }

    /// Returns whether the ceiling is still trusted.
    pub(super) fn holds(self, now: Instant) -> bool {
        now < self.until
    }

    /// Returns whether the ceiling is young enough to belong to an outage.
    pub(super) fn is_recent(self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) < MAX_AGE_OF_OUTAGE_CEILING
    }

    /// Returns whether this limit shows that the ceiling no longer exists.
    pub(super) fn is_passed_by(self, limit: usize) -> bool {
        limit * (TOLERANCE - 1) > self.at * TOLERANCE && limit >= self.at + TOLERANCE
    }

    fn is_near(self, limit: usize) -> bool {
        limit * TOLERANCE >= self.at * (TOLERANCE - 1) && !self.is_passed_by(limit)
    }

    /// Returns how much longer the ceiling is trusted.
    #[cfg(test)]
    pub(super) fn held_for(self, now: Instant) -> Duration {
        self.until.saturating_duration_since(now)
    }
}
