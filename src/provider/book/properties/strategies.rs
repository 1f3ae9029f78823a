//! Providers as people may configure them, and what may happen to their calls.

use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};
use std::ops::RangeInclusive;
use std::time::Duration;

use indexmap::IndexMap;
use proptest::option::{of, weighted};
use proptest::prelude::*;

use crate::guard::{BreakerSettings, BurstSettings, ConcurrencySettings, RetryBudgetSettings};
use crate::provider::{Limits, Model, Reserve, Settings};
use crate::types::{Charged, Class, Failure, LimitWindow, Priority, Reply, Tokens, Usage};
use crate::wire::{Hints, Remaining};

/// Something that happens to a provider. `which` counts modulo those that there are.
#[derive(Debug, Clone)]
pub(super) enum Event {
    Asks(Question),
    Passes(Duration),
    Heard { which: usize, hints: Box<Hints>, accepted: bool },
    Ends { which: usize, how: How },
    AskerGoes { which: usize },
    Sweeps,
}

/// A call, before it is in the queue.
#[derive(Debug, Clone)]
pub(super) struct Question {
    pub(super) model: usize,
    pub(super) input: u64,
    pub(super) max_tokens: Option<u64>,
    pub(super) priority: Priority,
    pub(super) run: usize,
    pub(super) step: Option<u8>,
    pub(super) patience: Duration,
    pub(super) alone: bool,
    pub(super) stay: bool,
    pub(super) retry: bool,
}

/// How a call ends.
#[derive(Debug, Clone)]
pub(super) enum How {
    Answered(Option<(u64, u64)>),
    Failed(Failure),
    /// Without an outcome.
    Died,
}

impl How {
    pub(super) fn result(self) -> Option<Result<Reply, Failure>> {
        let usage =
            |(input, output)| Usage { input: Tokens(input), output: Tokens(output), ..Usage::default() };
        match self {
            Self::Answered(used) => Some(Ok(Reply {
                text: String::new(),
                usage: used.map(usage),
                model: String::new(),
                request_id: None,
            })),
            Self::Failed(failure) => Some(Err(failure)),
            Self::Died => None,
        }
    }
}

fn some(range: RangeInclusive<u32>) -> impl Strategy<Value = Option<NonZeroU32>> {
    weighted(0.6, range.prop_map(|number| NonZeroU32::new(number).unwrap()))
}

pub(super) fn concurrency(most: u32) -> impl Strategy<Value = ConcurrencySettings> {
    (1..=2u32, 1..=8u32, 2..=most).prop_map(|(min, start, max)| {
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
    (1..=6u32, 0.2..=1.0f64, 1..=8u32, 1..=8u64).prop_map(|(failures, failure_share, calls, pause)| {
        BreakerSettings {
            failures: NonZeroU32::new(failures).unwrap(),
            failure_share,
            min_calls: NonZeroU32::new(calls).unwrap(),
            pause: Duration::from_secs(pause),
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
        let (retries, keeps, queue, rotation, max_concurrency) = rest;
        let models = models.into_iter().enumerate().map(|(number, (limits, max_tokens))| {
            let max_tokens = max_tokens.and_then(NonZeroU32::new);
            (number.to_string().as_str().into(), Model { limits, max_tokens, ..Model::default() })
        });
        Settings {
            limits,
            breaker,
            retries: RetryBudgetSettings {
                share: retries.0,
                floor_per_second: retries.1,
                ..Default::default()
            },
            reserve: if keeps { Reserve::MaxTokens } else { Reserve::Learned },
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

pub(super) fn question() -> impl Strategy<Value = Question> {
    let size = (1..=3_000u64, weighted(0.4, 1..=2_000u64));
    let place = (0..3usize, any::<bool>(), 0..3usize, of(0..3u8));
    let flags = (weighted_bool(0.4), any::<bool>(), weighted_bool(0.2));
    (size, place, 1..=120u64, flags).prop_map(|(size, place, patience, flags)| Question {
        model: place.0,
        input: size.0,
        max_tokens: size.1,
        priority: if place.1 { Priority::Interactive } else { Priority::Batch },
        run: place.2,
        step: place.3,
        patience: Duration::from_secs(patience),
        alone: flags.0,
        stay: flags.1,
        retry: flags.2,
    })
}

fn weighted_bool(probability: f64) -> impl Strategy<Value = bool> {
    prop::bool::weighted(probability)
}

/// Returns what headers may say: something likely, or nonsense.
pub(super) fn hints() -> impl Strategy<Value = Hints> {
    let number = prop_oneof![4 => 0..=2_000u64, 1 => Just(0), 1 => Just(u64::MAX), 1 => 0..=u64::MAX];
    let limit = prop_oneof![4 => 20..=2_000u64, 1 => Just(0), 1 => Just(u64::MAX)];
    let reset = prop_oneof![4 => 0..=60u64, 1 => 100..=100_000u64].prop_map(Duration::from_secs);
    let window = prop_oneof![
        3 => Just(LimitWindow::OfVendor),
        1 => Just(LimitWindow::Unknown),
        1 => prop::sample::select(vec![0, 1, 10, 60, 3_600]).prop_map(|seconds| LimitWindow::Is(Duration::from_secs(seconds))),
    ];
    let remaining = (of(limit), number, of(reset), window);
    let remaining =
        remaining.prop_map(|(limit, remaining, reset, window)| Remaining { limit, remaining, reset, window });
    prop::array::uniform5(of(remaining)).prop_map(
        |[requests, requests_per_second, tokens, input_tokens, output_tokens]| Hints {
            requests_per_second,
            requests,
            tokens,
            input_tokens,
            output_tokens,
            ..Hints::default()
        },
    )
}

pub(super) fn answered() -> impl Strategy<Value = How> {
    let used = prop_oneof![8 => (1..=3_000u64, 0..=2_000u64), 1 => (0..=u64::MAX, 0..=u64::MAX)];
    weighted(0.8, used).prop_map(How::Answered)
}

/// Returns a failure of any class, of a provider that answered or did not.
pub(super) fn failed(longest: u64) -> impl Strategy<Value = How> {
    let wait = prop_oneof![9 => 0..=longest, 1 => 0..=longest * 100];
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
        How::Failed(failure)
    })
}

pub(super) fn waits(milliseconds: u64) -> impl Strategy<Value = Event> {
    (0..=milliseconds).prop_map(|time| Event::Passes(Duration::from_millis(time)))
}

pub(super) fn asks() -> impl Strategy<Value = Event> {
    question().prop_map(Event::Asks)
}

pub(super) fn ends(how: impl Strategy<Value = How>) -> impl Strategy<Value = Event> {
    (any::<usize>(), how).prop_map(|(which, how)| Event::Ends { which, how })
}

/// Returns anything that may happen.
pub(super) fn anything() -> impl Strategy<Value = Event> {
    let heard = (any::<usize>(), hints(), any::<bool>());
    prop_oneof![
        6 => asks(),
        4 => waits(3_000),
        1 => waits(40_000),
        3 => heard.prop_map(|(which, hints, accepted)| Event::Heard { which, hints: Box::new(hints), accepted }),
        3 => ends(answered()),
        3 => ends(failed(120_000)),
        1 => ends(Just(How::Died)),
        1 => any::<usize>().prop_map(|which| Event::AskerGoes { which }),
        1 => Just(Event::Sweeps),
    ]
}

/// Returns what happens to a provider that answers badly, late, or not at all.
pub(super) fn outage() -> impl Strategy<Value = Event> {
    let alone = prop::bool::weighted(0.7);
    let asks = (question(), alone).prop_map(|(question, alone)| {
        Event::Asks(Question { input: 1, max_tokens: Some(1), alone, retry: false, ..question })
    });
    let faults =
        vec![Class::NetworkError, Class::NetworkError, Class::ServerError, Class::Timeout, Class::Overloaded];
    let fault = (prop::sample::select(faults), any::<bool>()).prop_map(|(class, answered)| {
        let mut failure = Failure::new(class, "no");
        failure.status = (answered && class == Class::ServerError).then_some(500);
        How::Failed(failure)
    });
    let heard =
        any::<usize>().prop_map(|which| Event::Heard { which, hints: Box::default(), accepted: true });
    prop_oneof![
        8 => asks,
        3 => waits(2_000),
        1 => waits(12_000),
        2 => Just(Event::Sweeps),
        4 => ends(fault),
        1 => ends(Just(How::Died)),
        1 => ends(answered()),
        1 => heard,
    ]
}

/// Returns anything but what makes limits stricter than they are configured, or laxer.
pub(super) fn anything_without_limits() -> impl Strategy<Value = Event> {
    let quiet = failed(0).prop_filter_map("it asks us to wait", |how| match how {
        How::Failed(failure) if failure.retry_after.is_none() && failure.class != Class::RateLimit => {
            Some(How::Failed(failure))
        }
        _ => None,
    });
    let small = weighted(0.8, (1..=3_000u64, 0..=2_000u64)).prop_map(How::Answered);
    prop_oneof![
        6 => asks(),
        4 => waits(3_000),
        4 => ends(small),
        1 => ends(quiet),
        1 => ends(Just(How::Died)),
        1 => any::<usize>().prop_map(|which| Event::AskerGoes { which }),
        1 => Just(Event::Sweeps),
    ]
}

pub(super) fn wide(limit: Option<NonZeroU32>) -> Option<f64> {
    limit.map(NonZeroU64::from).map(|limit| limit.get() as f64)
}
