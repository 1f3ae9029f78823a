//! Lets a number of cells through per minute: requests, or tokens.
//!
//! The arithmetic is governor's (GCRA, the generic cell rate algorithm). Its public `StateStore` and
//! `Clock` let us keep its one number, the *theoretical arrival time*, where we can also give cells
//! back, take more than was asked, and hold everything until an instant. Not thread-safe; its owner
//! passes `now` and holds the lock.

use std::num::{NonZeroU32, NonZeroU64};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::{StateStore, direct::NotKeyed};
use governor::{Quota, RateLimiter};
use tokio::time::Instant;

/// A limit of so many cells per minute.
#[derive(Debug)]
pub struct Rate {
    governor: RateLimiter<NotKeyed, Arrival, Hand, NoOpMiddleware<Duration>>,
    arrival: Arrival,
    hand: Hand,
    origin: Instant,
    /// Time one cell takes.
    cell: Duration,
    per_minute: u64,
    burst: u32,
}

/// governor's state: the theoretical arrival time, in nanoseconds since the origin.
#[derive(Debug, Clone, Default)]
struct Arrival(Arc<AtomicU64>);

impl StateStore for Arrival {
    type Key = NotKeyed;

    fn measure_and_replace<T, F, E>(&self, _: &NotKeyed, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let (outcome, next) = decide(Some(Nanos::new(self.0.load(Relaxed))))?;
        self.0.store(next.as_u64(), Relaxed);
        Ok(outcome)
    }
}

/// A clock that shows what its owner set: nanoseconds since the origin.
#[derive(Debug, Clone, Default)]
struct Hand(Arc<AtomicU64>);

impl Clock for Hand {
    type Instant = Duration;

    fn now(&self) -> Duration {
        Duration::from_nanos(self.0.load(Relaxed))
    }
}

impl Rate {
    /// Makes a limit that lets `per_minute` cells through, of which about one second's worth may go at
    /// once after a pause. It starts with room for a single cell: a limit that starts full lets a
    /// burst out that providers who count by the second answer with 429.
    pub fn new(per_minute: NonZeroU64, now: Instant) -> Self {
        let burst = u32::try_from(per_minute.get().div_ceil(60)).unwrap_or(u32::MAX).max(1);
        let cell = Duration::from_nanos((60_000_000_000 / per_minute.get()).max(1));
        let (arrival, hand) = (Arrival::default(), Hand::default());
        // `with_period` gives nothing for a period of zero only.
        let quota = Quota::with_period(cell).unwrap_or(Quota::per_second(NonZeroU32::MIN));
        let quota = quota.allow_burst(NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN));
        let rate = Self {
            governor: RateLimiter::new(quota, arrival.clone(), hand.clone()),
            arrival,
            hand,
            origin: now,
            cell,
            per_minute: per_minute.get(),
            burst,
        };
        rate.cap(1, now);
        rate
    }

    /// Returns how many cells a minute brings.
    pub fn per_minute(&self) -> u64 {
        self.per_minute
    }

    /// Takes `cells`. What exceeds the burst becomes a debt that later cells wait for.
    ///
    /// # Errors
    /// The instant from which it is worth asking again; nothing was taken then.
    pub fn take(&self, cells: u64, now: Instant) -> Result<(), Instant> {
        let Some(at_once) = NonZeroU32::new(u32::try_from(cells).unwrap_or(u32::MAX).min(self.burst)) else {
            return Ok(());
        };
        let since = self.since_origin(now);
        self.hand.0.store(since, Relaxed);
        // `Err` would mean more cells than the burst, which `min` has excluded.
        match self.governor.check_n(at_once) {
            Ok(Ok(())) => {
                self.owe(cells - u64::from(at_once.get()), now);
                Ok(())
            }
            Ok(Err(not_until)) => Err(self.origin + not_until.earliest_possible()),
            Err(_) => Err(now + self.cell),
        }
    }

    /// Gives back cells that were taken and not used.
    pub fn give_back(&self, cells: u64) {
        let arrival = self.arrival.0.load(Relaxed);
        self.arrival.0.store(arrival.saturating_sub(self.time_of(cells)), Relaxed);
    }

    /// Takes cells that were used without having been taken: a debt that later cells wait for.
    pub fn owe(&self, cells: u64, now: Instant) {
        if cells > 0 {
            let arrival = self.arrival.0.load(Relaxed).max(self.since_origin(now));
            self.arrival.0.store(arrival.saturating_add(self.time_of(cells)), Relaxed);
        }
    }

    /// Lets nothing through before `until`, and then one cell and no burst.
    pub fn hold(&self, until: Instant) {
        self.cap(1, until);
    }

    /// Believes that no more than `available` cells are there at `now`.
    pub fn cap(&self, available: u64, now: Instant) {
        let missing = u64::from(self.burst).saturating_sub(available);
        let arrival = self.since_origin(now).saturating_add(self.time_of(missing));
        self.arrival.0.fetch_max(arrival, Relaxed);
    }

    /// Returns when `cells` more than those already promised could leave, if nothing else is taken.
    pub fn expected(&self, cells: u64, now: Instant) -> Instant {
        let after = self.arrival.0.load(Relaxed).saturating_add(self.time_of(cells));
        let burst = self.time_of(u64::from(self.burst));
        (self.origin + Duration::from_nanos(after.saturating_sub(burst))).max(now)
    }

    fn since_origin(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.origin);
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }

    fn time_of(&self, cells: u64) -> u64 {
        let cell = u64::try_from(self.cell.as_nanos()).unwrap_or(u64::MAX);
        cell.saturating_mul(cells)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rate(per_minute: u64) -> (Rate, Instant) {
        let now = Instant::now();
        (Rate::new(NonZeroU64::new(per_minute).unwrap(), now), now)
    }

    /// Takes as many cells as possible until `end` and returns when each left, since the start.
    fn drain(rate: &Rate, start: Instant, end: Duration) -> Vec<Duration> {
        let (mut now, mut left) = (start, Vec::new());
        while now - start < end {
            match rate.take(1, now) {
                Ok(()) => left.push(now - start),
                Err(ready) => now = ready,
            }
        }
        left
    }

    #[test]
    fn a_minute_brings_no_more_than_its_cells() {
        let (rate, start) = rate(600);
        let minute = Duration::from_secs(60);
        let left = drain(&rate, start, minute);
        assert!((598..=601).contains(&left.len()), "{}", left.len());
        // Not even the first second lets a burst out.
        assert!(left.iter().filter(|at| **at < Duration::from_secs(1)).count() <= 11);
    }

    #[test]
    fn what_is_given_back_can_be_taken_again() {
        let (rate, now) = rate(60);
        assert_eq!(rate.take(1, now), Ok(()));
        assert!(rate.take(1, now).is_err());
        rate.give_back(1);
        assert_eq!(rate.take(1, now), Ok(()));
    }

    #[test]
    fn more_than_a_burst_is_a_debt() {
        let (rate, now) = rate(6_000);
        let later = now + Duration::from_secs(10);
        assert_eq!(rate.take(1_000, later), Ok(()));
        let ready = rate.take(1, later).unwrap_err();
        // 1,000 cells at 100 a second, less the 100 of the burst that had gathered.
        assert_eq!((ready - later).as_millis(), 9_010);
    }

    #[test]
    fn a_hold_lets_nothing_through_and_is_never_shortened() {
        let (rate, now) = rate(6_000);
        rate.hold(now + Duration::from_secs(30));
        rate.hold(now + Duration::from_secs(5));
        assert_eq!(rate.take(1, now).unwrap_err(), now + Duration::from_secs(30));
        assert_eq!(rate.take(1, now + Duration::from_secs(30)), Ok(()));
        assert!(rate.take(1, now + Duration::from_secs(30)).is_err());
    }

    proptest! {
        #[test]
        fn no_minute_sees_more_than_the_limit_and_one_burst(
            per_minute in 1u64..5_000,
            pauses in proptest::collection::vec(0u64..5_000, 1..200),
        ) {
            let (rate, start) = rate(per_minute);
            let (mut now, mut left) = (start, Vec::new());
            for pause in pauses {
                now += Duration::from_millis(pause);
                for _ in 0..50 {
                    if rate.take(1, now).is_err() { break }
                    left.push(now);
                }
            }
            let burst = per_minute.div_ceil(60);
            let mut first = 0;
            for (last, at) in left.iter().enumerate() {
                while *at - left[first] >= Duration::from_secs(60) { first += 1 }
                let within = (last - first + 1) as u64;
                prop_assert!(within <= per_minute + burst, "{within} in a minute");
            }
        }

        #[test]
        fn asking_again_when_told_succeeds(per_minute in 1u64..1_000_000, cells in 1u64..100_000) {
            let (rate, now) = rate(per_minute);
            prop_assume!(rate.take(1, now).is_ok());
            if let Err(ready) = rate.take(cells, now) {
                prop_assert!(ready > now);
                prop_assert_eq!(rate.take(cells, ready), Ok(()));
            }
        }
    }
}
