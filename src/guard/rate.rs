//! Lets a number of cells through per minute: requests, or tokens.
//!
//! The arithmetic is governor's (GCRA, the generic cell rate algorithm). Its public `StateStore` and
//! `Clock` let us keep its one number, the *theoretical arrival time*, where we can also give cells
//! back, take more than was asked, change the rate, and hold everything until an instant. Not
//! thread-safe; its owner passes `now` and holds the lock.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::{StateStore, direct::NotKeyed};
use governor::{Quota, RateLimiter};
use tokio::time::Instant;

/// A limit of so many cells per minute, of which so many may go at once.
#[derive(Debug)]
pub struct Rate {
    governor: RateLimiter<NotKeyed, Arrival, Hand, NoOpMiddleware<Duration>>,
    arrival: Arrival,
    hand: Hand,
    origin: Instant,
    /// Time one cell takes, in nanoseconds.
    cell: u64,
    per_minute: f64,
    burst: NonZeroU32,
    /// Until when nothing is let through, in nanoseconds since the origin: time that no rate stretches.
    held: AtomicU64,
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

/// How far before its making a rate's time begins: a debt that is forgiven may reach back this far.
const BEFORE: Duration = Duration::from_hours(24);

/// The most that is owed for what was used beyond what was taken: no provider remembers for longer, and one
/// that counts nonsense must not shut itself for ever.
const A_MINUTE: u64 = 60_000_000_000;

/// The most that any number of cells takes: a limit of next to nothing must not reach to the end of time.
const A_DAY: u64 = 24 * 60 * A_MINUTE;

impl Rate {
    /// Makes a limit that lets `per_minute` cells through, of which `burst` may go at once after a pause,
    /// and at the start.
    pub fn new(per_minute: f64, burst: u64, now: Instant) -> Self {
        let (arrival, hand) = (Arrival::default(), Hand::default());
        let (cell, burst) = (time_of_one(per_minute), cells_at_once(burst));
        let governor = governor(cell, burst, &arrival, &hand);
        // Where time does not reach back so far, it begins now.
        let origin = now.checked_sub(BEFORE).unwrap_or(now);
        Self { governor, arrival, hand, origin, cell, per_minute, burst, held: AtomicU64::new(0) }
    }

    /// Returns how many cells a minute brings.
    pub fn per_minute(&self) -> f64 {
        self.per_minute
    }

    /// Returns how many cells may go at once.
    pub fn burst(&self) -> u64 {
        u64::from(self.burst.get())
    }

    /// Changes rate and burst. What has been taken stays taken, in cells; a larger burst is room at once.
    pub fn set(&mut self, per_minute: f64, burst: u64, now: Instant) {
        // What lies beyond a hold is taken in cells; the hold itself is time.
        let from = self.since_origin(now).max(self.held.load(Relaxed));
        let taken = self.arrival.0.load(Relaxed).saturating_sub(from) as f64 / self.cell as f64;
        self.per_minute = per_minute;
        (self.cell, self.burst) = (time_of_one(per_minute), cells_at_once(burst));
        self.governor = governor(self.cell, self.burst, &self.arrival, &self.hand);
        let is_held = self.held.load(Relaxed) > self.since_origin(now);
        let taken = if is_held { taken.min(self.burst() as f64 - 1.0) } else { taken };
        let ahead = (taken * self.cell as f64) as u64;
        self.arrival.0.store(from.saturating_add(ahead.min(A_DAY)), Relaxed);
    }

    /// Returns how many cells may go at `now`; below zero, how many are owed.
    pub fn level(&self, now: Instant) -> f64 {
        self.burst() as f64 - self.taken(now)
    }

    /// Takes `cells`. What exceeds the burst becomes a debt that later cells wait for.
    ///
    /// # Errors
    /// The instant from which it is worth asking again; nothing was taken then.
    pub fn take(&self, cells: u64, now: Instant) -> Result<(), Instant> {
        let at_once = u32::try_from(cells).unwrap_or(u32::MAX).min(self.burst.get());
        let Some(at_once) = NonZeroU32::new(at_once) else { return Ok(()) };
        self.hand.0.store(self.since_origin(now), Relaxed);
        // `Err` would mean more cells than the burst, which `min` has excluded.
        match self.governor.check_n(at_once) {
            Ok(Ok(())) => {
                let beyond = self.time_of(cells).saturating_sub(self.time_of(u64::from(at_once.get())));
                self.arrival.0.store(self.arrival.0.load(Relaxed).saturating_add(beyond), Relaxed);
                Ok(())
            }
            Ok(Err(not_until)) => Err(self.origin + not_until.earliest_possible()),
            Err(_) => Err(now + Duration::from_nanos(self.cell)),
        }
    }

    /// Gives back cells that were taken and not used.
    pub fn give_back(&self, cells: u64) {
        let arrival = self.arrival.0.load(Relaxed);
        self.arrival.0.store(arrival.saturating_sub(self.time_of(cells)), Relaxed);
    }

    /// Takes cells that were used without having been taken: a debt that later cells wait for, for no longer
    /// than a minute.
    pub fn owe(&self, cells: u64, now: Instant) {
        if cells > 0 {
            let arrival = self.arrival.0.load(Relaxed).max(self.since_origin(now));
            let most = self.arrival_at(f64::MIN, now);
            let owed = arrival.saturating_add(self.time_of(cells)).min(most.max(arrival));
            self.arrival.0.store(owed, Relaxed);
        }
    }

    /// Believes that no more than `available` cells are there at `now`; below zero, that so many are owed, of
    /// which a minute's are believed.
    pub fn cap(&self, available: f64, now: Instant) {
        self.arrival.0.fetch_max(self.arrival_at(available, now), Relaxed);
    }

    /// Lets nothing through before `until`, and then one cell and no burst.
    pub fn hold(&self, until: Instant) {
        self.held.fetch_max(self.since_origin(until), Relaxed);
        self.cap(1.0, until);
    }

    /// Forgets what was taken: one cell may go from `until` on, and the next when its time comes.
    pub fn begin_again(&self, until: Instant) {
        self.held.store(self.since_origin(until), Relaxed);
        self.arrival.0.store(self.arrival_at(1.0, until), Relaxed);
    }

    /// Returns when `cells` more than those already promised could leave, if nothing else is taken.
    pub fn expected(&self, cells: u64, now: Instant) -> Instant {
        let after = self.arrival.0.load(Relaxed).saturating_add(self.time_of(cells));
        let burst = self.time_of(self.burst());
        (self.origin + Duration::from_nanos(after.saturating_sub(burst))).max(now)
    }

    /// Returns how many cells of the burst are gone, more than the burst when some are owed.
    fn taken(&self, now: Instant) -> f64 {
        self.arrival.0.load(Relaxed).saturating_sub(self.since_origin(now)) as f64 / self.cell as f64
    }

    fn arrival_at(&self, available: f64, at: Instant) -> u64 {
        let missing = (self.burst() as f64 - available).max(0.0);
        let ahead = (missing * self.cell as f64) as u64;
        self.since_origin(at).saturating_add(ahead.min(self.time_of(self.burst()).saturating_add(A_MINUTE)))
    }

    fn since_origin(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.origin);
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }

    fn time_of(&self, cells: u64) -> u64 {
        self.cell.saturating_mul(cells).min(A_DAY)
    }
}

/// Rounded up: a limit is rather kept than used to the last cell.
fn time_of_one(per_minute: f64) -> u64 {
    (60_000_000_000.0 / per_minute).ceil().max(1.0) as u64
}

fn cells_at_once(burst: u64) -> NonZeroU32 {
    NonZeroU32::new(u32::try_from(burst).unwrap_or(u32::MAX)).unwrap_or(NonZeroU32::MIN)
}

fn governor(
    cell: u64,
    burst: NonZeroU32,
    arrival: &Arrival,
    hand: &Hand,
) -> RateLimiter<NotKeyed, Arrival, Hand, NoOpMiddleware<Duration>> {
    // `with_period` gives nothing for a period of zero only.
    let quota = Quota::with_period(Duration::from_nanos(cell)).unwrap_or(Quota::per_second(NonZeroU32::MIN));
    // governor counts time from what the clock shows while it is made: the origin.
    hand.0.store(0, Relaxed);
    RateLimiter::new(quota.allow_burst(burst), arrival.clone(), hand.clone())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rate(per_minute: u64, burst: u64) -> (Rate, Instant) {
        let now = Instant::now();
        (Rate::new(per_minute as f64, burst, now), now)
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
    fn a_minute_brings_its_cells_and_one_burst() {
        let (rate, start) = rate(600, 9);
        let left = drain(&rate, start, Duration::from_secs(60));
        assert!((608..=609).contains(&left.len()), "{}", left.len());
        assert_eq!(left.iter().filter(|at| **at < Duration::from_secs(1)).count(), 18);
    }

    #[test]
    fn what_is_given_back_can_be_taken_again() {
        let (rate, now) = rate(60, 1);
        assert_eq!(rate.take(1, now), Ok(()));
        assert!(rate.take(1, now).is_err());
        rate.give_back(1);
        assert_eq!(rate.take(1, now), Ok(()));
    }

    #[test]
    fn more_than_a_burst_is_a_debt() {
        let (rate, now) = rate(6_000, 100);
        assert_eq!(rate.take(1_000, now), Ok(()));
        assert_eq!(rate.level(now), -900.0);
        // 900 cells at 100 a second, and the one that is asked for.
        assert_eq!((rate.take(1, now).unwrap_err() - now).as_millis(), 9_010);
    }

    #[test]
    fn no_more_is_owed_than_a_minute_brings_whatever_a_provider_counts() {
        let (rate, now) = rate(600, 9);
        rate.owe(u64::MAX, now);
        rate.owe(u64::MAX, now);
        assert_eq!(rate.level(now).round(), -600.0);
        rate.cap(f64::MIN, now);
        assert_eq!(rate.level(now).round(), -600.0);
        assert_eq!((rate.take(1, now).unwrap_err() - now).as_millis(), 60_100);
    }

    #[test]
    fn a_call_of_any_size_can_be_taken_and_given_back() {
        let (rate, now) = rate(1, 1);
        assert_eq!(rate.take(u64::MAX, now), Ok(()));
        assert_eq!(rate.take(1, now), Err(now + Duration::from_hours(24)));
        rate.give_back(u64::MAX);
        assert_eq!(rate.take(1, now), Ok(()));
    }

    #[test]
    fn a_hold_lets_nothing_through_and_is_never_shortened() {
        let (rate, now) = rate(6_000, 100);
        let until = now + Duration::from_secs(30);
        rate.hold(until);
        rate.hold(now + Duration::from_secs(5));
        assert_eq!(rate.take(1, now).unwrap_err(), until);
        assert_eq!(rate.take(1, until), Ok(()));
        assert!(rate.take(1, until).is_err());
    }

    #[test]
    fn a_larger_burst_is_room_at_once_and_a_new_rate_keeps_the_level() {
        let (mut rate, now) = rate(600, 10);
        assert_eq!(rate.take(10, now), Ok(()));
        rate.set(600.0, 40, now);
        assert_eq!(rate.level(now).round(), 30.0);
        rate.set(60.0, 40, now);
        assert_eq!(rate.level(now).round(), 30.0);
        assert_eq!(rate.level(now + Duration::from_secs(5)).round(), 35.0);
        rate.set(60.0, 10, now);
        assert_eq!(rate.level(now).round(), 0.0);
    }

    #[test]
    fn a_slower_rate_stretches_no_hold() {
        let (mut rate, now) = rate(600, 10);
        let until = now + Duration::from_secs(20);
        rate.hold(until);
        rate.set(180.0, 3, now);
        assert_eq!(rate.take(1, now), Err(until));
        assert_eq!(rate.take(1, until), Ok(()));
        assert!(rate.take(1, until).is_err());
    }

    #[test]
    fn a_debt_can_be_forgotten() {
        let (rate, now) = rate(600, 10);
        assert_eq!(rate.take(500, now), Ok(()));
        let soon = now + Duration::from_secs(1);
        rate.begin_again(soon);
        assert_eq!(rate.take(1, now), Err(soon));
        assert_eq!(rate.take(1, soon), Ok(()));
        assert_eq!(rate.take(1, soon), Err(soon + Duration::from_millis(100)));
    }

    proptest! {
        #[test]
        fn no_window_sees_more_than_its_time_and_one_burst(
            per_minute in 1u64..5_000,
            burst in 1u64..200,
            pauses in proptest::collection::vec(0u64..5_000, 1..200),
        ) {
            let (rate, start) = rate(per_minute, burst);
            let (mut now, mut left) = (start, Vec::new());
            for pause in pauses {
                now += Duration::from_millis(pause);
                for _ in 0..250 {
                    if rate.take(1, now).is_err() { break }
                    left.push(now);
                }
            }
            for window in [1u64, 10, 60] {
                let mut first = 0;
                for (last, at) in left.iter().enumerate() {
                    while *at - left[first] >= Duration::from_secs(window) { first += 1 }
                    let within = (last - first + 1) as f64;
                    let allowed = per_minute as f64 / 60.0 * window as f64 + burst as f64;
                    prop_assert!(within <= allowed + 1e-6, "{within} in {window} s, {allowed} allowed");
                }
            }
        }

        #[test]
        fn asking_again_when_told_succeeds(
            per_minute in 1u64..1_000_000,
            burst in 1u64..10_000,
            cells in 1u64..100_000,
        ) {
            let (rate, now) = rate(per_minute, burst);
            prop_assume!(rate.take(1, now).is_ok());
            if let Err(ready) = rate.take(cells, now) {
                prop_assert!(ready > now);
                prop_assert_eq!(rate.take(cells, ready), Ok(()));
            }
        }
    }
}
