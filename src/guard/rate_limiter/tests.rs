use proptest::prelude::*;

use super::*;
use crate::types::LimitWindow;

const SECOND: Duration = Duration::from_secs(1);
const SMALL_COST: TokenCost = TokenCost { input: 100, output: 0 };

fn limiter(requests: u64, tokens: u64) -> (RateLimiter, Instant) {
    let now = Instant::now();
    let limits = RateLimits {
        requests: NonZeroU64::new(requests),
        tokens: NonZeroU64::new(tokens),
        ..RateLimits::default()
    };
    (RateLimiter::new(&limits, now), now)
}

fn take(limiter: &mut RateLimiter, cost: TokenCost, now: Instant) -> Result<(), Instant> {
    limiter.take(cost, cost, now).map(drop)
}

/// The token bucket of a provider.
struct Bucket {
    level: f64,
    capacity: f64,
    per_second: f64,
    at: Instant,
}

impl Bucket {
    fn new(per_minute: f64, capacity: f64, at: Instant) -> Self {
        Self { level: capacity, capacity, per_second: per_minute / 60.0, at }
    }

    fn take(&mut self, permits: f64, now: Instant) -> Result<u64, Duration> {
        let refilled = (now - self.at).as_secs_f64() * self.per_second;
        self.level = (self.level + refilled).min(self.capacity);
        self.at = now;
        if self.level + 1e-6 < permits {
            return Err(Duration::from_secs_f64((permits - self.level) / self.per_second));
        }
        self.level -= permits;
        Ok(self.level as u64)
    }
}

/// The result of a simulation.
#[derive(Debug, Default)]
struct Simulated {
    accepted: u32,
    rejected: u32,
    first_600: Option<Duration>,
}

/// Sends calls whenever the limiter admits them, for this many seconds, against `bucket`. Headers with the
/// level of the bucket arrive after `round_trip`, 429 responses at once, with the true wait.
fn simulate(
    limiter: &mut RateLimiter,
    bucket: &mut Bucket,
    advertised: Option<u64>,
    start: Instant,
    seconds: u64,
) -> Simulated {
    let round_trip = Duration::from_millis(400);
    let mut simulated = Simulated::default();
    let mut in_flight = std::collections::VecDeque::<(Instant, SentCall, u64)>::new();
    let statuses = |remaining| RateLimitStatuses {
        requests: advertised.map(|limit| RateLimitStatus {
            limit: Some(limit),
            remaining,
            reset: None,
            window: LimitWindow::VendorDefault,
        }),
        ..RateLimitStatuses::default()
    };
    for tick in 0..seconds * 1_000 {
        let now = start + Duration::from_millis(tick);
        while let Some((_, call, remaining)) = in_flight.pop_front_if(|(at, ..)| *at <= now) {
            limiter.apply_headers(&statuses(remaining), &call, HeaderScope::Own, now);
            limiter.record_accepted(&call, now);
        }
        // No more than this wait at once.
        for _ in 0..1_000 {
            let Ok(call) = limiter.take(TokenCost::default(), TokenCost::default(), now) else { break };
            match bucket.take(1.0, now) {
                Ok(remaining) => {
                    simulated.accepted += 1;
                    in_flight.push_back((now + round_trip, call, remaining));
                    if simulated.accepted == 600 {
                        simulated.first_600 = Some(now - start);
                    }
                }
                Err(wait) => {
                    simulated.rejected += 1;
                    limiter.record_throttled(&call, now + wait, now);
                }
            }
        }
    }
    simulated
}

#[test]
fn the_request_permit_is_returned_when_the_tokens_do_not_fit() {
    let (mut limiter, now) = limiter(60, 6_000);
    assert_eq!(take(&mut limiter, TokenCost { input: 300, output: 0 }, now), Ok(()));
    // The next second has a request permit, but a debt of 110 tokens.
    let next = now + SECOND;
    assert!(take(&mut limiter, SMALL_COST, next).is_err());
    assert_eq!(take(&mut limiter, TokenCost::default(), next), Ok(()));
}

#[test]
fn unused_reserved_tokens_are_returned() {
    let (mut limiter, now) = limiter(60_000, 6_000);
    let reserved = TokenCost { input: 90, output: 900 };
    assert_eq!(take(&mut limiter, reserved, now), Ok(()));
    limiter.reconcile(reserved, TokenCost { input: 90, output: 0 }, now);
    assert_eq!((take(&mut limiter, SMALL_COST, now).unwrap_err() - now).as_millis(), 900);
}

#[test]
fn a_call_larger_than_the_limit_of_a_minute_is_rejected_with_the_limit() {
    let (limiter, _) = limiter(60, 6_000);
    let error = limiter.fits(TokenCost { input: 7_000, output: 0 }).unwrap_err();
    assert_eq!(error.to_string(), "needs about 7000 tokens, and the limit is 6000 per minute");
}

#[test]
fn a_hold_applies_without_any_limit() {
    let now = Instant::now();
    let mut limiter = RateLimiter::new(&RateLimits::default(), now);
    limiter.hold(now + 3 * SECOND);
    assert_eq!(take(&mut limiter, TokenCost::default(), now), Err(now + 3 * SECOND));
    assert_eq!(limiter.expected_at(0, TokenCost::default(), now), now + 3 * SECOND);
}

#[test]
fn limits_per_second_and_per_day_are_enforced() {
    let now = Instant::now();
    let limits = RateLimits {
        requests_per_second: NonZeroU64::new(10),
        requests_per_day: NonZeroU64::new(12),
        ..RateLimits::default()
    };
    let mut limiter = RateLimiter::new(&limits, now);
    assert_eq!((0..100).filter(|_| take(&mut limiter, SMALL_COST, now).is_ok()).count(), 9);
    let later = now + 2 * SECOND;
    assert_eq!((0..100).filter(|_| take(&mut limiter, SMALL_COST, later).is_ok()).count(), 3);
    let ready = take(&mut limiter, SMALL_COST, later).unwrap_err();
    assert!(ready - now >= Duration::from_hours(24));
    assert!(limiter.expected_at(0, SMALL_COST, later) - now >= Duration::from_hours(24));
}

#[test]
fn six_hundred_calls_are_sent_within_seconds_if_the_headers_show_the_quota() {
    let (mut limiter, start) = limiter(1_000, 1_000_000);
    let mut bucket = Bucket::new(1_000.0, 1_000.0, start);
    let simulated = simulate(&mut limiter, &mut bucket, Some(1_000), start, 10);
    assert_eq!(simulated.rejected, 0);
    assert!(simulated.first_600.unwrap() < Duration::from_millis(2_500), "{simulated:?}");
}

#[test]
fn a_bucket_of_one_second_is_fully_used_and_never_exceeded() {
    let (mut limiter, start) = limiter(1_200, 10_000_000);
    let mut bucket = Bucket::new(1_200.0, 20.0, start);
    let simulated = simulate(&mut limiter, &mut bucket, Some(1_200), start, 60);
    assert_eq!(simulated.rejected, 0);
    assert!(simulated.accepted >= 1_190, "{simulated:?}");
}

#[test]
fn headers_per_minute_with_limits_per_second_cost_one_burst() {
    let (mut limiter, start) = limiter(1_200, 10_000_000);
    let mut bucket = Bucket::new(1_200.0, 20.0, start);
    // The headers show a minute that is almost unused.
    let minute = |remaining: u64| remaining + 1_100;
    let mut in_flight = std::collections::VecDeque::<(Instant, SentCall, u64)>::new();
    let mut accepted = 0;
    let mut rejected = 0;
    for tick in 0..60_000 {
        let now = start + Duration::from_millis(tick);
        while let Some((_, call, remaining)) = in_flight.pop_front_if(|(at, ..)| *at <= now) {
            let requests = Some(RateLimitStatus {
                limit: Some(1_200),
                remaining: minute(remaining),
                reset: None,
                window: LimitWindow::VendorDefault,
            });
            limiter.apply_headers(
                &RateLimitStatuses { requests, ..RateLimitStatuses::default() },
                &call,
                HeaderScope::Own,
                now,
            );
            limiter.record_accepted(&call, now);
        }
        while let Ok(call) = limiter.take(TokenCost::default(), TokenCost::default(), now) {
            match bucket.take(1.0, now) {
                Ok(remaining) => {
                    accepted += 1;
                    in_flight.push_back((now + Duration::from_millis(400), call, remaining));
                }
                Err(wait) => {
                    rejected += 1;
                    limiter.record_throttled(&call, now + wait, now);
                }
            }
        }
    }
    assert!(rejected <= 5, "{rejected} rejected");
    assert!(accepted >= 1_150, "{accepted} accepted");
}

#[test]
fn a_limit_that_is_not_configured_is_learned_from_headers() {
    let start = Instant::now();
    let mut limiter = RateLimiter::new(&RateLimits::default(), start);
    let call = limiter.take(SMALL_COST, SMALL_COST, start).unwrap();
    let requests = Some(RateLimitStatus {
        limit: Some(600),
        remaining: 9,
        reset: None,
        window: LimitWindow::VendorDefault,
    });
    limiter.apply_headers(
        &RateLimitStatuses { requests, ..RateLimitStatuses::default() },
        &call,
        HeaderScope::Own,
        start,
    );
    assert_eq!(limiter.calls_per_second(SMALL_COST), Some(10.0));
    assert_eq!((0..100).filter(|_| take(&mut limiter, SMALL_COST, start).is_ok()).count(), 9);
}

#[test]
fn the_smaller_limit_applies_and_a_lowered_one_is_followed() {
    let (mut limiter, start) = limiter(1_200, 10_000_000);
    let mut bucket = Bucket::new(1_200.0, 20.0, start);
    simulate(&mut limiter, &mut bucket, Some(1_200), start, 10);
    let fallen = start + 10 * SECOND;
    bucket = Bucket { level: bucket.level.min(6.0), ..Bucket::new(400.0, 6.0, fallen) };
    let simulated = simulate(&mut limiter, &mut bucket, Some(400), fallen, 60);
    assert!(simulated.rejected <= 8 && simulated.accepted > 370, "{simulated:?}");
    let back = fallen + 60 * SECOND;
    bucket = Bucket::new(1_200.0, 20.0, back);
    let simulated = simulate(&mut limiter, &mut bucket, Some(1_200), back, 30);
    assert!(simulated.rejected == 0 && simulated.accepted > 560, "{simulated:?}");
}

#[test]
fn the_share_of_the_account_that_other_clients_use_is_left_to_them() {
    for headers in [Some(1_200), None] {
        let (mut limiter, start) = limiter(1_200, 10_000_000);
        let mut bucket = Bucket::new(1_200.0, 20.0, start);
        simulate(&mut limiter, &mut bucket, headers, start, 20);
        // Other clients use two thirds; the headers still show the whole limit.
        let shared = start + 20 * SECOND;
        bucket.per_second = 20.0 / 3.0;
        let simulated = simulate(&mut limiter, &mut bucket, headers, shared, 60);
        assert!(simulated.rejected <= 7 && simulated.accepted > 380, "{headers:?}: {simulated:?}");
        let back = shared + 60 * SECOND;
        bucket.per_second = 20.0;
        simulate(&mut limiter, &mut bucket, headers, back, 28);
        let simulated = simulate(&mut limiter, &mut bucket, headers, back + 28 * SECOND, 5);
        assert!(simulated.rejected <= 1 && simulated.accepted >= 90, "{headers:?}: {simulated:?}");
    }
}

#[test]
fn headers_of_one_model_do_not_apply_to_the_account() {
    let (mut limiter, now) = limiter(1_200, 10_000_000);
    let call = limiter.take(SMALL_COST, SMALL_COST, now).unwrap();
    let requests = Some(RateLimitStatus {
        limit: Some(50),
        remaining: 0,
        reset: None,
        window: LimitWindow::VendorDefault,
    });
    limiter.apply_headers(
        &RateLimitStatuses { requests, ..RateLimitStatuses::default() },
        &call,
        HeaderScope::MatchingOnly,
        now,
    );
    assert_eq!(limiter.calls_per_second(TokenCost::default()), Some(20.0));
    assert_eq!(take(&mut limiter, SMALL_COST, now), Ok(()));
}

proptest! {
    #[test]
    fn no_window_contains_more_than_the_limit_and_the_burst(
        per_minute in 60u64..3_000,
        events in prop::collection::vec((0u64..1_500, 0u8..10, 0u64..3_000), 1..300),
    ) {
        let (mut limiter, start) = limiter(per_minute, 1_000_000_000);
        let mut now = start;
        let mut sent = Vec::new();
        let mut largest = 0.0_f64;
        for (pause, event, remaining) in events {
            now += Duration::from_millis(pause);
            while let Ok(call) = limiter.take(TokenCost::default(), TokenCost::default(), now) {
                sent.push((now, call));
            }
            let Some((_, call)) = sent.last().copied() else { continue };
            match event {
                0 => limiter.record_throttled(&call, now + Duration::from_millis(remaining), now),
                1 => limiter.hold(now + Duration::from_millis(remaining)),
                _ => {
                    let remaining = remaining.min(per_minute);
                    let window = LimitWindow::VendorDefault;
                    let requests = Some(RateLimitStatus { limit: None, remaining, reset: None, window });
                    limiter.record_accepted(&call, now);
                    let headers = RateLimitStatuses { requests, ..RateLimitStatuses::default() };
                    limiter.apply_headers(&headers, &call, HeaderScope::Own, now);
                }
            }
            largest = largest.max(limiter.requests.burst() as f64);
        }
        // The bound is one second's worth, or nine tenths of the largest remainder ever advertised.
        prop_assert!(largest <= (per_minute as f64 * 0.9).max(1.0) + 1.0);
        let mut first = 0;
        for (last, (at, _)) in sent.iter().enumerate() {
            while *at - sent[first].0 >= Duration::from_secs(60) { first += 1 }
            let within = (last - first + 1) as f64;
            let max = per_minute as f64 + 2.0 * largest + 2.0;
            prop_assert!(within <= max, "{within} with bursts up to {largest}");
        }
    }

    #[test]
    fn no_permits_leak(sizes in prop::collection::vec((1u64..500, 0u64..2_000, 0u64..3_000, 0u8..3), 1..100)) {
        let (mut limiter, start) = limiter(1_000_000, 60_000);
        let mut now = start;
        let mut total_used = 0;
        for (input, reserved, used, end) in sizes {
            let cost = TokenCost { input, output: reserved };
            let call = loop {
                match limiter.take(cost, cost, now) {
                    Ok(call) => break call,
                    Err(ready) => now = ready,
                }
            };
            match end {
                0 => limiter.rollback(cost, &call),
                1 => {
                    limiter.reconcile(cost, TokenCost { input, output: used }, now);
                    total_used += input + used;
                }
                _ => total_used += input + reserved,
            }
        }
        // Everything that was admitted has been used, except what the burst holds.
        let granted = (now - start).as_secs_f64() * 1_000.0 + 900.0;
        let level = limiter.tokens.level(now);
        prop_assert!(total_used as f64 + level <= granted + 2.0, "{total_used} used, {level} left, {granted}");
    }
}

#[test]
fn a_configured_limit_below_the_advertised_one_is_respected() {
    let (mut limiter, start) = limiter(60, 10_000_000);
    let mut bucket = Bucket::new(600.0, 600.0, start);
    let simulated = simulate(&mut limiter, &mut bucket, Some(600), start, 30);
    assert!(simulated.accepted <= 31, "{simulated:?}");
}

#[test]
fn the_remainder_of_a_daily_limit_does_not_enlarge_the_burst() {
    let (mut limiter, start) = limiter(30, 10_000_000);
    for second in 0..60 {
        let now = start + Duration::from_secs(second);
        while let Ok(call) = limiter.take(TokenCost::default(), TokenCost::default(), now) {
            let reset = Some(Duration::from_secs(180));
            let requests = Some(RateLimitStatus {
                limit: Some(14_400),
                remaining: 14_370,
                reset,
                window: LimitWindow::VendorDefault,
            });
            limiter.apply_headers(
                &RateLimitStatuses { requests, ..RateLimitStatuses::default() },
                &call,
                HeaderScope::Own,
                now,
            );
            limiter.record_accepted(&call, now);
        }
    }
    assert_eq!(limiter.requests.burst(), 1);
}

#[test]
fn an_advertised_limit_smaller_than_an_accepted_call_is_ignored() {
    let status = |limit| {
        Some(RateLimitStatus { limit, remaining: 5, reset: None, window: LimitWindow::VendorDefault })
    };
    let advertised = RateLimitStatuses {
        requests: status(Some(1)),
        requests_per_second: None,
        tokens: status(Some(400)),
        input_tokens: status(Some(399)),
        output_tokens: status(None),
    };
    assert_eq!(advertised.without_limits_below(399), advertised);
    assert_eq!(advertised.without_limits_below(400), RateLimitStatuses { input_tokens: None, ..advertised });
    assert_eq!(
        advertised.without_limits_below(401),
        RateLimitStatuses { input_tokens: None, tokens: None, ..advertised }
    );
}

#[test]
fn changed_limits_keep_what_was_used() {
    let now = Instant::now();
    let limits = |per_minute| RateLimits {
        requests: NonZeroU64::new(per_minute),
        burst: BurstSettings::Fixed(10 * SECOND),
        ..RateLimits::default()
    };
    let call = TokenCost::default();
    let mut limiter = RateLimiter::new(&limits(600), now);
    assert!((0..40).all(|_| take(&mut limiter, call, now).is_ok()));
    limiter.set_limits(&limits(1_200), now);
    let more = (0..1_000).take_while(|_| take(&mut limiter, call, now).is_ok()).count();
    assert!((159..=160).contains(&more), "{more} of a burst of 200, of which 40 are used");
    // A burst of 50, of which 200 are used: a debt of 150 at five a second.
    limiter.set_limits(&limits(300), now);
    let wait = (take(&mut limiter, call, now).unwrap_err() - now).as_secs_f64();
    assert!((29.0..=31.0).contains(&wait), "{wait}");
    // Without a limit nothing is held back.
    limiter.set_limits(&RateLimits::default(), now);
    assert!(take(&mut limiter, call, now).is_ok());
}

#[test]
fn changed_limits_keep_the_calls_of_the_day_and_the_advertised_limit() {
    let now = Instant::now();
    let limits = |per_day| RateLimits { requests_per_day: NonZeroU64::new(per_day), ..RateLimits::default() };
    let call = TokenCost::default();
    let mut limiter = RateLimiter::new(&limits(3), now);
    let sent = limiter.take(call, call, now).unwrap();
    let advertised = RateLimitStatus {
        limit: Some(6_000),
        remaining: 5_999,
        reset: None,
        window: LimitWindow::VendorDefault,
    };
    let headers = RateLimitStatuses { requests: Some(advertised), ..RateLimitStatuses::default() };
    limiter.apply_headers(&headers, &sent, HeaderScope::Own, now);
    assert!((0..2).all(|_| take(&mut limiter, call, now).is_ok()));
    assert!(take(&mut limiter, call, now).is_err());
    limiter.set_limits(&limits(4), now);
    assert_eq!(limiter.daily_usage(), Some((4, 3)));
    assert!(take(&mut limiter, call, now).is_ok() && take(&mut limiter, call, now).is_err());
    assert_eq!(limiter.known_per_minute()[0].advertised, Some(6_000.0));
    let mut successor = RateLimiter::new(&limits(9), now);
    successor.inherit_daily_quota(&mut limiter);
    assert_eq!((successor.daily_usage(), limiter.daily_usage()), (Some((9, 4)), None));
}
