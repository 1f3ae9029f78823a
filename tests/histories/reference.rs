//! The reference: what is right in the output, from the rules alone.
//!
//! - A line carries the answers of its item's present fields, prompts and models. Step by step: a step whose condition is
//!   false is skipped; one that an answer is known of, by a model that is asked now, has that answer; any other was asked
//!   in this execution, and has what the provider said.
//! - An item that has settled, and whose fields and setup are as they were, keeps its line.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::outages::REFUSED;
use super::provider::{self, Call};
use super::world::{Item, STEPS, Setup, TARGETS};

/// A question of one step of one item, by the item's key.
pub(crate) type Asked = (String, String, String);

/// What one run has come to, as far as a user can know.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    pub(crate) number: u64,
    /// The setup that the user has accepted for it; several where a process ended before that was certain.
    pub(crate) accepted: Vec<Setup>,
    /// Every answer, by model and with the target that gave it. `true`: it is durable for certain.
    pub(crate) answers: BTreeMap<Asked, BTreeMap<(String, &'static str, &'static str), bool>>,
    /// Every failure of a question, by its class.
    pub(crate) failures: BTreeSet<(Asked, &'static str)>,
    pub(crate) settled: BTreeMap<String, Settled>,
}

/// An item that has settled.
#[derive(Debug, Clone)]
pub(crate) struct Settled {
    pub(crate) item: Item,
    pub(crate) setup: Setup,
    pub(crate) line: Value,
}

/// Everything that decides the answer to a step of `item`, without the model; `answers` are those of earlier steps.
pub(crate) fn question(setup: &Setup, item: &Item, step: usize, answers: &Map<String, Value>) -> String {
    let text = |name: &str| answers.get(name).and_then(Value::as_str).unwrap_or("-").to_owned();
    let rest = match step {
        0 => format!("t{}", item.text),
        1 => format!("g{}", item.tag),
        2 => String::new(),
        4 => format!("t{}", item.text),
        _ => format!("{}/{}/{}", text("first"), text("kind"), text("photo")),
    };
    let limit = if setup.limit > 0 { (100 + u32::from(setup.limit)).to_string() } else { "null".to_owned() };
    let choices = match step {
        1 => setup.choices(),
        4 => setup.property(),
        _ => "",
    };
    let attached = if step == 2 { STANDARD.encode(setup.picture(item.picture)) } else { String::new() };
    let name = STEPS[step];
    let variant = setup.prompts[step];
    format!("sys{}|{limit}|{choices}|{attached}|<{}/{name}/v{variant}/{rest}", setup.system, item.name())
}

impl Run {
    pub(crate) fn new(number: u64, accepted: Setup) -> Self {
        let accepted = vec![accepted];
        let answers = BTreeMap::new();
        let failures = BTreeSet::new();
        let settled = BTreeMap::new();
        Self { number, accepted, answers, failures, settled }
    }

    /// Takes down a line that is right: its answers are durable.
    pub(crate) fn settle(&mut self, key: &str, settled: Settled) {
        let mut answers = Map::new();
        for step in (0..STEPS.len()).filter(|step| settled.setup.has(*step)) {
            let name = STEPS[step];
            let got = &settled.line["steps"][name];
            let asked =
                (key.to_owned(), name.to_owned(), question(&settled.setup, &settled.item, step, &answers));
            if got["status"] != "completed" {
                continue;
            }
            answers.insert(name.to_owned(), settled.line["answers"][name].clone());
            let gave = |((model, provider, key), _): &(&(String, &str, &str), &mut bool)| {
                let is_target = got["provider"] == **provider && got["model"] == **key;
                is_target && settled.line["answers"][name] == provider::value(model, &asked.2)
            };
            let known = self.answers.get_mut(&asked).into_iter().flatten();
            let mut by: Vec<_> = known.filter(gave).collect();
            // A target whose model was exchanged may have given the same choice twice: then it is not certain which.
            if let [(_, durable)] = by.as_mut_slice() {
                **durable = true;
            }
        }
        self.settled.insert(key.to_owned(), settled);
    }

    /// Takes down what the provider said. `is_durable` decides about each answer.
    pub(crate) fn learn(
        &mut self,
        calls: &[(String, &Call)],
        setup: &Setup,
        is_durable: impl Fn(&Call) -> bool,
    ) {
        for (key, call) in calls {
            let asked = (key.clone(), call.step.clone(), call.question.clone());
            match &call.result {
                Some(Ok(_)) => {
                    let of_call = |target: &usize| {
                        TARGETS[*target].0 == call.provider && setup.model(*target) == call.model
                    };
                    let target = TARGETS[(0..TARGETS.len()).find(of_call).unwrap()];
                    let known = self.answers.entry(asked).or_default();
                    *known.entry((call.model.clone(), target.0, target.1)).or_default() |= is_durable(call);
                }
                // An outage is no failure of what was asked.
                Some(Err(REFUSED)) | None => {}
                Some(Err(class)) => {
                    self.failures.insert((asked, class));
                }
            }
        }
    }

    /// Returns the answers to a question that are valid now: by a model that the step asks now.
    pub(crate) fn valid(&self, setup: &Setup, step: usize, asked: &Asked) -> Vec<(&str, &str, &str, bool)> {
        let models: Vec<_> = setup.targets(step).iter().map(|target| setup.model(*target)).collect();
        let known = self.answers.get(asked).into_iter().flatten();
        known
            .filter(|((model, ..), _)| models.contains(model))
            .map(|((model, provider, key), durable)| (model.as_str(), *provider, *key, *durable))
            .collect()
    }

    /// Checks a line of an item that was worked on with `setup`.
    pub(crate) fn check(&self, setup: &Setup, item: &Item, line: &Value) -> Result<(), String> {
        let mut answers = Map::new();
        let mut failed = Vec::new();
        let mut unfinished = 0;
        if line["key"] != item.key() || line["practice"] == true || line["simulated"] == true {
            return Err(format!("the line of {} is marked wrongly", item.key()));
        }
        let names = line["steps"].as_object().into_iter().flatten().map(|(name, _)| name.as_str());
        let wanted = (0..STEPS.len()).filter(|step| setup.has(*step)).map(|step| STEPS[step]);
        if !names.eq(wanted) {
            return Err(format!("the steps of {} are not those of the pipeline", item.key()));
        }
        for step in (0..STEPS.len()).filter(|step| setup.has(*step)) {
            let name = STEPS[step];
            let got = &line["steps"][name];
            let shown = &line["answers"][name];
            let asked = (item.key(), name.to_owned(), question(setup, item, step, &answers));
            let valid = self.valid(setup, step, &asked);
            let wrong = |why: &str| Err(format!("{name} of {}: {why}", item.key()));
            let is_fatal = |step: &usize| *step != 2 || !setup.photo_is_optional;
            let misses = step == 3 && (failed.iter().any(is_fatal) || unfinished > 0);
            let is_skipped = step == 3 && !misses && answers["kind"] == setup.unwanted();
            let status = got["status"].as_str().unwrap_or_default();
            if (status == "skipped") != is_skipped {
                return wrong("skipped against its condition, or not skipped");
            }
            match status {
                "completed" if misses => return wrong("it has an answer although what it needs has none"),
                "completed" => {
                    let fits = |(model, provider, key, _): &(&str, &str, &str, bool)| {
                        *shown == provider::value(model, &asked.2)
                            && got["provider"] == *provider
                            && got["model"] == *key
                    };
                    if !valid.iter().any(fits) {
                        let right = valid.iter().map(|(model, provider, key, _)| {
                            format!("{} of {provider}/{key}", provider::value(model, &asked.2))
                        });
                        let right: Vec<_> = right.collect();
                        return wrong(&format!(
                            "the answer is not that of the present input; right: {right:?}"
                        ));
                    }
                    answers.insert(name.to_owned(), shown.clone());
                }
                "failed" => {
                    let class = got["error"]["class"].as_str().unwrap_or_default();
                    // One that was given just before a kill may be lost.
                    if valid.iter().any(|(.., durable)| *durable) {
                        return wrong("failed although a valid answer is known");
                    }
                    if !self.failures.iter().any(|(known, of)| *known == asked && *of == class) {
                        return wrong("failed, and the provider never failed this question so");
                    }
                    failed.push(step);
                }
                "unfinished" => unfinished += 1,
                _ => {}
            }
            if status != "completed" && !shown.is_null() {
                return wrong("an old answer stands although the step has none");
            }
        }
        let is_fatal = |step: &&usize| **step != 2 || !setup.photo_is_optional;
        let fatal: Vec<_> = failed.iter().filter(is_fatal).collect();
        let status = if fatal.is_empty() { "completed" } else { "failed" };
        let named = line["error"]["step"].as_str();
        let names_one = fatal.iter().any(|step| named == Some(STEPS[**step]));
        if line["status"] != status || (unfinished > 0 && fatal.is_empty()) || names_one == fatal.is_empty() {
            return Err(format!("{}: the status does not follow from the steps", item.key()));
        }
        Ok(())
    }
}

/// Returns what a line says, wherever its item is and whatever it took.
pub(crate) fn says(line: &Value) -> String {
    let steps = line["steps"].as_object().into_iter().flatten();
    let steps: Vec<_> = steps.map(|(name, _)| step_says(line, name)).collect();
    format!("{} {} {} {{{}}}", line["key"], line["status"], line["error"]["step"], steps.join(", "))
}

fn step_says(line: &Value, name: &str) -> String {
    let step = &line["steps"][name];
    let answer = &line["answers"][name];
    let class = &step["error"]["class"];
    format!("{name}: {} {answer} {class} {}/{}", step["status"], step["provider"], step["model"])
        .replace('"', "")
}

/// Returns whether `line` is the earlier `old`, with the steps that the pipeline has now: what is new was not reached.
pub(crate) fn keeps(old: &Value, line: &Value) -> bool {
    let is_kept = |name: &String| match old["steps"].get(name) {
        Some(_) => step_says(old, name) == step_says(line, name),
        None => line["steps"][name]["status"] == "unfinished" && line["answers"][name].is_null(),
    };
    let mut steps = line["steps"].as_object().into_iter().flatten();
    old["status"] == line["status"]
        && old["error"]["step"] == line["error"]["step"]
        && steps.all(|(name, _)| is_kept(name))
}
