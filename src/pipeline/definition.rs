//! A pipeline with all names resolved, templates compiled and schemas checked.
//!
//! Contains no data of items.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::diagnostics::Diagnostics;
use crate::files::protected::{FileUse, ProtectedFiles};
use crate::source::FileSelection;
use crate::types::{EmbeddingOptions, Fingerprint, Origin, ResponseFormat, RouteName, StepName};

use super::answer_settings::AnswerSettings;
use super::attach::AttachmentSources;
use super::graph::Graph;
use super::schema::Schema;
use super::shared_prefix::StepPrefix;
use super::template::Templates;
use super::validate::AnswerValidator;

/// How many items in flight fill a joined request for embeddings well. More would need more memory and save little.
const EMBEDDINGS_PER_CALL: usize = 50;

/// A pipeline: the steps to run for each item.
#[derive(Debug)]
pub struct Pipeline {
    pub(crate) name: Arc<str>,
    pub(crate) text: Arc<str>,
    pub(crate) attachment_sources: AttachmentSources,
    /// Files that items must not attach: the pipeline file, its schema files, and those added by
    /// [`Self::protect`].
    pub(crate) protected: ProtectedFiles,
    pub(crate) names: Arc<[StepName]>,
    pub(crate) steps: Vec<Step>,
    pub(super) graph: Graph,
    pub(crate) templates: Templates,
    pub(super) input: Option<Schema>,
    /// Errors if all fields of an item are texts, as in CSV.
    pub(crate) csv_diagnostics: Diagnostics,
}

impl Pipeline {
    /// Returns the pipeline's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the text of the pipeline file.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Returns the directory that attachment paths are relative to.
    #[doc(hidden)]
    pub fn directory(&self) -> &Path {
        &self.attachment_sources.directory
    }

    /// Allows attachments from these folders, besides the pipeline's directory.
    #[must_use]
    #[doc(hidden)]
    pub fn with_allowed_folders(mut self, folders: &[PathBuf]) -> Self {
        self.attachment_sources.allowed_folders = folders.into();
        self
    }

    /// Allows attachments of the files that are the items of a run, besides the pipeline's directory.
    #[doc(hidden)]
    pub fn attach_from(&mut self, items: FileSelection) {
        self.attachment_sources.item_files = Some(items.into());
    }

    /// Allows attachments by URL from these hosts, besides those that are literals in `attach` templates.
    #[must_use]
    #[doc(hidden)]
    pub fn with_allowed_hosts(mut self, hosts: &[Origin]) -> Self {
        self.attachment_sources.allowed_hosts =
            self.attachment_sources.allowed_hosts.iter().chain(hosts).cloned().collect();
        self
    }

    /// Forbids items to attach the file at `path`, because the program uses it. A run itself protects the files of
    /// keys, of the store, and of its input and output.
    #[doc(hidden)]
    pub fn protect(&mut self, used_as: FileUse, path: &Path) {
        self.protected.add(used_as, path);
    }

    /// Returns the files that items must not attach, without those that the run adds.
    pub(crate) fn protected(&self) -> &ProtectedFiles {
        &self.protected
    }

    /// Returns the steps in the order of the file.
    #[doc(hidden)]
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// Returns the route of each step; a route may occur several times.
    pub fn routes(&self) -> impl Iterator<Item = &RouteName> {
        self.steps.iter().map(|step| &step.route)
    }

    /// Returns whether any step has attachments.
    #[doc(hidden)]
    pub fn has_attachments(&self) -> bool {
        self.steps.iter().any(|step| !step.attachments.is_empty())
    }

    /// Returns the indices of the steps whose answers the step with index `step` needs.
    #[doc(hidden)]
    pub fn needs(&self, step: usize) -> &[usize] {
        self.graph.needs(step)
    }

    /// Returns how many requests an item needs if none is repeated; `None` if conditions decide that.
    pub(crate) fn requests_per_item(&self) -> Option<u64> {
        let is_unconditional = self.steps().iter().all(|step| step.condition.is_none());
        is_unconditional.then(|| self.steps().len() as u64)
    }

    /// Returns how many items should be in flight for each call: more than one if all steps embed, because requests
    /// for embeddings are joined.
    pub(crate) fn items_per_call(&self) -> usize {
        if self.steps.iter().all(|step| step.embedding.is_some()) { EMBEDDINGS_PER_CALL } else { 1 }
    }

    /// Returns how many requests an item can have at once: the size of the largest set of steps that do not need
    /// each other, directly or through other steps.
    pub(crate) fn max_parallel_steps(&self) -> usize {
        self.graph.width().max(1)
    }

    /// Validates a response to a step and returns the answer in it.
    ///
    /// # Errors
    /// Why it is invalid, in words for the model.
    pub(crate) fn validate_response(&self, step: usize, text: &str) -> Result<Value, String> {
        match self.steps.get(step) {
            Some(step) => step.validator.validate(text),
            None => Err("there is no such step".to_owned()),
        }
    }

    /// Returns whether validating a response is fast enough for an actor's thread.
    pub(crate) fn is_quick_to_validate(&self, step: usize, text: &str) -> bool {
        self.steps.get(step).is_none_or(|step| step.validator.is_quick(text))
    }

    /// Returns the errors of the pipeline for items from CSV, whose fields are all texts: comparisons with
    /// numbers.
    #[doc(hidden)]
    pub fn csv_diagnostics(&self) -> &Diagnostics {
        &self.csv_diagnostics
    }

    /// Checks an item against the pipeline's `[input] schema`, before any request is sent for it.
    ///
    /// # Errors
    /// The first errors of the item, in words.
    #[doc(hidden)]
    pub fn validate_item(&self, item: &Value) -> Result<(), String> {
        match &self.input {
            Some(schema) => schema.check(item),
            None => Ok(()),
        }
    }
}

/// One step of a pipeline: a request for each item.
#[derive(Debug)]
pub struct Step {
    /// The name of the step, by which templates reference its answer.
    pub name: StepName,
    /// The fingerprint of everything that affects its answers or decides whether it is skipped.
    pub fingerprint: Fingerprint,
    /// The route of its requests.
    pub route: RouteName,
    /// Whether the item continues without an answer if the step fails.
    pub optional: bool,
    /// How many times the request is repeated after an invalid response.
    pub max_validation_retries: u32,
    /// How long it may take, including queueing and all attempts.
    pub deadline: Duration,
    /// Maximum number of output tokens.
    pub max_tokens: Option<u32>,
    /// Sampling temperature.
    pub temperature: Option<f64>,
    /// The other settings that shape its answer.
    pub settings: AnswerSettings,
    /// The options of its requests for embeddings; `None` if it asks for an answer.
    pub embedding: Option<EmbeddingOptions>,
    /// Longest rendered prompt, in bytes, including the system prompt.
    pub(crate) max_prompt_bytes: usize,
    pub(super) validator: AnswerValidator,
    pub(crate) prompt: TextTemplate,
    pub(crate) system: Option<TextTemplate>,
    pub(crate) condition: Option<Box<str>>,
    pub(crate) attachments: Vec<TextTemplate>,
    /// The beginning that its requests share; `None` if it is not cached.
    pub(crate) shared_prefix: Option<StepPrefix>,
}

impl Step {
    /// Returns the format of its answer.
    pub fn response_format(&self) -> ResponseFormat {
        self.validator.response_format()
    }
}

/// A literal text, or the name of a template.
#[derive(Debug, Clone)]
pub(crate) enum TextTemplate {
    Literal(Arc<str>),
    Template(Box<str>),
}

impl TextTemplate {
    /// Creates it from a template's source; `name` is the name of the compiled template.
    pub(crate) fn new(name: &str, source: &str) -> Self {
        if ["{{", "{%", "{#"].iter().any(|tag| source.contains(tag)) {
            return Self::Template(name.into());
        }
        // The template engine removes one newline at the end. Do the same for a literal.
        let text = source.strip_suffix('\n').unwrap_or(source);
        Self::Literal(text.strip_suffix('\r').unwrap_or(text).into())
    }

    /// Returns the text with which every rendered text begins.
    pub(super) fn constant_beginning<'t>(&'t self, templates: &'t Templates) -> &'t str {
        match self {
            Self::Literal(text) => text,
            Self::Template(name) => templates.constant_beginning(name),
        }
    }

    /// Returns the source.
    pub(super) fn source<'t>(&'t self, templates: &'t Templates) -> &'t str {
        match self {
            Self::Literal(text) => text,
            Self::Template(name) => templates.source(name),
        }
    }

    /// Returns the variables that it uses: the item and steps.
    pub(super) fn variables<'t>(&self, templates: &'t Templates) -> &'t [String] {
        match self {
            Self::Literal(_) => &[],
            Self::Template(name) => templates.variables(name),
        }
    }

    /// Returns the source if the rendered text is the same for every item.
    pub(super) fn constant_source<'t>(&'t self, templates: &'t Templates) -> Option<&'t str> {
        match self {
            Self::Literal(text) => Some(text),
            Self::Template(name) => templates.constant_source(name),
        }
    }
}
