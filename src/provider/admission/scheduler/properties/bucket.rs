//! Reference model of a provider's limits: each is a token bucket of one burst.

use std::time::Duration;

use tokio::time::Instant;

use super::strategies::to_f64;
use crate::guard::{BurstSettings, TokenCost};
use crate::provider::Limits;

/// One limit.
#[derive(Debug)]
struct Bucket {
    per_second: f64,
    /// Capacity.
    burst: f64,
    /// Level at which a larger call is admitted; the next calls then wait for the rest.
    min_level: f64,
    level: f64,
    at: Instant,
    is_exact: bool,
}

/// The limits of an account, or of a model.
#[derive(Debug)]
pub(super) struct Buckets([Option<Bucket>; 5]);

impl Buckets {
    /// `learns`: whether headers may advertise a burst of more than one second.
    pub(super) fn new(limits: &Limits, learns: bool, now: Instant) -> Self {
        let bucket = |per_minute: Option<f64>, burst: BurstSettings| {
            let per_minute = per_minute?;
            let per_second = per_minute / 60.0;
            let min_level = match burst {
                BurstSettings::Auto => (per_second * 0.9).floor().max(1.0),
                BurstSettings::Fixed(time) => (per_second * time.as_secs_f64()).floor().max(1.0),
            };
            // At most nine tenths of a minute, whatever the headers advertise, and one for the next refusal.
            let grows = learns && burst == BurstSettings::Auto;
            let burst = if grows { min_level.max(per_minute * 0.9) + 1.0 } else { min_level };
            Some(Bucket { per_second, burst, min_level, level: burst, at: now, is_exact: !learns })
        };
        let by_second = to_f64(limits.requests_per_second).map(|limit| limit * 60.0);
        Self([
            bucket(to_f64(limits.requests_per_minute), limits.burst),
            bucket(by_second, BurstSettings::Auto),
            bucket(to_f64(limits.tokens_per_minute), limits.burst),
            bucket(to_f64(limits.input_tokens_per_minute), limits.burst),
            bucket(to_f64(limits.output_tokens_per_minute), limits.burst),
        ])
    }

    /// Takes the cost of a sent call, and panics if it exceeds the level. A call larger than a burst needs a
    /// whole burst, and the next calls wait for the rest.
    pub(super) fn take(&mut self, cost: TokenCost, now: Instant) {
        for (number, (bucket, permits)) in self.each().zip(permits(cost)).enumerate() {
            let Some(bucket) = bucket else { continue };
            bucket.advance_to(now);
            let required = permits.min(bucket.min_level);
            let tolerance = 1e-3 + bucket.burst * 1e-6;
            assert!(bucket.level + tolerance >= required, "limit {number}: {permits} of {bucket:?}");
            bucket.level -= permits;
        }
    }

    /// Replaces the reserved cost of a call by the used one.
    pub(super) fn reconcile(&mut self, reserved: TokenCost, used: TokenCost, now: Instant) {
        for (bucket, (reserved, used)) in self.each().zip(permits(reserved).into_iter().zip(permits(used))) {
            let Some(bucket) = bucket else { continue };
            bucket.advance_to(now);
            let before = bucket.level;
            bucket.level = (before + reserved - used).min(bucket.burst);
            // Debts of more than a minute are dropped. The model does not know the rate after refusals have
            // reduced it.
            let min_debt = if bucket.is_exact { -bucket.per_second * 60.0 } else { 0.0 };
            bucket.level = bucket.level.max(before.min(min_debt));
        }
    }

    /// Returns the time until a call of this cost could be sent.
    pub(super) fn expected(&mut self, cost: TokenCost, now: Instant) -> Duration {
        let waits = self.each().zip(permits(cost)).filter_map(|(bucket, permits)| {
            let bucket = bucket.as_mut()?;
            bucket.advance_to(now);
            Some((permits - bucket.level) / bucket.per_second)
        });
        Duration::from_secs_f64(waits.fold(0.0, f64::max))
    }

    /// Returns the largest cost that fits into every burst.
    pub(super) fn largest(&self) -> TokenCost {
        let burst = |number: usize| self.0[number].as_ref().map_or(f64::MAX, |bucket| bucket.burst);
        let [all, input, output] = [2, 3, 4].map(burst);
        TokenCost {
            input: (all / 2.0).min(input).min(1e6) as u64,
            output: (all / 2.0).min(output).min(1e6) as u64,
        }
    }

    fn each(&mut self) -> impl Iterator<Item = &mut Option<Bucket>> {
        self.0.iter_mut()
    }
}

impl Bucket {
    fn advance_to(&mut self, now: Instant) {
        let passed = (now - self.at).as_secs_f64();
        self.level = (self.level + passed * self.per_second).min(self.burst);
        self.at = now;
    }
}

fn permits(cost: TokenCost) -> [f64; 5] {
    [1, 1, cost.input.saturating_add(cost.output), cost.input, cost.output].map(|permits| permits as f64)
}
