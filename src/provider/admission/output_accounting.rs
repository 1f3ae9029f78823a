//! Detects whether the provider of a model counts `max_tokens` when a call arrives, rather than the output it
//! generates.
//!
//! OpenAI and some servers with Anthropic's format do. Calls within a token limit by real output are then
//! refused although our own count has room. That alone proves nothing: others may use the account. But if the
//! recently accepted calls add up to the limit with their `max_tokens`, and to less than half of it by our
//! count, this accounting explains the refusal. These counts enforce no limit. Pure.

use std::ops::RangeInclusive;

use tokio::time::Instant;

use crate::guard::{SecondSlots, TokenLimits};
use crate::types::RateLimitResource;

use super::reservation::Reservation;

/// Lookback windows in seconds: a minute, for a provider whose bucket holds a minute's worth; a few seconds,
/// for one whose bucket holds no more than a second's.
const LONG_WINDOW_SECS: u64 = 60;
const SHORT_WINDOW_SECS: u64 = 10;
const MIN_SHORT_WINDOW_SECS: u64 = 2;

/// The calls with their `max_tokens` must be within this share of the limit: below, there was room; above, the
/// provider accepted what it never would. A bucket holds a minute's worth in addition to what the minute adds.
const LIMIT_SHARES: RangeInclusive<f64> = 0.9..=2.1;
const SHORT_WINDOW_LIMIT_SHARES: RangeInclusive<f64> = 0.9..=1.5;

/// The maximum share of the limit by our own count.
const MAX_OWN_SHARE: f64 = 0.5;

/// Number of consecutive refusals that must be explained.
const MIN_EXPLAINED_REFUSALS: u32 = 2;

/// Evidence about the accounting of one model.
#[derive(Debug)]
pub(in crate::provider) struct OutputAccounting {
    first_second: Option<u64>,
    /// The tokens that were sent and not refused.
    sent: SecondSlots<TokenCounts, { LONG_WINDOW_SECS as usize }>,
    explained_refusals: u32,
    is_newly_detected: bool,
}

/// Tokens of calls.
#[derive(Debug, Clone, Copy, Default)]
struct TokenCounts {
    input: f64,
    /// Output with `max_tokens`.
    with_max_tokens: f64,
    /// Output by our own count.
    own_count: f64,
}

impl TokenCounts {
    fn of(reservation: &Reservation) -> Option<Self> {
        let with_max_tokens = reservation.estimate.max_tokens?;
        let own_count = reservation.mean;
        Some(Self {
            input: own_count.input as f64,
            with_max_tokens: with_max_tokens as f64,
            own_count: own_count.output as f64,
        })
    }

    fn add(&mut self, other: Self, factor: f64) {
        self.input += other.input * factor;
        self.with_max_tokens += other.with_max_tokens * factor;
        self.own_count += other.own_count * factor;
    }
}

impl OutputAccounting {
    pub(in crate::provider) fn new(now: Instant) -> Self {
        let sent = SecondSlots::new(now);
        Self { first_second: None, sent, explained_refusals: 0, is_newly_detected: false }
    }

    /// Counts a sent call.
    pub(in crate::provider) fn record_sent(&mut self, reservation: &Reservation, now: Instant) {
        if let Some(counts) = TokenCounts::of(reservation) {
            self.first_second = self.first_second.or(Some(self.sent.second(now)));
            self.sent.value_mut(now).add(counts, 1.0);
        }
    }

    /// Undoes [`Self::record_sent`] for a call that was not sent.
    pub(in crate::provider) fn rollback(&mut self, reservation: &Reservation, now: Instant) {
        if let Some(counts) = TokenCounts::of(reservation) {
            self.sent.value_mut(now).add(counts, -1.0);
        }
    }

    /// Records a rate-limit refusal. Returns whether the accounting is now detected.
    pub(in crate::provider) fn record_refused(
        &mut self,
        reservation: &Reservation,
        limits: TokenLimits,
        resource: Option<RateLimitResource>,
        now: Instant,
    ) -> bool {
        let Some(own) = TokenCounts::of(reservation) else { return false };
        let explains = resource != Some(RateLimitResource::Requests) && self.explains(limits, now);
        self.sent.value_mut(now).add(own, -1.0);
        self.explained_refusals = if explains { self.explained_refusals + 1 } else { 0 };
        self.is_newly_detected = self.explained_refusals == MIN_EXPLAINED_REFUSALS;
        self.explained_refusals >= MIN_EXPLAINED_REFUSALS
    }

    /// Returns, once, whether the accounting has just been detected.
    pub(in crate::provider) fn take_detection(&mut self) -> bool {
        std::mem::take(&mut self.is_newly_detected)
    }

    /// Returns whether the refusal of the latest call is explained.
    fn explains(&self, limits: TokenLimits, now: Instant) -> bool {
        let second = self.sent.second(now);
        let since_first = self.first_second.map_or(0, |first_second| second.saturating_sub(first_second));
        let short = (since_first + 1).clamp(MIN_SHORT_WINDOW_SECS, SHORT_WINDOW_SECS);
        [(LONG_WINDOW_SECS, LIMIT_SHARES), (short, SHORT_WINDOW_LIMIT_SHARES)].into_iter().any(
            |(seconds, shares)| {
                let mut sum = TokenCounts::default();
                let recent = self.sent.values(second.saturating_sub(seconds - 1)..);
                recent.for_each(|counts| sum.add(counts, 1.0));
                let is_explained = |limit: Option<f64>, input: f64| {
                    let Some(limit) = limit.map(|limit| limit * seconds as f64 / 60.0) else { return false };
                    let with_max_tokens = input + sum.with_max_tokens;
                    let own_count = input + sum.own_count;
                    shares.contains(&(with_max_tokens / limit)) && own_count <= limit * MAX_OWN_SHARE
                };
                is_explained(limits.tokens, sum.input) || is_explained(limits.output, 0.0)
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::guard::TokenCost;
    use crate::provider::admission::estimate::Estimate;
    use crate::provider::admission::reservation::Reservations;
    use crate::provider::admission::token_stats::{StatsKey, TokenStats};
    use crate::provider::settings::OutputReservation;

    const LIMITS: TokenLimits = TokenLimits { tokens: Some(60_000.0), output: None };

    /// A call of 100 input tokens whose answers have 20.
    fn call(max_tokens: Option<u64>) -> Reservation {
        let mut stats = TokenStats::default();
        (0..20).for_each(|_| stats.record(StatsKey::ALL, 100, 100, Some(20)));
        let rules = Reservations::new(OutputReservation::P95, crate::guard::RateLimits::default());
        let estimate = Estimate { input: 100, max_tokens };
        let reservation = rules.for_call(&stats, StatsKey::ALL, estimate);
        assert_eq!(reservation.mean, TokenCost { input: 100, output: 20.min(max_tokens.unwrap_or(20)) });
        reservation
    }

    /// Sends calls to a provider with a bucket of `bucket` tokens, one each `pause`; returns the refusals until
    /// the detection, or all.
    fn play(counts: impl Fn(&Reservation) -> u64, bucket: f64, pause: Duration, calls: u32) -> (u32, bool) {
        let start = Instant::now();
        let mut accounting = OutputAccounting::new(start);
        let mut level = bucket;
        let mut refused = 0;
        for number in 0..calls {
            let now = start + pause * number;
            let reservation = call(Some(4_000));
            accounting.record_sent(&reservation, now);
            level = (level + pause.as_secs_f64() * 1_000.0).min(bucket);
            let needed = counts(&reservation) as f64;
            if level >= needed.min(bucket) {
                level -= needed;
                continue;
            }
            refused += 1;
            if accounting.record_refused(&reservation, LIMITS, Some(RateLimitResource::Tokens), now) {
                return (refused, true);
            }
        }
        (refused, false)
    }

    fn with_max_tokens(reservation: &Reservation) -> u64 {
        reservation.mean.input + reservation.estimate.max_tokens.unwrap_or(0)
    }

    #[test]
    fn a_provider_that_counts_max_tokens_is_detected_after_a_few_refusals() {
        // A bucket of a minute, at once: 14 calls fit.
        assert_eq!(play(with_max_tokens, 60_000.0, Duration::from_millis(50), 40), (2, true));
        // A bucket of a second: one call each four seconds is accepted.
        let (refused, known) = play(with_max_tokens, 1_000.0, Duration::from_millis(500), 60);
        assert!(known && refused <= 20, "{refused}");
    }

    #[test]
    fn a_provider_that_counts_real_output_and_refuses_because_of_others_is_not_detected() {
        // Others leave a fifth of the limit: 12,000 tokens are a hundred calls a minute, or 400,000 with
        // `max_tokens`.
        let written = |reservation: &Reservation| (reservation.mean.input + reservation.mean.output) * 5;
        assert!(!play(written, 60_000.0, Duration::from_millis(200), 3_000).1);
        let now = Instant::now();
        let mut accounting = OutputAccounting::new(now);
        for _ in 0..15 {
            accounting.record_sent(&call(Some(4_000)), now);
        }
        for _ in 0..10 {
            assert!(
                !accounting.record_refused(
                    &call(Some(4_000)),
                    LIMITS,
                    Some(RateLimitResource::Requests),
                    now
                ),
                "it names requests"
            );
            assert!(!accounting.record_refused(&call(None), LIMITS, None, now), "nothing could be counted");
        }
    }

    #[test]
    fn a_detection_is_reported_once() {
        let now = Instant::now();
        let mut accounting = OutputAccounting::new(now);
        (0..20).for_each(|_| accounting.record_sent(&call(Some(4_000)), now));
        let detections: Vec<bool> = (0..4)
            .map(|_| {
                accounting.record_refused(&call(Some(4_000)), LIMITS, None, now);
                accounting.take_detection()
            })
            .collect();
        assert_eq!(detections, [false, true, false, false]);
    }

    proptest! {
        #[test]
        fn counts_stay_finite_for_any_history(
            events in prop::collection::vec((0u64..30_000, any::<bool>(), prop::option::of(1u64..u64::MAX)), 1..200),
        ) {
            let mut now = Instant::now();
            let mut accounting = OutputAccounting::new(now);
            for (pause, refused, max_tokens) in events {
                now += Duration::from_millis(pause);
                let reservation = call(max_tokens);
                accounting.record_sent(&reservation, now);
                if refused {
                    accounting.record_refused(&reservation, LIMITS, None, now);
                }
                prop_assert!(accounting.sent.values(..).all(|counts| counts.with_max_tokens.is_finite()));
            }
        }
    }
}
