//! Finds out whether a model's provider counts `max_tokens` when a call arrives, rather than what it writes.
//!
//! OpenAI and some Anthropic-speaking servers do. Calls that keep to a token limit by what answers really take are then
//! refused although our own count has room. That alone shows nothing: others may use the account. But if the calls that
//! were accepted lately add up to the limit with their `max_tokens`, and to less than half of it as
//! we count them, the habit explains the refusal. Counts nothing that a limit is kept by. Pure.

use tokio::time::Instant;

use crate::types::Limited;

use super::reservation::Reservation;

/// Seconds that are looked back to: a minute, as a provider's bucket that holds a minute's worth; and a few, as one that
/// holds no more than a second's.
const LONG: u64 = 60;
const SHORT: u64 = 10;
const SHORT_AT_LEAST: u64 = 2;

/// Between these parts of the limit the calls with their `max_tokens` must be: below, there is room; above, the
/// provider has accepted what it never would. A bucket holds a minute's worth beside what the minute brings.
const PARTS: (f64, f64) = (0.9, 2.1);
const PARTS_OF_SHORT: (f64, f64) = (0.9, 1.5);

/// The most that they are as we count them.
const ROOM: f64 = 0.5;

/// Refusals that must be explained so.
const REFUSALS: u32 = 2;

/// The token limits of a model that are known, a minute.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct TokenLimits {
    /// Of both directions.
    pub(super) tokens: Option<f64>,
    pub(super) output: Option<f64>,
}

/// What is known of the habit.
#[derive(Debug)]
pub(super) struct OutputHabit {
    origin: Instant,
    first: Option<u64>,
    /// The second that a slot was last used for, from 1, and what left in it and was not refused.
    slots: [(u64, Counts); LONG as usize],
    explained: u32,
    is_new: bool,
}

/// Tokens of calls.
#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    input: f64,
    /// With `max_tokens`.
    most: f64,
    /// As we count.
    ours: f64,
}

impl Counts {
    fn of(reserved: &Reservation) -> Option<Self> {
        let most = reserved.estimate.max_tokens?;
        let ours = reserved.usual;
        Some(Self { input: ours.input as f64, most: most as f64, ours: ours.output as f64 })
    }

    fn add(&mut self, other: Self, times: f64) {
        self.input += other.input * times;
        self.most += other.most * times;
        self.ours += other.ours * times;
    }
}

impl OutputHabit {
    pub(super) fn new(now: Instant) -> Self {
        let slots = [(0, Counts::default()); LONG as usize];
        Self { origin: now, first: None, slots, explained: 0, is_new: false }
    }

    /// Counts a call that leaves.
    pub(super) fn sent(&mut self, reserved: &Reservation, now: Instant) {
        if let Some(counts) = Counts::of(reserved) {
            self.first = self.first.or(Some(self.second(now)));
            self.count(counts, 1.0, now);
        }
    }

    /// Learns from a refusal for a rate limit. Returns whether the habit is known by it.
    pub(super) fn refused(
        &mut self,
        reserved: &Reservation,
        limits: TokenLimits,
        limited: Option<Limited>,
        now: Instant,
    ) -> bool {
        let Some(own) = Counts::of(reserved) else { return false };
        let explains = limited != Some(Limited::Requests) && self.explains(limits, now);
        self.count(own, -1.0, now);
        self.explained = if explains { self.explained + 1 } else { 0 };
        self.is_new = self.explained == REFUSALS;
        self.explained >= REFUSALS
    }

    /// Returns, once, whether the habit has just become known.
    pub(super) fn take_news(&mut self) -> bool {
        std::mem::take(&mut self.is_new)
    }

    /// Returns whether the refusal of the latest call is explained.
    fn explains(&self, limits: TokenLimits, now: Instant) -> bool {
        let second = self.second(now);
        let since_first = self.first.map_or(0, |first| second.saturating_sub(first));
        let short = (since_first + 1).clamp(SHORT_AT_LEAST, SHORT);
        [(LONG, PARTS), (short, PARTS_OF_SHORT)].into_iter().any(|(seconds, parts)| {
            let mut sum = Counts::default();
            let recent = self.slots.iter().filter(|(at, _)| *at + seconds > second);
            recent.for_each(|(_, counts)| sum.add(*counts, 1.0));
            let is_explained = |limit: Option<f64>, input: f64| {
                let Some(limit) = limit.map(|limit| limit * seconds as f64 / 60.0) else { return false };
                let (most, ours) = (input + sum.most, input + sum.ours);
                (parts.0..=parts.1).contains(&(most / limit)) && ours <= limit * ROOM
            };
            is_explained(limits.tokens, sum.input) || is_explained(limits.output, 0.0)
        })
    }

    fn count(&mut self, counts: Counts, times: f64, now: Instant) {
        let second = self.second(now);
        let slot = &mut self.slots[(second % LONG) as usize];
        if slot.0 != second {
            *slot = (second, Counts::default());
        }
        slot.1.add(counts, times);
    }

    fn second(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.origin).as_secs() + 1
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::guard::Need;
    use crate::provider::estimate::Estimate;
    use crate::provider::reservation::Reservations;
    use crate::provider::settings::Reserve;
    use crate::provider::sizes::Sizes;

    const LIMITS: TokenLimits = TokenLimits { tokens: Some(60_000.0), output: None };

    /// A call of 100 tokens whose answers have 20.
    fn call(max_tokens: Option<u64>) -> Reservation {
        let mut sizes = Sizes::default();
        (0..20).for_each(|_| sizes.learn(None, 100, 100, Some(20)));
        let rules = Reservations::new(Reserve::Learned, crate::guard::RateLimits::default());
        let reservation = rules.of(&sizes, None, Estimate { input: 100, max_tokens });
        assert_eq!(reservation.usual, Need { input: 100, output: 20.min(max_tokens.unwrap_or(20)) });
        reservation
    }

    /// Asks a provider that has `bucket` tokens at once, once each `pause`; returns the refusals until the habit is
    /// known, or all.
    fn play(counts: impl Fn(&Reservation) -> u64, bucket: f64, pause: Duration, calls: u32) -> (u32, bool) {
        let start = Instant::now();
        let (mut habit, mut level, mut refused) = (OutputHabit::new(start), bucket, 0);
        for number in 0..calls {
            let now = start + pause * number;
            let reserved = call(Some(4_000));
            habit.sent(&reserved, now);
            level = (level + pause.as_secs_f64() * 1_000.0).min(bucket);
            let needed = counts(&reserved) as f64;
            if level >= needed.min(bucket) {
                level -= needed;
                continue;
            }
            refused += 1;
            if habit.refused(&reserved, LIMITS, Some(Limited::Tokens), now) {
                return (refused, true);
            }
        }
        (refused, false)
    }

    fn with_max_tokens(reserved: &Reservation) -> u64 {
        reserved.usual.input + reserved.estimate.max_tokens.unwrap_or(0)
    }

    #[test]
    fn a_provider_that_counts_max_tokens_is_known_after_a_few_refusals() {
        // A minute's bucket, at once: 14 fit.
        assert_eq!(play(with_max_tokens, 60_000.0, Duration::from_millis(50), 40), (2, true));
        // A second's bucket: one each four seconds is accepted.
        let (refused, known) = play(with_max_tokens, 1_000.0, Duration::from_millis(500), 60);
        assert!(known && refused <= 20, "{refused}");
    }

    #[test]
    fn a_provider_that_counts_what_is_written_and_refuses_for_others_sake_is_not() {
        // Others leave a fifth of the limit: 12,000 tokens are a hundred calls a minute, or 400,000 with max_tokens.
        let written = |reserved: &Reservation| (reserved.usual.input + reserved.usual.output) * 5;
        assert!(!play(written, 60_000.0, Duration::from_millis(200), 3_000).1);
        let now = Instant::now();
        let mut habit = OutputHabit::new(now);
        for _ in 0..15 {
            habit.sent(&call(Some(4_000)), now);
        }
        for _ in 0..10 {
            assert!(
                !habit.refused(&call(Some(4_000)), LIMITS, Some(Limited::Requests), now),
                "it names requests"
            );
            assert!(!habit.refused(&call(None), LIMITS, None, now), "nothing could be counted");
        }
    }

    #[test]
    fn it_is_said_once() {
        let now = Instant::now();
        let mut habit = OutputHabit::new(now);
        (0..20).for_each(|_| habit.sent(&call(Some(4_000)), now));
        let said: Vec<bool> = (0..4)
            .map(|_| {
                habit.refused(&call(Some(4_000)), LIMITS, None, now);
                habit.take_news()
            })
            .collect();
        assert_eq!(said, [false, true, false, false]);
    }

    proptest! {
        #[test]
        fn no_history_makes_a_count_absurd(
            events in prop::collection::vec((0u64..30_000, any::<bool>(), prop::option::of(1u64..u64::MAX)), 1..200),
        ) {
            let mut now = Instant::now();
            let mut habit = OutputHabit::new(now);
            for (pause, refused, max_tokens) in events {
                now += Duration::from_millis(pause);
                let reserved = call(max_tokens);
                habit.sent(&reserved, now);
                if refused {
                    habit.refused(&reserved, LIMITS, None, now);
                }
                prop_assert!(habit.slots.iter().all(|(_, counts)| counts.most.is_finite()));
            }
        }
    }
}
