//! Enforces an account's limits: buckets that refill steadily and hold a minute's or a second's worth.
//!
//! Admission is all or nothing: a refused call costs nothing. An account never reads a clock; its owner
//! passes `now`.

use std::num::NonZeroU64;
use std::time::Duration;

use tokio::time::Instant;

use super::Limits;
use super::settings::BucketSize;

/// What a limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Quantity {
    Requests,
    Tokens,
    InputTokens,
    OutputTokens,
}

/// What one call takes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cost {
    pub(super) input: u64,
    pub(super) output: u64,
}

impl Cost {
    fn of(self, quantity: Quantity) -> u64 {
        match quantity {
            Quantity::Requests => 1,
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
                (Some(mut old), Some(size)) => {
                    old.refill(now);
                    Some(Bucket { level: old.level.min(size.capacity), size, at: now })
                }
            };
        }
    }

    /// Admits a call, or says which limit refuses it.
    pub(super) fn admit(&mut self, now: Instant, cost: Cost) -> Result<(), Refusal> {
        for bucket in self.buckets.iter_mut().flatten() {
            bucket.refill(now);
        }
        if let Some(refusal) = self.buckets.iter().flatten().filter_map(|bucket| bucket.refusal(cost)).next()
        {
            return Err(refusal);
        }
        for bucket in self.buckets.iter_mut().flatten() {
            bucket.level -= cost.of(bucket.size.quantity) as f64;
        }
        Ok(())
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

#[derive(Debug, Clone, Copy)]
struct Size {
    quantity: Quantity,
    per_minute: u64,
    capacity: f64,
}

fn sizes(limits: &Limits) -> [Option<Size>; 4] {
    let share = match limits.bucket {
        BucketSize::Minute => 1.0,
        BucketSize::Second => 1.0 / 60.0,
    };
    let size = |quantity, limit: Option<NonZeroU64>| {
        limit.map(|limit| {
            // A bucket that holds less than one could never be drawn from.
            let capacity = (limit.get() as f64 * share).max(1.0);
            Size { quantity, per_minute: limit.get(), capacity }
        })
    };
    [
        size(Quantity::Requests, limits.requests_per_minute),
        size(Quantity::Tokens, limits.tokens_per_minute),
        size(Quantity::InputTokens, limits.input_tokens_per_minute),
        size(Quantity::OutputTokens, limits.output_tokens_per_minute),
    ]
}

#[derive(Debug)]
struct Bucket {
    size: Size,
    /// Below zero after a call that was larger than the bucket.
    level: f64,
    at: Instant,
}

/// Rounding must not refuse the call that exactly empties a bucket.
const ROUNDING: f64 = 1e-6;

impl Bucket {
    fn new(size: Size, full: bool, now: Instant) -> Self {
        Self { size, level: if full { size.capacity } else { 0.0 }, at: now }
    }

    fn per_second(&self) -> f64 {
        self.size.per_minute as f64 / 60.0
    }

    fn refill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.level = (self.level + passed * self.per_second()).min(self.size.capacity);
        self.at = self.at.max(now);
    }

    fn refusal(&self, cost: Cost) -> Option<Refusal> {
        let requested = cost.of(self.size.quantity);
        // A call larger than a second's bucket needs a full one and leaves a debt; otherwise a long answer
        // could never be had from a vendor that counts by the second.
        let needed = (requested as f64).min(self.size.capacity);
        let impossible = requested > self.size.per_minute;
        if !impossible && self.level + ROUNDING >= needed {
            return None;
        }
        let limit = self.size.per_minute;
        let used = (self.size.capacity - self.level).max(0.0).ceil() as u64;
        let wait = (!impossible).then(|| self.time_for(needed - self.level));
        Some(Refusal { quantity: self.size.quantity, limit, used: used.min(limit), requested, wait })
    }

    fn gauge(&self) -> Gauge {
        Gauge {
            quantity: self.size.quantity,
            limit: self.size.per_minute,
            remaining: (self.level + ROUNDING).max(0.0) as u64,
            reset: self.time_for(self.size.capacity - self.level),
        }
    }

    fn time_for(&self, amount: f64) -> Duration {
        Duration::try_from_secs_f64(amount.max(0.0) / self.per_second()).unwrap_or(Duration::MAX)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn limits(requests: u64, bucket: BucketSize) -> Limits {
        Limits { requests_per_minute: NonZeroU64::new(requests), bucket, ..Limits::default() }
    }

    const CALL: Cost = Cost { input: 10, output: 20 };

    #[test]
    fn a_minutes_bucket_admits_a_minute_at_once_and_then_one_by_one() {
        let start = Instant::now();
        let mut account = Account::new(&limits(60, BucketSize::Minute), start);
        assert_eq!((0..100).filter(|_| account.admit(start, CALL).is_ok()).count(), 60);
        let refusal = account.admit(start, CALL).unwrap_err();
        assert_eq!((refusal.limit, refusal.used, refusal.requested), (60, 60, 1));
        assert_eq!(refusal.wait, Some(Duration::from_secs(1)));
        assert!(account.admit(start + Duration::from_millis(999), CALL).is_err());
        assert!(account.admit(start + Duration::from_secs(1), CALL).is_ok());
        assert!(account.admit(start + Duration::from_secs(1), CALL).is_err());
    }

    #[test]
    fn a_seconds_bucket_admits_only_a_second_at_once() {
        let start = Instant::now();
        let mut account = Account::new(&limits(1_200, BucketSize::Second), start);
        assert_eq!((0..100).filter(|_| account.admit(start, CALL).is_ok()).count(), 20);
        let half = start + Duration::from_millis(500);
        assert_eq!((0..100).filter(|_| account.admit(half, CALL).is_ok()).count(), 10);
        // A long pause gives no more than the bucket holds.
        let later = start + Duration::from_secs(3_600);
        assert_eq!((0..100).filter(|_| account.admit(later, CALL).is_ok()).count(), 20);
    }

    #[test]
    fn a_refused_call_takes_nothing_from_any_bucket() {
        let start = Instant::now();
        let limits = Limits {
            requests_per_minute: NonZeroU64::new(10),
            output_tokens_per_minute: NonZeroU64::new(30),
            ..Limits::default()
        };
        let mut account = Account::new(&limits, start);
        assert!(account.admit(start, CALL).is_ok());
        assert_eq!(account.admit(start, CALL).unwrap_err().quantity, Quantity::OutputTokens);
        let [requests, tokens, input, output] = account.standing();
        assert_eq!(requests.unwrap().remaining, 9);
        assert_eq!(output.unwrap().remaining, 10);
        assert_eq!((tokens, input), (None, None));
    }

    #[test]
    fn a_call_above_a_seconds_worth_waits_for_a_full_bucket_and_leaves_a_debt() {
        let start = Instant::now();
        let limits = Limits {
            tokens_per_minute: NonZeroU64::new(600),
            bucket: BucketSize::Second,
            ..Limits::default()
        };
        let mut account = Account::new(&limits, start);
        assert!(account.admit(start, CALL).is_ok());
        // 30 tokens out of a bucket of 10: 20 of debt, 10 for the next full bucket.
        assert_eq!(account.admit(start, CALL).unwrap_err().wait, Some(Duration::from_secs(3)));
        assert!(account.admit(start + Duration::from_secs(3), CALL).is_ok());
        let never = Cost { input: 600, output: 1 };
        assert_eq!(account.admit(start + Duration::from_secs(60), never).unwrap_err().wait, None);
    }

    #[test]
    fn a_lower_limit_takes_hold_at_once() {
        let start = Instant::now();
        let mut account = Account::new(&limits(60, BucketSize::Minute), start);
        account.change(&limits(20, BucketSize::Minute), start);
        assert_eq!((0..100).filter(|_| account.admit(start, CALL).is_ok()).count(), 20);
        account.change(&Limits::default(), start);
        assert!((0..100).all(|_| account.admit(start, CALL).is_ok()));
    }

    #[test]
    fn an_empty_start_admits_nothing_at_first() {
        let start = Instant::now();
        let empty = Limits { starts_full: false, ..limits(60, BucketSize::Minute) };
        let mut account = Account::new(&empty, start);
        assert!(account.admit(start, CALL).is_err());
        assert!(account.admit(start + Duration::from_secs(1), CALL).is_ok());
    }

    proptest! {
        #[test]
        fn no_window_ever_admits_more_than_the_bucket_and_the_time_allow(
            limit in 1u64..5_000,
            by_second in any::<bool>(),
            pauses in prop::collection::vec(0u64..200, 1..300),
        ) {
            let bucket = if by_second { BucketSize::Second } else { BucketSize::Minute };
            let start = Instant::now();
            let mut account = Account::new(&limits(limit, bucket), start);
            let capacity = (limit as f64 * if by_second { 1.0 / 60.0 } else { 1.0 }).max(1.0);
            let (mut now, mut admitted) = (start, 0.0);
            for pause in pauses {
                now += Duration::from_millis(pause);
                match account.admit(now, CALL) {
                    Ok(()) => admitted += 1.0,
                    Err(refusal) => prop_assert!(refusal.wait.unwrap() > Duration::ZERO),
                }
                let allowed = capacity + (now - start).as_secs_f64() * limit as f64 / 60.0;
                prop_assert!(admitted <= allowed + 0.001, "{} of {}", admitted, allowed);
            }
        }
    }
}
