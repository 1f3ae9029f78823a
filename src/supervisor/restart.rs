//! Decides whether a child is restarted after an exit, and after which back-off.
//!
//! The rule is OTP's: with more than `max` restarts within `period` the restarts are exhausted. In addition
//! there is a back-off that doubles with each consecutive exit and starts again after an incarnation that
//! lasted long enough to count as healthy. Pure: the caller passes `now` and the jitter.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::exit::Exit;

/// Which exits cause a restart.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Restart {
    /// Every exit.
    #[default]
    Permanent,
    /// Every exit but a normal one.
    Transient,
    /// None.
    Temporary,
}

/// Limit on restarts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Intensity {
    /// Restarts allowed within `period`.
    pub max: u32,
    /// The sliding window in which restarts are counted.
    pub period: Duration,
}

impl Default for Intensity {
    fn default() -> Self {
        Self { max: 10, period: Duration::from_secs(60) }
    }
}

/// The back-off before a restart: doubles from `min` to `max`, plus or minus a quarter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RestartBackoff {
    /// Back-off after the first exit.
    pub min: Duration,
    /// Longest back-off.
    pub max: Duration,
    /// An incarnation this long resets the back-off.
    pub healthy_after: Duration,
}

impl Default for RestartBackoff {
    fn default() -> Self {
        Self {
            min: Duration::from_millis(100),
            max: Duration::from_secs(30),
            healthy_after: Duration::from_secs(30),
        }
    }
}

/// Restart limit and back-off.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RestartPolicy {
    /// Limit on restarts.
    pub intensity: Intensity,
    /// Back-off before each restart.
    pub backoff: RestartBackoff,
}

/// What follows an exit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// The child is restarted after this back-off.
    RestartAfter(Duration),
    /// Its restarts are exhausted.
    Exhausted,
    /// It is not to be restarted after such an exit.
    Remove,
}

/// The restarts of one child.
#[derive(Debug, Clone)]
pub struct RestartTracker {
    kind: Restart,
    policy: RestartPolicy,
    started_at: Instant,
    /// Instants of the restarts within the last period.
    window: VecDeque<Instant>,
    /// Consecutive exits without a healthy incarnation between them.
    streak: u32,
    total: u64,
}

impl RestartTracker {
    /// Creates a tracker; the first incarnation starts at `now`.
    pub fn new(kind: Restart, policy: RestartPolicy, now: Instant) -> Self {
        Self { kind, policy, started_at: now, window: VecDeque::new(), streak: 0, total: 0 }
    }

    /// Records that an incarnation starts.
    pub fn on_start(&mut self, now: Instant) {
        self.started_at = now;
    }

    /// Decides what follows an exit. `jitter` in 0..=1 lengthens or shortens the back-off.
    pub fn on_exit(&mut self, now: Instant, exit: &Exit, jitter: f64) -> Decision {
        let may_restart = match self.kind {
            Restart::Permanent => true,
            Restart::Transient => *exit != Exit::Normal,
            Restart::Temporary => false,
        };
        if !may_restart {
            return Decision::Remove;
        }
        if now.saturating_duration_since(self.started_at) >= self.policy.backoff.healthy_after {
            self.streak = 0;
        }
        self.streak = self.streak.saturating_add(1);
        let Intensity { max, period } = self.policy.intensity;
        while self.window.front().is_some_and(|&then| now.saturating_duration_since(then) > period) {
            self.window.pop_front();
        }
        if self.window.len() >= max as usize {
            return Decision::Exhausted;
        }
        self.window.push_back(now);
        self.total += 1;
        Decision::RestartAfter(self.backoff(jitter))
    }

    /// Forgets past exits, for a manual restart.
    pub fn reset(&mut self) {
        self.window.clear();
        self.streak = 0;
    }

    /// Returns the total number of restarts.
    pub fn total(&self) -> u64 {
        self.total
    }

    fn backoff(&self, jitter: f64) -> Duration {
        let RestartBackoff { min, max, .. } = self.policy.backoff;
        let doubled = 1_u32.checked_shl(self.streak.saturating_sub(1)).unwrap_or(u32::MAX);
        let backoff = min.saturating_mul(doubled).min(max);
        // Integers, because `mul_f64` panics on overflow and the bounds come from a configuration.
        let permille = 750 + (jitter.clamp(0.0, 1.0) * 500.0) as u32;
        (backoff / 1000).saturating_mul(permille)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MEAN_JITTER: f64 = 0.5;

    fn policy(max: u32, period_s: u64) -> RestartPolicy {
        RestartPolicy {
            intensity: Intensity { max, period: Duration::from_secs(period_s) },
            backoff: RestartBackoff {
                min: Duration::from_secs(1),
                max: Duration::from_secs(8),
                healthy_after: Duration::from_secs(100),
            },
        }
    }

    fn panicked() -> Exit {
        Exit::Panicked("boom".into())
    }

    #[test]
    fn the_backoff_doubles_up_to_its_maximum() {
        let now = Instant::now();
        let mut tracker = RestartTracker::new(Restart::Permanent, policy(9, 60), now);
        let backoffs: Vec<_> = (0..5).map(|_| tracker.on_exit(now, &panicked(), MEAN_JITTER)).collect();
        assert_eq!(backoffs, [1, 2, 4, 8, 8].map(|s| Decision::RestartAfter(Duration::from_secs(s))));
        assert_eq!(tracker.total(), 5);
    }

    #[test]
    fn a_healthy_incarnation_resets_the_backoff() {
        let mut now = Instant::now();
        let mut tracker = RestartTracker::new(Restart::Permanent, policy(9, 60), now);
        tracker.on_exit(now, &panicked(), MEAN_JITTER);
        tracker.on_exit(now, &panicked(), MEAN_JITTER);
        tracker.on_start(now);
        now += Duration::from_secs(100);
        let decision = tracker.on_exit(now, &panicked(), MEAN_JITTER);
        assert_eq!(decision, Decision::RestartAfter(Duration::from_secs(1)));
    }

    #[test]
    fn one_restart_more_than_allowed_exhausts_them_until_the_period_has_passed() {
        let mut now = Instant::now();
        let mut tracker = RestartTracker::new(Restart::Permanent, policy(2, 60), now);
        assert!(matches!(tracker.on_exit(now, &panicked(), MEAN_JITTER), Decision::RestartAfter(_)));
        assert!(matches!(tracker.on_exit(now, &panicked(), MEAN_JITTER), Decision::RestartAfter(_)));
        assert_eq!(
            tracker.on_exit(now + Duration::from_secs(60), &panicked(), MEAN_JITTER),
            Decision::Exhausted
        );
        now += Duration::from_secs(61);
        assert!(matches!(tracker.on_exit(now, &panicked(), MEAN_JITTER), Decision::RestartAfter(_)));
    }

    #[test]
    fn a_reset_restores_all_restarts() {
        let now = Instant::now();
        let mut tracker = RestartTracker::new(Restart::Permanent, policy(1, 60), now);
        tracker.on_exit(now, &panicked(), MEAN_JITTER);
        assert_eq!(tracker.on_exit(now, &panicked(), MEAN_JITTER), Decision::Exhausted);
        tracker.reset();
        let decision = tracker.on_exit(now, &panicked(), MEAN_JITTER);
        assert_eq!(decision, Decision::RestartAfter(Duration::from_secs(1)));
    }

    #[test]
    fn without_allowed_restarts_the_first_exit_exhausts_them() {
        let now = Instant::now();
        let mut tracker = RestartTracker::new(Restart::Permanent, policy(0, 60), now);
        assert_eq!(tracker.on_exit(now, &Exit::Killed, MEAN_JITTER), Decision::Exhausted);
    }

    #[test]
    fn the_kind_selects_the_exits_that_cause_a_restart() {
        let now = Instant::now();
        for (kind, exit, again) in [
            (Restart::Permanent, Exit::Normal, true),
            (Restart::Permanent, panicked(), true),
            (Restart::Transient, Exit::Normal, false),
            (Restart::Transient, panicked(), true),
            (Restart::Transient, Exit::Killed, true),
            (Restart::Temporary, Exit::Normal, false),
            (Restart::Temporary, panicked(), false),
            (Restart::Temporary, Exit::Killed, false),
        ] {
            let decision = RestartTracker::new(kind, policy(9, 60), now).on_exit(now, &exit, MEAN_JITTER);
            assert_eq!(decision != Decision::Remove, again, "{kind:?} {exit:?}");
        }
    }

    #[test]
    fn extreme_settings_do_not_panic() {
        let now = Instant::now();
        let backoff = RestartBackoff { min: Duration::MAX, max: Duration::MAX, healthy_after: Duration::MAX };
        let intensity = Intensity { max: u32::MAX, period: Duration::MAX };
        let mut tracker = RestartTracker::new(Restart::Permanent, RestartPolicy { intensity, backoff }, now);
        for jitter in [f64::NAN, f64::INFINITY, -1.0, 1e300] {
            assert!(matches!(tracker.on_exit(now, &panicked(), jitter), Decision::RestartAfter(_)));
        }
    }

    proptest! {
        #[test]
        fn no_sliding_period_has_more_restarts_than_allowed(
            gaps_ms in prop::collection::vec(0_u64..5_000, 1..200),
            max in 0_u32..6,
            period_s in 1_u64..20,
        ) {
            let mut now = Instant::now();
            let mut tracker = RestartTracker::new(Restart::Permanent, policy(max, period_s), now);
            let mut granted = Vec::new();
            for gap in gaps_ms {
                now += Duration::from_millis(gap);
                match tracker.on_exit(now, &Exit::Killed, MEAN_JITTER) {
                    Decision::RestartAfter(_) => granted.push(now),
                    Decision::Exhausted => {
                        let period = Duration::from_secs(period_s);
                        let recent = granted.iter().filter(|&&then| now - then <= period).count();
                        prop_assert_eq!(recent, max as usize, "exhausted too early");
                    }
                    Decision::Remove => prop_assert!(false, "a permanent child is never removed"),
                }
            }
            for (i, &first) in granted.iter().enumerate() {
                let period = Duration::from_secs(period_s);
                let within = granted[i..].iter().filter(|&&then| then - first <= period).count();
                prop_assert!(within <= max as usize);
            }
            prop_assert_eq!(tracker.total(), granted.len() as u64);
        }

        #[test]
        fn the_backoff_stays_within_a_quarter_of_its_bounds(
            durations_ms in prop::collection::vec(0_u64..200_000, 1..100),
            jitter in 0.0..=1.0_f64,
        ) {
            let mut now = Instant::now();
            let mut tracker = RestartTracker::new(Restart::Permanent, policy(1_000, 1), now);
            for duration in durations_ms {
                tracker.on_start(now);
                now += Duration::from_millis(duration);
                let Decision::RestartAfter(backoff) = tracker.on_exit(now, &panicked(), jitter) else {
                    return Err(TestCaseError::fail("exhausted"));
                };
                prop_assert!(backoff >= Duration::from_millis(750) && backoff <= Duration::from_secs(10));
                if duration >= 100_000 {
                    let max = Duration::from_millis(1_250);
                    prop_assert!(backoff <= max, "a healthy incarnation did not reset the back-off");
                }
            }
        }
    }
}
