//! Enforces an account's limits: what a call must find to be admitted, and what its answer takes later.
//!
//! Admission is all or nothing: a refused call costs nothing. An account never reads a clock; its owner
//! passes `now`.

mod bucket;

use std::time::Duration;

use tokio::time::Instant;

use bucket::{Bucket, sizes};

use super::Limits;

/// What a limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Quantity {
    Requests,
    Tokens,
    InputTokens,
    OutputTokens,
}

/// What one call takes at one time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cost {
    requests: u64,
    pub(super) input: u64,
    pub(super) output: u64,
}

impl Cost {
    /// Makes what a call takes when it comes.
    pub(super) fn call(input: u64, output: u64) -> Self {
        Self { requests: 1, input, output }
    }

    fn of(self, quantity: Quantity) -> u64 {
        match quantity {
            Quantity::Requests => self.requests,
            Quantity::Tokens => self.input.saturating_add(self.output),
            Quantity::InputTokens => self.input,
            Quantity::OutputTokens => self.output,
        }
    }
}

/// How one limit stands, for the headers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Gauge {
    pub(super) quantity: Quantity,
    /// Per minute, whatever the bucket holds.
    pub(super) limit: u64,
    pub(super) remaining: u64,
    /// Until the bucket is full.
    pub(super) reset: Duration,
}

/// Why a call was refused.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Refusal {
    pub(super) quantity: Quantity,
    /// Per minute.
    pub(super) limit: u64,
    pub(super) used: u64,
    pub(super) requested: u64,
    /// Until this call would be admitted; `None` when it never can be.
    pub(super) wait: Option<Duration>,
}

/// How all limits of an account stand.
pub(super) type Standing = [Option<Gauge>; 4];

/// One account's buckets.
#[derive(Debug)]
pub(super) struct Account {
    buckets: [Option<Bucket>; 4],
}

impl Account {
    /// Makes an account that nobody has used yet.
    pub(super) fn new(limits: &Limits, now: Instant) -> Self {
        Self {
            buckets: sizes(limits).map(|size| size.map(|size| Bucket::new(size, limits.starts_full, now))),
        }
    }

    /// Takes other limits on. What a bucket holds stays, as far as the new one has room.
    pub(super) fn change(&mut self, limits: &Limits, now: Instant) {
        for (bucket, size) in self.buckets.iter_mut().zip(sizes(limits)) {
            *bucket = match (bucket.take(), size) {
                (_, None) => None,
                (None, Some(size)) => Some(Bucket::new(size, limits.starts_full, now)),
                (Some(old), Some(size)) => Some(old.resized(size, now)),
            };
        }
    }

    /// Admits a call, or says which limit refuses it. `cost` is what is known of it by then.
    pub(super) fn admit(&mut self, now: Instant, cost: Cost) -> Result<(), Refusal> {
        for bucket in self.buckets.iter_mut().flatten() {
            bucket.refill(now);
        }
        if let Some(refusal) = self.buckets.iter().flatten().filter_map(|bucket| bucket.refusal(cost)).next()
        {
            return Err(refusal);
        }
        self.take(cost);
        Ok(())
    }

    /// Takes tokens that an admitted call has written since. There is no refusing them, so a bucket may owe.
    pub(super) fn write(&mut self, now: Instant, output: u64) {
        let written = Cost { requests: 0, input: 0, output };
        for bucket in self.buckets.iter_mut().flatten() {
            bucket.refill(now);
        }
        self.take(written);
    }

    fn take(&mut self, cost: Cost) {
        for bucket in self.buckets.iter_mut().flatten() {
            bucket.level -= cost.of(bucket.size.quantity) as f64;
        }
    }

    /// Returns how the limits stand since the last admission.
    pub(super) fn standing(&self) -> Standing {
        self.buckets.each_ref().map(|bucket| bucket.as_ref().map(Bucket::gauge))
    }

    /// Says whether every bucket is full, as if nobody had ever used it.
    pub(super) fn is_idle(&mut self, now: Instant) -> bool {
        self.buckets.iter_mut().flatten().all(|bucket| {
            bucket.refill(now);
            bucket.level >= bucket.size.capacity
        })
    }
}

#[cfg(test)]
mod tests;
