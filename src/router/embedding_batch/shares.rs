//! Divides the outcome of a joined request among its members. Pure.
//!
//! Each member gets its own vectors, and its part of the tokens and the cost by the size of its inputs. The parts of
//! all members are exactly the whole.

use crate::router::execution::RequestResult;
use crate::types::{
    Attempt, AttemptLog, Class, Failure, NanoUsd, RequestError, Response, Savings, Tokens, Usage,
};

/// The sizes of the members, as the sums of the sizes up to each.
#[derive(Debug)]
pub(super) struct Shares {
    ends: Vec<u64>,
}

impl Shares {
    pub(super) fn of(weights: impl IntoIterator<Item = u64>) -> Self {
        let add = |sum: &mut u64, weight: u64| {
            *sum = sum.saturating_add(weight);
            Some(*sum)
        };
        Self { ends: weights.into_iter().scan(0, add).collect() }
    }

    /// Returns the part of a member.
    fn part(&self, amount: u64, index: usize) -> u64 {
        let before = index.checked_sub(1).map_or(0, |before| self.part_until(amount, before));
        self.part_until(amount, index) - before
    }

    /// Returns the part of the members up to this one.
    fn part_until(&self, amount: u64, index: usize) -> u64 {
        let total = self.ends.last().copied().unwrap_or_default();
        let end = self.ends.get(index).copied().unwrap_or(total);
        if end >= total {
            return amount;
        }
        // Not more than `amount`, because `end` is less than `total`.
        u64::try_from(u128::from(amount) * u128::from(end) / u128::from(total)).unwrap_or(amount)
    }

    fn tokens(&self, tokens: Tokens, index: usize) -> Tokens {
        Tokens(self.part(tokens.0, index))
    }

    fn usage(&self, usage: Usage, index: usize) -> Usage {
        let Usage { input, cached, cache_write, cache_write_1h, output, reasoning } = usage;
        Usage {
            input: self.tokens(input, index),
            cached: self.tokens(cached, index),
            cache_write: self.tokens(cache_write, index),
            cache_write_1h: self.tokens(cache_write_1h, index),
            output: self.tokens(output, index),
            reasoning: self.tokens(reasoning, index),
        }
    }

    fn cost(&self, cost: NanoUsd, index: usize) -> NanoUsd {
        NanoUsd(self.part(cost.0, index))
    }

    fn savings(&self, savings: Savings, index: usize) -> Savings {
        let part = i64::try_from(self.part(savings.0.unsigned_abs(), index)).unwrap_or(i64::MAX);
        Savings(if savings.0 < 0 { -part } else { part })
    }

    /// Returns the attempts with the part of a member. `counted_elsewhere` is whether the log of another member counts
    /// the calls.
    pub(super) fn attempts(&self, log: &AttemptLog, index: usize, counted_elsewhere: bool) -> AttemptLog {
        let divide = |attempt: &Attempt| Attempt {
            usage: attempt.usage.map(|usage| self.usage(usage, index)),
            cost: attempt.cost.map(|cost| self.cost(cost, index)),
            cache_savings: attempt.cache_savings.map(|savings| self.savings(savings, index)),
            uncertain_cost: self.cost(attempt.uncertain_cost, index),
            counted_elsewhere,
            ..attempt.clone()
        };
        AttemptLog(log.0.iter().map(divide).collect())
    }
}

/// Divides an outcome among members with so many inputs and these weights. The log of the member `counting` counts the
/// calls.
pub(super) fn divide(
    outcome: RequestResult,
    sizes: &[usize],
    weights: &[u64],
    counting: usize,
) -> Vec<RequestResult> {
    if sizes.len() == 1 {
        return vec![outcome];
    }
    let shares = Shares::of(weights.iter().copied());
    let attempts = |log: &AttemptLog, index: usize| shares.attempts(log, index, index != counting);
    let divide_error = |error: &RequestError| {
        let part = |index| {
            let attempts = attempts(&error.attempts, index);
            Err(Box::new(RequestError { attempts, ..error.clone() }))
        };
        (0..sizes.len()).map(part).collect()
    };
    let mut response = match outcome {
        Ok(response) => response,
        Err(error) => return divide_error(&error),
    };
    let vectors = std::mem::take(&mut response.completion.embeddings);
    let inputs: usize = sizes.iter().sum();
    if vectors.len() != inputs {
        let message = format!("{} embeddings for {inputs} joined inputs", vectors.len());
        let failure = Failure::new(Class::Internal, message).maybe_charged();
        return divide_error(&RequestError { attempts: response.attempts, ..failure.into() });
    }
    let mut vectors = vectors.into_iter();
    let part = |(index, size): (usize, &usize)| {
        let mut completion = response.completion.clone();
        completion.embeddings = vectors.by_ref().take(*size).collect();
        completion.usage = completion.usage.map(|usage| shares.usage(usage, index));
        Ok(Response {
            completion,
            target: response.target.clone(),
            simulated: response.simulated,
            cost: response.cost.map(|cost| shares.cost(cost, index)),
            attempts: attempts(&response.attempts, index),
            resends: response.resends,
        })
    };
    sizes.iter().enumerate().map(part).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::types::{Completion, UsageTotals};

    fn attempt(outcome: &str, tokens: u64, cost: u64) -> Attempt {
        let text = format!(
            r#"{{"target":"a/m","key":"k","queue_time":{{"secs":0,"nanos":0}},"duration":{{"secs":1,"nanos":0}},
            "usage":{{"input":{tokens},"cached":0,"cache_write":0,"output":0,"reasoning":0}},"cost":{cost},
            "uncertain_cost":{cost},"outcome":{outcome}}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    fn response(inputs: usize, tokens: u64, cost: u64) -> Response {
        let vector = |input: usize| Arc::from([input as f32, 0.5]);
        let usage = Some(Usage::new(Tokens(tokens), Tokens(0)));
        let embeddings = (0..inputs).map(vector).collect();
        let superseded = attempt(r#""superseded""#, tokens, cost);
        Response {
            completion: Completion { embeddings, usage, ..Completion::default() },
            target: "a/m".parse().unwrap(),
            simulated: false,
            cost: Some(NanoUsd(cost)),
            attempts: AttemptLog(vec![superseded, attempt(r#""answered""#, tokens, cost)]),
            resends: 0,
        }
    }

    fn totals<'a>(logs: impl Iterator<Item = &'a AttemptLog>) -> UsageTotals {
        logs.fold(UsageTotals::default(), |mut sum, log| {
            sum += UsageTotals::of(log);
            sum
        })
    }

    #[test]
    fn the_share_of_a_request_follows_the_size_of_its_inputs() {
        let parts = divide(Ok(response(3, 100, 1_000)), &[1, 2], &[10, 30], 0);
        let costs: Vec<_> = parts.iter().map(|part| part.as_ref().unwrap().cost).collect();
        assert_eq!(costs, [Some(NanoUsd(250)), Some(NanoUsd(750))]);
        let second = parts[1].as_ref().unwrap();
        assert_eq!(second.completion.usage.unwrap().input, Tokens(75));
        assert_eq!(
            second.completion.embeddings.iter().map(|vector| vector[0]).collect::<Vec<_>>(),
            [1.0, 2.0]
        );
        assert!(second.attempts.0.iter().all(|attempt| attempt.counted_elsewhere));
    }

    #[test]
    fn savings_may_be_negative() {
        let shares = Shares::of([1, 1, 1]);
        let parts: Vec<i64> = (0..3).map(|index| shares.savings(Savings(-10), index).0).collect();
        assert_eq!(parts.iter().sum::<i64>(), -10);
    }

    proptest! {
        #[test]
        fn each_member_gets_its_own_vectors_and_the_sums_are_exact(
            members in prop::collection::vec((1..5_usize, 0..2_000_u64), 1..60),
            tokens in 0..300_000_u64,
            cost in 0..=NanoUsd::MAX_CREDIBLE_COST.0,
            counting in any::<prop::sample::Index>(),
        ) {
            let sizes: Vec<usize> = members.iter().map(|(size, _)| *size).collect();
            let weights: Vec<u64> = members.iter().map(|(_, weight)| *weight).collect();
            let whole = response(sizes.iter().sum(), tokens, cost);
            let parts = divide(Ok(whole.clone()), &sizes, &weights, counting.index(sizes.len()));
            let parts: Vec<Response> = parts.into_iter().map(Result::unwrap).collect();
            for (part, size) in parts.iter().zip(&sizes) {
                prop_assert_eq!(part.completion.embeddings.len(), *size);
            }
            let vectors: Vec<_> = parts.iter().flat_map(|part| part.completion.embeddings.clone()).collect();
            prop_assert_eq!(&vectors, &whole.completion.embeddings);
            let used: Tokens = parts.iter().filter_map(|part| part.completion.usage).map(|usage| usage.input).sum();
            prop_assert_eq!(used, Tokens(tokens));
            prop_assert_eq!(parts.iter().filter_map(|part| part.cost).sum::<NanoUsd>(), NanoUsd(cost));
            prop_assert_eq!(totals(parts.iter().map(|part| &part.attempts)), UsageTotals::of(&whole.attempts));
        }

        #[test]
        fn a_failure_goes_to_each_member_and_is_counted_once(
            weights in prop::collection::vec(0..2_000_u64, 2..60),
            cost in 0..1_000_000_u64,
        ) {
            let failed = r#"{"failed":{"class":"timeout","message":"x","charged":"maybe"}}"#;
            let attempts = AttemptLog(vec![attempt(failed, 5, cost)]);
            let failure = Failure::new(Class::Timeout, "x").maybe_charged();
            let error = RequestError { attempts: attempts.clone(), ..failure.into() };
            let sizes = vec![1; weights.len()];
            let parts: Vec<_> = divide(Err(Box::new(error)), &sizes, &weights, 0);
            let errors: Vec<_> = parts.into_iter().map(|part| *part.unwrap_err()).collect();
            prop_assert!(errors.iter().all(|error| error.class() == Class::Timeout));
            prop_assert_eq!(totals(errors.iter().map(|error| &error.attempts)), UsageTotals::of(&attempts));
            let uncertain = errors.iter().flat_map(|error| &error.attempts.0).map(|attempt| attempt.uncertain_cost);
            prop_assert_eq!(uncertain.sum::<NanoUsd>(), NanoUsd(cost));
        }
    }
}
