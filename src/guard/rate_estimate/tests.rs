//! Providers of several kinds, in virtual time: what they accept and refuse when calls leave as the limits allow.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use proptest::prelude::*;

use super::*;
use crate::guard::{Left, Limits, Need, RateLimits};
use crate::types::LimitWindow;

/// How a provider counts.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Counts {
    /// A bucket that holds so many seconds' worth, one at least.
    Bucket(f64),
    /// A minute, of which so many seconds are gone at the start.
    Window(f64),
}

/// A provider that names no limit.
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

    /// Accepts what takes so much, or says how long it would have to wait.
    fn ask(&mut self, takes: f64, at: f64) -> Result<(), f64> {
        let a_second = self.per_minute / 60.0;
        match self.counts {
            Counts::Bucket(_) => {
                self.level = (self.level + (at - self.at) * a_second).min(self.capacity());
                self.at = at;
                let needed = takes.min(self.capacity());
                if self.level + 1e-6 < needed {
                    return Err((needed - self.level) / a_second);
                }
            }
            Counts::Window(gone) => {
                let window = ((at + gone) / 60.0) as i64;
                if window != self.window {
                    self.window = window;
                    self.level = self.per_minute;
                }
                if self.level < takes {
                    return Err((window + 1) as f64 * 60.0 - gone - at);
                }
            }
        }
        self.level -= takes;
        Ok(())
    }
}

/// What a refusal says about when to come back.
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
    Refused(usize, f64),
    Answered,
}

/// Waiting calls that leave as the limits allow.
struct Play {
    hint: Hint,
    at_once: usize,
    seconds: f64,
    limits: Limits,
    /// What refusals say that they count.
    limited: Option<Limited>,
    /// Which share of the calls is refused at a time whatever the limit.
    strays: fn(f64) -> f64,
    /// Tokens of the next calls, in turn.
    sizes: Vec<u64>,
    accepted: Vec<f64>,
    tokens: f64,
    refused: Vec<f64>,
    /// Most attempts that one call needed.
    attempts: u32,
}

const TRIP: f64 = 0.02;

impl Play {
    fn new(hint: Hint, at_once: usize, seconds: f64, start: Instant) -> Self {
        Self {
            hint,
            at_once,
            seconds,
            limits: Limits::new(&RateLimits::default(), start),
            limited: None,
            strays: |_| 0.0,
            sizes: vec![100],
            accepted: Vec::new(),
            tokens: 0.0,
            refused: Vec::new(),
            attempts: 0,
        }
    }

    /// Plays until the end. A refused call waits behind all others, as it does in the queue; `server` may change.
    fn run(&mut self, start: Instant, mut server: impl FnMut(f64) -> (Counts, f64)) -> &mut Self {
        let (counts, per_minute) = server(0.0);
        let mut provider = Server::new(counts, per_minute);
        let mut events = BinaryHeap::<Reverse<(u64, usize)>>::new();
        let mut kinds: Vec<Event> = Vec::new();
        let mut calls: Vec<(Left, u32)> = Vec::new();
        let mut again: VecDeque<u32> = VecDeque::new();
        let (mut now, mut out, mut number, mut in_a_row) = (0.0_f64, 0_usize, 0_usize, 0_u32);
        let mut random = fastrand::Rng::with_seed(7);
        let at = |seconds: f64| start + Duration::from_secs_f64(seconds);
        while now < self.seconds {
            let (_, per_minute) = server(now);
            provider.per_minute = per_minute;
            while let Some(Reverse((when, event))) =
                events.peek().copied().filter(|next| next.0.0 <= micros(now))
            {
                events.pop();
                let _ = when;
                match kinds[event] {
                    Event::Accepted(call) => self.limits.went_through(&calls[call].0, at(now)),
                    Event::Answered => {
                        out -= 1;
                        in_a_row = 0;
                    }
                    Event::Refused(call, wait) => {
                        out -= 1;
                        let (left, attempts) = calls[call];
                        self.attempts = self.attempts.max(attempts);
                        again.push_back(attempts);
                        in_a_row += u32::from(self.limits.held_for(at(now)).is_zero());
                        self.refusal(&left, wait, in_a_row, &mut random, at(now));
                    }
                }
            }
            let size = self.sizes[number % self.sizes.len()];
            let need = Need { input: size, output: 0 };
            let next = match (out < self.at_once).then(|| self.limits.take(need, need, at(now))) {
                Some(Ok(left)) => {
                    out += 1;
                    number += 1;
                    let attempts =
                        if number.is_multiple_of(2) { again.pop_front() } else { None }.unwrap_or(0) + 1;
                    calls.push((left, attempts));
                    let call = calls.len() - 1;
                    let mut later = |kind, after: f64| {
                        kinds.push(kind);
                        events.push(Reverse((micros(now + after), kinds.len() - 1)));
                    };
                    let takes = if counts_tokens(&server(now)) { size as f64 } else { 1.0 };
                    let is_stray = random.f64() < (self.strays)(now);
                    let asked = if is_stray { Err(1.0) } else { provider.ask(takes, now + TRIP) };
                    match asked {
                        Ok(()) => {
                            self.accepted.push(now);
                            self.tokens += size as f64;
                            let took = 0.5 + random.f64();
                            later(Event::Accepted(call), took / 4.0);
                            later(Event::Answered, took);
                        }
                        Err(wait) => {
                            self.refused.push(now);
                            later(Event::Refused(call, wait), 2.0 * TRIP);
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

    fn refusal(&mut self, left: &Left, wait: f64, in_a_row: u32, random: &mut fastrand::Rng, now: Instant) {
        let named = match self.hint {
            Hint::Nothing => None,
            Hint::Exact => Some(Duration::from_secs_f64(wait)),
            Hint::Seconds => Some(Duration::from_secs_f64(wait.ceil())),
        };
        let unnamed = self.limits.refused_unexplained(left, self.limited, named, now);
        let unnamed = unnamed.map(|pause| pause.mul_f64(0.8 + 0.2 * random.f64()));
        let wait = match (named, unnamed) {
            (Some(named), unnamed) => named + unnamed.unwrap_or_default(),
            (None, unnamed) => unnamed.unwrap_or(Duration::from_millis(700)),
        };
        let least = Duration::from_millis(50).saturating_mul(1 << in_a_row.clamp(1, 8)) / 2;
        self.limits.refused(left, now + wait.max(least), now);
    }

    /// Percent of the limit used, and of the calls refused, from second `from` on.
    fn score(&self, per_minute: f64, from: f64) -> (f64, f64) {
        let after = |all: &[f64]| all.iter().filter(|at| **at >= from).count() as f64;
        let (accepted, refused) = (after(&self.accepted), after(&self.refused));
        let used = 100.0 * accepted / (per_minute / 60.0 * (self.seconds - from));
        (used, 100.0 * refused / (accepted + refused).max(1.0))
    }
}

/// A provider whose limit is above this counts tokens: the tests' calls have a hundred each, about.
fn counts_tokens(server: &(Counts, f64)) -> bool {
    server.1 > 5_000.0
}

fn micros(seconds: f64) -> u64 {
    (seconds * 1e6) as u64
}

const SERVERS: [Counts; 4] =
    [Counts::Bucket(60.0), Counts::Bucket(1.0), Counts::Window(17.0), Counts::Window(50.0)];

#[test]
fn a_limit_that_nothing_names_is_found_and_kept_to() {
    let mut missed = Vec::new();
    for per_minute in [15.0, 60.0, 300.0, 3_000.0] {
        for counts in SERVERS {
            for hint in [Hint::Nothing, Hint::Exact, Hint::Seconds] {
                let start = Instant::now();
                // From the window's beginning, after the first minute.
                let from = match counts {
                    Counts::Bucket(_) => 60.0,
                    Counts::Window(gone) => 120.0 - gone,
                };
                let at_once = if per_minute > 1_000.0 { 200 } else { 32 };
                let mut play = Play::new(hint, at_once, from + 600.0, start);
                play.run(start, |_| (counts, per_minute));
                let (used, refused) = play.score(per_minute, from);
                let line = format!(
                    "{per_minute} a minute, {counts:?}, {hint:?}: {used:.1}% used, {refused:.1}% refused, {} attempts",
                    play.attempts
                );
                if used < 90.0 || refused >= 5.0 || play.attempts > 10 {
                    missed.push(line);
                }
            }
        }
    }
    assert!(missed.is_empty(), "{missed:#?}");
}

#[test]
fn a_low_limit_that_names_its_waits_is_found_within_a_minute() {
    for hint in [Hint::Exact, Hint::Seconds] {
        for at_once in [8, 16, 64] {
            let start = Instant::now();
            let mut play = Play::new(hint, at_once, 240.0, start);
            play.run(start, |_| (Counts::Bucket(60.0), 15.0));
            let (used, refused) = play.score(15.0, 60.0);
            assert!(
                used > 95.0 && refused < 3.0,
                "{hint:?}, {at_once} at once: {used:.1}% used, {refused:.1}% refused"
            );
        }
    }
}

#[test]
fn a_bucket_of_one_call_that_names_its_wait_is_no_window() {
    for per_minute in [6.0, 10.0, 20.0, 30.0] {
        let start = Instant::now();
        let mut play = Play::new(Hint::Exact, 64, 660.0, start);
        play.run(start, |_| (Counts::Bucket(1.0), per_minute));
        let (used, refused) = play.score(per_minute, 60.0);
        assert!(
            used > 80.0 && refused < 8.0,
            "{per_minute} a minute: {used:.1}% used, {refused:.1}% refused"
        );
    }
}

#[test]
fn after_a_hold_calls_leave_at_the_estimated_rate_and_not_as_a_crowd() {
    let start = Instant::now();
    let mut play = Play::new(Hint::Seconds, 200, 300.0, start);
    play.run(start, |_| (Counts::Window(17.0), 60.0));
    let held = 60.0 - 17.0;
    let after = |from: f64, to: f64| play.accepted.iter().filter(|at| (from..to).contains(*at)).count();
    // The second window is begun by the end of a hold: a minute's worth is there, and goes by the second.
    assert!(after(held, held + 5.0) <= 7, "{} in five seconds", after(held, held + 5.0));
    assert!(after(held, held + 60.0) >= 54, "{} in the minute", after(held, held + 60.0));
}

#[test]
fn a_limit_that_falls_or_rises_is_followed() {
    for counts in [Counts::Bucket(60.0), Counts::Bucket(1.0)] {
        for hint in [Hint::Nothing, Hint::Seconds] {
            let start = Instant::now();
            let limit = |now: f64| if (300.0..900.0).contains(&now) { 60.0 } else { 180.0 };
            let mut play = Play::new(hint, 32, 1_500.0, start);
            play.run(start, |now| (counts, limit(now)));
            let share = |from: f64, to: f64| {
                let within = |all: &[f64]| all.iter().filter(|at| (from..to).contains(*at)).count() as f64;
                let (accepted, refused) = (within(&play.accepted), within(&play.refused));
                (accepted / (limit(from) / 60.0 * (to - from)), refused / (accepted + refused))
            };
            let (used, refused) = share(420.0, 900.0);
            assert!(used > 0.9 && refused < 0.05, "fallen: {counts:?}, {hint:?}: {used:.3}, {refused:.3}");
            let (used, refused) = share(1_140.0, 1_500.0);
            assert!(used > 0.9 && refused < 0.05, "risen: {counts:?}, {hint:?}: {used:.3}, {refused:.3}");
        }
    }
}

#[test]
fn a_limit_of_tokens_is_found_where_calls_differ_in_size() {
    let start = Instant::now();
    let mut play = Play::new(Hint::Seconds, 64, 1_800.0, start);
    play.limited = Some(Limited::Tokens);
    // By requests the limit would change all the time.
    play.sizes = [[20; 200].as_slice(), &[800; 40]].concat();
    play.run(start, |_| (Counts::Bucket(60.0), 12_000.0));
    let refused = play.refused.iter().filter(|at| **at >= 600.0).count() as f64;
    let accepted = play.accepted.iter().filter(|at| **at >= 600.0).count() as f64;
    let used = play.tokens / (12_000.0 * 31.0);
    assert!(used > 0.85, "{used:.3} of the tokens used");
    assert!(refused / (refused + accepted) < 0.05, "{refused} of {accepted}");
}

#[test]
fn a_limit_that_is_named_later_ends_the_estimate() {
    let start = Instant::now();
    let mut limits = Limits::new(&RateLimits::default(), start);
    let left = limits.take(Need::default(), Need::default(), start).unwrap();
    assert!(!limits.is_paced());
    limits.refused_unexplained(&left, None, None, start);
    assert!(limits.is_paced() && !limits.is_known());
    let requests = Some(crate::guard::Standing {
        limit: Some(600),
        remaining: 9,
        reset: None,
        window: LimitWindow::OfVendor,
    });
    let said = crate::guard::Standings { requests, ..Default::default() };
    limits.hear(&said, &left, crate::guard::Hearing::All, start);
    assert_eq!(limits.calls_per_second(Need::default()), Some(10.0));
}

proptest! {
    /// The limit changes at random times, and the provider's kind and words with it.
    #[test]
    fn whatever_the_limit_does_calls_go_on_and_few_are_refused(
        histories in prop::collection::vec((20.0_f64..400.0, 120.0_f64..400.0), 1..4),
        counts in 0_usize..4,
        hint in 0_usize..3,
    ) {
        let start = Instant::now();
        let (hint, counts) = ([Hint::Nothing, Hint::Exact, Hint::Seconds][hint], SERVERS[counts]);
        let seconds: f64 = histories.iter().map(|(_, seconds)| seconds).sum();
        let limit = |now: f64| {
            let mut end = 0.0;
            let current = histories.iter().find(|(_, seconds)| { end += seconds; now < end });
            current.or(histories.last()).map_or(1.0, |(limit, _)| limit.floor())
        };
        let mut play = Play::new(hint, 64, seconds, start);
        play.run(start, |now| (counts, limit(now)));
        // A limit that rises is only felt for: of the lowest one most is used all the time.
        let lowest = histories.iter().map(|(limit, _)| limit.floor()).fold(f64::MAX, f64::min);
        let granted = lowest / 60.0 * seconds;
        let accepted = play.accepted.len() as f64;
        let refused = play.refused.iter().filter(|at| **at >= 60.0).count() as f64;
        prop_assert!(accepted >= 0.75 * granted, "{accepted} of {granted}");
        prop_assert!(refused <= 0.12 * accepted + 10.0, "{refused} refused, {accepted} accepted");
        // A limit that falls to a tenth is followed in steps, and only a few calls wait here to be refused by turns.
        prop_assert!(play.attempts <= 20, "{} attempts", play.attempts);
    }
}

/// An estimate that searches, at some 50 calls a second, and the time.
fn searching() -> (RateEstimate, Instant) {
    let mut now = Instant::now();
    let mut estimate = RateEstimate::new(now);
    let first = estimate.sent(100, now);
    estimate.refused(&first, None, None, now);
    while estimate.known.as_ref().unwrap().rate() < 50.0 {
        now += Duration::from_secs_f64(1.0 / estimate.known.as_ref().unwrap().rate());
        let call = estimate.sent(100, now);
        estimate.accepted(&call, true);
    }
    (estimate, now)
}

#[test]
fn refusals_of_a_moment_are_no_spent_window_and_do_not_end_the_search() {
    let (mut estimate, mut now) = searching();
    for _ in 0..6 {
        now += Duration::from_millis(100);
        let call = estimate.sent(100, now);
        estimate.refused(&call, None, None, now + Duration::from_millis(10));
    }
    assert!(estimate.is_guess(), "nothing was accepted for half a second only");
    for _ in 0..6 {
        now += Duration::from_millis(100);
        let call = estimate.sent(100, now);
        estimate.refused(&call, None, None, now + Duration::from_millis(10));
    }
    assert!(!estimate.is_guess(), "it refuses for more than a second");
}

#[test]
fn the_search_goes_back_to_what_was_accepted_between_two_refusals() {
    let (mut estimate, mut now) = searching();
    for _ in 0..2 {
        let call = estimate.sent(100, now);
        estimate.refused(&call, None, None, now);
    }
    // Then 45 a second are accepted, until the next refusal after 8 of them.
    for _ in 0..8 {
        now += Duration::from_secs_f64(1.0 / 45.0);
        let call = estimate.sent(100, now);
        estimate.accepted(&call, false);
    }
    let before = estimate.known.as_ref().unwrap().rate();
    now += Duration::from_secs_f64(1.0 / 45.0);
    let call = estimate.sent(100, now);
    estimate.refused(&call, None, None, now);
    let after = estimate.known.as_ref().unwrap().rate();
    assert!(after > before * 0.9, "{before} a second before, {after} after");
}

/// A provider without a limit: with 32 at once, which take a second each, some 32 calls a second are answered.
const UNLIMITED: (Counts, f64) = (Counts::Bucket(60.0), 1e9);
const AT_ONCE: usize = 32;

/// Plays a provider without a limit that refuses this share of the calls at a time; returns which part of what it can
/// answer it has answered from second `from` on.
fn with_strays(hint: Hint, strays: fn(f64) -> f64, (from, seconds): (f64, f64)) -> f64 {
    let start = Instant::now();
    let mut play = Play::new(hint, AT_ONCE, seconds, start);
    play.strays = strays;
    play.run(start, |_| UNLIMITED);
    let answered = play.accepted.iter().filter(|at| **at >= from).count() as f64;
    answered / (AT_ONCE as f64 * (seconds - from))
}

#[test]
fn refusals_of_a_few_calls_at_random_are_no_limit() {
    let few = with_strays(Hint::Nothing, |_| 0.002, (0.0, 600.0));
    assert!(few > 0.95, "{few:.3} of the possible answers");
    let more = with_strays(Hint::Nothing, |_| 0.01, (0.0, 600.0));
    assert!(more > 0.85, "{more:.3} of the possible answers");
    // Each asks for a second's rest of all calls, which it is given.
    let obeyed = with_strays(Hint::Seconds, |_| 0.002, (0.0, 600.0));
    assert!(obeyed > 0.9, "{obeyed:.3} of the possible answers");
}

#[test]
fn an_incident_of_refusals_is_over_two_minutes_after_its_end() {
    let incident: fn(f64) -> f64 = |now| if (20.0..40.0).contains(&now) { 0.2 } else { 0.0 };
    let after = with_strays(Hint::Nothing, incident, (160.0, 300.0));
    assert!(after > 0.95, "{after:.3} of the possible answers");
}
