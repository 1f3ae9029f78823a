//! Retry budget of one provider: retries are limited to a ratio of the calls, so that an outage does not
//! cause a retry storm.
//!
//! A token bucket: every first call deposits a share of a retry, time deposits a minimum rate, and a retry
//! withdraws one. A provider that answers may be retried as often as it answers: every answer deposits ten
//! shares, a whole retry by default, and the answer to a retry deposits the same again. So after an outage
//! retries double with every round trip, however few first calls there are; and while nothing is answered
//! they stay as few as before. Unused retries are kept for about `ttl`. So within any time, however long or
//! short, the retries are at most
//!
//! `ratio` × the calls of that time + `min_per_second` × its seconds + what answers deposited + the balance
//! before it,
//!
//! and the balance is at most `min_per_second` × `ttl` + `ratio` × the recent calls, or one retry if that
//! is less. "Recent" is a count that decays by half in seven tenths of `ttl`. The budget stores no single
//! call; the caller passes `now`.

use std::time::Duration;

use tokio::time::Instant;

use super::RetryBudgetSettings;

/// By how much rounding may reduce a retry that is due.
const ROUNDING_TOLERANCE: f64 = 1e-6;

/// Shares of a retry that an answer deposits, up to a whole one.
const SHARES_PER_ANSWER: f64 = 10.0;

/// The retries that may still be sent to one provider.
#[derive(Debug)]
pub struct RetryBudget {
    settings: RetryBudgetSettings,
    /// Retries available.
    balance: f64,
    /// Decayed count of calls.
    recent_calls: f64,
    /// The instant for which both hold.
    updated_at: Instant,
}

impl RetryBudget {
    /// Creates a budget with the minimum rate of one second, and at least one retry unless that rate is zero.
    pub fn new(settings: RetryBudgetSettings, now: Instant) -> Self {
        let min_rate = settings.min_per_second;
        let balance = if min_rate > 0.0 { min_rate.max(1.0) } else { 0.0 };
        let mut budget = Self { settings, balance, recent_calls: 0.0, updated_at: now };
        budget.balance = balance.min(budget.capacity());
        budget
    }

    /// Sets the settings. What is available stays, up to the new capacity.
    pub fn set_settings(&mut self, settings: RetryBudgetSettings, now: Instant) {
        self.advance_to(now);
        self.settings = settings;
        self.balance = self.balance.min(self.capacity());
    }

    /// Deposits for a first call. A retry deposits nothing: it would earn a part of the next one.
    pub fn deposit_call(&mut self, now: Instant) {
        self.advance_to(now);
        self.recent_calls += 1.0;
        self.credit(self.settings.ratio);
    }

    /// Takes back the deposit for a call that was not sent after all.
    pub fn undo_deposit(&mut self) {
        self.recent_calls = (self.recent_calls - 1.0).max(0.0);
        self.balance = (self.balance - self.settings.ratio).max(0.0);
    }

    /// Deposits for an answer; `was_retry` is whether it answers a retry.
    pub fn deposit_answer(&mut self, was_retry: bool, now: Instant) {
        self.advance_to(now);
        self.credit(self.credit_for_answer(was_retry));
    }

    fn credit_for_answer(&self, was_retry: bool) -> f64 {
        let share = (self.settings.ratio * SHARES_PER_ANSWER).min(1.0);
        if was_retry { share + share } else { share }
    }

    /// Returns how long a retry would have to wait.
    pub fn wait(&self, now: Instant) -> Duration {
        let min_rate = self.settings.min_per_second;
        let passed = now.saturating_duration_since(self.updated_at).as_secs_f64();
        let balance = self.balance + passed * min_rate;
        if balance + ROUNDING_TOLERANCE >= 1.0 {
            return Duration::ZERO;
        }
        Duration::try_from_secs_f64((1.0 - balance) / min_rate).unwrap_or(Duration::MAX).min(self.max_wait())
    }

    /// Returns whether at least half of the capacity is available.
    pub fn is_half_full(&mut self, now: Instant) -> bool {
        self.advance_to(now);
        self.balance * 2.0 >= self.capacity()
    }

    /// Withdraws a retry.
    ///
    /// # Errors
    /// The instant from which another attempt is worthwhile; calls made meanwhile may make it sooner.
    pub fn withdraw(&mut self, now: Instant) -> Result<(), Instant> {
        self.advance_to(now);
        if self.balance + ROUNDING_TOLERANCE >= 1.0 {
            self.balance = (self.balance - 1.0).max(0.0);
            return Ok(());
        }
        let min_rate = self.settings.min_per_second;
        let seconds = (1.0 - self.balance) / min_rate;
        // With a minimum rate of zero only calls deposit retries, and their time is unknown.
        let wait = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
        Err(now + wait.min(self.max_wait()))
    }

    /// Returns a retry that was withdrawn and not sent.
    pub fn put_back(&mut self) {
        self.credit(1.0);
    }

    /// Deposits for the time since the last update and decays the count of calls.
    fn advance_to(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.updated_at).as_secs_f64();
        self.updated_at = self.updated_at.max(now);
        self.recent_calls *= (-passed / self.settings.ttl.as_secs_f64()).exp();
        self.credit(passed * self.settings.min_per_second);
    }

    fn credit(&mut self, retries: f64) {
        self.balance = (self.balance + retries).min(self.capacity());
    }

    fn capacity(&self) -> f64 {
        let RetryBudgetSettings { ratio, min_per_second, ttl } = self.settings;
        (min_per_second * ttl.as_secs_f64() + ratio * self.recent_calls).max(1.0)
    }

    /// Upper bound of a wait: with a minimum rate as low as one retry a day, calls made meanwhile may allow
    /// a retry earlier.
    fn max_wait(&self) -> Duration {
        self.settings.ttl.max(Duration::from_secs(1))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn budget(ratio: f64, min_per_second: f64) -> (RetryBudget, Instant) {
        let now = Instant::now();
        let settings = RetryBudgetSettings { ratio, min_per_second, ..RetryBudgetSettings::default() };
        (RetryBudget::new(settings, now), now)
    }

    /// Withdraws everything available.
    fn drain(budget: &mut RetryBudget, now: Instant) -> usize {
        (0..10_000).take_while(|_| budget.withdraw(now).is_ok()).count()
    }

    #[test]
    fn a_thousand_calls_allow_a_hundred_retries() {
        let (mut budget, now) = budget(0.1, 0.0);
        assert_eq!(drain(&mut budget, now), 0);
        (0..1_000).for_each(|_| budget.deposit_call(now));
        assert_eq!(drain(&mut budget, now), 100);
    }

    #[test]
    fn deposits_of_calls_expire() {
        let (mut budget, now) = budget(0.1, 0.0);
        (0..1_000).for_each(|_| budget.deposit_call(now));
        assert_eq!(drain(&mut budget, now + 60 * SECOND), 1);
    }

    #[test]
    fn the_minimum_rate_allows_retries_of_few_calls() {
        let (mut budget, now) = budget(0.1, 0.5);
        assert_eq!(drain(&mut budget, now), 1);
        assert_eq!(budget.withdraw(now), Err(now + 2 * SECOND));
        assert_eq!(budget.withdraw(now + 2 * SECOND), Ok(()));
        // An hour without calls deposits no more than one window.
        assert_eq!(drain(&mut budget, now + 3_600 * SECOND), 5);
    }

    #[test]
    fn a_retry_that_was_put_back_can_be_withdrawn_again() {
        let (mut budget, now) = budget(0.1, 5.0);
        assert_eq!(drain(&mut budget, now), 5);
        budget.put_back();
        assert_eq!(drain(&mut budget, now), 1);
    }

    #[test]
    fn after_an_outage_retries_double_with_every_round_trip() {
        let (mut budget, mut now) = budget(0.1, 5.0);
        drain(&mut budget, now);
        // A hundred requests wait for their second attempt, and there are no new requests.
        let mut retried = 0;
        let mut rounds = 0;
        while retried < 100 {
            now += SECOND;
            let retries = drain(&mut budget, now).min(100 - retried);
            (0..retries).for_each(|_| budget.deposit_answer(true, now));
            retried += retries;
            rounds += 1;
        }
        // 5, 15, 35, then 55, the capacity. The minimum rate alone would take 20 seconds.
        assert_eq!(rounds, 4);
    }

    #[test]
    fn without_answers_retries_are_a_ratio_of_the_calls() {
        let (mut budget, now) = budget(0.1, 0.0);
        (0..1_000).for_each(|_| budget.deposit_call(now));
        assert_eq!(drain(&mut budget, now), 100);
        budget.deposit_answer(false, now);
        assert_eq!(drain(&mut budget, now), 1);
    }

    #[test]
    fn wait_returns_the_time_until_a_retry_is_available() {
        let (mut budget, now) = budget(0.1, 0.5);
        assert_eq!(budget.wait(now), Duration::ZERO);
        drain(&mut budget, now);
        assert_eq!(budget.wait(now), 2 * SECOND);
        assert_eq!(budget.wait(now + SECOND), SECOND);
        assert!(!budget.is_half_full(now) && budget.is_half_full(now + 5 * SECOND));
    }

    #[test]
    fn without_ratio_and_minimum_rate_there_are_no_retries() {
        let (mut budget, now) = budget(0.0, 0.0);
        (0..100).for_each(|_| budget.deposit_call(now));
        (0..100).for_each(|_| budget.deposit_answer(true, now));
        assert_eq!(budget.withdraw(now), Err(now + 10 * SECOND));
    }

    proptest! {
        #[test]
        fn in_any_time_retries_are_at_most_the_deposits_and_the_capacity(
            ratio in 0.0..=1.0f64,
            min_rate in 0.0..20.0f64,
            events in proptest::collection::vec((0u64..3_000, 0u32..40, 0u32..40, 0u32..40), 1..120),
        ) {
            let (mut budget, mut now) = budget(ratio, min_rate);
            // The instant, the calls and retries so far before each event, and the capacity.
            let mut past: Vec<(Instant, f64, f64, f64)> = Vec::new();
            let mut calls = 0.0;
            let mut retries = 0.0;
            for (pause, calls_made, answered, wanted) in events {
                now += Duration::from_millis(pause);
                budget.advance_to(now);
                past.push((now, calls, retries, budget.capacity()));
                for _ in 0..calls_made { budget.deposit_call(now) }
                for number in 0..answered { budget.deposit_answer(number % 2 == 0, now) }
                // What an answer deposits, in first calls.
                let for_answers = (ratio * 10.0).min(1.0) * f64::from(answered + answered.div_ceil(2));
                calls += f64::from(calls_made) + if ratio > 0.0 { for_answers / ratio } else { 0.0 };
                for _ in 0..wanted { retries += f64::from(u8::from(budget.withdraw(now).is_ok())) }
                for (since, calls_before, retries_before, capacity) in &past {
                    let earned = ratio * (calls - calls_before) + min_rate * (now - *since).as_secs_f64();
                    let taken = retries - retries_before;
                    prop_assert!(taken <= earned + capacity + 0.001, "{taken} of {earned} and {capacity}");
                }
            }
        }

        #[test]
        fn a_retry_at_the_returned_instant_succeeds(
            min_rate in 0.11..1_000.0f64,
            taken in 1usize..100,
            pause in 0u64..5_000,
        ) {
            let (mut budget, now) = budget(0.1, min_rate);
            for _ in 0..taken { _ = budget.withdraw(now) }
            let later = now + Duration::from_millis(pause);
            if let Err(ready) = budget.withdraw(later) {
                prop_assert!(ready > later);
                prop_assert_eq!(budget.withdraw(ready), Ok(()));
            }
        }
    }
}
