//! Manifest of what a run's answers depend on. It is stored with the run and compared when the run is resumed.
//!
//! The differences are reported before any request is sent: which steps are affected, directly or through the
//! steps they need, and which models and prices changed. Each step is compared with the targets of its own route:
//! that another step uses a model does not mean that this step uses it. The manifest does not decide whether a
//! stored answer is reused: the answer's fingerprint does.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use crate::store::{self, StoredRun};
use crate::types::{Fingerprint, LongPromptPrice, Price, RouteName, StepName, TargetName};

use super::definition::Pipeline;

/// What the answers of a run depend on.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RunManifest {
    /// The steps, in the order of the file.
    pub steps: IndexMap<StepName, StepManifest>,
    /// The targets of each route that a step uses.
    pub routes: BTreeMap<RouteName, Vec<TargetManifest>>,
    /// The fingerprint of the input schema.
    pub input: Option<Fingerprint>,
}

/// What the answers of one step depend on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepManifest {
    /// The fingerprint of everything that affects its answers or decides whether it is skipped.
    pub text: Fingerprint,
    /// The route of its requests.
    pub route: RouteName,
    /// The steps whose answers it needs.
    pub needs: Vec<StepName>,
}

/// One target of a route.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TargetManifest {
    /// The name of the target.
    #[serde(alias = "lane")]
    pub target: TargetName,
    /// The fingerprint of its [model identity](crate::pipeline::ModelIdentity).
    #[serde(alias = "voice")]
    pub model_identity: Fingerprint,
    /// Its price.
    pub price: Option<Price>,
    /// Its base URL; `None` is the vendor's default.
    #[serde(default)]
    pub address: Option<String>,
}

/// Differences between two manifests.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ManifestDiff {
    /// Steps whose definition changed, in the order of the file.
    pub changed_steps: Vec<StepName>,
    /// Steps that were added.
    pub added_steps: Vec<StepName>,
    /// Steps that were removed.
    pub removed_steps: Vec<StepName>,
    /// Steps that need the answer of a step that is affected.
    pub dependent_steps: Vec<StepName>,
    /// Steps that no longer use a model that another step still uses.
    pub steps_with_other_models: Vec<StepName>,
    /// Steps whose route or targets changed, and which still use all models that they used before.
    pub steps_with_other_targets: Vec<StepName>,
    /// Targets whose model no step uses any more.
    pub removed_models: Vec<TargetName>,
    /// Targets whose model no step used before.
    pub added_models: Vec<TargetName>,
    /// Targets whose price changed.
    pub changed_prices: Vec<TargetName>,
    /// Targets whose base URL changed.
    pub changed_addresses: Vec<TargetName>,
    /// Whether the input schema changed.
    pub input_schema_changed: bool,
}

impl RunManifest {
    /// Creates the manifest of `pipeline`; `targets_of_route` returns the targets of a route.
    pub fn of(pipeline: &Pipeline, targets_of_route: impl Fn(&RouteName) -> Vec<TargetManifest>) -> Self {
        let step_name = |step: &usize| pipeline.steps()[*step].name.clone();
        let describe_step = |(index, step): (usize, &super::definition::Step)| {
            let needs = pipeline.needs(index).iter().map(step_name).collect();
            (step.name.clone(), StepManifest { text: step.fingerprint, route: step.route.clone(), needs })
        };
        Self {
            steps: pipeline.steps().iter().enumerate().map(describe_step).collect(),
            routes: pipeline.routes().map(|route| (route.clone(), targets_of_route(route))).collect(),
            input: pipeline.input.as_ref().map(|schema| {
                let text = schema.value().to_string();
                Fingerprint::of([text.as_bytes()])
            }),
        }
    }

    /// Reads the manifest that is stored with `run`.
    ///
    /// # Errors
    /// If it cannot be decoded.
    pub fn of_run(run: &StoredRun) -> Result<Self, store::Error> {
        serde_json::from_value(run.metadata.manifest.clone())
            .map_err(|error| store::Error::Manifest { run: run.number, why: error.to_string() })
    }

    /// Makes the models of these targets differ from every other: a session had answers of more than one model of theirs.
    #[must_use]
    pub fn with_changed_models(mut self, targets: &BTreeSet<TargetName>) -> Self {
        let changed = Fingerprint([0; 16]);
        let of_routes = self.routes.values_mut().flatten();
        of_routes.filter(|of| targets.contains(&of.target)).for_each(|of| of.model_identity = changed);
        self
    }

    /// Returns the differences between this manifest and `new`.
    pub fn diff(&self, new: &Self) -> ManifestDiff {
        let mut changes =
            ManifestDiff { input_schema_changed: self.input != new.input, ..ManifestDiff::default() };
        let mut affected = BTreeSet::new();
        for (name, step) in &new.steps {
            match self.steps.get(name) {
                None => changes.added_steps.push(name.clone()),
                Some(old) if old.text != step.text || old.needs != step.needs => {
                    changes.changed_steps.push(name.clone());
                }
                Some(_) => match self.compare_targets(name, new) {
                    TargetChange::Unchanged => continue,
                    TargetChange::SameModels => {
                        changes.steps_with_other_targets.push(name.clone());
                        continue;
                    }
                    TargetChange::ModelsReassigned => changes.steps_with_other_models.push(name.clone()),
                    // `removed_models` reports it. How many answers that affects is not known.
                    TargetChange::ModelsRemoved => continue,
                },
            }
            affected.insert(name);
        }
        // The file lists steps in any order, so repeat until no further step is affected.
        loop {
            let needs_affected = |(_, step): &(&StepName, &StepManifest)| {
                step.needs.iter().any(|need| affected.contains(need))
            };
            let more: Vec<_> = new.steps.iter().filter(needs_affected).map(|(name, _)| name).collect();
            let before = affected.len();
            affected.extend(more);
            if affected.len() == before {
                break;
            }
        }
        let reported: BTreeSet<_> =
            [&changes.added_steps, &changes.changed_steps, &changes.steps_with_other_models]
                .into_iter()
                .flatten()
                .collect();
        let dependent = new.steps.keys().filter(|name| affected.contains(name) && !reported.contains(name));
        changes.dependent_steps = dependent.cloned().collect();
        let removed = self.steps.keys().filter(|name| !new.steps.contains_key(*name));
        changes.removed_steps = removed.cloned().collect();
        let old_targets = self.targets_by_name();
        let new_targets = new.targets_by_name();
        let missing = |from: &BTreeMap<&TargetName, &TargetManifest>,
                       of: &BTreeMap<&TargetName, &TargetManifest>| {
            let is_missing = |target: &&TargetManifest| {
                of.values().all(|other| other.model_identity != target.model_identity)
            };
            from.values().copied().filter(is_missing).map(|target| target.target.clone()).collect()
        };
        changes.removed_models = missing(&old_targets, &new_targets);
        changes.added_models = missing(&new_targets, &old_targets);
        let changed = |differs: fn(&TargetManifest, &TargetManifest) -> bool| -> Vec<TargetName> {
            let has_changed = |target: &&TargetManifest| {
                old_targets.get(&target.target).is_some_and(|before| differs(before, target))
            };
            new_targets.values().copied().filter(has_changed).map(|target| target.target.clone()).collect()
        };
        changes.changed_prices = changed(|before, now| differs(before.price, now.price));
        changes.changed_addresses = changed(|before, now| before.address != now.address);
        changes
    }

    /// Returns the targets of a step, in the order of its route.
    fn targets(&self, step: &StepName) -> impl Iterator<Item = &TargetManifest> {
        let targets = self.steps.get(step).and_then(|step| self.routes.get(&step.route));
        targets.into_iter().flatten()
    }

    /// Compares the targets of a step that is in both manifests.
    fn compare_targets(&self, step: &StepName, new: &Self) -> TargetChange {
        let is_used =
            |identity: Fingerprint| new.targets(step).any(|target| target.model_identity == identity);
        let dropped: Vec<_> = self.targets(step).filter(|target| !is_used(target.model_identity)).collect();
        if !dropped.is_empty() {
            let all = new.targets_by_name();
            let is_used_elsewhere = |target: &&TargetManifest| {
                all.values().any(|other| other.model_identity == target.model_identity)
            };
            let is_reassigned = dropped.iter().any(is_used_elsewhere);
            return if is_reassigned { TargetChange::ModelsReassigned } else { TargetChange::ModelsRemoved };
        }
        let route = |manifest: &Self| manifest.steps.get(step).map(|step| step.route.clone());
        let names =
            |manifest: &Self| manifest.targets(step).map(|target| target.target.clone()).collect::<Vec<_>>();
        // A model that no step used before is reported in `added_models`.
        let all = self.targets_by_name();
        let is_new_model = |target: &TargetManifest| {
            all.values().all(|before| before.model_identity != target.model_identity)
        };
        let is_same = route(self) == route(new) && names(self) == names(new);
        if is_same || new.targets(step).any(is_new_model) {
            TargetChange::Unchanged
        } else {
            TargetChange::SameModels
        }
    }

    /// Returns whether a step may have answers of a model that it does not use in `new`.
    fn loses_model(&self, step: &StepName, new: &Self) -> bool {
        matches!(
            self.compare_targets(step, new),
            TargetChange::ModelsReassigned | TargetChange::ModelsRemoved
        )
    }

    /// Returns whether a step may have answers of a model that it still uses in `new`.
    fn keeps_model(&self, step: &StepName, new: &Self) -> bool {
        self.targets(step)
            .any(|before| new.targets(step).any(|now| now.model_identity == before.model_identity))
    }

    fn targets_by_name(&self) -> BTreeMap<&TargetName, &TargetManifest> {
        self.routes.values().flatten().map(|target| (&target.target, target)).collect()
    }
}

/// How the targets of a step changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TargetChange {
    /// Not in a way that affects its answers, or only by models that no step used before.
    Unchanged,
    /// The route, the order or the names of the targets changed, or a model of another step was added. The step
    /// still uses all models that it used before.
    SameModels,
    /// The step no longer uses a model that no step uses any more.
    ModelsRemoved,
    /// The step no longer uses a model that another step still uses.
    ModelsReassigned,
}

/// Returns whether two prices differ. A price that was stored before it could have one for an hour in the cache does
/// not differ from one that has it: that run has cached nothing for an hour.
fn differs(before: Option<Price>, now: Option<Price>) -> bool {
    let without_hour = |price: Price| Price {
        cache_write_1h: None,
        long: price.long.map(|long| LongPromptPrice { cache_write_1h: None, ..long }),
        ..price
    };
    before != now && before != now.map(without_hour)
}

impl ManifestDiff {
    /// Returns whether there are no differences.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Returns how many of the stored `answers` of each step stay valid between `old` and `new`. The number is an
    /// upper bound if some of their models are no longer used.
    #[doc(hidden)]
    pub fn count_valid_answers(
        &self,
        answers: &BTreeMap<StepName, u64>,
        old: &RunManifest,
        new: &RunManifest,
    ) -> u64 {
        let stays_valid = |step: &StepName| !self.invalidates(step) && old.keeps_model(step, new);
        answers.iter().filter(|(step, _)| stays_valid(step)).map(|(_, count)| count).sum()
    }

    /// Returns whether all stored answers of a step are invalid.
    fn invalidates(&self, step: &StepName) -> bool {
        [&self.changed_steps, &self.removed_steps, &self.dependent_steps]
            .iter()
            .any(|steps| steps.contains(step))
    }

    /// Returns whether resuming the run may discard paid work: some of the stored `answers` of a step, or the
    /// outcome of one of the `finished` items. A changed base URL counts, because only the user can tell whether the
    /// answers are equivalent.
    #[doc(hidden)]
    pub fn may_discard(
        &self,
        answers: &BTreeMap<StepName, u64>,
        finished: u64,
        old: &RunManifest,
        new: &RunManifest,
    ) -> bool {
        let is_lost = |step: &StepName| self.invalidates(step) || old.loses_model(step, new);
        let is_any_lost = answers.iter().any(|(step, count)| *count > 0 && is_lost(step));
        let has_answers = answers.values().any(|count| *count > 0);
        is_any_lost
            || (self.input_schema_changed && finished > 0)
            || (!self.changed_addresses.is_empty() && has_answers)
    }

    /// Returns whether finished items must be checked again, because some of their answers may be invalid or
    /// missing.
    #[doc(hidden)]
    pub fn affects_finished_items(&self) -> bool {
        let Self {
            changed_steps,
            added_steps,
            removed_steps,
            dependent_steps,
            steps_with_other_models,
            steps_with_other_targets: _,
            removed_models,
            added_models: _,
            changed_prices: _,
            changed_addresses: _,
            input_schema_changed,
        } = self;
        let affecting = [changed_steps, added_steps, removed_steps, dependent_steps, steps_with_other_models];
        *input_schema_changed || !removed_models.is_empty() || affecting.iter().any(|steps| !steps.is_empty())
    }
}

impl fmt::Display for ManifestDiff {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        let mut add = |what: &str, names: Vec<String>| {
            if !names.is_empty() {
                parts.push(format!("{what}: {}", names.join(", ")));
            }
        };
        let steps = |steps: &[StepName]| steps.iter().map(ToString::to_string).collect();
        let targets = |targets: &[TargetName]| targets.iter().map(ToString::to_string).collect();
        add("changed steps", steps(&self.changed_steps));
        add("new steps", steps(&self.added_steps));
        add("steps that use other models", steps(&self.steps_with_other_models));
        add("steps that need their answers", steps(&self.dependent_steps));
        add("removed steps", steps(&self.removed_steps));
        add("steps with other targets", steps(&self.steps_with_other_targets));
        add("models that are no longer used", targets(&self.removed_models));
        add("new models", targets(&self.added_models));
        add("other prices", targets(&self.changed_prices));
        add("other addresses", targets(&self.changed_addresses));
        if self.input_schema_changed {
            parts.push("changed input schema".to_owned());
        }
        out.write_str(&parts.join("; "))
    }
}

#[cfg(test)]
mod tests;
