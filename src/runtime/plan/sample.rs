//! The results of a sample's items, read from the store.

use std::collections::BTreeMap;

use crate::store::{Error, RunNumber, StepRecord, Store, StoredItem};
use crate::types::{Attempt, ItemKey, ItemStatus, Outcome, RouteName, StepName, TargetName};

use super::plan::StepPlan;
use super::range::Range;

/// The items of a sample that have finished.
#[derive(Debug)]
pub struct Sample {
    items: Vec<StoredItem>,
}

impl Sample {
    /// Reads these items of a run.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn read(store: &dyn Store, run: RunNumber, keys: &[ItemKey]) -> Result<Self, Error> {
        let mut items = Vec::with_capacity(keys.len());
        for some in keys.chunks(200) {
            items.extend(store.look_up(run, some).await?.into_iter().flatten());
        }
        items.retain(|item| item.outcome.is_some());
        Ok(Self { items })
    }

    pub(super) fn items(&self) -> u64 {
        self.items.len() as u64
    }

    pub(super) fn failed(&self) -> u64 {
        let failed = |item: &&StoredItem| {
            item.outcome.as_ref().is_some_and(|outcome| outcome.status == ItemStatus::Failed)
        };
        self.items.iter().filter(failed).count() as u64
    }

    /// Returns the cost of the sample; `None` when a cost is not known.
    pub(super) fn spent(&self) -> Option<f64> {
        self.items.iter().map(|item| cost(sent_attempts(item))).sum()
    }

    /// Estimates the cost of all `items`.
    pub(super) fn cost(&self, items: u64) -> Option<Range> {
        let each: Option<Vec<f64>> =
            self.items.iter().map(|item| cost(representative_attempts(item))).collect();
        each.map(|each| Range::estimate_total(&each, items as f64))
    }

    /// Estimates a step of `items` items.
    pub(super) fn step(&self, step: &StepName, route: &RouteName, items: u64) -> StepPlan {
        let range = |of: fn(&Attempt) -> f64| {
            let each: Vec<f64> = self.items.iter().map(|item| of_step(item, step).map(of).sum()).collect();
            Range::estimate_total(&each, items as f64)
        };
        let costs: Option<Vec<f64>> = self.items.iter().map(|item| cost(of_step(item, step))).collect();
        StepPlan {
            route: route.clone(),
            calls: range(|attempt| f64::from(u8::from(!attempt.counted_elsewhere))),
            input: range(|attempt| attempt.usage.map_or(0.0, |usage| usage.input.0 as f64)),
            output: range(|attempt| attempt.usage.map_or(0.0, |usage| usage.output.0 as f64)),
            cost_usd: costs.map(|costs| Range::estimate_total(&costs, items as f64)),
            estimated_at: None,
            cache: None,
            joined: None,
        }
    }

    /// Estimates the requests of a step of `items` items, each with its resends. One that was joined with others counts
    /// like any other.
    pub(super) fn requests(&self, step: &StepName, items: u64) -> Range {
        let each: Vec<f64> = self.items.iter().map(|item| of_step(item, step).count() as f64).collect();
        Range::estimate_total(&each, items as f64)
    }

    /// Returns the calls per request of a step: less than 1 if requests were joined.
    pub(super) fn calls_per_request(&self, step: &StepName) -> f64 {
        let requests = || self.items.iter().flat_map(|item| of_step(item, step));
        let calls = requests().filter(|attempt| !attempt.counted_elsewhere).count();
        calls as f64 / requests().count().max(1) as f64
    }

    /// Estimates what the providers' caches save in a step of `items` items, in dollars.
    pub(super) fn cache_savings(&self, step: &StepName, items: u64) -> Range {
        let saved = |attempt: &Attempt| attempt.cache_savings.unwrap_or_default().dollars();
        let each: Vec<f64> = self.items.iter().map(|item| of_step(item, step).map(saved).sum()).collect();
        // Not `Range::estimate_total`: the savings of an item may be negative.
        let mean = each.iter().sum::<f64>() / each.len().max(1) as f64;
        Range::exactly(mean * items as f64)
    }

    /// Returns the share of all calls that went to a target.
    pub(super) fn share_of(&self, target: &TargetName) -> f64 {
        let all = || self.items.iter().flat_map(representative_attempts);
        all().filter(|attempt| attempt.target == *target).count() as f64 / all().count().max(1) as f64
    }

    /// Returns the mean duration of an answered call in seconds, by target.
    pub(super) fn seconds(&self) -> BTreeMap<String, f64> {
        let mut times: BTreeMap<String, (f64, f64)> = BTreeMap::new();
        for attempt in self.items.iter().flat_map(representative_attempts) {
            if attempt.outcome == Outcome::Answered {
                let (sum, count) = times.entry(attempt.target.to_string()).or_default();
                *sum += attempt.duration.as_secs_f64();
                *count += 1.0;
            }
        }
        times.into_iter().map(|(target, (sum, count))| (target, sum / count)).collect()
    }
}

/// Returns the attempts of an item that were sent.
fn sent_attempts(item: &StoredItem) -> impl Iterator<Item = &Attempt> {
    item.steps.iter().flat_map(|step| step.record.attempts.0.iter()).filter(|attempt| was_sent(attempt))
}

/// Returns the attempts by which the other items are estimated: those that were sent, and those whose answers came from the
/// answer cache, which may not have the answers of the other items.
fn representative_attempts(item: &StoredItem) -> impl Iterator<Item = &Attempt> {
    item.steps.iter().flat_map(|step| representative_attempts_of(&step.record))
}

fn representative_attempts_of(record: &StepRecord) -> impl Iterator<Item = &Attempt> {
    record.attempts.0.iter().filter(|attempt| was_sent(attempt)).chain(record.reused.as_deref())
}

fn of_step<'a>(item: &'a StoredItem, step: &'a StepName) -> impl Iterator<Item = &'a Attempt> {
    let records = item.steps.iter().filter(move |known| known.record.step == *step);
    records.flat_map(|known| representative_attempts_of(&known.record))
}

fn was_sent(attempt: &Attempt) -> bool {
    !matches!(attempt.outcome, Outcome::Refused(_) | Outcome::Lost(_))
}

/// Returns the cost of calls; `None` if the cost of one is not known. A call that failed without a charge costs
/// nothing.
fn cost<'a>(attempts: impl Iterator<Item = &'a Attempt>) -> Option<f64> {
    attempts
        .map(|attempt| match (&attempt.cost, &attempt.outcome) {
            (Some(cost), _) => Some(cost.dollars()),
            (None, Outcome::Failed(failure)) if failure.charged == crate::types::Charged::No => Some(0.0),
            (None, _) => None,
        })
        .sum()
}
