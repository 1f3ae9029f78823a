//! Whether a request fails for its own reasons, or for those of the provider, the limit or the account.
//!
//! A request that fails while others succeed at the same targets fails for its own reasons, unless chance explains it.
//! With a share `f` of the other attempts failing, a request that has nothing wrong with it fails `n` more times after
//! its first failure with the probability `f^n`. Below one in ten thousand it is taken for the request's. `f` is estimated as
//! `(failed + 1) / (failed + answered + 2)` (Laplace's rule of succession), so that few attempts prove little. Without a
//! single success of others nothing is proven: that is how an outage looks.
//!
//! Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::types::{Attempt, AttemptCounts, Class, LaneName, Outcome, Unanswered, Whose};

/// The probability below which a row of failures is no chance any more.
const CHANCE: f64 = 1e-4;

/// What is known of one request that has come back without an answer.
#[derive(Debug, Default)]
pub(super) struct Evidence {
    /// How often it came back.
    lives: u32,
    /// Its attempts that failed.
    attempts: u32,
    /// How attempts of others ended after the first of them.
    others: AttemptCounts,
    /// What its targets had counted when it came back last.
    seen: BTreeMap<LaneName, AttemptCounts>,
}

impl Evidence {
    /// Learns that the request came back with `unanswered`; `counts` is what a target has counted by now, `time` how long
    /// the request may take. Returns whether the failure is the request's own.
    pub(super) fn add(
        &mut self,
        unanswered: &Unanswered,
        time: Duration,
        counts: impl Fn(&LaneName) -> AttemptCounts,
    ) -> bool {
        self.lives = self.lives.saturating_add(1);
        let class = unanswered.failure.class;
        match class.whose() {
            Whose::Request if class != Class::NotFound => true,
            Whose::Ours if class != Class::Deadline => {
                // An actor that is gone takes no request, whichever it is.
                unanswered.trail.calls() > 0 || unanswered.trail.lost() > 0 || unanswered.lane.is_none()
            }
            Whose::Request | Whose::Ours | Whose::Attempt | Whose::Limit | Whose::Account => {
                self.learn(unanswered, time, counts);
                self.is_proven()
            }
        }
    }

    /// Returns whether other requests were answered since its first failure.
    pub(super) fn others_answered(&self) -> bool {
        self.others.answered > 0
    }

    /// Returns how often it came back.
    pub(super) fn lives(&self) -> u32 {
        self.lives
    }

    fn learn(
        &mut self,
        unanswered: &Unanswered,
        time: Duration,
        counts: impl Fn(&LaneName) -> AttemptCounts,
    ) {
        let mut failed: BTreeMap<&LaneName, u64> = BTreeMap::new();
        for attempt in unanswered.trail.0.iter().filter(|attempt| says_something(attempt, time)) {
            *failed.entry(&attempt.lane).or_default() += 1;
        }
        let is_first = self.attempts == 0;
        for (target, own) in failed {
            self.attempts = self.attempts.saturating_add(u32::try_from(own).unwrap_or(u32::MAX));
            let now = counts(target);
            if let Some(seen) = self.seen.insert(target.clone(), now) {
                let since = now.since(seen);
                let others = AttemptCounts { failed: since.failed.saturating_sub(own), ..since };
                self.others = self.others.plus(others);
            }
        }
        if is_first {
            self.others = unanswered.meanwhile;
        }
    }

    fn is_proven(&self) -> bool {
        let AttemptCounts { answered, failed } = self.others;
        if answered == 0 || self.attempts < 2 {
            return false;
        }
        let share = (failed + 1) as f64 / (failed.saturating_add(answered) + 2) as f64;
        share.powi(i32::try_from(self.attempts - 1).unwrap_or(i32::MAX)) < CHANCE
    }
}

/// Returns whether an attempt failed, and not for want of time that was spent on waiting for its turn. What a target says of
/// the request itself says nothing of whether another one is out.
fn says_something(attempt: &Attempt, time: Duration) -> bool {
    match &attempt.outcome {
        Outcome::Failed(failure) if failure.class == Class::Deadline => attempt.took * 2 >= time,
        Outcome::Failed(failure) if failure.class == Class::TooLong => false,
        Outcome::Failed(_) => attempt.key.is_some(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::types::{Failure, NanoUsd, Trail};

    const TIME: Duration = Duration::from_mins(10);

    fn target() -> LaneName {
        "a/m".parse().unwrap()
    }

    fn unanswered(class: Class, attempts: usize, meanwhile: AttemptCounts) -> Unanswered {
        let failure = Failure::new(class, "x");
        let attempt = Attempt {
            lane: target(),
            key: Some("k".into()),
            waited: Duration::ZERO,
            took: Duration::ZERO,
            first_token: None,
            usage: None,
            cost: None,
            perhaps: NanoUsd(0),
            forced: false,
            hedge: false,
            outcome: Outcome::Failed(failure.clone()),
        };
        Unanswered {
            lane: Some(target()),
            trail: Trail(vec![attempt; attempts]),
            meanwhile,
            ..Unanswered::from(failure)
        }
    }

    fn counts(answered: u64, failed: u64) -> AttemptCounts {
        AttemptCounts { answered, failed }
    }

    #[test]
    fn a_request_that_fails_while_others_succeed_fails_for_its_own_reasons() {
        for class in [Class::ServerError, Class::Timeout, Class::Unreadable, Class::RateLimit, Class::Auth] {
            let mut evidence = Evidence::default();
            assert!(evidence.add(&unanswered(class, 6, counts(5, 0)), TIME, |_| counts(0, 0)), "{class}");
        }
    }

    #[test]
    fn a_request_that_fails_while_all_others_fail_does_not() {
        let mut evidence = Evidence::default();
        for life in 1..100 {
            let failed = life * 100;
            assert!(
                !evidence.add(&unanswered(Class::ServerError, 6, counts(0, 60)), TIME, |_| counts(0, failed))
            );
        }
    }

    #[test]
    fn what_is_too_long_for_a_busy_target_proves_nothing_while_another_is_out() {
        let larger: LaneName = "b/m".parse().unwrap();
        let mut evidence = Evidence::default();
        for life in 1..100 {
            let mut one = unanswered(Class::NetworkError, 2, counts(0, 0));
            let too_long = Outcome::Failed(Failure::new(Class::TooLong, "x"));
            one.trail.0[1] = Attempt { lane: larger.clone(), outcome: too_long, ..one.trail.0[1].clone() };
            let seen =
                |lane: &LaneName| if *lane == larger { counts(life * 100, 0) } else { counts(0, life * 9) };
            assert!(!evidence.add(&one, TIME, seen), "{life}");
        }
    }

    #[test]
    fn one_refusal_proves_nothing_until_the_request_is_refused_again_and_others_are_not() {
        let mut evidence = Evidence::default();
        assert!(!evidence.add(&unanswered(Class::Auth, 1, counts(0, 0)), TIME, |_| counts(70, 1)));
        assert!(!evidence.add(&unanswered(Class::Auth, 1, counts(0, 0)), TIME, |_| counts(130, 2)));
        assert!(evidence.add(&unanswered(Class::Auth, 1, counts(0, 0)), TIME, |_| counts(190, 3)));
    }

    #[test]
    fn an_attempt_that_was_cut_off_because_it_had_waited_long_proves_nothing() {
        let at_deadline = |took: Duration| {
            let mut one = unanswered(Class::Deadline, 1, counts(90_000, 0));
            one.trail.0[0].took = took;
            one
        };
        let mut evidence = Evidence::default();
        for life in 1..9 {
            let seen = counts(life * 90_000, 0);
            assert!(!evidence.add(&at_deadline(Duration::from_mins(4)), TIME, |_| seen));
        }
        assert!(!evidence.add(&at_deadline(Duration::from_mins(6)), TIME, |_| counts(900_000, 0)));
        assert!(evidence.add(&at_deadline(Duration::from_mins(6)), TIME, |_| counts(990_000, 0)));
    }

    #[test]
    fn what_was_never_asked_proves_nothing_and_the_requests_own_classes_prove_it_at_once() {
        let mut evidence = Evidence::default();
        assert!(!evidence.add(&unanswered(Class::Deadline, 0, counts(900, 0)), TIME, |_| counts(900, 0)));
        assert!(!evidence.add(&unanswered(Class::Auth, 0, counts(900, 0)), TIME, |_| counts(900, 0)));
        for class in [Class::TooLong, Class::ApiError, Class::ContentFilter, Class::Truncated] {
            assert!(Evidence::default().add(&unanswered(class, 1, counts(0, 0)), TIME, |_| counts(0, 0)));
        }
    }

    proptest! {
        /// Of requests with nothing wrong, at targets that fail at random, next to none is taken for its own failure.
        #[test]
        fn chance_alone_is_seldom_taken_for_a_requests_own_failure(seed in any::<u64>(), share in 0.0..0.9_f64) {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut wrong = 0;
            for _ in 0..1_000 {
                let (mut evidence, mut total) = (Evidence::default(), counts(0, 0));
                loop {
                    // One life: until an answer, or six failures; others make ten attempts for each of its.
                    let (mut failed, mut meanwhile, mut answered) = (0, counts(0, 0), false);
                    while failed < 6 && !answered {
                        if random.f64() >= share {
                            answered = true;
                            break;
                        }
                        failed += 1;
                        total.failed += 1;
                        if failed == 6 {
                            break;
                        }
                        for _ in 0..10 {
                            let fails = random.f64() < share;
                            let of = if fails { &mut meanwhile.failed } else { &mut meanwhile.answered };
                            *of += 1;
                        }
                    }
                    total = total.plus(meanwhile);
                    if answered {
                        break;
                    }
                    if evidence.add(&unanswered(Class::ServerError, failed, meanwhile), TIME, |_| total) {
                        wrong += 1;
                        break;
                    }
                }
            }
            prop_assert!(wrong <= 3, "{wrong} of 1,000 at {share}");
        }
    }
}
