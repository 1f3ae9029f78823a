use proptest::prelude::*;

use super::*;
use crate::types::LimitWindow;

const SECOND: Duration = Duration::from_secs(1);
const SMALL: Need = Need { input: 100, output: 0 };

fn limits(requests: u64, tokens: u64) -> (Limits, Instant) {
    let now = Instant::now();
    let limits = RateLimits {
        requests: NonZeroU64::new(requests),
        tokens: NonZeroU64::new(tokens),
        ..RateLimits::default()
    };
    (Limits::new(&limits, now), now)
}

fn take(limits: &mut Limits, need: Need, now: Instant) -> Result<(), Instant> {
    limits.take(need, need, now).map(drop)
}

/// A provider's bucket, to be drawn from.
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

    fn draw(&mut self, cells: f64, now: Instant) -> Result<u64, Duration> {
        let back = (now - self.at).as_secs_f64() * self.per_second;
        (self.level, self.at) = ((self.level + back).min(self.capacity), now);
        if self.level + 1e-6 < cells {
            return Err(Duration::from_secs_f64((cells - self.level) / self.per_second));
        }
        self.level -= cells;
        Ok(self.level as u64)
    }
}

/// What a played account came to.
#[derive(Debug, Default)]
struct Played {
    accepted: u32,
    refused: u32,
    first_600: Option<Duration>,
}

/// Lets calls leave whenever `limits` allow, for so many seconds, against `bucket`; headers with the
/// bucket's level come back after `round_trip`, refusals at once, with the true wait.
fn play(limits: &mut Limits, bucket: &mut Bucket, told: Option<u64>, start: Instant, seconds: u64) -> Played {
    let round_trip = Duration::from_millis(400);
    let (mut played, mut out) =
        (Played::default(), std::collections::VecDeque::<(Instant, Left, u64)>::new());
    let standings = |remaining| Standings {
        requests: told.map(|limit| Standing {
            limit: Some(limit),
            remaining,
            reset: None,
            window: LimitWindow::OfVendor,
        }),
        ..Standings::default()
    };
    for tick in 0..seconds * 1_000 {
        let now = start + Duration::from_millis(tick);
        while let Some((_, left, remaining)) = out.pop_front_if(|(at, ..)| *at <= now) {
            limits.hear(&standings(remaining), &left, Hearing::All, now);
            limits.went_through(&left, now);
        }
        // No more than this are ever waiting at once.
        for _ in 0..1_000 {
            let Ok(left) = limits.take(Need::default(), Need::default(), now) else { break };
            match bucket.draw(1.0, now) {
                Ok(remaining) => {
                    played.accepted += 1;
                    out.push_back((now + round_trip, left, remaining));
                    if played.accepted == 600 {
                        played.first_600 = Some(now - start);
                    }
                }
                Err(wait) => {
                    played.refused += 1;
                    limits.refused(&left, now + wait, now);
                }
            }
        }
    }
    played
}

#[test]
fn a_request_is_given_back_when_its_tokens_do_not_fit() {
    let (mut limits, now) = limits(60, 6_000);
    assert_eq!(take(&mut limits, Need { input: 300, output: 0 }, now), Ok(()));
    // The next second has its request but owes 110 tokens.
    let next = now + SECOND;
    assert!(take(&mut limits, SMALL, next).is_err());
    assert_eq!(take(&mut limits, Need::default(), next), Ok(()));
}

#[test]
fn what_was_reserved_too_much_comes_back() {
    let (mut limits, now) = limits(60_000, 6_000);
    let reserved = Need { input: 90, output: 900 };
    assert_eq!(take(&mut limits, reserved, now), Ok(()));
    limits.settle(reserved, Need { input: 90, output: 0 }, now);
    assert_eq!((take(&mut limits, SMALL, now).unwrap_err() - now).as_millis(), 900);
}

#[test]
fn a_call_larger_than_a_minute_is_named() {
    let (limits, _) = limits(60, 6_000);
    let error = limits.fits(Need { input: 7_000, output: 0 }).unwrap_err();
    assert_eq!(error.to_string(), "needs about 7000 tokens, and the limit is 6000 per minute");
}

#[test]
fn a_hold_counts_without_any_limit_too() {
    let now = Instant::now();
    let mut limits = Limits::new(&RateLimits::default(), now);
    limits.hold(now + 3 * SECOND);
    assert_eq!(take(&mut limits, Need::default(), now), Err(now + 3 * SECOND));
    assert_eq!(limits.expected(0, Need::default(), now), now + 3 * SECOND);
}

#[test]
fn a_second_and_a_day_have_their_limits_too() {
    let now = Instant::now();
    let limits = RateLimits {
        requests_per_second: NonZeroU64::new(10),
        requests_per_day: NonZeroU64::new(12),
        ..RateLimits::default()
    };
    let mut limits = Limits::new(&limits, now);
    assert_eq!((0..100).filter(|_| take(&mut limits, SMALL, now).is_ok()).count(), 9);
    let later = now + 2 * SECOND;
    assert_eq!((0..100).filter(|_| take(&mut limits, SMALL, later).is_ok()).count(), 3);
    let ready = take(&mut limits, SMALL, later).unwrap_err();
    assert!(ready - now >= Duration::from_hours(24));
    assert!(limits.expected(0, SMALL, later) - now >= Duration::from_hours(24));
}

#[test]
fn six_hundred_calls_of_a_minutes_quota_leave_within_seconds_where_the_headers_say_that_it_is_there() {
    let (mut limits, start) = limits(1_000, 1_000_000);
    let mut bucket = Bucket::new(1_000.0, 1_000.0, start);
    let played = play(&mut limits, &mut bucket, Some(1_000), start, 10);
    assert_eq!(played.refused, 0);
    assert!(played.first_600.unwrap() < Duration::from_millis(2_500), "{played:?}");
}

#[test]
fn a_bucket_of_one_second_is_used_up_and_never_overdrawn() {
    let (mut limits, start) = limits(1_200, 10_000_000);
    let mut bucket = Bucket::new(1_200.0, 20.0, start);
    let played = play(&mut limits, &mut bucket, Some(1_200), start, 60);
    assert_eq!(played.refused, 0);
    assert!(played.accepted >= 1_190, "{played:?}");
}

#[test]
fn headers_by_the_minute_over_limits_by_the_second_cost_one_burst() {
    let (mut limits, start) = limits(1_200, 10_000_000);
    let mut bucket = Bucket::new(1_200.0, 20.0, start);
    // The headers tell of a minute that is nearly whole.
    let minute = |remaining: u64| remaining + 1_100;
    let mut out = std::collections::VecDeque::<(Instant, Left, u64)>::new();
    let (mut accepted, mut refused) = (0, 0);
    for tick in 0..60_000 {
        let now = start + Duration::from_millis(tick);
        while let Some((_, left, remaining)) = out.pop_front_if(|(at, ..)| *at <= now) {
            let requests = Some(Standing {
                limit: Some(1_200),
                remaining: minute(remaining),
                reset: None,
                window: LimitWindow::OfVendor,
            });
            limits.hear(&Standings { requests, ..Standings::default() }, &left, Hearing::All, now);
            limits.went_through(&left, now);
        }
        while let Ok(left) = limits.take(Need::default(), Need::default(), now) {
            match bucket.draw(1.0, now) {
                Ok(remaining) => {
                    accepted += 1;
                    out.push_back((now + Duration::from_millis(400), left, remaining));
                }
                Err(wait) => {
                    refused += 1;
                    limits.refused(&left, now + wait, now);
                }
            }
        }
    }
    assert!(refused <= 5, "{refused} refused");
    assert!(accepted >= 1_150, "{accepted} accepted");
}

#[test]
fn a_limit_that_nobody_configured_is_learned() {
    let start = Instant::now();
    let mut limits = Limits::new(&RateLimits::default(), start);
    let left = limits.take(SMALL, SMALL, start).unwrap();
    let requests =
        Some(Standing { limit: Some(600), remaining: 9, reset: None, window: LimitWindow::OfVendor });
    limits.hear(&Standings { requests, ..Standings::default() }, &left, Hearing::All, start);
    assert_eq!(limits.calls_per_second(SMALL), Some(10.0));
    assert_eq!((0..100).filter(|_| take(&mut limits, SMALL, start).is_ok()).count(), 9);
}

#[test]
fn the_smaller_limit_counts_and_a_lowered_one_is_followed() {
    let (mut limits, start) = limits(1_200, 10_000_000);
    let mut bucket = Bucket::new(1_200.0, 20.0, start);
    play(&mut limits, &mut bucket, Some(1_200), start, 10);
    let fallen = start + 10 * SECOND;
    bucket = Bucket { level: bucket.level.min(6.0), ..Bucket::new(400.0, 6.0, fallen) };
    let played = play(&mut limits, &mut bucket, Some(400), fallen, 60);
    assert!(played.refused <= 8 && played.accepted > 370, "{played:?}");
    let back = fallen + 60 * SECOND;
    bucket = Bucket::new(1_200.0, 20.0, back);
    let played = play(&mut limits, &mut bucket, Some(1_200), back, 30);
    assert!(played.refused == 0 && played.accepted > 560, "{played:?}");
}

#[test]
fn what_others_take_of_the_account_is_left_to_them() {
    for headers in [Some(1_200), None] {
        let (mut limits, start) = limits(1_200, 10_000_000);
        let mut bucket = Bucket::new(1_200.0, 20.0, start);
        play(&mut limits, &mut bucket, headers, start, 20);
        // Others take two thirds; the headers still tell of the whole limit.
        let taken = start + 20 * SECOND;
        bucket.per_second = 20.0 / 3.0;
        let played = play(&mut limits, &mut bucket, headers, taken, 60);
        assert!(played.refused <= 7 && played.accepted > 380, "{headers:?}: {played:?}");
        let back = taken + 60 * SECOND;
        bucket.per_second = 20.0;
        play(&mut limits, &mut bucket, headers, back, 28);
        let played = play(&mut limits, &mut bucket, headers, back + 28 * SECOND, 5);
        assert!(played.refused <= 1 && played.accepted >= 90, "{headers:?}: {played:?}");
    }
}

#[test]
fn what_is_said_of_one_model_is_not_believed_of_the_account() {
    let (mut limits, now) = limits(1_200, 10_000_000);
    let left = limits.take(SMALL, SMALL, now).unwrap();
    let requests =
        Some(Standing { limit: Some(50), remaining: 0, reset: None, window: LimitWindow::OfVendor });
    limits.hear(&Standings { requests, ..Standings::default() }, &left, Hearing::OwnNumbers, now);
    assert_eq!(limits.calls_per_second(Need::default()), Some(20.0));
    assert_eq!(take(&mut limits, SMALL, now), Ok(()));
}

proptest! {
    #[test]
    fn no_window_ever_sees_more_than_the_limit_and_the_burst(
        per_minute in 60u64..3_000,
        events in prop::collection::vec((0u64..1_500, 0u8..10, 0u64..3_000), 1..300),
    ) {
        let (mut limits, start) = limits(per_minute, 1_000_000_000);
        let (mut now, mut left, mut largest) = (start, Vec::new(), 0.0_f64);
        for (pause, event, remaining) in events {
            now += Duration::from_millis(pause);
            while let Ok(call) = limits.take(Need::default(), Need::default(), now) {
                left.push((now, call));
            }
            let Some((_, call)) = left.last().copied() else { continue };
            match event {
                0 => limits.refused(&call, now + Duration::from_millis(remaining), now),
                1 => limits.hold(now + Duration::from_millis(remaining)),
                _ => {
                    let requests = Some(Standing { limit: None, remaining: remaining.min(per_minute), reset: None, window: LimitWindow::OfVendor });
                    limits.went_through(&call, now);
                    limits.hear(&Standings { requests, ..Standings::default() }, &call, Hearing::All, now);
                }
            }
            largest = largest.max(limits.requests.burst() as f64);
        }
        // Stated: one second's worth, or nine tenths of the most that the provider ever said was left.
        prop_assert!(largest <= (per_minute as f64 * 0.9).max(1.0) + 1.0);
        let mut first = 0;
        for (last, (at, _)) in left.iter().enumerate() {
            while *at - left[first].0 >= Duration::from_secs(60) { first += 1 }
            let within = (last - first + 1) as f64;
            prop_assert!(within <= per_minute as f64 + 2.0 * largest + 2.0, "{within} with bursts up to {largest}");
        }
    }

    #[test]
    fn nothing_leaks(sizes in prop::collection::vec((1u64..500, 0u64..2_000, 0u64..3_000, 0u8..3), 1..100)) {
        let (mut limits, start) = limits(1_000_000, 60_000);
        let (mut now, mut used_in_all) = (start, 0);
        for (input, reserved, used, end) in sizes {
            let need = Need { input, output: reserved };
            let left = loop {
                match limits.take(need, need, now) {
                    Ok(left) => break left,
                    Err(ready) => now = ready,
                }
            };
            match end {
                0 => limits.stayed(need, &left),
                1 => {
                    limits.settle(need, Need { input, output: used }, now);
                    used_in_all += input + used;
                }
                _ => used_in_all += input + reserved,
            }
        }
        // All that was let through has been used, but for what the burst holds.
        let brought = (now - start).as_secs_f64() * 1_000.0 + 900.0;
        let level = limits.tokens.level(now);
        prop_assert!(used_in_all as f64 + level <= brought + 2.0, "{used_in_all} used, {level} left, {brought}");
    }
}

#[test]
fn a_limit_that_is_set_below_the_providers_is_kept_whatever_is_left_there() {
    let (mut limits, start) = limits(60, 10_000_000);
    let mut bucket = Bucket::new(600.0, 600.0, start);
    let played = play(&mut limits, &mut bucket, Some(600), start, 30);
    assert!(played.accepted <= 31, "{played:?}");
}

#[test]
fn what_is_left_of_a_day_is_no_burst() {
    let (mut limits, start) = limits(30, 10_000_000);
    for second in 0..60 {
        let now = start + Duration::from_secs(second);
        while let Ok(left) = limits.take(Need::default(), Need::default(), now) {
            let reset = Some(Duration::from_secs(180));
            let requests = Some(Standing {
                limit: Some(14_400),
                remaining: 14_370,
                reset,
                window: LimitWindow::OfVendor,
            });
            limits.hear(&Standings { requests, ..Standings::default() }, &left, Hearing::All, now);
            limits.went_through(&left, now);
        }
    }
    assert_eq!(limits.requests.burst(), 1);
}

#[test]
fn a_limit_smaller_than_a_call_that_was_taken_is_none() {
    let standing = |limit| Some(Standing { limit, remaining: 5, reset: None, window: LimitWindow::OfVendor });
    let said = Standings {
        requests: standing(Some(1)),
        requests_per_second: None,
        tokens: standing(Some(400)),
        input_tokens: standing(Some(399)),
        output_tokens: standing(None),
    };
    assert_eq!(said.borne_out_by(399), said);
    assert_eq!(said.borne_out_by(400), Standings { input_tokens: None, ..said });
    assert_eq!(said.borne_out_by(401), Standings { input_tokens: None, tokens: None, ..said });
}
