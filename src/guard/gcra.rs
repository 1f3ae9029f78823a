//! Rate limiter: admits a number of permits per minute, which are requests or tokens.
//!
//! The algorithm is GCRA (generic cell rate algorithm) from the `governor` crate. This file implements the
//! crate's public traits `StateStore` and `Clock`, and so owns the only state of the algorithm, the
//! *theoretical arrival time* (TAT). It can therefore return permits, take more than the burst, change the
//! rate, and block everything until an instant. Not thread-safe; the owner passes `now` and holds the lock.

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

/// A limit of permits per minute, with a burst.
#[derive(Debug)]
pub struct GcraLimiter {
    governor: RateLimiter<NotKeyed, Tat, ManualClock, NoOpMiddleware<Duration>>,
    tat: Tat,
    clock: ManualClock,
    origin: Instant,
    /// Time that one permit takes, in nanoseconds.
    nanos_per_permit: u64,
    per_minute: f64,
    burst: NonZeroU32,
    /// Until when nothing is admitted, in nanoseconds since the origin. A change of the rate does not
    /// stretch this time.
    held_until: AtomicU64,
}

/// governor's state: the theoretical arrival time, in nanoseconds since the origin.
#[derive(Debug, Clone, Default)]
struct Tat(Arc<AtomicU64>);

impl StateStore for Tat {
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

/// A clock that returns what its owner set: nanoseconds since the origin.
#[derive(Debug, Clone, Default)]
struct ManualClock(Arc<AtomicU64>);

impl Clock for ManualClock {
    type Instant = Duration;

    fn now(&self) -> Duration {
        Duration::from_nanos(self.0.load(Relaxed))
    }
}

/// How far before its creation the time of a limiter begins: clearing a debt may move the TAT back this
/// far.
const MAX_FORGIVEN_DEBT_AGE: Duration = Duration::from_hours(24);

const NANOS_PER_MINUTE: u64 = 60_000_000_000;

/// Maximum debt for permits that were used without having been taken: no provider counts over a longer
/// time, and one that reports an implausible number must not block the limiter for ever.
const MAX_DEBT_NANOS: u64 = NANOS_PER_MINUTE;

/// Maximum time of any number of permits: a very low limit must not overflow the time.
const MAX_WAIT_NANOS: u64 = 24 * 60 * NANOS_PER_MINUTE;

impl GcraLimiter {
    /// Creates a limit of `per_minute` permits, of which `burst` may be taken at once after a pause and at
    /// the start.
    pub fn new(per_minute: f64, burst: u64, now: Instant) -> Self {
        let tat = Tat::default();
        let clock = ManualClock::default();
        let nanos_per_permit = nanos_per_permit(per_minute);
        let burst = burst_permits(burst);
        let governor = build_governor(nanos_per_permit, burst, &tat, &clock);
        // If the clock cannot represent an instant that early, the time begins now.
        let origin = now.checked_sub(MAX_FORGIVEN_DEBT_AGE).unwrap_or(now);
        let held_until = AtomicU64::new(0);
        Self { governor, tat, clock, origin, nanos_per_permit, per_minute, burst, held_until }
    }

    /// Returns the rate.
    pub fn per_minute(&self) -> f64 {
        self.per_minute
    }

    /// Returns the burst size.
    pub fn burst(&self) -> u64 {
        u64::from(self.burst.get())
    }

    /// Changes rate and burst. Permits that are taken stay taken; a larger burst is available at once.
    pub fn set(&mut self, per_minute: f64, burst: u64, now: Instant) {
        // Time after a hold is converted to permits; the hold itself stays time.
        let from = self.nanos_since_origin(now).max(self.held_until.load(Relaxed));
        let consumed = self.tat.0.load(Relaxed).saturating_sub(from) as f64 / self.nanos_per_permit as f64;
        self.per_minute = per_minute;
        self.nanos_per_permit = nanos_per_permit(per_minute);
        self.burst = burst_permits(burst);
        self.governor = build_governor(self.nanos_per_permit, self.burst, &self.tat, &self.clock);
        let is_held = self.held_until.load(Relaxed) > self.nanos_since_origin(now);
        let consumed = if is_held { consumed.min(self.burst() as f64 - 1.0) } else { consumed };
        let ahead = (consumed * self.nanos_per_permit as f64) as u64;
        self.tat.0.store(from.saturating_add(ahead.min(MAX_WAIT_NANOS)), Relaxed);
    }

    /// Returns the permits available at `now`; below zero, the debt.
    pub fn level(&self, now: Instant) -> f64 {
        self.burst() as f64 - self.consumed(now)
    }

    /// Takes `permits`. What exceeds the burst becomes a debt that later permits wait for.
    ///
    /// # Errors
    /// The instant from which a retry is worthwhile; nothing was taken.
    pub fn take(&self, permits: u64, now: Instant) -> Result<(), Instant> {
        let at_once = u32::try_from(permits).unwrap_or(u32::MAX).min(self.burst.get());
        let Some(at_once) = NonZeroU32::new(at_once) else { return Ok(()) };
        self.clock.0.store(self.nanos_since_origin(now), Relaxed);
        // `Err` would mean more permits than the burst, which `min` excludes.
        match self.governor.check_n(at_once) {
            Ok(Ok(())) => {
                let beyond = self.nanos_for(permits).saturating_sub(self.nanos_for(u64::from(at_once.get())));
                self.tat.0.store(self.tat.0.load(Relaxed).saturating_add(beyond), Relaxed);
                Ok(())
            }
            Ok(Err(not_until)) => Err(self.origin + not_until.earliest_possible()),
            Err(_) => Err(now + Duration::from_nanos(self.nanos_per_permit)),
        }
    }

    /// Returns permits that were taken and not used.
    pub fn give_back(&self, permits: u64) {
        let tat = self.tat.0.load(Relaxed);
        self.tat.0.store(tat.saturating_sub(self.nanos_for(permits)), Relaxed);
    }

    /// Takes permits that were used without having been taken. Later permits wait for this debt, a minute
    /// at most.
    pub fn add_debt(&self, permits: u64, now: Instant) {
        if permits > 0 {
            let tat = self.tat.0.load(Relaxed).max(self.nanos_since_origin(now));
            let max = self.tat_for_level(f64::MIN, now);
            let with_debt = tat.saturating_add(self.nanos_for(permits)).min(max.max(tat));
            self.tat.0.store(with_debt, Relaxed);
        }
    }

    /// Reduces the level at `now` to `level` if it is higher. A negative level is a debt, of at most a
    /// minute.
    pub fn cap_level(&self, level: f64, now: Instant) {
        self.tat.0.fetch_max(self.tat_for_level(level, now), Relaxed);
    }

    /// Admits nothing before `until`, and then one permit without a burst.
    pub fn hold(&self, until: Instant) {
        self.held_until.fetch_max(self.nanos_since_origin(until), Relaxed);
        self.cap_level(1.0, until);
    }

    /// Clears the debt: one permit is available from `until` on, and each further permit in its turn.
    pub fn reset(&self, until: Instant) {
        self.held_until.store(self.nanos_since_origin(until), Relaxed);
        self.tat.0.store(self.tat_for_level(1.0, until), Relaxed);
    }

    /// Returns when `permits` more than those already taken would be available if nothing else is taken.
    pub fn expected_at(&self, permits: u64, now: Instant) -> Instant {
        let after = self.tat.0.load(Relaxed).saturating_add(self.nanos_for(permits));
        let burst = self.nanos_for(self.burst());
        (self.origin + Duration::from_nanos(after.saturating_sub(burst))).max(now)
    }

    /// Returns how many permits of the burst are taken; more than the burst when there is a debt.
    fn consumed(&self, now: Instant) -> f64 {
        self.tat.0.load(Relaxed).saturating_sub(self.nanos_since_origin(now)) as f64
            / self.nanos_per_permit as f64
    }

    fn tat_for_level(&self, level: f64, at: Instant) -> u64 {
        let missing = (self.burst() as f64 - level).max(0.0);
        let ahead = (missing * self.nanos_per_permit as f64) as u64;
        self.nanos_since_origin(at)
            .saturating_add(ahead.min(self.nanos_for(self.burst()).saturating_add(MAX_DEBT_NANOS)))
    }

    fn nanos_since_origin(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.origin);
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }

    fn nanos_for(&self, permits: u64) -> u64 {
        self.nanos_per_permit.saturating_mul(permits).min(MAX_WAIT_NANOS)
    }
}

/// Rounded up, so that the limit is never exceeded.
fn nanos_per_permit(per_minute: f64) -> u64 {
    (NANOS_PER_MINUTE as f64 / per_minute).ceil().max(1.0) as u64
}

fn burst_permits(burst: u64) -> NonZeroU32 {
    NonZeroU32::new(u32::try_from(burst).unwrap_or(u32::MAX)).unwrap_or(NonZeroU32::MIN)
}

fn build_governor(
    nanos_per_permit: u64,
    burst: NonZeroU32,
    tat: &Tat,
    clock: &ManualClock,
) -> RateLimiter<NotKeyed, Tat, ManualClock, NoOpMiddleware<Duration>> {
    // `with_period` returns `None` only for a period of zero.
    let period = Duration::from_nanos(nanos_per_permit);
    let quota = Quota::with_period(period).unwrap_or(Quota::per_second(NonZeroU32::MIN));
    // governor counts time from what the clock returns at construction, which must be the origin.
    clock.0.store(0, Relaxed);
    RateLimiter::new(quota.allow_burst(burst), tat.clone(), clock.clone())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn limiter(per_minute: u64, burst: u64) -> (GcraLimiter, Instant) {
        let now = Instant::now();
        (GcraLimiter::new(per_minute as f64, burst, now), now)
    }

    /// Takes permits one by one until `end` and returns the time of each since the start.
    fn drain(limiter: &GcraLimiter, start: Instant, end: Duration) -> Vec<Duration> {
        let mut now = start;
        let mut taken = Vec::new();
        while now - start < end {
            match limiter.take(1, now) {
                Ok(()) => taken.push(now - start),
                Err(ready) => now = ready,
            }
        }
        taken
    }

    #[test]
    fn a_minute_admits_its_permits_and_one_burst() {
        let (limiter, start) = limiter(600, 9);
        let taken = drain(&limiter, start, Duration::from_secs(60));
        assert!((608..=609).contains(&taken.len()), "{}", taken.len());
        assert_eq!(taken.iter().filter(|at| **at < Duration::from_secs(1)).count(), 18);
    }

    #[test]
    fn returned_permits_can_be_taken_again() {
        let (limiter, now) = limiter(60, 1);
        assert_eq!(limiter.take(1, now), Ok(()));
        assert!(limiter.take(1, now).is_err());
        limiter.give_back(1);
        assert_eq!(limiter.take(1, now), Ok(()));
    }

    #[test]
    fn permits_beyond_the_burst_become_a_debt() {
        let (limiter, now) = limiter(6_000, 100);
        assert_eq!(limiter.take(1_000, now), Ok(()));
        assert_eq!(limiter.level(now), -900.0);
        // 900 permits at 100 a second, and the one that is requested.
        assert_eq!((limiter.take(1, now).unwrap_err() - now).as_millis(), 9_010);
    }

    #[test]
    fn a_debt_is_at_most_one_minute() {
        let (limiter, now) = limiter(600, 9);
        limiter.add_debt(u64::MAX, now);
        limiter.add_debt(u64::MAX, now);
        assert_eq!(limiter.level(now).round(), -600.0);
        limiter.cap_level(f64::MIN, now);
        assert_eq!(limiter.level(now).round(), -600.0);
        assert_eq!((limiter.take(1, now).unwrap_err() - now).as_millis(), 60_100);
    }

    #[test]
    fn any_number_of_permits_can_be_taken_and_given_back() {
        let (limiter, now) = limiter(1, 1);
        assert_eq!(limiter.take(u64::MAX, now), Ok(()));
        assert_eq!(limiter.take(1, now), Err(now + Duration::from_hours(24)));
        limiter.give_back(u64::MAX);
        assert_eq!(limiter.take(1, now), Ok(()));
    }

    #[test]
    fn a_hold_admits_nothing_and_is_never_shortened() {
        let (limiter, now) = limiter(6_000, 100);
        let until = now + Duration::from_secs(30);
        limiter.hold(until);
        limiter.hold(now + Duration::from_secs(5));
        assert_eq!(limiter.take(1, now).unwrap_err(), until);
        assert_eq!(limiter.take(1, until), Ok(()));
        assert!(limiter.take(1, until).is_err());
    }

    #[test]
    fn a_larger_burst_is_available_at_once_and_a_new_rate_keeps_the_level() {
        let (mut limiter, now) = limiter(600, 10);
        assert_eq!(limiter.take(10, now), Ok(()));
        limiter.set(600.0, 40, now);
        assert_eq!(limiter.level(now).round(), 30.0);
        limiter.set(60.0, 40, now);
        assert_eq!(limiter.level(now).round(), 30.0);
        assert_eq!(limiter.level(now + Duration::from_secs(5)).round(), 35.0);
        limiter.set(60.0, 10, now);
        assert_eq!(limiter.level(now).round(), 0.0);
    }

    #[test]
    fn a_lower_rate_does_not_stretch_a_hold() {
        let (mut limiter, now) = limiter(600, 10);
        let until = now + Duration::from_secs(20);
        limiter.hold(until);
        limiter.set(180.0, 3, now);
        assert_eq!(limiter.take(1, now), Err(until));
        assert_eq!(limiter.take(1, until), Ok(()));
        assert!(limiter.take(1, until).is_err());
    }

    #[test]
    fn a_reset_clears_the_debt() {
        let (limiter, now) = limiter(600, 10);
        assert_eq!(limiter.take(500, now), Ok(()));
        let ready = now + Duration::from_secs(1);
        limiter.reset(ready);
        assert_eq!(limiter.take(1, now), Err(ready));
        assert_eq!(limiter.take(1, ready), Ok(()));
        assert_eq!(limiter.take(1, ready), Err(ready + Duration::from_millis(100)));
    }

    proptest! {
        #[test]
        fn no_window_admits_more_than_its_permits_and_one_burst(
            per_minute in 1u64..5_000,
            burst in 1u64..200,
            pauses in proptest::collection::vec(0u64..5_000, 1..200),
        ) {
            let (limiter, start) = limiter(per_minute, burst);
            let mut now = start;
            let mut taken = Vec::new();
            for pause in pauses {
                now += Duration::from_millis(pause);
                for _ in 0..250 {
                    if limiter.take(1, now).is_err() { break }
                    taken.push(now);
                }
            }
            for window in [1u64, 10, 60] {
                let mut first = 0;
                for (last, at) in taken.iter().enumerate() {
                    while *at - taken[first] >= Duration::from_secs(window) { first += 1 }
                    let within = (last - first + 1) as f64;
                    let allowed = per_minute as f64 / 60.0 * window as f64 + burst as f64;
                    prop_assert!(within <= allowed + 1e-6, "{within} in {window} s, {allowed} allowed");
                }
            }
        }

        #[test]
        fn a_retry_at_the_returned_instant_succeeds(
            per_minute in 1u64..1_000_000,
            burst in 1u64..10_000,
            permits in 1u64..100_000,
        ) {
            let (limiter, now) = limiter(per_minute, burst);
            prop_assume!(limiter.take(1, now).is_ok());
            if let Err(ready) = limiter.take(permits, now) {
                prop_assert!(ready > now);
                prop_assert_eq!(limiter.take(permits, ready), Ok(()));
            }
        }
    }
}
