//! Property tests of the scheduler as a whole: limits, concurrency, breakers, keys, retries, reservations and
//! the queue together, in virtual time.
//!
//! The parts have their own property tests. `harness.rs` checks the invariants after every event.

mod bucket;
mod harness;
mod strategies;

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::guard::BreakerState;
use crate::types::{Class, Priority};
use bucket::Buckets;
use harness::Harness;
use strategies::*;

fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

/// A reference model of the limits of the account and of every model, computed from the sent calls and their
/// results.
struct ReferenceLimits {
    account: Buckets,
    models: HashMap<ModelName, Buckets>,
    seen: usize,
}

impl ReferenceLimits {
    fn new(harness: &Harness, learns: bool) -> Self {
        let own = |(name, model): (&ModelName, &crate::provider::Model)| {
            Some((name.clone(), Buckets::new(model.limits.as_ref()?, learns, harness.now)))
        };
        Self {
            account: Buckets::new(&harness.settings.limits, learns, harness.now),
            models: harness.settings.models.iter().filter_map(own).collect(),
            seen: 0,
        }
    }

    /// Applies an event, and counts the calls that are sent and that end.
    fn apply(&mut self, harness: &mut Harness, event: Event) {
        let before: Vec<Grant> = harness.in_flight.iter().map(|call| call.grant.clone()).collect();
        let result = match &event {
            Event::End { end, .. } => end.clone().result(),
            _ => None,
        };
        // The limits of the ended call are returned before the event sends further calls.
        let ended = match &event {
            Event::End { which, .. } if !before.is_empty() => Some(before[which % before.len()].clone()),
            _ => None,
        };
        if let Some(grant) = ended {
            let used = grant.reservation.charged(result.as_ref());
            self.both(&grant.model, |buckets| {
                buckets.reconcile(grant.reservation.reserved, used, harness.now)
            });
        }
        harness.apply(event);
        for call in harness.sent.split_off(self.seen.min(harness.sent.len())) {
            self.both(&call.model, |buckets| buckets.take(call.cost, call.at));
            harness.sent.push(call);
            self.seen += 1;
        }
    }

    fn both(&mut self, model: &ModelName, mut each: impl FnMut(&mut Buckets)) {
        each(&mut self.account);
        self.models.get_mut(model).into_iter().for_each(each);
    }
}

proptest! {
    #![proptest_config(cases(100))]

    /// `harness.rs` checks the counts of calls in flight, breaker tokens, deadlines, waits, keys and so on.
    #[test]
    fn every_call_is_sent_or_rejected_and_the_scheduler_recovers_completely(
        settings in settings(),
        keys in 0..3usize,
        events in prop::collection::vec(anything(), 1..120),
    ) {
        let mut harness = Harness::new(settings, keys);
        for event in events {
            harness.apply(event);
        }
        // Abandoned calls are removed by the sweep. All other calls are answered or rejected.
        while !harness.scheduler.queue.is_empty() || !harness.in_flight.is_empty() {
            harness.advance(Duration::from_secs(1));
            harness.sweep();
            (0..harness.in_flight.len()).for_each(|_| harness.end_call(0, CallEnd::Answered(Some((10, 10)))));
        }
        prop_assert_eq!(harness.sent.len() + harness.rejected.len(), harness.submitted as usize);
        assert_recovered(&mut harness);
    }

    /// `harness.rs` compares the metrics with the calls after every event.
    #[test]
    fn every_attempt_that_was_sent_counts_with_one_outcome_when_it_ends(
        settings in settings(),
        keys in 0..3usize,
        // Boxed: unboxed, the values of such a vector exceed the stack.
        events in prop::collection::vec(
            prop_oneof![3 => anything().boxed(), 1 => ends(without_result()).boxed()],
            1..120,
        ),
    ) {
        let mut harness = Harness::new(settings, keys);
        events.into_iter().for_each(|event| harness.apply(event));
        while !harness.in_flight.is_empty() {
            harness.apply(Event::End { which: 0, end: CallEnd::Answered(Some((10, 10))) });
        }
    }

    /// Breakers, unresponsive targets and forced calls at a provider without limits.
    #[test]
    fn an_outage_has_one_probe_at_a_time_and_ends_with_an_answer(
        settings in unlimited(),
        events in prop::collection::vec(outage(), 1..150),
    ) {
        let mut harness = Harness::new(settings, 1);
        events.into_iter().for_each(|event| harness.apply(event));
        while !harness.in_flight.is_empty() {
            harness.end_call(0, CallEnd::Lost);
        }
        // After a failure the other calls wait for a short time.
        let took = harness.drain();
        prop_assert!(took < Duration::from_hours(2), "{took:?}");
        assert_recovered(&mut harness);
    }

    #[test]
    fn no_window_has_more_calls_than_its_rate_and_one_burst(
        settings in settings(),
        events in prop::collection::vec(anything_without_limits(), 1..120),
    ) {
        let mut harness = Harness::new(without_daily_limits(settings), 1);
        let mut reference = ReferenceLimits::new(&harness, false);
        events.into_iter().for_each(|event| reference.apply(&mut harness, event));
        while !harness.in_flight.is_empty() {
            reference.apply(&mut harness, Event::End { which: 0, end: CallEnd::Lost });
        }
        // The available capacity equals that of the reference.
        let cost = reference.account.largest();
        let now = harness.now;
        let ours = harness.scheduler.limits.expected_at(0, cost, now) - now;
        let theirs = reference.account.expected(cost, now);
        prop_assert!(ours.abs_diff(theirs) < Duration::from_millis(5) + theirs / 1_000, "{ours:?}, {theirs:?}");
        for (model, buckets) in &mut reference.models {
            let cost = buckets.largest();
            let ours = harness.scheduler.targets[model].limits.expected_at(0, cost, now) - now;
            let theirs = buckets.expected(cost, now);
            prop_assert!(ours.abs_diff(theirs) < Duration::from_millis(5) + theirs / 1_000, "{ours:?}, {theirs:?}");
        }
    }

    #[test]
    fn no_minute_exceeds_its_limit_plus_one_burst_whatever_the_headers_advertise(
        settings in settings(),
        events in prop::collection::vec(anything(), 1..120),
    ) {
        let mut harness = Harness::new(settings, 1);
        let mut reference = ReferenceLimits::new(&harness, true);
        events.into_iter().for_each(|event| reference.apply(&mut harness, event));
    }

    #[test]
    fn every_call_is_sent_once_the_provider_recovers(
        settings in settings(),
        events in prop::collection::vec(prop_oneof![
            4 => submits().prop_map(patient), 1 => waits(3_000), 2 => ends(failed(5_000)), 1 => ends(answered()),
        ], 1..120),
    ) {
        let mut harness = Harness::new(without_daily_limits(settings), 1);
        events.into_iter().for_each(|event| harness.apply(event));
        let took = harness.drain();
        prop_assert!(took < Duration::from_hours(4), "{took:?}");
        prop_assert_eq!(harness.sent.len() + harness.rejected.len(), harness.submitted as usize);
    }

    #[test]
    fn interactive_calls_go_first_batch_calls_never_starve_and_runs_alternate(
        settings in settings(),
        events in prop::collection::vec(prop_oneof![
            6 => submits().prop_map(patient), 2 => waits(2_000), 4 => ends(answered()),
        ], 20..200),
    ) {
        let mut settings = settings;
        settings.models.truncate(1);
        settings.queue = std::num::NonZeroUsize::new(1_000).unwrap();
        let mut harness = Harness::new(settings, 1);
        let mut fairness = FairnessCheck::default();
        for event in events {
            fairness.apply(&mut harness, event);
        }
    }
}

#[test]
fn a_wait_that_one_of_several_calls_gets_delays_no_other_and_one_that_all_get_does() {
    let settings = "base_url = 'http://127.0.0.1:9'\nmodels.m = {}\nlimits.concurrency = 8";
    let mut harness = Harness::new(toml::from_str(settings).unwrap(), 0);
    let test_call = TestCall {
        model: 0,
        input: 1,
        max_tokens: Some(1),
        priority: Priority::Batch,
        run: 0,
        step: None,
        max_wait: Duration::from_hours(1),
        only_option_now: false,
        only_option: true,
        is_retry: false,
    };
    (0..4).for_each(|_| harness.submit(&test_call));
    harness.advance(Duration::from_millis(100));
    harness.receive_headers(0, &crate::wire::RateLimitHeaders::default(), true);
    let wait = Some(Duration::from_secs(10));
    let overloaded = Failure { retry_after: wait, ..Failure::new(Class::Overloaded, "later") };
    harness.end_call(1, CallEnd::Failed(overloaded.clone()));
    assert_eq!(harness.scheduler.limits.held_for(harness.now), Duration::ZERO);
    harness.advance(Duration::from_millis(100));
    harness.submit(&test_call);
    harness.end_call(3, CallEnd::Failed(overloaded));
    assert_eq!(harness.scheduler.limits.held_for(harness.now), Duration::from_secs(10));
}

/// Removes the daily limits.
fn without_daily_limits(mut settings: Settings) -> Settings {
    let own = settings.models.values_mut().filter_map(|model| model.limits.as_mut());
    own.chain([&mut settings.limits]).for_each(|limits| limits.requests_per_day = None);
    settings
}

/// Gives a call 48 hours and makes it a first attempt.
fn patient(event: Event) -> Event {
    match event {
        Event::Submit(test_call) => Event::Submit(TestCall {
            max_wait: Duration::from_hours(48),
            is_retry: false,
            only_option: true,
            input: test_call.input.min(900),
            ..test_call
        }),
        event => event,
    }
}

/// Asserts that every target can be called after two days without calls, and is healthy after an answered call.
fn assert_recovered(harness: &mut Harness) {
    assert_eq!((harness.scheduler.in_flight, harness.scheduler.queue.len()), (0, 0));
    harness.advance(Duration::from_hours(49));
    for number in 0..harness.settings.models.len() {
        let model = harness.model(number);
        for _ in 0..2 {
            harness.submit(&TestCall {
                model: number,
                input: 1,
                max_tokens: Some(1),
                priority: Priority::Batch,
                run: 0,
                step: None,
                max_wait: Duration::from_hours(10),
                only_option_now: false,
                only_option: true,
                is_retry: false,
            });
            let took = harness.drain();
            assert!(took < Duration::from_hours(2), "{took:?}");
            assert_eq!(
                harness.sent.last().map(|call| call.id),
                Some(harness.submitted - 1),
                "{:?}",
                harness.rejected.last()
            );
        }
        let target = &harness.scheduler.targets[&model];
        assert_eq!(harness.scheduler.breaker_state(&model, harness.now), Some(BreakerState::Closed));
        assert_eq!(
            (target.breaker.trip_reason(), target.breaker.in_flight(), target.pending_calls()),
            (None, 0, 0)
        );
        assert_eq!(harness.scheduler.endpoint_breaker.in_flight(), 0);
    }
}

/// Returns what so many tokens count for.
fn counted(tokens: u64) -> i64 {
    i64::from(u32::try_from(tokens).unwrap_or(u32::MAX))
}

/// Checks the order in which queued calls are sent.
#[derive(Default)]
struct FairnessCheck {
    /// The queued calls in order of arrival: number, priority and run.
    queued: Vec<(u64, Priority, usize)>,
    interactive_in_a_row: usize,
    /// The tokens that runs have got, by priority and run.
    got: HashMap<(Priority, usize), i64>,
    /// The calls in flight: number, priority, run and the tokens that they are expected to use.
    in_flight: Vec<(u64, Priority, usize, i64)>,
    max_in_flight: i64,
    largest: i64,
}

impl FairnessCheck {
    fn apply(&mut self, harness: &mut Harness, event: Event) {
        let seen = harness.sent.len();
        if let Event::Submit(test_call) = &event {
            self.queued.push((harness.submitted, test_call.priority, test_call.run));
            self.record_queued(test_call.priority, test_call.run);
        }
        let before = harness.rejected.len();
        harness.apply(event);
        let rejected: Vec<u64> = harness.rejected[before..].iter().map(|(id, _)| *id).collect();
        self.queued.retain(|(id, ..)| !rejected.contains(id));
        for ended in harness.ended.drain(..) {
            let position = self.in_flight.iter().position(|(id, ..)| *id == ended.id).unwrap();
            let (_, priority, run, expected) = self.in_flight.swap_remove(position);
            let used = counted(ended.used);
            self.largest = self.largest.max(used);
            *self.got.entry((priority, run)).or_default() += used - expected;
        }
        for call in &harness.sent[seen..] {
            self.record_sent(call.id, counted(call.expected));
        }
    }

    /// A run whose first call is queued starts with what the other runs have got.
    fn record_queued(&mut self, priority: Priority, run: usize) {
        if self.queued.iter().filter(|(_, of, other_run)| (*of, *other_run) == (priority, run)).count() == 1 {
            let others = self.queued.iter().filter(|(_, of, other_run)| *of == priority && *other_run != run);
            let max = others.filter_map(|(_, of, other_run)| self.got.get(&(*of, *other_run))).max().copied();
            self.got.insert((priority, run), max.unwrap_or_default());
        }
    }

    fn record_sent(&mut self, id: u64, expected: i64) {
        let position = self.queued.iter().position(|(queued, ..)| *queued == id).unwrap();
        let (_, priority, run) = self.queued[position];
        let first = self.queued.iter().find(|(_, of, other_run)| (*of, *other_run) == (priority, run));
        assert_eq!(first.map(|(id, ..)| *id), Some(id), "it was sent before an earlier call of its run");
        let is_queued = |of: Priority| self.queued.iter().any(|(_, priority, _)| *priority == of);
        match priority {
            Priority::Interactive if is_queued(Priority::Batch) => self.interactive_in_a_row += 1,
            Priority::Interactive => self.interactive_in_a_row = 0,
            Priority::Batch => {
                let before = self.interactive_in_a_row;
                assert!(
                    before >= 9 || !is_queued(Priority::Interactive),
                    "a batch call was sent after {before} interactive calls"
                );
                self.interactive_in_a_row = 0;
            }
        }
        assert!(self.interactive_in_a_row <= 9, "batch calls starve");
        self.queued.remove(position);
        self.in_flight.push((id, priority, run, expected));
        self.max_in_flight = self.max_in_flight.max(self.in_flight.len() as i64);
        self.largest = self.largest.max(expected);
        *self.got.entry((priority, run)).or_default() += expected;
        let own = self.got[&(priority, run)];
        // A call in flight counts by expectation, which its end corrects.
        let allowed = self.largest * (self.max_in_flight + 3);
        for (_, of, other_run) in self.queued.iter().filter(|(_, of, _)| *of == priority) {
            let theirs = self.got.get(&(*of, *other_run)).copied().unwrap_or_default();
            assert!(own <= theirs + allowed, "run {run} has got {own} tokens, and run {other_run} {theirs}");
        }
    }
}
