//! What a provider would count that took its limits at their word: each a bucket of one burst.

use std::time::Duration;

use tokio::time::Instant;

use super::strategies::wide;
use crate::guard::{BurstSettings, Need};
use crate::provider::Limits;

/// One limit.
#[derive(Debug)]
struct Bucket {
    per_second: f64,
    /// What may have gathered.
    burst: f64,
    /// What is there for a call that is larger: the next ones then wait.
    least: f64,
    level: f64,
    at: Instant,
    is_exact: bool,
}

/// The limits of an account, or of a model.
#[derive(Debug)]
pub(super) struct Buckets([Option<Bucket>; 5]);

impl Buckets {
    /// `learns` is whether headers may say that there is more than one second's worth.
    pub(super) fn new(limits: &Limits, learns: bool, now: Instant) -> Self {
        let bucket = |per_minute: Option<f64>, burst: BurstSettings| {
            let per_minute = per_minute?;
            let per_second = per_minute / 60.0;
            let least = match burst {
                BurstSettings::Auto => (per_second * 0.9).floor().max(1.0),
                BurstSettings::Fixed(time) => (per_second * time.as_secs_f64()).floor().max(1.0),
            };
            // Never more than nine tenths of a minute, whatever headers say; and one for the next incident.
            let grows = learns && burst == BurstSettings::Auto;
            let burst = if grows { least.max(per_minute * 0.9) + 1.0 } else { least };
            Some(Bucket { per_second, burst, least, level: burst, at: now, is_exact: !learns })
        };
        let by_second = wide(limits.requests_per_second).map(|limit| limit * 60.0);
        Self([
            bucket(wide(limits.requests_per_minute), limits.burst),
            bucket(by_second, BurstSettings::Auto),
            bucket(wide(limits.tokens_per_minute), limits.burst),
            bucket(wide(limits.input_tokens_per_minute), limits.burst),
            bucket(wide(limits.output_tokens_per_minute), limits.burst),
        ])
    }

    /// Counts a call that leaves, and panics where there was no room for it. One that is larger than a
    /// burst needs a whole one, and the next ones wait for the rest.
    pub(super) fn takes(&mut self, need: Need, now: Instant) {
        for (number, (bucket, cells)) in self.each().zip(cells(need)).enumerate() {
            let Some(bucket) = bucket else { continue };
            bucket.passes_to(now);
            let at_once = cells.min(bucket.least);
            let slack = 1e-3 + bucket.burst * 1e-6;
            assert!(bucket.level + slack >= at_once, "limit {number}: {cells} of {bucket:?}");
            bucket.level -= cells;
        }
    }

    /// Puts right what a call took, once it is known what it used.
    pub(super) fn settles(&mut self, reserved: Need, used: Need, now: Instant) {
        for (bucket, (reserved, used)) in self.each().zip(cells(reserved).into_iter().zip(cells(used))) {
            let Some(bucket) = bucket else { continue };
            bucket.passes_to(now);
            let before = bucket.level;
            bucket.level = (before + reserved - used).min(bucket.burst);
            // Nobody remembers for longer than a minute; how much that is where refusals have slowed it down
            // is not known here.
            let forgiven = if bucket.is_exact { -bucket.per_second * 60.0 } else { 0.0 };
            bucket.level = bucket.level.max(before.min(forgiven));
        }
    }

    /// Returns when a call of this need could leave.
    pub(super) fn expected(&mut self, need: Need, now: Instant) -> Duration {
        let waits = self.each().zip(cells(need)).filter_map(|(bucket, cells)| {
            let bucket = bucket.as_mut()?;
            bucket.passes_to(now);
            Some((cells - bucket.level) / bucket.per_second)
        });
        Duration::from_secs_f64(waits.fold(0.0, f64::max))
    }

    /// Returns the largest need that every burst has room for.
    pub(super) fn largest(&self) -> Need {
        let burst = |number: usize| self.0[number].as_ref().map_or(f64::MAX, |bucket| bucket.burst);
        let [all, input, output] = [2, 3, 4].map(burst);
        Need {
            input: (all / 2.0).min(input).min(1e6) as u64,
            output: (all / 2.0).min(output).min(1e6) as u64,
        }
    }

    fn each(&mut self) -> impl Iterator<Item = &mut Option<Bucket>> {
        self.0.iter_mut()
    }
}

impl Bucket {
    fn passes_to(&mut self, now: Instant) {
        let passed = (now - self.at).as_secs_f64();
        (self.level, self.at) = ((self.level + passed * self.per_second).min(self.burst), now);
    }
}

fn cells(need: Need) -> [f64; 5] {
    [1, 1, need.input.saturating_add(need.output), need.input, need.output].map(|cells| cells as f64)
}
