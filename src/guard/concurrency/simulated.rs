//! The concurrency limit of a target against simulated providers, in virtual time.
//!
//! No clock and no task: events in the order of their time, and one seed for everything random.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::num::NonZeroU32;
use std::time::Duration;

use proptest::prelude::*;
use tokio::time::Instant;

use super::{ConcurrencyLimit, ConcurrencyOutcome, ConcurrencySettings, InFlightToken};

/// How long the provider works on one call.
#[derive(Debug, Clone, Copy)]
pub(super) enum Work {
    Constant(f64),
    /// Exponential, with this mean: the scatter is as large as the mean.
    Scattered(f64),
}

/// A simulated provider.
#[derive(Debug, Clone, Copy)]
pub(super) struct SimulatedProvider {
    pub(super) work: Work,
    /// Calls in flight above which it rejects.
    pub(super) rejects_above: usize,
    /// Seconds until a rejection arrives.
    pub(super) rejects_after: f64,
    /// A random fault, and the share of the calls that meet it.
    pub(super) faults: Option<(Fault, f64)>,
    /// Calls that it works on at once; the others wait.
    pub(super) workers: usize,
    /// The share of the work after which the headers arrive.
    pub(super) headers_after: f64,
}

/// A random fault.
#[derive(Debug, Clone, Copy)]
pub(super) enum Fault {
    /// 503 or 529.
    Overloaded,
    /// 500, which shows nothing about the number in flight.
    ServerError,
    /// No response for this many seconds.
    NoResponse(f64),
}

pub(super) const PROVIDER: SimulatedProvider = SimulatedProvider {
    work: Work::Constant(1.0),
    rejects_above: usize::MAX,
    rejects_after: 0.05,
    faults: None,
    workers: usize::MAX,
    headers_after: 1.0,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Accepted,
    Answered,
    Rejected,
    Failed,
    TimedOut,
}

/// One target, always with calls waiting, and its provider.
pub(super) struct Simulation {
    pub(super) provider: SimulatedProvider,
    pub(super) concurrency: ConcurrencyLimit,
    start: Instant,
    now: Duration,
    events: BinaryHeap<Reverse<(Duration, u64, Event)>>,
    tokens: HashMap<u64, InFlightToken>,
    /// When each busy worker is free again.
    free: BinaryHeap<Reverse<Duration>>,
    random: fastrand::Rng,
    at_provider: usize,
    pub(super) answered: u64,
    pub(super) rejected: u64,
    pub(super) calls: u64,
    /// Maximum number of calls that are waiting.
    demand: usize,
}

impl Simulation {
    pub(super) fn new(provider: SimulatedProvider, settings: (u32, u32, u32), seed: u64) -> Self {
        let [min, start, max] = [settings.0, settings.1, settings.2].map(|n| NonZeroU32::new(n).unwrap());
        Self {
            provider,
            concurrency: ConcurrencyLimit::new(ConcurrencySettings { min, start, max }),
            start: Instant::now(),
            now: Duration::ZERO,
            events: BinaryHeap::new(),
            tokens: HashMap::new(),
            free: BinaryHeap::new(),
            random: fastrand::Rng::with_seed(seed),
            at_provider: 0,
            answered: 0,
            rejected: 0,
            calls: 0,
            demand: usize::MAX,
        }
    }

    fn fill(&mut self) {
        while self.concurrency.has_capacity(false) && self.concurrency.in_flight() < self.demand {
            let call = self.calls;
            self.calls += 1;
            self.tokens.insert(call, self.concurrency.record_sent(false, self.start + self.now));
            let rejected_at = self.now + Duration::from_secs_f64(self.provider.rejects_after);
            if self.at_provider >= self.provider.rejects_above {
                self.events.push(Reverse((rejected_at, call, Event::Rejected)));
                continue;
            }
            let fault = self.provider.faults.filter(|(_, share)| self.random.f64() < *share);
            match fault.map(|(fault, _)| fault) {
                Some(Fault::Overloaded) => {
                    self.events.push(Reverse((rejected_at, call, Event::Rejected)));
                    continue;
                }
                Some(Fault::ServerError) => {
                    self.events.push(Reverse((rejected_at, call, Event::Failed)));
                    continue;
                }
                Some(Fault::NoResponse(seconds)) => {
                    let end = self.now + Duration::from_secs_f64(seconds);
                    self.events.push(Reverse((end, call, Event::TimedOut)));
                    continue;
                }
                None => {}
            }
            self.at_provider += 1;
            let work = Duration::from_secs_f64(match self.provider.work {
                Work::Constant(seconds) => seconds,
                Work::Scattered(mean) => -mean * (1.0 - self.random.f64()).ln() + 0.001,
            });
            let begins = match self.free.len() < self.provider.workers {
                true => self.now,
                false => self.free.pop().map_or(self.now, |Reverse(free)| free.max(self.now)),
            };
            if self.provider.workers < usize::MAX {
                self.free.push(Reverse(begins + work));
            }
            let headers = begins + work.mul_f64(self.provider.headers_after);
            self.events.push(Reverse((headers, call, Event::Accepted)));
            self.events.push(Reverse((begins + work, call, Event::Answered)));
        }
    }

    /// Restarts the limit as when the breaker closes after an outage.
    pub(super) fn restart(&mut self) {
        self.concurrency.restart_after_outage(self.start + self.now);
    }

    /// Lets `seconds` pass; returns the mean of the limit over them.
    pub(super) fn run(&mut self, seconds: u64) -> f64 {
        let start = self.now;
        let end = start + Duration::from_secs(seconds);
        let mut area = 0.0;
        self.fill();
        while let Some(Reverse((at, call, event))) = self.events.peek().copied() {
            if at > end {
                break;
            }
            self.events.pop();
            area += (at - self.now).as_secs_f64() * self.concurrency.limit() as f64;
            self.now = at;
            self.handle(call, event);
            assert_eq!(self.concurrency.in_flight(), self.tokens.len());
            self.fill();
        }
        area += (end - self.now).as_secs_f64() * self.concurrency.limit() as f64;
        self.now = end;
        area / (end - start).as_secs_f64()
    }

    fn handle(&mut self, call: u64, event: Event) {
        let token = self.tokens[&call];
        let now = self.start + self.now;
        if event == Event::Accepted {
            return self.concurrency.record_accepted(token, now);
        }
        self.tokens.remove(&call);
        let outcome = match event {
            Event::Rejected => ConcurrencyOutcome::Throttled,
            Event::Failed => ConcurrencyOutcome::Other,
            Event::TimedOut => ConcurrencyOutcome::TimedOut,
            Event::Accepted | Event::Answered => ConcurrencyOutcome::Answered,
        };
        self.concurrency.release(token, outcome, now);
        self.rejected += u64::from(event == Event::Rejected);
        if outcome != ConcurrencyOutcome::Answered {
            return;
        }
        self.at_provider -= 1;
        self.answered += 1;
    }
}

/// Returns the seconds until the limit reaches its maximum.
fn seconds_to_max(simulation: &mut Simulation, at_most: u64) -> u64 {
    (0..at_most).find(|_| simulation.concurrency.limit() == 512 || simulation.run(1) < 0.0).unwrap_or(at_most)
}

#[test]
fn with_constant_latency_the_limit_doubles_to_its_maximum() {
    let mut simulation = Simulation::new(PROVIDER, (1, 32, 512), 0);
    assert!(seconds_to_max(&mut simulation, 60) <= 10);
    assert!(simulation.run(60) > 511.0);
}

#[test]
fn a_provider_that_gets_more_workers_gets_more_calls() {
    let mut simulation = Simulation::new(SimulatedProvider { workers: 20, ..PROVIDER }, (1, 32, 512), 0);
    simulation.run(600);
    assert!(simulation.concurrency.limit() < 80);
    simulation.provider.workers = 100_000;
    assert!(seconds_to_max(&mut simulation, 600) < 600);
}

#[test]
fn increasing_latency_does_not_freeze_a_small_limit() {
    let mut simulation = Simulation::new(PROVIDER, (1, 2, 512), 0);
    simulation.run(6);
    assert!(simulation.concurrency.limit() < 128);
    simulation.provider.work = Work::Constant(4.0);
    assert!(seconds_to_max(&mut simulation, 600) < 600);
}

#[test]
fn a_provider_that_accepts_one_call_at_a_time_rejects_few_calls() {
    for (headers_after, mean) in [(0.02, 2.8), (1.0, 2.7), (1.0, 3.0)] {
        let provider =
            SimulatedProvider { work: Work::Scattered(mean), headers_after, rejects_above: 1, ..PROVIDER };
        let mut simulation = Simulation::new(provider, (1, 32, 512), 7);
        simulation.run(600);
        let before = simulation.calls;
        simulation.rejected = 0;
        simulation.run(900);
        let share = simulation.rejected as f64 / (simulation.calls - before) as f64;
        assert!(share < 0.05, "{share} rejected, {headers_after} {mean}");
    }
}

#[test]
fn a_server_that_answers_one_at_a_time_soon_gets_fewer_calls() {
    let provider = SimulatedProvider { work: Work::Constant(0.5), workers: 1, ..PROVIDER };
    let mut simulation = Simulation::new(provider, (1, 32, 512), 7);
    simulation.run(60);
    // A retrial grows the limit by half.
    assert!(simulation.concurrency.limit() <= 24, "{}", simulation.concurrency.limit());
}

#[test]
fn eight_hours_of_retrials_keep_the_limit_where_more_concurrency_brings_nothing() {
    let provider = SimulatedProvider { workers: 20, work: Work::Scattered(5.0), ..PROVIDER };
    let mut simulation = Simulation::new(provider, (1, 32, 512), 7);
    for hour in 0..8 {
        let average = simulation.run(3_600);
        assert!((19.0..80.0).contains(&average), "{average} in hour {hour}");
    }
}

#[test]
fn the_limit_grows_to_about_twice_the_demand_at_most() {
    let mut simulation = Simulation::new(PROVIDER, (1, 32, 512), 0);
    simulation.demand = 50;
    simulation.run(300);
    // The calls of the last full round trip doubled it.
    assert!(simulation.concurrency.limit() <= 110, "{}", simulation.concurrency.limit());
}

fn headers() -> impl Strategy<Value = f64> {
    prop::sample::select(vec![0.02, 0.5, 1.0])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    #[test]
    fn scattered_latencies_do_not_keep_the_limit_from_its_maximum(
        seed: u64, headers_after in headers(), mean in 0.2..5.0f64, start in 1u32..100,
    ) {
        let provider = SimulatedProvider { work: Work::Scattered(mean), headers_after, ..PROVIDER };
        let mut simulation = Simulation::new(provider, (1, start, 512), seed);
        let max_seconds = 300 + (mean * 120.0) as u64;
        prop_assert!(seconds_to_max(&mut simulation, max_seconds) < max_seconds);
    }

    #[test]
    fn the_limit_settles_just_below_what_the_provider_rejects(
        seed: u64, headers_after in headers(), mean in 0.5..3.0f64, scattered: bool, allowed in 1usize..150,
    ) {
        let work = if scattered { Work::Scattered(mean) } else { Work::Constant(mean) };
        let provider = SimulatedProvider { work, headers_after, rejects_above: allowed, ..PROVIDER };
        let mut simulation = Simulation::new(provider, (1, 32, 512), seed);
        simulation.run(600);
        let before = simulation.calls;
        simulation.rejected = 0;
        let average = simulation.run(900);
        let share = simulation.rejected as f64 / (simulation.calls - before) as f64;
        prop_assert!(share < 0.05, "{share} rejected");
        prop_assert!(average <= allowed as f64 + 1.0 && average >= allowed as f64 * 0.7, "{average}");
    }

    #[test]
    fn the_limit_settles_where_more_calls_only_wait(
        seed: u64, headers_after in headers(), mean in 0.5..3.0f64, scattered: bool, workers in 16usize..150,
    ) {
        let work = if scattered { Work::Scattered(mean) } else { Work::Constant(mean) };
        let provider = SimulatedProvider { work, headers_after, workers, ..PROVIDER };
        let mut simulation = Simulation::new(provider, (1, 32, 512), seed);
        simulation.run(900);
        let before = simulation.answered;
        let average = simulation.run(900);
        let done = (simulation.answered - before) as f64 * mean / 900.0 / workers as f64;
        prop_assert!(done > 0.75, "{done} of the possible throughput");
        prop_assert!(average <= (workers as f64 * 2.5).max(80.0), "{average}");
    }
}
