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
mod tests {
    use std::path::Path;

    use super::*;
    use crate::pipeline::Defaults;

    const FILE: &str = "
name = \"email\"
[[step]]
name = \"category\"
prompt = \"What is it? {{ item.text }}\"
[[step]]
name = \"urgent\"
prompt = \"Is it urgent? {{ item.text }}\"
[[step]]
name = \"reply\"
prompt = \"Answer this {{ category }}: {{ item.text }}\"
";

    fn lane(name: &str, voice: &str, price: Option<f64>) -> LaneGround {
        LaneGround {
            lane: name.parse().unwrap(),
            voice: Fingerprint::of([voice.as_bytes()]),
            price: price.map(|input| Price {
                input,
                output: 5.0,
                cached: None,
                cache_write: None,
                long: None,
            }),
            address: None,
        }
    }

    fn grounds(text: &str, lanes: &[LaneGround]) -> Grounds {
        let routes = ["default".into()];
        let pipeline = Pipeline::parse("p", text, Path::new(""), &Defaults::default(), &routes).unwrap();
        Grounds::of(&pipeline, |_| lanes.to_vec())
    }

    fn told(old: &Grounds, new: &Grounds) -> (String, bool) {
        let changes = old.changes(new);
        assert_eq!(changes.is_empty(), old == new);
        (changes.to_string(), changes.reach_items())
    }

    #[test]
    fn a_changed_step_is_told_with_those_that_need_it() {
        let old = grounds(FILE, &[]);
        let new = grounds(&FILE.replace("What is it?", "What kind is it?"), &[]);
        assert_eq!(
            told(&old, &new),
            ("changed steps: category; steps that need their answers: reply".into(), true)
        );
        let later = grounds(&FILE.replace("Answer this", "Reply to this"), &[]);
        assert_eq!(told(&old, &later), ("changed steps: reply".into(), true));
        assert_eq!(told(&old, &grounds(FILE, &[])), (String::new(), false));
    }

    #[test]
    fn what_does_not_shape_an_answer_is_no_change() {
        let old = grounds(FILE, &[]);
        let patient = FILE.replace("name = \"reply\"", "name = \"reply\"\ndeadline = \"1h\"\nreasks = 5");
        assert_eq!(told(&old, &grounds(&patient, &[])), (String::new(), false));
        for shaping in [
            "max_tokens = 7",
            "temperature = 0.5",
            "optional = true",
            "when = \"item.text\"",
            "choice = [\"A\", \"B\"]",
        ] {
            let new =
                grounds(&FILE.replace("name = \"reply\"", &format!("name = \"reply\"\n{shaping}")), &[]);
            assert_eq!(told(&old, &new).0, "changed steps: reply", "{shaping}");
        }
    }

    #[test]
    fn steps_that_come_and_go_are_told() {
        let old = grounds(FILE, &[]);
        let new = grounds(&FILE.replace("urgent", "pressing"), &[]);
        assert_eq!(told(&old, &new), ("new steps: pressing; steps that are gone: urgent".into(), true));
    }

    #[test]
    fn another_model_reaches_items_and_another_price_or_a_further_model_does_not() {
        let old = grounds(FILE, &[lane("claude/haiku", "haiku-4", Some(1.0))]);
        let dearer = grounds(FILE, &[lane("claude/haiku", "haiku-4", Some(2.0))]);
        assert_eq!(told(&old, &dearer), ("other prices: claude/haiku".into(), false));
        let more =
            grounds(FILE, &[lane("claude/haiku", "haiku-4", Some(1.0)), lane("gemini/flash", "flash", None)]);
        assert_eq!(told(&old, &more), ("new models: gemini/flash".into(), false));
        let newer = grounds(FILE, &[lane("claude/haiku", "haiku-5", Some(1.0))]);
        let said = "models that are asked no more: claude/haiku; new models: claude/haiku";
        assert_eq!(told(&old, &newer), (said.into(), true));
        let mut moved = lane("claude/haiku", "haiku-4", Some(1.0));
        moved.address = Some("http://127.0.0.1:8089".to_owned());
        assert_eq!(told(&old, &grounds(FILE, &[moved])), ("other addresses: claude/haiku".into(), false));
        let answers = BTreeMap::from([("category".into(), 7), ("reply".into(), 3)]);
        assert_eq!(old.changes(&newer).stay_valid(&answers, &old, &newer), 0);
        assert_eq!(old.changes(&dearer).stay_valid(&answers, &old, &dearer), 10);
        let renamed = grounds(FILE, &[lane("anthropic/small", "haiku-4", Some(1.0))]);
        assert_eq!(old.changes(&renamed).models_gone, []);
    }

    /// Two steps on a route each.
    fn routed(first: &str, second: &str, fast: &[LaneGround], good: &[LaneGround]) -> Grounds {
        let step = |name: &str, route: &str| {
            format!("[[step]]\nname = \"{name}\"\nroute = \"{route}\"\nprompt = \"x\"\n")
        };
        let text = format!("name = \"two\"\n{}{}", step("first", first), step("second", second));
        let routes = ["fast".into(), "good".into()];
        let pipeline = Pipeline::parse("p", &text, Path::new(""), &Defaults::default(), &routes).unwrap();
        Grounds::of(&pipeline, |route| if route.as_str() == "fast" { fast.to_vec() } else { good.to_vec() })
    }

    #[test]
    fn a_step_that_asks_other_models_is_noticed_although_other_steps_ask_the_old_ones() {
        let (small, large) = ([lane("a/small", "small", None)], [lane("b/large", "large", None)]);
        let old = routed("fast", "good", &small, &large);
        let said = "steps that ask other models: first, second";
        assert_eq!(told(&old, &routed("good", "fast", &small, &large)), (said.into(), true));
        let swapped = routed("fast", "good", &large, &small);
        assert_eq!(told(&old, &swapped), (said.into(), true));
        let gone = "models that are asked no more: a/small";
        assert_eq!(told(&old, &routed("good", "good", &small, &large)), (gone.into(), true));
        let answers = BTreeMap::from([("first".into(), 7), ("second".into(), 3)]);
        assert_eq!(old.changes(&swapped).stay_valid(&answers, &old, &swapped), 0);
    }

    #[test]
    fn the_same_models_by_another_way_are_told_and_reach_nothing() {
        let both = [lane("a/small", "small", None), lane("b/large", "large", None)];
        let turned = [both[1].clone(), both[0].clone()];
        let old = routed("fast", "fast", &both, &both);
        let said = "steps with other targets: first, second";
        assert_eq!(told(&old, &routed("fast", "fast", &turned, &both)), (said.into(), false));
        let moved = "steps with other targets: second";
        assert_eq!(told(&old, &routed("fast", "good", &both, &both)), (moved.into(), false));
    }

    #[test]
    fn only_changes_that_may_discard_answers_are_asked_about() {
        let first = [lane("claude/haiku", "haiku-4", Some(1.0))];
        let old = grounds(FILE, &first);
        let has = BTreeMap::from([("category".into(), 7), ("reply".into(), 3)]);
        let discards = |new: &Grounds, has: &BTreeMap<StepName, u64>| {
            let settled = has.values().copied().max().unwrap_or(0);
            old.changes(new).discard(has, settled, &old, new)
        };
        let more = format!("{FILE}[[step]]\nname = \"further\"\nprompt = \"And?\"\n");
        assert!(!discards(&grounds(&more, &first), &has), "a step that is added");
        assert!(!discards(&grounds(FILE, &[lane("claude/haiku", "haiku-4", Some(2.0))]), &has), "a price");
        let further = [first[0].clone(), lane("gemini/flash", "flash", None)];
        assert!(!discards(&grounds(FILE, &further), &has), "a further model");
        let urgent = grounds(&FILE.replace("Is it urgent?", "Is it really urgent?"), &first);
        assert!(!discards(&urgent, &has), "a step that has no answer yet");

        let changed = grounds(&FILE.replace("What is it?", "What kind is it?"), &first);
        assert!(discards(&changed, &has) && !discards(&changed, &BTreeMap::new()));
        assert!(discards(&grounds(FILE, &[lane("claude/haiku", "haiku-5", Some(1.0))]), &has), "a model");
        let schema = format!("{FILE}[input]\nschema = {{ type = \"object\" }}\n");
        assert!(discards(&grounds(&schema, &first), &has), "a schema that items may not fit");
    }

    #[test]
    fn it_is_read_as_it_was_written() {
        let grounds = grounds(FILE, &[lane("claude/haiku", "haiku-4", Some(0.1))]);
        let text = serde_json::to_string(&grounds).unwrap();
        assert_eq!(serde_json::from_str::<Grounds>(&text).unwrap(), grounds);
    }
}
