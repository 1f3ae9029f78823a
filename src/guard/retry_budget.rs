//! Keeps retries to a share of the calls, so that an outage is not answered with a storm.
//!
//! A bucket: every first call puts a share of a retry in, time puts a floor in, a retry takes one out.
//! A provider that answers may be asked again as often as it answers: every answer puts ten shares in, a whole
//! retry by default, and a retry that was answered is given back besides. So after an outage retries double with
//! every round trip, however few first calls there are; and while nothing is answered they are as few as before.
//! What is not used is kept for about a window, and no longer. So within any time, however long or
//! short, the retries are at most
//!
//! `share` × the calls of that time + `floor_per_second` × its seconds + what answers brought + what the bucket
//! held before it,
//!
//! and the bucket holds at most `floor_per_second` × the window + `share` × the calls lately, but one
//! retry where that is less. "Lately" is a count that fades by half in seven tenths of a window.
//! Never reads a clock and remembers no single call; its owner passes `now`.

use std::time::Duration;

use tokio::time::Instant;

use super::RetryBudgetSettings;

/// What rounding may take from a retry that is due.
const ROUNDING: f64 = 1e-6;

/// Shares of a retry that an answer brings, up to a whole one.
const SHARES_OF_AN_ANSWER: f64 = 10.0;

/// The retries that one provider may still be asked for.
#[derive(Debug)]
pub struct RetryBudget {
    settings: RetryBudgetSettings,
    /// Retries that are there.
    held: f64,
    /// Calls lately.
    calls: f64,
    /// As of when both are.
    at: Instant,
}

impl RetryBudget {
    /// Makes a budget that holds one second's floor, and one retry at least unless there is no floor.
    pub fn new(settings: RetryBudgetSettings, now: Instant) -> Self {
        let floor = settings.floor_per_second;
        let held = if floor > 0.0 { floor.max(1.0) } else { 0.0 };
        let mut budget = Self { settings, held, calls: 0.0, at: now };
        budget.held = held.min(budget.most());
        budget
    }

    /// Counts a first call. A retry is none: it would earn a part of the next.
    pub fn called(&mut self, now: Instant) {
        self.pass_to(now);
        self.calls += 1.0;
        self.put(self.settings.share);
    }

    /// Counts an answer; `was_retry` is whether it is that to a retry.
    pub fn answered(&mut self, was_retry: bool, now: Instant) {
        self.pass_to(now);
        self.put(self.for_answer(was_retry));
    }

    fn for_answer(&self, was_retry: bool) -> f64 {
        let share = (self.settings.share * SHARES_OF_AN_ANSWER).min(1.0);
        if was_retry { share + share } else { share }
    }

    /// Returns for how long a retry would have to wait.
    pub fn wait(&self, now: Instant) -> Duration {
        let RetryBudgetSettings { floor_per_second: floor, .. } = self.settings;
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        let held = self.held + passed * floor;
        if held + ROUNDING >= 1.0 {
            return Duration::ZERO;
        }
        Duration::try_from_secs_f64((1.0 - held) / floor).unwrap_or(Duration::MAX).min(self.longest_wait())
    }

    /// Returns whether at least half of the retries are there that it can hold.
    pub fn is_half_full(&mut self, now: Instant) -> bool {
        self.pass_to(now);
        self.held * 2.0 >= self.most()
    }

    /// Takes a retry.
    ///
    /// # Errors
    /// The instant from which it is worth asking again; calls that come meanwhile may make it sooner.
    pub fn take(&mut self, now: Instant) -> Result<(), Instant> {
        self.pass_to(now);
        if self.held + ROUNDING >= 1.0 {
            self.held = (self.held - 1.0).max(0.0);
            return Ok(());
        }
        let floor = self.settings.floor_per_second;
        let seconds = (1.0 - self.held) / floor;
        // Without a floor only calls bring retries, and nobody knows when they come.
        let wait = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
        Err(now + wait.min(self.longest_wait()))
    }

    /// Gives back a retry that was taken and did not leave.
    pub fn give_back(&mut self) {
        self.put(1.0);
    }

    /// Adds what the time since the last look has brought, and forgets what it has made old.
    fn pass_to(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = self.at.max(now);
        self.calls *= (-passed / self.settings.window.as_secs_f64()).exp();
        self.put(passed * self.settings.floor_per_second);
    }

    fn put(&mut self, retries: f64) {
        self.held = (self.held + retries).min(self.most());
    }

    fn most(&self) -> f64 {
        let RetryBudgetSettings { share, floor_per_second, window } = self.settings;
        (floor_per_second * window.as_secs_f64() + share * self.calls).max(1.0)
    }

    /// With a floor as small as one retry a day nobody should sleep through the calls that come.
    fn longest_wait(&self) -> Duration {
        self.settings.window.max(Duration::from_secs(1))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn budget(share: f64, floor_per_second: f64) -> (RetryBudget, Instant) {
        let now = Instant::now();
        let settings = RetryBudgetSettings { share, floor_per_second, ..RetryBudgetSettings::default() };
        (RetryBudget::new(settings, now), now)
    }

    /// Takes all that is there.
    fn drain(budget: &mut RetryBudget, now: Instant) -> usize {
        (0..10_000).take_while(|_| budget.take(now).is_ok()).count()
    }

    #[test]
    fn a_thousand_calls_bring_a_hundred_retries() {
        let (mut budget, now) = budget(0.1, 0.0);
        assert_eq!(drain(&mut budget, now), 0);
        (0..1_000).for_each(|_| budget.called(now));
        assert_eq!(drain(&mut budget, now), 100);
    }

    #[test]
    fn what_the_calls_earned_is_forgotten_with_them() {
        let (mut budget, now) = budget(0.1, 0.0);
        (0..1_000).for_each(|_| budget.called(now));
        assert_eq!(drain(&mut budget, now + 60 * SECOND), 1);
    }

    #[test]
    fn a_few_calls_may_be_retried_by_the_floor() {
        let (mut budget, now) = budget(0.1, 0.5);
        assert_eq!(drain(&mut budget, now), 1);
        assert_eq!(budget.take(now), Err(now + 2 * SECOND));
        assert_eq!(budget.take(now + 2 * SECOND), Ok(()));
        // A quiet hour is worth a window, no more.
        assert_eq!(drain(&mut budget, now + 3_600 * SECOND), 5);
    }

    #[test]
    fn what_is_given_back_can_be_taken_again() {
        let (mut budget, now) = budget(0.1, 5.0);
        assert_eq!(drain(&mut budget, now), 5);
        budget.give_back();
        assert_eq!(drain(&mut budget, now), 1);
    }

    #[test]
    fn after_an_outage_retries_double_with_every_round_trip() {
        let (mut budget, mut now) = budget(0.1, 5.0);
        drain(&mut budget, now);
        // A hundred questions wait for their second attempt, and there is no new one.
        let (mut asked_again, mut rounds) = (0, 0);
        while asked_again < 100 {
            now += SECOND;
            let retries = drain(&mut budget, now).min(100 - asked_again);
            (0..retries).for_each(|_| budget.answered(true, now));
            (asked_again, rounds) = (asked_again + retries, rounds + 1);
        }
        // 5, 15, 35, 55 of 55 that it holds at most; by the floor alone it were 20 seconds.
        assert_eq!(rounds, 4);
    }

    #[test]
    fn while_nothing_is_answered_retries_are_a_share_of_the_calls() {
        let (mut budget, now) = budget(0.1, 0.0);
        (0..1_000).for_each(|_| budget.called(now));
        assert_eq!(drain(&mut budget, now), 100);
        budget.answered(false, now);
        assert_eq!(drain(&mut budget, now), 1);
    }

    #[test]
    fn it_says_for_how_long_retries_wait() {
        let (mut budget, now) = budget(0.1, 0.5);
        assert_eq!(budget.wait(now), Duration::ZERO);
        drain(&mut budget, now);
        assert_eq!(budget.wait(now), 2 * SECOND);
        assert_eq!(budget.wait(now + SECOND), SECOND);
        assert!(!budget.is_half_full(now) && budget.is_half_full(now + 5 * SECOND));
    }

    #[test]
    fn no_share_and_no_floor_are_no_retries() {
        let (mut budget, now) = budget(0.0, 0.0);
        (0..100).for_each(|_| budget.called(now));
        (0..100).for_each(|_| budget.answered(true, now));
        assert_eq!(budget.take(now), Err(now + 10 * SECOND));
    }

    proptest! {
        #[test]
        fn no_time_sees_more_retries_than_it_earned_and_the_bucket(
            share in 0.0..=1.0f64,
            floor in 0.0..20.0f64,
            events in proptest::collection::vec((0u64..3_000, 0u32..40, 0u32..40, 0u32..40), 1..120),
        ) {
            let (mut budget, mut now) = budget(share, floor);
            // When, calls so far and retries so far, before each event; and what the bucket could hold.
            let mut past: Vec<(Instant, f64, f64, f64)> = Vec::new();
            let (mut calls, mut retries) = (0.0, 0.0);
            for (pause, called, answered, wanted) in events {
                now += Duration::from_millis(pause);
                budget.pass_to(now);
                past.push((now, calls, retries, budget.most()));
                for _ in 0..called { budget.called(now) }
                for number in 0..answered { budget.answered(number % 2 == 0, now) }
                // What an answer brings, in first calls.
                let for_answers = (share * 10.0).min(1.0) * f64::from(answered + answered.div_ceil(2));
                calls += f64::from(called) + if share > 0.0 { for_answers / share } else { 0.0 };
                for _ in 0..wanted { retries += f64::from(u8::from(budget.take(now).is_ok())) }
                for (since, calls_before, retries_before, most) in &past {
                    let earned = share * (calls - calls_before) + floor * (now - *since).as_secs_f64();
                    let taken = retries - retries_before;
                    prop_assert!(taken <= earned + most + 0.001, "{taken} of {earned} and {most}");
                }
            }
        }

        #[test]
        fn asking_again_when_told_succeeds(floor in 0.11..1_000.0f64, taken in 1usize..100, pause in 0u64..5_000) {
            let (mut budget, now) = budget(0.1, floor);
            for _ in 0..taken { _ = budget.take(now) }
            let later = now + Duration::from_millis(pause);
            if let Err(ready) = budget.take(later) {
                prop_assert!(ready > later);
                prop_assert_eq!(budget.take(ready), Ok(()));
            }
        }
    }
}
