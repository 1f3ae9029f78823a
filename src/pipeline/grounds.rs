//! What a run's answers depend on: kept with the run, and compared when it goes on.
//!
//! A change is told before anything is asked, in words: which steps are affected, directly or by what they need,
//! and which models and prices are others. Steps are compared one by one, each with the targets of its own route: a
//! model that another step still asks is not thereby one that this step asks. It decides nothing about single
//! answers: their own fingerprints do.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use crate::store::{self, KnownRun};
use crate::types::{Fingerprint, LaneName, Price, RouteName, StepName};

use super::definition::Pipeline;

/// What the answers of a run depend on.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Grounds {
    /// What each step says, in the order of the file.
    pub steps: IndexMap<StepName, StepGround>,
    /// The lanes of the routes that are used.
    pub routes: BTreeMap<RouteName, Vec<LaneGround>>,
    /// The fingerprint of the schema of the items.
    pub input: Option<Fingerprint>,
}

/// What one step says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepGround {
    /// The fingerprint of all that shapes its answers, or decides whether it is asked.
    pub text: Fingerprint,
    /// Whom it asks.
    pub route: RouteName,
    /// The steps whose answers it needs.
    pub needs: Vec<StepName>,
}

/// One lane of a route.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LaneGround {
    /// The lane.
    pub lane: LaneName,
    /// The fingerprint of its model.
    pub voice: Fingerprint,
    /// What it costs.
    pub price: Option<Price>,
    /// Where it is; `None` is its vendor's own address.
    #[serde(default)]
    pub address: Option<String>,
}

/// What is another than it was.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Steps that say something else, in the order of the file.
    pub steps: Vec<StepName>,
    /// Steps that are new.
    pub added: Vec<StepName>,
    /// Steps that are gone.
    pub removed: Vec<StepName>,
    /// Steps that need an answer that changes.
    pub dependent: Vec<StepName>,
    /// Steps that ask other models than before, of which other steps ask some.
    pub rerouted: Vec<StepName>,
    /// Steps whose route or targets are others, and which ask all the models that they asked before.
    pub targets: Vec<StepName>,
    /// Models that are asked no more, by any step.
    pub models_gone: Vec<LaneName>,
    /// Models that are new.
    pub models_new: Vec<LaneName>,
    /// Lanes with another price.
    pub prices: Vec<LaneName>,
    /// Lanes at another address.
    pub addresses: Vec<LaneName>,
    /// Whether the schema of the items is another.
    pub input: bool,
}

impl Grounds {
    /// Takes down what `pipeline` says, and `lanes` of each route that it uses.
    pub fn of(pipeline: &Pipeline, lanes: impl Fn(&RouteName) -> Vec<LaneGround>) -> Self {
        let name = |step: &usize| pipeline.steps()[*step].name.clone();
        let ground = |(at, step): (usize, &super::definition::Step)| {
            let needs = pipeline.needs(at).iter().map(name).collect();
            (step.name.clone(), StepGround { text: step.text, route: step.route.clone(), needs })
        };
        Self {
            steps: pipeline.steps().iter().enumerate().map(ground).collect(),
            routes: pipeline.routes().map(|route| (route.clone(), lanes(route))).collect(),
            input: pipeline.input.as_ref().map(|schema| {
                let text = schema.value().to_string();
                Fingerprint::of([text.as_bytes()])
            }),
        }
    }

    /// Reads what was kept of a run.
    ///
    /// # Errors
    /// When it cannot be decoded.
    pub fn of_run(run: &KnownRun) -> Result<Self, store::Error> {
        serde_json::from_value(run.outline.grounds.clone())
            .map_err(|error| store::Error::Manifest { run: run.number, why: error.to_string() })
    }

    /// Returns what is another in `new` than it is here.
    pub fn changes(&self, new: &Self) -> Changes {
        let mut changes = Changes { input: self.input != new.input, ..Changes::default() };
        let mut affected = BTreeSet::new();
        // Each step comes after nothing in particular in the file: go round until no further one is reached.
        for (name, step) in &new.steps {
            match self.steps.get(name) {
                None => changes.added.push(name.clone()),
                Some(old) if old.text != step.text || old.needs != step.needs => {
                    changes.steps.push(name.clone());
                }
                Some(_) => match self.targets_of(name, new) {
                    Targets::Same => continue,
                    Targets::Others => {
                        changes.targets.push(name.clone());
                        continue;
                    }
                    Targets::OtherModels => changes.rerouted.push(name.clone()),
                    // The models say it; how many answers that reaches is not known.
                    Targets::ModelsGone => continue,
                },
            }
            affected.insert(name);
        }
        loop {
            let reached =
                |(_, step): &(&StepName, &StepGround)| step.needs.iter().any(|need| affected.contains(need));
            let more: Vec<_> = new.steps.iter().filter(reached).map(|(name, _)| name).collect();
            let before = affected.len();
            affected.extend(more);
            if affected.len() == before {
                break;
            }
        }
        let told: BTreeSet<_> =
            [&changes.added, &changes.steps, &changes.rerouted].into_iter().flatten().collect();
        let dependent = new.steps.keys().filter(|name| affected.contains(name) && !told.contains(name));
        changes.dependent = dependent.cloned().collect();
        let gone = self.steps.keys().filter(|name| !new.steps.contains_key(*name));
        changes.removed = gone.cloned().collect();
        let (old, now) = (self.lanes(), new.lanes());
        let missing = |from: &BTreeMap<&LaneName, &LaneGround>, of: &BTreeMap<&LaneName, &LaneGround>| {
            let is_missing = |lane: &&LaneGround| of.values().all(|other| other.voice != lane.voice);
            from.values().copied().filter(is_missing).map(|lane| lane.lane.clone()).collect()
        };
        (changes.models_gone, changes.models_new) = (missing(&old, &now), missing(&now, &old));
        let differ = |is_other: fn(&LaneGround, &LaneGround) -> bool| -> Vec<LaneName> {
            let other = |lane: &&LaneGround| old.get(&lane.lane).is_some_and(|before| is_other(before, lane));
            now.values().copied().filter(other).map(|lane| lane.lane.clone()).collect()
        };
        changes.prices = differ(|before, now| before.price != now.price);
        changes.addresses = differ(|before, now| before.address != now.address);
        changes
    }

    /// Returns the targets of a step, in their order.
    fn targets(&self, step: &StepName) -> impl Iterator<Item = &LaneGround> {
        let targets = self.steps.get(step).and_then(|step| self.routes.get(&step.route));
        targets.into_iter().flatten()
    }

    /// Compares the targets of a step that is in both.
    fn targets_of(&self, step: &StepName, new: &Self) -> Targets {
        let is_asked = |voice: Fingerprint| new.targets(step).any(|target| target.voice == voice);
        let gone: Vec<_> = self.targets(step).filter(|target| !is_asked(target.voice)).collect();
        if !gone.is_empty() {
            let all = new.lanes();
            let is_left = |target: &&LaneGround| all.values().any(|other| other.voice == target.voice);
            return if gone.iter().any(is_left) { Targets::OtherModels } else { Targets::ModelsGone };
        }
        let route = |grounds: &Self| grounds.steps.get(step).map(|step| step.route.clone());
        let names =
            |grounds: &Self| grounds.targets(step).map(|target| target.lane.clone()).collect::<Vec<_>>();
        // A model that no step asked is told by itself.
        let all = self.lanes();
        let is_told = |target: &LaneGround| all.values().all(|before| before.voice != target.voice);
        let is_same = route(self) == route(new) && names(self) == names(new);
        if is_same || new.targets(step).any(is_told) { Targets::Same } else { Targets::Others }
    }

    /// Returns whether a step may have answers of a model that `new` does not ask for it.
    fn loses_a_model(&self, step: &StepName, new: &Self) -> bool {
        matches!(self.targets_of(step, new), Targets::OtherModels | Targets::ModelsGone)
    }

    /// Returns whether a step may have answers of a model that `new` asks for it, too.
    fn shares_a_model(&self, step: &StepName, new: &Self) -> bool {
        self.targets(step).any(|before| new.targets(step).any(|now| now.voice == before.voice))
    }

    fn lanes(&self) -> BTreeMap<&LaneName, &LaneGround> {
        self.routes.values().flatten().map(|lane| (&lane.lane, lane)).collect()
    }
}

/// How the targets of a step have changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Targets {
    /// Not in a way that matters to its answers, or only by models that are new.
    Same,
    /// The route, the order or the names are others, or a model has come that another step asks; none has gone.
    Others,
    /// It does not ask some model any more, which no step asks.
    ModelsGone,
    /// It does not ask some model any more, which another step asks.
    OtherModels,
}

impl Changes {
    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Returns how many of the answers that each step has stay valid between `old` and `new`: at most, where some
    /// of their models are asked no more.
    pub fn stay_valid(&self, answers: &BTreeMap<StepName, u64>, old: &Grounds, new: &Grounds) -> u64 {
        let stays = |step: &StepName| !self.reaches(step) && old.shares_a_model(step, new);
        answers.iter().filter(|(step, _)| stays(step)).map(|(_, count)| count).sum()
    }

    /// Returns whether all answers that a step has are others now, or dropped.
    fn reaches(&self, step: &StepName) -> bool {
        [&self.steps, &self.removed, &self.dependent].iter().any(|steps| steps.contains(step))
    }

    /// Returns whether going on may discard something that was paid for: `answers` that each step has, or any of
    /// `settled` items. Whether the answers of another address are worth the same only the user knows.
    pub fn discard(
        &self,
        answers: &BTreeMap<StepName, u64>,
        settled: u64,
        old: &Grounds,
        new: &Grounds,
    ) -> bool {
        let is_lost = |step: &StepName| self.reaches(step) || old.loses_a_model(step, new);
        let is_any_lost = answers.iter().any(|(step, count)| *count > 0 && is_lost(step));
        let has_answers = answers.values().any(|count| *count > 0);
        is_any_lost || (self.input && settled > 0) || (!self.addresses.is_empty() && has_answers)
    }

    /// Returns whether items that have settled have to be looked at again: some of their answers may be others
    /// now, or missing.
    pub fn reach_items(&self) -> bool {
        let Self {
            steps,
            added,
            removed,
            dependent,
            rerouted,
            targets: _,
            models_gone,
            models_new: _,
            prices: _,
            addresses: _,
            input,
        } = self;
        *input
            || !models_gone.is_empty()
            || [steps, added, removed, dependent, rerouted].iter().any(|some| !some.is_empty())
    }
}

impl fmt::Display for Changes {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut said = Vec::new();
        let mut say = |what: &str, names: Vec<String>| {
            if !names.is_empty() {
                said.push(format!("{what}: {}", names.join(", ")));
            }
        };
        let steps = |steps: &[StepName]| steps.iter().map(ToString::to_string).collect();
        let lanes = |lanes: &[LaneName]| lanes.iter().map(ToString::to_string).collect();
        say("changed steps", steps(&self.steps));
        say("new steps", steps(&self.added));
        say("steps that ask other models", steps(&self.rerouted));
        say("steps that need their answers", steps(&self.dependent));
        say("steps that are gone", steps(&self.removed));
        say("steps with other targets", steps(&self.targets));
        say("models that are asked no more", lanes(&self.models_gone));
        say("new models", lanes(&self.models_new));
        say("other prices", lanes(&self.prices));
        say("other addresses", lanes(&self.addresses));
        if self.input {
            said.push("another schema of the items".to_owned());
        }
        out.write_str(&said.join("; "))
    }
}

#[cfg(test)]
mod tests;
