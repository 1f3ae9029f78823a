//! All the limits of one account together: requests, and tokens of each direction.
//!
//! A call takes from all of them or from none. Tokens are reserved by estimate before the call and
//! settled after it, on success and on failure.

use std::num::NonZeroU64;
use std::time::Duration;

use tokio::time::Instant;

use super::Rate;

/// Limits per minute; `None` is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RateLimits {
    /// Calls.
    pub requests: Option<NonZeroU64>,
    /// Tokens of both directions.
    pub tokens: Option<NonZeroU64>,
    /// Tokens that the model reads.
    pub input_tokens: Option<NonZeroU64>,
    /// Tokens that the model writes.
    pub output_tokens: Option<NonZeroU64>,
}

/// What a call takes, or took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Need {
    /// Tokens that the model reads.
    pub input: u64,
    /// Tokens that the model writes.
    pub output: u64,
}

/// A call that is larger than a whole minute's limit: it would wait for ever.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("needs about {needed} {what}, and the limit is {limit} per minute")]
pub struct NeverFits {
    what: &'static str,
    needed: u64,
    limit: u64,
}

/// The limits of one account.
#[derive(Debug)]
pub struct Limits {
    requests: Option<Rate>,
    tokens: Option<Rate>,
    input: Option<Rate>,
    output: Option<Rate>,
    held: Instant,
}

impl Limits {
    /// Makes limits of which none starts full.
    pub fn new(limits: &RateLimits, now: Instant) -> Self {
        let rate = |per_minute: Option<NonZeroU64>| per_minute.map(|per_minute| Rate::new(per_minute, now));
        Self {
            requests: rate(limits.requests),
            tokens: rate(limits.tokens),
            input: rate(limits.input_tokens),
            output: rate(limits.output_tokens),
            held: now,
        }
    }

    /// Says whether a call of this size can ever leave.
    ///
    /// # Errors
    /// The limit that it exceeds by itself.
    pub fn fits(&self, need: Need) -> Result<(), NeverFits> {
        let total = need.input.saturating_add(need.output);
        let limits = [
            ("tokens", &self.tokens, total),
            ("input tokens", &self.input, need.input),
            ("output tokens", &self.output, need.output),
        ];
        for (what, rate, needed) in limits {
            if let Some(limit) = rate.as_ref().map(Rate::per_minute).filter(|limit| needed > *limit) {
                return Err(NeverFits { what, needed, limit });
            }
        }
        Ok(())
    }

    /// Takes one call and its tokens.
    ///
    /// # Errors
    /// The instant from which it is worth asking again; nothing was taken then.
    pub fn take(&self, need: Need, now: Instant) -> Result<(), Instant> {
        if now < self.held {
            return Err(self.held);
        }
        let wanted = self.wanted(need);
        for (index, (rate, cells)) in wanted.iter().enumerate() {
            if let Err(ready) = rate.map_or(Ok(()), |rate| rate.take(*cells, now)) {
                for (rate, cells) in
                    wanted[..index].iter().filter_map(|(rate, cells)| Some((rate.as_ref()?, cells)))
                {
                    rate.give_back(*cells);
                }
                return Err(ready);
            }
        }
        Ok(())
    }

    /// Puts right what a call had reserved, once it is known what it used.
    pub fn settle(&self, reserved: Need, used: Need, now: Instant) {
        // The request itself stays taken; only tokens were an estimate.
        let pairs = self.wanted(reserved).into_iter().zip(self.wanted(used)).skip(1);
        for ((rate, reserved), (_, used)) in pairs {
            if let Some(rate) = rate {
                rate.give_back(reserved.saturating_sub(used));
                rate.owe(used.saturating_sub(reserved), now);
            }
        }
    }

    /// Gives everything back, the request too: the call never left.
    pub fn give_back(&self, need: Need) {
        for (rate, cells) in self.wanted(need) {
            if let Some(rate) = rate {
                rate.give_back(cells);
            }
        }
    }

    /// Lets nothing through before `until`; a shorter hold never shortens a longer one.
    pub fn hold(&mut self, until: Instant) {
        self.held = self.held.max(until);
        if let Some(requests) = &self.requests {
            requests.hold(until);
        }
    }

    /// Believes the provider that no more requests than these are left.
    pub fn cap_requests(&self, remaining: u64, now: Instant) {
        if let Some(requests) = &self.requests {
            requests.cap(remaining, now);
        }
    }

    /// Returns until when a call waits that comes after `ahead` others of about the same need.
    pub fn expected(&self, ahead: u64, need: Need, now: Instant) -> Instant {
        let all = ahead.saturating_add(1);
        let expected = self
            .wanted(need)
            .into_iter()
            .filter_map(|(rate, cells)| rate.map(|rate| rate.expected(cells.saturating_mul(all), now)));
        expected.fold(self.held.max(now), Instant::max)
    }

    /// Returns how many calls of this need the limits let through in a second; `None` is no limit.
    pub fn calls_per_second(&self, need: Need) -> Option<f64> {
        let rates = self.wanted(need).into_iter().filter_map(|(rate, cells)| {
            rate.map(|rate| rate.per_minute() as f64 / 60.0 / cells.max(1) as f64)
        });
        rates.reduce(f64::min)
    }

    /// Returns whether tokens of both directions share one limit.
    pub fn counts_both_directions(&self) -> bool {
        self.tokens.is_some()
    }

    /// Returns how long everything is held back at the provider's wish.
    pub fn held_for(&self, now: Instant) -> Duration {
        self.held.saturating_duration_since(now)
    }

    fn wanted(&self, need: Need) -> [(Option<&Rate>, u64); 4] {
        [
            (self.requests.as_ref(), 1),
            (self.tokens.as_ref(), need.input.saturating_add(need.output)),
            (self.input.as_ref(), need.input),
            (self.output.as_ref(), need.output),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(requests: u64, tokens: u64) -> (Limits, Instant) {
        let now = Instant::now();
        let limits = RateLimits {
            requests: NonZeroU64::new(requests),
            tokens: NonZeroU64::new(tokens),
            ..RateLimits::default()
        };
        (Limits::new(&limits, now), now)
    }

    #[test]
    fn a_request_is_given_back_when_its_tokens_do_not_fit() {
        let (limits, start) = limits(60, 6_000);
        let now = start + Duration::from_secs(1);
        assert_eq!(limits.take(Need { input: 300, output: 0 }, now), Ok(()));
        // The next second has its request but owes 200 tokens.
        let next = now + Duration::from_secs(1);
        assert!(limits.take(Need { input: 100, output: 0 }, next).is_err());
        assert_eq!(limits.take(Need::default(), next), Ok(()));
    }

    #[test]
    fn what_was_reserved_too_much_comes_back() {
        let (limits, start) = limits(60_000, 6_000);
        let now = start + Duration::from_secs(1);
        let reserved = Need { input: 100, output: 900 };
        assert_eq!(limits.take(reserved, now), Ok(()));
        limits.settle(reserved, Need { input: 100, output: 0 }, now);
        let ready = limits.take(Need { input: 100, output: 0 }, now).unwrap_err();
        assert_eq!((ready - now).as_millis(), 1_000);
    }

    #[test]
    fn a_call_larger_than_a_minute_is_named() {
        let (limits, _) = limits(60, 6_000);
        let error = limits.fits(Need { input: 7_000, output: 0 }).unwrap_err();
        assert_eq!(error.to_string(), "needs about 7000 tokens, and the limit is 6000 per minute");
    }

    #[test]
    fn a_hold_counts_without_any_limit_too() {
        let (mut limits, now) = (Limits::new(&RateLimits::default(), Instant::now()), Instant::now());
        limits.hold(now + Duration::from_secs(3));
        assert_eq!(limits.take(Need::default(), now), Err(now + Duration::from_secs(3)));
        assert_eq!(limits.expected(0, Need::default(), now), now + Duration::from_secs(3));
    }
}
