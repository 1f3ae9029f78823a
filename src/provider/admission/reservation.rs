//! What a call reserves from its provider's limits, and what it is charged in the end.
//!
//! Reserved is the 95th percentile; charged is what the provider counted. If usage is unknown, the mean is
//! assumed. An estimate alone never refuses a call permanently. Takes nothing itself.

use std::num::NonZeroU64;

use crate::guard::{RateLimiter, RateLimits, TokenCost};
use crate::types::{Charged, Class, Completion, Failure, ProviderName};

use super::estimate::{Estimate, answer_tokens};
use super::token_stats::{StatsKey, TokenStats};
use crate::provider::settings::OutputReservation;

/// The reservation rules of a target.
#[derive(Debug, Clone)]
pub(in crate::provider) struct Reservations {
    pub(in crate::provider) output_reservation: OutputReservation,
    pub(in crate::provider) limits: RateLimits,
    /// Whether refusals have shown that the provider counts `max_tokens`.
    counts_max_tokens: bool,
}

/// What a call reserves from the limits when it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::provider) struct Reservation {
    pub(in crate::provider) reserved: TokenCost,
    /// The mean that such calls use: the basis of forecasts.
    pub(in crate::provider) mean: TokenCost,
    /// Input tokens as estimated, not corrected by statistics.
    pub(in crate::provider) estimate: Estimate,
    /// Whether the provider reserves the same output and returns nothing of it.
    pub(in crate::provider) is_nonrefundable: bool,
    /// Whether its output is assumed because no answer has been seen.
    is_output_assumed: bool,
}

impl Reservations {
    pub(in crate::provider) fn new(output_reservation: OutputReservation, limits: RateLimits) -> Self {
        Self { output_reservation, limits, counts_max_tokens: false }
    }

    /// Sets what the configuration determines.
    pub(in crate::provider) fn set(&mut self, output_reservation: OutputReservation, limits: RateLimits) {
        self.output_reservation = output_reservation;
        self.limits = limits;
    }

    /// Reserves `max_tokens` from now on, as the provider does.
    pub(in crate::provider) fn count_max_tokens(&mut self) {
        self.counts_max_tokens = true;
    }

    /// Returns the reservation of a call; never more than the limits can hold.
    pub(in crate::provider) fn for_call(
        &self,
        stats: &TokenStats,
        key: StatsKey<'_>,
        estimate: Estimate,
    ) -> Reservation {
        let mut need = stats.p95_cost(key, estimate);
        let nonrefundable = self.nonrefundable(estimate);
        need.output = nonrefundable.unwrap_or(need.output);
        let need = self.clip(need, nonrefundable.is_some());
        let learned =
            stats.mean_output(key).map(|output| output.min(estimate.max_tokens.unwrap_or(u64::MAX)));
        let output = nonrefundable.or(learned).unwrap_or(need.output);
        let is_output_assumed = nonrefundable.or(learned).is_none();
        Reservation {
            reserved: need,
            mean: TokenCost { output, ..need },
            estimate,
            is_nonrefundable: nonrefundable.is_some(),
            is_output_assumed,
        }
    }

    /// Checks whether a call can ever be sent: whether its certain size, with one token of answer, is within
    /// the limits.
    ///
    /// # Errors
    /// Which limit it exceeds by itself.
    pub(in crate::provider) fn check_fits(
        &self,
        provider: &ProviderName,
        limits: &RateLimiter,
        stats: &TokenStats,
        estimate: Estimate,
    ) -> Result<(), String> {
        let least = stats.min_input(estimate.input);
        let input = stats.corrected_input(estimate.input);
        let shortest = |input| limits.fits(TokenCost { input, output: u64::from(estimate.has_output()) });
        if let (Err(_), Err(error)) = (shortest(least), shortest(input)) {
            return Err(format!("the call {error} at {provider}"));
        }
        // Accounting that only refusals have shown refuses no call by itself.
        let is_configured = self.output_reservation == OutputReservation::MaxTokens;
        let Some(max_tokens) = self.nonrefundable(estimate).filter(|_| is_configured) else { return Ok(()) };
        let RateLimits { tokens, output_tokens, .. } = self.limits;
        if let Some(limit) = output_tokens.filter(|limit| max_tokens > limit.get()) {
            let what =
                format!("exceeds the limit of {limit} output tokens per minute of provider {provider}");
            return Err(format!("max_tokens = {max_tokens} {what}"));
        }
        if let Some(limit) = tokens.filter(|limit| least.saturating_add(max_tokens) > limit.get()) {
            let what = format!("exceed the limit of {limit} tokens per minute of provider {provider}");
            return Err(format!("max_tokens = {max_tokens} and a prompt of about {input} tokens {what}"));
        }
        Ok(())
    }

    /// Returns the output that the provider reserves itself and does not return.
    fn nonrefundable(&self, estimate: Estimate) -> Option<u64> {
        match self.output_reservation {
            OutputReservation::P95 if !self.counts_max_tokens => None,
            OutputReservation::P95 => estimate.max_tokens,
            OutputReservation::MaxTokens => estimate.max_tokens,
        }
    }

    /// Limits a reservation to the limits: an estimate above a whole limit would wait for ever.
    fn clip(&self, need: TokenCost, is_output_certain: bool) -> TokenCost {
        let RateLimits { tokens, input_tokens, output_tokens, .. } = self.limits;
        let bound = |limit: Option<NonZeroU64>| limit.map_or(u64::MAX, NonZeroU64::get);
        let output = need.output.min(bound(output_tokens));
        let reserved_output = if is_output_certain { output } else { 1 };
        let input = need.input.min(bound(input_tokens)).min(bound(tokens).saturating_sub(reserved_output));
        TokenCost { input, output: output.min(bound(tokens).saturating_sub(input)) }
    }
}

impl Reservation {
    /// Returns the token cost for wait estimates. Before the first answer the output is unknown, and an
    /// assumption must reject no call.
    pub(in crate::provider) fn wait_cost(&self) -> TokenCost {
        if self.is_output_assumed { TokenCost { output: 0, ..self.mean } } else { self.mean }
    }

    /// Returns what the call is charged; `None` is a call that died without an outcome.
    pub(in crate::provider) fn charged(&self, result: Option<&Result<Completion, Failure>>) -> TokenCost {
        let used = match result {
            // Refused before any work.
            Some(Err(failure)) if failure.usage.is_none() && failure.charged == Charged::No => {
                return TokenCost::default();
            }
            Some(Ok(completion)) if completion.usage.is_none() => {
                let output = output_tokens(completion).unwrap_or(self.mean.output);
                return self.with_nonrefundable(TokenCost { output, ..self.mean });
            }
            Some(Ok(completion)) => completion.usage.map(|usage| (usage, true)),
            // The output before the cut was counted, and the model may have generated more.
            Some(Err(failure)) => {
                failure.usage.as_deref().map(|usage| (*usage, failure.class != Class::Unreadable))
            }
            None => None,
        };
        self.with_nonrefundable(match used {
            Some((usage, true)) => TokenCost { input: usage.input.0, output: usage.output.0 },
            Some((usage, false)) => {
                TokenCost { input: usage.input.0, output: usage.output.0.max(self.mean.output) }
            }
            None => self.mean,
        })
    }

    fn with_nonrefundable(&self, need: TokenCost) -> TokenCost {
        let nonrefundable = if self.is_nonrefundable { self.reserved.output } else { 0 };
        TokenCost { output: need.output.max(nonrefundable), ..need }
    }

    /// Records the real size of the call in `stats`.
    pub(in crate::provider) fn record_into(
        &self,
        stats: &mut TokenStats,
        key: StatsKey<'_>,
        result: &Result<Completion, Failure>,
    ) {
        let (usage, output_tokens) = match result {
            Ok(completion) => (completion.usage, output_tokens(completion)),
            Err(failure) => {
                let usage = failure.usage.as_deref().copied();
                let truncated = usage.filter(|_| failure.class == Class::Truncated);
                // The answer would have been longer still.
                let output_tokens =
                    truncated.map(|usage| usage.output.0.max(self.estimate.max_tokens.unwrap_or(0)));
                (usage, output_tokens)
            }
        };
        // Zero input tokens come from a provider that does not count.
        let read = usage.map_or(0, |usage| usage.input.0);
        // Embeddings would make the answers of other calls to the model look short.
        let output_tokens = output_tokens.filter(|_| self.estimate.has_output());
        if usage.is_some() || output_tokens.is_some() {
            stats.record(key, self.estimate.input, read, output_tokens);
        }
    }
}

/// Returns the output tokens of an answer: the provider's count, or else an estimate from its content.
fn output_tokens(completion: &Completion) -> Option<u64> {
    let counted = completion.usage.map(|usage| usage.output.0);
    counted.or_else(|| Some(answer_tokens(completion)).filter(|tokens| *tokens > 0))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use tokio::time::Instant;

    use super::*;
    use crate::types::{Tokens, Usage};

    const ALL: StatsKey<'static> = StatsKey::ALL;

    fn reservations(reserve: OutputReservation, limits: RateLimits) -> Reservations {
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

    fn completion(usage: Option<Usage>) -> Result<Completion, Failure> {
        Ok(Completion { usage, ..Completion::default() })
    }

    fn failed(class: Class) -> Failure {
        Failure::new(class, "no")
    }

    /// Statistics of nineteen answers of 10 tokens and one of 200.
    fn sample_stats() -> TokenStats {
        let mut stats = TokenStats::default();
        for output in [[10; 18].as_slice(), &[200, 200]].concat() {
            stats.record(ALL, 100, 100, Some(output));
        }
        stats
    }

    fn fits(rules: &Reservations, stats: &TokenStats, estimate: Estimate) -> Result<(), String> {
        rules.check_fits(&"x".into(), &RateLimiter::new(&rules.limits, Instant::now()), stats, estimate)
    }

    #[test]
    fn an_estimate_never_refuses_a_call_permanently() {
        let rules = reservations(OutputReservation::P95, per_minute(300));
        let stats = sample_stats();
        // 150 and 200 exceed 300, but the answer may be short.
        let call = estimate(150, Some(9_000));
        assert_eq!(fits(&rules, &stats, call), Ok(()));
        assert_eq!(rules.for_call(&stats, ALL, call).reserved, TokenCost { input: 150, output: 150 });
        // Estimated a little above the limit: the estimate may be wrong.
        assert_eq!(fits(&rules, &stats, estimate(320, None)), Ok(()));
        assert_eq!(
            rules.for_call(&stats, ALL, estimate(320, None)).reserved,
            TokenCost { input: 299, output: 1 }
        );
        let error = fits(&rules, &stats, estimate(400, None)).unwrap_err();
        assert_eq!(error, "the call needs about 401 tokens, and the limit is 300 per minute at x");
    }

    #[test]
    fn max_tokens_above_a_limit_are_refused_by_name_and_others_are_reserved_in_full() {
        let limits = RateLimits { output_tokens: NonZeroU64::new(8_000), ..per_minute(9_000) };
        let rules = reservations(OutputReservation::MaxTokens, limits);
        let stats = sample_stats();
        let error = fits(&rules, &stats, estimate(500, Some(9_000))).unwrap_err();
        let expected = "max_tokens = 9000 exceeds the limit of 8000 output tokens per minute of provider x";
        assert_eq!(error, expected);
        let error = fits(&rules, &stats, estimate(2_000, Some(7_500))).unwrap_err();
        let expected = "max_tokens = 7500 and a prompt of about 2000 tokens exceed the limit of 9000 tokens \
            per minute of provider x";
        assert_eq!(error, expected);
        let reservation = rules.for_call(&stats, ALL, estimate(500, Some(8_000)));
        assert_eq!(
            (reservation.reserved, reservation.is_nonrefundable),
            (TokenCost { input: 500, output: 8_000 }, true)
        );
        assert_eq!(reservation.mean, reservation.reserved);
        // Without `max_tokens`, the statistics decide.
        let reservation = rules.for_call(&stats, ALL, estimate(500, None));
        assert_eq!((reservation.reserved.output, reservation.is_nonrefundable), (200, false));
    }

    #[test]
    fn a_call_is_charged_with_its_known_usage() {
        let rules = reservations(OutputReservation::P95, RateLimits::default());
        let reservation = rules.for_call(&sample_stats(), ALL, estimate(100, Some(1_000)));
        assert_eq!(reservation.reserved, TokenCost { input: 100, output: 200 });
        let broken_off = failed(Class::Unreadable).with_usage(Some(used(90, 1)));
        let truncated = failed(Class::Truncated).with_usage(Some(used(90, 1_000)));
        for (result, charged) in [
            (Some(completion(Some(used(90, 12)))), (90, 12)),
            (Some(completion(None)), (100, 29)),
            (Some(Err(failed(Class::RateLimit))), (0, 0)),
            (Some(Err(failed(Class::Timeout).maybe_charged())), (100, 29)),
            (Some(Err(broken_off)), (90, 29)),
            (Some(Err(truncated)), (90, 1_000)),
            (None, (100, 29)),
        ] {
            let TokenCost { input, output } = reservation.charged(result.as_ref());
            assert_eq!((input, output), charged, "{result:?}");
        }
    }

    #[test]
    fn a_nonrefundable_reservation_is_not_returned() {
        let rules = reservations(OutputReservation::MaxTokens, RateLimits::default());
        let reservation = rules.for_call(&sample_stats(), ALL, estimate(100, Some(1_000)));
        let nonrefundable =
            |result: Option<Result<Completion, Failure>>| reservation.charged(result.as_ref());
        assert_eq!(
            nonrefundable(Some(completion(Some(used(90, 12))))),
            TokenCost { input: 90, output: 1_000 }
        );
        assert_eq!(nonrefundable(None), TokenCost { input: 100, output: 1_000 });
        // The provider reserved nothing for a refused call.
        assert_eq!(nonrefundable(Some(Err(failed(Class::RateLimit)))), TokenCost::default());
    }

    #[test]
    fn an_answer_that_was_cut_at_max_tokens_counts_with_max_tokens() {
        let rules = reservations(OutputReservation::P95, RateLimits::default());
        let mut stats = TokenStats::default();
        let reservation = rules.for_call(&stats, ALL, estimate(100, Some(700)));
        let truncated = Err(failed(Class::Truncated).with_usage(Some(used(100, 650))));
        reservation.record_into(&mut stats, ALL, &truncated);
        assert_eq!(stats.mean_output(ALL), Some(700));
        // An answer that broke off says nothing about answer sizes, but its input count is valid.
        let broken = Err(failed(Class::Unreadable).with_usage(Some(used(300, 1))));
        reservation.record_into(&mut stats, ALL, &broken);
        assert_eq!((stats.mean_output(ALL), stats.corrected_input(100)), (Some(700), 200));
    }

    #[test]
    fn answers_without_a_count_are_estimated_from_their_text() {
        let rules = reservations(OutputReservation::P95, RateLimits::default());
        let mut stats = TokenStats::default();
        let reservation = rules.for_call(&stats, ALL, estimate(100, None));
        assert_eq!(reservation.reserved, TokenCost { input: 100, output: 500 });
        let unstored_calls = Ok(Completion::new("The train left at nine, and it is ten."));
        let charged = reservation.charged(Some(&unstored_calls));
        assert!(charged.input == 100 && (8..=14).contains(&charged.output), "{charged:?}");
        reservation.record_into(&mut stats, ALL, &unstored_calls);
        assert_eq!(rules.for_call(&stats, ALL, estimate(100, None)).reserved, charged);
    }

    #[test]
    fn embeddings_reserve_no_output_and_do_not_count_as_answers() {
        for reserve in [OutputReservation::P95, OutputReservation::MaxTokens] {
            let limits = RateLimits { output_tokens: NonZeroU64::new(8_000), ..per_minute(9_000) };
            let rules = reservations(reserve, limits);
            let mut stats = sample_stats();
            let reservation = rules.for_call(&stats, ALL, estimate(100, Some(0)));
            assert_eq!(reservation.reserved, TokenCost { input: 100, output: 0 });
            assert_eq!(reservation.mean, reservation.reserved);
            let embeddings = vec![[0.5].into()];
            let without_usage = Ok(Completion { embeddings, ..Completion::default() });
            assert_eq!(reservation.charged(Some(&without_usage)), TokenCost { input: 100, output: 0 });
            for _ in 0..100 {
                reservation.record_into(&mut stats, ALL, &completion(Some(used(200, 0))));
            }
            // Their input corrects the estimates.
            assert_eq!(stats.mean_output(ALL), Some(29));
            assert!((195..=200).contains(&stats.corrected_input(100)));
            assert_eq!(fits(&rules, &TokenStats::default(), estimate(9_000, Some(0))), Ok(()));
        }
    }

    proptest! {
        /// The levels are compared where nothing overflows: a full bucket ignores returned tokens.
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
            let real = std::cell::RefCell::new(RateLimiter::new(&limits, start));
            let mut ideal = RateLimiter::new(&limits, start);
            let begun = TokenCost { input: 200_000, output: 0 };
            prop_assert!(real.borrow_mut().take(begun, begun, now).is_ok() && ideal.take(begun, begun, now).is_ok());
            let mut stats = TokenStats::default();
            let mut in_flight: Vec<(Reservation, Option<Result<Completion, Failure>>)> = Vec::new();
            let settle = |(reservation, result): (Reservation, Option<Result<Completion, Failure>>),
                          stats: &mut TokenStats, now| {
                let charged = reservation.charged(result.as_ref());
                real.borrow().reconcile(reservation.reserved, charged, now);
                if let Some(result) = &result {
                    reservation.record_into(stats, ALL, result);
                }
                charged
            };
            let mut charged = Vec::new();
            for (input, output, max_tokens, end, wait, nonrefundable) in calls {
                let reserve = if nonrefundable { OutputReservation::MaxTokens } else { OutputReservation::P95 };
                let rules = reservations(reserve, limits);
                let reservation = rules.for_call(&stats, ALL, estimate(input, max_tokens));
                prop_assert!(real.borrow_mut().take(reservation.reserved, reservation.mean, now).is_ok());
                in_flight.push((reservation, match end {
                    0 | 1 => Some(completion(Some(used(input + output / 3, output)))),
                    2 => Some(Err(failed(Class::ServerError))),
                    3 => Some(Err(failed(Class::Timeout).maybe_charged())),
                    4 => Some(Err(failed(Class::Truncated).with_usage(Some(used(input, output))))),
                    _ => None,
                }));
                now += Duration::from_micros(50);
                if in_flight.len() > wait {
                    charged.push(settle(in_flight.remove(wait), &mut stats, now));
                }
            }
            charged.extend(in_flight.drain(..).map(|call| settle(call, &mut stats, now)));
            for need in charged {
                prop_assert!(ideal.take(need, need, now).is_ok());
            }
            let probe = TokenCost { input: 2_000_000, output: 0 };
            prop_assert_eq!(real.borrow().expected_at(0, probe, now), ideal.expected_at(0, probe, now));
        }
    }
}
