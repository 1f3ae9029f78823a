//! Checks a configuration and pipelines as a run would, without starting anything.

use std::path::PathBuf;

use indexmap::{IndexMap, IndexSet};

use crate::config::{Config, ResolvedConfig};
use crate::diagnostics::{Diagnostic, Diagnostics};
use crate::pipeline::{Pipeline, Step};
use crate::provider::Env;
use crate::router::Target;
use crate::types::{Message, Prompt, RouteName};
use crate::wire::Dialect;

use super::budgets::DayBudgets;

/// Checks a configuration, the pipeline files of its daemon and other pipelines as a run would, and returns notes for the
/// user. Starts nothing and runs no key command: each command is assumed to return a key. Without another pipeline, the
/// default route must have a usable target; without a default route, any route.
///
/// # Errors
/// All problems that were found. Routes and prices are not checked if a key or a provider has a problem.
pub fn check(config: &Config, pipelines: &[PathBuf], env: Env<'_>) -> Result<Vec<String>, Diagnostics> {
    check_resolved(config, pipelines, served_pipelines(config), config.preview(env))
}

/// As [`check`], for the text of a configuration that may come from another machine: it reads no file that the text
/// names, and each key file is assumed to contain a key.
///
/// # Errors
/// All problems that were found.
pub fn check_text(text: &str, env: Env<'_>) -> Result<Vec<String>, Diagnostics> {
    let config = Config::parse("configuration", text, env)?;
    check_resolved(&config, &[], Ok(Vec::new()), config.preview_without_files(env))
}

/// Reads the pipeline files that `[serve]` names, and checks each by itself.
///
/// # Errors
/// All problems of the files, and each name that two of them have.
pub fn served_pipelines(config: &Config) -> Result<Vec<Pipeline>, Diagnostics> {
    let routes: Vec<RouteName> = config.routes.keys().cloned().collect();
    let mut diagnostics = Diagnostics::default();
    let mut loaded = IndexMap::new();
    for path in config.serve.pipeline_files()? {
        let pipeline = match Pipeline::load(&path, &config.defaults, &routes) {
            Ok(pipeline) => pipeline,
            Err(more) => {
                diagnostics.extend(more);
                continue;
            }
        };
        let name = pipeline.name().to_owned();
        let path = path.display().to_string();
        if let Some((other, _)) = loaded.get(&name) {
            let message = format!("two pipeline files have the name {name:?}: {other} and {path}");
            diagnostics.push(Diagnostic::new(message).with_help("give each a name of its own"));
            continue;
        }
        loaded.insert(name, (path, pipeline));
    }
    diagnostics.into_result(loaded.into_values().map(|(_, pipeline)| pipeline).collect())
}

/// Checks that a target of its route can take the requests of a step: not every format can express `seed` or `stop`.
/// Returns a note if only some of the targets can.
fn check_settings(usable: &ResolvedConfig, step: &Step) -> Result<Option<String>, Diagnostic> {
    let mut prompt = step.prompt_settings();
    match step.embedding {
        Some(options) => prompt = Prompt::embeddings(["x"], options),
        None => prompt.messages.push(Message::user("x")),
    }
    let mut able = 0;
    let mut unable: Vec<String> = Vec::new();
    for target in usable.targets_of(step) {
        let Some(settings) = usable.providers.get(&target.name.provider).map(|ready| &ready.settings) else {
            continue;
        };
        let Some(model) = settings.models.get(&target.name.model) else { continue };
        let dialect = Dialect { extra: model.extra.clone(), ..settings.dialect.clone() };
        let base_url = settings.base_url.as_deref().unwrap_or_default();
        match settings.format.encode(&prompt, &model.name, base_url, &dialect) {
            Ok(_) => able += 1,
            Err(failure) => unable.push(format!("{}: {}", target.name, failure.message)),
        }
    }
    let Step { name, route, .. } = step;
    let reasons = unable.join("; ");
    match (unable.is_empty(), able) {
        (true, _) => Ok(None),
        (false, 0) => Err(Diagnostic::new(format!(
            "no target of route `{route}` can take the requests of step `{name}`"
        ))
        .with_help(reasons)),
        (false, _) => Ok(Some(format!(
            "the requests of step `{name}` go only to some targets of route `{route}`: {reasons}"
        ))),
    }
}

fn check_resolved(
    config: &Config,
    pipelines: &[PathBuf],
    served: Result<Vec<Pipeline>, Diagnostics>,
    resolved: Result<ResolvedConfig, Diagnostics>,
) -> Result<Vec<String>, Diagnostics> {
    let routes: Vec<RouteName> = config.routes.keys().cloned().collect();
    let mut diagnostics = Diagnostics::default();
    let mut loaded = Vec::new();
    for path in pipelines {
        match Pipeline::load(path, &config.defaults, &routes) {
            Ok(pipeline) => loaded.push(pipeline),
            Err(more) => diagnostics.extend(more),
        }
    }
    match served {
        Ok(served) => loaded.extend(served),
        // A file that is also named as a pipeline is reported once.
        Err(Diagnostics(more)) => {
            let new: Vec<Diagnostic> = more.into_iter().filter(|one| !diagnostics.0.contains(one)).collect();
            diagnostics.extend(Diagnostics(new));
        }
    }
    let usable = match resolved {
        Ok(usable) => usable,
        Err(more) => {
            diagnostics.extend(more);
            return Err(diagnostics);
        }
    };
    let mut used_routes: IndexSet<&RouteName> = loaded.iter().flat_map(Pipeline::routes).collect();
    if pipelines.is_empty() {
        match &config.defaults.route {
            Some(route) => used_routes.extend([route]),
            None if usable.routes.is_empty() => used_routes.extend(config.routes.keys()),
            None => {}
        }
    }
    if let Err(more) = usable.check(used_routes.iter().copied()) {
        diagnostics.extend(more);
    }
    if let Err(more) = usable.check_embeddings(loaded.iter().flat_map(Pipeline::steps)) {
        diagnostics.extend(more);
    }
    let mut notes = usable.notes.clone();
    for step in loaded.iter().flat_map(Pipeline::steps) {
        match check_settings(&usable, step) {
            Ok(note) => notes.extend(note),
            Err(diagnostic) => diagnostics.push(diagnostic),
        }
    }
    let targets: Vec<&Target> = if pipelines.is_empty() {
        let routes = used_routes.iter().filter_map(|route| usable.route(route).ok());
        routes.flat_map(|route| &route.targets).collect()
    } else {
        let steps = loaded.iter().flat_map(Pipeline::steps);
        steps.flat_map(|step| usable.targets_of(step)).collect()
    };
    let names = targets.into_iter().map(|target| target.name.clone());
    let is_capped = config.budget.run.is_some();
    match DayBudgets::new(&config.budget).check_prices(&usable, names, is_capped) {
        Ok(more) => notes.extend(more),
        Err(more) => diagnostics.extend(more),
    }
    diagnostics.into_result(notes)
}
