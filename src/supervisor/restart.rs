//! Decides whether an ended child lives again, and after which pause.
//!
//! OTP's rule: more than `max` restarts within `period`, and the supervisor gives up. Ours adds a pause that
//! doubles with each end in a row and falls back once a life was long enough to count as healthy.
//! Nothing here waits, draws a random number or reads a clock; its owner passes `now` and the jitter.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::exit::Exit;

/// Which ends are answered with a restart.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Restart {
    /// Every end.
    #[default]
    Permanent,
    /// Every end but a normal one.
    Transient,
    /// None.
    Temporary,
}

/// How many restarts are too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Intensity {
    /// Restarts allowed within `period`; one more and the supervisor gives up.
    pub max: u32,
    /// The sliding span in which they are counted.
    pub period: Duration,
}

impl Default for Intensity {
    fn default() -> Self {
        Self { max: 10, period: Duration::from_secs(60) }
    }
}

/// The pause before a restart: doubles from `min` to `max`, give or take a quarter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The pause after the first end.
    pub min: Duration,
    /// The longest pause.
    pub max: Duration,
    /// A life this long makes the next end a first one again.
    pub healthy_after: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            min: Duration::from_millis(100),
            max: Duration::from_secs(30),
            healthy_after: Duration::from_secs(30),
        }
    }
}

/// What a child is granted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Policy {
    /// How many restarts are too many.
    pub intensity: Intensity,
    /// The pause before each.
    pub backoff: Backoff,
}

/// What follows an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// The child lives again after this pause.
    RestartAfter(Duration),
    /// It used up its restarts.
    GiveUp,
    /// It is not to be restarted after such an end.
    Done,
}

/// The restarts of one child.
#[derive(Debug, Clone)]
pub struct Restarts {
    kind: Restart,
    policy: Policy,
    born: Instant,
    /// When the ends within the last period were answered with a restart.
    window: VecDeque<Instant>,
    /// Ends in a row without a healthy life between them.
    streak: u32,
    total: u64,
}

impl Restarts {
    /// Begins to count; the first life begins at `now`.
    pub fn new(kind: Restart, policy: Policy, now: Instant) -> Self {
        Self { kind, policy, born: now, window: VecDeque::new(), streak: 0, total: 0 }
    }

    /// Notes that a life begins.
    pub fn begin(&mut self, now: Instant) {
        self.born = now;
    }

    /// Decides what follows an end. `jitter` in 0..=1 lengthens or shortens the pause.
    pub fn on_exit(&mut self, now: Instant, exit: &Exit, jitter: f64) -> Decision {
        let again = match self.kind {
            Restart::Permanent => true,
            Restart::Transient => *exit != Exit::Normal,
            Restart::Temporary => false,
        };
        if !again {
            return Decision::Done;
        }
        if now.saturating_duration_since(self.born) >= self.policy.backoff.healthy_after {
            self.streak = 0;
        }
        self.streak = self.streak.saturating_add(1);
        let Intensity { max, period } = self.policy.intensity;
        while self.window.front().is_some_and(|&then| now.saturating_duration_since(then) > period) {
            self.window.pop_front();
        }
        if self.window.len() >= max as usize {
            return Decision::GiveUp;
        }
        self.window.push_back(now);
        self.total += 1;
        Decision::RestartAfter(self.pause(jitter))
    }

    /// Forgets past ends, as when a person brings a child back that was given up.
    pub fn forgive(&mut self) {
        self.window.clear();
        self.streak = 0;
    }

    /// Returns how often the child was restarted in all.
    pub fn total(&self) -> u64 {
        self.total
    }

    fn pause(&self, jitter: f64) -> Duration {
        let Backoff { min, max, .. } = self.policy.backoff;
        let doubled = 1_u32.checked_shl(self.streak.saturating_sub(1)).unwrap_or(u32::MAX);
        let pause = min.saturating_mul(doubled).min(max);
        // Whole numbers, because `mul_f64` panics on overflow and the bounds come from a configuration.
        let permille = 750 + (jitter.clamp(0.0, 1.0) * 500.0) as u32;
        (pause / 1000).saturating_mul(permille)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIDDLE: f64 = 0.5;

    fn policy(max: u32, period_s: u64) -> Policy {
        Policy {
            intensity: Intensity { max, period: Duration::from_secs(period_s) },
            backoff: Backoff {
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
    fn the_pause_doubles_up_to_its_maximum() {
        let now = Instant::now();
        let mut restarts = Restarts::new(Restart::Permanent, policy(9, 60), now);
        let pauses: Vec<_> = (0..5).map(|_| restarts.on_exit(now, &panicked(), MIDDLE)).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 8].map(|s| Decision::RestartAfter(Duration::from_secs(s))));
        assert_eq!(restarts.total(), 5);
    }

    #[test]
    fn a_healthy_life_makes_the_next_pause_short_again() {
        let mut now = Instant::now();
        let mut restarts = Restarts::new(Restart::Permanent, policy(9, 60), now);
        restarts.on_exit(now, &panicked(), MIDDLE);
        restarts.on_exit(now, &panicked(), MIDDLE);
        restarts.begin(now);
        now += Duration::from_secs(100);
        let decision = restarts.on_exit(now, &panicked(), MIDDLE);
        assert_eq!(decision, Decision::RestartAfter(Duration::from_secs(1)));
    }

    #[test]
    fn one_restart_more_than_allowed_gives_up_and_time_heals() {
        let mut now = Instant::now();
        let mut restarts = Restarts::new(Restart::Permanent, policy(2, 60), now);
        assert!(matches!(restarts.on_exit(now, &panicked(), MIDDLE), Decision::RestartAfter(_)));
        assert!(matches!(restarts.on_exit(now, &panicked(), MIDDLE), Decision::RestartAfter(_)));
        assert_eq!(restarts.on_exit(now + Duration::from_secs(60), &panicked(), MIDDLE), Decision::GiveUp);
        now += Duration::from_secs(61);
        assert!(matches!(restarts.on_exit(now, &panicked(), MIDDLE), Decision::RestartAfter(_)));
    }

    #[test]
    fn forgiving_gives_all_restarts_back() {
        let now = Instant::now();
        let mut restarts = Restarts::new(Restart::Permanent, policy(1, 60), now);
        restarts.on_exit(now, &panicked(), MIDDLE);
        assert_eq!(restarts.on_exit(now, &panicked(), MIDDLE), Decision::GiveUp);
        restarts.forgive();
        let decision = restarts.on_exit(now, &panicked(), MIDDLE);
        assert_eq!(decision, Decision::RestartAfter(Duration::from_secs(1)));
    }

    #[test]
    fn no_restart_allowed_gives_up_at_the_first_end() {
        let now = Instant::now();
        let mut restarts = Restarts::new(Restart::Permanent, policy(0, 60), now);
        assert_eq!(restarts.on_exit(now, &Exit::Killed, MIDDLE), Decision::GiveUp);
    }

    #[test]
    fn the_kind_chooses_which_ends_are_answered() {
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
            let decision = Restarts::new(kind, policy(9, 60), now).on_exit(now, &exit, MIDDLE);
            assert_eq!(decision != Decision::Done, again, "{kind:?} {exit:?}");
        }
    }

    #[test]
    fn absurd_settings_do_not_panic() {
        let now = Instant::now();
        let backoff = Backoff { min: Duration::MAX, max: Duration::MAX, healthy_after: Duration::MAX };
        let intensity = Intensity { max: u32::MAX, period: Duration::MAX };
        let mut restarts = Restarts::new(Restart::Permanent, Policy { intensity, backoff }, now);
        for jitter in [f64::NAN, f64::INFINITY, -1.0, 1e300] {
            assert!(matches!(restarts.on_exit(now, &panicked(), jitter), Decision::RestartAfter(_)));
        }
    }

    proptest! {
        #[test]
        fn no_sliding_period_sees_more_restarts_than_allowed(
            gaps_ms in prop::collection::vec(0_u64..5_000, 1..200),
            max in 0_u32..6,
            period_s in 1_u64..20,
        ) {
            let mut now = Instant::now();
            let mut restarts = Restarts::new(Restart::Permanent, policy(max, period_s), now);
            let mut granted = Vec::new();
            for gap in gaps_ms {
                now += Duration::from_millis(gap);
                match restarts.on_exit(now, &Exit::Killed, MIDDLE) {
                    Decision::RestartAfter(_) => granted.push(now),
                    Decision::GiveUp => {
                        let period = Duration::from_secs(period_s);
                        let recent = granted.iter().filter(|&&then| now - then <= period).count();
                        prop_assert_eq!(recent, max as usize, "gave up too early");
                    }
                    Decision::Done => prop_assert!(false, "a permanent child is never done"),
                }
            }
            for (i, &first) in granted.iter().enumerate() {
                let period = Duration::from_secs(period_s);
                let within = granted[i..].iter().filter(|&&then| then - first <= period).count();
                prop_assert!(within <= max as usize);
            }
            prop_assert_eq!(restarts.total(), granted.len() as u64);
        }

        #[test]
        fn a_pause_stays_within_a_quarter_of_its_bounds(
            lives_ms in prop::collection::vec(0_u64..200_000, 1..100),
            jitter in 0.0..=1.0_f64,
        ) {
            let mut now = Instant::now();
            let mut restarts = Restarts::new(Restart::Permanent, policy(1_000, 1), now);
            for life in lives_ms {
                restarts.begin(now);
                now += Duration::from_millis(life);
                let Decision::RestartAfter(pause) = restarts.on_exit(now, &panicked(), jitter) else {
                    return Err(TestCaseError::fail("gave up"));
                };
                prop_assert!(pause >= Duration::from_millis(750) && pause <= Duration::from_secs(10));
                if life >= 100_000 {
                    prop_assert!(pause <= Duration::from_millis(1_250), "a healthy life did not count");
                }
            }
        }
    }
}
