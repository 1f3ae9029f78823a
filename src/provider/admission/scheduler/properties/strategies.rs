//! Generators of provider settings, and of events that affect a provider's calls.

use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};
use std::ops::RangeInclusive;
use std::time::Duration;

use indexmap::IndexMap;
use proptest::option::{of, weighted};
use proptest::prelude::*;

use crate::guard::{BreakerSettings, BurstSettings, ConcurrencySettings, RetryBudgetSettings};
use crate::provider::admission::grant::Abort;
use crate::provider::{Limits, Model, OutputReservation, Settings};
use crate::types::{
    Charged, Class, Completion, Failure, LimitWindow, Priority, RateLimitStatus, Tokens, Usage,
};
use crate::wire::RateLimitHeaders;

/// An event. `which` is an index modulo the number of calls that it can apply to.
#[derive(Debug, Clone)]
pub(super) enum Event {
    Submit(TestCall),
    Advance(Duration),
    Headers { which: usize, headers: Box<RateLimitHeaders>, accepted: bool },
    End { which: usize, end: CallEnd },
    CallerGone { which: usize },
    Sweep,
}

/// A call before it is queued.
#[derive(Debug, Clone)]
pub(super) struct TestCall {
    pub(super) model: usize,
    pub(super) input: u64,
    pub(super) max_tokens: Option<u64>,
    pub(super) priority: Priority,
    pub(super) run: usize,
    pub(super) step: Option<u8>,
    pub(super) max_wait: Duration,
    pub(super) only_option_now: bool,
    pub(super) only_option: bool,
    pub(super) is_retry: bool,
}

/// The end of a call.
#[derive(Debug, Clone)]
pub(super) enum CallEnd {
    Answered(Option<(u64, u64)>),
    Failed(Failure),
    /// Without a result.
    Lost,
    /// Its caller dropped it.
    Aborted(Abort),
    /// It was not sent after all.
    Withdrawn,
}

impl CallEnd {
    pub(super) fn result(self) -> Option<Result<Completion, Failure>> {
        let usage =
            |(input, output)| Usage { input: Tokens(input), output: Tokens(output), ..Usage::default() };
        match self {
            Self::Answered(used) => Some(Ok(Completion { usage: used.map(usage), ..Completion::default() })),
            Self::Failed(failure) => Some(Err(failure)),
            Self::Lost | Self::Aborted(_) | Self::Withdrawn => None,
        }
    }
}

fn some(range: RangeInclusive<u32>) -> impl Strategy<Value = Option<NonZeroU32>> {
    weighted(0.6, range.prop_map(|number| NonZeroU32::new(number).unwrap()))
}

pub(super) fn concurrency(limit: u32) -> impl Strategy<Value = ConcurrencySettings> {
    (1..=2u32, 1..=8u32, 2..=limit).prop_map(|(min, start, max)| {
        let [min, start, max] = [min, start, max].map(|number| NonZeroU32::new(number).unwrap());
        ConcurrencySettings { min, start: start.min(max), max }
    })
}

pub(super) fn limits() -> impl Strategy<Value = Limits> {
    let burst = prop_oneof![
        Just(BurstSettings::Auto),
        (1..=30u64).prop_map(|seconds| BurstSettings::Fixed(Duration::from_secs(seconds))),
    ];
    let requests = (some(20..=600), some(1..=20), weighted(0.1, 10..=100u32));
    let tokens = (some(1_000..=60_000), some(1_000..=60_000), some(500..=30_000));
    (requests, tokens, burst, concurrency(12)).prop_map(|(requests, tokens, burst, concurrency)| Limits {
        requests_per_minute: requests.0,
        requests_per_second: requests.1,
        requests_per_day: requests.2.and_then(NonZeroU32::new),
        tokens_per_minute: tokens.0,
        input_tokens_per_minute: tokens.1,
        output_tokens_per_minute: tokens.2,
        burst,
        concurrency,
    })
}

fn breaker() -> impl Strategy<Value = BreakerSettings> {
    (1..=6u32, 0.2..=1.0f64, 1..=8u32, 1..=8u64).prop_map(|(failures, failure_rate, calls, pause)| {
        BreakerSettings {
            consecutive_failures: NonZeroU32::new(failures).unwrap(),
            failure_rate,
            min_requests: NonZeroU32::new(calls).unwrap(),
            open_duration: Duration::from_secs(pause),
            ..BreakerSettings::default()
        }
    })
}

/// Returns one to three models under the limits of an account and some of their own.
pub(super) fn settings() -> impl Strategy<Value = Settings> {
    let models = prop::collection::vec((of(limits()), weighted(0.3, 1..=2_000u32)), 1..=3);
    let retries = (0.0..=1.0f64, 0.0..=5.0f64);
    let rest = (retries, any::<bool>(), 1..=60usize, weighted(0.3, 1..=20u64), some(1..=16));
    (limits(), models, breaker(), rest).prop_map(|(limits, models, breaker, rest)| {
        let (retries, reserves_max_tokens, queue, rotation, max_concurrency) = rest;
        let models = models.into_iter().enumerate().map(|(number, (limits, max_tokens))| {
            let max_tokens = max_tokens.and_then(NonZeroU32::new);
            (number.to_string().as_str().into(), Model { limits, max_tokens, ..Model::default() })
        });
        Settings {
            limits,
            breaker,
            retry_budget: RetryBudgetSettings {
                ratio: retries.0,
                min_per_second: retries.1,
                ..Default::default()
            },
            output_reservation: if reserves_max_tokens {
                OutputReservation::MaxTokens
            } else {
                OutputReservation::P95
            },
            max_concurrency,
            queue: NonZeroUsize::new(queue).unwrap(),
            rotate_every: rotation.map(Duration::from_secs),
            models: models.collect::<IndexMap<_, _>>(),
            ..Settings::default()
        }
    })
}

/// Returns a provider whose models have no limits of their own.
pub(super) fn unlimited() -> impl Strategy<Value = Settings> {
    settings().prop_map(|mut settings| {
        settings.limits = Limits { concurrency: settings.limits.concurrency, ..Limits::default() };
        settings.models.values_mut().for_each(|model| model.limits = None);
        settings
    })
}

pub(super) fn test_call() -> impl Strategy<Value = TestCall> {
    let size = (1..=3_000u64, weighted(0.4, 1..=2_000u64));
    let key = (0..3usize, any::<bool>(), 0..3usize, of(0..3u8));
    let flags = (weighted_bool(0.4), any::<bool>(), weighted_bool(0.2));
    (size, key, 1..=120u64, flags).prop_map(|(size, key, max_wait, flags)| TestCall {
        model: key.0,
        input: size.0,
        max_tokens: size.1,
        priority: if key.1 { Priority::Interactive } else { Priority::Batch },
        run: key.2,
        step: key.3,
        max_wait: Duration::from_secs(max_wait),
        only_option_now: flags.0,
        only_option: flags.1,
        is_retry: flags.2,
    })
}

fn weighted_bool(probability: f64) -> impl Strategy<Value = bool> {
    prop::bool::weighted(probability)
}

/// Returns plausible and implausible rate-limit headers.
pub(super) fn headers() -> impl Strategy<Value = RateLimitHeaders> {
    let number = prop_oneof![4 => 0..=2_000u64, 1 => Just(0), 1 => Just(u64::MAX), 1 => 0..=u64::MAX];
    let limit = prop_oneof![4 => 20..=2_000u64, 1 => Just(0), 1 => Just(u64::MAX)];
    let reset = prop_oneof![4 => 0..=60u64, 1 => 100..=100_000u64].prop_map(Duration::from_secs);
    let window = prop_oneof![
        3 => Just(LimitWindow::VendorDefault),
        1 => Just(LimitWindow::Unknown),
        1 => prop::sample::select(vec![0, 1, 10, 60, 3_600]).prop_map(|seconds| LimitWindow::Fixed(Duration::from_secs(seconds))),
    ];
    let remaining = (of(limit), number, of(reset), window);
    let remaining = remaining.prop_map(|(limit, remaining, reset, window)| RateLimitStatus {
        limit,
        remaining,
        reset,
        window,
    });
    prop::array::uniform5(of(remaining)).prop_map(
        |[requests, requests_per_second, tokens, input_tokens, output_tokens]| RateLimitHeaders {
            requests_per_second,
            requests,
            tokens,
            input_tokens,
            output_tokens,
            ..RateLimitHeaders::default()
        },
    )
}

pub(super) fn answered() -> impl Strategy<Value = CallEnd> {
    let used = prop_oneof![8 => (1..=3_000u64, 0..=2_000u64), 1 => (0..=u64::MAX, 0..=u64::MAX)];
    weighted(0.8, used).prop_map(CallEnd::Answered)
}

/// Returns a failure of any class, with or without a response.
pub(super) fn failed(max_wait: u64) -> impl Strategy<Value = CallEnd> {
    let wait = prop_oneof![9 => 0..=max_wait, 1 => 0..=max_wait * 100];
    let wait = weighted(0.3, wait.prop_map(Duration::from_millis));
    let usage = weighted(0.2, (0..=3_000u64, 0..=2_000u64));
    let class = prop_oneof![
        2 => prop::sample::select(Class::ALL.as_slice()),
        3 => prop::sample::select(vec![Class::NetworkError, Class::ServerError, Class::Timeout, Class::RateLimit]),
        1 => prop::sample::select(vec![Class::Auth, Class::Quota]),
    ];
    (class, any::<bool>(), wait, any::<bool>(), usage).prop_map(|(class, answered, wait, charged, usage)| {
        let mut failure = Failure::new(class, "no");
        failure.status = (answered && class != Class::NetworkError).then_some(500);
        failure.retry_after = wait;
        failure.charged = if charged { Charged::Maybe } else { Charged::No };
        let usage = usage.map(|(input, output)| Usage {
            input: Tokens(input),
            output: Tokens(output),
            ..Usage::default()
        });
        failure.usage = usage.map(Box::new);
        CallEnd::Failed(failure)
    })
}

pub(super) fn waits(milliseconds: u64) -> impl Strategy<Value = Event> {
    (0..=milliseconds).prop_map(|time| Event::Advance(Duration::from_millis(time)))
}

pub(super) fn submits() -> impl Strategy<Value = Event> {
    test_call().prop_map(Event::Submit)
}

pub(super) fn ends(end: impl Strategy<Value = CallEnd>) -> impl Strategy<Value = Event> {
    (any::<usize>(), end).prop_map(|(which, end)| Event::End { which, end })
}

/// Returns any event.
pub(super) fn anything() -> impl Strategy<Value = Event> {
    let headers_event = (any::<usize>(), headers(), any::<bool>());
    prop_oneof![
        6 => submits(),
        4 => waits(3_000),
        1 => waits(40_000),
        3 => headers_event.prop_map(|(which, headers, accepted)| Event::Headers { which, headers: Box::new(headers), accepted }),
        3 => ends(answered()),
        3 => ends(failed(120_000)),
        1 => ends(Just(CallEnd::Lost)),
        1 => any::<usize>().prop_map(|which| Event::CallerGone { which }),
        1 => Just(Event::Sweep),
    ]
}

/// Returns the end of a call without a result.
pub(super) fn without_result() -> impl Strategy<Value = CallEnd> {
    prop::sample::select(vec![
        CallEnd::Lost,
        CallEnd::Aborted(Abort::Superseded),
        CallEnd::Aborted(Abort::Cancelled),
        CallEnd::Withdrawn,
    ])
}

/// Returns the events of a provider that fails, is slow, or does not respond.
pub(super) fn outage() -> impl Strategy<Value = Event> {
    let only_option_now = prop::bool::weighted(0.7);
    let submits = (test_call(), only_option_now).prop_map(|(test_call, only_option_now)| {
        Event::Submit(TestCall {
            input: 1,
            max_tokens: Some(1),
            only_option_now,
            is_retry: false,
            ..test_call
        })
    });
    let faults =
        vec![Class::NetworkError, Class::NetworkError, Class::ServerError, Class::Timeout, Class::Overloaded];
    let fault = (prop::sample::select(faults), any::<bool>()).prop_map(|(class, answered)| {
        let mut failure = Failure::new(class, "no");
        failure.status = (answered && class == Class::ServerError).then_some(500);
        CallEnd::Failed(failure)
    });
    let headers_event =
        any::<usize>().prop_map(|which| Event::Headers { which, headers: Box::default(), accepted: true });
    prop_oneof![
        8 => submits,
        3 => waits(2_000),
        1 => waits(12_000),
        2 => Just(Event::Sweep),
        4 => ends(fault),
        1 => ends(Just(CallEnd::Lost)),
        1 => ends(answered()),
        1 => headers_event,
    ]
}

/// Returns any event except those that change the effective limits.
pub(super) fn anything_without_limits() -> impl Strategy<Value = Event> {
    let failure_without_wait = failed(0).prop_filter_map("it requests a wait", |end| match end {
        CallEnd::Failed(failure) if failure.retry_after.is_none() && failure.class != Class::RateLimit => {
            Some(CallEnd::Failed(failure))
        }
        _ => None,
    });
    let small = weighted(0.8, (1..=3_000u64, 0..=2_000u64)).prop_map(CallEnd::Answered);
    prop_oneof![
        6 => submits(),
        4 => waits(3_000),
        4 => ends(small),
        1 => ends(failure_without_wait),
        1 => ends(Just(CallEnd::Lost)),
        1 => any::<usize>().prop_map(|which| Event::CallerGone { which }),
        1 => Just(Event::Sweep),
    ]
}

pub(super) fn to_f64(limit: Option<NonZeroU32>) -> Option<f64> {
    limit.map(NonZeroU64::from).map(|limit| limit.get() as f64)
}
