//! What became of the items of a sample, read from the store.

use std::collections::BTreeMap;

use crate::store::{Error, KnownItem, RunNumber, Store};
use crate::types::{Attempt, ItemKey, ItemStatus, LaneName, Outcome, RouteName, StepName};

use super::StepPlan;
use super::range::Range;

/// The items of a sample that have settled.
#[derive(Debug)]
pub struct Sample {
    items: Vec<KnownItem>,
}

impl Sample {
    /// Reads what became of these items of a run.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn read(store: &dyn Store, run: RunNumber, keys: &[ItemKey]) -> Result<Self, Error> {
        let mut items = Vec::with_capacity(keys.len());
        for some in keys.chunks(200) {
            items.extend(store.look_up(run, some).await?.into_iter().flatten());
        }
        items.retain(|item| item.settled.is_some());
        Ok(Self { items })
    }

    pub(super) fn items(&self) -> u64 {
        self.items.len() as u64
    }

    pub(super) fn failed(&self) -> u64 {
        let failed = |item: &&KnownItem| {
            item.settled.as_ref().is_some_and(|settled| settled.status == ItemStatus::Failed)
        };
        self.items.iter().filter(failed).count() as u64
    }

    /// Returns what the sample has cost; `None` when a cost is not known.
    pub(super) fn spent(&self) -> Option<f64> {
        self.items.iter().map(|item| cost(attempts(item))).sum()
    }

    /// Foretells what all `items` cost.
    pub(super) fn cost(&self, items: u64) -> Option<Range> {
        let each: Option<Vec<f64>> = self.items.iter().map(|item| cost(attempts(item))).collect();
        each.map(|each| Range::of_mean(&each, items as f64))
    }

    /// Foretells a step of `items` items.
    pub(super) fn step(&self, step: &StepName, route: &RouteName, items: u64) -> StepPlan {
        let range = |of: fn(&Attempt) -> f64| {
            let each: Vec<f64> = self.items.iter().map(|item| of_step(item, step).map(of).sum()).collect();
            Range::of_mean(&each, items as f64)
        };
        let costs: Option<Vec<f64>> = self.items.iter().map(|item| cost(of_step(item, step))).collect();
        StepPlan {
            route: route.clone(),
            calls: range(|_| 1.0),
            input: range(|attempt| attempt.usage.map_or(0.0, |usage| usage.input.0 as f64)),
            output: range(|attempt| attempt.usage.map_or(0.0, |usage| usage.output.0 as f64)),
            cost_usd: costs.map(|costs| Range::of_mean(&costs, items as f64)),
        }
    }

    /// Returns the share of all calls that a lane had.
    pub(super) fn share_of(&self, lane: &LaneName) -> f64 {
        let all = || self.items.iter().flat_map(attempts);
        all().filter(|attempt| attempt.lane == *lane).count() as f64 / all().count().max(1) as f64
    }

    /// Returns how long an answered call took on average, in seconds, by lane.
    pub(super) fn seconds(&self) -> BTreeMap<String, f64> {
        let mut times: BTreeMap<String, (f64, f64)> = BTreeMap::new();
        for attempt in self.items.iter().flat_map(attempts) {
            if attempt.outcome == Outcome::Answered {
                let (sum, count) = times.entry(attempt.lane.to_string()).or_default();
                (*sum, *count) = (*sum + attempt.took.as_secs_f64(), *count + 1.0);
            }
        }
        times.into_iter().map(|(lane, (sum, count))| (lane, sum / count)).collect()
    }
}

/// Returns the calls of an item that left.
fn attempts(item: &KnownItem) -> impl Iterator<Item = &Attempt> {
    item.steps.iter().flat_map(|step| step.record.trail.0.iter()).filter(|attempt| left(attempt))
}

fn of_step<'a>(item: &'a KnownItem, step: &'a StepName) -> impl Iterator<Item = &'a Attempt> {
    let records = item.steps.iter().filter(move |known| known.record.step == *step);
    records.flat_map(|known| known.record.trail.0.iter()).filter(|attempt| left(attempt))
}

fn left(attempt: &Attempt) -> bool {
    !matches!(attempt.outcome, Outcome::Refused(_) | Outcome::Lost(_))
}

/// Returns what calls cost; one that failed without any charge costs nothing, and one of which nobody knows has an
/// unknown cost.
fn cost<'a>(attempts: impl Iterator<Item = &'a Attempt>) -> Option<f64> {
    attempts
        .map(|attempt| match (&attempt.cost, &attempt.outcome) {
            (Some(cost), _) => Some(cost.dollars()),
            (None, Outcome::Failed(failure)) if failure.charged == crate::types::Charged::No => Some(0.0),
            (None, _) => None,
        })
        .sum()
}
