//! Estimates the fewest calls of a step whose requests for embeddings are joined.
//!
//! How many are joined depends on how many come at the same time. In the best case every call is full.

use crate::types::EmbeddingLimits;

use super::plan::JoinedPlan;
use super::range::Range;

/// The requests of a step, and its calls if none are joined or as many as in the sample.
#[derive(Debug, Clone, Copy)]
pub(super) struct StepLoad {
    pub(super) requests: Range,
    pub(super) calls: Range,
    /// Input tokens.
    pub(super) input: Range,
}

/// Returns how the requests of a step are joined; `None` if none are. An item has at most one request of the step in
/// flight, so that a call has at most as many texts as items are in flight.
pub(super) fn joined_plan(
    load: StepLoad,
    limits: EmbeddingLimits,
    items_in_flight: usize,
) -> Option<JoinedPlan> {
    let max_inputs = limits.max_inputs.min(items_in_flight);
    if max_inputs < 2 {
        return None;
    }
    let fewest = |requests: f64, calls: f64, tokens: f64| {
        let by_inputs = requests / max_inputs as f64;
        let by_tokens = tokens / limits.max_tokens as f64;
        by_inputs.max(by_tokens).ceil().min(calls)
    };
    let StepLoad { requests, calls, input } = load;
    let min_calls = Range {
        low: fewest(requests.low, calls.low, input.low),
        likely: fewest(requests.likely, calls.likely, input.likely),
        high: fewest(requests.high, calls.high, input.high),
    };
    Some(JoinedPlan { max_inputs: max_inputs as u64, min_calls })
}

/// Returns the calls of so many requests that are joined as in a sample, which had `calls_per_request`. How many calls
/// each of its items counted says nothing: one item counts the whole call. Never fewer than if every call is full.
pub(super) fn sampled_calls(requests: Range, calls_per_request: f64, limits: EmbeddingLimits) -> Range {
    requests * calls_per_request.max(1.0 / limits.max_inputs.max(1) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_calls_of_a_sample_are_scaled_by_its_requests() {
        let requests = Range { low: 800.0, likely: 1_000.0, high: 1_200.0 };
        let limits = EmbeddingLimits::new(100, 200_000);
        let calls = |per_request| sampled_calls(requests, per_request, limits);
        assert_eq!(calls(0.25), Range { low: 200.0, likely: 250.0, high: 300.0 });
        // The calls of the sample were counted with items that are not part of it.
        let fewest = calls(0.0);
        assert!((fewest.low - 8.0).abs() < 1e-9 && (fewest.high - 12.0).abs() < 1e-9, "{fewest:?}");
        let load = StepLoad { requests, calls: calls(0.25), input: Range::default() };
        let joined = joined_plan(load, limits, 10_000).unwrap();
        assert_eq!(joined.min_calls, Range { low: 8.0, likely: 10.0, high: 12.0 });
    }

    fn load(requests: f64, input: f64) -> StepLoad {
        let requests = Range::exactly(requests);
        StepLoad { requests, calls: requests, input: Range::exactly(input) }
    }

    fn fewest(load: StepLoad, max_inputs: usize, items_in_flight: usize) -> Option<(u64, f64)> {
        let joined = joined_plan(load, EmbeddingLimits::new(max_inputs, 200_000), items_in_flight)?;
        assert_eq!(joined.min_calls.low, joined.min_calls.high);
        Some((joined.max_inputs, joined.min_calls.likely))
    }

    #[test]
    fn a_full_call_has_as_many_texts_as_the_server_accepts_or_as_items_are_in_flight() {
        let thousand = load(1_000.0, 10_000.0);
        assert_eq!(fewest(thousand, 100, 10_000), Some((100, 10.0)));
        assert_eq!(fewest(thousand, 2_048, 10_000), Some((2_048, 1.0)));
        assert_eq!(fewest(thousand, 2_048, 300), Some((300, 4.0)));
        assert_eq!([fewest(thousand, 1, 300), fewest(thousand, 100, 1)], [None, None], "none are joined");
    }

    #[test]
    fn a_full_call_has_as_many_tokens_as_the_server_accepts() {
        assert_eq!(fewest(load(1_000.0, 1_900_000.0), 1_000, 10_000), Some((1_000, 10.0)));
    }

    #[test]
    fn joining_never_takes_more_calls_than_the_sample_did() {
        let calls = Range { low: 0.0, likely: 7.5, high: 20.0 };
        let requests = Range { low: 0.0, likely: 750.0, high: 1_000.0 };
        let load = StepLoad { requests, calls, input: Range::default() };
        let joined = joined_plan(load, EmbeddingLimits::new(100, 200_000), 10_000).unwrap();
        assert_eq!(joined.min_calls, Range { low: 0.0, likely: 7.5, high: 10.0 });
    }
}
