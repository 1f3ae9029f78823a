//! The reference: computes the right output from the rules alone.
//!
//! - A line has the answers for the current fields, prompts and models of its item. A step whose condition is
//!   false is skipped. A step with a stored answer, by a model of its current route, has that answer. For any
//!   other step a request was sent during this command, and the step has the answer of the provider.
//! - A finished item whose fields and setup are unchanged keeps its line.
//! - If runs share answers, an answer of an earlier run counts as stored, unless the run was started with `--new` or only
//!   failed items are retried.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::outages::OUTAGE_RESULT;
use super::provider::{self, LoggedRequest};
use super::setup::{Item, STEPS, Setup, TARGETS};

/// A request of a step: the key of the item, the name of the step, and the request content.
pub(crate) type StepRequest = (String, String, String);

/// The expected state of a run, as far as a user can know it.
#[derive(Debug, Clone)]
pub(crate) struct ExpectedRun {
    pub(crate) number: u64,
    /// The accepted setup of the run. Several setups if a process ended before it was certain which is stored.
    pub(crate) accepted: Vec<Setup>,
    /// Every answer, by model and target. `true`: it is certainly durable.
    pub(crate) answers: BTreeMap<StepRequest, BTreeMap<(String, &'static str, &'static str), bool>>,
    /// Every failed request, with its class.
    pub(crate) failures: BTreeSet<(StepRequest, &'static str)>,
    pub(crate) finished_items: BTreeMap<String, FinishedItem>,
    /// Whether `--new` began it, so that it sends every request.
    pub(crate) is_fresh: bool,
    /// The answers of all runs, if they share them.
    pub(crate) shared: SharedAnswers,
}

/// Answers of all runs by their request, and by their model and provider. `true`: it is certainly durable.
pub(crate) type SharedAnswers = BTreeMap<StepRequest, BTreeMap<(String, &'static str), bool>>;

/// A finished item.
#[derive(Debug, Clone)]
pub(crate) struct FinishedItem {
    pub(crate) item: Item,
    pub(crate) setup: Setup,
    pub(crate) line: Value,
}

/// Returns everything that determines the answer to a step of `item`, except the model. `answers` are those
/// of earlier steps.
pub(crate) fn request_content(
    setup: &Setup,
    item: &Item,
    step: usize,
    answers: &Map<String, Value>,
) -> String {
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
    let attachments = if step == 2 { STANDARD.encode(setup.picture(item.picture)) } else { String::new() };
    let name = STEPS[step];
    let variant = setup.prompts[step];
    format!("sys{}|{limit}|{choices}|{attachments}|<{}/{name}/v{variant}/{rest}", setup.system, item.name())
}

impl ExpectedRun {
    pub(crate) fn new(number: u64, accepted: Setup, is_fresh: bool, shared: SharedAnswers) -> Self {
        let accepted = vec![accepted];
        let answers = BTreeMap::new();
        let failures = BTreeSet::new();
        let finished_items = BTreeMap::new();
        Self { number, accepted, answers, failures, finished_items, is_fresh, shared }
    }

    /// Records a line that is right: its answers are durable.
    pub(crate) fn record_finished(&mut self, key: &str, finished: FinishedItem) {
        let mut answers = Map::new();
        for step in (0..STEPS.len()).filter(|step| finished.setup.has(*step)) {
            let name = STEPS[step];
            let got = &finished.line["steps"][name];
            let step_request = (
                key.to_owned(),
                name.to_owned(),
                request_content(&finished.setup, &finished.item, step, &answers),
            );
            if got["status"] != "completed" {
                continue;
            }
            answers.insert(name.to_owned(), finished.line["answers"][name].clone());
            let is_source = |((model, provider, key), _): &(&(String, &str, &str), &mut bool)| {
                let is_target = got["provider"] == **provider && got["model"] == **key;
                is_target && finished.line["answers"][name] == provider::answer_value(model, &step_request.2)
            };
            let known = self.answers.get_mut(&step_request).into_iter().flatten();
            let mut sources: Vec<_> = known.filter(is_source).collect();
            // A target whose model was changed may have given the same choice with both models. Then the
            // source is uncertain.
            if let [(_, durable)] = sources.as_mut_slice() {
                **durable = true;
            }
        }
        self.finished_items.insert(key.to_owned(), finished);
    }

    /// Records the results of requests. `is_durable` returns whether an answer is durable.
    pub(crate) fn record_requests(
        &mut self,
        requests: &[(String, &LoggedRequest)],
        setup: &Setup,
        is_durable: impl Fn(&LoggedRequest) -> bool,
    ) {
        for (key, request) in requests {
            let step_request = (key.clone(), request.step.clone(), request.content.clone());
            match &request.result {
                Some(Ok(_)) => {
                    let was_sent_to = |target: &usize| {
                        TARGETS[*target].0 == request.provider && setup.model(*target) == request.model
                    };
                    let target = TARGETS[(0..TARGETS.len()).find(was_sent_to).unwrap()];
                    let known = self.answers.entry(step_request).or_default();
                    *known.entry((request.model.clone(), target.0, target.1)).or_default() |=
                        is_durable(request);
                }
                // A refusal by an outage is not a failure of the request.
                Some(Err(OUTAGE_RESULT)) | None => {}
                Some(Err(class)) => {
                    self.failures.insert((step_request, class));
                }
            }
        }
    }

    /// Returns the stored answers of a request that are valid now: those by a model of the current route of
    /// the step.
    pub(crate) fn valid_answers(
        &self,
        setup: &Setup,
        step: usize,
        step_request: &StepRequest,
    ) -> Vec<(&str, &str, &str, bool)> {
        let models: Vec<_> = setup.targets(step).iter().map(|target| setup.model(*target)).collect();
        let known = self.answers.get(step_request).into_iter().flatten();
        known
            .filter(|((model, ..), _)| models.contains(model))
            .map(|((model, provider, key), durable)| (model.as_str(), *provider, *key, *durable))
            .collect()
    }

    /// Returns the answers of all runs to a request that are valid now, each with the target of the route that would give
    /// it now. Another address has other answers.
    pub(crate) fn valid_shared_answers(
        &self,
        setup: &Setup,
        step: usize,
        step_request: &StepRequest,
    ) -> Vec<(String, &str, &str, bool)> {
        let known = self.shared.get(step_request);
        let of_target = |target: &usize| {
            let (provider, key) = TARGETS[*target];
            let model = setup.model(*target);
            let durable = *known?.get(&(model.clone(), provider))?;
            Some((model, provider, key, durable))
        };
        setup.targets(step).iter().filter_map(of_target).collect()
    }

    /// Adds its answers to those of all runs.
    pub(crate) fn share_answers(&mut self) {
        for (step_request, answers) in &self.answers {
            let shared = self.shared.entry(step_request.clone()).or_default();
            for ((model, provider, _), durable) in answers {
                *shared.entry((model.clone(), provider)).or_default() |= durable;
            }
        }
    }

    /// Checks the line of an item that was processed with `setup`.
    pub(crate) fn check_line(&self, setup: &Setup, item: &Item, line: &Value) -> Result<(), String> {
        let mut answers = Map::new();
        let mut failed = Vec::new();
        let mut unfinished = 0;
        if line["key"] != item.key() || line["simulated"] == true {
            return Err(format!("the line of {} has a wrong key or is marked as simulated", item.key()));
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
            let step_request = (item.key(), name.to_owned(), request_content(setup, item, step, &answers));
            let valid = self.valid_answers(setup, step, &step_request);
            let wrong = |reason: &str| Err(format!("{name} of {}: {reason}", item.key()));
            let is_fatal = |step: &usize| *step != 2 || !setup.photo_is_optional;
            let lacks_dependency = step == 3 && (failed.iter().any(is_fatal) || unfinished > 0);
            let is_skipped = step == 3 && !lacks_dependency && answers["kind"] == setup.skipped_kind();
            let status = got["status"].as_str().unwrap_or_default();
            if (status == "skipped") != is_skipped {
                return wrong("skipped, or not skipped, against its condition");
            }
            match status {
                "completed" if lacks_dependency => {
                    return wrong("it has an answer although a step it depends on has none");
                }
                "completed" => {
                    let matches = |(model, provider, key, _): &(&str, &str, &str, bool)| {
                        *shown == provider::answer_value(model, &step_request.2)
                            && got["provider"] == *provider
                            && got["model"] == *key
                    };
                    let shared = self.valid_shared_answers(setup, step, &step_request);
                    let shared = shared
                        .iter()
                        .map(|(model, provider, key, durable)| (&**model, *provider, *key, *durable));
                    if !valid.iter().any(matches) && !shared.clone().any(|answer| matches(&answer)) {
                        let expected =
                            valid.iter().copied().chain(shared).map(|(model, provider, key, _)| {
                                format!(
                                    "{} of {provider}/{key}",
                                    provider::answer_value(model, &step_request.2)
                                )
                            });
                        let expected: Vec<_> = expected.collect();
                        return wrong(&format!(
                            "the answer is not that of the current input; expected: {expected:?}"
                        ));
                    }
                    answers.insert(name.to_owned(), shown.clone());
                }
                "failed" => {
                    let class = got["error"]["class"].as_str().unwrap_or_default();
                    // An answer that arrived just before a kill may be lost.
                    if valid.iter().any(|(.., durable)| *durable) {
                        return wrong("failed although a valid answer is stored");
                    }
                    if !self
                        .failures
                        .iter()
                        .any(|(failed, failed_class)| *failed == step_request && *failed_class == class)
                    {
                        return wrong("failed, but the provider never sent this failure for the request");
                    }
                    failed.push(step);
                }
                "unfinished" => unfinished += 1,
                _ => {}
            }
            if status != "completed" && !shown.is_null() {
                return wrong("an old answer is shown although the step has none");
            }
        }
        let is_fatal = |step: &&usize| **step != 2 || !setup.photo_is_optional;
        let fatal: Vec<_> = failed.iter().filter(is_fatal).collect();
        let status = if fatal.is_empty() { "completed" } else { "failed" };
        let error_step = line["error"]["step"].as_str();
        let names_fatal_step = fatal.iter().any(|step| error_step == Some(STEPS[**step]));
        if line["status"] != status
            || (unfinished > 0 && fatal.is_empty())
            || names_fatal_step == fatal.is_empty()
        {
            return Err(format!("{}: the status does not follow from the steps", item.key()));
        }
        Ok(())
    }
}

/// Summarizes a line without its line number, costs and times.
pub(crate) fn line_summary(line: &Value) -> String {
    let steps = line["steps"].as_object().into_iter().flatten();
    let steps: Vec<_> = steps.map(|(name, _)| step_summary(line, name)).collect();
    format!("{} {} {} {{{}}}", line["key"], line["status"], line["error"]["step"], steps.join(", "))
}

fn step_summary(line: &Value, name: &str) -> String {
    let step = &line["steps"][name];
    let answer = &line["answers"][name];
    let class = &step["error"]["class"];
    format!("{name}: {} {answer} {class} {}/{}", step["status"], step["provider"], step["model"])
        .replace('"', "")
}

/// Returns whether `line` equals the earlier `old` for the current steps of the pipeline. New steps are
/// unfinished.
pub(crate) fn is_unchanged(old: &Value, line: &Value) -> bool {
    let is_same = |name: &String| match old["steps"].get(name) {
        Some(_) => step_summary(old, name) == step_summary(line, name),
        None => line["steps"][name]["status"] == "unfinished" && line["answers"][name].is_null(),
    };
    let mut steps = line["steps"].as_object().into_iter().flatten();
    old["status"] == line["status"]
        && old["error"]["step"] == line["error"]["step"]
        && steps.all(|(name, _)| is_same(name))
}
