//! Estimates what the provider's cache saves in a step: one request writes the shared beginning, and all others read it.

use crate::pipeline::Step;
use crate::provider::{Model, Settings};
use crate::types::{CacheTtl, Price, SharedPrefix, Tokens, Usage};

use super::plan::CachePlan;
use super::range::{PROMPT_ESTIMATE_ERROR, Range};

/// Number of requests from which one can read what another has written.
const MIN_CALLS: f64 = 2.0;

/// Returns how a step with these calls uses the cache of a target; `None` if its requests share too little.
pub(super) fn cache_plan(
    step: &Step,
    calls: Range,
    target: Option<(&Settings, &Model)>,
) -> Option<CachePlan> {
    let shared_tokens = step.shared_prefix.as_ref()?.shared().tokens;
    let min_tokens = target.map(|(settings, model)| model.min_cached(settings.format));
    let is_long_enough = min_tokens.is_some_and(|min_tokens| shared_tokens >= min_tokens);
    let cached = is_long_enough && calls.likely >= MIN_CALLS;
    Some(CachePlan { shared_tokens, min_tokens, cached, uncached_cost_usd: None })
}

/// Returns what a target that caches the shared beginning saves in a step with these calls and input tokens, in dollars.
pub(super) fn savings(step: &Step, price: &Price, input: Range, calls: Range) -> Range {
    let Some(prefix) = step.shared_prefix.as_ref().map(|prefix| prefix.shared()) else {
        return Range::default();
    };
    let of = |error: f64, input: f64, calls: f64| savings_of(&prefix, price, (error, input, calls));
    Range {
        low: of(PROMPT_ESTIMATE_ERROR.low, input.low, calls.low),
        likely: of(PROMPT_ESTIMATE_ERROR.likely, input.likely, calls.likely),
        high: of(PROMPT_ESTIMATE_ERROR.high, input.high, calls.high),
    }
}

fn savings_of(prefix: &SharedPrefix, price: &Price, (error, input, calls): (f64, f64, f64)) -> f64 {
    if calls < MIN_CALLS {
        return 0.0;
    }
    let input = Tokens((input / calls).round() as u64);
    let shared = Tokens((prefix.tokens as f64 * error).round() as u64).min(input);
    let cache_write_1h = match prefix.ttl {
        CacheTtl::FiveMinutes => Tokens(0),
        CacheTtl::OneHour => shared,
    };
    let read = Usage { input, cached: shared, ..Usage::default() };
    let write = Usage { input, cache_write: shared, cache_write_1h, ..Usage::default() };
    let saved = |usage: &Usage| price.cache_savings(usage).unwrap_or_default().dollars();
    saved(&write) + saved(&read) * (calls - 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Fingerprint;

    fn price() -> Price {
        Price {
            input: 1.0,
            output: 5.0,
            cached: Some(0.1),
            cache_write: Some(1.25),
            cache_write_1h: Some(2.0),
            long: None,
        }
    }

    fn saved(ttl: CacheTtl, calls: f64) -> f64 {
        let prefix = SharedPrefix::new(Fingerprint([0; 16]), 2000).with_ttl(ttl);
        savings_of(&prefix, &price(), (1.0, 2500.0 * calls, calls))
    }

    #[test]
    fn one_request_writes_and_all_others_read() {
        assert_eq!(saved(CacheTtl::FiveMinutes, 1.0), 0.0);
        // 2,000 tokens: writing costs $0.0005 more, and reading costs $0.0018 less.
        assert!((saved(CacheTtl::FiveMinutes, 2.0) - 0.0013).abs() < 1e-9);
        assert!((saved(CacheTtl::FiveMinutes, 101.0) - (0.18 - 0.0005)).abs() < 1e-9);
        assert!((saved(CacheTtl::OneHour, 101.0) - (0.18 - 0.002)).abs() < 1e-9);
    }

    #[test]
    fn no_more_than_the_prompt_is_cached() {
        let prefix = SharedPrefix::new(Fingerprint([0; 16]), 2000);
        let saved = savings_of(&prefix, &price(), (1.25, 1000.0 * 2.0, 2.0));
        assert!((saved - (0.0009 - 0.000_25)).abs() < 1e-9);
    }
}
