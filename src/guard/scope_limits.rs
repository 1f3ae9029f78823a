//! Limits of one scope: its rate of requests and tokens, and its requests in flight.
//!
//! A request is admitted if all limits admit it, and none of them is used otherwise. Its tokens are reserved by an
//! estimate and replaced by the used ones when it ends. Pure: the caller passes `now`, keeps the waiting requests and
//! does the waiting.

use std::num::{NonZeroU32, NonZeroU64};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::burst::{Burst, BurstSettings};
use super::ewma::Ewma;
use super::gcra::GcraLimiter;

/// The output tokens that are reserved for a request while the scope has no answers, unless the limit of the request is
/// lower.
const DEFAULT_OUTPUT_TOKENS: u64 = 500;

/// The assumed duration of a request while none has ended.
const DEFAULT_DURATION: Duration = Duration::from_secs(1);

/// The longest expected wait.
const MAX_EXPECTED_WAIT: Duration = Duration::from_hours(24);

/// The limits of a scope, `[scope.NAME]`. A scope without limits may still have a budget.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct ScopeSettings {
    /// Requests that may begin in a minute. The attempts of a request count once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_per_minute: Option<NonZeroU64>,
    /// Input and output tokens in a minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_per_minute: Option<NonZeroU64>,
    /// Requests in progress at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<NonZeroU32>,
    /// Requests of each priority that may wait for these limits. One more is refused at once. The requests of runs do
    /// not count, because the number of items in progress bounds them.
    pub queue: NonZeroU32,
}

impl Default for ScopeSettings {
    fn default() -> Self {
        Self {
            requests_per_minute: None,
            tokens_per_minute: None,
            concurrency: None,
            queue: const { NonZeroU32::new(1_000).unwrap() },
        }
    }
}

impl ScopeSettings {
    /// Creates settings without limits.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the requests that may begin in a minute.
    #[must_use]
    pub fn with_requests_per_minute(mut self, requests: NonZeroU64) -> Self {
        self.requests_per_minute = Some(requests);
        self
    }

    /// Sets the tokens in a minute.
    #[must_use]
    pub fn with_tokens_per_minute(mut self, tokens: NonZeroU64) -> Self {
        self.tokens_per_minute = Some(tokens);
        self
    }

    /// Sets the requests in progress at once.
    #[must_use]
    pub fn with_concurrency(mut self, requests: NonZeroU32) -> Self {
        self.concurrency = Some(requests);
        self
    }

    /// Sets the requests of each priority that may wait.
    #[must_use]
    pub fn with_queue(mut self, requests: NonZeroU32) -> Self {
        self.queue = requests;
        self
    }

    /// Returns whether there is any limit.
    pub fn is_limited(&self) -> bool {
        let Self { requests_per_minute, tokens_per_minute, concurrency, queue: _ } = self;
        requests_per_minute.is_some() || tokens_per_minute.is_some() || concurrency.is_some()
    }
}

/// Requests that wait, and their tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Backlog {
    /// The number of requests.
    pub requests: u64,
    /// Their tokens.
    pub tokens: u64,
}

impl Backlog {
    /// Adds a request.
    pub fn add(&mut self, tokens: u64) {
        self.requests += 1;
        self.tokens = self.tokens.saturating_add(tokens);
    }

    /// Removes a request.
    pub fn remove(&mut self, tokens: u64) {
        self.requests = self.requests.saturating_sub(1);
        self.tokens = self.tokens.saturating_sub(tokens);
    }

    /// Returns both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self { requests: self.requests + other.requests, tokens: self.tokens.saturating_add(other.tokens) }
    }

    /// Returns the first `requests` of them, with their part of the tokens.
    #[must_use]
    pub fn first(self, requests: u64) -> Self {
        if requests >= self.requests {
            return self;
        }
        let tokens = u128::from(self.tokens) * u128::from(requests) / u128::from(self.requests);
        Self { requests, tokens: u64::try_from(tokens).unwrap_or(u64::MAX) }
    }
}

/// When a request that was not admitted may be admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotYet {
    /// At this instant at the earliest.
    Until(Instant),
    /// When another request of the scope ends.
    AtNextEnd,
}

/// Sets the rate of a limiter; `None` removes the limiter.
fn set_rate(limiter: &mut Option<GcraLimiter>, per_minute: Option<NonZeroU64>, now: Instant) {
    let Some(per_minute) = per_minute else {
        *limiter = None;
        return;
    };
    let per_minute = per_minute.get() as f64;
    let burst = Burst::new(BurstSettings::Auto).size(per_minute);
    match limiter {
        Some(limiter) => limiter.set(per_minute, burst, now),
        None => *limiter = Some(GcraLimiter::new(per_minute, burst, now)),
    }
}

/// The state of a scope's limits.
#[derive(Debug)]
pub struct ScopeLimiter {
    requests: Option<GcraLimiter>,
    tokens: Option<GcraLimiter>,
    concurrency: Option<u32>,
    in_flight: u32,
    /// The mean time in seconds from the admission of a request to its end.
    mean_duration: Ewma,
    mean_output: Ewma,
}

impl ScopeLimiter {
    /// Creates a limiter that has admitted nothing.
    pub fn new(settings: &ScopeSettings, now: Instant) -> Self {
        let mut requests = None;
        let mut tokens = None;
        set_rate(&mut requests, settings.requests_per_minute, now);
        set_rate(&mut tokens, settings.tokens_per_minute, now);
        Self {
            requests,
            tokens,
            concurrency: settings.concurrency.map(NonZeroU32::get),
            in_flight: 0,
            mean_duration: Ewma::default(),
            mean_output: Ewma::default(),
        }
    }

    /// Sets the limits. What was used stays used, and the requests in flight still count.
    pub fn set_limits(&mut self, settings: &ScopeSettings, now: Instant) {
        set_rate(&mut self.requests, settings.requests_per_minute, now);
        set_rate(&mut self.tokens, settings.tokens_per_minute, now);
        self.concurrency = settings.concurrency.map(NonZeroU32::get);
    }

    /// Returns whether tokens are limited, so that their estimate is needed.
    pub fn limits_tokens(&self) -> bool {
        self.tokens.is_some()
    }

    /// Returns the number of requests in flight.
    pub fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// Returns the output tokens to reserve for a request with this limit: the mean of the scope's answers, or the
    /// limit if it is lower.
    pub fn expected_output(&self, max_tokens: Option<u64>) -> u64 {
        let mean = self.mean_output.0.map_or(DEFAULT_OUTPUT_TOKENS, |mean| mean.ceil() as u64);
        max_tokens.map_or(mean, |max_tokens| mean.min(max_tokens))
    }

    /// Returns the tokens to reserve for a request that may use `tokens`: at most a minute's worth. A longer debt would
    /// block the scope for hours if the end of the request is not known.
    pub fn reservable(&self, tokens: u64) -> u64 {
        self.tokens.as_ref().map_or(tokens, |limiter| tokens.min(limiter.per_minute() as u64))
    }

    /// Records the output tokens of an answer.
    pub fn record_output(&mut self, tokens: u64) {
        self.mean_output.update(tokens as f64);
    }

    /// Admits a request and reserves its tokens, which are [`reservable`](Self::reservable). Tokens beyond the burst
    /// become a debt that later requests wait for.
    ///
    /// # Errors
    /// When a retry is worthwhile; nothing was taken.
    pub fn try_admit(&mut self, tokens: u64, now: Instant) -> Result<(), NotYet> {
        if self.concurrency.is_some_and(|limit| self.in_flight >= limit) {
            return Err(NotYet::AtNextEnd);
        }
        if let Some(requests) = &self.requests {
            requests.take(1, now).map_err(NotYet::Until)?;
        }
        let taken = self.tokens.as_ref().map_or(Ok(()), |limiter| limiter.take(tokens, now));
        if let Err(ready) = taken {
            self.give_back_request();
            return Err(NotYet::Until(ready));
        }
        self.in_flight = self.in_flight.saturating_add(1);
        Ok(())
    }

    /// Replaces the reserved tokens of a request by the used ones.
    pub fn settle(&mut self, reserved: u64, used: u64, now: Instant) {
        let Some(tokens) = &self.tokens else { return };
        if used > reserved {
            tokens.add_debt(used - reserved, now);
        } else {
            tokens.give_back(reserved - used);
        }
    }

    /// Returns the permit of a request for which no attempt was sent.
    pub fn give_back_request(&mut self) {
        if let Some(requests) = &self.requests {
            requests.give_back(1);
        }
    }

    /// Records that a request has ended, which took this time from its admission.
    pub fn release(&mut self, took: Duration) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.mean_duration.update(took.as_secs_f64());
    }

    /// Returns when a request with these tokens can be expected to be admitted, behind the requests `ahead`.
    pub fn expected_at(&self, ahead: Backlog, tokens: u64, now: Instant) -> Instant {
        let waits = self.waits(ahead, tokens, now).into_iter().flatten();
        after(now, waits.fold(0.0, f64::max))
    }

    /// Returns the limit for which the next request waits longest, such as "60 requests per minute", and until when;
    /// `None` if there are no limits.
    pub fn tightest(&self, tokens: u64, now: Instant) -> Option<(String, Instant)> {
        let waits = self.waits(Backlog::default(), tokens, now).into_iter().enumerate();
        let waits = waits.filter_map(|(index, seconds)| Some((index, seconds?)));
        let (index, seconds) = waits.max_by(|(_, one), (_, other)| one.total_cmp(other))?;
        let per_minute =
            |limiter: &Option<GcraLimiter>| limiter.as_ref().map_or(0.0, GcraLimiter::per_minute);
        let (number, what, when) = match index {
            0 => (per_minute(&self.requests), "request", "per minute"),
            1 => (per_minute(&self.tokens), "token", "per minute"),
            _ => (f64::from(self.concurrency.unwrap_or(0)), "request", "at once"),
        };
        let plural = if number == 1.0 { "" } else { "s" };
        Some((format!("{number} {what}{plural} {when}"), after(now, seconds)))
    }

    /// Returns how many seconds a request waits for the limits of requests, of tokens and of concurrency.
    fn waits(&self, ahead: Backlog, tokens: u64, now: Instant) -> [Option<f64>; 3] {
        let by_requests = self.requests.as_ref().map(|limiter| {
            let permits = ahead.requests.saturating_add(1);
            seconds_until(limiter, permits, now)
        });
        let by_tokens = self.tokens.as_ref().map(|limiter| {
            let at_once = tokens.min(limiter.burst());
            seconds_until(limiter, ahead.tokens.saturating_add(at_once), now)
        });
        let by_concurrency = self.concurrency.map(|limit| self.seconds_until_slot(limit, ahead.requests));
        [by_requests, by_tokens, by_concurrency]
    }

    /// Returns how long a request behind `ahead` others waits until enough requests have ended.
    fn seconds_until_slot(&self, limit: u32, ahead: u64) -> f64 {
        let free = u64::from(limit.saturating_sub(self.in_flight));
        let ends = ahead.saturating_add(1).saturating_sub(free);
        let mean = self.mean_duration.0.unwrap_or(DEFAULT_DURATION.as_secs_f64());
        mean * ends as f64 / f64::from(limit)
    }
}

fn after(now: Instant, seconds: f64) -> Instant {
    now + Duration::try_from_secs_f64(seconds).unwrap_or(MAX_EXPECTED_WAIT).min(MAX_EXPECTED_WAIT)
}

/// Returns how long it takes until `permits` more than those already taken are available.
fn seconds_until(limiter: &GcraLimiter, permits: u64, now: Instant) -> f64 {
    let missing = permits as f64 - limiter.level(now);
    missing.max(0.0) * 60.0 / limiter.per_minute()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn settings(text: &str) -> ScopeSettings {
        toml::from_str(text).unwrap()
    }

    fn limiter(text: &str) -> (ScopeLimiter, Instant) {
        let now = Instant::now();
        (ScopeLimiter::new(&settings(text), now), now)
    }

    #[test]
    fn the_settings_have_no_limits_by_default_and_refuse_zero_and_unknown_keys() {
        assert_eq!(settings(""), ScopeSettings::new());
        assert!(!settings("queue = 5").is_limited() && settings("concurrency = 1").is_limited());
        for wrong in ["queue = 0", "concurrency = 0", "tokens_per_minute = 0", "rate = 5"] {
            assert!(toml::from_str::<ScopeSettings>(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_request_that_one_limit_refuses_takes_nothing_from_the_others() {
        let (mut limiter, now) =
            limiter("requests_per_minute = 60\ntokens_per_minute = 600\nconcurrency = 2");
        assert_eq!(limiter.try_admit(100, now), Ok(()));
        limiter.give_back_request();
        // The debt of 91 tokens beyond the burst of 9, and 9 for the next request.
        let Err(NotYet::Until(ready)) = limiter.try_admit(100, now) else { panic!("tokens are left") };
        assert_eq!((ready - now).as_secs(), 10);
        assert_eq!(limiter.in_flight(), 1);
        limiter.settle(100, 0, now);
        assert_eq!(limiter.try_admit(1, now), Ok(()), "no request was taken");
        assert_eq!(limiter.try_admit(1, now), Err(NotYet::AtNextEnd));
        limiter.release(Duration::from_secs(1));
        assert!(matches!(limiter.try_admit(1, now), Err(NotYet::Until(_))));
    }

    #[test]
    fn used_tokens_beyond_the_reserved_ones_are_a_debt() {
        let (mut limiter, now) = limiter("tokens_per_minute = 6000");
        assert_eq!(limiter.try_admit(90, now), Ok(()));
        limiter.settle(90, 590, now);
        let Err(NotYet::Until(ready)) = limiter.try_admit(1, now) else { panic!("tokens are left") };
        assert_eq!((ready - now).as_millis(), 5_010);
    }

    #[test]
    fn the_expected_wait_follows_the_tightest_limit() {
        let (mut limiter, now) = limiter("requests_per_minute = 60\nconcurrency = 2");
        let ahead = |requests| Backlog { requests, tokens: 0 };
        assert_eq!(limiter.expected_at(ahead(0), 1, now), now);
        assert_eq!((limiter.expected_at(ahead(10), 1, now) - now).as_secs(), 10);
        assert_eq!(limiter.try_admit(1, now), Ok(()));
        for _ in 0..200 {
            limiter.release(Duration::from_secs(40));
        }
        // Two requests end in 40 seconds. Two of the eleven find free slots.
        assert_eq!((limiter.expected_at(ahead(10), 1, now) - now).as_secs(), 180);
    }

    #[test]
    fn the_output_is_the_mean_of_the_answers_and_at_most_the_limit_of_the_request() {
        let (mut limiter, _) = limiter("tokens_per_minute = 600");
        assert_eq!((limiter.expected_output(None), limiter.expected_output(Some(9))), (500, 9));
        assert_eq!(limiter.expected_output(Some(4_000_000_000)), 500);
        limiter.record_output(30);
        assert_eq!((limiter.expected_output(None), limiter.expected_output(Some(9))), (30, 9));
    }

    #[test]
    fn no_request_reserves_more_than_a_minute_and_the_tightest_limit_is_named() {
        let (mut limiter, now) =
            limiter("requests_per_minute = 60\ntokens_per_minute = 10000\nconcurrency = 4");
        let reservable = [9_000, 10_000, u64::MAX].map(|tokens| limiter.reservable(tokens));
        assert_eq!(reservable, [9_000, 10_000, 10_000]);
        assert_eq!(limiter.try_admit(limiter.reservable(u64::MAX), now), Ok(()));
        let (limit, at) = limiter.tightest(150, now).unwrap();
        assert_eq!((&*limit, (at - now).as_secs()), ("10000 tokens per minute", 60));
        limiter.settle(10_000, 0, now);
        let (limit, at) = limiter.tightest(1, now).unwrap();
        assert_eq!((&*limit, (at - now).as_secs()), ("60 requests per minute", 1));
    }

    #[test]
    fn the_first_requests_of_a_backlog_have_their_part_of_its_tokens() {
        let backlog = Backlog { requests: 10, tokens: 1_000 };
        assert_eq!(backlog.first(3), Backlog { requests: 3, tokens: 300 });
        assert_eq!((backlog.first(99), Backlog::default().first(1)), (backlog, Backlog::default()));
    }

    proptest! {
        #[test]
        fn no_minute_admits_more_than_the_limits_and_a_burst(
            requests_per_minute in 1u64..2_000,
            tokens_per_minute in 1u64..100_000,
            concurrency in 1u32..50,
            events in proptest::collection::vec((0u64..3_000, 0u64..300, any::<bool>()), 1..300),
        ) {
            let start = Instant::now();
            let settings = ScopeSettings::new()
                .with_requests_per_minute(NonZeroU64::new(requests_per_minute).unwrap())
                .with_tokens_per_minute(NonZeroU64::new(tokens_per_minute).unwrap())
                .with_concurrency(NonZeroU32::new(concurrency).unwrap());
            let mut limiter = ScopeLimiter::new(&settings, start);
            let mut now = start;
            let mut admitted: Vec<(Instant, u64)> = Vec::new();
            let mut in_flight = 0;
            let mut max_tokens = 0;
            for (pause, tokens, ends) in events {
                now += Duration::from_millis(pause);
                for _ in 0..20 {
                    if limiter.try_admit(tokens, now).is_err() { break }
                    admitted.push((now, tokens));
                    in_flight += 1;
                    max_tokens = max_tokens.max(tokens);
                }
                prop_assert!(in_flight <= concurrency);
                if ends && in_flight > 0 {
                    limiter.release(Duration::from_millis(pause));
                    in_flight -= 1;
                }
                prop_assert_eq!(limiter.in_flight(), in_flight);
            }
            let burst = |per_minute: u64| (per_minute as f64 / 60.0).max(1.0);
            let mut first = 0;
            for (last, (at, _)) in admitted.iter().enumerate() {
                while *at - admitted[first].0 >= Duration::from_secs(60) { first += 1 }
                let within = &admitted[first..=last];
                let requests = within.len() as f64;
                prop_assert!(requests <= requests_per_minute as f64 + burst(requests_per_minute) + 1e-6);
                // One request may have more tokens than the burst. Those that follow wait for it.
                let tokens: u64 = within.iter().map(|(_, tokens)| tokens).sum();
                let allowed = tokens_per_minute as f64 + burst(tokens_per_minute) + max_tokens as f64;
                prop_assert!(tokens as f64 <= allowed + 1e-6, "{tokens} of {allowed}");
            }
        }

        #[test]
        fn everything_that_is_reserved_and_not_used_is_returned(
            tokens in proptest::collection::vec(0u64..5_000, 1..50),
        ) {
            let (mut limiter, now) = limiter("requests_per_minute = 6000000\ntokens_per_minute = 6000");
            let mut at = now;
            for reserved in tokens {
                while let Err(not_yet) = limiter.try_admit(reserved, at) {
                    let NotYet::Until(ready) = not_yet else { panic!("there is no concurrency limit") };
                    at = ready;
                }
                limiter.settle(reserved, 0, at);
                limiter.give_back_request();
                limiter.release(Duration::ZERO);
            }
            prop_assert_eq!(at, now, "no request had to wait");
            prop_assert_eq!(limiter.in_flight(), 0);
        }
    }

    #[test]
    fn changed_limits_keep_what_was_used_and_what_is_in_flight() {
        let (mut limiter, now) = limiter("requests_per_minute = 60");
        assert_eq!(limiter.try_admit(0, now), Ok(()));
        limiter.set_limits(&settings("requests_per_minute = 60\nconcurrency = 1"), now);
        assert_eq!(limiter.try_admit(0, now), Err(NotYet::AtNextEnd));
        limiter.release(Duration::from_secs(1));
        let NotYet::Until(ready) = limiter.try_admit(0, now).unwrap_err() else { panic!("a slot is free") };
        assert!(ready > now);
        limiter.set_limits(&ScopeSettings::new(), now);
        assert_eq!(limiter.try_admit(0, now), Ok(()));
    }
}
