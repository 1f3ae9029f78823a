//! Daily quota of calls. It may be used up as fast as the other limits allow.
//!
//! A day is any 24 hours, counted in steps of ten minutes, so that the quota is respected wherever the
//! provider's own day begins. Calls are not spread over the day. Pure.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

const DAY: Duration = Duration::from_hours(24);
const STEP_LENGTH: Duration = Duration::from_mins(10);

/// The calls of the last 24 hours.
#[derive(Debug)]
pub(super) struct DailyQuota {
    limit: u64,
    steps: VecDeque<Step>,
    used: u64,
}

/// The calls of a few minutes.
#[derive(Debug, Clone, Copy)]
struct Step {
    began: Instant,
    calls: u64,
}

/// A daily quota that is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExhaustedQuota {
    /// The calls per day.
    pub limit: u64,
    /// When it admits a call again.
    pub until: Instant,
}

impl DailyQuota {
    pub(super) fn new(limit: u64) -> Self {
        Self { limit, steps: VecDeque::new(), used: 0 }
    }

    /// Sets the calls per day. The calls of the last 24 hours still count.
    pub(super) fn set_limit(&mut self, limit: u64) {
        self.limit = limit;
    }

    /// Returns the calls per day.
    pub(super) fn limit(&self) -> u64 {
        self.limit
    }

    /// Returns the calls of the last 24 hours.
    pub(super) fn used(&self) -> u64 {
        self.used
    }

    /// Takes one call.
    ///
    /// # Errors
    /// The instant from which a call may be sent again.
    pub(super) fn take(&mut self, now: Instant) -> Result<(), Instant> {
        self.expire(now);
        if self.used >= self.limit {
            return Err(self.expected_at(0, now));
        }
        self.used += 1;
        match self.steps.back_mut() {
            Some(step) if now.saturating_duration_since(step.began) < STEP_LENGTH => step.calls += 1,
            Some(_) | None => self.steps.push_back(Step { began: now, calls: 1 }),
        }
        Ok(())
    }

    /// Adds calls that were sent before a restart: for each step how long ago it began, and its calls.
    pub(super) fn restore(&mut self, calls: impl Iterator<Item = (Duration, u64)>, now: Instant) {
        for (age, calls) in calls {
            // If the clock cannot represent an instant that early, these calls count for longer than
            // necessary.
            let began = now.checked_sub(age).unwrap_or(now);
            self.steps.push_back(Step { began, calls });
            self.used = self.used.saturating_add(calls);
        }
        self.steps.make_contiguous().sort_by_key(|step| step.began);
        self.expire(now);
    }

    /// Returns the quota if it is used up.
    pub(super) fn exhausted(&self, now: Instant) -> Option<ExhaustedQuota> {
        let until = self.expected_at(0, now);
        (until > now).then_some(ExhaustedQuota { limit: self.limit, until })
    }

    /// Returns one call that was not sent.
    pub(super) fn give_back(&mut self) {
        if let Some(step) = self.steps.back_mut().filter(|step| step.calls > 0) {
            step.calls -= 1;
            self.used -= 1;
        }
    }

    /// Returns when a call could be sent that has `ahead` others before it.
    pub(super) fn expected_at(&self, ahead: u64, now: Instant) -> Instant {
        let mut used = self.used.saturating_add(ahead);
        if used < self.limit {
            return now;
        }
        for step in &self.steps {
            used = used.saturating_sub(step.calls);
            if used < self.limit {
                return (step.began + STEP_LENGTH + DAY).max(now);
            }
        }
        now + DAY
    }

    fn expire(&mut self, now: Instant) {
        let is_over = |step: &&Step| now.saturating_duration_since(step.began) >= STEP_LENGTH + DAY;
        while let Some(step) = self.steps.front().filter(is_over) {
            self.used -= step.calls;
            self.steps.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_exhausted_quota_returns_the_time_from_which_a_call_may_be_sent() {
        let mut quota = DailyQuota::new(3);
        let start = Instant::now();
        let later = start + Duration::from_hours(5);
        assert_eq!(quota.take(start), Ok(()));
        assert_eq!(quota.take(later), Ok(()));
        assert_eq!(quota.expected_at(1, later), start + STEP_LENGTH + DAY);
        assert_eq!(quota.take(later), Ok(()));
        let until = quota.take(later).unwrap_err();
        assert_eq!(until, start + STEP_LENGTH + DAY);
        assert_eq!(quota.take(until), Ok(()));
        assert_eq!(quota.take(until), Err(later + STEP_LENGTH + DAY));
        quota.give_back();
        assert_eq!(quota.take(until), Ok(()));
    }

    #[test]
    fn restored_calls_count_until_24_hours_have_passed() {
        let now = Instant::now() + 2 * DAY;
        let ages = |ages: &[(u64, u64)]| -> Vec<_> {
            ages.iter().map(|(hours, calls)| (Duration::from_hours(*hours), *calls)).collect()
        };
        let mut quota = DailyQuota::new(10);
        quota.take(now).unwrap();
        quota.restore(ages(&[(3, 2), (23, 5), (25, 9), (0, 1)]).into_iter(), now);
        assert_eq!(quota.take(now), Ok(()));
        let first = now + Duration::from_hours(1) + STEP_LENGTH;
        let second = now + Duration::from_hours(21) + STEP_LENGTH;
        let exhausted = ExhaustedQuota { limit: 10, until: first };
        assert_eq!((quota.take(now), quota.exhausted(now)), (Err(first), Some(exhausted)));
        assert_eq!((0..9).filter(|_| quota.take(first).is_ok()).count(), 5);
        assert_eq!(quota.take(first), Err(second));
        assert_eq!((0..9).filter(|_| quota.take(second).is_ok()).count(), 2);
        // More restored calls than the quota allows.
        let mut lowered = DailyQuota::new(1);
        lowered.restore(ages(&[(3, 7)]).into_iter(), now);
        assert_eq!(lowered.take(now), Err(second));
        assert_eq!(lowered.take(second), Ok(()));
    }

    proptest! {
        #[test]
        fn no_24_hours_contain_more_calls_than_the_quota(
            limit in 1u64..50,
            pauses in prop::collection::vec((0u64..5_000, prop::bool::weighted(0.05)), 1..300),
        ) {
            let start = Instant::now() + 2 * DAY;
            let mut now = start;
            let mut quota = DailyQuota::new(limit);
            let mut sent = Vec::new();
            for (pause, restarts) in pauses {
                now += Duration::from_secs(pause);
                if restarts {
                    quota = DailyQuota::new(limit);
                    let began = |at: &Instant| (*at - start).as_secs() / STEP_LENGTH.as_secs();
                    let ages = sent.iter().map(|at| now - start - STEP_LENGTH * began(at) as u32);
                    quota.restore(ages.map(|age| (age, 1)), now);
                }
                if quota.take(now).is_ok() { sent.push(now) }
                let today = sent.iter().filter(|at| now - **at < DAY).count() as u64;
                prop_assert!(today <= limit);
            }
        }
    }
}
