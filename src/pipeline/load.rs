//! Turns the text of a pipeline into a [`Pipeline`], or into everything that is wrong with it.
//!
//! Goes on after a fault, so that one reading finds all.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::document::{Document, Fault, Faults, Places, nearest};
use crate::types::{Fingerprint, RouteName, Shape, StepName};

use super::Defaults;
use super::attach::Folders;
use super::check::Check;
use super::choice::Choices;
use super::compile::Compiler;
use super::definition::{Pipeline, Step};
use super::graph::Graph;
use super::mentions::Known;
use super::protected::{FileUse, ProtectedFiles};
use super::raw::{Raw, RawStep};
use super::schema::{Schema, json_of};
use super::template::Templates;

/// Words that mean something else inside a template.
const RESERVED: [&str; 22] = [
    "item",
    "true",
    "false",
    "none",
    "True",
    "False",
    "None",
    "and",
    "or",
    "not",
    "in",
    "is",
    "if",
    "else",
    "loop",
    "self",
    "range",
    "dict",
    "namespace",
    "debug",
    "varargs",
    "kwargs",
];

pub(super) fn parse(
    file: &str,
    text: &str,
    directory: &Path,
    below: &Defaults,
    routes: &[RouteName],
) -> Result<Pipeline, Faults> {
    let document = Document::parse(file, text)?;
    let places = document.places();
    let read = |item_is_text| {
        let (raw, faults) = document.read::<Raw>();
        let loader = Loader {
            document: &document,
            places: &places,
            directory,
            routes,
            below,
            faults,
            item_is_text,
            protected: ProtectedFiles::default(),
        };
        loader.pipeline(raw, Templates::new())
    };
    let mut pipeline = read(false)?;
    // Once more, for inputs whose fields are all texts.
    pipeline.for_csv = read(true).err().unwrap_or_default();
    Ok(pipeline)
}

/// Reads one pipeline and gathers its faults.
pub(super) struct Loader<'d> {
    pub(super) document: &'d Document,
    pub(super) places: &'d Places<'d>,
    directory: &'d Path,
    routes: &'d [RouteName],
    below: &'d Defaults,
    pub(super) faults: Faults,
    /// Whether every field of an item is a text, as from CSV.
    item_is_text: bool,
    /// The schema files that it names.
    protected: ProtectedFiles,
}

impl Loader<'_> {
    fn pipeline(mut self, raw: Raw, mut templates: Templates) -> Result<Pipeline, Faults> {
        let name = raw.name.unwrap_or_default();
        if name.trim().is_empty() && (!name.is_empty() || !self.places.has(&["name"])) {
            let fault = self.places.fault(&["name"], "the pipeline has no name");
            self.faults.push(fault.advise("add a line like name = \"email\" at the top"));
        }
        if raw.step.is_empty() && (self.faults.0.is_empty() || !self.places.has(&["step"])) {
            let fault = self.places.fault(&["step"], "the pipeline has no steps");
            self.faults.push(fault.advise("add a [[step]] with a name and a prompt"));
        }
        let input = raw.input.schema.and_then(|schema| self.schema(&["input", "schema"], schema));
        let names = self.names(&raw.step);
        let checks: Vec<Check> = raw.step.iter().enumerate().map(|(at, step)| self.check(at, step)).collect();
        let routes = self.routes(&raw.step, &raw.defaults, &names);

        let known = Known::new(&names, &checks, input.as_ref(), self.item_is_text);
        let defaults = raw.defaults.clone().over(self.below);
        let shared = self.default_system(&raw.defaults, &defaults, &known, &mut templates);
        let mut steps = Vec::with_capacity(raw.step.len());
        let mut needs = Vec::with_capacity(raw.step.len());
        for (at, raw) in raw.step.iter().enumerate() {
            let mut compiler =
                Compiler { loader: &mut self, known: &known, templates: &mut templates, at, needs: vec![] };
            let prompt = compiler.prompt(raw);
            let system = raw.system.as_deref().map(|system| compiler.filling(&["system"], system));
            let when = raw.when.as_deref().map(|when| compiler.condition(when));
            let attach = |(number, source): (usize, &String)| {
                compiler.filling(&["attach", &number.to_string()], source)
            };
            let attach = raw.attach.iter().enumerate().map(attach).collect();
            compiler.explicit_needs(&raw.needs);
            needs.push(compiler.needs);
            steps.push(Step {
                name: names[at].clone(),
                text: text_of(raw, &checks[at], &defaults),
                route: routes[at].clone(),
                optional: raw.optional,
                reasks: raw.reasks.or(defaults.reasks).unwrap_or(Defaults::REASKS),
                deadline: raw.deadline.or(defaults.deadline).unwrap_or(Defaults::DEADLINE),
                max_tokens: raw.max_tokens.or(defaults.max_tokens).map(Into::into),
                temperature: raw.temperature.or(defaults.temperature).map(super::Temperature::get),
                max_prompt_bytes: defaults.max_prompt_bytes(),
                check: checks[at].clone(),
                prompt,
                system: system.or_else(|| shared.clone()),
                when,
                attach,
            });
        }
        let graph = self.graph(needs, &names);
        let attached = raw.step.iter().flat_map(|step| &step.attach);
        let folders = Folders::only(self.directory).with_hosts_of(attached.map(String::as_str));
        let text = self.document.text().into();
        let names = names.into();
        self.faults.or(Pipeline {
            name: name.into(),
            text,
            folders,
            protected: self.protected,
            names,
            steps,
            graph,
            templates,
            input,
            for_csv: Faults::default(),
        })
    }

    fn names(&mut self, steps: &[RawStep]) -> Vec<StepName> {
        let mut seen: HashMap<&str, usize> = HashMap::new();
        for (at, step) in steps.iter().enumerate() {
            let Some(name) = step.name.as_deref() else {
                if !self.places.has(&["step", &at.to_string(), "name"]) {
                    let message = format!("step {} has no name", at + 1);
                    self.step_fault(
                        at,
                        &["name"],
                        message,
                        "add name = \"..\"; templates call its answer by it",
                    );
                }
                continue;
            };
            if let Some(advice) = misnamed(name) {
                self.step_fault(at, &["name"], format!("a step cannot be called {name:?}"), advice);
            } else if let Some(first) = seen.get(name) {
                let message = format!("step {} is called `{name}` like step {}", at + 1, first + 1);
                self.step_fault(at, &["name"], message, "give every step a name of its own");
            } else {
                seen.insert(name, at);
            }
        }
        let name = |(at, step): (usize, &RawStep)| match &step.name {
            Some(name) => StepName::from(name.as_str()),
            // No template can name it: it is no identifier.
            None => StepName::from(format!("step {}", at + 1)),
        };
        steps.iter().enumerate().map(name).collect()
    }

    fn check(&mut self, at: usize, step: &RawStep) -> Check {
        if step.choice.is_some() && step.schema.is_some() {
            self.step_fault(
                at,
                &["schema"],
                "a step has `choice` or `schema`, not both",
                "take one of them out",
            );
        }
        if let Some(given) = &step.choice {
            if given.is_empty() {
                self.step_fault(
                    at,
                    &["choice"],
                    "there is nothing to choose from",
                    "add at least two choices",
                );
            }
            for (number, _) in given.iter().enumerate().filter(|(_, choice)| choice.trim().is_empty()) {
                let path = ["choice", &number.to_string()];
                self.step_fault(
                    at,
                    &path,
                    "a choice is empty",
                    "give it a name that a model can answer with",
                );
            }
            let choices = Choices::new(given.clone());
            for (second, first) in choices.twins() {
                let message = format!("{:?} cannot be told from {:?}", given[second], given[first]);
                let advice = "case and marks around a choice do not count; take one of them out";
                self.step_fault(at, &["choice", &second.to_string()], message, advice);
            }
            return Check::Choice(choices);
        }
        let path = ["step", &at.to_string(), "schema"];
        let schema = step.schema.clone().and_then(|schema| self.schema(&path, schema));
        schema.map_or(Check::Text, Check::Json)
    }

    /// Reads a schema that is written out, or the file that it names.
    fn schema(&mut self, path: &[&str], schema: toml::Value) -> Option<Schema> {
        let read = match schema {
            toml::Value::Table(_) => Ok(json_of(schema)),
            toml::Value::String(file) => {
                let file = self.directory.join(file);
                self.protected.add(FileUse::Pipeline, &file);
                read_json(&file)
            }
            _ => Err("a schema is a table, or the path of a .json file".to_owned()),
        };
        let compiled =
            read.and_then(|json| Schema::new(json).map_err(|why| format!("this is no JSON Schema: {why}")));
        compiled.map_err(|why| self.faults.push(self.places.fault(path, why))).ok()
    }

    /// Finds who answers each step. A route that is missing or unknown is a fault; the name that
    /// stands in for it is never used.
    fn routes(&mut self, steps: &[RawStep], defaults: &Defaults, names: &[StepName]) -> Vec<RouteName> {
        let advice = match self.routes {
            [] => "no route is configured: add a [route.NAME] to the configuration".to_owned(),
            known => format!("configured are {}", listed(known.iter().map(RouteName::as_str))),
        };
        if let Some(route) = &defaults.route {
            self.known_route(&["defaults", "route"], route, &advice);
        } else if let Some(route) = self.below.route.as_ref().filter(|route| !self.routes.contains(route)) {
            let message = format!("the configuration's default route `{route}` is unknown");
            self.faults.push(Fault::new(message).advise(&advice));
        }
        let only = if let [only] = self.routes { Some(only) } else { None };
        let default = defaults.route.as_ref().or(self.below.route.as_ref()).or(only).cloned();
        let mut without = Vec::new();
        let mut routes = Vec::with_capacity(steps.len());
        for (at, step) in steps.iter().enumerate() {
            if let Some(route) = &step.route {
                self.known_route(&["step", &at.to_string(), "route"], route, &advice);
            } else if default.is_none() && !self.places.has(&["step", &at.to_string(), "route"]) {
                without.push(at);
            }
            routes
                .push(step.route.clone().or_else(|| default.clone()).unwrap_or_else(|| RouteName::from("")));
        }
        if let [first, ..] = without[..] {
            let who = listed(without.iter().map(|at| names[*at].as_str()));
            let message = format!("nobody is named to answer {who}");
            self.step_fault(first, &[], message, &format!("set `route` there or in [defaults]; {advice}"));
        }
        routes
    }

    fn known_route(&mut self, path: &[&str], route: &RouteName, advice: &str) {
        if !self.routes.contains(route) {
            let fault = self.places.fault(path, format!("unknown route `{route}`"));
            let meant = nearest(route.as_str(), self.routes.iter().map(RouteName::as_str));
            self.faults.push(fault.advise(match meant {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => advice.to_owned(),
            }));
        }
    }

    fn graph(&mut self, needs: Vec<Vec<usize>>, names: &[StepName]) -> Graph {
        let cycles = match Graph::new(needs) {
            Ok(graph) => return graph,
            Err(cycles) => cycles,
        };
        for cycle in cycles {
            let round = cycle.iter().chain(cycle.first()).map(|step| names[*step].as_str());
            let round = round.collect::<Vec<_>>().join(" → ");
            let message = match cycle.len() {
                1 => format!("a step cannot need its own answer: {round}"),
                _ => format!("steps wait for each other: {round}"),
            };
            let advice =
                "a step needs what its templates, its `when` and its `needs` mention; take one mention out";
            self.step_fault(cycle.first().copied().unwrap_or_default(), &["name"], message, advice);
        }
        Graph::default()
    }

    pub(super) fn step_fault(&mut self, at: usize, keys: &[&str], message: impl Into<String>, advice: &str) {
        let at = at.to_string();
        let path = [&["step", at.as_str()], keys].concat();
        self.faults.push(self.places.fault(&path, message).advise(advice));
    }
}

/// Returns the fingerprint of all that shapes a step's answers, or decides whether it is asked. Not how long it
/// may take or how often it is asked again: an answer that was accepted is none the worse for that.
fn text_of(step: &RawStep, check: &Check, defaults: &Defaults) -> Fingerprint {
    let check = match check.shape() {
        Shape::Text => Value::Null,
        Shape::Choice(choices) => choices.iter().map(String::as_str).collect(),
        Shape::Json(schema) => Value::clone(&schema),
    };
    let system = step.system.as_deref().or(defaults.system.as_deref());
    let max_tokens = step.max_tokens.or(defaults.max_tokens);
    let temperature = step.temperature.or(defaults.temperature).map(super::Temperature::get);
    let said =
        json!([step.prompt, system, check, step.when, step.attach, max_tokens, temperature, step.optional]);
    Fingerprint::of([said.to_string().as_bytes()])
}

/// Returns what is wrong with a step's name.
fn misnamed(name: &str) -> Option<&'static str> {
    let is_word = name.chars().all(|letter| letter == '_' || letter.is_ascii_alphanumeric());
    if !is_word || name.starts_with(|first: char| first.is_ascii_digit()) || name.is_empty() {
        return Some("use letters, digits and `_`, and no digit first: templates call its answer by it");
    }
    RESERVED.contains(&name).then_some("the word means something else inside a template; choose another")
}

fn read_json(path: &Path) -> Result<Value, String> {
    let text =
        fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    serde_json::from_str(&text).map_err(|error| format!("{} is no JSON: {error}", path.display()))
}

pub(super) fn listed<'n>(names: impl Iterator<Item = &'n str>) -> String {
    names.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}
