//! One limit's bucket: it refills steadily, holds a minute's or a second's worth, and may owe.
//!
//! It goes below zero when a call was larger than it, and when answers grow longer than what it held. It
//! never reads a clock.

use std::num::NonZeroU64;
use std::time::Duration;

use tokio::time::Instant;

use super::{Cost, Gauge, Quantity, Refusal};
use crate::simulator::Limits;
use crate::simulator::settings::BucketSize;

/// What a bucket is made by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size {
    pub(super) quantity: Quantity,
    per_minute: u64,
    /// What somebody else takes out of it.
    others_per_minute: u64,
    pub(super) capacity: f64,
}

/// Returns the sizes that `limits` ask for, in the order of [`Standing`](super::Standing).
pub(super) fn sizes(limits: &Limits) -> [Option<Size>; 4] {
    let share = match limits.bucket {
        BucketSize::Minute => 1.0,
        BucketSize::Second => 1.0 / 60.0,
    };
    let size = |quantity, limit: Option<NonZeroU64>, others_per_minute| {
        limit.map(|limit| {
            // A bucket that holds less than one could never be drawn from.
            let capacity = (limit.get() as f64 * share).max(1.0);
            Size { quantity, per_minute: limit.get(), others_per_minute, capacity }
        })
    };
    [
        size(Quantity::Requests, limits.requests_per_minute, limits.others_per_minute),
        size(Quantity::Tokens, limits.tokens_per_minute, 0),
        size(Quantity::InputTokens, limits.input_tokens_per_minute, 0),
        size(Quantity::OutputTokens, limits.output_tokens_per_minute, 0),
    ]
}

/// A bucket.
#[derive(Debug)]
pub(super) struct Bucket {
    pub(super) size: Size,
    pub(super) level: f64,
    at: Instant,
}

/// Rounding must not refuse the call that exactly empties a bucket.
const ROUNDING: f64 = 1e-6;

impl Bucket {
    /// Makes a bucket, `full` or empty.
    pub(super) fn new(size: Size, full: bool, now: Instant) -> Self {
        Self { size, level: if full { size.capacity } else { 0.0 }, at: now }
    }

    /// Takes another size on. What it holds stays, as far as there is room.
    pub(super) fn resized(mut self, size: Size, now: Instant) -> Self {
        self.refill(now);
        Self { level: self.level.min(size.capacity), size, at: self.at }
    }

    fn per_second(&self) -> f64 {
        self.size.per_minute as f64 / 60.0
    }

    /// Adds what the time gave since the last call, less what others took.
    pub(super) fn refill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        let gained = passed * (self.per_second() - self.size.others_per_minute as f64 / 60.0);
        // Others are held to the limit, too: they empty the bucket and make no debt.
        let least = self.level.min(0.0);
        self.level = (self.level + gained).clamp(least, self.size.capacity);
        self.at = self.at.max(now);
    }

    /// Returns why a call is refused, if it is.
    pub(super) fn refusal(&self, cost: Cost) -> Option<Refusal> {
        let requested = cost.of(self.size.quantity);
        // A call larger than a second's bucket needs a full one and leaves a debt; otherwise a long answer
        // could never be had from a vendor that counts by the second. One that costs nothing yet, since its
        // answer is not written, finds no room in an empty bucket either.
        let needed = (requested.max(1) as f64).min(self.size.capacity);
        let impossible = requested > self.size.per_minute;
        if !impossible && self.level + ROUNDING >= needed {
            return None;
        }
        let limit = self.size.per_minute;
        let used = (self.size.capacity - self.level).max(0.0).ceil() as u64;
        let wait = (!impossible).then(|| self.time_for(needed - self.level));
        Some(Refusal { quantity: self.size.quantity, limit, used: used.min(limit), requested, wait })
    }

    /// Returns how it stands.
    pub(super) fn gauge(&self) -> Gauge {
        Gauge {
            quantity: self.size.quantity,
            limit: self.size.per_minute,
            remaining: (self.level + ROUNDING).max(0.0) as u64,
            reset: self.time_for(self.size.capacity - self.level),
        }
    }

    // As a vendor tells it, who does not foresee what others will take.
    fn time_for(&self, amount: f64) -> Duration {
        Duration::try_from_secs_f64(amount.max(0.0) / self.per_second()).unwrap_or(Duration::MAX)
    }
}
