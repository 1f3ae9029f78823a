//! An estimate with bounds.

use std::iter::Sum;
use std::ops::{Add, Mul};

use serde::Serialize;

use crate::types::{NanoUsd, Price, Tokens, Usage};

/// The error of a prompt's estimated tokens, as a factor, before a provider has counted one.
pub(super) const PROMPT_ESTIMATE_ERROR: Range = Range { low: 0.8, likely: 1.0, high: 1.25 };

/// An estimate with bounds. If it is from a sample, the bounds contain the true value with a probability of about
/// 95%.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Range {
    /// The lower bound.
    pub low: f64,
    /// The most likely value.
    pub likely: f64,
    /// The upper bound.
    pub high: f64,
}

impl Range {
    /// Creates a range of one certain number.
    pub fn exactly(number: f64) -> Self {
        Self { low: number, likely: number, high: number }
    }

    /// Estimates the sum over `count` values from a random sample of them: the mean times `count`, plus or minus
    /// twice its standard error (19 of 20 values of a normal distribution). The error of a small sample is itself
    /// uncertain: below 30 values twice the error is taken to be at least a fifth of the mean.
    pub(super) fn estimate_total(seen: &[f64], count: f64) -> Self {
        let number = seen.len() as f64;
        if seen.is_empty() {
            return Self::default();
        }
        let mean = seen.iter().sum::<f64>() / number;
        let spread = seen.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (number - 1.0).max(1.0);
        // Finite population correction: a sample of all values has no error.
        let correction = ((count - number) / count.max(1.0)).max(0.0).sqrt();
        let few = if number < 30.0 { mean * 0.2 / 2.0 } else { 0.0 };
        let error = (spread / number).sqrt().max(few) * correction;
        let total = |mean: f64| (mean * count).max(0.0);
        Self { low: total(mean - 2.0 * error), likely: total(mean), high: total(mean + 2.0 * error) }
    }

    /// Returns the range of this divided by `number`.
    #[must_use]
    pub fn per(self, number: f64) -> Self {
        self * (1.0 / number.max(f64::MIN_POSITIVE))
    }
}

impl Add for Range {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { low: self.low + other.low, likely: self.likely + other.likely, high: self.high + other.high }
    }
}

impl Mul<f64> for Range {
    type Output = Self;

    fn mul(self, by: f64) -> Self {
        Self { low: self.low * by, likely: self.likely * by, high: self.high * by }
    }
}

impl Sum for Range {
    fn sum<I: Iterator<Item = Self>>(ranges: I) -> Self {
        ranges.fold(Self::default(), Add::add)
    }
}

/// Returns the cost of `input` and `output` tokens in `calls` calls. The length of each prompt decides which price
/// applies.
pub(super) fn cost(price: &Price, input: Range, output: Range, calls: Range) -> Range {
    let of = |input: f64, output: f64, calls: f64| {
        let calls = calls.max(1.0);
        let mean = |tokens: f64| Tokens((tokens / calls).round() as u64);
        let usage = Usage { input: mean(input), output: mean(output), ..Usage::default() };
        price.cost(&usage).unwrap_or(NanoUsd::MAX_CREDIBLE_COST).dollars() * calls
    };
    Range {
        low: of(input.low, output.low, calls.low),
        likely: of(input.likely, output.likely, calls.likely),
        high: of(input.high, output.high, calls.high),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bounds_of_a_sample_are_twice_its_standard_error() {
        let seen: Vec<f64> = (0..100).map(|number| f64::from(number % 10)).collect();
        let range = Range::estimate_total(&seen, 1e6);
        assert!((range.likely - 4.5e6).abs() < 1.0);
        // Standard deviation 2.887, standard error 0.2887.
        assert!((range.high - range.likely - 2.0 * 0.2887e6).abs() < 3e3, "{range:?}");
    }

    #[test]
    fn a_small_sample_of_equal_values_has_wide_bounds_and_a_full_sample_has_none() {
        let few = Range::estimate_total(&[3.0, 3.0], 100.0);
        assert!(few.low < 290.0 && few.high > 310.0, "{few:?}");
        assert_eq!(Range::estimate_total(&[3.0, 5.0], 2.0), Range::exactly(8.0));
        assert_eq!(Range::estimate_total(&[], 5.0), Range::default());
    }
}
