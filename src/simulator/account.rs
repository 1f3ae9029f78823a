//! Rate limits of one account: admission of calls, and charging of output tokens.
//!
//! Admission is all or nothing: a rejected call consumes nothing. Pure: the caller passes `now`.

mod admission;
mod bucket;

use tokio::time::Instant;

use bucket::{Bucket, bucket_specs};

pub(super) use admission::{Cost, LimitKind, LimitStatus, LimitStatuses, Rejection};

use super::AccountLimits;

/// The token buckets of one account.
#[derive(Debug)]
pub(super) struct Account {
    buckets: [Option<Bucket>; 4],
}

impl Account {
    /// Creates an unused account.
    pub(super) fn new(limits: &AccountLimits, now: Instant) -> Self {
        Self {
            buckets: bucket_specs(limits)
                .map(|size| size.map(|size| Bucket::new(size, limits.starts_full, now))),
        }
    }

    /// Replaces the limits. A bucket keeps its level, up to its new capacity.
    pub(super) fn set_limits(&mut self, limits: &AccountLimits, now: Instant) {
        for (bucket, size) in self.buckets.iter_mut().zip(bucket_specs(limits)) {
            *bucket = match (bucket.take(), size) {
                (_, None) => None,
                (None, Some(size)) => Some(Bucket::new(size, limits.starts_full, now)),
                (Some(old), Some(size)) => Some(old.with_spec(size, now)),
            };
        }
    }

    /// Admits a call, or returns the limit that rejects it. `cost` is the cost known on arrival.
    pub(super) fn admit(&mut self, now: Instant, cost: Cost) -> Result<(), Rejection> {
        for bucket in self.buckets.iter_mut().flatten() {
            bucket.refill(now);
        }
        if let Some(rejection) = self.buckets.iter().flatten().filter_map(|bucket| bucket.check(cost)).next()
        {
            return Err(rejection);
        }
        self.deduct(cost);
        Ok(())
    }

    /// Charges output tokens of an admitted call. They cannot be rejected, so the level of a bucket may become
    /// negative.
    pub(super) fn charge_output(&mut self, now: Instant, output: u64) {
        let cost = Cost { requests: 0, input: 0, uncounted_input: 0, output };
        for bucket in self.buckets.iter_mut().flatten() {
            bucket.refill(now);
        }
        self.deduct(cost);
    }

    fn deduct(&mut self, cost: Cost) {
        for bucket in self.buckets.iter_mut().flatten() {
            bucket.level -= cost.amount_of(bucket.spec.limit_kind) as f64;
        }
    }

    /// Returns the status of the limits at the last admission.
    pub(super) fn limit_statuses(&self) -> LimitStatuses {
        self.buckets.each_ref().map(|bucket| bucket.as_ref().map(Bucket::status))
    }

    /// Returns whether all buckets are full, as in an unused account.
    pub(super) fn is_idle(&mut self, now: Instant) -> bool {
        self.buckets.iter_mut().flatten().all(|bucket| {
            bucket.refill(now);
            bucket.level >= bucket.spec.capacity
        })
    }
}

#[cfg(test)]
mod tests;
