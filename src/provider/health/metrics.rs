//! What the attempts at one target add up to, for metrics.
//!
//! An attempt counts once, when it ends; one that was not sent counts nothing. Costs and tokens are those of the
//! attempt log. Additions only: the scheduler makes them under its lock, and a scrape formats a copy.

use tokio::time::Instant;

use crate::provider::admission::grant::{Abort, CallOutcome, Grant, SendTime};
use crate::provider::keys::key_set::KeyFault;
use crate::telemetry::{Bounds, Histogram, HistogramSnapshot};
use crate::types::{Charged, Class, Spend, Usage};

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AttemptOutcome {
    Answered,
    Superseded,
    Failed(Class),
}

/// The sums of a target's attempts.
#[derive(Debug)]
pub(in crate::provider) struct TargetMetrics {
    sums: AttemptSums,
    durations: Histogram,
    queue_times: Histogram,
    first_tokens: Histogram,
}

/// The sums without the distributions.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::provider) struct AttemptSums {
    answered: u64,
    superseded: u64,
    /// Cancelled and failed attempts, in the order of [`Class::ALL`].
    failed: [u64; Class::ALL.len()],
    pub(in crate::provider) usage: Usage,
    pub(in crate::provider) spend: Spend,
    pub(in crate::provider) possibly_charged: u64,
}

/// A target's metrics at one instant.
#[derive(Debug)]
pub(in crate::provider) struct TargetMetricsSnapshot {
    pub(in crate::provider) sums: AttemptSums,
    /// Time from sending to the end.
    pub(in crate::provider) durations: HistogramSnapshot,
    /// Time from submission to sending.
    pub(in crate::provider) queue_times: HistogramSnapshot,
    /// Time from sending to the first part of the answer.
    pub(in crate::provider) first_tokens: HistogramSnapshot,
}

impl Default for TargetMetrics {
    fn default() -> Self {
        Self {
            sums: AttemptSums::default(),
            durations: Histogram::new(Bounds::SECONDS),
            queue_times: Histogram::new(Bounds::SECONDS),
            first_tokens: Histogram::new(Bounds::SECONDS),
        }
    }
}

impl TargetMetrics {
    /// Counts an attempt that has ended, if it was sent. `key_fault` is what its failure shows about its key.
    pub(in crate::provider) fn record_end(
        &mut self,
        grant: &Grant,
        outcome: Option<&CallOutcome<'_>>,
        key_fault: KeyFault,
        now: Instant,
    ) {
        let Some(SendTime { at, queue_time }) = grant.sent.filter(|_| !grant.is_unsent) else { return };
        let (attempt_outcome, usage, is_possibly_charged) = match outcome.map(|outcome| outcome.result) {
            Some(Ok(completion)) => (AttemptOutcome::Answered, completion.usage, false),
            Some(Err(failure)) => {
                let class = key_fault.class_of(failure);
                let usage = failure.usage.as_deref().copied();
                (AttemptOutcome::Failed(class), usage, failure.charged == Charged::Maybe)
            }
            None => (without_result(grant.abort), None, true),
        };
        self.sums.count(attempt_outcome);
        self.sums.usage += usage.unwrap_or_default();
        self.sums.spend += grant.spend;
        self.sums.possibly_charged += u64::from(is_possibly_charged);
        self.durations.record(now.saturating_duration_since(at));
        self.queue_times.record(queue_time);
        if let Some(first_token) = outcome.and_then(|outcome| outcome.first_token) {
            self.first_tokens.record(first_token);
        }
    }

    /// Moves the sums of the same target in another state to these ones.
    pub(in crate::provider) fn take_from(&mut self, other: &mut Self) {
        self.sums.add(std::mem::take(&mut other.sums));
        self.durations.take_from(&other.durations);
        self.queue_times.take_from(&other.queue_times);
        self.first_tokens.take_from(&other.first_tokens);
    }

    /// Returns the number of attempts that the provider answered with a rate limit.
    pub(in crate::provider) fn throttled(&self) -> u64 {
        self.sums.failed_with(Class::RateLimit)
    }

    /// Returns the metrics at this instant.
    pub(in crate::provider) fn snapshot(&self) -> TargetMetricsSnapshot {
        TargetMetricsSnapshot {
            sums: self.sums,
            durations: self.durations.snapshot(),
            queue_times: self.queue_times.snapshot(),
            first_tokens: self.first_tokens.snapshot(),
        }
    }
}

impl AttemptSums {
    fn add(&mut self, other: Self) {
        let Self { answered, superseded, failed, usage, spend, possibly_charged } = other;
        self.answered += answered;
        self.superseded += superseded;
        self.failed.iter_mut().zip(failed).for_each(|(sum, count)| *sum += count);
        self.usage += usage;
        self.spend += spend;
        self.possibly_charged += possibly_charged;
    }

    fn count(&mut self, outcome: AttemptOutcome) {
        match outcome {
            AttemptOutcome::Answered => self.answered += 1,
            AttemptOutcome::Superseded => self.superseded += 1,
            AttemptOutcome::Failed(class) => self.failed[class as usize] += 1,
        }
    }

    /// Returns the number of attempts that ended with this class.
    pub(in crate::provider) fn failed_with(&self, class: Class) -> u64 {
        let failed = Class::ALL.into_iter().zip(self.failed);
        failed.filter(|(counted, _)| *counted == class).map(|(_, count)| count).sum()
    }

    /// Returns the number of attempts by the name of their outcome, without the classes that did not occur: most never
    /// occur at a target.
    pub(in crate::provider) fn outcomes(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let failed = Class::ALL.map(Class::as_str).into_iter().zip(self.failed);
        let failed = failed.filter(|(_, count)| *count > 0);
        [("answered", self.answered), ("superseded", self.superseded)].into_iter().chain(failed)
    }
}

/// Returns the outcome of an attempt that ended without a result. If its caller did not drop it, its task has died, and
/// the caller gets a network error.
fn without_result(abort: Option<Abort>) -> AttemptOutcome {
    match abort {
        Some(Abort::Superseded) => AttemptOutcome::Superseded,
        Some(Abort::Cancelled) => AttemptOutcome::Failed(Class::Cancelled),
        None => AttemptOutcome::Failed(Class::NetworkError),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_has_its_own_counter_under_its_own_name() {
        let mut sums = AttemptSums::default();
        for (number, class) in (1..).zip(Class::ALL) {
            (0..number).for_each(|_| sums.count(AttemptOutcome::Failed(class)));
        }
        let expected: Vec<(&str, u64)> = Class::ALL.map(Class::as_str).into_iter().zip(1..).collect();
        assert_eq!(sums.outcomes().skip(2).collect::<Vec<_>>(), expected);
    }
}
