//! Decides what a call reserves from its provider's limits, and what it is charged with in the end.
//!
//! Reserved is what nearly all calls stay within; charged is what the provider counted. Where nobody
//! says what was used, what is usual is believed. A guess alone never refuses a call for ever. Takes
//! nothing itself.

use std::num::NonZeroU64;

use crate::guard::{Limits, Need, RateLimits};
use crate::types::{Charged, Class, Failure, ProviderName, Reply, StepName};

use super::characters::tokens;
use super::estimate::Estimate;
use super::settings::Reserve;
use super::sizes::Sizes;

/// How a provider's calls reserve.
#[derive(Debug, Clone)]
pub(super) struct Reservations {
    pub(super) reserve: Reserve,
    pub(super) limits: RateLimits,
    /// Whether refusals have shown that the provider counts `max_tokens`.
    counts_max_tokens: bool,
}

/// What a call takes from the limits when it leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reservation {
    pub(super) need: Need,
    /// What it takes in the end, on average: what plans go by.
    pub(super) usual: Need,
    /// Input tokens as estimated, not corrected by what was learned.
    pub(super) estimate: Estimate,
    /// Whether the provider reserves the same output, and gives nothing of it back.
    pub(super) kept: bool,
    /// Whether its output is assumed, because no answer has been seen.
    assumed: bool,
}

impl Reservations {
    pub(super) fn new(reserve: Reserve, limits: RateLimits) -> Self {
        Self { reserve, limits, counts_max_tokens: false }
    }

    /// Reserves `max_tokens` from now on, as the provider does.
    pub(super) fn count_max_tokens(&mut self) {
        self.counts_max_tokens = true;
    }

    /// Returns what a call of `step` takes; never more than the limits can hold.
    pub(super) fn of(&self, sizes: &Sizes, step: Option<&StepName>, estimate: Estimate) -> Reservation {
        let mut need = sizes.need(step, estimate);
        let kept = self.kept(estimate);
        need.output = kept.unwrap_or(need.output);
        let need = self.clipped(need, kept.is_some());
        let learned = sizes.usual(step).map(|output| output.min(estimate.max_tokens.unwrap_or(u64::MAX)));
        let output = kept.or(learned).unwrap_or(need.output);
        let assumed = kept.or(learned).is_none();
        Reservation { need, usual: Need { output, ..need }, estimate, kept: kept.is_some(), assumed }
    }

    /// Says whether a call can ever leave: whether what it has for sure fits, and one token of answer.
    ///
    /// # Errors
    /// Which limit it exceeds by itself.
    pub(super) fn fits(
        &self,
        provider: &ProviderName,
        limits: &Limits,
        sizes: &Sizes,
        estimate: Estimate,
    ) -> Result<(), String> {
        let (least, input) = (sizes.least_input(estimate.input), sizes.input(estimate.input));
        let shortest = |input| limits.fits(Need { input, output: 1 });
        if let (Err(_), Err(error)) = (shortest(least), shortest(input)) {
            return Err(format!("the call {error} at {provider}"));
        }
        // What only refusals have shown refuses no call by itself.
        let is_configured = self.reserve == Reserve::MaxTokens;
        let Some(most) = self.kept(estimate).filter(|_| is_configured) else { return Ok(()) };
        let RateLimits { tokens, output_tokens, .. } = self.limits;
        if let Some(limit) = output_tokens.filter(|limit| most > limit.get()) {
            let what =
                format!("exceeds the limit of {limit} output tokens per minute of provider {provider}");
            return Err(format!("max_tokens = {most} {what}"));
        }
        if let Some(limit) = tokens.filter(|limit| least.saturating_add(most) > limit.get()) {
            let what = format!("exceed the limit of {limit} tokens per minute of provider {provider}");
            return Err(format!("max_tokens = {most} and a prompt of about {input} tokens {what}"));
        }
        Ok(())
    }

    /// Returns the output that the provider reserves itself and keeps.
    fn kept(&self, estimate: Estimate) -> Option<u64> {
        match self.reserve {
            Reserve::Learned if !self.counts_max_tokens => None,
            Reserve::Learned => estimate.max_tokens,
            Reserve::MaxTokens => estimate.max_tokens,
        }
    }

    /// A guess larger than a whole limit would wait for ever.
    fn clipped(&self, need: Need, output_is_sure: bool) -> Need {
        let RateLimits { tokens, input_tokens, output_tokens, .. } = self.limits;
        let most = |limit: Option<NonZeroU64>| limit.map_or(u64::MAX, NonZeroU64::get);
        let output = need.output.min(most(output_tokens));
        let beside = if output_is_sure { output } else { 1 };
        let input = need.input.min(most(input_tokens)).min(most(tokens).saturating_sub(beside));
        Need { input, output: output.min(most(tokens).saturating_sub(input)) }
    }
}

impl Reservation {
    /// Returns what waits are foretold by. As long as no answer has come back nobody knows how long they
    /// are, and a guess must not turn anyone away.
    pub(super) fn foretold(&self) -> Need {
        if self.assumed { Need { output: 0, ..self.usual } } else { self.usual }
    }

    /// Returns what the call is charged with; `None` is a call that died without an outcome.
    pub(super) fn used(&self, result: Option<&Result<Reply, Failure>>) -> Need {
        let used = match result {
            // Refused before any work.
            Some(Err(failure)) if failure.usage.is_none() && failure.charged == Charged::No => {
                return Need::default();
            }
            Some(Ok(reply)) if reply.usage.is_none() => {
                let output = written(reply).unwrap_or(self.usual.output);
                return self.with_kept(Need { output, ..self.usual });
            }
            Some(Ok(reply)) => reply.usage.map(|usage| (usage, true)),
            // What came before the cut was counted, and the model may have written on.
            Some(Err(failure)) => {
                failure.usage.as_deref().map(|usage| (*usage, failure.class != Class::Unreadable))
            }
            None => None,
        };
        self.with_kept(match used {
            Some((usage, true)) => Need { input: usage.input.0, output: usage.output.0 },
            Some((usage, false)) => {
                Need { input: usage.input.0, output: usage.output.0.max(self.usual.output) }
            }
            None => self.usual,
        })
    }

    fn with_kept(&self, need: Need) -> Need {
        let kept = if self.kept { self.need.output } else { 0 };
        Need { output: need.output.max(kept), ..need }
    }

    /// Teaches `sizes` how large the call really was.
    pub(super) fn teach(&self, sizes: &mut Sizes, step: Option<&StepName>, result: &Result<Reply, Failure>) {
        let (usage, written) = match result {
            Ok(reply) => (reply.usage, written(reply)),
            Err(failure) => {
                let usage = failure.usage.as_deref().copied();
                let cut = usage.filter(|_| failure.class == Class::Truncated);
                // It would have been longer still.
                let written = cut.map(|usage| usage.output.0.max(self.estimate.max_tokens.unwrap_or(0)));
                (usage, written)
            }
        };
        // Nothing read is a provider that does not count.
        let read = usage.map_or(0, |usage| usage.input.0);
        if usage.is_some() || written.is_some() {
            sizes.learn(step, self.estimate.input, read, written);
        }
    }
}

/// Returns the tokens of an answer: as the provider counted, or else as its text looks.
fn written(reply: &Reply) -> Option<u64> {
    let counted = reply.usage.map(|usage| usage.output.0);
    counted.or_else(|| Some(tokens(&reply.text)).filter(|tokens| *tokens > 0))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use tokio::time::Instant;

    use super::*;
    use crate::types::{Tokens, Usage};

    fn reservations(reserve: Reserve, limits: RateLimits) -> Reservations {
        Reservations::new(reserve, limits)
    }

    fn per_minute(tokens: u64) -> RateLimits {
        RateLimits { tokens: NonZeroU64::new(tokens), ..RateLimits::default() }
    }

    fn estimate(input: u64, max_tokens: Option<u64>) -> Estimate {
        Estimate { input, max_tokens }
    }

    fn used(input: u64, output: u64) -> Usage {
        Usage { input: Tokens(input), output: Tokens(output), ..Usage::default() }
    }

    fn reply(usage: Option<Usage>) -> Result<Reply, Failure> {
        Ok(Reply { text: String::new(), usage, model: String::new(), request_id: None })
    }

    fn failed(class: Class) -> Failure {
        Failure::new(class, "no")
    }

    /// Sizes that have seen nineteen answers of 10 tokens and one of 200.
    fn taught() -> Sizes {
        let mut sizes = Sizes::default();
        for output in [[10; 18].as_slice(), &[200, 200]].concat() {
            sizes.learn(None, 100, 100, Some(output));
        }
        sizes
    }

    fn fits(rules: &Reservations, sizes: &Sizes, estimate: Estimate) -> Result<(), String> {
        rules.fits(&"x".into(), &Limits::new(&rules.limits, Instant::now()), sizes, estimate)
    }

    #[test]
    fn a_guess_never_refuses_a_call_for_ever() {
        let rules = reservations(Reserve::Learned, per_minute(300));
        let sizes = taught();
        // 150 and 200 are more than 300, but the answer may be short.
        let call = estimate(150, Some(9_000));
        assert_eq!(fits(&rules, &sizes, call), Ok(()));
        assert_eq!(rules.of(&sizes, None, call).need, Need { input: 150, output: 150 });
        // Estimated a little above the limit: who knows.
        assert_eq!(fits(&rules, &sizes, estimate(320, None)), Ok(()));
        assert_eq!(rules.of(&sizes, None, estimate(320, None)).need, Need { input: 299, output: 1 });
        let error = fits(&rules, &sizes, estimate(400, None)).unwrap_err();
        assert_eq!(error, "the call needs about 401 tokens, and the limit is 300 per minute at x");
    }

    #[test]
    fn max_tokens_that_a_provider_reserves_itself_are_refused_by_name_and_else_reserved_whole() {
        let limits = RateLimits { output_tokens: NonZeroU64::new(8_000), ..per_minute(9_000) };
        let (rules, sizes) = (reservations(Reserve::MaxTokens, limits), taught());
        let error = fits(&rules, &sizes, estimate(500, Some(9_000))).unwrap_err();
        let expected = "max_tokens = 9000 exceeds the limit of 8000 output tokens per minute of provider x";
        assert_eq!(error, expected);
        let error = fits(&rules, &sizes, estimate(2_000, Some(7_500))).unwrap_err();
        let expected = "max_tokens = 7500 and a prompt of about 2000 tokens exceed the limit of 9000 tokens \
            per minute of provider x";
        assert_eq!(error, expected);
        let reservation = rules.of(&sizes, None, estimate(500, Some(8_000)));
        assert_eq!((reservation.need, reservation.kept), (Need { input: 500, output: 8_000 }, true));
        assert_eq!(reservation.usual, reservation.need);
        // Without any, what is learned is all there is.
        let reservation = rules.of(&sizes, None, estimate(500, None));
        assert_eq!((reservation.need.output, reservation.kept), (200, false));
    }

    #[test]
    fn a_call_is_charged_with_what_is_known_of_it() {
        let rules = reservations(Reserve::Learned, RateLimits::default());
        let reservation = rules.of(&taught(), None, estimate(100, Some(1_000)));
        assert_eq!(reservation.need, Need { input: 100, output: 200 });
        let cut = failed(Class::Unreadable).used(Some(used(90, 1)));
        let truncated = failed(Class::Truncated).used(Some(used(90, 1_000)));
        for (result, charged) in [
            (Some(reply(Some(used(90, 12)))), (90, 12)),
            (Some(reply(None)), (100, 29)),
            (Some(Err(failed(Class::RateLimit))), (0, 0)),
            (Some(Err(failed(Class::Timeout).maybe_charged())), (100, 29)),
            (Some(Err(cut)), (90, 29)),
            (Some(Err(truncated)), (90, 1_000)),
            (None, (100, 29)),
        ] {
            let Need { input, output } = reservation.used(result.as_ref());
            assert_eq!((input, output), charged, "{result:?}");
        }
    }

    #[test]
    fn what_a_provider_keeps_is_not_taken_for_free_again() {
        let rules = reservations(Reserve::MaxTokens, RateLimits::default());
        let reservation = rules.of(&taught(), None, estimate(100, Some(1_000)));
        let kept = |result: Option<Result<Reply, Failure>>| reservation.used(result.as_ref());
        assert_eq!(kept(Some(reply(Some(used(90, 12))))), Need { input: 90, output: 1_000 });
        assert_eq!(kept(None), Need { input: 100, output: 1_000 });
        // It never took what it refused.
        assert_eq!(kept(Some(Err(failed(Class::RateLimit)))), Need::default());
    }

    #[test]
    fn an_answer_that_was_cut_at_max_tokens_counts_as_so_long() {
        let rules = reservations(Reserve::Learned, RateLimits::default());
        let mut sizes = Sizes::default();
        let reservation = rules.of(&sizes, None, estimate(100, Some(700)));
        let cut = Err(failed(Class::Truncated).used(Some(used(100, 650))));
        reservation.teach(&mut sizes, None, &cut);
        assert_eq!(sizes.usual(None), Some(700));
        // One that broke off in the middle says nothing about answers, and much about the prompt.
        let broken = Err(failed(Class::Unreadable).used(Some(used(300, 1))));
        reservation.teach(&mut sizes, None, &broken);
        assert_eq!((sizes.usual(None), sizes.input(100)), (Some(700), 200));
    }

    #[test]
    fn answers_of_a_provider_that_counts_nothing_are_as_long_as_they_look() {
        let rules = reservations(Reserve::Learned, RateLimits::default());
        let mut sizes = Sizes::default();
        let reservation = rules.of(&sizes, None, estimate(100, None));
        assert_eq!(reservation.need, Need { input: 100, output: 500 });
        let text = "It is late, and the train has gone.".to_owned();
        let uncounted = Ok(Reply { text, usage: None, model: String::new(), request_id: None });
        let charged = reservation.used(Some(&uncounted));
        assert!(charged.input == 100 && (8..=14).contains(&charged.output), "{charged:?}");
        reservation.teach(&mut sizes, None, &uncounted);
        assert_eq!(rules.of(&sizes, None, estimate(100, None)).need, charged);
    }

    proptest! {
        /// Levels are compared where nothing overflows: a bucket that is full forgets what comes back.
        #[test]
        fn nothing_leaks_however_calls_end(
            calls in proptest::collection::vec(
                (1u64..2_000, 1u64..2_000, proptest::option::of(1u64..2_000), 0u8..6, 0usize..4, any::<bool>()),
                1..60,
            ),
        ) {
            let limits = RateLimits { tokens: NonZeroU64::new(60_000_000), ..RateLimits::default() };
            let start = Instant::now();
            let mut now = start + Duration::from_secs(5);
            let real = std::cell::RefCell::new(Limits::new(&limits, start));
            let mut ideal = Limits::new(&limits, start);
            let begun = Need { input: 200_000, output: 0 };
            prop_assert!(real.borrow_mut().take(begun, begun, now).is_ok() && ideal.take(begun, begun, now).is_ok());
            let mut sizes = Sizes::default();
            let mut out: Vec<(Reservation, Option<Result<Reply, Failure>>)> = Vec::new();
            let settle = |(reservation, result): (Reservation, Option<Result<Reply, Failure>>),
                          sizes: &mut Sizes, now| {
                let charged = reservation.used(result.as_ref());
                real.borrow().settle(reservation.need, charged, now);
                if let Some(result) = &result {
                    reservation.teach(sizes, None, result);
                }
                charged
            };
            let mut charged = Vec::new();
            for (input, output, max_tokens, end, wait, kept) in calls {
                let reserve = if kept { Reserve::MaxTokens } else { Reserve::Learned };
                let rules = reservations(reserve, limits);
                let reservation = rules.of(&sizes, None, estimate(input, max_tokens));
                prop_assert!(real.borrow_mut().take(reservation.need, reservation.usual, now).is_ok());
                out.push((reservation, match end {
                    0 | 1 => Some(reply(Some(used(input + output / 3, output)))),
                    2 => Some(Err(failed(Class::ServerError))),
                    3 => Some(Err(failed(Class::Timeout).maybe_charged())),
                    4 => Some(Err(failed(Class::Truncated).used(Some(used(input, output))))),
                    _ => None,
                }));
                now += Duration::from_micros(50);
                if out.len() > wait {
                    charged.push(settle(out.remove(wait), &mut sizes, now));
                }
            }
            charged.extend(out.drain(..).map(|call| settle(call, &mut sizes, now)));
            for need in charged {
                prop_assert!(ideal.take(need, need, now).is_ok());
            }
            let probe = Need { input: 2_000_000, output: 0 };
            prop_assert_eq!(real.borrow().expected(0, probe, now), ideal.expected(0, probe, now));
        }
    }
}
