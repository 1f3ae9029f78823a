//! How many calls a day may bring: a quota that is used up as fast as the other limits allow.
//!
//! A day is any 24 hours, looked at in steps of ten minutes, so that it is kept whenever the provider's
//! own day begins. Never spreads calls over the day. Pure.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

const DAY: Duration = Duration::from_hours(24);
const STEP: Duration = Duration::from_mins(10);

/// The calls of the last 24 hours.
#[derive(Debug)]
pub(super) struct Daily {
    limit: u64,
    /// When each step began, and its calls.
    steps: VecDeque<(Instant, u64)>,
    used: u64,
}

impl Daily {
    pub(super) fn new(limit: u64) -> Self {
        Self { limit, steps: VecDeque::new(), used: 0 }
    }

    /// Takes one call.
    ///
    /// # Errors
    /// The instant from which there is room again.
    pub(super) fn take(&mut self, now: Instant) -> Result<(), Instant> {
        self.forget(now);
        if self.used >= self.limit {
            return Err(self.expected(0, now));
        }
        self.used += 1;
        match self.steps.back_mut() {
            Some((began, calls)) if now.saturating_duration_since(*began) < STEP => *calls += 1,
            _ => self.steps.push_back((now, 1)),
        }
        Ok(())
    }

    /// Takes over calls that left before: for each step how long ago it began, and its calls.
    pub(super) fn restore(&mut self, calls: impl Iterator<Item = (Duration, u64)>, now: Instant) {
        for (age, calls) in calls {
            // Where the system's clock began later than that, they count for longer than they need to.
            let began = now.checked_sub(age).unwrap_or(now);
            self.steps.push_back((began, calls));
            self.used = self.used.saturating_add(calls);
        }
        self.steps.make_contiguous().sort_by_key(|(began, _)| *began);
        self.forget(now);
    }

    /// Returns until when no call may leave, and how many a day may bring; `None` where one may.
    pub(super) fn spent_until(&self, now: Instant) -> Option<(u64, Instant)> {
        let ready = self.expected(0, now);
        (ready > now).then_some((self.limit, ready))
    }

    /// Gives back one call that did not leave.
    pub(super) fn give_back(&mut self) {
        if let Some((_, calls)) = self.steps.back_mut().filter(|(_, calls)| *calls > 0) {
            *calls -= 1;
            self.used -= 1;
        }
    }

    /// Returns when a call could leave that has `ahead` others before it.
    pub(super) fn expected(&self, ahead: u64, now: Instant) -> Instant {
        let mut used = self.used.saturating_add(ahead);
        if used < self.limit {
            return now;
        }
        for (began, calls) in &self.steps {
            used = used.saturating_sub(*calls);
            if used < self.limit {
                return (*began + STEP + DAY).max(now);
            }
        }
        now + DAY
    }

    fn forget(&mut self, now: Instant) {
        while let Some((_, calls)) =
            self.steps.front().filter(|(began, _)| now.saturating_duration_since(*began) >= STEP + DAY)
        {
            self.used -= calls;
            self.steps.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_spent_day_names_the_time_from_which_there_is_room() {
        let (mut daily, start) = (Daily::new(3), Instant::now());
        let later = start + Duration::from_hours(5);
        assert_eq!(daily.take(start), Ok(()));
        assert_eq!(daily.take(later), Ok(()));
        assert_eq!(daily.expected(1, later), start + STEP + DAY);
        assert_eq!(daily.take(later), Ok(()));
        let room = daily.take(later).unwrap_err();
        assert_eq!(room, start + STEP + DAY);
        assert_eq!(daily.take(room), Ok(()));
        assert_eq!(daily.take(room), Err(later + STEP + DAY));
        daily.give_back();
        assert_eq!(daily.take(room), Ok(()));
    }

    #[test]
    fn calls_that_were_counted_before_take_room_until_their_day_has_passed() {
        let now = Instant::now() + 2 * DAY;
        let ages = |ages: &[(u64, u64)]| -> Vec<_> {
            ages.iter().map(|(hours, calls)| (Duration::from_hours(*hours), *calls)).collect()
        };
        let mut daily = Daily::new(10);
        daily.take(now).unwrap();
        daily.restore(ages(&[(3, 2), (23, 5), (25, 9), (0, 1)]).into_iter(), now);
        assert_eq!(daily.take(now), Ok(()));
        let (first, second) = (now + Duration::from_hours(1) + STEP, now + Duration::from_hours(21) + STEP);
        assert_eq!((daily.take(now), daily.spent_until(now)), (Err(first), Some((10, first))));
        assert_eq!((0..9).filter(|_| daily.take(first).is_ok()).count(), 5);
        assert_eq!(daily.take(first), Err(second));
        assert_eq!((0..9).filter(|_| daily.take(second).is_ok()).count(), 2);
        // More than a lowered limit lets through.
        let mut lowered = Daily::new(1);
        lowered.restore(ages(&[(3, 7)]).into_iter(), now);
        assert_eq!(lowered.take(now), Err(second));
        assert_eq!(lowered.take(second), Ok(()));
    }

    proptest! {
        #[test]
        fn no_day_sees_more_than_its_limit(
            limit in 1u64..50,
            pauses in prop::collection::vec((0u64..5_000, prop::bool::weighted(0.05)), 1..300),
        ) {
            let start = Instant::now() + 2 * DAY;
            let (mut now, mut daily, mut left) = (start, Daily::new(limit), Vec::new());
            for (pause, restarts) in pauses {
                now += Duration::from_secs(pause);
                if restarts {
                    daily = Daily::new(limit);
                    let began = |at: &Instant| (*at - start).as_secs() / STEP.as_secs();
                    let ages = left.iter().map(|at| now - start - STEP * began(at) as u32);
                    daily.restore(ages.map(|age| (age, 1)), now);
                }
                if daily.take(now).is_ok() { left.push(now) }
                let today = left.iter().filter(|at| now - **at < DAY).count() as u64;
                prop_assert!(today <= limit);
            }
        }
    }
}
