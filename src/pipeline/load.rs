//! Loads a [`Pipeline`] from its file or its text.
//!
//! Loading continues after an error, so that all errors are reported at once.

use std::path::Path;

use serde_json::{Value, json};

use crate::diagnostics::{Diagnostic, Diagnostics, Document, nearest};
use crate::files::protected::{FileUse, ProtectedFiles};
use crate::files::read_text_at_most;
use crate::provider::{find_secrets, guess_secrets};
use crate::types::{CacheTtl, EmbeddingOptions, Fingerprint, ResponseFormat, RouteName, StepName};

use super::Defaults;
use super::answer_settings::AnswerSettings;
use super::attach::AttachmentSources;
use super::choice::Choices;
use super::compile::{Compiler, StepCompiler};
use super::definition::{Pipeline, Step};
use super::embed::{self, embedding_step};
use super::graph::Graph;
use super::raw::{RawPipeline, RawStep};
use super::resolve::{SymbolTable, quoted_list};
use super::schema::{Schema, json_from_toml};
use super::shared_prefix::{SharedParts, StepPrefix};
use super::source_diagnostics::SourceDiagnostics;
use super::step_names::step_names;
use super::template::Templates;
use super::validate::AnswerValidator;

/// Most steps of a pipeline. Each takes memory for its templates, in each process and for each item in flight.
pub(super) const MAX_STEPS: usize = 1_000;

/// Most choices of a step.
pub(super) const MAX_CHOICES: usize = 10_000;

/// Longest schema, in bytes of JSON without white space. A validator takes many times its memory.
pub(super) const MAX_SCHEMA_BYTES: usize = 256 << 10;

impl Pipeline {
    /// Loads a pipeline from its file, and its schema files.
    ///
    /// `defaults` and `routes` are those of the configuration.
    ///
    /// # Errors
    /// All errors of the pipeline.
    #[doc(hidden)]
    pub fn load(path: &Path, defaults: &Defaults, routes: &[RouteName]) -> Result<Self, Diagnostics> {
        let file = path.display().to_string();
        let text = read(path)?;
        let mut pipeline =
            Self::parse(&file, &text, path.parent().unwrap_or(Path::new("")), defaults, routes)?;
        pipeline.protect(FileUse::Pipeline, path);
        Ok(pipeline)
    }

    /// Loads a pipeline from its text. `file` is its name in diagnostics. Paths of schema files and attachments
    /// are relative to `directory`.
    ///
    /// # Errors
    /// All errors of the pipeline.
    #[doc(hidden)]
    pub fn parse(
        file: &str,
        text: &str,
        directory: &Path,
        defaults: &Defaults,
        routes: &[RouteName],
    ) -> Result<Self, Diagnostics> {
        Self::parse_with((file, text), directory, defaults, routes, SchemaFiles::Read)
    }

    /// Loads a pipeline from a text of which the author may not choose files: a schema that is the path of a file is an
    /// error. `directory` is the only one from which items may attach files, besides the configured ones.
    ///
    /// # Errors
    /// All errors of the pipeline.
    #[doc(hidden)]
    pub fn parse_isolated(
        file: &str,
        text: &str,
        directory: &Path,
        defaults: &Defaults,
        routes: &[RouteName],
    ) -> Result<Self, Diagnostics> {
        Self::parse_with((file, text), directory, defaults, routes, SchemaFiles::Refuse)
    }

    fn parse_with(
        (file, text): (&str, &str),
        directory: &Path,
        defaults: &Defaults,
        routes: &[RouteName],
        schema_files: SchemaFiles,
    ) -> Result<Self, Diagnostics> {
        let document = Document::parse(file, text).map_err(|mut diagnostics| {
            diagnostics.redact(&guess_secrets(text));
            diagnostics
        })?;
        let spans = document.spans();
        let redacted = |mut diagnostics: Diagnostics| {
            diagnostics.redact(&find_secrets(&spans));
            diagnostics
        };
        let load = |item_is_text| {
            let (raw, found) = document.read::<RawPipeline>();
            let loader = Loader {
                diagnostics: SourceDiagnostics { document: &document, spans: &spans, found },
                directory,
                routes,
                config_defaults: defaults,
                item_is_text,
                schema_files,
                protected: ProtectedFiles::default(),
            };
            loader.pipeline(raw, Templates::new())
        };
        let mut pipeline = load(false).map_err(redacted)?;
        // Load it again for inputs whose fields are all texts.
        pipeline.csv_diagnostics = load(true).err().map(redacted).unwrap_or_default();
        Ok(pipeline)
    }
}

/// The largest pipeline, and the largest schema in a file.
const MAX_PIPELINE_BYTES: u64 = 16 << 20;
const MAX_SCHEMA_FILE_BYTES: u64 = 64 << 20;

/// Reads the text of a pipeline.
pub(super) fn read(path: &Path) -> Result<String, Diagnostics> {
    read_text_at_most(path, MAX_PIPELINE_BYTES).map_err(|error| {
        let message = format!("cannot read the pipeline {}: {error}", path.display());
        Diagnostics(vec![Diagnostic::new(message)])
    })
}

/// Whether a pipeline may have schemas in files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SchemaFiles {
    Read,
    Refuse,
}

/// Loads one pipeline and collects its errors.
struct Loader<'d> {
    diagnostics: SourceDiagnostics<'d>,
    directory: &'d Path,
    routes: &'d [RouteName],
    config_defaults: &'d Defaults,
    /// Whether all fields of an item are texts, as in CSV.
    item_is_text: bool,
    schema_files: SchemaFiles,
    /// The schema files of the pipeline.
    protected: ProtectedFiles,
}

impl Loader<'_> {
    fn pipeline(mut self, raw: RawPipeline, mut templates: Templates) -> Result<Pipeline, Diagnostics> {
        let name = raw.name.unwrap_or_default();
        if name.trim().is_empty() && (!name.is_empty() || !self.diagnostics.is_written(&["name"])) {
            let diagnostic = self.diagnostics.at(&["name"], "the pipeline has no name");
            self.diagnostics.push(diagnostic.with_help("add a line like name = \"email\" at the top"));
        }
        if raw.step.is_empty()
            && (self.diagnostics.found.0.is_empty() || !self.diagnostics.is_written(&["step"]))
        {
            let diagnostic = self.diagnostics.at(&["step"], "the pipeline has no steps");
            self.diagnostics.push(diagnostic.with_help("add a [[step]] with a name and a prompt"));
        }
        if raw.step.len() > MAX_STEPS {
            let message = format!("the pipeline has {} steps; the maximum is {MAX_STEPS}", raw.step.len());
            let help = "split it into several pipelines";
            self.diagnostics.push_at_step(MAX_STEPS, &["name"], message, help);
            return Err(self.diagnostics.found.into_result(()).err().unwrap_or_default());
        }
        let input = raw.input.schema.and_then(|schema| self.schema(&["input", "schema"], schema));
        let names = step_names(&raw.step, &mut self.diagnostics);
        let validators: Vec<AnswerValidator> =
            raw.step.iter().enumerate().map(|(index, step)| self.validator(index, step)).collect();
        let routes = self.routes(&raw.step, &raw.defaults, &names);

        let symbols = SymbolTable::new(&names, &validators, input.as_ref(), self.item_is_text);
        let defaults = raw.defaults.clone().or_else(self.config_defaults);
        let mut compiler =
            Compiler { diagnostics: &mut self.diagnostics, symbols: &symbols, templates: &mut templates };
        let default_system = compiler.default_system(&raw.defaults, &defaults);
        let mut steps = Vec::with_capacity(raw.step.len());
        let mut needs = Vec::with_capacity(raw.step.len());
        for (index, raw) in raw.step.iter().enumerate() {
            let mut compiler = StepCompiler::new(&mut compiler, index);
            let prompt = match &raw.embed {
                Some(embed) => compiler.embed(embed),
                None => compiler.prompt(raw),
            };
            let system = raw.system.as_deref().map(|system| compiler.template(&["system"], system));
            let condition = raw.when.as_deref().map(|when| compiler.condition(when));
            let compile_attachment = |(number, source): (usize, &String)| {
                compiler.template(&["attach", &number.to_string()], source)
            };
            let attachments = raw.attach.iter().enumerate().map(compile_attachment).collect();
            compiler.explicit_needs(&raw.needs);
            needs.push(compiler.into_needs());
            if raw.embed.is_some() {
                steps.push(embedding_step(
                    raw,
                    &defaults,
                    (names[index].clone(), routes[index].clone()),
                    (prompt, condition),
                ));
                continue;
            }
            let settings = AnswerSettings::of(raw, &defaults);
            steps.push(Step {
                name: names[index].clone(),
                fingerprint: step_fingerprint(raw, &validators[index], &defaults, &settings),
                route: routes[index].clone(),
                optional: raw.optional,
                max_validation_retries: raw
                    .max_validation_retries
                    .or(defaults.max_validation_retries)
                    .unwrap_or(Defaults::MAX_VALIDATION_RETRIES),
                deadline: raw.deadline.or(defaults.deadline).unwrap_or(Defaults::DEADLINE),
                max_tokens: raw.max_tokens.or(defaults.max_tokens).map(Into::into),
                temperature: raw.temperature.or(defaults.temperature).map(super::Temperature::get),
                settings,
                embedding: None,
                max_prompt_bytes: defaults.max_prompt_bytes(),
                validator: validators[index].clone(),
                prompt,
                system: system.or_else(|| default_system.clone()),
                condition,
                attachments,
                shared_prefix: None,
            });
        }
        for (step, raw) in steps.iter_mut().zip(&raw.step) {
            let prompt_cache = raw.prompt_cache.or(defaults.prompt_cache).unwrap_or_default();
            let ttl = prompt_cache.first_ttl().filter(|_| step.embedding.is_none());
            step.shared_prefix = ttl.and_then(|ttl| shared_prefix(step, &templates, ttl));
        }
        let graph = self.graph(needs, &names);
        let attach_templates = raw.step.iter().flat_map(|step| &step.attach);
        let attachment_sources = AttachmentSources::of_directory(self.directory)
            .with_hosts_of(attach_templates.map(String::as_str));
        let text = self.diagnostics.document.text().into();
        let names = names.into();
        self.diagnostics.found.into_result(Pipeline {
            name: name.into(),
            text,
            attachment_sources,
            protected: self.protected,
            names,
            steps,
            graph,
            templates,
            input,
            csv_diagnostics: Diagnostics::default(),
        })
    }

    fn validator(&mut self, index: usize, step: &RawStep) -> AnswerValidator {
        // Also with an invalid value, which is reported already: the step must not look like one without `embed`.
        if self.diagnostics.is_written(&["step", &index.to_string(), "embed"]) {
            embed::refuse_other_keys(index, step, &mut self.diagnostics);
            return AnswerValidator::Embedding(EmbeddingOptions::new(step.dimensions));
        }
        if step.dimensions.is_some() {
            self.diagnostics.push_at_step(
                index,
                &["dimensions"],
                "`dimensions` belongs to a step with `embed`",
                "write `embed` instead of `prompt`, or remove `dimensions`",
            );
        }
        if step.choice.is_some() && step.schema.is_some() {
            self.diagnostics.push_at_step(
                index,
                &["schema"],
                "a step has `choice` or `schema`, not both",
                "remove one of them",
            );
        }
        if let Some(texts) = &step.choice {
            if texts.is_empty() {
                self.diagnostics.push_at_step(
                    index,
                    &["choice"],
                    "`choice` is empty",
                    "add at least two choices",
                );
            }
            if texts.len() > MAX_CHOICES {
                let message = format!("`choice` has {} texts; the maximum is {MAX_CHOICES}", texts.len());
                let help = "divide the choices among several steps";
                self.diagnostics.push_at_step(index, &["choice", &MAX_CHOICES.to_string()], message, help);
                return AnswerValidator::Text;
            }
            for (number, _) in texts.iter().enumerate().filter(|(_, choice)| choice.trim().is_empty()) {
                let path = ["choice", &number.to_string()];
                self.diagnostics.push_at_step(
                    index,
                    &path,
                    "a choice is empty",
                    "write a text that a model can answer with",
                );
            }
            let choices = Choices::new(texts.clone());
            for (second, first) in choices.duplicates() {
                let message = format!("{:?} is the same choice as {:?}", texts[second], texts[first]);
                let help = "case and punctuation around a choice are ignored; remove one of them";
                self.diagnostics.push_at_step(index, &["choice", &second.to_string()], message, help);
            }
            return AnswerValidator::Choice(choices);
        }
        let path = ["step", &index.to_string(), "schema"];
        let schema = step.schema.clone().and_then(|schema| self.schema(&path, schema));
        schema.map_or(AnswerValidator::Text, AnswerValidator::Json)
    }

    /// Compiles a schema: an inline table, or the path of a file.
    fn schema(&mut self, path: &[&str], schema: toml::Value) -> Option<Schema> {
        let json = match schema {
            toml::Value::Table(_) => Ok(json_from_toml(schema)),
            toml::Value::String(_) if self.schema_files == SchemaFiles::Refuse => {
                Err("this pipeline is not a file and may not read one: write the schema as a table"
                    .to_owned())
            }
            toml::Value::String(file) => {
                let file = self.directory.join(file);
                self.protected.add(FileUse::Pipeline, &file);
                read_json(&file)
            }
            _ => Err("a schema is a table, or the path of a .json file".to_owned()),
        };
        let compiled = json.and_then(|json| {
            let bytes = json.to_string().len();
            if bytes > MAX_SCHEMA_BYTES {
                return Err(format!(
                    "the schema has {} KiB; the maximum is {} KiB",
                    bytes.div_ceil(1 << 10),
                    MAX_SCHEMA_BYTES >> 10
                ));
            }
            Schema::new(json).map_err(|error| format!("this is not a JSON Schema: {error}"))
        });
        compiled.map_err(|error| self.diagnostics.push(self.diagnostics.at(path, error))).ok()
    }

    /// Returns the route of each step. A missing or unknown route is an error, and its placeholder is never used.
    fn routes(&mut self, steps: &[RawStep], defaults: &Defaults, names: &[StepName]) -> Vec<RouteName> {
        let help = match self.routes {
            [] => "no route is configured: add a [route.NAME] to the configuration".to_owned(),
            routes => format!("configured routes are {}", quoted_list(routes.iter().map(RouteName::as_str))),
        };
        if let Some(route) = &defaults.route {
            self.check_route(&["defaults", "route"], route, &help);
        } else if let Some(route) =
            self.config_defaults.route.as_ref().filter(|route| !self.routes.contains(route))
        {
            let message = format!("the configuration's default route `{route}` is unknown");
            self.diagnostics.push(Diagnostic::new(message).with_help(&help));
        }
        let only = if let [only] = self.routes { Some(only) } else { None };
        let default = defaults.route.as_ref().or(self.config_defaults.route.as_ref()).or(only).cloned();
        let mut without_route = Vec::new();
        let mut routes = Vec::with_capacity(steps.len());
        for (index, step) in steps.iter().enumerate() {
            if let Some(route) = &step.route {
                self.check_route(&["step", &index.to_string(), "route"], route, &help);
            } else if default.is_none()
                && !self.diagnostics.is_written(&["step", &index.to_string(), "route"])
            {
                without_route.push(index);
            }
            routes
                .push(step.route.clone().or_else(|| default.clone()).unwrap_or_else(|| RouteName::from("")));
        }
        if let [first, ..] = without_route[..] {
            let steps = quoted_list(without_route.iter().map(|index| names[*index].as_str()));
            let message = format!("no route is set for {steps}");
            self.diagnostics.push_at_step(
                first,
                &[],
                message,
                &format!("set `route` there or in [defaults]; {help}"),
            );
        }
        routes
    }

    fn check_route(&mut self, path: &[&str], route: &RouteName, help: &str) {
        if !self.routes.contains(route) {
            let diagnostic = self.diagnostics.at(path, format!("unknown route `{route}`"));
            let similar = nearest(route.as_str(), self.routes.iter().map(RouteName::as_str));
            self.diagnostics.push(diagnostic.with_help(match similar {
                Some(similar) => format!("did you mean `{similar}`?"),
                None => help.to_owned(),
            }));
        }
    }

    fn graph(&mut self, needs: Vec<Vec<usize>>, names: &[StepName]) -> Graph {
        let cycles = match Graph::new(needs) {
            Ok(graph) => return graph,
            Err(cycles) => cycles,
        };
        for cycle in cycles {
            let path = cycle.iter().chain(cycle.first()).map(|step| names[*step].as_str());
            let path = path.collect::<Vec<_>>().join(" → ");
            let message = match cycle.len() {
                1 => format!("a step cannot need its own answer: {path}"),
                _ => format!("steps wait for each other: {path}"),
            };
            let help = "a step needs the steps that its templates, its `when` and its `needs` name; remove one of \
                        the names";
            self.diagnostics.push_at_step(
                cycle.first().copied().unwrap_or_default(),
                &["name"],
                message,
                help,
            );
        }
        Graph::default()
    }
}

/// Returns the fingerprint of everything that affects a step's answers or decides whether it is skipped. The
/// deadline and the number of validation retries are not part of it: they do not change an accepted answer.
fn step_fingerprint(
    step: &RawStep,
    validator: &AnswerValidator,
    defaults: &Defaults,
    settings: &AnswerSettings,
) -> Fingerprint {
    let format = match validator.response_format() {
        ResponseFormat::Text => Value::Null,
        ResponseFormat::Choice(choices) => choices.iter().map(String::as_str).collect(),
        ResponseFormat::Json(schema) => Value::clone(&schema),
    };
    let system = step.system.as_deref().or(defaults.system.as_deref());
    let max_tokens = step.max_tokens.or(defaults.max_tokens);
    let temperature = step.temperature.or(defaults.temperature).map(super::Temperature::get);
    let settings = settings.non_default_values();
    let parts =
        json!([step.prompt, system, format, step.when, step.attach, max_tokens, temperature, step.optional]);
    let parts = parts.to_string();
    if settings.is_empty() {
        // As in manifests of versions without these settings.
        return Fingerprint::of([parts.as_bytes()]);
    }
    Fingerprint::of([parts.as_bytes(), Value::Object(settings).to_string().as_bytes()])
}

/// Returns the beginning that the requests of a step share; `None` if its system prompt depends on the item, or if the
/// beginning is too short to be cached.
fn shared_prefix(step: &Step, templates: &Templates, ttl: CacheTtl) -> Option<StepPrefix> {
    let system = match &step.system {
        Some(system) => Some(system.constant_source(templates)?),
        None => None,
    };
    let parts = SharedParts {
        system,
        text: step.prompt.constant_beginning(templates),
        response_format: step.response_format(),
        reasoning_effort: step.settings.reasoning_effort,
    };
    StepPrefix::new(&parts, ttl)
}

fn read_json(path: &Path) -> Result<Value, String> {
    let text = read_text_at_most(path, MAX_SCHEMA_FILE_BYTES)
        .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    serde_json::from_str(&text).map_err(|error| format!("{} is not JSON: {error}", path.display()))
}
