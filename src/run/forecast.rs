//! Says how long a run still takes and what it will have cost.
//!
//! The speed is that at which questions came back over the last stretch, so that what only waits in a
//! provider's queue counts for nothing. Says nothing where it would be a guess. Pure: it is given the time.

use std::collections::VecDeque;

/// Fewest seconds that a stretch has, once there were as many.
const STRETCH: f64 = 10.0;

/// Times that a call takes which a stretch has at least: calls that left together come back together.
const CALLS_LONG: f64 = 4.0;

/// Questions or items of a stretch before it may be shorter than the whole run.
const ENOUGH: u64 = 40;

/// Questions or items before which a speed is a guess, and seconds.
const FEWEST: u64 = 12;
const SHORTEST: f64 = 1.5;

/// Samples that a stretch is kept in, about.
const SAMPLES: f64 = 100.0;

/// Items that must have ended before what the others cost can be told.
const PRICED: u64 = 10;

/// Items that the pipeline's own number of steps counts as, beside those that have ended.
const BELIEF: f64 = 5.0;

/// The speed of a run, as far as it is known.
#[derive(Debug, Default)]
pub(super) struct Forecast {
    /// What had come back by when, oldest first; the first is where the stretch begins.
    samples: VecDeque<Sample>,
}

/// What had come back at one time, in seconds since the start.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Sample {
    at: f64,
    questions: u64,
    ended: u64,
}

/// Where a run stands.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Work {
    /// Questions that came back, with an answer or without.
    pub(super) questions: u64,
    /// Those of them that belong to items that have ended.
    pub(super) of_ended: u64,
    /// Items that have ended.
    pub(super) ended: u64,
    /// Items begun and not ended.
    pub(super) in_flight: u64,
    /// Items that have not begun, about; `None` when nobody knows.
    pub(super) to_come: Option<f64>,
    /// Questions that every item has, where no condition decides.
    pub(super) steps: Option<u64>,
    /// Seconds that a call takes on average.
    pub(super) call_seconds: f64,
}

impl Work {
    /// Returns how many questions an item has, as far as that can be told.
    fn questions_per_item(&self) -> Option<f64> {
        let belief = if self.steps.is_some() { BELIEF } else { 0.0 };
        let seen = self.ended as f64 + belief;
        // Items that skip steps end first: a few of them say little of the others.
        (self.steps.is_some() || self.ended >= FEWEST)
            .then(|| (self.of_ended as f64 + belief * self.steps.unwrap_or_default() as f64) / seen)
    }

    fn items_left(&self) -> Option<f64> {
        Some(self.to_come? + self.in_flight as f64)
    }
}

impl Forecast {
    /// Learns how far the run is, `at` seconds after its start.
    pub(super) fn learn(&mut self, at: f64, work: &Work) {
        let Work { questions, ended, .. } = *work;
        let sample = Sample { at, questions, ended };
        let Some(last) = self.samples.back().copied() else {
            if questions + ended > 0 {
                // Where calls out are limited, the time before the first end has brought about what came then;
                // where their pace is, it has not. Half of it is wrong in neither case by much.
                self.samples.push_back(Sample { at: at / 2.0, questions: 0, ended: 0 });
                self.samples.push_back(sample);
            }
            return;
        };
        if (last.questions, last.ended) == (questions, ended) {
            return;
        }
        if at - last.at > self.patience(work) {
            // An outage, say: what was before it tells nothing of what comes.
            self.samples.clear();
        }
        self.push(sample, stretch(work));
    }

    fn push(&mut self, sample: Sample, stretch: f64) {
        let count = self.samples.len();
        // The first stays, and the last is the latest.
        if count > 2 && self.samples[count - 1].at - self.samples[count - 2].at < stretch / SAMPLES {
            self.samples.pop_back();
        }
        self.samples.push_back(sample);
        let long_enough = |first: &Sample| {
            let seen = (sample.questions + sample.ended).saturating_sub(first.questions + first.ended);
            sample.at - first.at >= stretch && seen >= ENOUGH
        };
        while self.samples.get(1).is_some_and(long_enough) {
            self.samples.pop_front();
        }
    }

    /// Returns the seconds until the end; `None` while that would be a guess.
    pub(super) fn seconds_left(&self, now: f64, work: &Work) -> Option<f64> {
        let (first, last) = (self.samples.front()?, self.samples.back()?);
        let per_item = work.questions_per_item()?;
        let items = work.items_left()?;
        let (done, left) = if per_item >= 0.5 {
            let partly = work.questions.saturating_sub(work.of_ended) as f64;
            // Each item in flight has a question to come, or it would have ended.
            let left = (items * per_item - partly).max(work.in_flight as f64);
            (last.questions.saturating_sub(first.questions), left)
        } else {
            (last.ended.saturating_sub(first.ended), items)
        };
        let (silence, span) = (now - last.at, last.at - first.at);
        if done < FEWEST || span < SHORTEST || silence > self.patience(work) {
            return None;
        }
        if silence > 2.0 * self.longest_gap().max(0.5) {
            return Some(left * (span + silence) / done as f64);
        }
        Some((left * span / done as f64 - silence).max(0.0))
    }

    /// Returns for how long nothing may come back before the speed is not known any more.
    fn patience(&self, work: &Work) -> f64 {
        (4.0 * self.longest_gap()).max(3.0 * work.call_seconds).max(5.0)
    }

    /// Returns the longest time in which nothing came back, the one before the first end left out.
    fn longest_gap(&self) -> f64 {
        let pairs = self.samples.iter().zip(self.samples.iter().skip(1));
        pairs
            .filter(|(one, _)| one.questions + one.ended > 0)
            .map(|(one, next)| next.at - one.at)
            .fold(0.0, f64::max)
    }
}

/// Returns what the whole run will have cost, when it has cost `so_far` and its items that have ended
/// `of_ended`; `None` while that would be a guess.
pub(super) fn cost(work: &Work, so_far: f64, of_ended: f64) -> Option<f64> {
    let left = work.items_left()?;
    if left > 0.0 && work.ended < PRICED {
        return None;
    }
    let all = work.ended as f64 + left;
    Some((of_ended * all / work.ended.max(1) as f64).max(so_far))
}

fn stretch(work: &Work) -> f64 {
    STRETCH.max(CALLS_LONG * work.call_seconds)
}

#[cfg(test)]
mod tests;
