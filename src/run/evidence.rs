//! Whether a request fails for its own reasons, or for those of the provider, the limit or the account.
//!
//! A request that fails while others are answered at the same targets fails for its own reasons, unless chance explains it.
//! A failed attempt of it says so only where first attempts of other items that left just before and just after it were
//! answered (one of the nearest two on each side), and another one after it came back: then the target worked. With a share `f` of the others' first attempts failing, a request that has nothing wrong
//! with it fails in that way `n` more times after the first with the probability `f^n`. Below one in a billion it is taken
//! for the request's. `f` is estimated as `(failed + 1) / (failed + answered + 2)` (Laplace's rule of succession), so that few
//! attempts prove little. Repeated attempts of others do not count: a few requests that fail each time would look like a
//! target that fails often. Without a single success of others nothing is proven: that is how an outage looks. What is known
//! of a request is kept for as long as it has no end.
//!
//! Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::provider::{FirstAttempts, Neighbours};
use crate::types::{Attempt, AttemptCounts, Class, ItemOfRun, LaneName, Outcome, Scope, Unanswered, Whose};

/// The probability below which a row of failures is no chance any more. A run of a million requests judges each of them.
const CHANCE: f64 = 1e-9;

/// First attempts of others that left before a request failed first and tell how often the target fails.
const BEFORE: u64 = 200;

/// First attempts of others that tell at most how often a target fails.
const MOST_OTHERS: usize = 2_000;

/// What is known of one request that has come back without an answer.
#[derive(Debug)]
pub(super) struct Evidence {
    item: ItemOfRun,
    /// How often it came back.
    lives: u32,
    /// Its attempts that failed, of each target.
    failed: BTreeMap<LaneName, Vec<FailedAttempt>>,
    /// How the first attempts of others have ended.
    others: BTreeMap<LaneName, AttemptCounts>,
}

/// An attempt that failed.
#[derive(Debug)]
struct FailedAttempt {
    /// Its number among those that have left for its provider.
    number: u64,
    /// Whether it had no answer in its time, rather than a failure.
    hung: bool,
    /// The first attempts of others that left next to it, once they are known.
    around: Option<Neighbours>,
}

impl Evidence {
    /// Makes that of a request of this item, of which nothing is known.
    pub(super) fn new(item: ItemOfRun) -> Self {
        Self { item, lives: 0, failed: BTreeMap::new(), others: BTreeMap::new() }
    }

    /// Learns that the request came back with `unanswered`; `time` is how long the request may take. Returns whether the
    /// failure is of a class that is the request's own, whatever becomes of others.
    pub(super) fn add(&mut self, unanswered: &Unanswered, time: Duration) -> bool {
        self.lives = self.lives.saturating_add(1);
        let class = unanswered.failure.class;
        match class.whose() {
            // The router has found that others are answered, and that no wait makes room for it.
            Whose::Limit if unanswered.failure.scope == Scope::Target => true,
            Whose::Request if class != Class::NotFound => true,
            Whose::Ours if class != Class::Deadline => {
                // An actor that is gone takes no request, whichever it is.
                unanswered.trail.calls() > 0 || unanswered.trail.lost() > 0 || unanswered.lane.is_none()
            }
            Whose::Request | Whose::Ours | Whose::Attempt | Whose::Limit | Whose::Account => {
                self.note(unanswered, time);
                false
            }
        }
    }

    fn note(&mut self, unanswered: &Unanswered, time: Duration) {
        let in_trail =
            unanswered.trail.0.iter().filter(|attempt| matches!(attempt.outcome, Outcome::Failed(_)));
        for (attempt, failed) in in_trail.zip(&unanswered.failed) {
            if says_something(attempt, time) {
                let hung = matches!(&attempt.outcome, Outcome::Failed(failure)
                    if matches!(failure.class, Class::Timeout | Class::Deadline));
                let failed_attempt = FailedAttempt { number: failed.number, hung, around: None };
                self.failed.entry(failed.target.clone()).or_default().push(failed_attempt);
            }
        }
    }

    /// Returns the targets that have failed the request.
    pub(super) fn targets(&self) -> impl Iterator<Item = LaneName> + use<> {
        self.failed.keys().cloned().collect::<Vec<_>>().into_iter()
    }

    /// Learns how others have fared at a target. What was known before stays.
    pub(super) fn compare(&mut self, target: &LaneName, first: &FirstAttempts) {
        let Some(failed) = self.failed.get_mut(target) else { return };
        let Some(earliest) = failed.iter().map(|attempt| attempt.number).min() else { return };
        let others = first.since(earliest.saturating_sub(BEFORE), MOST_OTHERS);
        if others.answered + others.failed > 0 {
            self.others.insert(target.clone(), others);
        }
        for attempt in failed.iter_mut().filter(|attempt| attempt.around.is_none()) {
            // A target that goes down breaks off what was long under way: what left next to it was answered before.
            if attempt.hung || first.was_answered_after(attempt.number) {
                attempt.around = first.around(attempt.number, self.item);
            }
        }
    }

    /// Returns whether the request fails for its own reasons, as far as is known.
    pub(super) fn is_proven(&self) -> bool {
        let others = self.others.values().copied().fold(AttemptCounts::default(), AttemptCounts::plus);
        let AttemptCounts { answered, failed } = others;
        let own = self.failed_while_others_were_answered();
        if answered == 0 || own < 2 {
            return false;
        }
        let share = (failed + 1) as f64 / (failed.saturating_add(answered) + 2) as f64;
        share.powi(i32::try_from(own - 1).unwrap_or(i32::MAX)) < CHANCE
    }

    /// Returns whether others were answered when the request failed: the provider was well then.
    pub(super) fn is_suspected(&self) -> bool {
        self.failed_while_others_were_answered() > 0
    }

    /// Returns how often it came back.
    pub(super) fn lives(&self) -> u32 {
        self.lives
    }

    fn failed_while_others_were_answered(&self) -> usize {
        let of_target = |failed: &Vec<FailedAttempt>| {
            // Of those between the same two only one says something: the provider may have been out between them.
            let apart: BTreeSet<u64> = failed
                .iter()
                .filter_map(|attempt| match attempt.around? {
                    Neighbours::Answered { before } => Some(before),
                    Neighbours::Failed => None,
                })
                .collect();
            apart.len()
        };
        self.failed.values().map(of_target).sum()
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
    use crate::types::{self, Asker, Failure, NanoUsd, Trail};

    const TIME: Duration = Duration::from_mins(10);

    fn target() -> LaneName {
        "a/m".parse().unwrap()
    }

    /// Comes back with attempts that failed, by their numbers.
    fn unanswered(class: Class, numbers: &[u64]) -> Unanswered {
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
        let failed = numbers.iter().map(|number| types::FailedAttempt { target: target(), number: *number });
        Unanswered {
            lane: Some(target()),
            trail: Trail(vec![attempt; numbers.len()]),
            failed: failed.collect(),
            ..Unanswered::from(failure)
        }
    }

    /// The item of the request that is looked at.
    fn own_item() -> ItemOfRun {
        ItemOfRun::default()
    }

    /// Notes the first attempt of another item.
    fn end(first: &mut FirstAttempts, number: u64, failure: Option<Class>) {
        let of_another = Asker { rank: number + 1, ..Asker::default() };
        first.left(number, of_another.item());
        first.ended(number, failure);
    }

    /// First attempts of others: of each hundred this many fail, evenly spread; those of `left_out` are not theirs.
    fn others(numbers: std::ops::Range<u64>, fail_of_hundred: u64, left_out: &[u64]) -> FirstAttempts {
        let mut first = FirstAttempts::default();
        for number in numbers.filter(|number| !left_out.contains(number)) {
            let fails = number % 100 < fail_of_hundred;
            end(&mut first, number, fails.then_some(Class::ServerError));
        }
        first
    }

    fn is_proven(evidence: &mut Evidence, unanswered: &Unanswered, first: &FirstAttempts) -> bool {
        let own = evidence.add(unanswered, TIME);
        evidence.compare(&target(), first);
        own || evidence.is_proven()
    }

    #[test]
    fn a_request_that_fails_while_others_succeed_fails_for_its_own_reasons() {
        let numbers = [10, 20, 30, 40, 50, 60];
        for class in [Class::ServerError, Class::Timeout, Class::Unreadable, Class::RateLimit, Class::Auth] {
            let others = others(1..70, 0, &numbers);
            assert!(
                is_proven(&mut Evidence::new(own_item()), &unanswered(class, &numbers), &others),
                "{class}"
            );
        }
    }

    #[test]
    fn requests_that_fail_each_time_do_not_hide_each_other() {
        // Twenty of 500 fail, each eight times; of each only the first attempt counts for the others.
        let numbers = [30, 90, 150, 210, 270, 330, 390, 450];
        let first = others(1..500, 4, &numbers);
        let own = unanswered(Class::ServerError, &numbers);
        assert!(is_proven(&mut Evidence::new(own_item()), &own, &first));
    }

    #[test]
    fn a_request_that_fails_while_all_others_fail_does_not() {
        let mut evidence = Evidence::new(own_item());
        for life in 1..100 {
            let numbers: Vec<u64> = (0..6).map(|attempt| life * 100 + attempt * 10).collect();
            let others = others(0..life * 100 + 90, 100, &numbers);
            assert!(!is_proven(&mut evidence, &unanswered(Class::ServerError, &numbers), &others));
        }
    }

    #[test]
    fn what_fails_when_an_outage_begins_is_not_suspected_for_what_was_answered_before_and_after() {
        // Up to 100 all are answered, then ten fail before the breaker opens, and from 200 on all are answered again.
        let mut first = others(1..100, 0, &[]);
        (100..110)
            .filter(|number| *number != 104)
            .for_each(|number| end(&mut first, number, Some(Class::ServerError)));
        (200..400).for_each(|number| end(&mut first, number, None));
        let mut evidence = Evidence::new(own_item());
        // It finds out twice meanwhile.
        assert!(!is_proven(&mut evidence, &unanswered(Class::ServerError, &[104, 111, 112]), &first));
        assert!(!evidence.is_suspected());
    }

    #[test]
    fn what_a_target_breaks_off_when_it_goes_down_is_not_suspected_for_what_was_answered_before() {
        let mut first = others(1..100, 0, &[95]);
        first.failed(95);
        let is_suspected = |first: &FirstAttempts, class| {
            let mut evidence = Evidence::new(own_item());
            assert!(!is_proven(&mut evidence, &unanswered(class, &[95]), first));
            evidence.is_suspected()
        };
        assert!(!is_suspected(&first, Class::NetworkError));
        // One that hung was not answered beside others that were.
        assert!(is_suspected(&first, Class::Timeout));
        end(&mut first, 200, None);
        assert!(is_suspected(&first, Class::NetworkError));
    }

    #[test]
    fn nothing_is_proven_while_no_other_is_asked_and_what_was_known_before_is_kept() {
        let mut evidence = Evidence::new(own_item());
        let mut first = others(1..40, 0, &[10, 20]);
        assert!(!is_proven(&mut evidence, &unanswered(Class::ServerError, &[10, 20]), &first));
        assert!(evidence.is_suspected());
        for life in 0..50 {
            let alone = unanswered(Class::ServerError, &[100 + life]);
            assert!(!is_proven(&mut evidence, &alone, &first), "{life}");
        }
        // However often it failed between two of others, that is one failure.
        end(&mut first, 200, None);
        assert!(!is_proven(
            &mut Evidence::new(own_item()),
            &unanswered(Class::ServerError, &[100, 101, 102]),
            &first
        ));
        (201..300).filter(|number| number % 10 > 0).for_each(|number| end(&mut first, number, None));
        assert!(is_proven(&mut evidence, &unanswered(Class::ServerError, &[210, 220, 230]), &first));
    }

    #[test]
    fn what_is_too_long_for_a_busy_target_proves_nothing_while_another_is_out() {
        let mut evidence = Evidence::new(own_item());
        for life in 1..100 {
            let mut one = unanswered(Class::NetworkError, &[life * 10, life * 10 + 5]);
            one.trail.0.iter_mut().for_each(|attempt| {
                attempt.outcome = Outcome::Failed(Failure::new(Class::TooLong, "x"));
            });
            assert!(!is_proven(&mut evidence, &one, &others(0..2_000, 0, &[])), "{life}");
        }
    }

    #[test]
    fn an_attempt_that_was_cut_off_because_it_had_waited_long_proves_nothing() {
        let at_deadline = |number: u64, took: Duration| {
            let mut one = unanswered(Class::Deadline, &[number]);
            one.trail.0[0].took = took;
            one
        };
        let (mut evidence, others) = (Evidence::new(own_item()), others(0..2_000, 0, &[]));
        for life in 1..9 {
            assert!(!is_proven(&mut evidence, &at_deadline(life * 10, Duration::from_mins(4)), &others));
        }
        for number in [100, 110, 120] {
            assert!(!is_proven(&mut evidence, &at_deadline(number, Duration::from_mins(6)), &others));
        }
        assert!(is_proven(&mut evidence, &at_deadline(130, Duration::from_mins(6)), &others));
    }

    #[test]
    fn what_was_never_asked_proves_nothing_and_the_requests_own_classes_prove_it_at_once() {
        let (mut evidence, none) = (Evidence::new(own_item()), FirstAttempts::default());
        assert!(!is_proven(&mut evidence, &unanswered(Class::Deadline, &[]), &none));
        assert!(!is_proven(&mut evidence, &unanswered(Class::Auth, &[]), &none));
        for class in [Class::TooLong, Class::ApiError, Class::ContentFilter, Class::Truncated] {
            assert!(is_proven(&mut Evidence::new(own_item()), &unanswered(class, &[1]), &none));
        }
    }

    proptest! {
        /// Of requests with nothing wrong, at targets that fail at random, next to none is taken for its own failure.
        #[test]
        fn chance_alone_is_seldom_taken_for_a_requests_own_failure(seed in any::<u64>(), share in 0.0..0.9_f64) {
            let mut random = fastrand::Rng::with_seed(seed);
            let (mut first, mut number, mut wrong) = (FirstAttempts::default(), 0, 0);
            for _ in 0..1_000 {
                let mut evidence = Evidence::new(own_item());
                loop {
                    // One life: until an answer, or six failures; others make ten first attempts for each of its.
                    let (mut failed, mut answered) = (Vec::new(), false);
                    while failed.len() < 6 && !answered {
                        number += 1;
                        let own = number;
                        answered = random.f64() >= share;
                        failed.push(own);
                        for _ in 0..10 {
                            number += 1;
                            end(&mut first, number, (random.f64() < share).then_some(Class::ServerError));
                        }
                    }
                    if answered {
                        break;
                    }
                    if is_proven(&mut evidence, &unanswered(Class::ServerError, &failed), &first) {
                        wrong += 1;
                        break;
                    }
                }
            }
            prop_assert!(wrong <= 3, "{wrong} of 1,000 at {share}");
        }
    }
}
