//! The concurrency of a lane against played providers, in virtual time.
//!
//! No clock, no task: events in the order of their time, and one seed for all that is random.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::num::NonZeroU32;
use std::time::Duration;

use proptest::prelude::*;
use tokio::time::Instant;

use super::{Concurrency, ConcurrencySettings, Ended, Ticket};

/// How long one call is worked on.
#[derive(Debug, Clone, Copy)]
pub(super) enum Work {
    Constant(f64),
    /// Exponential, with this mean: the scatter is as large as the mean.
    Scattered(f64),
}

/// A played provider.
#[derive(Debug, Clone, Copy)]
pub(super) struct Played {
    pub(super) work: Work,
    /// Calls at once above which it refuses.
    pub(super) refuses_above: usize,
    /// Seconds after which a refusal comes.
    pub(super) refuses_after: f64,
    /// What it does at random, to this share of the calls.
    pub(super) faults: Option<(Fault, f64)>,
    /// Calls it works on at once; the others wait.
    pub(super) workers: usize,
    /// The share of the work after which the headers come.
    pub(super) headers_after: f64,
}

/// What goes wrong at random.
#[derive(Debug, Clone, Copy)]
pub(super) enum Fault {
    /// 503 or 529.
    Overloaded,
    /// 500, which says nothing of how many are in flight.
    ServerError,
    /// Silence, for so many seconds.
    Silence(f64),
}

pub(super) const PLAYED: Played = Played {
    work: Work::Constant(1.0),
    refuses_above: usize::MAX,
    refuses_after: 0.05,
    faults: None,
    workers: usize::MAX,
    headers_after: 1.0,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Accepted,
    Answered,
    Refused,
    Failed,
    TimedOut,
}

/// One lane, always with calls waiting, and its provider.
pub(super) struct Stage {
    pub(super) played: Played,
    pub(super) concurrency: Concurrency,
    start: Instant,
    now: Duration,
    events: BinaryHeap<Reverse<(Duration, u64, Event)>>,
    tickets: HashMap<u64, Ticket>,
    /// When each busy worker is free again.
    free: BinaryHeap<Reverse<Duration>>,
    random: fastrand::Rng,
    at_provider: usize,
    pub(super) answered: u64,
    pub(super) refused: u64,
    pub(super) calls: u64,
    /// Most calls that are asked for at once.
    demand: usize,
}

impl Stage {
    pub(super) fn new(played: Played, settings: (u32, u32, u32), seed: u64) -> Self {
        let [min, start, max] = [settings.0, settings.1, settings.2].map(|n| NonZeroU32::new(n).unwrap());
        Self {
            played,
            concurrency: Concurrency::new(ConcurrencySettings { min, start, max }),
            start: Instant::now(),
            now: Duration::ZERO,
            events: BinaryHeap::new(),
            tickets: HashMap::new(),
            free: BinaryHeap::new(),
            random: fastrand::Rng::with_seed(seed),
            at_provider: 0,
            answered: 0,
            refused: 0,
            calls: 0,
            demand: usize::MAX,
        }
    }

    fn fill(&mut self) {
        while self.concurrency.has_room(false) && self.concurrency.in_flight() < self.demand {
            let call = self.calls;
            self.calls += 1;
            self.tickets.insert(call, self.concurrency.left(false, self.start + self.now));
            let soon = self.now + Duration::from_secs_f64(self.played.refuses_after);
            if self.at_provider >= self.played.refuses_above {
                self.events.push(Reverse((soon, call, Event::Refused)));
                continue;
            }
            let fault = self.played.faults.filter(|(_, share)| self.random.f64() < *share);
            match fault.map(|(fault, _)| fault) {
                Some(Fault::Overloaded) => {
                    self.events.push(Reverse((soon, call, Event::Refused)));
                    continue;
                }
                Some(Fault::ServerError) => {
                    self.events.push(Reverse((soon, call, Event::Failed)));
                    continue;
                }
                Some(Fault::Silence(seconds)) => {
                    let end = self.now + Duration::from_secs_f64(seconds);
                    self.events.push(Reverse((end, call, Event::TimedOut)));
                    continue;
                }
                None => {}
            }
            self.at_provider += 1;
            let work = Duration::from_secs_f64(match self.played.work {
                Work::Constant(seconds) => seconds,
                Work::Scattered(mean) => -mean * (1.0 - self.random.f64()).ln() + 0.001,
            });
            let begins = match self.free.len() < self.played.workers {
                true => self.now,
                false => self.free.pop().map_or(self.now, |Reverse(free)| free.max(self.now)),
            };
            if self.played.workers < usize::MAX {
                self.free.push(Reverse(begins + work));
            }
            let headers = begins + work.mul_f64(self.played.headers_after);
            self.events.push(Reverse((headers, call, Event::Accepted)));
            self.events.push(Reverse((begins + work, call, Event::Answered)));
        }
    }

    /// Lets the breaker close after an outage.
    pub(super) fn restart(&mut self) {
        self.concurrency.restart(self.start + self.now);
    }

    /// Lets `seconds` pass; returns the limit's average over them.
    pub(super) fn run(&mut self, seconds: u64) -> f64 {
        let (began, end) = (self.now, self.now + Duration::from_secs(seconds));
        let mut area = 0.0;
        self.fill();
        while let Some(Reverse((at, call, event))) = self.events.peek().copied() {
            if at > end {
                break;
            }
            self.events.pop();
            area += (at - self.now).as_secs_f64() * self.concurrency.limit() as f64;
            self.now = at;
            self.happen(call, event);
            assert_eq!(self.concurrency.in_flight(), self.tickets.len());
            self.fill();
        }
        area += (end - self.now).as_secs_f64() * self.concurrency.limit() as f64;
        self.now = end;
        area / (end - began).as_secs_f64()
    }

    fn happen(&mut self, call: u64, event: Event) {
        let (ticket, now) = (self.tickets[&call], self.start + self.now);
        if event == Event::Accepted {
            return self.concurrency.accepted(ticket, now);
        }
        self.tickets.remove(&call);
        let how = match event {
            Event::Refused => Ended::Throttled,
            Event::Failed => Ended::Other,
            Event::TimedOut => Ended::TimedOut,
            Event::Accepted | Event::Answered => Ended::Answered,
        };
        self.concurrency.ended(ticket, how, now);
        self.refused += u64::from(event == Event::Refused);
        if how != Ended::Answered {
            return;
        }
        self.at_provider -= 1;
        self.answered += 1;
    }
}

/// Returns the seconds after which the limit is as large as it may be.
fn seconds_to_max(stage: &mut Stage, at_most: u64) -> u64 {
    (0..at_most).find(|_| stage.concurrency.limit() == 512 || stage.run(1) < 0.0).unwrap_or(at_most)
}

#[test]
fn answers_that_take_as_long_as_ever_let_it_double_to_its_most() {
    let mut stage = Stage::new(PLAYED, (1, 32, 512), 0);
    assert!(seconds_to_max(&mut stage, 60) <= 10);
    assert!(stage.run(60) > 511.0);
}

#[test]
fn a_provider_that_gets_more_workers_is_asked_for_more() {
    let mut stage = Stage::new(Played { workers: 20, ..PLAYED }, (1, 32, 512), 0);
    stage.run(600);
    assert!(stage.concurrency.limit() < 80);
    stage.played.workers = 100_000;
    assert!(seconds_to_max(&mut stage, 600) < 600);
}

#[test]
fn answers_that_become_longer_do_not_freeze_a_small_limit() {
    let mut stage = Stage::new(PLAYED, (1, 2, 512), 0);
    stage.run(6);
    assert!(stage.concurrency.limit() < 128);
    stage.played.work = Work::Constant(4.0);
    assert!(seconds_to_max(&mut stage, 600) < 600);
}

#[test]
fn a_server_that_answers_one_at_a_time_is_soon_asked_for_fewer() {
    let played = Played { work: Work::Constant(0.5), workers: 1, ..PLAYED };
    let mut stage = Stage::new(played, (1, 32, 512), 7);
    stage.run(60);
    // A try goes half as far again.
    assert!(stage.concurrency.limit() <= 24, "{}", stage.concurrency.limit());
}

#[test]
fn a_night_of_tries_leaves_the_limit_where_more_calls_bring_nothing() {
    let played = Played { workers: 20, work: Work::Scattered(5.0), ..PLAYED };
    let mut stage = Stage::new(played, (1, 32, 512), 7);
    for hour in 0..8 {
        let average = stage.run(3_600);
        assert!((19.0..80.0).contains(&average), "{average} in hour {hour}");
    }
}

#[test]
fn the_limit_grows_to_no_more_than_about_twice_what_is_asked_for() {
    let mut stage = Stage::new(PLAYED, (1, 32, 512), 0);
    stage.demand = 50;
    stage.run(300);
    // The calls of the last full round trip have doubled it.
    assert!(stage.concurrency.limit() <= 110, "{}", stage.concurrency.limit());
}

fn headers() -> impl Strategy<Value = f64> {
    prop::sample::select(vec![0.02, 0.5, 1.0])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    #[test]
    fn scattered_answers_do_not_keep_it_from_its_most(
        seed: u64, headers_after in headers(), mean in 0.2..5.0f64, start in 1u32..100,
    ) {
        let played = Played { work: Work::Scattered(mean), headers_after, ..PLAYED };
        let mut stage = Stage::new(played, (1, start, 512), seed);
        let most = 300 + (mean * 120.0) as u64;
        prop_assert!(seconds_to_max(&mut stage, most) < most);
    }

    #[test]
    fn it_settles_just_below_what_the_provider_refuses(
        seed: u64, headers_after in headers(), mean in 0.5..3.0f64, scattered: bool, allowed in 1usize..150,
    ) {
        let work = if scattered { Work::Scattered(mean) } else { Work::Constant(mean) };
        let played = Played { work, headers_after, refuses_above: allowed, ..PLAYED };
        let mut stage = Stage::new(played, (1, 32, 512), seed);
        stage.run(600);
        let before = stage.calls;
        stage.refused = 0;
        let average = stage.run(900);
        let share = stage.refused as f64 / (stage.calls - before) as f64;
        prop_assert!(share < 0.05, "{share} refused");
        prop_assert!(average <= allowed as f64 + 1.0 && average >= allowed as f64 * 0.7, "{average}");
    }

    #[test]
    fn it_settles_where_more_calls_only_wait(
        seed: u64, headers_after in headers(), mean in 0.5..3.0f64, scattered: bool, workers in 16usize..150,
    ) {
        let work = if scattered { Work::Scattered(mean) } else { Work::Constant(mean) };
        let played = Played { work, headers_after, workers, ..PLAYED };
        let mut stage = Stage::new(played, (1, 32, 512), seed);
        stage.run(900);
        let before = stage.answered;
        let average = stage.run(900);
        let done = (stage.answered - before) as f64 * mean / 900.0 / workers as f64;
        prop_assert!(done > 0.75, "{done} of what it could");
        prop_assert!(average <= (workers as f64 * 2.5).max(80.0), "{average}");
    }
}
