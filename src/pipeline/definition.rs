//! A pipeline as it is used: steps with everything looked up, compiled and checked.
//!
//! Holds nothing of any one item.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::document::{Fault, Faults};
use crate::types::{Fingerprint, Origin, RouteName, Shape, StepName};

use super::Defaults;
use super::attach::Folders;
use super::check::Check;
use super::graph::Graph;
use super::load;
use super::protected::{FileUse, ProtectedFiles};
use super::schema::Schema;
use super::template::Templates;

/// What to do with each item.
#[derive(Debug)]
pub struct Pipeline {
    pub(crate) name: Arc<str>,
    pub(crate) text: Arc<str>,
    pub(crate) folders: Folders,
    /// Its own file, the schema files that it names, and what its run is known to use.
    pub(crate) protected: ProtectedFiles,
    pub(crate) names: Arc<[StepName]>,
    pub(crate) steps: Vec<Step>,
    pub(super) graph: Graph,
    pub(crate) templates: Templates,
    pub(super) input: Option<Schema>,
    /// What is wrong with it where every field of an item is a text.
    pub(crate) for_csv: Faults,
}

impl Pipeline {
    /// Reads a pipeline from its file, and the schema files beside it.
    ///
    /// `defaults` are those of the configuration; `routes` are all that it knows.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn load(path: &Path, defaults: &Defaults, routes: &[RouteName]) -> Result<Self, Faults> {
        let file = path.display().to_string();
        let text = std::fs::read_to_string(path)
            .map_err(|error| Faults(vec![Fault::new(format!("cannot read the pipeline {file}: {error}"))]))?;
        let mut pipeline =
            Self::parse(&file, &text, path.parent().unwrap_or(Path::new("")), defaults, routes)?;
        pipeline.protect(FileUse::Pipeline, path);
        Ok(pipeline)
    }

    /// Reads a pipeline from its text. `file` is what faults call it; schema files and attachments
    /// are found from `directory`.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn parse(
        file: &str,
        text: &str,
        directory: &Path,
        defaults: &Defaults,
        routes: &[RouteName],
    ) -> Result<Self, Faults> {
        load::parse(file, text, directory, defaults, routes)
    }

    /// Returns the pipeline's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns its text, as it was read.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Returns the directory that attachments are found from.
    pub fn directory(&self) -> &Path {
        &self.folders.own
    }

    /// Allows attachments from these folders, besides the pipeline's own directory.
    #[must_use]
    pub fn with_allowed_folders(mut self, folders: &[PathBuf]) -> Self {
        self.folders.allowed = folders.into();
        self
    }

    /// Allows attachments by address at these hosts, besides those that its `attach` templates write themselves.
    #[must_use]
    pub fn with_allowed_hosts(mut self, hosts: &[Origin]) -> Self {
        self.folders.hosts = self.folders.hosts.iter().chain(hosts).cloned().collect();
        self
    }

    /// Says that the program uses the file at `path`, so that no item may attach it. A run protects what it knows
    /// itself: the files of the configuration's keys, of the store, and of its input and output.
    pub fn protect(&mut self, used_as: FileUse, path: &Path) {
        self.protected.add(used_as, path);
    }

    /// Returns the files that no item may attach, as far as the pipeline knows them.
    pub(crate) fn protected(&self) -> &ProtectedFiles {
        &self.protected
    }

    /// Returns the steps in the order of the file.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// Returns the routes that its steps are asked on; one may come several times.
    pub fn routes(&self) -> impl Iterator<Item = &RouteName> {
        self.steps.iter().map(|step| &step.route)
    }

    /// Returns whether any step attaches something to its prompt.
    pub fn attaches(&self) -> bool {
        self.steps.iter().any(|step| !step.attach.is_empty())
    }

    /// Returns the places of the steps that the step at place `step` waits for.
    pub fn needs(&self, step: usize) -> &[usize] {
        self.graph.needs(step)
    }

    /// Checks the text of a model against what a step asked for.
    ///
    /// # Errors
    /// Why it is not accepted, in words for the model.
    pub(crate) fn check_answer(&self, step: usize, text: &str) -> Result<Value, String> {
        match self.steps.get(step) {
            Some(step) => step.check.accept(text),
            None => Err("there is no such step".to_owned()),
        }
    }

    /// Returns whether checking an answer is short enough for an actor's thread.
    pub(crate) fn is_quick_answer(&self, step: usize, text: &str) -> bool {
        self.steps.get(step).is_none_or(|step| step.check.is_quick(text))
    }

    /// Returns what is wrong with the pipeline for items from CSV, whose fields are all texts: comparisons with
    /// numbers.
    pub fn csv_faults(&self) -> &Faults {
        &self.for_csv
    }

    /// Checks an item against the pipeline's `[input] schema`, before it costs anything.
    ///
    /// # Errors
    /// Everything that is wrong with it, in words.
    pub fn validate_item(&self, item: &Value) -> Result<(), String> {
        match &self.input {
            Some(schema) => schema.check(item),
            None => Ok(()),
        }
    }
}

/// One question that an item is asked.
#[derive(Debug)]
pub struct Step {
    /// What templates call its answer.
    pub name: StepName,
    /// The fingerprint of all that shapes its answers, or decides whether it is asked.
    pub text: Fingerprint,
    /// Who answers.
    pub route: RouteName,
    /// Whether the item goes on without it when it fails.
    pub optional: bool,
    /// How many times an answer that fails its check is asked for again.
    pub reasks: u32,
    /// How long it may take, waiting and every attempt included.
    pub deadline: Duration,
    /// Most tokens the answer may have.
    pub max_tokens: Option<u32>,
    /// Sampling temperature.
    pub temperature: Option<f64>,
    /// Bytes that its rendered texts may have together.
    pub(crate) max_prompt_bytes: usize,
    pub(super) check: Check,
    pub(crate) prompt: Filling,
    pub(crate) system: Option<Filling>,
    pub(crate) when: Option<Box<str>>,
    pub(crate) attach: Vec<Filling>,
}

impl Pipeline {
    /// Returns how many questions an item has if no answer fails; `None` where conditions decide that.
    pub(crate) fn questions_per_item(&self) -> Option<u64> {
        let always = self.steps().iter().all(|step| step.when.is_none());
        always.then(|| self.steps().len() as u64)
    }

    /// Returns how many requests an item has at once at most: the size of the widest set of steps of which none needs
    /// another, be it through others.
    pub(crate) fn width(&self) -> usize {
        self.graph.width().max(1)
    }
}

impl Step {
    /// Returns what its answer must look like.
    pub fn shape(&self) -> Shape {
        self.check.shape()
    }
}

/// A text that is the same for every item, or the name of a template.
#[derive(Debug, Clone)]
pub(crate) enum Filling {
    Fixed(Arc<str>),
    Template(Box<str>),
}

impl Filling {
    /// Makes one of a template's source; `name` is what the templates call it.
    pub(crate) fn new(name: &str, source: &str) -> Self {
        if ["{{", "{%", "{#"].iter().any(|open| source.contains(open)) {
            return Self::Template(name.into());
        }
        // Templates leave out the newline that ends them; so does a text that is none.
        let text = source.strip_suffix('\n').unwrap_or(source);
        Self::Fixed(text.strip_suffix('\r').unwrap_or(text).into())
    }
}
