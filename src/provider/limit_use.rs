//! How much of its limits an account, or a model of it, has used lately: for people to see.
//!
//! Holds nothing back and lets nothing through: the guards do. Pure.

use serde::Serialize;
use tokio::time::Instant;

use crate::guard::{Limits, Meter, Need};
use crate::types::ModelName;

/// The limit of which most is used.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LimitUse {
    /// Whose it is; `None` is the whole account's.
    pub model: Option<ModelName>,
    /// What it counts: `requests`, `tokens`, `input tokens` or `output tokens`.
    pub what: &'static str,
    /// How many a minute it allows, by the configuration or the provider's word.
    pub per_minute: f64,
    /// How much of that left over the last ten seconds, as a share; above 1 in a burst, which what a minute
    /// had left pays for.
    pub share: f64,
}

/// What left lately.
#[derive(Debug)]
pub(super) struct Lately {
    requests: Meter,
    input: Meter,
    output: Meter,
}

impl Lately {
    pub(super) fn new(now: Instant) -> Self {
        Self { requests: Meter::new(now), input: Meter::new(now), output: Meter::new(now) }
    }

    /// Counts a call that leaves, and the tokens that such a call usually takes.
    pub(super) fn left(&mut self, usual: Need, now: Instant) {
        self.requests.add(1, now);
        self.input.add(usual.input, now);
        self.output.add(usual.output, now);
    }

    /// Returns of which of these limits most is used; `None` where there is none.
    pub(super) fn tightest(&self, limits: &Limits, now: Instant) -> Option<LimitUse> {
        let [requests, input, output] =
            [&self.requests, &self.input, &self.output].map(|meter| meter.per_second(now) * 60.0);
        // In the order of the limits.
        let used = [requests, requests, input + output, input, output];
        let uses = limits.named().into_iter().zip(used).filter_map(|((what, limit), used)| {
            let per_minute = limit.filter(|limit| *limit > 0.0)?;
            Some(LimitUse { model: None, what, per_minute, share: used / per_minute })
        });
        uses.reduce(tighter)
    }
}

/// Returns the one of which more is used, the first where both are as much.
pub(super) fn tighter(one: LimitUse, other: LimitUse) -> LimitUse {
    if other.share > one.share { other } else { one }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;
    use std::time::Duration;

    use super::*;
    use crate::guard::RateLimits;

    #[test]
    fn the_limit_that_binds_is_shown_by_its_name() {
        let start = Instant::now();
        let limits = RateLimits {
            requests: NonZeroU64::new(600),
            output_tokens: NonZeroU64::new(6_000),
            ..RateLimits::default()
        };
        let (limits, mut lately) = (Limits::new(&limits, start), Lately::new(start));
        for second in 0..10 {
            lately.left(Need { input: 500, output: 80 }, start + Duration::from_secs(second));
        }
        let tightest = lately.tightest(&limits, start + Duration::from_secs(10)).unwrap();
        assert_eq!((tightest.what, tightest.per_minute), ("output tokens", 6_000.0));
        assert!((tightest.share - 0.8).abs() < 1e-9, "{tightest:?}");
        assert_eq!(lately.tightest(&Limits::new(&RateLimits::default(), start), start), None);
    }
}
