//! Providers of several kinds, in virtual time: what they accept and reject when calls are sent as the
//! limiter admits them.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use proptest::prelude::*;

use super::*;
use crate::guard::{RateLimiter, RateLimits, SentCall, TokenCost};
use crate::types::{LimitWindow, RateLimitStatus};

/// How a provider counts.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Counts {
    /// A bucket with the capacity of this many seconds, at least one call.
    Bucket(f64),
    /// A window of a minute, of which this many seconds have passed at the start.
    Window(f64),
}

/// A provider that states no limit.
struct Server {
    counts: Counts,
    per_minute: f64,
    level: f64,
    at: f64,
    window: i64,
}

impl Server {
    fn new(counts: Counts, per_minute: f64) -> Self {
        let mut server = Self { counts, per_minute, level: 0.0, at: 0.0, window: -1 };
        server.level = server.capacity();
        server
    }

    fn capacity(&self) -> f64 {
        match self.counts {
            Counts::Bucket(seconds) => (self.per_minute / 60.0 * seconds).max(1.0),
            Counts::Window(_) => self.per_minute,
        }
    }

    /// Accepts a call that takes this much, or returns how long it would have to wait.
    fn accept(&mut self, amount: f64, at: f64) -> Result<(), f64> {
        let per_second = self.per_minute / 60.0;
        match self.counts {
            Counts::Bucket(_) => {
                self.level = (self.level + (at - self.at) * per_second).min(self.capacity());
                self.at = at;
                let needed = amount.min(self.capacity());
                if self.level + 1e-6 < needed {
                    return Err((needed - self.level) / per_second);
                }
            }
            Counts::Window(elapsed) => {
                let window = ((at + elapsed) / 60.0) as i64;
                if window != self.window {
                    self.window = window;
                    self.level = self.per_minute;
                }
                if self.level < amount {
                    return Err((window + 1) as f64 * 60.0 - elapsed - at);
                }
            }
        }
        self.level -= amount;
        Ok(())
    }
}

/// The wait that a 429 response names.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Hint {
    Nothing,
    /// As Gemini's `retryDelay`.
    Exact,
    /// As `Retry-After`.
    Seconds,
}

#[derive(Debug, Clone, Copy)]
enum Event {
    Accepted(usize),
    Rejected(usize, f64),
    Answered,
}

/// Waiting calls that are sent as the limiter admits them.
struct Simulation {
    hint: Hint,
    concurrency: usize,
    seconds: f64,
    limiter: RateLimiter,
    /// The resource that 429 responses name.
    resource: Option<RateLimitResource>,
    /// The share of calls that are rejected at a time regardless of the limit.
    random_rejections: fn(f64) -> f64,
    /// Tokens of the next calls, in turn.
    sizes: Vec<u64>,
    accepted: Vec<f64>,
    tokens: f64,
    rejected: Vec<f64>,
    /// Maximum number of attempts that one call needed.
    attempts: u32,
}

const ONE_WAY_SECONDS: f64 = 0.02;

impl Simulation {
    fn new(hint: Hint, concurrency: usize, seconds: f64, start: Instant) -> Self {
        Self {
            hint,
            concurrency,
            seconds,
            limiter: RateLimiter::new(&RateLimits::default(), start),
            resource: None,
            random_rejections: |_| 0.0,
            sizes: vec![100],
            accepted: Vec::new(),
            tokens: 0.0,
            rejected: Vec::new(),
            attempts: 0,
        }
    }

    /// Runs until the end. A rejected call waits behind all others, as it does in the queue; `server` may
    /// change.
    fn run(&mut self, start: Instant, mut server: impl FnMut(f64) -> (Counts, f64)) -> &mut Self {
        let (counts, per_minute) = server(0.0);
        let mut provider = Server::new(counts, per_minute);
        let mut events = BinaryHeap::<Reverse<(u64, usize)>>::new();
        let mut kinds: Vec<Event> = Vec::new();
        let mut calls: Vec<(SentCall, u32)> = Vec::new();
        let mut retries: VecDeque<u32> = VecDeque::new();
        let mut now = 0.0_f64;
        let mut in_flight = 0_usize;
        let mut number = 0_usize;
        let mut consecutive_rejections = 0_u32;
        let mut random = fastrand::Rng::with_seed(7);
        let at = |seconds: f64| start + Duration::from_secs_f64(seconds);
        while now < self.seconds {
            let (_, per_minute) = server(now);
            provider.per_minute = per_minute;
            while let Some(Reverse((_, event))) =
                events.peek().copied().filter(|next| next.0.0 <= micros(now))
            {
                events.pop();
                match kinds[event] {
                    Event::Accepted(call) => self.limiter.record_accepted(&calls[call].0, at(now)),
                    Event::Answered => {
                        in_flight -= 1;
                        consecutive_rejections = 0;
                    }
                    Event::Rejected(call, wait) => {
                        in_flight -= 1;
                        let (sent, attempts) = calls[call];
                        self.attempts = self.attempts.max(attempts);
                        retries.push_back(attempts);
                        consecutive_rejections += u32::from(self.limiter.held_for(at(now)).is_zero());
                        self.reject(&sent, wait, consecutive_rejections, &mut random, at(now));
                    }
                }
            }
            let size = self.sizes[number % self.sizes.len()];
            let cost = TokenCost { input: size, output: 0 };
            let next = match (in_flight < self.concurrency).then(|| self.limiter.take(cost, cost, at(now))) {
                Some(Ok(sent)) => {
                    in_flight += 1;
                    number += 1;
                    let attempts =
                        if number.is_multiple_of(2) { retries.pop_front() } else { None }.unwrap_or(0) + 1;
                    calls.push((sent, attempts));
                    let call = calls.len() - 1;
                    let mut schedule = |kind, after: f64| {
                        kinds.push(kind);
                        events.push(Reverse((micros(now + after), kinds.len() - 1)));
                    };
                    let amount = if counts_tokens(&server(now)) { size as f64 } else { 1.0 };
                    let is_random = random.f64() < (self.random_rejections)(now);
                    let result =
                        if is_random { Err(1.0) } else { provider.accept(amount, now + ONE_WAY_SECONDS) };
                    match result {
                        Ok(()) => {
                            self.accepted.push(now);
                            self.tokens += size as f64;
                            let latency = 0.5 + random.f64();
                            schedule(Event::Accepted(call), latency / 4.0);
                            schedule(Event::Answered, latency);
                        }
                        Err(wait) => {
                            self.rejected.push(now);
                            schedule(Event::Rejected(call, wait), 2.0 * ONE_WAY_SECONDS);
                        }
                    }
                    continue;
                }
                Some(Err(ready)) => (ready - start).as_secs_f64(),
                None => f64::MAX,
            };
            let event = events.peek().map_or(f64::MAX, |next| next.0.0 as f64 / 1e6);
            now = next.min(event).min(now + 1.0).max(now + 1e-5);
        }
        self
    }

    fn reject(
        &mut self,
        call: &SentCall,
        wait: f64,
        consecutive_rejections: u32,
        random: &mut fastrand::Rng,
        now: Instant,
    ) {
        let named_wait = match self.hint {
            Hint::Nothing => None,
            Hint::Exact => Some(Duration::from_secs_f64(wait)),
            Hint::Seconds => Some(Duration::from_secs_f64(wait.ceil())),
        };
        let pause = self.limiter.record_unexplained_throttle(call, self.resource, named_wait, now);
        let pause = pause.map(|pause| pause.mul_f64(0.8 + 0.2 * random.f64()));
        let wait = match named_wait {
            Some(named_wait) => named_wait + pause.unwrap_or_default(),
            None => pause.unwrap_or(Duration::from_millis(700)),
        };
        let min_wait = Duration::from_millis(50).saturating_mul(1 << consecutive_rejections.clamp(1, 8)) / 2;
        self.limiter.record_throttled(call, now + wait.max(min_wait), now);
    }

    /// Percent of the limit used, and of the calls rejected, from second `from` on.
    fn score(&self, per_minute: f64, from: f64) -> (f64, f64) {
        let count = |all: &[f64]| all.iter().filter(|at| **at >= from).count() as f64;
        let accepted = count(&self.accepted);
        let rejected = count(&self.rejected);
        let used = 100.0 * accepted / (per_minute / 60.0 * (self.seconds - from));
        (used, 100.0 * rejected / (accepted + rejected).max(1.0))
    }
}

/// A provider with a limit above this counts tokens: the calls of the tests have about a hundred each.
fn counts_tokens(server: &(Counts, f64)) -> bool {
    server.1 > 5_000.0
}

fn micros(seconds: f64) -> u64 {
    (seconds * 1e6) as u64
}

const SERVERS: [Counts; 4] =
    [Counts::Bucket(60.0), Counts::Bucket(1.0), Counts::Window(17.0), Counts::Window(50.0)];

#[test]
fn a_limit_that_nothing_states_is_found_and_respected() {
    let mut missed = Vec::new();
    for per_minute in [15.0, 60.0, 300.0, 3_000.0] {
        for counts in SERVERS {
            for hint in [Hint::Nothing, Hint::Exact, Hint::Seconds] {
                let start = Instant::now();
                // From the beginning of a window, after the first minute.
                let from = match counts {
                    Counts::Bucket(_) => 60.0,
                    Counts::Window(elapsed) => 120.0 - elapsed,
                };
                let concurrency = if per_minute > 1_000.0 { 200 } else { 32 };
                let mut simulation = Simulation::new(hint, concurrency, from + 600.0, start);
                simulation.run(start, |_| (counts, per_minute));
                let (used, rejected) = simulation.score(per_minute, from);
                let line = format!(
                    "{per_minute} a minute, {counts:?}, {hint:?}: {used:.1}% used, {rejected:.1}% rejected, {} attempts",
                    simulation.attempts
                );
                if used < 90.0 || rejected >= 5.0 || simulation.attempts > 10 {
                    missed.push(line);
                }
            }
        }
    }
    assert!(missed.is_empty(), "{missed:#?}");
}

#[test]
fn a_low_limit_with_named_waits_is_found_within_a_minute() {
    for hint in [Hint::Exact, Hint::Seconds] {
        for concurrency in [8, 16, 64] {
            let start = Instant::now();
            let mut simulation = Simulation::new(hint, concurrency, 240.0, start);
            simulation.run(start, |_| (Counts::Bucket(60.0), 15.0));
            let (used, rejected) = simulation.score(15.0, 60.0);
            assert!(
                used > 95.0 && rejected < 3.0,
                "{hint:?}, {concurrency} at once: {used:.1}% used, {rejected:.1}% rejected"
            );
        }
    }
}

#[test]
fn a_bucket_of_one_call_with_named_waits_is_not_taken_for_a_window() {
    for per_minute in [6.0, 10.0, 20.0, 30.0] {
        let start = Instant::now();
        let mut simulation = Simulation::new(Hint::Exact, 64, 660.0, start);
        simulation.run(start, |_| (Counts::Bucket(1.0), per_minute));
        let (used, rejected) = simulation.score(per_minute, 60.0);
        assert!(
            used > 80.0 && rejected < 8.0,
            "{per_minute} a minute: {used:.1}% used, {rejected:.1}% rejected"
        );
    }
}

#[test]
fn after_a_hold_calls_are_sent_at_the_estimated_rate_and_not_in_a_burst() {
    let start = Instant::now();
    let mut simulation = Simulation::new(Hint::Seconds, 200, 300.0, start);
    simulation.run(start, |_| (Counts::Window(17.0), 60.0));
    let hold_end = 60.0 - 17.0;
    let count = |from: f64, to: f64| simulation.accepted.iter().filter(|at| (from..to).contains(*at)).count();
    // The second window begins at the end of a hold: a minute's worth is available, and is sent at the rate.
    let in_five_seconds = count(hold_end, hold_end + 5.0);
    assert!(in_five_seconds <= 7, "{in_five_seconds} in five seconds");
    let in_the_minute = count(hold_end, hold_end + 60.0);
    assert!(in_the_minute >= 54, "{in_the_minute} in the minute");
}

#[test]
fn a_limit_that_falls_or_rises_is_followed() {
    for counts in [Counts::Bucket(60.0), Counts::Bucket(1.0)] {
        for hint in [Hint::Nothing, Hint::Seconds] {
            let start = Instant::now();
            let limit = |now: f64| if (300.0..900.0).contains(&now) { 60.0 } else { 180.0 };
            let mut simulation = Simulation::new(hint, 32, 1_500.0, start);
            simulation.run(start, |now| (counts, limit(now)));
            let share = |from: f64, to: f64| {
                let within = |all: &[f64]| all.iter().filter(|at| (from..to).contains(*at)).count() as f64;
                let accepted = within(&simulation.accepted);
                let rejected = within(&simulation.rejected);
                (accepted / (limit(from) / 60.0 * (to - from)), rejected / (accepted + rejected))
            };
            let (used, rejected) = share(420.0, 900.0);
            assert!(used > 0.9 && rejected < 0.05, "fallen: {counts:?}, {hint:?}: {used:.3}, {rejected:.3}");
            let (used, rejected) = share(1_140.0, 1_500.0);
            assert!(used > 0.9 && rejected < 0.05, "risen: {counts:?}, {hint:?}: {used:.3}, {rejected:.3}");
        }
    }
}

#[test]
fn a_token_limit_is_found_with_calls_of_different_sizes() {
    let start = Instant::now();
    let mut simulation = Simulation::new(Hint::Seconds, 64, 1_800.0, start);
    simulation.resource = Some(RateLimitResource::Tokens);
    // Counted in requests, the limit would change all the time.
    simulation.sizes = [[20; 200].as_slice(), &[800; 40]].concat();
    simulation.run(start, |_| (Counts::Bucket(60.0), 12_000.0));
    let rejected = simulation.rejected.iter().filter(|at| **at >= 600.0).count() as f64;
    let accepted = simulation.accepted.iter().filter(|at| **at >= 600.0).count() as f64;
    let used = simulation.tokens / (12_000.0 * 31.0);
    assert!(used > 0.85, "{used:.3} of the tokens used");
    assert!(rejected / (rejected + accepted) < 0.05, "{rejected} of {accepted}");
}

#[test]
fn a_limit_stated_later_by_headers_ends_the_estimate() {
    let start = Instant::now();
    let mut limiter = RateLimiter::new(&RateLimits::default(), start);
    let call = limiter.take(TokenCost::default(), TokenCost::default(), start).unwrap();
    assert!(!limiter.is_rate_limited());
    limiter.record_unexplained_throttle(&call, None, None, start);
    assert!(limiter.is_rate_limited() && !limiter.is_known());
    let requests = Some(RateLimitStatus {
        limit: Some(600),
        remaining: 9,
        reset: None,
        window: LimitWindow::VendorDefault,
    });
    let headers = crate::guard::RateLimitStatuses { requests, ..Default::default() };
    limiter.apply_headers(&headers, &call, crate::guard::HeaderScope::Own, start);
    assert_eq!(limiter.calls_per_second(TokenCost::default()), Some(10.0));
}

proptest! {
    /// The limit changes at random times; the provider's kind and the wait that it names are random, too.
    #[test]
    fn with_any_limit_calls_continue_and_few_are_rejected(
        histories in prop::collection::vec((20.0_f64..400.0, 120.0_f64..400.0), 1..4),
        counts in 0_usize..4,
        hint in 0_usize..3,
    ) {
        let start = Instant::now();
        let hint = [Hint::Nothing, Hint::Exact, Hint::Seconds][hint];
        let counts = SERVERS[counts];
        let seconds: f64 = histories.iter().map(|(_, seconds)| seconds).sum();
        let limit = |now: f64| {
            let mut end = 0.0;
            let current = histories.iter().find(|(_, seconds)| { end += seconds; now < end });
            current.or(histories.last()).map_or(1.0, |(limit, _)| limit.floor())
        };
        let mut simulation = Simulation::new(hint, 64, seconds, start);
        simulation.run(start, |now| (counts, limit(now)));
        // A limit that rises is only probed: most of the lowest one is used all the time.
        let lowest = histories.iter().map(|(limit, _)| limit.floor()).fold(f64::MAX, f64::min);
        let granted = lowest / 60.0 * seconds;
        let accepted = simulation.accepted.len() as f64;
        let rejected = simulation.rejected.iter().filter(|at| **at >= 60.0).count() as f64;
        prop_assert!(accepted >= 0.75 * granted, "{accepted} of {granted}");
        prop_assert!(rejected <= 0.12 * accepted + 10.0, "{rejected} rejected, {accepted} accepted");
        // A limit that falls to a tenth is followed in steps, and here only a few waiting calls share the
        // rejections.
        prop_assert!(simulation.attempts <= 20, "{} attempts", simulation.attempts);
    }
}

/// An estimate in the search phase, at about 50 calls a second, and the time.
fn searching() -> (RateEstimate, Instant) {
    let mut now = Instant::now();
    let mut estimate = RateEstimate::new(now);
    let first = estimate.record_sent(100, now);
    estimate.record_throttled(&first, None, None, now);
    while estimate.tracked.as_ref().unwrap().rate() < 50.0 {
        now += Duration::from_secs_f64(1.0 / estimate.tracked.as_ref().unwrap().rate());
        let call = estimate.record_sent(100, now);
        estimate.record_accepted(&call, true);
    }
    (estimate, now)
}

#[test]
fn brief_429_responses_do_not_show_an_exhausted_window_or_end_the_search() {
    let (mut estimate, mut now) = searching();
    for _ in 0..6 {
        now += Duration::from_millis(100);
        let call = estimate.record_sent(100, now);
        estimate.record_throttled(&call, None, None, now + Duration::from_millis(10));
    }
    assert!(estimate.is_searching(), "nothing was accepted for only half a second");
    for _ in 0..6 {
        now += Duration::from_millis(100);
        let call = estimate.record_sent(100, now);
        estimate.record_throttled(&call, None, None, now + Duration::from_millis(10));
    }
    assert!(!estimate.is_searching(), "nothing was accepted for more than a second");
}

#[test]
fn the_search_returns_to_the_rate_accepted_between_two_429_responses() {
    let (mut estimate, mut now) = searching();
    for _ in 0..2 {
        let call = estimate.record_sent(100, now);
        estimate.record_throttled(&call, None, None, now);
    }
    // Then 45 a second are accepted, until the next 429 response after 8 of them.
    for _ in 0..8 {
        now += Duration::from_secs_f64(1.0 / 45.0);
        let call = estimate.record_sent(100, now);
        estimate.record_accepted(&call, false);
    }
    let before = estimate.tracked.as_ref().unwrap().rate();
    now += Duration::from_secs_f64(1.0 / 45.0);
    let call = estimate.record_sent(100, now);
    estimate.record_throttled(&call, None, None, now);
    let after = estimate.tracked.as_ref().unwrap().rate();
    assert!(after > before * 0.9, "{before} a second before, {after} after");
}

/// A provider without a limit: with 32 at once, which take a second each, about 32 calls a second are
/// answered.
const UNLIMITED: (Counts, f64) = (Counts::Bucket(60.0), 1e9);
const CONCURRENCY: usize = 32;

/// Simulates a provider without a limit that rejects this share of the calls at a time. Returns the answers
/// from second `from` on as a share of what it can answer.
fn with_random_rejections(hint: Hint, random_rejections: fn(f64) -> f64, (from, seconds): (f64, f64)) -> f64 {
    let start = Instant::now();
    let mut simulation = Simulation::new(hint, CONCURRENCY, seconds, start);
    simulation.random_rejections = random_rejections;
    simulation.run(start, |_| UNLIMITED);
    let answered = simulation.accepted.iter().filter(|at| **at >= from).count() as f64;
    answered / (CONCURRENCY as f64 * (seconds - from))
}

#[test]
fn random_429_responses_to_few_calls_show_no_limit() {
    let few = with_random_rejections(Hint::Nothing, |_| 0.002, (0.0, 600.0));
    assert!(few > 0.95, "{few:.3} of the possible answers");
    let more = with_random_rejections(Hint::Nothing, |_| 0.01, (0.0, 600.0));
    assert!(more > 0.85, "{more:.3} of the possible answers");
    // Each names a wait of one second for all calls, which is respected.
    let obeyed = with_random_rejections(Hint::Seconds, |_| 0.002, (0.0, 600.0));
    assert!(obeyed > 0.9, "{obeyed:.3} of the possible answers");
}

#[test]
fn two_minutes_after_an_incident_of_429_responses_the_rate_has_recovered() {
    let incident: fn(f64) -> f64 = |now| if (20.0..40.0).contains(&now) { 0.2 } else { 0.0 };
    let after = with_random_rejections(Hint::Nothing, incident, (160.0, 300.0));
    assert!(after > 0.95, "{after:.3} of the possible answers");
}
