//! The token counts of a response.

use crate::types::{Tokens, Usage};
use crate::wire::count::Count;
use crate::wire::lenient::LenientObject;

/// The `usage` of OpenAI and compatible servers.
#[derive(Debug, serde::Deserialize)]
pub(super) struct Counts {
    #[serde(default)]
    prompt_tokens: Count,
    #[serde(default)]
    completion_tokens: Count,
    #[serde(default)]
    total_tokens: Count,
    #[serde(default)]
    prompt_tokens_details: LenientObject<InputDetails>,
    #[serde(default)]
    completion_tokens_details: LenientObject<OutputDetails>,
}

/// What the input tokens consist of.
#[derive(Debug, serde::Deserialize)]
pub(in crate::wire) struct InputDetails {
    #[serde(default)]
    cached_tokens: Count,
    #[serde(default)]
    cache_write_tokens: Count,
}

/// What the output tokens consist of.
#[derive(Debug, serde::Deserialize)]
pub(in crate::wire) struct OutputDetails {
    #[serde(default)]
    reasoning_tokens: Count,
}

/// The token counts of both formats of OpenAI, which differ in the names of the fields only.
pub(in crate::wire) struct TokenCounts<'a> {
    pub(in crate::wire) input: Count,
    pub(in crate::wire) output: Count,
    pub(in crate::wire) total: Count,
    pub(in crate::wire) input_details: &'a LenientObject<InputDetails>,
    pub(in crate::wire) output_details: &'a LenientObject<OutputDetails>,
}

impl TokenCounts<'_> {
    /// Converts the counts to [`Usage`]; `None` if a count is missing or not credible.
    pub(in crate::wire) fn usage(&self) -> Option<Usage> {
        let input = self.input.required()?;
        let output = self.output.required()?;
        // Some servers count reasoning neither as input nor as output, only in the total.
        let uncounted = self.total.or_zero()?.saturating_sub(input.saturating_add(output));
        let input_details = self.input_details.0.as_ref();
        let cached = input_details.map_or(Some(0), |details| details.cached_tokens.or_zero())?;
        let cache_write = input_details.map_or(Some(0), |details| details.cache_write_tokens.or_zero())?;
        let output_details = self.output_details.0.as_ref();
        let reasoning = output_details.map_or(Some(0), |details| details.reasoning_tokens.or_zero())?;
        let usage = Usage {
            input: Tokens(input),
            cached: Tokens(cached),
            cache_write: Tokens(cache_write),
            cache_write_1h: Tokens(0),
            output: Tokens(output.saturating_add(uncounted)),
            reasoning: Tokens(reasoning.max(uncounted)),
        };
        usage.credible()
    }
}

impl Counts {
    /// Returns whether all counts are missing.
    pub(super) fn is_empty(&self) -> bool {
        let counts = [self.prompt_tokens, self.completion_tokens];
        counts.iter().all(|count| *count == Count::Missing)
    }

    /// Returns whether all counts are zero or missing, which no answered call can have.
    pub(super) fn is_zero(&self) -> bool {
        let counts = [self.prompt_tokens, self.completion_tokens, self.total_tokens];
        counts.iter().all(|count| matches!(count, Count::Missing | Count::Known(0)))
    }

    /// Converts the counts to [`Usage`]; `None` if a count is missing or not credible.
    pub(super) fn usage(&self) -> Option<Usage> {
        let counts = TokenCounts {
            input: self.prompt_tokens,
            output: self.completion_tokens,
            total: self.total_tokens,
            input_details: &self.prompt_tokens_details,
            output_details: &self.completion_tokens_details,
        };
        counts.usage()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(json: &str) -> Option<Usage> {
        serde_json::from_str::<Counts>(json).unwrap().usage()
    }

    #[test]
    fn reasoning_counted_only_in_the_total_is_output() {
        let usage = usage(r#"{"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 115}"#).unwrap();
        assert_eq!((usage.input, usage.output, usage.reasoning), (Tokens(10), Tokens(105), Tokens(100)));
    }

    #[test]
    fn invalid_counts_are_unknown() {
        assert_eq!(usage("{}"), None);
        assert_eq!(usage(r#"{"prompt_tokens": null, "total_tokens": 5}"#), None);
        assert_eq!(usage(r#"{"prompt_tokens": -1, "completion_tokens": "many"}"#), None);
        let huge =
            usage(r#"{"prompt_tokens": 18446744073709551615, "completion_tokens": 18446744073709551615}"#);
        assert_eq!(huge, None);
        assert_eq!(usage(r#"{"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 1e19}"#), None);
    }

    #[test]
    fn a_missing_count_makes_the_usage_unknown() {
        assert_eq!(usage(r#"{"prompt_tokens": 10}"#), None);
        assert_eq!(usage(r#"{"completion_tokens": 10, "prompt_tokens": null}"#), None);
    }

    #[test]
    fn cached_tokens_above_the_prompt_are_clamped() {
        let json = r#"{"prompt_tokens": 10, "completion_tokens": 5,
            "prompt_tokens_details": {"cached_tokens": 18446744073709551615}}"#;
        assert_eq!(usage(json).unwrap().cached, Tokens(10));
    }
}
