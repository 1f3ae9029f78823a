//! Forecasts how long a run still takes and what it will have cost.
//!
//! The speed is the rate at which requests ended over the last interval, so requests that only wait in a
//! provider's queue do not count. There is no forecast while it would be a guess. Pure: the caller passes the
//! time.

use std::collections::VecDeque;

/// Minimum length of the interval in seconds, once that much time has passed.
const MIN_INTERVAL_SECONDS: f64 = 10.0;

/// Minimum length of the interval in durations of a call: calls that are sent together end together.
const MIN_INTERVAL_CALLS: f64 = 4.0;

/// Requests or items in the interval before it may be shorter than the whole run.
const MIN_COUNT_FOR_SHORT_INTERVAL: u64 = 40;

/// Requests or items in the interval before a speed is computed.
const MIN_COUNT_FOR_SPEED: u64 = 12;
/// Seconds in the interval before a speed is computed.
const MIN_SPAN_SECONDS: f64 = 1.5;

/// Approximate number of samples in an interval.
const SAMPLES_PER_INTERVAL: f64 = 100.0;

/// Finished items before the cost of the others is forecast.
const MIN_FINISHED_FOR_COST: u64 = 10;

/// The number of steps counts like this many finished items in the mean number of requests per item.
const PIPELINE_WEIGHT: f64 = 5.0;

/// Recent samples of a run's progress.
#[derive(Debug, Default)]
pub(super) struct Forecast {
    /// Totals by time, oldest first; the first is the start of the interval.
    samples: VecDeque<Sample>,
}

/// Totals at one time, in seconds since the start.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Sample {
    at: f64,
    requests: u64,
    finished: u64,
}

/// Progress of a run.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct WorkCounts {
    /// Requests that ended, with or without an answer.
    pub(super) requests: u64,
    /// Of these, the ones of finished items.
    pub(super) requests_of_finished: u64,
    /// Finished items.
    pub(super) finished: u64,
    /// Items that have started and not finished.
    pub(super) in_flight: u64,
    /// Approximate number of items that have not started; `None` if unknown.
    pub(super) unread_items: Option<f64>,
    /// Requests per item; `None` if conditions decide it.
    pub(super) requests_per_item: Option<u64>,
    /// Mean duration of a call in seconds.
    pub(super) call_seconds: f64,
}

impl WorkCounts {
    /// Returns the mean number of requests per item, if it can be estimated.
    fn mean_requests_per_item(&self) -> Option<f64> {
        let weight = if self.requests_per_item.is_some() { PIPELINE_WEIGHT } else { 0.0 };
        let count = self.finished as f64 + weight;
        // Items that skip steps finish first, so a few of them are not representative.
        (self.requests_per_item.is_some() || self.finished >= MIN_COUNT_FOR_SPEED).then(|| {
            (self.requests_of_finished as f64 + weight * self.requests_per_item.unwrap_or_default() as f64)
                / count
        })
    }

    fn items_left(&self) -> Option<f64> {
        Some(self.unread_items? + self.in_flight as f64)
    }
}

impl Forecast {
    /// Adds the totals at `at` seconds after the start.
    pub(super) fn update(&mut self, at: f64, work: &WorkCounts) {
        let WorkCounts { requests, finished, .. } = *work;
        let sample = Sample { at, requests, finished };
        let Some(last) = self.samples.back().copied() else {
            if requests + finished > 0 {
                // If the number of concurrent calls is limited, the time before the first end belongs to the
                // calls that ended then; if their rate is limited, it does not. Half of it is a good
                // approximation in both cases.
                self.samples.push_back(Sample { at: at / 2.0, requests: 0, finished: 0 });
                self.samples.push_back(sample);
            }
            return;
        };
        if (last.requests, last.finished) == (requests, finished) {
            return;
        }
        if at - last.at > self.max_silence(work) {
            // After an outage, for example, earlier samples are not representative.
            self.samples.clear();
        }
        self.push(sample, interval(work));
    }

    fn push(&mut self, sample: Sample, interval: f64) {
        let count = self.samples.len();
        // The first sample is kept, and the last is the latest.
        if count > 2
            && self.samples[count - 1].at - self.samples[count - 2].at < interval / SAMPLES_PER_INTERVAL
        {
            self.samples.pop_back();
        }
        self.samples.push_back(sample);
        let long_enough = |first: &Sample| {
            let seen = (sample.requests + sample.finished).saturating_sub(first.requests + first.finished);
            sample.at - first.at >= interval && seen >= MIN_COUNT_FOR_SHORT_INTERVAL
        };
        while self.samples.get(1).is_some_and(long_enough) {
            self.samples.pop_front();
        }
    }

    /// Returns the seconds until the end; `None` while that would be a guess.
    pub(super) fn seconds_left(&self, now: f64, work: &WorkCounts) -> Option<f64> {
        let first = self.samples.front()?;
        let last = self.samples.back()?;
        let per_item = work.mean_requests_per_item()?;
        let items = work.items_left()?;
        let (done, remaining) = if per_item >= 0.5 {
            let started = work.requests.saturating_sub(work.requests_of_finished) as f64;
            // Each item in flight has at least one more request, or it would have finished.
            let remaining = (items * per_item - started).max(work.in_flight as f64);
            (last.requests.saturating_sub(first.requests), remaining)
        } else {
            (last.finished.saturating_sub(first.finished), items)
        };
        let silence = now - last.at;
        let span = last.at - first.at;
        if done < MIN_COUNT_FOR_SPEED || span < MIN_SPAN_SECONDS || silence > self.max_silence(work) {
            return None;
        }
        if silence > 2.0 * self.longest_gap().max(0.5) {
            return Some(remaining * (span + silence) / done as f64);
        }
        Some((remaining * span / done as f64 - silence).max(0.0))
    }

    /// Returns the time without an ended request after which the speed counts as unknown, in seconds.
    fn max_silence(&self, work: &WorkCounts) -> f64 {
        (4.0 * self.longest_gap()).max(3.0 * work.call_seconds).max(5.0)
    }

    /// Returns the longest time without an ended request, not counting the time before the first one.
    fn longest_gap(&self) -> f64 {
        let pairs = self.samples.iter().zip(self.samples.iter().skip(1));
        pairs
            .filter(|(one, _)| one.requests + one.finished > 0)
            .map(|(one, next)| next.at - one.at)
            .fold(0.0, f64::max)
    }
}

/// Returns what the whole run will have cost, if it has cost `so_far` and its finished items `of_finished`;
/// `None` while that would be a guess.
pub(super) fn cost(work: &WorkCounts, so_far: f64, of_finished: f64) -> Option<f64> {
    let remaining = work.items_left()?;
    if remaining > 0.0 && work.finished < MIN_FINISHED_FOR_COST {
        return None;
    }
    let total = work.finished as f64 + remaining;
    Some((of_finished * total / work.finished.max(1) as f64).max(so_far))
}

fn interval(work: &WorkCounts) -> f64 {
    MIN_INTERVAL_SECONDS.max(MIN_INTERVAL_CALLS * work.call_seconds)
}

#[cfg(test)]
mod tests;
