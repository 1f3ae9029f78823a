//! What a call that was sent has used, as long as its provider has not reported it.
//!
//! The task that reads the response records the output as it arrives. The task can be dropped at any time: a budget, a
//! limit or an attempt log reads here what was received until then. The first reader of the cost fixes it, so that the
//! budgets and the attempt log have the same number although they read it at different times.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::guard::TokenCost;
use crate::types::{CacheTtl, NanoUsd, Price, SharedPrefix, Tokens, Usage};

/// Bytes of an answer per token. Most texts have more, so the estimate is rather too high than too low.
const BYTES_PER_TOKEN: u64 = 3;

/// The usage of one call as far as it is known before the provider reports it.
#[derive(Debug, Default)]
pub struct UnreportedUsage {
    price: Option<Price>,
    expected: TokenCost,
    shared_prefix: Option<SharedPrefix>,
    expected_cost: NanoUsd,
    /// The bytes of the answer that were received.
    output_bytes: AtomicU64,
    /// The cost that is booked and logged.
    fixed_cost: OnceLock<NanoUsd>,
}

impl UnreportedUsage {
    /// Creates the usage of a call that is expected to have so many tokens.
    pub(super) fn new(
        price: Option<Price>,
        expected: TokenCost,
        shared_prefix: Option<SharedPrefix>,
    ) -> Self {
        let mut usage = Self { price, expected, shared_prefix, ..Self::default() };
        usage.expected_cost = usage.cost_with(expected.output);
        usage
    }

    /// Creates the usage of a call with this expected cost.
    #[cfg(test)]
    pub(crate) fn with_expected_cost(expected_cost: NanoUsd) -> Self {
        Self { expected_cost, ..Self::default() }
    }

    /// Returns the cost of the expected tokens.
    pub fn expected_cost(&self) -> NanoUsd {
        self.expected_cost
    }

    /// Records how many bytes of the answer have been received so far.
    pub(crate) fn record_output(&self, bytes: usize) {
        self.output_bytes.store(bytes as u64, Relaxed);
    }

    /// Estimates the tokens of the answer that have been received so far.
    pub(super) fn output_tokens(&self) -> u64 {
        self.output_bytes.load(Relaxed).div_ceil(BYTES_PER_TOKEN)
    }

    /// Estimates the tokens of the prompt and of the received part of the answer; 0 if nothing was received.
    pub fn received_tokens(&self) -> u64 {
        match self.output_tokens() {
            0 => 0,
            output => TokenCost { output, ..self.expected }.total(),
        }
    }

    /// Returns the cost of a call whose usage stays unknown: that of the expected tokens, or of the received ones if it
    /// is higher. Later calls return the same cost, whatever has been received since.
    pub fn fix_cost(&self) -> NanoUsd {
        *self.fixed_cost.get_or_init(|| self.expected_cost.max(self.cost_with(self.output_tokens())))
    }

    /// Returns the cost with so many output tokens if the call writes the shared beginning of its prompt to the cache,
    /// which costs more than input or the same.
    fn cost_with(&self, output: u64) -> NanoUsd {
        let input = self.expected.input;
        let written = Tokens(self.shared_prefix.map_or(0, |shared| shared.tokens.min(input)));
        let is_for_an_hour = self.shared_prefix.is_some_and(|shared| shared.ttl == CacheTtl::OneHour);
        let usage = Usage {
            input: Tokens(input),
            output: Tokens(output),
            cache_write: written,
            cache_write_1h: if is_for_an_hour { written } else { Tokens(0) },
            ..Usage::default()
        };
        // A cost that overflows counts as the maximum credible cost: too much rather than too little.
        self.price.map_or(NanoUsd(0), |price| price.cost(&usage).unwrap_or(NanoUsd::MAX_CREDIBLE_COST))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRICE: Price =
        Price { input: 1.0, output: 5.0, cached: None, cache_write: None, cache_write_1h: None, long: None };

    /// Expected to cost 110,000 nano-dollars.
    fn usage() -> UnreportedUsage {
        UnreportedUsage::new(Some(PRICE), TokenCost { input: 10, output: 20 }, None)
    }

    #[test]
    fn a_call_costs_at_least_what_is_expected_and_at_least_what_was_received() {
        for (bytes, cost, tokens) in [(0, 110_000, 0), (3, 110_000, 11), (60, 110_000, 30), (61, 115_000, 31)]
        {
            let usage = usage();
            usage.record_output(bytes);
            assert_eq!((usage.fix_cost(), usage.received_tokens()), (NanoUsd(cost), tokens), "{bytes}");
            assert_eq!(usage.expected_cost(), NanoUsd(110_000));
        }
    }

    #[test]
    fn a_cost_that_was_read_does_not_change() {
        let usage = usage();
        usage.record_output(300);
        assert_eq!(usage.fix_cost(), NanoUsd(510_000));
        usage.record_output(30_000);
        assert_eq!((usage.fix_cost(), usage.output_tokens()), (NanoUsd(510_000), 10_000));
    }

    #[test]
    fn a_call_without_a_price_costs_nothing_and_its_tokens_are_counted() {
        let usage = UnreportedUsage::new(None, TokenCost { input: 10, output: 20 }, None);
        usage.record_output(300);
        assert_eq!((usage.fix_cost(), usage.received_tokens()), (NanoUsd(0), 110));
    }
}
