//! Token bucket of one limit. It refills at a constant rate, and its capacity is the limit of a minute or a
//! second.
//!
//! The level becomes negative after a call larger than the capacity, or after more output tokens than the level.
//! Pure: the caller passes `now`.

use std::num::NonZeroU64;
use std::time::Duration;

use tokio::time::Instant;

use super::admission::{Cost, LimitKind, LimitStatus, Rejection};
use crate::simulator::AccountLimits;
use crate::simulator::settings::BucketSize;

/// Parameters of a bucket.
#[derive(Debug, Clone, Copy)]
pub(super) struct BucketSpec {
    pub(super) limit_kind: LimitKind,
    per_minute: u64,
    /// Consumption by other clients of the account.
    background_per_minute: u64,
    pub(super) capacity: f64,
}

/// Returns the bucket parameters for `limits`, in the order of [`LimitStatuses`](super::admission::LimitStatuses).
pub(super) fn bucket_specs(limits: &AccountLimits) -> [Option<BucketSpec>; 4] {
    let minutes = match limits.bucket {
        BucketSize::Minute => 1.0,
        BucketSize::Second => 1.0 / 60.0,
    };
    let spec = |limit_kind, limit: Option<NonZeroU64>, background_per_minute| {
        limit.map(|limit| {
            // A bucket with a capacity below 1 would never admit a call.
            let capacity = (limit.get() as f64 * minutes).max(1.0);
            BucketSpec { limit_kind, per_minute: limit.get(), background_per_minute, capacity }
        })
    };
    [
        spec(LimitKind::Requests, limits.requests_per_minute, limits.background_requests_per_minute),
        spec(LimitKind::Tokens, limits.tokens_per_minute, 0),
        spec(LimitKind::InputTokens, limits.input_tokens_per_minute, 0),
        spec(LimitKind::OutputTokens, limits.output_tokens_per_minute, 0),
    ]
}

/// A token bucket.
#[derive(Debug)]
pub(super) struct Bucket {
    pub(super) spec: BucketSpec,
    pub(super) level: f64,
    last_refill: Instant,
}

/// Tolerance that prevents a rounding error from rejecting the call that exactly empties a bucket.
const ROUNDING_TOLERANCE: f64 = 1e-6;

impl Bucket {
    /// Creates a bucket, `full` or empty.
    pub(super) fn new(spec: BucketSpec, full: bool, now: Instant) -> Self {
        Self { spec, level: if full { spec.capacity } else { 0.0 }, last_refill: now }
    }

    /// Replaces the parameters. The level is kept, up to the new capacity.
    pub(super) fn with_spec(mut self, spec: BucketSpec, now: Instant) -> Self {
        self.refill(now);
        Self { level: self.level.min(spec.capacity), spec, last_refill: self.last_refill }
    }

    fn refill_per_second(&self) -> f64 {
        self.spec.per_minute as f64 / 60.0
    }

    /// Adds the refill since the last call, minus the consumption by other clients.
    pub(super) fn refill(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.last_refill).as_secs_f64();
        let refilled = elapsed * (self.refill_per_second() - self.spec.background_per_minute as f64 / 60.0);
        // Other clients are limited as well: they can empty the bucket, but not make its level negative.
        let lowest = self.level.min(0.0);
        self.level = (self.level + refilled).clamp(lowest, self.spec.capacity);
        self.last_refill = self.last_refill.max(now);
    }

    /// Returns why a call is rejected; `None` if it is admitted.
    pub(super) fn check(&self, cost: Cost) -> Option<Rejection> {
        let requested = cost.amount_of(self.spec.limit_kind);
        // A call larger than the capacity is admitted at a full bucket and leaves a negative level. Otherwise a
        // bucket of one second would never admit a long answer. A call without a cost on arrival is rejected at an
        // empty bucket.
        let needed = (requested.max(1) as f64).min(self.spec.capacity);
        let exceeds_limit = requested > self.spec.per_minute;
        if !exceeds_limit && self.level + ROUNDING_TOLERANCE >= needed {
            return None;
        }
        let limit = self.spec.per_minute;
        let used = (self.spec.capacity - self.level).max(0.0).ceil() as u64;
        let wait = (!exceeds_limit).then(|| self.time_to_refill(needed - self.level));
        Some(Rejection { limit_kind: self.spec.limit_kind, limit, used: used.min(limit), requested, wait })
    }

    /// Returns the status for the headers.
    pub(super) fn status(&self) -> LimitStatus {
        LimitStatus {
            limit_kind: self.spec.limit_kind,
            limit: self.spec.per_minute,
            remaining: (self.level + ROUNDING_TOLERANCE).max(0.0) as u64,
            reset: self.time_to_refill(self.spec.capacity - self.level),
        }
    }

    // As at a vendor, the time does not include future consumption by other clients.
    fn time_to_refill(&self, amount: f64) -> Duration {
        Duration::try_from_secs_f64(amount.max(0.0) / self.refill_per_second()).unwrap_or(Duration::MAX)
    }
}
