//! Reads the keys, and leaves out what cannot be used without one.
//!
//! Nothing is simulated because a key is missing: a simulated target is configured as one, or the whole
//! configuration is [simulated](Config::simulated).

use std::collections::BTreeSet;
use std::path::PathBuf;

use http::HeaderMap;
use indexmap::{IndexMap, IndexSet};

use crate::document::{Fault, Faults};
use crate::provider::{self, Env, HeaderSource, Key, KeyError, KeySource};
use crate::router::Route;
use crate::types::{KeyLabel, ProviderName, RouteName, Secret};

use super::Config;
use super::check::meant;
use super::environment;
use super::key_places::KeyPlaces;

/// What is left of a [`Config`] when the keys have been read.
#[derive(Debug, Clone)]
pub struct Usable {
    /// The providers that calls can go to.
    pub providers: IndexMap<ProviderName, ReadyProvider>,
    /// The routes with the lanes that remain, at least one each.
    pub routes: IndexMap<RouteName, Route>,
    /// One line for everything that was left out, and where answers will be simulated.
    pub notes: Vec<String>,
    /// Routes of which no lane remains, each with the variables that it lacks.
    closed: IndexMap<RouteName, Vec<String>>,
}

/// A provider with its keys.
#[derive(Debug, Clone)]
pub struct ReadyProvider {
    /// Its settings.
    pub settings: provider::Settings,
    /// Its keys, best first; none where none is needed.
    pub keys: Vec<Key>,
    /// Its extra headers, marked as sensitive.
    pub headers: HeaderMap,
}

impl Config {
    /// Reads the keys. A provider whose variables are not set is left out with a note.
    ///
    /// # Errors
    /// Every key file and command that cannot be read, and a configuration without any provider.
    pub fn usable(&self, env: Env<'_>) -> Result<Usable, Faults> {
        self.read(env, Commands::Run)
    }

    /// Returns what [`usable`](Self::usable) would, without running a command: each is taken to have a key.
    ///
    /// # Errors
    /// As [`usable`](Self::usable), but for commands.
    pub fn preview(&self, env: Env<'_>) -> Result<Usable, Faults> {
        self.read(env, Commands::Trust)
    }

    fn read(&self, env: Env<'_>, commands: Commands) -> Result<Usable, Faults> {
        if self.providers.is_empty() {
            return Err(no_provider());
        }
        let mut faults = Faults::default();
        let mut notes = self.notes.clone();
        let mut providers = IndexMap::new();
        let mut missing = IndexMap::new();
        if self.simulate && !cfg!(feature = "server") {
            let fault = Fault::new("this build has no simulator");
            faults.push(fault.advise("build it with the feature `server`"));
        }
        for (name, settings) in &self.providers {
            if self.simulate {
                let settings = simulated(settings);
                let ready = ReadyProvider { settings, keys: Vec::new(), headers: HeaderMap::new() };
                providers.insert(name.clone(), ready);
                continue;
            }
            match read_keys((name, settings), &self.key_places, env, commands, &mut notes) {
                Ok(Found::Ready(ready)) => {
                    notes.extend(in_the_clear(name, settings));
                    providers.insert(name.clone(), *ready);
                }
                Ok(Found::Missing(variables)) => {
                    let why: Vec<String> = variables.iter().map(|any| not_set(any)).collect();
                    notes.push(format!("{name}: skipped, {}", why.join(", and ")));
                    missing.insert(name.clone(), variables.concat());
                }
                Err(more) => faults.extend(more),
            }
        }
        faults.extend(proxy_faults(env, providers.values().map(|ready| &ready.settings)));
        let mut usable = Usable { providers, routes: IndexMap::new(), notes, closed: IndexMap::new() };
        usable.open_routes(&self.routes, &missing);
        faults.or(usable)
    }
}

impl Usable {
    /// Returns the route of this name.
    ///
    /// # Errors
    /// Why no question can go there.
    pub fn route(&self, name: &RouteName) -> Result<&Route, Fault> {
        if let Some(route) = self.routes.get(name) {
            return Ok(route);
        }
        Err(if self.closed.contains_key(name) { self.no_key(&[name]) } else { self.no_route(name) })
    }

    /// Checks that each of `routes` has a target that can be used.
    ///
    /// # Errors
    /// Every route that is not there, and one fault for all that lack a key.
    pub fn check<'r>(&self, routes: impl Iterator<Item = &'r RouteName>) -> Result<(), Faults> {
        let mut faults = Faults::default();
        let mut closed = Vec::new();
        // Each once: a pipeline names the route of every step.
        let routes: IndexSet<&RouteName> = routes.collect();
        for name in routes.into_iter().filter(|name| !self.routes.contains_key(*name)) {
            if self.closed.contains_key(name) {
                closed.push(name);
            } else {
                faults.push(self.no_route(name));
            }
        }
        if !closed.is_empty() {
            faults.push(self.no_key(&closed));
        }
        faults.or(())
    }

    fn no_route(&self, name: &RouteName) -> Fault {
        let known = self.routes.keys().chain(self.closed.keys()).map(RouteName::as_str);
        let fault = Fault::new(format!("there is no route `{name}`"));
        fault.advise(meant(name.as_str(), known, "routes"))
    }

    /// Says which variables to set so that these routes can be used.
    fn no_key(&self, routes: &[&RouteName]) -> Fault {
        let named: Vec<String> = routes.iter().map(|route| format!("`{route}`")).collect();
        let lack = match named.as_slice() {
            [one] => format!("route {one} has no usable key"),
            all => format!("routes {} have no usable key", all.join(", ")),
        };
        let mut seen = BTreeSet::new();
        let variables = routes.iter().filter_map(|route| self.closed.get(*route)).flatten();
        let variables: Vec<&str> =
            variables.map(String::as_str).filter(|variable| seen.insert(*variable)).collect();
        Fault::new(lack)
            .advise(format!("set {}, or add --simulate for simulated answers", variables.join(" or ")))
    }

    fn open_routes(
        &mut self,
        routes: &IndexMap<RouteName, Route>,
        missing: &IndexMap<ProviderName, Vec<String>>,
    ) {
        let mut simulated = Vec::new();
        for (name, route) in routes {
            let mut lanes = route.lanes.clone();
            lanes.retain(|lane| self.providers.contains_key(&lane.name.provider));
            let is_simulated = |provider: &ProviderName| {
                self.providers.get(provider).is_some_and(|ready| ready.settings.is_practice())
            };
            if lanes.iter().any(|lane| is_simulated(&lane.name.provider)) {
                simulated.push(name.as_str());
            }
            if lanes.is_empty() {
                let lanes = route.lanes.iter().filter_map(|lane| missing.get(&lane.name.provider));
                self.closed.insert(name.clone(), lanes.flatten().cloned().collect());
                self.notes.push(format!("route {name}: closed, none of its targets has a usable key"));
            } else {
                self.routes.insert(name.clone(), Route { lanes, ..route.clone() });
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

/// Returns the same provider as the simulator plays it: its calls cost nothing and carry nothing secret. They go in the
/// format that sends the most schemas: one that is only in the prompt the simulator does not know.
fn simulated(settings: &provider::Settings) -> provider::Settings {
    if settings.is_practice() {
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
        model.is_listed = false;
    }
    simulated
}

fn no_provider() -> Faults {
    let variables = environment::variables();
    let advice = format!(
        "add one to config.toml in the directory of this command, or name a configuration with --config, or set {variables}, or add --simulate for simulated answers"
    );
    Faults(vec![Fault::new("no provider is configured").advise(advice)])
}

/// Stands for the key of a command that is not run.
const NOT_READ: &str = "not-read";

/// Warns of secrets that can be read on their way.
fn in_the_clear(name: &ProviderName, settings: &provider::Settings) -> Option<String> {
    let host = settings.plain_remote_host()?;
    let reads = |source: &HeaderSource| matches!(source, HeaderSource::Read(_));
    let sends_secrets = !settings.keys.is_empty() || settings.headers.values().any(reads);
    sends_secrets.then(|| {
        format!("{name}: its key is sent to {host} over plain http, where it can be read on the way; write https://")
    })
}

fn proxy_faults<'s>(env: Env<'_>, providers: impl Iterator<Item = &'s provider::Settings>) -> Faults {
    let fault = |(variable, advice): (&str, &str)| {
        Fault::new(format!("the environment variable {variable} is malformed")).advise(advice)
    };
    Faults(provider::malformed_proxies(env, providers).into_iter().map(fault).collect())
}

/// What to do about keys that a command gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Commands {
    Run,
    /// Take them to be there, and run nothing.
    Trust,
}

impl Commands {
    fn key(self, source: &KeySource, env: Env<'_>) -> Result<Option<Secret>, KeyError> {
        match source {
            KeySource::Command(_) if self == Self::Trust => Ok(Some(Secret::from(NOT_READ.to_owned()))),
            KeySource::Env(_) | KeySource::File(_) | KeySource::Command(_) => source.read(env),
        }
    }

    fn trusts_key(self, source: &KeySource) -> bool {
        self == Self::Trust && matches!(source, KeySource::Command(_))
    }

    fn trusts(self, header: &HeaderSource) -> bool {
        self == Self::Trust && matches!(header, HeaderSource::Read(KeySource::Command(_)))
    }
}

enum Found {
    Ready(Box<ReadyProvider>),
    /// The variables that are not set; of each list one would do.
    Missing(Vec<Vec<String>>),
}

fn read_keys(
    (name, settings): (&ProviderName, &provider::Settings),
    places: &KeyPlaces,
    env: Env<'_>,
    commands: Commands,
    notes: &mut Vec<String>,
) -> Result<Found, Faults> {
    let mut faults = Faults::default();
    let mut keys: Vec<Key> = Vec::new();
    let mut unset = Vec::new();
    for (number, source) in settings.keys.iter().enumerate() {
        match commands.key(source, env) {
            // A file may hold another key tomorrow.
            Ok(Some(secret))
                if file(source).is_none()
                    && !commands.trusts_key(source)
                    && keys.iter().any(|key| key.secret.expose() == secret.expose()) => {}
            Ok(Some(secret)) => keys.push(Key { label: label(source, &keys), secret, file: file(source) }),
            Ok(None) => unset.push(variable(source)),
            Err(error) => {
                let place = places.get(name, "keys", &number.to_string());
                faults.push(Fault { place, ..unreadable(name, &error) });
            }
        }
    }
    let mut headers = HeaderMap::new();
    let mut missing = Vec::new();
    for (header, source) in &settings.headers {
        if commands.trusts(source) {
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
                let place = places.get(name, "headers", header.as_str());
                faults.push(Fault { place, ..unreadable(name, &error) });
            }
        }
    }
    if keys.is_empty() && settings.needs_key() {
        missing.push(std::mem::take(&mut unset));
    }
    if !missing.is_empty() {
        return faults.or(Found::Missing(missing));
    }
    if !unset.is_empty() {
        let others = keys.iter().map(|key| key.label.as_str()).collect::<Vec<_>>().join(", ");
        notes.push(format!("{name}: {}, going on with {others}", not_set(&unset)));
    }
    faults.or(Found::Ready(Box::new(ReadyProvider { settings: settings.clone(), keys, headers })))
}

/// Two commands may run the same program: a number tells them apart.
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
        // As its label shows it: it may be a key by mistake.
        KeySource::Env(_) => source.label().as_str().trim_start_matches("env:").to_owned(),
        KeySource::File(_) | KeySource::Command(_) => source.label().to_string(),
    }
}

fn unreadable(name: &ProviderName, error: &KeyError) -> Fault {
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
    Fault::new(format!("provider `{name}`: {error}{cause}")).advise(error.advice())
}

fn not_set(variables: &[String]) -> String {
    match variables {
        [one] => format!("{one} is not set"),
        [one, other] => format!("neither {one} nor {other} is set"),
        many => format!("none of {} is set", many.join(", ")),
    }
}
