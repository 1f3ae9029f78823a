//! Resolves a configuration: reads the keys, and removes providers and routes without a usable key.
//!
//! A missing key never results in simulation: only targets that are configured as simulated are simulated, or all
//! targets of a [simulated](Config::simulated) configuration.

use std::collections::BTreeSet;
use std::path::PathBuf;

use http::HeaderMap;
use indexmap::{IndexMap, IndexSet};

use crate::diagnostics::{Diagnostic, Diagnostics};
use crate::pipeline::Step;
use crate::provider::{self, Env, HeaderSource, Key, KeyError, KeySource};
use crate::router::{Route, Target};
use crate::types::{Advice, KeyLabel, ProviderName, Remedy, RouteName, Secret};

use super::Config;
use super::check::suggest;
use super::environment;
use super::key_positions::KeyPositions;

/// A [`Config`] with its keys, without the providers and routes that have no usable key.
#[derive(Debug, Clone)]
pub struct ResolvedConfig {
    /// The usable providers.
    pub providers: IndexMap<ProviderName, ResolvedProvider>,
    /// The usable routes with their usable targets, at least one each.
    pub routes: IndexMap<RouteName, Route>,
    /// Notes on everything that was removed, and on routes with simulated answers.
    pub notes: Vec<String>,
    /// Routes without a usable target, with the environment variables that are not set.
    unusable_routes: IndexMap<RouteName, Vec<String>>,
}

/// A provider with its keys.
#[derive(Debug, Clone)]
pub struct ResolvedProvider {
    /// The settings of the provider.
    pub settings: provider::Settings,
    /// Its keys in order of preference. Empty if the provider needs none.
    pub keys: Vec<Key>,
    /// Its additional headers, marked as sensitive.
    pub headers: HeaderMap,
}

impl Config {
    /// Reads the keys. A provider whose environment variables are not set is removed with a note.
    ///
    /// # Errors
    /// All errors of key files and commands, and a configuration without providers.
    #[doc(hidden)]
    pub fn resolve(&self, env: Env<'_>) -> Result<ResolvedConfig, Diagnostics> {
        self.resolve_with(env, Commands::Run)
    }

    /// Like [`resolve`](Self::resolve), but runs no command: each command is assumed to return a key.
    ///
    /// # Errors
    /// As [`resolve`](Self::resolve), except errors of commands.
    #[doc(hidden)]
    pub fn preview(&self, env: Env<'_>) -> Result<ResolvedConfig, Diagnostics> {
        self.resolve_with(env, Commands::Assume)
    }

    /// Like [`preview`](Self::preview), but reads no file either: the text of the configuration may come from another
    /// machine.
    ///
    /// # Errors
    /// As [`preview`](Self::preview), except errors of files.
    #[doc(hidden)]
    pub fn preview_without_files(&self, env: Env<'_>) -> Result<ResolvedConfig, Diagnostics> {
        self.resolve_with(env, Commands::AssumeAndReadNoFile)
    }

    fn resolve_with(&self, env: Env<'_>, commands: Commands) -> Result<ResolvedConfig, Diagnostics> {
        if self.providers.is_empty() {
            return Err(no_provider());
        }
        let mut diagnostics = Diagnostics::default();
        let mut notes = self.notes.clone();
        let mut providers = IndexMap::new();
        let mut missing = IndexMap::new();
        if self.simulate && !cfg!(feature = "simulator") {
            let diagnostic = Diagnostic::new("this build has no simulator");
            diagnostics.push(diagnostic.with_help("build it with the feature `simulator`"));
        }
        for (name, settings) in &self.providers {
            if self.simulate {
                let settings = simulated(settings);
                let ready = ResolvedProvider { settings, keys: Vec::new(), headers: HeaderMap::new() };
                providers.insert(name.clone(), ready);
                continue;
            }
            let variables = |variable: &str| self.variable(env, variable);
            match read_keys((name, settings), &self.key_positions, &variables, commands, &mut notes) {
                Ok(KeysOutcome::Ready(ready)) => {
                    notes.extend(plain_http_warning(name, settings));
                    providers.insert(name.clone(), *ready);
                }
                Ok(KeysOutcome::Missing(variables)) => {
                    let reasons: Vec<String> = variables.iter().map(|any| not_set(any)).collect();
                    notes.push(format!("{name}: skipped, {}", reasons.join(", and ")));
                    missing.insert(name.clone(), variables.concat());
                }
                Err(errors) => diagnostics.extend(errors),
            }
        }
        diagnostics.extend(proxy_diagnostics(env, providers.values().map(|ready| &ready.settings)));
        let mut resolved =
            ResolvedConfig { providers, routes: IndexMap::new(), notes, unusable_routes: IndexMap::new() };
        resolved.add_routes(&self.routes, &missing);
        diagnostics.into_result(resolved)
    }
}

impl ResolvedConfig {
    /// Returns the route of this name.
    ///
    /// # Errors
    /// The route does not exist, or it has no usable key.
    pub fn route(&self, name: &RouteName) -> Result<&Route, Diagnostic> {
        if let Some(route) = self.routes.get(name) {
            return Ok(route);
        }
        Err(if self.unusable_routes.contains_key(name) { self.no_key(&[name]) } else { self.no_route(name) })
    }

    /// Checks that each of `routes` has a usable target.
    ///
    /// # Errors
    /// One error for each route that does not exist, and one for all routes without a usable key.
    pub fn check<'r>(&self, routes: impl Iterator<Item = &'r RouteName>) -> Result<(), Diagnostics> {
        let mut diagnostics = Diagnostics::default();
        let mut unusable_routes = Vec::new();
        // Several steps may use the same route.
        let routes: IndexSet<&RouteName> = routes.collect();
        for name in routes.into_iter().filter(|name| !self.routes.contains_key(*name)) {
            if self.unusable_routes.contains_key(name) {
                unusable_routes.push(name);
            } else {
                diagnostics.push(self.no_route(name));
            }
        }
        if !unusable_routes.is_empty() {
            diagnostics.push(self.no_key(&unusable_routes));
        }
        diagnostics.into_result(())
    }

    /// Checks that each step with `embed` has a usable target with embeddings. Routes without any usable target are left
    /// to [`check`](Self::check).
    ///
    /// # Errors
    /// One error for each step without such a target.
    pub fn check_embeddings<'s>(&self, steps: impl IntoIterator<Item = &'s Step>) -> Result<(), Diagnostics> {
        let is_unanswerable =
            |step: &&Step| self.routes.contains_key(&step.route) && self.targets_of(step).next().is_none();
        let to_diagnostic = |step: &Step| {
            let Step { name, route, .. } = step;
            let message =
                format!("step `{name}` has `embed`, and no usable target of route `{route}` has embeddings");
            Diagnostic::new(message).with_help(
                "add a target of a provider with format = \"openai\" or format = \"gemini\" to the route",
            )
        };
        let unanswerable = steps.into_iter().filter(is_unanswerable);
        Diagnostics(unanswerable.map(to_diagnostic).collect()).into_result(())
    }

    /// Returns the usable targets that can answer a step: for a step with `embed`, only those that have embeddings.
    pub fn targets_of<'s>(&'s self, step: &'s Step) -> impl Iterator<Item = &'s Target> {
        let targets = self.routes.get(&step.route).map(|route| route.targets.as_slice()).unwrap_or_default();
        let has_embeddings = |target: &&Target| {
            let ready = self.providers.get(&target.name.provider);
            ready.is_some_and(|ready| ready.settings.embedding_limits(None).is_some())
        };
        targets.iter().filter(move |target| step.embedding.is_none() || has_embeddings(target))
    }

    fn no_route(&self, name: &RouteName) -> Diagnostic {
        let known = self.routes.keys().chain(self.unusable_routes.keys()).map(RouteName::as_str);
        let diagnostic = Diagnostic::new(format!("there is no route `{name}`"));
        diagnostic.with_help(suggest(name.as_str(), known, "routes"))
    }

    /// Returns the error of routes without a key, with the variables to set.
    fn no_key(&self, routes: &[&RouteName]) -> Diagnostic {
        let names: Vec<String> = routes.iter().map(|route| format!("`{route}`")).collect();
        let message = match names.as_slice() {
            [one] => format!("route {one} has no usable key"),
            all => format!("routes {} have no usable key", all.join(", ")),
        };
        let mut seen = BTreeSet::new();
        let variables = routes.iter().filter_map(|route| self.unusable_routes.get(*route)).flatten();
        let variables: Vec<&str> =
            variables.map(String::as_str).filter(|variable| seen.insert(*variable)).collect();
        let help = Advice::from(format!("set {}, or ", variables.join(" or "))).with_remedy(Remedy::Simulate);
        Diagnostic::new(message).with_help(help)
    }

    fn add_routes(
        &mut self,
        routes: &IndexMap<RouteName, Route>,
        missing: &IndexMap<ProviderName, Vec<String>>,
    ) {
        let mut simulated = Vec::new();
        for (name, route) in routes {
            let mut targets = route.targets.clone();
            targets.retain(|target| self.providers.contains_key(&target.name.provider));
            let is_simulated = |provider: &ProviderName| {
                self.providers.get(provider).is_some_and(|ready| ready.settings.is_simulated())
            };
            if targets.iter().any(|target| is_simulated(&target.name.provider)) {
                simulated.push(name.as_str());
            }
            if targets.is_empty() {
                let targets = route.targets.iter().filter_map(|target| missing.get(&target.name.provider));
                self.unusable_routes.insert(name.clone(), targets.flatten().cloned().collect());
                self.notes.push(format!("route {name}: disabled, none of its targets has a usable key"));
            } else {
                self.routes.insert(name.clone(), Route { targets, ..route.clone() });
            }
        }
        let routes = match simulated.as_slice() {
            [] => return,
            [one] => format!("route {one}"),
            [some @ .., last] => format!("routes {} and {last}", some.join(", ")),
        };
        self.notes.push(format!("simulated: answers on {routes} come from the simulator on this machine"));
    }
}

/// Returns the simulated provider for `settings`. Its calls cost nothing and contain no secrets. It uses the
/// format that sends schemas as parameters, because the simulator does not read schemas from the prompt.
fn simulated(settings: &provider::Settings) -> provider::Settings {
    if settings.is_simulated() {
        return settings.clone();
    }
    let provider::Settings { base_url, format, dialect, .. } = provider::Settings::simulated();
    let mut simulated = provider::Settings {
        base_url,
        format,
        dialect,
        headers: IndexMap::new(),
        keys: Vec::new(),
        rotate_every: None,
        ..settings.clone()
    };
    for model in simulated.models.values_mut() {
        model.price = None;
        model.has_builtin_price = false;
    }
    simulated
}

fn no_provider() -> Diagnostics {
    let variables = environment::variables();
    let help = Advice::from(Remedy::WriteConfiguration)
        .with_text(", or ")
        .with_remedy(Remedy::NameConfiguration)
        .with_text(format!(", or set {variables}, or "))
        .with_remedy(Remedy::Simulate);
    Diagnostics(vec![Diagnostic::new("no provider is configured").with_help(help)])
}

/// Placeholder for the key of a command that is not run.
const PLACEHOLDER_KEY: &str = "not-read";

/// Returns a warning if secrets are sent over unencrypted HTTP.
fn plain_http_warning(name: &ProviderName, settings: &provider::Settings) -> Option<String> {
    let host = settings.plain_remote_host()?;
    let is_read = |source: &HeaderSource| matches!(source, HeaderSource::Read(_));
    let sends_secrets = !settings.keys.is_empty() || settings.headers.values().any(is_read);
    sends_secrets.then(|| format!("{name}: its key is sent to {host} over plain http; write https://"))
}

fn proxy_diagnostics<'s>(
    env: Env<'_>,
    providers: impl Iterator<Item = &'s provider::Settings>,
) -> Diagnostics {
    let to_diagnostic = |(variable, help): (&str, &str)| {
        Diagnostic::new(format!("the environment variable {variable} is malformed")).with_help(help)
    };
    Diagnostics(provider::malformed_proxies(env, providers).into_iter().map(to_diagnostic).collect())
}

/// How keys from commands and files are handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Commands {
    Run,
    /// Assume that each command returns a key, and run nothing.
    Assume,
    /// Assume it of files as well, and read none.
    AssumeAndReadNoFile,
}

impl Commands {
    fn key(self, source: &KeySource, env: Env<'_>) -> Result<Option<Secret>, KeyError> {
        if self.assumes_key(source) {
            return Ok(Some(Secret::from(PLACEHOLDER_KEY.to_owned())));
        }
        source.read(env)
    }

    fn assumes_key(self, source: &KeySource) -> bool {
        match (self, source) {
            (Self::Run, _) | (Self::Assume | Self::AssumeAndReadNoFile, KeySource::Env(_)) => false,
            (Self::Assume, KeySource::File(_)) => false,
            (Self::AssumeAndReadNoFile, KeySource::File(_)) => true,
            (Self::Assume | Self::AssumeAndReadNoFile, KeySource::Command(_)) => true,
        }
    }

    fn assumes_header(self, header: &HeaderSource) -> bool {
        match header {
            HeaderSource::Value(_) => false,
            HeaderSource::Read(source) => self.assumes_key(source),
        }
    }
}

enum KeysOutcome {
    Ready(Box<ResolvedProvider>),
    /// The variables that are not set. One variable of each list is needed.
    Missing(Vec<Vec<String>>),
}

fn read_keys(
    (name, settings): (&ProviderName, &provider::Settings),
    positions: &KeyPositions,
    env: Env<'_>,
    commands: Commands,
    notes: &mut Vec<String>,
) -> Result<KeysOutcome, Diagnostics> {
    let mut diagnostics = Diagnostics::default();
    let mut keys: Vec<Key> = Vec::new();
    let mut unset = Vec::new();
    for (number, source) in settings.keys.iter().enumerate() {
        match commands.key(source, env) {
            // Duplicate keys are skipped, except in files, whose keys may change.
            Ok(Some(secret))
                if file(source).is_none()
                    && !commands.assumes_key(source)
                    && keys.iter().any(|key| key.secret.expose() == secret.expose()) => {}
            Ok(Some(secret)) => keys.push(Key { label: label(source, &keys), secret, file: file(source) }),
            Ok(None) => unset.push(variable(source)),
            Err(error) => {
                let diagnostic = key_error(name, &error);
                diagnostics.push(positions.locate(name, "keys", &number.to_string(), diagnostic));
            }
        }
    }
    let mut headers = HeaderMap::new();
    let mut missing = Vec::new();
    for (header, source) in &settings.headers {
        if commands.assumes_header(source) {
            continue;
        }
        match source.read(env) {
            Ok(Some(value)) => {
                headers.insert(header.clone(), value);
            }
            Ok(None) => {
                if let HeaderSource::Read(source) = source {
                    missing.push(vec![variable(source)]);
                }
            }
            Err(error) => {
                let diagnostic = key_error(name, &error);
                diagnostics.push(positions.locate(name, "headers", header.as_str(), diagnostic));
            }
        }
    }
    if keys.is_empty() && settings.needs_key() {
        missing.push(std::mem::take(&mut unset));
    }
    if !missing.is_empty() {
        return diagnostics.into_result(KeysOutcome::Missing(missing));
    }
    if !unset.is_empty() {
        let others = keys.iter().map(|key| key.label.as_str()).collect::<Vec<_>>().join(", ");
        notes.push(format!("{name}: {}, using {others}", not_set(&unset)));
    }
    diagnostics.into_result(KeysOutcome::Ready(Box::new(ResolvedProvider {
        settings: settings.clone(),
        keys,
        headers,
    })))
}

/// Returns the label of a key. Commands that run the same program get a number.
fn label(source: &KeySource, taken: &[Key]) -> KeyLabel {
    let label = source.label();
    let same =
        taken.iter().filter(|key| key.label.as_str().split('#').next() == Some(label.as_str())).count();
    if same == 0 { label } else { format!("{label}#{}", same + 1).into() }
}

fn file(source: &KeySource) -> Option<PathBuf> {
    match source {
        KeySource::File(path) => Some(path.clone()),
        KeySource::Env(_) | KeySource::Command(_) => None,
    }
}

fn variable(source: &KeySource) -> String {
    match source {
        // The label is redacted: the value may be a key by mistake.
        KeySource::Env(_) => source.label().as_str().trim_start_matches("env:").to_owned(),
        KeySource::File(_) | KeySource::Command(_) => source.label().to_string(),
    }
}

fn key_error(name: &ProviderName, error: &KeyError) -> Diagnostic {
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
    Diagnostic::new(format!("provider `{name}`: {error}{cause}")).with_help(error.advice())
}

fn not_set(variables: &[String]) -> String {
    match variables {
        [one] => format!("{one} is not set"),
        [one, other] => format!("neither {one} nor {other} is set"),
        many => format!("none of {} is set", many.join(", ")),
    }
}
